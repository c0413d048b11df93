//! `derived.db`: what was folded from the ledger, kept so that the next start need not fold it again.
//!
//! Promises:
//! - It holds nothing the ledger does not: it may be deleted at any time, and is then made anew.
//! - It is taken only whole and only for the very ledger it was made from: the store's id, its incarnation and
//!   the chain's hash at one position must agree, the program and the format must be this one, and every part
//!   must have the sum that its list, itself summed, names. Anything else is said in the log and the ledger is
//!   folded from its first row.
//! - Whoever dies while writing it leaves the old content or the new.
//! - A month put aside is always had again: where its part does not read, from the ledger.
//!
//! Parts: `rest` (everything of the state but agents and counts, with the cube's numbers), `agents/N` (agents
//! with their inboxes, by the first byte of their id), `month/FORM/MONTH` (one form's blocks of one month).
//! [`snapshot`] divides a state into parts and puts it together; `file` is the SQLite file; `keep` decides
//! when it is written and which months stay in memory.

mod file;
mod keep;
mod snapshot;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use banyan_shared::ids::Position;
use banyan_shared::period::{Period, PeriodType};
use serde::{Deserialize, Serialize};

use crate::cube::{Cube, Month, Older};
use crate::fold::{Limits, fold_aside};
use crate::ledger::{Hash, LedgerError, LedgerReader, StoreIdentity};
use crate::state::{State, StateError};
use file::{Change, File};

pub(crate) use keep::{Keeper, checkpoints};

/// Raised whenever the parts' bytes, or what folding a row means, change: a file of another format is made
/// anew. `tests::the_format_has_a_number` tells when the bytes have changed.
const FORMAT: u32 = 5;
/// Months in memory: this one and a year to compare with.
const MONTHS_HERE: i32 = 14;
/// Older months kept in memory after they were read, in bytes.
const OLDER_BYTES_MAX: usize = 96 << 20;
/// What the names of files begin with that somebody folds into who needs them once.
const SCRATCH: &str = "again-";
/// How long to wait before a ledger that does not read is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DerivedError {
    /// There is none.
    #[error("there is none")]
    Absent,
    /// A reader needs it to stay as it is.
    #[error("it has to stay as it is while the ledger is verified")]
    Held,
    /// Of another program, format or ledger.
    #[error("it is of {0}")]
    Other(&'static str),
    /// A part is not what was written.
    #[error("{0} is damaged")]
    Damaged(String),
    /// The file itself.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The disk.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// What a part must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    crc: u32,
    bytes: u64,
}

impl Part {
    fn of(bytes: &[u8]) -> Part {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Part { crc: crc32fast::hash(bytes), bytes: length }
    }
}

/// What the file says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    program: String,
    store_id: [u8; 16],
    incarnation: u32,
    through: Position,
    chain: Hash,
    parts: BTreeMap<String, Part>,
}

impl Manifest {
    /// Whether it is of this program and of the ledger behind `reader`.
    fn check(&self, reader: &LedgerReader) -> Result<(), DerivedError> {
        if self.format != FORMAT || self.program != env!("CARGO_PKG_VERSION") {
            return Err(DerivedError::Other("another version of the program"));
        }
        let identity = reader.identity();
        if self.store_id != identity.store_id {
            return Err(DerivedError::Other("another ledger"));
        }
        if self.incarnation != identity.incarnation {
            return Err(DerivedError::Other("the ledger before it was restored"));
        }
        if reader.hash_at(self.through)? != Some(self.chain) {
            return Err(DerivedError::Other("a ledger that went on differently"));
        }
        Ok(())
    }
}

fn month_name(form: usize, month: Period) -> String {
    format!("month/{form}/{month}")
}

/// What a checkpoint did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// Parts written; the others had not changed.
    pub(crate) parts: usize,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Bytes of all months.
    pub(crate) months: u64,
}

/// Months read again, the longest unused dropped first.
#[derive(Debug, Default)]
struct Recent {
    months: HashMap<(usize, Period), (Arc<Month>, Part, u64)>,
    bytes: usize,
    clock: u64,
}

