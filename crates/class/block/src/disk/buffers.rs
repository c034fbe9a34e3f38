//! Memory for transfers, recycled.

use alloc::sync::Arc;
use alloc::vec::Vec;
use outboard_hw::dma::{Constraints, DmaBuffer, DmaSpace};

/// Sizes that buffers come in. A transfer of a round size that starts inside a sector, and the two
/// sectors that merging takes, still fit.
const CLASSES: [usize; 4] = [12 << 10, 72 << 10, 264 << 10, (1 << 20) + (16 << 10)];

/// Buffers for the transfers of one driver, up to a budget. They are recycled: allocating and
/// zeroing a buffer costs more than many a transfer.
pub(super) struct Buffers {
    space: Arc<dyn DmaSpace>,
    constraints: Constraints,
    idle: [Vec<DmaBuffer>; CLASSES.len()],
    /// Bytes in all buffers, idle or not.
    used: usize,
    budget: usize,
}

impl Buffers {
    /// At most `budget` bytes from `space`, within `constraints`.
    pub(super) fn new(space: Arc<dyn DmaSpace>, constraints: Constraints, budget: usize) -> Self {
        // One buffer is one piece of a transfer: it is split at the device's limits if need be.
        let constraints = Constraints { boundary: 0, ..constraints };
        Self { space, constraints, idle: Default::default(), used: 0, budget }
    }

    /// A buffer of at least `len` bytes, with whatever its last user left in it; `None` if there
    /// is no memory for it now.
    pub(super) fn take(&mut self, len: usize) -> Option<DmaBuffer> {
        let class = CLASSES.iter().position(|size| *size >= len);
        if let Some(buffer) = class.and_then(|class| self.idle[class].pop()) {
            return Some(buffer);
        }
        let size = class.map_or(len, |class| CLASSES[class]);
        loop {
            if self.used + size <= self.budget
                && let Ok(buffer) = self.space.allocate(size, &self.constraints)
            {
                self.used += size;
                return Some(buffer);
            }
            // Idle buffers of other sizes may stand in the way.
            let idle = self.idle.iter_mut().rev().find_map(Vec::pop)?;
            self.used -= idle.len();
        }
    }

    /// Takes a buffer back.
    pub(super) fn give(&mut self, buffer: DmaBuffer) {
        match CLASSES.iter().position(|size| *size == buffer.len()) {
            Some(class) => self.idle[class].push(buffer),
            None => self.used -= buffer.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outboard_linux::SharedMemory;

    #[test]
    fn buffers_are_recycled_and_never_exceed_the_budget() {
        let (_, arena) = SharedMemory::for_model("test", 8 << 20).unwrap();
        let mut buffers = Buffers::new(Arc::new(arena.clone()), Constraints::NONE, 2 << 20);
        let small: Vec<_> = core::iter::from_fn(|| buffers.take(8192)).collect();
        assert_eq!(small.len(), (2 << 20) / CLASSES[0]);
        assert!(buffers.take(1).is_none());
        small.into_iter().for_each(|buffer| buffers.give(buffer));
        let before = arena.statistics().buffers;
        let again = buffers.take(512).unwrap();
        assert_eq!(arena.statistics().buffers, before, "nothing was allocated");
        buffers.give(again);
        let large = buffers.take(1_000_000).unwrap();
        assert!(large.len() >= 1_000_000, "idle buffers made room");
        assert!(arena.statistics().used_bytes <= 2 << 20);
        buffers.give(large);
    }

    #[test]
    fn what_no_class_fits_is_freed_at_once() {
        let (_, arena) = SharedMemory::for_model("test", 8 << 20).unwrap();
        let mut buffers = Buffers::new(Arc::new(arena.clone()), Constraints::NONE, 4 << 20);
        let large = buffers.take(3 << 20).unwrap();
        assert!(buffers.take(2 << 20).is_none());
        buffers.give(large);
        assert_eq!(arena.statistics().used_bytes, 0);
        assert!(buffers.take(2 << 20).is_some());
    }
}
