//! Passwords as argon2id hashes, computed off the async threads and a few at a time: each takes 19 MiB and
//! some tens of milliseconds, which is the point of it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use argon2::{Algorithm, Argon2, Params, Version};
use data_encoding::BASE64_NOPAD;
use tokio::sync::Semaphore;

use super::Password;
use crate::identity::random;
use crate::service::usage;

/// Fewest characters of a password.
pub(super) const CHARS_MIN: usize = 10;
/// Most bytes of a password.
pub(super) const BYTES_MAX: usize = 1024;
/// Hashes computed at once.
const AT_ONCE: usize = 2;
/// Hashes that may wait for their turn; whoever comes then is told to come again.
const WAITING_MAX: usize = 32;
/// How long one may wait.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Memory in KiB, passes and lanes.
type Cost = (u32, u32, u32);
/// The first recommendation of OWASP.
const COST: Cost = (19_456, 2, 1);
const HASH_BYTES: usize = 32;

/// Where passwords are hashed.
#[derive(Debug)]
pub(super) struct Bench {
    turns: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

/// Refuses what is too short to be one.
pub(super) fn acceptable(password: &str) -> Result<()> {
    let (chars, bytes) = (password.chars().count(), password.len());
    if chars < CHARS_MIN || bytes > BYTES_MAX {
        return Err(usage(format!(
            "密码须至少 {CHARS_MIN} 个字符、至多 {BYTES_MAX} 字节 / a password has at least {CHARS_MIN} characters and at most {BYTES_MAX} bytes"
        )));
    }
    if password.chars().any(char::is_control) {
        return Err(usage(
            "密码不得含控制字符 / a password holds no control characters".to_owned(),
        ));
    }
    Ok(())
}

fn digest(password: &[u8], salt: &[u8], cost: Cost) -> Result<[u8; HASH_BYTES]> {
    let wrong = |error: argon2::Error| anyhow!("argon2: {error}");
    let params = Params::new(cost.0, cost.1, cost.2, Some(HASH_BYTES)).map_err(wrong)?;
    let mut out = [0; HASH_BYTES];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password, salt, &mut out)
        .map_err(wrong)?;
    Ok(out)
}

/// A hash as a PHC string.
fn hash(password: &str) -> Result<String> {
    let salt = random::<16>()?;
    let out = digest(password.as_bytes(), &salt, COST)?;
    let (m, t, p) = COST;
    let (salt, out) = (BASE64_NOPAD.encode(&salt), BASE64_NOPAD.encode(&out));
    Ok(format!("$argon2id$v=19$m={m},t={t},p={p}${salt}${out}"))
}

/// The costs, salt and hash of a PHC string of ours.
fn parts(phc: &str) -> Option<(Cost, Vec<u8>, Vec<u8>)> {
    let mut fields = phc.strip_prefix("$argon2id$v=19$")?.split('$');
    let mut costs = fields.next()?.split(',');
    let mut cost = |name: &str| costs.next()?.strip_prefix(name)?.parse::<u32>().ok();
    let costs = (cost("m=")?, cost("t=")?, cost("p=")?);
    let mut bytes = || BASE64_NOPAD.decode(fields.next()?.as_bytes()).ok();
    Some((costs, bytes()?, bytes()?))
}

/// Whether it reads as a hash of ours.
pub(super) fn is_hash(phc: &str) -> bool {
    parts(phc).is_some_and(|(_, _, hash)| hash.len() == HASH_BYTES)
}

/// Whether `password` has this hash. A user there is not takes as long.
fn verify(password: &str, phc: Option<&str>) -> bool {
    let known = phc.and_then(parts);
    let (cost, salt, want) = known.unwrap_or_else(|| (COST, vec![0; 16], Vec::new()));
    let Ok(got) = digest(password.as_bytes(), &salt, cost) else { return false };
    // By hash again, so that the time taken tells nothing.
    let again = |bytes: &[u8]| banyan_shared::keys::sha256(&[bytes]);
    again(&got) == again(&want)
}

impl Bench {
    pub(super) fn new() -> Bench {
        Bench {
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            places: Arc::new(Semaphore::new(AT_ONCE + WAITING_MAX)),
        }
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let place = self.places.clone().try_acquire_owned().ok()?;
        let turn = tokio::time::timeout(WAIT_MAX, self.turns.clone().acquire_owned()).await;
        let turn = turn.ok()?.ok()?;
        // Both are held until the work is done, whether or not the asker still waits for it.
        let done = tokio::task::spawn_blocking(move || {
            let _held = (place, turn);
            work()
        });
        done.await.ok()
    }

    /// Whether the password is right; none if too many ask at once.
    pub(super) async fn check(&self, password: &str, phc: Option<String>) -> Option<bool> {
        if password.len() > BYTES_MAX {
            return Some(false);
        }
        let password = Password::new(password);
        self.run(move || verify(password.text(), phc.as_deref())).await
    }

    /// The hash of a new password.
    ///
    /// # Errors
    /// What is wrong with it, or that too many ask at once.
    pub(super) async fn hash(&self, password: Password) -> Result<String> {
        acceptable(password.text())?;
        let made = self.run(move || hash(password.text())).await;
        made.context("too many passwords are being checked: try again")?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_a_phc_string_that_only_its_password_opens() {
        let phc = hash("correct horse").unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        assert!(is_hash(&phc) && verify("correct horse", Some(&phc)));
        assert!(!verify("correct hors", Some(&phc)) && !verify("", Some(&phc)));
        assert_ne!(phc, hash("correct horse").unwrap(), "each has a salt of its own");
        for nobody in [None, Some(""), Some("$argon2id$v=19$m=1,t=1,p=1$$")] {
            assert!(!verify("correct horse", nobody), "{nobody:?}");
        }
    }

    /// Made with the reference implementation, by argon2-cffi: `hash_secret(password, b"somesaltsomesalt",
    /// time_cost=2, memory_cost=19456, parallelism=1, hash_len=32, type=Type.ID)`.
    #[test]
    fn the_reference_implementation_agrees() {
        let phc = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$t1araqHSZEEDbBCdKPNCke0nfwlT/HWGtgVljCvgO1k";
        assert!(verify("榕树之下的密码", Some(phc)));
    }

    #[test]
    fn lengths_are_counted_in_characters_and_bounded_in_bytes() {
        assert!(acceptable("一二三四五六七八九十").is_ok() && acceptable("short").is_err());
        assert!(acceptable(&"x".repeat(BYTES_MAX + 1)).is_err());
        assert!(acceptable("with a\nline").is_err());
    }

    #[tokio::test]
    async fn too_many_at_once_are_told_so() {
        let bench = Arc::new(Bench::new());
        let held: Vec<_> = (0..AT_ONCE + WAITING_MAX)
            .map(|_| bench.places.clone().try_acquire_owned().unwrap())
            .collect();
        assert_eq!(bench.check("anything at all", None).await, None);
        drop(held);
        assert_eq!(bench.check("anything at all", None).await, Some(false));
    }
}
