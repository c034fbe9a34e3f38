//! Accepting buffers and frames, and showing them to the device.

use super::counters::Counters;
use super::{Net, not_ready};
use crate::queue::{Queue, Token};
use crate::recovery::CHECK_STEP;
use crate::spec::net::{receive_queue, transmit_queue};
use crate::transport::Transport;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::time::Duration;
use outboard_hw::Instant;
use outboard_net::{
    ETHERNET_HEADER_BYTES, Frame, InterfaceState, MAX_SEGMENTED_BYTES, Posted, RefusedReason,
};

/// How long a frame that was sent may stay with the driver if nothing else happens: no interrupt
/// comes for it.
pub(super) const SENT_STEP: Duration = Duration::from_millis(10);

impl<T: Transport> Net<T> {
    pub(super) fn take_buffers(
        &mut self,
        queue: u16,
        buffers: &mut VecDeque<Box<Posted>>,
    ) -> Result<(), RefusedReason> {
        if buffers.is_empty() {
            return Ok(());
        }
        self.check_ready(queue)?;
        let least = self.interface.shape.least_buffer_bytes;
        self.pairs[usize::from(queue)].receive.post(buffers, least)
    }

    pub(super) fn take_frames(
        &mut self,
        queue: u16,
        frames: &mut VecDeque<Box<Frame>>,
    ) -> Result<(), RefusedReason> {
        while !frames.is_empty() {
            self.check_ready(queue)?;
            let most = self.interface.shape.max_frame_bytes();
            let transmit = &mut self.pairs[usize::from(queue)].transmit;
            self.counters.bytes_sent += transmit.put_plain(frames, most);
            let Some(frame) = frames.pop_front() else { break };
            if let Err((reason, frame)) = self.take_any(queue, frame) {
                frames.push_front(frame);
                return Err(reason);
            }
        }
        Ok(())
    }

    /// Takes a frame that may be special.
    fn take_any(
        &mut self,
        queue: u16,
        frame: Box<Frame>,
    ) -> Result<(), (RefusedReason, Box<Frame>)> {
        if let Err(reason) = self.check(&frame) {
            return Err((reason, frame));
        }
        let bytes = frame.data.bytes() as u64;
        let transmit = &mut self.pairs[usize::from(queue)].transmit;
        let put = transmit.put(frame, &self.constraints);
        put.map_err(|frame| (RefusedReason::QueueFull, frame))?;
        self.counters.bytes_sent += bytes;
        Ok(())
    }

    /// Whether there is such a queue, and may be used.
    fn check_ready(&self, queue: u16) -> Result<(), RefusedReason> {
        if self.interface.state != InterfaceState::Ready {
            return Err(not_ready(self.interface.state));
        }
        let exists = usize::from(queue) < self.pairs.len();
        let queues = self.interface.shape.queues;
        if exists { Ok(()) } else { Err(RefusedReason::NoQueue { queues }) }
    }

    /// Whether a frame can be sent that may be special.
    fn check(&self, frame: &Frame) -> Result<(), RefusedReason> {
        let bytes = frame.data.bytes();
        let mut most = self.interface.shape.max_frame_bytes();
        if !frame.work.is_none() {
            if !self.interface.capabilities.transmit.contains(frame.work.needs())
                || !frame.work.suits(bytes)
            {
                return Err(RefusedReason::BadWork);
            }
            if frame.work.segmentation.is_some() {
                most = MAX_SEGMENTED_BYTES;
            }
        }
        if bytes < ETHERNET_HEADER_BYTES || bytes > most {
            return Err(RefusedReason::BadLength { most });
        }
        if frame.data.single_segment().is_none() {
            frame.data.check(&self.constraints).map_err(|_| RefusedReason::BadMemory)?;
        }
        Ok(())
    }

    /// Shows the device what was queued, of all queues.
    pub(super) fn show(&mut self, now: Instant) {
        if !self.is_up() {
            return;
        }
        let mut any = false;
        for (number, pair) in (0..).zip(&mut self.pairs) {
            let (transport, counters) = (&mut self.transport, &mut self.counters);
            if pair.receive.queue.has_new() {
                any = true;
                publish(transport, receive_queue(number), &mut pair.receive.queue, counters);
            }
            if pair.transmit.queue.has_new() {
                any = true;
                publish(transport, transmit_queue(number), &mut pair.transmit.queue, counters);
                pair.transmit.since.get_or_insert(now);
                if !self.masked {
                    self.look_again |= pair.transmit.listen_if_full();
                }
                self.sent_at.get_or_insert(now + SENT_STEP);
            }
        }
        if any && self.check_at.is_none() {
            self.check_at = Some(now + CHECK_STEP);
        }
    }
}

/// Shows the device what was added to a queue, and tells it, if it wants to be told.
fn publish<T: Token>(
    transport: &mut impl Transport,
    number: u16,
    queue: &mut Queue<T>,
    counters: &mut Counters,
) {
    counters.kicks += 1;
    if queue.publish() {
        counters.notifications += 1;
        transport.notify(number, queue.next_entry());
    }
}
