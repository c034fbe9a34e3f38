//! Answers on their way out.

use crate::wire::{Dialect, Reply};

/// Bytes to be sent. They are kept in one piece that grows to what is needed and stays: after a
/// while nothing is allocated or cleared any more.
#[derive(Debug, Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Where small answers are put together.
    scratch: Vec<u8>,
}

/// From this on it is worth moving what is left to the front.
const COMPACT: usize = 64 << 10;

impl Output {
    /// What is to be sent.
    pub(super) fn unsent(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The first bytes were sent.
    pub(super) fn sent(&mut self, count: usize) {
        self.start = self.end.min(self.start + count);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Appends `count` bytes, to be filled in.
    pub(super) fn append(&mut self, count: usize) -> &mut [u8] {
        if self.start >= COMPACT && self.start >= self.end - self.start {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let start = self.end;
        self.end += count;
        if self.bytes.len() < self.end {
            self.bytes.resize(self.end, 0);
        }
        &mut self.bytes[start..self.end]
    }

    /// Appends an answer.
    pub(super) fn reply(&mut self, tag: u16, reply: &Reply<'_>, dialect: Dialect) {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        reply.encode(tag, &mut scratch, dialect);
        self.append(scratch.len()).copy_from_slice(&scratch);
        self.scratch = scratch;
    }
}
