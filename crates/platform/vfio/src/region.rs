//! Regions of a function: registers, and configuration space.

use crate::{capability, ioctl};
use outboard_hw::Registers;
use outboard_linux::IoMemory;
use rustix::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use vfio_bindings::bindings::vfio::VFIO_REGION_INFO_FLAG_MMAP;

const PAGE: u64 = 4096;

/// Where a region is in the function's descriptor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

impl Place {
    /// Of region `index`.
    pub(crate) fn of(device: &OwnedFd, index: u32) -> io::Result<Self> {
        let (info, _) = ioctl::region_info(device, index)?;
        Ok(Self { offset: info.offset, bytes: info.size })
    }

    /// Reads a value at `offset` by a system call; `None` if the function does not answer.
    pub(crate) fn read<const N: usize>(self, device: &OwnedFd, offset: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        let inside = offset.checked_add(N as u64).is_some_and(|end| end <= self.bytes);
        let read = inside.then(|| io::pread(device, &mut bytes, self.offset + offset));
        (read? == Ok(N)).then_some(bytes)
    }

    /// Writes a value at `offset` by a system call.
    pub(crate) fn write(self, device: &OwnedFd, offset: u64, bytes: &[u8]) {
        if offset.checked_add(bytes.len() as u64).is_some_and(|end| end <= self.bytes) {
            // A function that is gone ignores it.
            let _ = io::pwrite(device, bytes, self.offset + offset);
        }
    }
}

/// A part of a region that is mapped.
#[derive(Debug)]
struct Area {
    start: usize,
    end: usize,
    memory: IoMemory,
}

/// The registers of a function: a base address register, mapped as far as the kernel lets anyone
/// map it. What it does not is accessed by system calls.
#[derive(Debug, Clone)]
pub struct VfioRegisters(Arc<Region>);

#[derive(Debug)]
struct Region {
    len: usize,
    areas: Vec<Area>,
    device: Arc<OwnedFd>,
    place: Place,
}

impl VfioRegisters {
    /// Maps region `index`.
    pub(crate) fn map(device: Arc<OwnedFd>, index: u32) -> io::Result<Self> {
        let (info, answer) = ioctl::region_info(&*device, index)?;
        let place = Place { offset: info.offset, bytes: info.size };
        let len = usize::try_from(info.size).map_err(|_| io::Errno::OVERFLOW)?;
        let mappable = info.flags & VFIO_REGION_INFO_FLAG_MMAP != 0 && len > 0;
        let whole = || vec![(0, info.size)];
        let parts = mappable
            .then(|| capability::sparse_areas(&answer, info.cap_offset).unwrap_or_else(whole));
        let parts = mappable_parts(&parts.unwrap_or_default(), info.size);
        let areas = parts.into_iter().map(|(start, end)| {
            let bytes = ((end - start).next_multiple_of(PAGE)) as usize;
            let memory = IoMemory::map(&*device, place.offset + start, bytes)?;
            Ok(Area { start: start as usize, end: end as usize, memory })
        });
        let areas = areas.collect::<io::Result<_>>()?;
        Ok(Self(Arc::new(Region { len, areas, device, place })))
    }
}

/// The parts of a region of `bytes` that can be mapped, as start and end, out of offsets and
/// lengths: inside the region, and starting on pages.
fn mappable_parts(areas: &[(u64, u64)], bytes: u64) -> Vec<(u64, u64)> {
    let inside = areas.iter().filter_map(|(offset, len)| {
        let end = offset.saturating_add(*len).min(bytes);
        (offset.is_multiple_of(PAGE) && *offset < end).then_some((*offset, end))
    });
    inside.collect()
}

impl Region {
    /// The part that holds all of an access, and the offset in there.
    #[inline]
    fn area(&self, offset: usize, bytes: usize) -> Option<(&IoMemory, usize)> {
        let inside = |area: &&Area| area.start <= offset && offset < area.end;
        let area = self.areas.iter().find(inside)?;
        (area.end - offset >= bytes).then(|| (&area.memory, offset - area.start))
    }

