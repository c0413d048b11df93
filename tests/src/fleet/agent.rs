//! An agent without network, disk and people: the real outbox machine, the real wire, its own key.
//!
//! What a real agent keeps in its queue is kept in memory here: that the queue survives is shown elsewhere.
//! Whatever cannot happen to an agent whose disk is sound (a twin, a life without its beginning) is counted
//! as a fault of the centre.

use std::collections::{BTreeSet, HashMap};

use banyan_shared::ids::{AgentId, ContextNumber, Epoch, Millis, Seq};
use banyan_shared::keys::{PublicKey, Rank, SigningKey};
use banyan_shared::sync::{Config, Cut, Effect, Event, Item, Outbox};
use banyan_shared::wire::{
    self, Answer, Batch, Beacon, Body, Entry, Envelope, Hello, Introduction, Kind, Receipt,
    SignedGrant, StoreId, entry_hash,
};
use bytes::Bytes;

use super::notebook::Notebook;

/// Introductions on one connection, as at the real agent.
const INTRODUCTIONS_MAX: u32 = 8;

/// Whom the agents believe.
#[derive(Clone, Copy, Debug)]
pub(super) struct Centre {
    /// The operating key, which signs receipts.
    pub(super) key: PublicKey,
    /// The root's fingerprint.
    pub(super) root: [u8; 16],
    /// How late the operating key is.
    pub(super) newest: Rank,
}

/// An agent.
pub(super) struct Agent {
    pub(super) id: AgentId,
    pub(super) key: SigningKey,
    /// The certificate the centre issued, in DER.
    pub(super) certificate: Vec<u8>,
    pub(super) notebook: Notebook,
    pub(super) epoch: Epoch,
    centre: Centre,
    outbox: Outbox,
    context: ContextNumber,
    grants: Vec<SignedGrant>,
    /// What the outbox is told of the notebook's entries, under the first context.
    items: Vec<Item>,
    /// How many entries of the notebook are in the outbox.
    written: Seq,
    voids: BTreeSet<Seq>,
    /// Batches signed in advance, by their numbers.
    signed: HashMap<Vec<Seq>, Bytes>,
    nonce: u64,
    introductions: u32,
    waiting: u64,
    /// How far its PC's clock is ahead, in ms: what it shows is told to the centre, and nothing else goes by it.
    pub(super) clock_ahead: i64,
    pub(super) tally: Tally,
}

/// What happened to an agent's entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Entries a receipt has proved to be in the ledger.
    pub(super) receipted: u64,
    /// Entries the centre was found to have lost, and which were sent again.
    pub(super) lost_by_centre: u64,
    /// Batches sent, those sent again included.
    pub(super) batches: u64,
    /// Of these: not signed in advance.
    pub(super) signed_now: u64,
    /// Entries refused.
    pub(super) refused: u64,
    /// Entries parked.
    pub(super) parked: u64,
    /// What cannot happen to an agent with a sound disk.
    pub(super) faults: u64,
    /// Grants that arrived: scope or catalogue changed.
    pub(super) grants: u64,
    /// Messages that did not verify.
    pub(super) bad_messages: u64,
}

impl Tally {
    fn each(&self, other: &Tally, of: impl Fn(u64, u64) -> u64) -> Tally {
        Tally {
            receipted: of(self.receipted, other.receipted),
            lost_by_centre: of(self.lost_by_centre, other.lost_by_centre),
            batches: of(self.batches, other.batches),
            signed_now: of(self.signed_now, other.signed_now),
            refused: of(self.refused, other.refused),
            parked: of(self.parked, other.parked),
            faults: of(self.faults, other.faults),
            grants: of(self.grants, other.grants),
            bad_messages: of(self.bad_messages, other.bad_messages),
        }
    }

    /// Both together.
    pub(super) fn plus(&self, other: &Tally) -> Tally {
        self.each(other, |a, b| a + b)
    }

    /// What came on top of `before`.
    pub(super) fn minus(&self, before: &Tally) -> Tally {
        self.each(before, u64::saturating_sub)
    }
}

/// What is to be done after an event.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// To be published, in order.
    pub(super) send: Vec<Bytes>,
    /// Entries now proved to be in the ledger, as ranges.
    pub(super) confirmed: Vec<(Seq, Seq)>,
    /// By the centre's clock.
    pub(super) at: Millis,
    /// The connection serves no purpose any more.
    pub(super) hang_up: bool,
}

