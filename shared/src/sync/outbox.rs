//! What an agent sends, and what a receipt means to it.

use std::collections::{BTreeMap, BTreeSet};

use crate::codes::{ParkReason, Refusal};
use crate::ids::{AgentId, ContextNumber, Epoch, Millis, Seq};
use crate::limits::{BATCH_BYTES_MAX, BATCH_ENTRIES_MAX};
use crate::wire::{Body, LifeReceipt, RangeSum, Receipt, StoreId, entry_hash};

/// How an agent sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Most batches in flight, whatever the centre grants.
    pub window: u16,
    /// Most entries in a batch.
    pub batch_entries: usize,
    /// Most bytes of entries in a batch, before packing.
    pub batch_bytes: usize,
    /// How long to wait for a receipt before sending again, in ms: outlasts a slow satellite.
    pub receipt_timeout_ms: i64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            window: 4,
            batch_entries: 60,
            batch_bytes: BATCH_BYTES_MAX,
            receipt_timeout_ms: 20_000,
        }
    }
}

/// What the outbox needs to know of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its hash ([`entry_hash`]).
    pub hash: u64,
    /// The context it was made under.
    pub context: ContextNumber,
    /// Its size before packing, in bytes.
    pub bytes: u32,
    /// Whether a receipt has proved that the ledger holds it.
    pub confirmed: bool,
    /// Whether it is a void in the place of a refused entry.
    pub void: bool,
}

/// What happened.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The line is up; `nonce` was drawn for this connection.
    Connected {
        /// Drawn at random for this connection only.
        nonce: u64,
    },
    /// The line is down.
    Disconnected,
    /// A receipt whose signature is the centre's arrived.
    Receipt(&'a Receipt),
    /// The centre has just been told who we are: everything in flight is sent again.
    Introduced,
    /// Time has passed, or entries were added.
    Tick,
}

/// A batch to be packed, signed and published. The same `id` always names the same entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Names the cut.
    pub id: u64,
    /// The life of its entries.
    pub epoch: Epoch,
    /// Their context.
    pub context: ContextNumber,
    /// Their numbers, rising.
    pub seqs: Vec<Seq>,
    /// The nonce, if the batch is the hello of the connection.
    pub hello: Option<u64>,
}

/// What is to be done, in this order. Changes of the store are durable before the next event is handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Publish a batch.
    Send(Cut),
    /// The ledger holds these entries: keep them as history only. Ranges, both ends included.
    Confirm {
        /// Their life.
        epoch: Epoch,
        /// Their numbers.
        ranges: Vec<(Seq, Seq)>,
    },
    /// The ledger no longer holds these (it was restored): they wait again.
    Unconfirm {
        /// Their life.
        epoch: Epoch,
        /// Their numbers.
        ranges: Vec<(Seq, Seq)>,
    },
    /// The centre refused the entry: show it with its reason, and put [`Body::Void`] in its place.
    Refused {
        /// Its life.
        epoch: Epoch,
        /// Its number.
        seq: Seq,
        /// Why.
        refusal: Refusal,
    },
    /// The number is held with a twin's content: append this entry anew in the present life, and let go
    /// of it here, both at once.
    Renumber {
        /// Its life.
        epoch: Epoch,
        /// Its number.
        seq: Seq,
    },
    /// Two machines use this identity: begin a new life, then call [`Outbox::begin`].
    NewLife,
    /// The centre's store is this one from now on.
    Store(StoreId),
    /// These entries are held but not counted, as of now; replaces what was known of the life.
    Parked {
        /// Their life.
        epoch: Epoch,
        /// Which, and why.
        parked: Vec<(Seq, ParkReason)>,
        /// Whether this is all there is; else only the entries named are touched.
        complete: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Confirmed,
    /// Moved to another number: nothing is owed under this one.
    Gone,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u64,
    context: ContextNumber,
    bytes: u32,
    state: State,
    void: bool,
}

/// One life: numbers `base + 1` … `base + slots.len()`; lower ones are history already dropped.
#[derive(Clone, Debug, Default)]
struct Life {
    base: Seq,
    base_sum: u64,
    slots: BTreeMap<Seq, Slot>,
    issued: Seq,
}

