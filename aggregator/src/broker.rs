//! The bus inside the aggregator: `rumqttd`'s router without a listener, reached by four links of our own.
//!
//! Two lanes, each a pair of links on threads of their own: *up* from the door to the intake, *down* from the
//! intake to the door's sessions. A lane promises order and that nothing is skipped while both ends live:
//!
//! - `rumqttd` drops the oldest messages in silence when a reader falls behind its log. So a message enters a
//!   lane only with credit for its bytes, the credit comes back when the reader has done with it, and all
//!   credit together is smaller than the log.
//! - Every message leaves a ticket in order; what comes out is held against it and against the log's own
//!   offsets. A skip is counted, told, its credit given back and the lane goes on; a message out of place
//!   ends the broker.
//! - After `Unschedule` a link has to say `ready`, and never once it is gone: that would end the router's
//!   thread. Only the draining thread says either, and it is the one that ends its link.
//! - A message to itself every minute proves that the router lives. If it does not, or a link is gone, the
//!   broker reports a [`BrokerFault`] and the process has to end: nothing here restarts a router.
//!
//! The rest of the aggregator sees [`Incoming`] and [`Downlink`] only, so that an external broker
//! ([`external`]) can stand beside this one: its messages come in by an [`Inlet`], under the same credit. The
//! router's thread ends with the process (it holds a sender to itself).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use banyan_shared::ids::AgentId;
use banyan_shared::limits::PAYLOAD_BYTES_MAX;
use banyan_shared::topic::{self, DOWN_FILTER, Direction, UP_FILTER};
use bytes::Bytes;
use rumqttd::local::{LinkBuilder, LinkError, LinkRx, LinkTx};
use rumqttd::protocol::{Disconnect, DisconnectReasonCode, Packet, Publish};
use rumqttd::{Notification, Router, RouterConfig};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc, watch};

use crate::front_door::Registry;

pub mod external;

/// What a message costs besides its payload, in bytes of credit: its topic and the log's bookkeeping.
pub const MESSAGE_COST_BYTES: usize = 64;

/// Messages put to the router in one go.
const BATCH_MESSAGES_MAX: usize = 128;
/// The router's limit on what one read takes for a link.
const READ_MESSAGES_MAX: u64 = 190;
/// How long a link may take to come up at start.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Silent watchdog rounds in a row that mean that the router is gone.
const SILENT_ROUNDS_MAX: u32 = 2;

/// The sizes of the embedded broker.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// A segment of a lane's log, in bytes.
    pub segment_bytes: usize,
    /// Segments a lane's log keeps.
    pub segments: usize,
    /// Bytes that may be between the door and the end of the intake's work on them.
    pub credit_up_bytes: usize,
    /// Bytes that may be between the intake and the sessions' queues.
    pub credit_down_bytes: usize,
    /// How often the router has to prove that it lives.
    pub watchdog: Duration,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 1024 * 1024,
            segments: 17,
            credit_up_bytes: 8 * 1024 * 1024,
            credit_down_bytes: 8 * 1024 * 1024,
            watchdog: Duration::from_secs(60),
        }
    }
}

/// Why the broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The sizes do not fit each other.
    #[error("broker: {what} is {value} bytes, allowed are {low} to {high}")]
    Config {
        /// The setting.
        what: &'static str,
        /// Its value.
        value: usize,
        /// The least allowed.
        low: usize,
        /// The most allowed.
        high: usize,
    },
    /// A link to the router did not come up.
    #[error("broker: link {link} did not come up: {reason}")]
    Link {
        /// The link's name.
        link: &'static str,
        /// What the router said.
        reason: String,
    },
    /// The system gave no thread.
    #[error("broker: no thread for {link}: {source}")]
    Thread {
        /// What the thread was for.
        link: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Why a running broker ended. The process has to end with it, so that its supervisor starts a new one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerFault {
    /// A link is gone: the router has ended or has thrown it out.
    #[error(
        "the broker's link {0} is gone（消息代理内部链路已断）: {1}; the process has to be restarted"
    )]
    LinkGone(&'static str, String),
    /// The router did not answer the watchdog.
    #[error("the broker's router is silent（消息代理没有响应）; the process has to be restarted")]
    Silent,
    /// A message came out of its place.
    #[error(
        "the broker's lane {0} lost its order（消息顺序错乱）; the process has to be restarted"
    )]
    OutOfOrder(&'static str),
    /// One of our threads panicked.
    #[error(
        "the broker's thread {0} panicked（消息代理线程异常）; the process has to be restarted"
    )]
    Panicked(&'static str),
}

