//! What is held of the queue in memory: for each entry its hash, its day and where it is, not its content.

use std::collections::{BTreeMap, VecDeque};

use banyan_shared::ids::Seq;

use super::State;
use super::layout::{EpochState, Stored};

/// What is known of an entry without reading it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slot {
    pub(super) hash: u64,
    pub(super) day: i32,
    /// It is here.
    pub(super) present: bool,
    /// It was replaced by an empty entry.
    pub(super) void: bool,
    /// It has a record of its own, which goes before one in a block.
    pub(super) own: bool,
    /// A block holds it.
    pub(super) packed: bool,
    /// It was found not to fit a block with its neighbours.
    pub(super) alone: bool,
}

impl Slot {
    pub(super) fn of(stored: &Stored) -> Slot {
        Slot {
            hash: stored.hash,
            day: stored.day,
            void: stored.void,
            present: true,
            ..Slot::default()
        }
    }

    /// Whether packing it would save anything, once it is confirmed.
    pub(super) fn packable(&self) -> bool {
        self.present && self.own && !self.packed && !self.alone
    }
}

/// One epoch in memory.
#[derive(Default)]
pub(super) struct EpochIndex {
    pub(super) state: EpochState,
    /// Entry `dropped + 1`, `dropped + 2`, … `issued`.
    pub(super) slots: VecDeque<Slot>,
    /// First number → last number of each block.
    pub(super) blocks: BTreeMap<Seq, Seq>,
    /// Confirmed entries outside blocks.
    pub(super) unpacked: usize,
}

impl EpochIndex {
    pub(super) fn slot(&self, seq: Seq) -> Option<&Slot> {
        let at = seq.checked_sub(self.state.dropped + 1)?;
        self.slots.get(usize::try_from(at).ok()?).filter(|slot| slot.present)
    }

    pub(super) fn slot_mut(&mut self, seq: Seq) -> Option<&mut Slot> {
        let at = seq.checked_sub(self.state.dropped + 1)?;
        self.slots.get_mut(usize::try_from(at).ok()?)
    }

    pub(super) fn state_of(&self, seq: Seq) -> Option<State> {
        let slot = self.slot(seq)?;
        Some(if self.state.confirmed.contains(seq) {
            State::Confirmed
        } else if slot.void {
            State::Voided
        } else {
            State::Waiting
        })
    }

    pub(super) fn seqs(&self) -> impl Iterator<Item = Seq> + '_ {
        (self.state.dropped + 1..)
            .zip(&self.slots)
            .filter(|(_, slot)| slot.present)
            .map(|(seq, _)| seq)
    }

    pub(super) fn count_unpacked(&mut self) {
        self.unpacked = (self.state.dropped + 1..)
            .zip(&self.slots)
            .filter(|(seq, slot)| slot.packable() && self.state.confirmed.contains(*seq))
            .count();
    }
}
