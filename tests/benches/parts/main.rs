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

use anyhow::Result;
use measure::Bench;

fn main() -> Result<()> {
    let mut bench = Bench::new()?;
    println!("| part | what | Banyan | baseline | | ratio |\n|---|---|---|---|---|---|");
    codec::run(&mut bench)?;
    signatures::run(&mut bench)?;
    queue::run(&mut bench)?;
    ledger::run(&mut bench)?;
    cube::run(&mut bench)?;
    start::run(&mut bench)?;
    intake::run(&mut bench)?;
    bench.finish();
    Ok(())
}
