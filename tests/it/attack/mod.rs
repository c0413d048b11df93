//! Attacks on a serving aggregator over real sockets: each is refused, logged and counted, nothing of it stops
//! the service, and meanwhile another agent is served at once.
//!
//! While an attack runs, a *witness*, the agent's own link with a real enrolled key, says hello all the time
//! and measures how long each signed receipt takes; afterwards a fresh connection of it is served, and a real
//! agent's report is stored and counted. What the door needs short times for is in
//! `aggregator/src/front_door/tests.rs`, HTTP in `tests/it/access.rs` and `aggregator/src/access/tests.rs`.
//!
//! How much of it: `BANYAN_ATTACK_TIMES` (default 1,000) rounds of each sequence, `BANYAN_ATTACK_SECONDS`
//! (default 20) of the fuzzer. Ten minutes of it:
//! `BANYAN_ATTACK_SECONDS=600 cargo test --workspace --all-features --test it -- attack::fuzz --nocapture`.
//! The floods hold 8,000 sockets: the limit of open files has to allow them.

mod certificates;
mod codes;
mod flood;
mod fuzz;
mod messages;
mod others;
mod scene;
mod sequences;
mod slow;

use scene::Scene;

/// How often a sequence is repeated.
fn times() -> usize {
    number_in("BANYAN_ATTACK_TIMES", 1_000)
}

/// What the environment says, or else `default`.
fn number_in(variable: &str, default: usize) -> usize {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")),
        Err(_) => default,
    }
}
