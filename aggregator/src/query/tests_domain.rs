//! What the texts behind the seeds say, as cases: the shipped catalogue over a small country in which everything
//! that happens to facilities happens once.

use banyan_shared::catalogue::Lang;
use banyan_shared::catalogue::rule::check_report;
use banyan_shared::figures::State;
use banyan_shared::report::Value;
use banyan_shared::tables::registry::{TableName, Tables};

use super::fixture::World;
use super::*;

const CATALOGUE: &str = include_str!("../../../seeds/catalogue.toml");
const TARGETS: &str = include_str!("../../../seeds/targets.csv");

/// On 1 March VM moves, VG merges into V3 of the other county, VX closes for good. W moves on 1 February, MM on
/// 16 January. T2's township becomes a street on 15 February.
const UNITS: &str = "\
code,name,kind,parent,opened,closed,status,succeeded_by
P,省,province,,,,,
S,市,city,P,,,,
K1,一县,county,S,,,,
K2,二县,county,S,,,,
T1,一镇,township,K1,,,,
T2,二镇,township,K1,,,,
T3,三镇,township,K2,,,,
T1-TH,一镇卫生院,township_health_centre,T1,,,,
T2-TH,二镇卫生院,township_health_centre,T2,,2026-02-15,,
T2-TH,二街道社区卫生服务中心,community_health_centre,T2,2026-02-15,,,
T3-TH,三镇卫生院,township_health_centre,T3,,,,
W-TH,移镇卫生院,township_health_centre,T2,,2026-02-01,,
W-TH,移镇卫生院,township_health_centre,T3,2026-02-01,,,
V1-VC,一村卫生室,village_clinic,T1,,,,
VM-VC,移村卫生室,village_clinic,T1,,2026-03-01,,
VM-VC,移村卫生室,village_clinic,T3,2026-03-01,,,
MM-VC,中旬移村卫生室,village_clinic,T1,,2026-01-16,,
MM-VC,中旬移村卫生室,village_clinic,T3,2026-01-16,,,
VG-VC,东村卫生室,village_clinic,T1,,2026-03-01,,V3-VC
VX-VC,撤村卫生室,village_clinic,T2,,2026-03-01,,
V3-VC,东村卫生室,village_clinic,T3,,,,
K1-CN,一县人民医院,county_hospital,K1,,,,
K2-CN,二县人民医院,county_hospital,K2,,,,
RC1,国家中心,regional_centre,S,,,,
RC2,省级中心,regional_centre,S,,,,
RC3,省级中医中心,regional_centre,S,,,,
K1-CB,一县统计岗,county_desk,K1,,,,
";
const ATTRIBUTES: &str = "\
unit,attribute,value,from,to
RC1,grade,national,,
RC2,grade,provincial,,
RC3,grade,provincial_tcm,,
";
const NETWORKS: &str = "\
code,name,kind,area,opened
CC-A,甲医共体,county_community,K1,
CC-B,乙医共体,county_community,K1,
CC-2,丙医共体,county_community,K2,
AL-1,联盟一,specialist_alliance,,
AL-2,联盟二,specialist_alliance,,
AL-3,新联盟,specialist_alliance,,2026-03-01
";
/// The township's own row goes before the county's; V1 is taken out; in the second county only some kinds belong.
const MEMBERS: &str = "\
network,unit,role,from,to,kinds
CC-A,K1,member,,,
CC-A,K1-CN,lead,,,
CC-A,V1-VC,none,,,
CC-B,T2,member,,,
CC-2,K2,member,,,township_health_centre;community_health_centre;village_clinic
AL-1,V1-VC,member,,,
AL-1,T1-TH,member,,,
AL-2,V1-VC,member,,,
AL-2,K2-CN,member,,,
AL-3,T1-TH,member,,,
";
/// Before 2026 V1 owes the daily form alone, and before 11 December 2025 T3's centre none.
const DUTIES: &str =
    "form,unit,from,to\nvc_monthly,V1-VC,2026-01-01,\nthc_daily,T3-TH,2025-12-11,\n";

