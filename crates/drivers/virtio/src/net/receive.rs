//! A queue of buffers for frames to come.

use super::header::{is_plain, plain};
use crate::queue::{Full, Layout as Rings, Piece, Queue, Ring, Used};
use crate::recovery::ResetCause;
use crate::spec::net::Header;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use outboard_hw::dma::{DmaBuffer, Segment};
use outboard_net::{
    Completions, ETHERNET_HEADER_BYTES, Offloads, Posted, Received, RefusedReason, Returned,
};

/// The most buffers that a frame may take.
pub(super) const MOST_PIECES: usize = 48;
/// The least bytes of a buffer, where a frame may take several: as many of these hold the longest.
pub(super) const LEAST_BYTES: usize = 1536;
/// What is wrong with a device that names a buffer which it was not given.
const UNKNOWN: &str = "gives back a buffer that it does not have";
/// The most bytes of a buffer that the device is told of.
const MOST_BYTES: usize = 1 << 20;

const _: () = assert!(MOST_PIECES * LEAST_BYTES > crate::spec::net::WHOLE_FRAME_BYTES);

/// How frames lie in buffers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// Bytes of what stands before a frame.
    pub(super) header_bytes: usize,
    /// Whether that may share a descriptor with the frame.
    pub(super) shares_descriptor: bool,
    /// Whether a frame may take several buffers.
    pub(super) merges: bool,
    /// What the device may have done to frames.
    pub(super) agreed: Offloads,
}

/// What has become of a buffer that the device gave back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// More of the same frame has to come.
    Incomplete,
    /// A frame of so many bytes was passed on.
    Frame(u32),
    /// What was said of the frame cannot be; its buffers were given back.
    Malformed,
}

/// What came of a look at what is used.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reaped {
    /// Buffers that came back.
    pub(super) buffers: usize,
    /// Frames that were passed on, and how many bytes they have.
    pub(super) frames: u64,
    pub(super) bytes: u64,
    /// Frames of which was said what cannot be.
    pub(super) malformed: u64,
}

impl Reaped {
    #[inline]
    const fn frame(&mut self, bytes: u32) {
        self.frames += 1;
        self.bytes += bytes as u64;
    }
}

/// The queue, and what is in it.
#[derive(Debug)]
pub(super) struct Receive {
    pub(super) queue: Queue,
    buffers: Buffers,
}

/// The buffers that the device has.
#[derive(Debug)]
struct Buffers {
    /// By the name under which the queue has them, which is the queue's choice.
    all: Box<[Option<Box<Posted>>]>,
    held: usize,
    /// Of which queue they are.
    queue: u16,
    layout: Layout,
    /// What begins the frame of which more has to come.
    header: Header,
    /// Its slots so far, and how many bytes are in each.
    pieces: heapless::Vec<(u16, u32), MOST_PIECES>,
}

impl Receive {
    pub(super) fn new(number: u16, queue: Queue, layout: Layout) -> Self {
        let entries = queue.areas().entries;
        let buffers = Buffers {
            all: (0..entries).map(|_| None).collect(),
            held: 0,
            queue: number,
            layout,
            header: Header::default(),
            pieces: heapless::Vec::new(),
        };
        Self { queue, buffers }
    }

    /// How many buffers it takes.
    pub(super) const fn depth(&self) -> u16 {
        let entries = self.buffers.all.len() as u16;
        if self.buffers.layout.shares_descriptor { entries } else { entries / 2 }
    }

    /// How many it has.
    pub(super) const fn held(&self) -> usize {
        self.buffers.held
    }

    /// Takes buffers from the front of a burst on, which the device sees once that is published.
    pub(super) fn post(
        &mut self,
        burst: &mut VecDeque<Box<Posted>>,
        least_bytes: usize,
    ) -> Result<(), RefusedReason> {
        match self.queue.layout() {
            Rings::Split(ring) => self.buffers.post(ring, burst, least_bytes),
            Rings::Packed(ring) => self.buffers.post(ring, burst, least_bytes),
        }
    }

    /// Takes at most so many buffers back, and passes on the frames that are in them.
    pub(super) fn reap(
        &mut self,
        most: usize,
        done: &mut Completions,
        reaped: &mut Reaped,
    ) -> Result<(), ResetCause> {
        match self.queue.layout() {
            Rings::Split(ring) => self.buffers.reap(ring, most, done, reaped),
            Rings::Packed(ring) => self.buffers.reap(ring, most, done, reaped),
        }
    }

