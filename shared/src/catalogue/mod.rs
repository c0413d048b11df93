//! The catalogue: what is counted, on which forms, by which kinds of unit, under which rules.
//!
//! A [`Catalogue`] in memory has passed the whole check: every reference resolves, no kind is asked one
//! element by two forms, every expression parses and names things that exist. Places are held by index
//! ([`KindIx`], [`ElementIx`]…), valid for one catalogue version only; codes are what lasts.
//! It is written as TOML (`docs/formats.md`), identified by the SHA-256 of those bytes, and knows no
//! facility: that is the organisation model's.

use std::collections::HashMap;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::ids::{
    AttributeCode, ElementCode, FormCode, KindCode, Millis, NetworkKindCode, RoleCode,
};
use crate::period::{Date, Period, PeriodType};

mod error;
pub mod expr;
pub mod indicator;
mod load;
mod load_indicators;
mod load_rules;
mod read;
mod resolve;
pub mod rule;

pub use error::{CatalogueError, Problem};
pub use expr::Term;
pub use indicator::{Direction, Indicator, Level};
pub use load::{ENTRIES_MAX, GRACE_MINUTES_MAX, RULE_PARTS_MAX};
pub use rule::{Rule, check_report};

macro_rules! indexes {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u16);

        impl $name {
            /// As an index into the catalogue's list.
            pub fn at(self) -> usize {
                usize::from(self.0)
            }
        }
    )*};
}

indexes! {
    /// A kind, by its place in [`Catalogue::kinds`].
    KindIx;
    /// A network kind, by its place in [`Catalogue::network_kinds`].
    NetworkKindIx;
    /// A role, by its place in [`Catalogue::roles`].
    RoleIx;
    /// An attribute, by its place in [`Catalogue::attributes`].
    AttributeIx;
    /// An element, by its place in [`Catalogue::elements`].
    ElementIx;
    /// A form, by its place in [`Catalogue::forms`].
    FormIx;
    /// A rule, by its place in [`Catalogue::rules`].
    RuleIx;
    /// An indicator, by its place in [`Catalogue::indicators`].
    IndicatorIx;
}

/// A name in both languages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// Chinese.
    pub zh: String,
    /// English.
    pub en: String,
}

/// A language of the people who read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lang {
    /// Chinese, the default.
    #[default]
    Zh,
    /// English.
    En,
}

impl Text {
    /// The name in `lang`.
    pub fn get(&self, lang: Lang) -> &str {
        match lang {
            Lang::Zh => &self.zh,
            Lang::En => &self.en,
        }
    }
}

/// SHA-256 of a catalogue's TOML bytes: which version of which catalogue this is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CatalogueHash(pub [u8; 32]);

impl std::fmt::Display for CatalogueHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&data_encoding::HEXLOWER.encode(&self.0))
    }
}
impl std::fmt::Debug for CatalogueHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// What class of unit a kind belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// A place of the administrative tree.
    Administrative,
    /// A facility: counted in every "facilities".
    Facility,
    /// A desk that enters figures only an office holds: in completeness, never in "facilities".
    Desk,
    /// A member from elsewhere: no parent, never expected, never in totals.
    External,
}

/// A kind of unit.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Its code, for example `village_clinic`.
    pub code: KindCode,
    /// Its name.
    pub name: Text,
    /// Its class.
    pub class: Class,
}

/// A kind of network.
#[derive(Clone, Debug)]
pub struct NetworkKind {
    /// Its code, for example `county_community`.
    pub code: NetworkKindCode,
    /// Its name.
    pub name: Text,
    /// Whether a facility may be in at most one network of this kind on any day.
    pub exclusive: bool,
}

/// A role a unit may hold in a network.
#[derive(Clone, Debug)]
pub struct Role {
    /// Its code, for example `lead`.
    pub code: RoleCode,
    /// Its name.
    pub name: Text,
}

/// A fact about units that changes rarely, for example `hospital_type`.
#[derive(Clone, Debug)]
pub struct Attribute {
    /// Its code.
    pub code: AttributeCode,
    /// Its name.
    pub name: Text,
    /// The values it may take, with their names; empty for any text.
    pub values: Vec<(String, Text)>,
}

/// Whose figure an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// A facility's own.
    Facility,
    /// An area's, entered by its desk: rolls up along administrative units only.
    Area,
}

/// How an element's values join over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OverTime {
    /// A flow: added.
    Sum,
    /// A stock: the value of the last period in the span.
    Last,
    /// A year-to-date figure: the last value, never across 1 January.
    LastYtd,
    /// A stock asked rarely: the newest value, at most `carry_months` old.
    Latest {
        /// How many months a value stays good.
        carry_months: u16,
    },
}

impl OverTime {
    /// Whether it is a stock: one value a span, not a sum.
    pub fn is_stock(self) -> bool {
        self != OverTime::Sum
    }
}

