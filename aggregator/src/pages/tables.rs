//! The tables of a place page: the state of reporting, elements, and the parts of a place.

use banyan_shared::figures::MissingWhy;
use maud::{Markup, html};

use super::View;
use crate::query::{
    AddendFigure, CompletenessFigure, ElementFigure, Freshness, Ordered, QueryAnswer,
    ReconciliationFigure, causes, flag_text, grouped,
};

/// One part of a place: a child, a member, a network.
pub(super) struct Part {
    pub(super) code: String,
    pub(super) name: String,
    /// Kind, and roles in a network.
    pub(super) what: Vec<String>,
    pub(super) completeness: Option<CompletenessFigure>,
    pub(super) figure: Option<ElementFigure>,
}

/// RFC 3339 as people read it: `2026-02-10 08:57`.
pub(super) fn moment(text: &str) -> String {
    text.get(..16).unwrap_or(text).replace('T', " ")
}

/// A share in per cent, one decimal, never rounded up to 100.
fn percent(part: u64, whole: u64) -> Option<String> {
    let thousandths = u128::from(part) * 1000 / u128::from(whole.max(1));
    (whole > 0).then(|| format!("{}.{}%", thousandths / 10, thousandths % 10))
}

/// A bar of the four parts of what was expected, in thousandths.
fn bar(c: &CompletenessFigure) -> Markup {
    let width = |n: u64| {
        let tenths = u128::from(n) * 1000 / u128::from(c.expected.max(1));
        format!("width:{}.{}%", tenths / 10, tenths % 10)
    };
    html! {
        div.bar {
            span.b1 style=(width(c.on_time)) {} span.b2 style=(width(c.late)) {}
            span.b3 style=(width(c.not_yet_due)) {} span.b4 style=(width(c.missing)) {}
        }
    }
}

fn fact(label: &str, content: Markup) -> Markup {
    html! { tr { td.label { (label) } td { (content) } } }
}

/// The state of reporting: one line a question a reader has before trusting a number.
pub(super) fn state(view: &View<'_>, answer: &QueryAnswer) -> Markup {
    let c = &answer.completeness;
    let f: &Freshness = &answer.freshness;
    let why: Vec<String> = MissingWhy::ALL
        .iter()
        .zip(causes(c))
        .filter_map(|(why, n)| {
            let n = n.filter(|n| *n > 0)?;
            Some(format!("{} {}", why.text(view.lang), grouped(n)))
        })
        .collect();
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
    html! {
        table.facts {
            (fact(view.tr("统计期", "Period"), html! {
                b { (answer.period) }
                span.dim { " · " (view.tr("查询时刻 ", "as of ")) (moment(&answer.as_of)) " · "
                    @match &answer.map_date {
                        Some(day) => { (view.tr("按此日归属 ", "on the map of ")) (day) }
                        None => (view.tr("按当时归属", "membership as it was")),
                    }
                    @if answer.provisional { " · " (view.tr("未锁定，数据可能变动", "not locked: figures may change") ) }
                }
            }))
            (fact(view.tr("数据截至", "Data until"), html! {
                @match &f.newest_receipt {
                    Some(at) => (moment(at)),
                    None => span.none { (view.tr("本期尚未收到任何报表", "no report of this period has come in")) },
                }
            }))
            (fact(view.tr("机构", "Sites"), html! {
                (grouped(f.sites)) span.dim { " · " (view.tr("已注册 ", "enrolled ")) (grouped(f.sites_enrolled))
                    @if let Some(n) = f.sites_with_backlog { " · " (view.tr("有积压 ", "with a backlog ")) (grouped(n)) }
                    @if let Some(n) = f.sites_silent { " · " (view.tr("失联 ", "silent ")) (grouped(n)) }
                }
            }))
            (fact(view.tr("应报报表", "Reports expected"), html! {
                b { (grouped(c.expected)) } " = "
                span.key.b1 {} (view.tr("按时 ", "on time ")) (grouped(c.on_time)) " + "
                span.key.b2 {} (view.tr("迟报 ", "late ")) (grouped(c.late)) " + "
                span.key.b3 {} (view.tr("未到期 ", "not yet due ")) (grouped(c.not_yet_due)) " + "
                span.key.b4 {} (view.tr("缺报 ", "missing ")) (grouped(c.missing))
                @if let Some(rate) = percent(c.received, c.expected) {
                    span.dim { " · " (view.tr("上报率 ", "reported ")) (rate) }
                }
                @if c.expected > 0 { (bar(c)) }
            }))
            @if c.missing > 0 { (fact(view.tr("缺报原因", "Missing because"), html! { (why.join(sep)) })) }
            @if !of_received.is_empty() { (fact(view.tr("其中", "Of these"), html! { (of_received.join(sep)) })) }
            (fact(view.tr("冲突", "Conflicts"), html! {
                @if answer.conflicts > 0 {
                    span.bad { (grouped(answer.conflicts)) " " (view.tr("张报表有多个并存版本，待确认", "reports with several standing versions")) }
                } @else { (view.tr("无", "none")) }
                @if answer.pending_after_lock > 0 {
                    " · " (view.tr("锁定后待批准 ", "awaiting approval behind a lock ")) (grouped(answer.pending_after_lock))
                }
            }))
        }
    }
}

