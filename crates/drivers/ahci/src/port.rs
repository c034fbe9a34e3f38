//! A port: one disk, its command list, and the states that it goes through.

mod atapi;
mod command;
mod engine;
mod health;
mod issue;
mod link;
mod manage;
mod memory;
mod multiplied;
mod order;
mod plug;
mod prepare;
mod recovery;
mod service;
mod settings;
mod startup;

pub(crate) use settings::Setting;

use crate::config::AhciConfig;
use crate::counters::Counters;
use crate::event::{Cause, Event};
use crate::quirks::Quirks;
use crate::sabotage::{LeftOut, Sabotage};
use crate::spec::registers::{Capabilities, Capabilities2, PX_IE, PortInterrupts};
use atapi::Drive;
use command::{Device, Slots};
use link::{Link, Locals};
use manage::Manager;
use memory::PortMemory;
use multiplied::Probe;
use outboard_block::{
    BlockError, Completion, FailedReason, Geometry, Identity, Unit, UnitId, UnitState,
};
use outboard_hw::dma::{Constraints, DmaSpace};
use outboard_hw::events::EventRing;
use outboard_hw::registers::{RegistersExt, Window};
use outboard_hw::{Instant, Registers};
use plug::{Place, Strikes};
use prepare::Prepare;

/// Events that a port remembers.
const EVENTS: usize = 64;

/// What all ports of an HBA have in common, as far as a port needs it.
pub(crate) struct Context<'a> {
    pub(crate) config: &'a AhciConfig,
    pub(crate) capabilities: Capabilities,
    pub(crate) capabilities2: Capabilities2,
    /// Whether the enclosure takes LED messages.
    pub(crate) lights: bool,
    pub(crate) constraints: Constraints,
    pub(crate) quirks: Quirks,
    /// Whether to look for what has ended without having heard of it.
    pub(crate) polling: bool,
    pub(crate) dma: &'a dyn DmaSpace,
    pub(crate) now: Instant,
}

/// The states of a port. Durations are bounded by the instant in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Waiting for the HBA, or for its turn to spin up.
    Idle,
    /// Bringing the engines to rest before their addresses are set.
    Quiescing { until: Instant },
    /// Waiting for the link. `seen`: something is there, though it does not talk yet. `late`: a
    /// disk that was there takes longer than one that was only reset.
    Link { until: Instant, seen: bool, late: bool },
    /// Waiting for the device's first status.
    Device { until: Instant },
    /// Asking whether there is a port multiplier.
    Probing { step: Probe, until: Instant },
    /// There is one: bringing both engines to rest for it.
    HandingOver { until: Instant },
    /// The port is a multiplier's.
    Multiplied,
    /// Reading the device's identification.
    Identifying { until: Instant },
    /// Applying a setting that the disk has lost in a reset.
    Restoring { setting: Setting, until: Instant },
    /// Telling the device what it has to be told before or while it is used.
    Preparing { step: Prepare, until: Instant },
    /// Serving requests.
    Ready,
    /// The disk sleeps, and is woken by the next request.
    Asleep,
    /// Trouble: bringing the command engine to rest.
    Stopping { until: Instant },
    /// Trouble: asking the device which queued command failed.
    ReadingLog { until: Instant },
    /// Trouble: COMRESET is being sent, until then, or until a while after the next look.
    PortReset { until: Option<Instant> },
    /// Trouble: only a reset of the whole HBA can help.
    NeedsHbaReset,
    /// Asking a drive with packets about its medium, or why a packet failed.
    Talking { until: Instant },
    /// Shutting down: bringing both engines to rest.
    Halting { until: Instant },
    /// A device that comes and goes is left alone for a while.
    Pausing { until: Instant },
    /// No device, or one that cannot be used: bringing both engines to rest.
    Clearing { until: Instant, place: Place },
    /// No device: COMRESET is being sent, so that one that comes is reported.
    Rearming { until: Option<Instant> },
    /// Waiting for a device to come, or for one that cannot be used to go.
    Watching { place: Place },
    /// Nothing more will happen: shut down.
    Resting,
}

/// What is known about the trouble that is being recovered from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Trouble {
    cause: Cause,
    /// The error of the command that ran alone, if that is what failed.
    verdict: Option<(u8, Verdict)>,
    /// The port must be reset whatever it looks like.
    reset: bool,
    /// The queued command that failed has to be found.
    find_culprit: bool,
    /// Commands that must not be retried for free.
    suspects: u32,
    /// What the suspects fail with in the end.
    error: BlockError,
    /// It came of itself, not of a command.
    spontaneous: bool,
}

/// What a failed command's error means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Trying again is pointless.
    Final(BlockError),
    /// Trying again may help; the error is what to report once it has not.
    Retry(BlockError),
}

