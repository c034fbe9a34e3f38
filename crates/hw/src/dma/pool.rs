//! Small blocks of DMA memory in constant time.
#![allow(unsafe_code)]

use super::buffer::{DmaBuffer, RawDma};
use super::{Constraints, DmaError, DmaSpace};
use alloc::boxed::Box;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU64, Ordering};

/// What blocks are aligned to at least, so that no two share a line between processor and device.
pub const CACHE_LINE_BYTES: usize = 64;

/// Equal blocks out of one DMA buffer, allocated and freed in constant time from any thread.
///
/// The free blocks form a stack whose links are kept in ordinary memory, out of the device's
/// reach. One atomic word holds the top of the stack, the number of free blocks and a sequence
/// number against ABA; allocating or freeing is one compare-and-swap on it. That word also says
/// whether the pool was dropped: the memory is freed with the pool or with the last block,
/// whichever is later, and blocks need no reference count of their own.
///
/// Blocks are recycled as they are: what the last user wrote is still in them.
pub struct DmaPool {
    inner: NonNull<Inner>,
}

// SAFETY: `Inner` is only changed through its atomics, and is freed by whoever comes last (S5).
unsafe impl Send for DmaPool {}
// SAFETY: likewise (S5).
unsafe impl Sync for DmaPool {}

struct Inner {
    state: AtomicU64,
    /// For each free block, the one below it in the stack; for the lowest, the number of blocks.
    next: Box<[AtomicU16]>,
    chunk: DmaBuffer,
    coherent: bool,
    stride: usize,
    block_bytes: usize,
}

/// The pool's state word: bits 63:32 sequence, 31 closed, 30:16 free blocks, 15:0 top block, or the
/// number of blocks if none is free.
#[derive(Clone, Copy)]
struct State(u64);

impl State {
    const MAX_BLOCKS: usize = 0x7fff;
    const TOP: u64 = 0xffff;
    /// One free block, as it is counted.
    const FREE: u64 = 1 << 16;
    const CLOSED: u64 = 1 << 31;
    /// One change.
    const SEQUENCE: u64 = 1 << 32;

    const fn new(top: u16, free: u16) -> Self {
        Self((free as u64 * Self::FREE) | top as u64)
    }

    const fn top(self) -> u16 {
        self.0 as u16
    }

    const fn free(self) -> u16 {
        (self.0 >> 16) as u16 & 0x7fff
    }

    const fn is_closed(self) -> bool {
        self.0 & Self::CLOSED != 0
    }

    /// The state after one in which there was a free block: it was taken, and `below` is on top.
    const fn without_top(self, below: u16) -> Self {
        Self(self.0.wrapping_add(Self::SEQUENCE - Self::FREE) & !Self::TOP | below as u64)
    }

    /// The state after one in which `top` was not free.
    const fn with_top(self, top: u16) -> Self {
        Self(self.0.wrapping_add(Self::SEQUENCE + Self::FREE) & !Self::TOP | top as u64)
    }
}

impl DmaPool {
    /// A pool of `blocks` (at most 32,767) blocks of `block_bytes` each.
    ///
    /// Every block starts on a cache line of its own and meets the alignment and the boundary of
    /// `constraints`.
    pub fn new(
        space: &dyn DmaSpace,
        block_bytes: usize,
        blocks: usize,
        constraints: &Constraints,
    ) -> Result<Self, DmaError> {
        let line = CACHE_LINE_BYTES as u64;
        let each = constraints.aligned(constraints.alignment.max(line));
        let impossible = DmaError::Impossible { requested: block_bytes };
        if blocks == 0 || blocks > State::MAX_BLOCKS || !each.admit(block_bytes) {
            return Err(impossible);
        }
        let stride = (block_bytes as u64).checked_next_multiple_of(each.alignment);
        let mut stride = stride.ok_or(impossible)?;
        let mut whole = Constraints { boundary: 0, ..each };
        if each.boundary != 0 {
            // Blocks at multiples of a power of two never cross a larger power of two.
            stride = stride.checked_next_power_of_two().ok_or(impossible)?;
            whole.alignment = stride;
        }
        let stride = usize::try_from(stride).map_err(|_| impossible)?;
        let bytes = stride.checked_mul(blocks).ok_or(impossible)?;
        let chunk = space.allocate(bytes, &whole)?;
        let next = (0..blocks as u16).map(|index| AtomicU16::new(index + 1)).collect();
        let state = AtomicU64::new(State::new(0, blocks as u16).0);
        let coherent = chunk.is_coherent();
        let inner = Box::new(Inner { state, next, chunk, coherent, stride, block_bytes });
        Ok(Self { inner: NonNull::from(Box::leak(inner)) })
    }

    fn inner(&self) -> &Inner {
        // SAFETY: the memory is freed only after the pool was closed, by its own drop (S5).
        unsafe { self.inner.as_ref() }
    }

