//! A run: made, served, measured, proved.

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use serde_json::json;

use super::agent::{Agent, Tally};
use super::client::Down;
use super::export;
use super::line::Ways;
use super::measure::Percentiles;
use super::options::{Format, Options, Scenario};
use super::proof::{self, Conservation};
use super::report::{Cpu, Disk, Latencies, Layer, Lines, Report, Wire};
use super::scenario::plans;
use super::soak::{self, Year};
use super::stage::{Measured, Stage};
use super::world::{Made, config, make};
use crate::harness::{Aggregator, Binaries, World, kill_all};

/// Descriptors a process needs beside its connections.
const OTHER_DESCRIPTORS: u64 = 200;

/// Why a run gave no result.
#[derive(Debug)]
pub enum Failure {
    /// The options contradict each other, or the machine.
    Usage(String),
    /// Something did not work.
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::Other(error)
    }
}

/// The program: reads its arguments, runs, prints, and says how it went.
pub fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(dir) = &options.keep
        && std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
    {
        eprintln!("{} is not empty: name a new directory", dir.display());
        return ExitCode::from(2);
    }
    let done = if options.scenario == Scenario::Soak {
        soak(&options).map(|year| {
            print(&options, &year, year.text());
            if year.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        })
    } else {
        run(&options).map(|report| {
            print(&options, &report, report.text());
            match (report.finished, report.passed) {
                (false, _) => ExitCode::from(3),
                (true, false) => ExitCode::FAILURE,
                (true, true) => ExitCode::SUCCESS,
            }
        })
    };
    match done {
        Ok(code) => code,
        Err(Failure::Usage(text)) => {
            eprintln!("{text}");
            ExitCode::from(2)
        }
        Err(Failure::Other(error)) => {
            kill_all();
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print(options: &Options, result: &impl Serialize, text: String) {
    match options.format {
        Format::Json => match serde_json::to_string_pretty(result) {
            Ok(json) => println!("{json}"),
            Err(error) => eprintln!("{error}"),
        },
        Format::Table => print!("{text}"),
    }
}

/// Raises the soft limit of descriptors to the hard one; children inherit it. Gives how many there may be.
fn descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // One that cannot be raised is as it was.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Simulates what the options say, soak apart.
///
/// # Errors
/// [`Failure`]; what is lost or wrong is in the report.
pub fn run(options: &Options) -> Result<Report, Failure> {
    if options.scenario == Scenario::Soak {
        return Err(Failure::Usage("soak has a report of its own".to_owned()));
    }
    let room = room(options)?;
    let (bar, world) = (bar()?, world(options)?);
    let result = simulate(options, (world, room), &bar);
    bar.finish_and_clear();
    Ok(result?)
}

/// Lives through a year.
///
/// # Errors
/// [`Failure`]; what is lost or wrong or has grown is in the report.
pub fn soak(options: &Options) -> Result<Year, Failure> {
    let room = room(options)?;
    let (bar, world) = (bar()?, world(options)?);
    let result = soak::live(options, (world, room), &bar);
    bar.finish_and_clear();
    Ok(result?)
}

/// How many connections there may be, if the options make sense.
fn room(options: &Options) -> Result<usize, Failure> {
    let room = descriptors().saturating_sub(OTHER_DESCRIPTORS);
    let all_at_once =
        options.stay || options.scenario.is_live() || options.scenario.is_connected_before();
    if all_at_once && u64::from(options.agents) > room {
        return Err(Failure::Usage(format!(
            "--agents {}: these stay connected, and a process may have {room} connections here; raise the \
             hard limit (ulimit -Hn)",
            options.agents
        )));
    }
    if options.pre_signed && options.scenario != Scenario::Trickle {
        return Err(Failure::Usage(
            "--pre-signed is for trickle: elsewhere batches carry the \
             connection's hello, or are cut as reports come"
                .to_owned(),
        ));
    }
    if options.assume_received && options.scenario != Scenario::Rebuild {
        return Err(Failure::Usage("--assume-received is for rebuild".to_owned()));
    }
    Ok(usize::try_from(room).unwrap_or(usize::MAX))
}

fn bar() -> Result<ProgressBar> {
    let style = "{spinner} {elapsed} {bar:30} {pos}/{len} {msg}";
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(style)?);
    bar.enable_steady_tick(Duration::from_millis(200));
    Ok(bar)
}

fn world(options: &Options) -> Result<World> {
    let dir = options.keep.as_deref();
    match &options.aggregator {
        None => World::new(dir),
        Some(aggregator) => {
            // Its agent is not run here.
            let agent = aggregator.with_file_name("banyan-agent");
            World::of(Binaries { agent, aggregator: aggregator.clone() }, dir)
        }
    }
}

fn simulate(
    options: &Options,
    (world, sockets): (World, usize),
    bar: &ProgressBar,
) -> Result<Report> {
    let mut made = make(world.dir(), options, |what| bar.set_message(what.to_owned()))?;
    if let Some(dir) = &options.export {
        bar.set_message("writing what is typed");
        export::write(dir, &made)?;
    }
    let plans = plans(&made, options);
    prepare(&mut made, options);
    let stage = Stage::new(options, sockets, bar)?;
    bar.set_message("serving");
    let mut centre = world.serve()?;
    if options.scenario == Scenario::Rebuild {
        if !options.assume_received {
            bar.set_message("sending everything a first time");
            let agents = std::mem::take(&mut made.agents);
            let lives = (agents, plans.clone());
            (made.agents, ()) = stage.deliver(centre.mqtt(), &made, lives, |_| Ok(()))?;
        }
        bar.set_message("emptying the aggregator");
        centre = empty(&world, centre)?;
    }
    let ledger = ledger_bytes(&world.centre());
    let before = sum(&made.agents);
    let agents = std::mem::take(&mut made.agents);
    let (agents, measured) = stage.measure(&centre, &made, agents, plans)?;
    bar.set_message("proving");
    let mut proof = Conservation::of_agents(&agents);
    if measured.finished && !options.no_queries {
        let form = (&*made.catalogue, made.form);
        proof::compare(&centre, form, (&made.areas, None), &agents, &mut proof, |cells| {
            bar.set_message(format!("proving: {cells} cells"));
        })?;
    }
    centre.stop()?;
    proof.ledger(&world.centre(), &agents)?;
    let counts = agents.iter().zip(&made.before).map(|(agent, before)| {
        let all = agent.notebook.numbers(agent.notebook.len());
        let early = options.scenario.is_live().then(|| agent.notebook.numbers(*before));
        all - early.unwrap_or(0)
    });
    let sums = Sums {
        counts: counts.sum(),
        ledger: ledger_bytes(&world.centre()).saturating_sub(ledger),
        tally: sum(&agents).minus(&before),
    };
    Ok(report(options, measured, &sums, proof))
}

/// What comes before the clock and needs no aggregator.
fn prepare(made: &mut Made, options: &Options) {
    let store = made.store;
    for (agent, before) in made.agents.iter_mut().zip(&made.before) {
        match options.scenario {
            Scenario::Trickle => {
                if options.pre_signed {
                    agent.sign_ahead(options.batch_entries().unwrap_or(1));
                }
            }
            Scenario::Rebuild if options.assume_received => {
                agent.received_by(store, config(options));
            }
            _ => agent.write(*before),
        }
    }
}

/// Takes an identity backup and puts an aggregator in the place of `centre` that has nothing else.
fn empty(world: &World, centre: Aggregator) -> Result<Aggregator> {
    let backup = world.dir().join("identity.backup");
    let path = backup.to_str().context("the directory's name is text")?;
    centre.call(&json!({"command": "backup", "path": path, "identity": true}))?;
    centre.stop()?;
    std::fs::remove_dir_all(world.centre())?;
    let output = world.command().arg("restore").arg(&backup).output()?;
    if !output.status.success() {
        bail!("restore: {}", String::from_utf8_lossy(&output.stderr));
    }
    world.serve()
}

pub(super) fn sum(agents: &[Agent]) -> Tally {
    agents.iter().fold(Tally::default(), |sum, agent| sum.plus(&agent.tally))
}

fn ledger_bytes(centre: &Path) -> u64 {
    let dir = banyan_aggregator::service::ledger_dir(centre);
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

/// What is known when everything has been proved.
struct Sums {
    /// Numbers in the reports of the measured time.
    counts: u64,
    /// Bytes the ledger has grown by.
    ledger: u64,
    /// What the agents did in the measured time.
    tally: Tally,
}

fn layer(ways: &Ways, counts: f64) -> Layer {
    let (up, down) = ways.values();
    let (up_per_count, per_count) = (up as f64 / counts, (up + down) as f64 / counts);
    Layer { up, down, up_per_count, per_count }
}

fn report(options: &Options, mut measured: Measured, sums: &Sums, proof: Conservation) -> Report {
    let counts = sums.counts.max(1) as f64;
    let agents = f64::from(options.agents);
    let latencies = std::mem::take(&mut measured.latencies);
    let memory = std::mem::take(&mut measured.memory);
    let Measured { seconds, reports, counters, traffic, centre, own, .. } = &measured;
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let ended = Down::ALL
        .iter()
        .zip(&counters.downs)
        .map(|(down, counter)| (down.name(), read(counter)))
        .filter(|(_, n)| *n > 0)
        .collect();
    let passed = measured.finished
        && proof.holds()
        && measured.unseen == 0
        && (options.no_queries || proof.cells > 0);
    Report {
        scenario: options.scenario.name(),
        agents: options.agents,
        days: options.days(),
        seed: options.seed,
        client: format!("{:?}", options.client).to_lowercase(),
        link: format!("{:?}", options.link),
        measured: options.scenario.measured(),
        finished: measured.finished,
        seconds: *seconds,
        reports: *reports,
        counts: sums.counts,
        reports_per_s: *reports as f64 / seconds,
        counts_per_s: sums.counts as f64 / seconds,
        latency_ms: Latencies {
            typed_to_receipt: Percentiles::of(latencies),
            accepted_to_visible: measured.visible,
            unseen: measured.unseen,
        },
        bytes: Wire {
            payload: layer(&traffic.payload, counts),
            mqtt: layer(&traffic.mqtt, counts),
            tls: layer(&traffic.tls, counts),
            published_twice: read(&traffic.twice),
        },
        cpu: Cpu {
            agents_s: own.cpu_s(),
            centre_user_s: centre.user_s,
            centre_system_s: centre.system_s,
            centre_ms_per_agent: centre.cpu_s() * 1e3 / agents,
            centre_us_per_report: centre.cpu_s() * 1e6 / (*reports).max(1) as f64,
        },
        disk: Disk {
            written: centre.written_bytes,
            written_per_count: centre.written_bytes as f64 / counts,
            ledger: sums.ledger,
            ledger_per_count: sums.ledger as f64 / counts,
        },
        lines: Lines {
            attempts: read(&counters.attempts),
            resumed: read(&counters.resumed),
            vanished: read(&counters.vanished),
            ended,
            batches: sums.tally.batches,
            not_pre_signed: sums.tally.signed_now,
            lost_by_centre: sums.tally.lost_by_centre,
            grants: sums.tally.grants,
            regroupings: measured.regroupings,
        },
        memory,
        conservation: proof,
        passed,
    }
}
