//! Which figures a change of the registry or the catalogue moves: the same counts, asked twice.

use std::collections::{BTreeMap, BTreeSet};

use banyan_shared::catalogue::{Class, FormIx};
use banyan_shared::ids::Millis;
use banyan_shared::organisation::Organisation;
use banyan_shared::period::{Date, Period, PeriodType};
use serde::{Deserialize, Serialize};

use super::diff::RegistryChange;
use crate::query::{Engine, Membership, QueryRequest};
use crate::state::State;

/// Most places compared.
const PLACES_MAX: usize = 40;
/// Most units whose places are looked up.
const TOUCHED_MAX: usize = 2000;
/// Most figures listed of one month.
const FIGURES_MAX: usize = 2000;

/// A figure that moves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moved {
    /// The month.
    pub period: String,
    /// Under which map: `as_it_was` or `today`.
    pub membership: String,
    /// The unit or network.
    pub unit: String,
    /// Its name.
    pub name: String,
    /// The element or indicator, or `reports_expected`, `reports_received`.
    pub item: String,
    /// Its value before; none where it had none.
    pub before: Option<f64>,
    /// Its value after; none where it has none.
    pub after: Option<f64>,
}

/// Duties that come and go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DutiesMoved {
    /// The month.
    pub period: String,
    /// The form.
    pub form: String,
    /// Reports that become due.
    pub appear: usize,
    /// Reports that are no longer due.
    pub vanish: usize,
}

/// The months of this and the past year for which anything was reported.
pub(crate) fn months_with_data(state: &State, now: Millis) -> Vec<Period> {
    let today = state.catalogue.day_at(now);
    let this = Period::containing(PeriodType::Month, today);
    let (year, _, _) = today.ymd();
    let mut months = BTreeSet::new();
    for form in state.cube.forms() {
        let recent =
            form.months().into_iter().filter(|month| month.first_day().ymd().0 >= year - 1);
        months.extend(recent.filter(|month| *month <= this));
    }
    months.into_iter().collect()
}

/// A place to compare.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PlaceOf {
    /// How far below the top; networks come after every unit.
    depth: usize,
    pub(crate) code: String,
}

/// The places whose figures the changes may move, and how many more there are.
pub(crate) fn places(
    changes: &[RegistryChange],
    sides: [&Organisation; 2],
    days: &[Date],
) -> (Vec<PlaceOf>, usize) {
    const QUIET: [&str; 3] = ["code_changed", "contact_changed", "unit_renamed"];
    let loud = changes.iter().filter(|change| !QUIET.contains(&change.what.as_str()));
    let touched: BTreeSet<&str> =
        loud.flat_map(|change| change.subject.iter().take(2)).map(String::as_str).collect();
    let mut found = BTreeSet::new();
    for organisation in sides {
        let administrative = |unit| organisation.class(unit) == Class::Administrative;
        for code in touched.iter().take(TOUCHED_MAX) {
            if organisation.network(code).is_some() {
                found.insert(PlaceOf { depth: usize::MAX, code: (*code).to_owned() });
            }
            let Some(unit) = organisation.unit(code) else { continue };
            for day in days {
                let path = organisation.path(unit, *day);
                for (depth, above) in path.iter().enumerate().filter(|(_, u)| administrative(**u)) {
                    let code = organisation.code(*above).to_string();
                    found.insert(PlaceOf { depth, code });
                }
                for network in organisation.networks_of(unit, *day, None) {
                    let code = organisation.network_code(network).to_string();
                    found.insert(PlaceOf { depth: usize::MAX, code });
                }
            }
        }
    }
    let mut list: Vec<PlaceOf> = Vec::new();
    for place in found {
        // A unit may lie at two depths of two maps: once is enough.
        if !list.iter().any(|known| known.code == place.code) {
            list.push(place);
        }
    }
    let left_out = list.len().saturating_sub(PLACES_MAX);
    list.truncate(PLACES_MAX);
    (list, left_out)
}

/// What a place's figures of a month come to, by item.
fn figures(
    engine: &Engine<'_>,
    place: &str,
    month: Period,
    membership: Membership,
    now: Millis,
) -> Option<(String, BTreeMap<String, f64>)> {
    let request = QueryRequest {
        place: place.to_owned(),
        period: month.to_string(),
        membership,
        ..QueryRequest::default()
    };
    let answer = engine.query(&request, now).ok()?;
    let mut items = BTreeMap::new();
    if let Some(row) = answer.rows.first() {
        for (code, figure) in row.elements.iter() {
            // Counts of people and visits lie far below 2^53.
            items.extend(figure.value.map(|value| (code.to_owned(), value as f64)));
        }
        for (code, figure) in row.indicators.iter() {
            items.extend(figure.value.map(|value| (code.to_owned(), value)));
        }
    }
    items.insert("reports_expected".into(), answer.completeness.expected as f64);
    items.insert("reports_received".into(), answer.completeness.received as f64);
    Some((answer.name, items))
}

/// The figures of one place and month that differ, under both maps.
pub(crate) fn moved(
    old: &Engine<'_>,
    new: &Engine<'_>,
    place: &str,
    month: Period,
    now: Millis,
    out: &mut Vec<Moved>,
) {
    for (membership, text) in [(Membership::AsItWas, "as_it_was"), (Membership::Today, "today")] {
        let before = figures(old, place, month, membership, now);
        let after = figures(new, place, month, membership, now);
        let name = after.as_ref().or(before.as_ref()).map_or_else(String::new, |f| f.0.clone());
        let (before, after) =
            (before.map(|f| f.1).unwrap_or_default(), after.map(|f| f.1).unwrap_or_default());
        let items: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for item in items {
            let (was, is) = (before.get(item).copied(), after.get(item).copied());
            if was != is && out.len() < FIGURES_MAX {
                out.push(Moved {
                    period: month.to_string(),
                    membership: text.to_owned(),
                    unit: place.to_owned(),
                    name: name.clone(),
                    item: item.clone(),
                    before: was,
                    after: is,
                });
            }
        }
    }
}

/// How many duties of a month come and go, form by form.
pub(crate) fn duties(old: &Engine<'_>, new: &Engine<'_>, month: Period) -> Vec<DutiesMoved> {
    let mut out = Vec::new();
    let forms: BTreeSet<&str> = [old, new]
        .into_iter()
        .flat_map(|engine| engine.catalogue.forms.iter().map(|form| form.code.as_str()))
        .collect();
    for form in forms {
        let of = |engine: &Engine<'_>| engine.catalogue.form(form);
        let (before, after) = (of(old), of(new));
        let kind = before
            .map(|form| old.catalogue.forms[form.at()].period_type)
            .or(after.map(|form| new.catalogue.forms[form.at()].period_type));
        let Some(kind) = kind else { continue };
        let (mut appear, mut vanish) = (0, 0);
        for period in month.parts(kind) {
            let owing = |engine: &Engine<'_>, form: Option<FormIx>| {
                let units = form.map(|form| engine.owing(form, period)).unwrap_or_default();
                units.into_iter().cloned().collect::<BTreeSet<_>>()
            };
            let (was, is) = (owing(old, before), owing(new, after));
            appear += is.difference(&was).count();
            vanish += was.difference(&is).count();
        }
        if appear + vanish > 0 {
            let form = form.to_owned();
            out.push(DutiesMoved { period: month.to_string(), form, appear, vanish });
        }
    }
    out
}
