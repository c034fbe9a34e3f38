//! Requests that the driver has accepted, and the memory that each takes beside its own.

use super::counters::Counters;
use crate::spec::blk::{
    DISCARD_BYTES, DiscardSegment, HEADER_BYTES, Header, LIFETIME_BYTES, Lifetime, STATUS_OK,
};
use crate::spec::split::Descriptor;
use alloc::vec::Vec;
use outboard_block::{Request, Tag};
use outboard_hw::Instant;
use outboard_hw::dma::{
    Constraints, DeviceAddress, DmaBlock, DmaBlocks, DmaBuffer, DmaError, DmaSpace, Segment, SgList,
};

/// Where a slot's header is.
const HEADER: usize = 0;
/// Where its status is, behind it.
const STATUS: usize = HEADER_BYTES;
/// Where what it discards is, or what the device knows of its life.
const DISCARD: usize = 32;
/// Where its table of descriptors is.
pub(super) const TABLE: usize = 64;
/// Descriptors of a request whose data is in one piece.
pub(super) const SHORT: u16 = 3;
/// Bytes of a slot, with room for those.
const SLOT_BYTES: usize = TABLE + SHORT as usize * Descriptor::BYTES;
/// What begins a slot.
pub(super) type Block<'a> = DmaBlock<'a, SLOT_BYTES>;
/// What the status is before the device has written one.
pub(super) const NO_STATUS: u8 = u8::MAX;

/// How far a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// There is none.
    Free,
    /// What was asked for.
    Main,
    /// The flush behind a write that is to be durable.
    Flush,
}

/// Whether a request is one that most are, with which nothing special is to be done, not even for the
/// processor's caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plain {
    /// It is another one.
    No,
    /// A read into memory in one piece.
    Read(Segment),
    /// A write from memory in one piece, which may end in the device's cache.
    Write(Segment),
}

/// A request that was accepted, or the place for one.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) tag: Tag,
    pub(super) request: Request,
    pub(super) plain: Plain,
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
    /// Where there is none: the next such slot.
    next_free: u16,
}

impl Job {
    /// A place for one.
    fn free(next_free: u16) -> Self {
        Self {
            next_free,
            tag: Tag(0),
            request: Request::flush(),
            plain: Plain::No,
            segments: 0,
            stage: Stage::Free,
            tries: 0,
            since: None,
            queue: 0,
            number: 0,
        }
    }

    /// Puts a request here that has so many segments.
    #[inline]
    pub(super) fn begin(
        &mut self,
        tag: Tag,
        request: Request,
        plain: Plain,
        segments: u16,
        number: u64,
    ) {
        debug_assert_eq!(self.stage, Stage::Free);
        // The memory of the one before was taken out when it ended: nothing of it is left to be freed.
        core::mem::forget(core::mem::replace(&mut self.request, request));
        (self.tag, self.plain, self.segments, self.number) = (tag, plain, segments, number);
        (self.stage, self.tries, self.since, self.queue) = (Stage::Main, 0, None, 0);
    }

    /// Makes this slot the first one that is free.
    #[inline]
    const fn end(&mut self, slot: u16, first_free: &mut u16, in_use: &mut usize) {
        (self.stage, self.plain, self.next_free) = (Stage::Free, Plain::No, *first_free);
        (*first_free, *in_use) = (slot, *in_use - 1);
    }
}

/// The slots. One more than there are requests is the driver's own.
#[derive(Debug)]
pub(super) struct Slots {
    memory: Option<DmaBlocks<SLOT_BYTES>>,
    jobs: Vec<Job>,
    /// The first one that is free; each leads to the next, and the last one to none.
    first_free: u16,
    in_use: usize,
}

impl Slots {
    /// None at all.
    pub(super) const fn none() -> Self {
        Self { memory: None, jobs: Vec::new(), first_free: 0, in_use: 0 }
    }

    /// So many slots for requests of up to so many segments.
    pub(super) fn new(dma: &dyn DmaSpace, count: u16, segments: u16) -> Result<Self, DmaError> {
        let stride = TABLE + Descriptor::BYTES * (usize::from(segments) + 2);
        let bytes = stride * (usize::from(count) + 1);
        let memory = dma.allocate(bytes, &Constraints::NONE.aligned(16))?;
        Ok(Self {
            memory: Some(DmaBlocks::new(memory, stride)),
            jobs: (1..=count).map(Job::free).collect(),
            first_free: 0,
            in_use: 0,
        })
    }

    /// The driver's own slot.
    pub(super) const fn own(&self) -> u16 {
        self.jobs.len() as u16
    }

    /// Requests there are.
    pub(super) const fn in_use(&self) -> usize {
        self.in_use
    }

    /// Takes a slot for a request, if there is one; [`Job::begin`] puts it there.
    #[inline]
    pub(super) fn reserve(&mut self) -> Option<(u16, &mut Job)> {
        let slot = self.first_free;
        let job = self.jobs.get_mut(usize::from(slot))?;
        (self.first_free, self.in_use) = (job.next_free, self.in_use + 1);
        Some((slot, job))
    }

