//! Real programs for tests and the demo: built, started, killed, and joined by a line that can be cut.
//!
//! Everything blocks, so that it serves in tests of any kind; whatever was started ends when its owner is dropped.

mod binaries;
mod link;
mod ports;
mod process;
mod world;

pub(crate) use binaries::profile_dir;
pub use binaries::{Binaries, binaries};
pub use link::{LineState, Link};
pub use ports::kept_address;
pub use process::{Process, kill_all};
pub use world::{Agent, Aggregator, Answer, World};

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

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

/// Copies a directory with everything in it.
///
/// # Errors
/// What the disk says.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let path = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &path)?;
        } else {
            fs::copy(entry.path(), &path).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
