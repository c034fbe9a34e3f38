//! A queue of buffers for frames to come.

use super::header::{self, is_plain, plain};
use crate::queue::{Full, Layout as Rings, Piece, Queue, Ring, Token, Used};
use crate::recovery::ResetCause;
use crate::spec::net::{Header, WHOLE_FRAME_BYTES};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::ops::Range;
use outboard_hw::dma::Segment;
use outboard_net::{
    Arrival, Completions, ETHERNET_HEADER_BYTES, Offloads, Posted, Received, RefusedReason,
    Returned,
};
use zerocopy::IntoBytes;

/// The most buffers that a frame may take.
pub(super) const MOST_PIECES: usize = 48;
/// The least bytes of a buffer, where a frame may take several: as many of these hold the longest.
pub(super) const LEAST_BYTES: usize = 1536;
/// The most bytes of a buffer that the device is told of.
const MOST_BYTES: usize = 1 << 20;

const _: () = assert!(MOST_PIECES * LEAST_BYTES > WHOLE_FRAME_BYTES);

impl Token for Box<Posted> {
    const IN_TURN: bool = true;
}

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
    pub(super) queue: Queue<Box<Posted>>,
    buffers: Buffers,
}

/// What is known of the buffers that were posted.
#[derive(Debug)]
struct Buffers {
    /// Of which queue they are.
    queue: u16,
    layout: Layout,
    /// How many there are, with those that are not the device's any more.
    held: usize,
    /// What begins the frame of which more has to come.
    header: Header,
    /// Its buffers so far, and how many bytes are in each.
    pieces: heapless::Vec<(Box<Posted>, u32), MOST_PIECES>,
    /// The one of which the device has said what cannot be, until it was reset.
    kept: Option<Box<Posted>>,
}

impl Receive {
    pub(super) fn new(number: u16, queue: Queue<Box<Posted>>, layout: Layout) -> Self {
        let buffers = Buffers {
            queue: number,
            layout,
            held: 0,
            header: Header::default(),
            pieces: heapless::Vec::new(),
            kept: None,
        };
        Self { queue, buffers }
    }

    /// How many buffers it takes.
    pub(super) fn depth(&self) -> u16 {
        let entries = self.queue.areas().entries;
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
        let mut all = self.take_back().collect();
        self.queue.reset();
        self.buffers.held = 0;
        // There was room for as many before, and they were long enough.
        let _ = self.post(&mut all, 0);
        debug_assert!(all.is_empty(), "{all:?}");
    }

    /// Gives all buffers back; the device reaches none of them any more.
    pub(super) fn give_back(&mut self, done: &mut Completions) {
        let queue = self.buffers.queue;
        done.returned.extend(self.take_back().map(|posted| Returned { queue, posted }));
        self.buffers.held = 0;
    }

    fn take_back(&mut self) -> impl Iterator<Item = Box<Posted>> {
        let pieces = core::mem::take(&mut self.buffers.pieces);
        let pieces = pieces.into_iter().map(|(posted, _)| posted);
        self.queue.take_back().chain(pieces).chain(self.buffers.kept.take())
    }
}

impl Buffers {
    /// See [`Receive::post`].
    fn post<R: Ring<Box<Posted>>>(
        &mut self,
        ring: &mut R,
        burst: &mut VecDeque<Box<Posted>>,
        least_bytes: usize,
    ) -> Result<(), RefusedReason> {
        let before = burst.len();
        let mut result = Ok(());
        while let Some(posted) = burst.pop_front() {
            let (posted, reason) = if posted.buffer.len() < least_bytes {
                (posted, RefusedReason::BadMemory)
            } else {
                posted.buffer.sync_for_device(0..posted.buffer.len());
                let Err(Full(posted)) = add(ring, self.layout, posted) else { continue };
                (posted, RefusedReason::QueueFull)
            };
            burst.push_front(posted);
            result = Err(reason);
            break;
        }
        self.held += before - burst.len();
        result
    }

