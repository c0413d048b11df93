//! The loop of a running agent: link, outbox, queue and clock joined, until it is told to stop.
//!
//! Everything that is decided is decided in [`Core`]; here is only waiting. Many drivers can run in one
//! process, each on a data directory of its own.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::backoff::backoff;
use crate::command::{Command, Reply};
use crate::core::{Core, Options, Step};
use crate::link::{DownReason, Link, LinkConfig, LinkEvent};
use crate::local::Local;
use crate::note::{Note, note};

/// How long a connection that was refused at enrolment waits at least: only a person can change it.
const REFUSED_WAIT: Duration = Duration::from_secs(30);
/// How often a connected agent says hello anew, so that a centre restored meanwhile is noticed.
const HELLO_AGAIN: Duration = Duration::from_secs(6 * 3600);
/// How long a connection is kept on which nothing is heard before the hello is answered: the centre may be cut
/// off behind a broker that takes everything. Then comes the other [route](crate::route)'s turn. Longer than a
/// centre takes to which a whole province comes back.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a connection on which nothing was released must have stood once its hello was answered, before the
/// wait for the next begins at the shortest again: two machines with one identity push each other off as soon
/// as they are connected. A bad line on which anything gets through is used as it is.
const STEADY: Duration = Duration::from_secs(60);
/// The first wait before a local interface that could not be opened is tried again, and the longest.
const LOCAL_AGAIN: Duration = Duration::from_millis(250);
const LOCAL_AGAIN_MAX: Duration = Duration::from_secs(60);

/// A way to a running agent, to be cloned freely.
#[derive(Clone, Debug)]
pub struct Handle {
    core: Arc<Mutex<Core>>,
    wake: Arc<Notify>,
}

fn lock(core: &Mutex<Core>) -> MutexGuard<'_, Core> {
    // A panic under the lock leaves nothing half done: every change is on disk before memory follows.
    core.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Handle {
    /// Carries out a command.
    pub async fn handle(&self, command: Command) -> Reply {
        let wakes =
            matches!(command, Command::Save { .. } | Command::Sync | Command::BundleImport { .. });
        let (reply, hello_wanted) =
            self.with(move |core| (core.handle(command), core.hello_wanted)).await;
        if wakes || hello_wanted {
            self.wake.notify_one();
        }
        reply
    }

    /// How many hellos were answered so far; to be given to [`Handle::is_settled`].
    pub async fn hellos(&self) -> u64 {
        match self.handle(Command::SyncState).await {
            Reply::Sync(state) => state.hellos,
            _ => 0,
        }
    }

    /// Whether a hello after the `since`th was answered and every entry has a receipt.
    pub async fn is_settled(&self, since: u64) -> bool {
        self.with(move |core| core.is_settled(since)).await
    }

    /// Runs `f` where it may block.
    async fn with<R: Send + 'static>(&self, f: impl FnOnce(&mut Core) -> R + Send + 'static) -> R {
        let core = self.core.clone();
        let done = tokio::task::spawn_blocking(move || f(&mut lock(&core))).await;
        match done {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only a runtime that is shutting down cancels: nobody is left to hear of it.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

/// When a driver gives a connection up, and when it makes the next one.
#[derive(Clone)]
pub struct Pace {
    /// How long nothing may be heard before the hello is answered.
    pub answer_timeout: Duration,
    /// How long an answered connection must stand to count as a success, if it released nothing.
    pub steady: Duration,
    /// The wait before the next connection, by how many have failed since the last success.
    pub wait: Arc<dyn Fn(u32) -> Duration + Send + Sync>,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { answer_timeout: ANSWER_TIMEOUT, steady: STEADY, wait: Arc::new(random_wait) }
    }
}

impl std::fmt::Debug for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pace").field("steady", &self.steady).finish_non_exhaustive()
    }
}

fn random_wait(attempt: u32) -> Duration {
    let mut random = [0; 4];
    // Without randomness the longest wait: never a herd.
    let random = match SystemRandom::new().fill(&mut random) {
        Ok(()) => u32::from_le_bytes(random),
        Err(_) => u32::MAX,
    };
    backoff(attempt, random)
}

