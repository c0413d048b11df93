//! One form's slots, columns and blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use banyan_shared::ids::{ElementCode, FormCode, Millis};
use banyan_shared::period::{Period, PeriodType};
use banyan_shared::report::VersionVector;
use foldhash::HashMap;

use super::decision::{Decisions, Lock};
use super::{Block, BlockRef, FacilityNo, FormFrame, Month, Older, Slot};
use crate::act::Stage;

/// Numbers of contents, given out once in the life of the process.
static GENERATIONS: AtomicU64 = AtomicU64::new(1);

/// Where a block is.
#[derive(Clone, Debug)]
enum Held {
    /// In memory.
    Here(Arc<Block>),
    /// With the older months.
    Aside,
}

/// What stands where in a form's blocks. Slots and columns never move; new ones go to the end.
#[derive(Clone, Debug)]
struct Layout {
    code: FormCode,
    columns: Vec<ElementCode>,
    column_numbers: HashMap<ElementCode, usize>,
    slots: Vec<FacilityNo>,
    slot_of: HashMap<FacilityNo, Slot>,
}

/// Everything held of one form. A copy costs nothing to speak of: it shares all of it with the original until
/// either changes a part.
#[derive(Clone, Debug)]
pub struct FormStore {
    /// Its place among the cube's forms.
    number: usize,
    layout: Arc<Layout>,
    blocks: Arc<BTreeMap<Period, Held>>,
    /// Where the blocks are that are not in memory.
    older: Option<Arc<dyn Older>>,
    decisions: Arc<Decisions>,
    /// By month: the number of what its blocks hold.
    generations: Arc<HashMap<Period, u64>>,
}

impl FormStore {
    pub(super) fn new(number: usize, code: FormCode) -> FormStore {
        let layout = Layout {
            code,
            columns: Vec::new(),
            column_numbers: HashMap::default(),
            slots: Vec::new(),
            slot_of: HashMap::default(),
        };
        FormStore {
            number,
            layout: Arc::new(layout),
            blocks: Arc::default(),
            older: None,
            decisions: Arc::default(),
            generations: Arc::default(),
        }
    }

    pub(super) fn learn(&mut self, element: &ElementCode) -> usize {
        if let Some(&column) = self.layout.column_numbers.get(element) {
            return column;
        }
        let layout = Arc::make_mut(&mut self.layout);
        layout.columns.push(element.clone());
        layout.column_numbers.insert(element.clone(), layout.columns.len() - 1);
        layout.columns.len() - 1
    }

    /// The form's code.
    pub fn code(&self) -> &FormCode {
        &self.layout.code
    }

    /// The elements of the columns, in order of first appearance over all catalogue versions.
    pub fn columns(&self) -> &[ElementCode] {
        &self.layout.columns
    }

    /// The column of an element.
    pub fn column(&self, element: &str) -> Option<usize> {
        self.layout.column_numbers.get(element).copied()
    }

    /// The facilities by slot.
    pub fn slots(&self) -> &[FacilityNo] {
        &self.layout.slots
    }

    /// The slot of a facility.
    pub fn slot(&self, facility: FacilityNo) -> Option<Slot> {
        self.layout.slot_of.get(&facility).copied()
    }

    pub(super) fn slot_or_new(&mut self, facility: FacilityNo) -> Slot {
        if let Some(&slot) = self.layout.slot_of.get(&facility) {
            return slot;
        }
        let layout = Arc::make_mut(&mut self.layout);
        let next = u32::try_from(layout.slots.len()).expect("fewer than 2^32 facilities");
        layout.slots.push(facility);
        layout.slot_of.insert(facility, next);
        next
    }

