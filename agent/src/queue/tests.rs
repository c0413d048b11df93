//! The queue against a model in memory, against damage, against `kill -9`, against a full disk.

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

/// Damages a file's bytes, drawing places as it likes.
type Harm<'a> = dyn FnMut(&mut Vec<u8>, &mut dyn FnMut(usize) -> usize) + 'a;

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

// ---- Damage ----

/// Entries, confirmed ones, small values, two epochs: something of everything.
fn furnished(dir: &Path) -> (Epoch, u64) {
    let (mut queue, _) = open(dir);
    for tag in 0..400u64 {
        queue.append(&[new_entry(tag, 120 + (tag as usize * 37) % 700, 0)]).unwrap();
    }
    let epoch = queue.epoch();
    queue.confirm(epoch, &[(1, 150)]).unwrap();
    queue.meta_put("cut", &[1; 2000]).unwrap();
    (epoch, 400)
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for path in files(from) {
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_tree(&path, &target);
        } else {
            std::fs::copy(path, target).unwrap();
        }
    }
}

/// Opens a queue after harm was done to it: it must open, hold no wrong value, and own up to each loss.
fn check_after_harm(dir: &Path, epoch: Epoch, issued: u64, what: &str) -> u64 {
    let (mut queue, damage) = open(dir);
    let mut lost = SeqSet::default();
    if let Some(damage) = &damage {
        assert_ne!(queue.epoch(), epoch, "{what}");
        assert_eq!(queue.damages(), std::slice::from_ref(damage));
        let loss = damage.epochs.iter().find(|loss| loss.epoch == epoch).unwrap();
        assert_eq!(loss.issued, issued, "{what}");
        lost = SeqSet::from_ranges(loss.lost.iter().copied());
        assert_eq!(loss.salvaged + lost.len(), issued, "{what}");
        assert!(
            dir.join("quarantine").join(&damage.quarantine).is_dir()
                || damage.reason.contains("missing")
        );
    }
    for seq in 1..=issued {
        match queue.get(epoch, seq).unwrap() {
            Some(entry) => {
                assert_eq!(
                    entry.payload,
                    payload(seq - 1, 120 + ((seq as usize - 1) * 37) % 700),
                    "{what}"
                );
                assert!(!lost.contains(seq), "{what}");
            }
            None => assert!(lost.contains(seq), "{what}: {seq} is gone without a word"),
        }
    }
    if let Some(cut) = queue.meta_get("cut").unwrap() {
        assert_eq!(cut, [1; 2000]);
    }
    assert_eq!(queue.append(&[new_entry(9, 100, 0)]).unwrap().len(), 1);
    drop(queue);
    let (mut queue, again) = open(dir);
    assert_eq!(again, None, "{what}: mended once and for all");
    assert_eq!(queue.damages().len(), usize::from(damage.is_some()), "kept until passed on");
    queue.damage_reported().unwrap();
    drop(queue);
    assert!(open(dir).0.damages().is_empty());
    lost.len()
}

/// How many of the entries can still be read from a store's raw bytes.
fn readable(bytes: &[u8]) -> u64 {
    let mut seqs = SeqSet::default();
    for (base, writes) in record::assemble(record::scan(bytes)) {
        match layout::parse_key(&base) {
            Some(layout::Key::Entry(_, seq)) => seqs.insert((seq, seq)),
            Some(layout::Key::Block(..)) => {
                for (seq, _) in writes.values().flat_map(|bytes| layout::unpack(bytes).unwrap()) {
                    seqs.insert((seq, seq));
                }
            }
            _ => {}
        }
    }
    seqs.len()
}

#[test]
fn opens_after_any_corruption_and_owns_up_to_losses() {
    let origin = tempfile::tempdir().unwrap();
    let (epoch, issued) = furnished(origin.path());
    let mut state = 0x5eed_u64;
    let mut next = |n: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    let mut trial = |what: String, harm: &mut Harm<'_>| {
        let dir = tempfile::tempdir().unwrap();
        copy_tree(origin.path(), dir.path());
        let path = store_file(dir.path());
        let mut bytes = std::fs::read(&path).unwrap();
        harm(&mut bytes, &mut next);
        let left = readable(&bytes);
        std::fs::write(&path, bytes).unwrap();
        // Whatever the harm, it costs no entry that it left readable.
        let lost = check_after_harm(dir.path(), epoch, issued, &what);
        assert!(lost <= issued - left, "{what}: {left} were readable, {lost} are lost");
        lost
    };
    for n in 0..20 {
        trial(format!("flip 1, {n}"), &mut |bytes, next| {
            let at = next(bytes.len());
            bytes[at] ^= 1 << next(8);
        });
        trial(format!("flip 16, {n}"), &mut |bytes, next| {
            for _ in 0..16 {
                let at = next(bytes.len());
                bytes[at] ^= 1 << next(8);
            }
        });
        trial(format!("zero a page, {n}"), &mut |bytes, next| {
            let at = next(bytes.len() / 4096) * 4096;
            bytes[at..at + 4096].fill(0);
        });
        trial(format!("cut short, {n}"), &mut |bytes, next| {
            let len = next(bytes.len());
            bytes.truncate(len);
        });
    }
    let all = trial("empty".into(), &mut |bytes, _| bytes.clear());
    assert_eq!(all, issued);
}

