//! Bytes of MQTT 3.1.1 to packets and back: the only place that knows the codec (`rumqttc`'s), so that it
//! can be exchanged.
//!
//! On top of the codec it checks what that leaves out: the protocol level before anything behind it is
//! read (another level has other fields there), the reserved bits of every first byte, and that an UNSUBSCRIBE
//! names something.

use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::v4::{
    ConnAck, ConnectReturnCode, Packet, PubAck, Publish, SubAck, SubscribeReasonCode, UnsubAck,
};
use rumqttc::mqttbytes::{self, Error, QoS};

use banyan_shared::limits::PACKET_BYTES_MAX;

/// A packet from a client, as far as the door has to know it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Inbound {
    Connect {
        client_id: String,
        clean_session: bool,
        has_will: bool,
        /// Seconds; 0 for none.
        keep_alive: u16,
    },
    /// A CONNECT of another version of the protocol, not read further.
    OtherVersion {
        level: u8,
    },
    Publish {
        topic: String,
        /// 0, 1 or 2.
        qos: u8,
        retain: bool,
        /// 0 when `qos` is 0.
        packet_id: u16,
        /// A copy: keeping it does not keep the read buffer.
        payload: Bytes,
    },
    Subscribe {
        packet_id: u16,
        /// Filter and the quality of service asked for.
        filters: Vec<(String, u8)>,
    },
    Unsubscribe {
        packet_id: u16,
        filters: Vec<String>,
    },
    PubAck,
    PingReq,
    Disconnect,
    /// A packet only servers send, or one of quality of service 2.
    Unexpected,
}

/// Why bytes are not a packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FrameError {
    /// The packet says that it is larger than allowed.
    TooLarge,
    /// Not MQTT 3.1.1.
    Malformed,
}

/// Why a CONNECT is refused, in the numbers of MQTT 3.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectCode {
    Accepted,
    ProtocolVersion,
    ClientId,
    Unavailable,
    NotAuthorised,
}

const TYPE_CONNECT: u8 = 1;
const TYPE_PUBLISH: u8 = 3;
/// PUBREL, SUBSCRIBE and UNSUBSCRIBE have these reserved bits; all other types but PUBLISH have none.
const TYPES_WITH_BIT_ONE: [u8; 3] = [6, 8, 10];

/// Takes the next whole packet off `buffer`; none if more bytes are needed.
///
/// `bytes_max` bounds what a packet may hold behind its fixed header; it applies before those bytes have come.
pub(crate) fn read(buffer: &mut BytesMut, bytes_max: usize) -> Result<Option<Inbound>, FrameError> {
    let Some(&first) = buffer.first() else { return Ok(None) };
    let kind = first >> 4;
    let reserved = if TYPES_WITH_BIT_ONE.contains(&kind) { 0b0010 } else { 0 };
    if kind != TYPE_PUBLISH && first & 0x0f != reserved {
        return Err(FrameError::Malformed);
    }
    let frame_bytes = match mqttbytes::check(buffer.iter(), bytes_max) {
        Ok(header) => header.frame_length(),
        Err(Error::InsufficientBytes(_)) => return Ok(None),
        Err(Error::PayloadSizeLimitExceeded(_)) => return Err(FrameError::TooLarge),
        Err(_) => return Err(FrameError::Malformed),
    };
    if kind == TYPE_CONNECT {
        match connect_level(&buffer[..frame_bytes])? {
            4 => {}
            level => {
                drop(buffer.split_to(frame_bytes));
                return Ok(Some(Inbound::OtherVersion { level }));
            }
        }
    }
    let packet = Packet::read(buffer, bytes_max).map_err(|_| FrameError::Malformed)?;
    Ok(Some(match packet {
        Packet::Connect(connect) => Inbound::Connect {
            client_id: connect.client_id,
            clean_session: connect.clean_session,
            has_will: connect.last_will.is_some(),
            keep_alive: connect.keep_alive,
        },
        Packet::Publish(publish) => Inbound::Publish {
            topic: publish.topic,
            qos: publish.qos as u8,
            retain: publish.retain,
            packet_id: publish.pkid,
            payload: Bytes::copy_from_slice(&publish.payload),
        },
        Packet::Subscribe(subscribe) => Inbound::Subscribe {
            packet_id: nonzero(subscribe.pkid)?,
            filters: subscribe.filters.into_iter().map(|f| (f.path, f.qos as u8)).collect(),
        },
        Packet::Unsubscribe(unsubscribe) if unsubscribe.topics.is_empty() => {
            return Err(FrameError::Malformed);
        }
        Packet::Unsubscribe(unsubscribe) => Inbound::Unsubscribe {
            packet_id: nonzero(unsubscribe.pkid)?,
            filters: unsubscribe.topics,
        },
        Packet::PubAck(_) => Inbound::PubAck,
        Packet::PingReq => Inbound::PingReq,
        Packet::Disconnect => Inbound::Disconnect,
        _ => Inbound::Unexpected,
    }))
}

