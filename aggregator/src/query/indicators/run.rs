//! One evaluation of a formula for one row: its grain, its inputs, and what a single pair comes to.

use std::collections::BTreeSet;
use std::rc::Rc;

use banyan_shared::catalogue::expr::{Fact, Over, Rational};
use banyan_shared::catalogue::indicator::Definition;
use banyan_shared::catalogue::{Facts, Filter, FormIx, KindIx, OverTime};
use banyan_shared::figures::indicators::{Compiled, Input, coarser, is_matched, length};
use banyan_shared::organisation::UnitIx;
use banyan_shared::period::{Date, Period, PeriodType, Span};
use banyan_shared::report::Value;

use super::{Outcome, RowOf};
use crate::query::Engine;
use crate::query::asked::{Asked, Got};
use crate::query::given::Given;
use crate::query::sets::{Group, Key, Wanderer};
use crate::query::span::{bundles, carried, days_of, span_of_days};

/// A period of the grain.
pub(super) struct Grain {
    pub(super) span: Span,
    /// Whether it lies in the span asked for, not only in the time before that a term looks back on.
    pub(super) inside: bool,
}

/// How a unit is in the set.
#[derive(Clone, Copy)]
pub(super) enum Presence<'r> {
    /// Of one kind and in one row, all the time it is open: its place in its group.
    Steady(&'r Group, usize),
    /// In the set by its last day alone; of several kinds in its time.
    Changed,
    /// Now here, now there.
    Wanders(&'r Wanderer),
}

/// Whether an input is taken from facilities of a kind.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Admits {
    Yes,
    No,
    /// It depends on roles or attributes.
    Ask,
}

/// What a group's units gave to an input, for each period of the grain; none where they are never asked it.
pub(super) struct Source {
    pub(super) admits: Admits,
    pub(super) cells: Option<Vec<Rc<Given>>>,
}

/// A unit's values of one input, over its matched pairs.
#[derive(Clone, Copy, Default)]
pub(super) struct Held {
    pub(super) sum: u128,
    pub(super) last: u64,
    /// How many values there are, for the mean of a stock.
    pub(super) numbers: u64,
}

/// One evaluation's circumstances.
pub(super) struct Run<'a, 'e> {
    pub(super) engine: &'a Engine<'e>,
    pub(super) asked: &'a Asked<'e>,
    pub(super) compiled: &'a Compiled,
    pub(super) definition: &'a Definition,
    pub(super) span: Span,
    /// For each input, the first day it counts.
    pub(super) begins: Vec<Date>,
    pub(super) grains: Vec<Grain>,
    pub(super) row: Key,
}

impl<'a, 'e> Run<'a, 'e> {
    pub(super) fn over_time(&self, input: usize) -> Option<OverTime> {
        let element = self.compiled.inputs[input].element()?;
        Some(self.engine.catalogue.elements[element.at()].over_time)
    }

