//! The arena: memory of this process that functions reach through the IOMMU.
#![allow(unsafe_code)]

use crate::space::Space;
use crate::{VfioError, limit, ranges};
use outboard_hw::dma::{Arena, ArenaMemory};
use outboard_linux::{MappedRange, SharedMemory};
use rustix::io::Errno;
use std::ptr::NonNull;
use std::sync::Arc;

/// Memory that is mapped for the functions of a space for as long as the value lives.
#[derive(Debug)]
struct IommuMapping {
    range: MappedRange,
    space: Arc<Space>,
}

/// An arena of `len` bytes, a multiple of the page size, that the functions in `space` reach.
pub(crate) fn arena(space: &Arc<Space>, len: usize) -> Result<Arena, VfioError> {
    let wanted = len as u64;
    let allowed = space.ranges().map_err(VfioError::system("asking for the IOMMU's addresses"))?;
    let Some(iova) = ranges::place(&allowed, wanted) else {
        let sizes = allowed.iter().map(|range| range.end().saturating_sub(*range.start()));
        return Err(VfioError::NoAddresses { wanted, largest: sizes.max().unwrap_or(0) });
    };
    let memory = SharedMemory::of_large_pages("outboard-dma", len);
    let memory = Arc::new(memory.map_err(VfioError::system("making memory for transfers"))?);
    let cpu = memory.cpu().as_ptr().expose_provenance();
    // SAFETY: the memory was just made, nobody else uses it, and it lives until `IommuMapping` has
    // unmapped it (S1, S2, S3).
    match unsafe { space.map(cpu, iova, wanted) } {
        Ok(()) => {}
        Err(Errno::NOMEM) => return Err(limit::explain(wanted)),
        Err(error) => return Err(VfioError::system("mapping memory for transfers")(error)),
    }
    // SAFETY: as before; and the IOMMU leads from `iova` on to these very bytes (S4).
    let range = unsafe { MappedRange::new(memory, 0..len, iova) };
    Ok(Arena::new(IommuMapping { range, space: space.clone() }))
}

// SAFETY: all of it is `MappedRange`'s promise (S1, S2, S3, S4), and the mapping in the IOMMU ends
// with the value.
unsafe impl ArenaMemory for IommuMapping {
    fn cpu(&self) -> NonNull<u8> {
        self.range.cpu()
    }

    fn device(&self) -> u64 {
        self.range.device()
    }

    fn size_bytes(&self) -> usize {
        self.range.size_bytes()
    }
}

impl Drop for IommuMapping {
    fn drop(&mut self) {
        // If the space's last function has left it, the kernel has unmapped everything already.
        let _ = self.space.unmap(self.range.device(), self.range.size_bytes() as u64);
    }
}
