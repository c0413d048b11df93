//! Writes `seeds/guizhou` from `seeds/source`, after building the organisation from what it is about to write.
//!
//! `seeds` writes; `seeds --check` writes nothing and fails if a file on disk differs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use banyan_shared::catalogue::{Catalogue, Lang};
use banyan_shared::organisation::Organisation;
use banyan_shared::tables::{TableName, Tables};
use banyan_tests::guizhou::{Source, generate};
use clap::Parser;

/// Make the registry of the Guizhou seeds.
#[derive(Parser)]
struct Options {
    /// The folder with `source`, `guizhou` and `catalogue.toml`.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../seeds"))]
    seeds: PathBuf,
    /// Only compare with the files on disk.
    #[arg(long)]
    check: bool,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let read = |name: &str| read(&options.seeds.join(name));
    let (registry, villages) = (read("source/registry.csv")?, read("source/villages.csv")?);
    let files = generate(Source { registry: &registry, villages: &villages })?;

    let given: Vec<(TableName, &str, &[u8])> =
        files.iter().map(|(table, bytes)| (*table, table.file_name(), &**bytes)).collect();
    let catalogue = Catalogue::load(&read("catalogue.toml")?).map_err(|errors| {
        anyhow::anyhow!("catalogue.toml: {}", list(errors.iter().map(|e| e.text(Lang::En))))
    })?;
    let text = |errors: Vec<banyan_shared::tables::RowError>| {
        anyhow::anyhow!("{}", list(errors.iter().map(|e| e.text(Lang::En))))
    };
    let tables = Tables::parse(&given).map_err(text)?;
    let organisation = Organisation::build(&catalogue, &tables).map_err(text)?;
    if !organisation.warnings().is_empty() {
        bail!("{}", list(organisation.warnings().iter().map(|e| e.text(Lang::En))));
    }

    let folder = options.seeds.join("guizhou");
    for (table, bytes) in &files {
        let path = folder.join(table.file_name());
        if !options.check {
            fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
            fs::write(&path, bytes).with_context(|| path.display().to_string())?;
        } else if self::read(&path)? != *bytes {
            bail!("{} is not what the generator makes: run it without --check", path.display());
        }
    }
    println!(
        "{} units, {} facilities and desks, {} networks",
        organisation.len(),
        organisation.reporters().len(),
        organisation.networks().len()
    );
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}

fn list(errors: impl Iterator<Item = String>) -> String {
    errors.take(50).collect::<Vec<_>>().join("\n")
}
