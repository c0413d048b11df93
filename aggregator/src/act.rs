//! Operators' acts: everything that people or the service decide, as opposed to what clinics report.
//!
//! An act is signed by the operating key and stands in the ledger beside the batches (and in `acts.log`),
//! so that the organisation, the agents and the catalogue at any position are a fold over the ledger.
//! Bytes of a shipped version never change: new acts are new variants at the end.

use banyan_shared::ids::{AgentId, ContextNumber, Millis, UnitCode};
use banyan_shared::keys::{PublicKey, SigningKey, sha256};
use banyan_shared::tables::TableName;
use banyan_shared::wire::{self, Envelope, Kind, SignedGrant, WireError};
use serde::{Deserialize, Serialize};

/// A table of the registry as it was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableFile {
    /// Which table.
    pub table: TableName,
    /// The file's name, for messages.
    pub file: String,
    /// The file's bytes, compressed.
    pub bytes: Vec<u8>,
}

/// A rule that takes in every facility below a unit, those registered later too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Below {
    /// The unit.
    pub unit: UnitCode,
    /// Only facilities of this kind.
    pub kind: Option<String>,
}

/// For whom an agent may report: what a context number stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewContext {
    /// Its number.
    pub number: ContextNumber,
    /// The facilities in order; the first is the agent's home.
    pub facilities: Vec<UnitCode>,
    /// The rules behind the list, to be applied again when the registry changes.
    pub below: Vec<Below>,
}

/// An enrolment code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewCode {
    /// Its number.
    pub number: u32,
    /// Hash of its secret ([`secret_hash`]).
    pub secret: [u8; 16],
    /// What it enrols for; several for a stick, of which each installer picks one.
    pub contexts: Vec<NewContext>,
    /// How many agents may use it.
    pub uses: u32,
    /// When it expires.
    pub expires: Millis,
}

/// The hash under which a code's secret is kept.
pub fn secret_hash(number: u32, secret: &[u8; 10]) -> [u8; 16] {
    let digest = sha256(&[b"banyan/v1/secret\0", &number.to_le_bytes(), secret]);
    let mut hash = [0; 16];
    hash.copy_from_slice(&digest[..16]);
    hash
}

/// What is decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// The first act of a ledger.
    Founded {
        /// The name of the centre.
        name: String,
    },
    /// A catalogue version is in force from now on.
    Catalogue {
        /// Its TOML, compressed.
        toml: Vec<u8>,
    },
    /// Tables of the registry; each replaces the one before.
    Tables(Vec<TableFile>),
    /// Enrolment codes.
    Codes(Vec<NewCode>),
    /// An agent was enrolled with a code.
    Admitted {
        /// Its key.
        key: PublicKey,
        /// The code's number.
        code: u32,
        /// The context it was given.
        context: ContextNumber,
        /// A fingerprint of its machine.
        machine: u64,
        /// The agent whose history it continues.
        succeeds: Option<AgentId>,
    },
    /// An agent this ledger did not know showed a grant of ours.
    Readmitted {
        /// The grant.
        grant: SignedGrant,
    },
    /// An agent reports for other facilities from now on.
    Scope {
        /// The agent.
        agent: AgentId,
        /// The new context.
        context: NewContext,
    },
    /// An agent is out.
    Revoked {
        /// The agent.
        agent: AgentId,
    },
}

/// An act with who decided it and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedAct {
    /// The operator, or `service` for what the service does of itself.
    pub by: String,
    /// When, by the centre's clock.
    pub at: Millis,
    /// What.
    pub act: Act,
}

impl SignedAct {
    /// The act's bytes, signed with the operating key.
    pub fn seal(&self, key: &SigningKey) -> Vec<u8> {
        wire::seal(Kind::Act, key.public().agent_id(), &wire::encode(self), key)
    }

    /// Reads an act from the ledger. Its signature was verified before it was stored; `verify` checks it
    /// again.
    ///
    /// # Errors
    /// [`WireError`] if the bytes are not exactly one act.
    pub fn read(bytes: &[u8]) -> Result<SignedAct, WireError> {
        let envelope = Envelope::read_unbounded(bytes)?;
        if envelope.kind != Kind::Act {
            return Err(WireError::Kind(envelope.kind as u8));
        }
        wire::decode(envelope.unverified_body())
    }
}
