//! The result of a run.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::measure::{Memory, Percentiles};
use super::proof::Conservation;

/// How long things took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latencies {
    /// From typed (or the beginning, for what was typed before) to the receipt, in ms.
    pub typed_to_receipt: Percentiles,
    /// From being on disk, by the receipt's time, to the answer of a query that shows it, in ms: some are
    /// looked for, one after the other.
    pub accepted_to_visible: Percentiles,
    /// Of these: not seen in time.
    pub unseen: u64,
}

/// Bytes in one layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Layer {
    /// To the aggregator.
    pub up: u64,
    /// From it.
    pub down: u64,
    /// Up, for each count receipted.
    pub up_per_count: f64,
    /// Both ways, for each count receipted.
    pub per_count: f64,
}

/// What went over the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Wire {
    /// Signed messages.
    pub payload: Layer,
    /// MQTT packets.
    pub mqtt: Layer,
    /// TLS records, which is what TCP carries.
    pub tls: Layer,
    /// Messages published twice on purpose.
    pub published_twice: u64,
}

/// Who worked how much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// All agents together, with the looking and the measuring.
    pub agents_s: f64,
    /// The aggregator in its own code.
    pub centre_user_s: f64,
    /// The kernel for it.
    pub centre_system_s: f64,
    /// The aggregator, for each agent.
    pub centre_ms_per_agent: f64,
    /// The aggregator, for each report.
    pub centre_us_per_report: f64,
}

/// What went to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Disk {
    /// Bytes the aggregator sent to the disk in the measured time.
    pub written: u64,
    /// For each count.
    pub written_per_count: f64,
    /// How much the ledger's files have grown by the end.
    pub ledger: u64,
    /// For each count.
    pub ledger_per_count: f64,
}

/// Connections and messages.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Lines {
    /// Attempts to connect.
    pub attempts: u64,
    /// Of those that came up: TLS sessions resumed; all others were full handshakes.
    pub resumed: u64,
    /// Given up by agents without a word, on purpose.
    pub vanished: u64,
    /// How connections ended or failed, but for good-byes.
    pub ended: BTreeMap<&'static str, u64>,
    /// Batches sent, again or not.
    pub batches: u64,
    /// Of them not signed in advance: hellos never are.
    pub not_pre_signed: u64,
    /// Entries agents were told that the centre had lost.
    pub lost_by_centre: u64,
    /// New grants agents were sent.
    pub grants: u64,
    /// Changes of the map.
    pub regroupings: u64,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// What happened.
    pub scenario: &'static str,
    /// To how many.
    pub agents: u32,
    /// Days of reports each.
    pub days: u32,
    /// What was drawn from.
    pub seed: u64,
    /// The agents' MQTT client.
    pub client: String,
    /// The line.
    pub link: String,
    /// What is in the measured time.
    pub measured: &'static str,
    /// Whether everything was done in time.
    pub finished: bool,
    /// The measured time, in seconds.
    pub seconds: f64,
    /// Reports receipted in it.
    pub reports: u64,
    /// Numbers in them.
    pub counts: u64,
    /// Reports a second.
    pub reports_per_s: f64,
    /// Numbers a second.
    pub counts_per_s: f64,
    /// How long things took.
    pub latency_ms: Latencies,
    /// What went over the lines.
    pub bytes: Wire,
    /// Who worked how much.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Memory,
    /// The disk.
    pub disk: Disk,
    /// Connections.
    pub lines: Lines,
    /// Whether all is there once.
    pub conservation: Conservation,
    /// Whether it is.
    pub passed: bool,
}

impl Report {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let (memory, disk, bytes, proof) =
            (&self.memory, &self.disk, &self.bytes, &self.conservation);
        let latency = &self.latency_ms;
        let mut line = |name: &str, value: String| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{name:<22}{value}");
        };
        line("scenario", format!("{} ({} agents, {} days)", self.scenario, self.agents, self.days));
        line("measured", self.measured.to_owned());
        line("time", format!("{:.1} s", self.seconds));
        line("reports", format!("{} ({:.0}/s)", self.reports, self.reports_per_s));
        line("counts", format!("{} ({:.0}/s)", self.counts, self.counts_per_s));
        let percentiles = |p: &Percentiles| {
            format!("p50 {:.0}, p99 {:.0}, max {:.0} ms of {}", p.p50, p.p99, p.max, p.n)
        };
        line("typed to receipt", percentiles(&latency.typed_to_receipt));
        line("accepted to visible", percentiles(&latency.accepted_to_visible));
        line(
            "bytes a count, up",
            format!(
                "payload {:.2}, MQTT {:.2}, TLS {:.2}",
                bytes.payload.up_per_count, bytes.mqtt.up_per_count, bytes.tls.up_per_count
            ),
        );
        line(
            "CPU",
            format!(
                "agents {:.1} s, aggregator {:.1} s ({:.2} ms an agent)",
                self.cpu.agents_s,
                self.cpu.centre_user_s + self.cpu.centre_system_s,
                self.cpu.centre_ms_per_agent
            ),
        );
        line(
            "memory at most",
            format!(
                "agents {:.0} MiB, aggregator {:.0} MiB",
                memory.agents_peak_mib, memory.centre_peak_mib
            ),
        );
        line(
            "disk a count",
            format!(
                "written {:.2}, ledger {:.2} bytes",
                disk.written_per_count, disk.ledger_per_count
            ),
        );
        line(
            "conservation",
            format!(
                "typed {}, receipted {}, in the ledger {}, cells {}, lost {}, twice {}, different {}",
                proof.typed,
                proof.receipted,
                proof.in_ledger,
                proof.cells,
                proof.lost,
                proof.twice,
                proof.different
            ),
        );
        for difference in &proof.differences {
            line("", difference.clone());
        }
        line("result", if self.passed { "passed" } else { "FAILED" }.to_owned());
        text
    }
}
