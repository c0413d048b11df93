//! Figures as they are answered: values with their state, coverage, targets and names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use banyan_shared::catalogue::expr::{Expr, Over, Rational};
use banyan_shared::catalogue::indicator::{Definition, Formula};
use banyan_shared::catalogue::{
    Direction, ElementIx, FormIx, IndicatorIx, KindIx, Lang, Scope as ElementScope,
};
use banyan_shared::figures::{self, Completeness, MissingWhy, State, Tally};
use banyan_shared::organisation::{NetworkIx, Target, TargetOf, UnitIx};
use banyan_shared::period::{Date, Span};
use foldhash::HashMap;

use super::answer::*;
use super::asked::{Asked, When};
use super::indicators::{Outcome, RowOf, Waiting};
use super::items::SharedText;
use super::marks::MarksKept;
use super::request::Dims;
use super::sets::{Key, Scope};
use super::{Engine, tally};

impl Engine<'_> {
    /// The figures of indicators for each row. Unless named, those with nothing to say are left out.
    pub(super) fn indicator_figures(
        &self,
        asked: &Asked<'_>,
        (scope, dims): (Scope, &Dims),
        span: Span,
        keys: &[Key],
        indicators: &[IndicatorIx],
        (named, names): (bool, bool),
    ) -> BTreeMap<Key, Vec<IndicatorFigure>> {
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
            let complete = self.complete(asked, scope, dims, span, None);
            for ((key, _), counts) in &complete.by_form {
                reports.entry(*key).or_default().merge(counts);
            }
        }
        let none = Completeness::default();
        for key in keys {
            let row = RowOf { scope, dims, key: *key };
            let (level, of) = self.level_of(row, last);
            let mut figures = Vec::new();
            let mut marks = MarksKept::default();
            for indicator in indicators {
                let model = &self.catalogue.indicators[indicator.at()];
                let outcome = if Self::is_shown_at(model, level) {
                    let reports = reports.get(key).unwrap_or(&none);
                    let mut outcome = self.indicator(asked, row, span, *indicator, reports);
                    if outcome.value.is_some() {
                        let marks =
                            self.marks_of_indicator(asked, row, span, *indicator, &mut marks);
                        outcome.flags.extend(marks.flags());
                    }
                    outcome
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
                let figure =
                    self.indicator_figure(asked, *indicator, row, span, outcome, of, names);
                figures.push(figure);
            }
            out.insert(*key, figures);
            asked.forget_row();
        }
        out
    }

    #[expect(clippy::too_many_arguments, reason = "what one figure is made of")]
    fn indicator_figure(
        &self,
        asked: &Asked<'_>,
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
        // A target is a place's or a network's: a part of it neither meets nor misses it.
        let target = if self.is_part(row) { None } else { org.target(indicator, of, last) };
        let (low, high) = target.map_or((None, None), |target| (target.low, target.high));
        let direction = target.map_or(model.direction, |target| target.direction);
        let met = outcome.value.and_then(|value| {
            target.and_then(|_| figures::indicators::meets(direction, low, high, value))
        });
        // Of a time that still runs, what is to be reached by now.
        let by = last.min(asked.today.plus(-1));
        let pace = target.and_then(|target| self.pace(definition, target, (last, by)));
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
                Some(self.text(org.code(unit).as_str()))
            }
            (true, None, None, Scope::Network(n) | Scope::Area(n)) => Some(self.area_text(n)),
        };
        let waiting_for = |one: &Waiting| WaitingFor {
            form: self.text(self.catalogue.forms[one.form.at()].code.as_str()),
            unit: self.text(org.code(one.unit).as_str()),
            due: self.text(&self.time_text(one.due)),
        };
        let kind = |kind: &KindIx| self.text(self.catalogue.kinds[kind.at()].code.as_str());
        let remarks = Remarks {
            flags: self.texts(&outcome.flags),
            area,
            absent: outcome.absent.iter().map(kind).collect(),
            waiting_for: outcome.waiting.iter().map(waiting_for).collect(),
        };
        let target = target.map(|target| {
            Box::new(TargetFigure {
                bound: figures::indicators::bound(direction, low, high),
                low,
                high,
                pace,
                source: self.text(&target.source),
                status: target.status,
            })
        });
        IndicatorFigure {
            value: outcome.value.map(|value| figures::indicators::rounded(value, model.decimals)),
            numerator: outcome.numerator.map(Rational::to_f64),
            denominator: outcome.denominator.map(Rational::to_f64),
            coverage: Coverage {
                matched: outcome.pairs.matched,
                expected: outcome.pairs.expected,
                share_of_usual: outcome.share_of_usual.map(|share| (share * 1e4).round() / 1e4),
            },
            item: self.plans.items().indicator(self.catalogue, indicator, definition),
            target,
            remarks: remarks.held(),
            state: outcome.state,
            direction,
            met,
            named: names,
        }
    }

    fn text(&self, text: &str) -> SharedText {
        self.plans.items().text(text)
    }

    fn texts<'t>(&self, texts: impl IntoIterator<Item = &'t String>) -> Box<[SharedText]> {
        texts.into_iter().map(|text| self.text(text)).collect()
    }

    /// What should be reached by the end of the day `by` of a target that is to be reached over a time: that of
    /// the year of `last`, or of a number counted up since a day.
    fn pace(
        &self,
        definition: &Definition,
        target: &Target,
        (last, by): (Date, Date),
    ) -> Option<f64> {
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
                by,
            ),
            Over::Cumulative => {
                let from = definition.from.or(target.days.from)?;
                figures::indicators::pace(low, from, target.days.to?, by)
            }
            _ => None,
        }
    }

    pub(super) fn figures(
        &self,
        scope: Scope,
        mut counts: BTreeMap<ElementIx, tally::Count>,
        asked: Option<&[ElementIx]>,
        names: bool,
    ) -> Figures<ElementFigure> {
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
            let remarks = Remarks { flags: self.texts(&count.flags), area, ..Remarks::default() };
            ElementFigure {
                value: value.map(|value| u64::try_from(value).unwrap_or(u64::MAX)),
                item: self.plans.items().element(self.catalogue, element),
                reports,
                expected,
                not_applicable,
                facilities,
                facilities_expected,
                remarks: remarks.held(),
                state,
                named: names,
            }
        };
        list.into_iter().map(figure).collect()
    }

    fn area_text(&self, network: NetworkIx) -> SharedText {
        let area = self.organisation.network_info(network).area.iter();
        let codes: Vec<&str> = area.map(|unit| self.organisation.code(*unit).as_str()).collect();
        self.text(&codes.join(";"))
    }

    pub(super) fn completeness_figure<'c>(
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

    pub(super) fn network_kind_of(&self, scope: Scope) -> Option<String> {
        match scope {
            Scope::Unit(_) => None,
            Scope::Network(n) | Scope::Area(n) => {
                let kind = self.organisation.network_info(n).kind;
                Some(self.catalogue.network_kinds[kind.at()].code.to_string())
            }
        }
    }

    /// The keys of rows as they are shown.
    pub(super) fn row_keys(
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
            if key.own
                && let Scope::Network(n) | Scope::Area(n) = scope
            {
                // What of it lies below none of the units.
                key.network = Some(n);
            }
            let own = |name: &str| {
                if key.own { format!("{name}（本级）") } else { name.to_owned() }
            };
            let name = key
                .unit
                .map(|unit| own(org.name_on(unit, day, Lang::Zh)))
                .or_else(|| key.network.map(|n| own(&org.network_info(n).name)))
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
        let repeated = repeated_names(shown.iter());
        for ((key, unit), (piece, _)) in shown.iter_mut().zip(units).zip(keys) {
            let repeats = key.name.as_ref().is_some_and(|name| repeated.contains(name));
            if let Some(unit) = unit.filter(|_| names || repeats) {
                key.path = Some(self.path_text(unit, when.map.unwrap_or(piece.last_day())));
            }
        }
        shown
    }

    /// Names from the top of the tree, as on a day.
    fn path_text(&self, unit: UnitIx, day: Date) -> Vec<String> {
        let org = self.organisation;
        org.path(unit, day)
            .into_iter()
            .map(|at| org.name_on(at, day, Lang::Zh).to_owned())
            .collect()
    }

    /// Gives paths to rows of several periods that have a name in common with another unit's.
    pub(super) fn tell_apart(&self, rows: &mut [Arc<Row>], when: When) {
        let repeated = repeated_names(rows.iter().map(|row| &row.key));
        for row in rows {
            let key = &row.key;
            if key.path.is_some() || !key.name.as_ref().is_some_and(|name| repeated.contains(name))
            {
                continue;
            }
            let unit = key.unit.as_ref().and_then(|code| self.organisation.unit(code));
            let last = super::span_of(&key.period).ok().map(|span| span.last_day());
            if let (Some(unit), Some(day)) = (unit, when.map.or(last)) {
                Arc::make_mut(row).key.path = Some(self.path_text(unit, day));
            }
        }
    }
}

/// The names that several units have.
fn repeated_names<'k>(keys: impl Iterator<Item = &'k RowKey>) -> BTreeSet<String> {
    let mut unit_of: HashMap<&str, &str> = HashMap::default();
    let mut repeated = BTreeSet::new();
    for key in keys {
        let (Some(name), Some(unit)) = (&key.name, &key.unit) else { continue };
        if *unit_of.entry(name).or_insert(unit) != unit {
            repeated.insert(name.clone());
        }
    }
    repeated
}