/// A message from an agent.
#[derive(Debug)]
pub struct Incoming {
    /// Whose topic it came on. With the loopback entry this is what the client said it is; the signature
    /// in the payload is what counts.
    pub agent: AgentId,
    /// The message as sent.
    pub payload: Bytes,
    /// Credit for its bytes; drop it when the work on the message is done.
    pub permit: Permit,
}

/// Credit held by a message, given back when dropped: of the lane, and of its agent's share.
#[derive(Debug)]
pub struct Permit {
    _lane: OwnedSemaphorePermit,
    _share: Option<OwnedSemaphorePermit>,
}

impl Permit {
    /// A share of nothing, for a message that came by no broker.
    pub(crate) fn alone() -> Permit {
        let one = Arc::new(Semaphore::new(1));
        let lane = one.try_acquire_owned().expect("nobody else has this semaphore");
        Permit { _lane: lane, _share: None }
    }
}

/// Why a message to an agent was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DownError {
    /// The way down is full; the agent will ask again.
    #[error("the way to the agents is full")]
    Full,
    /// The message is larger than an agent takes.
    #[error("the message has {bytes} bytes, more than the {PAYLOAD_BYTES_MAX} an agent takes")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The broker has ended.
    #[error("the broker has ended")]
    Closed,
    /// The external broker is not connected.
    #[error("the external broker is not connected")]
    Away,
}

/// The way to the agents, whichever broker carries it.
pub trait Downlink: Send + Sync {
    /// Sends `payload` to `agent` if it is connected. Never waits; an error says that it was not taken, `Ok`
    /// only that it was: receipts repeat until they are seen.
    fn publish_down(&self, agent: AgentId, payload: Bytes) -> Result<(), DownError>;

    /// Where the agent should rather connect than where it is now, if anywhere.
    fn elsewhere(&self, _agent: AgentId) -> Option<&str> {
        None
    }
}

/// Counters of one lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneValues {
    /// Messages put to the router.
    pub published: u64,
    /// Messages that came out.
    pub delivered: u64,
    /// Messages the router skipped: 0 unless a promise above is broken.
    pub skipped: u64,
    /// Watchdog messages that came out.
    pub pings: u64,
    /// Credit in use, in bytes.
    pub credit_used_bytes: u64,
}

#[derive(Debug, Default)]
struct LaneCounters {
    published: AtomicU64,
    delivered: AtomicU64,
    skipped: AtomicU64,
    pings: AtomicU64,
}

/// What goes into a lane.
enum Item {
    Message { agent: AgentId, payload: Bytes, permit: Permit },
    Ping,
    Stop,
}

/// What a message leaves behind when it goes to the router, in order.
enum Ticket {
    Message { agent: AgentId, permit: Permit },
    Ping,
    Stop,
}

/// One direction through the router.
#[derive(Clone)]
struct Lane {
    queue: mpsc::Sender<Item>,
    credit: Arc<Semaphore>,
    credit_bytes: usize,
    counters: Arc<LaneCounters>,
}

impl Lane {
    fn values(&self) -> LaneValues {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LaneValues {
            published: read(&self.counters.published),
            delivered: read(&self.counters.delivered),
            skipped: read(&self.counters.skipped),
            pings: read(&self.counters.pings),
            credit_used_bytes: self.credit_bytes.saturating_sub(self.credit.available_permits())
                as u64,
        }
    }
}

/// The door's end of the way up.
#[derive(Clone)]
pub struct Uplink(Lane);

/// The broker has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the broker has ended")]
pub struct BrokerEnded;

