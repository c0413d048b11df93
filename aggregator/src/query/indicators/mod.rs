//! M1 in columns: indicators over sets of facilities, from the cells of sheets.
//!
//! A formula counts *pairs*: a facility and a period of the formula's grain, the coarsest period type by which
//! facilities of the set are asked its terms. A pair counts only if it is matched: every term asked of the
//! facility is answered often enough. Numerator and denominator are over the same pairs, so that whoever is
//! missing is missing from both; a whole kind missing leaves no value at all, and says whom it waits for.
//! Readings that `FIGURES.md` leaves open are in `docs/decisions/019-how-indicators-are-computed.md`.
//!
//! Most facilities can be taken a group at a time ([`groups`], [`days`]); the others, and formulas that are no
//! sums, go facility by facility ([`sums`]). Both give the same figures (`tests_indicators`).

mod days;
mod groups;
mod growth;
mod ratio;
mod registry;
mod run;
mod share;
mod sums;
mod usual;
mod waiting;

use banyan_shared::catalogue::expr::{Over, Rational};
use banyan_shared::catalogue::indicator::{Definition, Formula, Reporting};
use banyan_shared::catalogue::{Class, FormIx, Indicator, IndicatorIx, KindIx, Level, OverTime};
use banyan_shared::figures::indicators::{Compiled, Input, Pairs};
use banyan_shared::figures::{Completeness, State};
use banyan_shared::ids::Millis;
use banyan_shared::organisation::{TargetOf, UnitIx};
use banyan_shared::period::{Date, Period, Span};

use super::Engine;
use super::asked::Asked;
use super::request::Dims;
use super::sets::{Key, Scope};
pub(super) use run::day_a_year_before;
use run::{Grain, Run};

/// Most reports listed that an indicator waits for.
pub(super) const WAITING_MAX: usize = 20;
/// A report an indicator waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Waiting {
    pub(super) due: Millis,
    pub(super) form: FormIx,
    pub(super) unit: UnitIx,
}

/// What an indicator comes to for one row.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) state: State,
    /// Unrounded, the factor included.
    pub(super) value: Option<Rational>,
    pub(super) numerator: Option<Rational>,
    pub(super) denominator: Option<Rational>,
    pub(super) pairs: Pairs,
    pub(super) share_of_usual: Option<f64>,
    pub(super) absent: Vec<KindIx>,
    pub(super) waiting: Vec<Waiting>,
    pub(super) flags: Vec<String>,
}

impl Outcome {
    pub(super) fn without_value(state: State) -> Outcome {
        Outcome {
            state,
            value: None,
            numerator: None,
            denominator: None,
            pairs: Pairs::default(),
            share_of_usual: None,
            absent: Vec::new(),
            waiting: Vec::new(),
            flags: Vec::new(),
        }
    }

    /// The quotient of two sums, or none where nothing stands below the line.
    fn divide(&mut self, over: Rational, under: Option<Rational>, factor: u32) {
        let factor = Rational::from(u64::from(factor));
        self.numerator = Some(over);
        self.denominator = under;
        self.value = match under {
            None => over.times(factor),
            Some(under) => over.times(factor).and_then(|over| over.divided_by(under)),
        };
        if self.value.is_none() {
            self.state = State::NotApplicable;
            let zero = under == Some(Rational::ZERO);
            self.flags.push(if zero { "denominator_zero" } else { "too_large" }.to_owned());
        }
    }
}

/// A row of a question.
#[derive(Clone, Copy)]
pub(super) struct RowOf<'a> {
    pub(super) scope: Scope,
    pub(super) dims: &'a Dims,
    pub(super) key: Key,
}

