use proptest::prelude::*;

use super::*;
use crate::catalogue::{Days, Due, ElementIx, Filter, Form, KindIx, Line, Text};
use crate::ids::Millis;
use crate::period::{Date, Period, PeriodType};
use crate::report::Value;

fn form(period_type: PeriodType) -> Form {
    let line = |element, required| Line {
        element: ElementIx(element),
        required,
        asked_of: Filter::default(),
        from: None,
        to: None,
        max: 1_000_000,
    };
    Form {
        code: "f".parse().unwrap(),
        name: Text::default(),
        kinds: vec![KindIx(0)],
        period_type,
        days: Days::All,
        due: Due { days: 1, hour: 10, minute: 0, next_working_day: true },
        grace_minutes: 3 * 24 * 60,
        from: None,
        to: None,
        lines: vec![line(0, true), line(1, false)],
    }
}

fn period(text: &str) -> Period {
    text.parse().unwrap()
}

fn day(text: &str) -> Date {
    text.parse().unwrap()
}

#[test]
fn a_duty_needs_every_condition() {
    let form = form(PeriodType::Day);
    let p = period("2026-01-05");
    let good = DutyFacts {
        day: day("2026-01-05"),
        kind: KindIx(0),
        active: true,
        in_span: true,
        working_day: false,
        waived: false,
    };
    assert!(duty(&form, p, Some(&good)));
    assert!(!duty(&form, p, None));
    for bad in [
        DutyFacts { kind: KindIx(1), ..good },
        DutyFacts { active: false, ..good },
        DutyFacts { in_span: false, ..good },
        DutyFacts { waived: true, ..good },
    ] {
        assert!(!duty(&form, p, Some(&bad)), "{bad:?}");
    }
    assert!(!duty(&form, period("2026-01"), Some(&good)), "another period type");
    let working = Form { days: Days::Working, ..form.clone() };
    assert!(!duty(&working, p, Some(&good)));
    assert!(duty(&working, p, Some(&DutyFacts { working_day: true, ..good })));
    let ended = Form { to: Some(day("2026-01-05")), ..form };
    assert!(!duty(&ended, p, Some(&good)));
}

#[test]
fn an_empty_report_is_no_answer_and_zero_is_one() {
    let form = form(PeriodType::Day);
    let judge = |values: [Value; 2]| answer(&form, false, |_| true, |line| values[line]);
    use Value::{Missing, NotApplicable, Number};
    assert_eq!(judge([Missing, Missing]), Answer { answered: false, complete: false });
    assert_eq!(judge([Number(0), Missing]), Answer { answered: true, complete: true });
    assert_eq!(judge([Missing, NotApplicable]), Answer { answered: true, complete: false });
    assert_eq!(answer(&form, true, |_| true, |_| Number(1)), Answer::default());
    assert!(answer(&form, false, |line| line == 1, |_| Number(1)).complete);
    assert!(!answer(&form, false, |line| line == 1, |l| [Number(3), Missing][l]).answered);
}

#[test]
fn a_due_day_moves_to_the_next_working_day() {
    let form = form(PeriodType::Day);
    // Friday 2 January: due on Saturday, moved to Monday the 5th.
    let friday = period("2026-01-02");
    assert_eq!(due_day(&form, friday, |date| date.weekday() < 5), day("2026-01-05"));
    assert_eq!(due_day(&form, friday, |_| false), day("2026-01-03"), "no working day at all");
    let fixed = Form { due: Due { next_working_day: false, ..form.due }, ..form };
    assert_eq!(due_day(&fixed, friday, |date| date.weekday() < 5), day("2026-01-03"));
}

#[test]
fn a_correction_keeps_the_arrival_and_a_withdrawal_breaks_it() {
    let at = Millis;
    assert_eq!(arrived([(at(1), true), (at(9), true)]), Some(at(1)));
    assert_eq!(arrived([(at(1), true), (at(5), false), (at(9), true)]), Some(at(9)));
    assert_eq!(arrived([(at(1), true), (at(5), false)]), None);
    assert_eq!(arrived([]), None);
}

