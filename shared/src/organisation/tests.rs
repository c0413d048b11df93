use proptest::prelude::*;

use super::*;
use crate::catalogue::{Attribute, CatalogueHash, Due, Form, Kind, NetworkKind, Role, Text};
use crate::period::PeriodType;
use crate::tables::registry::ExtensionDue;
use crate::tables::{Fault, TableName};

fn date(text: &str) -> Date {
    text.parse().unwrap()
}

fn catalogue() -> Catalogue {
    let kind =
        |code: &str, class| Kind { code: code.parse().unwrap(), name: Text::default(), class };
    let network = |code: &str, exclusive| NetworkKind {
        code: code.parse().unwrap(),
        name: Text::default(),
        exclusive,
    };
    let role = |code: &&str| Role { code: code.parse().unwrap(), name: Text::default() };
    let form = |code: &str, period_type| Form {
        code: code.parse().unwrap(),
        name: Text::default(),
        kinds: Vec::new(),
        period_type,
        days: crate::catalogue::Days::All,
        due: Due { days: 1, hour: 10, minute: 0, next_working_day: false },
        grace_minutes: 0,
        from: None,
        to: None,
        lines: Vec::new(),
    };
    Catalogue {
        name: Text::default(),
        version: "test".into(),
        hash: CatalogueHash([0; 32]),
        time_zone: jiff::tz::TimeZone::UTC,
        units: HashMap::new(),
        kinds: vec![
            kind("province", Class::Administrative),
            kind("county", Class::Administrative),
            kind("township", Class::Administrative),
            kind("clinic", Class::Facility),
            kind("centre", Class::Facility),
            kind("desk", Class::Desk),
            kind("external", Class::External),
        ],
        network_kinds: vec![network("community", true), network("alliance", false)],
        roles: ["lead", "member", "subcentre"].iter().map(role).collect(),
        attributes: vec![Attribute {
            code: "grade".parse().unwrap(),
            name: Text::default(),
            values: vec![("a".into(), Text::default()), ("b".into(), Text::default())],
        }],
        elements: Vec::new(),
        reserved: Vec::new(),
        rules: Vec::new(),
        indicators: Vec::new(),
        forms: vec![form("daily", PeriodType::Day), form("monthly", PeriodType::Month)],
    }
}

