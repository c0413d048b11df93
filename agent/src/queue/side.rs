//! The side file: two slots beside the store that say what the store must hold.
//!
//! sled may open a damaged file as a silently shorter one; the side file, written after each commit has
//! reached the disk, is what that is measured against. The slots are written in turn and each proves itself
//! by a CRC, so a write torn by a power cut leaves the other.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use banyan_shared::ids::{Epoch, Seq};
use serde::{Deserialize, Serialize};

/// Name of the side file in the queue's directory.
pub(super) const SIDE_FILE: &str = "head";
/// Bytes of one slot.
const SLOT_BYTES: usize = 4096;
/// Most epochs a slot names; older ones are left out.
pub(super) const SIDE_EPOCHS_MAX: usize = 100;
const MAGIC: &[u8; 8] = b"BanyanQ\x01";

/// What an epoch had come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SideEpoch {
    pub(super) epoch: Epoch,
    /// The last number given out.
    pub(super) issued: Seq,
    /// The last number whose entry was dropped after its time.
    pub(super) dropped: Seq,
}

/// What a slot says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// The last commit known to be on disk.
    pub(super) commit: u64,
    /// Which store directory is the current one.
    pub(super) store: u32,
    /// The epoch new entries are numbered in.
    pub(super) current: Epoch,
    /// The newest epochs.
    pub(super) epochs: Vec<SideEpoch>,
    /// The queue was closed with nothing under way.
    pub(super) clean: bool,
}

/// The open side file.
pub(super) struct Side {
    file: File,
    /// The slot the next write goes to.
    next: u8,
}

/// What was found at opening.
pub(super) enum Found {
    /// No side file, or one that was never written.
    Nothing,
    /// A side file of which no slot is readable.
    Unreadable,
    /// The newest readable slot.
    Head(Head),
}

fn encode(head: &Head) -> Vec<u8> {
    let body = postcard::to_stdvec(head).expect("a head is plain numbers");
    let mut slot = Vec::with_capacity(body.len() + 14);
    slot.extend_from_slice(MAGIC);
    slot.extend_from_slice(&(body.len() as u16).to_le_bytes());
    slot.extend_from_slice(&body);
    let crc = crc32fast::hash(&slot);
    slot.extend_from_slice(&crc.to_le_bytes());
    assert!(slot.len() <= SLOT_BYTES, "SIDE_EPOCHS_MAX epochs fit a slot");
    slot
}

fn decode(slot: &[u8]) -> Option<Head> {
    let rest = slot.strip_prefix(MAGIC)?;
    let len = usize::from(u16::from_le_bytes(rest.get(..2)?.try_into().ok()?));
    let body = rest.get(2..2 + len)?;
    let end = MAGIC.len() + 2 + len;
    let crc = u32::from_le_bytes(slot.get(end..end + 4)?.try_into().ok()?);
    if crc32fast::hash(&slot[..end]) != crc {
        return None;
    }
    let (head, rest) = postcard::take_from_bytes(body).ok()?;
    rest.is_empty().then_some(head)
}

impl Side {
    /// Opens the side file in `dir`, making it when there is none.
    pub(super) fn open(dir: &Path) -> std::io::Result<(Side, Found)> {
        let path = dir.join(SIDE_FILE);
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = Vec::new();
        (&mut file).take(2 * SLOT_BYTES as u64).read_to_end(&mut bytes)?;
        let written = bytes.iter().any(|&byte| byte != 0);
        if bytes.len() < 2 * SLOT_BYTES {
            file.seek(SeekFrom::Start(bytes.len() as u64))?;
            file.write_all(&vec![0; 2 * SLOT_BYTES - bytes.len()])?;
            file.sync_all()?;
            bytes.resize(2 * SLOT_BYTES, 0);
        }
        let slots = [decode(&bytes[..SLOT_BYTES]), decode(&bytes[SLOT_BYTES..])];
        let [first, second] = slots;
        let (next, found) = match (first, second) {
            (None, None) if written => (0, Found::Unreadable),
            (None, None) => (0, Found::Nothing),
            (Some(head), None) => (1, Found::Head(head)),
            (None, Some(head)) => (0, Found::Head(head)),
            // Equal commits differ in the mark of an orderly end only.
            (Some(first), Some(second))
                if (first.commit, first.clean) > (second.commit, second.clean) =>
            {
                (1, Found::Head(first))
            }
            (Some(_), Some(second)) => (0, Found::Head(second)),
        };
        Ok((Side { file, next }, found))
    }

    /// Writes the older slot; with `sync`, returns only when it is on disk.
    pub(super) fn write(&mut self, head: &Head, sync: bool) -> std::io::Result<()> {
        self.file.seek(SeekFrom::Start(u64::from(self.next) * SLOT_BYTES as u64))?;
        self.file.write_all(&encode(head))?;
        if sync {
            self.file.sync_data()?;
            self.next ^= 1;
        }
        Ok(())
    }
}