fn world() -> World {
    let mut w = World::new();
    w.catalogue = Catalogue::load(CATALOGUE.as_bytes()).unwrap();
    let files = [
        (TableName::Units, "units.csv", UNITS.as_bytes()),
        (TableName::Attributes, "attributes.csv", ATTRIBUTES.as_bytes()),
        (TableName::Networks, "networks.csv", NETWORKS.as_bytes()),
        (TableName::Members, "members.csv", MEMBERS.as_bytes()),
        (TableName::Duties, "duties.csv", DUTIES.as_bytes()),
        (TableName::Targets, "targets.csv", TARGETS.as_bytes()),
    ];
    let tables = Tables::parse(&files).unwrap();
    w.organisation = Organisation::build(&w.catalogue, &tables).unwrap();
    w.cube = Cube::new(&w.catalogue);
    reserve(&mut w.cube, &w.catalogue, &w.organisation);
    w
}

/// Puts a report that answers some elements.
fn put(w: &mut World, unit: &str, form: &str, period: &str, values: &[(&str, &str)], at: &str) {
    let model = &w.catalogue.forms[w.catalogue.form(form).unwrap().at()];
    let mut lines = vec![""; model.lines.len()];
    for (element, value) in values {
        let element = w.catalogue.element(element).unwrap();
        lines[model.line_of(element).unwrap()] = value;
    }
    w.put(unit, form, period, &lines, (at, 9));
}

/// The same every day of January, in time.
fn january(w: &mut World, unit: &str, form: &str, values: &[(&str, &str)]) {
    for day in 1..=31 {
        let date = format!("2026-01-{day:02}");
        put(w, unit, form, &date, values, &date);
    }
}

fn request(place: &str, period: &str) -> QueryRequest {
    QueryRequest { place: place.to_owned(), period: period.to_owned(), ..QueryRequest::default() }
}

const LATER: (&str, u8) = ("2026-06-01", 12);

fn query(w: &World, request: &QueryRequest) -> QueryAnswer {
    w.engine().query(request, w.at(LATER.0, LATER.1)).unwrap()
}

fn refusal(w: &World, request: &QueryRequest) -> (&'static str, String) {
    let refused = w.engine().query(request, w.at(LATER.0, LATER.1)).unwrap_err();
    (refused.code(), refused.text(Lang::En))
}

fn element(w: &World, place: &str, period: &str, code: &str) -> ElementFigure {
    let asked = QueryRequest { elements: vec![code.to_owned()], ..request(place, period) };
    query(w, &asked).rows[0].elements.get(code).unwrap().clone()
}

fn indicator_at(w: &World, place: &str, period: &str, code: &str, at: &str) -> IndicatorFigure {
    let asked = QueryRequest { indicators: vec![code.to_owned()], ..request(place, period) };
    let answer = w.engine().query(&asked, w.at(at, 12)).unwrap();
    answer.rows[0].indicators.get(code).unwrap().clone()
}

fn indicator(w: &World, place: &str, period: &str, code: &str) -> IndicatorFigure {
    indicator_at(w, place, period, code, LATER.0)
}

#[test]
fn clinics_that_move_merge_and_close_are_read_three_ways() {
    let mut w = world();
    for (unit, day, visits) in [
        ("V1-VC", "2026-02-28", "1"),
        ("VM-VC", "2026-02-28", "5"),
        ("VM-VC", "2026-03-01", "7"),
        ("VG-VC", "2026-02-28", "3"),
        ("VX-VC", "2026-02-28", "2"),
        ("V3-VC", "2026-02-28", "4"),
        ("V3-VC", "2026-03-01", "4"),
    ] {
        put(&mut w, unit, "vc_daily", day, &[("total_visits", visits)], "2026-03-02");
    }
    let on = |membership, place: &str| {
        let elements = vec!["total_visits".to_owned()];
        let asked = QueryRequest { elements, membership, ..request(place, "2026Q1") };
        query(&w, &asked).rows[0].elements.get("total_visits").unwrap().value.unwrap()
    };
    let all = |membership| ["K1", "K2", "P"].map(|place| on(membership, place));
    assert_eq!(all(Membership::AsItWas), [1 + 5 + 3 + 2, 7 + 8, 26]);
    // VM with both its days and VG by its successor are in the second county; VX keeps its last place.
    assert_eq!(all(Membership::Today), [1 + 2, 12 + 3 + 8, 26]);
    assert_eq!(all(Membership::On("2026-01-01".parse().unwrap())), [1 + 12 + 3 + 2, 8, 26]);
}

