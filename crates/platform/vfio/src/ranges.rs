//! Where in the IOMMU's address space the arena goes.

use std::ops::RangeInclusive;

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

/// The lowest place for `bytes` in one piece, below 4 GiB if there is one.
pub(crate) fn place(ranges: &[RangeInclusive<u64>], bytes: u64) -> Option<u64> {
    let alignment = if bytes.is_multiple_of(LARGE) { LARGE } else { 4096 };
    let in_range = |range: &RangeInclusive<u64>| {
        let start = (*range.start()).max(FLOOR).checked_next_multiple_of(alignment)?;
        let last = start.checked_add(bytes.checked_sub(1)?)?;
        (last <= *range.end()).then_some(start)
    };
    let places = || ranges.iter().filter_map(in_range);
    let low = places().filter(|start| start + (bytes - 1) < FOUR_GIB).min();
    low.or_else(|| places().min())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

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
        assert_eq!(place(&[u64::MAX - 4095..=u64::MAX], 8192), None);
        assert_eq!(place(&[u64::MAX - 4095..=u64::MAX], 4096), Some(u64::MAX - 4095));
    }
}
