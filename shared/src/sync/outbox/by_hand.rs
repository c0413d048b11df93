//! Delivery by hand: what a bundle holds, and what the answer to it may say.
//!
//! Writing a bundle changes nothing of what is owed: its entries wait until a receipt proves them, whichever
//! way that comes. Answers come days later and in any order, beside newer words over the line. So one counts
//! as the answer to the present hello, which may show less and name another store, only as long as nothing
//! asked later has been answered; after that it can only add, like any old receipt.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Cut, Effect, Outbox, Sent, Slot, State};
use crate::ids::{ContextNumber, Epoch, Millis, Seq};
use crate::limits::{BATCH_BYTES_MAX, BATCH_ENTRIES_MAX};
use crate::wire::Receipt;

/// Bundles remembered; the answer to an older one can only add.
pub const CARRIED_MAX: usize = 8;
/// Runs of numbers remembered of a bundle. A refusal of what is in no such run is left for the next answer.
const RUNS_MAX: usize = 1024;

/// A bundle that was written: its answer is known again by the nonce.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// The nonce of its hello.
    pub nonce: u64,
    /// It, or something asked later, has been answered.
    pub answered: bool,
    /// What it holds: life, first and last number of each run.
    pub runs: Vec<(Epoch, Seq, Seq)>,
}

impl Carried {
    fn add(&mut self, epoch: Epoch, seqs: &[Seq]) {
        // Batches come newest first, and so do the runs.
        for (first, last) in super::ranges_of(seqs).into_iter().rev() {
            let room = self.runs.len() < RUNS_MAX;
            match self.runs.last_mut() {
                Some((life, low, _)) if *life == epoch && last + 1 == *low => *low = first,
                _ if room => self.runs.push((epoch, first, last)),
                _ => {}
            }
        }
    }
}

/// How far the writing of a bundle has come: the entry written last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Its life.
    pub epoch: Epoch,
    /// Its number.
    pub seq: Seq,
}

/// A part of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its batches in order. The first part begins with the hello.
    pub cuts: Vec<Cut>,
    /// Where the next part begins; none after the last.
    pub next: Option<Mark>,
}

/// A batch being filled.
struct Open {
    epoch: Epoch,
    context: ContextNumber,
    seqs: Vec<Seq>,
    bytes: usize,
}

impl Open {
    fn takes(&self, epoch: Epoch, slot: &Slot) -> bool {
        (self.epoch, self.context) == (epoch, slot.context)
            && self.seqs.len() < BATCH_ENTRIES_MAX
            && self.bytes + bytes_of(slot) <= BATCH_BYTES_MAX
    }
}

fn bytes_of(slot: &Slot) -> usize {
    usize::try_from(slot.bytes).unwrap_or(usize::MAX)
}

impl Outbox {
    /// Tells of the bundles written before a restart.
    pub fn load_carried(&mut self, carried: Vec<Carried>) {
        self.carried = carried;
    }

    /// The bundles written, oldest first: to be durable before any part of one is handed out.
    pub fn carried(&self) -> &[Carried] {
        &self.carried
    }

    /// Whether an answer with this nonce would count as the answer to the present hello.
    pub fn awaits(&self, answers: Option<u64>) -> bool {
        self.carried.iter().any(|bundle| !bundle.answered && answers == Some(bundle.nonce))
    }

    /// The contexts of all that waits.
    pub fn contexts_waiting(&self) -> BTreeSet<ContextNumber> {
        let slots = self.lives.values().flat_map(|life| life.slots.values());
        slots.filter(|slot| slot.state == State::Waiting).map(|slot| slot.context).collect()
    }

    /// The next part of the bundle with this nonce: its hello, and after it whatever waits, in the order in
    /// which it goes over a line, up to about `bytes_max` before packing and at least one batch. Nothing else
    /// changes than [`Outbox::carried`].
    pub fn export(&mut self, nonce: u64, after: Option<Mark>, bytes_max: usize) -> Part {
        let mut batches: Vec<Open> = Vec::new();
        let (mut bytes, mut next, mut last) = (0, None, after);
        for (epoch, seq, slot) in self.queue_after(after) {
            let size = bytes_of(slot);
            if bytes + size > bytes_max && last != after {
                next = last;
                break;
            }
            bytes += size;
            last = Some(Mark { epoch, seq });
            match batches.last_mut().filter(|open| open.takes(epoch, slot)) {
                Some(open) => {
                    open.seqs.push(seq);
                    open.bytes += size;
                }
                None => {
                    let context = slot.context;
                    batches.push(Open { epoch, context, seqs: vec![seq], bytes: size });
                }
            }
        }
        let hello = after.is_none().then(|| self.cut(Vec::new(), Some(nonce), None));
        let rest: Vec<Cut> = batches
            .into_iter()
            .map(|Open { epoch, context, mut seqs, .. }| {
                seqs.sort_unstable();
                self.cut(seqs, None, Some((epoch, context)))
            })
            .collect();
        self.carry(nonce, &rest);
        Part { cuts: hello.into_iter().chain(rest).collect(), next }
    }

