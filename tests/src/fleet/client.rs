//! One connection of an agent: TCP from an address of its own, TLS, MQTT 3.1.1 by rumqttc's codec; or the
//! agent's own [`Link`], for comparison.
//!
//! What it says and waits for, and for how long, is what `agent/src/link.rs` does.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use banyan_agent::link::{DownReason, Link, LinkConfig, LinkEvent};
use banyan_shared::ids::AgentId;
use banyan_shared::limits::{CONNECT_TIMEOUT_S, KEEP_ALIVE_S, PACKET_BYTES_MAX};
use banyan_shared::topic;
use bytes::{Buf, Bytes, BytesMut};
use rumqttc::mqttbytes::v4::{
    Connect, ConnectReturnCode, Packet, Publish, Subscribe, SubscribeReasonCode,
};
use rumqttc::mqttbytes::{self, QoS};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::line::{Faults, Line, Traffic};
use super::random::Random;

/// For the good-bye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// For one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// What the read buffer begins with, in bytes.
const READ_BYTES: usize = 1024;

/// Why a connection ended or was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Down {
    /// The other end closed it, or refused it without a word.
    Closed,
    /// TCP failed, or the simulated line.
    Network,
    /// The handshake failed.
    Tls,
    /// CONNACK said no.
    Refused,
    /// Nothing came in time.
    Silent,
    /// What came is not what a broker sends.
    Protocol,
}

impl Down {
    pub(super) const ALL: [Down; 6] =
        [Down::Closed, Down::Network, Down::Tls, Down::Refused, Down::Silent, Down::Protocol];

    /// Its name in the result.
    pub(super) fn name(self) -> &'static str {
        match self {
            Down::Closed => "closed",
            Down::Network => "network",
            Down::Tls => "tls",
            Down::Refused => "refused",
            Down::Silent => "silent",
            Down::Protocol => "protocol",
        }
    }
}

impl From<std::io::Error> for Down {
    fn from(error: std::io::Error) -> Down {
        if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
            Down::Tls
        } else if error.kind() == std::io::ErrorKind::UnexpectedEof {
            Down::Closed
        } else {
            Down::Network
        }
    }
}

/// How a connection is to be made.
#[derive(Clone)]
pub(super) struct Dial {
    pub(super) to: SocketAddr,
    /// The agent's own address: a county's agents share one.
    pub(super) from: IpAddr,
    pub(super) agent: AgentId,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) faults: Faults,
    pub(super) random: Random,
    pub(super) traffic: Arc<Traffic>,
}

/// A connection, up and subscribed.
pub(super) enum Client {
    Codec(Box<Codec>),
    Rumqttc(Box<Link>),
}

impl Client {
    /// Connects with the simulator's client.
    pub(super) async fn codec(dial: Dial) -> Result<Client, Down> {
        let connecting = Box::pin(Codec::connect(dial));
        let limit = Duration::from_secs(CONNECT_TIMEOUT_S);
        match timeout(limit, connecting).await {
            Ok(codec) => Ok(Client::Codec(Box::new(codec?))),
            Err(_) => Err(Down::Silent),
        }
    }

    /// Connects with the agent's own.
    pub(super) async fn rumqttc(dial: &Dial) -> Result<Client, Down> {
        let mut config = LinkConfig::new(format!("mqtts://{}", dial.to), dial.agent);
        config.tls = Some(dial.tls.clone());
        let mut link = Link::connect(config).map_err(|_| Down::Protocol)?;
        match link.events.recv().await {
            Some(LinkEvent::Up) => Ok(Client::Rumqttc(Box::new(link))),
            Some(LinkEvent::Down(reason)) => Err(of(&reason)),
            Some(LinkEvent::Message(_)) | None => Err(Down::Protocol),
        }
    }

    /// Whether the session was resumed; not known of the agent's own link.
    pub(super) fn is_resumed(&self) -> bool {
        match self {
            Client::Codec(codec) => {
                codec.stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
            }
            Client::Rumqttc(_) => false,
        }
    }

    /// The next message. Cancelling loses nothing.
    pub(super) async fn message(&mut self) -> Result<Bytes, Down> {
        match self {
            Client::Codec(codec) => codec.message().await,
            Client::Rumqttc(link) => match link.events.recv().await {
                Some(LinkEvent::Message(message)) => Ok(Bytes::from(message)),
                Some(LinkEvent::Down(reason)) => Err(of(&reason)),
                Some(LinkEvent::Up) => Err(Down::Protocol),
                None => Err(Down::Closed),
            },
        }
    }

    /// Sends messages.
    pub(super) async fn publish(&mut self, messages: Vec<Bytes>) -> Result<(), Down> {
        match self {
            Client::Codec(codec) => codec.publish(messages).await,
            Client::Rumqttc(link) => {
                for message in messages {
                    link.publish(message.to_vec()).await.map_err(|_| Down::Network)?;
                }
                Ok(())
            }
        }
    }

    /// Says that it is still there.
    pub(super) async fn ping(&mut self) -> Result<(), Down> {
        match self {
            Client::Codec(codec) => {
                codec.put(&Packet::PingReq)?;
                codec.flush().await
            }
            // The event loop does.
            Client::Rumqttc(_) => Ok(()),
        }
    }