impl Uplink {
    /// Hands a message to the broker, waiting while the intake is behind; what it holds of its agent's share is
    /// given back when the intake has done with it. Cancelling before it returns means that the message may not
    /// have been handed over.
    pub async fn send(
        &self,
        agent: AgentId,
        payload: Bytes,
        share: Option<OwnedSemaphorePermit>,
    ) -> Result<(), BrokerEnded> {
        debug_assert!(payload.len() <= PAYLOAD_BYTES_MAX);
        let lane = Arc::clone(&self.0.credit)
            .acquire_many_owned(cost(payload.len()))
            .await
            .map_err(|_| BrokerEnded)?;
        let permit = Permit { _lane: lane, _share: share };
        let item = Item::Message { agent, payload, permit };
        self.0.queue.send(item).await.map_err(|_| BrokerEnded)
    }
}

/// A way to the intake past the router, under the same credit. The intake ends when all are gone.
#[derive(Clone)]
pub struct Inlet {
    credit: Arc<Semaphore>,
    to_intake: mpsc::Sender<Incoming>,
}

impl Inlet {
    /// Hands a message to the intake, waiting while it is behind. Cancelling loses the message.
    pub async fn send(&self, agent: AgentId, payload: Bytes) -> Result<(), BrokerEnded> {
        let lane = Arc::clone(&self.credit)
            .acquire_many_owned(cost(payload.len()))
            .await
            .map_err(|_| BrokerEnded)?;
        let permit = Permit { _lane: lane, _share: None };
        let message = Incoming { agent, payload, permit };
        self.to_intake.send(message).await.map_err(|_| BrokerEnded)
    }
}

/// Credit a payload of so many bytes takes.
fn cost(payload_bytes: usize) -> u32 {
    u32::try_from(payload_bytes + MESSAGE_COST_BYTES).unwrap_or(u32::MAX)
}

/// The embedded broker.
pub struct Broker {
    up: Lane,
    down: Lane,
    to_intake: mpsc::Sender<Incoming>,
    fault: watch::Sender<Option<BrokerFault>>,
    threads: Vec<JoinHandle<()>>,
    watchdog: Option<std::sync::mpsc::Sender<()>>,
}

impl Broker {
    /// Starts the router and its links. Messages from agents come out of the receiver, those to agents go to
    /// the sessions in `registry`. Blocks until the links are up (milliseconds).
    pub fn start(
        config: BrokerConfig,
        registry: Arc<Registry>,
    ) -> Result<(Self, mpsc::Receiver<Incoming>), BrokerError> {
        check(&config)?;
        let router = Router::new(
            0,
            RouterConfig {
                // Four links, and one more so that a count off by one cannot refuse the last.
                max_connections: 5,
                max_outgoing_packet_count: READ_MESSAGES_MAX,
                max_segment_size: config.segment_bytes,
                max_segment_count: config.segments,
                initialized_filters: Some(vec![UP_FILTER.to_owned(), DOWN_FILTER.to_owned()]),
                ..RouterConfig::default()
            },
        )
        .spawn();
        // The router's event type has no public name, so its sender stays inside this closure.
        let connect = |link: &'static str| {
            LinkBuilder::new(link, router.clone())
                .build()
                .map(|(tx, rx, _)| (tx, rx))
                .map_err(|error| BrokerError::Link { link, reason: error.to_string() })
        };
        let fault = watch::Sender::new(None);
        let mut threads = Vec::new();

        // All credit together is this many of the smallest messages, so sending to the intake never waits
        // and the router's log is always drained; pings do not go there.
        let incoming_max = config.credit_up_bytes / MESSAGE_COST_BYTES;
        let (to_intake, incoming) = mpsc::channel(incoming_max);
        let up = Half {
            publish_link: "door-up",
            drain_link: "intake-up",
            filter: UP_FILTER,
            direction: Direction::Up,
        };
        let from_router = to_intake.clone();
        let up = up.start(&connect, config.credit_up_bytes, &fault, &mut threads, {
            move |agent, payload, permit| {
                let message = Incoming { agent, payload, permit };
                // An intake that is gone ends with the process; its agents get no receipts.
                from_router.try_send(message).is_ok()
            }
        })?;
        let down = Half {
            publish_link: "intake-down",
            drain_link: "door-down",
            filter: DOWN_FILTER,
            direction: Direction::Down,
        };
        let down = down.start(&connect, config.credit_down_bytes, &fault, &mut threads, {
            move |agent, payload, permit| {
                registry.deliver(agent, payload);
                drop(permit);
                true
            }
        })?;

