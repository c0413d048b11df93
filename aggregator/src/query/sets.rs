//! F4: which facilities a question is about, and how they are divided into rows.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use banyan_shared::catalogue::{FormIx, KindIx, NetworkKindIx, RoleIx};
use banyan_shared::organisation::{NetworkIx, UnitIx};
use banyan_shared::period::{Date, Period};

use super::Engine;
use super::request::{Dims, UnitDim};
use crate::cube::Slot;

/// Whose figures are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Scope {
    /// A unit and what is below it.
    Unit(UnitIx),
    /// A network's members.
    Network(NetworkIx),
    /// The administrative area of a network.
    Area(NetworkIx),
}

/// Which row a facility belongs to; a part not asked for is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) network: Option<NetworkIx>,
    pub(super) unit: Option<UnitIx>,
    /// The unit's own facilities: those below it and below no place of the kind asked for.
    pub(super) own: bool,
    pub(super) kind: Option<KindIx>,
    pub(super) role: Option<RoleIx>,
}

/// The slots of one row and kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) key: Key,
    pub(super) kind: KindIx,
    pub(super) ranges: Vec<Range<Slot>>,
}

/// The slots of a form divided into rows, in order of row and kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts(pub(super) Vec<Part>);

impl Parts {
    /// The parts of one row.
    pub(super) fn of(&self, key: &Key) -> &[Part] {
        let from = self.0.partition_point(|part| part.key < *key);
        let to = from + self.0[from..].partition_point(|part| part.key == *key);
        &self.0[from..to]
    }

    /// Every row, once.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        let mut last = None;
        self.0.iter().filter_map(move |part| {
            let new = last != Some(part.key);
            last = Some(part.key);
            new.then_some(part.key)
        })
    }
}

/// A unit of the set and where it stands on the map: what it stands for, on which day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Located {
    /// The facility or desk.
    pub(super) unit: UnitIx,
    /// The unit whose place on the map it takes: itself, or the one that followed it.
    pub(super) stands_at: UnitIx,
    /// The day whose map it is.
    pub(super) map_day: Date,
    /// Its duty day in the period: its kind is that of this day.
    pub(super) duty_day: Date,
}

/// What a division depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PartsKey {
    pub(super) scope: Scope,
    pub(super) dims: Dims,
    pub(super) map: Option<Date>,
    pub(super) form: FormIx,
    pub(super) period: Period,
}

