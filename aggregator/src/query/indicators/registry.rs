//! Shares of the registry: units open on the last day that meet a condition, of those that pass a filter.

use banyan_shared::catalogue::indicator::Definition;
use banyan_shared::catalogue::{Class, Filter};
use banyan_shared::figures::State;
use banyan_shared::figures::indicators::Pairs;
use banyan_shared::organisation::UnitIx;
use banyan_shared::period::Date;

use super::{Outcome, RowOf};
use crate::query::Engine;
use crate::query::asked::Asked;
use crate::query::sets::{Key, Scope};

impl Engine<'_> {
    /// The share of units open on the last day that pass `of` and also `meets`.
    pub(super) fn registry_share(
        &self,
        asked: &Asked<'_>,
        row: RowOf<'_>,
        last: Date,
        definition: &Definition,
        (of, meets): (&Filter, &Filter),
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
            let ever = of.kinds.iter().flat_map(|kind| self.plans.ever_of_kind(org, *kind));
            units.extend(ever.filter(|unit| {
                of.kinds.contains(&org.kind_on(**unit, last))
                    && org.is_open(**unit, last)
                    && org.is_below(**unit, area, day)
            }));
            units.sort_unstable();
            units.dedup();
        } else {
            let roster = asked.roster(row.scope, row.dims, (last, last));
            let admitted = |kind| of.kinds.is_empty() || of.kinds.contains(kind);
            let groups = roster.row(&row.key).iter().filter(|group| admitted(&group.kind));
            units.extend(groups.flat_map(|group| &group.units));
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
