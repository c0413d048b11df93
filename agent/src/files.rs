//! Small files that survive a power cut: each is written beside its place, synced, then moved there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// How often a move that was denied is tried again, and after how long.
#[cfg(windows)]
const RENAMES_MAX: u32 = 20;
#[cfg(windows)]
const RENAME_WAIT: std::time::Duration = std::time::Duration::from_millis(50);

/// Writes `bytes` to `path` so that after a crash either the old or the whole new content is there.
/// A secret is readable by its owner only (on Windows the user's own directory sees to that).
///
/// # Errors
/// What the system says.
pub(crate) fn write(path: &Path, bytes: &[u8], secret: bool) -> io::Result<()> {
    // A bare name has the empty path for its parent, which no call takes.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = directory.join(name);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    if secret {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    #[cfg(not(unix))]
    let _ = secret;
    let mut file = options.open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    put(&beside, path)?;
    sync_directory(directory)
}

/// Moves a file to its place. A virus scanner may have either open for a moment, which Windows calls a
/// denial.
fn put(beside: &Path, path: &Path) -> io::Result<()> {
    #[cfg(windows)]
    for _ in 0..RENAMES_MAX {
        match fs::rename(beside, path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                std::thread::sleep(RENAME_WAIT);
            }
            result => return result,
        }
    }
    fs::rename(beside, path)
}

/// Makes the names in a directory durable; Windows does so by itself.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(directory)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = (directory, File::open::<&Path>);
    Ok(())
}

/// The file's bytes, none if there is no such file; refuses one above `max` bytes.
///
/// # Errors
/// What the system says, or [`io::ErrorKind::FileTooLarge`].
pub(crate) fn read(path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    match fs::metadata(path) {
        Ok(data) if data.len() > max => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("the file has {} bytes, at most {max} are read", data.len()),
        )),
        Ok(_) => fs::read(path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