    fn cut(
        &mut self,
        seqs: Vec<Seq>,
        hello: Option<u64>,
        of: Option<(Epoch, ContextNumber)>,
    ) -> Cut {
        let (epoch, context) = of.unwrap_or((self.current, self.context));
        self.next_cut += 1;
        Cut { id: self.next_cut - 1, epoch, context, seqs, hello }
    }

    fn carry(&mut self, nonce: u64, cuts: &[Cut]) {
        if !self.carried.iter().any(|bundle| bundle.nonce == nonce) {
            let surplus = (self.carried.len() + 1).saturating_sub(CARRIED_MAX);
            self.carried.drain(..surplus);
            self.carried.push(Carried { nonce, answered: false, runs: Vec::new() });
        }
        for bundle in self.carried.iter_mut().filter(|bundle| bundle.nonce == nonce) {
            for cut in cuts {
                bundle.add(cut.epoch, &cut.seqs);
            }
        }
    }

    /// What waits behind a mark, in the order of delivery: the present life before others, newest first, but
    /// number 1 of a life before its others. A life neither end has the first entry of is left out: nothing
    /// of it would be taken.
    fn queue_after(&self, after: Option<Mark>) -> impl Iterator<Item = (Epoch, Seq, &Slot)> {
        let current = self.current;
        let rank = move |epoch: Epoch| (epoch != current, std::cmp::Reverse(epoch));
        let lives = self.lives.keys().rev().filter(move |epoch| **epoch != current);
        let lives = std::iter::once(&self.current).chain(lives).copied();
        let lives = lives.filter_map(|epoch| Some((epoch, self.lives.get(&epoch)?)));
        let slots = lives.filter(|(_, life)| !life.headless).flat_map(|(epoch, life)| {
            let first = life.slots.get_key_value(&1);
            let others = life.slots.iter().rev().filter(|(seq, _)| **seq != 1);
            first.into_iter().chain(others).map(move |(seq, slot)| (epoch, *seq, slot))
        });
        let behind = move |epoch: Epoch, seq: Seq| match after {
            None => true,
            Some(mark) if mark.epoch != epoch => rank(epoch) > rank(mark.epoch),
            Some(mark) => seq != 1 && (mark.seq == 1 || seq < mark.seq),
        };
        slots.filter(move |(epoch, seq, slot)| slot.state == State::Waiting && behind(*epoch, *seq))
    }

    /// A receipt from the answer to a bundle.
    pub(super) fn brought(&mut self, now: Millis, receipt: &Receipt, effects: &mut Vec<Effect>) {
        let mine = self.awaits(receipt.answers);
        let ranges = self.carried.iter().flat_map(|bundle| bundle.runs.iter().copied()).collect();
        let sent = Sent { seqs: BTreeSet::new(), ranges };
        if !self.believe(receipt, (mine, sent, now), effects) || !mine {
            return;
        }
        if !self.beginning {
            self.move_headless(effects);
        }
        // Last of all: a crash before it has the answer told once more.
        let at = self.carried.iter().position(|bundle| receipt.answers == Some(bundle.nonce));
        let later = self.carried.split_off(at.unwrap_or(0));
        self.carried = later;
        if let Some(answered) = self.carried.first_mut() {
            answered.answered = true;
        }
        effects.push(Effect::Carried(self.carried.clone()));
    }

    /// The line has spoken: whatever comes of bundles written before is older than that.
    pub(super) fn outdate(&mut self, effects: &mut Vec<Effect>) {
        if self.carried.iter().any(|bundle| !bundle.answered) {
            for bundle in &mut self.carried {
                bundle.answered = true;
            }
            effects.push(Effect::Carried(self.carried.clone()));
        }
    }
}
