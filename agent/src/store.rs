//! What the agent knows durably: the queue, with what its entries mean.
//!
//! Builds the [`Outbox`] from the queue at opening and carries out its effects, each on disk before the next
//! event. Keeps in memory, for every report, which of this agent's entries is the newest, and which refused
//! ones nobody has entered again. A refused report stays readable inside the void that took its place.

mod beyond;
mod bundle;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;

use banyan_shared::codes::{ParkReason, Refusal};
use banyan_shared::ids::{AgentId, ContextNumber, Epoch, FormCode, Millis, Seq, UnitCode};
use banyan_shared::limits::LIVES_MAX;
use banyan_shared::period::{Date, Period};
use banyan_shared::report::Content;
use banyan_shared::sync::{Config, Cut, Effect, Event, Item, Outbox};
use banyan_shared::wire::{self, Batch, Beacon, Body, Entry, Hello, StoreId, entry_hash};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

pub(crate) use beyond::Beyond;
use beyond::{Lost, Unread};

use crate::clock::{ClockState, RELEASED};
use crate::identity::Identity;
use crate::note::{Note, note};
use crate::queue::{self, NewEntry, Queue, QueueError, State};

/// How long confirmed entries are retained, in days: a restored centre gets them back.
pub(crate) const RETAINED_DAYS: i32 = 400;
/// Cuts remembered byte for byte; more than any window holds.
const CUTS_MAX: usize = 64;
/// Most rounds of adding entries and sending them that one event sets off: a new life, what moves into it,
/// and nothing more; the next event goes on.
const ROUNDS_MAX: usize = 8;
/// Among how many waiting entries the oldest is looked for.
const OLDEST_AMONG: usize = 2048;
/// Most ranges of lost numbers the first entry of a life states: it must fit into an entry of the queue
/// and pass the wire.
const LOST_RANGES_MAX: usize = 500;
/// Most parked entries remembered, the newest ones.
const PARKED_MAX: usize = 10_000;
/// Entries read at a time.
const STEP: usize = 512;

const META_STORE: &str = "store";
const META_CLOCK: &str = "clock";
const META_PARKED: &str = "parked";
const META_CARRIED: &str = "carried";
const META_LOST: &str = "lost";
/// What the first entry of the life after the named one will state: written before that life begins.
const META_EARLIER: &str = "earlier";

/// The payload of a queue entry, after its version byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Payload {
    pub(crate) context: ContextNumber,
    /// When it was entered, in minutes since 1970 by the agent's clock.
    pub(crate) minute: u32,
    pub(crate) body: Body,
    /// In a void: what was refused, and why.
    pub(crate) refused: Option<(Refusal, Body)>,
}

const PAYLOAD_VERSION: u8 = 1;

impl Payload {
    fn encode(&self) -> Vec<u8> {
        [&[PAYLOAD_VERSION], wire::encode(self).as_slice()].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Payload> {
        let (version, body) = bytes.split_first()?;
        (*version == PAYLOAD_VERSION).then(|| wire::decode(body).ok())?
    }
}

/// Which report an entry is about, whatever the context it was made under.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ReportKey {
    /// The facility.
    pub(crate) facility: UnitCode,
    /// The form.
    pub(crate) form: FormCode,
    /// The period.
    pub(crate) period: Period,
}

/// An entry's name: its life and its number there.
pub(crate) type EntryId = (Epoch, Seq);

/// A report to be saved.
#[derive(Clone, Debug)]
pub(crate) struct NewReport {
    pub(crate) key: ReportKey,
    /// Places of facility and form in the context.
    pub(crate) facility: u32,
    pub(crate) form: u16,
    pub(crate) content: Content,
}

/// The durable state of an enrolled agent.
pub(crate) struct Store {
    agent: AgentId,
    config: Config,
    queue: Queue,
    pub(crate) outbox: Outbox,
    newest: HashMap<ReportKey, EntryId>,
    refused: BTreeMap<EntryId, (ReportKey, Refusal)>,
    parked: BTreeMap<EntryId, ParkReason>,
    /// Reports of which nobody knows here any more whose they are: the newest of each.
    unread: HashMap<Unread, EntryId>,
    /// What the damages of the past took.
    lost: Option<Lost>,
    pub(crate) clock: ClockState,
    /// How many entries were released since it was opened.
    pub(crate) released: u64,
    /// The centre's time as the disk has it.
    receipt_kept: Option<Millis>,
    /// Cuts in flight, sealed.
    cuts: VecDeque<(u64, Vec<u8>)>,
}

