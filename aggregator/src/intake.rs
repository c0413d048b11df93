//! The intake: takes messages in, judges, commits and answers, in rounds.
//!
//! One task owns the order of everything that changes the ledger. It judges all messages that have come
//! meanwhile, opened ahead by a thread of their own (`opening`), commits what is new as one, and only when that is on disk counts it and sends receipts: a
//! receipt is never sent before its commit, and nothing is judged on top of what may still fail. A failed
//! commit is undone in memory and answers nothing; the agents send again. Operators' acts go through the
//! same task, one commit each; what an act asks for (the scopes under a new registry, say) is stored in the
//! same turn, whether whoever asked still waits or not. An act that is stored and cannot be folded ends the
//! intake: what would be judged next is not what the ledger says. Bundles go through the same rounds, and their
//! answers into a file (`by_hand`).

mod allowance;
mod by_hand;
mod opening;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use anyhow::{Context as _, Result, anyhow};
use banyan_shared::ids::{AgentId, Millis, Seq};
use banyan_shared::keys::PublicKey;
use banyan_shared::period::Date;
use banyan_shared::wire::{
    Answer, EnrolRefusal, EnrolRequest, Envelope, HashedBatch, Receipt, SignedGrant, WireError,
};
use tokio::sync::{mpsc, oneshot, watch};

pub use by_hand::{BundleRequest, Delivered};
use opening::{Opened, Opening};

use crate::act::{Act, SignedAct};
use crate::broker::{DownError, Downlink, Incoming, Permit};
use crate::identity::{GRACE_MS, Identity, IssuedCertificate, VALIDITY_MS, store_id};
use crate::ledger::{Committed, LedgerHandle, NewRow};
use crate::roll::Roll;
use crate::seldom::Seldom;
use crate::state::{Judgement, Refusals, State};

/// Messages judged before a commit is begun.
const ROUND_MESSAGES_MAX: usize = 2048;
/// Bytes of their payloads beyond which no more are taken into a round: read, they are a hundred times as large, and
/// three rounds are under way at once.
const ROUND_BYTES_MAX: usize = 256 * 1024;
/// Batches an agent may have in flight.
const CREDIT: u16 = 4;
/// How often parked entries are judged again without any change: a new day may have begun.
const REJUDGE_EVERY: std::time::Duration = std::time::Duration::from_secs(60);

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What came in and what became of it, since the start.
        #[derive(Debug, Default)]
        pub struct IntakeCounters { $($(#[$doc])* pub $name: AtomicU64,)* }

        impl IntakeCounters {
            /// Names and values.
            pub fn values(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Ordering::Relaxed)),)*]
            }
        }
    };
}

counters! {
    /// Messages taken from the broker.
    messages,
    /// Messages that were no messages of ours.
    malformed,
    /// Signatures that were not the sender's.
    bad_signature,
    /// Batches of agents not known here.
    unknown_agent,
    /// Batches of revoked agents.
    revoked,
    /// Batches put into the ledger.
    batches,
    /// Entries put into the ledger.
    entries,
    /// Batches that held nothing new.
    duplicates,
    /// Entries that came again.
    repeated,
    /// Batches not taken because their agent has brought more than any queue holds.
    over_allowance,
    /// Entries refused.
    refused,
    /// Numbers that came again with other content.
    reused,
    /// Receipts sent.
    receipts,
    /// Commits that failed.
    failed_commits,
    /// Requests to be enrolled that were refused.
    enrolments_refused,
    /// Certificates issued.
    certificates,
    /// Agents sent a new operating key.
    hand_overs,
    /// Grants shown that a replaced operating key has signed and nothing here knows of.
    outdated_grants,
    /// Answers the way down did not take.
    not_taken,
}

