//! The hash chain over commits: pure sums, and the walk that checks them.
//!
//! `leaf(row) = SHA-256("banyan ledger row 1\0", position, received_at, kind, len(refused), refused, len(bytes), bytes)`
//! `hash(0) = SHA-256("banyan ledger genesis 1\0", store id)`
//! `hash(n) = SHA-256("banyan ledger commit 1\0", hash(n-1), first position, number of rows, leaf…)`
//!
//! Numbers are 8 bytes, big-endian; the kind is one byte. The first [`MARK_BYTES`] bytes of each leaf stand
//! beside the commit's hash, so that a change can be traced to one row of a commit of thousands.

use banyan_shared::ids::{Millis, Position};
use ring::digest::{Context, SHA256};
use rusqlite::{Connection, OptionalExtension, params};

use super::error::LedgerError;
use super::{Head, Row, RowKind, RowRef};

/// A SHA-256 sum.
pub type Hash = [u8; 32];

/// Bytes kept of each row's leaf.
pub(super) const MARK_BYTES: usize = 4;

/// Why the chain does not hold. The first position that disagrees is named.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// A row is not what was committed.
    #[error("position {position}: {reason}; restore a backup into another directory")]
    Row {
        /// The row.
        position: Position,
        /// What disagrees.
        reason: &'static str,
    },
    /// The rows agree with their marks, the commit with neither its hash nor its predecessor.
    #[error(
        "positions {first} to {last}: the hash of their commit disagrees; restore a backup into another directory"
    )]
    Commit {
        /// First position of the commit.
        first: Position,
        /// Last position of the commit.
        last: Position,
    },
    /// The end of the ledger is not where its head says.
    #[error(
        "position {position}: the ledger's head disagrees with its chain; restore a backup into another directory"
    )]
    Head {
        /// The position the head names.
        position: Position,
    },
    /// The ledger could not be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl ChainError {
    /// The first position that disagrees; none when the ledger could not be read.
    pub fn position(&self) -> Option<Position> {
        match self {
            Self::Row { position, .. } | Self::Head { position } => Some(*position),
            Self::Commit { first, .. } => Some(*first),
            Self::Ledger(LedgerError::Gap { position, .. }) => Some(*position),
            Self::Ledger(_) => None,
        }
    }
}

/// What a check of the chain went through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainReport {
    /// First position checked; a check begins with a commit.
    pub from: Position,
    /// Last position checked.
    pub through: Position,
    /// Commits checked.
    pub commits: u64,
    /// The chain's hash at `through`.
    pub hash: Hash,
}

pub(super) fn genesis(store_id: &[u8; 16]) -> Hash {
    let mut sum = Context::new(&SHA256);
    sum.update(b"banyan ledger genesis 1\0");
    sum.update(store_id);
    finish(sum)
}

pub(super) fn leaf(row: RowRef<'_>) -> Hash {
    let mut sum = Context::new(&SHA256);
    sum.update(b"banyan ledger row 1\0");
    sum.update(&row.position.to_be_bytes());
    sum.update(&row.received_at.0.to_be_bytes());
    sum.update(&[row.kind.code()]);
    for part in [row.refused, row.bytes] {
        sum.update(&(part.len() as u64).to_be_bytes());
        sum.update(part);
    }
    finish(sum)
}

/// Sums a commit row by row.
pub(super) struct CommitSum {
    leaves: Vec<u8>,
    pub(super) marks: Vec<u8>,
}

impl CommitSum {
    pub(super) fn with_capacity(rows: usize) -> Self {
        Self { leaves: Vec::with_capacity(rows * 32), marks: Vec::with_capacity(rows * MARK_BYTES) }
    }

    pub(super) fn add(&mut self, row: RowRef<'_>) {
        let leaf = leaf(row);
        self.leaves.extend_from_slice(&leaf);
        self.marks.extend_from_slice(&leaf[..MARK_BYTES]);
    }

    pub(super) fn hash(&self, previous: &Hash, first: Position) -> Hash {
        let mut sum = Context::new(&SHA256);
        sum.update(b"banyan ledger commit 1\0");
        sum.update(previous);
        sum.update(&first.to_be_bytes());
        sum.update(&(self.leaves.len() as u64 / 32).to_be_bytes());
        sum.update(&self.leaves);
        finish(sum)
    }
}

pub(super) fn finish(sum: Context) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(sum.finish().as_ref());
    hash
}

/// A commit as the walk hands it out, checked.
pub(super) struct Commit<'a> {
    pub(super) rows: &'a [Row],
    pub(super) hash: Hash,
    pub(super) last: Position,
}