    /// See [`Receive::reap`].
    fn reap<R: Ring<Box<Posted>>>(
        &mut self,
        ring: &mut R,
        most: usize,
        done: &mut Completions,
        reaped: &mut Reaped,
    ) -> Result<(), ResetCause> {
        // Counted beside memory.
        let mut counted = *reaped;
        let result = self.reap_each(ring, most, done, &mut counted);
        *reaped = counted;
        result
    }

    #[inline(always)]
    fn reap_each<R: Ring<Box<Posted>>>(
        &mut self,
        ring: &mut R,
        most: usize,
        done: &mut Completions,
        reaped: &mut Reaped,
    ) -> Result<(), ResetCause> {
        while reaped.buffers < most
            && let Some(used) = ring.take()
        {
            let Used { token: posted, bytes } = used.map_err(ResetCause::Broken)?;
            reaped.buffers += 1;
            if let Some(frame_bytes) = self.is_plain(&posted, bytes) {
                reaped.frame(frame_bytes);
                let arrival = plain(frame_bytes);
                self.pass_on(posted, Header::BYTES..bytes as usize, arrival, 0, done);
                continue;
            }
            match self.arrived(posted, bytes, done).map_err(ResetCause::Nonsense)? {
                Outcome::Frame(bytes) => reaped.frame(bytes),
                Outcome::Incomplete => {}
                Outcome::Malformed => reaped.malformed += 1,
            }
        }
        Ok(())
    }

    /// Whether a buffer in which there are so many bytes has all of a frame of which nothing special is
    /// said, as of most; how many bytes that has. Any other is for [`arrived`](Self::arrived).
    #[inline(always)]
    fn is_plain(&self, posted: &Posted, bytes: u32) -> Option<u32> {
        let Layout { header_bytes, merges, .. } = self.layout;
        let frame_bytes = bytes.checked_sub(Header::BYTES as u32)?;
        if header_bytes != Header::BYTES
            || frame_bytes < ETHERNET_HEADER_BYTES as u32
            || !self.pieces.is_empty()
        {
            return None;
        }
        posted.buffer.sync_for_cpu(0..bytes as usize);
        let header: Header = posted.buffer.read(0);
        let whole = is_plain(&header) && (!merges || header.buffers.get() == 1);
        whole.then_some(frame_bytes)
    }

    /// Passes a frame on, or a piece of one.
    #[inline(always)]
    fn pass_on(
        &mut self,
        posted: Box<Posted>,
        bytes: Range<usize>,
        arrival: Arrival,
        more: u16,
        done: &mut Completions,
    ) {
        self.held -= 1;
        done.received.push(Received { posted, bytes, arrival, queue: self.queue, more });
    }

    /// Gives a buffer back in which there is nothing.
    fn return_empty(&mut self, posted: Box<Posted>, done: &mut Completions) {
        self.held -= 1;
        done.returned.push(Returned { queue: self.queue, posted });
    }

