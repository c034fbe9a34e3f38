//! A request of the driver's, from the ring to the disk and back.

use crate::blk::{self, Command, Layout};
use crate::chain::Piece;
use crate::config::{MAX_DISCARD, MAX_ZEROES};
use crate::error::Violation;
use crate::memory::Memory;
use crate::ring::Head;
use outboard_block::disk::{
    DiskError, DiskId, Disks, JobId, MAX_TRANSFER_BYTES, Outcome, Refusal, Token,
};
use outboard_block::{BlockError, Durability, Geometry, Operation, Room};
use outboard_hw::dma::{DmaBuffer, SgList};
use outboard_virtio::spec::blk::{
    DiscardSegment, ID_BYTES, SECTOR_BYTES, STATUS_IO_ERROR, STATUS_OK, STATUS_UNSUPPORTED,
};
use std::rc::Rc;

/// A request that was taken out of a ring.
#[derive(Debug)]
pub(crate) struct Request {
    /// Which ring.
    pub(crate) queue: usize,
    pub(crate) head: Head,
    pub(crate) pieces: Vec<Piece>,
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

impl Request {
    /// Finds out what a request wants.
    pub(crate) fn new(
        queue: usize,
        head: Head,
        pieces: Vec<Piece>,
        memory: &Rc<Memory>,
        durability: Durability,
    ) -> Result<Self, Violation> {
        let memory = memory.clone();
        let (command, layout) = blk::parse(&memory, &pieces)?;
        let (done, part, is_lent, copies) = (0, 0, false, false);
        Ok(Self {
            queue,
            head,
            pieces,
            memory,
            command,
            layout,
            durability,
            done,
            part,
            is_lent,
            copies,
        })
    }

    /// Passes the request, or the next part of it, to the disk.
    pub(crate) fn step(
        &mut self,
        disks: &mut Disks,
        disk: DiskId,
        token: Token,
    ) -> Result<Step, Violation> {
        match self.command {
            Command::Read { sector } => {
                let Some(offset) = self.transfer(disks, disk, sector, self.layout.to_driver) else {
                    return Ok(Step::Ended(STATUS_IO_ERROR));
                };
                if let Some(lent) = self.lend(disks, disk, offset) {
                    return Ok(refused(disks.read_lent(disk, offset, lent, token)));
                }
                Ok(refused(disks.read(disk, offset, self.part, token)))
            }
            Command::Write { sector } => {
                let Some(offset) = self.transfer(disks, disk, sector, self.layout.from_driver)
                else {
                    return Ok(Step::Ended(STATUS_IO_ERROR));
                };
                let Self { part, durability, done, .. } = *self;
                if let Some(lent) = self.lend(disks, disk, offset) {
                    return Ok(refused(disks.write_lent(disk, offset, lent, durability, token)));
                }
                let fill = |into: &mut _, at| {
                    let (memory, pieces) = (&self.memory, &self.pieces);
                    self.layout.copy_out(memory, pieces, done, (into, at, part));
                };
                Ok(refused(disks.write_with(disk, offset, part, durability, token, fill)))
            }
            Command::Flush => Ok(refused(disks.flush(disk, token))),
            Command::GetId => self.name(disks, disk),
            Command::Discard { segment } => {
                let Some(segment) = segment else { return Ok(Step::Ended(STATUS_IO_ERROR)) };
                Ok(match discarded(disks, disk, &segment) {
                    Ok((_, 0)) => Step::Ended(STATUS_OK),
                    Ok((lba, sectors)) => refused(disks.discard(disk, lba, sectors, token)),
                    Err(status) => Step::Ended(status),
                })
            }
            Command::WriteZeroes { segment } => {
                let segment = segment.filter(|segment| segment.sectors.get() <= MAX_ZEROES);
                match segment {
                    Some(segment) => Ok(self.write_zeroes(disks, disk, token, &segment)),
                    None => Ok(Step::Ended(STATUS_IO_ERROR)),
                }
            }
            Command::Unknown => Ok(Step::Ended(STATUS_UNSUPPORTED)),
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
    fn transfer(&mut self, disks: &Disks, disk: DiskId, sector: u64, total: u64) -> Option<u64> {
        let size = disks.geometry(disk)?.bytes();
        let start = sector.checked_mul(SECTOR_BYTES.into())?;
        let fits = start.checked_add(total)? <= size;
        if !fits || total == 0 || !total.is_multiple_of(SECTOR_BYTES.into()) {
            return None;
        }
        self.part = (total - self.done).min(MAX_TRANSFER_BYTES as u64) as usize;
        Some(start + self.done)
    }

    /// The client's memory for the part that is next, if the disk can transfer there.
    fn lend(&mut self, disks: &Disks, disk: DiskId, offset: u64) -> Option<SgList> {
        self.is_lent = false;
        let may = !self.copies && self.memory.is_lendable();
        if !may || !disks.takes_lent(disk, offset, self.part) {
            return None;
        }
        let to_driver = matches!(self.command, Command::Read { .. });
        let part = (self.done, self.part);
        let lent = self.layout.lend(&self.memory, &self.pieces, to_driver, part);
        self.is_lent = disks.takes_memory(disk, &lent);
        self.is_lent.then_some(lent)
    }

    /// The disk's serial number.
    fn name(&self, disks: &Disks, disk: DiskId) -> Result<Step, Violation> {
        let mut name = [0; ID_BYTES];
        let serial = disks.info(disk).map(|info| info.identity.serial).unwrap_or_default();
        let bytes = serial.as_bytes();
        let len = bytes.len().min(ID_BYTES);
        name[..len].copy_from_slice(&bytes[..len]);
        self.layout.write(&self.memory, &self.pieces, &name);
        Ok(Step::Ended(STATUS_OK))
    }

    /// Takes note of what the disk did: the status, or `None` if there is more to do.
    pub(crate) fn ended(
        &mut self,
        result: &Result<Outcome, DiskError>,
    ) -> Result<Option<u8>, Violation> {
        let moved = match result {
            Ok(Outcome::Finished) => return Ok(Some(STATUS_OK)),
            Ok(Outcome::Written(bytes) | Outcome::Lent(bytes)) => *bytes,
            Ok(Outcome::Read(data)) => {
                let (from, range) = data.memory();
                let (memory, pieces) = (&self.memory, &self.pieces);
                self.layout.copy_in(memory, pieces, self.done, (from, range));
                range.len()
            }
            // The disk did not look for what was wrong: that takes memory of its own.
            Err(DiskError { error: BlockError::Media { .. } | BlockError::Aborted, .. })
                if self.is_lent =>
            {
                self.copies = true;
                return Ok(None);
            }
            Err(DiskError { error: BlockError::Unsupported, .. }) => {
                return Ok(Some(STATUS_UNSUPPORTED));
            }
            Err(_) => return Ok(Some(STATUS_IO_ERROR)),
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
            return Ok(Some(STATUS_IO_ERROR));
        }
        Ok((self.done >= total).then_some(STATUS_OK))
    }

    /// Writes the status; how many bytes were written in all.
    pub(crate) fn finish(&self, status: u8) -> Result<u32, Violation> {
        Ok(self.layout.finish(&self.memory, &self.pieces, status))
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
