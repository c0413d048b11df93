use banyan_shared::codes::{ParkReason, Refusal};
use banyan_shared::ids::{AgentId, Epoch, Millis, Seq, UnitCode};
use banyan_shared::keys::{Certificate, SigningKey};
use banyan_shared::period::Period;
use banyan_shared::report::{Content, EnteredAt, How, Value};
use banyan_shared::tables::TableName;
use banyan_shared::wire::{
    Batch, Body, EnrolRefusal, EnrolRequest, Entry, FacilityScope, Grant, Offer, SignedGrant,
    deflate,
};

use super::*;
use crate::act::{Below, NewCode, NewContext, secret_hash};
use crate::query::fixture;

const LIFE: Epoch = Epoch { counter: 1, random: 5 };
/// 2026-02-10, noon in Shanghai.
pub(crate) const NOW: Millis = Millis(1_770_696_000_000);

pub(crate) fn table(table: TableName, text: &str) -> TableFile {
    TableFile { table, file: table.file_name().into(), bytes: deflate(text.as_bytes()) }
}

pub(crate) fn act(act: Act) -> SignedAct {
    SignedAct { by: "test".into(), at: NOW, act }
}

pub(crate) fn key(n: u8) -> SigningKey {
    SigningKey::from_seed(&[n; 32]).unwrap()
}

/// A ledger's first acts, folded; the agent of key 1 may report for `facilities` under context 1.
pub(crate) fn state(facilities: &[&str]) -> State {
    let first = [
        act(Act::Founded { name: "试验".into() }),
        act(Act::Catalogue { toml: deflate(fixture::CATALOGUE.as_bytes()) }),
    ];
    let mut state = State::begin(&first).unwrap();
    let context = NewContext {
        number: 1,
        facilities: facilities.iter().map(|f| f.parse().unwrap()).collect(),
        below: vec![],
    };
    let code = NewCode {
        number: 7,
        secret: secret_hash(7, &[9; 10]),
        contexts: vec![context],
        uses: 1,
        expires: NOW.plus(1000),
    };
    let acts = [
        Act::Tables(vec![
            table(TableName::Units, fixture::UNITS),
            table(TableName::Networks, fixture::NETWORKS),
            table(TableName::Members, fixture::MEMBERS),
        ]),
        Act::Codes(vec![code]),
        Act::Admitted { key: key(1).public(), code: 7, context: 1, machine: 0, succeeds: None },
    ];
    for (position, new) in (1..).zip(acts) {
        state.apply_act(&act(new), position, NOW).unwrap();
    }
    state
}

pub(crate) fn report(facility: u32, form: u16, period: &str, values: Vec<Value>) -> Body {
    Body::Report {
        facility,
        form,
        period: period.parse::<Period>().unwrap(),
        content: Content {
            values,
            how: How::Direct,
            entered_by: None,
            reason: None,
            override_code: None,
            withdrawn: false,
            entered_at: EnteredAt { minute: 0, doubtful: false },
            replaces: vec![],
        },
    }
}

pub(crate) fn two(a: u64, b: u64) -> Vec<Value> {
    vec![Value::Number(a), Value::Number(b)]
}

pub(crate) fn batch(entries: Vec<(Seq, Body)>) -> Batch {
    let entries = entries.into_iter().map(|(seq, body)| Entry { seq, body }).collect();
    Batch { agent: key(1).public().agent_id(), epoch: LIFE, context: 1, hello: None, entries }
}

/// Judges, stores and counts a batch as the intake does.
pub(crate) fn take(state: &mut State, batch: Batch) -> (bool, Refusals, Vec<Seq>) {
    let batch = HashedBatch::from(batch);
    let Judgement::Answer { store, refused, reused } = state.judge(&batch) else {
        panic!("{:?}", state.judge(&batch));
    };
    if store {
        let added = state.hold(&batch, &refused);
        let position = state.position + 1;
        state.apply_batch(batch, &added, &refused, position, NOW);
    }
    (store, refused, reused)
}

fn parked(state: &State) -> Vec<ParkReason> {
    state.parked.values().map(|parked| parked.reason).collect()
}

