//! The front door beside bare `rumqttd`, in one run: connections and handshakes a second, memory and CPU each,
//! how long another agent waits when all leave at once, round trips, throughput; and a herd of agents before a
//! whole aggregator that is killed and started again, or cut off.
//!
//! Every server is a process of its own: this very program, started again with arguments. Clients are written by
//! hand ([`banyan_tests::raw`]), so that they cost little. `-- --test` tries all of it with few.
//! `BANYAN_DOOR_CONNECTIONS` (10,000) says how many; twice as many files may have to be open.

mod figures;
mod herd;
mod server;

use std::process::ExitCode;

use anyhow::Result;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.iter().any(|argument| argument == "--data-dir") {
        return banyan_aggregator::cli::main();
    }
    let done = match arguments.get(1).map(String::as_str) {
        Some(server::BARE) => server::bare(),
        Some(server::DOOR) => server::door(arguments.get(2).map(String::as_str)),
        _ => bench(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(arguments: &[String]) -> Result<()> {
    banyan_aggregator::descriptors::raise()?;
    // As Criterion has it: `cargo bench` says so, and everything else is a trial.
    let said = |word: &str| arguments.iter().any(|argument| argument == word);
    let small = said("--test") || !said("--bench");
    let many = match std::env::var("BANYAN_DOOR_CONNECTIONS") {
        Ok(text) => text.parse()?,
        Err(_) if small => 200,
        Err(_) => 10_000,
    };
    // What follows `--bench` picks a part.
    let part = |name: &str| {
        let named = ["figures", "herd"].iter().any(|part| said(part));
        !named || said(name)
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if part("figures") {
        runtime.block_on(figures::all(many, small))?;
    }
    if part("herd") {
        runtime.block_on(herd::all(many, small))?;
    }
    Ok(())
}
