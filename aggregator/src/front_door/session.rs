//! One MQTT session, over any stream: from the first byte to the end.
//!
//! The session knows one agent, checked at CONNECT; its two topics are built from that id and nothing the
//! client writes ever becomes a topic. It never reaches the broker but by handing over a payload.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use banyan_shared::ids::AgentId;
use banyan_shared::limits::{PACKET_BYTES_MAX, PACKET_CONNECT_BYTES_MAX, PAYLOAD_BYTES_MAX};
use banyan_shared::topic;
use banyan_shared::wire::{Envelope, Kind};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::admit::{Scope, admit};
use super::counters::{Cause, Counters, Open, add};
use super::frame::{self, ConnectCode, FrameError, Inbound};
use super::registry::Entry;
use super::tls::Proof;
use super::{Seat, Shared, Timeouts};
use crate::roll::Standing;

/// An idle session's read buffer, in bytes.
const READ_BYTES_IDLE: usize = 512;
/// What the buffer grows by when a read has filled it, in bytes.
const READ_BYTES_STEP: usize = 16 * 1024;
/// Filters one SUBSCRIBE may name.
const FILTERS_MAX: usize = 8;
/// Messages a first contact may send: its request and its grants, some of them again.
const FIRST_CONTACT_MESSAGES_MAX: usize = 32;

/// Who is at the other end.
pub(crate) struct Peer<'a> {
    seat: Option<&'a Seat>,
    address: IpAddr,
    proof: Proof,
    /// By when a whole CONNECT has to be there.
    deadline: Instant,
}

impl<'a> Peer<'a> {
    pub(crate) fn new(seat: &'a Seat, proof: Proof, deadline: Instant) -> Peer<'a> {
        Peer { seat: Some(seat), address: seat.peer(), proof, deadline }
    }

    /// Notes whether the connection waits for its client from here on.
    fn idle(&self, idle: bool) {
        if let Some(seat) = self.seat {
            seat.idle(idle);
        }
    }

    /// One on this machine, without TLS or a place.
    #[cfg(test)]
    pub(super) fn plain(deadline: Instant) -> Peer<'static> {
        let address = IpAddr::from([127, 0, 0, 1]);
        Peer { seat: None, address, proof: Proof::Plain, deadline }
    }
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The client said DISCONNECT.
    Disconnected,
    /// The stream ended or broke.
    Closed,
    /// A newer connection of the same agent took its place, or the agent was dismissed.
    TakenOver,
    /// The door ended it.
    Refused(Cause),
}

/// Serves one stream to its end.
pub(crate) async fn serve<S>(stream: S, peer: &Peer<'_>, shared: &Shared) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut wire = Wire::new(stream, shared);
    let end = match run(&mut wire, peer, shared).await {
        Ok(end) | Err(end) => end,
    };
    match end {
        End::Refused(cause) => {
            shared.refuse(cause, peer.address, wire.agent, &"in a session");
        }
        End::TakenOver => add(&shared.counters.taken_over, 1),
        End::Disconnected | End::Closed => {}
    }
    wire.close().await;
    end
}

async fn run<S>(wire: &mut Wire<'_, S>, peer: &Peer<'_>, shared: &Shared) -> Result<End, End>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (agent, keep_alive) = Box::pin(connect(wire, peer)).await?;
    let scope = match admit(agent, peer.proof, shared.roll.standing(agent)) {
        Ok(scope) => scope,
        Err(cause) => return Err(wire.refuse(ConnectCode::NotAuthorised, cause).await),
    };
    let take_over_by = Instant::now() + shared.config.timeouts.take_over;
    let entering = shared.registry.enter(agent, peer.address, shared.config.rates, take_over_by);
    let Some(mut entry) = entering.await else {
        return Err(wire.refuse(ConnectCode::Unavailable, Cause::TakeoverTimeout).await);
    };
    // Put out after the look above, and before there was a session to be dismissed.
    let revoked = || peer.proof != Proof::Plain && shared.roll.standing(agent) == Standing::Revoked;
    if revoked() {
        return Err(wire.refuse(ConnectCode::NotAuthorised, Cause::Revoked).await);
    }
    if let Some(contest) = entry.contest.take() {
        shared.contested(agent, contest);
    }
    match peer.seat {
        Some(seat) if scope == Scope::Full => {
            if !seat.prove() {
                return Err(End::Refused(seat.put_out().await));
            }
        }
        _ => peer.idle(true),
    }
    let _open = Open::new(&shared.counters.sessions);
    let stop = Arc::clone(&entry.stop);
    tokio::select! {
        // Stopping at any await is safe: a message is acknowledged only after it was handed over.
        () = stop.notified() => match shared.roll.standing(agent) {
            Standing::Revoked => Err(End::Refused(Cause::Revoked)),
            Standing::Admitted(_) | Standing::Unknown => Ok(End::TakenOver),
        },
        end = converse(wire, shared, (agent, scope), keep_alive, &mut entry) => end,
    }
}

