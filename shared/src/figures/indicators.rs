//! M1: what an indicator counts, and how its value is judged.
//!
//! Gathering the cells is the query layer's. Here: the shape of a formula ([`Compiled`]), when a
//! facility-period is matched ([`is_matched`]), the state of the figure, rounding, targets and pace. All of it
//! is exact: whole numbers and fractions, never a rounded intermediate.

use std::collections::HashSet;

use crate::catalogue::expr::{
    Arithmetic, Counted, Expr, Fact, NotEvaluated, Operands, Over, Rational, Term, number,
};
use crate::catalogue::indicator::Formula;
use crate::catalogue::{Catalogue, Direction, ElementIx, Filter, OverTime, Scope};
use crate::figures::State;
use crate::period::{Date, PeriodType, Span};

/// One thing a formula counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The values of an element, of facilities passing the filter.
    Element {
        /// The element.
        element: ElementIx,
        /// Which facilities.
        filter: Filter,
        /// How it is taken over time, where that is not as the element says.
        over: Option<Over>,
    },
    /// Facilities open on the last day of the span, passing the filter.
    Facilities(Filter),
    /// A quantity of the facility's calendar.
    Fact(Fact),
}

/// A sum of inputs with whole factors: what most formulas are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Linear(pub Vec<(i128, usize)>);

/// A number of a formula, ready to be computed.
#[derive(Clone, Debug)]
pub struct Side {
    /// The expression.
    pub expr: Expr<Term>,
    /// The same as a sum, where it is one: then the inputs may be added over facilities first. Of stocks
    /// taken as their mean it is one only where each facility has a single number.
    pub linear: Option<Linear>,
    /// Whether it holds the mean of a stock.
    pub mean: bool,
    /// The element inputs in it.
    pub elements: Vec<usize>,
}

/// A formula with its inputs listed once each.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// What it counts.
    pub inputs: Vec<Input>,
    /// Numerator and denominator; a count or growth has only the first, a share only its condition there.
    pub sides: Vec<Side>,
    /// Whether an element of an area (the county desk's) is among the inputs.
    pub area: bool,
    /// Whether all element inputs are stocks: then the set is that of the last day of the span.
    pub stocks: bool,
}

impl Compiled {
    /// Lists what `formula` counts; none for formulas over the registry or over reporting.
    pub fn new(catalogue: &Catalogue, formula: &Formula) -> Option<Compiled> {
        let expressions = formula.expressions();
        if expressions.is_empty() {
            return None;
        }
        let mut inputs: Vec<Input> = Vec::new();
        for (_, expr) in &expressions {
            expr.walk(&mut |part| {
                if let Some(input) = input_of(part)
                    && !inputs.contains(&input)
                {
                    inputs.push(input);
                }
            });
        }
        let elements: Vec<ElementIx> = inputs.iter().filter_map(Input::element).collect();
        let all = |test: &dyn Fn(ElementIx) -> bool| elements.iter().all(|e| test(*e));
        let stocks = !elements.is_empty()
            && all(&|e| catalogue.elements[e.at()].over_time.is_stock())
            && !inputs.iter().any(|input| matches!(input, Input::Fact(_)));
        let area = !all(&|e| catalogue.elements[e.at()].scope == Scope::Facility);
        let sides = expressions.into_iter().map(|(_, expr)| side(expr, &inputs)).collect();
        Some(Compiled { inputs, sides, area, stocks })
    }

    /// The first day whose periods `input` counts, for a span; `from` is the definition's first day.
    pub fn begins(&self, input: usize, span: Span, from: Option<Date>) -> Date {
        let Input::Element { over, .. } = &self.inputs[input] else { return span.first_day() };
        match over {
            Some(Over::YearToDate) => year_start(span.last_day()),
            Some(Over::Cumulative) => from.unwrap_or(span.first_day()).min(span.last_day()),
            _ => span.first_day(),
        }
    }
}

