//! Claims: enrolments that wait for an operator's decision.
//!
//! A facility of a stick that somebody has claimed already, or any facility of a stick whose claims are to be
//! looked at, is given to nobody before an operator says so. What waits, what was granted and what was
//! refused are acts in the ledger; an agent that asks again is told the same.

use std::collections::{BTreeMap, BTreeSet};

use banyan_shared::ids::{AgentId, ContextNumber, Millis, UnitCode};
use banyan_shared::keys::PublicKey;
use banyan_shared::wire::{EnrolRefusal, EnrolRequest};

use super::State;
use crate::act::Act;

/// Most claims of one facility of a stick that wait at a time: whoever has a stick can make as many keys as
/// he likes, and each claim is a row in the ledger.
pub const CLAIMS_MAX: usize = 8;

/// A claim that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The key of the agent that asks.
    pub key: PublicKey,
    /// The stick's code.
    pub code: u32,
    /// What it asks for.
    pub context: ContextNumber,
    /// A fingerprint of its machine.
    pub machine: u64,
    /// When it was recorded.
    pub at: Millis,
}

/// The claims, as they stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// The codes of which every claim waits.
    pub asking: BTreeSet<u32>,
    /// What waits.
    pub waiting: BTreeMap<AgentId, Claim>,
    /// The agents refused.
    pub refused: BTreeSet<AgentId>,
}

impl State {
    /// Whether a request is about a claim already decided or waiting.
    ///
    /// # Errors
    /// What the agent is told.
    pub(super) fn claim_known(&self, request: &EnrolRequest) -> Result<(), EnrolRefusal> {
        let id = request.key.agent_id();
        if self.claims.waiting.get(&id).is_some_and(|claim| claim.code == request.code) {
            return Err(EnrolRefusal::Waiting);
        }
        if self.claims.refused.contains(&id) {
            return Err(EnrolRefusal::ClaimRefused);
        }
        Ok(())
    }

    /// The claim to be stored, if an operator is to decide.
    ///
    /// # Errors
    /// [`EnrolRefusal::Waiting`] if as many wait for the facility as may.
    pub(super) fn claim(
        &self,
        request: &EnrolRequest,
        context: ContextNumber,
        is_used: bool,
    ) -> Result<Option<Act>, EnrolRefusal> {
        if !is_used && !self.claims.asking.contains(&request.code) {
            return Ok(None);
        }
        let waiting = self.claims.waiting.values();
        if waiting.filter(|claim| claim.context == context).count() >= CLAIMS_MAX {
            return Err(EnrolRefusal::Waiting);
        }
        let EnrolRequest { key, code, machine, .. } = *request;
        Ok(Some(Act::Claimed { key, code, context, machine }))
    }

    /// The facility a context is for first.
    pub fn home_of(&self, context: ContextNumber) -> Option<&UnitCode> {
        self.contexts.get(&context).and_then(|context| context.facilities.first())
    }

    /// The agent that has a facility as its home and was admitted last, if any is in force.
    pub fn holder_of(&self, home: &UnitCode) -> Option<AgentId> {
        let of = self.agents.iter().filter(|(_, agent)| {
            agent.revoked.is_none() && self.home_of(agent.newest) == Some(home)
        });
        of.max_by_key(|(id, agent)| (agent.admitted_at, **id)).map(|(id, _)| *id)
    }
}
