//! Agents, their contexts and the codes they were enrolled with.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use banyan_shared::catalogue::CatalogueHash;
use banyan_shared::ids::{AgentId, ContextNumber, Epoch, Millis, Seq, UnitCode};
use banyan_shared::keys::PublicKey;
use banyan_shared::sync::Inbox;
use banyan_shared::wire::{Beacon, EnrolRefusal, EnrolRequest, SignedGrant};
use serde::{Deserialize, Serialize};

use super::State;
use crate::act::{Act, Below, NewCode, NewContext, secret_hash};

/// What a context number stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// The catalogue its form numbers refer to.
    pub catalogue: CatalogueHash,
    /// The facilities its facility numbers refer to; the first is the home.
    pub facilities: Vec<UnitCode>,
    /// The rules behind the list.
    pub below: Vec<Below>,
}

/// An enrolment code as it stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Code {
    /// Hash of its secret.
    pub secret: [u8; 16],
    /// The contexts it offers.
    pub contexts: Vec<ContextNumber>,
    /// Uses left.
    pub uses: u32,
    /// When it expires.
    pub expires: Millis,
    /// Who used it, with which context.
    pub used: Vec<(AgentId, ContextNumber)>,
    /// Whether every claim waits for an operator.
    pub approve: bool,
    /// The agent whose history whoever uses it continues.
    pub replaces: Option<AgentId>,
}

/// Most claims of one facility that wait.
pub const CLAIMS_WAITING_MAX: usize = 4;

/// A claim of a facility, which an operator approves or refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The agent's key.
    pub key: PublicKey,
    /// The code it used.
    pub code: u32,
    /// The context it asks for.
    pub context: ContextNumber,
    /// A fingerprint of its machine.
    pub machine: u64,
    /// When it came.
    pub claimed_at: Millis,
    /// Whether an operator has refused it.
    pub refused: bool,
}

/// An agent as it stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Agent {
    /// Its key.
    pub key: PublicKey,
    /// The contexts it was granted.
    pub contexts: BTreeSet<ContextNumber>,
    /// The one in force.
    pub newest: ContextNumber,
    /// When it was granted.
    pub newest_at: Millis,
    /// Whether what its context says of its facilities (name, place, kind, roles, attributes) has changed since it
    /// was granted.
    pub outdated: bool,
    /// Every context that was in force, with when it was recorded.
    pub scopes: Vec<(Millis, ContextNumber)>,
    /// The code it was enrolled with, unless it was readmitted by its grant.
    pub code: Option<u32>,
    /// A fingerprint of its machine.
    pub machine: u64,
    /// When it was admitted.
    pub admitted_at: Millis,
    /// The agent whose history it continues.
    pub succeeds: Option<AgentId>,
    /// When it was revoked.
    pub revoked: Option<Millis>,
    /// What the ledger holds of it.
    pub inbox: Inbox,
    /// When something of it was last stored.
    pub last_receipt: Option<Millis>,
    /// Its last hello: when, and what it said. Not history: empty after a restart.
    #[serde(skip)]
    pub beacon: Option<(Millis, Beacon)>,
    /// The nonce of its last hello.
    #[serde(skip)]
    pub nonce: Option<u64>,
    /// Whether it knew the operating key in force at its last hello.
    #[serde(skip)]
    pub knows_key: Option<bool>,
    /// How often a number came again with other content: two machines with one identity.
    /// Counted since the start.
    #[serde(skip)]
    pub reused: u64,
    /// The context it was last sent a grant of unasked, since the start.
    #[serde(skip)]
    pub offered: Option<ContextNumber>,
}

impl Agent {
    /// The context in force at a moment, as recorded by then; none before it was known, or once it was out.
    pub fn context_at(&self, at: Millis) -> Option<ContextNumber> {
        if self.revoked.is_some_and(|revoked| revoked <= at) {
            return None;
        }
        let known = self.scopes.partition_point(|(recorded, _)| *recorded <= at);
        self.scopes[..known].last().map(|(_, context)| *context)
    }