    /// How many blocks there are.
    pub fn blocks(&self) -> usize {
        self.inner().next.len()
    }

    /// How many of them are free at this moment.
    pub fn free_blocks(&self) -> usize {
        State(self.inner().state.load(Ordering::Relaxed)).free().into()
    }

    /// Takes a block. Its contents are whatever its last user left.
    #[inline]
    pub fn allocate(&self) -> Result<DmaBuffer, DmaError> {
        let inner = self.inner();
        let mut seen = State(inner.state.load(Ordering::Acquire));
        loop {
            let top = seen.top();
            let Some(link) = inner.next.get(usize::from(top)) else {
                return Err(DmaError::PoolExhausted { blocks: inner.next.len() });
            };
            // If another thread takes `top` first, this link is stale, but then the exchange
            // fails: the sequence number has moved on.
            let below = link.load(Ordering::Relaxed);
            match exchange(&inner.state, seen, seen.without_top(below)) {
                Ok(()) => return Ok(self.block(top)),
                Err(now) => seen = now,
            }
        }
    }

    #[inline]
    fn block(&self, index: u16) -> DmaBuffer {
        let inner = self.inner();
        let chunk = inner.chunk.raw();
        let offset = usize::from(index) * inner.stride;
        // SAFETY: `index` is below `blocks`, and the chunk holds `blocks` strides (S1).
        let cpu = unsafe { chunk.cpu.add(offset) };
        let raw = RawDma { cpu, device: chunk.device + offset as u64, len: inner.block_bytes };
        let handle = PoolHandle { inner: self.inner };
        // SAFETY: the block left the stack, so it is the caller's alone (S2), inside a chunk for
        // which S1, S3 and S4 hold and which outlives it (S5).
        unsafe { DmaBuffer::from_pool(raw, inner.coherent, handle, index) }
    }
}

impl Inner {
    /// How many blocks are free when all are home. To be asked before a change of the state word:
    /// afterwards another thread may have freed `self`.
    fn whole(&self) -> u16 {
        self.next.len() as u16
    }
}

/// Changes the state word. It is passed alone: once it has changed, another thread may free the
/// [`Inner`] that it is in, and no reference to the rest of that may be passed to a function
/// meanwhile.
#[inline]
fn exchange(word: &AtomicU64, from: State, to: State) -> Result<(), State> {
    let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
    word.compare_exchange_weak(from.0, to.0, success, failure).map(drop).map_err(State)
}

impl Drop for DmaPool {
    fn drop(&mut self) {
        let inner = self.inner();
        let whole = inner.whole();
        let last = State(inner.state.fetch_or(State::CLOSED, Ordering::AcqRel));
        if last.free() == whole {
            // SAFETY: every block was home when the pool closed, so no handle is left to it (S5).
            unsafe { destroy(self.inner) };
        }
    }
}

impl fmt::Debug for DmaPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner();
        f.debug_struct("DmaPool")
            .field("block_bytes", &inner.block_bytes)
            .field("blocks", &self.blocks())
            .field("free_blocks", &self.free_blocks())
            .finish_non_exhaustive()
    }
}

/// A block's way home.
#[derive(Clone, Copy)]
pub(super) struct PoolHandle {
    inner: NonNull<Inner>,
}

impl PoolHandle {
    fn inner(&self) -> &Inner {
        // SAFETY: the memory is freed only when every block is home, and this one is not (S5).
        unsafe { self.inner.as_ref() }
    }

    pub(super) fn chunk(&self) -> &DmaBuffer {
        &self.inner().chunk
    }

    /// Puts the block with this index back, and frees the pool if it was closed and this was its last block.
    ///
    /// # Safety
    /// The caller is the block's one owner (S2) and never uses it or this handle again.
    #[inline]
    pub(super) unsafe fn free(self, index: u16) {
        let inner = self.inner();
        let whole = inner.whole();
        let mut seen = State(inner.state.load(Ordering::Relaxed));
        loop {
            inner.next[usize::from(index)].store(seen.top(), Ordering::Relaxed);
            match exchange(&inner.state, seen, seen.with_top(index)) {
                Ok(()) => break,
                Err(now) => seen = now,
            }
        }
        // One more is free than was when it was seen last.
        if seen.is_closed() && seen.free() + 1 == whole {
            // SAFETY: closed, so no pool refers to it; whole, so no other block does. The state
            // goes from not whole to whole-and-closed exactly once, in this exchange (S5).
            unsafe { destroy(self.inner) };
        }
    }
}

/// Frees what a pool had.
///
/// # Safety
/// Neither the pool nor a block of it is left (S5).
#[cold]
#[inline(never)]
unsafe fn destroy(inner: NonNull<Inner>) {
    // SAFETY: it was leaked out of a `Box` in `new`, and nobody refers to it any more (S5).
    drop(unsafe { Box::from_raw(inner.as_ptr()) });
}

