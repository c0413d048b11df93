//! What the units of a row add up to, and what the figure says of itself.

use std::collections::{BTreeMap, BTreeSet};

use banyan_shared::catalogue::expr::Rational;
use banyan_shared::catalogue::{Class, KindIx, OverTime};
use banyan_shared::figures::indicators::{Pairs, Side, Values, indicator_state};
use banyan_shared::organisation::UnitIx;

use super::run::{Held, Presence, Run, Source};
use super::{Outcome, RowOf};
use crate::query::asked::Got;
use crate::query::sets::{Group, Wanderer};
use crate::query::span::days_of;

/// Whether a side is a sum of inputs, each of which may be added over facilities first.
pub(super) fn is_plain(side: &Side) -> bool {
    side.linear.is_some() && !side.mean
}

/// A unit in the formula.
pub(super) struct Member<'r> {
    pub(super) unit: UnitIx,
    /// Set if it is now here, now there.
    pub(super) wanderer: Option<&'r Wanderer>,
    pub(super) kind: KindIx,
    pub(super) expected: u64,
    pub(super) matched: u64,
}

/// The pairs of a group, counted all at once.
pub(super) struct GroupPairs<'r> {
    pub(super) group: &'r Group,
    pub(super) expected: Vec<u32>,
    pub(super) matched: Vec<u32>,
}

/// What the units of a row add up to.
pub(super) struct Sums<'r, 'a, 'e> {
    pub(super) run: &'r Run<'a, 'e>,
    /// The sides; of plain sums only once all is in.
    pub(super) totals: Vec<Option<Rational>>,
    /// Plain sums: by input, whole numbers, which are cheaper than fractions.
    pub(super) whole: Vec<i128>,
    pub(super) kinds: BTreeMap<KindIx, Pairs>,
    pub(super) groups: Vec<GroupPairs<'r>>,
    pub(super) members: Vec<Member<'r>>,
    /// Whether a unit has a pair each grain, of the kind it is of then, and not one for all of the span.
    pub(super) kinds_of_pairs: bool,
    /// The places whose desks are matched.
    pub(super) areas: BTreeSet<UnitIx>,
    got: Vec<Option<Got>>,
    held: Vec<Held>,
}

impl<'r, 'a, 'e> Sums<'r, 'a, 'e> {
    pub(super) fn new(run: &'r Run<'a, 'e>) -> Sums<'r, 'a, 'e> {
        let inputs = run.compiled.inputs.len();
        Sums {
            run,
            totals: vec![Some(Rational::ZERO); run.compiled.sides.len()],
            whole: vec![0; inputs],
            kinds: BTreeMap::new(),
            groups: Vec::new(),
            members: Vec::new(),
            kinds_of_pairs: true,
            areas: BTreeSet::new(),
            got: vec![None; inputs],
            held: vec![Held::default(); inputs],
        }
    }

    pub(super) fn note(
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
    pub(super) fn unit(
        &mut self,
        presence: Presence<'r>,
        sources: Option<&[Source]>,
        unit: UnitIx,
        kind: KindIx,
    ) {
        let run = self.run;
        // A pair is of the kind the unit has in it.
        let mut kinds: BTreeMap<KindIx, Pairs> = BTreeMap::new();
        self.held.fill(Held::default());
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
        let mut fraction: Option<Vec<Option<Rational>>> = None;
        for (total, side) in self.totals.iter_mut().zip(&run.compiled.sides) {
            if is_plain(side) {
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
    pub(super) fn outcome(&mut self, row: RowOf<'_>) -> Outcome {
        let run = self.run;
        for (total, side) in self.totals.iter_mut().zip(&run.compiled.sides) {
            if let Some(linear) = side.linear.as_ref().filter(|_| is_plain(side)) {
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
            let absent = self.kinds_of_pairs.then_some(&*absent);
            (waiting, all) = run.waiting(units.into_iter(), absent);
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
}