#[test]
fn beds_that_moved_are_counted_once_in_a_quarter() {
    let mut w = world();
    for (month, beds) in [("2026-01", "20"), ("2026-02", "22"), ("2026-03", "22")] {
        put(&mut w, "W-TH", "thc_monthly", month, &[("beds_actual", beds)], "2026-04-03");
    }
    let beds = |place: &str, period: &str| element(&w, place, period, "beds_actual").value;
    assert_eq!(
        [beds("P", "2026Q1"), beds("K1", "2026Q1"), beds("K2", "2026Q1")],
        [Some(22), None, Some(22)]
    );
    assert_eq!([beds("K1", "2026-01"), beds("K2", "2026-01")], [Some(20), None]);
    assert_eq!([beds("K1", "2026-02"), beds("K2", "2026-02")], [None, Some(22)]);
}

#[test]
fn a_township_that_becomes_a_street_owes_one_month_form_and_keeps_its_trend() {
    let mut w = world();
    put(&mut w, "T2-TH", "thc_daily", "2026-02-14", &[("total_visits", "5")], "2026-02-15");
    put(&mut w, "T2-TH", "chc_daily", "2026-02-15", &[("total_visits", "6")], "2026-02-16");
    let asked = CompletenessRequest {
        place: "T2-TH".to_owned(),
        period: "2026-02".to_owned(),
        ..CompletenessRequest::default()
    };
    let answer = w.engine().completeness(&asked, w.at(LATER.0, LATER.1)).unwrap();
    let owed: Vec<(&str, u64)> = answer
        .completeness
        .by_form
        .iter()
        .filter(|form| form.expected > 0)
        .map(|form| (form.form.as_str(), form.expected))
        .collect();
    assert_eq!(owed, [("thc_daily", 14), ("chc_daily", 14), ("chc_monthly", 1)]);
    assert_eq!(element(&w, "T2", "2026-02", "total_visits").value, Some(11));
    // Kinds stay as they were, on today's map too.
    for membership in [Membership::AsItWas, Membership::Today] {
        let asked = QueryRequest {
            by: vec!["kind".to_owned()],
            elements: vec!["total_visits".to_owned()],
            membership,
            ..request("T2-TH", "2026-02")
        };
        let answer = query(&w, &asked);
        let kinds: Vec<(&str, Option<u64>)> = answer
            .rows
            .iter()
            .map(|row| {
                let figure = row.elements.get("total_visits").unwrap();
                (row.key.kind.as_deref().unwrap(), figure.value)
            })
            .collect();
        assert_eq!(
            kinds,
            [("township_health_centre", Some(5)), ("community_health_centre", Some(6))]
        );
    }
}