#[cfg(test)]
mod tests {
    use super::super::arena::tests::arena;
    use super::*;
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::vec::Vec;

    #[test]
    fn blocks_are_disjoint_aligned_and_run_out_with_an_error() {
        let arena = arena(1 << 20);
        let pool = DmaPool::new(&arena, 100, 10, &Constraints::NONE).unwrap();
        let blocks: Vec<_> = (0..10).map(|_| pool.allocate().unwrap()).collect();
        let starts: BTreeSet<_> = blocks.iter().map(|block| block.address().bits()).collect();
        assert_eq!(starts.len(), 10);
        assert!(starts.iter().all(|start| start.is_multiple_of(64)));
        assert!(starts.iter().zip(starts.iter().skip(1)).all(|(a, b)| b - a >= 100));
        assert_eq!(pool.allocate().unwrap_err(), DmaError::PoolExhausted { blocks: 10 });
        drop(blocks);
        assert_eq!(pool.free_blocks(), 10);
        assert!(pool.allocate().is_ok());
    }

    #[test]
    fn blocks_respect_alignment_and_boundary() {
        let arena = arena(1 << 20);
        let page = Constraints { boundary: 4096, ..Constraints::NONE.aligned(128) };
        let pool = DmaPool::new(&arena, 1500, 20, &page).unwrap();
        let blocks: Vec<_> = (0..20).map(|_| pool.allocate().unwrap()).collect();
        for block in &blocks {
            let (first, last) = (block.address().bits(), block.address_of(1499).bits());
            assert!(first.is_multiple_of(128));
            assert_eq!(first / 4096, last / 4096);
        }
        let silly = Constraints { boundary: 1024, ..Constraints::NONE };
        assert!(DmaPool::new(&arena, 1500, 1, &silly).is_err());
    }

    #[test]
    fn blocks_that_no_address_space_holds_are_refused() {
        let arena = arena(4096);
        let bounded = Constraints { boundary: 1 << 63, ..Constraints::NONE };
        for (bytes, blocks, constraints) in [
            (usize::MAX, 1, Constraints::NONE),
            (usize::MAX / 2 + 1, 2, Constraints::NONE),
            ((1 << 62) + 1, 2, bounded),
            (1, 2, Constraints::NONE.aligned(1 << 63)),
        ] {
            let refused = DmaPool::new(&arena, bytes, blocks, &constraints).unwrap_err();
            assert_eq!(refused, DmaError::Impossible { requested: bytes });
        }
        let high = Constraints { boundary: 4096, ..Constraints::NONE.aligned(1 << 63) };
        assert!(DmaPool::new(&arena, 1, 1, &high).is_err());
    }

    #[test]
    fn the_memory_goes_with_the_pool_or_with_its_last_block() {
        let arena = arena(1 << 20);
        let pool = DmaPool::new(&arena, 64, 4, &Constraints::NONE).unwrap();
        assert_eq!(arena.statistics().buffers, 1);
        drop(pool);
        assert_eq!(arena.statistics().buffers, 0);

        let pool = DmaPool::new(&arena, 64, 4, &Constraints::NONE).unwrap();
        let (mut first, second) = (pool.allocate().unwrap(), pool.allocate().unwrap());
        drop(pool);
        first.write_bytes(0, b"still mine");
        drop(second);
        assert_eq!(arena.statistics().buffers, 1);
        drop(first);
        assert_eq!(arena.statistics().buffers, 0);
    }

    #[test]
    fn threads_never_get_the_same_block_and_none_is_lost() {
        let arena = arena(1 << 20);
        let pool = Arc::new(DmaPool::new(&arena, 64, 8, &Constraints::NONE).unwrap());
        let threads: Vec<_> = (0..4u64)
            .map(|thread| {
                let pool = pool.clone();
                std::thread::spawn(move || {
                    for round in 0..20_000u64 {
                        let Ok(mut block) = pool.allocate() else { continue };
                        let mark = thread << 32 | round;
                        block.write(0, &mark);
                        block.write(56, &mark);
                        assert_eq!(block.read::<u64>(0), mark);
                        assert_eq!(block.read::<u64>(56), mark);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(pool.free_blocks(), 8);
    }

    #[test]
    fn a_pool_may_be_dropped_while_threads_hold_its_blocks() {
        let arena = arena(1 << 20);
        for _ in 0..200 {
            let pool = DmaPool::new(&arena, 64, 8, &Constraints::NONE).unwrap();
            let blocks: Vec<_> = (0..4).map(|_| pool.allocate().unwrap()).collect();
            std::thread::scope(|scope| {
                for block in blocks {
                    scope.spawn(move || drop(block));
                }
                drop(pool);
            });
            assert_eq!(arena.statistics().buffers, 0);
        }
    }
}