    #[cold]
    fn read_slowly<const N: usize>(&self, offset: usize) -> [u8; N] {
        let aligned = offset.is_multiple_of(N);
        let bytes = aligned.then(|| self.place.read(&self.device, offset as u64)).flatten();
        bytes.unwrap_or([u8::MAX; N])
    }

    #[cold]
    fn write_slowly(&self, offset: usize, bytes: &[u8]) {
        if offset.is_multiple_of(bytes.len()) {
            self.place.write(&self.device, offset as u64, bytes);
        }
    }
}

macro_rules! accesses {
    ($($int:ty: $read:ident, $write:ident;)*) => {$(
        #[inline]
        fn $read(&self, offset: usize) -> $int {
            match self.0.area(offset, size_of::<$int>()) {
                Some((memory, offset)) => <$int>::from_le(memory.$read(offset)),
                None => <$int>::from_le_bytes(self.0.read_slowly(offset)),
            }
        }

        #[inline]
        fn $write(&mut self, offset: usize, value: $int) {
            match self.0.area(offset, size_of::<$int>()) {
                Some((memory, offset)) => memory.$write(offset, value.to_le()),
                None => self.0.write_slowly(offset, &value.to_le_bytes()),
            }
        }
    )*};
}

impl Registers for VfioRegisters {
    fn size_bytes(&self) -> usize {
        self.0.len
    }

    accesses! {
        u8: read_u8, write_u8;
        u16: read_u16, write_u16;
        u32: read_u32, write_u32;
        u64: read_u64, write_u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    /// A file that stands for a region of three pages and a bit, of which the second page cannot
    /// be mapped.
    fn region() -> (Arc<OwnedFd>, VfioRegisters) {
        let file = Arc::new(memfd_create("region", MemfdFlags::CLOEXEC).unwrap());
        ftruncate(&*file, 8 * PAGE).unwrap();
        let bytes = 3 * PAGE + 16;
        let place = Place { offset: PAGE, bytes };
        let parts = mappable_parts(&[(0, PAGE), (2 * PAGE, 2 * PAGE)], bytes);
        let areas = parts.into_iter().map(|(start, end)| Area {
            start: start as usize,
            end: end as usize,
            memory: IoMemory::map(&*file, place.offset + start, 2 * PAGE as usize).unwrap(),
        });
        let region =
            Region { len: bytes as usize, areas: areas.collect(), device: file.clone(), place };
        (file, VfioRegisters(Arc::new(region)))
    }

    #[test]
    fn what_is_not_mapped_is_accessed_all_the_same() {
        let (file, mut registers) = region();
        for (offset, value) in [(8, 0x11u32), (4096 + 8, 0x22), (8192 + 8, 0x33), (12288 + 8, 0x44)]
        {
            registers.write_u32(offset, value);
            assert_eq!(registers.read_u32(offset), value);
            let mut seen = [0; 4];
            io::pread(&*file, &mut seen, PAGE + offset as u64).unwrap();
            assert_eq!(u32::from_le_bytes(seen), value, "{offset}");
        }
        registers.write_u64(4096, 0x0102_0304_0506_0708);
        assert_eq!((registers.read_u8(4096), registers.read_u16(4098)), (8, 0x0506));
    }

    #[test]
    fn what_is_outside_or_not_aligned_is_nothing() {
        let (file, mut registers) = region();
        for offset in [12288 + 16, 12288 + 14, 2, 4096 + 1, 1 << 40, usize::MAX, usize::MAX - 3] {
            registers.write_u32(offset, 0);
            assert_eq!(registers.read_u32(offset), u32::MAX, "{offset:#x}");
        }
        let mut all = vec![1; 8 * PAGE as usize];
        io::pread(&*file, &mut all, 0).unwrap();
        assert!(all.iter().all(|byte| *byte == 0), "nothing was written");
    }

    #[test]
    fn parts_that_leave_the_region_are_cut_or_left_out() {
        assert_eq!(mappable_parts(&[(0, 64)], 64), [(0, 64)]);
        let odd = [(0, PAGE), (100, PAGE), (2 * PAGE, u64::MAX), (PAGE, u64::MAX - 9), (PAGE, 0)];
        assert_eq!(mappable_parts(&odd, 2 * PAGE), [(0, PAGE), (PAGE, 2 * PAGE)]);
    }
}
