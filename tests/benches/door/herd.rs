//! A herd before a whole aggregator: thousands of enrolled agents that come for the first time, come back after
//! the aggregator was killed and started again, and after all lines were cut for a while.
//!
//! Each is what an agent is on the wire: handshake, CONNECT, SUBSCRIBE, a signed hello, a receipt that is
//! verified; and it waits between attempts as the agent's driver does, by the same function.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use banyan_agent::backoff::backoff;
use banyan_aggregator::service::system_clock;
use banyan_shared::ids::AgentId;
use banyan_shared::keys::{PublicKey, SigningKey};
use banyan_shared::limits::{CONNECT_TIMEOUT_S, KEEP_ALIVE_S};
use banyan_shared::topic;
use banyan_shared::wire::{Envelope, Receipt};
use banyan_tests::fleet::{Usage, memory_mib};
use banyan_tests::herd::{Member, enrolled};
use banyan_tests::raw::{
    Card, PINGREQ, centre_of, connect, hello, payload, publish, read_packet, subscribe, tcp, tls,
};
use banyan_tests::{Process, until};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustls::ClientConfig;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

/// Networks they come from: a province has some ninety counties.
const ADDRESSES: usize = 90;
/// How long everybody may take to be back.
const LIMIT: Duration = Duration::from_secs(900);
/// How long the lines are cut.
const CUT: Duration = Duration::from_secs(20);

/// What the herd does, noted.
struct Notes {
    begun: Instant,
    nonce: AtomicU64,
    online: watch::Sender<usize>,
    attempts: Mutex<Vec<Duration>>,
    receipts: Mutex<Vec<(Duration, Duration)>>,
}

impl Notes {
    fn note<T>(&self, list: &Mutex<Vec<T>>, one: T) {
        list.lock().unwrap_or_else(PoisonError::into_inner).push(one);
    }
}

struct Agent {
    id: AgentId,
    key: SigningKey,
    context: u32,
    config: Arc<ClientConfig>,
    operating: PublicKey,
    from: [u8; 4],
    server: SocketAddr,
    notes: Arc<Notes>,
    /// Whether the line is cut.
    cut: watch::Receiver<bool>,
}

/// One of the online.
struct Online<'a>(&'a Notes);

impl Drop for Online<'_> {
    fn drop(&mut self) {
        self.0.online.send_modify(|online| *online -= 1);
    }
}

impl Agent {
    async fn run(mut self) {
        let mut random = StdRng::seed_from_u64(u64::from(self.context));
        let mut attempt = 0;
        loop {
            tokio::time::sleep(backoff(attempt, random.random())).await;
            let notes = Arc::clone(&self.notes);
            notes.note(&notes.attempts, notes.begun.elapsed());
            let mut answered = false;
            if !*self.cut.borrow_and_update() {
                // Whatever ends a connection, the driver does the same about it.
                let _ = self.connection(&mut answered).await;
            }
            attempt = if answered { 0 } else { attempt + 1 };
        }
    }

    async fn connection(&mut self, answered: &mut bool) -> Result<()> {
        let notes = Arc::clone(&self.notes);
        let up = async {
            let stream = tcp(self.server, Some(self.from)).await?;
            let mut stream = tls(stream, &self.config).await?;
            stream.write_all(&connect(&self.id.to_string())).await?;
            if read_packet(&mut stream).await? != (0x20, vec![0, 0]) {
                bail!("refused");
            }
            stream.write_all(&subscribe(&[(&topic::down(self.id), 0)])).await?;
            read_packet(&mut stream).await?;
            anyhow::Ok(stream)
        };
        let mut stream = tokio::time::timeout(Duration::from_secs(CONNECT_TIMEOUT_S), up).await??;
        let nonce = notes.nonce.fetch_add(1, Ordering::SeqCst);
        let said = Instant::now();
        let message = hello(self.id, self.context, nonce).seal(&self.key);
        stream.write_all(&publish(&topic::up(self.id), 1, &message)).await?;
        let mut online = None;
        loop {
            let ping = tokio::time::sleep(Duration::from_secs(u64::from(KEEP_ALIVE_S)));
            tokio::select! {
                read = read_packet(&mut stream) => {
                    let (first, body) = read?;
                    if first == 0x30 && online.is_none() && self.is_receipt(&body, nonce) {
                        *answered = true;
                        notes.note(&notes.receipts, (notes.begun.elapsed(), said.elapsed()));
                        notes.online.send_modify(|online| *online += 1);
                        online = Some(Online(&notes));
                    }
                }
                () = ping => stream.write_all(&PINGREQ).await?,
                _ = self.cut.changed() => return Ok(()),
            }
        }
    }

    fn is_receipt(&self, body: &[u8], nonce: u64) -> bool {
        let receipt = payload(body)
            .and_then(|payload| Envelope::read(payload).ok())
            .and_then(|envelope| Receipt::open(&envelope, &self.operating).ok());
        receipt.is_some_and(|receipt| receipt.answers == Some(nonce))
    }
}

