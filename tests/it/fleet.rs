//! The fleet's scenarios in small: nothing lost, nothing twice, and ratios that do not grow out of bounds.
//!
//! Ratios, not seconds: how fast it is, the program `fleet` tells on a quiet machine.

use std::process::Command;

use banyan_tests::fleet::{Options, Report, Scenario, run, soak};
use banyan_tests::until;

use crate::small::SOON;

/// Agents of a run in small.
const AGENTS: u32 = 120;

fn small(scenario: Scenario, days: u32) -> Options {
    Options { agents: AGENTS, days: Some(days), over: 4, limit: 180, ..Options::new(scenario) }
}

/// Runs, and fails unless everything typed is receipted, in the ledger and counted, once.
fn done(options: &Options) -> Report {
    let report = run(options).unwrap_or_else(|failure| panic!("{failure:?}"));
    let proof = &report.conservation;
    assert!(report.finished, "not finished:\n{}", report.text());
    assert!(report.passed, "not passed:\n{}", report.text());
    assert!(proof.typed > 0 && proof.numbers > 0 && proof.holds(), "{proof:?}");
    assert!(
        report.memory.centre_kib_per_agent < 2_000.0,
        "an agent takes {:.0} KiB of the aggregator's memory",
        report.memory.centre_kib_per_agent
    );
    report
}

#[test]
fn all_come_back_at_once() {
    let report = done(&small(Scenario::Return, 30));
    let up = report.bytes.payload.up_per_count;
    assert!(up < 1.25, "{up:.2} bytes of payload a count");
    let tls = report.bytes.tls.up_per_count;
    assert!(tls < 12.0, "{tls:.2} bytes a count in TCP, handshakes included");
    let ledger = report.disk.ledger_per_count;
    assert!(ledger < 12.0, "{ledger:.2} bytes of ledger a count");
    assert_eq!(report.lines.batches, u64::from(AGENTS), "one batch an agent");
    assert_eq!(report.conservation.stored_again, 0);
}

#[test]
fn what_the_aggregator_has_lost_is_sent_again() {
    let report = done(&small(Scenario::Rebuild, 70));
    assert_eq!(report.lines.lost_by_centre, u64::from(AGENTS) * 70, "all of it was found missing");
    assert_eq!(report.reports, u64::from(AGENTS) * 70);
}

#[test]
fn a_morning_a_trickle_and_corrections() {
    let steady = done(&small(Scenario::Steady, 2));
    assert_eq!(steady.latency_ms.typed_to_receipt.n, u64::from(AGENTS) * 2);
    let trickle = done(&Options { pre_signed: true, ..small(Scenario::Trickle, 10) });
    let lone = trickle.bytes.payload.up as f64 / trickle.reports as f64;
    assert!(lone < 115.0, "{lone:.0} bytes of payload for a lone report");
    assert_eq!(trickle.lines.not_pre_signed, u64::from(AGENTS), "only hellos");
    let corrected = done(&small(Scenario::Corrections, 3));
    assert_eq!(corrected.conservation.typed, u64::from(AGENTS) * 6);
}

/// A file system of its own, small enough to be filled up; unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> SmallDisk {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1g", "tmpfs"])
            .arg(dir.path())
            .status();
        assert!(mounted.unwrap().success(), "a tmpfs can be mounted (this suite needs root)");
        SmallDisk(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whoever was killed may hold it a moment longer.
        let unmounted = until("unmounted", SOON, || {
            let done = Command::new("umount").arg(self.0.path()).status()?;
            Ok(done.success().then_some(()))
        });
        if !std::thread::panicking() {
            unmounted.unwrap_or_else(|error| panic!("{}: {error}", self.0.path().display()));
        }
    }
}

#[test]
fn months_in_minutes_through_kills_older_backups_and_a_full_disk() {
    let disk = SmallDisk::new();
    let options = Options {
        agents: 40,
        days: Some(90),
        minutes: 3,
        limit: 240,
        link: "delay=2ms,lose=0.003,cut=0.005,twice=0.05".parse().unwrap(),
        keep: Some(disk.0.path().to_owned()),
        ..Options::new(Scenario::Soak)
    };
    let year = soak(&options).unwrap_or_else(|failure| panic!("{failure:?}"));
    println!("{}", year.text());
    // So few seasons say nothing of growth: that is for longer runs of the program.
    let told = serde_json::to_value(&year).unwrap();
    let proof = &told["conservation"];
    assert_eq!(proof["typed"], 40 * (90 + 45), "{proof}");
    assert_eq!(proof["receipted"], proof["typed"], "{proof}");
    assert_eq!(proof["in_ledger"], proof["typed"], "{proof}");
    for wrong in ["lost", "twice", "different", "foreign", "unexpected"] {
        assert_eq!(proof[wrong], 0, "{wrong}: {proof}");
    }
    assert!(told["disk_noticed"].as_u64() >= Some(1), "the full disk was not noticed: {told}");
    for fate in ["kill", "restart", "backup", "restore", "full_disk"] {
        assert!(told["fates"][fate].as_u64() >= Some(1), "{fate} did not happen");
    }
}
