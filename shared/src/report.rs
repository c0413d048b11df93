//! Reports and their versions: what a clinic says, and which statement of it stands.
//!
//! A [`Report`] is a register, not an event: "facility F, form X, period P: these values". Every writing of
//! it is a [`Version`]. Which versions stand ([`heads`]) and which one is counted ([`current`]) depend only
//! on the set of versions: never on the order of arrival and never on a clock. Both take time in proportion
//! to the number of versions, times that of lives that took over from others.

use std::collections::{BTreeMap, BTreeSet};

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

    /// What the first entry of `writer`'s life `epoch` says of its earlier lives.
    pub fn earlier_of(&self, writer: AgentId, epoch: Epoch) -> &[(Epoch, Seq)] {
        self.earlier.get(&(writer, epoch)).map_or(&[], Vec::as_slice)
    }

    /// Whether `newer` took over from `older`, at once or through others.
    pub fn came_after(&self, newer: AgentId, older: AgentId) -> bool {
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
        self.knew_in((newer.writer, newer.epoch), older)
    }

    /// Whether a life knew of a version of an earlier one.
    fn knew_in(&self, life: (AgentId, Epoch), older: VersionId) -> bool {
        older.seq <= self.issued(life, older.epoch)
    }

    /// The highest number of its writer's life `earlier` that a life knew to be issued; 0 for none.
    fn issued(&self, life: (AgentId, Epoch), earlier: Epoch) -> Seq {
        let lives = self.earlier.get(&life).into_iter().flatten();
        lives.filter(|(epoch, _)| *epoch == earlier).map(|(_, issued)| *issued).max().unwrap_or(0)
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

/// Since when each version is replaced, `since` telling when each one came; none for those that stand. What
/// [`replaces`] says of every pair, without looking at every pair: a life's later versions are told by their
/// number, and only those of heirs and of lives that knew earlier ones can replace another life's unnamed.
fn replaced_since<T: Copy + Ord>(
    versions: &[Version],
    since: &[T],
    lineage: &Lineage,
) -> Vec<Option<T>> {
    let mut lives: BTreeMap<(AgentId, Epoch), Life<T>> = BTreeMap::new();
    let mut named: BTreeMap<VersionId, Vec<usize>> = BTreeMap::new();
    for (at, version) in versions.iter().enumerate() {
        let life = lives.entry((version.id.writer, version.id.epoch)).or_default();
        life.numbers.push((version.id.seq, since[at]));
        for id in &version.replaces {
            named.entry(*id).or_default().push(at);
        }
    }
    lives.values_mut().for_each(Life::close);
    let heirs: Vec<_> = lives
        .iter()
        .filter(|((writer, epoch), _)| {
            lineage.predecessors.contains_key(writer)
                || lineage.earlier.contains_key(&(*writer, *epoch))
        })
        .collect();
    let replaced = |older: &Version| {
        let (writer, epoch) = (older.id.writer, older.id.epoch);
        let mut first: Option<T> = None;
        let mut note = |moment: Option<T>| {
            first = [first, moment].into_iter().flatten().min();
        };
        for &newer in named.get(&older.id).into_iter().flatten() {
            let by = &versions[newer];
            if by.id != older.id && !replaces(older, by, lineage) {
                note(Some(since[newer]));
            }
        }
        if !epoch.is_centre() {
            note(lives[&(writer, epoch)].first_after(older.id.seq, older, (writer, epoch)));
        }
        for ((by, life_epoch), life) in &heirs {
            if *by == writer {
                if *life_epoch == epoch || !lineage.knew_in((*by, *life_epoch), older.id) {
                    continue;
                }
                // Of two lives that each know of the other, what the older one knew of is no successor.
                let known = lineage.issued((writer, epoch), *life_epoch);
                note(life.first_after(known, older, (*by, *life_epoch)));
            } else if lineage.came_after(*by, writer) && !lineage.came_after(writer, *by) {
                note(life.first_after(0, older, (*by, *life_epoch)));
            }
        }
        first
    };
    versions.iter().map(replaced).collect()
}

/// The versions one report has of one life.
#[derive(Debug)]
struct Life<T> {
    /// In order of number, each with when it came.
    numbers: Vec<(Seq, T)>,
    /// From each on: when the first of the rest came.
    first: Vec<T>,
}

impl<T> Default for Life<T> {
    fn default() -> Life<T> {
        Life { numbers: Vec::new(), first: Vec::new() }
    }
}

impl<T: Copy + Ord> Life<T> {
    fn close(&mut self) {
        self.numbers.sort_unstable();
        let mut first: Vec<T> = self.numbers.iter().map(|(_, since)| *since).collect();
        for at in (1..first.len()).rev() {
            first[at - 1] = first[at - 1].min(first[at]);
        }
        self.first = first;
    }

    /// When the first of the versions numbered above `seq` came that `older` does not itself replace by name.
    fn first_after(&self, seq: Seq, older: &Version, life: (AgentId, Epoch)) -> Option<T> {
        let from = self.numbers.partition_point(|(number, _)| *number <= seq);
        let named = |number: Seq| {
            let of_life = |id: &&VersionId| (id.writer, id.epoch) == life;
            older.replaces.iter().filter(of_life).any(|id| id.seq == number)
        };
        let rest = &self.numbers[from..];
        if older.replaces.iter().any(|id| (id.writer, id.epoch) == life && id.seq > seq) {
            // Whoever names what comes after his own is no honest writer, or an heir was shown first.
            return rest.iter().filter(|(n, _)| !named(*n)).map(|(_, since)| *since).min();
        }
        self.first.get(from).copied()
    }
}

/// The places in `versions` of those that no other version replaces, in order of identity.
///
/// `versions` holds accepted and admitted versions of one report. Naming can only point at versions its
/// author was shown, so it cannot run in circles between honest writers; should two versions name each
/// other all the same, neither is lost: both stand.
pub fn heads(versions: &[Version], lineage: &Lineage) -> Vec<usize> {
    let replaced = replaced_since(versions, &vec![(); versions.len()], lineage);
    let mut heads: Vec<usize> = (0..versions.len()).filter(|&at| replaced[at].is_none()).collect();
    if heads.is_empty() {
        // A longer circle of names: nothing may vanish, so all of it stands.
        heads = (0..versions.len()).collect();
    }
    heads.sort_by_key(|&at| versions[at].id);
    heads
}

/// The order among versions that stand: an operator's that replaced something, then the facility's own, then
/// import, proxy and paper, then an operator's that filled a gap; then the greatest (writer, epoch, seq). What
/// a file brought to the centre is an import here, however it was first entered.
fn rank(version: &Version) -> (u8, VersionId) {
    let class = match version.how {
        How::Operator if !version.replaces.is_empty() => 3,
        How::Direct if !version.id.epoch.is_centre() => 2,
        How::Direct | How::Import | How::Proxy | How::PaperLater => 1,
        How::Operator => 0,
    };
    (class, version.id)
}

/// The place in `versions` of the one that is counted, and how many stand (more than one: a conflict): among
/// several heads the greatest in [rank](rank).
pub fn current(versions: &[Version], lineage: &Lineage) -> Option<(usize, usize)> {
    let heads = heads(versions, lineage);
    heads.iter().copied().max_by_key(|&at| rank(&versions[at])).map(|at| (at, heads.len()))
}

/// What was counted from a moment on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice<T> {
    /// The moment.
    pub since: T,
    /// The place of the version counted.
    pub at: usize,
    /// How many stood.
    pub heads: usize,
}

