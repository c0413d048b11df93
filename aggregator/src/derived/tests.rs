use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use banyan_shared::catalogue::FormIx;
use banyan_shared::ids::{AgentId, Epoch, Millis, Seq, UnitCode, VersionId};
use banyan_shared::keys::{Certificate, SigningKey, sha256};
use banyan_shared::period::Date;
use banyan_shared::report::{Content, EnteredAt, How, Reason, Value};
use banyan_shared::tables::TableName;
use banyan_shared::wire::{
    self, Batch, Body, Entry, FacilityScope, Grant, HashedBatch, Offer, SignedGrant, deflate,
};
use proptest::prelude::*;

use super::*;
use crate::act::{
    Act, Covered, Extended, NewCode, NewContext, NewReport, OneReport, Reports, SignedAct, Stage,
    StageChange, TableFile,
};
use crate::cube::{AcceptedVersion, Decided};
use crate::fold::{Limits, fold, fold_aside, fold_until};
use crate::identity::{Identity, RollOver, roll_over};
use crate::ledger::{Ledger, NewRow};
use crate::query::fixture;
use crate::service::Service;
use crate::state::Judgement;

mod world;

use world::*;

/// Digest, parts and rest of a state.
type Facts = (String, Vec<u8>, Vec<(String, Vec<u8>)>, String);

/// Everything a state holds, whatever numbers its cube gives.
fn facts(state: &State, now: Millis) -> Facts {
    let mut state = state.clone();
    state.rejudge(now);
    let (digest, lineage) =
        (state.cube.digest().to_string(), format!("{:?}", state.cube.lineage()));
    state.cube = Cube::default();
    (digest, snapshot::rest(&state), snapshot::agents(&state).collect(), lineage)
}

/// What the file and the ledger's rows after it give.
fn resumed(dir: &Path) -> Option<(Arc<Derived>, State)> {
    let (derived, state) = open(dir);
    let mut state = state?;
    let reader = LedgerReader::open(&crate::service::ledger_dir(dir)).unwrap();
    reader.read_from::<StateError>(state.position + 1, |row| state.apply_row(&row)).unwrap();
    Some((derived, state))
}

fn whole() -> World {
    let mut world = World::new();
    world.live();
    world
}

impl World {
    /// Goes through everything that can happen, some times over.
    fn live(&mut self) {
        for n in 0..6 * STEPS {
            self.step((n % STEPS, n.wrapping_mul(7), n.wrapping_mul(8), n.wrapping_mul(3)));
        }
    }
}

#[test]
fn a_history_of_everything_is_kept_and_read_as_it_was() {
    let mut world = whole();
    assert_eq!(world.kinds.len(), KINDS, "every kind of act occurs");
    assert!(!world.state.parked.is_empty() && !world.state.refused.is_empty());
    let (derived, none) = world.open();
    assert!(none.is_none());
    let first = world.write(&derived);
    assert!(first.parts > 64 && first.months > 0);
    assert_eq!(world.write(&derived).parts, 0, "nothing has changed");

    let (_, read) = world.open();
    let (read, now) = (read.unwrap(), world.now);
    assert_eq!(facts(&read, now), facts(&world.state, now));
    assert_eq!(facts(&read, now), facts(&fold(&world.reader(), now).unwrap(), now));
    assert_eq!(snapshot::rest(&read), snapshot::rest(&world.state), "the cube's numbers too");
    assert_eq!(
        format!("{:?}", read.organisation.reporters()),
        format!("{:?}", world.state.organisation.reporters())
    );

    // Only what changes is written again, and the rest is still there.
    assert!(world.put_aside(&derived) > 0);
    world.step((0, 2, 1, 6));
    let next = world.write(&derived);
    assert!(next.parts > 0 && next.parts < 6, "{next:?}");
    let (_, again) = resumed(world.dir.path()).unwrap();
    assert_eq!(facts(&again, world.now), facts(&world.state, world.now));
}

