//! What happens around the model's devices: plugging, switches, link states, and LEDs.

use super::{Disk, Model, Port};
use outboard_ahci::spec::registers::*;

/// Where the enclosure's buffer is, behind the last port.
pub const EM_BUFFER: usize = 0x1100;

/// A place for a disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Place {
    /// Whether there is a presence switch, and it is open.
    pub switch_open: Option<bool>,
    /// Whether there is cold presence detection, and it detects something.
    pub cold_present: Option<bool>,
}

impl Place {
    pub(super) fn is_closed(self) -> bool {
        self.switch_open != Some(true)
    }

    /// PxCMD, with what the place adds to it.
    pub(super) fn show(self, command: PortCommand) -> PortCommand {
        command
            .with_has_switch(self.switch_open.is_some())
            .with_switch_open(self.switch_open == Some(true))
            .with_cold_detection(self.cold_present.is_some())
            .with_cold_present(self.cold_present == Some(true))
    }
}

impl Port {
    pub(super) fn has_power(&self) -> bool {
        self.place.cold_present.is_none_or(|present| present && self.command.power_on())
    }

    /// The command register, and the control of the link.
    pub fn settings(&self) -> (PortCommand, SataControl, DeviceSleep) {
        (self.command, self.control.into(), self.sleep)
    }

    /// Whether DEVSLP is wired up.
    pub fn wire_sleep(&mut self) {
        self.sleep = self.sleep.with_present(true);
    }

    /// Lets the link fail without harm, or an unknown FIS arrive.
    pub fn disturb(&mut self, interrupts: PortInterrupts, errors: u32) {
        self.interrupts |= interrupts.bits();
        self.errors |= errors;
    }

    /// Which interrupts the driver wants.
    pub fn wanted(&self) -> PortInterrupts {
        self.enabled.into()
    }

    pub(super) fn status(&self) -> SataStatus {
        let closed = self.place.is_closed();
        let listens = !self.command.spin_up() || self.numb;
        if self.disk.is_none() || self.deaf || listens || !closed || !self.has_power() {
            return SataStatus::new();
        }
        let allowed = !SataControl::from(self.control).no_power_states();
        let power = match self.command.prefer_slumber() {
            _ if !self.command.link_power() => SataStatus::ACTIVE,
            true if allowed & SataControl::NO_SLUMBER != 0 => SataStatus::SLUMBER,
            false if allowed & SataControl::NO_PARTIAL != 0 => SataStatus::PARTIAL,
            _ => SataStatus::ACTIVE,
        };
        let connected = SataStatus::new().with_detection(SataStatus::COMMUNICATION);
        connected.with_speed(self.speed).with_power(power)
    }

    /// Agrees on a speed, when the link is reset.
    pub(super) fn settle_speed(&mut self) {
        let most = self.disk.as_ref().map_or(0, |disk| disk.speed);
        let limit = SataControl::from(self.control).speed();
        self.speed = if limit == 0 { most } else { most.min(limit) };
    }

    pub(super) fn set_sleep(&mut self, value: DeviceSleep) {
        let same = |a: DeviceSleep, b: DeviceSleep| {
            a.with_aggressive(false).into_bits() == b.with_aggressive(false).into_bits()
        };
        let value = value.with_present(self.sleep.present());
        assert!(!self.command.start() || same(value, self.sleep), "times are set at rest");
        self.sleep = value;
    }
}

impl Model {
    /// Takes the disk out. What was in its cache is lost.
    pub fn unplug(&mut self, index: usize) -> Option<Disk> {
        let port = &mut self.ports[index];
        port.queue.clear();
        port.errors |= serial_error::PHY_READY;
        port.numb = true;
        (port.task_file, port.active, port.issued) = (0x7f, port.active, port.issued);
        let mut disk = port.disk.take()?;
        disk.content.clone_from(&disk.durable);
        disk.stuck = false;
        Some(disk)
    }

    /// Puts a disk in.
    pub fn plug(&mut self, index: usize, disk: Disk) {
        let port = &mut self.ports[index];
        port.disk = Some(disk);
        if !port.numb {
            port.errors |= serial_error::PHY_READY;
        }
        self.device_reset(index);
    }

    /// Opens or closes the presence switch.
    pub fn switch(&mut self, index: usize, open: bool) {
        let port = &mut self.ports[index];
        port.place.switch_open = Some(open);
        port.interrupts |= PortInterrupts::PRESENCE_SWITCH.bits();
    }

    /// Tells what the cold presence detection detects.
    pub fn detect(&mut self, index: usize, present: bool) {
        let port = &mut self.ports[index];
        port.place.cold_present = Some(present);
        port.interrupts |= PortInterrupts::COLD_PRESENCE.bits();
    }

    /// Entering and leaving the states that save power, the PHY is not ready for a moment.
    pub(super) fn save_power(&mut self, index: usize) {
        let port = &mut self.ports[index];
        if port.command.link_power() {
            port.errors |= serial_error::PHY_READY;
        }
    }
}

/// Page 08h of log 30h: MDAT 5 ms, DETO 40 ms.
pub fn sleep_timing_page() -> Vec<u8> {
    let mut page = vec![0; 512];
    (page[0], page[2], page[7]) = (1, 8, 0x80);
    (page[48], page[49], page[55]) = (5, 40, 0x80);
    page
}

/// An enclosure.
#[derive(Debug, Default)]
pub struct EnclosureModel {
    pub present: bool,
    /// Where it says that its buffer is, in dwords; 0 for where it is.
    pub offset_dwords: u16,
    /// It does not take the next messages.
    pub stuck: u32,
    pub buffer: [u32; 2],
    transmitting: bool,
    /// Messages that it got.
    pub messages: Vec<LedMessage>,
    /// How often it was reset.
    pub resets: u32,
}

impl EnclosureModel {
    pub(super) fn location(&self) -> EnclosureLocation {
        let offset =
            if self.offset_dwords == 0 { EM_BUFFER as u16 / 4 } else { self.offset_dwords };
        EnclosureLocation::new().with_size_dwords(2).with_offset_dwords(offset)
    }

    pub(super) fn control(&self) -> EnclosureControl {
        EnclosureControl::new().with_led(self.present).with_transmit(self.transmitting)
    }

    pub(super) fn write_control(&mut self, control: EnclosureControl) {
        if control.reset() {
            (self.transmitting, self.resets) = (false, self.resets + 1);
            self.stuck = self.stuck.saturating_sub(1);
        }
        self.transmitting |= control.transmit();
    }

    pub(super) fn run(&mut self) {
        if self.transmitting && self.stuck == 0 {
            self.transmitting = false;
            self.messages.push(LedMessage::from_dwords(self.buffer).unwrap());
        }
    }
}

/// An identification with a damaged byte: of the serial number, or, the last but one, of what the
/// disk can do.
pub fn nonsense(disk: &mut Disk) -> Vec<u8> {
    let mut page = disk.identify().to_vec();
    match disk.nonsense {
        many @ 3.. => page[20] = b'a' + (many % 26) as u8,
        2 => page[99] = 0,
        _ => page[20] ^= 3,
    }
    page[510] = 0;
    disk.nonsense -= 1;
    page
}
