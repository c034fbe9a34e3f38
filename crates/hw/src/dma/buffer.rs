//! The owner of a range of DMA memory.
#![allow(unsafe_code)]

use super::address::DeviceAddress;
use super::copy;
use super::pool::PoolHandle;
use alloc::sync::Arc;
use core::fmt;
use core::mem::ManuallyDrop;
use core::ops::Range;
use core::ptr::NonNull;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A range of DMA memory as a platform's allocator describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawDma {
    /// Where the processor finds it.
    pub cpu: NonNull<u8>,
    /// Where the device finds it.
    pub device: u64,
    /// Its length in bytes.
    pub len: usize,
}

/// What stands behind the buffers of one allocator: it takes them back, and it knows the caches.
///
/// # Safety
/// The functions must accept any range that was passed to [`DmaBuffer::from_raw`] with this
/// backing, from any thread, and `release` must be the only way in which such memory is unmapped
/// or handed out again (S1, S2).
pub unsafe trait DmaBacking: Send + Sync {
    /// Takes back a range whose buffer was dropped.
    fn release(&self, raw: RawDma);

    /// Whether the device sees the processor's caches. If so, the sync functions are not called.
    fn is_coherent(&self) -> bool {
        true
    }

    /// Writes the processor's caches back, before the device reads the range.
    fn sync_for_device(&self, _raw: RawDma) {}

    /// Discards the processor's caches, after the device has written the range.
    fn sync_for_cpu(&self, _raw: RawDma) {}
}

/// Who takes a buffer back when it is dropped, and whether the device sees the processor's caches. As
/// short as it can be: buffers are moved from hand to hand with each transfer.
enum Owner {
    Backing { coherent: bool, backing: Arc<dyn DmaBacking> },
    Pool { coherent: bool, index: u16, pool: PoolHandle },
}

const _: () = assert!(size_of::<DmaBuffer>() <= 48);

/// An owned, contiguous range of DMA memory.
///
/// All offsets are in bytes from its start. Offsets come from the driver, never from a device, so
/// one that lies outside is a bug and panics, as with a slice.
pub struct DmaBuffer {
    raw: RawDma,
    /// Taken out by `drop`, which then has nothing left to look at.
    owner: ManuallyDrop<Owner>,
}

// SAFETY: a buffer is the only owner of its range (S2), and the memory is not tied to a thread.
unsafe impl Send for DmaBuffer {}
// SAFETY: through a shared reference the memory is only read, by volatile accesses (S3).
unsafe impl Sync for DmaBuffer {}

impl DmaBuffer {
    /// Takes ownership of a range; `backing` gets it back when the buffer is dropped.
    ///
    /// # Safety
    /// The range is mapped, readable and writable until it is released (S1), belongs to no other
    /// buffer, unless it is another process's, and to no Rust object (S2), is referred to by nobody
    /// (S3), and the device reaches the very same bytes at `raw.device` (S4).
    pub unsafe fn from_raw(raw: RawDma, backing: Arc<dyn DmaBacking>) -> Self {
        let coherent = backing.is_coherent();
        let owner = Owner::Backing { coherent, backing };
        Self { raw, owner: ManuallyDrop::new(owner) }
    }

    /// A block of a pool; see [`from_raw`](Self::from_raw) for what must hold of it.
    ///
    /// # Safety
    /// As for [`from_raw`](Self::from_raw), with the pool as the one that takes it back.
    #[inline]
    pub(super) unsafe fn from_pool(
        raw: RawDma,
        coherent: bool,
        pool: PoolHandle,
        index: u16,
    ) -> Self {
        Self { raw, owner: ManuallyDrop::new(Owner::Pool { coherent, index, pool }) }
    }

    pub(super) const fn raw(&self) -> RawDma {
        self.raw
    }

    #[inline]
    pub(super) fn is_coherent(&self) -> bool {
        match &*self.owner {
            Owner::Backing { coherent, .. } | Owner::Pool { coherent, .. } => *coherent,
        }
    }

    /// Length in bytes.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a buffer is never empty")]
    pub const fn len(&self) -> usize {
        self.raw.len
    }

    /// Where the device finds the first byte.
    #[inline]
    pub const fn address(&self) -> DeviceAddress {
        DeviceAddress::new(self.raw.device)
    }

    /// Where the device finds the byte at `offset`.
    #[track_caller]
    #[inline]
    pub fn address_of(&self, offset: usize) -> DeviceAddress {
        self.check(offset, 1);
        DeviceAddress::new(self.raw.device + offset as u64)
    }

