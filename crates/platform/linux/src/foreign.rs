//! Memory that another process has made.
#![allow(unsafe_code)]

use crate::bus_error::Watch;
use outboard_hw::dma::{
    Constraints, DmaBacking, DmaBuffer, DmaSpace, ForeignRegion, NOWHERE, RawDma, Reach,
    Unreachable,
};
use rustix::fs::{FileType, fstat, fstatfs};
use rustix::io;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::fmt;
use std::ops::Range;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::Arc;
use thiserror::Error;

/// Kinds of file systems (statfs(2)) whose files are memory: no page of theirs is ever waited for
/// that a disk or a process would have to bring.
const TMPFS: i64 = 0x0102_1994;
const HUGETLBFS: i64 = 0x9584_58f6;

/// The smallest page that any machine has, in bytes.
const SMALLEST_PAGE: u64 = 4096;

/// Why memory of another process cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ForeignError {
    /// It is a file on a disk, a pipe, a device and so on: touching it might take for ever.
    #[error("it is not memory: memfd, tmpfs and hugetlbfs are")]
    NotMemory,
    /// The file ends before the memory would.
    #[error("its file has only {0} bytes")]
    TooShort(u64),
    /// It is empty, or does not begin at a page's start, or nothing has so many bytes.
    #[error("{bytes} bytes from {offset} on are no memory")]
    BadRange {
        /// Where it begins in the file.
        offset: u64,
        /// Its bytes.
        bytes: u64,
    },
    /// The system refused.
    #[error("mapping it failed: {0}")]
    System(#[from] io::Errno),
}

/// Memory behind a descriptor that another process has made and shares, mapped.
///
/// That process may change it at any moment, as a device may, and may make the file shorter. What
/// is gone then reads as ones, for as long as the value lives, and nothing faults; see
/// [`is_gone`](Self::is_gone).
#[derive(Debug)]
pub struct ForeignMemory {
    mapping: Arc<Mapping>,
    /// Where it begins in the mapping.
    begin: usize,
    memory: DmaBuffer,
    /// If devices can reach it.
    reached: Option<Arc<Reached>>,
}

impl ForeignMemory {
    /// Maps `bytes` bytes from `offset` on, which is a page's start.
    pub fn map(file: impl AsFd, offset: u64, bytes: u64) -> Result<Self, ForeignError> {
        let file = file.as_fd();
        let about = fstat(file)?;
        let system = fstatfs(file)?;
        let kind = system.f_type as i64 & 0xffff_ffff;
        let is_file = FileType::from_raw_mode(about.st_mode) == FileType::RegularFile;
        if !is_file || !matches!(kind, TMPFS | HUGETLBFS) {
            return Err(ForeignError::NotMemory);
        }
        let bad = ForeignError::BadRange { offset, bytes };
        let end = offset.checked_add(bytes).filter(|end| isize::try_from(*end).is_ok());
        let end = end.filter(|_| bytes > 0 && offset.is_multiple_of(SMALLEST_PAGE));
        let end = end.ok_or(bad)?;
        let size = about.st_size as u64;
        if end > size {
            return Err(ForeignError::TooShort(size));
        }
        // The size of its blocks is that of its pages, in both.
        let page = system.f_bsize as u64;
        let start = offset / page * page;
        let len = (end - start).next_multiple_of(page) as usize;
        let mapping = Arc::new(Mapping::new(file, start, len, page as usize)?);
        let begin = (offset - start) as usize;
        let raw = mapping.raw(begin, bytes as usize, NOWHERE);
        // SAFETY: the mapping lives as long as the buffer, and touching it never faults, since it
        // is watched (S1); it is another process's, as S2 allows, and nobody has a reference into
        // it (S3). No device finds anything at its addresses (S4).
        let memory = unsafe { DmaBuffer::from_raw(raw, mapping.clone()) };
        Ok(Self { mapping, begin, memory, reached: None })
    }

