//! The figures a place is looked at for, with target, attainment and trend; and the table of all indicators.
//!
//! Which come first is said by the figures themselves, so that any catalogue gives a page: those with a
//! target, then those meant for this level, in the catalogue's order. Without indicators elements take
//! their place.

use std::sync::Arc;

use banyan_shared::catalogue::Lang;
use banyan_shared::catalogue::indicator::Level;
use banyan_shared::figures::State;
use banyan_shared::organisation::Found;
use banyan_shared::period::{Period, PeriodType, Span};
use maud::{Markup, html};

use super::chart::{self, Point};
use super::words::{share, short};
use super::{Problem, View};
use crate::query::{ElementFigure, Figures, IndicatorFigure, QueryAnswer, Row, grouped};

/// How many figures come first.
const HEADLINES_MAX: usize = 8;
/// How many months a trend shows.
const TREND_MONTHS: i32 = 13;

/// A figure that comes first.
enum Headline<'a> {
    Indicator(&'a str, &'a IndicatorFigure),
    Element(&'a str, &'a ElementFigure),
}

/// Whether an indicator says something here.
fn is_told(figure: &IndicatorFigure) -> bool {
    match figure.state {
        State::NotShownHere => false,
        State::NotApplicable => figure.is_undefined(),
        _ => true,
    }
}

fn has_target(figure: &IndicatorFigure) -> bool {
    figure.low().is_some() || figure.high().is_some() || figure.bound().is_some()
}

/// Whether the catalogue names this level for the indicator.
fn is_of_level(view: &View<'_>, code: &str, found: Found, span: Span) -> bool {
    let day = view.map_day().unwrap_or(span.last_day());
    let level = match found {
        Found::Unit(_) if view.is_reporter(found) => Level::Facility,
        Found::Unit(unit) => Level::Unit(view.organisation.kind_on(unit, day)),
        Found::Network(network) => Level::Network(view.organisation.network_info(network).kind),
    };
    view.indicator(code).is_some_and(|model| model.levels.contains(&level))
}

