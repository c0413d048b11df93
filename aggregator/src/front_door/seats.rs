//! Places at the door for connections that have not proved yet who they are, in all and for each address.
//!
//! Strangers can make as many connections as they like, so a full door must not be a closed one. When there
//! is no place left, one gives way that waits for its client: the oldest of the newcomer's address if that
//! has its full share, otherwise the oldest of the address that holds the most. What waits for *us* (a
//! handshake in the queue) is never thrown out, so that a herd that comes back all at once is worked off
//! and not begun anew for ever. If nobody can give way, all wait for us: then the newcomer waits too, and
//! those behind it in the system's queue, which costs neither side anything; it is refused only where its own
//! address or the door as a whole is full. Whoever has proved who it is has left these places.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;

use super::counters::{Cause, Counters, add};

/// How many connections of an address are asked for one that can give way.
const ASKED_MAX: usize = 256;

/// How many connections may be open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caps {
    /// At once.
    pub(super) connections: usize,
    /// Of these, not proved.
    pub(super) unproven: usize,
    /// Of these, from one address.
    pub(super) unproven_per_address: usize,
}

/// The places.
pub(super) struct Seats {
    caps: Caps,
    counters: Arc<Counters>,
    table: Mutex<Table>,
    /// A place was given back, or its holder waits for its client now.
    changed: Notify,
}

#[derive(Default)]
struct Table {
    /// By address and in the order they came.
    unproven: HashMap<IpAddr, BTreeMap<u64, Arc<Place>>>,
    /// The addresses by how many connections they hold.
    by_number: BTreeSet<(usize, IpAddr)>,
    /// How many have not proved who they are.
    len: usize,
    /// How many have.
    proven: usize,
    next: u64,
}

/// What the table and the connection both hold.
#[derive(Debug, Default)]
struct Place {
    /// Whether it waits for its client.
    idle: AtomicBool,
    /// Why it has to go.
    out: OnceLock<Cause>,
    told: Notify,
}

/// A connection's place, given back when dropped.
pub(crate) struct Seat {
    seats: Arc<Seats>,
    peer: IpAddr,
    number: u64,
    place: Arc<Place>,
    proven: AtomicBool,
}

/// What counts as one address: of IPv6 a network of 64 bits, since one machine has them all.
fn address_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

impl Table {
    fn held_by(&self, address: IpAddr) -> usize {
        self.unproven.get(&address).map_or(0, BTreeMap::len)
    }

    fn insert(&mut self, address: IpAddr, place: Arc<Place>) -> u64 {
        let number = self.next;
        self.next += 1;
        let here = self.unproven.entry(address).or_default();
        self.by_number.remove(&(here.len(), address));
        here.insert(number, place);
        self.by_number.insert((here.len(), address));
        self.len += 1;
        number
    }

    /// True if it was there.
    fn remove(&mut self, address: IpAddr, number: u64) -> bool {
        let Some(here) = self.unproven.get_mut(&address) else { return false };
        let before = here.len();
        if here.remove(&number).is_none() {
            return false;
        }
        self.by_number.remove(&(before, address));
        if here.is_empty() {
            self.unproven.remove(&address);
        } else {
            self.by_number.insert((before - 1, address));
        }
        self.len -= 1;
        true
    }

    /// Puts out the oldest of the address that waits for its client; false if there is none.
    fn put_out(&mut self, address: IpAddr, cause: Cause) -> bool {
        let Some(here) = self.unproven.get(&address) else { return false };
        let found =
            here.iter().take(ASKED_MAX).find(|(_, place)| place.idle.load(Ordering::Relaxed));
        let Some((number, place)) = found.map(|(number, place)| (*number, Arc::clone(place)))
        else {
            return false;
        };
        // Nobody is put out twice: it leaves the table here.
        let _ = place.out.set(cause);
        place.told.notify_one();
        self.remove(address, number)
    }
}

