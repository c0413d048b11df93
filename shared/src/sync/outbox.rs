//! What an agent sends, and what a receipt means to it.

mod by_hand;

use std::collections::{BTreeMap, BTreeSet};

pub use by_hand::{CARRIED_MAX, Carried, Mark, Part};

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
    /// A receipt whose signature is the centre's came in the answer to a bundle, whether or not the line is up.
    Brought(&'a Receipt),
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
    /// The number is held with a twin's content, or its life can no longer be taken up: append this entry
    /// anew in the present life, and let go of it here, both at once. A report of which the queue holds
    /// newer versions is followed, in the same commit, by a copy of the newest: a later number replaces
    /// an earlier one, and an old figure must not come back. [`Body::Void`] and [`Body::Begins`] are only
    /// let go of.
    Renumber {
        /// Its life.
        epoch: Epoch,
        /// Its number.
        seq: Seq,
    },
    /// Begin a new life, then call [`Outbox::begin`]. Its first entry states what the first entry of the
    /// present life stated, and the present life up to `known`.
    NewLife {
        /// How much of the present life is this machine's own for certain: of what a twin wrote it knew
        /// nothing and replaces nothing.
        known: Seq,
        /// Two machines use this identity: to be told to people. Else the first entry of the present
        /// life is lost to both ends, and its entries move on.
        twin: bool,
    },
    /// The centre's store is this one from now on. Comes last: a crash before it repeats the rest.
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
    /// What is known of bundles written; replaces what was.
    Carried(Vec<Carried>),
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
    /// Neither end has its first entry: the centre will take nothing of it.
    headless: bool,
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
        let sum = match self.sum(range.first, range.last) {
            Some(sum) => Some(sum),
            // What was dropped as history counts as one piece.
            None if range.first == 1 && range.last == self.base => Some(self.base_sum),
            None if range.first == 1 && range.last > self.base => {
                self.sum(self.base + 1, range.last).map(|sum| sum.wrapping_add(self.base_sum))
            }
            None => None,
        };
        match sum {
            Some(sum) if sum == range.sum => Proof::Holds,
            Some(_) => Proof::Differs,
            None => Proof::Unknown,
        }
    }

    /// The number up to which every entry is proven to be this machine's own.
    fn proven(&self) -> Seq {
        let mut proven = self.base;
        for (seq, slot) in self.slots.range(self.base + 1..) {
            if *seq != proven + 1 || slot.state != State::Confirmed {
                break;
            }
            proven = *seq;
        }
        proven
    }

    /// The sum of the hashes of these entries, if all of them are here.
    fn sum(&self, first: Seq, last: Seq) -> Option<u64> {
        let mut sum = 0u64;
        let mut next = first;
        for (seq, slot) in self.slots.range(first..=last) {
            if *seq != next || slot.state == State::Gone {
                return None;
            }
            sum = sum.wrapping_add(slot.hash);
            next += 1;
        }
        (next == last + 1).then_some(sum)
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
    /// The context an empty hello speaks under; 0 as long as there is none.
    context: ContextNumber,
    /// Bundles written, oldest first.
    carried: Vec<Carried>,
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
            context: 0,
            carried: Vec::new(),
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

    /// The context an empty hello speaks under: that of the newest grant. The centre sends a newer one to
    /// whoever speaks under an older one.
    pub fn speak_under(&mut self, context: ContextNumber) {
        self.context = context;
    }

    /// The present life.
    pub fn current(&self) -> Epoch {
        self.current
    }

    /// Every life with the highest number issued in it: what [`Body::Begins`] states when a queue had to
    /// be made anew.
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
            Event::Receipt(receipt) => self.receive(now, receipt, &mut effects),
            Event::Brought(receipt) => self.brought(now, receipt, &mut effects),
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
        if self.answered && !self.beginning {
            self.move_headless(&mut effects);
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
        hello.then(|| (self.current, self.context, Vec::new()))
    }

    fn receive(&mut self, now: Millis, receipt: &Receipt, effects: &mut Vec<Effect>) {
        let mine = !self.answered && self.nonce.is_some() && receipt.answers == self.nonce;
        // A refusal says nothing of the content it judged, so it is believed only of what is on its way:
        // the number may have been used by a twin, or before this disk was restored.
        let sent: BTreeSet<(Epoch, Seq)> = self
            .in_flight
            .iter()
            .flat_map(|flight| flight.cut.seqs.iter().map(|seq| (flight.cut.epoch, *seq)))
            .collect();
        if mine {
            self.answered = true;
            self.in_flight.retain(|flight| flight.cut.hello.is_none());
            self.outdate(effects);
        }
        if self.believe(receipt, (mine, Sent { seqs: sent, ranges: Vec::new() }, now), effects) {
            self.credit = receipt.credit;
            if self.answered {
                // Whatever comes over a line that was answered is newer than the bundles written by now.
                self.outdate(effects);
            }
        }
    }

    /// Takes what a receipt proves; false if it can prove nothing here. With it comes whether it answers the
    /// present hello, what was on its way when it came, and the time.
    fn believe(
        &mut self,
        receipt: &Receipt,
        (mine, sent, now): (bool, Sent, Millis),
        effects: &mut Vec<Effect>,
    ) -> bool {
        let moved = self.store != Some(receipt.store);
        if moved && !mine {
            // Another store's word, or a stranger's: it can prove nothing here.
            return false;
        }
        let word = Word { mine, answer: mine && receipt.complete, moved, now, sent };
        let epochs: Vec<Epoch> = self.lives.keys().copied().collect();
        for epoch in epochs {
            let shown = receipt.lives.iter().find(|life| life.epoch == Some(epoch));
            match shown {
                Some(shown) => self.apply(epoch, shown, &word, effects),
                None if word.answer => {
                    self.apply(epoch, &LifeReceipt::default(), &word, effects);
                }
                None => {}
            }
        }
        if moved {
            self.store = Some(receipt.store);
            effects.push(Effect::Store(receipt.store));
        }
        let lives = &self.lives;
        self.in_flight.retain(|flight| {
            flight.cut.hello.is_some()
                || flight.cut.seqs.iter().any(|seq| {
                    let slot = lives.get(&flight.cut.epoch).and_then(|life| life.slots.get(seq));
                    slot.is_some_and(|slot| slot.state == State::Waiting)
                })
        });
        true
    }

    fn apply(&mut self, epoch: Epoch, shown: &LifeReceipt, word: &Word, effects: &mut Vec<Effect>) {
        let current = epoch == self.current;
        let Some(life) = self.lives.get_mut(&epoch) else { return };
        let mut confirmed = Vec::new();
        let mut twice = false;
        // What may stay confirmed. A store seen for the first time is believed only by its sums; one that
        // proved an entry before still has it, even where the sum of a whole run cannot be checked. Where
        // the present life is found to be a twin's too, all of it is asked for once more.
        let known = life.proven();
        let mut covered: Vec<(Seq, Seq)> = Vec::new();
        for range in &shown.ranges {
            let proof = life.proof(range);
            let stays = match proof {
                Proof::Holds => true,
                Proof::Differs => !word.moved && !current,
                Proof::Unknown => !word.moved,
            };
            if stays {
                covered.push((range.first, range.last));
            }
            match proof {
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
        if word.answer {
            let mut lost = Vec::new();
            for (seq, slot) in &mut life.slots {
                let stays = covered.iter().any(|(first, last)| first <= seq && seq <= last);
                if slot.state == State::Confirmed && !stays {
                    slot.state = State::Waiting;
                    lost.push(*seq);
                }
            }
            if !lost.is_empty() {
                effects.push(Effect::Unconfirm { epoch, ranges: ranges_of(&lost) });
            }
            let first_here = life.slots.get(&1).is_some_and(|slot| slot.state != State::Gone);
            let first_there = shown.ranges.first().is_some_and(|range| range.first == 1);
            life.headless = epoch.counter > 1 && !first_here && !first_there;
        }
        for (seq, refusal) in &shown.refused {
            let Some(slot) = life.slots.get_mut(seq) else { continue };
            if slot.state != State::Waiting || !word.sent.has(epoch, *seq) {
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
                recut(&mut self.in_flight, &mut self.next_cut, (epoch, *seq), word.now, effects);
            }
        }
        // An old word cannot tell what has been released since: of what it proves nothing new it says nothing.
        let fresh = |seq: &Seq| word.mine || confirmed.contains(seq);
        let parked: Vec<_> = shown.parked.iter().filter(|(seq, _)| fresh(seq)).copied().collect();
        if word.answer || !parked.is_empty() {
            effects.push(Effect::Parked { epoch, parked, complete: word.answer });
        }
        if twice && current {
            // What a store seen for the first time does not prove, a twin may have written by now.
            let known = if word.moved { life.proven() } else { known.max(life.proven()) };
            self.new_life(known, true, effects);
        }
    }

    fn new_life(&mut self, known: Seq, twin: bool, effects: &mut Vec<Effect>) {
        if !self.beginning {
            self.beginning = true;
            // Without its hello the connection would never be answered.
            self.in_flight.retain(|flight| flight.cut.hello.is_some());
            effects.push(Effect::NewLife { known, twin });
        }
    }

    /// A later life is taken up with its first entry only. Where neither end has it any more, nothing of
    /// the life is held, nothing ever would be, and what waits moves to the present life.
    fn move_headless(&mut self, effects: &mut Vec<Effect>) {
        for (epoch, life) in self.lives.iter_mut().filter(|(_, life)| life.headless) {
            for (seq, slot) in &mut life.slots {
                if slot.state != State::Waiting {
                    continue;
                }
                if *epoch == self.current {
                    let known = life.issued;
                    return self.new_life(known, false, effects);
                }
                slot.state = State::Gone;
                effects.push(Effect::Renumber { epoch: *epoch, seq: *seq });
            }
        }
    }
}

/// How much a receipt may say.
struct Word {
    /// It answers the present hello.
    mine: bool,
    /// It answers the present hello and is all there is: it may show less than before.
    answer: bool,
    /// It is the first word of a store not known before.
    moved: bool,
    now: Millis,
    sent: Sent,
}

/// What was on its way when a receipt came.
struct Sent {
    seqs: BTreeSet<(Epoch, Seq)>,
    /// Runs of numbers.
    ranges: Vec<(Epoch, Seq, Seq)>,
}

impl Sent {
    fn has(&self, epoch: Epoch, seq: Seq) -> bool {
        let in_run = |(life, first, last): &(Epoch, Seq, Seq)| {
            *life == epoch && (*first..=*last).contains(&seq)
        };
        self.seqs.contains(&(epoch, seq)) || self.ranges.iter().any(in_run)
    }
}

/// An entry's bytes have changed, so no cut may hold it any more. Other cuts are cut anew when there is
/// room; the hello goes out again at once without it.
fn recut(
    in_flight: &mut Vec<InFlight>,
    next_cut: &mut u64,
    (epoch, seq): (Epoch, Seq),
    now: Millis,
    effects: &mut Vec<Effect>,
) {
    let holds = |flight: &InFlight| flight.cut.epoch == epoch && flight.cut.seqs.contains(&seq);
    in_flight.retain(|flight| flight.cut.hello.is_some() || !holds(flight));
    for flight in in_flight.iter_mut().filter(|flight| holds(flight)) {
        flight.cut.id = *next_cut;
        flight.cut.seqs.retain(|held| *held != seq);
        flight.sent_at = now;
        *next_cut += 1;
        effects.push(Effect::Send(flight.cut.clone()));
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
