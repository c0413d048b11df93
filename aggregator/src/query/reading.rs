//! Reading a question: its span, its place, its dimensions, and what it asks for.

use banyan_shared::catalogue::{Class, ElementIx, IndicatorIx, Lang, OverTime};
use banyan_shared::organisation::{Days, Found, Lookup, UnitIx};
use banyan_shared::period::{Date, PeriodType, Span};

use super::Engine;
use super::request::{Dims, QueryError, similar};
use super::sets::Scope;

/// Longest span a question may be about: ten years and a bit.
pub const SPAN_DAYS_MAX: i32 = 3_700;
/// Most stretches of time rows may be divided into: the days of a year and a bit.
pub const PIECES_MAX: usize = 400;

/// A place found.
pub(super) struct Place {
    pub(super) scope: Scope,
    pub(super) code: String,
    pub(super) name: String,
    pub(super) path: Vec<String>,
}

impl Engine<'_> {
    pub(super) fn place(
        &self,
        text: &str,
        span: Span,
        map: Option<Date>,
    ) -> Result<Place, QueryError> {
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
                let in_force = |days: Days| spells.iter().any(|spell| spell.days().meets(days));
                let then = Days { from: Some(span.first_day()), to: Some(span.last_day().plus(1)) };
                let on = |day: Date| Days { from: Some(day), to: Some(day.plus(1)) };
                let place = match org.class(unit) {
                    // A place of the map must be on it.
                    Class::Administrative => map.map_or(then, on),
                    // Closed by the map's day a facility is followed to its successor; before it existed and
                    // after it ended there is nothing to answer, unless it is a successor itself.
                    _ if map.is_some_and(|day| in_force(on(day))) => map.map_or(then, on),
                    _ => then,
                };
                if !in_force(place) {
                    return Err(QueryError::UnitNotInForce {
                        place: format!("{code} {name}"),
                        days: days_text(spells.iter().map(|spell| spell.days())),
                        when,
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
    pub(super) fn with_network_kind(
        &self,
        mut dims: Dims,
        scope: Scope,
    ) -> Result<Dims, QueryError> {
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

    pub(super) fn elements(&self, codes: &[String]) -> Result<Option<Vec<ElementIx>>, QueryError> {
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

    pub(super) fn unknown_form(&self, text: &str) -> QueryError {
        QueryError::Unknown {
            what: "form",
            text: text.to_owned(),
            similar: similar(text, self.catalogue.forms.iter().map(|form| form.code.as_str())),
        }
    }

    /// Which elements to count over `span`: those asked for, or all that can be.
    pub(super) fn wanted(
        &self,
        asked: Option<&[ElementIx]>,
        span: Span,
    ) -> Result<Vec<bool>, QueryError> {
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

    /// The indicators named, if any are.
    pub(super) fn chosen_indicators(
        &self,
        codes: &[String],
    ) -> Result<Option<Vec<IndicatorIx>>, QueryError> {
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
    pub(super) fn within_a_year(
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
}

/// The span a question is about.
///
/// # Errors
/// If it is none, or longer than [`SPAN_DAYS_MAX`].
pub(crate) fn span_of(text: &str) -> Result<Span, QueryError> {
    let span: Span = text.parse().map_err(|reason| QueryError::Period { reason })?;
    let days = span.last_day().days() - span.first_day().days() + 1;
    if days > SPAN_DAYS_MAX {
        return Err(QueryError::SpanTooLong { span, limit: SPAN_DAYS_MAX });
    }
    Ok(span)
}

/// The stretches of time the rows are about.
pub(super) fn pieces(span: Span, dim: Option<PeriodType>) -> Result<Vec<Span>, QueryError> {
    let Some(kind) = dim else { return Ok(vec![span]) };
    if span.parts(kind).len() > PIECES_MAX {
        return Err(QueryError::TooManyPieces { span, dim: kind.name(), limit: PIECES_MAX });
    }
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
