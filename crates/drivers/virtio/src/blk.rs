//! Disks (§5.2).

mod counters;
mod device;
mod event;
mod issue;
mod lifetime;
mod reap;
mod recovery;
mod resume;
mod ring_reset;
mod slots;

use crate::VirtioError;
use crate::queue::Queue;
use crate::sabotage::{LeftOut, Sabotage};
use crate::spec::features::Features;
use crate::transport::{Cause, Transport};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;
use counters::Counters;
use device::Said;
use event::Event;
use outboard_block::manage::Health;
use outboard_block::{
    BlockDriver, Completion, FailedReason, Refused, Request, Tag, Unit, UnitId, UnitState,
};
use outboard_hw::Instant;
use outboard_hw::dma::{Constraints, DmaSpace};
use outboard_hw::events::EventRing;
use slots::Slots;

/// How a disk is driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlkConfig {
    /// The most queues to use of those that the device has.
    pub queues: u16,
    /// The most entries of each.
    pub queue_entries: u16,
    /// The most segments of a request.
    pub segments: u16,
    /// Features to leave alone even where the device has them. `RING_RESET` is one of them unless
    /// the device is known to keep to it: QEMU's disks do not (see `ring_reset.rs`).
    pub without: Features,
    /// How long a request may take before the device is reset.
    pub request_time: Duration,
    /// How long a reset may take.
    pub reset_time: Duration,
    /// A piece of the recovery to leave out, to see whether a test notices.
    #[cfg(feature = "sabotage")]
    pub sabotage: Option<crate::Sabotage>,
}

impl BlkConfig {
    /// What is left out of the recovery.
    const fn left_out(&self) -> LeftOut {
        LeftOut {
            #[cfg(feature = "sabotage")]
            piece: self.sabotage,
        }
    }
}

impl Default for BlkConfig {
    fn default() -> Self {
        Self {
            queues: 8,
            queue_entries: 256,
            segments: 126,
            without: Features::RING_RESET,
            request_time: Duration::from_secs(30),
            reset_time: Duration::from_secs(10),
            #[cfg(feature = "sabotage")]
            sabotage: None,
        }
    }
}

/// What the driver is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The device is being reset; until when it may take.
    Resetting { until: Instant },
    /// The device is asked for its serial number.
    Identifying,
    /// Requests are served.
    Running,
    /// The device is away, and what its queues hold is kept for it.
    Away,
    /// It is back, and asked for its serial number before it is shown what they hold.
    Greeting,
    /// One of the queues is being reset, while the others keep what they have.
    ResettingQueue { queue: u16, until: Instant },
    /// The device is being reset for good.
    Closing { until: Instant },
    /// At rest, or lost.
    Ended,
}

/// The driver of a virtio disk: one unit.
#[derive(Debug)]
pub struct Blk<T: Transport> {
    /// Before all memory that the device may write.
    transport: T,
    queues: Vec<Queue>,
    slots: Slots,
    /// For the question to a device that was away, once there was one.
    greeting: Option<Queue>,
    config: BlkConfig,
    phase: Phase,
    unit: Unit,
    /// What the disk has said of its health when it was last asked.
    health: Option<Health>,
    changes: u64,
    /// What was agreed upon when the device was last set up.
    features: u64,
    /// What its configuration said at last.
    said: Option<Said>,
    /// What a request's memory has to be like.
    constraints: Constraints,
    /// The most bytes of a request in one piece.
    plain_bytes: u64,
    /// Slots whose requests the device does not have yet.
    waiting: Vec<u16>,
    /// Slots whose requests are for the driver alone.
    own: VecDeque<u16>,
    /// The queue that the next batch goes to.
    next_queue: usize,
    /// What interrupts since the last look were about.
    cause: Cause,
    masked: bool,
    /// Something was done before interrupts were asked for.
    look_again: bool,
    stopping: bool,
    /// When to look at the device, and whether something is overdue.
    check_at: Option<Instant>,
    /// When it was asked for its serial number, if there is no answer yet.
    identifying_since: Option<Instant>,
    /// The device lost its state, and perhaps its cache; the next flush says so.
    cache_in_doubt: bool,
    /// Resets since the last request that ended well.
    resets: u8,
    /// Requests accepted so far.
    accepted: u64,
    counters: Counters,
    events: EventRing<Event, 64>,
    events_told: u64,
}

