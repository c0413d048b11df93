//! Expressions: what rules and indicators say, as text, as a tree, and evaluated.
//!
//! [`parse()`] reads the grammar of `docs/formats.md` and reports the exact place of a fault; printing a tree
//! gives text that reads back to the same tree. A tree is either a condition or a number, decided while
//! reading. [`number`] and [`condition`] evaluate exactly (fractions of 128-bit integers, every step
//! checked): there is no rounding, an overflow is "not evaluated". Names become catalogue places in `load`.
//! Nothing here knows facilities or periods: an [`Operands`] answers for them.

use std::fmt;

mod eval;
mod parse;
mod rational;

pub use eval::{NotEvaluated, Operands, condition, number};
pub(super) use parse::WORDS;
pub use parse::{Expected, ExprError, parse, parse_filter};
pub use rational::Rational;

use super::{ElementIx, Filter};

/// Longest expression, in bytes.
pub const EXPR_BYTES_MAX: usize = 2_000;
/// Deepest nesting of parentheses, functions, `not`, `implies` and minus signs.
pub const EXPR_DEPTH_MAX: u32 = 48;

/// What one term of an expression names, once its names are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// The element, or the number of facilities.
    pub what: Counted,
    /// Which facilities it is taken from; empty for all.
    pub filter: Filter,
}

/// What a term counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counted {
    /// The values of an element.
    Element(ElementIx),
    /// `facilities[…]`: facilities open on the last day of the span.
    Facilities,
}

/// A term as written: an element's code (or `facilities`) with a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedTerm {
    /// The element's code, or [`FACILITIES`].
    pub name: String,
    /// Its filter.
    pub filter: NamedFilter,
    /// Where it begins, in bytes from the start of the expression.
    pub at: usize,
}

/// The word for the number of facilities.
pub const FACILITIES: &str = "facilities";

/// A filter as written: parts joined by `;`, choices by `|`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedFilter {
    /// The parts, in order.
    pub parts: Vec<FilterPart>,
}

/// One part of a written filter: `key=choice|choice`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterPart {
    /// `kind`, `role` or an attribute's code.
    pub key: String,
    /// The choices; for `role` with the network kind behind `@`, either of which may be `*`.
    pub choices: Vec<(String, Option<String>)>,
}

/// How a term is taken over time, where that is not the plain value of the period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Over {
    /// `prev(x)`: the value of the previous period of the same form.
    Previous,
    /// `ytd(x)`: from 1 January of the span's last day to that day.
    YearToDate,
    /// `cumulative(x)`: from the first day of the indicator's definition.
    Cumulative,
    /// `mean(x)`: the mean of a stock's values over the periods of the span.
    Mean,
    /// `on_working_days(x)`: the sum over working days of the facility's calendar only.
    WorkingDays,
}

/// A quantity that is no element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fact {
    /// `days_in_period()`: calendar days.
    Days,
    /// `working_days()`: working days of the facility's calendar.
    WorkingDays,
    /// `period_in_year()`: 1 for the first period of its type in the year.
    PeriodInYear,
    /// `value()`: the value under check (history rules: once for every element).
    Value,
    /// `median12()`: the median of the twelve values before.
    Median12,
    /// `mad12()`: the median absolute deviation of the twelve values before.
    Mad12,
    /// `last_year()`: the value of the same period a year earlier.
    LastYear,
}

/// An operation on two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// `a + b`
    Add,
    /// `a - b`
    Subtract,
    /// `a * b`
    Multiply,
    /// `a / b`, an exact fraction
    Divide,
    /// `max(a, b)`
    Max,
    /// `min(a, b)`
    Min,
}

/// A comparison of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// `<=`
    LessOrEqual,
    /// `<`
    Less,
    /// `>=`
    GreaterOrEqual,
    /// `>`
    Greater,
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
}

/// A join of two conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Logic {
    /// `a and b`
    And,
    /// `a or b`
    Or,
    /// `a implies b`: false only where `a` holds and `b` does not.
    Implies,
}

