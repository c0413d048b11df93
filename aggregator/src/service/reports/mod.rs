//! What operators decide about reports: corrections, withdrawals, counts from and to files, returns,
//! approvals, sign-offs, locks.
//!
//! Everything is planned by pure functions over the state, in the intake's turn, so that what an operator
//! was shown is what the act names; the service only brings the question in and the answer out.

mod change;
mod export;
mod import;
mod stages;

use anyhow::{Result, anyhow};
use banyan_shared::catalogue::{Class, FormIx, Lang};
use banyan_shared::ids::{AgentId, Epoch, Millis, UnitCode};
use banyan_shared::input::{Bad, Reporters, Standing};
use banyan_shared::limits::PERSON_BYTES_MAX;
use banyan_shared::organisation::{Organisation, UnitIx};
use banyan_shared::period::Period;
use banyan_shared::report::{Override, Reason};
use banyan_shared::tables::Fault;

use super::enrol::find_unit;
use super::{Service, say, usage};
use crate::act::Act;
use crate::query::QueryError;
use crate::state::State;

pub use change::{Change, ChangeCall, Changed, ReplacedVersion};
pub use export::{ExportCall, Exported};
pub use import::{BrokenRule, ImportCall, Imported, PART_ROWS_MAX};
pub use stages::{DecidedReport, DecisionCall, StageCall, Staged};

/// The centre as a writer of versions.
#[derive(Clone, Copy, Debug)]
struct Writer {
    id: AgentId,
    epoch: Epoch,
}

/// The report an operator speaks of.
#[derive(Clone, Debug)]
struct Subject {
    unit: UnitIx,
    code: UnitCode,
    form: FormIx,
    period: Period,
}

/// Finds the report, or says why there is none to speak of.
fn subject(
    state: &State,
    (facility, form, period): (&str, &str, &str),
    now: Millis,
    lang: Lang,
) -> Result<Subject> {
    let unit = find_unit(state, facility, now, lang)?;
    if !matches!(state.organisation.class(unit), Class::Facility | Class::Desk) {
        return Err(refused(QueryError::NotAReporter { place: facility.to_owned() }, lang));
    }
    let form_ix = known_form(state, form, lang)?;
    let model = &state.catalogue.forms[form_ix.at()];
    let period: Period =
        period.parse().map_err(|reason| refused(QueryError::Period { reason }, lang))?;
    if period.kind() != model.period_type {
        let (form, wants) = (form.to_owned(), model.period_type.name());
        let error = QueryError::WrongPeriodType { form, wants, text: period.to_string() };
        return Err(refused(error, lang));
    }
    let code = state.organisation.code(unit).clone();
    Ok(Subject { unit, code, form: form_ix, period })
}

fn refused(error: QueryError, lang: Lang) -> anyhow::Error {
    usage(error.text(lang))
}

/// The form with this code.
fn known_form(state: &State, form: &str, lang: Lang) -> Result<FormIx> {
    state.catalogue.form(form).ok_or_else(|| {
        let codes = state.catalogue.forms.iter().map(|f| f.code.as_str());
        let similar = crate::query::similar(form, codes);
        refused(QueryError::Unknown { what: "form", text: form.to_owned(), similar }, lang)
    })
}

/// A code out of a fixed list, or an error that lists them.
fn choice<T: Copy>(
    (what_zh, what_en): (&str, &str),
    text: &str,
    all: &[T],
    of: impl Fn(T) -> (&'static str, &'static str),
    lang: Lang,
) -> Result<T> {
    all.iter().copied().find(|one| of(*one).0 == text).ok_or_else(|| {
        let list = |(code, text)| format!("  {code}  {text}");
        let list: Vec<String> = all.iter().map(|one| list(of(*one))).collect();
        let list = list.join("\n");
        usage(say(
            lang,
            format!("没有{what_zh}代码“{text}”，请从以下代码中选择：\n{list}"),
            format!("there is no {what_en} {text:?}: choose one of\n{list}"),
        ))
    })
}

fn reason(text: &str, lang: Lang) -> Result<Reason> {
    choice(("更正原因", "reason"), text, Reason::ALL, |r| (r.code(), r.text(lang)), lang)
}

