//! One MQTT connection to the aggregator, from connecting to its end.
//!
//! A [`Link`] lives for one connection and is never used again after an error: the client library drops what
//! it holds on a reconnect and can wedge in a state it does not leave. The driver makes a new link after its
//! [back-off](crate::backoff), and sends from the queue what has no receipt.
//!
//! A PUBACK says that the broker has the message, no more; only a signed receipt releases an entry.

mod words;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use banyan_shared::address::{AddressError, MqttAddress};
use banyan_shared::ids::AgentId;
use banyan_shared::limits::{CONNECT_TIMEOUT_S, KEEP_ALIVE_S, PACKET_BYTES_MAX, PAYLOAD_BYTES_MAX};
use banyan_shared::topic;
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, MqttOptions, NetworkOptions,
    Outgoing, Packet, QoS, StateError, SubscribeReasonCode, TlsConfiguration, TlsError, Transport,
    mqttbytes,
};
use rustls::ClientConfig;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

/// Events that wait for the driver; the link stops reading beyond.
const EVENTS_MAX: usize = 64;
/// Messages that wait to be written; publishing waits beyond.
const REQUESTS_MAX: usize = 8;
/// Messages sent and not yet acknowledged by the broker.
const IN_FLIGHT_MAX: u16 = 16;

/// How to reach the aggregator.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// `[mqtt://|mqtts://]host:port`, an IPv6 address in brackets; read as [`MqttAddress`].
    pub address: String,
    /// Who connects.
    pub agent: AgentId,
    /// How TLS is spoken, where the address asks for it.
    pub tls: Option<Arc<ClientConfig>>,
    /// For TCP, TLS and CONNACK, and again for the subscription.
    pub connect_timeout: Duration,
    /// How long publishing may wait for room.
    pub publish_timeout: Duration,
    /// How often an idle link says that it is there, at least 1 s; twice this without an answer ends it.
    pub keep_alive: Duration,
}

impl LinkConfig {
    /// The usual times, made for 2G and satellite.
    pub fn new(address: impl Into<String>, agent: AgentId) -> Self {
        Self {
            address: address.into(),
            agent,
            tls: None,
            connect_timeout: Duration::from_secs(CONNECT_TIMEOUT_S),
            publish_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(u64::from(KEEP_ALIVE_S)),
        }
    }
}

/// What happens on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// Connected and subscribed: say hello.
    Up,
    /// A message for this agent.
    Message(Vec<u8>),
    /// The link has ended; nothing follows.
    Down(DownReason),
}

/// Why the other end refused a connection, by its CONNACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It did not say.
    #[error("without a reason")]
    NoReason,
    /// It speaks another version of MQTT.
    #[error("another version of the protocol")]
    Version,
    /// It does not take the agent's id.
    #[error("the agent id is not accepted")]
    Id,
    /// It is not there now.
    #[error("not available now")]
    Unavailable,
    /// It wants a name and password.
    #[error("name or password is wrong")]
    Password,
}

impl Refused {
    /// All of them.
    pub const ALL: [Refused; 5] =
        [Refused::NoReason, Refused::Version, Refused::Id, Refused::Unavailable, Refused::Password];
}

/// Why a link ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DownReason {
    /// The aggregator refused the connection.
    #[error("the aggregator refused the connection: {0}")]
    Refused(Refused),
    /// The aggregator does not let this agent in, or not by the certificate shown.
    #[error("the aggregator does not let this agent in")]
    NotAuthorised,
    /// The other end is not the centre this agent was enrolled at, or TLS failed.
    #[error("no secure connection to the centre: {0}")]
    Tls(String),
    /// The aggregator refused the subscription.
    #[error("the aggregator refused the subscription to this agent's topic")]
    SubscriptionRefused,
    /// Not up in time.
    #[error("no answer from the aggregator in time")]
    ConnectTimeout,
    /// The network failed, or nobody listens there.
    #[error("the network failed: {0}")]
    Network(String),
    /// The other end went silent or stopped reading.
    #[error("the aggregator went silent")]
    Silent,
    /// What came is not what a broker sends.
    #[error("the other end does not speak the protocol: {0}")]
    Protocol(String),
    /// Closed from this side.
    #[error("closed")]
    Closed,
}

