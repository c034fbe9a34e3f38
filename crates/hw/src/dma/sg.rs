//! The memory of one transfer.

use super::{Constraints, DeviceAddress, DmaBuffer, DmaError};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;
use zerocopy::{Immutable, IntoBytes};

/// The memory of one transfer: parts of buffers, in order, owned.
///
/// A list travels with its request into the driver and comes back with the completion. A list of
/// one part, the common case, allocates nothing and is a cache line long.
#[derive(Debug, Default)]
pub struct SgList {
    first: Option<Part>,
    rest: Option<Box<Rest>>,
}

const _: () = assert!(size_of::<SgList>() <= 64);

/// A part of a buffer. It is described in 32 bits each, so that a list is short.
#[derive(Debug)]
struct Part {
    buffer: DmaBuffer,
    start: u32,
    bytes: u32,
}

impl Part {
    #[track_caller]
    #[inline]
    fn new(buffer: DmaBuffer, range: Range<usize>) -> Self {
        let (start, bytes) = Self::within(&buffer, &range);
        Self { buffer, start, bytes }
    }

    /// Where bytes of a buffer begin, and how many they are.
    #[track_caller]
    #[inline]
    fn within(buffer: &DmaBuffer, range: &Range<usize>) -> (u32, u32) {
        assert!(range.start <= range.end && range.end <= buffer.len(), "{range:?} of {buffer:?}");
        let (start, bytes) = (u32::try_from(range.start), u32::try_from(range.end - range.start));
        let (Ok(start), Ok(bytes)) = (start, bytes) else { too_far(range) };
        (start, bytes)
    }

    #[inline]
    const fn bytes(&self) -> usize {
        self.bytes as usize
    }

    #[inline]
    const fn range(&self) -> Range<usize> {
        self.start as usize..self.start as usize + self.bytes as usize
    }

    /// Where the device finds its first byte, or, if it is empty, perhaps the one behind the buffer.
    #[inline]
    const fn start(&self) -> u64 {
        self.buffer.address().bits() + self.start as u64
    }
}

#[cold]
#[track_caller]
fn too_far(range: &Range<usize>) -> ! {
    panic!("{range:?} is not within 4 GiB");
}

/// The parts behind the first one.
#[derive(Debug, Default)]
struct Rest {
    parts: Vec<Part>,
    bytes: usize,
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
    pub const EMPTY: Self = Self { first: None, rest: None };

    /// The bytes `range` of one buffer.
    #[track_caller]
    #[inline]
    pub fn single(buffer: DmaBuffer, range: Range<usize>) -> Self {
        Self { first: Some(Part::new(buffer, range)), rest: None }
    }

    /// Makes a list with a single part one of other bytes of the same buffer, to be written anew; panics
    /// if they lie outside it.
    #[track_caller]
    #[inline]
    pub fn reuse(&mut self, range: Range<usize>) -> Option<&mut DmaBuffer> {
        let part = self.first.as_mut().filter(|_| self.rest.is_none())?;
        (part.start, part.bytes) = Part::within(&part.buffer, &range);
        Some(&mut part.buffer)
    }

    /// Appends the bytes `range` of `buffer`; panics if they lie outside it, or
    /// do not begin within its first 4 GiB, or are more than that.
    #[track_caller]
    pub fn push(&mut self, buffer: DmaBuffer, range: Range<usize>) {
        let part = Part::new(buffer, range);
        if self.first.is_none() {
            self.first = Some(part);
            return;
        }
        let rest = self.rest.get_or_insert_default();
        rest.bytes += part.bytes();
        rest.parts.push(part);
    }

    /// Bytes in all parts together.
    #[inline]
    pub const fn bytes(&self) -> usize {
        let first = if let Some(part) = &self.first { part.bytes() } else { 0 };
        if let Some(rest) = &self.rest { first + rest.bytes } else { first }
    }

    /// Copies the first bytes of all parts out; panics if `into` is longer than they are.
    #[track_caller]
    pub fn read_bytes(&self, into: &mut [u8]) {
        let bytes = self.bytes();
        assert!(into.len() <= bytes, "{} of {bytes} bytes", into.len());
        let mut rest = into;
        for part in self.parts() {
            let (piece, after) = rest.split_at_mut(part.bytes().min(rest.len()));
            part.buffer.read_bytes(part.start as usize, piece);
            rest = after;
        }
    }

    /// Fills all parts with bytes of `from`, from `offset` on; panics if there are not as many.
    #[track_caller]
    #[inline]
    pub fn copy_from(&mut self, from: &DmaBuffer, offset: usize) {
        if let (Some(part), None) = (&mut self.first, &self.rest) {
            let Range { start, end } = part.range();
            part.buffer.copy_from(start, from, offset..offset + (end - start));
            return;
        }
        self.copy_from_each(from, offset);
    }

    fn copy_from_each(&mut self, from: &DmaBuffer, offset: usize) {
        let mut at = offset;
        let rest = self.rest.iter_mut().flat_map(|rest| &mut rest.parts);
        for part in self.first.iter_mut().chain(rest) {
            let Range { start, end } = part.range();
            part.buffer.copy_from(start, from, at..at + (end - start));
            at += end - start;
        }
    }

