//! Questions and answers: figures, completeness, and the trace of a number.
//!
//! Promises that every answer is a pure function of catalogue, organisation, cube, what is known of sites, and
//! the moment of the question, which are all handed in; that a total is over a set of facilities, each once;
//! and that a figure says what it covers. What the figures mean is `banyan_shared::figures`; here they are
//! computed over columns. Leaves HTTP and the command line to others.

mod anomalies;
mod answer;
mod asked;
mod compare;
mod complete;
mod figure;
mod given;
mod indicators;
mod items;
mod kept;
mod marks;
mod often;
mod plan;
mod reading;
mod reconcile;
mod render;
mod request;
mod sets;
mod sheet;
mod span;
mod stages;
mod tally;
mod trace;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use banyan_shared::catalogue::{
    Catalogue, Class, ElementIx, FormIx, IndicatorIx, Scope as ElementScope,
};
use banyan_shared::figures::Completeness;
use banyan_shared::ids::Millis;
use banyan_shared::organisation::{Organisation, UnitIx};
use banyan_shared::period::{Date, Span};

use crate::act::Stage;
use crate::cube::Cube;

pub use anomalies::{AnomaliesAnswer, AnomaliesRequest, BrokenRow};
pub use answer::*;
pub use complete::{Mark, SILENT_AFTER_MS, SiteState, SiteStates};
pub use items::{Item, SharedText};
pub use often::{Next, Often};
pub use plan::{Plans, reserve};
pub(crate) use render::{
    align, broken_text, causes, decision_text, flag_text, grouped, restated_text, stage_text,
    status_text, table,
};
pub use render::{
    anomalies_csv, anomalies_table, completeness_csv, completeness_table, query_csv, query_table,
    trace_csv, trace_table,
};
pub use request::{CompletenessRequest, Dims, Membership, QueryError, QueryRequest, UnitDim};
pub use trace::{Trace, TraceDecision, TraceValue, TraceVersion};

use asked::{Asked, When};
use kept::{RowsAsked, Worked};
pub(crate) use reading::span_of;
pub use reading::{PIECES_MAX, SPAN_DAYS_MAX};
use reading::{Place, pieces};
use request::dims;
pub(crate) use request::similar;
use sets::{Key, Scope};
use span::days_of;
use tally::Counts;

/// Most rows an answer may have.
pub const ROWS_MAX: usize = 100_000;
/// Most figures an answer may have, over all its rows.
pub const FIGURES_MAX: usize = 1_000_000;

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

/// A question whose names have been looked up.
struct Taken {
    place: Place,
    when: When,
    /// Its rows, as if its time were not divided.
    rows: RowsAsked,
}

/// What is left of the figures an answer may have after rows of so many.
fn less(left: usize, items: impl Iterator<Item = usize>) -> Result<usize, QueryError> {
    left.checked_sub(items.sum()).ok_or(QueryError::TooManyFigures { limit: FIGURES_MAX })
}