/// What our own entries say of a shown range.
enum Proof {
    /// The sums agree.
    Holds,
    /// The sums differ, or the range goes beyond what was issued.
    Differs,
    /// Some of its entries are no longer here.
    Unknown,
}

impl Life {
    fn proof(&self, range: &RangeSum) -> Proof {
        if range.last > self.issued {
            return Proof::Differs;
        }
        let mut sum = 0u64;
        let mut from = range.first;
        if range.first <= self.base {
            if range.first != 1 || range.last < self.base {
                return Proof::Unknown;
            }
            (sum, from) = (self.base_sum, self.base + 1);
        }
        let mut expected = from;
        for (seq, slot) in self.slots.range(from..=range.last) {
            if *seq != expected || slot.state == State::Gone {
                return Proof::Unknown;
            }
            sum = sum.wrapping_add(slot.hash);
            expected += 1;
        }
        if expected != range.last + 1 {
            Proof::Unknown
        } else if sum == range.sum {
            Proof::Holds
        } else {
            Proof::Differs
        }
    }
}

#[derive(Clone, Debug)]
struct InFlight {
    cut: Cut,
    sent_at: Millis,
}

/// The sending end. Rebuild it from the durable queue after a restart: it holds nothing else.
#[derive(Clone, Debug)]
pub struct Outbox {
    agent: AgentId,
    config: Config,
    lives: BTreeMap<Epoch, Life>,
    current: Epoch,
    store: Option<StoreId>,
    nonce: Option<u64>,
    answered: bool,
    credit: u16,
    in_flight: Vec<InFlight>,
    next_cut: u64,
    /// A new life was asked for and has not begun yet.
    beginning: bool,
}

impl Outbox {
    /// An outbox for `agent` whose present life is `current`, knowing the centre's store from before.
    pub fn new(agent: AgentId, current: Epoch, store: Option<StoreId>, config: Config) -> Outbox {
        Outbox {
            agent,
            config,
            lives: BTreeMap::from([(current, Life::default())]),
            current,
            store,
            nonce: None,
            answered: false,
            credit: config.window,
            in_flight: Vec::new(),
            next_cut: 1,
            beginning: false,
        }
    }

    /// Tells of a life: the numbers up to `base` are history already dropped, with this sum of hashes;
    /// numbers up to `issued` have been given out.
    pub fn load_life(&mut self, epoch: Epoch, base: Seq, base_sum: u64, issued: Seq) {
        let life = self.lives.entry(epoch).or_default();
        (life.base, life.base_sum) = (base, base_sum);
        life.issued = life.issued.max(issued);
    }

    /// Adds an entry that is durably in the queue. New entries belong to the present life.
    pub fn add(&mut self, epoch: Epoch, seq: Seq, item: Item) {
        let life = self.lives.entry(epoch).or_default();
        life.issued = life.issued.max(seq);
        let state = if item.confirmed { State::Confirmed } else { State::Waiting };
        let Item { hash, context, bytes, void, .. } = item;
        life.slots.insert(seq, Slot { hash, context, bytes, state, void });
    }

    /// The new life asked for by [`Effect::NewLife`] has begun: it is durable, and its first entry is
    /// [`Body::Begins`].
    pub fn begin(&mut self, epoch: Epoch, first: Item) {
        self.current = epoch;
        self.beginning = false;
        self.add(epoch, 1, first);
    }

    /// The present life.
    pub fn current(&self) -> Epoch {
        self.current
    }

    /// Every life with the highest number issued in it: what [`Body::Begins`] states.
    pub fn issued(&self) -> Vec<(Epoch, Seq)> {
        self.lives.iter().map(|(epoch, life)| (*epoch, life.issued)).collect()
    }

    /// How many entries wait for a receipt.
    pub fn waiting(&self) -> usize {
        self.lives
            .values()
            .flat_map(|life| life.slots.values())
            .filter(|slot| slot.state == State::Waiting)
            .count()
    }

    /// Whether this connection's hello was answered and nothing waits.
    pub fn is_settled(&self) -> bool {
        self.answered && !self.beginning && self.waiting() == 0
    }

    /// Whether this connection's hello was answered.
    pub fn is_answered(&self) -> bool {
        self.answered
    }

