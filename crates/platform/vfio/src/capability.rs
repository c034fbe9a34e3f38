//! Capabilities behind an answer of the kernel: a list that is linked by offsets.

use std::ops::RangeInclusive;
use vfio_bindings::bindings::vfio::{
    VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, VFIO_REGION_INFO_CAP_SPARSE_MMAP,
};

/// `struct vfio_info_cap_header`: identifier, version, offset of the next one.
const HEADER_BYTES: usize = 8;

/// Iterator over identifiers and bodies. A list that loops or leaves the answer ends.
struct Capabilities<'a> {
    answer: &'a [u8],
    next: usize,
    steps_left: usize,
}

impl<'a> Capabilities<'a> {
    fn new(answer: &'a [u8], first: u32) -> Self {
        Self { answer, next: first as usize, steps_left: answer.len() / HEADER_BYTES }
    }
}

impl<'a> Iterator for Capabilities<'a> {
    type Item = (u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == 0 || self.steps_left == 0 {
            return None;
        }
        self.steps_left -= 1;
        let capability = self.answer.get(self.next..)?;
        let id = u16::from_ne_bytes(*capability.first_chunk()?);
        let next = u32::from_ne_bytes(*capability.get(4..)?.first_chunk()?);
        self.next = next as usize;
        Some((id.into(), capability.get(HEADER_BYTES..)?))
    }
}

/// The pairs of numbers in a capability that holds a count, a reserved word, and as many pairs.
fn pairs(answer: &[u8], first: u32, id: u32) -> Option<Vec<(u64, u64)>> {
    let (_, body) = Capabilities::new(answer, first).find(|(found, _)| *found == id)?;
    let count = u32::from_ne_bytes(*body.first_chunk()?) as usize;
    let number = |bytes: &[u8]| bytes.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes));
    let pairs = body.get(8..)?.chunks_exact(16).take(count);
    Some(pairs.filter_map(|pair| Some((number(pair)?, number(&pair[8..])?))).collect())
}

/// The addresses that an IOMMU allows (`VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE`); `None` if the
/// kernel is too old to say.
pub(crate) fn iova_ranges(answer: &[u8], first: u32) -> Option<Vec<RangeInclusive<u64>>> {
    let pairs = pairs(answer, first, VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE)?;
    Some(pairs.into_iter().map(|(start, end)| start..=end).collect())
}

/// The parts of a region that can be mapped, as offset and length
/// (`VFIO_REGION_INFO_CAP_SPARSE_MMAP`); `None` if it is not said, which means all of it.
pub(crate) fn sparse_areas(answer: &[u8], first: u32) -> Option<Vec<(u64, u64)>> {
    pairs(answer, first, VFIO_REGION_INFO_CAP_SPARSE_MMAP)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer with 24 bytes of something else in front.
    fn answer(capabilities: &[(u16, u32, &[u64])]) -> Vec<u8> {
        let mut bytes = vec![0; 24];
        for (id, next, words) in capabilities {
            bytes.extend(id.to_ne_bytes());
            bytes.extend(1u16.to_ne_bytes());
            bytes.extend(next.to_ne_bytes());
            words.iter().for_each(|word| bytes.extend(word.to_ne_bytes()));
        }
        bytes
    }

    #[test]
    fn ranges_are_found_behind_other_capabilities() {
        let bytes = answer(&[(3, 40, &[9]), (1, 0, &[2, 0, 0xfedf_ffff, 0xfef0_0000, u64::MAX])]);
        let found = iova_ranges(&bytes, 24).unwrap();
        assert_eq!(found, [0..=0xfedf_ffff, 0xfef0_0000..=u64::MAX]);
        assert_eq!(iova_ranges(&bytes, 0), None, "there are no capabilities");
    }

    #[test]
    fn areas_of_a_region_without_any_are_none_at_all() {
        assert_eq!(sparse_areas(&answer(&[(1, 0, &[0])]), 24), Some(Vec::new()));
        assert_eq!(sparse_areas(&answer(&[(2, 0, &[0])]), 24), None);
    }

    #[test]
    fn lists_that_loop_or_lead_nowhere_end() {
        assert_eq!(iova_ranges(&answer(&[(3, 24, &[1])]), 24), None);
        assert_eq!(iova_ranges(&answer(&[(3, 4000, &[1])]), 24), None);
        assert_eq!(iova_ranges(&answer(&[]), 24), None);
        assert_eq!(iova_ranges(&[], u32::MAX), None);
        let short = answer(&[(1, 0, &[u64::MAX, 1, 2, 3])]);
        assert_eq!(iova_ranges(&short, 24).unwrap(), [1..=2], "no more than is there");
        for len in 0..short.len() {
            let found = iova_ranges(&short[..len], 24).unwrap_or_default();
            assert!(found.len() <= 1);
        }
    }
}
