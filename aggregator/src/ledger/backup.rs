//! Backups: one file, independent of SQLite, checked before anything is restored from it.
//!
//! ```text
//! file    = "BANYANBK", version (u8, 1), kind (u8: 1 full, 2 identity), record…
//! record  = tag (u8), length of payload (u32), payload, CRC-32 of tag, length and payload (u32)
//! 1 store  = store id (16), incarnation (u32), made at (i64, milliseconds)         first, once
//! 2 member = length of name (u16), name, bytes                                      what the caller adds: keys…
//! 3 row    = position (u64), received at (i64), kind (u8), length of refused (u32), refused, bytes
//! 4 commit = last position (u64), chain hash (32)                                   full only, after its rows
//! 9 end    = number of records before (u64), SHA-256 of every byte before this record (32)   last, once
//! ```
//! Numbers are little-endian. A full backup holds every row and commit through one head; an identity backup the
//! members and the acts. Rows never change, so a backup made while the service writes is a consistent
//! snapshot without holding anything up.
//!
//! A restored ledger keeps its store id and gets a higher incarnation, so that agents learn it may show less. From an
//! identity backup the acts get new positions 1, 2, 3… and keep their moments.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use banyan_shared::ids::{Millis, Position};
use ring::digest::{Context, SHA256};

use super::chain::{CommitSum, Hash, finish};
use super::disk::{create_private, dir_of, sync_dir};
use super::error::LedgerError;
use super::read::LedgerReader;
use super::store::{Ledger, UNFINISHED, group_is_full, insert_commit};
use super::{
    Head, REFUSED_BYTES_MAX, ROW_BYTES_MAX, Row, RowKind, RowRef, SUBMISSION_ROWS_MAX,
    StoreIdentity,
};

const MAGIC: &[u8; 8] = b"BANYANBK";
const VERSION: u8 = 1;
const ROW_FIXED: usize = 8 + 8 + 1 + 4;
/// Largest member, in bytes.
pub const MEMBER_BYTES_MAX: usize = 64 << 20;
/// Most members of one backup.
pub const MEMBERS_MAX: usize = 4096;
const MEMBER_NAME_BYTES_MAX: usize = 128;
/// Largest payload of a record.
const PAYLOAD_BYTES_MAX: usize = MEMBER_BYTES_MAX + 2 + MEMBER_NAME_BYTES_MAX;
/// Most runs that write to one backup file at once.
const PARTS_MAX: usize = 9;
/// Most rows of one commit in a backup: a group takes its last submission whole.
const COMMIT_ROWS_MAX: usize = super::GROUP_ROWS_MAX + SUBMISSION_ROWS_MAX;

const STORE: u8 = 1;
const MEMBER: u8 = 2;
const ROW: u8 = 3;
const COMMIT: u8 = 4;
const END: u8 = 9;

/// What a backup holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupKind {
    /// Members, every row, the chain.
    Full,
    /// Members and acts: what agents cannot send again.
    Identity,
}

/// A file the caller adds to a backup, for example a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// A relative path, parts divided by `/`.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// What stands in a backup; everything in it has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupSummary {
    /// Full or identity.
    pub kind: BackupKind,
    /// The ledger it was made of.
    pub identity: StoreIdentity,
    /// When it was made.
    pub made_at: Millis,
    /// Names of the members.
    pub members: Vec<String>,
    /// Rows in it: all, or the acts.
    pub rows: u64,
    /// The last position in it; 0 when there is none.
    pub last_position: Position,
    /// When the last act in it was received; what operators did later is not in it.
    pub last_act_at: Option<Millis>,
    /// Length of the file, in bytes.
    pub bytes: u64,
}

/// A ledger made from a backup.
pub struct Restored {
    /// The ledger, open, of a new incarnation.
    pub ledger: Ledger,
    /// The members.
    pub members: Vec<Member>,
    /// What the backup held.
    pub summary: BackupSummary,
}

