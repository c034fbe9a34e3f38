//! What the drivers of small devices share: bringing one up, trouble, and the end.

use crate::VirtioError;
use crate::queue::Queue;
use crate::recovery::{CHECK_STEP, MOST_RESETS, Progress, RESET_STEP, Reset, ResetCause};
use crate::setup::{KNOWN, check_queue, make_queue, negotiate};
use crate::spec::features::Features;
use crate::spec::status::Status;
use crate::transport::{Cause, Transport};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;
use outboard_hw::Instant;
use outboard_hw::events::EventRing;
use outboard_hw::time::earlier;

/// How a small device is driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceConfig {
    /// The most entries of each queue.
    pub queue_entries: u16,
    /// Features to leave alone even where the device has them.
    pub without: Features,
    /// How long a request may take before the device is reset.
    pub request_time: Duration,
    /// How long a reset may take.
    pub reset_time: Duration,
}

impl Default for DeviceConfig {
    fn default() -> Self {
        Self {
            queue_entries: 16,
            without: Features::empty(),
            request_time: Duration::from_secs(30),
            reset_time: Duration::from_secs(10),
        }
    }
}

/// How a small device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceState {
    /// It is being brought up.
    Starting,
    /// It is in use.
    Ready,
    /// It is being reset after trouble.
    Recovering,
    /// It ends what it has, and is then brought to rest.
    Stopping,
    /// It is at rest.
    Stopped,
    /// It cannot be used any more.
    Failed(Failure),
}

/// Why a small device cannot be used any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It is gone.
    Removed,
    /// It did not come back after resets.
    GivenUp,
    /// It cannot be driven, or is another one after a reset.
    Refused,
    /// There was no memory for it.
    NoMemory,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Removed => "it was removed",
            Self::GivenUp => "it did not come back after resets",
            Self::Refused => "it cannot be driven, or came back as another device",
            Self::NoMemory => "no DMA memory was left for it",
        })
    }
}

/// Something out of the ordinary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Reset(ResetCause),
    GivenUp(Failure),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset(cause) => cause.fmt(f),
            Self::GivenUp(why) => write!(f, "given up: {why}"),
        }
    }
}

/// What the driver is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Resetting(Reset),
    Running,
    Closing(Reset),
    Ended,
}

/// A small device, its queues, and how it is.
#[derive(Debug)]
pub(crate) struct Device<T: Transport> {
    /// Before all memory that the device may write.
    pub(crate) transport: T,
    pub(crate) queues: Vec<Queue>,
    pub(crate) features: u64,
    pub(crate) config: DeviceConfig,
    phase: Phase,
    state: DeviceState,
    cause: Cause,
    /// Something was done before interrupts were asked for.
    pub(crate) look_again: bool,
    stopping: bool,
    check_at: Option<Instant>,
    /// Resets since something ended well.
    resets: u8,
    events: EventRing<Event, 16>,
    events_told: u64,
}

impl<T: Transport> Device<T> {
    /// Takes a device over, with interrupts for so many queues.
    pub(crate) fn new(
        mut transport: T,
        queues: u16,
        config: DeviceConfig,
    ) -> Result<Self, VirtioError> {
        transport.enable_interrupts(queues)?;
        let phase = Phase::Resetting(Reset::begin(&mut transport));
        Ok(Self {
            transport,
            queues: Vec::new(),
            features: 0,
            config,
            phase,
            state: DeviceState::Starting,
            cause: Cause::NONE,
            look_again: false,
            stopping: false,
            check_at: None,
            resets: 0,
            events: EventRing::new(),
            events_told: 0,
        })
    }

    pub(crate) const fn state(&self) -> DeviceState {
        self.state
    }

