//! One form's blocks of one month, packed: what `derived.db` keeps and older months are read from.
//!
//! [`Month::encode`] and [`Month::decode`] are each other's inverse. Of a report written once only what differs from
//! its neighbours is kept: its author and number against the same slot's report before it, its position and
//! moment as a place in the list of the batches that brought the block's reports. Reports with a history are
//! kept whole, with what they came to. The numbers of slots, columns and authors are those of the cube; its
//! [`Frame`](super::Frame) says what they stand for.

use std::collections::BTreeMap;
use std::sync::Arc;

use banyan_shared::ids::Millis;
use banyan_shared::period::{Period, PeriodType};
use banyan_shared::wire;

use super::block::{Block, BlockRef, HISTORY, History, PRESENT, Report, Rows, Stored};
use super::column::Column;
use super::pack::{Packer, Unpacker, fold, unfold};
use super::{Damaged, Slot};

/// Largest content of a block's histories, in bytes.
const HISTORIES_BYTES_MAX: usize = 1 << 30;

/// One form's blocks of one month: those whose periods end in it.
#[derive(Clone, Debug, Default)]
pub struct Month {
    blocks: BTreeMap<Period, Arc<Block>>,
}

impl Month {
    /// The block of a period.
    pub(crate) fn block(&self, period: Period) -> Option<&Arc<Block>> {
        self.blocks.get(&period)
    }

    pub(super) fn into_blocks(self) -> BTreeMap<Period, Arc<Block>> {
        self.blocks
    }

    pub(super) fn insert(&mut self, period: Period, block: Block) {
        self.blocks.insert(period, Arc::new(block));
    }

    /// The blocks, in order.
    #[cfg(test)]
    pub(crate) fn blocks(&self) -> impl Iterator<Item = (Period, BlockRef<'_>)> {
        self.blocks.iter().map(|(period, block)| (*period, BlockRef::Here(block)))
    }

    /// Bytes held on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.blocks.values().map(|block| 256 + block.heap_bytes()).sum()
    }

    /// Packs blocks of one month.
    pub(crate) fn encode<'a>(blocks: impl Iterator<Item = (Period, BlockRef<'a>)>) -> Vec<u8> {
        let (mut number, mut packer) = (0, Packer::default());
        let mut before = Before::default();
        for (period, block) in blocks {
            number += 1;
            encode_block(&mut packer, period, &block, &mut before);
        }
        let mut whole = Packer::default();
        whole.count(number);
        whole.bytes.append(&mut packer.bytes);
        whole.bytes
    }

    /// Reads what [`Month::encode`] wrote.
    ///
    /// # Errors
    /// [`Damaged`] if it is anything else.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Month, Damaged> {
        let mut read = Unpacker::new(bytes);
        let mut before = Before::default();
        let mut month = Month::default();
        for _ in 0..read.count()? {
            let (period, block) = decode_block(&mut read, &mut before)?;
            month.blocks.insert(period, Arc::new(block));
        }
        read.end()?;
        Ok(month)
    }
}

/// By slot: the author and number of the report before.
#[derive(Default)]
struct Before {
    author: Vec<u32>,
    seq: Vec<u32>,
}

impl Before {
    fn grow(&mut self, slots: usize) {
        self.author.resize(self.author.len().max(slots), 0);
        self.seq.resize(self.seq.len().max(slots), 0);
    }
}

/// The places of the reports written once.
fn compact(flags: &[u8]) -> Vec<usize> {
    (0..flags.len()).filter(|&at| flags[at] & (PRESENT | HISTORY) == PRESENT).collect()
}