fn override_code(text: &str, lang: Lang) -> Result<Override> {
    choice(("强制保存", "override"), text, Override::ALL, |o| (o.code(), o.text(lang)), lang)
}

/// Checks a staff code.
fn person(text: &str, lang: Lang) -> Result<String> {
    let good = !text.is_empty()
        && text.len() <= PERSON_BYTES_MAX
        && !text.chars().any(|c| c.is_whitespace() || c.is_control());
    if good {
        return Ok(text.to_owned());
    }
    Err(usage(say(
        lang,
        format!("人员代码“{text}”须为 1 至 {PERSON_BYTES_MAX} 字节，且不含空格"),
        format!("the staff code {text:?} must have 1 to {PERSON_BYTES_MAX} bytes and no space"),
    )))
}

/// The centre's registry, as the reader of counts asks it.
#[derive(Debug)]
struct Registry<'a> {
    organisation: &'a Organisation,
    day: banyan_shared::period::Date,
}

impl Reporters for Registry<'_> {
    fn facility(&self, code: &str) -> Result<UnitCode, Bad> {
        use banyan_shared::organisation::{Found, Lookup};
        if let Some(unit) = self.organisation.unit(code) {
            if matches!(self.organisation.class(unit), Class::Facility | Class::Desk) {
                return Ok(self.organisation.code(unit).clone());
            }
            return Err(Bad::new(
                Fault::Unknown,
                "不是填报机构（是区划或外部单位），请填写机构代码",
                "is no facility or desk: give the code of one",
            ));
        }
        let meant = match self.organisation.find(code, self.day) {
            Lookup::One(Found::Unit(unit)) => vec![self.organisation.code(unit).to_string()],
            Lookup::One(Found::Network(_)) => Vec::new(),
            Lookup::Candidates(all) => all.into_iter().take(3).map(|one| one.code).collect(),
        };
        let (zh, en) = if meant.is_empty() {
            ("请核对代码，或先登记该机构".to_owned(), "check the code, or register it first".into())
        } else {
            let codes = meant.join("、");
            (format!("是否应为 {codes}？"), format!("did you mean {}?", meant.join(", ")))
        };
        Err(Bad::new(
            Fault::Unknown,
            format!("登记册中没有该机构，{zh}"),
            format!("the registry has no such facility: {en}"),
        ))
    }

    fn standing(
        &self,
        _: &banyan_shared::catalogue::Catalogue,
        code: &str,
        period: Period,
    ) -> Option<Standing> {
        let unit = self.organisation.unit(code)?;
        Some(standing(self.organisation, unit, period))
    }

    fn at_centre(&self) -> bool {
        true
    }
}

/// What a facility is for one period, by the registry.
fn standing(organisation: &Organisation, unit: UnitIx, period: Period) -> Standing {
    let open = organisation.duty_day(unit, period);
    let day = open.unwrap_or(period.last_day());
    Standing { day, open: open.is_some(), facts: Some(organisation.facts_on(unit, day)) }
}

/// Working days of the facility's calendar in `period`.
fn working_days(organisation: &Organisation, unit: UnitIx, period: Period) -> u32 {
    (0..period.day_count())
        .filter_map(|n| i32::try_from(n).ok())
        .filter(|n| organisation.is_working_day(unit, period.first_day().plus(*n)))
        .fold(0, |count, _| count + 1)
}

impl Service {
    fn writer(&self) -> Writer {
        let epoch = Epoch::centre(self.ledger.identity().incarnation);
        Writer { id: self.identity.key.public().agent_id(), epoch }
    }

    /// Plans acts in the intake's turn, stores them, and gives what was planned.
    async fn decide<T: Send + 'static>(
        &self,
        by: &str,
        plan: impl FnOnce(&State) -> Result<(Vec<Act>, T)> + Send + 'static,
    ) -> Result<T> {
        let (give, take) = tokio::sync::oneshot::channel();
        let build = move |state: &State| {
            let (acts, planned) = plan(state)?;
            // The receiver waits right below.
            let _ = give.send(planned);
            Ok(acts)
        };
        self.act(by, Box::new(build)).await?;
        take.await.map_err(|_| anyhow!("the service is stopping"))
    }
}

#[cfg(test)]
pub(super) mod tests;
