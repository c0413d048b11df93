//! `return`, `approve`, `signoff`, `lock`, `unlock`: what operators decide about reports as they are.

use std::collections::BTreeMap;

use anyhow::Result;
use banyan_shared::catalogue::{FormIx, Lang};
use banyan_shared::figures;
use banyan_shared::ids::{AgentId, Epoch, Millis, UnitCode, VersionId};
use banyan_shared::organisation::{Found, Lookup, UnitIx};
use banyan_shared::period::{Date, Period, Span};
use banyan_shared::report::{Reason, Value, VersionVector, current};
use serde::{Deserialize, Serialize};

use super::change::{Change, changes};
use super::{Subject, known_form, person, reason, refused, standing, subject};
use crate::act::{Act, Cover, Covered, OneReport, Stage, StageChange};
use crate::query::QueryError;
use crate::service::{Service, few_periods, say, usage};
use crate::state::{Known, State};

/// Most reports one sign-off or lock may cover: a province's daily reports of a month.
const REPORTS_MAX: usize = 1_000_000;

/// A report to be returned or approved.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DecisionCall {
    /// The facility.
    pub facility: String,
    /// The form.
    pub form: String,
    /// The period.
    pub period: String,
    /// Why: a code of [`Reason`].
    pub reason: String,
    /// Whose decision it is, by staff code; none for whoever asks.
    pub by: Option<String>,
    /// Language of messages.
    pub lang: Lang,
}

/// What was decided about a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecidedReport {
    /// The facility.
    pub facility: String,
    /// Its name.
    pub name: String,
    /// The form.
    pub form: String,
    /// The period.
    pub period: String,
    /// `returned` or `approved`.
    pub decision: String,
    /// The versions it is about.
    pub versions: Vec<String>,
    /// What changes in the figures.
    pub changes: Vec<Change>,
}

/// The reports of a place to be signed off, locked or opened again.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StageCall {
    /// A unit or network.
    pub unit: String,
    /// The form.
    pub form: String,
    /// The period or range: every period of the form that lies whole in it.
    pub period: String,
    /// Whose decision it is, by staff code; none for whoever asks.
    pub by: Option<String>,
    /// Language of messages.
    pub lang: Lang,
}

/// The stage reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// The unit or network.
    pub unit: String,
    /// The form.
    pub form: String,
    /// The period or range.
    pub period: String,
    /// `open`, `signed` or `locked`.
    pub stage: String,
    /// Whether anything was stored: false if all of it had reached the stage.
    pub saved: bool,
    /// Reports it covers, whether there or not.
    pub covered: u64,
    /// Of them: answered.
    pub answered: u64,
    /// Versions that wait for an approval.
    pub pending: u64,
}

/// Plans a decision about one report.
type PlanOne = fn(&State, &Subject, OneReport, Lang) -> Result<(Act, DecidedReport)>;

impl Service {
    /// Returns a report for correction: what is there no longer counts, until it is entered again or
    /// approved.
    ///
    /// # Errors
    /// [`super::super::Usage`] saying why it cannot be, or what the disk says.
    pub async fn return_report(&self, by: &str, call: DecisionCall) -> Result<DecidedReport> {
        self.decide_report(by, call, plan_return).await
    }

    /// Approves the versions of a report that wait, behind a lock or returned.
    ///
    /// # Errors
    /// [`super::super::Usage`] saying why it cannot be, or what the disk says.
    pub async fn approve(&self, by: &str, call: DecisionCall) -> Result<DecidedReport> {
        self.decide_report(by, call, plan_approval).await
    }

    async fn decide_report(
        &self,
        by: &str,
        call: DecisionCall,
        plan: PlanOne,
    ) -> Result<DecidedReport> {
        let lang = call.lang;
        let why = reason(&call.reason, lang)?;
        let person = person(call.by.as_deref().unwrap_or(by), lang)?;
        let now = self.now();
        let plan = move |state: &State| {
            let place = (&*call.facility, &*call.form, &*call.period);
            let subject = subject(state, place, now, lang)?;
            let (act, done) =
                plan(state, &subject, one_report(state, &subject, why, person), lang)?;
            Ok((vec![act], done))
        };
        self.decide(by, plan).await
    }

