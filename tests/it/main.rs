//! it

#[cfg(feature = "browser")]
mod browser;
mod harness;
mod link;
#[cfg(all(feature = "power-cut", target_os = "linux"))]
mod power_cut;
mod registry;
mod simulation;
