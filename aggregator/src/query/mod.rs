//! Questions and answers: figures, completeness, and the trace of a number.
//!
//! Promises that every answer is a pure function of catalogue, organisation, cube, what is known of sites, and
//! the moment of the question, which are all handed in; that a total is over a set of facilities, each once;
//! and that a figure says what it covers. What the figures mean is `banyan_shared::figures`; here they are
//! computed over columns. Leaves HTTP and the command line to others.

mod answer;
mod compare;
mod complete;
mod indicators;
mod plan;
mod render;
mod request;
mod sets;
mod sheet;
mod stages;
mod tally;
mod trace;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use banyan_shared::catalogue::expr::{Expr, Over, Rational};
use banyan_shared::catalogue::indicator::{Definition, Formula};
use banyan_shared::catalogue::{
    Catalogue, Class, Direction, ElementIx, FormIx, IndicatorIx, Lang, OverTime,
    Scope as ElementScope,
};
use banyan_shared::figures::{
    self, Addend, Completeness, MissingWhy, ReconciliationLine, State, Tally,
};
use banyan_shared::ids::Millis;
use banyan_shared::organisation::{
    Days, Found, Lookup, NetworkIx, Organisation, Target, TargetOf, UnitIx,
};
use banyan_shared::period::{Date, PeriodType, Span};

use crate::act::Stage;
use crate::cube::Cube;

pub use answer::*;
pub use complete::{Mark, SILENT_AFTER_MS, SiteState, SiteStates};
pub use plan::{Plans, reserve};
pub(crate) use render::{align, causes, flag_text, grouped, status_text, table};
pub use render::{
    completeness_csv, completeness_table, query_csv, query_table, trace_csv, trace_table,
};
pub use request::{CompletenessRequest, Dims, Membership, QueryError, QueryRequest, UnitDim};
pub use trace::{Trace, TraceDecision, TraceValue, TraceVersion};

use complete::Remarks;
use indicators::{Outcome, RowOf};
use request::dims;
pub(crate) use request::similar;
use sets::{Key, Scope};
use tally::{Asked, Counts, When, days_of};

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

