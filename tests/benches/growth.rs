//! How costs grow with sites and years: 1, 10 and 30 times Guizhou's registry, 1, 3 and 10 years of ledger.
//!
//! Each point is made, folded from its first row as after a restore, started again from `derived.db`, and asked the
//! same questions: every step in a process of its own, this program started again, so that memory is that step's.
//! A filter such as `10x12` (times, months) takes one point; `-- --test` tries two provinces' county-month.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use banyan_aggregator::service::{QueryCall, Service};
use banyan_shared::ids::Millis;
use banyan_tests::model::shipped;
use banyan_tests::province::{Options, Summary, generate};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Provinces and months of each point.
const POINTS: [(u32, u32); 5] = [(1, 12), (1, 36), (1, 120), (10, 3), (30, 1)];
/// How long a question is asked again and again.
const BUDGET: Duration = Duration::from_secs(2);
const ROUNDS_MAX: usize = 200;

/// What a start was like.
#[derive(Serialize, Deserialize)]
struct Start {
    seconds: f64,
    cpu_seconds: f64,
    /// Held when it stood, and the most before.
    resident_mib: u64,
    peak_mib: u64,
    /// Held once it was asked.
    asked_mib: u64,
    derived_mib: u64,
    /// In ms: the first time, and the medians worked out and again.
    questions: Vec<(String, [f64; 3])>,
}

/// A point of the curves.
#[derive(Serialize)]
struct Point {
    times: u32,
    months: u32,
    made: Summary,
    made_cpu_seconds: f64,
    made_peak_mib: u64,
    folded: Start,
    started: Start,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let said = |word: &str| arguments.iter().any(|argument| argument == word);
    if let [step, dir, options, ..] = &arguments[..] {
        let (dir, options) = (Path::new(dir), || serde_json::from_str::<Options>(options));
        match &**step {
            "make" => return tell(&make(dir, &options()?)?),
            "start" => return tell(&start(dir, &options()?)?),
            _ => {}
        }
    }
    let small = said("--test") || !said("--bench");
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let points = if small { &[(2, 1)][..] } else { &POINTS };
    println!(
        "| provinces, months | sites, agents | reports, counts | made: CPU a count | ledger a count | folded: \
         time, a count, peak | start, memory, `derived.db` | questions: first, worked out, again in ms |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (times, months) in points {
        if filter.is_some_and(|word| *word != format!("{times}x{months}")) {
            continue;
        }
        let point = point(*times, *months, small)?;
        println!("{}", line(&point));
        eprintln!("{}", serde_json::to_string(&point)?);
    }
    Ok(())
}

fn options(times: u32, months: u32, small: bool) -> Result<Options> {
    let now: Millis = jiff::Timestamp::now().into();
    let whole = Options::before(shipped()?.0.day_at(now));
    let from = whole.from.plus(12 - i32::try_from(months)?);
    let below = if small { vec!["520502".into(), "600502".into()] } else { Vec::new() };
    Ok(Options { from, months, below, times, ..whole })
}

fn point(times: u32, months: u32, small: bool) -> Result<Point> {
    let options = options(times, months, small)?;
    // Beside the build: large, and gone with it should this be cut short.
    let program = std::env::current_exe()?;
    let beside = program.parent().context("a program lies in a folder")?;
    let place = tempfile::Builder::new().prefix("growth-").tempdir_in(beside)?;
    let dir = place.path().join("centre");
    let (made, made_cpu_seconds, made_peak_mib) = step("make", &dir, &options)?;
    let folded = step("start", &dir, &options)?;
    let started = step("start", &dir, &options)?;
    Ok(Point { times, months, made, made_cpu_seconds, made_peak_mib, folded, started })
}

