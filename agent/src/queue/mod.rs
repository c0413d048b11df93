//! The durable queue of the agent: what was saved stays saved, and the queue always opens.
//!
//! Promises. *Saved means saved*: [`Queue::append`] returns only when the entries are on disk, all of them or
//! none. *Nothing is forgotten early*: an entry leaves the waiting ones only by [`Queue::confirm`], and stays
//! readable by (epoch, seq) until [`Queue::drop_older_than`]. *The queue always opens*: a damaged store is set
//! aside, what is readable is salvaged under its old numbers, a new epoch begins, and the loss is reported by
//! number ([`Damage`]) until it has been passed on.
//!
//! Left to others: what a payload means, when to send, which receipt to believe, what time it is. All calls
//! block on the disk; an asynchronous caller uses a blocking thread.
//!
//! On disk, inside the queue's directory: `lock`; `head`, the side file; `store-N`, the current sled store;
//! `quarantine/`, damaged stores under a number that grows, with the time they were set aside.

mod error;
mod index;
mod layout;
mod open;
mod ranges;
mod record;
mod salvage;
mod side;
mod store;
#[cfg(test)]
mod tests;
mod types;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use banyan_shared::ids::{Epoch, Seq};
use banyan_shared::period::Date;
pub use error::QueueError;
use index::{EpochIndex, Slot};
use layout::{EpochState, Stored};
pub use ranges::SeqRange;
pub use record::VALUE_BYTES_MAX;
use side::{Head, SIDE_EPOCHS_MAX, Side, SideEpoch};
use store::{Store, Writes};
pub use types::{Damage, Entry, EpochLoss, Hashes, NewEntry, State, Stats};

/// Largest payload of one entry, in bytes.
pub const ENTRY_BYTES_MAX: usize = 16 * 1024;
/// Most entries of one append.
pub const APPEND_ENTRIES_MAX: usize = 4096;
/// Most payload bytes of one append.
pub const APPEND_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most entries that may wait for a receipt; beyond it nothing more is saved.
pub const UNCONFIRMED_MAX: u64 = 200_000;
/// Longest name of a small value, in bytes.
pub const META_NAME_BYTES_MAX: usize = 64;
/// Largest small value, in bytes.
pub const META_BYTES_MAX: usize = 1024 * 1024;
/// The store is copied anew when its file is larger than this…
pub const COMPACT_ABOVE_BYTES: u64 = 16 * 1024 * 1024;
/// …and larger than this many times what lives in it.
pub const COMPACT_RATIO: u64 = 4;
/// Damaged stores kept in `quarantine/`; older ones are deleted.
pub const QUARANTINE_KEPT: usize = 3;
/// Confirmed entries are packed into blocks once so many of them stand alone.
pub const PACK_FROM: usize = 64;
/// Most entries packed, moved or dropped in one commit.
const STEP_ENTRIES: usize = 1024;
/// Commit numbers set aside for each opening of the queue.
const SESSION_BITS: u32 = 20;

/// The durable queue. One process at a time has it open.
pub struct Queue {
    dir: PathBuf,
    /// Held for as long as the queue is open.
    _lock: File,
    side: Side,
    store: Store,
    store_number: u32,
    commit: u64,
    current: Epoch,
    epochs: BTreeMap<Epoch, EpochIndex>,
    damages: Vec<Damage>,
    broken: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("dir", &self.dir).field("epoch", &self.current).finish()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if !self.broken {
            // Only a hint that nothing was under way; if it never reaches the disk the next opening is careful.
            let head =
                Head { clean: true, ..self.head(&BTreeMap::new(), self.current, self.commit) };
            let _ = self.side.write(&head, false);
            self.store.ends_in_order();
        }
    }
}

impl Queue {
    /// The epoch new entries are numbered in.
    pub fn epoch(&self) -> Epoch {
        self.current
    }

