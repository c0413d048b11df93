//! Validation rules: relations between the values of a report that ought to hold.
//!
//! [`check_report`] answers at once, offline, before "saved". A rule is declared in parts, each one
//! condition with its forms, [`RuleScope`] and [`Severity`]; parts of other scopes than
//! [`RuleScope::Report`] need more than one report and are evaluated at the centre. An absent operand
//! (missing, not applicable, not asked, not known) leaves a part not evaluated: never broken.

use serde::{Deserialize, Serialize};

use super::expr::{self, Counted, Expr, Fact, NotEvaluated, Operands, Over, Rational, Term};
use super::{Catalogue, FormIx, NetworkKindIx, RuleIx, Text};
use crate::ids::{ElementCode, RuleCode};
use crate::period::{Date, Period, PeriodType};
use crate::report::Value;

/// How grave a broken rule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Accepted and flagged.
    Warning,
    /// Stops saving at the site unless overridden with a code.
    Error,
}

impl Severity {
    /// The severity's name in files.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// Which reports a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleScope {
    /// One report and the one before it: checked where it is entered.
    Report,
    /// Other reports of the same facility too (its other forms, earlier periods): checked at the centre.
    History,
    /// Reports of all facilities of a network, summed: checked at the centre.
    CrossSite,
}

impl RuleScope {
    /// The scope's name in files.
    pub fn name(self) -> &'static str {
        match self {
            RuleScope::Report => "report",
            RuleScope::History => "history",
            RuleScope::CrossSite => "cross_site",
        }
    }
}

/// One condition of a rule.
#[derive(Clone, Debug)]
pub struct RulePart {
    /// Its code: the rule's, or the rule's with a letter where there are several parts (`V02a`).
    pub code: RuleCode,
    /// The forms whose reports it is checked on.
    pub forms: Vec<FormIx>,
    /// How grave it is when broken.
    pub severity: Severity,
    /// Which reports it looks at.
    pub scope: RuleScope,
    /// For [`RuleScope::CrossSite`]: the kind of network whose facilities are summed.
    pub network_kind: Option<NetworkKindIx>,
    /// The condition; none while it names elements the catalogue only reserves.
    pub expr: Option<Expr<Term>>,
    /// The reserved elements it waits for.
    pub waits_for: Vec<ElementCode>,
    /// The condition as written.
    pub text: String,
}

/// A rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its code, for example `V01`.
    pub code: RuleCode,
    /// What people read when it is broken.
    pub message: Text,
    /// Its conditions, each of which should hold.
    pub parts: Vec<RulePart>,
}

/// What came of evaluating one part of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The condition holds.
    Holds,
    /// It does not.
    Broken,
    /// It could not be evaluated, which is no fault of the report.
    NotEvaluated(NotEvaluated),
}

/// One report as a rule sees it.
#[derive(Clone, Copy, Debug)]
pub struct ReportView<'a> {
    /// Its form.
    pub form: FormIx,
    /// Its values, in the order of the form's lines.
    pub values: &'a [Value],
    /// The values of the same facility's report for the period before, if known.
    pub previous: Option<&'a [Value]>,
    /// Its period.
    pub period: Period,
    /// Working days in the period by the facility's calendar.
    pub working_days: u32,
}

/// Monday-to-Friday days in `period`: working days where no calendar says otherwise.
pub fn default_working_days(period: Period) -> u32 {
    let (first, days) = (period.first_day(), period.day_count());
    (0..days)
        .filter(|&n| i32::try_from(n).is_ok_and(|n| first.plus(n).weekday() < 5))
        .fold(0, |count, _| count + 1)
}

struct OneReport<'a> {
    catalogue: &'a Catalogue,
    view: &'a ReportView<'a>,
}

impl OneReport<'_> {
    fn value(&self, values: &[Value], term: &Term) -> Option<Rational> {
        let Counted::Element(element) = term.what else { return None };
        let form = self.catalogue.forms.get(self.view.form.at())?;
        values.get(form.line_of(element)?)?.number().map(Rational::from)
    }
}