/// A row's items while they are gathered.
#[derive(Default)]
struct RowItems {
    elements: BTreeMap<ElementIx, tally::Count>,
    indicators: Vec<(String, IndicatorFigure)>,
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
        let chosen = self.chosen_indicators(&request.indicators)?;
        // Naming one sort of item leaves the other out.
        let asked_elements = match self.elements(&request.elements)? {
            None if chosen.is_some() => Some(Vec::new()),
            asked => asked,
        };
        let indicators = match &chosen {
            None if asked_elements.is_some() => Vec::new(),
            None => (0u16..).map(IndicatorIx).take(self.catalogue.indicators.len()).collect(),
            Some(chosen) => chosen.clone(),
        };
        let asked = Asked::new(*self, when);
        let spans = pieces(span, dims.period)?;
        let named = !request.elements.is_empty() || chosen.is_some();
        let mut rows: Vec<(Span, Key, RowItems)> = Vec::new();
        for piece in &spans {
            let wanted = self.wanted(asked_elements.as_deref(), *piece)?;
            let mut counts = self.count(&asked, place.scope, &dims, *piece, &wanted);
            if !dims.divides_units() {
                counts.entry(Key::default()).or_default();
                self.add_area(&asked, place.scope, *piece, &wanted, &mut counts);
            } else if named || !indicators.is_empty() {
                // A row asked for by name is there even if it has nothing to say.
                for key in self.keys_of(&asked, place.scope, &dims, *piece) {
                    counts.entry(key).or_default();
                }
            }
            if rows.len() + counts.len() > ROWS_MAX {
                return Err(QueryError::TooManyRows { limit: ROWS_MAX });
            }
            let keys: Vec<Key> = counts.keys().copied().collect();
            let mut figures = self.indicator_figures(
                &asked,
                (place.scope, &dims),
                *piece,
                &keys,
                &self.within_a_year(&indicators, *piece, chosen.is_some())?,
                (chosen.is_some(), request.names),
            );
            for (key, elements) in counts {
                let mut indicators = figures.remove(&key).unwrap_or_default();
                self.note_conflicts(&elements, *piece, &mut indicators);
                rows.push((*piece, key, RowItems { elements, indicators }));
            }
        }
        self.sort(&mut rows);
        let whole = Dims::default();
        let mut remarks = Remarks::default();
        let complete = self.complete(&asked, place.scope, &whole, span, None, &mut remarks);
        let reconciliation = self.reconciliation(&asked, place.scope, &dims, span, &rows);
        let keys: Vec<(Span, Key)> = rows.iter().map(|(piece, key, _)| (*piece, *key)).collect();
        let keys = self.row_keys(&keys, place.scope, &dims, when, request.names);
        let listed = asked_elements.as_deref();
        let rows = rows
            .into_iter()
            .zip(keys)
            .map(|((_, _, items), key)| Row {
                key,
                elements: self.figures(place.scope, items.elements, listed, request.names),
                indicators: Ordered(items.indicators),
            })
            .filter(|row| {
                named
                    || !dims.divides_units()
                    || !row.elements.0.is_empty()
                    || !row.indicators.0.is_empty()
            })
            .collect();
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
            completeness: self
                .completeness_figure(complete.iter().map(|((_, form), c)| (*form, c)), when),
            freshness: self.freshness(&asked, place.scope, span, remarks.newest),
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
        let asked = Asked::new(*self, when);
        let mut remarks = Remarks::default();
        let none = Dims::default();
        let whole = self.complete(&asked, place.scope, &none, span, form, &mut remarks);
        let mut rows: Vec<(Span, Key, BTreeMap<FormIx, Completeness>)> = Vec::new();
        for piece in pieces(span, dims.period)? {
            let mut found: BTreeMap<Key, BTreeMap<FormIx, Completeness>> = BTreeMap::new();
            for ((key, form), counts) in
                self.complete(&asked, place.scope, &dims, piece, form, &mut Remarks::default())
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

    /// The indicators named, if any are.
    fn chosen_indicators(&self, codes: &[String]) -> Result<Option<Vec<IndicatorIx>>, QueryError> {
        let mut found = Vec::new();
        let texts = codes.iter().flat_map(|text| text.split(',')).map(str::trim);
        for text in texts.filter(|text| !text.is_empty()) {
            let indicator = self.catalogue.indicator(text).ok_or_else(|| QueryError::Unknown {
                what: "indicator",
                text: text.to_owned(),
                similar: similar(text, self.catalogue.indicators.iter().map(|i| i.code.as_str())),
            })?;
            if !found.contains(&indicator) {
                found.push(indicator);
            }
        }
        Ok((!found.is_empty()).then_some(found))
    }

    /// Those of the indicators that may be asked over `span`: a year-to-date figure does not cross 1 January.
    fn within_a_year(
        &self,
        indicators: &[IndicatorIx],
        span: Span,
        named: bool,
    ) -> Result<Vec<IndicatorIx>, QueryError> {
        if span.first_day().ymd().0 == span.last_day().ymd().0 {
            return Ok(indicators.to_vec());
        }
        let mut kept = Vec::new();
        for indicator in indicators {
            if !self.is_year_to_date(*indicator, span.last_day()) {
                kept.push(*indicator);
            } else if named {
                let element = self.catalogue.indicators[indicator.at()].code.to_string();
                return Err(QueryError::AcrossNewYear { element, span });
            }
        }
        Ok(kept)
    }

    /// Figures computed from reports of which several versions stand say so.
    fn note_conflicts(
        &self,
        elements: &BTreeMap<ElementIx, tally::Count>,
        span: Span,
        indicators: &mut [(String, IndicatorFigure)],
    ) {
        let conflicting: Vec<ElementIx> = elements
            .iter()
            .filter(|(_, count)| count.flags.contains(tally::CONFLICTS))
            .map(|(element, _)| *element)
            .collect();
        if conflicting.is_empty() {
            return;
        }
        for (code, figure) in indicators {
            let indicator = self.catalogue.indicator(code);
            let counts = indicator.is_some_and(|ix| self.counts(ix, &conflicting, span.last_day()));
            if counts && figure.value.is_some() {
                figure.flags.push(tally::CONFLICTS.to_owned());
            }
        }
    }

    /// The figures of indicators for each row. Unless named, those with nothing to say are left out.
    fn indicator_figures(
        &self,
        asked: &Asked<'_>,
        (scope, dims): (Scope, &Dims),
        span: Span,
        keys: &[Key],
        indicators: &[IndicatorIx],
        (named, names): (bool, bool),
    ) -> BTreeMap<Key, Vec<(String, IndicatorFigure)>> {
        let mut out = BTreeMap::new();
        if indicators.is_empty() {
            return out;
        }
        let last = span.last_day();
        let of_reporting = |indicator: &IndicatorIx| {
            let definition = self.catalogue.indicators[indicator.at()].definition_on(last);
            matches!(definition.formula, Formula::Reporting(_))
        };
        let mut reports: BTreeMap<Key, Completeness> = BTreeMap::new();
        if indicators.iter().any(of_reporting) {
            let mut ignored = Remarks::default();
            for ((key, _), counts) in self.complete(asked, scope, dims, span, None, &mut ignored) {
                reports.entry(key).or_default().merge(&counts);
            }
        }
        let none = Completeness::default();
        for key in keys {
            let row = RowOf { scope, dims, key: *key };
            let (level, of) = self.level_of(row, last);
            let mut figures = Vec::new();
            for indicator in indicators {
                let model = &self.catalogue.indicators[indicator.at()];
                let outcome = if Self::is_shown_at(model, level) {
                    let reports = reports.get(key).unwrap_or(&none);
                    self.indicator(asked, row, span, *indicator, reports)
                } else if named {
                    Outcome::without_value(State::NotShownHere)
                } else {
                    continue;
                };
                // Rows of shorter periods do not repeat that they are too short.
                let silent = match outcome.state {
                    State::NotApplicable => outcome.flags.is_empty(),
                    State::TooFine => dims.period.is_some(),
                    _ => false,
                };
                if !named && silent {
                    continue;
                }
                let figure = self.indicator_figure(*indicator, row, span, outcome, of, names);
                figures.push((model.code.to_string(), figure));
            }
            out.insert(*key, figures);
            asked.forget_row();
        }
        out
    }

    fn indicator_figure(
        &self,
        indicator: IndicatorIx,
        row: RowOf<'_>,
        span: Span,
        mut outcome: Outcome,
        of: TargetOf,
        names: bool,
    ) -> IndicatorFigure {
        let org = self.organisation;
        let last = span.last_day();
        let model = &self.catalogue.indicators[indicator.at()];
        let definition = model.definition_on(last);
        let target = org.target(indicator, of, last);
        let (low, high) = target.map_or((None, None), |target| (target.low, target.high));
        let direction = target.map_or(model.direction, |target| target.direction);
        let met = outcome.value.and_then(|value| {
            target.and_then(|_| figures::indicators::meets(direction, low, high, value))
        });
        let pace = target.and_then(|target| self.pace(definition, target, last));
        if let (Some(pace), Some(value)) = (pace, outcome.value) {
            let on_pace = value.to_f64() >= pace;
            outcome.flags.push(if on_pace { "on_pace" } else { "behind_pace" }.to_owned());
        }
        if direction == Direction::Watch
            && let Some(value) = outcome.value
            && (low.is_some_and(|low| value.to_f64() < low)
                || high.is_some_and(|high| value.to_f64() > high))
        {
            outcome.flags.push("outside_range".to_owned());
        }
        let of_area = self.is_of_area(indicator, last);
        let network = match (of_area, row.key.network, row.scope) {
            (true, Some(n), _) | (true, None, Scope::Network(n)) => Some(n),
            _ => None,
        };
        let area = match (of_area, network, row.key.unit, row.scope) {
            (false, ..) => None,
            (true, Some(n), ..) => Some(self.area_text(n)),
            (true, None, Some(unit), _) | (true, None, None, Scope::Unit(unit)) => {
                Some(org.code(unit).to_string())
            }
            (true, None, None, Scope::Network(n) | Scope::Area(n)) => Some(self.area_text(n)),
        };
        IndicatorFigure {
            value: outcome.value.map(|value| figures::indicators::rounded(value, model.decimals)),
            state: outcome.state,
            unit: model.unit.clone(),
            numerator: outcome.numerator.map(Rational::to_f64),
            denominator: outcome.denominator.map(Rational::to_f64),
            factor: u64::from(definition.factor),
            coverage: Coverage {
                matched: outcome.pairs.matched,
                expected: outcome.pairs.expected,
                share_of_usual: outcome.share_of_usual.map(|share| (share * 1e4).round() / 1e4),
            },
            absent: outcome
                .absent
                .iter()
                .map(|kind| self.catalogue.kinds[kind.at()].code.to_string())
                .collect(),
            waiting_for: outcome
                .waiting
                .iter()
                .map(|one| WaitingFor {
                    form: self.catalogue.forms[one.form.at()].code.to_string(),
                    unit: org.code(one.unit).to_string(),
                    due: self.time_text(one.due),
                })
                .collect(),
            target: figures::indicators::bound(direction, low, high),
            low,
            high,
            direction: Some(direction.name().to_owned()),
            pace,
            met,
            target_source: target.map(|target| target.source.to_string()),
            target_status: target.map(|target| target.status.code().to_owned()),
            definition: definition.version.clone(),
            scope: if of_area { "area" } else { "set" }.to_owned(),
            area,
            flags: outcome.flags,
            name: names.then(|| model.name.zh.clone()),
        }
    }

    /// What should be reached by `last` of a target that is to be reached over a time: a year's, or that of
    /// a number counted up since a day.
    fn pace(&self, definition: &Definition, target: &Target, last: Date) -> Option<f64> {
        let Formula::Count { value } = &definition.formula else { return None };
        let mut over = None;
        value.walk(&mut |part| {
            if let Expr::Over(way, _) = part {
                over = Some(*way);
            }
        });
        let low = target.low?;
        let year = last.ymd().0;
        match over? {
            Over::YearToDate => figures::indicators::pace(
                low,
                Date::new(year, 1, 1)?,
                Date::new(year + 1, 1, 1)?,
                last,
            ),
            Over::Cumulative => {
                let from = definition.from.or(target.days.from)?;
                figures::indicators::pace(low, from, target.days.to?, last)
            }
            _ => None,
        }
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
        asked: &Asked<'_>,
        scope: Scope,
        dims: &Dims,
        span: Span,
        rows: &[(Span, Key, RowItems)],
    ) -> Option<Ordered<ReconciliationFigure>> {
        let only_networks =
            Dims { network: true, network_kind: dims.network_kind, ..Dims::default() };
        if *dims != only_networks || !matches!(scope, Scope::Unit(_)) {
            return None;
        }
        let elements: BTreeSet<ElementIx> =
            rows.iter().flat_map(|(_, _, items)| items.elements.keys().copied()).collect();
        let elements: Vec<ElementIx> = elements.into_iter().collect();
        let number = |value: u128| u64::try_from(value).unwrap_or(u64::MAX);
        let addend = |a: &Addend| AddendFigure { facilities: a.facilities, value: number(a.value) };
        let lines =
            self.reconcile(asked, scope, dims, span, &elements).into_iter().map(|(element, r)| {
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

    /// What each facility adds to a line of the reconciliation of the one element asked for, by its code.
    /// Facilities without a number are not among them.
    ///
    /// # Errors
    /// As [`Engine::query`].
    pub fn reconciled(
        &self,
        request: &QueryRequest,
        line: ReconciliationLine,
        now: Millis,
    ) -> Result<BTreeMap<String, u64>, QueryError> {
        let span: Span = request.period.parse().map_err(|reason| QueryError::Period { reason })?;
        let when = self.when(request.membership, request.as_of, now);
        let place = self.place(&request.place, span, when.map)?;
        let network = ["network".to_owned()];
        let dims = dims(self.catalogue, &network, request.network.as_deref())?;
        let dims = self.with_network_kind(dims, place.scope)?;
        let elements = self.elements(&request.elements)?;
        self.wanted(elements.as_deref(), span)?;
        let asked = Asked::new(*self, when);
        let mut out: BTreeMap<String, u128> = BTreeMap::new();
        for element in elements.unwrap_or_default() {
            self.reconcile_cells(&asked, place.scope, &dims, span, element, &mut |unit, cell| {
                if let Some(value) = cell.adds_to(line) {
                    *out.entry(self.organisation.code(unit).to_string()).or_default() += value;
                }
            });
        }
        let number = |value: u128| u64::try_from(value).unwrap_or(u64::MAX);
        Ok(out.into_iter().map(|(code, value)| (code, number(value))).collect())
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
mod tests_domain;
#[cfg(test)]
mod tests_guizhou;
#[cfg(test)]
mod tests_indicators;
#[cfg(test)]
mod tests_laws;
