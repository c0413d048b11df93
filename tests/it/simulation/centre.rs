//! The centre: a modelled ledger, the real inboxes over it, real receipts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use banyan_shared::codes::{ParkReason, Refusal};
use banyan_shared::ids::{AgentId, Epoch, Millis, Seq, VersionId};
use banyan_shared::sync::{Fate, Inbox};
use banyan_shared::wire::{Batch, Body, Entry, Envelope, Receipt, StoreId, entry_hash};

use super::Broken;
use super::model::{FUTURE, OUT_OF_SCOPE};

/// A row of the ledger: the batch byte for byte, and the stored decision what of it is refused.
pub(super) struct Row {
    agent: usize,
    bytes: Arc<[u8]>,
    refused: Vec<(Seq, Refusal)>,
    /// Its part in what is held, by hash; what a replay must find again.
    taken: Vec<(VersionId, u64, Body)>,
}

/// An entry the ledger holds.
pub(super) struct Held {
    pub(super) hash: u64,
    pub(super) body: Body,
    /// In order of arrival.
    pub(super) arrival: usize,
}

/// A receipt that waits for its commit.
struct Due {
    agent: usize,
    hello: Option<u64>,
    epoch: Epoch,
    sent: Vec<(Seq, u64)>,
}

pub(super) struct Centre {
    ids: Vec<AgentId>,
    pub(super) ledger: Vec<Arc<Row>>,
    pending: Vec<Arc<Row>>,
    undo: Vec<(usize, Epoch, Seq)>,
    due: Vec<Due>,
    pub(super) inboxes: Vec<Inbox>,
    pub(super) held: BTreeMap<VersionId, Held>,
    pub(super) store: StoreId,
    /// Rises whenever the ledger loses something it held.
    pub(super) generation: u64,
    /// Everything any ledger ever held.
    pub(super) ever: BTreeSet<(VersionId, u64)>,
    pub(super) backups: Vec<Vec<Arc<Row>>>,
    /// Periods once in the future have begun.
    pub(super) released: bool,
    pub(super) broken: Broken,
}

impl Centre {
    pub(super) fn new(ids: Vec<AgentId>, broken: Broken) -> Centre {
        Centre {
            inboxes: vec![Inbox::default(); ids.len()],
            ids,
            ledger: Vec::new(),
            pending: Vec::new(),
            undo: Vec::new(),
            due: Vec::new(),
            held: BTreeMap::new(),
            store: StoreId { ledger: [1; 8], incarnation: 1 },
            generation: 0,
            ever: BTreeSet::new(),
            backups: Vec::new(),
            released: false,
            broken,
        }
    }

    /// Takes in a batch whose signature is its agent's. Returns receipts only if it is broken.
    pub(super) fn receive(
        &mut self,
        agent: usize,
        bytes: &Arc<[u8]>,
    ) -> Result<Vec<(usize, Receipt)>, String> {
        let envelope = Envelope::read(bytes).map_err(|e| e.to_string())?;
        let batch = Batch::read(&envelope).map_err(|e| e.to_string())?;
        let row = self.judge(agent, bytes, &batch);
        for (seq, _) in &row.refused {
            self.undo.push((agent, batch.epoch, *seq));
        }
        for (id, _, _) in &row.taken {
            self.undo.push((agent, batch.epoch, id.seq));
        }
        if !row.refused.is_empty() || !row.taken.is_empty() {
            self.pending.push(Arc::new(row));
        }
        self.due.push(Due {
            agent,
            hello: batch.hello.as_ref().map(|hello| hello.nonce),
            epoch: batch.epoch,
            sent: batch.entries.iter().map(|entry| (entry.seq, hash_of(&batch, entry))).collect(),
        });
        if self.broken == Broken::ReceiptBeforeCommit {
            Ok(self.receipts())
        } else {
            Ok(Vec::new())
        }
    }

    /// Judges a batch and takes it into the inbox.
    fn judge(&mut self, agent: usize, bytes: &Arc<[u8]>, batch: &Batch) -> Row {
        let mut row = Row { agent, bytes: bytes.clone(), refused: Vec::new(), taken: Vec::new() };
        let begins = |body: &Body| matches!(body, Body::Begins { .. });
        let begins_here = batch.entries.first().is_some_and(|e| e.seq == 1 && begins(&e.body));
        let any_new = batch.entries.iter().any(|entry| {
            let hash = hash_of(batch, entry);
            self.inboxes[agent].fate(batch.epoch, entry.seq, hash, begins_here) == Fate::New
        });
        for entry in &batch.entries {
            let inbox = &mut self.inboxes[agent];
            let hash = hash_of(batch, entry);
            let id = VersionId { writer: batch.agent, epoch: batch.epoch, seq: entry.seq };
            match inbox.fate(batch.epoch, entry.seq, hash, begins_here) {
                Fate::New => match refusal(&entry.body) {
                    Some(refusal) => {
                        inbox.refuse(batch.epoch, entry.seq, hash, refusal);
                        row.refused.push((entry.seq, refusal));
                    }
                    None => {
                        inbox.hold(batch.epoch, entry.seq, hash);
                        inbox.park(batch.epoch, entry.seq, park_reason(&entry.body, self.released));
                        row.taken.push((id, hash, entry.body.clone()));
                    }
                },
                Fate::Duplicate if self.broken == Broken::RecountDuplicates => {
                    row.taken.push((id, hash, entry.body.clone()));
                }
                Fate::StillRefused(_) if self.broken == Broken::HoldRefused && any_new => {
                    row.taken.push((id, hash, entry.body.clone()));
                }
                Fate::Duplicate | Fate::StillRefused(_) | Fate::Reused | Fate::Early => {}
            }
        }
        row
    }

