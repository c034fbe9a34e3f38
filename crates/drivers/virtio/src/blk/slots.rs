//! Requests that the driver has accepted, and the memory that each takes beside its own.

use crate::spec::blk::{
    DISCARD_BYTES, DiscardSegment, HEADER_BYTES, Header, LIFETIME_BYTES, Lifetime,
};
use crate::spec::split::Descriptor;
use alloc::vec::Vec;
use outboard_block::{Operation, Request, Tag};
use outboard_hw::Instant;
use outboard_hw::dma::{
    Constraints, DeviceAddress, DmaBuffer, DmaError, DmaSpace, Segment, SgList,
};

/// Where a slot's status is, behind its header.
const STATUS: usize = HEADER_BYTES;
/// Where what it discards is, or what the device knows of its life.
const DISCARD: usize = 32;
/// Where its table of descriptors is.
const TABLE: usize = 64;
/// What the status is before the device has written one.
pub(super) const NO_STATUS: u8 = u8::MAX;

/// How far a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// What was asked for.
    Main,
    /// The flush behind a write that is to be durable.
    Flush,
}

/// A request that was accepted.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) tag: Tag,
    pub(super) request: Request,
    /// How many pieces its memory is for the device.
    pub(super) segments: u16,
    pub(super) stage: Stage,
    /// How often it was issued before.
    pub(super) tries: u8,
    /// When it was issued; `None` if the device does not have it.
    pub(super) since: Option<Instant>,
    /// The queue that it was issued to.
    pub(super) queue: u16,
    /// Grows from request to request: the order to issue them in again.
    pub(super) number: u64,
}

/// What is left of a request that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) tag: Tag,
    pub(super) operation: Operation,
    pub(super) lba: u64,
    pub(super) sectors: u64,
    pub(super) data: SgList,
}

/// The slots. One more than there are requests is the driver's own.
#[derive(Debug)]
pub(super) struct Slots {
    memory: Option<DmaBuffer>,
    stride: usize,
    jobs: Vec<Option<Job>>,
    free: Vec<u16>,
}

impl Slots {
    /// None at all.
    pub(super) const fn none() -> Self {
        Self { memory: None, stride: 0, jobs: Vec::new(), free: Vec::new() }
    }

    /// So many slots for requests of up to so many segments.
    pub(super) fn new(dma: &dyn DmaSpace, count: u16, segments: u16) -> Result<Self, DmaError> {
        let stride = TABLE + Descriptor::BYTES * (usize::from(segments) + 2);
        let bytes = stride * (usize::from(count) + 1);
        let memory = dma.allocate(bytes, &Constraints::NONE.aligned(16))?;
        Ok(Self {
            memory: Some(memory),
            stride,
            jobs: (0..count).map(|_| None).collect(),
            free: (0..count).rev().collect(),
        })
    }

    /// The driver's own slot.
    pub(super) const fn own(&self) -> u16 {
        self.jobs.len() as u16
    }

    /// Requests there are.
    pub(super) const fn in_use(&self) -> usize {
        self.jobs.len() - self.free.len()
    }

    #[inline]
    /// Takes a slot for a request, if there is one; [`fill`](Self::fill) puts it there.
    pub(super) fn reserve(&mut self) -> Option<u16> {
        self.free.pop()
    }

    #[inline]
    pub(super) fn fill(&mut self, slot: u16, job: Job) {
        let place = &mut self.jobs[usize::from(slot)];
        debug_assert!(place.is_none(), "the slot is free");
        if place.is_none() {
            *place = Some(job);
        }
    }

    #[inline]
    pub(super) fn get(&mut self, slot: u16) -> Option<&mut Job> {
        self.jobs.get_mut(usize::from(slot))?.as_mut()
    }

    /// The request in a slot.
    pub(super) fn peek(&self, slot: u16) -> Option<&Job> {
        self.jobs.get(usize::from(slot))?.as_ref()
    }

    /// Takes a request out of its slot, as far as it is needed once it has ended.
    #[inline]
    pub(super) fn take(&mut self, slot: u16) -> Option<Ended> {
        let place = self.jobs.get_mut(usize::from(slot))?;
        let Job { tag, request, .. } = place.as_mut()?;
        let Request { operation, lba, sectors, .. } = *request;
        // Moved once, where the whole would be moved from step to step.
        let data = core::mem::take(&mut request.data);
        let ended = Ended { tag: *tag, operation, lba, sectors, data };
        *place = None;
        self.free.push(slot);
        Some(ended)
    }

    /// All requests, with their slots.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u16, &mut Job)> {
        (0..).zip(&mut self.jobs).filter_map(|(slot, job)| Some((slot, job.as_mut()?)))
    }

    /// A slot's memory, and its request; the driver's own slot has none.
    #[inline]
    pub(super) fn open(&mut self, slot: u16) -> Option<(SlotMemory<'_>, Option<&mut Job>)> {
        let memory = self.memory.as_mut()?;
        let at = self.stride * usize::from(slot);
        let job = self.jobs.get_mut(usize::from(slot)).and_then(Option::as_mut);
        Some((SlotMemory { memory, at }, job))
    }

    /// What the device has said of its life.
    pub(super) fn lifetime(&self, slot: u16) -> Lifetime {
        let at = self.stride * usize::from(slot) + DISCARD;
        self.memory.as_ref().map_or_else(Lifetime::default, |memory| memory.read(at))
    }

    /// What the device says of a request.
    #[inline]
    pub(super) fn status(&self, slot: u16) -> u8 {
        let at = self.stride * usize::from(slot) + STATUS;
        self.memory.as_ref().map_or(NO_STATUS, |memory| memory.read(at))
    }
}

/// The memory of one slot.
#[derive(Debug)]
pub(super) struct SlotMemory<'a> {
    memory: &'a mut DmaBuffer,
    at: usize,
}

impl SlotMemory<'_> {
    /// Writes what begins the request, and that it has no status yet: the pieces of both.
    #[inline]
    pub(super) fn begin(&mut self, header: &Header) -> (Segment, Segment) {
        self.memory.write(self.at, header);
        self.memory.write(self.at + STATUS, &NO_STATUS);
        (self.segment(0, HEADER_BYTES), self.segment(STATUS, 1))
    }

    /// Writes what is discarded.
    pub(super) fn discard(&mut self, discard: &DiscardSegment) -> Segment {
        self.memory.write(self.at + DISCARD, discard);
        self.segment(DISCARD, DISCARD_BYTES)
    }

    /// Room for what the device knows of its life, which is nothing until it says so.
    pub(super) fn lifetime(&mut self) -> Segment {
        self.memory.write(self.at + DISCARD, &Lifetime::default());
        self.segment(DISCARD, LIFETIME_BYTES)
    }

    /// The table of descriptors: the memory, where in it, and its address.
    #[inline]
    pub(super) fn table(&mut self) -> (&mut DmaBuffer, usize, DeviceAddress) {
        let at = self.at + TABLE;
        let address = self.memory.address_of(at);
        (self.memory, at, address)
    }

    #[inline]
    fn segment(&self, offset: usize, bytes: usize) -> Segment {
        Segment { address: self.memory.address_of(self.at + offset), bytes: bytes as u64 }
    }
}
