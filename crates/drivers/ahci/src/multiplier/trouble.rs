//! Trouble at a port with a multiplier: whom it concerns, and how the HBA lets go of commands.

use super::{Behind, Multiplier, State, Wish};
use crate::config::limit;
use crate::port::Context;
use crate::spec::ata::Status;
use crate::spec::multiplier::CONTROL_PORT;
use crate::spec::registers::{
    ALL_ONES, FisSwitching, PX_CI, PX_CMD, PX_FBS, PX_IE, PX_IS, PX_SACT, PX_SERR, PX_SSTS,
    PortCommand, PortInterrupts, SataStatus, serial_error,
};
use outboard_block::Completion;
use outboard_hw::registers::RegistersExt;
use outboard_hw::{Instant, Registers};

impl Behind {
    /// The HBA had to let go of the device's commands; the device has them still.
    fn disturb(&mut self, context: &Context<'_>) {
        if !self.port.was_disturbed(&context.behind(self.lag)) {
            // A command of the port's own: its end is all that the port waits for.
            self.face.interrupted(PortInterrupts::INTERFACE_FATAL);
            self.face.forget_issued();
        }
    }
}

impl<R: Registers> Multiplier<R> {
    /// What interrupts say beside that commands have ended.
    pub(super) fn judge(
        &mut self,
        interrupts: PortInterrupts,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        if self.state != State::Serving {
            return;
        }
        if interrupts.intersects(PortInterrupts::CONNECT | PortInterrupts::PHY_READY) {
            let up = self.link_is_up();
            self.registers.set(PX_SERR, ALL_ONES);
            if !up || interrupts.contains(PortInterrupts::CONNECT) {
                return self.lost(context);
            }
        }
        let stopped = PortInterrupts::FATAL | PortInterrupts::TASK_FILE_ERROR;
        let trouble = interrupts & stopped;
        if trouble.is_empty() {
            return;
        }
        let talking = self.is_talking();
        if !self.switching && !talking {
            let device = self.turn;
            return self.blame(device, trouble, context, done);
        }
        if talking && self.in_flight == 0 {
            return self.op_failed = true;
        }
        let switching = self.registers.get(PX_FBS);
        if switching.single_device_error() {
            if talking && switching.device_with_error() == CONTROL_PORT {
                return self.op_failed = true;
            }
            return self.blame(switching.device_with_error(), trouble, context, done);
        }
        // The whole port has stopped. Whose error it is can be seen where the device has said so.
        let failed = |device: &u8| {
            let status = self.memory.received_register(*device).status;
            Status::from_bits_retain(status).is_error()
        };
        match (0..self.count).find(failed) {
            Some(device) if trouble == PortInterrupts::TASK_FILE_ERROR => {
                self.blame(device, trouble, context, done);
            }
            _ => self.stop_engine(context),
        }
    }

    /// Tells a device's port of trouble; it asks then for its commands to be let go of.
    fn blame(
        &mut self,
        device: u8,
        trouble: PortInterrupts,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        if self.behind(device).is_none_or(|behind| behind.sent == 0) {
            // Nobody has asked for anything that could have failed.
            return self.stop_engine(context);
        }
        self.tell(device, trouble, context, done);
        if self.state != State::Serving {
            return;
        }
        self.halted_until.get_or_insert(context.now + limit::ENGINE * 2);
    }

    /// Lets go of the commands of devices whose ports ask for that.
    pub(super) fn let_go(&mut self, context: &Context<'_>) {
        let (mut neighbours, mut wanted) = (0, self.op_failed && self.is_talking());
        for device in 0..self.count {
            let Some(behind) = self.behind(device) else { continue };
            if !behind.face.wants_stop() {
                neighbours |= behind.sent;
            } else if behind.sent == 0 {
                behind.face.stopped();
            } else {
                wanted = true;
            }
        }
        if self.state != State::Serving {
            return;
        }
        if !wanted {
            self.draining = None;
            if self.halted_until.is_some_and(|until| context.now.reached(until)) {
                self.stop_engine(context);
            }
            return;
        }
        if self.switching {
            let switching = self.registers.get(PX_FBS);
            if switching.single_device_error() {
                let device = switching.device_with_error();
                self.registers.set(PX_FBS, switching.with_clear_error(true));
                let until = context.now + limit::ENGINE;
                self.state = State::Clearing { device, until };
                return;
            }
            let since = *self.draining.get_or_insert(context.now);
            let waits = neighbours != 0 && self.halted_until.is_none();
            if waits && !context.now.reached(since + limit::NEIGHBOURS) {
                return;
            }
        }
        self.stop_engine(context);
    }

