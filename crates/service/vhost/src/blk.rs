//! What a request wants (§5.2.6).

use crate::chain::{Piece, parts, read};
use crate::memory::Memory;
use outboard_hw::dma::{DmaBuffer, SgList};
use outboard_virtio::spec::blk::{
    DISCARD, DISCARD_BYTES, DiscardSegment, FLUSH, GET_ID, HEADER_BYTES, Header, IN, OUT,
    WRITE_ZEROES,
};
use std::ops::Range;
use zerocopy::{FromBytes, IntoBytes};

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

/// Reads what a request wants; `None` if it has no header or no place for its status. What the device
/// reads comes before what it writes.
#[inline]
pub(crate) fn parse(memory: &Memory, pieces: &[Piece]) -> Option<(Command, Layout)> {
    let mut layout = Layout::default();
    for Piece { span, writable } in pieces {
        let bytes = u64::from(span.bytes);
        if *writable {
            layout.to_driver += bytes;
        } else {
            layout.from_driver += bytes;
            layout.readable_pieces += 1;
        }
    }
    layout.from_driver = layout.from_driver.checked_sub(HEADER_BYTES as u64)?;
    layout.to_driver = layout.to_driver.checked_sub(1)?;
    let header = match pieces.first() {
        // It need not lie in one piece, but mostly does.
        Some(Piece { span, .. }) if span.bytes as usize >= HEADER_BYTES => memory.value(*span),
        _ => pieced(memory, &pieces[..layout.readable_pieces], 0),
    };
    let Header { kind, sector, .. } = header;
    let sector = sector.get();
    let command = match kind.get() {
        IN => Command::Read { sector },
        OUT => Command::Write { sector },
        FLUSH => Command::Flush,
        GET_ID => Command::GetId,
        DISCARD => Command::Discard { segment: layout.segment(memory, pieces) },
        WRITE_ZEROES => Command::WriteZeroes { segment: layout.segment(memory, pieces) },
        _ => Command::Unknown,
    };
    Some((command, layout))
}

/// Copies a plain value out of some pieces, from byte `from` of them all on.
#[cold]
fn pieced<T: FromBytes + IntoBytes>(memory: &Memory, pieces: &[Piece], from: u64) -> T {
    let mut value = T::new_zeroed();
    read(memory, pieces, from, value.as_mut_bytes());
    value
}

impl Layout {
    /// What a discard is about, if that is there.
    #[cold]
    fn segment(&self, memory: &Memory, pieces: &[Piece]) -> Option<DiscardSegment> {
        let readable = &pieces[..self.readable_pieces];
        let fits = self.from_driver == DISCARD_BYTES as u64;
        fits.then(|| pieced(memory, readable, HEADER_BYTES as u64))
    }

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
    #[inline]
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
        // Nearly always all of it is in one piece.
        let mut range = start..start + len as u64;
        for Piece { span, .. } in pieces {
            let bytes = u64::from(span.bytes);
            if range.end <= bytes {
                return memory.lend_one(span.part(range.start as u32, range.end as u32));
            }
            if range.start < bytes {
                break;
            }
            range = range.start - bytes..range.end - bytes;
        }
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
    #[inline]
    pub(crate) fn finish(&self, memory: &Memory, pieces: &[Piece], status: u8) -> u32 {
        if let Some(Piece { span, .. }) = pieces.last() {
            memory.write(span.part(span.bytes - 1, span.bytes), &[status]);
        }
        u32::try_from(self.to_driver + 1).unwrap_or(u32::MAX)
    }
}
