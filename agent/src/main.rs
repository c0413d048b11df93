//! The program `banyan-agent`; everything is in the library.

fn main() -> std::process::ExitCode {
    banyan_agent::cli::main()
}
