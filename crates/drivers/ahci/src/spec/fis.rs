//! Frame information structures (SATA §10.5), and where received ones are put (AHCI §4.2.1).

use super::ata::DEVICE_LBA;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// FIS types (SATA §10.5.1).
pub mod kind {
    /// Register, host to device.
    pub const REGISTER_H2D: u8 = 0x27;
    /// Register, device to host.
    pub const REGISTER_D2H: u8 = 0x34;
    /// Set device bits.
    pub const SET_DEVICE_BITS: u8 = 0xa1;
}

/// Bytes of a port's received FIS area (AHCI §4.2.1).
pub const RECEIVED_BYTES: usize = 256;
/// Bytes of it with FIS-based switching, and what it is aligned to: one such area for each device
/// port of a multiplier (AHCI §9.3.3).
pub const RECEIVED_BYTES_SWITCHED: usize = 16 * RECEIVED_BYTES;
/// Where the last device-to-host register FIS is put.
pub const RECEIVED_REGISTER: usize = 0x40;
/// Where the last set-device-bits FIS is put.
pub const RECEIVED_SET_DEVICE_BITS: usize = 0x58;

/// Register FIS, host to device: a command (SATA §10.5.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RegisterH2d {
    /// [`kind::REGISTER_H2D`].
    pub kind: u8,
    /// Bit 7: a command, not device control. Bits 3:0: port of a port multiplier.
    pub flags: u8,
    /// COMMAND.
    pub command: u8,
    /// FEATURES 7:0.
    pub features_low: u8,
    /// LBA 23:0.
    pub lba_low: [u8; 3],
    /// DEVICE.
    pub device: u8,
    /// LBA 47:24.
    pub lba_high: [u8; 3],
    /// FEATURES 15:8.
    pub features_high: u8,
    /// COUNT.
    pub count: [u8; 2],
    /// ICC.
    pub icc: u8,
    /// CONTROL.
    pub control: u8,
    /// AUXILIARY.
    pub auxiliary: [u8; 4],
}

const _: () = assert!(size_of::<RegisterH2d>() == 20);
const _: () = assert!(core::mem::offset_of!(RegisterH2d, count) == 12);

impl RegisterH2d {
    /// Length in dwords, as the command header wants it.
    pub const DWORDS: u8 = 5;
    /// Bit of `flags`: a command, rather than device control.
    pub const IS_COMMAND: u8 = 1 << 7;
    /// SRST, in CONTROL.
    pub const SOFT_RESET: u8 = 1 << 2;

    /// A command without address, features or count.
    pub const fn command(command: u8) -> Self {
        Self {
            kind: kind::REGISTER_H2D,
            flags: Self::IS_COMMAND,
            command,
            features_low: 0,
            lba_low: [0; 3],
            device: DEVICE_LBA,
            lba_high: [0; 3],
            features_high: 0,
            count: [0; 2],
            icc: 0,
            control: 0,
            auxiliary: [0; 4],
        }
    }

    /// The frame that writes the device control register: with SRST, the device is reset; without,
    /// it goes on (SATA §11.4).
    pub const fn device_control(soft_reset: bool) -> Self {
        let control = if soft_reset { Self::SOFT_RESET } else { 0 };
        Self { flags: 0, control, device: 0, ..Self::command(0) }
    }

    /// The same for the device behind a multiplier's port.
    pub const fn behind(self, port: u8) -> Self {
        Self { flags: self.flags & 0xf0 | port & 0xf, ..self }
    }

    /// The multiplier's port that it is for.
    pub const fn multiplier_port(&self) -> u8 {
        self.flags & 0xf
    }

    /// The same with a 48-bit address.
    pub const fn lba48(self, lba: u64) -> Self {
        let [a, b, c, d, e, f, ..] = lba.to_le_bytes();
        Self { lba_low: [a, b, c], lba_high: [d, e, f], ..self }
    }

