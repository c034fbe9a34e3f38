//! The vhost-user protocol: how a device's rings and memory are handed to another process.
//!
//! Sections are those of the "Vhost-user Protocol" as in QEMU's docs/interop/vhost-user. Numbers
//! are in the machine's byte order ("Message Specification"), which is little-endian on all
//! machines that Outboard runs on.

use bitflags::bitflags;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What every message begins with ("Header").
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// Which message; see [`request`].
    pub request: U32,
    /// See the constants.
    pub flags: U32,
    /// Bytes that follow.
    pub bytes: U32,
}

impl Header {
    /// Bytes of one.
    pub const BYTES: usize = 12;
    /// The bits of the version in the flags.
    pub const VERSION_MASK: u32 = 3;
    /// The version.
    pub const VERSION: u32 = 1;
    /// It is an answer.
    pub const REPLY: u32 = 1 << 2;
    /// Its sender waits for an answer, which it would not have otherwise
    /// ([`ProtocolFeatures::REPLY_ACK`]).
    pub const NEED_REPLY: u32 = 1 << 3;
}

const _: () = assert!(size_of::<Header>() == Header::BYTES);

/// What front ends ask ("Front-end message types").
pub mod request {
    #![allow(missing_docs, reason = "they are named as in the specification")]
    pub const GET_FEATURES: u32 = 1;
    pub const SET_FEATURES: u32 = 2;
    pub const SET_OWNER: u32 = 3;
    pub const RESET_OWNER: u32 = 4;
    pub const SET_MEM_TABLE: u32 = 5;
    pub const SET_VRING_NUM: u32 = 8;
    pub const SET_VRING_ADDR: u32 = 9;
    pub const SET_VRING_BASE: u32 = 10;
    pub const GET_VRING_BASE: u32 = 11;
    pub const SET_VRING_KICK: u32 = 12;
    pub const SET_VRING_CALL: u32 = 13;
    pub const SET_VRING_ERR: u32 = 14;
    pub const GET_PROTOCOL_FEATURES: u32 = 15;
    pub const SET_PROTOCOL_FEATURES: u32 = 16;
    pub const GET_QUEUE_NUM: u32 = 17;
    pub const SET_VRING_ENABLE: u32 = 18;
    pub const NET_SET_MTU: u32 = 20;
    pub const SET_BACKEND_REQ_FD: u32 = 21;
    pub const GET_CONFIG: u32 = 24;
    pub const SET_CONFIG: u32 = 25;
    pub const GET_INFLIGHT_FD: u32 = 31;
    pub const SET_INFLIGHT_FD: u32 = 32;
    pub const GET_MAX_MEM_SLOTS: u32 = 36;
    pub const ADD_MEM_REG: u32 = 37;
    pub const REM_MEM_REG: u32 = 38;
    pub const SET_STATUS: u32 = 39;
    pub const GET_STATUS: u32 = 40;
}

/// What back ends ask, on a socket of their own ("Back-end message types").
pub mod backend_request {
    #![allow(missing_docs, reason = "they are named as in the specification")]
    pub const CONFIG_CHANGE_MSG: u32 = 2;
}

/// The feature bit that says that there are [`ProtocolFeatures`]: not the device's, but the
/// connection's (`VHOST_USER_F_PROTOCOL_FEATURES`).
pub const PROTOCOL_FEATURES: u64 = 1 << 30;
/// The feature bit by which writes to memory are logged, for migration (`VHOST_F_LOG_ALL`).
pub const LOG_ALL: u64 = 1 << 26;

/// The most descriptors of a message ("Communication").
pub const MAX_DESCRIPTORS: usize = 8;

bitflags! {
    /// What front end and back end agree upon for the connection ("Protocol features").
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct ProtocolFeatures: u64 {
        /// Several queues.
        const MQ = 1 << 0;
        /// Answers to messages that have none of their own.
        const REPLY_ACK = 1 << 3;
        /// The front end tells the network's MTU.
        const NET_MTU = 1 << 4;
        /// A socket on which the back end asks.
        const BACKEND_REQ = 1 << 5;
        /// The device's configuration.
        const CONFIG = 1 << 9;
        /// Memory that remembers what is in flight.
        const INFLIGHT_SHMFD = 1 << 12;
        /// Memory is added and removed region by region.
        const CONFIGURE_MEM_SLOTS = 1 << 15;
        /// The device status.
        const STATUS = 1 << 16;
        const _ = !0;
    }
}

/// A number for a ring ("A vring state description").
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VringState {
    /// Which ring.
    pub index: U32,
    /// The number.
    pub number: U32,
}

/// Where a ring's parts are, as addresses of the front end's process ("A vring address
/// description").
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VringAddress {
    /// Which ring.
    pub index: U32,
    /// Bit 0: log writes.
    pub flags: U32,
    /// The descriptors.
    pub descriptors: U64,
    /// What the device tells: the used ring, or its event suppression.
    pub used: U64,
    /// What the driver tells: the available ring, or its event suppression.
    pub available: U64,
    /// Where writes are logged.
    pub log: U64,
}

