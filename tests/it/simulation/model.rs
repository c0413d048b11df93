//! What people typed, and what the figures must be: knows nothing of numbers, lives, receipts or order of
//! arrival.

use banyan_shared::report::How;

/// The report a version is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Register {
    pub(super) facility: u32,
    pub(super) form: u16,
    pub(super) period: i32,
}

/// Facilities from here on are outside every scope: refused.
pub(super) const OUT_OF_SCOPE: u32 = 8;
/// Periods from here on have not begun: parked until they are released.
pub(super) const FUTURE: i32 = 3;

/// One writing of a report. Its place in [`Model::typed`] stands in its first value, so that it is known
/// again wherever it turns up.
#[derive(Clone, Debug)]
pub(super) struct Typed {
    pub(super) register: Register,
    pub(super) how: How,
    /// The timeline of the machine it was typed on, and its place there.
    branch: usize,
    at: usize,
    /// What its author was shown and replaced knowingly.
    pub(super) named: Vec<usize>,
    /// A disk it stood on was lost, damaged, put back or tidied: it need not be found.
    pub(super) lost: bool,
    /// How often the queue appended it again behind an old version.
    pub(super) copies: usize,
    /// How often it moved to another number.
    pub(super) moves: usize,
}

/// Everything typed in a run.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) typed: Vec<Typed>,
    /// Where each timeline forked off another, and its length.
    branches: Vec<(Option<(usize, usize)>, usize)>,
}

impl Model {
    pub(super) fn branch(&mut self, from: Option<(usize, usize)>) -> usize {
        self.branches.push((from, from.map_or(0, |(_, at)| at)));
        self.branches.len() - 1
    }

    pub(super) fn length(&self, branch: usize) -> usize {
        self.branches[branch].1
    }

    pub(super) fn write(
        &mut self,
        branch: usize,
        register: Register,
        how: How,
        named: Vec<usize>,
    ) -> usize {
        let at = self.branches[branch].1;
        self.branches[branch].1 += 1;
        self.typed.push(Typed {
            register,
            how,
            branch,
            at,
            named,
            lost: false,
            copies: 0,
            moves: 0,
        });
        self.typed.len() - 1
    }

    /// Whether the machine that wrote `newer` had written `older` before.
    pub(super) fn same_hand(&self, older: usize, newer: usize) -> bool {
        let (o, n) = (&self.typed[older], &self.typed[newer]);
        let (mut branch, mut end) = (n.branch, n.at);
        loop {
            if branch == o.branch {
                return o.at < end;
            }
            match self.branches[branch].0 {
                Some((parent, at)) => (branch, end) = (parent, at.min(end)),
                None => return false,
            }
        }
    }

    /// The versions among `held`, all of one register, that nothing in it replaces.
    pub(super) fn latest(&self, held: &[usize]) -> Vec<usize> {
        let replaced = |older: usize| {
            held.iter().any(|&newer| {
                newer != older
                    && (self.same_hand(older, newer) || self.typed[newer].named.contains(&older))
            })
        };
        held.iter().copied().filter(|&no| !replaced(no)).collect()
    }
}
