//! `init`: keys, the root's recovery file, an empty ledger, and its first acts: name, catalogue, registry.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use banyan_shared::catalogue::{Catalogue, Lang};
use banyan_shared::ids::Millis;
use banyan_shared::keys::SigningKey;
use banyan_shared::tables::TableName;
use banyan_shared::wire::deflate;

use crate::act::{Act, SignedAct, TableFile};
use crate::identity::recovery::{
    PASSPHRASE_CHARS_MIN, RecoveryCode, RecoveryError, RecoverySecret, seal_root,
};
use crate::identity::{Identity, random, write_secret};
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

/// Where the root's secret goes.
#[derive(Clone, Debug, Default)]
pub struct RootKept {
    /// The recovery file, which must not exist; [`RECOVERY_FILE`] in the data directory unless given.
    pub file: Option<PathBuf>,
    /// What opens it; without one a code is drawn and shown once.
    pub passphrase: Option<String>,
}

/// The recovery file in a data directory, until it is taken away.
pub const RECOVERY_FILE: &str = "root.recovery";
/// The root's secret in the clear, as earlier versions left it.
const ROOT_SECRET: &str = "keys/root.key";

/// The root's secret as far as it lies in a data directory, where it should not stay.
pub(crate) fn recovery_files(dir: &Path) -> Vec<String> {
    let files = [RECOVERY_FILE, ROOT_SECRET].map(|name| dir.join(name));
    files.iter().filter(|path| path.exists()).map(|path| path.display().to_string()).collect()
}

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
    init_keeping(dir, sources, name, lang, now, &RootKept::default())
}

/// As [`init_at`], the root's secret kept as `kept` says.
///
/// # Errors
/// As [`init`], and if the recovery file exists or its passphrase is too short.
pub fn init_keeping(
    dir: &Path,
    sources: &Sources,
    name: &str,
    lang: Lang,
    now: Millis,
    kept: &RootKept,
) -> Result<()> {
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
    let (file, secret) = recovery_of(dir, kept)?;
    let keep = |root: &SigningKey| write_secret(&file, &seal_root(root, &secret)?);
    let (identity, ()) = Identity::found(dir, now, keep)?;
    // Before the ledger makes it a centre: what is shown once must have been shown.
    show_code(&file, &secret, lang);
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
                "已建库：{}（{} 个机构与区划）。\n下一步：banyan-aggregator serve",
                dir.display(),
                organisation.len(),
            ),
            format!(
                "made {} ({} units).\nNext: banyan-aggregator serve",
                dir.display(),
                organisation.len(),
            ),
        )
    );
    Ok(())
}

/// The recovery file to write and what is to open it.
fn recovery_of(dir: &Path, kept: &RootKept) -> Result<(PathBuf, RecoverySecret)> {
    let file = kept.file.clone().unwrap_or_else(|| dir.join(RECOVERY_FILE));
    if file.exists() {
        return Err(usage(format!(
            "{0} 已存在：请用 --recovery 指定另一个文件 / {0} exists already: name another file with --recovery",
            file.display()
        )));
    }
    let secret = match &kept.passphrase {
        Some(text) => {
            if text.chars().count() < PASSPHRASE_CHARS_MIN {
                return Err(usage(RecoveryError::TooShort.to_string()));
            }
            RecoverySecret::Passphrase(text.clone())
        }
        None => RecoverySecret::Code(RecoveryCode::generate()?),
    };
    Ok((file, secret))
}

/// Says where the recovery file is, and shows its code.
fn show_code(file: &Path, secret: &RecoverySecret, lang: Lang) {
    let file = file.display();
    let text = match secret {
        RecoverySecret::Code(code) => say(
            lang,
            format!(
                "根密钥已加密存入恢复文件：{file}\n恢复码（只显示这一次，请抄写并与文件分开保管）：\n    {code}\n请将恢复文件拷到 U 盘锁好，并从本机删除。更换操作密钥（keys roll）时需要两者。"
            ),
            format!(
                "The root key is in the recovery file, encrypted: {file}\nIts recovery code, shown only now (write it down, keep it apart from the file):\n    {code}\nCopy the file to a stick, lock that away, and delete it here. Both are needed to replace the operating key (keys roll)."
            ),
        ),
        RecoverySecret::Passphrase(_) => say(
            lang,
            format!("根密钥已用口令加密存入恢复文件：{file}\n请拷到 U 盘锁好，并从本机删除。"),
            format!(
                "The root key is in the recovery file, encrypted under your passphrase: {file}\nCopy it to a stick, lock that away, and delete it here."
            ),
        ),
    };
    eprintln!("{text}");
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
    std::fs::remove_dir_all(&keys).with_context(|| format!("clearing {}", keys.display()))?;
    match std::fs::remove_file(dir.join(RECOVERY_FILE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context("clearing the recovery file of an init that was cut short")
        }
        _ => Ok(()),
    }
}
