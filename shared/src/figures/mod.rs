//! What a figure means: duty, received, on time, sets, reconciliation (`FIGURES.md` F1–F5).
//!
//! Promises pure functions over values that stand in the arguments, and these laws for every input: the
//! parts of completeness add up to expected, no rate exceeds 100 %, the grouping identity holds, and a
//! total does not depend on how facilities are grouped. Leaves finding the facts to the organisation model
//! and the values to the cube.

mod duty;
mod elements;
pub mod indicators;
mod reconcile;
mod time;
mod withhold;

pub use duty::{Answer, DutyFacts, answer, duty};
pub use elements::{State, Tally, element_state, period_flags};
pub use reconcile::{Addend, Cell, Reconciler, Reconciliation, ReconciliationLine};
pub use time::{
    Completeness, Deadline, MISSING_CAUSES, MissingFacts, MissingWhy, Standing, Timing, arrived,
    deadline, due_day, ended_at, judge, missing_why,
};
pub use withhold::{PublicCell, withheld};

#[cfg(test)]
mod tests;
