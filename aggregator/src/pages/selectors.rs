//! What a page can be turned to: another period, another map, another moment.

use banyan_shared::catalogue::{Catalogue, Lang};
use banyan_shared::ids::Millis;
use banyan_shared::period::{Date, Period, PeriodType, Span};
use maud::{Markup, html};

use super::{Params, View};
use crate::query::{Membership, QueryError};

/// What cannot be read of a selector.
pub(super) enum Wrong {
    /// The map.
    Map(QueryError),
    /// The moment.
    Moment(String),
}

impl Wrong {
    /// The reason and what to write instead.
    pub(super) fn text(&self, lang: Lang) -> String {
        match (self, lang) {
            (Wrong::Map(error), lang) => error.text(lang),
            (Wrong::Moment(text), Lang::Zh) => {
                format!("“{text}”不是时刻：请写 2026-02-10 或 2026-02-10 09:00")
            }
            (Wrong::Moment(text), Lang::En) => {
                format!("{text:?} is no moment: write 2026-02-10 or 2026-02-10 09:00")
            }
        }
    }
}

fn given(text: Option<&String>) -> Option<&str> {
    text.map(|text| text.trim()).filter(|text| !text.is_empty())
}

/// The map asked for. The form sends `date` with the day beside it; links send the date itself.
pub(super) fn membership(params: &Params) -> Result<Membership, Wrong> {
    let text = match given(params.map.as_ref()) {
        None => return Ok(Membership::default()),
        Some("date") => given(params.day.as_ref()).unwrap_or("date"),
        Some(text) => text,
    };
    text.parse().map_err(Wrong::Map)
}

/// The moment asked for: in full, or a day (its end) or a day and a time in the catalogue's zone.
pub(super) fn moment(params: &Params, catalogue: &Catalogue) -> Result<Option<Millis>, Wrong> {
    let Some(text) = given(params.as_of.as_ref()) else { return Ok(None) };
    if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        return Ok(Some(moment.into()));
    }
    let wrong = || Wrong::Moment(text.to_owned());
    let (day, time) = match text.split_once(['T', ' ']) {
        Some((day, time)) => (day, Some(time)),
        None => (text, None),
    };
    let day: Date = day.parse().map_err(|_| wrong())?;
    let Some(time) = time else { return Ok(Some(catalogue.due_at(day, 23, 59))) };
    let (hour, minute) = time.trim().split_once(':').ok_or_else(wrong)?;
    let part = |text: &str, below: u8| {
        text.parse::<u8>().ok().filter(|n| text.len() <= 2 && *n < below).ok_or_else(wrong)
    };
    Ok(Some(catalogue.moment(day, part(hour, 24)?, part(minute, 60)?)))
}

