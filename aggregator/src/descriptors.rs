//! How many files and connections the system lets this process have open.

/// What a process is assumed to get where the system does not say.
#[cfg(not(unix))]
const ASSUMED: u64 = 16_384;
/// Raising stops here: more than the door holds and everything else needs.
#[cfg(unix)]
const ENOUGH: u64 = 65_536;

/// Raises the limit as far as it goes, and gives it. Many systems start a process with 1,024, which is less than a
/// county's clinics.
///
/// # Errors
/// What the system says.
#[cfg(unix)]
pub fn raise() -> std::io::Result<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(ENOUGH).min(ENOUGH);
    let present = limit.current.unwrap_or(ENOUGH);
    if present >= most {
        return Ok(present);
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum })?;
    Ok(most)
}

/// What a process gets: the system has no limit to be raised.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn raise() -> std::io::Result<u64> {
    Ok(ASSUMED)
}
