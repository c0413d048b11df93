//! What the ledger says, in memory: catalogue, organisation, agents, inboxes, cube, parked entries.
//!
//! A [`State`] is a fold over the ledger's rows ([`State::apply_act`], [`State::apply_batch`]), the same at
//! the start, while serving and in `verify`; so it can always be rebuilt and two folds can be compared.
//! It reads no clock and touches no disk. Judging what arrives, before it is stored, is `judge`'s.

mod agents;
mod history;
mod judge;
mod keys;
mod reports;
mod scope;

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use banyan_shared::catalogue::{Catalogue, CatalogueHash};
use banyan_shared::codes::ParkReason;
use banyan_shared::ids::{
    AgentId, ContextNumber, Epoch, Millis, Position, Seq, UnitCode, VersionId,
};
use banyan_shared::limits::CATALOGUE_BYTES_MAX;
use banyan_shared::organisation::Organisation;
use banyan_shared::period::Date;
use banyan_shared::sync::Fate;
use banyan_shared::tables::registry::ExtensionRow;
use banyan_shared::tables::{RowError, TableName, Tables, too_large};
use banyan_shared::wire::{Batch, Body, Envelope, HashedBatch, WireError, inflate};
use serde::{Deserialize, Serialize};

use crate::act::{Act, Extended, SignedAct, TableFile};
use crate::cube::{AcceptedVersion, Cube, Decided};
use crate::ledger::{RowKind, RowRef};

pub use agents::{Agent, CLAIMS_WAITING_MAX, Claim, Code, Context};
pub use history::{Files, History, Recorded, Released};
pub(crate) use judge::park_reason;
pub use judge::{Judgement, Refusals};
pub use keys::{KeyChange, signer_at};
pub use reports::Known;
#[cfg(test)]
pub(crate) use reports::apply_stage;
pub use scope::ScopeError;

/// Largest table file, in bytes.
pub const TABLE_BYTES_MAX: usize = banyan_shared::tables::FILE_BYTES_MAX;

/// Why a row of the ledger could not be folded in.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// An act or batch that does not read: the ledger was written by a newer program, or is damaged.
    #[error("ledger position {position}: {source}")]
    Wire {
        /// Where.
        position: Position,
        /// What is wrong.
        source: WireError,
    },
    /// A catalogue that does not pass the check.
    #[error("the catalogue has {} errors, the first: {}", .0.len(), .0.first().map_or_else(String::new, ToString::to_string))]
    Catalogue(Vec<String>),
    /// Tables that do not pass the check.
    #[error("the registry has {} errors", .0.len())]
    Registry(Vec<RowError>),
    /// No catalogue yet.
    #[error("the ledger has no catalogue before its tables: it was not made by `init`")]
    NoCatalogue,
    /// The ledger itself.
    #[error(transparent)]
    Ledger(#[from] crate::ledger::LedgerError),
}

/// An entry held back until something is known.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Parked {
    /// Which version it is.
    pub id: VersionId,
    /// The facility, form and period it is about.
    pub facility: UnitCode,
    /// What waits.
    pub version: AcceptedVersion,
    /// The catalogue it was written under.
    pub catalogue: CatalogueHash,
    /// Why it waits.
    pub reason: ParkReason,
}

/// A catalogue version held.
#[derive(Clone, Debug)]
pub struct HeldCatalogue {
    /// The catalogue.
    pub catalogue: Arc<Catalogue>,
    /// Its TOML, compressed, as agents get it.
    pub compressed: Vec<u8>,
}

