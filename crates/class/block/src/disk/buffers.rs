//! Memory for transfers, recycled.

use super::Refusal;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::iter::once;
use outboard_hw::dma::{Constraints, DmaBuffer, DmaSpace};

/// Sizes that buffers come in. A transfer of a round size that starts inside a sector, and the two
/// sectors that merging takes, still fit.
const CLASSES: [usize; 4] = [12 << 10, 72 << 10, 264 << 10, (1 << 20) + (16 << 10)];

/// Buffers for the transfers of all drivers, up to a budget. They are recycled: allocating and
/// zeroing a buffer costs more than many a transfer.
#[derive(Default)]
pub(super) struct Buffers {
    /// By driver.
    shelves: Vec<Shelf>,
    /// Bytes in all buffers, idle or not.
    used: usize,
    /// Bytes in those that are not idle.
    lent: usize,
}

/// Where the buffers of one driver come from, and those that are idle.
struct Shelf {
    space: Arc<dyn DmaSpace>,
    constraints: Constraints,
    budget: usize,
    idle: [Vec<DmaBuffer>; CLASSES.len()],
}

impl Buffers {
    /// Serves another driver, with memory from `space` within `constraints`, as long as all
    /// drivers together have at most `budget` bytes.
    pub(super) fn add_driver(
        &mut self,
        space: Arc<dyn DmaSpace>,
        constraints: Constraints,
        budget: usize,
    ) {
        // One buffer is one piece of a transfer: it is split at the device's limits if need be.
        let constraints = Constraints { boundary: 0, ..constraints };
        self.shelves.push(Shelf { space, constraints, budget, idle: Default::default() });
    }

    /// A buffer of at least `len` bytes for a driver, with whatever its last user left in it.
    ///
    /// [`Refusal::Busy`] if there is no memory for it now, but some is to come back;
    /// [`Refusal::NoMemory`] if waiting would be in vain.
    pub(super) fn take(&mut self, driver: usize, len: usize) -> Result<DmaBuffer, Refusal> {
        let class = CLASSES.iter().position(|size| *size >= len);
        let Shelf { idle, budget, .. } = &mut self.shelves[driver];
        if let Some(buffer) = class.and_then(|class| idle[class].pop()) {
            self.lent += buffer.len();
            return Ok(buffer);
        }
        let (size, budget) = (class.map_or(len, |class| CLASSES[class]), *budget);
        let hopeless = size > budget || self.lent == 0;
        let refusal = if hopeless { Refusal::NoMemory } else { Refusal::Busy };
        if self.lent + size > budget {
            return Err(refusal);
        }
        loop {
            let Shelf { space, constraints, .. } = &self.shelves[driver];
            if self.used + size <= budget
                && let Ok(buffer) = space.allocate(size, constraints)
            {
                self.used += size;
                self.lent += size;
                return Ok(buffer);
            }
            // Idle buffers of other sizes may stand in the way, or of drivers that share the
            // memory and may never need them again.
            self.used -= self.shed(driver).ok_or(refusal)?;
        }
    }

    /// Frees an idle buffer, if there is one, of `driver` if possible; how long it was.
    fn shed(&mut self, driver: usize) -> Option<usize> {
        let mut shelves = once(driver).chain(0..self.shelves.len());
        let idle = |shelf: usize| self.shelves[shelf].idle.iter_mut().rev().find_map(Vec::pop);
        shelves.find_map(idle).map(|buffer| buffer.len())
    }

    /// Takes a driver's buffer back.
    pub(super) fn give(&mut self, driver: usize, buffer: DmaBuffer) {
        self.lent -= buffer.len();
        match CLASSES.iter().position(|size| *size == buffer.len()) {
            Some(class) => self.shelves[driver].idle[class].push(buffer),
            None => self.used -= buffer.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outboard_hw::dma::Arena;
    use outboard_linux::SharedMemory;

    const NONE: Constraints = Constraints::NONE;

    /// Buffers for this many drivers that share 8 MiB.
    fn buffers(drivers: usize, budget: usize) -> (Buffers, Arena) {
        let (_, arena) = SharedMemory::for_model("test", 8 << 20).unwrap();
        let mut buffers = Buffers::default();
        (0..drivers).for_each(|_| buffers.add_driver(Arc::new(arena.clone()), NONE, budget));
        (buffers, arena)
    }

    fn all(buffers: &mut Buffers, driver: usize, len: usize) -> Vec<DmaBuffer> {
        core::iter::from_fn(|| buffers.take(driver, len).ok()).collect()
    }

    #[test]
    fn buffers_are_recycled_and_never_exceed_the_budget() {
        let (mut buffers, arena) = buffers(1, 2 << 20);
        let small = all(&mut buffers, 0, 8192);
        assert_eq!(small.len(), (2 << 20) / CLASSES[0]);
        assert_eq!(buffers.take(0, 1).unwrap_err(), Refusal::Busy);
        small.into_iter().for_each(|buffer| buffers.give(0, buffer));
        let before = arena.statistics().buffers;
        let again = buffers.take(0, 512).unwrap();
        assert_eq!(arena.statistics().buffers, before, "nothing was allocated");
        buffers.give(0, again);
        let large = buffers.take(0, 1_000_000).unwrap();
        assert!(large.len() >= 1_000_000, "idle buffers made room");
        assert!(arena.statistics().used_bytes <= 2 << 20);
        buffers.give(0, large);
    }

    #[test]
    fn what_no_class_fits_is_freed_at_once() {
        let (mut buffers, arena) = buffers(1, 4 << 20);
        let large = buffers.take(0, 3 << 20).unwrap();
        assert_eq!(buffers.take(0, 2 << 20).unwrap_err(), Refusal::Busy);
        buffers.give(0, large);
        assert_eq!(arena.statistics().used_bytes, 0);
        assert!(buffers.take(0, 2 << 20).is_ok());
    }

    #[test]
    fn drivers_share_the_budget_and_make_room_for_each_other() {
        let (mut buffers, arena) = buffers(3, 6 << 20);
        for driver in [0, 1, 2, 0] {
            let lent = all(&mut buffers, driver, 1 << 20);
            assert_eq!(lent.len(), 5, "driver {driver}");
            assert!(arena.statistics().used_bytes <= 6 << 20);
            let other = (driver + 1) % 3;
            assert_eq!(buffers.take(other, 1 << 20).unwrap_err(), Refusal::Busy);
            lent.into_iter().for_each(|buffer| buffers.give(driver, buffer));
        }
    }

    #[test]
    fn a_refusal_in_vain_keeps_what_is_idle() {
        let (mut buffers, arena) = buffers(2, 6 << 20);
        let mut lent = all(&mut buffers, 0, 1 << 20);
        buffers.give(0, lent.pop().unwrap());
        assert_eq!(buffers.take(1, 4 << 20).unwrap_err(), Refusal::Busy);
        assert_eq!(arena.statistics().buffers, 5);
    }

    #[test]
    fn memory_that_will_not_come_back_is_not_waited_for() {
        let (mut buffers, arena) = buffers(2, 6 << 20);
        let one = buffers.take(0, 1).unwrap();
        assert_eq!(buffers.take(1, 7 << 20).unwrap_err(), Refusal::NoMemory, "over the budget");
        let _elsewhere = arena.allocate(7 << 20, &NONE).unwrap();
        assert_eq!(buffers.take(1, 1 << 20).unwrap_err(), Refusal::Busy);
        buffers.give(0, one);
        assert_eq!(buffers.take(1, 1 << 20).unwrap_err(), Refusal::NoMemory);
    }
}
