//! A start: the service opened over a county's months in the ledger, with what was folded before at hand, and without.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use banyan_aggregator::service::Service;
use banyan_shared::ids::Millis;
use banyan_tests::harness::copy;
use banyan_tests::model::shipped;
use banyan_tests::province::{Options, fixture};
use tokio::runtime::Runtime;

use super::measure::{Bench, Of, scratch, timed};

pub(crate) const PART: &str = "start";

/// A county: a month of it in a trial, otherwise a year.
pub(crate) fn options(small: bool) -> Result<Options> {
    Ok(Options {
        from: if small { "2026-03" } else { "2025-04" }.parse()?,
        months: if small { 1 } else { 12 },
        seed: 7,
        below: vec!["520502".to_owned()],
        ..Options::before("2026-06-01".parse()?)
    })
}

/// Opens and closes the service; how long opening took.
fn open(runtime: &Runtime, dir: &Path, now: Millis) -> Result<Duration> {
    runtime.block_on(async {
        let begun = std::time::Instant::now();
        let (service, running) = Service::open(dir, Arc::new(move || now), None).await?;
        let took = begun.elapsed();
        drop(service);
        running.stop().await?;
        Ok(took)
    })
}

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let options = options(bench.is_small())?;
    let made = fixture(&options, |_| {})?;
    let dir = scratch()?;
    copy(&made.centre(), dir.path())?;
    let derived = dir.path().join("derived");
    let forget = || match std::fs::remove_dir_all(&derived) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let now = shipped()?.0.midnight(options.end());
    let versions = made.summary.versions as f64;
    // Closing it writes the file.
    forget()?;
    timed(|| open(&runtime, dir.path(), now))?;
    bench.line(
        (PART, "with derived.db"),
        Of(versions, "version"),
        &mut || open(&runtime, dir.path(), now),
        &mut [("without: the ledger folded", &mut || {
            forget()?;
            open(&runtime, dir.path(), now)
        })],
    )
}
