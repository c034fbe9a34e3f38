//! Registers of a port's link: status, control, errors, FIS-based switching, device sleep.

use bitfield_struct::bitfield;

/// Serial ATA status (AHCI §3.3.10).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct SataStatus {
    /// DET: 0 nothing, 1 presence without communication, 3 communication, 4 offline.
    #[bits(4)]
    pub detection: u8,
    /// SPD: link speed, as generation.
    #[bits(4)]
    pub speed: u8,
    /// IPM: 1 active, 2 partial, 6 slumber, 8 device sleep.
    #[bits(4)]
    pub power: u8,
    #[bits(20)]
    __: u32,
}

impl SataStatus {
    /// DET: no device, no PHY communication.
    pub const NOTHING: u8 = 0;
    /// DET: a device is present, but PHY communication is not established.
    pub const PRESENT: u8 = 1;
    /// DET: a device is present and PHY communication is established.
    pub const COMMUNICATION: u8 = 3;
    /// DET: the PHY is switched off, or in a loopback test.
    pub const OFFLINE: u8 = 4;

    /// IPM: the interface is active.
    pub const ACTIVE: u8 = 1;
    /// IPM: partial.
    pub const PARTIAL: u8 = 2;
    /// IPM: slumber.
    pub const SLUMBER: u8 = 6;
    /// IPM: device sleep.
    pub const DEVICE_SLEEP: u8 = 8;
}

/// Serial ATA control (AHCI §3.3.11).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct SataControl {
    /// DET: 0 nothing, 1 COMRESET for as long as it is set, 4 offline.
    #[bits(4)]
    pub detection: u8,
    /// SPD: highest speed allowed, as generation; 0 for any.
    #[bits(4)]
    pub speed: u8,
    /// IPM: power states that must not be entered: bit 0 partial, 1 slumber, 2 device sleep.
    #[bits(4)]
    pub no_power_states: u8,
    #[bits(20)]
    __: u32,
}

impl SataControl {
    /// DET: send COMRESET.
    pub const COMRESET: u8 = 1;
    /// DET: switch the PHY off.
    pub const OFFLINE: u8 = 4;
    /// IPM: not partial.
    pub const NO_PARTIAL: u8 = 1;
    /// IPM: not slumber.
    pub const NO_SLUMBER: u8 = 2;
    /// IPM: not device sleep.
    pub const NO_DEVICE_SLEEP: u8 = 4;
    /// IPM: neither partial nor slumber nor device sleep.
    pub const NO_POWER_STATES: u8 = 7;
}

/// FIS-based switching control (AHCI §3.3.16).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct FisSwitching {
    /// EN: several devices may have commands outstanding at once.
    pub enabled: bool,
    /// DEC: clears the error of the device in DWE; reads 1 until done.
    pub clear_error: bool,
    /// SDE: the error concerns the one device in DWE.
    pub single_device_error: bool,
    #[bits(5)]
    __: u8,
    /// DEV: which device the next write of PxCI is for.
    #[bits(4)]
    pub device: u8,
    /// ADO: with how many devices it works best.
    #[bits(4)]
    pub optimum: u8,
    /// DWE: the device with an error.
    #[bits(4)]
    pub device_with_error: u8,
    #[bits(12)]
    __: u16,
}

/// Device sleep (AHCI §3.3.17, §8.5).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct DeviceSleep {
    /// ADSE: the HBA lets the device sleep by itself.
    pub aggressive: bool,
    /// DSP: the port has the DEVSLP signal.
    pub present: bool,
    /// DETO: how long the device takes to wake, in milliseconds.
    pub exit_timeout_ms: u8,
    /// MDAT: the least time that DEVSLP is asserted for, in milliseconds.
    #[bits(5)]
    pub minimum_assertion_ms: u8,
    /// DITO: how long the port is idle before DEVSLP is asserted, in milliseconds, times DM + 1.
    #[bits(10)]
    pub idle_timeout_ms: u16,
    /// DM: multiplies DITO, minus one.
    #[bits(4)]
    pub idle_multiplier_minus_one: u8,
    #[bits(3)]
    __: u8,
}

/// States of the interface that PxCMD.ICC asks for (AHCI §3.3.7).
pub mod interface_state {
    /// Nothing is asked for; reads as this once the HBA takes another request.
    pub const IDLE: u8 = 0;
    /// Active.
    pub const ACTIVE: u8 = 1;
    /// Partial.
    pub const PARTIAL: u8 = 2;
    /// Slumber.
    pub const SLUMBER: u8 = 6;
    /// Device sleep, at once.
    pub const DEVICE_SLEEP: u8 = 8;
}

/// Bits of PxSERR (AHCI §3.3.12, SATA §14.1.2).
pub mod serial_error {
    /// ERR.I: data was damaged and recovered.
    pub const RECOVERED_DATA: u32 = 1 << 0;
    /// ERR.M: communication was lost for a moment and recovered.
    pub const RECOVERED_COMMUNICATION: u32 = 1 << 1;
    /// ERR.T: data was damaged and could not be recovered.
    pub const DATA: u32 = 1 << 8;
    /// ERR.C: communication is lost.
    pub const COMMUNICATION: u32 = 1 << 9;
    /// ERR.P: a violation of the Serial ATA protocol.
    pub const PROTOCOL: u32 = 1 << 10;
    /// ERR.E: the host bus adapter failed.
    pub const INTERNAL: u32 = 1 << 11;
    /// DIAG.N: the PHY's readiness changed.
    pub const PHY_READY: u32 = 1 << 16;
    /// DIAG.I: the PHY failed.
    pub const PHY_INTERNAL: u32 = 1 << 17;
    /// DIAG.W: COMWAKE was received.
    pub const WAKE: u32 = 1 << 18;
    /// DIAG.B: a character was not decodable.
    pub const DECODE: u32 = 1 << 19;
    /// DIAG.D: wrong disparity; not used by AHCI.
    pub const DISPARITY: u32 = 1 << 20;
    /// DIAG.C: a frame's checksum was wrong.
    pub const CRC: u32 = 1 << 21;
    /// DIAG.H: a frame that was sent was not accepted.
    pub const HANDSHAKE: u32 = 1 << 22;
    /// DIAG.S: a wrong transition of the link layer.
    pub const SEQUENCE: u32 = 1 << 23;
    /// DIAG.T: a wrong transition of the transport layer.
    pub const TRANSPORT: u32 = 1 << 24;
    /// DIAG.F: a FIS of an unknown type arrived.
    pub const UNKNOWN_FIS: u32 = 1 << 25;
    /// DIAG.X: a COMINIT was received.
    pub const EXCHANGED: u32 = 1 << 26;

    /// What a bad cable, connector or PHY leaves behind.
    pub const INTERFACE: u32 = RECOVERED_DATA
        | RECOVERED_COMMUNICATION
        | DATA
        | COMMUNICATION
        | DECODE
        | CRC
        | HANDSHAKE
        | SEQUENCE
        | TRANSPORT;
}
