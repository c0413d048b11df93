//! Reading expressions and filters. Never panics; a fault names its place and what was expected there.

use winnow::ascii::{digit1, multispace0};
use winnow::combinator::{opt, peek};
use winnow::error::{ErrMode, ParserError};
use winnow::prelude::*;
use winnow::stream::{LocatingSlice, Location, Stateful, Stream};
use winnow::token::{any, literal, take_while};

use super::{
    Arithmetic, Comparison, EXPR_BYTES_MAX, EXPR_DEPTH_MAX, Expr, FACILITIES, Fact, FilterPart,
    Logic, NamedFilter, NamedTerm, Over,
};
use crate::catalogue::Lang;

/// What an expression should have had at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A number, an element, a function or a parenthesis.
    Operand,
    /// An operator or the end.
    Operator,
    /// A number where a condition stands.
    Number,
    /// A condition where a number stands.
    Condition,
    /// This sign.
    Sign(&'static str),
    /// A name: letters, digits, `_`, `-`, `.`, not beginning with a digit.
    Name,
    /// A filter part `key=choice`.
    FilterPart,
    /// An element, alone, inside `prev(…)` and its like.
    Element,
    /// A function that exists; the text is the one found.
    Function(String),
    /// A whole number below 2^64; no decimals.
    WholeNumber,
    /// Fewer nested parts: the limit is [`EXPR_DEPTH_MAX`].
    LessNesting,
    /// A shorter text: the limit is [`EXPR_BYTES_MAX`] bytes.
    ShorterText,
    /// Anything at all: the text is empty.
    Something,
    /// One comparison: `a <= b <= c` is written `a <= b and b <= c`.
    OneComparison,
}

/// A fault in an expression or filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExprError {
    /// Where, in bytes from the start.
    pub at: usize,
    /// Where, in characters, the first being 1.
    pub column: usize,
    /// What should have stood there.
    pub expected: Expected,
}

impl ExprError {
    /// Where and what is wrong, for people.
    pub fn text(&self, lang: Lang) -> String {
        let (column, reason) = (self.column, self.reason(lang));
        match lang {
            Lang::Zh => format!("第{column}字：{reason}"),
            Lang::En => format!("at character {column}: {reason}"),
        }
    }

    /// What is wrong, without the place.
    pub fn reason(&self, lang: Lang) -> String {
        let (zh, en): (String, String) = match &self.expected {
            Expected::Operand => {
                ("此处应为数字、数据元、函数或括号".into(), "expected a number, an element, a function or \"(\"".into())
            }
            Expected::Operator => {
                ("此处应为运算符或结尾".into(), "expected an operator or the end".into())
            }
            Expected::Number => (
                "此处应为数值，而不是条件".into(),
                "expected a number, found a condition".into(),
            ),
            Expected::Condition => (
                "此处应为条件（含比较），而不是数值".into(),
                "expected a condition (a comparison), found a number".into(),
            ),
            Expected::Sign(sign) => (format!("此处应为“{sign}”"), format!("expected \"{sign}\"")),
            Expected::Name => ("此处应为代码".into(), "expected a code".into()),
            Expected::FilterPart => (
                "此处应为筛选条件，如 kind=village_clinic".into(),
                "expected a filter part such as kind=village_clinic".into(),
            ),
            Expected::Element => {
                ("该函数只接受一个数据元".into(), "this function takes one element and nothing else".into())
            }
            Expected::Function(name) => (
                format!("没有函数“{name}”，可用：{}", functions()),
                format!("there is no function {name:?}; there are: {}", functions()),
            ),
            Expected::WholeNumber => (
                "此处应为小于2^64的整数，不得有小数".into(),
                "expected a whole number below 2^64 (write 10 * a <= 13 * b instead of a <= b * 1.3)".into(),
            ),
            Expected::LessNesting => (
                format!("嵌套超过{EXPR_DEPTH_MAX}层，请拆成几条"),
                format!("nested deeper than {EXPR_DEPTH_MAX}: split it into parts"),
            ),
            Expected::ShorterText => (
                format!("超过{EXPR_BYTES_MAX}字节，请拆成几条"),
                format!("longer than {EXPR_BYTES_MAX} bytes: split it into parts"),
            ),
            Expected::Something => ("内容为空".into(), "it is empty".into()),
            Expected::OneComparison => (
                "一次只能比较两项：a <= b <= c 应写成 a <= b and b <= c".into(),
                "compare two things at a time: write a <= b <= c as a <= b and b <= c".into(),
            ),
        };
        match lang {
            Lang::Zh => zh,
            Lang::En => en,
        }
    }
}

