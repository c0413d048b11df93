//! Opening: messages read, their signatures checked and their entries hashed, on every core and ahead of the
//! rounds.
//!
//! Promises that what is opened ahead is what would be opened in its turn: an agent's id is a sum of its key, so
//! the key of an agent on the roll never becomes another. Of an agent that is not on the roll the round looks
//! for itself, when everything before has been carried out: it may be admitted by then. Whether a message is
//! heeded, counted and answered is decided in the round alone.

use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use banyan_shared::ids::AgentId;
use banyan_shared::keys::PublicKey;
use banyan_shared::wire::{
    Batch, EnrolRequest, Envelope, HashedBatch, Introduction, Kind, SignedGrant, WireError,
};
use tokio::sync::mpsc;

use super::{ROUND_BYTES_MAX, ROUND_MESSAGES_MAX};
use crate::broker::{Incoming, Permit};
use crate::identity::Identity;
use crate::roll::{Roll, Standing};

/// Messages below which a thread more costs more than it brings.
const ALONE_MAX: usize = 7;

/// A message that was read.
pub(super) enum Opened {
    /// A batch signed by the agent it is of, and as it came.
    Batch(HashedBatch, Vec<u8>, Permit),
    /// A request to be enrolled.
    Enrol(AgentId, EnrolRequest),
    /// The grants of an agent that says who it is.
    Introduce(AgentId, Vec<SignedGrant>),
    /// A batch of an agent that is not let in, or was not when this was looked at.
    NotLetIn(Incoming),
    /// No message of ours, or not by whom it says.
    Bad(AgentId, WireError),
}

/// What messages are opened with.
pub(super) struct Opening {
    roll: Arc<Roll>,
    identity: Arc<Identity>,
    threads: usize,
}

impl Opening {
    pub(super) fn new(roll: Arc<Roll>, identity: Arc<Identity>) -> Opening {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        Opening { roll, identity, threads }
    }