impl LedgerReader {
    /// Writes a full backup to `path`, replacing what is there only when it is whole and on disk.
    ///
    /// The chain is checked on the way: a backup is never made of a ledger that does not hold.
    ///
    /// # Errors
    /// [`LedgerError::Chain`], [`LedgerError::MemberName`], [`LedgerError::TooLarge`], or what the disk says.
    pub fn backup(
        &self,
        path: &Path,
        members: &[Member],
        now: Millis,
    ) -> Result<BackupSummary, LedgerError> {
        let mut writer =
            BackupWriter::begin(path, BackupKind::Full, self.identity(), members, now)?;
        self.each_commit(|commit| {
            for row in commit.rows {
                writer.row(row.as_ref())?;
            }
            let mut payload = commit.last.to_le_bytes().to_vec();
            payload.extend_from_slice(&commit.hash);
            writer.record(COMMIT, &[&payload])
        })?;
        writer.end()
    }

    /// Writes an identity backup, as [`LedgerReader::backup`] does: the members and every act.
    ///
    /// # Errors
    /// As [`LedgerReader::backup`].
    pub fn identity_backup(
        &self,
        path: &Path,
        members: &[Member],
        now: Millis,
    ) -> Result<BackupSummary, LedgerError> {
        let mut writer =
            BackupWriter::begin(path, BackupKind::Identity, self.identity(), members, now)?;
        self.each_act(|row| writer.row(row))?;
        writer.end()
    }
}

/// What a backup is written to before it is whole: a file of one run alone, removed unless it is put in place.
struct Part {
    path: PathBuf,
    kept: bool,
}

impl Drop for Part {
    fn drop(&mut self) {
        // On a disk that is full it would keep it full.
        if !self.kept
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "a part of a backup is left");
        }
    }
}

impl Part {
    /// Makes the part beside `path`, under a name no other run writes to, and removes those of runs that were
    /// killed: one that goes on holds a lock on its part.
    fn begin(path: &Path) -> Result<(Part, File), LedgerError> {
        let mut made = None;
        for n in 1..=PARTS_MAX {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".part-{n}"));
            let part = PathBuf::from(name);
            let left = |part: &Path| {
                let found = File::options().write(true).open(part);
                found.is_ok_and(|found| found.try_lock().is_ok())
            };
            if left(&part) {
                fs::remove_file(&part).map_err(LedgerError::io(&part))?;
            }
            if made.is_none() {
                match create_private(&part) {
                    Ok(file) => {
                        // Where the file system has no locks, the name alone has to do.
                        let _ = file.try_lock();
                        made = Some((Part { path: part, kept: false }, file));
                    }
                    Err(LedgerError::Io { source, .. })
                        if source.kind() == std::io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(error),
                }
            }
        }
        made.ok_or(LedgerError::TooLarge {
            what: "the number of parts beside a backup",
            found: PARTS_MAX + 1,
            limit: PARTS_MAX,
        })
    }
}

struct BackupWriter {
    path: PathBuf,
    // Fields drop in order: the file closes before the part is removed, as Windows wants it.
    file: BufWriter<File>,
    part: Part,
    sum: Context,
    records: u64,
    summary: BackupSummary,
}

impl BackupWriter {
    fn begin(
        path: &Path,
        kind: BackupKind,
        identity: StoreIdentity,
        members: &[Member],
        now: Millis,
    ) -> Result<Self, LedgerError> {
        if members.len() > MEMBERS_MAX {
            return Err(LedgerError::TooLarge {
                what: "a backup's number of members",
                found: members.len(),
                limit: MEMBERS_MAX,
            });
        }
        let (part, file) = Part::begin(path)?;
        let mut writer = Self {
            path: path.to_owned(),
            file: BufWriter::with_capacity(1 << 20, file),
            part,
            sum: Context::new(&SHA256),
            records: 0,
            summary: BackupSummary {
                kind,
                identity,
                made_at: now,
                members: members.iter().map(|member| member.name.clone()).collect(),
                rows: 0,
                last_position: 0,
                last_act_at: None,
                bytes: 0,
            },
        };
        writer.put(MAGIC)?;
        writer.put(&[VERSION, if kind == BackupKind::Full { 1 } else { 2 }])?;
        writer.record(
            STORE,
            &[&identity.store_id, &identity.incarnation.to_le_bytes(), &now.0.to_le_bytes()],
        )?;
        for member in members {
            check_member(&member.name, member.bytes.len())?;
            let length = member.name.len() as u16;
            writer
                .record(MEMBER, &[&length.to_le_bytes(), member.name.as_bytes(), &member.bytes])?;
        }
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), LedgerError> {
        self.sum.update(bytes);
        self.summary.bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(LedgerError::io(&self.part.path))
    }