fn queue_note(error: &QueueError) -> Note {
    use banyan_shared::catalogue::Lang;
    let code = match error {
        QueueError::Locked { .. } => "locked",
        QueueError::DiskFull { .. } => "disk_full",
        QueueError::Full { .. } => "queue_full",
        _ => "queue",
    };
    let (zh, en) = (error.text(Lang::Zh), error.text(Lang::En));
    note!(Error, code, "{zh}", "{en}")
}

/// The day it is somewhere at `at`.
pub(crate) fn day_of(at: Millis) -> Date {
    let days = at.0.div_euclid(86_400_000);
    i32::try_from(days).ok().and_then(Date::from_days).unwrap_or(if at.0 < 0 {
        Date::MIN
    } else {
        Date::MAX
    })
}

/// A new life after `counter − 1` others.
fn draw(counter: u32) -> Epoch {
    let mut random = [0; 4];
    // Without randomness the counter alone tells lives apart, on this machine at least.
    let _ = SystemRandom::new().fill(&mut random);
    Epoch { counter, random: u32::from_le_bytes(random) }
}

fn item(payload: &Payload, hash: u64, confirmed: bool) -> Item {
    let bytes = wire::encode(&payload.body).len();
    Item {
        hash,
        context: payload.context,
        bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        confirmed,
        void: payload.body == Body::Void,
    }
}

impl Store {
    /// Opens the queue of `identity` in `dir`, begins a new life if the machine is another one or the queue
    /// was damaged, and reads what it holds.
    pub(crate) fn open(
        dir: &Path,
        identity: &mut Identity,
        machine: Option<u64>,
        config: Config,
        now: Millis,
    ) -> Result<Store, Note> {
        let path = dir.join("queue");
        let (known_machine, known_epoch) = identity.used();
        let known_counter = known_epoch.map_or(0, |epoch| epoch.counter);
        let fresh = |counter: u32| draw(counter.max(known_counter.saturating_add(1)));
        let (mut queue, damage) =
            Queue::open(&path, fresh, now).map_err(|error| queue_note(&error))?;
        if let Some(damage) = damage {
            tracing::warn!(reason = damage.reason, "the queue was damaged and has been mended");
        }
        let moved = matches!((known_machine, machine), (Some(known), Some(here)) if known != here);
        if moved && known_epoch == Some(queue.epoch()) {
            tracing::warn!("this disk was used on another machine: a new life begins");
            let next = draw(queue.epoch().counter.saturating_add(1));
            queue.new_epoch(next).map_err(|error| queue_note(&error))?;
        }
        let agent = identity.agent();
        let store = Store::read_meta(&queue, META_STORE);
        let clock = Store::read_meta(&queue, META_CLOCK).unwrap_or_default();
        let parked: Vec<(EntryId, ParkReason)> =
            Store::read_meta(&queue, META_PARKED).unwrap_or_default();
        let mut this = Store {
            agent,
            config,
            outbox: Outbox::new(agent, queue.epoch(), store, config),
            newest: HashMap::new(),
            refused: BTreeMap::new(),
            parked: parked.into_iter().collect(),
            unread: HashMap::new(),
            lost: Store::read_meta(&queue, META_LOST),
            clock,
            released: 0,
            receipt_kept: clock.receipt,
            cuts: VecDeque::new(),
            queue,
        };
        this.begin_life(identity, now)?;
        identity.set_used(machine, this.queue.epoch())?;
        this.load(identity)?;
        Ok(this)
    }

    fn read_meta<T: serde::de::DeserializeOwned>(queue: &Queue, name: &str) -> Option<T> {
        wire::decode(&queue.meta_get(name).ok()??).ok()
    }

