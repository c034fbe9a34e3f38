//! Free address ranges.

use alloc::vec::Vec;
use core::ops::Range;

/// Free ranges of an address space; first fit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ranges {
    /// Disjoint, ascending.
    free: Vec<Range<u64>>,
}

impl Ranges {
    /// All of `range` is free.
    pub(crate) fn new(range: Range<u64>) -> Self {
        let mut ranges = Self::default();
        if !range.is_empty() {
            ranges.free.push(range);
        }
        ranges
    }

    /// Takes `taken` out, as far as it was free; nothing, if it is empty.
    pub(crate) fn remove(&mut self, taken: Range<u64>) {
        if taken.is_empty() {
            return;
        }
        let free = core::mem::take(&mut self.free);
        let pieces = free.into_iter().flat_map(|free| {
            [free.start..free.end.min(taken.start), free.start.max(taken.end)..free.end]
        });
        self.free = pieces.filter(|piece| !piece.is_empty()).collect();
    }

    /// Takes the lowest `size` bytes whose start is a multiple of `alignment`.
    pub(crate) fn take(&mut self, size: u64, alignment: u64) -> Option<Range<u64>> {
        let taken = self.free.iter().find_map(|free| {
            let start = free.start.checked_next_multiple_of(alignment)?;
            let end = start.checked_add(size)?;
            (end <= free.end).then_some(start..end)
        })?;
        self.remove(taken.clone());
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_taken_aligned_and_never_twice() {
        let mut ranges = Ranges::new(0x1100..0x4000);
        ranges.remove(0x2000..0x2800);
        assert_eq!(ranges.take(0x800, 0x800), Some(0x1800..0x2000));
        assert_eq!(ranges.take(0x1000, 0x1000), Some(0x3000..0x4000));
        assert_eq!(ranges.take(0x1000, 0x100), None);
        assert_eq!(ranges.take(0x700, 0x100), Some(0x1100..0x1800));
        assert_eq!(ranges.take(0x800, 0x100), Some(0x2800..0x3000));
        assert_eq!(ranges.take(1, 1), None);
    }

    #[test]
    fn removing_more_than_is_free_is_harmless() {
        let mut ranges = Ranges::new(0x1000..0x2000);
        ranges.remove(0..0x1100);
        ranges.remove(0x1f00..u64::MAX);
        assert_eq!(ranges.take(0xe00, 1), Some(0x1100..0x1f00));
        assert_eq!(Ranges::new(5..5).take(1, 1), None);
    }

    #[test]
    #[expect(clippy::reversed_empty_ranges, reason = "that is what is tried")]
    fn removing_nothing_leaves_every_address_free_once() {
        let mut ranges = Ranges::new(0x1000..0x2000);
        ranges.remove(0x1800..0x1800);
        ranges.remove(0x1c00..0x1400);
        assert_eq!(ranges.take(0x1000, 1), Some(0x1000..0x2000));
        assert_eq!(ranges.take(1, 1), None);
    }
}
