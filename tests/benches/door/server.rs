//! The servers that are measured, each a process of its own that is asked over its standard input.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use banyan_aggregator::broker::{Broker, BrokerConfig};
use banyan_aggregator::front_door::{DoorConfig, DoorTls, Entrance, FrontDoor, Rates, Registry};
use banyan_aggregator::identity::Identity;
use banyan_aggregator::service::system_clock;
use rumqttd::{ConnectionSettings, Notification, RouterConfig, ServerSettings};

/// The argument that makes this program bare `rumqttd` with its own listener.
pub(crate) const BARE: &str = "bare-rumqttd";
/// The argument that makes it the front door with its broker; a directory with keys makes it speak TLS.
pub(crate) const DOOR: &str = "front-door";
/// The first byte of a message that is answered with itself.
pub(crate) const ASKS: u8 = b'?';

/// Says where it listens, then answers every line with how many messages were delivered, until there are none.
fn answer(address: SocketAddr, delivered: &AtomicU64) -> Result<()> {
    println!("{address}");
    for line in std::io::stdin().lock().lines() {
        line?;
        println!("{}", delivered.load(Ordering::SeqCst));
    }
    Ok(())
}

/// `rumqttd` as it comes, and a link that takes everything.
pub(crate) fn bare() -> Result<()> {
    banyan_aggregator::descriptors::raise()?;
    let free = banyan_tests::kept_address()?;
    let server = ServerSettings {
        name: "bare".to_owned(),
        listen: free,
        tls: None,
        next_connection_delay_ms: 1,
        connections: ConnectionSettings {
            connection_timeout_ms: 60_000,
            max_payload_size: 300_000,
            max_inflight_count: 200,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        },
    };
    let config = rumqttd::Config {
        router: RouterConfig {
            max_connections: 30_000,
            max_outgoing_packet_count: 200,
            max_segment_size: 10 << 20,
            max_segment_count: 10,
            ..RouterConfig::default()
        },
        v4: Some([("bare".to_owned(), server)].into()),
        ..rumqttd::Config::default()
    };
    let mut broker = rumqttd::Broker::new(config);
    let (mut tx, mut rx) = broker.link("consumer").map_err(|error| anyhow::anyhow!("{error}"))?;
    tx.subscribe("banyan/v1/+/up").map_err(|error| anyhow::anyhow!("{error}"))?;
    let delivered = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&delivered);
    std::thread::spawn(move || {
        while let Ok(message) = rx.recv() {
            match message {
                Some(Notification::Forward(forward)) => {
                    count.fetch_add(1, Ordering::SeqCst);
                    let publish = forward.publish;
                    if publish.payload.first() == Some(&ASKS) {
                        let topic = String::from_utf8_lossy(&publish.topic).replace("/up", "/down");
                        if tx.publish(topic, publish.payload).is_err() {
                            return;
                        }
                    }
                }
                Some(Notification::Unschedule) if rx.ready().is_err() => return,
                _ => {}
            }
        }
    });
    std::thread::spawn(move || broker.start().is_ok());
    while std::net::TcpStream::connect(free).is_err() {
        std::thread::yield_now();
    }
    answer(free, &delivered)
}

/// The door, its broker, and a consumer that takes everything; without rates, which are by agent.
pub(crate) fn door(keys: Option<&str>) -> Result<()> {
    banyan_aggregator::descriptors::raise()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let delivered = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&delivered);
    let address = runtime.block_on(async {
        let registry = Registry::new(Arc::default());
        let (broker, mut incoming) = Broker::start(BrokerConfig::default(), registry.clone())?;
        let down = broker.downlink();
        tokio::spawn(async move {
            while let Some(message) = incoming.recv().await {
                count.fetch_add(1, Ordering::SeqCst);
                if message.payload.first() == Some(&ASKS) {
                    // Full: the client asks again.
                    down.publish_down(message.agent, message.payload).ok();
                }
            }
        });
        let clock = system_clock();
        let tls = match keys {
            None => None,
            Some(dir) => {
                let identity = Arc::new(Identity::open(Path::new(dir))?);
                let names = vec!["127.0.0.1".to_owned()];
                Some(Arc::new(DoorTls::new(identity, names, clock())?))
            }
        };
        let entrance = Entrance { roll: Arc::default(), tls, clock };
        let most = u32::MAX;
        let rates = Rates { packets: most, packets_burst: most, bytes: most, bytes_burst: most };
        let config = DoorConfig { rates, ..DoorConfig::default() };
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let door = FrontDoor::bind(any, config, broker.uplink(), registry, entrance).await?;
        let address = door.local_addr();
        tokio::spawn(async move {
            door.run(std::future::pending()).await;
            drop(broker);
        });
        anyhow::Ok(address)
    })?;
    answer(address, &delivered)
}

/// A server that runs.
pub(crate) struct Server {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts this program as one.
    pub(crate) fn start(arguments: &[&str]) -> Result<Server> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdin = child.stdin.take().context("it was asked for")?;
        let mut stdout = BufReader::new(child.stdout.take().context("it was asked for")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let address = line.trim().parse().with_context(|| format!("{arguments:?}: {line:?}"))?;
        Ok(Server { child, stdin, stdout, address })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How many messages its consumer has got.
    pub(crate) fn delivered(&mut self) -> Result<u64> {
        self.stdin.write_all(b"\n")?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line.trim().parse()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; either way it is waited for, so that nothing of it is left.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
