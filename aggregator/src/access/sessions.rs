//! Sessions: in memory, by the hash of a random id, ended by idleness, age, logout, a change of password or
//! a restart.

use std::collections::HashMap;

use anyhow::Result;
use banyan_shared::ids::Millis;
use banyan_shared::keys::sha256;
use data_encoding::HEXLOWER;

use crate::identity::random;

/// After so long without a request a session is over, in ms.
pub(super) const IDLE_MAX_MS: i64 = 30 * 60_000;
/// After so long it is over in any case, in ms.
pub(super) const AGE_MAX_MS: i64 = 12 * 3_600_000;
/// Most sessions of one user; the one unused the longest ends.
pub(super) const OF_USER_MAX: usize = 8;
/// Most sessions in all; likewise.
pub(super) const ALL_MAX: usize = 10_000;

#[derive(Debug)]
struct Session {
    user: String,
    serial: u64,
    csrf: String,
    begun: Millis,
    seen: Millis,
}

impl Session {
    fn goes_on(&self, now: Millis) -> bool {
        now < self.seen.plus(IDLE_MAX_MS) && now < self.begun.plus(AGE_MAX_MS)
    }
}

#[derive(Debug, Default)]
pub(super) struct Sessions(HashMap<[u8; 32], Session>);

fn key(id: &str) -> [u8; 32] {
    sha256(&[id.as_bytes()])
}

impl Sessions {
    /// Begins one; its id goes into the cookie and nowhere else.
    pub(super) fn begin(&mut self, user: &str, serial: u64, now: Millis) -> Result<String> {
        self.0.retain(|_, session| session.goes_on(now));
        if self.0.values().filter(|session| session.user == user).count() >= OF_USER_MAX {
            self.end_oldest(|session| session.user == user);
        }
        if self.0.len() >= ALL_MAX {
            self.end_oldest(|_| true);
        }
        let id = HEXLOWER.encode(&random::<32>()?);
        let csrf = HEXLOWER.encode(&random::<32>()?);
        let session = Session { user: user.to_owned(), serial, csrf, begun: now, seen: now };
        self.0.insert(key(&id), session);
        Ok(id)
    }

    fn end_oldest(&mut self, of: impl Fn(&Session) -> bool) {
        let all = self.0.iter().filter(|(_, session)| of(session));
        if let Some(oldest) = all.min_by_key(|(_, session)| session.seen).map(|(key, _)| *key) {
            self.0.remove(&oldest);
        }
    }

    /// User, serial and form token of a session that goes on.
    pub(super) fn touch(&mut self, id: &str, now: Millis) -> Option<(String, u64, String)> {
        let key = key(id);
        let session = self.0.get_mut(&key)?;
        if !session.goes_on(now) {
            self.0.remove(&key);
            return None;
        }
        // A clock set back must not lengthen anything.
        session.seen = session.seen.max(now);
        Some((session.user.clone(), session.serial, session.csrf.clone()))
    }

    pub(super) fn end(&mut self, id: &str) {
        self.0.remove(&key(id));
    }

    pub(super) fn end_all_of(&mut self, user: &str) {
        self.0.retain(|_, session| session.user != user);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_end_by_idleness_age_and_number() {
        let mut all = Sessions::default();
        let id = all.begin("a", 1, Millis(0)).unwrap();
        assert_eq!(id.len(), 64);
        let last = IDLE_MAX_MS - 1;
        assert!(all.touch(&id, Millis(last)).is_some());
        assert!(all.touch(&id, Millis(last + IDLE_MAX_MS)).is_none(), "idle");

        let id = all.begin("a", 1, Millis(0)).unwrap();
        let mut now = 0;
        while now < AGE_MAX_MS {
            assert!(all.touch(&id, Millis(now)).is_some(), "{now}");
            now += IDLE_MAX_MS / 2;
        }
        assert!(all.touch(&id, Millis(AGE_MAX_MS)).is_none(), "old, though never idle");

        let first = all.begin("a", 1, Millis(0)).unwrap();
        let other = all.begin("b", 1, Millis(0)).unwrap();
        for at in 1..=OF_USER_MAX {
            all.begin("a", 1, Millis(i64::try_from(at).unwrap())).unwrap();
        }
        assert!(all.touch(&first, Millis(9)).is_none() && all.touch(&other, Millis(9)).is_some());
        for at in 0..ALL_MAX {
            all.begin(&format!("u{at}"), 1, Millis(10)).unwrap();
        }
        assert_eq!(all.0.len(), ALL_MAX);
        assert!(all.touch("", Millis(10)).is_none());
    }
}
