//! One value as people write it.

use banyan_shared::limits::VALUE_MAX;
use banyan_shared::report::Value;

use crate::note::{Note, note};

/// Why a text is not a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Negative,
    Decimal,
    TenThousand,
    Overflow,
    Withheld,
    NotANumber,
}

impl Fault {
    /// The fault of `element`'s value, for people.
    pub(crate) fn note(self, element: &str, text: &str) -> Note {
        match self {
            Fault::Negative => note!(
                Error,
                "negative",
                "{element}={text}：不能为负数，请填整数；更正请直接填新数",
                "{element}={text}: a count is never negative; to correct one, give the right number"
            ),
            Fault::Decimal => note!(
                Error,
                "decimal",
                "{element}={text}：不能有小数，请填整数",
                "{element}={text}: no decimals, give a whole number"
            ),
            Fault::TenThousand => note!(
                Error,
                "ten_thousand",
                "{element}={text}：不能用“万”等单位，请填完整数字，如12000",
                "{element}={text}: no units such as 万, give the whole number, for example 12000"
            ),
            Fault::Overflow => note!(
                Error,
                "overflow",
                "{element}={text}：数字过大，请核对",
                "{element}={text}: the number is too large, check it"
            ),
            Fault::Withheld => note!(
                Error,
                "withheld",
                "{element}={text}：“*”只用于对外公布，请填数字",
                "{element}={text}: \"*\" is for public exports only, give a number"
            ),
            Fault::NotANumber => note!(
                Error,
                "not_a_number",
                "{element}={text}：不是数字；请填整数，不适用填NA，缺报留空",
                "{element}={text}: not a number; give a whole number, NA for not applicable, or nothing \
                 for missing"
            ),
        }
    }
}

/// Reads a value: digits (full-width ones too), `NA`, or nothing for missing.
pub(crate) fn parse(text: &str) -> Result<Value, Fault> {
    let plain: String = text.trim().chars().map(half_width).collect();
    if plain.is_empty() {
        return Ok(Value::Missing);
    }
    if plain.eq_ignore_ascii_case("NA") {
        return Ok(Value::NotApplicable);
    }
    if plain == "*" {
        return Err(Fault::Withheld);
    }
    if plain.bytes().all(|byte| byte.is_ascii_digit()) {
        return match plain.parse::<u64>() {
            Ok(n) if n <= VALUE_MAX => Ok(Value::Number(n)),
            _ => Err(Fault::Overflow),
        };
    }
    let digits =
        |rest: &str| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    Err(match plain.strip_prefix(['-', '−']) {
        Some(rest) if digits(rest) => Fault::Negative,
        _ if plain.chars().any(|c| matches!(c, '万' | '萬' | '亿' | '千' | '百')) => {
            Fault::TenThousand
        }
        _ if digits(&plain) => Fault::Decimal,
        _ => Fault::NotANumber,
    })
}

fn half_width(c: char) -> char {
    match c {
        '０'..='９' => char::from_digit(c as u32 - '０' as u32, 10).unwrap_or(c),
        '－' => '-',
        '．' => '.',
        c => c,
    }
}

/// As files write it: a number, `NA`, or nothing.
pub(crate) fn show(value: Value) -> String {
    match value {
        Value::Number(n) => n.to_string(),
        Value::Missing => String::new(),
        Value::NotApplicable => "NA".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_or_say_why_not() {
        assert_eq!(parse("0"), Ok(Value::Number(0)));
        assert_eq!(parse(" １２ "), Ok(Value::Number(12)));
        assert_eq!(parse(""), Ok(Value::Missing));
        assert_eq!(parse("na"), Ok(Value::NotApplicable));
        for (text, fault) in [
            ("-1", Fault::Negative),
            ("－3", Fault::Negative),
            ("1.5", Fault::Decimal),
            ("1.2万", Fault::TenThousand),
            ("99999999999999999999", Fault::Overflow),
            ("9007199254740992", Fault::Overflow),
            ("*", Fault::Withheld),
            ("12人", Fault::NotANumber),
            ("1,200", Fault::NotANumber),
        ] {
            assert_eq!(parse(text), Err(fault), "{text}");
        }
    }
}