    /// Every epoch of which anything is kept, with the last number it gave out, oldest first.
    pub fn epochs(&self) -> Vec<(Epoch, Seq)> {
        self.epochs.iter().map(|(&epoch, index)| (epoch, index.state.issued)).collect()
    }

    /// The last number an epoch gave out; 0 when the epoch is not known.
    pub fn issued(&self, epoch: Epoch) -> Seq {
        self.epochs.get(&epoch).map_or(0, |index| index.state.issued)
    }

    /// The last number of an epoch whose entry was dropped after its time; 0 if none was.
    pub fn dropped(&self, epoch: Epoch) -> Seq {
        self.epochs.get(&epoch).map_or(0, |index| index.state.dropped)
    }

    /// Saves entries under the next numbers of the current epoch, all or none, and returns the numbers once
    /// they are on disk.
    pub fn append(&mut self, entries: &[NewEntry]) -> Result<Vec<Seq>, QueueError> {
        self.append_with(entries, &[])
    }

    /// [`Queue::append`] that stores small values (name, bytes) at the same stroke.
    pub fn append_with(
        &mut self,
        entries: &[NewEntry],
        values: &[(&str, &[u8])],
    ) -> Result<Vec<Seq>, QueueError> {
        within("entries of one append", entries.len(), APPEND_ENTRIES_MAX)?;
        within(
            "payload bytes of one append",
            entries.iter().map(|entry| entry.payload.len()).sum(),
            APPEND_BYTES_MAX,
        )?;
        for entry in entries {
            within("payload bytes of one entry", entry.payload.len(), ENTRY_BYTES_MAX)?;
        }
        // The first entry of a life states what came before; without it not even the backlog could be sent.
        let counted = !entries.is_empty() && self.issued(self.current) > 0;
        if counted && self.unconfirmed() + entries.len() as u64 > UNCONFIRMED_MAX {
            return Err(QueueError::Full { limit: UNCONFIRMED_MAX });
        }
        let mut writes = meta_writes(values)?;
        if entries.is_empty() && writes.is_empty() {
            return Ok(Vec::new());
        }
        let epoch = self.current;
        let mut state = self.index(epoch)?.state.clone();
        let first = state.issued + 1;
        state.issued += entries.len() as u64;
        for (seq, entry) in (first..).zip(entries) {
            let stored = Stored {
                hash: entry.hash,
                day: entry.day.days(),
                void: false,
                payload: entry.payload.clone(),
            };
            writes.insert(layout::entry_key(epoch, seq), Some(stored.encode()));
        }
        self.commit(writes, [(epoch, state)].into(), epoch)?;
        let index = self.index_mut(epoch)?;
        index.slots.extend(entries.iter().map(|entry| Slot {
            hash: entry.hash,
            day: entry.day.days(),
            present: true,
            own: true,
            ..Slot::default()
        }));
        Ok((first..).take(entries.len()).collect())
    }

    /// Whether a write has failed: nothing more is saved until the queue is opened again.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Where an entry stands; `None` when it is not here.
    pub fn state(&self, epoch: Epoch, seq: Seq) -> Option<State> {
        self.epochs.get(&epoch)?.state_of(seq)
    }

