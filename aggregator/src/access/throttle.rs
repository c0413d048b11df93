//! Wrong passwords make the next try wait: by user, by address.
//!
//! Bounded: when a table is full the entry that would lapse first goes. To push one out takes thousands of
//! names, each of which counts against the address it came from.

use std::collections::HashMap;
use std::net::IpAddr;

use banyan_shared::ids::Millis;
use banyan_shared::keys::sha256;

/// Wrong passwords of one user before the next has to wait.
pub(super) const USER_FREE: u32 = 5;
/// Of one address: a county office may sit behind one.
const ADDRESS_FREE: u32 = 30;
/// The first wait, in ms; it doubles with every further wrong password.
const WAIT_FIRST_MS: i64 = 2_000;
/// The longest wait, in ms.
const WAIT_MAX_MS: i64 = 15 * 60_000;
/// How long failures are remembered after the last of them, in ms.
const MEMORY_MS: i64 = 4 * WAIT_MAX_MS;
/// Most users and most addresses remembered.
const ENTRIES_MAX: usize = 10_000;

#[derive(Clone, Copy, Debug)]
struct Entry {
    failures: u32,
    last: Millis,
    until: Millis,
}

#[derive(Debug, Default)]
struct Table(HashMap<[u8; 32], Entry>);

impl Table {
    fn until(&self, key: &[u8; 32], now: Millis) -> Option<Millis> {
        self.0.get(key).map(|entry| entry.until).filter(|until| now < *until)
    }

    fn failed(&mut self, key: [u8; 32], free: u32, now: Millis) {
        let lapsed = |entry: &Entry| entry.last.plus(MEMORY_MS) <= now;
        if self.0.len() >= ENTRIES_MAX && !self.0.contains_key(&key) {
            self.0.retain(|_, entry| !lapsed(entry));
            if self.0.len() >= ENTRIES_MAX
                && let Some(first) = self
                    .0
                    .iter()
                    .min_by_key(|(_, entry)| (entry.until, entry.last))
                    .map(|(k, _)| *k)
            {
                self.0.remove(&first);
            }
        }
        let entry = self.0.entry(key).or_insert(Entry { failures: 0, last: now, until: now });
        if lapsed(entry) {
            entry.failures = 0;
        }
        entry.failures = entry.failures.saturating_add(1);
        entry.last = now;
        if entry.failures >= free {
            let doubled = WAIT_FIRST_MS.saturating_mul(1 << (entry.failures - free).min(20));
            entry.until = now.plus(doubled.min(WAIT_MAX_MS));
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Throttle {
    users: Table,
    addresses: Table,
}

fn user(name: &str) -> [u8; 32] {
    sha256(&[name.as_bytes()])
}

/// The address, or the /64 it lies in: whoever has one address of IPv6 has them all.
fn address(from: IpAddr) -> [u8; 32] {
    match from {
        IpAddr::V4(v4) => sha256(&[&v4.octets()]),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => sha256(&[&v4.octets()]),
            None => sha256(&[&v6.octets()[..8]]),
        },
    }
}

impl Throttle {
    /// How many seconds the next try has to wait, if it has to.
    pub(super) fn wait_s(&self, name: &str, from: IpAddr, now: Millis) -> Option<i64> {
        let user = self.users.until(&user(name), now);
        let until = user.max(self.addresses.until(&address(from), now))?;
        Some((until.0 - now.0).div_euclid(1000) + 1)
    }

    pub(super) fn failed(&mut self, name: &str, from: IpAddr, now: Millis) {
        self.users.failed(user(name), USER_FREE, now);
        self.addresses.failed(address(from), ADDRESS_FREE, now);
    }

    /// The user is known again. The address stays: one right password among many wrong is no excuse.
    pub(super) fn succeeded(&mut self, name: &str, _: IpAddr) {
        self.users.0.remove(&user(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    #[test]
    fn a_user_waits_longer_each_time_and_no_longer_than_the_limit() {
        let mut throttle = Throttle::default();
        let mut now = Millis(0);
        for n in 1..USER_FREE {
            throttle.failed("a", at(1), now);
            assert_eq!(throttle.wait_s("a", at(2), now), None, "{n}");
        }
        let mut before = 0;
        for _ in 0..20 {
            throttle.failed("a", at(1), now);
            let wait = throttle.wait_s("a", at(9), now).unwrap();
            assert!(wait >= before && wait <= WAIT_MAX_MS / 1000 + 1, "{wait}");
            before = wait;
            now = now.plus(wait * 1000);
            assert_eq!(throttle.wait_s("a", at(9), now), None);
        }
        assert_eq!(before, WAIT_MAX_MS / 1000 + 1);
        assert_eq!(throttle.wait_s("b", at(9), now), None, "others do not wait");
        throttle.failed("a", at(1), now);
        throttle.succeeded("a", at(1));
        assert_eq!(throttle.wait_s("a", at(9), now), None);
    }

    #[test]
    fn an_address_waits_whatever_names_it_tries_and_ipv6_by_its_net() {
        let mut throttle = Throttle::default();
        let now = Millis(0);
        let in_net = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]);
        for n in 0..ADDRESS_FREE {
            throttle.failed(&format!("u{n}"), at(1), now);
            throttle.failed(&format!("v{n}"), in_net(u16::try_from(n).unwrap()), now);
        }
        assert!(throttle.wait_s("new", at(1), now).is_some());
        assert!(throttle.wait_s("new", in_net(999), now).is_some());
        let mapped = IpAddr::V6(std::net::Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped());
        assert!(throttle.wait_s("new", mapped, now).is_some());
        assert!(throttle.wait_s("new", at(2), now).is_none());
    }

    #[test]
    fn the_tables_are_bounded_and_keep_whoever_waits_longest() {
        let mut throttle = Throttle::default();
        for _ in 0..USER_FREE + 3 {
            throttle.failed("target", at(1), Millis(0));
        }
        for n in 0..ENTRIES_MAX + 10 {
            throttle.failed(&format!("u{n}"), at(1), Millis(1));
        }
        assert_eq!(throttle.users.0.len(), ENTRIES_MAX);
        assert!(throttle.wait_s("target", at(2), Millis(1)).is_some());
    }
}
