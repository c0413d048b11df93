//! Operators' acts: everything that people or the service decide, as opposed to what clinics report.
//!
//! An act is signed by the operating key and stands in the ledger beside the batches (and in `acts.log`),
//! so that the organisation, the agents and the catalogue at any position are a fold over the ledger.
//! Bytes of a shipped version never change: new acts are new variants at the end.

use std::collections::HashMap;

use banyan_shared::catalogue::{CatalogueHash, FormIx, Lang};
use banyan_shared::ids::{
    AgentId, ContextNumber, Epoch, FormCode, Millis, Seq, UnitCode, VersionId,
};
use banyan_shared::keys::{Certificate, PublicKey, SigningKey, sha256};
use banyan_shared::limits::{BATCH_ENTRIES_MAX, BATCH_VALUES_MAX};
use banyan_shared::period::Period;
use banyan_shared::report::{Content, Reason, VersionVector};
use banyan_shared::tables::TableName;
use banyan_shared::wire::{self, Body, Entry, Envelope, Kind, SignedGrant, WireError};
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

/// Most reports in one act.
pub const REPORTS_MAX: usize = 8192;
/// Largest content of an act of reports before it is compressed, in bytes: far below the largest row.
const REPORTS_BYTES_MAX: usize = 12 << 20;

/// A report written at the centre.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewReport {
    /// The facility it is about.
    pub facility: UnitCode,
    /// The form, in the act's catalogue.
    pub form: FormIx,
    /// The period.
    pub period: Period,
    /// What it says.
    pub content: Content,
}

/// Versions of reports written at the centre: an operator's corrections and withdrawals, or counts read
/// from a file.
///
/// Their numbers stand in the act itself, so that an approval or a correction that names one still does
/// after a restore has moved every position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reports {
    /// Who wrote them: the id of the operating key that signs the act.
    pub writer: AgentId,
    /// In which of the centre's numberings ([`Epoch::centre`]).
    pub epoch: Epoch,
    /// The catalogue their form numbers refer to.
    pub catalogue: CatalogueHash,
    /// The facilities, and the reports column by column as in a batch, compressed.
    packed: Vec<u8>,
}

impl Reports {
    /// Packs reports, numbered from `first` on, into as few acts as the limits allow.
    pub fn pack(
        (writer, epoch, first): (AgentId, Epoch, Seq),
        catalogue: CatalogueHash,
        reports: Vec<NewReport>,
    ) -> Vec<Reports> {
        let mut acts = Vec::new();
        let mut open = Open::default();
        for (seq, report) in (first..).zip(reports) {
            if open.is_full(report.content.values.len()) {
                acts.push(std::mem::take(&mut open).close(writer, epoch, catalogue));
            }
            open.add(seq, report);
        }
        if open.reports > 0 {
            acts.push(open.close(writer, epoch, catalogue));
        }
        acts
    }

    /// The reports, each with its identity.
    ///
    /// # Errors
    /// [`WireError`] if the content does not read.
    pub fn unpack(&self) -> Result<Vec<(VersionId, NewReport)>, WireError> {
        let bytes = wire::inflate(&self.packed, REPORTS_BYTES_MAX * 2)?;
        let (facilities, sheets): (Vec<UnitCode>, Vec<Vec<u8>>) = wire::decode(&bytes)?;
        let mut reports = Vec::new();
        for sheet in &sheets {
            for Entry { seq, body } in wire::unpack(sheet)? {
                let Body::Report { facility, form, period, content } = body else {
                    return Err(WireError::Malformed("an act of reports holds another entry"));
                };
                let facility = usize::try_from(facility)
                    .ok()
                    .and_then(|at| facilities.get(at))
                    .ok_or(WireError::Malformed("a facility is not in the act's list"))?;
                let id = VersionId { writer: self.writer, epoch: self.epoch, seq };
                let (facility, form) = (facility.clone(), FormIx(form));
                reports.push((id, NewReport { facility, form, period, content }));
            }
        }
        Ok(reports)
    }
}

/// An act of reports being filled.
#[derive(Default)]
struct Open {
    facilities: Vec<UnitCode>,
    places: HashMap<UnitCode, u32>,
    sheets: Vec<Vec<u8>>,
    bytes: usize,
    sheet: Vec<Entry>,
    values: usize,
    reports: usize,
}

impl Open {
    /// Whether a report of so many values must go into the next act. The sheet still open is taken at
    /// its largest: ten bytes a value.
    fn is_full(&self, values: usize) -> bool {
        let largest = self.bytes + (self.values + values) * 10 + self.sheet.len() * 256;
        self.reports >= REPORTS_MAX || self.reports > 0 && largest > REPORTS_BYTES_MAX
    }

    fn add(&mut self, seq: Seq, report: NewReport) {
        let values = report.content.values.len();
        if self.sheet.len() >= BATCH_ENTRIES_MAX || self.values + values > BATCH_VALUES_MAX {
            self.close_sheet();
        }
        let next = u32::try_from(self.facilities.len()).unwrap_or(u32::MAX);
        let facility = *self.places.entry(report.facility.clone()).or_insert_with(|| {
            self.bytes += report.facility.as_str().len() + 2;
            self.facilities.push(report.facility);
            next
        });
        let NewReport { form, period, content, .. } = report;
        self.values += values;
        self.reports += 1;
        self.sheet
            .push(Entry { seq, body: Body::Report { facility, form: form.0, period, content } });
    }

    fn close_sheet(&mut self) {
        let sheet = wire::pack(&self.sheet);
        self.bytes += sheet.len();
        self.sheets.push(sheet);
        (self.sheet, self.values) = (Vec::new(), 0);
    }