#[test]
fn locks_are_kept() {
    let mut world = whole();
    let a: UnitCode = "A".parse().unwrap();
    let form = world.state.catalogue.forms[0].code.clone();
    let period = world.period(FormIx(0), 2);
    let catalogue = world.state.catalogue.clone();
    let id =
        |seq| VersionId { writer: AgentId([1; 6]), epoch: Epoch { counter: 1, random: 1 }, seq };
    let decided = |position| Decided { by: "x".into(), at: BEGUN, position };
    let locked = (decided(1), Stage::Locked, "P".to_owned());
    world.state.cube.stage((&form, period), locked, &[&a], &[]);
    world.state.cube.approved((&a, &form, period), decided(2), Reason::Recount, vec![id(1)]);
    let (derived, _) = world.open();
    world.write(&derived);
    let (_, read) = world.open();
    let mut read = read.unwrap();
    for cube in [&mut world.state.cube, &mut read.cube] {
        for seq in [1, 2] {
            let version = AcceptedVersion {
                facility: a.clone(),
                form: FormIx(0),
                period,
                id: id(seq),
                content: Content {
                    values: vec![Value::Number(seq); 2],
                    how: How::Direct,
                    entered_by: None,
                    reason: None,
                    override_code: None,
                    withdrawn: false,
                    entered_at: EnteredAt { minute: 0, doubtful: false },
                    replaces: vec![],
                },
                received_at: BEGUN,
                position: 1,
            };
            cube.apply(&catalogue, version).unwrap();
        }
        assert!(!cube.waits(&a, &form, period, id(1)) && cube.waits(&a, &form, period, id(2)));
    }
    assert_eq!(read.cube.digest(), world.state.cube.digest());
}

/// Puts everything aside whenever it may.
const ASIDE_AT_ONCE: Limits = Limits { row_bytes: 1, older_bytes: 1 };

#[test]
fn whoever_folds_once_more_puts_older_months_aside_and_leaves_nothing() {
    let world = whole();
    let now = world.now;
    let expected = facts(&world.state, now);
    let again = Derived::scratch(world.dir.path());
    let state = fold_aside(&world.reader(), Position::MAX, now, &again, ASIDE_AT_ONCE).unwrap();
    assert_eq!(facts(&state, now), expected);
    let first = first_here(&state);
    let (aside, here) = (state.cube.bytes_before(first), world.state.cube.bytes_before(first));
    assert!(again.through().is_some() && aside < here / 4, "{aside} of {here} bytes in memory");
    let files = || {
        let entries = std::fs::read_dir(world.dir.path().join("derived")).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>()
    };
    assert!(!files().is_empty());
    drop((state, again));
    assert!(files().is_empty(), "{:?}", files());
    // What a killed process left goes at the next start, and nothing else.
    let dir = world.dir.path().join("derived");
    std::fs::write(dir.join("again-1-0.db"), b"").unwrap();
    let (derived, _) = world.open();
    world.write(&derived);
    drop(world.open());
    let left = files().into_iter().filter(|name| name.to_string_lossy().starts_with(SCRATCH));
    assert_eq!(left.count(), 0);
    assert!(dir.join("derived.db").is_file());
}

