//! The trace of a number: one report, its values, its versions, who and when.

use banyan_shared::figures::State;
use banyan_shared::organisation::Found;
use banyan_shared::period::{Period, Span};
use banyan_shared::report::{How, Override, Reason};
use maud::{Markup, html};

use super::place::status;
use super::tables::moment;
use super::{Page, Problem, View, fitted, layout, selectors};
use crate::query::{
    BrokenRow, Trace, TraceValue, TraceVersion, broken_text, decision_text, grouped, restated_text,
    stage_text,
};
use crate::service::ReportCall;

pub(super) fn page(
    view: &View<'_>,
    facility: &str,
    form: &str,
    period: &str,
) -> Result<Page, Problem> {
    let day = period.parse::<Period>().map_or(view.today, Period::last_day);
    let found = view.find(facility, day)?;
    view.allow(found, period.parse().ok().map(Span::of))?;
    view.note_read(&format!("{} {form} {period}", view.code(found)))?;
    let trace = view
        .service
        .trace(&ReportCall {
            facility: view.code(found),
            form: form.to_owned(),
            period: period.to_owned(),
            history: true,
            as_of: view.as_of_text(),
            lang: view.lang,
            ..ReportCall::default()
        })
        .map_err(Problem::request)?;
    fitted(view, |rows| Ok(render(view, found, &trace, rows)))
}

fn value(value: &TraceValue) -> String {
    match value {
        TraceValue::Number(n) => grouped(*n),
        TraceValue::NotApplicable(_) => "NA".to_owned(),
        TraceValue::Missing(_) => "—".to_owned(),
    }
}

fn render(view: &View<'_>, found: Found, trace: &Trace, rows: usize) -> Markup {
    let period: Option<Period> = trace.period.parse().ok();
    let trail = view.trail(found, period.map_or(view.today, Period::last_day));
    let name = trail.last().map_or(trace.facility.as_str(), |(_, name)| name);
    let path = ["report", &trace.facility, &trace.form, &trace.period];
    let form_name = view.form_name(&trace.form);
    let near = |n| period.map(|period| period.plus(n));
    let link = |period: Period| {
        view.url(&["report", &trace.facility, &trace.form, &period.to_string()], &[])
    };
    let unit = |code: &str| {
        let model = view.catalogue.element(code).map(|ix| &view.catalogue.elements[ix.at()]);
        model.map_or("", |model| view.unit_text(&model.unit))
    };
    let window = layout::window(view, trace.history.len(), rows);
    let further = |from: usize| view.url(&path, &[("from", Some(&from.to_string()))]);
    let usual = view.usual_url(&path, &[]);
    let content = html! {
        (layout::trail(view, &trail, &trace.period))
        h1 { (form_name) " · " (trace.period) " " small { (name) " · " (trace.facility) " · " (trace.form) } }
        div.periods {
            @if let Some(p) = near(-1) { a rel="prev" href=(link(p)) { "← " (p) } }
            b { (trace.period) }
            @if let Some(p) = near(1).filter(|p| p.first_day() <= view.today) { a rel="next" href=(link(p)) { (p) " →" } }
        }
        (selectors::notice(view, &usual))
        table.facts {
            tr { th.label scope="row" { (view.tr("状态", "Status")) } td { (status(view, trace)) } }
            tr { th.label scope="row" { (view.tr("截止", "Due")) } td { (trace.due.as_deref().map_or("–".to_owned(), moment)) } }
            tr { th.label scope="row" { (view.tr("此后算迟报", "Late after")) } td { (trace.late_after.as_deref().map_or("–".to_owned(), moment)) } }
            tr { th.label scope="row" { (view.tr("收到", "Arrived")) } td {
                @match &trace.arrived {
                    Some(at) => (moment(at)),
                    None => span.none { (view.tr("尚无有效回报", "nothing that answers it")) },
                }
            } }
            tr { th.label scope="row" { (view.tr("审核", "Review")) } td { (review(view, trace)) } }
            tr { th.label scope="row" { (view.tr("版本", "Versions")) } td { (trace.versions)
                @if trace.heads > 1 { " · " span.bad { (trace.heads) " " (view.tr("个版本并存（冲突），待有人确认", "stand side by side (a conflict) until one replaces the others")) } }
            } }
        }
        h2 { (view.tr("计入的数值", "Values counted")) }
        @if trace.values.0.is_empty() {
            p.none { (view.tr("本报表没有要求该机构填报的内容", "This form asks nothing of this facility")) }
        } @else {
            table {
                thead { tr { th scope="col" { (view.tr("数据元", "Element")) } th.n scope="col" { (view.tr("数值", "Value")) } th scope="col" { (view.tr("单位", "Unit")) } } }
                tbody {
                    @for ((code, v), (_, state)) in trace.values.0.iter().zip(&trace.states.0) {
                        tr {
                            td title=(code) { (view.element_name(code)) }
                            td.n { @if *state == State::Reported { span.big { (value(v)) } } @else { span.none { "— " (state.text(view.lang)) } } }
                            td { (unit(code)) }
                        }
                    }
                }
            }
        }
        (broken(view, &trace.broken))
        h2 { (view.tr("各版本", "Every version")) " " small { (trace.history.len()) } }
        @if trace.history.is_empty() {
            p.none { (view.tr("没有收到过任何版本", "No version has ever come in")) }
        } @else {
            div.wide { table.list {
                thead { tr {
                    th scope="col" { (view.tr("版本", "Version")) } th scope="col" { (view.tr("录入", "Entered")) } th scope="col" { (view.tr("收到", "Received")) }
                    th scope="col" { (view.tr("说明", "Notes")) } th scope="col" { (view.tr("数值", "Values")) }
                } }
                tbody { @for v in &trace.history[window.clone()] { (version(view, v)) } }
            } }
            (layout::pager(view, window, trace.history.len(), further))
        }
        (decisions(view, trace))
    };
    let title = format!("{form_name} {} {}", trace.facility, trace.period);
    layout::frame(view, &title, &layout::other_lang(view, &path, &[]), content)
}

