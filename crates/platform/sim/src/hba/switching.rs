//! Which device a command is for, and whose turn it is (AHCI §9).

use super::HbaModel;
use super::port::Port;
use crate::fault::Fault;
use crate::seat::HOST;
use outboard_ahci::spec::registers::{FisSwitching, PortInterrupts};
use outboard_ahci::spec::structures::CommandHeader;

impl Port {
    /// The seat that a frame for a multiplier's port reaches.
    pub(super) fn route(&mut self, multiplier_port: u8) -> u8 {
        if self.multiplier().is_some() { multiplier_port } else { HOST }
    }

    /// Slots whose commands can be sent now.
    pub(super) fn fetchable(&mut self) -> u32 {
        let waiting = self.issued & !self.fetched;
        if !self.switching.enabled() {
            return if self.is_busy() { 0 } else { waiting };
        }
        let addressees = self.addressees;
        let takes = |slot: &u8| {
            let at = self.route(addressees[usize::from(*slot)]);
            self.seat_mut(at).is_none_or(|seat| !seat.is_busy() && !seat.halted)
        };
        let slots = (0..32u8).filter(|slot| waiting >> slot & 1 == 1).filter(takes);
        slots.fold(0, |slots, slot| slots | 1 << slot)
    }

    /// Slots that are issued, or active.
    const fn outstanding(&self) -> u32 {
        self.issued | self.active
    }
}

impl HbaModel {
    /// Notes whom the commands are for that are being issued, and whether they may be.
    pub(super) fn note_addressees(&mut self, index: u8, slots: u32) {
        let Some(port) = self.port_mut(index) else { return };
        if port.multiplier().is_none() {
            return;
        }
        let (before, switching) = (port.outstanding(), port.switching);
        for slot in (0..32u8).filter(|slot| slots >> slot & 1 == 1) {
            let Some(header) = self.header(index, slot) else { continue };
            let Some(port) = self.port_mut(index) else { return };
            port.addressees[usize::from(slot)] = (header.flags.get() >> 12) as u8;
        }
        let Some(port) = self.port_mut(index) else { return };
        let of = |slots: u32| (0..32u8).filter(move |slot| slots >> slot & 1 == 1);
        let addressee = |slot: u8| port.addressees[usize::from(slot)];
        let Some(first) = of(slots).map(addressee).next() else { return };
        let wrong = match switching.enabled() {
            true if of(slots).map(addressee).any(|one| one != switching.device()) => {
                Some("for another device than PxFBS.DEV says")
            }
            false if of(before | slots).map(addressee).any(|one| one != first) => {
                Some("while those of another device were outstanding")
            }
            _ => None,
        };
        if let Some(wrong) = wrong {
            self.violation(format_args!("port {index}: slots {slots:#x} were issued {wrong}"));
        }
    }

    /// What of a command's addressing is wrong.
    pub(super) fn misaddressed(
        &mut self,
        index: u8,
        header: &CommandHeader,
        multiplier_port: u8,
    ) -> Option<&'static str> {
        let port = self.port_mut(index)?;
        port.multiplier()?;
        match () {
            () if (header.flags.get() >> 12) as u8 != multiplier_port => {
                Some("for another device than its header says")
            }
            () if multiplier_port != HOST && !port.command.multiplier() => {
                Some("for a device behind a multiplier with PxCMD.PMA clear")
            }
            () if port.seat_mut(multiplier_port).is_none() => {
                Some("for a port that does not exist")
            }
            () => None,
        }
    }

    pub(super) fn write_switching(&mut self, index: u8, value: FisSwitching) {
        let Some(port) = self.port_mut(index) else { return };
        if !port.command.fis_switching() {
            return;
        }
        let (before, started) = (port.switching, port.command.start());
        port.switching = before.with_enabled(value.enabled()).with_device(value.device());
        if before.enabled() != value.enabled() && started {
            self.violation(format_args!("port {index}: PxFBS.EN was changed with ST set"));
        }
        if value.clear_error() {
            if before.enabled() && before.single_device_error() {
                self.clear_device_error(index, before.device_with_error());
            } else {
                self.violation(format_args!("port {index}: PxFBS.DEC was set without SDE"));
            }
        }
    }

    /// Takes the commands of the device with an error out of PxCI and PxSACT (AHCI §3.3.16).
    fn clear_device_error(&mut self, index: u8, at: u8) {
        let Some(port) = self.port_mut(index) else { return };
        let slots = (0..32u8).filter(|slot| port.addressees[usize::from(*slot)] == at);
        let slots = slots.fold(0, |slots, slot| slots | 1 << slot);
        port.issued &= !slots;
        port.active &= !slots;
        port.fetched &= !slots;
        port.switching.set_single_device_error(false);
        for execution in &mut port.executing {
            execution.take_if(|execution| execution.at == at);
        }
        if let Some(seat) = port.seat_mut(at) {
            seat.halted = false;
            seat.task_file &= !0x88;
        }
        // Another device may have failed meanwhile.
        if let Some(next) = (0..=HOST).find(|at| port.seat_mut(*at).is_some_and(|seat| seat.halted))
        {
            self.show_device_error(index, next);
        }
        self.update_pending(index);
        self.look_for_commands(index);
    }

    /// A device has reported an error: it alone is stopped, or the whole port.
    pub(super) fn device_failed(&mut self, index: u8, at: u8, fault: Option<Fault>) {
        let switched = self.port_mut(index).is_some_and(|port| port.switching.enabled());
        if !switched || fault == Some(Fault::ErrorNotSingle) {
            if let Some(port) = self.port_mut(index) {
                port.halted = true;
                port.status |= PortInterrupts::TASK_FILE_ERROR;
            }
            return;
        }
        if let Some(seat) = self.seat_mut(index, at) {
            seat.halted = true;
        }
        self.show_device_error(index, at);
    }

    fn show_device_error(&mut self, index: u8, at: u8) {
        let Some(port) = self.port_mut(index) else { return };
        if !port.switching.single_device_error() {
            port.switching =
                port.switching.with_single_device_error(true).with_device_with_error(at);
            port.status |= PortInterrupts::TASK_FILE_ERROR;
        }
    }
}
