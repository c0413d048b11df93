//! Judging what arrives: accept, park or refuse. Pure: the state and the day go in, a verdict comes out.

use banyan_shared::catalogue::{Catalogue, FormIx};
use banyan_shared::codes::{ParkReason, Refusal};
use banyan_shared::ids::{ContextNumber, Seq, UnitCode};
use banyan_shared::limits::PERSON_BYTES_MAX;
use banyan_shared::organisation::Organisation;
use banyan_shared::period::{Date, Period};
use banyan_shared::report::Content;
use banyan_shared::sync::Fate;
use banyan_shared::tables::registry::Status;
use banyan_shared::wire::{Body, Entry, HashedBatch};

use super::{Agent, Context, State};

/// What of a batch is refused, and why: stored beside the batch.
pub type Refusals = Vec<(Seq, Refusal)>;

/// What is to be done with a batch whose signature is its agent's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Its context is not known here: ask the agent to introduce itself.
    UnknownContext(ContextNumber),
    /// The agent is out.
    Revoked,
    /// Answer it with a receipt.
    Answer {
        /// Whether anything in it is new, so that the batch goes into the ledger.
        store: bool,
        /// New refusals, to be stored with it.
        refused: Refusals,
        /// Numbers held with other content.
        reused: Vec<Seq>,
    },
}

impl State {
    /// Judges a batch of a known agent.
    pub fn judge(&self, batch: &HashedBatch) -> Judgement {
        let Some(agent) = self.agents.get(&batch.agent) else {
            return Judgement::UnknownContext(batch.context);
        };
        if agent.revoked.is_some() {
            return Judgement::Revoked;
        }
        if batch.entries.is_empty() {
            return Judgement::Answer { store: false, refused: Vec::new(), reused: Vec::new() };
        }
        let context = self.contexts.get(&batch.context);
        let held = context.and_then(|context| self.catalogues.get(&context.catalogue));
        let (Some(context), Some(held)) = (context, held) else {
            return Judgement::UnknownContext(batch.context);
        };
        if !self.may_use(agent, batch.context, context) {
            return Judgement::UnknownContext(batch.context);
        }
        let begins_here = super::begins_here(batch);
        let mut store = false;
        let mut refused = Vec::new();
        let mut reused = Vec::new();
        for (entry, hash) in batch.hashed() {
            if !agent.inbox.has_room(batch.epoch) {
                break;
            }
            match agent.inbox.fate(batch.epoch, entry.seq, hash, begins_here) {
                Fate::New => {
                    store = true;
                    if let Some(refusal) = refusal(&held.catalogue, context, entry) {
                        refused.push((entry.seq, refusal));
                    }
                }
                Fate::Reused => reused.push(entry.seq),
                // A life is taken up with its first entry only; until then nothing of it is stored.
                Fate::Early => {
                    return Judgement::Answer { store: false, refused: Vec::new(), reused };
                }
                Fate::Duplicate | Fate::StillRefused(_) => {}
            }
        }
        Judgement::Answer { store, refused, reused }
    }

    /// Whether the agent may speak under a context: it was granted, or names only facilities it reports for
    /// anyway (those of an enrolment file whose code expired before the first contact, say).
    fn may_use(&self, agent: &Agent, number: ContextNumber, context: &Context) -> bool {
        agent.contexts.contains(&number)
            || self.contexts.get(&agent.newest).is_some_and(|present| {
                context.facilities.iter().all(|facility| present.facilities.contains(facility))
            })
    }

    /// Why a report cannot be counted as things are known now.
    pub(crate) fn park_reason(
        &self,
        catalogue: &Catalogue,
        facility: &UnitCode,
        form: FormIx,
        period: Period,
        today: Date,
    ) -> Option<ParkReason> {
        let present = (&*self.catalogue, &*self.organisation);
        park_reason(present, catalogue, facility, form, period, today)
    }
}

/// Why a report written under `catalogue` cannot be counted under the catalogue and organisation `present`.
pub(crate) fn park_reason(
    (present, organisation): (&Catalogue, &Organisation),
    catalogue: &Catalogue,
    facility: &UnitCode,
    form: FormIx,
    period: Period,
    today: Date,
) -> Option<ParkReason> {
    let Some(unit) = organisation.unit(facility.as_str()) else {
        return Some(ParkReason::UnknownFacility);
    };
    if period.first_day() > today {
        return Some(ParkReason::FuturePeriod);
    }
    let Some(day) = organisation.duty_day(unit, period) else {
        let spells = &organisation.info(unit).spells;
        let later = spells.iter().all(|s| s.from.is_some_and(|from| from > period.last_day()));
        let planned = spells
            .iter()
            .any(|s| s.status == Status::Planned && s.days().last_in(period).is_some());
        return Some(if planned {
            ParkReason::FacilityPlanned
        } else if later {
            ParkReason::NotYetRegistered
        } else {
            ParkReason::FacilityClosed
        });
    };
    let kind = organisation.kind_on(unit, day);
    // Kinds of two catalogue versions are the same by code, not by number.
    let code = &present.kinds[kind.at()].code;
    let Some(form) = catalogue.forms.get(form.at()) else {
        return Some(ParkReason::FormNotForKind);
    };
    let asked = form.kinds.iter().any(|kind| catalogue.kinds[kind.at()].code == *code);
    (!asked).then_some(ParkReason::FormNotForKind)
}

/// Why an entry can never be counted, whatever may become known: its shape alone.
fn refusal(catalogue: &Catalogue, context: &Context, entry: &Entry) -> Option<Refusal> {
    let Body::Report { facility, form, period, content } = &entry.body else {
        let misplaced = matches!(entry.body, Body::Begins { .. }) && entry.seq != 1;
        return misplaced.then_some(Refusal::Malformed);
    };
    let known = usize::try_from(*facility).is_ok_and(|at| at < context.facilities.len());
    if !known {
        return Some(Refusal::NotInScope);
    }
    let Some(form) = catalogue.forms.get(usize::from(*form)) else {
        return Some(Refusal::UnknownForm);
    };
    if period.kind() != form.period_type {
        return Some(Refusal::WrongPeriodType);
    }
    if content.values.len() != form.lines.len() || !is_person(content) {
        return Some(Refusal::Malformed);
    }
    let above = form
        .lines
        .iter()
        .zip(&content.values)
        .any(|(line, value)| value.number().is_some_and(|n| n > line.max));
    above.then_some(Refusal::AboveMaximum)
}

fn is_person(content: &Content) -> bool {
    content.entered_by.as_ref().is_none_or(|person| {
        !person.is_empty()
            && person.len() <= PERSON_BYTES_MAX
            && !person.chars().any(|c| c.is_whitespace() || c.is_control())
    })
}
