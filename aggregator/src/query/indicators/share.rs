//! The share of facilities whose values meet a condition.

use banyan_shared::catalogue::expr::condition;
use banyan_shared::catalogue::{Filter, OverTime};
use banyan_shared::figures::State;
use banyan_shared::figures::indicators::{Pairs, Values};

use super::run::{Held, Presence, Run};
use super::sums::Sums;
use super::{Outcome, RowOf};
use crate::query::asked::Got;

impl Run<'_, '_> {
    /// Whether what was answered leaves an input with a number: a stock's last answer may be that it has none.
    fn has_number(&self, input: usize, got: &Got) -> bool {
        if self.over_time(input).is_some_and(OverTime::is_stock) {
            got.last.number().is_some()
        } else {
            got.numbers > 0
        }
    }

    /// The share of facilities whose values meet a condition. The set is that of the last day, each facility
    /// once; its flows are added up and its stocks are the newest.
    pub(super) fn share(&self, row: RowOf<'_>, of: &Filter) -> Outcome {
        let last = self.span.last_day();
        let roster = self.asked.roster(row.scope, row.dims, (last, last));
        let mut sums = Sums::new(self);
        sums.kinds_of_pairs = false;
        let mut met = 0_u64;
        let meets = &self.compiled.sides[0];
        let inputs = self.compiled.inputs.len();
        let (mut whole, mut got): (Vec<Option<Got>>, Vec<Option<Got>>) =
            (vec![None; inputs], vec![None; inputs]);
        let mut held = vec![Held::default(); inputs];
        for group in roster.row(&row.key) {
            if !of.kinds.is_empty() && !of.kinds.contains(&group.kind) {
                continue;
            }
            let sources = self.sources(group, false);
            if group.changing.is_empty() && sources.iter().all(|source| source.cells.is_none()) {
                continue;
            }
            let needs_facts = !of.roles.is_empty() || !of.attributes.is_empty();
            for (at, unit) in group.units.iter().enumerate() {
                // The group's kind passes.
                if needs_facts && !self.passes(of, *unit, last) {
                    continue;
                }
                let presence = if group.changing.binary_search(&at).is_ok() {
                    Presence::Changed
                } else {
                    Presence::Steady(group, at)
                };
                whole.fill(None);
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
                    held.fill(Held::default());
                    self.hold(presence, &whole, *unit, self.span, &mut held);
                    let mut values = self.values(&held);
                    for input in self.element_inputs() {
                        if !whole[input].is_some_and(|got| self.has_number(input, &got)) {
                            // A condition on what is not there does not hold.
                            values[input] = None;
                        }
                    }
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
}
