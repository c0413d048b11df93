//! A clinic's PC: a modelled disk, the real outbox over it, and the driver that carries out its effects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use banyan_shared::codes::{ParkReason, Refusal};
use banyan_shared::ids::{AgentId, Epoch, Millis, Seq, VersionId};
use banyan_shared::keys::SigningKey;
use banyan_shared::period::{Period, PeriodType};
use banyan_shared::report::{Content, EnteredAt, How, Value};
use banyan_shared::sync::{Carried, Config, Cut, Effect, Item, Mark, Outbox};
use banyan_shared::wire::{Batch, Beacon, Body, Entry, Hello, Receipt, StoreId, entry_hash};

use super::model::{Model, Register};
use super::{Broken, Rng};

/// An entry on the disk.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) body: Body,
    pub(super) context: u32,
    pub(super) hash: u64,
    pub(super) confirmed: bool,
    /// What was typed; stays when the entry is refused and voided.
    pub(super) content: Option<usize>,
    /// Appended by the queue, behind an older version that moved.
    pub(super) copy: bool,
    pub(super) refusal: Option<Refusal>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Life {
    pub(super) base: Seq,
    pub(super) base_sum: u64,
    pub(super) issued: Seq,
}

/// All that survives a crash.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) entries: BTreeMap<(Epoch, Seq), Kept>,
    pub(super) lives: BTreeMap<Epoch, Life>,
    pub(super) current: Epoch,
    /// What the first entry of the present life stated of earlier ones.
    pub(super) stated: BTreeMap<Epoch, Seq>,
    pub(super) store: Option<StoreId>,
    pub(super) parked: BTreeMap<(Epoch, Seq), ParkReason>,
    pub(super) carried: Vec<Carried>,
}

impl Disk {
    pub(super) fn contents(&self) -> BTreeSet<usize> {
        self.entries.values().filter_map(|kept| kept.content).collect()
    }

    /// The newest version of a register in the queue, and where.
    fn newest(&self, register: Register) -> Option<((Epoch, Seq), &Kept)> {
        self.entries
            .iter()
            .rev()
            .find(|(_, kept)| register_of(&kept.body) == Some(register))
            .map(|(at, kept)| (*at, kept))
    }
}

pub(super) fn register_of(body: &Body) -> Option<Register> {
    match body {
        Body::Report { facility, form, period, .. } => {
            Some(Register { facility: *facility, form: *form, period: period.index() })
        }
        _ => None,
    }
}

/// What was typed, by the number in the first value.
pub(super) fn content_of(body: &Body) -> Option<usize> {
    match body {
        Body::Report { content, .. } => {
            content.values[0].number().map(|n| usize::try_from(n).unwrap())
        }
        _ => None,
    }
}

/// What all machines of a run share.
pub(super) struct Shared {
    pub(super) model: Model,
    /// Every entry any machine ever gave a number, by its hash.
    pub(super) issued: BTreeSet<(VersionId, u64)>,
    pub(super) broken: Broken,
    pub(super) rng: Rng,
}

/// The messages of a part of a bundle, and where the next one begins.
type WrittenPart = (Vec<Arc<[u8]>>, Option<Mark>);

pub(super) struct Machine {
    /// Which of the run's agents it is.
    pub(super) agent: usize,
    pub(super) id: AgentId,
    pub(super) disk: Disk,
    pub(super) branch: usize,
    pub(super) outbox: Option<Outbox>,
    cuts: BTreeMap<u64, Arc<[u8]>>,
    pub(super) nonce: Option<u64>,
    /// The centre's generation when the line came up.
    pub(super) since: u64,
    pub(super) clock: i64,
    pub(super) config: Config,
    pub(super) contexts: u32,
}

