//! The life of one agent: it connects, types, sends, loses its line, waits and comes back.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use banyan_agent::backoff::backoff;
use banyan_agent::tls::{Pin, client_config};
use banyan_shared::ids::Millis;
use banyan_shared::limits::KEEP_ALIVE_S;
use rustls::ClientConfig;
use rustls::client::Resumption;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::agent::{Agent, Centre, Step};
use super::client::{Client, Dial, Down};
use super::line::{Faults, Traffic};
use super::options::ClientKind;
use super::proof::Probe;
use super::random::Random;

/// What all agents share.
pub(super) struct Shared {
    /// Where the aggregator is.
    pub(super) to: SocketAddr,
    pub(super) client: ClientKind,
    pub(super) faults: Faults,
    pub(super) centre: Centre,
    pub(super) traffic: Arc<Traffic>,
    pub(super) counters: Arc<Counters>,
    /// Since when the clock runs that agents go by.
    pub(super) born: Instant,
    /// The moment the measured time began; before it nothing is typed.
    pub(super) go: watch::Receiver<Option<Instant>>,
    /// Whether everything is over.
    pub(super) stop: watch::Receiver<bool>,
    /// Sockets this process may still open.
    pub(super) sockets: Arc<Semaphore>,
    /// How many agents more may be about to connect: each would have a processor of its own, and is slow here
    /// only because they share this one.
    pub(super) turns: Arc<Semaphore>,
    /// To whoever looks when something can be seen.
    pub(super) probes: SyncSender<Probe>,
}

/// What happens, counted.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Reports proved to be in the ledger, again if they were lost there.
    pub(super) receipts: AtomicU64,
    /// Agents whose hello was answered at least once.
    pub(super) greeted: AtomicU64,
    /// Agents that have typed all and have a receipt for all.
    pub(super) settled: AtomicU64,
    /// Connections open now.
    pub(super) open: AtomicU64,
    /// Attempts to connect.
    pub(super) attempts: AtomicU64,
    /// Sessions resumed.
    pub(super) resumed: AtomicU64,
    /// Connections given up on purpose, without a word.
    pub(super) vanished: AtomicU64,
    /// Ends of connections, by [`Down::ALL`].
    pub(super) downs: [AtomicU64; 6],
}

