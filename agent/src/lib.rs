//! The clinic's end of Banyan: capture, rules, the durable queue, sync.

pub mod backoff;
mod capture;
pub mod cli;
pub mod clock;
pub mod command;
pub mod core;
pub mod driver;
mod files;
pub mod identity;
pub mod link;
mod local;
pub mod machine;
pub mod note;
pub mod queue;
mod route;
mod store;
pub mod tls;

pub use core::{Core, Options};
pub use driver::{Driver, Handle};

#[cfg(test)]
mod tests;