#[test]
fn communities_of_a_county_divide_it_by_the_most_specific_row() {
    let mut w = world();
    for unit in ["V1-VC", "VM-VC", "VG-VC", "VX-VC", "V3-VC"] {
        put(&mut w, unit, "vc_daily", "2026-01-05", &[("total_visits", "1")], "2026-01-06");
    }
    for unit in ["T1-TH", "T2-TH", "T3-TH", "W-TH"] {
        put(&mut w, unit, "thc_daily", "2026-01-05", &[("total_visits", "10")], "2026-01-06");
    }
    for unit in ["K1-CN", "K2-CN"] {
        put(&mut w, unit, "hosp_monthly", "2026-01", &[("total_visits", "100")], "2026-02-03");
    }
    let by = |place: &str, kind: &str| {
        let asked = QueryRequest {
            by: vec!["network".to_owned()],
            network: Some(kind.to_owned()),
            elements: vec!["total_visits".to_owned()],
            ..request(place, "2026-01")
        };
        let answer = query(&w, &asked);
        let rows: Vec<(String, Option<u64>)> = answer
            .rows
            .iter()
            .map(|row| {
                let figure = row.elements.get("total_visits").unwrap();
                (row.key.network.clone().unwrap(), figure.value)
            })
            .collect();
        (rows, answer.reconciliation.unwrap().get("total_visits").unwrap().clone())
    };
    let rows = |list: &[(&str, u64)]| -> Vec<(String, Option<u64>)> {
        list.iter().map(|(code, n)| ((*code).to_owned(), Some(*n))).collect()
    };
    // CC-A without T2's facilities (their township's row is lower) and without V1 (taken out): two clinics, a
    // centre, the lead. CC-2 has no hospital: kinds.
    let (communities, r) = by("S", "county_community");
    assert_eq!(communities, rows(&[("CC-2", 11), ("CC-A", 112), ("CC-B", 21)]));
    assert_eq!((r.sum_of_groups.value, r.more_than_once.value, r.outside_area.value), (144, 0, 0));
    assert_eq!((r.in_none.value, r.administrative_total.value), (101, 245));
    let none = |kind: &str| r.in_none.by_kind.get(kind).map(|one| one.value);
    assert_eq!((none("village_clinic"), none("county_hospital")), (Some(1), Some(100)));
    // In two alliances and counted once.
    let (alliances, r) = by("K1", "specialist_alliance");
    assert_eq!(alliances, rows(&[("AL-1", 11), ("AL-2", 101)]));
    assert_eq!((r.more_than_once.facilities, r.more_than_once.value), (1, 1));
    assert_eq!((r.outside_area.facilities, r.outside_area.value), (1, 100));
    assert_eq!(
        r.sum_of_groups.value - r.more_than_once.value - r.outside_area.value + r.in_none.value,
        r.administrative_total.value
    );
    assert_eq!(
        r.administrative_total.value,
        element(&w, "K1", "2026-01", "total_visits").value.unwrap()
    );
}

#[test]
fn the_share_of_primary_care_waits_for_the_hospital_and_the_two_sides_of_a_referral_meet() {
    let mut w = world();
    january(&mut w, "V3-VC", "vc_daily", &[("total_visits", "10")]);
    let centre = [("total_visits", "20"), ("referrals_down_in", "1")];
    january(&mut w, "T3-TH", "thc_daily", &centre);
    put(&mut w, "V3-VC", "vc_monthly", "2026-01", &[("referrals_down_in", "5")], "2026-02-02");
    put(&mut w, "MM-VC", "vc_monthly", "2026-01", &[("referrals_down_in", "0")], "2026-02-02");

    let share = indicator_at(&w, "K2", "2026-01", "primary_visit_share", "2026-02-07");
    assert_eq!((share.value, share.state), (None, State::Waiting));
    assert_eq!(share.absent(), ["county_hospital"]);
    let whom: Vec<(&str, &str)> =
        share.waiting_for().iter().map(|one| (&*one.form, &*one.unit)).collect();
    assert_eq!(whom, [("hosp_monthly", "K2-CN")]);
    let rate = indicator_at(&w, "K2", "2026-01", "down_referral_accept_rate", "2026-02-07");
    assert_eq!((rate.value, rate.state), (None, State::Waiting));
    let late = indicator_at(&w, "K2", "2026-01", "primary_visit_share", "2026-02-10");
    assert_eq!((late.value, late.state), (None, State::Missing));

    let hospital = [("total_visits", "70"), ("referrals_down_out", "40")];
    put(&mut w, "K2-CN", "hosp_monthly", "2026-01", &hospital, "2026-02-07");
    let share = indicator_at(&w, "K2", "2026-01", "primary_visit_share", "2026-02-07");
    assert_eq!((share.numerator, share.denominator), (Some(930.0), Some(1000.0)));
    assert_eq!((share.value, share.met, share.bound()), (Some(93.0), Some(true), Some(65.0)));
    // The clinic that came in the middle of the month sent no day: in the formula, not matched.
    assert_eq!((share.coverage.matched, share.coverage.expected), (3, 4));
    // 31 + 5 received of 40 sent, though nobody is asked both.
    let rate = indicator_at(&w, "K2", "2026-01", "down_referral_accept_rate", "2026-02-07");
    assert_eq!((rate.numerator, rate.denominator), (Some(36.0), Some(40.0)));
    assert_eq!((rate.value, rate.coverage.matched), (Some(90.0), 4));
}

