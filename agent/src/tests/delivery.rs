//! From "saved" to the centre's ledger and back.

use banyan_shared::codes::{ParkReason, Refusal};
use banyan_shared::ids::AgentId;
use banyan_shared::period::Period;
use banyan_shared::report::Value;
use banyan_shared::wire::{Body, EnrolRefusal};

use super::*;
use crate::command::QueueState;
use crate::core::Step;

fn day(text: &str) -> Period {
    text.parse().unwrap()
}

fn setup() -> (tempfile::TempDir, Centre, Core, Arc<TestClock>) {
    let dir = tempfile::tempdir().unwrap();
    let centre = Centre::new();
    let (core, clock) = enrolled(dir.path(), &centre);
    (dir, centre, core, clock)
}

/// Visits of the home, by period, as the centre would count them: the newest version by life and number.
pub(crate) fn counted(centre: &Centre, agent: AgentId) -> Vec<(String, u64)> {
    let mut newest = std::collections::BTreeMap::new();
    for ((writer, _, _), body) in &centre.ledger {
        if let (true, Body::Report { period, content, .. }) = (*writer == agent, body)
            && let Value::Number(n) = content.values[1]
        {
            newest.insert(period.to_string(), n);
        }
    }
    newest.into_iter().collect()
}

#[test]
fn recorded_offline_certified_at_first_contact_and_received() {
    let (dir, mut centre, mut core, _clock) = setup();
    for n in 1..=9 {
        save(&mut core, draft("daily", &format!("2026-03-0{n}"), &["visits=3"]));
    }
    assert!(!centre.connect(&mut core));
    let status_now = status(&mut core);
    assert_eq!((status_now.waiting, status_now.received), (0, 9));
    assert_eq!(status_now.last_receipt.as_deref(), Some("2026-03-10T12:00:00+08:00"));
    assert_eq!(status_now.clock_offset_ms, Some(0));
    assert_eq!(status_now.facilities, ["V-1", "V-2", "H-1", "V-9"]);
    let due = status_now.next_due.unwrap();
    assert_eq!((due.form.as_str(), due.period.as_str()), ("daily", "2026-03-10"));
    assert_eq!(due.unit, "V-1");
    assert!(core.is_settled(0));
    assert_eq!(counted(&centre, core.identity().agent()).len(), 9);
    drop(core);
    let mut core = Core::open(options(dir.path(), 1).0).unwrap();
    assert_eq!(status(&mut core).waiting, 0, "receipts outlive a restart");
    assert!(!core.is_settled(0), "but a new start says hello first");
    assert!(!centre.connect(&mut core));
    assert!(core.is_settled(0));
}

#[test]
fn only_the_centres_own_receipts_count() {
    let (_dir, mut centre, mut core, _clock) = setup();
    save(&mut core, draft("daily", "2026-03-09", &["visits=3"]));
    centre.connect(&mut core);
    save(&mut core, draft("daily", "2026-03-08", &["visits=3"]));
    core.connected().unwrap();
    let agent = core.identity().agent();
    let forged = centre.forge(agent, None);
    assert_eq!(core.received(&forged).unwrap(), Default::default());
    assert_eq!(core.received(b"nonsense").unwrap(), Default::default());
    assert_eq!(status(&mut core).waiting, 1);
}

