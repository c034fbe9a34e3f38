//! A queue of frames on their way out.

use super::header::describe;
use crate::queue::{Broken, Full, Layout as Rings, Piece, Queue, Ring};
use crate::spec::net::Header;
use crate::spec::split::Descriptor;
use alloc::vec::Vec;
use outboard_hw::Instant;
use outboard_hw::dma::{
    Constraints, DeviceAddress, DmaBlocks, DmaError, DmaSpace, Segment, SgList,
};
use outboard_net::{Completion, Frame, NetError, Sent, Tag};
use zerocopy::IntoBytes;

/// Where a slot's table of descriptors is, behind what stands before the frame.
const TABLE: usize = 16;

/// How frames are laid out for the device.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// Bytes of what stands before a frame.
    pub(super) header_bytes: usize,
    /// Whether that may share a descriptor with the frame.
    pub(super) shares_descriptor: bool,
    /// Whether descriptors may be in a table.
    pub(super) indirect: bool,
    /// The most segments of a frame.
    pub(super) segments: u16,
}

impl Layout {
    /// Whether a whole header goes before a frame where there is room for it.
    const fn is_plain(&self) -> bool {
        self.shares_descriptor && self.header_bytes == Header::BYTES
    }
}

/// A frame on its way out, or the place for one.
#[derive(Debug)]
pub(super) struct Sending {
    tag: Tag,
    /// Nothing at all where there is none.
    data: SgList,
    /// Where there is none: the next such place.
    next_free: u16,
}

impl Sending {
    const fn free(next_free: u16) -> Self {
        Self { tag: Tag(0), data: SgList::EMPTY, next_free }
    }

    /// Puts a frame here.
    #[inline]
    pub(super) fn begin(&mut self, tag: Tag, data: SgList) {
        // The memory of the one before was taken out when it ended: nothing of it is left to be freed.
        core::mem::forget(core::mem::replace(&mut self.data, data));
        self.tag = tag;
    }
}

/// The frames that the device has, and places for more.
#[derive(Debug)]
struct Places {
    all: Vec<Sending>,
    /// The first one that is free; each leads to the next, and the last one to none.
    first_free: u16,
    held: usize,
    /// Of which queue they are.
    queue: u16,
}

impl Places {
    /// Gives a frame back; how many bytes it has.
    #[inline]
    fn end(
        &mut self,
        slot: u16,
        result: Result<(), NetError>,
        done: &mut dyn FnMut(Completion),
    ) -> usize {
        let Some(place) = self.all.get_mut(usize::from(slot)) else { return 0 };
        let Sending { tag, data, next_free } = place;
        let bytes = data.bytes();
        if bytes == 0 {
            return 0;
        }
        *next_free = self.first_free;
        (self.first_free, self.held) = (slot, self.held - 1);
        let sent = Sent { queue: self.queue, tag: *tag, result, data: SgList::EMPTY };
        let mut sent = Completion::Sent(sent);
        if let Completion::Sent(sent) = &mut sent {
            core::mem::swap(&mut sent.data, data);
        }
        done(sent);
        bytes
    }
}

/// The queue, and what is in it.
#[derive(Debug)]
pub(super) struct Transmit {
    pub(super) queue: Queue,
    layout: Layout,
    /// Headers and tables, by slot.
    memory: DmaBlocks<TABLE>,
    places: Places,
    /// Since when the device has not sent anything of what it has.
    pub(super) since: Option<Instant>,
    /// Whether an interrupt comes when the next frame was sent.
    listens: bool,
}

impl Transmit {
    pub(super) fn new(
        dma: &dyn DmaSpace,
        number: u16,
        queue: Queue,
        layout: Layout,
    ) -> Result<Self, DmaError> {
        let count = queue.areas().entries;
        let stride = TABLE + Descriptor::BYTES * (usize::from(layout.segments) + 1);
        let memory = dma.allocate(stride * usize::from(count), &Constraints::NONE.aligned(16))?;
        Ok(Self {
            queue,
            layout,
            memory: DmaBlocks::new(memory, stride),
            places: Places {
                all: (1..=count).map(Sending::free).collect(),
                first_free: 0,
                held: 0,
                queue: number,
            },
            since: None,
            listens: false,
        })
    }

    /// Frames that it has.
    #[inline]
    pub(super) const fn held(&self) -> usize {
        self.places.held
    }

    /// Adds a frame that was checked, is in one piece and has nothing special to it, which the device sees
    /// once that is published: the place for it. `None` if there is no room.
    #[inline]
    pub(super) fn add_plain(&mut self, data: &mut SgList) -> Option<&mut Sending> {
        let Places { all, first_free, held, .. } = &mut self.places;
        let (slot, header) = (*first_free, Header::default());
        let place = all.get_mut(usize::from(slot))?;
        let whole = if self.layout.is_plain() { data.prepend(&header) } else { None };
        let added = match whole {
            Some(segment) => self.queue.add_short(slot, [Piece { segment, writable: false }]),
            None => {
                data.sync_for_device();
                let mut block = self.memory.block(slot.into())?;
                block.write::<0, _>(&header);
                let bytes = self.layout.header_bytes as u64;
                let header = Segment { address: block.address_of::<0>(), bytes };
                let pieces = [header, data.single_segment()?];
                let pieces = pieces.map(|segment| Piece { segment, writable: false });
                self.queue.add_short(slot, pieces)
            }
        };
        added.ok()?;
        (*first_free, *held) = (place.next_free, *held + 1);
        Some(place)
    }

