//! The two machines of delivery, one at each end. Pure: events and the time go in, effects come out.
//!
//! Together they promise that an entry saved at an agent is held exactly once by the centre's ledger, for
//! any loss, repetition, delay and reordering of messages, any crash, and any restored backup of either
//! side; and that the agent lets go of nothing before the ledger proves that it holds it. The proof is a
//! sum: a receipt shows runs of numbers with the sum of their entries' hashes, and the agent compares it
//! with its own. No order of messages, no broker's memory and no clock is relied upon.
//!
//! [`Outbox`] decides what an agent sends and what a receipt means. [`Inbox`] is what the centre holds of
//! one agent. Signatures are checked before either sees a message; storing effects durably, in order, is
//! the drivers' part.

mod inbox;
mod outbox;

pub use inbox::{Fate, Inbox};
pub use outbox::{CARRIED_MAX, Carried, Config, Cut, Effect, Event, Item, Mark, Outbox, Part};

#[cfg(test)]
mod tests;
