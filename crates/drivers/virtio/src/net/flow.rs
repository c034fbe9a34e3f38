//! Accepting buffers and frames, and showing them to the device.

use super::{Net, not_ready};
use crate::queue::Queue;
use crate::recovery::CHECK_STEP;
use crate::spec::net::{receive_queue, transmit_queue};
use crate::transport::Transport;
use core::time::Duration;
use outboard_hw::Instant;
use outboard_hw::dma::Segment;
use outboard_net::{
    ETHERNET_HEADER_BYTES, Frame, InterfaceState, MAX_SEGMENTED_BYTES, Posted, Refused,
    RefusedReason, Tag, Unposted,
};

/// How long a frame that was sent may stay with the driver if nothing else happens: no interrupt
/// comes for it.
pub(super) const SENT_STEP: Duration = Duration::from_millis(10);

impl<T: Transport> Net<T> {
    #[inline]
    pub(super) fn take_buffer(&mut self, queue: u16, buffer: Posted) -> Result<(), Unposted> {
        let queues = self.interface.shape.queues;
        let least = self.interface.shape.least_buffer_bytes;
        let reason = match (self.interface.state, self.pairs.get_mut(usize::from(queue))) {
            (InterfaceState::Ready, Some(_)) if buffer.buffer.len() < least => {
                RefusedReason::BadMemory
            }
            (InterfaceState::Ready, Some(pair)) => {
                let queue_full = |buffer| Unposted { reason: RefusedReason::QueueFull, buffer };
                return pair.receive.post(buffer).map_err(queue_full);
            }
            (InterfaceState::Ready, None) => RefusedReason::NoQueue { queues },
            (state, _) => not_ready(state),
        };
        Err(Unposted { reason, buffer })
    }

    #[inline]
    pub(super) fn accept(&mut self, queue: u16, tag: Tag, mut frame: Frame) -> Result<(), Refused> {
        if self.is_plain(&frame)
            && let Some(pair) = self.pairs.get_mut(usize::from(queue))
            && let Some(place) = pair.transmit.add_plain(&mut frame.data)
        {
            place.begin(tag, frame.data);
            return Ok(());
        }
        self.accept_any(queue, tag, frame)
    }

    #[inline(never)]
    fn accept_any(&mut self, queue: u16, tag: Tag, frame: Frame) -> Result<(), Refused> {
        if let Err(reason) = self.check(&frame) {
            return Err(frame.refused(reason));
        }
        match self.pairs.get_mut(usize::from(queue)) {
            Some(pair) => {
                let put = pair.transmit.put(tag, frame, &self.constraints);
                put.map_err(|frame| frame.refused(RefusedReason::QueueFull))
            }
            None => {
                let queues = self.interface.shape.queues;
                Err(frame.refused(RefusedReason::NoQueue { queues }))
            }
        }
    }

    /// Whether it is a frame in one piece with which nothing is wrong and nothing is to be done, as most
    /// are: one that [`check`](Self::check) has nothing to say against, at less cost.
    #[inline]
    fn is_plain(&self, frame: &Frame) -> bool {
        let Some(Segment { bytes, .. }) = frame.data.single_segment() else { return false };
        let most = self.interface.shape.max_frame_bytes() as u64;
        self.interface.state == InterfaceState::Ready
            && frame.work.is_none()
            && (ETHERNET_HEADER_BYTES as u64..=most).contains(&bytes)
    }

    fn check(&self, frame: &Frame) -> Result<(), RefusedReason> {
        if self.interface.state != InterfaceState::Ready {
            return Err(not_ready(self.interface.state));
        }
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
            let mut publish = |number: u16, queue: &mut Queue| {
                self.counters.kicks += 1;
                if queue.publish() {
                    self.counters.notifications += 1;
                    self.transport.notify(number, queue.next_entry());
                }
            };
            if pair.receive.queue.has_new() {
                any = true;
                publish(receive_queue(number), &mut pair.receive.queue);
            }
            if pair.transmit.queue.has_new() {
                any = true;
                publish(transmit_queue(number), &mut pair.transmit.queue);
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