/// See the module's text.
#[derive(Clone)]
pub struct State {
    /// The name of the centre.
    pub name: String,
    /// How many hellos were heard since the start: tells whether what is known of sites has changed.
    pub heard: u64,
    /// The position folded in last.
    pub position: Position,
    /// The moment of the row folded in last.
    pub newest: Option<Millis>,
    /// Catalogue versions by hash.
    pub catalogues: HashMap<CatalogueHash, HeldCatalogue>,
    /// The catalogue in force.
    pub catalogue: Arc<Catalogue>,
    /// The tables in force, as given.
    pub tables: Files,
    /// The organisation in force.
    pub organisation: Arc<Organisation>,
    /// The agents ever admitted.
    pub agents: BTreeMap<AgentId, Agent>,
    /// What context numbers stand for.
    pub contexts: HashMap<ContextNumber, Arc<Context>>,
    /// Enrolment codes.
    pub codes: HashMap<u32, Code>,
    /// Claims of facilities that are not approved.
    pub claims: BTreeMap<AgentId, Claim>,
    /// The counts.
    pub cube: Cube,
    /// What is held back.
    pub parked: BTreeMap<VersionId, Parked>,
    /// Refused entries: which report they were about, and why.
    pub refused: BTreeMap<VersionId, RefusedEntry>,
    /// The highest number given to a version written at the centre, by writer and numbering.
    pub numbered: BTreeMap<(AgentId, Epoch), Seq>,
    /// What was in force before, and what did not count then.
    pub history: History,
    /// The roll-overs of the operating key, in order.
    pub key_changes: Vec<KeyChange>,
}

/// A refused entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RefusedEntry {
    /// The facility, if the entry names one in its context.
    pub facility: Option<UnitCode>,
    /// The form's code, if it names one.
    pub form: Option<String>,
    /// The period, if it is a report.
    pub period: Option<banyan_shared::period::Period>,
    /// Why.
    pub refusal: banyan_shared::codes::Refusal,
    /// When.
    pub received_at: Millis,
}

/// What messages call the extensions granted one by one.
const EXTENDED_FILE: &str = "extend, waive";

/// Extensions granted one by one, as a table.
pub fn extensions_csv(rows: &[Extended]) -> String {
    let mut text = "form,unit,period,due,reason\n".to_owned();
    for Extended { form, unit, period, due, reason } in rows {
        let reason = reason.replace('"', "\"\"");
        text += &format!("{form},{unit},{period},{due},\"{reason}\"\n");
    }
    text
}

/// Parses the tables together and builds the organisation, with the extensions granted one by one since. One
/// of a unit or form that is gone covers nothing.
///
/// # Errors
/// Every error of every table.
pub fn build_organisation<F: Borrow<TableFile>>(
    catalogue: &Catalogue,
    files: &BTreeMap<TableName, F>,
    extended: &[Extended],
) -> Result<Organisation, Vec<RowError>> {
    let mut organisation = Organisation::build(catalogue, &read_tables(files)?)?;
    organisation.extend(&read_extended(extended)?);
    Ok(organisation)
}

/// Parses extensions granted one by one.
///
/// # Errors
/// Every error of every row.
pub fn read_extended(extended: &[Extended]) -> Result<Vec<ExtensionRow>, Vec<RowError>> {
    if extended.is_empty() {
        return Ok(Vec::new());
    }
    let mut tables = Tables::default();
    let text = extensions_csv(extended);
    let errors = tables.add(TableName::Extensions, EXTENDED_FILE, text.as_bytes());
    if errors.is_empty() { Ok(tables.extensions) } else { Err(errors) }
}

/// Parses the tables together.
///
/// # Errors
/// Every error of every row.
pub fn read_tables<F: Borrow<TableFile>>(
    files: &BTreeMap<TableName, F>,
) -> Result<Tables, Vec<RowError>> {
    let mut tables = Tables::default();
    let mut errors = Vec::new();
    for (table, file) in files {
        let file = file.borrow();
        match inflate(&file.bytes, TABLE_BYTES_MAX) {
            Ok(bytes) => errors.extend(tables.add(*table, &file.file, &bytes)),
            // What is in the ledger was checked before; a file given just now is too large.
            Err(_) => errors.push(too_large(&file.file.as_str().into())),
        }
    }
    if errors.is_empty() { Ok(tables) } else { Err(errors) }
}