impl Machine {
    pub(super) fn new(agent: usize, id: AgentId, branch: usize, shared: &mut Shared) -> Machine {
        let rng = &mut shared.rng;
        let current = Epoch { counter: 1, random: rng.random32() };
        let config = Config {
            window: u16::try_from(1 + rng.below(3)).unwrap(),
            batch_entries: 1 + rng.below(5),
            ..Config::default()
        };
        let disk = Disk {
            entries: BTreeMap::new(),
            lives: BTreeMap::from([(current, Life::default())]),
            current,
            stated: BTreeMap::new(),
            store: None,
            parked: BTreeMap::new(),
            carried: Vec::new(),
        };
        Machine {
            agent,
            id,
            disk,
            branch,
            outbox: None,
            cuts: BTreeMap::new(),
            nonce: None,
            since: 0,
            clock: 0,
            config,
            contexts: 1,
        }
    }

    /// Another PC with this one's disk.
    pub(super) fn cloned(&self, disk: Disk, branch: usize) -> Machine {
        Machine { disk, branch, outbox: None, cuts: BTreeMap::new(), nonce: None, ..*self }
    }

    pub(super) fn crash(&mut self, shared: &mut Shared) {
        self.outbox = None;
        self.cuts.clear();
        self.nonce = None;
        if shared.broken == Broken::ReuseNumbers {
            let current = self.disk.current;
            let confirmed =
                self.disk.entries.iter().filter(|((e, _), kept)| *e == current && kept.confirmed);
            let highest = confirmed.map(|((_, seq), _)| *seq).max().unwrap_or(0);
            self.disk.lives.get_mut(&current).unwrap().issued = highest;
        }
    }

    pub(super) fn start(&mut self) {
        let mut outbox = Outbox::new(self.id, self.disk.current, self.disk.store, self.config);
        for (epoch, life) in &self.disk.lives {
            outbox.load_life(*epoch, life.base, life.base_sum, life.issued);
        }
        for ((epoch, seq), kept) in &self.disk.entries {
            outbox.add(*epoch, *seq, item(kept));
        }
        outbox.load_carried(self.disk.carried.clone());
        self.outbox = Some(outbox);
    }

    /// Writes a part of a bundle: its messages, and where the next begins.
    pub(super) fn export(
        &mut self,
        nonce: u64,
        after: Option<Mark>,
        bytes_max: usize,
        key: &SigningKey,
    ) -> Option<WrittenPart> {
        let outbox = self.outbox.as_mut()?;
        let part = outbox.export(nonce, after, bytes_max);
        self.disk.carried = outbox.carried().to_vec();
        let messages = part.cuts.iter().map(|cut| self.bytes_of(cut, key)).collect();
        Some((messages, part.next))
    }

    fn put(&mut self, body: Body, content: Option<usize>, copy: bool, shared: &mut Shared) -> Seq {
        let epoch = self.disk.current;
        let life = self.disk.lives.get_mut(&epoch).unwrap();
        life.issued += 1;
        let seq = life.issued;
        let context = self.contexts;
        let hash = entry_hash(self.id, epoch, seq, context, &body);
        shared.issued.insert((VersionId { writer: self.id, epoch, seq }, hash));
        let kept = Kept { body, context, hash, confirmed: false, content, copy, refusal: None };
        self.disk.entries.insert((epoch, seq), kept);
        seq
    }

    fn append(&mut self, body: Body, content: Option<usize>, copy: bool, shared: &mut Shared) {
        let seq = self.put(body, content, copy, shared);
        let epoch = self.disk.current;
        if let Some(outbox) = &mut self.outbox {
            outbox.add(epoch, seq, item(&self.disk.entries[&(epoch, seq)]));
        }
    }

    /// A person saves a report, having been shown `named`.
    pub(super) fn type_report(
        &mut self,
        register: Register,
        named: &[(VersionId, usize)],
        shared: &mut Shared,
    ) -> usize {
        let own = usize::try_from(register.facility).unwrap() == self.agent;
        let how = if own { How::Direct } else { How::Proxy };
        let shown = named.iter().map(|(_, content)| *content).collect();
        let no = shared.model.write(self.branch, register, how, shown);
        let content = Content {
            values: vec![Value::Number(u64::try_from(no).unwrap()), Value::Missing],
            how,
            entered_by: None,
            reason: None,
            override_code: None,
            withdrawn: shared.rng.chance(10),
            // Clocks of clinics say anything.
            entered_at: EnteredAt { minute: shared.rng.random32() >> 8, doubtful: false },
            replaces: named.iter().map(|(id, _)| *id).collect(),
        };
        let period = Period::from_index(PeriodType::Day, register.period).unwrap();
        let Register { facility, form, .. } = register;
        self.append(Body::Report { facility, form, period, content }, Some(no), false, shared);
        no
    }