    /// Takes any frame that was checked; gives it back if there is no room.
    pub(super) fn put(
        &mut self,
        tag: Tag,
        mut frame: Frame,
        limits: &Constraints,
    ) -> Result<(), Frame> {
        let slot = usize::from(self.places.first_free);
        if slot >= self.places.all.len() || self.add_any(&mut frame, limits).is_err() {
            return Err(frame);
        }
        let Places { all, first_free, held, .. } = &mut self.places;
        let place = &mut all[slot];
        place.begin(tag, frame.data);
        (*first_free, *held) = (place.next_free, *held + 1);
        Ok(())
    }

    /// Adds a frame with something special to it.
    fn add_any(&mut self, frame: &mut Frame, limits: &Constraints) -> Result<(), Full> {
        let slot = self.places.first_free;
        let header = describe(&frame.work);
        let whole = match self.layout.header_bytes {
            _ if !self.layout.shares_descriptor => None,
            Header::BYTES => frame.data.prepend(&header),
            _ => frame.data.prepend(&short(&header)),
        };
        match whole {
            Some(segment) => self.queue.add_short(slot, [Piece { segment, writable: false }]),
            None => self.add_apart(slot, &header, frame, limits),
        }
    }

    /// Adds a frame whose header is in the slot's memory.
    fn add_apart(
        &mut self,
        slot: u16,
        header: &Header,
        frame: &Frame,
        limits: &Constraints,
    ) -> Result<(), Full> {
        frame.data.sync_for_device();
        let at = self.memory.offset_of(slot.into());
        let memory = self.memory.buffer_mut();
        memory.write(at, header);
        let bytes = self.layout.header_bytes as u64;
        let header = Segment { address: memory.address_of(at), bytes };
        let data = || frame.data.segments(limits);
        let count = 1 + data().count();
        if !self.layout.indirect || count <= 2 {
            return self.queue.add(slot, count as u16, read(header, data()));
        }
        if self.queue.free() == 0 {
            return Err(Full);
        }
        let at = at + TABLE;
        let table: DeviceAddress = memory.address_of(at);
        let (count, _) = self.queue.write_table(memory, at, read(header, data()));
        self.queue.add_table(slot, table, count, 0)
    }

    /// Asks for an interrupt if hardly any room is left; whether something was sent already.
    #[inline]
    pub(super) fn listen_if_full(&mut self) -> bool {
        if self.queue.free() > self.queue.areas().entries / 4 {
            return false;
        }
        self.listens = true;
        self.queue.listen()
    }

    /// Asks for no interrupts.
    pub(super) fn ignore(&mut self) {
        self.listens = false;
        self.queue.ignore();
    }

    /// Asks for none once there is room again.
    pub(super) fn ignore_if_roomy(&mut self) {
        if self.listens && self.queue.free() > self.queue.areas().entries / 2 {
            self.ignore();
        }
    }

    /// Gives back the frames that were sent, at most so many: how many they are, and how many bytes.
    pub(super) fn reap(
        &mut self,
        most: usize,
        done: &mut dyn FnMut(Completion),
    ) -> Result<(usize, usize), Broken> {
        match self.queue.layout() {
            Rings::Split(ring) => reap(ring, &mut self.places, most, done),
            Rings::Packed(ring) => reap(ring, &mut self.places, most, done),
        }
    }

    /// Gives all frames back that the device had, which reaches none of them any more; how many.
    pub(super) fn lose(&mut self, done: &mut dyn FnMut(Completion)) -> u64 {
        let slots = 0..self.places.all.len() as u16;
        (self.since, self.listens) = (None, false);
        let places = &mut self.places;
        slots.filter(|slot| places.end(*slot, Err(NetError::Lost), done) > 0).count() as u64
    }
}

/// See [`Transmit::reap`].
fn reap<R: Ring>(
    ring: &mut R,
    places: &mut Places,
    most: usize,
    done: &mut dyn FnMut(Completion),
) -> Result<(usize, usize), Broken> {
    let (mut frames, mut bytes) = (0, 0);
    while frames < most
        && let Some(used) = ring.take()
    {
        bytes += places.end(used?.token, Ok(()), done);
        frames += 1;
    }
    Ok((frames, bytes))
}

/// The pieces of a frame behind its header.
fn read(header: Segment, data: impl Iterator<Item = Segment>) -> impl Iterator<Item = Piece> {
    core::iter::once(header).chain(data).map(|segment| Piece { segment, writable: false })
}

/// As much of a header as legacy devices know.
fn short(header: &Header) -> [u8; Header::SHORT_BYTES] {
    core::array::from_fn(|place| header.as_bytes()[place])
}
