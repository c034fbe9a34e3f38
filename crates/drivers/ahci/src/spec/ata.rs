//! ATA: commands, status and error bits (ACS §6, §7).

use bitflags::bitflags;

/// Command codes (ACS annex, "Command codes"; those of the host protected area: ACS-2).
pub mod command {
    /// DATA SET MANAGEMENT (ACS §7.5).
    pub const DATA_SET_MANAGEMENT: u8 = 0x06;
    /// DEVICE RESET, for ATAPI devices (ACS §7, "DEVICE RESET").
    pub const DEVICE_RESET: u8 = 0x08;
    /// READ DMA EXT, 48-bit (ACS §7.21).
    pub const READ_DMA_EXT: u8 = 0x25;
    /// READ NATIVE MAX ADDRESS EXT, 48-bit (ACS-2 §7, "Host Protected Area").
    pub const READ_NATIVE_MAX_EXT: u8 = 0x27;
    /// READ LOG EXT, by PIO (ACS §7.22).
    pub const READ_LOG_EXT: u8 = 0x2f;
    /// WRITE DMA EXT, 48-bit (ACS §7.58).
    pub const WRITE_DMA_EXT: u8 = 0x35;
    /// SET MAX ADDRESS EXT, 48-bit (ACS-2 §7, "Host Protected Area").
    pub const SET_MAX_EXT: u8 = 0x37;
    /// WRITE DMA FUA EXT, 48-bit and durable (ACS §7.59).
    pub const WRITE_DMA_FUA_EXT: u8 = 0x3d;
    /// READ LOG DMA EXT (ACS §7, "READ LOG DMA EXT").
    pub const READ_LOG_DMA_EXT: u8 = 0x47;
    /// READ FPDMA QUEUED (ACS §7.23).
    pub const READ_FPDMA_QUEUED: u8 = 0x60;
    /// WRITE FPDMA QUEUED (ACS §7.60).
    pub const WRITE_FPDMA_QUEUED: u8 = 0x61;
    /// ACCESSIBLE MAX ADDRESS CONFIGURATION; see [`accessible_max`](super::accessible_max).
    pub const ACCESSIBLE_MAX_ADDRESS: u8 = 0x78;
    /// PACKET, to ATAPI devices (ACS §7, "PACKET").
    pub const PACKET: u8 = 0xa0;
    /// IDENTIFY PACKET DEVICE (ACS §7, "IDENTIFY PACKET DEVICE").
    pub const IDENTIFY_PACKET_DEVICE: u8 = 0xa1;
    /// SMART; see [`smart`](crate::spec::smart).
    pub const SMART: u8 = 0xb0;
    /// READ DMA, 28-bit (ACS §7.20).
    pub const READ_DMA: u8 = 0xc8;
    /// WRITE DMA, 28-bit (ACS §7.57).
    pub const WRITE_DMA: u8 = 0xca;
    /// STANDBY IMMEDIATE (ACS §7, "STANDBY IMMEDIATE").
    pub const STANDBY_IMMEDIATE: u8 = 0xe0;
    /// IDLE IMMEDIATE (ACS §7, "IDLE IMMEDIATE").
    pub const IDLE_IMMEDIATE: u8 = 0xe1;
    /// STANDBY, and the standby timer in COUNT (ACS §7, "STANDBY").
    pub const STANDBY: u8 = 0xe2;
    /// IDLE, and the standby timer in COUNT (ACS §7, "IDLE").
    pub const IDLE: u8 = 0xe3;
    /// CHECK POWER MODE (ACS §7.3); the answer is a [`power_mode`](super::power_mode) in COUNT.
    pub const CHECK_POWER_MODE: u8 = 0xe5;
    /// SLEEP (ACS §7, "SLEEP").
    pub const SLEEP: u8 = 0xe6;
    /// FLUSH CACHE, 28-bit (ACS §7.9).
    pub const FLUSH_CACHE: u8 = 0xe7;
    /// FLUSH CACHE EXT, 48-bit (ACS §7.10).
    pub const FLUSH_CACHE_EXT: u8 = 0xea;
    /// IDENTIFY DEVICE (ACS §7.12).
    pub const IDENTIFY_DEVICE: u8 = 0xec;
    /// SET FEATURES; see [`features`](super::features).
    pub const SET_FEATURES: u8 = 0xef;
    /// SECURITY SET PASSWORD; see [`security`](crate::spec::security).
    pub const SECURITY_SET_PASSWORD: u8 = 0xf1;
    /// SECURITY UNLOCK.
    pub const SECURITY_UNLOCK: u8 = 0xf2;
    /// SECURITY ERASE PREPARE, right before SECURITY ERASE UNIT.
    pub const SECURITY_ERASE_PREPARE: u8 = 0xf3;
    /// SECURITY ERASE UNIT.
    pub const SECURITY_ERASE_UNIT: u8 = 0xf4;
    /// SECURITY FREEZE LOCK.
    pub const SECURITY_FREEZE_LOCK: u8 = 0xf5;
    /// SECURITY DISABLE PASSWORD.
    pub const SECURITY_DISABLE_PASSWORD: u8 = 0xf6;
    /// READ NATIVE MAX ADDRESS, 28-bit (ACS-2 §7, "Host Protected Area").
    pub const READ_NATIVE_MAX: u8 = 0xf8;
    /// SET MAX ADDRESS, 28-bit (ACS-2 §7, "Host Protected Area").
    pub const SET_MAX: u8 = 0xf9;
}

