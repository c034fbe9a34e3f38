//! Registers of the host bus adapter (HBA) and of its ports (AHCI §3).

use bitfield_struct::bitfield;
use bitflags::bitflags;
use outboard_hw::register_value;
use outboard_hw::registers::{ReadOnly, ReadWrite, Register};

mod enclosure;
mod link;

pub use enclosure::{EnclosureControl, EnclosureLocation, LedMessage};
pub use link::{DeviceSleep, FisSwitching, SataControl, SataStatus, interface_state, serial_error};

/// The base address register that holds all the others, "ABAR" (AHCI §2.1.11).
pub const ABAR: u8 = 5;
/// The most ports that an HBA has.
pub const MAX_PORTS: usize = 32;
/// The most command slots that a port has.
pub const MAX_SLOTS: usize = 32;

/// Host capabilities (AHCI §3.1.1).
pub const CAP: Register<Capabilities, ReadOnly> = Register::at(0x00);
/// Global host control (AHCI §3.1.2).
pub const GHC: Register<GlobalControl, ReadWrite> = Register::at(0x04);
/// Interrupt status, a bit for each port; write 1 to clear (AHCI §3.1.3).
pub const IS: Register<u32, ReadWrite> = Register::at(0x08);
/// Ports implemented, a bit for each port (AHCI §3.1.4).
pub const PI: Register<u32, ReadOnly> = Register::at(0x0c);
/// Version, major in the upper half (AHCI §3.1.5).
pub const VS: Register<u32, ReadOnly> = Register::at(0x10);
/// Where the enclosure management buffers are (AHCI §3.1.7).
pub const EM_LOC: Register<EnclosureLocation, ReadOnly> = Register::at(0x1c);
/// Enclosure management control (AHCI §3.1.8).
pub const EM_CTL: Register<EnclosureControl, ReadWrite> = Register::at(0x20);
/// Host capabilities extended (AHCI §3.1.10).
pub const CAP2: Register<Capabilities2, ReadOnly> = Register::at(0x24);
/// BIOS/OS hand-off control and status (AHCI §3.1.11).
pub const BOHC: Register<HandOff, ReadWrite> = Register::at(0x28);

/// Where the registers of the first port start, and how many bytes each port has (AHCI §3).
pub const PORTS_BASE: usize = 0x100;
/// Bytes of one port's registers.
pub const PORT_BYTES: usize = 0x80;

/// Where the registers of port `index` start.
pub const fn port_base(index: usize) -> usize {
    PORTS_BASE + index * PORT_BYTES
}

/// Command list base address, 1 KiB aligned (AHCI §3.3.1).
pub const PX_CLB: Register<u32, ReadWrite> = Register::at(0x00);
/// Upper 32 bits of the command list base address (AHCI §3.3.2).
pub const PX_CLBU: Register<u32, ReadWrite> = Register::at(0x04);
/// Received FIS base address, 256-byte aligned (AHCI §3.3.3).
pub const PX_FB: Register<u32, ReadWrite> = Register::at(0x08);
/// Upper 32 bits of the received FIS base address (AHCI §3.3.4).
pub const PX_FBU: Register<u32, ReadWrite> = Register::at(0x0c);
/// Interrupt status; write 1 to clear (AHCI §3.3.5).
pub const PX_IS: Register<PortInterrupts, ReadWrite> = Register::at(0x10);
/// Interrupt enable (AHCI §3.3.6).
pub const PX_IE: Register<PortInterrupts, ReadWrite> = Register::at(0x14);
/// Command and status (AHCI §3.3.7).
pub const PX_CMD: Register<PortCommand, ReadWrite> = Register::at(0x18);
/// Task file data (AHCI §3.3.8).
pub const PX_TFD: Register<TaskFile, ReadOnly> = Register::at(0x20);
/// Signature (AHCI §3.3.9).
pub const PX_SIG: Register<u32, ReadOnly> = Register::at(0x24);
/// Serial ATA status, SCR0 (AHCI §3.3.10).
pub const PX_SSTS: Register<SataStatus, ReadOnly> = Register::at(0x28);
/// Serial ATA control, SCR2 (AHCI §3.3.11).
pub const PX_SCTL: Register<SataControl, ReadWrite> = Register::at(0x2c);
/// Serial ATA error, SCR1, bits as in [`serial_error`]; write 1 to clear (AHCI §3.3.12).
pub const PX_SERR: Register<u32, ReadWrite> = Register::at(0x30);
/// Serial ATA active, SCR3: tags of queued commands outstanding (AHCI §3.3.13).
pub const PX_SACT: Register<u32, ReadWrite> = Register::at(0x34);
/// Command issue: slots that the HBA has still to work on (AHCI §3.3.14).
pub const PX_CI: Register<u32, ReadWrite> = Register::at(0x38);
/// SNotification, SCR4: a bit for each device behind a port multiplier, bit 0 for a device without
/// one; write 1 to clear (AHCI §3.3.15).
pub const PX_SNTF: Register<u32, ReadWrite> = Register::at(0x3c);
/// FIS-based switching (AHCI §3.3.16).
pub const PX_FBS: Register<FisSwitching, ReadWrite> = Register::at(0x40);
/// Device sleep (AHCI §3.3.17).
pub const PX_DEVSLP: Register<DeviceSleep, ReadWrite> = Register::at(0x44);

