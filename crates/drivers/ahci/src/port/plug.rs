//! Devices that come and go (AHCI §7.3, §10.9; SATA §15).
//!
//! A port without a device that can be used is watched: by interrupts, and now and then without,
//! since interrupts get lost. What appears is brought up as at the start. What was given up is
//! left alone until it was gone. Devices that come and go without end get ever longer pauses, and
//! are given up in the end.

use super::command::Command;
use super::{Context, Port, State};
use crate::config::{Reaping, limit};
use crate::event::{Cause, Event};
use crate::sabotage::Sabotage;
use crate::spec::registers::{
    ALL_ONES, PX_CMD, PX_IE, PX_IS, PX_SCTL, PX_SERR, PX_SSTS, PortInterrupts, SataControl,
    SataStatus, serial_error,
};
use core::time::Duration;
use outboard_block::{BlockError, Completion, FailedReason, Request, UnitState};
use outboard_hw::registers::RegistersExt;
use outboard_hw::{Instant, Registers};

/// What the place of a port that is watched looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing is there since then.
    Empty { since: Instant },
    /// What is there was given up. Until this instant, its link may still be settling.
    Occupied { settles: Instant },
}

/// How often devices came, went or announced themselves by their own lately.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Strikes {
    count: u8,
    /// Since when it has been quiet.
    quiet_since: Option<Instant>,
}

impl Strikes {
    /// Notes one more. How long to leave the device alone now; `None` if it has had its chances.
    fn strike(&mut self, now: Instant) -> Option<Duration> {
        let quiet = self.quiet_since.take().map_or(Duration::ZERO, |since| now.since(since));
        let forgotten = quiet.as_secs() / limit::STRIKE_FORGOTTEN.as_secs();
        self.count = u64::from(self.count).saturating_sub(forgotten) as u8;
        self.count = self.count.saturating_add(1);
        match self.count {
            0..=limit::STRIKES_FREE => Some(Duration::ZERO),
            count @ ..=limit::STRIKES => {
                Some(limit::PAUSE * (1 << (count - limit::STRIKES_FREE - 1)))
            }
            _ => None,
        }
    }

    /// It is quiet from now on, if it was not before.
    pub(super) fn quieten(&mut self, now: Instant) {
        self.quiet_since.get_or_insert(now);
    }
}

/// What can be seen of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sight {
    /// There is no device: the link is dead, the switch is open, or the power has no consumer.
    Nothing,
    /// A device is there.
    Device,
    /// A device is there, and has announced itself after the link was lost.
    Newcomer,
}

impl<R: Registers> Port<R> {
    /// Fails everything that is held. The device must have lost its hold on memory.
    pub(super) fn drop_requests(&mut self, done: &mut dyn FnMut(Completion)) {
        let unit = self.id;
        if let Some(memory) = &mut self.memory {
            (0..32).filter(|slot| self.slots.get(*slot).is_some()).for_each(|s| memory.disarm(s));
        }
        for Command { tag, request, .. } in self.slots.drain() {
            self.counters.failed += 1;
            if self.left_out.has(Sabotage::Removal) {
                continue;
            }
            let Request { data, .. } = request;
            done(Completion { unit, tag, result: Err(BlockError::Gone), data });
        }
        self.drop_local(done);
    }

    /// The disk is no longer the one that it was: nothing of the old one counts.
    pub(super) fn forget_disk(&mut self, done: &mut dyn FnMut(Completion)) {
        self.drop_requests(done);
        if self.known {
            self.unit.generation += 1;
        }
        (self.known, self.was_multiplied) = (false, false);
        self.spun_up = false;
        self.forget_management();
        self.drive = None;
        (self.unflushed, self.cache_lost, self.unwritten) = (false, false, None);
        (self.port_resets, self.unheard, self.hba_resets) = (0, 0, 0);
    }

    /// The device is gone: fails everything, and watches the place. The command engine has stopped,
    /// or there is no device that would make it transfer.
    pub(super) fn unplugged(&mut self, context: &Context<'_>, done: &mut dyn FnMut(Completion)) {
        if self.unit.state != UnitState::Starting || self.known {
            self.counters.unplugs += 1;
            self.record(context, Event::Unplugged);
        }
        self.forget_disk(done);
        self.vacate(UnitState::Absent, Place::Empty { since: context.now }, context);
    }

    /// Brings both engines to rest, so that the memory can be freed, and watches the place then.
    pub(super) fn vacate(&mut self, state: UnitState, place: Place, context: &Context<'_>) {
        self.registers.set(PX_IE, PortInterrupts::empty());
        self.unit.state = state;
        (self.trouble, self.check_at) = (None, None);
        self.wake_link();
        self.link.replaced();
        self.stop_both();
        let until = context.now + limit::ENGINE * 2;
        self.enter(State::Clearing { until, place }, context.now);
    }

