//! Block devices (§5.2).

use bitflags::bitflags;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

bitflags! {
    /// Features of block devices (§5.2.3).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct BlkFeatures: u64 {
        /// `size_max`: the most bytes in a segment.
        const SIZE_MAX = 1 << 1;
        /// `seg_max`: the most segments in a request.
        const SEG_MAX = 1 << 2;
        /// The device is read-only.
        const READ_ONLY = 1 << 5;
        /// `blk_size`: bytes in a logical sector.
        const BLK_SIZE = 1 << 6;
        /// Flushes, and perhaps a cache.
        const FLUSH = 1 << 9;
        /// `topology`.
        const TOPOLOGY = 1 << 10;
        /// `writeback`: the cache can be switched.
        const CONFIG_WCE = 1 << 11;
        /// `num_queues`: several queues.
        const MULTI_QUEUE = 1 << 12;
        /// Discards.
        const DISCARD = 1 << 13;
        /// Writes of zeros.
        const WRITE_ZEROES = 1 << 14;
        /// What the disk knows of its life.
        const LIFETIME = 1 << 15;
        /// Secure erasures.
        const SECURE_ERASE = 1 << 16;
    }
}

/// `capacity`: 64 bits, in sectors of 512 bytes (§5.2.4).
pub const CAPACITY: usize = 0;
/// `size_max`: 32 bits.
pub const SIZE_MAX: usize = 8;
/// `seg_max`: 32 bits.
pub const SEG_MAX: usize = 12;
/// `blk_size`: 32 bits.
pub const BLK_SIZE: usize = 20;
/// `physical_block_exp`: 8 bits.
pub const PHYSICAL_BLOCK_EXP: usize = 24;
/// `writeback`: 8 bits.
pub const WRITEBACK: usize = 32;
/// `num_queues`: 16 bits.
pub const NUM_QUEUES: usize = 34;
/// `max_discard_sectors`: 32 bits.
pub const MAX_DISCARD_SECTORS: usize = 36;
/// `max_discard_seg`: 32 bits.
pub const MAX_DISCARD_SEGMENTS: usize = 40;
/// `discard_sector_alignment`: 32 bits.
pub const DISCARD_SECTOR_ALIGNMENT: usize = 44;
/// `max_write_zeroes_sectors`: 32 bits.
pub const MAX_WRITE_ZEROES_SECTORS: usize = 48;
/// `max_write_zeroes_seg`: 32 bits.
pub const MAX_WRITE_ZEROES_SEGMENTS: usize = 52;
/// `write_zeroes_may_unmap`: 8 bits.
pub const WRITE_ZEROES_MAY_UNMAP: usize = 56;
/// `max_secure_erase_sectors`: 32 bits.
pub const MAX_SECURE_ERASE_SECTORS: usize = 60;

/// Bytes that the configuration has, with all fields of the specification and with those that it had
/// before secure erasing and before discards: who does not know the others may not tell more.
pub const CONFIG_LENGTHS: [usize; 3] = [72, 60, 36];

/// Bytes in the sectors that positions and sizes are counted in, whatever the logical sectors are.
pub const SECTOR_BYTES: u32 = 512;

/// What begins a request (§5.2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// What to do.
    pub kind: U32,
    /// Reserved.
    pub reserved: U32,
    /// The first sector, of 512 bytes.
    pub sector: U64,
}

/// Bytes of one.
pub const HEADER_BYTES: usize = 16;

/// Read (`VIRTIO_BLK_T_IN`).
pub const IN: u32 = 0;
/// Write.
pub const OUT: u32 = 1;
/// Flush.
pub const FLUSH: u32 = 4;
/// Read the device's serial number.
pub const GET_ID: u32 = 8;
/// Read what the device knows of its life.
pub const GET_LIFETIME: u32 = 10;
/// Discard.
pub const DISCARD: u32 = 11;
/// Write zeros.
pub const WRITE_ZEROES: u32 = 13;
/// Erase securely.
pub const SECURE_ERASE: u32 = 14;

/// Bytes of a serial number; shorter ones end with a zero.
pub const ID_BYTES: usize = 20;

/// What a discard, a write of zeros or a secure erasure is about (§5.2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DiscardSegment {
    /// The first sector, of 512 bytes.
    pub sector: U64,
    /// How many.
    pub sectors: U32,
    /// See [`UNMAP`](Self::UNMAP).
    pub flags: U32,
}

impl DiscardSegment {
    /// The sectors may be unmapped; of writes of zeros alone.
    pub const UNMAP: u32 = 1 << 0;
}

/// Bytes of one.
pub const DISCARD_BYTES: usize = 16;

/// What a device knows of its life (§5.2.6), as eMMC devices have it (JESD84-B51 §7.4.40 and on).
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Lifetime {
    /// How many of the blocks in reserve are used up: see the constants that begin with `PRE_EOL_`.
    pub pre_eol_info: U16,
    /// How much of the life of its memory of one kind is behind it, in steps of ten percent: 1 for up
    /// to ten, 11 ([`LIFETIME_EXCEEDED`]) for more than all; 0 if it is not known.
    pub typ_a: U16,
    /// The same of the other kind.
    pub typ_b: U16,
}

/// Bytes of one.
pub const LIFETIME_BYTES: usize = 6;
/// Less than 80 percent of the reserve are used.
pub const PRE_EOL_NORMAL: u16 = 1;
/// 80 percent of it.
pub const PRE_EOL_WARNING: u16 = 2;
/// 90 percent of it.
pub const PRE_EOL_URGENT: u16 = 3;
/// More than the life that was expected.
pub const LIFETIME_EXCEEDED: u16 = 11;

const _: () = assert!(size_of::<Lifetime>() == LIFETIME_BYTES);
const _: () = assert!(size_of::<Header>() == HEADER_BYTES);
const _: () = assert!(size_of::<DiscardSegment>() == DISCARD_BYTES);

/// Status: done.
pub const STATUS_OK: u8 = 0;
/// Status: the device or the driver made an error.
pub const STATUS_IO_ERROR: u8 = 1;
/// Status: the device cannot do this.
pub const STATUS_UNSUPPORTED: u8 = 2;
