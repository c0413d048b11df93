//! The organisation model: who exists, under whom, in which networks, on which day.
//!
//! An [`Organisation`] in memory has passed the whole check: every reference resolves, no unit is above
//! itself on any day, no unit has two names, kinds or parents on one day, no facility is in two networks
//! of an exclusive kind. Everything takes a date, so that "as it was then", "today's map" and any other
//! day's map are the same question. It is a value: built from [`Tables`] under one [`Catalogue`], never
//! changed; a change of either is a new value. Counts, deadlines and what a form asks are left to others.
//!
//! Indices ([`UnitIx`], [`NetworkIx`]) hold for one `Organisation` only; codes are what lasts. `UnitIx` runs
//! in *administrative order*: a unit before what is below it, brothers by code, on the newest map.

use std::collections::HashMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::catalogue::{AttributeIx, Catalogue, Class, Facts, KindIx, Lang, NetworkKindIx, RoleIx};
use crate::ids::{NetworkCode, UnitCode};
use crate::period::{Date, Period};
use crate::tables::registry::Status;
use crate::tables::{RowError, Tables};

mod build;
mod duties;
mod lookup;
mod networks;
mod spells;
mod targets;

pub use duties::Extension;
pub use lookup::{Candidate, FIND_CANDIDATES_MAX, Found, Lookup};
pub use networks::{Member, Network, RoleSet};
pub use targets::{Target, TargetOf};

/// Most units in one organisation.
pub const UNITS_MAX: usize = crate::tables::ROWS_MAX;
/// Most levels from the top of the tree to a facility.
pub const DEPTH_MAX: usize = 32;
/// Most roles a catalogue may name.
pub const ROLES_MAX: usize = 64;

/// A unit, by its place in administrative order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnitIx(pub u32);

impl UnitIx {
    /// As an index into a list of all units.
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// A network, by its place in the order of codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NetworkIx(pub u32);

impl NetworkIx {
    /// As an index into a list of all networks.
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// Days from `from` to the day before `to`; an end that is not given is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Days {
    /// First day; none = always.
    pub from: Option<Date>,
    /// First day no longer in it; none = for ever.
    pub to: Option<Date>,
}

impl Days {
    /// Whether `date` is one of the days.
    pub fn has(self, date: Date) -> bool {
        self.from.is_none_or(|from| from <= date) && self.to.is_none_or(|to| date < to)
    }

    /// Whether the two share a day.
    pub fn meets(self, other: Days) -> bool {
        let before =
            |a: Days, b: Days| matches!((a.to, b.from), (Some(to), Some(from)) if to <= from);
        !before(self, other) && !before(other, self)
    }

    /// The last of the days that lies in `period`.
    pub fn last_in(self, period: Period) -> Option<Date> {
        let last = self.to.map_or(period.last_day(), |to| to.plus(-1).min(period.last_day()));
        (period.first_day() <= last && self.from.is_none_or(|from| from <= last)).then_some(last)
    }
}

/// A stretch of days on which a unit has one name, kind and parent. Adjoining ones are one opening.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spell {
    /// First day; none = always.
    pub from: Option<Date>,
    /// First day no longer in force; none = still.
    pub to: Option<Date>,
    /// Its name.
    pub name: Box<str>,
    /// Its English name; may be empty.
    pub name_en: Box<str>,
    /// Its kind.
    pub kind: KindIx,
    /// The unit above it.
    pub parent: Option<UnitIx>,
    /// Whether it works or is planned.
    pub status: Status,
}

impl Spell {
    /// Its days.
    pub fn days(&self) -> Days {
        Days { from: self.from, to: self.to }
    }

    /// Its name in `lang`; Chinese where there is no English one.
    pub fn name(&self, lang: Lang) -> &str {
        match lang {
            Lang::En if !self.name_en.is_empty() => &self.name_en,
            _ => &self.name,
        }
    }
}

/// A unit: a place, a facility, a desk or an external member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its code.
    pub code: UnitCode,
    /// Its class, the same in every spell.
    pub class: Class,
    /// Its spells in time order; never empty, never overlapping.
    pub spells: Box<[Spell]>,
    /// The units that took over, the main one first.
    pub succeeded_by: Box<[UnitIx]>,
}

impl Unit {
    /// The spell in force on `date`, whether active or planned.
    pub fn spell_in_force(&self, date: Date) -> Option<&Spell> {
        self.spells.iter().find(|spell| spell.days().has(date))
    }

