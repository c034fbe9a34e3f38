//! ATA: commands, status and error bits (ACS §6, §7).

use bitflags::bitflags;

/// Command codes (ACS annex, "Command codes").
pub mod command {
    /// DATA SET MANAGEMENT (ACS §7.5).
    pub const DATA_SET_MANAGEMENT: u8 = 0x06;
    /// READ DMA EXT, 48-bit (ACS §7.21).
    pub const READ_DMA_EXT: u8 = 0x25;
    /// READ LOG EXT, by PIO (ACS §7.22).
    pub const READ_LOG_EXT: u8 = 0x2f;
    /// WRITE DMA EXT, 48-bit (ACS §7.58).
    pub const WRITE_DMA_EXT: u8 = 0x35;
    /// WRITE DMA FUA EXT, 48-bit and durable (ACS §7.59).
    pub const WRITE_DMA_FUA_EXT: u8 = 0x3d;
    /// READ FPDMA QUEUED (ACS §7.23).
    pub const READ_FPDMA_QUEUED: u8 = 0x60;
    /// WRITE FPDMA QUEUED (ACS §7.60).
    pub const WRITE_FPDMA_QUEUED: u8 = 0x61;
    /// READ DMA, 28-bit (ACS §7.20).
    pub const READ_DMA: u8 = 0xc8;
    /// WRITE DMA, 28-bit (ACS §7.57).
    pub const WRITE_DMA: u8 = 0xca;
    /// FLUSH CACHE, 28-bit (ACS §7.9).
    pub const FLUSH_CACHE: u8 = 0xe7;
    /// FLUSH CACHE EXT, 48-bit (ACS §7.10).
    pub const FLUSH_CACHE_EXT: u8 = 0xea;
    /// IDENTIFY DEVICE (ACS §7.12).
    pub const IDENTIFY_DEVICE: u8 = 0xec;
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
