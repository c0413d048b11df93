//! Derived indicators: what is computed from the counts, as checked declarations.
//!
//! Their values are computed elsewhere (`figures`); here is what each one means. An indicator has dated
//! [`Definition`]s, so that a figure can say which one it used.

use serde::{Deserialize, Serialize};

use super::expr::{Expr, Term};
use super::{Filter, KindIx, NetworkKindIx, Text};
use crate::ids::IndicatorCode;
use crate::period::Date;

/// Share of a formula's form-periods that must be answered for a facility-period to be matched, where a
/// definition does not say: 800 thousandths.
pub const PAIR_MIN_DEFAULT: u16 = 800;

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Higher is better.
    Up,
    /// Lower is better.
    Down,
    /// Between two bounds is good.
    Within,
    /// Neither: watch only.
    Watch,
}

impl Direction {
    /// Every direction.
    pub const ALL: [Direction; 4] =
        [Direction::Up, Direction::Down, Direction::Within, Direction::Watch];

    /// The direction's name in files.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Up => "up",
            Direction::Down => "down",
            Direction::Within => "within",
            Direction::Watch => "watch",
        }
    }
}

/// A level at which an indicator is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// A single facility.
    Facility,
    /// A place of this administrative kind.
    Unit(KindIx),
    /// A network of this kind.
    Network(NetworkKindIx),
}

/// A measure of reporting itself (`FIGURES.md` F3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reporting {
    /// Received over expected.
    Received,
    /// On time over (on time + late + missing).
    OnTime,
    /// Late over the same.
    Late,
    /// Missing over the same.
    Missing,
    /// Received reports corrected after sign-off, over received.
    Corrected,
}

impl Reporting {
    /// Every measure.
    pub const ALL: [Reporting; 5] = [
        Reporting::Received,
        Reporting::OnTime,
        Reporting::Late,
        Reporting::Missing,
        Reporting::Corrected,
    ];

    /// The measure's name in files.
    pub fn name(self) -> &'static str {
        match self {
            Reporting::Received => "received",
            Reporting::OnTime => "on_time",
            Reporting::Late => "late",
            Reporting::Missing => "missing",
            Reporting::Corrected => "corrected",
        }
    }
}

/// How an indicator is computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Formula {
    /// Numerator over denominator. Both are evaluated for each facility over its matched periods and then
    /// summed over facilities (`FIGURES.md` M1): never a mean of ratios.
    Ratio {
        /// Above the line: a number.
        numerator: Expr<Term>,
        /// Below the line: a number.
        denominator: Expr<Term>,
    },
    /// The share of facilities passing `of`, among those matched, whose values meet a condition.
    Share {
        /// Which facilities.
        of: Filter,
        /// The condition on one facility's values.
        meets: Expr<Term>,
    },
    /// The share of units open on the last day that pass `of` and also `meets`: facts of the registry only.
    RegistryShare {
        /// Which units; of kinds of one class.
        of: Filter,
        /// What they should be.
        meets: Filter,
    },
    /// The change of a number against the same period a year earlier: (now − then) / then.
    Growth {
        /// The number.
        value: Expr<Term>,
    },
    /// A number as it is.
    Count {
        /// The number.
        value: Expr<Term>,
    },
    /// A measure of reporting.
    Reporting(Reporting),
}

impl Formula {
    /// The expressions in it, with the name of the key each is written under.
    pub fn expressions(&self) -> Vec<(&'static str, &Expr<Term>)> {
        match self {
            Formula::Ratio { numerator, denominator } => {
                vec![("numerator", numerator), ("denominator", denominator)]
            }
            Formula::Share { meets, .. } => vec![("meets", meets)],
            Formula::Growth { value } | Formula::Count { value } => vec![("value", value)],
            Formula::RegistryShare { .. } | Formula::Reporting(_) => Vec::new(),
        }
    }
}

/// What an indicator meant from a day on.
#[derive(Clone, Debug)]
pub struct Definition {
    /// Its version, shown with every figure.
    pub version: String,
    /// First day it is in force; none = always.
    pub from: Option<Date>,
    /// The formula.
    pub formula: Formula,
    /// What the quotient is multiplied by, for example 100 for per cent.
    pub factor: u32,
    /// Share of form-periods that must be answered, in thousandths (`FIGURES.md` M1).
    pub pair_min: u16,
}

/// An indicator.
#[derive(Clone, Debug)]
pub struct Indicator {
    /// Its code, for example `primary_visit_share`.
    pub code: IndicatorCode,
    /// Its name.
    pub name: Text,
    /// The code of its unit, named in [`super::Catalogue::units`].
    pub unit: String,
    /// Which way is better.
    pub direction: Direction,
    /// Decimals shown.
    pub decimals: u8,
    /// Where it is shown; empty = everywhere.
    pub levels: Vec<Level>,
    /// Where its formula comes from.
    pub source: String,
    /// Its definitions, oldest first; never empty.
    pub definitions: Vec<Definition>,
}

impl Indicator {
    /// The definition in force on `day`: the newest begun by then, the oldest before all.
    pub fn definition_on(&self, day: Date) -> &Definition {
        let begun = |d: &&Definition| d.from.is_none_or(|from| from <= day);
        self.definitions
            .iter()
            .rev()
            .find(begun)
            .unwrap_or_else(|| self.definitions.first().expect("the checker wants a definition"))
    }
}