    /// Waits for the engines, then frees the memory that they used.
    pub(super) fn await_clear(&mut self, until: Instant, place: Place, context: &Context<'_>) {
        if self.stop_both() {
            self.memory = None;
        } else if !context.now.reached(until) {
            self.look_at = Some(context.now + limit::LOOK);
            return;
        }
        // An engine that does not rest keeps the memory until the device is brought up again.
        self.prepare_place(place, context);
    }

    /// Lets the HBA look out for a device, where there is none.
    fn prepare_place(&mut self, place: Place, context: &Context<'_>) {
        // Nothing can be told to a port that does not answer; it is watched all the same.
        if let (Place::Empty { .. }, Some(command)) = (place, self.command_register()) {
            let cold = command.cold_detection();
            let command = command.with_power_on(!cold || command.cold_present());
            if context.capabilities.staggered() {
                // Listen mode: a device that comes is reported, and not spun up (AHCI §10.10).
                self.registers.set(PX_SCTL, self.link.quiet());
                self.registers.set(PX_CMD, command.with_spin_up(false));
            } else {
                // Without another COMRESET, some HBAs report no device that comes.
                self.registers.set(PX_CMD, command);
                let reset = self.link.quiet().with_detection(SataControl::COMRESET);
                self.registers.set(PX_SCTL, reset);
                return self.enter(State::Rearming { until: None }, context.now);
            }
        }
        self.begin_watch(place, context);
    }

    pub(super) fn end_rearming(&mut self, until: Option<Instant>, context: &Context<'_>) {
        // As for any COMRESET, the time counts from the first look.
        let Some(until) = until else {
            let until = context.now + limit::COMRESET;
            return self.enter(State::Rearming { until: Some(until) }, until);
        };
        if !context.now.reached(until) {
            self.look_at = Some(until);
            return;
        }
        self.registers.set(PX_SCTL, self.link.quiet());
        self.begin_watch(Place::Empty { since: context.now }, context);
    }

    /// Watches. What is not told by an interrupt is seen by [`look_around`](Self::look_around).
    fn begin_watch(&mut self, place: Place, context: &Context<'_>) {
        self.state = State::Watching { place };
        self.look_at = None;
        self.watch_interrupts(context);
    }

    fn watch_interrupts(&mut self, context: &Context<'_>) {
        if context.config.reaping == Reaping::Interrupts {
            self.registers.set(PX_IE, PLUG_INTERRUPTS);
        }
    }

    /// The HBA was reset under a port that is watched: its registers have to be set again.
    pub(super) fn watch_again(&mut self, place: Place, context: &Context<'_>) {
        // The HBA has let go of all memory.
        self.memory = None;
        match place {
            // A device that has announced itself around the reset was not heard, and need not do so
            // again (asynchronous signal recovery is optional): where the port only listened, it
            // has to ask.
            Place::Empty { .. } if context.capabilities.staggered() => {
                self.unit.state = UnitState::Starting;
                (self.state, self.look_at) = (State::Idle, None);
            }
            Place::Empty { .. } => self.prepare_place(place, context),
            Place::Occupied { .. } => self.begin_watch(occupied(context.now), context),
        }
    }

    /// Serves an interrupt of a port that is watched. Until the next look it gets no other, so
    /// that a loose contact cannot make a storm of them.
    pub(super) fn serve_watch(
        &mut self,
        place: Place,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        self.registers.set(PX_IE, PortInterrupts::empty());
        self.watch(place, context, done);
    }

    /// Looks at a port though nothing has called for it: interrupts get lost.
    pub(crate) fn look_around(&mut self, context: &Context<'_>, done: &mut dyn FnMut(Completion)) {
        match self.state {
            State::Watching { place } => {
                self.watch(place, context, done);
                if let State::Watching { .. } = self.state {
                    self.watch_interrupts(context);
                }
            }
            // With commands in flight, it is looked at anyway.
            State::Ready if !self.slots.in_flight() => {
                self.serve(context, done);
                if self.state == State::Ready {
                    self.enable_interrupts(context);
                    if let Some(cause) = self.link_is_down() {
                        self.begin_recovery(cause, context);
                    }
                }
            }
            _ => {}
        }
    }

    fn watch(&mut self, place: Place, context: &Context<'_>, done: &mut dyn FnMut(Completion)) {
        let Some(sight) = self.look() else { return };
        match (place, sight) {
            (Place::Empty { since }, Sight::Device | Sight::Newcomer) => {
                // Who takes out a disk that makes trouble, and puts in another, shall not wait.
                if context.now.since(since) >= limit::EMPTY_FORGETS {
                    self.strikes = Strikes::default();
                }
                self.plugged(context);
            }
            (Place::Occupied { settles }, _) if !context.now.reached(settles) => {}
            (Place::Occupied { .. }, Sight::Nothing) => self.unplugged(context, done),
            (Place::Occupied { .. }, Sight::Newcomer) => {
                self.unplugged(context, done);
                self.plugged(context);
            }
            (Place::Empty { .. }, Sight::Nothing) | (Place::Occupied { .. }, Sight::Device) => {}
        }
    }

