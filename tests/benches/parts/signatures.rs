//! Signatures: one made, one checked; and what the intake does with a message before judging it, on one core and, as
//! the intake does with many, on two.

use std::time::Duration;

use anyhow::{Context, Result};
use banyan_aggregator::ledger::LedgerReader;
use banyan_aggregator::service::{fold, ledger_dir, system_clock};
use banyan_shared::keys::{Domain, PublicKey, SigningKey, sha256};
use banyan_shared::wire::{Batch, Envelope};
use bytes::Bytes;

use super::data::{Size, fleet};
use super::measure::{Bench, Of, time};

pub(crate) const PART: &str = "signatures";
/// Messages opened in a round.
const MESSAGES: u32 = 512;

fn open(messages: &[(PublicKey, Bytes)]) -> Result<()> {
    for (key, bytes) in messages {
        let envelope = Envelope::read(bytes)?;
        envelope.open(key)?;
        std::hint::black_box(Batch::read(&envelope)?);
    }
    Ok(())
}

fn open_on_two(messages: &[(PublicKey, Bytes)]) -> Result<Duration> {
    time(|| {
        let (first, second) = messages.split_at(messages.len() / 2);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| open(second));
            open(first)?;
            other.join().expect("opening does not panic")
        })
    })
}

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let agents = if bench.is_small() { 16 } else { MESSAGES };
    let (_dir, made) = fleet(Size(agents, 30, 30))?;
    let state = fold(&LedgerReader::open(&ledger_dir(&made.centre))?, system_clock()())?;
    let messages: Vec<(PublicKey, Bytes)> = made
        .batches
        .iter()
        .map(|(agent, bytes)| {
            let known = state.agents.get(agent).context("the agents are enrolled")?;
            Ok((known.key, bytes.clone()))
        })
        .collect::<Result<_>>()?;
    let (_, bytes) = &messages[0];
    let key = SigningKey::from_seed(&[7; 32])?;
    let public = key.public();
    let signature = key.sign(Domain::Batch, bytes);
    let checksum = || time(|| Ok(sha256(&[bytes])));
    bench.line(
        (PART, "sign a batch of 30 reports"),
        Of(1.0, "batch"),
        &mut || time(|| Ok(key.sign(Domain::Batch, bytes))),
        &mut [("SHA-256 alone", &mut { checksum })],
    )?;
    bench.line(
        (PART, "verify it"),
        Of(1.0, "batch"),
        &mut || time(|| Ok(public.verify(Domain::Batch, bytes, &signature)?)),
        &mut [("SHA-256 alone", &mut { checksum })],
    )?;
    bench.line(
        (PART, "open batches on two cores"),
        Of(messages.len() as f64, "batch"),
        &mut || open_on_two(&messages),
        &mut [("on one", &mut || time(|| open(&messages)))],
    )
}
