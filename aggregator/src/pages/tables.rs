//! The tables of a place page: the state of reporting, elements, and the parts of a place.

use banyan_shared::figures::MissingWhy;
use banyan_shared::ids::Millis;
use maud::{Markup, html};

use super::deadline::Next;
use super::{View, chart, selectors};
use crate::query::{
    AddendFigure, CompletenessFigure, ElementFigure, Figures, Freshness, IndicatorFigure,
    QueryAnswer, ReconciliationFigure, causes, grouped, restated_text, stage_text,
};

/// One part of a place: a child, a member, a network.
pub(super) struct Part {
    pub(super) code: String,
    pub(super) name: String,
    /// Kind, and roles in a network.
    pub(super) what: Vec<String>,
    pub(super) completeness: Option<CompletenessFigure>,
    pub(super) figure: Option<Figure>,
    /// When its agents, or those of facilities below it, were last heard of.
    pub(super) heard: Option<Millis>,
}

/// What is shown of each part.
#[derive(Clone, Debug)]
pub(super) enum Figure {
    /// An element's figure.
    Element(ElementFigure),
    /// An indicator's, with its code.
    Indicator(String, Box<IndicatorFigure>),
}

/// RFC 3339 as people read it: `2026-02-10 08:57`.
pub(super) fn moment(text: &str) -> String {
    text.get(..16).unwrap_or(text).replace('T', " ")
}

/// A share in per cent, one decimal, rounded as indicators are, but never up to 100.
fn percent(part: u64, whole: u64) -> Option<String> {
    let (part, of) = (u128::from(part), u128::from(whole.max(1)));
    let rounded = (part * 2000 + of) / (of * 2);
    let thousandths = if part < of { rounded.min(999) } else { rounded };
    (whole > 0).then(|| format!("{}.{}%", thousandths / 10, thousandths % 10))
}

/// The four parts of what was expected, as a bar.
fn bar(view: &View<'_>, c: &CompletenessFigure) -> Markup {
    let label = format!(
        "{} {}, {} {}, {} {}, {} {}",
        view.tr("按时", "on time"),
        c.on_time,
        view.tr("迟报", "late"),
        c.late,
        view.tr("未到期", "not yet due"),
        c.not_yet_due,
        view.tr("缺报", "missing"),
        c.missing,
    );
    chart::bar(
        &label,
        &[
            (c.on_time, chart::BLUE),
            (c.late, chart::AMBER),
            (c.not_yet_due, chart::GREY),
            (c.missing, chart::VERMILION),
        ],
    )
}

/// Missing by cause, in words.
fn why_missing(view: &View<'_>, c: &CompletenessFigure) -> String {
    let named: Vec<String> = MissingWhy::ALL
        .iter()
        .zip(causes(c))
        .filter_map(|(why, n)| {
            let n = n.filter(|n| *n > 0)?;
            Some(format!("{} {}", why.text(view.lang), grouped(n)))
        })
        .collect();
    named.join(view.tr("、", ", "))
}

