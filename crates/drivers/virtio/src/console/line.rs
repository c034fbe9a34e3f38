//! The memory of one queue: as many buffers as it has entries, all of the same size.

use crate::queue::{Broken, Piece, Queue};
use alloc::collections::VecDeque;
use outboard_hw::dma::{Constraints, DmaBuffer, DmaError, DmaSpace, Segment};

/// Which way the bytes of a queue go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    FromDevice,
    ToDevice,
}

/// What a buffer holds that the device has filled.
#[derive(Debug, Clone, Copy)]
struct Received {
    buffer: u16,
    /// The bytes that were not read yet.
    start: usize,
    end: usize,
}

/// The buffers of a queue.
#[derive(Debug)]
pub(super) struct Line {
    memory: DmaBuffer,
    way: Way,
    buffer_bytes: usize,
    buffers: u16,
    /// Buffers that neither side has.
    free: VecDeque<u16>,
    received: VecDeque<Received>,
}

impl Line {
    pub(super) fn new(
        dma: &dyn DmaSpace,
        way: Way,
        buffers: u16,
        buffer_bytes: usize,
    ) -> Result<Self, DmaError> {
        let memory = dma.allocate(buffer_bytes * usize::from(buffers), &Constraints::NONE)?;
        let (free, received) = ((0..buffers).collect(), VecDeque::with_capacity(buffers.into()));
        Ok(Self { memory, way, buffer_bytes, buffers, free, received })
    }

    /// The device was reset: it has no buffer any more. What was received stays.
    pub(super) fn restart(&mut self) {
        let received = &self.received;
        let held = |buffer: &u16| received.iter().any(|one| one.buffer == *buffer);
        self.free.clear();
        self.free.extend((0..self.buffers).filter(|buffer| !held(buffer)));
    }

    fn at(&self, buffer: u16) -> usize {
        self.buffer_bytes * usize::from(buffer)
    }

    fn add(&self, queue: &mut Queue, buffer: u16, bytes: usize) -> bool {
        let address = self.memory.address_of(self.at(buffer));
        let segment = Segment { address, bytes: bytes as u64 };
        let piece = Piece { segment, writable: self.way == Way::FromDevice };
        queue.add(buffer, 1, core::iter::once(piece)).is_ok()
    }

    /// Gives the device all free buffers to fill; whether there were any.
    pub(super) fn offer(&mut self, queue: &mut Queue) -> bool {
        let mut offered = false;
        while let Some(buffer) = self.free.front().copied() {
            if !self.add(queue, buffer, self.buffer_bytes) {
                break;
            }
            self.free.pop_front();
            offered = true;
        }
        offered
    }

    /// Gives the device bytes, as many as there is room for; how many that were.
    pub(super) fn send(&mut self, queue: &mut Queue, bytes: &[u8]) -> usize {
        let mut sent = 0;
        for piece in bytes.chunks(self.buffer_bytes) {
            let Some(buffer) = self.free.front().copied() else { break };
            let at = self.at(buffer);
            self.memory.write_bytes(at, piece);
            self.memory.sync_for_device(at..at + piece.len());
            if !self.add(queue, buffer, piece.len()) {
                break;
            }
            self.free.pop_front();
            sent += piece.len();
        }
        sent
    }

    /// Whether all buffers are here.
    pub(super) fn is_idle(&self) -> bool {
        self.free.len() == usize::from(self.buffers)
    }

    /// Takes a buffer back from the device; whether there was one.
    pub(super) fn take(&mut self, queue: &mut Queue) -> Result<bool, Broken> {
        let Some(used) = queue.take().transpose()? else { return Ok(false) };
        match self.way {
            Way::ToDevice => self.free.push_back(used.token),
            Way::FromDevice => {
                let (at, end) = (self.at(used.token), used.bytes as usize);
                self.memory.sync_for_cpu(at..at + end);
                self.received.push_back(Received { buffer: used.token, start: 0, end });
            }
        }
        Ok(true)
    }

    /// Copies out what was received, in order; how many bytes.
    pub(super) fn read(&mut self, into: &mut [u8]) -> usize {
        let mut read = 0;
        while let Some(received) = self.received.front_mut() {
            let count = (received.end - received.start).min(into.len() - read);
            let at = self.buffer_bytes * usize::from(received.buffer) + received.start;
            self.memory.read_bytes(at, &mut into[read..read + count]);
            (read, received.start) = (read + count, received.start + count);
            if received.start < received.end {
                break;
            }
            self.free.push_back(received.buffer);
            self.received.pop_front();
        }
        read
    }

    /// Copies out the next buffer that was received, as far as it fits; how many bytes it had.
    pub(super) fn read_one(&mut self, into: &mut [u8]) -> Option<usize> {
        let received = self.received.pop_front()?;
        let count = received.end.min(into.len());
        self.memory.read_bytes(self.at(received.buffer), &mut into[..count]);
        self.free.push_back(received.buffer);
        Some(count)
    }

    /// Whether there is something to read.
    pub(super) fn has_received(&self) -> bool {
        self.received.iter().any(|received| received.start < received.end)
    }
}
