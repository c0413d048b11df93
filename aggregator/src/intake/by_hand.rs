//! Bundles: the messages of a file, judged, committed and counted in the same rounds as those of a line, with
//! the answers collected instead of sent.

use std::sync::{Arc, Mutex, PoisonError};

use banyan_shared::ids::AgentId;
use banyan_shared::limits::PAYLOAD_BYTES_MAX;
use bytes::Bytes;
use tokio::sync::oneshot;

use super::Intake;
use super::opening::a_round;
use crate::broker::{DownError, Downlink, Incoming, Permit};

/// A request to take in messages of a bundle.
pub struct BundleRequest {
    /// Whose bundle it is.
    pub agent: AgentId,
    /// The messages, in order.
    pub messages: Vec<Bytes>,
    /// Told when what is new is on disk and counted.
    pub reply: oneshot::Sender<Delivered>,
}

/// What came of messages of a bundle.
#[derive(Debug, Default)]
pub struct Delivered {
    /// What there is to say to the agent, in order.
    pub answer: Vec<Bytes>,
    /// By how much each of the intake's counters rose.
    pub counted: Vec<(&'static str, u64)>,
}

impl Delivered {
    /// By how much a counter rose.
    pub fn count(&self, name: &str) -> u64 {
        debug_assert!(
            self.counted.is_empty() || self.counted.iter().any(|(known, _)| *known == name),
            "there is no counter {name}"
        );
        self.counted.iter().find(|(known, _)| *known == name).map_or(0, |(_, n)| *n)
    }
}

/// Most bytes of answers to one request. What has no room is not said: the agent asks again with its next bundle.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// The way down into a file: how many bytes, and the messages.
#[derive(Default)]
struct Collected(Mutex<(usize, Vec<Bytes>)>);

impl Downlink for Collected {
    fn publish_down(&self, _: AgentId, payload: Bytes) -> Result<(), DownError> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(DownError::TooLarge { bytes: payload.len() });
        }
        let (bytes, answer) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Every batch of an agent that is out is told the same.
        if answer.last() == Some(&payload) {
            return Ok(());
        }
        if *bytes + payload.len() > ANSWER_BYTES_MAX {
            return Err(DownError::Full);
        }
        *bytes += payload.len();
        answer.push(payload);
        Ok(())
    }
}

impl Intake {
    /// Takes in messages of a bundle. Nothing else is judged meanwhile, so the counters are this bundle's.
    pub(super) async fn bundle(&mut self, agent: AgentId, messages: Vec<Bytes>) -> Delivered {
        let collected = Arc::new(Collected::default());
        let line = std::mem::replace(&mut self.down, collected.clone());
        self.by_hand = true;
        let before = self.counters.values();
        let incoming =
            |payload: &Bytes| Incoming { agent, payload: payload.clone(), permit: Permit::alone() };
        let mut messages = messages.iter().map(incoming);
        loop {
            let round = a_round(|| messages.next());
            if round.is_empty() {
                break;
            }
            self.round(self.opening.open_all(round)).await;
        }
        self.by_hand = false;
        self.down = line;
        let counted = self.counters.values().into_iter().zip(before);
        let counted = counted.map(|((name, now), (_, before))| (name, now - before)).collect();
        let mut answer = collected.0.lock().unwrap_or_else(PoisonError::into_inner);
        Delivered { answer: std::mem::take(&mut answer.1), counted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_one_request_is_bounded_and_repeats_nothing() {
        let (down, agent) = (Collected::default(), AgentId([1; 6]));
        let large = |n: u8| Bytes::from(vec![n; PAYLOAD_BYTES_MAX]);
        down.publish_down(agent, large(0)).unwrap();
        down.publish_down(agent, large(0)).unwrap();
        assert_eq!(down.0.lock().unwrap().1.len(), 1);
        let taken = (1..=u8::MAX).take_while(|n| down.publish_down(agent, large(*n)).is_ok());
        let taken = 1 + taken.count();
        assert_eq!(taken, ANSWER_BYTES_MAX / PAYLOAD_BYTES_MAX);
        assert_eq!(down.0.lock().unwrap().1.len(), taken);
    }
}
