//! One cell: text to a number, missing or not applicable, or the reason why not.

use super::Standing;
use crate::catalogue::{Catalogue, FormIx, Text};
use crate::limits::VALUE_MAX;
use crate::report::Value;
use crate::tables::Fault;

/// What is wrong with one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// What kind of error.
    pub code: Fault,
    /// The reason and what to do.
    pub message: Text,
}

impl Bad {
    /// What is wrong, in both languages.
    pub fn new(code: Fault, zh: impl Into<String>, en: impl Into<String>) -> Bad {
        Bad { code, message: Text { zh: zh.into(), en: en.into() } }
    }
}

/// What a spreadsheet takes for the beginning of a formula.
const FORMULA: [char; 10] = ['=', '+', '-', '@', '＝', '＋', '－', '＠', '\t', '\r'];

/// A text for a cell of a file that spreadsheets open: one that they would take for a formula gets a `'` in
/// front.
pub fn guarded(text: &str) -> std::borrow::Cow<'_, str> {
    if text.starts_with(FORMULA) { format!("'{text}").into() } else { text.into() }
}

/// The text that [`guarded`] was given.
pub fn unguarded(text: &str) -> &str {
    text.strip_prefix('\'').filter(|rest| rest.starts_with(FORMULA)).unwrap_or(text)
}

/// The digits of `text` without separators between thousands, if that is all there is to it.
fn without_separators(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split([',', '，', ' ', '\u{a0}', '\'']).collect();
    let digits = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let grouped = parts.len() > 1
        && parts.iter().all(digits)
        && parts[0].len() <= 3
        && parts[1..].iter().all(|part| part.len() == 3);
    grouped.then(|| parts.concat())
}

/// `1.2` and 10,000 to `12000`, when it comes out whole.
fn scaled(number: &str, zeros: usize) -> Option<String> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) || part.len() > zeros {
        return None;
    }
    let out = format!("{whole}{part}{}", "0".repeat(zeros - part.len()));
    Some(out.trim_start_matches('0').to_owned()).filter(|out| !out.is_empty())
}

/// The same characters, those of the full-width block made plain.
fn half_width(text: &str) -> String {
    let plain = |c: char| match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
        '\u{3000}' => ' ',
        _ => c,
    };
    text.chars().map(plain).collect()
}

/// Reads one value: digits, `NA`, or nothing for missing.
///
/// # Errors
/// [`Bad`] with the code of what was met: `negative`, `decimal`, `ten_thousand`, `full_width`, `withheld`,
/// `above_maximum` (beyond 2^53 − 1), `bad_number` for other text.
pub fn parse_value(text: &str) -> Result<Value, Bad> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(Value::Missing);
    }
    if text == "NA" {
        return Ok(Value::NotApplicable);
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok().filter(|n| *n <= VALUE_MAX).map(Value::Number).ok_or_else(|| {
            Bad::new(
                Fault::AboveMaximum,
                format!("数值超过 {VALUE_MAX}，请核对是否多录了位数"),
                format!("the number is above {VALUE_MAX}: check for digits too many"),
            )
        });
    }
    Err(why_not(text))
}

fn why_not(text: &str) -> Bad {
    if matches!(text, "*" | "＊") {
        return Bad::new(
            Fault::Withheld,
            "“*”表示公开数据中未公布的数，不能作为数值录入；请填写原数，缺失请留空",
            "`*` marks a figure withheld from the public and is no count: give the figure itself, or leave the cell empty",
        );
    }
    let plain = half_width(text);
    let plain = plain.trim();
    if plain != text && parse_value(plain).is_ok() {
        return Bad::new(
            Fault::FullWidth,
            format!("含全角字符，请改用半角：{plain}"),
            format!("full-width characters: write {plain}"),
        );
    }
    if matches!(plain.to_ascii_uppercase().as_str(), "NA" | "N/A" | "N.A.")
        || matches!(plain, "不适用" | "无此项")
    {
        return Bad::new(
            Fault::BadNumber,
            "不适用请写作大写的 NA",
            "write `NA`, in capitals, for not applicable",
        );
    }
    for (unit, zeros) in [("万", 4), ("萬", 4), ("亿", 8), ("億", 8), ("千", 3), ("百", 2)] {
        if let Some((number, _)) = plain.split_once(unit) {
            let whole = scaled(number.trim(), zeros);
            let (zh, en) = match &whole {
                Some(n) => (format!("例如 {n}"), format!("perhaps {n}")),
                None => ("不带单位".to_owned(), "without a unit".to_owned()),
            };
            return Bad::new(
                Fault::TenThousand,
                format!("不能以“{unit}”为单位，请填写完整的整数（{zh}）"),
                format!("not in units of {unit}: give the whole number ({en})"),
            );
        }
    }
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if let Some(rest) = plain.strip_prefix(['-', '−', '–', '—'])
        && rest.trim().split('.').all(digits)
    {
        return Bad::new(
            Fault::Negative,
            "不能为负数，请填写 0 或正整数；更正以前的数请直接填写正确的总数",
            "a count is never negative: give 0 or more; to correct an earlier count give the right total",
        );
    }
    if let Some((whole, part)) = plain.split_once('.')
        && (digits(whole) || whole.is_empty())
        && (digits(part) || part.is_empty())
    {
        let (zh, en) = if part.bytes().all(|b| b == b'0') && !whole.is_empty() {
            (format!("请写作 {whole}"), format!("write {whole}"))
        } else {
            ("请填写整数".to_owned(), "give a whole number".to_owned())
        };
        return Bad::new(Fault::Decimal, format!("不能有小数，{zh}"), format!("no decimals: {en}"));
    }
    if let Some(n) = without_separators(plain) {
        return Bad::new(
            Fault::BadNumber,
            format!("请去掉千分位分隔符，写作 {n}"),
            format!("without separators between thousands: write {n}"),
        );
    }
    let exponent = plain.split_once(['e', 'E']).is_some_and(|(mantissa, power)| {
        mantissa.split('.').all(digits) && digits(power.trim_start_matches(['+', '-']))
    });
    if exponent {
        return Bad::new(
            Fault::BadNumber,
            "是科学记数法，请把单元格格式改为“数值”后填写完整的整数",
            "scientific notation: set the cell's format to plain number and give all digits",
        );
    }
    Bad::new(
        Fault::BadNumber,
        "不是整数，请只用数字填写；缺失请留空，不适用请写 NA",
        "not a whole number: use digits only, leave the cell empty for missing, `NA` for not applicable",
    )
}

