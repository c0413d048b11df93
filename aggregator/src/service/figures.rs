//! Questions for figures as they come from the command line and the API.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use banyan_shared::catalogue::{Catalogue, Lang};
use banyan_shared::figures::ReconciliationLine;
use banyan_shared::ids::{FormCode, Millis, Position};
use banyan_shared::organisation::{Found, Lookup, Organisation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::lists::rfc3339;
use super::{Busy, Service, say, usage};
use crate::cube::Cube;
use crate::intake::SharedState;
use crate::query::{
    AnomaliesAnswer, AnomaliesRequest, CompletenessAnswer, CompletenessRequest, Engine, Plans,
    QueryAnswer, QueryError, QueryRequest, SiteStates, Trace, anomalies_csv, anomalies_table,
    completeness_csv, completeness_table, query_csv, query_table, span_of, trace_csv, trace_table,
};
use crate::state::{Recorded, State};

/// Most organisations of the past kept: one of a province has some ten megabytes.
const PAST_MAX: usize = 4;
/// How old what is known of sites may be in an answer, in ms, once there are many agents.
const SITES_AGE_MAX_MS: i64 = 1000;
/// With fewer agents it is always fresh.
const AGENTS_FRESH_MAX: usize = 2000;
/// A question about more days of facilities than this takes its turn: a province's month.
const HEAVY_FACILITY_DAYS: u64 = 500_000;
/// How often a question is worked out again because older months changed under it.
const ATTEMPTS_MAX: usize = 3;

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    Table,
    /// For programs; the API's default.
    #[default]
    Json,
    /// For spreadsheets.
    Csv,
}

/// What a request is answered with.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A value; a text is one for people.
    Value(Value),
    /// JSON as it goes out. Making a tree of values of a large answer first takes longer than answering.
    Json(String),
}

impl Answer {
    /// As a value.
    ///
    /// # Errors
    /// If it is not JSON after all.
    pub fn into_value(self) -> Result<Value> {
        Ok(match self {
            Answer::Value(value) => value,
            Answer::Json(text) => serde_json::from_str(&text)?,
        })
    }
}

/// A question for figures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueryCall {
    /// A unit or network.
    pub unit: String,
    /// The period or range.
    pub period: String,
    /// Dimensions.
    pub by: Vec<String>,
    /// The kind of network meant.
    pub network: Option<String>,
    /// Elements.
    pub element: Vec<String>,
    /// Indicators.
    pub indicator: Vec<String>,
    /// `as_it_was`, `today` or a date.
    pub membership: Option<String>,
    /// As known at this moment (RFC 3339).
    pub as_of: Option<String>,
    /// Names and paths with every key.
    pub names: bool,
    /// How to write the answer.
    pub format: Format,
    /// In which language.
    pub lang: Lang,
}

/// A question about completeness.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompletenessCall {
    /// A unit or network.
    pub unit: String,
    /// The period or range.
    pub period: String,
    /// Only this form.
    pub form: Option<String>,
    /// Dimensions.
    pub by: Vec<String>,
    /// The kind of network meant.
    pub network: Option<String>,
    /// `as_it_was`, `today` or a date.
    pub membership: Option<String>,
    /// As known at this moment (RFC 3339).
    pub as_of: Option<String>,
    /// How to write the answer.
    pub format: Format,
    /// In which language.
    pub lang: Lang,
}

/// A question about broken rules.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AnomaliesCall {
    /// A unit or network.
    pub unit: String,
    /// The period or range.
    pub period: String,
    /// Only this form.
    pub form: Option<String>,
    /// Only this rule, or this part of one.
    pub rule: Option<String>,
    /// Only rules of this scope.
    pub scope: Option<String>,
    /// As known at this moment (RFC 3339).
    pub as_of: Option<String>,
    /// How to write the answer.
    pub format: Format,
    /// In which language.
    pub lang: Lang,
}

