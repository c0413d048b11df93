//! When `derived.db` is written, and which months stay in memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::watch;

use super::{Derived, DerivedError, Stay, first_here};
use crate::intake::{SharedState, told};
use crate::ledger::LedgerHandle;
use crate::service::Service;
use crate::state::State;

/// Rows after which it is written: folding so many again takes a fraction of a second.
const ROWS: u64 = 20_000;
/// Bytes of older months in memory after which it is written, so that they are put aside: counts of past years
/// come in acts of thousands of reports each.
const OLDER_BYTES: usize = 64 << 20;
/// After which time it is written if anything has come.
const EVERY: Duration = Duration::from_secs(3600);
/// How often it is looked whether it is time.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// How long to wait after it could not be written.
const AFTER_FAILURE: Duration = Duration::from_secs(600);

/// Writes `derived.db` and puts older months aside.
pub(crate) struct Keeper {
    derived: Arc<Derived>,
    state: SharedState,
    ledger: LedgerHandle,
}

impl Keeper {
    pub(crate) fn new(derived: Arc<Derived>, state: SharedState, ledger: LedgerHandle) -> Keeper {
        Keeper { derived, state, ledger }
    }

    /// Rows that are not in the file.
    pub(crate) fn rows_behind(&self) -> u64 {
        self.state.read().position.saturating_sub(self.derived.through().unwrap_or(0))
    }

    /// Whether it is time to write the file, `since` being how long ago that was done last.
    pub(crate) fn is_due(&self, since: Duration) -> bool {
        let older = || {
            let state = self.state.read();
            state.cube.bytes_before(first_here(&state))
        };
        is_due(self.rows_behind(), since, older)
    }

    /// Keeps the file as it is until the guard is dropped.
    pub(crate) fn stay(&self) -> Stay<'_> {
        self.derived.stay()
    }

    /// Writes the file as of `state`, a copy taken between two commits, and puts aside the older months it
    /// then holds. Works beside intake and queries: they wait only while months are let go.
    ///
    /// # Errors
    /// What the disk says, or [`DerivedError::Held`]. The file is then what it was, or is made anew the next time.
    pub(crate) fn write(&self, state: State) -> Result<()> {
        let begun = Instant::now();
        let reader = self.ledger.reader()?;
        let chain = reader
            .hash_at(state.position)?
            .context("the state does not stand between two commits")?;
        let written = self.derived.write(&state, reader.identity(), chain)?;
        let (through, first) = (state.position, first_here(&state));
        drop(state);
        let held = Instant::now();
        let aside = self.put_aside(first);
        tracing::info!(
            through,
            parts = written.parts,
            bytes = written.bytes,
            months_bytes = written.months,
            aside,
            took = ?begun.elapsed(),
            put_aside = ?held.elapsed(),
            "derived.db written"
        );
        Ok(())
    }

    /// Lets go of the older months the file holds as they are.
    fn put_aside(&self, first: banyan_shared::period::Period) -> usize {
        // Who holds it keeps what is in it: the next time will do.
        let Some(stay) = self.derived.try_stay() else { return 0 };
        let months = stay.to_put_aside(&self.state.read().cube, first);
        if months.is_empty() {
            return 0;
        }
        let mut dropped = Vec::new();
        {
            let mut state = self.state.write();
            // What has changed meanwhile stays.
            for (form, month) in stay.to_put_aside(&state.cube, first) {
                dropped.push(state.cube.put_aside(form, month));
            }
        }
        // The memory is given back when nobody waits.
        dropped.len()
    }
}

/// Whether it is time: so many rows `behind`, and for older months so many bytes in memory.
pub(super) fn is_due(behind: u64, since: Duration, older: impl FnOnce() -> usize) -> bool {
    behind >= ROWS || behind > 0 && (since >= EVERY || older() >= OLDER_BYTES)
}

/// Whether only a verification under way kept the file from being written.
fn is_held(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(DerivedError::Held))
}

/// Writes the file from time to time until told to stop.
pub(crate) async fn checkpoints(service: Arc<Service>, mut stop: watch::Receiver<bool>) {
    let (mut last, mut failed) = (Instant::now(), None::<Instant>);
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = told(&mut stop) => return,
            _ = look.tick() => {}
        }
        if failed.is_some_and(|at| at.elapsed() < AFTER_FAILURE) {
            continue;
        }
        if service.checkpoint_is_due(last.elapsed()) {
            let result = service.checkpoint().await;
            if result.as_ref().is_err_and(is_held) {
                continue;
            }
            if let Err(error) = &result {
                tracing::warn!(
                    "derived.db could not be written; the next start takes longer: {error:#}"
                );
            }
            last = Instant::now();
            failed = result.is_err().then_some(last);
        }
    }
}
