//! Everything that can happen, drawn from the seed.

use std::fmt::Write as _;
use std::sync::Arc;

use banyan_shared::codes::Refusal;
use banyan_shared::ids::{AgentId, Epoch, VersionId};
use banyan_shared::report::Version;
use banyan_shared::sync::{Effect, Event};
use banyan_shared::wire::{Envelope, LifeReceipt, RangeSum, Receipt, StoreId, decode};

use super::centre::Centre;
use super::check;
use super::machine::{Disk, Machine, Shared, content_of};
use super::model::{FUTURE, Model, OUT_OF_SCOPE, Register};
use super::sticks::Stick;
use super::{Broken, Keys, Rng};

/// What runs must have seen, all together: a simulation that never meets a fault proves nothing.
pub(super) const SEEN: &[&str] = &[
    "steps",
    "reports",
    "deliveries",
    "losses",
    "replays",
    "forgeries",
    "cuts",
    "agent crashes",
    "centre crashes",
    "failed commits",
    "restored ledgers",
    "wiped ledgers",
    "rolled back ledgers",
    "restored disks",
    "clones",
    "quarantines",
    "prunings",
    "new lives",
    "renumbered",
    "reused refusals",
    "refused",
    "unconfirmed",
    "parked reports",
    "conflicts",
    "bundles",
    "bundles taken in",
    "bundles cut short",
    "answers brought",
    "old answers brought",
    "runs that end without a line",
];

/// Steps to come to rest once faults have stopped.
pub(super) const ROUNDS_TO_REST: usize = 60;
const MESSAGES_KEPT: usize = 24;

#[derive(Clone)]
struct Message {
    down: bool,
    agent: usize,
    bytes: Arc<[u8]>,
    /// Just as its sender sealed it. Every eighth run verifies these too.
    authentic: bool,
}

/// What has happened that weakens what can be asked.
#[derive(Clone, Copy, Default)]
pub(super) struct Happened {
    /// One identity was used by two machines or by a disk put back.
    pub(super) twin: bool,
    /// The ledger has lost something.
    pub(super) regress: bool,
    /// … and nobody could tell by its store id.
    pub(super) silent: bool,
    pub(super) quarantine: bool,
}

/// How likely this run's faults are, in percent.
struct Faults {
    network: usize,
    crash: usize,
    centre: usize,
    regress: usize,
    twin: usize,
    quarantine: usize,
    forge: usize,
    prune: usize,
    sticks: usize,
}

struct Image {
    agent: usize,
    disk: Disk,
    branch: usize,
    length: usize,
}

pub(super) struct World<'k> {
    pub(super) keys: &'k Keys,
    pub(super) broken: Broken,
    pub(super) machines: Vec<Machine>,
    pub(super) centre: Centre,
    pub(super) shared: Shared,
    pub(super) happened: Happened,
    network: Vec<Message>,
    old: Vec<Message>,
    images: Vec<Image>,
    pub(super) sticks: Vec<Stick>,
    faults: Faults,
    calm: bool,
    verify_all: bool,
    tracing: bool,
    trace: String,
    seen: Vec<u64>,
}

impl<'k> World<'k> {
    pub(super) fn new(seed: u64, broken: Broken, keys: &'k Keys, tracing: bool) -> World<'k> {
        let mut rng = Rng(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        rng.next();
        let mut some = |often: usize, percent: usize| if rng.chance(often) { percent } else { 0 };
        let faults = Faults {
            network: some(80, 25),
            crash: some(60, 5),
            centre: some(60, 6),
            regress: some(30, 3),
            twin: some(35, 4),
            quarantine: some(30, 3),
            forge: some(50, 6),
            prune: some(20, 4),
            sticks: some(50, 25),
        };
        let agents = 1 + rng.below(3);
        let ids: Vec<AgentId> =
            keys.agents[..agents].iter().map(|key| key.public().agent_id()).collect();
        let mut shared =
            Shared { model: Model::default(), issued: Default::default(), broken, rng };
        let mut machines = Vec::new();
        for (agent, id) in ids.iter().enumerate() {
            let branch = shared.model.branch(None);
            machines.push(Machine::new(agent, *id, branch, &mut shared));
        }
        World {
            keys,
            broken,
            machines,
            centre: Centre::new(ids, broken),
            shared,
            happened: Happened::default(),
            network: Vec::new(),
            old: Vec::new(),
            images: Vec::new(),
            sticks: Vec::new(),
            faults,
            calm: false,
            verify_all: seed.is_multiple_of(8),
            tracing,
            trace: String::new(),
            seen: vec![0; SEEN.len()],
        }
    }

    pub(super) fn seen(&self) -> impl Iterator<Item = u64> + '_ {
        self.seen.iter().copied()
    }

    pub(super) fn trace(&self) -> &str {
        &self.trace
    }

    pub(super) fn note(&mut self, what: &str, n: u64) {
        let at = SEEN.iter().position(|seen| *seen == what).expect("everything noted is in SEEN");
        self.seen[at] += n;
    }

    pub(super) fn log(&mut self, line: impl FnOnce() -> String) {
        if self.tracing {
            let _ = writeln!(self.trace, "{}", line());
        }
    }

    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.shared.rng.chance(percent)
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        self.shared.rng.below(n)
    }