#[test]
fn case_mix_is_weight_over_cases_with_targets_by_grade() {
    let mut w = world();
    for (unit, weight, cases) in [
        ("RC1", "2100000", "2000"),
        ("RC2", "450000", "500"),
        ("RC3", "87000", "100"),
        ("K1-CN", "NA", "NA"),
        ("K2-CN", "NA", "NA"),
    ] {
        let values = [("drg_weight_milli", weight), ("drg_cases", cases)];
        put(&mut w, unit, "hosp_monthly", "2026-01", &values, "2026-02-05");
    }
    let of = |unit: &str| {
        let cmi = indicator(&w, unit, "2026-01", "cmi");
        (cmi.value, cmi.bound(), cmi.met)
    };
    assert_eq!(of("RC1"), (Some(1.05), Some(1.0), Some(true)));
    assert_eq!(of("RC2"), (Some(0.9), Some(0.91), Some(false)));
    assert_eq!(of("RC3"), (Some(0.87), Some(0.86), Some(true)));
    let cmi = indicator(&w, "P", "2026-01", "cmi");
    assert_eq!((cmi.numerator, cmi.denominator), (Some(2_637_000.0), Some(2_600_000.0)));
    // The mean of the three would be 0.94.
    assert_eq!((cmi.value, cmi.bound()), (Some(1.014), None));
}

#[test]
fn distinct_counts_are_never_added_nor_read_across_january() {
    let mut w = world();
    for (unit, month, kinds) in
        [("K1-CN", "2026-01", "80"), ("K1-CN", "2026-02", "120"), ("K2-CN", "2026-02", "90")]
    {
        let values = [("disease_types_ytd", kinds)];
        put(&mut w, unit, "hosp_monthly", month, &values, "2026-03-03");
    }
    let types = |place: &str, period: &str| {
        let figure = element(&w, place, period, "disease_types_ytd");
        (figure.value, figure.state)
    };
    assert_eq!(types("K1", "2026Q1"), (Some(120), State::Reported));
    assert_eq!(types("S", "2026-02"), (None, State::NotAdditive));
    // One of two that owe it speaks for itself, not for both.
    assert_eq!(types("S", "2026-01"), (None, State::NotAdditive));
    let elements = vec!["disease_types_ytd".to_owned()];
    let across = QueryRequest { elements, ..request("K1", "2025-12..2026-01") };
    assert_eq!(refusal(&w, &across).0, "across_new_year");
}

#[test]
fn the_timing_of_1000_reports_adds_up_as_the_notice_has_it() {
    let mut w = world();
    let first: banyan_shared::period::Date = "2023-01-01".parse().unwrap();
    for n in 0..1000 {
        let day = first.plus(n);
        // 443 on time, 401 late, 156 never; by 10:00 the next day and three days of grace.
        let after = match n {
            ..443 => 1,
            443..844 => 9,
            _ => continue,
        };
        let values = [("total_visits", "1")];
        put(&mut w, "V1-VC", "vc_daily", &day.to_string(), &values, &day.plus(after).to_string());
    }
    let asked = CompletenessRequest {
        place: "V1-VC".to_owned(),
        period: format!("{first}..{}", first.plus(999)),
        form: Some("vc_daily".to_owned()),
        ..CompletenessRequest::default()
    };
    let c = w.engine().completeness(&asked, w.at(LATER.0, LATER.1)).unwrap().completeness;
    assert_eq!((c.expected, c.on_time, c.late, c.missing), (1000, 443, 401, 156));
    let rates = ["on_time_rate", "late_rate", "missing_rate"].map(|code| {
        let figure = indicator(&w, "V1-VC", &asked.period, code);
        figure.value.unwrap()
    });
    assert_eq!(rates, [44.3, 40.1, 15.6]);
}

