//! Ports and multipliers: finding out whether one is at a port (AHCI §9.2), giving the port to it,
//! and what a port behind one needs.

use super::startup::INTERNAL_SLOT;
use super::{Context, Port, State};
use crate::config::limit;
use crate::event::Cause;
use crate::spec::ata::Status;
use crate::spec::fis::{RECEIVED_BYTES, RegisterH2d};
use crate::spec::multiplier::CONTROL_PORT;
use crate::spec::registers::{PX_CI, PX_CMD, PX_IE, PX_SIG, PX_TFD, PortInterrupts, signature};
use crate::spec::structures::CommandHeader;
use core::time::Duration;
use outboard_block::{Completion, FailedReason, UnitState};
use outboard_hw::registers::RegistersExt;
use outboard_hw::{Instant, Registers};

/// How far the question has come whether there is a multiplier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    /// BSY is being cleared, which a multiplier without a first device leaves set.
    Overriding,
    /// The first frame of a software reset of the control port was sent.
    Began,
    /// The second.
    Ended,
    /// The command engine is being stopped again.
    Stopping,
}

impl Context<'_> {
    /// What a port behind a multiplier sees of the HBA, with a clock that is so much behind.
    pub(crate) fn behind(&self, lag: Duration) -> Context<'_> {
        let now = self.now.as_nanos().saturating_sub(lag.as_nanos() as u64);
        let capabilities = self.capabilities.with_port_multiplier(false).with_staggered(false);
        let capabilities = capabilities.with_link_power(false).with_presence_switch(false);
        let capabilities = capabilities.with_notification(false).with_fis_switching(false);
        Context { capabilities, lights: false, now: Instant::from_nanos(now), ..*self }
    }
}

impl<R: Registers> Port<R> {
    /// Whether it has to be found out if there is a multiplier: devices that are attached directly
    /// take the question for an ordinary reset.
    pub(super) fn is_to_be_probed(&self, context: &Context<'_>) -> bool {
        context.capabilities.port_multiplier() && !self.known && !self.probed
    }

    /// Asks, once the device is ready, or has had its time: a multiplier without a first device is
    /// never ready. Whether that was possible.
    pub(super) fn begin_probe(&mut self, until: Instant, context: &Context<'_>) -> bool {
        let busy = self.is_busy();
        let waited =
            until.since(context.now) + limit::MULTIPLIER <= context.config.timeouts.spin_up;
        if busy && !(waited && context.capabilities.command_list_override()) {
            return false;
        }
        self.probed = true;
        if busy && let Some(command) = self.command_register() {
            self.registers.set(PX_CMD, command.with_command_list_override(true));
        }
        self.enter(State::Probing { step: Probe::Overriding, until }, context.now);
        true
    }

    fn is_busy(&self) -> bool {
        Status::from_bits_retain(self.registers.get(PX_TFD).status()).is_busy()
    }

    pub(super) fn await_probe(
        &mut self,
        step: Probe,
        until: Instant,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        if context.now.reached(until) {
            return self.reset_again(FailedReason::GivenUp, context, done);
        }
        let issued = self.registers.get(PX_CI) & 1 << INTERNAL_SLOT != 0;
        let soon = context.now + limit::LOOK;
        match step {
            Probe::Overriding => {
                let command = self.command_register();
                if command.is_none_or(|command| command.command_list_override()) {
                    return self.look_at = Some(soon);
                }
                if self.link_is_down().is_some() {
                    return self.reset_again(FailedReason::Removed, context, done);
                }
                if self.is_busy() || !self.start_engine(context) {
                    return self.reset_again(FailedReason::GivenUp, context, done);
                }
                let flags = CommandHeader::RESET | CommandHeader::CLEAR_BUSY;
                self.send_control(true, flags);
                self.enter(State::Probing { step: Probe::Began, until }, soon);
            }
            Probe::Began if !issued => {
                self.send_control(false, 0);
                self.enter(State::Probing { step: Probe::Ended, until }, soon);
            }
            Probe::Ended if !issued && !self.is_busy() => {
                self.stop_engine();
                self.enter(State::Probing { step: Probe::Stopping, until }, context.now);
            }
            Probe::Stopping if self.is_stopped() => {
                if self.registers.get(PX_SIG) != signature::PORT_MULTIPLIER {
                    return self.enter(State::Device { until }, context.now);
                }
                self.registers.set(PX_IE, PortInterrupts::empty());
                self.stop_both();
                self.enter(State::HandingOver { until }, context.now);
            }
            Probe::Began | Probe::Ended | Probe::Stopping => self.look_at = Some(soon),
        }
    }