#[test]
fn what_was_readable_survives_a_crash_between_seeing_the_damage_and_mending_it() {
    let origin = tempfile::tempdir().unwrap();
    let (epoch, issued) = furnished(origin.path());
    let path = store_file(origin.path());
    let store = path.parent().unwrap();
    let whole = std::fs::read(&path).unwrap();
    for at in [whole.len() / 5, whole.len() / 2, whole.len() - 9000] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        // As an opening does that ends right after it saw the damage.
        salvage::Raw::read(store, Duration::ZERO).unwrap().keep().unwrap();
        drop(store::Store::open(store));
        let dir = tempfile::tempdir().unwrap();
        copy_tree(origin.path(), dir.path());
        let lost = check_after_harm(dir.path(), epoch, issued, "crashed");
        assert!(lost <= issued - readable(&bytes), "{lost} are lost by the byte at {at}");
        salvage::forget_kept(store).unwrap();
        std::fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn sled_does_not_see_a_damaged_store_before_its_bytes_are_kept() {
    let origin = tempfile::tempdir().unwrap();
    let (epoch, issued) = furnished(origin.path());
    let whole = std::fs::read(store_file(origin.path())).unwrap();
    for at in [whole.len() / 5, whole.len() / 2, whole.len() - 9000] {
        let dir = tempfile::tempdir().unwrap();
        copy_tree(origin.path(), dir.path());
        let path = store_file(dir.path());
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        // No room for a copy.
        let taken = path.with_file_name(salvage::KEPT_UNFINISHED);
        std::fs::create_dir(&taken).unwrap();
        let before = contents(dir.path());
        for _ in 0..2 {
            let refused = Queue::open(dir.path(), |counter| Epoch { counter, random: 0 }, NOW);
            assert!(matches!(refused, Err(QueueError::Io { .. })), "{refused:?}");
            assert_eq!(contents(dir.path()), before, "nothing has changed");
        }
        std::fs::remove_dir(&taken).unwrap();
        let lost = check_after_harm(dir.path(), epoch, issued, "no room");
        assert!(lost <= issued - readable(&bytes), "{lost} are lost by the byte at {at}");
    }
}

#[test]
fn a_copy_is_made_after_a_disorderly_end_only_and_does_not_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (mut queue, _) = open(dir.path());
    let epoch = queue.epoch();
    queue.append(&[new_entry(0, 150, 0)]).unwrap();
    drop(queue);
    let copy = store_file(dir.path()).with_file_name(salvage::KEPT_UNFINISHED);
    std::fs::create_dir(&copy).unwrap();
    // After an orderly end there is no need for one.
    let opened = Queue::open(dir.path(), |counter| Epoch { counter, random: 0 }, NOW);
    assert!(
        matches!(&opened, Err(QueueError::Io { doing: "remove", .. })),
        "it comes as far as the whole store: {opened:?}"
    );
    std::fs::remove_dir(&copy).unwrap();
    let (mut queue, damage) = open(dir.path());
    assert_eq!(damage, None);
    queue.append(&[new_entry(1, 150, 0)]).unwrap();
    queue.broken = true;
    drop(queue);
    std::fs::create_dir(&copy).unwrap();
    let opened = Queue::open(dir.path(), |counter| Epoch { counter, random: 0 }, NOW);
    assert!(matches!(&opened, Err(QueueError::Io { doing: "keep a copy of", .. })), "{opened:?}");
    std::fs::remove_dir(&copy).unwrap();
    let (queue, damage) = open(dir.path());
    assert_eq!((damage, queue.issued(epoch)), (None, 2));
    assert!(!copy.with_file_name(salvage::KEPT).exists());
}

