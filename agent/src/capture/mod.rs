//! From what a person or a file says to reports that may be saved: every check the agent makes by itself,
//! all faults of a draft at once.
//!
//! Nothing here touches the disk: what is already known is asked of a [`Known`].

mod fields;
pub(crate) mod value;

use banyan_shared::catalogue::rule::Severity;
use banyan_shared::catalogue::{Facts, Form, FormIx, check_report};
use banyan_shared::ids::Millis;
use banyan_shared::period::{Date, Period};
use banyan_shared::report::{Content, EnteredAt, How, Override, Reason, Value};
use banyan_shared::wire::FacilityScope;
use serde::{Deserialize, Serialize};

use crate::identity::Context;
use crate::note::{Note, note};
use crate::store::{Beyond, NewReport, ReportKey};

/// Most reports one draft makes: a year of days, and a few more.
pub(crate) const REPORTS_MAX: usize = 400;

/// A report as it was typed or read, not yet checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    /// The facility, by code or unique name; none for the home.
    pub facility: Option<String>,
    /// The form's code.
    pub form: String,
    /// A period, or a range of them.
    pub period: String,
    /// Element codes with values as written; an empty value is "missing".
    pub values: Vec<(String, String)>,
    /// The facility was closed: `open_days` and every other number asked is 0.
    pub closed: bool,
    /// Takes the report back.
    pub withdraw: bool,
    /// How it was entered; none for the usual way.
    pub how: Option<How>,
    /// Why it is corrected or withdrawn.
    pub reason: Option<Reason>,
    /// Why it is saved against a rule.
    pub override_code: Option<Override>,
    /// Who entered it.
    pub by: Option<String>,
    /// What the caller knows it by: a line in a file.
    pub tag: u32,
}

/// One element whose value changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The element.
    pub element: String,
    /// What it was: a number, `NA`, or nothing.
    pub before: String,
    /// What it is now.
    pub after: String,
}

/// What became of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The draft's tag.
    pub tag: u32,
    /// The facility.
    pub facility: String,
    /// The form.
    pub form: String,
    /// The period.
    pub period: String,
    /// Whether an earlier report of this agent was replaced.
    pub replaced: bool,
    /// What changed; empty if nothing did, and then nothing was saved.
    pub changes: Vec<Change>,
    /// Whether anything was saved: false if it says what was known already.
    pub saved: bool,
    /// Whether it takes the report back.
    pub withdrawn: bool,
    /// What a person should look at.
    pub warnings: Vec<Note>,
}

/// What is already known.
pub(crate) trait Known {
    /// The newest content of ours for a report, its values in the order of the lines of `form`.
    fn newest(&mut self, key: &ReportKey, form: FormIx) -> Result<Option<Content>, Note>;

    /// Whether the centre may hold of a report what is not known here, and why.
    fn beyond(&self, key: &ReportKey) -> Option<Beyond>;
}

/// The time, as far as it can be believed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time {
    /// The clock.
    pub(crate) now: Millis,
    /// Whether it is trusted.
    pub(crate) trusted: bool,
    /// The best guess at the true time.
    pub(crate) best: Millis,
    /// Today, by that.
    pub(crate) today: Date,
}

/// A checked report, and what to say of it.
pub(crate) struct Checked {
    pub(crate) saved: Saved,
    pub(crate) report: Option<NewReport>,
}