    /// Forgets what the device had of it, and shows it all buffers again, once that is published.
    pub(super) fn restart(&mut self) {
        self.queue.reset();
        self.buffers.pieces.clear();
        let mut all = self.buffers.all.iter_mut().filter_map(Option::take).collect();
        self.buffers.held = 0;
        // There was room for as many before, and they were long enough.
        let _ = self.post(&mut all, 0);
        debug_assert!(all.is_empty(), "{all:?}");
    }

    /// Gives all buffers back; the device reaches none of them any more.
    pub(super) fn give_back(&mut self, done: &mut Completions) {
        let buffers = &mut self.buffers;
        buffers.pieces.clear();
        for slot in 0..buffers.all.len() as u16 {
            if let Some(posted) = buffers.take_out(slot) {
                done.returned.push(Returned { queue: buffers.queue, posted });
            }
        }
    }
}

impl Buffers {
    /// See [`Receive::post`].
    fn post<R: Ring>(
        &mut self,
        ring: &mut R,
        burst: &mut VecDeque<Box<Posted>>,
        least_bytes: usize,
    ) -> Result<(), RefusedReason> {
        while let Some(Posted { buffer, .. }) = burst.front().map(|posted| &**posted) {
            if buffer.len() < least_bytes {
                return Err(RefusedReason::BadMemory);
            }
            let slot = ring.next_name();
            buffer.sync_for_device(0..buffer.len());
            add(ring, self.layout, slot, buffer).map_err(|Full| RefusedReason::QueueFull)?;
            if let Some(place) = self.all.get_mut(usize::from(slot)) {
                // The buffer of before was taken out when it came back: nothing of it is left to be
                // freed.
                core::mem::forget(core::mem::replace(place, burst.pop_front()));
                self.held += 1;
            }
        }
        Ok(())
    }

    #[inline]
    fn take_out(&mut self, slot: u16) -> Option<Box<Posted>> {
        let posted = self.all.get_mut(usize::from(slot))?.take()?;
        self.held -= 1;
        Some(posted)
    }

    /// See [`Receive::reap`].
    fn reap<R: Ring>(
        &mut self,
        ring: &mut R,
        most: usize,
        done: &mut Completions,
        reaped: &mut Reaped,
    ) -> Result<(), ResetCause> {
        while reaped.buffers < most
            && let Some(used) = ring.take()
        {
            let Used { token, bytes } = used.map_err(ResetCause::Broken)?;
            reaped.buffers += 1;
            if let Some(bytes) = self.arrived_plainly(token, bytes, done) {
                reaped.frame(bytes);
                continue;
            }
            match self.arrived(token, bytes, done).map_err(ResetCause::Nonsense)? {
                Outcome::Frame(bytes) => reaped.frame(bytes),
                Outcome::Incomplete => {}
                Outcome::Malformed => reaped.malformed += 1,
            }
        }
        Ok(())
    }

    /// Passes on a frame in a buffer in which there are so many bytes, if it is all that is in it, and
    /// nothing special is said of it, as of most; else it is for [`arrived`](Self::arrived). How many
    /// bytes it has.
    #[inline]
    fn arrived_plainly(&mut self, slot: u16, bytes: u32, done: &mut Completions) -> Option<u32> {
        let Layout { header_bytes, merges, .. } = self.layout;
        let place = self.all.get_mut(usize::from(slot))?;
        let buffer = &place.as_ref()?.buffer;
        let frame_bytes = bytes.checked_sub(Header::BYTES as u32)?;
        if header_bytes != Header::BYTES
            || frame_bytes < ETHERNET_HEADER_BYTES as u32
            || !self.pieces.is_empty()
        {
            return None;
        }
        buffer.sync_for_cpu(0..bytes as usize);
        let header: Header = buffer.read(0);
        if !is_plain(&header) || merges && header.buffers.get() != 1 {
            return None;
        }
        let posted = place.take()?;
        self.held -= 1;
        done.received.push(Received {
            posted,
            bytes: Header::BYTES..bytes as usize,
            arrival: plain(frame_bytes),
            queue: self.queue,
            more: 0,
        });
        Some(frame_bytes)
    }

