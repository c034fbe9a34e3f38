//! Frames from the card to a client's ring.

use super::Card;
use super::session::{Agreed, NetSession};
use crate::chain::{Piece, parts};
use crate::error::Violation;
use crate::memory::Memory;
use outboard_hw::dma::DmaBuffer;
use outboard_net::cut::{self, Segments};
use outboard_net::{Arrival, ChecksumState, Offloads, Received, Work};
use outboard_virtio::net::header;
use outboard_virtio::spec::net::{DATA_VALID, Header};
use std::ops::Range;
use zerocopy::IntoBytes;

/// Frames that are passed on from one queue in a turn.
const BATCH: usize = 256;

/// What a frame finds in a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    /// Enough.
    Enough,
    /// The frame has to wait for more.
    Short,
    /// It never fits.
    Never,
}

/// A frame with what stands before it, as it is copied.
enum Whole<'a> {
    /// In a card's buffer, from a byte on.
    Buffer(&'a DmaBuffer, usize),
    /// In ordinary memory.
    Bytes(&'a [u8]),
}

impl NetSession {
    /// Passes on what has come by one of the card's queues; whether there may be more.
    pub(super) fn pass_on(
        &mut self,
        queue: usize,
        card: &mut Card,
        agreed: Agreed,
    ) -> Result<bool, Violation> {
        if !card.has_arrived(queue) {
            return Ok(false);
        }
        let Some(ring) = self.receive_ring(queue) else {
            self.begun[queue] = 0;
            self.traffic.missed += card.drop_arrived_of(queue);
            return Ok(false);
        };
        for _ in 0..BATCH {
            let Some(frame) = card.arrived(queue) else { return Ok(false) };
            match self.pass((queue, ring), frame, agreed)? {
                Room::Enough => self.traffic.received += 1,
                Room::Never => self.traffic.missed += 1,
                Room::Short => return Ok(false),
            }
            card.release(queue);
        }
        Ok(true)
    }

    /// Passes on one frame, of one or several pieces.
    fn pass(
        &mut self,
        (queue, ring): (usize, usize),
        frame: &mut [Received],
        agreed: Agreed,
    ) -> Result<Room, Violation> {
        let arrival = frame[0].arrival;
        let needs = needed(&arrival);
        let start = frame[0].bytes.start;
        if let ([piece], true) = (&mut *frame, agreed.receive.contains(needs))
            && start >= agreed.header_bytes
        {
            return self.pass_as_it_is(ring, piece, agreed);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        scratch.resize(agreed.header_bytes, 0);
        for Received { posted, bytes, .. } in &*frame {
            let at = scratch.len();
            scratch.resize(at + bytes.len(), 0);
            posted.buffer.read_bytes(bytes.start, &mut scratch[at..]);
        }
        let result = if agreed.receive.contains(needs) {
            self.pass_bytes(ring, &mut scratch, &arrival, agreed)
        } else {
            self.pass_worked((queue, ring), &mut scratch, &arrival, agreed)
        };
        self.scratch = scratch;
        result
    }

    /// One whose buffer has room for what stands before it.
    fn pass_as_it_is(
        &mut self,
        ring: usize,
        piece: &mut Received,
        agreed: Agreed,
    ) -> Result<Room, Violation> {
        let Range { start, end } = piece.bytes;
        let start = start - agreed.header_bytes;
        let room = self.take_room(ring, end - start, agreed)?;
        if room == Room::Enough {
            let header = self.header(&piece.arrival);
            let buffer = &mut piece.posted.buffer;
            buffer.write_bytes(start, &header.as_bytes()[..agreed.header_bytes]);
            self.fill(ring, &Whole::Buffer(buffer, start), end - start);
        }
        Ok(room)
    }

    /// One in ordinary memory, behind room for what stands before it.
    fn pass_bytes(
        &mut self,
        ring: usize,
        bytes: &mut [u8],
        arrival: &Arrival,
        agreed: Agreed,
    ) -> Result<Room, Violation> {
        let room = self.take_room(ring, bytes.len(), agreed)?;
        if room == Room::Enough {
            let header = self.header(arrival);
            bytes[..agreed.header_bytes].copy_from_slice(&header.as_bytes()[..agreed.header_bytes]);
            self.fill(ring, &Whole::Bytes(bytes), bytes.len());
        }
        Ok(room)
    }

    /// One on which work was left to whoever receives it, which the client has not agreed to.
    fn pass_worked(
        &mut self,
        (queue, ring): (usize, usize),
        bytes: &mut [u8],
        arrival: &Arrival,
        agreed: Agreed,
    ) -> Result<Room, Violation> {
        let plain = Arrival { checksum: ChecksumState::Unknown, segmentation: None, ..*arrival };
        let (_, frame) = bytes.split_at_mut(agreed.header_bytes);
        let Some(segmentation) = arrival.segmentation else {
            if let ChecksumState::Missing(checksum) = arrival.checksum {
                cut::fill_checksum(frame, checksum);
            }
            return self.pass_bytes(ring, bytes, &plain, agreed);
        };
        let Some(segments) = Segments::of(frame, &segmentation) else { return Ok(Room::Never) };
        let mut segment = Vec::new();
        for number in self.begun[queue]..segments.count() {
            segment.clear();
            segment.resize(agreed.header_bytes + segments.bytes(number), 0);
            segments.write(number, &mut segment[agreed.header_bytes..]);
            let arrival = Arrival { bytes: segments.bytes(number) as u32, ..plain };
            if self.pass_bytes(ring, &mut segment, &arrival, agreed)? == Room::Short {
                self.begun[queue] = number;
                return Ok(Room::Short);
            }
        }
        self.begun[queue] = 0;
        Ok(Room::Enough)
    }

    /// What stands before a frame, whose buffers are known.
    fn header(&self, arrival: &Arrival) -> Header {
        let (checksum, valid) = match arrival.checksum {
            ChecksumState::Missing(checksum) => (Some(checksum), false),
            ChecksumState::Valid => (None, true),
            ChecksumState::Unknown => (None, false),
        };
        let work = Work { checksum, segmentation: arrival.segmentation, vlan_tag: None };
        let mut header = if work.is_none() { Header::default() } else { header::describe(&work) };
        header.flags |= if valid { DATA_VALID } else { 0 };
        // A number of 16 bits counts what a ring of 4096 entries has.
        header.buffers = (self.room.len() as u16).into();
        header
    }

    /// Takes as many buffers out of a ring as so many bytes need (§5.1.6.3.1): one, unless frames
    /// may take several.
    fn take_room(&mut self, ring: usize, bytes: usize, agreed: Agreed) -> Result<Room, Violation> {
        let Some(running) = &mut self.client.vrings[ring].ring else { return Ok(Room::Never) };
        self.pieces.clear();
        self.room.clear();
        let mut left = bytes;
        while left > 0 {
            let before = self.pieces.len();
            let found = running.pop(&self.client.memory, &mut self.pieces)?;
            let Some(head) = found else { break };
            running.ignore();
            let pieces = &self.pieces[before..];
            if pieces.first().is_none_or(|piece| !piece.writable) {
                return Err(Violation::Malformed);
            }
            let sum: u64 = pieces.iter().map(|piece| u64::from(piece.span.bytes)).sum();
            if sum < agreed.header_bytes as u64 {
                return Err(Violation::Malformed);
            }
            let taken = left.min(usize::try_from(sum).unwrap_or(usize::MAX));
            self.room.push((head, taken as u32, self.pieces.len()));
            left -= taken;
            if !agreed.merges {
                break;
            }
        }
        if left == 0 {
            return Ok(Room::Enough);
        }
        let never = !agreed.merges && !self.room.is_empty();
        self.is_short |= !self.room.is_empty();
        for (head, ..) in self.room.drain(..).rev() {
            running.unpop(head);
        }
        Ok(if never { Room::Never } else { Room::Short })
    }

    /// Copies a frame into the buffers that were taken for it.
    fn fill(&mut self, ring: usize, whole: &Whole<'_>, bytes: usize) {
        let memory = &self.client.memory;
        self.used.clear();
        let (mut first, mut done) = (0, 0);
        for (head, taken, end) in &self.room {
            copy(memory, &self.pieces[first..*end], whole, done..done + *taken as usize);
            self.used.push((*head, *taken));
            done += *taken as usize;
            first = *end;
        }
        debug_assert_eq!(done, bytes);
        if let Some(running) = &mut self.client.vrings[ring].ring {
            running.push_together(&self.used);
        }
    }
}

/// Copies a part of a frame to the beginning of some pieces.
fn copy(memory: &Memory, pieces: &[Piece], whole: &Whole<'_>, part: Range<usize>) {
    parts(pieces, 0..part.len() as u64, |span, at| match whole {
        Whole::Buffer(buffer, start) => memory.copy_in(span, buffer, start + part.start + at),
        Whole::Bytes(whole) => {
            let at = part.start + at;
            memory.write(span, &whole[at..at + span.bytes as usize]);
        }
    });
}

/// What a client must have agreed to for a frame to be passed on as it is.
fn needed(arrival: &Arrival) -> Offloads {
    let checksum = match arrival.checksum {
        ChecksumState::Unknown => Offloads::empty(),
        ChecksumState::Valid | ChecksumState::Missing(_) => Offloads::CHECKSUM,
    };
    arrival.segmentation.map_or(checksum, |segmentation| checksum | segmentation.needs())
}
