//! The trace of a number: one report, its versions, who, when, and what replaced what.

use banyan_shared::catalogue::Lang;
use banyan_shared::figures::{self, State, Timing};
use banyan_shared::ids::Millis;
use banyan_shared::organisation::{Found, Lookup};
use banyan_shared::period::Period;
use banyan_shared::report::{self, EnteredAt, Value, Version};
use serde::{Deserialize, Serialize};

use super::anomalies::BrokenRow;
use super::asked::{Asked, When};
use super::plan::extension;
use super::{Engine, Ordered, QueryError};
use crate::cube::{Decision, Stored};

/// A value in JSON: a number, null where missing, `"NA"` where not applicable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TraceValue {
    /// A number.
    Number(u64),
    /// `NA`.
    NotApplicable(String),
    /// Missing.
    Missing(Option<()>),
}

impl From<Value> for TraceValue {
    fn from(value: Value) -> TraceValue {
        match value {
            Value::Number(n) => TraceValue::Number(n),
            Value::NotApplicable => TraceValue::NotApplicable("NA".to_owned()),
            Value::Missing => TraceValue::Missing(None),
        }
    }
}

impl std::fmt::Display for TraceValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TraceValue::Number(n) => f.pad(&n.to_string()),
            TraceValue::NotApplicable(_) => f.pad("NA"),
            TraceValue::Missing(_) => f.pad(""),
        }
    }
}

/// One version of a report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceVersion {
    /// Its identity: writer, epoch, number.
    pub version: String,
    /// Who wrote it: the agent.
    pub writer: String,
    /// How it was entered.
    pub how: String,
    /// By whom.
    pub entered_by: Option<String>,
    /// When, by the agent's clock.
    pub entered_at: String,
    /// Whether the agent did not trust its clock.
    pub entered_at_doubtful: bool,
    /// When it was received.
    pub received_at: String,
    /// In which batch of the ledger.
    pub position: u64,
    /// Why it was written.
    pub reason: Option<String>,
    /// Why it was saved against a rule.
    pub override_code: Option<String>,
    /// Whether it takes the report back.
    pub withdrawn: bool,
    /// Whether it is the one counted.
    pub counted: bool,
    /// Whether it waits for approval behind a lock.
    pub pending: bool,
    /// The versions that replace it.
    pub replaced_by: Vec<String>,
    /// Its values by element.
    pub values: Ordered<TraceValue>,
}

/// A decision about a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceDecision {
    /// `returned`, `approved`, `signed`, `locked` or `open`.
    pub decision: String,
    /// Whose it is.
    pub by: String,
    /// When it was recorded.
    pub at: String,
    /// Where it stands in the ledger.
    pub position: u64,
    /// Why, for a return or approval.
    pub reason: Option<String>,
    /// The unit or network it was decided for, if not for the report alone.
    pub place: Option<String>,
}

/// The trace of one report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The facility's code.
    pub facility: String,
    /// Its name.
    pub name: String,
    /// Names from the top of the tree.
    pub path: Vec<String>,
    /// The form.
    pub form: String,
    /// The period.
    pub period: String,
    /// As known at this moment.
    pub as_of: String,
    /// Whether the report is due at all.
    pub expected: bool,
    /// When it is due.
    pub due: Option<String>,
    /// The last moment at which it is on time.
    pub late_after: Option<String>,
    /// `on_time`, `late`, `not_yet_due`, `missing`, `not_ended`, `not_expected` or `unexpected`.
    pub status: String,
    /// The cause, if it is missing.
    pub missing_why: Option<String>,
    /// Since when it has been answered without a break.
    pub arrived: Option<String>,
    /// How far its review has come: `open`, `signed` or `locked`.
    pub stage: String,
    /// Whether it stands returned for correction.
    pub returned: bool,
    /// Whether something else is counted than when it was first signed off or locked.
    pub restated: bool,
    /// How many versions stand; more than one is a conflict.
    pub heads: usize,
    /// How many versions there are.
    pub versions: usize,
    /// The values counted, for every line asked or answered.
    pub values: Ordered<TraceValue>,
    /// The state of each value: `reported`, `missing`, `not_applicable`, `waiting`.
    pub states: Ordered<State>,
    /// The rules its counted version breaks.
    pub broken: Vec<BrokenRow>,
    /// Every version, in order of receipt; empty unless the history was asked for.
    pub history: Vec<TraceVersion>,
    /// What was decided about it, in order; empty unless the history was asked for.
    pub decisions: Vec<TraceDecision>,
}

