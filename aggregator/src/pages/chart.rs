//! Small charts as SVG, drawn by plotters: the trend of a figure, and the parts of a whole.
//!
//! Promises that a chart holds no text of its own (the page's own fonts and words stand around it), nothing
//! to run or load, that it says in words what it shows, and that its colours differ for those who do not see
//! some colours, and in print. A stretch without a value is a gap, never a zero.

use maud::{Markup, PreEscaped, html};
use plotters::coord::Shift;
use plotters::prelude::*;

/// A trend's size; it is drawn as wide as its place.
const TREND_SIZE: (u32, u32) = (300, 64);
/// A bar's size; it is stretched to its place.
const BAR_SIZE: (u32, u32) = (1000, 10);
/// Room above and below a line, as a share of its range.
const ROOM: f64 = 0.12;

/// Values, and what is on time.
pub(super) const BLUE: RGBColor = RGBColor(0, 114, 178);
/// Late.
pub(super) const AMBER: RGBColor = RGBColor(230, 159, 0);
/// Not yet due.
pub(super) const GREY: RGBColor = RGBColor(187, 187, 187);
/// Missing, and targets.
pub(super) const VERMILION: RGBColor = RGBColor(213, 94, 0);

/// One stretch of time in a trend.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Point {
    /// The period.
    pub(super) period: String,
    /// The value, if there is one.
    pub(super) value: Option<f64>,
    /// The value in words, or why there is none.
    pub(super) text: String,
}

/// What plotters drew, without the element around it: the page's own carries what it shows in words.
fn drawn(
    size: (u32, u32),
    draw: impl FnOnce(
        &DrawingArea<SVGBackend<'_>, Shift>,
    ) -> Result<(), DrawingAreaErrorKind<std::io::Error>>,
) -> Option<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        draw(&area).and_then(|()| area.present()).ok()?;
    }
    let from = svg.find('>')? + 1;
    let to = svg.rfind("</svg>")?;
    // A mark of full strength needs no opacity, and lines end no text.
    Some(svg.get(from..to)?.replace(" opacity=\"1\"", "").replace('\n', ""))
}

/// The values of a figure over time as a line, the bounds of its target as dashed ones; nothing where there
/// is no value.
pub(super) fn trend(label: &str, points: &[Point], targets: &[f64]) -> Markup {
    let known = || points.iter().filter_map(|p| p.value).filter(|v| v.is_finite());
    let bounds =
        known().chain(targets.iter().copied()).fold(None, |bounds: Option<(f64, f64)>, v| {
            let (low, high) = bounds.unwrap_or((v, v));
            Some((low.min(v), high.max(v)))
        });
    let Some((low, high)) = bounds.filter(|_| known().next().is_some()) else { return html! {} };
    let room = if high > low { (high - low) * ROOM } else { high.abs().max(1.0) * ROOM };
    let last = points.len().saturating_sub(1);
    let place = |at: usize| f64::from(u32::try_from(at).unwrap_or(u32::MAX));
    let lines = drawn(TREND_SIZE, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(4)
            .build_cartesian_2d(0.0..place(last.max(1)), low - room..high + room)?;
        for target in targets {
            let line = [(0.0, *target), (place(last.max(1)), *target)];
            chart.draw_series(LineSeries::new(line, VERMILION.stroke_width(1)))?;
        }
        for run in runs(points) {
            let line = run.clone().filter_map(|at| Some((place(at), points[at].value?)));
            if run.len() > 1 {
                chart.draw_series(LineSeries::new(line, BLUE.stroke_width(2)))?;
            } else {
                chart.draw_series(line.map(|dot| Circle::new(dot, 2, BLUE.filled())))?;
            }
        }
        let end = points.last().and_then(|p| Some((place(last), p.value?)));
        chart.draw_series(end.map(|dot| Circle::new(dot, 4, BLUE.filled())))?;
        Ok(())
    });
    let Some(lines) = lines else { return html! {} };
    let words: Vec<String> = points.iter().map(|p| format!("{} {}", p.period, p.text)).collect();
    let (width, height) = TREND_SIZE;
    html! {
        svg.trend role="img" viewBox=(format!("0 0 {width} {height}")) preserveAspectRatio="none" {
            title { (label) ": " (words.join("; ")) }
            (PreEscaped(lines))
        }
    }
}

