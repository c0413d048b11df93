//! Opening: the lock, the current store, and what to do when it is not what was left there.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use banyan_shared::ids::{Epoch, Millis, Seq};

use super::layout::{self, EpochState, Key, Stored};
use super::salvage::{self, Dead, Raw, Salvage};
use super::side::{Found, Head, Side};
use super::store::{Store, StoreFault, Writes, caught, sync_dir};
use super::{
    COMPACT_ABOVE_BYTES, COMPACT_RATIO, Damage, EpochIndex, QUARANTINE_KEPT, Queue, QueueError,
    SESSION_BITS, Slot,
};
use crate::files;

const LOCK_FILE: &str = "lock";
/// How long an opener waits for another to finish, and how often it looks.
const LOCK_WAIT: Duration = Duration::from_secs(1);
const LOCK_POLL: Duration = Duration::from_millis(10);
/// How long a store is tried that is there and that the system does not let us read.
const READ_WAIT: Duration = Duration::from_secs(10);
const STORE_PREFIX: &str = "store-";
const QUARANTINE: &str = "quarantine";
/// Marks a damaged store that could not be moved away yet.
const DAMAGED_SUFFIX: &str = ".damaged";
/// Most intervals of given-up commit numbers kept.
const DEAD_MAX: usize = 256;
/// Bytes written at once when a store is made from salvaged entries.
const SALVAGE_STEP_BYTES: usize = 1024 * 1024;

/// What was read from a whole store.
struct Loaded {
    store: Store,
    epochs: BTreeMap<Epoch, EpochIndex>,
    damages: Vec<Damage>,
    dead: Vec<Dead>,
    /// Records of entries that do not exist: unfinished or already moved.
    garbage: Vec<Vec<u8>>,
}

fn store_dir(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{STORE_PREFIX}{number}"))
}

fn damage_mark(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{STORE_PREFIX}{number}{DAMAGED_SUFFIX}"))
}

