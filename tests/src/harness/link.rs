//! A line between agents and aggregator: a TCP proxy on loopback that can be cut, frozen and slowed.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Bytes carried at a time.
const CHUNK_BYTES: usize = 16 * 1024;
/// How long a connection to the far end may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What the line does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LineState {
    /// Carries bytes.
    #[default]
    Open,
    /// Carries nothing; connections stay, neither end is told.
    Frozen,
    /// Every connection is closed, new ones at once.
    Cut,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    line: LineState,
    delay: Duration,
    /// How often it was cut: a connection remembers under which number it was made.
    cuts: u64,
}

#[derive(Debug)]
struct Shared {
    target: Mutex<Option<SocketAddr>>,
    state: watch::Sender<State>,
    up: AtomicU64,
    down: AtomicU64,
    connections: AtomicU64,
}

/// The line. It serves from a thread of its own until dropped.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Link {
    /// Opens a line to nowhere yet.
    ///
    /// # Errors
    /// No port is free.
    pub fn open() -> Result<Link> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("line")
            .enable_all()
            .build()?;
        let listener = runtime
            .block_on(TcpListener::bind(("127.0.0.1", 0)))
            .context("opening the line on loopback")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target: Mutex::new(None),
            state: watch::Sender::new(State::default()),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        });
        runtime.spawn(accept(listener, shared.clone()));
        Ok(Link { address, shared, runtime: Some(runtime) })
    }

    /// Where agents connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads new connections to `target`.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(target);
    }

    /// Cuts the line: every connection ends, new ones at once.
    pub fn cut(&self) {
        self.shared.state.send_modify(|state| {
            state.line = LineState::Cut;
            state.cuts += 1;
        });
    }

    /// Lets nothing through, and tells neither end.
    pub fn freeze(&self) {
        self.shared.state.send_modify(|state| state.line = LineState::Frozen);
    }

    /// Carries again.
    pub fn restore(&self) {
        self.shared.state.send_modify(|state| state.line = LineState::Open);
    }

    /// Holds back every piece for `delay`, each way.
    pub fn set_delay(&self, delay: Duration) {
        self.shared.state.send_modify(|state| state.delay = delay);
    }

    /// What it does now.
    pub fn line(&self) -> LineState {
        self.shared.state.borrow().line
    }

    /// How often it was cut.
    pub fn cuts(&self) -> u64 {
        self.shared.state.borrow().cuts
    }

    /// Bytes carried to the aggregator and from it.
    pub fn bytes(&self) -> (u64, u64) {
        (self.shared.up.load(Ordering::Relaxed), self.shared.down.load(Ordering::Relaxed))
    }

    /// Connections made through it so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Also from within another runtime, where waiting is not allowed.
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((near, _)) => {
                tokio::spawn(carry(near, shared.clone()));
            }
            // Out of descriptors: others must close theirs first.
            Err(error) => {
                tracing::warn!(%error, "the line cannot take a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn carry(near: TcpStream, shared: Arc<Shared>) {
    let state = shared.state.subscribe();
    let begun = *state.borrow();
    let target = *shared.target.lock().unwrap_or_else(PoisonError::into_inner);
    let (Some(target), true) = (target, begun.line != LineState::Cut) else { return };
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(target)).await;
    let Ok(Ok(far)) = connected else { return };
    shared.connections.fetch_add(1, Ordering::Relaxed);
    // Whoever does not know the option is only slower.
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    // The connection ends as soon as one direction does: MQTT has no half-open ones.
    tokio::select! {
        () = pump(near_in, far_out, &shared.up, state.clone(), begun.cuts) => {}
        () = pump(far_in, near_out, &shared.down, state, begun.cuts) => {}
    }
}

/// Carries one direction until an end closes or the line is cut.
async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    carried: &AtomicU64,
    mut state: watch::Receiver<State>,
    cuts: u64,
) {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let now = *state.borrow_and_update();
        if now.cuts != cuts {
            return;
        }
        if now.line == LineState::Frozen {
            if state.changed().await.is_err() {
                return;
            }
            continue;
        }
        let read = tokio::select! {
            read = from.read(&mut chunk) => read,
            changed = state.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let Ok(bytes @ 1..) = read else { return };
        if !now.delay.is_zero() {
            tokio::time::sleep(now.delay).await;
        }
        // Frozen while these were held back: they wait with the rest.
        let passed = state.wait_for(|state| state.cuts != cuts || state.line == LineState::Open);
        match passed.await {
            Ok(state) if state.cuts == cuts => {}
            _ => return,
        }
        // Counted first: whoever has received them finds them counted.
        carried.fetch_add(bytes as u64, Ordering::Relaxed);
        if to.write_all(&chunk[..bytes]).await.is_err() {
            return;
        }
    }
}
