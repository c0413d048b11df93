//! One element's values for one form and period: a cell of four bytes for every slot.

use std::collections::BTreeMap;

use banyan_shared::report::Value;

use super::Slot;
use super::block::room;

/// No number: no report, or a report that leaves the element open.
const MISSING: u32 = u32::MAX;
/// "Not applicable".
const NOT_APPLICABLE: u32 = u32::MAX - 1;
/// A number too large for a cell, held aside.
const LARGE: u32 = u32::MAX - 2;

/// One element's values for one form and period. Slots beyond its length are missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    pub(super) cells: Vec<u32>,
    pub(super) large: BTreeMap<Slot, u64>,
}

/// What [`Column::scan`] found in a range of slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// The sum of the numbers.
    pub sum: u128,
    /// Cells with a number.
    pub numbers: u64,
    /// Cells "not applicable".
    pub not_applicable: u64,
}

impl Column {
    /// The value at `slot`.
    pub fn value(&self, slot: Slot) -> Value {
        match self.cells.get(slot as usize) {
            None | Some(&MISSING) => Value::Missing,
            Some(&NOT_APPLICABLE) => Value::NotApplicable,
            Some(&LARGE) => self.large.get(&slot).map_or(Value::Missing, |n| Value::Number(*n)),
            Some(&n) => Value::Number(u64::from(n)),
        }
    }

    /// Sets the value at `slot` of a form with `slots` slots.
    pub(super) fn set(&mut self, slot: Slot, slots: usize, value: Value) {
        let at = slot as usize;
        if at >= self.cells.len() {
            if value == Value::Missing {
                return;
            }
            let length = slots.max(at + 1);
            self.cells.reserve_exact(room(self.cells.len(), length));
            self.cells.resize(length, MISSING);
        }
        if self.cells[at] == LARGE {
            self.large.remove(&slot);
        }
        self.cells[at] = match value {
            Value::Missing => MISSING,
            Value::NotApplicable => NOT_APPLICABLE,
            Value::Number(n) => match u32::try_from(n) {
                Ok(n) if n < LARGE => n,
                _ => {
                    self.large.insert(slot, n);
                    LARGE
                }
            },
        };
    }

    /// Adds up the slots from `first` on, one for each place of `numbers`, which counts at its place the
    /// cells with a number.
    pub fn scan(&self, first: Slot, numbers: &mut [u16]) -> Scan {
        let from = (first as usize).min(self.cells.len());
        let cells = &self.cells[from..self.cells.len().min(from + numbers.len())];
        let (mut sum, mut found, mut not_applicable) = (0u64, 0u64, 0u64);
        for (cell, count) in cells.iter().zip(numbers.iter_mut()) {
            let number = *cell < LARGE;
            sum += if number { u64::from(*cell) } else { 0 };
            found += u64::from(number);
            *count += u16::from(number);
            not_applicable += u64::from(*cell == NOT_APPLICABLE);
        }
        let mut scan = Scan { sum: u128::from(sum), numbers: found, not_applicable };
        if !self.large.is_empty() {
            let end = first.saturating_add(u32::try_from(numbers.len()).unwrap_or(u32::MAX));
            for (slot, n) in self.large.range(first..end) {
                numbers[(slot - first) as usize] += 1;
                scan.numbers += 1;
                scan.sum += u128::from(*n);
            }
        }
        scan
    }

    /// Bytes held on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.cells.capacity() * 4 + self.large.len() * 24
    }
}