/// The stretches of points that follow each other and have a value.
fn runs(points: &[Point]) -> Vec<std::ops::Range<usize>> {
    let mut out: Vec<std::ops::Range<usize>> = Vec::new();
    for (at, point) in points.iter().enumerate() {
        if point.value.is_none_or(|v| !v.is_finite()) {
            continue;
        }
        match out.last_mut() {
            Some(run) if run.end == at => run.end = at + 1,
            _ => out.push(at..at + 1),
        }
    }
    out
}

/// The parts of a whole, side by side; nothing of an empty whole.
pub(super) fn bar(label: &str, parts: &[(u64, RGBColor)]) -> Markup {
    let whole: u128 = parts.iter().map(|(n, _)| u128::from(*n)).sum();
    if whole == 0 {
        return html! {};
    }
    let (width, height) = BAR_SIZE;
    let place = |n: u128| i32::try_from(n * u128::from(width) / whole).unwrap_or(i32::MAX);
    let bottom = i32::try_from(height).unwrap_or(i32::MAX);
    let rectangles = drawn(BAR_SIZE, |area| {
        let mut before = 0_u128;
        for (n, colour) in parts.iter().filter(|(n, _)| *n > 0) {
            let (from, to) = (place(before), place(before + u128::from(*n)));
            before += u128::from(*n);
            // A part too small to see is a hair's breadth, not nothing.
            let corners = [(from.min(place(whole) - 2), 0), (to.max(from + 2), bottom)];
            area.draw(&Rectangle::new(corners, colour.filled()))?;
        }
        Ok(())
    });
    let Some(rectangles) = rectangles else { return html! {} };
    html! {
        svg.bar role="img" viewBox=(format!("0 0 {width} {height}")) preserveAspectRatio="none" {
            title { (label) }
            (PreEscaped(rectangles))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: &[Option<f64>]) -> Vec<Point> {
        let point = |(at, value): (usize, &Option<f64>)| Point {
            period: format!("2026-{:02}", at + 1),
            value: *value,
            text: value.map_or("—".to_owned(), |v| v.to_string()),
        };
        values.iter().enumerate().map(point).collect()
    }

    #[test]
    fn a_gap_is_a_gap_and_the_target_a_line_of_its_own() {
        let list = points(&[Some(1.0), Some(2.0), None, Some(4.0), None, Some(3.0), Some(0.0)]);
        assert_eq!(runs(&list), [0..2, 3..4, 5..7]);
        let svg = trend("x<y", &list, &[2.5]).into_string();
        assert_eq!(svg.matches("<polyline").count(), 3, "{svg}");
        assert_eq!(svg.matches("#D55E00").count(), 1, "{svg}");
        assert_eq!(svg.matches("<circle").count(), 2, "{svg}");
        assert!(svg.contains("x&lt;y") && svg.contains("2026-03 —"), "{svg}");
        for foreign in ["http", "font", "<text", "<script", "href"] {
            assert!(!svg.contains(foreign), "{foreign} in {svg}");
        }
        assert!(svg.len() < 1200, "{}", svg.len());
    }

    #[test]
    fn without_a_value_there_is_no_chart() {
        assert_eq!(trend("x", &points(&[None, None]), &[1.0]).into_string(), "");
        assert_eq!(trend("x", &points(&[Some(f64::NAN)]), &[]).into_string(), "");
        assert_eq!(trend("x", &[], &[]).into_string(), "");
        assert!(trend("x", &points(&[Some(5.0)]), &[]).into_string().contains("<circle"));
        assert_eq!(bar("x", &[(0, BLUE)]).into_string(), "");
    }

    #[test]
    fn the_parts_of_a_bar_fill_it_and_the_smallest_can_be_seen() {
        let svg = bar("x", &[(999_999, BLUE), (0, AMBER), (1, VERMILION)]).into_string();
        assert_eq!(svg.matches("<rect").count(), 2, "{svg}");
        assert!(svg.contains("x=\"998\" y=\"0\" width=\"2\""), "{svg}");
        let most = bar("x", &[(u64::MAX, BLUE), (u64::MAX, AMBER)]).into_string();
        assert!(most.contains("x=\"500\" y=\"0\" width=\"500\""), "{most}");
    }
}
