use banyan_shared::report::{EnteredAt, How, Reason};
use proptest::prelude::*;

use super::*;
use crate::query::fixture;

fn id(writer: u8, counter: u32, seq: u64) -> VersionId {
    VersionId { writer: AgentId([writer; 6]), epoch: Epoch { counter, random: 7 }, seq }
}

fn version(facility: &str, period: &str, id: VersionId, values: [Value; 2]) -> AcceptedVersion {
    AcceptedVersion {
        facility: facility.parse().unwrap(),
        form: FormIx(0),
        period: period.parse().unwrap(),
        id,
        content: Content {
            values: values.to_vec(),
            how: How::Direct,
            entered_by: None,
            reason: None,
            override_code: None,
            withdrawn: false,
            entered_at: EnteredAt { minute: 1_000, doubtful: false },
            replaces: vec![],
        },
        received_at: Millis(60_000_000),
        position: 1,
    }
}

const DAY: &str = "2026-01-05";

fn cell(cube: &Cube, facility: &str, period: &str) -> Value {
    let form = cube.form(&"daily".parse().unwrap()).unwrap();
    let slot = form.slot(cube.facility(&facility.parse().unwrap()).unwrap()).unwrap();
    form.block(period.parse().unwrap()).unwrap().value(0, slot)
}

#[test]
fn zero_missing_and_not_applicable_stay_apart_and_large_numbers_whole() {
    let catalogue = fixture::catalogue();
    let mut cube = Cube::new(&catalogue);
    for (n, value) in [
        Value::Number(0),
        Value::Missing,
        Value::NotApplicable,
        Value::Number(u64::from(u32::MAX) - 3),
        Value::Number(u64::from(u32::MAX) - 2),
        Value::Number(u64::from(u32::MAX)),
        Value::Number(u64::MAX),
    ]
    .into_iter()
    .enumerate()
    {
        let facility = format!("F{n}");
        cube.apply(
            &catalogue,
            version(&facility, DAY, id(1, 1, n as u64 + 1), [value, Value::Number(1)]),
        )
        .unwrap();
        assert_eq!(cell(&cube, &facility, DAY), value);
    }
    let form = cube.form(&"daily".parse().unwrap()).unwrap();
    let mut numbers = [0u16; 9];
    let scan = form.block(DAY.parse().unwrap()).unwrap().scan(0, 0, &mut numbers);
    let m = u128::from(u32::MAX);
    assert_eq!(scan.sum, (m - 3) + (m - 2) + m + u128::from(u64::MAX));
    assert_eq!(numbers, [1, 0, 0, 1, 1, 1, 1, 0, 0]);
    assert_eq!((scan.numbers, scan.not_applicable), (5, 1));
}

#[test]
fn a_correction_is_counted_and_the_first_arrival_stays() {
    let catalogue = fixture::catalogue();
    let mut cube = Cube::new(&catalogue);
    let first = version("A", DAY, id(1, 1, 1), [Value::Number(3), Value::Missing]);
    let mut second = version("A", DAY, id(1, 1, 2), [Value::Number(5), Value::Missing]);
    second.content.reason = Some(Reason::Typo);
    second.received_at = first.received_at.plus(1_000);
    second.position = 2;
    cube.apply(&catalogue, second.clone()).unwrap();
    cube.apply(&catalogue, first.clone()).unwrap();
    assert_eq!(cell(&cube, "A", DAY), Value::Number(5));
    let (a, form) = ("A".parse().unwrap(), "daily".parse().unwrap());
    let report = cube.report(&a, &form, first.period).unwrap();
    assert_eq!(report.arrived, Some(first.received_at));
    assert_eq!((report.heads, report.versions), (1, 2));

    // As it stood before the correction came, and before anything came.
    let store = cube.form(&form).unwrap();
    let past = cube.block_at(store, first.period, Some(first.received_at)).unwrap();
    assert_eq!(past.value(0, 0), Value::Number(3));
    let before = cube.block_at(store, first.period, Some(Millis(0))).unwrap();
    assert!(!before.present(0) && before.value(0, 0) == Value::Missing);
}