/// Reads a catalogue from its compressed TOML.
///
/// # Errors
/// Every error of the catalogue, as text.
pub fn load_catalogue(compressed: &[u8]) -> Result<Catalogue, Vec<String>> {
    let toml = inflate(compressed, CATALOGUE_BYTES_MAX).map_err(|e| vec![e.to_string()])?;
    Catalogue::load(&toml)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())
}

impl State {
    /// The state of an empty ledger, once it has a catalogue and tables: folds `rows` until then.
    ///
    /// # Errors
    /// [`StateError`] if they are not those of a ledger made by `init`.
    pub fn begin(first: &[SignedAct]) -> Result<State, StateError> {
        let mut name = String::new();
        let mut held = None;
        for signed in first {
            match &signed.act {
                Act::Founded { name: given } => name.clone_from(given),
                Act::Catalogue { toml } => {
                    let catalogue = load_catalogue(toml).map_err(StateError::Catalogue)?;
                    held = Some(HeldCatalogue {
                        catalogue: Arc::new(catalogue),
                        compressed: toml.clone(),
                    });
                }
                _ => {}
            }
        }
        let held = held.ok_or(StateError::NoCatalogue)?;
        let catalogue = held.catalogue.clone();
        let tables = Tables::default();
        let organisation =
            Organisation::build(&catalogue, &tables).map_err(StateError::Registry)?;
        Ok(State {
            name,
            heard: 0,
            position: 0,
            newest: None,
            catalogues: HashMap::from([(catalogue.hash, held)]),
            cube: Cube::new(&catalogue),
            catalogue,
            tables: BTreeMap::new(),
            organisation: Arc::new(organisation),
            agents: BTreeMap::new(),
            contexts: HashMap::new(),
            codes: HashMap::new(),
            claims: BTreeMap::new(),
            parked: BTreeMap::new(),
            refused: BTreeMap::new(),
            numbered: BTreeMap::new(),
            history: History::default(),
            key_changes: Vec::new(),
        })
    }

    /// Folds one row in.
    ///
    /// # Errors
    /// [`StateError`] if the row does not read.
    pub fn apply_row(&mut self, row: &RowRef<'_>) -> Result<(), StateError> {
        let wire = |source| StateError::Wire { position: row.position, source };
        match row.kind {
            RowKind::Act => {
                let signed = SignedAct::read(row.bytes).map_err(wire)?;
                self.apply_act(&signed, row.position, row.received_at)
            }
            RowKind::Batch => {
                let envelope = Envelope::read(row.bytes).map_err(wire)?;
                let batch = HashedBatch::from(Batch::read(&envelope).map_err(wire)?);
                let refused: Refusals = if row.refused.is_empty() {
                    Vec::new()
                } else {
                    banyan_shared::wire::decode(row.refused).map_err(wire)?
                };
                let added = self.hold(&batch, &refused);
                self.apply_batch(batch, &added, &refused, row.position, row.received_at);
                Ok(())
            }
        }
    }

    /// The extensions granted one by one that stay once these tables are replaced: a new table of extensions
    /// takes their place.
    pub fn extended_under(&self, tables: impl IntoIterator<Item = TableName>) -> Vec<Extended> {
        if tables.into_iter().any(|table| table == TableName::Extensions) {
            return Vec::new();
        }
        self.history.extended()
    }

    /// Puts an agent's new context in force.
    fn scope(&mut self, agent: AgentId, context: &crate::act::NewContext, at: Millis) {
        self.add_context(context, self.catalogue.hash);
        if let Some(agent) = self.agents.get_mut(&agent) {
            agent.contexts.insert(context.number);
            agent.give(context.number, at, at);
        }
    }

    /// Notes that what is in force now is so since this row, and judges again what it may release.
    fn record(&mut self, position: Position, at: Millis) {
        self.history.record(at, position, self.catalogue.hash, &self.tables);
        self.rejudge(at);
    }

    fn advance(&mut self, position: Position, at: Millis) {
        self.position = position;
        self.newest = Some(at);
    }

