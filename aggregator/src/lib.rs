//! The centre: front door, broker, intake, ledger, cube, queries.
//!
//! A count's way: `front_door` → `broker` → `intake` (which judges by `state`) → `ledger` → receipt →
//! `state` (which counts in `cube`) → `query` → `service` → `http`, `cli`, `pages`.

pub mod access;
pub mod act;
pub mod broker;
pub mod broker_files;
pub mod cli;
pub mod client;
pub mod cube;
pub mod derived;
pub mod descriptors;
mod fold;
pub mod front_door;
pub mod http;
pub mod identity;
pub mod init;
pub mod intake;
pub mod ledger;
pub mod pages;
pub mod query;
pub mod roll;
mod seldom;
pub mod serve;
pub mod service;
pub mod slips;
pub mod state;