#[test]
fn what_could_not_be_finished_leaves_nothing_on_the_disk() {
    let world = whole();
    let chain = world.reader().hash_at(world.state.position).unwrap().unwrap();
    let dir = world.dir.path().join("derived");
    let files = || {
        let entries = std::fs::read_dir(&dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>()
    };
    let again = Derived::scratch(world.dir.path());
    // A directory stands where the file has to go.
    std::fs::create_dir_all(again.path.join("full")).unwrap();
    again.write(&world.state, world.ledger.identity(), chain).unwrap_err();
    assert_eq!(files(), [again.path.file_name().unwrap()]);
    // Nor do older months then go anywhere: all of them are in memory.
    let now = world.now;
    let state = fold_aside(&world.reader(), Position::MAX, now, &again, ASIDE_AT_ONCE).unwrap();
    assert_eq!(facts(&state, now), facts(&world.state, now));
    assert_eq!(files().len(), 1);
    std::fs::remove_dir_all(&again.path).unwrap();
    // What a killed process left beside a good file goes at the next start.
    let (derived, _) = world.open();
    world.write(&derived);
    std::fs::write(dir.join("derived.db.new"), b"half").unwrap();
    assert!(world.open().1.is_some());
    assert!(!dir.join("derived.db.new").exists());
}

#[test]
fn a_copy_that_reads_what_has_changed_since_is_told_and_does_not_panic() {
    let mut world = whole();
    let (derived, _) = world.open();
    world.write(&derived);
    world.put_aside(&derived);
    let first = first_here(&world.state);
    let form = &world.state.cube.forms()[0];
    let period = form.periods().find(|period| period.last_day() < first.first_day()).unwrap();
    let copy = world.state.cube.clone();
    let told = copy.older_rewritten();
    // Someone who has never written before.
    let version = AcceptedVersion {
        facility: "D".parse().unwrap(),
        form: world.state.catalogue.form(form.code().as_str()).unwrap(),
        period,
        id: VersionId { writer: AgentId([9; 6]), epoch: Epoch { counter: 1, random: 3 }, seq: 1 },
        content: Content { replaces: vec![], ..world.content(FormIx(0), 3, 5) },
        received_at: world.now,
        position: world.state.position,
    };
    let (number, code) = (0, form.code().clone());
    let catalogue = world.state.catalogue.clone();
    world.state.cube.apply(&catalogue, version).unwrap();
    world.write(&derived);
    world.put_aside(&derived);
    assert!(!world.state.cube.has_here(number, first.plus(-1)));
    let (of_copy, block) = (copy.form(&code).unwrap(), copy.form(&code).unwrap().block(period));
    let block = block.unwrap();
    for slot in 0..u32::try_from(of_copy.slots().len()).unwrap() {
        block.how(slot, copy.authors());
        block.report(slot, copy.authors());
        block.versions(slot, copy.authors());
    }
    assert_ne!(copy.older_rewritten(), told);
}

/// What happens one after the other.
#[derive(Clone)]
struct Steps(Vec<(u8, u8, u8, u8)>);

/// In one line: what failed is to be read above it.
impl std::fmt::Debug for Steps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|step| write!(f, "{step:?} "))
    }
}

fn any_steps() -> impl Strategy<Value = Steps> {
    let step = (0..STEPS, any::<u8>(), any::<u8>(), any::<u8>());
    prop::collection::vec(step, 1..50).prop_map(Steps)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever has happened, and whenever the file was written: the file and the rows after it give what
    /// every row gives, and so does the state that serves meanwhile with its older months put aside.
    #[test]
    fn file_and_tail_are_the_fold(
        steps in any_steps(), one in 0usize..50, two in 0usize..50,
    ) {
        let mut world = World::new();
        let (derived, _) = world.open();
        for (at, step) in steps.0.iter().enumerate() {
            world.step(*step);
            if at == one || at == two {
                world.write(&derived);
                world.put_aside(&derived);
            }
        }
        let now = world.now;
        let expected = facts(&fold(&world.reader(), now).unwrap(), now);
        prop_assert_eq!(&facts(&world.state, now), &expected);
        let again = Derived::scratch(world.dir.path());
        let folded =
            fold_aside(&world.reader(), Position::MAX, now, &again, ASIDE_AT_ONCE).unwrap();
        prop_assert_eq!(&facts(&folded, now), &expected);
        drop((folded, again));
        if let Some((_, state)) = resumed(world.dir.path()) {
            prop_assert_eq!(&facts(&state, now), &expected);
        } else {
            prop_assert!(derived.through().is_none());
        }
    }
}

/// Flips bytes all over the file: it is refused whole, or what was damaged is not used.
#[test]
fn damage_of_any_byte_is_never_served() {
    let world = whole();
    let (derived, _) = world.open();
    world.write(&derived);
    drop(derived);
    let path = world.dir.path().join("derived").join("derived.db");
    let whole = std::fs::read(&path).unwrap();
    let now = world.now;
    let expected = facts(&world.state, now);
    let (mut refused, mut served) = (0, 0);
    let step = whole.len() / 150;
    for at in (0..whole.len()).step_by(step.max(1)).chain(0..100) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bytes).unwrap();
        match world.open() {
            (_, None) => refused += 1,
            (_, Some(state)) => {
                served += 1;
                assert_eq!(facts(&state, now), expected, "byte {at}");
            }
        }
        for ending in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(path.with_file_name(format!("derived.db{ending}")));
        }
    }
    assert!(refused > 20 && served > 5, "{refused} refused, {served} served");
    // Cut short, empty, or something else: made anew and good again.
    for bytes in
        [&whole[..whole.len() / 2], b"", b"not a database, but long enough to be looked at"]
    {
        std::fs::write(&path, bytes).unwrap();
        let (derived, none) = world.open();
        assert!(none.is_none());
        world.write(&derived);
        assert_eq!(facts(&world.open().1.unwrap(), now), expected);
    }
}

