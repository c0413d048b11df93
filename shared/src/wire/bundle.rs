//! A bundle: the same envelopes in a file, for a clinic whose line is a USB stick.

use serde::{Deserialize, Serialize};

use super::{Envelope, Kind, WireError};
use crate::ids::AgentId;
use crate::keys::sha256;
use crate::limits::{BUNDLE_BYTES_MAX, PAYLOAD_BYTES_MAX};

/// Envelopes in the order they would have been sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle {
    /// The messages, each a whole envelope.
    pub messages: Vec<Vec<u8>>,
}

/// A message as it stands in JSON: base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Message(pub Vec<u8>);

impl From<Message> for String {
    fn from(message: Message) -> String {
        data_encoding::BASE64.encode(&message.0)
    }
}

impl TryFrom<String> for Message {
    type Error = data_encoding::DecodeError;

    fn try_from(text: String) -> Result<Message, data_encoding::DecodeError> {
        data_encoding::BASE64.decode(text.as_bytes()).map(Message)
    }
}

const MAGIC: &[u8] = b"BANYAN-BUNDLE-1\n";
/// Bytes of SHA-256 that end the file: sticks are pulled out too early.
const SUM_BYTES: usize = 8;

/// Which way a bundle goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From an agent to the centre.
    Up,
    /// The centre's answer to it.
    Down,
}

impl Bundle {
    /// Whether these bytes claim to be a bundle.
    pub fn is_one(bytes: &[u8]) -> bool {
        bytes.starts_with(MAGIC)
    }

    /// How many bytes a bundle's beginning takes by which it is known.
    pub const MAGIC_BYTES: usize = MAGIC.len();

    /// Whose bundle it is and which way it goes. Nothing of it is believed yet.
    ///
    /// # Errors
    /// [`WireError`] if it is empty, a message is none, or they are several agents' or go both ways: nobody
    /// writes such a file.
    pub fn heading(&self) -> Result<(AgentId, Way), WireError> {
        Bundle::heading_of(self.messages.iter().map(Vec::as_slice))
    }

    /// The same of messages that are not in a bundle yet.
    ///
    /// # Errors
    /// As [`Bundle::heading`].
    pub fn heading_of<'a>(
        messages: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(AgentId, Way), WireError> {
        let mut heading = None;
        for message in messages {
            let envelope = Envelope::read(message)?;
            let way = match envelope.kind {
                Kind::Batch | Kind::Enrol | Kind::Introduce => Way::Up,
                Kind::Receipt | Kind::Answer | Kind::Notice => Way::Down,
                Kind::Act => return Err(WireError::Kind(envelope.kind as u8)),
            };
            let here = (envelope.agent, way);
            if *heading.get_or_insert(here) != here {
                return Err(WireError::Malformed("the messages of a bundle are several agents'"));
            }
        }
        heading.ok_or(WireError::Malformed("a bundle without a message"))
    }

    /// The file's bytes: magic, then each message with its length in four bytes, then a check sum.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for message in &self.messages {
            let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(message);
        }
        let sum = sha256(&[&bytes]);
        bytes.extend_from_slice(&sum[..SUM_BYTES]);
        bytes
    }

    /// Reads a bundle.
    ///
    /// # Errors
    /// [`WireError`] if it is cut short, damaged or over a limit.
    pub fn from_bytes(bytes: &[u8]) -> Result<Bundle, WireError> {
        if bytes.len() > BUNDLE_BYTES_MAX {
            return Err(WireError::TooMany { what: "bytes in a bundle", max: BUNDLE_BYTES_MAX });
        }
        let (body, sum) = bytes
            .split_at_checked(bytes.len().saturating_sub(SUM_BYTES))
            .ok_or(WireError::Truncated)?;
        let mut rest = body.strip_prefix(MAGIC).ok_or(WireError::Malformed("not a bundle file"))?;
        if sha256(&[body])[..SUM_BYTES] != *sum {
            return Err(WireError::Malformed("the bundle is damaged or was cut short"));
        }
        let mut messages = Vec::new();
        while !rest.is_empty() {
            let (length, after) = rest.split_first_chunk::<4>().ok_or(WireError::Truncated)?;
            let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
            if length > PAYLOAD_BYTES_MAX {
                return Err(WireError::TooMany {
                    what: "bytes in a message",
                    max: PAYLOAD_BYTES_MAX,
                });
            }
            // No message is as short; a file of nothing but lengths would take many times its size here.
            if length < Envelope::BYTES_MIN {
                return Err(WireError::Truncated);
            }
            let (message, after) = after.split_at_checked(length).ok_or(WireError::Truncated)?;
            messages.push(message.to_vec());
            rest = after;
        }
        Ok(Bundle { messages })
    }
}
