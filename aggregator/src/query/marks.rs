//! What a reader should know of the reports behind a figure: several versions stand of one, or one says
//! something else than when it was first signed off or locked.
//!
//! Looks only at reports that have a history, so that a set without any costs next to nothing.

use std::collections::BTreeMap;

use banyan_shared::catalogue::expr::Over;
use banyan_shared::catalogue::indicator::Formula;
use banyan_shared::catalogue::{ElementIx, FormIx, IndicatorIx, OverTime};
use banyan_shared::figures::indicators::Input;
use banyan_shared::organisation::UnitIx;
use banyan_shared::period::{Date, Period, Span};

use super::Engine;
use super::asked::{Asked, Got};
use super::indicators::{RowOf, day_a_year_before};
use super::sets::{Group, Key, Scope, Wanderer};
use super::sheet::{Marked, Sheet};
use super::span::{bundles, carried, days_of, span_of_days};

/// The flag of a figure some report of which stands in several versions.
const CONFLICTS: &str = "conflicts";
/// The flag of a figure whose value was another when its reports were first signed off or locked.
const RESTATED: &str = "restated";

/// What is to be said of a figure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) conflicts: bool,
    pub(super) restated: bool,
}

impl Marks {
    pub(super) fn of(got: &Got) -> Marks {
        Marks { conflicts: got.conflicts, restated: got.restated }
    }

    pub(super) fn join(&mut self, more: Marks) {
        self.conflicts |= more.conflicts;
        self.restated |= more.restated;
    }

    /// The flags that say so.
    pub(super) fn flags(self) -> impl Iterator<Item = String> {
        let all = [(self.conflicts, CONFLICTS), (self.restated, RESTATED)];
        all.into_iter().filter(|(is, _)| *is).map(|(_, flag)| flag.to_owned())
    }
}

/// The marks of a form's lines; empty if there are none at all.
#[derive(Default)]
pub(super) struct LineMarks(Vec<Marks>);

impl LineMarks {
    pub(super) fn of(&self, line: usize) -> Marks {
        self.0.get(line).copied().unwrap_or_default()
    }

    fn take(&mut self, one: &Marked) {
        self.note(&one.conflicts, |mark| mark.conflicts = true);
        self.note(&one.restated, |mark| mark.restated = true);
    }

    fn note(&mut self, lines: &[usize], note: impl Fn(&mut Marks)) {
        for line in lines {
            if self.0.len() <= *line {
                self.0.resize(line + 1, Marks::default());
            }
            note(&mut self.0[*line]);
        }
    }
}

/// What a row's elements are marked with, by the set and span: kept while the row's indicators are computed.
#[derive(Default)]
pub(super) struct MarksKept(Vec<(Scope, Span, BTreeMap<ElementIx, Marks>)>);

impl MarksKept {
    fn get_or(
        &mut self,
        (scope, span): (Scope, Span),
        find: impl FnOnce() -> BTreeMap<ElementIx, Marks>,
    ) -> &BTreeMap<ElementIx, Marks> {
        let known = self.0.iter().position(|(of, over, _)| *of == scope && *over == span);
        let at = known.unwrap_or_else(|| {
            self.0.push((scope, span, find()));
            self.0.len() - 1
        });
        &self.0[at].2
    }
}

fn a_year_before(first: Date, last: Date) -> (Date, Date) {
    (day_a_year_before(first), day_a_year_before(last))
}

