//! The log of who did what: one JSON line each in `DIR/access/audit-NNNNNN.jsonl`.
//!
//! Promises that lines are only ever added, that one survives the end of the process as soon as
//! [`Audit::write`] has returned (and a power cut, unless it is a read), and that the files stay within
//! [`FILES_MAX`] times [`FILE_BYTES_MAX`]: the oldest file goes. What can be caused
//! without a login, and refusals, are limited by the hour, so that nobody can wash the log away by them.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result};
use banyan_shared::catalogue::Lang;
use banyan_shared::ids::Millis;
use serde::{Deserialize, Serialize};

use super::{Via, lock};

/// Longest file; then another is begun.
pub(super) const FILE_BYTES_MAX: u64 = 16 << 20;
/// Most files kept.
pub(super) const FILES_MAX: usize = 16;
/// Most lines an hour without a login, or of refusals.
const LIMITED_MAX: u32 = 2_000;
const HOUR_MS: i64 = 3_600_000;
/// Most lines of one answer.
pub(super) const ROWS_MAX: usize = 100_000;
/// Longest text of a field, in characters.
const FIELD_CHARS_MAX: usize = 200;

/// What sort of thing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Logging in, well or not; logging out.
    Login,
    /// Reading figures of single sites: one line a page or answer.
    Read,
    /// Figures or keys into a file.
    Export,
    /// Changing something: reports, agents, registry, catalogue, users, tokens.
    Change,
    /// Asking for what one may not.
    Refused,
    /// An agent's identity used in two places, as the front door sees it: nobody did it here.
    Agent,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When, in ms since 1970.
    pub at: Millis,
    /// What sort of thing.
    pub kind: Kind,
    /// The user's or token's name, as given.
    pub user: String,
    /// How they got in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub via: Option<Via>,
    /// From where.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<IpAddr>,
    /// The command or page.
    pub what: String,
    /// Of whom or what.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub of: String,
    /// `ok`, or what was wrong.
    pub outcome: String,
}

/// A question to the log.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditCall {
    /// Only of this user or token.
    pub user: Option<String>,
    /// Only from this moment on (RFC 3339) or day.
    pub since: Option<String>,
    /// Only of this sort.
    pub kind: Option<Kind>,
    /// At most so many, the newest.
    pub limit: Option<usize>,
    /// Language of messages.
    pub lang: Lang,
}

/// What the log is asked for, read.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted<'a> {
    pub(super) user: Option<&'a str>,
    pub(super) since: Option<Millis>,
    pub(super) kind: Option<Kind>,
    pub(super) limit: usize,
}

#[derive(Debug)]
pub(super) struct Audit {
    folder: PathBuf,
    file_bytes_max: u64,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    file: Option<(File, u64)>,
    /// The hour, how many limited lines came in it, how many of them were left out.
    limited: (i64, u32, u32),
}

fn name(number: u64) -> String {
    format!("audit-{number:06}.jsonl")
}

/// The numbers of the files there are, the oldest first.
fn numbers(folder: &Path) -> Result<Vec<u64>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context("reading the audit log's folder"),
    };
    let mut found = Vec::new();
    for entry in entries {
        let file = entry?.file_name();
        let number = file.to_str().and_then(|n| n.strip_prefix("audit-")?.strip_suffix(".jsonl"));
        found.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

fn short(text: &str) -> String {
    text.chars().take(FIELD_CHARS_MAX).collect()
}

impl Open {
    fn file(&mut self, folder: &Path, bytes_max: u64) -> Result<&mut (File, u64)> {
        let full = self.file.as_ref().is_some_and(|(_, bytes)| *bytes >= bytes_max);
        if self.file.is_none() || full {
            self.file = Some(next_file(folder, bytes_max)?);
        }
        self.file.as_mut().context("it was opened just now")
    }
}

/// The newest file if there is room in it, or another one; the oldest ones beyond the limit go.
fn next_file(folder: &Path, bytes_max: u64) -> Result<(File, u64)> {
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let there = numbers(folder)?;
    let newest = there.last().copied().unwrap_or(0);
    let mut number = newest.max(1);
    let bytes = |number| std::fs::metadata(folder.join(name(number))).map(|m| m.len()).unwrap_or(0);
    if bytes(number) >= bytes_max {
        number += 1;
    }
    let mut options = OpenOptions::new();
    options.create(true).append(true).read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let path = folder.join(name(number));
    let mut file = options.open(&path).with_context(|| format!("opening {}", path.display()))?;
    let mut bytes = file.metadata()?.len();
    if bytes > 0 {
        // A line torn by a power cut must not swallow the next.
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            bytes += 1;
        }
    }
    let gone = (there.len() + usize::from(number != newest)).saturating_sub(FILES_MAX);
    for old in there.iter().take(gone) {
        std::fs::remove_file(folder.join(name(*old)))
            .with_context(|| format!("removing {}", name(*old)))?;
    }
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok((file, bytes))
}

