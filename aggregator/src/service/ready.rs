//! Answers made ready before anyone asks, in the background of a running service.
//!
//! Promises that nobody waits for it noticeably: it works out one question at a time, rests several times as
//! long as that took, longer while agents deliver, and leaves off while questions are being answered. It asks
//! as operators do and so changes no answer. Which questions, and which of them next, is
//! [`Often`](crate::query::Often)'s.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use banyan_shared::catalogue::Lang;
use banyan_shared::ids::{Millis, Position};
use banyan_shared::period::Period;
use tokio::sync::watch;

use super::Service;
use super::figures::is_heavy;
use crate::derived::first_here;
use crate::intake::told;
use crate::query::{Next, Often};

/// How long nobody must have asked anything.
const QUIET: Duration = Duration::from_millis(50);
/// How many questions are looked at in one go, of some microseconds each.
const LOOKS: usize = 100;
/// How many times as long as it worked it rests.
const REST: u32 = 4;
/// The same while agents deliver.
const REST_DELIVERING: u32 = 20;
/// Least time from the end of one round to the next.
const BETWEEN: Duration = Duration::from_secs(10);
/// How long to leave off after a fault: whoever asks meets it and tells of it.
const AFTER_FAULT: Duration = Duration::from_secs(600);

/// Whether questions are being answered, and what was made ready.
#[derive(Debug, Default)]
pub(super) struct Ready {
    asking: AtomicUsize,
    asked: Mutex<Option<Instant>>,
    rounds: AtomicU64,
    made: AtomicU64,
}

/// A question being answered, until it is dropped.
pub(super) struct Asking<'a>(&'a Ready);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        *self.0.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.0.asking.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Ready {
    /// Someone asks.
    pub(super) fn asking(&self) -> Asking<'_> {
        self.asking.fetch_add(1, Ordering::SeqCst);
        Asking(self)
    }

    /// Whether nobody asks, nor did just now.
    fn is_quiet(&self) -> bool {
        let asked = *self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        self.asking.load(Ordering::SeqCst) == 0 && asked.is_none_or(|at| at.elapsed() >= QUIET)
    }
}

/// How far a round has come.
struct Round {
    often: Often,
    /// When it began.
    begun: Instant,
    /// The ledger's position at the last look.
    position: Position,
    is_over: bool,
}

impl Round {
    /// How long to rest after so much work.
    fn rest(&self, worked: Duration, before: Option<Position>) -> Duration {
        if self.is_over {
            // Counts that change all the time are not followed all the time.
            return BETWEEN.max(self.begun.elapsed());
        }
        let delivering = before.is_some_and(|before| before != self.position);
        worked * if delivering { REST_DELIVERING } else { REST }
    }
}

impl Service {
    /// How many rounds have ended, how many questions were made ready, and the bytes of all rows kept.
    pub fn ready(&self) -> [(&'static str, u64); 3] {
        let bytes = self.plans.plans(&self.state.read()).kept_bytes();
        [
            ("rounds", self.ready.rounds.load(Ordering::SeqCst)),
            ("made", self.ready.made.load(Ordering::SeqCst)),
            ("bytes", bytes as u64),
        ]
    }

    /// The months in memory that have begun and of which there are counts.
    fn months_here(&self, now: Millis) -> BTreeSet<Period> {
        let state = self.state.read();
        let (first, today) = (first_here(&state), state.catalogue.day_at(now));
        let months = state.cube.forms().iter().flat_map(|form| form.months());
        months.filter(|month| *month >= first && month.first_day() <= today).collect()
    }

    /// Begins a round, or goes on with it: looks at some questions, and works out at most one.
    fn make_ready(&self, round: Option<Round>) -> Result<Round> {
        let now = self.now();
        let basis = self.basis(None, now, Lang::default())?;
        let (engine, position) = (basis.engine(), basis.model.position);
        let Some(mut round) = round else {
            // What no longer stands must not take the room of what comes first.
            engine.tidy(now);
            let often = Often::new(&basis.model.organisation, &self.months_here(now));
            return Ok(Round { often, begun: Instant::now(), position, is_over: false });
        };
        round.position = position;
        let is_ready = |question: &_| engine.is_ready(question, now);
        let is_over = match round.often.next(LOOKS, is_ready) {
            Next::Further => false,
            Next::Over => true,
            Next::Ask(_) if !engine.has_room() => true,
            Next::Ask(question) => {
                if !is_heavy(&basis.model, (&question.place, &question.period)) {
                    match engine.make_ready(&question, now) {
                        Ok(()) => _ = self.ready.made.fetch_add(1, Ordering::SeqCst),
                        Err(error) => {
                            let why = error.text(Lang::En);
                            tracing::debug!(question.place, question.period, why, "not made ready");
                        }
                    }
                }
                false
            }
        };
        round.is_over = is_over;
        Ok(round)
    }
}

/// Makes answers ready until told to stop.
pub(crate) async fn keep_ready(service: Arc<Service>, mut stop: watch::Receiver<bool>) {
    let mut round: Option<Round> = None;
    let mut rest = QUIET;
    loop {
        tokio::select! {
            () = told(&mut stop) => return,
            () = tokio::time::sleep(rest) => {}
        }
        if !service.ready.is_quiet() {
            rest = QUIET;
            continue;
        }
        let before = round.as_ref().map(|round| round.position);
        let (worker, going, begun) = (service.clone(), round.take(), Instant::now());
        let work = tokio::task::spawn_blocking(move || worker.make_ready(going));
        match work.await.map_err(anyhow::Error::from).flatten() {
            Ok(gone_on) => {
                rest = gone_on.rest(begun.elapsed(), before);
                if gone_on.is_over {
                    service.ready.rounds.fetch_add(1, Ordering::SeqCst);
                } else {
                    round = Some(gone_on);
                }
            }
            Err(error) => {
                tracing::error!("answers are not made ready for a while: {error:#}");
                rest = AFTER_FAULT;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_leaves_off_while_someone_asks_and_rests_longer_than_it_works() {
        let ready = Ready::default();
        assert!(ready.is_quiet());
        let one = ready.asking();
        assert!(!ready.is_quiet());
        let before = Instant::now();
        drop(one);
        assert!(ready.asked.lock().unwrap().is_some_and(|at| at >= before), "it is noted");
        // However slow the machine is, this was not long ago.
        *ready.asked.lock().unwrap() = Some(Instant::now() + Duration::from_secs(60));
        assert!(!ready.is_quiet(), "just now");
        *ready.asked.lock().unwrap() = Instant::now().checked_sub(QUIET);
        assert!(ready.is_quiet());

        let worked = Duration::from_millis(5);
        let mut round =
            Round { often: Often::default(), begun: Instant::now(), position: 7, is_over: false };
        assert_eq!(round.rest(worked, None), worked * REST);
        assert_eq!(round.rest(worked, Some(7)), worked * REST);
        assert_eq!(round.rest(worked, Some(6)), worked * REST_DELIVERING);
        round.is_over = true;
        assert_eq!(round.rest(worked, Some(7)), BETWEEN);
        round.begun = Instant::now().checked_sub(BETWEEN * 2).unwrap();
        assert!(round.rest(worked, Some(7)) >= BETWEEN * 2, "as long as it took");
    }
}
