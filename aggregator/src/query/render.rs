//! Answers as CSV (exact headers, `docs/formats.md`) and as tables for people.

use banyan_shared::catalogue::{Catalogue, Lang};
use banyan_shared::figures::{MissingWhy, State};
use banyan_shared::report::{How, Reason};
use comfy_table::{CellAlignment, ContentArrangement, Table};

use super::answer::{
    AddendFigure, CompletenessAnswer, CompletenessFigure, Freshness, IndicatorFigure, QueryAnswer,
    RowKey,
};
use super::trace::Trace;
use crate::act::Stage;

/// The header of a query as CSV.
pub(super) const QUERY_HEADER: [&str; 20] = [
    "unit",
    "name",
    "path",
    "kind",
    "network",
    "period",
    "item",
    "item_type",
    "value",
    "state",
    "numerator",
    "denominator",
    "reports",
    "expected",
    "facilities",
    "facilities_expected",
    "target",
    "met",
    "definition",
    "flags",
];

/// A text cell that no spreadsheet takes for a formula.
fn safe(text: &str) -> String {
    match text.chars().next() {
        Some('=' | '+' | '-' | '@' | '\t' | '\r') => format!("'{text}"),
        _ => text.to_owned(),
    }
}

fn write(rows: impl FnOnce(&mut csv::Writer<Vec<u8>>) -> csv::Result<()>) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    rows(&mut writer).expect("writing to memory does not fail");
    let bytes = writer.into_inner().expect("writing to memory does not fail");
    String::from_utf8(bytes).expect("what was written is UTF-8")
}

/// The place a row is about: the key's own, and for rows not divided by units the answer's.
fn place(key: &RowKey, path: &[String]) -> (String, String, String, String, String) {
    let network = match (&key.role, &key.network) {
        (Some(role), Some(network)) => format!("{role}@{network}"),
        (Some(role), None) => role.clone(),
        (None, network) => network.clone().unwrap_or_default(),
    };
    (
        key.unit.clone().unwrap_or_default(),
        safe(key.name.as_deref().unwrap_or_default()),
        safe(&key.path.as_deref().unwrap_or(path).join("/")),
        key.kind.clone().unwrap_or_default(),
        network,
    )
}

/// The answer as CSV, one line a row and item.
pub fn query_csv(answer: &QueryAnswer) -> String {
    let plain = |n: Option<f64>| n.map(|n| n.to_string()).unwrap_or_default();
    write(|out| {
        out.write_record(QUERY_HEADER)?;
        for row in &answer.rows {
            let (unit, name, path, kind, network) = place(&row.key, &answer.path);
            let head = [unit, name, path, kind, network, row.key.period.clone()];
            for (code, e) in &row.elements.0 {
                let tail = [
                    code.clone(),
                    "element".to_owned(),
                    e.value.map(|n| n.to_string()).unwrap_or_default(),
                    e.state.code().to_owned(),
                    String::new(),
                    String::new(),
                    e.reports.to_string(),
                    e.expected.to_string(),
                    e.facilities.to_string(),
                    e.facilities_expected.to_string(),
                    String::new(),
                    String::new(),
                    e.definition.clone(),
                    e.flags.join(";"),
                ];
                out.write_record(head.iter().chain(&tail))?;
            }
            for (code, i) in &row.indicators.0 {
                let tail = [
                    code.clone(),
                    "indicator".to_owned(),
                    plain(i.value),
                    i.state.code().to_owned(),
                    plain(i.numerator),
                    plain(i.denominator),
                    i.coverage.matched.to_string(),
                    i.coverage.expected.to_string(),
                    String::new(),
                    String::new(),
                    plain(i.target),
                    i.met.map(|met| met.to_string()).unwrap_or_default(),
                    i.definition.clone(),
                    i.flags.join(";"),
                ];
                out.write_record(head.iter().chain(&tail))?;
            }
        }
        Ok(())
    })
}

/// The answer about completeness as CSV, one line a row and form.
pub fn completeness_csv(answer: &CompletenessAnswer) -> String {
    let mut header: Vec<&str> = vec![
        "unit",
        "name",
        "path",
        "form",
        "period",
        "expected",
        "received",
        "on_time",
        "late",
        "late_by_network",
        "not_yet_due",
        "missing",
        "incomplete",
        "proxy",
    ];
    header.extend(MissingWhy::ALL.iter().map(|why| why.code()));
    write(|out| {
        out.write_record(&header)?;
        for row in &answer.rows {
            let (unit, name, path, kind, network) = place(&row.key, &answer.path);
            // Rows by network, kind or role have no unit: the code of what they are stands there.
            let parts = [unit, network, kind];
            let unit =
                parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(":");
            for (form, c) in &row.forms {
                let numbers = c.parts();
                let record: Vec<String> = [
                    unit.clone(),
                    name.clone(),
                    path.clone(),
                    form.clone(),
                    row.key.period.clone(),
                ]
                .into_iter()
                .chain(numbers.iter().map(u64::to_string))
                .chain(causes(c).into_iter().map(|n| n.map(|n| n.to_string()).unwrap_or_default()))
                .collect();
                out.write_record(&record)?;
            }
        }
        Ok(())
    })
}

