//! Figures and completeness for people.

use banyan_shared::catalogue::{Catalogue, Direction, Lang};
use banyan_shared::figures::MissingWhy;

use super::{
    align, causes, flag_text, grouped, indicator_reason, restated_text, shown, stage_text, table,
    tr,
};
use crate::query::answer::{
    AddendFigure, CompletenessAnswer, CompletenessFigure, ElementFigure, Freshness,
    IndicatorFigure, QueryAnswer, Row, RowKey,
};
use crate::query::items::SharedText;

fn key_text(key: &RowKey, catalogue: &Catalogue, lang: Lang) -> String {
    let mut parts = Vec::new();
    match &key.path {
        Some(path) => parts.push(path.join("/")),
        None => parts.extend(key.name.clone()),
    }
    let named = key.unit.is_some() || key.network.is_some();
    if let Some(kind) = key.kind.as_deref().filter(|_| named) {
        let name = catalogue.kind(kind).map_or(kind, |k| catalogue.kinds[k.at()].name.get(lang));
        parts.push(name.to_owned());
    }
    if let Some(role) = key.role.as_deref().filter(|_| named || key.kind.is_some()) {
        let name = catalogue.role(role).map_or(role, |r| catalogue.roles[r.at()].name.get(lang));
        parts.push(name.to_owned());
    }
    parts.join(" · ")
}

fn completeness_line(c: &CompletenessFigure, lang: Lang) -> String {
    let mut out = match lang {
        Lang::Zh => format!(
            "报表：应报 {} = 按时 {} + 迟报 {} + 未到期 {} + 缺报 {}",
            c.expected, c.on_time, c.late, c.not_yet_due, c.missing
        ),
        Lang::En => format!(
            "Reports: expected {} = on time {} + late {} + not yet due {} + missing {}",
            c.expected, c.on_time, c.late, c.not_yet_due, c.missing
        ),
    };
    let causes: Vec<String> = MissingWhy::ALL
        .iter()
        .zip(causes(c))
        .filter_map(|(why, n)| n.filter(|n| *n > 0).map(|n| format!("{} {n}", why.text(lang))))
        .collect();
    if !causes.is_empty() {
        out.push_str(&format!(
            "{}{}{}",
            tr(lang, "（", " ("),
            causes.join(tr(lang, "、", ", ")),
            tr(lang, "）", ")")
        ));
    }
    out
}

fn freshness_line(f: &Freshness, lang: Lang) -> String {
    let none = tr(lang, "无", "none");
    let newest = f.newest_receipt.as_deref().unwrap_or(none);
    let mut out = match lang {
        Lang::Zh => format!("数据截至 {newest}；机构 {}，已注册 {}", f.sites, f.sites_enrolled),
        Lang::En => {
            format!("Newest receipt {newest}; {} sites, {} enrolled", f.sites, f.sites_enrolled)
        }
    };
    if let Some(n) = f.sites_with_backlog {
        out.push_str(&format!("{}{n}", tr(lang, "，有积压 ", ", with backlog ")));
    }
    if let Some(n) = f.sites_silent {
        out.push_str(&format!("{}{n}", tr(lang, "，失联 ", ", silent ")));
    }
    out
}

/// How far the review of the reports has come, and what happened since; empty while they are open.
fn review_line(answer: &QueryAnswer, lang: Lang) -> String {
    let mut said: Vec<String> =
        stage_text(&answer.stage, lang).map(str::to_owned).into_iter().collect();
    if answer.restated {
        said.push(restated_text(lang).to_owned());
    }
    if answer.pending_after_lock > 0 {
        let n = answer.pending_after_lock;
        said.push(match lang {
            Lang::Zh => format!("锁定后待批准版本 {n}"),
            Lang::En => format!("{n} versions await approval behind a lock"),
        });
    }
    said.join(tr(lang, "；", "; "))
}