/// A question for the trace of a number.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReportCall {
    /// The facility.
    pub facility: String,
    /// The form.
    pub form: String,
    /// The period.
    pub period: String,
    /// With every version.
    pub history: bool,
    /// As known at this moment (RFC 3339).
    pub as_of: Option<String>,
    /// How to write the answer.
    pub format: Format,
    /// In which language.
    pub lang: Lang,
}

/// The parameters of a query string as a call's fields. Lists are divided by commas or given again, flags are
/// `true` (also without a value) or `false`.
///
/// # Errors
/// [`super::Usage`] naming a flag that is neither, or what is given twice and is no list.
pub fn parameters(given: Vec<(String, String)>) -> Result<serde_json::Map<String, Value>> {
    let mut fields = serde_json::Map::new();
    for (name, text) in given {
        let value = match name.as_str() {
            "by" | "element" | "indicator" => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                let list = fields.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                list.as_array_mut()
                    .expect("only lists have these names")
                    .extend(parts.map(Into::into));
                continue;
            }
            "names" | "history" => match text.as_str() {
                "" | "1" | "true" => true.into(),
                "0" | "false" => false.into(),
                _ => return Err(usage(format!("{name}={text:?}: write true or false"))),
            },
            _ => text.into(),
        };
        if fields.insert(name.clone(), value).is_some() {
            return Err(usage(format!("{name} is given twice")));
        }
    }
    Ok(fields)
}

/// What was worked out for one catalogue and one organisation, and what is known of sites; and the same
/// for a few moments of the past.
#[derive(Default)]
pub struct PlanCache {
    plans: Mutex<Option<Planned>>,
    sites: Mutex<Option<KnownSites>>,
    past: Mutex<Vec<(Position, Planned)>>,
    past_sites: Mutex<Vec<PastSites>>,
}

/// What was known of sites at a moment, as read at a position of the ledger.
type PastSites = ((Millis, Position), Arc<SiteStates>);

/// Plans with the catalogue and organisation they hold for.
type Planned = (Arc<Catalogue>, Arc<Organisation>, Arc<Plans>);

/// What is kept under a key, the newest at the end; made and kept if it is not there.
fn kept_or<K: PartialEq, V: Clone, E>(
    kept: &Mutex<Vec<(K, V)>>,
    key: K,
    make: impl FnOnce() -> Result<V, E>,
) -> Result<V, E> {
    let lock = || kept.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, value)) = lock().iter().find(|(known, _)| *known == key) {
        return Ok(value.clone());
    }
    // Made outside the lock: others may go on meanwhile.
    let value = make()?;
    let mut kept = lock();
    if kept.len() >= PAST_MAX {
        kept.remove(0);
    }
    kept.push((key, value.clone()));
    Ok(value)
}

/// What a question was answered from.
pub(super) struct Model {
    catalogue: Arc<Catalogue>,
    pub(super) organisation: Arc<Organisation>,
    /// The ledger's position up to which everything in the answer is known.
    pub(super) position: Position,
}

/// What a question is answered from: the state between two commits, without holding on to its lock. The
/// intake goes on meanwhile; it copies a block before it changes one that is looked at here.
pub(super) struct Basis {
    pub(super) model: Model,
    cube: Cube,
    sites: Arc<SiteStates>,
    plans: Arc<Plans>,
    /// How often older months had changed.
    rewritten: u64,
}

impl Basis {
    pub(super) fn engine(&self) -> Engine<'_> {
        Engine {
            catalogue: &self.model.catalogue,
            organisation: &self.model.organisation,
            cube: &self.cube,
            sites: &self.sites,
            plans: &self.plans,
        }
    }

    /// Whether the cube can still be read as it was.
    fn holds(&self) -> bool {
        self.cube.older_rewritten() == self.rewritten
    }
}

/// What a question about the past is answered from.
pub(crate) struct PastModel {
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) organisation: Arc<Organisation>,
    pub(crate) at: Millis,
}

