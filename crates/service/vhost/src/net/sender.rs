//! Frames on their way to a card.

use super::card::put_away;
use outboard_hw::dma::DmaBuffer;
use outboard_net::{Frame, NetDriver, RefusedReason};
use std::collections::VecDeque;

/// What sends frames by one of a card's queues.
pub(super) struct Sender<'a> {
    pub(super) driver: &'a mut dyn NetDriver,
    pub(super) queue: u16,
    /// Bytes of each buffer before the frame.
    pub(super) before: usize,
    /// Memory for most frames, and its bytes.
    pub(super) small: (&'a mut VecDeque<Box<Frame>>, usize),
    /// Memory for frames that are to be cut into segments, and its bytes.
    pub(super) large: (&'a mut VecDeque<Box<Frame>>, usize),
    /// Frames that the card is to send.
    pub(super) sending: &'a mut VecDeque<Box<Frame>>,
    pub(super) is_new: &'a mut bool,
}

/// Why there is no memory for a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoMemory {
    /// The card does not take such a frame.
    Never,
    /// All is in use.
    Now,
}

impl Sender<'_> {
    /// For how many frames there is memory, unless they are large.
    pub(super) fn room(&self) -> usize {
        self.small.0.len()
    }

    /// Memory for a frame of so many bytes, with room for what stands before it, at most the longest
    /// header of clients. `fill` copies both to where it is told.
    #[inline]
    pub(super) fn load(
        &mut self,
        header_bytes: usize,
        bytes: usize,
        fill: impl FnOnce(&mut DmaBuffer, usize),
    ) -> Result<Box<Frame>, NoMemory> {
        let end = self.before + bytes;
        let found = if end <= self.small.1 {
            self.small.0.pop_back()
        } else if end <= self.large.1 {
            self.large.0.pop_back()
        } else {
            return Err(NoMemory::Never);
        };
        let mut frame = found.ok_or(NoMemory::Now)?;
        if let Some(buffer) = frame.data.reuse(self.before..end) {
            fill(buffer, self.before - header_bytes);
        }
        Ok(frame)
    }

    /// Where what stands before a frame begins.
    #[inline]
    pub(super) const fn header_at(&self, header_bytes: usize) -> usize {
        self.before - header_bytes
    }

    /// Has a frame sent with the next burst.
    #[inline]
    pub(super) fn add(&mut self, frame: Box<Frame>) {
        self.sending.push_back(frame);
    }

    /// A frame is not sent.
    pub(super) fn put_away(&mut self, frame: Box<Frame>) {
        put_away(frame, self.small.0, (self.large.0, self.large.1));
    }

    /// Passes a burst to the card: how many it does not take, and how many, the last ones, it does not
    /// take now.
    pub(super) fn submit(&mut self) -> (usize, usize) {
        let mut refused = 0;
        let all = self.sending.len();
        while let Err(reason) = self.driver.submit(self.queue, self.sending) {
            if reason == RefusedReason::QueueFull {
                break;
            }
            let Some(frame) = self.sending.pop_front() else { break };
            self.put_away(frame);
            refused += 1;
        }
        let left = self.sending.len();
        *self.is_new |= all > refused + left;
        while let Some(frame) = self.sending.pop_front() {
            self.put_away(frame);
        }
        (refused, left)
    }
}
