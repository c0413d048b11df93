use banyan_shared::catalogue::Lang;
use banyan_shared::figures::State;
use banyan_shared::report::How;

use super::fixture::{UNITS, World, build};
use super::*;

fn ask(place: &str, period: &str) -> QueryRequest {
    QueryRequest { place: place.to_owned(), period: period.to_owned(), ..QueryRequest::default() }
}

fn by(place: &str, period: &str, by: &str, elements: &[&str]) -> QueryRequest {
    QueryRequest {
        by: vec![by.to_owned()],
        elements: elements.iter().map(|e| (*e).to_owned()).collect(),
        ..ask(place, period)
    }
}

fn elements(place: &str, period: &str, elements: &[&str]) -> QueryRequest {
    QueryRequest { by: vec![], ..by(place, period, "", elements) }
}

fn figure<'a>(answer: &'a QueryAnswer, row: usize, element: &str) -> &'a ElementFigure {
    answer.rows[row].elements.get(element).unwrap()
}

fn value(answer: &QueryAnswer, element: &str) -> Option<u64> {
    figure(answer, 0, element).value
}

/// (row, value) of one element, rows by the code of what they are.
fn values(answer: &QueryAnswer, element: &str) -> Vec<(String, Option<u64>)> {
    let code = |key: &RowKey| {
        let parts = [&key.unit, &key.network, &key.kind, &key.role];
        let mut code: Vec<String> = parts.into_iter().flatten().cloned().collect();
        if key.period != answer.period {
            code.push(key.period.clone());
        }
        code.join(" ")
    };
    let rows = answer.rows.iter();
    rows.map(|row| (code(&row.key), row.elements.get(element).and_then(|e| e.value))).collect()
}

fn list(pairs: &[(&str, u64)]) -> Vec<(String, Option<u64>)> {
    pairs.iter().map(|(code, n)| ((*code).to_owned(), Some(*n))).collect()
}

const LATER: (&str, u8) = ("2026-06-01", 12);

/// January and March of a few clinics and hospitals.
fn world() -> World {
    let mut w = World::new();
    for day in 1..=31 {
        let date = format!("2026-01-{day:02}");
        let next = (date.clone(), 20);
        w.put("A", "daily", &date, &["10", "1"], (&next.0, 20));
        w.put("M", "daily", &date, &["2", "0"], (&next.0, 20));
        w.put("D", "daily", &date, &["5", ""], (&next.0, 20));
    }
    for day in 1..=10 {
        let date = format!("2026-01-{day:02}");
        w.put("K", "daily", &date, &["3", "NA"], (&date, 20));
    }
    for day in 28..=31 {
        let date = format!("2026-01-{day:02}");
        w.put("N", "daily", &date, &["1", "0"], (&date, 20));
    }
    w.put("M", "daily", "2026-03-01", &["7", "0"], ("2026-03-01", 20));
    w.put("H1", "hospital_monthly", "2026-01", &["1000", "50", "90", "4"], ("2026-02-05", 9));
    for (unit, beds) in [("A", "3"), ("B", "2"), ("M", "1"), ("D", "4"), ("K", "9")] {
        w.put(unit, "monthly", "2026-01", &[beds, "100"], ("2026-02-02", 9));
    }
    w.put("B1", "desk_monthly", "2026-01", &["4321"], ("2026-02-10", 9));
    w
}

#[test]
fn flows_add_over_days_and_facilities_with_their_coverage() {
    let w = world();
    let now = w.at(LATER.0, LATER.1);
    let answer = w.engine().query(&ask("C1", "2026-01"), now).unwrap();
    let visits = figure(&answer, 0, "visits");
    // A 310, M 62, K 30, N 4, hospital 1000; B never reported.
    assert_eq!(visits.value, Some(1406));
    assert_eq!((visits.reports, visits.facilities, visits.facilities_expected), (77, 5, 6));
    // A, B, M 31 days each, K 10, N 4, and the hospital's month.
    assert_eq!(visits.expected, 93 + 10 + 4 + 1);
    assert_eq!(visits.state, State::Reported);
    assert!(visits.flags().is_empty());
    // "Not applicable" leaves what is expected.
    let home = figure(&answer, 0, "home_visits");
    assert_eq!((home.value, home.not_applicable, home.expected), (Some(31), 10, 97));
    assert_eq!(figure(&answer, 0, "payer_visits").value, Some(4321));
    assert_eq!(figure(&answer, 0, "payer_visits").facilities, 0, "a desk is no facility");
}

