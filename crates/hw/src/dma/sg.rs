//! The memory of one transfer.

use super::{Constraints, DeviceAddress, DmaBuffer, DmaError};
use alloc::vec::Vec;
use core::ops::Range;

/// The memory of one transfer: parts of buffers, in order, owned.
///
/// A list travels with its request into the driver and comes back with the completion. A list of
/// one part, the common case, allocates nothing.
#[derive(Debug, Default)]
pub struct SgList {
    first: Option<Part>,
    rest: Vec<Part>,
    bytes: usize,
}

#[derive(Debug)]
struct Part {
    buffer: DmaBuffer,
    range: Range<usize>,
}

/// A contiguous piece of a transfer, as a descriptor names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where the device finds it.
    pub address: DeviceAddress,
    /// Its length in bytes; never zero.
    pub bytes: u64,
}

impl SgList {
    /// A list without any memory, for requests that transfer nothing.
    pub const EMPTY: Self = Self { first: None, rest: Vec::new(), bytes: 0 };

    /// The bytes `range` of one buffer.
    #[track_caller]
    pub fn single(buffer: DmaBuffer, range: Range<usize>) -> Self {
        let mut list = Self::EMPTY;
        list.push(buffer, range);
        list
    }

    /// Appends the bytes `range` of `buffer`; panics if they lie outside it.
    #[track_caller]
    pub fn push(&mut self, buffer: DmaBuffer, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= buffer.len(), "{range:?} of {buffer:?}");
        self.bytes += range.len();
        let part = Part { buffer, range };
        match &self.first {
            None => self.first = Some(part),
            Some(_) => self.rest.push(part),
        }
    }

    /// Bytes in all parts together.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the buffers out, in order.
    pub fn into_buffers(self) -> impl Iterator<Item = DmaBuffer> {
        self.first.into_iter().chain(self.rest).map(|part| part.buffer)
    }

    /// The segments that a device sees: neighbours are merged, and what is longer than the device
    /// takes or crosses its boundary is split.
    pub fn segments(&self, constraints: &Constraints) -> Segments<'_> {
        Segments { parts: self.parts_from(0), pending: None, limits: *constraints }
    }

    /// Counts the segments, and checks alignment, reach and number against `constraints`.
    pub fn check(&self, constraints: &Constraints) -> Result<usize, DmaError> {
        let mut count = 0;
        for segment in self.segments(constraints) {
            count += 1;
            let last = segment.address.bits() + (segment.bytes - 1);
            let aligned = segment.address.bits().is_multiple_of(constraints.alignment)
                && segment.bytes.is_multiple_of(constraints.alignment);
            if !aligned || last > constraints.highest_address {
                return Err(DmaError::Impossible { requested: self.bytes });
            }
            if count > constraints.max_segments {
                return Err(DmaError::TooManySegments { max: constraints.max_segments });
            }
        }
        Ok(count)
    }

    /// Makes what was written visible to the device; see [`DmaBuffer::sync_for_device`].
    pub fn sync_for_device(&self) {
        self.parts_from(0).for_each(|part| part.buffer.sync_for_device(part.range.clone()));
    }

    /// Makes what the device wrote visible here; see [`DmaBuffer::sync_for_cpu`].
    pub fn sync_for_cpu(&self) {
        self.parts_from(0).for_each(|part| part.buffer.sync_for_cpu(part.range.clone()));
    }

    fn parts_from(&self, index: usize) -> PartsFrom<'_> {
        self.first.iter().chain(&self.rest).skip(index)
    }
}

type PartsFrom<'a> =
    core::iter::Skip<core::iter::Chain<core::option::Iter<'a, Part>, core::slice::Iter<'a, Part>>>;

/// Iterator over the segments of an [`SgList`].
#[derive(Debug)]
pub struct Segments<'a> {
    parts: PartsFrom<'a>,
    /// Contiguous addresses that were gathered but not given out yet.
    pending: Option<Range<u64>>,
    limits: Constraints,
}

impl Segments<'_> {
    /// How much of a contiguous range one segment may hold.
    fn limit(&self, range: &Range<u64>) -> u64 {
        let to_boundary = match self.limits.boundary {
            0 => u64::MAX,
            boundary => boundary - range.start % boundary,
        };
        // Splitting must leave the rest aligned.
        let most = self.limits.max_segment_bytes / self.limits.alignment * self.limits.alignment;
        (range.end - range.start).min(to_boundary).min(most.max(1))
    }
}

