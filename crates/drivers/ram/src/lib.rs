//! A disk made of memory.
//!
//! There is no device behind it: a request is a copy between its memory and the disk's, made when
//! it is submitted, and has ended by the next [`poll`](BlockDriver::poll). What is on the disk is
//! gone with it, so it is for scratch space, and for measuring what stands above a disk: no disk is
//! faster.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::{Debug, Display, Formatter};
use outboard_block::{
    BlockDriver, BlockError, Completion, Geometry, Identity, Medium, Operation, Refused,
    RefusedReason, Request, Tag, Unit, UnitId, UnitState,
};
use outboard_hw::Instant;
use outboard_hw::dma::{Constraints, DmaBuffer, DmaSpace};

/// Bytes of a sector.
pub const SECTOR_BYTES: usize = 512;
/// Bytes of a page, which is what is best read and written.
const PAGE_BYTES: u32 = 4096;
/// The most sectors of a request: what front ends ask for at most, of 4 MiB.
const MAX_TRANSFER_SECTORS: u64 = (4 << 20) / SECTOR_BYTES as u64;
/// Requests that have ended and were not taken yet.
const DEPTH: u16 = 1024;

/// A disk made of memory; see [the crate](crate).
pub struct Ram {
    content: DmaBuffer,
    space: Arc<dyn DmaSpace>,
    unit: Unit,
    ended: Vec<Completion>,
    /// Whether somebody has polled yet.
    polled: bool,
    stopped: bool,
    transfers: u64,
}

impl Ram {
    /// A disk with the whole sectors of `content`, whose requests take their memory from `space`.
    /// The serial number has at most 20 bytes of `serial`.
    pub fn new(content: DmaBuffer, space: Arc<dyn DmaSpace>, serial: &str) -> Self {
        let mut identity = Identity::default();
        let _ = identity.model.push_str("MEMORY");
        serial.chars().for_each(|letter| drop(identity.serial.push(letter)));
        let sectors = (content.len() / SECTOR_BYTES) as u64;
        let geometry = Geometry {
            sector_bytes: SECTOR_BYTES as u32,
            physical_sector_bytes: PAGE_BYTES,
            sectors,
            max_transfer_sectors: MAX_TRANSFER_SECTORS as u32,
            max_zero_sectors: MAX_TRANSFER_SECTORS,
            queue_depth: DEPTH,
            durable_writes: true,
            medium: Medium::SolidState,
            ..Geometry::NONE
        };
        let unit =
            Unit { state: UnitState::Ready, generation: 1, identity, geometry, ..Unit::UNKNOWN };
        let (ended, polled, stopped) = (Vec::new(), false, false);
        Self { content, space, unit, ended, polled, stopped, transfers: 0 }
    }

    /// Why a request cannot be carried out.
    #[inline]
    fn refusal(&self, request: &Request) -> Option<RefusedReason> {
        let Request { operation, lba, sectors, data } = request;
        let takes_data = match operation {
            _ if self.stopped => return Some(RefusedReason::NotReady(UnitState::Stopping)),
            _ if self.ended.len() >= usize::from(DEPTH) => return Some(RefusedReason::QueueFull),
            Operation::Read | Operation::Write(_) => true,
            Operation::WriteZeroes(_) => false,
            Operation::Flush => return None,
            _ => return Some(RefusedReason::Unsupported),
        };
        let all = self.unit.geometry.sectors;
        if *sectors > MAX_TRANSFER_SECTORS {
            Some(RefusedReason::TooLong)
        } else if *sectors == 0 || lba.checked_add(*sectors).is_none_or(|end| end > all) {
            Some(RefusedReason::OutOfRange { sectors: all })
        } else if takes_data && data.bytes() as u64 != sectors * SECTOR_BYTES as u64 {
            Some(RefusedReason::BadMemory)
        } else {
            None
        }
    }

    #[inline]
    fn carry_out(&mut self, request: &mut Request) -> Result<(), BlockError> {
        let Request { operation, lba, sectors, data } = request;
        let start = *lba as usize * SECTOR_BYTES;
        match operation {
            Operation::Read => data.copy_from(&self.content, start),
            Operation::Write(_) => data.copy_to(&mut self.content, start),
            Operation::WriteZeroes(_) => {
                self.content.fill(start..start + *sectors as usize * SECTOR_BYTES, 0);
            }
            // What was written is where it stays.
            Operation::Flush => {}
            _ => return Err(BlockError::Unsupported),
        }
        self.transfers += 1;
        Ok(())
    }
}

impl BlockDriver for Ram {
    fn unit_count(&self) -> u16 {
        1
    }

    fn unit(&self, unit: UnitId) -> Option<&Unit> {
        (unit == UnitId(0)).then_some(&self.unit)
    }

    fn changes(&self) -> u64 {
        u64::from(self.unit.generation)
    }

    fn constraints(&self) -> Constraints {
        Constraints::NONE
    }

    fn dma(&self) -> Arc<dyn DmaSpace> {
        self.space.clone()
    }

    fn takes_any_memory(&self) -> bool {
        true
    }

    fn submit(&mut self, unit: UnitId, tag: Tag, mut request: Request) -> Result<(), Refused> {
        if unit != UnitId(0) {
            return Err(request.refused(RefusedReason::NotReady(UnitState::Absent)));
        }
        if let Some(reason) = self.refusal(&request) {
            return Err(request.refused(reason));
        }
        let result = self.carry_out(&mut request);
        self.ended.push(Completion { unit, tag, result, data: request.data });
        Ok(())
    }

    fn kick(&mut self, _now: Instant) {}

    fn interrupt(&mut self, _vector: u16) {}

    fn poll(&mut self, _now: Instant, done: &mut dyn FnMut(Completion)) {
        self.polled = true;
        self.ended.drain(..).for_each(done);
    }

    fn next_deadline(&self) -> Option<Instant> {
        // Nothing else tells that it is there, and of what has ended.
        (!self.polled || !self.ended.is_empty()).then_some(Instant::ORIGIN)
    }

    fn stop(&mut self) {
        self.stopped = true;
    }

    fn is_stopped(&self) -> bool {
        self.stopped && self.ended.is_empty()
    }

    fn counters(&self, _unit: UnitId, counter: &mut dyn FnMut(&'static str, u64)) {
        counter("transfers", self.transfers);
    }

    fn drain_events(&mut self, _event: &mut dyn FnMut(UnitId, Instant, &dyn Display)) {}
}

impl Debug for Ram {
    fn fmt(&self, f: &mut Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Ram").field("content", &self.content).finish_non_exhaustive()
    }
}
