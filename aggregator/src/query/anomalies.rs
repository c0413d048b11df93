//! Broken rules, evaluated over what is counted: those of a single report, those over a facility's other
//! reports, and those over the facilities of a network.
//!
//! A rule with an operand that is not known is not broken. Over several reports an operand is known once
//! everything asked is answered: a sum that lacks a report would say that something is wrong where nothing is.
//! Nothing here stops or changes a figure.

use std::collections::BTreeMap;

use banyan_shared::catalogue::expr::{self, Counted, Expr, Fact, Operands, Over, Rational, Term};
use banyan_shared::catalogue::rule::{
    self, ReportView, Rule, RulePart, RuleScope, deviation, median,
};
use banyan_shared::catalogue::{Class, ElementIx, FormIx, Lang, NetworkKindIx, Text};
use banyan_shared::ids::Millis;
use banyan_shared::organisation::{NetworkIx, UnitIx};
use banyan_shared::period::{Date, Period, PeriodType, Span};
use banyan_shared::report::Value;
use serde::{Deserialize, Serialize};

use super::answer::Ordered;
use super::asked::{Asked, Got, When};
use super::reading::span_of;
use super::request::{Dims, Membership, QueryError, UnitDim};
use super::sets::{Key, Scope};
use super::span::{bundles, span_of_days};
use super::{Engine, ROWS_MAX};
use crate::cube::{BlockRef, Slot};

/// Most reports one question looks at: a county's year of daily reports, and some.
pub(super) const REPORTS_MAX: usize = 200_000;
/// How many periods before a value tell what is usual.
const BEFORE: i32 = 12;
/// Of them, how many must have a number for a median.
const BEFORE_MIN: usize = 6;

/// A question about broken rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnomaliesRequest {
    /// A unit or network, by code or unique name.
    pub place: String,
    /// The period or range.
    pub period: String,
    /// Only this form.
    pub form: Option<String>,
    /// Only this rule, or this part of one.
    pub rule: Option<String>,
    /// Only rules of this scope.
    pub scope: Option<String>,
    /// As known at this moment; none = now.
    pub as_of: Option<Millis>,
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokenRow {
    /// The facility or network.
    pub unit: String,
    /// Its name.
    pub name: String,
    /// Names from the top of the tree; of a network its name alone.
    pub path: Vec<String>,
    /// The form; none for a network.
    pub form: Option<String>,
    /// The report's period; a network's month.
    pub period: String,
    /// The rule's part.
    pub rule: String,
    /// `report`, `history` or `cross_site`.
    pub scope: String,
    /// `error` or `warning`.
    pub severity: String,
    /// The numbers it compares, by element.
    pub values: Ordered<u64>,
    /// What it says.
    pub message: Text,
}

/// The broken rules of a set and span.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnomaliesAnswer {
    /// Code of the unit or network.
    pub unit: String,
    /// Its name.
    pub name: String,
    /// Names from the top of the tree.
    pub path: Vec<String>,
    /// The period or range.
    pub period: String,
    /// As known at this moment.
    pub as_of: String,
    /// The reports looked at.
    pub reports: u64,
    /// What is broken, by network, then by form, period and facility.
    pub rows: Vec<BrokenRow>,
}

/// Which rules are asked for.
#[derive(Clone, Copy, Default)]
struct Wanted<'r> {
    rule: Option<&'r str>,
    scope: Option<RuleScope>,
}

impl Wanted<'_> {
    fn takes(&self, rule: &Rule, part: &RulePart) -> bool {
        self.scope.is_none_or(|scope| scope == part.scope)
            && self.rule.is_none_or(|code| rule.code.as_str() == code || part.code.as_str() == code)
    }
}

/// One form and period with what came before it, ready to look at its reports.
struct Sight<'a, 'e> {
    engine: &'a Engine<'e>,
    asked: &'a Asked<'e>,
    form: FormIx,
    period: Period,
    block: BlockRef<'e>,
    /// The periods before, newest first.
    before: Vec<Option<BlockRef<'e>>>,
    last_year: Option<BlockRef<'e>>,
    columns: Vec<Option<usize>>,
}

