//! Scopes: which facilities a code or agent covers, and what an agent is told of them.

use std::collections::HashMap;

use banyan_shared::catalogue::{Catalogue, Class};
use banyan_shared::ids::{AgentId, ContextNumber, Millis, UnitCode};
use banyan_shared::keys::sha256;
use banyan_shared::limits::{CONTEXT_FACILITIES_MAX, PAYLOAD_BYTES_MAX};
use banyan_shared::organisation::{Organisation, UnitIx};
use banyan_shared::period::Date;
use banyan_shared::wire::{FacilityScope, Offer, ScopeAttribute, ScopeRole, ScopeSpell, encode};

use super::{Agent, State};
use crate::act::{Act, Below, NewContext};

/// Context numbers of one restored incarnation of a store; a store never restored has the lower half.
const CONTEXTS_A_STRETCH: u32 = 1 << 20;
/// Stretches in the upper half of the numbers.
const STRETCHES: u32 = 1 << 11;
/// So many facilities fit into one message whatever they are called.
const FACILITIES_FIT: usize = 50;
/// Facilities named in one act of new contexts: some hundred kilobytes.
const SCOPE_ACT_FACILITIES: usize = 10_000;
/// What a grant's message holds beside facilities and catalogue, in bytes, generously.
const GRANT_OVERHEAD_BYTES: usize = 4096;

/// Why a scope cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// A unit that does not report.
    #[error("{0} is not a facility or desk: enrol a facility, or use --below for all under a unit")]
    NotAFacility(UnitCode),
    /// No facility.
    #[error("no facility: name a facility, or a unit with --below")]
    Empty,
    /// Too many.
    #[error("{0} facilities are too many for one agent: enrol several, for example one a township")]
    TooMany(usize),
    /// No context number is left.
    #[error("this store has given out all its context numbers: back it up and restore it to go on")]
    Exhausted,
}

impl State {
    /// The facilities under the rules, on `day`, in administrative order.
    pub fn below(&self, rules: &[Below], day: Date) -> Vec<UnitCode> {
        let mut facilities = Vec::new();
        for rule in rules {
            let Some(unit) = self.organisation.unit(rule.unit.as_str()) else { continue };
            for facility in self.organisation.facilities_below(unit, day) {
                let kind = self.organisation.kind_on(facility, day);
                let code = &self.catalogue.kinds[kind.at()].code;
                if rule.kind.as_ref().is_none_or(|wanted| code == wanted.as_str()) {
                    facilities.push(self.organisation.code(facility).clone());
                }
            }
        }
        facilities
    }

    /// A context for the facilities named and those under the rules, each once, in that order.
    ///
    /// # Errors
    /// [`ScopeError`]
    pub fn context(
        &self,
        number: ContextNumber,
        named: &[UnitIx],
        below: &[Below],
        day: Date,
    ) -> Result<NewContext, ScopeError> {
        let mut facilities: Vec<UnitCode> = Vec::new();
        for unit in named {
            let code = self.organisation.code(*unit).clone();
            if !matches!(self.organisation.class(*unit), Class::Facility | Class::Desk) {
                return Err(ScopeError::NotAFacility(code));
            }
            facilities.push(code);
        }
        facilities.extend(self.below(below, day));
        let mut seen = std::collections::HashSet::new();
        facilities.retain(|code| seen.insert(code.clone()));
        if facilities.is_empty() {
            return Err(ScopeError::Empty);
        }
        if facilities.len() > CONTEXT_FACILITIES_MAX || !self.fits(&facilities, day) {
            return Err(ScopeError::TooMany(facilities.len()));
        }
        Ok(NewContext { number, facilities, below: below.to_vec() })
    }