/// Checks a draft.
///
/// Errors: every fault found.
pub(crate) fn check(
    draft: &Draft,
    context: &Context,
    time: Time,
    known: &mut dyn Known,
) -> Result<Vec<Checked>, Vec<Note>> {
    let mut faults = Vec::new();
    let facility = fields::facility(draft, context, &mut faults);
    let form = fields::form(draft, context, facility, &mut faults);
    let periods = fields::periods(draft, form.map(|(_, form)| form), &mut faults);
    if let Some(by) = &draft.by {
        fields::person(by, &mut faults);
    }
    if let Some((_, form)) = form {
        fields::closed(draft, context, form, &mut faults);
    }
    let (Some((at, facility)), Some((form_ix, form))) = (facility, form) else {
        return Err(faults);
    };
    if periods.is_empty() {
        // The values can still be told to be wrong, on whatever day.
        let day = Period::day(time.today);
        if let Some(standing) = context.standing(facility, day) {
            fields::values(draft, context, form_ix, &standing, &mut faults);
        }
    }
    let mut checked = Vec::new();
    for period in periods {
        let one = One { draft, context, at, facility, form_ix, form, period, time };
        match one.check(known) {
            Ok(report) => checked.push(report),
            Err(more) => {
                for fault in more {
                    if !faults.contains(&fault) {
                        faults.push(fault);
                    }
                }
            }
        }
    }
    if faults.is_empty() { Ok(checked) } else { Err(faults) }
}

/// One report of one period.
struct One<'a> {
    draft: &'a Draft,
    context: &'a Context,
    at: u32,
    facility: &'a FacilityScope,
    form_ix: FormIx,
    form: &'a Form,
    period: Period,
    time: Time,
}

