//! What of a report the centre may hold and this agent does not.
//!
//! A version replaces the whole report, so an element that is not named takes its value from what is held
//! here. Where that may be less than what the centre has, nothing may be saved but a report in full: else
//! values nobody meant to touch would go missing there.

use banyan_shared::ids::{ContextNumber, Epoch, Millis, Seq};
use banyan_shared::period::{Date, Period};
use banyan_shared::wire::Body;
use serde::{Deserialize, Serialize};

use super::{EntryId, Payload, RETAINED_DAYS, ReportKey, Store, day_of};
use crate::clock::ClockState;
use crate::identity::Identity;

/// Why the centre may hold more of a report than this agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beyond {
    /// Another agent, whose history this one continues, may have reported it.
    Succession,
    /// It may have been dropped after its time.
    Dropped,
    /// It may have been lost when a file was damaged.
    Lost,
}

/// A report whose context is lost: whatever facility and form these numbers stood for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Unread {
    context: ContextNumber,
    facility: u32,
    form: u16,
    period: Period,
}

impl Unread {
    /// Under which it was made.
    pub(super) fn context(&self) -> ContextNumber {
        self.context
    }

    /// None for what is no report.
    pub(super) fn of(payload: &Payload) -> Option<Unread> {
        match payload.body {
            Body::Report { facility, form, period, .. } => {
                Some(Unread { context: payload.context, facility, form, period })
            }
            _ => None,
        }
    }
}

/// What damages took of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lost {
    /// No report lost was of a period that began after this day.
    until: i32,
    /// The last entry lost.
    last: EntryId,
}

impl Lost {
    /// `earlier` with the entries found lost now.
    pub(super) fn with(
        earlier: Option<Lost>,
        lost: &[(Epoch, Seq, Seq)],
        clock: ClockState,
        now: Millis,
    ) -> Option<Lost> {
        let Some(last) = lost.iter().map(|(epoch, _, last)| (*epoch, *last)).max() else {
            return earlier;
        };
        // A clock that may stand before the entries lost says nothing; the next receipt will.
        let until = if clock.trusts(now) { day_of(clock.best(now)).plus(1) } else { Date::MAX };
        let found = Lost { until: until.days(), last };
        Some(earlier.map_or(found, |earlier| Lost {
            until: earlier.until.max(found.until),
            last: earlier.last.max(found.last),
        }))
    }

    /// What is known better at `centre`, by the centre's clock and later than the loss; none if nothing is.
    pub(super) fn before(self, centre: Millis) -> Option<Lost> {
        let until = day_of(centre).plus(1).days();
        (until < self.until).then_some(Lost { until, ..self })
    }
}

impl Store {
    /// Whether the centre may hold of this report what is not held here, and why.
    pub(crate) fn beyond(&self, key: &ReportKey, identity: &Identity) -> Option<Beyond> {
        let held = self.newest(key);
        let begins = key.period.first_day();
        let later = |id: EntryId| held.is_none_or(|held| held < id);
        let taken = self.lost.filter(|lost| begins.days() <= lost.until);
        let mut unread = self.unread.iter().filter(|(unread, _)| unread.period == key.period);
        if taken.is_some_and(|lost| later(lost.last)) || unread.any(|(_, id)| later(*id)) {
            return Some(Beyond::Lost);
        }
        if held.is_some() {
            return None;
        }
        let taken_over = identity.succession().map(|at| day_of(at).plus(1));
        if taken_over.is_some_and(|day| begins <= day) {
            return Some(Beyond::Succession);
        }
        // Nothing is older than the report it is about, and nothing is dropped but by the centre's clock.
        let dropped = self.queue.epochs().iter().any(|(epoch, _)| self.queue.dropped(*epoch) > 0);
        let old = begins < self.known_day().plus(1 - RETAINED_DAYS);
        (dropped && old).then_some(Beyond::Dropped)
    }
}
