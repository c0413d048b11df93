//! The answers, as they stand in JSON (`docs/formats.md`). The order of the fields is the order on the wire.

use std::sync::Arc;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use banyan_shared::catalogue::Direction;
use banyan_shared::figures::State;
use banyan_shared::tables::registry::TargetStatus;

use super::items::{Item, SharedText};

/// A JSON object whose keys keep their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ordered<T>(pub Vec<(String, T)>);

impl<T> Default for Ordered<T> {
    fn default() -> Ordered<T> {
        Ordered(Vec::new())
    }
}

impl<T> Ordered<T> {
    /// The entry with this key.
    pub fn get(&self, key: &str) -> Option<&T> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, value)| value)
    }
}

impl<T: Serialize> Serialize for Ordered<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Ordered<T>, D::Error> {
        struct Pairs<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Pairs<T> {
            type Value = Ordered<T>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered<T>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Ordered(pairs))
            }
        }
        deserializer.deserialize_map(Pairs(std::marker::PhantomData))
    }
}

/// The largest whole number that a binary floating-point number holds without loss.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// A number in JSON: a whole one without a decimal point.
fn plain<S: Serializer>(n: &Option<f64>, out: S) -> Result<S::Ok, S::Error> {
    match n {
        None => out.serialize_none(),
        Some(n) if n.fract() == 0.0 && n.abs() < WHOLE_MAX => out.serialize_i64(*n as i64),
        Some(n) => out.serialize_f64(*n),
    }
}

/// Which row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowKey {
    /// Unit code.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unit: Option<String>,
    /// Network code.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub network: Option<String>,
    /// Kind code.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kind: Option<String>,
    /// Role code.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub role: Option<String>,
    /// The name of the first of these.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// Names from the top of the tree, where names repeat or names were asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<Vec<String>>,
    /// The period or range.
    pub period: String,
}

/// Figures in the catalogue's order; in JSON an object, each under the code of its item.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures<T>(Box<[T]>);

impl<T> Default for Figures<T> {
    fn default() -> Figures<T> {
        Figures(Box::default())
    }
}

impl<T> FromIterator<T> for Figures<T> {
    fn from_iter<I: IntoIterator<Item = T>>(figures: I) -> Figures<T> {
        Figures(figures.into_iter().collect())
    }
}

impl<T: AsRef<Item>> Figures<T> {
    /// Each with the code of its item.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.0.iter().map(|figure| (figure.as_ref().code.as_str(), figure))
    }

    /// The figure of the item with this code.
    pub fn get(&self, code: &str) -> Option<&T> {
        self.0.iter().find(|figure| figure.as_ref().code == code)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: AsRef<Item> + Serialize> Serialize for Figures<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

/// What only some figures have to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Remarks {
    pub(super) flags: Box<[SharedText]>,
    pub(super) area: Option<SharedText>,
    pub(super) absent: Box<[SharedText]>,
    pub(super) waiting_for: Box<[WaitingFor]>,
}

impl Remarks {
    /// As a figure holds them: nothing, if there are none.
    pub(super) fn held(self) -> Option<Box<Remarks>> {
        (self != Remarks::default()).then(|| Box::new(self))
    }
}

/// One element's figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElementFigure {
    /// The value; none unless the state is `reported`.
    pub value: Option<u64>,
    /// The element.
    pub item: Arc<Item>,
    /// Reports with a number.
    pub reports: u64,
    /// Reports expected to give one.
    pub expected: u64,
    /// Reports that answered "not applicable".
    pub not_applicable: u64,
    /// Facilities with at least one number.
    pub facilities: u64,
    /// Facilities expected to give one.
    pub facilities_expected: u64,
    pub(super) remarks: Option<Box<Remarks>>,
    /// Whether there is a value, and if not, why.
    pub state: State,
    /// Whether names were asked for.
    pub(super) named: bool,
}

impl AsRef<Item> for ElementFigure {
    fn as_ref(&self) -> &Item {
        &self.item
    }
}

impl ElementFigure {
    /// What the reader should know of the value.
    pub fn flags(&self) -> &[SharedText] {
        self.remarks.as_ref().map_or(&[], |remarks| &remarks.flags)
    }

    /// The area, on a network's page where the figure is its area's.
    pub fn area(&self) -> Option<&str> {
        self.remarks.as_ref()?.area.as_deref()
    }
}

