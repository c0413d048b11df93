//! The open ledger: creating, opening, committing.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use banyan_shared::ids::{Millis, Position};
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};

use super::acts::{ActsLog, ActsReport};
use super::chain::{ChainError, ChainReport, CommitSum, Hash, genesis, walk};
use super::disk::{Lock, lock, make_dir, sync_dir};
use super::error::LedgerError;
use super::read::{BUSY_WAIT, LedgerReader, commit_before, head, identity};
use super::{
    Committed, GROUP_BYTES_MAX, Head, NewRow, REFUSED_BYTES_MAX, ROW_BYTES_MAX, RowKind, RowRef,
    SUBMISSION_BYTES_MAX, SUBMISSION_ROWS_MAX, StoreIdentity,
};

/// `application_id` of a ledger: "BNYL".
const APPLICATION_ID: i64 = 0x424e_594c;
/// `user_version`: the format of the tables below.
const FORMAT: i64 = 1;
/// Lone reports are some 150 bytes, batches of thirty some 1,000: pages of this size fill well with both.
const PAGE_BYTES: u32 = 16_384;
/// Pages in the write-ahead log before it is copied into the database.
const CHECKPOINT_PAGES: u32 = 2_000;
/// The write-ahead log is cut back to this size after a checkpoint.
const LOG_BYTES_KEPT: i64 = 64 << 20;
/// Page cache of a connection, in KiB.
const CACHE_KIB: i64 = 16 << 10;
/// A database up to this size is read through at every open; a larger one only at its end.
const QUICK_CHECK_BYTES_MAX: u64 = 64 << 20;

/// `chain.position` is the last position of its commit; `act` lists the positions of acts, `verified` has no row
/// before the first remembered check.
const SCHEMA: &str = "
CREATE TABLE batch (
    position INTEGER PRIMARY KEY, received_at INTEGER NOT NULL, kind INTEGER NOT NULL,
    refused BLOB NOT NULL, bytes BLOB NOT NULL
) STRICT;
CREATE TABLE chain (position INTEGER PRIMARY KEY, hash BLOB NOT NULL, marks BLOB NOT NULL) STRICT;
CREATE TABLE act (position INTEGER PRIMARY KEY) STRICT;
CREATE TABLE head (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1), position INTEGER NOT NULL, hash BLOB NOT NULL,
    received_at INTEGER NOT NULL, store_id BLOB NOT NULL, incarnation INTEGER NOT NULL
) STRICT;
CREATE TABLE verified (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1), position INTEGER NOT NULL, hash BLOB NOT NULL
) STRICT;
";

/// The ledger, open for writing by this process alone.
///
/// A running service gives it to a [`super::LedgerWriter`]; a command without a service uses it directly.
pub struct Ledger {
    // Fields drop in order: the connection closes before the lock is freed.
    connection: Connection,
    acts: ActsLog,
    dir: PathBuf,
    path: PathBuf,
    head: Head,
    identity: StoreIdentity,
    acts_report: ActsReport,
    /// A commit failed: what is on disk must be read again before the next.
    suspect: bool,
    _lock: Lock,
}

impl Ledger {
    /// Makes an empty ledger in `dir` and opens it; `dir` is made if it is missing.
    ///
    /// # Errors
    /// [`LedgerError::Exists`], [`LedgerError::Locked`], or what the disk says.
    pub fn create(dir: &Path, store_id: [u8; 16]) -> Result<Self, LedgerError> {
        Self::build(dir, StoreIdentity { store_id, incarnation: 1 }, |_, head| {
            Ok::<_, LedgerError>(head)
        })
    }

    /// Opens the ledger in `dir`, settles `acts.log` and checks the end of the chain (all of a small ledger).
    ///
    /// # Errors
    /// [`LedgerError::Locked`], [`LedgerError::Absent`], [`LedgerError::NotALedger`], [`LedgerError::Newer`],
    /// [`LedgerError::Damaged`], [`LedgerError::Chain`], or what the disk says.
    pub fn open(dir: &Path) -> Result<Self, LedgerError> {
        let path = dir.join("ledger.db");
        if !path.is_file() {
            return Err(LedgerError::Absent { path });
        }
        let lock = lock(&dir.join("ledger.lock"))?;
        Self::open_locked(dir, lock)
    }

