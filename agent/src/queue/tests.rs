//! The queue against a model in memory, against damage, against `kill -9`, against a full disk.

mod damage;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use banyan_shared::ids::Millis;
use proptest::prelude::*;

use super::ranges::SeqSet;
use super::*;

const NOW: Millis = Millis(1_770_000_000_000);

fn open(dir: &Path) -> (Queue, Option<Damage>) {
    open_at(dir, NOW)
}

fn open_at(dir: &Path, now: Millis) -> (Queue, Option<Damage>) {
    Queue::open(dir, |counter| Epoch { counter, random: 7 * counter }, now).unwrap()
}

fn day(n: i32) -> Date {
    Date::from_days(20_000 + n).unwrap()
}

/// Content that tells its own hash, so that a wrong value shows.
fn payload(tag: u64, len: usize) -> Vec<u8> {
    let mut x = tag | 1;
    let mut bytes = tag.to_le_bytes().to_vec();
    while bytes.len() < len.max(8) {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.push((x >> 33) as u8);
    }
    bytes
}

fn new_entry(tag: u64, len: usize, on: i32) -> NewEntry {
    let payload = payload(tag, len);
    NewEntry { hash: hash(&payload), payload, day: day(on) }
}

fn hash(payload: &[u8]) -> u64 {
    u64::from(crc32fast::hash(payload)) << 7
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn store_file(dir: &Path) -> std::path::PathBuf {
    files(dir)
        .into_iter()
        .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("store-"))
        .unwrap()
        .join("db")
}

#[test]
fn ranges_behave_as_sets() {
    let mut state = 1u64;
    let mut next = |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % n
    };
    for _ in 0..300 {
        let (mut set, mut model) = (SeqSet::default(), std::collections::BTreeSet::new());
        for _ in 0..30 {
            let first = 1 + next(40);
            let last = first + next(6);
            if next(3) == 0 {
                set.remove((first, last));
                model.retain(|seq| !(first..=last).contains(seq));
            } else {
                set.insert((first, last));
                model.extend(first..=last);
            }
            assert_eq!(
                (1..60).filter(|&s| set.contains(s)).collect::<Vec<_>>(),
                Vec::from_iter(model.iter().copied())
            );
            assert_eq!(set.len(), model.len() as u64);
            assert!(set.ranges().windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
        }
    }
}

#[test]
fn keeps_what_it_was_given_over_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let (mut queue, damage) = open(dir.path());
    assert_eq!(damage, None);
    let epoch = queue.epoch();
    assert_eq!(epoch.counter, 1);
    assert_eq!(queue.append(&[new_entry(1, 50, 0), new_entry(2, 16 * 1024, 0)]).unwrap(), [1, 2]);
    queue.append_with(&[new_entry(3, 900, 1)], &[("cut", &[9; 5000])]).unwrap();
    queue.confirm(epoch, &[(1, 1)]).unwrap();
    drop(queue);
    let (mut queue, damage) = open(dir.path());
    assert_eq!(damage, None);
    assert_eq!(queue.epoch(), epoch);
    let states: Vec<State> = (1..=3).map(|seq| queue.state(epoch, seq).unwrap()).collect();
    assert_eq!(states, [State::Confirmed, State::Waiting, State::Waiting]);
    assert_eq!(queue.get(epoch, 2).unwrap().unwrap().payload, payload(2, 16 * 1024));
    assert_eq!(queue.meta_get("cut").unwrap().unwrap(), [9; 5000]);
    queue.void(epoch, 2, b"void".to_vec(), 99).unwrap();
    assert_eq!(queue.state(epoch, 2), Some(State::Voided));
    drop(queue);
    let mut queue = open(dir.path()).0;
    assert_eq!(queue.get(epoch, 2).unwrap().unwrap().payload, b"void");
    assert_eq!(queue.waiting(epoch).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(queue.append(&[new_entry(4, 1, 0)]).unwrap(), [4]);
    assert!(matches!(queue.confirm(epoch, &[(1, 5)]), Err(QueueError::NotFound { .. })));
    assert!(matches!(
        queue.append(&[new_entry(5, ENTRY_BYTES_MAX + 1, 0)]),
        Err(QueueError::TooLarge { .. })
    ));
}

#[test]
fn a_second_opener_is_told_it_is_locked() {
    let dir = tempfile::tempdir().unwrap();
    let (_queue, _) = open(dir.path());
    let again = Queue::open(dir.path(), |counter| Epoch { counter, random: 0 }, NOW);
    assert!(matches!(again, Err(QueueError::Locked { .. })));
}

