//! The arena: memory of this process that functions reach, through the IOMMU or without one.
#![allow(unsafe_code)]

use crate::ranges::Addresses;
use crate::reach::{Foreign, VfioSpace};
use crate::space::{Mapper, Space};
use crate::{VfioError, contiguous, limit, physical};
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

/// Memory for the functions in `space`: an arena of `len` bytes, a multiple of the page size, and up
/// to `foreign_bytes` of other processes' beside it.
pub(crate) fn confined(
    space: &Arc<Space>,
    len: usize,
    foreign_bytes: u64,
) -> Result<VfioSpace, VfioError> {
    let allowed = space.ranges().map_err(VfioError::system("asking for the IOMMU's addresses"))?;
    let mut addresses = Addresses::new(allowed);
    let arena = arena(space, len, &mut addresses)?;
    if foreign_bytes == 0 {
        return Ok(VfioSpace::new(arena));
    }
    let foreign = Foreign::new(space.clone(), addresses, foreign_bytes);
    Ok(VfioSpace::with_foreign(arena, Arc::new(foreign)))
}

fn arena(space: &Arc<Space>, len: usize, addresses: &mut Addresses) -> Result<Arena, VfioError> {
    let wanted = len as u64;
    let Some(iova) = addresses.take_for_arena(wanted) else {
        return Err(VfioError::NoAddresses { wanted, largest: addresses.largest() });
    };
    let memory = SharedMemory::of_large_pages("outboard-dma", len);
    let memory = Arc::new(memory.map_err(VfioError::system("making memory for transfers"))?);
    let cpu = memory.cpu().as_ptr().expose_provenance();
    // SAFETY: the memory was just made, nobody else uses it, and it lives until `IommuMapping` has
    // unmapped it (S1, S2, S3).
    match unsafe { space.map(cpu, iova, wanted) } {
        Ok(()) => {}
        Err(Errno::NOMEM) => return Err(limit::explain(wanted, space.locked())),
        Err(error) => return Err(VfioError::system("mapping memory for transfers")(error)),
    }
    // SAFETY: as before; and the IOMMU leads from `iova` on to these very bytes (S4).
    let range = unsafe { MappedRange::new(memory, 0..len, iova) };
    Ok(Arena::new(IommuMapping { range, space: space.clone() }))
}

/// The least memory for transfers that is of use, in huge pages.
const LEAST_PAGES: usize = limit::LEAST_BYTES as usize / SharedMemory::HUGE_PAGE_BYTES;

/// An arena of up to `len` bytes, and how many it has, for functions that no IOMMU confines: device
/// addresses are physical ones. It is one piece of huge pages, below 4 GiB if there is one of use.
pub(crate) fn unconfined_arena(len: usize) -> Result<(Arena, usize), VfioError> {
    let wanted = len.div_ceil(SharedMemory::HUGE_PAGE_BYTES).max(LEAST_PAGES);
    let free = physical::free_huge_pages();
    if free < LEAST_PAGES {
        return Err(VfioError::NoHugePages { wanted, free, least: LEAST_PAGES });
    }
    // Usually the first pages that the system gives lie in one piece. If not, all are looked at.
    let first = pages_in_one_piece(free.min(wanted), wanted);
    let memory = match first {
        Ok(memory) if memory.size_bytes() < len && free > wanted => {
            pages_in_one_piece(free, wanted)
        }
        Err(VfioError::Scattered { .. }) if free > wanted => pages_in_one_piece(free, wanted),
        first => first,
    }?;
    let addresses = physical::addresses(&memory)?;
    let page = SharedMemory::HUGE_PAGE_BYTES as u64;
    let follow = |pair: &[u64]| pair[0].checked_add(page) == Some(pair[1]);
    let device = addresses.first().copied().filter(|_| addresses.windows(2).all(follow));
    let device = device.ok_or(VfioError::Moved)?;
    let len = memory.size_bytes();
    // SAFETY: the memory was just made, nobody else uses it, and it lives as long as the range (S1,
    // S2, S3). From `device` on, physical memory is these very pages, which the kernel swaps to
    // nowhere (S4).
    let range = unsafe { MappedRange::new(Arc::new(memory), 0..len, device) };
    Ok((Arena::new(range), len))
}

/// The best piece of up to `wanted` pages among `pages` that are taken for the moment.
fn pages_in_one_piece(pages: usize, wanted: usize) -> Result<SharedMemory, VfioError> {
    let memory = SharedMemory::of_huge_pages("outboard-dma", pages);
    let memory = memory.map_err(VfioError::system("taking huge pages"))?;
    let addresses = physical::addresses(&memory)?;
    let page_bytes = SharedMemory::HUGE_PAGE_BYTES as u64;
    let chosen = contiguous::choose(&addresses, page_bytes, wanted, LEAST_PAGES);
    let chosen = chosen.map_err(|longest| VfioError::Scattered {
        wanted,
        longest,
        least: LEAST_PAGES,
        taken: pages,
    })?;
    memory.rearranged(&chosen).map_err(VfioError::system("arranging huge pages"))
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
