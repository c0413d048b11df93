//! `cargo demo`: see [`banyan_tests::demo`].

use std::process::ExitCode;

fn main() -> ExitCode {
    banyan_tests::demo::main()
}
