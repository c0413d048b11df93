//! Which operating key signed what: the roll-overs the ledger holds.

use banyan_shared::ids::{Millis, Position};
use banyan_shared::keys::{Certificate, PublicKey};
use serde::{Deserialize, Serialize};

use super::State;

/// A roll-over of the operating key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChange {
    /// Where it stands in the ledger: its row is the first under the new key.
    pub position: Position,
    /// When it was recorded.
    pub at: Millis,
    /// What signs from there on.
    pub certificate: Certificate,
    /// What signed until there.
    pub before: Certificate,
}

/// The operating key that signed the act at a position, `present` being the one in force.
pub fn signer_at(changes: &[KeyChange], position: Position, present: PublicKey) -> PublicKey {
    let next = changes.iter().find(|change| change.position > position);
    next.map_or(present, |change| change.before.key)
}

impl State {
    /// What is wrong with the roll-overs: each has to go back to `root`, to follow the one before and to be
    /// later than that, and the last one's key has to be the `present` one.
    pub fn key_faults(&self, root: &PublicKey, present: PublicKey) -> Vec<String> {
        let mut faults = Vec::new();
        let mut reached: Option<&Certificate> = None;
        for KeyChange { position, certificate, before, .. } in &self.key_changes {
            let certified = certificate.verify(root).is_ok() && before.verify(root).is_ok();
            let follows = reached.is_none_or(|reached| reached == before);
            if !certified || !follows || certificate.rank() <= before.rank() {
                faults.push(format!("position {position}: a roll-over that does not hold"));
            }
            reached = Some(certificate);
        }
        if reached.is_some_and(|reached| reached.key != present) {
            faults.push("the operating key is not that of the last roll-over".to_owned());
        }
        faults
    }
}