/// Reads and checks every commit after `start` through `head`, in order.
///
/// Each commit is one short read, so that a long walk never keeps the log from being checkpointed.
pub(super) fn walk<E: From<ChainError>>(
    connection: &Connection,
    path: &std::path::Path,
    start: Head,
    head: Head,
    mut each: impl FnMut(Commit<'_>) -> Result<(), E>,
) -> Result<ChainReport, E> {
    let sqlite = LedgerError::sqlite(path);
    let lift = |error: rusqlite::Error| E::from(ChainError::Ledger(sqlite(error)));
    let mut commits = connection
        .prepare(
            "SELECT position, hash, marks FROM chain WHERE position > ?1 ORDER BY position LIMIT 1",
        )
        .map_err(lift)?;
    let mut rows_of = connection
        .prepare(
            "SELECT position, received_at, kind, refused, bytes FROM batch
             WHERE position > ?1 AND position <= ?2 ORDER BY position",
        )
        .map_err(lift)?;
    let mut acts_of = connection
        .prepare(
            "SELECT position FROM act WHERE position > ?1 AND position <= ?2 ORDER BY position",
        )
        .map_err(lift)?;
    let mut at = start;
    let mut report = ChainReport {
        from: start.position + 1,
        through: start.position,
        commits: 0,
        hash: start.hash,
    };
    let mut rows: Vec<Row> = Vec::new();
    while at.position < head.position {
        let found = commits
            .query_row([at.position], |row| {
                Ok((
                    row.get::<_, Position>(0)?,
                    row.get::<_, Vec<u8>>(1)?,
                    row.get::<_, Vec<u8>>(2)?,
                ))
            })
            .optional()
            .map_err(lift)?;
        let Some((last, hash, marks)) = found else {
            return Err(ChainError::Head { position: head.position }.into());
        };
        let first = at.position + 1;
        rows.clear();
        let mut found = rows_of.query(params![at.position, last]).map_err(lift)?;
        let mut sum = CommitSum::with_capacity(marks.len() / MARK_BYTES);
        let mut acts = Vec::new();
        let mut received_at = at.received_at;
        while let Some(row) = found.next().map_err(lift)? {
            let position: Position = row.get(0).map_err(lift)?;
            let expected = first + rows.len() as u64;
            if position != expected {
                return Err(
                    ChainError::Row { position: expected, reason: "the row is missing" }.into()
                );
            }
            let Some(kind) = RowKind::from_code(row.get(2).unwrap_or(0)) else {
                return Err(ChainError::Row { position, reason: "no such kind of row" }.into());
            };
            let row = Row {
                position,
                received_at: Millis(row.get(1).map_err(lift)?),
                kind,
                refused: row.get(3).map_err(lift)?,
                bytes: row.get(4).map_err(lift)?,
            };
            let nth = rows.len() * MARK_BYTES;
            sum.add(row.as_ref());
            if marks.get(nth..nth + MARK_BYTES) != sum.marks.get(nth..nth + MARK_BYTES) {
                return Err(ChainError::Row {
                    position,
                    reason: "the row is not what was committed",
                }
                .into());
            }
            if row.received_at < received_at {
                return Err(ChainError::Row {
                    position,
                    reason: "received before its predecessor",
                }
                .into());
            }
            received_at = row.received_at;
            if kind == RowKind::Act {
                acts.push(position);
            }
            rows.push(row);
        }
        if first + rows.len() as u64 != last + 1 {
            let position = first + rows.len() as u64;
            return Err(ChainError::Row { position, reason: "the row is missing" }.into());
        }
        if hash[..] != sum.hash(&at.hash, first) || marks != sum.marks {
            return Err(ChainError::Commit { first, last }.into());
        }
        let listed = acts_of
            .query_map(params![at.position, last], |row| row.get::<_, Position>(0))
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(lift)?;
        if listed != acts {
            let position = listed
                .iter()
                .chain(&acts)
                .copied()
                .find(|position| listed.contains(position) != acts.contains(position));
            return Err(ChainError::Row {
                position: position.unwrap_or(first),
                reason: "the list of acts disagrees with the row's kind",
            }
            .into());
        }
        at = Head { position: last, hash: sum.hash(&at.hash, first), received_at };
        report.commits += 1;
        each(Commit { rows: &rows, hash: at.hash, last })?;
    }
    if at.position != head.position || at.hash != head.hash {
        return Err(ChainError::Head { position: head.position }.into());
    }
    report.through = at.position;
    report.hash = at.hash;
    Ok(report)
}