/// FEATURES of SET FEATURES (ACS §7, "SET FEATURES").
pub mod features {
    /// Switch the volatile write cache on.
    pub const ENABLE_WRITE_CACHE: u16 = 0x02;
    /// Set the transfer mode, in COUNT.
    pub const TRANSFER_MODE: u16 = 0x03;
    /// Set the level of advanced power management, in COUNT.
    pub const ENABLE_ADVANCED_POWER: u16 = 0x05;
    /// Start spun down at the next power-on.
    pub const ENABLE_POWER_UP_IN_STANDBY: u16 = 0x06;
    /// Spin up after such a power-on.
    pub const SPIN_UP: u16 = 0x07;
    /// Switch a Serial ATA feature on: a [`sata_feature`](super::sata_feature) in COUNT.
    pub const ENABLE_SATA: u16 = 0x10;
    /// Switch read look-ahead off.
    pub const DISABLE_LOOK_AHEAD: u16 = 0x55;
    /// Switch the volatile write cache off.
    pub const DISABLE_WRITE_CACHE: u16 = 0x82;
    /// Switch advanced power management off.
    pub const DISABLE_ADVANCED_POWER: u16 = 0x85;
    /// Start spun up at the next power-on.
    pub const DISABLE_POWER_UP_IN_STANDBY: u16 = 0x86;
    /// Switch a Serial ATA feature off: a [`sata_feature`](super::sata_feature) in COUNT.
    pub const DISABLE_SATA: u16 = 0x90;
    /// Switch read look-ahead on.
    pub const ENABLE_LOOK_AHEAD: u16 = 0xaa;
}

/// COUNT of SET FEATURES that switches a Serial ATA feature (SATA §13.3).
pub mod sata_feature {
    /// Device-initiated power management of the interface.
    pub const DEVICE_POWER_MANAGEMENT: u16 = 0x03;
    /// Asynchronous notification.
    pub const ASYNCHRONOUS_NOTIFICATION: u16 = 0x05;
    /// Software settings preservation.
    pub const SETTINGS_PRESERVATION: u16 = 0x06;
    /// Automatic transitions from partial to slumber.
    pub const AUTOMATIC_SLUMBER: u16 = 0x07;
    /// Device sleep.
    pub const DEVICE_SLEEP: u16 = 0x09;
}

/// Levels of advanced power management (ACS §7, "SET FEATURES", "Enable the APM feature set").
pub const ADVANCED_POWER_LEVELS: core::ops::RangeInclusive<u8> = 1..=254;

/// FEATURES of ACCESSIBLE MAX ADDRESS CONFIGURATION (ACS §7.2).
pub mod accessible_max {
    /// GET NATIVE MAX ADDRESS EXT: the highest address that there is, in LBA.
    pub const GET_NATIVE: u16 = 0x0000;
    /// SET ACCESSIBLE MAX ADDRESS EXT: the highest address from now on, for good.
    pub const SET: u16 = 0x0001;
    /// FREEZE ACCESSIBLE MAX ADDRESS EXT: no change until the next loss of power.
    pub const FREEZE: u16 = 0x0002;
}

/// COUNT of SET MAX ADDRESS (EXT): the address is kept over a loss of power.
pub const SET_MAX_KEEP: u16 = 1;

/// What CHECK POWER MODE answers in COUNT (ACS §7.3).
pub mod power_mode {
    /// Standby, and Standby_z.
    pub const STANDBY: u8 = 0x00;
    /// Standby_y.
    pub const STANDBY_Y: u8 = 0x01;
    /// Idle.
    pub const IDLE: u8 = 0x80;
    /// Idle_a, Idle_b and Idle_c.
    pub const IDLE_A_TO_C: core::ops::RangeInclusive<u8> = 0x81..=0x83;
    /// Active or idle.
    pub const ACTIVE: u8 = 0xff;
}