impl<T: Transport> Blk<T> {
    /// Takes a device over. It is brought up by [`poll`](BlockDriver::poll).
    pub fn new(transport: T, config: BlkConfig) -> Result<Self, VirtioError> {
        let mut blk = Self {
            transport,
            queues: Vec::new(),
            slots: Slots::none(),
            greeting: None,
            config,
            phase: Phase::Ended,
            unit: Unit::UNKNOWN,
            health: None,
            changes: 0,
            features: 0,
            said: None,
            constraints: Constraints::NONE,
            plain_bytes: 0,
            waiting: Vec::new(),
            own: VecDeque::new(),
            next_queue: 0,
            cause: Cause::NONE,
            masked: false,
            look_again: false,
            stopping: false,
            check_at: None,
            identifying_since: None,
            cache_in_doubt: false,
            resets: 0,
            accepted: 0,
            counters: Counters::default(),
            events: EventRing::new(),
            events_told: 0,
        };
        // Whoever waits for interrupts is told now what they are.
        blk.transport.enable_interrupts(config.queues)?;
        // The clock is not known yet: the time for it begins with the first look.
        blk.transport.set_status(crate::spec::status::Status::empty());
        blk.phase = Phase::Resetting { until: Instant::from_nanos(u64::MAX) };
        Ok(blk)
    }

    /// Whether a piece of the recovery is there.
    fn does(&self, piece: Sabotage) -> bool {
        !self.config.left_out().has(piece)
    }

    fn set_state(&mut self, state: UnitState) {
        if self.unit.state != state {
            self.unit.state = state;
            self.changes += 1;
        }
    }

    /// Gives the device up; what it had fails at the next look, when it reaches no memory any more.
    fn give_up(&mut self, now: Instant, reason: FailedReason) {
        self.transport.cut_off();
        self.events.record(now, Event::GivenUp(reason));
        (self.phase, self.check_at) = (Phase::Ended, None);
        self.unit.generation += 1;
        self.changes += 1;
        self.set_state(UnitState::Failed(reason));
    }
}

impl<T: Transport> BlockDriver for Blk<T> {
    fn unit_count(&self) -> u16 {
        1
    }

    fn unit(&self, unit: UnitId) -> Option<&Unit> {
        (unit.0 == 0).then_some(&self.unit)
    }

    fn changes(&self) -> u64 {
        self.changes
    }

    fn constraints(&self) -> Constraints {
        self.constraints
    }

    fn dma(&self) -> Arc<dyn DmaSpace> {
        self.transport.dma()
    }

    fn submit(&mut self, unit: UnitId, tag: Tag, request: Request) -> Result<(), Refused> {
        self.accept(unit, tag, request)
    }

    fn kick(&mut self, now: Instant) {
        self.issue(now);
    }

    fn interrupt(&mut self, vector: u16) {
        self.cause = self.cause.and(self.transport.cause(vector));
    }

    fn mask(&mut self, masked: bool) {
        if core::mem::replace(&mut self.masked, masked) == masked {
            return;
        }
        for queue in &mut self.queues {
            if masked {
                queue.ignore();
            } else {
                // What is done already is told by nobody any more.
                self.look_again |= queue.listen();
            }
        }
    }

    fn poll(&mut self, now: Instant, done: &mut dyn FnMut(Completion)) {
        self.look(now, done);
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.deadline()
    }

    fn stop(&mut self) {
        self.stopping = true;
        if !matches!(self.phase, Phase::Ended) {
            self.set_state(UnitState::Stopping);
        }
    }

    fn is_stopped(&self) -> bool {
        self.phase == Phase::Ended && self.slots.in_use() == 0
    }

    fn health(&self, unit: UnitId) -> Option<&Health> {
        self.health.as_ref().filter(|_| unit.0 == 0)
    }

    fn counters(&self, _: UnitId, counter: &mut dyn FnMut(&'static str, u64)) {
        self.counters.each(counter);
    }

    fn drain_events(&mut self, event: &mut dyn FnMut(UnitId, Instant, &dyn fmt::Display)) {
        let told = self.events_told;
        for recorded in self.events.iter().filter(|recorded| recorded.number >= told) {
            event(UnitId(0), recorded.at, &recorded.what);
        }
        self.events_told = self.events.recorded();
    }
}

impl<T: Transport> Drop for Blk<T> {
    fn drop(&mut self) {
        // What it still does ends with the bus, before the memory goes.
        self.transport.set_status(crate::spec::status::Status::empty());
    }
}