/// The trace of a number as CSV: one line a value; with the history, those of every version too.
pub fn trace_csv(trace: &Trace) -> String {
    const HEADER: [&str; 20] = [
        "facility",
        "name",
        "path",
        "form",
        "period",
        "status",
        "version",
        "counted",
        "how",
        "entered_by",
        "entered_at",
        "received_at",
        "position",
        "reason",
        "override_code",
        "withdrawn",
        "replaced_by",
        "element",
        "value",
        "state",
    ];
    write(|out| {
        out.write_record(HEADER)?;
        let head = [
            trace.facility.clone(),
            safe(&trace.name),
            safe(&trace.path.join("/")),
            trace.form.clone(),
            trace.period.clone(),
            trace.status.clone(),
        ];
        let none = || std::iter::repeat_n(String::new(), 11);
        for ((element, value), (_, state)) in trace.values.0.iter().zip(&trace.states.0) {
            let tail = [element.clone(), value.to_string(), state.code().to_owned()];
            out.write_record(head.iter().cloned().chain(none()).chain(tail))?;
        }
        for v in &trace.history {
            let of_version = [
                v.version.clone(),
                v.counted.to_string(),
                v.how.clone(),
                safe(v.entered_by.as_deref().unwrap_or_default()),
                v.entered_at.clone(),
                v.received_at.clone(),
                v.position.to_string(),
                v.reason.clone().unwrap_or_default(),
                v.override_code.clone().unwrap_or_default(),
                v.withdrawn.to_string(),
                v.replaced_by.join(";"),
            ];
            // A withdrawal says nothing of any element: one line all the same.
            let values = v.values.0.iter().map(|(e, value)| (e.clone(), value.to_string()));
            let mut values: Vec<(String, String)> = values.collect();
            if values.is_empty() {
                values.push((String::new(), String::new()));
            }
            for (element, value) in values {
                let tail = [element, value, String::new()];
                out.write_record(head.iter().cloned().chain(of_version.clone()).chain(tail))?;
            }
        }
        Ok(())
    })
}