impl Input {
    /// Whether it is a term, taken over time in the way given.
    fn is(&self, term: &Term, way: Option<Over>) -> bool {
        match (self, &term.what) {
            (Input::Element { element, filter, over }, Counted::Element(wanted)) => {
                element == wanted && *filter == term.filter && *over == way
            }
            (Input::Facilities(filter), Counted::Facilities) => *filter == term.filter,
            _ => false,
        }
    }

    /// The element, if it is one.
    pub fn element(&self) -> Option<ElementIx> {
        match self {
            Input::Element { element, .. } => Some(*element),
            _ => None,
        }
    }
}

fn year_start(day: Date) -> Date {
    Date::new(day.ymd().0, 1, 1).unwrap_or(day)
}

fn input_of(part: &Expr<Term>) -> Option<Input> {
    let (term, over) = match part {
        Expr::Term(term) => (term, None),
        Expr::Over(over, term) => (term, Some(*over)),
        Expr::Fact(fact) => return Some(Input::Fact(*fact)),
        _ => return None,
    };
    Some(match term.what {
        Counted::Element(element) => Input::Element { element, filter: term.filter.clone(), over },
        Counted::Facilities => Input::Facilities(term.filter.clone()),
    })
}

fn side(expr: &Expr<Term>, inputs: &[Input]) -> Side {
    let mut sum = Linear::default();
    let linear = add(expr, 1, inputs, &mut sum).then_some(sum);
    let mut elements = Vec::new();
    let mut mean = false;
    expr.walk(&mut |part| {
        mean |= matches!(part, Expr::Over(Over::Mean, _));
        let at = input_of(part).and_then(|input| inputs.iter().position(|i| *i == input));
        if let Some(at) = at.filter(|at| inputs[*at].element().is_some())
            && !elements.contains(&at)
        {
            elements.push(at);
        }
    });
    Side { expr: expr.clone(), linear, mean, elements }
}

/// A whole number, if the expression is nothing else.
fn constant(expr: &Expr<Term>) -> Option<i128> {
    match expr {
        Expr::Number(n) => Some(i128::from(*n)),
        Expr::Negate(a) => constant(a)?.checked_neg(),
        _ => None,
    }
}

/// Adds `factor` times `expr` to `sum`; false where it is no sum of inputs.
fn add(expr: &Expr<Term>, factor: i128, inputs: &[Input], sum: &mut Linear) -> bool {
    match expr {
        Expr::Term(_) | Expr::Over(..) | Expr::Fact(_) => {
            let at = input_of(expr).and_then(|input| inputs.iter().position(|i| *i == input));
            let Some(at) = at else { return false };
            match sum.0.iter_mut().find(|(_, input)| *input == at) {
                Some((held, _)) => *held += factor,
                None => sum.0.push((factor, at)),
            }
            true
        }
        Expr::Negate(a) => factor.checked_neg().is_some_and(|factor| add(a, factor, inputs, sum)),
        Expr::Arithmetic(Arithmetic::Add, a, b) => {
            add(a, factor, inputs, sum) && add(b, factor, inputs, sum)
        }
        Expr::Arithmetic(Arithmetic::Subtract, a, b) => {
            let minus = factor.checked_neg();
            add(a, factor, inputs, sum) && minus.is_some_and(|minus| add(b, minus, inputs, sum))
        }
        Expr::Arithmetic(Arithmetic::Multiply, a, b) => {
            let (n, rest) = match (constant(a), constant(b)) {
                (Some(n), _) => (n, b),
                (None, Some(n)) => (n, a),
                (None, None) => return false,
            };
            factor.checked_mul(n).is_some_and(|factor| add(rest, factor, inputs, sum))
        }
        _ => false,
    }
}

/// Whether enough of an element's form-periods of a facility-period are answered: at least `pair_min`
/// thousandths of those owed; of a stock, a single value.
pub fn is_matched(over_time: OverTime, asked: u64, answered: u64, pair_min: u16) -> bool {
    if over_time.is_stock() {
        return answered > 0;
    }
    u128::from(answered) * 1000 >= u128::from(asked) * u128::from(pair_min)
}