    /// Copies all parts to `into`, from `offset` on; panics if they do not fit.
    #[track_caller]
    #[inline]
    pub fn copy_to(&self, into: &mut DmaBuffer, offset: usize) {
        if let (Some(part), None) = (&self.first, &self.rest) {
            into.copy_from(offset, &part.buffer, part.range());
            return;
        }
        self.copy_to_each(into, offset);
    }

    fn copy_to_each(&self, into: &mut DmaBuffer, offset: usize) {
        let mut at = offset;
        for part in self.parts() {
            into.copy_from(at, &part.buffer, part.range());
            at += part.bytes();
        }
    }

    /// The one segment of a list with a single part, whatever a device's limits are.
    #[inline]
    pub fn single_segment(&self) -> Option<Segment> {
        match &self.first {
            Some(part) if self.rest.is_none() && part.bytes() > 0 => Some(Segment {
                address: DeviceAddress::new(part.start()),
                bytes: part.bytes() as u64,
            }),
            _ => None,
        }
    }

    /// Writes a plain value right before the bytes of a list with a single part, if there is room for
    /// it in the buffer and it is not there yet; makes both visible to the device, and says where both
    /// are.
    #[inline(always)]
    pub fn prepend<T: IntoBytes + Immutable>(&mut self, value: &T) -> Option<Segment> {
        let part = self.first.as_mut().filter(|_| self.rest.is_none())?;
        let start = part.start.checked_sub(size_of::<T>() as u32)?;
        part.buffer.update(start as usize, value);
        let bytes = size_of::<T>() + part.bytes();
        part.buffer.sync_for_device(start as usize..start as usize + bytes);
        let address = DeviceAddress::new(part.buffer.address().bits() + u64::from(start));
        Some(Segment { address, bytes: bytes as u64 })
    }

    /// Takes the buffers out, in order.
    pub fn into_buffers(self) -> impl Iterator<Item = DmaBuffer> {
        let rest = self.rest.into_iter().flat_map(|rest| rest.parts);
        self.first.into_iter().chain(rest).map(|part| part.buffer)
    }

    /// The segments that a device sees: neighbours are merged, and what is longer than the device
    /// takes or crosses its boundary is split.
    #[inline]
    pub fn segments(&self, constraints: &Constraints) -> Segments<'_> {
        Segments::new(self.parts(), constraints)
    }

    /// Counts the segments, and checks alignment, reach and number against `constraints`.
    #[inline]
    pub fn check(&self, constraints: &Constraints) -> Result<usize, DmaError> {
        // One part within all limits is the common case, and costs little to know.
        if let Some(Segment { address, bytes }) = self.single_segment() {
            let (first, last) = (address.bits(), address.bits() + (bytes - 1));
            let misaligned = (first | bytes) & (constraints.alignment - 1) != 0;
            let crosses = (first ^ last) & !constraints.boundary.wrapping_sub(1) != 0;
            let long = bytes > constraints.max_segment_bytes || constraints.max_segments == 0;
            if !misaligned && !crosses && !long && last <= constraints.highest_address {
                return Ok(1);
            }
        }
        self.check_each(constraints)
    }

    fn check_each(&self, constraints: &Constraints) -> Result<usize, DmaError> {
        let mut count = 0;
        for segment in self.segments(constraints) {
            count += 1;
            let last = segment.address.bits() + (segment.bytes - 1);
            let aligned = segment.address.bits().is_multiple_of(constraints.alignment)
                && segment.bytes.is_multiple_of(constraints.alignment);
            if !aligned || last > constraints.highest_address {
                return Err(DmaError::Impossible { requested: self.bytes() });
            }
            if count > constraints.max_segments {
                return Err(DmaError::TooManySegments { max: constraints.max_segments });
            }
        }
        Ok(count)
    }

    /// Whether nothing has to be done for the caches: the list has at most one part, and the device sees
    /// what the processor does.
    #[inline]
    pub fn is_coherent(&self) -> bool {
        self.rest.is_none() && self.first.as_ref().is_none_or(|part| part.buffer.is_coherent())
    }

    /// Makes what was written visible to the device; see [`DmaBuffer::sync_for_device`].
    #[inline]
    pub fn sync_for_device(&self) {
        if !self.is_coherent() {
            self.each(|part| part.buffer.sync_for_device(part.range()));
        }
    }

    /// Makes what the device wrote visible here; see [`DmaBuffer::sync_for_cpu`].
    #[inline]
    pub fn sync_for_cpu(&self) {
        if !self.is_coherent() {
            self.each(|part| part.buffer.sync_for_cpu(part.range()));
        }
    }

    /// Does something to each part; out of the way of where there is nothing to be done.
    #[inline(never)]
    fn each(&self, act: impl FnMut(&Part)) {
        self.parts().for_each(act);
    }

    #[inline]
    fn parts(&self) -> Parts<'_> {
        self.first.iter().chain(self.rest.as_deref().map_or(&[][..], |rest| &rest.parts))
    }
}