/// One report of a sight; `line` is the one under check.
struct OneReport<'s, 'a, 'e> {
    sight: &'s Sight<'a, 'e>,
    unit: UnitIx,
    slot: Slot,
    line: usize,
}

/// A part broken by a report, and the line under check where it is checked line by line.
type Found<'c> = (&'c Rule, &'c RulePart, Option<usize>);

impl<'e> Sight<'_, 'e> {
    fn value(&self, block: Option<&BlockRef<'e>>, line: usize, slot: Slot) -> Option<u64> {
        block?.value(self.columns[line]?, slot).number()
    }

    fn values(&self, block: &BlockRef<'e>, slot: Slot) -> Vec<Value> {
        let value = |column: &Option<usize>| {
            column.map_or(Value::Missing, |column| block.value(column, slot))
        };
        self.columns.iter().map(value).collect()
    }

    /// The rules a report breaks.
    fn broken(&self, unit: UnitIx, slot: Slot, wanted: Wanted<'_>) -> Vec<Found<'e>> {
        let catalogue = self.engine.catalogue;
        let org = self.engine.organisation;
        let values = self.values(&self.block, slot);
        let previous = self.before.first().and_then(Option::as_ref);
        let previous = previous.filter(|block| block.answered(slot));
        let previous = previous.map(|block| self.values(block, slot));
        let days = (self.period.first_day().days()..=self.period.last_day().days())
            .filter_map(Date::from_days);
        let view = ReportView {
            form: self.form,
            values: &values,
            previous: previous.as_deref(),
            period: self.period,
            working_days: u32::try_from(days.filter(|day| org.is_working_day(unit, *day)).count())
                .unwrap_or(0),
        };
        let mut found = Vec::new();
        for rule in &catalogue.rules {
            let parts = rule.parts.iter().filter(|part| part.forms.contains(&self.form));
            for part in parts.filter(|part| wanted.takes(rule, part)) {
                let broken = |line: usize| {
                    let one = OneReport { sight: self, unit, slot, line };
                    let held = part.expr.as_ref().map(|expr| expr::condition(expr, &one));
                    held == Some(Ok(false))
                };
                match part.scope {
                    RuleScope::Report => {
                        if rule::evaluate(catalogue, part, &view) == rule::Verdict::Broken {
                            found.push((rule, part, None));
                        }
                    }
                    RuleScope::History if checks_lines(part) => {
                        let lines =
                            (0..values.len()).filter(|line| values[*line].number().is_some());
                        found.extend(
                            lines.filter(|line| broken(*line)).map(|l| (rule, part, Some(l))),
                        );
                    }
                    RuleScope::History => {
                        if broken(usize::MAX) {
                            found.push((rule, part, None));
                        }
                    }
                    RuleScope::CrossSite => {}
                }
            }
        }
        found
    }
}

/// Whether a part is checked on every line of its forms.
fn checks_lines(part: &RulePart) -> bool {
    let of_line =
        |fact: &Fact| matches!(fact, Fact::Value | Fact::Median12 | Fact::Mad12 | Fact::LastYear);
    part.expr.as_ref().is_some_and(|expr| expr.facts().iter().any(of_line))
}

impl OneReport<'_, '_, '_> {
    /// An element's value over some days, by whichever form the facility is asked it; none until everything
    /// asked is answered with a number.
    fn over_days(&self, element: ElementIx, days: (Date, Date)) -> Option<u64> {
        let Sight { engine, asked, .. } = self.sight;
        let span = span_of_days(days)?;
        let stock = engine.catalogue.elements[element.at()].over_time.is_stock();
        let mut all = Got::default();
        for form in engine.form_indices() {
            let model = &engine.catalogue.forms[form.at()];
            let Some(line) = model.line_of(element) else { continue };
            let Some(slot) = asked.slots(form).slot(self.unit) else { continue };
            for bundle in bundles(model.period_type, span) {
                all.then(asked.read(&asked.sheet(form, bundle), line, slot));
            }
        }
        if all.asked != all.answered || all.not_applicable > 0 || all.numbers == 0 {
            return None;
        }
        if stock { all.last.number() } else { Some(all.sum) }
    }

    fn element(&self, term: &Term, period: Period) -> Option<Rational> {
        let Counted::Element(element) = term.what else { return None };
        let Sight { form, engine, .. } = *self.sight;
        let number = match engine.catalogue.forms[form.at()].line_of(element) {
            Some(line) if period == self.sight.period => {
                self.sight.value(Some(&self.sight.block), line, self.slot)
            }
            Some(line) => self.sight.value(self.sight.before[0].as_ref(), line, self.slot),
            None => self.over_days(element, (period.first_day(), period.last_day())),
        };
        number.map(Rational::from)
    }

    fn own(&self, block: Option<&BlockRef<'_>>) -> Option<u64> {
        let column = self.sight.columns.get(self.line).copied().flatten()?;
        block?.value(column, self.slot).number()
    }

    /// The values of the line before this one.
    fn before(&self) -> Option<Vec<u64>> {
        let blocks = self.sight.before.iter();
        let values: Vec<u64> = blocks.filter_map(|block| self.own(block.as_ref())).collect();
        (values.len() >= BEFORE_MIN).then_some(values)
    }
}