/// The numbers of the stores in a queue's directory.
fn stores_in(dir: &Path) -> std::io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(STORE_PREFIX));
        numbers.extend(number.and_then(|number| number.parse::<u32>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Whether the system refuses for a reason that leaves the store itself out of doubt.
fn is_the_systems(error: &QueueError) -> bool {
    use std::io::ErrorKind::{OutOfMemory, PermissionDenied, ReadOnlyFilesystem, ResourceBusy};
    match error {
        QueueError::Locked { .. } | QueueError::DiskFull { .. } => true,
        QueueError::Io { source, .. } => {
            // Out of file handles: EMFILE and ENFILE, ERROR_TOO_MANY_OPEN_FILES.
            let handles: &[i32] = if cfg!(windows) { &[4] } else { &[23, 24] };
            matches!(
                source.kind(),
                OutOfMemory | PermissionDenied | ReadOnlyFilesystem | ResourceBusy
            ) || files::is_held(source)
                || source.raw_os_error().is_some_and(|code| handles.contains(&code))
                || source.to_string().contains("could not acquire lock")
        }
        _ => false,
    }
}

fn load(path: &Path) -> Result<Loaded, StoreFault> {
    let mut store = Store::open(path)?;
    let mut states: BTreeMap<Epoch, EpochState> = BTreeMap::new();
    let mut own: BTreeMap<Epoch, Vec<(Seq, Slot)>> = BTreeMap::new();
    let mut packed: BTreeMap<Epoch, Vec<(Seq, Slot)>> = BTreeMap::new();
    let mut blocks: BTreeMap<Epoch, BTreeMap<Seq, Seq>> = BTreeMap::new();
    let mut damages = Vec::new();
    let mut dead = Vec::new();
    let read = store.load(|base, bytes| {
        let odd = || format!("record {base:02x?} is not readable");
        match layout::parse_key(base).ok_or_else(odd)? {
            Key::Epoch(epoch) => {
                states.insert(epoch, EpochState::decode(bytes).ok_or_else(odd)?);
            }
            Key::Entry(epoch, seq) => {
                let slot = Slot::of(&Stored::decode(bytes).ok_or_else(odd)?);
                own.entry(epoch).or_default().push((seq, Slot { own: true, ..slot }));
            }
            Key::Block(epoch, first) => {
                let entries = layout::unpack(bytes).ok_or_else(odd)?;
                let last = entries.last().map_or(first, |(seq, _)| *seq);
                blocks.entry(epoch).or_default().insert(first, last);
                let slots = entries
                    .iter()
                    .map(|(seq, stored)| (*seq, Slot { packed: true, ..Slot::of(stored) }));
                packed.entry(epoch).or_default().extend(slots);
            }
            Key::Damage => damages = postcard::from_bytes(bytes).map_err(|_| odd())?,
            Key::Dead => dead = postcard::from_bytes(bytes).map_err(|_| odd())?,
            Key::Meta(_) => {}
        }
        Ok(())
    });
    if let Err(fault) = read {
        // A damaged sled may panic once more on its way out.
        let _ = caught(|| drop(store));
        return Err(fault);
    }
    let mut epochs = BTreeMap::new();
    let mut garbage = Vec::new();
    for (epoch, state) in states {
        let dropped = state.dropped;
        let count = usize::try_from(state.issued - dropped).unwrap_or(usize::MAX);
        let mut index = EpochIndex {
            slots: std::iter::repeat_n(Slot::default(), count).collect(),
            blocks: blocks.remove(&epoch).unwrap_or_default(),
            state,
            unpacked: 0,
        };
        let exists = |state: &EpochState, seq| {
            seq > dropped && seq <= state.issued && !state.absent.contains(seq)
        };
        for (seq, slot) in packed.remove(&epoch).unwrap_or_default() {
            if exists(&index.state, seq)
                && let Some(here) = index.slot_mut(seq)
            {
                *here = slot;
            }
        }
        for (seq, slot) in own.remove(&epoch).unwrap_or_default() {
            if !exists(&index.state, seq) {
                garbage.push(layout::entry_key(epoch, seq));
            } else if let Some(here) = index.slot_mut(seq) {
                *here = Slot { packed: here.packed, ..slot };
            }
        }
        let missing = (dropped + 1..)
            .zip(&index.slots)
            .find(|(seq, slot)| !slot.present && !index.state.absent.contains(*seq));
        if let Some((seq, _)) = missing {
            let _ = caught(|| drop(store));
            return Err(StoreFault::Damaged(format!("entry {epoch}/{seq} is missing")));
        }
        index.count_unpacked();
        epochs.insert(epoch, index);
    }
    Ok(Loaded { store, epochs, damages, dead, garbage })
}

/// Whether a store that is whole in itself is also the one the side file remembers.
fn check(loaded: &Loaded, head: &Head) -> Result<(), String> {
    if loaded.store.commit_number() < head.commit {
        return Err(format!(
            "the store ends with commit {}, the side file knows {}",
            loaded.store.commit_number(),
            head.commit
        ));
    }
    for side in &head.epochs {
        let issued = loaded.epochs.get(&side.epoch).map_or(0, |index| index.state.issued);
        if issued < side.issued {
            return Err(format!(
                "epoch {} ends at {issued}, {} were issued",
                side.epoch, side.issued
            ));
        }
    }
    if loaded.epochs.is_empty() {
        return Err("the store holds no epoch".to_owned());
    }
    Ok(())
}

impl Queue {
    /// Opens the queue in `dir`, making it when there is none, and mending it when it is damaged.
    ///
    /// `fresh_epoch` gets the counter for a new life of the numbering and draws the rest; it is called for a
    /// new queue and for a damaged one. A damage found now is returned, and kept with earlier ones in
    /// [`Queue::damages`] until [`Queue::damage_reported`]. Errors: [`QueueError::Locked`] when another process
    /// keeps the queue for more than a second, [`QueueError::DiskFull`], or what the system says; damage is never
    /// an error, and what the system refuses for some seconds is no damage: then nothing is changed.
    pub fn open(
        dir: &Path,
        fresh_epoch: impl FnOnce(u32) -> Epoch,
        now: Millis,
    ) -> Result<(Queue, Option<Damage>), QueueError> {
        Queue::open_within(dir, fresh_epoch, now, READ_WAIT)
    }

    /// [`Queue::open`] that tries a store the system refuses for as long as `wait`.
    pub(super) fn open_within(
        dir: &Path,
        fresh_epoch: impl FnOnce(u32) -> Epoch,
        now: Millis,
        wait: Duration,
    ) -> Result<(Queue, Option<Damage>), QueueError> {
        let io = |doing| move |error| QueueError::io(doing, dir, error);
        fs::create_dir_all(dir).map_err(io("create"))?;
        let lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join(LOCK_FILE))
            .map_err(io("open the lock in"))?;
        let started = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                // Another command may be about to finish, or a process just started to let go of our files.
                Err(TryLockError::WouldBlock) if started.elapsed() < LOCK_WAIT => {
                    std::thread::sleep(LOCK_POLL);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(QueueError::Locked { path: dir.to_owned() });
                }
                Err(TryLockError::Error(error)) => return Err(io("lock")(error)),
            }
        }
        let (side, found) = Side::open(dir).map_err(io("open the side file in"))?;
        let opening = Opening { dir, lock, side, now };
        let stores = stores_in(dir).map_err(io("list"))?;
        let (head, raw, reason) = match found {
            Found::Head(head) => {
                let path = store_dir(dir, head.store);
                if stores.contains(&head.store) {
                    opening.tidy(&stores, head.store);
                    let raw = Raw::read(&path, wait)?;
                    raw.keep()?;
                    let loaded = load(&path).and_then(|loaded| {
                        check(&loaded, &head).map_err(StoreFault::Damaged).map(|()| loaded)
                    });
                    match loaded {
                        Ok(loaded) => {
                            salvage::forget_kept(&path)?;
                            return Ok((opening.proceed(head, loaded)?, None));
                        }
                        Err(StoreFault::System(error)) if is_the_systems(&error) => {
                            return Err(error);
                        }
                        Err(StoreFault::System(error)) => {
                            (Some(head), Some(raw), error.to_string())
                        }
                        Err(StoreFault::Damaged(reason)) => (Some(head), Some(raw), reason),
                    }
                } else {
                    (Some(head), None, format!("{} is missing", path.display()))
                }
            }
            Found::Nothing => (None, None, "the side file is missing".to_owned()),
            Found::Unreadable => (None, None, "the side file is not readable".to_owned()),
        };
        let at_fault: Vec<u32> = match &head {
            Some(head) if stores.contains(&head.store) => vec![head.store],
            _ => stores.clone(),
        };
        let paths: Vec<PathBuf> = at_fault.iter().map(|&number| store_dir(dir, number)).collect();
        let raws = match raw {
            Some(raw) => vec![raw],
            None => paths.iter().map(|path| Raw::read(path, wait)).collect::<Result<_, _>>()?,
        };
        let salvaged = salvage::salvage(&raws, head.as_ref())?;
        drop(raws);
        if head.is_none() && salvaged.epochs.values().all(|epoch| epoch.state.issued == 0) {
            // Nothing was ever saved here: a first start, or one that was cut short.
            for path in paths {
                fs::remove_dir_all(&path).map_err(io("clear"))?;
            }
            return Ok((opening.begin(fresh_epoch, salvaged.commit)?, None));
        }
        tracing::warn!(reason, "the queue is damaged; salvaging what is readable");
        let (queue, damage) =
            opening.recover(fresh_epoch, head, salvaged, reason, &stores, &at_fault)?;
        Ok((queue, Some(damage)))
    }

    /// Copies what lives into a new store when the file has grown far beyond it; whether it did.
    ///
    /// A crash at any point leaves either the old store or the whole new one.
    pub fn compact_if_wasteful(&mut self) -> Result<bool, QueueError> {
        let (file, live) = (self.store.file_bytes(), self.store.live_bytes());
        if file <= COMPACT_ABOVE_BYTES || file <= live.saturating_mul(COMPACT_RATIO) {
            return Ok(false);
        }
        self.compact()?;
        Ok(true)
    }

    pub(super) fn compact(&mut self) -> Result<(), QueueError> {
        let number = self.store_number + 1;
        let path = store_dir(&self.dir, number);
        let copied = (|| {
            clear(&path)?;
            let mut target = Store::open(&path).map_err(|fault| as_error(fault, &path))?;
            self.store.copy_to(&mut target, self.commit)?;
            sync_dir(&self.dir).map_err(|error| QueueError::io("sync", &self.dir, error))?;
            Ok(target)
        })();
        let target = match copied {
            Ok(target) => target,
            Err(error) => {
                // The old store is untouched and stays in use.
                let _ = fs::remove_dir_all(&path);
                return Err(error);
            }
        };
        let old_number = std::mem::replace(&mut self.store_number, number);
        let old = std::mem::replace(&mut self.store, target);
        // Both slots, lest a damaged newer one send the next opening to a store that is gone.
        for _ in 0..2 {
            self.commit(Writes::new(), BTreeMap::new(), self.current)?;
        }
        let _ = caught(|| drop(old));
        // If it cannot be deleted now, the next opening does it.
        let _ = fs::remove_dir_all(store_dir(&self.dir, old_number));
        Ok(())
    }
}