/// What [`current`] says of the versions known at each moment at which any came, `since` telling when each
/// did. In order of time; the last is what is counted now.
pub fn choices<T: Copy + Ord>(
    versions: &[Version],
    since: &[T],
    lineage: &Lineage,
) -> Vec<Choice<T>> {
    let replaced = replaced_since(versions, since, lineage);
    let mut coming: Vec<usize> = (0..versions.len()).collect();
    coming.sort_by_key(|&at| since[at]);
    let stood = |at: &usize| replaced[*at].is_none_or(|until| until > since[*at]);
    let mut going: Vec<(T, usize)> =
        (0..versions.len()).filter(stood).filter_map(|at| Some((replaced[at]?, at))).collect();
    going.sort_unstable();
    let mut going = going.into_iter().peekable();
    let mut standing: BTreeSet<((u8, VersionId), usize)> = BTreeSet::new();
    let mut best: Option<((u8, VersionId), usize)> = None;
    let mut choices: Vec<Choice<T>> = Vec::new();
    for (known, &at) in (1..).zip(&coming) {
        let moment = since[at];
        let ranked = (rank(&versions[at]), at);
        best = best.max(Some(ranked));
        if stood(&at) {
            standing.insert(ranked);
        }
        while let Some((_, gone)) = going.next_if(|(until, _)| *until <= moment) {
            standing.remove(&(rank(&versions[gone]), gone));
        }
        if coming.get(known).is_some_and(|next| since[*next] == moment) {
            continue;
        }
        // As in `heads`: where each is replaced by another, all of them stand.
        let (last, heads) = match standing.last() {
            Some(last) => (Some(*last), standing.len()),
            None => (best, known),
        };
        choices.extend(last.map(|(_, at)| Choice { since: moment, at, heads }));
    }
    choices
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