fn count(counter: &AtomicU64, n: usize) {
    counter.fetch_add(u64::try_from(n).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// The state, shared by the intake (which alone changes it) and the queries.
#[derive(Clone)]
pub struct SharedState(Arc<RwLock<State>>);

impl SharedState {
    /// Wraps a state.
    pub fn new(state: State) -> SharedState {
        SharedState(Arc::new(RwLock::new(state)))
    }

    /// To look. A query sees whole commits.
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        // A panic while folding leaves a state that `verify` would tell; the lock itself stays usable.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The clock, as the intake and the service see it.
pub type Clock = Arc<dyn Fn() -> Millis + Send + Sync>;

/// Builds an act from the present state, or says why not.
pub type ActBuilder = Box<dyn FnOnce(&State) -> Result<Vec<Act>> + Send>;

/// An operator's request for acts.
pub struct ActRequest {
    /// Who asks.
    pub by: String,
    /// Builds the acts once everything before has been folded in.
    pub build: ActBuilder,
    /// Told when they are on disk and in force.
    pub reply: oneshot::Sender<Result<()>>,
}

/// What the intake is asked for beside the messages that come in by themselves.
pub enum Ask {
    /// To store acts.
    Acts(ActRequest),
    /// To take a bundle in.
    Bundle(BundleRequest),
}

/// What the intake works with.
pub struct Intake {
    state: SharedState,
    identity: Arc<Identity>,
    ledger: LedgerHandle,
    down: Arc<dyn Downlink>,
    /// A bundle is being taken in: what is said goes into a file, and what its agent says of itself is old.
    by_hand: bool,
    roll: Arc<Roll>,
    opening: Arc<Opening>,
    clock: Clock,
    counters: Arc<IntakeCounters>,
    allowances: Mutex<allowance::Allowances>,
    told: Told,
    /// Why nothing more may be judged.
    broken: OnceLock<String>,
}

/// What whoever can reach the intake can make it tell, so that it is told once in a while.
#[derive(Default)]
struct Told {
    dropped: Seldom,
    over_allowance: Seldom,
    reused: Seldom,
    not_enrolled: Seldom,
    turned_away: Seldom,
}

/// Whether to send the newest grant if a batch was not written under it, and when.
///
/// An agent that stays connected is told once; a hello asks anew. Before the receipt, for with that in hand who has
/// nothing else to do hangs up. But a grant may hold a catalogue, and a line that breaks under it each time would
/// never bring the receipt: so it goes after the receipt where it has been sent in vain, and before it again the
/// time after.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Offer {
    No,
    First,
    Last,
}

/// A batch on its way to the ledger, or one that only wants its receipt.
struct Work {
    batch: HashedBatch,
    stored: bool,
    refused: Refusals,
    added: Vec<Seq>,
    offer: Offer,
    _permit: Option<Permit>,
}

impl Intake {
    /// An intake over a state that has been folded up to the ledger's end.
    pub fn new(
        state: SharedState,
        identity: Arc<Identity>,
        ledger: LedgerHandle,
        down: Arc<dyn Downlink>,
        clock: Clock,
    ) -> Intake {
        let (counters, told, broken, allowances) = Default::default();
        let roll = Arc::new(Roll::new(&state.read()));
        let by_hand = false;
        let opening = Arc::new(Opening::new(roll.clone(), identity.clone()));
        Intake {
            state,
            identity,
            ledger,
            down,
            by_hand,
            roll,
            opening,
            clock,
            counters,
            told,
            broken,
            allowances,
        }
    }

    /// Who may connect, kept up to date by this intake.
    pub fn roll(&self) -> Arc<Roll> {
        self.roll.clone()
    }

    /// The counters.
    pub fn counters(&self) -> Arc<IntakeCounters> {
        self.counters.clone()
    }

    /// Works until both queues are closed. `stop` closes the queue of acts; that of the messages closes
    /// with the broker.
    ///
    /// # Errors
    /// If an act is in the ledger that cannot be folded in, or messages can no longer be opened.
    pub async fn run(
        mut self,
        incoming: mpsc::Receiver<Incoming>,
        mut acts: mpsc::Receiver<Ask>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<()> {
        let mut rounds = self.opening.clone().ahead(incoming)?;
        let mut rejudge = tokio::time::interval(REJUDGE_EVERY);
        let mut day = None;
        let (mut batches_open, mut acts_open, mut stopping) = (true, true, false);
        while batches_open || acts_open {
            // Acts first: they are rare, and a herd of agents must not keep an operator waiting.
            tokio::select! {
                biased;
                () = told(&mut stop), if !stopping => {
                    stopping = true;
                    acts.close();
                }
                request = acts.recv(), if acts_open => match request {
                    None => acts_open = false,
                    Some(Ask::Bundle(request)) => {
                        let delivered = self.bundle(request.agent, request.messages).await;
                        // What could not be folded in is not called delivered: the intake ends. Else as with
                        // acts.
                        if self.broken.get().is_none() {
                            let _ = request.reply.send(delivered);
                        }
                    }
                    Some(Ask::Acts(request)) => {
                        let result = self.act(&request.by, request.build).await;
                        // Whoever asked may have gone away; the act stands.
                        let _ = request.reply.send(result);
                    }
                },
                _ = rejudge.tick() => self.look_around(&mut day).await,
                round = rounds.next(), if batches_open => match round? {
                    None => batches_open = false,
                    Some(opened) => self.round(opened).await,
                },
            }
            if let Some(why) = self.broken.get() {
                return Err(anyhow!("{why}"));
            }
        }
        Ok(())
    }

    /// Releases what time alone has settled, and on a new day gives agents enrolled by a rule the
    /// facilities that have opened under it.
    async fn look_around(&self, day: &mut Option<Date>) {
        let now = (self.clock)();
        let released = self.state.write().rejudge(now);
        if released > 0 {
            tracing::info!(released, "parked entries are counted now");
        }
        let today = self.state.read().catalogue.day_at(now);
        if day.replace(today) == Some(today) {
            return;
        }
        let incarnation = self.ledger.identity().incarnation;
        let build: ActBuilder = Box::new(move |state| Ok(state.scope_updates(incarnation, today)));
        if let Err(error) = self.act("service", build).await {
            tracing::error!(%error, "scopes by rule could not be brought up to date");
        }
    }

    /// Judges messages, commits what is new, and answers.
    async fn round(&self, opened: Vec<Opened>) {
        count(&self.counters.messages, opened.len());
        let mut works = Vec::new();
        let mut rows = Vec::new();
        for opened in opened {
            if self.broken.get().is_some() {
                return;
            }
            let opened = match opened {
                Opened::NotLetIn(message) => self.open_now(message),
                opened => opened,
            };
            match opened {
                Opened::Batch(batch, bytes, permit) => {
                    if let Some(work) = self.judge(batch, permit) {
                        if work.stored {
                            let refused = if work.refused.is_empty() {
                                Vec::new()
                            } else {
                                banyan_shared::wire::encode(&work.refused)
                            };
                            rows.push(NewRow { refused, ..NewRow::batch(bytes) });
                        }
                        works.push(work);
                    }
                }
                Opened::Enrol(agent, request) => {
                    self.commit(&mut works, &mut rows).await;
                    self.enrol(agent, request).await;
                }
                Opened::Introduce(agent, grants) => {
                    self.commit(&mut works, &mut rows).await;
                    self.readmit(agent, grants).await;
                }
                Opened::Bad(agent, error) => self.drop_bad(agent, &error),
                Opened::NotLetIn(message) => self.turn_away(message.agent),
            }
        }
        self.commit(&mut works, &mut rows).await;
    }

    /// Opens a batch of an agent that was not let in when it was looked at ahead.
    fn open_now(&self, message: Incoming) -> Opened {
        let key = self.state.read().agents.get(&message.agent).map(|agent| agent.key);
        self.opening.open_by(message, key)
    }

    /// A batch of an agent that is not known here.
    fn turn_away(&self, agent: AgentId) {
        count(&self.counters.unknown_agent, 1);
        self.answer(agent, &Answer::WhoAreYou { contexts: Vec::new() });
    }

    fn drop_bad(&self, agent: AgentId, error: &WireError) {
        let counter = match error {
            WireError::Key(_) => &self.counters.bad_signature,
            _ => &self.counters.malformed,
        };
        count(counter, 1);
        if let Some(since) = self.told.dropped.due((self.clock)()) {
            tracing::warn!(%agent, %error, since, "message dropped");
        }
    }

    /// Commits the rows as one, then counts and answers. Nothing is judged meanwhile: what is judged next
    /// builds on what is on disk, so that folding the ledger again gives the very same.
    async fn commit(&self, works: &mut Vec<Work>, rows: &mut Vec<NewRow>) {
        if works.is_empty() {
            return;
        }
        let works = std::mem::take(works);
        let rows = std::mem::take(rows);
        let committed = if rows.is_empty() {
            None
        } else {
            match self.ledger.commit(rows).await {
                Ok(committed) => Some(committed),
                Err(error) => return self.undo(&works, &error.to_string()),
            }
        };
        self.complete(works, committed);
    }

    /// Decides what becomes of a batch and notes it in the inbox ahead of the commit.
    fn judge(&self, batch: HashedBatch, permit: Permit) -> Option<Work> {
        let agent = batch.agent;
        let mut state = self.state.write();
        if let (Some(hello), Some(known)) = (&batch.hello, state.agents.get_mut(&agent)) {
            let certificate = &self.identity.certificate;
            let knows = certificate.serial <= 1 || hello.operating == Some(certificate.key.tag());
            if self.by_hand {
                // Written some time ago: what the agent says of itself there may be outdated by now.
                known.knows_key = Some(knows || known.knows_key == Some(true));
            } else {
                known.beacon = Some(((self.clock)(), hello.beacon.clone()));
                known.nonce = Some(hello.nonce);
                known.knows_key = Some(knows);
                state.heard += 1;
            }
        }
        match state.judge(&batch) {
            Judgement::UnknownContext(context) => {
                count(&self.counters.unknown_agent, 1);
                self.answer(agent, &Answer::WhoAreYou { contexts: vec![context] });
                None
            }
            Judgement::Revoked => {
                count(&self.counters.revoked, 1);
                let refusal = EnrolRefusal::AgentRevoked;
                self.answer(agent, &Answer::NotEnrolled { refusal });
                None
            }
            Judgement::Answer { store: true, .. }
                if !self.by_hand && !self.is_allowed(agent, batch.entries.len()) =>
            {
                None
            }
            Judgement::Answer { store, refused, reused } => {
                if !reused.is_empty() {
                    count(&self.counters.reused, reused.len());
                    if let Some(since) = self.told.reused.due((self.clock)()) {
                        tracing::warn!(%agent, ?reused, since, "numbers came again with other content: two machines use one identity");
                    }
                    if let Some(known) = state.agents.get_mut(&agent) {
                        known.reused += u64::try_from(reused.len()).unwrap_or(u64::MAX);
                    }
                }
                count(&self.counters.refused, refused.len());
                let added = if store { state.hold(&batch, &refused) } else { Vec::new() };
                let mut offer = if batch.hello.is_some() { Offer::First } else { Offer::No };
                if let Some(known) = state.agents.get_mut(&agent)
                    && known.newest != batch.context
                    // It may be connected, and never see what goes into a file.
                    && !self.by_hand
                {
                    if known.offered != Some(known.newest) {
                        known.offered = Some(known.newest);
                        offer = Offer::First;
                    } else if batch.hello.is_some() {
                        // It did not arrive.
                        known.offered = None;
                        offer = Offer::Last;
                    }
                }
                if !store && !batch.entries.is_empty() {
                    count(&self.counters.duplicates, 1);
                }
                let other = added.len() + refused.len() + reused.len();
                count(&self.counters.repeated, batch.entries.len().saturating_sub(other));
                let stored = store;
                Some(Work { batch, stored, refused, added, offer, _permit: Some(permit) })
            }
        }
    }

    /// Whether an agent may bring so many new entries now. If not, nothing is answered: it asks again.
    fn is_allowed(&self, agent: AgentId, entries: usize) -> bool {
        let now = (self.clock)();
        // A map of numbers: whatever panicked while it was held has not left it half made.
        let mut allowances = self.allowances.lock().unwrap_or_else(PoisonError::into_inner);
        let allowed = allowances.takes(agent, entries, now);
        if !allowed {
            count(&self.counters.over_allowance, 1);
            if let Some(since) = self.told.over_allowance.due(now) {
                tracing::warn!(%agent, since, "brings more new entries than any queue holds: not taken for now; revoke it if its key may be stolen");
            }
        }
        allowed
    }

    /// Counts what is on disk now and sends the receipts.
    fn complete(&self, works: Vec<Work>, committed: Option<Committed>) {
        let now = (self.clock)();
        let mut positions = committed.as_ref().map_or(0..0, |c| c.positions.clone());
        let received_at = committed.as_ref().map_or(now, |c| c.received_at);
        let mut receipts = Vec::with_capacity(works.len());
        {
            let mut state = self.state.write();
            for work in works {
                let asked = Asked::of(&work);
                if work.stored {
                    count(&self.counters.batches, 1);
                    count(&self.counters.entries, work.added.len());
                    let position = positions.next().unwrap_or(state.position);
                    let Work { batch, added, refused, .. } = work;
                    state.apply_batch(batch, &added, &refused, position, received_at);
                }
                receipts.push(asked);
            }
        }
        let state = self.state.read();
        // A signature each: an agent's are told on one core, in order.
        opening::on_every_core_by(
            &receipts,
            |asked| usize::from(asked.agent.0[0]),
            |asked| self.receipt(&state, asked, now),
        );
    }

    fn receipt(&self, state: &State, asked: &Asked, now: Millis) {
        let Some(agent) = state.agents.get(&asked.agent) else { return };
        // The hand-over: a grant under the new key, before what only that key proves.
        let hand_over = asked.hello.is_some() && agent.knows_key == Some(false);
        if hand_over {
            count(&self.counters.hand_overs, 1);
        }
        let is_offered = |when| asked.offer == when && asked.context != agent.newest;
        if hand_over || is_offered(Offer::First) {
            self.grant(state, asked.agent, Some(asked.context));
        }
        // Before the receipt too.
        if asked.hello.is_some() {
            self.direct(asked.agent);
        }
        let (lives, complete) = match asked.hello {
            Some(_) => agent.inbox.all(),
            None => (vec![agent.inbox.of(asked.epoch, &asked.sent)], false),
        };
        let receipt = Receipt {
            store: store_id(&self.ledger.identity()),
            position: state.position,
            lives,
            complete,
            // Only over a line is there a hello that these belong to.
            answers: asked.hello.or(agent.nonce.filter(|_| !self.by_hand)),
            time: now,
            credit: CREDIT,
        };
        count(&self.counters.receipts, 1);
        self.send(asked.agent, receipt.seal(asked.agent, &self.identity.key));
        if !hand_over && is_offered(Offer::Last) {
            self.grant(state, asked.agent, Some(asked.context));
        }
    }

    /// Tells an agent where it should rather connect, if elsewhere than where it is.
    fn direct(&self, agent: AgentId) {
        if let Some(address) = self.down.elsewhere(agent) {
            self.answer(agent, &Answer::Elsewhere { address: address.to_owned() });
        }
    }

    /// Sends an agent its newest grant, with the catalogue if it may not have it.
    fn grant(&self, state: &State, id: AgentId, has: Option<u32>) {
        let Some(agent) = state.agents.get(&id) else { return };
        let Some(offer) = state.offer(agent.newest) else { return };
        let known = has.and_then(|context| state.contexts.get(&context)).map(|c| c.catalogue);
        let catalogue = if known == Some(offer.catalogue) {
            None
        } else {
            state.catalogues.get(&offer.catalogue).map(|held| held.compressed.clone())
        };
        let grant = banyan_shared::wire::Grant {
            key: agent.key,
            offer,
            issued_at: (self.clock)(),
            succeeds: agent.succeeds,
        };
        let grant = SignedGrant::sign(&grant, &self.identity.key, &self.identity.certificate);
        self.answer(id, &Answer::Granted { grant, catalogue });
    }

    fn undo(&self, works: &[Work], error: &str) {
        count(&self.counters.failed_commits, 1);
        tracing::error!(%error, "a commit failed; nothing of it is receipted, the agents will send again");
        let mut state = self.state.write();
        for work in works {
            if let Some(agent) = state.agents.get_mut(&work.batch.agent) {
                for seq in &work.added {
                    agent.inbox.forget(work.batch.epoch, *seq);
                }
                if work.offer != Offer::No {
                    // Not sent: it is offered again.
                    agent.offered = None;
                }
            }
        }
    }

    /// Stores an operator's acts and puts them in force, and then what they ask for.
    async fn act(&self, by: &str, build: ActBuilder) -> Result<()> {
        let acts = {
            let state = self.state.read();
            build(&state)?
        };
        let all = acts.iter().any(|act| matches!(act, Act::Tables(_) | Act::Catalogue { .. }));
        let admitted: Vec<AgentId> = acts
            .iter()
            .filter_map(|act| match act {
                Act::Admitted { key, .. } => Some(key.agent_id()),
                _ => None,
            })
            .collect();
        let stored = self.store(by, acts).await;
        if self.broken.get().is_none() {
            self.renew(all, &admitted).await;
        }
        stored
    }

    /// Stores acts, each in a commit of its own, and puts them in force.
    async fn store(&self, by: &str, acts: Vec<Act>) -> Result<()> {
        for act in acts {
            let signed = SignedAct { by: by.to_owned(), at: (self.clock)(), act };
            let bytes = signed.seal(&self.identity.key);
            let committed = self.ledger.commit(vec![NewRow::act(bytes)]).await?;
            let position = committed.positions.start;
            let mut state = self.state.write();
            let folded = state.apply_act(&signed, position, committed.received_at);
            if let Err(error) = folded {
                let why =
                    format!("the act at ledger position {position} cannot be folded: {error}");
                tracing::error!("{why}; nothing more is taken in");
                let _ = self.broken.set(why);
                return Err(error).context("the act is stored, but could not be put in force");
            }
            self.roll.note(&signed.act, &state);
        }
        Ok(())
    }

    /// Gives agents the facilities and the catalogue in force, where theirs are others: all of them, or those
    /// just admitted, perhaps with a code that was made earlier.
    async fn renew(&self, all: bool, admitted: &[AgentId]) {
        let incarnation = self.ledger.identity().incarnation;
        let acts = {
            let state = self.state.read();
            let day = state.catalogue.day_at((self.clock)());
            if all {
                state.scope_updates(incarnation, day)
            } else {
                let each = admitted.iter().map(|id| state.scope_update(incarnation, day, *id));
                each.flatten().collect()
            }
        };
        if let Err(error) = self.store("service", acts).await {
            tracing::error!(%error, "scopes could not be brought up to date");
        }
    }

    async fn enrol(&self, agent: AgentId, request: EnrolRequest) {
        let now = (self.clock)();
        let decision = self.state.read().admission(&request, now);
        match decision {
            Err(refusal) => {
                count(&self.counters.enrolments_refused, 1);
                if let Some(since) = self.told.not_enrolled.due(now) {
                    tracing::warn!(%agent, code = request.code, %refusal, since, "enrolment refused");
                }
                self.answer(agent, &Answer::NotEnrolled { refusal });
            }
            Ok(None) => {
                // Enrolled before, with this very key and code: its answer was lost.
                self.welcome(agent, None);
            }
            Ok(Some(act @ Act::Claimed { .. })) => {
                match self.act("service", Box::new(move |_| Ok(vec![act]))).await {
                    Ok(()) => {
                        tracing::info!(%agent, code = request.code, "a claim waits for an operator");
                        let refusal = EnrolRefusal::Waiting;
                        self.answer(agent, &Answer::NotEnrolled { refusal });
                    }
                    Err(error) => self.not_stored(agent, "a claim", &error),
                }
            }
            Ok(Some(act)) => match self.act("service", Box::new(move |_| Ok(vec![act]))).await {
                Ok(()) => {
                    tracing::info!(%agent, code = request.code, "agent enrolled");
                    self.welcome(agent, None);
                }
                Err(error) => self.not_stored(agent, "an enrolment", &error),
            },
        }
    }

    fn not_stored(&self, agent: AgentId, what: &str, error: &anyhow::Error) {
        count(&self.counters.failed_commits, 1);
        tracing::error!(%agent, %error, "{what} could not be stored");
    }

    /// Gives an agent its newest grant and a certificate over its key.
    fn welcome(&self, agent: AgentId, has: Option<u32>) {
        let state = self.state.read();
        self.grant(&state, agent, has);
        // Before the certificate: with that in hand, a first contact hangs up.
        self.direct(agent);
        let Some(known) = state.agents.get(&agent) else { return };
        match self.identity.ca.certify(&known.key, (self.clock)()) {
            Ok(IssuedCertificate { certificate, renew_from, expires }) => {
                count(&self.counters.certificates, 1);
                self.answer(agent, &Answer::Certified { certificate, renew_from, expires });
            }
            Err(error) => tracing::error!(%agent, %error, "a certificate could not be issued"),
        }
    }

    /// Why an agent that introduces itself is not taken back, if it is not.
    fn turned_away(&self, state: &State, agent: AgentId) -> Option<EnrolRefusal> {
        let known = state.agents.get(&agent)?;
        if known.revoked.is_some() {
            return Some(EnrolRefusal::AgentRevoked);
        }
        let heard = known
            .admitted_at
            .max(known.newest_at)
            .max(known.last_receipt.unwrap_or(known.admitted_at));
        let lapsed = heard.plus(VALIDITY_MS + GRACE_MS) < (self.clock)();
        lapsed.then_some(EnrolRefusal::Lapsed)
    }

    /// That an agent is not known here and shows only grants by an operating key since replaced: whoever
    /// stole that one could write them for anybody.
    fn outdated(
        &self,
        state: &State,
        agent: AgentId,
        grants: &[SignedGrant],
    ) -> Option<EnrolRefusal> {
        let known = state.agents.contains_key(&agent);
        if known || grants.iter().any(|grant| !self.identity.is_outdated(&grant.certificate)) {
            return None;
        }
        count(&self.counters.outdated_grants, 1);
        Some(EnrolRefusal::OutdatedGrant)
    }

    /// Whether a grant that an agent shows says something new that may be believed. One by an operating key
    /// since replaced says what its context meant, of which reports may still wait, but gives no facility
    /// that the agent does not have: whoever stole the key could have written it.
    fn adds(&self, state: &State, agent: AgentId, signed: &SignedGrant) -> bool {
        let Ok(grant) = signed.unverified() else { return false };
        let known = state.agents.get(&agent);
        if known.is_some_and(|known| known.contexts.contains(&grant.offer.context)) {
            return false;
        }
        if !self.identity.is_outdated(&signed.certificate) {
            return true;
        }
        let has = known.and_then(|known| state.contexts.get(&known.newest));
        has.is_some_and(|has| {
            let mut facilities = grant.offer.facilities.iter();
            facilities.all(|scope| has.facilities.contains(&scope.code))
        })
    }

    async fn readmit(&self, agent: AgentId, grants: Vec<SignedGrant>) {
        // A grant was kept with its catalogue.
        let has = grants.iter().filter_map(|grant| Some(grant.unverified().ok()?.offer.context));
        let has = has.max();
        let acts: Vec<Act> = {
            let state = self.state.read();
            let turned_away = self.turned_away(&state, agent);
            if let Some(refusal) = turned_away.or_else(|| self.outdated(&state, agent, &grants)) {
                if let Some(since) = self.told.turned_away.due((self.clock)()) {
                    tracing::warn!(%agent, %refusal, since, "an agent that introduced itself was turned away");
                }
                self.answer(agent, &Answer::NotEnrolled { refusal });
                return;
            }
            grants
                .into_iter()
                .filter(|signed| self.adds(&state, agent, signed))
                .map(|grant| Act::Readmitted { grant })
                .collect()
        };
        if !acts.is_empty() {
            match self.act("service", Box::new(move |_| Ok(acts))).await {
                Ok(()) => tracing::info!(%agent, "agent readmitted by its grant"),
                Err(error) => self.not_stored(agent, "a grant", &error),
            }
        }
        // The agent sends its hello again when it hears from us.
        self.welcome(agent, has);
    }

    fn answer(&self, agent: AgentId, answer: &Answer) {
        let Identity { key, certificate, root, .. } = &*self.identity;
        self.send(agent, answer.seal(agent, key, certificate, root));
    }

    fn send(&self, agent: AgentId, bytes: Vec<u8>) {
        match self.down.publish_down(agent, bytes.into()) {
            Ok(()) => {}
            Err(error @ DownError::TooLarge { .. }) => {
                count(&self.counters.not_taken, 1);
                tracing::error!(%agent, %error, "an answer is too large to be sent");
            }
            Err(error) => {
                count(&self.counters.not_taken, 1);
                tracing::debug!(%agent, %error, "answer not taken; the agent will ask again");
            }
        }
    }
}

/// What a receipt has to speak of.
struct Asked {
    agent: AgentId,
    epoch: banyan_shared::ids::Epoch,
    context: u32,
    /// Numbers and hashes of its entries.
    sent: Vec<(Seq, u64)>,
    hello: Option<u64>,
    offer: Offer,
}

impl Asked {
    fn of(work: &Work) -> Asked {
        let batch = &work.batch;
        Asked {
            agent: batch.agent,
            epoch: batch.epoch,
            context: batch.context,
            sent: batch.hashed().map(|(entry, hash)| (entry.seq, hash)).collect(),
            hello: batch.hello.as_ref().map(|hello| hello.nonce),
            offer: work.offer,
        }
    }
}

/// Waits until `stop` says so, or whoever could say it is gone.
pub(crate) async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Verifies that `key` signed the act stored in `bytes`.
///
/// # Errors
/// [`WireError`] if it did not.
pub fn verify_act(bytes: &[u8], key: &PublicKey) -> Result<(), WireError> {
    Envelope::read_unbounded(bytes)?.open(key).map(|_| ())
}
