//! A serving aggregator on a province-year, from outside: how long it takes to start, what memory it takes, how fast
//! it answers over HTTP, alone and while agents deliver, and how fast and long its pages are.
//!
//! The process is this very program, started again with the aggregator's arguments: the same code, compiled once.
//! It works on a copy of the directory that `queries` uses too. `-- --test` does all of it once on a county-month.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use banyan_shared::ids::Millis;
use banyan_shared::organisation::UnitIx;
use banyan_shared::period::Period;
use banyan_shared::topic;
use banyan_shared::wire::Envelope;
use banyan_tests::harness::copy;
use banyan_tests::model::shipped;
use banyan_tests::province::{Options, fixture};
use banyan_tests::{Process, until};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use serde_json::Value;

/// How long questions are asked, each way.
const LOAD: Duration = Duration::from_secs(20);
/// Connections asking at a time, each the next question when it has its answer.
const ASKING: usize = 2;
/// Batches delivered a second meanwhile, each on a connection of its own.
const BATCHES_A_SECOND: u32 = 100;
/// How long the aggregator may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(600);
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// What the aggregator keeps beside the ledger and makes anew where it is missing.
const DERIVED: &str = "derived";

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--data-dir") {
        return banyan_aggregator::cli::main();
    }
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

struct Centre {
    process: Process,
    http: SocketAddr,
    mqtt: SocketAddr,
    token: String,
    agent: ureq::Agent,
}

impl Centre {
    /// Starts it; gives how long it took until ready and until the first answer, in s.
    fn start(dir: &Path, question: &str) -> Result<(Centre, f64, f64)> {
        let addresses = dir.join("run/addresses.json");
        let begun = Instant::now();
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--data-dir").arg(dir);
        command.args(["serve", "--mqtt-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"]);
        let process = Process::start(&mut command, &dir.with_extension("log"))?;
        let (mqtt, http) = until("the aggregator is ready", READY_WITHIN, || {
            process.check()?;
            let Ok(bytes) = fs::read(&addresses) else { return Ok(None) };
            let json: Value = serde_json::from_slice(&bytes)?;
            let part = |name: &str| -> Result<SocketAddr> {
                Ok(json[name].as_str().context("an address")?.parse()?)
            };
            Ok(Some((part("mqtt")?, part("http")?)))
        })?;
        let ready = begun.elapsed().as_secs_f64();
        let token = fs::read_to_string(dir.join("run/admin.token"))?.trim().to_owned();
        let agent =
            ureq::Agent::config_builder().timeout_global(Some(ANSWER_WITHIN)).build().into();
        let centre = Centre { process, http, mqtt, token, agent };
        centre.get(question)?;
        Ok((centre, ready, begun.elapsed().as_secs_f64()))
    }

    fn get(&self, path: &str) -> Result<usize> {
        Ok(self.text(path)?.len())
    }

    fn text(&self, path: &str) -> Result<String> {
        let mut answer = self
            .agent
            .get(format!("http://{}{path}", self.http))
            .header("authorization", format!("Bearer {}", self.token))
            .call()
            .with_context(|| path.to_owned())?;
        Ok(answer.body_mut().with_config().limit(1 << 30).read_to_string()?)
    }

    fn counter(&self, part: &str, name: &str) -> Result<u64> {
        let counters: Value = serde_json::from_str(&self.text("/v1/counters")?)?;
        counters[part][name].as_u64().with_context(|| format!("no counter {part} {name}"))
    }

    /// Waits until what operators ask most is worked out; how long that took, in s.
    fn ready(&self) -> Result<f64> {
        let begun = Instant::now();
        let over = || Ok((self.counter("ready", "rounds")? > 0).then_some(()));
        until("the first round of answers is made ready", READY_WITHIN, over)?;
        Ok(begun.elapsed().as_secs_f64())
    }

    /// Resident memory now and at its highest, in MiB; where the system tells.
    fn memory(&self) -> Option<(u64, u64)> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.process.id())).ok()?;
        let of = |name: &str| -> Option<u64> {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
        };
        Some((of("VmRSS:")?, of("VmHWM:")?))
    }

    fn stop(self) -> Result<()> {
        let status = self.process.terminate(Duration::from_secs(60))?;
        if status.success() { Ok(()) } else { bail!("the aggregator ended with {status}") }
    }
}

/// Delivers batches as agents do, each over a connection of its own, until told to stop; how many were
/// acknowledged.
fn deliver(address: SocketAddr, batches: &[Vec<u8>], stop: &AtomicBool) -> Result<u64> {
    let begun = Instant::now();
    let mut acknowledged = 0;
    for (at, batch) in (0u32..).zip(batches) {
        let due = Duration::from_secs(1) / BATCHES_A_SECOND * at;
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let agent = Envelope::read(batch)?.agent;
        let mut options =
            MqttOptions::new(agent.to_string(), address.ip().to_string(), address.port());
        options.set_keep_alive(Duration::from_secs(30));
        let (client, mut connection) = Client::new(options, 4);
        client.publish(topic::up(agent), QoS::AtLeastOnce, false, batch.clone())?;
        loop {
            match connection.recv_timeout(ANSWER_WITHIN) {
                Ok(Ok(Event::Incoming(Packet::PubAck(_)))) => break,
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error).context("delivering a batch"),
                Err(_) => bail!("a batch was not acknowledged within {ANSWER_WITHIN:?}"),
            }
        }
        acknowledged += 1;
        // The server may have hung up already.
        let _ = client.disconnect();
        while connection.recv_timeout(ANSWER_WITHIN).is_ok_and(|event| event.is_ok()) {}
    }
    Ok(acknowledged)
}

