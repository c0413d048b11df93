//! `kill -9` of agents, of the aggregator, of both, at random moments under load; every report that was said to
//! be saved is counted once.
//!
//! Each agent has a writer that types as fast as it can: most of the time its service runs and the command
//! hands over to it, sometimes there is none and the command opens the queue itself. Whatever ends with exit code
//! 0 is saved; of a command that was killed nobody knows. At the end every cell must be what was saved last, or
//! what was attempted since.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use banyan_shared::period::Date;
use banyan_tests::{Agent, Process};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::small::{Small, json_of, run};

const FACILITIES: [&str; 3] = ["V1-VC", "V2-VC", "V5-VC"];
/// Days reported, from 1 January on; small, so that most entries are corrections.
const DAYS: i32 = 60;
/// How long a command under fire may take: it waits for a queue that another has open.
const COMMAND_WITHIN: Duration = Duration::from_secs(60);

/// What a cell may hold: one value once it was saved, more while nobody knows.
type Cells = BTreeMap<Date, Vec<Option<u64>>>;

/// One agent under fire.
struct Target {
    agent: Agent,
    /// The command typing now.
    typing: Mutex<Option<Child>>,
    service: Mutex<Option<Process>>,
    saved: AtomicU64,
    unknown: AtomicU64,
}