#[test]
fn a_new_operating_key_is_learnt_after_any_absence_and_an_older_one_never_comes_back() {
    let (dir, mut centre, mut core, _clock) = setup();
    save(&mut core, draft("daily", "2026-03-01", &["visits=1"]));
    centre.connect(&mut core);
    let first = Millis(0);
    // A receipt under the old key is on its way when the agent learns the new one.
    save(&mut core, draft("daily", "2026-03-02", &["visits=2"]));
    let hello = core.connected().unwrap().send;
    let in_flight: Vec<Vec<u8>> = hello.iter().flat_map(|m| centre.handle(m)).collect();
    core.disconnected().unwrap();
    // Two roll-overs go by while it is away.
    centre.roll(3, 2, Millis(7));
    centre.roll(4, 3, Millis(8));
    assert!(!centre.connect(&mut core));
    assert_eq!(status(&mut core).waiting, 0, "one hello is enough");
    core.connected().unwrap();
    for old in &in_flight {
        assert_eq!(core.received(old).unwrap(), Step::default(), "it proves nothing any more");
    }
    core.disconnected().unwrap();
    save(&mut core, draft("daily", "2026-03-03", &["visits=3"]));
    centre.connect(&mut core);
    assert_eq!(status(&mut core).waiting, 0);

    // Whoever stole an earlier key gets nowhere, after a restart of the agent neither.
    drop(core);
    let mut core = Core::open(options(dir.path(), 1).0).unwrap();
    save(&mut core, draft("daily", "2026-03-04", &["visits=4"]));
    for (seed, serial, at) in [(2, 1, first), (3, 2, Millis(7)), (9, 3, Millis(7))] {
        centre.roll(seed, serial, at);
        centre.connect(&mut core);
        assert_eq!(status(&mut core).waiting, 1, "serial {serial} issued at {at:?}");
    }
    // A centre that lost the third key makes another third one.
    centre.roll(5, 3, Millis(9));
    centre.connect(&mut core);
    assert_eq!(status(&mut core).waiting, 0);
    let agent = core.identity().agent();
    let visits = [1, 2, 3, 4].map(|n| (format!("2026-03-0{n}"), n));
    assert_eq!(counted(&centre, agent), visits);
}

#[test]
fn an_enrolment_file_from_before_a_roll_over_brings_no_old_key_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut centre = Centre::new();
    let old = centre.file();
    Identity::begin(dir.path(), &centre.code(), None).unwrap();
    centre.roll(3, 2, Millis(7));
    centre.refuse_enrolment = Some(EnrolRefusal::Expired);
    let mut core = Core::open(options(dir.path(), 1).0).unwrap();
    assert!(centre.connect(&mut core));
    assert_eq!(core.identity().certificate().unwrap().serial, 2);
    drop(core);
    let identity = Identity::from_file(dir.path(), &old, &old.offers[0]).unwrap();
    assert_eq!(identity.certificate().unwrap().serial, 2);
    let again = Identity::open(dir.path()).unwrap().unwrap();
    assert_eq!(again.certificate().unwrap().serial, 2);
}

#[test]
fn a_refused_report_stays_visible_until_entered_again() {
    let (dir, mut centre, mut core, _clock) = setup();
    let bad = day("2026-03-09");
    centre.refuse.insert((0, bad), Refusal::AboveMaximum);
    save(&mut core, draft("daily", "2026-03-08", &["visits=8"]));
    save(&mut core, draft("daily", "2026-03-09", &["visits=400", "followups=7"]));
    centre.connect(&mut core);
    drop(core);
    let mut core = Core::open(options(dir.path(), 1).0).unwrap();
    let now = status(&mut core);
    assert_eq!((now.waiting, now.refused), (0, 1), "its number is settled by a void");
    let rows = queue(&mut core);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].state, QueueState::Refused(Refusal::AboveMaximum));
    let Reply::Shown(shown) = core.handle(Command::Show { entry: rows[0].entry.clone() }) else {
        panic!()
    };
    assert_eq!(shown.again, "banyan-agent record daily 2026-03-09 visits=400 followups=7");
    centre.refuse.clear();
    let again = save(&mut core, draft("daily", "2026-03-09", &["visits=40", "followups=7"]));
    assert!(!again.replaced, "what was refused is no base to build on");
    assert_eq!(status(&mut core).refused, 0);
    centre.connect(&mut core);
    assert_eq!(
        counted(&centre, core.identity().agent()),
        [("2026-03-08".to_owned(), 8), ("2026-03-09".to_owned(), 40)]
    );
}