/// The ring in the number that comes with a descriptor (`SET_VRING_KICK`, `_CALL`, `_ERR`).
pub const VRING_INDEX_MASK: u64 = 0xff;
/// No descriptor came with it.
pub const VRING_NO_FD: u64 = 1 << 8;

/// In the number of `SET_VRING_BASE` of a packed ring: the wrap counter of the next available
/// descriptor.
pub const BASE_WRAP: u32 = 1 << 15;
/// By how much the next used descriptor and its wrap counter are shifted there.
pub const BASE_USED_SHIFT: u32 = 16;

/// A region of the driver's memory ("Memory region description").
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemoryRegion {
    /// Where descriptors find it.
    pub guest_address: U64,
    /// Its bytes.
    pub bytes: U64,
    /// Where the front end's process has it.
    pub user_address: U64,
    /// Where it begins in the file that comes with it.
    pub file_offset: U64,
}

/// What comes before regions of memory: their number and padding, or padding alone.
pub const REGIONS_AT: usize = 8;
/// The most regions of `SET_MEM_TABLE`.
pub const MAX_TABLE_REGIONS: usize = 8;

/// What part of the configuration is meant ("Virtio device config space").
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ConfigPart {
    /// Where it begins.
    pub offset: U32,
    /// Its bytes, which follow.
    pub bytes: U32,
    /// 0: what the driver may write; 1: everything, for migration.
    pub flags: U32,
}

/// The most bytes of configuration.
pub const MAX_CONFIG_BYTES: usize = 256;

/// The memory that remembers what is in flight ("Inflight description").
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct InflightRegion {
    /// Its bytes.
    pub bytes: U64,
    /// Where it begins in the file.
    pub file_offset: U64,
    /// Rings.
    pub queues: U16,
    /// Entries of each.
    pub entries: U16,
}

/// Bytes of [`InflightRegion`] in a message. Front ends that follow C's rules send padding behind.
pub const INFLIGHT_BYTES: usize = size_of::<InflightRegion>();

/// What parts of the region for each ring are rounded up to, as all back ends do.
pub const INFLIGHT_ALIGNMENT: usize = 64;

/// What is remembered of a split ring ("Inflight I/O tracking", `QueueRegionSplit`).
pub mod inflight_split {
    /// `features`: 64 bits.
    pub const FEATURES: usize = 0;
    /// `version`: 16 bits.
    pub const VERSION: usize = 8;
    /// `desc_num`: 16 bits.
    pub const ENTRIES: usize = 10;
    /// `last_batch_head`: 16 bits.
    pub const LAST_BATCH_HEAD: usize = 12;
    /// `used_idx`: 16 bits.
    pub const USED_INDEX: usize = 14;
    /// `desc`: one `DescStateSplit` for each entry.
    pub const STATES: usize = 16;
    /// Bytes of one.
    pub const STATE_BYTES: usize = 16;
    /// In one, `inflight`: 8 bits, and padding behind.
    pub const IN_FLIGHT: usize = 0;
    /// In one, `next`: 16 bits.
    pub const NEXT: usize = 6;
    /// In one, `counter`: 64 bits.
    pub const COUNTER: usize = 8;
}

/// What is remembered of a packed ring (`QueueRegionPacked`).
pub mod inflight_packed {
    /// `features`: 64 bits.
    pub const FEATURES: usize = 0;
    /// `version`: 16 bits.
    pub const VERSION: usize = 8;
    /// `desc_num`: 16 bits.
    pub const ENTRIES: usize = 10;
    /// `free_head`: 16 bits.
    pub const FREE_HEAD: usize = 12;
    /// `old_free_head`: 16 bits.
    pub const OLD_FREE_HEAD: usize = 14;
    /// `used_idx`: 16 bits; behind it `old_used_idx`, 16 bits, `used_wrap_counter` and
    /// `old_used_wrap_counter`, 8 bits each, and padding: one aligned word of 64 bits.
    pub const USED: usize = 16;
    /// `desc`: one `DescStatePacked` for each entry.
    pub const STATES: usize = 32;
    /// Bytes of one.
    pub const STATE_BYTES: usize = 32;
    /// In one, `inflight`: 8 bits, and padding behind.
    pub const IN_FLIGHT: usize = 0;
    /// In one, `next`: 16 bits.
    pub const NEXT: usize = 2;
    /// In one, `last`: 16 bits.
    pub const LAST: usize = 4;
    /// In one, `num`: 16 bits.
    pub const COUNT: usize = 6;
    /// In one, `counter`: 64 bits.
    pub const COUNTER: usize = 8;
    /// In one, `id`: 16 bits.
    pub const ID: usize = 16;
    /// In one, `flags`: 16 bits.
    pub const FLAGS: usize = 18;
    /// In one, `len`: 32 bits.
    pub const BYTES: usize = 20;
    /// In one, `addr`: 64 bits.
    pub const ADDRESS: usize = 24;
}

/// The version of both.
pub const INFLIGHT_VERSION: u16 = 1;
