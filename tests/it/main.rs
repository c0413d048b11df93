//! Tests over the whole: real programs, real sockets, real disks.

mod access;
mod acts;
#[cfg(feature = "attack")]
mod attack;
#[cfg(feature = "browser")]
mod browser;
mod bundles;
mod clinic;
mod clones;
mod enrolment;
#[cfg(all(feature = "fleet", target_os = "linux"))]
mod fleet;
#[cfg(target_os = "linux")]
mod full_log;
mod golden;
mod harness;
mod import;
mod intake;
mod keys;
mod link;
#[cfg(all(feature = "mosquitto", target_os = "linux"))]
mod mosquitto;
mod nhs;
mod operators;
mod parked;
#[cfg(all(feature = "peer", target_os = "linux"))]
mod peer;
#[cfg(all(feature = "power-cut", target_os = "linux"))]
mod power_cut;
#[cfg(feature = "recompute")]
mod recompute;
mod recovery;
mod refusals;
mod registry;
mod renewal;
mod simulation;
mod small;
mod torture;
