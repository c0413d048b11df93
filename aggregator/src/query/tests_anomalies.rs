//! Rules over one report, over a facility's history and over a network, evaluated at the centre.

use banyan_shared::catalogue::Lang;

use super::fixture::{CATALOGUE, World};
use super::*;

const RULES: &str = r#"
[[rule]]
code = "V1"
severity = "error"
message = { zh = "出诊多于诊疗", en = "more home visits than visits" }
forms = ["daily"]
when = "home_visits <= visits"

[[rule]]
code = "V2"
severity = "warning"
message = { zh = "诊疗过多", en = "more visits than beds could take" }
scope = "history"
part = [
  { forms = ["monthly"], when = "visits <= 100 * beds" },
  { forms = ["hospital_monthly"], when = "types_ytd <= ytd(visits)" },
]

[[rule]]
code = "V3"
severity = "warning"
message = { zh = "偏离以往", en = "far from what is usual" }
scope = "history"
part = [
  { forms = ["daily", "hospital_monthly"], when = "abs(value() - median12()) <= max(5 * mad12(), 10)" },
  { forms = ["hospital_monthly"], when = "value() <= max(3 * last_year(), 10)" },
]

[[rule]]
code = "V4"
severity = "warning"
message = { zh = "两端不符", en = "the two sides differ" }
forms = ["daily", "hospital_monthly"]
scope = "cross_site"
network_kind = "community"
when = "abs(visits[kind=clinic] - visits[kind=hospital]) <= 10 * facilities[kind=hospital]"
"#;

fn world() -> World {
    let mut w = World::new();
    w.catalogue = Catalogue::load((CATALOGUE.to_owned() + RULES).as_bytes()).unwrap_or_else(|e| {
        panic!("{}", e.iter().map(|e| e.text(Lang::En)).collect::<Vec<_>>().join("\n"))
    });
    w.cube = Cube::new(&w.catalogue);
    reserve(&mut w.cube, &w.catalogue, &w.organisation);
    w
}

const LATER: (&str, u8) = ("2026-06-01", 12);

/// Unit, period, rule and values of a row.
type Told = (String, String, String, Vec<(String, u64)>);

fn ask(w: &World, request: &AnomaliesRequest) -> Vec<Told> {
    let answer = w.engine().anomalies(request, w.at(LATER.0, LATER.1)).unwrap();
    let row = |row: BrokenRow| (row.unit, row.period, row.rule, row.values.0);
    answer.rows.into_iter().map(row).collect()
}