fn clear(path: &Path) -> Result<(), QueueError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(QueueError::io("clear", path, error))
        }
        _ => Ok(()),
    }
}

fn as_error(fault: StoreFault, path: &Path) -> QueueError {
    match fault {
        StoreFault::System(error) => error,
        StoreFault::Damaged(what) => QueueError::Broken { path: path.to_owned(), what },
    }
}

/// What a store set aside is ordered by: the number its name begins with, counted on from those that are
/// there. A PC's clock may stand in any year, so the time in the name orders nothing.
fn place(name: &str) -> u32 {
    name.split_once('-').and_then(|(number, _)| number.parse().ok()).unwrap_or(0)
}

/// The names under which stores are set aside, in this order after all that are in the quarantine.
fn quarantine_names(dir: &Path, now: Millis, stores: &[u32]) -> Vec<String> {
    let there = fs::read_dir(dir.join(QUARANTINE)).into_iter().flatten().flatten();
    let last = there.filter_map(|entry| entry.file_name().to_str().map(place)).max().unwrap_or(0);
    let time = now.timestamp().strftime("%Y%m%dT%H%M%SZ");
    (1u32..)
        .zip(stores)
        .map(|(n, store)| format!("{:06}-{time}-{store}", last.saturating_add(n)))
        .collect()
}

