//! Many real agents in one process: each its own data directory, sled queue, key and MQTT connection.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use banyan_agent::command::{Command, Draft, Reply};
use banyan_agent::identity::Identity;
use banyan_agent::note::Note;
use banyan_agent::{Driver, Handle, Options};
use banyan_shared::catalogue::{Catalogue, Lang};
use banyan_shared::ids::AgentId;
use banyan_shared::report::Value;
use banyan_shared::wire::{EnrolCode, EnrolmentFile};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::counts::{Plan, Typed};
use crate::harness::until;
use crate::model::Model;

/// Threads that may block on disks at a time.
const BLOCKING_THREADS: usize = 24;
/// Agents that save at a time: the machine has few cores and one disk.
const SAVING: usize = 4;
/// How long an agent here waits for a receipt before it sends again, in ms: loopback has no satellite.
const RECEIPT_TIMEOUT_MS: i64 = 5_000;

/// How an agent is enrolled.
#[derive(Clone, Debug)]
pub enum Enrolment {
    /// By an enrolment file, with no line.
    File(Vec<u8>),
    /// By a code, over the line.
    Code(EnrolCode),
}

fn failed(note: &Note) -> anyhow::Error {
    anyhow!("{}", note.text(Lang::En))
}

/// A report as the agent takes it.
pub fn draft(catalogue: &Catalogue, typed: &Typed) -> Draft {
    let form = &catalogue.forms[typed.form.at()];
    let written = |value: &Value| match value {
        Value::Number(n) => n.to_string(),
        Value::NotApplicable => "NA".to_owned(),
        Value::Missing => String::new(),
    };
    let values = typed.values.iter().map(|(line, value)| {
        let element = &catalogue.elements[form.lines[*line].element.at()];
        (element.code.to_string(), written(value))
    });
    Draft {
        facility: Some(typed.facility.to_string()),
        form: form.code.to_string(),
        period: typed.period.to_string(),
        // "Closed" says it all.
        values: if typed.closed { Vec::new() } else { values.collect() },
        closed: typed.closed,
        withdraw: typed.withdraw,
        reason: typed.reason,
        ..Draft::default()
    }
}

struct Member {
    plan: Plan,
    agent: AgentId,
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), Note>>,
}

/// The agents. They run until dropped.
pub struct Agents {
    runtime: Runtime,
    members: Vec<Arc<Member>>,
}

impl std::fmt::Debug for Agents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agents").field("agents", &self.members.len()).finish_non_exhaustive()
    }
}

/// How far the agents are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Agents the centre has certified.
    pub enrolled: usize,
    /// Agents whose line is up.
    pub connected: usize,
    /// Entries without a receipt.
    pub waiting: u64,
}

fn open(dir: &Path, enrolment: &Enrolment) -> Result<(AgentId, Driver)> {
    let identity = match enrolment {
        Enrolment::File(bytes) => {
            let file = EnrolmentFile::from_bytes(bytes)?;
            let offer = file.offers.first().context("an enrolment file has an offer")?.clone();
            Identity::from_file(dir, &file, &offer)
        }
        Enrolment::Code(code) => Identity::begin(dir, code, None),
    };
    let agent = identity.map_err(|note| failed(&note))?.agent();
    let mut options = Options::new(dir);
    options.config.receipt_timeout_ms = RECEIPT_TIMEOUT_MS;
    let driver = Driver::open(options).map_err(|note| failed(&note))?.without_local();
    Ok((agent, driver))
}

async fn save(member: &Member, drafts: Vec<Draft>) -> Result<()> {
    match member.handle.handle(Command::Save { drafts, together: true }).await {
        Reply::Saved { refused, .. } if refused.is_empty() => Ok(()),
        Reply::Saved { refused, .. } => {
            let faults: Vec<String> = refused
                .iter()
                .flat_map(|one| &one.faults)
                .map(|note| note.text(Lang::En).to_owned())
                .take(5)
                .collect();
            bail!("{}: not saved: {}", member.plan.home, faults.join("; "));
        }
        Reply::Failed(note) => Err(failed(&note)),
        other => bail!("{}: {other:?}", member.plan.home),
    }
}

impl Agents {
    /// A fleet without agents.
    ///
    /// # Errors
    /// No threads, or the limit of open files cannot be raised.
    pub fn new() -> Result<Agents> {
        // An agent holds about eight: many systems start a process with 1,024.
        banyan_aggregator::descriptors::raise().context("the limit of open files")?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name("agents")
            .enable_all()
            .build()?;
        Ok(Agents { runtime, members: Vec::new() })
    }

    /// How many agents.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// What is typed at each.
    pub fn plans(&self) -> impl Iterator<Item = &Plan> {
        self.members.iter().map(|member| &member.plan)
    }

