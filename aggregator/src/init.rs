//! `init`: keys, an empty ledger, and its first acts: name, catalogue, registry.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use banyan_shared::catalogue::{Catalogue, Lang};
use banyan_shared::ids::Millis;
use banyan_shared::tables::TableName;
use banyan_shared::wire::deflate;

use crate::act::{Act, SignedAct, TableFile};
use crate::identity::{Identity, random};
use crate::ledger::{Ledger, NewRow};
use crate::service::{ledger_dir, say, usage};
use crate::state::build_organisation;

/// Files to begin with; tables by their usual name. Without any file: the Guizhou seeds.
pub struct Sources {
    /// The catalogue.
    pub catalogue: Option<PathBuf>,
    /// The tables.
    pub tables: Vec<(&'static str, PathBuf)>,
}

const SEED_CATALOGUE: &[u8] = include_bytes!("../../seeds/catalogue.toml");

const SEED_TABLES: &[(TableName, &[u8])] = &[
    (TableName::Units, include_bytes!("../../seeds/guizhou/units.csv")),
    (TableName::Attributes, include_bytes!("../../seeds/guizhou/attributes.csv")),
    (TableName::Networks, include_bytes!("../../seeds/guizhou/networks.csv")),
    (TableName::Members, include_bytes!("../../seeds/guizhou/members.csv")),
    (TableName::Duties, include_bytes!("../../seeds/guizhou/duties.csv")),
    (TableName::Calendar, include_bytes!("../../seeds/guizhou/calendar.csv")),
    (TableName::Targets, include_bytes!("../../seeds/targets.csv")),
    (TableName::Codes, include_bytes!("../../seeds/guizhou/codes.csv")),
    (TableName::Contacts, include_bytes!("../../seeds/guizhou/contacts.csv")),
];

/// Makes a data directory. Everything is checked before anything is written.
///
/// # Errors
/// Every error of the catalogue and the tables, or what the disk says.
pub fn init(dir: &Path, sources: &Sources, name: &str, lang: Lang) -> Result<()> {
    init_at(dir, sources, name, lang, jiff::Timestamp::now().into())
}

/// As [`init`], founded at `now`.
///
/// # Errors
/// As [`init`].
pub fn init_at(dir: &Path, sources: &Sources, name: &str, lang: Lang, now: Millis) -> Result<()> {
    let toml = match &sources.catalogue {
        Some(path) => std::fs::read(path).with_context(|| format!("reading {}", path.display()))?,
        None => SEED_CATALOGUE.to_vec(),
    };
    let catalogue = Catalogue::load(&toml).map_err(|errors| {
        let file = sources
            .catalogue
            .as_ref()
            .map_or_else(|| "catalogue.toml".to_owned(), |path| path.display().to_string());
        let lines: Vec<String> = errors.iter().map(|error| format!("{file}: {error}")).collect();
        usage(lines.join("\n"))
    })?;
    let mut tables = BTreeMap::new();
    if sources.tables.is_empty() && sources.catalogue.is_none() {
        for (table, bytes) in SEED_TABLES {
            let file = table.file_name().to_owned();
            tables.insert(*table, TableFile { table: *table, file, bytes: deflate(bytes) });
        }
    }
    for (table, path) in &sources.tables {
        let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let table = TableName::ALL
            .into_iter()
            .find(|name| name.file_name() == *table)
            .context("a table of the command line is a table of the registry")?;
        let file = path.display().to_string();
        tables.insert(table, TableFile { table, file, bytes: deflate(&bytes) });
    }
    let organisation = build_organisation(&catalogue, &tables, &[]).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(|error| error.text(lang)).collect();
        usage(lines.join("\n"))
    })?;
    for warning in organisation.warnings().iter().take(20) {
        eprintln!("{}", warning.text(lang));
    }
    clear_unfinished(dir)?;
    let identity = Identity::create(dir, now)?;
    let mut ledger = Ledger::create(&ledger_dir(dir), random()?)?;
    let acts = [
        Act::Founded { name: name.to_owned() },
        Act::Catalogue { toml: deflate(&toml) },
        Act::Tables(tables.into_values().collect()),
    ];
    let rows: Vec<NewRow> = acts
        .into_iter()
        .map(|act| {
            let signed = SignedAct { by: "init".to_owned(), at: now, act };
            NewRow::act(signed.seal(&identity.key))
        })
        .collect();
    ledger.commit_now(&rows, now)?;
    eprintln!(
        "{}",
        say(
            lang,
            format!(
                "已建库：{}（{} 个机构与区划）。\n根密钥在 {}：请拷到 U 盘离线保存后从本机删除。\n下一步：banyan-aggregator serve",
                dir.display(),
                organisation.len(),
                dir.join("keys/root.key").display()
            ),
            format!(
                "made {} ({} units).\nThe root key is {}: copy it to a stick, keep that in a safe, and delete it here.\nNext: banyan-aggregator serve",
                dir.display(),
                organisation.len(),
                dir.join("keys/root.key").display()
            ),
        )
    );
    Ok(())
}

/// Takes away what an `init` that was cut short has left: keys without a ledger, or with an empty one,
/// have signed nothing yet.
fn clear_unfinished(dir: &Path) -> Result<()> {
    let ledger = ledger_dir(dir);
    let begun =
        ledger.exists() && Ledger::open(&ledger).map_or(true, |open| open.head().position > 0);
    let keys = dir.join("keys");
    if begun || !keys.exists() {
        return Ok(());
    }
    if ledger.exists() {
        std::fs::remove_dir_all(&ledger)
            .with_context(|| format!("clearing {}", ledger.display()))?;
    }
    std::fs::remove_dir_all(&keys).with_context(|| format!("clearing {}", keys.display()))
}