        let (watchdog, stop) = std::sync::mpsc::channel();
        let lanes = [up.clone(), down.clone()];
        let told = fault.clone();
        let interval = config.watchdog;
        threads
            .push(spawn("broker-watchdog", move || watch_router(&lanes, interval, &stop, &told))?);
        Ok((Self { up, down, to_intake, fault, threads, watchdog: Some(watchdog) }, incoming))
    }

    /// The door's end of the way up.
    pub fn uplink(&self) -> Uplink {
        Uplink(self.up.clone())
    }

    /// A way to the intake for messages that come in otherwise; to be dropped before [`Broker::stop`].
    pub fn inlet(&self) -> Inlet {
        Inlet { credit: Arc::clone(&self.up.credit), to_intake: self.to_intake.clone() }
    }

    /// The intake's end of the way down, to be shared.
    pub fn downlink(&self) -> Arc<dyn Downlink> {
        Arc::new(EmbeddedDownlink(self.down.clone()))
    }

    /// Sends `payload` to `agent` if it is connected; see [`Downlink::publish_down`].
    pub fn publish_down(&self, agent: AgentId, payload: Bytes) -> Result<(), DownError> {
        publish_down(&self.down, agent, payload)
    }

    /// The counters of the way up.
    pub fn up(&self) -> LaneValues {
        self.up.values()
    }

    /// The counters of the way down.
    pub fn down(&self) -> LaneValues {
        self.down.values()
    }

    /// Waits until the broker has failed; the process has to end then. Never ready while all is well.
    pub fn fault(&self) -> impl Future<Output = BrokerFault> + Send + use<> {
        let mut faults = self.fault.subscribe();
        async move {
            loop {
                if let Some(fault) = faults.borrow_and_update().clone() {
                    return fault;
                }
                if faults.changed().await.is_err() {
                    // Stopped in order: there will be no fault.
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// Ends the links in order: what was handed over before comes out first.
    pub async fn stop(mut self) {
        self.watchdog = None;
        for lane in [&self.up, &self.down] {
            // A lane that has failed has no thread left to stop.
            if lane.queue.send(Item::Stop).await.is_err() {
                tracing::debug!("a lane of the broker had ended before");
            }
        }
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().filter_map(|thread| thread.join().err()).count()
        });
        if joined.await.is_ok_and(|panicked| panicked > 0) {
            tracing::error!("a thread of the broker panicked");
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        for lane in [&self.up, &self.down] {
            if lane.queue.try_send(Item::Stop).is_err() {
                tracing::debug!("a lane of the broker had ended before, or was full");
            }
        }
    }
}

struct EmbeddedDownlink(Lane);

impl Downlink for EmbeddedDownlink {
    fn publish_down(&self, agent: AgentId, payload: Bytes) -> Result<(), DownError> {
        publish_down(&self.0, agent, payload)
    }
}

fn publish_down(lane: &Lane, agent: AgentId, payload: Bytes) -> Result<(), DownError> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(DownError::TooLarge { bytes: payload.len() });
    }
    let credit = Arc::clone(&lane.credit).try_acquire_many_owned(cost(payload.len()));
    let credit = credit.map_err(|error| match error {
        TryAcquireError::NoPermits => DownError::Full,
        TryAcquireError::Closed => DownError::Closed,
    })?;
    let permit = Permit { _lane: credit, _share: None };
    lane.queue.try_send(Item::Message { agent, payload, permit }).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) => DownError::Full,
        mpsc::error::TrySendError::Closed(_) => DownError::Closed,
    })
}