#[test]
fn a_withdrawal_returns_to_missing_and_breaks_the_arrival() {
    let catalogue = fixture::catalogue();
    let mut cube = Cube::new(&catalogue);
    let (a, form): (UnitCode, FormCode) = ("A".parse().unwrap(), "daily".parse().unwrap());
    let mut versions: Vec<_> = (1u8..=3)
        .map(|n| {
            let mut v = version("A", DAY, id(1, 1, u64::from(n)), [Value::Number(u64::from(n)); 2]);
            v.received_at = Millis(i64::from(n) * 60_000_000);
            v.position = u64::from(n);
            v
        })
        .collect();
    versions[1].content.withdrawn = true;
    for v in &versions[..2] {
        cube.apply(&catalogue, v.clone()).unwrap();
    }
    assert_eq!(cell(&cube, "A", DAY), Value::Missing);
    let report = cube.report(&a, &form, versions[0].period).unwrap();
    assert!(!report.answered && report.arrived.is_none());
    cube.apply(&catalogue, versions[2].clone()).unwrap();
    let report = cube.report(&a, &form, versions[0].period).unwrap();
    assert_eq!(report.arrived, Some(versions[2].received_at));
    assert_eq!(cell(&cube, "A", DAY), Value::Number(3));
}

#[test]
fn a_lock_holds_later_versions_back_until_approved() {
    let catalogue = fixture::catalogue();
    let mut cube = Cube::new(&catalogue);
    let (a, form): (UnitCode, FormCode) = ("A".parse().unwrap(), "daily".parse().unwrap());
    let one = version("A", DAY, id(1, 1, 1), [Value::Number(1); 2]);
    let two = version("A", DAY, id(1, 1, 2), [Value::Number(2); 2]);
    cube.apply(&catalogue, one.clone()).unwrap();
    let decided = |position| Decided { by: "x".into(), at: one.received_at, position };
    let locked = (decided(9), Stage::Locked, "P".to_owned());
    cube.stage((&form, one.period), locked, &[&a], &[(&a, one.id.writer, one.id.epoch, 1)]);
    cube.apply(&catalogue, two.clone()).unwrap();
    assert_eq!(cell(&cube, "A", DAY), Value::Number(1));
    assert_eq!(cube.report(&a, &form, one.period).unwrap().pending, 1);
    let waits = |cube: &Cube| cube.waits(&a, &form, one.period, two.id);
    assert!(waits(&cube));
    cube.approved((&a, &form, one.period), decided(10), Reason::Recount, vec![two.id]);
    assert!(!waits(&cube));
    assert_eq!(cell(&cube, "A", DAY), Value::Number(2));
    assert_eq!(cube.report(&a, &form, one.period).unwrap().pending, 0);
}

#[test]
fn what_becomes_known_of_a_writer_later_settles_a_conflict() {
    let catalogue = fixture::catalogue();
    let mut cube = Cube::new(&catalogue);
    let (a, form): (UnitCode, FormCode) = ("A".parse().unwrap(), "daily".parse().unwrap());
    let old = version("A", DAY, id(1, 1, 5), [Value::Number(1); 2]);
    let new = version("A", DAY, id(1, 2, 1), [Value::Number(2); 2]);
    let replaced_pc = version("A", DAY, id(2, 1, 1), [Value::Number(3); 2]);
    for v in [&old, &new, &replaced_pc] {
        cube.apply(&catalogue, v.clone()).unwrap();
    }
    assert_eq!(cube.report(&a, &form, old.period).unwrap().heads, 3);
    cube.begins(new.id.writer, new.id.epoch, vec![(old.id.epoch, 5)]);
    assert_eq!(cube.report(&a, &form, old.period).unwrap().heads, 2);
    cube.succeeds(replaced_pc.id.writer, new.id.writer);
    let report = cube.report(&a, &form, old.period).unwrap();
    assert_eq!((report.heads, report.current), (1, Some(replaced_pc.id)));
}

#[test]
fn a_version_that_does_not_fit_its_catalogue_is_refused() {
    let catalogue = fixture::catalogue();
    let mut cube = Cube::new(&catalogue);
    let good = version("A", DAY, id(1, 1, 1), [Value::Number(1); 2]);
    let mut bad = good.clone();
    bad.content.values.pop();
    assert!(matches!(cube.apply(&catalogue, bad), Err(CubeError::WrongLength { .. })));
    let bad = AcceptedVersion { form: FormIx(99), ..good.clone() };
    assert!(matches!(cube.apply(&catalogue, bad), Err(CubeError::UnknownForm { .. })));
    let bad = AcceptedVersion { period: "2026-01".parse().unwrap(), ..good };
    assert!(matches!(cube.apply(&catalogue, bad), Err(CubeError::WrongPeriodType { .. })));
}