#[test]
fn places_and_networks_that_are_not_there_are_refused_with_candidates() {
    let w = world();
    let (code, text) = refusal(&w, &request("东村卫生室", "2026-01"));
    assert_eq!(code, "ambiguous_place");
    assert!(text.contains("VG-VC") && text.contains("V3-VC"), "{text}");
    assert_eq!(refusal(&w, &request("X9-VC", "2026-01")).0, "unknown_place");
    let (code, text) = refusal(&w, &request("AL-3", "2026-01"));
    assert_eq!(code, "network_not_in_force");
    assert!(text.contains("2026-03-01"), "{text}");
    let before = Membership::On("2026-02-28".parse().unwrap());
    let asked = QueryRequest { membership: before, ..request("AL-3", "2026-03") };
    assert_eq!(refusal(&w, &asked).0, "network_not_in_force");
    let rows = query(&w, &request("AL-3", "2026-03")).rows;
    assert_eq!(rows.len(), 1);
}

#[test]
fn a_clinic_that_moved_inside_a_month_weighs_by_its_days_in_each_place() {
    let mut w = world();
    january(&mut w, "V3-VC", "vc_daily", &[("total_visits", "10")]);
    january(&mut w, "MM-VC", "vc_daily", &[("total_visits", "4")]);
    january(&mut w, "T3-TH", "thc_daily", &[("total_visits", "20")]);
    for unit in ["V3-VC", "MM-VC"] {
        let values = [("staff_licensed_doctors", "1")];
        put(&mut w, unit, "vc_monthly", "2026-01", &values, "2026-02-02");
    }
    let values = [("staff_licensed_doctors", "2")];
    put(&mut w, "T3-TH", "thc_monthly", "2026-01", &values, "2026-02-02");
    let load = indicator(&w, "T3", "2026-01", "visits_per_doctor_day");
    // 22 working days, 11 of them from the 16th on.
    assert_eq!(load.numerator, Some(310.0 + 620.0 + 16.0 * 4.0));
    assert_eq!(load.denominator, Some(22.0 + 2.0 * 22.0 + 11.0));
}

#[test]
fn a_report_with_two_elements_of_a_formula_is_waited_for_once() {
    let w = world();
    // The running month of the province: 31 days of clinics and centres, more than are listed.
    let share = indicator_at(&w, "T1", "2026-01", "tcm_visit_share", "2026-01-01");
    assert_eq!((share.state, share.waiting_for().len()), (State::Waiting, 20));
    // T1-TH, V1, VM, VG for 31 days, MM for the 15 it is there.
    let more = 4 * 31 + 15 - 20;
    assert_eq!(share.flags(), [&*format!("waiting_for_more:{more}")]);
}

#[test]
fn a_last_not_applicable_ends_a_stock() {
    let mut w = world();
    for (day, patients) in [("2026-01-05", "3"), ("2026-01-06", "NA")] {
        put(&mut w, "T1-TH", "thc_daily", day, &[("inpatients_end", patients)], "2026-01-07");
    }
    let figure = element(&w, "T1", "2026-01", "inpatients_end");
    // The other 29 days are missing.
    assert_eq!((figure.value, figure.state, figure.reports), (None, State::Missing, 1));

    // Ten numbers that nobody owed make up for none of the four days that are missing.
    for day in (1..=25).chain(30..=31) {
        let patients = if day < 30 { "3" } else { "NA" };
        let date = format!("2025-12-{day:02}");
        put(&mut w, "T3-TH", "thc_daily", &date, &[("inpatients_end", patients)], &date);
    }
    let figure = element(&w, "T3", "2025-12", "inpatients_end");
    assert_eq!((figure.value, figure.state, figure.reports), (None, State::Missing, 25));
}

