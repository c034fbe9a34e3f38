//! The allocator over one mapped region.
#![allow(unsafe_code)]

use super::buffer::{DmaBacking, DmaBuffer, RawDma};
use super::{Constraints, DmaError, DmaSpace, DmaStatistics};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use core::ptr::NonNull;
use spin::Mutex;

/// What an allocation is rounded up to: a page, so that no two buffers share one and an IOMMU can
/// tell them apart.
const GRANULE: u64 = 4096;

/// A region that processor and device both see, as a platform provides it.
///
/// # Safety
/// `len` bytes at `cpu` are mapped, readable and writable for as long as the value lives (S1),
/// belong to nobody else (S2) and are referred to by nobody (S3); the device reaches the same
/// bytes from `device` on (S4). The functions always return the same.
pub unsafe trait ArenaMemory: Send + Sync {
    /// Where the processor finds it; aligned to 4096.
    fn cpu(&self) -> NonNull<u8>;
    /// Where the device finds it; aligned to 4096.
    fn device(&self) -> u64;
    /// Its length in bytes.
    fn size_bytes(&self) -> usize;
}

/// First-fit allocation of pages out of one [`ArenaMemory`].
///
/// Cloning it makes another handle to the same arena. The memory lives until the last handle and
/// the last buffer are gone.
#[derive(Clone)]
pub struct Arena {
    shared: Arc<Shared>,
}

struct Shared {
    memory: alloc::boxed::Box<dyn ArenaMemory>,
    /// The memory's device addresses, by whole pages.
    whole: Range<u64>,
    state: Mutex<State>,
}

/// Free device addresses, and counts.
struct State {
    /// Disjoint, not adjacent, in ascending order.
    free: Vec<Range<u64>>,
    statistics: DmaStatistics,
}

impl Arena {
    /// An arena over all of `memory`.
    pub fn new(memory: impl ArenaMemory + 'static) -> Self {
        let start = memory.device();
        let len = memory.size_bytes() as u64 / GRANULE * GRANULE;
        let end = start.checked_add(len).expect("a DMA arena ends below the last page");
        assert!(start.is_multiple_of(GRANULE), "a DMA arena starts on a page");
        assert!(memory.cpu().as_ptr().addr().is_multiple_of(GRANULE as usize));
        let statistics = DmaStatistics { total_bytes: len as usize, ..Default::default() };
        let whole = start..end;
        let state = Mutex::new(State { free: Vec::from([whole.clone()]), statistics });
        let memory = alloc::boxed::Box::new(memory);
        Self { shared: Arc::new(Shared { memory, whole, state }) }
    }

    /// The first device address behind all of its memory.
    pub(super) fn end(&self) -> u64 {
        self.shared.whole.end
    }

    /// Where the processor finds `bytes` at a device address, if all of them belong to buffers.
    pub(super) fn locate_allocated(&self, address: u64, bytes: usize) -> Option<*mut u8> {
        let Shared { memory, whole, state } = &*self.shared;
        let offset = address.checked_sub(whole.start)?;
        let end = address.checked_add(bytes as u64)?;
        if end > whole.end || state.lock().overlaps_free(address, end) {
            return None;
        }
        Some(memory.cpu().as_ptr().wrapping_add(offset as usize))
    }
}

impl DmaSpace for Arena {
    fn allocate(&self, len: usize, constraints: &Constraints) -> Result<DmaBuffer, DmaError> {
        if !constraints.admit(len) {
            return Err(DmaError::Impossible { requested: len });
        }
        let device = self.shared.state.lock().take(len, constraints)?;
        let offset = (device - self.shared.whole.start) as usize;
        // SAFETY: the state only hands out offsets inside the region, which is valid by S1.
        let cpu = unsafe { self.shared.memory.cpu().add(offset) };
        let raw = RawDma { cpu, device, len };
        // SAFETY: the range was just taken out of the free list, so it is nobody else's (S2); S1,
        // S3 and S4 are `ArenaMemory`'s promise, and the buffer keeps the region alive.
        let mut buffer = unsafe { DmaBuffer::from_raw(raw, self.shared.clone()) };
        buffer.fill(0..len, 0);
        Ok(buffer)
    }

    fn statistics(&self) -> DmaStatistics {
        self.shared.state.lock().statistics
    }
}

