//! What is saved, and what is told to be wrong.

use super::*;
use banyan_shared::report::{How, Override, Reason};

fn agent() -> (tempfile::TempDir, Core, Arc<TestClock>) {
    let dir = tempfile::tempdir().unwrap();
    let (core, clock) = enrolled(dir.path(), &Centre::new());
    (dir, core, clock)
}

const FULL: [&str; 7] = [
    "open_days=1",
    "visits=12",
    "home_visits=2",
    "tcm_visits=3",
    "referrals=1",
    "followups=4",
    "consultations=0",
];

fn shown(core: &mut Core, entry: &str) -> crate::command::Shown {
    match core.handle(Command::Show { entry: entry.to_owned() }) {
        Reply::Shown(shown) => *shown,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_partial_record_keeps_the_other_values_over_a_restart() {
    let (dir, mut core, _clock) = agent();
    let first = save(&mut core, draft("daily", "2026-03-09", &FULL));
    assert!(first.saved && !first.replaced && first.changes.len() == 7);
    drop(core);
    let mut core = Core::open(options(dir.path(), 1).0).unwrap();
    let second = save(&mut core, draft("daily", "2026-03-09", &["visits=13", "referrals="]));
    assert!(second.saved && second.replaced);
    let changed: Vec<_> = second
        .changes
        .iter()
        .map(|c| (c.element.as_str(), c.before.as_str(), c.after.as_str()))
        .collect();
    assert_eq!(changed, [("visits", "12", "13"), ("referrals", "1", "")]);
    let newest = queue(&mut core)[0].entry.clone();
    let values = shown(&mut core, &newest).values;
    let values: Vec<String> = values.iter().map(|(e, v)| format!("{e}={v}")).collect();
    assert_eq!(
        values,
        [
            "open_days=1",
            "visits=13",
            "home_visits=2",
            "tcm_visits=3",
            "followups=4",
            "consultations=0"
        ]
    );
}

#[test]
fn the_same_again_is_nothing_new() {
    let (_dir, mut core, _clock) = agent();
    save(&mut core, draft("daily", "2026-03-09", &FULL));
    let again = save(&mut core, draft("daily", "2026-03-09", &FULL));
    assert!(!again.saved && again.changes.is_empty());
    assert_eq!(status(&mut core).waiting, 1);
}

#[test]
fn closed_days_and_ranges() {
    let (_dir, mut core, _clock) = agent();
    let closed = Draft { closed: true, ..draft("daily", "2026-02-16..2026-02-22", &[]) };
    let (saved, refused) = save_all(&mut core, vec![closed]);
    assert!(refused.is_empty());
    assert_eq!(saved.len(), 7);
    assert!(saved.iter().all(|one| one.changes.iter().all(|c| c.after == "0")));
    assert_eq!(saved[0].changes.len(), 7);
    let other = Draft {
        closed: true,
        facility: Some("V-2".to_owned()),
        ..draft("daily", "2026-02-16", &[])
    };
    let other = save(&mut core, other);
    assert_eq!(other.changes.len(), 6, "what is not asked there stays missing");
    let entry = queue(&mut core)[0].entry.clone();
    assert_eq!(shown(&mut core, &entry).how, How::Proxy, "another facility's is a proxy's");
}

#[test]
fn every_kind_of_bad_input_has_its_code() {
    let (_dir, mut core, _clock) = agent();
    let day = "2026-03-09";
    let one = |form: &str, period: &str, value: &str| draft(form, period, &[value]);
    let of = |facility: &str, d: Draft| Draft { facility: Some(facility.to_owned()), ..d };
    let by = |by: &str| Draft { by: Some(by.to_owned()), ..draft("daily", "2026-03-09", &FULL) };
    let cases = [
        (one("daily", "2026-02-31", "visits=1"), "impossible_date"),
        (one("daily", "2026-13", "visits=1"), "impossible_date"),
        (one("daily", "yesterday", "visits=1"), "bad_period"),
        (one("daily", "2026-03-09..2026-03-01", "visits=1"), "bad_range"),
        (one("daily", "2026-03", "visits=1"), "wrong_period_type"),
        (one("daily", "2026-03-11", "visits=1"), "future_period"),
        (one("dayly", day, "visits=1"), "unknown_form"),
        (one("daily", day, "visit=1"), "unknown_element"),
        (one("daily", day, "beds=1"), "not_in_form"),
        (one("daily", day, "visits=-1"), "negative"),
        (one("daily", day, "visits=1.5"), "decimal"),
        (one("daily", day, "visits=1.2万"), "ten_thousand"),
        (one("daily", day, "visits=99999999999999999999"), "above_maximum"),
        (one("daily", day, "visits=501"), "above_maximum"),
        (one("daily", day, "visits=*"), "withheld"),
        (one("daily", day, "visits=many"), "bad_number"),
        (draft("daily", day, &["visits=1", "visits=2"]), "duplicate"),
        (draft("daily", day, &["visits=1", "home_visits=2"]), "R1"),
        (draft("daily", day, &[]), "empty_report"),
        (of("V-3", one("daily", day, "visits=1")), "not_enrolled"),
        (of("V-2", one("daily", day, "tcm_visits=1")), "not_asked"),
        (of("H-1", one("daily", day, "visits=1")), "form_not_for_kind"),
        (of("H-1", one("monthly", "2026-02-01", "beds=1")), "wrong_period_type"),
        (Draft { closed: true, ..one("daily", day, "visits=1") }, "closed_with_values"),
        (of("H-1", Draft { closed: true, ..draft("monthly", "2026-02", &[]) }), "closed_not_here"),
        (Draft { withdraw: true, ..draft("daily", day, &[]) }, "nothing_to_withdraw"),
        (by("王 医生"), "bad_person"),
        (by("522401199001011234"), "bad_person"),
        (by("13800138000"), "bad_person"),
        (by(&"x".repeat(33)), "bad_person"),
        (draft("daily", "2024-01-01..2026-01-01", &["visits=1"]), "too_many_periods"),
    ];
    for (draft, code) in cases {
        let found = faults(&mut core, draft.clone());
        assert!(found.iter().any(|fault| fault == code), "{draft:?}: {found:?}, not {code}");
    }
    let all = faults(&mut core, draft("daily", "2026-02-31", &["visits=-1", "vists=2"]));
    assert_eq!(all, ["impossible_date", "negative", "unknown_element"], "all at once");
}

#[test]
fn a_broken_rule_stops_unless_overridden_and_a_warning_does_not() {
    let (_dir, mut core, _clock) = agent();
    let broken = draft("daily", "2026-03-09", &["visits=1", "home_visits=2"]);
    assert_eq!(faults(&mut core, broken.clone()), ["R1"]);
    let saved = save(&mut core, Draft { override_code: Some(Override::Verified), ..broken });
    assert!(saved.warnings.iter().any(|note| note.code == "R1"));
    let many = save(&mut core, draft("daily", "2026-03-08", &["visits=9", "referrals=4"]));
    assert!(many.warnings.iter().any(|note| note.code == "R2"));
}

#[test]
fn a_clock_that_is_wrong_warns_instead_of_refusing() {
    let (_dir, mut core, clock) = agent();
    clock.set(Millis(1_000_000_000_000));
    let saved = save(&mut core, draft("daily", "2026-03-09", &["visits=1"]));
    assert!(saved.warnings.iter().any(|note| note.code == "future_period"));
    clock.set(NOW);
    assert_eq!(faults(&mut core, draft("daily", "2026-03-12", &["visits=1"])), ["future_period"]);
}

#[test]
fn a_facility_not_open_yet_is_saved_with_a_warning() {
    let (_dir, mut core, _clock) = agent();
    let early =
        Draft { facility: Some("V-9".to_owned()), ..draft("daily", "2026-03-09", &["visits=1"]) };
    let saved = save(&mut core, early);
    assert!(saved.saved && saved.warnings.iter().any(|note| note.code == "not_open"));
}

#[test]
fn a_withdrawn_report_can_be_entered_again() {
    let (_dir, mut core, _clock) = agent();
    save(&mut core, draft("daily", "2026-03-09", &FULL));
    let back = Draft {
        withdraw: true,
        reason: Some(Reason::Duplicate),
        ..draft("daily", "2026-03-09", &[])
    };
    let gone = save(&mut core, back);
    assert!(gone.saved && gone.withdrawn && gone.changes.len() == 7);
    let again = save(&mut core, draft("daily", "2026-03-09", &["visits=5"]));
    assert_eq!(again.changes.len(), 1, "it begins empty: {again:?}");
}

#[test]
fn drafts_of_one_command_build_on_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let (mut core, _clock) = enrolled(dir.path(), &Centre::new());
    let one = |value| draft("daily", "2026-03-09", &[value]);
    let (saved, _) =
        save_all(&mut core, vec![one("visits=9"), one("followups=2"), one("visits=9")]);
    assert!(!saved[0].replaced && saved[1].replaced && !saved[2].saved, "{saved:?}");
    let kept = save(&mut core, one("referrals=1"));
    assert_eq!(kept.changes.len(), 1);
    let entry = queue(&mut core)[0].entry.clone();
    let Reply::Shown(shown) = core.handle(Command::Show { entry }) else { panic!() };
    let values: Vec<&str> = shown.values.iter().map(|(element, _)| element.as_str()).collect();
    assert_eq!(values, ["visits", "referrals", "followups"]);
}

#[test]
fn an_unknown_facility_is_answered_with_those_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let (mut core, _clock) = enrolled(dir.path(), &Centre::new());
    let mut said = |wanted: &str| {
        let facility = Some(wanted.to_owned());
        let wrong = Draft { facility, ..draft("daily", "2026-03-09", &["visits=9"]) };
        save_all(&mut core, vec![wrong]).1[0].faults[0].en.clone()
    };
    assert!(said("V-3").ends_with("for 4: V-1 V-1室, V-2 V-2室, H-1 H-1室, V-9 V-9室"));
    assert!(said("H-").ends_with("for 4: H-1 H-1室 …"));
}
