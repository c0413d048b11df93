//! it

mod link;
mod registry;
#[cfg(all(feature = "power-cut", target_os = "linux"))]
mod power_cut;
