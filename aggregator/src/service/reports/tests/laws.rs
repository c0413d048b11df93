//! Whatever is done in whatever order: the same versions and decisions give the same cube.

use proptest::prelude::*;

use super::*;
use crate::cube::{AcceptedVersion, Cube};

/// What someone does to one of A's or B's reports.
#[derive(Clone, Debug)]
enum Deed {
    Typed(u32, u8, u64),
    Corrected(u32, u8, u64),
    Withdrawn(u32, u8),
    Imported(u32, u8, u64),
}

impl Deed {
    /// The facility's number and the day it is about.
    fn place(&self) -> (u32, u8) {
        match *self {
            Deed::Typed(f, d, _)
            | Deed::Corrected(f, d, _)
            | Deed::Withdrawn(f, d)
            | Deed::Imported(f, d, _) => (f, d),
        }
    }
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    prop::collection::vec(deed(), 1..25)
}

fn deed() -> impl Strategy<Value = Deed> {
    let place = || (0u32..2, 1u8..4);
    prop_oneof![
        (place(), 0u64..5).prop_map(|((f, d), n)| Deed::Typed(f, d, n)),
        (place(), 0u64..5).prop_map(|((f, d), n)| Deed::Corrected(f, d, n)),
        place().prop_map(|(f, d)| Deed::Withdrawn(f, d)),
        (place(), 0u64..5).prop_map(|((f, d), n)| Deed::Imported(f, d, n)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever agents and operators do, the cube is a function of the set of versions: taken in in any
    /// order it is the same, and a version never carries two meanings.
    #[test]
    fn replay_in_any_order_gives_the_same(deeds in deeds(), seed in any::<u64>()) {
        let mut state = state(&["A", "B"]);
        let mut seq = 0;
        for deed in deeds {
            let name = |f: u32| ["A", "B"][f as usize];
            let day = |d: u8| format!("2026-02-{d:02}");
            let now = NOW.plus(i64::try_from(state.position).unwrap());
            // A withdrawal of nothing is refused, which is no matter here.
            match deed {
                Deed::Typed(f, d, n) => {
                    seq += 1;
                    take(&mut state, batch(vec![(seq, report(f, 0, &day(d), two(n, 0)))]));
                }
                Deed::Corrected(f, d, n) => {
                    let values = format!("visits={n}");
                    let asked = asked(&[&values], false, now);
                    change(&mut state, (name(f), "daily", &day(d)), &asked).unwrap();
                }
                Deed::Withdrawn(f, d) => {
                    let _ = change(&mut state, (name(f), "daily", &day(d)), &asked(&[], true, now));
                }
                Deed::Imported(f, d, n) => {
                    import(&mut state, vec![row(2, name(f), &day(d), Some(n), None)]);
                }
            }
        }
        let form = state.catalogue.form("daily").unwrap();
        let mut all = Vec::new();
        for facility in ["A", "B"] {
            for day in 1..4u8 {
                let (code, period) = (facility.parse().unwrap(), format!("2026-02-{day:02}").parse().unwrap());
                for stored in state.cube.versions(&code, &"daily".parse().unwrap(), period) {
                    let crate::cube::Stored { id, received_at, position, content } = stored;
                    let facility = code.clone();
                    all.push(AcceptedVersion { facility, form, period, id, content, received_at, position });
                }
            }
        }
        let ids: std::collections::BTreeSet<_> = all.iter().map(|version| version.id).collect();
        prop_assert_eq!(ids.len(), all.len(), "one number, one version");
        all.sort_by_key(|version| {
            sha256(&[&seed.to_le_bytes(), version.id.to_string().as_bytes()])
        });
        let mut cube = Cube::new(&state.catalogue);
        for version in all {
            cube.apply(&state.catalogue, version).unwrap();
        }
        prop_assert_eq!(cube.digest(), state.cube.digest());
    }
}

#[test]
fn folding_the_acts_again_gives_the_same_state() {
    let mut live = state(&["A", "B"]);
    let mut again = live.clone();
    said(&mut live, 1, "2026-02-01", two(12, 3));
    let subject = subject(&live, A, NOW, Lang::En).unwrap();
    let (acts, _) =
        change::plan(&live, &subject, &asked(&["visits=1"], false, NOW), writer()).unwrap();
    put(&mut live, acts.clone(), NOW);
    // From an identity backup the acts come back first, the agents' reports later, at other positions:
    // what names what still holds.
    put(&mut again, acts, NOW);
    said(&mut again, 1, "2026-02-01", two(12, 3));
    assert_eq!(counted_by(&again), counted_by(&live));
    assert_eq!(again.numbered, live.numbered);
    assert_eq!(again.next_number(writer().id, writer().epoch), 2);
    let revoked = act(Act::Revoked { agent: key(1).public().agent_id() });
    live.apply_act(&revoked, 99, NOW).unwrap();
    assert_eq!(counted_by(&live), (1, 1), "the centre needs no agent");
}

/// A decision at any time about any day.
fn decisions() -> impl Strategy<Value = Vec<(Deed, usize)>> {
    prop::collection::vec((deed(), 0usize..5), 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Decisions hold wherever they stand among the versions: after a restore from the acts alone, which
    /// come back before the agents' reports, the same versions count and wait; and taken in in any order
    /// they give the same cube.
    #[test]
    fn decisions_hold_whatever_comes_first(deeds in decisions(), seed in any::<u64>()) {
        let mut live = state(&["A", "B"]);
        let mut acts_first = live.clone();
        let (mut seq, mut acts, mut batches) = (0, Vec::new(), Vec::new());
        for (deed, decision) in deeds {
            let now = NOW.plus(i64::try_from(live.position).unwrap());
            let (f, d) = deed.place();
            let place = (["A", "B"][f as usize], format!("2026-02-{d:02}"));
            let before = live.position;
            let mut note = |done: Vec<Act>| acts.extend((before + 1..).zip(done).map(|(p, a)| (p, now, a)));
            match deed {
                Deed::Typed(f, d, n) => {
                    seq += 1;
                    let sent = batch(vec![(seq, report(f, 0, &format!("2026-02-{d:02}"), two(n, 0)))]);
                    take(&mut live, sent.clone());
                    batches.push(sent);
                }
                Deed::Corrected(_, _, n) => {
                    let asked = asked(&[&format!("visits={n}")], false, now);
                    let subject = subject(&live, (place.0, "daily", &place.1), now, Lang::En).unwrap();
                    let done = change::plan(&live, &subject, &asked, writer()).unwrap().0;
                    put(&mut live, done.clone(), now);
                    note(done);
                }
                _ => {}
            }
            let (unit, what) = [(place.0, "return"), (place.0, "approve"), ("T1", "sign"), ("C1", "lock"), ("P", "unlock")][decision];
            let before = live.position;
            // Some of it is refused: nothing to return, nothing that waits, locked already.
            if let Ok(done) = decide(&mut live, (unit, "daily", &place.1), what, now) {
                acts.extend((before + 1..).zip(done).map(|(p, a)| (p, now, a)));
            }
        }
        for (_, at, act) in &acts {
            put(&mut acts_first, vec![act.clone()], *at);
        }
        for sent in batches {
            take(&mut acts_first, sent);
        }
        let daily: banyan_shared::ids::FormCode = "daily".parse().unwrap();
        let names = |state: &State| -> std::collections::BTreeSet<_> {
            let all = state.cube.returned_reports(None);
            all.into_iter().map(|(facility, _, period)| (facility.clone(), period)).collect()
        };
        let last = NOW.plus(i64::try_from(live.position).unwrap());
        let looked_up: std::collections::BTreeSet<_> = live.cube.returned_reports(Some(last))
            .into_iter().map(|(facility, _, period)| (facility.clone(), period)).collect();
        prop_assert_eq!(names(&live), looked_up);
        prop_assert_eq!(names(&acts_first), names(&live));
        let mut cube = Cube::new(&live.catalogue);
        let mut pieces: Vec<(u64, Option<AcceptedVersion>)> = Vec::new();
        for facility in ["A", "B"] {
            for day in 1..4u8 {
                let (code, period): (UnitCode, Period) = (facility.parse().unwrap(), format!("2026-02-{day:02}").parse().unwrap());
                let what = |state: &State| state.cube.report(&code, &daily, period).map(|r| {
                    (r.current, r.answered, r.heads, r.pending, r.returned, r.restated, r.corrected, r.versions)
                });
                prop_assert_eq!(what(&acts_first), what(&live), "{} {}", facility, period);
                for stored in live.cube.versions(&code, &daily, period) {
                    let crate::cube::Stored { id, received_at, position, content } = stored;
                    let (facility, form) = (code.clone(), FormIx(0));
                    pieces.push((0, Some(AcceptedVersion { facility, form, period, id, content, received_at, position })));
                }
            }
        }
        // Versions anywhere among the decisions, these in their order.
        let decided: Vec<_> = acts.iter().filter(|(_, _, act)| !matches!(act, Act::Reports(_))).collect();
        pieces.extend(decided.iter().map(|_| (0, None)));
        for (at, piece) in pieces.iter_mut().enumerate() {
            let digest = sha256(&[&seed.to_le_bytes(), &at.to_le_bytes()]);
            piece.0 = u64::from_le_bytes(digest[..8].try_into().unwrap());
        }
        pieces.sort_by_key(|(key, _)| *key);
        let mut next = decided.into_iter();
        for (_, piece) in pieces {
            match piece {
                Some(version) => cube.apply(&live.catalogue, version).unwrap(),
                None => {
                    let (position, at, act) = next.next().unwrap();
                    apply_decision(&mut cube, act, *position, *at);
                }
            }
        }
        prop_assert_eq!(cube.digest(), live.cube.digest());
    }
}

/// Folds a decision into a cube alone, as the state does.
fn apply_decision(cube: &mut Cube, act: &Act, position: u64, at: Millis) {
    let decided = crate::cube::Decided { by: "stat".into(), at, position };
    let place = |report: &crate::act::OneReport| {
        (report.facility.clone(), report.form.clone(), report.period)
    };
    match act {
        Act::Returned { report, seen } => {
            let (facility, form, period) = place(report);
            cube.returned((&facility, &form, period), decided, report.reason, seen.clone());
        }
        Act::Approved { report, versions } => {
            let (facility, form, period) = place(report);
            cube.approved((&facility, &form, period), decided, report.reason, versions.clone());
        }
        Act::Stage(change) => crate::state::apply_stage(cube, change, position, at).unwrap(),
        _ => unreachable!("only decisions are given"),
    }
}