/// An agent that can be run.
pub struct Driver {
    handle: Handle,
    data_dir: std::path::PathBuf,
    local: bool,
    pace: Pace,
    link: Box<dyn Fn(LinkConfig) -> LinkConfig + Send + Sync>,
    tell: Box<dyn Fn(&Note) + Send + Sync>,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

fn not_answered() -> Note {
    note!(
        Warning,
        "hello_not_answered",
        "已连上，但中心没有应答",
        "connected, but the centre does not answer"
    )
}

/// How a connection ended.
#[derive(Clone, Copy, Default)]
struct Ended {
    /// Its hello was answered, and it has stood for a while since.
    steady: bool,
    /// A new one at once, in its place: a new hello is wanted.
    again: bool,
}

impl Driver {
    /// Opens the agent of `options`. Blocks on the disk.
    ///
    /// # Errors
    /// As [`Core::open`].
    pub fn open(options: Options) -> Result<Driver, Note> {
        let data_dir = options.data_dir.clone();
        let core = Core::open(options)?;
        let handle = Handle { core: Arc::new(Mutex::new(core)), wake: Arc::new(Notify::new()) };
        Ok(Driver {
            handle,
            data_dir,
            local: true,
            pace: Pace::default(),
            link: Box::new(|config| config),
            tell: Box::new(|note| tracing::warn!(%note, "running")),
        })
    }

    /// With somebody to tell what a person should know while it runs; else it is logged.
    #[must_use]
    pub fn telling(mut self, tell: impl Fn(&Note) + Send + Sync + 'static) -> Driver {
        self.tell = Box::new(tell);
        self
    }

    /// Without the local interface: for many agents in one process, asked through their [`Handle`]s.
    #[must_use]
    pub fn without_local(mut self) -> Driver {
        self.local = false;
        self
    }

    /// With other times for its connections.
    #[must_use]
    pub fn with_pace(mut self, pace: Pace) -> Driver {
        self.pace = pace;
        self
    }

    /// With other times for the link.
    #[must_use]
    pub fn with_link(
        mut self,
        link: impl Fn(LinkConfig) -> LinkConfig + Send + Sync + 'static,
    ) -> Driver {
        self.link = Box::new(link);
        self
    }

    /// A way to the agent while it runs.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs until `stop` is done. Delivery does not wait for the local interface: one that cannot be opened
    /// is tried again.
    ///
    /// # Errors
    /// None since then: what fails on the way is told and tried again.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), Note> {
        tokio::select! {
            () = stop => {}
            () = self.serve_for_ever() => {}
            () = self.connect_for_ever() => {}
        }
        if let Err(error) = self.handle.with(Core::disconnected).await {
            tracing::warn!(%error, "closing");
        }
        Ok(())
    }

