//! Real programs for tests and the demo: built, started, killed, and joined by a line that can be cut.
//!
//! Everything blocks, so that it serves in tests of any kind; whatever was started ends when its owner is dropped.

mod binaries;
mod link;
mod process;
mod world;

pub(crate) use binaries::profile_dir;
pub use binaries::{Binaries, binaries};
pub use link::{LineState, Link};
pub use process::{Process, kill_all};
pub use world::{Agent, Aggregator, Answer, World};

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until `condition` gives something.
///
/// # Errors
/// What it says, or that `what` did not come about within `limit`.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = condition()? {
            return Ok(found);
        }
        if begun.elapsed() >= limit {
            bail!("{what}: not within {limit:?}");
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests;
