//! Bundles: the messages of a file, judged, committed and counted in the same rounds as those of a line, with
//! the answers collected instead of sent.

use std::sync::{Arc, Mutex, PoisonError};

use banyan_shared::ids::AgentId;
use banyan_shared::limits::PAYLOAD_BYTES_MAX;
use banyan_shared::wire::Kind;
use bytes::Bytes;
use tokio::sync::oneshot;

use super::{Intake, ROUND_MESSAGES_MAX};
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
        self.counted.iter().find(|(known, _)| *known == name).map_or(0, |(_, n)| *n)
    }
}

/// The way down into a file.
#[derive(Default)]
struct Collected(Mutex<Vec<Bytes>>);

impl Downlink for Collected {
    fn publish_down(&self, _: AgentId, payload: Bytes) -> Result<(), DownError> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(DownError::TooLarge { bytes: payload.len() });
        }
        let mut answer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Every batch of an agent that is out is told the same.
        if answer.last() != Some(&payload) {
            answer.push(payload);
        }
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
        // A round opens its messages before it carries any out: who a batch is of must be known by then.
        let is_batch = |bytes: &Bytes| bytes.get(1) == Some(&(Kind::Batch as u8));
        for alike in messages.chunk_by(|a, b| is_batch(a) && is_batch(b)) {
            for round in alike.chunks(ROUND_MESSAGES_MAX) {
                self.round(round.iter().map(incoming).collect()).await;
            }
        }
        self.by_hand = false;
        self.down = line;
        let counted = self.counters.values().into_iter().zip(before);
        let counted = counted.map(|((name, now), (_, before))| (name, now - before)).collect();
        let mut answer = collected.0.lock().unwrap_or_else(PoisonError::into_inner);
        Delivered { answer: std::mem::take(&mut *answer), counted }
    }
}