    fn close(mut self, writer: AgentId, epoch: Epoch, catalogue: CatalogueHash) -> Reports {
        self.close_sheet();
        let packed = wire::deflate(&wire::encode(&(&self.facilities, &self.sheets)));
        Reports { writer, epoch, catalogue, packed }
    }
}

/// How far the review of reports has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// They may change.
    Open,
    /// Signed off: they may change, and then the figures are restated.
    Signed,
    /// Locked: what comes later waits for an approval.
    Locked,
}

impl Stage {
    /// The code used in JSON.
    pub fn code(self) -> &'static str {
        match self {
            Stage::Open => "open",
            Stage::Signed => "signed",
            Stage::Locked => "locked",
        }
    }

    /// What people read.
    pub fn text(self, lang: Lang) -> &'static str {
        match (self, lang) {
            (Stage::Open, Lang::Zh) => "未审核",
            (Stage::Open, Lang::En) => "open",
            (Stage::Signed, Lang::Zh) => "已签核",
            (Stage::Signed, Lang::En) => "signed off",
            (Stage::Locked, Lang::Zh) => "已锁定",
            (Stage::Locked, Lang::En) => "locked",
        }
    }
}

/// The reports of one period that a sign-off, lock or opening covers, and what it saw of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Covered {
    /// The period.
    pub period: Period,
    /// The facilities, by place in the act's list.
    pub facilities: Vec<u32>,
    /// The highest number seen of a facility's report in a writer's life: facility and life by place in the
    /// act's lists. Empty for an opening.
    pub seen: Vec<(u32, u32, Seq)>,
}

/// The reports of one form of a unit or network are signed off, locked or opened again.
///
/// What was seen stands in the act, report by report, so that it holds wherever a restore puts the act.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageChange {
    /// The unit or network, by code.
    pub place: String,
    /// The form.
    pub form: FormCode,
    /// The period or range it was decided for.
    pub period: String,
    /// The stage reached.
    pub stage: Stage,
    /// Whose decision it is.
    pub by: String,
    /// Facilities, lives and periods, compressed.
    packed: Vec<u8>,
}

/// What a change of stage covers, unpacked: facilities, writers' lives, periods.
pub type Cover = (Vec<UnitCode>, Vec<(AgentId, Epoch)>, Vec<Covered>);

/// Largest cover of one act before it is compressed, in bytes.
const COVER_BYTES_MAX: usize = 64 << 20;

impl StageChange {
    /// A change of stage.
    pub fn new(
        (place, form, period): (String, FormCode, String),
        stage: Stage,
        by: String,
        cover: &Cover,
    ) -> StageChange {
        let packed = wire::deflate(&wire::encode(cover));
        StageChange { place, form, period, stage, by, packed }
    }

    /// What it covers.
    ///
    /// # Errors
    /// [`WireError`] if the content does not read.
    pub fn cover(&self) -> Result<Cover, WireError> {
        wire::decode(&wire::inflate(&self.packed, COVER_BYTES_MAX)?)
    }
}

/// The report a decision is about, why, and whose decision it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneReport {
    /// The facility.
    pub facility: UnitCode,
    /// The form.
    pub form: FormCode,
    /// The period.
    pub period: Period,
    /// Why.
    pub reason: Reason,
    /// Whose decision it is.
    pub by: String,
}

/// A later due time, or a waiver, granted by an operator: a row of `extensions.csv`, in its words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extended {
    /// The form.
    pub form: FormCode,
    /// The unit at or below which it holds.
    pub unit: UnitCode,
    /// The period or range.
    pub period: String,
    /// A local date-time, or `waived`.
    pub due: String,
    /// Why; may be empty.
    pub reason: String,
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
    /// Versions of reports written at the centre.
    Reports(Reports),
    /// The reports of a place are signed off, locked or opened again.
    Stage(StageChange),
    /// A report is returned for correction: what is there does not count until it is entered again or
    /// approved.
    Returned {
        /// Which report, and why.
        report: OneReport,
        /// What was there: for each writer's life the highest number.
        seen: VersionVector,
    },
    /// Versions of a report that waited, behind a lock or returned, count from now on.
    Approved {
        /// Which report, and why.
        report: OneReport,
        /// The versions.
        versions: Vec<VersionId>,
    },
    /// Later due times and waivers, on top of the table of extensions; the newest that covers a report
    /// counts.
    Extended(Vec<Extended>),
    /// Many agents report under other contexts from now on: those of a new catalogue, say.
    Scopes(Vec<(AgentId, NewContext)>),
    /// Whoever uses this code waits until an operator has approved.
    ClaimsWait {
        /// The code's number.
        code: u32,
    },
    /// An agent claims a facility that another has, or one of a code whose claims wait.
    Claimed {
        /// Its key.
        key: PublicKey,
        /// The code's number.
        code: u32,
        /// The context it asks for.
        context: ContextNumber,
        /// A fingerprint of its machine.
        machine: u64,
    },
    /// An operator has refused a claim.
    ClaimRefused {
        /// The agent.
        agent: AgentId,
    },
    /// Whoever uses this code goes on with the history of an agent: its PC was replaced.
    CodeReplaces {
        /// The code's number.
        code: u32,
        /// The agent replaced.
        agent: AgentId,
    },
    /// Another operating key signs from this act on, which it signs as the first.
    OperatingKey {
        /// The root's word for it.
        certificate: Certificate,
        /// The root's word for the one that signed until here.
        before: Certificate,
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