/// How many facility-periods of a formula there are, and how many are matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pairs {
    /// In the formula.
    pub expected: u64,
    /// Of them: matched.
    pub matched: u64,
}

/// The state of a ratio-like figure, from its coverage: `absent` says that a whole kind is missing,
/// `pending` that something of it can still come in time, `too_fine` that the span holds no whole period.
pub fn indicator_state(pairs: Pairs, absent: bool, pending: bool, too_fine: bool) -> State {
    if too_fine {
        State::TooFine
    } else if pairs.expected == 0 {
        State::NotApplicable
    } else if absent || pairs.matched == 0 {
        if pending { State::Waiting } else { State::Missing }
    } else {
        State::Reported
    }
}

/// The coarser of two period types: the one whose periods are longer.
pub fn coarser(a: PeriodType, b: PeriodType) -> PeriodType {
    if length(b) > length(a) { b } else { a }
}

/// Days of a period of the type, roughly: for comparing types only.
pub fn length(kind: PeriodType) -> u16 {
    match kind {
        PeriodType::Day => 1,
        PeriodType::Week => 7,
        PeriodType::Month => 30,
        PeriodType::Quarter => 91,
        PeriodType::Half => 182,
        PeriodType::Year => 365,
    }
}

/// The inputs' values for one facility. What stands for an input that is not asked of it, or answered "not
/// applicable", is the formula's: 0 in a sum over facilities, nothing in a condition (`docs/formats.md`).
pub struct Values<'a> {
    /// The formula.
    pub compiled: &'a Compiled,
    /// One value an input, or none.
    pub values: &'a [Option<Rational>],
}

impl Values<'_> {
    fn of(&self, is_it: impl Fn(&Input) -> bool) -> Option<Rational> {
        let at = self.compiled.inputs.iter().position(is_it)?;
        self.values.get(at).copied().flatten()
    }

    /// The number a side comes to.
    ///
    /// # Errors
    /// A division by zero, or a number beyond 128 bits.
    pub fn number(&self, side: &Side) -> Result<Rational, NotEvaluated> {
        number(&side.expr, self)
    }
}

impl Operands for Values<'_> {
    fn term(&self, term: &Term) -> Option<Rational> {
        self.of(|input| input.is(term, None))
    }
    fn over(&self, over: Over, term: &Term) -> Option<Rational> {
        self.of(|input| input.is(term, Some(over)))
    }
    fn fact(&self, fact: Fact) -> Option<Rational> {
        self.of(|input| *input == Input::Fact(fact))
    }
}

/// The decimal fraction nearest to a bound as it was written: 0.91 is 91/100, not the binary number beside it.
pub fn decimal(bound: f64) -> Option<Rational> {
    let text = format!("{bound}");
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    let digits: i128 = format!("{whole}{part}").parse().ok()?;
    let under = 10_i128.checked_pow(u32::try_from(part.len()).ok()?)?;
    Rational::new(digits, under)
}

/// A value rounded to `decimals` places, half away from zero, for show.
pub fn rounded(value: Rational, decimals: u8) -> f64 {
    let scale = 10_i128.pow(u32::from(decimals.min(9)));
    let (over, under) = (value.numerator(), value.denominator());
    let Some(scaled) = over.checked_mul(scale) else { return value.to_f64() };
    let (whole, rest) = (scaled / under, (scaled % under).unsigned_abs());
    // `rest` lies below `under`, so its double fits.
    let up = rest.saturating_mul(2) >= under.unsigned_abs();
    let whole = whole + if up { scaled.signum() } else { 0 };
    whole as f64 / scale as f64
}