    /// Whether it has queues.
    pub(crate) const fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Running)
    }

    /// Whether it reaches no memory any more, for good.
    pub(crate) const fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    pub(crate) fn interrupt(&mut self, vector: u16) {
        self.cause = self.cause.and(self.transport.cause(vector));
    }

    /// Goes on with a reset, and looks at what an interrupt was about; whether the device was reset
    /// and is now to be set up.
    pub(crate) fn advance(&mut self, now: Instant) -> bool {
        self.look_again = false;
        let cause = core::mem::replace(&mut self.cause, Cause::NONE);
        let due = self.check_at.is_some_and(|at| now.reached(at));
        if self.is_up() && (cause.config || due) {
            self.look(now);
        }
        let (Phase::Resetting(mut reset) | Phase::Closing(mut reset)) = self.phase else {
            return false;
        };
        let closing = self.stopping || matches!(self.phase, Phase::Closing(_));
        match reset.look(&self.transport, now, self.config.reset_time) {
            Progress::Gone => self.give_up(now, Failure::Removed),
            Progress::Stuck => self.give_up(now, Failure::GivenUp),
            Progress::Done if closing => {
                (self.phase, self.check_at) = (Phase::Ended, None);
                self.state = DeviceState::Stopped;
            }
            Progress::Done => return true,
            Progress::UnderWay => {
                self.phase = if closing { Phase::Closing(reset) } else { Phase::Resetting(reset) };
                self.check_at = Some(now + RESET_STEP);
            }
        }
        false
    }

    fn look(&mut self, now: Instant) {
        let status = self.transport.status();
        if status.is_gone() {
            self.give_up(now, Failure::Removed);
        } else if status.contains(Status::NEEDS_RESET) {
            self.reset(now, ResetCause::Wish);
        } else {
            self.check_at = None;
        }
    }

    /// Whether an interrupt since the last look said that the configuration changed.
    pub(crate) const fn config_has_changed(&self) -> bool {
        self.cause.config
    }

    /// Gives a device up for which there is no memory.
    pub(crate) fn refuse(&mut self, now: Instant) {
        self.give_up(now, Failure::NoMemory);
    }

    /// Sets up a device that was reset (§3.1.1): with these of its kind's features, and as many
    /// queues as `count` says. If that fails, it is given up.
    pub(crate) fn set_up(
        &mut self,
        now: Instant,
        kind_features: u64,
        count: impl FnOnce(&T, u64) -> Result<u16, VirtioError>,
    ) {
        match self.try_set_up(kind_features, count) {
            Ok(()) => {
                (self.phase, self.check_at) = (Phase::Running, None);
                self.state = DeviceState::Ready;
            }
            Err(error) => {
                self.transport.set_status(Status::FAILED);
                let no_memory = matches!(error, VirtioError::Hw(_));
                let why = if no_memory { Failure::NoMemory } else { Failure::Refused };
                self.give_up(now, why);
            }
        }
    }

    fn try_set_up(
        &mut self,
        kind_features: u64,
        count: impl FnOnce(&T, u64) -> Result<u16, VirtioError>,
    ) -> Result<(), VirtioError> {
        let known = KNOWN.difference(self.config.without).bits() | kind_features;
        let (features, status) = negotiate(&mut self.transport, |offered| offered & known)?;
        let count = count(&self.transport, features)?;
        if self.queues.is_empty() {
            let (dma, most) = (self.transport.dma(), self.config.queue_entries);
            for number in 0..count {
                let queue = make_queue(&mut self.transport, &*dma, number, most, features)?;
                self.queues.push(queue);
            }
            self.features = features;
        } else if self.features != features || self.queues.len() != usize::from(count) {
            return Err(VirtioError::BadConfig("it is another device than before"));
        }
        self.transport.start()?;
        for (number, queue) in (0..).zip(&mut self.queues) {
            check_queue(&mut self.transport, number, queue)?;
            queue.reset();
            self.transport.enable_queue(number, queue.areas())?;
        }
        self.transport.set_status(status | Status::DRIVER_OK);
        Ok(())
    }

    /// Shows the device what was added to a queue.
    pub(crate) fn publish(&mut self, number: u16) {
        let queue = &mut self.queues[usize::from(number)];
        if queue.publish() {
            self.transport.notify(number, queue.next_entry());
        }
    }

    /// Resets the device: it has what it had until [`advance`](Self::advance) says otherwise.
    pub(crate) fn reset(&mut self, now: Instant, cause: ResetCause) {
        self.events.record(now, Event::Reset(cause));
        self.resets += 1;
        let reset = Reset::begin(&mut self.transport);
        if self.resets > MOST_RESETS {
            return self.give_up(now, Failure::GivenUp);
        }
        (self.phase, self.check_at) = (Phase::Resetting(reset), Some(now));
        if !self.stopping {
            self.state = DeviceState::Recovering;
        }
    }

    /// Something has ended well.
    pub(crate) const fn went_well(&mut self) {
        self.resets = 0;
    }

    fn give_up(&mut self, now: Instant, why: Failure) {
        self.transport.cut_off();
        self.events.record(now, Event::GivenUp(why));
        (self.phase, self.check_at) = (Phase::Ended, None);
        self.state = DeviceState::Failed(why);
    }

    /// Begins to shut down.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
        if !self.has_ended() {
            self.state = DeviceState::Stopping;
        }
    }

    pub(crate) const fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Brings the device to rest if that was asked for; the caller has nothing left to do.
    pub(crate) fn close(&mut self, now: Instant) {
        if self.stopping && self.is_up() {
            let reset = Reset::begin(&mut self.transport);
            (self.phase, self.check_at) = (Phase::Closing(reset), Some(now));
            self.advance(now);
        }
    }

    /// Has the device looked at in a while, as one that is gone sends no interrupt.
    pub(crate) fn watch(&mut self, now: Instant) {
        if self.is_up() {
            self.check_at = Some(self.check_at.unwrap_or(now + CHECK_STEP));
        }
    }

    /// When to look again. `work` is until when what the device has may take; `None` if it has
    /// nothing.
    pub(crate) fn next_deadline(&self, work: Option<Instant>) -> Option<Instant> {
        let at_once = Some(Instant::ORIGIN);
        match self.phase {
            Phase::Running if self.look_again || self.stopping && work.is_none() => at_once,
            Phase::Running => earlier(self.check_at, work),
            Phase::Resetting(_) | Phase::Closing(_) => self.check_at.or(at_once),
            Phase::Ended => None,
        }
    }

    pub(crate) fn drain_events(&mut self, event: &mut dyn FnMut(Instant, &dyn fmt::Display)) {
        let told = self.events_told;
        for recorded in self.events.iter().filter(|recorded| recorded.number >= told) {
            event(recorded.at, &recorded.what);
        }
        self.events_told = self.events.recorded();
    }
}

impl<T: Transport> Drop for Device<T> {
    fn drop(&mut self) {
        // What it still does ends with the bus, before the memory goes.
        self.transport.set_status(Status::empty());
    }
}