#[test]
fn history_is_packed_and_the_file_shrinks() {
    let dir = tempfile::tempdir().unwrap();
    let (mut queue, _) = open(dir.path());
    let epoch = queue.epoch();
    for round in 0..40u64 {
        let entries: Vec<_> =
            (0..500).map(|i| new_entry(round * 500 + i, 900, round as i32)).collect();
        queue.append(&entries).unwrap();
    }
    queue.confirm(epoch, &[(1, 20_000)]).unwrap();
    assert_eq!(queue.drop_older_than(day(39)).unwrap(), 19_500);
    let stats = queue.stats();
    assert!(stats.file_bytes < COMPACT_ABOVE_BYTES, "{stats:?}");
    assert_eq!(stats.confirmed, 500);
    let hashes = queue.hashes(epoch).unwrap();
    let sum = (0..19_500).fold(0u64, |sum, tag| sum.wrapping_add(hash(&payload(tag, 900))));
    assert_eq!((hashes.base, hashes.base_sum, hashes.hashes.len()), (19_500, sum, 500));
    drop(queue);
    let (queue, damage) = open(dir.path());
    assert_eq!(damage, None);
    assert_eq!(queue.history_since(epoch, 19_990, 100).unwrap().len(), 10);
    assert_eq!(queue.get(epoch, 20_000).unwrap().unwrap().payload, payload(19_999, 900));
}

#[test]
fn small_history_is_packed_into_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let (mut queue, _) = open(dir.path());
    let epoch = queue.epoch();
    for round in 0..10u64 {
        let entries: Vec<_> = (0..100).map(|i| new_entry(round * 100 + i, 60, 0)).collect();
        queue.append(&entries).unwrap();
    }
    let before = queue.stats().live_bytes;
    queue.confirm(epoch, &[(1, 1000)]).unwrap();
    let after = queue.stats().live_bytes;
    assert!(after * 10 < before * 7, "{before} {after}");
    let check = |queue: &Queue| {
        for (entry, tag) in queue.history_since(epoch, 0, 2000).unwrap().iter().zip(0..) {
            assert_eq!(entry.payload, payload(tag, 60));
        }
    };
    check(&queue);
    drop(queue);
    let (mut queue, _) = open(dir.path());
    check(&queue);
    assert_eq!(queue.unconfirm(epoch, &[(1, 1000)]).unwrap(), 1000);
    assert_eq!(queue.waiting(epoch).count(), 1000);
    check(&queue);
}

#[test]
fn what_is_released_is_retained_from_the_receipts_day() {
    let dir = tempfile::tempdir().unwrap();
    let (mut queue, _) = open(dir.path());
    let epoch = queue.epoch();
    // Years ago, years ahead, today.
    let on = |tag: u64| [-6000, 26_000, 100][tag as usize % 3];
    let entries: Vec<_> = (0..2100).map(|tag| new_entry(tag, 60, on(tag))).collect();
    queue.append(&entries).unwrap();
    queue.confirm_on(epoch, &[(1, 2090)], day(100)).unwrap();
    let check = |queue: &Queue, through: Seq, on: Date| {
        for entry in queue.history_since(epoch, 0, 3000).unwrap() {
            if entry.seq <= through {
                assert_eq!(entry.day, on, "{}", entry.seq);
                assert_eq!(entry.payload, payload(entry.seq - 1, 60));
            }
        }
    };
    check(&queue, 2090, day(100));
    // Released once more by a restored centre: what is packed keeps its day.
    queue.unconfirm(epoch, &[(1, 2090)]).unwrap();
    queue.confirm_on(epoch, &[(1, 1000)], day(130)).unwrap();
    check(&queue, 1000, day(100));
    drop(queue);
    let (mut queue, damage) = open(dir.path());
    assert_eq!(damage, None);
    check(&queue, 1000, day(100));
    queue.confirm_on(epoch, &[(1, 2100)], day(130)).unwrap();
    assert_eq!(queue.drop_older_than(day(100)).unwrap(), 0);
    assert_eq!(queue.drop_older_than(day(131)).unwrap(), 2100);
}

// ---- The model ----

