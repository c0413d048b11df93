//! The single fields of a draft: facility, form, periods, person, values.

use banyan_shared::catalogue::{Form, FormIx, KindIx, Lang};
use banyan_shared::input::{Standing, parse_cell};
use banyan_shared::limits::PERSON_BYTES_MAX;
use banyan_shared::period::{Date, Period, PeriodError, PeriodType, Span};
use banyan_shared::report::Value;
use banyan_shared::wire::FacilityScope;

use super::{Draft, REPORTS_MAX};
use crate::identity::Context;
use crate::note::{Note, note};

/// The element that says on how many days a facility was open; `--closed` sets it to 0.
const OPEN_DAYS: &str = "open_days";
/// So many digits are an identity card's or a telephone's, not a staff code's.
const PERSON_DIGITS_MAX: usize = 10;

/// Most facilities named to a person who has named an unknown one.
const CANDIDATES_MAX: usize = 8;

pub(super) fn facility<'a>(
    draft: &Draft,
    context: &'a Context,
    faults: &mut Vec<Note>,
) -> Option<(u32, &'a FacilityScope)> {
    let Some(wanted) = &draft.facility else { return Some((0, context.home())) };
    let found = context.facility(wanted).or_else(|| {
        let mut named = (0u32..).zip(context.facilities.iter()).filter(|(_, f)| f.name == *wanted);
        let first = named.next();
        first.filter(|_| named.next().is_none())
    });
    if found.is_none() {
        let count = context.facilities.len();
        let candidates = candidates(wanted, context);
        faults.push(note!(
            Error,
            "not_enrolled",
            "机构“{wanted}”：本终端未获准代其填报，请核对代码，或请县级管理员分配；现可填报{count}个机构：\
             {candidates}",
            "facility {wanted:?}: this agent is not enrolled for it; check the code, or ask the county desk \
             to assign it. It is enrolled for {count}: {candidates}"
        ));
    }
    found
}

/// The facilities that may be meant, for people: those whose code or name holds what was written, else the
/// first ones.
fn candidates(wanted: &str, context: &Context) -> String {
    let near = |f: &&FacilityScope| f.code.as_str().contains(wanted) || f.name.contains(wanted);
    let show = |f: &FacilityScope| format!("{} {}", f.code, f.name);
    let facilities = context.facilities.iter();
    let mut shown: Vec<String> =
        facilities.clone().filter(near).take(CANDIDATES_MAX).map(show).collect();
    if shown.is_empty() {
        shown = facilities.take(CANDIDATES_MAX).map(show).collect();
    }
    let more = if shown.len() < context.facilities.len() { " …" } else { "" };
    shown.join(", ") + more
}

/// The forms a kind reports, for people.
pub(super) fn forms_of(context: &Context, kind: KindIx) -> String {
    let forms: Vec<&str> =
        context.forms_of(kind).map(|ix| context.catalogue.forms[ix.at()].code.as_str()).collect();
    forms.join(", ")
}

pub(super) fn form<'a>(
    draft: &Draft,
    context: &'a Context,
    facility: Option<(u32, &FacilityScope)>,
    faults: &mut Vec<Note>,
) -> Option<(FormIx, &'a Form)> {
    let catalogue = &context.catalogue;
    let wanted = &draft.form;
    if let Some(ix) = catalogue.form(wanted) {
        return Some((ix, &catalogue.forms[ix.at()]));
    }
    let last = Period::day(Date::MAX);
    let standing = facility.and_then(|(_, f)| context.standing(f, last)).and_then(|s| s.facts);
    let forms = match standing {
        Some(facts) => forms_of(context, facts.kind),
        None => {
            let codes: Vec<&str> = catalogue.forms.iter().map(|form| form.code.as_str()).collect();
            codes.join(", ")
        }
    };
    faults.push(note!(
        Error,
        "unknown_form",
        "没有报表“{wanted}”，本机构填报：{forms}",
        "there is no form {wanted:?}; this facility reports: {forms}"
    ));
    None
}

/// What is wrong with a period, for people.
fn period_note(error: &PeriodError) -> Note {
    let en = error.to_string();
    match error {
        PeriodError::Impossible { text, .. } => note!(
            Error,
            "impossible_date",
            "“{text}”在日历上不存在，请核对日期",
            "{en}; check the date"
        ),
        PeriodError::Shape { text } => note!(
            Error,
            "bad_period",
            "“{text}”不是统计期：日2026-01-31、周2026W05、月2026-01、季2026Q1、半年2026S1、年2026",
            "{en}"
        ),
        PeriodError::Range { text } => {
            note!(Error, "bad_range", "“{text}”不是范围：两端须为同一类型，且先早后晚", "{en}")
        }
    }
}

