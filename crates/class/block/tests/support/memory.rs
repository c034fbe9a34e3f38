//! A disk made of memory.

use outboard_block::{
    BlockDriver, BlockError, Completion, Geometry, Operation, Refused, RefusedReason, Request, Tag,
    Unit, UnitId, UnitState,
};
use outboard_hw::Instant;
use outboard_hw::dma::{Arena, Constraints, DmaSpace, SgList};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex};

/// What the driver and the test share.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) content: Vec<u8>,
    /// Sectors that fail, and whether the driver says which.
    pub(crate) bad: BTreeMap<u64, bool>,
    /// Requests that the driver has carried out, as (operation, lba, sectors).
    pub(crate) log: Vec<(Operation, u64, u64)>,
    pub(crate) seed: u64,
    /// A medium that takes the place of the one that is there; empty for none.
    pub(crate) exchange: Option<Vec<u8>>,
    /// Nothing completes.
    pub(crate) frozen: bool,
}

/// A driver of one disk made of memory, which completes one request at a time, in random order,
/// and fails where it is told.
pub(crate) struct Memory {
    shared: Arc<Mutex<Shared>>,
    unit: Unit,
    arena: Arena,
    waiting: Vec<(Tag, Request)>,
    stopped: bool,
}

pub(crate) const SECTOR: usize = 512;

impl Memory {
    /// A disk with `content`, whose transfers take memory from `arena`.
    pub(crate) fn new(
        content: Vec<u8>,
        depth: u16,
        max_transfer_sectors: u32,
        arena: &Arena,
    ) -> Self {
        let geometry = Geometry {
            sectors: (content.len() / SECTOR) as u64,
            max_transfer_sectors,
            max_discard_sectors: 100,
            queue_depth: depth,
            ..Geometry::NONE
        };
        let state = if content.is_empty() { UnitState::Empty } else { UnitState::Ready };
        let unit = Unit { state, generation: 1, geometry, ..Unit::UNKNOWN };
        let shared = Arc::new(Mutex::new(Shared { content, seed: 1, ..Shared::default() }));
        Self { shared, unit, arena: arena.clone(), waiting: Vec::new(), stopped: false }
    }

    pub(crate) fn shared(&self) -> Arc<Mutex<Shared>> {
        self.shared.clone()
    }

    fn carry_out(&mut self, request: &mut Request) -> Result<(), BlockError> {
        let mut shared = self.shared.lock().unwrap();
        let Request { operation, lba, sectors, .. } = *request;
        shared.log.push((operation, lba, sectors));
        if let Some((sector, named)) = shared.bad.range(lba..lba + sectors).next() {
            let lba = named.then_some(*sector);
            return Err(if *named { BlockError::Media { lba } } else { BlockError::Aborted });
        }
        let bytes = lba as usize * SECTOR..(lba + sectors) as usize * SECTOR;
        let range = shared.content.get_mut(bytes.clone()).unwrap();
        let data = std::mem::take(&mut request.data);
        let segments: Vec<_> = data.segments(&Constraints::NONE).collect();
        if operation == Operation::Flush || operation == Operation::Discard {
            return Ok(());
        }
        assert_eq!(segments.len(), 1);
        let offset = segments[0].address.bits();
        let mut buffer = data.into_buffers().next().unwrap();
        let start = (offset - buffer.address().bits()) as usize;
        match operation {
            Operation::Read => buffer.write_bytes(start, range),
            _ => buffer.read_bytes(start, range),
        }
        request.data = SgList::single(buffer, start..start + bytes.len());
        Ok(())
    }
}

impl BlockDriver for Memory {
    fn unit_count(&self) -> u16 {
        1
    }
    fn unit(&self, unit: UnitId) -> Option<&Unit> {
        (unit.0 == 0).then_some(&self.unit)
    }
    fn constraints(&self) -> Constraints {
        Constraints::NONE
    }
    fn dma(&self) -> Arc<dyn DmaSpace> {
        Arc::new(self.arena.clone())
    }
    fn submit(&mut self, _: UnitId, tag: Tag, request: Request) -> Result<(), Refused> {
        let most = u64::from(self.unit.geometry.max_transfer_sectors);
        assert!(request.sectors <= most || request.operation == Operation::Discard);
        if self.unit.state != UnitState::Ready {
            return Err(request.refused(RefusedReason::NotReady(self.unit.state)));
        }
        if self.stopped {
            return Err(request.refused(RefusedReason::NotReady(UnitState::Stopping)));
        }
        if self.waiting.len() >= usize::from(self.unit.geometry.queue_depth) {
            return Err(request.refused(RefusedReason::QueueFull));
        }
        self.waiting.push((tag, request));
        Ok(())
    }
    fn kick(&mut self, _: Instant) {}
    fn interrupt(&mut self, _: u16) {}
    fn poll(&mut self, _: Instant, done: &mut dyn FnMut(Completion)) {
        let other = self.shared.lock().unwrap().exchange.take();
        if let Some(content) = other {
            self.unit.generation += 1;
            self.unit.state = if content.is_empty() { UnitState::Empty } else { UnitState::Ready };
            self.unit.geometry.sectors = (content.len() / SECTOR) as u64;
            self.shared.lock().unwrap().content = content;
            for (tag, request) in self.waiting.drain(..) {
                let (unit, result) = (UnitId(0), Err(BlockError::MediumChanged));
                done(Completion { unit, tag, result, data: request.data });
            }
        }
        if self.waiting.is_empty() {
            return;
        }
        let seed = {
            let mut shared = self.shared.lock().unwrap();
            if shared.frozen {
                return;
            }
            shared.seed = shared.seed.wrapping_mul(6364136223846793005).wrapping_add(99);
            shared.seed >> 33
        };
        // One at a time, whichever.
        let (tag, mut request) = self.waiting.swap_remove(seed as usize % self.waiting.len());
        let result = self.carry_out(&mut request);
        done(Completion { unit: UnitId(0), tag, result, data: request.data });
    }
    fn next_deadline(&self) -> Option<Instant> {
        None
    }
    fn stop(&mut self) {
        self.stopped = true;
    }
    fn is_stopped(&self) -> bool {
        self.stopped && self.waiting.is_empty()
    }
    fn counters(&self, _: UnitId, _: &mut dyn FnMut(&'static str, u64)) {}
    fn drain_events(&mut self, _: &mut dyn FnMut(UnitId, Instant, &dyn Display)) {}
}
