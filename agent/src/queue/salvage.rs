//! Finding in the raw bytes of damaged stores everything that still proves itself.
//!
//! Each part repeats its key and carries a CRC, so nothing of sled's own structure is needed, and nothing
//! that is found can be a wrong value. Of several writes of one thing the newest is taken.
//!
//! The bytes are taken before sled sees the file: its recovery cuts off and writes over whatever stands
//! behind a damaged place, whole and readable as it may be. They are read into memory at every start. Unless
//! the file is, byte for byte, what the last orderly end left ([`Seal`]), they are also put beside it, on disk,
//! before sled is let in: a copy of the store, once after every end by power cut or kill and never else. It
//! goes as soon as the store has turned out whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use banyan_shared::ids::{Epoch, Seq};

use super::layout::{self, EpochState, Key, Stored};
use super::ranges::SeqSet;
use super::record::Part;
use super::side::Head;
use super::store::{data_file, sync_dir};
use super::{Damage, EpochLoss, QueueError, record};
use crate::files;

/// Read at once from a failing disk; a piece that cannot be read is passed over.
const READ_BYTES: usize = 4096;
/// What the system says of a place on a disk that is gone for good: EIO, EBADMSG, EUCLEAN; ERROR_CRC,
/// ERROR_SECTOR_NOT_FOUND, ERROR_READ_FAULT, ERROR_IO_DEVICE, ERROR_FILE_CORRUPT, ERROR_DISK_CORRUPT.
const DEFECTS: &[i32] = if cfg!(windows) { &[23, 27, 30, 1117, 1392, 1393] } else { &[5, 74, 117] };

/// The bytes of a store that may be damaged as they were before sled opened it.
pub(super) const KEPT: &str = "before";
pub(super) const KEPT_UNFINISHED: &str = "before.new";
/// What sled's file was when it was last closed in order.
const SEAL: &str = "closed";
/// Length and CRC of sled's file, and the CRC of these.
const SEAL_BYTES: usize = 8 + 4 + 4;

/// How long a copy that another program holds is waited for before it is removed.
const FORGET_WAIT: Duration = Duration::from_secs(5);

/// An interval of commit numbers, inclusive, that were begun and given up.
pub(super) type Dead = (u64, u64);

/// What was found of one epoch.
#[derive(Default)]
pub(super) struct SalvagedEpoch {
    pub(super) state: EpochState,
    pub(super) entries: BTreeMap<Seq, Stored>,
}

/// Everything that was found.
pub(super) struct Salvage {
    pub(super) epochs: BTreeMap<Epoch, SalvagedEpoch>,
    pub(super) metas: BTreeMap<String, Vec<u8>>,
    pub(super) damages: Vec<Damage>,
    /// The highest commit number seen anywhere.
    pub(super) commit: u64,
    /// Losses of the current epoch, and of each other epoch that has some.
    pub(super) losses: Vec<EpochLoss>,
}

fn is_defect(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| DEFECTS.contains(&code))
}

/// Reads as much of a file as the disk gives, and nothing of one that is not there. What cannot be read for
/// any reason but a defect of the disk may be whole: it is tried for as long as `wait`, and then the reason
/// is an error.
fn read_what_can_be(path: &Path, wait: Duration) -> io::Result<Vec<u8>> {
    let may_be_whole =
        |error: &io::Error| error.kind() != io::ErrorKind::NotFound && !is_defect(error);
    match files::patiently(wait, may_be_whole, || fs::read(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) if is_defect(&error) => Ok(read_pieces(path)),
        result => result,
    }
}

/// Reads what a failing disk still gives of a file.
fn read_pieces(path: &Path) -> Vec<u8> {
    let Ok(mut file) = File::open(path) else { return Vec::new() };
    let len = file.metadata().map(|data| data.len()).unwrap_or(0) as usize;
    let mut bytes = vec![0; len];
    for at in (0..len).step_by(READ_BYTES) {
        let end = (at + READ_BYTES).min(len);
        if file.seek(SeekFrom::Start(at as u64)).is_ok() {
            // What fails stays zero and is recognised as nothing.
            let _ = file.read_exact(&mut bytes[at..end]);
        }
    }
    bytes
}

/// What a store's files held before sled opened it.
pub(super) struct Raw {
    store: PathBuf,
    data: Vec<u8>,
    wait: Duration,
}

