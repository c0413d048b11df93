//! A unit's roles and attributes as stretches of days: what an agent is told once and keeps.

use std::collections::BTreeSet;

use super::{Days, Organisation, UnitIx};
use crate::catalogue::{AttributeIx, NetworkKindIx, RoleIx};
use crate::period::Date;

impl Organisation {
    /// The roles the unit holds, each with its kind of network and the days it holds it, in the order of
    /// days.
    pub fn role_spells(&self, u: UnitIx) -> Vec<(RoleIx, NetworkKindIx, Days)> {
        let mut cuts = BTreeSet::new();
        let note = |days: Days, cuts: &mut BTreeSet<Date>| {
            cuts.extend(days.from);
            cuts.extend(days.to);
        };
        // Every unit that was ever above it may carry a row.
        let mut above = vec![u];
        let mut next = 0;
        while let Some(at) = above.get(next).copied() {
            for spell in &self.info(at).spells {
                note(spell.days(), &mut cuts);
                above.extend(spell.parent.filter(|parent| !above.contains(parent)));
            }
            for row in self.networks.by_unit.of(at.at()) {
                note(row.days, &mut cuts);
                note(self.network_info(row.network).days, &mut cuts);
            }
            next += 1;
        }
        let mut starts: Vec<Option<Date>> = vec![None];
        starts.extend(cuts.into_iter().map(Some));
        let mut spells: Vec<(RoleIx, NetworkKindIx, Days)> = Vec::new();
        for (at, from) in starts.iter().enumerate() {
            let to = starts.get(at + 1).copied().flatten();
            let sample = from.or(to.map(|to| to.plus(-1))).unwrap_or(Date::MIN);
            for (role, kind) in self.roles_on(u, sample) {
                let open = spells
                    .iter_mut()
                    .find(|(r, k, days)| *r == role && *k == kind && days.to == *from && at > 0);
                match open {
                    Some((_, _, days)) => days.to = to,
                    None => spells.push((role, kind, Days { from: *from, to })),
                }
            }
        }
        spells
    }

    /// The unit's attributes with the days they hold.
    pub fn attribute_spells(&self, u: UnitIx) -> impl Iterator<Item = (AttributeIx, &str, Days)> {
        self.attributes
            .of(u.at())
            .iter()
            .map(|(attribute, value, days)| (*attribute, &**value, *days))
    }
}