impl Serialize for ElementFigure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Json<'a> {
            value: Option<u64>,
            state: State,
            unit: &'a str,
            reports: u64,
            expected: u64,
            not_applicable: u64,
            facilities: u64,
            facilities_expected: u64,
            definition: &'a str,
            flags: &'a [SharedText],
            #[serde(skip_serializing_if = "Option::is_none")]
            scope: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            area: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            name: Option<&'a str>,
        }
        let item = &*self.item;
        let json = Json {
            value: self.value,
            state: self.state,
            unit: &item.unit,
            reports: self.reports,
            expected: self.expected,
            not_applicable: self.not_applicable,
            facilities: self.facilities,
            facilities_expected: self.facilities_expected,
            definition: &item.definition,
            flags: self.flags(),
            scope: self.area().map(|_| "area"),
            area: self.area(),
            name: self.named.then_some(item.name.as_str()),
        };
        json.serialize(serializer)
    }
}

/// How much of an indicator's set its value covers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Coverage {
    /// Facility-periods matched.
    pub matched: u64,
    /// Facility-periods in the formula.
    pub expected: u64,
    /// The matched facilities' usual share of the denominator.
    #[serde(serialize_with = "plain")]
    pub share_of_usual: Option<f64>,
}

/// A report an indicator waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WaitingFor {
    /// The form.
    pub form: SharedText,
    /// The unit that owes it.
    pub unit: SharedText,
    /// When it is due.
    pub due: SharedText,
}

/// The target that applies to an indicator.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetFigure {
    /// The bound that counts, where one does.
    pub bound: Option<f64>,
    /// The lower bound.
    pub low: Option<f64>,
    /// The upper bound.
    pub high: Option<f64>,
    /// For a target of the year: what should be reached by now.
    pub pace: Option<f64>,
    /// Where it comes from.
    pub source: SharedText,
    /// How far it can be relied on.
    pub status: TargetStatus,
}

/// One indicator's figure.
#[derive(Clone, Debug, PartialEq)]
pub struct IndicatorFigure {
    /// The value, rounded to the catalogue's decimals; none unless the state is `reported`.
    pub value: Option<f64>,
    /// Above the line.
    pub numerator: Option<f64>,
    /// Below the line.
    pub denominator: Option<f64>,
    /// What the value covers.
    pub coverage: Coverage,
    /// The indicator, under the definition in force.
    pub item: Arc<Item>,
    /// The target that applies.
    pub target: Option<Box<TargetFigure>>,
    pub(super) remarks: Option<Box<Remarks>>,
    /// Whether there is a value, and if not, why.
    pub state: State,
    /// Which way is better.
    pub direction: Direction,
    /// Whether the target is met, judged on the unrounded value.
    pub met: Option<bool>,
    /// Whether names were asked for.
    pub(super) named: bool,
}

impl AsRef<Item> for IndicatorFigure {
    fn as_ref(&self) -> &Item {
        &self.item
    }
}

impl IndicatorFigure {
    /// What the reader should know of the value.
    pub fn flags(&self) -> &[SharedText] {
        self.remarks.as_ref().map_or(&[], |remarks| &remarks.flags)
    }

    /// Whether a flag is raised.
    pub fn has_flag(&self, code: &str) -> bool {
        self.flags().iter().any(|flag| &**flag == code)
    }

    /// Whether a formula was worked out and comes to no number.
    pub fn is_undefined(&self) -> bool {
        self.has_flag("denominator_zero") || self.has_flag("too_large")
    }

    /// The area, where the figure is an area's.
    pub fn area(&self) -> Option<&str> {
        self.remarks.as_ref()?.area.as_deref()
    }

    /// Kinds wholly missing from it.
    pub fn absent(&self) -> &[SharedText] {
        self.remarks.as_ref().map_or(&[], |remarks| &remarks.absent)
    }

    /// The reports it waits for.
    pub fn waiting_for(&self) -> &[WaitingFor] {
        self.remarks.as_ref().map_or(&[], |remarks| &remarks.waiting_for)
    }

    /// The target's bound that counts, where one does.
    pub fn bound(&self) -> Option<f64> {
        self.target.as_ref()?.bound
    }

    /// The target's lower bound.
    pub fn low(&self) -> Option<f64> {
        self.target.as_ref()?.low
    }

