//! Reports and their versions: what a clinic says, and which statement of it stands.
//!
//! A [`Report`] is a register, not an event: "facility F, form X, period P: these values". Every writing of
//! it is a [`Version`]. Which versions stand ([`heads`]) and which one is counted ([`current`]) depend only
//! on the set of versions: never on the order of arrival and never on a clock.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{AgentId, Epoch, Seq, VersionId};

/// One value of a report. Zero, missing and not applicable are three things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Value {
    /// A number, zero included.
    Number(u64),
    /// Asked, not answered.
    Missing,
    /// Answered: does not apply here.
    NotApplicable,
}

impl Value {
    /// The number, if it is one.
    pub fn number(self) -> Option<u64> {
        match self {
            Value::Number(n) => Some(n),
            _ => None,
        }
    }

    /// Whether it answers the question: a number or "not applicable".
    pub fn is_answer(self) -> bool {
        self != Value::Missing
    }
}

macro_rules! coded {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $code:literal, $zh:literal, $en:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every value, in the order of its wire number.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The code used in files, JSON and commands.
            pub fn code(self) -> &'static str {
                match self { $($name::$variant => $code,)* }
            }

            /// What people read.
            pub fn text(self, lang: crate::catalogue::Lang) -> &'static str {
                match (self, lang) {
                    $(($name::$variant, crate::catalogue::Lang::Zh) => $zh,
                      ($name::$variant, crate::catalogue::Lang::En) => $en,)*
                }
            }

            /// The value with this code.
            pub fn from_code(code: &str) -> Option<$name> {
                $name::ALL.iter().copied().find(|value| value.code() == code)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.code())
            }
        }
    };
}
pub(crate) use coded;

coded! {
    /// How a report came to be entered.
    How {
        /// Typed at the facility it is about.
        Direct = "direct", "本机构录入", "typed at the facility";
        /// Typed by another facility on its behalf.
        Proxy = "proxy", "代报", "entered on its behalf";
        /// Read from a file.
        Import = "import", "文件导入", "imported from a file";
        /// Kept on paper first.
        PaperLater = "paper_later", "纸质补录", "copied from paper";
        /// Entered by an operator at the centre.
        Operator = "operator", "中心录入", "entered at the centre";
    }
}

coded! {
    /// Why a report was corrected or withdrawn.
    Reason {
        /// Counted again.
        Recount = "recount", "重新核数", "counted again";
        /// A slip of the finger.
        Typo = "typo", "录入错误", "typing error";
        /// Coding of records finished later.
        LateCoding = "late_coding", "病案编码滞后", "records coded later";
        /// The same thing entered twice.
        Duplicate = "duplicate", "重复录入", "entered twice";
        /// Belongs to another period.
        WrongPeriod = "wrong_period", "统计期有误", "wrong period";
        /// Belongs to another facility.
        WrongFacility = "wrong_facility", "机构有误", "wrong facility";
        /// Asked for by the office that checks.
        Returned = "returned", "上级退回", "returned for correction";
        /// None of the others.
        Other = "other", "其他", "other";
    }
}

coded! {
    /// Why a report was saved although a rule of severity "error" is broken.
    Override {
        /// A supervisor has checked the figures.
        Verified = "verified", "负责人已核实", "verified by a supervisor";
        /// The rule does not fit this facility.
        Unusual = "unusual", "特殊情况属实", "unusual but true";
        /// The source system gives no better figure.
        Source = "source", "源系统所限", "limit of the source system";
    }
}

/// When a report was entered, by the agent's own clock. Information only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EnteredAt {
    /// Minutes since 1970-01-01T00:00Z.
    pub minute: u32,
    /// Whether the agent did not trust its clock.
    pub doubtful: bool,
}

/// What a version says, apart from which report it is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Content {
    /// One value for each line of the form, in the form's order; lines not asked are `Missing`.
    pub values: Vec<Value>,
    /// How it was entered.
    pub how: How,
    /// Who entered it: a staff code, never a patient's name.
    pub entered_by: Option<String>,
    /// Why, for a correction or withdrawal.
    pub reason: Option<Reason>,
    /// Why it was saved against a rule.
    pub override_code: Option<Override>,
    /// Whether it takes the report back: everything returns to missing.
    pub withdrawn: bool,
    /// When it was entered, as the agent believed.
    pub entered_at: EnteredAt,
    /// The versions of other writers it replaces: those its author was shown.
    pub replaces: Vec<VersionId>,
}

impl Content {
    /// Whether it answers anything: not withdrawn and at least one value is a number or not applicable.
    pub fn is_answer(&self) -> bool {
        !self.withdrawn && self.values.iter().any(|value| value.is_answer())
    }
}

/// What the choice among versions looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Its identity.
    pub id: VersionId,
    /// How it was entered.
    pub how: How,
    /// The versions of other writers it replaces.
    pub replaces: Vec<VersionId>,
}

