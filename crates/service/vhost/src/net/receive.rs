//! Frames from the card to a client's ring.

use super::Card;
use super::buffers::{Inlet, Room, Whole};
use super::session::{Agreed, NetSession};
use crate::error::Violation;
use outboard_net::cut::{self, Segments};
use outboard_net::{Arrival, ChecksumState, Offloads, Received, Work};
use outboard_virtio::net::header;
use outboard_virtio::spec::net::{DATA_VALID, Header};
use std::ops::Range;
use zerocopy::IntoBytes;

/// Frames that are passed on from one queue in a turn.
const BATCH: usize = 256;
/// Frames that are passed on at once.
const BURST: usize = 32;

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
        for _ in 0..BATCH / BURST {
            if !self.pass_burst((queue, ring), card, agreed)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Likewise, a burst of them.
    fn pass_burst(
        &mut self,
        (queue, ring): (usize, usize),
        card: &mut Card,
        agreed: Agreed,
    ) -> Result<bool, Violation> {
        let Some(running) = &mut self.client.vrings[ring].ring else { return Ok(false) };
        let arrived = card.arrived(queue);
        let most = arrived.len().min(BURST);
        let inlet = Inlet::new(running, &self.client.memory, &mut self.buffers, (agreed, most))?;
        let (scratch, begun) = (&mut self.scratch, &mut self.begun[queue]);
        let mut passing = Passing { inlet, agreed, scratch, begun };
        let mut passed = 0;
        while passed < most {
            let count = usize::from(arrived[passed].more) + 1;
            let Some(frame) = arrived.get_mut(passed..passed + count) else { break };
            match passing.pass(frame)? {
                Outcome::Passed => self.traffic.received += 1,
                Outcome::Dropped => self.traffic.missed += 1,
                Outcome::Waits => break,
            }
            passed += count;
        }
        self.is_short |= passing.inlet.finish();
        card.release(queue, passed);
        Ok(most > 0 && passed >= most)
    }
}

/// What has become of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Dropped,
    /// For more buffers.
    Waits,
}

/// Frames on their way from one of the card's queues into a ring.
struct Passing<'a> {
    inlet: Inlet<'a>,
    agreed: Agreed,
    scratch: &'a mut Vec<u8>,
    /// How many segments of the frame that is first were passed on, if it is cut here.
    begun: &'a mut usize,
}