/// Completeness of each form.
pub(super) fn forms(view: &View<'_>, c: &CompletenessFigure) -> Markup {
    html! {
        @if !c.by_form.is_empty() {
            h2 id="forms" { (view.tr("各报表完整性", "Completeness by form")) }
            table.list {
                thead { tr {
                    th { (view.tr("报表", "Form")) }
                    th.n { (view.tr("应报", "Expected")) } th.n { (view.tr("实报", "Received")) } th.n { (view.tr("按时", "On time")) }
                    th.n { (view.tr("迟报", "Late")) } th.n { (view.tr("未到期", "Not yet due")) } th.n { (view.tr("缺报", "Missing")) }
                    th.n { (view.tr("上报率", "Reported")) }
                } }
                tbody {
                    @for f in &c.by_form {
                        tr {
                            td { (view.form_name(&f.form)) " " span.code { (f.form) } }
                            td.n { (grouped(f.expected)) } td.n { (grouped(f.received)) } td.n { (grouped(f.on_time)) }
                            td.n { (grouped(f.late)) } td.n { (grouped(f.not_yet_due)) }
                            td.n.bad[f.missing > 0] { (grouped(f.missing)) }
                            td.n { (percent(f.received, f.expected).unwrap_or_else(|| "–".to_owned())) }
                        }
                    }
                }
            }
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

fn of(part: u64, whole: u64) -> Markup {
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
    list: &Ordered<ElementFigure>,
    divide: Option<&dyn Fn(&str) -> String>,
) -> Markup {
    let notes = |e: &ElementFigure| {
        let mut notes: Vec<String> =
            e.flags.iter().map(|flag| flag_text(&view.catalogue, flag, view.lang)).collect();
        if e.not_applicable > 0 {
            notes.push(format!("{} {}", view.tr("不适用", "not applicable"), e.not_applicable));
        }
        if let Some(area) = &e.area {
            notes.push(format!("{} {area}", view.tr("辖区数据", "figure of the area")));
        }
        notes.join(view.tr("；", "; "))
    };
    html! {
        h2 id="elements" { (view.tr("数据", "Figures")) }
        @if list.0.is_empty() {
            p.none { (view.tr("本期没有应报的数据元", "Nothing is asked of this place in this period")) }
        } @else {
            table.list {
                thead { tr {
                    th { (view.tr("数据元", "Element")) }
                    th.n { (view.tr("数值", "Value")) } th { (view.tr("单位", "Unit")) }
                    th.n { (view.tr("报表 / 应报", "Reports / expected")) }
                    th.n { (view.tr("机构 / 应报机构", "Facilities / expected")) }
                    th { (view.tr("说明", "Notes")) }
                } }
                tbody {
                    @for (code, e) in &list.0 {
                        tr {
                            td {
                                @match divide {
                                    Some(link) => a href=(link(code)) { (view.element_name(code)) },
                                    None => (view.element_name(code)),
                                }
                                " " span.code { (code) }
                            }
                            td.n { (value(view, e)) } td.nowrap { (view.unit_text(&e.unit)) }
                            td.n { (of(e.reports, e.expected)) } td.n { (of(e.facilities, e.facilities_expected)) }
                            td.dim { (notes(e)) }
                        }
                    }
                }
            }
        }
    }
}

/// The parts of a place, each with its completeness and one element.
pub(super) fn parts(view: &View<'_>, parts: &[Part], period: &str, shown: Option<&str>) -> Markup {
    html! {
        table.list {
            thead { tr {
                th { (view.tr("名称", "Name")) } th { (view.tr("类型", "What")) }
                th.n { (view.tr("应报", "Expected")) } th.n { (view.tr("按时", "On time")) } th.n { (view.tr("迟报", "Late")) }
                th.n { (view.tr("未到期", "Not yet due")) } th.n { (view.tr("缺报", "Missing")) } th.n { (view.tr("上报率", "Reported")) }
                @if let Some(element) = shown {
                    th.n { (view.element_name(element)) } th.n { (view.tr("报表 / 应报", "Reports / expected")) }
                }
            } }
            tbody {
                @for part in parts {
                    tr {
                        td { a href=(view.place_url(&part.code, Some(period))) { (part.name) } " " span.code { (part.code) } }
                        td { (part.what.join(" · ")) }
                        @match &part.completeness {
                            Some(c) => {
                                td.n { (grouped(c.expected)) } td.n { (grouped(c.on_time)) } td.n { (grouped(c.late)) }
                                td.n { (grouped(c.not_yet_due)) } td.n.bad[c.missing > 0] { (grouped(c.missing)) }
                                td.n { (percent(c.received, c.expected).unwrap_or_else(|| "–".to_owned())) }
                            }
                            None => td.dim colspan="6" { (view.tr("本期无应报报表", "nothing is due of it in this period")) },
                        }
                        @if shown.is_some() {
                            @match &part.figure {
                                Some(e) => { td.n { (value(view, e)) } td.n { (of(e.reports, e.expected)) } }
                                None => { td.n { "–" } td.n { "–" } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// How the networks' sum leads to the administrative total.
pub(super) fn reconciliation(view: &View<'_>, element: &str, r: &ReconciliationFigure) -> Markup {
    let line = |sign: &str, text: &str, a: &AddendFigure| {
        html! { tr { td { (sign) " " (text) } td.n { (grouped(a.value)) } td.n { (grouped(a.facilities)) } } }
    };
    let none = AddendFigure { facilities: r.in_none.facilities, value: r.in_none.value };
    html! {
        h2 { (view.tr("与行政合计对账", "Reconciliation to the administrative total")) " " small { (view.element_name(element)) } }
        table {
            thead { tr { th {} th.n { (view.tr("数值", "Value")) } th.n { (view.tr("机构", "Facilities")) } } }
            tbody {
                (line("", view.tr("各网络之和", "sum of the networks"), &r.sum_of_groups))
                (line("−", view.tr("重复计入", "counted more than once"), &r.more_than_once))
                (line("−", view.tr("辖区以外", "outside the area"), &r.outside_area))
                (line("+", view.tr("未入任何网络", "in none of them"), &none))
                @for (kind, a) in &r.in_none.by_kind.0 {
                    tr.dim { td { "      " (view.kind_name(kind)) } td.n { (grouped(a.value)) } td.n { (grouped(a.facilities)) } }
                }
                (line("=", view.tr("行政合计", "administrative total"), &r.administrative_total))
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
