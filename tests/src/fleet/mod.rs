//! The fleet simulator: from one to fifty thousand agents in one process against a real aggregator process.
//!
//! Each agent has its own key and certificate and runs the real outbox machine, the real wire, TLS and MQTT;
//! what its queue would keep on disk is kept in memory, so that one machine can hold a province of them. All
//! are village clinics with their daily form of seven counts, drawn from a seed. At the end everything typed
//! must have its receipt, stand in the ledger and be shown by queries, each once: `proof`.

mod agent;
mod client;
mod export;
mod life;
mod line;
mod measure;
mod notebook;
mod options;
mod proof;
mod random;
mod report;
mod run;
mod scenario;
mod signed;
mod soak;
mod stage;
mod world;

pub use line::Faults;
pub use measure::{Memory, Moment, Percentiles, Usage, memory_mib};
pub use options::{ClientKind, Format, Options, Scenario};
pub use proof::Conservation;
pub use report::{Cpu, Disk, Latencies, Layer, Lines, Report, Wire};
pub use run::{Failure, main, run, soak};
pub use signed::{Signed, signed};
pub use soak::{Season, Year};
