//! What the centre can be asked, whoever asks: the HTTP API, the command line beside a running service,
//! or the command line alone.
//!
//! A [`Service`] owns the ledger and the state folded from it. It is opened with an exclusive lock, either
//! by `serve`, which adds broker, front door and HTTP, or by one command for as long as it runs.

mod bundle;
mod catalogue;
mod claims;
mod enrol;
mod figures;
mod keys;
mod lists;
mod ready;
mod registry;
mod reports;
mod rows;
mod turns;
mod upkeep;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use banyan_shared::catalogue::Lang;
use banyan_shared::ids::Millis;
use banyan_shared::period::{Period, PeriodType, Span};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::access::Access;
use crate::act::{Act, SignedAct};
use crate::broker::{DownError, Downlink, Incoming};
use crate::derived::{Derived, Keeper};
use crate::fold::resume;
use crate::front_door::Entrance;
use crate::identity::Identity;
use crate::intake::{ActBuilder, ActRequest, Ask, Clock, Intake, IntakeCounters, SharedState};
use crate::ledger::{Ledger, LedgerHandle, LedgerWriter, NewRow};
use crate::roll::Roll;
use crate::state::{State, StateError};

pub use crate::fold::fold;
pub use bundle::{BundleCall, BundleTaken};
pub use catalogue::{CatalogueChange, PublishCall, PublishReport};
pub use claims::{ClaimRow, DecideClaim};
pub use enrol::{EnrolEach, EnrolOne, EnrolStick, Enrolled, EnrolledFile};
#[cfg(test)]
pub(crate) use figures::site_states;
pub use figures::{
    AnomaliesCall, Answer, CompletenessCall, Format, PlanCache, QueryCall, ReportCall, parameters,
};
pub use keys::{KeyRow, KeysShown};
pub use lists::{FleetRow, ParkedRow, UnitList, UnitRow};
pub(crate) use lists::{fleet_summary, rfc3339};
pub(crate) use ready::keep_ready;
pub use registry::{
    CHANGES_MAX, DutiesMoved, ExtendCall, ExtendReport, GivenTable, ImportReport, ImportUnits,
    Moved, RegistryChange,
};
pub use reports::{
    BrokenRule, Change, ChangeCall, Changed, DecidedReport, DecisionCall, ExportCall, Exported,
    ImportCall, Imported, PART_ROWS_MAX, ReplacedVersion, StageCall, Staged,
};
pub use rows::{EntryWhat, LedgerRow, RowContent, RowEntry, Standing};
pub use turns::Busy;
pub(crate) use turns::RETRY_AFTER_S;
pub use upkeep::{VerifyReport, restore};

/// Acts waiting for the intake.
const ACTS_WAITING_MAX: usize = 1024;
/// Most periods one decision about many reports covers: a year of days, and some.
pub(crate) const PERIODS_AT_ONCE_MAX: usize = 400;
/// A command alone writes `derived.db` only when it had so many rows to fold.
const ROWS_KEPT_ALONE: u64 = 2_000;

/// Why a request was refused: exit code 2 (the request is wrong) with a text for people.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Makes a [`Usage`] error.
pub fn usage(text: impl Into<String>) -> anyhow::Error {
    Usage(text.into()).into()
}

/// A text in the asker's language.
pub fn say(lang: Lang, zh: impl Into<String>, en: impl Into<String>) -> String {
    match lang {
        Lang::Zh => zh.into(),
        Lang::En => en.into(),
    }
}

/// The periods of a type in a span; a decision covers at most [`PERIODS_AT_ONCE_MAX`] of them.
pub(crate) fn few_periods(span: Span, kind: PeriodType, lang: Lang) -> Result<Vec<Period>> {
    let periods = span.parts(kind);
    let many = periods.len();
    if many > PERIODS_AT_ONCE_MAX {
        return Err(usage(say(
            lang,
            format!("{span} 含 {many} 个统计期，一次最多 {PERIODS_AT_ONCE_MAX} 个：请分段进行"),
            format!(
                "{span} holds {many} periods, at most {PERIODS_AT_ONCE_MAX} at once: take it part by part"
            ),
        )));
    }
    Ok(periods.collect())
}

/// See the module's text.
pub struct Service {
    dir: PathBuf,
    state: SharedState,
    identity: Arc<Identity>,
    ledger: LedgerHandle,
    acts: mpsc::Sender<Ask>,
    clock: Clock,
    counters: Arc<IntakeCounters>,
    roll: Arc<Roll>,
    plans: PlanCache,
    turns: turns::Turns,
    ready: ready::Ready,
    keeper: Arc<Keeper>,
    imports: registry::Imports,
    verifying: tokio::sync::Mutex<()>,
    backing_up: Arc<tokio::sync::Mutex<()>>,
    access: Access,
}