// SAFETY: `release` returns a range to the free list, from where only `take` hands it out again
// (S2); the region is unmapped when `Shared` is dropped, which every buffer's `Arc` prevents (S1).
unsafe impl DmaBacking for Shared {
    fn release(&self, raw: RawDma) {
        self.state.lock().give(raw.device, raw.len);
    }
}

impl State {
    fn take(&mut self, len: usize, constraints: &Constraints) -> Result<u64, DmaError> {
        let DmaStatistics { total_bytes, used_bytes, .. } = self.statistics;
        let exhausted = DmaError::Exhausted { requested: len, free: total_bytes - used_bytes };
        let size = (len as u64).checked_next_multiple_of(GRANULE);
        let size = size.filter(|size| *size <= total_bytes as u64).ok_or(exhausted)?;
        let constraints = constraints.aligned(constraints.alignment.max(GRANULE));
        for index in 0..self.free.len() {
            let range = self.free[index].clone();
            let Some(start) = constraints.place(range.start, len as u64) else { continue };
            let Some(end) = start.checked_add(size).filter(|end| *end <= range.end) else {
                continue;
            };
            if start + (len as u64 - 1) > constraints.highest_address {
                continue;
            }
            let (before, after) = (range.start..start, end..range.end);
            let rest = [before, after].into_iter().filter(|range| !range.is_empty());
            self.free.splice(index..=index, rest);
            self.count_taken(size as usize);
            return Ok(start);
        }
        Err(exhausted)
    }

    /// Whether any of the addresses from `start` to `end` is free.
    fn overlaps_free(&self, start: u64, end: u64) -> bool {
        let next = self.free.partition_point(|free| free.end <= start);
        self.free.get(next).is_some_and(|free| free.start < end)
    }

    fn give(&mut self, start: u64, len: usize) {
        let size = (len as u64).next_multiple_of(GRANULE);
        let mut range = start..start + size;
        let mut index = self.free.partition_point(|free| free.start < start);
        if self.free.get(index).is_some_and(|after| after.start == range.end) {
            range.end = self.free.remove(index).end;
        }
        if index > 0 && self.free[index - 1].end == range.start {
            index -= 1;
            range.start = self.free.remove(index).start;
        }
        self.free.insert(index, range);
        self.statistics.buffers -= 1;
        self.statistics.used_bytes -= size as usize;
    }