    fn record(&mut self, tag: u8, parts: &[&[u8]]) -> Result<(), LedgerError> {
        let length = parts.iter().map(|part| part.len()).sum::<usize>() as u32;
        let mut crc = crc32fast::Hasher::new();
        for bytes in [&[tag][..], &length.to_le_bytes()].into_iter().chain(parts.iter().copied()) {
            crc.update(bytes);
            self.put(bytes)?;
        }
        self.records += 1;
        self.put(&crc.finalize().to_le_bytes())
    }

    fn row(&mut self, row: RowRef<'_>) -> Result<(), LedgerError> {
        self.summary.rows += 1;
        self.summary.last_position = row.position;
        if row.kind == RowKind::Act {
            self.summary.last_act_at = Some(row.received_at);
        }
        self.record(
            ROW,
            &[
                &row.position.to_le_bytes(),
                &row.received_at.0.to_le_bytes(),
                &[row.kind.code()],
                &(row.refused.len() as u32).to_le_bytes(),
                row.refused,
                row.bytes,
            ],
        )
    }

    fn end(mut self) -> Result<BackupSummary, LedgerError> {
        let hash = finish(self.sum.clone());
        let records = self.records.to_le_bytes();
        self.record(END, &[&records, &hash])?;
        let io = || LedgerError::io(&self.part.path);
        self.file.flush().map_err(io())?;
        self.file.get_ref().sync_all().map_err(io())?;
        fs::rename(&self.part.path, &self.path).map_err(LedgerError::io(&self.path))?;
        self.part.kept = true;
        sync_dir(dir_of(&self.path))?;
        Ok(self.summary)
    }
}

/// Reads a backup through and checks every sum in it.
///
/// # Errors
/// [`LedgerError::Backup`] naming the byte where it fails, or what the disk says.
pub fn check_backup(path: &Path) -> Result<BackupSummary, LedgerError> {
    BackupReader::open(path)?.read(|_| Ok(()))
}

/// Makes a ledger in `dir` from the backup at `path`; `now` marks its new incarnation.
///
/// The backup is checked whole before anything is written; an interrupted restore can be repeated.
///
/// # Errors
/// [`LedgerError::NotEmpty`] when `dir` holds anything, [`LedgerError::Backup`], or what the disk says.
pub fn restore(path: &Path, dir: &Path, now: Millis) -> Result<Restored, LedgerError> {
    restore_with(path, dir, now, |_| Ok::<_, LedgerError>(()))
}

