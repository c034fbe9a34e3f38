//! Port multipliers: several devices behind one port (Serial ATA 3.2 §16, "PM" below; AHCI §9).
//!
//! Each frame names the device port that it goes to or comes from. The multiplier itself answers
//! at the control port: it has general registers (GSCR), and status, error and control registers
//! (PSCR) for each of its device ports, which two commands read and write.

use super::fis::{RegisterD2h, RegisterH2d};
use bitflags::bitflags;

/// The port where the multiplier itself answers (PM §16.3.1).
pub const CONTROL_PORT: u8 = 15;
/// The most device ports that a multiplier has.
pub const MAX_DEVICE_PORTS: usize = 15;

/// READ PORT MULTIPLIER (ACS §7.25).
pub const READ_PORT_MULTIPLIER: u8 = 0xe4;
/// WRITE PORT MULTIPLIER (ACS §7.63).
pub const WRITE_PORT_MULTIPLIER: u8 = 0xe8;

/// General status and control registers, at the control port (PM §16.4.1).
pub mod general {
    /// Product: vendor in the lower half, device in the upper.
    pub const PRODUCT: u16 = 0;
    /// Revision of the product and of the specification.
    pub const REVISION: u16 = 1;
    /// Port information: number of device ports in bits 3:0.
    pub const PORTS: u16 = 2;
    /// Error: a bit for each device port whose SError has a bit that is in [`ERROR_ENABLE`].
    pub const ERROR: u16 = 32;
    /// Which bits of SError show in [`ERROR`].
    pub const ERROR_ENABLE: u16 = 33;
    /// Features, bits as in [`Features`](super::Features).
    pub const FEATURES: u16 = 64;
    /// Features that are in use; likewise.
    pub const FEATURES_ENABLED: u16 = 96;
}

/// Port status and control registers, one set for each device port (PM §16.4.2).
pub mod port {
    /// SStatus, as [`SataStatus`](super::super::registers::SataStatus).
    pub const STATUS: u16 = 0;
    /// SError, as [`serial_error`](super::super::registers::serial_error); write 1 to clear. The
    /// multiplier passes nothing on from a device while DIAG.X is set (PM §16.3.3.6).
    pub const ERROR: u16 = 1;
    /// SControl, as [`SataControl`](super::super::registers::SataControl). All device ports but the
    /// first are switched off at first.
    pub const CONTROL: u16 = 2;
    /// SActive; not used by multipliers.
    pub const ACTIVE: u16 = 3;
}

bitflags! {
    /// What a multiplier can do (PM §16.4.1.9).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Features: u32 {
        /// BIST.
        const BIST = 1 << 0;
        /// It may ask the host to save power.
        const POWER_REQUESTS = 1 << 1;
        /// Spread-spectrum clocking can be switched.
        const SPREAD_SPECTRUM = 1 << 2;
        /// It announces changes of the error register by asynchronous notification.
        const NOTIFICATION = 1 << 3;
        /// Others are carried as they are.
        const _ = !0;
    }
}

/// READ PORT MULTIPLIER of a register of device port `port`, or of the multiplier itself with
/// [`CONTROL_PORT`].
pub const fn read(port: u8, register: u16) -> RegisterH2d {
    let fis = RegisterH2d::command(READ_PORT_MULTIPLIER).features(register);
    RegisterH2d { device: port & 0xf, ..fis }.behind(CONTROL_PORT)
}

/// WRITE PORT MULTIPLIER likewise.
pub const fn write(port: u8, register: u16, value: u32) -> RegisterH2d {
    let [count, a, b, c] = value.to_le_bytes();
    let fis = RegisterH2d::command(WRITE_PORT_MULTIPLIER).features(register);
    let fis = RegisterH2d { device: port & 0xf, lba_low: [a, b, c], ..fis };
    fis.count(count as u16).behind(CONTROL_PORT)
}

/// The port and the number of the register that a command is for.
pub const fn addressed(fis: &RegisterH2d) -> (u8, u16) {
    (fis.device & 0xf, u16::from_le_bytes([fis.features_low, fis.features_high]))
}

/// The value that a write carries.
pub const fn written(fis: &RegisterH2d) -> u32 {
    let [a, b, c] = fis.lba_low;
    u32::from_le_bytes([fis.count[0], a, b, c])
}

/// The value that a read has returned.
pub const fn returned(fis: &RegisterD2h) -> u32 {
    let [a, b, c] = fis.lba_low;
    u32::from_le_bytes([fis.count[0], a, b, c])
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    #[test]
    fn registers_are_addressed_and_written_as_specified() {
        let fis = write(3, port::CONTROL, 0x1122_3344);
        let expected = [0x27, 0x8f, 0xe8, 2, 0x33, 0x22, 0x11, 3, 0, 0, 0, 0, 0x44, 0];
        assert_eq!(fis.as_bytes()[..14], expected);
        assert_eq!((addressed(&fis), written(&fis)), ((3, 2), 0x1122_3344));
        let fis = read(CONTROL_PORT, general::FEATURES_ENABLED);
        assert_eq!(fis.as_bytes()[..8], [0x27, 0x8f, 0xe4, 96, 0, 0, 0, 15]);
    }
}
