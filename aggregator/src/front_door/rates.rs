//! How fast one session may go on: packets and bytes a second, with room for a burst.
//!
//! Pure: told what was read and when, it says how long to read nothing more. Nothing is lost by it: what is
//! not read waits in the client's socket, and the client is slowed by its own writes. What an agent has sent
//! is remembered when it connects anew: hanging up is no way to a new burst.

use std::collections::HashMap;
use std::time::Duration;

use banyan_shared::ids::AgentId;
use tokio::time::Instant;

/// Agents remembered at least before those are forgotten that have nothing to make up for any more.
const REMEMBERED_MIN: usize = 1024;

/// What a session may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Packets of any kind a second, in the long run.
    pub packets: u32,
    /// Packets at once.
    pub packets_burst: u32,
    /// Bytes a second, in the long run.
    pub bytes: u32,
    /// Bytes at once.
    pub bytes_burst: u32,
}

/// What a session has sent, as the moments at which all of it would have been let through one by one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    rates: Rates,
    packets: Instant,
    bytes: Instant,
}

/// The paces of agents that are not connected, as long as they have something to make up for.
#[derive(Debug, Default)]
pub(super) struct Paces {
    left: HashMap<AgentId, Pace>,
    /// How many there may be before the next look at all of them.
    room: usize,
}

impl Paces {
    /// The agent's pace, or one that begins at `now`.
    pub(super) fn take(&mut self, agent: AgentId, rates: Rates, now: Instant) -> Pace {
        self.left.remove(&agent).unwrap_or_else(|| Pace::new(rates, now))
    }

    /// Remembers the pace of an agent that leaves.
    pub(super) fn put(&mut self, agent: AgentId, pace: Pace, now: Instant) {
        if pace.is_square(now) {
            return;
        }
        if self.left.len() >= self.room {
            self.left.retain(|_, pace| !pace.is_square(now));
            self.room = (2 * self.left.len()).max(REMEMBERED_MIN);
        }
        self.left.insert(agent, pace);
    }
}

/// How long `n` units take at `rate` units a second.
fn time_for(n: usize, rate: u32) -> Duration {
    let nanos = 1_000_000_000u64.saturating_mul(n as u64) / u64::from(rate.max(1));
    Duration::from_nanos(nanos)
}

impl Pace {
    pub(crate) fn new(rates: Rates, now: Instant) -> Self {
        Self { rates, packets: now, bytes: now }
    }

    /// Whether there is nothing to make up for.
    fn is_square(&self, now: Instant) -> bool {
        self.packets.max(self.bytes) <= now
    }

    /// Takes into account what was read up to `now`: how long to wait before more is read.
    pub(crate) fn took(&mut self, packets: usize, bytes: usize, now: Instant) -> Duration {
        let Rates { packets: a_second, packets_burst, bytes: bytes_a_second, bytes_burst } =
            self.rates;
        self.packets = self.packets.max(now) + time_for(packets, a_second);
        self.bytes = self.bytes.max(now) + time_for(bytes, bytes_a_second);
        let over = |at: Instant, burst: u32, rate: u32| {
            at.saturating_duration_since(now).saturating_sub(time_for(burst as usize, rate))
        };
        over(self.packets, packets_burst, a_second).max(over(
            self.bytes,
            bytes_burst,
            bytes_a_second,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates { packets: 10, packets_burst: 5, bytes: 1000, bytes_burst: 2000 };

    #[test]
    fn a_burst_is_free_and_what_is_beyond_takes_its_time() {
        let begun = Instant::now();
        let mut pace = Pace::new(RATES, begun);
        assert_eq!(pace.took(5, 100, begun), Duration::ZERO);
        assert_eq!(pace.took(1, 0, begun), Duration::from_millis(100));
        // Time forgives.
        let later = begun + Duration::from_millis(600);
        assert_eq!(pace.took(5, 0, later), Duration::ZERO);
        // Long silence gives no more than a burst.
        let much_later = begun + Duration::from_secs(3600);
        assert_eq!(pace.took(6, 0, much_later), Duration::from_millis(100));
    }

    #[test]
    fn bytes_count_as_well() {
        let begun = Instant::now();
        let mut pace = Pace::new(RATES, begun);
        assert_eq!(pace.took(1, 2000, begun), Duration::ZERO);
        assert_eq!(pace.took(1, 500, begun), Duration::from_millis(500));
    }

    #[test]
    fn hanging_up_is_no_way_to_a_new_burst() {
        let begun = Instant::now();
        let agent = AgentId([1; 6]);
        let mut paces = Paces::default();
        let mut pace = paces.take(agent, RATES, begun);
        assert_eq!(pace.took(5, 0, begun), Duration::ZERO);
        paces.put(agent, pace, begun);
        assert!(!paces.take(agent, RATES, begun).took(1, 0, begun).is_zero());
        // Those that have nothing to make up for are forgotten.
        for n in 0..5000u32 {
            let now = begun + Duration::from_secs(u64::from(n));
            let [a, b, c, d] = n.to_be_bytes();
            let mut pace = Pace::new(RATES, now);
            pace.took(1, 0, now);
            paces.put(AgentId([0, 0, a, b, c, d]), pace, now);
        }
        assert!(paces.left.len() <= REMEMBERED_MIN, "{}", paces.left.len());
    }

    #[test]
    fn in_the_long_run_it_is_the_rate() {
        let begun = Instant::now();
        let mut pace = Pace::new(RATES, begun);
        let mut now = begun;
        for _ in 0..1000 {
            now += pace.took(1, 0, now);
        }
        let taken = now - begun;
        assert!((99.0..=100.0).contains(&taken.as_secs_f64()), "{taken:?}");
    }
}