/// Moves a damaged store into the quarantine, and deletes the oldest beyond those kept there.
fn move_aside(dir: &Path, store: &Path, name: &str) -> std::io::Result<()> {
    let quarantine = dir.join(QUARANTINE);
    fs::create_dir_all(&quarantine)?;
    let target = quarantine.join(name);
    if target.exists() {
        fs::remove_dir_all(&target)?;
    }
    fs::rename(store, target)?;
    let mut kept: Vec<(u32, PathBuf)> = fs::read_dir(&quarantine)?
        .flatten()
        .map(|entry| (entry.file_name().to_str().map_or(0, place), entry.path()))
        .collect();
    kept.sort();
    for (_, old) in kept.iter().rev().skip(QUARANTINE_KEPT) {
        fs::remove_dir_all(old)?;
    }
    sync_dir(dir)
}

/// The first commit number of the opening after one that ended at `last`.
fn next_session(last: u64) -> u64 {
    ((last >> SESSION_BITS) + 1) << SESSION_BITS
}

/// An opening under way: the lock is held.
struct Opening<'a> {
    dir: &'a Path,
    lock: File,
    side: Side,
    now: Millis,
}

impl Opening<'_> {
    /// Removes what earlier openings left: half-made copies, stores replaced, damaged ones not yet moved.
    fn tidy(&self, stores: &[u32], current: u32) {
        for &number in stores.iter().filter(|&&number| number != current) {
            let path = store_dir(self.dir, number);
            let mark = damage_mark(self.dir, number);
            // Failing here wastes space only; the next opening tries again.
            if mark.exists() {
                for name in quarantine_names(self.dir, self.now, &[number]) {
                    if move_aside(self.dir, &path, &name).is_ok() {
                        let _ = fs::remove_file(&mark);
                    }
                }
            } else {
                let _ = fs::remove_dir_all(path);
            }
        }
    }

    fn queue(self, store: Store, number: u32, commit: u64, current: Epoch) -> Queue {
        Queue {
            dir: self.dir.to_owned(),
            _lock: self.lock,
            side: self.side,
            store,
            store_number: number,
            commit,
            current,
            epochs: BTreeMap::new(),
            damages: Vec::new(),
            broken: false,
        }
    }

    fn sync_dirs(&self) -> Result<(), QueueError> {
        let io = |error| QueueError::io("sync", self.dir, error);
        sync_dir(self.dir).map_err(io)?;
        match self.dir.parent() {
            Some(parent) if parent.as_os_str().is_empty() => sync_dir(Path::new(".")).map_err(io),
            Some(parent) => sync_dir(parent).map_err(io),
            None => Ok(()),
        }
    }

    /// Goes on with a whole store.
    fn proceed(self, head: Head, loaded: Loaded) -> Result<Queue, QueueError> {
        let last = loaded.store.commit_number().max(head.commit);
        let first = next_session(last);
        // The store may be one commit ahead: written in full, but never acknowledged.
        let current = loaded.epochs.keys().next_back().copied().unwrap_or(head.current);
        let mut writes: Writes = loaded.garbage.into_iter().map(|key| (key, None)).collect();
        if !head.clean {
            // Whatever was begun after the last whole commit must not come back in a later salvage.
            let mut dead = loaded.dead;
            dead.push((last + 1, first - 1));
            let from = dead.len().saturating_sub(DEAD_MAX);
            let bytes = postcard::to_stdvec(&dead[from..]).expect("intervals are plain numbers");
            writes.insert(layout::DEAD_KEY.to_vec(), Some(bytes));
        }
        let mut queue = self.queue(loaded.store, head.store, first - 1, current);
        queue.epochs = loaded.epochs;
        queue.damages = loaded.damages;
        queue.commit(writes, BTreeMap::new(), current)?;
        if let Err(error) = queue.compact_if_wasteful() {
            if queue.broken {
                return Err(error);
            }
            tracing::warn!(%error, "the queue's store could not be copied to a smaller file");
        }
        Ok(queue)
    }

    /// Makes a new, empty queue.
    fn begin(self, fresh_epoch: impl FnOnce(u32) -> Epoch, seen: u64) -> Result<Queue, QueueError> {
        const FIRST_STORE: u32 = 1;
        let path = store_dir(self.dir, FIRST_STORE);
        let store = Store::open(&path).map_err(|fault| as_error(fault, &path))?;
        self.sync_dirs()?;
        let epoch = fresh_epoch(1);
        let mut queue = self.queue(store, FIRST_STORE, next_session(seen), epoch);
        queue.commit(Writes::new(), [(epoch, EpochState::default())].into(), epoch)?;
        Ok(queue)
    }

    /// Makes a new store of what was salvaged, and only when it is complete sets the damaged one aside.
    fn recover(
        self,
        fresh_epoch: impl FnOnce(u32) -> Epoch,
        head: Option<Head>,
        salvaged: Salvage,
        reason: String,
        stores: &[u32],
        at_fault: &[u32],
    ) -> Result<(Queue, Damage), QueueError> {
        let used = salvaged.epochs.keys().map(|epoch| epoch.counter).max().unwrap_or(0);
        let fresh = fresh_epoch(used.saturating_add(1));
        let new_epoch = Epoch { counter: fresh.counter.max(used.saturating_add(1)), ..fresh };
        let number = stores
            .iter()
            .copied()
            .chain(head.iter().map(|head| head.store))
            .max()
            .unwrap_or(0)
            .saturating_add(1);
        let path = store_dir(self.dir, number);
        let mut store = Store::open(&path).map_err(|fault| as_error(fault, &path))?;
        let first = next_session(salvaged.commit);
        let names = quarantine_names(self.dir, self.now, at_fault);
        let damage = Damage {
            at: self.now,
            reason,
            quarantine: names.first().cloned().unwrap_or_default(),
            new_epoch,
            epochs: salvaged.losses,
        };
        let mut damages = salvaged.damages;
        damages.push(damage.clone());

        let mut writes = Writes::new();
        let mut size = 0;
        let mut epochs = BTreeMap::new();
        for (epoch, found) in salvaged.epochs {
            let dropped = found.state.dropped;
            let count = usize::try_from(found.state.issued - dropped).unwrap_or(usize::MAX);
            let mut index = EpochIndex {
                slots: std::iter::repeat_n(Slot::default(), count).collect(),
                state: found.state,
                ..EpochIndex::default()
            };
            writes.insert(layout::epoch_key(epoch), Some(index.state.encode()));
            for (seq, stored) in found.entries {
                if let Some(slot) = index.slot_mut(seq) {
                    *slot = Slot { own: true, ..Slot::of(&stored) };
                }
                let bytes = stored.encode();
                size += bytes.len();
                writes.insert(layout::entry_key(epoch, seq), Some(bytes));
                if size > SALVAGE_STEP_BYTES {
                    store.commit(first, &std::mem::take(&mut writes))?;
                    size = 0;
                }
            }
            index.count_unpacked();
            epochs.insert(epoch, index);
        }
        for (name, bytes) in salvaged.metas {
            writes.insert(layout::meta_key(&name), Some(bytes));
        }
        let bytes = postcard::to_stdvec(&damages).expect("damages are plain values");
        writes.insert(layout::DAMAGE_KEY.to_vec(), Some(bytes));
        store.commit(first, &writes)?;
        for &old in at_fault {
            let mark = damage_mark(self.dir, old);
            File::create(&mark).map_err(|error| QueueError::io("create", &mark, error))?;
        }
        self.sync_dirs()?;

        let dir = self.dir;
        let mut queue = self.queue(store, number, first, new_epoch);
        queue.epochs = epochs;
        queue.damages = damages;
        queue.commit(Writes::new(), [(new_epoch, EpochState::default())].into(), new_epoch)?;
        // Both slots must name the new store before the old one goes.
        queue.commit(Writes::new(), BTreeMap::new(), new_epoch)?;
        for (&old, name) in at_fault.iter().zip(&names) {
            let path = store_dir(dir, old);
            match move_aside(dir, &path, name) {
                Ok(()) => {
                    let _ = fs::remove_file(damage_mark(dir, old));
                }
                // The mark stays, and the next opening tries again.
                Err(error) => tracing::warn!(%error, "the damaged store cannot be moved away yet"),
            }
        }
        Ok((queue, damage))
    }
}