    pub(super) fn run(&mut self) -> Result<(), String> {
        for at in 0..self.machines.len() {
            self.machines[at].start();
            self.connect(at)?;
        }
        let steps = 30 + self.below(50);
        for _ in 0..steps {
            self.step()?;
            self.note("steps", 1);
            check::safety(self)?;
        }
        self.come_to_rest()?;
        check::rest(self)
    }

    fn step(&mut self) -> Result<(), String> {
        let at = self.below(self.machines.len());
        if self.faulty(at)? {
            return Ok(());
        }
        if self.chance(self.faults.sticks) {
            return self.stick(at);
        }
        match self.below(100) {
            0..25 => self.type_report(at)?,
            25..75 if !self.network.is_empty() => self.deliver_some()?,
            75..87 => self.commit()?,
            87..93 => self.connect(at)?,
            93 => self.feed(at, Event::Introduced)?,
            94 if !self.centre.released => {
                self.commit()?;
                self.log(|| "periods begin".into());
                self.centre.release();
            }
            95 => self.machines[at].contexts += 1,
            _ => {
                let ms = i64::try_from(self.below(30_000)).unwrap();
                self.machines[at].clock += ms;
                self.feed(at, Event::Tick)?;
            }
        }
        Ok(())
    }

    /// Perhaps something goes wrong.
    fn faulty(&mut self, at: usize) -> Result<bool, String> {
        if self.chance(self.faults.crash) {
            self.crash(at);
            if self.chance(self.faults.quarantine * 6) {
                self.quarantine(at);
            }
        } else if self.chance(self.faults.centre) {
            if self.chance(50) {
                self.log(|| "centre crashes".into());
                self.note("centre crashes", 1);
                self.centre.crash()?;
            } else {
                self.log(|| "commit fails".into());
                self.note("failed commits", 1);
                self.centre.fail_commit()?;
            }
        } else if self.chance(self.faults.regress) {
            self.regress()?;
        } else if self.chance(self.faults.twin) {
            self.twin(at);
        } else if self.chance(self.faults.forge) {
            self.forge(at)?;
        } else if self.chance(self.faults.prune) && self.machines[at].outbox.is_none() {
            self.prune(at);
        } else if self.chance(self.faults.network / 5) {
            self.cut(at)?;
        } else if self.chance(self.faults.network / 4) && !self.old.is_empty() {
            let old = self.below(self.old.len());
            let message = self.old[old].clone();
            self.note("replays", 1);
            self.log(|| "an old message comes again".into());
            self.deliver(message)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// Whether faults have stopped.
    pub(super) fn is_calm(&self) -> bool {
        self.calm
    }

    /// Whether a machine dies here.
    pub(super) fn crashes_now(&mut self) -> bool {
        !self.calm && self.chance(self.faults.crash)
    }

    fn type_report(&mut self, at: usize) -> Result<(), String> {
        let agent = self.machines[at].agent;
        let own = u32::try_from(agent).unwrap();
        let register = Register {
            facility: match self.below(10) {
                0 => OUT_OF_SCOPE,
                1 | 2 => u32::try_from(self.below(3)).unwrap(),
                _ => own,
            },
            form: u16::try_from(self.below(2)).unwrap(),
            period: i32::try_from(self.below(usize::try_from(FUTURE).unwrap() + 1)).unwrap(),
        };
        let shown = if self.chance(50) { self.shown(at, register) } else { Vec::new() };
        let no = self.machines[at].type_report(register, &shown, &mut self.shared);
        self.note("reports", 1);
        self.log(|| format!("machine {at} saves report {no} {register:?}, shown {shown:?}"));
        if self.chance(70) {
            // Otherwise it goes with the next event.
            self.feed(at, Event::Tick)?;
        }
        Ok(())
    }

    /// The standing versions of a register that other writers wrote.
    fn shown(&self, at: usize, register: Register) -> Vec<(VersionId, usize)> {
        let (mut registers, lineage) = check::versions(&self.centre);
        let held = registers.remove(&register).unwrap_or_default();
        let versions: Vec<Version> =
            held.iter().map(|(id, held)| check::version(*id, held)).collect();
        let heads = banyan_shared::report::heads(&versions, &lineage);
        let foreign =
            heads.into_iter().filter(|head| versions[*head].id.writer != self.machines[at].id);
        foreign.map(|head| (held[head].0, content_of(&held[head].1.body).unwrap())).collect()
    }

    fn connect(&mut self, at: usize) -> Result<(), String> {
        if self.machines[at].outbox.is_none() {
            self.machines[at].start();
        }
        let nonce = self.shared.rng.next();
        self.machines[at].nonce = Some(nonce);
        self.machines[at].since = self.centre.generation;
        self.log(|| format!("machine {at} connects"));
        self.feed(at, Event::Connected { nonce })
    }

    fn cut(&mut self, at: usize) -> Result<(), String> {
        self.note("cuts", 1);
        self.log(|| format!("machine {at} is cut off"));
        if self.chance(50) {
            let agent = self.machines[at].agent;
            self.network.retain(|message| message.agent != agent);
        }
        self.machines[at].nonce = None;
        self.feed(at, Event::Disconnected)
    }

    /// Gives a machine an event and carries out what it wants; it may die between any two effects.
    pub(super) fn feed(&mut self, at: usize, event: Event<'_>) -> Result<(), String> {
        let machine = &mut self.machines[at];
        machine.clock += 1;
        let now = machine.now();
        let Some(outbox) = &mut machine.outbox else { return Ok(()) };
        let effects = outbox.handle(now, event);
        let mut new_life = false;
        for effect in effects {
            if !self.calm && self.chance(self.faults.crash / 3) {
                self.crash(at);
                return Ok(());
            }
            self.log(|| format!("  machine {at}: {effect:?}"));
            match &effect {
                Effect::NewLife { .. } => {
                    new_life = true;
                    self.note("new lives", 1);
                }
                Effect::Renumber { .. } => self.note("renumbered", 1),
                Effect::Refused { .. } => self.note("refused", 1),
                Effect::Unconfirm { .. } => self.note("unconfirmed", 1),
                _ => {}
            }
            let machine = &mut self.machines[at];
            let key = &self.keys.agents[machine.agent];
            if let Some(bytes) = machine.exec(effect, key, &mut self.shared) {
                let agent = machine.agent;
                if machine.nonce.is_some() {
                    self.send(Message { down: false, agent, bytes, authentic: true });
                }
            }
        }
        if new_life { self.feed(at, Event::Tick) } else { Ok(()) }
    }

    fn send(&mut self, message: Message) {
        if self.old.len() == MESSAGES_KEPT {
            let at = self.below(MESSAGES_KEPT);
            self.old.swap_remove(at);
        }
        self.old.push(message.clone());
        self.network.push(message);
    }

    fn deliver_some(&mut self) -> Result<(), String> {
        for _ in 0..1 + self.below(3) {
            if self.network.is_empty() {
                break;
            }
            let next = if self.chance(self.faults.network * 2) {
                self.below(self.network.len())
            } else {
                0
            };
            let message = self.network.remove(next);
            if self.chance(self.faults.network / 2) {
                self.note("losses", 1);
                self.log(|| {
                    format!("lost: {} {}", if message.down { "to" } else { "from" }, message.agent)
                });
                continue;
            }
            if self.chance(self.faults.network / 2) {
                self.network.push(message.clone());
            }
            self.deliver(message)?;
        }
        Ok(())
    }

    fn deliver(&mut self, message: Message) -> Result<(), String> {
        self.note("deliveries", 1);
        if message.down { self.reach_machines(message) } else { self.reach_centre(message) }
    }

    fn reach_centre(&mut self, message: Message) -> Result<(), String> {
        if !message.authentic || self.verify_all {
            let key = self.keys.agents[message.agent].public();
            let opened = Envelope::read(&message.bytes).and_then(|envelope| envelope.open(&key));
            match (opened, message.authentic) {
                (Ok(_), true) => {}
                (Err(_), false) => return Ok(()),
                (opened, _) => return Err(format!("a batch's signature: {opened:?}")),
            }
        }
        self.log(|| format!("centre receives from {}", message.agent));
        let receipts = self.centre.receive(message.agent, &message.bytes)?;
        self.send_receipts(receipts);
        Ok(())
    }

    pub(super) fn commit(&mut self) -> Result<(), String> {
        if !self.centre.has_pending() {
            return Ok(());
        }
        self.log(|| "centre commits".into());
        let receipts = self.centre.commit()?;
        self.send_receipts(receipts);
        if self.chance(20) {
            self.centre.check_replay()?;
        }
        if self.chance(20) && self.centre.backups.len() < 3 {
            self.centre.backups.push(self.centre.ledger.clone());
        }
        Ok(())
    }

    pub(super) fn send_receipts(&mut self, receipts: Vec<(usize, Receipt)>) {
        for (agent, receipt) in receipts {
            self.log(|| format!("  centre to {agent}: {receipt:?}"));
            let reused = receipt.lives.iter().flat_map(|life| &life.refused);
            let reused = reused.filter(|(_, refusal)| *refusal == Refusal::SeqReused).count();
            self.note("reused refusals", u64::try_from(reused).unwrap());
            let bytes = receipt.seal(self.machines_id(agent), &self.keys.centre).into();
            self.send(Message { down: true, agent, bytes, authentic: true });
        }
    }

    fn machines_id(&self, agent: usize) -> AgentId {
        self.keys.agents[agent].public().agent_id()
    }

    /// Every machine that goes by the agent's name hears what is sent to it.
    fn reach_machines(&mut self, message: Message) -> Result<(), String> {
        let Ok(envelope) = Envelope::read(&message.bytes) else { return Ok(()) };
        let receipt = if self.broken == Broken::NoSignature || message.authentic && !self.verify_all
        {
            decode::<Receipt>(envelope.unverified_body())
        } else {
            Receipt::open(&envelope, &self.keys.centre.public())
        };
        let receipt = match receipt {
            Ok(receipt) => receipt,
            Err(_) if !message.authentic => return Ok(()),
            Err(error) => return Err(format!("the centre's receipt does not open: {error}")),
        };
        for at in 0..self.machines.len() {
            if self.machines[at].id == envelope.agent {
                self.log(|| format!("machine {at} receives a receipt"));
                let mut receipt = receipt.clone();
                self.machines[at].misread(&mut receipt, self.broken);
                self.feed(at, Event::Receipt(&receipt))?;
            }
        }
        Ok(())
    }

    pub(super) fn crash(&mut self, at: usize) {
        self.note("agent crashes", 1);
        self.log(|| format!("machine {at} crashes"));
        self.machines[at].crash(&mut self.shared);
    }

    /// Notes which reports a disk has lost by a change.
    fn losing(&mut self, at: usize, change: impl FnOnce(&mut Machine, &mut Shared)) {
        let before = self.machines[at].disk.contents();
        change(&mut self.machines[at], &mut self.shared);
        let after = self.machines[at].disk.contents();
        for no in before.difference(&after) {
            self.shared.model.typed[*no].lost = true;
        }
    }

    fn quarantine(&mut self, at: usize) {
        self.note("quarantines", 1);
        self.log(|| format!("machine {at} finds its queue damaged"));
        self.happened.quarantine = true;
        self.losing(at, Machine::quarantine);
    }

    fn prune(&mut self, at: usize) {
        self.note("prunings", 1);
        let keep_first = self.chance(50);
        let upto = u64::try_from(self.below(6)).unwrap();
        self.log(|| format!("machine {at} drops old history"));
        self.losing(at, |machine, _| machine.prune(keep_first, upto));
    }

    /// A disk image is taken, put back, or put into another machine.
    fn twin(&mut self, at: usize) {
        let (agent, branch) = (self.machines[at].agent, self.machines[at].branch);
        let same = |image: &Image| image.agent == agent;
        match self.images.iter().position(same) {
            Some(image) if self.chance(60) => {
                let image = self.images.swap_remove(image);
                let branch = self.shared.model.branch(Some((image.branch, image.length)));
                self.happened.twin = true;
                if self.chance(50) && self.machines.len() < 5 {
                    self.note("clones", 1);
                    let clones = self.machines.len();
                    self.log(|| format!("machine {clones} is a clone of {at}"));
                    let clone = self.machines[at].cloned(image.disk, branch);
                    self.machines.push(clone);
                } else {
                    self.note("restored disks", 1);
                    self.log(|| format!("machine {at} gets an old disk image"));
                    self.machines[at].crash(&mut self.shared);
                    self.losing(at, |machine, _| machine.disk = image.disk);
                    self.machines[at].branch = branch;
                }
            }
            _ if self.images.len() < 4 => {
                let disk = self.machines[at].disk.clone();
                let length = self.shared.model.length(branch);
                self.images.push(Image { agent, disk, branch, length });
            }
            _ => {}
        }
    }

    fn regress(&mut self) -> Result<(), String> {
        self.happened.regress = true;
        let how = self.below(3);
        let (mut ledger, mut store) = (Vec::new(), self.centre.store);
        if how == 0 {
            self.note("wiped ledgers", 1);
            store = StoreId { ledger: self.shared.rng.next().to_le_bytes(), incarnation: 1 };
        } else {
            if self.centre.backups.is_empty() {
                return Ok(());
            }
            let at = self.below(self.centre.backups.len());
            ledger = self.centre.backups[at].clone();
            if how == 1 {
                self.note("restored ledgers", 1);
                store.incarnation = self.shared.rng.random32();
            } else {
                self.note("rolled back ledgers", 1);
                self.happened.silent = true;
            }
        }
        self.log(|| format!("the ledger goes back to {} rows as {store:?}", ledger.len()));
        self.centre.regress(ledger, store)?;
        if self.chance(70) {
            // The broker went down with it.
            for at in 0..self.machines.len() {
                self.cut(at)?;
            }
        }
        Ok(())
    }

    fn forge(&mut self, at: usize) -> Result<(), String> {
        self.note("forgeries", 1);
        self.log(|| format!("somebody forges a message of or to machine {at}"));
        let agent = self.machines[at].agent;
        let message = if self.chance(50) && !self.old.is_empty() {
            // Altered after signing, or meant for somebody else.
            let old = self.below(self.old.len());
            let mut message = self.old[old].clone();
            if message.down && self.chance(30) {
                message.agent = agent;
                message.authentic = true;
            } else {
                let mut bytes = message.bytes.to_vec();
                let place = self.below(bytes.len());
                bytes[place] ^= 1 << self.below(8);
                message.bytes = bytes.into();
                message.authentic = false;
            }
            message
        } else {
            // Perfect but for the key.
            let machine = &self.machines[at];
            let mut lives: Vec<LifeReceipt> = Vec::new();
            let mut last: Option<Epoch> = None;
            for ((epoch, seq), kept) in &machine.disk.entries {
                if last != Some(*epoch) {
                    lives.push(LifeReceipt { epoch: Some(*epoch), ..LifeReceipt::default() });
                    last = Some(*epoch);
                }
                let range = RangeSum { first: *seq, last: *seq, sum: kept.hash };
                lives.last_mut().unwrap().ranges.push(range);
            }
            let receipt = Receipt {
                store: machine.disk.store.unwrap_or(self.centre.store),
                position: 1,
                lives,
                complete: true,
                answers: machine.nonce,
                time: machine.now(),
                credit: 1,
            };
            let bytes = receipt.seal(machine.id, &self.keys.stranger).into();
            Message { down: true, agent, bytes, authentic: false }
        };
        self.deliver(message)
    }

    /// The faults stop, the links heal, everybody starts again.
    fn come_to_rest(&mut self) -> Result<(), String> {
        self.log(|| "the faults stop".into());
        self.calm = true;
        self.network.clear();
        self.old.clear();
        if self.chance(50) && !self.centre.released {
            self.commit()?;
            self.centre.release();
        }
        self.network.clear();
        if self.faults.sticks > 0 && self.chance(30) {
            self.note("runs that end without a line", 1);
            return self.rest_by_hand();
        }
        for at in 0..self.machines.len() {
            self.machines[at].crash(&mut self.shared);
            self.connect(at)?;
        }
        for _ in 0..ROUNDS_TO_REST {
            while !self.network.is_empty() {
                let message = self.network.remove(0);
                self.deliver(message)?;
            }
            self.commit()?;
            check::safety(self)?;
            let settled = self.machines.iter().all(|m| m.outbox.as_ref().unwrap().is_settled());
            if settled && self.network.is_empty() {
                return Ok(());
            }
            if self.network.is_empty() {
                for at in 0..self.machines.len() {
                    self.machines[at].clock += 20_000;
                    self.feed(at, Event::Tick)?;
                }
            }
        }
        Err("it does not come to rest".into())
    }
}