    /// Opens what comes, a round's messages at a time, while earlier rounds are carried out. Ends when no more
    /// comes, or nobody takes what is opened.
    ///
    /// # Errors
    /// The system starts no thread.
    pub(super) fn ahead(self: Arc<Self>, mut incoming: mpsc::Receiver<Incoming>) -> Result<Ahead> {
        // One round waits opened while the next is being opened and the one before is carried out.
        let (give, rounds) = mpsc::channel(1);
        let work = move || {
            while let Some(first) = incoming.blocking_recv() {
                let mut first = Some(first);
                let messages = a_round(|| first.take().or_else(|| incoming.try_recv().ok()));
                if give.blocking_send(self.open_all(messages)).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("opening".to_owned()).spawn(work);
        Ok(Ahead { rounds, thread: Some(thread.context("a thread for opening messages")?) })
    }

    /// Opens messages, on every core when there are many. In order.
    pub(super) fn open_all(&self, messages: Vec<Incoming>) -> Vec<Opened> {
        on_every_core(messages, self.threads, |message| self.open(message))
    }

    fn open(&self, message: Incoming) -> Opened {
        let key = match self.roll.standing(message.agent) {
            Standing::Admitted(key) => Some(key),
            Standing::Unknown | Standing::Revoked => None,
        };
        self.open_by(message, key)
    }

    /// Opens a message; a batch by the key given, if one is.
    pub(super) fn open_by(&self, message: Incoming, key: Option<PublicKey>) -> Opened {
        let agent = message.agent;
        match self.try_open(message, key) {
            Ok(opened) => opened,
            Err(error) => Opened::Bad(agent, error),
        }
    }

    fn try_open(&self, message: Incoming, key: Option<PublicKey>) -> Result<Opened, WireError> {
        let agent = message.agent;
        let envelope = Envelope::read(&message.payload)?;
        if envelope.agent != agent {
            return Err(WireError::Malformed("the sender names another agent"));
        }
        Ok(match envelope.kind {
            Kind::Batch => {
                let Some(key) = key else { return Ok(Opened::NotLetIn(message)) };
                envelope.open(&key)?;
                let batch = HashedBatch::from(Batch::read(&envelope)?);
                Opened::Batch(batch, message.payload.to_vec(), message.permit)
            }
            Kind::Enrol => Opened::Enrol(agent, EnrolRequest::open(&envelope)?),
            Kind::Introduce => {
                let grants = Introduction::open(&envelope, &self.identity.root)?;
                Opened::Introduce(agent, grants.into_iter().map(|(_, grant)| grant).collect())
            }
            other => return Err(WireError::Kind(other as u8)),
        })
    }
}

/// As many messages as one round takes; none when there are none.
pub(super) fn a_round(mut next: impl FnMut() -> Option<Incoming>) -> Vec<Incoming> {
    let (mut messages, mut bytes) = (Vec::new(), 0);
    while messages.len() < ROUND_MESSAGES_MAX
        && bytes < ROUND_BYTES_MAX
        && let Some(message) = next()
    {
        bytes += message.payload.len();
        messages.push(message);
    }
    messages
}

/// Rounds of opened messages, as they come.
pub(super) struct Ahead {
    rounds: mpsc::Receiver<Vec<Opened>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Ahead {
    /// The next round; none when no more comes.
    ///
    /// # Errors
    /// Opening has ended by a fault of its own.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Opened>>> {
        if let Some(round) = self.rounds.recv().await {
            return Ok(Some(round));
        }
        // It has let go of its end, so that it ends now if it has not yet.
        match self.thread.take().map(thread::JoinHandle::join) {
            Some(Err(_)) => Err(anyhow!("the thread that opens messages panicked")),
            Some(Ok(())) | None => Ok(None),
        }
    }
}

/// Does something with each of a list, on so many threads when there are many. The results stand in the list's
/// order.
fn on_every_core<T: Send, R: Send>(
    mut list: Vec<T>,
    threads: usize,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    if list.len() <= ALONE_MAX {
        return list.into_iter().map(work).collect();
    }
    let part = list.len().div_ceil(threads.max(1));
    let work = &work;
    thread::scope(|scope| {
        let mut others = Vec::with_capacity(threads);
        while list.len() > part {
            let last = list.split_off(list.len() - part);
            others.push(scope.spawn(move || last.into_iter().map(work).collect::<Vec<R>>()));
        }
        let mut done: Vec<R> = list.into_iter().map(work).collect();
        for other in others.into_iter().rev() {
            match other.join() {
                Ok(part) => done.extend(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    })
}

/// Does something with each of a list, on every core when there are many. Those of one owner are done in order, on
/// one core.
pub(super) fn on_every_core_by<T: Sync>(
    list: &[T],
    owner: impl Fn(&T) -> usize + Sync,
    work: impl Fn(&T) + Sync,
) {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    if list.len() <= ALONE_MAX || threads == 1 {
        return list.iter().for_each(work);
    }
    let part = |at: usize| list.iter().filter(|one| owner(one) % threads == at).for_each(&work);
    let part = &part;
    // A panic in one of them goes on here.
    thread::scope(|scope| {
        for at in 1..threads {
            scope.spawn(move || part(at));
        }
        part(0);
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn work_on_every_core_keeps_the_order() {
        for (n, threads) in [(0, 2), (1, 2), (7, 2), (8, 2), (9, 4), (1000, 3), (8, 100), (8, 0)] {
            let doubled = on_every_core((0..n).collect(), threads, |at: u32| at * 2);
            assert_eq!(doubled, (0..n).map(|at| at * 2).collect::<Vec<_>>());
        }
    }

    #[test]
    fn those_of_one_owner_are_done_in_order() {
        let list: Vec<(usize, u32)> = (0..1000).map(|at| (at as usize % 7, at)).collect();
        let done = Mutex::new(Vec::new());
        on_every_core_by(&list, |one| one.0, |one| done.lock().unwrap().push(*one));
        let mut done = done.into_inner().unwrap();
        for owner in 0..7 {
            let of: Vec<u32> = done.iter().filter(|one| one.0 == owner).map(|one| one.1).collect();
            assert!(of.is_sorted(), "{of:?}");
        }
        done.sort_unstable_by_key(|one| one.1);
        assert_eq!(done, list);
    }
}
