//! The change against the same period a year before.

use std::collections::BTreeMap;

use banyan_shared::catalogue::KindIx;
use banyan_shared::catalogue::expr::Rational;
use banyan_shared::figures::State;
use banyan_shared::figures::indicators::{Pairs, Values};
use banyan_shared::organisation::UnitIx;
use banyan_shared::period::Date;

use super::run::{Admits, Held, Presence, Run, Source, day_a_year_before, year_earlier};
use super::sums::Sums;
use super::{Outcome, RowOf};
use crate::query::sets::Group;
use crate::query::span::days_of;

impl Run<'_, '_> {
    /// Whether units of a group are ever asked what the formula counts.
    fn may_give(&self, group: &Group) -> bool {
        let formulas = self.engine.plans.formulas(self.engine.catalogue);
        let is_home = |input: usize| {
            let element = self.compiled.inputs[input].element();
            self.admits_kind(input, group.kind) != Admits::No
                && element.is_some_and(|e| !formulas.homes(group.kind, e).is_empty())
        };
        !group.changing.is_empty() || self.element_inputs().any(is_home)
    }

    /// The change against the same period a year before. A pair is matched if what is asked of the facility is
    /// answered now and was answered then.
    pub(super) fn growth(&self, row: RowOf<'_>, begin: Date) -> Outcome {
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
            for group in roster.row(&row.key).iter().filter(|group| self.may_give(group)) {
                for (place, unit) in group.units.iter().enumerate() {
                    let presence =
                        if self.compiled.stocks && group.changing.binary_search(&place).is_ok() {
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
        sums.kinds_of_pairs = false;
        let inputs = self.compiled.inputs.len();
        let side = &self.compiled.sides[0];
        let mut totals = [Some(Rational::ZERO), Some(Rational::ZERO)];
        for (unit, presences) in &units {
            let mut held = [vec![Held::default(); inputs], vec![Held::default(); inputs]];
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
                let [now_asked, then_asked] =
                    [0, 1].map(|at: usize| got[at].iter().any(Option::is_some));
                if !now_asked {
                    continue;
                }
                expected += 1;
                // Who was not asked a year earlier has nothing to be compared with.
                if then_asked && self.is_matched(&got[0]) && self.is_matched(&got[1]) {
                    matched += 1;
                    let now = self.grains[grain].span;
                    for (at, span) in [now, year_earlier(now)].into_iter().enumerate() {
                        let presence = presences[at].unwrap_or(Presence::Changed);
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
}
