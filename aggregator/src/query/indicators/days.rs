//! Pairs whose grain is a day, a month of days at a time.
//!
//! Which days of a month a line was asked and answered on is kept as bits, so the pairs of a month are a few
//! operations on them; a month's sum is taken whole unless a day with a number is in no matched pair.

use banyan_shared::catalogue::expr::{Fact, Over};
use banyan_shared::catalogue::{FormIx, OverTime};
use banyan_shared::figures::indicators::Input;
use banyan_shared::organisation::UnitIx;
use banyan_shared::period::{Date, Period, PeriodType, Span};
use banyan_shared::report::Value;

use super::may_take_groups;
use super::run::{Admits, Run};
use super::sums::{Sums, is_plain};
use crate::query::sets::Group;
use crate::query::sheet::{CHUNK, Sheet, works_on};

/// An input of a group's units: the form and line by which they are asked it, and the first day it counts.
struct Term {
    input: usize,
    form: FormIx,
    line: usize,
    begins: Date,
    on_working_days: bool,
}

/// A unit's days of a bundle in one line, and where its numbers are found.
#[derive(Clone, Copy, Default)]
struct Days {
    asked: u32,
    numbers: u32,
    answered: u32,
    chunk: usize,
    place: usize,
}

impl Run<'_, '_> {
    /// What the formula counts of a group, if its grain is a day and all of it is added up over days and
    /// facilities.
    fn terms_by_day(&self, group: &Group) -> Option<Vec<Term>> {
        let grain = self.grains.first()?.span.single()?;
        if !may_take_groups()
            || self.grains.len() == 1
            || grain.kind() != PeriodType::Day
            || !self.compiled.sides.iter().all(is_plain)
        {
            return None;
        }
        let formulas = self.engine.plans.formulas(self.engine.catalogue);
        let mut terms = Vec::new();
        for input in self.element_inputs() {
            let Input::Element { element, over, .. } = &self.compiled.inputs[input] else {
                continue;
            };
            let (form, line) =
                match (self.admits_kind(input, group.kind), formulas.homes(group.kind, *element)) {
                    (Admits::No, _) | (_, []) => continue,
                    (Admits::Yes, [home]) => *home,
                    _ => return None,
                };
            let daily = self.engine.catalogue.forms[form.at()].period_type == PeriodType::Day;
            if !daily || self.over_time(input).is_some_and(OverTime::is_stock) {
                return None;
            }
            let on_working_days = *over == Some(Over::WorkingDays);
            terms.push(Term { input, form, line, begins: self.begins[input], on_working_days });
        }
        Some(terms)
    }

    /// The days of a group's units in one line of a sheet; `none` where a unit has no slot.
    fn days_of(&self, group: &Group, term: &Term, sheet: &Sheet) -> Vec<Days> {
        let mut out = vec![Days::default(); group.units.len()];
        let counts = |period: &Period| period.first_day() >= term.begins;
        let mut active = 0_u32;
        for (at, period) in sheet.periods.iter().enumerate() {
            active |= u32::from(counts(period)) << at;
        }
        for run in self.asked.runs(group, term.form).iter() {
            let line = &sheet.lines(self.engine, self.asked.when, run.chunk)[term.line];
            for (n, days) in out[run.at..run.at + run.len].iter_mut().enumerate() {
                let place = run.place + n;
                (days.chunk, days.place) = (run.chunk, place);
                days.asked = match &line.asked_in {
                    Some(bits) => bits[place],
                    None => u32::from(line.asked[place]),
                };
                days.asked &= active;
                let Some(given) = &line.given else { continue };
                match &given.which {
                    Some(which) => {
                        days.numbers = which.numbers[place] & active;
                        days.answered = days.numbers | which.not_applicable[place] & active;
                    }
                    None => {
                        days.numbers = u32::from(given.numbers[place]) & active;
                        days.answered = u32::from(given.answered[place]) & active;
                    }
                }
            }
        }
        out
    }