/// A moment in the catalogue's zone, as links carry it.
pub(super) fn moment_text(catalogue: &Catalogue, at: Millis) -> String {
    let local = at.timestamp().to_zoned(catalogue.time_zone.clone());
    local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

/// A span of months from January on, in one year.
fn is_year_to_date(span: Span) -> bool {
    let (first, last) = (span.first_day(), span.last_day());
    span.single().is_none()
        && span.kind() == PeriodType::Month
        && first.ymd().0 == last.ymd().0
        && first.ymd().1 == 1
}

/// From January to the month that holds `day`.
fn year_to_date(day: Date) -> Option<Span> {
    let (year, month, _) = day.ymd();
    Span::new(Period::month(year, 1)?, Period::month(year, month)?)
}

/// The span `n` steps on: for a year to date its last month moves, for another range nothing.
fn moved(span: Span, n: i32) -> Option<Span> {
    if let Some(period) = span.single() {
        return Some(Span::of(period.plus(n)));
    }
    let last = Period::containing(PeriodType::Month, span.last_day());
    is_year_to_date(span).then(|| year_to_date(last.plus(n).last_day())).flatten()
}

fn name_of(view: &View<'_>, kind: PeriodType) -> &'static str {
    let zh = view.lang == Lang::Zh;
    match kind {
        PeriodType::Day => {
            if zh {
                "日"
            } else {
                "Day"
            }
        }
        PeriodType::Week => {
            if zh {
                "周"
            } else {
                "Week"
            }
        }
        PeriodType::Month => {
            if zh {
                "月"
            } else {
                "Month"
            }
        }
        PeriodType::Quarter => {
            if zh {
                "季"
            } else {
                "Quarter"
            }
        }
        PeriodType::Half => {
            if zh {
                "半年"
            } else {
                "Half-year"
            }
        }
        PeriodType::Year => {
            if zh {
                "年"
            } else {
                "Year"
            }
        }
    }
}

/// The line of selectors. `link` gives this page's address for a period; `hidden` is kept by the form.
pub(super) fn line(
    view: &View<'_>,
    span: Span,
    action: &str,
    hidden: &[(&str, Option<&str>)],
    link: impl Fn(&str) -> String,
) -> Markup {
    let step = |n: i32| moved(span, n).filter(|s| s.first_day() <= view.today);
    let day = span.last_day().min(view.today);
    let wide = [PeriodType::Month, PeriodType::Quarter, PeriodType::Half, PeriodType::Year];
    let ytd = year_to_date(day).filter(|s| s.single().is_none());
    let map_day = view.map_day().unwrap_or(span.last_day().min(view.today)).to_string();
    let as_of = view.as_of_text().unwrap_or_default();
    let as_of = super::tables::moment(&as_of);
    let map = view.membership;
    html! {
        div.selectors {
            div.periods {
                @if let Some(before) = step(-1) {
                    a rel="prev" href=(link(&before.to_string())) { "← " (before) }
                }
                b { (span) }
                @if let Some(after) = step(1) {
                    a rel="next" href=(link(&after.to_string())) { (after) " →" }
                }
                span.kinds {
                    @for kind in wide {
                        @let period = Period::containing(kind, day);
                        @if span.single() == Some(period) { b { (name_of(view, kind)) } }
                        @else { a href=(link(&period.to_string())) title=(period) { (name_of(view, kind)) } }
                    }
                    @if let Some(ytd) = ytd {
                        @if is_year_to_date(span) { b { (view.tr("本年累计", "Year to date")) } }
                        @else { a href=(link(&ytd.to_string())) title=(ytd) { (view.tr("本年累计", "Year to date")) } }
                    }
                }
            }
            form action=(action) method="get" {
                @for (name, value) in hidden {
                    @if let Some(value) = value { input type="hidden" name=(name) value=(value); }
                }
                @if view.lang == Lang::En { input type="hidden" name="lang" value="en"; }
                label { (view.tr("统计期", "Period")) " "
                    input type="text" name="period" size="16" maxlength="30" value=(span) title="2026-01  2026Q1  2026  2026-01..2026-03";
                }
                label { (view.tr("归属", "Map")) " "
                    select name="map" {
                        option value="as_it_was" selected[map == Membership::AsItWas] { (view.tr("按当时归属", "as it was then")) }
                        option value="today" selected[map == Membership::Today] { (view.tr("按今天归属", "as it is today")) }
                        option value="date" selected[matches!(map, Membership::On(_))] { (view.tr("按某日归属 →", "as on a day →")) }
                    }
                    " "
                    input type="text" name="day" size="10" maxlength="10" value=(map_day) title=(view.tr("归属日期，例如 2026-01-31", "the map's day, like 2026-01-31"));
                }
                label { (view.tr("截至所知", "As known at")) " "
                    input type="text" name="as_of" size="15" maxlength="32" value=(as_of) placeholder=(view.tr("现在", "now")) title=(view.tr("例如 2026-02-10 或 2026-02-10 09:00；留空为现在", "like 2026-02-10 or 2026-02-10 09:00; empty for now"));
                }
                button type="submit" { (view.tr("查看", "Show")) }
            }
        }
    }
}

/// What is unusual about the map and the moment of this page, and the way back.
pub(super) fn notice(view: &View<'_>, usual: &str) -> Markup {
    let mut parts = Vec::new();
    if let Some(day) = view.map_day() {
        parts.push(match view.lang {
            Lang::Zh => format!("各期数据按 {day} 的归属统计"),
            Lang::En => format!("every period is counted on the map of {day}"),
        });
    }
    if let Some(at) = view.as_of_text() {
        let at = super::tables::moment(&at);
        parts.push(match view.lang {
            Lang::Zh => format!("只用 {at} 之前已收到的数据"),
            Lang::En => format!("only what had come in by {at} is used"),
        });
    }
    html! {
        @if !parts.is_empty() {
            p.note { (parts.join(view.tr("；", "; "))) " · " a href=(usual) { (view.tr("恢复默认", "back to the usual")) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str) -> Span {
        text.parse().unwrap()
    }

    #[test]
    fn periods_move_by_themselves_and_a_year_to_date_by_its_last_month() {
        let to = |text: &str, n: i32| moved(span(text), n).map(|s| s.to_string());
        assert_eq!(to("2026-01", -1).as_deref(), Some("2025-12"));
        assert_eq!(to("2026Q4", 1).as_deref(), Some("2027Q1"));
        assert_eq!(to("2026-01..2026-03", 1).as_deref(), Some("2026-01..2026-04"));
        assert_eq!(to("2026-01..2026-02", -1).as_deref(), Some("2026-01"));
        assert_eq!(to("2026-02..2026-03", 1), None);
        assert!(is_year_to_date(span("2026-01..2026-03")));
        assert!(!is_year_to_date(span("2025-01..2026-03")) && !is_year_to_date(span("2026-01")));
    }

    #[test]
    fn the_map_and_the_moment_are_read_from_form_and_link_alike() {
        let map = |map: &str, day: &str| {
            let params = Params {
                map: Some(map.to_owned()),
                day: Some(day.to_owned()),
                ..Params::default()
            };
            membership(&params).ok()
        };
        let day = Membership::On("2026-01-31".parse().unwrap());
        assert_eq!(map("", "2026-01-31"), Some(Membership::AsItWas));
        assert_eq!(map("as_it_was", "2026-01-31"), Some(Membership::AsItWas));
        assert_eq!(map("today", ""), Some(Membership::Today));
        assert_eq!(map("date", " 2026-01-31 "), Some(day));
        assert_eq!(map("2026-01-31", ""), Some(day));
        assert_eq!(map("date", "2026-02-31"), None);
        assert_eq!(map("date", ""), None);

        let catalogue = crate::query::fixture::catalogue();
        let at = |text: &str| {
            let params = Params { as_of: Some(text.to_owned()), ..Params::default() };
            moment(&params, &catalogue).ok().flatten().map(|at| moment_text(&catalogue, at))
        };
        assert_eq!(at("2026-02-10 9:05").as_deref(), Some("2026-02-10T09:05:00+08:00"));
        assert_eq!(at("2026-02-10").as_deref(), Some("2026-02-10T23:59:59+08:00"));
        let full = "2026-02-10T09:00:00+08:00";
        assert_eq!(at(full).as_deref(), Some(full));
        for wrong in ["2026-02-31", "2026-02-10 24:00", "2026-02-10 9", "x", "2026-02-10 1:1:1"] {
            assert_eq!(at(wrong), None, "{wrong}");
        }
        assert_eq!(at(" "), None);
    }
}
