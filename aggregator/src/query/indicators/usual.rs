//! The share of the usual volume that the matched pairs' facilities have.

use banyan_shared::catalogue::OverTime;
use banyan_shared::figures::indicators::Side;
use banyan_shared::organisation::UnitIx;
use banyan_shared::period::{Period, Span};
use banyan_shared::report::Value;

use super::RowOf;
use super::run::{Admits, Grain, Run};
use super::sums::Sums;
use crate::query::sets::Group;
use crate::query::sheet::USUAL_PERIODS;

impl Run<'_, '_> {
    /// What elements of a unit came to in the grain's periods, flows added and stocks too.
    fn volume(&self, elements: &[usize], unit: UnitIx) -> u128 {
        let mut volume = 0;
        for input in elements {
            let stock = self.over_time(*input).is_some_and(OverTime::is_stock);
            for grain in &self.grains {
                let got = self.one_by_one(*input, unit, grain.span, None);
                volume += match got.last {
                    Value::Number(n) if stock => u128::from(n),
                    _ if stock => 0,
                    _ => u128::from(got.sum),
                };
            }
        }
        volume
    }

    /// Adds to each unit of a group what an element came to in the periods before `first`.
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
        let mut add = |more: &[u64]| {
            for (volume, more) in volumes.iter_mut().zip(more) {
                *volume = volume.saturating_add(*more);
            }
        };
        for (form, line) in formulas.homes(group.kind, element) {
            let Some(OverTime::Latest { carry_months }) = self.over_time(input) else {
                add(&self.asked.volumes(group, (*form, *line), first));
                continue;
            };
            for grain in &past.grains {
                let given = self.asked.standing(group, (*form, *line), grain.span, carry_months);
                if let Some(newest) = &given.newest {
                    add(newest.numbers());
                }
            }
        }
    }

    /// The same of a unit alone, that has always been of one kind.
    fn usual_of(&self, input: usize, unit: UnitIx, first: Period, past: &Run<'_, '_>) -> u64 {
        let kind = self.engine.organisation.info(unit).spells[0].kind;
        let Some(element) = self.compiled.inputs[input].element() else { return 0 };
        if self.admits_kind(input, kind) == Admits::No {
            return 0;
        }
        let formulas = self.engine.plans.formulas(self.engine.catalogue);
        let mut volume = 0_u64;
        for (form, line) in formulas.homes(kind, element) {
            let Some(OverTime::Latest { carry_months }) = self.over_time(input) else {
                volume = volume.saturating_add(self.asked.volume(unit, (*form, *line), first));
                continue;
            };
            for grain in &past.grains {
                let got = self.newest(unit, *form, *line, grain.span, carry_months);
                volume = volume.saturating_add(got.last.number().unwrap_or(0));
            }
        }
        volume
    }
}

impl Sums<'_, '_, '_> {
    /// The usual volume of the matched pairs' facilities over that of all: what their elements below the line
    /// came to in the twelve periods before.
    pub(super) fn share_of_usual(&self, sides: &[Side], row: RowOf<'_>) -> Option<f64> {
        let run = self.run;
        let expected: u64 = self.kinds.values().map(|pairs| pairs.expected).sum();
        let matched: u64 = self.kinds.values().map(|pairs| pairs.matched).sum();
        if expected == 0 {
            return None;
        }
        if matched == expected {
            return Some(1.0);
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
            for at in pairs.group.changing.iter().filter(|_| !elements.is_empty()) {
                // Before, other forms asked it.
                let volume = past.volume(&elements, pairs.group.units[*at]);
                volumes[*at] = u64::try_from(volume).unwrap_or(u64::MAX);
            }
            for (at, volume) in volumes.iter().enumerate() {
                over += *volume as f64 * f64::from(pairs.matched[at]);
                under += *volume as f64 * f64::from(pairs.expected[at]);
            }
        }
        for member in &self.members {
            let changes = run.engine.organisation.changes_kind(member.unit);
            let mut volume = if member.wanderer.is_none() && !changes {
                let of = |input: &usize| run.usual_of(*input, member.unit, first, &past);
                elements.iter().map(|input| u128::from(of(input))).sum()
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