/// Host capabilities (AHCI §3.1.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Capabilities {
    /// NP: number of ports, minus one.
    #[bits(5)]
    pub ports_minus_one: u8,
    /// SXS: external ports.
    pub external: bool,
    /// EMS: enclosure management.
    pub enclosure: bool,
    /// CCCS: command completion coalescing.
    pub coalescing: bool,
    /// NCS: command slots in each port, minus one.
    #[bits(5)]
    pub slots_minus_one: u8,
    /// PSC: partial state.
    pub partial: bool,
    /// SSC: slumber state.
    pub slumber: bool,
    /// PMD: several PIO data blocks in one DRQ.
    pub pio_multiple: bool,
    /// FBSS: FIS-based switching.
    pub fis_switching: bool,
    /// SPM: port multipliers.
    pub port_multiplier: bool,
    /// SAM: AHCI only, no legacy interface.
    pub ahci_only: bool,
    __: bool,
    /// ISS: highest link speed, as generation.
    #[bits(4)]
    pub speed: u8,
    /// SCLO: command list override.
    pub command_list_override: bool,
    /// SAL: activity LED.
    pub led: bool,
    /// SALP: aggressive link power management.
    pub link_power: bool,
    /// SSS: staggered spin-up.
    pub staggered: bool,
    /// SMPS: mechanical presence switch.
    pub presence_switch: bool,
    /// SSNTF: SNotification register.
    pub notification: bool,
    /// SNCQ: native command queuing.
    pub ncq: bool,
    /// S64A: 64-bit addressing.
    pub wide: bool,
}

/// Global host control (AHCI §3.1.2).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct GlobalControl {
    /// HR: HBA reset; reads 1 until the reset is done.
    pub reset: bool,
    /// IE: interrupt enable.
    pub interrupts: bool,
    /// MRSM: the HBA reverted to a single MSI.
    pub single_message: bool,
    #[bits(28)]
    __: u32,
    /// AE: AHCI enable.
    pub ahci: bool,
}

/// Host capabilities extended (AHCI §3.1.10).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Capabilities2 {
    /// BOH: BIOS/OS hand-off.
    pub hand_off: bool,
    /// NVMP: NVMHCI registers.
    pub nvm: bool,
    /// APST: automatic partial to slumber.
    pub auto_slumber: bool,
    /// SDS: device sleep.
    pub device_sleep: bool,
    /// SADM: aggressive device sleep.
    pub aggressive_sleep: bool,
    /// DESO: device sleep only from slumber.
    pub sleep_from_slumber: bool,
    #[bits(26)]
    __: u32,
}

/// BIOS/OS hand-off control and status (AHCI §3.1.11, §10.6).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct HandOff {
    /// BOS: the BIOS owns the HBA.
    pub bios_owned: bool,
    /// OOS: the operating system owns, or wants to own, the HBA.
    pub os_owned: bool,
    /// SOOE: SMI on ownership change.
    pub smi: bool,
    /// OOC: ownership has changed; write 1 to clear.
    pub changed: bool,
    /// BB: the BIOS is busy finishing.
    pub bios_busy: bool,
    #[bits(27)]
    __: u32,
}

