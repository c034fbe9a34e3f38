//! A queue of frames on their way out.

use super::header::describe;
use crate::queue::{Broken, Full, Layout as Rings, Piece, Queue, Ring};
use crate::spec::net::Header;
use crate::spec::split::Descriptor;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use outboard_hw::Instant;
use outboard_hw::dma::{Constraints, DeviceAddress, DmaBlocks, DmaError, DmaSpace, Segment};
use outboard_net::{Completions, ETHERNET_HEADER_BYTES, Frame, NetError, Sent};
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

/// The frames that the device has.
#[derive(Debug)]
struct Frames {
    /// By the name under which the queue has them, which is the queue's choice.
    all: Box<[Option<Box<Frame>>]>,
    held: usize,
    /// Of which queue they are.
    queue: u16,
}

impl Frames {
    /// Gives a frame back; how many bytes it has.
    #[inline]
    fn end(
        &mut self,
        slot: u16,
        result: Result<(), NetError>,
        done: &mut Completions,
    ) -> Option<usize> {
        let frame = self.all.get_mut(usize::from(slot))?.take()?;
        let bytes = frame.data.bytes();
        self.held -= 1;
        done.sent.push(Sent { frame, queue: self.queue, result });
        Some(bytes)
    }

    /// Takes the frame that is the first of a burst.
    #[inline]
    fn begin(&mut self, slot: u16, burst: &mut VecDeque<Box<Frame>>) {
        if let Some(place) = self.all.get_mut(usize::from(slot)) {
            // The frame of before was taken out when it ended: nothing of it is left to be freed.
            core::mem::forget(core::mem::replace(place, burst.pop_front()));
            self.held += 1;
        }
    }
}

/// The queue, and what is in it.
#[derive(Debug)]
pub(super) struct Transmit {
    pub(super) queue: Queue,
    layout: Layout,
    /// Headers and tables, by slot.
    memory: DmaBlocks<TABLE>,
    frames: Frames,
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
            frames: Frames { all: (0..count).map(|_| None).collect(), held: 0, queue: number },
            since: None,
            listens: false,
        })
    }

    /// Frames that it has.
    #[inline]
    pub(super) const fn held(&self) -> usize {
        self.frames.held
    }

    /// Takes those frames from the front of a burst on that are in one piece and have nothing special to
    /// them, as most are, as far as there is room: those with which nothing is wrong.
    pub(super) fn put_plain(&mut self, burst: &mut VecDeque<Box<Frame>>, most_bytes: usize) {
        let Self { queue, layout, memory, frames, .. } = self;
        match queue.layout() {
            Rings::Split(ring) => put_plain(ring, layout, memory, frames, burst, most_bytes),
            Rings::Packed(ring) => put_plain(ring, layout, memory, frames, burst, most_bytes),
        }
    }

    /// Takes the frame that is the first of a burst and was checked, if there is room.
    pub(super) fn put(
        &mut self,
        burst: &mut VecDeque<Box<Frame>>,
        limits: &Constraints,
    ) -> Result<(), Full> {
        let Some(frame) = burst.front_mut() else { return Ok(()) };
        let slot = self.queue.next_name();
        self.add_any(slot, frame, limits)?;
        self.frames.begin(slot, burst);
        Ok(())
    }

    /// Adds a frame with something special to it.
    fn add_any(&mut self, slot: u16, frame: &mut Frame, limits: &Constraints) -> Result<(), Full> {
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
        done: &mut Completions,
    ) -> Result<(usize, usize), Broken> {
        match self.queue.layout() {
            Rings::Split(ring) => reap(ring, &mut self.frames, most, done),
            Rings::Packed(ring) => reap(ring, &mut self.frames, most, done),
        }
    }

    /// Gives all frames back that the device had, which reaches none of them any more; how many.
    pub(super) fn lose(&mut self, done: &mut Completions) -> u64 {
        let slots = 0..self.frames.all.len() as u16;
        (self.since, self.listens) = (None, false);
        let lost = slots.filter_map(|slot| self.frames.end(slot, Err(NetError::Lost), done));
        lost.count() as u64
    }
}

/// See [`Transmit::put_plain`].
fn put_plain<R: Ring>(
    ring: &mut R,
    layout: &Layout,
    memory: &mut DmaBlocks<TABLE>,
    frames: &mut Frames,
    burst: &mut VecDeque<Box<Frame>>,
    most_bytes: usize,
) {
    let is_plain = layout.is_plain();
    let lengths = ETHERNET_HEADER_BYTES as u64..=most_bytes as u64;
    while let Some(frame) = burst.front_mut()
        && frame.work.is_none()
        && let Some(data) = frame.data.single_segment()
        && lengths.contains(&data.bytes)
    {
        let (slot, header) = (ring.next_name(), Header::default());
        let whole = if is_plain { frame.data.prepend(&header) } else { None };
        let added = match whole {
            Some(segment) => ring.add_short(slot, [Piece { segment, writable: false }]),
            None => {
                frame.data.sync_for_device();
                let Some(mut block) = memory.block(slot.into()) else { return };
                block.write::<0, _>(&header);
                let bytes = layout.header_bytes as u64;
                let header = Segment { address: block.address_of::<0>(), bytes };
                let pieces = [header, data].map(|segment| Piece { segment, writable: false });
                ring.add_short(slot, pieces)
            }
        };
        if added.is_err() {
            return;
        }
        frames.begin(slot, burst);
    }
}

/// See [`Transmit::reap`].
fn reap<R: Ring>(
    ring: &mut R,
    frames: &mut Frames,
    most: usize,
    done: &mut Completions,
) -> Result<(usize, usize), Broken> {
    let (mut count, mut bytes) = (0, 0);
    while count < most
        && let Some(used) = ring.take()
    {
        bytes += frames.end(used?.token, Ok(()), done).unwrap_or(0);
        count += 1;
    }
    Ok((count, bytes))
}

/// The pieces of a frame behind its header.
fn read(header: Segment, data: impl Iterator<Item = Segment>) -> impl Iterator<Item = Piece> {
    core::iter::once(header).chain(data).map(|segment| Piece { segment, writable: false })
}

/// As much of a header as legacy devices know.
fn short(header: &Header) -> [u8; Header::SHORT_BYTES] {
    core::array::from_fn(|place| header.as_bytes()[place])
}