    /// Builds a ledger under another name and puts it in place whole; `fill` commits what it begins with, and
    /// does what has to be done before there is a ledger.
    pub(super) fn build<E: From<LedgerError>>(
        dir: &Path,
        identity: StoreIdentity,
        fill: impl FnOnce(&mut Connection, Head) -> Result<Head, E>,
    ) -> Result<Self, E> {
        make_dir(dir)?;
        let lock = lock(&dir.join("ledger.lock"))?;
        let path = dir.join("ledger.db");
        if path.exists() {
            return Err(LedgerError::Exists { path }.into());
        }
        let unfinished = dir.join(UNFINISHED);
        if unfinished.exists() {
            fs::remove_file(&unfinished).map_err(LedgerError::io(&unfinished))?;
        }
        let sqlite = LedgerError::sqlite(&unfinished);
        let start =
            Head { position: 0, hash: genesis(&identity.store_id), received_at: Millis(i64::MIN) };
        let mut connection = Connection::open(&unfinished).map_err(&sqlite)?;
        // Nobody opens the file under this name: it is synced once, when it is whole.
        connection
            .execute_batch(&format!(
                "PRAGMA page_size = {PAGE_BYTES}; PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF;
                 BEGIN; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; {SCHEMA} COMMIT;"
            ))
            .map_err(&sqlite)?;
        connection
            .execute(
                "INSERT INTO head VALUES (1, 0, ?1, ?2, ?3, ?4)",
                params![
                    &start.hash[..],
                    start.received_at.0,
                    &identity.store_id[..],
                    identity.incarnation
                ],
            )
            .map_err(&sqlite)?;
        fill(&mut connection, start)?;
        connection.close().map_err(|(_, error)| sqlite(error))?;
        File::options()
            .write(true)
            .open(&unfinished)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&unfinished, &path))
            .map_err(LedgerError::io(&path))?;
        sync_dir(dir)?;
        Ok(Self::open_locked(dir, lock)?)
    }

    fn open_locked(dir: &Path, lock: Lock) -> Result<Self, LedgerError> {
        let path = dir.join("ledger.db");
        let (connection, identity, head) = connect(&path)?;
        // The log's own name: SQLite has made it by the first read of a ledger in WAL mode.
        sync_dir(dir)?;
        let (acts, acts_report) = ActsLog::open(dir, &connection)?;
        if acts_report != ActsReport::default() {
            tracing::info!(report = ?acts_report, "acts.log was made equal to the ledger");
        }
        Ok(Self {
            connection,
            acts,
            dir: dir.to_owned(),
            path,
            head,
            identity,
            acts_report,
            suspect: false,
            _lock: lock,
        })
    }

    /// Which ledger this is.
    pub fn identity(&self) -> StoreIdentity {
        self.identity
    }

    /// The end of the ledger.
    pub fn head(&self) -> Head {
        self.head
    }

    /// The directory the ledger stands in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What opening settled in `acts.log`.
    pub fn acts_report(&self) -> &ActsReport {
        &self.acts_report
    }

    /// A reader on a connection of its own.
    ///
    /// # Errors
    /// As [`LedgerReader::open`].
    pub fn reader(&self) -> Result<LedgerReader, LedgerError> {
        LedgerReader::open(&self.dir)
    }

    /// Commits `rows` together, in order, at `now` or the moment of the last commit, whichever is later.
    ///
    /// When it returns, the rows are on disk. No rows: nothing is written. After an error nothing of
    /// `rows` counts as committed, and the next call first reads again what is on disk.
    ///
    /// # Errors
    /// [`LedgerError::TooLarge`], [`LedgerError::DiskFull`], or what the disk says.
    pub fn commit_now(&mut self, rows: &[NewRow], now: Millis) -> Result<Committed, LedgerError> {
        check_submission(rows)?;
        self.commit_group(rows.iter(), now)
    }

    /// Commits one or more checked submissions.
    pub(super) fn commit_group<'a>(
        &mut self,
        rows: impl Iterator<Item = &'a NewRow>,
        now: Millis,
    ) -> Result<Committed, LedgerError> {
        if self.suspect {
            self.recover()?;
        }
        let first = self.head.position + 1;
        let received_at = now.max(self.head.received_at);
        let rows: Vec<_> = rows
            .zip(first..)
            .map(|(row, position)| RowRef {
                position,
                received_at,
                kind: row.kind,
                refused: &row.refused,
                bytes: &row.bytes,
            })
            .collect();
        let positions = first..first + rows.len() as u64;
        if !rows.is_empty() {
            self.suspect = true;
            self.head = self.write(&rows)?;
            self.suspect = false;
        }
        Ok(Committed { positions, received_at })
    }

    fn write(&mut self, rows: &[RowRef<'_>]) -> Result<Head, LedgerError> {
        let sqlite = LedgerError::sqlite(&self.path);
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(&sqlite)?;
        let head = insert_commit(&transaction, &self.path, self.head, rows)?;
        let acts = rows.iter().copied().filter(|row| row.kind == RowKind::Act);
        let length = self.acts.append(acts)?;
        if let Err(error) = transaction.commit() {
            self.acts.cut(length)?;
            return Err(sqlite(error));
        }
        Ok(head)
    }

    /// Reads again what is on disk after a commit that failed.
    fn recover(&mut self) -> Result<(), LedgerError> {
        let (connection, identity, head) = connect(&self.path)?;
        let (acts, report) = ActsLog::open(&self.dir, &connection)?;
        tracing::warn!(position = head.position, report = ?report, "the ledger goes on after a failed commit");
        self.connection = connection;
        self.identity = identity;
        self.head = head;
        self.acts = acts;
        self.suspect = false;
        Ok(())
    }

    /// Checks the chain from the commit that holds `from` through the end, and remembers how far it holds.
    ///
    /// # Errors
    /// The first position that disagrees.
    pub fn verify_chain(&mut self, from: Position) -> Result<ChainReport, ChainError> {
        let start = commit_before(&self.connection, &self.path, self.identity, from)?;
        let report =
            walk(&self.connection, &self.path, start, self.head, |_| Ok::<_, ChainError>(()))?;
        self.remember_verified(report.through, report.hash)?;
        Ok(report)
    }

    /// Remembers that the chain holds through `position`; [`LedgerReader::verify_new`] goes on from there.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn remember_verified(&mut self, position: Position, hash: Hash) -> Result<(), LedgerError> {
        self.connection
            .execute(
                "INSERT INTO verified VALUES (1, ?1, ?2) ON CONFLICT (only_row)
                 DO UPDATE SET position = excluded.position, hash = excluded.hash
                 WHERE excluded.position >= verified.position",
                params![position, &hash[..]],
            )
            .map_err(LedgerError::sqlite(&self.path))?;
        Ok(())
    }

    /// Has SQLite read the whole file for damage of its own structures.
    ///
    /// # Errors
    /// [`LedgerError::Damaged`] with what SQLite found.
    pub fn quick_check(&self) -> Result<(), LedgerError> {
        quick_check(&self.connection, &self.path)
    }

    #[cfg(test)]
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    #[cfg(test)]
    pub(super) fn break_acts_log(&mut self) {
        self.acts.make_read_only();
    }
}

