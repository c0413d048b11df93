//! What operators decided about one form's reports: returned, approved, signed off, locked, opened again.
//!
//! Every decision keeps its moment, so that a block can be read as of any day with the decisions known then.
//! A sign-off or lock holds the version vector it saw of each report; whether a version is admitted is read
//! out of it when a second version needs to be judged, never stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use banyan_shared::ids::{AgentId, Epoch, Millis, Position, Seq, VersionId};
use banyan_shared::period::Period;
use banyan_shared::report::{Reason, VersionVector, admitted};
use serde::{Deserialize, Serialize};

use super::Slot;
use crate::act::Stage;

/// Who decided, when, and where it stands in the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// Whose decision it is.
    pub by: String,
    /// When the ledger received it.
    pub at: Millis,
    /// Where it stands in the ledger.
    pub position: Position,
}

/// A decision about one report, as its trace shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It was returned for correction.
    Returned(Decided, Reason),
    /// Versions that waited were approved.
    Approved(Decided, Reason),
    /// The reports of a place were signed off, locked or opened again, this one among them.
    Staged(Decided, Stage, String),
}

/// A stage reached by the reports of a place for one period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Staged {
    decided: Decided,
    stage: Stage,
    /// The unit or network it was decided for.
    place: String,
    /// The reports it covers, in order.
    slots: Vec<Slot>,
    /// The writers' lives seen, numbered in `seen`.
    lives: Vec<(AgentId, Epoch)>,
    /// For a sign-off or lock: the highest number seen of each report and life, in order of slots.
    seen: Vec<(Slot, u32, Seq)>,
}

impl Staged {
    fn covers(&self, slot: Slot) -> bool {
        self.slots.binary_search(&slot).is_ok()
    }

    fn seen_of(&self, slot: Slot) -> VersionVector {
        let from = self.seen.partition_point(|(at, ..)| *at < slot);
        let of_slot = self.seen[from..].iter().take_while(|(at, ..)| *at == slot);
        of_slot
            .filter_map(|(_, life, seq)| Some((*self.lives.get(*life as usize)?, *seq)))
            .collect()
    }
}

/// What is decided of single versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Fate {
    /// Everything of the report up to this vector was returned.
    Returned(VersionVector),
    /// These versions were approved.
    Approved(Vec<VersionId>),
}

/// A decision about one report alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Single {
    decided: Decided,
    reason: Reason,
    fate: Fate,
}

impl Single {
    fn decision(&self) -> Decision {
        match &self.fate {
            Fate::Returned(_) => Decision::Returned(self.decided.clone(), self.reason),
            Fate::Approved(_) => Decision::Approved(self.decided.clone(), self.reason),
        }
    }
}

/// Everything decided about one form's reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Decisions {
    /// In order of position.
    stages: BTreeMap<Period, Vec<Arc<Staged>>>,
    /// In order of position.
    single: BTreeMap<(Period, Slot), Vec<Single>>,
}

/// The decisions that bear on one report's versions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lock {
    /// What the lock in force saw; none where there is no lock.
    seen: Option<VersionVector>,
    /// What the first sign-off or lock saw.
    signed: Option<VersionVector>,
    fates: Vec<Fate>,
}

fn has(vector: &VersionVector, id: VersionId) -> bool {
    vector.get(&(id.writer, id.epoch)).is_some_and(|seq| id.seq <= *seq)
}

impl Lock {
    /// The last word on a version alone: approved, returned, or none.
    fn fate(&self, id: VersionId) -> Option<bool> {
        self.fates.iter().rev().find_map(|fate| match fate {
            Fate::Approved(list) if list.contains(&id) => Some(true),
            Fate::Returned(vector) if has(vector, id) => Some(false),
            _ => None,
        })
    }

    /// Whether the version takes part in what is counted.
    pub(super) fn admits(&self, id: VersionId) -> bool {
        self.fate(id).unwrap_or_else(|| admitted(id, self.seen.as_ref(), &[]))
    }

    /// Whether the version stands returned.
    pub(super) fn is_returned(&self, id: VersionId) -> bool {
        self.fate(id) == Some(false)
    }

