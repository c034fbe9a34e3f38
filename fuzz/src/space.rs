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
