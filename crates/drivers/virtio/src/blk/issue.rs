//! Accepting requests, and passing them to the device.

use super::slots::{Job, SlotMemory, Stage};
use super::{Blk, Phase};
use crate::queue::{Full, Piece, Queue};
use crate::sabotage::Sabotage;
use crate::spec::blk::{
    BlkFeatures, DISCARD, DiscardSegment, FLUSH, GET_LIFETIME, Header, IN, OUT, SECTOR_BYTES,
    SECURE_ERASE, WRITE_ZEROES,
};
use crate::spec::features::Features;
use crate::transport::Transport;
use outboard_block::{
    Management, Operation, Refused, RefusedReason, Request, Room, Tag, UnitId, UnitState,
};
use outboard_hw::Instant;

use super::device::EXTRA_PIECES;
use super::recovery::CHECK_STEP;

impl<T: Transport> Blk<T> {
    pub(super) fn accept(
        &mut self,
        unit: UnitId,
        tag: Tag,
        request: Request,
    ) -> Result<(), Refused> {
        let segments = match self.check(unit, &request) {
            Ok(segments) => segments,
            Err(reason) => return Err(request.refused(reason)),
        };
        let Some(slot) = self.slots.reserve() else {
            return Err(request.refused(RefusedReason::QueueFull));
        };
        request.data.sync_for_device();
        // A device that cannot flush has nothing that could be: a write is done when it is durable
        // (§5.2.6.2).
        let flushes = self.has(BlkFeatures::FLUSH) || !self.does(Sabotage::NoFlushes);
        match request.operation {
            Operation::Manage(Management::ReadHealth) => self.waiting.push_back(slot),
            Operation::Manage(_) => self.own.push_back(slot),
            Operation::Flush if !flushes => self.own.push_back(slot),
            _ => self.waiting.push_back(slot),
        }
        self.accepted += 1;
        let number = self.accepted;
        let (stage, tries, since, queue) = (Stage::Main, 0, None, 0);
        let job = Job { tag, request, segments, stage, tries, since, queue, number };
        self.slots.fill(slot, job);
        Ok(())
    }

    /// How many segments a request's memory has, or why the request cannot be.
    #[inline]
    fn check(&self, unit: UnitId, request: &Request) -> Result<u16, RefusedReason> {
        let geometry = &self.unit.geometry;
        match self.unit.state {
            UnitState::Ready | UnitState::Recovering if unit.0 == 0 => {}
            state => return Err(RefusedReason::NotReady(state)),
        }
        let bytes = match request.operation {
            Operation::Read | Operation::Write(_) => {
                if matches!(request.operation, Operation::Write(_)) && geometry.read_only {
                    return Err(RefusedReason::WriteProtected);
                }
                if request.sectors == 0 || request.sectors > geometry.max_transfer_sectors.into() {
                    return Err(RefusedReason::TooLong);
                }
                request.sectors * u64::from(geometry.sector_bytes)
            }
            Operation::Discard | Operation::WriteZeroes(_) | Operation::SecureErase => {
                if geometry.read_only {
                    return Err(RefusedReason::WriteProtected);
                }
                let most = geometry.max_sectors(request.operation);
                if most == 0 {
                    return Err(RefusedReason::Unsupported);
                }
                if request.sectors == 0 || request.sectors > most {
                    return Err(RefusedReason::TooLong);
                }
                0
            }
            Operation::Flush => 0,
            Operation::Manage(Management::SetWriteCache(_))
                if self.has(BlkFeatures::CONFIG_WCE) =>
            {
                0
            }
            Operation::Manage(Management::ReadHealth) if self.has(BlkFeatures::LIFETIME) => 0,
            Operation::Manage(_) => return Err(RefusedReason::Unsupported),
        };
        let end = request.lba.checked_add(request.sectors);
        if end.is_none_or(|end| end > geometry.sectors) {
            return Err(RefusedReason::OutOfRange { sectors: geometry.sectors });
        }
        if request.data.bytes() as u64 != bytes {
            return Err(RefusedReason::BadMemory);
        }
        let segments = request.data.check(&self.constraints).map_err(|error| match error {
            outboard_hw::dma::DmaError::TooManySegments { .. } => RefusedReason::TooLong,
            _ => RefusedReason::BadMemory,
        })?;
        Ok(segments as u16)
    }