impl Audit {
    pub(super) fn new(folder: &Path) -> Audit {
        Audit { folder: folder.to_owned(), file_bytes_max: FILE_BYTES_MAX, open: Mutex::default() }
    }

    /// Adds a line.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn write(&self, record: &Record) -> Result<()> {
        self.add(&mut lock(&self.open), record)
    }

    fn add(&self, open: &mut Open, record: &Record) -> Result<()> {
        let record = Record {
            user: short(&record.user),
            what: short(&record.what),
            of: short(&record.of),
            outcome: short(&record.outcome),
            ..record.clone()
        };
        let mut line = serde_json::to_vec(&record)?;
        line.push(b'\n');
        let added = (|| -> Result<()> {
            let (file, bytes) = open.file(&self.folder, self.file_bytes_max)?;
            // One call, so that no kill divides it.
            file.write_all(&line).context("writing the audit log")?;
            *bytes += line.len() as u64;
            if record.kind != Kind::Read {
                file.sync_data().context("writing the audit log")?;
            }
            Ok(())
        })();
        if added.is_err() {
            // Part of it may be there: the next begins with a look at the end of the file.
            open.file = None;
        }
        added
    }

    /// Adds a line that costs its cause nothing, unless there were too many this hour; how many were left out
    /// is told by the first of the next.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn write_within_limit(&self, record: &Record) -> Result<()> {
        let mut open = lock(&self.open);
        let hour = record.at.0.div_euclid(HOUR_MS);
        let (current, written, left_out) = open.limited;
        if current != hour {
            open.limited = (hour, 0, 0);
            if left_out > 0 {
                let outcome = format!("{left_out} more in an hour, left out");
                let told = Record { user: String::new(), address: None, outcome, ..record.clone() };
                self.add(&mut open, &told)?;
            }
        } else if written >= LIMITED_MAX {
            open.limited.2 = left_out.saturating_add(1);
            return Ok(());
        }
        open.limited.1 += 1;
        self.add(&mut open, record)
    }

    /// The newest lines asked for, the oldest of them first, and how many lines do not read.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn read(&self, wanted: &Wanted<'_>) -> Result<(Vec<Record>, u64)> {
        let mut found = std::collections::VecDeque::new();
        let mut damaged = 0;
        for number in numbers(&self.folder)? {
            let path = self.folder.join(name(number));
            let file = match File::open(&path) {
                Ok(file) => file,
                // Rotated away meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error).context("reading the audit log"),
            };
            for line in BufReader::new(file).split(b'\n') {
                let line = line.context("reading the audit log")?;
                if line.is_empty() {
                    continue;
                }
                let Ok(record) = serde_json::from_slice::<Record>(&line) else {
                    damaged += 1;
                    continue;
                };
                let good = wanted.user.is_none_or(|user| user == record.user)
                    && wanted.since.is_none_or(|since| record.at >= since)
                    && wanted.kind.is_none_or(|kind| kind == record.kind);
                if good {
                    if found.len() >= wanted.limit {
                        found.pop_front();
                    }
                    found.push_back(record);
                }
            }
        }
        Ok((found.into(), damaged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: Kind, user: &str, at: i64) -> Record {
        Record {
            at: Millis(at),
            kind,
            user: user.into(),
            via: Some(Via::Session),
            address: Some(IpAddr::from([10, 0, 0, 1])),
            what: "report".into(),
            of: "V1-VC vc_daily 2026-01-01".into(),
            outcome: "ok".into(),
        }
    }

    fn all() -> Wanted<'static> {
        Wanted { limit: ROWS_MAX, ..Wanted::default() }
    }

    #[test]
    fn lines_are_added_filtered_and_found_again_after_a_torn_one() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::new(dir.path());
        assert!(audit.read(&all()).unwrap().0.is_empty());
        audit.write(&record(Kind::Read, "a", 1)).unwrap();
        audit.write(&record(Kind::Change, "b", 2)).unwrap();
        // As a power cut leaves it.
        let path = dir.path().join(name(1));
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], br#"{"at":3,"kind":"rea"#].concat()).unwrap();
        let audit = Audit::new(dir.path());
        audit.write(&record(Kind::Login, "a", 4)).unwrap();
        let (found, damaged) = audit.read(&all()).unwrap();
        assert_eq!((found.len(), damaged), (3, 1));
        assert_eq!(found[2], record(Kind::Login, "a", 4));
        let at = |wanted: Wanted<'_>| -> Vec<i64> {
            audit.read(&wanted).unwrap().0.iter().map(|record| record.at.0).collect()
        };
        assert_eq!(at(Wanted { user: Some("a"), ..all() }), [1, 4]);
        assert_eq!(at(Wanted { since: Some(Millis(2)), ..all() }), [2, 4]);
        assert_eq!(at(Wanted { kind: Some(Kind::Change), ..all() }), [2]);
        assert_eq!(at(Wanted { limit: 1, ..all() }), [4]);
    }

    #[test]
    fn files_rotate_and_only_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit { file_bytes_max: 400, ..Audit::new(dir.path()) };
        for at in 0..200 {
            audit.write(&record(Kind::Read, "a", at)).unwrap();
        }
        let files = numbers(dir.path()).unwrap();
        assert_eq!(files.len(), FILES_MAX);
        let (found, damaged) = audit.read(&all()).unwrap();
        assert_eq!(damaged, 0);
        let first = found[0].at.0;
        let want: Vec<i64> = (first..200).collect();
        assert_eq!(found.iter().map(|record| record.at.0).collect::<Vec<_>>(), want);
        assert!(first > 0, "the oldest went");
        // Another life goes on where this one was.
        let audit = Audit { file_bytes_max: 400, ..Audit::new(dir.path()) };
        audit.write(&record(Kind::Read, "a", 200)).unwrap();
        assert!(numbers(dir.path()).unwrap().last() >= files.last());
    }

    #[test]
    fn nobody_can_wash_the_log_away_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::new(dir.path());
        audit.write(&record(Kind::Change, "a", 0)).unwrap();
        for _ in 0..LIMITED_MAX * 2 {
            audit.write_within_limit(&record(Kind::Refused, "x", 1)).unwrap();
        }
        audit.write_within_limit(&record(Kind::Refused, "x", HOUR_MS + 1)).unwrap();
        let (found, _) = audit.read(&all()).unwrap();
        assert_eq!(found.len(), usize::try_from(LIMITED_MAX).unwrap() + 3);
        let told = &found[found.len() - 2].outcome;
        assert_eq!(told, &format!("{LIMITED_MAX} more in an hour, left out"));
    }

    /// The child of `a_line_written_survives_kill_9`.
    #[test]
    #[ignore = "run by another test"]
    fn writes_until_killed() {
        let Ok(folder) = std::env::var("BANYAN_AUDIT_FOLDER") else { return };
        let audit = Audit::new(Path::new(&folder));
        for at in 0.. {
            audit.write(&record(Kind::Read, "a", at)).unwrap();
            println!("written {at}");
        }
    }

    #[test]
    fn a_line_written_survives_kill_9() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "access::audit::tests::writes_until_killed"])
            .args(["--ignored", "--nocapture"])
            .env("BANYAN_AUDIT_FOLDER", dir.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let mut last = -1;
        while last < 500 {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "the child ended");
            if let Some(at) = line.split("written ").nth(1) {
                last = at.trim().parse().unwrap();
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // The kernel may cut the line that was being written at a page's end; none that was.
        let (found, damaged) = Audit::new(dir.path()).read(&all()).unwrap();
        assert!(damaged <= 1, "{damaged}");
        assert!(found.last().unwrap().at.0 >= last, "{last}");
        assert!(found.iter().map(|record| record.at.0).eq(0..=found.last().unwrap().at.0));
    }
}
