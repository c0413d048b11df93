//! From when a form is due where, which days are working days, and which due times were extended.

use std::collections::HashMap;

use super::{Days, Organisation, UnitIx};
use crate::ids::FormCode;
use crate::period::{Date, Period, Span};
use crate::tables::registry::{ExtensionDue, ExtensionRow};

/// An extension of a due time, or a waiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// The unit at or below which it holds.
    pub unit: UnitIx,
    /// The periods it covers.
    pub span: Span,
    /// What it grants.
    pub due: ExtensionDue,
    /// Why; may be empty.
    pub reason: Box<str>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Duties {
    /// By form, then by unit.
    pub(super) spans: HashMap<FormCode, HashMap<UnitIx, Vec<Days>>>,
    /// By form, in the order they became known.
    pub(super) extensions: HashMap<FormCode, Vec<Extension>>,
    /// By day: the unit, whether it is a working day, the day's name.
    pub(super) calendar: HashMap<Date, Vec<(UnitIx, bool, Box<str>)>>,
}

impl Organisation {
    /// Whether `duties.csv` makes `form` due at `u` on `day`: no row for the form at `u` or above it
    /// means always; else the spans of the nearest unit that has any decide.
    pub fn duty_in_span(&self, form: &str, u: UnitIx, day: Date) -> bool {
        let Some(units) = self.duties.spans.get(form) else { return true };
        self.upwards(u, day)
            .find_map(|at| units.get(&at))
            .is_none_or(|spans| spans.iter().any(|days| days.has(day)))
    }

    /// Whether `duties.csv` has any row for `form`.
    pub fn has_duty_spans(&self, form: &str) -> bool {
        self.duties.spans.contains_key(form)
    }

    /// Whether any due time of `form` was ever extended or waived.
    pub fn has_extensions(&self, form: &str) -> bool {
        self.duties.extensions.contains_key(form)
    }

    /// Whether `date` is a working day for `u`: the calendar row of the nearest unit decides, without one
    /// Monday to Friday are.
    pub fn is_working_day(&self, u: UnitIx, date: Date) -> bool {
        self.calendar_on(u, date).map_or(date.weekday() < 5, |(working, _)| working)
    }

    /// What the calendar says of `date` for `u`: whether it is a working day, and its name.
    pub fn calendar_on(&self, u: UnitIx, date: Date) -> Option<(bool, &str)> {
        let rows = self.duties.calendar.get(&date)?;
        let at_unit = |at: UnitIx| rows.iter().find(|(unit, _, _)| *unit == at);
        let (_, working, name) = self.upwards(u, date).find_map(at_unit)?;
        Some((*working, name))
    }

    /// Adds extensions that became known after those of the tables; one of a unit that is not known here
    /// covers nothing.
    pub fn extend(&mut self, rows: &[ExtensionRow]) {
        for row in rows {
            let Some(unit) = self.unit(row.unit.as_str()) else { continue };
            self.duties.extensions.entry(row.form.clone()).or_default().push(Extension {
                unit,
                span: row.period,
                due: row.due,
                reason: row.reason.clone(),
            });
        }
    }

    /// The newest extension or waiver of `form` that covers `u` and `period`; the unit it was granted to may
    /// be above `u` on the period's duty day (its last day where there is none).
    pub fn extension(&self, form: &str, u: UnitIx, period: Period) -> Option<&Extension> {
        let rows = self.duties.extensions.get(form)?;
        let mut newest = rows.iter().rev().filter(|row| row.span.contains(period)).peekable();
        newest.peek()?;
        let path = self.path(u, self.duty_day(u, period).unwrap_or(period.last_day()));
        newest.find(|row| path.contains(&row.unit))
    }
}
