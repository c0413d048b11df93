//! What of a table of counts the public is not shown: small numbers, and enough beside them that no total gives
//! them back.
//!
//! Zero is no small number: it says of nobody that he was there.

/// One count of a table, and the sets whose totals it is part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicCell {
    /// The count.
    pub value: u64,
    /// The sets (places above it, the whole), each by a number of its own.
    pub sets: Vec<u32>,
}

/// Which cells are withheld: those from 1 to below `below`, and beside each at least one more in every set that
/// holds any other, so that the set's total less what is shown is never a single count.
pub fn withheld(cells: &[PublicCell], below: u64) -> Vec<bool> {
    let mut hidden: Vec<bool> =
        cells.iter().map(|cell| cell.value > 0 && cell.value < below).collect();
    let mut sets: Vec<(u32, Vec<usize>)> = Vec::new();
    for (at, cell) in cells.iter().enumerate() {
        for set in &cell.sets {
            match sets.iter_mut().find(|(known, _)| known == set) {
                Some((_, members)) if members.last() == Some(&at) => {}
                Some((_, members)) => members.push(at),
                None => sets.push((*set, vec![at])),
            }
        }
    }
    // The smallest sets first: what is withheld for them counts for the larger ones.
    sets.sort_by_key(|(set, members)| (members.len(), *set));
    // Each round withholds one more, or ends.
    loop {
        let lone = sets.iter().find_map(|(_, members)| {
            let alone = members.iter().filter(|at| hidden[**at]).count() == 1;
            let others = members.iter().filter(|at| !hidden[**at]);
            // The least of the others says least; a zero only where there is nothing else.
            alone.then(|| {
                others.min_by_key(|at| (cells[**at].value == 0, cells[**at].value, **at))
            })?
        });
        match lone {
            Some(at) => hidden[*at] = true,
            None => return hidden,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cells(list: &[(u64, &[u32])]) -> Vec<PublicCell> {
        list.iter().map(|(value, sets)| PublicCell { value: *value, sets: sets.to_vec() }).collect()
    }

    #[test]
    fn a_small_number_goes_with_the_least_of_its_set() {
        let table = cells(&[(3, &[1, 9]), (40, &[1, 9]), (7, &[1, 9]), (0, &[1, 9]), (5, &[2, 9])]);
        assert_eq!(withheld(&table, 5), [true, false, true, false, false]);
        assert_eq!(withheld(&table, 3), [false; 5], "three is none below three");
        // Beside nothing but zeros a zero is withheld; alone in its set it stands for the set's own total.
        let table = cells(&[(2, &[1]), (0, &[1]), (0, &[1]), (4, &[2])]);
        assert_eq!(withheld(&table, 5), [true, true, false, true]);
        // Two small ones need no third, and what is alone in the county is not alone in the province.
        let table = cells(&[(1, &[1, 9]), (2, &[1, 9]), (1, &[2, 9]), (9, &[2, 9])]);
        assert_eq!(withheld(&table, 5), [true, true, true, true]);
    }

    proptest! {
        #[test]
        fn no_total_gives_a_count_back(
            counts in prop::collection::vec((0u64..12, 0u32..3, 0u32..2), 0..20),
            below in 1u64..7,
        ) {
            let cells: Vec<PublicCell> = counts
                .iter()
                .map(|(value, low, high)| PublicCell { value: *value, sets: vec![*low, 10 + *high, 99] })
                .collect();
            let hidden = withheld(&cells, below);
            for (cell, hidden) in cells.iter().zip(&hidden) {
                prop_assert!(*hidden || cell.value == 0 || cell.value >= below);
            }
            for set in [0, 1, 2, 10, 11, 99] {
                let of_set: Vec<usize> =
                    (0..cells.len()).filter(|at| cells[*at].sets.contains(&set)).collect();
                let gone = of_set.iter().filter(|at| hidden[**at]).count();
                prop_assert!(gone != 1 || of_set.len() == 1, "one of {} in {set}", of_set.len());
            }
            if cells.iter().all(|cell| cell.value == 0 || cell.value >= below) {
                prop_assert!(!hidden.contains(&true), "nothing small, nothing withheld");
            }
        }
    }
}