#[derive(Clone, Debug)]
enum Op {
    Append(Vec<(u64, usize, i32)>, bool),
    Confirm(u64, u64),
    Unconfirm(u64, u64),
    Void(u64),
    NewEpoch(bool),
    Drop(i32),
    Meta(u8, usize),
    Compact,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let entry = (any::<u64>(), prop_oneof![8 => 8..200usize, 1 => 800..3000usize], 0..20i32);
    prop_oneof![
        6 => (prop::collection::vec(entry, 1..40), any::<bool>()).prop_map(|(e, m)| Op::Append(e, m)),
        5 => (0..300u64, 0..120u64).prop_map(|(a, n)| Op::Confirm(a, n)),
        1 => (0..300u64, 0..60u64).prop_map(|(a, n)| Op::Unconfirm(a, n)),
        2 => (0..300u64).prop_map(Op::Void),
        1 => any::<bool>().prop_map(Op::NewEpoch),
        1 => (0..20i32).prop_map(Op::Drop),
        1 => (0..4u8, 0..3000usize).prop_map(|(k, n)| Op::Meta(k, n)),
        1 => Just(Op::Compact),
        2 => Just(Op::Reopen),
    ]
}

#[derive(Clone, Debug)]
struct ModelEntry {
    payload: Vec<u8>,
    hash: u64,
    day: i32,
    void: bool,
    state: State,
}

/// An epoch of the model: entries 1, 2, …; `None` once dropped or moved.
#[derive(Clone, Debug, Default)]
struct ModelEpoch {
    entries: Vec<Option<ModelEntry>>,
    base: u64,
    base_sum: u64,
}

#[derive(Default)]
struct Model {
    epochs: BTreeMap<Epoch, ModelEpoch>,
    metas: BTreeMap<String, Vec<u8>>,
}