    /// The sum of a unit's numbers on the days of `taken`.
    fn sum_of(&self, term: &Term, sheet: &Sheet, unit: UnitIx, days: Days, taken: u32) -> i128 {
        let line = &sheet.lines(self.engine, self.asked.when, days.chunk)[term.line];
        let Some(given) = &line.given else { return 0 };
        if days.numbers & !taken == 0 && self.is_whole(term, sheet) {
            return i128::from(match (&given.working, term.on_working_days) {
                (_, false) => given.sum.at(days.place),
                (working, true) => working.as_ref().map_or(0, |w| w.at(days.place)),
            });
        }
        let column = self.engine.column(
            sheet.form,
            self.engine.catalogue.forms[sheet.form.at()].lines[term.line].element,
        );
        let slot = (days.chunk * CHUNK + days.place) as crate::cube::Slot;
        let mut sum = 0;
        for (at, period) in sheet.periods.iter().enumerate() {
            if taken & days.numbers & (1 << at) == 0
                || term.on_working_days && !works_on(self.engine, unit, *period)
            {
                continue;
            }
            let block = self.engine.block(sheet.form, *period, self.asked.when.past);
            if let (Some(block), Some(column)) = (block, column)
                && let Value::Number(n) = block.value(column, slot)
            {
                sum += i128::from(n);
            }
        }
        sum
    }

    /// Whether a term counts every day of a sheet.
    fn is_whole(&self, term: &Term, sheet: &Sheet) -> bool {
        sheet.periods.first().is_none_or(|period| period.first_day() >= term.begins)
    }

    /// A quantity of a unit's calendar on the days of `matched`.
    fn fact_on(&self, fact: Fact, unit: UnitIx, sheet: &Sheet, matched: u32) -> i128 {
        let (mut taken, mut left) = (0, 0);
        for (at, period) in sheet.periods.iter().enumerate() {
            if period.last_day() < self.asked.today {
                let bit = 1 << at;
                taken |= matched & bit;
                left |= !matched & bit;
            }
        }
        let each = |bits: u32| -> i128 {
            let days = sheet.periods.iter().enumerate().filter(|(at, _)| bits & (1 << at) != 0);
            days.map(|(_, day)| i128::from(self.fact(fact, unit, Span::of(*day)))).sum()
        };
        if fact == Fact::Days {
            return i128::from(taken.count_ones());
        }
        // Most months are matched but for a few days.
        if taken.count_ones() <= left.count_ones() {
            return each(taken);
        }
        i128::from(self.fact(fact, unit, Span::of(sheet.bundle))) - each(left)
    }
}

impl<'r> Sums<'r, '_, '_> {
    /// Takes the pairs of a whole group in, if the grain is a day and all that the formula counts of the group
    /// is added up over days and facilities; whether it is.
    pub(super) fn days(&mut self, group: &'r Group) -> bool {
        let run = self.run;
        let Some(terms) = run.terms_by_day(group) else { return false };
        let Some(first) = terms.first() else { return true };
        let (Some(from), Some(to)) = (run.grains.first(), run.grains.last()) else { return false };
        let ends = (Period::day(from.span.first_day()), Period::day(to.span.last_day()));
        let Some(span) = Span::new(ends.0, ends.1) else { return false };
        let len = group.units.len();
        let (mut expected, mut matched) = (vec![0_u32; len], vec![0_u32; len]);
        let mut whole = vec![0_i128; run.compiled.inputs.len()];
        // Every answer makes a pair of a single day; with a least share of 0 every day does.
        let always = run.definition.pair_min == 0;
        for bundle in 0..run.asked.sheets(first.form, span).len() {
            let sheets: Vec<_> = terms
                .iter()
                .map(|term| run.asked.sheets(term.form, span)[bundle].clone())
                .collect();
            let days: Vec<Vec<Days>> = terms
                .iter()
                .zip(&sheets)
                .map(|(term, sheet)| run.days_of(group, term, sheet))
                .collect();
            for (at, unit) in group.units.iter().enumerate() {
                let (mut inside, mut bad) = (0, 0);
                for days in days.iter().map(|days| days[at]) {
                    inside |= days.asked;
                    bad |= days.asked & !days.answered;
                }
                let good = if always { inside } else { inside & !bad };
                expected[at] += inside.count_ones();
                matched[at] += good.count_ones();
                if good == 0 {
                    continue;
                }
                for ((term, sheet), days) in terms.iter().zip(&sheets).zip(&days) {
                    let taken = good & days[at].asked;
                    if taken != 0 {
                        whole[term.input] += run.sum_of(term, sheet, *unit, days[at], taken);
                    }
                }
                for (input, fact) in run.compiled.inputs.iter().enumerate() {
                    if let Input::Fact(fact) = fact {
                        whole[input] += run.fact_on(*fact, *unit, &sheets[0], good);
                    }
                }
            }
        }
        self.add_group(group, &whole, expected, matched);
        true
    }
}
