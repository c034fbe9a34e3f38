//! The configuration header: offsets, bits and identity (PCI §6.1, §6.2).

use crate::ConfigSpace;
use bitflags::bitflags;
use core::fmt;

/// Vendor ID; all ones where no function is.
pub const VENDOR_ID: u16 = 0x00;
/// Device ID.
pub const DEVICE_ID: u16 = 0x02;
/// Command register; see [`Command`].
pub const COMMAND: u16 = 0x04;
/// Status register. Its error bits are cleared by writing ones.
pub const STATUS: u16 = 0x06;
/// Revision ID.
pub const REVISION: u16 = 0x08;
/// Programming interface, followed by subclass and base class.
pub const CLASS: u16 = 0x09;
/// Header layout in bits 6:0, multi-function in bit 7.
pub const HEADER_TYPE: u16 = 0x0e;
/// First base address register; each takes four bytes.
pub const BAR0: u16 = 0x10;
/// Subsystem vendor ID, in header type 0.
pub const SUBSYSTEM_VENDOR_ID: u16 = 0x2c;
/// Subsystem ID, in header type 0.
pub const SUBSYSTEM_ID: u16 = 0x2e;
/// Offset of the first capability.
pub const CAPABILITIES: u16 = 0x34;
/// Interrupt pin: 1 for INTA#, 0 for none.
pub const INTERRUPT_PIN: u16 = 0x3d;

/// What a vendor ID reads as where no function is.
pub const NO_FUNCTION: u16 = 0xffff;
/// Bit of [`STATUS`]: the function has a list of capabilities.
pub const STATUS_CAPABILITIES: u16 = 1 << 4;
/// Bit of [`HEADER_TYPE`]: the device has more functions than this one.
pub const MULTI_FUNCTION: u8 = 1 << 7;

bitflags! {
    /// The command register (PCI §6.2.2).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Command: u16 {
        /// Responds to I/O accesses.
        const IO = 1 << 0;
        /// Responds to memory accesses.
        const MEMORY = 1 << 1;
        /// May read and write memory on its own, and send messages.
        const BUS_MASTER = 1 << 2;
        /// Must not assert its interrupt pin.
        const INTERRUPT_DISABLE = 1 << 10;
        /// Whatever else a function implements is kept.
        const _ = !0;
    }
}

impl Command {
    /// Reads the register.
    pub fn read(config: &mut (impl ConfigSpace + ?Sized)) -> Self {
        Self::from_bits_retain(config.read_u16(COMMAND))
    }

    /// Sets and clears bits, leaving the others as they are.
    pub fn change(config: &mut (impl ConfigSpace + ?Sized), set: Self, clear: Self) {
        let command = Self::read(config).union(set).difference(clear);
        config.write_u16(COMMAND, command.bits());
    }
}

/// How a header is laid out (PCI §6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Type 0: a device.
    Endpoint,
    /// Type 1: a bridge to another PCI bus.
    Bridge,
    /// Type 2: a bridge to CardBus.
    CardBus,
    /// A layout that no specification gives.
    Unknown(u8),
}

impl Layout {
    /// Reads bits 6:0 of the header type.
    pub const fn from_bits(bits: u8) -> Self {
        match bits & !MULTI_FUNCTION {
            0 => Self::Endpoint,
            1 => Self::Bridge,
            2 => Self::CardBus,
            other => Self::Unknown(other),
        }
    }

    /// How many base address registers the layout has.
    pub const fn bars(self) -> u8 {
        match self {
            Self::Endpoint => 6,
            Self::Bridge => 2,
            Self::CardBus => 1,
            Self::Unknown(_) => 0,
        }
    }
}

/// The class code: what a function is for (PCI appendix D).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Class {
    /// Base class, such as 01h for mass storage.
    pub base: u8,
    /// Subclass, such as 06h for Serial ATA.
    pub sub: u8,
    /// Programming interface, such as 01h for AHCI.
    pub interface: u8,
}

impl Class {
    /// A host bridge.
    pub const HOST_BRIDGE: (u8, u8) = (0x06, 0x00);
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{:02x}{:02x}", self.base, self.sub, self.interface)
    }
}

/// What a function says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID, given by the vendor.
    pub device: u16,
    /// Subsystem vendor and subsystem ID, in header type 0.
    pub subsystem: Option<(u16, u16)>,
    /// Class code.
    pub class: Class,
    /// Revision ID.
    pub revision: u8,
}

impl Identity {
    /// Reads the identity; `None` if no function answers.
    pub fn read(config: &mut (impl ConfigSpace + ?Sized)) -> Option<Self> {
        let vendor = config.read_u16(VENDOR_ID);
        if vendor == NO_FUNCTION {
            return None;
        }
        let layout = Layout::from_bits(config.read_u8(HEADER_TYPE));
        let mut word = |offset| config.read_u16(offset);
        let subsystem =
            (layout == Layout::Endpoint).then(|| (word(SUBSYSTEM_VENDOR_ID), word(SUBSYSTEM_ID)));
        let device = word(DEVICE_ID);
        let mut byte = |offset| config.read_u8(offset);
        let class = Class { interface: byte(CLASS), sub: byte(CLASS + 1), base: byte(CLASS + 2) };
        Some(Self { vendor, device, subsystem, class, revision: byte(REVISION) })
    }
}
