//! Corrections and withdrawals of one report.

use super::*;

#[test]
fn a_correction_keeps_what_it_does_not_name_and_outranks_what_it_was_shown() {
    let mut state = state(&["A"]);
    said(&mut state, 1, "2026-02-01", two(12, 3));
    let changed = correct(&mut state, A, &["visits=15"]).unwrap();
    let change = &changed.changes[..];
    assert_eq!(change.len(), 1);
    assert_eq!(
        (&*change[0].element, &change[0].before, &change[0].after),
        ("visits", &TraceValue::Number(12), &TraceValue::Number(15))
    );
    assert_eq!(changed.replaced.len(), 1);
    let known = state.known(&"A".parse().unwrap(), FormIx(0), "2026-02-01".parse().unwrap());
    let now = known.counted().unwrap();
    assert_eq!(known.values(now), two(15, 3));
    assert_eq!(now.content.how, How::Operator);
    assert_eq!(now.content.entered_by.as_deref(), Some("stat"));
    assert_eq!(now.received_at, NOW.plus(1000), "recorded when the ledger received it");
    // What the facility says afterwards, not knowing of it, stands beside it until someone decides.
    said(&mut state, 2, "2026-02-01", two(13, 3));
    assert_eq!(counted_by(&state), (15, 2));
    let settled = correct(&mut state, A, &["visits=13"]).unwrap();
    assert_eq!(settled.replaced.len(), 2, "every version that stood is named");
    assert_eq!(counted_by(&state), (13, 1));
    // Saying what is counted already changes nothing.
    let again = correct(&mut state, A, &["visits=13"]).unwrap();
    assert!(!again.saved && again.changes.is_empty() && again.version.is_none());
}

#[test]
fn a_withdrawal_returns_everything_to_missing_and_a_correction_begins_anew() {
    let mut state = state(&["A"]);
    let none = refusal(change(&mut state, A, &asked(&[], true, NOW)));
    assert!(none.contains("no report daily 2026-02-01 of A to withdraw"), "{none}");
    said(&mut state, 1, "2026-02-01", two(12, 3));
    let gone = change(&mut state, A, &asked(&[], true, NOW.plus(1))).unwrap();
    assert!(gone.withdrawn && gone.saved);
    assert_eq!(gone.changes.len(), 2);
    let (code, period) = ("A".parse().unwrap(), "2026-02-01".parse().unwrap());
    let report = state.cube.report(&code, &"daily".parse().unwrap(), period).unwrap();
    assert!(!report.answered);
    let anew = change(&mut state, A, &asked(&["visits=4"], false, NOW.plus(2))).unwrap();
    assert_eq!(anew.changes.len(), 1);
    assert_eq!(anew.changes[0].before, TraceValue::Missing(None));
    let known = state.known(&code, FormIx(0), period);
    assert_eq!(
        known.values(known.counted().unwrap()),
        [Value::Number(4), Value::Missing],
        "what was withdrawn stays so"
    );
}

#[test]
fn what_cannot_be_corrected_is_refused_with_every_reason() {
    let mut state = state(&["A"]);
    let mut refused = |place, values: &[&str]| refusal(correct(&mut state, place, values));
    let all = refused(
        A,
        &["visits=1000000000001", "home_visit=1", "beds=2", "visits=x", "home_visits=-1"],
    );
    for part in [
        "1000000000000",
        "did you mean home_visits",
        "form daily has no element beds",
        "not a whole number",
        "never negative",
    ] {
        assert!(all.contains(part), "{part}: {all}");
    }
    assert_eq!(all.lines().count(), 5, "{all}");
    for (place, part) in [
        (("Z", "daily", "2026-02-01"), "no unit is called Z"),
        (("诊所", "daily", "2026-02-01"), "names several units"),
        (("T1", "daily", "2026-02-01"), "name a facility or desk"),
        (("A", "dail", "2026-02-01"), "did you mean daily"),
        (("A", "daily", "2026-02"), "periods of type day"),
        (("A", "daily", "2026-02-30"), "2026-02-30"),
        (("A", "daily", "2026-02-11"), "has not begun"),
        (("K", "daily", "2026-01-11"), "closed"),
        (("H1", "daily", "2026-02-01"), "not asked of this kind"),
    ] {
        let text = refused(place, &["visits=1"]);
        assert!(text.contains(part), "{place:?} {part}: {text}");
    }
    let text = refused(("H2", "hospital_monthly", "2026-01"), &["led=1"]);
    assert!(text.contains("led is not asked"), "H2 leads no community in January: {text}");
    let twice = refused(A, &["visits=1", "visits=2"]);
    assert!(twice.contains("given twice"), "{twice}");
    assert_eq!(state.cube.forms().iter().map(|f| f.blocks().count()).sum::<usize>(), 0);
    for (code, part) in [("typing", "typo"), ("", "recount")] {
        let text = reason(code, Lang::Zh).unwrap_err().to_string();
        assert!(text.contains(part), "{text}");
    }
    assert!(person("two words", Lang::En).is_err() && person("王医生", Lang::En).is_ok());
}

fn values_of_a(state: &State) -> Option<Vec<Value>> {
    let known = state.known(&"A".parse().unwrap(), FormIx(0), A.2.parse().unwrap());
    known.counted().map(|version| known.values(version))
}

#[test]
fn a_correction_of_what_was_returned_keeps_its_other_values() {
    let mut state = state(&["A"]);
    said(&mut state, 1, A.2, two(11, 3));
    decide(&mut state, A, "return", NOW.plus(10)).unwrap();
    assert_eq!(values_of_a(&state), None);
    let changed = correct(&mut state, A, &["visits=12"]).unwrap();
    assert_eq!(values_of_a(&state), Some(two(12, 3)));
    assert_eq!(changed.changes.len(), 2, "both come back into the figures: {changed:?}");
    // The same figure again, once more returned, is an entry of its own.
    decide(&mut state, A, "return", NOW.plus(2000)).unwrap();
    let again = change(&mut state, A, &asked(&["visits=12"], false, NOW.plus(3000))).unwrap();
    assert!(again.saved);
    assert_eq!(values_of_a(&state), Some(two(12, 3)));
}

#[test]
fn a_correction_of_what_waits_behind_a_lock_keeps_its_other_values() {
    let mut state = state(&["A"]);
    decide(&mut state, ("C1", "daily", A.2), "lock", NOW.plus(1)).unwrap();
    said(&mut state, 1, A.2, two(11, 3));
    assert_eq!(values_of_a(&state), None);
    assert!(correct(&mut state, A, &["visits=12"]).unwrap().pending);
    decide(&mut state, A, "approve", NOW.plus(2000)).unwrap();
    assert_eq!(values_of_a(&state), Some(two(12, 3)));
}

#[test]
fn a_withdrawal_takes_out_what_would_no_longer_be_taken_in() {
    let mut state = state(&["A"]);
    said(&mut state, 1, A.2, two(12, 3));
    let units = crate::query::fixture::UNITS.replace("A,甲诊所,clinic", "A,甲诊所,hospital");
    let tables = Act::Tables(vec![table(TableName::Units, &units)]);
    put(&mut state, vec![tables], NOW.plus(10));
    assert_eq!(value_of_a(&state, None), Value::Number(12), "counted, though not expected");
    let gone = change(&mut state, A, &asked(&[], true, NOW.plus(20))).unwrap();
    assert!(gone.saved && gone.withdrawn);
    assert_eq!(value_of_a(&state, None), Value::Missing);
    assert!(state.parked.is_empty());
    let other = correct(&mut state, A, &["visits=12"]);
    assert!(refusal(other).contains("not asked of this kind"));
}