    /// Whether a grant for these facilities fits into one message, catalogue included.
    fn fits(&self, facilities: &[UnitCode], day: Date) -> bool {
        if facilities.len() <= FACILITIES_FIT {
            return true;
        }
        let scopes: Vec<FacilityScope> =
            facilities.iter().map(|code| self.facility_scope(code, day)).collect();
        let catalogue = self.catalogues.get(&self.catalogue.hash).map_or(0, |c| c.compressed.len());
        encode(&scopes).len() + catalogue + GRANT_OVERHEAD_BYTES <= PAYLOAD_BYTES_MAX
    }

    /// New contexts for agents enrolled by a rule under which facilities have come that were not there
    /// before, for agents whose context is of another catalogue than the one in force, and for those to whom it
    /// says of their facilities what is so no longer.
    pub fn scope_updates(&self, incarnation: u32, day: Date) -> Vec<Act> {
        let each = self.agents.iter().filter_map(|(id, agent)| {
            let (facilities, below) = self.renewed(*id, agent, day)?;
            Some((*id, facilities, below))
        });
        self.scope_acts(incarnation, each.collect())
    }

    /// The same for one agent, just admitted with a code that was made earlier.
    pub fn scope_update(&self, incarnation: u32, day: Date, id: AgentId) -> Vec<Act> {
        let agent = self.agents.get(&id);
        let renewed = agent.and_then(|agent| self.renewed(id, agent, day));
        let scopes = renewed.map(|(facilities, below)| (id, facilities, below));
        self.scope_acts(incarnation, scopes.into_iter().collect())
    }

    /// An agent's facilities and rules, if its context is not what it should be on `day`.
    fn renewed(
        &self,
        id: AgentId,
        agent: &Agent,
        day: Date,
    ) -> Option<(Vec<UnitCode>, Vec<Below>)> {
        let context = self.contexts.get(&agent.newest)?;
        let stale = agent.outdated || context.catalogue != self.catalogue.hash;
        if agent.revoked.is_some() || context.below.is_empty() && !stale {
            return None;
        }
        let mut facilities = context.facilities.clone();
        for facility in self.below(&context.below, day) {
            if !facilities.contains(&facility) {
                facilities.push(facility);
            }
        }
        if facilities.len() == context.facilities.len() && !stale {
            return None;
        }
        if facilities.len() > CONTEXT_FACILITIES_MAX || !self.fits(&facilities, day) {
            tracing::error!(agent = %id, facilities = facilities.len(), "too many facilities for one agent: its context stays as it is");
            return None;
        }
        Some((facilities, context.below.clone()))
    }

    fn scope_acts(
        &self,
        incarnation: u32,
        scopes: Vec<(AgentId, Vec<UnitCode>, Vec<Below>)>,
    ) -> Vec<Act> {
        if scopes.is_empty() {
            return Vec::new();
        }
        let number = match self.next_context(incarnation, scopes.len()) {
            Ok(number) => number,
            Err(error) => {
                tracing::error!(%error, "agents keep their contexts");
                return Vec::new();
            }
        };
        let mut acts = Vec::new();
        let mut part = Vec::new();
        let mut named = 0;
        for (number, (agent, facilities, below)) in (number..).zip(scopes) {
            named += facilities.len();
            part.push((agent, NewContext { number, facilities, below }));
            if named >= SCOPE_ACT_FACILITIES {
                acts.push(Act::Scopes(std::mem::take(&mut part)));
                named = 0;
            }
        }
        if !part.is_empty() {
            acts.push(Act::Scopes(part));
        }
        acts
    }

