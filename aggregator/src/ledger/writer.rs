//! The thread that writes: one commit, one fsync, for everything that has arrived meanwhile.
//!
//! A submission is committed whole or not at all, in the order of arrival. Answers go out only after COMMIT
//! has returned. A failed commit fails its submissions, never the thread: the next group begins by reading
//! again what is on disk.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};

use banyan_shared::ids::{Millis, Position};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc, oneshot, watch};

use super::chain::Hash;
use super::error::LedgerError;
use super::read::LedgerReader;
use super::store::{Ledger, check_submission, group_is_full};
use super::{Committed, NewRow, QUEUE_BYTES_MAX, QUEUE_SUBMISSIONS_MAX, StoreIdentity};

/// What a row costs in the queue beside its content, in bytes.
const ROW_OVERHEAD: usize = 96;

/// Why a submission was not committed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// The writer has been stopped; nothing was written.
    #[error("the ledger's writer has been stopped")]
    Stopped,
    /// The queue is at its limit; nothing was taken. Only the calls that do not wait say so.
    #[error(
        "the ledger's queue is full ({QUEUE_SUBMISSIONS_MAX} submissions or {QUEUE_BYTES_MAX} bytes); try again"
    )]
    Busy,
    /// The commit failed; the rows are not to be acknowledged. They may be submitted again.
    #[error(transparent)]
    Failed(Arc<LedgerError>),
}

impl From<LedgerError> for CommitError {
    fn from(error: LedgerError) -> Self {
        Self::Failed(Arc::new(error))
    }
}

/// A submission on its way.
#[must_use = "rows count as committed only when this answers"]
pub struct PendingCommit(oneshot::Receiver<Result<Committed, CommitError>>);

impl PendingCommit {
    /// Waits for the commit. To be used outside an asynchronous task; inside, `.await` the value itself.
    ///
    /// # Errors
    /// As [`CommitError`] says.
    pub fn wait(self) -> Result<Committed, CommitError> {
        block_on(self)
    }
}

impl Future for PendingCommit {
    type Output = Result<Committed, CommitError>;

    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        pin!(&mut self.0).poll(context).map(|answer| answer.unwrap_or(Err(CommitError::Stopped)))
    }
}

enum Job {
    Commit(Submission),
    Verified(Position, Hash, oneshot::Sender<Result<(), CommitError>>),
    Stop,
}

struct Submission {
    rows: Vec<NewRow>,
    weight: usize,
    answer: oneshot::Sender<Result<Committed, CommitError>>,
    /// Gives the bytes back to the queue's limit when the submission is answered.
    _room: OwnedSemaphorePermit,
}

/// Submits rows to a running [`LedgerWriter`]; clone it freely.
#[derive(Clone)]
pub struct LedgerHandle {
    queue: mpsc::Sender<Job>,
    room: Arc<Semaphore>,
    committed: watch::Receiver<Position>,
    dir: PathBuf,
    identity: StoreIdentity,
}

impl LedgerHandle {
    /// Queues `rows` to be committed together, waiting while the queue is at its limit.
    ///
    /// # Errors
    /// [`CommitError::Stopped`], or [`CommitError::Failed`] when a row or the submission is too large.
    pub async fn submit_async(&self, rows: Vec<NewRow>) -> Result<PendingCommit, CommitError> {
        let weight = weigh(&rows)?;
        let room = Arc::clone(&self.room)
            .acquire_many_owned(weight as u32)
            .await
            .map_err(|_| CommitError::Stopped)?;
        let (job, pending) = job(rows, weight, room);
        self.queue.send(job).await.map_err(|_| CommitError::Stopped)?;
        Ok(pending)
    }

    /// As [`LedgerHandle::submit_async`], for plain threads: blocks while the queue is at its limit.
    ///
    /// # Errors
    /// As [`LedgerHandle::submit_async`].
    pub fn submit(&self, rows: Vec<NewRow>) -> Result<PendingCommit, CommitError> {
        block_on(self.submit_async(rows))
    }

    /// Queues `rows` only if there is room now.
    ///
    /// # Errors
    /// [`CommitError::Busy`] when there is none; otherwise as [`LedgerHandle::submit_async`].
    pub fn try_submit(&self, rows: Vec<NewRow>) -> Result<PendingCommit, CommitError> {
        let weight = weigh(&rows)?;
        let room =
            Arc::clone(&self.room).try_acquire_many_owned(weight as u32).map_err(|e| match e {
                TryAcquireError::Closed => CommitError::Stopped,
                TryAcquireError::NoPermits => CommitError::Busy,
            })?;
        let (job, pending) = job(rows, weight, room);
        self.queue.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => CommitError::Busy,
            mpsc::error::TrySendError::Closed(_) => CommitError::Stopped,
        })?;
        Ok(pending)
    }

    /// Submits and waits for the commit.
    ///
    /// # Errors
    /// As [`CommitError`] says.
    pub async fn commit(&self, rows: Vec<NewRow>) -> Result<Committed, CommitError> {
        self.submit_async(rows).await?.await
    }

    /// Remembers that the chain was checked through `position`.
    ///
    /// # Errors
    /// As [`CommitError`] says.
    pub async fn remember_verified(
        &self,
        position: Position,
        hash: Hash,
    ) -> Result<(), CommitError> {
        let (answer, answered) = oneshot::channel();
        self.queue
            .send(Job::Verified(position, hash, answer))
            .await
            .map_err(|_| CommitError::Stopped)?;
        answered.await.unwrap_or(Err(CommitError::Stopped))
    }

    /// Follows the last committed position.
    pub fn committed(&self) -> watch::Receiver<Position> {
        self.committed.clone()
    }

    /// A reader on a connection of its own.
    ///
    /// # Errors
    /// As [`LedgerReader::open`].
    pub fn reader(&self) -> Result<LedgerReader, LedgerError> {
        LedgerReader::open(&self.dir)
    }

    /// Which ledger this is.
    pub fn identity(&self) -> StoreIdentity {
        self.identity
    }

    /// The directory the ledger stands in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Owns the ledger's writing thread. Dropping it lets the thread end once every handle is gone.