fn check(config: &BrokerConfig) -> Result<(), BrokerError> {
    let within = |what, value, low, high| {
        if (low..=high).contains(&value) {
            Ok(())
        } else {
            Err(BrokerError::Config { what, value, low, high })
        }
    };
    // Below 1 KiB the router panics.
    within("segment_bytes", config.segment_bytes, 1024, 1 << 30)?;
    within("segments", config.segments, 2, 1 << 16)?;
    // One segment less than the log has: the oldest is dropped before the newest is full.
    let log_bytes = (config.segments - 1) * config.segment_bytes;
    let largest = PAYLOAD_BYTES_MAX + MESSAGE_COST_BYTES;
    within("credit_up_bytes", config.credit_up_bytes, largest, log_bytes)?;
    within("credit_down_bytes", config.credit_down_bytes, largest, log_bytes)
}

fn spawn(
    name: &'static str,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, BrokerError> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|source| BrokerError::Thread { link: name, source })
}

/// What a lane is made of.
struct Half {
    publish_link: &'static str,
    drain_link: &'static str,
    filter: &'static str,
    direction: Direction,
}

type Tickets = Mutex<VecDeque<Ticket>>;

fn lock(tickets: &Tickets) -> MutexGuard<'_, VecDeque<Ticket>> {
    // Pushing and popping cannot leave the queue half changed.
    tickets.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Half {
    fn start(
        self,
        connect: &dyn Fn(&'static str) -> Result<(LinkTx, LinkRx), BrokerError>,
        credit_bytes: usize,
        fault: &watch::Sender<Option<BrokerFault>>,
        threads: &mut Vec<JoinHandle<()>>,
        deliver: impl FnMut(AgentId, Bytes, Permit) -> bool + Send + 'static,
    ) -> Result<Lane, BrokerError> {
        let (publish_tx, _publish_rx) = connect(self.publish_link)?;
        let (mut drain_tx, mut drain_rx) = connect(self.drain_link)?;
        subscribe(&mut drain_tx, &mut drain_rx, self.filter)
            .map_err(|reason| BrokerError::Link { link: self.drain_link, reason })?;

        // Room for as many messages as there can be credit for, and for a ping and the stop.
        let (queue, items) = mpsc::channel(credit_bytes / MESSAGE_COST_BYTES + 2);
        let credit = Arc::new(Semaphore::new(credit_bytes));
        let counters = Arc::new(LaneCounters::default());
        let tickets = Arc::new(Tickets::default());

        let publisher = Publisher {
            link: publish_tx,
            // Kept: the router gives up a link whose other half is gone.
            _other_half: _publish_rx,
            direction: self.direction,
            tickets: Arc::clone(&tickets),
            counters: Arc::clone(&counters),
        };
        let guard = Guard::new(self.publish_link, fault, &credit);
        threads.push(spawn(self.publish_link, move || guard.run(|| publisher.run(items)))?);

        let drain = Drain {
            link: drain_rx,
            own: drain_tx,
            name: self.drain_link,
            direction: self.direction,
            tickets,
            counters: Arc::clone(&counters),
            expected: 0,
            deliver,
        };
        let guard = Guard::new(self.drain_link, fault, &credit);
        threads.push(spawn(self.drain_link, move || guard.run(|| drain.run()))?);
        Ok(Lane { queue, credit, credit_bytes, counters })
    }
}

fn subscribe(tx: &mut LinkTx, rx: &mut LinkRx, filter: &str) -> Result<(), String> {
    tx.subscribe(filter).map_err(|error| error.to_string())?;
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        // The link's own acknowledgement came when it was built; the next is the subscription's.
        match rx.recv_deadline(deadline).map_err(|error| error.to_string())? {
            Some(Notification::DeviceAck(_)) => return Ok(()),
            Some(Notification::Unschedule) => rx.ready().map_err(|error| error.to_string())?,
            _ => {}
        }
    }
}

/// Tells the fault, also of a panic, and closes the lane's credit so that nobody waits for it.
struct Guard {
    name: &'static str,
    fault: watch::Sender<Option<BrokerFault>>,
    credit: Arc<Semaphore>,
}

impl Guard {
    fn new(
        name: &'static str,
        fault: &watch::Sender<Option<BrokerFault>>,
        credit: &Arc<Semaphore>,
    ) -> Self {
        Self { name, fault: fault.clone(), credit: Arc::clone(credit) }
    }

