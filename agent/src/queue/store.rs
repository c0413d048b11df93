//! One store directory: sled behind the discipline that makes it durable and honest.
//!
//! A commit returns only after its records are on disk (sled's own flush does not sync). Every store holds a
//! head record with the commit's number and a digest over all other records, so that a store which lost
//! anything, anywhere, is told from a whole one. Panics of sled are caught and become errors.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{QueueError, record, salvage};

/// sled's segments: small, so that a nearly empty queue is a small file.
const SEGMENT_BYTES: usize = 64 * 1024;
/// sled's page cache.
const CACHE_BYTES: u64 = 1024 * 1024;
/// How long to wait for a handle of this very process to let go of the file.
const RELEASE_WAIT: Duration = Duration::from_secs(10);
/// How often to look whether it has.
const RELEASE_POLL: Duration = Duration::from_millis(5);
/// Base key of the head record.
pub(super) const HEAD_KEY: &[u8] = b"H";

/// Changes to be made at one stroke: base key → new bytes, or `None` to remove.
pub(super) type Writes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// What the head record holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct StoreHead {
    commit: u64,
    records: u64,
    digest: u64,
}

/// Why a store could not be used.
#[derive(Debug)]
pub(super) enum StoreFault {
    /// The disk or the system refused; the store itself may be whole.
    System(QueueError),
    /// The store is not what was written.
    Damaged(String),
}

/// An open store.
pub(super) struct Store {
    db: sled::Db,
    /// Our own handle to sled's file, for the sync sled leaves out.
    file: File,
    path: PathBuf,
    head: StoreHead,
    live_bytes: u64,
    /// Declared after sled, and so dropped when that has let go of the file.
    end: End,
}

/// What is done once sled has let go of its file.
struct End {
    /// The store to be sealed.
    seal: Option<PathBuf>,
}

impl Drop for End {
    fn drop(&mut self) {
        // Without the seal the next opening is careful, and that is all.
        if let Some(path) = &self.seal
            && let Err(error) = salvage::seal(path)
        {
            tracing::debug!(%error, "the closed store was not sealed");
        }
    }
}

/// A blob being joined: base key, parts in all, parts read, commit, bytes.
type Joined = (Vec<u8>, u16, u16, u64, Vec<u8>);

/// Runs `work`, turning a panic into its message.
pub(super) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "a panic without a message".to_owned())
    })
}

/// Makes the entries of a directory durable; Windows does that by itself.
pub(super) fn sync_dir(path: &Path) -> std::io::Result<()> {
    if cfg!(unix) {
        File::open(path)?.sync_all()?;
    }
    Ok(())
}

/// sled's main file inside a store directory.
pub(super) fn data_file(path: &Path) -> PathBuf {
    path.join("db")
}

/// Removes snapshots sled was killed in the middle of, or had no room for: it would take them for damage.
fn remove_unfinished_snapshots(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("snap.") && name.ends_with(".generating"))
        {
            fs::remove_file(path.join(name))?;
        }
    }
    Ok(())
}

fn config(path: &Path) -> sled::Config {
    sled::Config::new()
        .path(path)
        .segment_size(SEGMENT_BYTES)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None)
        .mode(sled::Mode::LowSpace)
}

fn sled_fault(doing: &'static str, path: &Path, error: sled::Error) -> StoreFault {
    match error {
        sled::Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            StoreFault::Damaged(error.to_string())
        }
        sled::Error::Io(error) => StoreFault::System(QueueError::io(doing, path, error)),
        other => StoreFault::Damaged(other.to_string()),
    }
}

impl Store {
    /// Opens the store in `path`, making it when it is not there.
    pub(super) fn open(path: &Path) -> Result<Store, StoreFault> {
        let system = |error| StoreFault::System(QueueError::io("open", path, error));
        fs::create_dir_all(path).map_err(system)?;
        let data = data_file(path);
        if data.exists() {
            // What a killed process left in memory must be on disk before sled writes a synced snapshot of it.
            File::options()
                .write(true)
                .open(&data)
                .and_then(|file| file.sync_all())
                .map_err(system)?;
        }
        remove_unfinished_snapshots(path).map_err(system)?;
        let started = Instant::now();
        let db = loop {
            match caught(|| config(path).open()) {
                Err(panic) => return Err(StoreFault::Damaged(panic)),
                Ok(Ok(db)) => break db,
                // Our lock file keeps other processes out: this is a closing handle of our own.
                Ok(Err(sled::Error::Io(error)))
                    if error.to_string().contains("could not acquire lock")
                        && started.elapsed() < RELEASE_WAIT =>
                {
                    std::thread::sleep(RELEASE_POLL);
                }
                Ok(Err(error)) => return Err(sled_fault("open", path, error)),
            }
        };
        let file = File::options().read(true).write(true).open(&data).map_err(system)?;
        file.sync_all().map_err(system)?;
        sync_dir(path).map_err(system)?;
        let head = StoreHead::default();
        let end = End { seal: None };
        Ok(Store { db, file, path: path.to_owned(), head, live_bytes: 0, end })
    }

