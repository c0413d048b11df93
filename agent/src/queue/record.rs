//! What one value in the store looks like, so that each proves by itself that it is whole.
//!
//! A *blob* is any number of bytes under a base key. It is cut into parts, each a sled value of at most
//! [`VALUE_BYTES_MAX`] bytes (larger ones would go to files sled never syncs). Every part repeats its own
//! key and the commit that wrote it and ends with a CRC-32, so a part can be recognised in the raw bytes of
//! a file that sled itself can no longer read. Nothing here touches a disk.

use std::collections::BTreeMap;

/// Largest value given to sled, in bytes, everything included.
pub const VALUE_BYTES_MAX: usize = 900;
/// Longest base key, in bytes.
pub(super) const BASE_KEY_BYTES_MAX: usize = 80;
/// Most parts of one blob.
pub(super) const PARTS_MAX: usize = 2048;

/// Opens every part; the last byte is the version of the format.
const MAGIC: [u8; 4] = [0xb5, b'B', b'Q', 1];
/// Magic, commit, key length, data length, CRC.
const FRAME_BYTES: usize = 4 + 8 + 1 + 2 + 4;
/// The first part says how many there are.
const COUNT_BYTES: usize = 2;

/// One verified part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) base: Vec<u8>,
    pub(super) number: u16,
    pub(super) commit: u64,
    pub(super) data: Vec<u8>,
}

/// The sled key of part `number` of the blob `base`.
pub(super) fn part_key(base: &[u8], number: u16) -> Vec<u8> {
    let mut key = Vec::with_capacity(base.len() + 2);
    key.extend_from_slice(base);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// Most bytes of a blob that fit in one part under a key of `base_len` bytes.
pub(super) const fn single_part_bytes(base_len: usize) -> usize {
    VALUE_BYTES_MAX - FRAME_BYTES - COUNT_BYTES - (base_len + 2)
}

/// Cuts a blob into sealed parts: (sled key, sled value).
pub(super) fn seal(base: &[u8], commit: u64, bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    debug_assert!(base.len() <= BASE_KEY_BYTES_MAX);
    let room = single_part_bytes(base.len());
    let mut chunks: Vec<&[u8]> = bytes.chunks(room).collect();
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    debug_assert!(chunks.len() <= PARTS_MAX);
    let count = chunks.len() as u16;
    chunks
        .into_iter()
        .enumerate()
        .map(|(number, chunk)| {
            let key = part_key(base, number as u16);
            let mut value = Vec::with_capacity(FRAME_BYTES + key.len() + COUNT_BYTES + chunk.len());
            value.extend_from_slice(&MAGIC);
            value.extend_from_slice(&commit.to_le_bytes());
            value.push(key.len() as u8);
            value.extend_from_slice(&key);
            let head = if number == 0 { count.to_le_bytes().to_vec() } else { Vec::new() };
            value.extend_from_slice(&((head.len() + chunk.len()) as u16).to_le_bytes());
            value.extend_from_slice(&head);
            value.extend_from_slice(chunk);
            let crc = crc32fast::hash(&value);
            value.extend_from_slice(&crc.to_le_bytes());
            (key, value)
        })
        .collect()
}

/// Reads the part that begins at the start of `bytes`; what follows it is ignored.
fn read_part(bytes: &[u8]) -> Option<(Part, usize)> {
    let rest = bytes.strip_prefix(&MAGIC)?;
    let commit = u64::from_le_bytes(rest.get(..8)?.try_into().ok()?);
    let key_len = usize::from(*rest.get(8)?);
    let key = rest.get(9..9 + key_len)?;
    if !(3..=BASE_KEY_BYTES_MAX + 2).contains(&key_len) {
        return None;
    }
    let at = 9 + key_len;
    let data_len = usize::from(u16::from_le_bytes(rest.get(at..at + 2)?.try_into().ok()?));
    let data = rest.get(at + 2..at + 2 + data_len)?;
    let end = 4 + at + 2 + data_len;
    let crc = u32::from_le_bytes(bytes.get(end..end + 4)?.try_into().ok()?);
    if crc32fast::hash(&bytes[..end]) != crc {
        return None;
    }
    let (base, number) = key.split_at(key_len - 2);
    let part = Part {
        base: base.to_vec(),
        number: u16::from_be_bytes(number.try_into().ok()?),
        commit,
        data: data.to_vec(),
    };
    Some((part, end + 4))
}

/// Reads the value sled gave for `key`; `None` when it is not, byte for byte, what was written there.
pub(super) fn open(key: &[u8], value: &[u8]) -> Option<Part> {
    let (part, used) = read_part(value)?;
    (used == value.len() && part_key(&part.base, part.number) == key).then_some(part)
}

/// What a part adds to the digest of a store; independent of order, so that a sum over all parts shows
/// whether one is missing.
pub(super) fn digest(value: &[u8]) -> u64 {
    let crc = value.len().checked_sub(4).and_then(|at| value[at..].try_into().ok());
    let mut x = u64::from(crc.map_or(0, u32::from_le_bytes)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Every part that can be found anywhere in the raw bytes of a file, whatever stands between them.
pub(super) fn scan(bytes: &[u8]) -> Vec<Part> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(offset) = bytes[at..].iter().position(|&byte| byte == MAGIC[0]) {
        at += offset;
        match read_part(&bytes[at..]) {
            Some((part, used)) => {
                found.push(part);
                at += used;
            }
            None => at += 1,
        }
    }
    found
}

/// Joins the parts of one write of one blob; `None` when a part is missing.
fn join(parts: &BTreeMap<u16, Vec<u8>>) -> Option<Vec<u8>> {
    let (count, first) = parts.get(&0)?.split_at_checked(COUNT_BYTES)?;
    let count = u16::from_le_bytes(count.try_into().ok()?);
    let mut bytes = first.to_vec();
    for number in 1..count {
        bytes.extend_from_slice(parts.get(&number)?);
    }
    Some(bytes)
}

/// The number of parts said by the first part's data, and the bytes of the blob it holds.
pub(super) fn first_part(data: &[u8]) -> Option<(u16, &[u8])> {
    let (count, rest) = data.split_at_checked(COUNT_BYTES)?;
    Some((u16::from_le_bytes(count.try_into().ok()?), rest))
}

/// The whole blobs among loose parts, each write apart: base key → commit → bytes.
pub(super) fn assemble(parts: Vec<Part>) -> BTreeMap<Vec<u8>, BTreeMap<u64, Vec<u8>>> {
    let mut loose: BTreeMap<(Vec<u8>, u64), BTreeMap<u16, Vec<u8>>> = BTreeMap::new();
    for part in parts {
        loose.entry((part.base, part.commit)).or_default().insert(part.number, part.data);
    }
    let mut blobs: BTreeMap<Vec<u8>, BTreeMap<u64, Vec<u8>>> = BTreeMap::new();
    for ((base, commit), parts) in loose {
        if let Some(bytes) = join(&parts) {
            blobs.entry(base).or_default().insert(commit, bytes);
        }
    }
    blobs
}
