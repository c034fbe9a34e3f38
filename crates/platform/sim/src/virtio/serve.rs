//! Requests, from the available ring to their end (§5.2.6).

use super::ring::{Chain, Piece, Wish};
use super::{Event, Quirk, VirtioModel};
use crate::disk::{Defect, Depth};
use crate::fault::VirtioFault;
use core::time::Duration;
use outboard_hw::dma::Unmapped;
use outboard_virtio::spec::blk::{
    BlkFeatures, DISCARD, DISCARD_BYTES, DiscardSegment, FLUSH, GET_ID, HEADER_BYTES, Header,
    ID_BYTES, IN, OUT, SECURE_ERASE, STATUS_IO_ERROR, STATUS_OK, STATUS_UNSUPPORTED, WRITE_ZEROES,
};
use zerocopy::FromBytes;

/// A request that the device works on.
#[derive(Debug)]
pub(super) struct Job {
    /// Which of all it is.
    pub(super) number: u64,
    pub(super) queue: u16,
    pub(super) chain: Chain,
    pub(super) kind: u32,
    /// Logical sectors: the first, and how many.
    pub(super) lba: u64,
    pub(super) sectors: u64,
    /// What is going to go wrong with it.
    pub(super) fault: Option<VirtioFault>,
    /// It is done, with so many bytes written, and waits for its turn.
    pub(super) done: Option<u32>,
    /// The driver was told of it by an entry for a later one, and is told no more.
    pub(super) told: bool,
}

/// What is wrong with a request.
type Complaint = &'static str;

impl VirtioModel {
    /// Takes what is available in a queue, and decides whether to sleep.
    pub(super) fn look(&mut self, number: u16) {
        if !self.works() || self.stuck || !self.bus_master {
            return;
        }
        let mut found = false;
        loop {
            let Some(queue) = self.queues.get_mut(usize::from(number)) else { return };
            if queue.quirk == Some(Quirk::Dead) {
                return;
            }
            let Some(side) = &mut queue.side else { return };
            match side.take(&self.memory) {
                Ok(Some(chain)) => {
                    found = true;
                    self.accept(number, chain);
                }
                Ok(None) => {
                    // Having said that it sleeps it looks once more (§2.7.10).
                    let sleeps = !found || self.random.once_in(2);
                    self.tell_wish(number, sleeps);
                    let memory = &self.memory;
                    let queue = &mut self.queues[usize::from(number)];
                    let more = queue.side.as_mut().map(|side| side.take(memory));
                    match more {
                        Some(Ok(Some(chain))) => {
                            found = true;
                            self.accept(number, chain);
                            continue;
                        }
                        Some(Err(wrong)) => self.violation(format_args!("queue {number}: {wrong}")),
                        _ => {}
                    }
                    self.queues[usize::from(number)].awake = !sleeps;
                    if !sleeps {
                        let later = self.micros(1, 20);
                        let epoch = self.epoch;
                        self.after(later, Event::Look { queue: number, epoch });
                    }
                    return;
                }
                Err(wrong) => {
                    self.stuck = true;
                    return self.violation(format_args!("queue {number}: {wrong}"));
                }
            }
        }
    }

    /// Says whether it wants notifications.
    fn tell_wish(&mut self, number: u16, sleeps: bool) {
        let garbage = self.random.bits() as u16;
        let queue = &mut self.queues[usize::from(number)];
        let wish = match queue.quirk {
            Some(Quirk::Stuck) => return,
            Some(Quirk::Never) => Wish::Nothing,
            Some(Quirk::Always) => Wish::Next,
            Some(Quirk::Garbage) => Wish::Garbage(garbage),
            _ if sleeps => Wish::Next,
            _ => Wish::Nothing,
        };
        let told = queue.side.as_mut().map(|side| side.wish(&self.memory, wish));
        if let Some(Err(wrong)) = told {
            self.violation(format_args!("queue {number}: {wrong}"));
        }
    }