    /// Whether an access has found that the file is shorter than it was. It stays so.
    #[inline]
    pub fn is_gone(&self) -> bool {
        self.mapping.watch.as_ref().is_some_and(Watch::is_gone)
    }

    /// A part of it as a buffer of its own, for a transfer by the processor. It may overlap others,
    /// and stays mapped for as long as it lives. Panics if it lies outside.
    #[inline]
    pub fn part(&self, range: Range<usize>) -> DmaBuffer {
        let (offset, len) = self.locate(range);
        let raw = self.mapping.raw(offset, len, NOWHERE);
        // SAFETY: as of the whole, of which it is a part (S1, S2, S3, S4).
        unsafe { DmaBuffer::from_raw(raw, self.mapping.clone()) }
    }

    /// Lets the devices of a space reach it, as far as parts are asked for that they
    /// [reach](Self::reached_part), and until the memory and all those parts are gone.
    pub fn let_reach(
        &mut self,
        space: &dyn DmaSpace,
        constraints: &Constraints,
    ) -> Result<(), Unreachable> {
        let reach = space.reach(self.mapping.clone(), constraints)?;
        self.reached = Some(Arc::new(Reached { reach, mapping: self.mapping.clone() }));
        Ok(())
    }

    /// Whether there may be parts that devices reach.
    #[inline]
    pub const fn is_reached(&self) -> bool {
        self.reached.is_some()
    }

    /// Whether devices reach a part of it by now, so that it takes no time to have it
    /// ([`reached_part`](Self::reached_part)). Panics if it lies outside.
    #[inline]
    pub fn reaches(&self, range: Range<usize>) -> bool {
        let (offset, len) = self.locate(range);
        self.reached.as_ref().is_some_and(|reached| reached.reach.has(offset..offset + len))
    }

    /// A part of it as a buffer of its own, for a transfer by the processor or by a device of the
    /// space that was let reach it. Like other parts it may overlap others, and stays mapped, for
    /// devices too, for as long as it lives. Panics if it lies outside.
    #[inline]
    pub fn reached_part(&self, range: Range<usize>) -> Result<DmaBuffer, Unreachable> {
        let (offset, len) = self.locate(range);
        let reached = self.reached.as_ref().ok_or(Unreachable::Unsupported)?;
        reached.reach.extend(offset..offset + len)?;
        let raw = self.mapping.raw(offset, len, reached.reach.device() + offset as u64);
        // SAFETY: as of the whole, of which it is a part (S1, S2, S3). Devices reach these bytes, as
        // `extend` has just said, for as long as `Reached` lives, which is behind the buffer (S4).
        Ok(unsafe { DmaBuffer::from_raw(raw, reached.clone()) })
    }

    /// Where in the mapping a part lies.
    #[inline]
    fn locate(&self, range: Range<usize>) -> (usize, usize) {
        let fits = range.start <= range.end && range.end <= self.memory.len();
        assert!(fits, "{range:?} of {} bytes", self.memory.len());
        (self.begin + range.start, range.len())
    }

    /// Its bytes. Their device addresses mean nothing.
    #[inline]
    pub const fn memory(&self) -> &DmaBuffer {
        &self.memory
    }

    /// Its bytes, to be written.
    #[inline]
    pub const fn memory_mut(&mut self) -> &mut DmaBuffer {
        &mut self.memory
    }
}

/// A mapping that ends with the value.
#[derive(Debug)]
struct Mapping {
    cpu: NonNull<u8>,
    len: usize,
    /// Taken out before the mapping ends: whatever is there later is not watched by mistake.
    watch: Option<Watch>,
}