#[test]
fn parked_reports_are_shown_and_released() {
    let (_dir, mut centre, mut core, _clock) = setup();
    centre.park.insert((0, day("2026-03-09")), ParkReason::NotYetRegistered);
    save(&mut core, draft("daily", "2026-03-09", &["visits=4"]));
    centre.connect(&mut core);
    assert_eq!(status(&mut core).parked, 1);
    assert_eq!(queue(&mut core)[0].state, QueueState::Parked(ParkReason::NotYetRegistered));
    let agent = core.identity().agent();
    let held = centre.ledger.keys().next().copied().unwrap();
    centre.inbox.get_mut(&agent).unwrap().park(held.1, held.2, None);
    centre.connect(&mut core);
    assert_eq!(status(&mut core).parked, 0);
}

#[test]
fn a_centre_that_lost_everything_knows_the_agent_by_its_grant_and_gets_all_again() {
    let (_dir, mut centre, mut core, _clock) = setup();
    for n in 1..=9 {
        save(&mut core, draft("daily", &format!("2026-03-0{n}"), &["visits=3"]));
    }
    centre.connect(&mut core);
    let before = counted(&centre, core.identity().agent());
    centre.lose_everything();
    centre.connect(&mut core);
    assert_eq!(counted(&centre, core.identity().agent()), before);
    assert_eq!(status(&mut core).waiting, 0);
}

#[test]
fn a_disk_copied_to_another_machine_does_not_go_on_with_the_old_numbers() {
    let (dir, mut centre, mut core, _clock) = setup();
    save(&mut core, draft("daily", "2026-03-08", &["visits=8"]));
    centre.connect(&mut core);
    drop(core);
    let other = tempfile::tempdir().unwrap();
    copy(dir.path(), other.path());
    let mut original = Core::open(options(dir.path(), 1).0).unwrap();
    let mut copied = Core::open(options(other.path(), 2).0).unwrap();
    save(&mut original, draft("daily", "2026-03-09", &["visits=9"]));
    save(&mut copied, draft("daily", "2026-03-09", &["visits=10"]));
    centre.connect(&mut original);
    centre.connect(&mut copied);
    centre.connect(&mut original);
    assert_eq!((status(&mut original).waiting, status(&mut copied).waiting), (0, 0));
    let lives: std::collections::BTreeSet<_> =
        centre.ledger.keys().map(|(_, epoch, _)| epoch.counter).collect();
    assert_eq!(lives.into_iter().collect::<Vec<_>>(), [1, 2]);
    assert!(centre.ledger.values().any(|body| matches!(body, Body::Begins { .. })));
}

#[test]
fn two_machines_with_one_identity_lose_nothing() {
    let (dir, mut centre, mut core, _clock) = setup();
    save(&mut core, draft("daily", "2026-03-07", &["visits=7"]));
    centre.connect(&mut core);
    drop(core);
    let other = tempfile::tempdir().unwrap();
    copy(dir.path(), other.path());
    // The same machine id: a cloned virtual machine. Only the sums can tell.
    let mut one = Core::open(options(dir.path(), 1).0).unwrap();
    let mut two = Core::open(options(other.path(), 1).0).unwrap();
    save(&mut one, draft("daily", "2026-03-08", &["visits=8"]));
    save(&mut two, draft("daily", "2026-03-09", &["visits=9"]));
    save(&mut two, draft("daily", "2026-03-09", &["visits=90"]));
    for _ in 0..4 {
        centre.connect(&mut one);
        centre.connect(&mut two);
    }
    assert_eq!((status(&mut one).waiting, status(&mut two).waiting), (0, 0));
    assert_eq!(
        counted(&centre, one.identity().agent()),
        [("2026-03-07".to_owned(), 7), ("2026-03-08".to_owned(), 8), ("2026-03-09".to_owned(), 90)]
    );
    drop(two);
    let mut two = Core::open(options(other.path(), 1).0).unwrap();
    assert_eq!(status(&mut two).waiting, 0);
    let kept = save(&mut two, draft("daily", "2026-03-09", &["followups=1"]));
    assert_eq!(kept.changes.len(), 1, "the newest is still the base: {kept:?}");
}

