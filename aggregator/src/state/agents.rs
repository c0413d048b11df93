//! Agents, their contexts and the codes they were enrolled with.

use std::collections::BTreeSet;
use std::sync::Arc;

use banyan_shared::catalogue::CatalogueHash;
use banyan_shared::ids::{AgentId, ContextNumber, Millis, UnitCode};
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
    /// How often a number came again with other content: two machines with one identity.
    /// Counted since the start.
    #[serde(skip)]
    pub reused: u64,
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
        at: Millis,
    ) {
        let id = key.agent_id();
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
            code,
            machine,
            admitted_at: at,
            succeeds,
            revoked: None,
            inbox: Inbox::default(),
            last_receipt: None,
            beacon: None,
            nonce: None,
            reused: 0,
        });
        agent.contexts.insert(context);
        // An older grant shown later does not take the newer one's place.
        if agent.newest_at <= at {
            (agent.newest, agent.newest_at) = (context, at);
        }
    }

    /// Takes back an agent by a grant of ours that this ledger had lost. The grant's signatures were
    /// checked before it was stored.
    pub(super) fn readmit(&mut self, signed: &SignedGrant) {
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
        self.admit(grant.key, None, context.number, 0, grant.succeeds, grant.issued_at);
    }
}

impl State {
    /// Whether a request to be enrolled is granted: an act to be stored, or none if the agent has been
    /// enrolled with this code already.
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
        if code.expires < now {
            return Err(EnrolRefusal::Expired);
        }
        if code.uses == 0 {
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
        if code.used.iter().any(|(_, taken)| *taken == context) {
            return Err(EnrolRefusal::Waiting);
        }
        Ok(Some(Act::Admitted {
            key: request.key,
            code: request.code,
            context,
            machine: request.machine,
            succeeds: None,
        }))
    }
}
