//! Indicators over the small country of the fixture, each against numbers worked out by hand.

use std::fmt::Write;

use banyan_shared::catalogue::Lang;
use banyan_shared::figures::State;
use banyan_shared::tables::registry::{TableName, Tables};

use super::fixture::{CATALOGUE, MEMBERS, NETWORKS, UNITS, World};
use super::*;

const INDICATORS: &[(&str, &str, &str)] = &[
    (
        "clinic_share",
        "kind = \"ratio\"\nnumerator = \"visits[kind=clinic]\"\ndenominator = \"visits\"",
        "",
    ),
    (
        "home_share",
        "kind = \"ratio\"\nnumerator = \"home_visits\"\ndenominator = \"visits[kind=clinic]\"",
        "",
    ),
    (
        "beds_each",
        "kind = \"ratio\"\nnumerator = \"beds[kind=clinic]\"\ndenominator = \"population\"\nfactor = 1000",
        "",
    ),
    (
        "mean_beds",
        "kind = \"ratio\"\nnumerator = \"visits[kind=clinic]\"\ndenominator = \"mean(beds[kind=clinic])\"",
        "",
    ),
    (
        "payer_each",
        "kind = \"ratio\"\nnumerator = \"payer_visits\"\ndenominator = \"facilities[kind=hospital]\"",
        "",
    ),
    ("payer_ytd", "kind = \"count\"\nvalue = \"ytd(payer_visits)\"", ""),
    ("bedded", "kind = \"share\"\nof = \"kind=clinic\"\nmeets = \"beds >= 3\"\nfactor = 100", ""),
    ("bedless", "kind = \"share\"\nof = \"kind=clinic\"\nmeets = \"beds = 0\"\nfactor = 100", ""),
    ("growing", "kind = \"growth\"\nvalue = \"visits[kind=clinic]\"\nfactor = 100", ""),
    (
        "growing_work",
        "kind = \"growth\"\nvalue = \"visits[kind=clinic] * working_days()\"\nfactor = 100",
        "",
    ),
    (
        "grid",
        "kind = \"registry_share\"\nof = \"kind=clinic\"\nmeets = \"role=*@community\"\nfactor = 100",
        "",
    ),
    ("received", "kind = \"reporting\"\nmeasure = \"received\"\nfactor = 100", ""),
    (
        "workdays",
        "kind = \"ratio\"\nnumerator = \"on_working_days(visits[kind=clinic])\"\ndenominator = \"working_days()\"",
        "",
    ),
    (
        "home_ytd",
        "kind = \"ratio\"\nnumerator = \"ytd(home_visits)\"\ndenominator = \"ytd(visits[kind=clinic])\"",
        "",
    ),
    (
        "work_each",
        "kind = \"ratio\"\nnumerator = \"visits\"\ndenominator = \"mean(beds) * working_days()\"",
        "",
    ),
    ("county_only", "kind = \"count\"\nvalue = \"beds\"", "levels = [\"county\"]"),
];

const TARGETS: &str = "\
indicator,unit,level,attribute,direction,low,high,from,to,source,status
clinic_share,,county,,up,30,,,,甲文件,official
clinic_share,C1,,,up,20,,,,乙文件,own
payer_ytd,,county,,up,12000,,,,丙文件,draft
";

/// The indicators, as a catalogue has them.
pub(super) fn indicators() -> String {
    let mut toml = String::new();
    for (code, definition, more) in INDICATORS {
        let percent = matches!(*code, "clinic_share" | "home_share");
        let factor = if percent { "\nfactor = 100" } else { "" };
        write!(
            toml,
            "\n[[indicator]]\ncode = \"{code}\"\nname = {{ zh = \"{code}\", en = \"{code}\" }}\nunit = \"visit\"\n\
             direction = \"up\"\ndecimals = 1\n{more}\n[[indicator.definition]]\nversion = \"1\"\n{definition}{factor}\n"
        )
        .unwrap();
    }
    toml
}