impl Agent {
    pub(super) fn new(
        key: SigningKey,
        certificate: Vec<u8>,
        (context, grant): (ContextNumber, SignedGrant),
        notebook: Notebook,
        centre: Centre,
        config: Config,
    ) -> Agent {
        let id = key.public().agent_id();
        let random = u32::from_le_bytes([id.0[0], id.0[1], id.0[2], id.0[3]]);
        let epoch = Epoch { counter: 1, random };
        let mut outbox = Outbox::new(id, epoch, None, config);
        outbox.speak_under(context);
        let mut agent = Agent {
            id,
            key,
            certificate,
            notebook,
            epoch,
            centre,
            outbox,
            context,
            grants: vec![grant],
            items: Vec::new(),
            written: 0,
            voids: BTreeSet::new(),
            signed: HashMap::new(),
            nonce: 0,
            introductions: 0,
            waiting: 0,
            clock_ahead: 0,
            tally: Tally::default(),
        };
        agent.items = (1..=agent.notebook.len()).filter_map(|seq| agent.item(seq)).collect();
        agent
    }

    fn item(&self, seq: Seq) -> Option<Item> {
        let body = self.notebook.body(seq)?;
        Some(Item {
            hash: entry_hash(self.id, self.epoch, seq, self.context, &body),
            context: self.context,
            bytes: u32::try_from(wire::encode(&body).len()).unwrap_or(u32::MAX),
            confirmed: false,
            void: false,
        })
    }

    /// Saves the next `entries` of the notebook.
    pub(super) fn write(&mut self, entries: u64) {
        self.save(entries, false);
    }

    /// Everything in the notebook has been received by the store `lost`, which is no more.
    pub(super) fn received_by(&mut self, lost: StoreId, config: Config) {
        let mut outbox = Outbox::new(self.id, self.epoch, Some(lost), config);
        outbox.speak_under(self.context);
        self.outbox = outbox;
        (self.written, self.waiting) = (0, 0);
        self.save(self.notebook.len(), true);
    }

    fn save(&mut self, entries: u64, confirmed: bool) {
        let end = (self.written + entries).min(self.notebook.len());
        for seq in self.written + 1..=end {
            let ready = usize::try_from(seq - 1).ok().and_then(|at| self.items.get(at)).copied();
            let item = match ready {
                Some(item) if item.context == self.context => Some(item),
                _ => self.item(seq),
            };
            let Some(item) = item else { break };
            self.outbox.add(self.epoch, seq, Item { confirmed, ..item });
            self.waiting += u64::from(!confirmed);
        }
        self.written = end;
    }

    /// Packs and signs in advance what the outbox will cut of `count` entries a batch, in the order in which
    /// it does.
    pub(super) fn sign_ahead(&mut self, count: usize) {
        self.signed = self.signed_ahead(count).into_iter().collect();
    }

    /// What [`Agent::sign_ahead`] makes: numbers and bytes of each batch.
    pub(super) fn signed_ahead(&self, count: usize) -> Vec<(Vec<Seq>, Bytes)> {
        let mut signed = Vec::new();
        let mut left: Vec<Seq> = (1..=self.notebook.len()).collect();
        while !left.is_empty() {
            // Number 1 goes first, then the newest.
            let mut seqs = if left[0] == 1 { vec![left.remove(0)] } else { Vec::new() };
            let more = count.saturating_sub(seqs.len()).min(left.len());
            seqs.extend(left.split_off(left.len() - more));
            let bytes = self.pack(&seqs, self.context, None);
            seqs.sort_unstable();
            signed.push((seqs, bytes));
        }
        signed
    }

    fn pack(&self, seqs: &[Seq], context: ContextNumber, hello: Option<Hello>) -> Bytes {
        let entry = |seq: &Seq| {
            let body = if self.voids.contains(seq) {
                Body::Void
            } else {
                self.notebook.body(*seq).unwrap_or(Body::Void)
            };
            Entry { seq: *seq, body }
        };
        let batch = Batch {
            agent: self.id,
            epoch: self.epoch,
            context,
            hello,
            entries: seqs.iter().map(entry).collect(),
        };
        Bytes::from(batch.seal(&self.key))
    }

    fn sealed(&mut self, cut: &Cut) -> Bytes {
        self.tally.batches += 1;
        let clock: Millis = jiff::Timestamp::now().into();
        let hello = cut.hello.map(|nonce| Hello {
            nonce,
            beacon: Beacon {
                version: (0, 1, 0),
                waiting: u32::try_from(self.waiting).unwrap_or(u32::MAX),
                oldest_waiting: None,
                refused: 0,
                clock_minute: u32::try_from(clock.plus(self.clock_ahead).0 / 60_000).unwrap_or(0),
                clock_trusted: true,
                free_disk_mib: 20_000,
                last_error: 0,
            },
            operating: Some(self.centre.key.tag()),
        });
        if hello.is_none()
            && let Some(bytes) = self.signed.get(&cut.seqs)
        {
            return bytes.clone();
        }
        self.tally.signed_now += 1;
        self.pack(&cut.seqs, cut.context, hello)
    }