struct KnownSites {
    stamp: (u64, u64),
    made: Millis,
    sites: Arc<SiteStates>,
}

impl PlanCache {
    pub(super) fn plans(&self, state: &State) -> Arc<Plans> {
        let mut kept = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((catalogue, organisation, plans)) = &*kept
            && Arc::ptr_eq(catalogue, &state.catalogue)
            && Arc::ptr_eq(organisation, &state.organisation)
        {
            return plans.clone();
        }
        let plans = Arc::new(Plans::default());
        *kept = Some((state.catalogue.clone(), state.organisation.clone(), plans.clone()));
        plans
    }

    fn sites(&self, state: &State, now: Millis) -> Arc<SiteStates> {
        let stamp = (state.position, state.heard);
        let mut kept = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*kept {
            let young = known.made.plus(SITES_AGE_MAX_MS) > now && known.made <= now;
            if known.stamp == stamp || young && state.agents.len() > AGENTS_FRESH_MAX {
                return known.sites.clone();
            }
        }
        let sites = Arc::new(site_states(state, None));
        *kept = Some(KnownSites { stamp, made: now, sites: sites.clone() });
        sites
    }

    /// Catalogue, organisation and plans of what was recorded by some moment.
    fn past(&self, recorded: &Recorded, lang: Lang) -> Result<Planned> {
        kept_or(&self.past, recorded.position, || {
            let organisation = recorded.organisation().map_err(|errors| {
                let first = errors.first().map_or_else(String::new, |error| error.text(lang));
                anyhow::anyhow!("the registry of ledger position {}: {first}", recorded.position)
            })?;
            Ok((recorded.catalogue.clone(), Arc::new(organisation), Arc::new(Plans::default())))
        })
    }

    /// What was known of sites at a moment of the past, read at a position of the ledger.
    fn past_sites(
        &self,
        state: &SharedState,
        (cube, position): (&Cube, Position),
        at: Millis,
    ) -> Arc<SiteStates> {
        let make = || {
            let mut known = known_of_sites(&state.read(), Some(at));
            mark_returned(&mut known, cube, Some(at));
            Ok::<_, std::convert::Infallible>(Arc::new(known))
        };
        let Ok(sites) = kept_or(&self.past_sites, (at, position), make);
        sites
    }
}

/// What the state knows of sites; what was recorded of them by a moment of the past (beacons are no
/// history).
pub(crate) fn site_states(state: &State, past: Option<Millis>) -> SiteStates {
    let mut known = known_of_sites(state, past);
    mark_returned(&mut known, &state.cube, past);
    known
}

fn mark_returned(known: &mut SiteStates, cube: &Cube, past: Option<Millis>) {
    for (facility, form, period) in cube.returned_reports(past) {
        known.mark_mut(facility, form.clone(), period).returned = true;
    }
}

