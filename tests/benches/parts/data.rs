//! What the parts are given: reports of village clinics as agents sign them, and as others would write them.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use banyan_shared::catalogue::Catalogue;
use banyan_shared::wire::{Batch, Body, Entry, Envelope};
use banyan_tests::fleet::{Options, Scenario, Signed, signed};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::measure::scratch;

/// Agents, their days, and how many reports are in a batch.
#[derive(Clone, Copy)]
pub(crate) struct Size(pub(crate) u32, pub(crate) u32, pub(crate) u32);

/// Makes a centre and everything its agents will send; the directory goes with the first.
pub(crate) fn fleet(Size(agents, days, batch): Size) -> Result<(TempDir, Signed)> {
    let dir = scratch()?;
    let options =
        Options { agents, days: Some(days), batch: Some(batch), ..Options::new(Scenario::Trickle) };
    let made = signed(dir.path(), &options)?;
    Ok((dir, made))
}

/// The entries of a signed batch.
pub(crate) fn entries(bytes: &[u8]) -> Result<Vec<Entry>> {
    Ok(Batch::read(&Envelope::read(bytes)?)?.entries)
}

/// How many numbers are in them.
pub(crate) fn numbers(entries: &[Entry]) -> u64 {
    let of = |entry: &Entry| match &entry.body {
        Body::Report { content, .. } => {
            content.values.iter().filter(|value| value.number().is_some()).count() as u64
        }
        _ => 0,
    };
    entries.iter().map(of).sum()
}

/// A report as JSON would have it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct JsonReport {
    pub(crate) facility: String,
    pub(crate) form: String,
    pub(crate) period: String,
    /// When it was typed, in seconds since 1970.
    pub(crate) at: u64,
    pub(crate) values: BTreeMap<String, u64>,
}

impl JsonReport {
    /// The reports among the entries, all of one facility.
    pub(crate) fn all(
        catalogue: &Catalogue,
        facility: &str,
        entries: &[Entry],
    ) -> Result<Vec<JsonReport>> {
        let reports = entries.iter().filter_map(|entry| match &entry.body {
            Body::Report { form, period, content, .. } => Some((form, period, content)),
            _ => None,
        });
        reports
            .map(|(form, period, content)| {
                let form =
                    catalogue.forms.get(usize::from(*form)).context("a form of the catalogue")?;
                let values = form.lines.iter().zip(&content.values).filter_map(|(line, value)| {
                    let element = &catalogue.elements[line.element.at()];
                    Some((element.code.to_string(), value.number()?))
                });
                Ok(JsonReport {
                    facility: facility.to_owned(),
                    form: form.code.to_string(),
                    period: period.to_string(),
                    at: u64::from(content.entered_at.minute) * 60,
                    values: values.collect(),
                })
            })
            .collect()
    }
}