    /// Takes note of a buffer in which there are so many bytes, and passes the frame on once all of
    /// it is there; or says what is wrong with the device, and keeps the buffer.
    #[inline(never)]
    fn arrived(
        &mut self,
        posted: Box<Posted>,
        bytes: u32,
        done: &mut Completions,
    ) -> Result<Outcome, &'static str> {
        let header_bytes = self.layout.header_bytes;
        if !self.pieces.is_empty() {
            return self.continued(posted, bytes, done);
        }
        if bytes < header_bytes as u32 {
            self.kept = Some(posted);
            return Err("gives back a buffer without what stands before a frame");
        }
        posted.buffer.sync_for_cpu(0..bytes as usize);
        let header = self.read_header(&posted);
        if self.layout.merges && header.buffers.get() != 1 {
            return self.begin(header, posted, bytes);
        }
        let frame_bytes = bytes - header_bytes as u32;
        let arrival = header::arrival(&header, frame_bytes, self.layout.agreed)
            .filter(|_| frame_bytes as usize >= ETHERNET_HEADER_BYTES);
        let Some(arrival) = arrival else {
            self.return_empty(posted, done);
            return Ok(Outcome::Malformed);
        };
        self.pass_on(posted, header_bytes..bytes as usize, arrival, 0, done);
        Ok(Outcome::Frame(frame_bytes))
    }

    /// What stands before a frame.
    fn read_header(&self, posted: &Posted) -> Header {
        if self.layout.header_bytes == Header::BYTES {
            return posted.buffer.read(0);
        }
        let mut header = Header::default();
        let short: [u8; Header::SHORT_BYTES] = posted.buffer.read(0);
        header.as_mut_bytes()[..Header::SHORT_BYTES].copy_from_slice(&short);
        header
    }

    #[cold]
    fn begin(
        &mut self,
        header: Header,
        posted: Box<Posted>,
        bytes: u32,
    ) -> Result<Outcome, &'static str> {
        let count = usize::from(header.buffers.get());
        if count == 0 || count > MOST_PIECES || count > self.held {
            self.kept = Some(posted);
            return Err("says that a frame takes more buffers than there are, or none");
        }
        self.header = header;
        self.keep(posted, bytes)?;
        Ok(Outcome::Incomplete)
    }

    /// Keeps a piece of a frame until all of it is there.
    fn keep(&mut self, posted: Box<Posted>, bytes: u32) -> Result<(), &'static str> {
        self.pieces.push((posted, bytes)).map_err(|(posted, _)| {
            self.kept = Some(posted);
            "is lost in a frame"
        })
    }

    fn continued(
        &mut self,
        posted: Box<Posted>,
        bytes: u32,
        done: &mut Completions,
    ) -> Result<Outcome, &'static str> {
        if bytes == 0 {
            self.kept = Some(posted);
            return Err("gives back an empty buffer as a piece of a frame");
        }
        posted.buffer.sync_for_cpu(0..bytes as usize);
        self.keep(posted, bytes)?;
        if self.pieces.len() < self.header.buffers.get().into() {
            return Ok(Outcome::Incomplete);
        }
        let pieces = core::mem::take(&mut self.pieces);
        let sum = pieces.iter().fold(0u32, |sum, (_, bytes)| sum.saturating_add(*bytes));
        let frame_bytes = sum - self.layout.header_bytes as u32;
        let arrival = header::arrival(&self.header, frame_bytes, self.layout.agreed)
            .filter(|_| frame_bytes as usize >= ETHERNET_HEADER_BYTES)
            .filter(|_| frame_bytes as usize <= WHOLE_FRAME_BYTES);
        let (mut more, mut start) = (pieces.len() as u16, self.layout.header_bytes);
        for (posted, bytes) in pieces {
            more -= 1;
            match arrival {
                None => self.return_empty(posted, done),
                Some(arrival) => {
                    self.pass_on(posted, start..bytes as usize, arrival, more, done);
                }
            }
            start = 0;
        }
        Ok(arrival.map_or(Outcome::Malformed, |_| Outcome::Frame(frame_bytes)))
    }
}

/// Adds a buffer to a queue.
#[inline(always)]
fn add<R: Ring<Box<Posted>>>(
    ring: &mut R,
    layout: Layout,
    posted: Box<Posted>,
) -> Result<(), Full<Box<Posted>>> {
    let buffer = &posted.buffer;
    let bytes = buffer.len().min(MOST_BYTES);
    let piece = |address, bytes: usize| Piece {
        segment: Segment { address, bytes: bytes as u64 },
        writable: true,
    };
    if layout.shares_descriptor {
        let whole = piece(buffer.address(), bytes);
        return ring.add_short(posted, [whole]);
    }
    let header = layout.header_bytes;
    let pieces =
        [piece(buffer.address(), header), piece(buffer.address_of(header), bytes - header)];
    ring.add_short(posted, pieces)
}