    /// The same with a 28-bit address, whose highest four bits go into DEVICE.
    pub const fn lba28(self, lba: u64) -> Self {
        let [a, b, c, d, ..] = lba.to_le_bytes();
        Self { lba_low: [a, b, c], device: DEVICE_LBA | d & 0xf, ..self }
    }

    /// The same with COUNT.
    pub const fn count(self, count: u16) -> Self {
        Self { count: count.to_le_bytes(), ..self }
    }

    /// The same with FEATURES.
    pub const fn features(self, features: u16) -> Self {
        let [features_low, features_high] = features.to_le_bytes();
        Self { features_low, features_high, ..self }
    }

    /// The 48-bit address.
    pub const fn address48(&self) -> u64 {
        let ([a, b, c], [d, e, f]) = (self.lba_low, self.lba_high);
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }

    /// The 28-bit address, whose highest four bits are in DEVICE.
    pub const fn address28(&self) -> u64 {
        let [a, b, c] = self.lba_low;
        u64::from_le_bytes([a, b, c, self.device & 0xf, 0, 0, 0, 0])
    }
}

/// Register FIS, device to host: how a command ended (SATA §10.5.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RegisterD2h {
    /// [`kind::REGISTER_D2H`].
    pub kind: u8,
    /// Bit 6: interrupt. Bits 3:0: port of a port multiplier.
    pub flags: u8,
    /// STATUS.
    pub status: u8,
    /// ERROR.
    pub error: u8,
    /// LBA 23:0.
    pub lba_low: [u8; 3],
    /// DEVICE.
    pub device: u8,
    /// LBA 47:24.
    pub lba_high: [u8; 3],
    /// Reserved.
    pub reserved: u8,
    /// COUNT.
    pub count: [u8; 2],
    /// Reserved.
    pub reserved_end: [u8; 6],
}

const _: () = assert!(size_of::<RegisterD2h>() == 20);

impl RegisterD2h {
    /// The address, as after a 48-bit command.
    pub const fn address48(&self) -> u64 {
        let ([a, b, c], [d, e, f]) = (self.lba_low, self.lba_high);
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }

    /// The address, as after a 28-bit command.
    pub const fn address28(&self) -> u64 {
        let [a, b, c] = self.lba_low;
        u64::from_le_bytes([a, b, c, self.device & 0xf, 0, 0, 0, 0])
    }
}

/// Set device bits FIS: queued commands that ended (SATA §10.5.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetDeviceBits {
    /// [`kind::SET_DEVICE_BITS`].
    pub kind: u8,
    /// Bit 7: notification. Bit 6: interrupt. Bits 3:0: port of a port multiplier.
    pub flags: u8,
    /// STATUS without BSY and DRQ.
    pub status: u8,
    /// ERROR.
    pub error: u8,
    /// Tags of commands that ended well.
    pub finished: [u8; 4],
}

const _: () = assert!(size_of::<SetDeviceBits>() == 8);

impl SetDeviceBits {
    /// Bit of `flags`: the device has something to tell (asynchronous notification).
    pub const NOTIFICATION: u8 = 1 << 7;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ata::command;

    #[test]
    fn a_command_is_laid_out_as_specified() {
        let fis = RegisterH2d::command(command::READ_DMA_EXT)
            .lba48(0x1122_3344_5566)
            .count(0xabcd)
            .features(0x0102);
        let expected = [
            0x27, 0x80, 0x25, 0x02, 0x66, 0x55, 0x44, 0x40, 0x33, 0x22, 0x11, 0x01, 0xcd, 0xab, 0,
            0, 0, 0, 0, 0,
        ];
        assert_eq!(fis.as_bytes(), expected);
        assert_eq!(fis.address48(), 0x1122_3344_5566);
        let fis = RegisterH2d::command(command::READ_DMA).lba28(0x0a12_3456);
        assert_eq!((fis.lba_low, fis.device), ([0x56, 0x34, 0x12], 0x4a));
        assert_eq!(fis.address28(), 0x0a12_3456);
    }
}
