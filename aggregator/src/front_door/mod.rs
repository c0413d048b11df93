//! Where agents connect: a TCP service that ends MQTT 3.1.1 itself and hands payloads to the broker's links.
//!
//! Agents never reach the broker's router, so nothing they send can harm it. What is accepted: a clean
//! session under an agent's id, PUBLISH (QoS 0 or 1) on the agent's own `up` topic, SUBSCRIBE to its own
//! `down` topic; everything else is refused with the code MQTT has for it, or by closing. A PUBACK says that
//! the broker has the message; only the aggregator's signed receipt says that it is stored.
//!
//! Until TLS and identities exist here the door listens on loopback addresses only. A session runs over any
//! stream ([`FrontDoor::serve`]), so that TLS slots in before it.

mod counters;
mod frame;
mod registry;
mod session;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

pub use counters::{Cause, CounterValues, Counters};
pub use registry::{DOWN_QUEUE_MESSAGES, Registry};

use crate::broker::Uplink;

/// What the door allows.
#[derive(Clone, Debug)]
pub struct DoorConfig {
    /// Connections open at once, those before CONNECT included.
    pub connections_max: usize,
    /// Connections open at once from one address: a county's clinics may share one.
    pub connections_per_address_max: usize,
    /// How long things may take.
    pub timeouts: Timeouts,
}

/// How long things may take.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// From the connection to a whole CONNECT.
    pub connect: Duration,
    /// One write to a client.
    pub write: Duration,
    /// For a present session to leave when its agent connects anew.
    pub take_over: Duration,
    /// Silence of a client that asked for no keep-alive; others get one and a half times theirs.
    pub idle_without_keep_alive: Duration,
    /// For the last bytes when a connection is closed.
    pub close: Duration,
}

impl Default for DoorConfig {
    fn default() -> Self {
        Self {
            connections_max: 30_000,
            connections_per_address_max: 25_000,
            timeouts: Timeouts {
                connect: Duration::from_secs(10),
                write: Duration::from_secs(30),
                take_over: Duration::from_secs(10),
                idle_without_keep_alive: Duration::from_secs(30 * 60),
                close: Duration::from_secs(5),
            },
        }
    }
}

/// Why the door cannot open.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The address can be reached from elsewhere.
    #[error(
        "MQTT address {addr}: not a loopback address; agents' connections are not encrypted yet, so only \
         127.0.0.1 or [::1] is allowed（MQTT 地址 {addr} 不是本机回环地址：连接尚未加密，只能使用 127.0.0.1 或 [::1]）"
    )]
    NotLoopback {
        /// The address asked for.
        addr: SocketAddr,
    },
    /// The system refused the address.
    #[error(
        "MQTT address {addr}: cannot listen（无法监听）: {source}; free the address or choose another with --mqtt-addr"
    )]
    Listen {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What all sessions share.
pub(crate) struct Shared {
    pub(crate) config: DoorConfig,
    pub(crate) uplink: Uplink,
    pub(crate) registry: Arc<Registry>,
    pub(crate) counters: Arc<Counters>,
    per_address: Mutex<HashMap<IpAddr, usize>>,
}

/// The open door.
pub struct FrontDoor {
    listener: TcpListener,
    local_addr: SocketAddr,
    shared: Arc<Shared>,
}

/// How long the door waits after the system refused to give it a connection (no descriptors left), so that
/// it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl FrontDoor {
    /// Listens on `addr` (port 0 for any) and hands what comes to `uplink`; sessions enter `registry`, which
    /// the broker delivers to.
    pub async fn bind(
        addr: SocketAddr,
        config: DoorConfig,
        uplink: Uplink,
        registry: Arc<Registry>,
    ) -> Result<Self, DoorError> {
        if !addr.ip().is_loopback() {
            return Err(DoorError::NotLoopback { addr });
        }
        let refused = |source| DoorError::Listen { addr, source };
        let listener = TcpListener::bind(addr).await.map_err(refused)?;
        let local_addr = listener.local_addr().map_err(refused)?;
        let counters = Arc::clone(registry.counters());
        let per_address = Mutex::default();
        let shared = Arc::new(Shared { config, uplink, registry, counters, per_address });
        Ok(Self { listener, local_addr, shared })
    }

    /// Where the door listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The counters, also of sessions.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.shared.counters)
    }

    /// Takes connections until `stop` is ready, then ends all sessions.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let mut sessions = JoinSet::new();
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(ended) = sessions.join_next(), if !sessions.is_empty() => {
                    if let Err(error) = ended && error.is_panic() {
                        counters::add(&self.shared.counters.panics, 1);
                        tracing::error!(%error, "an MQTT session panicked; the others go on");
                    }
                }
                taken = self.listener.accept() => match taken {
                    Ok((stream, peer)) => self.admit(stream, peer.ip(), &mut sessions),
                    Err(error) => {
                        tracing::warn!(%error, "cannot take MQTT connections for a moment");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        sessions.shutdown().await;
    }

    fn admit(&self, stream: TcpStream, peer: IpAddr, sessions: &mut JoinSet<()>) {
        let shared = Arc::clone(&self.shared);
        // A place is taken before the task runs, so that a burst cannot slip past the caps.
        let seat = match Seat::take(&shared, peer) {
            Ok(seat) => seat,
            Err(cause) => {
                shared.counters.refuse(cause);
                return;
            }
        };
        counters::add(&shared.counters.accepted, 1);
        sessions.spawn(async move {
            let seat = seat;
            // Answers are small and waited for.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "a connection was gone before it began");
                return;
            }
            Self::serve(stream, &seat.shared).await;
        });
    }

    /// Runs one session over `stream` to its end: plain TCP now, the same behind TLS.
    async fn serve<S>(stream: S, shared: &Shared)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let end = session::serve(stream, shared).await;
        tracing::debug!(?end, "an MQTT connection ended");
    }
}

/// A connection's place among those of the door and of its address.
struct Seat {
    shared: Arc<Shared>,
    peer: IpAddr,
}

impl Seat {
    fn take(shared: &Arc<Shared>, peer: IpAddr) -> Result<Self, Cause> {
        let mut per_address = shared.per_address.lock().unwrap_or_else(PoisonError::into_inner);
        let open = shared.counters.connections.load(Ordering::Relaxed);
        if open >= shared.config.connections_max as u64 {
            return Err(Cause::DoorFull);
        }
        let here = per_address.entry(peer).or_default();
        if *here >= shared.config.connections_per_address_max {
            return Err(Cause::AddressFull);
        }
        *here += 1;
        counters::add(&shared.counters.connections, 1);
        Ok(Self { shared: Arc::clone(shared), peer })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut per_address =
            self.shared.per_address.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.counters.connections.fetch_sub(1, Ordering::Relaxed);
        if let Some(here) = per_address.get_mut(&self.peer) {
            *here -= 1;
            if *here == 0 {
                per_address.remove(&self.peer);
            }
        }
    }
}