pub(super) fn world() -> World {
    world_with("form,unit,period,due,reason\n")
}

fn world_with(extensions: &str) -> World {
    let toml = CATALOGUE.to_owned() + &indicators();
    let mut w = World::new();
    w.catalogue = Catalogue::load(toml.as_bytes()).unwrap_or_else(|errors| {
        panic!("{}", errors.iter().map(|e| e.text(Lang::En)).collect::<Vec<_>>().join("\n"))
    });
    let files = [
        (TableName::Units, "units.csv", UNITS.as_bytes()),
        (TableName::Networks, "networks.csv", NETWORKS.as_bytes()),
        (TableName::Members, "members.csv", MEMBERS.as_bytes()),
        (TableName::Targets, "targets.csv", TARGETS.as_bytes()),
        (TableName::Extensions, "extensions.csv", extensions.as_bytes()),
    ];
    let tables = Tables::parse(&files).unwrap();
    w.organisation = Organisation::build(&w.catalogue, &tables).unwrap();
    w.cube = Cube::new(&w.catalogue);
    reserve(&mut w.cube, &w.catalogue, &w.organisation);
    w
}

pub(super) fn month(
    w: &mut World,
    unit: &str,
    month: &str,
    days: std::ops::RangeInclusive<u32>,
    values: [&str; 2],
) {
    for day in days {
        let date = format!("{month}-{day:02}");
        w.put(unit, "daily", &date, &values, (&date, 20));
    }
}

fn ask(w: &World, place: &str, period: &str, indicator: &str, now: (&str, u8)) -> IndicatorFigure {
    let request = QueryRequest {
        place: place.to_owned(),
        period: period.to_owned(),
        indicators: vec![indicator.to_owned()],
        ..QueryRequest::default()
    };
    let answer = w.engine().query(&request, w.at(now.0, now.1)).unwrap();
    assert!(answer.rows[0].elements.is_empty(), "naming indicators leaves elements out");
    answer.rows[0].indicators.get(indicator).unwrap().clone()
}

const FEBRUARY: (&str, u8) = ("2026-02-07", 9);
const LATER: (&str, u8) = ("2026-06-01", 12);

#[test]
fn a_share_waits_for_the_hospital_and_counts_matched_clinics_only() {
    let mut w = world();
    month(&mut w, "A", "2026-01", 1..=31, ["10", "1"]);
    // 25 of 31 days are enough, 24 are not.
    month(&mut w, "B", "2026-01", 1..=25, ["10", "1"]);
    month(&mut w, "M", "2026-01", 1..=24, ["10", "1"]);
    let share = ask(&w, "C1", "2026-01", "clinic_share", FEBRUARY);
    assert_eq!((share.value, share.state), (None, State::Waiting));
    assert_eq!(share.absent(), ["hospital"]);
    assert_eq!(share.waiting_for().len(), 1);
    let waiting = &share.waiting_for()[0];
    assert_eq!((&*waiting.form, &*waiting.unit), ("hospital_monthly", "H1"));
    assert_eq!(waiting.due, "2026-02-08T23:59:59+08:00");
    // The time over, nothing can come any more.
    let share = ask(&w, "C1", "2026-01", "clinic_share", ("2026-03-01", 9));
    assert_eq!((share.value, share.state), (None, State::Missing));
    assert!(share.waiting_for().is_empty());

    w.put("H1", "hospital_monthly", "2026-01", &["1000", "50", "90", "4"], ("2026-02-05", 9));
    let share = ask(&w, "C1", "2026-01", "clinic_share", FEBRUARY);
    // A 310 and B 250 of these and the hospital's 1000; K, M, N are not matched.
    assert_eq!((share.numerator, share.denominator), (Some(560.0), Some(1560.0)));
    assert_eq!((share.value, share.state), (Some(35.9), State::Reported));
    assert_eq!((share.coverage.matched, share.coverage.expected), (3, 6));
    // The target that names the county goes before that of its level.
    assert_eq!((share.bound(), share.met), (Some(20.0), Some(true)));
    let target = share.target.unwrap();
    assert_eq!((&*target.source, target.status.code()), ("乙文件", "own"));
    // A day is too fine while a hospital belongs to the set, and is not where none does.
    let day = ask(&w, "C1", "2026-01-05", "clinic_share", FEBRUARY);
    assert_eq!((day.value, day.state), (None, State::TooFine));
    let day = ask(&w, "T1", "2026-01-05", "clinic_share", FEBRUARY);
    assert_eq!((day.value, day.coverage.matched), (Some(100.0), 3));
}

