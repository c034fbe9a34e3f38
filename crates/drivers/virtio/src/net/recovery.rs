//! Time, trouble and the end.

use super::{Event, Net, Phase};
use crate::recovery::{
    AWAY_STEP, CHECK_STEP, MOST_RESETS, Progress, RESET_STEP, Reset, ResetCause,
};
use crate::spec::status::Status;
use crate::transport::Transport;
use outboard_hw::Instant;
use outboard_hw::time::earlier;
use outboard_net::{Completions, FailedReason, InterfaceState};

impl<T: Transport> Net<T> {
    pub(super) fn deadline(&self) -> Option<Instant> {
        let at_once = match self.phase {
            Phase::Resetting(_) | Phase::Closing(_) => self.check_at.is_none(),
            Phase::Settling | Phase::Running => self.look_again || self.stopping,
            Phase::Ended => self.holds_memory(),
        };
        if at_once { Some(Instant::ORIGIN) } else { earlier(self.check_at, self.sent_at) }
    }

    /// Goes on with what waits for a reset.
    pub(super) fn advance(&mut self, now: Instant, done: &mut Completions) {
        let (Phase::Resetting(mut reset) | Phase::Closing(mut reset)) = self.phase else { return };
        let closing = matches!(self.phase, Phase::Closing(_));
        match reset.look(&self.transport, now, self.config.reset_time) {
            Progress::Gone => self.give_up(now, FailedReason::Removed),
            Progress::Stuck => self.give_up(now, FailedReason::GivenUp),
            Progress::UnderWay => {
                self.phase = if closing { Phase::Closing(reset) } else { Phase::Resetting(reset) };
                self.check_at = Some(now + RESET_STEP);
            }
            Progress::Done => {
                self.lose(done);
                self.check_at = None;
                if closing || self.stopping {
                    self.phase = Phase::Ended;
                } else if self.transport.is_away() {
                    self.check_at = Some(now + AWAY_STEP);
                } else {
                    self.bring_up(now);
                }
            }
        }
    }

    /// Looks at what the device says of itself.
    pub(super) fn look_at_device(&mut self, now: Instant) {
        if self.is_well(now) {
            self.configuration_changed(now);
        }
    }

    /// Whether the device is where the driver has brought it; if not, something is done about it.
    fn is_well(&mut self, now: Instant) -> bool {
        let mut status = self.transport.status();
        if status.is_gone() {
            // A device that is gone says nothing else.
            status = self.transport.status();
        }
        if status.is_gone() {
            self.give_up(now, FailedReason::Removed);
        } else if status.contains(Status::NEEDS_RESET) {
            self.reset(now, ResetCause::Wish);
        } else if !status.contains(Status::DRIVER_OK) {
            self.reset(now, ResetCause::Nonsense("has lost its state"));
        } else {
            return true;
        }
        false
    }

    /// Looks whether something is overdue.
    pub(super) fn check_time(&mut self, now: Instant) {
        if self.check_at.is_none_or(|at| !now.reached(at)) {
            return;
        }
        if !self.is_well(now) {
            return;
        }
        let oldest = self.pairs.iter().filter_map(|pair| pair.transmit.since).min();
        if oldest.is_some_and(|since| now.reached(since + self.config.send_time)) {
            self.counters.timeouts += 1;
            // That a network takes nothing is no reason to give its card up.
            self.resets = 0;
            return self.reset(now, ResetCause::Overdue);
        }
        if self.control.since().is_some_and(|since| now.reached(since + self.config.command_time)) {
            self.counters.timeouts += 1;
            return self.reset(now, ResetCause::Overdue);
        }
        // As long as the device has any memory; one that is gone sends no interrupt.
        let busy = self.holds_memory() || self.control.since().is_some();
        self.check_at = busy.then_some(now + CHECK_STEP);
    }

    /// Resets the device. It is told everything again once it is back, and has the same buffers.
    pub(super) fn reset(&mut self, now: Instant, cause: ResetCause) {
        self.events.record(now, Event::Reset(cause));
        self.counters.device_resets += 1;
        self.resets += 1;
        self.phase = Phase::Resetting(Reset::begin(&mut self.transport));
        if self.resets > MOST_RESETS {
            return self.give_up(now, FailedReason::GivenUp);
        }
        (self.check_at, self.sent_at) = (Some(now), None);
        self.control.forget();
        self.interface.generation += 1;
        self.changes += 1;
        if !self.stopping {
            self.set_state(InterfaceState::Recovering);
        }
    }

    /// Whether there are buffers or frames to be given back.
    pub(super) fn holds_memory(&self) -> bool {
        self.pairs.iter().any(|pair| pair.receive.held() + pair.transmit.held() > 0)
    }

    /// Gives back the frames that the device had: it was reset.
    fn lose(&mut self, done: &mut Completions) {
        for pair in &mut self.pairs {
            let (frames, bytes) = pair.transmit.lose(done);
            self.counters.lost += frames;
            self.counters.bytes_sent -= bytes;
        }
    }

    /// Gives everything back: the device is at rest, or lost.
    pub(super) fn give_all_back(&mut self, done: &mut Completions) {
        self.lose(done);
        self.pairs.iter_mut().for_each(|pair| pair.receive.give_back(done));
    }

    /// Brings the device to rest, as was asked for.
    pub(super) fn begin_close(&mut self, now: Instant, done: &mut Completions) {
        if self.is_up() {
            self.phase = Phase::Closing(Reset::begin(&mut self.transport));
            (self.check_at, self.sent_at) = (Some(now), None);
            self.advance(now, done);
        }
    }
}