// SAFETY: the mapping belongs to the value and is not tied to a thread (S1).
unsafe impl Send for Mapping {}
// SAFETY: a shared reference gives nothing away (S3).
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes, which are whole pages of `page_bytes`.
    fn new(file: impl AsFd, offset: u64, len: usize, page_bytes: usize) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let anywhere = std::ptr::null_mut();
        // Huge pages are not set aside here: whoever made the memory has done that.
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing existing (S2).
        let cpu = unsafe { mmap(anywhere, len, access, flags, file, offset) }?;
        let cpu = NonNull::new(cpu.cast()).ok_or(io::Errno::NOMEM)?;
        let mut mapping = Self { cpu, len, watch: None };
        mapping.watch = Some(Watch::new(cpu.as_ptr().expose_provenance(), len, page_bytes)?);
        Ok(mapping)
    }

    /// The `len` bytes from `offset` on, which lie in it.
    #[inline]
    fn raw(&self, offset: usize, len: usize, device: u64) -> RawDma {
        // SAFETY: the offset is inside the mapping (S1).
        let cpu = unsafe { self.cpu.add(offset) };
        RawDma { cpu, device, len }
    }
}

// SAFETY: the mapping ends with the value (S1), it is another process's memory (S2), and nobody is
// given a reference into it (S3).
unsafe impl ForeignRegion for Mapping {
    fn cpu(&self) -> NonNull<u8> {
        self.cpu
    }

    fn size_bytes(&self) -> usize {
        self.len
    }
}

/// A mapping that devices reach. That they do ends before the mapping does.
struct Reached {
    reach: Box<dyn Reach>,
    mapping: Arc<Mapping>,
}

// SAFETY: mapping and reach end with the last of its buffers (S1); whose they are, S2 says.
unsafe impl DmaBacking for Reached {
    fn release(&self, _: RawDma) {}
}

impl fmt::Debug for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reached({:#x}: {:?})", self.reach.device(), self.mapping)
    }
}

