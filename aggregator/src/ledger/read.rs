//! Reading committed rows, on a connection of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use banyan_shared::ids::{Millis, Position};
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::chain::{ChainError, ChainReport, Hash, genesis, walk};
use super::error::LedgerError;
use super::{Head, Row, RowKind, RowRef, StoreIdentity};

/// Rows read in one go; between two goes the log may be checkpointed.
const READ_ROWS_MAX: usize = 4096;
/// How long SQLite waits for another connection's lock.
pub(super) const BUSY_WAIT: Duration = Duration::from_secs(10);

/// A reader of committed rows. It never waits for the writer, nor the writer for it.
///
/// It sees every commit answered before a call began. Make one for each thread.
pub struct LedgerReader {
    path: PathBuf,
    connection: Connection,
    identity: StoreIdentity,
}

impl LedgerReader {
    /// Opens a reader on the ledger in `dir`, also while a service writes it.
    ///
    /// # Errors
    /// [`LedgerError::Absent`], [`LedgerError::NotALedger`], [`LedgerError::Newer`], or what the disk says.
    pub fn open(dir: &Path) -> Result<Self, LedgerError> {
        let path = dir.join("ledger.db");
        if !path.is_file() {
            return Err(LedgerError::Absent { path });
        }
        let sqlite = LedgerError::sqlite(&path);
        let connection = Connection::open_with_flags(
            &path,
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )
        .map_err(&sqlite)?;
        connection.busy_timeout(BUSY_WAIT).map_err(&sqlite)?;
        super::store::check_format(&connection, &path)?;
        let identity = identity(&connection, &path)?;
        drop(sqlite);
        Ok(Self { path, connection, identity })
    }

    /// Another reader of the same ledger.
    ///
    /// # Errors
    /// As [`LedgerReader::open`].
    pub fn another(&self) -> Result<Self, LedgerError> {
        Self::open(super::disk::dir_of(&self.path))
    }

    /// Which ledger this is.
    pub fn identity(&self) -> StoreIdentity {
        self.identity
    }

    /// The end of the ledger now.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn head(&self) -> Result<Head, LedgerError> {
        head(&self.connection, &self.path)
    }

    /// The chain's hash after the commit that ends at `position`; none where no commit ends.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn hash_at(&self, position: Position) -> Result<Option<Hash>, LedgerError> {
        let found = self
            .connection
            .query_row("SELECT hash FROM chain WHERE position = ?1", [position], |row| {
                row.get::<_, Vec<u8>>(0)
            })
            .optional()
            .map_err(LedgerError::sqlite(&self.path))?;
        found.map(|hash| sized(&self.path, "chain.hash", hash)).transpose()
    }

    /// Hands out every row from `from` on, in order, up to the end; returns the last position read
    /// (`from - 1` if there was none).
    ///
    /// # Errors
    /// [`LedgerError::Gap`] where a position is missing, what SQLite says, or what `each` returned.
    pub fn read_from<E: From<LedgerError>>(
        &self,
        from: Position,
        mut each: impl FnMut(RowRef<'_>) -> Result<(), E>,
    ) -> Result<Position, E> {
        let sqlite = LedgerError::sqlite(&self.path);
        let mut last = from.max(1) - 1;
        let mut select = self
            .connection
            .prepare_cached(
                "SELECT position, received_at, kind, refused, bytes FROM batch
                 WHERE position > ?1 ORDER BY position LIMIT ?2",
            )
            .map_err(&sqlite)?;
        loop {
            let end = self.head()?.position;
            let begun = last;
            let mut rows = select.query(rusqlite::params![last, READ_ROWS_MAX]).map_err(&sqlite)?;
            while let Some(row) = rows.next().map_err(&sqlite)? {
                let row = row_ref(row, &self.path)?;
                if row.position != last + 1 {
                    return Err(self.gap(last + 1).into());
                }
                each(row)?;
                last = row.position;
            }
            if last < end && last == begun {
                return Err(self.gap(last + 1).into());
            }
            if last >= end {
                return Ok(last);
            }
        }
    }

    /// The row at `position`, if it is committed.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn row(&self, position: Position) -> Result<Option<Row>, LedgerError> {
        let sqlite = LedgerError::sqlite(&self.path);
        let mut select = self
            .connection
            .prepare_cached(
                "SELECT position, received_at, kind, refused, bytes FROM batch WHERE position = ?1",
            )
            .map_err(&sqlite)?;
        let mut rows = select.query([position]).map_err(&sqlite)?;
        match rows.next().map_err(&sqlite)? {
            Some(row) => Ok(Some(row_ref(row, &self.path)?.to_row())),
            None => Ok(None),
        }
    }

    /// Every act, in order.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn acts(&self) -> Result<Vec<Row>, LedgerError> {
        let mut acts = Vec::new();
        self.each_act(|row| {
            acts.push(row.to_row());
            Ok(())
        })?;
        Ok(acts)
    }

    /// Hands out every act, in order, without holding them all.
    ///
    /// # Errors
    /// What SQLite says, or what `each` returned.
    pub fn each_act(
        &self,
        each: impl FnMut(RowRef<'_>) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        each_act(&self.connection, &self.path, each)
    }

    /// Checks the chain from the commit that holds `from` through the present end.
    ///
    /// What stands before `from` is believed. `from` 1 checks everything.
    ///
    /// # Errors
    /// The first position that disagrees.
    pub fn verify_chain(&self, from: Position) -> Result<ChainReport, ChainError> {
        let (start, head) = self.span(from)?;
        walk(&self.connection, &self.path, start, head, |_| Ok::<_, ChainError>(()))
    }

    /// Checks the chain from where the last remembered check ended.
    ///
    /// # Errors
    /// The first position that disagrees; also when the commit remembered is no longer the same.
    pub fn verify_new(&self) -> Result<ChainReport, ChainError> {
        let Some((position, hash)) = self.verified()? else {
            return self.verify_chain(1);
        };
        let (start, head) = self.span(position + 1)?;
        if start.position != position || start.hash != hash {
            return Err(ChainError::Commit { first: position, last: position });
        }
        walk(&self.connection, &self.path, start, head, |_| Ok::<_, ChainError>(()))
    }

    /// The last position a check remembered, and the chain's hash there.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn verified(&self) -> Result<Option<(Position, Hash)>, LedgerError> {
        verified(&self.connection, &self.path)
    }

    /// Hands out every commit, checked, in order, through the present end.
    pub(super) fn each_commit(
        &self,
        each: impl FnMut(super::chain::Commit<'_>) -> Result<(), LedgerError>,
    ) -> Result<ChainReport, LedgerError> {
        let (start, head) = self.span(1)?;
        walk(&self.connection, &self.path, start, head, each)
    }

    fn span(&self, from: Position) -> Result<(Head, Head), LedgerError> {
        let head = self.head()?;
        let start = commit_before(&self.connection, &self.path, self.identity, from)?;
        Ok((start, head))
    }

    fn gap(&self, position: Position) -> LedgerError {
        LedgerError::Gap { path: self.path.clone(), position }
    }
}