#[test]
fn stocks_are_the_last_ones_and_means_are_over_months() {
    let mut w = world();
    for (n, beds) in [(1, "2"), (2, "4"), (3, "6")] {
        let period = format!("2026-{n:02}");
        let at = format!("2026-{:02}-02", n + 1);
        w.put("A", "monthly", &period, &[beds, "100"], (&at, 9));
        w.put("M", "monthly", &period, &[beds, "100"], (&at, 9));
        month(&mut w, "A", &format!("2026-{n:02}"), 1..=28, ["10", ""]);
    }
    let beds = ask(&w, "C1", "2026Q1", "beds_each", LATER);
    // M is in another county by the end of March: only A's newest pair is left, and each stock once.
    assert_eq!((beds.numerator, beds.denominator), (Some(6.0), Some(100.0)));
    assert_eq!(beds.value, Some(60.0));
    let there = ask(&w, "C2", "2026Q1", "beds_each", LATER);
    assert_eq!((there.numerator, there.denominator), (Some(6.0), Some(100.0)));
    // 840 visits on a mean of 4 beds.
    let mean = ask(&w, "T1", "2026Q1", "mean_beds", LATER);
    assert_eq!(
        (mean.numerator, mean.denominator, mean.value),
        (Some(840.0), Some(4.0), Some(210.0))
    );
}

#[test]
fn an_area_counts_its_hospitals_where_its_desk_is_in_and_a_network_shows_the_area() {
    let mut w = world();
    w.put("B1", "desk_monthly", "2026-01", &["4000"], ("2026-02-10", 9));
    let each = ask(&w, "P", "2026-01", "payer_each", LATER);
    // One desk, so one hospital: that of the other county has nobody to be set against.
    assert_eq!((each.numerator, each.denominator), (Some(4000.0), Some(1.0)));
    assert_eq!(each.area(), Some("P"));
    let network = ask(&w, "G1", "2026-01", "payer_each", LATER);
    assert_eq!((network.value, network.area()), (Some(4000.0), Some("C1")));
    // A place inside the network is not its area.
    let by_county = QueryRequest {
        place: "G1".to_owned(),
        period: "2026-01".to_owned(),
        by: vec!["county".to_owned()],
        indicators: vec!["payer_each".to_owned()],
        ..QueryRequest::default()
    };
    for row in w.engine().query(&by_county, w.at(LATER.0, LATER.1)).unwrap().rows {
        let each = row.indicators.get("payer_each").unwrap();
        assert_eq!((each.value, each.state), (None, State::NotApplicable), "{:?}", row.key);
    }
    let none = ask(&w, "L1", "2026-01", "payer_each", LATER);
    assert_eq!((none.value, none.state), (None, State::NotApplicable));

    w.put("B1", "desk_monthly", "2026-02", &["1000"], ("2026-03-10", 9));
    let year = ask(&w, "C1", "2026-02", "payer_ytd", LATER);
    assert_eq!((year.value, year.denominator), (Some(5000.0), None));
    assert_eq!((year.coverage.matched, year.coverage.expected), (2, 2));
    // 59 of 365 days of 12,000.
    assert_eq!(year.pace().map(|pace| pace.round()), Some(1940.0));
    assert_eq!(year.met, Some(false));
    assert_eq!(year.flags(), ["on_pace"]);
    let request = QueryRequest {
        place: "C1".to_owned(),
        period: "2025-12..2026-01".to_owned(),
        indicators: vec!["payer_ytd".to_owned()],
        ..QueryRequest::default()
    };
    let refused = w.engine().query(&request, w.at(LATER.0, LATER.1)).unwrap_err();
    assert_eq!(refused.code(), "across_new_year");
}