/// One port and the disk at it.
pub(crate) struct Port<R> {
    id: UnitId,
    registers: Window<R>,
    state: State,
    unit: Unit,
    memory: Option<PortMemory>,
    slots: Slots,
    device: Device,
    manager: Manager,
    link: Link,
    /// Requests that need no command of the device.
    local: Locals,
    /// Whether the unit's disk was identified, and has not gone since.
    known: bool,
    /// Another device that has said once that it is in its place.
    newcomer: Option<(Identity, Geometry)>,
    /// Whether a device came while the HBA was running, which has not been reset since.
    hot: bool,
    /// Whether it was asked since the link came up if there is a multiplier.
    probed: bool,
    /// Whether what is there was a multiplier, and has not gone since.
    was_multiplied: bool,
    /// Whether the device was told to spin up since it was reset.
    spun_up: bool,
    /// Whether the port sends only interrupts that matter, until it is next looked at.
    noisy: bool,
    /// How often devices came and went of late.
    strikes: Strikes,
    /// The drive, if it is one that takes packets.
    drive: Option<Drive>,
    trouble: Option<Trouble>,
    left_out: LeftOut,
    stopping: bool,
    /// When to look at registers in a state that waits for them to change.
    look_at: Option<Instant>,
    /// When to look at a port with commands in flight though there was no interrupt.
    check_at: Option<Instant>,
    /// Whether commands were found to have ended since the last check-up.
    reaped: bool,
    /// Whether the device has acknowledged writes that no flush has followed.
    unflushed: bool,
    /// Whether such writes may be lost, and nobody was told yet.
    cache_lost: bool,
    /// A sector that the device could not write from its cache, and nobody was told yet.
    unwritten: Option<u64>,
    /// Port resets in a row after which the device could not be identified.
    port_resets: u8,
    /// How many times in a row there was no link to be waited for.
    unheard: u8,
    /// HBA resets in a row without a command that ended well.
    hba_resets: u8,
    counters: Counters,
    events: EventRing<Event, EVENTS>,
    events_drained: u64,
}

impl<R: Registers> Port<R> {
    pub(crate) fn new(id: UnitId, registers: Window<R>, slots: u8) -> Self {
        Self {
            id,
            registers,
            state: State::Idle,
            unit: Unit::UNKNOWN,
            memory: None,
            slots: Slots::new(slots),
            device: Device::PLAIN,
            manager: Manager::default(),
            link: Link::new(),
            local: Locals::new(),
            known: false,
            newcomer: None,
            hot: false,
            probed: false,
            was_multiplied: false,
            spun_up: false,
            noisy: false,
            strikes: Strikes::default(),
            drive: None,
            trouble: None,
            left_out: LeftOut::default(),
            stopping: false,
            look_at: None,
            check_at: None,
            reaped: false,
            unflushed: false,
            cache_lost: false,
            unwritten: None,
            port_resets: 0,
            unheard: 0,
            hba_resets: 0,
            counters: Counters::default(),
            events: EventRing::new(),
            events_drained: 0,
        }
    }

    pub(crate) const fn unit(&self) -> &Unit {
        &self.unit
    }

    pub(crate) const fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(crate) const fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Whether its device was identified once, and has not been gone since.
    pub(crate) const fn is_known(&self) -> bool {
        self.known
    }

    /// Whether its device may be spinning up.
    pub(crate) const fn is_spinning_up(&self) -> bool {
        matches!(
            self.state,
            State::Quiescing { .. }
                | State::PortReset { .. }
                | State::Link { .. }
                | State::Device { .. }
                | State::Probing { .. }
        )
    }

    pub(crate) const fn is_resting(&self) -> bool {
        matches!(self.state, State::Resting)
    }

    pub(crate) const fn needs_hba_reset(&self) -> bool {
        matches!(self.state, State::NeedsHbaReset)
    }

    /// Whether the device has acknowledged writes that it may not have made durable.
    pub(crate) const fn has_acknowledged(&self) -> bool {
        self.unflushed
    }

    /// Whether commands are with the device.
    pub(crate) const fn in_flight(&self) -> bool {
        self.slots.in_flight()
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        match self.state {
            State::Ready if !self.local.is_empty() && !self.wants_quiet() => Some(Instant::ORIGIN),
            State::Ready if self.slots.in_flight() => {
                self.check_at.filter(|_| !self.left_out.has(Sabotage::CheckUps))
            }
            State::Ready if !self.local.is_empty() => Some(Instant::ORIGIN),
            State::Ready if self.next_flush().is_some() || self.ended_program().is_some() => {
                Some(Instant::ORIGIN)
            }
            // There is nothing to wait for.
            State::Ready | State::Idle | State::Asleep | State::Watching { .. }
                if self.stopping =>
            {
                Some(Instant::ORIGIN)
            }
            State::Ready => self.drive.and_then(|drive| drive.watch_at()),
            _ => self.look_at,
        }
    }