/// The answer for people: a block a row, or one line a row where a single element is asked for.
pub fn query_table(answer: &QueryAnswer, catalogue: &Catalogue, lang: Lang) -> String {
    let mut out = format!(
        "{} {}  {}  {} {}\n",
        answer.unit,
        answer.path.join(" › "),
        answer.period,
        tr(lang, "截至", "as of"),
        answer.as_of
    );
    if let Some(day) = &answer.map_date {
        out.push_str(&format!("{} {day}\n", tr(lang, "按此日地图：", "on the map of")));
    }
    out.push_str(&completeness_line(&answer.completeness, lang));
    out.push('\n');
    out.push_str(&freshness_line(&answer.freshness, lang));
    out.push('\n');
    if answer.conflicts > 0 {
        out.push_str(&format!(
            "{} {}\n",
            tr(lang, "冲突报表：", "Reports in conflict:"),
            answer.conflicts
        ));
    }
    let reviewed = review_line(answer, lang);
    if !reviewed.is_empty() {
        out.push_str(&format!("{reviewed}\n"));
    }
    if answer.rows.iter().any(|row| !row.indicators.is_empty()) {
        out.push_str(&indicators_table(answer, catalogue, lang));
    }
    if answer.rows.iter().any(|row| !row.elements.is_empty()) {
        out.push_str(&elements_table(answer, catalogue, lang));
    }
    if let Some(reconciliation) = &answer.reconciliation {
        let mut lines = table(&[
            tr(lang, "数据元", "element"),
            tr(lang, "各网络合计", "sum of networks"),
            tr(lang, "− 重复计入", "− more than once"),
            tr(lang, "− 辖区以外", "− outside the area"),
            tr(lang, "＋ 未入网络", "+ in none"),
            tr(lang, "＝ 行政合计", "= administrative total"),
        ]);
        let cell = |a: &AddendFigure| format!("{} ({})", grouped(a.value), a.facilities);
        for (code, r) in &reconciliation.0 {
            lines.add_row([
                code.clone(),
                cell(&r.sum_of_groups),
                cell(&r.more_than_once),
                cell(&r.outside_area),
                format!("{} ({})", grouped(r.in_none.value), r.in_none.facilities),
                cell(&r.administrative_total),
            ]);
        }
        align(&mut lines, 1..6);
        out.push_str(tr(
            lang,
            "对账（括号内为机构数）\n",
            "Reconciliation (facilities in brackets)\n",
        ));
        out.push_str(&lines.trim_fmt());
        out.push('\n');
    }
    out
}

/// A table of items, one line a row and item; where there are several rows each line says of which it is.
/// `numbers` are the columns aligned to the right.
fn items_table(
    answer: &QueryAnswer,
    (catalogue, lang): (&Catalogue, Lang),
    columns: &[&str],
    numbers: impl IntoIterator<Item = usize>,
    lines: impl Fn(&Row) -> Vec<Vec<String>>,
) -> String {
    let lead = [tr(lang, "行", "row"), tr(lang, "统计期", "period")];
    let lead: &[&str] = if answer.rows.len() == 1 { &[] } else { &lead };
    let mut out = table(&[lead, columns].concat());
    for row in &answer.rows {
        let of = [key_text(&row.key, catalogue, lang), row.key.period.clone()];
        for line in lines(row) {
            out.add_row(of[..lead.len()].iter().cloned().chain(line));
        }
    }
    align(&mut out, numbers.into_iter().map(|at| lead.len() + at));
    format!("{}\n", out.trim_fmt())
}

/// What the reader should know of a figure: flags, and the area it is of on a network's page.
fn notes(
    catalogue: &Catalogue,
    flags: &[SharedText],
    area: Option<&str>,
    lang: Lang,
) -> Vec<String> {
    let flags = flags.iter().map(|flag| flag_text(catalogue, flag, lang));
    let area = area.map(|area| format!("{} {area}", tr(lang, "辖区数据", "figure of the area")));
    flags.chain(area).collect()
}

/// The name of a unit of measure.
fn unit_text<'c>(catalogue: &'c Catalogue, code: &'c str, lang: Lang) -> &'c str {
    catalogue.units.get(code).map_or(code, |unit| unit.get(lang))
}

fn elements_table(answer: &QueryAnswer, catalogue: &Catalogue, lang: Lang) -> String {
    let columns = [
        tr(lang, "数据元", "element"),
        tr(lang, "数值", "value"),
        tr(lang, "单位", "unit"),
        tr(lang, "报表", "reports"),
        tr(lang, "应报", "expected"),
        tr(lang, "机构", "facilities"),
        tr(lang, "应报机构", "of"),
        tr(lang, "说明", "notes"),
    ];
    let line = |(code, e): (&str, &ElementFigure)| {
        let model = catalogue.element(code).map(|ix| &catalogue.elements[ix.at()]);
        let name = model.map_or(code, |model| model.name.get(lang));
        let mut notes = notes(catalogue, e.flags(), e.area(), lang);
        if e.not_applicable > 0 {
            let text = tr(lang, "不适用", "not applicable");
            notes.push(format!("{text} {}", e.not_applicable));
        }
        vec![
            format!("{name} {code}"),
            e.value.map_or_else(|| format!("— {}", e.state.text(lang)), grouped),
            unit_text(catalogue, &e.item.unit, lang).to_owned(),
            grouped(e.reports),
            grouped(e.expected),
            grouped(e.facilities),
            grouped(e.facilities_expected),
            notes.join(tr(lang, "；", "; ")),
        ]
    };
    let lines = |row: &Row| row.elements.iter().map(line).collect();
    items_table(answer, (catalogue, lang), &columns, [1, 3, 4, 5, 6], lines)
}

