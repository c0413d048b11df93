//! Small files that survive a power cut: each is written beside its place, synced, then moved there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a small file that another program holds is waited for.
const HELD_WAIT: Duration = Duration::from_secs(1);
/// How often is looked whether it has let go.
const HELD_POLL: Duration = Duration::from_millis(50);
/// How Windows calls a file that another program has open: ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION.
const HELD: &[i32] = if cfg!(windows) { &[32, 33] } else { &[] };

/// Whether another program, such as a virus scanner, has the file open, most likely for a moment only.
pub(crate) fn is_held(error: &io::Error) -> bool {
    // For a move or a removal Windows calls that a denial.
    let denied = cfg!(windows) && error.kind() == io::ErrorKind::PermissionDenied;
    denied || error.raw_os_error().is_some_and(|code| HELD.contains(&code))
}

/// Does `work` again for as long as its error `passes`, but no longer than `wait`.
///
/// # Errors
/// The last one.
pub(crate) fn patiently<T>(
    wait: Duration,
    passes: impl Fn(&io::Error) -> bool,
    mut work: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    let started = Instant::now();
    loop {
        match work() {
            Err(error) if passes(&error) && started.elapsed() < wait => {
                std::thread::sleep(HELD_POLL.min(wait));
            }
            result => return result,
        }
    }
}

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
    let mut file = patiently(HELD_WAIT, is_held, || options.open(&beside))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    put(&beside, path)?;
    sync_directory(directory)
}

/// Moves a file to its place, of which another program may have either open for a moment.
pub(crate) fn put(beside: &Path, path: &Path) -> io::Result<()> {
    patiently(HELD_WAIT, is_held, || fs::rename(beside, path))
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
    patiently(HELD_WAIT, is_held, || read_now(path, max))
}

fn read_now(path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_waited_for_and_nothing_else() {
        let mut left = 3;
        let mut held = |kind: io::ErrorKind| {
            left -= 1;
            if left > 0 { Err(io::Error::from(kind)) } else { Ok(left) }
        };
        let passes = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        let wait = Duration::from_secs(3600);
        let other = patiently(wait, passes, || held(io::ErrorKind::NotFound));
        assert_eq!(other.unwrap_err().kind(), io::ErrorKind::NotFound, "at once");
        assert_eq!(patiently(wait, passes, || held(io::ErrorKind::WouldBlock)).unwrap(), 0);
        let mut tried = 0;
        let never = patiently(Duration::from_millis(1), passes, || {
            tried += 1;
            Err::<(), _>(io::Error::from(io::ErrorKind::WouldBlock))
        });
        assert_eq!(never.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(tried > 1, "and once more before it is given up");
    }
}