    /// Entries typed.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Entries without a receipt.
    pub(super) fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Whether the hello was answered and nothing waits.
    pub(super) fn is_settled(&self) -> bool {
        self.outbox.is_answered() && self.waiting == 0
    }

    /// Whether this connection's hello was answered.
    pub(super) fn is_answered(&self) -> bool {
        self.outbox.is_answered()
    }

    /// When [`Agent::tick`] is due, by the clock that events are told.
    pub(super) fn wake_at(&self) -> Option<Millis> {
        self.outbox.wake_at()
    }

    pub(super) fn connected(&mut self, now: Millis, nonce: u64) -> Step {
        (self.nonce, self.introductions) = (nonce, 0);
        self.event(now, Event::Connected { nonce })
    }

    pub(super) fn disconnected(&mut self, now: Millis) {
        self.event(now, Event::Disconnected);
    }

    pub(super) fn tick(&mut self, now: Millis) -> Step {
        self.event(now, Event::Tick)
    }

    /// Takes a message in.
    pub(super) fn received(&mut self, now: Millis, message: &[u8]) -> Step {
        let taken = Envelope::read(message).and_then(|envelope| {
            if envelope.agent != self.id {
                return Err(wire::WireError::Malformed("the message is for another agent"));
            }
            match envelope.kind {
                Kind::Receipt => {
                    let receipt = Receipt::open(&envelope, &self.centre.key)?;
                    let mut step = self.event(now, Event::Receipt(&receipt));
                    step.at = receipt.time;
                    Ok(step)
                }
                Kind::Answer => {
                    let (answer, ..) = Answer::open_pinned(&envelope, &self.centre.root)?;
                    Ok(self.answer(now, answer))
                }
                other => Err(wire::WireError::Kind(other as u8)),
            }
        });
        taken.unwrap_or_else(|_| {
            self.tally.bad_messages += 1;
            Step::default()
        })
    }

    fn answer(&mut self, now: Millis, answer: Answer) -> Step {
        match answer {
            Answer::Granted { grant, .. } => {
                let context = grant.unverified().map(|grant| grant.offer.context);
                if let Ok(context) = context {
                    self.tally.grants += 1;
                    self.outbox.speak_under(context);
                    // What is typed from now on stands under it.
                    self.context = context;
                    self.grants.push(grant);
                }
                Step::default()
            }
            // The aggregator started here names no broker.
            Answer::Elsewhere { .. } => Step::default(),
            Answer::Certified { certificate, .. } => {
                self.certificate = certificate;
                Step::default()
            }
            Answer::NotEnrolled { .. } => {
                self.tally.faults += 1;
                Step { hang_up: true, ..Step::default() }
            }
            Answer::WhoAreYou { .. } => {
                self.introductions += 1;
                if self.introductions > INTRODUCTIONS_MAX {
                    return Step { hang_up: true, ..Step::default() };
                }
                let introduction = Introduction { grants: self.grants.clone(), nonce: self.nonce };
                let mut send = vec![Bytes::from(introduction.seal(&self.key))];
                let again = self.event(now, Event::Introduced);
                send.extend(again.send);
                Step { send, ..again }
            }
        }
    }

    fn event(&mut self, now: Millis, event: Event<'_>) -> Step {
        let mut step = Step::default();
        for effect in self.outbox.handle(now, event) {
            match effect {
                Effect::Send(cut) => step.send.push(self.sealed(&cut)),
                Effect::Confirm { ranges, .. } => {
                    for (first, last) in ranges {
                        self.waiting = self.waiting.saturating_sub(last - first + 1);
                        self.tally.receipted += last - first + 1;
                        step.confirmed.push((first, last));
                    }
                }
                Effect::Unconfirm { ranges, .. } => {
                    for (first, last) in ranges {
                        self.waiting += last - first + 1;
                        self.tally.receipted =
                            self.tally.receipted.saturating_sub(last - first + 1);
                        self.tally.lost_by_centre += last - first + 1;
                    }
                }
                Effect::Refused { seq, .. } => {
                    self.tally.refused += 1;
                    self.voids.insert(seq);
                }
                Effect::Parked { parked, .. } => self.tally.parked += parked.len() as u64,
                Effect::Renumber { .. } | Effect::NewLife { .. } => self.tally.faults += 1,
                // This one has a line, and writes no bundles.
                Effect::Store(_) | Effect::Carried(_) => {}
            }
        }
        step
    }
}