/// Reads the value of one element for one report: the place of its line in the form, and the value.
///
/// # Errors
/// [`Bad`]: `unknown_element`, `not_in_form`, `not_asked`, `above_maximum`, or as [`parse_value`]. An empty text
/// for an element not asked is no error where it says nothing: the place is given with a missing value.
pub fn parse_cell(
    catalogue: &Catalogue,
    form: FormIx,
    standing: &Standing,
    element: &str,
    text: &str,
) -> Result<(usize, Value), Bad> {
    let form = &catalogue.forms[form.at()];
    let Some(ix) = catalogue.element(element) else {
        return Err(unknown_element(catalogue, element));
    };
    let Some(at) = form.line_of(ix) else {
        return Err(Bad::new(
            Fault::NotInForm,
            format!("报表 {} 没有数据元 {element}，请核对报表代码或删去此数", form.code),
            format!(
                "form {} has no element {element}: check the form, or delete the value",
                form.code
            ),
        ));
    };
    let value = parse_value(text)?;
    let line = &form.lines[at];
    let asked = standing.facts.as_ref().is_none_or(|facts| line.asks(facts, standing.day));
    if value.is_answer() && !asked {
        return Err(Bad::new(
            Fault::NotAsked,
            format!("{} 不要求该机构填报 {element}，请留空", standing.day),
            format!("{element} is not asked of this facility on {}: leave it empty", standing.day),
        ));
    }
    if value.number().is_some_and(|n| n > line.max) {
        return Err(Bad::new(
            Fault::AboveMaximum,
            format!("超过该项上限 {}，请核对是否多录了位数或误用了单位", line.max),
            format!(
                "above this element's maximum of {}: check for digits too many or a wrong unit",
                line.max
            ),
        ));
    }
    Ok((at, value))
}

/// Says that there is no such element, with the nearest one there is.
pub(super) fn unknown_element(catalogue: &Catalogue, element: &str) -> Bad {
    if catalogue.reserved.iter().any(|code| code == element) {
        return Bad::new(
            Fault::UnknownElement,
            format!("数据元 {element} 尚未启用，请删去"),
            format!("element {element} is not in use yet: delete it"),
        );
    }
    let named = catalogue.elements.iter().find(|e| e.name.zh == element || e.name.en == element);
    let close = |code: &str| {
        let same = code.chars().zip(element.chars()).take_while(|(a, b)| a == b).count();
        let tail =
            code.chars().rev().zip(element.chars().rev()).take_while(|(a, b)| a == b).count();
        same.max(tail)
    };
    let nearest = named.or_else(|| {
        let best = catalogue.elements.iter().max_by_key(|e| close(e.code.as_str()))?;
        (close(best.code.as_str()) * 2 > element.chars().count()).then_some(best)
    });
    let (zh, en) = nearest.map_or_else(
        || ("请核对目录".to_owned(), "check the catalogue".to_owned()),
        |e| {
            (format!("是否应为 {}（{}）？", e.code, e.name.zh), format!("did you mean {}?", e.code))
        },
    );
    Bad::new(
        Fault::UnknownElement,
        format!("目录中没有数据元“{element}”，{zh}"),
        format!("the catalogue has no element {element:?}: {en}"),
    )
}

/// Reads one `ELEMENT=N`, `ELEMENT=NA` or `ELEMENT=` (missing) argument.
///
/// # Errors
/// As [`parse_cell`], and `bad_choice` if there is no `=`.
pub fn parse_assignment(
    catalogue: &Catalogue,
    form: FormIx,
    standing: &Standing,
    text: &str,
) -> Result<(usize, Value), Bad> {
    let Some((element, value)) = text.split_once('=') else {
        return Err(Bad::new(
            Fault::BadChoice,
            format!(
                "“{text}”应写作 数据元=数值，例如 total_visits=12、total_visits=NA 或 total_visits="
            ),
            format!(
                "{text:?} must be ELEMENT=VALUE, for example total_visits=12, total_visits=NA or total_visits="
            ),
        ));
    };
    parse_cell(catalogue, form, standing, element.trim(), value)
}