pub(crate) fn counted(state: &State, facility: &str, form: &str, period: &str) -> Option<u64> {
    let facility: UnitCode = facility.parse().unwrap();
    let form = form.parse().unwrap();
    let versions = state.cube.versions(&facility, &form, period.parse().unwrap());
    versions.first().and_then(|stored| stored.content.values[0].number())
}

#[test]
fn a_good_report_is_counted_once_however_often_it_comes() {
    let mut state = state(&["A"]);
    let sent = batch(vec![(1, report(0, 0, "2026-02-01", two(12, 3)))]);
    assert_eq!(take(&mut state, sent.clone()), (true, vec![], vec![]));
    assert_eq!(take(&mut state, sent), (false, vec![], vec![]));
    assert_eq!(counted(&state, "A", "daily", "2026-02-01"), Some(12));
    let other = batch(vec![(1, report(0, 0, "2026-02-01", two(99, 3)))]);
    assert_eq!(
        take(&mut state, other),
        (false, vec![], vec![1]),
        "another content under the number"
    );
    assert_eq!(counted(&state, "A", "daily", "2026-02-01"), Some(12));
}

#[test]
fn what_can_never_be_right_is_refused_with_its_code_and_blocks_nothing() {
    let mut state = state(&["A"]);
    let mut person = report(0, 0, "2026-02-01", two(1, 1));
    if let Body::Report { content, .. } = &mut person {
        content.entered_by = Some("two words".into());
    }
    let sent = batch(vec![
        (1, report(5, 0, "2026-02-01", two(1, 1))),
        (2, report(0, 77, "2026-02-01", two(1, 1))),
        (3, report(0, 0, "2026-02", two(1, 1))),
        (4, report(0, 0, "2026-02-01", vec![Value::Number(1)])),
        (5, report(0, 0, "2026-02-01", two(banyan_shared::limits::VALUE_MAX, 1))),
        (6, person),
        (7, report(0, 0, "2026-02-02", two(4, 1))),
    ]);
    let (stored, refused, _) = take(&mut state, sent.clone());
    assert!(stored);
    assert_eq!(
        refused,
        [
            (1, Refusal::NotInScope),
            (2, Refusal::UnknownForm),
            (3, Refusal::WrongPeriodType),
            (4, Refusal::Malformed),
            (5, Refusal::AboveMaximum),
            (6, Refusal::Malformed),
        ]
    );
    assert_eq!(counted(&state, "A", "daily", "2026-02-02"), Some(4));
    assert_eq!(state.refused.len(), 6);
    let voids = (1..=6).map(|seq| (seq, Body::Void)).collect();
    assert_eq!(take(&mut state, batch(voids)), (true, vec![], vec![]));
    assert!(state.refused.is_empty(), "a void settles the refusal");
    assert!(!take(&mut state, sent).0, "a late copy of the refused batch changes nothing");
}

#[test]
fn what_is_not_known_here_now_is_parked_with_its_code_and_listed() {
    let mut state = state(&["A", "K", "N", "PL", "M", "NEW", "H1"]);
    let sent = batch(vec![
        (1, report(0, 0, "2026-03-01", two(1, 1))),
        (2, report(1, 0, "2026-01-20", two(1, 1))),
        (3, report(2, 0, "2026-01-05", two(1, 1))),
        (4, report(3, 0, "2026-01-05", two(1, 1))),
        (5, report(5, 0, "2026-01-05", two(1, 1))),
        (6, report(6, 0, "2026-01-05", two(1, 1))),
        (7, report(4, 0, "2026-01-05", two(1, 1))),
    ]);
    assert_eq!(take(&mut state, sent), (true, vec![], vec![]));
    assert_eq!(
        parked(&state),
        [
            ParkReason::FuturePeriod,
            ParkReason::FacilityClosed,
            ParkReason::NotYetRegistered,
            ParkReason::FacilityPlanned,
            ParkReason::UnknownFacility,
            ParkReason::FormNotForKind,
        ]
    );
    let (held, _, waiting) = state.agents.values().next().unwrap().inbox.counts();
    assert_eq!((held, waiting), (7, 6), "parked entries are receipted all the same");
    assert_eq!(counted(&state, "M", "daily", "2026-01-05"), Some(1));
    // The future comes.
    assert_eq!(state.rejudge(NOW.plus(25 * 86_400_000)), 1);
    assert_eq!(counted(&state, "A", "daily", "2026-03-01"), Some(1));
}

