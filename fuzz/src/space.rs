//! Memory for whatever driver is fuzzed.

use outboard_hw::dma::{
    Arena, Constraints, DeviceView, DmaBuffer, DmaError, DmaSpace, DmaStatistics,
};
use outboard_linux::SharedMemory;
use std::sync::atomic::{AtomicBool, Ordering};

/// The arena, which may be out of memory.
pub(crate) struct Space {
    arena: Arena,
    pub(crate) exhausted: AtomicBool,
}

impl Space {
    /// Memory of so many bytes, and a device's view of it.
    pub(crate) fn new(bytes: usize) -> (Self, DeviceView) {
        let (_, arena) = SharedMemory::for_model("fuzz", bytes).expect("memory for the fuzzer");
        let view = DeviceView::new(arena.clone());
        (Self { arena, exhausted: AtomicBool::new(false) }, view)
    }
}

/// Whether `bytes` at a device address are allocated, without a copy of them.
pub(crate) fn is_allocated(view: &DeviceView, address: u64, bytes: u64) -> bool {
    // What is allocated is allocated by pages.
    const PAGE: u64 = 4096;
    let Some(end) = address.checked_add(bytes) else { return false };
    let mut at = address;
    while at < end {
        if view.read(at, &mut [0]).is_err() {
            return false;
        }
        at = (at / PAGE + 1) * PAGE;
    }
    true
}

impl DmaSpace for Space {
    fn allocate(&self, len: usize, constraints: &Constraints) -> Result<DmaBuffer, DmaError> {
        if self.exhausted.load(Ordering::Relaxed) {
            return Err(DmaError::Exhausted { requested: len, free: 0 });
        }
        self.arena.allocate(len, constraints)
    }

    fn statistics(&self) -> DmaStatistics {
        self.arena.statistics()
    }
}