    /// Stops the command engine, to start it again.
    pub(super) fn stop_engine(&mut self, context: &Context<'_>) {
        let Some(command) = self.command_register() else { return self.call_for_hba_reset() };
        self.registers.set(PX_CMD, command.with_start(false));
        self.state = State::Stopping { until: context.now + limit::ENGINE };
    }

    /// PxCMD, unless it reads as no register does: written back, all ones would set bits that nobody
    /// wants, such as those that let the link save power.
    pub(super) fn command_register(&self) -> Option<PortCommand> {
        let command = self.registers.get(PX_CMD);
        (command.into_bits() != ALL_ONES).then_some(command)
    }

    /// Goes on in a state that waits for registers.
    pub(super) fn go_on(&mut self, context: &Context<'_>, done: &mut dyn FnMut(Completion)) {
        match self.state {
            State::Stopping { until } => {
                let Some(command) = self.command_register() else {
                    return self.call_for_hba_reset();
                };
                if !command.list_running() {
                    self.has_stopped(until, context);
                } else if context.now.reached(until) {
                    self.call_for_hba_reset();
                }
            }
            State::Clearing { device, until } => {
                if !self.registers.get(PX_FBS).clear_error() {
                    self.has_cleared(device, context);
                } else if context.now.reached(until) {
                    self.stop_engine(context);
                }
            }
            State::Leaving { until } => {
                if self.engines_rest() {
                    match self.keeps_commands() {
                        true => self.call_for_hba_reset(),
                        false => self.has_left_port(context, done),
                    }
                } else if context.now.reached(until) {
                    self.call_for_hba_reset();
                }
            }
            State::Serving | State::Left | State::NeedsHbaReset => {}
        }
    }

    /// The HBA has let go of one device's commands.
    fn has_cleared(&mut self, device: u8, context: &Context<'_>) {
        self.state = State::Serving;
        self.halted_until = None;
        self.forget_sent(device);
        self.memory.forget_received(self.area(device));
        if let Some(behind) = self.behind(device) {
            if behind.face.wants_stop() {
                behind.face.stopped();
            } else {
                behind.disturb(context);
            }
        }
        if device == CONTROL_PORT && self.is_talking() {
            self.memory.blank(self.own_slot);
            self.step_failed(context);
        }
        if self.registers.get(PX_FBS).single_device_error() {
            // Another one has failed meanwhile; its interrupt may have been taken already.
            self.interrupted = true;
        }
    }

    fn forget_sent(&mut self, device: u8) {
        for place in 0..self.owners.len() {
            if self.in_flight >> place & 1 == 1 && self.owners[place].0 == device {
                self.in_flight &= !(1 << place);
                self.memory.blank(place as u8);
            }
        }
        if let Some(behind) = self.behind(device) {
            (behind.lost, behind.places_lost) = (behind.sent, behind.places);
            behind.sent = 0;
        }
    }

    /// The command engine is at rest: starts it again.
    fn has_stopped(&mut self, until: Instant, context: &Context<'_>) {
        if self.keeps_commands() {
            return self.call_for_hba_reset();
        }
        for device in 0..self.count {
            let Some(behind) = self.behind(device) else { continue };
            let (asked, sent) = (behind.face.wants_stop(), behind.sent != 0);
            if asked {
                behind.face.stopped();
            } else if sent {
                behind.disturb(context);
            }
            self.forget_sent(device);
        }
        self.in_flight = 0;
        (self.draining, self.halted_until) = (None, None);
        self.take_reports();
        self.memory.forget();
        if !self.link_is_up() || self.has_started_anew() {
            // Also before BSY is overridden, which then says that it is not ready.
            return self.lost(context);
        }
        let busy = self.is_busy();
        let Some(command) = self.command_register() else { return self.call_for_hba_reset() };
        if (busy || self.switching) && context.capabilities.command_list_override() {
            self.registers.set(PX_CMD, command.with_command_list_override(true));
            if self.registers.get(PX_CMD).command_list_override() {
                // Not done yet; there is time for it until the engine has to rest.
                if context.now.reached(until) {
                    self.call_for_hba_reset();
                }
                return;
            }
        }
        if self.is_busy() {
            return self.leave(context);
        }
        self.registers.set(PX_SERR, ALL_ONES & !serial_error::EXCHANGED);
        self.registers.set(PX_IS, PortInterrupts::all());
        self.registers.set(PX_CMD, command.with_start(true));
        self.state = State::Serving;
        if self.is_talking() {
            self.step_failed(context);
        }
    }