fn of(w: &World, place: &str, period: &str, rule: &str) -> Vec<(String, String)> {
    let request = AnomaliesRequest {
        place: place.to_owned(),
        period: period.to_owned(),
        rule: Some(rule.to_owned()),
        ..AnomaliesRequest::default()
    };
    ask(w, &request).into_iter().map(|(unit, period, ..)| (unit, period)).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn a_report_that_broke_a_rule_when_it_was_saved_is_listed_with_its_numbers() {
    let mut w = world();
    w.put("A", "daily", "2026-01-05", &["3", "4"], ("2026-01-06", 8));
    w.put("B", "daily", "2026-01-05", &["4", "4"], ("2026-01-06", 8));
    w.put("D", "daily", "2026-01-05", &["", "4"], ("2026-01-06", 8));
    let request = AnomaliesRequest {
        place: "P".to_owned(),
        period: "2026-01".to_owned(),
        ..AnomaliesRequest::default()
    };
    let values = vec![("home_visits".to_owned(), 4), ("visits".to_owned(), 3)];
    let broken = ("A".to_owned(), "2026-01-05".to_owned(), "V1".to_owned(), values);
    assert_eq!(ask(&w, &request), [broken]);
    let trace =
        |unit| w.engine().report(unit, "daily", "2026-01-05", false, None, w.at(LATER.0, 12));
    let trace_of_a = trace("A").unwrap();
    assert_eq!(trace_of_a.broken.len(), 1);
    assert_eq!(
        (&*trace_of_a.broken[0].severity, &*trace_of_a.broken[0].scope),
        ("error", "report")
    );
    assert!(
        trace_table(&trace_of_a, &w.catalogue, Lang::En)
            .contains("V1 error: more home visits than visits (home visits 4, visits 3)")
    );
    assert!(trace("B").unwrap().broken.is_empty());
    // What was taken back breaks nothing; as known before, it did.
    w.put("A", "daily", "2026-01-05", &["", ""], ("2026-01-09", 8));
    assert!(ask(&w, &request).is_empty());
    let before = AnomaliesRequest { as_of: Some(w.at("2026-01-07", 9)), ..request };
    assert_eq!(ask(&w, &before).len(), 1);
}

#[test]
fn a_rule_over_other_forms_waits_for_all_their_reports() {
    let mut w = world();
    w.put("A", "monthly", "2026-01", &["1", "100"], ("2026-02-02", 9));
    for day in 1..=30 {
        let date = format!("2026-01-{day:02}");
        w.put("A", "daily", &date, &["4", "0"], (&date, 20));
    }
    assert!(of(&w, "A", "2026-01", "V2").is_empty(), "a day is wanting, though 120 > 100 already");
    w.put("A", "daily", "2026-01-31", &["4", "0"], ("2026-02-01", 9));
    assert_eq!(of(&w, "A", "2026-01", "V2"), pairs(&[("A", "2026-01")]));
    // Since 1 January, not before, and only once every month is in.
    let month = |w: &mut World, month: &str, visits: &str, types: &str| {
        w.put("H1", "hospital_monthly", month, &[visits, "50", types, "4"], ("2026-04-05", 9));
    };
    month(&mut w, "2025-12", "1000", "90");
    month(&mut w, "2026-02", "30", "70");
    assert!(of(&w, "H1", "2026-02", "V2b").is_empty(), "January is wanting");
    month(&mut w, "2026-01", "30", "20");
    assert_eq!(of(&w, "H1", "2026-01..2026-02", "V2b"), pairs(&[("H1", "2026-02")]));
}

#[test]
fn a_value_far_from_the_usual_is_told_by_line() {
    let mut w = world();
    for day in 1..=14 {
        let date = format!("2026-01-{day:02}");
        let visits = if day == 13 { "60" } else { ["9", "10", "11"][day % 3] };
        w.put("A", "daily", &date, &[visits, "0"], (&date, 20));
    }
    // Nobody can tell before there are six days to compare with.
    w.put("B", "daily", "2026-01-01", &["1", "0"], ("2026-01-02", 9));
    w.put("B", "daily", "2026-01-02", &["500", "0"], ("2026-01-03", 9));
    assert_eq!(of(&w, "C1", "2026-01", "V3"), pairs(&[("A", "2026-01-13")]));
    let trace = w.engine().report("A", "daily", "2026-01-13", false, None, w.at(LATER.0, 12));
    let broken = &trace.unwrap().broken;
    assert_eq!(broken.len(), 1);
    assert_eq!(broken[0].values.0, [("visits".to_owned(), 60)]);
    // Three times the same month of the year before.
    let month = |w: &mut World, month: &str, visits: &str| {
        w.put("H1", "hospital_monthly", month, &[visits, "50", "9", "4"], ("2026-04-05", 9));
    };
    month(&mut w, "2025-01", "100");
    month(&mut w, "2025-02", "100");
    month(&mut w, "2026-01", "300");
    month(&mut w, "2026-02", "301");
    assert_eq!(of(&w, "H1", "2026", "V3b"), pairs(&[("H1", "2026-02")]));
}

#[test]
fn a_network_is_looked_at_as_it_was_once_every_kind_has_reported() {
    let mut w = world();
    w.put("A", "daily", "2026-01-05", &["30", "0"], ("2026-01-06", 8));
    w.put("M", "daily", "2026-03-05", &["30", "0"], ("2026-03-06", 8));
    assert!(of(&w, "G1", "2026-01", "V4").is_empty(), "the hospital is wanting");
    w.put("H1", "hospital_monthly", "2026-01", &["41", "50", "90", "4"], ("2026-02-05", 9));
    w.put("H2", "hospital_monthly", "2026-03", &["31", "50", "90", "4"], ("2026-04-05", 9));
    assert_eq!(of(&w, "G1", "2026-01", "V4"), pairs(&[("G1", "2026-01")]));
    let request = AnomaliesRequest {
        place: "P".to_owned(),
        period: "2026-01".to_owned(),
        scope: Some("cross_site".to_owned()),
        ..AnomaliesRequest::default()
    };
    assert_eq!(ask(&w, &request)[0].3, [("visits".to_owned(), 71)]);
    // M moved to the other community in March: there it counts, and the two sides meet.
    assert!(of(&w, "G2", "2026-03", "V4").is_empty());
    assert!(of(&w, "P", "2026-02..2026-04", "V4").is_empty());
    // A place is told only of networks that lie wholly in it.
    assert!(of(&w, "T1", "2026-01", "V4").is_empty());
    assert_eq!(of(&w, "C1", "2026-01", "V4"), pairs(&[("G1", "2026-01")]));
}

#[test]
fn what_is_asked_for_must_be_there() {
    let w = world();
    let request = |form: Option<&str>, rule: Option<&str>, scope: Option<&str>| AnomaliesRequest {
        place: "P".to_owned(),
        period: "2026-01".to_owned(),
        form: form.map(str::to_owned),
        rule: rule.map(str::to_owned),
        scope: scope.map(str::to_owned),
        as_of: None,
    };
    for (request, part) in [
        (request(Some("dayly"), None, None), "dayly"),
        (request(None, Some("V99"), None), "V99"),
        (request(None, None, Some("all")), "report, history, cross_site"),
    ] {
        let error = w.engine().anomalies(&request, w.at(LATER.0, 12)).unwrap_err();
        assert!(error.text(Lang::En).contains(part), "{}", error.text(Lang::En));
        assert_eq!(error.code(), "unknown_code");
    }
}