    /// The first of `count` free context numbers. A restored store counts in a stretch of its own, so that
    /// a number given out after the backup was made is never given a second meaning.
    ///
    /// # Errors
    /// [`ScopeError::Exhausted`] when the stretch is used up.
    pub fn next_context(
        &self,
        incarnation: u32,
        count: usize,
    ) -> Result<ContextNumber, ScopeError> {
        let base = if incarnation <= 1 {
            0
        } else {
            let digest = sha256(&[b"banyan/v1/contexts\0", &incarnation.to_le_bytes()]);
            let drawn = u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]);
            u32::MAX / 2 + 1 + (drawn % STRETCHES) * CONTEXTS_A_STRETCH
        };
        let end = if base == 0 { u32::MAX / 2 } else { base + (CONTEXTS_A_STRETCH - 1) };
        let used = self.contexts.keys().filter(|n| (base..=end).contains(*n)).max();
        let first = used.map_or(base, |n| *n) + 1;
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        match first.checked_add(count) {
            Some(after) if after - 1 <= end => Ok(first),
            _ => Err(ScopeError::Exhausted),
        }
    }

    /// Notes whose facilities are not what they were under the organisation `before`: in a role of theirs, say, by
    /// which a form asks something of them.
    pub(super) fn note_outdated(&mut self, before: &Organisation, at: Millis) {
        let day = self.catalogue.day_at(at);
        let mut changed: HashMap<UnitCode, bool> = HashMap::new();
        let mut outdated = Vec::new();
        for (id, agent) in &self.agents {
            let Some(context) = self.contexts.get(&agent.newest) else { continue };
            let has_changed = context.facilities.iter().any(|code| {
                *changed.entry(code.clone()).or_insert_with(|| {
                    scope_of(&self.catalogue, before, code, day) != self.facility_scope(code, day)
                })
            });
            if has_changed {
                outdated.push(*id);
            }
        }
        for agent in outdated {
            if let Some(agent) = self.agents.get_mut(&agent) {
                agent.outdated = true;
            }
        }
    }

    /// What an agent is told of a context.
    pub fn offer(&self, number: ContextNumber) -> Option<Offer> {
        let context = self.contexts.get(&number)?;
        let day = self.catalogue.day_at(self.newest.unwrap_or_default());
        let facilities = context.facilities.iter().map(|code| self.facility_scope(code, day));
        Some(Offer {
            context: number,
            catalogue: context.catalogue,
            facilities: facilities.collect(),
        })
    }

    fn facility_scope(&self, code: &UnitCode, day: Date) -> FacilityScope {
        scope_of(&self.catalogue, &self.organisation, code, day)
    }
}

/// What is said of a facility.
fn scope_of(
    catalogue: &Catalogue,
    organisation: &Organisation,
    code: &UnitCode,
    day: Date,
) -> FacilityScope {
    let mut scope = FacilityScope {
        code: code.clone(),
        name: code.to_string(),
        place: String::new(),
        spells: Vec::new(),
        roles: Vec::new(),
        attributes: Vec::new(),
    };
    let Some(unit) = organisation.unit(code.as_str()) else { return scope };
    let lang = banyan_shared::catalogue::Lang::Zh;
    scope.name = organisation.name_on(unit, day, lang).to_owned();
    let path = organisation.path(unit, day);
    let above = path.iter().filter(|u| **u != unit);
    let names: Vec<&str> = above.map(|u| organisation.name_on(*u, day, lang)).collect();
    scope.place = names.join(" ");
    for spell in &organisation.info(unit).spells {
        if spell.status == banyan_shared::tables::registry::Status::Active {
            let kind = catalogue.kinds[spell.kind.at()].code.to_string();
            scope.spells.push(ScopeSpell { from: spell.from, to: spell.to, kind });
        }
    }
    for (role, network_kind, days) in organisation.role_spells(unit) {
        scope.roles.push(ScopeRole {
            role: catalogue.roles[role.at()].code.to_string(),
            network_kind: catalogue.network_kinds[network_kind.at()].code.to_string(),
            from: days.from,
            to: days.to,
        });
    }
    for (attribute, value, days) in organisation.attribute_spells(unit) {
        scope.attributes.push(ScopeAttribute {
            attribute: catalogue.attributes[attribute.at()].code.to_string(),
            value: value.to_owned(),
            from: days.from,
            to: days.to,
        });
    }
    scope
}
