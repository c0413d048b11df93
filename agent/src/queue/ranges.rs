//! Sets of sequence numbers kept as sorted, disjoint, inclusive ranges.

use banyan_shared::ids::Seq;

/// An inclusive range of sequence numbers.
pub type SeqRange = (Seq, Seq);

/// A set of sequence numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeqSet(Vec<SeqRange>);

impl SeqSet {
    /// The set of these ranges, in any order and overlapping or not; empty ones are ignored.
    pub(crate) fn from_ranges(ranges: impl IntoIterator<Item = SeqRange>) -> Self {
        let mut set = Self::default();
        for range in ranges {
            set.insert(range);
        }
        set
    }

    pub(crate) fn ranges(&self) -> &[SeqRange] {
        &self.0
    }

    pub(crate) fn contains(&self, seq: Seq) -> bool {
        let after = self.0.partition_point(|&(first, _)| first <= seq);
        after > 0 && self.0[after - 1].1 >= seq
    }

    pub(crate) fn insert(&mut self, (first, last): SeqRange) {
        if first > last {
            return;
        }
        // Ranges that touch or overlap the new one are replaced by one range over all of them.
        let from = self.0.partition_point(|&(_, end)| end < first.saturating_sub(1));
        let to = self.0.partition_point(|&(start, _)| start <= last.saturating_add(1));
        let (mut first, mut last) = (first, last);
        if from < to {
            first = first.min(self.0[from].0);
            last = last.max(self.0[to - 1].1);
        }
        self.0.splice(from..to, [(first, last)]);
    }

    pub(crate) fn remove(&mut self, (first, last): SeqRange) {
        if first > last {
            return;
        }
        let from = self.0.partition_point(|&(_, end)| end < first);
        let to = self.0.partition_point(|&(start, _)| start <= last);
        if from >= to {
            return;
        }
        let mut kept = Vec::with_capacity(2);
        let (start, end) = (self.0[from].0, self.0[to - 1].1);
        if start < first {
            kept.push((start, first - 1));
        }
        if end > last {
            kept.push((last + 1, end));
        }
        self.0.splice(from..to, kept);
    }

    /// How many numbers are in the set.
    pub(crate) fn len(&self) -> u64 {
        self.0.iter().map(|&(first, last)| last - first + 1).sum()
    }
}