impl Model {
    fn check(&self, queue: &Queue) {
        assert_eq!(
            queue.epochs(),
            self.epochs.iter().map(|(&e, m)| (e, m.entries.len() as u64)).collect::<Vec<_>>()
        );
        for (&epoch, model) in &self.epochs {
            let hashes = queue.hashes(epoch).unwrap();
            assert_eq!((hashes.base, hashes.base_sum), (model.base, model.base_sum));
            let left = &model.entries[model.base as usize..];
            assert_eq!(
                hashes.hashes,
                left.iter().map(|e| e.as_ref().map(|e| e.hash)).collect::<Vec<_>>()
            );
            for (seq, entry) in (1..).zip(&model.entries) {
                let here = queue.get(epoch, seq).unwrap();
                assert_eq!(here.is_some(), entry.is_some(), "{epoch}/{seq}");
                if let (Some(here), Some(entry)) = (here, entry) {
                    assert_eq!(
                        (here.payload, here.hash, here.day.days(), here.state),
                        (entry.payload.clone(), entry.hash, entry.day, entry.state)
                    );
                }
            }
        }
        for (name, bytes) in &self.metas {
            assert_eq!(queue.meta_get(name).unwrap().as_ref(), Some(bytes));
        }
        let all = || self.epochs.values().flat_map(|model| model.entries.iter().flatten());
        let count = |fits: fn(State) -> bool| all().filter(|e| fits(e.state)).count() as u64;
        let stats = queue.stats();
        assert_eq!(stats.waiting, count(|s| s != State::Confirmed));
        assert_eq!(stats.confirmed, count(|s| s == State::Confirmed));
        assert_eq!(queue.unconfirmed(), count(|s| s != State::Confirmed));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_model(ops in prop::collection::vec(op(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let mut queue = open(dir.path()).0;
        let mut model = Model::default();
        model.epochs.insert(queue.epoch(), ModelEpoch::default());
        for op in ops {
            let epoch = queue.epoch();
            let issued = queue.issued(epoch);
            let here = model.epochs.get_mut(&epoch).unwrap();
            match op {
                Op::Append(entries, with_meta) => {
                    let new: Vec<_> = entries.iter().map(|&(tag, len, on)| new_entry(tag, len, on)).collect();
                    let values: &[(&str, &[u8])] = if with_meta { &[("with", b"append")] } else { &[] };
                    let seqs = queue.append_with(&new, values).unwrap();
                    prop_assert_eq!(seqs, (issued + 1..=issued + new.len() as u64).collect::<Vec<_>>());
                    here.entries.extend(new.into_iter().map(|e| Some(ModelEntry {
                        payload: e.payload, hash: e.hash, day: e.day.days(), void: false, state: State::Waiting,
                    })));
                    if with_meta {
                        model.metas.insert("with".into(), b"append".to_vec());
                    }
                }
                Op::Confirm(first, n) => {
                    let range = (first + 1, first + n);
                    if range.1 > issued || n == 0 {
                        continue;
                    }
                    queue.confirm(epoch, &[range]).unwrap();
                    for entry in here.entries[first as usize..(first + n) as usize].iter_mut().flatten() {
                        entry.state = State::Confirmed;
                    }
                }
                Op::Unconfirm(first, n) => {
                    queue.unconfirm(epoch, &[(first + 1, first + n)]).unwrap();
                    for entry in here.entries.iter_mut().skip(first as usize).take(n as usize).flatten() {
                        if entry.state == State::Confirmed {
                            entry.state = if entry.void { State::Voided } else { State::Waiting };
                        }
                    }
                }
                Op::Void(at) => {
                    if let Some(Some(entry)) = here.entries.get_mut(at as usize) {
                        let done = queue.void(epoch, at + 1, b"void".to_vec(), at);
                        prop_assert_eq!(done.is_ok(), entry.state != State::Confirmed);
                        if done.is_ok() {
                            *entry = ModelEntry { payload: b"void".to_vec(), hash: at, void: true, state: State::Voided, day: entry.day };
                        }
                    }
                }
                Op::NewEpoch(move_entries) => {
                    let new = Epoch { counter: epoch.counter + 1, random: 5 };
                    queue.new_epoch(new).unwrap();
                    let mut target = ModelEpoch::default();
                    if move_entries {
                        let seqs = queue.numbers(epoch, |state| state != State::Confirmed);
                        let moved = queue.move_entries(epoch, &seqs, |_, seq, entry| {
                            let payload = [&seq.to_le_bytes()[..], &entry.payload].concat();
                            let hash = hash(&payload);
                            (payload, hash)
                        }).unwrap();
                        for (old, new) in moved {
                            let mut entry = here.entries[old as usize - 1].take().unwrap();
                            prop_assert_ne!(entry.state, State::Confirmed);
                            entry.payload = [&new.to_le_bytes()[..], &entry.payload].concat();
                            entry.hash = hash(&entry.payload);
                            target.entries.push(Some(entry));
                        }
                        prop_assert!(here.entries.iter().flatten().all(|e| e.state == State::Confirmed));
                    }
                    model.epochs.insert(new, target);
                }
                Op::Drop(before) => {
                    queue.drop_older_than(day(before)).unwrap();
                    for model in model.epochs.values_mut() {
                        let stays = |e: &Option<ModelEntry>| e.as_ref().is_some_and(|e| {
                            e.state != State::Confirmed || e.day >= day(before).days()
                        });
                        let from = model.base as usize;
                        let n = model.entries[from..].iter().position(stays).unwrap_or(model.entries.len() - from);
                        if model.entries[from..from + n].iter().any(Option::is_some) {
                            for entry in &mut model.entries[from..from + n] {
                                if let Some(entry) = entry.take() {
                                    model.base_sum = model.base_sum.wrapping_add(entry.hash);
                                }
                            }
                            model.base += n as u64;
                        }
                    }
                }
                Op::Meta(key, len) => {
                    let (name, bytes) = (format!("k{key}"), payload(len as u64, len));
                    queue.meta_put(&name, &bytes).unwrap();
                    model.metas.insert(name, bytes);
                }
                Op::Compact => queue.compact().unwrap(),
                Op::Reopen => {
                    drop(queue);
                    let (again, damage) = open(dir.path());
                    prop_assert_eq!(damage, None);
                    queue = again;
                }
            }
        }
        model.check(&queue);
        drop(queue);
        let (queue, damage) = open(dir.path());
        prop_assert_eq!(damage, None);
        model.check(&queue);
    }
}

// ---- Real processes ----

const CHILD: &str = "BANYAN_QUEUE_TEST_CHILD";

/// The other side of the tests below; does nothing unless one of them started this process.
#[test]
fn child() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let mut out = std::io::stdout().lock();
    let (mut queue, damage) =
        match Queue::open(Path::new(&dir), |counter| Epoch { counter, random: 1 }, NOW) {
            Ok(opened) => opened,
            Err(error) => {
                writeln!(out, "\nopen {error:?}").unwrap();
                return;
            }
        };
    writeln!(out, "\nopened {}", damage.is_some()).unwrap();
    let epoch = queue.epoch();
    let mut n = queue.issued(epoch);
    loop {
        let many = 1 + (n % 5) as usize;
        let entries: Vec<_> = (0..many as u64).map(|i| new_entry(n + i, 150, 0)).collect();
        let done = queue.append_with(&entries, &[("n", &n.to_le_bytes())]).and_then(|seqs| {
            n += many as u64;
            writeln!(out, "saved {}", seqs.last().unwrap()).unwrap();
            out.flush().unwrap();
            if n.is_multiple_of(7) {
                queue.confirm(epoch, &[(1, n - n % 10)])?;
            }
            if n.is_multiple_of(301) {
                queue.compact()?;
            }
            Ok(())
        });
        if let Err(error) = done {
            writeln!(out, "write {error:?}").unwrap();
            assert!(
                !queue.broken || queue.append(&entries).is_err(),
                "a failed queue must be opened again"
            );
            return;
        }
    }
}

fn spawn_child(dir: &Path, shell: Option<&str>) -> std::process::Child {
    let this = std::env::current_exe().unwrap();
    let mut command = match shell {
        None => Command::new(this),
        Some(before) => {
            let mut command = Command::new("sh");
            command.arg("-c").arg(format!("{before}; exec \"$0\" \"$@\"")).arg(this);
            command
        }
    };
    command
        .args(["--exact", "queue::tests::child", "--nocapture"])
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn check_saved(queue: &Queue, through: Seq) {
    let epoch = queue.epoch();
    assert!(queue.issued(epoch) >= through);
    for seq in 1..=queue.issued(epoch) {
        assert_eq!(queue.get(epoch, seq).unwrap().unwrap().payload, payload(seq - 1, 150));
    }
}

#[test]
fn nothing_saved_is_lost_by_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut saved = 0;
    for round in 0..30u32 {
        let mut child = spawn_child(dir.path(), None);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // The kill falls somewhere inside the append after the last line read.
        let mut left = 1 + (round * 13) % 60;
        for line in lines.by_ref() {
            let line = line.unwrap();
            assert!(!line.starts_with("open ") && line != "opened true", "{line}");
            if let Some(seq) = line.strip_prefix("saved ") {
                saved = seq.parse().unwrap();
                left -= 1;
                if left == 0 {
                    break;
                }
            }
        }
        assert_eq!(left, 0, "the child ended early in round {round}");
        child.kill().unwrap();
        for line in lines {
            if let Some(seq) = line.unwrap().strip_prefix("saved ") {
                saved = seq.parse().unwrap();
            }
        }
        child.wait().unwrap();
    }
    let (queue, damage) = open(dir.path());
    assert_eq!(damage, None);
    assert!(saved > 1000);
    check_saved(&queue, saved);
}

/// A limit on the size of files is met like a full disk.
#[cfg(unix)]
#[test]
fn a_full_disk_loses_nothing_and_is_got_over() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let mut saved = 0;
    // Blocks of 512 bytes; the process is to see an error, not a signal.
    for blocks in [1024, 1536, 1536, 2048] {
        let child = spawn_child(dir.path(), Some(&format!("trap '' XFSZ; ulimit -f {blocks}")));
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut told = false;
        for line in text.lines() {
            if let Some(seq) = line.strip_prefix("saved ") {
                saved = seq.parse().unwrap();
            }
            told |= line.starts_with("write DiskFull") || line.starts_with("open DiskFull");
        }
        assert!(told, "{text}");
        // With room again it opens and nothing is gone.
        let (queue, damage) = open(dir.path());
        assert_eq!(damage, None);
        check_saved(&queue, saved);
    }
    assert!(saved > 100);
}

#[test]
fn a_full_queue_still_begins_a_life() {
    let dir = tempfile::tempdir().unwrap();
    let (mut queue, _) = open(dir.path());
    let mut left = UNCONFIRMED_MAX as usize;
    while left > 0 {
        let n = left.min(APPEND_ENTRIES_MAX);
        queue.append(&vec![new_entry(1, 8, 0); n]).unwrap();
        left -= n;
    }
    assert!(matches!(queue.append(&[new_entry(1, 8, 0)]), Err(QueueError::Full { .. })));
    let counter = queue.epoch().counter + 1;
    queue.new_epoch(Epoch { counter, random: 5 }).unwrap();
    assert_eq!(queue.append(&[new_entry(2, 8, 0)]).unwrap(), [1]);
    assert!(matches!(queue.append(&[new_entry(3, 8, 0)]), Err(QueueError::Full { .. })));
    queue.meta_put("clock", b"1").unwrap();
}