impl One<'_> {
    fn key(&self, period: Period) -> ReportKey {
        ReportKey { facility: self.facility.code.clone(), form: self.form.code.clone(), period }
    }

    fn check(&self, known: &mut dyn Known) -> Result<Checked, Vec<Note>> {
        let (draft, form, period) = (self.draft, self.form, self.period);
        let (mut faults, mut warnings) = (Vec::new(), Vec::new());
        // What a wrong clock let in can be taken back at any time.
        if !draft.withdraw {
            self.check_time(&mut faults, &mut warnings);
        }
        let facts = self.check_duty(&mut faults, &mut warnings);
        let asked: Vec<bool> = form
            .lines
            .iter()
            .map(|line| facts.as_ref().is_none_or(|(facts, day)| line.asks(facts, *day)))
            .collect();
        let values = match self.context.standing(self.facility, period) {
            Some(standing) => {
                fields::values(draft, self.context, self.form_ix, &standing, &mut faults)
            }
            None => Vec::new(),
        };
        let before = known.newest(&self.key(period), self.form_ix).map_err(|note| vec![note])?;
        let (unit, code) = (&self.facility.code, &form.code);
        if draft.withdraw && before.is_none() {
            faults.push(note!(
                Error,
                "nothing_to_withdraw",
                "本终端没有{unit} {code} {period}的报表可撤回",
                "this agent holds no report {code} {period} of {unit} to withdraw"
            ));
        }
        if !draft.withdraw && !draft.closed {
            let unnamed: Vec<&str> = (0..form.lines.len())
                .filter(|at| asked[*at] && values.iter().all(|(line, _)| line != at))
                .map(|at| self.element(at))
                .collect();
            if !unnamed.is_empty()
                && let Some(beyond) = known.beyond(&self.key(period))
            {
                faults.push(self.partial(beyond, &unnamed.join(", ")));
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let missing = || vec![Value::Missing; form.lines.len()];
        let standing = before.as_ref().filter(|content| !content.withdrawn);
        let old = standing.map_or_else(missing, |content| content.values.clone());
        let mut new = if draft.withdraw {
            missing()
        } else if draft.closed {
            asked.iter().map(|a| if *a { Value::Number(0) } else { Value::Missing }).collect()
        } else {
            old.clone()
        };
        for (line, value) in values {
            new[line] = value;
        }
        for (value, _) in new.iter_mut().zip(&asked).filter(|(_, asked)| !**asked) {
            *value = Value::Missing;
        }
        if !draft.withdraw {
            if standing.is_none() && !new.iter().any(|value| value.is_answer()) {
                return Err(vec![note!(
                    Error,
                    "empty_report",
                    "{period}没有任何数值：请写“数据元=数值”，未开诊用--closed",
                    "{period}: no value at all; give ELEMENT=NUMBER, or --closed if it was not open"
                )]);
            }
            let previous = known.newest(&self.key(period.plus(-1)), self.form_ix);
            let previous = previous.map_err(|note| vec![note])?;
            self.check_rules(&new, previous.as_ref(), &mut faults, &mut warnings);
            if !faults.is_empty() {
                return Err(faults);
            }
            self.note_missing(&new, &asked, &mut warnings);
        }
        let changes = self.changes(&old, &new);
        let anew = match &before {
            None => true,
            Some(content) => content.withdrawn != draft.withdraw || !changes.is_empty(),
        };
        let saved = Saved {
            tag: draft.tag,
            facility: unit.to_string(),
            form: code.to_string(),
            period: period.to_string(),
            replaced: before.is_some(),
            changes,
            saved: anew,
            withdrawn: draft.withdraw,
            warnings,
        };
        let report = anew.then(|| NewReport {
            key: self.key(period),
            facility: self.at,
            form: self.form_ix.0,
            content: self.content(new),
        });
        Ok(Checked { saved, report })
    }

    /// What to say where only a report in full may be saved.
    fn partial(&self, beyond: Beyond, unnamed: &str) -> Note {
        let period = self.period;
        let (zh, en) = match beyond {
            Beyond::Succession => (
                "本终端接替另一台终端，那台可能已报过",
                "this agent continues another one's history, and that one may have reported it",
            ),
            Beyond::Dropped => (
                "本机只保留400天，更早报过的已不在本机",
                "what was reported more than 400 days ago is no longer held here",
            ),
            Beyond::Lost => (
                "本机文件曾损坏，报过的可能已不在本机",
                "a file was damaged here, and what was reported may be lost with it",
            ),
        };
        note!(
            Error,
            "partial_report",
            "{period}：{zh}。保存会替换整份报表，为免清空中心已有的数，请写全各数据元；未写：{unnamed}\
             （没有数写“数据元=”，不适用写“数据元=NA”；导入时加 --empty missing）",
            "{period}: {en}. Saving replaces the whole report: lest values the centre has go missing, give \
             every element; not given: {unnamed} (ELEMENT= for missing, ELEMENT=NA for not applicable; with \
             import, --empty missing)"
        )
    }

    fn content(&self, values: Vec<Value>) -> Content {
        let draft = self.draft;
        // A report for another facility is a proxy's, whatever the caller thinks.
        let how = match draft.how {
            Some(How::Direct) | None if self.at != 0 => How::Proxy,
            Some(how) => how,
            None => How::Direct,
        };
        Content {
            values,
            how,
            entered_by: draft.by.clone(),
            reason: draft.reason,
            override_code: draft.override_code,
            withdrawn: draft.withdraw,
            entered_at: EnteredAt { minute: self.time.now.minute(), doubtful: !self.time.trusted },
            replaces: Vec::new(),
        }
    }

    fn check_time(&self, faults: &mut Vec<Note>, warnings: &mut Vec<Note>) {
        let (period, today) = (self.period, self.time.today);
        if period.first_day() <= today {
            return;
        }
        if self.time.trusted {
            faults.push(note!(
                Error,
                "future_period",
                "统计期{period}尚未开始（今天是{today}），请核对日期",
                "the period {period} has not begun (today is {today}): check the date"
            ));
        } else {
            warnings.push(note!(
                Warning,
                "future_period",
                "统计期{period}看来尚未开始，但本机时钟不可信（{today}）：请核对日期，并校准时钟",
                "the period {period} seems not to have begun, but this machine's clock is not trusted \
                 ({today}): check the date, and set the clock"
            ));
        }
    }

    /// Whether the facility reports this form in this period; gives what its lines are asked by.
    fn check_duty(
        &self,
        faults: &mut Vec<Note>,
        warnings: &mut Vec<Note>,
    ) -> Option<(Facts, Date)> {
        let (form, period, facility) = (self.form, self.period, self.facility);
        let (code, unit) = (&form.code, &facility.code);
        if !form.in_force(period) {
            faults.push(note!(
                Error,
                "form_not_in_force",
                "报表{code}在{period}未启用或已停用，请核对统计期",
                "the form {code} is not in force in {period}: check the period"
            ));
        }
        let standing = self.context.standing(facility, period);
        let known = standing.and_then(|s| s.facts.map(|facts| (facts, s.day, s.open)));
        let Some((facts, day, open)) = known else {
            warnings.push(note!(
                Warning,
                "kind_unknown",
                "本终端不知道{unit}在{period}的机构类型，报表将由中心核定",
                "the kind of {unit} in {period} is not known here: the centre will judge the report"
            ));
            return None;
        };
        if !open {
            warnings.push(note!(
                Warning,
                "not_open",
                "{unit}在{period}尚未登记或已关闭：可以保存，中心将暂存至登记更新",
                "{unit} is not registered or is closed in {period}: the report can be saved, the centre \
                 holds it back until the registry says otherwise"
            ));
        } else if !form.kinds.contains(&facts.kind) {
            let catalogue = &self.context.catalogue;
            let forms = fields::forms_of(self.context, facts.kind);
            let kind = &catalogue.kinds[facts.kind.at()].name;
            let (kind_zh, kind_en) = (&kind.zh, &kind.en);
            faults.push(note!(
                Error,
                "form_not_for_kind",
                "{unit}（{kind_zh}）不填报表{code}，应填：{forms}",
                "{unit} ({kind_en}) does not report the form {code}; it reports: {forms}"
            ));
        }
        Some((facts, day))
    }

    fn element(&self, line: usize) -> &str {
        self.context.catalogue.elements[self.form.lines[line].element.at()].code.as_str()
    }

    fn check_rules(
        &self,
        new: &[Value],
        previous: Option<&Content>,
        faults: &mut Vec<Note>,
        warnings: &mut Vec<Note>,
    ) {
        let (catalogue, period) = (&self.context.catalogue, self.period);
        let previous = previous.filter(|content| !content.withdrawn);
        let previous = previous.map(|content| content.values.as_slice());
        for broken in check_report(catalogue, self.form_ix, new, previous, period) {
            let (rule, part) = (broken.rule(catalogue), broken.part(catalogue));
            let (zh, en, text) = (&rule.message.zh, &rule.message.en, &part.text);
            if broken.severity == Severity::Error && self.draft.override_code.is_none() {
                faults.push(note!(
                    Error,
                    part.code.to_string(),
                    "{period}：{zh}（{text}）；请更正，属实则加 --override verified",
                    "{period}: {en} ({text}); correct it, or if it is true add --override verified"
                ));
            } else {
                warnings.push(note!(
                    Warning,
                    part.code.to_string(),
                    "{period}：{zh}（{text}）",
                    "{period}: {en} ({text})"
                ));
            }
        }
    }

    /// Points out required elements nobody has answered.
    fn note_missing(&self, new: &[Value], asked: &[bool], warnings: &mut Vec<Note>) {
        let missing: Vec<&str> = (0..self.form.lines.len())
            .filter(|at| self.form.lines[*at].required && asked[*at] && !new[*at].is_answer())
            .map(|at| self.element(at))
            .collect();
        if !missing.is_empty() {
            let (missing, period) = (missing.join(", "), self.period);
            warnings.push(note!(
                Warning,
                "incomplete",
                "{period}还缺：{missing}",
                "{period} still lacks: {missing}"
            ));
        }
    }

    fn changes(&self, old: &[Value], new: &[Value]) -> Vec<Change> {
        (0..self.form.lines.len())
            .filter(|at| old[*at] != new[*at])
            .map(|at| Change {
                element: self.element(at).to_owned(),
                before: value::show(old[at]),
                after: value::show(new[at]),
            })
            .collect()
    }
}
