//! Where hardware departs from the specification: a table of controllers and one of disks, and what
//! the driver does differently for them.

use outboard_pci::Identity;

/// A way in which a controller or a disk departs from the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quirk {
    /// Queued commands fail.
    NoQueuing,
    /// 64-bit addresses are announced, and do not work.
    NoWideAddresses,
    /// Only 43 bits of an address reach the bus.
    Only43AddressBits,
    /// Commands of more than 255 sectors fail.
    Max255Sectors,
    /// Message-signalled interrupts are announced, and do not work.
    NoMessages,
    /// Links that save power are lost.
    NoLinkPower,
    /// Device sleep is announced, and does not work.
    NoDeviceSleep,
    /// QEMU's disks go on with the other queued commands when one has failed, and its HBA goes on
    /// transferring for them after the command engine was stopped, though it says that it has let
    /// go of them. Only a port reset makes it stop. (It has no log of errors that this would lose.)
    ResetAfterQueuedFailure,
    /// QEMU up to 8.0 (7.2.7 of its stable series) does not report the failure of a queued command
    /// as an error: PxIS.TFES stays 0, and the set-device-bits FIS that carries the error is soon
    /// overwritten by that of another command. What stays is the bit of the command's tag in
    /// PxSERR, so any bit there while queued commands are out is taken for a failure.
    QueuedFailureInSerr,
}

impl Quirk {
    /// What it means, in a sentence.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::NoQueuing => "Queued commands fail, so none are used.",
            Self::NoWideAddresses => "64-bit addresses do not work, so memory below 4 GiB is used.",
            Self::Only43AddressBits => {
                "Only 43 bits of an address work, so memory below 8 TiB is used."
            }
            Self::Max255Sectors => "Longer commands fail, so none has more than 255 sectors.",
            Self::NoMessages => "Message-signalled interrupts get lost, so the pin is used.",
            Self::NoLinkPower => "The link is lost when it saves power, so it never does.",
            Self::NoDeviceSleep => "Device sleep does not work, so it is not used.",
            Self::ResetAfterQueuedFailure => {
                "It goes on transferring after a queued command has failed, so the port is reset."
            }
            Self::QueuedFailureInSerr => {
                "Only PxSERR shows that a queued command has failed, so it is looked at."
            }
        }
    }
}

/// A controller with quirks. What is `None` may be anything.
#[derive(Debug, Clone, Copy)]
pub struct Controller {
    /// What it is called.
    pub name: &'static str,
    /// Vendor.
    pub vendor: Option<u16>,
    /// First and last device of those that it concerns.
    pub devices: Option<(u16, u16)>,
    /// Subsystem vendor and device.
    pub subsystem: Option<(u16, u16)>,
    /// What is wrong with it.
    pub quirks: &'static [Quirk],
}

impl Controller {
    const fn new(
        name: &'static str,
        vendor: u16,
        (first, last): (u16, u16),
        quirks: &'static [Quirk],
    ) -> Self {
        let (vendor, devices) = (Some(vendor), Some((first, last)));
        Self { name, vendor, devices, subsystem: None, quirks }
    }

    fn is(&self, identity: &Identity) -> bool {
        self.vendor.is_none_or(|vendor| vendor == identity.vendor)
            && self.devices.is_none_or(|(first, last)| (first..=last).contains(&identity.device))
            && (self.subsystem.is_none() || self.subsystem == identity.subsystem)
    }
}

/// A disk with quirks.
#[derive(Debug, Clone, Copy)]
pub struct Disk {
    /// What its model starts with.
    pub model: &'static str,
    /// Its firmware, if it is not all.
    pub firmware: Option<&'static str>,
    /// What is wrong with it.
    pub quirks: &'static [Quirk],
}

impl Disk {
    const fn new(
        model: &'static str,
        firmware: Option<&'static str>,
        quirks: &'static [Quirk],
    ) -> Self {
        Self { model, firmware, quirks }
    }

    fn is(&self, model: &str, firmware: &str) -> bool {
        model.starts_with(self.model) && self.firmware.is_none_or(|known| known == firmware)
    }
}

/// Controllers with quirks.
pub const CONTROLLERS: &[Controller] = &[
    Controller {
        name: "QEMU",
        vendor: None,
        devices: None,
        subsystem: Some((0x1af4, 0x1100)),
        quirks: &[Quirk::ResetAfterQueuedFailure, Quirk::QueuedFailureInSerr],
    },
    Controller::new(
        "ATI SB600",
        0x1002,
        (0x4380, 0x4380),
        &[Quirk::NoWideAddresses, Quirk::Max255Sectors, Quirk::NoMessages],
    ),
    Controller::new("VIA VT8251", 0x1106, (0x3349, 0x3349), &[Quirk::NoQueuing]),
    Controller::new("VIA VT8251", 0x1106, (0x6287, 0x6287), &[Quirk::NoQueuing]),
    Controller::new(
        "Marvell 88SE6121",
        0x11ab,
        (0x6121, 0x6121),
        &[Quirk::NoQueuing, Quirk::NoMessages],
    ),
    Controller::new(
        "Marvell 88SE6145",
        0x11ab,
        (0x6145, 0x6145),
        &[Quirk::NoQueuing, Quirk::NoMessages],
    ),
    Controller::new("ASMedia ASM1060", 0x1b21, (0x0601, 0x0602), &[Quirk::Only43AddressBits]),
    Controller::new("ASMedia ASM1061", 0x1b21, (0x0611, 0x0612), &[Quirk::Only43AddressBits]),
    Controller::new("Samsung, in SSDs", 0x144d, (0x1600, 0x1600), &[Quirk::NoMessages]),
    Controller::new("Samsung, in SSDs", 0x144d, (0xa800, 0xa800), &[Quirk::NoMessages]),
    Controller::new("Intel Bay Trail", 0x8086, (0x0f23, 0x0f23), &[Quirk::NoDeviceSleep]),
];

