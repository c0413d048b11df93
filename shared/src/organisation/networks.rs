//! Networks and who is in them on a day.
//!
//! A membership row is about a facility, or about an administrative unit and then stands for the
//! facilities at or below it (class facility; or exactly the listed `kinds`). For one facility the rows on the lowest
//! unit win, and among the networks of an exclusive kind the network whose row is lowest.

use std::collections::HashMap;

use super::{Days, Groups, NetworkIx, Organisation, UnitIx};
use crate::catalogue::{Class, KindIx, NetworkKindIx, RoleIx};
use crate::ids::NetworkCode;
use crate::period::{Date, Period};
use crate::tables::registry::Status;

/// A network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its code.
    pub code: NetworkCode,
    /// Its name.
    pub name: Box<str>,
    /// Its kind.
    pub kind: NetworkKindIx,
    /// Whether its kind is exclusive.
    pub exclusive: bool,
    /// The administrative units it serves; may be empty.
    pub area: Box<[UnitIx]>,
    /// The days it is in force.
    pub days: Days,
    /// Whether it works or is planned.
    pub status: Status,
}

/// A set of roles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RoleSet(u64);

impl RoleSet {
    /// The set of one role.
    pub fn one(role: RoleIx) -> RoleSet {
        RoleSet(1 << (u64::from(role.0) & 63))
    }

    /// The roles of both sets.
    pub fn with(self, other: RoleSet) -> RoleSet {
        RoleSet(self.0 | other.0)
    }

    /// Whether `role` is among them.
    pub fn has(self, role: RoleIx) -> bool {
        self.0 & RoleSet::one(role).0 != 0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The roles in catalogue order.
    pub fn iter(self) -> impl Iterator<Item = RoleIx> {
        (0..64).map(RoleIx).filter(move |role| self.has(*role))
    }
}

/// A unit in a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// A facility, desk or external unit.
    pub unit: UnitIx,
    /// Its roles; never empty.
    pub roles: RoleSet,
}

/// One membership row, resolved.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) network: NetworkIx,
    pub(super) unit: UnitIx,
    /// None takes out.
    pub(super) role: Option<RoleIx>,
    pub(super) days: Days,
    pub(super) kinds: Box<[KindIx]>,
    pub(super) primary: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Networks {
    pub(super) list: Vec<Network>,
    pub(super) by_code: HashMap<NetworkCode, NetworkIx>,
    /// Rows by unit.
    pub(super) by_unit: Groups<Row>,
    /// Units with rows, by network.
    pub(super) units: Groups<UnitIx>,
}

/// How a facility stands to one network: the level of the row that decides (0 = its own), its roles
/// (empty = taken out).
#[derive(Clone, Copy)]
struct Standing {
    network: NetworkIx,
    level: usize,
    roles: RoleSet,
    out: bool,
    primary: bool,
}

impl Organisation {
    /// Whether the network is in force and active on `date`.
    pub fn is_in_force(&self, n: NetworkIx, date: Date) -> bool {
        let network = self.network_info(n);
        network.status == Status::Active && network.days.has(date)
    }

    /// The networks in force whose kind is `kind`, on `date`.
    pub fn networks_of_kind_on(&self, kind: NetworkKindIx, date: Date) -> Vec<NetworkIx> {
        self.networks()
            .filter(|n| self.network_info(*n).kind == kind && self.is_in_force(*n, date))
            .collect()
    }

    /// The units that rows in force on `date` name as members of the network: a place stands for those below
    /// it.
    pub fn named_members_on(&self, n: NetworkIx, date: Date) -> Vec<UnitIx> {
        let in_force = |row: &Row| row.network == n && row.role.is_some() && row.days.has(date);
        let named = |u: &&UnitIx| self.networks.by_unit.of(u.at()).iter().any(in_force);
        self.networks.units.of(n.at()).iter().filter(named).copied().collect()
    }

    /// Everyone in the network on `date`, planned and external units included, in administrative order.
    pub fn members_on(&self, n: NetworkIx, date: Date) -> Vec<Member> {
        let mut out = Vec::new();
        if !self.is_in_force(n, date) {
            return out;
        }
        let mut candidates = Vec::new();
        for u in self.networks.units.of(n.at()) {
            let in_force = |row: &Row| row.network == n && row.role.is_some() && row.days.has(date);
            if !self.networks.by_unit.of(u.at()).iter().any(in_force) {
                continue;
            }
            if self.class(*u) == Class::External {
                candidates.push(*u);
            } else {
                self.each_range(*u, date, &mut |range| {
                    let a = self.reporters_before[range.start] as usize;
                    let b = self.reporters_before[range.end] as usize;
                    candidates.extend_from_slice(&self.reporters[a..b]);
                });
            }
        }
        candidates.sort_unstable();
        candidates.dedup();
        let kind = self.network_info(n).kind;
        for unit in candidates {
            let all = self.memberships_on(unit, date, Some(kind));
            if let Some((_, roles)) = all.into_iter().find(|(m, _)| *m == n) {
                out.push(Member { unit, roles });
            }
        }
        out
    }

