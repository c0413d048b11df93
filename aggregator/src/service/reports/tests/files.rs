//! Counts read from files, and acts of many reports.

use super::*;

#[test]
fn a_file_stands_behind_what_was_typed_or_corrected_and_says_nothing_twice() {
    let mut state = state(&["A", "B"]);
    said(&mut state, 1, "2026-02-01", two(12, 3));
    correct(&mut state, ("B", "daily", "2026-02-01"), &["visits=7"]).unwrap();
    let file = || {
        vec![
            row(2, "A", "2026-02-01", Some(99), None),
            row(3, "A", "2025-02-01", Some(5), Some(1)),
            row(4, "B", "2026-02-01", Some(8), None),
            row(5, "B", "2025-02-01", None, None),
        ]
    };
    let first = import(&mut state, file());
    assert_eq!((first.new, first.replaced, first.unchanged), (1, 2, 1));
    assert_eq!(first.not_counted, 1, "{:?}", first.examples);
    assert!(first.examples[0].contains("line 2 A daily 2026-02-01"), "{:?}", first.examples);
    assert_eq!(counted_by(&state), (12, 2), "the facility's own counts, the conflict shows");
    assert_eq!(counted(&state, "A", "daily", "2025-02-01"), Some(5));
    let (code, period) = ("B".parse().unwrap(), "2026-02-01".parse().unwrap());
    let known = state.known(&code, FormIx(0), period);
    assert_eq!(
        known.values(known.counted().unwrap())[0],
        Value::Number(8),
        "an operator who filled a gap stands behind a file"
    );
    let digest = state.cube.digest();
    let again = import(&mut state, file());
    assert_eq!((again.new, again.replaced, again.unchanged), (0, 0, 4));
    assert_eq!(state.cube.digest(), digest);
    // A mended file takes the place of the first one; empty cells leave what it said.
    let mended = import(&mut state, vec![row(2, "A", "2025-02-01", Some(6), None)]);
    assert_eq!((mended.replaced, mended.not_counted), (1, 0));
    let known = state.known(&"A".parse().unwrap(), FormIx(0), "2025-02-01".parse().unwrap());
    assert_eq!(known.values(known.counted().unwrap()), two(6, 1));
    assert_eq!(known.report.unwrap().heads, 1);
    // What was corrected after the file stays so, whatever the file says later.
    correct(&mut state, ("A", "daily", "2025-02-01"), &["visits=4"]).unwrap();
    let late = import(&mut state, vec![row(2, "A", "2025-02-01", Some(9), None)]);
    assert_eq!((late.replaced, late.not_counted), (1, 1));
    let known = state.known(&"A".parse().unwrap(), FormIx(0), "2025-02-01".parse().unwrap());
    assert_eq!(known.values(known.counted().unwrap())[0], Value::Number(4));
}

#[test]
fn many_reports_are_several_acts_below_the_largest_row_and_read_back() {
    let facility = |n: usize| format!("F{}", n % 700).parse().unwrap();
    let content = |n: usize| banyan_shared::report::Content {
        values: vec![Value::Number(n as u64 % 40), Value::NotApplicable],
        how: How::Import,
        entered_by: None,
        reason: None,
        override_code: None,
        withdrawn: false,
        entered_at: banyan_shared::report::EnteredAt { minute: 1, doubtful: false },
        replaces: vec![],
    };
    let reports: Vec<crate::act::NewReport> = (0..20_000)
        .map(|n| crate::act::NewReport {
            facility: facility(n),
            form: FormIx(0),
            period: Period::day(
                banyan_shared::period::Date::new(2025, 1, 1).unwrap().plus(n as i32 / 700),
            ),
            content: content(n),
        })
        .collect();
    let number = (writer().id, writer().epoch, 5);
    let hash = banyan_shared::catalogue::CatalogueHash(sha256(&[b"x"]));
    let acts = crate::act::Reports::pack(number, hash, reports.clone());
    assert_eq!(acts.len(), 3);
    let bytes: usize = acts.iter().map(|act| banyan_shared::wire::encode(act).len()).sum();
    assert!(bytes < 20_000 * 4, "{bytes} bytes for 20,000 reports");
    let read: Vec<_> = acts.iter().flat_map(|act| act.unpack().unwrap()).collect();
    assert_eq!(read.len(), reports.len());
    for (n, ((id, one), given)) in read.iter().zip(&reports).enumerate() {
        assert_eq!((id.seq, one), (5 + n as u64, given));
    }
    // A hospital's widest form in every row: still below the largest row of the ledger.
    let wide: Vec<crate::act::NewReport> = (0..6000u64)
        .map(|n| crate::act::NewReport {
            facility: facility(n as usize),
            form: FormIx(1),
            period: "2025-01".parse().unwrap(),
            content: banyan_shared::report::Content {
                values: (0..512u64)
                    .map(|v| Value::Number((n * 7919 + v * 104_729) << 20))
                    .collect(),
                ..content(0)
            },
        })
        .collect();
    let acts = crate::act::Reports::pack(number, hash, wide);
    let largest = acts.iter().map(|act| banyan_shared::wire::encode(act).len()).max().unwrap();
    assert!(largest < crate::ledger::ROW_BYTES_MAX / 2, "{largest}");
    assert_eq!(acts.iter().map(|act| act.unpack().unwrap().len()).sum::<usize>(), 6000);
}

#[test]
fn a_file_that_says_operator_ranks_as_a_file() {
    let mut state = state(&["A", "B"]);
    said(&mut state, 1, A.2, two(12, 3));
    let file = |n| {
        let mut reports =
            vec![row(2, "A", A.2, Some(n), None), row(3, "A", "2025-02-01", Some(n), None)];
        reports.iter_mut().for_each(|report| report.how = Some(How::Operator));
        reports
    };
    assert_eq!(import(&mut state, file(99)).not_counted, 1);
    assert_eq!(counted_by(&state), (12, 2), "the facility's own counts");
    let mended = import(&mut state, file(98));
    assert_eq!((mended.replaced, mended.not_counted), (2, 1));
    assert_eq!(counted_by(&state), (12, 2), "the mended file replaces the first one");
    assert_eq!(counted(&state, "A", "daily", "2025-02-01"), Some(99));
    correct(&mut state, A, &["visits=13"]).unwrap();
    import(&mut state, file(97));
    assert_eq!(counted_by(&state).0, 13, "nor does it take the place of a correction");
}

#[test]
fn a_part_of_a_file_is_planned_period_by_period() {
    let state = state(&["A"]);
    let row = |facility: &str, period: &str| {
        [facility, "daily", period, "visits", "1"].map(str::to_owned).to_vec()
    };
    let call = ImportCall {
        header: ["facility", "form", "period", "element", "value"].map(str::to_owned).to_vec(),
        rows: (2..)
            .zip([
                row("B", "2025-02-01"),
                row("A", "2025-03-01"),
                row("A", "2025-01-01"),
                row("A", "2025-02-01"),
            ])
            .collect(),
        ..ImportCall::default()
    };
    let read = import::read(call, &state.catalogue, &state.organisation, NOW, Lang::En).unwrap();
    let order: Vec<String> = read
        .reports
        .iter()
        .map(|report| format!("{} {}", report.period, report.facility))
        .collect();
    assert_eq!(order, ["2025-01-01 A", "2025-02-01 A", "2025-02-01 B", "2025-03-01 A"]);
}
