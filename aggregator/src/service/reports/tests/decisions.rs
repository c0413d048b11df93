//! Returns, approvals, sign-offs and locks.

use super::*;

#[test]
fn behind_a_lock_later_versions_wait_until_an_approval_names_them() {
    let mut state = state(&["A", "B"]);
    said(&mut state, 1, "2026-02-01", two(12, 3));
    let county = ("C1", "daily", "2026-02-01");
    assert_eq!(decide(&mut state, county, "lock", NOW.plus(10)).unwrap().len(), 1);
    assert!(decide(&mut state, county, "lock", NOW.plus(11)).unwrap().is_empty(), "locked already");
    let text = decide(&mut state, county, "sign", NOW.plus(11)).unwrap_err().to_string();
    assert!(text.contains("locked already"), "{text}");
    said(&mut state, 2, "2026-02-01", two(20, 3));
    assert_eq!((value_of_a(&state, None), of_a(&state).pending), (Value::Number(12), 1));
    // A correction waits as well, and is told to.
    let changed = change(&mut state, A, &asked(&["visits=15"], false, NOW.plus(20))).unwrap();
    assert!(changed.pending && changed.saved);
    assert_eq!((value_of_a(&state, None), of_a(&state).pending), (Value::Number(12), 2));
    // Another facility's first report of the locked day waits too.
    take(&mut state, batch(vec![(3, report(1, 0, "2026-02-01", two(5, 0)))]));
    let b: UnitCode = "B".parse().unwrap();
    let daily = "daily".parse().unwrap();
    let of_b = state.cube.report(&b, &daily, "2026-02-01".parse().unwrap()).unwrap();
    assert!(!of_b.answered && of_b.pending == 1);
    decide(&mut state, A, "approve", NOW.plus(30)).unwrap();
    let now = of_a(&state);
    assert_eq!((value_of_a(&state, None), now.pending), (Value::Number(15), 0));
    assert!(now.restated && now.corrected);
    let nothing = decide(&mut state, A, "approve", NOW.plus(31)).unwrap_err().to_string();
    assert!(nothing.contains("waits for an approval"), "{nothing}");
    // As known then.
    for (at, value) in [(10, 12), (20, 12), (29, 12), (30, 15)] {
        assert_eq!(value_of_a(&state, Some(NOW.plus(at))), Value::Number(value), "{at}");
    }
    decide(&mut state, county, "unlock", NOW.plus(40)).unwrap();
    let of_b = state.cube.report(&b, &daily, "2026-02-01".parse().unwrap()).unwrap();
    assert!(of_b.answered && of_b.restated && !of_b.corrected, "it was not there to be corrected");
    let kinds: Vec<_> =
        state.cube.decisions(&"A".parse().unwrap(), &daily, A.2.parse().unwrap(), None);
    assert_eq!(kinds.len(), 3, "{kinds:?}");
    assert_eq!(kinds[0].decided().by, "stat");
}