bitflags! {
    /// Interrupt status and enable of a port (AHCI §3.3.5, §3.3.6).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct PortInterrupts: u32 {
        /// DHRS: a device-to-host register FIS arrived.
        const REGISTER_FIS = 1 << 0;
        /// PSS: a PIO setup FIS arrived and its data was transferred.
        const PIO_SETUP_FIS = 1 << 1;
        /// DSS: a DMA setup FIS arrived.
        const DMA_SETUP_FIS = 1 << 2;
        /// SDBS: a set-device-bits FIS arrived.
        const SET_DEVICE_BITS_FIS = 1 << 3;
        /// UFS: an unknown FIS arrived. Cleared through PxSERR.DIAG.F.
        const UNKNOWN_FIS = 1 << 4;
        /// DPS: a PRD with its interrupt bit set was transferred.
        const DESCRIPTOR = 1 << 5;
        /// PCS: a COMINIT was received. Cleared through PxSERR.DIAG.X.
        const CONNECT = 1 << 6;
        /// DMPS: the mechanical presence switch changed.
        const PRESENCE_SWITCH = 1 << 7;
        /// PRCS: the PHY's readiness changed. Cleared through PxSERR.DIAG.N.
        const PHY_READY = 1 << 22;
        /// IPMS: a FIS came from a port multiplier that none was expected from.
        const PORT_MULTIPLIER = 1 << 23;
        /// OFS: the device sent or asked for more than the PRDT has.
        const OVERFLOW = 1 << 24;
        /// INFS: the interface failed, and the transfer went on.
        const INTERFACE_NON_FATAL = 1 << 26;
        /// IFS: the interface failed, and the transfer stopped.
        const INTERFACE_FATAL = 1 << 27;
        /// HBDS: data in memory could not be accessed.
        const HOST_BUS_DATA = 1 << 28;
        /// HBFS: the host bus failed.
        const HOST_BUS_FATAL = 1 << 29;
        /// TFES: the device reported an error.
        const TASK_FILE_ERROR = 1 << 30;
        /// CPDS: the cold presence detection changed.
        const COLD_PRESENCE = 1 << 31;
        /// Reserved bits are carried as they are.
        const _ = !0;
    }
}

impl PortInterrupts {
    /// What commands that end well leave behind.
    pub const GOOD: Self = Self::REGISTER_FIS
        .union(Self::PIO_SETUP_FIS)
        .union(Self::DMA_SETUP_FIS)
        .union(Self::SET_DEVICE_BITS_FIS)
        .union(Self::DESCRIPTOR);

    /// After which the HBA has stopped working on the command list (AHCI §6.2.2).
    pub const FATAL: Self = Self::OVERFLOW
        .union(Self::INTERFACE_FATAL)
        .union(Self::HOST_BUS_DATA)
        .union(Self::HOST_BUS_FATAL);
}

/// Command and status of a port (AHCI §3.3.7).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct PortCommand {
    /// ST: work on the command list.
    pub start: bool,
    /// SUD: spin the device up.
    pub spin_up: bool,
    /// POD: supply power to the device.
    pub power_on: bool,
    /// CLO: clear BSY and DRQ; reads 1 until done.
    pub command_list_override: bool,
    /// FRE: post received FISes to memory.
    pub fis_receive: bool,
    #[bits(3)]
    __: u8,
    /// CCS: the slot being worked on.
    #[bits(5)]
    pub current_slot: u8,
    /// MPSS: mechanical presence switch is open.
    pub switch_open: bool,
    /// FR: FISes are being posted.
    pub fis_running: bool,
    /// CR: the command list is being worked on.
    pub list_running: bool,
    /// CPS: a device is present, by cold presence detection.
    pub cold_present: bool,
    /// PMA: a port multiplier is attached.
    pub multiplier: bool,
    /// HPCP: hot-plug capable.
    pub hot_plug: bool,
    /// MPSP: a mechanical presence switch is attached.
    pub has_switch: bool,
    /// CPD: cold presence detection.
    pub cold_detection: bool,
    /// ESP: external port.
    pub external: bool,
    /// FBSCP: FIS-based switching.
    pub fis_switching: bool,
    /// APSTE: automatic partial to slumber.
    pub auto_slumber: bool,
    /// ATAPI: the device is an ATAPI device.
    pub atapi: bool,
    /// DLAE: drive the LED for ATAPI too.
    pub led_atapi: bool,
    /// ALPE: aggressive link power management.
    pub link_power: bool,
    /// ASP: prefer slumber to partial.
    pub prefer_slumber: bool,
    /// ICC: interface state asked for, as in [`interface_state`].
    #[bits(4)]
    pub interface_state: u8,
}

