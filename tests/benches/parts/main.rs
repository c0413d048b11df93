//! The parts a count goes through, each beside a baseline in the same run: bytes, signatures, the agent's queue,
//! the ledger, the cube, a start, the intake.
//!
//! `cargo bench -p banyan-tests --bench parts` prints a table; Criterion measures what can be repeated once more, for
//! comparison from run to run. A word chooses the parts whose names hold it; `-- --test` tries all of it once, in
//! small. Whatever has to be on a disk is under the target directory.

mod codec;
mod cube;
mod data;
mod intake;
mod ledger;
mod measure;
mod queue;
mod signatures;
mod start;

use anyhow::{Result, bail};
use measure::Bench;

/// Measures one part and prints its lines.
type Run = fn(&mut Bench) -> Result<()>;

const PARTS: [(&str, Run); 7] = [
    (codec::PART, codec::run),
    (signatures::PART, signatures::run),
    (queue::PART, queue::run),
    (ledger::PART, ledger::run),
    (cube::PART, cube::run),
    (start::PART, start::run),
    (intake::PART, intake::run),
];

fn main() -> Result<()> {
    let word = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let asked = |part: &str| word.as_ref().is_none_or(|word| part.contains(word.as_str()));
    let runs: Vec<Run> =
        PARTS.iter().filter(|(part, _)| asked(part)).map(|(_, run)| *run).collect();
    if runs.is_empty() {
        bail!("no part has this in its name; there are {}", PARTS.map(|(part, _)| part).join(", "));
    }
    let mut bench = Bench::new()?;
    println!("| part | what | Banyan | baseline | | ratio |\n|---|---|---|---|---|---|");
    for run in runs {
        run(&mut bench)?;
    }
    bench.finish();
    Ok(())
}
