//! Receipts: what the durable ledger holds, provable by sums.

use serde::{Deserialize, Serialize};

use super::{Envelope, Kind, WireError, decode, encode, seal};
use crate::codes::{ParkReason, Refusal};
use crate::ids::{AgentId, Epoch, Millis, Position, Seq};
use crate::keys::{PublicKey, SigningKey};
use crate::limits::{LIVES_MAX, RECEIPT_RANGES_MAX, RECEIPT_REASONS_MAX};

/// Which store a receipt speaks for: a ledger, and how many times it has been restored from a backup.
/// A restored one may hold less than it once confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StoreId {
    /// Drawn when the ledger was created.
    pub ledger: [u8; 8],
    /// Drawn anew at every restore.
    pub incarnation: u32,
}

/// A run of entries the ledger holds, without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeSum {
    /// The first number.
    pub first: Seq,
    /// The last number.
    pub last: Seq,
    /// The wrapping sum of the entries' hashes.
    pub sum: u64,
}

/// What the ledger holds of one life of an agent's numbering.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifeReceipt {
    /// Which life.
    pub epoch: Option<Epoch>,
    /// What is held, in rising order.
    pub ranges: Vec<RangeSum>,
    /// What was refused, and why; repeated until voided.
    pub refused: Vec<(Seq, Refusal)>,
    /// What is held but not counted yet, and why.
    pub parked: Vec<(Seq, ParkReason)>,
}

/// A receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// For which store it speaks.
    pub store: StoreId,
    /// The ledger's position when it was written.
    pub position: Position,
    /// The life or lives it speaks of. An answer to a hello speaks of all of them.
    pub lives: Vec<LifeReceipt>,
    /// Whether `lives` is all the ledger holds of the agent. Only such an answer to the present hello
    /// may show less than before.
    pub complete: bool,
    /// The nonce of the hello it answers.
    pub answers: Option<u64>,
    /// The centre's clock.
    pub time: Millis,
    /// How many batches the agent may have in flight.
    pub credit: u16,
}

impl Receipt {
    /// Signs the receipt for `agent` with the operating key.
    pub fn seal(&self, agent: AgentId, key: &SigningKey) -> Vec<u8> {
        seal(Kind::Receipt, agent, &encode(self), key)
    }

    /// Reads and verifies a receipt.
    ///
    /// # Errors
    /// [`WireError`] if the signature is not `key`'s or the receipt breaks a limit.
    pub fn open(envelope: &Envelope<'_>, key: &PublicKey) -> Result<Receipt, WireError> {
        if envelope.kind != Kind::Receipt {
            return Err(WireError::Kind(envelope.kind as u8));
        }
        let receipt: Receipt = decode(envelope.open(key)?)?;
        if receipt.lives.len() > LIVES_MAX {
            return Err(WireError::TooMany { what: "lives in a receipt", max: LIVES_MAX });
        }
        for life in &receipt.lives {
            if life.ranges.len() > RECEIPT_RANGES_MAX {
                return Err(WireError::TooMany { what: "ranges", max: RECEIPT_RANGES_MAX });
            }
            if life.refused.len() > RECEIPT_REASONS_MAX || life.parked.len() > RECEIPT_REASONS_MAX {
                return Err(WireError::TooMany { what: "reasons", max: RECEIPT_REASONS_MAX });
            }
            let mut end = 0;
            for range in &life.ranges {
                if range.first <= end || range.last < range.first {
                    return Err(WireError::Malformed("ranges do not rise"));
                }
                end = range.last;
            }
        }
        Ok(receipt)
    }
}
