//! F5: the sum of overlapping groups against the administrative total.

use std::collections::{BTreeMap, HashSet};

use crate::catalogue::KindIx;

/// One facility's value in a stretch of time in which its place on the map does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The facility, by any number that is its own.
    pub facility: u32,
    /// Its kind.
    pub kind: KindIx,
    /// Whether it lies in the area.
    pub in_area: bool,
    /// In how many of the groups it is.
    pub groups: u32,
    /// Its value.
    pub value: u64,
}

/// Which line of a reconciliation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReconciliationLine {
    /// The sum of the groups.
    Groups,
    /// What is in it more than once.
    Repeated,
    /// What lies outside the area.
    Outside,
    /// What lies in the area and in no group.
    None,
    /// The area's own figure.
    Total,
}

impl Cell {
    /// What the cell adds to a line; none if it is not of it.
    pub fn adds_to(&self, line: ReconciliationLine) -> Option<u128> {
        let value = u128::from(self.value);
        let (inside, groups) = (self.in_area, u128::from(self.groups));
        match line {
            ReconciliationLine::Groups => (groups > 0).then(|| value * groups),
            ReconciliationLine::Repeated => (groups > 1).then(|| value * (groups - 1)),
            ReconciliationLine::Outside => (!inside && groups > 0).then_some(value),
            ReconciliationLine::None => (inside && groups == 0).then_some(value),
            ReconciliationLine::Total => inside.then_some(value),
        }
    }
}

/// One line of the reconciliation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addend {
    /// How many facilities it is about.
    pub facilities: u64,
    /// Their value.
    pub value: u128,
}

/// The sum of the groups, what leads from it to the area's total, and that total:
/// `sum_of_groups − more_than_once − outside_area + in_none = administrative_total`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciliation {
    /// The groups' own figures, added.
    pub sum_of_groups: Addend,
    /// What is in it more than once.
    pub more_than_once: Addend,
    /// What lies outside the area, counted once.
    pub outside_area: Addend,
    /// What lies in the area and in no group.
    pub in_none: Addend,
    /// The same by kind.
    pub in_none_by_kind: BTreeMap<KindIx, Addend>,
    /// The area's own figure.
    pub administrative_total: Addend,
}

impl Reconciliation {
    /// Whether the identity holds: it does for every input of [`Reconciler`].
    pub fn holds(&self) -> bool {
        self.sum_of_groups.value + self.in_none.value
            == self.administrative_total.value + self.more_than_once.value + self.outside_area.value
    }
}

#[derive(Default)]
struct Line {
    facilities: HashSet<u32>,
    value: u128,
}

impl Line {
    fn add(&mut self, facility: u32, value: u128) {
        self.facilities.insert(facility);
        self.value += value;
    }

    fn addend(&self) -> Addend {
        Addend { facilities: self.facilities.len() as u64, value: self.value }
    }
}

/// Gathers cells into a [`Reconciliation`]. A facility that moves inside the span comes as several cells.
#[derive(Default)]
pub struct Reconciler {
    groups: Line,
    repeated: Line,
    outside: Line,
    none: Line,
    none_by_kind: BTreeMap<KindIx, Line>,
    area: Line,
}

impl Reconciler {
    /// Counts one cell.
    pub fn add(&mut self, cell: Cell) {
        for (line, sum) in [
            (ReconciliationLine::Groups, &mut self.groups),
            (ReconciliationLine::Repeated, &mut self.repeated),
            (ReconciliationLine::Outside, &mut self.outside),
            (ReconciliationLine::None, &mut self.none),
            (ReconciliationLine::Total, &mut self.area),
        ] {
            if let Some(value) = cell.adds_to(line) {
                sum.add(cell.facility, value);
            }
        }
        if let Some(value) = cell.adds_to(ReconciliationLine::None) {
            self.none_by_kind.entry(cell.kind).or_default().add(cell.facility, value);
        }
    }

    /// The lines.
    pub fn finish(&self) -> Reconciliation {
        Reconciliation {
            sum_of_groups: self.groups.addend(),
            more_than_once: self.repeated.addend(),
            outside_area: self.outside.addend(),
            in_none: self.none.addend(),
            in_none_by_kind: self
                .none_by_kind
                .iter()
                .map(|(k, line)| (*k, line.addend()))
                .collect(),
            administrative_total: self.area.addend(),
        }
    }
}