    /// Reads and checks every record, handing each whole blob to `each`.
    pub(super) fn load(
        &mut self,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), String>,
    ) -> Result<(), StoreFault> {
        let db = &self.db;
        let read = caught(|| -> Result<(StoreHead, u64, Option<StoreHead>), StoreFault> {
            let mut sum = StoreHead::default();
            let mut live = 0u64;
            let mut said = None;
            let mut open: Option<Joined> = None;
            for item in db.iter() {
                let (key, value) = item.map_err(|error| sled_fault("read", &self.path, error))?;
                let damaged = |what: &str| StoreFault::Damaged(format!("{what} at key {key:02x?}"));
                let part = record::open(&key, &value).ok_or_else(|| damaged("bad CRC"))?;
                live += (key.len() + value.len()) as u64;
                if part.base != HEAD_KEY {
                    sum.records += 1;
                    sum.digest = sum.digest.wrapping_add(record::digest(&value));
                }
                let joined = match open.take() {
                    None if part.number == 0 => {
                        let (count, bytes) =
                            record::first_part(&part.data).ok_or_else(|| damaged("bad part"))?;
                        (part.base, count, 1, part.commit, bytes.to_vec())
                    }
                    Some((base, count, read, commit, mut bytes))
                        if base == part.base && read == part.number && commit == part.commit =>
                    {
                        bytes.extend_from_slice(&part.data);
                        (base, count, read + 1, commit, bytes)
                    }
                    _ => return Err(damaged("a part is missing")),
                };
                if joined.1 > joined.2 {
                    open = Some(joined);
                    continue;
                }
                let (base, _, _, _, bytes) = joined;
                if base == HEAD_KEY {
                    said = postcard::from_bytes(&bytes).ok();
                } else {
                    each(&base, &bytes).map_err(StoreFault::Damaged)?;
                }
            }
            if open.is_some() {
                return Err(StoreFault::Damaged("the last part is missing".to_owned()));
            }
            Ok((sum, live, said))
        });
        let (sum, live, said) = read.map_err(StoreFault::Damaged)??;
        let Some(said) = said else {
            return Err(StoreFault::Damaged("the head record is missing".to_owned()));
        };
        if (said.records, said.digest) != (sum.records, sum.digest) {
            return Err(StoreFault::Damaged(format!(
                "{} records should be there, {} are, or their contents differ",
                said.records, sum.records
            )));
        }
        self.head = said;
        self.live_bytes = live;
        Ok(())
    }

    /// The store ends in order: once sled has let go of it, it is sealed.
    pub(super) fn ends_in_order(&mut self) {
        self.end.seal = Some(self.path.clone());
    }

    /// The number of the last commit.
    pub(super) fn commit_number(&self) -> u64 {
        self.head.commit
    }

    /// Bytes of keys and values held.
    pub(super) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Bytes of the store's files.
    pub(super) fn file_bytes(&self) -> u64 {
        self.file.metadata().map(|data| data.len()).unwrap_or(0)
    }

    /// The store's directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn damaged(&self, what: String) -> QueueError {
        QueueError::Broken { path: self.path.clone(), what }
    }

    fn fault(&self, doing: &'static str, error: sled::Error) -> QueueError {
        match sled_fault(doing, &self.path, error) {
            StoreFault::System(error) => error,
            StoreFault::Damaged(what) => self.damaged(what),
        }
    }

    fn value(&self, key: &[u8]) -> Result<Option<sled::IVec>, QueueError> {
        caught(|| self.db.get(key))
            .map_err(|panic| self.damaged(panic))?
            .map_err(|error| self.fault("read", error))
    }

    /// The values of all parts of a blob; empty when it is not there.
    fn parts(&self, base: &[u8]) -> Result<Vec<(Vec<u8>, sled::IVec)>, QueueError> {
        let mut parts = Vec::new();
        let mut count = 1;
        while (parts.len() as u16) < count {
            let key = record::part_key(base, parts.len() as u16);
            let Some(value) = self.value(&key)? else {
                if parts.is_empty() {
                    break;
                }
                return Err(self.damaged(format!("a part is missing at key {key:02x?}")));
            };
            if parts.is_empty() {
                let part = record::open(&key, &value)
                    .ok_or_else(|| self.damaged(format!("bad CRC at key {key:02x?}")))?;
                (count, _) = record::first_part(&part.data)
                    .ok_or_else(|| self.damaged(format!("bad part at key {key:02x?}")))?;
            }
            parts.push((key, value));
        }
        Ok(parts)
    }

    /// The bytes of a blob, checked.
    pub(super) fn get(&self, base: &[u8]) -> Result<Option<Vec<u8>>, QueueError> {
        let parts = self.parts(base)?;
        if parts.is_empty() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let mut commit = None;
        for (key, value) in parts {
            let part = record::open(&key, &value)
                .filter(|part| *commit.get_or_insert(part.commit) == part.commit)
                .ok_or_else(|| self.damaged(format!("bad CRC at key {key:02x?}")))?;
            match part.number {
                0 => bytes.extend_from_slice(
                    record::first_part(&part.data).map_or(&[], |(_, data)| data),
                ),
                _ => bytes.extend_from_slice(&part.data),
            }
        }
        Ok(Some(bytes))
    }

    /// The last base key at or before `base` that begins with `prefix`.
    pub(super) fn last_base(
        &self,
        prefix: &[u8],
        base: &[u8],
    ) -> Result<Option<Vec<u8>>, QueueError> {
        let from = record::part_key(prefix, 0);
        let to = record::part_key(base, u16::MAX);
        let last = caught(|| self.db.range(from[..prefix.len()].to_vec()..=to).next_back())
            .map_err(|panic| self.damaged(panic))?
            .transpose()
            .map_err(|error| self.fault("read", error))?;
        Ok(last.map(|(key, _)| key[..key.len() - 2].to_vec()))
    }

    /// Makes all changes at one stroke, under the given commit number, and returns when they are on disk.
    ///
    /// After an error nothing is known of what reached the disk: the store must be opened again.
    pub(super) fn commit(&mut self, number: u64, writes: &Writes) -> Result<(), QueueError> {
        let mut head = StoreHead { commit: number, ..self.head };
        let mut live = self.live_bytes;
        let mut batch = sled::Batch::default();
        for (base, bytes) in writes {
            let new =
                bytes.as_ref().map(|bytes| record::seal(base, number, bytes)).unwrap_or_default();
            for (index, (key, old)) in self.parts(base)?.into_iter().enumerate() {
                head.records -= 1;
                head.digest = head.digest.wrapping_sub(record::digest(&old));
                live = live.saturating_sub((key.len() + old.len()) as u64);
                if index >= new.len() {
                    batch.remove(key);
                }
            }
            for (key, value) in new {
                head.records += 1;
                head.digest = head.digest.wrapping_add(record::digest(&value));
                live += (key.len() + value.len()) as u64;
                batch.insert(key, value);
            }
        }
        let bytes = postcard::to_stdvec(&head).expect("a head is plain numbers");
        for (key, value) in record::seal(HEAD_KEY, number, &bytes) {
            batch.insert(key, value);
        }
        caught(|| {
            self.db.apply_batch(batch)?;
            self.db.flush()
        })
        .map_err(|panic| self.damaged(panic))?
        .map_err(|error| self.fault("write", error))?;
        self.file.sync_all().map_err(|error| QueueError::io("sync", &self.path, error))?;
        self.head = head;
        self.live_bytes = live;
        Ok(())
    }

    /// Hands every blob's base key and bytes to `each`, for copying.
    pub(super) fn copy_to(&self, target: &mut Store, number: u64) -> Result<(), QueueError> {
        const BATCH_BYTES: usize = 1024 * 1024;
        let mut writes = Writes::new();
        let mut size = 0;
        let mut bases: Vec<Vec<u8>> = Vec::new();
        for item in self.db.iter().keys() {
            let key = item.map_err(|error| self.fault("read", error))?;
            let (base, part) = key.split_at(key.len() - 2);
            if part == [0, 0] && base != HEAD_KEY {
                bases.push(base.to_vec());
            }
        }
        for base in bases {
            let Some(bytes) = self.get(&base)? else { continue };
            size += bytes.len();
            writes.insert(base, Some(bytes));
            if size > BATCH_BYTES {
                target.commit(number, &std::mem::take(&mut writes))?;
                size = 0;
            }
        }
        target.commit(number, &writes)
    }
}
