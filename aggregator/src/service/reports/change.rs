//! `correct` and `withdraw`: an operator's version of one report.

use anyhow::Result;
use banyan_shared::catalogue::rule::{ReportView, Severity, check_view};
use banyan_shared::catalogue::{FormIx, Lang};
use banyan_shared::ids::{Millis, VersionId};
use banyan_shared::input::parse_assignment;
use banyan_shared::limits::REPLACES_MAX;
use banyan_shared::report::{Content, EnteredAt, How, Override, Reason, Value};
use serde::{Deserialize, Serialize};

use super::{Subject, Writer, override_code, person, reason, standing, subject, working_days};
use crate::act::{Act, NewReport, Reports};
use crate::cube::Stored;
use crate::query::TraceValue;
use crate::service::{Service, say, usage};
use crate::state::{Known, State};

/// A correction or withdrawal of one report.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChangeCall {
    /// The facility.
    pub facility: String,
    /// The form.
    pub form: String,
    /// The period.
    pub period: String,
    /// `ELEMENT=VALUE` for each value that changes; the others keep theirs. Not with a withdrawal.
    pub values: Vec<String>,
    /// Why: a code of [`Reason`].
    pub reason: String,
    /// Why it is saved against a rule: a code of [`Override`].
    #[serde(rename = "override")]
    pub override_code: Option<String>,
    /// Whose decision it is, by staff code; none for whoever asks.
    pub by: Option<String>,
    /// Language of messages.
    pub lang: Lang,
}

/// One value that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The element.
    pub element: String,
    /// Its name.
    pub name: String,
    /// What was counted.
    pub before: TraceValue,
    /// What the operator says.
    pub after: TraceValue,
}

/// A version that no longer stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplacedVersion {
    /// Its identity.
    pub version: String,
    /// How it was entered.
    pub how: String,
    /// By whom.
    pub entered_by: Option<String>,
    /// When it was received.
    pub received_at: String,
}

/// What a correction or withdrawal did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The facility.
    pub facility: String,
    /// Its name.
    pub name: String,
    /// The form.
    pub form: String,
    /// The period.
    pub period: String,
    /// Whether anything was stored: false if it says what is counted already.
    pub saved: bool,
    /// Whether it takes the report back.
    pub withdrawn: bool,
    /// Whether it waits for an approval, the period being locked.
    pub pending: bool,
    /// The new version.
    pub version: Option<String>,
    /// What changes.
    pub changes: Vec<Change>,
    /// The versions it replaces.
    pub replaced: Vec<ReplacedVersion>,
    /// What a person should look at.
    pub warnings: Vec<String>,
}

/// A change as it was asked for, its codes read.
pub(super) struct Asked {
    pub(super) values: Vec<String>,
    pub(super) withdraw: bool,
    pub(super) reason: Reason,
    pub(super) override_code: Option<Override>,
    pub(super) by: String,
    pub(super) now: Millis,
    pub(super) lang: Lang,
}

impl Service {
    /// Corrects a report: the values named change, the others keep what is counted now; where nothing is
    /// counted, what would be if all that waits or stands returned were approved.
    ///
    /// # Errors
    /// [`super::super::Usage`] with every reason why it cannot be, or what the disk says.
    pub async fn correct(&self, by: &str, call: ChangeCall) -> Result<Changed> {
        if call.values.is_empty() {
            return Err(usage(say(
                call.lang,
                "请给出要更正的数，例如 total_visits=12、total_visits=NA 或 total_visits=（缺失）",
                "give what changes, for example total_visits=12, total_visits=NA or total_visits= (missing)",
            )));
        }
        self.change(by, call, false).await
    }

    /// Withdraws a report: everything returns to missing.
    ///
    /// # Errors
    /// As [`Service::correct`].
    pub async fn withdraw(&self, by: &str, call: ChangeCall) -> Result<Changed> {
        if !call.values.is_empty() {
            return Err(usage(say(
                call.lang,
                "撤回整张报表时不能带数值；更正请用 correct",
                "a withdrawal takes no values: to change some use correct",
            )));
        }
        self.change(by, call, true).await
    }