#[test]
fn completeness_adds_up_and_an_empty_report_is_not_received() {
    let mut w = world();
    w.put("B", "daily", "2026-01-05", &["", ""], ("2026-01-06", 9));
    w.put_as("B", "daily", "2026-01-06", &["", "3"], ("2026-01-07", 9), How::Proxy);
    w.put("B", "daily", "2026-01-07", &["4", ""], ("2026-01-09", 9));
    let request = QueryRequest { as_of: Some(w.at("2026-02-03", 8)), ..ask("C1", "2026-01") };
    let answer = w.engine().query(&request, w.at(LATER.0, LATER.1)).unwrap();
    let c = &answer.completeness;
    assert_eq!(c.expected, c.on_time + c.late + c.not_yet_due + c.missing);
    assert_eq!(c.received, c.on_time + c.late);
    let why = &c.missing_why;
    let causes = why.returned + why.refused + why.parked + why.not_enrolled + why.not_entered;
    assert_eq!((causes, why.backlog_known, why.silent), (c.missing, None, None));
    // B has 31 days: one empty, one proxy and incomplete, one late.
    assert_eq!((c.incomplete, c.proxy), (1, 1));
    let daily = c.by_form.iter().find(|f| f.form == "daily").unwrap();
    assert_eq!((daily.expected, daily.received), (93 + 14, 76 + 2));
    // The months: A, B, M, N and K (a closing month is due) by the 3rd at 23:59; hospital by the 8th.
    let monthly = c.by_form.iter().find(|f| f.form == "monthly").unwrap();
    assert_eq!((monthly.expected, monthly.received, monthly.not_yet_due), (5, 4, 1));
    let hospital = c.by_form.iter().find(|f| f.form == "hospital_monthly").unwrap();
    assert_eq!(
        (hospital.expected, hospital.received),
        (1, 0),
        "it came after the moment asked for"
    );
}

#[test]
fn late_reports_missing_causes_and_the_unexpected() {
    let mut w = world();
    w.sites.sites.insert(
        "B".parse().unwrap(),
        SiteState {
            enrolled: Some(w.at("2026-01-01", 0)),
            last_heard: Some(w.at("2026-02-01", 0)),
            backlog: 2,
        },
    );
    let (form, period) = ("daily".parse().unwrap(), "2026-01-03".parse().unwrap());
    w.sites.mark_mut(&"B".parse().unwrap(), form, period).parked = true;
    let now = w.at("2026-02-03", 8);
    let one = |membership| CompletenessRequest {
        place: "B".to_owned(),
        period: "2026-01".to_owned(),
        form: Some("daily".to_owned()),
        membership,
        ..CompletenessRequest::default()
    };
    let answer = w.engine().completeness(&one(Membership::AsItWas), now).unwrap();
    let why = &answer.completeness.missing_why;
    assert_eq!((answer.completeness.missing, why.parked, why.backlog_known), (31, 1, Some(30)));
    // Beacons are no history.
    let past =
        CompletenessRequest { as_of: Some(w.at("2026-02-02", 0)), ..one(Membership::AsItWas) };
    let answer = w.engine().completeness(&past, now).unwrap();
    let why = &answer.completeness.missing_why;
    assert_eq!((why.backlog_known, why.silent, why.not_entered), (None, None, 30));
    let csv = completeness_csv(&answer, &w.organisation);
    assert_eq!(
        csv.lines().next().unwrap(),
        "unit,name,path,form,period,expected,received,on_time,late,late_by_network,not_yet_due,missing,\
         incomplete,proxy,returned,refused,parked,not_enrolled,backlog_known,silent,not_entered"
    );
    assert_eq!(
        csv.lines().nth(1).unwrap(),
        "B,乙诊所,省/一县/一镇/乙诊所,daily,2026-01,31,0,0,0,0,0,31,0,0,0,0,1,0,,,30"
    );
}

