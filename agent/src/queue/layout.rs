//! What the queue keeps in its store: keys, and the bytes of entries, blocks and epoch records.

use banyan_shared::ids::{Epoch, Seq};
use serde::{Deserialize, Serialize};

use super::ranges::{SeqRange, SeqSet};
use super::record;

/// Base key of the reports of damage.
pub(super) const DAMAGE_KEY: &[u8] = b"D";
/// Base key of the commit numbers that were begun and given up.
pub(super) const DEAD_KEY: &[u8] = b"X";

const EPOCH: u8 = b'S';
const ENTRY: u8 = b'E';
const BLOCK: u8 = b'B';
const META: u8 = b'M';

/// What a base key is the key of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Epoch(Epoch),
    Entry(Epoch, Seq),
    Block(Epoch, Seq),
    Meta(String),
    Damage,
    Dead,
}

fn with_epoch(kind: u8, epoch: Epoch) -> Vec<u8> {
    let mut key = Vec::with_capacity(17);
    key.push(kind);
    key.extend_from_slice(&epoch.counter.to_be_bytes());
    key.extend_from_slice(&epoch.random.to_be_bytes());
    key
}

pub(super) fn epoch_key(epoch: Epoch) -> Vec<u8> {
    with_epoch(EPOCH, epoch)
}

pub(super) fn entry_key(epoch: Epoch, seq: Seq) -> Vec<u8> {
    let mut key = with_epoch(ENTRY, epoch);
    key.extend_from_slice(&seq.to_be_bytes());
    key
}

pub(super) fn block_key(epoch: Epoch, first: Seq) -> Vec<u8> {
    let mut key = with_epoch(BLOCK, epoch);
    key.extend_from_slice(&first.to_be_bytes());
    key
}

/// What all block keys of an epoch begin with.
pub(super) fn block_prefix(epoch: Epoch) -> Vec<u8> {
    with_epoch(BLOCK, epoch)
}

pub(super) fn meta_key(name: &str) -> Vec<u8> {
    let mut key = vec![META];
    key.extend_from_slice(name.as_bytes());
    key
}

pub(super) fn parse_key(base: &[u8]) -> Option<Key> {
    fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
        Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    }
    let (kind, rest) = base.split_first()?;
    let epoch = || Some(Epoch { counter: u32_at(rest, 0)?, random: u32_at(rest, 4)? });
    let seq = || Some(u64::from_be_bytes(rest.get(8..16)?.try_into().ok()?));
    match (*kind, rest.len()) {
        (EPOCH, 8) => Some(Key::Epoch(epoch()?)),
        (ENTRY, 16) => Some(Key::Entry(epoch()?, seq()?)),
        (BLOCK, 16) => Some(Key::Block(epoch()?, seq()?)),
        (META, _) => Some(Key::Meta(String::from_utf8(rest.to_vec()).ok()?)),
        _ if base == DAMAGE_KEY => Some(Key::Damage),
        _ if base == DEAD_KEY => Some(Key::Dead),
        _ => None,
    }
}

/// An entry as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) hash: u64,
    pub(super) day: i32,
    pub(super) void: bool,
    pub(super) payload: Vec<u8>,
}

/// Bytes of a stored entry before its payload.
const STORED_HEAD: usize = 8 + 4 + 1;

impl Stored {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(STORED_HEAD + self.payload.len());
        bytes.extend_from_slice(&self.hash.to_le_bytes());
        bytes.extend_from_slice(&self.day.to_le_bytes());
        bytes.push(u8::from(self.void));
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Stored> {
        let (head, payload) = bytes.split_at_checked(STORED_HEAD)?;
        Some(Stored {
            hash: u64::from_le_bytes(head[..8].try_into().ok()?),
            day: i32::from_le_bytes(head[8..12].try_into().ok()?),
            void: head[12] != 0,
            payload: payload.to_vec(),
        })
    }
}

/// Bytes a block spends on each entry beside the entry itself: its number and its length.
const BLOCK_ITEM_HEAD: usize = 8 + 2;

/// Packs confirmed entries, ascending, into blocks of one part each. The members of a block follow one
/// another without a gap, so that the last block beginning at or before a number is the one to hold it.
/// Entries too large for a block are left out. Gives each block's first number, bytes and members.
pub(super) fn pack(entries: Vec<(Seq, Stored)>) -> Vec<(Seq, Vec<u8>, Vec<Seq>)> {
    let room = record::single_part_bytes(17);
    let mut blocks: Vec<(Seq, Vec<u8>, Vec<Seq>)> = Vec::new();
    for (seq, entry) in entries {
        let bytes = entry.encode();
        let size = BLOCK_ITEM_HEAD + bytes.len();
        // Half a block alone in a block would save nothing.
        if size > room / 2 {
            continue;
        }
        match blocks.last_mut() {
            Some((_, block, members))
                if block.len() + size <= room && members.last() == Some(&(seq - 1)) =>
            {
                push_item(block, seq, &bytes);
                members.push(seq);
            }
            _ => {
                let mut block = Vec::with_capacity(room);
                push_item(&mut block, seq, &bytes);
                blocks.push((seq, block, vec![seq]));
            }
        }
    }
    blocks.retain(|(_, _, members)| members.len() > 1);
    blocks
}

fn push_item(block: &mut Vec<u8>, seq: Seq, bytes: &[u8]) {
    block.extend_from_slice(&seq.to_le_bytes());
    block.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
    block.extend_from_slice(bytes);
}

/// The entries of a block; `None` when its bytes are not a block's.
pub(super) fn unpack(mut block: &[u8]) -> Option<Vec<(Seq, Stored)>> {
    let mut entries = Vec::new();
    while !block.is_empty() {
        let (head, rest) = block.split_at_checked(BLOCK_ITEM_HEAD)?;
        let seq = u64::from_le_bytes(head[..8].try_into().ok()?);
        let len = usize::from(u16::from_le_bytes(head[8..].try_into().ok()?));
        let (bytes, rest) = rest.split_at_checked(len)?;
        entries.push((seq, Stored::decode(bytes)?));
        block = rest;
    }
    Some(entries)
}

/// What is kept of an epoch beside its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct EpochState {
    /// The last number given out.
    pub(super) issued: Seq,
    /// The last number dropped after its time, with all before it.
    pub(super) dropped: Seq,
    /// Wrapping sum of the hashes of the dropped entries.
    pub(super) dropped_sum: u64,
    /// Released by receipts.
    pub(super) confirmed: SeqSet,
    /// Given out and no longer here: lost to damage, or moved to another epoch.
    pub(super) absent: SeqSet,
}

#[derive(Serialize, Deserialize)]
struct EpochRecord {
    issued: Seq,
    dropped: Seq,
    dropped_sum: u64,
    confirmed: Vec<SeqRange>,
    absent: Vec<SeqRange>,
}

impl EpochState {
    pub(super) fn encode(&self) -> Vec<u8> {
        let record = EpochRecord {
            issued: self.issued,
            dropped: self.dropped,
            dropped_sum: self.dropped_sum,
            confirmed: self.confirmed.ranges().to_vec(),
            absent: self.absent.ranges().to_vec(),
        };
        postcard::to_stdvec(&record).expect("an epoch record is plain numbers")
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<EpochState> {
        let (record, rest): (EpochRecord, _) = postcard::take_from_bytes(bytes).ok()?;
        rest.is_empty().then(|| EpochState {
            issued: record.issued,
            dropped: record.dropped,
            dropped_sum: record.dropped_sum,
            confirmed: SeqSet::from_ranges(record.confirmed),
            absent: SeqSet::from_ranges(record.absent),
        })
    }
}