fn serve(dir: &Path, port: u16) -> Result<(Process, SocketAddr)> {
    let addresses = dir.join("run/addresses.json");
    if addresses.exists() {
        std::fs::remove_file(&addresses)?;
    }
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--data-dir").arg(dir);
    command.args(["serve", "--mqtt-addr", &format!("mqtts://127.0.0.1:{port}")]);
    command.args(["--http-addr", "127.0.0.1:0"]);
    let process = Process::start(&mut command, &dir.with_extension("log"))?;
    let address = until("the aggregator is ready", LIMIT, || {
        process.check()?;
        let Ok(bytes) = std::fs::read(&addresses) else { return Ok(None) };
        let json: serde_json::Value = serde_json::from_slice(&bytes)?;
        Ok(Some(json["mqtt"].as_str().context("an address")?.parse()?))
    })?;
    Ok((process, address))
}

/// Waits until all are online, and tells how that went since `from`.
async fn all_back(what: &str, notes: &Notes, n: usize, from: Duration, server: u32) -> Result<()> {
    let cpu_before = Usage::of(server)?.cpu_s();
    let mut online = notes.online.subscribe();
    // What it gives holds a lock on the number: it is let go of at once.
    let late = tokio::time::timeout(LIMIT, online.wait_for(|online| *online >= n)).await.is_err();
    if late {
        bail!("{what}: only {} are back", *notes.online.borrow());
    }
    let took = notes.begun.elapsed().saturating_sub(from);
    let attempts =
        std::mem::take(&mut *notes.attempts.lock().unwrap_or_else(PoisonError::into_inner));
    let mut receipts: Vec<(Duration, Duration)> =
        std::mem::take(&mut *notes.receipts.lock().unwrap_or_else(PoisonError::into_inner));
    let after: Vec<&Duration> = attempts.iter().filter(|at| **at >= from).collect();
    let mut by_second = vec![0; took.as_secs() as usize + 1];
    for at in &after {
        by_second[((**at - from).as_secs() as usize).min(took.as_secs() as usize)] += 1;
    }
    receipts.sort_unstable_by_key(|(at, _)| *at);
    let back = |percent: usize| {
        let at =
            receipts.get((receipts.len() * percent / 100).min(receipts.len().saturating_sub(1)));
        at.map_or(0.0, |(at, _)| at.saturating_sub(from).as_secs_f64())
    };
    let mut times: Vec<Duration> = receipts.iter().map(|(_, took)| *took).collect();
    times.sort_unstable();
    let at = |percent: usize| {
        times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied()
    };
    println!(
        "| {what} | half are back after {:.1} s, 95 % after {:.1} s, all after {:.1} s | {} attempts, in the first \
         seconds {:?}; \
         hello → receipt p50 {:.0} ms, p99 {:.0} ms; the server took {:.2} s of CPU and {:.0} MB |",
        back(50),
        back(95),
        took.as_secs_f64(),
        after.len(),
        &by_second[..by_second.len().min(10)],
        at(50).unwrap_or_default().as_secs_f64() * 1e3,
        at(99).unwrap_or_default().as_secs_f64() * 1e3,
        Usage::of(server)?.cpu_s() - cpu_before,
        memory_mib(server)?.0 * 1.048_576,
    );
    Ok(())
}

/// All of it.
pub(crate) async fn all(many: usize, small: bool) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let dir = dir.path().join("centre");
    let members = enrolled(&dir, many)?;
    let centre = centre_of(&dir)?;
    let ca = centre.ca.certificate().clone();
    let operating = centre.key.public();
    let (process, server) = serve(&dir, banyan_tests::kept_address()?.port())?;
    let notes = Arc::new(Notes {
        begun: Instant::now(),
        nonce: AtomicU64::new(1),
        online: watch::Sender::new(0),
        attempts: Mutex::default(),
        receipts: Mutex::default(),
    });
    let (cutting, cut) = watch::channel(false);
    println!("| a herd of {many} | back | |\n|---|---|---|");
    let now = system_clock()();
    let mut agents = Vec::with_capacity(many);
    for (number, Member { key, context }) in members.into_iter().enumerate() {
        let secret = SigningKey::from_pkcs8(key.pkcs8())?;
        let config = Card::issued(&centre, key, now)?.config(&ca)?;
        let from = [127, 0, 1, (1 + number % ADDRESSES) as u8];
        let (notes, cut) = (Arc::clone(&notes), cut.clone());
        let id = secret.public().agent_id();
        agents.push(Agent {
            id,
            key: secret,
            context,
            config,
            operating,
            from,
            server,
            notes,
            cut,
        });
    }
    let from = notes.begun.elapsed();
    let running: Vec<_> = agents.into_iter().map(|agent| tokio::spawn(agent.run())).collect();
    all_back("all come at once", &notes, many, from, process.id()).await?;

    process.kill9()?;
    let down = Instant::now();
    let (process, _) = serve(&dir, server.port())?;
    let from = notes.begun.elapsed();
    let what =
        format!("the aggregator was killed and started, {:.1} s", down.elapsed().as_secs_f64());
    all_back(&what, &notes, many, from, process.id()).await?;

    cutting.send_replace(true);
    let cut_for = if small { Duration::from_secs(2) } else { CUT };
    tokio::time::sleep(cut_for).await;
    let from = notes.begun.elapsed();
    cutting.send_replace(false);
    let what = format!("all lines were cut for {:.0} s", cut_for.as_secs_f64());
    all_back(&what, &notes, many, from, process.id()).await?;
    for agent in running {
        agent.abort();
    }
    let status = process.terminate(Duration::from_secs(60))?;
    if status.success() { Ok(()) } else { bail!("the aggregator ended with {status}") }
}