pub struct LedgerWriter {
    handle: LedgerHandle,
    thread: JoinHandle<Ledger>,
}

impl LedgerWriter {
    /// Starts the thread; `clock` tells the moment of each commit.
    ///
    /// # Errors
    /// [`LedgerError::WriterGone`] when the system starts no thread.
    pub fn start(
        ledger: Ledger,
        clock: impl Fn() -> Millis + Send + 'static,
    ) -> Result<Self, LedgerError> {
        let (queue, jobs) = mpsc::channel(QUEUE_SUBMISSIONS_MAX);
        let (progress, committed) = watch::channel(ledger.head().position);
        let room = Arc::new(Semaphore::new(QUEUE_BYTES_MAX));
        let handle = LedgerHandle {
            queue,
            room,
            committed,
            dir: ledger.dir().to_owned(),
            identity: ledger.identity(),
        };
        let thread = thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || run(ledger, jobs, &progress, clock))
            .map_err(|error| LedgerError::WriterGone { reason: error.to_string() })?;
        Ok(Self { handle, thread })
    }

    /// A handle to submit with.
    pub fn handle(&self) -> LedgerHandle {
        self.handle.clone()
    }

    /// Commits what is queued before this call, refuses the rest and gives the ledger back.
    ///
    /// Blocks for that long.
    ///
    /// # Errors
    /// [`LedgerError::WriterGone`] when the thread had panicked.
    pub fn stop(self) -> Result<Ledger, LedgerError> {
        let Self { handle, thread } = self;
        // An error means the thread has ended already; joining it says how.
        let _ = block_on(handle.queue.send(Job::Stop));
        drop(handle);
        thread
            .join()
            .map_err(|_| LedgerError::WriterGone { reason: "its thread panicked".to_owned() })
    }
}

fn weigh(rows: &[NewRow]) -> Result<usize, CommitError> {
    check_submission(rows)?;
    Ok(rows.iter().map(|row| row.weight() + ROW_OVERHEAD).sum())
}

fn job(rows: Vec<NewRow>, weight: usize, room: OwnedSemaphorePermit) -> (Job, PendingCommit) {
    let (answer, answered) = oneshot::channel();
    (Job::Commit(Submission { rows, weight, answer, _room: room }), PendingCommit(answered))
}

fn run(
    mut ledger: Ledger,
    mut jobs: mpsc::Receiver<Job>,
    progress: &watch::Sender<Position>,
    clock: impl Fn() -> Millis,
) -> Ledger {
    let mut group: Vec<Submission> = Vec::new();
    let mut stopping = false;
    while !stopping {
        let Some(job) = jobs.blocking_recv() else { break };
        let mut next = Some(job);
        let (mut rows, mut bytes) = (0, 0);
        let mut verified = Vec::new();
        while let Some(job) = next.take() {
            match job {
                Job::Commit(submission) => {
                    rows += submission.rows.len();
                    bytes += submission.weight;
                    group.push(submission);
                }
                Job::Verified(position, hash, answer) => verified.push((position, hash, answer)),
                Job::Stop => {
                    stopping = true;
                    break;
                }
            }
            if !group_is_full(rows, bytes) {
                next = jobs.try_recv().ok();
            }
        }
        commit(&mut ledger, &mut group, progress, &clock);
        for (position, hash, answer) in verified {
            // Nobody need be waiting any more.
            let _ =
                answer.send(ledger.remember_verified(position, hash).map_err(CommitError::from));
        }
    }
    ledger
}

fn commit(
    ledger: &mut Ledger,
    group: &mut Vec<Submission>,
    progress: &watch::Sender<Position>,
    clock: &impl Fn() -> Millis,
) {
    if group.is_empty() {
        return;
    }
    let rows = group.iter().flat_map(|submission| &submission.rows);
    match ledger.commit_group(rows, clock()) {
        Ok(committed) => {
            let mut first = committed.positions.start;
            for submission in group.drain(..) {
                let end = first + submission.rows.len() as u64;
                // Whoever asked may be gone; the rows are committed all the same.
                let _ = submission.answer.send(Ok(Committed {
                    positions: first..end,
                    received_at: committed.received_at,
                }));
                first = end;
            }
            progress.send_replace(ledger.head().position);
        }
        Err(error) => {
            tracing::error!(%error, submissions = group.len(), "nothing of this commit was kept");
            let error = CommitError::from(error);
            for submission in group.drain(..) {
                let _ = submission.answer.send(Err(error.clone()));
            }
        }
    }
}

/// Runs a future on a plain thread.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