type Parts<'a> = core::iter::Chain<core::option::Iter<'a, Part>, core::slice::Iter<'a, Part>>;

/// Iterator over the segments of an [`SgList`].
#[derive(Debug)]
pub struct Segments<'a> {
    parts: Parts<'a>,
    /// Contiguous addresses that were gathered but not given out yet.
    pending: Range<u64>,
    /// The boundary less one, so that a bitwise "and" tells where an address lies between two.
    boundary_mask: u64,
    most_bytes: u64,
}

impl<'a> Segments<'a> {
    #[inline]
    fn new(parts: Parts<'a>, limits: &Constraints) -> Self {
        // Splitting must leave the rest aligned.
        let most_bytes = (limits.max_segment_bytes & !(limits.alignment - 1)).max(1);
        let boundary_mask = limits.boundary.wrapping_sub(1);
        Self { parts, pending: 0..0, boundary_mask, most_bytes }
    }

    /// How long a segment from `start` on may be.
    #[inline]
    fn limit(&self, start: u64) -> u64 {
        let to_boundary = (self.boundary_mask - (start & self.boundary_mask)).saturating_add(1);
        to_boundary.min(self.most_bytes)
    }

    /// The addresses of the next part that has any.
    #[inline]
    fn next_part(&mut self) -> Option<Range<u64>> {
        let part = self.parts.find(|part| part.bytes > 0)?;
        Some(part.start()..part.start() + part.bytes() as u64)
    }
}

impl Iterator for Segments<'_> {
    type Item = Segment;

    fn next(&mut self) -> Option<Segment> {
        let mut range = core::mem::replace(&mut self.pending, 0..0);
        if range.is_empty() {
            range = self.next_part()?;
        }
        let limit = self.limit(range.start);
        while range.end - range.start < limit {
            match self.next_part() {
                Some(next) if next.start == range.end => range.end = next.end,
                Some(next) => {
                    self.pending = next;
                    break;
                }
                None => break,
            }
        }
        let bytes = limit.min(range.end - range.start);
        if range.start + bytes < range.end {
            self.pending = range.start + bytes..range.end;
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
        assert_eq!(SgList::EMPTY.single_segment(), None);
        let arena = arena(4096);
        let list = SgList::single(arena.allocate(10, &Constraints::NONE).unwrap(), 5..5);
        assert_eq!(list.segments(&Constraints::NONE).next(), None);
        assert_eq!(list.single_segment(), None);
    }

    #[test]
    fn a_list_of_one_part_is_one_segment_with_room_before_it() {
        let arena = arena(16384);
        let part = || arena.allocate(100, &Constraints::NONE).unwrap();
        let mut list = SgList::single(part(), 12..90);
        let only = list.segments(&Constraints::NONE).next();
        assert!(only.is_some() && list.single_segment() == only);
        let Segment { address, bytes } = only.unwrap();
        let whole = list.prepend(&[1u8; 12]).unwrap();
        assert_eq!((whole.address.bits(), whole.bytes), (address.bits() - 12, bytes + 12));
        assert_eq!(list.single_segment(), only, "the list is as it was");
        assert_eq!(list.prepend(&[1u8; 13]), None, "there is no room");
        list.push(part(), 0..1);
        assert_eq!(list.single_segment(), None);
        assert_eq!(list.prepend(&1u8), None);
    }

    #[test]
    fn a_list_of_one_part_is_used_again_with_other_bytes() {
        let arena = arena(16384);
        let mut list = SgList::single(arena.allocate(100, &Constraints::NONE).unwrap(), 12..90);
        list.reuse(20..22).unwrap().write_bytes(20, b"ab");
        let mut read = [0; 2];
        list.read_bytes(&mut read);
        assert_eq!((list.bytes(), read), (2, *b"ab"));
        list.push(arena.allocate(100, &Constraints::NONE).unwrap(), 0..1);
        assert!(list.reuse(0..1).is_none() && SgList::default().reuse(0..0).is_none());
        assert_eq!(list.bytes(), 3);
    }

    #[test]
    #[should_panic(expected = "0..101")]
    fn a_list_is_of_bytes_that_its_buffer_has() {
        let arena = arena(4096);
        let mut list = SgList::single(arena.allocate(100, &Constraints::NONE).unwrap(), 12..90);
        list.reuse(0..101);
    }

    #[test]
    fn all_parts_are_copied_in_order() {
        let arena = arena(64 * 1024);
        let mut other = arena.allocate(300, &Constraints::NONE).unwrap();
        let pattern: [u8; 300] = core::array::from_fn(|at| at as u8);
        other.write_bytes(0, &pattern);
        let mut list = SgList::EMPTY;
        for range in [10..110, 0..0, 5..55] {
            list.push(arena.allocate(120, &Constraints::NONE).unwrap(), range);
        }
        list.copy_from(&other, 100);
        let mut read = [0; 150];
        list.read_bytes(&mut read);
        assert_eq!(read, pattern[100..250]);
        list.copy_to(&mut other, 0);
        let mut read = [0; 300];
        other.read_bytes(0, &mut read);
        assert_eq!((&read[..150], &read[150..]), (&pattern[100..250], &pattern[150..]));
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
