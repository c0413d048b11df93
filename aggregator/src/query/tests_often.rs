//! What is made ready before anyone asks: everything asked most, once, and only where it does not stand.

use std::cell::RefCell;

use banyan_shared::period::Period;

use super::fixture::World;
use super::*;

fn months(codes: &[&str]) -> BTreeSet<Period> {
    codes.iter().map(|code| code.parse().unwrap()).collect()
}

/// Everything a round asks that is not ready, as (place, period).
fn all(round: &mut Often, is_ready: impl Fn(&QueryRequest) -> bool) -> Vec<(String, String)> {
    let mut asked = Vec::new();
    loop {
        match round.next(2, &is_ready) {
            Next::Ask(question) => {
                let plain = QueryRequest {
                    place: question.place.clone(),
                    period: question.period.clone(),
                    ..QueryRequest::default()
                };
                assert_eq!(question, plain, "as it is asked with nothing else said");
                asked.push((question.place, question.period));
            }
            Next::Further => {}
            Next::Over => return asked,
        }
    }
}

#[test]
fn a_round_asks_of_every_place_and_network_and_month_once_the_newest_first() {
    let w = World::new();
    let mut round = Often::new(&w.organisation, &months(&["2025-12", "2026-01"]));
    let looked = RefCell::new(Vec::new());
    let asked = all(&mut round, |question| {
        looked.borrow_mut().push((question.place.clone(), question.period.clone()));
        false
    });
    let mut expected = Vec::new();
    // The counties' townships are the last level here.
    for codes in [&["P"][..], &["G1", "G2", "L1", "L2"], &["C1", "C2"]] {
        for month in ["2026-01", "2025-12"] {
            expected.extend(codes.iter().map(|code| ((*code).to_owned(), month.to_owned())));
        }
    }
    assert_eq!(asked, expected);
    assert_eq!(*looked.borrow(), expected);
    assert_eq!(round.next(9, |_| false), Next::Over);
    assert_eq!(Often::new(&w.organisation, &BTreeSet::new()).next(1, |_| false), Next::Over);
}

#[test]
fn what_was_made_ready_is_what_is_answered_and_only_what_no_longer_stands_is_made_again() {
    let mut w = World::new();
    let more = super::tests_indicators::indicators();
    w.catalogue =
        Catalogue::load((super::fixture::CATALOGUE.to_owned() + &more).as_bytes()).unwrap();
    w.organisation = super::fixture::organisation(&w.catalogue);
    w.cube = Cube::new(&w.catalogue);
    super::reserve(&mut w.cube, &w.catalogue, &w.organisation);
    w.put("A", "daily", "2026-01-05", &["3", "1"], ("2026-01-06", 9));
    w.put("D", "daily", "2026-02-02", &["4", "1"], ("2026-02-03", 9));
    let now = w.at("2026-02-20", 12);
    let months = months(&["2026-01", "2026-02"]);
    let pass = |w: &World, now| {
        let engine = w.engine();
        let asked = all(&mut Often::new(&w.organisation, &months), |q| engine.is_ready(q, now));
        for (place, period) in &asked {
            let (place, period) = (place.clone(), period.clone());
            let question = QueryRequest { place, period, ..QueryRequest::default() };
            engine.make_ready(&question, now).unwrap();
            assert!(engine.is_ready(&question, now), "{question:?}");
        }
        asked
    };
    // G2 begins with February.
    assert_eq!(pass(&w, now).len(), 13);
    assert_eq!(pass(&w, now.plus(1)), []);
    let question = |place: &str, period: &str| QueryRequest {
        place: place.to_owned(),
        period: period.to_owned(),
        ..QueryRequest::default()
    };
    for place in ["P", "C1", "C2", "G1", "L1"] {
        for period in ["2026-01", "2026-02"] {
            let question = question(place, period);
            assert!(w.engine().is_ready(&question, now));
            let bytes = w.plans.kept_bytes();
            let answer = w.engine().query(&question, now).unwrap();
            assert_eq!(w.plans.kept_bytes(), bytes, "nothing new was kept for {question:?}");
            let again = w.engine().query(&question, now).unwrap();
            assert!(Arc::ptr_eq(&answer.rows[0], &again.rows[0]), "{question:?}");
            let fresh = Plans::default();
            let anew = Engine { plans: &fresh, ..w.engine() }.query(&question, now).unwrap();
            assert_eq!(answer, anew);
        }
    }
    // A report of February leaves January as it was.
    w.put("A", "daily", "2026-02-03", &["5", "1"], ("2026-02-20", 10));
    let bytes = w.plans.kept_bytes();
    w.engine().tidy(now);
    assert!(w.plans.kept_bytes() < bytes, "what is of no more use is let go");
    assert!(w.engine().is_ready(&question("C1", "2026-01"), now));
    let asked = pass(&w, now);
    assert!(asked.iter().all(|(_, period)| period == "2026-02"), "{asked:?}");
    assert!(asked.contains(&("C1".to_owned(), "2026-02".to_owned())), "{asked:?}");
    let answer = w.engine().query(&question("C1", "2026-02"), now).unwrap();
    assert_eq!(answer.rows[0].elements.get("visits").unwrap().value, Some(5));
    // What cannot be answered is left alone.
    assert!(w.engine().is_ready(&question("nowhere", "2026-01"), now));
    assert!(w.engine().is_ready(&question("G2", "2026-01"), now));
}
