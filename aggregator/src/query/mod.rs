//! Questions and answers: figures, completeness, and the trace of a number.
//!
//! Promises that every answer is a pure function of catalogue, organisation, cube, what is known of sites, and
//! the moment of the question, which are all handed in; that a total is over a set of facilities, each once;
//! and that a figure says what it covers. What the figures mean is `banyan_shared::figures`; here they are
//! computed over columns. Leaves HTTP and the command line to others.

mod answer;
mod complete;
mod plan;
mod render;
mod request;
mod sets;
mod tally;
mod trace;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use banyan_shared::catalogue::{
    Catalogue, Class, ElementIx, FormIx, Lang, OverTime, Scope as ElementScope,
};
use banyan_shared::figures::{self, Addend, Completeness, MissingWhy, Tally};
use banyan_shared::ids::Millis;
use banyan_shared::organisation::{Days, Found, Lookup, NetworkIx, Organisation, UnitIx};
use banyan_shared::period::{Date, Period, PeriodType, Span};

use crate::cube::Cube;

pub use answer::*;
pub use complete::{Mark, SILENT_AFTER_MS, SiteState, SiteStates};
pub use plan::{Plans, reserve};
pub(crate) use render::{align, causes, flag_text, grouped, status_text, table};
pub use render::{completeness_csv, completeness_table, query_csv, query_table, trace_table};
pub use request::{CompletenessRequest, Dims, Membership, QueryError, QueryRequest, UnitDim};
pub use trace::{Trace, TraceValue, TraceVersion};

use complete::Remarks;
use request::{dims, similar};
use sets::{Key, Scope};
use tally::{Counts, When, day_of};

/// Most rows an answer may have.
pub const ROWS_MAX: usize = 100_000;

/// Everything a question is answered from.
#[derive(Clone, Copy, Debug)]
pub struct Engine<'a> {
    /// The catalogue.
    pub catalogue: &'a Catalogue,
    /// The organisation, as known at the moment asked for.
    pub organisation: &'a Organisation,
    /// The counts.
    pub cube: &'a Cube,
    /// What is known of sites.
    pub sites: &'a SiteStates,
    /// What was worked out before for this catalogue and organisation.
    pub plans: &'a Plans,
}

/// A place found.
struct Place {
    scope: Scope,
    code: String,
    name: String,
    path: Vec<String>,
}

