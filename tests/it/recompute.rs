//! Every element and every indicator, computed a second time by a program that shares no code with ours.
//!
//! `tests/recompute/recompute.py` makes a small random province, says what is to be sent, and compares the answers
//! with its own. `BANYAN_RECOMPUTE_SEEDS` names other seeds, divided by commas.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use banyan_tests::{World, until};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::small::{SOON, Small};

const SEEDS: &str = "1,2,3,4,5";

/// What the program says is to be done.
#[derive(Debug, Deserialize)]
struct Plan {
    init: Vec<String>,
    tables: Vec<String>,
    imports: Vec<String>,
    acts: Vec<Vec<String>>,
    queries: Vec<Vec<String>>,
    before_acts: Vec<Vec<String>>,
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs the program; what it wrote.
fn recompute(arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new("python3");
    command.arg("-B").arg(here("recompute/recompute.py")).args(arguments);
    let output = command.output().expect("python3 is there: .ci/run installs it");
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), format!("{out}{err}"))
}

fn province(seed: &str) {
    let world = World::new(None).unwrap();
    let folder = world.dir().join("province");
    let path = |name: &str| folder.join(name).display().to_string();
    let now = jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::get("Asia/Shanghai").unwrap());
    let now = now.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    let (catalogue, targets) = (here("../seeds/catalogue.toml"), here("../seeds/targets.csv"));
    let (made, said) = recompute(&[
        "generate",
        seed,
        &now,
        catalogue.to_str().unwrap(),
        targets.to_str().unwrap(),
        folder.to_str().unwrap(),
    ]);
    assert!(made, "{said}");
    print!("{said}");
    let plan: Plan = serde_json::from_slice(&std::fs::read(path("plan.json")).unwrap()).unwrap();
    let files: Vec<String> = plan
        .init
        .iter()
        .map(|one| if one.starts_with("--") { one.clone() } else { path(one) })
        .collect();
    world.init(&files.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    let served = world.serve().unwrap();
    let small = Small { world, served: Some(served), init: String::new() };
    for table in &plan.tables {
        small.json(&["import-units", &path(table), "--apply"]);
    }
    for file in &plan.imports {
        small.ok(&["import", "csv", &path(file)]);
    }
    // Moments are told in whole seconds: each is waited out.
    let as_of = || small.json(&["query", "P", "2026-01"])["as_of"].as_str().unwrap().to_owned();
    let next = || {
        let last = as_of();
        until("the next second", SOON, || Ok(Some(as_of()).filter(|now| *now != last))).unwrap()
    };
    let before = next();
    next();
    for act in &plan.acts {
        small.ok(&act.iter().map(String::as_str).collect::<Vec<_>>());
    }
    // One moment for all, after the last change; and one before the acts.
    let now = next();
    let mut answers: Vec<Value> = Vec::new();
    for (when, moment, queries) in
        [("after", &now, &plan.queries), ("before", &before, &plan.before_acts)]
    {
        for query in queries {
            let mut arguments: Vec<&str> = query.iter().map(String::as_str).collect();
            arguments.extend(["--as-of", moment]);
            let answer = small.json(&arguments);
            answers.push(json!({ "when": when, "arguments": query, "answer": answer }));
        }
    }
    std::fs::write(path("answers.json"), serde_json::to_vec(&answers).unwrap()).unwrap();
    let (agrees, said) = recompute(&["check", folder.to_str().unwrap()]);
    if let Ok(keep) = std::env::var("BANYAN_RECOMPUTE_KEEP") {
        let kept = Path::new(&keep).join(seed);
        std::fs::create_dir_all(&kept).unwrap();
        for entry in std::fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), kept.join(entry.file_name())).unwrap();
        }
    }
    assert!(agrees, "seed {seed}: {said}");
    print!("seed {seed}: {said}");
    small.served.unwrap().stop().unwrap();
}

#[test]
fn every_figure_of_random_provinces_is_what_another_program_makes_of_the_same_counts() {
    let seeds = std::env::var("BANYAN_RECOMPUTE_SEEDS").unwrap_or_else(|_| SEEDS.to_owned());
    let seeds: Vec<&str> = seeds.split(',').collect();
    // Most of the time is Python's, which takes one core.
    let next = AtomicUsize::new(0);
    let take = || seeds.get(next.fetch_add(1, Ordering::Relaxed));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(seed) = take() {
                    province(seed);
                }
            });
        }
    });
}