/// What comes first.
fn chosen<'a>(view: &View<'_>, found: Found, span: Span, row: &'a Row) -> Vec<Headline<'a>> {
    let mut ranked: Vec<(u8, Headline<'a>)> = row
        .indicators
        .iter()
        .filter(|(_, figure)| is_told(figure))
        .map(|(code, figure)| {
            let rank = match (has_target(figure), is_of_level(view, code, found, span)) {
                (true, _) => 0,
                (false, true) => 1,
                (false, false) => 2,
            };
            (rank, Headline::Indicator(code, figure))
        })
        .collect();
    // Of a single facility counts say more than what is computed for every place alike.
    ranked.retain(|(rank, _)| *rank < 2 || !view.is_reporter(found));
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.truncate(HEADLINES_MAX);
    let mut list: Vec<Headline<'a>> = ranked.into_iter().map(|(_, one)| one).collect();
    if list.is_empty() {
        let told = |(_, e): &(&str, &ElementFigure)| e.state != State::NotApplicable;
        let elements = row.elements.iter().filter(told).take(HEADLINES_MAX);
        list.extend(elements.map(|(code, figure)| Headline::Element(code, figure)));
    }
    list
}

/// The months that lead up to the end of a span.
fn trend_span(view: &View<'_>, span: Span) -> Option<Span> {
    let last = Period::containing(PeriodType::Month, span.last_day().min(view.today));
    Span::new(last.plus(1 - TREND_MONTHS), last)
}

/// The months of a trend, one row each, of the figures that come first: one question for all.
fn months(
    view: &View<'_>,
    (found, place): (Found, &str),
    span: Span,
    list: &[Headline<'_>],
) -> Result<Vec<Arc<Row>>, Problem> {
    let Some(span) = trend_span(view, span) else { return Ok(Vec::new()) };
    // Its beginning may have been another's.
    if !view.allows(found, Some(span)) {
        return Ok(Vec::new());
    }
    let mut call = view.question(place, &span.to_string());
    call.by = vec![PeriodType::Month.name().to_owned()];
    for headline in list {
        match headline {
            Headline::Indicator(code, _) => call.indicator.push((*code).to_owned()),
            Headline::Element(code, _) => call.element.push((*code).to_owned()),
        }
    }
    if list.is_empty() {
        return Ok(Vec::new());
    }
    Ok(view.service.figures(&call).map_err(Problem::request)?.rows)
}

fn points(
    view: &View<'_>,
    headline: &Headline<'_>,
    months: &[Arc<Row>],
    fresh: &Row,
) -> Vec<Point> {
    let point = |row: &Arc<Row>| {
        let row = if row.key.period == fresh.key.period { fresh } else { row };
        let (value, text) = match headline {
            Headline::Indicator(code, _) => match row.indicators.get(code) {
                Some(figure) => (
                    figure.value,
                    figure.value.map_or_else(
                        || figure.state.text(view.lang).to_owned(),
                        |v| view.indicator_number(code, v),
                    ),
                ),
                None => (None, "—".to_owned()),
            },
            Headline::Element(code, _) => match row.elements.get(code) {
                Some(figure) => (
                    figure.value.map(|v| v as f64),
                    figure.value.map_or_else(|| figure.state.text(view.lang).to_owned(), grouped),
                ),
                None => (None, "—".to_owned()),
            },
        };
        Point { period: row.key.period.clone(), value, text }
    };
    months.iter().map(point).collect()
}

/// What comes first, as cards.
pub(super) fn cards(
    view: &View<'_>,
    found: Found,
    span: Span,
    answer: &QueryAnswer,
    link: &dyn Fn(&str) -> String,
) -> Markup {
    let Some(row) = answer.rows.first() else { return html! {} };
    let list = chosen(view, found, span, row);
    let months = months(view, (found, &answer.unit), span, &list);
    html! {
        @if !list.is_empty() {
            h2.first { (view.tr("重点指标", "Headline figures")) " " small {
                (view.tr("先列有目标值的指标；趋势为至本期的 13 个月", "those with a target first; trends over the 13 months up to the period"))
            } }
            // The figures stand without their trends; the question for them was answered.
            @if let Err(problem) = &months {
                p.none { (view.tr("无法给出趋势：", "No trends: ")) (problem.text) }
            }
            div.cards {
                @for headline in &list {
                    @let points = months.as_ref().ok().map(|months| points(view, headline, months, row));
                    @match headline {
                        Headline::Indicator(code, figure) => (indicator_card(view, code, figure, points.as_deref(), link)),
                        Headline::Element(code, figure) => (element_card(view, code, figure, points.as_deref(), link)),
                    }
                }
            }
        }
    }
}

/// A trend with its ends and its range in words; nothing where none could be made.
fn trend(view: &View<'_>, name: &str, points: Option<&[Point]>, targets: &[f64]) -> Markup {
    let Some(points) = points else { return html! {} };
    let known = || points.iter().filter(|p| p.value.is_some());
    let by =
        |a: &&Point, b: &&Point| a.value.partial_cmp(&b.value).unwrap_or(std::cmp::Ordering::Equal);
    let (low, high) = (known().min_by(by), known().max_by(by));
    html! {
        (chart::trend(name, points, targets))
        @if let (Some(first), Some(last), Some(low), Some(high)) = (points.first(), points.last(), low, high) {
            div.ends {
                span.from { (first.period) } span.to { (last.period) }
                span.range { @if low.text == high.text { (low.text) } @else { (low.text) " … " (high.text) } }
            }
        } @else {
            div.ends { span.dim { (view.tr("近 13 个月无数据", "no value in 13 months")) } }
        }
    }
}

/// Whether a target is met, as words and a mark that needs no colour.
fn attainment(view: &View<'_>, code: &str, figure: &IndicatorFigure) -> Markup {
    let pace = figure
        .pace()
        .map(|pace| view.with_unit(&view.indicator_number(code, pace), &figure.item.unit));
    html! {
        @match figure.met {
            Some(true) => span.good { "√ " (view.tr("达标", "met")) },
            Some(false) => span.bad { "× " (view.tr("未达标", "not met")) },
            None => {},
        }
        @if let Some(pace) = pace {
            span.dim { " " (view.tr("（按进度应达 ", "(by now it should be ")) (pace) (view.tr("）", ")")) }
        }
    }
}

/// The target, where it comes from and how far it can be relied on.
fn target(view: &View<'_>, figure: &IndicatorFigure) -> Markup {
    let applies = figure.target.as_deref();
    html! {
        @match view.target(figure) {
            Some(target) => {
                (target)
                @if let Some(applies) = applies {
                    span.dim title=(*applies.source) { (view.tr("（", " (")) (view.target_status(applies.status)) (view.tr("）", ")")) }
                }
            }
            None => span.dim { (view.tr("无目标值 · ", "none · ")) (view.direction(figure.direction)) },
        }
    }
}

fn coverage(view: &View<'_>, figure: &IndicatorFigure) -> Markup {
    let c = &figure.coverage;
    html! {
        @if c.expected > 0 {
            span class=[(c.matched < c.expected).then_some("part")] { (grouped(c.matched)) " / " (grouped(c.expected)) }
            @if let Some(usual) = c.share_of_usual {
                " " span.dim { (view.tr("占平时 ", "of usual ")) (share(usual)) }
            }
        } @else { span.dim { "–" } }
    }
}

fn notes(view: &View<'_>, figure: &IndicatorFigure) -> String {
    let mut notes = view.flags(figure.flags());
    notes.extend(view.area_note(figure.area()));
    notes.join(view.tr("；", "; "))
}

fn indicator_card(
    view: &View<'_>,
    code: &str,
    figure: &IndicatorFigure,
    points: Option<&[Point]>,
    link: &dyn Fn(&str) -> String,
) -> Markup {
    let name = view.indicator_name(code);
    let class = match figure.met {
        Some(true) => "card met",
        Some(false) => "card unmet",
        None => "card",
    };
    let notes = notes(view, figure);
    let targets: Vec<f64> = figure.low().into_iter().chain(figure.high()).collect();
    html! {
        div class=(class) { div.box {
            h3 { a href=(link(code)) title=(code) { (name) } }
            div.value {
                @match figure.value {
                    Some(value) => { b { (view.indicator_number(code, value)) } " " small { (view.unit_text(&figure.item.unit)) } }
                    None => b.none { "—" },
                }
                span.verdict { (attainment(view, code, figure)) }
            }
            @if let Some(reason) = view.indicator_reason(code, figure) { div.why { (reason) } }
            div.line { @if has_target(figure) || view.lang == Lang::En { span.dim { (view.tr("目标 ", "Target ")) } } (target(view, figure)) }
            (trend(view, name, points, &targets))
            div.line { span.dim { (view.tr("覆盖 ", "Coverage ")) } (coverage(view, figure)) }
            @if !notes.is_empty() { div.line.dim { (notes) } }
        } }
    }
}

fn element_card(
    view: &View<'_>,
    code: &str,
    figure: &ElementFigure,
    points: Option<&[Point]>,
    link: &dyn Fn(&str) -> String,
) -> Markup {
    let name = view.element_name(code);
    let notes = view.flags(figure.flags()).join(view.tr("；", "; "));
    html! {
        div.card { div.box {
            h3 { a href=(link(code)) title=(code) { (name) } }
            div.value {
                @match figure.value {
                    Some(value) => { b { (grouped(value)) } " " small { (view.unit_text(&figure.item.unit)) } }
                    None => b.none { "—" },
                }
            }
            @if let Some(reason) = view.element_reason(figure) { div.why { (reason) } }
            (trend(view, name, points, &[]))
            div.line { span.dim { (view.tr("报表 ", "Reports ")) } (super::tables::of(figure.reports, figure.expected)) }
            @if !notes.is_empty() { div.line.dim { (notes) } }
        } }
    }
}

/// Every indicator: value or reason, target, attainment, what it is made of and what it covers.
pub(super) fn table(
    view: &View<'_>,
    list: &Figures<IndicatorFigure>,
    divide: Option<&dyn Fn(&str) -> String>,
) -> Markup {
    let quiet = |figure: &IndicatorFigure| !is_told(figure);
    let (silent, told): (Vec<_>, Vec<_>) = list.iter().partition(|(_, figure)| quiet(figure));
    let parts = |figure: &IndicatorFigure| -> Option<String> {
        let over = short(figure.numerator?);
        Some(match figure.denominator {
            Some(under) => format!("{over} / {}", short(under)),
            None => over,
        })
    };
    html! {
        @if !list.is_empty() {
            h2 id="indicators" { (view.tr("全部指标", "All indicators")) " " small { (told.len()) } }
            div.wide { table.list {
                thead { tr {
                    th scope="col" { (view.tr("指标", "Indicator")) }
                    th.n scope="col" { (view.tr("数值", "Value")) }
                    th scope="col" { (view.tr("目标", "Target")) }
                    th scope="col" { (view.tr("达标", "Attainment")) }
                    th.n scope="col" { (view.tr("分子 / 分母", "Numerator / denominator")) }
                    th.n scope="col" { (view.tr("覆盖（可用 / 应有）", "Coverage (usable / expected)")) }
                    th scope="col" { (view.tr("说明", "Notes")) }
                } }
                tbody {
                    @for (code, figure) in &told {
                        @let notes = notes(view, figure);
                        tr {
                            td title=(code) {
                                @match divide {
                                    Some(link) => a href=(link(code)) { (view.indicator_name(code)) },
                                    None => (view.indicator_name(code)),
                                }
                            }
                            td.n {
                                @match figure.value {
                                    Some(value) => { span.big { (view.indicator_number(code, value)) } " " small { (view.unit_text(&figure.item.unit)) } }
                                    None => span.none { "—" },
                                }
                            }
                            td.nowrap { (target(view, figure)) }
                            td.nowrap { (attainment(view, code, figure)) }
                            td.n { @if let Some(text) = parts(figure) { (text) } @else { span.dim { "–" } } }
                            td.n { (coverage(view, figure)) }
                            td {
                                @if let Some(reason) = view.indicator_reason(code, figure) { span.none { (reason) } " " }
                                span.dim { (notes) }
                            }
                        }
                    }
                }
            } }
            @if !silent.is_empty() {
                p.dim {
                    (view.tr("本级不显示或不适用：", "Not shown at this level or not applicable: "))
                    @for (at, (code, figure)) in silent.iter().enumerate() {
                        @if at > 0 { (view.tr("、", ", ")) }
                        span title=[view.indicator_reason(code, figure)] { (view.indicator_name(code)) }
                    }
                }
            }
        }
    }
}
