//! The aggregator's program.

fn main() -> std::process::ExitCode {
    banyan_aggregator::cli::main()
}
