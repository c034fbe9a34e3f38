//! Frames from a client's ring to the card.

use super::Card;
use super::sender::{NoMemory, Sender};
use super::session::{Agreed, NetSession};
use crate::chain::Piece;
use crate::error::Violation;
use crate::memory::Memory;
use crate::ring::Taken;
use outboard_hw::dma::DmaBuffer;
use outboard_net::{ChecksumState, ETHERNET_HEADER_BYTES, Frame, MAX_SEGMENTED_BYTES, Work};
use outboard_virtio::net::header;
use outboard_virtio::spec::net::{GSO_NONE, Header};
use zerocopy::{FromZeros, IntoBytes};

/// Frames that are taken out of one ring in a turn: all that an ordinary one holds.
const BATCH: usize = 256;
/// Frames that are taken at once.
const BURST: usize = 32;

/// Frames that were taken out of a ring.
///
/// First all are taken and asked for, then all are copied, with what stands before them, then all are looked at
/// and sent: so the processor waits for the memory of several at a time.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    taken: Vec<Taken>,
    pieces: Vec<Piece>,
    /// Those that have memory of the card's, in their order, but for those that it never takes.
    loaded: Vec<Option<Box<Frame>>>,
    /// Of those, whether they are sent.
    good: Vec<bool>,
}

impl NetSession {
    /// Takes frames out of a ring, for a queue of the card's; whether there may be more.
    pub(super) fn transmit(
        &mut self,
        ring: usize,
        queue: usize,
        card: &mut Card,
        agreed: Agreed,
    ) -> Result<bool, Violation> {
        let Some(mut sender) = card.sender(queue) else { return Ok(false) };
        for _ in 0..BATCH / BURST {
            if self.transmit_burst(ring, &mut sender, agreed)? < BURST {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Likewise, a burst of them; how many the card took, or will never take.
    fn transmit_burst(
        &mut self,
        ring: usize,
        sender: &mut Sender<'_>,
        agreed: Agreed,
    ) -> Result<usize, Violation> {
        let Self { client, leaving, traffic, .. } = self;
        let (Some(running), memory) = (&mut client.vrings[ring].ring, &*client.memory) else {
            return Ok(0);
        };
        leaving.taken.clear();
        leaving.pieces.clear();
        let most = BURST.min(sender.room());
        running.take(memory, &mut leaving.pieces, &mut leaving.taken, most)?;
        if leaving.taken.is_empty() {
            return Ok(0);
        }
        running.ignore();
        leaving.pieces.iter().for_each(|piece| memory.prefetch(piece.span));
        if let Err(violation) = leaving.load(memory, sender, agreed) {
            // The card outlives its client.
            leaving.loaded.drain(..).flatten().for_each(|frame| sender.put_away(frame));
            return Err(violation);
        }
        leaving.look(sender, agreed);
        let (refused, left) = sender.submit();
        let Leaving { taken, good, .. } = leaving;
        // From the first on that the card does not take now, all go back, so that none is overtaken.
        let sendable = |index: &usize| good[*index];
        let done = match left {
            0 => good.len(),
            _ => (0..good.len()).rev().filter(sendable).nth(left - 1).unwrap_or_default(),
        };
        for Taken { head, .. } in &taken[..done] {
            running.push(*head, 0);
        }
        taken[done..].iter().rev().for_each(|frame| running.unpop(frame.head));
        running.show();
        let sent = good[..done].iter().filter(|good| **good).count() - refused;
        traffic.sent += sent as u64;
        traffic.unsent += (done - sent) as u64;
        Ok(done)
    }
}

impl Leaving {
    /// Copies all frames to the card's memory.
    fn load(
        &mut self,
        memory: &Memory,
        sender: &mut Sender<'_>,
        agreed: Agreed,
    ) -> Result<(), Violation> {
        let Self { taken, pieces, loaded, .. } = self;
        loaded.clear();
        let (mut rest, mut start) = (&**pieces, 0);
        for Taken { end, .. } in &*taken {
            let (frame, behind) = rest.split_at(end - start);
            (rest, start) = (behind, *end);
            // Those that the device reads come first.
            let (total, writable) = match frame {
                [one] => (one.span.bytes.into(), one.writable),
                _ => (total(frame), frame.last().is_none_or(|piece| piece.writable)),
            };
            if writable || total < agreed.header_bytes as u64 {
                return Err(Violation::Malformed);
            }
            let bytes = total - agreed.header_bytes as u64;
            let sane = ETHERNET_HEADER_BYTES as u64..=MAX_SEGMENTED_BYTES as u64;
            if !sane.contains(&bytes) {
                loaded.push(None);
                continue;
            }
            let memory =
                sender.load(agreed.header_bytes, bytes as usize, |buffer, at| match frame {
                    [one] => memory.copy_out(one.span, buffer, at),
                    _ => copy_pieces(memory, frame, buffer, at),
                });
            match memory {
                Ok(frame) => loaded.push(Some(frame)),
                Err(NoMemory::Never) => loaded.push(None),
                Err(NoMemory::Now) => break,
            }
        }
        Ok(())
    }

    /// Finds out what is to be done to the frames, and which are none.
    fn look(&mut self, sender: &mut Sender<'_>, agreed: Agreed) {
        self.good.clear();
        let at = sender.header_at(agreed.header_bytes);
        for frame in self.loaded.drain(..) {
            let Some(mut frame) = frame else {
                self.good.push(false);
                continue;
            };
            let work = work(&mut frame, at, agreed);
            self.good.push(work.is_some());
            match work {
                Some(work) => {
                    frame.work = work;
                    sender.add(frame);
                }
                None => sender.put_away(frame),
            }
        }
    }
}

/// Bytes of some pieces together.
fn total(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|piece| u64::from(piece.span.bytes)).sum()
}

/// Copies all of some pieces, one behind the other.
fn copy_pieces(memory: &Memory, pieces: &[Piece], buffer: &mut DmaBuffer, at: usize) {
    let mut at = at;
    for Piece { span, .. } in pieces {
        memory.copy_out(*span, buffer, at);
        at += span.bytes as usize;
    }
}

/// What a card is to do to a frame, as the client describes it before the frame, from `at` on.
/// `None` if that was not agreed upon, or makes no sense.
#[inline]
fn work(frame: &mut Frame, at: usize, agreed: Agreed) -> Option<Work> {
    let bytes = frame.data.bytes();
    let start = at + agreed.header_bytes;
    let buffer = frame.data.reuse(start..start + bytes)?;
    let mut header = Header::new_zeroed();
    match agreed.header_bytes {
        // Of a length that the compiler knows.
        Header::BYTES => header = buffer.read(at),
        bytes => buffer.read_bytes(at, &mut header.as_mut_bytes()[..bytes]),
    }
    if header.flags == 0 && header.gso_kind == GSO_NONE {
        return Some(Work::NONE);
    }
    let arrival = header::arrival(&header, bytes as u32, agreed.transmit)?;
    let checksum = match arrival.checksum {
        ChecksumState::Missing(checksum) => Some(checksum),
        ChecksumState::Unknown | ChecksumState::Valid => None,
    };
    Some(Work { checksum, segmentation: arrival.segmentation, vlan_tag: None })
}