/// How an element's values join over facilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverUnits {
    /// Added.
    Sum,
    /// Must not be added (a count of distinct things).
    None,
}

/// A data element: one raw count.
#[derive(Clone, Debug)]
pub struct Element {
    /// Its code, never reused with another meaning.
    pub code: ElementCode,
    /// Its name.
    pub name: Text,
    /// Its unit's code, for example `visit`; named in [`Catalogue::units`].
    pub unit: String,
    /// Whose figure it is.
    pub scope: Scope,
    /// How it joins over time.
    pub over_time: OverTime,
    /// How it joins over facilities.
    pub over_units: OverUnits,
    /// The element it is part of, if any.
    pub part_of: Option<ElementIx>,
    /// Disaggregation, as (dimension, member) pairs; empty for a plain element.
    pub dims: Vec<(String, String)>,
    /// The largest value a single report may hold; a form's line may set a lower one.
    pub max: u64,
    /// Numbers from 1 to below this one are withheld in public exports; none where every number may be shown.
    pub withhold_below: Option<u64>,
    /// Version of the definition.
    pub definition: String,
    /// Where the definition comes from.
    pub source: String,
}

/// On which days a daily form is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Days {
    /// Every day.
    All,
    /// Working days of the unit's calendar.
    Working,
}

/// When a form is due: `days` after the period's last day, at `hour`:`minute` local time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    /// Days after the last day of the period.
    pub days: u16,
    /// Hour, 0–23.
    pub hour: u8,
    /// Minute, 0–59.
    pub minute: u8,
    /// Whether a due day that is no working day moves to the next working day.
    pub next_working_day: bool,
}

/// A condition on a unit at a date. Parts are joined by "and", the choices inside a part by "or";
/// an empty part admits everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The unit is of one of these kinds.
    pub kinds: Vec<KindIx>,
    /// For each part, the unit holds one of these roles in a network of that kind.
    pub roles: Vec<Vec<(RoleIx, NetworkKindIx)>>,
    /// For each part, the attribute has one of these values.
    pub attributes: Vec<(AttributeIx, Vec<String>)>,
}

/// What a filter looks at: one unit on one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its kind.
    pub kind: KindIx,
    /// The roles it holds.
    pub roles: Vec<(RoleIx, NetworkKindIx)>,
    /// Its attributes.
    pub attributes: Vec<(AttributeIx, String)>,
}

impl Filter {
    /// Whether the filter has no part at all.
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty() && self.roles.is_empty() && self.attributes.is_empty()
    }

    /// Whether a unit with these facts passes.
    pub fn admits(&self, facts: &Facts) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&facts.kind))
            && self.roles.iter().all(|any| any.iter().any(|role| facts.roles.contains(role)))
            && self.attributes.iter().all(|(attribute, values)| {
                facts.attributes.iter().any(|(a, v)| a == attribute && values.contains(v))
            })
    }
}

/// One line of a form: an element asked there.
#[derive(Clone, Debug)]
pub struct Line {
    /// The element.
    pub element: ElementIx,
    /// Whether a report without it is incomplete.
    pub required: bool,
    /// Of which of the form's units it is asked.
    pub asked_of: Filter,
    /// First day it is asked; none = always.
    pub from: Option<Date>,
    /// First day it is no longer asked; none = for ever.
    pub to: Option<Date>,
    /// The largest value a single report of this form may hold; never above the element's.
    pub max: u64,
}

impl Line {
    /// Whether the line is asked of a unit with these facts for a period whose duty day is `day`.
    pub fn asks(&self, facts: &Facts, day: Date) -> bool {
        self.from.is_none_or(|from| from <= day)
            && self.to.is_none_or(|to| day < to)
            && self.asked_of.admits(facts)
    }
}

/// A report form (data set).
#[derive(Clone, Debug)]
pub struct Form {
    /// Its code.
    pub code: FormCode,
    /// Its name.
    pub name: Text,
    /// The kinds of unit that report it.
    pub kinds: Vec<KindIx>,
    /// The type of its periods.
    pub period_type: PeriodType,
    /// On which days it is due, for a daily form.
    pub days: Days,
    /// When it is due.
    pub due: Due,
    /// How long after the due time a report still counts as on time, in minutes.
    pub grace_minutes: u32,
    /// First day the form is in force; none = always.
    pub from: Option<Date>,
    /// First day it is no longer in force; none = for ever.
    pub to: Option<Date>,
    /// Its lines, in the order they are shown. A report's values stand in this order.
    pub lines: Vec<Line>,
}

impl Form {
    /// The place of `element` among the lines.
    pub fn line_of(&self, element: ElementIx) -> Option<usize> {
        self.lines.iter().position(|line| line.element == element)
    }

    /// Whether the whole of `period` lies in the form's dates.
    pub fn in_force(&self, period: Period) -> bool {
        self.from.is_none_or(|from| from <= period.first_day())
            && self.to.is_none_or(|to| period.last_day() < to)
    }
}

