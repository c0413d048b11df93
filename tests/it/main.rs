//! it

mod registry;
