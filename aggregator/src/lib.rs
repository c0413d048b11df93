//! The centre: intake, ledger, cube, queries.

pub mod cube;
pub mod ledger;
