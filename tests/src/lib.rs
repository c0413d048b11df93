//! What the whole-system tests, the demo and the seed generator share: real programs on real sockets and disks.

pub mod agents;
pub mod counting;
pub mod counts;
pub mod demo;
pub mod fleet;
pub mod fuzz;
pub mod guizhou;
pub mod harness;
pub mod herd;
pub mod model;
pub mod proof;
pub mod province;
pub mod raw;

pub use harness::{
    Agent, Aggregator, Answer, Binaries, LineState, Link, Process, World, binaries, kept_address,
    until,
};