/// The rules broken, if any.
pub(super) fn broken(view: &View<'_>, rows: &[BrokenRow]) -> Markup {
    html! {
        @if !rows.is_empty() {
            h2 id="broken" { (view.tr("不符合审核规则", "Rules broken")) " " small { (rows.len()) } }
            ul.broken { @for row in rows {
                li { @if row.severity == "error" { span.bad { (broken_text(row, &view.catalogue, view.lang)) } }
                    @else { (broken_text(row, &view.catalogue, view.lang)) } }
            } }
        }
    }
}

/// How far its review has come, and what happened to it since.
fn review(view: &View<'_>, trace: &Trace) -> Markup {
    html! {
        (stage_text(&trace.stage, view.lang).unwrap_or(view.tr("未审核", "open")))
        @if trace.restated { " · " span.part { (restated_text(view.lang)) } }
        @if trace.returned {
            " · " span.bad { (view.tr("已退回，重新录入或批准后计入", "returned: counts once entered again or approved")) }
        }
    }
}

/// What was decided about the report, by whom and when.
fn decisions(view: &View<'_>, trace: &Trace) -> Markup {
    html! {
        @if !trace.decisions.is_empty() {
            h2 id="decisions" { (view.tr("各项决定", "Decisions")) " " small { (trace.decisions.len()) } }
            div.wide { table.list {
                thead { tr {
                    th scope="col" { (view.tr("决定", "Decision")) } th scope="col" { (view.tr("时刻", "When")) }
                    th scope="col" { (view.tr("决定人", "By")) } th scope="col" { (view.tr("范围", "For")) }
                    th scope="col" { (view.tr("原因", "Reason")) } th scope="col" { (view.tr("账本", "Ledger")) }
                } }
                tbody { @for one in &trace.decisions {
                    @let reason = one.reason.as_deref().and_then(Reason::from_code);
                    tr {
                        td.nowrap { (decision_text(&one.decision, view.lang)) } td.nowrap { (moment(&one.at)) } td { (one.by) }
                        td { @match &one.place {
                            Some(code) => a href=(view.place_url(code, Some(&trace.period))) title=(code) { (view.place_name(code)) },
                            None => span.dim { (view.tr("本报表", "this report")) },
                        } }
                        td { (reason.map_or("", |reason| reason.text(view.lang))) }
                        td { a href=(view.url(&["batch", &one.position.to_string()], &[])) { (one.position) } }
                    }
                } }
            } }
        }
    }
}

fn version(view: &View<'_>, v: &TraceVersion) -> Markup {
    let how = How::from_code(&v.how).map_or(v.how.as_str(), |how| how.text(view.lang));
    let reason = v.reason.as_deref().and_then(Reason::from_code);
    let forced = v.override_code.as_deref().and_then(Override::from_code);
    html! {
        tr {
            td { span.code { (v.version) } br; span.dim { (view.tr("终端 ", "agent ")) (v.writer) } }
            td {
                span.nowrap { (moment(&v.entered_at)) }
                @if v.entered_at_doubtful { " " span.part { (view.tr("（时钟存疑）", "(clock in doubt)")) } }
                br; span.dim { (how) @if let Some(by) = &v.entered_by { " · " (by) } }
            }
            td { span.nowrap { (moment(&v.received_at)) } br; a href=(view.url(&["batch", &v.position.to_string()], &[])) { (view.tr("账本第 ", "ledger ")) (v.position) (view.tr(" 位", "")) } }
            td {
                @if v.counted { span.good.nowrap { (view.tr("计入", "counted")) } " " }
                @if v.withdrawn { span.bad.nowrap { (view.tr("撤回", "withdrawn")) } " " }
                @if v.pending { span.part.nowrap { (view.tr("待批准", "awaits approval")) } " " }
                @if let Some(reason) = reason { (view.tr("原因：", "reason: ")) (reason.text(view.lang)) " " }
                @if let Some(forced) = forced { (view.tr("强制保存：", "saved against a rule: ")) (forced.text(view.lang)) " " }
                @for newer in &v.replaced_by { div.dim { (view.tr("被替代：", "replaced by ")) span.code { (newer) } } }
            }
            td {
                @for (at, (code, x)) in v.values.0.iter().enumerate() {
                    @if at > 0 { (view.tr("；", "; ")) }
                    span.nowrap { (view.element_name(code)) " " b { (value(x)) } }
                }
            }
        }
    }
}
