//! Descriptors, as they are found in rings and tables, and what is made of them.

use crate::error::Violation;
use crate::memory::Memory;
use outboard_virtio::spec::split::Descriptor;
use std::ops::Range;
use zerocopy::FromBytes;

/// The most pieces of a request: what Linux and QEMU ask for at most, and more than the
/// configuration allows.
pub(crate) const MAX_PIECES: usize = 1024;

/// A piece of a request's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) guest: u64,
    pub(crate) bytes: u32,
    /// Whether the device writes it; else it reads it.
    pub(crate) writable: bool,
}

/// Adds a descriptor's memory to a request's, if it may be there: not empty, in the memory, and
/// what the device reads before what it writes (§2.7.4.2).
pub(crate) fn add(
    pieces: &mut Vec<Piece>,
    memory: &Memory,
    (guest, bytes, flags): (u64, u32, u16),
) -> Result<(), Violation> {
    let writable = flags & Descriptor::WRITE != 0;
    let late = !writable && pieces.last().is_some_and(|piece| piece.writable);
    if bytes == 0 || late {
        return Err(Violation::Malformed);
    }
    if pieces.len() >= MAX_PIECES {
        return Err(Violation::Endless);
    }
    memory.check(guest, bytes)?;
    pieces.push(Piece { guest, bytes, writable });
    Ok(())
}

/// Calls `part` for each part of the bytes `range` of some pieces, with where it begins in that
/// range.
pub(crate) fn parts(
    pieces: &[Piece],
    range: Range<u64>,
    mut part: impl FnMut(u64, u32, usize) -> Result<(), Violation>,
) -> Result<(), Violation> {
    let mut at = 0;
    for piece in pieces {
        let end = at + u64::from(piece.bytes);
        let (from, to) = (range.start.max(at), range.end.min(end));
        if from < to {
            let guest = piece.guest.wrapping_add(from - at);
            part(guest, (to - from) as u32, (from - range.start) as usize)?;
        }
        at = end;
        if at >= range.end {
            break;
        }
    }
    Ok(())
}

/// Copies bytes of some pieces out, from byte `from` of them all on.
pub(crate) fn read(
    memory: &Memory,
    pieces: &[Piece],
    from: u64,
    into: &mut [u8],
) -> Result<(), Violation> {
    let range = from..from + into.len() as u64;
    parts(pieces, range, |guest, bytes, at| memory.read(guest, &mut into[at..at + bytes as usize]))
}

/// How many descriptors a table of so many bytes has (§2.7.5.3.1).
fn table_entries(bytes: u32) -> Result<u16, Violation> {
    let whole = bytes > 0 && bytes.is_multiple_of(Descriptor::BYTES as u32);
    let count = bytes as usize / Descriptor::BYTES;
    match count {
        _ if !whole => Err(Violation::Malformed),
        0..=MAX_PIECES => Ok(count as u16),
        _ => Err(Violation::Endless),
    }
}

/// Reads a descriptor of a table: address, bytes, flags, and what else its layout has.
fn entry<T: FromBytes>(memory: &Memory, table: u64, index: u16) -> Result<T, Violation> {
    let mut bytes = [0; Descriptor::BYTES];
    let at = table.wrapping_add(Descriptor::BYTES as u64 * u64::from(index));
    memory.read(at, &mut bytes)?;
    T::read_from_bytes(&bytes).map_err(|_| Violation::Malformed)
}

/// Adds what a table of a split ring names, from its first descriptor on.
pub(crate) fn add_split_table(
    pieces: &mut Vec<Piece>,
    memory: &Memory,
    (table, bytes): (u64, u32),
) -> Result<(), Violation> {
    let entries = table_entries(bytes)?;
    memory.check(table, bytes)?;
    let mut index = 0;
    for _ in 0..entries {
        let found: Descriptor = entry(memory, table, index)?;
        let flags = found.flags.get();
        if flags & Descriptor::INDIRECT != 0 {
            return Err(Violation::Malformed);
        }
        add(pieces, memory, (found.address.get(), found.bytes.get(), flags))?;
        if flags & Descriptor::NEXT == 0 {
            return Ok(());
        }
        index = found.next.get();
        if index >= entries {
            return Err(Violation::NoDescriptor(index));
        }
    }
    Err(Violation::Endless)
}

/// Adds what a table of a packed ring names: all of it, in order (§2.8.7).
pub(crate) fn add_packed_table(
    pieces: &mut Vec<Piece>,
    memory: &Memory,
    (table, bytes): (u64, u32),
) -> Result<(), Violation> {
    use outboard_virtio::spec::packed;
    let entries = table_entries(bytes)?;
    memory.check(table, bytes)?;
    for index in 0..entries {
        let found: packed::Descriptor = entry(memory, table, index)?;
        let flags = found.flags.get();
        if flags & Descriptor::INDIRECT != 0 {
            return Err(Violation::Malformed);
        }
        add(pieces, memory, (found.address.get(), found.bytes.get(), flags))?;
    }
    Ok(())
}
