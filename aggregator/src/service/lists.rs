//! Lists for operators: agents, parked and refused entries, units.

use std::collections::BTreeMap;

use anyhow::Result;
use banyan_shared::catalogue::Lang;
use banyan_shared::ids::Millis;
use banyan_shared::period::Date;
use serde::Serialize;

use super::Service;
use super::enrol::{find_unit, known_kind};
use crate::broker_files::Revoked;
use crate::state::State;

/// Most units listed at once.
pub(super) const UNITS_MAX: usize = 50_000;

/// An agent as operators see it.
#[derive(Clone, Debug, Serialize)]
pub struct FleetRow {
    /// Its id.
    pub agent: String,
    /// Its home.
    pub home: String,
    /// The home's name.
    pub name: String,
    /// The home's place.
    pub path: Vec<String>,
    /// For how many facilities it may report.
    pub facilities: usize,
    /// `active`, `never_reported`, `replaced`, `duplicate_identity` or `revoked`.
    pub state: &'static str,
    /// When something of it was last stored.
    pub last_receipt: Option<String>,
    /// When it last said hello since the service started.
    pub last_hello: Option<String>,
    /// Entries that wait there, as of the last hello.
    pub waiting: Option<u32>,
    /// Minutes its clock was ahead at the last hello; negative if behind.
    pub clock_ahead_minutes: Option<i64>,
    /// Its program's version.
    pub version: Option<String>,
    /// Entries held here.
    pub received: u64,
    /// Entries refused here and not settled.
    pub refused: u64,
    /// Entries parked here.
    pub parked: u64,
    /// Numbers that came twice with other content, since the service started.
    pub reused: u64,
    /// How many lives its numbering has had: one more for every new queue or machine.
    pub lives: usize,
    /// The agent whose history it continues.
    pub succeeds: Option<String>,
    /// The agent that continues its own.
    pub replaced_by: Option<String>,
    /// Whether it knew the operating key in force at its last hello since the service started.
    pub knows_key: Option<bool>,
    /// When two connections were last seen pushing each other off.
    pub contested: Option<String>,
    /// Where these came from.
    pub contested_from: Vec<String>,
}

/// An entry that does not count.
#[derive(Clone, Debug, Serialize)]
pub struct ParkedRow {
    /// `parked` or `refused`.
    pub state: &'static str,
    /// The reason's code.
    pub code: &'static str,
    /// The reason in words.
    pub reason: &'static str,
    /// The facility.
    pub facility: String,
    /// Its name, if it is known.
    pub name: String,
    /// The form.
    pub form: String,
    /// The period.
    pub period: String,
    /// The agent that sent it.
    pub agent: String,
    /// Which version it is.
    pub version: String,
    /// When it came.
    pub received_at: String,
}

/// A unit in a list.
#[derive(Clone, Debug, Serialize)]
pub struct UnitRow {
    /// Its code.
    pub code: String,
    /// Its name on the day.
    pub name: String,
    /// Its kind on the day.
    pub kind: String,
    /// The unit above it on the day.
    pub parent: Option<String>,
    /// Whether it is open on the day.
    pub open: bool,
    /// The networks it is in on the day.
    pub networks: Vec<String>,
}

/// Units, and whether there are more.
#[derive(Clone, Debug, Serialize)]
pub struct UnitList {
    /// The day.
    pub date: String,
    /// The rows.
    pub units: Vec<UnitRow>,
    /// Whether the list was cut at [`UNITS_MAX`].
    pub truncated: bool,
}