    /// The target's upper bound.
    pub fn high(&self) -> Option<f64> {
        self.target.as_ref()?.high
    }

    /// For a target of the year: what should be reached by now.
    pub fn pace(&self) -> Option<f64> {
        self.target.as_ref()?.pace
    }
}

impl Serialize for IndicatorFigure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Json<'a> {
            #[serde(serialize_with = "plain")]
            value: Option<f64>,
            state: State,
            unit: &'a str,
            #[serde(serialize_with = "plain")]
            numerator: Option<f64>,
            #[serde(serialize_with = "plain")]
            denominator: Option<f64>,
            factor: u64,
            coverage: &'a Coverage,
            absent: &'a [SharedText],
            waiting_for: &'a [WaitingFor],
            #[serde(serialize_with = "plain")]
            target: Option<f64>,
            #[serde(serialize_with = "plain")]
            low: Option<f64>,
            #[serde(serialize_with = "plain")]
            high: Option<f64>,
            direction: &'a str,
            #[serde(serialize_with = "plain")]
            pace: Option<f64>,
            met: Option<bool>,
            target_source: Option<&'a str>,
            target_status: Option<&'a str>,
            definition: &'a str,
            scope: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            area: Option<&'a str>,
            flags: &'a [SharedText],
            #[serde(skip_serializing_if = "Option::is_none")]
            name: Option<&'a str>,
        }
        let item = &*self.item;
        let target = self.target.as_deref();
        let json = Json {
            value: self.value,
            state: self.state,
            unit: &item.unit,
            numerator: self.numerator,
            denominator: self.denominator,
            factor: item.factor,
            coverage: &self.coverage,
            absent: self.absent(),
            waiting_for: self.waiting_for(),
            target: self.bound(),
            low: self.low(),
            high: self.high(),
            direction: self.direction.name(),
            pace: self.pace(),
            met: self.met,
            target_source: target.map(|target| &*target.source),
            target_status: target.map(|target| target.status.code()),
            definition: &item.definition,
            scope: if self.area().is_some() { "area" } else { "set" },
            area: self.area(),
            flags: self.flags(),
            name: self.named.then_some(item.name.as_str()),
        };
        json.serialize(serializer)
    }
}

/// One row.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Row {
    /// Which.
    pub key: RowKey,
    /// Elements by code.
    pub elements: Figures<ElementFigure>,
    /// Indicators by code.
    pub indicators: Figures<IndicatorFigure>,
}

/// Missing by cause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingCounts {
    /// Returned for correction.
    pub returned: u64,
    /// Refused.
    pub refused: u64,
    /// Parked.
    pub parked: u64,
    /// Not enrolled.
    pub not_enrolled: u64,
    /// Waiting at the site; none for a moment in the past.
    pub backlog_known: Option<u64>,
    /// Site silent; none for a moment in the past.
    pub silent: Option<u64>,
    /// Not entered.
    pub not_entered: u64,
}

/// Completeness of one form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormCompleteness {
    /// The form.
    pub form: String,
    /// Owed, for ended periods.
    pub expected: u64,
    /// Answered.
    pub received: u64,
    /// In time.
    pub on_time: u64,
    /// Late.
    pub late: u64,
    /// Not answered, still in time.
    pub not_yet_due: u64,
    /// Not answered, too late.
    pub missing: u64,
}

/// Completeness of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompletenessFigure {
    /// Owed, for ended periods.
    pub expected: u64,
    /// Answered.
    pub received: u64,
    /// In time.
    pub on_time: u64,
    /// Late.
    pub late: u64,
    /// Of late: entered in time.
    pub late_by_network: u64,
    /// Not answered, still in time.
    pub not_yet_due: u64,
    /// Not answered, too late.
    pub missing: u64,
    /// Of received: a required element unanswered.
    pub incomplete: u64,
    /// Of received: entered on the facility's behalf.
    pub proxy: u64,
    /// Answered though nobody owed it.
    pub unexpected: u64,
    /// Missing by cause.
    pub missing_why: MissingCounts,
    /// By form, in the catalogue's order.
    pub by_form: Vec<FormCompleteness>,
}