/// Writes into a part of the file as damage would, under the sums it had.
fn spoil(path: &Path, name: &str) {
    let connection = rusqlite::Connection::open(path).unwrap();
    let changed = connection
        .execute("UPDATE part SET bytes = CAST(x'00' || bytes AS BLOB) WHERE name = ?1", [name])
        .unwrap();
    assert_eq!(changed, 1);
}

#[test]
fn an_older_month_that_no_longer_reads_is_taken_from_the_ledger() {
    let mut world = whole();
    let (derived, _) = world.open();
    world.write(&derived);
    let now = world.now;
    let expected = facts(&world.state, now);
    // Other numbers than a fresh fold gives: the month has to be translated.
    world.state = world.open().1.unwrap();
    world.put_aside(&derived);
    let first = first_here(&world.state);
    let form = &world.state.cube.forms()[0];
    let old = form.months().into_iter().find(|month| *month < first).unwrap();
    spoil(&world.dir.path().join("derived").join("derived.db"), &month_name(0, old));
    assert_eq!(facts(&world.state, now), expected);
    // A start does not look at older months; whoever reads them finds it out then.
    let (later, state) = world.open();
    let state = state.unwrap();
    assert_eq!(facts(&state, now), expected);
    // The next checkpoint makes the file anew.
    assert!(later.inner.lock().unwrap().suspect);
    assert!(world.write(&derived).parts > 64);
    let (fresh, state) = world.open();
    assert_eq!(facts(&state.unwrap(), now), expected);
    assert!(!fresh.inner.lock().unwrap().suspect);
}

#[test]
fn whoever_reads_older_months_is_told_that_they_have_changed() {
    let mut world = whole();
    let (derived, _) = world.open();
    world.write(&derived);
    world.put_aside(&derived);
    let told = derived.rewritten();
    world.write(&derived);
    assert_eq!(derived.rewritten(), told, "nothing has changed");
    let first = first_here(&world.state);
    let form = &world.state.cube.forms()[0];
    let (code, period) = {
        let old = form.periods().find(|period| period.last_day() < first.first_day()).unwrap();
        (form.code().clone(), old)
    };
    let slot = form.block(period).unwrap().present_slots().next().unwrap();
    let facility = world.state.cube.facility_code(form.slots()[slot as usize]).clone();
    let decided =
        crate::cube::Decided { by: "w".into(), at: world.now, position: world.state.position };
    let (reason, seen) = (banyan_shared::report::Reason::Typo, Default::default());
    world.state.cube.returned((&facility, &code, period), decided, reason, seen);
    world.write(&derived);
    assert_eq!(derived.rewritten(), told + 1);
}

#[cfg(unix)]
#[test]
fn deleted_while_it_is_used_it_is_made_anew() {
    let mut world = whole();
    let (derived, _) = world.open();
    world.write(&derived);
    world.put_aside(&derived);
    let now = world.now;
    let expected = facts(&fold(&world.reader(), now).unwrap(), now);
    std::fs::remove_dir_all(world.dir.path().join("derived")).unwrap();
    assert_eq!(facts(&world.state, now), expected);
    assert!(world.write(&derived).parts > 64, "all of it");
    assert_eq!(facts(&world.state, now), expected);
    assert_eq!(facts(&world.open().1.unwrap(), now), expected);
}

