//! M1 in columns: indicators over sets of facilities, from the cells of sheets.
//!
//! A formula counts *pairs*: a facility and a period of the formula's grain, the coarsest period type by which
//! facilities of the set are asked its terms. A pair counts only if it is matched: every term asked of the
//! facility is answered often enough. Numerator and denominator are over the same pairs, so that whoever is
//! missing is missing from both; a whole kind missing leaves no value at all, and says whom it waits for.
//! Readings that `FIGURES.md` leaves open are in `docs/decisions/019-how-indicators-are-computed.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use banyan_shared::catalogue::expr::{Fact, Over, Rational, condition};
use banyan_shared::catalogue::indicator::{Definition, Formula, Reporting};
use banyan_shared::catalogue::{
    Class, Facts, Filter, FormIx, Indicator, IndicatorIx, KindIx, Level, OverTime,
};
use banyan_shared::figures::indicators::{
    Compiled, Input, Pairs, Side, Values, coarser, indicator_state, is_matched, length,
};
use banyan_shared::figures::{self, Completeness, State};
use banyan_shared::ids::Millis;
use banyan_shared::organisation::{TargetOf, UnitIx};
use banyan_shared::period::{Date, Period, PeriodType, Span};
use banyan_shared::report::Value;

use super::Engine;
use super::plan::extension;
use super::request::Dims;
use super::sets::{Group, Key, Scope, Wanderer};
use super::sheet::{Sheet, USUAL_PERIODS};
use super::tally::{Asked, Got, bundles, carried, days_of};
use crate::cube::Slot;

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

/// A period of the grain.
struct Grain {
    span: Span,
    /// Whether it lies in the span asked for, not only in the time before that a term looks back on.
    inside: bool,
}

/// How a unit is in the set.
#[derive(Clone, Copy)]
enum Presence<'r> {
    /// Of one kind and in one row, all the time it is open: its place in its group.
    Steady(&'r Group, usize),
    /// In the set by its last day alone; of several kinds in its time.
    Changed,
    /// Now here, now there.
    Wanders(&'r Wanderer),
}

/// Whether an input is taken from facilities of a kind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Admits {
    Yes,
    No,
    /// It depends on roles or attributes.
    Ask,
}

/// What a group's units gave in one form and line, for each period of the grain.
type Home = Vec<Rc<[Got]>>;

/// The homes of an input, and whether it admits the kind.
struct Source {
    admits: Admits,
    homes: Vec<Home>,
}

/// A unit's values of one input, over its matched pairs.
#[derive(Clone, Copy)]
struct Held {
    sum: u128,
    last: u64,
    /// How many values there are, for the mean of a stock.
    numbers: u64,
}

/// One evaluation's circumstances.
struct Run<'a, 'e> {
    engine: &'a Engine<'e>,
    asked: &'a Asked<'e>,
    compiled: &'a Compiled,
    definition: &'a Definition,
    span: Span,
    /// For each input, the first day it counts.
    begins: Vec<Date>,
    grains: Vec<Grain>,
    row: Key,
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

    /// Whether an indicator counts any of the elements.
    pub(super) fn counts(
        &self,
        indicator: IndicatorIx,
        elements: &[banyan_shared::catalogue::ElementIx],
        date: Date,
    ) -> bool {
        self.compiled_on(indicator, date).is_some_and(|(compiled, _)| {
            compiled.inputs.iter().filter_map(Input::element).any(|e| elements.contains(&e))
        })
    }

    fn compiled_on(&self, indicator: IndicatorIx, date: Date) -> Option<(&'e Compiled, usize)> {
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
                self.registry_share(asked, row, last, definition, of, meets)
            }
            formula => {
                let Some((compiled, _)) = self.compiled_on(indicator, last) else {
                    return Outcome::without_value(State::NotApplicable);
                };
                // An area's figure is never a network set's, nor that of a part of a set.
                let row = match (compiled.area, row.key.network, row.scope) {
                    (true, Some(n), _) | (true, None, Scope::Network(n)) => {
                        let has_area = !self.organisation.network_info(n).area.is_empty();
                        if row.key.kind.is_some() || row.key.role.is_some() || !has_area {
                            return Outcome::without_value(State::NotApplicable);
                        }
                        RowOf { scope: Scope::Area(n), dims: &WHOLE, key: Key::default() }
                    }
                    _ => row,
                };
                self.evaluate(asked, row, span, formula, definition, compiled)
            }
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
            let Some(grain) = run.grain(row) else {
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

    /// The share of units open on the last day that pass `of` and also `meets`.
    fn registry_share(
        &self,
        asked: &Asked<'e>,
        row: RowOf<'_>,
        last: Date,
        definition: &Definition,
        of: &Filter,
        meets: &Filter,
    ) -> Outcome {
        let org = self.organisation;
        let places = of
            .kinds
            .first()
            .is_some_and(|kind| self.catalogue.kinds[kind.at()].class == Class::Administrative);
        let mut units: Vec<UnitIx> = Vec::new();
        if places {
            let area = match (row.key, row.scope) {
                (
                    Key { unit: Some(unit), own: false, kind: None, role: None, network: None },
                    _,
                ) => Some(unit),
                (key, Scope::Unit(unit)) if key == Key::default() => Some(unit),
                _ => None,
            };
            let Some(area) = area else { return Outcome::without_value(State::NotApplicable) };
            let day = asked.when.map.unwrap_or(last);
            units.extend(org.units().filter(|unit| {
                of.kinds.contains(&org.kind_on(*unit, last))
                    && org.is_open(*unit, last)
                    && org.is_below(*unit, area, day)
            }));
        } else {
            let roster = asked.roster(row.scope, row.dims, (last, last));
            units.extend(roster.row(&row.key).iter().flat_map(|group| &group.units).copied());
        }
        let passes = |filter: &Filter, unit: UnitIx| {
            let mut facts = org.facts_on(unit, last);
            if places {
                facts.roles = org.own_roles_on(unit, last);
            }
            filter.admits(&facts)
        };
        units.retain(|unit| passes(of, *unit));
        let all = units.len() as u64;
        let good = units.iter().filter(|unit| passes(meets, **unit)).count() as u64;
        let mut outcome = Outcome::without_value(State::Reported);
        outcome.pairs = Pairs { expected: all, matched: all };
        if all == 0 {
            outcome.state = State::NotApplicable;
            return outcome;
        }
        outcome.divide(good.into(), Some(all.into()), definition.factor);
        outcome
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
        // Everything owed may still come in time.
        outcome.state = if c.expected() > 0 { State::Waiting } else { State::NotApplicable };
        return outcome;
    }
    outcome.divide(over.into(), Some(under.into()), definition.factor);
    outcome
}

impl<'a, 'e> Run<'a, 'e> {
    fn over_time(&self, input: usize) -> Option<OverTime> {
        let element = self.compiled.inputs[input].element()?;
        Some(self.engine.catalogue.elements[element.at()].over_time)
    }