#[test]
fn a_refused_enrolment_is_told_and_nothing_is_lost() {
    let (_dir, mut centre, mut core, _clock) = setup();
    save(&mut core, draft("daily", "2026-03-09", &["visits=4"]));
    centre.refuse_enrolment = Some(EnrolRefusal::Expired);
    assert!(centre.connect(&mut core), "hung up");
    assert_eq!(core.refusal(), Some(EnrolRefusal::Expired));
    assert_eq!(status(&mut core).waiting, 1);
    centre.refuse_enrolment = None;
    assert!(!centre.connect(&mut core));
    assert_eq!((core.refusal(), status(&mut core).waiting), (None, 0));
}

#[test]
fn a_code_needs_the_centre_and_then_everything_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut centre = Centre::new();
    Identity::begin(dir.path(), &centre.code(), None).unwrap();
    let mut core = Core::open(options(dir.path(), 1).0).unwrap();
    let early = core.handle(Command::Save {
        drafts: vec![draft("daily", "2026-03-09", &["visits=4"])],
        together: true,
    });
    assert!(matches!(early, Reply::Failed(note) if note.code == "enrolment_open"));
    assert!(!centre.connect(&mut core));
    assert!(core.is_settled(0));
    save(&mut core, draft("daily", "2026-03-09", &["visits=4"]));
    centre.connect(&mut core);
    assert_eq!(status(&mut core).waiting, 0);
}

#[test]
fn history_is_dropped_after_its_time_and_the_sums_still_agree() {
    let (dir, mut centre, mut core, clock) = setup();
    for n in 1..=9 {
        save(&mut core, draft("daily", &format!("2026-03-0{n}"), &["visits=3"]));
    }
    centre.connect(&mut core);
    let later = NOW.plus(401 * DAY_MS);
    clock.set(later);
    centre.time = later;
    centre.connect(&mut core);
    assert_eq!(status(&mut core).received, 0, "400 days are over");
    save(&mut core, draft("daily", "2027-03-09", &["visits=3"]));
    centre.connect(&mut core);
    assert_eq!((status(&mut core).waiting, status(&mut core).received), (0, 1));
    drop(core);
    let (options, clock) = options(dir.path(), 1);
    clock.set(later);
    let mut core = Core::open(options).unwrap();
    centre.connect(&mut core);
    assert_eq!((status(&mut core).waiting, status(&mut core).received), (0, 1));
}

#[test]
fn retention_counts_from_the_receipt_whatever_the_pcs_clock_showed() {
    let year = 365 * DAY_MS;
    for (wrong, then) in
        [(NOW.plus(-17 * year), NOW.plus(500 * DAY_MS)), (NOW.plus(73 * year), NOW)]
    {
        let (dir, mut centre, mut core, clock) = setup();
        clock.set(wrong);
        save(&mut core, draft("daily", "2026-03-08", &["visits=8"]));
        centre.time = then;
        centre.connect(&mut core);
        // What comes later under a right clock is held up by nothing.
        clock.set(then);
        save(&mut core, draft("daily", "2026-03-09", &["visits=9"]));
        centre.connect(&mut core);
        drop(core);
        for (days, received) in [(1, 2), (399, 2), (402, 0)] {
            let now = then.plus(days * DAY_MS);
            let (options, clock) = options(dir.path(), 1);
            clock.set(now);
            centre.time = now;
            let mut core = Core::open(options).unwrap();
            centre.connect(&mut core);
            assert_eq!(status(&mut core).received, received, "{wrong:?}: {days} days after");
        }
    }
}