#[test]
fn facilities_are_counted_once_by_what_they_meet() {
    let mut w = world();
    for (unit, beds) in [("A", "3"), ("B", "2"), ("M", "5")] {
        w.put(unit, "monthly", "2026-01", &[beds, "100"], ("2026-02-02", 9));
    }
    let share = ask(&w, "C1", "2026-01", "bedded", LATER);
    // A and M of A, B, M; N owes January's report and has not sent it; K is closed.
    assert_eq!((share.numerator, share.denominator), (Some(2.0), Some(3.0)));
    assert_eq!((share.coverage.matched, share.coverage.expected), (3, 4));
    assert_eq!(share.value, Some(66.7));
    // Every clinic below the county is in its community, D is in the other county's only from February.
    let grid = ask(&w, "P", "2026-01", "grid", LATER);
    assert_eq!((grid.numerator, grid.denominator), (Some(4.0), Some(5.0)));
    let grid = ask(&w, "P", "2026-02", "grid", LATER);
    assert_eq!((grid.numerator, grid.denominator), (Some(5.0), Some(5.0)));
}

#[test]
fn a_figure_since_january_stands_where_a_month_asks_nothing() {
    let mut w = world_with(
        "form,unit,period,due,reason\ndesk_monthly,C1,2026-02,waived,x\ndaily,C1,2026-02-01..2026-02-28,waived,x\n",
    );
    w.put("B1", "desk_monthly", "2026-01", &["700"], ("2026-02-10", 9));
    let ytd = ask(&w, "C1", "2026-02", "payer_ytd", LATER);
    assert_eq!((ytd.value, ytd.coverage.expected), (Some(700.0), 1));
    month(&mut w, "A", "2026-01", 1..=31, ["10", "1"]);
    let ytd = ask(&w, "A", "2026-02", "home_ytd", LATER);
    assert_eq!((ytd.numerator, ytd.coverage.matched), (Some(31.0), 31));
    let month = ask(&w, "A", "2026-02", "home_share", LATER);
    assert_eq!((month.value, month.state), (None, State::NotApplicable));
}

#[test]
fn growth_compares_those_who_answered_both_times() {
    let mut w = world();
    month(&mut w, "A", "2025-01", 1..=31, ["10", ""]);
    month(&mut w, "A", "2026-01", 1..=31, ["12", ""]);
    // Answered now only: in neither number.
    month(&mut w, "B", "2026-01", 1..=31, ["99", ""]);
    let growth = ask(&w, "T1", "2026-01", "growing", LATER);
    assert_eq!((growth.numerator, growth.denominator), (Some(62.0), Some(310.0)));
    assert_eq!(growth.value, Some(20.0));
    assert_eq!((growth.coverage.matched, growth.coverage.expected), (31, 93));
    // Who was not there a year ago is in neither number either.
    for day in 28..=31 {
        let date = format!("2026-01-{day}");
        w.put("N", "daily", &date, &["1000", ""], (&date, 20));
    }
    let growth = ask(&w, "C1", "2026-01", "growing", LATER);
    assert_eq!((growth.numerator, growth.denominator), (Some(62.0), Some(310.0)));
    assert_eq!((growth.coverage.matched, growth.coverage.expected), (31, 93 + 10 + 4));
    let none = ask(&w, "T1", "2025-01", "growing", LATER);
    assert_eq!((none.value, none.state), (None, State::Missing));
}