#[test]
fn a_facility_registered_late_releases_its_parked_days() {
    let mut state = state(&["NEW"]);
    let days = (1..=5).map(|d| (d, report(0, 0, &format!("2026-02-{d:02}"), two(d, 0)))).collect();
    take(&mut state, batch(days));
    assert_eq!(state.parked.len(), 5);
    let units = format!("{}NEW,新,clinic,T1,2026-02-03,,,,\n", fixture::UNITS);
    let tables = Act::Tables(vec![table(TableName::Units, &units)]);
    state.apply_act(&act(tables), 50, NOW).unwrap();
    assert_eq!(parked(&state), [ParkReason::NotYetRegistered; 2]);
    assert_eq!(counted(&state, "NEW", "daily", "2026-02-03"), Some(3));
    let units = format!("{}NEW,新,clinic,T1,2026-01-01,,,,\n", fixture::UNITS);
    let tables = Act::Tables(vec![table(TableName::Units, &units)]);
    state.apply_act(&act(tables), 51, NOW).unwrap();
    assert!(state.parked.is_empty());
    assert_eq!(counted(&state, "NEW", "daily", "2026-02-01"), Some(1));
}

#[test]
fn strangers_foreign_contexts_and_revoked_agents_get_nothing_in() {
    let mut state = state(&["A"]);
    let mut sent = batch(vec![(1, report(0, 0, "2026-02-01", two(1, 1)))]);
    sent.context = 2;
    assert_eq!(state.judge(&sent.clone().into()), Judgement::UnknownContext(2));
    sent.context = 1;
    sent.agent = AgentId([9; 6]);
    assert_eq!(state.judge(&sent.clone().into()), Judgement::UnknownContext(1));
    sent.agent = key(1).public().agent_id();
    state.apply_act(&act(Act::Revoked { agent: sent.agent }), 60, NOW).unwrap();
    assert_eq!(state.judge(&sent.into()), Judgement::Revoked);
}

#[test]
fn a_life_is_taken_up_with_its_first_entry_only() {
    let mut state = state(&["A"]);
    let second = Epoch { counter: 2, random: 6 };
    let mut early = batch(vec![(2, report(0, 0, "2026-02-01", two(5, 1)))]);
    early.epoch = second;
    assert!(!take(&mut state, early.clone()).0);
    assert_eq!(counted(&state, "A", "daily", "2026-02-01"), None);
    early
        .entries
        .insert(0, Entry { seq: 1, body: Body::Begins { earlier: vec![(LIFE, 0)], lost: vec![] } });
    assert!(take(&mut state, early).0);
    assert_eq!(counted(&state, "A", "daily", "2026-02-01"), Some(5));
}

#[test]
fn enrolment_takes_the_right_secret_once_and_in_time() {
    let state = state(&["A"]);
    let request = |key: &SigningKey, secret| EnrolRequest {
        key: key.public(),
        code: 7,
        secret,
        facility: None,
        machine: 0,
    };
    let (known, stranger) = (key(1), key(2));
    assert_eq!(state.admission(&request(&stranger, [1; 10]), NOW), Err(EnrolRefusal::UnknownCode));
    assert_eq!(state.admission(&request(&stranger, [9; 10]), NOW), Err(EnrolRefusal::Used));
    assert_eq!(state.admission(&request(&known, [9; 10]), NOW), Ok(None), "its answer was lost");
    assert_eq!(
        state.admission(&request(&stranger, [9; 10]), NOW.plus(9999)),
        Err(EnrolRefusal::Expired)
    );
}

