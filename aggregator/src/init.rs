//! `init`: keys, the root's recovery file, an empty ledger, and its first acts: name, catalogue, registry.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use banyan_shared::catalogue::{Catalogue, Lang};
use banyan_shared::ids::Millis;
use banyan_shared::keys::SigningKey;
use banyan_shared::tables::TableName;
use banyan_shared::wire::deflate;

use crate::act::{Act, SignedAct, TableFile};
use crate::identity::recovery::{
    PASSPHRASE_CHARS_MIN, RecoveryCode, RecoveryError, RecoverySecret, seal_root,
};
use crate::identity::{Begun, Found, Identity, make_home, random, write_secret};
use crate::ledger::{Ledger, LedgerError, NewRow};
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
    make_home(dir)?;
    let keep = |root: &SigningKey| {
        let recovery_here = file == dir.join(RECOVERY_FILE);
        Identity::mark(dir, Begun::Init { recovery_here })?;
        write_secret(&file, &seal_root(root, &secret)?)
    };
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
    Identity::finished(dir)?;
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

/// Takes away what an `init` that was cut short has left. Only its mark tells that: keys without a ledger may also
/// be those of a centre whose ledger was lost, and nothing makes them again.
fn clear_unfinished(dir: &Path) -> Result<()> {
    let ledger = ledger_dir(dir);
    let begun = match Ledger::open(&ledger) {
        Ok(open) => open.head().position > 0,
        Err(LedgerError::Absent { .. }) => false,
        Err(error) => return Err(error.into()),
    };
    let own_recovery = match Identity::found_in(dir)? {
        found if begun || found == Found::Keys => bail!(
            "{0} 已有中心的密钥或账本，不会覆盖。账本丢失时：将 ledger/ 放回原处，或用 restore 把备份恢复到新目录 / {0} holds a centre's keys or ledger, which are not replaced. If its ledger was lost: put ledger/ back, or bring a backup into a new directory with `restore`",
            dir.display()
        ),
        Found::Unfinished(Begun::Restore) => bail!(
            "{0} 中的 restore 未完成：请重复 restore / a `restore` into {0} was cut short: repeat it",
            dir.display()
        ),
        Found::Unfinished(Begun::Init { recovery_here }) => recovery_here,
        Found::Nothing | Found::Keys => return Ok(()),
    };
    if ledger.exists() {
        std::fs::remove_dir_all(&ledger)
            .with_context(|| format!("clearing {}", ledger.display()))?;
    }
    if own_recovery {
        match std::fs::remove_file(dir.join(RECOVERY_FILE)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error)
                    .context("clearing the recovery file of an init that was cut short");
            }
            _ => {}
        }
    }
    // The mark goes last: what is left of this is cleared by the next run.
    Identity::clear_unfinished(dir)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn init_seeds(dir: &Path) -> Result<()> {
        init(dir, &Sources { catalogue: None, tables: Vec::new() }, "test", Lang::En)
    }

    /// Every file below `dir` with its bytes.
    fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files.extend(self::files(&path));
            } else {
                files.insert(path.clone(), fs::read(&path).unwrap());
            }
        }
        files
    }

    #[test]
    fn keys_whose_ledger_is_gone_are_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("centre");
        init_seeds(&home).unwrap();
        let error = format!("{:#}", init_seeds(&home).unwrap_err());
        assert!(error.contains("holds a centre's keys"), "{error}");
        fs::remove_dir_all(home.join("ledger")).unwrap();
        let before = files(&home);
        assert!(before.contains_key(&home.join(RECOVERY_FILE)));
        let error = format!("{:#}", init_seeds(&home).unwrap_err());
        assert!(error.contains("restore"), "{error}");
        assert_eq!(files(&home), before);
        // An empty ledger beside them is no sign of a founding either.
        drop(Ledger::create(&home.join("ledger"), [1; 16]).unwrap());
        let before = files(&home);
        init_seeds(&home).unwrap_err();
        assert_eq!(files(&home), before);
    }

    #[cfg(unix)]
    #[test]
    fn data_directories_are_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        const CHILD: &str = "BANYAN_INIT_TEST_DIR";
        const HERE: &str = "init::tests::data_directories_are_for_their_owner_alone";
        if let Some(dir) = std::env::var_os(CHILD) {
            let dir = Path::new(&dir);
            let home = dir.join("srv/centre");
            init_seeds(&home).unwrap();
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let clock = crate::service::system_clock();
            let opened = crate::service::Service::open(&home, clock, None);
            let (service, running) = runtime.block_on(opened).unwrap();
            runtime.block_on(service.backup(&dir.join("file"), false)).unwrap();
            drop(service);
            runtime.block_on(running.stop()).unwrap();
            let now = jiff::Timestamp::now().into();
            crate::service::restore(&dir.join("file"), &dir.join("srv/again"), now).unwrap();
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        // A process of its own, since the umask is a whole process's.
        let status = std::process::Command::new("sh")
            .args(["-c", "umask 022 && exec \"$0\" --exact \"$1\""])
            .arg(std::env::current_exe().unwrap())
            .arg(HERE)
            .env(CHILD, dir.path())
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        let mode =
            |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("srv"), 0o755, "a parent is not the centre's to close");
        assert_eq!((mode("srv/centre"), mode("srv/again"), mode("file")), (0o700, 0o700, 0o600));
        let home = dir.path().join("srv/centre");
        assert_eq!(crate::identity::open_to_others(&home), None);
        for wider in [0o750, 0o701, 0o755] {
            fs::set_permissions(&home, fs::Permissions::from_mode(wider)).unwrap();
            assert_eq!(crate::identity::open_to_others(&home), Some(wider));
        }
    }

    #[test]
    fn a_founding_that_was_cut_short_can_be_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let begun = |what: &str, leave: fn(&Path)| {
            let home = dir.path().join(what);
            init_seeds(&home).unwrap();
            Identity::mark(&home, Begun::Init { recovery_here: true }).unwrap();
            leave(&home);
            init_seeds(&home).unwrap_or_else(|error| panic!("{what}: {error:#}"));
            assert!(!home.join("keys/unfinished").exists(), "{what}");
            Identity::open(&home).unwrap();
            assert_eq!(Ledger::open(&home.join("ledger")).unwrap().head().position, 3, "{what}");
        };
        begun("before the ledger", |home| fs::remove_dir_all(home.join("ledger")).unwrap());
        begun("within the keys", |home| {
            fs::remove_dir_all(home.join("ledger")).unwrap();
            fs::remove_file(home.join("keys/operating.key")).unwrap();
        });
        begun("at the ledger", |home| {
            fs::remove_dir_all(home.join("ledger")).unwrap();
            fs::create_dir(home.join("ledger")).unwrap();
            fs::write(home.join("ledger/ledger.db.new"), "half").unwrap();
        });
        begun("before the first commit", |home| {
            fs::remove_dir_all(home.join("ledger")).unwrap();
            drop(Ledger::create(&home.join("ledger"), [1; 16]).unwrap());
        });
        begun("before the mark", |home| {
            fs::remove_dir_all(home.join("ledger")).unwrap();
            fs::remove_file(home.join(RECOVERY_FILE)).unwrap();
            fs::remove_dir_all(home.join("keys")).unwrap();
            fs::create_dir(home.join("keys")).unwrap();
        });
    }

    #[test]
    fn what_was_founded_is_not_cleared_for_the_mark_alone() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("centre");
        init_seeds(&home).unwrap();
        // Cut short between the first commit and the end of the mark.
        Identity::mark(&home, Begun::Init { recovery_here: true }).unwrap();
        let keys = files(&home.join("keys"));
        init_seeds(&home).unwrap_err();
        assert_eq!(files(&home.join("keys")), keys);
        // Whoever opens it takes the mark away: from then on the loss of the ledger is a loss.
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let opened = crate::service::Service::open(&home, crate::service::system_clock(), None);
        let (service, running) = runtime.block_on(opened).unwrap();
        drop(service);
        runtime.block_on(running.stop()).unwrap();
        fs::remove_dir_all(home.join("ledger")).unwrap();
        init_seeds(&home).unwrap_err();
        assert!(home.join("keys/operating.key").exists());
        // A recovery file of another centre is not this founding's to remove.
        let other = dir.path().join("other");
        fs::create_dir_all(other.join("keys")).unwrap();
        fs::write(other.join(RECOVERY_FILE), "another's").unwrap();
        Identity::mark(&other, Begun::Init { recovery_here: false }).unwrap();
        init_seeds(&other).unwrap_err();
        assert_eq!(fs::read(other.join(RECOVERY_FILE)).unwrap(), b"another's");
    }
}