impl Engine<'_> {
    /// The trace of one report.
    ///
    /// # Errors
    /// Why there is no such report to ask for.
    pub fn report(
        &self,
        facility: &str,
        form: &str,
        period: &str,
        history: bool,
        as_of: Option<Millis>,
        now: Millis,
    ) -> Result<Trace, QueryError> {
        let org = self.organisation;
        let past = as_of.filter(|at| *at < now);
        if past.is_some() {
            self.plans.forget_past();
        }
        let when = When { now: past.unwrap_or(now), past, map: None };
        let period: Period = period.parse().map_err(|reason| QueryError::Period { reason })?;
        let form_ix = self.catalogue.form(form).ok_or_else(|| self.unknown_form(form))?;
        let model = &self.catalogue.forms[form_ix.at()];
        if period.kind() != model.period_type {
            return Err(QueryError::WrongPeriodType {
                form: form.to_owned(),
                wants: model.period_type.name(),
                text: period.to_string(),
            });
        }
        let unit = match org.find(facility, period.last_day()) {
            Lookup::One(Found::Unit(unit)) => unit,
            Lookup::One(Found::Network(_)) => {
                return Err(QueryError::NotAReporter { place: facility.to_owned() });
            }
            Lookup::Candidates(candidates) => {
                return Err(QueryError::Place { text: facility.to_owned(), candidates });
            }
        };
        if !self.is_reporter(unit) {
            return Err(QueryError::NotAReporter { place: facility.to_owned() });
        }
        let code = org.code(unit);
        let day = org.duty_day(unit, period).unwrap_or(period.last_day());
        let slot = self.slots(form_ix).slot(unit);
        let sheet = self.owed(form_ix, period, when);
        let (plan, block) = (&sheet.plan, &sheet.block);
        let expected = slot.is_some_and(|slot| plan.duty[slot as usize] == 1);
        let answered =
            slot.is_some_and(|slot| block.as_ref().is_some_and(|block| block.answered(slot)));
        let mut why = None;
        let status = match slot.filter(|_| expected) {
            None if answered => "unexpected",
            None => "not_expected",
            Some(_) if plan.ends > when.now => "not_ended",
            Some(slot) => {
                let one = self.standing(&sheet, slot, when);
                match one.timing {
                    Timing::OnTime => "on_time",
                    Timing::Late => "late",
                    Timing::NotYetDue => "not_yet_due",
                    Timing::Missing => {
                        why = Some(one.why.code().to_owned());
                        "missing"
                    }
                }
            }
        };
        let due = expected.then(|| {
            let (_, until) = extension(self.catalogue, org, model, unit, period);
            let working = |date| org.is_working_day(unit, date);
            figures::deadline(self.catalogue, model, period, working, until)
        });
        let mut versions = self.cube.versions(code, &model.code, period);
        versions.retain(|version| past.is_none_or(|past| self.cube.counted_by(version, past)));
        versions.sort_by_key(|version| (version.position, version.id));
        let report = slot
            .zip(block.as_ref())
            .and_then(|(slot, block)| block.report(slot, self.cube.authors()));
        let (mut values, mut states) = (Vec::new(), Vec::new());
        for (at, line) in model.lines.iter().enumerate() {
            let element = &self.catalogue.elements[line.element.at()];
            let asked = slot.is_some_and(|slot| plan.asked[at][slot as usize] == 1);
            let value = match (slot, block, self.column(form_ix, line.element)) {
                (Some(slot), Some(block), Some(column)) => block.value(column, slot),
                _ => Value::Missing,
            };
            let state = match value {
                Value::Number(_) => State::Reported,
                Value::NotApplicable => State::NotApplicable,
                Value::Missing if !asked => continue,
                Value::Missing if due.is_some_and(|due| when.now > due.late_after) => {
                    State::Missing
                }
                Value::Missing => State::Waiting,
            };
            values.push((element.code.to_string(), TraceValue::from(value)));
            states.push((element.code.to_string(), state));
        }
        let current = report.as_ref().and_then(|report| report.current);
        let list: Vec<Version> = versions.iter().map(Stored::as_version).collect();
        let shown = |(at, version): (usize, &Stored)| TraceVersion {
            counted: Some(version.id) == current,
            pending: self.cube.pending(code, &model.code, period, version.id, past),
            replaced_by: list
                .iter()
                .filter(|newer| report::replaces(newer, &list[at], self.cube.lineage()))
                .map(|newer| newer.id.to_string())
                .collect(),
            ..self.trace_version(&model.code, version)
        };
        Ok(Trace {
            facility: code.to_string(),
            name: org.name_on(unit, day, Lang::Zh).to_owned(),
            path: org
                .path(unit, day)
                .into_iter()
                .map(|at| org.name_on(at, day, Lang::Zh).to_owned())
                .collect(),
            form: model.code.to_string(),
            period: period.to_string(),
            as_of: self.time_text(when.now),
            expected,
            due: due.map(|due| self.time_text(due.due)),
            late_after: due.map(|due| self.time_text(due.late_after)),
            status: status.to_owned(),
            missing_why: why,
            arrived: report.as_ref().and_then(|report| report.arrived).map(|at| self.time_text(at)),
            stage: self.cube.stage_of(code, &model.code, period, past).code().to_owned(),
            returned: report.as_ref().is_some_and(|report| report.returned),
            restated: report.as_ref().is_some_and(|report| report.restated),
            heads: report.as_ref().map_or(0, |report| report.heads),
            versions: versions.len(),
            values: Ordered(values),
            states: Ordered(states),
            broken: self.broken_by(&Asked::new(*self, when), unit, form_ix, period),
            decisions: if history {
                let decisions = self.cube.decisions(code, &model.code, period, past);
                decisions.iter().map(|decision| self.trace_decision(decision)).collect()
            } else {
                Vec::new()
            },
            history: if history {
                versions.iter().enumerate().map(shown).collect()
            } else {
                Vec::new()
            },
        })
    }

    fn trace_decision(&self, decision: &Decision) -> TraceDecision {
        let (what, reason, place) = match decision {
            Decision::Returned(_, reason) => ("returned", Some(*reason), None),
            Decision::Approved(_, reason) => ("approved", Some(*reason), None),
            Decision::Staged(_, stage, place) => (stage.code(), None, Some(place.clone())),
        };
        let decided = decision.decided();
        TraceDecision {
            decision: what.to_owned(),
            by: decided.by.clone(),
            at: self.time_text(decided.at),
            position: decided.position,
            reason: reason.map(|reason| reason.code().to_owned()),
            place,
        }
    }

    fn trace_version(&self, form: &banyan_shared::ids::FormCode, version: &Stored) -> TraceVersion {
        let content = &version.content;
        let EnteredAt { minute, doubtful } = content.entered_at;
        let columns = self.cube.form(form).map(|store| store.columns()).unwrap_or_default();
        let values = columns.iter().zip(&content.values).filter(|(_, value)| value.is_answer());
        TraceVersion {
            version: version.id.to_string(),
            writer: version.id.writer.to_string(),
            how: content.how.code().to_owned(),
            entered_by: content.entered_by.clone(),
            entered_at: self.time_text(Millis(i64::from(minute) * 60_000)),
            entered_at_doubtful: doubtful,
            received_at: self.time_text(version.received_at),
            position: version.position,
            reason: content.reason.map(|reason| reason.code().to_owned()),
            override_code: content.override_code.map(|code| code.code().to_owned()),
            withdrawn: content.withdrawn,
            values: Ordered(values.map(|(e, v)| (e.to_string(), TraceValue::from(*v))).collect()),
            ..TraceVersion::default()
        }
    }
}
