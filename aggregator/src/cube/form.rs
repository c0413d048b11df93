//! One form's slots, columns and blocks.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use banyan_shared::ids::{ElementCode, FormCode};
use banyan_shared::period::{Period, PeriodType};

use super::{Block, FacilityNo, Lock, Slot};

/// Numbers of contents, given out once in the life of the process.
static GENERATIONS: AtomicU64 = AtomicU64::new(1);

/// Everything held of one form. Slots and columns never move; new ones go to the end.
#[derive(Clone, Debug)]
pub struct FormStore {
    code: FormCode,
    columns: Vec<ElementCode>,
    column_numbers: HashMap<ElementCode, usize>,
    slots: Vec<FacilityNo>,
    slot_of: HashMap<FacilityNo, Slot>,
    blocks: BTreeMap<Period, Block>,
    locks: HashMap<(Period, Slot), Lock>,
    /// By month: the number of what its blocks hold.
    generations: HashMap<Period, u64>,
}

impl FormStore {
    pub(super) fn new(code: FormCode) -> FormStore {
        FormStore {
            code,
            columns: Vec::new(),
            column_numbers: HashMap::new(),
            slots: Vec::new(),
            slot_of: HashMap::new(),
            blocks: BTreeMap::new(),
            locks: HashMap::new(),
            generations: HashMap::new(),
        }
    }

    pub(super) fn learn(&mut self, element: &ElementCode) -> usize {
        if let Some(&column) = self.column_numbers.get(element) {
            return column;
        }
        self.columns.push(element.clone());
        self.column_numbers.insert(element.clone(), self.columns.len() - 1);
        self.columns.len() - 1
    }

    /// The form's code.
    pub fn code(&self) -> &FormCode {
        &self.code
    }

    /// The elements of the columns, in order of first appearance over all catalogue versions.
    pub fn columns(&self) -> &[ElementCode] {
        &self.columns
    }

    /// The column of an element.
    pub fn column(&self, element: &str) -> Option<usize> {
        self.column_numbers.get(element).copied()
    }

    /// The facilities by slot.
    pub fn slots(&self) -> &[FacilityNo] {
        &self.slots
    }

    /// The slot of a facility.
    pub fn slot(&self, facility: FacilityNo) -> Option<Slot> {
        self.slot_of.get(&facility).copied()
    }

    pub(super) fn slot_or_new(&mut self, facility: FacilityNo) -> Slot {
        let next = u32::try_from(self.slots.len()).expect("fewer than 2^32 facilities");
        let slots = &mut self.slots;
        *self.slot_of.entry(facility).or_insert_with(|| {
            slots.push(facility);
            next
        })
    }

    /// The block of a period, if anything was accepted for it.
    pub fn block(&self, period: Period) -> Option<&Block> {
        self.blocks.get(&period)
    }

    /// The blocks in order of time.
    pub fn blocks(&self) -> impl Iterator<Item = (Period, &Block)> {
        self.blocks.iter().map(|(period, block)| (*period, block))
    }

    /// A number for what the blocks of the month hold in which `period` ends: another one after every change,
    /// and never one that stood for other content.
    pub fn generation(&self, period: Period) -> u64 {
        self.generations.get(&month_of(period)).copied().unwrap_or(0)
    }

    fn changed(&mut self, period: Period) {
        self.generations.insert(month_of(period), GENERATIONS.fetch_add(1, Ordering::Relaxed));
    }

    pub(super) fn block_mut(&mut self, period: Period) -> &mut Block {
        self.changed(period);
        self.blocks.entry(period).or_default()
    }

    pub(super) fn block_if(&mut self, period: Period) -> Option<&mut Block> {
        self.changed(period);
        self.blocks.get_mut(&period)
    }

    pub(super) fn lock(&self, period: Period, slot: Slot) -> Option<&Lock> {
        self.locks.get(&(period, slot))
    }

    pub(super) fn lock_mut(&mut self, period: Period, slot: Slot) -> &mut Lock {
        self.locks.entry((period, slot)).or_default()
    }
}

/// The month a period ends in.
fn month_of(period: Period) -> Period {
    Period::containing(PeriodType::Month, period.last_day())
}