    /// Puts a context in force.
    pub(super) fn give(&mut self, context: ContextNumber, granted_at: Millis, recorded_at: Millis) {
        (self.newest, self.newest_at) = (context, granted_at);
        self.outdated = false;
        self.scopes.push((recorded_at, context));
    }
}

impl State {
    pub(super) fn add_context(&mut self, context: &NewContext, catalogue: CatalogueHash) {
        let NewContext { number, facilities, below } = context.clone();
        self.contexts.insert(number, Arc::new(Context { catalogue, facilities, below }));
    }

    pub(super) fn add_code(&mut self, code: &NewCode) {
        for context in &code.contexts {
            self.add_context(context, self.catalogue.hash);
        }
        let code_state = Code {
            secret: code.secret,
            contexts: code.contexts.iter().map(|context| context.number).collect(),
            uses: code.uses,
            expires: code.expires,
            used: Vec::new(),
            approve: false,
            replaces: None,
        };
        self.codes.insert(code.number, code_state);
    }

    pub(super) fn admit(
        &mut self,
        key: PublicKey,
        code: Option<u32>,
        context: ContextNumber,
        machine: u64,
        succeeds: Option<AgentId>,
        (at, recorded_at): (Millis, Millis),
    ) {
        let id = key.agent_id();
        self.claims.remove(&id);
        if let Some(code) = code.and_then(|number| self.codes.get_mut(&number)) {
            code.uses = code.uses.saturating_sub(1);
            code.used.push((id, context));
        }
        if let Some(older) = succeeds {
            self.cube.succeeds(id, older);
        }
        let agent = self.agents.entry(id).or_insert_with(|| Agent {
            key,
            contexts: BTreeSet::new(),
            newest: context,
            newest_at: at,
            outdated: false,
            scopes: Vec::new(),
            code,
            machine,
            admitted_at: at,
            succeeds,
            revoked: None,
            inbox: Inbox::default(),
            last_receipt: None,
            beacon: None,
            nonce: None,
            knows_key: None,
            reused: 0,
            offered: None,
        });
        agent.contexts.insert(context);
        // An older grant shown later does not take the newer one's place.
        if agent.newest_at <= at {
            agent.give(context, at, recorded_at);
        }
    }

    /// Takes back an agent by a grant of ours that this ledger had lost. The grant's signatures were
    /// checked before it was stored.
    pub(super) fn readmit(&mut self, signed: &SignedGrant, recorded_at: Millis) {
        let Ok(grant) = signed.unverified() else { return };
        let context = NewContext {
            number: grant.offer.context,
            facilities: grant.offer.facilities.iter().map(|scope| scope.code.clone()).collect(),
            below: Vec::new(),
        };
        let known = self.contexts.contains_key(&context.number);
        if !known {
            self.add_context(&context, grant.offer.catalogue);
        }
        let at = (grant.issued_at, recorded_at);
        self.admit(grant.key, None, context.number, 0, grant.succeeds, at);
    }
}

