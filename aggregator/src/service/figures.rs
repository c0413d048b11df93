//! Questions for figures as they come from the command line and the API.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use banyan_shared::catalogue::{Catalogue, Lang};
use banyan_shared::figures::ReconciliationLine;
use banyan_shared::ids::{FormCode, Millis};
use banyan_shared::organisation::Organisation;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Service, usage};
use crate::query::{
    CompletenessAnswer, CompletenessRequest, Engine, Mark, Plans, QueryAnswer, QueryError,
    QueryRequest, SiteStates, Trace, completeness_csv, completeness_table, query_csv, query_table,
    trace_csv, trace_table,
};
use crate::state::State;

/// How old what is known of sites may be in an answer, in ms, once there are many agents.
const SITES_AGE_MAX_MS: i64 = 1000;
/// With fewer agents it is always fresh.
const AGENTS_FRESH_MAX: usize = 2000;

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

/// The value of a parameter of a query string: lists are divided by commas, flags are `true`.
pub fn parameter(name: &str, text: &str) -> Value {
    match name {
        "by" | "element" | "indicator" => {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            Value::Array(parts.map(Into::into).collect())
        }
        "names" | "history" => json!(matches!(text, "" | "1" | "true")),
        _ => text.into(),
    }
}

/// What was worked out for one catalogue and one organisation, and what is known of sites.
#[derive(Default)]
pub struct PlanCache {
    plans: Mutex<Option<Planned>>,
    sites: Mutex<Option<KnownSites>>,
}

/// Plans with the catalogue and organisation they hold for.
type Planned = (Arc<Catalogue>, Arc<Organisation>, Arc<Plans>);

struct KnownSites {
    stamp: (u64, u64),
    made: Millis,
    sites: Arc<SiteStates>,
}

impl PlanCache {
    fn plans(&self, state: &State) -> Arc<Plans> {
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
        let sites = Arc::new(site_states(state));
        *kept = Some(KnownSites { stamp, made: now, sites: sites.clone() });
        sites
    }
}

/// What the state knows of sites.
fn site_states(state: &State) -> SiteStates {
    let mut known = SiteStates::default();
    for agent in state.agents.values().filter(|agent| agent.revoked.is_none()) {
        let Some(context) = state.contexts.get(&agent.newest) else { continue };
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
    let mut mark =
        |facility: &banyan_shared::ids::UnitCode, form: &str, period, set: &dyn Fn(&mut Mark)| {
            if let Ok(form) = form.parse::<FormCode>() {
                set(known.mark_mut(facility, form, period));
            }
        };
    for parked in state.parked.values() {
        let Some(held) = state.catalogues.get(&parked.catalogue) else { continue };
        let form = &held.catalogue.forms[parked.version.form.at()].code;
        mark(&parked.facility, form.as_str(), parked.version.period, &|m| m.parked = true);
    }
    for (facility, form, period) in state.cube.returned_reports() {
        mark(facility, form.as_str(), period, &|m| m.returned = true);
    }
    for refused in state.refused.values() {
        if let (Some(facility), Some(form), Some(period)) =
            (&refused.facility, &refused.form, refused.period)
        {
            mark(facility, form, period, &|m| m.refused = true);
        }
    }
    known
}

pub(super) fn moment(text: Option<&str>) -> Result<Option<Millis>> {
    text.map(|text| {
        text.parse::<jiff::Timestamp>().map(Millis::from).map_err(|error| {
            usage(format!("as-of {text:?}: write a time like 2026-02-10T09:00:00+08:00 ({error})"))
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
        as_of: moment(call.as_of.as_deref())?,
        names: call.names,
    })
}

impl Service {
    fn ask<T>(
        &self,
        lang: Lang,
        work: impl FnOnce(&Engine<'_>, Millis) -> Result<T, QueryError>,
    ) -> Result<T> {
        let now = self.now();
        let state = self.state.read();
        let plans = self.plans.plans(&state);
        let sites = self.plans.sites(&state, now);
        let engine = Engine {
            catalogue: &state.catalogue,
            organisation: &state.organisation,
            cube: &state.cube,
            sites: &sites,
            plans: &plans,
        };
        work(&engine, now).map_err(|error| usage(error.text(lang)))
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
        let request = request(call)?;
        self.ask(call.lang, |engine, now| engine.query(&request, now))
    }

    /// What each facility adds to a line of a reconciliation.
    ///
    /// # Errors
    /// As [`Service::figures`].
    pub fn reconciled(
        &self,
        call: &QueryCall,
        line: ReconciliationLine,
    ) -> Result<BTreeMap<String, u64>> {
        let request = request(call)?;
        self.ask(call.lang, |engine, now| engine.reconciled(&request, line, now))
    }

    /// Answers a question about completeness.
    ///
    /// # Errors
    /// [`super::Usage`] saying why it cannot be answered.
    pub fn complete(&self, call: &CompletenessCall) -> Result<CompletenessAnswer> {
        let membership = call.membership.as_deref().unwrap_or("as_it_was").parse();
        let request = CompletenessRequest {
            place: call.unit.clone(),
            period: call.period.clone(),
            form: call.form.clone(),
            by: call.by.clone(),
            network: call.network.clone(),
            membership: membership.map_err(|e: QueryError| usage(e.text(call.lang)))?,
            as_of: moment(call.as_of.as_deref())?,
        };
        self.ask(call.lang, |engine, now| engine.completeness(&request, now))
    }

    /// Figures in the format asked for: JSON as it is, table and CSV as one text.
    ///
    /// # Errors
    /// As [`Service::figures`].
    pub fn query(&self, call: &QueryCall) -> Result<Value> {
        let answer = self.figures(call)?;
        let catalogue = self.state.read().catalogue.clone();
        Ok(match call.format {
            Format::Json => serde_json::to_value(&answer)?,
            Format::Csv => query_csv(&answer).into(),
            Format::Table => query_table(&answer, &catalogue, call.lang).into(),
        })
    }

    /// Completeness in the format asked for.
    ///
    /// # Errors
    /// As [`Service::complete`].
    pub fn completeness(&self, call: &CompletenessCall) -> Result<Value> {
        let answer = self.complete(call)?;
        let catalogue = self.state.read().catalogue.clone();
        Ok(match call.format {
            Format::Json => serde_json::to_value(&answer)?,
            Format::Csv => completeness_csv(&answer).into(),
            Format::Table => completeness_table(&answer, &catalogue, call.lang).into(),
        })
    }

    /// The trace of a number.
    ///
    /// # Errors
    /// [`super::Usage`] saying why there is none.
    pub fn trace(&self, call: &ReportCall) -> Result<Trace> {
        let as_of = moment(call.as_of.as_deref())?;
        self.ask(call.lang, |engine, now| {
            engine.report(&call.facility, &call.form, &call.period, call.history, as_of, now)
        })
    }

    /// The trace of a number in the format asked for.
    ///
    /// # Errors
    /// As [`Service::trace`].
    pub fn report(&self, call: &ReportCall) -> Result<Value> {
        let trace = self.trace(call)?;
        let catalogue = self.state.read().catalogue.clone();
        Ok(match call.format {
            Format::Json => serde_json::to_value(&trace)?,
            Format::Csv => trace_csv(&trace).into(),
            Format::Table => trace_table(&trace, &catalogue, call.lang).into(),
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