fn functions() -> String {
    let mut names: Vec<&str> = Over::ALL.iter().map(|over| over.name()).collect();
    names.extend(Fact::ALL.iter().map(|fact| fact.name()));
    names.extend(["abs", "max", "min"]);
    names.join(", ")
}

/// The fault inside the parser: its place and what was expected.
#[derive(Clone, Debug)]
struct Fault {
    at: usize,
    expected: Expected,
}

type Input<'a> = Stateful<LocatingSlice<&'a str>, u32>;
type Fallible<T> = Result<T, ErrMode<Fault>>;

impl ParserError<Input<'_>> for Fault {
    type Inner = Fault;
    fn from_input(input: &Input<'_>) -> Fault {
        Fault { at: input.current_token_start(), expected: Expected::Operand }
    }
    fn into_inner(self) -> Result<Fault, Fault> {
        Ok(self)
    }
}

fn fault<T>(at: usize, expected: Expected) -> Fallible<T> {
    Err(ErrMode::Cut(Fault { at, expected }))
}

/// A read part: the expression and where it began.
struct Part {
    expr: Expr<NamedTerm>,
    at: usize,
}

impl Part {
    fn number(self) -> Fallible<Box<Expr<NamedTerm>>> {
        if self.expr.is_condition() {
            fault(self.at, Expected::Number)
        } else {
            Ok(Box::new(self.expr))
        }
    }
    fn condition(self) -> Fallible<Box<Expr<NamedTerm>>> {
        if self.expr.is_condition() {
            Ok(Box::new(self.expr))
        } else {
            fault(self.at, Expected::Condition)
        }
    }
}

fn space(input: &mut Input<'_>) -> Fallible<()> {
    multispace0.void().parse_next(input)
}

/// Takes `sign` and the space behind it, if it comes next.
fn sign(input: &mut Input<'_>, sign: &'static str) -> Fallible<bool> {
    let found = opt(literal(sign)).parse_next(input)?.is_some();
    if found {
        space(input)?;
    }
    Ok(found)
}

/// Takes `wanted` and the space behind it, or faults.
fn need(input: &mut Input<'_>, wanted: &'static str) -> Fallible<()> {
    if sign(input, wanted)? {
        Ok(())
    } else {
        fault(input.current_token_start(), Expected::Sign(wanted))
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.')
}

/// Takes a name if one comes next. It may not begin with a digit and may hold `-` inside: `a-b` is one
/// name, `a - b` a difference.
fn name<'a>(input: &mut Input<'a>) -> Fallible<Option<&'a str>> {
    let first = opt(peek(any)).parse_next(input)?;
    if !first.is_some_and(|c: char| c.is_alphabetic() || c == '_') {
        return Ok(None);
    }
    let run: &str = peek(take_while(1.., is_name)).parse_next(input)?;
    // `a-(b)` is a difference: a name ends in a letter, digit or `_`.
    let name = literal(run.trim_end_matches(['-', '.'])).parse_next(input)?;
    space(input)?;
    Ok(Some(name))
}

/// Takes the word `word` if it comes next, whole.
fn word(input: &mut Input<'_>, word: &'static str) -> Fallible<bool> {
    let start = input.checkpoint();
    if name(input)? == Some(word) {
        return Ok(true);
    }
    input.reset(&start);
    Ok(false)
}

/// Words no element may be called.
pub(in crate::catalogue) const WORDS: [&str; 5] = ["and", "or", "not", "implies", "in"];

fn whole_number(input: &mut Input<'_>) -> Fallible<Option<u64>> {
    let at = input.current_token_start();
    let Some(digits) = opt(digit1).parse_next(input)? else { return Ok(None) };
    let digits: &str = digits;
    let next = opt(peek(any)).parse_next(input)?;
    let glued = next.is_some_and(is_name);
    match digits.parse() {
        Ok(n) if !glued => {
            space(input)?;
            Ok(Some(n))
        }
        _ => fault(at, Expected::WholeNumber),
    }
}