/// Asks each question once, one after the other; the answers' times in order, and their mean size.
fn ask_each(centre: &Centre, questions: &[String]) -> Result<(Vec<Duration>, u64)> {
    let (mut taken, mut bytes) = (Vec::with_capacity(questions.len()), 0);
    for question in questions {
        let asked = Instant::now();
        bytes += centre.get(question)? as u64;
        taken.push(asked.elapsed());
    }
    taken.sort_unstable();
    let mean = bytes / taken.len().max(1) as u64;
    Ok((taken, mean))
}

/// Asks in a closed loop for `time`; the answers' times in order, and their mean size.
fn ask(centre: &Centre, questions: &[String], time: Duration) -> Result<(Vec<Duration>, u64)> {
    let taken = Mutex::new(Vec::new());
    let bytes = AtomicU64::new(0);
    std::thread::scope(|scope| -> Result<()> {
        let asking: Vec<_> = (0..ASKING)
            .map(|at| {
                let (taken, bytes) = (&taken, &bytes);
                scope.spawn(move || -> Result<()> {
                    let mut random = StdRng::seed_from_u64(at as u64);
                    let begun = Instant::now();
                    let mut own = Vec::new();
                    while begun.elapsed() < time {
                        let question = &questions[random.random_range(0..questions.len())];
                        let asked = Instant::now();
                        let length = centre.get(question)?;
                        own.push(asked.elapsed());
                        bytes.fetch_add(length as u64, Ordering::Relaxed);
                    }
                    taken.lock().expect("nobody panics with it").append(&mut own);
                    Ok(())
                })
            })
            .collect();
        for one in asking {
            one.join().expect("asking does not panic")?;
        }
        Ok(())
    })?;
    let mut taken = taken.into_inner().expect("nobody panics with it");
    taken.sort_unstable();
    let mean = bytes.into_inner() / taken.len().max(1) as u64;
    Ok((taken, mean))
}

fn told(what: &str, taken: &[Duration], bytes: u64, more: &str) {
    let at = |percent: usize| {
        taken[(taken.len() * percent / 100).min(taken.len() - 1)].as_secs_f64() * 1e3
    };
    println!(
        "| {what} | p50 {:.2} ms, p99 {:.2} ms, max {:.1} ms | {} answers of {bytes} bytes in the mean{more} |",
        at(50),
        at(99),
        at(100),
        taken.len()
    );
}

fn bench() -> Result<()> {
    // As Criterion has it: `cargo bench` says so, and everything else is a trial.
    let said = |word: &str| std::env::args().any(|argument| argument == word);
    let small = said("--test") || !said("--bench");
    let options = if small {
        Options {
            from: "2026-03".parse()?,
            months: 1,
            seed: 7,
            below: vec!["520502".to_owned()],
            ..Options::before("2026-06-01".parse()?)
        }
    } else {
        let now: Millis = jiff::Timestamp::now().into();
        Options::before(shipped()?.0.day_at(now))
    };
    let made = fixture(&options, |_| {})?;
    let dir: PathBuf = made.dir.join(format!("serving-{}", std::process::id()));
    copy(&made.centre(), &dir)?;
    let result =
        measure(&options, &dir, made.next()?, if small { Duration::from_secs(1) } else { LOAD });
    fs::remove_dir_all(&dir)?;
    let _ = fs::remove_file(dir.with_extension("log"));
    result
}