    fn run(self, work: impl FnOnce() -> Result<(), BrokerFault>) {
        if let Err(fault) = work() {
            tell(&self.fault, fault);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.credit.close();
        if thread::panicking() {
            tell(&self.fault, BrokerFault::Panicked(self.name));
        }
    }
}

/// Reports the first fault; later ones are its consequences.
fn tell(faults: &watch::Sender<Option<BrokerFault>>, fault: BrokerFault) {
    faults.send_if_modified(|told| {
        let first = told.is_none();
        if first {
            tracing::error!(%fault, "the broker has failed");
            *told = Some(fault);
        }
        first
    });
}

/// Puts a lane's items to the router.
struct Publisher {
    link: LinkTx,
    _other_half: LinkRx,
    direction: Direction,
    tickets: Arc<Tickets>,
    counters: Arc<LaneCounters>,
}

impl Publisher {
    fn run(mut self, mut items: mpsc::Receiver<Item>) -> Result<(), BrokerFault> {
        let mut batch = Vec::with_capacity(BATCH_MESSAGES_MAX);
        loop {
            if items.blocking_recv_many(&mut batch, BATCH_MESSAGES_MAX) == 0 {
                return Ok(());
            }
            let stop = batch.iter().any(|item| matches!(item, Item::Stop));
            self.put(&mut batch)?;
            if stop {
                // What came behind is not published; its senders learn that the lane has ended.
                end_link(&mut self.link);
                return Ok(());
            }
        }
    }

    /// One event to the router for the whole batch.
    fn put(&mut self, batch: &mut Vec<Item>) -> Result<(), BrokerFault> {
        let mut last = None;
        for item in batch.drain(..) {
            let (topic, payload, ticket, stop) = match item {
                Item::Message { agent, payload, permit } => {
                    self.counters.published.fetch_add(1, Ordering::Relaxed);
                    let topic = match self.direction {
                        Direction::Up => topic::up(agent),
                        Direction::Down => topic::down(agent),
                    };
                    (topic, payload, Ticket::Message { agent, permit }, false)
                }
                Item::Ping => (self.own_topic(), Bytes::from_static(b"ping"), Ticket::Ping, false),
                Item::Stop => (self.own_topic(), Bytes::from_static(b"stop"), Ticket::Stop, true),
            };
            // The ticket first: the message may be out of the router at once.
            lock(&self.tickets).push_back(ticket);
            if let Some((topic, payload)) = last.replace((topic, payload)) {
                self.link.buffer().push_back(Packet::Publish(
                    Publish::new(Bytes::from(topic), payload, false),
                    None,
                ));
            }
            if stop {
                break;
            }
        }
        batch.clear();
        if let Some((topic, payload)) = last {
            self.link
                .publish(topic, payload)
                .map_err(|error| BrokerFault::LinkGone("publishing", error.to_string()))?;
        }
        Ok(())
    }

    /// A topic of the lane that is no agent's.
    fn own_topic(&self) -> String {
        match self.direction {
            Direction::Up => UP_FILTER.replace('+', "self"),
            Direction::Down => DOWN_FILTER.replace('+', "self"),
        }
    }
}

/// Says good-bye to the router for one link.
fn end_link(link: &mut LinkTx) {
    let bye = Packet::Disconnect(
        Disconnect { reason_code: DisconnectReasonCode::NormalDisconnection },
        None,
    );
    // `send` is written as a future but has no await in it: one poll is all of it.
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let sent = std::pin::pin!(link.send(bye)).poll(&mut context);
    tracing::debug!(?sent, "a link of the broker ends");
}

/// Takes what comes out of the router for one filter.
struct Drain<F> {
    link: LinkRx,
    own: LinkTx,
    name: &'static str,
    direction: Direction,
    tickets: Arc<Tickets>,
    counters: Arc<LaneCounters>,
    /// The log's offset of the next message.
    expected: u64,
    deliver: F,
}

impl<F: FnMut(AgentId, Bytes, Permit) -> bool> Drain<F> {
    fn run(mut self) -> Result<(), BrokerFault> {
        loop {
            match self.link.recv().map_err(|error| self.gone(&error))? {
                Some(Notification::Forward(forward)) => {
                    let publish = forward.publish;
                    if self.take(forward.cursor, &publish.topic, publish.payload)? {
                        // Nothing is said to the router for this link from here on.
                        end_link(&mut self.own);
                        return Ok(());
                    }
                }
                Some(Notification::Unschedule) => {
                    self.link.ready().map_err(|error| self.gone(&error))?;
                }
                Some(Notification::Disconnect(..)) => {
                    return Err(BrokerFault::LinkGone(self.name, "the router ended it".to_owned()));
                }
                Some(_) | None => {}
            }
        }
    }