/// Task file data: the device's status and error registers (AHCI §3.3.8).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct TaskFile {
    /// STS; see [`ata::Status`](super::ata::Status).
    pub status: u8,
    /// ERR; see [`ata::Error`](super::ata::Error).
    pub error: u8,
    __: u16,
}

register_value! {
    Capabilities: u32,
    GlobalControl: u32,
    Capabilities2: u32,
    HandOff: u32,
    PortInterrupts: u32,
    PortCommand: u32,
    TaskFile: u32,
    SataStatus: u32,
    SataControl: u32,
    FisSwitching: u32,
    DeviceSleep: u32,
    EnclosureLocation: u32,
    EnclosureControl: u32,
}

impl From<u32> for PortInterrupts {
    fn from(bits: u32) -> Self {
        Self::from_bits_retain(bits)
    }
}

impl From<PortInterrupts> for u32 {
    fn from(interrupts: PortInterrupts) -> Self {
        interrupts.bits()
    }
}

/// What a register reads as when the HBA is gone.
pub const ALL_ONES: u32 = u32::MAX;

/// Signatures that devices report after a reset (AHCI §3.3.9, SATA §9.2).
pub mod signature {
    /// An ATA disk.
    pub const ATA: u32 = 0x0000_0101;
    /// An ATAPI device.
    pub const ATAPI: u32 = 0xeb14_0101;
    /// A port multiplier.
    pub const PORT_MULTIPLIER: u32 = 0x9669_0101;
    /// An enclosure management bridge.
    pub const ENCLOSURE: u32 = 0xc33c_0101;
    /// A host-managed zoned disk.
    pub const ZONED: u32 = 0xabcd_0101;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_the_specification_puts_them() {
        let cap = Capabilities::from_bits(0xc073_1f05);
        assert_eq!((cap.ports_minus_one(), cap.slots_minus_one(), cap.speed()), (5, 31, 7));
        assert!(cap.ncq() && cap.wide() && !cap.staggered());
        assert_eq!(GlobalControl::new().with_ahci(true).into_bits(), 1 << 31);
        assert_eq!(PortCommand::new().with_list_running(true).into_bits(), 1 << 15);
        assert_eq!(PortCommand::new().with_interface_state(1).into_bits(), 1 << 28);
        assert_eq!(PortCommand::new().with_fis_receive(true).into_bits(), 1 << 4);
        assert_eq!(PortCommand::new().with_atapi(true).into_bits(), 1 << 24);
        assert_eq!(Capabilities::new().with_staggered(true).into_bits(), 1 << 27);
        assert_eq!(TaskFile::from_bits(0x4051).error(), 0x40);
        assert_eq!(SataStatus::from_bits(0x123).power(), 1);
        assert_eq!(port_base(31), 0x1080);
        assert_eq!(EnclosureControl::new().with_transmit(true).into_bits(), 1 << 8);
        assert_eq!(EnclosureControl::new().with_led(true).into_bits(), 1 << 16);
        assert_eq!(EnclosureControl::new().with_port_multiplier(true).into_bits(), 1 << 27);
        assert_eq!(EnclosureLocation::from_bits(0x0140_0010).offset_dwords(), 0x140);
        assert_eq!(FisSwitching::new().with_device(1).into_bits(), 1 << 8);
        assert_eq!(FisSwitching::new().with_device_with_error(1).into_bits(), 1 << 16);
        assert_eq!(DeviceSleep::new().with_exit_timeout_ms(1).into_bits(), 1 << 2);
        assert_eq!(DeviceSleep::new().with_minimum_assertion_ms(1).into_bits(), 1 << 10);
        assert_eq!(DeviceSleep::new().with_idle_timeout_ms(1).into_bits(), 1 << 15);
        assert_eq!(DeviceSleep::new().with_idle_multiplier_minus_one(1).into_bits(), 1 << 25);
    }

    #[test]
    fn led_messages_are_read_as_they_were_written() {
        for (locate, fault) in [(false, false), (true, false), (false, true), (true, true)] {
            let message = LedMessage { port: 5, locate, fault };
            assert_eq!(LedMessage::from_dwords(message.dwords()), Some(message));
        }
        assert_eq!(LedMessage::from_dwords([1 << 24 | 4 << 8, 0]), None);
    }
}