    /// Carries out an effect; what is to be published, if anything.
    pub(super) fn exec(
        &mut self,
        effect: Effect,
        key: &SigningKey,
        shared: &mut Shared,
    ) -> Option<Arc<[u8]>> {
        match effect {
            Effect::Send(cut) => {
                if shared.broken == Broken::ForgetOnPublish {
                    for seq in &cut.seqs {
                        self.disk.entries.get_mut(&(cut.epoch, *seq)).unwrap().confirmed = true;
                    }
                }
                return Some(self.bytes_of(&cut, key));
            }
            Effect::Confirm { epoch, ranges } => self.mark(epoch, &ranges, true),
            Effect::Unconfirm { epoch, ranges } => self.mark(epoch, &ranges, false),
            Effect::Refused { epoch, seq, refusal } => {
                let kept = self.disk.entries.get_mut(&(epoch, seq)).unwrap();
                kept.body = Body::Void;
                kept.hash = entry_hash(self.id, epoch, seq, kept.context, &Body::Void);
                kept.refusal = Some(refusal);
                shared.issued.insert((VersionId { writer: self.id, epoch, seq }, kept.hash));
            }
            Effect::Renumber { epoch, seq } => self.renumber((epoch, seq), shared),
            Effect::NewLife { known, .. } => {
                let current = self.disk.current;
                self.disk.stated.insert(current, known);
                self.new_life(Vec::new(), shared);
                let epoch = self.disk.current;
                let first = item(&self.disk.entries[&(epoch, 1)]);
                self.outbox.as_mut().unwrap().begin(epoch, first);
            }
            Effect::Store(store) => self.disk.store = Some(store),
            Effect::Carried(carried) => self.disk.carried = carried,
            Effect::Parked { epoch, parked, complete } => {
                if complete {
                    self.disk.parked.retain(|(e, _), _| *e != epoch);
                }
                for (seq, reason) in parked {
                    self.disk.parked.insert((epoch, seq), reason);
                }
            }
        }
        None
    }

    fn mark(&mut self, epoch: Epoch, ranges: &[(Seq, Seq)], confirmed: bool) {
        for (first, last) in ranges {
            for (_, kept) in self.disk.entries.range_mut((epoch, *first)..=(epoch, *last)) {
                kept.confirmed = confirmed;
            }
        }
    }

    /// The same cut is the same bytes.
    fn bytes_of(&mut self, cut: &Cut, key: &SigningKey) -> Arc<[u8]> {
        if let Some(bytes) = self.cuts.get(&cut.id) {
            return bytes.clone();
        }
        let entry = |seq: &Seq| Entry {
            seq: *seq,
            body: self.disk.entries[&(cut.epoch, *seq)].body.clone(),
        };
        let batch = Batch {
            agent: self.id,
            epoch: cut.epoch,
            context: cut.context,
            hello: cut.hello.map(|nonce| Hello {
                nonce,
                beacon: Beacon::default(),
                operating: None,
            }),
            entries: cut.seqs.iter().map(entry).collect(),
        };
        let bytes: Arc<[u8]> = batch.seal(key).into();
        self.cuts.insert(cut.id, bytes.clone());
        bytes
    }

