//! The bytes that travel: every message is an *envelope* of version, kind, sender, body and signature.
//!
//! Bytes of a shipped version never change their meaning (`golden` holds them); a new shape gets a new
//! version byte. Sizes are checked before anything is decoded, and nothing may be left over after it.
//! Whether a sender may say what it says is for verification at the centre, not for this module.

mod batch;
mod bundle;
mod code;
mod column;
mod enrolment;
mod receipt;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use batch::{Batch, Beacon, Body, Entry, HashedBatch, Hello, entry_hash, pack, unpack};
pub use bundle::{Bundle, Message, Way};
pub use code::{CodeError, EnrolCode};
pub use enrolment::{
    Answer, EnrolRefusal, EnrolRequest, EnrolmentFile, FacilityScope, Grant, Introduction, Notice,
    Offer, ScopeAttribute, ScopeRole, ScopeSpell, SignedGrant,
};
pub use receipt::{LifeReceipt, RangeSum, Receipt, StoreId};

use crate::ids::AgentId;
use crate::keys::{Domain, KeyError, PublicKey, SIGNATURE_BYTES, SigningKey};
use crate::limits::PAYLOAD_BYTES_MAX;

/// The version of the wire this program writes, and the only one it reads so far.
pub const WIRE_VERSION: u8 = 1;

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes end too early.
    #[error("the message ends too early")]
    Truncated,
    /// The bytes go on after the end.
    #[error("the message has bytes after its end")]
    Trailing,
    /// A version this program does not know.
    #[error("wire version {0} is not known here: update this program")]
    Version(u8),
    /// Another kind of message than expected.
    #[error("message kind {0} is not expected here")]
    Kind(u8),
    /// More than the limit.
    #[error("more than {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// Something inside makes no sense.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// The signature or key is wrong.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Up: entries, and the hello of a connection.
    Batch = 1,
    /// Up: a new agent asks to be enrolled.
    Enrol = 2,
    /// Up: an agent shows the grants it holds to a centre that does not know it.
    Introduce = 3,
    /// Down: what the ledger holds.
    Receipt = 65,
    /// Down: the answer to an enrolment, a new scope or catalogue, or a request for an introduction.
    Answer = 66,
    /// Down: something to know or do (reserved).
    Notice = 67,
    /// In the ledger only: an operator's act.
    Act = 129,
}

impl Kind {
    fn of(byte: u8) -> Option<Kind> {
        [
            Kind::Batch,
            Kind::Enrol,
            Kind::Introduce,
            Kind::Receipt,
            Kind::Answer,
            Kind::Notice,
            Kind::Act,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }

    fn domain(self) -> Domain {
        match self {
            Kind::Batch => Domain::Batch,
            Kind::Enrol => Domain::Enrol,
            Kind::Introduce => Domain::Introduce,
            Kind::Receipt => Domain::Receipt,
            Kind::Answer => Domain::Answer,
            Kind::Notice => Domain::Notice,
            Kind::Act => Domain::Act,
        }
    }
}

/// Version, kind, agent.
const HEADER_BYTES: usize = 2 + 6;

/// A message taken apart but not yet believed: call [`Envelope::open`] with the key it must be signed by.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// What it is.
    pub kind: Kind,
    /// Upward, the sender; downward, whom it is for.
    pub agent: AgentId,
    signed: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// The size of a message with an empty body, in bytes.
    pub const BYTES_MIN: usize = HEADER_BYTES + SIGNATURE_BYTES;

    /// Reads the outside of a message.
    ///
    /// # Errors
    /// [`WireError`] if it is too short, too long, or of an unknown version or kind.
    pub fn read(bytes: &'a [u8]) -> Result<Envelope<'a>, WireError> {
        if bytes.len() > PAYLOAD_BYTES_MAX {
            return Err(WireError::TooMany { what: "bytes in a message", max: PAYLOAD_BYTES_MAX });
        }
        Envelope::read_unbounded(bytes)
    }

    /// As [`Envelope::read`] for bytes that never travel in one message: acts in the ledger, files.
    ///
    /// # Errors
    /// As [`Envelope::read`], but of any length.
    pub fn read_unbounded(bytes: &'a [u8]) -> Result<Envelope<'a>, WireError> {
        if bytes.first().is_some_and(|version| *version != WIRE_VERSION) {
            return Err(WireError::Version(bytes[0]));
        }
        if bytes.len() < Envelope::BYTES_MIN {
            return Err(WireError::Truncated);
        }
        let kind = Kind::of(bytes[1]).ok_or(WireError::Kind(bytes[1]))?;
        let mut agent = [0; 6];
        agent.copy_from_slice(&bytes[2..HEADER_BYTES]);
        let (signed, signature) = bytes.split_at(bytes.len() - SIGNATURE_BYTES);
        Ok(Envelope { kind, agent: AgentId(agent), signed, signature })
    }

    /// The body, if `key` signed the message.
    ///
    /// # Errors
    /// [`WireError::Key`] if it did not.
    pub fn open(&self, key: &PublicKey) -> Result<&'a [u8], WireError> {
        key.verify(self.kind.domain(), self.signed, self.signature)?;
        Ok(self.unverified_body())
    }

    /// The body without looking at the signature: for bytes whose signature was verified before they
    /// were stored, and to find out which key a message claims.
    pub fn unverified_body(&self) -> &'a [u8] {
        &self.signed[HEADER_BYTES..]
    }
}

/// Builds and signs a message.
pub fn seal(kind: Kind, agent: AgentId, body: &[u8], key: &SigningKey) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len() + SIGNATURE_BYTES);
    bytes.extend_from_slice(&[WIRE_VERSION, kind as u8]);
    bytes.extend_from_slice(&agent.0);
    bytes.extend_from_slice(body);
    let signature = key.sign(kind.domain(), &bytes);
    bytes.extend_from_slice(&signature);
    bytes
}

/// Writes a value as postcard.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("values of the wire hold nothing that postcard cannot write")
}

/// Reads a value from postcard; nothing may be left over.
///
/// # Errors
/// [`WireError`] if the bytes are not exactly one value.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    match decode_first(bytes)? {
        (value, []) => Ok(value),
        _ => Err(WireError::Trailing),
    }
}

/// Reads a value from postcard, and gives what comes after it.
fn decode_first<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), WireError> {
    postcard::take_from_bytes(bytes).map_err(|error| match error {
        postcard::Error::DeserializeUnexpectedEnd => WireError::Truncated,
        _ => WireError::Malformed("the body does not have its kind's shape"),
    })
}

/// Compresses bytes (raw DEFLATE).
pub fn deflate(bytes: &[u8]) -> Vec<u8> {
    miniz_oxide::deflate::compress_to_vec(bytes, 6)
}

/// Decompresses what [`deflate`] made, to at most `max` bytes.
///
/// # Errors
/// [`WireError`] if it is damaged or would grow beyond `max`.
pub fn inflate(bytes: &[u8], max: usize) -> Result<Vec<u8>, WireError> {
    miniz_oxide::inflate::decompress_to_vec_with_limit(bytes, max)
        .map_err(|_| WireError::Malformed("compressed bytes are damaged or too large"))
}

#[cfg(test)]
mod tests;