    /// Brings the reports of a place to a stage.
    ///
    /// # Errors
    /// [`super::super::Usage`] saying why it cannot be, or what the disk says.
    pub async fn stage(&self, by: &str, stage: Stage, call: StageCall) -> Result<Staged> {
        let person = person(call.by.as_deref().unwrap_or(by), call.lang)?;
        let now = self.now();
        let plan = move |state: &State| plan_stage(state, &call, stage, person, now);
        self.decide(by, plan).await
    }
}

pub(super) fn one_report(
    state: &State,
    subject: &Subject,
    reason: Reason,
    by: String,
) -> OneReport {
    OneReport {
        facility: subject.code.clone(),
        form: state.catalogue.forms[subject.form.at()].code.clone(),
        period: subject.period,
        reason,
        by,
    }
}

/// The versions of a report that wait for an approval.
fn waiting(state: &State, subject: &Subject, known: &Known) -> Vec<VersionId> {
    let form = &state.catalogue.forms[subject.form.at()].code;
    let ids = known.versions.iter().map(|version| version.id);
    ids.filter(|id| state.cube.waits(&subject.code, form, subject.period, *id)).collect()
}

fn answer(
    state: &State,
    subject: &Subject,
    decision: &str,
    versions: impl Iterator<Item = VersionId>,
    (old, new): (&[Value], &[Value]),
    lang: Lang,
) -> DecidedReport {
    let day = standing(&state.organisation, subject.unit, subject.period).day;
    DecidedReport {
        facility: subject.code.to_string(),
        name: state.organisation.name_on(subject.unit, day, lang).to_owned(),
        form: state.catalogue.forms[subject.form.at()].code.to_string(),
        period: subject.period.to_string(),
        decision: decision.to_owned(),
        versions: versions.map(|id| id.to_string()).collect(),
        changes: changes(state, subject.form, old, new, lang),
    }
}

fn values_or_missing(state: &State, form: FormIx, known: &Known, at: Option<usize>) -> Vec<Value> {
    let lines = state.catalogue.forms[form.at()].lines.len();
    at.map_or_else(|| vec![Value::Missing; lines], |at| known.values(&known.versions[at]))
}

pub(super) fn plan_return(
    state: &State,
    subject: &Subject,
    report: OneReport,
    lang: Lang,
) -> Result<(Act, DecidedReport)> {
    let known = state.known(&subject.code, subject.form, subject.period);
    let Some(counted) = known.counted() else {
        let (form, period) = (&report.form, report.period);
        let returned = known.report.as_ref().is_some_and(|report| report.returned);
        return Err(usage(if returned {
            say(
                lang,
                format!("{} {form} {period} 已退回，尚未重新录入", subject.code),
                format!("{form} {period} of {} stands returned already", subject.code),
            )
        } else {
            say(
                lang,
                format!("{} {form} {period} 没有可退回的报表", subject.code),
                format!("there is no report {form} {period} of {} to return", subject.code),
            )
        }));
    };
    let old = known.values(counted);
    let missing = values_or_missing(state, subject.form, &known, None);
    let seen = vector(known.versions.iter().map(|version| version.id));
    let ids = known.versions.iter().map(|version| version.id);
    let done = answer(state, subject, "returned", ids, (&old, &missing), lang);
    Ok((Act::Returned { report, seen }, done))
}