    /// Folds an act in.
    ///
    /// # Errors
    /// [`StateError`] if a catalogue or the tables in it do not pass their check: `init` and `import-units`
    /// never store such. The state then still stands before the act.
    pub fn apply_act(
        &mut self,
        signed: &SignedAct,
        position: Position,
        received_at: Millis,
    ) -> Result<(), StateError> {
        self.fold_act(signed, position, received_at)?;
        self.advance(position, received_at);
        Ok(())
    }

    fn fold_act(
        &mut self,
        signed: &SignedAct,
        position: Position,
        received_at: Millis,
    ) -> Result<(), StateError> {
        match &signed.act {
            Act::Founded { name } => self.name.clone_from(name),
            Act::Catalogue { toml } => {
                let catalogue = Arc::new(load_catalogue(toml).map_err(StateError::Catalogue)?);
                if catalogue.hash != self.catalogue.hash {
                    self.rejudge(received_at);
                    let tables =
                        build_organisation(&catalogue, &self.tables, &self.history.extended())
                            .map_err(StateError::Registry)?;
                    self.organisation = Arc::new(tables);
                }
                let held = HeldCatalogue { catalogue: catalogue.clone(), compressed: toml.clone() };
                self.catalogues.insert(catalogue.hash, held);
                self.cube.learn(&catalogue);
                self.catalogue = catalogue;
                // A new form's slots in the order of the map, not of arrival.
                crate::query::reserve(&mut self.cube, &self.catalogue, &self.organisation);
                self.record(position, received_at);
            }
            Act::Tables(files) => {
                // What time alone has released was released under what was in force until now.
                self.rejudge(received_at);
                let mut tables = self.tables.clone();
                tables.extend(files.iter().map(|file| (file.table, Arc::new(file.clone()))));
                let extended = self.extended_under(files.iter().map(|file| file.table));
                let organisation = build_organisation(&self.catalogue, &tables, &extended)
                    .map_err(StateError::Registry)?;
                self.tables = tables;
                let before = std::mem::replace(&mut self.organisation, Arc::new(organisation));
                self.note_outdated(&before, received_at);
                crate::query::reserve(&mut self.cube, &self.catalogue, &self.organisation);
                self.record(position, received_at);
            }
            Act::Codes(codes) => codes.iter().for_each(|code| self.add_code(code)),
            Act::Admitted { key, code, context, machine, succeeds } => {
                self.admit(
                    *key,
                    Some(*code),
                    *context,
                    *machine,
                    *succeeds,
                    (received_at, received_at),
                );
            }
            Act::Readmitted { grant } => self.readmit(grant, received_at),
            Act::Scope { agent, context } => self.scope(*agent, context, received_at),
            Act::Revoked { agent } => {
                if let Some(known) = self.agents.get_mut(agent) {
                    // Out is out: saying so again does not make it later.
                    known.revoked.get_or_insert(received_at);
                    self.claims.remove(agent);
                }
            }
            Act::Reports(reports) => self.apply_reports(reports, position, received_at)?,
            Act::Stage(change) => {
                reports::apply_stage(&mut self.cube, change, position, received_at)?;
            }
            Act::Returned { report, seen } => {
                let place = (&report.facility, &report.form, report.period);
                let decided = Decided { by: report.by.clone(), at: received_at, position };
                self.cube.returned(place, decided, report.reason, seen.clone());
            }
            Act::Approved { report, versions } => {
                let place = (&report.facility, &report.form, report.period);
                let decided = Decided { by: report.by.clone(), at: received_at, position };
                self.cube.approved(place, decided, report.reason, versions.clone());
            }
            Act::Extended(rows) => {
                let read = read_extended(rows).map_err(StateError::Registry)?;
                Arc::make_mut(&mut self.organisation).extend(&read);
                self.history.grant(received_at, position, rows);
            }
            Act::Scopes(scopes) => {
                for (agent, context) in scopes {
                    self.scope(*agent, context, received_at);
                }
            }
            Act::ClaimsWait { code } => {
                if let Some(code) = self.codes.get_mut(code) {
                    code.approve = true;
                }
            }
            Act::CodeReplaces { code, agent } => {
                if let Some(code) = self.codes.get_mut(code) {
                    code.replaces = Some(*agent);
                }
            }
            Act::Claimed { key, code, context, machine } => {
                self.claim((*key, *code, *context), *machine, received_at);
            }
            Act::ClaimRefused { agent } => {
                if let Some(claim) = self.claims.get_mut(agent) {
                    claim.refused = true;
                }
            }
            Act::OperatingKey { certificate, before } => {
                let (certificate, before) = (certificate.clone(), before.clone());
                let change = KeyChange { position, at: received_at, certificate, before };
                self.key_changes.push(change);
            }
        }
        Ok(())
    }

