//! Sets of sectors.

use std::collections::BTreeMap;

/// A set of sectors, as ranges that neither overlap nor touch.
#[derive(Debug, Clone, Default)]
pub(super) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds the sectors from `start` to before `end`.
    pub(super) fn insert(&mut self, mut start: u64, mut end: u64) {
        if start >= end {
            return;
        }
        while let Some((from, to)) = self.0.range(..=end).next_back().map(|(f, t)| (*f, *t))
            && to >= start
        {
            self.0.remove(&from);
            (start, end) = (start.min(from), end.max(to));
        }
        self.0.insert(start, end);
    }

    /// Takes the sectors from `start` to before `end` out.
    pub(super) fn remove(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        while let Some((from, to)) = self.0.range(..end).next_back().map(|(f, t)| (*f, *t))
            && to > start
        {
            self.0.remove(&from);
            if to > end {
                self.0.insert(end, to);
            }
            if from < start {
                self.0.insert(from, start);
            }
        }
    }

    /// The parts of the range from `start` to before `end` that are in the set.
    pub(super) fn overlaps(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
        let first = self.0.range(..=start).next_back().map_or(start, |(from, _)| *from);
        let ranges = self.0.range(first..end.max(first));
        let parts = ranges.map(move |(from, to)| (start.max(*from), end.min(*to)));
        parts.filter(|(from, to)| from < to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    #[test]
    fn ranges_agree_with_a_plain_list_of_sectors() {
        let mut random = Random::new(1);
        let (mut ranges, mut plain) = (Ranges::default(), [false; 64]);
        for _ in 0..5000 {
            let (start, length) = (random.below(64), random.below(9));
            let end = (start + length).min(64);
            let add = random.once_in(2);
            if add {
                ranges.insert(start, end)
            } else {
                ranges.remove(start, end)
            }
            plain[start as usize..end as usize].fill(add);
            let (from, to) = (random.below(64), 64);
            let mut seen = [false; 64];
            for (start, end) in ranges.overlaps(from, to) {
                seen[start as usize..end as usize].fill(true);
            }
            assert_eq!(seen[from as usize..], plain[from as usize..]);
            let touching = ranges.0.values().filter(|end| ranges.0.contains_key(end));
            assert_eq!(touching.count(), 0);
        }
    }
}
