//! Ratios and counts.

use std::collections::BTreeSet;

use banyan_shared::catalogue::Class;
use banyan_shared::catalogue::expr::Rational;
use banyan_shared::figures::State;
use banyan_shared::figures::indicators::{Input, Side};
use banyan_shared::organisation::UnitIx;
use banyan_shared::period::Date;

use super::run::{Presence, Run};
use super::sums::Sums;
use super::{Outcome, RowOf};

/// What tells a facility's usual share: the denominator, or a count itself.
fn sides_weighed(sides: &[Side]) -> &[Side] {
    if sides.len() > 1 { &sides[1..2] } else { &sides[..1] }
}

impl Run<'_, '_> {
    /// Ratios and counts.
    pub(super) fn ratio(&self, row: RowOf<'_>, begin: Date) -> Outcome {
        let last = self.span.last_day();
        let by_last_day = self.compiled.stocks;
        let days = if by_last_day { (last, last) } else { (begin, last) };
        let roster = self.asked.roster(row.scope, row.dims, days);
        let mut sums = Sums::new(self);
        for group in roster.row(&row.key) {
            if sums.days(group) {
                continue;
            }
            let sources = self.sources(group, false);
            if self.has_elements() && sources.iter().all(|source| source.cells.is_none()) {
                continue;
            }
            if sums.group(group, &sources, by_last_day) {
                continue;
            }
            for (at, unit) in group.units.iter().enumerate() {
                let presence = if by_last_day && group.changing.binary_search(&at).is_ok() {
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
                let admitted = |kind| filter.kinds.is_empty() || filter.kinds.contains(kind);
                let groups = roster.row(&row.key).iter().filter(|group| admitted(&group.kind));
                let plain = filter.roles.is_empty() && filter.attributes.is_empty();
                let counted = groups.flat_map(|group| &group.units).filter(|unit| {
                    org.class(**unit) == Class::Facility
                        && (plain || self.passes(filter, **unit, last))
                        && (!self.compiled.area
                            || org.upwards(**unit, last).any(|at| areas.contains(&at)))
                });
                Some(counted.count() as u64)
            })
            .collect()
    }
}
