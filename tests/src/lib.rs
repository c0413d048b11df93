//! tests

pub mod guizhou;
