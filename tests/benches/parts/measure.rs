//! Times things, prints lines, and hands ours to Criterion.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use criterion::Criterion;
use tempfile::TempDir;

/// How long each side of a line is repeated.
const BUDGET: Duration = Duration::from_secs(2);
/// Rounds at most.
const ROUNDS_MAX: usize = 1_000;

/// Something to be timed; gives how long what counts of it took, without what came before and after.
pub(crate) type Work<'a> = &'a mut dyn FnMut() -> Result<Duration>;

/// What one call of some work does: how many of what.
#[derive(Clone, Copy)]
pub(crate) struct Of(pub(crate) f64, pub(crate) &'static str);

/// The command line, the lines printed, and Criterion.
pub(crate) struct Bench {
    small: bool,
    criterion: Criterion,
}

impl Bench {
    pub(crate) fn new() -> Result<Bench> {
        // As Criterion has it: `cargo bench` says so, and everything else is a trial.
        let said = |word: &str| std::env::args().any(|argument| argument == word);
        let criterion = Criterion::default()
            .sample_size(10)
            .warm_up_time(Duration::from_millis(200))
            .measurement_time(Duration::from_secs(1))
            .configure_from_args();
        Ok(Bench { small: said("--test") || !said("--bench"), criterion })
    }

    /// Whether this is a trial.
    pub(crate) fn is_small(&self) -> bool {
        self.small
    }

    fn budget(&self) -> Duration {
        if self.small { Duration::ZERO } else { BUDGET }
    }

    /// Times ours and what else could be done, prints a line for each of the latter, and lets Criterion repeat ours.
    pub(crate) fn line(
        &mut self,
        (part, what): (&str, &str),
        of: Of,
        ours: Work<'_>,
        baselines: &mut [(&str, Work<'_>)],
    ) -> Result<()> {
        let budget = self.budget();
        let mine = median(budget, ours)?;
        if baselines.is_empty() {
            print((part, what), &each(mine, of), None);
        }
        for (name, theirs) in baselines {
            let theirs = median(budget, &mut **theirs)?;
            let ratio = theirs.as_secs_f64() / mine.as_secs_f64();
            print((part, what), &each(mine, of), Some((*name, &each(theirs, of), ratio)));
        }
        let mut group = self.criterion.benchmark_group(part);
        group.bench_function(what.replace([' ', ','], "_"), |bencher| {
            bencher.iter_custom(|rounds| {
                (0..rounds).map(|_| ours().expect("what worked before works again")).sum()
            });
        });
        group.finish();
        Ok(())
    }

    pub(crate) fn finish(self) {
        self.criterion.final_summary();
    }
}

/// Prints a line: what, ours, and perhaps a baseline with its name and how many times better ours is.
pub(crate) fn print((part, what): (&str, &str), ours: &str, baseline: Option<(&str, &str, f64)>) {
    let (name, theirs, ratio) = baseline.map_or_else(Default::default, |(name, theirs, ratio)| {
        (name, theirs, if ratio < 10.0 { format!("{ratio:.2} ×") } else { format!("{ratio:.0} ×") })
    });
    println!("| {part} | {what} | {ours} | {name} | {theirs} | {ratio} |");
}

/// The median of as many rounds as fit into the budget, at least one.
fn median(budget: Duration, work: Work<'_>) -> Result<Duration> {
    let begun = Instant::now();
    let mut rounds = Vec::new();
    while rounds.is_empty() || rounds.len() < ROUNDS_MAX && begun.elapsed() < budget {
        rounds.push(work()?);
    }
    rounds.sort_unstable();
    Ok(rounds[rounds.len() / 2])
}

/// How long one of them takes.
pub(crate) fn each(time: Duration, Of(n, what): Of) -> String {
    let ns = time.as_secs_f64() * 1e9 / n;
    let (value, unit) = match ns {
        ns if ns < 1e3 => (ns, "ns"),
        ns if ns < 1e6 => (ns / 1e3, "µs"),
        ns if ns < 1e9 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    format!("{value:.1} {unit} a {what}")
}

/// How many a second.
pub(crate) fn rate(n: u64, seconds: f64, what: &str) -> String {
    let per = n as f64 / seconds;
    match per {
        per if per < 1e4 => format!("{per:.0} {what}/s"),
        per if per < 1e6 => format!("{:.1} k {what}/s", per / 1e3),
        per => format!("{:.2} M {what}/s", per / 1e6),
    }
}

/// Times one call.
pub(crate) fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let begun = Instant::now();
    let done = work()?;
    Ok((done, begun.elapsed()))
}

/// As [`timed`], of which only the time counts.
pub(crate) fn time<T>(work: impl FnOnce() -> Result<T>) -> Result<Duration> {
    let (done, took) = timed(work)?;
    std::hint::black_box(done);
    Ok(took)
}

/// A new directory on the disk the build is on.
pub(crate) fn scratch() -> Result<TempDir> {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    TempDir::with_prefix_in("parts-", parent).with_context(|| parent.display().to_string())
}
