//! A request of the driver's, from the ring to the disk and back.

use crate::blk::{self, Command, Layout};
use crate::chain::Piece;
use crate::config::{MAX_DISCARD, MAX_ZEROES};
use crate::error::Violation;
use crate::memory::Memory;
use crate::ring::Head;
use outboard_block::disk::{
    Direction, DiskError, DiskId, Disks, JobId, MAX_TRANSFER_BYTES, Outcome, Refusal, Token,
};
use outboard_block::{BlockError, Durability, Geometry, Operation, Room};
use outboard_hw::dma::DmaBuffer;
use outboard_virtio::spec::blk::{
    DiscardSegment, ID_BYTES, SECTOR_BYTES, STATUS_IO_ERROR, STATUS_OK, STATUS_UNSUPPORTED,
};
use std::rc::Rc;

/// A place for a request, whose room for pieces is used again and again.
#[derive(Debug, Default)]
pub(crate) struct Place {
    pub(crate) pieces: Vec<Piece>,
    pub(crate) request: Option<Request>,
}

/// A request that was taken out of a ring. Its pieces are beside it.
#[derive(Debug)]
pub(crate) struct Request {
    /// Which ring.
    pub(crate) queue: usize,
    pub(crate) head: Head,
    /// As it was when the request was taken; it stays, whatever becomes of the client's.
    memory: Rc<Memory>,
    command: Command,
    layout: Layout,
    durability: Durability,
    /// Bytes that were transferred.
    done: u64,
    /// Bytes that the disk is transferring.
    part: usize,
    /// Whether it transfers them in the client's memory.
    is_lent: bool,
    /// Whether data is to be copied, whatever the disk could do.
    copies: bool,
}

/// How a request goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The disk has it.
    UnderWay,
    /// The disk does not take it now.
    Busy,
    /// It has ended, with this status.
    Ended(u8),
}

impl Place {
    /// Finds out what the request wants whose pieces are here.
    #[inline]
    pub(crate) fn begin(
        &mut self,
        queue: usize,
        head: Head,
        memory: &Rc<Memory>,
        durability: Durability,
    ) -> Result<(), Violation> {
        let Some((command, layout)) = blk::parse(memory, &self.pieces) else {
            return Err(Violation::Malformed);
        };
        let memory = memory.clone();
        let (done, part, is_lent, copies) = (0, 0, false, false);
        self.request = Some(Request {
            queue,
            head,
            memory,
            command,
            layout,
            durability,
            done,
            part,
            is_lent,
            copies,
        });
        Ok(())
    }

    /// There is none any more.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.request = None;
        self.pieces.clear();
    }
}

impl Request {
    /// Passes the request, or the next part of it, to the disk.
    #[inline]
    pub(crate) fn step(
        &mut self,
        pieces: &[Piece],
        disks: &mut Disks,
        disk: DiskId,
        token: Token,
    ) -> Step {
        match self.command {
            Command::Read { sector } => {
                let Some(offset) = self.transfer(disks, disk, sector, self.layout.to_driver) else {
                    return Step::Ended(STATUS_IO_ERROR);
                };
                let lent = self.lend(pieces, disks, (disk, offset), Direction::Read, token);
                lent.unwrap_or_else(|| refused(disks.read(disk, offset, self.part, token)))
            }
            Command::Write { sector } => {
                let Some(offset) = self.transfer(disks, disk, sector, self.layout.from_driver)
                else {
                    return Step::Ended(STATUS_IO_ERROR);
                };
                let Self { part, durability, done, .. } = *self;
                let way = Direction::Write(durability);
                if let Some(step) = self.lend(pieces, disks, (disk, offset), way, token) {
                    return step;
                }
                let fill = |into: &mut _, at| {
                    self.layout.copy_out(&self.memory, pieces, done, (into, at, part));
                };
                refused(disks.write_with(disk, offset, part, durability, token, fill))
            }
            Command::Flush => refused(disks.flush(disk, token)),
            Command::GetId => self.name(pieces, disks, disk),
            Command::Discard { segment } => {
                let Some(segment) = segment else { return Step::Ended(STATUS_IO_ERROR) };
                match discarded(disks, disk, &segment) {
                    Ok((_, 0)) => Step::Ended(STATUS_OK),
                    Ok((lba, sectors)) => refused(disks.discard(disk, lba, sectors, token)),
                    Err(status) => Step::Ended(status),
                }
            }
            Command::WriteZeroes { segment } => {
                let segment = segment.filter(|segment| segment.sectors.get() <= MAX_ZEROES);
                match segment {
                    Some(segment) => self.write_zeroes(disks, disk, token, &segment),
                    None => Step::Ended(STATUS_IO_ERROR),
                }
            }
            Command::Unknown => Step::Ended(STATUS_UNSUPPORTED),
        }
    }