    /// States what earlier lives came to, in the first entry of a life that is not the first; and takes
    /// along what can no longer be sent under its old number.
    fn begin_life(&mut self, identity: &Identity, now: Millis) -> Result<(), Note> {
        let epoch = self.queue.epoch();
        if epoch.counter > 1 && self.queue.issued(epoch) == 0 {
            let lost: Vec<(Epoch, Seq, Seq)> = self
                .queue
                .damages()
                .iter()
                .flat_map(|damage| &damage.epochs)
                .flat_map(|loss| loss.lost.iter().map(|(a, b)| (loss.epoch, *a, *b)))
                .collect();
            self.lost = Lost::with(self.lost, &lost, self.clock, now);
            let lost = fewer_ranges(lost, LOST_RANGES_MAX);
            let all = self.earlier();
            let before = all.last().map(|(life, _)| *life);
            // A life begun because of a twin, and cut short before its first entry, states less than all.
            let meant = Store::read_meta::<Vec<(Epoch, Seq)>>(&self.queue, META_EARLIER)
                .filter(|meant| meant.last().map(|(life, _)| *life) == before);
            let body = Body::Begins { earlier: meant.unwrap_or(all), lost };
            let payload =
                Payload { context: identity.spoken().unwrap_or(0), minute: 0, body, refused: None };
            let taken = self.lost.map(|lost| wire::encode(&lost));
            let values = taken.as_ref().map(|bytes| (META_LOST, bytes.as_slice()));
            self.append_payloads(&[payload], self.known_day(), values.as_slice())?;
        }
        // Whatever was lost has been stated by now: every damage begins a life.
        self.queue.damage_reported().map_err(|error| queue_note(&error))?;
        Ok(())
    }

    /// The last day the centre has told of: from it the first entry of a life is retained. A centre that lost it after that time gets the rest under a new life.
    fn known_day(&self) -> Date {
        day_of(self.clock.receipt.unwrap_or(RELEASED))
    }

    fn earlier(&self) -> Vec<(Epoch, Seq)> {
        let current = self.queue.epoch();
        let mut earlier: Vec<_> =
            self.queue.epochs().into_iter().filter(|(epoch, _)| *epoch != current).collect();
        // The newest lives matter; older ones were named by theirs.
        let surplus = earlier.len().saturating_sub(LIVES_MAX);
        earlier.drain(..surplus);
        earlier
    }

    /// Reads every entry into outbox and index.
    fn load(&mut self, identity: &mut Identity) -> Result<(), Note> {
        let store = Store::read_meta::<StoreId>(&self.queue, META_STORE);
        self.outbox = Outbox::new(self.agent, self.queue.epoch(), store, self.config);
        if let Some(context) = identity.spoken() {
            self.outbox.speak_under(context);
        }
        self.outbox.load_carried(Store::read_meta(&self.queue, META_CARRIED).unwrap_or_default());
        // A new outbox numbers its cuts from the beginning.
        self.cuts.clear();
        self.newest.clear();
        self.refused.clear();
        self.unread.clear();
        for (epoch, issued) in self.queue.epochs() {
            let (base, base_sum) =
                self.queue.hashes(epoch).map_or((0, 0), |hashes| (hashes.base, hashes.base_sum));
            self.outbox.load_life(epoch, base, base_sum, issued);
        }
        self.each(|this, entry, payload| {
            let confirmed = entry.state == State::Confirmed;
            this.outbox.add(entry.epoch, entry.seq, item(payload, entry.hash, confirmed));
            this.note_entry((entry.epoch, entry.seq), payload, identity);
        })
    }

    /// Shows `f` every entry that is retained, life by life.
    fn each(&mut self, mut f: impl FnMut(&mut Store, &queue::Entry, &Payload)) -> Result<(), Note> {
        for (epoch, _) in self.queue.epochs() {
            let mut after = 0;
            loop {
                let entries = self
                    .queue
                    .history_since(epoch, after, STEP)
                    .map_err(|error| queue_note(&error))?;
                let Some(last) = entries.last() else { break };
                after = last.seq;
                for entry in entries {
                    let payload = Payload::decode(&entry.payload).ok_or_else(newer_program)?;
                    f(self, &entry, &payload);
                }
            }
        }
        Ok(())
    }

