//! Descriptors, as they are found in rings and tables, and what is made of them.

use crate::error::Violation;
use crate::memory::{Memory, Span};
use outboard_virtio::spec::packed;
use outboard_virtio::spec::split::Descriptor;
use std::ops::Range;
use zerocopy::{FromBytes, IntoBytes};

/// The most pieces of a request: what Linux and QEMU ask for at most, and more than the
/// configuration allows.
pub(crate) const MAX_PIECES: usize = 1024;

/// A piece of a request's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) span: Span,
    /// Whether the device writes it; else it reads it.
    pub(crate) writable: bool,
}

/// Adds the memory of a request that has a single descriptor.
#[inline(always)]
pub(crate) fn add_single(
    pieces: &mut Vec<Piece>,
    memory: &Memory,
    (guest, bytes, flags): (u64, u32, u16),
) -> Result<(), Violation> {
    if bytes == 0 {
        return Err(Violation::Malformed);
    }
    add(pieces, memory, (guest, bytes), flags & Descriptor::WRITE != 0)
}

/// Adds memory, if it is there.
#[inline(always)]
fn add(
    pieces: &mut Vec<Piece>,
    memory: &Memory,
    (guest, bytes): (u64, u32),
    writable: bool,
) -> Result<(), Violation> {
    let Some(span) = memory.span(guest, bytes) else {
        return memory.spans(guest, bytes, &mut |span| pieces.push(Piece { span, writable }));
    };
    pieces.push(Piece { span, writable });
    Ok(())
}

/// A chain of descriptors that is being followed. What they name is put behind what is in a list.
pub(crate) struct Chain<'a> {
    memory: &'a Memory,
    pieces: &'a mut Vec<Piece>,
    /// Where in the list it begins.
    start: usize,
    /// It has come to what the device writes.
    writable: bool,
}

impl<'a> Chain<'a> {
    #[inline]
    pub(crate) const fn new(memory: &'a Memory, pieces: &'a mut Vec<Piece>) -> Self {
        let start = pieces.len();
        Self { memory, pieces, start, writable: false }
    }

    /// Adds a descriptor's memory, if it may be there: not empty, in the memory, and what the device
    /// reads before what it writes (§2.7.4.2).
    #[inline(always)]
    pub(crate) fn add(&mut self, (guest, bytes, flags): (u64, u32, u16)) -> Result<(), Violation> {
        let writable = flags & Descriptor::WRITE != 0;
        if bytes == 0 || self.writable && !writable {
            return Err(Violation::Malformed);
        }
        if self.pieces.len() - self.start >= MAX_PIECES {
            return Err(Violation::Endless);
        }
        self.writable = writable;
        add(self.pieces, self.memory, (guest, bytes), writable)
    }

    /// Adds what a table of a split ring names, from its first descriptor on, and ends with it.
    pub(crate) fn add_split_table(mut self, guest: u64, bytes: u32) -> Result<(), Violation> {
        let table = Table::find(self.memory, guest, bytes)?;
        let mut index = 0;
        for _ in 0..table.entries {
            let found: Descriptor = table.read(index)?;
            let flags = found.flags.get();
            if flags & Descriptor::INDIRECT != 0 {
                return Err(Violation::Malformed);
            }
            self.add((found.address.get(), found.bytes.get(), flags))?;
            if flags & Descriptor::NEXT == 0 {
                return Ok(());
            }
            index = found.next.get();
            if index >= table.entries {
                return Err(Violation::NoDescriptor(index));
            }
        }
        Err(Violation::Endless)
    }

    /// Adds what a table of a packed ring names, and ends with it: all of it, in order (§2.8.7).
    pub(crate) fn add_packed_table(mut self, guest: u64, bytes: u32) -> Result<(), Violation> {
        let table = Table::find(self.memory, guest, bytes)?;
        for index in 0..table.entries {
            let found: packed::Descriptor = table.read(index)?;
            let flags = found.flags.get();
            if flags & Descriptor::INDIRECT != 0 {
                return Err(Violation::Malformed);
            }
            self.add((found.address.get(), found.bytes.get(), flags))?;
        }
        Ok(())
    }
}

/// Calls `part` for each part of the bytes `range` of some pieces, with where it begins in that
/// range.
#[inline]
pub(crate) fn parts(pieces: &[Piece], range: Range<u64>, mut part: impl FnMut(Span, usize)) {
    let mut at = 0;
    for Piece { span, .. } in pieces {
        let end = at + u64::from(span.bytes);
        let (from, to) = (range.start.max(at), range.end.min(end));
        if from < to {
            part(span.part((from - at) as u32, (to - at) as u32), (from - range.start) as usize);
        }
        at = end;
        if at >= range.end {
            break;
        }
    }
}

/// Copies bytes of some pieces out, from byte `from` of them all on.
#[inline]
pub(crate) fn read(memory: &Memory, pieces: &[Piece], from: u64, into: &mut [u8]) {
    let range = from..from + into.len() as u64;
    parts(pieces, range, |span, at| memory.read(span, &mut into[at..at + span.bytes as usize]));
}

/// A table of descriptors in the client's memory.
struct Table<'a> {
    memory: &'a Memory,
    guest: u64,
    /// Where it is, unless it lies in several regions.
    span: Option<Span>,
    entries: u16,
}

impl<'a> Table<'a> {
    /// Finds a table of so many bytes (§2.7.5.3.1).
    #[inline]
    fn find(memory: &'a Memory, guest: u64, bytes: u32) -> Result<Self, Violation> {
        if bytes == 0 || !bytes.is_multiple_of(Descriptor::BYTES as u32) {
            return Err(Violation::Malformed);
        }
        let count = bytes as usize / Descriptor::BYTES;
        if count > MAX_PIECES {
            return Err(Violation::Endless);
        }
        let span = memory.span(guest, bytes);
        if span.is_none() {
            memory.spans(guest, bytes, &mut |_| {})?;
        }
        Ok(Self { memory, guest, span, entries: count as u16 })
    }

    /// Reads a descriptor.
    #[inline]
    fn read<T: FromBytes + IntoBytes>(&self, index: u16) -> Result<T, Violation> {
        let mut found = T::new_zeroed();
        let at = Descriptor::BYTES as u32 * u32::from(index);
        match self.span {
            Some(span) => {
                let one = span.part(at, at + Descriptor::BYTES as u32);
                self.memory.read(one, found.as_mut_bytes());
            }
            None => self.read_split(at, found.as_mut_bytes())?,
        }
        Ok(found)
    }

    /// Reads from a table whose parts lie in several regions, which need not end where a descriptor
    /// does.
    #[cold]
    fn read_split(&self, at: u32, into: &mut [u8]) -> Result<(), Violation> {
        let mut done = 0;
        let guest = self.guest.wrapping_add(at.into());
        self.memory.spans(guest, into.len() as u32, &mut |span| {
            let end = done + span.bytes as usize;
            self.memory.read(span, &mut into[done..end]);
            done = end;
        })
    }
}