    async fn change(&self, by: &str, call: ChangeCall, withdraw: bool) -> Result<Changed> {
        let lang = call.lang;
        let asked = Asked {
            withdraw,
            reason: reason(&call.reason, lang)?,
            override_code: call.override_code.map(|o| override_code(&o, lang)).transpose()?,
            by: person(call.by.as_deref().unwrap_or(by), lang)?,
            values: call.values,
            now: self.now(),
            lang,
        };
        let (place, writer) = ((call.facility, call.form, call.period), self.writer());
        let plan = move |state: &State| {
            let subject = subject(state, (&place.0, &place.1, &place.2), asked.now, lang)?;
            plan(state, &subject, &asked, writer)
        };
        self.decide(by, plan).await
    }
}

/// Plans the operator's version; everything that speaks against it is said at once.
pub(super) fn plan(
    state: &State,
    subject: &Subject,
    asked: &Asked,
    writer: Writer,
) -> Result<(Vec<Act>, Changed)> {
    let lang = asked.lang;
    let Subject { unit, code, form, period } = subject;
    let model = &state.catalogue.forms[form.at()];
    let known = state.known(code, *form, *period);
    let mut faults = Vec::new();
    if !asked.withdraw {
        let today = state.catalogue.day_at(asked.now);
        if let Some(reason) = state.park_reason(&state.catalogue, code, *form, *period, today) {
            faults.push(format!("{code} {} {period}: {}", model.code, reason.text(lang)));
        }
    }
    let given = given(state, subject, asked, &mut faults);
    let counted = known.counted();
    if asked.withdraw && known.versions.iter().all(|version| version.content.withdrawn) {
        faults.push(say(
            lang,
            format!("{code} {} {period} 没有报表可撤回", model.code),
            format!("there is no report {} {period} of {code} to withdraw", model.code),
        ));
    }
    if !faults.is_empty() {
        return Err(usage(faults.join("\n")));
    }
    let missing = || vec![Value::Missing; model.lines.len()];
    let old = counted.map_or_else(missing, |version| known.values(version));
    let base = known.base(state.cube.lineage());
    let kept = base.filter(|_| !asked.withdraw);
    let mut new = kept.map_or_else(missing, |version| known.values(version));
    for (line, value) in given {
        new[line] = value;
    }
    let mut warnings = Vec::new();
    if !asked.withdraw {
        if known.versions.is_empty() && !new.iter().any(|value| value.is_answer()) {
            return Err(usage(say(
                lang,
                format!("{code} {} {period} 没有报表，也没有给出数值", model.code),
                format!("{code} has no report {} {period}, and no value is given", model.code),
            )));
        }
        warnings = rules(state, subject, &new, asked.override_code.is_some(), lang)?;
    }
    let changes = changes(state, *form, &old, &new, lang);
    let stands_withdrawn = counted.is_some_and(|version| version.content.withdrawn);
    let heads = known.heads(state.cube.lineage());
    // Of several versions that stand, naming them all settles the conflict even where no value changes.
    let saved = !changes.is_empty() || heads.len() > 1 || asked.withdraw != stands_withdrawn;
    if heads.len() > REPLACES_MAX {
        return Err(usage(say(
            lang,
            format!("并存的版本超过 {REPLACES_MAX} 个，无法一次更正"),
            format!("more than {REPLACES_MAX} versions stand: too many for one correction"),
        )));
    }
    let id = VersionId {
        writer: writer.id,
        epoch: writer.epoch,
        seq: state.next_number(writer.id, writer.epoch),
    };
    let replaced = |version: &&Stored| ReplacedVersion {
        version: version.id.to_string(),
        how: version.content.how.code().to_owned(),
        entered_by: version.content.entered_by.clone(),
        received_at: crate::service::lists::rfc3339(state, version.received_at),
    };
    let day = standing(&state.organisation, *unit, *period).day;
    let answer = Changed {
        facility: code.to_string(),
        name: state.organisation.name_on(*unit, day, lang).to_owned(),
        form: model.code.to_string(),
        period: period.to_string(),
        saved,
        withdrawn: asked.withdraw,
        pending: saved && state.cube.pending(code, &model.code, *period, id, None),
        version: saved.then(|| id.to_string()),
        changes,
        replaced: if saved { heads.iter().map(replaced).collect() } else { Vec::new() },
        warnings,
    };
    if !saved {
        return Ok((Vec::new(), answer));
    }
    let content = Content {
        values: new,
        how: How::Operator,
        entered_by: Some(asked.by.clone()),
        reason: Some(asked.reason),
        override_code: asked.override_code,
        withdrawn: asked.withdraw,
        entered_at: EnteredAt { minute: asked.now.minute(), doubtful: false },
        replaces: heads.iter().map(|version| version.id).collect(),
    };
    let report = NewReport { facility: code.clone(), form: *form, period: *period, content };
    let number = (writer.id, writer.epoch, id.seq);
    let acts = Reports::pack(number, state.catalogue.hash, vec![report]);
    Ok((acts.into_iter().map(Act::Reports).collect(), answer))
}

