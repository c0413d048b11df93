//! Which figures say that reports behind them are in conflict, or say something else than when they were
//! signed off.

use banyan_shared::report::How;

use super::fixture::World;
use super::*;

const LATER: (&str, u8) = ("2026-06-01", 12);

fn request(place: &str, period: &str) -> QueryRequest {
    QueryRequest { place: place.to_owned(), period: period.to_owned(), ..QueryRequest::default() }
}

/// The flags of conflict and restatement of an element or indicator, by the code of the row.
fn flags(w: &World, request: &QueryRequest, item: &str) -> Vec<(String, Vec<String>)> {
    let answer = w.engine().query(request, w.at(LATER.0, LATER.1)).unwrap();
    let of_row = |row: &Row| {
        let element = row.elements.get(item).map(ElementFigure::flags);
        let flags = element.or_else(|| row.indicators.get(item).map(IndicatorFigure::flags));
        let texts = flags.unwrap_or_default().iter().map(|flag| flag.to_string());
        let mut flags: Vec<String> = texts.collect();
        flags.retain(|flag| flag == "conflicts" || flag == "restated");
        (row.key.unit.clone().unwrap_or_default(), flags)
    };
    answer.rows.iter().map(|row| of_row(row)).collect()
}

/// The same of the one row of a question for one item.
fn of(w: &World, place: &str, period: &str, item: &str) -> Vec<String> {
    let elements = vec![item.to_owned()];
    flags(w, &QueryRequest { elements, ..request(place, period) }, item).remove(0).1
}

#[test]
fn only_figures_whose_values_changed_since_they_were_signed_off_are_restated() {
    let mut w = World::new();
    w.put("A", "daily", "2026-01-05", &["10", "1"], ("2026-01-06", 8));
    w.put("B", "daily", "2026-01-05", &["4", "0"], ("2026-01-06", 8));
    w.put("D", "daily", "2026-01-05", &["7", "2"], ("2026-01-06", 8));
    for unit in ["A", "B", "D"] {
        w.sign(unit, "daily", "2026-01-05", ("2026-02-01", 8));
    }
    assert!(of(&w, "P", "2026-01", "visits").is_empty());
    // B is entered again with the very same values: nobody's figure changes.
    w.put("B", "daily", "2026-01-05", &["4", "0"], ("2026-02-02", 8));
    let whole = w.engine().query(&request("C1", "2026-01"), w.at(LATER.0, LATER.1)).unwrap();
    assert!(whole.restated, "another report is counted");
    assert!(of(&w, "C1", "2026-01", "visits").is_empty());
    // A's visits are corrected, its home visits are not.
    w.put("A", "daily", "2026-01-05", &["12", "1"], ("2026-02-02", 8));
    assert_eq!(of(&w, "C1", "2026-01", "visits"), ["restated"]);
    assert!(of(&w, "C1", "2026-01", "home_visits").is_empty());
    assert!(of(&w, "C1", "2026-02", "visits").is_empty());
    let by = QueryRequest {
        by: vec!["facility".to_owned()],
        elements: vec!["visits".to_owned()],
        ..request("P", "2026-01")
    };
    let restated: Vec<String> = flags(&w, &by, "visits")
        .into_iter()
        .filter(|(_, flags)| !flags.is_empty())
        .map(|(unit, _)| unit)
        .collect();
    assert_eq!(restated, ["A"]);
    // As known before the correction, nothing was restated.
    let before = QueryRequest { as_of: Some(w.at("2026-02-01", 9)), ..by };
    assert!(flags(&w, &before, "visits").iter().all(|(_, flags)| flags.is_empty()));
    // What is taken back is restated too, and so is what came after the sign-off.
    w.sign("M", "daily", "2026-01-05", ("2026-02-01", 8));
    w.put("M", "daily", "2026-01-05", &["1", ""], ("2026-02-03", 8));
    assert_eq!(of(&w, "M", "2026-01", "visits"), ["restated"]);
    assert!(of(&w, "M", "2026-01", "home_visits").is_empty());
    w.put("D", "daily", "2026-01-05", &["", ""], ("2026-02-03", 8));
    assert_eq!(of(&w, "D", "2026-01", "visits"), ["restated"], "a value that is gone");
}

