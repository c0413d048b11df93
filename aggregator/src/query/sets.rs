//! F4: which facilities a question is about, and how they are divided into rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use banyan_shared::catalogue::{KindIx, NetworkKindIx, RoleIx};
use banyan_shared::organisation::{NetworkIx, UnitIx};
use banyan_shared::period::{Date, Period};

use super::Engine;
use super::request::{Dims, UnitDim};

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

/// The units of one kind in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// Their kind, all the time.
    pub(super) kind: KindIx,
    /// They, in administrative order.
    pub(super) units: Vec<UnitIx>,
    /// The places of those that are of another kind at another time.
    pub(super) changing: Vec<usize>,
}

/// Days on which a unit has one kind and is in the same rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stay {
    /// First day.
    pub(super) first: Date,
    /// Last day.
    pub(super) last: Date,
    /// Its kind.
    pub(super) kind: KindIx,
    /// The rows it is in, in order.
    pub(super) keys: Vec<Key>,
}

/// A unit that is not in the same rows, or not of the same kind, on all days it is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanderer {
    /// The unit.
    pub(super) unit: UnitIx,
    /// Where it is when; days it is in no row are left out.
    pub(super) stays: Vec<Stay>,
}

impl Wanderer {
    /// Its kind on `day`, if it is in the row then.
    pub(super) fn kind_in(&self, key: &Key, day: Date) -> Option<KindIx> {
        let stay = self.stays.iter().find(|stay| stay.first <= day && day <= stay.last)?;
        stay.keys.contains(key).then_some(stay.kind)
    }
}

/// Who is in which row over a stretch of days: those who stay where they are, and the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Roster {
    /// Units that are in one and the same row, of one kind, on every day they are open.
    pub(super) rows: BTreeMap<Key, Vec<Group>>,
    /// The others, in administrative order.
    pub(super) wanderers: Vec<Wanderer>,
}

impl Roster {
    /// What it takes in memory, more or less.
    pub(super) fn bytes(&self) -> usize {
        let groups = self.rows.values().flatten();
        let steady: usize =
            groups.map(|group| size_of::<Group>() + size_of_val(&group.units[..])).sum();
        let stays = self.wanderers.iter().flat_map(|wanderer| &wanderer.stays);
        let wandering: usize =
            stays.map(|stay| size_of_val(stay) + stay.keys.len() * size_of::<Key>()).sum();
        self.rows.len() * size_of::<(Key, Vec<Group>)>()
            + steady
            + self.wanderers.len() * size_of::<Wanderer>()
            + wandering
    }

    /// The steady units of a row.
    pub(super) fn row(&self, key: &Key) -> &[Group] {
        self.rows.get(key).map_or(&[], Vec::as_slice)
    }

    /// The others that are ever in the row.
    pub(super) fn wanderers_of<'r>(&'r self, key: &'r Key) -> impl Iterator<Item = &'r Wanderer> {
        let ever = move |w: &&Wanderer| w.stays.iter().any(|stay| stay.keys.contains(key));
        self.wanderers.iter().filter(ever)
    }

    /// Every row.
    pub(super) fn keys(&self) -> BTreeSet<Key> {
        let stays = self.wanderers.iter().flat_map(|w| &w.stays);
        self.rows.keys().copied().chain(stays.flat_map(|stay| stay.keys.iter().copied())).collect()
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

/// What a roster depends on: the days only as far as the map changes between them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RosterKey {
    scope: Scope,
    dims: Dims,
    map: Option<Date>,
    /// The number of the map on the first and on the last day.
    maps: (usize, usize),
    /// The first day, if the map changes: days before the first change may be left out of it.
    days: Option<(Date, Date)>,
}

impl Engine<'_> {
    /// Who is in which row from `first` to `last`: each unit where it stands on each day, or on the map of
    /// a day.
    pub(super) fn roster(
        &self,
        scope: Scope,
        dims: &Dims,
        map: Option<Date>,
        (first, last): (Date, Date),
    ) -> Arc<Roster> {
        let org = self.organisation;
        let dims = Dims { period: None, ..dims.clone() };
        let maps = (org.map_number(first), org.map_number(last));
        let days = (maps.0 != maps.1).then_some((first, last));
        let key = RosterKey { scope, dims: dims.clone(), map, maps, days };
        self.plans.roster(key, || {
            let mut stretches = Vec::new();
            let mut from = first;
            for change in org.changes_in(first, last) {
                stretches.push((from, change.plus(-1)));
                from = *change;
            }
            stretches.push((from, last));
            let mut stays: BTreeMap<UnitIx, Vec<Stay>> = BTreeMap::new();
            for (from, to) in &stretches {
                let day = Period::day(*to);
                self.divide(scope, &dims, map, day, &mut |at, key| {
                    let list = stays.entry(at.unit).or_default();
                    match list.last_mut() {
                        Some(stay) if stay.last == *to => {
                            if let Err(place) = stay.keys.binary_search(&key) {
                                stay.keys.insert(place, key);
                            }
                        }
                        _ => {
                            let kind = org.kind_on(at.unit, *to);
                            list.push(Stay { first: *from, last: *to, kind, keys: vec![key] });
                        }
                    }
                });
            }
            let mut roster = Roster::default();
            let mut groups: BTreeMap<(Key, KindIx), Vec<UnitIx>> = BTreeMap::new();
            for (unit, stays) in stays {
                // Open and in no row is a place of its own; closed is none.
                let open = stretches.iter().filter(|(_, to)| org.is_open(unit, *to)).count();
                let same = |stay: &Stay| stay.keys == stays[0].keys && stay.kind == stays[0].kind;
                if stays.len() == open && stays.iter().all(same) {
                    for key in &stays[0].keys {
                        groups.entry((*key, stays[0].kind)).or_default().push(unit);
                    }
                } else {
                    roster.wanderers.push(Wanderer { unit, stays });
                }
            }
            for ((key, kind), units) in groups {
                let changes = |at: &usize| org.changes_kind(units[*at]);
                let changing = (0..units.len()).filter(changes).collect();
                roster.rows.entry(key).or_default().push(Group { kind, units, changing });
            }
            roster
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
