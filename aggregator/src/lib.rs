//! The centre: intake, ledger, cube, queries.

pub mod cube;
pub mod act;
pub mod identity;
pub mod ledger;
pub mod state;