impl Raw {
    /// Reads what can be read of a store, trying for as long as `wait` where the system refuses.
    pub(super) fn read(store: &Path, wait: Duration) -> Result<Raw, QueueError> {
        let path = data_file(store);
        let data = read_what_can_be(&path, wait);
        let data = data.map_err(|error| QueueError::io("read", &path, error))?;
        Ok(Raw { store: store.to_owned(), data, wait })
    }

    /// Puts the bytes beside a store that may be damaged, so that neither sled nor a crash costs any of them.
    /// The first ones stay: later ones are what sled left of them.
    pub(super) fn keep(&self) -> Result<(), QueueError> {
        let kept = self.store.join(KEPT);
        let length = self.data.len() as u64;
        let same = Seal { length, crc: crc32fast::hash(&self.data) };
        if self.data.is_empty() || kept.exists() || Seal::read(&self.store) == Some(same) {
            return Ok(());
        }
        let unfinished = self.store.join(KEPT_UNFINISHED);
        let put = || {
            let mut file = File::create(&unfinished)?;
            file.write_all(&self.data)?;
            file.sync_all()?;
            drop(file);
            files::put(&unfinished, &kept)?;
            sync_dir(&self.store)
        };
        put().map_err(|error| QueueError::io("keep a copy of", &self.store, error))
    }

    fn parts(&self) -> Result<Vec<Part>, QueueError> {
        let mut parts = record::scan(&self.data);
        let mut files = vec![self.store.join(KEPT)];
        if let Ok(blobs) = fs::read_dir(self.store.join("blobs")) {
            files.extend(blobs.flatten().map(|entry| entry.path()).filter(|path| !path.is_dir()));
        }
        for file in files {
            let bytes = read_what_can_be(&file, self.wait);
            let bytes = bytes.map_err(|error| QueueError::io("read", &file, error))?;
            parts.extend(record::scan(&bytes));
        }
        Ok(parts)
    }
}

/// Removes what was kept of a store that turned out whole, for good: were it there at the next opening, it
/// would be taken for what sled has spoilt since.
pub(super) fn forget_kept(store: &Path) -> Result<(), QueueError> {
    let mut removed = false;
    for name in [KEPT, KEPT_UNFINISHED] {
        let path = store.join(name);
        match files::patiently(FORGET_WAIT, files::is_held, || fs::remove_file(&path)) {
            Ok(()) => removed = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(QueueError::io("remove", &path, error)),
        }
    }
    let synced = if removed { sync_dir(store) } else { Ok(()) };
    synced.map_err(|error| QueueError::io("sync", store, error))
}

/// What sled's file was when it was closed in order. Only a hint: it is not synced, and a file it does not
/// fit is no damage yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seal {
    length: u64,
    crc: u32,
}

impl Seal {
    fn read(store: &Path) -> Option<Seal> {
        let bytes = files::read(&store.join(SEAL), SEAL_BYTES as u64).ok()??;
        let (body, crc) = bytes.split_at_checked(SEAL_BYTES - 4)?;
        if crc32fast::hash(body).to_le_bytes() != crc {
            return None;
        }
        let (length, crc) = body.split_at(8);
        let length = u64::from_le_bytes(length.try_into().ok()?);
        Some(Seal { length, crc: u32::from_le_bytes(crc.try_into().ok()?) })
    }
}