    /// The block of a period, if anything was accepted for it: the one in memory, else loaded.
    pub fn block(&self, period: Period) -> Option<BlockRef<'_>> {
        self.blocks.get(&period).map(|held| self.read(period, held))
    }

    fn read<'a>(&self, period: Period, held: &'a Held) -> BlockRef<'a> {
        match held {
            Held::Here(block) => BlockRef::Here(block),
            Held::Aside => BlockRef::Loaded(self.load(period)),
        }
    }

    /// A block that is not in memory.
    fn load(&self, period: Period) -> Arc<Block> {
        let older =
            self.older.as_ref().expect("a block is put aside only where it can be had again");
        let month = older.month(self.number, month_of(period));
        month.block(period).cloned().unwrap_or_default()
    }

    /// The periods anything was accepted for, in order of time.
    pub fn periods(&self) -> impl Iterator<Item = Period> {
        self.blocks.keys().copied()
    }

    /// The blocks in order of time, loaded one by one where they are not in memory.
    pub fn blocks(&self) -> impl Iterator<Item = (Period, BlockRef<'_>)> {
        self.blocks.iter().map(|(period, held)| (*period, self.read(*period, held)))
    }

    /// The months in which the periods end that have blocks, in order.
    pub(crate) fn months(&self) -> BTreeSet<Period> {
        self.blocks.keys().map(|period| month_of(*period)).collect()
    }

    /// The blocks of the periods that end in `month`.
    pub(crate) fn month(&self, month: Period) -> impl Iterator<Item = (Period, BlockRef<'_>)> {
        let of_month = self.blocks.iter().filter(move |(period, _)| month_of(**period) == month);
        of_month.map(|(period, held)| (*period, self.read(*period, held)))
    }

    /// Takes a month into memory that was aside.
    pub(super) fn bring(&mut self, month: Month) {
        for (period, block) in month.into_blocks() {
            self.changed(period);
            Arc::make_mut(&mut self.blocks).insert(period, Held::Here(block));
        }
    }

    /// Puts a month aside: from now on it is had from where the older months are. Returns what was in memory.
    pub(super) fn put_aside(&mut self, month: Period) -> Vec<Arc<Block>> {
        let blocks = Arc::make_mut(&mut self.blocks);
        let of_month = blocks.iter_mut().filter(|(period, _)| month_of(**period) == month);
        let put = of_month.map(|(_, held)| std::mem::replace(held, Held::Aside));
        put.filter_map(|held| match held {
            Held::Here(block) => Some(block),
            Held::Aside => None,
        })
        .collect()
    }

    /// Whether any block of the month is in memory.
    pub(super) fn has_here(&self, month: Period) -> bool {
        let here = |held: &Held| matches!(held, Held::Here(_));
        self.blocks.iter().any(|(period, held)| month_of(*period) == month && here(held))
    }

    /// Whether the period's block is not in memory.
    pub(crate) fn is_aside(&self, period: Period) -> bool {
        matches!(self.blocks.get(&period), Some(Held::Aside))
    }

    /// Bytes of the blocks in memory whose periods end before `month`.
    pub(super) fn bytes_before(&self, month: Period) -> usize {
        let older = self.blocks.iter().filter(|(period, _)| month_of(**period) < month);
        let bytes = |held: &Held| match held {
            Held::Here(block) => block.heap_bytes(),
            Held::Aside => 0,
        };
        older.map(|(_, held)| bytes(held)).sum()
    }

    /// Where the blocks are from now on that are not in memory.
    pub(super) fn set_older(&mut self, older: Arc<dyn Older>) {
        self.older = Some(older);
    }

    /// The same form without its blocks.
    pub(super) fn without_blocks(&self) -> FormStore {
        FormStore {
            blocks: Arc::default(),
            older: None,
            generations: Arc::default(),
            ..self.clone()
        }
    }

    /// All of it but the blocks, to be kept.
    pub(super) fn frame(&self) -> FormFrame {
        let FormStore { number: _, layout, blocks, older: _, decisions, generations: _ } = self;
        let Layout { code, columns, column_numbers: _, slots, slot_of: _ } = &**layout;
        FormFrame {
            code: code.clone(),
            columns: columns.clone(),
            slots: slots.clone(),
            periods: blocks.keys().copied().collect(),
            decisions: Decisions::clone(decisions),
        }
    }

    /// The form of a frame, every block aside.
    pub(super) fn of_frame(number: usize, frame: FormFrame, older: Arc<dyn Older>) -> FormStore {
        let FormFrame { code, columns, slots, periods, decisions } = frame;
        let column_numbers = columns.iter().cloned().zip(0..).collect();
        let slot_of = slots.iter().copied().zip(0..).collect();
        let mut form = FormStore::new(number, code.clone());
        form.layout = Arc::new(Layout { code, columns, column_numbers, slots, slot_of });
        form.decisions = Arc::new(decisions);
        form.older = Some(older);
        form.blocks = Arc::new(periods.iter().map(|period| (*period, Held::Aside)).collect());
        periods.into_iter().for_each(|period| form.changed(period));
        form
    }

    /// A number for what the blocks of the month hold in which `period` ends: another one after every change,
    /// and never one that stood for other content.
    pub fn generation(&self, period: Period) -> u64 {
        self.generations.get(&month_of(period)).copied().unwrap_or(0)
    }

    fn changed(&mut self, period: Period) {
        let generations = Arc::make_mut(&mut self.generations);
        generations.insert(month_of(period), GENERATIONS.fetch_add(1, Ordering::Relaxed));
    }

    pub(super) fn block_mut(&mut self, period: Period) -> &mut Block {
        if !self.blocks.contains_key(&period) {
            Arc::make_mut(&mut self.blocks).insert(period, Held::Here(Arc::default()));
        }
        self.block_if(period).expect("it was put in just now")
    }

    pub(super) fn block_if(&mut self, period: Period) -> Option<&mut Block> {
        let aside = matches!(self.blocks.get(&period)?, Held::Aside);
        if aside {
            let block = self.load(period);
            Arc::make_mut(&mut self.blocks).insert(period, Held::Here(block));
        }
        self.changed(period);
        match Arc::make_mut(&mut self.blocks).get_mut(&period)? {
            // A snapshot may still be read: then the block is copied first.
            Held::Here(block) => Some(Arc::make_mut(block)),
            Held::Aside => None,
        }
    }

    /// What was decided about the reports.
    pub(super) fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    /// The same, to add to; the period's reports are about to be judged anew.
    pub(super) fn decisions_mut(&mut self, period: Period) -> &mut Decisions {
        self.changed(period);
        Arc::make_mut(&mut self.decisions)
    }

    /// What bears on a report's versions.
    pub(super) fn lock(&self, period: Period, slot: Slot) -> Option<Lock> {
        self.decisions.lock(period, slot, None)
    }

    /// Whether any of the period's reports was ever signed off or locked.
    pub fn has_stages(&self, period: Period) -> bool {
        self.decisions.has_stages(period)
    }

    /// What the newest sign-off or lock of a report saw of it; none if it is open.
    pub fn sealed(&self, period: Period, slot: Slot) -> Option<VersionVector> {
        self.decisions.sealed(period, slot)
    }

    /// How far the review of one report had come at `at` (none: now).
    pub fn stage(&self, period: Period, slot: Slot, at: Option<Millis>) -> Stage {
        self.decisions.stage_of(period, slot, at)
    }
}

/// The month a period ends in.
fn month_of(period: Period) -> Period {
    Period::containing(PeriodType::Month, period.last_day())
}