impl Passing<'_> {
    /// Passes on one frame, of one or several pieces.
    #[inline]
    fn pass(&mut self, frame: &mut [Received]) -> Result<Outcome, Violation> {
        if let [piece] = &mut *frame
            && (is_plain(&piece.arrival) || self.agreed.receive.contains(needed(&piece.arrival)))
            && piece.bytes.start >= self.agreed.header_bytes
        {
            return self.pass_as_it_is(piece);
        }
        self.pass_copied(frame)
    }

    /// One whose buffer has room for what stands before it.
    #[inline]
    fn pass_as_it_is(&mut self, piece: &mut Received) -> Result<Outcome, Violation> {
        let Range { start, end } = piece.bytes;
        let start = start - self.agreed.header_bytes;
        let bytes = end - start;
        let count = match self.inlet.find(bytes)? {
            Room::Enough(count) => count,
            Room::Short => return Ok(Outcome::Waits),
            Room::Never => return Ok(Outcome::Dropped),
        };
        let header = header(&piece.arrival, count);
        let buffer = &mut piece.posted.buffer;
        match self.agreed.header_bytes {
            // Of a length that the compiler knows.
            Header::BYTES => buffer.write(start, &header),
            bytes => buffer.write_bytes(start, &header.as_bytes()[..bytes]),
        }
        self.inlet.put(&Whole::Buffer(buffer, start), bytes, count);
        Ok(Outcome::Passed)
    }

    /// One that is put together in ordinary memory first, behind room for what stands before it.
    fn pass_copied(&mut self, frame: &[Received]) -> Result<Outcome, Violation> {
        let arrival = frame[0].arrival;
        let mut scratch = std::mem::take(self.scratch);
        scratch.clear();
        scratch.resize(self.agreed.header_bytes, 0);
        for Received { posted, bytes, .. } in frame {
            let at = scratch.len();
            scratch.resize(at + bytes.len(), 0);
            posted.buffer.read_bytes(bytes.start, &mut scratch[at..]);
        }
        let outcome = if self.agreed.receive.contains(needed(&arrival)) {
            self.pass_bytes(&mut scratch, &arrival)
        } else {
            self.pass_worked(&mut scratch, &arrival)
        };
        *self.scratch = scratch;
        outcome
    }

    /// One in ordinary memory, behind room for what stands before it.
    fn pass_bytes(&mut self, bytes: &mut [u8], arrival: &Arrival) -> Result<Outcome, Violation> {
        let count = match self.inlet.find(bytes.len())? {
            Room::Enough(count) => count,
            Room::Short => return Ok(Outcome::Waits),
            Room::Never => return Ok(Outcome::Dropped),
        };
        let before = &mut bytes[..self.agreed.header_bytes];
        before.copy_from_slice(&header(arrival, count).as_bytes()[..before.len()]);
        self.inlet.put(&Whole::Bytes(bytes), bytes.len(), count);
        Ok(Outcome::Passed)
    }

    /// One on which work was left to whoever receives it, which the client has not agreed to.
    fn pass_worked(&mut self, bytes: &mut [u8], arrival: &Arrival) -> Result<Outcome, Violation> {
        let plain = Arrival { checksum: ChecksumState::Unknown, segmentation: None, ..*arrival };
        let before = self.agreed.header_bytes;
        let (_, frame) = bytes.split_at_mut(before);
        let Some(segmentation) = arrival.segmentation else {
            if let ChecksumState::Missing(checksum) = arrival.checksum {
                cut::fill_checksum(frame, checksum);
            }
            return self.pass_bytes(bytes, &plain);
        };
        let Some(segments) = Segments::of(frame, &segmentation) else {
            return Ok(Outcome::Dropped);
        };
        let mut segment = Vec::new();
        for number in *self.begun..segments.count() {
            segment.clear();
            segment.resize(before + segments.bytes(number), 0);
            segments.write(number, &mut segment[before..]);
            let arrival = Arrival { bytes: segments.bytes(number) as u32, ..plain };
            if self.pass_bytes(&mut segment, &arrival)? == Outcome::Waits {
                *self.begun = number;
                return Ok(Outcome::Waits);
            }
        }
        *self.begun = 0;
        Ok(Outcome::Passed)
    }
}

/// Whether nothing is said of a frame.
#[inline]
const fn is_plain(arrival: &Arrival) -> bool {
    matches!(arrival.checksum, ChecksumState::Unknown) && arrival.segmentation.is_none()
}

/// What stands before a frame in so many buffers.
#[inline]
fn header(arrival: &Arrival, buffers: u16) -> Header {
    if is_plain(arrival) {
        return Header { buffers: buffers.into(), ..Header::default() };
    }
    let (checksum, valid) = match arrival.checksum {
        ChecksumState::Missing(checksum) => (Some(checksum), false),
        ChecksumState::Valid => (None, true),
        ChecksumState::Unknown => (None, false),
    };
    let work = Work { checksum, segmentation: arrival.segmentation, vlan_tag: None };
    let mut header = header::describe(&work);
    header.flags |= if valid { DATA_VALID } else { 0 };
    header.buffers = buffers.into();
    header
}

/// What a client must have agreed to for a frame to be passed on as it is.
#[inline]
fn needed(arrival: &Arrival) -> Offloads {
    let checksum = match arrival.checksum {
        ChecksumState::Unknown => Offloads::empty(),
        ChecksumState::Valid | ChecksumState::Missing(_) => Offloads::CHECKSUM,
    };
    arrival.segmentation.map_or(checksum, |segmentation| checksum | segmentation.needs())
}
