//! What can be asked of an agent and what it answers: the same for a call in this process and over the
//! local interface.

use banyan_shared::codes::{ParkReason, Refusal};
use banyan_shared::report::How;
use banyan_shared::sync::Mark;
use banyan_shared::wire::{EnrolRefusal, Message};
use serde::{Deserialize, Serialize};

pub use crate::capture::{Change, Draft, Saved};
use crate::note::Note;

/// A command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Check reports and save them.
    Save {
        /// The reports.
        drafts: Vec<Draft>,
        /// All or none; else every good one.
        together: bool,
    },
    /// How the agent is.
    Status,
    /// What waits, is refused or parked.
    Queue,
    /// One entry.
    Show {
        /// Its name, as in [`QueueRow::entry`].
        entry: String,
    },
    /// Say hello to the centre now.
    Sync,
    /// How far that is.
    SyncState,
    /// The next part of a bundle.
    BundleExport {
        /// Where it begins, as the part before says; none for a new bundle.
        from: Option<BundlePlace>,
    },
    /// Take in messages of the centre's answer to a bundle.
    BundleImport {
        /// The messages, in order.
        messages: Vec<Message>,
    },
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// To [`Command::Save`].
    Saved {
        /// What was saved, or said what was known already.
        saved: Vec<Saved>,
        /// What was not.
        refused: Vec<Refused>,
    },
    /// To [`Command::Status`].
    Status(Box<Status>),
    /// To [`Command::Queue`].
    #[serde(rename = "queue")]
    Queue(#[serde(with = "rows")] Vec<QueueRow>),
    /// To [`Command::Show`].
    Shown(Box<Shown>),
    /// To [`Command::Sync`] and [`Command::SyncState`].
    Sync(SyncState),
    /// To [`Command::BundleExport`].
    BundlePart(BundlePart),
    /// To [`Command::BundleImport`].
    Brought(Brought),
    /// It could not be done.
    Failed(Note),
}

/// A list inside a tagged enum needs a name.
mod rows {
    use super::QueueRow;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Rows<T> {
        rows: T,
    }

    pub(super) fn serialize<S: Serializer>(rows: &Vec<QueueRow>, s: S) -> Result<S::Ok, S::Error> {
        Rows { rows }.serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<QueueRow>, D::Error> {
        Rows::deserialize(d).map(|rows: Rows<Vec<QueueRow>>| rows.rows)
    }
}

/// A draft that was not saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The draft's tag.
    pub tag: u32,
    /// Everything wrong with it.
    pub faults: Vec<Note>,
}

/// How an agent is. Field names are the contract of `status --format json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The agent's id.
    pub agent: String,
    /// The home facility.
    pub home: String,
    /// Every facility it may report for, the home first.
    pub facilities: Vec<String>,
    /// Entries without a receipt.
    pub waiting: u64,
    /// Entries with one, as far as retained.
    pub received: u64,
    /// Refused reports not entered again.
    pub refused: u64,
    /// Reports the centre holds but does not count yet.
    pub parked: u64,
    /// Reports returned for correction.
    pub returned: u64,
    /// When the oldest entry without a receipt was made.
    pub oldest_waiting: Option<String>,
    /// What is due next and not entered.
    pub next_due: Option<NextDue>,
    /// When the centre wrote the newest receipt.
    pub last_receipt: Option<String>,
    /// The centre's clock less this machine's, in ms.
    pub clock_offset_ms: Option<i64>,
    /// `connected`, `connecting`, `offline`, `never` if nothing has tried since the start, or
    /// `not_running` where no service runs.
    pub link: String,
    /// Why the centre does not let this agent in, if it said so last; its text says what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<EnrolRefusal>,
}

/// The report due next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextDue {
    /// Its form.
    pub form: String,
    /// Its facility.
    pub unit: String,
    /// Its period.
    pub period: String,
    /// When it is due.
    pub due: String,
}

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", content = "reason", rename_all = "snake_case")]
pub enum QueueState {
    /// No receipt yet.
    Waiting,
    /// The centre's ledger holds it.
    Received,
    /// It can never be counted.
    Refused(Refusal),
    /// The centre holds it and waits for something.
    Parked(ParkReason),
}

/// A line of `queue ls`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRow {
    /// The entry's name, for `queue show`.
    pub entry: String,
    /// The facility.
    pub facility: String,
    /// The form.
    pub form: String,
    /// The period.
    pub period: String,
    /// Where it stands.
    #[serde(flatten)]
    pub state: QueueState,
}

/// An entry in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// What and where.
    #[serde(flatten)]
    pub row: QueueRow,
    /// The answers.
    pub values: Vec<(String, String)>,
    /// How it was entered.
    pub how: How,
    /// By whom.
    pub by: Option<String>,
    /// Whether it takes the report back.
    pub withdrawn: bool,
    /// The command that enters it again.
    pub again: String,
}

/// How far a sync is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncState {
    /// Hellos answered since the agent started.
    pub hellos: u64,
    /// Entries without a receipt.
    pub waiting: u64,
    /// Whether the centre has certified the key.
    pub enrolled: bool,
    /// As in [`Status::link`].
    pub link: String,
    /// Why the last connection ended, if it did.
    pub detail: Option<Note>,
    /// What went wrong on this machine since a hello was last answered.
    pub fault: Option<Note>,
    /// Why the centre refused the agent, if it did.
    pub refusal: Option<EnrolRefusal>,
}

/// Where a part of a bundle begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundlePlace {
    /// The bundle's nonce.
    pub nonce: u64,
    /// The entry written last.
    pub mark: Mark,
}

/// A part of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundlePart {
    /// The agent's id.
    pub agent: String,
    /// The home facility; none before the enrolment is answered.
    pub home: Option<String>,
    /// The messages, in order.
    pub messages: Vec<Message>,
    /// How many entries they hold.
    pub entries: u64,
    /// Where the next part begins; none after the last.
    pub next: Option<BundlePlace>,
}

/// What messages of an answer came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brought {
    /// Receipts that verified.
    pub receipts: u64,
    /// Entries that have a receipt now and had none before.
    pub received: u64,
    /// Whether one of them is the centre's newest word; else they can only add.
    pub newest: bool,
    /// Grants taken over.
    pub grants: u64,
    /// Whether a certificate came.
    pub certified: bool,
    /// Messages left aside: not for this agent, not by the centre as known here, or under an outdated key.
    pub left_aside: u64,
    /// Why the centre does not accept this agent, if it says so.
    pub refusal: Option<EnrolRefusal>,
    /// Whether the centre does not know the agent, or not all its grants.
    pub unknown: bool,
    /// Entries without a receipt.
    pub waiting: u64,
    /// Refused reports not entered again.
    pub refused: u64,
}
