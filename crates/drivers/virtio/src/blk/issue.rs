//! Accepting requests, and passing them to the device.

use super::slots::{Block, Job, Plain, SHORT, SlotMemory, Slots, Stage, TABLE, begin};
use super::{Blk, Phase};
use crate::queue::{Full, Layout, Piece, Ring};
use crate::sabotage::Sabotage;
use crate::spec::blk::{
    BlkFeatures, DISCARD, DiscardSegment, FLUSH, GET_LIFETIME, Header, IN, OUT, SECTOR_BYTES,
    SECURE_ERASE, WRITE_ZEROES,
};
use crate::spec::features::Features;
use crate::transport::Transport;
use outboard_block::{
    Durability, Management, Operation, Refused, RefusedReason, Request, Room, Tag, UnitId,
    UnitState,
};
use outboard_hw::Instant;
use outboard_hw::dma::{Constraints, Segment};

use super::device::EXTRA_PIECES;
use super::recovery::CHECK_STEP;

impl<T: Transport> Blk<T> {
    pub(super) fn accept(
        &mut self,
        unit: UnitId,
        tag: Tag,
        request: Request,
    ) -> Result<(), Refused> {
        let plain = self.plain(unit, &request);
        // There is always room among those that wait; that it is asked for keeps the way to more of it
        // out of this function.
        if plain != Plain::No
            && self.waiting.len() < self.waiting.capacity()
            && let Some((slot, job)) = self.slots.reserve()
        {
            self.waiting.push(slot);
            self.accepted += 1;
            job.begin(tag, request, plain, 1, self.accepted);
            return Ok(());
        }
        self.accept_any(unit, tag, request)
    }

    /// Accepts any other request, or refuses it.
    #[inline(never)]
    fn accept_any(&mut self, unit: UnitId, tag: Tag, request: Request) -> Result<(), Refused> {
        let segments = match self.check(unit, &request) {
            Ok(segments) => segments,
            Err(reason) => return Err(request.refused(reason)),
        };
        let Some((slot, job)) = self.slots.reserve() else {
            return Err(request.refused(RefusedReason::QueueFull));
        };
        self.accepted += 1;
        request.data.sync_for_device();
        let operation = request.operation;
        job.begin(tag, request, Plain::No, segments, self.accepted);
        // A device that cannot flush has nothing that could be: a write is done when it is durable
        // (§5.2.6.2).
        let flushes = self.has(BlkFeatures::FLUSH) || !self.does(Sabotage::NoFlushes);
        let is_own = match operation {
            Operation::Manage(Management::ReadHealth) => false,
            Operation::Manage(_) => true,
            Operation::Flush => !flushes,
            _ => false,
        };
        if is_own {
            self.own.push_back(slot);
        } else {
            self.waiting.push(slot);
        }
        Ok(())
    }

    /// Whether it is a plain request with which nothing is wrong: one that [`check`](Self::check) has
    /// nothing to say against, at less cost.
    #[inline]
    fn plain(&self, unit: UnitId, request: &Request) -> Plain {
        let Request { operation, lba, sectors, data } = request;
        let geometry = &self.unit.geometry;
        let Some(segment) = data.single_segment() else { return Plain::No };
        // A device reaches all addresses, and the bytes of all its sectors fit into 64 bits (see
        // `device.rs`).
        let fits = self.unit.state == UnitState::Ready
            && unit.0 == 0
            && lba.checked_add(*sectors).is_some_and(|end| end <= geometry.sectors)
            && segment.bytes == sectors.wrapping_mul(geometry.sector_bytes.into())
            && segment.bytes <= self.plain_bytes
            && data.is_coherent();
        if !fits {
            Plain::No
        } else if matches!(operation, Operation::Read) {
            Plain::Read(segment)
        } else if matches!(operation, Operation::Write(Durability::Cached)) && !geometry.read_only {
            Plain::Write(segment)
        } else {
            Plain::No
        }
    }

    /// How many segments a request's memory has, or why the request cannot be.
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
        let mut placed = 0;
        for _ in 0..self.queues.len() {
            let number = self.next_queue;
            self.next_queue = if number + 1 < self.queues.len() { number + 1 } else { 0 };
            placed += self.place(number, placed, now);
            let queue = &mut self.queues[number];
            if queue.has_new() {
                self.counters.kicks += 1;
                if queue.publish() {
                    self.counters.notifications += 1;
                    self.transport.notify(number as u16, queue.next_entry());
                }
            }
            if placed == self.waiting.len() {
                break;
            }
        }
        self.waiting.drain(..placed);
        if self.check_at.is_none() {
            self.check_at = Some(now + CHECK_STEP);
        }
    }

    /// Puts those that wait, but the first `placed`, into a queue as far as there is room; how many.
    fn place(&mut self, number: usize, placed: usize, now: Instant) -> usize {
        let way = Way {
            queue: number as u16,
            is_indirect: self.features & Features::INDIRECT.bits() != 0,
            factor: u64::from(self.unit.geometry.sector_bytes / SECTOR_BYTES),
            limits: self.constraints,
        };
        let waiting = &self.waiting[placed..];
        match self.queues[number].layout() {
            Layout::Split(ring) => place(ring, waiting, &mut self.slots, &way, now),
            Layout::Packed(ring) => place(ring, waiting, &mut self.slots, &way, now),
        }
    }
}