impl Engine<'_> {
    /// Answers a question for figures. `now` is the present; the question may ask for an earlier moment.
    ///
    /// # Errors
    /// Why the question cannot be answered, and what to ask instead.
    pub fn query(&self, request: &QueryRequest, now: Millis) -> Result<QueryAnswer, QueryError> {
        let Taken { place, when, rows: question } = self.taken(request, now)?;
        let (span, dims) = (question.span, &question.dims);
        let mut rows: Vec<Arc<Row>> = Vec::new();
        let mut elements: BTreeSet<ElementIx> = BTreeSet::new();
        let pieces = pieces(span, dims.period)?;
        let mut figures_left = FIGURES_MAX;
        for piece in &pieces {
            // What one period's rows were read from is no reason to work out another's again.
            let asked = Asked::new(*self, when);
            let work = |question: &RowsAsked| self.work_out(&asked, question);
            let of_piece = RowsAsked { span: *piece, ..question.clone() };
            let worked = self.rows_of(&asked, of_piece, work)?;
            if rows.len() + worked.rows.len() > ROWS_MAX {
                return Err(QueryError::TooManyRows { limit: ROWS_MAX });
            }
            let items = worked.rows.iter();
            let items = items.map(|row| row.elements.len() + row.indicators.len());
            figures_left = less(figures_left, items)?;
            rows.extend(worked.rows.iter().cloned());
            elements.extend(worked.elements.iter().copied());
        }
        if pieces.len() > 1 && dims.divides_units() {
            self.tell_apart(&mut rows, when);
        }
        let asked = Asked::new(*self, when);
        if dims.network && matches!(place.scope, Scope::Unit(_)) {
            // Also what no group has: all of it is in none.
            match &question.elements {
                Some(named) => elements.extend(named),
                None => {
                    let whole = RowsAsked {
                        dims: Dims::default(),
                        indicators: Some(Vec::new()),
                        ..question.clone()
                    };
                    let work = |question: &RowsAsked| self.work_out(&asked, question);
                    elements.extend(&self.rows_of(&asked, whole, work)?.elements);
                }
            }
        }
        let reconciliation = self.reconciliation(&asked, place.scope, dims, span, &elements);
        let whole = Dims::default();
        let complete = self.complete(&asked, place.scope, &whole, span, None);
        let remarks = &complete.remarks;
        let (membership, map_date) = membership_text(request.membership, when.map);
        let stage = self.stage_of(place.scope, span, when);
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
            stage: stage.code().to_owned(),
            provisional: stage != Stage::Locked,
            restated: remarks.restated > 0,
            pending_after_lock: remarks.pending,
            conflicts: remarks.conflicts,
            rows,
            completeness: self.completeness_figure(
                complete.by_form.iter().map(|((_, form), c)| (*form, c)),
                when,
            ),
            freshness: self.freshness(&asked, place.scope, span, remarks.newest),
            reconciliation,
        })
    }

    /// Finds the place of a question and everything else that it names.
    fn taken(&self, request: &QueryRequest, now: Millis) -> Result<Taken, QueryError> {
        let span = span_of(&request.period)?;
        let when = self.when(request.membership, request.as_of, now);
        let place = self.place(&request.place, span, when.map)?;
        let dims = dims(self.catalogue, &request.by, request.network.as_deref())?;
        let dims = self.with_network_kind(dims, place.scope)?;
        let indicators = self.chosen_indicators(&request.indicators)?;
        // Naming one sort of item leaves the other out.
        let elements = match self.elements(&request.elements)? {
            None if indicators.is_some() => Some(Vec::new()),
            asked => asked,
        };
        let (scope, map, names) = (place.scope, when.map, request.names);
        let rows = RowsAsked { scope, dims, span, map, elements, indicators, names };
        Ok(Taken { place, when, rows })
    }

    /// Works out the rows of one period of a question.
    fn work_out(&self, asked: &Asked<'_>, question: &RowsAsked) -> Result<Worked, QueryError> {
        let RowsAsked { scope, dims, span, elements: listed, indicators: chosen, names, .. } =
            question;
        let (scope, span, names) = (*scope, *span, *names);
        let indicators = match chosen {
            None if listed.is_some() => Vec::new(),
            None => (0u16..).map(IndicatorIx).take(self.catalogue.indicators.len()).collect(),
            Some(chosen) => chosen.clone(),
        };
        let named = listed.is_some() || chosen.is_some();
        let wanted = self.wanted(listed.as_deref(), span)?;
        let mut counts = self.count(asked, scope, dims, span, &wanted);
        if !dims.divides_units() {
            counts.entry(Key::default()).or_default();
            self.add_area(asked, scope, span, &wanted, &mut counts);
        } else if named || !indicators.is_empty() {
            // A row asked for by name is there even if it has nothing to say.
            for key in self.keys_of(asked, scope, dims, span) {
                counts.entry(key).or_default();
            }
        }
        if counts.len() > ROWS_MAX {
            return Err(QueryError::TooManyRows { limit: ROWS_MAX });
        }
        let least = listed.as_ref().map_or(0, Vec::len);
        less(FIGURES_MAX, counts.values().map(|row| row.len().max(least) + indicators.len()))?;
        let keys: Vec<Key> = counts.keys().copied().collect();
        let mut figures = self.indicator_figures(
            asked,
            (scope, dims),
            span,
            &keys,
            &self.within_a_year(&indicators, span, chosen.is_some())?,
            (chosen.is_some(), names),
        );
        let of_rows: Vec<(Span, Key)> = keys.iter().map(|key| (span, *key)).collect();
        let shown = self.row_keys(&of_rows, scope, dims, asked.when, names);
        let (mut rows, mut elements) = (Vec::new(), BTreeSet::new());
        for ((key, counts), shown) in counts.into_iter().zip(shown) {
            let indicators = figures.remove(&key).unwrap_or_default();
            elements.extend(counts.keys().copied());
            let row = Row {
                key: shown,
                elements: self.figures(scope, counts, listed.as_deref(), names),
                indicators: indicators.into_iter().collect(),
            };
            let has_figures = !row.elements.is_empty() || !row.indicators.is_empty();
            if named || !dims.divides_units() || has_figures {
                rows.push(Arc::new(row));
            }
        }
        Ok(Worked { rows, elements: elements.into_iter().collect() })
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
        let span = span_of(&request.period)?;
        let when = self.when(request.membership, request.as_of, now);
        let place = self.place(&request.place, span, when.map)?;
        let dims = dims(self.catalogue, &request.by, request.network.as_deref())?;
        let dims = self.with_network_kind(dims, place.scope)?;
        let form = match &request.form {
            None => None,
            Some(text) => Some(self.catalogue.form(text).ok_or_else(|| self.unknown_form(text))?),
        };
        let asked = Asked::new(*self, when);
        let none = Dims::default();
        let complete = self.complete(&asked, place.scope, &none, span, form);
        let (whole, remarks) = (&complete.by_form, &complete.remarks);
        let mut rows: Vec<(Span, Key, BTreeMap<FormIx, Completeness>)> = Vec::new();
        for piece in pieces(span, dims.period)? {
            let mut found: BTreeMap<Key, BTreeMap<FormIx, Completeness>> = BTreeMap::new();
            let complete = self.complete(&asked, place.scope, &dims, piece, form);
            for ((key, form), counts) in &complete.by_form {
                found.entry(*key).or_default().insert(*form, counts.clone());
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
        let in_full = |form: FormIx, counts: &Completeness| {
            let code = self.catalogue.forms[form.at()].code.to_string();
            (code, self.completeness_figure([(form, counts)].into_iter(), when))
        };
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
            forms: whole.iter().map(|((_, form), counts)| in_full(*form, counts)).collect(),
            rows: rows
                .iter()
                .zip(keys)
                .map(|((_, _, forms), key)| CompletenessRow {
                    key,
                    total: self.completeness_figure(forms.iter().map(|(form, c)| (*form, c)), when),
                    forms: forms.iter().map(|(form, counts)| in_full(*form, counts)).collect(),
                })
                .collect(),
            freshness: self.freshness(&asked, place.scope, span, remarks.newest),
        })
    }

    fn when(&self, membership: Membership, as_of: Option<Millis>, now: Millis) -> When {
        let past = as_of.filter(|at| *at < now);
        if past.is_some() {
            self.plans.forget_past();
        }
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

    /// A network's page shows its area's figures for area elements.
    fn add_area(
        &self,
        asked: &Asked<'_>,
        scope: Scope,
        span: Span,
        wanted: &[bool],
        counts: &mut Counts,
    ) {
        let Scope::Network(network) = scope else { return };
        let mut area_only = wanted.to_vec();
        for (wanted, element) in area_only.iter_mut().zip(&self.catalogue.elements) {
            *wanted &= element.scope == ElementScope::Area;
        }
        let row = counts.entry(Key::default()).or_default();
        row.retain(|element, _| !area_only[element.at()]);
        if area_only.contains(&true) && !self.organisation.network_info(network).area.is_empty() {
            let area = self.count(asked, Scope::Area(network), &Dims::default(), span, &area_only);
            row.extend(area.into_values().flatten());
        }
    }

    /// Every row of the set, whether or not anything is asked of it.
    fn keys_of(&self, asked: &Asked<'_>, scope: Scope, dims: &Dims, span: Span) -> BTreeSet<Key> {
        let last = (span.last_day(), span.last_day());
        let mut keys = asked.roster(scope, dims, days_of(span)).keys();
        keys.extend(asked.roster(scope, dims, last).keys());
        keys
    }

    fn sort<T>(&self, rows: &mut [(Span, Key, T)]) {
        rows.sort_by_key(|(piece, key, _)| (piece.first_day(), *key));
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

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_anomalies;
#[cfg(test)]
mod tests_domain;
#[cfg(test)]
mod tests_guizhou;
#[cfg(test)]
mod tests_indicators;
#[cfg(test)]
mod tests_kept;
#[cfg(test)]
mod tests_laws;
#[cfg(test)]
mod tests_marks;
#[cfg(test)]
mod tests_often;
#[cfg(test)]
mod tests_older;
#[cfg(test)]
mod tests_parts;