#[test]
fn of_another_ledger_life_or_version_it_is_not_taken() {
    let world = whole();
    let (derived, _) = world.open();
    world.write(&derived);
    let (_, manifest) = lock(&derived.inner).open.take().unwrap();
    let reader = world.reader();
    assert!(manifest.check(&reader).is_ok());
    let changed: [fn(&mut Manifest); 6] = [
        |m| m.format += 1,
        |m| m.program = "0.0.9".into(),
        |m| m.store_id[0] ^= 1,
        |m| m.incarnation += 1,
        |m| m.chain[0] ^= 1,
        |m| m.through -= 1,
    ];
    for change in changed {
        let mut other = manifest.clone();
        change(&mut other);
        assert!(matches!(other.check(&reader), Err(DerivedError::Other(_))), "{other:?}");
    }

    // A restored ledger tells the same and is another life of it.
    let backup = world.dir.path().join("backup");
    reader.backup(&backup, &[], world.now).unwrap();
    let other = tempfile::tempdir().unwrap();
    let ledger = crate::service::ledger_dir(other.path());
    crate::ledger::restore(&backup, &ledger, world.now).unwrap();
    std::fs::create_dir(other.path().join("derived")).unwrap();
    let file = Path::new("derived").join("derived.db");
    std::fs::copy(world.dir.path().join(&file), other.path().join(&file)).unwrap();
    assert!(open(other.path()).1.is_none());
}

/// What people start: it serves from the file, its checkpoints let go of older months, and `verify` finds
/// what is served equal to the ledger, whatever the file was.
#[test]
fn a_service_starts_from_it_and_verify_agrees() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().to_owned();
    let keys = Keys::on_disk(&home);
    let ledger = Ledger::create(&crate::service::ledger_dir(&home), [5; 16]).unwrap();
    let mut world = World::begin(dir, ledger, keys);
    world.live();
    let World { dir: _dir, state, now, ledger, .. } = world;
    let expected = state.cube.digest();
    drop(ledger);
    let clock: crate::intake::Clock = Arc::new(move || now);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // Whether it was taken shows in how much of the ledger is not in it.
    let run = |taken: bool, after: fn(&Path)| {
        let opened = Service::open(&home, clock.clone(), None);
        let (service, running) = runtime.block_on(opened).unwrap();
        let behind = service.rows_behind();
        assert_eq!(behind < state.position, taken, "{behind} rows behind");
        assert_eq!(service.state().read().cube.digest(), expected);
        runtime.block_on(service.checkpoint()).unwrap();
        {
            let state = service.state().read();
            let first = first_here(&state);
            for (number, form) in state.cube.forms().iter().enumerate() {
                for month in form.months() {
                    assert_eq!(state.cube.has_here(number, month), month >= first, "{month}");
                }
            }
        }
        let report = runtime.block_on(service.verify(true)).unwrap();
        assert!(report.agrees, "{:?}", report.differences);
        after(&home);
        let before = service.rows_behind();
        let build: crate::intake::ActBuilder =
            Box::new(|_| Ok(vec![Act::Revoked { agent: AgentId([0; 6]) }]));
        runtime.block_on(service.act("test", build)).unwrap();
        assert!(service.rows_behind() > before);
        drop(service);
        runtime.block_on(running.stop()).unwrap();
    };
    run(false, |_| {});
    run(true, |home| {
        std::fs::write(home.join("derived").join("derived.db"), b"not what it was").unwrap();
    });
    run(false, |_| {});
    run(true, |_| {});
}

const CHILD: &str = "BANYAN_DERIVED_TEST_DIR";

/// Kills a process that writes the file all the time, at moments of chance: what it leaves is one of the files
/// it wrote, whole.
#[test]
fn killed_while_writing_it_is_the_old_file_or_the_new() {
    if let Ok(dir) = std::env::var(CHILD) {
        return write_until_killed(Path::new(&dir));
    }
    let mut throughs = BTreeSet::new();
    for round in 0..40u64 {
        // Where the child gets on slowly, a few more rounds, each longer than the one before.
        if round >= 8 && throughs.len() > 1 {
            break;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "derived::tests::killed_while_writing_it_is_the_old_file_or_the_new"])
            .env(CHILD, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while !dir.path().join("ready").exists() {
            assert!(child.try_wait().unwrap().is_none(), "the child has ended");
            std::thread::yield_now();
        }
        // Not a wait for anything: the moment of the power cut is drawn.
        std::thread::sleep(Duration::from_millis(5 + round * 23));
        child.kill().unwrap();
        child.wait().unwrap();
        let (derived, state) = resumed(dir.path()).expect("one was whole before");
        let reader = LedgerReader::open(&crate::service::ledger_dir(dir.path())).unwrap();
        let now = BEGUN.plus(1_000 * STEP);
        let end = state.position;
        assert_eq!(facts(&state, now), facts(&fold_until(&reader, end, now).unwrap(), now));
        throughs.insert(derived.through().unwrap());
    }
    assert!(throughs.len() > 1, "killed at different times: {throughs:?}");
}

