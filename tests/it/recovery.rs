//! A centre that was lost and comes back from a backup; a ledger that was tampered with.

use std::fs;

use banyan_aggregator::ledger::{LedgerReader, RowKind};
use serde_json::{Value, json};

use crate::small::{Small, json_of, record, run, sync};

/// Loses the centre after the backup and more; the agents bring everything back.
fn lost_and_restored(full: bool) {
    let mut small = Small::new();
    let clinic = small.agent("clinic", &["V1-VC"]);
    let township = small.agent("township", &["T1-TH", "V1-VC", "V2-VC"]);
    record(&clinic, "2026-01-01..2026-01-20", &["open_days=1", "total_visits=12"]);
    record(&township, "2026-01-05", &["total_visits=40", "--facility", "V1-VC"]);
    record(&township, "2026-01-05", &["total_visits=8", "--facility", "V2-VC"]);
    sync(&clinic);
    sync(&township);
    let out = small.agent("out", &["V6-VC"]);
    let id = json_of(&out, &["status"])["agent"].as_str().unwrap().to_owned();
    small.ok(&["revoke", &id]);
    let backup = small.world.dir().join("backup");
    let mut args = vec!["backup", backup.to_str().unwrap()];
    if !full {
        args.push("--identity");
    }
    small.ok(&args);

    // After the backup: corrections, a withdrawal, a new agent.
    record(&clinic, "2026-01-06", &["total_visits=13", "--reason", "typo"]);
    run(&clinic, &["withdraw", "vc_daily", "2026-01-07", "--reason", "duplicate"]).exits(0);
    let later = small.agent("later", &["V5-VC"]);
    record(&later, "2026-01-05..2026-01-09", &["total_visits=100"]);
    sync(&clinic);
    sync(&later);
    let before = small.figures("S", "2026-01");
    assert_eq!(before["conflicts"], 1);
    let total = small.element("S", "2026-01", "total_visits");
    assert_eq!(total["value"], 12 * 19 + 1 - 12 + 12 + 8 + 500);

    let (mqtt, http) = (small.served().mqtt(), small.served().http());
    small.served.take().unwrap().kill9().unwrap();
    fs::rename(small.world.centre(), small.world.dir().join("lost")).unwrap();
    small.ok(&["restore", backup.to_str().unwrap()]);
    small.served = Some(small.world.serve_at(mqtt, http).unwrap());
    let fewer = small.element("S", "2026-01", "total_visits");
    assert_ne!(fewer["value"], total["value"], "nothing was lost: the test sees nothing");

    for agent in [&clinic, &township, &later] {
        sync(agent);
        let status = json_of(agent, &["status"]);
        assert_eq!(status["waiting"], 0, "{status}");
    }
    assert_eq!(small.figures("S", "2026-01"), before);
    assert_eq!(small.element("S", "2026-01", "total_visits"), total);
    small.ok(&["verify", "--all"]);
    // Who was out stays out.
    run(&out, &["sync", "--timeout", "20s"]).exits(1);
    // And it goes on.
    for agent in [&clinic, &later] {
        record(agent, "2026-01-30", &["total_visits=1"]);
        sync(agent);
    }
    assert_eq!(small.element("S", "2026-01-30", "total_visits")["value"], 2);
    let trace = small.json(&["report", "V1-VC", "vc_daily", "2026-01-06", "--history"]);
    assert_eq!(trace["history"].as_array().map(Vec::len), Some(2), "{trace}");
}

#[test]
fn a_centre_wiped_but_for_its_identity_gets_everything_back() {
    lost_and_restored(false);
}

#[test]
fn a_centre_restored_from_an_old_backup_gets_the_rest_back() {
    lost_and_restored(true);
}

#[test]
fn a_backup_is_not_restored_over_a_centre() {
    let small = Small::new();
    let backup = small.world.dir().join("backup");
    small.ok(&["backup", backup.to_str().unwrap(), "--identity"]);
    let refused = small.run(&["restore", backup.to_str().unwrap(), "--lang", "en"]).exits(1);
    assert!(refused.err.contains("is not empty"), "{}", refused.err);
    fs::write(&backup, &fs::read(&backup).unwrap()[..100]).unwrap();
    let elsewhere = small.world.dir().join("elsewhere");
    let args = ["restore", backup.to_str().unwrap(), "--data-dir", elsewhere.to_str().unwrap()];
    small.run(&args).exits(1);
    assert!(!elsewhere.join("ledger").exists());
}

#[test]
fn one_flipped_byte_in_the_ledger_is_found_and_named() {
    let mut small = Small::new();
    let clinic = small.agent("clinic", &["V1-VC"]);
    for day in ["2026-01-05", "2026-01-06", "2026-01-07"] {
        record(&clinic, day, &["total_visits=12"]);
        sync(&clinic);
    }
    let agrees: Value = small.json(&["verify"]);
    assert_eq!((&agrees["agrees"], &agrees["differences"]), (&json!(true), &json!([])), "{agrees}");
    small.served.take().unwrap().stop().unwrap();
    small.ok(&["verify", "--all"]);

    let ledger = small.world.centre().join("ledger");
    let row = {
        let reader = LedgerReader::open(&ledger).unwrap();
        let last = reader.head().unwrap().position;
        let batches = (1..=last).filter_map(|at| reader.row(at).unwrap());
        batches.filter(|row| row.kind == RowKind::Batch).nth(1).unwrap()
    };
    let path = ledger.join("ledger.db");
    let mut bytes = fs::read(&path).unwrap();
    let places: Vec<usize> = bytes
        .windows(row.bytes.len())
        .enumerate()
        .filter(|(_, window)| *window == row.bytes)
        .map(|(at, _)| at)
        .collect();
    assert_eq!(places.len(), 1, "the row stands in the file once");
    bytes[places[0] + row.bytes.len() / 2] ^= 1;
    fs::write(&path, &bytes).unwrap();

    let found = small.run(&["verify", "--all"]).exits(1);
    let said = format!("{}{}", found.out, found.err);
    assert!(said.contains(&format!("position {}", row.position)), "{said}");
}
