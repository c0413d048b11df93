//! Files that stay: directories fsynced, one holder of the lock.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::Path;

use super::error::LedgerError;

/// Makes the names in `dir` durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), LedgerError> {
    // Windows has no handle to flush for a directory; NTFS journals its names.
    #[cfg(unix)]
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(LedgerError::io(dir))?;
    #[cfg(not(unix))]
    let _ = dir;
    Ok(())
}

/// Makes `dir`, its missing parents and their names durable.
pub(crate) fn make_dir(dir: &Path) -> Result<(), LedgerError> {
    if !dir.is_dir() {
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            make_dir(parent)?;
        }
        match fs::create_dir(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => made.map_err(LedgerError::io(dir))?,
        }
    }
    sync_dir(dir)?;
    match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => sync_dir(Path::new(".")),
        // The parent may be a directory we may pass through but not read; its names are then not ours to sync.
        Some(parent) if File::open(parent).is_ok() => sync_dir(parent),
        _ => Ok(()),
    }
}

/// The directory a file stands in.
pub(super) fn dir_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes a file that was not there and that only its owner can read: backups carry keys.
pub(super) fn create_private(path: &Path) -> Result<File, LedgerError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(LedgerError::io(path))
}

/// The ledger's lock, held until it is dropped.
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a child process between fork and exec still holds a copy of the handle.
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "the ledger's lock is freed only by closing it");
        }
    }
}

/// Takes the ledger's lock; the system frees it when the process dies.
pub(super) fn lock(path: &Path) -> Result<Lock, LedgerError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(LedgerError::io(path))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(LedgerError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(LedgerError::io(path)(error)),
    }
}
