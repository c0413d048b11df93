//! Stretches of time: the bundles a question reads, and the periods whose values are carried into it.

use std::iter::successors;

use banyan_shared::period::{Date, Period, PeriodType, Span};

use super::sheet::bundle_type;

/// The bundles that together hold a form's periods inside a span.
pub(super) fn bundles(form: PeriodType, span: Span) -> Vec<Period> {
    let grain = bundle_type(form, PeriodType::Month);
    if grain == form {
        return span.parts(form).collect();
    }
    // Whole months, and the days before and after them.
    let months: Vec<Period> = span.parts(grain).collect();
    let (Some(first), Some(last)) = (months.first(), months.last()) else {
        return span.parts(form).collect();
    };
    let (begin, end) = (first.first_day(), last.last_day());
    let days = || span.parts(form);
    let before = days().take_while(|day| day.first_day() < begin);
    let after = days().filter(|day| day.first_day() > end);
    before.chain(months.iter().copied()).chain(after).collect()
}

/// A span's first and last day.
pub(super) fn days_of(span: Span) -> (Date, Date) {
    (span.first_day(), span.last_day())
}

/// The days from one to another as a span.
pub(super) fn span_of_days((first, last): (Date, Date)) -> Option<Span> {
    let day = |date| Period::containing(PeriodType::Day, date);
    Span::new(day(first), day(last))
}

/// The periods before the span's own whose values a stock asked rarely may still take, newest first: at most
/// so many months old, the value's own last day against the span's.
pub(super) fn carried(kind: PeriodType, span: Span, carry_months: u16) -> Vec<Period> {
    let month = Period::containing(PeriodType::Month, span.last_day());
    let oldest = month.plus(-i32::from(carry_months)).first_day();
    let mut last = Period::containing(kind, span.last_day());
    if last.last_day() > span.last_day() {
        last = last.plus(-1);
    }
    successors(Some(last), |period| Some(period.plus(-1)))
        .take_while(move |period| period.last_day() >= oldest)
        .filter(|period| !span.contains(*period))
        .collect()
}