    /// Copies `into.len()` bytes out, from `offset` on.
    #[track_caller]
    #[inline]
    pub fn read_bytes(&self, offset: usize, into: &mut [u8]) {
        let from = self.check(offset, into.len());
        // SAFETY: `check` keeps the range within the buffer, which is valid by S1.
        unsafe { copy::copy_out(from, into) }
    }

    /// Copies `from` in, from `offset` on.
    #[track_caller]
    #[inline]
    pub fn write_bytes(&mut self, offset: usize, from: &[u8]) {
        let into = self.check(offset, from.len());
        // SAFETY: `check` keeps the range within the buffer, which is valid by S1.
        unsafe { copy::copy_in(from, into) }
    }

    /// Copies the bytes `range` of another buffer in, from `offset` on.
    #[track_caller]
    #[inline]
    pub fn copy_from(&mut self, offset: usize, from: &Self, range: Range<usize>) {
        let len = range.len();
        let (from, into) = (from.check(range.start, len), self.check(offset, len));
        // SAFETY: `check` keeps both ranges within their buffers, which are valid by S1.
        unsafe { copy::copy_between(from, into, len) }
    }

    /// Has the processor fetch the first of `len` bytes at `offset`, two lines of its cache at most,
    /// while it does other things. Worth it before several buffers are read one after the other that
    /// somebody else has written.
    #[track_caller]
    #[inline]
    pub fn prefetch(&self, offset: usize, len: usize) {
        const LINE: usize = 64;
        let at = self.check(offset, len);
        copy::prefetch(at);
        copy::prefetch(at.wrapping_add(len.min(LINE)));
    }

    /// Sets every byte of `range` to `byte`.
    #[track_caller]
    pub fn fill(&mut self, range: Range<usize>, byte: u8) {
        let len = range.len();
        let into = self.check(range.start, len);
        // SAFETY: `check` keeps the range within the buffer, which is valid by S1.
        unsafe { copy::fill(into, byte, len) }
    }

    /// Copies a plain value out. The copy may be torn if the device writes it meanwhile; for a
    /// word that tells whether others are valid, use [`load_u32`](Self::load_u32).
    #[track_caller]
    #[inline]
    pub fn read<T: FromBytes + IntoBytes>(&self, offset: usize) -> T {
        let mut value = T::new_zeroed();
        self.read_bytes(offset, value.as_mut_bytes());
        value
    }

    /// Copies a plain value in.
    #[track_caller]
    #[inline]
    pub fn write<T: IntoBytes + Immutable>(&mut self, offset: usize, value: &T) {
        self.write_bytes(offset, value.as_bytes());
    }

    /// Copies a plain value in, unless it is there: who else reads it finds it in its cache then. What
    /// is there decides nothing else, as the device may change it at any time.
    #[track_caller]
    #[inline(always)]
    pub fn update<T: IntoBytes + Immutable>(&mut self, offset: usize, value: &T) {
        let into = self.check(offset, size_of::<T>());
        // SAFETY: `check` keeps the range within the buffer, which is valid by S1.
        if !unsafe { copy::is_there(value.as_bytes(), into) } {
            // SAFETY: likewise (S1).
            unsafe { copy::copy_in(value.as_bytes(), into) }
        }
    }

    /// Reads a naturally aligned little-endian word in one access. Whatever the device wrote
    /// before that word is visible afterwards (acquire).
    #[track_caller]
    #[inline]
    pub fn load_u32(&self, offset: usize) -> u32 {
        u32::from_le(self.load(offset))
    }

    /// Reads a naturally aligned little-endian half-word as [`load_u32`](Self::load_u32) does.
    #[track_caller]
    #[inline]
    pub fn load_u16(&self, offset: usize) -> u16 {
        u16::from_le(self.load(offset))
    }

    /// Writes a naturally aligned little-endian word in one access, after everything that was
    /// written before it (release).
    #[track_caller]
    #[inline]
    pub fn store_u32(&mut self, offset: usize, value: u32) {
        self.store(offset, value.to_le());
    }

    /// Writes a naturally aligned little-endian half-word as [`store_u32`](Self::store_u32) does.
    #[track_caller]
    #[inline]
    pub fn store_u16(&mut self, offset: usize, value: u16) {
        self.store(offset, value.to_le());
    }

