//! A queue of buffers for frames to come.

use super::header::{is_plain, plain};
use crate::queue::{Full, Piece, Queue};
use crate::spec::net::Header;
use alloc::vec::Vec;
use outboard_hw::dma::{DmaBuffer, Segment};
use outboard_net::{Completion, Offloads, Posted, Received};

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

/// A buffer that the device has, or the place for one.
#[derive(Debug)]
struct Slot {
    posted: Option<Posted>,
    /// Where there is none: the next such slot.
    next_free: u16,
}

impl Slot {
    /// Takes a buffer out, which makes this slot the first one that is free.
    #[inline]
    fn end(&mut self, slot: u16, first_free: &mut u16, held: &mut usize) -> Option<Posted> {
        let posted = self.posted.take()?;
        self.next_free = *first_free;
        (*first_free, *held) = (slot, *held - 1);
        Some(posted)
    }
}

/// The queue, and what is in it.
#[derive(Debug)]
pub(super) struct Receive {
    number: u16,
    pub(super) queue: Queue,
    layout: Layout,
    slots: Vec<Slot>,
    /// The first one that is free; each leads to the next, and the last one to none.
    first_free: u16,
    held: usize,
    /// What begins the frame of which more has to come.
    header: Header,
    /// Its slots so far, and how many bytes are in each.
    pieces: heapless::Vec<(u16, u32), MOST_PIECES>,
}

impl Receive {
    pub(super) fn new(number: u16, queue: Queue, layout: Layout) -> Self {
        let entries = queue.areas().entries;
        let count = if layout.shares_descriptor { entries } else { entries / 2 };
        Self {
            number,
            queue,
            layout,
            slots: (1..=count).map(|next_free| Slot { posted: None, next_free }).collect(),
            first_free: 0,
            held: 0,
            header: Header::default(),
            pieces: heapless::Vec::new(),
        }
    }

    /// How many buffers it takes.
    pub(super) const fn depth(&self) -> u16 {
        self.slots.len() as u16
    }

    /// How many it has.
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    /// Takes a buffer, which the device sees once that is published.
    #[inline]
    pub(super) fn post(&mut self, posted: Posted) -> Result<(), Posted> {
        let slot = self.first_free;
        let Some(place) = self.slots.get_mut(usize::from(slot)) else { return Err(posted) };
        posted.buffer.sync_for_device(0..posted.buffer.len());
        if add(&mut self.queue, self.layout, slot, &posted.buffer).is_err() {
            return Err(posted);
        }
        // The buffer of before was taken out when it came back: nothing of it is left to be freed.
        core::mem::forget(place.posted.replace(posted));
        (self.first_free, self.held) = (place.next_free, self.held + 1);
        Ok(())
    }

    /// Forgets what the device had of it, and shows it all buffers again, once that is published.
    pub(super) fn restart(&mut self) {
        self.queue.reset();
        self.pieces.clear();
        for (slot, place) in (0..).zip(&self.slots) {
            if let Some(posted) = &place.posted {
                // There was room for as many before.
                let _ = add(&mut self.queue, self.layout, slot, &posted.buffer);
            }
        }
    }

    /// Gives all buffers back; the device reaches none of them any more.
    pub(super) fn give_back(&mut self, done: &mut dyn FnMut(Completion)) {
        self.pieces.clear();
        for slot in 0..self.depth() {
            if let Some(buffer) = self.take_out(slot) {
                done(Completion::Returned { queue: self.number, buffer });
            }
        }
    }

    #[inline]
    fn take_out(&mut self, slot: u16) -> Option<Posted> {
        let place = self.slots.get_mut(usize::from(slot))?;
        place.end(slot, &mut self.first_free, &mut self.held)
    }

    /// Passes on a frame in a buffer in which there are so many bytes, if it is all that is in it, and
    /// nothing special is said of it, as of most; else it is for [`arrived`](Self::arrived). How many
    /// bytes it has.
    #[inline]
    pub(super) fn arrived_plainly(
        &mut self,
        slot: u16,
        bytes: u32,
        done: &mut dyn FnMut(Completion),
    ) -> Option<u32> {
        let Layout { header_bytes, merges, .. } = self.layout;
        let place = self.slots.get_mut(usize::from(slot))?;
        let Posted { buffer, .. } = place.posted.as_ref()?;
        let frame_bytes = bytes.checked_sub(Header::BYTES as u32)?;
        if header_bytes != Header::BYTES
            || frame_bytes < outboard_net::ETHERNET_HEADER_BYTES as u32
            || !self.pieces.is_empty()
        {
            return None;
        }
        buffer.sync_for_cpu(0..bytes as usize);
        let header: Header = buffer.read(0);
        if !is_plain(&header) || merges && header.buffers.get() != 1 {
            return None;
        }
        let Posted { tag, buffer } = place.end(slot, &mut self.first_free, &mut self.held)?;
        done(Completion::Received(Received {
            queue: self.number,
            tag,
            buffer,
            bytes: Header::BYTES..bytes as usize,
            more: 0,
            arrival: plain(frame_bytes),
        }));
        Some(frame_bytes)
    }

