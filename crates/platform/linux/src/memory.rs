//! Memory that another process maps too.
#![allow(unsafe_code)]

use outboard_hw::dma::{Arena, ArenaMemory, DmaBacking, DmaBuffer, NOWHERE, RawDma};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::fs::{fallocate, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use std::fmt;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

/// Memory behind a descriptor, mapped here, that another process can map as well.
///
/// Its size is sealed: whoever else holds the descriptor cannot shrink it, so touching the mapping
/// never faults. Pages are taken when they are first touched.
pub struct SharedMemory {
    descriptor: OwnedFd,
    cpu: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the value and is not tied to a thread (S1).
unsafe impl Send for SharedMemory {}
// SAFETY: through a shared reference only addresses are given out (S3).
unsafe impl Sync for SharedMemory {}

/// Memory of huge pages.
const HUGE_PAGES: MemfdFlags = MemfdFlags::HUGETLB.union(MemfdFlags::HUGE_2MB);

impl SharedMemory {
    /// Bytes of a huge page.
    pub const HUGE_PAGE_BYTES: usize = 2 << 20;

    /// Makes `len` zeroed bytes, a multiple of the page size; `name` shows up in `/proc`.
    pub fn new(name: &str, len: usize) -> io::Result<Self> {
        Self::with_flags(name, len, MemfdFlags::empty(), MapFlags::SHARED)
    }

    /// The same, of large pages where the system has set enough of them aside, or makes them on
    /// its own; of ordinary pages elsewhere.
    pub fn of_large_pages(name: &str, len: usize) -> io::Result<Self> {
        if len.is_multiple_of(Self::HUGE_PAGE_BYTES)
            && let Ok(memory) = Self::with_flags(name, len, HUGE_PAGES, MapFlags::SHARED)
        {
            return Ok(memory);
        }
        let memory = Self::new(name, len)?;
        // SAFETY: the range is the value's own mapping, and its content stays as it is (S2).
        let _ = unsafe { madvise(memory.cpu.as_ptr().cast(), len, Advice::LinuxHugepage) };
        Ok(memory)
    }

    /// The same, of huge pages that the system has set aside, all of them taken at once. They stay
    /// in memory: the kernel never swaps such pages out.
    pub fn of_huge_pages(name: &str, pages: usize) -> io::Result<Self> {
        let len = pages.checked_mul(Self::HUGE_PAGE_BYTES).ok_or(io::Errno::NOMEM)?;
        Self::with_flags(name, len, HUGE_PAGES, MapFlags::SHARED | MapFlags::POPULATE)
    }

    /// Of memory of huge pages, those with these numbers, in this order; the system gets the
    /// others back.
    pub fn rearranged(self, pages: &[usize]) -> io::Result<Self> {
        const BYTES: usize = SharedMemory::HUGE_PAGE_BYTES;
        let (count, len) = (self.len / BYTES, pages.len() * BYTES);
        assert!(len <= self.len && pages.iter().all(|page| *page < count), "{pages:?}");
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let anywhere = std::ptr::null_mut();
        let descriptor = io::fcntl_dupfd_cloexec(&self.descriptor, 0)?;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing existing (S2).
        let cpu = unsafe { mmap(anywhere, len, access, MapFlags::SHARED, &descriptor, 0) }?;
        let cpu = NonNull::new(cpu.cast::<u8>()).ok_or(io::Errno::NOMEM)?;
        let kept = Self { descriptor, cpu, len };
        for (place, page) in pages.iter().enumerate() {
            let flags = MapFlags::SHARED | MapFlags::FIXED | MapFlags::POPULATE;
            let at = cpu.as_ptr().wrapping_add(place * BYTES).cast();
            let offset = (page * BYTES) as u64;
            // SAFETY: it takes the place of a part of the mapping just made, which nobody uses (S2).
            unsafe { mmap(at, BYTES, access, flags, &kept.descriptor, offset) }?;
        }
        for page in (0..count).filter(|page| !pages.contains(page)) {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(&kept.descriptor, flags, (page * BYTES) as u64, BYTES as u64)?;
        }
        Ok(kept)
    }

    fn with_flags(
        name: &str,
        len: usize,
        flags: MemfdFlags,
        map_flags: MapFlags,
    ) -> io::Result<Self> {
        let flags = flags | MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let descriptor = memfd_create(name, flags)?;
        ftruncate(&descriptor, len as u64)?;
        fcntl_add_seals(&descriptor, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let anywhere = std::ptr::null_mut();
        // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing existing (S2).
        let cpu = unsafe { mmap(anywhere, len, access, map_flags, &descriptor, 0) }?;
        let cpu = NonNull::new(cpu.cast()).ok_or(io::Errno::NOMEM)?;
        Ok(Self { descriptor, cpu, len })
    }

    /// Its length in bytes.
    pub const fn size_bytes(&self) -> usize {
        self.len
    }

    /// Where this process finds it, for as long as the value lives.
    pub const fn cpu(&self) -> NonNull<u8> {
        self.cpu
    }

    /// All of it as one buffer, for whoever wants memory without a device. Its device addresses mean
    /// nothing.
    pub fn into_buffer(self) -> DmaBuffer {
        let raw = RawDma { cpu: self.cpu, device: NOWHERE, len: self.len };
        // SAFETY: the mapping lives as long as the buffer, which keeps the value (S1); it is given
        // up here, so nobody else uses it (S2, S3), and no device is told of it (S4).
        unsafe { DmaBuffer::from_raw(raw, Arc::new(self)) }
    }

    /// Memory of about `len` bytes and an arena over it, for devices that are software: a device
    /// address is the offset at which the descriptor has the byte. Address 0 is not used.
    pub fn for_model(name: &str, len: usize) -> io::Result<(Arc<Self>, Arena)> {
        const PAGE: usize = 4096;
        let memory = Arc::new(Self::new(name, len.next_multiple_of(PAGE) + PAGE)?);
        let range = PAGE..memory.len;
        // SAFETY: the memory is fresh, so nobody else uses it (S2, S3). Software reaches it by the
        // descriptor, and what it finds at a device address is this very memory (S4).
        let range = unsafe { MappedRange::new(memory.clone(), range, PAGE as u64) };
        Ok((memory, Arena::new(range)))
    }
}

// SAFETY: there is one buffer, and the mapping ends with it (S1, S2).
unsafe impl DmaBacking for SharedMemory {
    fn release(&self, _: RawDma) {}
}

impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length; whoever was given addresses holds an `Arc` of
        // this value, so nobody uses them any more (S1).
        let _ = unsafe { munmap(self.cpu.as_ptr().cast(), self.len) };
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedMemory({} bytes)", self.len)
    }
}

/// A part of [`SharedMemory`] that a device reaches.
#[derive(Debug)]
pub struct MappedRange {
    memory: Arc<SharedMemory>,
    range: Range<usize>,
    device: u64,
}

impl MappedRange {
    /// The bytes `range` of `memory`, which the device finds at `device`.
    ///
    /// # Safety
    /// No other range of `memory` that overlaps this one is in use (S2), no reference into it
    /// exists (S3), and the device reaches these very bytes at `device` (S4).
    pub unsafe fn new(memory: Arc<SharedMemory>, range: Range<usize>, device: u64) -> Self {
        assert!(range.start <= range.end && range.end <= memory.size_bytes(), "{range:?}");
        Self { memory, range, device }
    }
}

// SAFETY: the mapping lives as long as the `Arc` (S1); the rest is the promise made to `new`.
unsafe impl ArenaMemory for MappedRange {
    fn cpu(&self) -> NonNull<u8> {
        // SAFETY: `new` checked that the range lies inside the mapping (S1).
        unsafe { self.memory.cpu.add(self.range.start) }
    }

    fn device(&self) -> u64 {
        self.device
    }

    fn size_bytes(&self) -> usize {
        self.range.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outboard_hw::dma::{Constraints, DmaSpace};

    #[test]
    fn an_arena_over_shared_memory_is_seen_through_the_descriptor() {
        let (memory, arena) = SharedMemory::for_model("test", 1 << 20).unwrap();
        let mut buffer = arena.allocate(100, &Constraints::NONE).unwrap();
        buffer.write_bytes(0, b"seen by both");
        let mut seen = [0; 12];
        rustix::io::pread(memory.as_fd(), &mut seen, buffer.address().bits()).unwrap();
        assert_eq!(&seen, b"seen by both");
    }

    #[test]
    fn memory_of_large_pages_is_had_whether_there_are_any_or_not() {
        for len in [4096, 4 << 20] {
            let memory = SharedMemory::of_large_pages("test", len).unwrap();
            assert_eq!(memory.size_bytes(), len);
            rustix::io::pwrite(memory.as_fd(), b"x", len as u64 - 1).unwrap();
        }
    }

    #[test]
    fn nobody_can_shrink_it() {
        let memory = SharedMemory::new("test", 8192).unwrap();
        assert_eq!(ftruncate(&memory, 4096), Err(io::Errno::PERM));
    }
}
