//! Exact fractions of 128-bit integers; every step says when it does not fit.

use std::cmp::Ordering;

/// A fraction in lowest terms with a positive denominator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rational {
    over: i128,
    under: i128,
}

fn gcd(a: u128, b: u128) -> u128 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

impl Rational {
    /// Zero.
    pub const ZERO: Rational = Rational { over: 0, under: 1 };

    /// The fraction `over` / `under`, unless `under` is 0 or a part does not fit.
    pub fn new(over: i128, under: i128) -> Option<Rational> {
        if under == 0 {
            return None;
        }
        let common = i128::try_from(gcd(over.unsigned_abs(), under.unsigned_abs())).ok()?;
        let (over, under) = (over.checked_div(common)?, under.checked_div(common)?);
        if under < 0 {
            return Some(Rational { over: over.checked_neg()?, under: under.checked_neg()? });
        }
        Some(Rational { over, under })
    }

    /// The part above the line.
    pub fn numerator(self) -> i128 {
        self.over
    }

    /// The part below the line, always positive.
    pub fn denominator(self) -> i128 {
        self.under
    }

    /// `self + other`, if it fits.
    pub fn plus(self, other: Rational) -> Option<Rational> {
        if self.under == 1 && other.under == 1 {
            return Some(Rational { over: self.over.checked_add(other.over)?, under: 1 });
        }
        let left = self.over.checked_mul(other.under)?;
        let right = other.over.checked_mul(self.under)?;
        Rational::new(left.checked_add(right)?, self.under.checked_mul(other.under)?)
    }

    /// `self - other`, if it fits.
    pub fn minus(self, other: Rational) -> Option<Rational> {
        self.plus(other.negated()?)
    }

    /// `self * other`, if it fits.
    pub fn times(self, other: Rational) -> Option<Rational> {
        if self.under == 1 && other.under == 1 {
            return Some(Rational { over: self.over.checked_mul(other.over)?, under: 1 });
        }
        Rational::new(self.over.checked_mul(other.over)?, self.under.checked_mul(other.under)?)
    }

    /// `self / other`, if it fits and `other` is not 0.
    pub fn divided_by(self, other: Rational) -> Option<Rational> {
        Rational::new(self.over.checked_mul(other.under)?, self.under.checked_mul(other.over)?)
    }

    /// `-self`, if it fits.
    pub fn negated(self) -> Option<Rational> {
        Some(Rational { over: self.over.checked_neg()?, under: self.under })
    }

    /// Which is larger, if the comparison fits.
    pub fn compare(self, other: Rational) -> Option<Ordering> {
        let left = self.over.checked_mul(other.under)?;
        Some(left.cmp(&other.over.checked_mul(self.under)?))
    }

    /// The nearest binary floating-point number, for showing only.
    pub fn to_f64(self) -> f64 {
        self.over as f64 / self.under as f64
    }
}

impl From<u64> for Rational {
    fn from(n: u64) -> Rational {
        Rational { over: i128::from(n), under: 1 }
    }
}