    pub(crate) fn drain_events(
        &mut self,
        event: &mut dyn FnMut(UnitId, Instant, &dyn core::fmt::Display),
    ) {
        let (id, drained) = (self.id, self.events_drained);
        let new = self.events.iter().filter(|recorded| recorded.number >= drained);
        new.for_each(|recorded| event(id, recorded.at, &recorded.what));
        self.events_drained = self.events.recorded();
    }

    fn record(&mut self, context: &Context<'_>, event: Event) {
        self.events.record(context.now, event);
    }

    /// The unit cannot be used any more: fails everything, and waits for the device to go. The
    /// device must have lost its hold on memory.
    fn give_up(
        &mut self,
        reason: FailedReason,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        self.counters.given_up += 1;
        self.record(context, Event::GivenUp(reason));
        self.forget_disk(done);
        self.vacate(UnitState::Failed(reason), plug::occupied(context.now), context);
    }

    /// Nothing more will happen at the port: fails everything that is held.
    fn rest(&mut self, state: UnitState, done: &mut dyn FnMut(Completion)) {
        self.registers.set(PX_IE, PortInterrupts::empty());
        self.state = State::Resting;
        self.unit.state = state;
        (self.trouble, self.look_at, self.check_at) = (None, None, None);
        self.wipe_secret();
        self.drop_requests(done);
    }

    /// Device or controller are gone; no register can be trusted, and no DMA can happen.
    pub(crate) fn gone(&mut self, context: &Context<'_>, done: &mut dyn FnMut(Completion)) {
        if self.unit.state != UnitState::Absent {
            self.counters.given_up += 1;
            self.record(context, Event::GivenUp(FailedReason::Removed));
        }
        self.forget_disk(done);
        self.rest(UnitState::Failed(FailedReason::Removed), done);
    }

    /// Accepts nothing more, and rests once everything in flight has ended.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
        let served = [UnitState::Ready, UnitState::Recovering, UnitState::Locked];
        if served.contains(&self.unit.state) {
            self.unit.state = UnitState::Stopping;
        }
    }

    /// Does whatever is due.
    pub(crate) fn poll(&mut self, context: &Context<'_>, done: &mut dyn FnMut(Completion)) {
        let due = |at: Option<Instant>| at.is_some_and(|at| context.now.reached(at));
        if self.state == State::Ready {
            if context.polling && self.slots.in_flight() {
                self.reap(context, done);
            }
            let looks = !self.left_out.has(Sabotage::CheckUps);
            if due(self.check_at) && self.slots.in_flight() && looks {
                self.check_up(context, done);
            }
            if self.state == State::Ready {
                self.serve_local(context, done);
            }
            if self.drive.is_some() && self.state == State::Ready && !self.slots.in_flight() {
                self.end_flushes(done);
                if !self.stopping {
                    self.watch_medium(context);
                }
            }
            if self.state == State::Ready {
                self.end_programs(context, done);
            }
            // What had to wait for others to end; does nothing if nothing waits.
            self.kick(context);
            if self.stopping && self.slots.is_empty() && self.state == State::Ready {
                self.begin_halt(context);
            }
        } else if due(self.look_at) || self.stopping && self.state == State::Asleep {
            self.step(context, done);
        } else if self.stopping && matches!(self.state, State::Idle | State::Watching { .. }) {
            self.rest(UnitState::Stopping, done);
        }
    }

    /// Goes on in a state that waits for registers.
    fn step(&mut self, context: &Context<'_>, done: &mut dyn FnMut(Completion)) {
        match self.state {
            State::Quiescing { until } => self.quiesce(until, context, done),
            State::Link { until, seen, late } => {
                self.await_link(until, seen, late, context, done);
            }
            State::Device { until } => self.await_device(until, context, done),
            State::Probing { step, until } => self.await_probe(step, until, context, done),
            State::HandingOver { until } => self.await_hand_over(until, context, done),
            State::Identifying { until } => self.await_identity(until, context, done),
            State::Restoring { setting, until } => {
                self.await_restored(setting, until, context, done);
            }
            State::Asleep => self.serve_asleep(context, done),
            State::Preparing { step, until } => self.await_prepared(step, until, context, done),
            State::Stopping { until } => self.await_stop(until, context, done),
            State::ReadingLog { until } => self.await_log(until, context, done),
            State::Talking { until } => self.await_drive(until, context, done),
            State::PortReset { until } => self.end_port_reset(until, context),
            State::Halting { until } => self.await_halt(until, context, done),
            State::Pausing { until } => self.await_pause(until, context),
            State::Clearing { until, place } => self.await_clear(until, place, context),
            State::Rearming { until } => self.end_rearming(until, context),
            State::Idle
            | State::Multiplied
            | State::Ready
            | State::NeedsHbaReset
            | State::Watching { .. }
            | State::Resting => self.look_at = None,
        }
    }

    fn enter(&mut self, state: State, look_at: Instant) {
        self.state = state;
        self.look_at = Some(look_at);
    }
}