    fn count_taken(&mut self, size: usize) {
        let statistics = &mut self.statistics;
        statistics.buffers += 1;
        statistics.used_bytes += size;
        statistics.peak_bytes = statistics.peak_bytes.max(statistics.used_bytes);
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("statistics", &self.statistics()).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(in crate::dma) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::alloc::{Layout, alloc_zeroed, dealloc};

    /// Ordinary memory, and where a device would find it; none is there.
    struct Heap(NonNull<u8>, Layout, u64);

    // SAFETY: the memory is the value's own until it is dropped (S2).
    unsafe impl Send for Heap {}
    // SAFETY: likewise (S2).
    unsafe impl Sync for Heap {}

    const DEVICE: u64 = 0x8_0000_0000 - 64 * 1024;

    // SAFETY: freshly allocated, freed on drop (S1, S2, S3); there is no device (S4).
    unsafe impl ArenaMemory for Heap {
        fn cpu(&self) -> NonNull<u8> {
            self.0
        }
        fn device(&self) -> u64 {
            self.2
        }
        fn size_bytes(&self) -> usize {
            self.1.size()
        }
    }

    impl Drop for Heap {
        fn drop(&mut self) {
            // SAFETY: allocated in `arena_at` with this layout, and nobody's any more (S1).
            unsafe { dealloc(self.0.as_ptr(), self.1) }
        }
    }

    pub(in crate::dma) fn arena(len: usize) -> Arena {
        arena_at(DEVICE, len)
    }

    pub(in crate::dma) fn arena_at(device: u64, len: usize) -> Arena {
        let layout = Layout::from_size_align(len, 4096).unwrap();
        // SAFETY: the layout is not empty (S1).
        let cpu = unsafe { alloc_zeroed(layout) };
        Arena::new(Heap(NonNull::new(cpu).unwrap(), layout, device))
    }

    #[test]
    fn buffers_are_zeroed_even_when_recycled() {
        let arena = arena(8192);
        let mut buffer = arena.allocate(8192, &Constraints::NONE).unwrap();
        buffer.fill(0..8192, 0xa5);
        drop(buffer);
        let buffer = arena.allocate(5000, &Constraints::NONE).unwrap();
        let mut bytes = [1; 5000];
        buffer.read_bytes(0, &mut bytes);
        assert!(bytes.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn exhaustion_is_an_error_that_says_how_much() {
        let arena = arena(16384);
        let _held = arena.allocate(8192, &Constraints::NONE).unwrap();
        let error = arena.allocate(8193, &Constraints::NONE).unwrap_err();
        assert_eq!(error, DmaError::Exhausted { requested: 8193, free: 8192 });
        let error = arena.allocate(0, &Constraints::NONE).unwrap_err();
        assert_eq!(error, DmaError::Impossible { requested: 0 });
    }

    #[test]
    fn no_buffer_is_larger_than_the_arena_wherever_that_lies() {
        const LAST_PAGE: u64 = u64::MAX - 4095;
        for device in [0, DEVICE, LAST_PAGE - 8192] {
            let arena = arena_at(device, 8192);
            for len in [8193, isize::MAX as usize + 1, usize::MAX - 4095, usize::MAX] {
                let error = arena.allocate(len, &Constraints::NONE).unwrap_err();
                assert_eq!(error, DmaError::Exhausted { requested: len, free: 8192 });
            }
            let _first = arena.allocate(4096, &Constraints::NONE).unwrap();
            let error = arena.allocate(4097, &Constraints::NONE).unwrap_err();
            assert_eq!(error, DmaError::Exhausted { requested: 4097, free: 4096 });
            assert!(arena.allocate(4096, &Constraints::NONE).is_ok());
        }
    }

    #[test]
    fn the_memory_outlives_the_arena_while_a_buffer_is_left() {
        let arena = arena(4096);
        let mut buffer = arena.allocate(10, &Constraints::NONE).unwrap();
        drop(arena);
        buffer.write_bytes(0, b"0123456789");
        assert_eq!(buffer.read::<[u8; 10]>(0), *b"0123456789");
    }

    #[test]
    fn a_32_bit_device_gets_low_memory_or_an_error() {
        let arena = arena(128 * 1024);
        let low = Constraints { highest_address: DEVICE + 0xffff, ..Constraints::NONE };
        let first = arena.allocate(0x10000, &low).unwrap();
        assert!(arena.allocate(1, &low).is_err());
        assert!(arena.allocate(1, &Constraints::NONE).is_ok());
        drop(first);
        assert!(arena.allocate(1, &low).is_ok());
    }

    proptest! {
        #[test]
        fn no_two_buffers_overlap_and_everything_comes_back(
            steps in prop::collection::vec((1usize..20_000, 0u32..15, 0u32..18, any::<u16>()), 1..80)
        ) {
            let arena = arena(256 * 1024);
            let mut held: Vec<DmaBuffer> = Vec::new();
            for (len, alignment, boundary, victim) in steps {
                let boundary = if boundary < 12 { 0 } else { 1 << boundary };
                let constraints =
                    Constraints { alignment: 1 << alignment, boundary, ..Constraints::NONE };
                match arena.allocate(len, &constraints) {
                    Ok(buffer) => {
                        let (first, last) =
                            (buffer.address().bits(), buffer.address_of(len - 1).bits());
                        prop_assert!(first.is_multiple_of(1 << alignment));
                        prop_assert!(boundary == 0 || first / boundary == last / boundary);
                        for other in &held {
                            let start = other.address().bits();
                            let end = start + other.len() as u64;
                            prop_assert!(last < start || end <= first);
                        }
                        held.push(buffer);
                    }
                    Err(_) if held.is_empty() => {
                        prop_assert!(boundary != 0 && len as u64 > boundary);
                    }
                    Err(_) => drop(held.swap_remove(usize::from(victim) % held.len())),
                }
            }
            held.clear();
            let statistics = arena.statistics();
            prop_assert_eq!((statistics.buffers, statistics.used_bytes), (0, 0));
            prop_assert!(arena.allocate(256 * 1024, &Constraints::NONE).is_ok());
        }
    }
}
