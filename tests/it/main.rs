//! it

mod link;
