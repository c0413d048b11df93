//! The ledger: rows on disk a second with 1, 64 and 2,000 who each wait for theirs before giving the next; beside one
//! commit, and so one fsync, a row.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use banyan_aggregator::ledger::{Ledger, LedgerWriter, NewRow};
use banyan_aggregator::service::system_clock;

use super::data::{Size, fleet};
use super::measure::{Bench, print, rate, scratch};

pub(crate) const PART: &str = "ledger";
/// How long each is measured.
const FOR: Duration = Duration::from_secs(3);
const SUBMITTERS: [usize; 3] = [1, 64, 2_000];

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let time = if bench.is_small() { Duration::from_millis(50) } else { FOR };
    let (_dir, made) = fleet(Size(1, 30, 30))?;
    let row = NewRow::batch(made.batches[0].1.to_vec());
    let one = alone(&row, time)?;
    for n in SUBMITTERS {
        let many = together(&row, n, time)?;
        let what = match n {
            1 => "1 submitter".to_owned(),
            n => format!("{n} submitters"),
        };
        let baseline = Some((
            "a commit a row",
            &*rate(one, time.as_secs_f64(), "rows"),
            many as f64 / one as f64,
        ));
        print((PART, &what), &rate(many, time.as_secs_f64(), "rows"), baseline);
    }
    Ok(())
}

fn alone(row: &NewRow, time: Duration) -> Result<u64> {
    let dir = scratch()?;
    let clock = system_clock();
    let mut ledger = Ledger::create(dir.path(), [7; 16])?;
    let begun = Instant::now();
    let mut rows = 0;
    while rows == 0 || begun.elapsed() < time {
        ledger.commit_now(std::slice::from_ref(row), clock())?;
        rows += 1;
    }
    Ok(rows)
}

fn together(row: &NewRow, submitters: usize, time: Duration) -> Result<u64> {
    let dir = scratch()?;
    let clock = system_clock();
    let ledger = Ledger::create(dir.path(), [7; 16])?;
    let writer = LedgerWriter::start(ledger, move || clock())?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let rows = Arc::new(AtomicU64::new(0));
    runtime.block_on(async {
        let mut all = tokio::task::JoinSet::new();
        let end = Instant::now() + time;
        for _ in 0..submitters {
            let (handle, row, rows) = (writer.handle(), row.clone(), rows.clone());
            all.spawn(async move {
                loop {
                    handle.commit(vec![row.clone()]).await?;
                    // What comes later counts for nobody.
                    if Instant::now() > end {
                        return anyhow::Ok(());
                    }
                    rows.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while let Some(one) = all.join_next().await {
            one??;
        }
        anyhow::Ok(())
    })?;
    let ledger = writer.stop()?;
    let rows = rows.load(Ordering::Relaxed).max(1);
    ensure!(ledger.head().position >= rows, "everything that was answered is there");
    Ok(rows)
}