    /// Takes note of a buffer in which there are so many bytes, and passes the frame on once all of
    /// it is there; or says what is wrong with the device.
    #[inline(never)]
    fn arrived(
        &mut self,
        slot: u16,
        bytes: u32,
        done: &mut Completions,
    ) -> Result<Outcome, &'static str> {
        let Layout { header_bytes, merges, .. } = self.layout;
        if !self.pieces.is_empty() {
            return self.continued(slot, bytes, done);
        }
        let place = self.all.get(usize::from(slot));
        let Some(posted) = place.and_then(Option::as_ref) else { return Err(UNKNOWN) };
        if bytes < header_bytes as u32 {
            return Err("gives back a buffer without what stands before a frame");
        }
        posted.buffer.sync_for_cpu(0..bytes as usize);
        let header: Header = if header_bytes == Header::BYTES {
            posted.buffer.read(0)
        } else {
            let mut header = Header::default();
            let short: [u8; Header::SHORT_BYTES] = posted.buffer.read(0);
            zerocopy::IntoBytes::as_mut_bytes(&mut header)[..Header::SHORT_BYTES]
                .copy_from_slice(&short);
            header
        };
        if merges && header.buffers.get() != 1 {
            return self.begin(header, slot, bytes);
        }
        let frame_bytes = bytes - header_bytes as u32;
        let arrival = crate::net::header::arrival(&header, frame_bytes, self.layout.agreed)
            .filter(|_| frame_bytes as usize >= ETHERNET_HEADER_BYTES);
        let (queue, bytes) = (self.queue, header_bytes..bytes as usize);
        let Some(posted) = self.take_out(slot) else { return Err(UNKNOWN) };
        let Some(arrival) = arrival else {
            done.returned.push(Returned { queue, posted });
            return Ok(Outcome::Malformed);
        };
        done.received.push(Received { posted, bytes, arrival, queue, more: 0 });
        Ok(Outcome::Frame(frame_bytes))
    }

    #[cold]
    fn begin(&mut self, header: Header, slot: u16, bytes: u32) -> Result<Outcome, &'static str> {
        let count = usize::from(header.buffers.get());
        if count == 0 || count > MOST_PIECES || count > self.held {
            return Err("says that a frame takes more buffers than there are, or none");
        }
        self.header = header;
        self.pieces.push((slot, bytes)).map_err(|_| "is lost in a frame")?;
        Ok(Outcome::Incomplete)
    }

    fn continued(
        &mut self,
        slot: u16,
        bytes: u32,
        done: &mut Completions,
    ) -> Result<Outcome, &'static str> {
        let place = self.all.get(usize::from(slot));
        let Some(posted) = place.and_then(Option::as_ref) else { return Err(UNKNOWN) };
        if bytes == 0 {
            return Err("gives back an empty buffer as a piece of a frame");
        }
        posted.buffer.sync_for_cpu(0..bytes as usize);
        self.pieces.push((slot, bytes)).map_err(|_| "is lost in a frame")?;
        if self.pieces.len() < self.header.buffers.get().into() {
            return Ok(Outcome::Incomplete);
        }
        let pieces = core::mem::take(&mut self.pieces);
        let sum = pieces.iter().fold(0u32, |sum, (_, bytes)| sum.saturating_add(*bytes));
        let frame_bytes = sum - self.layout.header_bytes as u32;
        let arrival = crate::net::header::arrival(&self.header, frame_bytes, self.layout.agreed)
            .filter(|_| frame_bytes as usize >= ETHERNET_HEADER_BYTES)
            .filter(|_| frame_bytes as usize <= crate::spec::net::WHOLE_FRAME_BYTES);
        let (queue, mut start) = (self.queue, self.layout.header_bytes);
        for (place, (slot, bytes)) in pieces.iter().enumerate() {
            let Some(posted) = self.take_out(*slot) else { continue };
            match arrival {
                None => done.returned.push(Returned { queue, posted }),
                Some(arrival) => done.received.push(Received {
                    posted,
                    bytes: start..*bytes as usize,
                    arrival,
                    queue,
                    more: (pieces.len() - 1 - place) as u16,
                }),
            }
            start = 0;
        }
        Ok(arrival.map_or(Outcome::Malformed, |_| Outcome::Frame(frame_bytes)))
    }
}

/// Adds a buffer to a queue.
#[inline]
fn add<R: Ring>(ring: &mut R, layout: Layout, slot: u16, buffer: &DmaBuffer) -> Result<(), Full> {
    let bytes = buffer.len().min(MOST_BYTES);
    let piece = |address, bytes: usize| Piece {
        segment: Segment { address, bytes: bytes as u64 },
        writable: true,
    };
    if layout.shares_descriptor {
        return ring.add_short(slot, [piece(buffer.address(), bytes)]);
    }
    let header = layout.header_bytes;
    let behind = buffer.address_of(header);
    ring.add_short(slot, [piece(buffer.address(), header), piece(behind, bytes - header)])
}