    /// The numbers of an epoch's entries that still need a receipt and may be sent (waiting or voided), ascending.
    pub fn waiting(&self, epoch: Epoch) -> impl DoubleEndedIterator<Item = Seq> + '_ {
        self.numbers(epoch, |state| matches!(state, State::Waiting | State::Voided)).into_iter()
    }

    /// The numbers of an epoch's entries whose state fits, ascending.
    pub fn numbers(&self, epoch: Epoch, fits: impl Fn(State) -> bool) -> Vec<Seq> {
        let Some(index) = self.epochs.get(&epoch) else { return Vec::new() };
        index.seqs().filter(|&seq| index.state_of(seq).is_some_and(&fits)).collect()
    }

    /// An epoch's entries from number `from` on whose state fits, ascending, at most `limit`.
    pub fn entries(
        &self,
        epoch: Epoch,
        from: Seq,
        limit: usize,
        fits: impl Fn(State) -> bool,
    ) -> Result<Vec<Entry>, QueueError> {
        let Some(index) = self.epochs.get(&epoch) else { return Ok(Vec::new()) };
        let seqs = index
            .seqs()
            .filter(|&seq| seq >= from && index.state_of(seq).is_some_and(&fits))
            .take(limit);
        let mut entries = Vec::new();
        for seq in seqs {
            entries.extend(self.get(epoch, seq)?);
        }
        Ok(entries)
    }

    /// All retained entries of an epoch after number `after`, whatever their state, at most `limit`: what a
    /// restored aggregator is fed from.
    pub fn history_since(
        &self,
        epoch: Epoch,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Entry>, QueueError> {
        self.entries(epoch, after.saturating_add(1), limit, |_| true)
    }

    /// One entry; `None` when it is not here.
    pub fn get(&self, epoch: Epoch, seq: Seq) -> Result<Option<Entry>, QueueError> {
        let Some(index) = self.epochs.get(&epoch) else { return Ok(None) };
        let (Some(slot), Some(state)) = (index.slot(seq), index.state_of(seq)) else {
            return Ok(None);
        };
        let stored = self.stored(epoch, seq, slot)?;
        Ok(Some(Entry {
            epoch,
            seq,
            state,
            void: stored.void,
            hash: stored.hash,
            day: Date::from_days(stored.day).unwrap_or(Date::MIN),
            payload: stored.payload,
        }))
    }

    /// The hashes of an epoch, dense from its base; `None` when the epoch is not known.
    pub fn hashes(&self, epoch: Epoch) -> Option<Hashes> {
        let index = self.epochs.get(&epoch)?;
        Some(Hashes {
            base: index.state.dropped,
            base_sum: index.state.dropped_sum,
            hashes: index.slots.iter().map(|slot| slot.present.then_some(slot.hash)).collect(),
        })
    }

    /// Marks entries as released by a receipt and keeps them as history; the number newly released.
    ///
    /// Numbers that are not here any more are passed over. A range beyond what was issued is an error, and
    /// then nothing is marked.
    pub fn confirm(&mut self, epoch: Epoch, ranges: &[SeqRange]) -> Result<u64, QueueError> {
        self.confirm_with(epoch, ranges, None)
    }

    /// [`Queue::confirm`] by a receipt of this day: from it, and not from the day some PC's clock showed, the
    /// retention of what is released counts.
    pub fn confirm_on(
        &mut self,
        epoch: Epoch,
        ranges: &[SeqRange],
        day: Date,
    ) -> Result<u64, QueueError> {
        self.confirm_with(epoch, ranges, Some(day.days()))
    }

    fn confirm_with(
        &mut self,
        epoch: Epoch,
        ranges: &[SeqRange],
        day: Option<i32>,
    ) -> Result<u64, QueueError> {
        let index = self.index(epoch)?;
        let mut state = index.state.clone();
        for &range in ranges {
            check_range(epoch, range, state.issued)?;
            state.confirmed.insert((range.0.max(state.dropped + 1), range.1));
        }
        for &absent in state.absent.ranges() {
            state.confirmed.remove(absent);
        }
        let newly = state.confirmed.len() - index.state.confirmed.len();
        if newly == 0 {
            return Ok(0);
        }
        let dated: Vec<(Seq, i32)> = day.map_or_else(Vec::new, |day| {
            let released = ranges.iter().flat_map(|&(first, last)| first..=last);
            let released = released.filter(|seq| !index.state.confirmed.contains(*seq));
            // What is in a block was released before, and had its day then, unless that was none yet.
            let off = |slot: &Slot| slot.day != day && (!slot.packed || slot.day > day);
            released.filter(|&seq| index.slot(seq).is_some_and(off)).map(|seq| (seq, day)).collect()
        });
        let mut writes = Writes::new();
        for &(seq, day) in &dated {
            // Days alone, before the rest: a crash in between changes nothing else.
            if writes.len() == STEP_ENTRIES {
                self.commit(std::mem::take(&mut writes), BTreeMap::new(), self.current)?;
            }
            let Some(&slot) = self.index(epoch)?.slot(seq) else { continue };
            let stored = Stored { day, ..self.stored(epoch, seq, &slot)? };
            writes.insert(layout::entry_key(epoch, seq), Some(stored.encode()));
        }
        self.commit(writes, [(epoch, state)].into(), self.current)?;
        let index = self.index_mut(epoch)?;
        for (seq, day) in dated {
            if let Some(slot) = index.slot_mut(seq) {
                (slot.day, slot.own) = (day, true);
            }
        }
        index.count_unpacked();
        if index.unpacked >= PACK_FROM {
            self.pack(epoch)?;
        }
        Ok(newly)
    }

    /// Puts confirmed entries back among those that need a receipt (the aggregator was restored from an
    /// older backup); the number put back. No content is rewritten.
    pub fn unconfirm(&mut self, epoch: Epoch, ranges: &[SeqRange]) -> Result<u64, QueueError> {
        let index = self.index(epoch)?;
        let mut state = index.state.clone();
        for &range in ranges {
            state.confirmed.remove(range);
        }
        let put_back = index.state.confirmed.len() - state.confirmed.len();
        if put_back > 0 {
            self.commit(Writes::new(), [(epoch, state)].into(), self.current)?;
            self.index_mut(epoch)?.count_unpacked();
        }
        Ok(put_back)
    }

    /// Replaces the content of an unconfirmed entry by `payload`, which says that the number is void and
    /// keeps what people need of the content.
    pub fn void(
        &mut self,
        epoch: Epoch,
        seq: Seq,
        payload: Vec<u8>,
        hash: u64,
    ) -> Result<(), QueueError> {
        within("payload bytes of one entry", payload.len(), ENTRY_BYTES_MAX)?;
        let entry =
            self.get(epoch, seq)?.ok_or_else(|| not_found(epoch, seq, "is not in the queue"))?;
        let day = entry.day.days();
        if entry.state == State::Confirmed {
            return Err(not_found(epoch, seq, "is confirmed and cannot be voided"));
        }
        let stored = Stored { hash, day, void: true, payload };
        let writes = [(layout::entry_key(epoch, seq), Some(stored.encode()))].into();
        self.commit(writes, BTreeMap::new(), self.current)?;
        if let Some(slot) = self.index_mut(epoch)?.slot_mut(seq) {
            (slot.hash, slot.void, slot.own) = (hash, true, true);
        }
        Ok(())
    }

    /// Begins a new epoch; later entries are numbered in it from 1. Its counter must be above every other's.
    pub fn new_epoch(&mut self, epoch: Epoch) -> Result<(), QueueError> {
        if self.epochs.keys().any(|known| known.counter >= epoch.counter) {
            return Err(not_found(epoch, 0, "is not later than the epochs already used"));
        }
        self.commit(Writes::new(), [(epoch, EpochState::default())].into(), epoch)
    }

    /// Moves unconfirmed entries of `old` to the end of the current epoch, durably and at one stroke, and gives
    /// the old and new numbers. States are kept; numbers that are not here or are confirmed are passed over.
    ///
    /// `renumber` gets the new number and the entry and gives its payload and hash under that number.
    pub fn move_entries(
        &mut self,
        old: Epoch,
        seqs: &[Seq],
        mut renumber: impl FnMut(Epoch, Seq, &Entry) -> (Vec<u8>, u64),
    ) -> Result<Vec<(Seq, Seq)>, QueueError> {
        let new = self.current;
        if old == new {
            return Err(not_found(old, 0, "is the current epoch; begin a new one first"));
        }
        let mut seqs = seqs.to_vec();
        seqs.retain(|&seq| self.state(old, seq).is_some_and(|state| state != State::Confirmed));
        seqs.sort_unstable();
        seqs.dedup();
        if seqs.is_empty() {
            return Ok(Vec::new());
        }
        let mut from = self.index(old)?.state.clone();
        let mut to = self.index(new)?.state.clone();
        let mut moved = Vec::with_capacity(seqs.len());
        let mut slots = Vec::with_capacity(seqs.len());
        // The copies go first, unseen: numbers above `issued` do not exist. The last commit shows them and hides
        // the originals, so a crash before it changes nothing.
        for step in seqs.chunks(STEP_ENTRIES) {
            let mut writes = Writes::new();
            for &seq in step {
                let Some(entry) = self.get(old, seq)? else { continue };
                to.issued += 1;
                let (payload, hash) = renumber(new, to.issued, &entry);
                within("payload bytes of one entry", payload.len(), ENTRY_BYTES_MAX)?;
                let stored = Stored { hash, day: entry.day.days(), void: entry.void, payload };
                writes.insert(layout::entry_key(new, to.issued), Some(stored.encode()));
                from.absent.insert((seq, seq));
                moved.push((seq, to.issued));
                slots.push(Slot { own: true, ..Slot::of(&stored) });
            }
            self.commit(writes, BTreeMap::new(), new)?;
        }
        self.commit(Writes::new(), [(old, from), (new, to)].into(), new)?;
        self.index_mut(new)?.slots.extend(slots);
        let mut originals = Vec::new();
        let index = self.index_mut(old)?;
        for &(seq, _) in &moved {
            if let Some(slot) = index.slot_mut(seq) {
                if slot.own {
                    originals.push(seq);
                }
                *slot = Slot::default();
            }
        }
        for step in originals.chunks(STEP_ENTRIES) {
            let writes = step.iter().map(|&seq| (layout::entry_key(old, seq), None)).collect();
            self.commit(writes, BTreeMap::new(), new)?;
        }
        Ok(moved)
    }

    /// Drops the oldest confirmed entries of each epoch whose day is before `day`, up to the first entry that
    /// must stay, keeping the sum of their hashes; how many were dropped.
    pub fn drop_older_than(&mut self, day: Date) -> Result<u64, QueueError> {
        let mut dropped = 0;
        for epoch in self.epochs.keys().copied().collect::<Vec<_>>() {
            loop {
                let n = self.drop_step(epoch, day)?;
                dropped += n as u64;
                if n < STEP_ENTRIES {
                    break;
                }
            }
        }
        if let Err(error) = self.compact_if_wasteful() {
            if self.broken {
                return Err(error);
            }
            // The store in use is untouched, only larger than it need be.
            tracing::warn!(%error, "the queue's store could not be made smaller");
        }
        Ok(dropped)
    }

    fn drop_step(&mut self, epoch: Epoch, day: Date) -> Result<usize, QueueError> {
        let index = self.index(epoch)?;
        let mut state = index.state.clone();
        let mut writes = Writes::new();
        let mut n = 0;
        let mut present = 0;
        for (seq, slot) in (state.dropped + 1..).zip(&index.slots) {
            if slot.present {
                let over = slot.day < day.days() && index.state_of(seq) == Some(State::Confirmed);
                if !over || present == STEP_ENTRIES {
                    break;
                }
                present += 1;
                state.dropped_sum = state.dropped_sum.wrapping_add(slot.hash);
                if slot.own {
                    writes.insert(layout::entry_key(epoch, seq), None);
                }
            }
            n += 1;
            state.dropped = seq;
        }
        // Numbers that are absent count as dropped only together with an entry that is.
        if present == 0 {
            return Ok(0);
        }
        state.confirmed.remove((1, state.dropped));
        state.absent.remove((1, state.dropped));
        let blocks: Vec<Seq> = index
            .blocks
            .iter()
            .take_while(|&(_, &last)| last <= state.dropped)
            .map(|(&first, _)| first)
            .collect();
        writes.extend(blocks.iter().map(|&first| (layout::block_key(epoch, first), None)));
        self.commit(writes, [(epoch, state)].into(), self.current)?;
        let index = self.index_mut(epoch)?;
        index.slots.drain(..n);
        for first in blocks {
            index.blocks.remove(&first);
        }
        index.count_unpacked();
        Ok(present)
    }

    /// Packs confirmed entries that stand alone into blocks.
    fn pack(&mut self, epoch: Epoch) -> Result<(), QueueError> {
        let index = self.index(epoch)?;
        let seqs: Vec<(Seq, Slot)> = (index.state.dropped + 1..)
            .zip(index.slots.iter().copied())
            .filter(|(seq, slot)| slot.packable() && index.state.confirmed.contains(*seq))
            .take(STEP_ENTRIES)
            .collect();
        let mut entries = Vec::with_capacity(seqs.len());
        for (seq, slot) in &seqs {
            entries.push((*seq, self.stored(epoch, *seq, slot)?));
        }
        let blocks = layout::pack(entries);
        if !blocks.is_empty() {
            let mut writes = Writes::new();
            for (first, bytes, members) in &blocks {
                writes.insert(layout::block_key(epoch, *first), Some(bytes.clone()));
                writes.extend(members.iter().map(|&seq| (layout::entry_key(epoch, seq), None)));
            }
            self.commit(writes, BTreeMap::new(), self.current)?;
        }
        let index = self.index_mut(epoch)?;
        for (seq, _) in seqs {
            if let Some(slot) = index.slot_mut(seq) {
                slot.alone = true;
            }
        }
        for (first, _, members) in blocks {
            index.blocks.insert(first, *members.last().unwrap_or(&first));
            for seq in members {
                if let Some(slot) = index.slot_mut(seq) {
                    (slot.own, slot.packed, slot.alone) = (false, true, false);
                }
            }
        }
        index.count_unpacked();
        Ok(())
    }

    /// A small value by name.
    pub fn meta_get(&self, name: &str) -> Result<Option<Vec<u8>>, QueueError> {
        self.store.get(&layout::meta_key(name))
    }

    /// Stores a small value; on return it is on disk.
    pub fn meta_put(&mut self, name: &str, bytes: &[u8]) -> Result<(), QueueError> {
        self.append_with(&[], &[(name, bytes)]).map(drop)
    }

    /// The damages found and not yet passed on, oldest first.
    pub fn damages(&self) -> &[Damage] {
        &self.damages
    }

    /// Forgets the damages, once they have been stated upstream.
    pub fn damage_reported(&mut self) -> Result<(), QueueError> {
        if self.damages.is_empty() {
            return Ok(());
        }
        self.commit([(layout::DAMAGE_KEY.to_vec(), None)].into(), BTreeMap::new(), self.current)?;
        self.damages.clear();
        Ok(())
    }

    /// How full the queue is.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats {
            file_bytes: self.store.file_bytes(),
            live_bytes: self.store.live_bytes(),
            ..Stats::default()
        };
        for index in self.epochs.values() {
            for seq in index.seqs() {
                match index.state_of(seq) {
                    Some(State::Confirmed) => stats.confirmed += 1,
                    _ => stats.waiting += 1,
                }
            }
        }
        stats
    }

    /// Entries that have no receipt.
    fn unconfirmed(&self) -> u64 {
        let count = |index: &EpochIndex| {
            index.state.issued
                - index.state.dropped
                - index.state.absent.len()
                - index.state.confirmed.len()
        };
        self.epochs.values().map(count).sum()
    }

    fn index(&self, epoch: Epoch) -> Result<&EpochIndex, QueueError> {
        self.epochs.get(&epoch).ok_or_else(|| not_found(epoch, 0, "is not an epoch of this queue"))
    }

    fn index_mut(&mut self, epoch: Epoch) -> Result<&mut EpochIndex, QueueError> {
        self.epochs
            .get_mut(&epoch)
            .ok_or_else(|| not_found(epoch, 0, "is not an epoch of this queue"))
    }

    /// Reads an entry from its own record or from its block.
    fn stored(&self, epoch: Epoch, seq: Seq, slot: &Slot) -> Result<Stored, QueueError> {
        let gone = || QueueError::Broken {
            path: self.store.path().to_owned(),
            what: format!("entry {epoch}/{seq} cannot be read"),
        };
        if slot.own {
            let bytes = self.store.get(&layout::entry_key(epoch, seq))?.ok_or_else(gone)?;
            return Stored::decode(&bytes).ok_or_else(gone);
        }
        let first =
            self.store.last_base(&layout::block_prefix(epoch), &layout::block_key(epoch, seq))?;
        let block = self.store.get(&first.ok_or_else(gone)?)?.ok_or_else(gone)?;
        let entries = layout::unpack(&block).ok_or_else(gone)?;
        entries
            .into_iter()
            .find(|(here, _)| *here == seq)
            .map(|(_, stored)| stored)
            .ok_or_else(gone)
    }

    /// What the side file is to say after the given changes.
    fn head(&self, changed: &BTreeMap<Epoch, EpochState>, current: Epoch, commit: u64) -> Head {
        let mut epochs: BTreeMap<Epoch, &EpochState> =
            self.epochs.iter().map(|(&epoch, index)| (epoch, &index.state)).collect();
        epochs.extend(changed.iter().map(|(&epoch, state)| (epoch, state)));
        let newest = epochs.iter().rev().take(SIDE_EPOCHS_MAX);
        Head {
            commit,
            store: self.store_number,
            current,
            epochs: newest
                .map(|(&epoch, state)| SideEpoch {
                    epoch,
                    issued: state.issued,
                    dropped: state.dropped,
                })
                .collect(),
            clean: false,
        }
    }

    /// The one way anything reaches the disk: store synced, then side file synced, then memory changed.
    fn commit(
        &mut self,
        mut writes: Writes,
        states: BTreeMap<Epoch, EpochState>,
        current: Epoch,
    ) -> Result<(), QueueError> {
        if self.broken {
            return Err(QueueError::Broken {
                path: self.dir.clone(),
                what: "an earlier write failed".to_owned(),
            });
        }
        for (&epoch, state) in &states {
            writes.insert(layout::epoch_key(epoch), Some(state.encode()));
        }
        let number = self.commit + 1;
        // Until the end is known, nothing may be built on what is in memory.
        self.broken = true;
        self.store.commit(number, &writes)?;
        self.side
            .write(&self.head(&states, current, number), true)
            .map_err(|error| QueueError::io("write", &self.dir.join(side::SIDE_FILE), error))?;
        self.broken = false;
        self.commit = number;
        self.current = current;
        for (epoch, state) in states {
            self.epochs.entry(epoch).or_default().state = state;
        }
        Ok(())
    }
}

fn not_found(epoch: Epoch, seq: Seq, reason: &'static str) -> QueueError {
    QueueError::NotFound { epoch, seq, reason }
}

fn within(what: &'static str, size: usize, limit: usize) -> Result<(), QueueError> {
    if size > limit { Err(QueueError::TooLarge { what, size, limit }) } else { Ok(()) }
}

fn check_range(epoch: Epoch, (first, last): SeqRange, issued: Seq) -> Result<(), QueueError> {
    if first == 0 || last > issued {
        return Err(not_found(epoch, last, "was never given out"));
    }
    Ok(())
}

fn meta_writes(values: &[(&str, &[u8])]) -> Result<Writes, QueueError> {
    let mut writes = Writes::new();
    for (name, bytes) in values {
        within("bytes of a value's name", name.len(), META_NAME_BYTES_MAX)?;
        within("bytes of a value", bytes.len(), META_BYTES_MAX)?;
        writes.insert(layout::meta_key(name), Some(bytes.to_vec()));
    }
    Ok(writes)
}
