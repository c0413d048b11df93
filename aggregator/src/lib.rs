//! The centre: intake, ledger, cube, queries.

pub mod act;
pub mod broker;
pub mod cube;
pub mod front_door;
pub mod identity;
pub mod ledger;
pub mod query;
pub mod state;
