//! Figures of one server at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use banyan_aggregator::identity::Identity;
use banyan_aggregator::service::system_clock;
use banyan_shared::ids::AgentId;
use banyan_shared::topic;
use banyan_tests::fleet::{Usage, memory_mib};
use banyan_tests::herd::key;
use banyan_tests::raw::{Card, connect, publish, publish_with, read_packet, subscribe, tcp, tls};
use ring::agreement::{self, EphemeralPrivateKey, X25519, agree_ephemeral};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, HandshakeKind};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::server::{ASKS, BARE, DOOR, Server};

/// Clients that connect at a time.
const CONNECTING: usize = 64;
/// Clients that publish as fast as they can.
const PUBLISHING: usize = 8;
/// Messages each of them has under way.
const WINDOW: usize = 100;
/// Bytes of such a message.
const MESSAGE_BYTES: usize = 256;
/// How long a server at rest takes no CPU (which is counted in hundredths of a second).
const AT_REST: Duration = Duration::from_millis(200);
/// How long a client may wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// How a client comes in.
#[derive(Clone)]
pub(crate) enum Way {
    Plain,
    Tls { identity: Arc<Identity>, ca: CertificateDer<'static> },
}

/// A client that can come in.
pub(crate) struct Client {
    agent: AgentId,
    config: Option<Arc<ClientConfig>>,
    /// Whether its last handshake resumed a session.
    resumed: AtomicBool,
}

impl Way {
    fn client(&self, number: u32) -> Result<Client> {
        let key = key(number)?;
        let agent = key.public().agent_id();
        let config = match self {
            Way::Plain => None,
            Way::Tls { identity, ca } => {
                Some(Card::issued(identity, key, system_clock()())?.config(ca)?)
            }
        };
        Ok(Client { agent, config, resumed: AtomicBool::new(false) })
    }
}

impl Client {
    async fn enter(&self, server: std::net::SocketAddr) -> Result<Box<dyn Stream>> {
        let stream = tcp(server, None).await?;
        let mut stream: Box<dyn Stream> = match &self.config {
            None => Box::new(stream),
            Some(config) => {
                let stream = tls(stream, config).await?;
                let kind = stream.get_ref().1.handshake_kind();
                self.resumed.store(kind == Some(HandshakeKind::Resumed), Ordering::Relaxed);
                Box::new(stream)
            }
        };
        let down = topic::down(self.agent);
        stream.write_all(&connect(&self.agent.to_string())).await?;
        match read_packet(&mut stream).await? {
            (0x20, body) if body == [0, 0] => {}
            other => bail!("refused: {other:?}"),
        }
        stream.write_all(&subscribe(&[(&down, 0)])).await?;
        match read_packet(&mut stream).await? {
            (0x90, _) => Ok(stream),
            other => bail!("not subscribed: {other:?}"),
        }
    }

    /// Publishes and waits for the message to come back.
    async fn asks(&self, stream: &mut Box<dyn Stream>, bytes: usize) -> Result<Duration> {
        let begun = Instant::now();
        let mut message = vec![0; bytes];
        message[0] = ASKS;
        stream.write_all(&publish(&topic::up(self.agent), 1, &message)).await?;
        let answered = async {
            loop {
                if read_packet(stream).await?.0 & 0xf0 == 0x30 {
                    return anyhow::Ok(begun.elapsed());
                }
            }
        };
        tokio::time::timeout(PATIENCE, answered).await.context("no answer")?
    }
}

fn row(what: &str, server: &str, figure: String) {
    println!("| {what} | {server} | {figure} |");
}

/// Everything of every server.
pub(crate) async fn all(many: usize, small: bool) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let identity = Arc::new(Identity::create(dir.path(), system_clock()())?);
    let ca = identity.ca.certificate().clone();
    let secure = Way::Tls { identity, ca };
    let keys = dir.path().to_str().context("a path in UTF-8")?;
    println!("| what | server | figure |\n|---|---|---|");
    for (name, arguments, way) in [
        ("bare rumqttd, plain", vec![BARE], Way::Plain),
        ("door, plain", vec![DOOR], Way::Plain),
        ("door, mTLS", vec![DOOR, keys], secure),
    ] {
        round_trips(name, &arguments, &way, if small { 20 } else { 300 }).await?;
        throughput(name, &arguments, &way, if small { 0.2 } else { 3.0 }).await?;
        crowd(name, &arguments, &way, many).await?;
    }
    Ok(())
}