/// Seals a store that sled has let go of.
pub(super) fn seal(store: &Path) -> io::Result<()> {
    let mut file = File::open(data_file(store))?;
    let (mut crc, mut length) = (crc32fast::Hasher::new(), 0);
    let mut piece = vec![0; 16 * READ_BYTES];
    loop {
        let n = file.read(&mut piece)?;
        if n == 0 {
            break;
        }
        crc.update(&piece[..n]);
        length += n as u64;
    }
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend_from_slice(&crc.finalize().to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    fs::write(store.join(SEAL), bytes)
}

/// The newest of several writes that can be read.
fn newest<T>(
    writes: &BTreeMap<u64, Vec<u8>>,
    decode: impl Fn(&[u8]) -> Option<T>,
) -> Option<(u64, T)> {
    writes.iter().rev().find_map(|(&commit, bytes)| Some((commit, decode(bytes)?)))
}

/// Searches the stores and measures what is found against the side file.
pub(super) fn salvage(stores: &[Raw], head: Option<&Head>) -> Result<Salvage, QueueError> {
    let mut parts = Vec::new();
    for store in stores {
        parts.extend(store.parts()?);
    }
    let mut commit = parts.iter().map(|part| part.commit).max().unwrap_or(0);
    commit = commit.max(head.map_or(0, |head| head.commit));
    let mut blobs = record::assemble(parts);
    let dead: BTreeSet<Dead> = blobs
        .get(layout::DEAD_KEY)
        .into_iter()
        .flat_map(BTreeMap::values)
        .filter_map(|bytes| postcard::from_bytes::<Vec<Dead>>(bytes).ok())
        .flatten()
        .collect();
    for writes in blobs.values_mut() {
        writes.retain(|number, _| !dead.iter().any(|(from, to)| (from..=to).contains(&number)));
    }

    let mut metas = BTreeMap::new();
    let mut damages = Vec::new();
    let mut states: BTreeMap<Epoch, EpochState> = BTreeMap::new();
    // Of each entry the newest write, with its commit; a record of its own goes before a block's.
    let mut found: BTreeMap<Epoch, BTreeMap<Seq, (u64, bool, Stored)>> = BTreeMap::new();
    let mut take = |epoch: Epoch, seq: Seq, commit: u64, own: bool, stored: Stored| {
        let here = found.entry(epoch).or_default();
        if here.get(&seq).is_none_or(|(at, is_own, _)| (*at, *is_own) < (commit, own)) {
            here.insert(seq, (commit, own, stored));
        }
    };
    for (base, writes) in &blobs {
        match layout::parse_key(base) {
            Some(Key::Epoch(epoch)) => {
                if let Some((_, state)) = newest(writes, EpochState::decode) {
                    states.insert(epoch, state);
                }
            }
            Some(Key::Entry(epoch, seq)) => {
                if let Some((commit, stored)) = newest(writes, Stored::decode) {
                    take(epoch, seq, commit, true, stored);
                }
            }
            Some(Key::Block(epoch, _)) => {
                for (&commit, bytes) in writes {
                    for (seq, stored) in layout::unpack(bytes).unwrap_or_default() {
                        take(epoch, seq, commit, false, stored);
                    }
                }
            }
            Some(Key::Meta(name)) => {
                if let Some((_, bytes)) = newest(writes, |bytes| Some(bytes.to_vec())) {
                    metas.insert(name, bytes);
                }
            }
            Some(Key::Damage) => {
                let read = newest(writes, |bytes| postcard::from_bytes(bytes).ok());
                damages = read.map(|(_, list)| list).unwrap_or_default();
            }
            Some(Key::Dead) | None => {}
        }
    }

    let mut known: BTreeSet<Epoch> = states.keys().chain(found.keys()).copied().collect();
    known.extend(head.iter().flat_map(|head| head.epochs.iter().map(|side| side.epoch)));
    let current = head.map(|head| head.current).or(known.last().copied());
    let mut epochs = BTreeMap::new();
    let mut losses = Vec::new();
    for epoch in known {
        let side = head.and_then(|head| head.epochs.iter().find(|side| side.epoch == epoch));
        let mut entries = found.remove(&epoch).unwrap_or_default();
        let mut state = states.remove(&epoch).unwrap_or_default();
        state.issued = state.issued.max(side.map_or(0, |side| side.issued));
        if head.is_none() {
            let last = entries.last_key_value().map_or(0, |(&seq, _)| seq);
            state.issued = state.issued.max(last);
        }
        // What the side file knows as dropped is not lost, though its sum may be.
        let gone = state.dropped.max(side.map_or(0, |side| side.dropped));
        entries.retain(|&seq, _| seq > gone && seq <= state.issued && !state.absent.contains(seq));
        let mut lost = SeqSet::default();
        lost.insert((gone + 1, state.issued));
        for &range in state.absent.ranges() {
            lost.remove(range);
        }
        for &seq in entries.keys() {
            lost.remove((seq, seq));
        }
        state.absent.insert((state.dropped + 1, gone));
        for &range in lost.ranges() {
            state.absent.insert(range);
        }
        for &range in state.absent.ranges() {
            state.confirmed.remove(range);
        }
        state.confirmed.remove((1, state.dropped));
        if Some(epoch) == current || lost.len() > 0 {
            losses.push(EpochLoss {
                epoch,
                issued: state.issued,
                lost: lost.ranges().to_vec(),
                salvaged: entries.len() as u64,
            });
        }
        let entries = entries.into_iter().map(|(seq, (_, _, stored))| (seq, stored)).collect();
        epochs.insert(epoch, SalvagedEpoch { state, entries });
    }
    Ok(Salvage { epochs, metas, damages, commit, losses })
}