pub(super) fn plan_approval(
    state: &State,
    subject: &Subject,
    report: OneReport,
    lang: Lang,
) -> Result<(Act, DecidedReport)> {
    let known = state.known(&subject.code, subject.form, subject.period);
    let versions = waiting(state, subject, &known);
    if versions.is_empty() {
        let (form, period) = (&report.form, report.period);
        return Err(usage(say(
            lang,
            format!("{} {form} {period} 没有待批准的版本", subject.code),
            format!("nothing of {form} {period} of {} waits for an approval", subject.code),
        )));
    }
    let counted = known.counted();
    let before = counted.and_then(|counted| known.versions.iter().position(|v| v.id == counted.id));
    // What waits is all that is not admitted, so that every version takes part afterwards.
    let after = current(&known.list(), state.cube.lineage()).map(|(at, _)| at);
    let old = values_or_missing(state, subject.form, &known, before);
    let new = values_or_missing(state, subject.form, &known, after);
    let ids = versions.iter().copied();
    let done = answer(state, subject, "approved", ids, (&old, &new), lang);
    Ok((Act::Approved { report, versions }, done))
}

/// The highest number of each writer's life.
fn vector(ids: impl Iterator<Item = VersionId>) -> VersionVector {
    let mut vector = VersionVector::new();
    for id in ids {
        let seq = vector.entry((id.writer, id.epoch)).or_default();
        *seq = (*seq).max(id.seq);
    }
    vector
}

/// The reports a sign-off, lock or opening covers, period by period; none if there are more than
/// [`REPORTS_MAX`].
fn covered(
    state: &State,
    place: Found,
    form: FormIx,
    periods: &[Period],
) -> Option<Vec<Vec<UnitIx>>> {
    let organisation = &state.organisation;
    let kinds = &state.catalogue.forms[form.at()].kinds;
    let mut room = REPORTS_MAX;
    let mut covered = Vec::with_capacity(periods.len());
    for period in periods {
        let all: Vec<(UnitIx, Date)> = match place {
            Found::Unit(unit) => organisation.facilities_below_in(unit, *period),
            Found::Network(network) => organisation.facilities_in_during(network, *period),
        };
        let reports =
            |(unit, day): &(UnitIx, Date)| kinds.contains(&organisation.kind_on(*unit, *day));
        let units: Vec<UnitIx> = all.into_iter().filter(reports).map(|(unit, _)| unit).collect();
        room = room.checked_sub(units.len())?;
        covered.push(units);
    }
    Some(covered)
}

pub(super) fn plan_stage(
    state: &State,
    call: &StageCall,
    stage: Stage,
    by: String,
    now: Millis,
) -> Result<(Vec<Act>, Staged)> {
    let lang = call.lang;
    let span: Span =
        call.period.parse().map_err(|reason| refused(QueryError::Period { reason }, lang))?;
    let form = known_form(state, &call.form, lang)?;
    let model = &state.catalogue.forms[form.at()];
    let place = match state.organisation.find(&call.unit, span.last_day()) {
        Lookup::One(found) => found,
        Lookup::Candidates(candidates) => {
            return Err(refused(QueryError::Place { text: call.unit.clone(), candidates }, lang));
        }
    };
    let code = match place {
        Found::Unit(unit) => state.organisation.code(unit).to_string(),
        Found::Network(network) => state.organisation.network_code(network).to_string(),
    };
    let periods = few_periods(span, model.period_type, lang)?;
    if periods.is_empty() {
        let (form, wants) = (model.code.to_string(), model.period_type.name());
        return Err(refused(
            QueryError::WrongPeriodType { form, wants, text: span.to_string() },
            lang,
        ));
    }
    let open_yet = periods.iter().find(|p| figures::ended_at(&state.catalogue, **p) > now);
    if let Some(period) = open_yet.filter(|_| stage != Stage::Open) {
        return Err(usage(say(
            lang,
            format!("{period} 尚未结束，不能签核或锁定"),
            format!("{period} has not ended: it cannot be signed off or locked yet"),
        )));
    }
    let Some(units) = covered(state, place, form, &periods) else {
        return Err(usage(say(
            lang,
            format!("涉及的报表超过 {REPORTS_MAX} 张：请缩短统计期或按市县分别进行"),
            format!(
                "more than {REPORTS_MAX} reports at once: take a shorter period, or part by part"
            ),
        )));
    };
    let all: usize = units.iter().map(Vec::len).sum();
    if all == 0 {
        return Err(usage(say(
            lang,
            format!("{code} 在 {span} 没有填报 {} 的机构", model.code),
            format!("no facility of {code} reports {} in {span}", model.code),
        )));
    }
    let mut seal = Seal::default();
    for (period, units) in periods.iter().zip(&units) {
        seal.take(state, form, *period, units, stage);
    }
    if stage == Stage::Signed && seal.locked > 0 {
        return Err(usage(say(
            lang,
            format!("其中 {} 张报表已锁定，无需签核；要更改请先 unlock", seal.locked),
            format!(
                "{} of the reports are locked already: to change that, unlock them first",
                seal.locked
            ),
        )));
    }
    let done = Staged {
        unit: code.clone(),
        form: model.code.to_string(),
        period: span.to_string(),
        stage: stage.code().to_owned(),
        saved: seal.moves,
        covered: all as u64,
        answered: seal.answered,
        pending: seal.pending,
    };
    if !seal.moves {
        return Ok((Vec::new(), done));
    }
    let what = (code, model.code.clone(), span.to_string());
    let cover = seal.cover();
    Ok((vec![Act::Stage(StageChange::new(what, stage, by, &cover))], done))
}