/// Runs a step in a process of its own.
fn step<T: DeserializeOwned>(name: &str, dir: &Path, options: &Options) -> Result<T> {
    let program = std::env::current_exe()?;
    let output = Command::new(program)
        .arg(name)
        .arg(dir)
        .arg(serde_json::to_string(options)?)
        .stderr(std::process::Stdio::inherit())
        .output()?;
    if !output.status.success() {
        bail!("{name}: {}", output.status);
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn tell(what: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(what)?);
    Ok(())
}

fn make(dir: &Path, options: &Options) -> Result<(Summary, f64, u64)> {
    std::fs::create_dir_all(dir)?;
    let mut told = Instant::now();
    let made = generate(dir, options, |progress| {
        if told.elapsed() > Duration::from_secs(20) {
            told = Instant::now();
            eprintln!(
                "day {} of {}, {} versions",
                progress.days.0, progress.days.1, progress.versions
            );
        }
    })?;
    let (_, peak) = memory_mib()?;
    Ok((made.summary, cpu_seconds(), peak))
}

/// Opens the service as it finds the directory, asks it, and closes it, which writes `derived.db`.
fn start(dir: &Path, options: &Options) -> Result<Start> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        // Some time after midnight, so that the clock may go back.
        let clock = Arc::new(AtomicI64::new(shipped()?.0.midnight(options.end()).0 + 3_600_000));
        let told = clock.clone();
        let now = Arc::new(move || Millis(told.load(Ordering::Relaxed)));
        let (begun, before) = (Instant::now(), cpu_seconds());
        let (service, running) = Service::open(dir, now, None).await?;
        let (seconds, cpu_seconds) = (begun.elapsed().as_secs_f64(), cpu_seconds() - before);
        let (resident_mib, peak_mib) = memory_mib()?;
        let questions = ask(&service, &clock, options)?;
        let (asked_mib, _) = memory_mib()?;
        drop(service);
        running.stop().await?;
        let derived = std::fs::metadata(dir.join("derived").join("derived.db"))?.len();
        let derived_mib = derived >> 20;
        Ok(Start {
            seconds,
            cpu_seconds,
            resident_mib,
            peak_mib,
            asked_mib,
            derived_mib,
            questions,
        })
    })
}

/// Asks what a county, a city and a province ask, of the first province.
fn ask(service: &Service, clock: &AtomicI64, options: &Options) -> Result<Vec<(String, [f64; 3])>> {
    let months = options.all_months();
    let last = *months.last().context("there is a month")?;
    let year = format!("{}..{last}", months[months.len().saturating_sub(12)]);
    let oldest = format!("{}", months[0]);
    let (county, city, province) = ("520502", "5205", "52");
    let last = last.to_string();
    let mut asked = Vec::new();
    for (name, unit, period) in [
        ("county, month", county, &last),
        ("county, oldest month", county, &oldest),
        ("city, month", city, &last),
        ("province, month", province, &last),
        ("province, year or less", province, &year),
    ] {
        let call =
            QueryCall { unit: unit.to_owned(), period: period.clone(), ..QueryCall::default() };
        let first = Instant::now();
        service.figures(&call)?;
        let first = first.elapsed().as_secs_f64() * 1e3;
        let worked_out = median(|| {
            // No row kept of another moment may be taken.
            clock.fetch_sub(1, Ordering::Relaxed);
            service.figures(&call).map(drop)
        })?;
        let again = median(|| service.figures(&call).map(drop))?;
        asked.push((name.to_owned(), [first, worked_out, again]));
    }
    Ok(asked)
}

fn median(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let begun = Instant::now();
    let mut rounds = Vec::new();
    while rounds.is_empty() || rounds.len() < ROUNDS_MAX && begun.elapsed() < BUDGET {
        let round = Instant::now();
        work()?;
        rounds.push(round.elapsed());
    }
    rounds.sort_unstable();
    Ok(rounds[rounds.len() / 2].as_secs_f64() * 1e3)
}

fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// What this process holds, and the most it held.
fn memory_mib() -> Result<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let of = |name: &str| -> Result<u64> {
        let line = status.lines().find(|line| line.starts_with(name)).context("it is there")?;
        let kib = line.split_whitespace().nth(1).context("a number")?;
        Ok(kib.parse::<u64>()? >> 10)
    };
    Ok((of("VmRSS:")?, of("VmHWM:")?))
}

fn line(point: &Point) -> String {
    let Point { times, months, made, made_cpu_seconds, made_peak_mib: _, folded, started } = point;
    let counts = made.counts as f64;
    let questions: Vec<String> = started
        .questions
        .iter()
        .map(|(name, [first, worked_out, again])| {
            format!("{name} {first:.0}, {worked_out:.2}, {again:.3}")
        })
        .collect();
    format!(
        "| {times} × {months} | {}, {} | {:.2} M, {:.1} M | {:.2} µs | {:.2} bytes | {:.1} s, {:.2} µs CPU, {} MiB | \
         {:.2} s, {} MiB, {} MiB asked, {} MiB | {} |",
        made.sites,
        made.agents,
        made.reports as f64 / 1e6,
        counts / 1e6,
        made_cpu_seconds * 1e6 / counts,
        made.ledger_bytes as f64 / counts,
        folded.seconds,
        folded.cpu_seconds * 1e6 / counts,
        folded.peak_mib,
        started.seconds,
        started.resident_mib,
        started.asked_mib,
        started.derived_mib,
        questions.join("; "),
    )
}
