//! Memory that a device reaches by direct memory access.
//!
//! * [`DmaBuffer`]: owns a contiguous range; freed on drop. The only source of a device address.
//! * [`DmaPool`]: hands out small equal blocks, as `DmaBuffer`s, in constant time.
//! * [`DmaBlocks`]: a buffer as a row of equal structures.
//! * [`SgList`]: the pieces of one transfer, merged and split to what a device accepts.
//! * [`Reach`]: what devices reach of memory that no space has made, such as another process's.
//! * [`Arena`]: the allocator over one mapped region, which platforms build their [`DmaSpace`] on.
//! * [`DeviceView`]: an arena as a device sees it, for devices that are software; with a
//!   [`ModelSpace`] they reach foreign memory, too.
//!
//! A device may write its memory at any moment, so nothing here gives out a reference into it.
//! Bytes and plain values are copied in and out, by accesses that the compiler can neither elide,
//! repeat nor assume anything about.
//!
//! **Ownership.** A buffer is moved into a request and comes back with its completion. While the
//! device may still touch it, the driver holds it, so it cannot be freed or reused.
//!
//! **Coherence.** On platforms whose devices do not see the processor's caches, call
//! [`DmaBuffer::sync_for_device`] between writing and the doorbell, and
//! [`DmaBuffer::sync_for_cpu`] between the completion and reading. Both cost one branch elsewhere.

mod address;
mod arena;
mod block;
mod buffer;
mod constraints;
mod copy;
mod foreign;
mod model;
mod pool;
mod sg;
mod view;

pub use address::DeviceAddress;
pub use arena::{Arena, ArenaMemory};
pub use block::{DmaBlock, DmaBlocks};
pub use buffer::{DmaBacking, DmaBuffer, RawDma};
pub use constraints::Constraints;
pub use foreign::{ForeignRegion, NOWHERE, Reach, Unreachable};
pub use model::ModelSpace;
pub use pool::{CACHE_LINE_BYTES, DmaPool};
pub use sg::{Segment, Segments, SgList};
pub use view::{DeviceView, Unmapped};

use alloc::boxed::Box;
use alloc::sync::Arc;
use thiserror::Error;

/// Why DMA memory could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DmaError {
    /// No free range of that size satisfies the constraints.
    #[error("out of DMA memory: {requested} bytes wanted, {free} bytes free")]
    Exhausted {
        /// Bytes asked for.
        requested: usize,
        /// Bytes free in all, though perhaps scattered or out of the device's reach.
        free: usize,
    },
    /// All blocks of a pool are in use.
    #[error("all {blocks} blocks of a DMA pool are in use")]
    PoolExhausted {
        /// Blocks that the pool has.
        blocks: usize,
    },
    /// The constraints contradict each other or the size, or the size is zero.
    #[error("a DMA buffer of {requested} bytes cannot satisfy its constraints")]
    Impossible {
        /// Bytes asked for.
        requested: usize,
    },
    /// A transfer needs more segments than the device takes.
    #[error("a transfer has more than {max} segments")]
    TooManySegments {
        /// Segments that the device takes.
        max: usize,
    },
}

/// How much of a [`DmaSpace`] is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DmaStatistics {
    /// Buffers alive.
    pub buffers: usize,
    /// Bytes in them, rounded up to the allocator's granule.
    pub used_bytes: usize,
    /// The most bytes that were ever in use at once.
    pub peak_bytes: usize,
    /// Bytes that the space has in all.
    pub total_bytes: usize,
}

/// Where a driver gets its DMA memory from.
///
/// Allocation is for start-up: it searches, and it zeroes. On the data path use a [`DmaPool`] or
/// recycle buffers.
pub trait DmaSpace: Send + Sync {
    /// A zeroed, contiguous buffer of at least `len` bytes within `constraints`; of these,
    /// alignment, highest address and boundary apply to the buffer as a whole.
    fn allocate(&self, len: usize, constraints: &Constraints) -> Result<DmaBuffer, DmaError>;

    /// How much is in use.
    fn statistics(&self) -> DmaStatistics;

    /// Lets the devices reach memory that the space has not made, at addresses of the space's choice:
    /// all of it in one piece, no higher than `constraints` allow. What they are to reach of it is
    /// said by [`Reach::extend`]. Spaces whose devices reach just what the space has made refuse it.
    fn reach(
        &self,
        _memory: Arc<dyn ForeignRegion>,
        _constraints: &Constraints,
    ) -> Result<Box<dyn Reach>, Unreachable> {
        Err(Unreachable::Unsupported)
    }
}
