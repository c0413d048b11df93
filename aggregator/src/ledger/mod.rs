//! The ledger of record: what agents and operators signed, byte for byte, in commit order.
//!
//! Promises:
//! - Positions are 1, 2, 3… without a gap; `received_at` never falls; nothing is ever changed or removed.
//! - What a commit answered is on disk: a power cut straight afterwards loses none of it.
//! - Every commit extends a hash chain; [`LedgerReader::verify_chain`] names the first position that disagrees.
//! - Operators' acts stand in `acts.log` too, in the same commit, so that they survive the ledger.
//! - One process at a time has a ledger open for writing.
//!
//! What the bytes mean is left to others: verification before a row is given here, the cube after.
//!
//! Files in the ledger's directory: `ledger.db` (SQLite, with `-wal` and `-shm` beside it), `ledger.lock`,
//! `acts.log`, perhaps `acts-set-aside-N.log`.
//!
//! Why a commit is durable: the journal is a write-ahead log and `synchronous` is `FULL`, so COMMIT returns
//! only after the log file was fsynced; SQLite fsyncs the directory at the first sync of a log it
//! has just made (`UNIXFILE_DIRSYNC`), and we fsync the directory after making any other file. A checkpoint fsyncs the log before and
//! the database after copying, and rewrites what a failed fsync may have dropped before it reuses the log.

mod acts;
mod backup;
mod chain;
mod disk;
mod error;
mod read;
mod store;
mod writer;

#[cfg(test)]
mod tests;

use std::ops::Range;

use banyan_shared::ids::{Millis, Position};

pub use acts::ActsReport;
pub use backup::{
    BackupKind, BackupSummary, MEMBER_BYTES_MAX, MEMBERS_MAX, Member, Restored, check_backup,
    restore, restore_with,
};
pub use chain::{ChainError, ChainReport, Hash};
pub(crate) use disk::make_dir;
pub use error::LedgerError;
pub use read::LedgerReader;
pub use store::Ledger;
pub use writer::{CommitError, LedgerHandle, LedgerWriter, PendingCommit};

/// Largest content of one row, in bytes: an act that imports a province's registry fits.
pub const ROW_BYTES_MAX: usize = 16 << 20;
/// Largest stored decision of one row, in bytes.
pub const REFUSED_BYTES_MAX: usize = 1 << 20;
/// Most rows of one submission. A submission is never divided over commits.
pub const SUBMISSION_ROWS_MAX: usize = 4096;
/// Most bytes of one submission.
pub const SUBMISSION_BYTES_MAX: usize = 32 << 20;
/// A group commit takes no further submission once it holds this many rows.
pub const GROUP_ROWS_MAX: usize = 4096;
/// A group commit takes no further submission once it holds this many bytes.
pub const GROUP_BYTES_MAX: usize = 16 << 20;
/// Most submissions waiting for the writer.
pub const QUEUE_SUBMISSIONS_MAX: usize = 8192;
/// Most bytes waiting for the writer or being written.
pub const QUEUE_BYTES_MAX: usize = 96 << 20;

/// Whose signature a row carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKind {
    /// A batch an agent signed.
    Batch,
    /// An act an operator signed: a correction, an approval, a change of organisation…
    Act,
}

impl RowKind {
    /// The number the ledger and its backups store.
    pub const fn code(self) -> u8 {
        match self {
            Self::Batch => 1,
            Self::Act => 2,
        }
    }

    /// The kind stored as `code`.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Batch),
            2 => Some(Self::Act),
            _ => None,
        }
    }
}

/// A row to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRow {
    /// Whose signature it carries.
    pub kind: RowKind,
    /// The stored decision about what in it is refused; empty when nothing is.
    pub refused: Vec<u8>,
    /// The signed bytes as received.
    pub bytes: Vec<u8>,
}

impl NewRow {
    /// An agent's batch with nothing refused.
    pub fn batch(bytes: Vec<u8>) -> Self {
        Self { kind: RowKind::Batch, refused: Vec::new(), bytes }
    }

    /// An operator's act.
    pub fn act(bytes: Vec<u8>) -> Self {
        Self { kind: RowKind::Act, refused: Vec::new(), bytes }
    }

    fn weight(&self) -> usize {
        self.bytes.len() + self.refused.len()
    }
}

/// A committed row, borrowed while it is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowRef<'a> {
    /// Where it stands.
    pub position: Position,
    /// When it was committed.
    pub received_at: Millis,
    /// Whose signature it carries.
    pub kind: RowKind,
    /// The stored decision; empty when nothing is refused.
    pub refused: &'a [u8],
    /// The signed bytes.
    pub bytes: &'a [u8],
}

impl RowRef<'_> {
    /// The same row, owned.
    pub fn to_row(self) -> Row {
        Row {
            position: self.position,
            received_at: self.received_at,
            kind: self.kind,
            refused: self.refused.to_vec(),
            bytes: self.bytes.to_vec(),
        }
    }
}

/// A committed row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Where it stands.
    pub position: Position,
    /// When it was committed.
    pub received_at: Millis,
    /// Whose signature it carries.
    pub kind: RowKind,
    /// The stored decision; empty when nothing is refused.
    pub refused: Vec<u8>,
    /// The signed bytes.
    pub bytes: Vec<u8>,
}

impl Row {
    fn as_ref(&self) -> RowRef<'_> {
        RowRef {
            position: self.position,
            received_at: self.received_at,
            kind: self.kind,
            refused: &self.refused,
            bytes: &self.bytes,
        }
    }
}

/// What a commit answered; it is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The positions of the rows, in the order given.
    pub positions: Range<Position>,
    /// The moment of the commit, never before that of an earlier one.
    pub received_at: Millis,
}

/// Which ledger this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreIdentity {
    /// Drawn when the ledger was created; kept by backups.
    pub store_id: [u8; 16],
    /// Raised by every restore: a ledger with another number may show less than before.
    pub incarnation: u32,
}

/// The end of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The last position; 0 when nothing is committed.
    pub position: Position,
    /// The chain's hash after the last commit.
    pub hash: Hash,
    /// The moment of the last commit; the earliest moment there is when nothing is committed.
    pub received_at: Millis,
}