/// A checked catalogue.
#[derive(Clone, Debug)]
pub struct Catalogue {
    /// Its name.
    pub name: Text,
    /// Its version, for example `2026.1`.
    pub version: String,
    /// Which bytes it was read from.
    pub hash: CatalogueHash,
    /// The time zone of due times and of "today".
    pub time_zone: TimeZone,
    /// Names of the units of measure by code.
    pub units: HashMap<String, Text>,
    /// Kinds of unit.
    pub kinds: Vec<Kind>,
    /// Kinds of network.
    pub network_kinds: Vec<NetworkKind>,
    /// Roles.
    pub roles: Vec<Role>,
    /// Attributes.
    pub attributes: Vec<Attribute>,
    /// Elements.
    pub elements: Vec<Element>,
    /// Codes kept for elements to come: rules may name them already and wait.
    pub reserved: Vec<ElementCode>,
    /// Forms.
    pub forms: Vec<Form>,
    /// Validation rules.
    pub rules: Vec<Rule>,
    /// Derived indicators.
    pub indicators: Vec<Indicator>,
}

fn find<T, I>(list: &[T], code: &str, of: impl Fn(&T) -> &str, ix: impl Fn(u16) -> I) -> Option<I> {
    let at = list.iter().position(|item| of(item) == code)?;
    u16::try_from(at).ok().map(ix)
}

impl Catalogue {
    /// The kind with this code.
    pub fn kind(&self, code: &str) -> Option<KindIx> {
        find(&self.kinds, code, |k| k.code.as_str(), KindIx)
    }

    /// The network kind with this code.
    pub fn network_kind(&self, code: &str) -> Option<NetworkKindIx> {
        find(&self.network_kinds, code, |k| k.code.as_str(), NetworkKindIx)
    }

    /// The role with this code.
    pub fn role(&self, code: &str) -> Option<RoleIx> {
        find(&self.roles, code, |r| r.code.as_str(), RoleIx)
    }

    /// The attribute with this code.
    pub fn attribute(&self, code: &str) -> Option<AttributeIx> {
        find(&self.attributes, code, |a| a.code.as_str(), AttributeIx)
    }

    /// The element with this code.
    pub fn element(&self, code: &str) -> Option<ElementIx> {
        find(&self.elements, code, |e| e.code.as_str(), ElementIx)
    }

    /// The form with this code.
    pub fn form(&self, code: &str) -> Option<FormIx> {
        find(&self.forms, code, |f| f.code.as_str(), FormIx)
    }

    /// The rule with this code.
    pub fn rule(&self, code: &str) -> Option<RuleIx> {
        find(&self.rules, code, |r| r.code.as_str(), RuleIx)
    }

    /// The indicator with this code.
    pub fn indicator(&self, code: &str) -> Option<IndicatorIx> {
        find(&self.indicators, code, |i| i.code.as_str(), IndicatorIx)
    }

    /// The level with this code: `facility`, an administrative kind or a kind of network.
    pub fn level(&self, code: &str) -> Option<Level> {
        if code == "facility" {
            return Some(Level::Facility);
        }
        let place = self
            .kind(code)
            .filter(|kind| self.kinds[kind.at()].class == Class::Administrative)
            .map(Level::Unit);
        place.or_else(|| self.network_kind(code).map(Level::Network))
    }

    /// The calendar day it is at `at` in the catalogue's time zone.
    pub fn day_at(&self, at: Millis) -> Date {
        let date = at.timestamp().to_zoned(self.time_zone.clone()).date();
        Date::new(date.year(), date.month(), date.day()).unwrap_or(if at.0 < 0 {
            Date::MIN
        } else {
            Date::MAX
        })
    }

    /// The moment `hour`:`minute` of `date` in the catalogue's time zone (the later one where the clock
    /// is turned back, the first after the gap where it is turned forward).
    pub fn moment(&self, date: Date, hour: u8, minute: u8) -> Millis {
        let clamp = |n: u8, max: u8| i8::try_from(n.min(max)).unwrap_or(0);
        let local = date.civil().at(clamp(hour, 23), clamp(minute, 59), 0, 0);
        match self.time_zone.to_ambiguous_zoned(local).later() {
            Ok(zoned) => zoned.timestamp().into(),
            Err(_) => Millis(i64::from(date.days()) * 86_400_000),
        }
    }

    /// The last moment at which something due on `date` at `hour`:`minute` is in time: as everywhere, 23:59 stands
    /// for the end of the day.
    pub fn due_at(&self, date: Date, hour: u8, minute: u8) -> Millis {
        let at = self.moment(date, hour, minute);
        if (hour, minute) == (23, 59) { at.plus(59_999) } else { at }
    }

    /// The first moment of `date` in the catalogue's time zone.
    pub fn midnight(&self, date: Date) -> Millis {
        self.moment(date, 0, 0)
    }
}

#[cfg(test)]
mod tests;