fn measure(options: &Options, dir: &Path, batches: Vec<Vec<u8>>, time: Duration) -> Result<()> {
    let (catalogue, organisation) = shipped()?;
    let day = options.from.first_day();
    let counties: Vec<String> = match options.below.as_slice() {
        [] => {
            let county = catalogue.kind("county");
            let units = organisation
                .units()
                .filter(|unit| Some(organisation.kind_on(*unit, day)) == county);
            units.map(|unit| organisation.code(unit).to_string()).collect()
        }
        below => below.to_vec(),
    };
    let questions: Vec<String> = counties
        .iter()
        .flat_map(|unit| {
            let months = options.all_months().into_iter();
            months.map(move |month| format!("/v1/query?unit={unit}&period={month}"))
        })
        .collect();
    println!("| what | figure | |\n|---|---|---|");
    match fs::remove_dir_all(dir.join(DERIVED)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    for what in ["start without derived.db", "start with derived.db"] {
        let (centre, ready, first) = Centre::start(dir, &questions[0])?;
        let memory = centre.memory().map_or_else(String::new, |(now, most)| {
            format!("resident {now} MiB, at most {most} MiB")
        });
        println!(
            "| {what} | ready after {ready:.2} s, first answer after {first:.2} s | {memory} |"
        );
        centre.stop()?;
    }
    let (centre, ..) = Centre::start(dir, &questions[0])?;
    let (taken, bytes) = ask_each(&centre, &questions)?;
    told("county months over HTTP, each for the first time", &taken, bytes, "");
    let waited = centre.ready()?;
    let (made, kept) = (centre.counter("ready", "made")?, centre.counter("ready", "bytes")?);
    println!(
        "| answers made ready | {waited:.1} s after the last question | {made} made, {} KiB kept |",
        kept / 1024
    );
    let (taken, bytes) = ask(&centre, &questions, time)?;
    told("county months over HTTP, nothing else", &taken, bytes, "");
    let stop = AtomicBool::new(false);
    let before = centre.counter("intake", "batches")?;
    std::thread::scope(|scope| -> Result<()> {
        let delivering = scope.spawn(|| deliver(centre.mqtt, &batches, &stop));
        let asked = ask(&centre, &questions, time);
        stop.store(true, Ordering::SeqCst);
        let delivered = delivering.join().expect("delivering does not panic")?;
        let (taken, bytes) = asked?;
        let stored = || centre.counter("intake", "batches");
        until("everything delivered is in the ledger", ANSWER_WITHIN, || {
            Ok((stored()? == before + delivered).then_some(()))
        })?;
        let rate = delivered as f64 / time.as_secs_f64();
        let more = format!("; {rate:.0} batches a second received and stored");
        told("county months over HTTP, agents delivering", &taken, bytes, &more);
        Ok(())
    })?;
    if let Some((now, most)) = centre.memory() {
        println!("| memory after the load | resident {now} MiB, at most {most} MiB | |");
    }
    centre.stop()?;
    let (centre, ..) = Centre::start(dir, &questions[0])?;
    pages(&centre, options, &counties, time / 4)?;
    centre.stop()
}

/// The addresses of each kind of page, of the last month of the year.
fn addresses(options: &Options, counties: &[String]) -> Result<Vec<(&'static str, Vec<String>)>> {
    let (catalogue, organisation) = shipped()?;
    let month = *options.all_months().last().context("a month")?;
    let day = month.last_day();
    let counties: Vec<UnitIx> =
        counties.iter().filter_map(|code| organisation.unit(code)).collect();
    let page = |code: &str| format!("/place/{code}?period={month}");
    let above = |unit: &UnitIx| organisation.parent_on(*unit, day);
    let units = |list: BTreeSet<UnitIx>| -> Vec<String> {
        list.into_iter().map(|unit| page(organisation.code(unit).as_str())).collect()
    };
    let cities: BTreeSet<UnitIx> = counties.iter().filter_map(above).collect();
    let networks = |kind: &str| -> Vec<String> {
        let kind = catalogue.network_kind(kind);
        let below = |unit: &UnitIx| counties.iter().any(|c| organisation.is_below(*unit, *c, day));
        let of_kind = organisation.networks().filter(|n| {
            let info = organisation.network_info(*n);
            Some(info.kind) == kind && organisation.facilities_in(*n, day).iter().any(below)
        });
        of_kind.map(|n| page(organisation.network_code(n).as_str())).collect()
    };
    let sites: Vec<UnitIx> = counties
        .iter()
        .flat_map(|county| organisation.facilities_below(*county, day).into_iter().step_by(40))
        .collect();
    let report = |unit: &UnitIx| {
        let kind = organisation.kind_on(*unit, day);
        let form = catalogue.forms.iter().find(|form| form.kinds.contains(&kind))?;
        let period = Period::containing(form.period_type, day);
        Some(format!("/report/{}/{}/{period}", organisation.code(*unit), form.code))
    };
    Ok(vec![
        ("province page", units(cities.iter().filter_map(above).collect())),
        ("city page", units(cities)),
        ("county page", units(counties.iter().copied().collect())),
        ("county community page", networks("county_community")),
        ("city group page", networks("city_group")),
        ("facility page", units(sites.iter().copied().collect())),
        ("report page", sites.iter().filter_map(report).collect()),
    ])
}

/// Opens pages of every kind: the first one after the start, and then again and again.
fn pages(centre: &Centre, options: &Options, counties: &[String], time: Duration) -> Result<()> {
    for (what, pages) in addresses(options, counties)? {
        let Some(first) = pages.first() else { continue };
        let asked = Instant::now();
        centre.get(first)?;
        let first = asked.elapsed().as_secs_f64() * 1e3;
        let mut longest = 0;
        for page in &pages {
            longest = longest.max(centre.get(page)?);
        }
        let (taken, bytes) = ask(centre, &pages, time)?;
        told(what, &taken, bytes, &format!(", at most {longest}; the first after {first:.0} ms"));
    }
    Ok(())
}