#[test]
fn a_stock_is_marked_by_the_report_its_value_stands_in_however_old() {
    let mut w = World::new();
    let both = |w: &mut World, unit: &str, month: &str, population: [&str; 2]| {
        let at = ("2026-05-20", 8);
        w.put(unit, "monthly", month, &["3", population[0]], at);
        w.put_by(9, unit, "monthly", month, &["3", population[1]], at, How::Direct);
    };
    both(&mut w, "A", "2026-01", ["100", "120"]);
    for month in ["2026-01", "2026-02", "2026-03"] {
        assert_eq!(of(&w, "C1", month, "population"), ["conflicts"], "{month}");
    }
    assert!(of(&w, "C1", "2026-02", "beds").is_empty(), "beds are not carried");
    assert_eq!(of(&w, "C1", "2026-01", "beds"), ["conflicts"]);
    assert!(of(&w, "C2", "2026-03", "population").is_empty());
    // A newer value stands alone: the old conflict is none of its figure.
    w.put("A", "monthly", "2026-02", &["3", "110"], ("2026-05-21", 8));
    assert_eq!(of(&w, "C1", "2026-01", "population"), ["conflicts"]);
    assert!(of(&w, "C1", "2026-03", "population").is_empty());
    assert!(of(&w, "C1", "2026-01..2026-02", "population").is_empty());
    // A corrected carried value.
    w.sign("A", "monthly", "2026-02", ("2026-05-22", 8));
    w.put("A", "monthly", "2026-02", &["3", "111"], ("2026-05-23", 8));
    assert_eq!(of(&w, "C1", "2026-04", "population"), ["restated"]);
    assert!(of(&w, "C1", "2026-02", "beds").is_empty());
    // The newest one taken back: the figure is another than it was.
    w.put("A", "monthly", "2026-02", &["3", ""], ("2026-05-24", 8));
    assert_eq!(of(&w, "C1", "2026-04", "population"), ["conflicts", "restated"]);
}

#[test]
fn an_indicator_is_marked_by_the_reports_of_all_the_time_it_counts() {
    let mut w = super::tests_indicators::world();
    for unit in ["A", "B"] {
        for (month, days) in [("2026-01", 1..=31), ("2026-02", 1..=28)] {
            super::tests_indicators::month(&mut w, unit, month, days, ["10", "1"]);
        }
        w.put(unit, "monthly", "2026-01", &["3", "100"], ("2026-02-02", 9));
        w.put(unit, "monthly", "2026-02", &["3", "100"], ("2026-03-02", 9));
    }
    let of = |w: &World, place: &str, period: &str, indicator: &str| {
        let indicators = vec![indicator.to_owned()];
        let request = QueryRequest { indicators, ..request(place, period) };
        let answer = w.engine().query(&request, w.at(LATER.0, LATER.1)).unwrap();
        assert!(answer.rows[0].indicators.get(indicator).unwrap().value.is_some(), "{indicator}");
        flags(w, &request, indicator).remove(0).1
    };
    let none: [&str; 0] = [];
    assert_eq!(of(&w, "T1", "2026-01", "home_share"), none);
    let at = ("2026-01-06", 9);
    w.put_by(9, "A", "daily", "2026-01-05", &["11", "1"], at, How::Direct);
    for (place, period, indicator, marked) in [
        ("T1", "2026-01", "home_share", true),
        ("A", "2026-01", "home_share", true),
        ("B", "2026-01", "home_share", false),
        ("T1", "2026-02", "home_share", false),
        ("T1", "2026-02", "home_ytd", true),
        ("T1", "2026-01", "beds_each", false),
    ] {
        let flags = of(&w, place, period, indicator);
        assert_eq!(flags == ["conflicts"], marked, "{place} {period} {indicator} {flags:?}");
    }
    // A stock's older value is none of the newest; a mean's it is.
    w.sign("A", "monthly", "2026-01", ("2026-05-01", 9));
    w.put("A", "monthly", "2026-01", &["4", "100"], ("2026-05-02", 9));
    assert_eq!(of(&w, "A", "2026-01", "beds_each"), ["restated"]);
    assert_eq!(of(&w, "A", "2026-01..2026-02", "beds_each"), none);
    assert_eq!(of(&w, "A", "2026-01..2026-02", "mean_beds"), ["conflicts", "restated"]);
}
