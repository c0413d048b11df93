//! What to simulate.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use super::line::Faults;

/// What happens to the agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// A province's morning: connected agents, reports typed at moments drawn over a period
    Steady,
    /// All back at once, each with what was typed in D days
    Return,
    /// The aggregator has lost all reports: everything agents retain is sent again
    Rebuild,
    /// Connected agents send as fast as receipts allow, one report a batch unless --batch says otherwise
    Trickle,
    /// As steady, while connections vanish without a word and come back
    Churn,
    /// Later versions of what was sent before
    Corrections,
    /// As steady, while clinics move on the map
    Regroup,
    /// A year in --minutes: as churn, while the aggregator is killed, restarted, restored from older backups
    /// and its disk fills up, and clocks jump
    Soak,
}

impl Scenario {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Steady => "steady",
            Scenario::Return => "return",
            Scenario::Rebuild => "rebuild",
            Scenario::Trickle => "trickle",
            Scenario::Churn => "churn",
            Scenario::Corrections => "corrections",
            Scenario::Regroup => "regroup",
            Scenario::Soak => "soak",
        }
    }

    /// What the measured time begins and ends with.
    pub fn measured(self) -> &'static str {
        match self {
            Scenario::Return => {
                "from the first connect to the last receipt: TCP, TLS, MQTT, packing and signing at the agents, \
                 checking receipts; typing came before"
            }
            Scenario::Rebuild => {
                "from the first connect to the emptied aggregator to the last receipt: TCP, TLS, MQTT, finding \
                 what is lost, packing and signing again, checking receipts"
            }
            Scenario::Trickle => {
                "from when connected agents have something to send to the last receipt; with --pre-signed \
                 packing and signing came before"
            }
            Scenario::Soak => "season by season, each until its last receipt",
            Scenario::Steady | Scenario::Churn | Scenario::Corrections | Scenario::Regroup => {
                "from the first report typed to the last receipt; the agents were connected before"
            }
        }
    }

    /// Whether reports are typed during the measured time.
    pub(super) fn is_live(self) -> bool {
        matches!(
            self,
            Scenario::Steady
                | Scenario::Churn
                | Scenario::Corrections
                | Scenario::Regroup
                | Scenario::Soak
        )
    }

    /// Whether agents connect before the measured time.
    pub(super) fn is_connected_before(self) -> bool {
        (self.is_live() && self != Scenario::Soak) || self == Scenario::Trickle
    }
}

/// Which MQTT client the agents use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClientKind {
    /// One of the simulator's: rumqttc's codec over tokio-rustls
    Codec,
    /// The agent's own link, with rumqttc's event loop: bytes are not counted, the line has no faults
    Rumqttc,
}

/// How the result is written to stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One JSON object
    Json,
    /// For people
    Table,
}

/// Simulate a fleet of agents against a real aggregator process, and hold what it counted against what was
/// typed, cell by cell.
///
/// Exit: 0 all typed is counted once; 1 something is lost, doubled or wrong; 2 usage; 3 not finished in time.
#[derive(Clone, Debug, Parser)]
#[command(name = "fleet")]
pub struct Options {
    /// What happens
    #[arg(value_enum)]
    pub scenario: Scenario,
    /// How many agents
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub agents: u32,
    /// Days of reports each agent has [default: return 30, rebuild 400, trickle 20, soak 365, others 2]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    pub days: Option<u32>,
    /// What counts, moments and faults are drawn from
    #[arg(long, default_value_t = 20_260_101)]
    pub seed: u64,
    /// Seconds over which reports are typed, where they are typed during the run
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub over: u64,
    /// Minutes that soak takes, about
    #[arg(long, default_value_t = 45, value_parser = clap::value_parser!(u64).range(1..=10_080))]
    pub minutes: u64,
    /// The line: perfect, 2g, satellite, bad, or parts as delay=200ms,rate=4000,lose=0.01,cut=0.01,twice=0.02
    #[arg(long, default_value = "perfect")]
    pub link: Faults,
    /// Most reports in a batch [default: trickle 1, others 60 as agents do]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub batch: Option<u32>,
    /// Batches are packed and signed before the clock starts (trickle)
    #[arg(long)]
    pub pre_signed: bool,
    /// Agents stay connected when they have nothing left, instead of hanging up
    #[arg(long)]
    pub stay: bool,
    /// In rebuild, take the history for received by the aggregator that was lost, instead of sending it first
    #[arg(long)]
    pub assume_received: bool,
    /// The agents' MQTT client
    #[arg(long, value_enum, default_value = "codec")]
    pub client: ClientKind,
    /// Threads the agents share
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub threads: u32,
    /// Seconds after which the run is given up
    #[arg(long, default_value_t = 900)]
    pub limit: u64,
    /// Run this aggregator instead of the one built from here
    #[arg(long, value_name = "PROGRAM")]
    pub aggregator: Option<PathBuf>,
    /// Keep everything in this directory, which must be empty
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// Write what is typed into this directory, for other systems: reports.jsonl, facilities.csv
    #[arg(long, value_name = "DIR")]
    pub export: Option<PathBuf>,
    /// Leave out the comparison by queries; receipts and ledger are checked all the same
    #[arg(long)]
    pub no_queries: bool,
    /// How the result is written
    #[arg(long, value_enum, default_value = "json")]
    pub format: Format,
}

impl Options {
    /// The usual options for a scenario.
    pub fn new(scenario: Scenario) -> Options {
        // Every option but the scenario has a default.
        Options::parse_from(["fleet", scenario.name()])
    }

    /// Days of reports each agent has.
    pub fn days(&self) -> u32 {
        self.days.unwrap_or(match self.scenario {
            Scenario::Return => 30,
            Scenario::Rebuild => 400,
            Scenario::Trickle => 20,
            Scenario::Soak => 365,
            _ => 2,
        })
    }

    pub(super) fn batch_entries(&self) -> Option<usize> {
        let default = (self.scenario == Scenario::Trickle).then_some(1);
        self.batch.or(default).and_then(|n| usize::try_from(n).ok())
    }

    pub(super) fn over(&self) -> Duration {
        Duration::from_secs(self.over)
    }
}
