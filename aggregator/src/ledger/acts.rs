//! `acts.log`: the operators' acts again, in a file small enough to copy at once.
//!
//! The file is `"BANYACT1"`, then for each act: length of the body (u32), CRC-32 of the body (u32), body =
//! position (u64), received at (i64, milliseconds), the act's bytes. Numbers are little-endian.
//!
//! A commit appends and fsyncs here before it commits the ledger, and cuts again if that fails; what a crash
//! leaves between the two is settled by [`ActsLog::open`]: the ledger is right. Whole acts the ledger does
//! not have are kept in a file of their own, since an older ledger may have been put beside a newer log.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::RowRef;
use super::disk::sync_dir;
use super::error::LedgerError;
use super::read::each_act;

const MAGIC: &[u8; 8] = b"BANYACT1";
const BODY_FIXED: usize = 16;
/// Most files of acts set aside; beyond it a person must look before the ledger opens.
const SET_ASIDE_MAX: u32 = 1000;

/// What opening found to settle between the ledger and `acts.log`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActsReport {
    /// Acts written to the log because only the ledger had them.
    pub appended: u64,
    /// Bytes cut from the log's end because the ledger does not have them.
    pub cut_bytes: u64,
    /// Where the bytes cut are kept, if a whole act was among them.
    pub set_aside: Option<PathBuf>,
}

pub(super) struct ActsLog {
    path: PathBuf,
    file: File,
    length: u64,
}

impl ActsLog {
    /// Opens the log and makes it equal to the acts of the ledger.
    pub(super) fn open(dir: &Path, ledger: &Connection) -> Result<(Self, ActsReport), LedgerError> {
        let path = dir.join("acts.log");
        let fresh = !path.exists();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(LedgerError::io(&path))?;
        let on_disk = file.metadata().map_err(LedgerError::io(&path))?.len();
        let mut log = Self { path, file, length: 0 };
        let report = log.reconcile(dir, ledger, on_disk)?;
        if fresh {
            sync_dir(dir)?;
        }
        Ok((log, report))
    }

    fn reconcile(
        &mut self,
        dir: &Path,
        ledger: &Connection,
        on_disk: u64,
    ) -> Result<ActsReport, LedgerError> {
        let path = self.path.clone();
        let io = || LedgerError::io(&path);
        let mut reader = BufReader::new(self.file.try_clone().map_err(io())?);
        let mut magic = [0; MAGIC.len()];
        let mut agreed = read_full(&mut reader, &mut magic).map_err(io())? && magic == *MAGIC;
        let mut length = if agreed { MAGIC.len() as u64 } else { 0 };
        let mut report = ActsReport::default();
        let mut missing = Vec::new();
        let mut fault: Option<LedgerError> = None;
        let db = dir.join("ledger.db");
        each_act(ledger, &db, |row| {
            let entry = encode(row);
            if agreed {
                let mut found = vec![0; entry.len()];
                match read_full(&mut reader, &mut found) {
                    Ok(true) if found == entry => {
                        length += entry.len() as u64;
                        return Ok(());
                    }
                    Ok(_) => agreed = false,
                    Err(error) => {
                        fault.get_or_insert(LedgerError::io(&path)(error));
                        agreed = false;
                    }
                }
            }
            missing.push(row.position);
            Ok(())
        })?;
        if let Some(fault) = fault {
            return Err(fault);
        }
        drop(reader);
        if length < on_disk {
            report.cut_bytes = on_disk - length;
            self.file.seek(SeekFrom::Start(length)).map_err(io())?;
            report.set_aside = set_aside(dir, &path, &mut self.file, length)?;
            self.file.set_len(length).map_err(io())?;
        }
        if length < MAGIC.len() as u64 || !missing.is_empty() || report.cut_bytes > 0 {
            self.file.seek(SeekFrom::Start(length)).map_err(io())?;
            let mut writer = BufWriter::new(&self.file);
            if length < MAGIC.len() as u64 {
                writer.write_all(MAGIC).map_err(io())?;
                length = MAGIC.len() as u64;
            }
            if let Some(first) = missing.first().copied() {
                each_act(ledger, &db, |row| {
                    if row.position >= first {
                        let entry = encode(row);
                        writer.write_all(&entry).map_err(io())?;
                        length += entry.len() as u64;
                        report.appended += 1;
                    }
                    Ok(())
                })?;
            }
            writer.flush().map_err(io())?;
            drop(writer);
            self.file.sync_all().map_err(io())?;
        }
        self.length = length;
        Ok(report)
    }

