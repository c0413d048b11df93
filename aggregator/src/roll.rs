//! Who may connect: the agents known here with their keys, kept beside the state so that the door never
//! waits for a query or a commit. The intake keeps it up to date; what it says holds for the moment.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use banyan_shared::ids::AgentId;
use banyan_shared::keys::PublicKey;
use tokio::sync::broadcast;

use crate::act::Act;
use crate::state::{Agent, State};

/// Revocations a listener may be behind; one that is further behind has to look at everyone.
const REVOCATIONS_WAITING_MAX: usize = 256;

/// How an agent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not known here.
    Unknown,
    /// Let in, by this key.
    Admitted(PublicKey),
    /// Put out.
    Revoked,
}

/// The agents known here.
#[derive(Debug)]
pub struct Roll {
    agents: RwLock<HashMap<AgentId, Standing>>,
    revoked: broadcast::Sender<AgentId>,
}

impl Default for Roll {
    fn default() -> Self {
        Self { agents: RwLock::default(), revoked: broadcast::Sender::new(REVOCATIONS_WAITING_MAX) }
    }
}

fn standing_of(agent: &Agent) -> Standing {
    match agent.revoked {
        Some(_) => Standing::Revoked,
        None => Standing::Admitted(agent.key),
    }
}

impl Roll {
    /// The roll of a state.
    pub fn new(state: &State) -> Roll {
        let roll = Roll::default();
        let agents = state.agents.iter().map(|(id, agent)| (*id, standing_of(agent))).collect();
        *roll.agents.write().unwrap_or_else(PoisonError::into_inner) = agents;
        roll
    }

    /// How an agent stands.
    pub fn standing(&self, agent: AgentId) -> Standing {
        // Nothing under this lock can leave the table half changed.
        let agents = self.agents.read().unwrap_or_else(PoisonError::into_inner);
        agents.get(&agent).copied().unwrap_or(Standing::Unknown)
    }

    /// Told of every agent put out from now on.
    pub fn revocations(&self) -> broadcast::Receiver<AgentId> {
        self.revoked.subscribe()
    }

    /// Takes over what an act that was put in force says of agents.
    pub(crate) fn note(&self, act: &Act, state: &State) {
        let agent = match act {
            Act::Admitted { key, .. } => key.agent_id(),
            Act::Readmitted { grant } => match grant.unverified() {
                Ok(grant) => grant.key.agent_id(),
                Err(_) => return,
            },
            Act::Revoked { agent } => *agent,
            _ => return,
        };
        let Some(known) = state.agents.get(&agent) else { return };
        self.put(agent, standing_of(known));
    }

    /// Puts an agent on the roll, or changes how it stands.
    pub(crate) fn put(&self, agent: AgentId, standing: Standing) {
        self.agents.write().unwrap_or_else(PoisonError::into_inner).insert(agent, standing);
        if standing == Standing::Revoked {
            // Without a door nobody listens.
            let _ = self.revoked.send(agent);
        }
    }
}
