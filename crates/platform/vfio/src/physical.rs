//! Huge pages: how many there are, and where they lie in the machine's memory.

use crate::VfioError;
use outboard_linux::SharedMemory;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where the kernel tells of its huge pages of 2 MiB.
const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

/// How many huge pages are set aside and taken by nobody; none if the kernel does not say.
pub(crate) fn free_huge_pages() -> usize {
    let number = |name| {
        let text = fs::read_to_string(Path::new(POOL).join(name)).ok();
        text.and_then(|text| text.trim().parse::<usize>().ok()).unwrap_or(0)
    };
    number("free_hugepages").saturating_sub(number("resv_hugepages"))
}

/// The physical address of each huge page, in the order in which they are mapped.
pub(crate) fn addresses(memory: &SharedMemory) -> Result<Vec<u64>, VfioError> {
    let pages = File::open("/proc/self/pagemap").map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => VfioError::NotRoot,
        _ => VfioError::System { what: "opening /proc/self/pagemap", error },
    })?;
    let small = rustix::param::page_size() as u64;
    let start = memory.cpu().as_ptr().addr() as u64;
    let offsets = (0..memory.size_bytes()).step_by(SharedMemory::HUGE_PAGE_BYTES);
    let address = |offset: usize| {
        let mut entry = [0; 8];
        let at = (start + offset as u64) / small * 8;
        let what = "reading /proc/self/pagemap";
        pages.read_exact_at(&mut entry, at).map_err(|error| VfioError::System { what, error })?;
        frame(u64::from_ne_bytes(entry))?.checked_mul(small).ok_or(VfioError::NotRoot)
    };
    offsets.map(address).collect()
}

/// The page frame's number in an entry of a `pagemap` (Linux, admin-guide/mm/pagemap).
fn frame(entry: u64) -> Result<u64, VfioError> {
    const PRESENT: u64 = 1 << 63;
    const FRAME: u64 = (1 << 55) - 1;
    match (entry & PRESENT, entry & FRAME) {
        (0, _) => Err(VfioError::NoMemory { wanted: SharedMemory::HUGE_PAGE_BYTES as u64 }),
        // What those see who may not know.
        (_, 0) => Err(VfioError::NotRoot),
        (_, frame) => Ok(frame),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_and_their_absence_is_told_from_a_lack_of_permission() {
        assert_eq!(frame(1 << 63 | 1 << 61 | 0x1234).unwrap(), 0x1234);
        assert!(matches!(frame(1 << 63 | 1 << 61), Err(VfioError::NotRoot)));
        assert!(matches!(frame(1 << 62 | 0x1234), Err(VfioError::NoMemory { .. })));
    }
}
