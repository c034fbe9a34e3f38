//! What somebody can do to the model beside faults, and see of it.

use super::HbaModel;
use crate::sata::SataDevice;
use crate::seat::HOST;
use core::time::Duration;

impl HbaModel {
    /// The device at a port.
    pub fn device(&mut self, port: u8) -> Option<&mut (dyn SataDevice + 'static)> {
        self.port_mut(port)?.seat.device.as_deref_mut()
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