impl<'e> Engine<'e> {
    /// Which level a row is, and whose targets apply to it.
    pub(super) fn level_of(&self, row: RowOf<'_>, date: Date) -> (Level, TargetOf) {
        let network = row.key.network.or(match (row.key.unit, row.scope) {
            (None, Scope::Network(n) | Scope::Area(n)) => Some(n),
            _ => None,
        });
        if let Some(n) = network.filter(|_| row.key.unit.is_none()) {
            return (Level::Network(self.organisation.network_info(n).kind), TargetOf::Network(n));
        }
        let unit = match (row.key.unit, row.scope) {
            (Some(unit), _) | (None, Scope::Unit(unit)) => unit,
            (None, Scope::Network(n) | Scope::Area(n)) => {
                return (
                    Level::Network(self.organisation.network_info(n).kind),
                    TargetOf::Network(n),
                );
            }
        };
        let level = match self.organisation.class(unit) {
            Class::Administrative => Level::Unit(self.organisation.kind_on(unit, date)),
            _ => Level::Facility,
        };
        (level, TargetOf::Unit(unit))
    }

    /// Whether a row is a part of a place or of a network and no place itself: what lies below none of the units
    /// that the others are, those of a kind, those in a role.
    pub(super) fn is_part(&self, row: RowOf<'_>) -> bool {
        let Key { unit, kind, role, own, .. } = row.key;
        let administrative = |unit| self.organisation.class(unit) == Class::Administrative;
        own || (kind.is_some() || role.is_some()) && unit.is_none_or(administrative)
    }

    /// Whether an indicator is shown at a level.
    pub(super) fn is_shown_at(indicator: &Indicator, level: Level) -> bool {
        indicator.levels.is_empty() || indicator.levels.contains(&level)
    }

    /// Whether an indicator's formula counts an area's elements.
    pub(super) fn is_of_area(&self, indicator: IndicatorIx, date: Date) -> bool {
        self.compiled_on(indicator, date).is_some_and(|(compiled, _)| compiled.area)
    }

    /// Whether an indicator counts a year-to-date element, or adds one up from 1 January.
    pub(super) fn is_year_to_date(&self, indicator: IndicatorIx, date: Date) -> bool {
        self.compiled_on(indicator, date).is_some_and(|(compiled, _)| {
            compiled.inputs.iter().any(|input| match input {
                Input::Element { over: Some(Over::YearToDate), .. } => true,
                Input::Element { element, .. } => {
                    self.catalogue.elements[element.at()].over_time == OverTime::LastYtd
                }
                _ => false,
            })
        })
    }

    pub(super) fn compiled_on(
        &self,
        indicator: IndicatorIx,
        date: Date,
    ) -> Option<(&'e Compiled, usize)> {
        let model = &self.catalogue.indicators[indicator.at()];
        let definition = model.definition_on(date);
        let at = model.definitions.iter().position(|d| d.version == definition.version)?;
        let formulas = self.plans.formulas(self.catalogue);
        formulas.compiled[indicator.at()][at].as_ref().map(|compiled| (compiled, at))
    }

    /// What an indicator comes to for one row. `reports`: the row's completeness.
    pub(super) fn indicator(
        &self,
        asked: &Asked<'e>,
        row: RowOf<'_>,
        span: Span,
        indicator: IndicatorIx,
        reports: &Completeness,
    ) -> Outcome {
        let last = span.last_day();
        let model = &self.catalogue.indicators[indicator.at()];
        let definition = model.definition_on(last);
        match &definition.formula {
            Formula::Reporting(measure) => reporting(*measure, definition, reports),
            Formula::RegistryShare { of, meets } => {
                self.registry_share(asked, row, last, definition, (of, meets))
            }
            formula => {
                let Some((compiled, _)) = self.compiled_on(indicator, last) else {
                    return Outcome::without_value(State::NotApplicable);
                };
                let Some(row) = self.row_counted(compiled, row) else {
                    return Outcome::without_value(State::NotApplicable);
                };
                self.evaluate(asked, row, span, formula, definition, compiled)
            }
        }
    }