impl Iterator for Segments<'_> {
    type Item = Segment;

    fn next(&mut self) -> Option<Segment> {
        let mut range = self.pending.take().unwrap_or(0..0);
        loop {
            if !range.is_empty() && self.limit(&range) < range.end - range.start {
                break;
            }
            let Some(part) = self.parts.next() else { break };
            if part.range.is_empty() {
                continue;
            }
            let start = part.buffer.address().bits() + part.range.start as u64;
            let end = start + part.range.len() as u64;
            if range.is_empty() {
                range = start..end;
            } else if range.end == start {
                range.end = end;
            } else {
                self.pending = Some(start..end);
                break;
            }
        }
        if range.is_empty() {
            return None;
        }
        let bytes = self.limit(&range);
        if range.start + bytes < range.end {
            self.pending = Some(range.start + bytes..range.end);
        }
        Some(Segment { address: DeviceAddress::new(range.start), bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::super::DmaSpace;
    use super::super::arena::tests::arena;
    use super::*;
    use proptest::prelude::*;

    fn segments(list: &SgList, constraints: &Constraints) -> Vec<(u64, u64)> {
        list.segments(constraints).map(|s| (s.address.bits(), s.bytes)).collect()
    }

    #[test]
    fn neighbours_are_merged() {
        let arena = arena(64 * 1024);
        let (a, b) =
            (arena.allocate(4096, &Constraints::NONE), arena.allocate(4096, &Constraints::NONE));
        let (a, b) = (a.unwrap(), b.unwrap());
        let start = a.address().bits();
        let mut list = SgList::single(a, 512..4096);
        list.push(b, 0..100);
        assert_eq!(segments(&list, &Constraints::NONE), [(start + 512, 3684)]);
        assert_eq!(list.bytes(), 3684);
        assert_eq!(list.into_buffers().count(), 2);
    }

    #[test]
    fn long_pieces_are_split_at_the_size_and_at_the_boundary() {
        let arena = arena(64 * 1024);
        let buffer = arena.allocate(10_000, &Constraints::NONE.aligned(8192)).unwrap();
        let start = buffer.address().bits();
        let list = SgList::single(buffer, 1000..10_000);
        let limits = Constraints {
            max_segment_bytes: 5000,
            boundary: 8192,
            alignment: 2,
            ..Constraints::NONE
        };
        let expected = [(start + 1000, 5000), (start + 6000, 2192), (start + 8192, 1808)];
        assert_eq!(segments(&list, &limits), expected);
        assert_eq!(list.check(&limits), Ok(3));
        let two = Constraints { max_segments: 2, ..limits };
        assert_eq!(list.check(&two), Err(DmaError::TooManySegments { max: 2 }));
        let coarse = Constraints::NONE.aligned(16);
        assert_eq!(list.check(&coarse), Err(DmaError::Impossible { requested: 9000 }));
    }

    #[test]
    fn an_empty_list_has_no_segments() {
        assert_eq!(SgList::EMPTY.segments(&Constraints::NONE).next(), None);
        let arena = arena(4096);
        let list = SgList::single(arena.allocate(10, &Constraints::NONE).unwrap(), 5..5);
        assert_eq!(list.segments(&Constraints::NONE).next(), None);
    }

    proptest! {
        #[test]
        fn segments_cover_the_parts_exactly_and_keep_the_limits(
            parts in prop::collection::vec((1usize..9000, 0usize..9000, 0usize..9000), 0..12),
            limit in 1u64..6000,
            boundary in 9u32..15,
        ) {
            let arena = arena(256 * 1024);
            let mut list = SgList::EMPTY;
            let mut bytes = Vec::new();
            for (len, a, b) in parts {
                let buffer = arena.allocate(len, &Constraints::NONE).unwrap();
                let (start, end) = (a.min(b).min(len), a.max(b).min(len));
                let first = buffer.address().bits();
                bytes.extend((start..end).map(|offset| first + offset as u64));
                list.push(buffer, start..end);
            }
            let boundary = 1 << boundary;
            let limits = Constraints { max_segment_bytes: limit, boundary, ..Constraints::NONE };
            let mut covered = Vec::new();
            for (start, len) in segments(&list, &limits) {
                prop_assert!(len > 0 && len <= limit);
                prop_assert_eq!(start / boundary, (start + len - 1) / boundary);
                covered.extend(start..start + len);
            }
            prop_assert_eq!(covered, bytes);
        }
    }
}