    /// The spell that tells what the unit was on `date`: the one in force, else the last one before,
    /// else the first.
    pub fn spell_on(&self, date: Date) -> &Spell {
        match &*self.spells {
            [only] => only,
            spells => spells
                .iter()
                .rev()
                .find(|spell| spell.from.is_none_or(|from| from <= date))
                .unwrap_or(&spells[0]),
        }
    }
}

/// The whole model; see the module's text.
#[derive(Clone, Debug)]
pub struct Organisation {
    units: Vec<Unit>,
    by_code: HashMap<UnitCode, UnitIx>,
    /// For each unit, the first place after its descendants on the newest map.
    end: Vec<u32>,
    /// The facilities and desks in order, and for each unit (and the end) how many come before it.
    reporters: Vec<UnitIx>,
    reporters_before: Vec<u32>,
    roots: Vec<UnitIx>,
    /// Units whose parent is not the same in all spells.
    movers: Vec<UnitIx>,
    /// Reporters with a last day.
    closers: Vec<UnitIx>,
    /// For each unit, all that were ever directly below it, in order.
    children: Groups<UnitIx>,
    /// (attribute, value, days) by unit.
    attributes: Groups<(AttributeIx, Box<str>, Days)>,
    networks: networks::Networks,
    duties: duties::Duties,
    aliases: HashMap<Box<str>, lookup::Aliases>,
    /// By indicator, in file order.
    targets: Groups<Target>,
    /// The days on which anything about units, networks or members changes, in order, each once.
    changes: Vec<Date>,
    warnings: Vec<RowError>,
}

/// A list of lists in two allocations.
#[derive(Clone, Debug)]
struct Groups<T> {
    start: Vec<u32>,
    items: Vec<T>,
}

impl<T> Groups<T> {
    /// Groups `pairs` by their first part, below `len`; the order inside a group is kept.
    fn new(len: usize, mut pairs: Vec<(u32, T)>) -> Groups<T> {
        pairs.sort_by_key(|(group, _)| *group);
        let mut start = Vec::with_capacity(len + 1);
        let mut items = Vec::with_capacity(pairs.len());
        for (group, item) in pairs {
            while start.len() <= group as usize {
                start.push(items.len() as u32);
            }
            items.push(item);
        }
        start.resize(len + 1, items.len() as u32);
        Groups { start, items }
    }

    fn of(&self, group: usize) -> &[T] {
        &self.items[self.start[group] as usize..self.start[group + 1] as usize]
    }
}

impl Organisation {
    /// Checks the tables against each other and the catalogue and builds the model.
    ///
    /// # Errors
    /// Every contradiction found, each naming file, line, column, value, reason and remedy.
    pub fn build(catalogue: &Catalogue, tables: &Tables) -> Result<Organisation, Vec<RowError>> {
        build::build(catalogue, tables)
    }

    /// What was accepted but is probably not meant.
    pub fn warnings(&self) -> &[RowError] {
        &self.warnings
    }

    /// How many units there are, of every class and date.
    pub fn len(&self) -> usize {
        self.units.len()
    }

    /// Whether there is no unit.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// All units in administrative order.
    pub fn units(&self) -> impl ExactSizeIterator<Item = UnitIx> + use<> {
        (0..self.units.len() as u32).map(UnitIx)
    }

    /// The units without a parent on `date`, externals left out.
    pub fn roots_on(&self, date: Date) -> Vec<UnitIx> {
        let in_force = |u: &UnitIx| self.info(*u).spell_in_force(date).is_some();
        let mut roots: Vec<UnitIx> = self.roots.iter().copied().filter(in_force).collect();
        roots.retain(|u| self.parent_on(*u, date).is_none());
        roots
    }

    /// All facilities and desks that ever were, in administrative order.
    pub fn reporters(&self) -> &[UnitIx] {
        &self.reporters
    }

    /// The unit with this code.
    pub fn unit(&self, code: &str) -> Option<UnitIx> {
        self.by_code.get(code).copied()
    }

    /// What is known of the unit.
    pub fn info(&self, u: UnitIx) -> &Unit {
        &self.units[u.at()]
    }

    /// Whether a unit is of one kind at one time and of another at another.
    pub fn changes_kind(&self, u: UnitIx) -> bool {
        let spells = &self.info(u).spells;
        spells.iter().any(|spell| spell.kind != spells[0].kind)
    }

    /// The unit's code.
    pub fn code(&self, u: UnitIx) -> &UnitCode {
        &self.units[u.at()].code
    }

