//! Memory that a space has not made, and its devices reach all the same.
#![allow(unsafe_code)]

use alloc::boxed::Box;
use core::error::Error;
use core::ops::Range;
use core::ptr::NonNull;
use thiserror::Error;

/// From here on there is nothing: no machine has memory there, and no space puts anything there. It
/// is the device address of what no device reaches, should one be given it all the same.
pub const NOWHERE: u64 = 1 << 63;

/// Memory that was not made by a [`DmaSpace`](super::DmaSpace): another process's, mapped here.
///
/// # Safety
/// `size_bytes` bytes at `cpu` are mapped, readable and writable for as long as the value lives
/// (S1), belong to another process and to no Rust object (S2), and are referred to by nobody (S3).
/// The functions always return the same.
pub unsafe trait ForeignRegion: Send + Sync {
    /// Where the processor finds it; aligned to 4096.
    fn cpu(&self) -> NonNull<u8>;
    /// Its length in bytes, a multiple of 4096.
    fn size_bytes(&self) -> usize;
}

/// What the devices of a space reach of a [`ForeignRegion`]. It ends when the value is dropped, so
/// whoever gives its addresses to a device keeps it until the device is done with them.
///
/// # Safety
/// Once [`extend`](Self::extend) has said `Ok` for a range, and until the value is dropped, the
/// devices find the very bytes of that range at the same offsets from `device` on (S4), or, where
/// their owner has exchanged pages for others since, the former pages, which are kept.
pub unsafe trait Reach: Send + Sync {
    /// Where the devices find the first byte; a multiple of 4096, and all of it below [`NOWHERE`].
    /// It always returns the same.
    fn device(&self) -> u64;

    /// Whether the devices reach the bytes `range` of the region.
    fn has(&self, range: Range<usize>) -> bool;

    /// Sees to it that they do. It costs little if they do already, and may take a moment if not. A
    /// reach that could not be extended once need not try again.
    fn extend(&self, range: Range<usize>) -> Result<(), Unreachable>;
}

/// Why devices do not reach memory that their space has not made.
#[derive(Debug, Error)]
pub enum Unreachable {
    /// The space lets its devices reach no memory but its own.
    #[error("devices reach no memory but that of their own space")]
    Unsupported,
    /// The range lies outside the memory.
    #[error("it lies outside the memory")]
    Outside,
    /// The platform cannot, for a reason that it tells.
    #[error("{0}")]
    Refused(Box<dyn Error + Send + Sync>),
}