    /// Passes what waits to the next queue, as far as there is room, and tells the device.
    pub(super) fn issue(&mut self, now: Instant) {
        if self.phase != Phase::Running || self.waiting.is_empty() {
            return;
        }
        // The first queue with room takes the batch; the next batch goes to the one behind.
        for _ in 0..self.queues.len() {
            let number = self.next_queue;
            self.next_queue = (number + 1) % self.queues.len();
            while let Some(slot) = self.waiting.front().copied() {
                if self.place(number, slot, now).is_err() {
                    break;
                }
                self.waiting.pop_front();
            }
            let queue = &mut self.queues[number];
            if queue.has_new() {
                self.counters.kicks += 1;
                if queue.publish() {
                    self.counters.notifications += 1;
                    self.transport.notify(number as u16, queue.next_entry());
                }
            }
            if self.waiting.is_empty() {
                break;
            }
        }
        if self.check_at.is_none() {
            self.check_at = Some(now + CHECK_STEP);
        }
    }

    /// Puts a request into a queue.
    #[inline]
    fn place(&mut self, number: usize, slot: u16, now: Instant) -> Result<(), Full> {
        let indirect = self.features & Features::INDIRECT.bits() != 0;
        let factor = u64::from(self.unit.geometry.sector_bytes / SECTOR_BYTES);
        let queue = &mut self.queues[number];
        let Some((mut memory, Some(job))) = self.slots.open(slot) else { return Ok(()) };
        let Job { request, stage, segments, .. } = &*job;
        let main = *stage == Stage::Main;
        let (kind, writable) = match request.operation {
            _ if !main => (FLUSH, false),
            Operation::Read => (IN, true),
            Operation::Write(_) => (OUT, false),
            Operation::Discard => (DISCARD, false),
            Operation::WriteZeroes(_) => (WRITE_ZEROES, false),
            Operation::SecureErase => (SECURE_ERASE, false),
            Operation::Manage(Management::ReadHealth) => (GET_LIFETIME, false),
            Operation::Flush | Operation::Manage(_) => (FLUSH, false),
        };
        let segments = if main { *segments } else { 0 };
        let clears = matches!(kind, DISCARD | WRITE_ZEROES | SECURE_ERASE);
        let asks = kind == GET_LIFETIME;
        let count = segments + EXTRA_PIECES + u16::from(clears || asks);
        if queue.free() < if indirect { 1 } else { count } {
            return Err(Full);
        }
        // What is cleared is named by a segment of its own, a flush names nothing.
        let sector = if matches!(kind, IN | OUT) { request.lba * factor } else { 0 };
        let header = Header { kind: kind.into(), reserved: 0.into(), sector: sector.into() };
        let (header, status) = memory.begin(&header);
        let unmap = request.operation == Operation::WriteZeroes(Room::GiveBack);
        let flags = if unmap { DiscardSegment::UNMAP } else { 0 };
        let discard = clears.then(|| {
            memory.discard(&DiscardSegment {
                sector: (request.lba * factor).into(),
                sectors: ((request.sectors * factor) as u32).into(),
                flags: flags.into(),
            })
        });
        let answer = asks.then(|| memory.lifetime());
        let read = |segment| Piece { segment, writable: false };
        let status = Piece { segment: status, writable: true };
        // One piece of data is the common case, and an array costs less than a chain of iterators.
        let only = if segments == 1 { request.data.single_segment() } else { None };
        if let Some(segment) = only {
            let pieces = [read(header), Piece { segment, writable }, status];
            add(queue, slot, &mut memory, indirect, count, pieces.into_iter())?;
        } else {
            let data = request.data.segments(&self.constraints).take(segments.into());
            let pieces = core::iter::once(read(header))
                .chain(discard.map(read))
                .chain(answer.map(|segment| Piece { segment, writable: true }))
                .chain(data.map(|segment| Piece { segment, writable }))
                .chain(core::iter::once(status));
            add(queue, slot, &mut memory, indirect, count, pieces)?;
        }
        (job.since, job.queue) = (Some(now), number as u16);
        Ok(())
    }
}

/// Adds a request to a queue, by a table in its slot's memory or by descriptors of its own.
#[inline]
fn add(
    queue: &mut Queue,
    slot: u16,
    memory: &mut SlotMemory<'_>,
    indirect: bool,
    count: u16,
    pieces: impl Iterator<Item = Piece>,
) -> Result<(), Full> {
    if !indirect {
        return queue.add(slot, count, pieces);
    }
    let (buffer, at, address) = memory.table();
    let (count, writable_bytes) = queue.write_table(buffer, at, pieces);
    queue.add_table(slot, address, count, writable_bytes)
}
