//! TLS sessions that clients may resume.
//!
//! Promises to keep no more than a number of them, the newest, and that keeping and taking one costs the same
//! however many there are. The store that rustls brings looks through all of them for each one taken: with
//! those of ten thousand agents a resumed handshake cost more than a full one.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::server::StoresServerSessions;

/// Sessions by their ids.
pub(super) struct Sessions {
    max: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    next: u64,
    by_id: HashMap<Vec<u8>, (u64, Vec<u8>)>,
    /// Ids by age.
    ids: BTreeMap<u64, Vec<u8>>,
}

impl Sessions {
    pub(super) fn new(max: usize) -> Sessions {
        Sessions { max, kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("max", &self.max).finish_non_exhaustive()
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, id: Vec<u8>, session: Vec<u8>) -> bool {
        let kept = &mut *self.kept();
        let age = kept.next;
        kept.next += 1;
        if let Some((before, _)) = kept.by_id.insert(id.clone(), (age, session)) {
            kept.ids.remove(&before);
        }
        kept.ids.insert(age, id);
        if kept.ids.len() > self.max
            && let Some((_, oldest)) = kept.ids.pop_first()
        {
            kept.by_id.remove(&oldest);
        }
        true
    }

    fn get(&self, id: &[u8]) -> Option<Vec<u8>> {
        self.kept().by_id.get(id).map(|(_, session)| session.clone())
    }

    fn take(&self, id: &[u8]) -> Option<Vec<u8>> {
        let kept = &mut *self.kept();
        let (age, session) = kept.by_id.remove(id)?;
        kept.ids.remove(&age);
        Some(session)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_taken_once_and_the_oldest_make_room() {
        let sessions = Sessions::new(2);
        for n in [1, 2, 3] {
            assert!(sessions.put(vec![n], vec![n; 3]));
        }
        assert_eq!(sessions.get(&[1]), None, "the oldest made room");
        assert_eq!(sessions.get(&[2]), Some(vec![2; 3]));
        assert_eq!(sessions.take(&[2]), Some(vec![2; 3]));
        assert_eq!(sessions.take(&[2]), None);
        // The room of one taken is free; one kept again is as new.
        assert!(sessions.put(vec![4], vec![4]) && sessions.put(vec![3], vec![9]));
        assert!(sessions.put(vec![5], vec![5]));
        assert_eq!(sessions.get(&[4]), None);
        assert_eq!(sessions.get(&[3]), Some(vec![9]));
        let kept = sessions.kept();
        assert_eq!((kept.by_id.len(), kept.ids.len()), (2, 2));
    }
}