    /// The facilities and desks in the network and open on `date`, in administrative order; externals and
    /// planned units are left out, as in every total.
    pub fn facilities_in(&self, n: NetworkIx, date: Date) -> Vec<UnitIx> {
        let members = self.members_on(n, date).into_iter().map(|member| member.unit);
        members.filter(|u| self.class(*u) != Class::External && self.is_open(*u, date)).collect()
    }

    /// The facilities and desks with a duty day in `period` that are in the network on that day, each with
    /// its duty day, in administrative order.
    pub fn facilities_in_during(&self, n: NetworkIx, period: Period) -> Vec<(UnitIx, Date)> {
        let last = period.last_day();
        let mut out: Vec<(UnitIx, Date)> =
            self.facilities_in(n, last).into_iter().map(|v| (v, last)).collect();
        let standing = out.len();
        let kind = self.network_info(n).kind;
        out.extend(self.closed_early(period).filter(|(v, day)| {
            self.memberships_on(*v, *day, Some(kind)).iter().any(|(m, _)| *m == n)
        }));
        if out.len() > standing {
            out.sort_unstable();
        }
        out
    }

    /// The networks (of one kind, or all) the unit is in on `date`, in the order of codes.
    pub fn networks_of(
        &self,
        u: UnitIx,
        date: Date,
        kind: Option<NetworkKindIx>,
    ) -> Vec<NetworkIx> {
        self.memberships_on(u, date, kind).into_iter().map(|(n, _)| n).collect()
    }

    /// The network named as primary for the unit on `date`, if any: the one published totals count it
    /// under first.
    pub fn primary_network_of(&self, u: UnitIx, date: Date) -> Option<NetworkIx> {
        self.standings(u, date, None).into_iter().find(|s| s.primary).map(|s| s.network)
    }

    /// The networks (of one kind, or all) the unit is in on `date`, with its roles, in the order of codes.
    pub fn memberships_on(
        &self,
        u: UnitIx,
        date: Date,
        kind: Option<NetworkKindIx>,
    ) -> Vec<(NetworkIx, RoleSet)> {
        self.standings(u, date, kind).into_iter().map(|s| (s.network, s.roles)).collect()
    }

    /// The roles that membership rows give to the unit itself on `date`, each with its kind of network: those of
    /// a place as such, not of the facilities it stands for.
    pub fn own_roles_on(&self, u: UnitIx, date: Date) -> Vec<(RoleIx, NetworkKindIx)> {
        let rows = self.networks.by_unit.of(u.at()).iter();
        let in_force = rows.filter(|row| row.days.has(date) && self.is_in_force(row.network, date));
        let mut roles: Vec<(RoleIx, NetworkKindIx)> = in_force
            .filter_map(|row| Some((row.role?, self.network_info(row.network).kind)))
            .collect();
        roles.sort_unstable();
        roles.dedup();
        roles
    }

    /// Every day on which a network, or a unit's place in one, begins or ends.
    pub(super) fn change_days(&self) -> impl Iterator<Item = Date> {
        let rows = self.networks.by_unit.items.iter().map(|row| row.days);
        let networks = self.networks.list.iter().map(|network| network.days);
        rows.chain(networks).flat_map(|days| [days.from, days.to]).flatten()
    }

    fn standings(&self, u: UnitIx, date: Date, kind: Option<NetworkKindIx>) -> Vec<Standing> {
        let mut all: Vec<Standing> = Vec::new();
        let unit = self.info(u);
        let Some(spell) = unit.spell_in_force(date) else { return all };
        if unit.class == Class::Administrative {
            return all;
        }
        for (level, at) in self.upwards(u, date).enumerate() {
            for row in self.networks.by_unit.of(at.at()) {
                let network = self.network_info(row.network);
                let applies = row.days.has(date)
                    && kind.is_none_or(|kind| network.kind == kind)
                    && self.is_in_force(row.network, date)
                    && if row.kinds.is_empty() {
                        level == 0 || unit.class == Class::Facility
                    } else {
                        row.kinds.contains(&spell.kind)
                    };
                if !applies {
                    continue;
                }
                let roles = row.role.map(RoleSet::one).unwrap_or_default();
                match all.iter_mut().find(|s| s.network == row.network) {
                    None => all.push(Standing {
                        network: row.network,
                        level,
                        roles,
                        out: row.role.is_none(),
                        primary: row.primary,
                    }),
                    Some(s) if s.level == level => {
                        s.roles = s.roles.with(roles);
                        s.out |= row.role.is_none();
                        s.primary |= row.primary;
                    }
                    Some(_) => {}
                }
            }
        }
        all.retain(|s| !s.out);
        if all.len() > 1 {
            let copy = all.clone();
            all.retain(|s| {
                let network = self.network_info(s.network);
                !network.exclusive
                    || copy.iter().all(|other| {
                        self.network_info(other.network).kind != network.kind
                            || (s.level, s.network) <= (other.level, other.network)
                    })
            });
            all.sort_unstable_by_key(|s| s.network);
        }
        all
    }
}