    fn gone(&self, error: &LinkError) -> BrokerFault {
        BrokerFault::LinkGone(self.name, error.to_string())
    }

    /// Holds one message against its ticket and passes it on; true when it was the last.
    fn take(
        &mut self,
        cursor: Option<(u64, u64)>,
        topic: &[u8],
        payload: Bytes,
    ) -> Result<bool, BrokerFault> {
        let out_of_order = BrokerFault::OutOfOrder(self.name);
        // Without an offset it would be a retained message, and there are none.
        let (_, offset) = cursor.ok_or_else(|| out_of_order.clone())?;
        let skipped = offset.checked_sub(self.expected).ok_or_else(|| out_of_order.clone())?;
        self.expected = offset + 1;
        if skipped > 0 && self.skip(skipped) {
            return Ok(true);
        }
        let ticket = lock(&self.tickets).pop_front();
        match ticket.ok_or_else(|| out_of_order.clone())? {
            Ticket::Message { agent, permit } => {
                let expected = Some((agent, self.direction));
                if std::str::from_utf8(topic).ok().and_then(topic::parse) != expected {
                    return Err(out_of_order);
                }
                self.counters.delivered.fetch_add(1, Ordering::Relaxed);
                if !(self.deliver)(agent, payload, permit) {
                    tracing::debug!(lane = self.name, "nobody takes the lane's messages any more");
                }
                Ok(false)
            }
            Ticket::Ping => {
                self.counters.pings.fetch_add(1, Ordering::Relaxed);
                Ok(false)
            }
            Ticket::Stop => Ok(true),
        }
    }

    /// The router dropped messages: gives their credit back and raises the alarm. True if the stop was one.
    fn skip(&mut self, messages: u64) -> bool {
        self.counters.skipped.fetch_add(messages, Ordering::Relaxed);
        tracing::error!(
            lane = self.name,
            messages,
            "the broker skipped messages; agents send them again, but its limits are set wrong"
        );
        let mut tickets = lock(&self.tickets);
        let lost = usize::try_from(messages).unwrap_or(usize::MAX).min(tickets.len());
        tickets.drain(..lost).any(|ticket| matches!(ticket, Ticket::Stop))
    }
}

/// Sends a message through each lane every `interval`; two silent rounds in a row are a fault.
fn watch_router(
    lanes: &[Lane],
    interval: Duration,
    stop: &std::sync::mpsc::Receiver<()>,
    fault: &watch::Sender<Option<BrokerFault>>,
) {
    let seen = |lane: &Lane| {
        let values = lane.values();
        values.delivered + values.pings + values.skipped
    };
    let mut rounds: Vec<(u64, u32)> = vec![(0, 0); lanes.len()];
    let mut first = true;
    loop {
        for (lane, (before, silent)) in lanes.iter().zip(&mut rounds) {
            let now = seen(lane);
            // At the last round a ping was put, or the queue was full: either way something had to come.
            *silent = if first || now != *before { 0 } else { *silent + 1 };
            *before = now;
            if *silent >= SILENT_ROUNDS_MAX {
                tell(fault, BrokerFault::Silent);
                return;
            }
            match lane.queue.try_send(Item::Ping) {
                Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => {}
                // The lane was stopped, or has told its own fault.
                Err(mpsc::error::TrySendError::Closed(_)) => return,
            }
        }
        first = false;
        match stop.recv_timeout(interval) {
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests;
