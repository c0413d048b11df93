//! Pairs of whole groups, column by column.

use banyan_shared::catalogue::OverTime;
use banyan_shared::catalogue::expr::{Over, Rational};
use banyan_shared::figures::indicators::Input;
use banyan_shared::organisation::UnitIx;

use super::may_take_groups;
use super::run::{Admits, Run, Source};
use super::sums::{GroupPairs, Sums, is_plain};
use crate::query::given::Given;
use crate::query::sets::Group;

/// How a unit stands in a pair: in the formula; and with a term not answered often enough.
const IN: u8 = 1;
const UNMATCHED: u8 = 2;

/// The sum of the values of those that are kept.
fn kept_sum(values: &[u64], states: &[u8], asked: &[u16]) -> i128 {
    let (mut low, mut high) = (0_u64, 0_u64);
    for ((value, state), asked) in values.iter().zip(states).zip(asked) {
        let value = if *state == IN && *asked > 0 { *value } else { 0 };
        low += value & u64::from(u32::MAX);
        high += value >> 32;
    }
    (i128::from(high) << 32) + i128::from(low)
}

impl Run<'_, '_> {
    fn is_stock(&self, input: usize) -> bool {
        self.over_time(input).is_some_and(OverTime::is_stock)
    }

    fn way(&self, input: usize) -> Option<Over> {
        match &self.compiled.inputs[input] {
            Input::Element { over, .. } => *over,
            _ => None,
        }
    }

    /// Marks the units asked an input in a period of the grain, and those who answered it too seldom.
    fn mark(&self, input: usize, given: &Given, states: &mut [u8]) {
        let pair_min = u32::from(self.definition.pair_min);
        if self.is_stock(input) {
            for ((state, asked), answered) in
                states.iter_mut().zip(given.asked()).zip(given.answered())
            {
                let bad = if *answered == 0 { IN | UNMATCHED } else { IN };
                *state |= if *asked > 0 { bad } else { 0 };
            }
            return;
        }
        // As `figures::indicators::is_matched`, in a width that fits its numbers.
        for ((state, asked), answered) in states.iter_mut().zip(given.asked()).zip(given.answered())
        {
            let short = u32::from(*answered) * 1000 < u32::from(*asked) * pair_min;
            let bad = if short { IN | UNMATCHED } else { IN };
            *state |= if *asked > 0 { bad } else { 0 };
        }
    }
}

impl<'r> Sums<'r, '_, '_> {
    /// Takes the pairs of a whole group in, input by input; false where its units must be looked at one by
    /// one: where a filter asks for roles or attributes, a side is no sum, a stock is to be taken from the
    /// last of several pairs or as the mean of several numbers, or a unit was of another kind before.
    pub(super) fn group(
        &mut self,
        group: &'r Group,
        sources: &[Source],
        by_last_day: bool,
    ) -> bool {
        let run = self.run;
        let means = |input: usize| run.way(input) == Some(Over::Mean);
        let single = |source: &Source| {
            let cells = source.cells.iter().flatten();
            cells.flat_map(|given| given.numbers().iter()).all(|numbers| *numbers <= 1)
        };
        let alike = may_take_groups()
            && run.compiled.sides.iter().all(|side| side.linear.is_some())
            && sources.iter().all(|source| source.admits != Admits::Ask)
            && (run.grains.len() == 1 || !run.element_inputs().any(|input| run.is_stock(input)))
            && run.element_inputs().all(|input| !means(input) || single(&sources[input]))
            && (!by_last_day || group.changing.is_empty());
        if !alike {
            return false;
        }
        let len = group.units.len();
        let (mut expected, mut matched) = (vec![0_u32; len], vec![0_u32; len]);
        let mut states = vec![0_u8; len];
        let mut whole = vec![0_i128; run.compiled.inputs.len()];
        for grain in 0..run.grains.len() {
            states.fill(0);
            let active = || {
                let inputs = run.element_inputs().filter(|input| run.is_active(*input, grain));
                inputs.filter_map(|input| Some((input, &*sources[input].cells.as_ref()?[grain])))
            };
            for (input, given) in active().filter(|(_, given)| given.any) {
                run.mark(input, given, &mut states);
            }
            for ((state, expected), matched) in states.iter().zip(&mut expected).zip(&mut matched) {
                *expected += u32::from(*state & IN);
                *matched += u32::from(*state == IN);
            }
            for (input, given) in active().filter(|(_, given)| given.any) {
                let none = [];
                let values = match (&given.newest, run.way(input)) {
                    (Some(newest), _) if run.is_stock(input) => newest.numbers(),
                    (_, Some(Over::WorkingDays)) => given.working.as_deref().unwrap_or(&none),
                    _ => &given.sum,
                };
                whole[input] += kept_sum(values, &states, given.asked());
            }
            for (input, fact) in run.compiled.inputs.iter().enumerate() {
                let Input::Fact(fact) = fact else { continue };
                let units = states.iter().zip(&group.units).filter(|(state, _)| **state == IN);
                let span = run.grains[grain].span;
                whole[input] +=
                    units.map(|(_, u)| i128::from(run.fact(*fact, *u, span))).sum::<i128>();
            }
        }
        self.add_group(group, &whole, expected, matched);
        true
    }

    /// Takes in what a group's matched pairs come to by input, and how many pairs each unit has.
    pub(super) fn add_group(
        &mut self,
        group: &'r Group,
        whole: &[i128],
        expected: Vec<u32>,
        matched: Vec<u32>,
    ) {
        let run = self.run;
        for (total, more) in self.whole.iter_mut().zip(whole) {
            *total += more;
        }
        for (total, side) in self.totals.iter_mut().zip(&run.compiled.sides) {
            let Some(linear) = side.linear.as_ref().filter(|_| !is_plain(side)) else { continue };
            for (factor, input) in &linear.0 {
                let more = whole[*input].checked_mul(*factor).and_then(|n| Rational::new(n, 1));
                *total = total.zip(more).and_then(|(total, more)| total.plus(more));
            }
        }
        let all = |list: &[u32]| list.iter().map(|n| u64::from(*n)).sum::<u64>();
        let pairs = self.kinds.entry(group.kind).or_default();
        pairs.expected += all(&expected);
        pairs.matched += all(&matched);
        if run.compiled.area {
            let day = run.span.last_day();
            let units = group.units.iter().zip(&matched).filter(|(_, matched)| **matched > 0);
            let parent = |unit: &UnitIx| run.engine.organisation.parent_on(*unit, day);
            self.areas.extend(units.filter_map(|(unit, _)| parent(unit)));
        }
        self.groups.push(GroupPairs { group, expected, matched });
    }
}