/// What the state knows of sites beside the reports returned.
fn known_of_sites(state: &State, past: Option<Millis>) -> SiteStates {
    let mut known = SiteStates::default();
    for agent in state.agents.values() {
        let present = agent.revoked.is_none().then_some(agent.newest);
        let context = past.map_or(present, |at| agent.context_at(at));
        let context = context.and_then(|number| state.contexts.get(&number));
        let Some(context) = context else { continue };
        let heard = agent.beacon.as_ref().map(|(at, _)| *at).max(agent.last_receipt);
        for (at, facility) in context.facilities.iter().enumerate() {
            let site = known.sites.entry(facility.clone()).or_default();
            site.enrolled =
                Some(site.enrolled.map_or(agent.admitted_at, |s| s.min(agent.admitted_at)));
            site.last_heard = site.last_heard.max(heard);
            // A beacon counts entries, not facilities: they are put down to the agent's home.
            if at == 0
                && let Some((_, beacon)) = &agent.beacon
            {
                site.backlog += u64::from(beacon.waiting);
            }
        }
    }
    let by_then = |moment: Millis| past.is_none_or(|at| moment <= at);
    for parked in state.parked.values().filter(|parked| by_then(parked.version.received_at)) {
        let Some(held) = state.catalogues.get(&parked.catalogue) else { continue };
        let form = held.catalogue.forms[parked.version.form.at()].code.clone();
        known.mark_mut(&parked.facility, form, parked.version.period).parked = true;
    }
    let refused = state.refused.values().filter(|refused| by_then(refused.received_at));
    let settled = state.history.settled.iter();
    let settled = settled
        .filter(|(refused, until)| past.is_some_and(|at| refused.received_at <= at && at < *until));
    for refused in refused.chain(settled.map(|(refused, _)| refused)) {
        if let (Some(facility), Some(form), Some(period)) =
            (&refused.facility, &refused.form, refused.period)
            && let Ok(form) = form.parse::<FormCode>()
        {
            known.mark_mut(facility, form, period).refused = true;
        }
    }
    for entry in &state.history.released {
        if past.is_some_and(|at| entry.received_at <= at && at < entry.released_at) {
            let (facility, form, period) = &entry.report;
            known.mark_mut(facility, form.clone(), *period).parked = true;
        }
    }
    known
}

/// Reads the moment of a question.
pub(super) fn moment(text: Option<&str>, lang: Lang) -> Result<Option<Millis>> {
    text.map(|text| {
        text.parse::<jiff::Timestamp>().map(Millis::from).map_err(|error| {
            usage(say(
                lang,
                format!("as-of“{text}”不是时刻：请写 2026-02-10T09:00:00+08:00 这样的时刻"),
                format!("as-of {text:?}: write a time like 2026-02-10T09:00:00+08:00 ({error})"),
            ))
        })
    })
    .transpose()
}

/// A question as the engine takes it.
fn request(call: &QueryCall) -> Result<QueryRequest> {
    let membership = call.membership.as_deref().unwrap_or("as_it_was").parse();
    Ok(QueryRequest {
        place: call.unit.clone(),
        period: call.period.clone(),
        by: call.by.clone(),
        network: call.network.clone(),
        elements: call.element.clone(),
        indicators: call.indicator.clone(),
        membership: membership.map_err(|e: QueryError| usage(e.text(call.lang)))?,
        as_of: moment(call.as_of.as_deref(), call.lang)?,
        names: call.names,
    })
}

/// What was in force at a moment.
fn recorded(state: &State, at: Millis, lang: Lang) -> Result<Recorded> {
    state.recorded(at).ok_or_else(|| {
        let since = state.history.begins().map_or_else(String::new, |at| rfc3339(state, at));
        usage(say(
            lang,
            format!("本中心自 {since} 起才有记录，请选此后的时刻"),
            format!("nothing was recorded here before {since}: ask for a later moment"),
        ))
    })
}

/// Whether a question is about so much that it waits for its turn.
pub(super) fn is_heavy(model: &Model, (place, period): (&str, &str)) -> bool {
    let org = &*model.organisation;
    let Ok(span) = span_of(period) else { return false };
    let (first, last) = (span.first_day(), span.last_day());
    let days = u64::try_from(last.days() - first.days() + 1).unwrap_or(0);
    let facilities = match org.find(place, last) {
        Lookup::One(Found::Unit(unit)) => org.facilities_below(unit, last).len(),
        Lookup::One(Found::Network(network)) => org.facilities_in(network, last).len(),
        Lookup::Candidates(_) => 0,
    };
    days.saturating_mul(facilities as u64) > HEAVY_FACILITY_DAYS
}