impl Counters {
    fn down(&self, down: Down) {
        if let Some(at) = Down::ALL.iter().position(|one| *one == down) {
            self.downs[at].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What one agent does and when.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    /// Its address.
    pub(super) from: Option<IpAddr>,
    /// Whether it connects before the measured time.
    pub(super) early: bool,
    /// After which time in the measured time each of the next entries of the notebook is typed.
    pub(super) due: Vec<Duration>,
    /// Hangs up when everything has its receipt.
    pub(super) leaves: bool,
    /// How long a connection lasts at most before the agent vanishes.
    pub(super) vanishes: Option<Duration>,
}

/// How long it took from typed to receipted, and for how many reports.
pub(super) type Latency = (u32, u32);

/// An agent with its life.
pub(super) struct Life {
    /// Its place among the agents.
    pub(super) place: usize,
    pub(super) agent: Agent,
    plan: Plan,
    random: Random,
    shared: Arc<Shared>,
    tls: Option<Arc<ClientConfig>>,
    /// Entries typed before the measured time.
    before: u64,
    typed: usize,
    greeted: bool,
    settled: bool,
    pub(super) latencies: Vec<Latency>,
}

/// How a connection ended for the agent.
enum Ended {
    /// It has said good-bye, or everything is over.
    Over,
    /// The line is down; whether the hello had been answered.
    Down(bool),
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

impl Life {
    pub(super) fn new(
        (place, agent): (usize, Agent),
        plan: Plan,
        random: Random,
        shared: Arc<Shared>,
    ) -> Life {
        let before = agent.written();
        Life {
            place,
            agent,
            plan,
            random,
            shared,
            tls: None,
            before,
            typed: 0,
            greeted: false,
            settled: false,
            latencies: Vec::new(),
        }
    }

    /// Lives until the end of the run and gives itself back.
    pub(super) async fn live(mut self) -> Life {
        let mut stop = self.shared.stop.clone();
        tokio::select! {
            () = told(&mut stop) => {}
            () = Box::pin(self.connect_for_ever()) => {}
        }
        self
    }

    fn now(&self) -> Millis {
        let ms = self.shared.born.elapsed().as_millis();
        Millis(i64::try_from(ms).unwrap_or(i64::MAX))
    }

    fn went(&self) -> Option<Instant> {
        *self.shared.go.borrow()
    }

    /// When the next report is typed.
    fn next_due(&self) -> Option<Instant> {
        Some(self.went()? + *self.plan.due.get(self.typed)?)
    }

    /// Types what is due.
    fn type_due(&mut self) {
        let now = Instant::now();
        while self.next_due().is_some_and(|due| due <= now) {
            self.agent.write(1);
            self.typed += 1;
        }
    }

    async fn connect_for_ever(&mut self) {
        let mut go = self.shared.go.clone();
        if !self.plan.early {
            begun(&mut go).await;
        }
        let mut attempt = 0;
        loop {
            let ended = self.connection().await;
            let now = self.now();
            self.agent.disconnected(now);
            attempt = match ended {
                Ended::Over => return,
                Ended::Down(true) => 0,
                Ended::Down(false) => attempt + 1,
            };
            let again = Instant::now() + backoff(attempt, self.random.next_u32());
            self.offline_until(again).await;
        }
    }

    async fn offline_until(&mut self, again: Instant) {
        loop {
            match self.next_due() {
                Some(due) if due < again => {
                    tokio::time::sleep_until(due).await;
                    self.type_due();
                }
                _ => return tokio::time::sleep_until(again).await,
            }
        }
    }

    fn dial(&mut self) -> Result<Dial, Down> {
        let shared = &self.shared;
        let tls = match &self.tls {
            Some(tls) => tls.clone(),
            None => {
                let pin = Pin { root: shared.centre.root, newest: shared.centre.newest };
                let tls = client_config(&self.agent.key, Some(&self.agent.certificate), pin)
                    .map_err(|_| Down::Tls)?;
                // A real agent has one of these; tens of thousands keep one session each.
                let mut tls = Arc::unwrap_or_clone(tls);
                tls.resumption = Resumption::in_memory_sessions(1);
                self.tls.insert(Arc::new(tls)).clone()
            }
        };
        let any = IpAddr::from([127, 0, 0, 1]);
        // Numbers of its own: a fault must not strike again only because the same draws come again.
        let random = Random::new(self.random.next(), 1);
        Ok(Dial {
            to: shared.to,
            from: self.plan.from.unwrap_or(any),
            agent: self.agent.id,
            tls,
            faults: shared.faults,
            random,
            traffic: shared.traffic.clone(),
        })
    }

    async fn connection(&mut self) -> Ended {
        let shared = self.shared.clone();
        let counters = &shared.counters;
        let Ok(_socket) = shared.sockets.acquire().await else { return Ended::Over };
        let Ok(turn) = shared.turns.acquire().await else { return Ended::Over };
        counters.attempts.fetch_add(1, Ordering::Relaxed);
        let client = match self.dial() {
            Ok(dial) => match self.shared.client {
                ClientKind::Codec => Client::codec(dial).await,
                ClientKind::Rumqttc => Client::rumqttc(&dial).await,
            },
            Err(down) => Err(down),
        };
        drop(turn);
        let mut client = match client {
            Ok(client) => client,
            Err(down) => {
                counters.down(down);
                return Ended::Down(false);
            }
        };
        counters.resumed.fetch_add(u64::from(client.is_resumed()), Ordering::Relaxed);
        counters.open.fetch_add(1, Ordering::Relaxed);
        let ended = self.converse(&mut client).await;
        counters.open.fetch_sub(1, Ordering::Relaxed);
        let answered = self.agent.is_answered();
        match ended {
            Ok(()) => {
                client.close().await;
                Ended::Over
            }
            Err(down) => {
                counters.down(down);
                Ended::Down(answered)
            }
        }
    }

    /// Goes on until the agent has said all and may leave (`Ok`) or the line is down.
    async fn converse(&mut self, client: &mut Client) -> Result<(), Down> {
        let nonce = self.random.next();
        let vanish = self.plan.vanishes.map(|longest| {
            let longest = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
            Instant::now() + Duration::from_millis(1 + self.random.below(longest))
        });
        let mut go = self.shared.go.clone();
        self.type_due();
        let step = self.agent.connected(self.now(), nonce);
        self.take(client, step).await?;
        let mut spoke = Instant::now();
        loop {
            if self.is_over() {
                return Ok(());
            }
            let tick = self.agent.wake_at().map(|at| {
                self.shared.born + Duration::from_millis(u64::try_from(at.0).unwrap_or(0))
            });
            let ping = spoke + Duration::from_secs(u64::from(KEEP_ALIVE_S));
            let (due, went) = (self.next_due(), self.went().is_some());
            let step = tokio::select! {
                message = client.message() => {
                    let message = message?;
                    self.agent.received(self.now(), &message)
                }
                () = at(due) => {
                    self.type_due();
                    self.agent.tick(self.now())
                }
                () = at(tick) => self.agent.tick(self.now()),
                () = at(Some(ping)) => {
                    client.ping().await?;
                    spoke = Instant::now();
                    continue;
                }
                () = begun(&mut go), if !went => continue,
                () = at(vanish) => {
                    self.shared.counters.vanished.fetch_add(1, Ordering::Relaxed);
                    return Err(Down::Closed);
                }
            };
            if !step.send.is_empty() {
                spoke = Instant::now();
            }
            self.take(client, step).await?;
        }
    }

    /// Whether there is nothing left to do; notes it when it first happens.
    fn is_over(&mut self) -> bool {
        let counters = &self.shared.counters;
        if !self.greeted && self.agent.is_answered() {
            self.greeted = true;
            counters.greeted.fetch_add(1, Ordering::Relaxed);
        }
        let settled =
            self.went().is_some() && self.typed == self.plan.due.len() && self.agent.is_settled();
        if settled && !self.settled {
            self.settled = true;
            counters.settled.fetch_add(1, Ordering::Relaxed);
        }
        settled && self.plan.leaves
    }

    /// Notes what a step brought and sends what it says.
    async fn take(&mut self, client: &mut Client, step: Step) -> Result<(), Down> {
        let confirmed: u64 = step.confirmed.iter().map(|(first, last)| last - first + 1).sum();
        self.shared.counters.receipts.fetch_add(confirmed, Ordering::Relaxed);
        if let (Some(&(_, newest)), Some(went)) = (step.confirmed.last(), self.went()) {
            let now = Instant::now();
            for &(first, last) in &step.confirmed {
                self.note_latency(first, last, went, now);
            }
            let probe = Probe {
                facility: self.agent.notebook.home.clone(),
                day: self.agent.notebook.day(newest),
                accepted_at: step.at,
            };
            // Whoever looks is busy most of the time: some are looked for, not all.
            let _ = self.shared.probes.try_send(probe);
        }
        if !step.send.is_empty() {
            client.publish(step.send).await?;
        }
        if step.hang_up { Err(Down::Refused) } else { Ok(()) }
    }

    fn note_latency(&mut self, first: u64, last: u64, went: Instant, now: Instant) {
        // Everything typed before the measured time counts from its beginning.
        let old = (last.min(self.before) + 1).saturating_sub(first);
        if old > 0 {
            let took = micros(now.saturating_duration_since(went));
            self.latencies.push((took, u32::try_from(old).unwrap_or(u32::MAX)));
        }
        for seq in first.max(self.before + 1)..=last {
            let at = usize::try_from(seq - self.before - 1).unwrap_or(usize::MAX);
            if let Some(due) = self.plan.due.get(at) {
                self.latencies.push((micros(now.saturating_duration_since(went + *due)), 1));
            }
        }
    }
}

/// Done when everything is over. The sender goes only after that.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Done when the measured time has begun. The sender goes only after all agents.
async fn begun(go: &mut watch::Receiver<Option<Instant>>) {
    let _ = go.wait_for(Option::is_some).await;
}

/// Done at `when`; never if there is none.
async fn at(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}