    /// Appends acts and makes them durable; returns the length to go back to if the commit fails.
    pub(super) fn append<'a>(
        &mut self,
        acts: impl Iterator<Item = RowRef<'a>>,
    ) -> Result<u64, LedgerError> {
        let before = self.length;
        let bytes: Vec<u8> = acts.flat_map(encode).collect();
        if bytes.is_empty() {
            return Ok(before);
        }
        let written = self
            .file
            .seek(SeekFrom::Start(before))
            .and_then(|_| self.file.write_all(&bytes))
            .and_then(|()| self.file.sync_all());
        if let Err(error) = written {
            // Best effort: what stays is settled when the ledger is opened again, before the next commit.
            let _ = self.file.set_len(before);
            return Err(LedgerError::io(&self.path)(error));
        }
        self.length += bytes.len() as u64;
        Ok(before)
    }

    /// Goes back to an earlier length, after a commit that failed.
    pub(super) fn cut(&mut self, length: u64) -> Result<(), LedgerError> {
        if length != self.length {
            self.file
                .set_len(length)
                .and_then(|()| self.file.sync_all())
                .map_err(LedgerError::io(&self.path))?;
            self.length = length;
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn make_read_only(&mut self) {
        self.file = File::open(&self.path).unwrap();
    }
}

fn encode(row: RowRef<'_>) -> Vec<u8> {
    let mut body = Vec::with_capacity(BODY_FIXED + row.bytes.len());
    body.extend_from_slice(&row.position.to_le_bytes());
    body.extend_from_slice(&row.received_at.0.to_le_bytes());
    body.extend_from_slice(row.bytes);
    let mut entry = Vec::with_capacity(8 + body.len());
    // A row is at most `ROW_BYTES_MAX`, far below `u32::MAX`.
    entry.extend_from_slice(&(body.len() as u32).to_le_bytes());
    entry.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    entry.extend_from_slice(&body);
    entry
}

/// Fills `buffer`; false when the input ends before.
fn read_full(input: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<bool> {
    match input.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Keeps a copy of the whole file under another name, unless what follows `from` is only a torn entry.
fn set_aside(
    dir: &Path,
    path: &Path,
    file: &mut File,
    from: u64,
) -> Result<Option<PathBuf>, LedgerError> {
    let mut reader = BufReader::new(file);
    if torn(&mut reader, from).map_err(LedgerError::io(path))? {
        return Ok(None);
    }
    for n in 1..=SET_ASIDE_MAX {
        let target = dir.join(format!("acts-set-aside-{n}.log"));
        if target.exists() {
            continue;
        }
        let unfinished = dir.join("acts-set-aside.log.new");
        let copied = fs::copy(path, &unfinished)
            .and_then(|_| File::options().write(true).open(&unfinished)?.sync_all())
            .and_then(|()| fs::rename(&unfinished, &target));
        if let Err(error) = copied {
            // A part of a copy keeps nothing, but a full disk full.
            let _ = fs::remove_file(&unfinished);
            return Err(LedgerError::io(&target)(error));
        }
        sync_dir(dir)?;
        return Ok(Some(target));
    }
    Err(LedgerError::damaged(
        path,
        format!(
            "{SET_ASIDE_MAX} files acts-set-aside-N.log stand beside it; look at them and move them away"
        ),
    ))
}

/// Whether the input holds less than one entry: what an append cut short leaves.
fn torn(reader: &mut impl Read, from: u64) -> std::io::Result<bool> {
    let mut magic = [0; MAGIC.len()];
    if from == 0 && !read_full(reader, &mut magic)? {
        return Ok(true);
    }
    let mut fixed = [0; 8];
    if !read_full(reader, &mut fixed)? {
        return Ok(true);
    }
    let [a, b, c, d, ..] = fixed;
    let length = u64::from(u32::from_le_bytes([a, b, c, d]));
    let present = std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
    Ok(length < BODY_FIXED as u64 || present < length)
}