impl Operands for OneReport<'_, '_, '_> {
    fn term(&self, term: &Term) -> Option<Rational> {
        self.element(term, self.sight.period)
    }

    fn over(&self, over: Over, term: &Term) -> Option<Rational> {
        let period = self.sight.period;
        match over {
            Over::Previous => self.element(term, period.plus(-1)),
            Over::YearToDate => {
                let Counted::Element(element) = term.what else { return None };
                let first = Date::new(period.last_day().ymd().0, 1, 1)?;
                self.over_days(element, (first, period.last_day())).map(Rational::from)
            }
            _ => None,
        }
    }

    fn fact(&self, fact: Fact) -> Option<Rational> {
        let Sight { period, engine, .. } = *self.sight;
        let number = match fact {
            Fact::Days => u64::from(period.day_count()),
            Fact::WorkingDays => {
                let days = (period.first_day().days()..=period.last_day().days())
                    .filter_map(Date::from_days);
                days.filter(|day| engine.organisation.is_working_day(self.unit, *day)).count()
                    as u64
            }
            Fact::PeriodInYear => u64::from(rule::period_in_year(period)),
            Fact::Value => self.own(Some(&self.sight.block))?,
            Fact::LastYear => self.own(self.sight.last_year.as_ref())?,
            Fact::Median12 => return median(&self.before()?),
            Fact::Mad12 => return deviation(&self.before()?),
        };
        Some(Rational::from(number))
    }
}

/// One network's facilities over a month: what each element comes to, by facility.
struct OfNetwork<'a, 'e> {
    engine: &'a Engine<'e>,
    month: Period,
    counts: BTreeMap<UnitIx, BTreeMap<ElementIx, super::tally::Count>>,
}

impl OfNetwork<'_, '_> {
    fn passes(&self, term: &Term, unit: UnitIx) -> bool {
        let org = self.engine.organisation;
        let day = org.duty_day(unit, self.month).unwrap_or(self.month.last_day());
        term.filter.admits(&org.facts_on(unit, day))
    }

    /// The sum over the facilities that pass; none if a whole kind of those asked has given nothing.
    fn sum(&self, element: ElementIx, term: &Term) -> Option<u64> {
        let org = self.engine.organisation;
        let (mut sum, mut kinds) = (0_u128, BTreeMap::new());
        for (unit, counts) in &self.counts {
            let Some(count) = counts.get(&element).filter(|_| self.passes(term, *unit)) else {
                continue;
            };
            let day = org.duty_day(*unit, self.month).unwrap_or(self.month.last_day());
            sum += count.tally.sum;
            let (asked, given) = kinds.entry(org.kind_on(*unit, day)).or_insert((0, 0));
            *asked += count.tally.asked;
            *given += count.tally.reports;
        }
        let known =
            !kinds.is_empty() && kinds.values().all(|(asked, given)| *asked == 0 || *given > 0);
        let given = kinds.values().any(|(_, given)| *given > 0);
        (known && given).then(|| u64::try_from(sum).ok()).flatten()
    }
}