#[test]
fn the_techniques_of_the_texts_pass_their_rule_and_23_870_000_discharges_do_not() {
    // The elements of the first figures are reserved: not asked yet. The rule waits for them, and holds as soon
    // as they are.
    let mut toml = CATALOGUE.to_owned();
    let mut lines = "  { element = \"new_tech_items\" },\n".to_owned();
    for of in ["national", "southwest", "province"] {
        let code = format!("new_tech_first_{of}");
        toml = toml.replace(&format!("  \"{code}\","), "  # asked:");
        toml += &format!(
            "\n[[element]]\ncode = \"{code}\"\nname = {{ zh = \"{code}\", en = \"{code}\" }}\nunit = \"item\"\n"
        );
        lines += &format!("  {{ element = \"{code}\" }},\n");
    }
    let at = toml.find("code = \"rc_monthly\"").unwrap();
    let (before, form) = toml.split_at(at);
    let toml =
        before.to_owned() + &form.replacen("  { element = \"new_tech_items\" },\n", &lines, 1);
    let catalogue = Catalogue::load(toml.as_bytes()).unwrap_or_else(|errors| {
        panic!("{}", errors.iter().map(|e| e.text(Lang::En)).collect::<Vec<_>>().join("\n"))
    });
    let broken = |form: &str, values: &[(&str, u64)]| -> Vec<String> {
        let form = catalogue.form(form).unwrap();
        let model = &catalogue.forms[form.at()];
        let mut given = vec![Value::Missing; model.lines.len()];
        for (element, n) in values {
            let element = catalogue.element(element).unwrap();
            given[model.line_of(element).unwrap()] = Value::Number(*n);
        }
        let period = "2024-08".parse().unwrap();
        let broken = check_report(&catalogue, form, &given, None, period);
        broken.iter().map(|one| one.rule(&catalogue).code.to_string()).collect()
    };
    let techniques = |first: [u64; 3], all: u64| {
        broken(
            "rc_monthly",
            &[
                ("new_tech_first_national", first[0]),
                ("new_tech_first_southwest", first[1]),
                ("new_tech_first_province", first[2]),
                ("new_tech_items", all),
            ],
        )
    };
    assert!(techniques([4, 17, 78], 510).is_empty());
    assert!(techniques([4, 25, 118], 588).is_empty());
    assert_eq!(techniques([4, 25, 118], 146), ["V22"]);
    // Five hospitals with 4,200 beds: what a lost decimal point makes of 238,700.
    let bed_days = 4200 * 31;
    let discharges =
        |n: u64| broken("hosp_monthly", &[("discharges", n), ("bed_days_open", bed_days)]);
    assert_eq!(discharges(23_870_000), ["V30"]);
    assert!(discharges(23_870).is_empty());
}

#[test]
fn what_is_told_once_a_year_stands_in_every_month_after() {
    let mut w = world();
    let told = [("resident_population", "900000"), ("subcentres_built", "3")];
    put(&mut w, "K1-CB", "county_annual", "2025", &told, "2026-01-10");
    for (place, period) in
        [("K1", "2026-01"), ("K1", "2026-05"), ("K1-CB", "2026Q1"), ("K1", "2026-05-20")]
    {
        let built = element(&w, place, period, "subcentres_built");
        assert_eq!((built.value, built.state), (Some(3), State::Reported), "{place} {period}");
        assert!(built.flags().is_empty(), "its form is not left out: {:?}", built.flags());
    }
    // Not yet told, and no longer than it may be carried.
    assert_eq!(element(&w, "K1", "2025-11", "subcentres_built").value, None);
    assert_eq!(element(&w, "K1", "2028-03", "subcentres_built").value, None);
}
