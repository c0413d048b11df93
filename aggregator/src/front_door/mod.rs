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
//! address, and gives way when others come ([`seats`]); after that one session an agent is what bounds it,
//! since a county's clinics may share an address, how fast it may go on ([`Rates`]), and how much of it may wait
//! for the intake (`share`).

mod admit;
mod contest;
mod counters;
mod frame;
mod rates;
mod registry;
mod seats;
mod session;
mod sessions;
mod share;
#[cfg(test)]
mod tests;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use banyan_shared::ids::AgentId;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use contest::Contest;
pub use counters::{Cause, CounterValues, Counters};
pub use rates::Rates;
pub use registry::{DOWN_QUEUE_MESSAGES, Registry};
use seats::{Caps, Seat, Seats};
use session::Peer;
pub use share::{SHARE_BYTES, SHARE_MESSAGES};
pub use tls::DoorTls;
use tls::Proof;

use crate::broker::Uplink;
use crate::intake::Clock;
use crate::roll::{Roll, Standing};
use crate::seldom::Seldom;

/// What the door allows.
#[derive(Clone, Debug)]
pub struct DoorConfig {
    /// Connections open at once, those before CONNECT included.
    pub connections_max: usize,
    /// Of these, those that have not proved yet who they are.
    pub unproven_max: usize,
    /// Of these, those from one address: a county's clinics may share one and return all at once.
    pub unproven_per_address_max: usize,
    /// How fast a session may go on.
    pub rates: Rates,
    /// How long things may take.
    pub timeouts: Timeouts,
}

/// How long things may take.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// From the connection to a whole CONNECT, TLS included; what a handshake waits for its turn is not the
    /// client's time.
    pub connect: Duration,
    /// From the first to the last byte of a packet.
    pub packet: Duration,
    /// A session without an issued certificate, as a whole.
    pub first_contact: Duration,
    /// A write to a client, until some of it has gone. A whole message has the time of a packet.
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
            // What a year of a hospital's reports takes is a burst of it.
            rates: Rates {
                packets: 100,
                packets_burst: 2_000,
                bytes: 256 * 1024,
                bytes_burst: 2 * 1024 * 1024,
            },
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
    seats: Arc<Seats>,
}

/// The open door.
pub struct FrontDoor {
    listener: TcpListener,
    local_addr: SocketAddr,
    shared: Arc<Shared>,
    /// What the system refused to give.
    refused: Seldom,
}

/// How long the door waits after the system refused to give it a connection (no descriptors left), so that
/// it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections the system may hold ready for the door: a herd that returns at once, and more than tokio's
/// 1,024, beyond which the system forgets some without telling the client. It may allow fewer (`somaxconn`).
const BACKLOG: u32 = 4_096;

fn listen(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restarted aggregator gets its port back while connections of the one before still fade. On Windows
    // the option would let others take the port.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

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
        let listener = listen(addr).map_err(refused)?;
        let local_addr = listener.local_addr().map_err(refused)?;
        let shared = Arc::new(Shared::new(config, uplink, registry, entrance));
        Ok(Self { listener, local_addr, shared, refused: Seldom::default() })
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
        // A newcomer for whom there is no place as long as all who hold one wait for us.
        let mut waiting: Option<(TcpStream, IpAddr)> = None;
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
                () = self.shared.seats.changed(), if waiting.is_some() => {
                    if let Some((stream, peer)) = waiting.take() {
                        waiting = self.admit(stream, peer, &mut sessions);
                    }
                }
                taken = self.listener.accept(), if waiting.is_none() => match taken {
                    Ok((stream, peer)) => waiting = self.admit(stream, peer.ip(), &mut sessions),
                    Err(error) => {
                        if let Some(since) = self.refused.due((self.shared.clock)()) {
                            tracing::warn!(%error, since, "cannot take MQTT connections for a moment");
                        }
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        sessions.shutdown().await;
    }

    /// Gives a newcomer a place and lets it begin, or refuses it; what has to wait for a place is given back.
    fn admit(
        &self,
        stream: TcpStream,
        peer: IpAddr,
        sessions: &mut JoinSet<()>,
    ) -> Option<(TcpStream, IpAddr)> {
        let shared = Arc::clone(&self.shared);
        // A place is taken before the task runs, so that a burst cannot slip past the caps.
        let seat = match shared.seats.take(peer) {
            Ok(seat) => seat,
            Err(Cause::UnprovenFull) => return Some((stream, peer)),
            Err(cause) => {
                shared.refuse(cause, peer, None, &"before anything was read");
                return None;
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
            tokio::select! {
                biased;
                cause = seat.put_out() => {
                    shared.refuse(cause, peer, None, &"to make room for others");
                }
                () = Self::serve(stream, &seat, &shared) => {}
            }
        });
        None
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
    async fn serve(stream: TcpStream, seat: &Seat, shared: &Shared) {
        let mut patience = shared.config.timeouts.connect;
        let end = match &shared.tls {
            None => {
                let peer = Peer::new(seat, Proof::Plain, Instant::now() + patience);
                session::serve(stream, &peer, shared).await
            }
            Some(tls) => {
                // A handshake takes more memory than a session has use for afterwards.
                let stream = match Box::pin(tls.accept(stream, seat, &mut patience)).await {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => return shared.refuse(Cause::Tls, seat.peer(), None, &error),
                    Err(late) => {
                        return shared.refuse(Cause::ConnectTimeout, seat.peer(), None, &late);
                    }
                };
                let deadline = Instant::now() + patience;
                counters::add(&shared.counters.handshakes, 1);
                if stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
                    counters::add(&shared.counters.resumed, 1);
                }
                let proof = tls.proof(&stream, (shared.clock)());
                session::serve(stream, &Peer::new(seat, proof, deadline), shared).await
            }
        };
        tracing::debug!(?end, peer = %seat.peer(), "an MQTT connection ended");
    }
}

impl Shared {
    pub(crate) fn new(
        config: DoorConfig,
        uplink: Uplink,
        registry: Arc<Registry>,
        entrance: Entrance,
    ) -> Self {
        let counters = Arc::clone(registry.counters());
        let caps = Caps {
            connections: config.connections_max,
            unproven: config.unproven_max,
            unproven_per_address: config.unproven_per_address_max,
        };
        let seats = Seats::new(caps, Arc::clone(&counters));
        let Entrance { roll, tls, clock } = entrance;
        Self { config, uplink, registry, counters, roll, clock, tls, seats }
    }

    /// The agent's identity is used twice: tells whoever looks after identities.
    pub(crate) fn contested(&self, agent: AgentId, contest: Contest) {
        counters::add(&self.counters.contested, 1);
        let Contest { addresses, take_overs } = &contest;
        tracing::warn!(%agent, ?addresses, take_overs, "two connections push each other off: two machines use one identity");
        self.roll.contest(agent, (self.clock)(), contest);
    }

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
