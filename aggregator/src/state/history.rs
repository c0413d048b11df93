//! What was in force when: catalogue and registry as recorded, and what did not count then though it does now.
//!
//! Promises that an answer given at a moment can be given again later: everything in it was recorded before
//! that moment. Kept small: the tables as they were given, compressed and shared between versions; an
//! organisation is built from them when it is asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use banyan_shared::catalogue::{Catalogue, CatalogueHash};
use banyan_shared::ids::{FormCode, Millis, Position, UnitCode, VersionId};
use banyan_shared::organisation::Organisation;
use banyan_shared::period::Period;
use banyan_shared::tables::{RowError, TableName};
use serde::{Deserialize, Serialize};

use super::{RefusedEntry, State, build_organisation};
use crate::act::{Extended, TableFile};

/// Tables as they were given.
pub type Files = BTreeMap<TableName, Arc<TableFile>>;

/// A catalogue with a registry, from the moment it was recorded to that of the next.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Model {
    since: Millis,
    position: Position,
    catalogue: CatalogueHash,
    /// For each table: its place in [`History::pool`].
    files: BTreeMap<TableName, usize>,
    /// How many of the extensions granted one by one the table of extensions had replaced.
    replaced: usize,
}

/// An extension granted by an act of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Granted {
    since: Millis,
    position: Position,
    row: Extended,
}

/// An entry that was held back until something became known, or the day came.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Released {
    /// Which version it is.
    pub id: VersionId,
    /// The report it is about.
    pub report: (UnitCode, FormCode, Period),
    /// When it came.
    pub received_at: Millis,
    /// From when on it counts.
    pub released_at: Millis,
}

/// What was in force when. See the module's text.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct History {
    /// Every table ever in force, each once.
    pool: Vec<Arc<TableFile>>,
    models: Vec<Model>,
    granted: Vec<Granted>,
    /// Entries held back once, in the order they were released.
    pub released: Vec<Released>,
    /// Entries refused once and settled since, each with when it was.
    pub settled: Vec<(RefusedEntry, Millis)>,
}

impl History {
    /// Notes what is in force from a moment on. A new table of extensions takes the place of those granted
    /// one by one before.
    pub(super) fn record(
        &mut self,
        since: Millis,
        position: Position,
        catalogue: CatalogueHash,
        files: &Files,
    ) {
        let before = self.models.last();
        let mut places = BTreeMap::new();
        for (table, file) in files {
            let same = before
                .and_then(|before| before.files.get(table))
                .filter(|place| Arc::ptr_eq(&self.pool[**place], file));
            let place = same.copied().unwrap_or_else(|| {
                self.pool.push(file.clone());
                self.pool.len() - 1
            });
            places.insert(*table, place);
        }
        let extensions =
            |places: &BTreeMap<TableName, usize>| places.get(&TableName::Extensions).copied();
        let replaced = match before {
            Some(before) if extensions(&before.files) == extensions(&places) => before.replaced,
            _ => self.granted.len(),
        };
        self.models.push(Model { since, position, catalogue, files: places, replaced });
    }

    /// The tables in force now.
    pub fn tables(&self) -> Files {
        self.models.last().map_or_else(Files::new, |model| self.files(model))
    }

    fn files(&self, model: &Model) -> Files {
        model.files.iter().map(|(table, place)| (*table, self.pool[*place].clone())).collect()
    }

    /// Notes extensions granted by an act.
    pub(super) fn grant(&mut self, since: Millis, position: Position, rows: &[Extended]) {
        let granted = |row: &Extended| Granted { since, position, row: row.clone() };
        self.granted.extend(rows.iter().map(granted));
    }

    /// The extensions granted one by one that are in force.
    pub fn extended(&self) -> Vec<Extended> {
        let from = self.models.last().map_or(0, |model| model.replaced);
        self.granted[from..].iter().map(|granted| granted.row.clone()).collect()
    }

    /// The act that put the catalogue and tables of now in force.
    pub fn model_position(&self) -> Position {
        self.models.last().map_or(0, |model| model.position)
    }

    /// Since when the registry and catalogue of now are in force.
    pub(super) fn in_force_since(&self) -> Millis {
        self.models.last().map_or(Millis(i64::MIN), |model| model.since)
    }

    /// When the first catalogue was recorded.
    pub fn begins(&self) -> Option<Millis> {
        self.models.first().map(|model| model.since)
    }
}

/// The catalogue and registry recorded by some moment.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The act that put them in force.
    pub position: Position,
    /// Whether they still are.
    pub current: bool,
    /// The catalogue.
    pub catalogue: Arc<Catalogue>,
    files: Files,
    extended: Vec<Extended>,
}

impl Recorded {
    /// The organisation of the registry: the work of some tenths of a second for a province.
    ///
    /// # Errors
    /// Every error of the tables, which passed their check when they were put in force.
    pub fn organisation(&self) -> Result<Organisation, Vec<RowError>> {
        build_organisation(&self.catalogue, &self.files, &self.extended)
    }
}

impl State {
    /// What was in force at a moment; none before there was anything.
    pub fn recorded(&self, at: Millis) -> Option<Recorded> {
        let History { models, granted, .. } = &self.history;
        let next = models.partition_point(|model| model.since <= at);
        let model = models.get(next.checked_sub(1)?)?;
        let known = granted.partition_point(|granted| granted.since <= at);
        let extended = granted.get(model.replaced..known).unwrap_or_default();
        let newest = extended.last().map_or(0, |granted| granted.position);
        Some(Recorded {
            position: newest.max(model.position),
            current: next == models.len() && known == granted.len(),
            catalogue: self.catalogues.get(&model.catalogue)?.catalogue.clone(),
            files: self.history.files(model),
            extended: extended.iter().map(|granted| granted.row.clone()).collect(),
        })
    }
}

#[cfg(test)]
impl History {
    /// One of everything that is kept.
    pub(crate) fn example() -> History {
        let mut history = History::default();
        let file = TableFile { table: TableName::Units, file: "units.csv".into(), bytes: vec![1] };
        let files = [(TableName::Units, Arc::new(file))].into();
        history.record(Millis(1), 2, CatalogueHash([1; 32]), &files);
        let row = Extended {
            form: "daily".parse().unwrap(),
            unit: "A".parse().unwrap(),
            period: "2026-01-05".into(),
            due: "waived".into(),
            reason: String::new(),
        };
        history.grant(Millis(2), 3, &[row]);
        let id = VersionId {
            writer: banyan_shared::ids::AgentId([7; 6]),
            epoch: banyan_shared::ids::Epoch { counter: 1, random: 2 },
            seq: 3,
        };
        let report =
            ("A".parse().unwrap(), "daily".parse().unwrap(), "2026-01-05".parse().unwrap());
        let (received_at, released_at) = (Millis(3), Millis(4));
        history.released.push(Released { id, report, received_at, released_at });
        let refused = RefusedEntry {
            facility: None,
            form: None,
            period: None,
            refusal: banyan_shared::codes::Refusal::Malformed,
            received_at: Millis(5),
        };
        history.settled.push((refused, Millis(6)));
        history
    }
}

#[cfg(test)]
mod tests;