/// A moment as people and programs read it: RFC 3339 in the catalogue's zone.
pub(crate) fn rfc3339(state: &State, at: Millis) -> String {
    let zoned = at.timestamp().to_zoned(state.catalogue.time_zone.clone());
    zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

impl Service {
    /// The agents put out, with their keys: what an external broker must no longer take.
    pub fn revocations(&self) -> Vec<Revoked> {
        let state = self.state.read();
        let out = state.agents.iter().filter(|(_, agent)| agent.revoked.is_some());
        let mut out: Vec<Revoked> =
            out.map(|(id, agent)| Revoked { agent: *id, key: agent.key }).collect();
        out.sort_by_key(|revoked| revoked.agent);
        out
    }

    /// Every agent.
    pub fn fleet(&self, lang: Lang) -> Vec<FleetRow> {
        let state = self.state.read();
        let day = state.catalogue.day_at(self.now());
        let replaced = state.replaced();
        let row = |(id, agent): (&banyan_shared::ids::AgentId, &crate::state::Agent)| {
            let context = &state.contexts[&agent.newest];
            let home = context.facilities.first();
            let unit = home.and_then(|home| state.organisation.unit(home.as_str()));
            let (received, refused, parked) = agent.inbox.counts();
            let hello = agent.beacon.as_ref();
            let contest = self.roll.contest_of(*id);
            FleetRow {
                agent: id.to_string(),
                home: home.map(ToString::to_string).unwrap_or_default(),
                name: unit.map_or_else(String::new, |u| {
                    state.organisation.name_on(u, day, lang).to_owned()
                }),
                path: unit.map_or_else(Vec::new, |u| {
                    let path = state.organisation.path(u, day);
                    path.iter()
                        .map(|u| state.organisation.name_on(*u, day, lang).to_owned())
                        .collect()
                }),
                facilities: context.facilities.len(),
                state: if agent.revoked.is_some() {
                    "revoked"
                } else if agent.reused > 0 || contest.is_some() || state.has_twin(id) {
                    "duplicate_identity"
                } else if replaced.contains_key(id) {
                    "replaced"
                } else if agent.last_receipt.is_none() {
                    "never_reported"
                } else {
                    "active"
                },
                last_receipt: agent.last_receipt.map(|at| rfc3339(&state, at)),
                last_hello: hello.map(|(at, _)| rfc3339(&state, *at)),
                waiting: hello.map(|(_, beacon)| beacon.waiting),
                clock_ahead_minutes: hello
                    .map(|(at, beacon)| i64::from(beacon.clock_minute) - i64::from(at.minute())),
                version: hello.map(|(_, beacon)| {
                    let (major, minor, patch) = beacon.version;
                    format!("{major}.{minor}.{patch}")
                }),
                received,
                refused,
                parked,
                reused: agent.reused,
                lives: agent.inbox.lives().count(),
                succeeds: agent.succeeds.map(|older| older.to_string()),
                replaced_by: replaced.get(id).map(ToString::to_string),
                knows_key: agent.knows_key,
                contested: contest.as_ref().map(|(at, _)| rfc3339(&state, *at)),
                contested_from: contest.map_or_else(Vec::new, |(_, contest)| {
                    contest.addresses.iter().map(ToString::to_string).collect()
                }),
            }
        };
        state.agents.iter().map(row).collect()
    }

    /// Every parked and refused entry.
    pub fn parked(&self, lang: Lang) -> Vec<ParkedRow> {
        let state = self.state.read();
        let day = state.catalogue.day_at(self.now());
        let name = |code: &str| {
            let unit = state.organisation.unit(code);
            unit.map_or_else(String::new, |u| state.organisation.name_on(u, day, lang).to_owned())
        };
        let mut rows = Vec::new();
        for parked in state.parked.values() {
            let catalogue = &state.catalogues[&parked.catalogue].catalogue;
            rows.push(ParkedRow {
                state: "parked",
                code: parked.reason.code(),
                reason: parked.reason.text(lang),
                facility: parked.facility.to_string(),
                name: name(parked.facility.as_str()),
                form: catalogue.forms[parked.version.form.at()].code.to_string(),
                period: parked.version.period.to_string(),
                agent: parked.id.writer.to_string(),
                version: parked.id.to_string(),
                received_at: rfc3339(&state, parked.version.received_at),
            });
        }
        for (id, refused) in &state.refused {
            let facility = refused.facility.as_ref().map(ToString::to_string).unwrap_or_default();
            rows.push(ParkedRow {
                state: "refused",
                code: refused.refusal.code(),
                reason: refused.refusal.text(lang),
                name: name(&facility),
                facility,
                form: refused.form.clone().unwrap_or_default(),
                period: refused.period.map(|p| p.to_string()).unwrap_or_default(),
                agent: id.writer.to_string(),
                version: id.to_string(),
                received_at: rfc3339(&state, refused.received_at),
            });
        }
        rows
    }

    /// The units below `unit` (or the top ones), on `date` (or today): all of `kind`, or else the next
    /// level only.
    ///
    /// # Errors
    /// [`super::Usage`] if the unit is unknown or names several.
    pub fn units(
        &self,
        unit: Option<&str>,
        kind: Option<&str>,
        date: Option<Date>,
        lang: Lang,
    ) -> Result<UnitList> {
        let state = self.state.read();
        let organisation = &state.organisation;
        let now = self.now();
        let date = date.unwrap_or_else(|| state.catalogue.day_at(now));
        if let Some(kind) = kind {
            known_kind(&state, kind, lang)?;
        }
        let top = unit.map(|text| find_unit(&state, text, now, lang)).transpose()?;
        let mut pending = match top {
            Some(top) => organisation.children_on(top, date),
            None => organisation.roots_on(date),
        };
        pending.reverse();
        let mut found = Vec::new();
        while let Some(at) = pending.pop() {
            let of_kind = |wanted: &str| {
                state.catalogue.kinds[organisation.kind_on(at, date).at()].code == wanted
            };
            if kind.is_none_or(of_kind) {
                found.push(at);
            }
            if kind.is_some() {
                pending.extend(organisation.children_on(at, date).into_iter().rev());
            }
        }
        if let Some(top) = top.filter(|_| kind.is_none() && found.is_empty()) {
            found.push(top);
        }
        let truncated = found.len() > UNITS_MAX;
        let units = found.into_iter().take(UNITS_MAX).map(|u| UnitRow {
            code: organisation.code(u).to_string(),
            name: organisation.name_on(u, date, lang).to_owned(),
            kind: state.catalogue.kinds[organisation.kind_on(u, date).at()].code.to_string(),
            parent: organisation.parent_on(u, date).map(|p| organisation.code(p).to_string()),
            open: organisation.is_open(u, date),
            networks: organisation
                .networks_of(u, date, None)
                .into_iter()
                .map(|n| organisation.network_code(n).to_string())
                .collect(),
        });
        Ok(UnitList { date: date.to_string(), units: units.collect(), truncated })
    }
}

/// How many agents there are in each state.
pub(crate) fn fleet_summary(rows: &[FleetRow]) -> BTreeMap<&'static str, usize> {
    let mut summary = BTreeMap::new();
    for row in rows {
        *summary.entry(row.state).or_default() += 1;
    }
    summary
}
