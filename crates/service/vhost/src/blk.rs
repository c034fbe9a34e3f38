//! What a request wants (§5.2.6).

use crate::chain::{Piece, parts, read};
use crate::error::Violation;
use crate::memory::Memory;
use outboard_hw::dma::{DmaBuffer, SgList};
use outboard_virtio::spec::blk::{
    DISCARD, DISCARD_BYTES, DiscardSegment, FLUSH, GET_ID, HEADER_BYTES, Header, IN, OUT,
    WRITE_ZEROES,
};
use std::ops::Range;
use zerocopy::FromBytes;

/// A request's kind, and the sectors of 512 bytes that it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Read { sector: u64 },
    Write { sector: u64 },
    Flush,
    GetId,
    Discard { segment: Option<DiscardSegment> },
    WriteZeroes { segment: Option<DiscardSegment> },
    Unknown,
}

/// A request's memory without header and status, whose bytes lie in any pieces (§2.7.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Layout {
    /// Pieces that the device reads; the others follow.
    readable_pieces: usize,
    /// Bytes that it reads behind the header.
    pub(crate) from_driver: u64,
    /// Bytes that it writes before the status.
    pub(crate) to_driver: u64,
}

/// Reads what a request wants; an error if it has no header or no place for its status.
pub(crate) fn parse(memory: &Memory, pieces: &[Piece]) -> Result<(Command, Layout), Violation> {
    let readable_pieces = pieces.iter().take_while(|piece| !piece.writable).count();
    let (readable, writable) = pieces.split_at(readable_pieces);
    let total =
        |pieces: &[Piece]| pieces.iter().map(|piece| u64::from(piece.span.bytes)).sum::<u64>();
    let from_driver = total(readable).checked_sub(HEADER_BYTES as u64);
    let to_driver = total(writable).checked_sub(1);
    let (Some(from_driver), Some(to_driver)) = (from_driver, to_driver) else {
        return Err(Violation::Malformed);
    };
    let layout = Layout { readable_pieces, from_driver, to_driver };
    let mut bytes = [0; HEADER_BYTES];
    match readable.first() {
        // It need not lie in one piece, but mostly does.
        Some(first) if first.span.bytes as usize >= HEADER_BYTES => {
            memory.read(first.span, &mut bytes);
        }
        _ => read(memory, readable, 0, &mut bytes),
    }
    let header = Header::read_from_bytes(&bytes).map_err(|_| Violation::Malformed)?;
    let sector = header.sector.get();
    let segment = || {
        if from_driver != DISCARD_BYTES as u64 {
            return None;
        }
        let mut bytes = [0; DISCARD_BYTES];
        read(memory, readable, HEADER_BYTES as u64, &mut bytes);
        DiscardSegment::read_from_bytes(&bytes).ok()
    };
    let command = match header.kind.get() {
        IN => Command::Read { sector },
        OUT => Command::Write { sector },
        FLUSH => Command::Flush,
        GET_ID => Command::GetId,
        DISCARD => Command::Discard { segment: segment() },
        WRITE_ZEROES => Command::WriteZeroes { segment: segment() },
        _ => Command::Unknown,
    };
    Ok((command, layout))
}

impl Layout {
    /// Copies data from the driver, `done` bytes of it being left out, to a device's memory.
    pub(crate) fn copy_out(
        &self,
        memory: &Memory,
        pieces: &[Piece],
        done: u64,
        (into, offset, len): (&mut DmaBuffer, usize, usize),
    ) {
        let start = HEADER_BYTES as u64 + done;
        parts(&pieces[..self.readable_pieces], start..start + len as u64, |span, at| {
            memory.copy_out(span, into, offset + at);
        });
    }

    /// Copies data to the driver, behind the `done` bytes that it has, from a device's memory.
    pub(crate) fn copy_in(
        &self,
        memory: &Memory,
        pieces: &[Piece],
        done: u64,
        (from, range): (&DmaBuffer, &Range<usize>),
    ) {
        let room = done..(done + range.len() as u64).min(self.to_driver);
        parts(&pieces[self.readable_pieces..], room, |span, at| {
            memory.copy_in(span, from, range.start + at);
        });
    }

    /// The memory of `len` bytes of data that the driver writes, or reads, behind the first `done`.
    pub(crate) fn lend(
        &self,
        memory: &Memory,
        pieces: &[Piece],
        to_driver: bool,
        (done, len): (u64, usize),
    ) -> SgList {
        let (readable, writable) = pieces.split_at(self.readable_pieces);
        let (pieces, start) =
            if to_driver { (writable, done) } else { (readable, done + HEADER_BYTES as u64) };
        let mut list = SgList::EMPTY;
        parts(pieces, start..start + len as u64, |span, _| memory.lend(span, &mut list));
        list
    }

    /// Writes bytes to the driver.
    pub(crate) fn write(&self, memory: &Memory, pieces: &[Piece], from: &[u8]) {
        let room = 0..(from.len() as u64).min(self.to_driver);
        parts(&pieces[self.readable_pieces..], room, |span, at| {
            memory.write(span, &from[at..at + span.bytes as usize]);
        });
    }

    /// Writes the status; how many bytes the device could write in all.
    pub(crate) fn finish(&self, memory: &Memory, pieces: &[Piece], status: u8) -> u32 {
        if let Some(Piece { span, .. }) = pieces.last() {
            memory.write(span.part(span.bytes - 1, span.bytes), &[status]);
        }
        u32::try_from(self.to_driver + 1).unwrap_or(u32::MAX)
    }
}