impl Operands for OfNetwork<'_, '_> {
    fn term(&self, term: &Term) -> Option<Rational> {
        match term.what {
            Counted::Element(element) => self.sum(element, term).map(Rational::from),
            Counted::Facilities => {
                let facility = |unit: &&UnitIx| {
                    self.engine.organisation.class(**unit) == Class::Facility
                        && self.engine.organisation.is_open(**unit, self.month.last_day())
                        && self.passes(term, **unit)
                };
                Some(Rational::from(self.counts.keys().filter(facility).count() as u64))
            }
        }
    }

    fn over(&self, _: Over, _: &Term) -> Option<Rational> {
        None
    }

    fn fact(&self, fact: Fact) -> Option<Rational> {
        let days = match fact {
            Fact::Days => self.month.day_count(),
            Fact::WorkingDays => rule::default_working_days(self.month),
            Fact::PeriodInYear => rule::period_in_year(self.month),
            _ => return None,
        };
        Some(Rational::from(u64::from(days)))
    }
}

impl<'e> Engine<'e> {
    /// The broken rules of a set and span: those of its facilities' reports that have ended, and those of the
    /// networks its facilities are in, by month.
    ///
    /// # Errors
    /// Why the question cannot be answered, and what to ask instead.
    pub fn anomalies(
        &self,
        request: &AnomaliesRequest,
        now: Millis,
    ) -> Result<AnomaliesAnswer, QueryError> {
        let span = span_of(&request.period)?;
        let when = self.when(Membership::AsItWas, request.as_of, now);
        let place = self.place(&request.place, span, when.map)?;
        let only = match &request.form {
            None => None,
            Some(text) => Some(self.catalogue.form(text).ok_or_else(|| self.unknown_form(text))?),
        };
        let wanted = self.wanted_rules(request)?;
        let asked = Asked::new(*self, when);
        let mut rows = Vec::new();
        if only.is_none() {
            self.look_at_networks(&asked, place.scope, span, wanted, &mut rows)?;
        }
        let mut reports = 0;
        if wanted.scope != Some(RuleScope::CrossSite) {
            for form in self.form_indices().filter(|form| only.is_none_or(|only| only == *form)) {
                let model = &self.catalogue.forms[form.at()];
                for period in span.parts(model.period_type) {
                    let Some(sight) = self.sight(&asked, form, period) else { continue };
                    let set = match place.scope {
                        Scope::Unit(unit) => self.organisation.facilities_below_in(unit, period),
                        Scope::Network(n) | Scope::Area(n) => {
                            self.organisation.facilities_in_during(n, period)
                        }
                    };
                    for (unit, day) in set {
                        let slot = asked.slots(form).slot(unit);
                        let Some(slot) = slot.filter(|slot| sight.block.answered(*slot)) else {
                            continue;
                        };
                        reports += 1;
                        if reports > REPORTS_MAX {
                            return Err(QueryError::TooManyReports { limit: REPORTS_MAX });
                        }
                        for found in sight.broken(unit, slot, wanted) {
                            rows.push(self.broken_row(&sight, (unit, day), slot, found));
                        }
                    }
                    if rows.len() > ROWS_MAX {
                        return Err(QueryError::TooManyRows { limit: ROWS_MAX });
                    }
                }
            }
        }
        Ok(AnomaliesAnswer {
            unit: place.code,
            name: place.name,
            path: place.path,
            period: span.to_string(),
            as_of: self.time_text(when.now),
            reports: reports as u64,
            rows,
        })
    }

