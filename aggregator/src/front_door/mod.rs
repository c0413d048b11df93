//! Where agents connect: a TCP service that ends MQTT 3.1.1 itself and hands payloads to the broker's links.
//!
//! Agents never reach the broker's router, so nothing they send can harm it. What is accepted: a clean
//! session under an agent's id, PUBLISH (QoS 0 or 1) on the agent's own `up` topic, SUBSCRIBE to its own
//! `down` topic; everything else is refused with the code MQTT has for it, or by closing. A PUBACK says that
//! the broker has the message; only the aggregator's signed receipt says that it is stored.
//!
//! Elsewhere than on a loopback address the door opens with TLS only ([`DoorTls`]). Whose certificate may be
//! which agent is judged at every CONNECT by the [`Roll`]; whoever is put out loses its session at once.
//!
//! Until a connection has proved who it is it costs little, in memory, time and number, in all and from its
//! address; after that one session an agent is what bounds it, since a county's clinics may share an address.

mod admit;
mod counters;
mod frame;
mod registry;
mod session;
#[cfg(test)]
mod tests;
mod tls;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use banyan_shared::ids::AgentId;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

pub use counters::{Cause, CounterValues, Counters};
pub use registry::{DOWN_QUEUE_MESSAGES, Registry};
use session::Peer;
pub use tls::DoorTls;
use tls::Proof;

use crate::broker::Uplink;
use crate::intake::Clock;
use crate::roll::{Roll, Standing};

/// What the door allows.
#[derive(Clone, Debug)]
pub struct DoorConfig {
    /// Connections open at once, those before CONNECT included.
    pub connections_max: usize,
    /// Of these, those that have not proved yet who they are.
    pub unproven_max: usize,
    /// Of these, those from one address: a county's clinics may share one and return all at once.
    pub unproven_per_address_max: usize,
    /// How long things may take.
    pub timeouts: Timeouts,
}

/// How long things may take.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// From the connection to a whole CONNECT, TLS included.
    pub connect: Duration,
    /// From the first to the last byte of a packet.
    pub packet: Duration,
    /// A session without an issued certificate, as a whole.
    pub first_contact: Duration,
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
            unproven_max: 6_000,
            unproven_per_address_max: 3_000,
            timeouts: Timeouts {
                connect: Duration::from_secs(10),
                // The largest packet on a line of 1 KB/s.
                packet: Duration::from_secs(5 * 60),
                first_contact: Duration::from_secs(5 * 60),
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
        "MQTT address {addr}: plain MQTT is for loopback addresses only; write mqtts://{addr}\
         （明文 MQTT 只限本机回环地址，请改用 mqtts://{addr}）"
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

/// Who is let in, and how that is told.
#[derive(Clone)]
pub struct Entrance {
    /// The agents known here.
    pub roll: Arc<Roll>,
    /// TLS; none for plain MQTT on a loopback address, where whoever is on this machine is believed.
    pub tls: Option<Arc<DoorTls>>,
    /// By which certificates expire.
    pub clock: Clock,
}

/// What all sessions share.
pub(crate) struct Shared {
    pub(crate) config: DoorConfig,
    pub(crate) uplink: Uplink,
    pub(crate) registry: Arc<Registry>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) roll: Arc<Roll>,
    clock: Clock,
    tls: Option<Arc<DoorTls>>,
    /// Connections by address that have not proved yet who they are.
    unproven: Mutex<HashMap<IpAddr, usize>>,
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
        entrance: Entrance,
    ) -> Result<Self, DoorError> {
        if entrance.tls.is_none() && !addr.ip().is_loopback() {
            return Err(DoorError::NotLoopback { addr });
        }
        let refused = |source| DoorError::Listen { addr, source };
        let listener = TcpListener::bind(addr).await.map_err(refused)?;
        let local_addr = listener.local_addr().map_err(refused)?;
        let counters = Arc::clone(registry.counters());
        let Entrance { roll, tls, clock } = entrance;
        let unproven = Mutex::default();
        let shared =
            Arc::new(Shared { config, uplink, registry, counters, roll, clock, tls, unproven });
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
        let mut revocations = self.shared.roll.revocations();
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                // The door holds the roll, so that this never ends.
                told = revocations.recv() => self.put_out(told),
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
            Err(cause) => return shared.refuse(cause, peer, None, &"before anything was read"),
        };
        counters::add(&shared.counters.accepted, 1);
        sessions.spawn(async move {
            let seat = seat;
            // Answers are small and waited for.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "a connection was gone before it began");
                return;
            }
            Self::serve(stream, &seat).await;
        });
    }

    /// Ends the session of an agent that was put out; of all such, if some were missed.
    fn put_out(&self, told: Result<AgentId, broadcast::error::RecvError>) {
        let Shared { registry, roll, .. } = &*self.shared;
        match told {
            Ok(agent) => registry.dismiss(agent),
            Err(_) => registry
                .agents()
                .into_iter()
                .filter(|agent| roll.standing(*agent) == Standing::Revoked)
                .for_each(|agent| registry.dismiss(agent)),
        }
    }

    /// Runs one connection to its end: the handshake, if there is TLS, and the session.
    async fn serve(stream: TcpStream, seat: &Seat) {
        let shared = &*seat.shared;
        let deadline = Instant::now() + shared.config.timeouts.connect;
        let end = match &shared.tls {
            None => session::serve(stream, &Peer::new(seat, Proof::Plain, deadline), shared).await,
            Some(tls) => {
                // A handshake takes more memory than a session has use for afterwards.
                let stream = match timeout_at(deadline, Box::pin(tls.accept(stream))).await {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => return shared.refuse(Cause::Tls, seat.peer, None, &error),
                    Err(late) => {
                        return shared.refuse(Cause::ConnectTimeout, seat.peer, None, &late);
                    }
                };
                counters::add(&shared.counters.handshakes, 1);
                if stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
                    counters::add(&shared.counters.resumed, 1);
                }
                let proof = tls.proof(&stream, (shared.clock)());
                session::serve(stream, &Peer::new(seat, proof, deadline), shared).await
            }
        };
        tracing::debug!(?end, peer = %seat.peer, "an MQTT connection ended");
    }
}