/// As [`restore`]; `put` puts the members in place once everything else is written. Only then is there a ledger.
///
/// # Errors
/// As [`restore`], and what `put` says.
pub fn restore_with<E: From<LedgerError>>(
    path: &Path,
    dir: &Path,
    now: Millis,
    put: impl FnOnce(&[Member]) -> Result<(), E>,
) -> Result<Restored, E> {
    refuse_non_empty(dir)?;
    let summary = check_backup(path)?;
    let identity = StoreIdentity {
        store_id: summary.identity.store_id,
        incarnation: next_incarnation(summary.identity.incarnation, now),
    };
    let mut members = Vec::new();
    let unfinished = dir.join(UNFINISHED);
    let ledger = Ledger::build(dir, identity, |connection, start| {
        let sqlite = LedgerError::sqlite(&unfinished);
        let transaction = connection.transaction().map_err(&sqlite)?;
        let mut head = start;
        let mut rows: Vec<Row> = Vec::new();
        let mut weight = 0;
        let commit = |head: &mut Head, rows: &mut Vec<Row>| {
            if !rows.is_empty() {
                let rows: Vec<_> = std::mem::take(rows);
                let rows: Vec<_> = rows.iter().map(Row::as_ref).collect();
                *head = insert_commit(&transaction, &unfinished, *head, &rows)?;
            }
            Ok::<_, LedgerError>(())
        };
        BackupReader::open(path)?.read(|record| {
            match record {
                Record::Member(member) => members.push(member),
                Record::Row(mut row) => {
                    if summary.kind == BackupKind::Identity {
                        if group_is_full(rows.len(), weight) {
                            commit(&mut head, &mut rows)?;
                            weight = 0;
                        }
                        row.position = head.position + rows.len() as u64 + 1;
                    }
                    weight += row.refused.len() + row.bytes.len();
                    rows.push(row);
                }
                Record::Commit => commit(&mut head, &mut rows)?,
            }
            Ok(())
        })?;
        commit(&mut head, &mut rows)?;
        transaction.commit().map_err(&sqlite)?;
        put(&members)?;
        Ok::<_, E>(head)
    })?;
    Ok(Restored { ledger, members, summary })
}

/// Two restores of one backup must not look alike to agents, so the clock's seconds are used; a clock that is
/// behind still gives a higher number.
fn next_incarnation(before: u32, now: Millis) -> u32 {
    let seconds = u32::try_from(now.0.div_euclid(1000)).unwrap_or(0);
    before.saturating_add(1).max(seconds)
}

fn refuse_non_empty(dir: &Path) -> Result<(), LedgerError> {
    if !dir.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(dir).map_err(LedgerError::io(dir))? {
        let name = entry.map_err(LedgerError::io(dir))?.file_name();
        // What an interrupted restore leaves.
        if name != UNFINISHED && name != "ledger.lock" {
            let found = name.to_string_lossy().into_owned();
            return Err(LedgerError::NotEmpty { path: dir.to_owned(), found });
        }
    }
    Ok(())
}

fn check_member(name: &str, bytes: usize) -> Result<(), LedgerError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let part_is_good = |part: &str| part.chars().all(plain) && part.chars().any(|c| c != '.');
    if name.len() > MEMBER_NAME_BYTES_MAX || !name.split('/').all(part_is_good) {
        return Err(LedgerError::MemberName { name: name.to_owned() });
    }
    if bytes > MEMBER_BYTES_MAX {
        return Err(LedgerError::TooLarge {
            what: "a backup member's bytes",
            found: bytes,
            limit: MEMBER_BYTES_MAX,
        });
    }
    Ok(())
}

enum Record {
    Member(Member),
    Row(Row),
    /// The rows since the last one are a commit.
    Commit,
}

struct BackupReader {
    path: PathBuf,
    file: BufReader<File>,
    sum: Context,
    offset: u64,
}

impl BackupReader {
    fn open(path: &Path) -> Result<Self, LedgerError> {
        let file = File::open(path).map_err(LedgerError::io(path))?;
        Ok(Self {
            path: path.to_owned(),
            file: BufReader::with_capacity(1 << 20, file),
            sum: Context::new(&SHA256),
            offset: 0,
        })
    }

