//! Bundles, as the queue sees them.

use banyan_shared::ids::Millis;
use banyan_shared::sync::Mark;
use banyan_shared::wire;

use super::{META_CARRIED, Store, queue_note};
use crate::identity::Identity;
use crate::note::Note;

/// Bytes of entries in one part, before packing: far below what the local interface takes in one line.
const PART_BYTES: usize = 1 << 20;

/// A part of a bundle, sealed.
pub(crate) struct SealedPart {
    /// The messages in order.
    pub(crate) messages: Vec<Vec<u8>>,
    /// How many entries they hold.
    pub(crate) entries: u64,
    /// Where the next part begins; none after the last.
    pub(crate) next: Option<Mark>,
}

impl Store {
    /// The next part of the bundle with this nonce. What a later answer is held against is on disk before
    /// any of it is handed out; nothing else changes.
    pub(crate) fn export(
        &mut self,
        identity: &Identity,
        nonce: u64,
        after: Option<Mark>,
        now: Millis,
    ) -> Result<SealedPart, Note> {
        let part = self.outbox.export(nonce, after, PART_BYTES);
        self.queue
            .meta_put(META_CARRIED, &wire::encode(&self.outbox.carried()))
            .map_err(|error| queue_note(&error))?;
        let messages = part.cuts.iter().map(|cut| self.sealed(cut, identity, now));
        let messages = messages.collect::<Result<_, _>>()?;
        let entries = part.cuts.iter().map(|cut| cut.seqs.len() as u64).sum();
        Ok(SealedPart { messages, entries, next: part.next })
    }

    /// Notes the time of a receipt that came in an answer.
    pub(crate) fn note_brought(&mut self, centre: Millis) -> Result<(), Note> {
        self.clock.brought(centre);
        self.keep_clock()
    }
}