/// Older months as they lie in a file.
#[derive(Debug, Default)]
struct Packed(std::sync::Mutex<HashMap<(usize, Period), Vec<u8>>>);

impl Older for Packed {
    fn rewritten(&self) -> u64 {
        0
    }

    fn month(&self, form: usize, month: Period) -> Arc<Month> {
        Arc::new(Month::decode(&self.0.lock().unwrap()[&(form, month)]).unwrap())
    }
}

/// The same cube, all of it put aside.
fn aside(cube: &Cube) -> Cube {
    let packed = Packed::default();
    for (number, form) in cube.forms().iter().enumerate() {
        for month in form.months() {
            packed.0.lock().unwrap().insert((number, month), Month::encode(form.month(month)));
        }
    }
    let frame: Frame =
        banyan_shared::wire::decode(&banyan_shared::wire::encode(&cube.frame())).unwrap();
    Cube::of_frame(frame, Arc::new(packed))
}

#[test]
fn a_lock_that_admits_the_only_version_leaves_it_in_the_compact_form() {
    let catalogue = fixture::catalogue();
    let mut cube = Cube::new(&catalogue);
    let (a, form): (UnitCode, FormCode) = ("A".parse().unwrap(), "daily".parse().unwrap());
    let one = version("A", DAY, id(1, 1, 1), [Value::Number(1); 2]);
    let lock = |cube: &mut Cube, position, seen: &[(&UnitCode, AgentId, Epoch, Seq)]| {
        let decided = Decided { by: "x".into(), at: one.received_at, position };
        let what = (decided, Stage::Locked, "P".to_owned());
        cube.stage((&form, one.period), what, &[&a], seen);
    };
    let seen = [(&a, one.id.writer, one.id.epoch, 1)];
    cube.apply(&catalogue, one.clone()).unwrap();
    let report = cube.report(&a, &form, one.period);
    lock(&mut cube, 5, &seen);
    assert_eq!(cube.report(&a, &form, one.period), report);
    let block =
        |cube: &Cube| cube.form(&form).unwrap().block(one.period).unwrap().histories(0..9).count();
    assert_eq!(block(&cube), 0);
    // Locked before it came; a lock that saw less holds it back.
    let mut other = Cube::new(&catalogue);
    lock(&mut other, 5, &seen);
    other.apply(&catalogue, one.clone()).unwrap();
    assert_eq!((block(&other), other.digest()), (0, cube.digest()));
    lock(&mut cube, 6, &[]);
    assert_eq!(cube.report(&a, &form, one.period).unwrap().pending, 1);
    assert_eq!(cell(&cube, "A", DAY), Value::Missing);
}

#[test]
fn what_comes_months_after_it_was_entered_is_held_as_compactly() {
    let catalogue = fixture::catalogue();
    let mut cube = Cube::new(&catalogue);
    let (a, form): (UnitCode, FormCode) = ("A".parse().unwrap(), "daily".parse().unwrap());
    let soon = version("B", DAY, id(2, 1, 1), [Value::Number(2); 2]);
    let mut late = version("A", DAY, id(1, 1, 1), [Value::Number(1); 2]);
    late.received_at = late.received_at.plus(400 * 86_400_000);
    cube.apply(&catalogue, soon.clone()).unwrap();
    cube.apply(&catalogue, late.clone()).unwrap();
    for cube in [&cube, &aside(&cube)] {
        let block = cube.form(&form).unwrap();
        let block = cube.block_at(block, late.period, None).unwrap();
        assert_eq!(block.histories(0..9).count(), 0);
        let entered = |unit: &UnitCode| cube.report(unit, &form, late.period).unwrap().entered;
        assert_eq!(entered(&a), Some(late.content.entered_at));
        assert_eq!(entered(&soon.facility), Some(soon.content.entered_at));
    }
}

