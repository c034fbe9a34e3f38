//! Time, trouble and the end.

use super::event::Cause;
use super::slots::{Job, Stage};
use super::{Blk, Event, Phase};
use crate::sabotage::Sabotage;
use crate::spec::blk::BlkFeatures;
use crate::spec::status::Status;
use crate::transport::Transport;
use core::time::Duration;
use outboard_block::{BlockError, Completion, FailedReason, UnitState};
use outboard_hw::Instant;

/// How often a device that is being reset is looked at.
pub(super) const RESET_STEP: Duration = Duration::from_millis(1);
/// How often it is asked for a device that is away.
pub(super) const AWAY_STEP: Duration = Duration::from_millis(10);
/// How often a device that has something to do is looked at, interrupt or not.
pub(super) const CHECK_STEP: Duration = Duration::from_secs(1);
/// How often a request is issued in all.
pub(super) const MOST_TRIES: u8 = 3;
/// How often a device is reset before it is given up, if no request ends well between.
pub(super) const MOST_RESETS: u8 = 5;

impl<T: Transport> Blk<T> {
    pub(super) fn deadline(&self) -> Option<Instant> {
        let at_once = match self.phase {
            Phase::Resetting { .. }
            | Phase::ResettingQueue { .. }
            | Phase::Closing { .. }
            | Phase::Away => self.check_at.is_none(),
            Phase::Identifying | Phase::Greeting => self.look_again || self.may_close(),
            Phase::Running => self.look_again || self.may_close() || !self.own.is_empty(),
            Phase::Ended => self.slots.in_use() > 0 && self.does(Sabotage::Removal),
        };
        let checks = self.phase != Phase::Running || self.does(Sabotage::CheckUps);
        if at_once { Some(Instant::ORIGIN) } else { self.check_at.filter(|_| checks) }
    }

    /// Goes on with what waits for a reset.
    pub(super) fn advance(&mut self, now: Instant, done: &mut dyn FnMut(Completion)) {
        let (Phase::Resetting { until } | Phase::Closing { until }) = self.phase else { return };
        let closing = matches!(self.phase, Phase::Closing { .. });
        let status = self.device_status();
        if status.is_gone() {
            return self.give_up(now, FailedReason::Removed);
        }
        if status.is_empty() {
            if closing || self.stopping {
                (self.phase, self.check_at) = (Phase::Ended, None);
            } else if self.transport.is_away() {
                self.check_at = Some(now + AWAY_STEP);
            } else {
                self.check_at = None;
                self.end_hopeless(now, done);
                self.bring_up(now);
            }
            return;
        }
        if !self.does(Sabotage::Ownership) {
            self.end_hopeless(now, done);
        }
        if until == Instant::from_nanos(u64::MAX) {
            self.phase = Phase::Resetting { until: now + self.config.reset_time };
        } else if now.reached(until) {
            return self.give_up(now, FailedReason::GivenUp);
        }
        self.check_at = Some(now + RESET_STEP);
    }

    /// Looks at what the device says of itself.
    pub(super) fn look_at_device(&mut self, now: Instant) {
        if self.is_well(now) {
            self.configuration_changed(now);
        }
    }

    /// What the device says of its state. What reads as ones is read twice: a device that is gone
    /// says nothing else.
    pub(super) fn device_status(&self) -> Status {
        let status = self.transport.status();
        if status.is_gone() { self.transport.status() } else { status }
    }

    /// Whether the device is where the driver has brought it; if not, something is done about it.
    pub(super) fn is_well(&mut self, now: Instant) -> bool {
        let status = self.device_status();
        if status.is_gone() {
            self.give_up(now, FailedReason::Removed);
        } else if status.contains(Status::NEEDS_RESET) && self.does(Sabotage::Wishes) {
            self.reset_as_asked(now);
        } else if !status.contains(Status::DRIVER_OK) && self.does(Sabotage::Losses) {
            self.reset(now, Cause::Forgot);
        } else {
            return true;
        }
        false
    }

    /// Looks whether a request is overdue.
    pub(super) fn check_time(&mut self, now: Instant) {
        if !self.is_up() || self.check_at.is_none_or(|at| !now.reached(at)) {
            return;
        }
        if !self.is_well(now) {
            return;
        }
        let asked = self.identifying_since.map(|since| (since, 0));
        let since = |(_, job): (_, &mut Job)| Some((job.since?, job.queue));
        let oldest = self.slots.iter_mut().filter_map(since).chain(asked).min();
        match oldest {
            Some((since, queue))
                if now.reached(since + self.config.request_time)
                    && self.does(Sabotage::Deadlines) =>
            {
                self.counters.timeouts += 1;
                self.recover(now, queue, Cause::Overdue);
            }
            Some(_) => self.check_at = Some(now + CHECK_STEP),
            None => self.check_at = None,
        }
    }

