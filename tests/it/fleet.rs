//! The fleet's scenarios in small: nothing lost, nothing twice, and ratios that do not grow out of bounds.
//!
//! Ratios, not seconds: how fast it is, the program `fleet` tells on a quiet machine.

use banyan_tests::fleet::{Options, Report, Scenario, run};

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
