//! Going on with a device that was away: what its queues hold is kept for it.
//!
//! It may be another one by now. So before it is shown what is in flight, it is asked who it is, in
//! a queue of its own.

use super::event::Cause;
use super::recovery::{AWAY_STEP, CHECK_STEP, MOST_RESETS, MOST_TRIES};
use super::{Blk, Event, Phase};
use crate::VirtioError;
use crate::queue::Queue;
use crate::spec::status::Status;
use crate::transport::Transport;
use alloc::vec::Vec;
use outboard_block::{FailedReason, UnitState};
use outboard_hw::Instant;

/// Entries of the queue for that question.
const ENTRIES: u16 = 4;

impl<T: Transport> Blk<T> {
    /// Waits for a device that is away. What it had stays in its queues.
    pub(super) fn wait_for_return(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Running | Phase::Greeting) {
            return self.reset(now, Cause::Lost);
        }
        self.events.record(now, Event::Reset(Cause::Lost));
        self.counters.device_resets += 1;
        self.resets += 1;
        if self.resets > MOST_RESETS {
            return self.give_up(now, FailedReason::GivenUp);
        }
        (self.phase, self.check_at, self.identifying_since) = (Phase::Away, Some(now), None);
        if !self.stopping {
            self.set_state(UnitState::Recovering);
        }
    }

    /// Looks whether it is back.
    pub(super) fn advance_return(&mut self, now: Instant) {
        if self.phase != Phase::Away {
            return;
        }
        let is_hopeless = |tries| tries + 1 >= MOST_TRIES;
        if self.transport.status().is_gone() {
            self.give_up(now, FailedReason::Removed);
        } else if self.transport.is_away() && !self.stopping {
            self.check_at = Some(now + AWAY_STEP);
        } else if self.stopping
            || !self.transport.can_resume()
            || self.slots.iter_mut().any(|(_, job)| job.since.is_some() && is_hopeless(job.tries))
            || self.greet(now).is_err()
        {
            self.begin_reset(now);
        }
    }

    /// Sets up no more of it than it takes to ask who it is.
    fn greet(&mut self, now: Instant) -> Result<(), VirtioError> {
        let was = self.features;
        let (status, said) = self.agree()?;
        if self.features != was || self.said != Some(said) {
            return Err(VirtioError::BadConfig("it is not what it was"));
        }
        let features = self.ring_features();
        let queue = match self.greeting.take() {
            Some(queue) => queue,
            None => Queue::new(&*self.transport.dma(), ENTRIES, features)?,
        };
        let queue = self.greeting.insert(queue);
        queue.reset();
        self.transport.enable_queue(0, queue.areas())?;
        self.transport.start()?;
        self.transport.set_status(status | Status::DRIVER_OK);
        self.phase = Phase::Greeting;
        for (_, job) in self.slots.iter_mut().filter(|(_, job)| job.since.is_some()) {
            job.since = Some(now);
        }
        self.ask_for_identity(now);
        Ok(())
    }

    /// Takes its answer.
    pub(super) fn reap_greeting(&mut self, now: Instant) {
        let Some(queue) = &mut self.greeting else { return };
        // Of a device that says something else each time it is looked at, the next look has more.
        let mut taken = queue.take();
        if taken.is_none() && !self.masked && queue.listen() {
            taken = queue.take();
            self.look_again = true;
        }
        match taken {
            Some(Ok(_)) => self.greeted(now),
            Some(Err(why)) => self.reset(now, Cause::Broken(why)),
            None => {}
        }
    }

    /// Shows it what is in flight, if it is who it was.
    fn greeted(&mut self, now: Instant) {
        if !self.says_the_same() {
            return self.give_up(now, FailedReason::Changed);
        }
        let queues: Vec<_> =
            self.queues.iter().map(|queue| (queue.areas(), queue.resume_at())).collect();
        self.transport.resume(&queues);
        let mut requests = 0;
        for (_, job) in self.slots.iter_mut().filter(|(_, job)| job.since.is_some()) {
            (job.since, job.tries, requests) = (Some(now), job.tries + 1, requests + 1);
        }
        self.counters.resumed += requests;
        self.events.record(now, Event::Resumed { requests });
        self.is_ready(now);
        if self.phase == Phase::Running && requests > 0 {
            self.check_at = Some(now + CHECK_STEP);
        }
        // Whatever was told of before is told of by nobody any more.
        self.look_again = true;
    }
}