    /// When the next [`Event::Tick`] is due, if anything is in flight.
    pub fn wake_at(&self) -> Option<Millis> {
        let sent = self.in_flight.iter().map(|flight| flight.sent_at).min()?;
        Some(sent.plus(self.config.receipt_timeout_ms))
    }

    /// Handles an event at `now` (a clock that never runs backwards).
    pub fn handle(&mut self, now: Millis, event: Event<'_>) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Connected { nonce } => {
                self.in_flight.clear();
                (self.nonce, self.answered) = (Some(nonce), false);
                self.credit = self.config.window;
                self.send(now, Some(nonce), &mut effects);
            }
            Event::Disconnected => {
                self.in_flight.clear();
                (self.nonce, self.answered) = (None, false);
            }
            Event::Receipt(receipt) => self.receive(receipt, &mut effects),
            Event::Introduced => {
                for flight in &mut self.in_flight {
                    flight.sent_at = now;
                    effects.push(Effect::Send(flight.cut.clone()));
                }
            }
            Event::Tick => {
                for flight in &mut self.in_flight {
                    if flight.sent_at.plus(self.config.receipt_timeout_ms) <= now {
                        flight.sent_at = now;
                        effects.push(Effect::Send(flight.cut.clone()));
                    }
                }
            }
        }
        // Until the hello is answered the store may be another one: only the hello is on its way.
        if self.answered && !self.beginning {
            while self.in_flight.len() < usize::from(self.credit.clamp(1, self.config.window)) {
                if !self.send(now, None, &mut effects) {
                    break;
                }
            }
        }
        effects
    }

    /// Cuts and sends one batch; a hello even if it is empty. False if there was nothing to send.
    fn send(&mut self, now: Millis, hello: Option<u64>, effects: &mut Vec<Effect>) -> bool {
        let Some((epoch, context, seqs)) = self.choose(hello.is_some()) else { return false };
        let cut = Cut { id: self.next_cut, epoch, context, seqs, hello };
        self.next_cut += 1;
        self.in_flight.push(InFlight { cut: cut.clone(), sent_at: now });
        effects.push(Effect::Send(cut));
        true
    }

    /// The next entries to send: of the present life first and newest first, so that today's figure does
    /// not stand behind a backlog; all of one life and context.
    fn choose(&self, hello: bool) -> Option<(Epoch, ContextNumber, Vec<Seq>)> {
        let flying: BTreeSet<(Epoch, Seq)> = self
            .in_flight
            .iter()
            .flat_map(|flight| flight.cut.seqs.iter().map(|seq| (flight.cut.epoch, *seq)))
            .collect();
        let old = self.lives.keys().rev().filter(|epoch| **epoch != self.current && !hello);
        for epoch in std::iter::once(&self.current).chain(old) {
            let Some(life) = self.lives.get(epoch) else { continue };
            let free = |seq: Seq, slot: &Slot| {
                slot.state == State::Waiting && !flying.contains(&(*epoch, seq))
            };
            // The centre takes nothing of a later life before its first entry.
            let first = life.slots.get(&1).filter(|slot| free(1, slot));
            let mut context = first.map(|slot| slot.context);
            let mut seqs: Vec<Seq> = first.iter().map(|_| 1).collect();
            let mut bytes = first.map_or(0, |slot| slot.bytes);
            let bytes_max = u32::try_from(self.config.batch_bytes).unwrap_or(u32::MAX);
            for (seq, slot) in life.slots.iter().rev() {
                if *seq == 1 || !free(*seq, slot) || context.is_some_and(|c| c != slot.context) {
                    continue;
                }
                let full = seqs.len() >= self.config.batch_entries.min(BATCH_ENTRIES_MAX)
                    || bytes.saturating_add(slot.bytes) > bytes_max;
                if full && !seqs.is_empty() {
                    break;
                }
                context = Some(slot.context);
                bytes = bytes.saturating_add(slot.bytes);
                seqs.push(*seq);
            }
            if let Some(context) = context {
                seqs.sort_unstable();
                return Some((*epoch, context, seqs));
            }
        }
        // An empty hello speaks under the newest context known.
        hello.then(|| {
            let context = self
                .lives
                .values()
                .flat_map(|life| life.slots.values().next_back())
                .map(|slot| slot.context)
                .max();
            (self.current, context.unwrap_or(0), Vec::new())
        })
    }

    fn receive(&mut self, receipt: &Receipt, effects: &mut Vec<Effect>) {
        let answer = receipt.complete
            && !self.answered
            && self.nonce.is_some()
            && receipt.answers == self.nonce;
        if answer {
            self.answered = true;
            self.in_flight.retain(|flight| flight.cut.hello.is_none());
            if self.store != Some(receipt.store) {
                self.store = Some(receipt.store);
                effects.push(Effect::Store(receipt.store));
            }
        } else if self.store != Some(receipt.store) {
            // Another store's word, or a stranger's: it can prove nothing here.
            return;
        }
        self.credit = receipt.credit;
        let epochs: Vec<Epoch> = self.lives.keys().copied().collect();
        for epoch in epochs {
            let shown = receipt.lives.iter().find(|life| life.epoch == Some(epoch));
            match shown {
                Some(shown) => self.apply(epoch, shown, answer, effects),
                None if answer => {
                    self.apply(epoch, &LifeReceipt::default(), true, effects);
                }
                None => {}
            }
        }
        let lives = &self.lives;
        self.in_flight.retain(|flight| {
            flight.cut.hello.is_some()
                || flight.cut.seqs.iter().any(|seq| {
                    let slot = lives.get(&flight.cut.epoch).and_then(|life| life.slots.get(seq));
                    slot.is_some_and(|slot| slot.state == State::Waiting)
                })
        });
    }

    fn apply(
        &mut self,
        epoch: Epoch,
        shown: &LifeReceipt,
        answer: bool,
        effects: &mut Vec<Effect>,
    ) {
        let current = epoch == self.current;
        let Some(life) = self.lives.get_mut(&epoch) else { return };
        let mut confirmed = Vec::new();
        let mut twice = false;
        for range in &shown.ranges {
            match life.proof(range) {
                Proof::Holds => {
                    for (seq, slot) in life.slots.range_mut(range.first..=range.last) {
                        if slot.state == State::Waiting {
                            slot.state = State::Confirmed;
                            confirmed.push(*seq);
                        }
                    }
                }
                Proof::Differs => twice = true,
                Proof::Unknown => {}
            }
        }
        if !confirmed.is_empty() {
            effects.push(Effect::Confirm { epoch, ranges: ranges_of(&confirmed) });
        }
        if answer {
            let covered = |seq: Seq| shown.ranges.iter().any(|r| r.first <= seq && seq <= r.last);
            let mut lost = Vec::new();
            for (seq, slot) in &mut life.slots {
                if slot.state == State::Confirmed && !covered(*seq) {
                    slot.state = State::Waiting;
                    lost.push(*seq);
                }
            }
            if !lost.is_empty() {
                effects.push(Effect::Unconfirm { epoch, ranges: ranges_of(&lost) });
            }
        }
        for (seq, refusal) in &shown.refused {
            let Some(slot) = life.slots.get_mut(seq) else { continue };
            if slot.state != State::Waiting {
                continue;
            }
            if *refusal == Refusal::SeqReused {
                if current {
                    twice = true;
                } else {
                    slot.state = State::Gone;
                    effects.push(Effect::Renumber { epoch, seq: *seq });
                }
            } else if !slot.void {
                slot.void = true;
                slot.hash = entry_hash(self.agent, epoch, *seq, slot.context, &Body::Void);
                effects.push(Effect::Refused { epoch, seq: *seq, refusal: *refusal });
                // Its cut has other bytes now.
                self.in_flight
                    .retain(|flight| flight.cut.epoch != epoch || !flight.cut.seqs.contains(seq));
            }
        }
        if answer || !shown.parked.is_empty() {
            let parked = shown.parked.clone();
            effects.push(Effect::Parked { epoch, parked, complete: answer });
        }
        if twice && current && !self.beginning {
            self.beginning = true;
            self.in_flight.clear();
            effects.push(Effect::NewLife);
        }
    }
}

fn ranges_of(seqs: &[Seq]) -> Vec<(Seq, Seq)> {
    let mut ranges: Vec<(Seq, Seq)> = Vec::new();
    let mut sorted = seqs.to_vec();
    sorted.sort_unstable();
    for seq in sorted {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == seq => *last = seq,
            _ => ranges.push((seq, seq)),
        }
    }
    ranges
}
