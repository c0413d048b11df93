//! The cube: reports of a county folded in, beside the same numbers put into a hash table by key.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use banyan_aggregator::cube::{AcceptedVersion, Cube};
use banyan_aggregator::ledger::{LedgerReader, RowKind};
use banyan_aggregator::service::{fold, ledger_dir, system_clock};
use banyan_shared::catalogue::{Catalogue, FormIx};
use banyan_shared::ids::{UnitCode, VersionId};
use banyan_shared::period::Period;
use banyan_shared::wire::{Batch, Body, Envelope, WireError};
use banyan_tests::province::fixture;

use super::measure::{Bench, Of, time};
use super::start::options;

pub(crate) const PART: &str = "cube";

/// A facility by number, a form, a period, a line of the form.
type Key = (u32, FormIx, Period, u16);

/// What else holds current values: a row for each, by key.
#[derive(Default)]
struct Rows {
    facilities: HashMap<UnitCode, u32>,
    values: HashMap<Key, (u64, VersionId)>,
}

impl Rows {
    fn apply(&mut self, version: &AcceptedVersion) {
        let next = u32::try_from(self.facilities.len()).unwrap_or(u32::MAX);
        let facility = match self.facilities.get(&version.facility) {
            Some(number) => *number,
            None => *self.facilities.entry(version.facility.clone()).or_insert(next),
        };
        for (line, value) in (0u16..).zip(&version.content.values) {
            let Some(value) = value.number() else { continue };
            let new = (value, version.id);
            let known =
                self.values.entry((facility, version.form, version.period, line)).or_insert(new);
            if known.1 < version.id {
                *known = new;
            }
        }
    }
}

/// Every version of the ledger, as the state would count it.
fn versions(
    reader: &LedgerReader,
    state: &banyan_aggregator::state::State,
) -> Result<Vec<AcceptedVersion>> {
    let mut versions = Vec::new();
    let read = |source: WireError, position| banyan_aggregator::state::StateError::Wire {
        position,
        source,
    };
    reader.read_from::<banyan_aggregator::state::StateError>(1, |row| {
        if row.kind != RowKind::Batch {
            return Ok(());
        }
        let envelope = Envelope::read(row.bytes).map_err(|e| read(e, row.position))?;
        let batch = Batch::read(&envelope).map_err(|e| read(e, row.position))?;
        let context = &state.contexts[&batch.context];
        for entry in batch.entries {
            let Body::Report { facility, form, period, content } = entry.body else { continue };
            let id = VersionId { writer: batch.agent, epoch: batch.epoch, seq: entry.seq };
            let (received_at, position) = (row.received_at, row.position);
            let facility = context.facilities[facility as usize].clone();
            let form = FormIx(form);
            versions.push(AcceptedVersion {
                facility,
                form,
                period,
                id,
                content,
                received_at,
                position,
            });
        }
        Ok(())
    })?;
    Ok(versions)
}

fn fold_in(catalogue: &Catalogue, versions: &[AcceptedVersion]) -> Result<(Cube, Duration)> {
    let (mut cube, versions) = (Cube::new(catalogue), versions.to_vec());
    let took = time(|| {
        for version in versions {
            cube.apply(catalogue, version)?;
        }
        Ok(())
    })?;
    Ok((cube, took))
}

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let made = fixture(&options(bench.is_small())?, |_| {})?;
    let reader = LedgerReader::open(&ledger_dir(&made.centre()))?;
    let state = fold(&reader, system_clock()())?;
    let catalogue = state.catalogue.clone();
    let versions = versions(&reader, &state)?;
    drop(state);
    let numbers = |version: &AcceptedVersion| {
        version.content.values.iter().filter(|value| value.number().is_some()).count()
    };
    let counts: usize = versions.iter().map(numbers).sum();
    ensure!(counts as u64 == made.summary.counts, "all versions are here");
    bench.line(
        (PART, "fold reports in"),
        Of(counts as f64, "count"),
        &mut || Ok(fold_in(&catalogue, &versions)?.1),
        &mut [("hash table of numbers", &mut || {
            let mut rows = Rows::default();
            time(|| {
                versions.iter().for_each(|version| rows.apply(version));
                Ok(())
            })
        })],
    )
}