/// The end of the last commit wholly before `from`.
pub(super) fn commit_before(
    connection: &Connection,
    path: &Path,
    identity: StoreIdentity,
    from: Position,
) -> Result<Head, LedgerError> {
    let found = connection
        .query_row(
            "SELECT position, hash, (SELECT received_at FROM batch b WHERE b.position = c.position)
             FROM chain c WHERE position < ?1 ORDER BY position DESC LIMIT 1",
            [from],
            |row| Ok((row.get::<_, Position>(0)?, row.get::<_, Vec<u8>>(1)?, row.get(2)?)),
        )
        .optional()
        .map_err(LedgerError::sqlite(path))?;
    match found {
        None => Ok(Head {
            position: 0,
            hash: genesis(&identity.store_id),
            received_at: Millis(i64::MIN),
        }),
        Some((position, hash, received_at)) => Ok(Head {
            position,
            hash: sized(path, "chain.hash", hash)?,
            received_at: Millis(received_at),
        }),
    }
}

pub(super) fn each_act(
    connection: &Connection,
    path: &Path,
    mut each: impl FnMut(RowRef<'_>) -> Result<(), LedgerError>,
) -> Result<(), LedgerError> {
    let sqlite = LedgerError::sqlite(path);
    let mut select = connection
        .prepare(
            "SELECT act.position, received_at, kind, refused, bytes
             FROM act LEFT JOIN batch ON batch.position = act.position ORDER BY act.position",
        )
        .map_err(&sqlite)?;
    let mut rows = select.query([]).map_err(&sqlite)?;
    while let Some(row) = rows.next().map_err(&sqlite)? {
        each(row_ref(row, path)?)?;
    }
    Ok(())
}

fn row_ref<'a>(row: &'a rusqlite::Row<'_>, path: &Path) -> Result<RowRef<'a>, LedgerError> {
    let sqlite = LedgerError::sqlite(path);
    let position: Position = row.get(0).map_err(&sqlite)?;
    let unlike = |column: &str| {
        LedgerError::damaged(path, format!("position {position}: {column} has no possible value"))
    };
    let blob = |index: usize, column: &str| {
        row.get_ref(index).ok().and_then(|value| value.as_blob().ok()).ok_or_else(|| unlike(column))
    };
    Ok(RowRef {
        position,
        received_at: Millis(row.get(1).map_err(|_| unlike("received_at"))?),
        kind: row.get(2).ok().and_then(RowKind::from_code).ok_or_else(|| unlike("kind"))?,
        refused: blob(3, "refused")?,
        bytes: blob(4, "bytes")?,
    })
}

pub(super) fn head(connection: &Connection, path: &Path) -> Result<Head, LedgerError> {
    let (position, hash, received_at) = connection
        .prepare_cached("SELECT position, hash, received_at FROM head")
        .and_then(|mut select| {
            select.query_row([], |row| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?, row.get(2)?)))
        })
        .map_err(LedgerError::sqlite(path))?;
    Ok(Head { position, hash: sized(path, "head.hash", hash)?, received_at: Millis(received_at) })
}

pub(super) fn identity(connection: &Connection, path: &Path) -> Result<StoreIdentity, LedgerError> {
    let (store_id, incarnation) = connection
        .query_row("SELECT store_id, incarnation FROM head", [], |row| {
            Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?))
        })
        .map_err(LedgerError::sqlite(path))?;
    Ok(StoreIdentity { store_id: sized(path, "head.store_id", store_id)?, incarnation })
}

pub(super) fn verified(
    connection: &Connection,
    path: &Path,
) -> Result<Option<(Position, Hash)>, LedgerError> {
    let found = connection
        .query_row("SELECT position, hash FROM verified", [], |row| {
            Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?))
        })
        .optional()
        .map_err(LedgerError::sqlite(path))?;
    found.map(|(position, hash)| Ok((position, sized(path, "verified.hash", hash)?))).transpose()
}

fn sized<const N: usize>(path: &Path, what: &str, bytes: Vec<u8>) -> Result<[u8; N], LedgerError> {
    <[u8; N]>::try_from(bytes).map_err(|bytes| {
        LedgerError::damaged(path, format!("{what} has {} bytes, not {N}", bytes.len()))
    })
}
