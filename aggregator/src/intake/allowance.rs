//! How many new entries one agent may bring.
//!
//! Promises:
//! - However fast an agent sends, what it adds to memory and ledger stays bounded: a stolen key, or a program gone
//!   wrong, fills neither in a night, and what it does is told.
//! - An honest agent never notices: all that its queue can hold is taken at once.
//!
//! A restart forgets what was used up.

use std::collections::HashMap;

use banyan_shared::ids::{AgentId, Millis};

/// New entries an agent may bring at once: more than its queue holds (200,000).
const AT_ONCE: u64 = 250_000;
/// And that many more in each day after: a township centre with a hundred village clinics has some hundreds.
const A_DAY: u64 = 250_000;
const DAY_MS: u64 = 86_400_000;

/// What is left to each agent that has brought something.
#[derive(Debug, Default)]
pub(super) struct Allowances(HashMap<AgentId, Left>);

#[derive(Debug)]
struct Left {
    entries: u64,
    since: Millis,
}

impl Allowances {
    /// Takes so many entries of an agent's allowance, if it has as many left.
    pub(super) fn takes(&mut self, agent: AgentId, entries: usize, now: Millis) -> bool {
        let left = self.0.entry(agent).or_insert(Left { entries: AT_ONCE, since: now });
        let gone = u64::try_from(now.0.saturating_sub(left.since.0)).unwrap_or(0);
        let more = u128::from(gone) * u128::from(A_DAY) / u128::from(DAY_MS);
        let more = u64::try_from(more).unwrap_or(u64::MAX);
        if more > 0 || now < left.since {
            left.since = now;
            left.entries = left.entries.saturating_add(more).min(AT_ONCE);
        }
        let entries = u64::try_from(entries).unwrap_or(u64::MAX);
        let has = entries <= left.entries;
        if has {
            left.entries -= entries;
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_770_000_000_000);

    #[test]
    fn a_full_queue_is_taken_at_once_and_a_flood_is_not() {
        let mut allowances = Allowances::default();
        let (one, other) = (AgentId([1; 6]), AgentId([2; 6]));
        for _ in 0..200 {
            assert!(allowances.takes(one, 1000, NOW), "a queue of 200,000");
        }
        let more = (0..1000).filter(|_| allowances.takes(one, 1000, NOW)).count();
        assert_eq!(more, 50);
        assert!(allowances.takes(other, 1000, NOW), "each has its own");
        // A day's worth comes back in a day, little by little, and no more than that is kept.
        assert!(!allowances.takes(one, 1000, NOW.plus(60_000)));
        assert!(allowances.takes(one, 1000, NOW.plus(10 * 60_000)));
        let week = NOW.plus(7 * 86_400_000);
        let more = (0..1000).filter(|_| allowances.takes(one, 1000, week)).count();
        assert_eq!(more, 250);
        // A clock that goes back gives nothing and takes nothing.
        assert!(!allowances.takes(one, 1000, NOW));
        assert!(allowances.takes(other, 1000, NOW));
    }
}
