//! Where in the IOMMU's address space things go.

use outboard_hw::dma::NOWHERE;
use std::ops::{Range, RangeInclusive};

/// What devices with 32-bit addresses reach.
const FOUR_GIB: u64 = 1 << 32;
/// Nothing is mapped below: a device that is given address 0 by mistake, or a small number for an
/// address, faults.
const FLOOR: u64 = 1 << 20;
/// IOMMUs map so much with one entry.
const LARGE: u64 = 2 << 20;

/// What any IOMMU of a PC allows, for kernels that do not say: below 4 GiB, but for the window of
/// message-signalled interrupts (Intel SDM, volume 3A, §11.11.1).
pub(crate) fn unsaid() -> Vec<RangeInclusive<u64>> {
    vec![0..=0xfedf_ffff]
}

/// The addresses of a space: those that the IOMMU allows, and those that are taken.
#[derive(Debug)]
pub(crate) struct Addresses {
    allowed: Vec<RangeInclusive<u64>>,
    /// Disjoint, in ascending order.
    taken: Vec<Range<u64>>,
}

impl Addresses {
    pub(crate) const fn new(allowed: Vec<RangeInclusive<u64>>) -> Self {
        Self { allowed, taken: Vec::new() }
    }

    /// Bytes of the largest range that is allowed, for a message.
    pub(crate) fn largest(&self) -> u64 {
        let sizes = self.allowed.iter().map(|range| range.end().saturating_sub(*range.start()));
        sizes.max().unwrap_or(0)
    }

    /// Takes the lowest place for an arena of `bytes` in one piece, below 4 GiB if there is one.
    pub(crate) fn take_for_arena(&mut self, bytes: u64) -> Option<u64> {
        self.take(bytes, &[FLOOR..=FOUR_GIB - 1, FLOOR..=u64::MAX])
    }

    /// Takes the lowest place for foreign memory of `bytes` in one piece that ends at `highest` at
    /// the latest, from 4 GiB on if there is one: below it is little room, and some devices reach
    /// nothing else.
    pub(crate) fn take_for_foreign(&mut self, bytes: u64, highest: u64) -> Option<u64> {
        self.take(bytes, &[FOUR_GIB..=highest, FLOOR..=highest])
    }

    /// Gives a place back, by its first address.
    pub(crate) fn give(&mut self, start: u64) {
        self.taken.retain(|range| range.start != start);
    }

    /// Takes the lowest place within the first of these ranges that has one.
    fn take(&mut self, bytes: u64, within: &[RangeInclusive<u64>]) -> Option<u64> {
        let alignment = if bytes >= LARGE { LARGE } else { 4096 };
        let place = |within| {
            let places = self.allowed.iter();
            places.filter_map(|range| self.place(range, within, bytes, alignment)).min()
        };
        let start = within.iter().find_map(place)?;
        let next = self.taken.partition_point(|range| range.start < start);
        self.taken.insert(next, start..start + bytes);
        Some(start)
    }