#[test]
fn a_copy_keeps_what_it_showed_while_the_original_goes_on() {
    let catalogue = fixture::catalogue();
    let mut cube = Cube::new(&catalogue);
    let one = version("A", DAY, id(1, 1, 1), [Value::Number(1); 2]);
    cube.apply(&catalogue, one.clone()).unwrap();
    let (copy, digest) = (cube.clone(), cube.digest());
    let generation =
        |cube: &Cube| cube.form(&"daily".parse().unwrap()).unwrap().generation(one.period);
    assert_eq!(generation(&cube), generation(&copy));
    cube.apply(&catalogue, version("A", DAY, id(1, 1, 2), [Value::Number(7); 2])).unwrap();
    cube.apply(&catalogue, version("B", DAY, id(2, 1, 1), [Value::Number(7); 2])).unwrap();
    cube.begins(one.id.writer, Epoch { counter: 2, random: 1 }, vec![(one.id.epoch, 5)]);
    assert_ne!(generation(&cube), generation(&copy));
    assert_eq!((copy.digest(), cell(&copy, "A", DAY)), (digest, Value::Number(1)));
    assert_ne!(cube.digest(), digest);
}

fn any_version() -> impl Strategy<Value = AcceptedVersion> {
    let value = prop_oneof![
        Just(Value::Missing),
        Just(Value::NotApplicable),
        (0u64..5).prop_map(Value::Number),
        Just(Value::Number(u64::from(u32::MAX))),
    ];
    (
        prop::sample::select(vec!["A", "B"]),
        prop::sample::select(vec!["2026-01-05", "2026-01-06"]),
        (1u8..3, 1u32..3, 1u64..4),
        [value.clone(), value],
        prop::sample::select(How::ALL),
        any::<bool>(),
        prop::option::of((1u8..3, 1u32..3, 1u64..4)),
        1u64..20,
    )
        .prop_map(|(facility, period, who, values, how, withdrawn, replaced, position)| {
            let mut v = version(facility, period, id(who.0, who.1, who.2), values);
            v.content.how = how;
            v.content.withdrawn = withdrawn;
            v.content.replaces = replaced.map(|(w, c, s)| id(w, c, s)).into_iter().collect();
            v.position = position;
            v.received_at = Millis(60_000_000 + i64::try_from(position).unwrap() * 1_500);
            if position >= 10 {
                // Months after it was entered.
                v.received_at = v.received_at.plus(100_000 * 60_000);
            }
            v
        })
}

proptest! {
    // The same set of versions gives the same answers, in any order, applied once or many times.
    #[test]
    fn order_and_repetition_play_no_part(
        mut versions in prop::collection::vec(any_version(), 1..12),
        turn in 0usize..12, repeat in 0usize..12, gone in 0usize..12,
    ) {
        // One identity stands for one content: the ledger refuses a number used twice.
        versions.sort_by_key(|v| (v.facility.clone(), v.period, v.id));
        versions.dedup_by_key(|v| (v.facility.clone(), v.period, v.id));
        let catalogue = fixture::catalogue();
        let build = |versions: &[AcceptedVersion]| {
            let mut cube = Cube::new(&catalogue);
            for v in versions {
                cube.apply(&catalogue, v.clone()).unwrap();
            }
            cube
        };
        let cube = build(&versions);
        let mut other = versions.clone();
        other.rotate_left(turn % versions.len());
        other.push(versions[repeat % versions.len()].clone());
        other.reverse();
        let shuffled = build(&other);
        prop_assert_eq!(cube.digest(), shuffled.digest());
        prop_assert!(cube.differences(&shuffled, 10).is_empty());

        // Put aside, packed, and read again, all of it or in part, it is the same; also what comes later.
        let mut put = aside(&cube);
        prop_assert_eq!(put.digest(), cube.digest());
        prop_assert!(put.differences(&cube, 10).is_empty());
        let (first, rest) = versions.split_at(turn % versions.len());
        let mut later = aside(&build(first));
        for v in rest.iter().chain(first) {
            later.apply(&catalogue, v.clone()).unwrap();
        }
        prop_assert_eq!(later.digest(), cube.digest());
        let months: Vec<Period> = put.forms()[0].months().into_iter().collect();
        for month in &months {
            let adopted = cube.without_blocks().adopt(&shuffled, 0, *month);
            put.bring(0, Month::decode(&Month::encode(adopted.blocks())).unwrap());
            prop_assert!(put.has_here(0, *month));
        }
        prop_assert_eq!(put.digest(), cube.digest());

        // A version that did not come shows.
        versions.remove(gone % versions.len());
        let less = build(&versions);
        prop_assert_ne!(less.digest(), cube.digest());
        prop_assert_eq!(less.differences(&cube, 10).len(), 1);

        // As of a moment = only what had come by then.
        let at = Millis(60_000_000 + 9 * 1_500);
        let early: Vec<_> = versions.iter().filter(|v| v.received_at <= at).cloned().collect();
        let (then, form) = (build(&early), "daily".parse().unwrap());
        for v in &versions {
            let store = less.form(&form).unwrap();
            let past = less.block_at(store, v.period, Some(at)).unwrap();
            let slot = store.slot(less.facility(&v.facility).unwrap()).unwrap();
            let report = then.report(&v.facility, &form, v.period);
            prop_assert_eq!(past.report(slot, less.authors()), report);
            if past.present(slot) {
                prop_assert_eq!(past.value(0, slot), cell(&then, v.facility.as_str(), &v.period.to_string()));
            }
        }
    }
}

