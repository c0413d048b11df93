//! An external MQTT broker beside the door: agents connect to it, and the centre is one more client of it.
//!
//! Nothing is believed of the broker but that it carries bytes, now and then: what comes in is signed, what
//! goes out is signed, an agent forgets only what the ledger has receipted. So one connection serves until
//! its first error, is then replaced by a new one after a wait, and whatever was on its way is lost without
//! harm: agents send again. What is promised:
//!
//! - *Bounded.* Upwards a message is taken from the connection only with credit for its bytes, so that the
//!   broker is slowed by its own socket; downwards only so many bytes wait, and more is refused and told.
//! - *Never stuck.* A connection that is not up in time, or on which nothing is acknowledged, is given up.
//! - *Who speaks* is what the topic says, as far as the broker's rules hold; the signature is what counts.
//!
//! Subscriptions and publications are QoS 1, for their flow control; sessions are clean.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use banyan_shared::address::MqttAddress;
use banyan_shared::ids::AgentId;
use banyan_shared::limits::{PACKET_BYTES_MAX, PAYLOAD_BYTES_MAX};
use banyan_shared::topic::{self, Direction, UP_FILTER};
use bytes::Bytes;
use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, NetworkOptions, Outgoing, Packet,
    QoS, StateError, SubscribeReasonCode, TlsConfiguration, Transport,
};
use rustls::ClientConfig;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc, watch};
use tokio::time::{Instant, timeout_at};

use super::{BrokerEnded, DownError, Downlink, Inlet, MESSAGE_COST_BYTES, cost};
use crate::front_door::Registry;
use crate::identity::{CENTRE_NAME, Identity, random};
use crate::intake::{Clock, told};

/// Bytes that may wait for the broker to take them.
const CREDIT_DOWN_BYTES: usize = 8 * 1024 * 1024;
/// Messages the client library holds unsent.
const REQUESTS_MAX: usize = 16;
/// Messages sent and not yet acknowledged by the broker.
const IN_FLIGHT_MAX: u16 = 256;
/// How often an idle connection says that it is there; twice this without an answer ends it.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// For TCP, TLS, CONNACK and SUBACK together.
const UP_WITHIN: Duration = Duration::from_secs(30);
/// How long the broker may acknowledge nothing of what it was sent.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(60);
/// The longest wait before the next connection, and the first one's limit. Agents wait for this one client,
/// so it is never away for long.
const WAIT_MAX: Duration = Duration::from_secs(15);
const WAIT_FIRST: Duration = Duration::from_millis(500);

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What the connections to the broker have carried, since the start.
        #[derive(Debug, Default)]
        pub struct ExternalCounters {
            connected: AtomicBool,
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        impl ExternalCounters {
            /// Whether a connection is up.
            pub fn is_connected(&self) -> bool {
                self.connected.load(Ordering::Relaxed)
            }

            /// Names and values.
            pub fn values(&self) -> Vec<(&'static str, u64)> {
                vec![
                    ("connected", u64::from(self.is_connected())),
                    $((stringify!($name), self.$name.load(Ordering::Relaxed)),)*
                ]
            }
        }
    };
}

counters! {
    /// Connections that came up.
    connections,
    /// Messages taken in.
    messages_up,
    /// Messages handed to the broker.
    messages_down,
    /// Messages on topics that are no agent's.
    not_ours,
    /// Messages that waited for the broker when its connection ended; agents ask again.
    down_dropped,
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Why a connection has ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("not up within {} s", UP_WITHIN.as_secs())]
    Late,
    #[error(
        "the subscription to {UP_FILTER} was refused: give {CENTRE_NAME} its rights at the broker"
    )]
    NotSubscribed,
    #[error("nothing was acknowledged for {} s", ACKNOWLEDGED_WITHIN.as_secs())]
    Unacknowledged,
    #[error(
        "a message larger than {PAYLOAD_BYTES_MAX} bytes came: set the broker's limit for messages to that"
    )]
    TooLarge,
    #[error("{0}")]
    Connection(Box<ConnectionError>),
    #[error("TLS cannot be set up: {0:#}")]
    Tls(anyhow::Error),
    #[error("the service is stopping")]
    Stopping,
}

impl From<ConnectionError> for Ended {
    fn from(error: ConnectionError) -> Ended {
        use rumqttc::mqttbytes::Error::{OutgoingPacketTooLarge, PayloadSizeLimitExceeded};
        match error {
            ConnectionError::MqttState(StateError::Deserialization(
                PayloadSizeLimitExceeded(_) | OutgoingPacketTooLarge { .. },
            )) => Ended::TooLarge,
            other => Ended::Connection(Box::new(other)),
        }
    }
}

impl From<BrokerEnded> for Ended {
    fn from(BrokerEnded: BrokerEnded) -> Ended {
        Ended::Stopping
    }
}

/// How a connection to a broker is made.
pub struct Dial {
    /// Where it is.
    pub address: MqttAddress,
    /// Who connects, and whose broker is believed.
    pub identity: Arc<Identity>,
    /// For certificates.
    pub clock: Clock,
}

