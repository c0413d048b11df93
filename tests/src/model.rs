//! What was typed, and so what must be counted: a second, simple reckoning to hold the system's against.
//!
//! The rule which of several versions counts is the shared one ([`current`]); everything else here knows
//! nothing of batches, ledgers and cubes.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use banyan_shared::catalogue::{Catalogue, FormIx, Lang};
use banyan_shared::ids::{AgentId, Epoch, UnitCode, VersionId};
use banyan_shared::organisation::{Organisation, UnitIx};
use banyan_shared::period::Period;
use banyan_shared::report::{How, Lineage, Value, Version, current};
use banyan_shared::tables::{TableName, Tables};

use crate::counts::Typed;

/// The shipped catalogue and registry, read from the seeds.
///
/// # Errors
/// They are not there or contradict themselves.
pub fn shipped() -> Result<(Catalogue, Organisation)> {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds");
    let read = |name: &str| {
        let path = seeds.join(name);
        std::fs::read(&path).with_context(|| format!("reading {}", path.display()))
    };
    let catalogue = Catalogue::load(&read("catalogue.toml")?).map_err(|errors| {
        anyhow!("{}", errors.iter().map(|e| e.text(Lang::En)).collect::<Vec<_>>().join("\n"))
    })?;
    let names = [
        TableName::Units,
        TableName::Attributes,
        TableName::Networks,
        TableName::Members,
        TableName::Duties,
        TableName::Calendar,
    ];
    let files: Vec<(TableName, Vec<u8>)> = names
        .into_iter()
        .map(|name| Ok((name, read(&format!("guizhou/{}", name.file_name()))?)))
        .collect::<Result<_>>()?;
    let given: Vec<(TableName, &str, &[u8])> =
        files.iter().map(|(name, bytes)| (*name, name.file_name(), &**bytes)).collect();
    let text = |errors: Vec<banyan_shared::tables::RowError>| {
        anyhow!("{}", errors.iter().map(|e| e.text(Lang::En)).collect::<Vec<_>>().join("\n"))
    };
    let tables = Tables::parse(&given).map_err(text)?;
    let organisation = Organisation::build(&catalogue, &tables).map_err(text)?;
    Ok((catalogue, organisation))
}

/// A report's name.
pub type Key = (UnitCode, FormIx, Period);

/// What one writer says of one report.
#[derive(Clone, Debug)]
struct Held {
    version: Version,
    values: Vec<Value>,
    withdrawn: bool,
}

/// What was typed.
#[derive(Debug, Default)]
pub struct Model {
    reports: BTreeMap<Key, BTreeMap<AgentId, Held>>,
    /// Where each facility stands in the registry.
    units: BTreeMap<UnitCode, UnitIx>,
    issued: u64,
}

/// What is counted of one report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// A value for each line of the form; all missing if it was taken back.
    pub values: Vec<Value>,
    /// How it was entered.
    pub how: How,
    /// How many versions stand.
    pub heads: usize,
}

impl Counted {
    /// Whether it answers anything.
    pub fn is_answer(&self) -> bool {
        self.values.iter().any(|value| value.is_answer())
    }
}

impl Model {
    /// Notes that `writer` typed this and was told that it is saved.
    pub fn saved(&mut self, catalogue: &Catalogue, writer: AgentId, typed: &Typed, how: How) {
        self.units.insert(typed.facility.clone(), typed.unit);
        let lines = catalogue.forms[typed.form.at()].lines.len();
        let key = (typed.facility.clone(), typed.form, typed.period);
        let by_writer = self.reports.entry(key).or_default();
        let before = by_writer.get(&writer).filter(|held| !held.withdrawn);
        let mut values = match before {
            Some(held) if !typed.withdraw && !typed.closed => held.values.clone(),
            _ => vec![Value::Missing; lines],
        };
        for (line, value) in &typed.values {
            values[*line] = *value;
        }
        self.issued += 1;
        // One life a writer here: only the order of its own versions matters.
        let id = VersionId { writer, epoch: Epoch { counter: 1, random: 0 }, seq: self.issued };
        let version = Version { id, how, replaces: Vec::new() };
        by_writer.insert(writer, Held { version, values, withdrawn: typed.withdraw });
    }

    /// What must be counted, report by report.
    pub fn counted(&self) -> impl Iterator<Item = (&Key, Counted)> {
        self.reports.iter().filter_map(|(key, by_writer)| {
            let held: Vec<&Held> = by_writer.values().collect();
            let versions: Vec<Version> = held.iter().map(|held| held.version.clone()).collect();
            let (at, heads) = current(&versions, &Lineage::default())?;
            let values = if held[at].withdrawn {
                vec![Value::Missing; held[at].values.len()]
            } else {
                held[at].values.clone()
            };
            Some((key, Counted { values, how: held[at].version.how, heads }))
        })
    }

    /// Where a facility stands in the registry.
    pub fn unit(&self, code: &UnitCode) -> Option<UnitIx> {
        self.units.get(code).copied()
    }

    /// How many versions were typed.
    pub fn versions(&self) -> u64 {
        self.issued
    }

    /// How many reports there are.
    pub fn len(&self) -> usize {
        self.reports.len()
    }

    /// Whether nothing was typed.
    pub fn is_empty(&self) -> bool {
        self.reports.is_empty()
    }
}
