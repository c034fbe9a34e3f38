//! Disks made of memory.

use outboard_block::{
    BlockDriver, BlockError, Completion, Geometry, Health, Management, Operation, Refused,
    RefusedReason, Request, Tag, Unit, UnitId, UnitState,
};
use outboard_hw::Instant;
use outboard_hw::dma::{Arena, Constraints, DeviceView, DmaSpace, ModelSpace, SgList};
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
    /// The driver takes requests with any memory.
    pub(crate) takes_any_memory: bool,
    /// Units that the driver is to have from its next poll on.
    pub(crate) edits: Vec<(u16, Unit)>,
    /// What the driver was told beside data, with the password.
    pub(crate) told: Vec<(Management, Vec<u8>)>,
    /// How that ends.
    pub(crate) answer: Option<BlockError>,
    /// What reading the health finds.
    pub(crate) health: Health,
}

/// A driver of disks made of memory, all of the same, which completes one request at a time, in
/// random order, and fails where it is told.
pub(crate) struct Memory {
    shared: Arc<Mutex<Shared>>,
    units: Vec<Unit>,
    health: Option<Health>,
    space: Arc<dyn DmaSpace>,
    limits: Constraints,
    /// Where transfers go, if they are by device address.
    view: Option<DeviceView>,
    waiting: Vec<(UnitId, Tag, Request)>,
    changes: u64,
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
            max_zero_sectors: 60,
            max_erase_sectors: 0,
            queue_depth: depth,
            ..Geometry::NONE
        };
        let state = if content.is_empty() { UnitState::Empty } else { UnitState::Ready };
        let unit = Unit { state, generation: 1, geometry, ..Unit::UNKNOWN };
        let shared = Arc::new(Mutex::new(Shared { content, seed: 1, ..Shared::default() }));
        Self {
            shared,
            units: vec![unit],
            health: None,
            space: Arc::new(arena.clone()),
            limits: Constraints::NONE,
            view: None,
            waiting: Vec::new(),
            changes: 0,
            stopped: false,
        }
    }

    /// With so many places, of which all but the first are empty.
    #[allow(dead_code, reason = "not every test has several")]
    pub(crate) fn places(mut self, count: usize) -> Self {
        self.units.resize(count, Unit { state: UnitState::Absent, ..Unit::UNKNOWN });
        self
    }

    /// With a controller that finds memory by device address, in this space, and takes it within such
    /// limits.
    #[allow(dead_code, reason = "not every test is about addresses")]
    pub(crate) fn reaching(self, space: &ModelSpace, limits: Constraints) -> Self {
        let view = Some(DeviceView::of_space(space.clone()));
        Self { space: Arc::new(space.clone()), limits, view, ..self }
    }

    /// Gives units the state that the test wants; what is under way at those that change fails.
    fn edit(&mut self, done: &mut dyn FnMut(Completion)) {
        let edits = std::mem::take(&mut self.shared.lock().unwrap().edits);
        for (number, unit) in edits {
            let old = &self.units[usize::from(number)];
            if (old.state, old.generation) != (unit.state, unit.generation) {
                self.changes += 1;
                let gone = |(of, ..): &mut (UnitId, Tag, Request)| of.0 == number;
                for (unit, tag, request) in self.waiting.extract_if(.., gone) {
                    let result = Err(BlockError::Gone);
                    done(Completion { unit, tag, result, data: request.data });
                }
            }
            self.units[usize::from(number)] = unit;
        }
    }

    fn manage(&mut self, what: Management, request: &mut Request) -> Result<(), BlockError> {
        let mut shared = self.shared.lock().unwrap();
        let mut password = Vec::new();
        if what.takes_password() {
            let data = std::mem::take(&mut request.data);
            let offset = data.segments(&Constraints::NONE).next().unwrap().address.bits();
            let buffer = data.into_buffers().next().unwrap();
            let start = (offset - buffer.address().bits()) as usize;
            password.resize(32, 0);
            buffer.read_bytes(start, &mut password);
            request.data = SgList::single(buffer, start..start + 32);
        }
        shared.told.push((what, password));
        if what == Management::ReadHealth {
            self.health = Some(shared.health.clone());
        }
        shared.answer.map_or(Ok(()), Err)
    }

    pub(crate) fn shared(&self) -> Arc<Mutex<Shared>> {
        self.shared.clone()
    }

    fn carry_out(&mut self, request: &mut Request) -> Result<(), BlockError> {
        if let Operation::Manage(what) = request.operation {
            return self.manage(what, request);
        }
        let mut shared = self.shared.lock().unwrap();
        let Request { operation, lba, sectors, .. } = *request;
        shared.log.push((operation, lba, sectors));
        if let Some((sector, named)) = shared.bad.range(lba..lba + sectors).next() {
            let lba = named.then_some(*sector);
            return Err(if *named { BlockError::Media { lba } } else { BlockError::Aborted });
        }
        let bytes = lba as usize * SECTOR..(lba + sectors) as usize * SECTOR;
        let range = shared.content.get_mut(bytes.clone()).unwrap();
        if matches!(operation, Operation::WriteZeroes(_)) {
            range.fill(0);
            return Ok(());
        }
        let data = std::mem::take(&mut request.data);
        let segments: Vec<_> = data.segments(&Constraints::NONE).collect();
        if operation == Operation::Flush || operation == Operation::Discard {
            return Ok(());
        }
        if let Some(view) = &self.view {
            let mut rest = range;
            for segment in segments {
                let (piece, after) = rest.split_at_mut(segment.bytes as usize);
                match operation {
                    Operation::Read => view.write(segment.address.bits(), piece).unwrap(),
                    _ => view.read(segment.address.bits(), piece).unwrap(),
                }
                rest = after;
            }
            request.data = data;
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
        self.units.len() as u16
    }
    fn unit(&self, unit: UnitId) -> Option<&Unit> {
        self.units.get(usize::from(unit.0))
    }
    fn changes(&self) -> u64 {
        self.changes
    }
    fn health(&self, _: UnitId) -> Option<&Health> {
        self.health.as_ref()
    }
    fn constraints(&self) -> Constraints {
        self.limits
    }
    fn dma(&self) -> Arc<dyn DmaSpace> {
        self.space.clone()
    }
    fn takes_any_memory(&self) -> bool {
        self.shared.lock().unwrap().takes_any_memory
    }
    fn submit(&mut self, unit: UnitId, tag: Tag, request: Request) -> Result<(), Refused> {
        let Unit { geometry, state, .. } = self.units[usize::from(unit.0)];
        assert!(request.sectors <= geometry.max_sectors(request.operation));
        let state = if self.stopped { UnitState::Stopping } else { state };
        let managed = matches!(request.operation, Operation::Manage(_));
        if state != UnitState::Ready && (self.stopped || !managed) {
            return Err(request.refused(RefusedReason::NotReady(state)));
        }
        if self.waiting.len() >= usize::from(geometry.queue_depth) {
            return Err(request.refused(RefusedReason::QueueFull));
        }
        self.waiting.push((unit, tag, request));
        Ok(())
    }
    fn kick(&mut self, _: Instant) {}
    fn interrupt(&mut self, _: u16) {}
    fn poll(&mut self, _: Instant, done: &mut dyn FnMut(Completion)) {
        let other = self.shared.lock().unwrap().exchange.take();
        if let Some(content) = other {
            let unit = &mut self.units[0];
            unit.generation += 1;
            unit.state = if content.is_empty() { UnitState::Empty } else { UnitState::Ready };
            unit.geometry.sectors = (content.len() / SECTOR) as u64;
            self.changes += 1;
            self.shared.lock().unwrap().content = content;
            for (unit, tag, request) in self.waiting.drain(..) {
                let result = Err(BlockError::MediumChanged);
                done(Completion { unit, tag, result, data: request.data });
            }
        }
        self.edit(done);
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
        let (unit, tag, mut request) = self.waiting.swap_remove(seed as usize % self.waiting.len());
        let result = self.carry_out(&mut request);
        done(Completion { unit, tag, result, data: request.data });
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