/// The state of reporting in one line: what a reader asks before trusting a number.
pub(super) fn state(view: &View<'_>, answer: &QueryAnswer, next: &[Next]) -> Markup {
    let c = &answer.completeness;
    let f: &Freshness = &answer.freshness;
    let of_received: Vec<String> = [
        (c.incomplete, view.tr("不完整", "incomplete")),
        (c.proxy, view.tr("代报", "by proxy")),
        (c.late_by_network, view.tr("网络所致迟报", "late by network only")),
        (c.unexpected, view.tr("非应报（另计）", "not expected (apart)")),
    ]
    .into_iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, text)| format!("{text} {}", grouped(n)))
    .collect();
    let sep = view.tr("、", ", ");
    let open = view.tr("未锁定，数据可能变动", "not locked: figures may change");
    let stage = stage_text(&answer.stage, view.lang).unwrap_or(open);
    let key = |class: &str, text: &str, n: u64| {
        html! { span.part_of { span class=(format!("key {class}")) {} (text) " " b { (grouped(n)) } } " " }
    };
    html! {
        div.state {
            div.fact {
                div.label { (view.tr("统计期", "Period")) }
                div { b { (answer.period) } }
                div.dim { (stage)
                    @if answer.restated { " · " (restated_text(view.lang)) }
                }
            }
            div.fact {
                div.label { (view.tr("数据截至", "Data until")) }
                @match &f.newest_receipt {
                    Some(at) => div { b { (moment(at)) } },
                    None => div.none { (view.tr("本期尚未收到任何报表", "no report of this period has come in")) },
                }
                div.dim { (view.tr("查询时刻 ", "as of ")) (moment(&answer.as_of)) }
            }
            div.fact {
                div.label { (view.tr("机构", "Sites")) }
                div { b { (grouped(f.sites)) } " " span.dim { (view.tr("已注册 ", "enrolled ")) (grouped(f.sites_enrolled)) } }
                div.dim {
                    @if let Some(n) = f.sites_with_backlog { (view.tr("有积压 ", "with a backlog ")) (grouped(n)) }
                    @if let Some(n) = f.sites_silent { " · " (view.tr("失联 ", "silent ")) (grouped(n)) }
                }
            }
            div.fact.broad {
                div.label { (view.tr("应报报表", "Reports expected")) " " b { (grouped(c.expected)) }
                    @if let Some(rate) = percent(c.received, c.expected) { " · " (view.tr("上报率 ", "reported ")) (rate) }
                }
                @if c.expected > 0 {
                    (bar(view, c))
                    div.keys {
                        (key("b1", view.tr("按时", "on time"), c.on_time)) (key("b2", view.tr("迟报", "late"), c.late))
                        (key("b3", view.tr("未到期", "not yet due"), c.not_yet_due)) (key("b4", view.tr("缺报", "missing"), c.missing))
                    }
                } @else { div.dim { (view.tr("本期尚无到期的报表", "nothing of this period has been due yet")) } }
            }
            @if c.missing > 0 {
                div.fact { div.label { (view.tr("缺报原因", "Missing because")) } div { (why_missing(view, c)) } }
            }
            @if !next.is_empty() {
                div.fact {
                    div.label { (view.tr("下一截止", "Next due")) }
                    @for one in next {
                        div { b { (moment(&one.due)) } " " span.dim { (view.form_name(&one.form)) " " (one.period)
                            @if one.expected > 0 { " · " (view.tr("已收 ", "in ")) (grouped(one.received)) " / " (grouped(one.expected)) }
                        } }
                    }
                }
            }
            @if !of_received.is_empty() || answer.conflicts > 0 || answer.pending_after_lock > 0 {
                div.fact {
                    div.label { (view.tr("其中", "Of these")) }
                    div {
                        @if answer.conflicts > 0 {
                            span.bad { (view.tr("冲突报表 ", "conflicts ")) (grouped(answer.conflicts)) }
                            @if !of_received.is_empty() { (sep) }
                        }
                        (of_received.join(sep))
                        @if answer.pending_after_lock > 0 {
                            " · " (view.tr("锁定后待批准 ", "awaiting approval behind a lock ")) (grouped(answer.pending_after_lock))
                        }
                    }
                }
            }
        }
    }
}

/// Completeness of each form, with the causes of what is missing.
pub(super) fn forms(view: &View<'_>, list: &[(String, CompletenessFigure)]) -> Markup {
    html! {
        @if !list.is_empty() {
            h2 id="forms" { (view.tr("各报表完整性", "Completeness by form")) }
            div.wide { table.list {
                thead { tr {
                    th scope="col" { (view.tr("报表", "Form")) }
                    th.n scope="col" { (view.tr("应报", "Expected")) } th.n scope="col" { (view.tr("实报", "Received")) }
                    th.n scope="col" { (view.tr("按时", "On time")) } th.n scope="col" { (view.tr("迟报", "Late")) }
                    th.n scope="col" { (view.tr("未到期", "Not yet due")) } th.n scope="col" { (view.tr("缺报", "Missing")) }
                    th.n scope="col" { (view.tr("上报率", "Reported")) } th.shape scope="col" { (view.tr("构成", "Parts")) }
                    th scope="col" { (view.tr("缺报原因及其他", "Missing because, and more")) }
                } }
                tbody {
                    @for (form, c) in list {
                        tr {
                            td title=(form) { (view.form_name(form)) }
                            td.n { (grouped(c.expected)) } td.n { (grouped(c.received)) } td.n { (grouped(c.on_time)) }
                            td.n { (grouped(c.late)) } td.n { (grouped(c.not_yet_due)) }
                            td.n.bad[c.missing > 0] { (grouped(c.missing)) }
                            td.n { (percent(c.received, c.expected).unwrap_or_else(|| "–".to_owned())) }
                            td.shape { (bar(view, c)) }
                            td.dim { (why_missing(view, c))
                                @if c.incomplete > 0 { " · " (view.tr("不完整 ", "incomplete ")) (grouped(c.incomplete)) }
                                @if c.unexpected > 0 { " · " (view.tr("非应报 ", "not expected ")) (grouped(c.unexpected)) }
                            }
                        }
                    }
                }
            } }
        }
    }
}

/// The value of a figure, or why there is none.
fn value(view: &View<'_>, e: &ElementFigure) -> Markup {
    match e.value {
        Some(value) => html! { span.big { (grouped(value)) } },
        None => html! { span.none { "— " (e.state.text(view.lang)) } },
    }
}

