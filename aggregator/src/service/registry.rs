//! Changing the registry: tables are checked whole, then replace the ones before in one act.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use banyan_shared::catalogue::Lang;
use banyan_shared::tables::{RowError, TableName};
use banyan_shared::wire::{deflate, inflate};
use serde::{Deserialize, Serialize};

use super::{Service, say, usage};
use crate::act::{Act, TableFile};
use crate::state::{State, TABLE_BYTES_MAX, build_organisation};

/// A table given by an operator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GivenTable {
    /// Its file name; the table is told by it.
    pub file: String,
    /// The bytes, as base64.
    pub bytes: String,
}

/// What an import changes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImportReport {
    /// Whether it was put in force.
    pub applied: bool,
    /// For each table: rows added, rows taken away.
    pub tables: BTreeMap<String, (usize, usize)>,
    /// The first changes of each table, `+` added and `-` taken away.
    pub examples: Vec<String>,
    /// Parked entries the change released.
    pub released: usize,
}

/// Most example lines of one table.
const EXAMPLES_MAX: usize = 20;

/// Which table a file is, by its name.
pub(super) fn table_of(file: &str) -> Option<TableName> {
    let base = file.rsplit(['/', '\\']).next().unwrap_or(file);
    TableName::ALL.into_iter().find(|table| table.file_name() == base)
}

fn lines(bytes: &[u8]) -> BTreeSet<String> {
    String::from_utf8_lossy(bytes).lines().map(|line| line.trim_end().to_owned()).collect()
}

fn texts(errors: &[RowError], lang: Lang) -> String {
    errors.iter().map(|error| error.text(lang)).collect::<Vec<_>>().join("\n")
}

impl Service {
    /// Checks tables against the rest of the registry, says what they change, and puts them in force if
    /// `apply`. Each table replaces the one before as a whole.
    ///
    /// # Errors
    /// [`super::Usage`] with every error of the tables, or what the disk says.
    pub async fn import_units(
        &self,
        by: &str,
        given: Vec<GivenTable>,
        apply: bool,
        lang: Lang,
    ) -> Result<ImportReport> {
        let (files, mut report) = {
            let state = self.state.read();
            let mut files = Vec::new();
            let mut tables = state.tables.clone();
            let mut report = ImportReport {
                applied: false,
                tables: BTreeMap::new(),
                examples: Vec::new(),
                released: 0,
            };
            for table in given {
                let name = table_of(&table.file).ok_or_else(|| {
                    let known: Vec<&str> = TableName::ALL.iter().map(|t| t.file_name()).collect();
                    usage(say(
                        lang,
                        format!("不认识的文件 {}；可导入：{}", table.file, known.join("、")),
                        format!("{} is no table; known: {}", table.file, known.join(", ")),
                    ))
                })?;
                let bytes = data_encoding::BASE64
                    .decode(table.bytes.as_bytes())
                    .map_err(|_| usage("the table's bytes are not base64"))?;
                let old =
                    state.tables.get(&name).and_then(|f| inflate(&f.bytes, TABLE_BYTES_MAX).ok());
                let (old, new) = (lines(&old.unwrap_or_default()), lines(&bytes));
                let added: Vec<&String> = new.difference(&old).collect();
                let gone: Vec<&String> = old.difference(&new).collect();
                report.tables.insert(name.file_name().to_owned(), (added.len(), gone.len()));
                let plus = added.iter().take(EXAMPLES_MAX).map(|line| format!("+ {line}"));
                let minus = gone.iter().take(EXAMPLES_MAX).map(|line| format!("- {line}"));
                report.examples.extend(minus.chain(plus));
                let file = TableFile { table: name, file: table.file, bytes: deflate(&bytes) };
                tables.insert(name, file.clone());
                files.push(file);
            }
            if let Err(errors) = build_organisation(&state.catalogue, &tables) {
                return Err(usage(texts(&errors, lang)));
            }
            (files, report)
        };
        if apply {
            let before = self.state.read().parked.len();
            // Checked once more against what is in force when its turn comes: an act that cannot be folded
            // in must never be stored.
            let check = move |state: &State| {
                let mut tables = state.tables.clone();
                tables.extend(files.iter().map(|file| (file.table, file.clone())));
                build_organisation(&state.catalogue, &tables)
                    .map_err(|errors| usage(texts(&errors, lang)))?;
                Ok(vec![Act::Tables(files)])
            };
            self.act(by, Box::new(check)).await?;
            let (now, incarnation) = (self.now(), self.ledger.identity().incarnation);
            let scopes = move |state: &State| {
                Ok(state.scope_updates(incarnation, state.catalogue.day_at(now)))
            };
            self.act("service", Box::new(scopes)).await?;
            report.applied = true;
            report.released = before.saturating_sub(self.state.read().parked.len());
        }
        Ok(report)
    }
}