/// COUNT of STANDBY and IDLE for a standby timer of so many seconds (ACS §7, "STANDBY", table of
/// periods), rounded up to what there is: 5 s to 20 min, 21 min, 21 min 15 s, half hours to 5½ h,
/// and 8 to 12 h as the longest. 0 switches the timer off.
pub const fn standby_timer(seconds: u32) -> u8 {
    match seconds {
        0..=1200 => seconds.div_ceil(5) as u8,
        1201..=1260 => 252,
        1261..=1275 => 255,
        1276..=19_800 => 240 + seconds.div_ceil(1800) as u8,
        _ => 253,
    }
}

/// How many seconds such a COUNT means, at least; `None` if it is reserved, 0 for never.
pub const fn standby_seconds(count: u8) -> Option<u32> {
    match count {
        0..=240 => Some(count as u32 * 5),
        241..=251 => Some((count as u32 - 240) * 1800),
        252 => Some(1260),
        253 => Some(8 * 3600),
        254 => None,
        255 => Some(1275),
    }
}

/// FEATURES of DATA SET MANAGEMENT: the TRIM bit (ACS §7.5.3).
pub const DSM_TRIM: u16 = 1;
/// DEVICE: addresses are logical block addresses (ACS §6.2.5).
pub const DEVICE_LBA: u8 = 1 << 6;
/// DEVICE: forced unit access, in queued writes (ACS §7.60.3).
pub const DEVICE_FUA: u8 = 1 << 7;

/// Sectors that a 48-bit or queued command transfers at most; written as 0 (ACS §7.21.3).
pub const MAX_SECTORS_48: u32 = 65536;
/// Sectors that a 28-bit command transfers at most; written as 0 (ACS §7.20.3).
pub const MAX_SECTORS_28: u32 = 256;

/// Ranges in one 512-byte block of a TRIM (ACS §7.5.3).
pub const TRIM_RANGES_PER_BLOCK: u64 = 64;
/// Sectors in one range of a TRIM.
pub const TRIM_RANGE_SECTORS: u64 = 65535;
/// Bytes of a block of TRIM ranges, and of a page of a log.
pub const BLOCK_BYTES: usize = 512;

/// What the last byte of a block has to be, given those before it, for the sum of all to be zero.
pub fn checksum(before: &[u8]) -> u8 {
    before.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte))
}

/// Whether the sum of all bytes of a block is zero.
pub fn sums_to_zero(block: &[u8]) -> bool {
    checksum(block) == 0
}

bitflags! {
    /// The status register (ACS §6.2.11).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Status: u8 {
        /// BSY: the device is busy.
        const BUSY = 1 << 7;
        /// DRDY: the device is ready.
        const READY = 1 << 6;
        /// DF: the device is faulty.
        const FAULT = 1 << 5;
        /// DRQ: the device wants to transfer data.
        const DATA_REQUEST = 1 << 3;
        /// ERR: the command failed.
        const ERROR = 1 << 0;
        /// Obsolete bits are carried as they are.
        const _ = !0;
    }

    /// The error register (ACS §6.2.8).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Error: u8 {
        /// ICRC: the data was damaged on the link.
        const INTERFACE_CRC = 1 << 7;
        /// UNC: the data cannot be recovered.
        const UNCORRECTABLE = 1 << 6;
        /// IDNF: the address was not found.
        const ID_NOT_FOUND = 1 << 4;
        /// ABRT: the command was aborted.
        const ABORTED = 1 << 2;
        /// Obsolete bits are carried as they are.
        const _ = !0;
    }
}

impl Status {
    /// Whether the device is still at work, by BSY or DRQ.
    pub const fn is_busy(self) -> bool {
        self.intersects(Self::BUSY.union(Self::DATA_REQUEST))
    }

    /// Whether the last command failed.
    pub const fn is_error(self) -> bool {
        self.intersects(Self::ERROR.union(Self::FAULT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standby_timers_are_rounded_up_to_what_there_is() {
        let expected = [(0, 0), (1, 1), (5, 1), (6, 2), (1200, 240), (1201, 252), (1260, 252)];
        let longer = [(1261, 255), (1276, 241), (1801, 242), (19_800, 251), (19_801, 253)];
        for (seconds, count) in expected.into_iter().chain(longer) {
            assert_eq!(standby_timer(seconds), count, "{seconds} s");
            assert!(standby_seconds(count).unwrap() >= seconds);
        }
        assert_eq!(standby_timer(u32::MAX), 253);
        assert_eq!(standby_seconds(254), None);
    }
}
