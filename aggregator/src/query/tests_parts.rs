//! What figures say of parts of a place, of a time that still runs, and of answers "not applicable".

use banyan_shared::figures::State;

use super::fixture::World;
use super::tests_indicators::{month, world};
use super::*;

const LATER: (&str, u8) = ("2026-06-10", 9);

fn asking(place: &str, period: &str, by: &[&str], network: Option<&str>) -> QueryRequest {
    QueryRequest {
        place: place.to_owned(),
        period: period.to_owned(),
        by: by.iter().map(|by| (*by).to_owned()).collect(),
        network: network.map(str::to_owned),
        ..QueryRequest::default()
    }
}

fn query(w: &World, request: &QueryRequest, now: (&str, u8)) -> QueryAnswer {
    w.engine().query(request, w.at(now.0, now.1)).unwrap()
}

fn indicator(w: &World, place: &str, period: &str, code: &str, now: (&str, u8)) -> IndicatorFigure {
    let request =
        QueryRequest { indicators: vec![code.to_owned()], ..asking(place, period, &[], None) };
    query(w, &request, now).rows[0].indicators.get(code).unwrap().clone()
}

fn element(w: &World, place: &str, period: &str, code: &str, now: (&str, u8)) -> ElementFigure {
    let request =
        QueryRequest { elements: vec![code.to_owned()], ..asking(place, period, &[], None) };
    query(w, &request, now).rows[0].elements.get(code).unwrap().clone()
}

#[test]
fn what_no_group_has_is_reconciled_too() {
    let mut w = world();
    w.put("H2", "hospital_monthly", "2026-02", &["100", "50", "9", "7"], ("2026-03-05", 9));
    let mut request = asking("C2", "2026-02", &["network"], Some("alliance"));
    for elements in [vec![], vec!["led".to_owned()]] {
        request.elements = elements;
        let answer = query(&w, &request, LATER);
        assert!(
            answer
                .rows
                .iter()
                .all(|row| { row.elements.get("led").is_none_or(|figure| figure.value.is_none()) })
        );
        let reconciliation = answer.reconciliation.unwrap();
        let led = reconciliation.get("led").unwrap();
        assert_eq!(led.sum_of_groups.value, 0);
        assert_eq!((led.in_none.value, led.in_none.facilities), (7, 1));
        assert_eq!(led.administrative_total.value, 7);
        assert!(reconciliation.get("types_ytd").is_none(), "never added");
        assert!(reconciliation.get("payer_visits").is_none(), "the desk's, of the area");
    }
}

#[test]
fn a_part_of_a_place_has_its_name_and_neither_its_areas_figures_nor_its_targets() {
    let mut w = world();
    for unit in ["A", "B", "M"] {
        month(&mut w, unit, "2026-01", 1..=31, ["10", "1"]);
    }
    month(&mut w, "K", "2026-01", 1..=10, ["10", "1"]);
    month(&mut w, "N", "2026-01", 28..=31, ["10", "1"]);
    w.put("H1", "hospital_monthly", "2026-01", &["1000", "50", "90", "4"], ("2026-02-05", 9));
    w.put("B1", "desk_monthly", "2026-01", &["4000"], ("2026-02-05", 9));
    let whole = indicator(&w, "C1", "2026-01", "clinic_share", LATER);
    assert_eq!((whole.value.is_some(), whole.low()), (true, Some(20.0)));

    for (place, own) in [("C1", "一县（本级）"), ("G1", "一县医共体（本级）")] {
        let answer = query(&w, &asking(place, "2026-01", &["township"], None), LATER);
        let row = answer.rows.iter().find(|row| row.key.name.as_deref() == Some(own));
        let row = row.unwrap_or_else(|| panic!("no row {own}"));
        let named = (row.key.unit.as_deref(), row.key.network.as_deref());
        assert!(matches!((place, named), ("C1", (Some("C1"), None)) | ("G1", (None, Some("G1")))));
        // The hospital's alone.
        let share = row.indicators.get("clinic_share").unwrap();
        assert_eq!((share.value, share.low(), share.met), (Some(0.0), None, None), "{own}");
        assert!(row.indicators.get("payer_each").is_none_or(|each| each.value.is_none()), "{own}");
    }
    let answer = query(&w, &asking("C1", "2026-01", &["kind"], None), LATER);
    for row in &answer.rows {
        if let Some(share) = row.indicators.get("clinic_share") {
            assert_eq!((share.low(), share.met), (None, None), "{:?}", row.key);
        }
        assert!(row.indicators.get("payer_each").is_none_or(|each| each.value.is_none()));
    }
    let shares = answer.rows.iter().filter_map(|row| row.indicators.get("clinic_share")?.value);
    assert_eq!(shares.collect::<Vec<_>>(), [100.0, 0.0]);
}