#[test]
fn what_time_has_released_stays_counted_when_the_registry_changes_later() {
    let mut live = state(&["A"]);
    let tomorrow = NOW.plus(86_400_000);
    let sent = batch(vec![(1, report(0, 0, "2026-02-11", two(7, 0)))]);
    let mut again = live.clone();
    take(&mut live, sent.clone());
    take(&mut again, sent);
    assert_eq!(parked(&live), [ParkReason::FuturePeriod]);
    assert_eq!(live.rejudge(tomorrow), 1, "live, the clock releases it");
    let units =
        fixture::UNITS.replace("A,甲诊所,clinic,T1,,,,,", "A,甲诊所,clinic,T1,,2026-02-01,,,");
    let closes = act(Act::Tables(vec![table(TableName::Units, &units)]));
    let later = tomorrow.plus(86_400_000);
    live.apply_act(&closes, 70, later).unwrap();
    again.apply_act(&closes, 70, later).unwrap();
    assert_eq!(counted(&live, "A", "daily", "2026-02-11"), Some(7));
    assert_eq!(live.cube.digest(), again.cube.digest(), "folding again, no clock has ticked");
}

#[test]
fn grants_shown_again_leave_the_newest_scope_in_force() {
    let mut state = state(&["A"]);
    let (root, operating, agent) = (key(30), key(31), key(9));
    let certificate = Certificate::issue(&root, operating.public(), 1, NOW);
    let grant = |context, facilities: &[&str], issued_at| {
        let scope = |code: &&str| FacilityScope {
            code: code.parse().unwrap(),
            name: String::new(),
            place: String::new(),
            spells: vec![],
            roles: vec![],
            attributes: vec![],
        };
        let facilities = facilities.iter().map(scope).collect();
        let offer = Offer { context, catalogue: state.catalogue.hash, facilities };
        let grant = Grant { key: agent.public(), offer, issued_at, succeeds: None };
        Act::Readmitted { grant: SignedGrant::sign(&grant, &operating, &certificate) }
    };
    let (old, new) = (grant(21, &["B"], NOW), grant(20, &["B", "N"], NOW.plus(5)));
    for (position, shown) in (80..).zip([old.clone(), new, old]) {
        state.apply_act(&act(shown), position, NOW.plus(10)).unwrap();
    }
    let known = &state.agents[&agent.public().agent_id()];
    assert_eq!((known.newest, known.contexts.len()), (20, 2));
}

#[test]
fn a_context_of_ones_own_facilities_may_be_used_and_anothers_not() {
    let mut state = state(&["A", "B"]);
    let offered = |number, facilities: &[&str]| NewContext {
        number,
        facilities: facilities.iter().map(|f| f.parse().unwrap()).collect(),
        below: vec![],
    };
    let code = NewCode {
        number: 8,
        secret: [0; 16],
        contexts: vec![offered(40, &["B"]), offered(41, &["D"])],
        uses: 2,
        expires: NOW,
    };
    state.apply_act(&act(Act::Codes(vec![code])), 90, NOW).unwrap();
    let mut sent = batch(vec![(1, report(0, 0, "2026-02-01", two(3, 1)))]);
    sent.context = 40;
    assert!(take(&mut state, sent.clone()).0);
    assert_eq!(counted(&state, "B", "daily", "2026-02-01"), Some(3));
    sent.context = 41;
    assert_eq!(state.judge(&sent.into()), Judgement::UnknownContext(41));
}

#[test]
fn a_rule_takes_in_what_is_below_and_a_context_has_a_home() {
    let state = state(&["A"]);
    let day = state.catalogue.day_at(NOW);
    let rule = |kind: Option<&str>| {
        vec![Below { unit: "C1".parse().unwrap(), kind: kind.map(Into::into) }]
    };
    let clinics = state.below(&rule(Some("clinic")), day);
    assert_eq!(clinics, ["A", "B", "N", "M"].map(|c| c.parse::<UnitCode>().unwrap()));
    let home = state.organisation.unit("H1").unwrap();
    let context = state.context(3, &[home], &rule(None), day).unwrap();
    assert_eq!(context.facilities[0], "H1");
    assert_eq!(context.facilities.iter().filter(|f| **f == "H1").count(), 1, "each once");
    let county = state.organisation.unit("C1").unwrap();
    assert!(matches!(state.context(3, &[county], &[], day), Err(ScopeError::NotAFacility(_))));
    assert_eq!(state.context(3, &[], &[], day), Err(ScopeError::Empty));
}