async fn round_trips(name: &str, arguments: &[&str], way: &Way, n: usize) -> Result<()> {
    let server = Server::start(arguments)?;
    let client = way.client(1)?;
    let mut stream = client.enter(server.address).await?;
    let mut times = Vec::with_capacity(n);
    for _ in 0..n {
        times.push(client.asks(&mut stream, 128).await?);
    }
    times.sort_unstable();
    let at = |percent: usize| times[(n * percent / 100).min(n - 1)].as_secs_f64() * 1e3;
    row("publish → answer", name, format!("p50 {:.2} ms, p99 {:.2} ms", at(50), at(99)));
    Ok(())
}

async fn throughput(name: &str, arguments: &[&str], way: &Way, seconds: f64) -> Result<()> {
    let mut server = Server::start(arguments)?;
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let begun = Instant::now();
    let mut publishing = JoinSet::new();
    for number in 0..PUBLISHING as u32 {
        let client = way.client(number)?;
        let address = server.address;
        publishing.spawn(async move {
            let mut stream = client.enter(address).await?;
            let packet = publish_with(0x32, &topic::up(client.agent), Some(1), &[0; MESSAGE_BYTES]);
            let window = packet.repeat(WINDOW);
            let (mut sent, mut acknowledged) = (0, 0);
            let mut answers = vec![0; 4 * WINDOW];
            while Instant::now() < until {
                // As many again as were acknowledged.
                let room = WINDOW - (sent - acknowledged);
                stream.write_all(&window[..room * packet.len()]).await?;
                stream.flush().await?;
                sent += room;
                acknowledged += some_acks(&mut stream, &mut answers).await?;
            }
            while acknowledged < sent {
                acknowledged += some_acks(&mut stream, &mut answers).await?;
            }
            anyhow::Ok(sent as u64)
        });
    }
    let mut sent = 0;
    while let Some(done) = publishing.join_next().await {
        sent += done??;
    }
    let took = begun.elapsed().as_secs_f64();
    let waiting = Instant::now();
    let mut delivered = server.delivered()?;
    let mut before = 0;
    // What is still on its way comes; what was skipped does not.
    while delivered < sent && (delivered != before || waiting.elapsed().as_secs() < 2) {
        before = delivered;
        tokio::time::sleep(Duration::from_millis(200)).await;
        delivered = server.delivered()?;
    }
    row(
        "QoS 1 of 256 bytes, 8 clients with 100 under way",
        name,
        format!("{:.0} a second; {delivered} of {sent} delivered", sent as f64 / took),
    );
    Ok(())
}

/// Reads some acknowledgements, whole ones.
async fn some_acks(stream: &mut Box<dyn Stream>, buffer: &mut [u8]) -> Result<usize> {
    let mut read = stream.read(buffer).await?;
    if read == 0 {
        bail!("the server hung up");
    }
    if !read.is_multiple_of(4) {
        let rest = 4 - read % 4;
        let mut odd = [0; 4];
        stream.read_exact(&mut odd[..rest]).await?;
        read += rest;
    }
    Ok(read / 4)
}