impl Seats {
    pub(super) fn new(caps: Caps, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { caps, counters, table: Mutex::default(), changed: Notify::new() })
    }

    /// Done when a newcomer that found no place may find one.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// A place for a connection from `peer`, or why there is none.
    pub(super) fn take(self: &Arc<Self>, peer: IpAddr) -> Result<Seat, Cause> {
        let address = address_of(peer);
        let mut table = self.table();
        let Caps { connections, unproven, unproven_per_address } = self.caps;
        if table.held_by(address) >= unproven_per_address
            && !table.put_out(address, Cause::AddressFull)
        {
            return Err(Cause::AddressFull);
        }
        let full = if table.len >= unproven {
            Some(Cause::UnprovenFull)
        } else if table.len + table.proven >= connections {
            Some(Cause::DoorFull)
        } else {
            None
        };
        if let Some(cause) = full {
            let most = table.by_number.last().map(|(_, address)| *address);
            if !most.is_some_and(|most| table.put_out(most, cause)) {
                return Err(cause);
            }
        }
        let place = Arc::new(Place::default());
        let number = table.insert(address, Arc::clone(&place));
        self.counters.unproven.store(table.len as u64, Ordering::Relaxed);
        add(&self.counters.connections, 1);
        let proven = AtomicBool::new(false);
        Ok(Seat { seats: Arc::clone(self), peer, number, place, proven })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing under this lock can leave the table half changed.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Where the connection comes from.
    pub(super) fn peer(&self) -> IpAddr {
        self.peer
    }

    /// The connection has proved who it is; false if it was put out meanwhile.
    pub(super) fn prove(&self) -> bool {
        let mut table = self.seats.table();
        if !table.remove(address_of(self.peer), self.number) {
            return self.proven.load(Ordering::Relaxed);
        }
        table.proven += 1;
        self.proven.store(true, Ordering::Relaxed);
        self.seats.counters.unproven.store(table.len as u64, Ordering::Relaxed);
        self.seats.changed.notify_one();
        true
    }

    /// Notes whether the connection waits for its client from here on.
    pub(super) fn idle(&self, idle: bool) {
        self.place.idle.store(idle, Ordering::Relaxed);
        if idle {
            self.seats.changed.notify_one();
        }
    }

    /// Done when the connection has to give way, with the reason.
    pub(super) async fn put_out(&self) -> Cause {
        loop {
            if let Some(cause) = self.place.out.get() {
                return *cause;
            }
            self.place.told.notified().await;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.seats.table();
        if table.remove(address_of(self.peer), self.number) {
            self.seats.counters.unproven.store(table.len as u64, Ordering::Relaxed);
        } else if self.proven.load(Ordering::Relaxed) {
            table.proven -= 1;
        }
        self.seats.counters.connections.fetch_sub(1, Ordering::Relaxed);
        self.seats.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn seats(connections: usize, unproven: usize, unproven_per_address: usize) -> Arc<Seats> {
        Seats::new(Caps { connections, unproven, unproven_per_address }, Arc::default())
    }

    fn out(seat: &Seat) -> Option<Cause> {
        seat.place.out.get().copied()
    }

    fn taken(seats: &Arc<Seats>, peer: IpAddr) -> Seat {
        seats.take(peer).ok().unwrap()
    }

    #[test]
    fn the_oldest_that_waits_for_its_client_gives_way() {
        let seats = seats(10, 10, 3);
        let held: Vec<Seat> = (0..3).map(|_| taken(&seats, v4(1))).collect();
        // All three wait for us.
        assert_eq!(seats.take(v4(1)).err(), Some(Cause::AddressFull));
        // Another address does not care.
        let other = taken(&seats, v4(2));
        held[1].idle(true);
        held[2].idle(true);
        let fourth = taken(&seats, v4(1));
        let told: Vec<_> = held.iter().map(out).collect();
        assert_eq!(told, [None, Some(Cause::AddressFull), None]);
        assert_eq!(seats.counters.unproven.load(Ordering::Relaxed), 4);
        assert!(!held[1].prove(), "who has to go is not let in");
        assert!(held[0].prove() && held[0].prove());
        // Its place among the unproven is free again.
        let _fifth = taken(&seats, v4(1));
        assert_eq!(seats.take(v4(1)).err(), None);
        assert_eq!(out(&held[2]), Some(Cause::AddressFull));
        drop((held, fourth, other));
    }

    #[test]
    fn of_a_full_door_the_address_with_the_most_gives_way() {
        let seats = seats(10, 5, 5);
        let many: Vec<Seat> = (0..4).map(|_| taken(&seats, v4(1))).collect();
        let one = taken(&seats, v4(2));
        for seat in many.iter().chain([&one]) {
            seat.idle(true);
        }
        let third = taken(&seats, v4(3));
        assert_eq!((out(&many[0]), out(&one)), (Some(Cause::UnprovenFull), None));
        assert!(one.prove() && third.prove());
        assert_eq!(seats.counters.unproven.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn whoever_has_proved_who_it_is_never_gives_way() {
        let seats = seats(3, 3, 3);
        let proven: Vec<Seat> = (0..3).map(|n| taken(&seats, v4(n))).collect();
        for seat in &proven {
            seat.idle(true);
            assert!(seat.prove());
        }
        assert_eq!(seats.take(v4(9)).err(), Some(Cause::DoorFull));
        drop(proven);
        let last = taken(&seats, v4(9));
        assert_eq!(seats.counters.connections.load(Ordering::Relaxed), 1);
        drop(last);
        let table = seats.table();
        assert_eq!((table.len, table.proven), (0, 0));
        assert!(table.unproven.is_empty() && table.by_number.is_empty());
    }

    #[test]
    fn of_ipv6_a_network_is_one_address() {
        let seats = seats(10, 10, 1);
        let v6 = |text: &str| text.parse::<IpAddr>().unwrap();
        let _first = taken(&seats, v6("2001:db8::1"));
        assert_eq!(seats.take(v6("2001:db8::ffff:1")).err(), Some(Cause::AddressFull));
        let _second = taken(&seats, v6("2001:db8:0:1::1"));
        let _third = taken(&seats, v6("::ffff:10.0.0.1"));
        assert_eq!(seats.take(v4(1)).err(), Some(Cause::AddressFull));
    }
}
