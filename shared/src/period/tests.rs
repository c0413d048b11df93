use proptest::prelude::*;

use super::*;

fn period(text: &str) -> Period {
    text.parse().unwrap()
}

#[test]
fn every_documented_form_reads() {
    for (text, shown, first, last) in [
        ("2026-01-31", "2026-01-31", "2026-01-31", "2026-01-31"),
        ("20260131", "2026-01-31", "2026-01-31", "2026-01-31"),
        ("2026W05", "2026W05", "2026-01-26", "2026-02-01"),
        ("2026W5", "2026W05", "2026-01-26", "2026-02-01"),
        ("2026W53", "2026W53", "2026-12-28", "2027-01-03"),
        ("2026-02", "2026-02", "2026-02-01", "2026-02-28"),
        ("202402", "2024-02", "2024-02-01", "2024-02-29"),
        ("2026Q1", "2026Q1", "2026-01-01", "2026-03-31"),
        ("2026S2", "2026S2", "2026-07-01", "2026-12-31"),
        ("2026", "2026", "2026-01-01", "2026-12-31"),
    ] {
        let p = period(text);
        assert_eq!(p.to_string(), shown);
        assert_eq!(p.first_day().to_string(), first);
        assert_eq!(p.last_day().to_string(), last);
    }
}

#[test]
fn what_the_calendar_lacks_is_refused_with_the_reason() {
    for (text, reason) in [
        ("2026-02-31", Lack::Day),
        ("20260229", Lack::Day),
        ("2026-13", Lack::Month),
        ("2025W53", Lack::Week),
        ("2026W0", Lack::Week),
        ("2026Q5", Lack::Quarter),
        ("2026S0", Lack::Half),
        ("0000", Lack::Year),
        ("1899-01-01", Lack::Year),
    ] {
        let error = text.parse::<Period>().unwrap_err();
        assert_eq!(error, PeriodError::Impossible { text: text.to_owned(), reason }, "{text}");
        // Each in its own language: a Chinese message has no English in it.
        let (zh, en) = (error.text(Lang::Zh), error.text(Lang::En));
        assert!(
            zh.contains(reason.text(Lang::Zh)) && en.contains(reason.text(Lang::En)),
            "{zh}{en}"
        );
        assert!(!zh.contains(reason.text(Lang::En)), "{zh}");
    }
    for text in [
        "",
        "26-1-1",
        "2026-1",
        "2026/01/01",
        "2026-01-1",
        "+026",
        "2026W",
        "２０２６",
        "2026-01-01T00",
    ] {
        assert!(matches!(text.parse::<Period>(), Err(PeriodError::Shape { .. })), "{text}");
    }
}

#[test]
fn spans_name_their_parts() {
    let span: Span = "2026-01..2026-03".parse().unwrap();
    assert_eq!(span.parts(PeriodType::Month).count(), 3);
    assert_eq!(span.parts(PeriodType::Quarter).count(), 1);
    assert_eq!(span.parts(PeriodType::Year).count(), 0);
    assert!(span.cuts(PeriodType::Week) && !span.cuts(PeriodType::Day));
    assert_eq!(period("2026-01").parts(PeriodType::Week).count(), 3);
    assert!("2026-03..2026-01".parse::<Span>().is_err());
    assert!("2026-01..2026Q2".parse::<Span>().is_err());
}

#[test]
fn a_year_earlier_is_the_same_period() {
    for (text, earlier) in [
        ("2024-02-29", "2023-02-28"),
        ("2026W05", "2025W05"),
        ("2026W53", "2025W52"),
        ("2026-01", "2025-01"),
        ("2026Q3", "2025Q3"),
        ("2026S1", "2025S1"),
        ("2026", "2025"),
    ] {
        assert_eq!(period(text).year_earlier(), period(earlier));
    }
}

proptest! {
    #[test]
    fn periods_tile_the_calendar(days in Date::MIN.days() + 800..Date::MAX.days() - 800) {
        let date = Date::from_days(days).unwrap();
        for kind in PeriodType::ALL {
            let p = Period::containing(kind, date);
            prop_assert!(p.has_day(date));
            prop_assert_eq!(p.last_day().plus(1), p.plus(1).first_day());
            prop_assert_eq!(p.to_string().parse::<Period>().unwrap(), p);
            prop_assert_eq!(Period::from_index(kind, p.index()), Some(p));
            prop_assert_eq!(p.parts(PeriodType::Day).count() as u32, p.day_count());
        }
        prop_assert_eq!(date.to_string().parse::<Date>().unwrap(), date);
        prop_assert_eq!(Date::of(date.civil()), date);
    }

    #[test]
    fn no_text_panics(text in "[0-9QSW.-]{0,12}|.{0,12}") {
        let _ = text.parse::<Period>();
        let _ = text.parse::<Span>();
    }
}