fn indicators_table(answer: &QueryAnswer, catalogue: &Catalogue, lang: Lang) -> String {
    let columns = [
        tr(lang, "指标", "indicator"),
        tr(lang, "数值", "value"),
        tr(lang, "单位", "unit"),
        tr(lang, "目标", "target"),
        tr(lang, "达标", "met"),
        tr(lang, "分子", "numerator"),
        tr(lang, "分母", "denominator"),
        tr(lang, "配对", "matched"),
        tr(lang, "应有", "of"),
        tr(lang, "说明", "notes"),
    ];
    let number = |n: Option<f64>| n.map(shown).unwrap_or_default();
    let target = |i: &IndicatorFigure| match (i.bound(), i.low(), i.high()) {
        (Some(target), ..) if i.direction == Direction::Down => {
            format!("≤ {}", shown(target))
        }
        (Some(target), ..) => format!("≥ {}", shown(target)),
        (None, Some(low), Some(high)) => format!("{} – {}", shown(low), shown(high)),
        _ => String::new(),
    };
    let line = |(code, i): (&str, &IndicatorFigure)| {
        let model = catalogue.indicator(code).map(|ix| &catalogue.indicators[ix.at()]);
        let name = model.map_or(code, |model| model.name.get(lang));
        let met = i.met.map_or("", |met| match met {
            true => tr(lang, "达标", "yes"),
            false => tr(lang, "未达", "no"),
        });
        let reason = indicator_reason(i, catalogue, lang);
        let mut notes = notes(catalogue, i.flags(), i.area(), lang);
        if !reason.is_empty() {
            notes.insert(0, reason);
        }
        vec![
            format!("{name} {code}"),
            i.value.map_or_else(|| "—".to_owned(), shown),
            unit_text(catalogue, &i.item.unit, lang).to_owned(),
            target(i),
            met.to_owned(),
            number(i.numerator),
            number(i.denominator),
            grouped(i.coverage.matched),
            grouped(i.coverage.expected),
            notes.join(tr(lang, "；", "; ")),
        ]
    };
    let lines = |row: &Row| row.indicators.iter().map(line).collect();
    items_table(answer, (catalogue, lang), &columns, [1, 3, 5, 6, 7, 8], lines)
}

/// The answer about completeness for people: one line a row and form.
pub fn completeness_table(
    answer: &CompletenessAnswer,
    catalogue: &Catalogue,
    lang: Lang,
) -> String {
    let mut out = format!(
        "{} {}  {}  {} {}\n{}\n{}\n",
        answer.unit,
        answer.path.join(" › "),
        answer.period,
        tr(lang, "截至", "as of"),
        answer.as_of,
        completeness_line(&answer.completeness, lang),
        freshness_line(&answer.freshness, lang),
    );
    let mut header = vec![
        tr(lang, "单位", "row"),
        tr(lang, "统计期", "period"),
        tr(lang, "报表", "form"),
        tr(lang, "应报", "expected"),
        tr(lang, "实报", "received"),
        tr(lang, "按时", "on time"),
        tr(lang, "迟报", "late"),
        tr(lang, "网络所致", "by network"),
        tr(lang, "未到期", "not yet due"),
        tr(lang, "缺报", "missing"),
        tr(lang, "不完整", "incomplete"),
        tr(lang, "代报", "proxy"),
    ];
    header.extend(MissingWhy::ALL.iter().map(|why| why.text(lang)));
    let mut lines = table(&header);
    for row in &answer.rows {
        for (form, c) in &row.forms {
            let name = catalogue
                .form(form)
                .map_or(form.as_str(), |f| catalogue.forms[f.at()].name.get(lang));
            let numbers = c.parts();
            let cells = [
                key_text(&row.key, catalogue, lang),
                row.key.period.clone(),
                format!("{name} {form}"),
            ]
            .into_iter()
            .chain(numbers.into_iter().map(grouped))
            .chain(causes(c).into_iter().map(|n| n.map_or_else(|| "–".to_owned(), grouped)));
            lines.add_row(cells.collect::<Vec<_>>());
        }
    }
    align(&mut lines, 3..header.len());
    out.push_str(&lines.trim_fmt());
    out.push('\n');
    out
}
