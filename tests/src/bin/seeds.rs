//! seeds
fn main() {}