impl Operands for OneReport<'_> {
    fn term(&self, term: &Term) -> Option<Rational> {
        self.value(self.view.values, term)
    }
    fn over(&self, over: Over, term: &Term) -> Option<Rational> {
        match over {
            Over::Previous => self.value(self.view.previous?, term),
            _ => None,
        }
    }
    fn fact(&self, fact: Fact) -> Option<Rational> {
        let days = match fact {
            Fact::Days => self.view.period.day_count(),
            Fact::WorkingDays => self.view.working_days,
            Fact::PeriodInYear => period_in_year(self.view.period),
            Fact::Value | Fact::Median12 | Fact::Mad12 | Fact::LastYear => return None,
        };
        Some(Rational::from(u64::from(days)))
    }
}

/// 1 for the first period of its type in the year its last day lies in; an ISO week's number.
pub fn period_in_year(period: Period) -> u32 {
    if period.kind() == PeriodType::Week {
        return u32::try_from(period.first_day().civil().iso_week_date().week()).unwrap_or(1);
    }
    let (year, _, _) = period.last_day().ymd();
    let first = Date::new(year, 1, 1).map(|date| Period::containing(period.kind(), date));
    first.and_then(|first| u32::try_from(period.index() - first.index() + 1).ok()).unwrap_or(1)
}

/// The middle of some numbers, the mean of the two middle ones of an even number of them; none of none.
pub fn median(numbers: &[u64]) -> Option<Rational> {
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable();
    let half = numbers.len() / 2;
    let upper = Rational::from(*numbers.get(half)?);
    if numbers.len() % 2 == 1 {
        return Some(upper);
    }
    upper.plus(Rational::from(numbers[half - 1]))?.divided_by(Rational::from(2))
}

/// The median of how far some numbers lie from their median.
pub fn deviation(numbers: &[u64]) -> Option<Rational> {
    // Twice the median is whole, and so is every distance taken twice.
    let twice = u128::try_from(median(numbers)?.times(Rational::from(2))?.numerator()).ok()?;
    let distance = |n: &u64| u64::try_from((u128::from(*n) * 2).abs_diff(twice)).ok();
    let distances = numbers.iter().map(distance).collect::<Option<Vec<u64>>>()?;
    median(&distances)?.divided_by(Rational::from(2))
}

/// Evaluates one part on one report. A part of another scope than [`RuleScope::Report`], or waiting for
/// reserved elements, or not of this form, is not evaluated.
pub fn evaluate(catalogue: &Catalogue, part: &RulePart, view: &ReportView<'_>) -> Verdict {
    let absent = Verdict::NotEvaluated(NotEvaluated::Absent);
    let Some(expr) = &part.expr else { return absent };
    if part.scope != RuleScope::Report || !part.forms.contains(&view.form) {
        return absent;
    }
    match expr::condition(expr, &OneReport { catalogue, view }) {
        Ok(true) => Verdict::Holds,
        Ok(false) => Verdict::Broken,
        Err(why) => Verdict::NotEvaluated(why),
    }
}

/// A broken rule of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Broken {
    /// The rule.
    pub rule: RuleIx,
    /// Which of its parts.
    pub part: usize,
    /// How grave it is.
    pub severity: Severity,
}

impl Broken {
    /// The rule in `catalogue`.
    pub fn rule<'a>(&self, catalogue: &'a Catalogue) -> &'a Rule {
        &catalogue.rules[self.rule.at()]
    }

    /// The part in `catalogue`.
    pub fn part<'a>(&self, catalogue: &'a Catalogue) -> &'a RulePart {
        &self.rule(catalogue).parts[self.part]
    }
}

/// Every rule the report breaks, by rule and part. `values` and `previous` stand in the order of the
/// form's lines; `previous` is the same facility's report of the same form for the period before.
/// Working days are Monday to Friday; a caller that knows the calendar uses [`check_view`].
pub fn check_report(
    catalogue: &Catalogue,
    form: FormIx,
    values: &[Value],
    previous: Option<&[Value]>,
    period: Period,
) -> Vec<Broken> {
    let working_days = default_working_days(period);
    check_view(catalogue, &ReportView { form, values, previous, period, working_days })
}

/// Every rule the report breaks, by rule and part.
pub fn check_view(catalogue: &Catalogue, view: &ReportView<'_>) -> Vec<Broken> {
    let mut broken = Vec::new();
    for (n, rule) in catalogue.rules.iter().enumerate() {
        let Ok(n) = u16::try_from(n) else { break };
        for (at, part) in rule.parts.iter().enumerate() {
            if evaluate(catalogue, part, view) == Verdict::Broken {
                broken.push(Broken { rule: RuleIx(n), part: at, severity: part.severity });
            }
        }
    }
    broken
}