    /// Says good-bye.
    pub(super) async fn close(self) {
        match self {
            Client::Codec(mut codec) => {
                let closing = async {
                    codec.put(&Packet::Disconnect)?;
                    codec.flush().await?;
                    codec.stream.shutdown().await.map_err(Down::from)
                };
                // One that cannot be told is dropped all the same.
                let _ = timeout(CLOSE_TIMEOUT, closing).await;
            }
            Client::Rumqttc(link) => link.close().await,
        }
    }
}

fn of(reason: &DownReason) -> Down {
    match reason {
        DownReason::Refused(_) | DownReason::NotAuthorised | DownReason::SubscriptionRefused => {
            Down::Refused
        }
        DownReason::Tls(_) => Down::Tls,
        DownReason::ConnectTimeout | DownReason::Silent => Down::Silent,
        DownReason::Network(_) => Down::Network,
        DownReason::Protocol(_) => Down::Protocol,
        DownReason::Closed => Down::Closed,
    }
}

/// The simulator's client.
pub(super) struct Codec {
    stream: TlsStream<Line>,
    input: BytesMut,
    output: BytesMut,
    agent: AgentId,
    packet_id: u16,
    twice: f64,
    random: Random,
    traffic: Arc<Traffic>,
}

impl Codec {
    async fn connect(dial: Dial) -> Result<Codec, Down> {
        let socket = if dial.to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // The port is chosen when connecting, so that many may share the address.
        socket.bind(SocketAddr::new(dial.from, 0))?;
        let stream = socket.connect(dial.to).await?;
        stream.set_nodelay(true)?;
        let line = Line::new(stream, dial.traffic.clone(), dial.faults, dial.random);
        let name = ServerName::IpAddress(dial.to.ip().into());
        let stream = TlsConnector::from(dial.tls).connect(name, line).await?;
        let mut codec = Codec {
            stream,
            input: BytesMut::new(),
            output: BytesMut::new(),
            agent: dial.agent,
            packet_id: 0,
            twice: dial.faults.twice,
            random: dial.random,
            traffic: dial.traffic,
        };
        let mut connect = Connect::new(dial.agent.to_string());
        connect.keep_alive = KEEP_ALIVE_S;
        codec.put(&Packet::Connect(connect))?;
        codec.flush().await?;
        match codec.packet().await? {
            Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => {}
            Packet::ConnAck(_) => return Err(Down::Refused),
            _ => return Err(Down::Protocol),
        }
        let mut subscribe = Subscribe::new(topic::down(dial.agent), QoS::AtMostOnce);
        subscribe.pkid = codec.next_id();
        codec.put(&Packet::Subscribe(subscribe))?;
        codec.flush().await?;
        match codec.packet().await? {
            Packet::SubAck(ack)
                if matches!(ack.return_codes[..], [SubscribeReasonCode::Success(_)]) =>
            {
                Ok(codec)
            }
            _ => Err(Down::Protocol),
        }
    }

    fn next_id(&mut self) -> u16 {
        self.packet_id = self.packet_id.checked_add(1).unwrap_or(1);
        self.packet_id
    }

    fn put(&mut self, packet: &Packet) -> Result<(), Down> {
        let bytes = packet.write(&mut self.output, PACKET_BYTES_MAX).map_err(|_| Down::Protocol)?;
        self.traffic.mqtt.add_up(bytes);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Down> {
        let writing = async {
            self.stream.write_all_buf(&mut self.output).await?;
            self.stream.flush().await
        };
        let written = timeout(WRITE_TIMEOUT, writing).await.map_err(|_| Down::Silent)?;
        self.output = BytesMut::new();
        Ok(written?)
    }

    async fn publish(&mut self, messages: Vec<Bytes>) -> Result<(), Down> {
        let up = topic::up(self.agent);
        for message in messages {
            let times = if self.random.chance(self.twice) { 2 } else { 1 };
            for _ in 0..times {
                let mut publish =
                    Publish::from_bytes(up.as_str(), QoS::AtLeastOnce, message.clone());
                publish.pkid = self.next_id();
                self.traffic.payload.add_up(message.len());
                self.put(&Packet::Publish(publish))?;
            }
            self.traffic.twice.fetch_add(times - 1, Ordering::Relaxed);
        }
        self.flush().await
    }

    async fn packet(&mut self) -> Result<Packet, Down> {
        loop {
            match mqttbytes::check(self.input.iter(), PACKET_BYTES_MAX) {
                Ok(header) => {
                    self.traffic.mqtt.add_down(header.frame_length());
                    let packet = Packet::read(&mut self.input, PACKET_BYTES_MAX);
                    return packet.map_err(|_| Down::Protocol);
                }
                Err(mqttbytes::Error::InsufficientBytes(_)) => {}
                Err(_) => return Err(Down::Protocol),
            }
            if !self.input.has_remaining() {
                // What was read goes on inside messages; a quiet connection holds little.
                self.input = BytesMut::with_capacity(READ_BYTES);
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(Down::Closed);
            }
        }
    }

    async fn message(&mut self) -> Result<Bytes, Down> {
        loop {
            match self.packet().await? {
                Packet::Publish(publish) => {
                    self.traffic.payload.add_down(publish.payload.len());
                    return Ok(publish.payload);
                }
                // A PUBACK says only that the broker has it.
                Packet::PubAck(_) | Packet::PingResp => {}
                _ => return Err(Down::Protocol),
            }
        }
    }
}