    /// A grant was taken over: hellos speak under it, and what did not read may read now.
    pub(crate) fn granted(&mut self, identity: &mut Identity) -> Result<(), Note> {
        if let Some(context) = identity.spoken() {
            self.outbox.speak_under(context);
        }
        if self.unread.keys().any(|unread| !identity.is_lost(unread.context())) {
            self.newest.clear();
            self.refused.clear();
            self.unread.clear();
            self.each(|this, entry, payload| {
                this.note_entry((entry.epoch, entry.seq), payload, identity);
            })?;
        }
        Ok(())
    }

    /// Which report an entry speaks of; none if it is no report, or if what its context means is lost: then
    /// [`Store::beyond`] sees to it that no correction takes back what it does not name.
    pub(crate) fn key_of(
        body: &Body,
        context: ContextNumber,
        identity: &mut Identity,
    ) -> Option<ReportKey> {
        let Body::Report { facility, form, period, .. } = body else { return None };
        if identity.is_lost(context) {
            return None;
        }
        let context = identity.context(context).ok()?;
        let facility = usize::try_from(*facility).ok().and_then(|at| context.facilities.get(at));
        let form = context.catalogue.forms.get(usize::from(*form));
        Some(ReportKey {
            facility: facility?.code.clone(),
            form: form?.code.clone(),
            period: *period,
        })
    }

    fn note_entry(&mut self, id: EntryId, payload: &Payload, identity: &mut Identity) {
        if let Some((refusal, body)) = &payload.refused {
            if let Some(key) = Store::key_of(body, payload.context, identity) {
                self.refused.insert(id, (key, *refusal));
            }
        } else if let Some(key) = Store::key_of(&payload.body, payload.context, identity) {
            let newest = self.newest.entry(key).or_insert(id);
            *newest = (*newest).max(id);
        } else if let Some(unread) = Unread::of(payload) {
            let newest = self.unread.entry(unread).or_insert(id);
            *newest = (*newest).max(id);
        }
    }

    /// Appends payloads; on return they are on disk.
    fn append_payloads(
        &mut self,
        payloads: &[Payload],
        day: Date,
        values: &[(&str, &[u8])],
    ) -> Result<Vec<EntryId>, Note> {
        let epoch = self.queue.epoch();
        let first = self.queue.issued(epoch) + 1;
        let entries: Vec<NewEntry> = (first..)
            .zip(payloads)
            .map(|(seq, payload)| NewEntry {
                payload: payload.encode(),
                hash: entry_hash(self.agent, epoch, seq, payload.context, &payload.body),
                day,
            })
            .collect();
        let seqs = self.queue.append_with(&entries, values).map_err(|error| queue_note(&error))?;
        for ((seq, payload), entry) in seqs.iter().zip(payloads).zip(&entries) {
            self.outbox.add(epoch, *seq, item(payload, entry.hash, false));
        }
        Ok(seqs.into_iter().map(|seq| (epoch, seq)).collect())
    }

    /// Saves reports, all or none. On return they are on disk.
    pub(crate) fn save(
        &mut self,
        context: ContextNumber,
        reports: Vec<NewReport>,
        now: Millis,
        today: Date,
    ) -> Result<Vec<EntryId>, Note> {
        let (keys, payloads): (Vec<_>, Vec<_>) = reports
            .into_iter()
            .map(|report| {
                let minute = report.content.entered_at.minute;
                let body = Body::Report {
                    facility: report.facility,
                    form: report.form,
                    period: report.key.period,
                    content: report.content,
                };
                (report.key, Payload { context, minute, body, refused: None })
            })
            .unzip();
        if payloads.is_empty() {
            return Ok(Vec::new());
        }
        let mut clock = self.clock;
        clock.entered(now);
        let ids = self.append_payloads(&payloads, today, &[(META_CLOCK, &wire::encode(&clock))])?;
        (self.clock, self.receipt_kept) = (clock, clock.receipt);
        for (key, id) in keys.into_iter().zip(&ids) {
            self.newest.insert(key, *id);
        }
        Ok(ids)
    }

    /// Whether the queue failed under way and must be opened again.
    pub(crate) fn is_fit(&self) -> bool {
        !self.queue.is_broken()
    }