/// Missing by cause, in the order of [`MissingWhy::ALL`].
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
    if answer.rows.iter().any(|row| !row.indicators.0.is_empty()) {
        out.push_str(&indicators_table(answer, catalogue, lang));
    }
    if answer.rows.iter().any(|row| !row.elements.0.is_empty()) {
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

fn elements_table(answer: &QueryAnswer, catalogue: &Catalogue, lang: Lang) -> String {
    let single = answer.rows.len() == 1;
    let mut header =
        if single { vec![] } else { vec![tr(lang, "行", "row"), tr(lang, "统计期", "period")] };
    let first_number = header.len() + 1;
    header.extend([
        tr(lang, "数据元", "element"),
        tr(lang, "数值", "value"),
        tr(lang, "单位", "unit"),
        tr(lang, "报表", "reports"),
        tr(lang, "应报", "expected"),
        tr(lang, "机构", "facilities"),
        tr(lang, "应报机构", "of"),
        tr(lang, "说明", "notes"),
    ]);
    let mut lines = table(&header);
    for row in &answer.rows {
        for (code, e) in &row.elements.0 {
            let model = catalogue.element(code).map(|ix| &catalogue.elements[ix.at()]);
            let name = model.map_or(code.as_str(), |model| model.name.get(lang));
            let unit = catalogue.units.get(&e.unit).map_or(e.unit.as_str(), |unit| unit.get(lang));
            let value = match e.value {
                Some(value) => grouped(value),
                None => format!("— {}", e.state.text(lang)),
            };
            let mut notes: Vec<String> =
                e.flags.iter().map(|flag| flag_text(catalogue, flag, lang)).collect();
            if e.not_applicable > 0 {
                notes.push(format!(
                    "{} {}",
                    tr(lang, "不适用", "not applicable"),
                    e.not_applicable
                ));
            }
            if let Some(area) = &e.area {
                notes.push(format!("{} {area}", tr(lang, "辖区数据", "figure of the area")));
            }
            let mut cells = if single {
                vec![]
            } else {
                vec![key_text(&row.key, catalogue, lang), row.key.period.clone()]
            };
            cells.extend([
                format!("{name} {code}"),
                value,
                unit.to_owned(),
                grouped(e.reports),
                grouped(e.expected),
                grouped(e.facilities),
                grouped(e.facilities_expected),
                notes.join(tr(lang, "；", "; ")),
            ]);
            lines.add_row(cells);
        }
    }
    align(&mut lines, [first_number]);
    align(&mut lines, first_number + 2..header.len() - 1);
    format!("{}\n", lines.trim_fmt())
}

/// Why an indicator has no value, in words: whom it waits for and until when, what is missing, or why it is not
/// computed. Empty where it has one.
pub(crate) fn indicator_reason(
    figure: &IndicatorFigure,
    catalogue: &Catalogue,
    lang: Lang,
) -> String {
    let kinds = || {
        let names = figure.absent.iter().map(|code| {
            catalogue.kind(code).map_or(code.as_str(), |k| catalogue.kinds[k.at()].name.get(lang))
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
            for one in figure.waiting_for.iter().take(WAITING_SHOWN) {
                let form = catalogue
                    .form(&one.form)
                    .map_or(one.form.as_str(), |f| catalogue.forms[f.at()].name.get(lang));
                let due = one.due.get(..16).unwrap_or(&one.due).replace('T', " ");
                out.push_str(&match lang {
                    Lang::Zh => format!("；{} {form}，{due} 前", one.unit),
                    Lang::En => format!("; {} {form}, due {due}", one.unit),
                });
            }
            let more = figure.waiting_for.len().saturating_sub(WAITING_SHOWN);
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

fn indicators_table(answer: &QueryAnswer, catalogue: &Catalogue, lang: Lang) -> String {
    let single = answer.rows.len() == 1;
    let mut header =
        if single { vec![] } else { vec![tr(lang, "行", "row"), tr(lang, "统计期", "period")] };
    let first = header.len() + 1;
    header.extend([
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
    ]);
    let mut lines = table(&header);
    for row in &answer.rows {
        for (code, i) in &row.indicators.0 {
            let model = catalogue.indicator(code).map(|ix| &catalogue.indicators[ix.at()]);
            let name = model.map_or(code.as_str(), |model| model.name.get(lang));
            let unit = catalogue.units.get(&i.unit).map_or(i.unit.as_str(), |unit| unit.get(lang));
            let number = |n: Option<f64>| n.map(shown).unwrap_or_default();
            let target = match (i.target, i.low, i.high) {
                (Some(target), ..) if i.direction.as_deref() == Some("down") => {
                    format!("≤ {}", shown(target))
                }
                (Some(target), ..) => format!("≥ {}", shown(target)),
                (None, Some(low), Some(high)) => format!("{} – {}", shown(low), shown(high)),
                _ => String::new(),
            };
            let met = match i.met {
                Some(true) => tr(lang, "达标", "yes"),
                Some(false) => tr(lang, "未达", "no"),
                None => "",
            };
            let mut notes = vec![indicator_reason(i, catalogue, lang)];
            notes.extend(i.flags.iter().map(|flag| flag_text(catalogue, flag, lang)));
            if let Some(area) = &i.area {
                notes.push(format!("{} {area}", tr(lang, "辖区数据", "figure of the area")));
            }
            notes.retain(|note| !note.is_empty());
            let mut cells = if single {
                vec![]
            } else {
                vec![key_text(&row.key, catalogue, lang), row.key.period.clone()]
            };
            cells.extend([
                format!("{name} {code}"),
                i.value.map_or_else(|| "—".to_owned(), shown),
                unit.to_owned(),
                target,
                met.to_owned(),
                number(i.numerator),
                number(i.denominator),
                grouped(i.coverage.matched),
                grouped(i.coverage.expected),
                notes.join(tr(lang, "；", "; ")),
            ]);
            lines.add_row(cells);
        }
    }
    align(&mut lines, [first, first + 2]);
    align(&mut lines, first + 4..header.len() - 1);
    format!("{}\n", lines.trim_fmt())
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

/// The trace of a number for people.
pub fn trace_table(trace: &Trace, catalogue: &Catalogue, lang: Lang) -> String {
    let status = status_text(&trace.status, lang);
    let why = trace.missing_why.as_deref().and_then(MissingWhy::from_code);
    let mut out = format!(
        "{} {}  {}  {}\n{}{}",
        trace.facility,
        trace.path.join(" › "),
        trace.form,
        trace.period,
        status,
        why.map(|why| format!(" ({})", why.text(lang))).unwrap_or_default(),
    );
    for (label, text) in [
        (tr(lang, "应报时限", "due"), &trace.due),
        (tr(lang, "迟报界限", "late after"), &trace.late_after),
        (tr(lang, "到达", "arrived"), &trace.arrived),
    ] {
        if let Some(text) = text {
            out.push_str(&format!("  {label} {text}"));
        }
    }
    out.push('\n');
    let mut said = Vec::new();
    if trace.stage != "open" {
        let locked = trace.stage == "locked";
        said.push(if locked { Stage::Locked } else { Stage::Signed }.text(lang));
    }
    if trace.returned {
        said.push(MissingWhy::Returned.text(lang));
    }
    if trace.restated {
        said.push(tr(lang, "签核后已修订", "restated since it was signed off"));
    }
    if !said.is_empty() {
        out.push_str(&format!("{}\n", said.join(tr(lang, "；", "; "))));
    }
    if trace.heads > 1 {
        out.push_str(&match lang {
            Lang::Zh => format!("冲突：{} 个版本并存，待有人确认\n", trace.heads),
            Lang::En => {
                format!("Conflict: {} versions stand until one replaces the others\n", trace.heads)
            }
        });
    }
    let mut lines = table(&[
        tr(lang, "数据元", "element"),
        tr(lang, "数值", "value"),
        tr(lang, "状态", "state"),
    ]);
    for ((code, value), (_, state)) in trace.values.0.iter().zip(&trace.states.0) {
        let model = catalogue.element(code).map(|ix| &catalogue.elements[ix.at()]);
        let name = model.map_or(code.as_str(), |model| model.name.get(lang));
        let state = if *state == State::Reported { "" } else { state.text(lang) };
        lines.add_row([format!("{name} {code}"), value.to_string(), state.to_owned()]);
    }
    align(&mut lines, [1]);
    out.push_str(&lines.trim_fmt());
    out.push('\n');
    if !trace.history.is_empty() {
        let mut lines = table(&[
            tr(lang, "版本", "version"),
            tr(lang, "录入方式", "how"),
            tr(lang, "录入人", "by"),
            tr(lang, "录入", "entered"),
            tr(lang, "接收", "received"),
            tr(lang, "批次", "batch"),
            tr(lang, "说明", "notes"),
            tr(lang, "数值", "values"),
        ]);
        for v in &trace.history {
            let mut notes = Vec::new();
            if v.counted {
                notes.push(tr(lang, "计入", "counted").to_owned());
            }
            if v.withdrawn {
                notes.push(tr(lang, "撤回", "withdrawn").to_owned());
            }
            if v.pending {
                notes.push(tr(lang, "待批准", "awaits approval").to_owned());
            }
            if let Some(reason) = v.reason.as_deref().and_then(Reason::from_code) {
                notes.push(reason.text(lang).to_owned());
            }
            if !v.replaced_by.is_empty() {
                notes.push(format!(
                    "{} {}",
                    tr(lang, "被替代：", "replaced by"),
                    v.replaced_by.join(", ")
                ));
            }
            let how = How::from_code(&v.how).map_or(v.how.as_str(), |how| how.text(lang));
            let values = v.values.0.iter().map(|(code, value)| format!("{code}={value}"));
            lines.add_row([
                v.version.clone(),
                how.to_owned(),
                v.entered_by.clone().unwrap_or_default(),
                format!("{}{}", v.entered_at, if v.entered_at_doubtful { " ?" } else { "" }),
                v.received_at.clone(),
                v.position.to_string(),
                notes.join(tr(lang, "；", "; ")),
                values.collect::<Vec<_>>().join(" "),
            ]);
        }
        out.push_str(&lines.trim_fmt());
        out.push('\n');
    }
    for decision in &trace.decisions {
        let reason = decision.reason.as_deref().and_then(Reason::from_code);
        let what = match decision.decision.as_str() {
            "returned" => tr(lang, "退回", "returned"),
            "approved" => tr(lang, "批准", "approved"),
            "signed" => Stage::Signed.text(lang),
            "locked" => Stage::Locked.text(lang),
            _ => tr(lang, "解锁", "opened again"),
        };
        out.push_str(&format!(
            "{}  {what}  {}{}{}\n",
            decision.at,
            decision.by,
            decision.place.as_ref().map(|place| format!("  {place}")).unwrap_or_default(),
            reason.map(|reason| format!("  {}", reason.text(lang))).unwrap_or_default(),
        ));
    }
    out
}
