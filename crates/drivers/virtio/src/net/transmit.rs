//! A queue of frames on their way out.

use super::header::describe;
use crate::queue::{Broken, Full, Layout as Rings, Piece, Queue, Ring, Token};
use crate::spec::net::Header;
use crate::spec::split::Descriptor;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use outboard_hw::Instant;
use outboard_hw::dma::{Constraints, DeviceAddress, DmaBlocks, DmaError, DmaSpace, Segment};
use outboard_net::{Completions, ETHERNET_HEADER_BYTES, Frame, NetError, Sent};
use zerocopy::IntoBytes;

/// Where a slot's table of descriptors is, behind what stands before the frame.
const TABLE: usize = 16;

/// The most segments of a frame.
pub(super) const MOST_SEGMENTS: u16 = 64;
/// The most pieces, with the header.
const MOST_PIECES: usize = MOST_SEGMENTS as usize + 1;

type Pieces = heapless::Vec<Piece, MOST_PIECES>;

impl Token for Box<Frame> {
    const IN_TURN: bool = true;
}

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

/// The queue, and what is in it.
#[derive(Debug)]
pub(super) struct Transmit {
    pub(super) queue: Queue<Box<Frame>>,
    /// The pair's number.
    number: u16,
    layout: Layout,
    /// Headers and tables, by the descriptor or the buffer ID that a frame begins with.
    memory: DmaBlocks<TABLE>,
    /// How many frames the device has.
    held: usize,
    /// Since when the device has not sent anything of what it has.
    pub(super) since: Option<Instant>,
    /// Whether an interrupt comes when the next frame was sent.
    listens: bool,
}

impl Transmit {
    pub(super) fn new(
        dma: &dyn DmaSpace,
        number: u16,
        queue: Queue<Box<Frame>>,
        layout: Layout,
    ) -> Result<Self, DmaError> {
        let count = queue.areas().entries;
        let stride = TABLE + Descriptor::BYTES * (usize::from(layout.segments) + 1);
        let memory = dma.allocate(stride * usize::from(count), &Constraints::NONE.aligned(16))?;
        let memory = DmaBlocks::new(memory, stride);
        Ok(Self { queue, number, layout, memory, held: 0, since: None, listens: false })
    }

    /// Frames that it has.
    #[inline]
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    /// Takes those frames from the front of a burst on that are in one piece and have nothing special to
    /// them, as most are, as far as there is room: those with which nothing is wrong. How many bytes
    /// they have.
    pub(super) fn put_plain(&mut self, burst: &mut VecDeque<Box<Frame>>, most_bytes: usize) -> u64 {
        let Self { queue, layout, memory, held, .. } = self;
        let before = burst.len();
        let bytes = match queue.layout() {
            Rings::Split(ring) => put_plain(ring, layout, memory, burst, most_bytes),
            Rings::Packed(ring) => put_plain(ring, layout, memory, burst, most_bytes),
        };
        *held += before - burst.len();
        bytes
    }

    /// Takes a frame that was checked; gives it back if there is no room.
    pub(super) fn put(
        &mut self,
        frame: Box<Frame>,
        limits: &Constraints,
    ) -> Result<(), Box<Frame>> {
        self.add_any(frame, limits).map_err(|Full(frame)| frame)?;
        self.held += 1;
        Ok(())
    }

    /// Adds a frame with something special to it.
    fn add_any(
        &mut self,
        mut frame: Box<Frame>,
        limits: &Constraints,
    ) -> Result<(), Full<Box<Frame>>> {
        let header = describe(&frame.work);
        let whole = match self.layout.header_bytes {
            _ if !self.layout.shares_descriptor => None,
            Header::BYTES => frame.data.prepend(&header),
            _ => frame.data.prepend(&short(&header)),
        };
        match whole {
            Some(segment) => self.queue.add_short(frame, [Piece { segment, writable: false }]),
            None => self.add_apart(&header, frame, limits),
        }
    }

