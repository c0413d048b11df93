//! A small number for each slot, in two bytes as long as all fit and in four from the first that does not: what an
//! agent enters reaches the centre within days, but after weeks without a line, or when an emptied centre gets
//! everything again, it is older than two bytes can say.

use super::block::grow;

/// See the module's text.
#[derive(Clone, Debug)]
pub(super) enum Minutes {
    Narrow(Vec<u16>),
    Wide(Vec<u32>),
}

impl Default for Minutes {
    fn default() -> Minutes {
        Minutes::Narrow(Vec::new())
    }
}

impl PartialEq for Minutes {
    fn eq(&self, other: &Minutes) -> bool {
        self.len() == other.len() && (0..self.len()).all(|at| self.get(at) == other.get(at))
    }
}

impl Eq for Minutes {}

impl Minutes {
    fn len(&self) -> usize {
        match self {
            Minutes::Narrow(list) => list.len(),
            Minutes::Wide(list) => list.len(),
        }
    }

    /// The number of a slot that there is room for.
    pub(super) fn get(&self, at: usize) -> u32 {
        match self {
            Minutes::Narrow(list) => u32::from(list[at]),
            Minutes::Wide(list) => list[at],
        }
    }

    /// Sets the number of a slot that there is room for.
    pub(super) fn set(&mut self, at: usize, number: u32) {
        match self {
            Minutes::Wide(list) => list[at] = number,
            Minutes::Narrow(list) => match u16::try_from(number) {
                Ok(number) => list[at] = number,
                Err(_) => {
                    let mut wide: Vec<u32> = list.iter().map(|n| u32::from(*n)).collect();
                    wide[at] = number;
                    *self = Minutes::Wide(wide);
                }
            },
        }
    }

    /// Makes room for so many slots; new ones have 0.
    pub(super) fn grow(&mut self, length: usize) {
        match self {
            Minutes::Narrow(list) => grow(list, length),
            Minutes::Wide(list) => grow(list, length),
        }
    }

    /// Bytes for each slot.
    pub(super) fn width(&self) -> usize {
        match self {
            Minutes::Narrow(_) => 2,
            Minutes::Wide(_) => 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_large_number_widens_all_and_changes_none() {
        let mut minutes = Minutes::default();
        minutes.grow(3);
        minutes.set(1, 65_535);
        let narrow = minutes.clone();
        assert_eq!(minutes.width(), 2);
        minutes.set(2, 65_536);
        assert_eq!(minutes.width(), 4);
        assert_eq!((0..3).map(|at| minutes.get(at)).collect::<Vec<_>>(), [0, 65_535, 65_536]);
        assert_ne!(minutes, narrow);
        // What it was once widened for may be gone.
        minutes.set(2, 0);
        assert_eq!(minutes, narrow);
        minutes.grow(4);
        assert_eq!(minutes.get(3), 0);
    }
}