fn write_until_killed(dir: &Path) {
    // The directory is the parent's, who removes it.
    let home = tempfile::Builder::new().prefix("child").tempdir_in(dir).unwrap();
    let ledger = Ledger::create(&crate::service::ledger_dir(dir), [5; 16]).unwrap();
    let mut world = World::begin(home, ledger, Keys::in_memory());
    let (derived, _) = open(dir);
    for n in 0.. {
        world.step((n % 8, n.wrapping_mul(31), n.wrapping_mul(17), n.wrapping_mul(5)));
        world.write(&derived);
        world.put_aside(&derived);
        if n == 3 {
            std::fs::write(dir.join("ready"), b"").unwrap();
        }
        if n == u8::MAX {
            return;
        }
    }
}

/// A small cube whose bytes stay the same.
pub(super) fn cube() -> Cube {
    let catalogue = fixture::catalogue();
    let mut cube = Cube::default();
    let version = |facility: &str, seq, position| AcceptedVersion {
        facility: facility.parse().unwrap(),
        form: FormIx(0),
        period: "2026-01-05".parse().unwrap(),
        id: VersionId { writer: AgentId([7; 6]), epoch: Epoch { counter: 1, random: 2 }, seq },
        content: Content {
            values: vec![Value::Number(seq * 300), Value::NotApplicable],
            how: How::Direct,
            entered_by: None,
            reason: None,
            override_code: None,
            withdrawn: false,
            entered_at: EnteredAt { minute: 1_000, doubtful: false },
            replaces: vec![],
        },
        received_at: Millis(60_000_000 + i64::try_from(seq).unwrap()),
        position,
    };
    for (facility, seq, position) in [("A", 1, 4), ("B", 2, 4), ("A", 3, 9)] {
        cube.apply(&catalogue, version(facility, seq, position)).unwrap();
    }
    cube
}

#[test]
fn the_format_has_a_number() {
    let cube = cube();
    let month = cube.forms()[0].months().into_iter().next().unwrap();
    let mut state = crate::state::tests::state(&["A"]);
    for agent in state.agents.values_mut() {
        agent.inbox.hold(Epoch { counter: 1, random: 2 }, 1, 77);
    }
    let agents: Vec<u8> = snapshot::agents(&state).flat_map(|(_, bytes)| bytes).collect();
    let bytes: [&[u8]; 3] = [
        &wire::encode(&snapshot::Rest::example()),
        &Month::encode(cube.forms()[0].month(month)),
        &agents,
    ];
    let digest = data_encoding::HEXLOWER.encode(&sha256(&bytes)[..8]);
    // Another digest: raise FORMAT, then put both here.
    assert_eq!((FORMAT, digest.as_str()), (5, "d4cd902e2a638141"));
}

#[test]
fn older_months_in_memory_make_it_time_to_write() {
    let mut world = whole();
    let older = |world: &World| world.state.cube.bytes_before(first_here(&world.state));
    assert!(older(&world) > 0);
    let (derived, _) = world.open();
    world.write(&derived);
    assert!(world.put_aside(&derived) > 0);
    assert_eq!(older(&world), 0);
    // Counts of past years come in few rows.
    let (soon, bytes) = (Duration::from_secs(15), 64 << 20);
    assert!(keep::is_due(1, soon, || bytes));
    assert!(!keep::is_due(1, soon, || bytes - 1));
    assert!(!keep::is_due(0, soon, || bytes), "all of it is in the file");
    assert!(keep::is_due(1, Duration::from_secs(3600), || 0));
    assert!(keep::is_due(20_000, soon, || 0));
}
