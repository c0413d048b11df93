//! MQTT and TLS by hand, so that both can be wrong: what attackers and light clients of the door are made of.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use banyan_aggregator::identity::Identity as Centre;
use banyan_shared::ids::{AgentId, Epoch, Millis};
use banyan_shared::keys::SigningKey;
use banyan_shared::wire::{Batch, Beacon, Hello};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The answer to a CONNECT that is accepted.
pub const ACCEPTED: [u8; 4] = [0x20, 2, 0, 0];
/// DISCONNECT.
pub const DISCONNECT: [u8; 2] = [0xe0, 0];
/// PINGREQ.
pub const PINGREQ: [u8; 2] = [0xc0, 0];
/// AUTH, as MQTT 5 has it.
pub const AUTH: [u8; 2] = [0xf0, 0];

/// A packet: its first byte, its length, its body.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut rest = body.len();
    loop {
        let byte = (rest % 128) as u8;
        rest /= 128;
        out.push(if rest > 0 { byte | 0x80 } else { byte });
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend(length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// CONNECT with any version and flags.
pub fn connect_with(level: u8, flags: u8, keep_alive: u16, id: &str) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, "MQTT");
    body.extend([level, flags]);
    body.extend(keep_alive.to_be_bytes());
    if level == 5 {
        body.push(0);
    }
    text(&mut body, id);
    packet(0x10, &body)
}

/// CONNECT as our agents send it.
pub fn connect(id: &str) -> Vec<u8> {
    connect_with(4, 0b10, 60, id)
}

/// PUBLISH with any flags; at QoS 1 and 2 with a packet number.
pub fn publish_with(first: u8, topic: &str, packet_id: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic);
    body.extend(packet_id.iter().flat_map(|id| id.to_be_bytes()));
    body.extend_from_slice(payload);
    packet(first, &body)
}

/// PUBLISH at QoS 1.
pub fn publish(topic: &str, packet_id: u16, payload: &[u8]) -> Vec<u8> {
    publish_with(0x32, topic, Some(packet_id), payload)
}

/// SUBSCRIBE to these filters.
pub fn subscribe(filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = vec![0, 9];
    for (filter, qos) in filters {
        text(&mut body, filter);
        body.push(*qos);
    }
    packet(0x82, &body)
}

/// PUBACK.
pub fn puback(packet_id: u16) -> Vec<u8> {
    packet(0x40, &packet_id.to_be_bytes())
}

/// Reads one whole packet: its first byte and its body.
///
/// # Errors
/// The stream ends, or its length is none.
pub async fn read_packet(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<(u8, Vec<u8>)> {
    let first = stream.read_u8().await?;
    let mut length = 0;
    for shift in [0, 7, 14, 21] {
        let byte = stream.read_u8().await?;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await?;
            return Ok((first, body));
        }
    }
    Err(std::io::Error::other("a length of more than four bytes"))
}

/// The payload of a PUBLISH at QoS 0, taken apart by hand.
pub fn payload(body: &[u8]) -> Option<&[u8]> {
    let topic = usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?]));
    body.get(2 + topic..)
}

/// A key and what it shows.
pub struct Card {
    /// Whose.
    pub key: SigningKey,
    /// The certificate; none to show none.
    pub certificate: Option<CertificateDer<'static>>,
}

impl std::fmt::Debug for Card {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Card").field("agent", &self.agent()).finish_non_exhaustive()
    }
}

impl Card {
    /// A certificate the key signs itself.
    ///
    /// # Errors
    /// It cannot be signed.
    pub fn own(key: SigningKey) -> Result<Card> {
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&key.pkcs8().into(), &PKCS_ED25519)?;
        let certificate = CertificateParams::default().self_signed(&pair)?;
        Ok(Card { key, certificate: Some(certificate.der().clone()) })
    }

    /// A certificate the centre issues, as of `at`.
    ///
    /// # Errors
    /// It cannot be signed.
    pub fn issued(centre: &Centre, key: SigningKey, at: Millis) -> Result<Card> {
        let issued = centre.ca.certify(&key.public(), at)?;
        Ok(Card { key, certificate: Some(issued.certificate.into()) })
    }

    /// Whose it is.
    pub fn agent(&self) -> AgentId {
        self.key.public().agent_id()
    }

    /// A configuration as any public client has it: the CA's certificate as the root, dates and names checked.
    ///
    /// # Errors
    /// Key and certificate do not belong together.
    pub fn config(&self, ca: &CertificateDer<'static>) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots);
        let mut config = match &self.certificate {
            None => builder.with_no_client_auth(),
            Some(certificate) => {
                let secret = PrivateKeyDer::Pkcs8(self.key.pkcs8().to_vec().into());
                builder.with_client_auth_cert(vec![certificate.clone()], secret)?
            }
        };
        // One server, one session: thousands of these are held at a time.
        config.resumption = rustls::client::Resumption::in_memory_sessions(1);
        Ok(Arc::new(config))
    }
}

/// The centre's identity in its data directory.
///
/// # Errors
/// It cannot be read.
pub fn centre_of(dir: &Path) -> Result<Centre> {
    Centre::open(dir).context("the centre's keys")
}

/// A TCP connection from `from` (any of this machine's addresses).
///
/// # Errors
/// What the system says.
pub async fn tcp(addr: SocketAddr, from: Option<[u8; 4]>) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(from) = from {
        socket.bind(SocketAddr::from((from, 0)))?;
    }
    socket.set_nodelay(true)?;
    socket.connect(addr).await
}

/// Makes closing this connection a reset.
///
/// # Errors
/// What the system says.
pub fn will_reset(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_zero_linger()
}

/// A TLS connection over `stream` to a server called by its address.
///
/// # Errors
/// The handshake fails.
pub async fn tls(
    stream: TcpStream,
    config: &Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("127.0.0.1").expect("an address is a name");
    TlsConnector::from(Arc::clone(config)).connect(name, stream).await
}

/// Connects over TLS and sends a CONNECT as `id`; the stream and the CONNACK's code.
///
/// # Errors
/// There is no answer.
pub async fn enter(
    addr: SocketAddr,
    config: &Arc<ClientConfig>,
    id: &str,
    from: Option<[u8; 4]>,
) -> Result<(TlsStream<TcpStream>, u8)> {
    let mut stream = tls(tcp(addr, from).await?, config).await?;
    stream.write_all(&connect(id)).await?;
    match read_packet(&mut stream).await? {
        (0x20, body) if body.len() == 2 => Ok((stream, body[1])),
        other => bail!("not a CONNACK: {other:?}"),
    }
}

/// A hello under a context.
pub fn hello(agent: AgentId, context: u32, nonce: u64) -> Batch {
    Batch {
        agent,
        epoch: Epoch { counter: 1, random: 7 },
        context,
        hello: Some(Hello { nonce, beacon: Beacon::default(), operating: None }),
        entries: Vec::new(),
    }
}

/// How long anything may take.
pub const SOON: Duration = Duration::from_secs(20);
