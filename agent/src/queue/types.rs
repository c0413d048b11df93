//! What the queue takes and gives.

use banyan_shared::ids::{Epoch, Millis, Seq};
use banyan_shared::period::Date;
use serde::{Deserialize, Serialize};

use super::SeqRange;

/// An entry to be saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    /// The content; the queue does not look into it.
    pub payload: Vec<u8>,
    /// The content's hash, as it goes into the sums of receipts.
    pub hash: u64,
    /// The day from which the entry's retention counts.
    pub day: Date,
}

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// No receipt yet.
    Waiting,
    /// Released by a receipt; kept as history.
    Confirmed,
    /// Refused and replaced by an empty entry, which waits for its receipt.
    Voided,
}

/// An entry as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The life of the numbering.
    pub epoch: Epoch,
    /// Its number.
    pub seq: Seq,
    /// Where it stands.
    pub state: State,
    /// Whether it stands in the place of a refused entry, whatever its state.
    pub void: bool,
    /// Hash of the content.
    pub hash: u64,
    /// The day from which its retention counts.
    pub day: Date,
    /// The content.
    pub payload: Vec<u8>,
}

/// The hashes of an epoch, for sums over ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashes {
    /// Entries `1..=base` were dropped after their time.
    pub base: Seq,
    /// Wrapping sum of the hashes of the dropped entries.
    pub base_sum: u64,
    /// The hash of entry `base + 1`, `base + 2`, …; `None` where the entry is lost or was moved away.
    pub hashes: Vec<Option<u64>>,
}

/// What one epoch lost when a store was found damaged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochLoss {
    /// The epoch.
    pub epoch: Epoch,
    /// The last number it had given out.
    pub issued: Seq,
    /// The numbers whose entries could not be read any more.
    pub lost: Vec<SeqRange>,
    /// How many entries were salvaged; they keep their numbers.
    pub salvaged: u64,
}

/// A store that was found damaged, and what became of its entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// When it was found.
    pub at: Millis,
    /// What was seen.
    pub reason: String,
    /// The name of the damaged store inside `quarantine/`; empty if nothing was left of it.
    pub quarantine: String,
    /// The epoch begun because of it.
    pub new_epoch: Epoch,
    /// The epoch in use until then, and every other epoch that lost entries.
    pub epochs: Vec<EpochLoss>,
}

/// How full the queue is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of the store's file.
    pub file_bytes: u64,
    /// Bytes of what lives in it.
    pub live_bytes: u64,
    /// Entries without a receipt.
    pub waiting: u64,
    /// Entries in history.
    pub confirmed: u64,
}