/// What is known of writers' histories, beyond the versions themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// For each writer, the writer it came after: a replaced PC's predecessor.
    predecessors: BTreeMap<AgentId, AgentId>,
    /// For each life of a writer's numbering, the earlier lives its first entry names, each with the
    /// highest number the machine knew to be issued there.
    earlier: BTreeMap<(AgentId, Epoch), Vec<(Epoch, Seq)>>,
}

impl Lineage {
    /// Notes that `newer` took over from `older`.
    pub fn succeeds(&mut self, newer: AgentId, older: AgentId) {
        self.predecessors.insert(newer, older);
    }

    /// Notes what the first entry of `writer`'s life `epoch` says of its earlier lives.
    pub fn begins(&mut self, writer: AgentId, epoch: Epoch, earlier: Vec<(Epoch, Seq)>) {
        self.earlier.insert((writer, epoch), earlier);
    }

    fn came_after(&self, newer: AgentId, older: AgentId) -> bool {
        // Chains are short (PCs are replaced every few years) and acyclic by construction: a successor
        // is always enrolled later. The bound keeps a damaged table from looping.
        let mut at = newer;
        for _ in 0..64 {
            match self.predecessors.get(&at) {
                Some(o) if *o == older => return true,
                Some(o) => at = *o,
                None => return false,
            }
        }
        false
    }

    fn knew(&self, newer: VersionId, older: VersionId) -> bool {
        self.earlier.get(&(newer.writer, newer.epoch)).is_some_and(|lives| {
            lives.iter().any(|(epoch, issued)| *epoch == older.epoch && older.seq <= *issued)
        })
    }
}

/// Whether `newer` replaces `older`, both being versions of one report.
///
/// It does if it names it; if the same writer wrote it earlier in the same life, or in an earlier life
/// that the newer one knew of (a copied or restored disk knows nothing of what its twin wrote
/// meanwhile: neither came first); or if its writer succeeded the other's. What is written at the centre
/// replaces only what it names: one key signs corrections and files, and a file read in later must not
/// take the place of a correction.
pub fn replaces(newer: &Version, older: &Version, lineage: &Lineage) -> bool {
    let (n, o) = (newer.id, older.id);
    if n == o {
        return false;
    }
    if newer.replaces.contains(&o) {
        return true;
    }
    if n.writer == o.writer {
        return if n.epoch == o.epoch {
            n.seq > o.seq && !n.epoch.is_centre()
        } else {
            lineage.knew(n, o)
        };
    }
    lineage.came_after(n.writer, o.writer)
}

/// The places in `versions` of those that no other version replaces, in order of identity.
///
/// `versions` holds accepted and admitted versions of one report. Naming can only point at versions its
/// author was shown, so it cannot run in circles between honest writers; should two versions name each
/// other all the same, neither is lost: both stand.
pub fn heads(versions: &[Version], lineage: &Lineage) -> Vec<usize> {
    let replaced = |older: usize| {
        versions.iter().enumerate().any(|(newer, version)| {
            newer != older
                && replaces(version, &versions[older], lineage)
                && !replaces(&versions[older], version, lineage)
        })
    };
    let mut heads: Vec<usize> = (0..versions.len()).filter(|&at| !replaced(at)).collect();
    if heads.is_empty() {
        // A longer circle of names: nothing may vanish, so all of it stands.
        heads = (0..versions.len()).collect();
    }
    heads.sort_by_key(|&at| versions[at].id);
    heads
}

/// The place in `versions` of the one that is counted, and how many stand (more than one: a conflict).
///
/// Among several heads: an operator's that replaced something, then the facility's own, then import,
/// proxy and paper, then an operator's that filled a gap; then the greatest (writer, epoch, seq). What a
/// file brought to the centre is an import here, however it was first entered.
pub fn current(versions: &[Version], lineage: &Lineage) -> Option<(usize, usize)> {
    let heads = heads(versions, lineage);
    let rank = |at: usize| {
        let version = &versions[at];
        let class = match version.how {
            How::Operator if !version.replaces.is_empty() => 3,
            How::Direct if !version.id.epoch.is_centre() => 2,
            How::Direct | How::Import | How::Proxy | How::PaperLater => 1,
            How::Operator => 0,
        };
        (class, version.id)
    };
    heads.iter().copied().max_by_key(|&at| rank(at)).map(|at| (at, heads.len()))
}

/// What a sign-off or lock had seen of one report: for each writer's life, the highest number.
pub type VersionVector = BTreeMap<(AgentId, Epoch), Seq>;

/// Whether a version of a locked report is admitted: the lock saw it, or an approval has named it since.
/// Without a lock every accepted version is.
pub fn admitted(id: VersionId, lock: Option<&VersionVector>, approved: &[VersionId]) -> bool {
    match lock {
        None => true,
        Some(seen) => {
            seen.get(&(id.writer, id.epoch)).is_some_and(|&seq| id.seq <= seq)
                || approved.contains(&id)
        }
    }
}

#[cfg(test)]
mod tests;
