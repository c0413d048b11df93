//! Where agents live: started, let go, watched, and collected again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use indicatif::ProgressBar;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::agent::Agent;
use super::life::{Counters, Latency, Life, Plan, Shared};
use super::line::Traffic;
use super::measure::{self, Memory, Percentiles, Usage, memory_mib};
use super::options::{Options, Scenario};
use super::proof::{Probe, look};
use super::random::Random;
use super::scenario::regroup;
use super::world::Made;
use crate::harness::Aggregator;

/// Agents that may be about to connect at once.
const CONNECTING_MAX: usize = 1_024;
/// How often it is looked whether everything is over.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What the measured time was like.
pub(super) struct Measured {
    /// Whether everything has its receipt.
    pub(super) finished: bool,
    pub(super) seconds: f64,
    /// Reports receipted.
    pub(super) reports: u64,
    pub(super) latencies: Vec<Latency>,
    pub(super) own: Usage,
    pub(super) centre: Usage,
    pub(super) memory: Memory,
    pub(super) visible: Percentiles,
    pub(super) unseen: u64,
    pub(super) regroupings: u64,
    pub(super) counters: Arc<Counters>,
    pub(super) traffic: Arc<Traffic>,
}

/// The threads the agents share.
pub(super) struct Stage<'a> {
    options: &'a Options,
    runtime: Runtime,
    sockets: usize,
    bar: &'a ProgressBar,
}

/// Agents alive.
struct Alive {
    shared: Arc<Shared>,
    go: watch::Sender<Option<Instant>>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<Life>,
    /// How many.
    agents: u64,
    /// Reports they have to send before the measured time.
    early: u64,
    /// When they are given up.
    limit: Instant,
}

