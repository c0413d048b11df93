//! What a fleet would send, signed, for whoever takes it in without a network.

use std::path::{Path, PathBuf};

use anyhow::Result;
use banyan_shared::ids::AgentId;
use bytes::Bytes;

use super::options::Options;
use super::world::make;

/// A centre at which agents are enrolled, and everything they will send.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The aggregator's data directory.
    pub centre: PathBuf,
    /// Signed batches, in an order in which they may arrive: everybody's first, everybody's second, and so on.
    pub batches: Vec<(AgentId, Bytes)>,
    /// Reports in them, each once.
    pub reports: u64,
    /// Numbers in the reports.
    pub counts: u64,
}

/// Makes such a centre in `dir`, in which nothing is yet. The options say how many agents there are, of how many
/// days, and how many reports are in a batch.
///
/// # Errors
/// What the disk says.
pub fn signed(dir: &Path, options: &Options) -> Result<Signed> {
    let made = make(dir, options, |_| {})?;
    let entries = options.batch_entries().unwrap_or(1);
    let mut waiting: Vec<_> = made
        .agents
        .iter()
        .map(|agent| (agent.id, agent.signed_ahead(entries).into_iter()))
        .collect();
    let mut batches = Vec::new();
    loop {
        let before = batches.len();
        for (agent, own) in &mut waiting {
            batches.extend(own.next().map(|(_, bytes)| (*agent, bytes)));
        }
        if batches.len() == before {
            break;
        }
    }
    let counts = made.agents.iter().map(|agent| agent.notebook.numbers(agent.notebook.len()));
    Ok(Signed { centre: dir.join("centre"), batches, reports: made.reports, counts: counts.sum() })
}