    pub(super) fn filter(&self, input: usize) -> Option<&'a Filter> {
        match &self.compiled.inputs[input] {
            Input::Element { filter, .. } => Some(filter),
            _ => None,
        }
    }

    /// The element inputs.
    pub(super) fn element_inputs(&self) -> impl Iterator<Item = usize> + use<'a> {
        let inputs = &self.compiled.inputs;
        (0..inputs.len()).filter(move |at| inputs[*at].element().is_some())
    }

    pub(super) fn admits_kind(&self, input: usize, kind: KindIx) -> Admits {
        let Some(filter) = self.filter(input) else { return Admits::No };
        if !filter.kinds.is_empty() && !filter.kinds.contains(&kind) {
            Admits::No
        } else if filter.roles.is_empty() && filter.attributes.is_empty() {
            Admits::Yes
        } else {
            Admits::Ask
        }
    }

    pub(super) fn admits_unit(&self, input: usize, unit: UnitIx, day: Date) -> bool {
        self.filter(input).is_some_and(|filter| self.passes(filter, unit, day))
    }

    pub(super) fn passes(&self, filter: &Filter, unit: UnitIx, day: Date) -> bool {
        let org = self.engine.organisation;
        let roles = if filter.roles.is_empty() { Vec::new() } else { org.roles_on(unit, day) };
        let attributes =
            if filter.attributes.is_empty() { Vec::new() } else { org.attributes_on(unit, day) };
        filter.admits(&Facts { kind: org.kind_on(unit, day), roles, attributes })
    }

    /// The last day of some days on which the unit is open.
    pub(super) fn last_open(&self, unit: UnitIx, (first, last): (Date, Date)) -> Option<Date> {
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
    pub(super) fn grain(&self, row: RowOf<'_>, begin: Date) -> Option<PeriodType> {
        let engine = self.engine;
        let days = (begin, self.span.last_day());
        let roster = self.asked.roster(row.scope, row.dims, days);
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
                || self.last_open(unit, days).is_some_and(|day| self.admits_unit(input, unit, day))
        };
        for group in roster.row(&row.key) {
            look(group.kind, &|input, admits, form, line| {
                let span = self.span_asked(input, form);
                let given = self.asked.given(group, form, line, span);
                let mut both = given.asked().iter().zip(&group.units);
                given.any && both.any(|(asked, unit)| *asked > 0 && admitted(input, admits, *unit))
            });
        }
        for wanderer in roster.wanderers_of(&row.key) {
            for stay in wanderer.stays.iter().filter(|stay| stay.keys.contains(&row.key)) {
                look(stay.kind, &|input, admits, form, _| {
                    let here = |day: Date| stay.first <= day && day <= stay.last;
                    let span = self.span_asked(input, form);
                    let got = self.one_by_one(input, wanderer.unit, span, Some(&here));
                    got.asked > 0 && admitted(input, admits, wanderer.unit)
                });
            }
        }
        found
    }

    /// The span for which a form may be asked for an input: the time that it counts, or the form's period
    /// that this ends in.
    fn span_asked(&self, input: usize, form: FormIx) -> Span {
        let own = self.engine.catalogue.forms[form.at()].period_type;
        let (begin, last) = (self.begins[input], self.span.last_day());
        let looks_back = begin < self.span.first_day();
        let counted = looks_back.then(|| span_of_days((begin, last))).flatten();
        let counted = counted.unwrap_or(self.span);
        if counted.parts(own).len() > 0 {
            counted
        } else {
            Span::of(Period::containing(own, self.span.last_day()))
        }
    }

    /// What the units of a group gave to every input; `back`: a year earlier.
    pub(super) fn sources(&self, group: &Group, back: bool) -> Vec<Source> {
        let inputs = self.compiled.inputs.iter().enumerate();
        inputs
            .map(|(at, input)| {
                let admits = self.admits_kind(at, group.kind);
                let homes = match input.element() {
                    Some(element) if admits != Admits::No => {
                        let formulas = self.engine.plans.formulas(self.engine.catalogue);
                        formulas.homes(group.kind, element)
                    }
                    _ => &[],
                };
                let cells = (!homes.is_empty()).then(|| {
                    let grains = self.grains.iter();
                    grains.map(|grain| self.cells(at, group, homes, grain, back)).collect()
                });
                Source { admits, cells }
            })
            .collect()
    }

    pub(super) fn cells(
        &self,
        input: usize,
        group: &Group,
        homes: &[(FormIx, usize)],
        grain: &Grain,
        back: bool,
    ) -> Rc<Given> {
        let span = if back { year_earlier(grain.span) } else { grain.span };
        let one = |(form, line): (FormIx, usize)| match self.over_time(input) {
            Some(OverTime::Latest { carry_months }) => {
                self.asked.standing(group, (form, line), span, carry_months)
            }
            _ => self.asked.given(group, form, line, span),
        };
        let mut first = one(homes[0]);
        // By another form later: together they are what was asked.
        for home in &homes[1..] {
            let more = one(*home);
            if more.any || more.numbers().iter().any(|n| *n > 0) {
                first = Rc::new(Given::joined(&first, &more));
            }
        }
        first
    }

    /// Whether an input counts in a period of the grain.
    pub(super) fn is_active(&self, input: usize, grain: usize) -> bool {
        let grain = &self.grains[grain];
        self.begins[input] <= grain.span.first_day()
            && (grain.inside || self.begins[input] < self.span.first_day())
    }

    /// The newest value of an element asked rarely: the span's own, or one carried from before. It counts as
    /// asked while its form is owed for the period the span ends in, or a value stands.
    pub(super) fn newest(
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
    pub(super) fn ever_homes(&self, input: usize, unit: UnitIx) -> Vec<(FormIx, usize)> {
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

    /// What a unit gave to an input in a period of the grain by whichever form; `counts` tells the days that
    /// count, none all of them.
    pub(super) fn one_by_one(
        &self,
        input: usize,
        unit: UnitIx,
        span: Span,
        counts: Option<&dyn Fn(Date) -> bool>,
    ) -> Got {
        let mut got = Got::default();
        for (form, line) in self.ever_homes(input, unit) {
            if let Some(OverTime::Latest { carry_months }) = self.over_time(input) {
                got.then(self.newest(unit, form, line, span, carry_months));
                continue;
            }
            let Some(slot) = self.asked.slots(form).slot(unit) else { continue };
            for sheet in self.asked.sheets(form, span).iter() {
                got.then(match counts {
                    Some(counts) => self.asked.read_some(sheet, line, unit, counts),
                    // Sheets of a day are not kept: folding one for a single unit is for nothing.
                    None if sheet.bundle.kind() == PeriodType::Day => {
                        self.asked.read_some(sheet, line, unit, |_| true)
                    }
                    None => self.asked.read(sheet, line, slot),
                });
            }
        }
        got
    }

    /// What each input of a unit comes to in a period of the grain; none for one that is not in the formula
    /// there. `back`: a year earlier.
    pub(super) fn pair(
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
                            let cells = source.cells.as_ref();
                            cells.map_or_else(Got::default, |cells| cells[grain].of(at))
                        }
                    }
                }
                _ if !is_admitted(last_open()) => continue,
                (Presence::Wanders(wanderer), _) => {
                    let here = |d: Date| wanderer.kind_in(&self.row, d).is_some();
                    self.one_by_one(input, unit, span, Some(&here))
                }
                _ => self.one_by_one(input, unit, span, None),
            };
            if one.asked > 0 {
                got[input] = Some(one);
            }
        }
    }

    pub(super) fn is_matched(&self, got: &[Option<Got>]) -> bool {
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
    pub(super) fn hold(
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
                    match got.last {
                        Value::Number(n) => held.last = n,
                        // It had a value once, and says that it has none now.
                        Value::NotApplicable => held.last = 0,
                        Value::Missing => {}
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

    pub(super) fn fact(&self, fact: Fact, unit: UnitIx, span: Span) -> u64 {
        let last = span.last_day().min(self.asked.today.plus(-1));
        match fact {
            Fact::WorkingDays => self.asked.working_days(unit, (span.first_day(), last)),
            Fact::Days => {
                u64::try_from((last.days() + 1 - span.first_day().days()).max(0)).unwrap_or(0)
            }
            // The checker lets no other into an indicator.
            _ => 0,
        }
    }

    /// As [`Run::fact`], of the days on which the unit is in the set: its flows are of these days too.
    pub(super) fn fact_here(&self, fact: Fact, wanderer: &Wanderer, span: Span) -> u64 {
        let (first, last) = (span.first_day(), span.last_day().min(self.asked.today.plus(-1)));
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

    /// The values of a unit's inputs over its matched pairs, 0 for what it gave no number of.
    pub(super) fn values(&self, held: &[Held]) -> Vec<Option<Rational>> {
        let of = |(input, held): (usize, &Held)| {
            let stock = self.over_time(input).is_some_and(OverTime::is_stock);
            let mean = matches!(
                &self.compiled.inputs[input],
                Input::Element { over: Some(Over::Mean), .. }
            );
            let sum = i128::try_from(held.sum).unwrap_or(i128::MAX);
            Some(if mean {
                let numbers = i128::from(held.numbers.max(1));
                Rational::new(sum, numbers).unwrap_or(Rational::ZERO)
            } else if stock {
                held.last.into()
            } else {
                Rational::new(sum, 1).unwrap_or(Rational::ZERO)
            })
        };
        held.iter().enumerate().map(of).collect()
    }

    pub(super) fn has_elements(&self) -> bool {
        self.element_inputs().next().is_some()
    }

    pub(super) fn note_cut(&self, outcome: &mut Outcome) {
        let grain = self.grains.first().and_then(|grain| grain.span.single());
        if grain.is_some_and(|grain| self.span.cuts(grain.kind())) {
            outcome.flags.push("partial_days".to_owned());
        }
    }
}

/// The same span a year earlier.
pub(super) fn year_earlier(span: Span) -> Span {
    match span.single() {
        Some(period) => Span::of(period.year_earlier()),
        None => {
            let first = Period::containing(span.kind(), day_a_year_before(span.first_day()));
            let last = Period::containing(span.kind(), day_a_year_before(span.last_day()));
            Span::new(first, last).unwrap_or(span)
        }
    }
}

pub(in crate::query) fn day_a_year_before(day: Date) -> Date {
    let (year, month, of_month) = day.ymd();
    // 29 February becomes the 28th.
    Date::new(year - 1, month, of_month)
        .or_else(|| Date::new(year - 1, month, of_month - 1))
        .unwrap_or(day)
}
