//! F4: what an element's figure over a set of facilities says, and how it says it.

use serde::{Deserialize, Serialize};

use crate::catalogue::{Element, Form, OverUnits};
use crate::period::Span;
use crate::report::coded;

coded! {
    /// Whether a figure has a value, and if not, why.
    State {
        /// It has a value.
        Reported = "reported", "已报", "reported";
        /// Asked, overdue, not answered.
        Missing = "missing", "缺报", "missing";
        /// Nobody of the set is asked.
        NotApplicable = "not_applicable", "不适用", "not applicable";
        /// Asked, not answered, nothing overdue yet.
        Waiting = "waiting", "待报", "waiting";
        /// Values of several facilities that must not be added.
        NotAdditive = "not_additive", "不可相加", "cannot be added";
        /// Asked only for longer periods than the question's.
        TooFine = "too_fine", "统计期过细", "period too fine";
        /// Not computed at this level.
        NotShownHere = "not_shown_here", "本级不显示", "not shown at this level";
        /// Held back from a public export.
        Withheld = "withheld", "不公开", "withheld";
    }
}

/// What was counted of one element over a set of facilities and a span.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The sum of the numbers counted.
    pub sum: u128,
    /// Reports with a number.
    pub reports: u64,
    /// Reports that answer "not applicable".
    pub not_applicable: u64,
    /// Reports owed for ended periods that ask it, less those answering "not applicable".
    pub expected: u64,
    /// Reports owed that ask it, in all of the span, ended or not, less those answering "not applicable".
    pub asked: u64,
    /// Reports owed that ask it, do not answer it, and whose time has passed.
    pub overdue: u64,
    /// Facilities with at least one number.
    pub facilities: u64,
    /// Facilities with at least one expected.
    pub facilities_expected: u64,
    /// Units of any class that gave a number: more than one makes a distinct count not additive.
    pub givers: u64,
    /// Whether it is asked of the set by forms whose periods are all longer than the span.
    pub too_fine: bool,
}

/// The state of an element's figure, and its value.
pub fn element_state(element: &Element, tally: &Tally) -> (State, Option<u128>) {
    if tally.givers > 0 {
        // One of several that owe it speaks for itself only.
        let several = tally.givers.max(tally.facilities_expected) > 1;
        if element.over_units == OverUnits::None && several {
            return (State::NotAdditive, None);
        }
        return (State::Reported, Some(tally.sum));
    }
    let state = if tally.asked == 0 && tally.too_fine {
        State::TooFine
    } else if tally.asked == 0 {
        State::NotApplicable
    } else if tally.overdue > 0 {
        // First: reports that nobody owed may stand among those with a number.
        State::Missing
    } else if tally.reports > 0 && tally.reports >= tally.asked {
        // A stock whose last answer is "not applicable", and no answer is wanting.
        State::NotApplicable
    } else {
        State::Waiting
    };
    (state, None)
}

/// What `span` leaves out of `form`: `without:FORM` if no period of it fits, `partial_days` if one is cut.
pub fn period_flags(form: &Form, span: Span) -> Option<String> {
    if span.parts(form.period_type).len() == 0 {
        Some(format!("without:{}", form.code))
    } else if span.cuts(form.period_type) {
        Some("partial_days".to_owned())
    } else {
        None
    }
}