    fn bad(&self, reason: impl Into<String>) -> LedgerError {
        LedgerError::Backup { path: self.path.clone(), offset: self.offset, reason: reason.into() }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], LedgerError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), LedgerError> {
        self.file.read_exact(bytes).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => self.bad("the file ends too early"),
            _ => LedgerError::io(&self.path)(error),
        })?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// The next record; its bytes are in the running sum.
    fn record(&mut self) -> Result<(u8, Vec<u8>), LedgerError> {
        let [tag] = self.take()?;
        let length: [u8; 4] = self.take()?;
        let size = u32::from_le_bytes(length) as usize;
        if size > PAYLOAD_BYTES_MAX {
            return Err(self.bad(format!("a record of {size} bytes")));
        }
        let mut payload = Vec::new();
        // Grows with what is really there, whatever the length says.
        (&mut self.file)
            .take(size as u64)
            .read_to_end(&mut payload)
            .map_err(LedgerError::io(&self.path))?;
        if payload.len() != size {
            return Err(self.bad("the file ends too early"));
        }
        let mut crc = crc32fast::Hasher::new();
        for bytes in [&[tag][..], &length, &payload] {
            crc.update(bytes);
            self.sum.update(bytes);
        }
        let sum = crc.finalize().to_le_bytes();
        let mut found = [0; 4];
        self.fill(&mut found)?;
        if found != sum {
            return Err(self.bad("a record's checksum disagrees"));
        }
        self.offset += size as u64;
        self.sum.update(&sum);
        Ok((tag, payload))
    }

    /// Hands out every record in order, checked; the end of the file is checked last.
    fn read(
        mut self,
        mut each: impl FnMut(Record) -> Result<(), LedgerError>,
    ) -> Result<BackupSummary, LedgerError> {
        let magic: [u8; 8] = self.take()?;
        if magic != *MAGIC {
            return Err(self.bad("it does not begin as a Banyan backup does"));
        }
        let [version, kind] = self.take()?;
        if version != VERSION {
            return Err(self.bad(format!("version {version}; this program reads {VERSION}")));
        }
        let kind_is = match kind {
            1 => BackupKind::Full,
            2 => BackupKind::Identity,
            _ => return Err(self.bad(format!("kind {kind} is neither full nor identity"))),
        };
        self.sum.update(&magic);
        self.sum.update(&[version, kind]);
        let (tag, payload) = self.record()?;
        let mut fields = Fields(&payload);
        let (Some(store_id), Some(incarnation), Some(made_at), true) =
            (fields.take(), fields.take(), fields.take(), tag == STORE)
        else {
            return Err(self.bad("the first record does not name a store"));
        };
        let identity = StoreIdentity { store_id, incarnation: u32::from_le_bytes(incarnation) };
        let mut summary = BackupSummary {
            kind: kind_is,
            identity,
            made_at: Millis(i64::from_le_bytes(made_at)),
            members: Vec::new(),
            rows: 0,
            last_position: 0,
            last_act_at: None,
            bytes: 0,
        };
        let mut records = 1;
        let mut chain = super::chain::genesis(&store_id);
        let mut open = CommitSum::with_capacity(0);
        let mut first = 1;
        let mut received_at = Millis(i64::MIN);
        loop {
            let before = finish(self.sum.clone());
            let (tag, payload) = self.record()?;
            let mut fields = Fields(&payload);
            match tag {
                MEMBER if summary.members.len() < MEMBERS_MAX => {
                    let member =
                        fields.member().ok_or_else(|| self.bad("a member that cannot be read"))?;
                    check_member(&member.name, member.bytes.len())?;
                    summary.members.push(member.name.clone());
                    each(Record::Member(member))?;
                }
                ROW => {
                    let row = fields.row().ok_or_else(|| self.bad("a row that cannot be read"))?;
                    let in_order = match kind_is {
                        BackupKind::Full => row.position == summary.last_position + 1,
                        BackupKind::Identity => {
                            row.position > summary.last_position && row.kind == RowKind::Act
                        }
                    };
                    if !in_order || row.received_at < received_at {
                        return Err(self.bad(format!("position {} is out of order", row.position)));
                    }
                    if kind_is == BackupKind::Full {
                        if row.position - first >= COMMIT_ROWS_MAX as u64 {
                            return Err(self.bad("a commit of too many rows"));
                        }
                        open.add(row.as_ref());
                    }
                    received_at = row.received_at;
                    summary.last_position = row.position;
                    summary.rows += 1;
                    if row.kind == RowKind::Act {
                        summary.last_act_at = Some(row.received_at);
                    }
                    each(Record::Row(row))?;
                }
                COMMIT if kind_is == BackupKind::Full => {
                    let (Some(last), Some(hash)) = (fields.take(), fields.take::<32>()) else {
                        return Err(self.bad("a commit that cannot be read"));
                    };
                    let last = u64::from_le_bytes(last);
                    let expected: Hash = open.hash(&chain, first);
                    if last != summary.last_position || last < first || hash != expected {
                        return Err(self.bad(format!("the chain disagrees at position {last}")));
                    }
                    chain = hash;
                    first = last + 1;
                    open = CommitSum::with_capacity(0);
                    each(Record::Commit)?;
                }
                END => {
                    let (Some(count), Some(hash)) = (fields.take(), fields.take::<32>()) else {
                        return Err(self.bad("an end that cannot be read"));
                    };
                    if u64::from_le_bytes(count) != records || hash != before {
                        return Err(self.bad("the sum over the whole file disagrees"));
                    }
                    if kind_is == BackupKind::Full && first != summary.last_position + 1 {
                        return Err(self.bad("rows without their commit"));
                    }
                    if self.file.read(&mut [0]).map_err(LedgerError::io(&self.path))? != 0 {
                        return Err(self.bad("something follows the end"));
                    }
                    summary.bytes = self.offset;
                    return Ok(summary);
                }
                _ => return Err(self.bad(format!("a record of kind {tag} is not expected here"))),
            }
            records += 1;
        }
    }
}