impl CompletenessFigure {
    /// The counts in the order of the completeness columns, from `expected` to `proxy`.
    pub fn parts(&self) -> [u64; 9] {
        [
            self.expected,
            self.received,
            self.on_time,
            self.late,
            self.late_by_network,
            self.not_yet_due,
            self.missing,
            self.incomplete,
            self.proxy,
        ]
    }
}

/// How fresh the figures are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freshness {
    /// When the newest report of the set and period was received.
    pub newest_receipt: Option<String>,
    /// Facilities in the set on the last day.
    pub sites: u64,
    /// Of them: with an agent enrolled.
    pub sites_enrolled: u64,
    /// Of them: known to hold reports back; none for a moment in the past.
    pub sites_with_backlog: Option<u64>,
    /// Of them: not heard of lately; none for a moment in the past.
    pub sites_silent: Option<u64>,
}

/// A line of the reconciliation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddendFigure {
    /// How many facilities.
    pub facilities: u64,
    /// Their value.
    pub value: u64,
}

/// What lies in no group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NoneFigure {
    /// How many facilities.
    pub facilities: u64,
    /// Their value.
    pub value: u64,
    /// The same by kind.
    pub by_kind: Ordered<AddendFigure>,
}

/// How the groups' sum leads to the administrative total:
/// `sum_of_groups − more_than_once − outside_area + in_none = administrative_total`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReconciliationFigure {
    /// The groups' own figures, added.
    pub sum_of_groups: AddendFigure,
    /// What is in it more than once.
    pub more_than_once: AddendFigure,
    /// What lies outside the area.
    pub outside_area: AddendFigure,
    /// What lies in no group.
    pub in_none: NoneFigure,
    /// The area's own figure.
    pub administrative_total: AddendFigure,
}

/// The answer to a question for figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct QueryAnswer {
    /// Code of the unit or network.
    pub unit: String,
    /// Its name.
    pub name: String,
    /// Names from the top of the tree.
    pub path: Vec<String>,
    /// `administrative` or `network`.
    pub view: String,
    /// The kind of network, in a network's view.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub network_kind: Option<String>,
    /// The period or range.
    pub period: String,
    /// `as_it_was`, `today` or `date`.
    pub membership: String,
    /// The day of the map, unless it is each period's own.
    pub map_date: Option<String>,
    /// As known at this moment.
    pub as_of: String,
    /// The catalogue's version.
    pub catalogue: String,
    /// `open`, `signed` or `locked`.
    pub stage: String,
    /// Whether the figures may still change without notice.
    pub provisional: bool,
    /// Whether figures differ from those locked.
    pub restated: bool,
    /// Versions that wait for approval behind a lock.
    pub pending_after_lock: u64,
    /// Reports of which several versions stand.
    pub conflicts: u64,
    /// The rows, each shared with the other answers that have it.
    pub rows: Vec<Arc<Row>>,
    /// Completeness of the whole set and span.
    pub completeness: CompletenessFigure,
    /// Freshness of the whole set.
    pub freshness: Freshness,
    /// By element, where the rows are networks.
    pub reconciliation: Option<Ordered<ReconciliationFigure>>,
}

/// One row of completeness.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompletenessRow {
    /// Which.
    pub key: RowKey,
    /// All forms together.
    #[serde(flatten)]
    pub total: CompletenessFigure,
    /// Each form in full, for the CSV.
    #[serde(skip)]
    pub forms: Vec<(String, CompletenessFigure)>,
}

/// The answer to a question about completeness.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompletenessAnswer {
    /// Code of the unit or network.
    pub unit: String,
    /// Its name.
    pub name: String,
    /// Names from the top of the tree.
    pub path: Vec<String>,
    /// `administrative` or `network`.
    pub view: String,
    /// The period or range.
    pub period: String,
    /// The form, if one was asked for.
    pub form: Option<String>,
    /// `as_it_was`, `today` or `date`.
    pub membership: String,
    /// The day of the map, unless it is each period's own.
    pub map_date: Option<String>,
    /// As known at this moment.
    pub as_of: String,
    /// The whole set and span.
    pub completeness: CompletenessFigure,
    /// Each form of it in full, for the pages.
    #[serde(skip)]
    pub forms: Vec<(String, CompletenessFigure)>,
    /// The rows.
    pub rows: Vec<CompletenessRow>,
    /// Freshness of the whole set.
    pub freshness: Freshness,
}