impl Engine<'_> {
    /// Answers a question for figures. `now` is the present; the question may ask for an earlier moment.
    ///
    /// # Errors
    /// Why the question cannot be answered, and what to ask instead.
    pub fn query(&self, request: &QueryRequest, now: Millis) -> Result<QueryAnswer, QueryError> {
        let span: Span = request.period.parse().map_err(|reason| QueryError::Period { reason })?;
        let when = self.when(request.membership, request.as_of, now);
        let place = self.place(&request.place, span, when.map)?;
        let dims = dims(self.catalogue, &request.by, request.network.as_deref())?;
        let dims = self.with_network_kind(dims, place.scope)?;
        if let Some(text) = request.indicators.first() {
            return Err(QueryError::NoIndicators { text: text.clone() });
        }
        let asked = self.elements(&request.elements)?;
        let spans = pieces(span, dims.period)?;
        let mut rows = Vec::new();
        for piece in &spans {
            let wanted = self.wanted(asked.as_deref(), *piece)?;
            let mut counts = self.count(place.scope, &dims, *piece, &wanted, when);
            if !dims.divides_units() {
                counts.entry(Key::default()).or_default();
                self.add_area(place.scope, *piece, &wanted, when, &mut counts);
            } else if asked.is_some() {
                // A row asked for by name is there even if it has nothing to say.
                for key in self.keys_of(place.scope, &dims, *piece, when) {
                    counts.entry(key).or_default();
                }
            }
            if rows.len() + counts.len() > ROWS_MAX {
                return Err(QueryError::TooManyRows { limit: ROWS_MAX });
            }
            for (key, elements) in counts {
                rows.push((*piece, key, elements));
            }
        }
        self.sort(&mut rows);
        let whole = Dims::default();
        let mut remarks = Remarks::default();
        let complete = self.complete(place.scope, &whole, span, None, when, &mut remarks);
        let reconciliation = self.reconciliation(place.scope, &dims, span, &rows, when);
        let keys: Vec<(Span, Key)> = rows.iter().map(|(piece, key, _)| (*piece, *key)).collect();
        let keys = self.row_keys(&keys, place.scope, &dims, when, request.names);
        let rows = rows
            .into_iter()
            .zip(keys)
            .map(|((_, _, elements), key)| Row {
                key,
                elements: self.figures(place.scope, elements, asked.as_deref(), request.names),
                indicators: Ordered::default(),
            })
            .filter(|row| asked.is_some() || !dims.divides_units() || !row.elements.0.is_empty())
            .collect();
        let (membership, map_date) = membership_text(request.membership, when.map);
        Ok(QueryAnswer {
            unit: place.code,
            name: place.name,
            path: place.path,
            view: view(place.scope).to_owned(),
            network_kind: self.network_kind_of(place.scope),
            period: span.to_string(),
            membership,
            map_date,
            as_of: self.time_text(when.now),
            catalogue: self.catalogue.version.clone(),
            stage: "open".to_owned(),
            provisional: true,
            restated: false,
            pending_after_lock: remarks.pending,
            conflicts: remarks.conflicts,
            rows,
            completeness: self
                .completeness_figure(complete.iter().map(|((_, form), c)| (*form, c)), when),
            freshness: self.freshness(place.scope, span, when, remarks.newest),
            reconciliation,
        })
    }

    /// Answers a question about completeness.
    ///
    /// # Errors
    /// Why the question cannot be answered, and what to ask instead.
    pub fn completeness(
        &self,
        request: &CompletenessRequest,
        now: Millis,
    ) -> Result<CompletenessAnswer, QueryError> {
        let span: Span = request.period.parse().map_err(|reason| QueryError::Period { reason })?;
        let when = self.when(request.membership, request.as_of, now);
        let place = self.place(&request.place, span, when.map)?;
        let dims = dims(self.catalogue, &request.by, request.network.as_deref())?;
        let dims = self.with_network_kind(dims, place.scope)?;
        let form = match &request.form {
            None => None,
            Some(text) => Some(self.catalogue.form(text).ok_or_else(|| self.unknown_form(text))?),
        };
        let mut remarks = Remarks::default();
        let whole = self.complete(place.scope, &Dims::default(), span, form, when, &mut remarks);
        let mut rows: Vec<(Span, Key, BTreeMap<FormIx, Completeness>)> = Vec::new();
        for piece in pieces(span, dims.period)? {
            let mut found: BTreeMap<Key, BTreeMap<FormIx, Completeness>> = BTreeMap::new();
            for ((key, form), counts) in
                self.complete(place.scope, &dims, piece, form, when, &mut Remarks::default())
            {
                found.entry(key).or_default().insert(form, counts);
            }
            if rows.len() + found.len() > ROWS_MAX {
                return Err(QueryError::TooManyRows { limit: ROWS_MAX });
            }
            rows.extend(found.into_iter().map(|(key, forms)| (piece, key, forms)));
        }
        self.sort(&mut rows);
        let keys: Vec<(Span, Key)> = rows.iter().map(|(piece, key, _)| (*piece, *key)).collect();
        let keys = self.row_keys(&keys, place.scope, &dims, when, false);
        let (membership, map_date) = membership_text(request.membership, when.map);
        Ok(CompletenessAnswer {
            unit: place.code,
            name: place.name,
            path: place.path,
            view: view(place.scope).to_owned(),
            period: span.to_string(),
            form: request.form.clone(),
            membership,
            map_date,
            as_of: self.time_text(when.now),
            completeness: self
                .completeness_figure(whole.iter().map(|((_, form), c)| (*form, c)), when),
            rows: rows
                .iter()
                .zip(keys)
                .map(|((_, _, forms), key)| CompletenessRow {
                    key,
                    total: self.completeness_figure(forms.iter().map(|(form, c)| (*form, c)), when),
                    forms: forms
                        .iter()
                        .map(|(form, counts)| {
                            let code = self.catalogue.forms[form.at()].code.to_string();
                            (code, self.completeness_figure([(*form, counts)].into_iter(), when))
                        })
                        .collect(),
                })
                .collect(),
            freshness: self.freshness(place.scope, span, when, remarks.newest),
        })
    }

    fn when(&self, membership: Membership, as_of: Option<Millis>, now: Millis) -> When {
        let past = as_of.filter(|at| *at < now);
        let now = past.unwrap_or(now);
        let map = match membership {
            Membership::AsItWas => None,
            Membership::Today => Some(self.catalogue.day_at(now)),
            Membership::On(date) => Some(date),
        };
        When { now, past, map }
    }

    /// A moment as RFC 3339 text in the catalogue's time zone.
    pub fn time_text(&self, at: Millis) -> String {
        at.timestamp()
            .to_zoned(self.catalogue.time_zone.clone())
            .strftime("%Y-%m-%dT%H:%M:%S%:z")
            .to_string()
    }

    fn place(&self, text: &str, span: Span, map: Option<Date>) -> Result<Place, QueryError> {
        let org = self.organisation;
        let day = map.unwrap_or(span.last_day());
        let when = map.map_or_else(|| span.to_string(), |day| day.to_string());
        let names = |unit: UnitIx| -> Vec<String> {
            org.path(unit, day)
                .into_iter()
                .map(|at| org.name_on(at, day, Lang::Zh).to_owned())
                .collect()
        };
        match org.find(text, day) {
            Lookup::Candidates(candidates) => {
                Err(QueryError::Place { text: text.to_owned(), candidates })
            }
            Lookup::One(Found::Unit(unit)) => {
                let (code, name) =
                    (org.code(unit).to_string(), org.name_on(unit, day, Lang::Zh).to_owned());
                let spells = &org.info(unit).spells;
                let then = Days { from: Some(span.first_day()), to: Some(span.last_day().plus(1)) };
                // Closed by the map's day it is still followed to its successors; before it existed and
                // after it ended there is nothing to answer.
                if !spells.iter().any(|spell| spell.days().meets(then)) {
                    return Err(QueryError::UnitNotInForce {
                        place: format!("{code} {name}"),
                        days: days_text(spells.iter().map(|spell| spell.days())),
                        when: span.to_string(),
                    });
                }
                Ok(Place { scope: Scope::Unit(unit), code, name, path: names(unit) })
            }
            Lookup::One(Found::Network(network)) => {
                let info = org.network_info(network);
                let then = match map {
                    Some(day) => Days { from: Some(day), to: Some(day.plus(1)) },
                    None => {
                        Days { from: Some(span.first_day()), to: Some(span.last_day().plus(1)) }
                    }
                };
                if !info.days.meets(then) {
                    return Err(QueryError::NetworkNotInForce {
                        place: format!("{} {}", info.code, info.name),
                        days: days_text(std::iter::once(info.days)),
                        when,
                    });
                }
                let mut path = match *info.area {
                    [unit] => names(unit),
                    _ => Vec::new(),
                };
                path.push(info.name.to_string());
                Ok(Place {
                    scope: Scope::Network(network),
                    code: info.code.to_string(),
                    name: info.name.to_string(),
                    path,
                })
            }
        }
    }

    /// The kind of network that the dimensions need: the one asked for, the network's own, or the only one.
    fn with_network_kind(&self, mut dims: Dims, scope: Scope) -> Result<Dims, QueryError> {
        let needed = dims.network || dims.role;
        if dims.network_kind.is_none() && needed {
            dims.network_kind = match scope {
                Scope::Network(n) => Some(self.organisation.network_info(n).kind),
                _ => {
                    let mut kinds: Vec<_> = self
                        .organisation
                        .networks()
                        .map(|n| self.organisation.network_info(n).kind)
                        .collect();
                    kinds.sort_unstable();
                    kinds.dedup();
                    let [kind] = kinds[..] else {
                        let known = kinds
                            .iter()
                            .map(|k| self.catalogue.network_kinds[k.at()].code.to_string());
                        return Err(QueryError::NetworkKind { text: None, known: known.collect() });
                    };
                    Some(kind)
                }
            };
        }
        if !needed {
            dims.network_kind = None;
        }
        Ok(dims)
    }

    fn elements(&self, codes: &[String]) -> Result<Option<Vec<ElementIx>>, QueryError> {
        if codes.is_empty() {
            return Ok(None);
        }
        let mut found = Vec::new();
        for text in
            codes.iter().flat_map(|text| text.split(',')).map(str::trim).filter(|t| !t.is_empty())
        {
            let element = self.catalogue.element(text).ok_or_else(|| QueryError::Unknown {
                what: "element",
                text: text.to_owned(),
                similar: similar(text, self.catalogue.elements.iter().map(|e| e.code.as_str())),
            })?;
            if !found.contains(&element) {
                found.push(element);
            }
        }
        Ok(Some(found))
    }

    fn unknown_form(&self, text: &str) -> QueryError {
        QueryError::Unknown {
            what: "form",
            text: text.to_owned(),
            similar: similar(text, self.catalogue.forms.iter().map(|form| form.code.as_str())),
        }
    }

    /// Which elements to count over `span`: those asked for, or all that can be.
    fn wanted(&self, asked: Option<&[ElementIx]>, span: Span) -> Result<Vec<bool>, QueryError> {
        let crosses = span.first_day().ymd().0 != span.last_day().ymd().0;
        let mut wanted = vec![asked.is_none(); self.catalogue.elements.len()];
        for element in asked.unwrap_or_default() {
            wanted[element.at()] = true;
        }
        for (element, wanted) in self.catalogue.elements.iter().zip(&mut wanted) {
            if *wanted && crosses && element.over_time == OverTime::LastYtd {
                if asked.is_some() {
                    return Err(QueryError::AcrossNewYear {
                        element: element.code.to_string(),
                        span,
                    });
                }
                *wanted = false;
            }
        }
        Ok(wanted)
    }

    /// A network's page shows its area's figures for area elements.
    fn add_area(&self, scope: Scope, span: Span, wanted: &[bool], when: When, counts: &mut Counts) {
        let Scope::Network(network) = scope else { return };
        let mut area_only = wanted.to_vec();
        for (wanted, element) in area_only.iter_mut().zip(&self.catalogue.elements) {
            *wanted &= element.scope == ElementScope::Area;
        }
        let row = counts.entry(Key::default()).or_default();
        row.retain(|element, _| !area_only[element.at()]);
        if area_only.contains(&true) && !self.organisation.network_info(network).area.is_empty() {
            let area = self.count(Scope::Area(network), &Dims::default(), span, &area_only, when);
            row.extend(area.into_values().flatten());
        }
    }

    /// Every row of the set, whether or not anything is asked of it.
    fn keys_of(&self, scope: Scope, dims: &Dims, span: Span, when: When) -> BTreeSet<Key> {
        let forms = self.form_indices();
        forms
            .flat_map(|form| {
                let kind = self.catalogue.forms[form.at()].period_type;
                let mut periods: Vec<Period> = span.parts(kind).collect();
                periods.push(day_of(span));
                let parts =
                    periods.into_iter().map(move |p| self.parts(scope, dims, when.map, form, p));
                parts.flat_map(|parts| parts.keys().collect::<Vec<_>>()).collect::<Vec<_>>()
            })
            .collect()
    }

    fn sort<T>(&self, rows: &mut [(Span, Key, T)]) {
        rows.sort_by_key(|(piece, key, _)| (piece.first_day(), *key));
    }

    fn figures(
        &self,
        scope: Scope,
        mut counts: BTreeMap<ElementIx, tally::Count>,
        asked: Option<&[ElementIx]>,
        names: bool,
    ) -> Ordered<ElementFigure> {
        let list: Vec<ElementIx> = match asked {
            Some(asked) => asked.to_vec(),
            None => counts
                .iter()
                .filter(|(_, c)| {
                    c.tally.asked > 0 || c.tally.givers > 0 || c.tally.not_applicable > 0
                })
                .map(|(element, _)| *element)
                .collect(),
        };
        let figure = |element: ElementIx| {
            let model = &self.catalogue.elements[element.at()];
            let count = counts.remove(&element).unwrap_or_default();
            let (state, value) = figures::element_state(model, &count.tally);
            let Tally {
                reports, expected, not_applicable, facilities, facilities_expected, ..
            } = count.tally;
            let area = match scope {
                Scope::Network(n) if model.scope == ElementScope::Area => Some(self.area_text(n)),
                _ => None,
            };
            let figure = ElementFigure {
                value: value.map(|value| u64::try_from(value).unwrap_or(u64::MAX)),
                state,
                unit: model.unit.clone(),
                reports,
                expected,
                not_applicable,
                facilities,
                facilities_expected,
                definition: model.definition.clone(),
                flags: count.flags.into_iter().collect(),
                scope: area.is_some().then(|| "area".to_owned()),
                area,
                name: names.then(|| model.name.zh.clone()),
            };
            (model.code.to_string(), figure)
        };
        Ordered(list.into_iter().map(figure).collect())
    }

    fn area_text(&self, network: NetworkIx) -> String {
        let area = self.organisation.network_info(network).area.iter();
        area.map(|unit| self.organisation.code(*unit).to_string()).collect::<Vec<_>>().join(";")
    }

    fn completeness_figure<'c>(
        &self,
        forms: impl Iterator<Item = (FormIx, &'c Completeness)>,
        when: When,
    ) -> CompletenessFigure {
        let mut total = Completeness::default();
        let mut by_form = Vec::new();
        for (form, counts) in forms {
            total.merge(counts);
            by_form.push(FormCompleteness {
                form: self.catalogue.forms[form.at()].code.to_string(),
                expected: counts.expected(),
                received: counts.received(),
                on_time: counts.on_time,
                late: counts.late,
                not_yet_due: counts.not_yet_due,
                missing: counts.missing(),
            });
        }
        let live = when.past.is_none();
        let why = |why| total.missing_because(why);
        CompletenessFigure {
            expected: total.expected(),
            received: total.received(),
            on_time: total.on_time,
            late: total.late,
            late_by_network: total.late_by_network,
            not_yet_due: total.not_yet_due,
            missing: total.missing(),
            incomplete: total.incomplete,
            proxy: total.proxy,
            unexpected: total.unexpected,
            missing_why: MissingCounts {
                returned: why(MissingWhy::Returned),
                refused: why(MissingWhy::Refused),
                parked: why(MissingWhy::Parked),
                not_enrolled: why(MissingWhy::NotEnrolled),
                backlog_known: live.then(|| why(MissingWhy::BacklogKnown)),
                silent: live.then(|| why(MissingWhy::Silent)),
                not_entered: why(MissingWhy::NotEntered),
            },
            by_form,
        }
    }

    fn reconciliation(
        &self,
        scope: Scope,
        dims: &Dims,
        span: Span,
        rows: &[(Span, Key, BTreeMap<ElementIx, tally::Count>)],
        when: When,
    ) -> Option<Ordered<ReconciliationFigure>> {
        let only_networks =
            Dims { network: true, network_kind: dims.network_kind, ..Dims::default() };
        if *dims != only_networks || !matches!(scope, Scope::Unit(_)) {
            return None;
        }
        let elements: BTreeSet<ElementIx> =
            rows.iter().flat_map(|(_, _, elements)| elements.keys().copied()).collect();
        let elements: Vec<ElementIx> = elements.into_iter().collect();
        let number = |value: u128| u64::try_from(value).unwrap_or(u64::MAX);
        let addend = |a: &Addend| AddendFigure { facilities: a.facilities, value: number(a.value) };
        let lines =
            self.reconcile(scope, dims, span, &elements, when).into_iter().map(|(element, r)| {
                let kinds = r.in_none_by_kind.iter();
                let figure = ReconciliationFigure {
                    sum_of_groups: addend(&r.sum_of_groups),
                    more_than_once: addend(&r.more_than_once),
                    outside_area: addend(&r.outside_area),
                    in_none: NoneFigure {
                        facilities: r.in_none.facilities,
                        value: number(r.in_none.value),
                        by_kind: Ordered(
                            kinds
                                .map(|(k, a)| {
                                    (self.catalogue.kinds[k.at()].code.to_string(), addend(a))
                                })
                                .collect(),
                        ),
                    },
                    administrative_total: addend(&r.administrative_total),
                };
                (self.catalogue.elements[element.at()].code.to_string(), figure)
            });
        Some(Ordered(lines.collect()))
    }

    fn network_kind_of(&self, scope: Scope) -> Option<String> {
        match scope {
            Scope::Unit(_) => None,
            Scope::Network(n) | Scope::Area(n) => {
                let kind = self.organisation.network_info(n).kind;
                Some(self.catalogue.network_kinds[kind.at()].code.to_string())
            }
        }
    }

    /// The keys of rows as they are shown.
    fn row_keys(
        &self,
        keys: &[(Span, Key)],
        scope: Scope,
        dims: &Dims,
        when: When,
        names: bool,
    ) -> Vec<RowKey> {
        let org = self.organisation;
        let mut shown: Vec<RowKey> = Vec::with_capacity(keys.len());
        let mut units: Vec<Option<UnitIx>> = Vec::with_capacity(keys.len());
        for (piece, key) in keys {
            let day = when.map.unwrap_or(piece.last_day());
            let mut key = *key;
            if !dims.divides_units() {
                match scope {
                    Scope::Unit(unit) => key.unit = Some(unit),
                    Scope::Network(n) | Scope::Area(n) => key.network = Some(n),
                }
            }
            let unit_name = key.unit.map(|unit| {
                let name = org.name_on(unit, day, Lang::Zh);
                if key.own { format!("{name}（本级）") } else { name.to_owned() }
            });
            let name = unit_name
                .or_else(|| key.network.map(|n| org.network_info(n).name.to_string()))
                .or_else(|| key.kind.map(|kind| self.catalogue.kinds[kind.at()].name.zh.clone()))
                .or_else(|| key.role.map(|role| self.catalogue.roles[role.at()].name.zh.clone()));
            shown.push(RowKey {
                unit: key.unit.map(|unit| org.code(unit).to_string()),
                network: key.network.map(|n| org.network_code(n).to_string()),
                kind: key.kind.map(|kind| self.catalogue.kinds[kind.at()].code.to_string()),
                role: key.role.map(|role| self.catalogue.roles[role.at()].code.to_string()),
                name,
                path: None,
                period: piece.to_string(),
            });
            units.push(key.unit);
        }
        let mut by_name: HashMap<String, BTreeSet<String>> = HashMap::new();
        for key in &shown {
            if let (Some(name), Some(unit)) = (&key.name, &key.unit) {
                by_name.entry(name.clone()).or_default().insert(unit.clone());
            }
        }
        for ((key, unit), (piece, _)) in shown.iter_mut().zip(units).zip(keys) {
            let repeats =
                key.name.as_ref().and_then(|name| by_name.get(name)).is_some_and(|c| c.len() > 1);
            if let Some(unit) = unit.filter(|_| names || repeats) {
                let day = when.map.unwrap_or(piece.last_day());
                let path = org.path(unit, day).into_iter();
                key.path = Some(path.map(|at| org.name_on(at, day, Lang::Zh).to_owned()).collect());
            }
        }
        shown
    }

    /// Whether a unit is a facility or desk.
    fn is_reporter(&self, unit: UnitIx) -> bool {
        matches!(self.organisation.class(unit), Class::Facility | Class::Desk)
    }
}