/// An expression over terms `T`: [`NamedTerm`] as read, [`Term`] once its names are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr<T = Term> {
    /// A whole number.
    Number(u64),
    /// A term's value.
    Term(T),
    /// A term taken over time in another way.
    Over(Over, T),
    /// A quantity that is no element.
    Fact(Fact),
    /// `-a`
    Negate(Box<Expr<T>>),
    /// `abs(a)`
    Abs(Box<Expr<T>>),
    /// Two numbers joined.
    Arithmetic(Arithmetic, Box<Expr<T>>, Box<Expr<T>>),
    /// Two numbers compared.
    Compare(Comparison, Box<Expr<T>>, Box<Expr<T>>),
    /// `a in {0, 1}`
    In(Box<Expr<T>>, Vec<u64>),
    /// `not a`
    Not(Box<Expr<T>>),
    /// Two conditions joined.
    Logic(Logic, Box<Expr<T>>, Box<Expr<T>>),
}

impl<T> Expr<T> {
    /// Whether it is a condition (true or false) rather than a number.
    pub fn is_condition(&self) -> bool {
        matches!(self, Expr::Compare(..) | Expr::In(..) | Expr::Not(_) | Expr::Logic(..))
    }

    /// Calls `see` for this expression and every part of it, outermost first.
    pub fn walk<'a>(&'a self, see: &mut dyn FnMut(&'a Expr<T>)) {
        see(self);
        match self {
            Expr::Number(_) | Expr::Term(_) | Expr::Over(..) | Expr::Fact(_) => {}
            Expr::Negate(a) | Expr::Abs(a) | Expr::In(a, _) | Expr::Not(a) => a.walk(see),
            Expr::Arithmetic(_, a, b) | Expr::Compare(_, a, b) | Expr::Logic(_, a, b) => {
                a.walk(see);
                b.walk(see);
            }
        }
    }

    /// Its terms, in the order they are written.
    pub fn terms(&self) -> Vec<&T> {
        let mut terms = Vec::new();
        self.walk(&mut |part| {
            if let Expr::Term(term) | Expr::Over(_, term) = part {
                terms.push(term);
            }
        });
        terms
    }

    /// Its quantities that are no elements, in the order they are written.
    pub fn facts(&self) -> Vec<Fact> {
        let mut facts = Vec::new();
        self.walk(&mut |part| {
            if let Expr::Fact(fact) = part {
                facts.push(*fact);
            }
        });
        facts
    }

    /// The same expression over other terms.
    pub fn map<U, E>(&self, change: &mut dyn FnMut(&T) -> Result<U, E>) -> Result<Expr<U>, E> {
        Ok(match self {
            Expr::Number(n) => Expr::Number(*n),
            Expr::Term(term) => Expr::Term(change(term)?),
            Expr::Over(over, term) => Expr::Over(*over, change(term)?),
            Expr::Fact(fact) => Expr::Fact(*fact),
            Expr::Negate(a) => Expr::Negate(Box::new(a.map(change)?)),
            Expr::Abs(a) => Expr::Abs(Box::new(a.map(change)?)),
            Expr::In(a, set) => Expr::In(Box::new(a.map(change)?), set.clone()),
            Expr::Not(a) => Expr::Not(Box::new(a.map(change)?)),
            Expr::Arithmetic(op, a, b) => {
                Expr::Arithmetic(*op, Box::new(a.map(change)?), Box::new(b.map(change)?))
            }
            Expr::Compare(op, a, b) => {
                Expr::Compare(*op, Box::new(a.map(change)?), Box::new(b.map(change)?))
            }
            Expr::Logic(op, a, b) => {
                Expr::Logic(*op, Box::new(a.map(change)?), Box::new(b.map(change)?))
            }
        })
    }
}

impl Over {
    /// Every way, for reading and for messages.
    pub const ALL: [Over; 5] =
        [Over::Previous, Over::YearToDate, Over::Cumulative, Over::Mean, Over::WorkingDays];

    /// The function's name.
    pub fn name(self) -> &'static str {
        match self {
            Over::Previous => "prev",
            Over::YearToDate => "ytd",
            Over::Cumulative => "cumulative",
            Over::Mean => "mean",
            Over::WorkingDays => "on_working_days",
        }
    }
}

impl Fact {
    /// Every quantity, for reading and for messages.
    pub const ALL: [Fact; 7] = [
        Fact::Days,
        Fact::WorkingDays,
        Fact::PeriodInYear,
        Fact::Value,
        Fact::Median12,
        Fact::Mad12,
        Fact::LastYear,
    ];