impl Engine<'_> {
    /// Calls `each` for the marked reports of a group's units in a bundle, with the unit's place in the group.
    fn each_marked(
        &self,
        asked: &Asked<'_>,
        group: &Group,
        sheet: &Sheet,
        each: &mut impl FnMut(usize, &Marked),
    ) {
        for run in asked.runs(group, sheet.form).iter() {
            let marked = sheet.marked(&asked.engine, asked.when, run.chunk);
            let places = run.place..run.place + run.len;
            for one in marked.iter().filter(|one| places.contains(&one.place)) {
                each(run.at + one.place - run.place, one);
            }
        }
    }

    /// The marks of a form's lines that are added up over time.
    pub(super) fn marks_of_flows(
        &self,
        asked: &Asked<'_>,
        group: &Group,
        (form, span): (FormIx, Span),
    ) -> LineMarks {
        let mut marks = LineMarks::default();
        for sheet in asked.sheets(form, span).iter() {
            self.each_marked(asked, group, sheet, &mut |_, one| marks.take(one));
        }
        marks
    }

    /// The marks of a stock: of the reports that give its newest values, and of newer ones that gave it once.
    pub(super) fn marks_of_stock(
        &self,
        asked: &Asked<'_>,
        group: &Group,
        (form, line): (FormIx, usize),
        span: Span,
    ) -> Marks {
        let element = self.catalogue.forms[form.at()].lines[line].element;
        let over_time = self.catalogue.elements[element.at()].over_time;
        let mut marks = Marks::default();
        for bundle in self.bundles_of_stock(form, span, over_time) {
            let sheet = asked.sheet(form, bundle);
            self.each_marked(asked, group, &sheet, &mut |at, one| {
                if !one.conflicts.contains(&line) && !one.restated.contains(&line) {
                    return;
                }
                let place = (form, line);
                let newest =
                    self.period_of_newest(asked, place, group.units[at], (span, over_time));
                marks.conflicts |= newest == Some(one.period) && one.conflicts.contains(&line);
                marks.restated |= newest.is_none_or(|newest| newest <= one.period)
                    && one.restated.contains(&line);
            });
        }
        marks
    }

    /// The bundles in which a stock's newest value may stand, newest first.
    pub(super) fn bundles_of_stock(
        &self,
        form: FormIx,
        span: Span,
        over_time: OverTime,
    ) -> Vec<Period> {
        let own = self.catalogue.forms[form.at()].period_type;
        let mut periods = bundles(own, span);
        periods.reverse();
        if let OverTime::Latest { carry_months } = over_time {
            periods.extend(carried(own, span, carry_months));
        }
        periods
    }

    /// The form's period a unit's newest answer is of.
    fn period_of_newest(
        &self,
        asked: &Asked<'_>,
        (form, line): (FormIx, usize),
        unit: UnitIx,
        (span, over_time): (Span, OverTime),
    ) -> Option<Period> {
        let slot = asked.slots(form).slot(unit)?;
        let element = self.catalogue.forms[form.at()].lines[line].element;
        let column = self.column(form, element)?;
        for bundle in self.bundles_of_stock(form, span, over_time) {
            let sheet = asked.sheet(form, bundle);
            if !asked.read(&sheet, line, slot).last.is_answer() {
                continue;
            }
            let answered = |period: &&Period| {
                let block = self.block(form, **period, asked.when.past);
                block.is_some_and(|block| block.value(column, slot).is_answer())
            };
            return sheet.periods[..sheet.ended].iter().rev().find(answered).copied();
        }
        None
    }

    /// The marks of every element of a row over a span, older values of stocks included.
    fn marks_of_row(
        &self,
        asked: &Asked<'_>,
        (row, span): (RowOf<'_>, Span),
    ) -> BTreeMap<ElementIx, Marks> {
        let roster = asked.roster(row.scope, row.dims, days_of(span));
        let mut found: BTreeMap<ElementIx, Marks> = BTreeMap::new();
        for form in self.form_indices() {
            let model = &self.catalogue.forms[form.at()];
            let mut note = |lines: LineMarks| {
                for (line, marks) in model.lines.iter().zip(lines.0) {
                    found.entry(line.element).or_default().join(marks);
                }
            };
            for group in roster.row(&row.key) {
                note(self.marks_of_flows(asked, group, (form, span)));
            }
            for wanderer in roster.wanderers_of(&row.key) {
                note(self.marks_of_wanderer(asked, wanderer, &row.key, (form, span)));
            }
        }
        found
    }

    fn marks_of_wanderer(
        &self,
        asked: &Asked<'_>,
        wanderer: &Wanderer,
        key: &Key,
        (form, span): (FormIx, Span),
    ) -> LineMarks {
        let mut marks = LineMarks::default();
        let Some((chunk, place)) = asked.slots(form).slot(wanderer.unit).map(Sheet::place) else {
            return marks;
        };
        let here = |period: Period| {
            let day = self.organisation.duty_day(wanderer.unit, period);
            let mut stays = wanderer.stays.iter().filter(|stay| stay.keys.contains(key));
            day.is_some_and(|day| stays.any(|stay| stay.first <= day && day <= stay.last))
        };
        for sheet in asked.sheets(form, span).iter() {
            let marked = sheet.marked(&asked.engine, asked.when, chunk).iter();
            for one in marked.filter(|one| one.place == place && here(one.period)) {
                marks.take(one);
            }
        }
        marks
    }

    /// The marks of an indicator's figure for one row: those of its elements, over the time each counts.
    pub(super) fn marks_of_indicator(
        &self,
        asked: &Asked<'_>,
        row: RowOf<'_>,
        span: Span,
        indicator: IndicatorIx,
        kept: &mut MarksKept,
    ) -> Marks {
        let mut marks = Marks::default();
        let last = span.last_day();
        let Some((compiled, _)) = self.compiled_on(indicator, last) else { return marks };
        let Some(row) = self.row_counted(compiled, row) else { return marks };
        let definition = self.catalogue.indicators[indicator.at()].definition_on(last);
        for (at, input) in compiled.inputs.iter().enumerate() {
            let Input::Element { element, over, .. } = input else { continue };
            let begin = compiled.begins(at, span, definition.from);
            let year = matches!(definition.formula, Formula::Growth { .. });
            let spans = [Some((begin, last)), year.then(|| a_year_before(begin, last))];
            for counted in spans.into_iter().flatten().filter_map(span_of_days) {
                let over_time = self.catalogue.elements[element.at()].over_time;
                marks.join(if over_time.is_stock() && *over != Some(Over::Mean) {
                    self.marks_of_newest(asked, row, *element, counted)
                } else {
                    let find = || self.marks_of_row(asked, (row, counted));
                    kept.get_or((row.scope, counted), find)
                        .get(element)
                        .copied()
                        .unwrap_or_default()
                });
            }
        }
        marks
    }

    /// The marks of a stock's newest values in a row.
    fn marks_of_newest(
        &self,
        asked: &Asked<'_>,
        row: RowOf<'_>,
        element: ElementIx,
        span: Span,
    ) -> Marks {
        let mut marks = Marks::default();
        let roster = asked.roster(row.scope, row.dims, days_of(span));
        for form in self.form_indices() {
            let Some(line) = self.catalogue.forms[form.at()].line_of(element) else { continue };
            for group in roster.row(&row.key) {
                marks.join(self.marks_of_stock(asked, group, (form, line), span));
            }
        }
        marks
    }
}