fn view(scope: Scope) -> &'static str {
    match scope {
        Scope::Unit(_) => "administrative",
        Scope::Network(_) | Scope::Area(_) => "network",
    }
}

fn membership_text(membership: Membership, map: Option<Date>) -> (String, Option<String>) {
    let word = match membership {
        Membership::AsItWas => "as_it_was",
        Membership::Today => "today",
        Membership::On(_) => "date",
    };
    (word.to_owned(), map.map(|day| day.to_string()))
}

/// The stretches of time the rows are about.
fn pieces(span: Span, dim: Option<PeriodType>) -> Result<Vec<Span>, QueryError> {
    let Some(kind) = dim else { return Ok(vec![span]) };
    let pieces: Vec<Span> = span.parts(kind).map(Span::of).collect();
    if pieces.is_empty() {
        return Err(QueryError::DimTooCoarse { dim: kind.name(), span });
    }
    Ok(pieces)
}

fn days_text(all: impl Iterator<Item = Days>) -> String {
    let one = |days: Days| {
        let text =
            |date: Option<Date>| date.map_or_else(|| "…".to_owned(), |date| date.to_string());
        format!("{} – {}", text(days.from), text(days.to.map(|to| to.plus(-1))))
    };
    all.map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_guizhou;
#[cfg(test)]
mod tests_laws;