impl Service {
    /// Answers from what is known now, or from what was known at `as_of`: counts, catalogue, organisation
    /// and agents as recorded by then. Says from what. `about`: the place and period asked for; a question
    /// about many facilities or days waits for its turn.
    pub(super) fn ask<T>(
        &self,
        lang: Lang,
        as_of: Option<Millis>,
        about: (&str, &str),
        work: impl Fn(&Engine<'_>, Millis) -> Result<T, QueryError>,
    ) -> Result<(T, Model)> {
        let _asking = self.ready.asking();
        let look = || -> Result<(Millis, Basis)> {
            let now = self.now();
            Ok((now, self.basis(as_of.filter(|at| *at < now), now, lang)?))
        };
        let mut looked = Some(look()?);
        let heavy = looked.as_ref().is_some_and(|(_, basis)| is_heavy(&basis.model, about));
        let _turn = if heavy {
            // Who waits holds nothing: it would be copied whenever it changes. What counts is the moment after.
            looked = None;
            Some(self.turns.take()?)
        } else {
            None
        };
        for attempt in 1.. {
            let (now, basis) = match looked.take() {
                Some(looked) => looked,
                None => look()?,
            };
            let answer = work(&basis.engine(), now).map_err(|error| usage(error.text(lang)));
            if as_of.is_some() {
                basis.plans.forget_past();
            }
            let answer = answer?;
            if basis.holds() {
                let (place, period) = about;
                tracing::debug!(place, period, position = basis.model.position, "answered");
                return Ok((answer, basis.model));
            }
            if attempt == ATTEMPTS_MAX {
                break;
            }
        }
        Err(Busy.into())
    }

    pub(super) fn basis(&self, past: Option<Millis>, now: Millis, lang: Lang) -> Result<Basis> {
        let state = self.state.read();
        let recorded = past.map(|at| recorded(&state, at, lang)).transpose()?;
        let (cube, position) = (state.cube.clone(), state.position);
        let rewritten = cube.older_rewritten();
        let (catalogue, organisation) = (state.catalogue.clone(), state.organisation.clone());
        let plans = self.plans.plans(&state);
        let Some(at) = past else {
            let sites = self.plans.sites(&state, now);
            let model = Model { catalogue, organisation, position };
            return Ok(Basis { model, cube, sites, plans, rewritten });
        };
        drop(state);
        // A registry of the past is the work of some tenths of a second.
        let (catalogue, organisation, plans) = match recorded {
            Some(recorded) if !recorded.current => self.plans.past(&recorded, lang)?,
            _ => (catalogue, organisation, plans),
        };
        let sites = self.plans.past_sites(&self.state, (&cube, position), at);
        let model = Model { catalogue, organisation, position };
        Ok(Basis { model, cube, sites, plans, rewritten })
    }

    /// The catalogue and organisation recorded by `at`; those of now where nothing was recorded yet.
    ///
    /// # Errors
    /// The registry of then cannot be read any more.
    pub(crate) fn model_at(
        &self,
        at: Millis,
        lang: Lang,
    ) -> Result<(Arc<Catalogue>, Arc<Organisation>)> {
        let (recorded, present) = {
            let state = self.state.read();
            let present = (state.catalogue.clone(), state.organisation.clone());
            (state.recorded(at).filter(|recorded| !recorded.current), present)
        };
        match recorded {
            None => Ok(present),
            Some(recorded) => {
                let (catalogue, organisation, _) = self.plans.past(&recorded, lang)?;
                Ok((catalogue, organisation))
            }
        }
    }

    /// The catalogue and organisation of a question about the past, with its moment; none if it is about the
    /// present, or its moment does not read: whoever answers says so.
    ///
    /// # Errors
    /// The registry of then cannot be read any more.
    pub(crate) fn model_asked(
        &self,
        as_of: Option<&str>,
        now: Millis,
        lang: Lang,
    ) -> Result<Option<PastModel>> {
        let Some(at) = moment(as_of, lang).ok().flatten().filter(|at| *at < now) else {
            return Ok(None);
        };
        let (catalogue, organisation) = self.model_at(at, lang)?;
        Ok(Some(PastModel { catalogue, organisation, at }))
    }

    /// What is known of sites now.
    pub fn sites(&self) -> Arc<SiteStates> {
        let now = self.now();
        self.plans.sites(&self.state.read(), now)
    }

    /// Answers a question for figures.
    ///
    /// # Errors
    /// [`super::Usage`] saying why it cannot be answered.
    pub fn figures(&self, call: &QueryCall) -> Result<QueryAnswer> {
        Ok(self.figures_under(call)?.0)
    }

    fn figures_under(&self, call: &QueryCall) -> Result<(QueryAnswer, Model)> {
        let request = request(call)?;
        let about = (call.unit.as_str(), call.period.as_str());
        self.ask(call.lang, request.as_of, about, |engine, now| engine.query(&request, now))
    }

    /// What each facility adds to a line of a reconciliation; where a kind is named, while it was of that kind.
    ///
    /// # Errors
    /// As [`Service::figures`].
    pub fn reconciled(
        &self,
        call: &QueryCall,
        line: ReconciliationLine,
        kind: Option<&str>,
    ) -> Result<BTreeMap<String, u64>> {
        let request = request(call)?;
        let ask = |engine: &Engine<'_>, now| engine.reconciled(&request, (line, kind), now);
        Ok(self.ask(call.lang, request.as_of, (&call.unit, &call.period), ask)?.0)
    }

    /// Answers a question about completeness.
    ///
    /// # Errors
    /// [`super::Usage`] saying why it cannot be answered.
    pub fn complete(&self, call: &CompletenessCall) -> Result<CompletenessAnswer> {
        Ok(self.complete_under(call)?.0)
    }

    fn complete_under(&self, call: &CompletenessCall) -> Result<(CompletenessAnswer, Model)> {
        let membership = call.membership.as_deref().unwrap_or("as_it_was").parse();
        let request = CompletenessRequest {
            place: call.unit.clone(),
            period: call.period.clone(),
            form: call.form.clone(),
            by: call.by.clone(),
            network: call.network.clone(),
            membership: membership.map_err(|e: QueryError| usage(e.text(call.lang)))?,
            as_of: moment(call.as_of.as_deref(), call.lang)?,
        };
        let about = (call.unit.as_str(), call.period.as_str());
        self.ask(call.lang, request.as_of, about, |engine, now| engine.completeness(&request, now))
    }

    /// Figures in the format asked for: JSON as it is, table and CSV as one text.
    ///
    /// # Errors
    /// As [`Service::figures`].
    pub fn query(&self, call: &QueryCall) -> Result<Answer> {
        let (answer, model) = self.figures_under(call)?;
        Ok(match call.format {
            Format::Json => Answer::Json(serde_json::to_string(&answer)?),
            Format::Csv => Answer::Value(query_csv(&answer, &model.organisation).into()),
            Format::Table => {
                Answer::Value(query_table(&answer, &model.catalogue, call.lang).into())
            }
        })
    }

    /// Completeness in the format asked for.
    ///
    /// # Errors
    /// As [`Service::complete`].
    pub fn completeness(&self, call: &CompletenessCall) -> Result<Value> {
        let (answer, model) = self.complete_under(call)?;
        Ok(match call.format {
            Format::Json => serde_json::to_value(&answer)?,
            Format::Csv => completeness_csv(&answer, &model.organisation).into(),
            Format::Table => completeness_table(&answer, &model.catalogue, call.lang).into(),
        })
    }

    /// The rules that the reports of a set, and the networks its facilities are in, break.
    ///
    /// # Errors
    /// [`super::Usage`] saying why it cannot be answered.
    pub fn broken(&self, call: &AnomaliesCall) -> Result<AnomaliesAnswer> {
        Ok(self.broken_under(call)?.0)
    }

    fn broken_under(&self, call: &AnomaliesCall) -> Result<(AnomaliesAnswer, Model)> {
        let request = AnomaliesRequest {
            place: call.unit.clone(),
            period: call.period.clone(),
            form: call.form.clone(),
            rule: call.rule.clone(),
            scope: call.scope.clone(),
            as_of: moment(call.as_of.as_deref(), call.lang)?,
        };
        let about = (call.unit.as_str(), call.period.as_str());
        self.ask(call.lang, request.as_of, about, |engine, now| engine.anomalies(&request, now))
    }

    /// The same in the format asked for.
    ///
    /// # Errors
    /// As [`Service::broken`].
    pub fn anomalies(&self, call: &AnomaliesCall) -> Result<Value> {
        let (answer, model) = self.broken_under(call)?;
        Ok(match call.format {
            Format::Json => serde_json::to_value(&answer)?,
            Format::Csv => anomalies_csv(&answer, call.lang).into(),
            Format::Table => anomalies_table(&answer, &model.catalogue, call.lang).into(),
        })
    }

    /// The trace of a number.
    ///
    /// # Errors
    /// [`super::Usage`] saying why there is none.
    pub fn trace(&self, call: &ReportCall) -> Result<Trace> {
        Ok(self.trace_under(call)?.0)
    }

    fn trace_under(&self, call: &ReportCall) -> Result<(Trace, Model)> {
        let as_of = moment(call.as_of.as_deref(), call.lang)?;
        self.ask(call.lang, as_of, (&call.facility, &call.period), |engine, now| {
            engine.report(&call.facility, &call.form, &call.period, call.history, as_of, now)
        })
    }

    /// The trace of a number in the format asked for.
    ///
    /// # Errors
    /// As [`Service::trace`].
    pub fn report(&self, call: &ReportCall) -> Result<Value> {
        let (trace, model) = self.trace_under(call)?;
        Ok(match call.format {
            Format::Json => serde_json::to_value(&trace)?,
            Format::Csv => trace_csv(&trace).into(),
            Format::Table => trace_table(&trace, &model.catalogue, call.lang).into(),
        })
    }

    /// How the service is: position, agents, what came in.
    pub fn status(&self) -> Value {
        let state = self.state.read();
        let counters: serde_json::Map<String, Value> =
            self.counters.values().into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        json!({
            "name": state.name,
            "position": state.position,
            "agents": state.agents.len(),
            "parked": state.parked.len(),
            "refused": state.refused.len(),
            "counters": counters,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &[(&str, &str)]) -> Result<QueryCall> {
        let given = query.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        let fields = parameters(given.collect())?;
        serde_json::from_value(Value::Object(fields)).map_err(|error| usage(error.to_string()))
    }

    #[test]
    fn parameters_are_read_whole_or_refused() {
        let place = [("unit", "C1"), ("period", "2026-01")];
        let with = |more: &[(&'static str, &'static str)]| read(&[&place, more].concat());
        let call = with(&[("element", "visits, beds"), ("element", "led"), ("by", "")]).unwrap();
        assert_eq!(
            (call.element, call.by),
            (vec!["visits".into(), "beds".into(), "led".into()], vec![])
        );
        for (text, names) in
            [("", true), ("1", true), ("true", true), ("0", false), ("false", false)]
        {
            assert_eq!(with(&[("names", text)]).unwrap().names, names, "{text:?}");
        }
        for (wrong, said) in [
            (&[("names", "yes")][..], "names"),
            (&[("unit", "C2")], "unit is given twice"),
            (&[("names", "1"), ("names", "0")], "names is given twice"),
            (&[("elements", "visits")], "elements"),
        ] {
            let error = with(wrong).unwrap_err();
            assert!(error.downcast_ref::<super::super::Usage>().is_some());
            assert!(error.to_string().contains(said), "{wrong:?}: {error}");
        }
    }

    #[test]
    fn a_moment_is_refused_in_the_language_asked_for() {
        let text = |lang| moment(Some("yesterday"), lang).unwrap_err().to_string();
        assert!(
            text(Lang::Zh).starts_with("as-of“yesterday”不是时刻：请写 "),
            "{}",
            text(Lang::Zh)
        );
        assert!(text(Lang::En).contains("write a time like"), "{}", text(Lang::En));
    }
}