    /// What is at the port; `None` if the HBA is gone. Traces of what came are taken away.
    fn look(&mut self) -> Option<Sight> {
        let command = self.command_register()?;
        let (status, errors) = (self.registers.get(PX_SSTS), self.registers.get(PX_SERR));
        if errors == ALL_ONES {
            return None;
        }
        self.registers.set(PX_SERR, errors);
        self.registers.set(PX_IS, PortInterrupts::all());
        if !self.may_be_present(command) {
            return Some(Sight::Nothing);
        }
        let announced = errors & serial_error::EXCHANGED != 0;
        let lost = errors & serial_error::PHY_READY != 0;
        Some(match (announced, status.detection()) {
            (true, _) if lost => Sight::Newcomer,
            (true, SataStatus::NOTHING) => Sight::Newcomer,
            // A device that is detected cold has no power yet, and no link.
            _ if command.cold_detection() => Sight::Device,
            (false, SataStatus::NOTHING | SataStatus::OFFLINE) => Sight::Nothing,
            _ => Sight::Device,
        })
    }

    /// A device has appeared: it is brought up in its turn, or after a pause.
    fn plugged(&mut self, context: &Context<'_>) {
        self.counters.plugs += 1;
        self.record(context, Event::Plugged);
        self.registers.set(PX_IE, PortInterrupts::empty());
        match self.strikes.strike(context.now) {
            Some(pause) => {
                self.hot = true;
                self.pause(pause, context);
            }
            None => self.tire(context),
        }
    }

    /// A device has announced itself, or its link was lost, without having been asked to: it is
    /// brought back, after a pause if that has happened often. The command engine has stopped.
    pub(super) fn spontaneous(&mut self, context: &Context<'_>, done: &mut dyn FnMut(Completion)) {
        match self.strikes.strike(context.now) {
            Some(Duration::ZERO) => self.begin_port_reset(context),
            Some(pause) => {
                self.hot = true;
                self.pause(pause, context);
            }
            None => {
                self.forget_disk(done);
                self.tire(context);
            }
        }
    }

    /// Has had enough of a device, until it is unplugged.
    fn tire(&mut self, context: &Context<'_>) {
        let reason = FailedReason::GivenUp;
        self.counters.given_up += 1;
        self.record(context, Event::GivenUp(reason));
        self.vacate(UnitState::Failed(reason), occupied(context.now), context);
    }

    fn pause(&mut self, pause: Duration, context: &Context<'_>) {
        if pause.is_zero() {
            self.state = State::Idle;
            self.look_at = None;
            return;
        }
        self.record(context, Event::Paused(pause));
        self.enter(State::Pausing { until: context.now + pause }, context.now + limit::WATCH);
    }

    /// Waits until a device that has made trouble is tried again.
    pub(super) fn await_pause(&mut self, until: Instant, context: &Context<'_>) {
        if context.now.reached(until) || self.stopping {
            self.state = State::Idle;
            self.look_at = None;
        } else {
            self.look_at = Some(until.min(context.now + limit::WATCH));
        }
    }

    /// Whether the presence switch and the cold presence detection, if there are any, allow for a
    /// device.
    pub(super) fn may_be_present(&self, command: crate::spec::registers::PortCommand) -> bool {
        let open = command.has_switch() && command.switch_open();
        let cold = command.cold_detection() && !command.cold_present();
        !open && !cold
    }

    /// Serves the switch and the cold presence detection of a port in use.
    pub(super) fn presence_changed(&mut self, context: &Context<'_>) {
        let Some(command) = self.command_register() else { return self.call_for_hba_reset() };
        if !self.may_be_present(command) {
            self.begin_recovery(Cause::Unplugged, context);
        }
    }
}

/// A place whose device was given up just now.
pub(super) fn occupied(now: Instant) -> Place {
    Place::Occupied { settles: now + limit::LINK }
}

/// What a port that is watched wants to be told.
const PLUG_INTERRUPTS: PortInterrupts = PortInterrupts::CONNECT
    .union(PortInterrupts::PHY_READY)
    .union(PortInterrupts::PRESENCE_SWITCH)
    .union(PortInterrupts::COLD_PRESENCE);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strikes_make_for_longer_pauses_and_are_forgotten_with_time() {
        let mut strikes = Strikes::default();
        let mut now = Instant::ORIGIN;
        let mut pauses = std::vec::Vec::new();
        while let Some(pause) = strikes.strike(now) {
            pauses.push(pause.as_secs());
            now = now + pause;
        }
        assert_eq!(pauses, [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128]);
        strikes.quieten(now);
        let later = now + limit::STRIKE_FORGOTTEN * 3;
        assert_eq!(strikes.strike(later), Some(Duration::from_secs(64)));
        assert_eq!(strikes.strike(later), Some(Duration::from_secs(128)), "it was not quiet");
    }
}