/// The values given, by line; what is wrong with one goes to `faults`.
fn given(
    state: &State,
    subject: &Subject,
    asked: &Asked,
    faults: &mut Vec<String>,
) -> Vec<(usize, Value)> {
    let standing = standing(&state.organisation, subject.unit, subject.period);
    let mut given: Vec<(usize, Value)> = Vec::new();
    for text in &asked.values {
        match parse_assignment(&state.catalogue, subject.form, &standing, text) {
            Ok((line, _)) if given.iter().any(|(known, _)| *known == line) => faults.push(say(
                asked.lang,
                format!("{text}：该数据元给出了两次，请只留一个"),
                format!("{text}: this element is given twice, keep one"),
            )),
            Ok(one) => given.push(one),
            Err(bad) => {
                let colon = say(asked.lang, "：", ": ");
                faults.push(format!("{text}{colon}{}", bad.message.get(asked.lang)));
            }
        }
    }
    given
}

/// The rules the report would break: an error stops it unless overridden, a warning is said.
fn rules(
    state: &State,
    subject: &Subject,
    new: &[Value],
    overridden: bool,
    lang: Lang,
) -> Result<Vec<String>> {
    let Subject { unit, code, form, period } = subject;
    let before: Known = state.known(code, *form, period.plus(-1));
    let previous = before.counted().map(|version| before.values(version));
    let view = ReportView {
        form: *form,
        values: new,
        previous: previous.as_deref(),
        period: *period,
        working_days: working_days(&state.organisation, *unit, *period),
    };
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    for broken in check_view(&state.catalogue, &view) {
        let (rule, part) = (broken.rule(&state.catalogue), broken.part(&state.catalogue));
        let colon = say(lang, "：", ": ");
        let text = format!("{}{colon}{} ({})", part.code, rule.message.get(lang), part.text);
        match broken.severity {
            Severity::Error if !overridden => errors.push(text),
            _ => warnings.push(text),
        }
    }
    if errors.is_empty() {
        return Ok(warnings);
    }
    let list: Vec<&str> = Override::ALL.iter().map(|code| code.code()).collect();
    let list = list.join("|");
    Err(usage(say(
        lang,
        format!("{}\n请核对；属实则加 --override {list}", errors.join("\n")),
        format!("{}\ncheck them; if they are true add --override {list}", errors.join("\n")),
    )))
}

/// What changes, by element.
pub(super) fn changes(
    state: &State,
    form: FormIx,
    old: &[Value],
    new: &[Value],
    lang: Lang,
) -> Vec<Change> {
    let lines = &state.catalogue.forms[form.at()].lines;
    (0..lines.len())
        .filter(|at| old[*at] != new[*at])
        .map(|at| {
            let element = &state.catalogue.elements[lines[at].element.at()];
            Change {
                element: element.code.to_string(),
                name: element.name.get(lang).to_owned(),
                before: old[at].into(),
                after: new[at].into(),
            }
        })
        .collect()
}