/// Reads a payload field by field.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn slice(&mut self, length: usize) -> Option<&[u8]> {
        let (field, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(field)
    }

    fn member(&mut self) -> Option<Member> {
        let length = u16::from_le_bytes(self.take()?);
        let name = String::from_utf8(self.slice(length.into())?.to_vec()).ok()?;
        Some(Member { name, bytes: self.0.to_vec() })
    }

    fn row(&mut self) -> Option<Row> {
        if self.0.len() > ROW_FIXED + ROW_BYTES_MAX + REFUSED_BYTES_MAX {
            return None;
        }
        let position = u64::from_le_bytes(self.take()?);
        let received_at = Millis(i64::from_le_bytes(self.take()?));
        let [kind] = self.take()?;
        let refused = u32::from_le_bytes(self.take()?) as usize;
        Some(Row {
            position,
            received_at,
            kind: RowKind::from_code(kind)?,
            refused: self.slice(refused)?.to_vec(),
            bytes: self.0.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADE_OF: StoreIdentity = StoreIdentity { store_id: [3; 16], incarnation: 1 };

    fn begin(path: &Path) -> BackupWriter {
        BackupWriter::begin(path, BackupKind::Identity, MADE_OF, &[], Millis(0)).unwrap()
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn two_runs_to_one_file_both_end_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.bak");
        let (one, two) = (begin(&file), begin(&file));
        assert_eq!(names(dir.path()), ["a.bak.part-1", "a.bak.part-2"]);
        one.end().unwrap();
        check_backup(&file).unwrap();
        two.end().unwrap();
        check_backup(&file).unwrap();
        assert_eq!(names(dir.path()), ["a.bak"]);
    }

    #[test]
    fn what_does_not_end_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.bak");
        drop(begin(&file));
        assert!(names(dir.path()).is_empty());
        // Its place is taken: what cannot be put there does not stay.
        fs::create_dir(&file).unwrap();
        assert!(begin(&file).end().is_err());
        assert_eq!(names(dir.path()), ["a.bak"]);
        fs::remove_dir(&file).unwrap();
        // A run that was killed could not remove its part: the next one does.
        fs::write(dir.path().join("a.bak.part-2"), "half").unwrap();
        let other = begin(&file);
        assert_eq!(names(dir.path()), ["a.bak.part-1"]);
        begin(&file).end().unwrap();
        assert_eq!(names(dir.path()), ["a.bak", "a.bak.part-1"], "not that of one that goes on");
        other.end().unwrap();
    }
}
