//! The questions operators ask most, and which of them to work out before anyone asks.
//!
//! Promises that what is made ready is kept under the very key of the question as it is asked, so that whoever
//! asks finds it ([`super::kept`]), and that nothing else has to make room for it. When and how much at a time
//! is left to whoever calls.

use std::collections::BTreeSet;
use std::sync::Arc;

use banyan_shared::catalogue::Class;
use banyan_shared::ids::Millis;
use banyan_shared::organisation::{Organisation, UnitIx};
use banyan_shared::period::Period;

use super::asked::Asked;
use super::request::{Membership, QueryError, QueryRequest};
use super::{Engine, Taken};

/// One round over the questions asked most, for everything, month by month, the newest first: of each place that
/// has two levels below it (a county has townships with villages), then of each network, then of the other places
/// that have any below them. What comes first is asked more; the last fill what room there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Often {
    questions: Vec<(Arc<str>, Period)>,
    at: usize,
}

/// What a look along the round has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// A question that is not ready.
    Ask(QueryRequest),
    /// So far all are ready; more are to be looked at.
    Further,
    /// The round is over.
    Over,
}

impl Often {
    /// A round over these months.
    pub fn new(organisation: &Organisation, months: &BTreeSet<Period>) -> Often {
        let Some(newest) = months.last() else { return Often::default() };
        let day = newest.last_day();
        let is_place = |unit: &_| organisation.class(*unit) == Class::Administrative;
        let places = organisation.units().filter(is_place);
        let above: BTreeSet<_> =
            places.filter_map(|unit| organisation.parent_on(unit, day)).collect();
        let twice: BTreeSet<_> =
            above.iter().filter_map(|unit| organisation.parent_on(*unit, day)).collect();
        let (far, near): (Vec<_>, Vec<_>) =
            above.into_iter().partition(|unit| twice.contains(unit));
        let codes = |units: &[UnitIx]| -> Vec<Arc<str>> {
            units.iter().map(|unit| organisation.code(*unit).as_str().into()).collect()
        };
        let networks =
            organisation.networks().map(|n| organisation.network_code(n).as_str().into());
        let groups: [Vec<Arc<str>>; 3] = [codes(&far), networks.collect(), codes(&near)];
        let of_group = |codes: &Vec<Arc<str>>| -> Vec<(Arc<str>, Period)> {
            let of_month = |month: &Period| {
                let month = *month;
                codes.iter().map(move |code| (code.clone(), month))
            };
            months.iter().rev().flat_map(of_month).collect()
        };
        Often { questions: groups.iter().flat_map(of_group).collect(), at: 0 }
    }

    /// Goes on to the next question that is not ready, looking at so many at most.
    pub fn next(&mut self, looks: usize, is_ready: impl Fn(&QueryRequest) -> bool) -> Next {
        for _ in 0..looks {
            let Some((place, month)) = self.questions.get(self.at) else { return Next::Over };
            self.at += 1;
            let question = QueryRequest {
                place: place.to_string(),
                period: month.to_string(),
                ..QueryRequest::default()
            };
            if !is_ready(&question) {
                return Next::Ask(question);
            }
        }
        Next::Further
    }
}

impl Engine<'_> {
    /// Whether nothing is to be done for a question: its rows are kept and are those of now, or it cannot be
    /// answered.
    pub fn is_ready(&self, request: &QueryRequest, now: Millis) -> bool {
        let Ok(Taken { when, rows, .. }) = self.taken(request, now) else { return true };
        self.plans.rows().has(&Asked::new(*self, when), &rows)
    }

    /// Works out the rows of a question and keeps them; its rows must not be divided by time.
    ///
    /// # Errors
    /// Why the question cannot be answered.
    pub fn make_ready(&self, request: &QueryRequest, now: Millis) -> Result<(), QueryError> {
        let Taken { when, rows, .. } = self.taken(request, now)?;
        let asked = Asked::new(*self, when);
        self.rows_of(&asked, rows, |question| self.work_out(&asked, question))?;
        Ok(())
    }

    /// Lets kept rows go that would not be the same now.
    pub fn tidy(&self, now: Millis) {
        let when = self.when(Membership::AsItWas, None, now);
        self.plans.rows().tidy(&Asked::new(*self, when));
    }

    /// Whether rows made ready let no others go.
    pub fn has_room(&self) -> bool {
        self.plans.rows().has_room()
    }
}