#[test]
fn stocks_take_the_last_value_of_those_open_on_the_last_day() {
    let w = world();
    let now = w.at(LATER.0, LATER.1);
    let answer = w.engine().query(&ask("C1", "2026-01"), now).unwrap();
    // A 3, B 2, M 1, hospital 50; K closed on the 11th does not count.
    assert_eq!(value(&answer, "beds"), Some(56));
    let quarter = w.engine().query(&ask("C1", "2026Q1"), now).unwrap();
    // M moved to county two on 1 March, so by the quarter's end it is there.
    assert_eq!(value(&quarter, "beds"), Some(55));
    let other = w.engine().query(&ask("C2", "2026Q1"), now).unwrap();
    assert_eq!(value(&other, "beds"), Some(5), "counted once, where it is at the end");
    // Asked in January, still good in May: the newest value at most 12 months old.
    let may = w.engine().query(&elements("C1", "2026-05", &["population"]), now).unwrap();
    assert_eq!(value(&may, "population"), Some(200), "{:?}", figure(&may, 0, "population"));
}

#[test]
fn a_distinct_count_is_not_added_and_a_year_to_date_does_not_cross_january() {
    let mut w = world();
    w.put("H2", "hospital_monthly", "2026-01", &["1", "1", "80", ""], ("2026-02-05", 9));
    let now = w.at(LATER.0, LATER.1);
    let one = w.engine().query(&elements("C1", "2026-01", &["types_ytd"]), now).unwrap();
    assert_eq!(value(&one, "types_ytd"), Some(90));
    let both = w.engine().query(&elements("P", "2026-01", &["types_ytd"]), now).unwrap();
    assert_eq!(
        (value(&both, "types_ytd"), figure(&both, 0, "types_ytd").state),
        (None, State::NotAdditive)
    );
    let error =
        w.engine().query(&elements("P", "2025-12..2026-01", &["types_ytd"]), now).unwrap_err();
    assert_eq!(error.code(), "across_new_year");
    assert!(error.text(Lang::Zh).contains("types_ytd"));
}

#[test]
fn an_element_asked_of_leads_is_expected_of_them_only() {
    let w = world();
    let now = w.at(LATER.0, LATER.1);
    // Community two begins in February: its hospital is no lead in January.
    let answer = w.engine().query(&by("P", "2026-01", "children", &["led"]), now).unwrap();
    assert_eq!(figure(&answer, 0, "led").expected, 1);
    assert_eq!(figure(&answer, 1, "led").state, State::NotApplicable);
    let later = w.engine().query(&by("P", "2026-02", "children", &["led"]), now).unwrap();
    assert_eq!(figure(&later, 1, "led").state, State::Missing);
}

#[test]
fn a_facility_in_two_groups_counts_once_in_the_area_and_the_sums_reconcile() {
    let w = world();
    let now = w.at(LATER.0, LATER.1);
    let request = QueryRequest {
        network: Some("alliance".to_owned()),
        ..by("C1", "2026-01", "network", &["visits", "beds"])
    };
    let answer = w.engine().query(&request, now).unwrap();
    // Alliance one: A and the hospital; two: A and D (D lies in county two).
    assert_eq!(values(&answer, "visits"), list(&[("L1", 1310), ("L2", 465)]));
    let r = answer.reconciliation.as_ref().unwrap().get("visits").unwrap();
    let pair = |a: &AddendFigure| (a.facilities, a.value);
    assert_eq!(pair(&r.sum_of_groups), (3, 1775));
    assert_eq!(pair(&r.more_than_once), (1, 310));
    assert_eq!(pair(&r.outside_area), (1, 155));
    assert_eq!((r.in_none.facilities, r.in_none.value), (3, 96));
    assert_eq!(pair(&r.administrative_total), (5, 1406));
    assert_eq!(r.in_none.by_kind.get("clinic").map(pair), Some((3, 96)));
    for (_, r) in &answer.reconciliation.as_ref().unwrap().0 {
        assert_eq!(
            r.sum_of_groups.value + r.in_none.value,
            r.administrative_total.value + r.more_than_once.value + r.outside_area.value
        );
    }
    let stock = answer.reconciliation.as_ref().unwrap().get("beds").unwrap();
    assert_eq!(stock.administrative_total.value, 56);
    // However else the rows are divided.
    for more in ["kind", "day", "county", "facility"] {
        let request = QueryRequest {
            by: vec!["network".to_owned(), more.to_owned()],
            elements: vec!["visits".to_owned()],
            ..request.clone()
        };
        let divided = w.engine().query(&request, now).unwrap().reconciliation;
        assert_eq!(divided.unwrap().get("visits"), Some(r), "{more}");
    }
}