    fn renumber(&mut self, at: (Epoch, Seq), shared: &mut Shared) {
        let kept = self.disk.entries[&at].clone();
        if shared.broken != Broken::RenumberKeepsOld {
            self.disk.entries.remove(&at);
        }
        let (Some(no), Some(register)) = (kept.content, register_of(&kept.body)) else {
            // A void of a refused entry: the person was told, and nothing else is owed.
            if let Some(no) = kept.content {
                shared.model.typed[no].lost = true;
            }
            return;
        };
        shared.model.typed[no].moves += 1;
        let newest = self.disk.newest(register).filter(|(place, _)| *place > at);
        let newest = newest.map(|(_, newest)| (newest.body.clone(), newest.content));
        self.append(kept.body, Some(no), kept.copy, shared);
        if let Some((body, content)) = newest
            && shared.broken != Broken::RenumberRegresses
        {
            shared.model.typed[content.unwrap()].copies += 1;
            self.append(body, content, true, shared);
        }
    }

    fn new_life(&mut self, lost: Vec<(Epoch, Seq, Seq)>, shared: &mut Shared) {
        let counter = self.disk.lives.keys().map(|epoch| epoch.counter).max().unwrap() + 1;
        let epoch = Epoch { counter, random: shared.rng.random32() };
        self.disk.current = epoch;
        self.disk.lives.insert(epoch, Life::default());
        let earlier = self.disk.stated.iter().map(|(epoch, seq)| (*epoch, *seq)).collect();
        self.put(Body::Begins { earlier, lost }, None, false, shared);
    }

    /// The queue was found damaged: some entries cannot be read, the others keep their numbers, and a new
    /// life begins. Called while the program is down.
    pub(super) fn quarantine(&mut self, shared: &mut Shared) {
        let places: Vec<(Epoch, Seq)> = self.disk.entries.keys().copied().collect();
        let mut lost = Vec::new();
        for place in places {
            if shared.rng.chance(25) {
                self.disk.entries.remove(&place);
                lost.push((place.0, place.1, place.1));
            }
        }
        let current = self.disk.current;
        self.disk.stated.insert(current, self.disk.lives[&current].issued);
        self.new_life(lost, shared);
    }

    /// Old history is dropped, oldest life first.
    pub(super) fn prune(&mut self, keep_first: bool, upto: Seq) {
        let Disk { entries, lives, .. } = &mut self.disk;
        for (epoch, life) in lives.iter_mut() {
            while life.base < upto {
                let at = (*epoch, life.base + 1);
                let Some(kept) = entries.get(&at).filter(|kept| kept.confirmed) else { break };
                life.base_sum = life.base_sum.wrapping_add(kept.hash);
                life.base += 1;
                if at.1 > 1 || epoch.counter == 1 || !keep_first {
                    entries.remove(&at);
                }
            }
            if entries.range((*epoch, 2)..=(*epoch, Seq::MAX)).next().is_some() {
                break;
            }
        }
    }

    /// What a receipt becomes in the hands of a broken driver.
    pub(super) fn misread(&self, receipt: &mut Receipt, broken: Broken) {
        if broken == Broken::NoNonce && receipt.answers.is_some() {
            receipt.answers = self.nonce;
        }
        if broken == Broken::NoSums {
            for life in &mut receipt.lives {
                let Some(epoch) = life.epoch else { continue };
                let issued = self.disk.lives.get(&epoch).map_or(0, |life| life.issued);
                life.ranges.retain(|range| range.first <= issued);
                for range in &mut life.ranges {
                    range.last = range.last.min(issued);
                    let own = self.disk.entries.range((epoch, range.first)..=(epoch, range.last));
                    range.sum = own.fold(0u64, |sum, (_, kept)| sum.wrapping_add(kept.hash));
                    if let Some(life) =
                        self.disk.lives.get(&epoch).filter(|l| range.first <= l.base)
                    {
                        range.sum = range.sum.wrapping_add(life.base_sum);
                    }
                }
            }
        }
    }

    pub(super) fn now(&self) -> Millis {
        Millis(self.clock)
    }
}

fn item(kept: &Kept) -> Item {
    Item {
        hash: kept.hash,
        context: kept.context,
        bytes: 40,
        confirmed: kept.confirmed,
        void: kept.body == Body::Void,
    }
}
