//! What strangers can cause is told once in a while, with how often it has happened since: nobody may fill the
//! disk with lines in the log.

use std::sync::atomic::{AtomicU64, Ordering};

use banyan_shared::ids::Millis;

/// How often at most one thing is told, in ms.
const TELL_EVERY_MS: u64 = 1000;

/// Counts one thing and says when it is time to tell of it.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    count: AtomicU64,
    /// When it was last told, in ms since 1970, and how often it had happened then.
    told_at: AtomicU64,
    told: AtomicU64,
}

impl Seldom {
    /// It has happened. If it is time to tell of it: how often since the last time.
    pub(crate) fn due(&self, now: Millis) -> Option<u64> {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let now = u64::try_from(now.0).unwrap_or(0);
        let last = self.told_at.load(Ordering::Relaxed);
        let due = now.abs_diff(last) >= TELL_EVERY_MS;
        if !due
            || self
                .told_at
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_err()
        {
            return None;
        }
        Some(count - self.told.swap(count, Ordering::Relaxed).min(count))
    }

    /// How often it has happened.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_are_told_once_with_their_number() {
        let seldom = Seldom::default();
        let at = |ms: i64| Millis(1_800_000_000_000 + ms);
        assert_eq!(seldom.due(at(0)), Some(1));
        for n in 1..1000 {
            assert_eq!(seldom.due(at(n)), None);
        }
        assert_eq!(seldom.due(at(1000)), Some(1000));
        // Also when the clock was set back.
        assert_eq!(seldom.due(at(-5000)), Some(1));
        assert_eq!(seldom.count(), 1002);
    }
}
