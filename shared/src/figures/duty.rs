//! F1 and F2: who owes a report, and whether what came answers it.

use crate::catalogue::{Days, Form, KindIx};
use crate::period::{Date, Period};
use crate::report::Value;

/// What the registry says of one unit, form and period, on the unit's duty day: the last day of the period
/// on which it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DutyFacts {
    /// The duty day.
    pub day: Date,
    /// The unit's kind on that day.
    pub kind: KindIx,
    /// Whether the unit is active (not only planned) on that day.
    pub active: bool,
    /// Whether the day lies in a duty span of the form, or no such span is given.
    pub in_span: bool,
    /// Whether the day is a working day in the unit's calendar.
    pub working_day: bool,
    /// Whether the report is waived by an extension.
    pub waived: bool,
}

/// Whether a unit owes `form` for `period` (F1). `None` for the facts: never open in the period.
pub fn duty(form: &Form, period: Period, facts: Option<&DutyFacts>) -> bool {
    let Some(facts) = facts else { return false };
    period.kind() == form.period_type
        && form.in_force(period)
        && form.kinds.contains(&facts.kind)
        && facts.active
        && facts.in_span
        && !facts.waived
        && (form.days == Days::All || facts.working_day)
}

/// Whether a report answers what it was asked (F2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// At least one asked element is a number or not applicable, and the report is not withdrawn.
    pub answered: bool,
    /// Every required asked element is answered.
    pub complete: bool,
}

/// Judges a report's values, `value(line)` for the lines for which `asked(line)` holds (F2).
pub fn answer(
    form: &Form,
    withdrawn: bool,
    asked: impl Fn(usize) -> bool,
    value: impl Fn(usize) -> Value,
) -> Answer {
    if withdrawn {
        return Answer::default();
    }
    let mut answered = false;
    let mut complete = true;
    for (at, line) in form.lines.iter().enumerate().filter(|(at, _)| asked(*at)) {
        let given = value(at).is_answer();
        answered |= given;
        complete &= given || !line.required;
    }
    Answer { answered, complete: answered && complete }
}
