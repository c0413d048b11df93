//! Whose turn it is: how many heavy questions are worked out at once, and how many wait.
//!
//! Promises that at most so many run as there are cores, the others in the order they came; that beyond a
//! number of waiting ones, or after some time, whoever asks is told to come again ([`Busy`]). What is heavy is
//! said by who asks for a turn.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most heavy questions that wait.
const WAITING_MAX: usize = 32;
/// How long one waits at most.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// After how many seconds who is turned away may come again.
pub(crate) const RETRY_AFTER_S: u64 = 5;

/// Why a question was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "现在有太多大范围查询，请 {RETRY_AFTER_S} 秒后再试，或缩小范围 / too many large questions at once: ask again in {RETRY_AFTER_S} seconds, or about less"
)]
pub struct Busy;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Turns {
    at_once: usize,
    waiting_max: usize,
    wait_max: Duration,
    line: Mutex<Line>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct Line {
    running: usize,
    /// Tickets of those who wait, the first one first.
    waiting: VecDeque<u64>,
    next: u64,
}

/// A turn: over when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a>(&'a Turns);

impl Default for Turns {
    fn default() -> Turns {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Turns::new(cores, WAITING_MAX, WAIT_MAX)
    }
}

impl Turns {
    fn new(at_once: usize, waiting_max: usize, wait_max: Duration) -> Turns {
        Turns { at_once, waiting_max, wait_max, line: Mutex::default(), moved: Condvar::new() }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // Nothing in it can be half done.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn.
    pub(crate) fn take(&self) -> Result<Turn<'_>, Busy> {
        let mut line = self.line();
        if line.running < self.at_once && line.waiting.is_empty() {
            line.running += 1;
            return Ok(Turn(self));
        }
        if line.waiting.len() >= self.waiting_max {
            return Err(Busy);
        }
        let ticket = line.next;
        line.next += 1;
        line.waiting.push_back(ticket);
        let until = Instant::now() + self.wait_max;
        while line.running >= self.at_once || line.waiting.front() != Some(&ticket) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                line.waiting.retain(|one| *one != ticket);
                self.moved.notify_all();
                return Err(Busy);
            }
            let waited = self.moved.wait_timeout(line, left);
            line = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        line.waiting.pop_front();
        line.running += 1;
        // There may be room for the next one too.
        self.moved.notify_all();
        Ok(Turn(self))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.line().running -= 1;
        self.0.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn so_many_run_the_others_wait_in_order_and_more_are_turned_away() {
        let turns = Turns::new(2, 3, Duration::from_secs(60));
        let held = (turns.take().unwrap(), turns.take().unwrap());
        let (tell, order) = mpsc::channel();
        std::thread::scope(|scope| {
            for n in 0..3 {
                let (tell, turns) = (tell.clone(), &turns);
                scope.spawn(move || {
                    let turn = turns.take().unwrap();
                    tell.send(n).unwrap();
                    drop(turn);
                });
                while turns.line().waiting.len() <= n {
                    std::thread::yield_now();
                }
            }
            assert_eq!(turns.take().unwrap_err(), Busy);
            assert!(order.try_recv().is_err());
            // One place: they go one after the other.
            drop(held.0);
            let came: Vec<usize> = order.iter().take(3).collect();
            assert_eq!(came, [0, 1, 2]);
            drop(held.1);
        });
        let line = turns.line();
        assert_eq!((line.running, line.waiting.len()), (0, 0));
    }

    #[test]
    fn nobody_waits_for_ever_and_a_panic_gives_the_turn_back() {
        let turns = Turns::new(1, 3, Duration::from_millis(1));
        let held = turns.take().unwrap();
        assert_eq!(turns.take().unwrap_err(), Busy);
        drop(held);
        let panicked = std::thread::scope(|scope| {
            let work = scope.spawn(|| {
                let _turn = turns.take().unwrap();
                panic!("in the middle of an answer");
            });
            work.join().is_err()
        });
        assert!(panicked);
        drop(turns.take().unwrap());
    }
}