#[test]
fn a_stock_that_ends_in_not_applicable_has_no_value_in_a_longer_span_either() {
    let mut w = world();
    for (period, beds) in [("2026-01", "3"), ("2026-02", "4"), ("2026-03", "NA")] {
        let received = format!("{}-28", period);
        w.put("A", "monthly", period, &[beds, "1000"], (&received, 9));
    }
    let march = indicator(&w, "A", "2026-03", "beds_each", LATER);
    assert_eq!((march.numerator, march.denominator), (Some(0.0), Some(1000.0)));
    let quarter = indicator(&w, "A", "2026Q1", "beds_each", LATER);
    assert_eq!((quarter.numerator, quarter.denominator), (Some(0.0), Some(1000.0)));
}

#[test]
fn the_stage_is_that_of_the_reports_on_the_map_asked_for() {
    let mut w = world();
    month(&mut w, "D", "2026-01", 1..=31, ["10", "1"]);
    w.put("D", "monthly", "2026-01", &["3", "1000"], ("2026-02-01", 9));
    w.put("H2", "hospital_monthly", "2026-01", &["1000", "50", "90", "4"], ("2026-02-05", 9));
    let mut request = asking("C2", "2026-01", &[], None);
    assert_eq!(query(&w, &request, LATER).stage, "open");
    for day in 1..=31 {
        w.sign("D", "daily", &format!("2026-01-{day:02}"), ("2026-02-10", 9));
    }
    w.sign("D", "monthly", "2026-01", ("2026-02-10", 9));
    w.sign("H2", "hospital_monthly", "2026-01", ("2026-02-10", 9));
    assert_eq!(query(&w, &request, LATER).stage, "signed");
    // On today's map a clinic is among them whose January nobody has signed off.
    request.membership = "today".parse().unwrap();
    assert_eq!(query(&w, &request, LATER).stage, "open");
}

#[test]
fn the_pace_of_a_year_that_still_runs_is_that_by_now() {
    let w = world();
    // 160 of 365 days of 12,000.
    let running = indicator(&w, "C1", "2026", "payer_ytd", LATER);
    assert_eq!(running.pace().map(f64::round), Some(5260.0));
    let ended = indicator(&w, "C1", "2026-02", "payer_ytd", LATER);
    assert_eq!(ended.pace().map(f64::round), Some(1940.0));
    let to_come = indicator(&w, "C1", "2027", "payer_ytd", LATER);
    assert_eq!(to_come.pace(), Some(0.0));
}

#[test]
fn a_condition_on_not_applicable_is_not_met() {
    let mut w = world();
    w.put("A", "monthly", "2026-01", &["NA", "1000"], ("2026-02-01", 9));
    w.put("B", "monthly", "2026-01", &["0", "1000"], ("2026-02-01", 9));
    w.put("M", "monthly", "2026-01", &["2", "1000"], ("2026-02-01", 9));
    let none = indicator(&w, "T1", "2026-01", "bedless", LATER);
    assert_eq!((none.numerator, none.denominator), (Some(1.0), Some(3.0)));
}

#[test]
fn while_answers_are_still_to_come_those_not_applicable_do_not_decide() {
    let mut w = world();
    for day in 1..=15 {
        let date = format!("2026-02-{day:02}");
        w.put("A", "daily", &date, &["NA", "NA"], (&date, 20));
        let next = format!("2026-02-{:02}", day + 1);
        let visits = element(&w, "A", "2026-02", "visits", (&next, 9));
        assert_eq!(visits.state, State::Waiting, "{date}");
    }
    for day in 16..=28 {
        let date = format!("2026-02-{day:02}");
        w.put("A", "daily", &date, &["NA", "NA"], (&date, 20));
    }
    assert_eq!(element(&w, "A", "2026-02", "visits", LATER).state, State::NotApplicable);
}

#[test]
fn nothing_matched_of_nothing_before_is_no_share_of_the_usual() {
    let mut w = world();
    let now = ("2026-02-07", 9);
    let share = indicator(&w, "C1", "2026-01", "clinic_share", now);
    assert_eq!((share.coverage.matched, share.coverage.share_of_usual), (0, None));
    w.put("H1", "hospital_monthly", "2025-12", &["1000", "50", "90", "4"], ("2026-01-05", 9));
    let share = indicator(&w, "C1", "2026-01", "clinic_share", now);
    assert_eq!((share.coverage.matched, share.coverage.share_of_usual), (0, Some(0.0)));
}