    fn wanted_rules<'r>(&self, request: &'r AnomaliesRequest) -> Result<Wanted<'r>, QueryError> {
        let scopes = [RuleScope::Report, RuleScope::History, RuleScope::CrossSite];
        let unknown = |what, text: &str, known: Vec<String>| {
            Err(QueryError::Unknown { what, text: text.to_owned(), similar: known })
        };
        let scope = match request.scope.as_deref() {
            None => None,
            Some(text) => match scopes.into_iter().find(|scope| scope.name() == text) {
                Some(scope) => Some(scope),
                None => return unknown("scope", text, scopes.map(|s| s.name().to_owned()).into()),
            },
        };
        let wanted = Wanted { rule: request.rule.as_deref(), scope };
        let parts =
            || self.catalogue.rules.iter().flat_map(|r| r.parts.iter().map(move |p| (r, p)));
        let one = Wanted { scope: None, ..wanted };
        if let Some(code) = request.rule.as_deref()
            && !parts().any(|(rule, part)| one.takes(rule, part))
        {
            let codes = self.catalogue.rules.iter().map(|rule| rule.code.as_str());
            return unknown("rule", code, super::similar(code, codes));
        }
        Ok(wanted)
    }

    /// The rules that one report breaks.
    pub(super) fn broken_by(
        &self,
        asked: &Asked<'e>,
        unit: UnitIx,
        form: FormIx,
        period: Period,
    ) -> Vec<BrokenRow> {
        let Some(sight) = self.sight(asked, form, period) else { return Vec::new() };
        let slot = asked.slots(form).slot(unit);
        let Some(slot) = slot.filter(|slot| sight.block.answered(*slot)) else { return Vec::new() };
        let day = self.organisation.duty_day(unit, period).unwrap_or(period.last_day());
        let found = sight.broken(unit, slot, Wanted::default());
        found.into_iter().map(|one| self.broken_row(&sight, (unit, day), slot, one)).collect()
    }

    /// None where nothing was reported, and of a period that has not ended.
    fn sight<'a>(
        &'a self,
        asked: &'a Asked<'e>,
        form: FormIx,
        period: Period,
    ) -> Option<Sight<'a, 'e>> {
        let When { now, past, .. } = asked.when;
        if banyan_shared::figures::ended_at(self.catalogue, period) > now {
            return None;
        }
        let lines = self.catalogue.forms[form.at()].lines.iter();
        Some(Sight {
            engine: self,
            asked,
            form,
            period,
            block: self.block(form, period, past)?,
            before: (1..=BEFORE).map(|n| self.block(form, period.plus(-n), past)).collect(),
            last_year: a_year_before(period).and_then(|then| self.block(form, then, past)),
            columns: lines.map(|line| self.column(form, line.element)).collect(),
        })
    }

    fn broken_row(
        &self,
        sight: &Sight<'_, 'e>,
        (unit, day): (UnitIx, Date),
        slot: Slot,
        (rule, part, line): Found<'_>,
    ) -> BrokenRow {
        let org = self.organisation;
        let name = |unit| org.name_on(unit, day, Lang::Zh).to_owned();
        let model = &self.catalogue.forms[sight.form.at()];
        let one = OneReport { sight, unit, slot, line: line.unwrap_or(usize::MAX) };
        let elements = match line {
            Some(line) => vec![model.lines[line].element],
            None => elements_of(part),
        };
        let value = |element: ElementIx| match model.line_of(element) {
            Some(line) => sight.value(Some(&sight.block), line, slot),
            None => one.over_days(element, (sight.period.first_day(), sight.period.last_day())),
        };
        BrokenRow {
            unit: org.code(unit).to_string(),
            name: name(unit),
            path: org.path(unit, day).into_iter().map(name).collect(),
            form: Some(model.code.to_string()),
            period: sight.period.to_string(),
            values: self.values_of(&elements, value),
            ..of_part(rule, part)
        }
    }

    fn values_of(
        &self,
        elements: &[ElementIx],
        value: impl Fn(ElementIx) -> Option<u64>,
    ) -> Ordered<u64> {
        let code = |element: &ElementIx| self.catalogue.elements[element.at()].code.to_string();
        Ordered(elements.iter().filter_map(|e| Some((code(e), value(*e)?))).collect())
    }

    /// The rules broken by networks, by month.
    fn look_at_networks(
        &self,
        asked: &Asked<'e>,
        scope: Scope,
        span: Span,
        wanted: Wanted<'_>,
        rows: &mut Vec<BrokenRow>,
    ) -> Result<(), QueryError> {
        for rule in &self.catalogue.rules {
            let parts = rule.parts.iter().filter(|part| part.scope == RuleScope::CrossSite);
            for part in parts.filter(|part| wanted.takes(rule, part)) {
                let (Some(kind), Some(expr)) = (part.network_kind, &part.expr) else { continue };
                for month in span.parts(PeriodType::Month) {
                    if banyan_shared::figures::ended_at(self.catalogue, month) > asked.when.now {
                        continue;
                    }
                    for network in self.networks_in(asked, scope, kind, month) {
                        rows.extend(self.look_at_network(
                            asked,
                            network,
                            month,
                            (rule, part, expr),
                        ));
                    }
                    if rows.len() > ROWS_MAX {
                        return Err(QueryError::TooManyRows { limit: ROWS_MAX });
                    }
                }
            }
        }
        Ok(())
    }

    /// The networks of a kind that lie wholly in a set during a month: of others more would be told than of
    /// the set.
    fn networks_in(
        &self,
        asked: &Asked<'e>,
        scope: Scope,
        kind: NetworkKindIx,
        month: Period,
    ) -> Vec<NetworkIx> {
        match scope {
            Scope::Network(n) | Scope::Area(n) => {
                let same = self.organisation.network_info(n).kind == kind;
                if same { vec![n] } else { Vec::new() }
            }
            Scope::Unit(area) => {
                let dims = Dims { network: true, network_kind: Some(kind), ..Dims::default() };
                let days = (month.first_day(), month.last_day());
                let inside = |network: &NetworkIx| {
                    let all = self.organisation.facilities_in_during(*network, month);
                    all.into_iter().all(|(unit, day)| self.organisation.is_below(unit, area, day))
                };
                let keys = asked.roster(scope, &dims, days).keys().into_iter();
                keys.filter_map(|key| key.network).filter(inside).collect()
            }
        }
    }

    fn look_at_network(
        &self,
        asked: &Asked<'e>,
        network: NetworkIx,
        month: Period,
        (rule, part, expr): (&Rule, &RulePart, &Expr),
    ) -> Option<BrokenRow> {
        let elements = elements_of(part);
        let mut wanted = vec![false; self.catalogue.elements.len()];
        elements.iter().for_each(|element| wanted[element.at()] = true);
        let dims = Dims { unit: Some(UnitDim::Facility), ..Dims::default() };
        let span = Span::of(month);
        let counts = self.count(asked, Scope::Network(network), &dims, span, &wanted);
        let of_unit = |(key, counts): (Key, _)| Some((key.unit?, counts));
        let counts = counts.into_iter().filter_map(of_unit).collect();
        let set = OfNetwork { engine: self, month, counts };
        if expr::condition(expr, &set) != Ok(false) {
            return None;
        }
        let info = self.organisation.network_info(network);
        let whole = |element| Term { what: Counted::Element(element), filter: Default::default() };
        Some(BrokenRow {
            unit: self.organisation.network_code(network).to_string(),
            name: info.name.to_string(),
            path: vec![info.name.to_string()],
            period: month.to_string(),
            values: self.values_of(&elements, |element| set.sum(element, &whole(element))),
            ..of_part(rule, part)
        })
    }
}