impl<'a> Stage<'a> {
    pub(super) fn new(
        options: &'a Options,
        sockets: usize,
        bar: &'a ProgressBar,
    ) -> Result<Stage<'a>> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(usize::try_from(options.threads)?)
            .thread_name("agents")
            .enable_all()
            .build()?;
        Ok(Stage { options, runtime, sockets, bar })
    }

    fn start(
        &self,
        to: SocketAddr,
        made: &Made,
        agents: Vec<Agent>,
        plans: Vec<Plan>,
    ) -> (Alive, Receiver<Probe>) {
        let (go, went) = watch::channel(None);
        let (stop, stopped) = watch::channel(false);
        // Taken only by a looker who waits: what is looked for has just been receipted.
        let (probes, probed) = sync_channel(0);
        let shared = Arc::new(Shared {
            to,
            client: self.options.client,
            faults: self.options.link,
            centre: made.centre,
            traffic: Arc::default(),
            counters: Arc::default(),
            born: Instant::now(),
            go: went,
            stop: stopped,
            sockets: Arc::new(Semaphore::new(self.sockets.min(Semaphore::MAX_PERMITS))),
            turns: Arc::new(Semaphore::new(CONNECTING_MAX)),
            probes,
        });
        let _inside = self.runtime.enter();
        let mut alive = Alive {
            shared: shared.clone(),
            go,
            stop,
            tasks: JoinSet::new(),
            agents: agents.len() as u64,
            early: 0,
            limit: Instant::now() + Duration::from_secs(self.options.limit),
        };
        for (place, (agent, plan)) in agents.into_iter().zip(plans).enumerate() {
            alive.early += if plan.early { agent.waiting() } else { 0 };
            let random = Random::new(self.options.seed ^ 0x006c_6966_6500, place as u64);
            let life = Life::new((place, agent), plan, random, shared.clone());
            alive.tasks.spawn(life.live());
        }
        (alive, probed)
    }

    /// Waits until a counter has come to `wanted`; false if it does not in time.
    fn reach(&self, alive: &Alive, counter: &AtomicU64, wanted: u64) -> bool {
        self.runtime.block_on(async {
            loop {
                let there = counter.load(Ordering::Relaxed) >= wanted;
                if there || Instant::now() > alive.limit {
                    return there;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
    }

    /// Waits until those who connect before the measured time have, and what they had to send is received.
    fn ready(&self, alive: &Alive) -> bool {
        if !self.options.scenario.is_connected_before() {
            return true;
        }
        self.bar.set_message("connecting");
        let counters = &alive.shared.counters;
        self.reach(alive, &counters.greeted, alive.agents)
            && self.reach(alive, &counters.receipts, alive.early)
    }

    /// Ends all lives.
    fn collect(&self, mut alive: Alive) -> Result<(Vec<Agent>, Vec<Latency>)> {
        alive.stop.send_replace(true);
        let mut lives = self.runtime.block_on(async {
            let mut lives = Vec::new();
            while let Some(life) = alive.tasks.join_next().await {
                lives.push(life.context("an agent panicked")?);
            }
            anyhow::Ok(lives)
        })?;
        lives.sort_by_key(|life| life.place);
        let mut latencies = Vec::new();
        lives.iter_mut().for_each(|life| latencies.append(&mut life.latencies));
        Ok((lives.into_iter().map(|life| life.agent).collect(), latencies))
    }

    /// Lets agents do what they plan, unmeasured, `meanwhile` something else is done; until everything is
    /// delivered.
    ///
    /// # Errors
    /// It is not in time, or what `meanwhile` says.
    pub(super) fn deliver<T>(
        &self,
        to: SocketAddr,
        made: &Made,
        (agents, plans): (Vec<Agent>, Vec<Plan>),
        meanwhile: impl FnOnce(&Counters) -> Result<T>,
    ) -> Result<(Vec<Agent>, T)> {
        let (alive, _probed) = self.start(to, made, agents, plans);
        let ready = self.ready(&alive);
        alive.go.send_replace(Some(Instant::now()));
        let counters = alive.shared.counters.clone();
        let done = meanwhile(&counters)?;
        if !ready || !self.reach(&alive, &counters.settled, alive.agents) {
            let settled = counters.settled.load(Ordering::Relaxed);
            bail!("within --limit only {settled} of {} agents delivered everything", alive.agents);
        }
        Ok((self.collect(alive)?.0, done))
    }

    /// Lets agents do what they plan, and measures.
    ///
    /// # Errors
    /// A process cannot be looked at, or the aggregator not be asked.
    pub(super) fn measure(
        &self,
        centre: &Aggregator,
        made: &Made,
        agents: Vec<Agent>,
        plans: Vec<Plan>,
    ) -> Result<(Vec<Agent>, Measured)> {
        let (own, pid) = (std::process::id(), centre.process().id());
        let resting = memory_mib(pid)?.0;
        let (alive, probed) = self.start(centre.mqtt(), made, agents, plans);
        let ready = self.ready(&alive);
        let (counters, traffic) = (alive.shared.counters.clone(), alive.shared.traffic.clone());
        let early = counters.receipts.load(Ordering::Relaxed);
        let form = &made.catalogue.forms[made.form.at()];
        let first = form.lines.first().context("the form has lines")?;
        let element = made.catalogue.elements[first.element.at()].code.as_str();
        self.bar.set_message("reports with a receipt");
        self.bar.set_length(agents_reports(&alive, made));
        let over = AtomicBool::new(false);
        let before = (Usage::of(own)?, Usage::of(pid)?);
        std::thread::scope(|scope| {
            traffic.reset();
            let begun = std::time::Instant::now();
            let (looked_at, over) = (&counters, &over);
            let watching = scope.spawn(move || {
                let counters = (&looked_at.receipts, &looked_at.open);
                measure::watch(pid, begun, over, counters, |moment| {
                    self.bar.set_position(moment.receipts);
                })
            });
            let looking = scope.spawn(move || look(centre, element, &probed));
            let moving = (self.options.scenario == Scenario::Regroup)
                .then(|| scope.spawn(|| regroup(centre, made, self.options, over)));
            alive.go.send_replace(Some(Instant::now()));
            let finished = ready && self.reach(&alive, &counters.settled, alive.agents);
            let seconds = begun.elapsed().as_secs_f64();
            let reports = counters.receipts.load(Ordering::Relaxed) - early;
            let after = (Usage::of(own), Usage::of(pid));
            let peak = (memory_mib(own), memory_mib(pid));
            over.store(true, Ordering::Relaxed);
            let agents = alive.agents as f64;
            // The last to hold a way to the looker goes with them, and so it ends.
            let (lived, latencies) = self.collect(alive)?;
            let panicked = || anyhow!("a watching thread panicked");
            watching.thread().unpark();
            let moments = watching.join().map_err(|_| panicked())?;
            let (visible, unseen) = looking.join().map_err(|_| panicked())??;
            let regroupings = match moving {
                Some(moving) => {
                    moving.thread().unpark();
                    moving.join().map_err(|_| panicked())??
                }
                None => 0,
            };
            let (after, peak) = ((after.0?, after.1?), (peak.0?.1, peak.1?.1));
            let memory = Memory {
                agents_peak_mib: peak.0,
                centre_peak_mib: peak.1,
                centre_kib_per_agent: (peak.1 - resting) * 1024.0 / agents,
                moments,
            };
            let (own, centre) = (after.0.since(&before.0), after.1.since(&before.1));
            let measured = Measured {
                finished,
                seconds,
                reports,
                latencies,
                own,
                centre,
                memory,
                visible,
                unseen,
                regroupings,
                counters: counters.clone(),
                traffic: traffic.clone(),
            };
            Ok((lived, measured))
        })
    }
}

/// How many receipts there will be.
fn agents_reports(alive: &Alive, made: &Made) -> u64 {
    alive.early + made.reports
}