#[test]
fn numbers_of_contexts_never_get_a_second_meaning_after_a_restore() {
    let state = state(&["A"]);
    assert_eq!(state.next_context(1, 1), Ok(2));
    let (first, second) = (
        state.next_context(1_790_000_000, 1).unwrap(),
        state.next_context(1_790_000_001, 1).unwrap(),
    );
    assert!(first > u32::MAX / 2 && second > u32::MAX / 2 && first != second);
}

#[test]
fn who_is_out_claims_nothing() {
    let mut state = state(&["A"]);
    let writer = *state.agents.keys().next().unwrap();
    let other = key(120).public();
    for (position, key) in (90..).zip([state.agents[&writer].key, other]) {
        let claimed = Act::Claimed { key, code: 8, context: 1, machine: 0 };
        state.apply_act(&act(claimed), position, NOW).unwrap();
    }
    for (position, agent) in (92..).zip([writer, other.agent_id()]) {
        state.apply_act(&act(Act::Revoked { agent }), position, NOW).unwrap();
    }
    assert!(!state.claims.contains_key(&writer));
    assert!(state.claims.contains_key(&other.agent_id()), "never in, so not out: its claim stands");
}

#[test]
fn claims_that_were_refused_block_nobody() {
    let mut state = state(&["A"]);
    let code = NewCode {
        number: 8,
        secret: secret_hash(8, &[9; 10]),
        contexts: vec![NewContext {
            number: 40,
            facilities: vec!["B".parse().unwrap()],
            below: vec![],
        }],
        uses: 99,
        expires: NOW.plus(1000),
    };
    state.apply_act(&act(Act::Codes(vec![code])), 90, NOW).unwrap();
    state.apply_act(&act(Act::ClaimsWait { code: 8 }), 91, NOW).unwrap();
    let asked = |state: &mut State, n: u8| {
        let key = key(n).public();
        let request = EnrolRequest { key, code: 8, secret: [9; 10], facility: None, machine: 0 };
        let claim = state.admission(&request, NOW)?.unwrap();
        let position = state.position + 1;
        state.apply_act(&act(claim), position, NOW).unwrap();
        Ok(key.agent_id())
    };
    for n in 0..4 {
        let agent = asked(&mut state, 100 + n).unwrap();
        if n < 3 {
            state.apply_act(&act(Act::ClaimRefused { agent }), 100 + u64::from(n), NOW).unwrap();
        }
    }
    for n in 4..7 {
        asked(&mut state, 100 + n).unwrap();
    }
    assert_eq!(asked(&mut state, 110), Err(EnrolRefusal::Waiting), "four wait now");
}

#[test]
fn two_codes_in_turn_are_one_claim() {
    let mut state = state(&["A"]);
    let code = |number: u32, uses| NewCode {
        number,
        secret: secret_hash(number, &[9; 10]),
        contexts: vec![NewContext {
            number: 32 + number,
            facilities: vec!["B".parse().unwrap()],
            below: vec![],
        }],
        uses,
        expires: NOW.plus(1000),
    };
    let codes = Act::Codes(vec![code(8, 99), code(9, 99), code(10, 1)]);
    let waits = [8, 9].map(|code| Act::ClaimsWait { code });
    for (position, a) in (90..).zip([codes].into_iter().chain(waits)) {
        state.apply_act(&act(a), position, NOW).unwrap();
    }
    let key = key(100).public();
    let asked = |state: &mut State, code| {
        let request = EnrolRequest { key, code, secret: [9; 10], facility: None, machine: 0 };
        let stored = state.admission(&request, NOW)?;
        if let Some(stored) = stored.clone() {
            let position = state.position + 1;
            state.apply_act(&act(stored), position, NOW).unwrap();
        }
        Ok(stored)
    };
    assert!(matches!(asked(&mut state, 8), Ok(Some(Act::Claimed { .. }))));
    for _ in 0..3 {
        assert_eq!(asked(&mut state, 9), Err(EnrolRefusal::Waiting));
        assert_eq!(asked(&mut state, 8), Err(EnrolRefusal::Waiting));
    }
    let refused = Act::ClaimRefused { agent: key.agent_id() };
    state.apply_act(&act(refused), state.position + 1, NOW).unwrap();
    for _ in 0..3 {
        assert_eq!(asked(&mut state, 9), Err(EnrolRefusal::ClaimRefused));
        assert_eq!(asked(&mut state, 8), Err(EnrolRefusal::ClaimRefused));
    }
    // A code of its own, which no claim comes of, still lets it in.
    assert!(matches!(asked(&mut state, 10), Ok(Some(Act::Admitted { .. }))));
    assert!(state.claims.is_empty());
}