    /// The commit is on disk: now, and not before, the receipts may go.
    pub(super) fn commit(&mut self) -> Result<Vec<(usize, Receipt)>, String> {
        for row in std::mem::take(&mut self.pending) {
            for (id, hash, body) in &row.taken {
                self.ever.insert((*id, *hash));
                let held = Held { hash: *hash, body: body.clone(), arrival: self.held.len() };
                if self.held.insert(*id, held).is_some() {
                    return Err(format!("the ledger holds {id} twice"));
                }
            }
            self.ledger.push(row);
        }
        self.undo.clear();
        Ok(self.receipts())
    }

    fn receipts(&mut self) -> Vec<(usize, Receipt)> {
        let due = std::mem::take(&mut self.due);
        due.into_iter().map(|due| (due.agent, self.receipt(&due))).collect()
    }

    fn receipt(&self, due: &Due) -> Receipt {
        let inbox = &self.inboxes[due.agent];
        let (lives, complete) = match due.hello {
            Some(_) => inbox.all(),
            None => (vec![inbox.of(due.epoch, &due.sent)], false),
        };
        Receipt {
            store: self.store,
            position: u64::try_from(self.ledger.len()).unwrap(),
            lives,
            complete,
            answers: due.hello,
            time: Millis(0),
            credit: 2,
        }
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.due.is_empty()
    }

    /// The disk would not take the commit.
    pub(super) fn fail_commit(&mut self) -> Result<(), String> {
        for (agent, epoch, seq) in std::mem::take(&mut self.undo).into_iter().rev() {
            self.inboxes[agent].forget(epoch, seq);
        }
        self.pending.clear();
        self.due.clear();
        self.check_replay()
    }

    /// Dies and comes back with what is on disk.
    pub(super) fn crash(&mut self) -> Result<(), String> {
        (self.pending, self.undo, self.due) = (Vec::new(), Vec::new(), Vec::new());
        self.rebuild()
    }

    fn rebuild(&mut self) -> Result<(), String> {
        self.inboxes = vec![Inbox::default(); self.ids.len()];
        self.held.clear();
        for row in self.ledger.clone() {
            let envelope = Envelope::read(&row.bytes).map_err(|e| e.to_string())?;
            let batch = Batch::read(&envelope).map_err(|e| e.to_string())?;
            let again = self.judge(row.agent, &row.bytes, &batch);
            if again.refused != row.refused || again.taken.len() != row.taken.len() {
                return Err("a row of the ledger means another thing when it is replayed".into());
            }
            for (id, hash, body) in &row.taken {
                let held = Held { hash: *hash, body: body.clone(), arrival: self.held.len() };
                self.held.insert(*id, held);
            }
        }
        Ok(())
    }

    /// The inboxes are what a replay of the ledger gives.
    pub(super) fn check_replay(&mut self) -> Result<(), String> {
        let before = self.inboxes.clone();
        self.rebuild()?;
        if before == self.inboxes {
            Ok(())
        } else {
            Err(format!("the inboxes are not the ledger's:\n{before:?}\n{:?}", self.inboxes))
        }
    }

    /// An old copy of the ledger comes back, or an empty one.
    pub(super) fn regress(&mut self, ledger: Vec<Arc<Row>>, store: StoreId) -> Result<(), String> {
        self.ledger = ledger;
        self.store = store;
        self.generation += 1;
        self.crash()
    }

    /// Periods once in the future have begun: everything parked is counted.
    pub(super) fn release(&mut self) {
        self.released = true;
        for (id, held) in &self.held {
            if park_reason(&held.body, false).is_some() {
                let agent = self.ids.iter().position(|agent| *agent == id.writer).unwrap();
                self.inboxes[agent].park(id.epoch, id.seq, None);
            }
        }
    }
}

fn hash_of(batch: &Batch, entry: &Entry) -> u64 {
    entry_hash(batch.agent, batch.epoch, entry.seq, batch.context, &entry.body)
}

fn refusal(body: &Body) -> Option<Refusal> {
    match body {
        Body::Report { facility, .. } if *facility >= OUT_OF_SCOPE => Some(Refusal::NotInScope),
        _ => None,
    }
}

pub(super) fn park_reason(body: &Body, released: bool) -> Option<ParkReason> {
    match body {
        Body::Report { period, .. } if period.index() >= FUTURE && !released => {
            Some(ParkReason::FuturePeriod)
        }
        _ => None,
    }
}