    fn filter(&self, input: usize) -> Option<&'a Filter> {
        match &self.compiled.inputs[input] {
            Input::Element { filter, .. } => Some(filter),
            _ => None,
        }
    }

    /// The element inputs.
    fn element_inputs(&self) -> impl Iterator<Item = usize> + use<'a> {
        let inputs = &self.compiled.inputs;
        (0..inputs.len()).filter(move |at| inputs[*at].element().is_some())
    }

    fn admits_kind(&self, input: usize, kind: KindIx) -> Admits {
        let Some(filter) = self.filter(input) else { return Admits::No };
        if !filter.kinds.is_empty() && !filter.kinds.contains(&kind) {
            Admits::No
        } else if filter.roles.is_empty() && filter.attributes.is_empty() {
            Admits::Yes
        } else {
            Admits::Ask
        }
    }

    fn admits_unit(&self, input: usize, unit: UnitIx, day: Date) -> bool {
        self.filter(input).is_some_and(|filter| self.passes(filter, unit, day))
    }

    fn passes(&self, filter: &Filter, unit: UnitIx, day: Date) -> bool {
        let org = self.engine.organisation;
        let roles = if filter.roles.is_empty() { Vec::new() } else { org.roles_on(unit, day) };
        let attributes =
            if filter.attributes.is_empty() { Vec::new() } else { org.attributes_on(unit, day) };
        filter.admits(&Facts { kind: org.kind_on(unit, day), roles, attributes })
    }

    /// The last day of some days on which the unit is open.
    fn last_open(&self, unit: UnitIx, (first, last): (Date, Date)) -> Option<Date> {
        let org = self.engine.organisation;
        if org.is_open(unit, last) {
            return Some(last);
        }
        let ends = org.info(unit).spells.iter().filter_map(|spell| spell.to);
        let days = ends.map(|to| to.plus(-1)).filter(|day| first <= *day && *day <= last);
        days.filter(|day| org.is_open(unit, *day)).max()
    }

    /// The coarsest period type by which facilities of the row are asked what the formula counts; none if
    /// nobody is asked any of it.
    fn grain(&self, row: RowOf<'_>) -> Option<PeriodType> {
        let engine = self.engine;
        let roster = self.asked.roster(row.scope, row.dims, days_of(self.span));
        let formulas = engine.plans.formulas(engine.catalogue);
        let mut found: Option<PeriodType> = None;
        let mut look = |kind: KindIx, is_asked: &dyn Fn(usize, Admits, FormIx, usize) -> bool| {
            for input in self.element_inputs() {
                let admits = self.admits_kind(input, kind);
                let Some(element) = self.compiled.inputs[input].element() else { continue };
                let carried = matches!(self.over_time(input), Some(OverTime::Latest { .. }));
                if carried || admits == Admits::No {
                    continue;
                }
                for (form, line) in formulas.homes(kind, element) {
                    let own = engine.catalogue.forms[form.at()].period_type;
                    let longer = found.is_none_or(|found| length(own) > length(found));
                    if longer && is_asked(input, admits, *form, *line) {
                        found = Some(found.map_or(own, |found| coarser(found, own)));
                    }
                }
            }
        };
        let admitted = |input: usize, admits: Admits, unit: UnitIx| {
            admits == Admits::Yes
                || self
                    .last_open(unit, days_of(self.span))
                    .is_some_and(|day| self.admits_unit(input, unit, day))
        };
        for group in roster.row(&row.key) {
            look(group.kind, &|input, admits, form, line| {
                let span = self.span_asked(form);
                let cells = self.asked.dense(group, form, line, span);
                let mut both = cells.iter().zip(&group.units);
                both.any(|(got, unit)| got.asked > 0 && admitted(input, admits, *unit))
            });
        }
        for wanderer in roster.wanderers_of(&row.key) {
            for stay in wanderer.stays.iter().filter(|stay| stay.keys.contains(&row.key)) {
                look(stay.kind, &|input, admits, form, _| {
                    let here = |day: Date| stay.first <= day && day <= stay.last;
                    let got = self.one_by_one(input, wanderer.unit, self.span_asked(form), &here);
                    got.asked > 0 && admitted(input, admits, wanderer.unit)
                });
            }
        }
        found
    }

    /// The span for which a form may be asked: the question's, or the form's period that it ends in.
    fn span_asked(&self, form: FormIx) -> Span {
        let own = self.engine.catalogue.forms[form.at()].period_type;
        if self.span.parts(own).len() > 0 {
            self.span
        } else {
            Span::of(Period::containing(own, self.span.last_day()))
        }
    }

    /// What the units of a group gave to every input; `back`: a year earlier.
    fn sources(&self, group: &Group, back: bool) -> Vec<Source> {
        let engine = self.engine;
        let formulas = engine.plans.formulas(engine.catalogue);
        let inputs = self.compiled.inputs.iter().enumerate();
        inputs
            .map(|(at, input)| {
                let admits = self.admits_kind(at, group.kind);
                let mut homes = Vec::new();
                if let Some(element) = input.element().filter(|_| admits != Admits::No) {
                    for (form, line) in formulas.homes(group.kind, element) {
                        homes.push(self.home(at, group, *form, *line, back));
                    }
                }
                Source { admits, homes }
            })
            .collect()
    }

    fn home(&self, input: usize, group: &Group, form: FormIx, line: usize, back: bool) -> Home {
        let of = |grain: &Grain| {
            let span = if back { year_earlier(grain.span) } else { grain.span };
            match self.over_time(input) {
                Some(OverTime::Latest { carry_months }) => {
                    let newest = |unit: &UnitIx| self.newest(*unit, form, line, span, carry_months);
                    group.units.iter().map(newest).collect()
                }
                _ => self.asked.dense(group, form, line, span),
            }
        };
        self.grains.iter().map(of).collect()
    }

    /// Whether an input counts in a period of the grain.
    fn is_active(&self, input: usize, grain: usize) -> bool {
        let grain = &self.grains[grain];
        self.begins[input] <= grain.span.first_day()
            && (grain.inside || self.begins[input] < self.span.first_day())
    }

    /// The newest value of an element asked rarely: the span's own, or one carried from before. It counts as
    /// asked while its form is owed for the period the span ends in, or a value stands.
    fn newest(
        &self,
        unit: UnitIx,
        form: FormIx,
        line: usize,
        span: Span,
        carry_months: u16,
    ) -> Got {
        let mut out = Got::default();
        let own = self.engine.catalogue.forms[form.at()].period_type;
        let present = self.asked.sheet(form, Period::containing(own, span.last_day()));
        let Some(slot) = present.slots.slot(unit) else { return out };
        let owed = present.plans.iter().any(|plan| plan.asked[line][slot as usize] == 1);
        let mut periods = carried(own, span, carry_months);
        periods.reverse();
        periods.extend(bundles(own, span));
        for bundle in periods {
            let got = self.asked.read(&self.asked.sheet(form, bundle), line, slot);
            if got.last.is_answer() {
                out.last = got.last;
                (out.answered, out.numbers) = (1, u32::from(got.numbers > 0));
            }
        }
        out.asked = u32::from(owed || out.answered > 0);
        out
    }

    /// The forms and lines by which an element input may ever be asked of a unit.
    fn ever_homes(&self, input: usize, unit: UnitIx) -> Vec<(FormIx, usize)> {
        let Some(element) = self.compiled.inputs[input].element() else { return Vec::new() };
        let formulas = self.engine.plans.formulas(self.engine.catalogue);
        let kinds: BTreeSet<KindIx> =
            self.engine.organisation.info(unit).spells.iter().map(|spell| spell.kind).collect();
        let mut homes: Vec<(FormIx, usize)> =
            kinds.iter().flat_map(|kind| formulas.homes(*kind, element).iter().copied()).collect();
        homes.sort_unstable();
        homes.dedup();
        homes
    }

    /// What a unit gave to an input in a period of the grain, over the days that count, one by one.
    fn one_by_one(
        &self,
        input: usize,
        unit: UnitIx,
        span: Span,
        counts: &dyn Fn(Date) -> bool,
    ) -> Got {
        let mut got = Got::default();
        for (form, line) in self.ever_homes(input, unit) {
            if let Some(OverTime::Latest { carry_months }) = self.over_time(input) {
                got.then(self.newest(unit, form, line, span, carry_months));
                continue;
            }
            let own = self.engine.catalogue.forms[form.at()].period_type;
            for bundle in bundles(own, span) {
                let sheet = self.asked.sheet(form, bundle);
                got.then(self.asked.read_some(&sheet, line, unit, counts));
            }
        }
        got
    }

    /// What each input of a unit comes to in a period of the grain; none for one that is not in the formula
    /// there. `back`: a year earlier.
    fn pair(
        &self,
        presence: Presence<'_>,
        sources: Option<&[Source]>,
        unit: UnitIx,
        grain: usize,
        back: bool,
        got: &mut [Option<Got>],
    ) {
        let own = self.grains[grain].span;
        let span = if back { year_earlier(own) } else { own };
        let mut day: Option<Option<Date>> = None;
        let mut last_open = || *day.get_or_insert_with(|| self.last_open(unit, days_of(span)));
        for input in self.element_inputs() {
            got[input] = None;
            if !self.is_active(input, grain) {
                continue;
            }
            let is_admitted =
                |day: Option<Date>| day.is_some_and(|day| self.admits_unit(input, unit, day));
            let one = match (presence, sources) {
                (Presence::Steady(_, at), Some(sources)) => {
                    let source = &sources[input];
                    match source.admits {
                        Admits::No => continue,
                        Admits::Ask if !is_admitted(last_open()) => continue,
                        _ => {
                            let mut got = Got::default();
                            for home in &source.homes {
                                got.then(home[grain][at]);
                            }
                            got
                        }
                    }
                }
                _ if !is_admitted(last_open()) => continue,
                (Presence::Wanders(wanderer), _) => {
                    let here = |d: Date| wanderer.kind_in(&self.row, d).is_some();
                    self.one_by_one(input, unit, span, &here)
                }
                _ => self.one_by_one(input, unit, span, &|_| true),
            };
            if one.asked > 0 {
                got[input] = Some(one);
            }
        }
    }

    fn is_matched(&self, got: &[Option<Got>]) -> bool {
        got.iter().enumerate().all(|(input, got)| {
            let (Some(got), Some(over_time)) = (got, self.over_time(input)) else { return true };
            is_matched(
                over_time,
                u64::from(got.asked),
                u64::from(got.answered),
                self.definition.pair_min,
            )
        })
    }

    /// Takes a matched pair's values in.
    fn hold(
        &self,
        presence: Presence<'_>,
        got: &[Option<Got>],
        unit: UnitIx,
        span: Span,
        held: &mut [Held],
    ) {
        for (input, held) in held.iter_mut().enumerate() {
            match &self.compiled.inputs[input] {
                Input::Element { over, .. } => {
                    let Some(got) = &got[input] else { continue };
                    held.sum += u128::from(match over {
                        Some(Over::WorkingDays) => got.working,
                        _ => got.sum,
                    });
                    held.numbers += u64::from(got.numbers);
                    if let Value::Number(n) = got.last {
                        held.last = n;
                    }
                }
                Input::Fact(fact) => {
                    held.sum += u128::from(match presence {
                        Presence::Wanders(wanderer) => self.fact_here(*fact, wanderer, span),
                        _ => self.fact(*fact, unit, span),
                    });
                }
                Input::Facilities(_) => {}
            }
        }
    }

    fn fact(&self, fact: Fact, unit: UnitIx, span: Span) -> u64 {
        let today = self.engine.catalogue.day_at(self.asked.when.now);
        let last = span.last_day().min(today.plus(-1));
        match fact {
            Fact::WorkingDays => self.engine.plans.working_days(
                self.engine.organisation,
                unit,
                (span.first_day(), last),
            ),
            Fact::Days => {
                u64::try_from((last.days() + 1 - span.first_day().days()).max(0)).unwrap_or(0)
            }
            // The checker lets no other into an indicator.
            _ => 0,
        }
    }

    /// As [`Run::fact`], of the days on which the unit is in the set: its flows are of these days too.
    fn fact_here(&self, fact: Fact, wanderer: &Wanderer, span: Span) -> u64 {
        let today = self.engine.catalogue.day_at(self.asked.when.now);
        let (first, last) = (span.first_day(), span.last_day().min(today.plus(-1)));
        let days = (first.days()..=last.days()).filter_map(Date::from_days);
        let here = days.filter(|day| wanderer.kind_in(&self.row, *day).is_some());
        let counted = here.filter(|day| match fact {
            Fact::WorkingDays => self.engine.organisation.is_working_day(wanderer.unit, *day),
            Fact::Days => true,
            // The checker lets no other into an indicator.
            _ => false,
        });
        counted.count() as u64
    }

    /// The values of a unit's inputs over its matched pairs.
    fn values(&self, held: &[Held]) -> Vec<Rational> {
        let of = |(input, held): (usize, &Held)| {
            let stock = self.over_time(input).is_some_and(OverTime::is_stock);
            let mean = matches!(
                &self.compiled.inputs[input],
                Input::Element { over: Some(Over::Mean), .. }
            );
            let sum = i128::try_from(held.sum).unwrap_or(i128::MAX);
            if mean {
                let numbers = i128::from(held.numbers.max(1));
                Rational::new(sum, numbers).unwrap_or(Rational::ZERO)
            } else if stock {
                held.last.into()
            } else {
                Rational::new(sum, 1).unwrap_or(Rational::ZERO)
            }
        };
        held.iter().enumerate().map(of).collect()
    }

    /// Ratios and counts.
    fn ratio(&self, row: RowOf<'_>, begin: Date) -> Outcome {
        let last = self.span.last_day();
        let by_last_day = self.compiled.stocks;
        let days = if by_last_day { (last, last) } else { (begin, last) };
        let roster = self.asked.roster(row.scope, row.dims, days);
        let mut sums = Sums::new(self);
        for group in roster.row(&row.key) {
            let sources = self.sources(group, false);
            if self.has_elements() && sources.iter().all(|source| source.homes.is_empty()) {
                continue;
            }
            if sums.group(group, &sources, by_last_day) {
                continue;
            }
            for (at, unit) in group.units.iter().enumerate() {
                let presence = if by_last_day && self.changes_kind(*unit) {
                    Presence::Changed
                } else {
                    Presence::Steady(group, at)
                };
                sums.unit(presence, Some(&sources), *unit, group.kind);
            }
        }
        for wanderer in roster.wanderers_of(&row.key) {
            let day = self.last_open(wanderer.unit, (begin, last)).unwrap_or(last);
            let kind = self.engine.organisation.kind_on(wanderer.unit, day);
            sums.unit(Presence::Wanders(wanderer), None, wanderer.unit, kind);
        }
        let mut outcome = sums.outcome(row);
        if outcome.state == State::Reported {
            let sides = &self.compiled.sides;
            let facilities = self.facilities(row, &sums.areas);
            let total = |side: usize| {
                let mut total = sums.totals[side];
                let linear = sides[side].linear.as_ref();
                for (factor, input) in linear.iter().flat_map(|linear| &linear.0) {
                    if let Some(count) = facilities[*input] {
                        let more = Rational::new(*factor, 1)?.times(count.into())?;
                        total = total?.plus(more);
                    }
                }
                total
            };
            match (total(0), sides.get(1).map(|_| total(1))) {
                (Some(over), None) => outcome.divide(over, None, self.definition.factor),
                (Some(over), Some(Some(under))) => {
                    outcome.divide(over, Some(under), self.definition.factor);
                }
                _ => outcome.divide(Rational::ZERO, Some(Rational::ZERO), 1),
            }
        }
        let weighed = sides_weighed(&self.compiled.sides);
        outcome.share_of_usual = sums.share_of_usual(weighed, row);
        self.note_cut(&mut outcome);
        outcome
    }

    fn has_elements(&self) -> bool {
        self.element_inputs().next().is_some()
    }

    fn changes_kind(&self, unit: UnitIx) -> bool {
        let spells = &self.engine.organisation.info(unit).spells;
        spells.iter().any(|spell| spell.kind != spells[0].kind)
    }

    /// For each `facilities[…]` input, how many there are on the last day; of an area's formula only those in
    /// areas whose desk is matched.
    fn facilities(&self, row: RowOf<'_>, areas: &BTreeSet<UnitIx>) -> Vec<Option<u64>> {
        let org = self.engine.organisation;
        let last = self.span.last_day();
        let inputs = self.compiled.inputs.iter();
        inputs
            .map(|input| {
                let Input::Facilities(filter) = input else { return None };
                let roster = self.asked.roster(row.scope, row.dims, (last, last));
                let units = roster.row(&row.key).iter().flat_map(|group| &group.units);
                let counted = units.filter(|unit| {
                    org.class(**unit) == Class::Facility
                        && self.passes(filter, **unit, last)
                        && (!self.compiled.area
                            || org.upwards(**unit, last).any(|at| areas.contains(&at)))
                });
                Some(counted.count() as u64)
            })
            .collect()
    }

    fn note_cut(&self, outcome: &mut Outcome) {
        let grain = self.grains.first().and_then(|grain| grain.span.single());
        if grain.is_some_and(|grain| self.span.cuts(grain.kind())) {
            outcome.flags.push("partial_days".to_owned());
        }
    }

    /// Adds to each unit of a group what an element came to in the periods before.
    fn add_usual(
        &self,
        input: usize,
        group: &Group,
        first: Period,
        past: &Run<'_, '_>,
        volumes: &mut [u64],
    ) {
        let Some(element) = self.compiled.inputs[input].element() else { return };
        if self.admits_kind(input, group.kind) == Admits::No {
            return;
        }
        let formulas = self.engine.plans.formulas(self.engine.catalogue);
        for (form, line) in formulas.homes(group.kind, element) {
            if let Some(OverTime::Latest { carry_months }) = self.over_time(input) {
                for (unit, volume) in group.units.iter().zip(volumes.iter_mut()) {
                    for grain in &past.grains {
                        let got = self.newest(*unit, *form, *line, grain.span, carry_months);
                        *volume += got.last.number().unwrap_or(0);
                    }
                }
                continue;
            }
            let usual = self.asked.usual(*form, first);
            let slots = self.engine.slots(*form);
            for (unit, volume) in group.units.iter().zip(volumes.iter_mut()) {
                if let Some(slot) = slots.slot(*unit) {
                    *volume += usual.of(self.engine, self.asked.when, *line, slot);
                }
            }
        }
    }

    /// What elements of a unit came to in the grain's periods, flows added and stocks too.
    fn volume(&self, elements: &[usize], unit: UnitIx) -> u128 {
        let mut volume = 0;
        for input in elements {
            let stock = self.over_time(*input).is_some_and(OverTime::is_stock);
            for grain in &self.grains {
                let got = self.one_by_one(*input, unit, grain.span, &|_| true);
                volume += match got.last {
                    Value::Number(n) if stock => u128::from(n),
                    _ if stock => 0,
                    _ => u128::from(got.sum),
                };
            }
        }
        volume
    }

    /// The share of facilities whose values meet a condition. The set is that of the last day, each facility
    /// once; its flows are added up and its stocks are the newest.
    fn share(&self, row: RowOf<'_>, of: &Filter) -> Outcome {
        let last = self.span.last_day();
        let roster = self.asked.roster(row.scope, row.dims, (last, last));
        let mut sums = Sums::new(self);
        let mut met = 0_u64;
        let meets = &self.compiled.sides[0];
        let inputs = self.compiled.inputs.len();
        for group in roster.row(&row.key) {
            if !of.kinds.is_empty() && !of.kinds.contains(&group.kind) {
                continue;
            }
            let sources = self.sources(group, false);
            for (at, unit) in group.units.iter().enumerate() {
                if !self.passes(of, *unit, last) {
                    continue;
                }
                let presence = if self.changes_kind(*unit) {
                    Presence::Changed
                } else {
                    Presence::Steady(group, at)
                };
                let mut whole: Vec<Option<Got>> = vec![None; inputs];
                let mut got: Vec<Option<Got>> = vec![None; inputs];
                for grain in 0..self.grains.len() {
                    self.pair(presence, Some(&sources), *unit, grain, false, &mut got);
                    for (whole, got) in whole.iter_mut().zip(&got) {
                        if let Some(got) = got {
                            whole.get_or_insert_default().then(*got);
                        }
                    }
                }
                if whole.iter().all(Option::is_none) {
                    continue;
                }
                let matched = self.is_matched(&whole);
                let pairs = Pairs { expected: 1, matched: u64::from(matched) };
                sums.note(*unit, None, group.kind, pairs);
                if matched {
                    let mut held = vec![Held { sum: 0, last: 0, numbers: 0 }; inputs];
                    self.hold(presence, &whole, *unit, self.span, &mut held);
                    let values = self.values(&held);
                    let values = Values { compiled: self.compiled, values: &values };
                    met += u64::from(condition(&meets.expr, &values) == Ok(true));
                }
            }
        }
        let mut outcome = sums.outcome(row);
        if outcome.state == State::Reported {
            let all = outcome.pairs.matched;
            outcome.divide(met.into(), Some(all.into()), self.definition.factor);
        }
        self.note_cut(&mut outcome);
        outcome
    }

    /// The change against the same period a year before. A pair is matched if what is asked of the facility is
    /// answered now and was answered then.
    fn growth(&self, row: RowOf<'_>, begin: Date) -> Outcome {
        let last = self.span.last_day();
        let (now, then) = if self.compiled.stocks {
            ((last, last), (day_a_year_before(last), day_a_year_before(last)))
        } else {
            ((begin, last), (day_a_year_before(begin), day_a_year_before(last)))
        };
        let rosters = [
            self.asked.roster(row.scope, row.dims, now),
            self.asked.roster(row.scope, row.dims, then),
        ];
        let mut units: BTreeMap<UnitIx, [Option<Presence<'_>>; 2]> = BTreeMap::new();
        for (at, roster) in rosters.iter().enumerate() {
            for group in roster.row(&row.key) {
                for (place, unit) in group.units.iter().enumerate() {
                    let presence = if self.compiled.stocks && self.changes_kind(*unit) {
                        Presence::Changed
                    } else {
                        Presence::Steady(group, place)
                    };
                    units.entry(*unit).or_default()[at] = Some(presence);
                }
            }
            for wanderer in roster.wanderers_of(&row.key) {
                units.entry(wanderer.unit).or_default()[at] = Some(Presence::Wanders(wanderer));
            }
        }
        let mut sources: [BTreeMap<KindIx, Vec<Source>>; 2] = Default::default();
        let mut sums = Sums::new(self);
        let inputs = self.compiled.inputs.len();
        let side = &self.compiled.sides[0];
        let mut totals = [Some(Rational::ZERO), Some(Rational::ZERO)];
        for (unit, presences) in &units {
            let mut held = [
                vec![Held { sum: 0, last: 0, numbers: 0 }; inputs],
                vec![Held { sum: 0, last: 0, numbers: 0 }; inputs],
            ];
            let (mut expected, mut matched) = (0, 0);
            for grain in 0..self.grains.len() {
                let mut got = [vec![None; inputs], vec![None; inputs]];
                for (at, presence) in presences.iter().enumerate() {
                    let Some(presence) = presence else { continue };
                    let back = at == 1;
                    let own = match presence {
                        Presence::Steady(group, _) => Some(
                            sources[at]
                                .entry(group.kind)
                                .or_insert_with(|| self.sources(group, back))
                                .as_slice(),
                        ),
                        _ => None,
                    };
                    self.pair(*presence, own, *unit, grain, back, &mut got[at]);
                }
                if got.iter().flatten().all(Option::is_none) {
                    continue;
                }
                expected += 1;
                if self.is_matched(&got[0]) && self.is_matched(&got[1]) {
                    matched += 1;
                    for at in 0..2 {
                        let presence = presences[at].unwrap_or(Presence::Changed);
                        let span = self.grains[grain].span;
                        self.hold(presence, &got[at], *unit, span, &mut held[at]);
                    }
                }
            }
            if expected == 0 {
                continue;
            }
            let day = self.last_open(*unit, days_of(self.span)).unwrap_or(last);
            let kind = self.engine.organisation.kind_on(*unit, day);
            let wanderer = match presences[0] {
                Some(Presence::Wanders(wanderer)) => Some(wanderer),
                _ => None,
            };
            sums.note(*unit, wanderer, kind, Pairs { expected, matched });
            if matched > 0 {
                for at in 0..2 {
                    let values = self.values(&held[at]);
                    let values = Values { compiled: self.compiled, values: &values };
                    let number = values.number(side).ok();
                    totals[at] = totals[at].zip(number).and_then(|(a, b)| a.plus(b));
                }
            }
        }
        let mut outcome = sums.outcome(row);
        if outcome.state == State::Reported {
            let [now, then] = totals;
            match now.zip(then).and_then(|(now, then)| Some((now.minus(then)?, then))) {
                Some((change, then)) => {
                    outcome.divide(change, Some(then), self.definition.factor);
                }
                None => outcome.divide(Rational::ZERO, Some(Rational::ZERO), 1),
            }
        }
        outcome.share_of_usual = sums.share_of_usual(&self.compiled.sides[..1], row);
        self.note_cut(&mut outcome);
        outcome
    }

    /// Reports of the units that can still come in time, at most [`WAITING_MAX`], and how many
    /// there are; of a unit that is now here, now there, those of its time here.
    fn waiting<'w>(
        &self,
        units: impl Iterator<Item = (UnitIx, Option<&'w Wanderer>)>,
    ) -> (Vec<Waiting>, u64) {
        let engine = self.engine;
        let now = self.asked.when.now;
        let mut found: BTreeSet<(Waiting, Period)> = BTreeSet::new();
        let mut all = 0;
        for (unit, wanderer) in units {
            let is_elsewhere = |period: Period| {
                wanderer.is_some_and(|wanderer| {
                    let days = (period.first_day(), period.last_day());
                    let day = self.last_open(unit, days);
                    day.is_none_or(|day| wanderer.kind_in(&self.row, day).is_none())
                })
            };
            // Two elements may stand on one report.
            let mut own: BTreeSet<(Waiting, Period)> = BTreeSet::new();
            for input in self.element_inputs() {
                for (form, line) in self.ever_homes(input, unit) {
                    let model = &engine.catalogue.forms[form.at()];
                    let column = engine.column(form, model.lines[line].element);
                    for grain in (0..self.grains.len()).filter(|g| self.is_active(input, *g)) {
                        let span = self.grains[grain].span;
                        let mut periods = bundles(model.period_type, span);
                        if periods.is_empty() {
                            periods.push(Period::containing(model.period_type, span.last_day()));
                        }
                        for bundle in periods {
                            let sheet = self.asked.sheet(form, bundle);
                            let Some(slot) = sheet.slots.slot(unit) else { continue };
                            for (at, period) in sheet.periods.iter().enumerate() {
                                let plan = &sheet.plans[at];
                                if plan.asked[line][slot as usize] != 1
                                    || now > plan.late_after(slot)
                                    || is_elsewhere(*period)
                                    || (at < sheet.ended
                                        && self.is_answered(&sheet, at, column, slot))
                                {
                                    continue;
                                }
                                let due = self.due(form, unit, *period);
                                own.insert((Waiting { due, form, unit }, *period));
                            }
                        }
                    }
                }
            }
            all += own.len() as u64;
            found.append(&mut own);
            while found.len() > WAITING_MAX {
                found.pop_last();
            }
        }
        (found.into_iter().map(|(one, _)| one).collect(), all)
    }

    fn is_answered(&self, sheet: &Sheet, at: usize, column: Option<usize>, slot: Slot) -> bool {
        let block = self.engine.block(sheet.form, sheet.periods[at], self.asked.when.past);
        match (block, column) {
            (Some(block), Some(column)) => block.value(column, slot).is_answer(),
            _ => false,
        }
    }

    fn due(&self, form: FormIx, unit: UnitIx, period: Period) -> Millis {
        let engine = self.engine;
        let model = &engine.catalogue.forms[form.at()];
        let (_, until) = extension(engine.catalogue, engine.organisation, model, unit, period);
        let working = |date| engine.organisation.is_working_day(unit, date);
        figures::deadline(engine.catalogue, model, period, working, until).due
    }
}

