//! A row of the ledger, opened: what stands at a position, who signed it, and what became of its entries.

use anyhow::Result;
use banyan_shared::codes::Refusal;
use banyan_shared::ids::{AgentId, Millis, Position, UnitCode, VersionId};
use banyan_shared::keys::PublicKey;
use banyan_shared::period::Period;
use banyan_shared::wire::{Batch, Body, Envelope};

use super::Service;
use crate::act::SignedAct;
use crate::intake::verify_act;
use crate::ledger::RowKind;
use crate::state::{Refusals, signer_at};

/// A row of the ledger.
#[derive(Clone, Debug)]
pub struct LedgerRow {
    /// Where it stands.
    pub position: Position,
    /// When it was received.
    pub received_at: Millis,
    /// How many bytes were signed.
    pub bytes: usize,
    /// Why its signature does not hold; none if it does.
    pub signature_wrong: Option<String>,
    /// What it is.
    pub content: RowContent,
}

/// What a row of the ledger is.
#[derive(Clone, Debug)]
pub enum RowContent {
    /// A batch of an agent.
    Batch {
        /// The agent.
        agent: AgentId,
        /// The facility the agent belongs to first.
        home: Option<UnitCode>,
        /// Its entries, in their order.
        entries: Vec<RowEntry>,
    },
    /// What was decided at the centre.
    Act {
        /// By whom.
        by: String,
        /// When.
        at: Millis,
    },
}

/// An entry of a batch.
#[derive(Clone, Debug)]
pub struct RowEntry {
    /// Its identity.
    pub version: VersionId,
    /// Why it was refused, if it was.
    pub refused: Option<Refusal>,
    /// What it says.
    pub what: EntryWhat,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryWhat {
    /// A version of a report.
    Report {
        /// The facility.
        facility: UnitCode,
        /// The form.
        form: String,
        /// The period.
        period: Period,
        /// Whether it takes the report back.
        withdrawn: bool,
        /// What it is now.
        standing: Standing,
    },
    /// It takes the place of an entry that was refused.
    Void,
    /// The beginning of a new life of the agent.
    Begins,
    /// A report whose facility or form is not known here.
    Unknown,
}

/// What a version of a report is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The one counted.
    Counted,
    /// Held, but another one is counted.
    NotCounted,
    /// Waiting for something to become known.
    Parked,
}

impl Service {
    /// The row at a position of the ledger, if there is one; its signature is checked anew.
    ///
    /// # Errors
    /// What the disk says, or bytes that are no row.
    pub fn ledger_row(&self, position: Position) -> Result<Option<LedgerRow>> {
        let Some(row) = self.ledger.reader()?.row(position)? else { return Ok(None) };
        let (signature_wrong, content) = match row.kind {
            RowKind::Act => {
                let signed = SignedAct::read(&row.bytes)?;
                let present = self.identity.key.public();
                let signer = signer_at(&self.state.read().key_changes, position, present);
                let wrong = verify_act(&row.bytes, &signer).err();
                let content = RowContent::Act { by: signed.by, at: signed.at };
                (wrong.map(|error| error.to_string()), content)
            }
            RowKind::Batch => self.batch(&row.bytes, &row.refused)?,
        };
        Ok(Some(LedgerRow {
            position,
            received_at: row.received_at,
            bytes: row.bytes.len(),
            signature_wrong,
            content,
        }))
    }

    fn batch(&self, bytes: &[u8], refused: &[u8]) -> Result<(Option<String>, RowContent)> {
        let envelope = Envelope::read(bytes)?;
        let batch = Batch::read(&envelope)?;
        let refused: Refusals =
            if refused.is_empty() { Vec::new() } else { banyan_shared::wire::decode(refused)? };
        let state = self.state.read();
        let agent = state.agents.get(&batch.agent);
        let key: Option<&PublicKey> = agent.map(|agent| &agent.key);
        let wrong = match key {
            None => Some("of an agent not known".to_owned()),
            Some(key) => envelope.open(key).err().map(|error| error.to_string()),
        };
        let context = state.contexts.get(&batch.context);
        let held = context.and_then(|context| state.catalogues.get(&context.catalogue));
        let what = |body: &Body, version: VersionId| {
            let Body::Report { facility, form, period, content } = body else {
                return if matches!(body, Body::Void) {
                    EntryWhat::Void
                } else {
                    EntryWhat::Begins
                };
            };
            let facility = context
                .zip(usize::try_from(*facility).ok())
                .and_then(|(context, at)| context.facilities.get(at));
            let form = held.and_then(|held| held.catalogue.forms.get(usize::from(*form)));
            let (Some(facility), Some(form)) = (facility, form) else { return EntryWhat::Unknown };
            let current =
                state.cube.report(facility, &form.code, *period).and_then(|report| report.current);
            let standing = if state.parked.contains_key(&version) {
                Standing::Parked
            } else if current == Some(version) {
                Standing::Counted
            } else {
                Standing::NotCounted
            };
            EntryWhat::Report {
                facility: facility.clone(),
                form: form.code.to_string(),
                period: *period,
                withdrawn: content.withdrawn,
                standing,
            }
        };
        let entries = batch
            .entries
            .iter()
            .map(|entry| {
                let version = VersionId { writer: batch.agent, epoch: batch.epoch, seq: entry.seq };
                RowEntry {
                    version,
                    refused: refused.iter().find(|(seq, _)| *seq == entry.seq).map(|(_, why)| *why),
                    what: what(&entry.body, version),
                }
            })
            .collect();
        let home = agent
            .and_then(|agent| state.contexts.get(&agent.newest))
            .and_then(|context| context.facilities.first().cloned());
        Ok((wrong, RowContent::Batch { agent: batch.agent, home, entries }))
    }
}