    /// Notes in the sender's inbox what a batch adds, before or after it is in the ledger. What is there
    /// already stays. Returns what was added, to be undone if the commit fails.
    pub fn hold(&mut self, batch: &HashedBatch, refused: &Refusals) -> Vec<Seq> {
        let Some(agent) = self.agents.get_mut(&batch.agent) else { return Vec::new() };
        let mut added = Vec::new();
        let begins_here = begins_here(batch);
        for (entry, hash) in batch.hashed() {
            let (epoch, seq) = (batch.epoch, entry.seq);
            if agent.inbox.fate(epoch, seq, hash, begins_here) != Fate::New {
                continue;
            }
            match refused.iter().find(|(refused, _)| *refused == seq) {
                Some((_, refusal)) => agent.inbox.refuse(epoch, seq, hash, *refusal),
                None => agent.inbox.hold(epoch, seq, hash),
            }
            added.push(seq);
        }
        added
    }

    /// Counts what a committed batch adds: the entries that [`State::hold`] named, without the refused ones.
    pub fn apply_batch(
        &mut self,
        batch: HashedBatch,
        added: &[Seq],
        refused: &Refusals,
        position: Position,
        received_at: Millis,
    ) {
        self.advance(position, received_at);
        let Some(agent) = self.agents.get_mut(&batch.agent) else { return };
        agent.last_receipt = Some(received_at);
        if let Some((_, beacon)) = &mut agent.beacon {
            // What has arrived since the hello no longer waits there.
            let arrived = u32::try_from(added.len()).unwrap_or(u32::MAX);
            beacon.waiting = beacon.waiting.saturating_sub(arrived);
        }
        let Some(context) = self.contexts.get(&batch.context).cloned() else { return };
        let Some(held) = self.catalogues.get(&context.catalogue) else { return };
        let catalogue = held.catalogue.clone();
        let today = self.catalogue.day_at(received_at);
        let (writer, epoch) = (batch.agent, batch.epoch);
        for (entry, hash) in batch.into_hashed() {
            if added.binary_search(&entry.seq).is_err() {
                continue;
            }
            let id = VersionId { writer, epoch, seq: entry.seq };
            let refused_here = refused.iter().any(|(seq, _)| *seq == entry.seq);
            let Some(agent) = self.agents.get(&writer) else { return };
            if !refused_here && agent.inbox.hash(epoch, entry.seq) != Some(hash) {
                // Refused earlier, or held with other content: this batch adds nothing here.
                continue;
            }
            let (facility, form, period, content) = match entry.body {
                Body::Void => {
                    let settled = self.refused.remove(&id).map(|entry| (entry, received_at));
                    self.history.settled.extend(settled);
                    continue;
                }
                Body::Begins { earlier, .. } => {
                    self.cube.begins(writer, epoch, earlier);
                    continue;
                }
                Body::Report { facility, form, period, content } => {
                    (facility, form, period, content)
                }
            };
            let code = usize::try_from(facility).ok().and_then(|at| context.facilities.get(at));
            if let Some((_, refusal)) = refused.iter().find(|(seq, _)| *seq == entry.seq) {
                let form = catalogue.forms.get(usize::from(form));
                self.refused.entry(id).or_insert_with(|| RefusedEntry {
                    facility: code.cloned(),
                    form: form.map(|form| form.code.to_string()),
                    period: Some(period),
                    refusal: *refusal,
                    received_at,
                });
                continue;
            }
            let Some(code) = code.cloned() else { continue };
            let form = banyan_shared::catalogue::FormIx(form);
            let facility = code;
            let version =
                AcceptedVersion { facility, form, period, id, content, received_at, position };
            self.place(&catalogue, version, today);
        }
    }