// SAFETY: the mapping ends with the last of its buffers (S1); whose they are, S2 says.
unsafe impl DmaBacking for Mapping {
    fn release(&self, _: RawDma) {}
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.watch = None;
        // SAFETY: mapped with this length, and all its buffers are gone (S1).
        let _ = unsafe { munmap(self.cpu.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SharedMemory;
    use outboard_hw::dma::{DeviceView, ModelSpace};
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use std::os::fd::OwnedFd;

    const PAGE: u64 = 4096;

    fn file(pages: u64) -> OwnedFd {
        let file = memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, pages * PAGE).unwrap();
        file
    }

    #[test]
    fn both_see_the_same_bytes() {
        let file = file(3);
        let mut memory = ForeignMemory::map(&file, PAGE, PAGE + 100).unwrap();
        assert_eq!(memory.memory().len(), 4196);
        memory.memory_mut().write_bytes(7, b"seen by both");
        let mut seen = [0; 12];
        io::pread(&file, &mut seen, PAGE + 7).unwrap();
        assert_eq!(&seen, b"seen by both");
        assert!(!memory.is_gone());
    }

    #[test]
    fn parts_see_the_same_bytes_and_keep_the_memory() {
        let file = file(3);
        let memory = ForeignMemory::map(&file, PAGE, 2 * PAGE).unwrap();
        let mut part = memory.part(100..5000);
        let other = memory.part(4000..5000);
        assert_eq!(part.len(), 4900);
        drop(memory);
        part.write_bytes(3900, b"here");
        let mut seen = [0; 4];
        other.read_bytes(0, &mut seen);
        assert_eq!(&seen, b"here");
        ftruncate(&file, PAGE).unwrap();
        other.read_bytes(0, &mut seen);
        assert_eq!(seen, [0xff; 4]);
    }

    #[test]
    fn devices_reach_parts_until_the_last_of_them_is_gone() {
        let (_, arena) = SharedMemory::for_model("test", 1 << 20).unwrap();
        let own = arena.allocate(4096, &Constraints::NONE).unwrap().address().bits();
        let space = ModelSpace::new(arena);
        let view = DeviceView::of_space(space.clone());
        let file = file(4);
        let mut memory = ForeignMemory::map(&file, PAGE, 3 * PAGE).unwrap();
        assert!(!memory.is_reached());
        memory.let_reach(&space, &Constraints::NONE).unwrap();
        assert!(memory.is_reached() && space.foreign_regions() == 1);
        assert!(!memory.reaches(100..5000));
        let part = memory.reached_part(100..5000).unwrap();
        assert!(memory.reaches(0..8192) && !memory.reaches(8191..8193));
        let at = part.address().bits();
        assert!(at > own && at < NOWHERE, "beside the arena");
        view.write(at + 3996, b"by a device").unwrap();
        let mut seen = [0; 11];
        io::pread(&file, &mut seen, PAGE + 4096).unwrap();
        assert_eq!(&seen, b"by a device");
        assert!(view.read(at - 100 + 2 * PAGE, &mut seen).is_err(), "nobody asked for that page");
        let other = memory.reached_part(4096..3 * PAGE as usize).unwrap();
        assert_eq!(other.address().bits(), at + 3996, "all of it is in one piece");
        memory.memory_mut().write_bytes(2 * PAGE as usize, b"the process");
        view.read(at - 100 + 2 * PAGE, &mut seen).unwrap();
        assert_eq!(&seen, b"the process");
        drop(memory);
        drop(part);
        assert!(view.read(at, &mut seen).is_ok(), "a part is left");
        drop(other);
        assert!(view.read(at, &mut seen).is_err());
        assert_eq!(space.foreign_regions(), 0);
    }

    #[test]
    fn devices_that_cannot_reach_it_are_told_of_nothing() {
        let (_, arena) = SharedMemory::for_model("test", 1 << 20).unwrap();
        let mut memory = ForeignMemory::map(file(2), 0, 2 * PAGE).unwrap();
        let refused = memory.let_reach(&arena, &Constraints::NONE);
        assert!(matches!(refused, Err(Unreachable::Unsupported)));
        let low = Constraints { highest_address: 2 * PAGE, ..Constraints::NONE };
        assert!(memory.let_reach(&ModelSpace::new(arena), &low).is_err());
        assert!(!memory.is_reached() && memory.reached_part(0..1).is_err());
        assert_eq!(memory.part(0..1).address().bits(), NOWHERE);
    }

    #[test]
    fn what_is_no_memory_is_refused() {
        let map = |file: &OwnedFd, offset, bytes| ForeignMemory::map(file, offset, bytes).err();
        let memory = file(2);
        for (offset, bytes) in [(0, 0), (1, 10), (u64::MAX - 4095, 4096), (0, u64::MAX)] {
            let bad = ForeignError::BadRange { offset, bytes };
            assert_eq!(map(&memory, offset, bytes), Some(bad));
        }
        assert_eq!(map(&memory, PAGE, PAGE + 1), Some(ForeignError::TooShort(8192)));
        let others = ["/dev/zero", "/proc/self/maps", "/"].map(std::fs::File::open);
        for other in others {
            let other = OwnedFd::from(other.unwrap());
            assert_eq!(map(&other, 0, PAGE), Some(ForeignError::NotMemory));
        }
        let (pipe, _) = rustix::pipe::pipe().unwrap();
        assert_eq!(map(&pipe, 0, PAGE), Some(ForeignError::NotMemory));
        let read_only = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(map(&read_only.into(), 0, PAGE).is_some());
    }

    #[test]
    fn a_file_that_shrinks_leaves_ones_and_no_fault() {
        let file = file(4);
        let mut memory = ForeignMemory::map(&file, 0, 4 * PAGE).unwrap();
        let other = ForeignMemory::map(self::file(1), 0, PAGE).unwrap();
        memory.memory_mut().fill(0..4 * PAGE as usize, 1);
        ftruncate(&file, PAGE).unwrap();
        let mut bytes = [0; 3 * PAGE as usize];
        memory.memory().read_bytes(2048, &mut bytes);
        assert_eq!((bytes[0], bytes[2047], bytes[2048]), (1, 1, 0xff));
        assert!(memory.is_gone() && !other.is_gone());
        memory.memory_mut().fill(0..4 * PAGE as usize, 2);
    }
}