impl Dial {
    /// The broker's certificate must be by the centre's CA and for the host dialled; the centre shows one
    /// made for this connection, so that none grows old.
    fn tls(&self) -> Result<Arc<ClientConfig>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.identity.ca.certificate().clone())?;
        let (certificate, key) = self.identity.ca.client((self.clock)())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key)?;
        Ok(Arc::new(config))
    }

    fn options(&self) -> Result<MqttOptions> {
        let MqttAddress { tls, host, port } = &self.address;
        let mut options = MqttOptions::new(CENTRE_NAME, host, *port);
        if *tls {
            let config = TlsConfiguration::Rustls(self.tls()?);
            options.set_transport(Transport::tls_with_config(config));
        }
        options
            .set_keep_alive(KEEP_ALIVE)
            .set_clean_session(true)
            .set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX)
            .set_inflight(IN_FLIGHT_MAX);
        Ok(options)
    }
}

struct Waiting {
    agent: AgentId,
    payload: Bytes,
    permit: OwnedSemaphorePermit,
}

/// The centre's end of the way down by the broker, to be cloned freely.
#[derive(Clone)]
pub struct ExternalDownlink {
    queue: mpsc::Sender<Waiting>,
    credit: Arc<Semaphore>,
    counters: Arc<ExternalCounters>,
}

impl ExternalDownlink {
    /// The counters.
    pub fn counters(&self) -> Arc<ExternalCounters> {
        Arc::clone(&self.counters)
    }
}

impl Downlink for ExternalDownlink {
    fn publish_down(&self, agent: AgentId, payload: Bytes) -> Result<(), DownError> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(DownError::TooLarge { bytes: payload.len() });
        }
        if !self.counters.is_connected() {
            return Err(DownError::Away);
        }
        let credit = Arc::clone(&self.credit).try_acquire_many_owned(cost(payload.len()));
        let permit = credit.map_err(|error| match error {
            TryAcquireError::NoPermits => DownError::Full,
            TryAcquireError::Closed => DownError::Closed,
        })?;
        let waiting = Waiting { agent, payload, permit };
        self.queue.try_send(waiting).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => DownError::Full,
            mpsc::error::TrySendError::Closed(_) => DownError::Closed,
        })
    }
}

/// The client of a broker, to be run.
pub struct External {
    downs: mpsc::Receiver<Waiting>,
    counters: Arc<ExternalCounters>,
}

/// A client and the way down by it.
pub fn external() -> (External, ExternalDownlink) {
    // Room for as many messages as there can be credit for.
    let (queue, downs) = mpsc::channel(CREDIT_DOWN_BYTES / MESSAGE_COST_BYTES);
    let counters = Arc::<ExternalCounters>::default();
    let credit = Arc::new(Semaphore::new(CREDIT_DOWN_BYTES));
    let downlink = ExternalDownlink { queue, credit, counters: Arc::clone(&counters) };
    (External { downs, counters }, downlink)
}

