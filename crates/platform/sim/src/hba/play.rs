//! What somebody can do to the model beside faults, and see of it.

use super::{Enclosure, HbaModel};
use crate::sata::SataDevice;
use crate::seat::HOST;
use core::time::Duration;
use outboard_ahci::spec::registers::PortInterrupts;

impl HbaModel {
    /// The device at a port.
    pub fn device(&mut self, port: u8) -> Option<&mut (dyn SataDevice + 'static)> {
        self.port_mut(port)?.seat.device.as_deref_mut()
    }

    /// The enclosure, if it says that it has one.
    pub const fn enclosure(&mut self) -> &mut Enclosure {
        &mut self.enclosure
    }

    pub(super) const fn has_enclosure(&self) -> bool {
        self.config.capabilities.enclosure()
    }

    /// Whether a port has the DEVSLP signal.
    pub fn wire_sleep(&mut self, port: u8) {
        if let Some(port) = self.port_mut(port) {
            port.sleep.set_present(true);
        }
    }

    /// The cable of a port damages all data of reads and writes at generations above this one.
    pub fn damage_above(&mut self, port: u8, generation: u8) {
        if let Some(port) = self.port_mut(port) {
            port.sound_up_to = generation;
        }
    }

    /// Pulls a device out, which loses power, and hands it over.
    pub fn detach(&mut self, port: u8) -> Option<Box<dyn SataDevice>> {
        self.unplug(port, HOST);
        self.port_mut(port)?.seat.pulled.take()
    }

    /// The link of a port is lost for so long.
    pub fn lose_link(&mut self, port: u8, time: Duration) {
        self.link_down(port, HOST, Some(time));
    }

    /// The device at a port is without power for so long.
    pub fn lose_power(&mut self, port: u8, time: Duration) {
        self.cut_power(port);
        self.link_down(port, HOST, Some(time));
    }

    /// Opens or closes the presence switch of a port, which has one from then on.
    pub fn set_switch(&mut self, port: u8, open: bool) {
        if let Some(port) = self.port_mut(port) {
            port.switch_open = Some(open);
        }
        self.place_changed(port, PortInterrupts::PRESENCE_SWITCH);
    }

    /// Tells what the cold presence detection of a port detects, which has one from then on.
    pub fn set_cold_presence(&mut self, port: u8, present: bool) {
        if let Some(port) = self.port_mut(port) {
            port.cold_present = Some(present);
        }
        self.place_changed(port, PortInterrupts::COLD_PRESENCE);
    }

    fn place_changed(&mut self, index: u8, told_by: PortInterrupts) {
        match self.port_mut(index).map(|port| (port.is_closed(), port.is_up())) {
            Some((false, true)) => self.link_down(index, HOST, None),
            Some((true, false)) => self.begin_link(index, HOST),
            _ => {}
        }
        self.add_status(index, told_by);
    }

    /// Sets bits of PxIS and PxSERR, for nothing.
    pub fn disturb(&mut self, port: u8, interrupts: PortInterrupts, errors: u32) {
        self.set_errors(port, errors);
        self.add_status(port, interrupts);
    }

    /// From now on PxCMD of a port reads as all ones, until a reset of the HBA.
    pub fn mute(&mut self, port: u8) {
        if let Some(port) = self.port_mut(port) {
            port.mute = true;
        }
    }

    /// PxCMD reads as what it is again.
    pub fn unmute(&mut self, port: u8) {
        if let Some(port) = self.port_mut(port) {
            port.mute = false;
        }
    }

    /// From now on PxSACT shows these tags while ST is set, until the HBA is reset.
    pub fn show_strays(&mut self, port: u8, tags: u32) {
        if let Some(port) = self.port_mut(port) {
            port.strays = tags;
        }
    }

    /// How often the HBA was reset.
    pub const fn resets(&self) -> u32 {
        self.reset_epoch
    }

    /// How many COMRESETs the device at a port has got.
    pub fn link_resets(&mut self, port: u8) -> u32 {
        self.port_mut(port).map_or(0, |port| port.seat.resets)
    }

    /// How many pieces of memory a device would be given that names the tag of `slot`.
    pub fn reachable(&mut self, port: u8, slot: u8) -> u16 {
        self.header(port, slot).map_or(0, |header| header.prdt_entries.get())
    }
}