/// How requests are put to the device.
#[derive(Debug, Clone, Copy)]
struct Way {
    /// The queue.
    queue: u16,
    /// By tables of descriptors.
    is_indirect: bool,
    /// The device's sectors in each of the unit's.
    factor: u64,
    /// What was asked of their memory.
    limits: Constraints,
}

/// Adds requests to a ring as far as there is room; how many.
fn place<R: Ring<u16>>(
    ring: &mut R,
    waiting: &[u16],
    slots: &mut Slots,
    way: &Way,
    now: Instant,
) -> usize {
    let Some((memory, jobs)) = slots.parts() else { return 0 };
    for (placed, slot) in waiting.iter().enumerate() {
        let number = usize::from(*slot);
        let (Some(job), Some(block)) = (jobs.get_mut(number), memory.block(number)) else {
            continue;
        };
        let sector = job.request.lba * way.factor;
        let added = match job.plain {
            Plain::Read(data) => add(ring, *slot, block, &header(IN, sector), to_write(data), way),
            Plain::Write(data) => add(ring, *slot, block, &header(OUT, sector), to_read(data), way),
            Plain::No if job.stage == Stage::Free => continue,
            Plain::No => add_any(ring, *slot, SlotMemory { blocks: memory, slot: *slot }, job, way),
        };
        if added.is_err() {
            return placed;
        }
        (job.since, job.queue) = (Some(now), way.queue);
    }
    waiting.len()
}

/// Adds a plain request. What is the same in all reads, or in all writes, is computed when the program
/// is compiled.
#[inline(always)]
fn add<R: Ring<u16>>(
    ring: &mut R,
    slot: u16,
    mut block: Block<'_>,
    header: &Header,
    data: Piece,
    way: &Way,
) -> Result<(), Full> {
    let (header, status) = begin(&mut block, header);
    let pieces = [to_read(header), data, to_write(status)];
    if !way.is_indirect {
        return ring.add_short(slot, pieces);
    }
    R::write_short_table::<TABLE, _, _>(&mut block, pieces);
    let bytes = status.bytes + if data.writable { data.segment.bytes } else { 0 };
    ring.add_table(slot, block.address_of::<TABLE>(), SHORT, bytes as u32)
}

/// Adds any other request.
#[inline(never)]
fn add_any<R: Ring<u16>>(
    ring: &mut R,
    slot: u16,
    mut memory: SlotMemory<'_>,
    job: &Job,
    way: &Way,
) -> Result<(), Full> {
    let Job { request, stage, segments, .. } = job;
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
    if ring.free() < if way.is_indirect { 1 } else { count } {
        return Err(Full(slot));
    }
    // What is cleared is named by a segment of its own, a flush names nothing.
    let sector = if matches!(kind, IN | OUT) { request.lba * way.factor } else { 0 };
    let Some((header, status)) = memory.begin(&header(kind, sector)) else { return Ok(()) };
    let unmap = request.operation == Operation::WriteZeroes(Room::GiveBack);
    let flags = if unmap { DiscardSegment::UNMAP } else { 0 };
    let discard = clears.then(|| {
        memory.discard(&DiscardSegment {
            sector: (request.lba * way.factor).into(),
            sectors: ((request.sectors * way.factor) as u32).into(),
            flags: flags.into(),
        })
    });
    let answer = asks.then(|| memory.lifetime());
    let data = request.data.segments(&way.limits).take(segments.into());
    let pieces = core::iter::once(to_read(header))
        .chain(discard.map(to_read))
        .chain(answer.map(to_write))
        .chain(data.map(|segment| Piece { segment, writable }))
        .chain(core::iter::once(to_write(status)));
    if !way.is_indirect {
        return ring.add(slot, count, pieces);
    }
    let (buffer, at, address) = memory.table();
    let (count, writable_bytes) = R::write_table(buffer, at, pieces);
    ring.add_table(slot, address, count, writable_bytes)
}

fn header(kind: u32, sector: u64) -> Header {
    Header { kind: kind.into(), reserved: 0.into(), sector: sector.into() }
}

/// A piece that the device reads.
const fn to_read(segment: Segment) -> Piece {
    Piece { segment, writable: false }
}

/// A piece that it writes.
const fn to_write(segment: Segment) -> Piece {
    Piece { segment, writable: true }
}