    /// Reads a naturally aligned little-endian double word as [`load_u32`](Self::load_u32) does.
    #[track_caller]
    #[inline]
    pub fn load_u64(&self, offset: usize) -> u64 {
        u64::from_le(self.load(offset))
    }

    /// Writes a naturally aligned little-endian double word as [`store_u32`](Self::store_u32) does.
    #[track_caller]
    #[inline]
    pub fn store_u64(&mut self, offset: usize, value: u64) {
        self.store(offset, value.to_le());
    }

    #[track_caller]
    #[inline]
    fn load<T: FromBytes + Copy>(&self, offset: usize) -> T {
        let from = self.check_aligned::<T>(offset);
        // SAFETY: `check_aligned` keeps it inside the buffer (S1) and aligned.
        let value = unsafe { from.read_volatile() };
        core::sync::atomic::fence(core::sync::atomic::Ordering::Acquire);
        value
    }

    #[track_caller]
    #[inline]
    fn store<T: IntoBytes + Copy>(&mut self, offset: usize, value: T) {
        let into = self.check_aligned::<T>(offset);
        core::sync::atomic::fence(core::sync::atomic::Ordering::Release);
        // SAFETY: `check_aligned` keeps it inside the buffer (S1) and aligned.
        unsafe { into.write_volatile(value) }
    }

    /// Makes what was written visible to the device.
    #[inline]
    pub fn sync_for_device(&self, range: Range<usize>) {
        if !self.is_coherent() {
            let raw = self.part(range);
            self.with_backing(|backing| backing.sync_for_device(raw));
        }
    }

    /// Makes what the device wrote visible here.
    #[inline]
    pub fn sync_for_cpu(&self, range: Range<usize>) {
        if !self.is_coherent() {
            let raw = self.part(range);
            self.with_backing(|backing| backing.sync_for_cpu(raw));
        }
    }

    #[inline(never)]
    fn with_backing(&self, act: impl FnOnce(&dyn DmaBacking)) {
        match &*self.owner {
            Owner::Backing { backing, .. } => act(&**backing),
            Owner::Pool { pool, .. } => pool.chunk().with_backing(act),
        }
    }

    fn part(&self, range: Range<usize>) -> RawDma {
        let len = range.len();
        let cpu = self.check(range.start, len);
        let cpu = NonNull::new(cpu).expect("inside a mapping");
        RawDma { cpu, device: self.raw.device + range.start as u64, len }
    }

    /// Where `len` bytes at `offset` are.
    #[track_caller]
    #[inline(always)]
    fn check(&self, offset: usize, len: usize) -> *mut u8 {
        let end = offset.wrapping_add(len);
        if end > self.raw.len || end < offset {
            outside(offset, len, self.raw.len);
        }
        self.raw.cpu.as_ptr().wrapping_add(offset)
    }

    #[track_caller]
    #[inline(always)]
    fn check_aligned<T>(&self, offset: usize) -> *mut T {
        let word = self.check(offset, size_of::<T>()).cast::<T>();
        if !word.is_aligned() {
            misaligned(offset);
        }
        word
    }
}

impl Drop for DmaBuffer {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the value is going, so nobody takes it out a second time (S2).
        match unsafe { ManuallyDrop::take(&mut self.owner) } {
            // SAFETY: this is the block's one owner (S2), and it is going.
            Owner::Pool { pool, index, .. } => unsafe { pool.free(index) },
            Owner::Backing { backing, .. } => release(backing, self.raw),
        }
    }
}

/// What lies outside a buffer, out of the way of what does not.
#[cold]
#[inline(never)]
#[track_caller]
fn outside(offset: usize, len: usize, bytes: usize) -> ! {
    panic!("{offset}+{len} lies outside a DMA buffer of {bytes} bytes");
}

/// What is no word's, likewise.
#[cold]
#[inline(never)]
#[track_caller]
fn misaligned(offset: usize) -> ! {
    panic!("offset {offset} of a DMA buffer is not a word's");
}

/// Gives a range back; out of the way of the pools' blocks, which come and go with each transfer.
#[cold]
#[inline(never)]
#[expect(clippy::needless_pass_by_value, reason = "the last buffer's backing goes with it")]
fn release(backing: Arc<dyn DmaBacking>, raw: RawDma) {
    backing.release(raw);
}

impl fmt::Debug for DmaBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DmaBuffer({:?}+{:#x})", self.address(), self.raw.len)
    }
}