/// The name of a ledger still being built.
pub(super) const UNFINISHED: &str = "ledger.db.new";

/// Whether a submission is within the limits.
pub(super) fn check_submission(rows: &[NewRow]) -> Result<(), LedgerError> {
    let too_large = |what, found, limit| Err(LedgerError::TooLarge { what, found, limit });
    if rows.len() > SUBMISSION_ROWS_MAX {
        return too_large("a submission's number of rows", rows.len(), SUBMISSION_ROWS_MAX);
    }
    for row in rows {
        if row.bytes.len() > ROW_BYTES_MAX {
            return too_large("a row's bytes", row.bytes.len(), ROW_BYTES_MAX);
        }
        if row.refused.len() > REFUSED_BYTES_MAX {
            return too_large("a row's refusals", row.refused.len(), REFUSED_BYTES_MAX);
        }
    }
    let weight = rows.iter().map(NewRow::weight).sum();
    if weight > SUBMISSION_BYTES_MAX {
        return too_large("a submission's bytes", weight, SUBMISSION_BYTES_MAX);
    }
    Ok(())
}

/// Writes one commit, `rows` standing after `head` in order, and returns the head it leaves.
pub(super) fn insert_commit(
    transaction: &Transaction<'_>,
    path: &Path,
    head: Head,
    rows: &[RowRef<'_>],
) -> Result<Head, LedgerError> {
    let mut sum = CommitSum::with_capacity(rows.len());
    let mut after = head;
    let mut insert =
        || -> rusqlite::Result<()> {
            let mut batch =
                transaction.prepare_cached("INSERT INTO batch VALUES (?1, ?2, ?3, ?4, ?5)")?;
            let mut act = transaction.prepare_cached("INSERT INTO act VALUES (?1)")?;
            for row in rows {
                batch.execute(params![
                    row.position,
                    row.received_at.0,
                    row.kind.code(),
                    row.refused,
                    row.bytes
                ])?;
                if row.kind == RowKind::Act {
                    act.execute([row.position])?;
                }
                sum.add(*row);
                after.position = row.position;
                after.received_at = row.received_at;
            }
            after.hash = sum.hash(&head.hash, head.position + 1);
            transaction
                .prepare_cached("INSERT INTO chain VALUES (?1, ?2, ?3)")?
                .execute(params![after.position, &after.hash[..], &sum.marks])?;
            transaction
                .prepare_cached("UPDATE head SET position = ?1, hash = ?2, received_at = ?3")?
                .execute(params![after.position, &after.hash[..], after.received_at.0])?;
            Ok(())
        };
    insert().map_err(LedgerError::sqlite(path))?;
    Ok(after)
}

/// Whether the file is a ledger this program reads.
pub(super) fn check_format(connection: &Connection, path: &Path) -> Result<(), LedgerError> {
    let pragma = |name: &str| -> Result<i64, LedgerError> {
        connection
            .pragma_query_value(None, name, |row| row.get(0))
            .map_err(LedgerError::sqlite(path))
    };
    let application = pragma("application_id")?;
    if application != APPLICATION_ID {
        return Err(LedgerError::NotALedger {
            path: path.to_owned(),
            reason: format!("application_id is {application:#x}, not {APPLICATION_ID:#x}"),
        });
    }
    match pragma("user_version")? {
        FORMAT => Ok(()),
        found if found > FORMAT => {
            Err(LedgerError::Newer { path: path.to_owned(), found, known: FORMAT })
        }
        found => Err(LedgerError::NotALedger {
            path: path.to_owned(),
            reason: format!("format {found} was never shipped"),
        }),
    }
}

/// Opens the writing connection and checks the end of the ledger.
fn connect(path: &Path) -> Result<(Connection, StoreIdentity, Head), LedgerError> {
    let sqlite = LedgerError::sqlite(path);
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(&sqlite)?;
    connection.busy_timeout(BUSY_WAIT).map_err(&sqlite)?;
    check_format(&connection, path)?;
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(&sqlite)?;
    if mode != "wal" {
        return Err(LedgerError::damaged(
            path,
            format!("the journal mode stays {mode:?}; put the ledger on a local disk"),
        ));
    }
    connection
        .execute_batch(&format!(
            "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES};
             PRAGMA journal_size_limit = {LOG_BYTES_KEPT}; PRAGMA cache_size = -{CACHE_KIB};"
        ))
        .map_err(&sqlite)?;
    let size = fs::metadata(path).map_err(LedgerError::io(path))?.len();
    if size <= QUICK_CHECK_BYTES_MAX {
        quick_check(&connection, path)?;
    }
    let identity = identity(&connection, path)?;
    let head = head(&connection, path)?;
    check_end(&connection, path, identity, head)?;
    Ok((connection, identity, head))
}

/// Whether nothing stands after the head, and the last commit is whole.
fn check_end(
    connection: &Connection,
    path: &Path,
    identity: StoreIdentity,
    head: Head,
) -> Result<(), LedgerError> {
    let (batch, chain): (Option<Position>, Option<Position>) = connection
        .query_row(
            "SELECT (SELECT max(position) FROM batch), (SELECT max(position) FROM chain)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .map_err(LedgerError::sqlite(path))?;
    for (table, last) in [("batch", batch), ("chain", chain)] {
        let last = last.unwrap_or(0);
        if last != head.position {
            return Err(LedgerError::damaged(
                path,
                format!("{table} ends at position {last}, head at {}", head.position),
            ));
        }
    }
    let start = commit_before(connection, path, identity, head.position)?;
    let mut received_at = start.received_at;
    walk(connection, path, start, head, |commit| {
        received_at = commit.rows.last().map_or(received_at, |row| row.received_at);
        Ok::<_, ChainError>(())
    })?;
    if received_at != head.received_at {
        return Err(LedgerError::damaged(path, "head and last commit name different moments"));
    }
    Ok(())
}

fn quick_check(connection: &Connection, path: &Path) -> Result<(), LedgerError> {
    let found: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(LedgerError::sqlite(path))?;
    if found == "ok" { Ok(()) } else { Err(LedgerError::damaged(path, found)) }
}

/// Whether a group that holds so many rows and bytes takes no more.
pub(super) fn group_is_full(rows: usize, bytes: usize) -> bool {
    rows >= super::GROUP_ROWS_MAX || bytes >= GROUP_BYTES_MAX
}