#[test]
fn a_new_pc_changes_only_what_it_and_its_predecessor_wrote() {
    let catalogue = fixture::catalogue();
    let mut cube = Cube::new(&catalogue);
    let months = ["2025-01-05", "2025-02-05", "2025-03-05"];
    let mut put = |facility, day: &str, writer, seq: u32| {
        let at = Millis(60_000_000 + i64::from(seq) * 1000);
        let mut one = version(
            facility,
            day,
            id(writer, 1, u64::from(seq)),
            [Value::Number(u64::from(seq)); 2],
        );
        one.received_at = at;
        cube.apply(&catalogue, one).unwrap();
    };
    // January and February: others' reports, of several versions and in conflict; March: those of 1 and 2.
    for (seq, (day, writer)) in
        (1..).zip([(months[0], 8), (months[0], 8), (months[1], 8), (months[1], 9)])
    {
        put("A", day, writer, seq);
    }
    put("B", months[2], 1, 5);
    put("B", months[2], 2, 6);
    put("D", months[0], 3, 7);
    let form = cube.form_numbers[&"daily".parse::<FormCode>().unwrap()];
    let generations =
        |cube: &Cube| months.map(|day| cube.forms[form].generation(day.parse().unwrap()));
    let heads = |cube: &Cube| {
        let report = cube.report(
            &"B".parse().unwrap(),
            &"daily".parse().unwrap(),
            months[2].parse().unwrap(),
        );
        report.unwrap().heads
    };
    let before = generations(&cube);
    assert_eq!(heads(&cube), 2);
    // A PC enrolled just now has written nothing: nothing is judged again, nothing counts as changed.
    cube.succeeds(AgentId([4; 6]), AgentId([8; 6]));
    assert_eq!(generations(&cube), before);
    // One that has written: only where it says something else.
    cube.succeeds(AgentId([9; 6]), AgentId([7; 6]));
    assert_eq!(generations(&cube), before);
    cube.succeeds(AgentId([2; 6]), AgentId([1; 6]));
    let after = generations(&cube);
    assert_eq!((&after[..2], heads(&cube)), (&before[..2], 1));
    assert_ne!(after[2], before[2]);
    // Through a PC in between that has written nothing.
    cube.succeeds(AgentId([9; 6]), AgentId([5; 6]));
    cube.succeeds(AgentId([5; 6]), AgentId([8; 6]));
    assert_ne!(generations(&cube)[1], before[1]);
}

#[test]
fn a_report_recorded_every_minute_of_a_day_is_taken_in_at_once() {
    let catalogue = fixture::catalogue();
    let mut cube = Cube::new(&catalogue);
    let begun = std::time::Instant::now();
    for minute in 1..=1_440u32 {
        // The first one is taken back, so that every moment since has to be looked at.
        let mut one =
            version("A", DAY, id(1, 1, u64::from(minute)), [Value::Number(u64::from(minute)); 2]);
        one.received_at = Millis(60_000 * i64::from(minute));
        one.position = u64::from(minute);
        one.content.withdrawn = minute == 2;
        cube.apply(&catalogue, one).unwrap();
    }
    assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{:?}", begun.elapsed());
    let report =
        cube.report(&"A".parse().unwrap(), &"daily".parse().unwrap(), DAY.parse().unwrap());
    let report = report.unwrap();
    assert_eq!((report.versions, report.heads), (1_440, 1));
    assert_eq!(report.arrived, Some(Millis(180_000)), "entered again in the third minute");
    assert_eq!(cell(&cube, "A", DAY), Value::Number(1_440));
}
