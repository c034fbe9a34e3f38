//! Buffers of a client's, into which frames go.

use super::session::Agreed;
use crate::chain::{Piece, parts};
use crate::error::Violation;
use crate::memory::{Memory, Span};
use crate::ring::{Head, Ring, Taken};
use outboard_hw::dma::DmaBuffer;

/// Buffers that were taken out of a ring.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    taken: Vec<Taken>,
    pieces: Vec<Piece>,
    /// So many have frames in them.
    used: usize,
    /// Reused: those of one frame, with how many of its bytes are in each.
    together: Vec<(Head, u32)>,
}

impl Buffers {
    #[inline(always)]
    fn pieces(&self, index: usize) -> &[Piece] {
        let start = if index == 0 { 0 } else { self.taken[index - 1].end };
        &self.pieces[start..self.taken[index].end]
    }
}

/// What a frame finds in a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// Enough: so many buffers.
    Enough(u16),
    /// The frame has to wait for more.
    Short,
    /// It never fits.
    Never,
}

/// A frame with what stands before it, as it is copied.
pub(super) enum Whole<'a> {
    /// In a card's buffer, from a byte on.
    Buffer(&'a DmaBuffer, usize),
    /// In ordinary memory.
    Bytes(&'a [u8]),
}

/// A ring into which frames go.
pub(super) struct Inlet<'a> {
    ring: &'a mut Ring,
    memory: &'a Memory,
    buffers: &'a mut Buffers,
    agreed: Agreed,
    /// A frame waits for more buffers than there are.
    is_short: bool,
}

impl<'a> Inlet<'a> {
    /// Takes buffers for so many frames.
    pub(super) fn new(
        ring: &'a mut Ring,
        memory: &'a Memory,
        buffers: &'a mut Buffers,
        (agreed, frames): (Agreed, usize),
    ) -> Result<Self, Violation> {
        buffers.taken.clear();
        buffers.pieces.clear();
        buffers.used = 0;
        let mut inlet = Self { ring, memory, buffers, agreed, is_short: false };
        inlet.take(frames)?;
        Ok(inlet)
    }

    fn take(&mut self, most: usize) -> Result<(), Violation> {
        let Buffers { taken, pieces, .. } = &mut *self.buffers;
        let before = taken.len();
        self.ring.take(self.memory, pieces, taken, most)?;
        if taken.len() > before {
            self.ring.ignore();
        }
        Ok(())
    }

    /// How many bytes go into a buffer. `None` if the ring has no more.
    #[inline]
    fn bytes(&mut self, index: usize) -> Result<Option<u64>, Violation> {
        if index == self.buffers.taken.len() {
            self.take(1)?;
            if index == self.buffers.taken.len() {
                return Ok(None);
            }
        }
        let pieces = self.buffers.pieces(index);
        let sum = match pieces {
            [one] => one.span.bytes.into(),
            _ => pieces.iter().map(|piece| u64::from(piece.span.bytes)).sum(),
        };
        let writable = pieces.first().is_some_and(|piece| piece.writable);
        if !writable || sum < self.agreed.header_bytes as u64 {
            return Err(Violation::Malformed);
        }
        Ok(Some(sum))
    }

    /// Finds as many buffers as so many bytes need (§5.1.6.3.1): one, unless frames may take several.
    #[inline]
    pub(super) fn find(&mut self, bytes: usize) -> Result<Room, Violation> {
        let (mut count, mut left) = (0, bytes as u64);
        loop {
            let Some(room) = self.bytes(self.buffers.used + usize::from(count))? else {
                self.is_short |= count > 0;
                return Ok(Room::Short);
            };
            count += 1;
            if room >= left {
                return Ok(Room::Enough(count));
            }
            if !self.agreed.merges {
                return Ok(Room::Never);
            }
            left -= room;
        }
    }

    /// Puts a frame into the buffers that were found for it.
    #[inline]
    pub(super) fn put(&mut self, whole: &Whole<'_>, bytes: usize, count: u16) {
        let Self { ring, memory, buffers, .. } = self;
        let first = buffers.used;
        buffers.used += usize::from(count);
        if let (1, [one]) = (count, buffers.pieces(first)) {
            copy(memory, one.span.part(0, bytes as u32), whole, 0);
            ring.push(buffers.taken[first].head, bytes as u32);
            return;
        }
        self.put_apart(whole, bytes, first);
    }

    /// Likewise, into several buffers, or pieces.
    fn put_apart(&mut self, whole: &Whole<'_>, bytes: usize, first: usize) {
        let mut together = std::mem::take(&mut self.buffers.together);
        let mut done = 0;
        for index in first..self.buffers.used {
            let pieces = self.buffers.pieces(index);
            let start = done;
            parts(pieces, 0..(bytes - start) as u64, |span, at| {
                copy(self.memory, span, whole, start + at);
                done = start + at + span.bytes as usize;
            });
            together.push((self.buffers.taken[index].head, (done - start) as u32));
        }
        debug_assert_eq!(done, bytes);
        self.ring.push_together(&together);
        together.clear();
        self.buffers.together = together;
    }

    /// Gives back the buffers that no frame is in, and shows the others; whether a frame waits for more
    /// than there are.
    pub(super) fn finish(self) -> bool {
        let unused = &self.buffers.taken[self.buffers.used..];
        unused.iter().rev().for_each(|buffer| self.ring.unpop(buffer.head));
        self.ring.show();
        self.is_short
    }
}

/// Fills a span with bytes of a frame, from byte `at` on.
#[inline]
fn copy(memory: &Memory, span: Span, whole: &Whole<'_>, at: usize) {
    match whole {
        Whole::Buffer(buffer, start) => memory.copy_in(span, buffer, start + at),
        Whole::Bytes(bytes) => memory.write(span, &bytes[at..at + span.bytes as usize]),
    }
}
