//! Simulates a fleet of agents: see [`banyan_tests::fleet`].

fn main() -> std::process::ExitCode {
    banyan_tests::fleet::main()
}