/// What a sign-off or lock covers, while it is put together.
#[derive(Default)]
struct Seal {
    facilities: Vec<UnitCode>,
    places: BTreeMap<UnitIx, u32>,
    lives: Vec<(AgentId, Epoch)>,
    numbers: BTreeMap<(AgentId, Epoch), u32>,
    periods: Vec<Covered>,
    answered: u64,
    pending: u64,
    locked: u64,
    /// Whether any report is not at the stage yet, or was seen otherwise before.
    moves: bool,
}

fn next(length: usize) -> u32 {
    u32::try_from(length).expect("fewer than 2^32 facilities report and agents write")
}

impl Seal {
    fn take(
        &mut self,
        state: &State,
        form: FormIx,
        period: Period,
        units: &[UnitIx],
        stage: Stage,
    ) {
        let code = &state.catalogue.forms[form.at()].code;
        let store = state.cube.form(code);
        // Looked up once: an older month may have to be read from the disk.
        let block = store.and_then(|store| store.block(period));
        let mut covered = Covered { period, facilities: Vec::new(), seen: Vec::new() };
        for unit in units {
            let facility = state.organisation.code(*unit);
            let place = *self.places.entry(*unit).or_insert_with(|| {
                self.facilities.push(facility.clone());
                next(self.facilities.len() - 1)
            });
            covered.facilities.push(place);
            let slot = state.cube.facility(facility).and_then(|f| store.and_then(|s| s.slot(f)));
            let here = slot.zip(store);
            let now = here.map_or(Stage::Open, |(slot, s)| s.stage(period, slot, None));
            self.locked += u64::from(now == Stage::Locked);
            if let Some((slot, block)) = slot.zip(block.as_deref()) {
                self.answered += u64::from(block.answered(slot));
                self.pending += block.pending(slot) as u64;
            }
            if stage == Stage::Open {
                self.moves |= now != stage;
                continue;
            }
            let ids = here.zip(block.as_deref()).map_or_else(Vec::new, |((slot, store), block)| {
                state.cube.admitted(store, (period, slot), block)
            });
            let seen = vector(ids.into_iter());
            // A new sign-off of what has changed since the last is one of something else.
            let changed =
                || here.and_then(|(slot, s)| s.sealed(period, slot)) != Some(seen.clone());
            self.moves |= now != stage || stage == Stage::Signed && changed();
            for ((writer, epoch), seq) in seen {
                let life = *self.numbers.entry((writer, epoch)).or_insert_with(|| {
                    self.lives.push((writer, epoch));
                    next(self.lives.len() - 1)
                });
                covered.seen.push((place, life, seq));
            }
        }
        self.periods.push(covered);
    }

    fn cover(self) -> Cover {
        (self.facilities, self.lives, self.periods)
    }
}