    /// Whether a report of which `current` is counted is another than the one first signed off or locked.
    pub(super) fn is_restated(&self, current: Option<VersionId>) -> bool {
        self.signed.as_ref().is_some_and(|seen| match current {
            Some(id) => !has(seen, id),
            None => !seen.is_empty(),
        })
    }

    /// Whether the version had been seen when the report was first signed off or locked.
    pub(super) fn was_seen(&self, id: VersionId) -> bool {
        self.signed.as_ref().is_some_and(|seen| has(seen, id))
    }

    /// Whether anything of the report had been seen when it was first signed off or locked.
    pub(super) fn was_signed(&self) -> bool {
        self.signed.as_ref().is_some_and(|seen| !seen.is_empty())
    }

    /// Whether nothing need be kept of these decisions with a report of this one version.
    pub(super) fn is_plain_for(&self, id: VersionId) -> bool {
        self.admits(id) && !self.is_restated(Some(id))
    }
}

impl Decisions {
    /// Notes a stage reached. `seen` must name slots of `slots` only.
    pub(super) fn stage(
        &mut self,
        period: Period,
        (decided, stage, place): (Decided, Stage, String),
        mut slots: Vec<Slot>,
        seen: Vec<(Slot, AgentId, Epoch, Seq)>,
    ) {
        slots.sort_unstable();
        slots.dedup();
        let mut numbers: BTreeMap<(AgentId, Epoch), u32> = BTreeMap::new();
        let mut lives = Vec::new();
        let mut of_lives: Vec<(Slot, u32, Seq)> = Vec::with_capacity(seen.len());
        for (slot, writer, epoch, seq) in seen {
            let number = *numbers.entry((writer, epoch)).or_insert_with(|| {
                lives.push((writer, epoch));
                u32::try_from(lives.len() - 1).expect("fewer than 2^32 agents write")
            });
            of_lives.push((slot, number, seq));
        }
        of_lives.sort_unstable();
        let list = self.stages.entry(period).or_default();
        let staged = Staged { decided, stage, place, slots, lives, seen: of_lives };
        list.push(Arc::new(staged));
        list.sort_by_key(|staged| staged.decided.position);
    }

    /// Notes that everything of a report up to a vector was returned.
    pub(super) fn returned(
        &mut self,
        place: (Period, Slot),
        decided: Decided,
        reason: Reason,
        seen: VersionVector,
    ) {
        self.add(place, Single { decided, reason, fate: Fate::Returned(seen) });
    }

    /// Notes that versions of a report were approved.
    pub(super) fn approved(
        &mut self,
        place: (Period, Slot),
        decided: Decided,
        reason: Reason,
        versions: Vec<VersionId>,
    ) {
        self.add(place, Single { decided, reason, fate: Fate::Approved(versions) });
    }

    fn add(&mut self, place: (Period, Slot), single: Single) {
        let list = self.single.entry(place).or_default();
        list.push(single);
        list.sort_by_key(|single| single.decided.position);
    }

    /// What bears on a report's versions, by the decisions known at `at` (none: all).
    pub(super) fn lock(&self, period: Period, slot: Slot, at: Option<Millis>) -> Option<Lock> {
        if self.stages.is_empty() && self.single.is_empty() {
            return None;
        }
        let mut lock = Lock::default();
        let mut any = false;
        for staged in self.staged(period, slot, at) {
            any = true;
            match staged.stage {
                Stage::Open => lock.seen = None,
                Stage::Signed => {
                    lock.signed.get_or_insert_with(|| staged.seen_of(slot));
                }
                Stage::Locked => {
                    let seen = staged.seen_of(slot);
                    lock.signed.get_or_insert_with(|| seen.clone());
                    lock.seen = Some(seen);
                }
            }
        }
        for single in self.singles(period, slot, at) {
            any = true;
            lock.fates.push(single.fate.clone());
        }
        any.then_some(lock)
    }