#[test]
fn what_is_due_next_does_not_hang_on_a_wrong_clock_nor_on_one_put_right() {
    let year = 365 * DAY_MS;
    for wrong in [NOW.plus(-17 * year), NOW.plus(73 * year), NOW] {
        let (_dir, mut centre, mut core, clock) = setup();
        clock.set(wrong);
        centre.connect(&mut core);
        for now in [wrong, wrong.plus(60_000), NOW.plus(60_000)] {
            clock.set(now);
            let due = status(&mut core).next_due.unwrap();
            let due = (due.period.as_str(), due.due.as_str());
            assert_eq!(due, ("2026-03-10", "2026-03-11T10:00:00+08:00"), "{wrong:?} {now:?}");
        }
    }
    // Before any receipt it is known not to be earlier than the program.
    let (_dir, _centre, mut core, clock) = setup();
    clock.set(NOW.plus(-17 * year));
    assert_eq!(status(&mut core).next_due.unwrap().period, "2025-12-31");
}

#[test]
fn a_clock_that_jumped_ages_no_history() {
    let (dir, mut centre, mut core, clock) = setup();
    save(&mut core, draft("daily", "2026-03-09", &["visits=9", "followups=2"]));
    centre.connect(&mut core);
    clock.set(NOW.plus(4 * 365 * DAY_MS));
    core.connected().unwrap();
    core.disconnected().unwrap();
    drop(core);
    let (options, clock) = options(dir.path(), 1);
    clock.set(NOW.plus(4 * 365 * DAY_MS));
    let mut core = Core::open(options).unwrap();
    assert_eq!(status(&mut core).received, 1);
    let corrected = save(&mut core, draft("daily", "2026-03-09", &["visits=8"]));
    assert!(corrected.replaced && corrected.changes.len() == 1, "{corrected:?}");
}

#[test]
fn a_queue_that_could_not_be_opened_again_is_tried_anew() {
    let (_dir, mut centre, mut core, _clock) = setup();
    save(&mut core, draft("daily", "2026-03-08", &["visits=8"]));
    core.connected().unwrap();
    core.lose_store();
    save(&mut core, draft("daily", "2026-03-09", &["visits=9"]));
    assert!(core.hello_wanted, "the connection knows nothing of the session any more");
    core.lose_store();
    assert_eq!(status(&mut core).waiting, 2);
    centre.connect(&mut core);
    assert_eq!(status(&mut core).waiting, 0);
}

#[test]
fn a_twins_entries_move_and_go_within_one_connection() {
    let (dir, mut centre, core, _clock) = setup();
    drop(core);
    let other = tempfile::tempdir().unwrap();
    copy(dir.path(), other.path());
    let mut one = Core::open(options(dir.path(), 1).0).unwrap();
    let mut two = Core::open(options(other.path(), 1).0).unwrap();
    save(&mut one, draft("daily", "2026-03-08", &["visits=8"]));
    save(&mut two, draft("daily", "2026-03-09", &["visits=9"]));
    centre.connect(&mut one);
    centre.connect(&mut two);
    assert_eq!((status(&mut one).waiting, status(&mut two).waiting), (0, 0));
}

#[test]
fn what_a_lost_context_meant_moves_as_it_is() {
    let (dir, mut centre, mut core, _clock) = setup();
    centre.connect(&mut core);
    drop(core);
    let other = tempfile::tempdir().unwrap();
    copy(dir.path(), other.path());
    let mut one = Core::open(options(dir.path(), 1).0).unwrap();
    let mut two = Core::open(options(other.path(), 1).0).unwrap();
    for day in ["2026-03-06", "2026-03-07", "2026-03-08"] {
        save(&mut one, draft("daily", day, &["visits=8"]));
    }
    for visits in ["visits=9", "visits=90"] {
        save(&mut two, draft("daily", "2026-03-09", &[visits]));
    }
    save(&mut two, draft("daily", "2026-03-05", &["visits=5"]));
    drop(two);
    // Another context is granted, and the file of the one they were made under is torn.
    (centre.context, centre.time) = (4, NOW.plus(1));
    let mut identity = Identity::open(other.path()).unwrap().unwrap();
    assert!(identity.accept(&centre.grant(identity.key().public()), None).unwrap());
    std::fs::write(other.path().join("contexts/3"), b"torn").unwrap();
    let mut two = Core::open(options(other.path(), 1).0).unwrap();
    assert!(two.identity().is_lost(3));
    for _ in 0..3 {
        centre.connect(&mut one);
        centre.connect(&mut two);
    }
    assert_eq!((status(&mut one).waiting, status(&mut two).waiting), (0, 0));
    assert_eq!(
        counted(&centre, two.identity().agent()),
        [
            ("2026-03-05".to_owned(), 5),
            ("2026-03-06".to_owned(), 8),
            ("2026-03-07".to_owned(), 8),
            ("2026-03-08".to_owned(), 8),
            ("2026-03-09".to_owned(), 90)
        ]
    );
    let voids = centre.ledger.values().filter(|body| matches!(body, Body::Void)).count();
    assert_eq!(voids, 1, "what was replaced before it moved");
}