    /// The function's name.
    pub fn name(self) -> &'static str {
        match self {
            Fact::Days => "days_in_period",
            Fact::WorkingDays => "working_days",
            Fact::PeriodInYear => "period_in_year",
            Fact::Value => "value",
            Fact::Median12 => "median12",
            Fact::Mad12 => "mad12",
            Fact::LastYear => "last_year",
        }
    }
}

impl Arithmetic {
    fn sign(self) -> &'static str {
        match self {
            Arithmetic::Add => "+",
            Arithmetic::Subtract => "-",
            Arithmetic::Multiply => "*",
            Arithmetic::Divide => "/",
            Arithmetic::Max => "max",
            Arithmetic::Min => "min",
        }
    }
}

impl Comparison {
    fn sign(self) -> &'static str {
        match self {
            Comparison::LessOrEqual => "<=",
            Comparison::Less => "<",
            Comparison::GreaterOrEqual => ">=",
            Comparison::Greater => ">",
            Comparison::Equal => "=",
            Comparison::NotEqual => "!=",
        }
    }
}

impl fmt::Display for NamedFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, part) in self.parts.iter().enumerate() {
            let lead = if n == 0 { "" } else { "; " };
            write!(f, "{lead}{}=", part.key)?;
            for (n, (choice, of)) in part.choices.iter().enumerate() {
                let lead = if n == 0 { "" } else { "|" };
                write!(f, "{lead}{choice}")?;
                if let Some(of) = of {
                    write!(f, "@{of}")?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for NamedTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if !self.filter.parts.is_empty() {
            write!(f, "[{}]", self.filter)?;
        }
        Ok(())
    }
}

impl<T> Expr<T> {
    /// How tightly it binds: the larger, the tighter.
    fn binds(&self) -> u8 {
        match self {
            Expr::Logic(Logic::Implies, ..) => 1,
            Expr::Logic(Logic::Or, ..) => 2,
            Expr::Logic(Logic::And, ..) => 3,
            Expr::Not(_) => 4,
            Expr::Compare(..) | Expr::In(..) => 5,
            Expr::Arithmetic(Arithmetic::Add | Arithmetic::Subtract, ..) => 6,
            Expr::Arithmetic(Arithmetic::Multiply | Arithmetic::Divide, ..) => 7,
            Expr::Negate(_) => 8,
            _ => 9,
        }
    }
}

/// Prints the expression with no more parentheses than it needs.
impl<T: fmt::Display> fmt::Display for Expr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A part that binds less tightly than `least` needs parentheses.
        let part = |f: &mut fmt::Formatter<'_>, part: &Expr<T>, least: u8| {
            if part.binds() < least { write!(f, "({part})") } else { write!(f, "{part}") }
        };
        let own = self.binds();
        match self {
            Expr::Number(n) => write!(f, "{n}"),
            Expr::Term(term) => write!(f, "{term}"),
            Expr::Over(over, term) => write!(f, "{}({term})", over.name()),
            Expr::Fact(fact) => write!(f, "{}()", fact.name()),
            Expr::Abs(a) => write!(f, "abs({a})"),
            Expr::Arithmetic(op @ (Arithmetic::Max | Arithmetic::Min), a, b) => {
                write!(f, "{}({a}, {b})", op.sign())
            }
            Expr::Negate(a) => {
                f.write_str("-")?;
                part(f, a, own)
            }
            Expr::Not(a) => {
                f.write_str("not ")?;
                part(f, a, own)
            }
            Expr::Arithmetic(op, a, b) => {
                part(f, a, own)?;
                write!(f, " {} ", op.sign())?;
                part(f, b, own + 1)
            }
            Expr::Compare(op, a, b) => {
                part(f, a, own + 1)?;
                write!(f, " {} ", op.sign())?;
                part(f, b, own + 1)
            }
            Expr::In(a, set) => {
                part(f, a, own + 1)?;
                let set: Vec<String> = set.iter().map(u64::to_string).collect();
                write!(f, " in {{{}}}", set.join(", "))
            }
            Expr::Logic(Logic::Implies, a, b) => {
                part(f, a, own + 1)?;
                f.write_str(" implies ")?;
                part(f, b, own)
            }
            Expr::Logic(op, a, b) => {
                part(f, a, own)?;
                f.write_str(if *op == Logic::And { " and " } else { " or " })?;
                part(f, b, own + 1)
            }
        }
    }
}

#[cfg(test)]
mod tests;