/// Why a message was not sent or a link not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Not `host:port`.
    #[error("aggregator address {address:?} {reason}; write host:port, for example 10.1.2.3:8883")]
    Address {
        /// The address given.
        address: String,
        /// What is wrong with it.
        reason: AddressError,
    },
    /// TLS without a configuration for it.
    #[error("the aggregator's address asks for TLS, and there is no key to show")]
    NoTls,
    /// Larger than the aggregator takes.
    #[error(
        "the message has {bytes} bytes, more than the {PAYLOAD_BYTES_MAX} the aggregator takes"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// No room came free in time.
    #[error("the link has no room for the message")]
    Timeout,
    /// The link has ended.
    #[error("the link has ended")]
    Ended,
}

/// One connection.
#[derive(Debug)]
pub struct Link {
    /// What happens, in order; keep taking, or the link stops reading. `Down` is the last.
    pub events: mpsc::Receiver<LinkEvent>,
    client: AsyncClient,
    up_topic: String,
    publish_timeout: Duration,
    task: JoinHandle<()>,
}

impl Link {
    /// Begins to connect; [`LinkEvent::Up`] or [`LinkEvent::Down`] tells how it went. Needs a tokio runtime.
    pub fn connect(config: LinkConfig) -> Result<Self, LinkError> {
        let address: MqttAddress = config
            .address
            .parse()
            .map_err(|reason| LinkError::Address { address: config.address.clone(), reason })?;
        let mut options = MqttOptions::new(config.agent.to_string(), address.host, address.port);
        if address.tls {
            let tls = config.tls.clone().ok_or(LinkError::NoTls)?;
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls)));
        }
        options
            .set_keep_alive(config.keep_alive.max(Duration::from_secs(1)))
            .set_clean_session(true)
            .set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX)
            .set_inflight(IN_FLIGHT_MAX);
        let (client, mut event_loop) = AsyncClient::new(options, REQUESTS_MAX);
        let mut network = NetworkOptions::new();
        // The library counts in seconds and uses it for writes as well; the exact limit is held below.
        network.set_connection_timeout(config.connect_timeout.as_secs().max(1));
        network.set_tcp_nodelay(true);
        event_loop.set_network_options(network);

        let (to_driver, events) = mpsc::channel(EVENTS_MAX);
        let up_topic = topic::up(config.agent);
        let publish_timeout = config.publish_timeout;
        let own = client.clone();
        let task = tokio::spawn(async move {
            let reason = run(&config, own, event_loop, &to_driver).await;
            // A driver that has dropped the link does not want to know.
            to_driver.send(LinkEvent::Down(reason)).await.ok();
        });
        Ok(Self { events, client, up_topic, publish_timeout, task })
    }

    /// Hands a message to the link, waiting for room no longer than the publish timeout. Call it after `Up`.
    pub async fn publish(&self, payload: Vec<u8>) -> Result<(), LinkError> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(LinkError::TooLarge { bytes: payload.len() });
        }
        let publishing =
            self.client.publish(self.up_topic.as_str(), QoS::AtLeastOnce, false, payload);
        match timeout(self.publish_timeout, publishing).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(LinkError::Ended),
            Err(_) => Err(LinkError::Timeout),
        }
    }

    /// Sends what was handed over and says good-bye, within the publish timeout.
    pub async fn close(mut self) {
        let closing = async {
            if self.client.disconnect().await.is_ok() {
                // Down comes when the good-bye is written, or the link fails.
                while self.events.recv().await.is_some() {}
            }
        };
        if timeout(self.publish_timeout, closing).await.is_err() {
            tracing::debug!("the link did not close in time and was dropped");
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    config: &LinkConfig,
    client: AsyncClient,
    mut event_loop: EventLoop,
    to_driver: &mpsc::Sender<LinkEvent>,
) -> DownReason {
    let down_topic = topic::down(config.agent);
    let mut deadline = Some(Instant::now() + config.connect_timeout);
    loop {
        let polled = match deadline {
            Some(deadline) => match timeout_at(deadline, event_loop.poll()).await {
                Ok(polled) => polled,
                Err(_) => return DownReason::ConnectTimeout,
            },
            None => event_loop.poll().await,
        };
        // An error overtakes what was read before it: that is taken first.
        let (events, error) = match polled {
            Ok(event) => (VecDeque::from([event]), None),
            Err(error) => (std::mem::take(&mut event_loop.state.events), Some(error)),
        };
        for event in events {
            let event = match judge(event, &down_topic) {
                Step::Connected => {
                    deadline = Some(Instant::now() + config.connect_timeout);
                    if client.try_subscribe(down_topic.as_str(), QoS::AtMostOnce).is_err() {
                        // The queue holds only what the driver put there before `Up`.
                        return DownReason::Protocol("published before the link was up".to_owned());
                    }
                    continue;
                }
                Step::Nothing => continue,
                Step::End(reason) => return reason,
                Step::Tell(event) => event,
            };
            if event == LinkEvent::Up {
                deadline = None;
            }
            if to_driver.send(event).await.is_err() {
                return DownReason::Closed;
            }
        }
        if let Some(error) = error {
            return reason(error);
        }
    }
}

/// What an event of the client library means for the link.
enum Step {
    Nothing,
    Connected,
    Tell(LinkEvent),
    End(DownReason),
}

fn judge(event: Event, down_topic: &str) -> Step {
    match event {
        Event::Incoming(Packet::ConnAck(_)) => Step::Connected,
        Event::Incoming(Packet::SubAck(ack)) => match ack.return_codes[..] {
            [SubscribeReasonCode::Success(_)] => Step::Tell(LinkEvent::Up),
            _ => Step::End(DownReason::SubscriptionRefused),
        },
        Event::Incoming(Packet::Publish(publish)) if publish.topic == down_topic => {
            Step::Tell(LinkEvent::Message(publish.payload.into()))
        }
        Event::Incoming(Packet::Publish(_)) => {
            Step::End(DownReason::Protocol("a message on another topic".to_owned()))
        }
        Event::Outgoing(Outgoing::Disconnect) => Step::End(DownReason::Closed),
        _ => Step::Nothing,
    }
}

/// Whether TLS itself failed, and not the line under it.
fn is_tls(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

fn reason(error: ConnectionError) -> DownReason {
    match error {
        ConnectionError::NetworkTimeout => DownReason::ConnectTimeout,
        ConnectionError::FlushTimeout => DownReason::Silent,
        ConnectionError::MqttState(StateError::AwaitPingResp) => DownReason::Silent,
        ConnectionError::MqttState(StateError::ConnectionAborted) => {
            DownReason::Network("the other end closed the connection".to_owned())
        }
        ConnectionError::MqttState(
            StateError::Io(error) | StateError::Deserialization(mqttbytes::Error::Io(error)),
        )
        | ConnectionError::Io(error) => DownReason::Network(error.to_string()),
        ConnectionError::ConnectionRefused(code) => DownReason::Refused(match code {
            ConnectReturnCode::Success => Refused::NoReason,
            ConnectReturnCode::RefusedProtocolVersion => Refused::Version,
            ConnectReturnCode::BadClientId => Refused::Id,
            ConnectReturnCode::ServiceUnavailable => Refused::Unavailable,
            ConnectReturnCode::BadUserNamePassword => Refused::Password,
            ConnectReturnCode::NotAuthorized => return DownReason::NotAuthorised,
        }),
        ConnectionError::Tls(TlsError::Io(error)) if !is_tls(&error) => {
            DownReason::Network(error.to_string())
        }
        ConnectionError::Tls(error) => DownReason::Tls(error.to_string()),
        ConnectionError::RequestsDone => DownReason::Closed,
        other => DownReason::Protocol(other.to_string()),
    }
}

#[cfg(test)]
mod tests;
