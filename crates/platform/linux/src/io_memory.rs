//! Registers of a device, mapped.
#![allow(unsafe_code)]

use crate::bus_error::Watch;
use rustix::io;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::param::page_size;
use std::fmt;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, compiler_fence, fence};

/// A range of registers that a descriptor gives access to, mapped.
///
/// Once the device is gone everything reads as ones and writes do nothing; nothing faults. Offsets
/// that are outside or not aligned to the access's width are treated likewise.
pub struct IoMemory {
    cpu: NonNull<u8>,
    len: usize,
    /// Dropped before the mapping is: whatever is there later is not watched by mistake.
    watch: Watch,
    _mapping: Mapping,
}

// SAFETY: the mapping belongs to the value and is not tied to a thread (S8).
unsafe impl Send for IoMemory {}
// SAFETY: each access is one of the processor's, and devices expect any order (S8).
unsafe impl Sync for IoMemory {}

impl IoMemory {
    /// Maps `len` bytes from `offset` of the descriptor on; both are multiples of the page size.
    pub fn map(device: impl AsFd, offset: u64, len: usize) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let anywhere = std::ptr::null_mut();
        // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing existing (S2).
        let cpu = unsafe { mmap(anywhere, len, access, MapFlags::SHARED, device, offset) }?;
        let cpu = NonNull::new(cpu.cast::<u8>()).ok_or(io::Errno::NOMEM)?;
        let mapping = Mapping(cpu, len);
        let watch = Watch::new(cpu.as_ptr().expose_provenance(), len, page_size())?;
        Ok(Self { cpu, len, watch, _mapping: mapping })
    }

    /// Its length in bytes.
    pub const fn size_bytes(&self) -> usize {
        self.len
    }

    /// Whether an access has found that the device is gone, or switched off.
    pub fn is_gone(&self) -> bool {
        self.watch.is_gone()
    }

    #[inline]
    fn place<T>(&self, offset: usize) -> Option<NonNull<T>> {
        let bytes = size_of::<T>();
        let inside =
            offset.is_multiple_of(bytes) && offset < self.len && self.len - offset >= bytes;
        if !inside || self.watch.is_gone() {
            return None;
        }
        // SAFETY: the offset is inside the mapping, which lives as long as the value (S8).
        Some(unsafe { self.cpu.add(offset) }.cast())
    }
}

macro_rules! accesses {
    ($($int:ty: $read:ident, $write:ident;)*) => {$(
        #[doc = concat!("Reads a `", stringify!($int), "`.")]
        #[inline]
        pub fn $read(&self, offset: usize) -> $int {
            let Some(place) = self.place::<$int>(offset) else { return <$int>::MAX };
            // SAFETY: inside the mapping, aligned, and any bits are a value (S8).
            let value = unsafe { place.as_ptr().read_volatile() };
            after_read();
            // The access itself may have found out.
            if self.watch.is_gone() { <$int>::MAX } else { value }
        }

        #[doc = concat!("Writes a `", stringify!($int), "`.")]
        #[inline]
        pub fn $write(&self, offset: usize, value: $int) {
            let Some(place) = self.place::<$int>(offset) else { return };
            before_write();
            // SAFETY: inside the mapping and aligned; nobody has a reference to it (S8).
            unsafe { place.as_ptr().write_volatile(value) };
        }
    )*};
}

impl IoMemory {
    accesses! {
        u8: read_u8, write_u8;
        u16: read_u16, write_u16;
        u32: read_u32, write_u32;
        u64: read_u64, write_u64;
    }
}

/// What was stored before is visible before the write is. On x86-64 stores to ordinary memory are
/// never passed by stores to registers, so only the compiler has to be told (Intel SDM, volume 3A,
/// §9.2.2, §12.3).
#[inline]
fn before_write() {
    if cfg!(target_arch = "x86_64") {
        compiler_fence(Ordering::SeqCst)
    } else {
        fence(Ordering::SeqCst)
    }
}

/// What is loaded later is not older than the register's value; as [`before_write`].
#[inline]
fn after_read() {
    before_write();
}

/// A mapping that ends with the value.
struct Mapping(NonNull<u8>, usize);

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped with this length, and nobody uses it any more (S8).
        let _ = unsafe { munmap(self.0.as_ptr().cast(), self.1) };
    }
}

impl fmt::Debug for IoMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IoMemory({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use std::os::fd::OwnedFd;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    /// A file of two pages, which stands for registers.
    fn registers() -> (OwnedFd, IoMemory) {
        let file = memfd_create("registers", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, 8192).unwrap();
        let mapped = IoMemory::map(&file, 0, 8192).unwrap();
        (file, mapped)
    }

    #[test]
    fn accesses_have_their_width_and_stay_inside() {
        let (file, mapped) = registers();
        mapped.write_u32(8, 0x1122_3344);
        mapped.write_u8(8, 0x55);
        assert_eq!(mapped.read_u64(8), 0x1122_3355);
        assert_eq!(mapped.read_u16(10), 0x1122);
        let mut seen = [0; 4];
        rustix::io::pread(&file, &mut seen, 8).unwrap();
        assert_eq!(seen, [0x55, 0x33, 0x22, 0x11]);
        for outside in [8192, 8190, 2, usize::MAX, usize::MAX - 3] {
            mapped.write_u32(outside, 0);
            assert_eq!(mapped.read_u32(outside), u32::MAX, "{outside}");
        }
        assert!(!mapped.is_gone());
    }

    #[test]
    fn what_is_gone_reads_as_ones_and_ignores_writes() {
        let (file, mapped) = registers();
        let (_other_file, other) = registers();
        mapped.write_u32(0, 7);
        ftruncate(&file, 0).unwrap();
        mapped.write_u32(4096, 1);
        assert!(mapped.is_gone());
        assert_eq!(mapped.read_u32(4096), u32::MAX);
        assert_eq!(mapped.read_u32(0), u32::MAX);
        mapped.write_u8(0, 1);
        assert_eq!(mapped.read_u8(0), u8::MAX);
        assert!(!other.is_gone());
        drop(mapped);
        let (file, mapped) = registers();
        ftruncate(&file, 4096).unwrap();
        assert_eq!(mapped.read_u16(0), 0, "the place of one that is gone is clean");
        assert_eq!(mapped.read_u16(4096), u16::MAX);
        assert!(mapped.is_gone());
    }

    #[test]
    fn a_bus_error_elsewhere_ends_the_process() {
        const CHILD: &str = "OUTBOARD_TEST_BUS_ERROR";
        let name = "io_memory::tests::a_bus_error_elsewhere_ends_the_process";
        if std::env::var_os(CHILD).is_some() {
            let (file, mapped) = registers();
            ftruncate(&file, 0).unwrap();
            assert_eq!(mapped.read_u8(0), u8::MAX);
            let access = ProtFlags::READ;
            let anywhere = std::ptr::null_mut();
            // SAFETY: a fresh mapping (S2).
            let unwatched = unsafe { mmap(anywhere, 4096, access, MapFlags::SHARED, &file, 0) };
            // SAFETY: it is mapped; that it faults is what this is about (S1).
            let _ = unsafe { unwatched.unwrap().cast::<u8>().read_volatile() };
            return;
        }
        let mut child = Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", name]).env(CHILD, "1").output().unwrap();
        assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{output:?}");
    }
}
