//! What can go wrong with a ledger, said so that a person can act on it.

use std::io;
use std::path::{Path, PathBuf};

use banyan_shared::ids::Position;

use super::chain::ChainError;

/// Why the ledger could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// SQLite reported an error.
    #[error("{path}: {source}")]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The disk is full; nothing of the commit was kept.
    #[error("{path}: the disk is full; free space on it, the ledger goes on by itself")]
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// Another process has this ledger open.
    #[error("{path}: another process has this ledger open; stop it, or ask the running service")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// There is a ledger already.
    #[error("{path}: there is a ledger already; choose another directory")]
    Exists {
        /// The database found.
        path: PathBuf,
    },
    /// There is no ledger here.
    #[error("{path}: no ledger here; run init, or restore a backup")]
    Absent {
        /// The database looked for.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("{path}: not a Banyan ledger ({reason})")]
    NotALedger {
        /// The file.
        path: PathBuf,
        /// What gave it away.
        reason: String,
    },
    /// A newer program wrote the file.
    #[error(
        "{path}: format {found} is newer than this program's {known}; install the newer program"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest format known here.
        known: i64,
    },
    /// The file contradicts itself.
    #[error(
        "{path}: damaged: {reason}; restore a backup into another directory, agents send what it lacks"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not agree.
        reason: String,
    },
    /// A row that must be there is not.
    #[error("{path}: position {position} is missing; restore a backup into another directory")]
    Gap {
        /// The database.
        path: PathBuf,
        /// The first position missing.
        position: Position,
    },
    /// Something given is above its limit.
    #[error("{what} of {found} is above the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// The name of a backup's member is not a plain relative path.
    #[error(
        "member {name:?}: a name is 1 to 128 of A-Z a-z 0-9 . _ - / with no part empty or of dots only"
    )]
    MemberName {
        /// The name given.
        name: String,
    },
    /// The directory to restore into holds something.
    #[error("{path}: not empty ({found}); a restore goes only into an empty directory")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// A name found in it.
        found: String,
    },
    /// A backup file cannot be used.
    #[error("{path}: not a usable backup: {reason} (byte {offset}); use another copy")]
    Backup {
        /// The backup file.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
        /// What does not agree.
        reason: String,
    },
    /// The hash chain does not hold.
    #[error(transparent)]
    Chain(Box<ChainError>),
    /// The thread that writes could not be started or has ended without giving the ledger back.
    #[error("the ledger's writer is gone ({reason}); start the service again")]
    WriterGone {
        /// How it went.
        reason: String,
    },
}

impl LedgerError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path: path.to_owned() }
            }
            _ => Self::Io { path: path.to_owned(), source },
        }
    }

    pub(super) fn sqlite(path: &Path) -> impl Fn(rusqlite::Error) -> Self {
        move |source| match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::DiskFull { path: path.to_owned() },
            Some(rusqlite::ErrorCode::NotADatabase) => {
                Self::NotALedger { path: path.to_owned(), reason: "not an SQLite file".to_owned() }
            }
            Some(rusqlite::ErrorCode::DatabaseCorrupt) => {
                Self::Damaged { path: path.to_owned(), reason: source.to_string() }
            }
            _ => Self::Sqlite { path: path.to_owned(), source },
        }
    }

    pub(super) fn damaged(path: &Path, reason: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), reason: reason.into() }
    }
}

impl From<ChainError> for LedgerError {
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::Ledger(error) => error,
            error => Self::Chain(Box::new(error)),
        }
    }
}