/// What has to be stopped when a service ends.
pub struct Running {
    intake: JoinHandle<Result<()>>,
    ended: Option<Result<()>>,
    stop: watch::Sender<bool>,
    writer: LedgerWriter,
    keeper: Arc<Keeper>,
    state: SharedState,
    /// With so many rows not in `derived.db` it is written at the end.
    rows_kept: u64,
}

/// The way down when nobody is connected.
struct NoDownlink;

impl Downlink for NoDownlink {
    fn publish_down(
        &self,
        _: banyan_shared::ids::AgentId,
        _: bytes::Bytes,
    ) -> Result<(), DownError> {
        Err(DownError::Closed)
    }
}

/// The system's clock.
pub fn system_clock() -> Clock {
    Arc::new(|| jiff::Timestamp::now().into())
}

/// Where the ledger of a data directory is.
pub fn ledger_dir(dir: &Path) -> PathBuf {
    dir.join("ledger")
}

/// Puts a roll-over of the operating key into the ledger, if it is not there yet, and the new keys into
/// their usual files.
fn settle_keys(
    dir: &Path,
    identity: &Identity,
    ledger: &mut Ledger,
    state: &mut State,
    now: Millis,
) -> Result<()> {
    let Some(before) = &identity.before else { return Ok(()) };
    let certificate = &identity.certificate;
    if state.key_changes.last().is_none_or(|change| change.certificate != *certificate) {
        let (certificate, before) = (certificate.clone(), before.clone());
        let act = Act::OperatingKey { certificate, before };
        let signed = SignedAct { by: "keys roll".to_owned(), at: now, act };
        let row = NewRow::act(signed.seal(&identity.key));
        let committed = ledger.commit_now(&[row], now).context("recording the new key")?;
        state.apply_act(&signed, committed.positions.start, committed.received_at)?;
    }
    Identity::settle(dir)?;
    tracing::warn!(serial = identity.certificate.serial, "a new operating key is in force");
    Ok(())
}

impl Service {
    /// Opens the data directory, folds the ledger and starts the intake on `incoming`. Must be called
    /// inside a runtime.
    ///
    /// # Errors
    /// If the directory was not initialised, is in use, or the ledger is damaged.
    pub async fn open(
        dir: &Path,
        clock: Clock,
        lines: Option<(mpsc::Receiver<Incoming>, Arc<dyn Downlink>)>,
    ) -> Result<(Arc<Service>, Running)> {
        // Says what to do where there is no centre. What counts is what the files hold once nobody else has
        // the store.
        Identity::open(dir)?;
        let mut ledger = Ledger::open(&ledger_dir(dir))?;
        if ledger.head().position > 0 {
            // Cut short after its commit: from now on these keys sign.
            Identity::finished(dir)?;
        }
        // Whoever has the ledger knows that no service is running: before the fold, which takes its time.
        crate::serve::retire_addresses(dir)?;
        let identity = Arc::new(Identity::open(dir)?);
        let now = (clock)();
        let reader = ledger.reader()?;
        let home = dir.to_owned();
        let (derived, mut state) = tokio::task::spawn_blocking(move || -> Result<_, StateError> {
            let (derived, kept) = Derived::open(&home, &reader, &ledger_dir(&home));
            let state = resume(&reader, now, (&derived, kept))?;
            Ok((derived, state))
        })
        .await??;
        settle_keys(dir, &identity, &mut ledger, &mut state, now)?;
        let state = SharedState::new(state);
        let access = Access::open(dir)?;
        let writer_clock = clock.clone();
        let writer = LedgerWriter::start(ledger, move || (writer_clock)())?;
        let handle = writer.handle();
        let keeper = Arc::new(Keeper::new(derived, state.clone(), handle.clone()));
        let rows_kept = if lines.is_some() { 1 } else { ROWS_KEPT_ALONE };
        let (acts, act_requests) = mpsc::channel(ACTS_WAITING_MAX);
        let (incoming, down) = match lines {
            Some(lines) => lines,
            None => (mpsc::channel(1).1, Arc::new(NoDownlink) as Arc<dyn Downlink>),
        };
        let intake =
            Intake::new(state.clone(), identity.clone(), handle.clone(), down, clock.clone());
        let (counters, roll) = (intake.counters(), intake.roll());
        let (stop, stopped) = watch::channel(false);
        let intake = tokio::spawn(intake.run(incoming, act_requests, stopped));
        let service = Service {
            dir: dir.to_owned(),
            state: state.clone(),
            identity,
            ledger: handle,
            acts,
            clock,
            counters,
            roll,
            plans: PlanCache::default(),
            turns: turns::Turns::default(),
            ready: ready::Ready::default(),
            keeper: keeper.clone(),
            imports: registry::Imports::default(),
            verifying: tokio::sync::Mutex::default(),
            backing_up: Arc::default(),
            access,
        };
        let running = Running { intake, ended: None, stop, writer, keeper, state, rows_kept };
        Ok((Arc::new(service), running))
    }