    /// Enrols agents in directories of their own under `dir` and lets them run; `each` is called for
    /// every one.
    ///
    /// # Errors
    /// What the first that fails says.
    pub fn enrol(
        &mut self,
        dir: &Path,
        plans: Vec<(Plan, Enrolment)>,
        each: impl Fn() + Send + Sync,
    ) -> Result<()> {
        let queue = Mutex::new(plans.into_iter());
        let done = Mutex::new(Vec::new());
        std::thread::scope(|scope| -> Result<()> {
            let workers: Vec<_> = (0..SAVING)
                .map(|_| {
                    scope.spawn(|| -> Result<()> {
                        loop {
                            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                            let Some((plan, enrolment)) = next else { return Ok(()) };
                            let path: PathBuf = dir.join(plan.home.as_str());
                            let (agent, driver) =
                                open(&path, &enrolment).with_context(|| plan.home.to_string())?;
                            let handle = driver.handle();
                            let (stop, stopped) = oneshot::channel::<()>();
                            let task = self.runtime.spawn(driver.run(async move {
                                // A sender that is gone means stop as well.
                                let _ = stopped.await;
                            }));
                            let member = Member { plan, agent, handle, stop: Some(stop), task };
                            done.lock().unwrap_or_else(PoisonError::into_inner).push(member);
                            each();
                        }
                    })
                })
                .collect();
            for worker in workers {
                worker.join().map_err(|_| anyhow!("enrolling panicked"))??;
            }
            Ok(())
        })?;
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by(|a, b| a.plan.home.cmp(&b.plan.home));
        self.members.extend(done.into_iter().map(Arc::new));
        Ok(())
    }

    /// How far they are.
    pub fn standing(&self) -> Standing {
        self.runtime.block_on(async {
            let mut sum = Standing::default();
            for member in &self.members {
                if let Reply::Sync(state) = member.handle.handle(Command::SyncState).await {
                    sum.enrolled += usize::from(state.enrolled);
                    sum.connected += usize::from(state.link == "connected");
                    sum.waiting += state.waiting;
                }
            }
            sum
        })
    }

    /// Waits until every agent is certified.
    ///
    /// # Errors
    /// Not within `limit`.
    pub fn certified(&self, limit: Duration, seen: impl Fn(Standing)) -> Result<()> {
        until("every agent is certified", limit, || {
            let standing = self.standing();
            seen(standing);
            Ok((standing.enrolled == self.members.len()).then_some(()))
        })
    }

    /// Types what is due in one go at every agent, saved durably there, and notes it in the model.
    /// `typed` is told how many reports each time.
    ///
    /// # Errors
    /// An agent refuses a report.
    pub fn type_stage(
        &self,
        stage: usize,
        catalogue: &Arc<Catalogue>,
        model: &Mutex<Model>,
        typed: impl Fn(u64),
    ) -> Result<()> {
        self.runtime.block_on(async {
            let room = Arc::new(tokio::sync::Semaphore::new(SAVING));
            let mut tasks = tokio::task::JoinSet::new();
            for member in &self.members {
                let (member, catalogue) = (member.clone(), catalogue.clone());
                let room = room.clone();
                tasks.spawn(async move {
                    let _permit = room.acquire_owned().await?;
                    let due: Vec<Typed> =
                        member.plan.typed.iter().filter(|t| t.stage == stage).cloned().collect();
                    if due.is_empty() {
                        return anyhow::Ok((member.agent, due));
                    }
                    // Second thoughts come after what they are about has been saved.
                    let (first, second): (Vec<&Typed>, Vec<&Typed>) =
                        due.iter().partition(|typed| typed.reason.is_none());
                    for some in [first, second].into_iter().filter(|some| !some.is_empty()) {
                        let drafts =
                            some.into_iter().map(|typed| draft(&catalogue, typed)).collect();
                        save(&member, drafts).await?;
                    }
                    anyhow::Ok((member.agent, due))
                });
            }
            while let Some(done) = tasks.join_next().await {
                let (agent, due) = done.context("typing panicked")??;
                let mut model = model.lock().unwrap_or_else(PoisonError::into_inner);
                for one in &due {
                    model.saved(catalogue, agent, one, one.how());
                }
                drop(model);
                typed(due.len() as u64);
            }
            Ok(())
        })
    }

    /// Makes every agent say hello anew, so that the centre knows that none holds anything back, and waits
    /// until all have been answered.
    ///
    /// # Errors
    /// Not within `limit`.
    pub fn hello_again(&self, limit: Duration) -> Result<()> {
        self.runtime.block_on(async {
            let mut hellos = Vec::with_capacity(self.members.len());
            for member in &self.members {
                hellos.push(member.handle.hellos().await);
                member.handle.handle(Command::Sync).await;
            }
            let answered = async {
                for (member, since) in self.members.iter().zip(hellos) {
                    while !member.handle.is_settled(since).await {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            };
            tokio::time::timeout(limit, answered).await.context("not every hello was answered")
        })
    }

    /// Makes agents without a line try at once, as a person does who asks for a sync.
    pub fn nudge(&self) {
        self.runtime.block_on(async {
            for member in &self.members {
                if let Reply::Sync(state) = member.handle.handle(Command::SyncState).await
                    && state.link != "connected"
                    && state.link != "connecting"
                {
                    member.handle.handle(Command::Sync).await;
                }
            }
        });
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        let members = std::mem::take(&mut self.members);
        self.runtime.block_on(async move {
            for member in members {
                // Typing is over: nobody else holds a member.
                if let Ok(mut member) = Arc::try_unwrap(member) {
                    drop(member.stop.take());
                    // One that does not stop goes with the runtime.
                    let _ = tokio::time::timeout(Duration::from_secs(5), member.task).await;
                }
            }
        });
    }
}
