//! The SQLite file of `derived.db`: parts by name and the list of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use banyan_shared::wire;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::{DerivedError, Manifest};

/// `application_id`: "BNYD".
const APPLICATION_ID: i64 = 0x424e_5944;
/// Parts are some megabytes.
const PAGE_BYTES: u32 = 16_384;
/// Page cache of a connection, in KiB: nothing is read twice.
const CACHE_KIB: i64 = 1_024;
/// How long SQLite waits for another connection's lock.
const BUSY_WAIT: Duration = Duration::from_secs(10);

/// What the name of a file being made ends with.
pub(super) const UNFINISHED: &str = ".new";
/// What SQLite keeps beside a file.
const LOGS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// `manifest` has one row, which every change replaces.
const SCHEMA: &str = "
CREATE TABLE part (name TEXT PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
CREATE TABLE manifest (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1), crc INTEGER NOT NULL, bytes BLOB NOT NULL
) STRICT;
";

/// The file, open to read.
#[derive(Debug)]
pub(super) struct File {
    connection: Connection,
}

fn connect(path: &Path) -> Result<Connection, DerivedError> {
    // Read and write: the log of a run that was killed is settled by whoever opens it next.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_WAIT)?;
    connection.execute_batch(&format!("PRAGMA cache_size = -{CACHE_KIB}"))?;
    let application: i64 =
        connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if application != APPLICATION_ID {
        return Err(DerivedError::Other("another kind"));
    }
    Ok(connection)
}

impl File {
    pub(super) fn open(path: &Path) -> Result<File, DerivedError> {
        if !path.is_file() {
            return Err(DerivedError::Absent);
        }
        Ok(File { connection: connect(path)? })
    }

    pub(super) fn manifest(&self) -> Result<Manifest, DerivedError> {
        let (crc, bytes): (i64, Vec<u8>) =
            self.connection.query_row("SELECT crc, bytes FROM manifest", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        if crc != i64::from(crc32fast::hash(&bytes)) {
            return Err(DerivedError::Damaged("its list of parts".into()));
        }
        // The list's shape is part of the format it names.
        wire::decode(&bytes).map_err(|_| DerivedError::Other("another version of the program"))
    }

    /// The bytes of a part, whatever they are.
    pub(super) fn part(&self, name: &str) -> Result<Option<Vec<u8>>, DerivedError> {
        let mut select =
            self.connection.prepare_cached("SELECT bytes FROM part WHERE name = ?1")?;
        Ok(select.query_row([name], |row| row.get(0)).optional()?)
    }
}

/// A change under way: nothing of it is seen before [`Prepared::finish`].
pub(super) struct Change {
    connection: Connection,
    /// What it is built under, for a file made anew. Dropped after the connection.
    unfinished: Option<Unfinished>,
}

/// A file being made, removed unless it takes its place: on a full disk it must not stay.
pub(super) struct Unfinished {
    path: PathBuf,
    placed: bool,
}

impl Unfinished {
    fn place(mut self, path: &Path) -> std::io::Result<()> {
        std::fs::rename(&self.path, path)?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.placed
            && let Err(error) = remove_all(&self.path)
        {
            tracing::warn!("{} is left behind: {error}", self.path.display());
        }
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes the file `path` and what SQLite keeps beside it, if they are there.
pub(super) fn remove_all(path: &Path) -> std::io::Result<()> {
    remove(path)?;
    LOGS.iter().try_for_each(|ending| remove(&beside(path, ending)))
}

impl Change {
    /// Begins to change the file.
    pub(super) fn begin(path: &Path) -> Result<Change, DerivedError> {
        let connection = connect(path)?;
        connection.execute_batch(
            "PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0; BEGIN IMMEDIATE",
        )?;
        Ok(Change { connection, unfinished: None })
    }

    /// Begins a new file.
    pub(super) fn make(path: &Path) -> Result<Change, DerivedError> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let unfinished = Unfinished { path: beside(path, UNFINISHED), placed: false };
        remove_all(&unfinished.path)?;
        let connection = Connection::open(&unfinished.path)?;
        // Nobody opens the file under this name: it is synced once, when it is whole.
        connection.execute_batch(&format!(
            "PRAGMA page_size = {PAGE_BYTES}; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
             PRAGMA cache_size = -{CACHE_KIB}; PRAGMA application_id = {APPLICATION_ID};
             BEGIN; {SCHEMA}"
        ))?;
        Ok(Change { connection, unfinished: Some(unfinished) })
    }

    /// Writes a part in place of the one of this name.
    pub(super) fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), DerivedError> {
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO part VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET bytes = excluded.bytes",
        )?;
        insert.execute(params![name, bytes])?;
        Ok(())
    }

    /// Writes the list, drops the parts it does not name, and leaves the last step to be taken.
    pub(super) fn prepare(self, manifest: &Manifest) -> Result<Prepared, DerivedError> {
        let Change { connection, unfinished } = self;
        let names: Vec<String> = {
            let mut select = connection.prepare("SELECT name FROM part")?;
            select.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?
        };
        for name in names.iter().filter(|name| !manifest.parts.contains_key(*name)) {
            connection.execute("DELETE FROM part WHERE name = ?1", [name])?;
        }
        let bytes = wire::encode(manifest);
        connection.execute(
            "INSERT INTO manifest VALUES (1, ?1, ?2) ON CONFLICT (only_row)
             DO UPDATE SET crc = excluded.crc, bytes = excluded.bytes",
            params![crc32fast::hash(&bytes), bytes],
        )?;
        let Some(unfinished) = unfinished else { return Ok(Prepared::Changed(connection)) };
        connection.execute_batch("COMMIT; PRAGMA journal_mode = WAL")?;
        connection.close().map_err(|(_, error)| error)?;
        std::fs::File::options().write(true).open(&unfinished.path)?.sync_all()?;
        Ok(Prepared::Made(unfinished))
    }
}

/// A change that only has to be put in force.
pub(super) enum Prepared {
    /// In the file, to be committed.
    Changed(Connection),
    /// A file of its own, to take the place of the old one.
    Made(Unfinished),
}

/// The log of a change in force, still to be copied into the file.
pub(super) struct Log(Option<Connection>);

impl Prepared {
    /// Puts the change in force and opens the file; `open` is what was open of the old one.
    pub(super) fn finish<T>(
        self,
        path: &Path,
        open: &mut Option<(File, T)>,
    ) -> Result<(File, Log), DerivedError> {
        match self {
            Prepared::Changed(connection) => {
                connection.execute_batch("COMMIT")?;
                let file = File::open(path)?;
                *open = None;
                Ok((file, Log(Some(connection))))
            }
            Prepared::Made(unfinished) => {
                // The old file's log must not be taken for the new one's.
                *open = None;
                for ending in LOGS {
                    remove(&beside(path, ending))?;
                }
                unfinished.place(path)?;
                Ok((File::open(path)?, Log(None)))
            }
        }
    }
}

impl Log {
    /// Copies it into the file and empties it.
    pub(super) fn settle(self) -> Result<(), DerivedError> {
        if let Some(connection) = self.0 {
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        }
        Ok(())
    }
}