/// A number of a whole.
pub(super) fn of(part: u64, whole: u64) -> Markup {
    html! {
        @if whole == 0 && part == 0 {
            span.dim { "–" }
        } @else {
            span class=[(part < whole).then_some("part")] { (grouped(part)) " / " (grouped(whole)) }
        }
    }
}

/// Every element: value or reason, and what it covers. `divide` gives the address at which the parts of the
/// place show an element.
pub(super) fn elements(
    view: &View<'_>,
    list: &Figures<ElementFigure>,
    divide: Option<&dyn Fn(&str) -> String>,
) -> Markup {
    let notes = |e: &ElementFigure| {
        let mut notes = view.flags(e.flags());
        if e.not_applicable > 0 {
            notes.push(format!("{} {}", view.tr("不适用", "not applicable"), e.not_applicable));
        }
        notes.extend(view.area_note(e.area()));
        notes.join(view.tr("；", "; "))
    };
    html! {
        h2 id="elements" { (view.tr("数据元", "Elements")) " " small { (list.len()) } }
        @if list.is_empty() {
            p.none { (view.tr("本期没有应报的数据元", "Nothing is asked of this place in this period")) }
        } @else {
            div.wide { table.list {
                thead { tr {
                    th scope="col" { (view.tr("数据元", "Element")) }
                    th.n scope="col" { (view.tr("数值", "Value")) } th scope="col" { (view.tr("单位", "Unit")) }
                    th.n scope="col" { (view.tr("报表 / 应报", "Reports / expected")) }
                    th.n scope="col" { (view.tr("机构 / 应报机构", "Facilities / expected")) }
                    th scope="col" { (view.tr("说明", "Notes")) }
                } }
                tbody {
                    @for (code, e) in list.iter() {
                        tr {
                            td title=(code) {
                                @match divide {
                                    Some(link) => a href=(link(code)) { (view.element_name(code)) },
                                    None => (view.element_name(code)),
                                }
                            }
                            td.n { @match e.value { Some(value) => span.big { (grouped(value)) }, None => span.none { "—" } } }
                            td.nowrap { (view.unit_text(&e.item.unit)) }
                            td.n { (of(e.reports, e.expected)) } td.n { (of(e.facilities, e.facilities_expected)) }
                            td.dim {
                                @if let Some(reason) = view.element_reason(e) { span.none { (reason) } " " }
                                (notes(e))
                            }
                        }
                    }
                }
            } }
        }
    }
}

/// The parts of a place, each with its completeness and one figure. `shown` is that figure's name.
pub(super) fn parts(
    view: &View<'_>,
    caption: &str,
    parts: &[Part],
    period: &str,
    shown: Option<&str>,
) -> Markup {
    let heard = parts.iter().any(|part| part.heard.is_some());
    let at = |part: &Part| {
        let at = part.heard.map(|at| selectors::moment_text(&view.catalogue, at));
        at.map_or_else(|| "–".to_owned(), |text| moment(&text))
    };
    html! {
        div.wide { table.list {
            caption { (caption) }
            thead { tr {
                th scope="col" { (view.tr("名称", "Name")) } th scope="col" { (view.tr("类型与角色", "What")) }
                th.n scope="col" { (view.tr("应报", "Expected")) } th.n scope="col" { (view.tr("按时", "On time")) }
                th.n scope="col" { (view.tr("迟报", "Late")) } th.n scope="col" { (view.tr("未到期", "Not yet due")) }
                th.n scope="col" { (view.tr("缺报", "Missing")) } th.n scope="col" { (view.tr("上报率", "Reported")) }
                @if heard { th scope="col" { (view.tr("最近联系", "Last heard")) } }
                @if let Some(name) = shown {
                    th.n scope="col" { (name) } th.n scope="col" { (view.tr("已报 / 应报", "Covered / expected")) }
                }
            } }
            tbody {
                @for part in parts {
                    tr {
                        td { a href=(view.place_url(&part.code, Some(period))) title=(part.code) { (part.name) } }
                        td { (part.what.join(" · ")) }
                        @match &part.completeness {
                            Some(c) => {
                                td.n { (grouped(c.expected)) } td.n { (grouped(c.on_time)) } td.n { (grouped(c.late)) }
                                td.n { (grouped(c.not_yet_due)) } td.n.bad[c.missing > 0] { (grouped(c.missing)) }
                                td.n { (percent(c.received, c.expected).unwrap_or_else(|| "–".to_owned())) }
                            }
                            None => td.dim colspan="6" { (view.tr("本期无应报报表", "nothing is due of it in this period")) },
                        }
                        @if heard { td.nowrap.dim { (at(part)) } }
                        @if shown.is_some() { (figure_cells(view, part.figure.as_ref())) }
                    }
                }
            }
        } }
    }
}