    /// The state, to look at.
    pub fn state(&self) -> &SharedState {
        &self.state
    }

    /// The intake's counters.
    pub fn counters(&self) -> &IntakeCounters {
        &self.counters
    }

    /// Users, tokens, sessions and the log.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// What the front door needs to know who may enter, over plain connections from this machine.
    pub fn entrance(&self) -> Entrance {
        Entrance { roll: self.roll.clone(), tls: None, clock: self.clock.clone() }
    }

    /// The centre's identity.
    pub fn identity(&self) -> Arc<Identity> {
        self.identity.clone()
    }

    /// The clock.
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The moment it is.
    pub fn now(&self) -> Millis {
        (self.clock)()
    }

    /// Stores acts and waits until they are in force.
    ///
    /// # Errors
    /// What `build` says, or why they could not be stored.
    pub async fn act(&self, by: &str, build: ActBuilder) -> Result<()> {
        let (reply, done) = oneshot::channel();
        let request = ActRequest { by: by.to_owned(), build, reply };
        if self.acts.send(Ask::Acts(request)).await.is_err() {
            bail!("the service is stopping");
        }
        done.await.context("the service is stopping")?
    }

    /// Writes `derived.db` as of now.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn checkpoint(self: &Arc<Self>) -> Result<()> {
        let copy = self.between_commits().await?;
        let keeper = self.keeper.clone();
        tokio::task::spawn_blocking(move || keeper.write(copy)).await?
    }

    /// Whether it is time to write `derived.db`, `since` being how long ago that was done last.
    pub(crate) fn checkpoint_is_due(&self, since: std::time::Duration) -> bool {
        self.keeper.is_due(since)
    }

    /// How many rows `derived.db` does not hold.
    #[cfg(test)]
    pub(crate) fn rows_behind(&self) -> u64 {
        self.keeper.rows_behind()
    }

    /// A copy of the state between two commits.
    async fn between_commits(&self) -> Result<State> {
        // Through the intake: what it has judged but not committed yet is in no ledger.
        let (give, take) = oneshot::channel();
        let look = move |state: &State| {
            // The receiver waits right below.
            let begun = std::time::Instant::now();
            let _ = give.send(state.clone());
            tracing::debug!(took = ?begun.elapsed(), "state copied");
            Ok(Vec::new())
        };
        self.act("service", Box::new(look)).await?;
        take.await.context("the service is stopping")
    }

    /// The address agents are told: the public one, else the running service's, or the last one it had.
    pub(crate) fn mqtt_address(&self) -> String {
        if let Some(public) = crate::serve::PublicAddress::read(&self.dir) {
            return public.mqtt;
        }
        crate::serve::Addresses::last(&self.dir)
            .map_or_else(|| crate::serve::MQTT_ADDR_DEFAULT.to_owned(), |last| last.for_agents())
    }
}

impl Running {
    /// Finishes what is on its way and closes the ledger. The broker must have been stopped; requests that
    /// come later are refused.
    ///
    /// # Errors
    /// If the intake ended by a fault of its own (then `derived.db` is left as it was: it must not hold what
    /// the ledger does not give) or the ledger could not be closed.
    pub async fn stop(mut self) -> Result<()> {
        self.stop.send_replace(true);
        self.intake_ended().await;
        let Running { writer, keeper, state, rows_kept, ended, .. } = self;
        if let Some(Err(error)) = ended {
            tokio::task::spawn_blocking(move || writer.stop()).await??;
            return Err(error).context("the intake ended abnormally");
        }
        tokio::task::spawn_blocking(move || {
            if keeper.rows_behind() >= rows_kept {
                // Nothing is judged any more: this is between two commits.
                let copy = state.read().clone();
                if let Err(error) = keeper.write(copy) {
                    tracing::warn!(
                        "derived.db could not be written; the next start takes longer: {error:#}"
                    );
                }
            }
            writer.stop()
        })
        .await??;
        Ok(())
    }

    /// Waits until the intake has ended: while the service runs, only by a fault of its own.
    pub async fn intake_ended(&mut self) {
        if self.ended.is_none() {
            let ended = (&mut self.intake).await;
            self.ended = Some(ended.unwrap_or_else(|panicked| Err(anyhow!(panicked))));
        }
    }
}