#[test]
fn a_clinic_that_moved_is_read_as_it_was_on_todays_map_and_on_a_days() {
    let w = world();
    let now = w.at(LATER.0, LATER.1);
    let visits = |place: &str, period: &str, membership| {
        let request = QueryRequest { membership, ..elements(place, period, &["visits"]) };
        value(&w.engine().query(&request, now).unwrap(), "visits")
    };
    use Membership::{AsItWas, On, Today};
    assert_eq!(visits("C1", "2026-01", AsItWas), Some(1406));
    assert_eq!(visits("C1", "2026-01", Today), Some(1406 - 62));
    assert_eq!(visits("C2", "2026-01", AsItWas), Some(155));
    assert_eq!(visits("C2", "2026-01", Today), Some(155 + 62));
    assert_eq!(visits("C1", "2026-03", AsItWas), None);
    assert_eq!(visits("C1", "2026-03", On("2026-02-28".parse().unwrap())), Some(7));
    // The closed clinic follows its successor to township one; no total of the province changes.
    assert_eq!(visits("T2", "2026-01", AsItWas), Some(34));
    assert_eq!(visits("T2", "2026-01", Today), Some(4));
    assert_eq!(visits("T1", "2026-01", Today), Some(340));
    for membership in [AsItWas, Today, On("2026-02-28".parse().unwrap())] {
        assert_eq!(visits("P", "2026-01", membership), Some(1561));
    }
    let error = w
        .engine()
        .query(
            &QueryRequest { membership: On("2026-01-15".parse().unwrap()), ..ask("G2", "2026-03") },
            now,
        )
        .unwrap_err();
    assert_eq!(error.code(), "network_not_in_force");
    assert!(error.text(Lang::En).contains("2026-02-01"), "{error}");
}

#[test]
fn a_networks_page_counts_members_and_shows_its_areas_figures_labelled() {
    let w = world();
    let now = w.at(LATER.0, LATER.1);
    let answer = w.engine().query(&ask("G1", "2026-01"), now).unwrap();
    assert_eq!(
        (answer.view.as_str(), answer.network_kind.as_deref()),
        ("network", Some("community"))
    );
    assert_eq!(value(&answer, "visits"), Some(1406));
    let payer = figure(&answer, 0, "payer_visits");
    assert_eq!((payer.value, payer.area()), (Some(4321), Some("C1")));
    let roles = w.engine().query(&by("G1", "2026-01", "role", &["visits"]), now).unwrap();
    assert_eq!(values(&roles, "visits"), list(&[("lead", 1000), ("member", 406)]));
}

#[test]
fn every_dimension_divides_the_same_total() {
    let w = world();
    let now = w.at(LATER.0, LATER.1);
    let rows = |dim: &str| {
        values(&w.engine().query(&by("C1", "2026-01", dim, &["visits"]), now).unwrap(), "visits")
    };
    let mut children = list(&[("H1", 1000), ("T1", 372), ("T2", 34)]);
    children.push(("B1".to_owned(), None));
    let mut found = rows("children");
    found.sort();
    children.sort();
    assert_eq!(found, children);
    assert_eq!(
        rows("kind").into_iter().filter(|(_, v)| v.is_some()).collect::<Vec<_>>(),
        list(&[("clinic", 406), ("hospital", 1000)])
    );
    for dim in [
        "children",
        "facility",
        "kind",
        "township",
        "county",
        "province",
        "month",
        "township,kind",
        "facility,month",
    ] {
        let total: u64 = rows(dim).into_iter().filter_map(|(_, value)| value).sum();
        assert_eq!(total, 1406, "{dim}");
    }
    // By day the hospital's month is left out, and the figure says so.
    let days = w.engine().query(&by("C1", "2026-01", "day", &["visits", "beds"]), now).unwrap();
    assert_eq!(days.rows.len(), 31);
    let first = figure(&days, 0, "visits");
    assert_eq!(first.value, Some(15));
    assert_eq!(first.flags(), ["without:hospital_monthly"]);
    assert_eq!(figure(&days, 0, "beds").state, State::TooFine);
    // A township without a hospital has nothing to leave out.
    let township = w.engine().query(&by("T1", "2026-01", "day", &["visits"]), now).unwrap();
    assert!(figure(&township, 0, "visits").flags().is_empty());
}