    #[inline]
    pub(super) fn get(&mut self, slot: u16) -> Option<&mut Job> {
        self.jobs.get_mut(usize::from(slot)).filter(|job| job.stage != Stage::Free)
    }

    /// The request in a slot.
    pub(super) fn peek(&self, slot: u16) -> Option<&Job> {
        self.jobs.get(usize::from(slot)).filter(|job| job.stage != Stage::Free)
    }

    /// Frees the slot of a request that has ended, and gives its memory back.
    pub(super) fn release(&mut self, slot: u16) -> SgList {
        let Some(job) = self.jobs.get_mut(usize::from(slot)) else { return SgList::EMPTY };
        job.end(slot, &mut self.first_free, &mut self.in_use);
        core::mem::take(&mut job.request.data)
    }

    /// The slots' memory, and the requests.
    #[inline]
    pub(super) fn parts(&mut self) -> Option<(&mut DmaBlocks<SLOT_BYTES>, &mut [Job])> {
        Some((self.memory.as_mut()?, &mut self.jobs))
    }

    /// Frees the slot of a plain request that went well, and gives back its name and its memory, which
    /// is to be taken out; `None` if it is another one.
    #[inline]
    pub(super) fn end_plain(
        &mut self,
        slot: u16,
        status: u8,
        counters: &mut Counters,
    ) -> Option<(Tag, &mut SgList)> {
        let job = self.jobs.get_mut(usize::from(slot)).filter(|_| status == STATUS_OK)?;
        let sectors = job.request.sectors;
        match job.plain {
            Plain::No => return None,
            Plain::Read(_) => {
                counters.reads += 1;
                counters.sectors_read += sectors;
            }
            Plain::Write(_) => {
                counters.writes += 1;
                counters.sectors_written += sectors;
            }
        }
        job.end(slot, &mut self.first_free, &mut self.in_use);
        Some((job.tag, &mut job.request.data))
    }

    /// All requests, with their slots.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u16, &mut Job)> {
        (0..).zip(&mut self.jobs).filter(|(_, job)| job.stage != Stage::Free)
    }

    /// A slot's memory, and its request; the driver's own slot has none.
    pub(super) fn open(&mut self, slot: u16) -> Option<(SlotMemory<'_>, Option<&mut Job>)> {
        let memory = SlotMemory { blocks: self.memory.as_mut()?, slot };
        let job = self.jobs.get_mut(usize::from(slot)).filter(|job| job.stage != Stage::Free);
        Some((memory, job))
    }

    /// What the device has said of its life.
    pub(super) fn lifetime(&self, slot: u16) -> Lifetime {
        let said = self.memory.as_ref().and_then(|blocks| blocks.read::<DISCARD, _>(slot.into()));
        said.unwrap_or_default()
    }

    /// What the device says of a request.
    #[inline]
    pub(super) fn status(&self, slot: u16) -> u8 {
        let status = self.memory.as_ref().and_then(|blocks| blocks.read::<STATUS, _>(slot.into()));
        status.unwrap_or(NO_STATUS)
    }
}

/// Writes what begins a request into its slot, and that it has no status yet: the pieces of both.
#[inline]
pub(super) fn begin(block: &mut Block<'_>, header: &Header) -> (Segment, Segment) {
    block.write::<HEADER, _>(header);
    block.write::<STATUS, _>(&NO_STATUS);
    let header = Segment { address: block.address_of::<HEADER>(), bytes: HEADER_BYTES as u64 };
    let status = Segment { address: block.address_of::<STATUS>(), bytes: 1 };
    (header, status)
}

/// The memory of one slot.
#[derive(Debug)]
pub(super) struct SlotMemory<'a> {
    pub(super) blocks: &'a mut DmaBlocks<SLOT_BYTES>,
    pub(super) slot: u16,
}

impl SlotMemory<'_> {
    /// See [`begin`].
    pub(super) fn begin(&mut self, header: &Header) -> Option<(Segment, Segment)> {
        Some(begin(&mut self.blocks.block(self.slot.into())?, header))
    }

    /// Writes what is discarded.
    pub(super) fn discard(&mut self, discard: &DiscardSegment) -> Segment {
        let (at, buffer) = (self.at(DISCARD), self.blocks.buffer_mut());
        buffer.write(at, discard);
        Segment { address: buffer.address_of(at), bytes: DISCARD_BYTES as u64 }
    }

    /// Room for what the device knows of its life, which is nothing until it says so.
    pub(super) fn lifetime(&mut self) -> Segment {
        let (at, buffer) = (self.at(DISCARD), self.blocks.buffer_mut());
        buffer.write(at, &Lifetime::default());
        Segment { address: buffer.address_of(at), bytes: LIFETIME_BYTES as u64 }
    }

    /// The table of descriptors: the memory, where in it, and its address.
    pub(super) fn table(&mut self) -> (&mut DmaBuffer, usize, DeviceAddress) {
        let (at, buffer) = (self.at(TABLE), self.blocks.buffer_mut());
        let address = buffer.address_of(at);
        (buffer, at, address)
    }

    fn at(&self, offset: usize) -> usize {
        self.blocks.offset_of(self.slot.into()) + offset
    }
}
