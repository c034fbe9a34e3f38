//! vhost-user: what the two ends of a device say to each other over a socket, if the device is
//! another process (QEMU, docs/interop/vhost-user, "Vhost-user Protocol"). All numbers have the
//! order of bytes of the machine.

use bitflags::bitflags;
use zerocopy::native_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What begins a message ("Header").
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// What it is about; an answer has its question's.
    pub request: U32,
    /// See the constants.
    pub flags: U32,
    /// Bytes that follow.
    pub bytes: U32,
}

impl Header {
    /// Bytes of one.
    pub const BYTES: usize = 12;
    /// The only version.
    pub const VERSION: u32 = 1;
    /// Where the version is.
    pub const VERSION_MASK: u32 = 3;
    /// It is an answer.
    pub const REPLY: u32 = 1 << 2;
    /// An answer is wanted, whatever the message is; with [`ProtocolFeatures::REPLY_ACK`] only.
    pub const NEED_REPLY: u32 = 1 << 3;
}

/// The most descriptors that come with a message ("Communication").
pub const MAX_DESCRIPTORS: usize = 8;

/// The feature bit by which a back end says that it has [`ProtocolFeatures`].
pub const PROTOCOL_FEATURES: u64 = 1 << 30;
/// The feature bit by which memory that a back end writes is logged, for migration.
pub const LOG_ALL: u64 = 1 << 26;

bitflags! {
    /// What the ends agree upon as to the protocol ("Protocol features").
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct ProtocolFeatures: u64 {
        /// Several queues ([`GET_QUEUE_NUM`]).
        const MQ = 1 << 0;
        /// Every message can be answered.
        const REPLY_ACK = 1 << 3;
        /// The back end can ask, too ([`SET_BACKEND_REQ_FD`]).
        const BACKEND_REQ = 1 << 5;
        /// The device's configuration is the back end's.
        const CONFIG = 1 << 9;
        /// What is in flight is kept where it outlives the back end ([`GET_INFLIGHT_FD`]).
        const INFLIGHT_SHMFD = 1 << 12;
        /// [`RESET_DEVICE`].
        const RESET_DEVICE = 1 << 13;
        /// [`SET_STATUS`].
        const STATUS = 1 << 16;
        const _ = !0;
    }
}

/// Asks for the features; the answer is a number of 64 bits.
pub const GET_FEATURES: u32 = 1;
/// Says which features are used.
pub const SET_FEATURES: u32 = 2;
/// Begins a session.
pub const SET_OWNER: u32 = 3;
/// Says which memory there is ([`MemoryTable`]), with a descriptor for each region.
pub const SET_MEM_TABLE: u32 = 5;
/// Says how many entries a queue has ([`RingState`]).
pub const SET_VRING_NUM: u32 = 8;
/// Says where its parts are ([`RingAddress`]).
pub const SET_VRING_ADDR: u32 = 9;
/// Says from where on it is used ([`RingState`]).
pub const SET_VRING_BASE: u32 = 10;
/// Stops a queue; the answer is from where on it would be used ([`RingState`]).
pub const GET_VRING_BASE: u32 = 11;
/// Passes the descriptor by which the front end notifies; see [`NO_DESCRIPTOR`].
pub const SET_VRING_KICK: u32 = 12;
/// Passes the descriptor by which the back end interrupts.
pub const SET_VRING_CALL: u32 = 13;
/// Passes the descriptor by which the back end tells of errors.
pub const SET_VRING_ERR: u32 = 14;
/// Asks for [`ProtocolFeatures`].
pub const GET_PROTOCOL_FEATURES: u32 = 15;
/// Says which of them are used.
pub const SET_PROTOCOL_FEATURES: u32 = 16;
/// Asks how many queues there can be; the answer is a number of 64 bits.
pub const GET_QUEUE_NUM: u32 = 17;
/// Lets a queue be used, or not ([`RingState`]).
pub const SET_VRING_ENABLE: u32 = 18;
/// Passes a socket on which the back end asks.
pub const SET_BACKEND_REQ_FD: u32 = 21;
/// Asks for part of the configuration ([`ConfigPart`]); the answer is alike, and has no bytes at
/// all if it cannot be had.
pub const GET_CONFIG: u32 = 24;
/// Writes part of it.
pub const SET_CONFIG: u32 = 25;
/// Asks for a region in which the back end keeps what is in flight ([`Inflight`]); the answer has
/// its descriptor.
pub const GET_INFLIGHT_FD: u32 = 31;
/// Gives such a region back to a back end.
pub const SET_INFLIGHT_FD: u32 = 32;
/// Resets the device.
pub const RESET_DEVICE: u32 = 34;
/// Writes the device status, a number of 64 bits.
pub const SET_STATUS: u32 = 39;
/// Asks for it.
pub const GET_STATUS: u32 = 40;

/// Of the back end: the configuration has changed.
pub const BACKEND_CONFIG_CHANGE: u32 = 2;

/// In the number that comes with a queue's descriptor: there is none; the queue is below.
pub const NO_DESCRIPTOR: u64 = 1 << 8;

/// A queue and a number of its own ("A vring state description").
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RingState {
    /// Which queue.
    pub queue: U32,
    /// The number.
    pub number: U32,
}

/// Where a queue's parts are ("A vring address description"), in the front end's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RingAddress {
    /// Which queue.
    pub queue: U32,
    /// Bit 0: what is used is logged.
    pub flags: U32,
    /// The descriptors.
    pub descriptors: U64,
    /// What the device tells.
    pub device: U64,
    /// What the driver tells.
    pub driver: U64,
    /// Where to log.
    pub log: U64,
}

/// The most regions of memory.
pub const MAX_REGIONS: usize = 8;

/// What begins a table of memory ("Memory regions description"): so many [`MemoryRegion`]s follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemoryTable {
    /// How many regions.
    pub regions: U32,
    /// Reserved.
    pub reserved: U32,
}

/// A region of memory, behind a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemoryRegion {
    /// Its address in descriptors of queues.
    pub guest_address: U64,
    /// Its bytes.
    pub bytes: U64,
    /// Its address in [`RingAddress`].
    pub user_address: U64,
    /// Where it begins behind its descriptor.
    pub offset: U64,
}

/// A part of the configuration ("Virtio device config space"); so many bytes follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ConfigPart {
    /// Where it begins.
    pub offset: U32,
    /// Its bytes.
    pub bytes: U32,
    /// 0: the fields that a driver may write; 1: all, for migration.
    pub flags: U32,
}

/// The most bytes of a configuration.
pub const MAX_CONFIG_BYTES: usize = 256;

/// A region for what is in flight ("Inflight description").
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Inflight {
    /// Its bytes.
    pub bytes: U64,
    /// Where it begins behind its descriptor.
    pub offset: U64,
    /// How many queues it is for.
    pub queues: U16,
    /// Entries of each.
    pub entries: U16,
    /// Padding, which peers written in C send and want.
    pub padding: U32,
}

impl Inflight {
    /// Bytes without the padding.
    pub const SHORT_BYTES: usize = 20;
}

const _: () = assert!(size_of::<Header>() == Header::BYTES);
const _: () = assert!(size_of::<RingState>() == 8);
const _: () = assert!(size_of::<RingAddress>() == 40);
const _: () = assert!(size_of::<MemoryTable>() == 8);
const _: () = assert!(size_of::<MemoryRegion>() == 32);
const _: () = assert!(size_of::<ConfigPart>() == 12);
const _: () = assert!(size_of::<Inflight>() == 24);