    /// The unit's class.
    pub fn class(&self, u: UnitIx) -> Class {
        self.units[u.at()].class
    }

    /// The unit's name on `date` (the nearest one where it is not in force).
    pub fn name_on(&self, u: UnitIx, date: Date, lang: Lang) -> &str {
        self.info(u).spell_on(date).name(lang)
    }

    /// The unit's kind on `date` (the nearest one where it is not in force).
    pub fn kind_on(&self, u: UnitIx, date: Date) -> KindIx {
        self.info(u).spell_on(date).kind
    }

    /// The unit above it on `date` (the nearest one where it is not in force).
    pub fn parent_on(&self, u: UnitIx, date: Date) -> Option<UnitIx> {
        self.info(u).spell_on(date).parent
    }

    /// The unit and those above it on `date`, the lowest first.
    pub fn upwards(&self, u: UnitIx, date: Date) -> impl Iterator<Item = UnitIx> {
        std::iter::successors(Some(u), move |at| self.parent_on(*at, date))
    }

    /// Those above it on `date` and the unit itself, the highest first.
    pub fn path(&self, u: UnitIx, date: Date) -> Vec<UnitIx> {
        let mut path: Vec<UnitIx> = self.upwards(u, date).collect();
        path.reverse();
        path
    }

    /// The unit itself or the nearest above it of this kind on `date`.
    pub fn ancestor_of_kind(&self, u: UnitIx, kind: KindIx, date: Date) -> Option<UnitIx> {
        self.upwards(u, date).find(|at| self.kind_on(*at, date) == kind)
    }

    /// Whether `u` is `area` or below it on `date`.
    pub fn is_below(&self, u: UnitIx, area: UnitIx, date: Date) -> bool {
        self.upwards(u, date).any(|at| at == area)
    }

    /// Whether the unit is in force and active on `date`.
    pub fn is_open(&self, u: UnitIx, date: Date) -> bool {
        self.info(u).spell_in_force(date).is_some_and(|spell| spell.status == Status::Active)
    }

    /// The last day of `period` on which the unit is open; `None` = no duty in that period.
    pub fn duty_day(&self, u: UnitIx, period: Period) -> Option<Date> {
        let spells = self.info(u).spells.iter().rev();
        spells
            .filter(|spell| spell.status == Status::Active)
            .filter_map(|spell| spell.days().last_in(period))
            .max()
    }

    /// The units directly below `u` and in force (active or planned) on `date`, in administrative order.
    pub fn children_on(&self, u: UnitIx, date: Date) -> Vec<UnitIx> {
        let here = |c: &UnitIx| {
            self.info(*c).spell_in_force(date).is_some_and(|spell| spell.parent == Some(u))
        };
        self.children.of(u.at()).iter().copied().filter(here).collect()
    }

    /// The facilities and desks at or below `u` and open on `date`, in administrative order.
    pub fn facilities_below(&self, u: UnitIx, date: Date) -> Vec<UnitIx> {
        let mut out = Vec::new();
        self.each_range(u, date, &mut |range| {
            let (a, b) = (self.reporters_before[range.start], self.reporters_before[range.end]);
            let here = &self.reporters[a as usize..b as usize];
            out.extend(here.iter().copied().filter(|v| self.is_open(*v, date)));
        });
        if !self.movers.is_empty() {
            out.sort_unstable();
        }
        out
    }

    /// The facilities and desks with a duty day in `period` that are at or below `u` on that day, each with
    /// its duty day, in administrative order. This is the set "as it was then" of one period.
    pub fn facilities_below_in(&self, u: UnitIx, period: Period) -> Vec<(UnitIx, Date)> {
        let last = period.last_day();
        let mut out: Vec<(UnitIx, Date)> =
            self.facilities_below(u, last).into_iter().map(|v| (v, last)).collect();
        let standing = out.len();
        out.extend(self.closed_early(period).filter(|(v, day)| self.is_below(*v, u, *day)));
        if out.len() > standing {
            out.sort_unstable();
        }
        out
    }

    /// Reporters whose duty day in `period` is not its last day.
    fn closed_early(&self, period: Period) -> impl Iterator<Item = (UnitIx, Date)> {
        self.closers.iter().filter_map(move |v| {
            self.duty_day(*v, period).filter(|day| *day < period.last_day()).map(|day| (*v, day))
        })
    }

