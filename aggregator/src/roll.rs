//! Who may connect: the agents known here with their keys, kept beside the state so that the door never
//! waits for a query or a commit. The intake keeps it up to date; what it says holds for the moment. The door
//! notes here which identities it has seen used in two places.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use banyan_shared::ids::{AgentId, Millis};
use banyan_shared::keys::PublicKey;
use tokio::sync::broadcast;

use crate::act::Act;
use crate::front_door::Contest;
use crate::state::{Agent, State};

/// Events a listener may be behind; one that is further behind has to look at everyone.
const EVENTS_WAITING_MAX: usize = 256;

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
    /// The identities used in two places, with when that was last seen.
    contests: RwLock<HashMap<AgentId, (Millis, Contest)>>,
    contested: broadcast::Sender<AgentId>,
}

impl Default for Roll {
    fn default() -> Self {
        Self {
            agents: RwLock::default(),
            revoked: broadcast::Sender::new(EVENTS_WAITING_MAX),
            contests: RwLock::default(),
            contested: broadcast::Sender::new(EVENTS_WAITING_MAX),
        }
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

    /// Notes that an agent's identity is used in two places.
    pub(crate) fn contest(&self, agent: AgentId, at: Millis, contest: Contest) {
        // Only agents known here are kept, so that the table is bounded.
        if self.standing(agent) == Standing::Unknown {
            return;
        }
        let mut contests = self.contests.write().unwrap_or_else(PoisonError::into_inner);
        contests.insert(agent, (at, contest));
        // Nobody may be listening.
        let _ = self.contested.send(agent);
    }

    /// When the agent's identity was last seen used in two places, and how, since the service started.
    pub fn contest_of(&self, agent: AgentId) -> Option<(Millis, Contest)> {
        let contests = self.contests.read().unwrap_or_else(PoisonError::into_inner);
        contests.get(&agent).cloned()
    }

    /// Told of every agent whose identity is seen used in two places from now on.
    pub fn contests(&self) -> broadcast::Receiver<AgentId> {
        self.contested.subscribe()
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