    /// Resets a device whose status asks for it.
    fn reset_as_asked(&mut self, now: Instant) {
        if self.transport.is_away() {
            self.wait_for_return(now);
        } else {
            self.reset(now, Cause::Wish);
        }
    }

    /// Resets the device. What it has is issued again once it is back, in the order in which it was
    /// accepted.
    pub(super) fn reset(&mut self, now: Instant, cause: Cause) {
        self.events.record(now, Event::Reset(cause));
        self.counters.device_resets += 1;
        self.resets += 1;
        self.begin_reset(now);
    }

    pub(super) fn begin_reset(&mut self, now: Instant) {
        self.look_for_loss();
        self.transport.set_status(Status::empty());
        if self.resets > MOST_RESETS {
            return self.give_up(now, FailedReason::GivenUp);
        }
        self.phase = Phase::Resetting { until: now + self.config.reset_time };
        self.check_at = Some(now);
        self.identifying_since = None;
        // One that nobody knows yet is still starting.
        if !self.stopping && self.is_known() {
            self.set_state(UnitState::Recovering);
        }
        self.take_back(|_| true);
    }

    /// Before the driver resets it: if the device has lost its state by itself, it may as well have
    /// lost what was in its cache.
    fn look_for_loss(&mut self) {
        let worked = self.is_up() || matches!(self.phase, Phase::ResettingQueue { .. });
        let notices = self.does(Sabotage::Losses);
        if worked
            && notices
            && !self.transport.is_away()
            && !self.device_status().contains(Status::DRIVER_OK)
        {
            self.cache_in_doubt = self.has(BlkFeatures::FLUSH);
        }
        if !self.does(Sabotage::DurableWrites) {
            return;
        }
        for (_, job) in self.slots.iter_mut() {
            // What only had to be flushed is written once more.
            job.stage = Stage::Main;
        }
    }

    /// Takes requests that the device has lost or is going to lose back among those that wait, in
    /// the order in which they were accepted.
    pub(super) fn take_back(&mut self, lost: impl Fn(&Job) -> bool) {
        for (_, job) in self.slots.iter_mut().filter(|(_, job)| lost(job)) {
            if job.since.take().is_some() {
                job.tries += 1;
                self.counters.requeued += 1;
            }
        }
        self.waiting.clear();
        let own = &self.own;
        let waits = |(slot, job): &(u16, &mut Job)| job.since.is_none() && !own.contains(slot);
        let slots = self.slots.iter_mut().filter(waits);
        self.waiting.extend(slots.map(|(slot, _)| slot));
        let number = |slot: &u16| self.slots.peek(*slot).map(|job| job.number);
        self.waiting.sort_by_key(number);
    }

    /// Ends what was tried too often, of a device that was reset: it lets go of memory only then.
    pub(super) fn end_hopeless(&mut self, now: Instant, done: &mut dyn FnMut(Completion)) {
        let most = MOST_TRIES - u8::from(!self.does(Sabotage::Attempts));
        for slot in 0..self.slots.own() {
            if self.slots.peek(slot).is_none_or(|job| job.tries < most) {
                continue;
            }
            self.waiting.retain(|waiting| *waiting != slot);
            self.complete(now, slot, Err(BlockError::Timeout), done);
        }
    }

    /// Ends all requests: the device is at rest, or lost.
    pub(super) fn fail_all(&mut self, now: Instant, done: &mut dyn FnMut(Completion)) {
        self.waiting.clear();
        self.own.clear();
        for slot in 0..self.slots.own() {
            self.complete(now, slot, Err(BlockError::Gone), done);
        }
    }

    fn may_close(&self) -> bool {
        self.stopping && self.is_idle()
    }

    /// Brings the device to rest, once nothing is left to do and that was asked for.
    pub(super) fn begin_close(&mut self, now: Instant, done: &mut dyn FnMut(Completion)) {
        if self.may_close() {
            self.transport.set_status(Status::empty());
            self.phase = Phase::Closing { until: now + self.config.reset_time };
            self.check_at = Some(now);
            self.advance(now, done);
        }
    }
}
