//! The language both ends of Banyan speak: values and pure functions.
//!
//! Nothing here opens a file or a socket, reads a clock or waits (`clippy.toml` bans it): bytes, text
//! and the time come in as arguments, results go out as values.

pub mod address;
pub mod catalogue;
pub mod codes;
pub mod figures;
pub mod ids;
pub mod input;
pub mod keys;
pub mod limits;
pub mod organisation;
pub mod period;
pub mod pin;
pub mod report;
pub mod sync;
pub mod tables;
pub mod topic;
pub mod wire;