#[test]
fn growth_has_the_working_days_of_each_year() {
    let mut w = world();
    month(&mut w, "A", "2025-01", 1..=31, ["10", ""]);
    month(&mut w, "A", "2026-01", 1..=31, ["10", ""]);
    // 22 days from Monday to Friday in January 2026, 23 the year before.
    let growth = ask(&w, "A", "2026-01", "growing_work", LATER);
    assert_eq!((growth.numerator, growth.denominator), (Some(-310.0), Some(7130.0)));
}

#[test]
fn the_usual_share_weighs_who_is_in() {
    let mut w = world();
    month(&mut w, "A", "2025-12", 1..=31, ["30", ""]);
    month(&mut w, "B", "2025-12", 1..=31, ["10", ""]);
    month(&mut w, "A", "2026-01", 1..=31, ["30", "3"]);
    let share = ask(&w, "C1", "2026-01", "home_share", LATER);
    // A alone is matched; it usually has three quarters of what A and B have, K, M and N had nothing.
    assert_eq!(share.coverage.share_of_usual, Some(0.75));
    assert_eq!(share.value, Some(10.0));
}

#[test]
fn rates_of_reporting_working_days_and_levels() {
    let mut w = world();
    month(&mut w, "A", "2026-01", 1..=31, ["10", ""]);
    let rate = ask(&w, "A", "2026-01", "received", LATER);
    // The month form is missing.
    assert_eq!(
        (rate.numerator, rate.denominator, rate.value),
        (Some(31.0), Some(32.0), Some(96.9))
    );
    // January 2026 has 22 days from Monday to Friday.
    let days = ask(&w, "A", "2026-01", "workdays", LATER);
    assert_eq!(
        (days.numerator, days.denominator, days.value),
        (Some(220.0), Some(22.0), Some(10.0))
    );
    let not_here = ask(&w, "T1", "2026-01", "county_only", LATER);
    assert_eq!((not_here.value, not_here.state), (None, State::NotShownHere));
    let request = QueryRequest {
        place: "C1".to_owned(),
        period: "2026-01".to_owned(),
        indicators: vec!["clinic_shar".to_owned()],
        ..QueryRequest::default()
    };
    let refused = w.engine().query(&request, w.at(LATER.0, LATER.1)).unwrap_err();
    assert_eq!(refused.code(), "unknown_code");
    assert!(refused.text(Lang::En).contains("clinic_share"), "{}", refused.text(Lang::En));
}

#[test]
fn rows_have_indicators_of_their_own_and_tables_say_why_there_is_no_value() {
    let mut w = world();
    month(&mut w, "A", "2026-01", 1..=31, ["10", "1"]);
    let request = QueryRequest {
        place: "C1".to_owned(),
        period: "2026-01".to_owned(),
        by: vec!["children".to_owned()],
        indicators: vec!["home_share".to_owned(), "clinic_share".to_owned()],
        ..QueryRequest::default()
    };
    let answer = w.engine().query(&request, w.at("2026-02-07", 9)).unwrap();
    let of = |unit: &str| {
        let row = answer.rows.iter().find(|row| row.key.unit.as_deref() == Some(unit)).unwrap();
        row.indicators.get("home_share").unwrap()
    };
    assert_eq!(of("T1").value, Some(10.0));
    assert_eq!((of("T2").value, of("T2").state), (None, State::Missing));
    let request = QueryRequest { by: vec![], ..request };
    let answer = w.engine().query(&request, w.at("2026-02-07", 9)).unwrap();
    let table = query_table(&answer, &w.catalogue, Lang::Zh);
    assert!(table.contains("待报：医院；H1 医院月报，2026-02-08 23:59 前"), "{table}");
    let csv = query_csv(&answer, &w.organisation);
    assert!(csv.contains(",clinic_share,indicator,,waiting,,,1,6,,,20,,1,"), "{csv}");
}