#[test]
fn what_is_not_in_is_waiting_or_missing_and_a_whole_kind_missing_is_named() {
    let w = world();
    let visits = |period: &str, day: &str| {
        let answer = w.engine().query(&elements("C2", period, &["visits"]), w.at(day, 12)).unwrap();
        figure(&answer, 0, "visits").clone()
    };
    let january = visits("2026-01", LATER.0);
    assert_eq!(january.value, Some(155));
    assert_eq!(january.flags(), ["absent:hospital"]);
    let hospital = |day: &str| {
        let answer =
            w.engine().query(&elements("H2", "2026-01", &["visits"]), w.at(day, 12)).unwrap();
        figure(&answer, 0, "visits").state
    };
    assert_eq!(hospital("2026-01-20"), State::Waiting, "the month is still running");
    assert_eq!(hospital("2026-02-08"), State::Waiting);
    assert_eq!(hospital("2026-02-09"), State::Missing);
    // A report for a day that has not ended is kept and counted when it ends.
    let mut w = world();
    w.put("D", "daily", "2026-05-31", &["9", ""], ("2026-05-31", 15));
    let at = |day, hour| {
        let answer =
            w.engine().query(&elements("D", "2026-05-31", &["visits"]), w.at(day, hour)).unwrap();
        value(&answer, "visits")
    };
    assert_eq!((at("2026-05-31", 16), at("2026-06-01", 0)), (None, Some(9)));
}

#[test]
fn as_of_reads_what_was_known_then() {
    let mut w = world();
    w.put("A", "daily", "2026-01-01", &["100", "1"], ("2026-04-01", 9));
    let now = w.at(LATER.0, LATER.1);
    let visits = |as_of| {
        let request = QueryRequest { as_of, ..elements("A", "2026-01", &["visits"]) };
        value(&w.engine().query(&request, now).unwrap(), "visits")
    };
    assert_eq!(visits(None), Some(400));
    assert_eq!(visits(Some(now)), Some(400), "as of now is now");
    assert_eq!(visits(Some(w.at("2026-03-31", 0))), Some(310));
}

#[test]
fn a_question_that_cannot_be_answered_says_why() {
    let w = world();
    let now = w.at(LATER.0, LATER.1);
    let code = |request: &QueryRequest| w.engine().query(request, now).unwrap_err();
    let error = code(&ask("诊所", "2026-01"));
    assert_eq!(error.code(), "ambiguous_place");
    assert!(error.text(Lang::Zh).contains("省 › 一县 › 一镇 › 甲诊所"), "{}", error.text(Lang::Zh));
    assert_eq!(code(&ask("无此地", "2026-01")).code(), "unknown_place");
    assert_eq!(code(&ask("C1", "2026-02-31")).code(), "bad_period");
    assert_eq!(code(&ask("N", "2025-12")).code(), "unit_not_in_force");
    assert_eq!(code(&ask("G2", "2026-01")).code(), "network_not_in_force");
    assert_eq!(code(&by("C1", "2026-01", "planet", &[])).code(), "unknown_dimension");
    assert_eq!(code(&by("C1", "2026-01", "children,facility", &[])).code(), "two_dimensions");
    assert_eq!(code(&by("C1", "2026-01", "quarter", &[])).code(), "dimension_too_coarse");
    assert_eq!(code(&by("C1", "2026-01", "network", &[])).code(), "network_kind");
    let error = code(&elements("C1", "2026-01", &["visit"]));
    assert!(error.text(Lang::En).contains("visits"), "{error}");
    assert_eq!(w.engine().query(&ask("一县", "2026-01"), now).unwrap().unit, "C1");
}