    /// Whether the HBA has not let go of commands, with its command engine at rest (AHCI §3.3.13,
    /// §3.3.14).
    fn keeps_commands(&self) -> bool {
        self.registers.get(PX_CI) | self.registers.get(PX_SACT) != 0
    }

    pub(super) fn link_is_up(&self) -> bool {
        self.registers.get(PX_SSTS).detection() == SataStatus::COMMUNICATION
    }

    /// Whether the multiplier has announced itself since that was last asked for: it was reset, or
    /// lost power, and is not ready until it has been looked at again (AHCI §3.3.12).
    pub(super) fn has_started_anew(&self) -> bool {
        let errors = self.registers.get(PX_SERR);
        errors != ALL_ONES && errors & serial_error::EXCHANGED != 0
    }

    /// Whether the engine may not be started because of a device. With FIS-based switching each
    /// has a status of its own.
    pub(super) fn is_busy(&mut self) -> bool {
        let status = Status::from_bits_retain(self.task_file(self.turn).status());
        !self.switching && status.is_busy()
    }

    /// The link to the multiplier was lost, and perhaps its power and that of the devices.
    pub(super) fn lost(&mut self, context: &Context<'_>) {
        for behind in self.all() {
            behind.face.link_is(0);
            // Also one whose link is being reset, which would take it for its own doing.
            behind.port.doubt_cache();
        }
        self.leave(context);
    }

    /// Gives the port back, so that it is reset and looked at again.
    pub(super) fn leave(&mut self, context: &Context<'_>) {
        self.registers.set(PX_IE, PortInterrupts::empty());
        self.state = State::Leaving { until: context.now + limit::ENGINE * 2 };
    }

    fn engines_rest(&mut self) -> bool {
        let Some(command) = self.command_register() else { return false };
        if command.start() {
            self.registers.set(PX_CMD, command.with_start(false));
            return false;
        }
        if command.list_running() {
            return false;
        }
        if command.fis_receive() {
            self.registers.set(PX_CMD, command.with_fis_receive(false));
            return false;
        }
        !command.fis_running()
    }

    fn has_left_port(&mut self, context: &Context<'_>, done: &mut dyn FnMut(Completion)) {
        if self.switching {
            self.registers.set(PX_FBS, FisSwitching::new());
        }
        let Some(command) = self.command_register() else { return self.call_for_hba_reset() };
        self.registers.set(PX_CMD, command.with_multiplier(false));
        self.hba_was_reset(context, done);
        self.wish = Wish::TakeBack;
    }

    /// Nothing of the devices' hold on memory is left; all of them begin anew.
    ///
    /// The multiplier was reset as well, or will be. That makes it forget what has happened to its
    /// links since it was last asked, and resets them: whether a device was cut off meanwhile, nobody
    /// can tell any more.
    pub(crate) fn hba_was_reset(
        &mut self,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        self.state = State::Left;
        self.in_flight = 0;
        (self.errand, self.op, self.next) = (None, None, None);
        (self.draining, self.halted_until) = (None, None);
        for behind in self.all() {
            behind.sent = 0;
            behind.face.reset();
            behind.port.doubt_cache();
            behind.port.hba_was_reset(&context.behind(behind.lag), done);
        }
    }

    /// Only a reset of the HBA helps.
    pub(super) fn call_for_hba_reset(&mut self) {
        self.state = State::NeedsHbaReset;
        self.wish = Wish::HbaReset;
    }

    /// Before a reset of the HBA takes the traces away: whether devices were cut off.
    pub(crate) fn look_for_cut_off(&mut self, context: &Context<'_>) {
        if matches!(self.state, State::Left) {
            return;
        }
        let announced = self.registers.get(PX_SERR) & serial_error::EXCHANGED != 0;
        let up = self.link_is_up();
        for behind in self.all() {
            if announced || !up {
                behind.face.link_is(0);
                behind.port.doubt_cache();
            }
            behind.port.look_for_cut_off(&context.behind(behind.lag));
        }
    }

    /// The HBA is gone, and everything with it.
    pub(crate) fn gone(&mut self, context: &Context<'_>, done: &mut dyn FnMut(Completion)) {
        self.state = State::Left;
        for behind in self.all() {
            behind.port.gone(&context.behind(behind.lag), done);
        }
    }
}
