//! Laws that hold for every registry, calendar and set of reports.

use std::fmt::Write;

use banyan_shared::period::Date;
use banyan_shared::tables::registry::{TableName, Tables};
use proptest::prelude::*;

use super::fixture::World;
use super::*;

/// A clinic of the random registry: township, days it is open (0 = the last day of December), where it
/// moves to on 15 January.
#[derive(Clone, Debug)]
struct Clinic {
    township: usize,
    opened: i32,
    closed: i32,
    moves_to: Option<usize>,
    groups: Vec<usize>,
}

#[derive(Clone, Debug)]
struct Report {
    clinic: usize,
    day: i32,
    visits: Option<u64>,
    received_after: i64,
}

/// Of daily reports alone, so that a pair is a facility's day.
const HOME_SHARE: &str = "
[[indicator]]
code = \"home_share\"
name = { zh = \"上门占比\", en = \"home share\" }
unit = \"visit\"
direction = \"up\"
[[indicator.definition]]
version = \"1\"
kind = \"ratio\"
numerator = \"home_visits\"
denominator = \"visits\"
factor = 100
";

impl Report {
    /// Of some, visits at home too; of the others they are not known.
    fn home(&self) -> Option<u64> {
        self.visits.filter(|n| n % 3 != 0).map(|n| n / 2)
    }

    fn put(&self, w: &mut World) {
        let text = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
        let received = day(self.day).plus(i32::try_from(self.received_after).unwrap());
        let (code, period) = (format!("F{}", self.clinic), day(self.day).to_string());
        let values = [text(self.visits), text(self.home())];
        w.put(&code, "daily", &period, &[&values[0], &values[1]], (&received.to_string(), 9));
    }
}

const TOWNSHIPS: usize = 4;
const MOVE_DAY: i32 = 15;

fn day(n: i32) -> Date {
    Date::new(2025, 12, 31).unwrap().plus(n)
}

fn any_clinic() -> impl Strategy<Value = Clinic> {
    (
        0..TOWNSHIPS,
        0i32..32,
        0i32..45,
        prop::option::of(0..TOWNSHIPS),
        prop::collection::vec(0usize..3, 0..3),
    )
        .prop_map(|(township, opened, length, moves_to, mut groups)| {
            groups.sort_unstable();
            groups.dedup();
            Clinic { township, opened, closed: opened + length + 1, moves_to, groups }
        })
}

fn build(clinics: &[Clinic], days_off: &[i32], working_only: bool) -> World {
    let mut units = "code,name,kind,parent,opened,closed\nP,省,province,,,\nC1,县1,county,P,,\nC2,县2,county,P,,\n".to_owned();
    for t in 0..TOWNSHIPS {
        writeln!(units, "T{t},镇{t},township,C{},,", t % 2 + 1).unwrap();
    }
    let mut members = "network,unit,role,from,to\n".to_owned();
    for (n, c) in clinics.iter().enumerate() {
        let (opened, closed) = (day(c.opened), day(c.closed));
        let moved = day(MOVE_DAY);
        match c.moves_to.filter(|to| *to != c.township && opened < moved && moved < closed) {
            Some(to) => {
                writeln!(units, "F{n},所{n},clinic,T{},{opened},{moved}", c.township).unwrap();
                writeln!(units, "F{n},所{n},clinic,T{to},{moved},{closed}").unwrap();
            }
            None => writeln!(units, "F{n},所{n},clinic,T{},{opened},{closed}", c.township).unwrap(),
        }
        for g in &c.groups {
            writeln!(members, "L{g},F{n},member,,").unwrap();
        }
    }
    let networks = "code,name,kind,area\nL0,盟0,alliance,\nL1,盟1,alliance,\nL2,盟2,alliance,\n";
    let mut calendar = "unit,date,day,name\n".to_owned();
    for off in days_off {
        writeln!(calendar, "P,{},off,假", day(*off)).unwrap();
    }
    let files = [
        (TableName::Units, "units.csv", units.as_bytes()),
        (TableName::Networks, "networks.csv", networks.as_bytes()),
        (TableName::Members, "members.csv", members.as_bytes()),
        (TableName::Calendar, "calendar.csv", calendar.as_bytes()),
    ];
    let toml = if working_only {
        super::fixture::CATALOGUE.replacen(
            "period_type = \"day\"",
            "period_type = \"day\"\ndays = \"working\"",
            1,
        )
    } else {
        super::fixture::CATALOGUE.to_owned()
    };
    let mut world = World::new();
    let more = super::tests_indicators::indicators();
    let more = more.replace("code = \"home_share\"", "code = \"home_of_clinics\"");
    world.catalogue = Catalogue::load((toml + HOME_SHARE + &more).as_bytes()).unwrap();
    let tables = Tables::parse(&files).unwrap_or_else(|e| panic!("{e:#?}"));
    world.organisation = Organisation::build(&world.catalogue, &tables)
        .unwrap_or_else(|e| panic!("{e:#?}\n{units}"));
    world.cube = Cube::new(&world.catalogue);
    world
}

/// Month reports of some clinics, whole or in part.
fn put_months(w: &mut World, clinics: &[Clinic], now_day: i32) {
    for (n, clinic) in clinics.iter().enumerate() {
        for (first, last, month) in [(-30, 0, "2025-12"), (1, 31, "2026-01")] {
            let open = clinic.opened <= last && clinic.closed > first;
            if !open || last >= now_day || (n + last as usize).is_multiple_of(3) {
                continue;
            }
            let (beds, people) = ((n + 1).to_string(), (100 * (n + 1)).to_string());
            let values = [beds.as_str(), if n % 2 == 0 { &people } else { "NA" }];
            let at = day(last + 1).to_string();
            w.put(&format!("F{n}"), "monthly", month, &values, (&at, 8));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn parts_add_up_and_regrouping_changes_no_total(
        clinics in prop::collection::vec(any_clinic(), 1..8),
        days_off in prop::collection::btree_set(1i32..60, 0..20),
        working_only in any::<bool>(),
        reports in prop::collection::vec(
            (0usize..8, 1i32..50, prop::option::of(0u64..50), -2i64..6), 0..60),
        now_day in 1i32..70,
    ) {
        let days_off: Vec<i32> = days_off.into_iter().collect();
        let mut w = build(&clinics, &days_off, working_only);
        let now = w.catalogue.moment(day(now_day), 12, 0);
        let mut given = std::collections::BTreeMap::new();
        for (clinic, n, visits, after) in reports {
            let report = Report { clinic: clinic % clinics.len(), day: n, visits, received_after: after };
            let c = &clinics[report.clinic];
            let received = day(report.day).plus(i32::try_from(report.received_after).unwrap());
            // Closed clinics are parked before they get here, and nothing comes from after the present.
            if report.day < c.opened || report.day >= c.closed || received.plus(1) > day(now_day) {
                continue;
            }
            if given.contains_key(&(report.clinic, report.day)) {
                continue;
            }
            report.put(&mut w);
            given.insert((report.clinic, report.day), report);
        }
        put_months(&mut w, &clinics, now_day);

        // What the definitions say, one facility and day at a time.
        let ended = |n: i32| n < now_day;
        let due_day = |n: i32| {
            !working_only || (!days_off.contains(&n) && day(n).weekday() < 5)
        };
        let (mut expected, mut received, mut late, mut unexpected, mut total) = (0u64, 0u64, 0u64, 0u64, 0u64);
        let (mut matched, mut above, mut below) = (0u64, 0u64, 0u64);
        for n in 1..=31 {
            for (at, c) in clinics.iter().enumerate() {
                if !ended(n) || n < c.opened || n >= c.closed {
                    continue;
                }
                let report = given.get(&(at, n)).filter(|report| report.visits.is_some());
                total += report.and_then(|report| report.visits).unwrap_or(0);
                if !due_day(n) {
                    unexpected += u64::from(report.is_some());
                    continue;
                }
                expected += 1;
                if let Some(report) = report {
                    received += 1;
                    // Due at 10:00 the next day; reports come at 9:00.
                    late += u64::from(report.received_after > 1);
                    if let (Some(home), Some(visits)) = (report.home(), report.visits) {
                        (matched, above, below) = (matched + 1, above + home, below + visits);
                    }
                }
            }
        }

        let engine = w.engine();
        let ask = |place: &str, by: &str, membership| CompletenessRequest {
            place: place.to_owned(),
            period: "2026-01".to_owned(),
            form: Some("daily".to_owned()),
            by: vec![by.to_owned()],
            membership,
            ..CompletenessRequest::default()
        };
        let answer = engine.completeness(&ask("P", "", Membership::AsItWas), now).unwrap();
        let c = &answer.completeness;
        prop_assert_eq!(c.expected, expected);
        prop_assert_eq!((c.received, c.late, c.unexpected), (received, late, unexpected));
        prop_assert_eq!(c.expected, c.on_time + c.late + c.not_yet_due + c.missing);
        prop_assert!(c.received <= c.expected && c.incomplete <= c.received);
        let why = &c.missing_why;
        let causes = why.returned + why.refused + why.parked + why.not_enrolled + why.not_entered
            + why.backlog_known.unwrap() + why.silent.unwrap();
        prop_assert_eq!(causes, c.missing);

        // Every division adds up to the whole, on every map.
        for membership in [Membership::AsItWas, Membership::Today, Membership::On(day(3))] {
            for by in ["facility", "township", "county", "children", "day", "kind"] {
                let answer = engine.completeness(&ask("P", by, membership), now).unwrap();
                prop_assert_eq!(answer.completeness.expected, expected, "{} {:?}", by, membership);
                let sum: u64 = answer.rows.iter().map(|row| row.total.expected).sum();
                prop_assert_eq!(sum, expected, "{} {:?}", by, membership);
            }
            for by in ["", "facility", "township", "county", "day"] {
                let request = QueryRequest {
                    place: "P".to_owned(),
                    period: "2026-01".to_owned(),
                    by: vec![by.to_owned()],
                    elements: vec!["visits".to_owned()],
                    membership,
                    ..QueryRequest::default()
                };
                let answer = engine.query(&request, now).unwrap();
                let sum: u64 =
                    answer.rows.iter().map(|row| row.elements.get("visits").unwrap().value.unwrap_or(0)).sum();
                prop_assert_eq!(sum, total, "{} {:?}", by, membership);
                for row in &answer.rows {
                    let e = row.elements.get("visits").unwrap();
                    prop_assert!(e.facilities_expected <= clinics.len() as u64);
                }
            }
        }

        // An indicator is the quotient of the sums over the pairs in which both are known, on every map, and no
        // rate is above 100 %.
        let everything = |by: &str, membership, as_of| QueryRequest {
            place: "P".to_owned(),
            period: "2026-01".to_owned(),
            by: vec![by.to_owned()],
            membership,
            as_of,
            ..QueryRequest::default()
        };
        for membership in [Membership::AsItWas, Membership::Today, Membership::On(day(3))] {
            let answer = engine.query(&everything("", membership, None), now).unwrap();
            let Some(row) = answer.rows.first() else { continue };
            let Some(share) = row.indicators.get("home_share") else {
                prop_assert_eq!(matched, 0);
                continue;
            };
            prop_assert_eq!(share.coverage.matched, matched, "{:?}", membership);
            if matched > 0 {
                let sides = (Some(above as f64), Some(below as f64));
                prop_assert_eq!((share.numerator, share.denominator), sides, "{:?}", membership);
            }
            prop_assert!(share.value.is_none_or(|value| value <= 100.0));
        }

        // What is known now is what was known by now, and the order of arrival plays no part.
        let plain = engine.query(&everything("facility", Membership::AsItWas, None), now).unwrap();
        let as_of = everything("facility", Membership::AsItWas, Some(now));
        let (in_the_past, later) = (engine.query(&as_of, now.plus(1)).unwrap(), now.plus(1));
        prop_assert!(later > now && in_the_past.freshness.sites_silent.is_none(), "a question of the past");
        prop_assert_eq!(&in_the_past.rows, &plain.rows);
        let mut again = build(&clinics, &days_off, working_only);
        put_months(&mut again, &clinics, now_day);
        given.values().rev().for_each(|report| report.put(&mut again));
        let replayed = everything("facility", Membership::AsItWas, None);
        prop_assert_eq!(&again.engine().query(&replayed, now).unwrap().rows, &plain.rows);

        // Taken a group at a time or facility by facility, indicators are the same.
        for membership in [Membership::AsItWas, Membership::Today] {
            for (by, period) in
                [("", "2026-01"), ("township", "2026-01"), ("", "2025-12..2026-02"), ("month", "2025-12..2026-01")]
            {
                let request = QueryRequest { period: period.to_owned(), ..everything(by, membership, None) };
                let groups = engine.query(&request, now).unwrap();
                // With plans of its own: rows kept from the other way would be held against themselves.
                let plans = Plans::default();
                let anew = Engine { plans: &plans, ..engine };
                let units = indicators::by_unit(|| anew.query(&request, now)).unwrap();
                prop_assert_eq!(&groups.rows, &units.rows, "{} {}", by, period);
            }
        }

        // The sum of overlapping groups leads to the administrative total.
        for place in ["P", "C1"] {
            let request = QueryRequest {
                place: place.to_owned(),
                period: "2026-01".to_owned(),
                by: vec!["network".to_owned()],
                network: Some("alliance".to_owned()),
                elements: vec!["visits".to_owned()],
                ..QueryRequest::default()
            };
            let answer = engine.query(&request, now).unwrap();
            let whole = engine
                .query(&QueryRequest { by: vec![], network: None, ..request }, now)
                .unwrap();
            let whole = whole.rows[0].elements.get("visits").unwrap().value.unwrap_or(0);
            let groups: u64 =
                answer.rows.iter().filter_map(|row| row.elements.get("visits").unwrap().value).sum();
            let reconciliation = answer.reconciliation.unwrap();
            // Also where no group has any.
            let r = reconciliation.get("visits").unwrap();
            prop_assert_eq!(r.sum_of_groups.value, groups);
            prop_assert_eq!(r.administrative_total.value, whole);
            prop_assert_eq!(
                r.sum_of_groups.value + r.in_none.value,
                r.administrative_total.value + r.more_than_once.value + r.outside_area.value
            );
        }
    }
}