    /// Takes a request.
    fn accept(&mut self, queue: u16, chain: Chain) {
        self.taken += 1;
        let number = self.taken;
        let (kind, lba, sectors, fault, done, told) = (0, 0, 0, None, None, false);
        let mut job = Job { number, queue, chain, kind, lba, sectors, fault, done, told };
        match self.examine(&mut job) {
            Ok(None) => {}
            Ok(Some(complaint)) => {
                self.violation(format_args!("request of kind {}: {complaint}", job.kind));
            }
            Err(unmapped) => return self.violation(format_args!("queue {queue}: {unmapped}")),
        }
        self.note(format_args!(
            "queue {queue}: request {number}: kind {} of {}+{}",
            job.kind, job.lba, job.sectors
        ));
        job.fault = self.draw_for(&job);
        let epoch = self.epoch;
        let most = self.config.request_time.as_nanos() as u64;
        let usual = Duration::from_nanos(2_000 + self.random.below(most));
        let takes = match job.fault {
            Some(VirtioFault::NeverEnds | VirtioFault::SerialNeverEnds) => None,
            Some(VirtioFault::VerySlow) => Some(Duration::from_secs(self.random.between(1, 20))),
            Some(VirtioFault::Overtaken) => Some(usual + Duration::from_millis(20)),
            _ => Some(usual),
        };
        self.jobs.push(job);
        if let Some(takes) = takes {
            self.after(takes, Event::Finish { job: number, epoch });
        }
    }

    /// Reads what a request is, and says what is wrong with it.
    fn examine(&mut self, job: &mut Job) -> Result<Option<Complaint>, Unmapped> {
        let mut header = [0; HEADER_BYTES];
        let Some(first) = job.chain.readable.first().copied() else {
            return Ok(Some("it has nothing that the device reads"));
        };
        if first.bytes as usize != HEADER_BYTES {
            return Ok(Some("it does not begin with a header"));
        }
        self.memory.read(first.address, &mut header)?;
        let header = Header::read_from_bytes(&header).expect("as many bytes");
        job.kind = header.kind.get();
        let (start, factor) = (header.sector.get(), self.factor());
        let status = job.chain.writable.last().copied();
        if status.is_none_or(|piece| piece.bytes != 1) || header.reserved.get() != 0 {
            return Ok(Some("it has no place for the status, or uses what is reserved"));
        }
        let outward = &job.chain.readable[1..];
        let inward = &job.chain.writable[..job.chain.writable.len() - 1];
        let agreed = self.agreed().bits();
        let has = |feature: BlkFeatures| agreed & feature.bits() != 0;
        let (data, other) = if job.kind == IN { (inward, outward) } else { (outward, inward) };
        let bytes: u64 = data.iter().map(|piece| u64::from(piece.bytes)).sum();
        if job.kind == IN || job.kind == OUT {
            let logical = u64::from(self.config.sector_bytes);
            (job.lba, job.sectors) = (start / factor, bytes / logical);
            let long = |piece: &Piece| piece.bytes > self.config.segment_bytes;
            return Ok(if !other.is_empty() || bytes == 0 || !bytes.is_multiple_of(logical) {
                Some("its data is not whole sectors")
            } else if !start.is_multiple_of(factor) {
                Some("it begins within a logical sector")
            } else if has(BlkFeatures::SEG_MAX) && data.len() > self.config.segments as usize {
                Some("it has more segments than it may have")
            } else if has(BlkFeatures::SIZE_MAX) && data.iter().any(long) {
                Some("it has longer segments than it may have")
            } else {
                None
            });
        }
        Ok(match job.kind {
            FLUSH if !has(BlkFeatures::FLUSH) => Some("flushes were not agreed upon"),
            FLUSH if start != 0 || bytes != 0 || !other.is_empty() => Some("a flush with a place"),
            GET_ID if inward.len() != 1 || inward[0].bytes as usize != ID_BYTES => {
                Some("a serial number has 20 bytes")
            }
            DISCARD if !has(BlkFeatures::DISCARD) => Some("discards were not agreed upon"),
            WRITE_ZEROES if !has(BlkFeatures::WRITE_ZEROES) => Some("zeros were not agreed upon"),
            SECURE_ERASE if !has(BlkFeatures::SECURE_ERASE) => {
                Some("erasures were not agreed upon")
            }
            DISCARD | WRITE_ZEROES | SECURE_ERASE
                if outward.len() != 1 || outward[0].bytes as usize != DISCARD_BYTES =>
            {
                Some("a discard of anything but one segment")
            }
            DISCARD | WRITE_ZEROES | SECURE_ERASE => {
                let mut segment = [0; DISCARD_BYTES];
                self.memory.read(outward[0].address, &mut segment)?;
                let segment = DiscardSegment::read_from_bytes(&segment).expect("as many bytes");
                let (start, count) = (segment.sector.get(), segment.sectors.get());
                (job.lba, job.sectors) = (start / factor, u64::from(count) / factor);
                let odd = !start.is_multiple_of(factor) || !u64::from(count).is_multiple_of(factor);
                let known = if job.kind == WRITE_ZEROES { DiscardSegment::UNMAP } else { 0 };
                let flags = segment.flags.get() & !known;
                match count {
                    0 => Some("a discard of nothing"),
                    _ if count > self.config.discard_sectors => Some("a discard that is too long"),
                    _ if odd || flags != 0 => Some("a discard of parts of sectors"),
                    _ => None,
                }
            }
            FLUSH | GET_ID => None,
            _ => Some("nobody knows its kind"),
        })
    }