/// Reads one more level of nesting.
fn nested<T>(
    input: &mut Input<'_>,
    read: impl FnOnce(&mut Input<'_>) -> Fallible<T>,
) -> Fallible<T> {
    if input.state >= EXPR_DEPTH_MAX {
        return fault(input.current_token_start(), Expected::LessNesting);
    }
    input.state += 1;
    let result = read(input);
    input.state -= 1;
    result
}

fn expression(input: &mut Input<'_>) -> Fallible<Part> {
    let left = disjunction(input)?;
    if !word(input, "implies")? {
        return Ok(left);
    }
    let at = left.at;
    let left = left.condition()?;
    let right = nested(input, expression)?.condition()?;
    Ok(Part { expr: Expr::Logic(Logic::Implies, left, right), at })
}

fn disjunction(input: &mut Input<'_>) -> Fallible<Part> {
    let mut left = conjunction(input)?;
    while word(input, "or")? {
        let at = left.at;
        let right = conjunction(input)?;
        left = Part { expr: Expr::Logic(Logic::Or, left.condition()?, right.condition()?), at };
    }
    Ok(left)
}

fn conjunction(input: &mut Input<'_>) -> Fallible<Part> {
    let mut left = negation(input)?;
    while word(input, "and")? {
        let at = left.at;
        let right = negation(input)?;
        left = Part { expr: Expr::Logic(Logic::And, left.condition()?, right.condition()?), at };
    }
    Ok(left)
}

fn negation(input: &mut Input<'_>) -> Fallible<Part> {
    let at = input.current_token_start();
    if word(input, "not")? {
        let inner = nested(input, negation)?.condition()?;
        return Ok(Part { expr: Expr::Not(inner), at });
    }
    comparison(input)
}

fn comparison_sign(input: &mut Input<'_>) -> Fallible<Option<Comparison>> {
    // The longer signs first: `<=` begins with `<`.
    const SIGNS: [(&str, Comparison); 6] = [
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("!=", Comparison::NotEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
        ("=", Comparison::Equal),
    ];
    for (text, comparison) in SIGNS {
        if sign(input, text)? {
            return Ok(Some(comparison));
        }
    }
    Ok(None)
}

fn comparison(input: &mut Input<'_>) -> Fallible<Part> {
    let left = sum(input)?;
    let at = left.at;
    let result = if let Some(op) = comparison_sign(input)? {
        let right = sum(input)?;
        Part { expr: Expr::Compare(op, left.number()?, right.number()?), at }
    } else if word(input, "in")? {
        need(input, "{")?;
        let mut set = Vec::new();
        loop {
            let at = input.current_token_start();
            match whole_number(input)? {
                Some(n) => set.push(n),
                None => return fault(at, Expected::WholeNumber),
            }
            if !sign(input, ",")? {
                break;
            }
        }
        need(input, "}")?;
        Part { expr: Expr::In(left.number()?, set), at }
    } else {
        return Ok(left);
    };
    let next = input.current_token_start();
    if comparison_sign(input)?.is_some() {
        return fault(next, Expected::OneComparison);
    }
    Ok(result)
}

fn sum(input: &mut Input<'_>) -> Fallible<Part> {
    let mut left = product(input)?;
    loop {
        let op = if sign(input, "+")? {
            Arithmetic::Add
        } else if sign(input, "-")? {
            Arithmetic::Subtract
        } else {
            return Ok(left);
        };
        let at = left.at;
        let right = product(input)?;
        left = Part { expr: Expr::Arithmetic(op, left.number()?, right.number()?), at };
    }
}

fn product(input: &mut Input<'_>) -> Fallible<Part> {
    let mut left = unary(input)?;
    loop {
        let op = if sign(input, "*")? {
            Arithmetic::Multiply
        } else if sign(input, "/")? {
            Arithmetic::Divide
        } else {
            return Ok(left);
        };
        let at = left.at;
        let right = unary(input)?;
        left = Part { expr: Expr::Arithmetic(op, left.number()?, right.number()?), at };
    }
}

fn unary(input: &mut Input<'_>) -> Fallible<Part> {
    let at = input.current_token_start();
    if sign(input, "-")? {
        let inner = nested(input, unary)?.number()?;
        return Ok(Part { expr: Expr::Negate(inner), at });
    }
    operand(input)
}

fn operand(input: &mut Input<'_>) -> Fallible<Part> {
    let at = input.current_token_start();
    if sign(input, "(")? {
        let inner = nested(input, expression)?;
        need(input, ")")?;
        return Ok(Part { expr: inner.expr, at });
    }
    if let Some(n) = whole_number(input)? {
        return Ok(Part { expr: Expr::Number(n), at });
    }
    let Some(found) = name(input)? else { return fault(at, Expected::Operand) };
    if WORDS.contains(&found) {
        return fault(at, Expected::Operand);
    }
    if sign(input, "(")? {
        let expr = nested(input, |input| function(input, found, at))?;
        return Ok(Part { expr, at });
    }
    Ok(Part { expr: Expr::Term(term(input, found, at)?), at })
}

fn term(input: &mut Input<'_>, name: &str, at: usize) -> Fallible<NamedTerm> {
    let mut filter = NamedFilter::default();
    if sign(input, "[")? {
        filter = filter_parts(input)?;
        need(input, "]")?;
    }
    Ok(NamedTerm { name: name.to_owned(), filter, at })
}

fn function(input: &mut Input<'_>, found: &str, at: usize) -> Fallible<Expr<NamedTerm>> {
    if let Some(over) = Over::ALL.into_iter().find(|over| over.name() == found) {
        let at = input.current_token_start();
        let element = match name(input)? {
            Some(element) if !WORDS.contains(&element) && element != FACILITIES => element,
            _ => return fault(at, Expected::Element),
        };
        let term = term(input, element, at)?;
        let end = input.current_token_start();
        return if sign(input, ")")? {
            Ok(Expr::Over(over, term))
        } else {
            fault(end, Expected::Element)
        };
    }
    if let Some(fact) = Fact::ALL.into_iter().find(|fact| fact.name() == found) {
        need(input, ")")?;
        return Ok(Expr::Fact(fact));
    }
    let two = match found {
        "abs" => {
            let inner = expression(input)?.number()?;
            need(input, ")")?;
            return Ok(Expr::Abs(inner));
        }
        "max" => Arithmetic::Max,
        "min" => Arithmetic::Min,
        _ => return fault(at, Expected::Function(found.to_owned())),
    };
    let a = expression(input)?.number()?;
    need(input, ",")?;
    let b = expression(input)?.number()?;
    need(input, ")")?;
    Ok(Expr::Arithmetic(two, a, b))
}

/// A word inside a filter: a code, which may begin with a digit, or `*`.
fn choice(input: &mut Input<'_>) -> Fallible<String> {
    let at = input.current_token_start();
    if sign(input, "*")? {
        return Ok("*".to_owned());
    }
    let text: &str = take_while(0.., is_name).parse_next(input)?;
    if text.is_empty() {
        return fault(at, Expected::Name);
    }
    let text = text.to_owned();
    space(input)?;
    Ok(text)
}

fn filter_parts(input: &mut Input<'_>) -> Fallible<NamedFilter> {
    let mut filter = NamedFilter::default();
    loop {
        let at = input.current_token_start();
        let Some(key) = name(input)? else { return fault(at, Expected::FilterPart) };
        need(input, "=")?;
        let mut choices = Vec::new();
        loop {
            let chosen = choice(input)?;
            let of = if sign(input, "@")? { Some(choice(input)?) } else { None };
            choices.push((chosen, of));
            if !sign(input, "|")? {
                break;
            }
        }
        filter.parts.push(FilterPart { key: key.to_owned(), choices });
        if !sign(input, ";")? {
            return Ok(filter);
        }
    }
}

fn whole<T>(text: &str, read: fn(&mut Input<'_>) -> Fallible<T>) -> Result<T, ExprError> {
    let error = |at: usize, expected| ExprError {
        at,
        column: text.get(..at).map_or(1, |before| before.chars().count() + 1),
        expected,
    };
    if text.len() > EXPR_BYTES_MAX {
        return Err(error(0, Expected::ShorterText));
    }
    if text.trim().is_empty() {
        return Err(error(0, Expected::Something));
    }
    let mut input = Input { input: LocatingSlice::new(text), state: 0 };
    let result = space(&mut input).and_then(|()| read(&mut input)).and_then(|found| {
        if input.eof_offset() == 0 {
            Ok(found)
        } else {
            fault(input.current_token_start(), Expected::Operator)
        }
    });
    result.map_err(|fault| match fault {
        ErrMode::Cut(fault) | ErrMode::Backtrack(fault) => error(fault.at, fault.expected),
        ErrMode::Incomplete(_) => error(text.len(), Expected::Operand),
    })
}

/// Reads an expression.
pub fn parse(text: &str) -> Result<Expr<NamedTerm>, ExprError> {
    whole(text, |input| Ok(expression(input)?.expr))
}

/// Reads a filter as it stands between `[` and `]`.
pub fn parse_filter(text: &str) -> Result<NamedFilter, ExprError> {
    whole(text, filter_parts)
}