#[test]
fn after_a_sign_off_corrections_count_and_restate() {
    let mut state = state(&["A"]);
    said(&mut state, 1, "2026-02-01", two(12, 3));
    decide(&mut state, ("T1", "daily", "2026-02-01..2026-02-03"), "sign", NOW.plus(10)).unwrap();
    assert!(!of_a(&state).restated);
    said(&mut state, 2, "2026-02-01", two(13, 3));
    assert!(of_a(&state).corrected && of_a(&state).pending == 0);
    assert_eq!(value_of_a(&state, None), Value::Number(13));
    said(&mut state, 3, "2026-02-02", two(1, 1));
    let (code, period) = ("A".parse().unwrap(), "2026-02-02".parse().unwrap());
    let late = state.cube.report(&code, &"daily".parse().unwrap(), period).unwrap();
    assert!(late.restated && !late.corrected);
    for (place, what, part) in [
        (("C1", "daily", "2026-02-10"), "sign", "has not ended"),
        (("C1", "daily", "2026"), "lock", "has not ended"),
        (("C1", "monthly", "2026-01-05"), "lock", "periods of type month"),
        (("C9", "daily", "2026-02-01"), "lock", "no unit or network"),
        (("H1", "daily", "2026-02-01"), "lock", "no facility of H1 reports daily"),
    ] {
        let text = decide(&mut state, place, what, NOW).unwrap_err().to_string();
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn what_is_returned_does_not_count_until_it_is_entered_again_or_approved() {
    let mut state = state(&["A"]);
    let text = decide(&mut state, A, "return", NOW).unwrap_err().to_string();
    assert!(text.contains("no report daily 2026-02-01 of A to return"), "{text}");
    said(&mut state, 1, "2026-02-01", two(12, 3));
    decide(&mut state, A, "return", NOW.plus(10)).unwrap();
    let report = of_a(&state);
    assert!(report.returned && !report.answered && report.pending == 0);
    assert_eq!(value_of_a(&state, None), Value::Missing);
    assert_eq!(state.cube.returned_reports(None).len(), 1);
    assert_eq!(value_of_a(&state, Some(NOW.plus(9))), Value::Number(12), "as known before");
    let again = decide(&mut state, A, "return", NOW.plus(11)).unwrap_err().to_string();
    assert!(again.contains("stands returned already"), "{again}");
    let mut approved = state.clone();
    decide(&mut approved, A, "approve", NOW.plus(20)).unwrap();
    assert_eq!(value_of_a(&approved, None), Value::Number(12));
    assert!(!of_a(&approved).returned);
    said(&mut state, 2, "2026-02-01", two(10, 3));
    assert!(!of_a(&state).returned);
    assert_eq!(value_of_a(&state, None), Value::Number(10));
}

#[test]
fn a_second_sign_off_is_one_only_of_what_has_changed_since_the_first() {
    let mut state = state(&["A"]);
    said(&mut state, 1, A.2, two(12, 3));
    let county = ("C1", "daily", A.2);
    let sign = |state: &mut State, at| decide(state, county, "sign", NOW.plus(at)).unwrap().len();
    assert_eq!((sign(&mut state, 10), sign(&mut state, 11)), (1, 0));
    said(&mut state, 2, A.2, two(13, 3));
    assert_eq!((sign(&mut state, 20), sign(&mut state, 21)), (1, 0), "corrected once, signed once");
    assert!(of_a(&state).corrected, "it was changed after it was first reported upwards");
    decide(&mut state, A, "return", NOW.plus(30)).unwrap();
    assert_eq!((sign(&mut state, 40), sign(&mut state, 41)), (1, 0));
}

#[test]
fn one_decision_is_about_a_year_of_days_and_no_more() {
    let mut state = state(&["A"]);
    for (period, periods) in
        [("2024-01-01..2025-12-31", "731"), ("1990-01-01..2025-12-31", "13149")]
    {
        for what in ["sign", "lock", "unlock"] {
            let text = decide(&mut state, ("C1", "daily", period), what, NOW).unwrap_err();
            let text = text.to_string();
            assert!(text.contains(&format!("{periods} periods, at most 400")), "{text}");
        }
    }
    assert_eq!(decide(&mut state, ("C1", "daily", "2025"), "lock", NOW).unwrap().len(), 1);
}

#[test]
fn what_stands_returned_is_known_without_looking_at_every_return() {
    let mut state = state(&["A"]);
    let returned = |state: &State, at: Option<i64>| {
        state.cube.returned_reports(at.map(|at| NOW.plus(at))).len()
    };
    for day in 1..=3 {
        let period = format!("2026-02-0{day}");
        said(&mut state, day, &period, two(12, 3));
        decide(&mut state, ("A", "daily", &period), "return", NOW.plus(10)).unwrap();
    }
    assert_eq!(returned(&state, None), 3);
    change(&mut state, A, &asked(&["visits=5"], false, NOW.plus(20))).unwrap();
    decide(&mut state, ("A", "daily", "2026-02-02"), "approve", NOW.plus(21)).unwrap();
    assert_eq!(returned(&state, None), 1);
    assert_eq!([9, 10, 20, 21].map(|at| returned(&state, Some(at))), [0, 3, 2, 1]);
    // Corrected and withdrawn since: missing for another reason.
    change(&mut state, ("A", "daily", "2026-02-03"), &asked(&["visits=5"], false, NOW.plus(30)))
        .unwrap();
    change(&mut state, ("A", "daily", "2026-02-03"), &asked(&[], true, NOW.plus(31))).unwrap();
    assert_eq!((returned(&state, None), returned(&state, Some(29))), (0, 1));
}