    /// Has zeros written: by the disk, if it can do that by itself, or as data.
    fn write_zeroes(
        &mut self,
        disks: &mut Disks,
        disk: DiskId,
        token: Token,
        segment: &DiscardSegment,
    ) -> Step {
        let room = match segment.flags.get() {
            0 => Room::Keep,
            1 => Room::GiveBack,
            _ => return Step::Ended(STATUS_UNSUPPORTED),
        };
        let (start, count) = (segment.sector.get(), u64::from(segment.sectors.get()));
        let geometry = disks.geometry(disk).unwrap_or(Geometry::NONE);
        let factor = u64::from(geometry.sector_bytes / SECTOR_BYTES).max(1);
        let whole = start.is_multiple_of(factor) && count.is_multiple_of(factor) && count > 0;
        if whole && geometry.max_zero_sectors > 0 && self.durability == Durability::Cached {
            let zeros = Operation::WriteZeroes(room);
            return refused(disks.clear(disk, zeros, start / factor, count / factor, token));
        }
        let bytes = count * u64::from(SECTOR_BYTES);
        let Some(offset) = self.transfer(disks, disk, start, bytes) else {
            return Step::Ended(STATUS_IO_ERROR);
        };
        let (len, durability) = (self.part, self.durability);
        let fill = |into: &mut DmaBuffer, at| into.fill(at..at + len, 0);
        refused(disks.write_with(disk, offset, len, durability, token, fill))
    }

    /// Where the next part of `total` bytes from `sector` on begins, in bytes; how long it is
    /// becomes [`part`](Self::part). `None` if they are not whole sectors of the disk's.
    #[inline]
    fn transfer(&mut self, disks: &Disks, disk: DiskId, sector: u64, total: u64) -> Option<u64> {
        let start = sector.checked_mul(SECTOR_BYTES.into())?;
        // Of what goes in one part the disk looks by itself whether it fits.
        let fits = total <= MAX_TRANSFER_BYTES as u64
            || start.checked_add(total)? <= disks.geometry(disk)?.bytes();
        if !fits || total == 0 || !total.is_multiple_of(SECTOR_BYTES.into()) {
            return None;
        }
        self.part = (total - self.done).min(MAX_TRANSFER_BYTES as u64) as usize;
        Some(start + self.done)
    }

    /// Passes the next part to the disk with the client's memory for it; `None` if the disk cannot
    /// transfer there.
    #[inline]
    fn lend(
        &mut self,
        pieces: &[Piece],
        disks: &mut Disks,
        (disk, offset): (DiskId, u64),
        direction: Direction,
        token: Token,
    ) -> Option<Step> {
        self.is_lent = false;
        if self.copies || !self.memory.is_lendable() {
            return None;
        }
        let (to_driver, part) = (direction == Direction::Read, (self.done, self.part));
        let memory = || self.layout.lend(&self.memory, pieces, to_driver, part);
        match disks.lend(disk, direction, (offset, self.part), token, memory) {
            Ok(is_lent) => {
                self.is_lent = is_lent;
                is_lent.then_some(Step::UnderWay)
            }
            Err(refusal) => Some(refused(Err(refusal))),
        }
    }