/// Reads and judges the CONNECT; answers it only if it is refused.
async fn connect<S>(wire: &mut Wire<'_, S>, peer: &Peer<'_>) -> Result<(AgentId, u16), End>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let packet = loop {
        match frame::read(&mut wire.input, PACKET_CONNECT_BYTES_MAX) {
            Ok(Some(packet)) => break packet,
            Ok(None) => {
                peer.idle(true);
                match timeout_at(peer.deadline, wire.fill()).await {
                    Ok(filled) => filled?,
                    Err(_) => return Err(End::Refused(Cause::ConnectTimeout)),
                };
                peer.idle(false);
            }
            Err(error) => return Err(End::Refused(error.into())),
        }
    };
    match packet {
        Inbound::Connect { client_id, clean_session, has_will, keep_alive } => {
            let agent = agent_id(&client_id);
            wire.agent = agent;
            let refused = match agent {
                None => (ConnectCode::ClientId, Cause::ClientId),
                Some(_) if !clean_session => (ConnectCode::NotAuthorised, Cause::PersistentSession),
                Some(_) if has_will => (ConnectCode::NotAuthorised, Cause::Will),
                Some(agent) => return Ok((agent, keep_alive)),
            };
            Err(wire.refuse(refused.0, refused.1).await)
        }
        Inbound::OtherVersion { level } => {
            tracing::debug!(level, "refused: another version of MQTT");
            Err(wire.refuse(ConnectCode::ProtocolVersion, Cause::ProtocolVersion).await)
        }
        _ => Err(End::Refused(Cause::Unexpected)),
    }
}

/// The agent a client id names, in its one spelling: twelve small hexadecimal digits.
fn agent_id(client_id: &str) -> Option<AgentId> {
    let agent: AgentId = client_id.parse().ok()?;
    (agent.to_string() == client_id).then_some(agent)
}

/// Whether a message is one by which an agent becomes known.
fn introduces(payload: &[u8]) -> bool {
    let kind = Envelope::read(payload).map(|envelope| envelope.kind);
    matches!(kind, Ok(Kind::Enrol | Kind::Introduce))
}

/// What the loop of a session waits for.
enum Next {
    /// So many were read.
    Bytes(usize),
    Down(Option<Bytes>),
    Late,
}

