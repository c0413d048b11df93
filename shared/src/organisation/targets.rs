//! Targets of indicators: which one holds for whom on a day.
//!
//! A target names a unit or network, a level, an attribute's value, or several of these; the most specific
//! one in force wins. Whether a value meets it is `figures`'.

use super::{Days, Found, NetworkIx, Organisation, UnitIx};
use crate::catalogue::indicator::Level;
use crate::catalogue::{AttributeIx, Direction, IndicatorIx};
use crate::period::Date;
use crate::tables::registry::TargetStatus;

/// A target, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The indicator.
    pub indicator: IndicatorIx,
    /// The unit or network it holds for. With a level: for those of the level at or below it.
    pub place: Option<Found>,
    /// The level it holds for.
    pub level: Option<Level>,
    /// The attribute value it holds for.
    pub attribute: Option<(AttributeIx, Box<str>)>,
    /// Which way it points.
    pub direction: Direction,
    /// The lower bound.
    pub low: Option<f64>,
    /// The upper bound.
    pub high: Option<f64>,
    /// The days it holds.
    pub days: Days,
    /// Where it comes from.
    pub source: Box<str>,
    /// How far it can be relied on.
    pub status: TargetStatus,
}

/// How specific a target is: its place, its attribute, its first day.
type Rank = (u8, bool, Option<Date>);

/// Whose figure a target is looked up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetOf {
    /// A unit: a place or a facility.
    Unit(UnitIx),
    /// A network.
    Network(NetworkIx),
}

impl Organisation {
    /// The target of `indicator` for a unit or network on `date`, none if there is none. The most specific
    /// one wins: first one that names the very unit or network, then one for a level below a place, then one
    /// for a level; among these first one for an attribute's value; then the one that began last; then the
    /// one that stands last in the file.
    pub fn target(&self, indicator: IndicatorIx, of: TargetOf, date: Date) -> Option<&Target> {
        let list = self.targets.of(usize::from(indicator.0));
        let mut best: Option<(&Target, Rank)> = None;
        for target in list.iter().filter(|target| target.days.has(date)) {
            let Some(place) = self.place_rank(target, of, date) else { continue };
            if !self.attribute_fits(target, of, date) {
                continue;
            }
            let rank: Rank = (place, target.attribute.is_some(), target.days.from);
            if best.is_none_or(|(_, other)| rank >= other) {
                best = Some((target, rank));
            }
        }
        best.map(|(target, _)| target)
    }

    /// Every target of `indicator`, in file order.
    pub fn targets_of(&self, indicator: IndicatorIx) -> &[Target] {
        self.targets.of(usize::from(indicator.0))
    }

    /// How specifically the target names the place, or none if it does not hold for it.
    fn place_rank(&self, target: &Target, of: TargetOf, date: Date) -> Option<u8> {
        let at_level = |level: Level| self.is_level(level, of, date);
        match (target.place, target.level) {
            (None, None) => Some(0),
            (None, Some(level)) => at_level(level).then_some(1),
            (Some(Found::Unit(place)), Some(level)) => {
                let below = match of {
                    TargetOf::Unit(unit) => self.is_below(unit, place, date),
                    TargetOf::Network(network) => {
                        let area = &self.network_info(network).area;
                        !area.is_empty() && area.iter().all(|a| self.is_below(*a, place, date))
                    }
                };
                (below && at_level(level)).then_some(2)
            }
            (Some(Found::Unit(place)), None) => (of == TargetOf::Unit(place)).then_some(3),
            (Some(Found::Network(network)), level) => {
                (of == TargetOf::Network(network) && level.is_none_or(at_level)).then_some(3)
            }
        }
    }

    fn is_level(&self, level: Level, of: TargetOf, date: Date) -> bool {
        use crate::catalogue::Class;
        match (level, of) {
            (Level::Facility, TargetOf::Unit(unit)) => self.class(unit) == Class::Facility,
            (Level::Unit(kind), TargetOf::Unit(unit)) => self.kind_on(unit, date) == kind,
            (Level::Network(kind), TargetOf::Network(n)) => self.network_info(n).kind == kind,
            _ => false,
        }
    }

    fn attribute_fits(&self, target: &Target, of: TargetOf, date: Date) -> bool {
        let Some((attribute, value)) = &target.attribute else { return true };
        let TargetOf::Unit(unit) = of else { return false };
        self.attribute_spells(unit)
            .any(|(a, v, days)| a == *attribute && v == &**value && days.has(date))
    }
}