    /// Adds a frame whose header is in memory beside the queue.
    fn add_apart(
        &mut self,
        header: &Header,
        frame: Box<Frame>,
        limits: &Constraints,
    ) -> Result<(), Full<Box<Frame>>> {
        frame.data.sync_for_device();
        let at = self.memory.offset_of(self.queue.next_name().into());
        let memory = self.memory.buffer_mut();
        let address = memory.address_of(at);
        let header_piece = Segment { address, bytes: self.layout.header_bytes as u64 };
        let pieces = core::iter::once(header_piece).chain(frame.data.segments(limits));
        // It was checked that there are no more.
        let pieces: Pieces =
            pieces.map(|segment| Piece { segment, writable: false }).take(MOST_PIECES).collect();
        let count = pieces.len() as u16;
        let indirect = self.layout.indirect && count > 2;
        if self.queue.free() < if indirect { 1 } else { count } {
            return Err(Full(frame));
        }
        memory.write(at, header);
        if !indirect {
            return self.queue.add(frame, count, pieces.into_iter());
        }
        let at = at + TABLE;
        let table: DeviceAddress = memory.address_of(at);
        let (count, _) = self.queue.write_table(memory, at, pieces.into_iter());
        self.queue.add_table(frame, table, count, 0)
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

    /// Gives back the frames that were sent; how many they are.
    pub(super) fn reap(&mut self, done: &mut Completions) -> Result<usize, Broken> {
        let (number, sent) = (self.number, &mut done.sent);
        let before = sent.len();
        let result = match self.queue.layout() {
            Rings::Split(ring) => reap(ring, number, sent),
            Rings::Packed(ring) => reap(ring, number, sent),
        };
        let count = sent.len() - before;
        self.held -= count;
        result.map(|()| count)
    }

    /// Gives all frames back that the device had, which reaches none of them any more; how many, and
    /// how many bytes they have.
    pub(super) fn lose(&mut self, done: &mut Completions) -> (u64, u64) {
        (self.since, self.listens, self.held) = (None, false, 0);
        let (mut frames, mut bytes) = (0, 0);
        for frame in self.queue.take_back() {
            (frames, bytes) = (frames + 1, bytes + frame.data.bytes() as u64);
            done.sent.push(Sent { frame, queue: self.number, result: Err(NetError::Lost) });
        }
        (frames, bytes)
    }
}

/// See [`Transmit::put_plain`].
fn put_plain<R: Ring<Box<Frame>>>(
    ring: &mut R,
    layout: &Layout,
    memory: &mut DmaBlocks<TABLE>,
    burst: &mut VecDeque<Box<Frame>>,
    most_bytes: usize,
) -> u64 {
    let mut sum = 0;
    while let Some(frame) = burst.pop_front() {
        match add_plain(ring, layout, memory, frame, most_bytes) {
            Ok(bytes) => sum += bytes,
            Err(Full(frame)) => {
                burst.push_front(frame);
                break;
            }
        }
    }
    sum
}

/// Adds a frame in one piece that has nothing special to it, if there is room; how many bytes it has.
#[inline(always)]
fn add_plain<R: Ring<Box<Frame>>>(
    ring: &mut R,
    layout: &Layout,
    memory: &mut DmaBlocks<TABLE>,
    mut frame: Box<Frame>,
    most_bytes: usize,
) -> Result<u64, Full<Box<Frame>>> {
    const HEADER: Header = Header::PLAIN;
    let lengths = ETHERNET_HEADER_BYTES as u64..=most_bytes as u64;
    if !frame.work.is_none() {
        return Err(Full(frame));
    }
    if layout.is_plain()
        && let Some(segment) = frame.data.prepend(&HEADER)
    {
        let bytes = segment.bytes - Header::BYTES as u64;
        if !lengths.contains(&bytes) {
            return Err(Full(frame));
        }
        ring.add_short(frame, [Piece { segment, writable: false }])?;
        return Ok(bytes);
    }
    let segment = frame.data.single_segment().filter(|segment| lengths.contains(&segment.bytes));
    let (Some(segment), Some(mut block)) = (segment, memory.block(ring.next_name().into())) else {
        return Err(Full(frame));
    };
    if ring.free() < 2 {
        return Err(Full(frame));
    }
    frame.data.sync_for_device();
    block.update::<0, _>(&HEADER);
    let bytes = layout.header_bytes as u64;
    let header = Segment { address: block.address_of::<0>(), bytes };
    let pieces = [header, segment].map(|segment| Piece { segment, writable: false });
    ring.add_short(frame, pieces)?;
    Ok(segment.bytes)
}

/// See [`Transmit::reap`]. There is an end to it, as nothing is added meanwhile.
fn reap<R: Ring<Box<Frame>>>(ring: &mut R, queue: u16, sent: &mut Vec<Sent>) -> Result<(), Broken> {
    while let Some(used) = ring.take() {
        sent.push(Sent { frame: used?.token, queue, result: Ok(()) });
    }
    Ok(())
}

/// As much of a header as legacy devices know.
fn short(header: &Header) -> [u8; Header::SHORT_BYTES] {
    core::array::from_fn(|place| header.as_bytes()[place])
}