impl Target {
    /// Runs a command that may be killed; whether it ended with exit code 0.
    fn command(&self, arguments: &[&str]) -> bool {
        let mut command = self.agent.command(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        *self.typing.lock().unwrap() = Some(command.spawn().unwrap());
        let begun = Instant::now();
        loop {
            let mut typing = self.typing.lock().unwrap();
            let child = typing.as_mut().expect("only this function takes it away");
            if let Some(status) = child.try_wait().unwrap() {
                *typing = None;
                return status.success();
            }
            drop(typing);
            assert!(begun.elapsed() < COMMAND_WITHIN, "{arguments:?} does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn kill_typing(&self) {
        if let Some(child) = self.typing.lock().unwrap().as_mut() {
            // One that has ended already needs no killing.
            let _ = child.kill();
        }
    }

    /// Types until told to stop; what each cell may hold then.
    fn write(&self, seed: u64, stop: &AtomicBool) -> Cells {
        let mut random = StdRng::seed_from_u64(seed);
        let first: Date = "2026-01-01".parse().unwrap();
        let mut cells = Cells::new();
        let mut written = 0u64;
        while !stop.load(Ordering::Relaxed) {
            let day = first.plus(random.random_range(0..DAYS));
            let value = random.random_range(0..400u64);
            let cell = cells.entry(day).or_insert_with(|| vec![None]);
            let visits = format!("total_visits={value}");
            if self.command(&["record", "vc_daily", &day.to_string(), "open_days=1", &visits]) {
                *cell = vec![Some(value)];
                self.saved.fetch_add(1, Ordering::Relaxed);
            } else {
                cell.push(Some(value));
                self.unknown.fetch_add(1, Ordering::Relaxed);
            }
            written += 1;
            if written.is_multiple_of(16) {
                // Whether it gets through does not matter; that it goes on meanwhile does.
                self.command(&["sync", "--timeout", "1s"]);
            }
        }
        cells
    }
}

fn seed() -> u64 {
    match std::env::var("BANYAN_SEED") {
        Ok(text) => text.parse().expect("BANYAN_SEED is a number"),
        Err(_) => 20_260_131,
    }
}

fn torture(rounds: u32) {
    let seed = seed();
    eprintln!("BANYAN_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut small = Small::new();
    let targets: Vec<Arc<Target>> = FACILITIES
        .iter()
        .map(|home| {
            let agent = small.agent(home, &[home]);
            let service = Mutex::new(Some(agent.start(&["run"]).unwrap()));
            let (typing, saved, unknown) = (Mutex::new(None), AtomicU64::new(0), AtomicU64::new(0));
            Arc::new(Target { agent, typing, service, saved, unknown })
        })
        .collect();
    let (mqtt, http) = (small.served().mqtt(), small.served().http());
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (1u64..)
        .zip(&targets)
        .map(|(n, target)| {
            let (target, stop) = (target.clone(), stop.clone());
            std::thread::spawn(move || target.write(seed.wrapping_add(n), &stop))
        })
        .collect();

    let begun = Instant::now();
    let (mut agents, mut aggregators) = (0, 0);
    for _ in 0..rounds {
        // The moment itself is what is random here: nothing is waited for.
        std::thread::sleep(Duration::from_micros(random.random_range(20_000..400_000)));
        let target = &targets[random.random_range(0..targets.len())];
        let what = random.random_range(0..10);
        if what < 7 {
            // A service that was not running begins to, one that was is killed, mostly to come back.
            if random.random_bool(0.5) {
                target.kill_typing();
            }
            let mut service = target.service.lock().unwrap();
            if let Some(service) = service.take() {
                service.kill9().unwrap();
            }
            if random.random_bool(0.8) {
                *service = Some(target.agent.start(&["run"]).unwrap());
            }
            agents += 1;
        }
        if what >= 4 {
            small.served.take().unwrap().kill9().unwrap();
            small.served = Some(small.world.serve_at(mqtt, http).unwrap());
            aggregators += 1;
        }
    }
    let under_fire = begun.elapsed();
    stop.store(true, Ordering::Relaxed);
    let cells: Vec<Cells> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    let (saved, unknown) = targets.iter().fold((0, 0), |(saved, unknown), target| {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (saved + of(&target.saved), unknown + of(&target.unknown))
    });
    eprintln!(
        "{rounds} rounds in {under_fire:?}: {agents} agents and {aggregators} aggregators killed, {saved} \
         reports saved, of {unknown} nobody knows"
    );
    assert!(saved >= u64::from(rounds), "{saved} reports in {rounds} rounds are no load");

    for target in &targets {
        *target.service.lock().unwrap() = None;
        run(&target.agent, &["sync", "--timeout", "60s"]).exits(0);
        assert_eq!(json_of(&target.agent, &["status"])["waiting"], 0);
    }
    let mut sum = 0;
    for ((target, facility), cells) in targets.iter().zip(FACILITIES).zip(&cells) {
        let answer = small.json(&[
            "query",
            facility,
            "2026-01-01..2026-03-01",
            "--by",
            "day",
            "--element",
            "total_visits",
        ]);
        let counted: BTreeMap<Date, u64> = answer["rows"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|row| {
                let value = row["elements"]["total_visits"]["value"].as_u64()?;
                Some((row["key"]["period"].as_str().unwrap().parse().unwrap(), value))
            })
            .collect();
        for (day, possible) in cells {
            let value = counted.get(day).copied();
            assert!(
                possible.contains(&value),
                "{facility} {day}: {value:?} is counted, saved was {possible:?}; logs of {}",
                target.agent.dir().display()
            );
        }
        assert!(counted.keys().all(|day| cells.contains_key(day)), "counted, never typed");
        sum += counted.values().sum::<u64>();
    }
    let province = small.json(&[
        "query",
        "P",
        "2026-01-01..2026-03-01",
        "--by",
        "kind",
        "--element",
        "total_visits",
    ]);
    let total: u64 = province["rows"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|row| row["elements"]["total_visits"]["value"].as_u64())
        .sum();
    assert_eq!(total, sum, "{province}");
    small.ok(&["verify", "--all"]);
    // What a fold of the whole ledger gives is what was served.
    let served = ledgers_figures(&small);
    small.served.take().unwrap().stop().unwrap();
    small.served = Some(small.world.serve_at(mqtt, http).unwrap());
    assert_eq!(ledgers_figures(&small), served);
}

/// The figures as far as the ledger makes them: why something is missing goes by the agents' last hellos too.
fn ledgers_figures(small: &Small) -> serde_json::Value {
    let mut figures = small.figures("S", "2026-01");
    figures["completeness"].as_object_mut().unwrap().remove("missing_why");
    figures
}

#[test]
fn ten_rounds_of_kill_9() {
    torture(10);
}

#[cfg(feature = "torture")]
#[test]
fn two_hundred_rounds_of_kill_9() {
    torture(200);
}