/// Whether a value meets its target; none for one that is only watched or has no bound.
pub fn meets(
    direction: Direction,
    low: Option<f64>,
    high: Option<f64>,
    value: Rational,
) -> Option<bool> {
    use std::cmp::Ordering::{Greater, Less};
    let above = |low: f64| Some(value.compare(decimal(low)?)? != Less);
    let below = |high: f64| Some(value.compare(decimal(high)?)? != Greater);
    match direction {
        Direction::Up => above(low?),
        Direction::Down => below(high?),
        Direction::Within => match (low, high) {
            (Some(low), Some(high)) => Some(above(low)? && below(high)?),
            (Some(low), None) => above(low),
            (None, Some(high)) => below(high),
            (None, None) => None,
        },
        Direction::Watch => None,
    }
}

/// The bound a target is called by: the lower one where higher is better, the upper one where lower is; none
/// for a range.
pub fn bound(direction: Direction, low: Option<f64>, high: Option<f64>) -> Option<f64> {
    match direction {
        Direction::Up => low,
        Direction::Down => high,
        Direction::Within | Direction::Watch => None,
    }
}

/// What should be reached by the end of `until` of a target that is to be reached by the end of the days
/// from `from` to the day before `to`, at an even pace.
pub fn pace(low: f64, from: Date, to: Date, until: Date) -> Option<f64> {
    let whole = to.days() - from.days();
    let gone = (until.days() + 1 - from.days()).clamp(0, whole);
    (whole > 0).then(|| low * f64::from(gone) / f64::from(whole))
}

/// The elements of several formulas that are asked for by working days.
pub fn on_working_days<'a>(formulas: impl Iterator<Item = &'a Compiled>) -> HashSet<ElementIx> {
    let inputs = formulas.flat_map(|compiled| &compiled.inputs);
    inputs
        .filter_map(|input| match input {
            Input::Element { element, over: Some(Over::WorkingDays), .. } => Some(*element),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fraction(over: i128, under: i128) -> Rational {
        Rational::new(over, under).unwrap()
    }

    #[test]
    fn values_are_rounded_half_away_from_zero() {
        assert_eq!(rounded(fraction(881_349, 10_000), 1), 88.1);
        assert_eq!(rounded(fraction(1, 8), 2), 0.13);
        assert_eq!(rounded(fraction(-1, 8), 2), -0.13);
        assert_eq!(rounded(fraction(5, 2), 0), 3.0);
        assert_eq!(rounded(fraction(2, 3), 0), 1.0);
    }

    #[test]
    fn a_target_is_judged_on_the_unrounded_value() {
        let up = |value| meets(Direction::Up, Some(0.91), None, value);
        assert_eq!(up(fraction(91, 100)), Some(true));
        assert_eq!(up(fraction(909_999_999, 1_000_000_000)), Some(false));
        assert_eq!(meets(Direction::Down, None, Some(-40.0), fraction(-41, 1)), Some(true));
        assert_eq!(meets(Direction::Within, Some(1.0), Some(2.0), fraction(2, 1)), Some(true));
        assert_eq!(meets(Direction::Within, Some(1.0), Some(2.0), fraction(21, 10)), Some(false));
        assert_eq!(meets(Direction::Watch, Some(1.0), None, fraction(2, 1)), None);
        assert_eq!(meets(Direction::Up, None, None, fraction(2, 1)), None);
    }

    #[test]
    fn four_fifths_of_the_form_periods_make_a_pair_and_one_value_of_a_stock() {
        assert!(is_matched(OverTime::Sum, 31, 25, 800));
        assert!(!is_matched(OverTime::Sum, 31, 24, 800));
        assert!(is_matched(OverTime::Sum, 10, 8, 800));
        assert!(is_matched(OverTime::Last, 12, 1, 800));
        assert!(!is_matched(OverTime::Last, 12, 0, 800));
    }

    #[test]
    fn the_pace_of_a_year() {
        let day = |text: &str| text.parse().unwrap();
        let year = (day("2026-01-01"), day("2027-01-01"));
        assert_eq!(pace(3650.0, year.0, year.1, day("2026-01-10")), Some(100.0));
        assert_eq!(pace(3650.0, year.0, year.1, day("2027-05-01")), Some(3650.0));
        assert_eq!(pace(1.0, year.0, year.0, day("2026-01-10")), None);
    }
}
