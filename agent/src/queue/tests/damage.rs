//! Whatever is damaged, gone or refused: the queue opens, or says why not and changes nothing.

use super::*;

/// Damages a file's bytes, drawing places as it likes.
type Harm<'a> = dyn FnMut(&mut Vec<u8>, &mut dyn FnMut(usize) -> usize) + 'a;

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
    let (epoch, issued) = furnished(dir.path());
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
    queue.append(&[new_entry(issued, 150, 0)]).unwrap();
    queue.broken = true;
    drop(queue);
    std::fs::create_dir(&copy).unwrap();
    let opened = Queue::open(dir.path(), |counter| Epoch { counter, random: 0 }, NOW);
    assert!(matches!(&opened, Err(QueueError::Io { doing: "keep a copy of", .. })), "{opened:?}");
    std::fs::remove_dir(&copy).unwrap();
    let (queue, damage) = open(dir.path());
    assert_eq!((damage, queue.issued(epoch)), (None, issued + 1));
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