#[test]
fn the_trace_of_a_number_names_every_version() {
    let mut w = world();
    let first = w.put("B", "daily", "2026-01-05", &["5", ""], ("2026-01-06", 9));
    let second = w.put("B", "daily", "2026-01-05", &["6", "NA"], ("2026-02-06", 9));
    let now = w.at(LATER.0, LATER.1);
    let trace = w.engine().report("B", "daily", "2026-01-05", true, None, now).unwrap();
    assert_eq!((trace.status.as_str(), trace.versions, trace.heads), ("on_time", 2, 1));
    assert_eq!(trace.arrived.as_deref(), Some("2026-01-06T09:00:00+08:00"));
    assert_eq!(trace.due.as_deref(), Some("2026-01-06T10:00:00+08:00"));
    let json = serde_json::to_value(&trace.values).unwrap();
    assert_eq!(json, serde_json::json!({"visits": 6, "home_visits": "NA"}));
    assert_eq!(trace.history[0].version, first.to_string());
    assert_eq!(trace.history[0].replaced_by, [second.to_string()]);
    assert!(trace.history[1].counted && !trace.history[0].counted);
    assert!(trace_table(&trace, &w.catalogue, Lang::Zh).contains("计入"));
    let csv = trace_csv(&trace);
    let lines: Vec<&str> = csv.lines().collect();
    // Two values counted, then those each version gave.
    assert_eq!(lines.len(), 1 + 2 + 3);
    assert!(lines[1].ends_with(",visits,6,reported"), "{csv}");
    assert!(lines[3].contains(",false,direct,") && lines[3].ends_with(",visits,5,"), "{csv}");
    let error = |facility: &str, form: &str, period: &str| {
        w.engine().report(facility, form, period, false, None, now).unwrap_err().code()
    };
    assert_eq!(error("B", "daily", "2026-01"), "wrong_period_type");
    assert_eq!(error("C1", "daily", "2026-01-05"), "not_a_reporter");
    assert_eq!(error("B", "dayly", "2026-01-05"), "unknown_code");
}

#[test]
fn waived_extended_and_out_of_duty_reports() {
    let mut w = world();
    let extensions = "form,unit,period,due,reason\n\
                      daily,C1,2026-01-01..2026-01-02,waived,\n\
                      daily,A,2026-01-03,2026-01-20T12:00,\n";
    w.organisation = super::fixture::build(&w.catalogue, super::fixture::UNITS, extensions);
    w.plans = Plans::default();
    let now = w.at(LATER.0, LATER.1);
    let request = CompletenessRequest {
        place: "A".to_owned(),
        period: "2026-01".to_owned(),
        form: Some("daily".to_owned()),
        ..CompletenessRequest::default()
    };
    let c = w.engine().completeness(&request, now).unwrap().completeness;
    assert_eq!((c.expected, c.unexpected, c.on_time), (29, 2, 29));
    let answer = w.engine().query(&elements("A", "2026-01", &["visits"]), now).unwrap();
    assert_eq!(value(&answer, "visits"), Some(310), "reports nobody owed are in the totals");
    let trace = w.engine().report("A", "daily", "2026-01-03", false, None, now).unwrap();
    assert_eq!(trace.due.as_deref(), Some("2026-01-20T12:00:00+08:00"));
}

// The exact JSON of a county, as `docs/formats.md` describes it. A change here is a change of the contract.
#[test]
fn the_json_of_a_county_is_the_documented_one() {
    let w = world();
    let now = w.at(LATER.0, LATER.1);
    let request = elements("C1", "2026-01", &["visits", "beds", "types_ytd", "led"]);
    let answer = w.engine().query(&request, now).unwrap();
    let json = serde_json::to_string_pretty(&answer).unwrap();
    assert_eq!(json.trim(), include_str!("county.golden.json").trim(), "{json}");
    let csv = query_csv(&answer, &w.organisation);
    let mut lines = csv.lines();
    assert_eq!(
        lines.next().unwrap(),
        "unit,name,path,kind,network,period,item,item_type,value,state,numerator,denominator,reports,\
         expected,facilities,facilities_expected,target,met,definition,flags"
    );
    assert_eq!(
        lines.next().unwrap(),
        "C1,一县,省/一县,,,2026-01,visits,element,1406,reported,,,77,108,5,6,,,1,"
    );
    let table = query_table(&answer, &w.catalogue, Lang::Zh);
    assert!(table.contains("1 406") && table.contains("应报"), "{table}");
    let table = query_table(&answer, &w.catalogue, Lang::En);
    assert!(table.contains("expected") && table.contains("visits visits"), "{table}");
}