#[test]
fn opens_whatever_file_is_missing_or_nonsense() {
    let origin = tempfile::tempdir().unwrap();
    let (epoch, issued) = furnished(origin.path());
    let whole = |harm: &dyn Fn(&Path)| {
        let dir = tempfile::tempdir().unwrap();
        copy_tree(origin.path(), dir.path());
        harm(dir.path());
        check_after_harm(dir.path(), epoch, issued, "files")
    };
    // Without the side file the end is not known for certain, but everything is still there.
    assert_eq!(whole(&|dir| std::fs::remove_file(dir.join("head")).unwrap()), 0);
    assert_eq!(whole(&|dir| std::fs::write(dir.join("head"), [0xff; 8192]).unwrap()), 0);
    assert_eq!(whole(&|dir| std::fs::write(dir.join("head"), b"x").unwrap()), 0);
    assert_eq!(
        whole(&|dir| std::fs::remove_file(store_file(dir).with_file_name("conf")).unwrap()),
        0
    );
    assert_eq!(
        whole(&|dir| std::fs::write(store_file(dir).with_file_name("conf"), b"?").unwrap()),
        0
    );
    assert_eq!(
        whole(&|dir| std::fs::remove_dir_all(store_file(dir).parent().unwrap()).unwrap()),
        issued
    );
    // What a kill during sled's own start leaves behind.
    let unfinished = |dir: &Path| {
        let path = store_file(dir).with_file_name("snap.FFFFFFFFFFFF0000.generating");
        std::fs::write(path, b"").unwrap();
    };
    let dir = tempfile::tempdir().unwrap();
    copy_tree(origin.path(), dir.path());
    unfinished(dir.path());
    assert_eq!(open(dir.path()).1, None);
    // One torn slot of the two is what a power cut may leave: no damage at all.
    for slot in [0, 4096] {
        whole(&|dir| {
            let mut bytes = std::fs::read(dir.join("head")).unwrap();
            bytes[slot + 20] ^= 0xff;
            std::fs::write(dir.join("head"), bytes).unwrap();
        });
    }
}

#[test]
fn the_store_set_aside_last_is_kept_whatever_the_clock_says() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let mut named = Vec::new();
    for days in [0, 1, 2, -17 * 365, -17 * 365 - 1, 9] {
        let path = store_file(dir.path());
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.fill(0);
        std::fs::write(&path, bytes).unwrap();
        let (_, damage) = open_at(dir.path(), NOW.plus(days * 86_400_000));
        named.push(damage.unwrap().quarantine);
        let mut kept: Vec<String> = files(&dir.path().join("quarantine"))
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        kept.sort();
        assert_eq!(kept, named[named.len().saturating_sub(QUARANTINE_KEPT)..]);
    }
}

/// What a directory holds, file by file.
fn contents(dir: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for path in files(dir) {
        if path.is_dir() {
            all.extend(contents(&path));
        } else {
            all.insert(path.clone(), std::fs::read(path).unwrap());
        }
    }
    all
}

#[test]
fn a_store_the_system_does_not_let_us_read_is_not_taken_for_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let (epoch, issued) = furnished(dir.path());
    let path = store_file(dir.path());
    let aside = path.with_file_name("db.aside");
    std::fs::rename(&path, &aside).unwrap();
    // To be opened, and not to be read.
    std::fs::create_dir(&path).unwrap();
    let before = contents(dir.path());
    for head in [true, false] {
        if !head {
            std::fs::rename(dir.path().join("head"), dir.path().join("head.aside")).unwrap();
        }
        let fresh = |counter| Epoch { counter, random: 0 };
        let refused = Queue::open_within(dir.path(), fresh, NOW, Duration::from_millis(1));
        assert!(matches!(refused, Err(QueueError::Io { doing: "read", .. })), "{refused:?}");
        if !head {
            std::fs::rename(dir.path().join("head.aside"), dir.path().join("head")).unwrap();
        }
        assert_eq!(contents(dir.path()), before, "nothing is moved or written");
    }
    std::fs::remove_dir(&path).unwrap();
    std::fs::rename(&aside, &path).unwrap();
    let (queue, damage) = open(dir.path());
    assert_eq!((damage, queue.epoch(), queue.issued(epoch)), (None, epoch, issued));
}

#[test]
fn an_older_copy_of_the_store_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let old = tempfile::tempdir().unwrap();
    let (epoch, issued) = furnished(dir.path());
    copy_tree(dir.path(), old.path());
    let (mut queue, _) = open(dir.path());
    queue.append(&[new_entry(400, 120 + (400 * 37) % 700, 0)]).unwrap();
    drop(queue);
    let store = store_file(dir.path());
    std::fs::remove_dir_all(store.parent().unwrap()).unwrap();
    copy_tree(store_file(old.path()).parent().unwrap(), store.parent().unwrap());
    assert_eq!(check_after_harm(dir.path(), epoch, issued + 1, "rolled back"), 1);
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