/// The elements a part names, each once, in order.
fn elements_of(part: &RulePart) -> Vec<ElementIx> {
    let mut elements = Vec::new();
    for term in part.expr.iter().flat_map(Expr::terms) {
        if let Counted::Element(element) = term.what
            && !elements.contains(&element)
        {
            elements.push(element);
        }
    }
    elements
}

fn of_part(rule: &Rule, part: &RulePart) -> BrokenRow {
    BrokenRow {
        unit: String::new(),
        name: String::new(),
        path: Vec::new(),
        form: None,
        period: String::new(),
        rule: part.code.to_string(),
        scope: part.scope.name().to_owned(),
        severity: part.severity.name().to_owned(),
        values: Ordered::default(),
        message: rule.message.clone(),
    }
}

/// The same period of the year before; none for a 29 February.
fn a_year_before(period: Period) -> Option<Period> {
    let (year, month, day) = period.first_day().ymd();
    match period.kind() {
        PeriodType::Day => {
            Date::new(year - 1, month, day).map(|d| Period::containing(PeriodType::Day, d))
        }
        PeriodType::Week => Some(period.plus(-52)),
        PeriodType::Month => Some(period.plus(-12)),
        PeriodType::Quarter => Some(period.plus(-4)),
        PeriodType::Half => Some(period.plus(-2)),
        PeriodType::Year => Some(period.plus(-1)),
    }
}
