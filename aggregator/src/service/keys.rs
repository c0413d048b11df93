//! The centre's keys, to look at.

use serde::{Deserialize, Serialize};

use super::Service;
use super::lists::rfc3339;

/// The centre's keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysShown {
    /// The root's fingerprint, which codes pin.
    pub root: String,
    /// The operating key in force.
    pub operating: KeyRow,
    /// The ones before it, the newest first.
    pub earlier: Vec<KeyRow>,
    /// Agents heard since the service started that knew the key in force.
    pub agents_knowing: usize,
    /// Agents heard since then that did not yet: they have been told it.
    pub agents_told: usize,
    /// Agents not heard since then.
    pub agents_unheard: usize,
    /// Recovery files found in the data directory, where they do not belong.
    pub recovery_here: Vec<String>,
}

/// An operating key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRow {
    /// Its serial.
    pub serial: u32,
    /// Its fingerprint.
    pub key: String,
    /// When the root certified it.
    pub issued_at: String,
    /// The first position of the ledger it signs acts from; none for the first key.
    pub from_position: Option<u64>,
}

impl Service {
    /// The centre's keys and who knows the one in force.
    pub fn keys(&self) -> KeysShown {
        let state = self.state.read();
        let print = |bytes: [u8; 16]| data_encoding::HEXLOWER.encode(&bytes);
        let row = |certificate: &banyan_shared::keys::Certificate, from_position| KeyRow {
            serial: certificate.serial,
            key: print(certificate.key.fingerprint()),
            issued_at: rfc3339(&state, certificate.issued_at),
            from_position,
        };
        let changes = &state.key_changes;
        let since = |at: usize| at.checked_sub(1).map(|at| changes[at].position);
        let earlier = changes.iter().enumerate().rev();
        let earlier = earlier.map(|(at, change)| row(&change.before, since(at))).collect();
        let present = row(&self.identity.certificate, since(changes.len()));
        let heard = |knows| state.agents.values().filter(|a| a.knows_key == knows).count();
        KeysShown {
            root: print(self.identity.root.fingerprint()),
            operating: present,
            earlier,
            agents_knowing: heard(Some(true)),
            agents_told: heard(Some(false)),
            agents_unheard: heard(None),
            recovery_here: crate::init::recovery_files(&self.dir),
        }
    }
}