async fn converse<S>(
    wire: &mut Wire<'_, S>,
    shared: &Shared,
    (agent, scope): (AgentId, Scope),
    keep_alive: u16,
    entry: &mut Entry,
) -> Result<End, End>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let up_topic = topic::up(agent);
    let down_topic = topic::down(agent);
    let silence_max = match keep_alive {
        0 => shared.config.timeouts.idle_without_keep_alive,
        seconds => Duration::from_millis(u64::from(seconds) * 1500),
    };
    let Timeouts { packet: packet_max, first_contact, .. } = shared.config.timeouts;
    let over_at = (scope == Scope::FirstContact).then(|| Instant::now() + first_contact);
    let mut messages = 0;
    let mut subscribed = false;
    frame::connack(&mut wire.output, ConnectCode::Accepted);
    wire.flush().await?;
    entry.read.1 = wire.input.len();
    // Whether it was heard of since the last look; by when it has to be heard of again.
    let (mut heard, mut silent_at) = (true, Instant::now());
    // By when the packet begun has to be whole.
    let mut whole_by: Option<Instant> = None;
    loop {
        let wait = entry.wait();
        if !wait.is_zero() {
            add(&shared.counters.slowed, 1);
            tokio::time::sleep(wait).await;
        }
        while let Some(packet) = frame::read(&mut wire.input, PACKET_BYTES_MAX)? {
            whole_by = None;
            entry.read.0 += 1;
            match packet {
                Inbound::Publish { topic, qos, retain, packet_id, payload } => {
                    let refused = if qos > 1 {
                        Cause::Qos
                    } else if retain {
                        Cause::Retain
                    } else if topic != up_topic {
                        Cause::Topic
                    } else if payload.len() > PAYLOAD_BYTES_MAX {
                        Cause::TooLarge
                    } else if over_at.is_some()
                        && (messages == FIRST_CONTACT_MESSAGES_MAX || !introduces(&payload))
                    {
                        Cause::FirstContact
                    } else {
                        messages += 1;
                        // Waits while the intake is behind: the client is slowed by its own socket.
                        let share = match entry.share.try_take(payload.len()) {
                            Some(share) => Some(share),
                            None => {
                                add(&shared.counters.held_back, 1);
                                entry.share.take(payload.len()).await
                            }
                        };
                        if shared.uplink.send(agent, payload, share).await.is_err() {
                            return Err(End::Refused(Cause::Unavailable));
                        }
                        add(&shared.counters.messages_up, 1);
                        if qos == 1 {
                            frame::puback(&mut wire.output, packet_id);
                        }
                        continue;
                    };
                    return Err(End::Refused(refused));
                }
                Inbound::Subscribe { packet_id, filters } => {
                    if filters.len() > FILTERS_MAX {
                        return Err(End::Refused(Cause::Filters));
                    }
                    let granted: Vec<bool> = filters
                        .iter()
                        .map(|(path, qos)| *path == down_topic && *qos <= 1)
                        .collect();
                    subscribed |= granted.contains(&true);
                    let refused = granted.iter().filter(|granted| !**granted).count();
                    add(&shared.counters.filters_refused, refused);
                    frame::suback(&mut wire.output, packet_id, &granted);
                }
                Inbound::Unsubscribe { packet_id, filters } => {
                    subscribed &= !filters.contains(&down_topic);
                    frame::unsuback(&mut wire.output, packet_id);
                }
                Inbound::PingReq => frame::pingresp(&mut wire.output),
                // We send nothing that is acknowledged; an answer to nothing harms nobody.
                Inbound::PubAck => add(&shared.counters.acks_unsolicited, 1),
                Inbound::Disconnect => return Ok(End::Disconnected),
                Inbound::Connect { .. } | Inbound::OtherVersion { .. } | Inbound::Unexpected => {
                    return Err(End::Refused(Cause::Unexpected));
                }
            }
            if wire.output.len() >= READ_BYTES_STEP {
                wire.flush().await?;
            }
        }
        wire.flush().await?;
        wire.shrink();
        // However long its packets had to wait here, the time of its silence begins now.
        if std::mem::take(&mut heard) {
            silent_at = Instant::now() + silence_max;
        }
        if wire.input.is_empty() {
            whole_by = None;
        } else if whole_by.is_none() {
            whole_by = Some(Instant::now() + packet_max);
        }
        let (end_at, late) = [(whole_by, Cause::PacketTimeout), (over_at, Cause::FirstContact)]
            .into_iter()
            .filter_map(|(at, cause)| Some((at?, cause)))
            .fold((silent_at, Cause::Silent), |a, b| if b.0 < a.0 { b } else { a });
        let next = tokio::select! {
            filled = wire.fill() => Next::Bytes(filled?),
            message = entry.down.recv() => Next::Down(message),
            () = tokio::time::sleep_until(end_at) => Next::Late,
        };
        match next {
            Next::Bytes(read) => {
                entry.read.1 += read;
                heard = true;
            }
            Next::Late => return Err(End::Refused(late)),
            // The registry keeps the sending end while this session is entered.
            Next::Down(None) => return Ok(End::TakenOver),
            Next::Down(Some(message)) => {
                let mut next = Some(message);
                while let Some(message) = next {
                    if subscribed {
                        frame::publish(&mut wire.output, &down_topic, message);
                        add(&shared.counters.messages_down, 1);
                    } else {
                        add(&shared.counters.down_absent, 1);
                    }
                    next = entry.down.try_recv().ok();
                }
            }
        }
    }
}