#[test]
fn a_later_life_is_dropped_after_its_time_and_its_history_can_be_told_anew() {
    let (dir, mut centre, mut core, _clock) = setup();
    save(&mut core, draft("daily", "2026-03-07", &["visits=7"]));
    centre.connect(&mut core);
    drop(core);
    let (options, clock) = options(dir.path(), 2);
    let mut core = Core::open(options).unwrap();
    save(&mut core, draft("daily", "2026-03-08", &["visits=8"]));
    centre.connect(&mut core);
    assert_eq!(status(&mut core).received, 3, "the second life has a first entry");
    let later = NOW.plus(401 * DAY_MS);
    clock.set(later);
    centre.time = later;
    centre.connect(&mut core);
    assert_eq!(status(&mut core).received, 0);
    save(&mut core, draft("daily", "2027-04-09", &["visits=9"]));
    centre.connect(&mut core);
    assert_eq!((status(&mut core).waiting, status(&mut core).received), (0, 1));
    centre.lose_everything();
    centre.connect(&mut core);
    assert_eq!(status(&mut core).waiting, 0);
    let agent = core.identity().agent();
    assert_eq!(counted(&centre, agent), [("2027-04-09".to_owned(), 9)]);
}

#[test]
fn a_request_to_enrol_without_an_answer_is_sent_again() {
    let (_dir, _centre, mut core, clock) = setup();
    let first = core.connected().unwrap();
    assert_eq!(first.send.len(), 1);
    let wait = core.tick_in().unwrap();
    assert!(wait > 0 && core.tick().unwrap().send.is_empty());
    clock.set(NOW.plus(wait));
    assert_eq!(core.tick().unwrap(), first);
    assert_eq!(core.tick_in(), Some(wait));
}

#[test]
fn a_refused_withdrawal_is_entered_again_as_one() {
    let (_dir, mut centre, mut core, _clock) = setup();
    save(&mut core, draft("daily", "2026-03-09", &["visits=4"]));
    centre.connect(&mut core);
    centre.refuse.insert((0, day("2026-03-09")), Refusal::NotInScope);
    let reason = Some(banyan_shared::report::Reason::Typo);
    save(&mut core, Draft { withdraw: true, reason, ..draft("daily", "2026-03-09", &[]) });
    centre.connect(&mut core);
    let entry = queue(&mut core)[0].entry.clone();
    let Reply::Shown(shown) = core.handle(Command::Show { entry }) else { panic!() };
    assert_eq!(shown.again, "banyan-agent withdraw daily 2026-03-09 --reason typo");
}

#[test]
fn re_enrolling_over_an_identity_is_refused() {
    let (dir, mut centre, mut core, _clock) = setup();
    centre.connect(&mut core);
    let file = centre.file();
    let again = Identity::from_file(dir.path(), &file, &file.offers[0]).unwrap_err();
    assert_eq!(again.code, "already_enrolled");
    let again = Identity::begin(dir.path(), &centre.code(), None).unwrap_err();
    assert_eq!(again.code, "already_enrolled");
}