    /// Counts an accepted version, or parks it for as long as something about it is not known here.
    fn place(&mut self, catalogue: &Catalogue, version: AcceptedVersion, today: Date) {
        let AcceptedVersion { facility, form, period, id, .. } = &version;
        let id = *id;
        match self.park_reason(catalogue, facility, *form, *period, today) {
            Some(reason) => {
                let (facility, catalogue) = (facility.clone(), catalogue.hash);
                self.parked.insert(id, Parked { id, facility, version, catalogue, reason });
                self.mark_parked(id, Some(reason));
            }
            None => self.count(catalogue, version),
        }
    }

    fn count(&mut self, catalogue: &Catalogue, version: AcceptedVersion) {
        let id = version.id;
        if let Err(error) = self.cube.apply(catalogue, version) {
            // The judge refuses every shape the cube cannot take; this would be a fault of ours.
            tracing::error!(%id, %error, "an accepted version could not be counted");
        }
    }

    fn mark_parked(&mut self, id: VersionId, reason: Option<ParkReason>) {
        if let Some(agent) = self.agents.get_mut(&id.writer) {
            agent.inbox.park(id.epoch, id.seq, reason);
        }
    }

    /// Judges every parked entry again, as of `now`; returns how many were released.
    pub fn rejudge(&mut self, now: Millis) -> usize {
        let today = self.catalogue.day_at(now);
        let mut released = Vec::new();
        let mut changed = Vec::new();
        for (id, parked) in &self.parked {
            let Some(held) = self.catalogues.get(&parked.catalogue) else { continue };
            let version = &parked.version;
            match self.park_reason(
                &held.catalogue,
                &parked.facility,
                version.form,
                version.period,
                today,
            ) {
                None => released.push(*id),
                Some(reason) if reason != parked.reason => changed.push((*id, reason)),
                Some(_) => {}
            }
        }
        for (id, reason) in changed {
            if let Some(parked) = self.parked.get_mut(&id) {
                parked.reason = reason;
            }
            self.mark_parked(id, Some(reason));
        }
        for id in &released {
            if let Some(parked) = self.parked.remove(id) {
                self.mark_parked(*id, None);
                self.release(parked);
            }
        }
        released.len()
    }

    /// Counts an entry that was held back, and keeps since when it counts: from when everything about it
    /// was known and its day had come, whenever that was noticed.
    fn release(&mut self, parked: Parked) {
        let Some(held) = self.catalogues.get(&parked.catalogue) else { return };
        let catalogue = held.catalogue.clone();
        let Parked { id, facility, version, .. } = parked;
        let (period, received_at) = (version.period, version.received_at);
        let form = catalogue.forms[version.form.at()].code.clone();
        let begins = self.catalogue.moment(period.first_day(), 0, 0);
        let released_at = received_at.max(self.history.in_force_since()).max(begins);
        self.count(&catalogue, version);
        self.cube.held_back(&form, period, id, released_at);
        let report = (facility, form, period);
        self.history.released.push(Released { id, report, received_at, released_at });
    }
}

/// Whether the first entry of the batch's life is in it.
fn begins_here(batch: &Batch) -> bool {
    let begins =
        |e: &banyan_shared::wire::Entry| e.seq == 1 && matches!(e.body, Body::Begins { .. });
    batch.entries.iter().any(begins)
}

#[cfg(test)]
pub(crate) mod tests;