/// Tables from `(table, rows without header)`; all optional columns are there.
fn tables(parts: &[(TableName, &str)]) -> Tables {
    let texts: Vec<(TableName, String)> = parts
        .iter()
        .map(|(name, rows)| {
            let (required, optional) = name.columns();
            let header = [required, optional].concat();
            let mut text = header.join(",") + "\n";
            for row in rows.lines().map(str::trim).filter(|row| !row.is_empty()) {
                let commas = row.matches(',').count();
                text += row;
                text += &",".repeat(header.len() - 1 - commas);
                text += "\n";
            }
            (*name, text)
        })
        .collect();
    let files: Vec<_> =
        texts.iter().map(|(name, text)| (*name, name.file_name(), text.as_bytes())).collect();
    Tables::parse(&files).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

fn build(parts: &[(TableName, &str)]) -> Organisation {
    Organisation::build(&catalogue(), &tables(parts)).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

fn faults(parts: &[(TableName, &str)]) -> Vec<(String, u32, String, Fault)> {
    Organisation::build(&catalogue(), &tables(parts))
        .unwrap_err()
        .into_iter()
        .map(|e| (e.file.to_string(), e.line, e.column, e.code))
        .collect()
}

const UNITS: &str = "
    P,省,province,,,
    B,乙县,county,P,,
    A,甲县,county,P,,
    A1,甲一镇,township,A,,
    A2,甲二镇,township,A,,,,,Jia Two
    B1,同名镇,township,B,,
    B2,同名镇,township,B,,
    A1-TH,甲一卫生院,centre,A1,,
    A1-V,甲一诊所,clinic,A1,,2026-03-10,,A2-V
    A2-V,甲二诊所,clinic,A2,,
    B1-V,乙诊所,clinic,B1,,2026-02-01
    B1-V,乙诊所新名,clinic,A2,2026-02-01,
    B2-TH,乙卫生院,centre,B2,2026-01-28,
    A-CB,甲县统计岗,desk,A,,
    P-X,规划医院,centre,P,,,planned
    E,外院,external,,,";

fn ix(o: &Organisation, code: &str) -> UnitIx {
    o.unit(code).unwrap()
}
fn codes(o: &Organisation, units: &[UnitIx]) -> Vec<String> {
    units.iter().map(|u| o.code(*u).to_string()).collect()
}

#[test]
fn days_are_half_open() {
    let days = |from: &str, to: &str| Days { from: from.parse().ok(), to: to.parse().ok() };
    let january = days("2026-01-01", "2026-02-01");
    assert!(january.has(date("2026-01-31")) && !january.has(date("2026-02-01")));
    assert!(!january.meets(days("2026-02-01", "")) && january.meets(days("", "")));
    let period: Period = "2026-02".parse().unwrap();
    assert_eq!(january.last_in(period), None);
    assert_eq!(days("2026-02-28", "").last_in(period), Some(date("2026-02-28")));
    assert_eq!(days("", "2026-02-10").last_in(period), Some(date("2026-02-09")));
}

#[test]
fn the_map_of_a_day() {
    let o = build(&[(TableName::Units, UNITS)]);
    let (january, february) = (date("2026-01-31"), date("2026-02-28"));
    let below = |code, day| codes(&o, &o.facilities_below(ix(&o, code), day));
    assert_eq!(below("A", january), ["A-CB", "A1-TH", "A1-V", "A2-V"]);
    assert_eq!(below("B", january), ["B1-V", "B2-TH"]);
    assert_eq!(below("A", february), ["A-CB", "A1-TH", "A1-V", "A2-V", "B1-V"]);
    assert_eq!(below("B", february), ["B2-TH"]);
    assert_eq!(below("B1-V", february), ["B1-V"]);
    assert_eq!(below("P", february).len(), 6, "planned and external units are in no total");
    assert_eq!(codes(&o, &o.path(ix(&o, "B1-V"), january)), ["P", "B", "B1", "B1-V"]);
    assert_eq!(codes(&o, &o.path(ix(&o, "B1-V"), february)), ["P", "A", "A2", "B1-V"]);
    assert_eq!(codes(&o, &o.children_on(ix(&o, "A2"), january)), ["A2-V"]);
    assert_eq!(codes(&o, &o.children_on(ix(&o, "P"), january)), ["A", "B", "P-X"]);
    assert_eq!(codes(&o, &o.roots_on(january)), ["P"]);
    let v = ix(&o, "B1-V");
    assert_eq!(o.name_on(v, january, Lang::Zh), "乙诊所");
    assert_eq!(o.name_on(v, february, Lang::En), "乙诊所新名");
    assert_eq!(o.name_on(ix(&o, "A2"), february, Lang::En), "Jia Two");
    let county = catalogue().kind("county").unwrap();
    assert_eq!(o.ancestor_of_kind(v, county, january), o.unit("B"));
}

#[test]
fn a_duty_day_is_the_last_open_day_and_a_closed_unit_hands_on() {
    let o = build(&[(TableName::Units, UNITS)]);
    let day = |code, period: &str| o.duty_day(ix(&o, code), period.parse().unwrap());
    assert_eq!(day("A1-V", "2026-03"), Some(date("2026-03-09")));
    assert_eq!(day("A1-V", "2026-04"), None);
    assert_eq!(day("A1-V", "2026-03-09"), Some(date("2026-03-09")));
    assert_eq!(day("A1-V", "2026-03-10"), None);
    assert_eq!(day("B2-TH", "2026-01"), Some(date("2026-01-31")));
    assert_eq!(day("B2-TH", "2026-01-27"), None);
    assert_eq!(day("B1-V", "2026-02"), Some(date("2026-02-28")), "adjoining rows are one opening");
    assert_eq!(day("P-X", "2026-02"), None, "a planned unit has no duty");
    let march = o.facilities_below_in(ix(&o, "A1"), "2026-03".parse().unwrap());
    assert_eq!(
        march,
        [(ix(&o, "A1-TH"), date("2026-03-31")), (ix(&o, "A1-V"), date("2026-03-09"))]
    );
    let v = ix(&o, "A1-V");
    assert_eq!(o.successor_on(v, date("2026-03-09")), Some(v));
    assert_eq!(o.successor_on(v, date("2026-03-10")), o.unit("A2-V"));
    assert_eq!(o.successor_on(ix(&o, "B2-TH"), date("2026-01-01")), None);
}

#[test]
fn a_text_names_one_thing_or_gives_candidates_with_paths() {
    let alias = "alias,unit,A2-V,老二,\nalias,network,N,甲体,";
    let o = build(&[
        (TableName::Units, UNITS),
        (TableName::Networks, "N,甲县医共体,community,A"),
        (TableName::Codes, alias),
    ]);
    let day = date("2026-02-28");
    let unit = |code| Lookup::One(Found::Unit(ix(&o, code)));
    let network = Lookup::One(Found::Network(NetworkIx(0)));
    for (text, found) in [
        ("A1-TH", unit("A1-TH")),
        (" 甲县 ", unit("A")),
        ("Jia Two", unit("A2")),
        ("乙诊所", unit("B1-V")),
        ("老二", unit("A2-V")),
        ("N", network.clone()),
        ("甲县医共体", network.clone()),
        ("甲体", network),
        ("没有", Lookup::Candidates(Vec::new())),
        ("", Lookup::Candidates(Vec::new())),
    ] {
        assert_eq!(o.find(text, day), found, "{text}");
    }
    let Lookup::Candidates(same) = o.find("同名镇", day) else { panic!() };
    assert_eq!(same.len(), 2);
    assert_eq!(same[0].path, ["省", "乙县", "同名镇"]);
    let Lookup::Candidates(part) = o.find("诊", day) else { panic!() };
    assert_eq!(part.len(), 3);
    let Lookup::Candidates(part) = o.find("医共", day) else { panic!() };
    assert_eq!(part[0].path, ["省", "甲县", "甲县医共体"]);
}

#[test]
fn the_most_specific_row_wins() {
    let o = build(&[
        (TableName::Units, UNITS),
        (
            TableName::Networks,
            "N1,一,community,A\nN2,二,community,A\nS,盟,alliance,\nZ,计划,alliance,,,,planned",
        ),
        (
            TableName::Members,
            "
            N1,A,member,,
            N1,A1-TH,lead,,
            N1,A1-TH,subcentre,2026-02-01,
            N2,A2,member,2026-02-01,,clinic
            N2,A2-V,none,2026-03-01,
            S,P,member,,,centre;desk
            S,E,member,,
            S,P-X,member,,
            S,B2,none,2026-03-01,
            Z,P,member,,",
        ),
    ]);
    let day = |text| date(text);
    let n = |code: &str| o.network(code).unwrap();
    let who = |code, on| -> Vec<String> {
        o.members_on(n(code), date(on)).iter().map(|m| o.code(m.unit).to_string()).collect()
    };
    assert_eq!(
        who("N1", "2026-01-31"),
        ["A1-TH", "A1-V", "A2-V"],
        "desks only where kinds name them"
    );
    assert_eq!(who("N1", "2026-02-01"), ["A1-TH", "A1-V"]);
    assert_eq!(who("N2", "2026-02-01"), ["A2-V", "B1-V"]);
    assert_eq!(who("N1", "2026-03-01"), ["A1-TH", "A1-V", "A2-V"]);
    assert_eq!(who("N2", "2026-03-01"), ["B1-V"]);
    assert_eq!(who("S", "2026-02-01"), ["A-CB", "A1-TH", "B2-TH", "P-X", "E"]);
    assert_eq!(codes(&o, &o.facilities_in(n("S"), day("2026-02-01"))), ["A-CB", "A1-TH", "B2-TH"]);
    assert_eq!(who("S", "2026-03-01"), ["A-CB", "A1-TH", "P-X", "E"]);
    assert!(who("Z", "2026-03-01").is_empty() && !o.is_in_force(n("Z"), day("2026-03-01")));
    let cat = catalogue();
    let role = |code| cat.role(code).unwrap();
    let community = cat.network_kind("community").unwrap();
    let th = ix(&o, "A1-TH");
    assert_eq!(
        o.roles_on(th, day("2026-02-01"))[..2],
        [(role("lead"), community), (role("subcentre"), community)]
    );
    assert_eq!(o.networks_of(th, day("2026-02-01"), Some(community)), [n("N1")]);
    assert_eq!(o.networks_of(ix(&o, "A1-V"), day("2026-03-10"), None), []);
    let march = o.facilities_in_during(n("N1"), "2026-03".parse().unwrap());
    assert!(march.contains(&(ix(&o, "A1-V"), day("2026-03-09"))) && march.len() == 3);
}

#[test]
fn duties_calendar_and_extensions_look_upwards() {
    let o = build(&[
        (TableName::Units, UNITS),
        (
            TableName::Duties,
            "daily,P,2026-01-01,\ndaily,A1,2026-03-01,2026-04-01\ndaily,A1,2026-05-01,",
        ),
        (
            TableName::Calendar,
            "P,2026-01-01,off,元旦\nP,2026-01-04,working,调休\nA,2026-01-04,off,赶集",
        ),
        (
            TableName::Extensions,
            "daily,P,2026-01,waived,雪\ndaily,A,2026-01-05..2026-01-06,2026-01-20T18:00,\nmonthly,A1,2026-01,2026-02-20,",
        ),
    ]);
    let (th, v) = (ix(&o, "A1-TH"), ix(&o, "B1-V"));
    for (form, u, day, due) in [
        ("monthly", th, "2020-01-01", true),
        ("daily", v, "2025-12-31", false),
        ("daily", v, "2026-01-01", true),
        ("daily", th, "2026-02-28", false),
        ("daily", th, "2026-03-01", true),
        ("daily", th, "2026-04-01", false),
        ("daily", th, "2026-05-01", true),
    ] {
        assert_eq!(o.duty_in_span(form, u, date(day)), due, "{form} {day}");
    }
    for (u, day, working) in [
        (th, "2026-01-01", false),
        (th, "2026-01-04", false),
        (v, "2026-01-04", true),
        (v, "2026-01-05", true),
        (v, "2026-01-10", false),
    ] {
        assert_eq!(o.is_working_day(u, date(day)), working, "{day}");
    }
    assert_eq!(o.calendar_on(v, date("2026-01-01")), Some((false, "元旦")));
    let due =
        |form: &str, u, period: &str| o.extension(form, u, period.parse().unwrap()).map(|e| e.due);
    let at = |day, hour, minute| Some(ExtensionDue::At { date: date(day), hour, minute });
    assert_eq!(due("daily", v, "2026-01-05"), Some(ExtensionDue::Waived));
    assert_eq!(due("daily", th, "2026-01-05"), at("2026-01-20", 18, 0));
    assert_eq!(due("daily", th, "2026-01-07"), Some(ExtensionDue::Waived));
    assert_eq!(due("daily", th, "2026-02-01"), None);
    assert_eq!(due("monthly", th, "2026-01"), at("2026-02-20", 23, 59));
    assert_eq!(due("monthly", v, "2026-01"), None);
}

#[test]
fn facts_are_dated() {
    let o = build(&[
        (TableName::Units, UNITS),
        (TableName::Attributes, "A1-TH,grade,b,,2026-02-01\nA1-TH,grade,a,2026-02-01,"),
    ]);
    let of = |day| o.facts_on(ix(&o, "A1-TH"), date(day)).attributes[0].1.clone();
    assert_eq!((of("2026-01-31"), of("2026-02-01")), ("b".to_owned(), "a".to_owned()));
}

#[test]
fn every_contradiction_is_named_at_once() {
    let units = "
        P,省,province,,,
        A,甲,county,P,,
        A,甲,county,P,2026-01-01,
        B,乙,shire,P,,
        C,丙,county,Q,,
        D,丁,clinic,,,
        E,外,external,P,,
        F,己,clinic,A,,2026-01-01,,G
        F,己,county,A,2026-01-01,";
    let seen = faults(&[(TableName::Units, units), (TableName::Calendar, "Z,2026-01-01,off,")]);
    let seen: Vec<(&str, u32, &str, Fault)> =
        seen.iter().map(|(f, l, c, code)| (f.as_str(), *l, c.as_str(), *code)).collect();
    assert_eq!(
        seen,
        [
            ("units.csv", 4, "opened", Fault::Conflict),
            ("units.csv", 5, "kind", Fault::Unknown),
            ("units.csv", 6, "parent", Fault::Unknown),
            ("units.csv", 7, "parent", Fault::BadParent),
            ("units.csv", 8, "parent", Fault::BadParent),
            ("units.csv", 9, "succeeded_by", Fault::Unknown),
            ("units.csv", 10, "kind", Fault::Conflict),
            ("calendar.csv", 2, "unit", Fault::Unknown),
        ]
    );
}

#[test]
fn nobody_is_above_himself_on_any_day() {
    let units = "
        P,省,province,,,
        A,甲,county,P,,2026-02-01
        A,甲,county,B,2026-02-01,
        B,乙,county,A,,2026-03-01
        B,乙,county,P,2026-03-01,
        V,诊,clinic,A,,";
    let seen = faults(&[(TableName::Units, units)]);
    let mut seen: Vec<(u32, Fault)> = seen.into_iter().map(|e| (e.1, e.3)).collect();
    seen.sort();
    assert_eq!(seen, [(4, Fault::Cycle), (5, Fault::Cycle)], "those of the circle, each once");
    let lines = |units: &str| -> Vec<(u32, Fault)> {
        faults(&[(TableName::Units, units)]).into_iter().map(|e| (e.1, e.3)).collect()
    };
    assert_eq!(lines("A,甲,county,A,,\nB,乙,county,A,,"), [(2, Fault::Cycle)]);
    let deep: String = (0..DEPTH_MAX + 1)
        .map(|n| {
            format!(
                "U{n},层,county,{},,\n",
                if n == 0 { String::new() } else { format!("U{}", n - 1) }
            )
        })
        .collect();
    assert_eq!(lines(&deep), [(u32::try_from(DEPTH_MAX).unwrap() + 2, Fault::Cycle)]);
    let mut upside_down: Vec<&str> = deep.lines().collect();
    upside_down.reverse();
    assert_eq!(lines(&upside_down.join("\n")), [(2, Fault::Cycle)]);
    let just: String = deep.lines().take(DEPTH_MAX).map(|line| format!("{line}\n")).collect();
    assert_eq!(build(&[(TableName::Units, &just)]).len(), DEPTH_MAX);
    let parents = faults(&[(
        TableName::Units,
        "E,外,external,,,\nV,诊,clinic,E,,\nW,诊,clinic,V,,\nC,县,county,V,,",
    )]);
    assert_eq!(parents.iter().map(|e| e.1).collect::<Vec<_>>(), [3, 5]);
}

#[test]
fn contradictions_of_networks_and_tables_are_named() {
    let seen = faults(&[
        (TableName::Units, UNITS),
        (
            TableName::Networks,
            "N1,一,community,A;Q\nN2,二,community,\nN2,二,community,\nX,三,club,\nA,四,alliance,",
        ),
        (
            TableName::Members,
            "
            N1,A1,member,,
            N2,A1,member,2026-01-01,
            N1,A2,member,,2026-01-01
            N2,A2,member,2026-01-01,
            N1,B1,member,,,clinic
            N2,B1,member,,,centre
            N9,A1,member,,
            N1,Q,member,,
            N1,B2,boss,,
            N1,A1,none,,
            N1,A1,member,,,shire",
        ),
        (TableName::Attributes, "A1-TH,colour,a,,\nA1-TH,grade,c,,\nA1-TH,grade,b,,"),
        (TableName::Duties, "hourly,A,,\ndaily,Q,,"),
        (TableName::Extensions, "monthly,A,2026-01-05,waived,"),
        (TableName::Calendar, "A,2026-01-01,off,\nA,2026-01-01,working,"),
        (TableName::Codes, "dhis2,unit,Q,x,\ndhis2,form,daily,y,"),
        (TableName::Contacts, "Q,张,1,,"),
    ]);
    let seen: Vec<(&str, u32, &str, Fault)> =
        seen.iter().map(|(f, l, c, code)| (f.as_str(), *l, c.as_str(), *code)).collect();
    assert_eq!(
        seen,
        [
            ("attributes.csv", 2, "attribute", Fault::Unknown),
            ("attributes.csv", 3, "value", Fault::BadChoice),
            ("attributes.csv", 4, "from", Fault::Conflict),
            ("networks.csv", 6, "code", Fault::Duplicate),
            ("networks.csv", 2, "area", Fault::Unknown),
            ("networks.csv", 4, "code", Fault::Duplicate),
            ("networks.csv", 5, "kind", Fault::Unknown),
            ("members.csv", 3, "network", Fault::Conflict),
            ("members.csv", 8, "network", Fault::Unknown),
            ("members.csv", 9, "unit", Fault::Unknown),
            ("members.csv", 10, "role", Fault::Unknown),
            ("members.csv", 11, "network", Fault::Conflict),
            ("members.csv", 12, "kinds", Fault::Unknown),
            ("members.csv", 12, "network", Fault::Conflict),
            ("duties.csv", 2, "form", Fault::Unknown),
            ("duties.csv", 3, "unit", Fault::Unknown),
            ("extensions.csv", 2, "period", Fault::BadDate),
            ("calendar.csv", 3, "date", Fault::Duplicate),
            ("codes.csv", 2, "code", Fault::Unknown),
            ("contacts.csv", 2, "unit", Fault::Unknown),
        ]
    );
}

#[test]
fn a_membership_inside_a_month_is_a_warning() {
    let o = build(&[
        (TableName::Units, UNITS),
        (TableName::Networks, "N,一,community,A"),
        (TableName::Members, "N,A,member,2026-01-15,"),
    ]);
    assert!(o.warnings().iter().any(|w| w.column == "from" && w.code == Fault::Warning));
}

/// A random map: clinics and townships that move between brothers of the level above, open and close.
#[derive(Clone, Debug)]
struct Map {
    units: String,
    networks: &'static str,
    members: Vec<String>,
}

const DAYS: [&str; 5] = ["2026-01-01", "2026-02-01", "2026-02-15", "2026-03-01", "2026-04-01"];

fn a_map() -> impl Strategy<Value = Map> {
    let span = || (0..6_usize, 0..6_usize).prop_map(|(a, b)| (a.min(b), a.max(b)));
    // Parent before and after a day, and the day it closes (5 = never, 0 = one spell for ever).
    let unit = || (0..3_usize, 0..3_usize, 0..5_usize, 1..7_usize);
    let towns = prop::collection::vec(unit(), 4);
    let sites = prop::collection::vec((unit(), 0..2_usize), 12);
    let members =
        prop::collection::vec(((0..4_usize, 0..20_usize), 0..4_usize, span(), 0..3_usize), 0..14);
    (towns, sites, members).prop_map(|(towns, sites, members)| {
        let mut units = String::from("P,省,province,,,\nE,外,external,,,\n");
        for c in 0..3 {
            units += &format!("C{c},县,county,P,,\n");
        }
        let mut add = |code: String, kinds: [&str; 2], level: &str, of: (usize, usize, usize, usize)| {
            let (before, after, moved, closed) = of;
            let end = DAYS.get(closed).copied().unwrap_or("");
            if moved == 0 || moved >= closed {
                units += &format!("{code},名,{},{level}{before},,{end}\n", kinds[0]);
            } else {
                let day = DAYS[moved];
                units += &format!("{code},名,{},{level}{before},,{day}\n", kinds[0]);
                units += &format!("{code},名,{},{level}{after},{day},{end}\n", kinds[1]);
            }
        };
        for (n, (before, after, moved, _)) in towns.into_iter().enumerate() {
            add(format!("T{n}"), ["township"; 2], "C", (before, after, moved, 9));
        }
        for (n, (of, kind)) in sites.into_iter().enumerate() {
            let kinds = [["clinic", "centre"], ["clinic", "clinic"]][kind];
            add(format!("V{n}"), kinds, "T", of);
        }
        let names: Vec<String> = ["P".to_owned(), "E".to_owned()]
            .into_iter()
            .chain((0..3).map(|n| format!("C{n}")))
            .chain((0..4).map(|n| format!("T{n}")))
            .chain((0..11).map(|n| format!("V{n}")))
            .collect();
        let members = members
            .into_iter()
            .map(|((network, unit), role, (from, to), kinds)| {
                let role = ["lead", "member", "subcentre", "none"][role];
                let kinds = ["", "clinic", "clinic;centre"][kinds];
                let from = if from == 0 { "" } else { DAYS[from - 1] };
                let to = if to == 5 { "" } else { DAYS.get(to).copied().unwrap_or("") };
                let to = if to <= from { "" } else { to };
                format!("N{network},{},{role},{from},{to},{kinds},,", names[unit])
            })
            .collect();
        Map {
            units,
            networks: "N0,一,community,\nN1,二,community,,2026-02-01,\nN2,三,alliance,\nN3,四,community,,,2026-03-01",
            members,
        }
    })
}

/// The organisation of a map, after leaving out the membership rows it refuses; and the rows it took.
fn organise(map: &Map) -> (Organisation, Tables) {
    let rows = map.members.join("\n");
    let mut tables = tables(&[
        (TableName::Units, &map.units),
        (TableName::Networks, map.networks),
        (TableName::Members, &rows),
    ]);
    loop {
        match Organisation::build(&catalogue(), &tables) {
            Ok(o) => return (o, tables),
            Err(errors) => {
                assert!(errors.iter().all(|e| &*e.file == "members.csv"), "{errors:#?}");
                tables.members.retain(|row| errors.iter().all(|e| e.line != row.line));
            }
        }
    }
}

/// Membership read straight off the rows, by definition: for each network the rows on the lowest unit.
fn by_definition(
    tables: &Tables,
    unit: &str,
    day: Date,
) -> std::collections::BTreeMap<String, std::collections::BTreeSet<String>> {
    let has = |from: Option<Date>, to: Option<Date>| {
        from.is_none_or(|from| from <= day) && to.is_none_or(|to| day < to)
    };
    let mut path = Vec::new();
    let mut at = Some(unit.to_owned());
    while let Some(code) = at {
        let row = tables.units.iter().find(|r| r.code == code.as_str() && has(r.opened, r.closed));
        let Some(row) = row else { return Default::default() };
        path.push(row);
        at = row.parent.as_ref().map(ToString::to_string);
    }
    let mut found: Vec<(usize, &str, &str, std::collections::BTreeSet<String>)> = Vec::new();
    for network in tables.networks.iter().filter(|n| has(n.opened, n.closed)) {
        for (level, above) in path.iter().enumerate() {
            let rows: Vec<_> = tables
                .members
                .iter()
                .filter(|m| m.network == network.code && m.unit == above.code && has(m.from, m.to))
                .filter(|m| m.kinds.is_empty() || m.kinds.contains(&path[0].kind))
                .collect();
            if rows.is_empty() {
                continue;
            }
            if rows.iter().all(|m| m.role.is_some()) {
                let roles = rows.iter().flat_map(|m| m.role.as_ref()).map(ToString::to_string);
                found.push((level, network.kind.as_str(), network.code.as_str(), roles.collect()));
            }
            break;
        }
    }
    let lowest = found.iter().filter(|f| f.1 == "community").map(|f| (f.0, f.2.to_owned())).min();
    found
        .into_iter()
        .filter(|f| f.1 != "community" || Some((f.0, f.2.to_owned())) == lowest)
        .map(|(_, _, code, roles)| (code.to_owned(), roles))
        .collect()
}

proptest! {
    #[test]
    fn members_of_any_map_on_any_day_are_those_of_the_definition(map in a_map()) {
        let (o, tables) = organise(&map);
        let cat = catalogue();
        for day in ["2025-12-31", "2026-01-01", "2026-02-01", "2026-02-14", "2026-02-15", "2026-03-15", "2026-05-01"] {
            let day = date(day);
            let mut wanted: HashMap<String, Vec<(String, Vec<String>)>> = HashMap::new();
            for u in o.units().filter(|u| o.class(*u) != Class::Administrative) {
                let by_definition = by_definition(&tables, o.code(u).as_str(), day);
                let of: Vec<String> = o.networks_of(u, day, None).iter().map(|n| o.network_code(*n).to_string()).collect();
                prop_assert_eq!(&of, &by_definition.keys().cloned().collect::<Vec<_>>());
                for (network, roles) in by_definition {
                    wanted.entry(network).or_default().push((o.code(u).to_string(), roles.into_iter().collect()));
                }
            }
            for n in o.networks() {
                let got: Vec<(String, Vec<String>)> = o.members_on(n, day).iter().map(|m| {
                    let mut roles: Vec<String> = m.roles.iter().map(|r| cat.roles[r.at()].code.to_string()).collect();
                    roles.sort();
                    (o.code(m.unit).to_string(), roles)
                }).collect();
                prop_assert_eq!(got, wanted.remove(o.network_code(n).as_str()).unwrap_or_default());
            }
        }
    }

    #[test]
    fn what_is_below_is_what_has_it_above(map in a_map()) {
        let (o, _) = organise(&map);
        for day in DAYS.map(date) {
            for u in o.units() {
                let wanted: Vec<UnitIx> = o.reporters().iter().copied()
                    .filter(|v| o.is_open(*v, day) && o.path(*v, day).contains(&u)).collect();
                prop_assert_eq!(o.facilities_below(u, day), wanted);
                let children: Vec<UnitIx> = o.units()
                    .filter(|c| o.info(*c).spell_in_force(day).is_some() && o.parent_on(*c, day) == Some(u)).collect();
                prop_assert_eq!(o.children_on(u, day), children);
            }
        }
        for period in ["2026-01", "2026-02", "2026W07", "2026-03"] {
            let period: Period = period.parse().unwrap();
            for u in o.units() {
                let wanted: Vec<(UnitIx, Date)> = o.reporters().iter().copied()
                    .filter_map(|v| Some((v, o.duty_day(v, period)?)))
                    .filter(|(v, day)| o.path(*v, *day).contains(&u)).collect();
                prop_assert_eq!(o.facilities_below_in(u, period), wanted);
            }
            for n in o.networks().filter(|n| o.is_in_force(*n, period.last_day())) {
                let wanted: Vec<(UnitIx, Date)> = o.reporters().iter().copied()
                    .filter_map(|v| Some((v, o.duty_day(v, period)?)))
                    .filter(|(v, day)| o.networks_of(*v, *day, None).contains(&n)).collect();
                prop_assert_eq!(o.facilities_in_during(n, period), wanted);
            }
        }
    }

    #[test]
    fn a_duty_day_is_the_last_day_open(map in a_map(), month in 1..5_i8) {
        let (o, _) = organise(&map);
        let period = Period::month(2026, month).unwrap();
        for u in o.units() {
            let wanted = period.parts(PeriodType::Day).map(Period::first_day).filter(|d| o.is_open(u, *d)).last();
            prop_assert_eq!(o.duty_day(u, period), wanted);
        }
    }
}