    async fn serve_for_ever(&self) {
        if !self.local {
            return std::future::pending().await;
        }
        let (mut wait, mut told) = (LOCAL_AGAIN, None);
        loop {
            match Local::open(&self.data_dir).await {
                Ok(local) => {
                    (wait, told) = (LOCAL_AGAIN, None);
                    local.serve(self.handle.clone()).await;
                }
                Err(error) => {
                    let note = note!(
                        Warning,
                        "local",
                        "本机接口打不开：{error}；上报照常，稍后自动重试。此前其他命令会提示数据目录被占用",
                        "the local interface cannot be opened: {error}; delivery goes on, and it is tried \
                         again. Until then other commands are told that the data directory is in use"
                    );
                    if told.as_ref() != Some(&note) {
                        (self.tell)(&note);
                        told = Some(note);
                    }
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LOCAL_AGAIN_MAX);
        }
    }

    async fn connect_for_ever(&self) {
        let (mut attempt, mut released) = (0u32, 0);
        loop {
            let ended = match self.connection().await {
                Ok(ended) => ended,
                Err(error) => {
                    tracing::error!(%error, "the connection was given up");
                    self.handle.with(|core| core.set_fault(error)).await;
                    Ended::default()
                }
            };
            let (refused, now_released) = self
                .handle
                .with(|core| {
                    if let Err(error) = core.disconnected() {
                        tracing::error!(%error, "after the connection");
                    }
                    (core.refusal().is_some(), core.released())
                })
                .await;
            let success = ended.steady || now_released > released;
            released = now_released;
            if success {
                attempt = 0;
            }
            if ended.again {
                continue;
            }
            if !success {
                attempt += 1;
            }
            let mut wait = (self.pace.wait)(attempt);
            if refused {
                wait = wait.max(REFUSED_WAIT);
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.wanted() => {}
            }
        }
    }

    /// Done when a person asks for a hello.
    async fn wanted(&self) {
        loop {
            self.handle.wake.notified().await;
            if self.handle.with(|core| core.hello_wanted).await {
                return;
            }
        }
    }

    /// One connection, from beginning to end.
    async fn connection(&self) -> Result<Ended, Note> {
        let (config, hellos) = self
            .handle
            .with(|core| {
                core.hello_wanted = false;
                core.set_link("connecting");
                core.link_config().map(|config| (config, core.hellos()))
            })
            .await?;
        let mut link = match Link::connect((self.link)(config)) {
            Ok(link) => link,
            Err(error) => {
                self.handle.with(move |core| core.set_detail(error.note())).await;
                return Ok(Ended::default());
            }
        };
        let mut up = false;
        let again = tokio::time::sleep(HELLO_AGAIN);
        tokio::pin!(again);
        let mut answered: Option<Instant> = None;
        let ended = |answered: Option<Instant>, again| {
            let steady = answered.is_some_and(|at| at.elapsed() >= self.pace.steady);
            Ok(Ended { steady, again })
        };
        let silence = tokio::time::sleep(self.pace.answer_timeout);
        tokio::pin!(silence);
        loop {
            let tick = self.tick_due(up);
            let step = tokio::select! {
                event = link.events.recv() => match event {
                    Some(LinkEvent::Up) => {
                        up = true;
                        silence.as_mut().reset(Instant::now() + self.pace.answer_timeout);
                        self.handle.with(Core::connected).await?
                    }
                    Some(LinkEvent::Message(message)) => {
                        let received = move |core: &mut Core| {
                            core.received(&message).map(|step| (step, core.hellos() > hellos))
                        };
                        let (step, heard) = self.handle.with(received).await?;
                        if heard {
                            answered = answered.or_else(|| Some(Instant::now()));
                        }
                        silence.as_mut().reset(Instant::now() + self.pace.answer_timeout);
                        step
                    }
                    Some(LinkEvent::Down(reason)) => {
                        tracing::info!(%reason, "the link is down");
                        let detail = reason.note();
                        let turned_away = reason == DownReason::NotAuthorised;
                        self.handle
                            .with(move |core| {
                                core.set_detail(detail);
                                if turned_away { core.not_authorised() } else { Ok(()) }
                            })
                            .await?;
                        return ended(answered, false);
                    }
                    None => return ended(answered, false),
                },
                () = self.handle.wake.notified() => {
                    if self.handle.with(|core| core.hello_wanted).await {
                        link.close().await;
                        return ended(answered, true);
                    }
                    self.handle.with(Core::tick).await?
                }
                () = tick => self.handle.with(Core::tick).await?,
                () = &mut again => {
                    link.close().await;
                    return ended(answered, true);
                }
                () = &mut silence, if up && answered.is_none() => {
                    tracing::info!("the hello is not answered");
                    self.handle.with(|core| core.set_detail(not_answered())).await;
                    link.close().await;
                    return ended(answered, false);
                }
            };
            let (hang_up, again) = (step.hang_up, step.again);
            if again {
                link.close().await;
                return ended(answered, true);
            }
            if !self.publish(&link, step).await || hang_up {
                link.close().await;
                // Whoever has nothing to say to us is not asked again at once.
                return if hang_up { Ok(Ended::default()) } else { ended(answered, false) };
            }
        }
    }

    /// Done when the outbox wants a tick.
    async fn tick_due(&self, up: bool) {
        if !up {
            return std::future::pending().await;
        }
        let wait = self.handle.with(|core| core.tick_in()).await;
        match wait {
            Some(ms) => {
                tokio::time::sleep(Duration::from_millis(u64::try_from(ms).unwrap_or(0))).await;
            }
            None => std::future::pending().await,
        }
    }

    /// Publishes what is to be sent; false if the link has failed.
    async fn publish(&self, link: &Link, step: Step) -> bool {
        for message in step.send {
            if let Err(error) = link.publish(message).await {
                tracing::info!(%error, "publishing");
                return false;
            }
        }
        true
    }
}