/// What people call a type of period.
fn type_name(kind: PeriodType, lang: Lang) -> &'static str {
    match (kind, lang) {
        (PeriodType::Day, Lang::Zh) => "日，如2026-01-31",
        (PeriodType::Week, Lang::Zh) => "周，如2026W05",
        (PeriodType::Month, Lang::Zh) => "月，如2026-01",
        (PeriodType::Quarter, Lang::Zh) => "季度，如2026Q1",
        (PeriodType::Half, Lang::Zh) => "半年，如2026S1",
        (PeriodType::Year, Lang::Zh) => "年，如2026",
        (PeriodType::Day, Lang::En) => "a day such as 2026-01-31",
        (PeriodType::Week, Lang::En) => "a week such as 2026W05",
        (PeriodType::Month, Lang::En) => "a month such as 2026-01",
        (PeriodType::Quarter, Lang::En) => "a quarter such as 2026Q1",
        (PeriodType::Half, Lang::En) => "a half-year such as 2026S1",
        (PeriodType::Year, Lang::En) => "a year such as 2026",
    }
}

pub(super) fn periods(draft: &Draft, form: Option<&Form>, faults: &mut Vec<Note>) -> Vec<Period> {
    let span: Span = match draft.period.parse() {
        Ok(span) => span,
        Err(error) => {
            faults.push(period_note(&error));
            return Vec::new();
        }
    };
    let Some(form) = form else { return Vec::new() };
    if span.kind() != form.period_type {
        let (code, text) = (&form.code, &draft.period);
        let name = |lang| type_name(form.period_type, lang);
        let (zh, en) = (name(Lang::Zh), name(Lang::En));
        faults.push(note!(
            Error,
            "wrong_period_type",
            "统计期“{text}”：报表{code}的统计期是{zh}",
            "period {text:?}: the form {code} is reported for {en}"
        ));
        return Vec::new();
    }
    let periods = span.parts(span.kind());
    let count = periods.len();
    if count > REPORTS_MAX {
        faults.push(note!(
            Error,
            "too_many_periods",
            "一次最多保存{REPORTS_MAX}份报表，此范围有{count}份，请分几次",
            "at most {REPORTS_MAX} reports are saved at once and this range has {count}: split it"
        ));
        return Vec::new();
    }
    periods.collect()
}

pub(super) fn person(by: &str, faults: &mut Vec<Note>) {
    let digits = by.chars().filter(char::is_ascii_digit).count();
    let (zh, en) = if by.is_empty() || by.len() > PERSON_BYTES_MAX {
        ("须为1至32字节", "must have 1 to 32 bytes")
    } else if by.chars().any(|c| c.is_whitespace() || c.is_control()) {
        ("不能含空格", "must hold no space")
    } else if digits > PERSON_DIGITS_MAX {
        ("像是证件号或电话号码", "looks like an identity card or telephone number")
    } else {
        return;
    };
    faults.push(note!(
        Error,
        "bad_person",
        "填报人“{by}”{zh}：请填工号",
        "person {by:?} {en}: give a staff code"
    ));
}

/// The values named, by line, for one period.
pub(super) fn values(
    draft: &Draft,
    context: &Context,
    form: FormIx,
    standing: &Standing,
    faults: &mut Vec<Note>,
) -> Vec<(usize, Value)> {
    let mut values: Vec<(usize, Value)> = Vec::new();
    for (code, text) in &draft.values {
        match parse_cell(&context.catalogue, form, standing, code, text) {
            Ok((line, value)) if values.iter().all(|(taken, _)| *taken != line) => {
                values.push((line, value));
            }
            Ok(_) => faults.push(note!(
                Error,
                "duplicate",
                "数据元“{code}”写了两次，请只留一个",
                "element {code:?} is given twice: keep one"
            )),
            Err(bad) => {
                let (zh, en) = (&bad.message.zh, &bad.message.en);
                faults.push(note!(
                    Error,
                    bad.code.code(),
                    "{code}={text}：{zh}",
                    "{code}={text}: {en}"
                ));
            }
        }
    }
    values
}

/// Whether `--closed` makes sense.
pub(super) fn closed(draft: &Draft, context: &Context, form: &Form, faults: &mut Vec<Note>) {
    if !draft.closed {
        return;
    }
    let shown = &form.code;
    let element = context.catalogue.element(OPEN_DAYS);
    if element.and_then(|element| form.line_of(element)).is_none() {
        faults.push(note!(
            Error,
            "closed_not_here",
            "报表{shown}没有{OPEN_DAYS}，不能用 --closed",
            "the form {shown} has no {OPEN_DAYS}: --closed is not for it"
        ));
    } else if !draft.values.is_empty() {
        faults.push(note!(
            Error,
            "closed_with_values",
            "--closed 表示未开诊，各数均为0，不能再写数值",
            "--closed means not open and every number 0: give no values with it"
        ));
    }
}