impl Engine<'_> {
    /// The slots of `form` in the set, divided into rows; the set is that of `period`: each unit where it
    /// stood on its duty day, or on the map of a day.
    pub(super) fn parts(
        &self,
        scope: Scope,
        dims: &Dims,
        map: Option<Date>,
        form: FormIx,
        period: Period,
    ) -> Arc<Parts> {
        let slots = self.plans.map(self.catalogue, self.organisation, self.cube, form);
        let dims = Dims { period: None, ..dims.clone() };
        let key = PartsKey { scope, dims: dims.clone(), map, form, period };
        self.plans.parts(key, || {
            let mut rows: BTreeMap<(Key, KindIx), Vec<Slot>> = BTreeMap::new();
            self.divide(scope, &dims, map, period, &mut |at, key| {
                if let Some(slot) = slots.slot(at.unit) {
                    let kind = self.organisation.kind_on(at.unit, at.duty_day);
                    rows.entry((key, kind)).or_default().push(slot);
                }
            });
            let part = |((key, kind), mut list): ((Key, KindIx), Vec<Slot>)| {
                list.sort_unstable();
                list.dedup();
                Part { key, kind, ranges: ranges(&list) }
            };
            Parts(rows.into_iter().map(part).collect())
        })
    }

    /// Calls `each` for every unit of the set and every row it belongs to.
    fn divide(
        &self,
        scope: Scope,
        dims: &Dims,
        map: Option<Date>,
        period: Period,
        each: &mut impl FnMut(&Located, Key),
    ) {
        // Groups are whole, with their members outside the area: the reconciliation leads from their sum
        // to the area's total.
        if let (Scope::Unit(area), true, None, Some(kind)) =
            (scope, dims.network, dims.unit, dims.network_kind)
        {
            for network in self.networks_touching(area, kind, map, period) {
                for at in self.members(Scope::Network(network), map, period) {
                    self.keys_in(network, dims, &at, &mut |key| each(&at, key));
                }
            }
            return;
        }
        for at in self.members(scope, map, period) {
            self.keys(scope, dims, &at, &mut |key| each(&at, key));
        }
    }

    /// The units of the set that have a duty day in `period`, in administrative order.
    pub(super) fn members(&self, scope: Scope, map: Option<Date>, period: Period) -> Vec<Located> {
        let org = self.organisation;
        let Some(date) = map else {
            let mut list = match scope {
                Scope::Unit(unit) => org.facilities_below_in(unit, period),
                Scope::Network(network) => org.facilities_in_during(network, period),
                Scope::Area(network) => {
                    let area = org.network_info(network).area.iter();
                    area.flat_map(|unit| org.facilities_below_in(*unit, period)).collect()
                }
            };
            list.sort_unstable();
            list.dedup();
            let here = |(unit, day)| Located { unit, stands_at: unit, map_day: day, duty_day: day };
            return list.into_iter().map(here).collect();
        };
        let placed = self.plans.located(scope, date, || self.placed(scope, date));
        placed
            .iter()
            .filter_map(|at| Some(Located { duty_day: org.duty_day(at.unit, period)?, ..*at }))
            .collect()
    }

    /// Everyone who ever reported and stands in the scope on the map of `date`. A closed unit takes the
    /// place of the one that followed it; without one it keeps its last place, so that no total loses it.
    fn placed(&self, scope: Scope, date: Date) -> Vec<Located> {
        let org = self.organisation;
        let mut list = Vec::new();
        for unit in org.reporters() {
            let stands_at = org.successor_on(*unit, date).unwrap_or(*unit);
            let inside = match scope {
                Scope::Unit(area) => org.is_below(stands_at, area, date),
                Scope::Network(network) => {
                    let kind = org.network_info(network).kind;
                    org.memberships_on(stands_at, date, Some(kind))
                        .iter()
                        .any(|(n, _)| *n == network)
                }
                Scope::Area(network) => {
                    let area = &org.network_info(network).area;
                    area.iter().any(|unit| org.is_below(stands_at, *unit, date))
                }
            };
            if inside {
                list.push(Located { unit: *unit, stands_at, map_day: date, duty_day: date });
            }
        }
        list
    }

    /// The networks of a kind with a member in the area in `period`, or serving a part of it.
    pub(super) fn networks_touching(
        &self,
        area: UnitIx,
        kind: NetworkKindIx,
        map: Option<Date>,
        period: Period,
    ) -> Vec<NetworkIx> {
        let org = self.organisation;
        let day = map.unwrap_or(period.last_day());
        let mut found: Vec<NetworkIx> = org
            .networks_of_kind_on(kind, day)
            .into_iter()
            .filter(|n| org.network_info(*n).area.iter().any(|unit| org.is_below(*unit, area, day)))
            .collect();
        for at in self.members(Scope::Unit(area), map, period) {
            found.extend(org.networks_of(at.stands_at, at.map_day, Some(kind)));
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The rows of a member of `network`, where the rows are networks.
    fn keys_in(&self, network: NetworkIx, dims: &Dims, at: &Located, each: &mut impl FnMut(Key)) {
        let org = self.organisation;
        let kind = dims.kind.then(|| org.kind_on(at.unit, at.duty_day));
        let key = Key { network: Some(network), kind, ..Key::default() };
        if !dims.role {
            each(key);
            return;
        }
        let of_kind = Some(org.network_info(network).kind);
        for (n, roles) in org.memberships_on(at.stands_at, at.map_day, of_kind) {
            if n == network {
                roles.iter().for_each(|role| each(Key { role: Some(role), ..key }));
            }
        }
    }

    /// The rows of a unit.
    fn keys(&self, scope: Scope, dims: &Dims, at: &Located, each: &mut impl FnMut(Key)) {
        let org = self.organisation;
        let mut key =
            Key { kind: dims.kind.then(|| org.kind_on(at.unit, at.duty_day)), ..Key::default() };
        match dims.unit {
            None => {}
            Some(UnitDim::Facility) => key.unit = Some(at.stands_at),
            Some(UnitDim::Children) => {
                let above = |unit: UnitIx| org.parent_on(unit, at.map_day);
                let child = |unit: &UnitIx| match scope {
                    Scope::Unit(area) => above(*unit) == Some(area),
                    Scope::Network(n) | Scope::Area(n) => above(*unit)
                        .is_some_and(|parent| org.network_info(n).area.contains(&parent)),
                };
                key.unit =
                    Some(org.upwards(at.stands_at, at.map_day).find(child).unwrap_or(at.stands_at));
            }
            Some(UnitDim::Kind(kind)) => match org.ancestor_of_kind(at.stands_at, kind, at.map_day)
            {
                Some(unit) => key.unit = Some(unit),
                None => {
                    key.own = true;
                    if let Scope::Unit(area) = scope {
                        key.unit = Some(area);
                    }
                }
            },
        }
        if !dims.network && !dims.role {
            each(key);
            return;
        }
        let own_network = match scope {
            Scope::Network(n) if !dims.network => Some(n),
            _ => None,
        };
        let kind = own_network.map(|n| org.network_info(n).kind).or(dims.network_kind);
        let mut seen = Vec::new();
        for (network, roles) in org.memberships_on(at.stands_at, at.map_day, kind) {
            if own_network.is_some_and(|own| own != network) {
                continue;
            }
            let key = Key { network: dims.network.then_some(network), ..key };
            if !dims.role {
                each(key);
                continue;
            }
            for role in roles.iter() {
                let key = Key { role: Some(role), ..key };
                if !seen.contains(&key) {
                    seen.push(key);
                    each(key);
                }
            }
        }
    }
}

/// Sorted slots as ranges.
pub(super) fn ranges(slots: &[Slot]) -> Vec<Range<Slot>> {
    let mut out: Vec<Range<Slot>> = Vec::new();
    for &slot in slots {
        match out.last_mut() {
            Some(range) if range.end == slot => range.end += 1,
            _ => out.push(slot..slot + 1),
        }
    }
    out
}