fn nonzero(packet_id: u16) -> Result<u16, FrameError> {
    if packet_id == 0 { Err(FrameError::Malformed) } else { Ok(packet_id) }
}

/// The protocol level of a whole CONNECT frame.
fn connect_level(frame: &[u8]) -> Result<u8, FrameError> {
    // The length field ends with the first byte below 128; `check` has seen that it does.
    let length_bytes =
        frame[1..].iter().position(|b| b & 0x80 == 0).ok_or(FrameError::Malformed)? + 1;
    let body = frame.get(1 + length_bytes..).ok_or(FrameError::Malformed)?;
    let (name, rest): (&[u8], &[u8]) = match body {
        [0, 4, rest @ ..] if rest.starts_with(b"MQTT") => rest.split_at(4),
        [0, 6, rest @ ..] if rest.starts_with(b"MQIsdp") => rest.split_at(6),
        _ => return Err(FrameError::Malformed),
    };
    match rest {
        // The lowest flag is reserved and has to be 0.
        [4, flags, ..] if name == b"MQTT" => {
            if flags & 1 == 0 {
                Ok(4)
            } else {
                Err(FrameError::Malformed)
            }
        }
        // Level 4 under the old name is no version at all.
        [level, ..] => Ok(if *level == 4 { 3 } else { *level }),
        [] => Err(FrameError::Malformed),
    }
}

/// Writes the answer to a CONNECT.
pub(crate) fn connack(out: &mut BytesMut, code: ConnectCode) {
    let code = match code {
        ConnectCode::Accepted => ConnectReturnCode::Success,
        ConnectCode::ProtocolVersion => ConnectReturnCode::RefusedProtocolVersion,
        ConnectCode::ClientId => ConnectReturnCode::BadClientId,
        ConnectCode::Unavailable => ConnectReturnCode::ServiceUnavailable,
        ConnectCode::NotAuthorised => ConnectReturnCode::NotAuthorized,
    };
    put(out, Packet::ConnAck(ConnAck::new(code, false)));
}

/// Writes the answer to a QoS 1 PUBLISH.
pub(crate) fn puback(out: &mut BytesMut, packet_id: u16) {
    put(out, Packet::PubAck(PubAck::new(packet_id)));
}

/// Writes the answer to a SUBSCRIBE: granted at QoS 0, or refused, per filter.
pub(crate) fn suback(out: &mut BytesMut, packet_id: u16, granted: &[bool]) {
    let codes = granted
        .iter()
        .map(|granted| match granted {
            true => SubscribeReasonCode::Success(QoS::AtMostOnce),
            false => SubscribeReasonCode::Failure,
        })
        .collect();
    put(out, Packet::SubAck(SubAck::new(packet_id, codes)));
}

/// Writes the answer to an UNSUBSCRIBE.
pub(crate) fn unsuback(out: &mut BytesMut, packet_id: u16) {
    put(out, Packet::UnsubAck(UnsubAck::new(packet_id)));
}

/// Writes the answer to a PINGREQ.
pub(crate) fn pingresp(out: &mut BytesMut) {
    put(out, Packet::PingResp);
}

/// Writes a QoS 0 PUBLISH.
pub(crate) fn publish(out: &mut BytesMut, topic: &str, payload: Bytes) {
    put(out, Packet::Publish(Publish::from_bytes(topic, QoS::AtMostOnce, payload)));
}

fn put(out: &mut BytesMut, packet: Packet) {
    // Fails only above the size limit (the broker has refused larger messages) or without a packet
    // number where one is due (taken from the client's packet, where 0 is malformed).
    let written = packet.write(out, PACKET_BYTES_MAX);
    debug_assert!(written.is_ok(), "{written:?}");
}
