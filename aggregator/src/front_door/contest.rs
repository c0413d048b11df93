//! One identity used in two places, as the door sees it: connections that push each other off.
//!
//! One take-over is ordinary: a line broke and the agent is back before its old connection was missed. Two
//! machines with one key take the place from each other for as long as both run. From two addresses it shows
//! after a few rounds; behind one address (a disk image in the same office) it takes more of them to be told
//! from a bad line.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use banyan_shared::ids::AgentId;
use tokio::time::Instant;

/// Take-overs longer ago than this do not count.
const WINDOW: Duration = Duration::from_secs(10 * 60);
/// Take-overs that came back to an address pushed off before: so many mean two machines.
const RETURNS_MIN: usize = 3;
/// Take-overs of any kind: so many mean two machines.
const TAKE_OVERS_MIN: usize = 20;
/// How often at most one agent is told of.
const TELL_EVERY: Duration = Duration::from_secs(60 * 60);
/// Agents watched at a time; beyond, the one quiet for longest is forgotten.
const AGENTS_MAX: usize = 4096;
/// Addresses named.
const ADDRESSES_MAX: usize = 4;

/// What was seen of an identity used twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contest {
    /// Where its connections came from, the newest last.
    pub addresses: Vec<IpAddr>,
    /// How often they pushed each other off in the last ten minutes.
    pub take_overs: usize,
}

/// Who pushed whom off.
#[derive(Debug, Default)]
pub(super) struct Contests {
    agents: HashMap<AgentId, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// When, who was pushed off, by whom.
    take_overs: VecDeque<(Instant, IpAddr, IpAddr)>,
    told: Option<Instant>,
}

impl Contests {
    /// Notes that `agent`'s connection from `held` gave way to one from `by`. What was seen, if it is time to
    /// tell of it.
    pub(super) fn note(
        &mut self,
        agent: AgentId,
        held: IpAddr,
        by: IpAddr,
        now: Instant,
    ) -> Option<Contest> {
        if self.agents.len() >= AGENTS_MAX && !self.agents.contains_key(&agent) {
            self.forget_one();
        }
        let seen = self.agents.entry(agent).or_default();
        while let Some((at, ..)) = seen.take_overs.front()
            && (now.duration_since(*at) > WINDOW || seen.take_overs.len() >= 2 * TAKE_OVERS_MIN)
        {
            seen.take_overs.pop_front();
        }
        seen.take_overs.push_back((now, held, by));
        // One that moves between two lines is pushed off as well, but does not come back again and again.
        let pushed_off_before = |at: usize, who: IpAddr| {
            seen.take_overs.iter().take(at).any(|(_, held, by)| *held == who && *by != who)
        };
        let returns = seen
            .take_overs
            .iter()
            .enumerate()
            .filter(|(at, (_, held, by))| held != by && pushed_off_before(*at, *by))
            .count();
        let twice = returns >= RETURNS_MIN || seen.take_overs.len() >= TAKE_OVERS_MIN;
        let due = seen.told.is_none_or(|told| now.duration_since(told) >= TELL_EVERY);
        if !twice || !due {
            return None;
        }
        seen.told = Some(now);
        let mut addresses = Vec::new();
        for (_, held, by) in seen.take_overs.iter().rev() {
            for address in [by, held] {
                if !addresses.contains(address) && addresses.len() < ADDRESSES_MAX {
                    addresses.insert(0, *address);
                }
            }
        }
        Some(Contest { addresses, take_overs: seen.take_overs.len() })
    }

    fn forget_one(&mut self) {
        let last = |seen: &Seen| seen.take_overs.back().map(|(at, ..)| *at);
        let quiet = self.agents.iter().min_by_key(|(_, seen)| last(seen)).map(|(agent, _)| *agent);
        if let Some(agent) = quiet {
            self.agents.remove(&agent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGENT: AgentId = AgentId([1; 6]);

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// The take-overs after which something was told, of `(seconds, held, by)`.
    fn told(steps: impl IntoIterator<Item = (u64, u8, u8)>) -> Vec<(u64, Contest)> {
        let begun = Instant::now();
        let mut contests = Contests::default();
        let mut all = Vec::new();
        for (seconds, held, by) in steps {
            let now = begun + Duration::from_secs(seconds);
            let seen = contests.note(AGENT, address(held), address(by), now);
            all.extend(seen.map(|contest| (seconds, contest)));
        }
        all
    }

    #[test]
    fn two_places_that_push_each_other_off_are_told_once_an_hour() {
        // Each is back two seconds after it was pushed off.
        let steps = (0..4000).map(|n| (2 * n, 1 + (n % 2) as u8, 2 - (n % 2) as u8));
        let told = told(steps);
        let at: Vec<u64> = told.iter().map(|(at, _)| *at).collect();
        assert_eq!(at, [6, 3606, 7206]);
        assert_eq!(told[0].1, Contest { addresses: vec![address(2), address(1)], take_overs: 4 });
    }

    #[test]
    fn a_pc_that_moves_and_a_line_that_breaks_are_no_clones() {
        // From the cable to the telephone and back, and once more.
        assert_eq!(told([(0, 1, 2), (60, 2, 1), (120, 1, 2)]), []);
        // From one address to the next.
        assert_eq!(told((0..9).map(|n| (30 * n, n as u8, n as u8 + 1))), []);
        // Away every minute, back at the same address.
        assert_eq!(told((0..500).map(|n| (60 * n, 1, 1))), []);
        // Two places, but hours apart.
        assert_eq!(told((0..40).map(|n| (700 * n, 1 + (n % 2) as u8, 2 - (n % 2) as u8))), []);
    }

    #[test]
    fn behind_one_address_it_takes_more() {
        let told = told((0..60).map(|n| (2 * n, 1, 1)));
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].0, 38);
        assert_eq!(told[0].1.addresses, [address(1)]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let begun = Instant::now();
        let mut contests = Contests::default();
        for n in 0..2 * AGENTS_MAX as u32 {
            let [a, b, c, d] = n.to_be_bytes();
            let now = begun + Duration::from_millis(u64::from(n));
            contests.note(AgentId([0, 0, a, b, c, d]), address(1), address(2), now);
        }
        for n in 0..1000 {
            let now = begun + Duration::from_secs(60) + Duration::from_millis(n);
            contests.note(AGENT, address(1), address(1), now);
        }
        assert_eq!(contests.agents.len(), AGENTS_MAX);
        assert!(contests.agents[&AGENT].take_overs.len() <= 2 * TAKE_OVERS_MIN);
    }
}