    /// Does what is asked; returns the status and how many bytes the device has written before it.
    pub(super) fn carry_out(&mut self, job: &Job) -> Result<(u8, u32), Unmapped> {
        let end = job.lba.saturating_add(job.sectors);
        // What it says of its size may be a lie.
        if end > self.config.sectors {
            return Ok((STATUS_IO_ERROR, 0));
        }
        let bytes = job.sectors as usize * self.config.sector_bytes as usize;
        let status = |done: bool| if done { STATUS_OK } else { STATUS_IO_ERROR };
        match job.kind {
            IN => {
                let mut data = vec![0; bytes];
                let done = self.store.read(job.lba, &mut data, &mut self.random).is_ok();
                self.scatter(&job.chain, &data)?;
                Ok((status(done), bytes as u32))
            }
            OUT => {
                let data = self.gather(&job.chain)?;
                let depth = if self.caches() { Depth::Cached } else { Depth::Durable };
                let read_only = self.agreed().bits() & BlkFeatures::READ_ONLY.bits() != 0;
                let done =
                    !read_only && self.store.write(job.lba, &data, depth, &mut self.random).is_ok();
                Ok((status(done), 0))
            }
            FLUSH => Ok((status(self.store.flush().is_ok()), 0)),
            DISCARD | SECURE_ERASE => {
                Ok((status(self.store.trim(job.lba, job.sectors).is_ok()), 0))
            }
            WRITE_ZEROES => {
                let depth = if self.caches() { Depth::Cached } else { Depth::Durable };
                let read_only = self.agreed().bits() & BlkFeatures::READ_ONLY.bits() != 0;
                let zeros = vec![0; bytes];
                let done = !read_only
                    && self.store.write(job.lba, &zeros, depth, &mut self.random).is_ok();
                Ok((status(done), 0))
            }
            GET_ID => {
                let mut serial = [0; ID_BYTES];
                let text = self.serial.as_bytes();
                let length = text.len().min(ID_BYTES);
                serial[..length].copy_from_slice(&text[..length]);
                self.scatter(&job.chain, &serial)?;
                Ok((STATUS_OK, ID_BYTES as u32))
            }
            _ => Ok((STATUS_UNSUPPORTED, 0)),
        }
    }

    /// All bytes that the device reads, behind the header.
    fn gather(&self, chain: &Chain) -> Result<Vec<u8>, Unmapped> {
        let mut data = Vec::new();
        for piece in chain.readable.iter().skip(1) {
            let start = data.len();
            data.resize(start + piece.bytes as usize, 0);
            self.memory.read(piece.address, &mut data[start..])?;
        }
        Ok(data)
    }

    /// Writes to what the device writes, before the status.
    pub(super) fn scatter(&self, chain: &Chain, data: &[u8]) -> Result<(), Unmapped> {
        let mut rest = data;
        for piece in &chain.writable[..chain.writable.len().saturating_sub(1)] {
            let (now, later) = rest.split_at(rest.len().min(piece.bytes as usize));
            self.memory.write(piece.address, now)?;
            rest = later;
        }
        Ok(())
    }

    /// Gives a sector of a request a defect.
    pub(super) fn damage(&mut self, job: &Job, defect: Defect) -> u64 {
        let lba = job.lba + self.random.below(job.sectors.max(1));
        self.store.defects.insert(lba, defect);
        lba
    }
}