#[test]
fn what_was_granted_to_a_unit_that_is_gone_covers_nothing_and_stops_nothing() {
    let mut state = state(&["A"]);
    let waived = |unit: &str| crate::act::Extended {
        form: "daily".parse().unwrap(),
        unit: unit.parse().unwrap(),
        period: "2026-02-01".into(),
        due: "waived".into(),
        reason: String::new(),
    };
    let granted = act(Act::Extended(vec![waived("PL"), waived("A")]));
    state.apply_act(&granted, 90, NOW).unwrap();
    let units = fixture::UNITS.replace("PL,拟建诊所,clinic,T2,2026-01-01,,planned,,\n", "");
    assert_ne!(units, fixture::UNITS);
    let tables = act(Act::Tables(vec![table(TableName::Units, &units)]));
    state.apply_act(&tables, 91, NOW).unwrap();
    let catalogue = fixture::CATALOGUE.replacen("version = \"", "version = \"next-", 1);
    let catalogue = act(Act::Catalogue { toml: deflate(catalogue.as_bytes()) });
    state.apply_act(&catalogue, 92, NOW).unwrap();
    let covers = |state: &State| {
        let unit = state.organisation.unit("A").unwrap();
        state.organisation.extension("daily", unit, "2026-02-01".parse().unwrap()).is_some()
    };
    assert!(covers(&state), "the other one holds");
    // Registered again, it is covered again.
    let tables = act(Act::Tables(vec![table(TableName::Units, fixture::UNITS)]));
    state.apply_act(&tables, 93, NOW).unwrap();
    let unit = state.organisation.unit("PL").unwrap();
    assert!(state.organisation.extension("daily", unit, "2026-02-01".parse().unwrap()).is_some());
}

#[test]
fn an_act_that_cannot_be_folded_leaves_the_state_before_it() {
    let mut state = state(&["A"]);
    let position = state.position;
    let broken = act(Act::Tables(vec![table(TableName::Units, "code,name\n")]));
    assert!(state.apply_act(&broken, position + 1, NOW.plus(5)).is_err());
    assert_eq!((state.position, state.newest), (position, Some(NOW)));
}

#[test]
fn a_new_form_has_its_slots_in_the_order_of_the_map() {
    let mut state = state(&["A"]);
    let text = fixture::CATALOGUE.replacen("version = \"", "version = \"next-", 1);
    let text = text.replacen("code = \"monthly\"", "code = \"second\"", 1);
    let catalogue = act(Act::Catalogue { toml: deflate(text.as_bytes()) });
    state.apply_act(&catalogue, 90, NOW).unwrap();
    let slots = |form: &str| {
        let store = state.cube.form(&form.parse().unwrap()).unwrap();
        store.slots().iter().map(|f| state.cube.facility_code(*f).clone()).collect::<Vec<_>>()
    };
    assert_eq!(slots("second"), slots("daily"));
    assert!(slots("second").len() > 5);
}

#[test]
fn a_table_that_is_too_large_is_told_as_such() {
    let bytes = deflate(&vec![b'x'; TABLE_BYTES_MAX + 1]);
    let file = TableFile { table: TableName::Units, file: "all.csv".into(), bytes };
    let errors = read_tables(&[(TableName::Units, file)].into()).unwrap_err();
    let lines: Vec<String> =
        errors.iter().map(|error| error.text(banyan_shared::catalogue::Lang::En)).collect();
    assert_eq!(lines, ["all.csv: the file is larger than 128 MiB: split it [too_large]"]);
}