    /// The newest entry this agent holds for a report.
    pub(crate) fn newest(&self, key: &ReportKey) -> Option<EntryId> {
        self.newest.get(key).copied()
    }

    /// An entry's payload.
    pub(crate) fn payload(&self, (epoch, seq): EntryId) -> Result<Option<(Payload, State)>, Note> {
        let entry = self.queue.get(epoch, seq).map_err(|error| queue_note(&error))?;
        entry
            .map(|entry| {
                let payload = Payload::decode(&entry.payload).ok_or_else(newer_program)?;
                Ok((payload, entry.state))
            })
            .transpose()
    }

    /// Entries without a receipt, oldest life first.
    pub(crate) fn waiting(&self) -> Vec<EntryId> {
        self.queue
            .epochs()
            .into_iter()
            .flat_map(|(epoch, _)| self.queue.waiting(epoch).map(move |seq| (epoch, seq)))
            .collect()
    }

    /// Refused reports that nobody has entered again since.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (EntryId, &ReportKey, Refusal)> + '_ {
        self.refused
            .iter()
            .filter(|(id, (key, _))| self.newest.get(key).is_none_or(|newest| newest < id))
            .map(|(id, (key, refusal))| (*id, key, *refusal))
    }

    /// Entries the centre holds but does not count yet, unless replaced since.
    pub(crate) fn parked(
        &self,
        identity: &mut Identity,
    ) -> Result<Vec<(EntryId, ReportKey, ParkReason)>, Note> {
        let mut shown = Vec::new();
        for (id, reason) in &self.parked {
            if let Some((payload, _)) = self.payload(*id)?
                && let Some(key) = Store::key_of(&payload.body, payload.context, identity)
                && self.newest(&key) == Some(*id)
                && !matches!(&payload.body, Body::Report { content, .. } if content.withdrawn)
            {
                shown.push((*id, key, *reason));
            }
        }
        Ok(shown)
    }

    /// How many entries have a receipt.
    pub(crate) fn received(&self) -> u64 {
        self.queue.stats().confirmed
    }

    /// The minute at which the oldest entry without a receipt was made.
    pub(crate) fn oldest_waiting(&self) -> Result<Option<u32>, Note> {
        let mut oldest: Option<u32> = None;
        // Numbers follow time but for what moved into a later life, which comes early in it.
        for id in self.waiting().into_iter().take(OLDEST_AMONG) {
            // The first entry of a life has no time of its own.
            if let Some((payload, _)) = self.payload(id)?
                && payload.minute > 0
            {
                oldest = Some(oldest.map_or(payload.minute, |known| known.min(payload.minute)));
            }
        }
        Ok(oldest)
    }

    /// How the agent is, for the hello.
    fn beacon(&self, now: Millis) -> Beacon {
        let part = |text: &str| text.parse().unwrap_or(0);
        Beacon {
            version: (
                part(env!("CARGO_PKG_VERSION_MAJOR")),
                part(env!("CARGO_PKG_VERSION_MINOR")),
                part(env!("CARGO_PKG_VERSION_PATCH")),
            ),
            waiting: u32::try_from(self.outbox.waiting()).unwrap_or(u32::MAX),
            oldest_waiting: self.oldest_waiting().ok().flatten(),
            refused: u32::try_from(self.refused().count()).unwrap_or(u32::MAX),
            clock_minute: now.minute(),
            clock_trusted: self.clock.trusts(now),
            free_disk_mib: 0,
            last_error: 0,
        }
    }

    /// Hands an event to the outbox and carries out what comes of it, durably and in order; gives the
    /// messages to publish.
    pub(crate) fn event(
        &mut self,
        identity: &mut Identity,
        event: Event<'_>,
        steady: Millis,
        now: Millis,
    ) -> Result<Vec<Vec<u8>>, Note> {
        let mut send = Vec::new();
        let heard = match &event {
            Event::Receipt(receipt) | Event::Brought(receipt) => Some(receipt.time),
            _ => None,
        };
        let mut effects = self.outbox.handle(steady, event);
        for round in 1.. {
            let mut added = false;
            for effect in effects {
                added |= matches!(effect, Effect::NewLife { .. } | Effect::Renumber { .. });
                if let Some(message) = self.carry_out(identity, effect, now, heard)? {
                    send.push(message);
                }
            }
            if !added || round == ROUNDS_MAX {
                break;
            }
            // Entries were added of which the outbox did not know when it chose what to send.
            effects = self.outbox.handle(steady, Event::Tick);
        }
        Ok(send)
    }

    fn carry_out(
        &mut self,
        identity: &mut Identity,
        effect: Effect,
        now: Millis,
        heard: Option<Millis>,
    ) -> Result<Option<Vec<u8>>, Note> {
        let fail = |error: QueueError| queue_note(&error);
        match effect {
            Effect::Send(cut) => return self.seal(&cut, identity, now).map(Some),
            Effect::Confirm { epoch, ranges } => {
                // When the entries were made only the PC's clock says; the receipt knows the day it is.
                let day = heard.map_or_else(|| self.known_day(), day_of);
                self.released += self.queue.confirm_on(epoch, &ranges, day).map_err(fail)?;
            }
            Effect::Unconfirm { epoch, ranges } => {
                self.queue.unconfirm(epoch, &ranges).map_err(fail)?;
            }
            Effect::Refused { epoch, seq, refusal } => {
                self.refuse(identity, (epoch, seq), refusal)?;
            }
            Effect::Renumber { epoch, seq } => self.renumber(identity, (epoch, seq))?,
            Effect::NewLife { known, twin } => self.new_life(identity, known, twin)?,
            Effect::Store(store) => {
                self.queue.meta_put(META_STORE, &wire::encode(&store)).map_err(fail)?;
            }
            Effect::Carried(carried) => {
                self.queue.meta_put(META_CARRIED, &wire::encode(&carried)).map_err(fail)?;
            }
            Effect::Parked { epoch, parked, complete } => {
                let before = self.parked.clone();
                if complete {
                    self.parked.retain(|(life, _), _| *life != epoch);
                }
                self.parked.extend(parked.into_iter().map(|(seq, why)| ((epoch, seq), why)));
                while self.parked.len() > PARKED_MAX {
                    self.parked.pop_first();
                }
                if self.parked != before {
                    let list: Vec<(EntryId, ParkReason)> =
                        self.parked.iter().map(|(id, why)| (*id, *why)).collect();
                    self.queue.meta_put(META_PARKED, &wire::encode(&list)).map_err(fail)?;
                }
            }
        }
        Ok(None)
    }

    /// The bytes of a cut: the same for the same cut, however often it is sent.
    fn seal(&mut self, cut: &Cut, identity: &Identity, now: Millis) -> Result<Vec<u8>, Note> {
        if let Some((_, bytes)) = self.cuts.iter().find(|(id, _)| *id == cut.id) {
            return Ok(bytes.clone());
        }
        let bytes = self.sealed(cut, identity, now)?;
        self.cuts.push_back((cut.id, bytes.clone()));
        if self.cuts.len() > CUTS_MAX {
            self.cuts.pop_front();
        }
        Ok(bytes)
    }

    fn sealed(&self, cut: &Cut, identity: &Identity, now: Millis) -> Result<Vec<u8>, Note> {
        let mut entries = Vec::with_capacity(cut.seqs.len());
        for seq in &cut.seqs {
            if let Some((payload, _)) = self.payload((cut.epoch, *seq))? {
                entries.push(Entry { seq: *seq, body: payload.body });
            }
        }
        let operating = identity.certificate().filter(|known| known.serial > 1);
        let operating = operating.map(|known| known.key.tag());
        let hello = cut.hello.map(|nonce| Hello { nonce, beacon: self.beacon(now), operating });
        let batch =
            Batch { agent: self.agent, epoch: cut.epoch, context: cut.context, hello, entries };
        Ok(batch.seal(identity.key()))
    }

    /// Puts a void in the place of a refused report, which stays readable inside it.
    fn refuse(
        &mut self,
        identity: &mut Identity,
        id: EntryId,
        refusal: Refusal,
    ) -> Result<(), Note> {
        let Some((payload, _)) = self.payload(id)? else { return Ok(()) };
        let key = Store::key_of(&payload.body, payload.context, identity);
        if let Some(unread) = Unread::of(&payload)
            && self.unread.get(&unread) == Some(&id)
        {
            self.unread.remove(&unread);
        }
        let void = Payload {
            context: payload.context,
            minute: payload.minute,
            body: Body::Void,
            refused: Some((refusal, payload.body)),
        };
        let hash = entry_hash(self.agent, id.0, id.1, void.context, &Body::Void);
        self.queue.void(id.0, id.1, void.encode(), hash).map_err(|error| queue_note(&error))?;
        if let Some(key) = key {
            if self.newest.get(&key) == Some(&id) {
                self.newest.remove(&key);
                self.find_newest(&key, identity)?;
            }
            self.refused.insert(id, (key, refusal));
        }
        Ok(())
    }

    /// Looks for the newest entry of a report among all that is retained.
    fn find_newest(&mut self, wanted: &ReportKey, identity: &mut Identity) -> Result<(), Note> {
        self.each(|this, entry, payload| {
            let key = Store::key_of(&payload.body, payload.context, identity);
            if key.as_ref() == Some(wanted) {
                let id = (entry.epoch, entry.seq);
                let newest = this.newest.entry(wanted.clone()).or_insert(id);
                *newest = (*newest).max(id);
            }
        })
    }

    /// Begins a life whose first entry states what the present one's stated, and the present one so far as
    /// it is this machine's own.
    fn new_life(&mut self, identity: &mut Identity, known: Seq, twin: bool) -> Result<(), Note> {
        let present = self.queue.epoch();
        if twin {
            tracing::warn!(life = %present, "another machine uses this identity: a new life begins");
        }
        let mut earlier = match self.payload((present, 1))? {
            Some((Payload { body: Body::Begins { earlier, .. }, .. }, _)) => earlier,
            // Its first entry was dropped after its time.
            None if present.counter > 1 => self.earlier(),
            _ => Vec::new(),
        };
        earlier.push((present, known));
        let surplus = earlier.len().saturating_sub(LIVES_MAX);
        earlier.drain(..surplus);
        let next = draw(present.counter.saturating_add(1));
        self.queue
            .meta_put(META_EARLIER, &wire::encode(&earlier))
            .and_then(|()| self.queue.new_epoch(next))
            .map_err(|error| queue_note(&error))?;
        let context = identity.spoken().unwrap_or(0);
        let body = Body::Begins { earlier, lost: Vec::new() };
        let payload = Payload { context, minute: 0, body, refused: None };
        let hash = entry_hash(self.agent, next, 1, context, &payload.body);
        let entry = NewEntry { payload: payload.encode(), hash, day: self.known_day() };
        self.queue.append(&[entry]).map_err(|error| queue_note(&error))?;
        self.outbox.begin(next, item(&payload, hash, false));
        identity.set_used(None, next)
    }

    /// Moves an entry whose number a twin has used to the end of the present life. What has been replaced
    /// since moves as a void: it must not come after what replaced it. A report whose context is lost moves as
    /// it is: whose it is only the centre knows.
    fn renumber(&mut self, identity: &mut Identity, id: EntryId) -> Result<(), Note> {
        let Some((payload, _)) = self.payload(id)? else { return Ok(()) };
        let key = Store::key_of(&payload.body, payload.context, identity);
        let unread = Unread::of(&payload).filter(|_| key.is_none());
        let stands = key.as_ref().is_some_and(|key| self.newest.get(key) == Some(&id))
            || unread.is_some_and(|unread| self.unread.get(&unread).is_none_or(|at| *at == id));
        let moved = if stands { payload } else { Payload { body: Body::Void, ..payload } };
        let agent = self.agent;
        let numbers = self
            .queue
            .move_entries(id.0, &[id.1], |epoch, seq, _| {
                (moved.encode(), entry_hash(agent, epoch, seq, moved.context, &moved.body))
            })
            .map_err(|error| queue_note(&error))?;
        let epoch = self.queue.epoch();
        for (_, seq) in numbers {
            let hash = entry_hash(agent, epoch, seq, moved.context, &moved.body);
            self.outbox.add(epoch, seq, item(&moved, hash, false));
            if let (true, Some(key)) = (stands, key.clone()) {
                self.newest.insert(key, (epoch, seq));
            }
            if let (true, Some(unread)) = (stands, unread) {
                self.unread.insert(unread, (epoch, seq));
            }
            if let Some(refused) = self.refused.remove(&id) {
                self.refused.insert((epoch, seq), refused);
            }
        }
        Ok(())
    }

    /// Notes a receipt's time.
    pub(crate) fn note_receipt(&mut self, centre: Millis, now: Millis) -> Result<(), Note> {
        self.clock.receipt(centre, now);
        if let Some(lost) = self.lost.and_then(|lost| lost.before(centre)) {
            self.queue
                .meta_put(META_LOST, &wire::encode(&lost))
                .map_err(|error| queue_note(&error))?;
            self.lost = Some(lost);
        }
        self.keep_clock()
    }

    fn keep_clock(&mut self) -> Result<(), Note> {
        let Some(centre) = self.clock.receipt else { return Ok(()) };
        // Once a minute is enough for what hangs on it, and spares the disk.
        let near = |kept: Millis| centre.0.abs_diff(kept.0) < 60_000;
        if !self.receipt_kept.is_some_and(near) {
            self.queue
                .meta_put(META_CLOCK, &wire::encode(&self.clock))
                .map_err(|error| queue_note(&error))?;
            self.receipt_kept = Some(centre);
        }
        Ok(())
    }

    /// Drops what has been confirmed and retained long enough.
    pub(crate) fn drop_old(&mut self, today: Date, identity: &mut Identity) -> Result<u64, Note> {
        let dropped = self
            .queue
            .drop_older_than(today.plus(-RETAINED_DAYS))
            .map_err(|error| queue_note(&error))?;
        if dropped > 0 {
            self.load(identity)?;
        }
        Ok(dropped)
    }
}