fn encode_block(packer: &mut Packer, period: Period, block: &Block, before: &mut Before) {
    let Block { columns, rows, histories, newest } = block;
    let Rows { flags, author, seq, position, received_s, received_ms, entered } = rows;
    let kind = PeriodType::ALL.iter().position(|kind| *kind == period.kind());
    packer.count(kind.expect("every type is listed"));
    packer.signed(i64::from(period.index()));
    packer.signed(newest.0);
    packer.count(flags.len());
    packer.column(&flags.iter().map(|flags| u32::from(*flags)).collect::<Vec<_>>());
    let places = compact(flags);
    before.grow(flags.len());
    let mut column = |number: &mut dyn FnMut(usize) -> u32| {
        packer.column(&places.iter().map(|at| number(*at)).collect::<Vec<_>>());
    };
    column(&mut |at| {
        fold(author[at].wrapping_sub(std::mem::replace(&mut before.author[at], author[at])))
    });
    column(&mut |at| fold(seq[at].wrapping_sub(std::mem::replace(&mut before.seq[at], seq[at]))));
    column(&mut |at| entered.get(at));
    // The batches that brought the reports, in order of position.
    let batch = |at: usize| (position[at], received_s[at], received_ms[at]);
    let mut batches: Vec<_> = places.iter().map(|at| batch(*at)).collect();
    batches.sort_unstable();
    batches.dedup();
    column(&mut |at| {
        let place = batches.binary_search(&batch(at)).expect("every batch is listed");
        u32::try_from(place).expect("fewer than 2^32 batches")
    });
    packer.count(batches.len());
    let mut steps = |number: fn(&(u32, u32, u16)) -> u32| {
        let mut last = 0;
        let step =
            |batch| fold(number(batch).wrapping_sub(std::mem::replace(&mut last, number(batch))));
        packer.column(&batches.iter().map(step).collect::<Vec<_>>());
    };
    steps(|batch| batch.0);
    steps(|batch| batch.1);
    packer.column(&batches.iter().map(|batch| u32::from(batch.2)).collect::<Vec<_>>());
    packer.count(columns.len());
    for Column { cells, large } in columns {
        packer.count(cells.len());
        // The three marks at the upper end become the three least numbers.
        packer.column(&cells.iter().map(|cell| cell.wrapping_add(3)).collect::<Vec<_>>());
        packer.blob(&wire::encode(large));
    }
    let histories: Vec<(Slot, &Vec<Stored>, &Report)> =
        histories.iter().map(|(slot, h)| (*slot, &h.versions, &h.report)).collect();
    packer.blob(&if histories.is_empty() {
        Vec::new()
    } else {
        wire::deflate(&wire::encode(&histories))
    });
}

fn decode_block(read: &mut Unpacker<'_>, before: &mut Before) -> Result<(Period, Block), Damaged> {
    let kind = *PeriodType::ALL.get(read.count()?).ok_or(Damaged)?;
    let index = i32::try_from(read.signed()?).map_err(|_| Damaged)?;
    let period = Period::from_index(kind, index).ok_or(Damaged)?;
    let newest = Millis(read.signed()?);
    let slots = read.count()?;
    fn to<T: TryFrom<u32>>(numbers: Vec<u32>) -> Result<Vec<T>, Damaged> {
        numbers.into_iter().map(|n| T::try_from(n).map_err(|_| Damaged)).collect()
    }
    let flags: Vec<u8> = to(read.column(slots)?)?;
    let places = compact(&flags);
    before.grow(slots);
    let mut rows = Rows { flags, ..Rows::default() };
    rows.grow(slots);
    for (at, step) in places.iter().zip(read.column(places.len())?) {
        before.author[*at] = before.author[*at].wrapping_add(unfold(step));
        rows.author[*at] = before.author[*at];
    }
    for (at, step) in places.iter().zip(read.column(places.len())?) {
        before.seq[*at] = before.seq[*at].wrapping_add(unfold(step));
        rows.seq[*at] = before.seq[*at];
    }
    for (at, entered) in places.iter().zip(read.column(places.len())?) {
        rows.entered.set(*at, entered);
    }
    let batch_of = read.column(places.len())?;
    let batches = read.count()?;
    let mut steps = || -> Result<Vec<u32>, Damaged> {
        let mut last = 0u32;
        let sum = |step| {
            last = last.wrapping_add(unfold(step));
            last
        };
        Ok(read.column(batches)?.into_iter().map(sum).collect())
    };
    let (position, received_s) = (steps()?, steps()?);
    let received_ms: Vec<u16> = to(read.column(batches)?)?;
    for (at, batch) in places.iter().zip(batch_of) {
        let batch = batch as usize;
        rows.position[*at] = *position.get(batch).ok_or(Damaged)?;
        rows.received_s[*at] = received_s[batch];
        rows.received_ms[*at] = received_ms[batch];
    }
    let mut columns = Vec::new();
    for _ in 0..read.count()? {
        let length = read.count()?;
        let mut cells = read.column(length)?;
        cells.iter_mut().for_each(|cell| *cell = cell.wrapping_sub(3));
        let large = wire::decode(read.blob()?).map_err(|_| Damaged)?;
        columns.push(Column { cells, large });
    }
    columns.shrink_to_fit();
    let packed = read.blob()?;
    let mut histories = BTreeMap::new();
    if !packed.is_empty() {
        let bytes = wire::inflate(packed, HISTORIES_BYTES_MAX).map_err(|_| Damaged)?;
        let list: Vec<(Slot, Vec<Stored>, Report)> = wire::decode(&bytes).map_err(|_| Damaged)?;
        for (slot, versions, report) in list {
            if slot as usize >= slots {
                return Err(Damaged);
            }
            histories.insert(slot, History::read(versions, report));
        }
    }
    Ok((period, Block { columns, rows, histories, newest }))
}