    fn send_control(&mut self, reset: bool, flags: u16) {
        if let Some(memory) = &mut self.memory {
            let fis = RegisterH2d::device_control(reset).behind(CONTROL_PORT);
            memory.prepare_control(INTERNAL_SLOT, &fis, flags);
            self.registers.set(PX_CI, 1 << INTERNAL_SLOT);
        }
    }

    /// Waits for the engines, so that the multiplier's driver can use them.
    pub(super) fn await_hand_over(
        &mut self,
        until: Instant,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        if self.stop_both() {
            self.memory = None;
            (self.state, self.look_at) = (State::Multiplied, None);
            (self.was_multiplied, self.hba_resets) = (true, 0);
        } else if context.now.reached(until) {
            self.reset_again(FailedReason::GivenUp, context, done);
        } else {
            self.look_at = Some(context.now + limit::LOOK);
        }
    }

    /// Whether it is a multiplier's.
    pub(crate) const fn is_multiplied(&self) -> bool {
        matches!(self.state, State::Multiplied)
    }

    /// Whether it is known what is there.
    pub(crate) fn is_settled(&self) -> bool {
        !matches!(self.state, State::Idle) && self.unit.state != UnitState::Starting
    }

    /// The multiplier gives the port back, with its engines at rest: it is reset and looked at.
    pub(crate) fn take_back(&mut self) {
        (self.state, self.look_at) = (State::Idle, None);
        (self.hot, self.known, self.port_resets) = (true, false, 0);
        self.unit.state = UnitState::Starting;
    }

    /// The unit's next disk shall not be taken for one that had its number before.
    pub(crate) fn count_generations_from(&mut self, generation: u32) {
        self.unit.generation = self.unit.generation.max(generation);
    }

    /// There is no memory for a multiplier.
    pub(crate) fn cannot_be_multiplied(
        &mut self,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        self.give_up(FailedReason::NoMemory, context, done);
    }

    /// The multiplier that it is behind is gone. No command is under way.
    pub(crate) fn was_taken_away(
        &mut self,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        let already = matches!(
            self.state,
            State::Resting
                | State::Clearing { .. }
                | State::Rearming { .. }
                | State::Watching { .. }
        );
        if !already {
            self.unplugged(context, done);
        }
    }

    /// The HBA had to let go of the device's commands because of a neighbour; the device has them
    /// still. Whether the port could take that.
    pub(crate) fn was_disturbed(&mut self, context: &Context<'_>) -> bool {
        let ready = self.state == State::Ready;
        if ready {
            self.begin_recovery(Cause::Neighbour, context);
        }
        ready
    }

    /// The header of a slot's command; see [`PortMemory::addressed`](super::PortMemory::addressed).
    pub(crate) fn addressed(
        &mut self,
        slot: u8,
        port: u8,
        tag: Option<u8>,
    ) -> Option<CommandHeader> {
        Some(self.memory.as_mut()?.addressed(slot, port, tag))
    }

    /// What the HBA says of a command that has ended.
    pub(crate) fn took_over(&mut self, slot: u8, transferred: u32) {
        if let Some(memory) = &mut self.memory {
            memory.take_over(slot, transferred);
        }
    }

    /// What the HBA has received of the device.
    pub(crate) fn received(&mut self, frames: &[u8; RECEIVED_BYTES]) {
        if let Some(memory) = &mut self.memory {
            memory.receive(frames);
        }
    }

    /// Whether the log of queued errors is being read.
    pub(crate) const fn is_reading_log(&self) -> bool {
        matches!(self.state, State::ReadingLog { .. })
    }

    /// Puts the slot that the device's tag stands for into the log of queued errors.
    pub(crate) fn rename_in_log(&mut self, slot_of: impl FnOnce(u8) -> Option<u8>) {
        if let Some(memory) = &mut self.memory {
            memory.rename_in_log(slot_of);
        }
    }
}
