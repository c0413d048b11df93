//! Broken rules for people.

use banyan_shared::catalogue::{Catalogue, Lang};

use super::{grouped, table, tr};
use crate::query::anomalies::{AnomaliesAnswer, BrokenRow};

/// The numbers a broken rule compares, by name.
fn values_text(row: &BrokenRow, catalogue: &Catalogue, lang: Lang) -> String {
    let name = |code: &str| {
        let model = catalogue.element(code).map(|ix| &catalogue.elements[ix.at()]);
        model.map_or(code, |model| model.name.get(lang)).to_owned()
    };
    let values = row.values.0.iter().map(|(code, n)| format!("{} {}", name(code), grouped(*n)));
    values.collect::<Vec<_>>().join(tr(lang, "，", ", "))
}

fn severity_text(row: &BrokenRow, lang: Lang) -> &'static str {
    match row.severity.as_str() {
        "error" => tr(lang, "错误", "error"),
        _ => tr(lang, "提示", "warning"),
    }
}

/// A broken rule in one line.
pub(crate) fn broken_text(row: &BrokenRow, catalogue: &Catalogue, lang: Lang) -> String {
    format!(
        "{} {}{}{}{}{}{}",
        row.rule,
        severity_text(row, lang),
        tr(lang, "：", ": "),
        row.message.get(lang),
        tr(lang, "（", " ("),
        values_text(row, catalogue, lang),
        tr(lang, "）", ")"),
    )
}

/// The broken rules of a set for people, one line each.
pub fn anomalies_table(answer: &AnomaliesAnswer, catalogue: &Catalogue, lang: Lang) -> String {
    let mut out = format!(
        "{} {}  {}  {} {}\n{} {}{}{}\n",
        answer.unit,
        answer.path.join(" › "),
        answer.period,
        tr(lang, "截至", "as of"),
        answer.as_of,
        tr(lang, "已查报表", "reports looked at"),
        grouped(answer.reports),
        tr(lang, "，违反规则 ", ", rules broken "),
        grouped(answer.rows.len() as u64),
    );
    if answer.rows.is_empty() {
        return out;
    }
    let mut lines = table(&[
        tr(lang, "单位", "place"),
        tr(lang, "报表", "form"),
        tr(lang, "统计期", "period"),
        tr(lang, "规则", "rule"),
        tr(lang, "程度", "severity"),
        tr(lang, "数值", "values"),
        tr(lang, "说明", "message"),
    ]);
    for row in &answer.rows {
        let form = row.form.as_deref().unwrap_or_default();
        let name = catalogue.form(form).map_or(form, |f| catalogue.forms[f.at()].name.get(lang));
        lines.add_row([
            format!("{} {}", row.path.join("/"), row.unit),
            name.to_owned(),
            row.period.clone(),
            row.rule.clone(),
            severity_text(row, lang).to_owned(),
            values_text(row, catalogue, lang),
            row.message.get(lang).to_owned(),
        ]);
    }
    out.push_str(&lines.trim_fmt());
    out.push('\n');
    out
}