    /// The row whose facilities a formula counts: an area's figure is never a network set's, nor that of a part
    /// of a set.
    pub(super) fn row_counted<'r>(&self, compiled: &Compiled, row: RowOf<'r>) -> Option<RowOf<'r>> {
        match (compiled.area, row.key.network, row.scope) {
            (true, ..) if self.is_part(row) => None,
            (true, Some(n), _) | (true, None, Scope::Network(n)) => {
                let has_area = !self.organisation.network_info(n).area.is_empty();
                let Key { unit, kind, role, .. } = row.key;
                let whole = unit.is_none() && kind.is_none() && role.is_none() && has_area;
                whole.then(|| RowOf { scope: Scope::Area(n), dims: &WHOLE, key: Key::default() })
            }
            _ => Some(row),
        }
    }

    fn evaluate(
        &self,
        asked: &Asked<'e>,
        row: RowOf<'_>,
        span: Span,
        formula: &Formula,
        definition: &Definition,
        compiled: &Compiled,
    ) -> Outcome {
        let begins: Vec<Date> = (0..compiled.inputs.len())
            .map(|at| compiled.begins(at, span, definition.from))
            .collect();
        let begin = begins.iter().copied().min().unwrap_or(span.first_day());
        let mut run = Run {
            engine: self,
            asked,
            compiled,
            definition,
            span,
            begins,
            grains: Vec::new(),
            row: row.key,
        };
        let elements = compiled.inputs.iter().any(|input| input.element().is_some());
        let rarely = !elements
            || compiled.inputs.iter().filter_map(Input::element).all(|e| {
                matches!(self.catalogue.elements[e.at()].over_time, OverTime::Latest { .. })
            });
        if rarely {
            run.grains.push(Grain { span, inside: true });
        } else {
            let Some(grain) = run.grain(row, begin) else {
                return Outcome::without_value(State::NotApplicable);
            };
            let mut period = Period::containing(grain, begin);
            if period.first_day() < begin {
                period = period.plus(1);
            }
            while period.last_day() <= span.last_day() {
                let inside = period.first_day() >= span.first_day();
                run.grains.push(Grain { span: Span::of(period), inside });
                period = period.plus(1);
            }
            if !run.grains.iter().any(|grain| grain.inside) {
                return Outcome::without_value(State::TooFine);
            }
        }
        match formula {
            Formula::Share { of, .. } => run.share(row, of),
            Formula::Growth { .. } => run.growth(row, begin),
            _ => run.ratio(row, begin),
        }
    }
}

static WHOLE: Dims =
    Dims { unit: None, kind: false, role: false, network: false, network_kind: None, period: None };

/// F3 as an indicator.
fn reporting(measure: Reporting, definition: &Definition, c: &Completeness) -> Outcome {
    let timed = c.received() + c.missing();
    let (over, under) = match measure {
        Reporting::Received => (c.received(), c.expected()),
        Reporting::OnTime => (c.on_time, timed),
        Reporting::Late => (c.late, timed),
        Reporting::Missing => (c.missing(), timed),
        Reporting::Corrected => (c.corrected_after_signoff, c.received()),
    };
    let mut outcome = Outcome::without_value(State::Reported);
    outcome.pairs = Pairs { expected: under, matched: under };
    if under == 0 {
        // What is owed may still come in time.
        outcome.state = if c.not_yet_due > 0 { State::Waiting } else { State::NotApplicable };
        return outcome;
    }
    outcome.divide(over.into(), Some(under.into()), definition.factor);
    outcome
}

#[cfg(test)]
thread_local! {
    static ONLY_BY_UNIT: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Answers a question without ever taking a whole group at a time, to hold the two ways against each other.
#[cfg(test)]
pub(super) fn by_unit<T>(ask: impl FnOnce() -> T) -> T {
    ONLY_BY_UNIT.set(true);
    let answer = ask();
    ONLY_BY_UNIT.set(false);
    answer
}

/// Whether a whole group may be taken at a time: always, but for the tests.
fn may_take_groups() -> bool {
    #[cfg(test)]
    return !ONLY_BY_UNIT.get();
    #[cfg(not(test))]
    true
}
