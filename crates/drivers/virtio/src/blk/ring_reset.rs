//! Resetting one queue, where that helps, before the whole device is reset (§2.6.1).
//!
//! It is left alone unless it is asked for ([`BlkConfig::without`](super::BlkConfig::without)):
//! QEMU's disks (7.2) offer it, say at once that the queue is at rest, and go on with the requests
//! that it had. These then end under the names of requests that were issued after the reset.

use super::event::Cause;
use super::recovery::RESET_STEP;
use super::{Blk, Event, Phase};
use crate::spec::features::Features;
use crate::transport::Transport;
use outboard_block::Completion;
use outboard_hw::Instant;

impl<T: Transport> Blk<T> {
    /// A queue is broken, or one of its requests is overdue: resets the queue if the device can do
    /// that and it was not tried since the last request that ended well, else the device.
    pub(super) fn recover(&mut self, now: Instant, queue: u16, cause: Cause) {
        let alone = self.ring_features().contains(Features::RING_RESET);
        if !alone || self.resets > 0 || self.phase != Phase::Running {
            return self.reset(now, cause);
        }
        self.events.record(now, Event::QueueReset { queue, cause });
        self.counters.queue_resets += 1;
        self.resets += 1;
        self.transport.reset_queue(queue);
        self.phase = Phase::ResettingQueue { queue, until: now + self.config.reset_time };
        self.check_at = Some(now);
    }

    /// Goes on with what waits for the reset of a queue. What the queue had is issued again, as
    /// after a reset of the device; the memory is the device's until then.
    pub(super) fn advance_queue(&mut self, now: Instant, done: &mut dyn FnMut(Completion)) {
        let Phase::ResettingQueue { queue, until } = self.phase else { return };
        if !self.is_well(now) {
            return;
        }
        if !self.transport.is_queue_reset(queue) {
            match now.reached(until) {
                true => self.reset(now, Cause::Overdue),
                false => self.check_at = Some(now + RESET_STEP),
            }
            return;
        }
        let ring = &mut self.queues[usize::from(queue)];
        ring.reset();
        let areas = ring.areas();
        if self.transport.enable_queue(queue, areas).is_err() {
            return self.reset(now, Cause::Overdue);
        }
        self.take_back(|job| job.queue == queue);
        self.end_hopeless(now, done);
        (self.phase, self.check_at) = (Phase::Running, Some(now + RESET_STEP));
    }
}