/// What tells a facility's usual share: the denominator, or a count itself.
fn sides_weighed(sides: &[Side]) -> &[Side] {
    if sides.len() > 1 { &sides[1..2] } else { &sides[..1] }
}

/// A unit in the formula.
struct Member<'r> {
    unit: UnitIx,
    /// Set if it is now here, now there.
    wanderer: Option<&'r Wanderer>,
    kind: KindIx,
    expected: u64,
    matched: u64,
}

/// The pairs of a group, counted all at once.
struct GroupPairs<'r> {
    group: &'r Group,
    expected: Vec<u32>,
    matched: Vec<u32>,
}

/// What the units of a row add up to.
struct Sums<'r, 'a, 'e> {
    run: &'r Run<'a, 'e>,
    totals: Vec<Option<Rational>>,
    /// Linear sides: by input, whole numbers, which are cheaper than fractions.
    whole: Vec<i128>,
    kinds: BTreeMap<KindIx, Pairs>,
    groups: Vec<GroupPairs<'r>>,
    members: Vec<Member<'r>>,
    /// The places whose desks are matched.
    areas: BTreeSet<UnitIx>,
    got: Vec<Option<Got>>,
    held: Vec<Held>,
}

impl<'r, 'a, 'e> Sums<'r, 'a, 'e> {
    fn new(run: &'r Run<'a, 'e>) -> Sums<'r, 'a, 'e> {
        let inputs = run.compiled.inputs.len();
        Sums {
            run,
            totals: vec![Some(Rational::ZERO); run.compiled.sides.len()],
            whole: vec![0; inputs],
            kinds: BTreeMap::new(),
            groups: Vec::new(),
            members: Vec::new(),
            areas: BTreeSet::new(),
            got: vec![None; inputs],
            held: vec![Held { sum: 0, last: 0, numbers: 0 }; inputs],
        }
    }

    /// Takes the pairs of a whole group in, input by input; false where its units must be looked at one by
    /// one: where a filter asks for roles or attributes, a side is no plain sum, a stock is to be taken from
    /// the last of several pairs, or a unit was of another kind before.
    fn group(&mut self, group: &'r Group, sources: &[Source], by_last_day: bool) -> bool {
        let run = self.run;
        let stock = |input: usize| run.over_time(input).is_some_and(OverTime::is_stock);
        let alike = run.compiled.sides.iter().all(|side| side.linear.is_some())
            && sources.iter().all(|source| source.admits != Admits::Ask)
            && (run.grains.len() == 1 || !run.element_inputs().any(stock))
            && !(by_last_day && group.units.iter().any(|unit| run.changes_kind(*unit)));
        if !alike {
            return false;
        }
        let len = group.units.len();
        let (mut expected, mut matched) = (vec![0_u32; len], vec![0_u32; len]);
        let mut state = vec![0_u8; len];
        /// In the formula; with a term not answered often enough.
        const IN: u8 = 1;
        const UNMATCHED: u8 = 2;
        for grain in 0..run.grains.len() {
            state.fill(0);
            let active = || {
                run.element_inputs().filter(|input| run.is_active(*input, grain)).flat_map(
                    |input| sources[input].homes.iter().map(move |home| (input, &home[grain])),
                )
            };
            for (input, cells) in active() {
                // Two homes of one input are two stretches of time of a form's lines: each is judged by
                // itself, which the checker keeps from being two at once.
                let Some(over_time) = run.over_time(input) else { continue };
                let pair_min = run.definition.pair_min;
                for (state, got) in state.iter_mut().zip(cells.iter()) {
                    if got.asked > 0 {
                        let (asked, answered) = (u64::from(got.asked), u64::from(got.answered));
                        let good = is_matched(over_time, asked, answered, pair_min);
                        *state |= if good { IN } else { IN | UNMATCHED };
                    }
                }
            }
            for (at, state) in state.iter().enumerate() {
                expected[at] += u32::from(*state & IN);
                matched[at] += u32::from(*state == IN);
            }
            for (input, cells) in active() {
                let mut sum = 0_u128;
                let working = matches!(
                    run.compiled.inputs[input],
                    Input::Element { over: Some(Over::WorkingDays), .. }
                );
                let is_stock = stock(input);
                for (state, got) in state.iter().zip(cells.iter()) {
                    if *state == IN && got.asked > 0 {
                        sum += u128::from(match got.last {
                            Value::Number(n) if is_stock => n,
                            _ if is_stock => 0,
                            _ if working => got.working,
                            _ => got.sum,
                        });
                    }
                }
                self.whole[input] += i128::try_from(sum).unwrap_or(i128::MAX);
            }
            for (input, fact) in run.compiled.inputs.iter().enumerate() {
                let Input::Fact(fact) = fact else { continue };
                for (state, unit) in state.iter().zip(&group.units) {
                    if *state == IN {
                        self.whole[input] +=
                            i128::from(run.fact(*fact, *unit, run.grains[grain].span));
                    }
                }
            }
        }
        let all = |list: &[u32]| list.iter().map(|n| u64::from(*n)).sum::<u64>();
        let pairs = self.kinds.entry(group.kind).or_default();
        pairs.expected += all(&expected);
        pairs.matched += all(&matched);
        if run.compiled.area {
            let day = run.span.last_day();
            let both = group.units.iter().zip(&matched);
            for (unit, _) in both.filter(|(_, matched)| **matched > 0) {
                self.areas.extend(run.engine.organisation.parent_on(*unit, day));
            }
        }
        self.groups.push(GroupPairs { group, expected, matched });
        true
    }

    fn note(
        &mut self,
        unit: UnitIx,
        wanderer: Option<&'r Wanderer>,
        kind: KindIx,
        Pairs { expected, matched }: Pairs,
    ) {
        let pairs = self.kinds.entry(kind).or_default();
        pairs.expected += expected;
        pairs.matched += matched;
        self.members.push(Member { unit, wanderer, kind, expected, matched });
        if matched > 0 && self.run.compiled.area {
            let day = self.run.span.last_day();
            self.areas.extend(self.run.engine.organisation.parent_on(unit, day));
        }
    }

    /// Takes a unit's pairs in.
    fn unit(
        &mut self,
        presence: Presence<'r>,
        sources: Option<&[Source]>,
        unit: UnitIx,
        kind: KindIx,
    ) {
        let run = self.run;
        // A pair is of the kind the unit has in it.
        let mut kinds: BTreeMap<KindIx, Pairs> = BTreeMap::new();
        self.held.fill(Held { sum: 0, last: 0, numbers: 0 });
        for grain in 0..run.grains.len() {
            run.pair(presence, sources, unit, grain, false, &mut self.got);
            if self.got.iter().all(Option::is_none) {
                continue;
            }
            let span = run.grains[grain].span;
            let kind = match presence {
                Presence::Wanders(_) => run
                    .last_open(unit, days_of(span))
                    .map_or(kind, |day| run.engine.organisation.kind_on(unit, day)),
                _ => kind,
            };
            let pairs = kinds.entry(kind).or_default();
            pairs.expected += 1;
            if !run.is_matched(&self.got) {
                continue;
            }
            pairs.matched += 1;
            run.hold(presence, &self.got, unit, span, &mut self.held);
        }
        let wanderer = match presence {
            Presence::Wanders(wanderer) => Some(wanderer),
            _ => None,
        };
        for (kind, pairs) in &kinds {
            self.note(unit, wanderer, *kind, *pairs);
        }
        if kinds.values().all(|pairs| pairs.matched == 0) {
            return;
        }
        let mut fraction: Option<Vec<Rational>> = None;
        for (total, side) in self.totals.iter_mut().zip(&run.compiled.sides) {
            if side.linear.is_some() {
                continue;
            }
            let values = fraction.get_or_insert_with(|| run.values(&self.held));
            let values = Values { compiled: run.compiled, values };
            let number = values.number(side).ok();
            *total = total.zip(number).and_then(|(a, b)| a.plus(b));
        }
        for (input, (whole, held)) in self.whole.iter_mut().zip(&self.held).enumerate() {
            let stock = run.over_time(input).is_some_and(OverTime::is_stock);
            *whole += if stock {
                i128::from(held.last)
            } else {
                i128::try_from(held.sum).unwrap_or(i128::MAX)
            };
        }
    }

    /// Coverage, state, and whom it waits for; the value is still to come.
    fn outcome(&mut self, row: RowOf<'_>) -> Outcome {
        let run = self.run;
        for (total, side) in self.totals.iter_mut().zip(&run.compiled.sides) {
            if let Some(linear) = &side.linear {
                let mut sum = 0_i128;
                let mut fits = true;
                for (factor, input) in &linear.0 {
                    match self.whole[*input].checked_mul(*factor).and_then(|n| sum.checked_add(n)) {
                        Some(more) => sum = more,
                        None => fits = false,
                    }
                }
                *total = if fits { Rational::new(sum, 1) } else { None };
            }
        }
        let mut pairs = Pairs::default();
        let mut absent = Vec::new();
        for (kind, one) in &self.kinds {
            pairs.expected += one.expected;
            pairs.matched += one.matched;
            if one.expected > 0 && one.matched == 0 {
                absent.push(*kind);
            }
        }
        if !run.has_elements() {
            // Facts of the registry are there or not: nothing can be missing.
            let last = run.span.last_day();
            let roster = run.asked.roster(row.scope, row.dims, (last, last));
            let groups = roster.row(&row.key).iter();
            let kinds = &run.engine.catalogue.kinds;
            let facilities = groups.filter(|group| kinds[group.kind.at()].class == Class::Facility);
            let all = facilities.map(|group| group.units.len() as u64).sum();
            pairs = Pairs { expected: all, matched: all };
        }
        let (mut waiting, mut all) = (Vec::new(), 0);
        if !absent.is_empty() {
            let members = self.members.iter().filter(|m| absent.contains(&m.kind));
            let members = members.map(|m| (m.unit, m.wanderer));
            let groups = self.groups.iter().filter(|g| absent.contains(&g.group.kind));
            let units = groups.flat_map(|g| {
                let both = g.group.units.iter().zip(&g.expected);
                both.filter(|(_, expected)| **expected > 0).map(|(unit, _)| (*unit, None))
            });
            // A unit that was of two kinds is there twice.
            let units: BTreeMap<UnitIx, Option<&Wanderer>> = units.chain(members).collect();
            (waiting, all) = run.waiting(units.into_iter());
        }
        let state = indicator_state(pairs, !absent.is_empty(), all > 0, false);
        let mut outcome = Outcome::without_value(state);
        if all > waiting.len() as u64 {
            outcome.flags.push(format!("waiting_for_more:{}", all - waiting.len() as u64));
        }
        outcome.pairs = pairs;
        outcome.absent = absent;
        outcome.waiting = waiting;
        outcome
    }

    /// The usual volume of the matched pairs' facilities over that of all: what their elements below the line
    /// came to in the twelve periods before.
    fn share_of_usual(&self, sides: &[Side], row: RowOf<'_>) -> Option<f64> {
        let run = self.run;
        let expected: u64 = self.kinds.values().map(|pairs| pairs.expected).sum();
        let matched: u64 = self.kinds.values().map(|pairs| pairs.matched).sum();
        if expected == 0 {
            return None;
        }
        if matched == expected {
            return Some(1.0);
        }
        if matched == 0 {
            return Some(0.0);
        }
        let elements: Vec<usize> = sides.iter().flat_map(|side| side.elements.clone()).collect();
        let first = run.grains.iter().find(|grain| grain.inside)?.span.single()?;
        let before: Vec<Grain> = (-USUAL_PERIODS..0)
            .map(|n| Grain { span: Span::of(first.plus(n)), inside: true })
            .collect();
        let past = Run {
            engine: run.engine,
            asked: run.asked,
            compiled: run.compiled,
            definition: run.definition,
            span: Span::new(first.plus(-USUAL_PERIODS), first.plus(-1))?,
            begins: vec![first.plus(-USUAL_PERIODS).first_day(); run.begins.len()],
            grains: before,
            row: row.key,
        };
        let (mut over, mut under) = (0_f64, 0_f64);
        for pairs in &self.groups {
            let mut volumes = vec![0_u64; pairs.group.units.len()];
            for input in &elements {
                run.add_usual(*input, pairs.group, first, &past, &mut volumes);
            }
            if elements.is_empty() {
                // Nothing is counted below the line but days: they weigh alike.
                volumes.fill(1);
            }
            for (unit, volume) in pairs.group.units.iter().zip(&mut volumes) {
                if run.changes_kind(*unit) && !elements.is_empty() {
                    // Before, other forms asked it.
                    *volume = u64::try_from(past.volume(&elements, *unit)).unwrap_or(u64::MAX);
                }
            }
            for (at, volume) in volumes.iter().enumerate() {
                over += *volume as f64 * f64::from(pairs.matched[at]);
                under += *volume as f64 * f64::from(pairs.expected[at]);
            }
        }
        for member in &self.members {
            let steady = member.wanderer.is_none() && !run.changes_kind(member.unit);
            let mut volume = if steady {
                let alone = Group { kind: member.kind, units: vec![member.unit] };
                let mut volumes = [0];
                for input in &elements {
                    run.add_usual(*input, &alone, first, &past, &mut volumes);
                }
                u128::from(volumes[0])
            } else {
                past.volume(&elements, member.unit)
            };
            if elements.is_empty() {
                // Nothing is counted below the line but days: they weigh alike.
                volume = 1;
            }
            over += volume as f64 * member.matched as f64;
            under += volume as f64 * member.expected as f64;
        }
        (under > 0.0).then(|| over / under)
    }
}

/// The same span a year earlier.
fn year_earlier(span: Span) -> Span {
    match span.single() {
        Some(period) => Span::of(period.year_earlier()),
        None => {
            let first = Period::containing(span.kind(), day_a_year_before(span.first_day()));
            let last = Period::containing(span.kind(), day_a_year_before(span.last_day()));
            Span::new(first, last).unwrap_or(span)
        }
    }
}

fn day_a_year_before(day: Date) -> Date {
    let (year, month, of_month) = day.ymd();
    // 29 February becomes the 28th.
    Date::new(year - 1, month, of_month)
        .or_else(|| Date::new(year - 1, month, of_month - 1))
        .unwrap_or(day)
}
