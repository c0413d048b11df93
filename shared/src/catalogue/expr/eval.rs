//! Evaluation: exact, and three-valued at the top: true, false, or not evaluated and why.

use std::cmp::Ordering;

use super::{Arithmetic, Comparison, Expr, Fact, Logic, Over, Rational, Term};

/// Why an expression has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotEvaluated {
    /// An operand is missing, not applicable or not known here.
    Absent,
    /// A division by zero.
    DivisionByZero,
    /// A number too large for 128 bits.
    Overflow,
    /// A condition where a number belongs, or the reverse: no catalogue that passed the check holds one.
    Shape,
}

/// Who answers for the names in an expression. `None` = absent (missing or not applicable).
pub trait Operands {
    /// The value of a term.
    fn term(&self, term: &Term) -> Option<Rational>;
    /// The value of a term taken over time in another way.
    fn over(&self, over: Over, term: &Term) -> Option<Rational>;
    /// A quantity that is no element.
    fn fact(&self, fact: Fact) -> Option<Rational>;
}

/// The number `expr` stands for. Every part is looked at: one absent operand anywhere leaves it
/// without a value.
pub fn number(expr: &Expr, operands: &dyn Operands) -> Result<Rational, NotEvaluated> {
    use NotEvaluated::{Absent, DivisionByZero, Overflow, Shape};
    match expr {
        Expr::Number(n) => Ok(Rational::from(*n)),
        Expr::Term(term) => operands.term(term).ok_or(Absent),
        Expr::Over(over, term) => operands.over(*over, term).ok_or(Absent),
        Expr::Fact(fact) => operands.fact(*fact).ok_or(Absent),
        Expr::Negate(a) => number(a, operands)?.negated().ok_or(Overflow),
        Expr::Abs(a) => {
            let a = number(a, operands)?;
            if a.numerator() < 0 { a.negated().ok_or(Overflow) } else { Ok(a) }
        }
        Expr::Arithmetic(op, a, b) => {
            let (a, b) = (number(a, operands)?, number(b, operands)?);
            let greater = || a.compare(b).map(|order| order == Ordering::Greater);
            match op {
                Arithmetic::Add => a.plus(b),
                Arithmetic::Subtract => a.minus(b),
                Arithmetic::Multiply => a.times(b),
                Arithmetic::Divide if b == Rational::ZERO => return Err(DivisionByZero),
                Arithmetic::Divide => a.divided_by(b),
                Arithmetic::Max => greater().map(|greater| if greater { a } else { b }),
                Arithmetic::Min => greater().map(|greater| if greater { b } else { a }),
            }
            .ok_or(Overflow)
        }
        Expr::Compare(..) | Expr::In(..) | Expr::Not(_) | Expr::Logic(..) => Err(Shape),
    }
}

/// Whether `expr` holds. Every part is looked at: one absent operand anywhere leaves it not evaluated,
/// also behind `or` and `implies`.
pub fn condition(expr: &Expr, operands: &dyn Operands) -> Result<bool, NotEvaluated> {
    use NotEvaluated::{Overflow, Shape};
    match expr {
        Expr::Compare(op, a, b) => {
            let (a, b) = (number(a, operands)?, number(b, operands)?);
            let order = a.compare(b).ok_or(Overflow)?;
            Ok(match op {
                Comparison::LessOrEqual => order != Ordering::Greater,
                Comparison::Less => order == Ordering::Less,
                Comparison::GreaterOrEqual => order != Ordering::Less,
                Comparison::Greater => order == Ordering::Greater,
                Comparison::Equal => order == Ordering::Equal,
                Comparison::NotEqual => order != Ordering::Equal,
            })
        }
        Expr::In(a, set) => {
            let a = number(a, operands)?;
            Ok(set.iter().any(|&n| Rational::from(n) == a))
        }
        Expr::Not(a) => Ok(!condition(a, operands)?),
        Expr::Logic(op, a, b) => {
            let (a, b) = (condition(a, operands)?, condition(b, operands)?);
            Ok(match op {
                Logic::And => a && b,
                Logic::Or => a || b,
                Logic::Implies => !a || b,
            })
        }
        _ => Err(Shape),
    }
}