    fn staged(
        &self,
        period: Period,
        slot: Slot,
        at: Option<Millis>,
    ) -> impl Iterator<Item = &Staged> {
        let list = self.stages.get(&period).map(Vec::as_slice).unwrap_or_default();
        list.iter()
            .map(AsRef::as_ref)
            .filter(move |staged| at.is_none_or(|at| staged.decided.at <= at))
            .filter(move |staged| staged.covers(slot))
    }

    fn singles(
        &self,
        period: Period,
        slot: Slot,
        at: Option<Millis>,
    ) -> impl Iterator<Item = &Single> {
        let list = self.single.get(&(period, slot)).map(Vec::as_slice).unwrap_or_default();
        list.iter().filter(move |single| at.is_none_or(|at| single.decided.at <= at))
    }

    /// The stage of one report.
    pub(super) fn stage_of(&self, period: Period, slot: Slot, at: Option<Millis>) -> Stage {
        self.staged(period, slot, at).fold(Stage::Open, |before, staged| match staged.stage {
            // A sign-off does not open what is locked.
            Stage::Signed => before.max(Stage::Signed),
            other => other,
        })
    }

    /// What the newest sign-off or lock of a report saw of it; none if it is open.
    pub(super) fn sealed(&self, period: Period, slot: Slot) -> Option<VersionVector> {
        let newest = self.staged(period, slot, None).last()?;
        (newest.stage != Stage::Open).then(|| newest.seen_of(slot))
    }

    /// Whether any report of the period ever reached a stage.
    pub(super) fn has_stages(&self, period: Period) -> bool {
        self.stages.contains_key(&period)
    }

    /// The newest decision about the period's reports; the least moment if there is none.
    pub(super) fn newest(&self, period: Period) -> Millis {
        let staged = self.stages.get(&period).into_iter().flatten().map(|s| s.decided.at);
        let single = self
            .single
            .range((period, Slot::MIN)..=(period, Slot::MAX))
            .flat_map(|(_, list)| list.iter().map(|single| single.decided.at));
        staged.chain(single).max().unwrap_or(Millis(i64::MIN))
    }

    /// Every decision with the report it bears on.
    pub(super) fn all(&self) -> impl Iterator<Item = (Period, Slot, Decision)> {
        let staged = self.stages.iter().flat_map(|(period, list)| {
            list.iter().flat_map(move |staged| {
                let decision = || {
                    let Staged { decided, stage, place, .. } = &**staged;
                    Decision::Staged(decided.clone(), *stage, place.clone())
                };
                staged.slots.iter().map(move |slot| (*period, *slot, decision()))
            })
        });
        let single = self.single.iter().flat_map(|((period, slot), list)| {
            list.iter().map(move |single| (*period, *slot, single.decision()))
        });
        staged.chain(single)
    }

    /// Whether the report was ever returned.
    pub(super) fn ever_returned(&self, period: Period, slot: Slot) -> bool {
        let list = self.single.get(&(period, slot));
        list.is_some_and(|list| list.iter().any(|s| matches!(s.fate, Fate::Returned(_))))
    }

    /// The reports ever returned by `at`, in order of periods.
    pub(super) fn returned_places(&self, at: Millis) -> impl Iterator<Item = (Period, Slot)> {
        let returned = move |single: &Single| {
            matches!(single.fate, Fate::Returned(_)) && single.decided.at <= at
        };
        self.single.iter().filter(move |(_, list)| list.iter().any(returned)).map(|(at, _)| *at)
    }

    /// Everything decided about one report, in order.
    pub(super) fn trace(&self, period: Period, slot: Slot, at: Option<Millis>) -> Vec<Decision> {
        let staged = self.staged(period, slot, at).map(|staged| {
            Decision::Staged(staged.decided.clone(), staged.stage, staged.place.clone())
        });
        let single = self.singles(period, slot, at).map(Single::decision);
        let mut all: Vec<Decision> = staged.chain(single).collect();
        all.sort_by_key(|decision| decision.decided().position);
        all
    }
}

impl Decision {
    /// Who decided, and when.
    pub fn decided(&self) -> &Decided {
        match self {
            Decision::Returned(decided, _)
            | Decision::Approved(decided, _)
            | Decision::Staged(decided, ..) => decided,
        }
    }
}