/// A figure and what it covers, as two cells.
pub(super) fn figure_cells(view: &View<'_>, figure: Option<&Figure>) -> Markup {
    html! {
        @match figure {
            Some(Figure::Element(e)) => { td.n { (value(view, e)) } td.n { (of(e.reports, e.expected)) } }
            Some(Figure::Indicator(code, i)) => {
                td.n {
                    @match i.value {
                        Some(v) => {
                            @match i.met { Some(true) => span.good { "√ " }, Some(false) => span.bad { "× " }, None => {} }
                            span.big { (view.indicator_number(code, v)) }
                        }
                        None => span.none title=[view.indicator_reason(code, i)] { "— " (i.state.text(view.lang)) },
                    }
                }
                td.n { (of(i.coverage.matched, i.coverage.expected)) }
            }
            None => { td.n { "–" } td.n { "–" } }
        }
    }
}

/// How the networks' sum leads to the administrative total. `link` gives the address of the list behind a
/// line, with the kind it is of.
pub(super) fn reconciliation(
    view: &View<'_>,
    element: &str,
    r: &ReconciliationFigure,
    link: &dyn Fn(super::list::Which, Option<&str>) -> String,
) -> Markup {
    use super::list::Which;
    let line = |sign: &str, which: Which, kind: Option<&str>, text: &str, a: &AddendFigure| {
        html! { tr class=[kind.map(|_| "dim")] {
            td { @if kind.is_some() { span.inset {} } (sign) " " a href=(link(which, kind)) { (text) } }
            td.n { (grouped(a.value)) } td.n { (grouped(a.facilities)) }
        } }
    };
    let none = AddendFigure { facilities: r.in_none.facilities, value: r.in_none.value };
    html! {
        h3 id="reconciliation" { (view.tr("与行政合计对账：", "Reconciliation to the administrative total: ")) (view.element_name(element)) }
        table.sum {
            thead { tr { th scope="col" { (view.tr("项目（点开看机构名单）", "Line (open for the list of facilities)")) } th.n scope="col" { (view.tr("数值", "Value")) } th.n scope="col" { (view.tr("机构", "Facilities")) } } }
            tbody {
                (line("", Which::Groups, None, view.tr("各网络之和", "sum of the networks"), &r.sum_of_groups))
                (line("−", Which::Repeated, None, view.tr("重复计入", "counted more than once"), &r.more_than_once))
                (line("−", Which::Outside, None, view.tr("辖区以外", "outside the area"), &r.outside_area))
                (line("+", Which::None, None, view.tr("未入任何网络", "in none of them"), &none))
                @for (kind, a) in &r.in_none.by_kind.0 {
                    (line("", Which::None, Some(kind), view.kind_name(kind), a))
                }
                (line("=", Which::Total, None, view.tr("行政合计", "administrative total"), &r.administrative_total))
            }
        }
    }
}

impl View<'_> {
    /// An element's name.
    pub(super) fn element_name<'c>(&'c self, code: &'c str) -> &'c str {
        let model = self.catalogue.element(code).map(|ix| &self.catalogue.elements[ix.at()]);
        model.map_or(code, |model| model.name.get(self.lang))
    }

    /// A form's name.
    pub(super) fn form_name<'c>(&'c self, code: &'c str) -> &'c str {
        let model = self.catalogue.form(code).map(|ix| &self.catalogue.forms[ix.at()]);
        model.map_or(code, |model| model.name.get(self.lang))
    }

    /// A kind's name.
    pub(super) fn kind_name<'c>(&'c self, code: &'c str) -> &'c str {
        let model = self.catalogue.kind(code).map(|ix| &self.catalogue.kinds[ix.at()]);
        model.map_or(code, |model| model.name.get(self.lang))
    }

    /// The name of a unit of measure.
    pub(super) fn unit_text<'c>(&'c self, code: &'c str) -> &'c str {
        self.catalogue.units.get(code).map_or(code, |unit| unit.get(self.lang))
    }
}

#[cfg(test)]
mod tests {
    use super::percent;

    #[test]
    fn a_share_is_rounded_as_indicators_are_but_never_up_to_all() {
        let shown = |part, whole| percent(part, whole).unwrap();
        assert_eq!(shown(31, 32), "96.9%");
        assert_eq!(shown(1, 3), "33.3%");
        assert_eq!(shown(2999, 3000), "99.9%");
        assert_eq!(shown(3000, 3000), "100.0%");
        assert_eq!(shown(0, 5), "0.0%");
        assert_eq!(percent(0, 0), None);
    }
}
