//! Rows kept from an earlier question are the rows that would be worked out now.

use std::sync::Arc;

use banyan_shared::ids::UnitCode;
use banyan_shared::period::Date;
use proptest::prelude::*;

use super::fixture::World;
use super::*;
use crate::cube::Decided;

const CLINICS: [&str; 6] = ["A", "B", "M", "K", "N", "D"];

/// What may happen between two questions.
#[derive(Clone, Debug)]
enum Step {
    /// Time goes by; now and then a clock is set back.
    Minutes(i64),
    Daily {
        clinic: usize,
        day: i32,
        visits: u64,
    },
    Monthly {
        clinic: usize,
        month: u8,
        beds: u64,
    },
    Hospital {
        lead: bool,
        month: u8,
    },
    Lock {
        clinic: usize,
        day: i32,
    },
}

fn any_step() -> impl Strategy<Value = Step> {
    let clinic = 0..CLINICS.len();
    prop_oneof![
        4 => prop_oneof![1i64..10, 30i64..2_000, 3_000i64..40_000, -90i64..0].prop_map(Step::Minutes),
        3 => (clinic.clone(), 1i32..60, 0u64..9)
            .prop_map(|(clinic, day, visits)| Step::Daily { clinic, day, visits }),
        1 => (clinic.clone(), 1u8..3, 0u64..9)
            .prop_map(|(clinic, month, beds)| Step::Monthly { clinic, month, beds }),
        1 => (any::<bool>(), 1u8..3).prop_map(|(lead, month)| Step::Hospital { lead, month }),
        1 => (clinic, 1i32..60).prop_map(|(clinic, day)| Step::Lock { clinic, day }),
    ]
}

fn day(n: i32) -> Date {
    Date::new(2025, 12, 31).unwrap().plus(n)
}

/// A world and its clock.
struct Story {
    world: World,
    now: Millis,
}

impl Story {
    fn take(&mut self, step: &Step) {
        let w = &mut self.world;
        let at = (w.catalogue.day_at(self.now).to_string(), 0);
        let at = (at.0.as_str(), at.1);
        match *step {
            Step::Minutes(n) => self.now = self.now.plus(n * 60_000),
            Step::Daily { clinic, day: n, visits } => {
                let visits = visits.to_string();
                w.put(CLINICS[clinic], "daily", &day(n).to_string(), &[&visits, ""], at);
            }
            Step::Monthly { clinic, month, beds } => {
                let (month, beds) = (format!("2026-{month:02}"), beds.to_string());
                w.put(CLINICS[clinic], "monthly", &month, &[&beds, "70"], at);
            }
            Step::Hospital { lead, month } => {
                let hospital = if lead { "H1" } else { "H2" };
                w.put(
                    hospital,
                    "hospital_monthly",
                    &format!("2026-{month:02}"),
                    &["5", "3", "", "2"],
                    at,
                );
            }
            Step::Lock { clinic, day: n } => {
                let decided = Decided { by: "x".to_owned(), at: self.now, position: w.next };
                w.next += 1;
                let unit: UnitCode = CLINICS[clinic].parse().unwrap();
                let report = (&"daily".parse().unwrap(), day(n).to_string().parse().unwrap());
                w.cube.stage(report, (decided, Stage::Locked, String::new()), &[&unit], &[]);
            }
        }
    }
}

fn questions() -> Vec<QueryRequest> {
    let ask = |place: &str, period: &str, by: &str| QueryRequest {
        place: place.to_owned(),
        period: period.to_owned(),
        by: if by.is_empty() { vec![] } else { vec![by.to_owned()] },
        ..QueryRequest::default()
    };
    vec![
        ask("P", "2026-01", ""),
        ask("C1", "2026-01", "facility"),
        ask("C1", "2026-02", ""),
        ask("P", "2026-01..2026-02", "month"),
        ask("G1", "2026-01", ""),
        ask("T1", "2026-01-05", ""),
        QueryRequest { membership: Membership::Today, ..ask("P", "2026-01", "county") },
        QueryRequest { elements: vec!["population".to_owned()], ..ask("P", "2026-02", "") },
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
    #[test]
    fn kept_rows_are_those_worked_out_now(
        begin in 0i64..70,
        steps in prop::collection::vec(any_step(), 1..12),
    ) {
        let mut world = World::new();
        let more = super::tests_indicators::indicators();
        world.catalogue =
            Catalogue::load((super::fixture::CATALOGUE.to_owned() + &more).as_bytes()).unwrap();
        world.organisation = super::fixture::organisation(&world.catalogue);
        world.cube = Cube::new(&world.catalogue);
        super::reserve(&mut world.cube, &world.catalogue, &world.organisation);
        let begin = i32::try_from(begin).unwrap();
        let now = world.catalogue.moment(day(begin), 9, 50);
        let mut story = Story { world, now };
        for step in &steps {
            story.take(step);
            let now = story.now;
            for request in questions() {
                let kept = story.world.engine().query(&request, now);
                let fresh = Plans::default();
                let anew = Engine { plans: &fresh, ..story.world.engine() }.query(&request, now);
                prop_assert_eq!(kept, anew, "after {:?} at {:?}: {:?}", step, now, request);
            }
        }
    }
}

#[test]
fn rows_are_kept_until_something_they_were_read_from_changes() {
    let mut w = World::new();
    let january = QueryRequest {
        place: "C1".to_owned(),
        period: "2026-01".to_owned(),
        ..QueryRequest::default()
    };
    w.put("A", "daily", "2026-01-05", &["3", "1"], ("2026-01-06", 9));
    let noon = w.at("2026-01-20", 12);
    let rows = |w: &World, now: Millis| w.engine().query(&january, now).unwrap().rows[0].clone();
    let first = rows(&w, noon);
    assert!(Arc::ptr_eq(&first, &rows(&w, noon.plus(60_000))), "nothing happened in a minute");
    assert!(!Arc::ptr_eq(&first, &rows(&w, w.at("2026-01-21", 12))), "another day has ended");

    let first = rows(&w, noon);
    w.put("A", "daily", "2026-02-02", &["3", "1"], ("2026-02-03", 9));
    assert!(Arc::ptr_eq(&first, &rows(&w, noon)), "another month's report");
    w.put("A", "daily", "2026-01-06", &["4", "1"], ("2026-01-07", 9));
    let later = rows(&w, noon);
    assert_eq!(later.elements.get("visits").unwrap().value, Some(7));
    assert!(Arc::ptr_eq(&later, &rows(&w, noon)));

    let by_month = QueryRequest {
        period: "2026-01..2026-02".to_owned(),
        by: vec!["month".to_owned()],
        ..january.clone()
    };
    let months = |w: &World| w.engine().query(&by_month, noon).unwrap().rows;
    let before = months(&w);
    w.put("A", "daily", "2026-02-02", &["5", "1"], ("2026-02-03", 9));
    let after = months(&w);
    assert!(Arc::ptr_eq(&before[0], &after[0]) && !Arc::ptr_eq(&before[1], &after[1]));

    let named = QueryRequest { names: true, ..january.clone() };
    let named = w.engine().query(&named, noon).unwrap().rows;
    assert!(named[0].elements.get("visits").unwrap().named, "another question");
}