    /// The disk's serial number.
    fn name(&self, pieces: &[Piece], disks: &Disks, disk: DiskId) -> Step {
        let mut name = [0; ID_BYTES];
        let serial = disks.info(disk).map(|info| info.identity.serial).unwrap_or_default();
        let bytes = serial.as_bytes();
        let len = bytes.len().min(ID_BYTES);
        name[..len].copy_from_slice(&bytes[..len]);
        self.layout.write(&self.memory, pieces, &name);
        Step::Ended(STATUS_OK)
    }

    /// Takes note of what the disk did: the status, or `None` if there is more to do.
    #[inline]
    pub(crate) fn ended(
        &mut self,
        pieces: &[Piece],
        result: &Result<Outcome, DiskError>,
    ) -> Option<u8> {
        let moved = match result {
            Ok(Outcome::Finished) => return Some(STATUS_OK),
            Ok(Outcome::Written(bytes) | Outcome::Lent(bytes)) => *bytes,
            Ok(Outcome::Read(data)) => {
                let (from, range) = data.memory();
                self.layout.copy_in(&self.memory, pieces, self.done, (from, range));
                range.len()
            }
            // The disk did not look for what was wrong: that takes memory of its own.
            Err(DiskError { error: BlockError::Media { .. } | BlockError::Aborted, .. })
                if self.is_lent =>
            {
                self.copies = true;
                return None;
            }
            Err(DiskError { error: BlockError::Unsupported, .. }) => {
                return Some(STATUS_UNSUPPORTED);
            }
            Err(_) => return Some(STATUS_IO_ERROR),
        };
        self.done += moved as u64;
        let total = match self.command {
            Command::Read { .. } => self.layout.to_driver,
            Command::Write { .. } => self.layout.from_driver,
            Command::WriteZeroes { segment: Some(segment) } => {
                u64::from(segment.sectors.get()) * u64::from(SECTOR_BYTES)
            }
            _ => 0,
        };
        if moved < self.part {
            // Behind it is a bad sector.
            return Some(STATUS_IO_ERROR);
        }
        (self.done >= total).then_some(STATUS_OK)
    }

    /// Writes the status; how many bytes were written in all.
    #[inline]
    pub(crate) fn finish(&self, pieces: &[Piece], status: u8) -> u32 {
        self.layout.finish(&self.memory, pieces, status)
    }
}

/// What it means that the disk took a request, or did not.
fn refused(result: Result<JobId, Refusal>) -> Step {
    match result {
        Ok(_) => Step::UnderWay,
        Err(Refusal::Busy) => Step::Busy,
        Err(Refusal::Unsupported) => Step::Ended(STATUS_UNSUPPORTED),
        Err(_) => Step::Ended(STATUS_IO_ERROR),
    }
}

/// The disk's sectors that lie wholly in a segment; a status if it cannot be discarded.
fn discarded(disks: &Disks, disk: DiskId, segment: &DiscardSegment) -> Result<(u64, u64), u8> {
    let geometry = disks.geometry(disk).ok_or(STATUS_IO_ERROR)?;
    if segment.flags.get() != 0 {
        return Err(STATUS_UNSUPPORTED);
    }
    let (start, count) = (segment.sector.get(), segment.sectors.get());
    let whole = crate::config::capacity(&geometry);
    let end = start.checked_add(count.into()).filter(|end| *end <= whole);
    let Some(end) = end.filter(|_| count <= MAX_DISCARD) else { return Err(STATUS_IO_ERROR) };
    let factor = u64::from((geometry.sector_bytes / SECTOR_BYTES).max(1));
    let first = start.div_ceil(factor);
    Ok((first, (end / factor).saturating_sub(first)))
}