impl Recent {
    fn get(&mut self, key: (usize, Period), part: Part) -> Option<Arc<Month>> {
        self.clock += 1;
        let (month, of, used) = self.months.get_mut(&key)?;
        *used = self.clock;
        (*of == part).then(|| month.clone())
    }

    fn put(&mut self, key: (usize, Period), part: Part, month: Arc<Month>) {
        self.bytes += month.heap_bytes();
        self.clock += 1;
        if let Some((old, _, _)) = self.months.insert(key, (month, part, self.clock)) {
            self.bytes -= old.heap_bytes();
        }
        while self.bytes > OLDER_BYTES_MAX && self.months.len() > 1 {
            let Some(oldest) =
                self.months.iter().min_by_key(|(_, (_, _, used))| *used).map(|(key, _)| *key)
            else {
                return;
            };
            if let Some((month, _, _)) = self.months.remove(&oldest) {
                self.bytes -= month.heap_bytes();
            }
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    /// The file as last written or read; none while there is nothing to be trusted.
    open: Option<(File, Manifest)>,
    /// Something in it did not read: the next checkpoint makes it anew.
    suspect: bool,
    /// The position it stands at.
    through: Position,
    /// What the numbers in its months stand for.
    numbers: Cube,
    recent: Recent,
    /// Months whose parts did not read, from the ledger; until the file is made anew.
    saved: HashMap<(usize, Period), Arc<Month>>,
}

/// The file beside the ledger, and the months that are only in it.
#[derive(Debug)]
pub(crate) struct Derived {
    path: PathBuf,
    ledger: PathBuf,
    inner: Mutex<Inner>,
    /// By form and month: the generation that is in the file. Held by whoever writes the file, or needs it to
    /// stay as it is.
    written: Mutex<HashMap<(usize, Period), u64>>,
    /// See [`Older::rewritten`].
    rewritten: AtomicU64,
    /// Removed when nobody uses it any more.
    scratch: bool,
}

impl Drop for Derived {
    fn drop(&mut self) {
        if self.scratch {
            // Closed before it is removed: not every system removes what is open.
            *lock(&self.inner) = Inner::default();
            if let Err(error) = file::remove_all(&self.path) {
                tracing::warn!("{} is left behind: {error}", self.path.display());
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind it is checked against its sums whenever it is used.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first month that stays in memory when the newest row is of that day.
pub(crate) fn first_here(state: &State) -> Period {
    let day = state.catalogue.day_at(state.newest.unwrap_or_default());
    Period::containing(PeriodType::Month, day).plus(1 - MONTHS_HERE)
}

/// The generations of a cube's months.
fn generations(cube: &Cube) -> HashMap<(usize, Period), u64> {
    let of_form = |(number, form): (usize, &crate::cube::FormStore)| {
        let months = form.months().into_iter();
        months.map(|month| ((number, month), form.generation(month))).collect::<Vec<_>>()
    };
    cube.forms().iter().enumerate().flat_map(of_form).collect()
}

fn read_part(file: &File, manifest: &Manifest, name: &str) -> Result<Vec<u8>, DerivedError> {
    let damaged = || DerivedError::Damaged(name.to_owned());
    let part = manifest.parts.get(name).ok_or_else(damaged)?;
    let bytes = file.part(name)?.ok_or_else(damaged)?;
    if Part::of(&bytes) == *part { Ok(bytes) } else { Err(damaged()) }
}

fn read_month(
    file: &File,
    manifest: &Manifest,
    form: usize,
    month: Period,
) -> Result<Month, DerivedError> {
    let name = month_name(form, month);
    let bytes = read_part(file, manifest, &name)?;
    Month::decode(&bytes).map_err(|_| DerivedError::Damaged(name))
}

/// The parts of a file being written.
struct Parts {
    target: Change,
    known: BTreeMap<String, Part>,
    parts: BTreeMap<String, Part>,
    done: Written,
}

impl Parts {
    /// Notes a part that has not changed.
    fn keep(&mut self, name: String, part: Part) -> Part {
        self.parts.insert(name, part);
        part
    }

    /// Writes a part, unless it is there already.
    fn put(&mut self, name: String, bytes: &[u8]) -> Result<Part, DerivedError> {
        let part = Part::of(bytes);
        if self.known.get(&name) != Some(&part) {
            self.target.put(&name, bytes)?;
            self.done.parts += 1;
            self.done.bytes += part.bytes;
        }
        Ok(self.keep(name, part))
    }
}

/// Keeps the file as it is until it is dropped.
pub(crate) struct Stay<'a> {
    written: MutexGuard<'a, HashMap<(usize, Period), u64>>,
}

impl Stay<'_> {
    /// The months before `first` that are in the file as `cube` has them in memory.
    pub(crate) fn to_put_aside(&self, cube: &Cube, first: Period) -> Vec<(usize, Period)> {
        let mut months = Vec::new();
        for (number, form) in cube.forms().iter().enumerate() {
            for month in form.months().into_iter().take_while(|month| *month < first) {
                let same = self.written.get(&(number, month)) == Some(&form.generation(month));
                if same && cube.has_here(number, month) {
                    months.push((number, month));
                }
            }
        }
        months
    }
}

impl Derived {
    /// The file of the data directory `dir`, whose ledger stands in `ledger`, and the state it holds, if it
    /// can be trusted; why it cannot is said in the log.
    pub(crate) fn open(
        dir: &Path,
        reader: &LedgerReader,
        ledger: &Path,
    ) -> (Arc<Derived>, Option<State>) {
        let path = dir.join("derived").join("derived.db");
        let derived = Arc::new(Derived::none(path, ledger, false));
        derived.tidy();
        let begun = Instant::now();
        match derived.load(reader) {
            Ok(state) => {
                let took = begun.elapsed();
                tracing::info!(through = state.position, ?took, "derived.db read");
                (derived, Some(state))
            }
            Err(DerivedError::Absent) => (derived, None),
            Err(error) => {
                tracing::warn!("derived.db is made anew from the ledger: {error}");
                *lock(&derived.inner) = Inner::default();
                (derived, None)
            }
        }
    }

    fn none(path: PathBuf, ledger: &Path, scratch: bool) -> Derived {
        Derived {
            path,
            ledger: ledger.to_owned(),
            inner: Mutex::default(),
            written: Mutex::default(),
            rewritten: AtomicU64::new(0),
            scratch,
        }
    }

    /// A file of its own for whoever folds the ledger of the data directory `dir` once more: gone with its last
    /// user.
    pub(crate) fn scratch(dir: &Path) -> Arc<Derived> {
        let path = dir.join("derived").join("derived.db");
        Derived::beside(&path, &crate::service::ledger_dir(dir))
    }

    fn beside(path: &Path, ledger: &Path) -> Arc<Derived> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{SCRATCH}{}-{number}.db", std::process::id());
        Arc::new(Derived::none(path.with_file_name(name), ledger, true))
    }

    /// Removes what others left who were killed while they folded or wrote. Nobody else may use the directory.
    fn tidy(&self) {
        let Some(entries) = self.path.parent().and_then(|dir| std::fs::read_dir(dir).ok()) else {
            return;
        };
        for entry in entries.flatten() {
            let left = |name: &str| name.starts_with(SCRATCH) || name.contains(file::UNFINISHED);
            if entry.file_name().to_str().is_some_and(left)
                && let Err(error) = std::fs::remove_file(entry.path())
            {
                tracing::warn!("{} is left behind: {error}", entry.path().display());
            }
        }
    }

    fn load(self: &Arc<Self>, reader: &LedgerReader) -> Result<State, DerivedError> {
        let file = File::open(&self.path)?;
        let manifest = file.manifest()?;
        manifest.check(reader)?;
        let damaged = |name: &str| DerivedError::Damaged(name.to_owned());
        let rest = read_part(&file, &manifest, snapshot::REST)?;
        let mut state = snapshot::read_rest(&rest, self.clone())
            .filter(|state| state.position == manifest.through)
            .ok_or_else(|| damaged(snapshot::REST))?;
        drop(rest);
        let first = first_here(&state);
        let mut wanted: Vec<(usize, Period)> = Vec::new();
        for (number, form) in state.cube.forms().iter().enumerate() {
            for month in form.months() {
                if !manifest.parts.contains_key(&month_name(number, month)) {
                    return Err(damaged(&month_name(number, month)));
                }
                if month >= first {
                    wanted.push((number, month));
                }
            }
        }
        let read = |list: &[(usize, Period)]| -> Result<Vec<_>, DerivedError> {
            let file = File::open(&self.path)?;
            let month = |&(form, month): &(usize, Period)| {
                Ok((form, read_month(&file, &manifest, form, month)?))
            };
            list.iter().map(month).collect()
        };
        let (one, two) = wanted.split_at(wanted.len() / 2);
        let (agents, months) = std::thread::scope(|scope| {
            let other = scope.spawn(|| read(two));
            let agents = snapshot::agent_names().map(|name| {
                let bytes = read_part(&file, &manifest, &name)?;
                snapshot::read_agents(&bytes).ok_or_else(|| damaged(&name))
            });
            let agents = agents.collect::<Result<Vec<_>, _>>();
            let months = read(one);
            match other.join() {
                Ok(others) => Ok::<_, DerivedError>((agents?, [months?, others?])),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })?;
        state.agents = agents.into_iter().flatten().collect();
        for (form, month) in months.into_iter().flatten() {
            state.cube.bring(form, month);
        }
        *lock(&self.written) = generations(&state.cube);
        let mut inner = lock(&self.inner);
        inner.numbers = state.cube.without_blocks();
        inner.through = manifest.through;
        inner.open = Some((file, manifest));
        Ok(state)
    }

    /// The position the file stands at; none if there is none to be trusted.
    pub(crate) fn through(&self) -> Option<Position> {
        lock(&self.inner).open.as_ref().map(|(_, manifest)| manifest.through)
    }

    /// Takes nothing more from the file: the next checkpoint makes it anew.
    pub(crate) fn distrust(&self) {
        lock(&self.written).clear();
        *lock(&self.inner) = Inner::default();
    }

    /// Keeps the file as it is for as long as the guard is held.
    pub(crate) fn stay(&self) -> Stay<'_> {
        Stay { written: lock(&self.written) }
    }

    /// As [`Derived::stay`], unless someone holds it already.
    pub(crate) fn try_stay(&self) -> Option<Stay<'_>> {
        let written = match self.written.try_lock() {
            Ok(written) => written,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(Stay { written })
    }

    /// Writes what has changed since the last time, or the whole file where there is none to go on from.
    /// `state` is a copy taken between two commits. It does not wait for who keeps the file as it is: that can
    /// take minutes, and a service told to end must end.
    pub(crate) fn write(
        &self,
        state: &State,
        identity: StoreIdentity,
        chain: Hash,
    ) -> Result<Written, DerivedError> {
        let Stay { mut written } = self.try_stay().ok_or(DerivedError::Held)?;
        let known = {
            let inner = lock(&self.inner);
            // A file that was deleted, or does not read, is made anew.
            let usable = !inner.suspect && self.path.is_file();
            inner.open.as_ref().filter(|_| usable).map(|(_, manifest)| manifest.parts.clone())
        };
        let anew = known.is_none();
        let target = match known {
            Some(_) => Change::begin(&self.path)?,
            None => Change::make(&self.path)?,
        };
        let known = known.unwrap_or_default();
        let mut parts = Parts { target, known, parts: BTreeMap::new(), done: Written::default() };
        let generations = generations(&state.cube);
        let (first, mut rewritten) = (first_here(state), false);
        for (number, form) in state.cube.forms().iter().enumerate() {
            for month in form.months() {
                let (key, name) = ((number, month), month_name(number, month));
                let same = written.get(&key) == generations.get(&key);
                let part = match parts.known.get(&name) {
                    Some(part) if same => parts.keep(name, *part),
                    _ => {
                        rewritten |= month < first;
                        parts.put(name, &Month::encode(form.month(month)))?
                    }
                };
                parts.done.months += part.bytes;
            }
        }
        for (name, bytes) in snapshot::agents(state) {
            parts.put(name, &bytes)?;
        }
        parts.put(snapshot::REST.into(), &snapshot::rest(state))?;
        let Parts { target, known: _, parts, done } = parts;
        let StoreIdentity { store_id, incarnation } = identity;
        let manifest = Manifest {
            format: FORMAT,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            store_id,
            incarnation,
            through: state.position,
            chain,
            parts,
        };
        let prepared = target.prepare(&manifest)?;
        if rewritten {
            self.rewritten.fetch_add(1, Ordering::SeqCst);
        }
        let log = {
            // Whoever reads a month meanwhile finds list and file agreeing.
            let mut inner = lock(&self.inner);
            let (file, log) = prepared.finish(&self.path, &mut inner.open)?;
            inner.through = manifest.through;
            inner.open = Some((file, manifest));
            inner.numbers = state.cube.without_blocks();
            // What was found not to read since this began is still in a file that was only changed.
            inner.suspect &= !anew;
            if !inner.suspect {
                inner.saved.clear();
            }
            log
        };
        *written = generations;
        log.settle()?;
        Ok(done)
    }

    /// Takes from the ledger the months that are not in memory and do not read.
    fn save_from_ledger(&self, inner: &mut Inner) {
        let scratch = Derived::beside(&self.path, &self.ledger);
        let state = loop {
            let folded =
                LedgerReader::open(&self.ledger).map_err(StateError::from).and_then(|reader| {
                    let now = jiff::Timestamp::now().into();
                    fold_aside(&reader, inner.through, now, &scratch, Limits::default())
                });
            match folded {
                Ok(state) => break state,
                Err(error) => {
                    // Neither holds the month now. No answer is better than a wrong one.
                    tracing::error!("neither derived.db nor the ledger can be read: {error}");
                    std::thread::sleep(RETRY);
                }
            }
        };
        let first = first_here(&state);
        for (number, form) in inner.numbers.forms().iter().enumerate() {
            let Some(theirs) = state.cube.form(form.code()) else { continue };
            for month in theirs.months().into_iter().take_while(|month| *month < first) {
                let reads = inner.open.as_ref().is_some_and(|(file, manifest)| {
                    read_part(file, manifest, &month_name(number, month)).is_ok()
                });
                if !reads {
                    let month_again = inner.numbers.adopt(&state.cube, number, month);
                    inner.saved.insert((number, month), Arc::new(month_again));
                }
            }
        }
        inner.suspect = true;
    }
}

impl Older for Derived {
    fn rewritten(&self) -> u64 {
        self.rewritten.load(Ordering::SeqCst)
    }

    fn month(&self, form: usize, month: Period) -> Arc<Month> {
        let key = (form, month);
        let mut inner = lock(&self.inner);
        if let Some(month) = inner.saved.get(&key) {
            return month.clone();
        }
        let name = month_name(form, month);
        let part = inner.open.as_ref().and_then(|(_, m)| m.parts.get(&name).copied());
        if let Some(part) = part
            && let Some(month) = inner.recent.get(key, part)
        {
            return month;
        }
        let read = match &inner.open {
            Some((file, manifest)) => read_month(file, manifest, form, month),
            None => Err(DerivedError::Absent),
        };
        match (read, part) {
            (Ok(month), Some(part)) => {
                let month = Arc::new(month);
                inner.recent.put(key, part, month.clone());
                month
            }
            (read, _) => {
                let why = read.err().map(|error| error.to_string()).unwrap_or_default();
                tracing::error!("{name} of derived.db is taken from the ledger: {why}");
                self.save_from_ledger(&mut inner);
                inner.saved.get(&key).cloned().unwrap_or_default()
            }
        }
    }
}
