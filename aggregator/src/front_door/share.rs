//! How much of one agent may be on its way to the intake at once: accepted, and not yet dealt with there.
//!
//! All agents share the broker's credit; without a share of its own, one of them could take it all while the
//! intake is behind, and everyone else would wait for it. Beyond its share nothing more is read from it: the
//! client is slowed by its own socket, nothing is lost. What is on its way counts on when the agent connects
//! anew, until the intake has done with it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use banyan_shared::ids::AgentId;
use banyan_shared::limits::PAYLOAD_BYTES_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::broker::MESSAGE_COST_BYTES;

/// Most bytes of one agent on their way: two of the largest messages, a sixteenth of the broker's credit.
pub const SHARE_BYTES: usize = 2 * (PAYLOAD_BYTES_MAX + MESSAGE_COST_BYTES);
/// Most messages of one agent on their way: sixteen times what an agent of ours has in flight.
pub const SHARE_MESSAGES: usize = 64;

/// Agents remembered at least before those are forgotten of whom nothing is on its way.
const REMEMBERED_MIN: usize = 1024;

/// One agent's share.
#[derive(Clone, Debug)]
pub(crate) struct Share(Arc<Semaphore>);

impl Share {
    fn new() -> Share {
        Share(Arc::new(Semaphore::new(SHARE_BYTES)))
    }

    /// Room for a message of so many bytes; none if there is none now.
    pub(crate) fn try_take(&self, payload_bytes: usize) -> Option<OwnedSemaphorePermit> {
        // It is never closed: the only other answer is that there is no room.
        Arc::clone(&self.0).try_acquire_many_owned(cost(payload_bytes)).ok()
    }

    /// Waits for room. None does not come: a share is never closed.
    pub(crate) async fn take(&self, payload_bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).acquire_many_owned(cost(payload_bytes)).await.ok()
    }
}

/// What a message takes of a share, in bytes: a small one as much as lets so many in.
fn cost(payload_bytes: usize) -> u32 {
    let bytes = (payload_bytes + MESSAGE_COST_BYTES).max(SHARE_BYTES / SHARE_MESSAGES);
    u32::try_from(bytes.min(SHARE_BYTES)).unwrap_or(u32::MAX)
}

/// The shares of agents that are connected, or of whom something is on its way.
#[derive(Debug, Default)]
pub(super) struct Shares {
    shares: HashMap<AgentId, Weak<Semaphore>>,
    /// How many there may be before the next look at all of them.
    room: usize,
}

impl Shares {
    /// The agent's share.
    pub(super) fn of(&mut self, agent: AgentId) -> Share {
        if let Some(held) = self.shares.get(&agent).and_then(Weak::upgrade) {
            return Share(held);
        }
        if self.shares.len() >= self.room {
            self.shares.retain(|_, share| share.strong_count() > 0);
            self.room = (2 * self.shares.len()).max(REMEMBERED_MIN);
        }
        let share = Share::new();
        self.shares.insert(agent, Arc::downgrade(&share.0));
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(n: u16) -> AgentId {
        let [a, b] = n.to_be_bytes();
        AgentId([0, 0, 0, 0, a, b])
    }

    #[test]
    fn so_many_small_messages_or_two_of_the_largest() {
        let share = Share::new();
        let small: Vec<_> = (0..SHARE_MESSAGES).map_while(|_| share.try_take(100)).collect();
        assert_eq!(small.len(), SHARE_MESSAGES);
        assert!(share.try_take(1).is_none());
        drop(small);
        let large: Vec<_> = (0..9).map_while(|_| share.try_take(PAYLOAD_BYTES_MAX)).collect();
        assert_eq!(large.len(), 2);
        assert!(share.try_take(0).is_none());
    }

    #[test]
    fn a_share_outlives_its_connection_as_long_as_something_is_on_its_way() {
        let mut shares = Shares::default();
        let on_its_way = shares.of(agent(1)).try_take(PAYLOAD_BYTES_MAX);
        assert!(on_its_way.is_some());
        let again = shares.of(agent(1));
        assert!(again.try_take(PAYLOAD_BYTES_MAX).is_some(), "there is room for one more");
        let held: Vec<_> = (0..9).map_while(|_| again.try_take(PAYLOAD_BYTES_MAX)).collect();
        assert_eq!(held.len(), 1, "and not for two");
        drop((on_its_way, again, held));
        for n in 0..5000 {
            drop(shares.of(agent(n)));
        }
        assert!(shares.shares.len() <= REMEMBERED_MIN, "{}", shares.shares.len());
    }
}