    /// Takes note of a buffer in which there are so many bytes, and passes the frame on once all of
    /// it is there; or says what is wrong with the device.
    #[inline(never)]
    pub(super) fn arrived(
        &mut self,
        slot: u16,
        bytes: u32,
        done: &mut dyn FnMut(Completion),
    ) -> Result<Outcome, &'static str> {
        let Layout { header_bytes, merges, .. } = self.layout;
        if !self.pieces.is_empty() {
            return self.continued(slot, bytes, done);
        }
        let Some(place) = self.slots.get_mut(usize::from(slot)) else { return Err(UNKNOWN) };
        let Some(Posted { buffer, .. }) = &place.posted else { return Err(UNKNOWN) };
        if bytes < header_bytes as u32 {
            return Err("gives back a buffer without what stands before a frame");
        }
        buffer.sync_for_cpu(0..bytes as usize);
        let header: Header = if header_bytes == Header::BYTES {
            buffer.read(0)
        } else {
            let mut header = Header::default();
            let short: [u8; Header::SHORT_BYTES] = buffer.read(0);
            zerocopy::IntoBytes::as_mut_bytes(&mut header)[..Header::SHORT_BYTES]
                .copy_from_slice(&short);
            header
        };
        if merges && header.buffers.get() != 1 {
            return self.begin(header, slot, bytes);
        }
        let frame_bytes = bytes - header_bytes as u32;
        let arrival = crate::net::header::arrival(&header, frame_bytes, self.layout.agreed)
            .filter(|_| frame_bytes as usize >= outboard_net::ETHERNET_HEADER_BYTES);
        let Some(posted) = self.take_out(slot) else { return Err(UNKNOWN) };
        let Some(arrival) = arrival else {
            done(Completion::Returned { queue: self.number, buffer: posted });
            return Ok(Outcome::Malformed);
        };
        let Posted { tag, buffer } = posted;
        let bytes = header_bytes..bytes as usize;
        done(Completion::Received(Received {
            queue: self.number,
            tag,
            buffer,
            bytes,
            more: 0,
            arrival,
        }));
        Ok(Outcome::Frame(frame_bytes))
    }

    #[cold]
    fn begin(&mut self, header: Header, slot: u16, bytes: u32) -> Result<Outcome, &'static str> {
        let count = usize::from(header.buffers.get());
        if count == 0 || count > MOST_PIECES || count > self.held() {
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
        done: &mut dyn FnMut(Completion),
    ) -> Result<Outcome, &'static str> {
        let place = self.slots.get(usize::from(slot));
        let Some(posted) = place.and_then(|place| place.posted.as_ref()) else {
            return Err(UNKNOWN);
        };
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
            .filter(|_| frame_bytes as usize >= outboard_net::ETHERNET_HEADER_BYTES)
            .filter(|_| frame_bytes as usize <= crate::spec::net::WHOLE_FRAME_BYTES);
        let mut start = self.layout.header_bytes;
        for (place, (slot, bytes)) in pieces.iter().enumerate() {
            let Some(posted) = self.take_out(*slot) else { continue };
            let queue = self.number;
            done(match arrival {
                None => Completion::Returned { queue, buffer: posted },
                Some(arrival) => Completion::Received(Received {
                    queue,
                    tag: posted.tag,
                    buffer: posted.buffer,
                    bytes: start..*bytes as usize,
                    more: (pieces.len() - 1 - place) as u16,
                    arrival,
                }),
            });
            start = 0;
        }
        Ok(arrival.map_or(Outcome::Malformed, |_| Outcome::Frame(frame_bytes)))
    }
}

/// Adds a buffer to a queue.
#[inline]
fn add(queue: &mut Queue, layout: Layout, slot: u16, buffer: &DmaBuffer) -> Result<(), Full> {
    let bytes = buffer.len().min(MOST_BYTES);
    let piece = |address, bytes: usize| Piece {
        segment: Segment { address, bytes: bytes as u64 },
        writable: true,
    };
    if layout.shares_descriptor {
        return queue.add_short(slot, [piece(buffer.address(), bytes)]);
    }
    let header = layout.header_bytes;
    let behind = buffer.address_of(header);
    queue.add_short(slot, [piece(buffer.address(), header), piece(behind, bytes - header)])
}