impl External {
    /// Connects again and again until `stop` says so.
    pub async fn run(mut self, dial: Dial, inlet: Inlet, mut stop: watch::Receiver<bool>) {
        let mut attempt = 0;
        loop {
            let before = self.counters.connections.load(Ordering::Relaxed);
            let ended = tokio::select! {
                () = told(&mut stop) => Ended::Stopping,
                Err(ended) = self.connection(&dial, &inlet) => ended,
            };
            self.counters.connected.store(false, Ordering::Relaxed);
            self.drop_waiting();
            if matches!(ended, Ended::Stopping) {
                return;
            }
            let was_up = self.counters.connections.load(Ordering::Relaxed) > before;
            attempt = if was_up { 0 } else { attempt + 1 };
            let wait = wait(attempt, u32::from_le_bytes(random().unwrap_or([0xff; 4])));
            tracing::warn!(
                broker = %dial.address,
                attempt,
                "the external broker（外部消息代理）: {ended}; again in {} ms",
                wait.as_millis()
            );
            tokio::select! {
                () = told(&mut stop) => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn drop_waiting(&mut self) {
        while self.downs.try_recv().is_ok() {
            add(&self.counters.down_dropped);
        }
    }

    /// One connection, to its end.
    async fn connection(
        &mut self,
        dial: &Dial,
        inlet: &Inlet,
    ) -> std::result::Result<std::convert::Infallible, Ended> {
        let options = dial.options().map_err(Ended::Tls)?;
        let (client, mut event_loop) = AsyncClient::new(options, REQUESTS_MAX);
        let mut network = NetworkOptions::new();
        network.set_connection_timeout(UP_WITHIN.as_secs());
        network.set_tcp_nodelay(true);
        event_loop.set_network_options(network);
        let by = Instant::now() + UP_WITHIN;
        timeout_at(by, subscribe(&client, &mut event_loop)).await.map_err(|_| Ended::Late)??;
        add(&self.counters.connections);
        self.counters.connected.store(true, Ordering::Relaxed);
        tracing::info!(broker = %dial.address, "connected to the external broker");
        // Both run side by side to the end: an event loop must not be dropped in the middle of a step.
        tokio::select! {
            ended = receive(&mut event_loop, inlet, &self.counters) => ended,
            ended = publish(&client, &mut self.downs, &self.counters) => ended,
        }
    }
}

/// Connects and subscribes to what agents send. Nothing else is on its way yet.
async fn subscribe(
    client: &AsyncClient,
    event_loop: &mut EventLoop,
) -> std::result::Result<(), Ended> {
    loop {
        match event_loop.poll().await? {
            Event::Incoming(Packet::ConnAck(_)) => {
                let asked = client.try_subscribe(UP_FILTER, QoS::AtLeastOnce);
                asked.map_err(|_| Ended::NotSubscribed)?;
            }
            Event::Incoming(Packet::SubAck(ack)) => match ack.return_codes[..] {
                [SubscribeReasonCode::Success(_)] => return Ok(()),
                _ => return Err(Ended::NotSubscribed),
            },
            _ => {}
        }
    }
}

/// Takes in what comes, as long as the intake has room.
async fn receive(
    event_loop: &mut EventLoop,
    inlet: &Inlet,
    counters: &ExternalCounters,
) -> std::result::Result<std::convert::Infallible, Ended> {
    let mut unacknowledged = 0u32;
    let mut acknowledged_at = Instant::now();
    loop {
        match event_loop.poll().await? {
            Event::Incoming(Packet::Publish(publish)) => match topic::parse(&publish.topic) {
                Some((agent, Direction::Up)) => {
                    add(&counters.messages_up);
                    // A copy: a part of the read buffer would keep the whole of it.
                    inlet.send(agent, Bytes::copy_from_slice(&publish.payload)).await?;
                }
                _ => add(&counters.not_ours),
            },
            Event::Incoming(Packet::PubAck(_)) => {
                unacknowledged = unacknowledged.saturating_sub(1);
                acknowledged_at = Instant::now();
            }
            Event::Outgoing(Outgoing::Publish(_)) => {
                if unacknowledged == 0 {
                    acknowledged_at = Instant::now();
                }
                unacknowledged += 1;
            }
            _ => {}
        }
        // Looked at whenever anything happens: at the latest at the next sign of life.
        if unacknowledged > 0 && acknowledged_at.elapsed() > ACKNOWLEDGED_WITHIN {
            return Err(Ended::Unacknowledged);
        }
    }
}

/// Hands over what waits; the client library takes as much as the broker acknowledges.
async fn publish(
    client: &AsyncClient,
    downs: &mut mpsc::Receiver<Waiting>,
    counters: &ExternalCounters,
) -> std::result::Result<std::convert::Infallible, Ended> {
    loop {
        let Some(Waiting { agent, payload, permit }) = downs.recv().await else {
            return Err(Ended::Stopping);
        };
        let sent = client.publish_bytes(topic::down(agent), QoS::AtLeastOnce, false, payload);
        if sent.await.is_err() {
            // The event loop is gone, which `receive` tells better.
            std::future::pending::<()>().await;
        }
        add(&counters.messages_down);
        drop(permit);
    }
}

/// The wait before the next connection: anything up to a limit that doubles with each failure.
fn wait(attempt: u32, random: u32) -> Duration {
    let limit = WAIT_FIRST.saturating_mul(1 << attempt.min(16)).min(WAIT_MAX);
    limit.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// The ways to the agents where there is a broker beside the door: an answer goes wherever its agent may be
/// listening.
pub struct Ways {
    /// The way by the door.
    pub door: Arc<dyn Downlink>,
    /// Who is connected there.
    pub registry: Arc<Registry>,
    /// The way by the broker.
    pub broker: ExternalDownlink,
    /// Where agents reach the broker.
    pub told: String,
}

impl Downlink for Ways {
    fn publish_down(&self, agent: AgentId, payload: Bytes) -> Result<(), DownError> {
        if !self.registry.holds(agent) {
            return self.broker.publish_down(agent, payload);
        }
        // It may be at the broker by now, with a session here whose end nobody has noticed yet.
        let by_broker = self.broker.publish_down(agent, payload.clone());
        self.door.publish_down(agent, payload).or(by_broker)
    }

    fn elsewhere(&self, agent: AgentId) -> Option<&str> {
        self.registry.holds(agent).then_some(&self.told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_quarter_of_a_minute_and_are_spread() {
        assert_eq!(wait(0, 0), Duration::ZERO);
        assert_eq!(wait(0, u32::MAX), WAIT_FIRST);
        assert_eq!(wait(3, u32::MAX), WAIT_FIRST * 8);
        for attempt in [5, 31, 32, 4000, u32::MAX] {
            assert_eq!(wait(attempt, u32::MAX), WAIT_MAX, "{attempt}");
        }
        assert!(wait(9, u32::MAX / 2) < WAIT_MAX * 6 / 10);
    }
}
