//! Structures in memory that the HBA reads (AHCI §4.2).

use outboard_hw::dma::DeviceAddress;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a command list: a header for each slot (AHCI §4.2.2).
pub const COMMAND_LIST_BYTES: usize = 1024;
/// What a command list is aligned to.
pub const COMMAND_LIST_ALIGNMENT: u64 = 1024;
/// What a received FIS area is aligned to.
pub const RECEIVED_ALIGNMENT: u64 = 256;
/// What a command table is aligned to.
pub const COMMAND_TABLE_ALIGNMENT: usize = 128;
/// Where the packet (ACMD) is in a command table (AHCI §4.2.3.2).
pub const PACKET_OFFSET: usize = 0x40;
/// Where the physical region descriptor table (PRDT) starts in a command table (AHCI §4.2.3).
pub const PRDT_OFFSET: usize = 0x80;
/// The most entries that a PRDT has: PRDTL is 16 bits wide.
pub const MAX_PRDT_ENTRIES: usize = 65535;
/// The most bytes that one PRDT entry describes.
pub const MAX_PRD_BYTES: u64 = 4 << 20;

/// Command header: one slot of the command list (AHCI §4.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CommandHeader {
    /// CFL, A, W, P, R, B, C, PMP; see the constants.
    pub flags: U16,
    /// PRDTL: entries in the PRDT.
    pub prdt_entries: U16,
    /// PRDBC: bytes that the HBA has transferred. Not kept for queued commands (AHCI §5.4.1).
    pub transferred: U32,
    /// CTBA: where the command table is.
    pub table_low: U32,
    /// CTBAU.
    pub table_high: U32,
    /// Reserved.
    pub reserved: [U32; 4],
}

const _: () = assert!(size_of::<CommandHeader>() == 32);

impl CommandHeader {
    /// Bit of `flags`: the transfer goes to the device.
    pub const WRITE: u16 = 1 << 6;
    /// Bit of `flags`: a packet is to be sent to the device, when it asks for it.
    pub const PACKET: u16 = 1 << 5;
    /// Bit of `flags`: the frame begins or ends a software reset.
    pub const RESET: u16 = 1 << 8;
    /// Bit of `flags`: the HBA clears BSY once the frame was taken.
    pub const CLEAR_BUSY: u16 = 1 << 10;
    /// Offset of PRDBC.
    pub const TRANSFERRED_OFFSET: usize = 4;

    /// A header for the command table at `table`.
    pub fn new(flags: u16, prdt_entries: u16, table: DeviceAddress) -> Self {
        Self {
            flags: flags.into(),
            prdt_entries: prdt_entries.into(),
            transferred: 0.into(),
            table_low: table.low().into(),
            table_high: table.high().into(),
            reserved: [U32::ZERO; 4],
        }
    }

    /// `flags` of a command for the device behind a multiplier's port.
    pub const fn behind(flags: u16, port: u8) -> u16 {
        flags & 0x0fff | (port as u16) << 12
    }

    /// Where the header of `slot` is in the command list.
    pub const fn offset(slot: usize) -> usize {
        slot * size_of::<Self>()
    }
}

/// An entry of the PRDT (AHCI §4.2.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PrdtEntry {
    /// DBA: where the data is; even.
    pub base_low: U32,
    /// DBAU.
    pub base_high: U32,
    /// Reserved.
    pub reserved: U32,
    /// Bits 21:0: bytes minus one, odd. Bit 31: interrupt when transferred.
    pub count: U32,
}

const _: () = assert!(size_of::<PrdtEntry>() == 16);

impl PrdtEntry {
    /// An entry for `bytes`, an even number from 2 to [`MAX_PRD_BYTES`].
    pub fn new(address: DeviceAddress, bytes: u64) -> Self {
        debug_assert!(bytes.is_multiple_of(2) && (2..=MAX_PRD_BYTES).contains(&bytes));
        Self {
            base_low: address.low().into(),
            base_high: address.high().into(),
            reserved: U32::ZERO,
            count: (bytes as u32).wrapping_sub(1).into(),
        }
    }

    /// Where entry `index` is in a command table.
    pub const fn offset(index: usize) -> usize {
        PRDT_OFFSET + index * size_of::<Self>()
    }
}