    /// Calls `each` with ranges of unit numbers that together are what is at or below `u` on `date`.
    fn each_range(&self, u: UnitIx, date: Date, each: &mut impl FnMut(Range<usize>)) {
        let whole = u.at()..self.end[u.at()] as usize;
        // A mover is away on `date` if its parent then is not its newest one, which shaped the order.
        let away = |m: &UnitIx| {
            let newest = self.units[m.at()].spells.last().and_then(|spell| spell.parent);
            self.parent_on(*m, date) != newest
        };
        if self.movers.is_empty() || !self.movers.iter().any(&away) {
            each(whole);
            return;
        }
        let displaced: Vec<UnitIx> = self.movers.iter().copied().filter(away).collect();
        let mut pending = vec![whole];
        while let Some(range) = pending.pop() {
            let mut kept = Vec::new();
            let mut at = range.start;
            // The first place is where the walk was sent: it belongs here even if displaced.
            for d in displaced.iter().map(|d| d.at()).filter(|d| *d > range.start && *d < range.end)
            {
                if d < at {
                    continue;
                }
                kept.push(at..d);
                at = self.end[d] as usize;
            }
            kept.push(at..range.end);
            for d in &displaced {
                let parent = self.parent_on(*d, date).map(UnitIx::at);
                if parent.is_some_and(|p| kept.iter().any(|range| range.contains(&p))) {
                    pending.push(d.at()..self.end[d.at()] as usize);
                }
            }
            kept.into_iter().filter(|range| !range.is_empty()).for_each(&mut *each);
        }
    }

    /// What filters look at: kind, roles and attributes of the unit on `date`.
    pub fn facts_on(&self, u: UnitIx, date: Date) -> Facts {
        Facts {
            kind: self.kind_on(u, date),
            roles: self.roles_on(u, date),
            attributes: self.attributes_on(u, date),
        }
    }

    /// The unit's attributes on `date`.
    pub fn attributes_on(&self, u: UnitIx, date: Date) -> Vec<(AttributeIx, String)> {
        let all = self.attributes.of(u.at()).iter();
        all.filter(|(_, _, days)| days.has(date))
            .map(|(attribute, value, _)| (*attribute, value.to_string()))
            .collect()
    }

    /// The unit that stands for `u` on `date`: itself if open, else the first open one that followed it.
    pub fn successor_on(&self, u: UnitIx, date: Date) -> Option<UnitIx> {
        let mut seen = vec![u];
        let mut next = 0;
        while let Some(at) = seen.get(next).copied() {
            if self.is_open(at, date) {
                return Some(at);
            }
            for s in &self.info(at).succeeded_by {
                if !seen.contains(s) {
                    seen.push(*s);
                }
            }
            next += 1;
        }
        None
    }

    /// The days after `first` and up to `last` on which something about units, networks, members or
    /// attributes changes: between two of them every day has the same map.
    pub fn changes_in(&self, first: Date, last: Date) -> &[Date] {
        let from = self.changes.partition_point(|day| *day <= first);
        let to = self.changes.partition_point(|day| *day <= last);
        &self.changes[from..to.max(from)]
    }

    /// A number for each stretch of days with the same map: equal for two days without a change after the
    /// earlier and up to the later.
    pub fn map_number(&self, date: Date) -> usize {
        self.changes.partition_point(|day| *day <= date)
    }

    /// The network with this code.
    pub fn network(&self, code: &str) -> Option<NetworkIx> {
        self.networks.by_code.get(code).copied()
    }

    /// What is known of the network.
    pub fn network_info(&self, n: NetworkIx) -> &Network {
        &self.networks.list[n.at()]
    }

    /// The network's code.
    pub fn network_code(&self, n: NetworkIx) -> &NetworkCode {
        &self.networks.list[n.at()].code
    }

    /// All networks, in the order of their codes.
    pub fn networks(&self) -> impl ExactSizeIterator<Item = NetworkIx> + use<> {
        (0..self.networks.list.len() as u32).map(NetworkIx)
    }

    /// The roles the unit holds on `date`, each with its kind of network.
    pub fn roles_on(&self, u: UnitIx, date: Date) -> Vec<(RoleIx, NetworkKindIx)> {
        let mut roles: Vec<(RoleIx, NetworkKindIx)> = Vec::new();
        for (n, held) in self.memberships_on(u, date, None) {
            let kind = self.network_info(n).kind;
            for role in held.iter() {
                if !roles.contains(&(role, kind)) {
                    roles.push((role, kind));
                }
            }
        }
        roles
    }
}

#[cfg(test)]
mod tests;
