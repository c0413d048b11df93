//! Answers as CSV (exact headers, `docs/formats.md`) and as tables for people.
//!
//! Here is what they have in common: tables, numbers and words. The files are in `csv`, the tables of figures
//! and completeness in `figures`, that of a report in `trace`.

mod anomalies;
mod csv;
mod figures;
mod trace;

use banyan_shared::catalogue::{Catalogue, Lang};
use banyan_shared::figures::State;
use comfy_table::{CellAlignment, ContentArrangement, Table};

use super::answer::{CompletenessFigure, IndicatorFigure};
use crate::act::Stage;

pub use anomalies::anomalies_table;
pub(crate) use anomalies::broken_text;
pub use csv::{anomalies_csv, completeness_csv, query_csv, trace_csv};
pub use figures::{completeness_table, query_table};
pub use trace::trace_table;

/// Missing by cause, in the order of [`banyan_shared::figures::MissingWhy::ALL`].
pub(crate) fn causes(
    c: &CompletenessFigure,
) -> [Option<u64>; banyan_shared::figures::MISSING_CAUSES] {
    let why = &c.missing_why;
    [
        Some(why.returned),
        Some(why.refused),
        Some(why.parked),
        Some(why.not_enrolled),
        why.backlog_known,
        why.silent,
        Some(why.not_entered),
    ]
}

/// A line below the header, and no other.
const PRESET: &str = "     ─             ";

/// A table for people, compact enough for a terminal.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(PRESET);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.to_vec());
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// Right-aligns these columns.
pub(crate) fn align(table: &mut Table, columns: impl IntoIterator<Item = usize>) {
    for at in columns {
        if let Some(column) = table.column_mut(at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// A number with its thousands apart.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

fn tr<'t>(lang: Lang, zh: &'t str, en: &'t str) -> &'t str {
    match lang {
        Lang::Zh => zh,
        Lang::En => en,
    }
}

pub(crate) fn flag_text(catalogue: &Catalogue, flag: &str, lang: Lang) -> String {
    match flag.split_once(':') {
        Some(("without", code)) => {
            let name =
                catalogue.form(code).map_or(code, |f| catalogue.forms[f.at()].name.get(lang));
            format!("{}{name}", tr(lang, "不含", "without "))
        }
        Some(("absent", code)) => {
            let name =
                catalogue.kind(code).map_or(code, |k| catalogue.kinds[k.at()].name.get(lang));
            format!("{}{name}", tr(lang, "缺", "lacking "))
        }
        Some(("waiting_for_more", more)) => {
            format!("{}{more}{}", tr(lang, "另有 ", "and "), tr(lang, " 份待报", " more reports"))
        }
        _ => match flag {
            "partial_days" => tr(lang, "首尾日不全", "part of the days left out"),
            "conflicts" => tr(lang, "有冲突报表", "reports in conflict"),
            "restated" => restated_text(lang),
            "denominator_zero" => tr(lang, "分母为零", "nothing below the line"),
            "too_large" => tr(lang, "数值过大", "number too large"),
            "outside_range" => tr(lang, "超出参考区间", "outside the range watched"),
            "on_pace" => tr(lang, "达到时序进度", "on pace"),
            "behind_pace" => tr(lang, "落后于时序进度", "behind pace"),
            other => other,
        }
        .to_owned(),
    }
}

/// How far the review of reports has come, in words; nothing while they are open.
pub(crate) fn stage_text(code: &str, lang: Lang) -> Option<&'static str> {
    let reviewed = [Stage::Signed, Stage::Locked].into_iter().find(|stage| stage.code() == code);
    reviewed.map(|stage| stage.text(lang))
}

/// That something else counts than what was signed off.
pub(crate) fn restated_text(lang: Lang) -> &'static str {
    tr(lang, "签核后已修订", "restated since it was signed off")
}

/// Why an indicator has no value, in words: whom it waits for and until when, what is missing, or why it is not
/// computed. Empty where it has one.
pub(crate) fn indicator_reason(
    figure: &IndicatorFigure,
    catalogue: &Catalogue,
    lang: Lang,
) -> String {
    let kinds = || {
        let names = figure.absent().iter().map(|code| {
            catalogue.kind(code).map_or(&**code, |k| catalogue.kinds[k.at()].name.get(lang))
        });
        names.collect::<Vec<_>>().join(tr(lang, "、", ", "))
    };
    match figure.state {
        State::Reported => String::new(),
        State::Waiting => {
            let mut out = match lang {
                Lang::Zh => format!("待报：{}", kinds()),
                Lang::En => format!("waits for {}", kinds()),
            };
            for one in figure.waiting_for().iter().take(WAITING_SHOWN) {
                let form = catalogue
                    .form(&one.form)
                    .map_or(&*one.form, |f| catalogue.forms[f.at()].name.get(lang));
                let due = one.due.get(..16).unwrap_or(&one.due).replace('T', " ");
                out.push_str(&match lang {
                    Lang::Zh => format!("；{} {form}，{due} 前", one.unit),
                    Lang::En => format!("; {} {form}, due {due}", one.unit),
                });
            }
            let more = figure.waiting_for().len().saturating_sub(WAITING_SHOWN);
            if more > 0 {
                out.push_str(&match lang {
                    Lang::Zh => format!("；另 {more} 份"),
                    Lang::En => format!("; {more} more"),
                });
            }
            out
        }
        State::Missing => match lang {
            Lang::Zh => format!("缺报：{}", kinds()),
            Lang::En => format!("missing: {}", kinds()),
        },
        state => state.text(lang).to_owned(),
    }
}

/// How many reports waited for are named in a line.
const WAITING_SHOWN: usize = 2;

/// A figure as it is shown: no more decimals than it has, thousands apart.
pub(crate) fn shown(value: f64) -> String {
    let text = value.abs().to_string();
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    let whole = whole.parse::<u64>().map_or_else(|_| whole.to_owned(), grouped);
    let sign = if value < 0.0 { "−" } else { "" };
    if part.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part}") }
}

/// The standing of a report in words.
pub(crate) fn status_text(status: &str, lang: Lang) -> &'static str {
    match status {
        "on_time" => tr(lang, "按时", "on time"),
        "late" => tr(lang, "迟报", "late"),
        "not_yet_due" => tr(lang, "未到期", "not yet due"),
        "missing" => tr(lang, "缺报", "missing"),
        "not_ended" => tr(lang, "统计期未结束", "period not ended"),
        "unexpected" => tr(lang, "非应报", "not expected, reported"),
        _ => tr(lang, "不应报", "not expected"),
    }
}

/// A decision about a report in words.
pub(crate) fn decision_text(decision: &str, lang: Lang) -> &'static str {
    match decision {
        "returned" => tr(lang, "退回", "returned"),
        "approved" => tr(lang, "批准", "approved"),
        stage => stage_text(stage, lang).unwrap_or(tr(lang, "解锁", "opened again")),
    }
}

#[cfg(test)]
mod tests;
