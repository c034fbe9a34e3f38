//! Frames from a client's ring to the card.

use super::Card;
use super::card::Sending;
use super::session::{Agreed, NetSession};
use crate::chain::{Piece, parts, read};
use crate::error::Violation;
use crate::memory::Memory;
use outboard_net::{Arrival, ChecksumState, Work};
use outboard_net::{ETHERNET_HEADER_BYTES, MAX_SEGMENTED_BYTES};
use outboard_virtio::net::header;
use outboard_virtio::spec::net::Header;
use zerocopy::IntoBytes;

/// Frames that are taken out of one ring in a turn: all that an ordinary one holds.
const BATCH: usize = 256;
/// After so many frames the client is shown that they were taken, so that it can go on.
const BURST: usize = 32;

impl NetSession {
    /// Takes frames out of a ring, for a queue of the card's; whether there may be more.
    pub(super) fn transmit(
        &mut self,
        ring: usize,
        queue: usize,
        card: &mut Card,
        agreed: Agreed,
    ) -> Result<bool, Violation> {
        let Some(running) = &mut self.client.vrings[ring].ring else { return Ok(false) };
        for count in 1..=BATCH {
            if card.queues() == 0 || !card.has_room(queue) {
                return Ok(false);
            }
            self.pieces.clear();
            let memory = &self.client.memory;
            let Some(head) = running.pop(memory, &mut self.pieces)? else { return Ok(false) };
            running.ignore();
            match send(memory, &self.pieces, card, queue, agreed)? {
                Sending::Taken => self.traffic.sent += 1,
                Sending::Refused => self.traffic.unsent += 1,
                Sending::Full => {
                    running.unpop(head);
                    return Ok(false);
                }
            }
            running.push(head, 0);
            if count.is_multiple_of(BURST) {
                running.show();
            }
        }
        Ok(true)
    }
}

/// Copies a frame, and passes it to the card.
fn send(
    memory: &Memory,
    pieces: &[Piece],
    card: &mut Card,
    queue: usize,
    agreed: Agreed,
) -> Result<Sending, Violation> {
    // Those that the device reads come first.
    if pieces.last().is_none_or(|piece| piece.writable) {
        return Err(Violation::Malformed);
    }
    let total: u64 = pieces.iter().map(|piece| u64::from(piece.span.bytes)).sum();
    let start = agreed.header_bytes as u64;
    let bytes = total.checked_sub(start).ok_or(Violation::Malformed)?;
    if !(ETHERNET_HEADER_BYTES as u64..=MAX_SEGMENTED_BYTES as u64).contains(&bytes) {
        return Ok(Sending::Refused);
    }
    let mut header = Header::default();
    read(memory, pieces, 0, &mut header.as_mut_bytes()[..agreed.header_bytes]);
    let Some(arrival) = header::arrival(&header, bytes as u32, agreed.transmit) else {
        return Ok(Sending::Refused);
    };
    let bytes = bytes as usize;
    let (mut frame, at) = match card.memory(queue, bytes) {
        Ok(found) => found,
        Err(why) => return Ok(why),
    };
    frame.work = work(&arrival);
    if let Some(buffer) = frame.data.reuse(at..at + bytes) {
        parts(pieces, start..total, |span, done| memory.copy_out(span, buffer, at + done));
    }
    Ok(card.send(queue, frame))
}

/// What a card is to do to a frame that a client describes like this.
const fn work(arrival: &Arrival) -> Work {
    let checksum = match arrival.checksum {
        ChecksumState::Missing(checksum) => Some(checksum),
        ChecksumState::Unknown | ChecksumState::Valid => None,
    };
    Work { checksum, segmentation: arrival.segmentation, vlan_tag: None }
}