    /// The lowest free place that lies in both of these ranges.
    fn place(
        &self,
        allowed: &RangeInclusive<u64>,
        within: &RangeInclusive<u64>,
        bytes: u64,
        alignment: u64,
    ) -> Option<u64> {
        let end = (*allowed.end()).min(*within.end()).min(NOWHERE - 1);
        let from = (*allowed.start()).max(*within.start());
        let mut start = from.checked_next_multiple_of(alignment)?;
        for taken in self.taken.iter().filter(|taken| taken.end > from) {
            if start.checked_add(bytes)? <= taken.start {
                break;
            }
            start = start.max(taken.end).checked_next_multiple_of(alignment)?;
        }
        let last = start.checked_add(bytes.checked_sub(1)?)?;
        (last <= end).then_some(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Where an arena goes in a space where nothing is taken.
    fn place(ranges: &[RangeInclusive<u64>], bytes: u64) -> Option<u64> {
        Addresses::new(ranges.to_vec()).take_for_arena(bytes)
    }

    #[test]
    fn the_arena_goes_below_four_gib_if_it_fits_there() {
        let pc = [0..=0xfedf_ffff, 0xfef0_0000..=u64::MAX >> 9];
        assert_eq!(place(&pc, 256 * MIB), Some(2 * MIB), "aligned to large pages, and not at 0");
        assert_eq!(place(&pc, 4096), Some(MIB));
        assert_eq!(place(&pc, 5 << 30), Some(0xfef0_0000u64.next_multiple_of(LARGE)));
        let high_first = [FOUR_GIB..=u64::MAX, 8 * MIB..=16 * MIB - 1];
        assert_eq!(place(&high_first, 8 * MIB), Some(8 * MIB));
        assert_eq!(place(&high_first, 10 * MIB), Some(FOUR_GIB));
    }

    #[test]
    fn ranges_that_are_too_small_backwards_or_at_the_end_hold_nothing() {
        assert_eq!(place(&[], 4096), None);
        assert_eq!(place(&[0..=MIB + 4095], 4096), Some(MIB));
        assert_eq!(place(&[0..=MIB + 4094], 4096), None);
        #[expect(clippy::reversed_empty_ranges, reason = "the kernel may say anything")]
        let backwards = [u64::MAX..=0];
        assert_eq!(place(&backwards, 4096), None);
        let last = NOWHERE - 4096;
        assert_eq!(place(&[last..=u64::MAX], 8192), None, "from there on there is nothing");
        assert_eq!(place(&[last..=u64::MAX], 4096), Some(last));
        assert_eq!(place(&[NOWHERE..=u64::MAX], 4096), None);
        assert_eq!(place(&[u64::MAX..=u64::MAX], u64::MAX), None);
    }

    #[test]
    fn foreign_memory_goes_beside_the_arena_and_no_higher_than_the_device_reaches() {
        let pc = [0..=0xfedf_ffff, 0xfef0_0000..=(1 << 39) - 1];
        let mut addresses = Addresses::new(pc.to_vec());
        let arena = addresses.take_for_arena(256 * MIB).unwrap();
        let first = addresses.take_for_foreign(6 << 30, u64::MAX);
        assert_eq!(first, Some(FOUR_GIB), "room below 4 GiB is left to those that need it");
        let second = addresses.take_for_foreign(4096, u64::MAX);
        assert_eq!(second, Some(FOUR_GIB + (6 << 30)));
        let low = addresses.take_for_foreign(64 * MIB, FOUR_GIB - 1);
        assert_eq!(low, Some(arena + 256 * MIB));
        assert_eq!(addresses.take_for_foreign(4 << 30, FOUR_GIB - 1), None);
        assert_eq!(addresses.take_for_foreign(512 << 30, u64::MAX), None, "39 bits are all");
        assert_eq!(addresses.take_for_foreign(0, u64::MAX), None);
    }

    #[test]
    fn places_that_were_given_back_are_taken_again() {
        let mut addresses = Addresses::new(vec![0..=(1 << 39) - 1]);
        let places: Vec<_> =
            (0..4).filter_map(|_| addresses.take_for_foreign(8 * MIB, u64::MAX)).collect();
        let expected: Vec<_> = (0..4).map(|place| FOUR_GIB + place * 8 * MIB).collect();
        assert_eq!(places, expected);
        addresses.give(places[1]);
        assert_eq!(addresses.take_for_foreign(10 * MIB, u64::MAX), Some(FOUR_GIB + 32 * MIB));
        assert_eq!(addresses.take_for_foreign(3 * MIB, u64::MAX), Some(places[1]));
        // Behind three MiB the next large page begins at four.
        assert_eq!(addresses.take_for_foreign(4 * MIB, u64::MAX), Some(places[1] + 4 * MIB));
        addresses.give(places[0]);
        addresses.give(places[1]);
        assert_eq!(addresses.take_for_foreign(12 * MIB, u64::MAX), Some(places[0]));
    }
}