fn newer_program() -> Note {
    note!(
        Error,
        "newer_program",
        "队列由更新版本的程序写成，请升级本程序",
        "the queue was written by a newer version of this program: update it"
    )
}

/// At most `max` ranges: the surplus of each life becomes one range that covers it.
fn fewer_ranges(mut lost: Vec<(Epoch, Seq, Seq)>, max: usize) -> Vec<(Epoch, Seq, Seq)> {
    if lost.len() <= max {
        return lost;
    }
    lost.sort_unstable();
    let lives = lost.chunk_by(|a, b| a.0 == b.0).count();
    let surplus = lost.split_off(max.saturating_sub(lives));
    lost.extend(surplus.chunk_by(|a, b| a.0 == b.0).filter_map(|life| {
        let (epoch, first, _) = *life.first()?;
        Some((epoch, first, life.iter().map(|(_, _, last)| *last).max()?))
    }));
    // The newest lives matter most, where there are more lives than ranges.
    let over = lost.len().saturating_sub(max);
    lost.drain(..over);
    lost
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_lost_ranges_are_covered_by_fewer() {
        let life = |counter| Epoch { counter, random: 7 };
        let all: Vec<(Epoch, Seq, Seq)> = (1..=3)
            .flat_map(|n| (1..=400).map(move |seq| (life(n), seq * 3, seq * 3 + 1)))
            .collect();
        let fewer = fewer_ranges(all.clone(), LOST_RANGES_MAX);
        assert!(fewer.len() <= LOST_RANGES_MAX);
        assert_eq!(fewer[..400], all[..400], "what has room stays as it is");
        for (epoch, first, last) in &all {
            assert!(fewer.iter().any(|(e, a, b)| e == epoch && a <= first && last <= b));
        }
        let earlier = vec![(life(u32::MAX), Seq::MAX); LIVES_MAX];
        let lost = vec![(life(u32::MAX), 1 << 40, 1 << 40); LOST_RANGES_MAX];
        let body = Body::Begins { earlier, lost };
        let payload = Payload { context: u32::MAX, minute: 0, body, refused: None };
        assert!(payload.encode().len() <= crate::queue::ENTRY_BYTES_MAX);
        assert_eq!(fewer_ranges(all[..9].to_vec(), 500), all[..9]);
    }
}