#[test]
fn the_first_cause_that_fits_is_named() {
    let all = MissingFacts {
        returned: true,
        refused: true,
        parked: true,
        enrolled: false,
        backlog: Some(true),
        silent: Some(true),
    };
    let mut facts = all;
    let mut seen = vec![missing_why(&facts)];
    facts.returned = false;
    seen.push(missing_why(&facts));
    facts.refused = false;
    seen.push(missing_why(&facts));
    facts.parked = false;
    seen.push(missing_why(&facts));
    facts.enrolled = true;
    seen.push(missing_why(&facts));
    facts.backlog = None;
    seen.push(missing_why(&facts));
    facts.silent = None;
    seen.push(missing_why(&facts));
    assert_eq!(seen, MissingWhy::ALL);
}

fn any_standing() -> impl Strategy<Value = (Option<i64>, i64, bool, bool, bool, usize)> {
    (
        prop::option::of(0i64..100),
        0i64..100,
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        0..MISSING_CAUSES,
    )
}

proptest! {
    #[test]
    fn parts_add_up_and_no_rate_exceeds_100(
        reports in prop::collection::vec(any_standing(), 0..60), now in 0i64..120, cut in 0usize..60,
    ) {
        let mut whole = Completeness::default();
        let mut parts = [Completeness::default(), Completeness::default()];
        for (i, (at, late_after, incomplete, proxy, by_network, why)) in reports.iter().enumerate() {
            let arrived = at.map(Millis).filter(|at| at.0 <= now);
            let one = Standing {
                corrected: false,
                timing: judge(arrived, Millis(*late_after), Millis(now)),
                incomplete: *incomplete,
                proxy: *proxy,
                late_by_network: *by_network,
                why: MissingWhy::ALL[*why],
            };
            whole.add(one);
            parts[usize::from(i < cut)].add(one);
        }
        prop_assert_eq!(whole.expected(), reports.len() as u64);
        prop_assert_eq!(
            whole.expected(),
            whole.on_time + whole.late + whole.not_yet_due + whole.missing()
        );
        prop_assert!(whole.incomplete <= whole.received() && whole.proxy <= whole.received());
        prop_assert!(whole.late_by_network <= whole.late);
        if let Some(rate) = whole.reporting_rate() {
            prop_assert!((0.0..=100.0).contains(&rate));
        }
        if let Some(rates) = whole.timing_rates() {
            prop_assert!((rates.iter().sum::<f64>() - 100.0).abs() < 1e-9);
            prop_assert!(rates.iter().all(|rate| (0.0..=100.0).contains(rate)));
        }
        let [mut first, second] = parts;
        first.merge(&second);
        prop_assert_eq!(first, whole);
    }

    // The identity holds for every map, and regrouping never changes the administrative total.
    #[test]
    fn the_identity_holds_for_every_map(
        cells in prop::collection::vec(
            (0u32..20, 0u16..3, any::<bool>(), 0u32..4, 0u64..1000, 0u32..4), 0..60,
        ),
    ) {
        let mut one = Reconciler::default();
        let mut regrouped = Reconciler::default();
        let (mut total, mut groups) = (0u128, 0u128);
        for &(facility, kind, in_area, m, value, other) in &cells {
            let cell = Cell { facility, kind: KindIx(kind), in_area, groups: m, value };
            one.add(cell);
            regrouped.add(Cell { groups: other, ..cell });
            total += if in_area { u128::from(value) } else { 0 };
            groups += u128::from(m) * u128::from(value);
        }
        let (a, b) = (one.finish(), regrouped.finish());
        prop_assert!(a.holds() && b.holds());
        prop_assert_eq!(a.administrative_total.value, total);
        prop_assert_eq!(a.sum_of_groups.value, groups);
        prop_assert_eq!(a.administrative_total, b.administrative_total);
        prop_assert_eq!(
            a.in_none_by_kind.values().map(|x| x.value).sum::<u128>(), a.in_none.value
        );
    }
}