impl State {
    /// What becomes of a request to be enrolled: an act to be stored (admitted, or a claim that waits), or
    /// none if the agent has been enrolled with this code already.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn admission(
        &self,
        request: &EnrolRequest,
        now: Millis,
    ) -> Result<Option<Act>, EnrolRefusal> {
        let id = request.key.agent_id();
        let code = self
            .codes
            .get(&request.code)
            .filter(|code| code.secret == secret_hash(request.code, &request.secret))
            .ok_or(EnrolRefusal::UnknownCode)?;
        if let Some(known) = self.agents.get(&id) {
            if known.revoked.is_some() {
                return Err(EnrolRefusal::AgentRevoked);
            }
            if code.used.iter().any(|(agent, _)| *agent == id) {
                return Ok(None);
            }
        }
        let claim = self.claims.get(&id).filter(|claim| claim.code == request.code);
        match claim {
            Some(claim) if claim.refused => return Err(EnrolRefusal::ClaimRefused),
            Some(_) => return Err(EnrolRefusal::Waiting),
            None => {}
        }
        if code.expires < now {
            return Err(EnrolRefusal::Expired);
        }
        // A code for one agent is used up by it; on a stick another claim is an operator's to decide.
        let many = code.contexts.len() > 1 || code.approve;
        if code.uses == 0 && !many {
            return Err(EnrolRefusal::Used);
        }
        let home = |context: &ContextNumber| {
            self.contexts.get(context).and_then(|context| context.facilities.first())
        };
        let context = match (&request.facility, code.contexts.as_slice()) {
            (None, [only]) => *only,
            (Some(facility), contexts) => *contexts
                .iter()
                .find(|context| home(context) == Some(facility))
                .ok_or(EnrolRefusal::NotOffered)?,
            (None, _) => return Err(EnrolRefusal::NotOffered),
        };
        let taken = code.used.iter().any(|(_, used)| *used == context)
            || many && self.holder(context).is_some();
        if taken || code.approve {
            // With another code. One claim of an agent waits, and after a refusal it claims no more: else two codes
            // in turn would write acts without end.
            match self.claims.get(&id) {
                Some(claim) if claim.refused => return Err(EnrolRefusal::ClaimRefused),
                Some(_) => return Err(EnrolRefusal::Waiting),
                None => {}
            }
            let waits = |claim: &&Claim| claim.context == context && !claim.refused;
            let waiting = self.claims.values().filter(waits).count();
            if waiting >= CLAIMS_WAITING_MAX {
                return Err(EnrolRefusal::Waiting);
            }
            return Ok(Some(Act::Claimed {
                key: request.key,
                code: request.code,
                context,
                machine: request.machine,
            }));
        }
        if code.uses == 0 {
            return Err(EnrolRefusal::Used);
        }
        Ok(Some(Act::Admitted {
            key: request.key,
            code: request.code,
            context,
            machine: request.machine,
            // An agent that comes back by it itself succeeds nobody.
            succeeds: code.replaces.filter(|older| *older != id),
        }))
    }

    /// The agent that has a context's home: the one admitted last, of those still in if there are any.
    pub fn holder(&self, context: ContextNumber) -> Option<AgentId> {
        let home = self.contexts.get(&context)?.facilities.first()?;
        let has = |agent: &Agent| {
            let present = self.contexts.get(&agent.newest);
            present.and_then(|present| present.facilities.first()) == Some(home)
        };
        let holders = self.agents.iter().filter(|(_, agent)| has(agent));
        let last = holders.max_by_key(|(_, agent)| (agent.revoked.is_none(), agent.admitted_at));
        last.map(|(id, _)| *id)
    }

    /// The agents that others have taken over from, each with the newest of those still in.
    pub fn replaced(&self) -> HashMap<AgentId, AgentId> {
        let mut admitted: Vec<_> =
            self.agents.iter().filter(|(_, agent)| agent.revoked.is_none()).collect();
        admitted.sort_by_key(|(_, agent)| agent.admitted_at);
        let taken = admitted.into_iter().filter_map(|(id, agent)| Some((agent.succeeds?, *id)));
        taken.collect()
    }

    /// Whether another machine has written under an agent's key: a life of it began without knowing of all
    /// that an earlier one holds here. So it is with a copied disk, and with one put back from a backup.
    pub fn has_twin(&self, id: &AgentId) -> bool {
        let Some(agent) = self.agents.get(id) else { return false };
        let lives: BTreeMap<Epoch, Seq> = agent.inbox.lives().collect();
        let lineage = self.cube.lineage();
        lives.len() > 1
            && lives.keys().any(|life| {
                let mut earlier = lineage.earlier_of(*id, *life).iter();
                earlier.any(|(epoch, known)| lives.get(epoch).is_some_and(|held| held > known))
            })
    }

    /// Notes a claim.
    pub(super) fn claim(
        &mut self,
        (key, code, context): (PublicKey, u32, ContextNumber),
        machine: u64,
        claimed_at: Millis,
    ) {
        let claim = Claim { key, code, context, machine, claimed_at, refused: false };
        self.claims.insert(key.agent_id(), claim);
    }
}
