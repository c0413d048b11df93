//! Who is connected: one session an agent, handed over in order.
//!
//! A newcomer tells the present holder to stop and waits until it is gone; a session takes its entry out
//! only while the entry is still its own, however it ends (return, panic, abort).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use banyan_shared::ids::AgentId;
use bytes::Bytes;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, timeout_at};

use super::contest::{Contest, Contests};
use super::counters::{Counters, add};
use super::rates::{Pace, Paces, Rates};
use super::share::{Share, Shares};

/// Messages that wait for one session; more are dropped, the agent asks again.
pub const DOWN_QUEUE_MESSAGES: usize = 8;

/// The sessions open now.
#[derive(Debug, Default)]
pub struct Registry {
    table: Mutex<Table>,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Table {
    sessions: HashMap<AgentId, Slot>,
    contests: Contests,
    paces: Paces,
    shares: Shares,
    tokens: u64,
}

#[derive(Debug)]
struct Slot {
    token: u64,
    /// Where the session comes from.
    address: IpAddr,
    down: mpsc::Sender<Bytes>,
    stop: Arc<Notify>,
    /// Closed when the holder is gone.
    gone: watch::Receiver<()>,
}

/// A session's place in the registry, given back when dropped.
pub(crate) struct Entry {
    registry: Arc<Registry>,
    agent: AgentId,
    token: u64,
    /// Messages for the agent.
    pub(crate) down: mpsc::Receiver<Bytes>,
    /// Notified when a newer connection wants the place.
    pub(crate) stop: Arc<Notify>,
    /// How fast the agent has been.
    pace: Pace,
    /// How much of it may be on its way.
    pub(crate) share: Share,
    /// Packets and bytes read that its pace does not know of yet.
    pub(crate) read: (usize, usize),
    /// What the take-over has shown, if it was one too many.
    pub(crate) contest: Option<Contest>,
    /// Dropped after `Drop::drop` has taken the entry out, which tells who waits.
    _gone: watch::Sender<()>,
}

impl Registry {
    /// An empty registry that counts on `counters`.
    pub fn new(counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { table: Mutex::default(), counters })
    }

    /// The counters shared with the door.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// How many agents are connected.
    pub fn len(&self) -> usize {
        self.table().sessions.len()
    }

    /// True if no agent is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if this agent is connected.
    pub fn holds(&self, agent: AgentId) -> bool {
        self.table().sessions.contains_key(&agent)
    }

    /// Hands `payload` to the agent's session; dropped and counted if there is none or it is not keeping up.
    pub fn deliver(&self, agent: AgentId, payload: Bytes) {
        let table = self.table();
        match table.sessions.get(&agent).map(|slot| slot.down.try_send(payload)) {
            Some(Ok(())) => {}
            Some(Err(mpsc::error::TrySendError::Full(_))) => add(&self.counters.down_dropped, 1),
            Some(Err(mpsc::error::TrySendError::Closed(_))) | None => {
                add(&self.counters.down_absent, 1);
            }
        }
    }

    /// The agents connected.
    pub(crate) fn agents(&self) -> Vec<AgentId> {
        self.table().sessions.keys().copied().collect()
    }

    /// Tells the agent's session to end, if there is one: it was revoked.
    pub fn dismiss(&self, agent: AgentId) {
        if let Some(slot) = self.table().sessions.get(&agent) {
            slot.stop.notify_one();
        }
    }

    /// Takes the agent's place for a connection from `address`, asking a present holder to leave; none if it
    /// has not left by `deadline`.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        agent: AgentId,
        address: IpAddr,
        rates: Rates,
        deadline: Instant,
    ) -> Option<Entry> {
        let mut pushed_off = None;
        loop {
            let mut gone = {
                let mut table = self.table();
                match table.sessions.get(&agent) {
                    None => {
                        let mut entry = self.insert(&mut table, agent, address, rates);
                        entry.contest = pushed_off.and_then(|held| {
                            table.contests.note(agent, held, address, Instant::now())
                        });
                        return Some(entry);
                    }
                    Some(slot) => {
                        slot.stop.notify_one();
                        pushed_off = Some(slot.address);
                        slot.gone.clone()
                    }
                }
            };
            // Nothing is ever sent: the only end of this wait is the holder's, or the deadline.
            if timeout_at(deadline, gone.changed()).await.is_err() {
                return None;
            }
        }
    }

    fn insert(
        self: &Arc<Self>,
        table: &mut Table,
        agent: AgentId,
        address: IpAddr,
        rates: Rates,
    ) -> Entry {
        table.tokens += 1;
        let pace = table.paces.take(agent, rates, Instant::now());
        let share = table.shares.of(agent);
        let token = table.tokens;
        let (to_session, down) = mpsc::channel(DOWN_QUEUE_MESSAGES);
        let (leaving, gone) = watch::channel(());
        let stop = Arc::new(Notify::new());
        table.sessions.insert(
            agent,
            Slot { token, address, down: to_session, stop: Arc::clone(&stop), gone },
        );
        let registry = Arc::clone(self);
        Entry {
            registry,
            agent,
            token,
            down,
            stop,
            pace,
            share,
            read: (0, 0),
            contest: None,
            _gone: leaving,
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing under this lock can leave the table half changed.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// How long to read nothing more, after what was read.
    pub(crate) fn wait(&mut self) -> Duration {
        let (packets, bytes) = std::mem::take(&mut self.read);
        self.pace.took(packets, bytes, Instant::now())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // What was not waited for is when the agent comes again.
        self.wait();
        let mut table = self.registry.table();
        if table.sessions.get(&self.agent).is_some_and(|slot| slot.token == self.token) {
            table.sessions.remove(&self.agent);
            table.paces.put(self.agent, self.pace, Instant::now());
        }
    }
}
