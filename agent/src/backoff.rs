//! How long to wait before the next attempt to connect: exponential, capped, with full jitter.
//!
//! Full jitter (anything from nothing to the whole of the bound) spreads a county's clinics evenly when a
//! cable that served them all is mended.

use std::time::Duration;

/// The bound of the first wait.
pub const BASE: Duration = Duration::from_secs(1);
/// The bound no wait exceeds.
pub const CAP: Duration = Duration::from_secs(15 * 60);

/// The wait before attempt `attempt` (0 for the first after a success): `random`, taken evenly from all of
/// `u32`, spread over the bound, which doubles from [`BASE`] to [`CAP`].
pub fn backoff(attempt: u32, random: u32) -> Duration {
    let bound =
        1u32.checked_shl(attempt).map_or(CAP, |factor| BASE.saturating_mul(factor).min(CAP));
    let micros = bound.as_micros() * u128::from(random) / u128::from(u32::MAX);
    Duration::from_micros(u64::try_from(micros).expect("900 s are far below 2^64 µs"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_cap() {
        let bounds: Vec<u64> = (0..12).map(|n| backoff(n, u32::MAX).as_secs()).collect();
        assert_eq!(bounds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]);
        for attempt in [31, 32, 33, u32::MAX] {
            assert_eq!(backoff(attempt, u32::MAX), CAP);
        }
    }

    #[test]
    fn the_jitter_is_full() {
        assert_eq!(backoff(5, 0), Duration::ZERO);
        let half = backoff(5, u32::MAX / 2).as_millis();
        assert!((15_990..=16_010).contains(&half), "{half}");
    }

    proptest! {
        #[test]
        fn more_random_is_never_a_shorter_wait(attempt: u32, a: u32, b: u32) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(backoff(attempt, low) <= backoff(attempt, high));
            prop_assert!(backoff(attempt, high) <= CAP);
        }
    }
}