/// Disks with quirks.
pub const DISKS: &[Disk] = &[
    Disk::new("WDC WD740ADFD-00", None, &[Quirk::NoQueuing]),
    Disk::new("FUJITSU MHT2060BH", None, &[Quirk::NoQueuing]),
    Disk::new("ST380817AS", Some("3.42"), &[Quirk::NoQueuing]),
    Disk::new("ST3160023AS", Some("3.42"), &[Quirk::NoQueuing]),
    Disk::new("OCZ CORE_SSD", Some("02.10104"), &[Quirk::NoQueuing]),
    Disk::new("OCZ-VERTEX", Some("1.30"), &[Quirk::NoQueuing]),
    Disk::new("Crucial_CT512MX100", Some("MU01"), &[Quirk::NoLinkPower]),
    Disk::new("SAMSUNG MZ7TD256HAFV-000L9", None, &[Quirk::NoLinkPower]),
];

/// What to do differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Quirks {
    pub(crate) reset_after_queued_failure: bool,
    pub(crate) queued_failure_in_serr: bool,
    pub(crate) no_queuing: bool,
    pub(crate) max_255_sectors: bool,
    pub(crate) no_messages: bool,
    pub(crate) no_link_power: bool,
    pub(crate) no_device_sleep: bool,
    /// How many bits an address has at most; 0 for as many as the HBA says.
    pub(crate) address_bits: u8,
}

impl Quirks {
    /// What is known about a controller.
    pub(crate) fn of(identity: &Identity) -> Self {
        let known = CONTROLLERS.iter().filter(|controller| controller.is(identity));
        known.flat_map(|controller| controller.quirks).fold(Self::default(), Self::with)
    }

    /// Highest address, where 64 bits would do otherwise.
    pub(crate) const fn highest_address(self) -> u64 {
        match self.address_bits {
            0 => u64::MAX,
            bits => u64::MAX >> (64 - bits),
        }
    }

    fn with(mut self, quirk: &Quirk) -> Self {
        match quirk {
            Quirk::NoQueuing => self.no_queuing = true,
            Quirk::NoWideAddresses => self.address_bits = 32,
            Quirk::Only43AddressBits => self.address_bits = 43,
            Quirk::Max255Sectors => self.max_255_sectors = true,
            Quirk::NoMessages => self.no_messages = true,
            Quirk::NoLinkPower => self.no_link_power = true,
            Quirk::NoDeviceSleep => self.no_device_sleep = true,
            Quirk::ResetAfterQueuedFailure => self.reset_after_queued_failure = true,
            Quirk::QueuedFailureInSerr => self.queued_failure_in_serr = true,
        }
        self
    }
}

/// What is known about a disk.
pub(crate) fn of_disk(model: &str, firmware: &str) -> Quirks {
    let known = DISKS.iter().filter(|disk| disk.is(model, firmware));
    known.flat_map(|disk| disk.quirks).fold(Quirks::default(), Quirks::with)
}

#[cfg(test)]
mod tests {
    use super::*;
    use outboard_pci::Class;

    fn identity(vendor: u16, device: u16, subsystem: Option<(u16, u16)>) -> Identity {
        let class = Class { base: 1, sub: 6, interface: 1 };
        Identity { vendor, device, subsystem, class, revision: 0 }
    }

    #[test]
    fn controllers_are_known_by_their_numbers() {
        assert_eq!(Quirks::of(&identity(0x8086, 0x2922, None)), Quirks::default());
        let qemu = Quirks::of(&identity(0x8086, 0x2922, Some((0x1af4, 0x1100))));
        assert!(qemu.queued_failure_in_serr && qemu.reset_after_queued_failure);
        let sb600 = Quirks::of(&identity(0x1002, 0x4380, None));
        assert_eq!(sb600.highest_address(), u32::MAX.into());
        assert!(sb600.max_255_sectors && sb600.no_messages && !sb600.no_queuing);
        assert_eq!(Quirks::of(&identity(0x1b21, 0x0612, None)).highest_address(), (1 << 43) - 1);
    }

    #[test]
    fn disks_are_known_by_their_model_and_firmware() {
        assert!(of_disk("OCZ-VERTEX 30GB", "1.30").no_queuing);
        assert!(!of_disk("OCZ-VERTEX 30GB", "1.31").no_queuing);
        assert!(of_disk("WDC WD740ADFD-00NLR1", "whatever").no_queuing);
        assert_eq!(of_disk("QEMU HARDDISK", "2.5+"), Quirks::default());
    }
}