impl Shared {
    /// Counts a refusal and tells of it, of each cause once in a while: whoever is refused must not be able
    /// to fill the disk with it.
    pub(crate) fn refuse(
        &self,
        cause: Cause,
        peer: IpAddr,
        agent: Option<AgentId>,
        detail: &dyn std::fmt::Display,
    ) {
        if let Some(since) = self.counters.refuse(cause, (self.clock)()) {
            let agent = agent.map(tracing::field::display);
            let code = cause.code();
            tracing::info!(%peer, agent, code, since, "connection refused: {} ({detail})", cause.en());
        }
    }
}

/// A connection's place among those of the door and of its address.
pub(crate) struct Seat {
    shared: Arc<Shared>,
    peer: IpAddr,
    unproven: AtomicBool,
}

impl Seat {
    fn take(shared: &Arc<Shared>, peer: IpAddr) -> Result<Self, Cause> {
        let mut unproven = shared.unproven.lock().unwrap_or_else(PoisonError::into_inner);
        let (config, counters) = (&shared.config, &shared.counters);
        if counters.connections.load(Ordering::Relaxed) >= config.connections_max as u64 {
            return Err(Cause::DoorFull);
        }
        if counters.unproven.load(Ordering::Relaxed) >= config.unproven_max as u64 {
            return Err(Cause::UnprovenFull);
        }
        let here = unproven.entry(peer).or_default();
        if *here >= config.unproven_per_address_max {
            return Err(Cause::AddressFull);
        }
        *here += 1;
        counters::add(&counters.connections, 1);
        counters::add(&counters.unproven, 1);
        Ok(Self { shared: Arc::clone(shared), peer, unproven: AtomicBool::new(true) })
    }

    /// The connection has proved who it is, or is over.
    pub(crate) fn prove(&self) {
        if !self.unproven.swap(false, Ordering::Relaxed) {
            return;
        }
        let mut unproven = self.shared.unproven.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.counters.unproven.fetch_sub(1, Ordering::Relaxed);
        if let Some(here) = unproven.get_mut(&self.peer) {
            *here -= 1;
            if *here == 0 {
                unproven.remove(&self.peer);
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.prove();
        self.shared.counters.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