#[test]
fn a_place_must_be_on_the_map_that_is_asked_for() {
    let mut w = World::new();
    let more = "\
C8,旧县,county,P,,2026-03-01,,,
C9,新县,county,P,2026-03-01,,,,
Q,迁诊所,clinic,C8,,2026-03-01,,,
Q,迁诊所,clinic,C9,2026-03-01,,,,
";
    w.organisation = build(&w.catalogue, &(UNITS.to_owned() + more), "");
    w.put("Q", "daily", "2026-01-05", &["7", "1"], ("2026-01-05", 20));
    let ask = |place: &str, membership| {
        let request = QueryRequest {
            place: place.to_owned(),
            period: "2026-01".to_owned(),
            elements: vec!["visits".to_owned()],
            membership,
            ..QueryRequest::default()
        };
        let answer = w.engine().query(&request, w.at("2026-06-01", 9));
        answer.map(|answer| answer.rows[0].elements.get("visits").unwrap().value)
    };
    // The county that came later has the clinic on today's map, the one that went has it as it was.
    assert_eq!(ask("C9", Membership::Today).unwrap(), Some(7));
    assert_eq!(ask("C8", Membership::AsItWas).unwrap(), Some(7));
    for (place, membership) in [("C9", Membership::AsItWas), ("C8", Membership::Today)] {
        let refused = ask(place, membership).unwrap_err();
        assert_eq!(refused.code(), "unit_not_in_force");
        assert!(refused.text(Lang::En).contains("2026-0"), "{}", refused.text(Lang::En));
    }
    assert_eq!(ask("Q", Membership::Today).unwrap(), Some(7));
}

#[test]
fn a_span_longer_than_any_question_is_refused() {
    let w = World::new();
    let ask = |period: &str, by: &str| {
        let request = QueryRequest {
            place: "P".to_owned(),
            period: period.to_owned(),
            by: vec![by.to_owned()],
            ..QueryRequest::default()
        };
        w.engine().query(&request, w.at("2026-06-01", 9)).map(|_| ()).map_err(|error| error.code())
    };
    assert_eq!(ask("1900..2200", ""), Err("span_too_long"));
    assert_eq!(ask("2026-01..2062-12", ""), Err("span_too_long"));
    assert_eq!(ask("2025-01..2026-12", "day"), Err("too_many_rows"));
    assert_eq!(ask("2016..2025", ""), Ok(()));
}

#[test]
fn questions_about_an_earlier_and_a_later_cube_share_plans_without_mixing_their_slots() {
    let mut w = World::new();
    w.cube = Cube::new(&w.catalogue);
    let now = w.at("2026-03-10", 12);
    let request = QueryRequest {
        place: "P".into(),
        period: "2026-01".into(),
        by: vec!["facility".into()],
        ..QueryRequest::default()
    };
    w.put("D", "daily", "2026-01-05", &["5", ""], ("2026-01-06", 9));
    let earlier = w.cube.clone();
    // It gets its place among the slots now; nothing of January changes.
    w.put("N", "daily", "2026-02-05", &["9", ""], ("2026-02-06", 9));
    let ask = |cube: &Cube, plans: &Plans| {
        let answer = Engine { cube, plans, ..w.engine() }.query(&request, now).unwrap();
        serde_json::to_value(answer).unwrap()
    };
    let expected = ask(&w.cube, &Plans::default());
    assert_eq!(ask(&earlier, &Plans::default()), expected, "January is the same in both");
    let shared = Plans::default();
    for cube in [&earlier, &w.cube, &earlier, &w.cube] {
        assert_eq!(ask(cube, &shared), expected);
    }
}

#[test]
fn an_answer_of_too_many_figures_is_refused_with_the_way_out() {
    let rows = |n: usize, items: usize| std::iter::repeat_n(items, n);
    let left = less(FIGURES_MAX, rows(9_000, 100)).unwrap();
    assert_eq!(left, 100_000);
    assert_eq!(less(left, rows(1_000, 100)).unwrap(), 0);
    let error = less(left, rows(1_001, 100)).unwrap_err();
    assert_eq!(error.code(), "too_many_figures");
    assert!(error.text(Lang::En).contains("name the elements and indicators wanted"), "{error:?}");
    assert!(error.text(Lang::Zh).contains("指明所要的数据元和指标"), "{error:?}");
}