impl From<FrameError> for Cause {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::TooLarge => Cause::TooLarge,
            FrameError::Malformed => Cause::Malformed,
        }
    }
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> Self {
        End::Refused(error.into())
    }
}

/// A stream with its buffers.
struct Wire<'a, S> {
    stream: S,
    input: BytesMut,
    output: BytesMut,
    /// The agent the client says it is, once that is known.
    agent: Option<AgentId>,
    counters: &'a Counters,
    timeouts: &'a Timeouts,
}

impl<'a, S> Wire<'a, S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn new(stream: S, shared: &'a Shared) -> Self {
        Self {
            stream,
            input: BytesMut::with_capacity(READ_BYTES_IDLE),
            output: BytesMut::new(),
            agent: None,
            counters: &shared.counters,
            timeouts: &shared.config.timeouts,
        }
    }

    /// Reads once and says how much; the buffer grows only when the last read filled it. Cancelling loses nothing.
    async fn fill(&mut self) -> Result<usize, End> {
        if self.input.len() == self.input.capacity() {
            let step = if self.input.is_empty() { READ_BYTES_IDLE } else { READ_BYTES_STEP };
            self.input.reserve(step);
        }
        match self.stream.read_buf(&mut self.input).await {
            Ok(0) | Err(_) => Err(End::Closed),
            Ok(n) => {
                add(&self.counters.bytes_in, n);
                Ok(n)
            }
        }
    }

    /// Writes out what waits.
    async fn flush(&mut self) -> Result<(), End> {
        if self.output.is_empty() {
            return Ok(());
        }
        let late = |_| End::Refused(Cause::WriteTimeout);
        let all_by = Instant::now() + self.timeouts.packet;
        while !self.output.is_empty() {
            let some_by = all_by.min(Instant::now() + self.timeouts.write);
            let writing = self.stream.write_buf(&mut self.output);
            match timeout_at(some_by, writing).await.map_err(late)? {
                Ok(0) | Err(_) => return Err(End::Closed),
                Ok(n) => add(&self.counters.bytes_out, n),
            }
        }
        // Over TLS some of it lies in a buffer still, and how much of that has gone is not told.
        match timeout_at(all_by, self.stream.flush()).await.map_err(late)? {
            Ok(()) => Ok(()),
            Err(_) => Err(End::Closed),
        }
    }

    /// Gives back what a burst made the buffers take.
    fn shrink(&mut self) {
        if self.input.is_empty() && self.input.capacity() > READ_BYTES_STEP {
            self.input = BytesMut::with_capacity(READ_BYTES_IDLE);
        }
        if self.output.is_empty() && self.output.capacity() > 0 {
            self.output = BytesMut::new();
        }
    }

    /// Answers a CONNECT with a refusal.
    async fn refuse(&mut self, code: ConnectCode, cause: Cause) -> End {
        frame::connack(&mut self.output, code);
        // Whether the client still hears the code changes nothing: the connection ends here.
        match self.flush().await {
            Ok(()) | Err(_) => End::Refused(cause),
        }
    }

    /// Ends the stream in order, within the time a close may take.
    async fn close(&mut self) {
        let closing = async {
            if self.output.is_empty() {
                self.stream.shutdown().await
            } else {
                self.stream.write_all_buf(&mut self.output).await?;
                self.stream.shutdown().await
            }
        };
        if timeout(self.timeouts.close, closing).await.is_err() {
            tracing::debug!("a connection did not close in time and was dropped");
        }
    }
}
