//! What time it is, and how far the PC's clock can be believed.
//!
//! Clinic PCs have flat batteries. A clock is trusted if it is not before anything known to have happened,
//! and within a day of the centre's. What hangs on it: whether a period in the future is refused or only
//! pointed out. No figure ever depends on it.

use std::sync::Arc;
use std::time::Instant;

use banyan_shared::ids::Millis;
use serde::{Deserialize, Serialize};

/// No clock is right that shows an earlier moment: 2026-01-01T00:00Z, raised with every release.
pub const RELEASED: Millis = Millis(1_767_225_600_000);

/// How far from the centre's a trusted clock may be, in ms.
pub const OFFSET_MAX_MS: i64 = 86_400_000;

/// A clock that was behind by more than this and shows the centre's time now has been set, in ms: had it gone
/// on as it was, the agent would have heard nothing for as long.
const SET_MIN_MS: i64 = 30 * 86_400_000;

/// Where the time comes from.
pub trait Clock: Send + Sync {
    /// The wall clock.
    fn now(&self) -> Millis;
    /// A clock that never runs backwards, for time-outs only.
    fn steady(&self) -> Millis;
}

/// The machine's own clocks.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Millis {
        jiff::Timestamp::now().into()
    }

    fn steady(&self) -> Millis {
        Millis(i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX))
    }
}

/// A shared clock.
pub type SharedClock = Arc<dyn Clock>;

/// What is known of the clock; kept with the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockState {
    /// The centre's clock in the receipt that came last.
    pub receipt: Option<Millis>,
    /// The centre's clock less ours, at that receipt.
    pub offset_ms: Option<i64>,
    /// The latest moment of our clock at which something trusted happened.
    pub floor: Millis,
}

impl ClockState {
    /// Whether the clock, showing `now`, is to be trusted.
    pub fn trusts(&self, now: Millis) -> bool {
        now >= RELEASED
            && now >= self.floor
            && self.offset_ms.is_none_or(|offset| offset.saturating_abs() <= OFFSET_MAX_MS)
            && self.receipt.is_none_or(|receipt| now.plus(OFFSET_MAX_MS) >= receipt)
    }

    /// Whether the clock has been set since the receipt that told its offset, and by far: that offset says
    /// nothing of it any more.
    fn was_set(&self, now: Millis) -> bool {
        let offset = self.offset_ms.unwrap_or(0);
        let back = offset < -OFFSET_MAX_MS && now < self.floor;
        let on = offset > SET_MIN_MS
            && self.receipt.is_some_and(|receipt| now.plus(OFFSET_MAX_MS) >= receipt);
        back || on
    }

    /// The best guess at the true time.
    pub fn best(&self, now: Millis) -> Millis {
        let offset = if self.was_set(now) { 0 } else { self.offset_ms.unwrap_or(0) };
        let corrected = now.plus(offset);
        let known = RELEASED.max(self.receipt.unwrap_or(RELEASED));
        corrected.max(known)
    }

    /// Notes that an entry was made while the clock was trusted.
    pub fn entered(&mut self, now: Millis) {
        if self.trusts(now) {
            self.floor = self.floor.max(now);
        }
    }

    /// Notes the receipt that has just come, written at `centre`; it is the better evidence, so earlier
    /// floors no longer count. The caller has seen to it that it is not an old one played again, so the last
    /// one counts even if an earlier one showed a later time: the centre's clock has been put right since.
    pub fn receipt(&mut self, centre: Millis, now: Millis) {
        *self = ClockState {
            receipt: Some(centre),
            offset_ms: Some(centre.0.saturating_sub(now.0)),
            floor: now,
        };
    }

    /// Notes a receipt that was written at `centre` and has been on its way for nobody knows how long: it
    /// is not earlier now than that, and it says no more.
    pub fn brought(&mut self, centre: Millis) {
        self.receipt = Some(self.receipt.map_or(centre, |known| known.max(centre)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;

    #[test]
    fn a_clock_is_believed_within_what_is_known() {
        let now = RELEASED.plus(100 * DAY);
        let mut state = ClockState::default();
        assert!(state.trusts(now));
        assert!(!state.trusts(Millis(0)), "a flat battery");
        state.entered(now);
        assert!(!state.trusts(now.plus(-1)), "before the newest entry");
        state.receipt(now.plus(3 * DAY), now.plus(1));
        assert!(!state.trusts(now.plus(2)), "three days from the centre's");
        assert_eq!(state.best(now.plus(2)), now.plus(3 * DAY + 1));
        state.receipt(now.plus(4 * DAY), now.plus(4 * DAY - 500));
        assert!(state.trusts(now.plus(4 * DAY)));
        state.receipt(now, now.plus(500));
        assert_eq!(state.offset_ms, Some(-500), "the centre's clock was put right");
        assert!(state.trusts(now.plus(501)));
    }

    #[test]
    fn an_offset_ends_with_the_clock_it_was_found_for() {
        let now = RELEASED.plus(100 * DAY);
        for wrong in [now.plus(-17 * 365 * DAY), now.plus(73 * 365 * DAY), now.plus(-31 * DAY)] {
            let mut state = ClockState::default();
            state.receipt(now, wrong);
            assert_eq!(state.best(wrong.plus(DAY)), now.plus(DAY), "as long as it is as wrong");
            assert_eq!(state.best(now.plus(DAY)), now.plus(DAY), "once it was put right");
            assert_eq!(state.best(Millis(0)), now, "a flat battery once more");
        }
        let mut state = ClockState::default();
        state.receipt(now, now.plus(-2 * DAY));
        assert_eq!(state.best(now), now.plus(2 * DAY), "two days later, as likely as not");
    }

    #[test]
    fn an_answer_that_was_carried_tells_no_offset_but_that_it_is_not_earlier() {
        let now = RELEASED.plus(100 * DAY);
        let mut state = ClockState::default();
        state.brought(now.plus(-3 * DAY));
        assert_eq!((state.offset_ms, state.receipt), (None, Some(now.plus(-3 * DAY))));
        assert!(state.trusts(now), "three days on a stick are no fault of the clock");
        assert!(!state.trusts(now.plus(-5 * DAY)), "before what the centre wrote");
        state.brought(now.plus(-9 * DAY));
        assert_eq!(state.receipt, Some(now.plus(-3 * DAY)), "an older answer, later");
    }
}