#[test]
fn an_expired_code_is_replaced_and_what_was_recorded_goes_with_it() {
    let (dir, mut centre, mut core, _clock) = setup();
    save(&mut core, draft("daily", "2026-03-09", &["visits=4"]));
    let agent = core.identity().agent();
    let busy = Identity::begin(dir.path(), &centre.code(), None).unwrap_err();
    assert_eq!(busy.code, "locked");
    drop(core);
    let mut other = centre.code();
    other.root[0] ^= 1;
    let other = Identity::begin(dir.path(), &other, None).unwrap_err();
    assert_eq!(other.code, "already_enrolled", "another centre's code");
    Identity::begin(dir.path(), &centre.code(), None).unwrap();
    let mut core = Core::open(options(dir.path(), 1).0).unwrap();
    assert_eq!(core.identity().agent(), agent);
    centre.connect(&mut core);
    assert_eq!(status(&mut core).waiting, 0);
    assert_eq!(counted(&centre, agent), [("2026-03-09".to_owned(), 4)]);
}

#[test]
fn an_enrolment_cut_short_after_the_key_goes_on_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let centre = Centre::new();
    let agent = Identity::begin(dir.path(), &centre.code(), None).unwrap().agent();
    std::fs::remove_file(dir.path().join("identity.json")).unwrap();
    assert_eq!(Core::open(options(dir.path(), 1).0).unwrap_err().code, "not_enrolled");
    assert_eq!(Identity::begin(dir.path(), &centre.code(), None).unwrap().agent(), agent);
    std::fs::remove_file(dir.path().join("identity.json")).unwrap();
    std::fs::write(dir.path().join("agent.key"), b"torn").unwrap();
    assert_ne!(Identity::begin(dir.path(), &centre.code(), None).unwrap().agent(), agent);
}

#[test]
fn only_one_has_a_directory_even_before_anything_is_granted() {
    let dir = tempfile::tempdir().unwrap();
    let centre = Centre::new();
    Identity::begin(dir.path(), &centre.code(), None).unwrap();
    let first = Core::open(options(dir.path(), 1).0).unwrap();
    assert_eq!(Core::open(options(dir.path(), 1).0).unwrap_err().code, "locked");
    drop(first);
    Core::open(options(dir.path(), 1).0).unwrap();
}

#[test]
fn an_agent_that_has_lapsed_takes_a_new_code_and_keeps_key_and_queue() {
    let (dir, mut centre, mut core, _clock) = setup();
    centre.connect(&mut core);
    save(&mut core, draft("daily", "2026-03-09", &["visits=4"]));
    let agent = core.identity().agent();
    // It is let in no more; codes that do not help change nothing.
    for refusal in [EnrolRefusal::Lapsed, EnrolRefusal::Expired, EnrolRefusal::UnknownCode] {
        centre.refuse_all = Some(refusal);
        assert!(centre.connect(&mut core));
        assert_eq!(status(&mut core).refusal, Some(refusal));
        assert_eq!(status(&mut core).waiting, 1);
        drop(core);
        let mut other = centre.code();
        other.root[0] ^= 1;
        let other = Identity::begin(dir.path(), &other, None).unwrap_err();
        assert_eq!(other.code, "already_enrolled", "another centre's code");
        Identity::begin(dir.path(), &centre.code(), None).unwrap();
        core = Core::open(options(dir.path(), 1).0).unwrap();
    }
    centre.refuse_all = None;
    assert!(!centre.connect(&mut core));
    assert_eq!((status(&mut core).refusal, status(&mut core).waiting), (None, 0));
    assert_eq!(core.identity().agent(), agent);
    assert_eq!(counted(&centre, agent), [("2026-03-09".to_owned(), 4)]);
    drop(core);
    let again = Identity::begin(dir.path(), &centre.code(), None).unwrap_err();
    assert_eq!(again.code, "already_enrolled", "its code was answered by a grant");
}
