//! A port's engines: the one that works on the command list (ST, CR), and the one that posts
//! received FISes (FRE, FR). AHCI §10.3.

use super::{Context, Port, State};
use crate::config::limit;
use crate::event::Event;
use crate::sabotage::Sabotage;
use crate::spec::registers::{
    ALL_ONES, PX_CI, PX_CLB, PX_CLBU, PX_CMD, PX_FB, PX_FBU, PX_IE, PX_IS, PX_SCTL, PX_SERR,
    PX_SIG, PortCommand, PortInterrupts, interface_state, signature,
};
use outboard_block::{Completion, FailedReason, UnitState};
use outboard_hw::Registers;
use outboard_hw::registers::RegistersExt;

impl<R: Registers> Port<R> {
    /// PxCMD; `None` if the HBA is gone.
    pub(super) fn command_register(&self) -> Option<PortCommand> {
        let command = self.registers.get(PX_CMD);
        (command.into_bits() != ALL_ONES).then_some(command)
    }

    /// Brings the port up from nothing: after a reset of the HBA.
    pub(crate) fn start(&mut self, context: &Context<'_>, done: &mut dyn FnMut(Completion)) {
        self.left_out = context.config.left_out();
        if !self.known {
            self.unit.state = UnitState::Starting;
        }
        if self.memory.is_none() {
            let entries = context.config.prdt_entries;
            match super::PortMemory::allocate(context.dma, &context.constraints, entries) {
                Ok(memory) => self.memory = Some(memory),
                Err(_) => return self.give_up(FailedReason::NoMemory, context, done),
            }
        }
        self.stop_engines(true);
        self.enter(State::Quiescing { until: context.now + limit::ENGINE }, context.now);
    }

    /// Clears ST, and FRE too if `receive_too`: FRE only once ST was seen to have taken effect
    /// (AHCI §10.3.2). Returns whether the engines are at rest.
    fn stop_engines(&mut self, receive_too: bool) -> bool {
        let Some(command) = self.command_register() else { return false };
        if command.start() {
            self.registers.set(PX_CMD, command.with_start(false));
            return false;
        }
        if command.list_running() {
            return false;
        }
        if receive_too && command.fis_receive() {
            self.registers.set(PX_CMD, command.with_fis_receive(false));
            return false;
        }
        !receive_too || !command.fis_running()
    }

    /// Waits for both engines to rest, then sets their addresses and powers the link up.
    pub(super) fn quiesce(
        &mut self,
        until: outboard_hw::Instant,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        if !self.stop_engines(true) {
            if context.now.reached(until) {
                // The HBA was just reset, so this port will not come to rest by itself.
                return self.give_up(FailedReason::GivenUp, context, done);
            }
            self.look_at = Some(context.now + limit::LOOK);
            return;
        }
        let Some(command) = self.command_register() else { return self.call_for_hba_reset() };
        let Some(memory) = &mut self.memory else { return };
        let (list, received) = (memory.command_list(), memory.received());
        self.registers.set(PX_CLB, list.low());
        self.registers.set(PX_CLBU, list.high());
        self.registers.set(PX_FB, received.low());
        self.registers.set(PX_FBU, received.high());
        self.registers.set(PX_SCTL, self.link.quiet());
        self.registers.set(PX_SERR, ALL_ONES);
        self.registers.set(PX_IS, PortInterrupts::all());
        let command = command.with_spin_up(true).with_power_on(true).with_fis_receive(true);
        self.registers.set(PX_CMD, command.with_interface_state(interface_state::ACTIVE));
        // A reset of the HBA has reset the device too, but not to a slower link.
        match core::mem::take(&mut self.hot) || self.link.is_limited() {
            true => self.send_comreset(context),
            false => self.begin_link(context),
        }
    }

    /// Starts the command engine. The link is up and the device is not busy (AHCI §10.3.1).
    pub(super) fn start_engine(&mut self, context: &Context<'_>) -> bool {
        let Some(command) = self.command_register() else { return false };
        if command.list_running() {
            return false;
        }
        self.registers.set(PX_SERR, ALL_ONES);
        self.registers.set(PX_IS, PortInterrupts::all());
        self.make_kept_slots_harmless(context);
        if let Some(memory) = &mut self.memory {
            // An old error is not to be taken for a new one.
            memory.forget_received();
        }
        self.registers.set(PX_CMD, command.with_start(true));
        true
    }

    /// Says whether the device takes packets, for the HBA's LED (AHCI §3.3.7, PxCMD.ATAPI).
    pub(super) fn mark_packets(&mut self, takes_packets: bool) {
        if let Some(command) = self.command_register().filter(|c| c.atapi() != takes_packets) {
            self.registers.set(PX_CMD, command.with_atapi(takes_packets));
        }
    }

    /// Whether the device takes packets, by its signature.
    pub(super) fn takes_packets(&self) -> bool {
        self.registers.get(PX_SIG) == signature::ATAPI
    }

    /// PxCI is cleared when ST is (AHCI §3.3.14). An HBA that keeps it (QEMU's does) would fetch
    /// those slots again, so they get a command table without a command in it.
    fn make_kept_slots_harmless(&mut self, context: &Context<'_>) {
        let kept = self.registers.get(PX_CI);
        if kept == 0 {
            return;
        }
        self.record(context, Event::KeptSlots(kept));
        if let Some(memory) = &mut self.memory {
            (0..32).filter(|slot| kept >> slot & 1 == 1).for_each(|slot| memory.blank(slot));
        }
    }

    /// Asks both engines to stop; whether they are at rest.
    pub(super) fn stop_both(&mut self) -> bool {
        self.stop_engines(true)
    }

    /// Asks the command engine to stop; see [`is_stopped`](Self::is_stopped).
    pub(super) fn stop_engine(&mut self) {
        self.stop_engines(false);
    }

    /// Whether the command engine is at rest.
    pub(super) fn is_stopped(&mut self) -> bool {
        self.stop_engines(false) || self.left_out.has(Sabotage::EngineStops)
    }

    /// Begins to shut the port down.
    pub(super) fn begin_halt(&mut self, context: &Context<'_>) {
        self.registers.set(PX_IE, PortInterrupts::empty());
        self.wake_link();
        self.stop_engines(true);
        self.enter(State::Halting { until: context.now + limit::ENGINE * 2 }, context.now);
    }

    pub(super) fn await_halt(
        &mut self,
        until: outboard_hw::Instant,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        // If it does not come to rest, the end of bus mastering will make it.
        if self.stop_engines(true) || context.now.reached(until) {
            self.rest(UnitState::Stopping, done);
        } else {
            self.look_at = Some(context.now + limit::LOOK);
        }
    }
}