async fn crowd(name: &str, arguments: &[&str], way: &Way, many: usize) -> Result<()> {
    let server = Server::start(arguments)?;
    let id = server.id();
    let first = way.client(0)?;
    // Warm: what every process needs once is not counted.
    first.asks(&mut first.enter(server.address).await?, 128).await?;
    let clients: Vec<Arc<Client>> =
        (1..=many as u32).map(|number| way.client(number).map(Arc::new)).collect::<Result<_>>()?;
    let memory_before = memory_mib(id)?.0;
    let address = server.address;
    let (held, rate, cpu_each) = all_enter(&clients, &server).await?;
    at_rest(id).await?;
    let bytes_each = (memory_mib(id)?.0 - memory_before) * 1_048_576.0 / many as f64;
    let what = match way {
        Way::Plain => "connections with CONNECT and SUBSCRIBE",
        Way::Tls { .. } => "full handshakes with CONNECT and SUBSCRIBE",
    };
    row(what, name, entered(rate, cpu_each));
    row(&format!("{many} idle connections"), name, format!("{:.1} KB each", bytes_each / 1e3));
    let begun = Instant::now();
    drop(held);
    let dropped = begun.elapsed();
    first.asks(&mut first.enter(address).await?, 128).await?;
    row(
        &format!("another is served after {many} left at once"),
        name,
        format!(
            "{:.2} s from the first to leave, {:.3} s of it the leaving",
            begun.elapsed().as_secs_f64(),
            dropped.as_secs_f64()
        ),
    );
    if matches!(way, Way::Tls { .. }) {
        let (_, rate, cpu_each) = all_enter(&clients, &server).await?;
        let resumed =
            clients.iter().filter(|client| client.resumed.load(Ordering::Relaxed)).count();
        if resumed < many {
            bail!("only {resumed} of {many} sessions were resumed");
        }
        row("the same, resumed", name, entered(rate, cpu_each));
        row("", "the handshake's arithmetic alone", format!("{:.3} ms", arithmetic(many)? * 1e3));
    }
    Ok(())
}

/// Waits until a process has taken no CPU for a while.
async fn at_rest(id: u32) -> Result<()> {
    let begun = Instant::now();
    let mut before = Usage::of(id)?.cpu_s();
    loop {
        tokio::time::sleep(AT_REST).await;
        let now = Usage::of(id)?.cpu_s();
        if now == before {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            bail!("the server does not come to rest");
        }
        before = now;
    }
}

fn entered(rate: f64, cpu_each: f64) -> String {
    format!("{rate:.0} a second, {:.3} ms of the server's CPU each", cpu_each * 1e3)
}

/// All come in, some at a time. Gives their connections, how many came a second, and the server's CPU for each.
async fn all_enter(
    clients: &[Arc<Client>],
    server: &Server,
) -> Result<(Vec<Box<dyn Stream>>, f64, f64)> {
    let (before, begun) = (Usage::of(server.id())?.cpu_s(), Instant::now());
    let address = server.address;
    let mut entering = JoinSet::new();
    let mut held = Vec::with_capacity(clients.len());
    for client in clients {
        if entering.len() == CONNECTING {
            held.push(entering.join_next().await.context("one is")???);
        }
        let client = Arc::clone(client);
        entering.spawn(async move { client.enter(address).await });
    }
    while let Some(entered) = entering.join_next().await {
        held.push(entered??);
    }
    let n = clients.len() as f64;
    Ok((held, n / begun.elapsed().as_secs_f64(), (Usage::of(server.id())?.cpu_s() - before) / n))
}

/// Seconds of the arithmetic that a server cannot do without for a full handshake with client certificates: a
/// key pair and an agreement (X25519), a signature, and two signatures of the client's checked (Ed25519: that
/// over the handshake, that on its certificate).
fn arithmetic(n: usize) -> Result<f64> {
    let broken = |_| anyhow!("the arithmetic fails");
    let random = ring::rand::SystemRandom::new();
    let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).map_err(|error| anyhow!("{error}"))?;
    let checked = UnparsedPublicKey::new(&ED25519, key.public_key().as_ref().to_vec());
    let message = [5; 130];
    let peer = EphemeralPrivateKey::generate(&X25519, &random).map_err(broken)?;
    let peer = peer.compute_public_key().map_err(broken)?;
    let peer = agreement::UnparsedPublicKey::new(&X25519, peer.as_ref().to_vec());
    let begun = Instant::now();
    for _ in 0..n {
        let own = EphemeralPrivateKey::generate(&X25519, &random).map_err(broken)?;
        std::hint::black_box(own.compute_public_key().map_err(broken)?);
        agree_ephemeral(own, &peer, |secret| std::hint::black_box(secret.len())).map_err(broken)?;
        let signature = key.sign(&message);
        for _ in 0..2 {
            checked.verify(&message, signature.as_ref()).map_err(broken)?;
        }
    }
    Ok(begun.elapsed().as_secs_f64() / n as f64)
}
