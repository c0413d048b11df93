//! it

mod link;
mod registry;
