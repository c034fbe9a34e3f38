//! A space whose devices are software, and reach foreign memory, too.
#![allow(unsafe_code)]

use super::arena::Arena;
use super::buffer::DmaBuffer;
use super::foreign::{ForeignRegion, NOWHERE, Reach, Unreachable};
use super::view::Located;
use super::{Constraints, DmaError, DmaSpace, DmaStatistics};
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use spin::Mutex;

/// What is reached at least, as of an IOMMU.
const PAGE: usize = 4096;

/// An arena, and foreign memory beside it, for devices that are software: they reach both through
/// a [`DeviceView`](super::DeviceView), and of the foreign memory just the pages that they were let
/// reach, like devices behind an IOMMU.
#[derive(Clone)]
pub struct ModelSpace {
    arena: Arena,
    reached: Arc<Mutex<Vec<Weak<ModelReach>>>>,
}

struct ModelReach {
    memory: Arc<dyn ForeignRegion>,
    device: u64,
    /// Of each page, whether devices reach it.
    pages: Mutex<Vec<bool>>,
}

impl ModelSpace {
    /// A space with this arena.
    pub fn new(arena: Arena) -> Self {
        Self { arena, reached: Arc::default() }
    }

    pub(super) const fn arena(&self) -> &Arena {
        &self.arena
    }

    /// How many foreign regions are reached.
    pub fn foreign_regions(&self) -> usize {
        self.reached.lock().iter().filter(|reach| reach.strong_count() > 0).count()
    }

    /// Where the processor finds `bytes` at a device address in foreign memory, if all of them are
    /// reached.
    pub(super) fn locate_reached(&self, address: u64, bytes: usize) -> Option<Located> {
        let reached = self.reached.lock();
        reached.iter().filter_map(Weak::upgrade).find_map(|reach| {
            let start = usize::try_from(address.checked_sub(reach.device)?).ok()?;
            let end = start.checked_add(bytes).filter(|end| *end <= reach.memory.size_bytes())?;
            let pages = reach.pages.lock();
            let all = pages[start / PAGE..end.div_ceil(PAGE)].iter().all(|reached| *reached);
            let at = reach.memory.cpu().as_ptr().wrapping_add(start);
            all.then(|| (at, Some(reach.memory.clone())))
        })
    }
}

impl DmaSpace for ModelSpace {
    fn allocate(&self, len: usize, constraints: &Constraints) -> Result<DmaBuffer, DmaError> {
        self.arena.allocate(len, constraints)
    }

    fn statistics(&self) -> DmaStatistics {
        self.arena.statistics()
    }

    fn reach(
        &self,
        memory: Arc<dyn ForeignRegion>,
        constraints: &Constraints,
    ) -> Result<Box<dyn Reach>, Unreachable> {
        let bytes = memory.size_bytes();
        let mut reached = self.reached.lock();
        reached.retain(|reach| reach.strong_count() > 0);
        let ends = reached.iter().filter_map(Weak::upgrade).map(|reach| reach.end());
        let device = ends.fold(self.arena.end(), u64::max);
        let end = device.checked_add(bytes as u64).filter(|end| *end <= NOWHERE);
        if end.is_none_or(|end| end - 1 > constraints.highest_address) {
            return Err(Unreachable::Refused("the devices' addresses are used up".into()));
        }
        let pages = Mutex::new(alloc::vec![false; bytes.div_ceil(PAGE)]);
        let reach = Arc::new(ModelReach { memory, device, pages });
        reached.push(Arc::downgrade(&reach));
        Ok(Box::new(Handle(reach)))
    }
}

impl ModelReach {
    fn end(&self) -> u64 {
        self.device + self.memory.size_bytes() as u64
    }
}

/// The one that is counted: a look at the table does not keep memory reached.
struct Handle(Arc<ModelReach>);

// SAFETY: devices of this space find things through `locate_reached` alone, which looks at the
// pages, and goes to the region's memory (S4).
unsafe impl Reach for Handle {
    fn device(&self) -> u64 {
        self.0.device
    }

    fn has(&self, range: Range<usize>) -> bool {
        let pages = self.0.pages.lock();
        let pages = pages.get(range.start / PAGE..range.end.div_ceil(PAGE));
        pages.is_some_and(|pages| pages.iter().all(|reached| *reached))
    }

    fn extend(&self, range: Range<usize>) -> Result<(), Unreachable> {
        let mut pages = self.0.pages.lock();
        let range = range.start / PAGE..range.end.div_ceil(PAGE);
        pages.get_mut(range).ok_or(Unreachable::Outside)?.fill(true);
        Ok(())
    }
}

impl fmt::Debug for ModelSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelSpace").field("arena", &self.arena).finish_non_exhaustive()
    }
}
