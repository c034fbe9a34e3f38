//! Network devices (§5.1).

use bitflags::bitflags;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

bitflags! {
    /// Features of network devices (§5.1.3).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct NetFeatures: u64 {
        /// The device computes checksums of frames that are sent.
        const CSUM = 1 << 0;
        /// The driver takes frames whose checksum is not computed.
        const GUEST_CSUM = 1 << 1;
        /// What the driver takes can be changed by the control queue.
        const CTRL_GUEST_OFFLOADS = 1 << 2;
        /// `mtu`.
        const MTU = 1 << 3;
        /// `mac`.
        const MAC = 1 << 5;
        /// The driver takes TCP over IPv4 in one piece.
        const GUEST_TSO4 = 1 << 7;
        /// TCP over IPv6.
        const GUEST_TSO6 = 1 << 8;
        /// With congestion notification.
        const GUEST_ECN = 1 << 9;
        /// UDP, of which fragments are put together.
        const GUEST_UFO = 1 << 10;
        /// The device cuts TCP over IPv4 into segments.
        const HOST_TSO4 = 1 << 11;
        /// TCP over IPv6.
        const HOST_TSO6 = 1 << 12;
        /// With congestion notification.
        const HOST_ECN = 1 << 13;
        /// UDP, into fragments.
        const HOST_UFO = 1 << 14;
        /// A frame may take several receive buffers.
        const MRG_RXBUF = 1 << 15;
        /// `status`.
        const STATUS = 1 << 16;
        /// The control queue.
        const CTRL_VQ = 1 << 17;
        /// Modes of receiving, and lists of addresses.
        const CTRL_RX = 1 << 18;
        /// VLANs are filtered.
        const CTRL_VLAN = 1 << 19;
        /// More modes of receiving.
        const CTRL_RX_EXTRA = 1 << 20;
        /// The device may ask that addresses be announced.
        const GUEST_ANNOUNCE = 1 << 21;
        /// `max_virtqueue_pairs`: several pairs of queues.
        const MQ = 1 << 22;
        /// The address can be set by the control queue.
        const CTRL_MAC_ADDR = 1 << 23;
        /// The driver takes datagrams of UDP over IPv4 in one piece.
        const GUEST_USO4 = 1 << 54;
        /// UDP over IPv6.
        const GUEST_USO6 = 1 << 55;
        /// The device cuts UDP into datagrams.
        const HOST_USO = 1 << 56;
        /// `speed` and `duplex`.
        const SPEED_DUPLEX = 1 << 63;
    }
}

/// `mac`: 6 bytes (§5.1.4).
pub const MAC: usize = 0;
/// `status`: 16 bits.
pub const STATUS: usize = 6;
/// `max_virtqueue_pairs`: 16 bits.
pub const MAX_PAIRS: usize = 8;
/// `mtu`: 16 bits.
pub const MTU: usize = 10;
/// `speed`: 32 bits, in Mbit/s.
pub const SPEED: usize = 12;
/// `duplex`: 8 bits.
pub const DUPLEX: usize = 16;

/// In `status`: there is a link.
pub const LINK_UP: u16 = 1 << 0;
/// In `status`: addresses are to be announced.
pub const ANNOUNCE: u16 = 1 << 1;

/// The most that `speed` can be; what is above means that it is not known.
pub const MAX_SPEED: u32 = 0x7fff_ffff;
/// `duplex`: one direction at a time.
pub const HALF_DUPLEX: u8 = 0;
/// `duplex`: both directions at once.
pub const FULL_DUPLEX: u8 = 1;

/// The least `mtu` that a device may have (§5.1.4.1).
pub const LEAST_MTU: u16 = 68;
/// The most pairs of queues (§5.1.4.1).
pub const MOST_PAIRS: u16 = 0x8000;

/// What begins a frame in memory (§5.1.6).
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Header {
    /// See the constants that begin with `NEEDS_` and `DATA_`.
    pub flags: u8,
    /// See the constants that begin with `GSO_`.
    pub gso_kind: u8,
    /// Bytes of the frame's headers.
    pub header_bytes: U16,
    /// Bytes of data in each segment.
    pub gso_bytes: U16,
    /// From which byte of the frame on its checksum is.
    pub checksum_start: U16,
    /// How many bytes behind that it goes.
    pub checksum_offset: U16,
    /// Of a frame that was received: how many buffers it takes. Legacy devices without
    /// [`MRG_RXBUF`](NetFeatures::MRG_RXBUF) do not have it.
    pub buffers: U16,
}

impl Header {
    /// Bytes of one.
    pub const BYTES: usize = 12;
    /// Bytes of one without the number of buffers.
    pub const SHORT_BYTES: usize = 10;
    /// What stands before a frame that is to be sent as it is.
    pub const PLAIN: Self = Self {
        flags: 0,
        gso_kind: GSO_NONE,
        header_bytes: U16::ZERO,
        gso_bytes: U16::ZERO,
        checksum_start: U16::ZERO,
        checksum_offset: U16::ZERO,
        buffers: U16::ZERO,
    };
}

const _: () = assert!(size_of::<Header>() == Header::BYTES);

/// The checksum is not computed; where it goes is said.
pub const NEEDS_CHECKSUM: u8 = 1 << 0;
/// The checksum is right.
pub const DATA_VALID: u8 = 1 << 1;

/// The frame is one segment.
pub const GSO_NONE: u8 = 0;
/// TCP over IPv4.
pub const GSO_TCP4: u8 = 1;
/// UDP, to be fragmented.
pub const GSO_UDP: u8 = 3;
/// TCP over IPv6.
pub const GSO_TCP6: u8 = 4;
/// Datagrams of UDP.
pub const GSO_UDP_L4: u8 = 5;
/// With congestion notification.
pub const GSO_ECN: u8 = 0x80;

/// The least bytes of a receive buffer for whole frames of any length that is put together
/// (§5.1.6.3.1), beside the header.
pub const WHOLE_FRAME_BYTES: usize = 65_550;

/// The queue of frames to come, of a pair (§5.1.2).
pub const fn receive_queue(pair: u16) -> u16 {
    2 * pair
}

/// The queue of frames to be sent, of a pair.
pub const fn transmit_queue(pair: u16) -> u16 {
    2 * pair + 1
}

/// What begins a command (§5.1.6.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Command {
    /// What it is about.
    pub class: u8,
    /// What to do.
    pub command: u8,
}

/// Bytes of one.
pub const COMMAND_BYTES: usize = 2;

const _: () = assert!(size_of::<Command>() == COMMAND_BYTES);

/// The answer to a command: done.
pub const ACK_OK: u8 = 0;
/// The answer to a command: not done.
pub const ACK_ERROR: u8 = 1;

/// Class: modes of receiving (§5.1.6.5.1). The command is the number of the mode's bit in
/// `ReceiveMode`; a byte behind it says on or off.
pub const CLASS_RX: u8 = 0;
/// Class: addresses (§5.1.6.5.2).
pub const CLASS_MAC: u8 = 1;
/// Two lists, of cards and of groups: 32 bits for how many, then 6 bytes each.
pub const MAC_TABLE_SET: u8 = 0;
/// 6 bytes.
pub const MAC_ADDR_SET: u8 = 1;
/// Class: VLANs (§5.1.6.5.3): 16 bits.
pub const CLASS_VLAN: u8 = 2;
/// Let it through.
pub const VLAN_ADD: u8 = 0;
/// Do not any more.
pub const VLAN_DEL: u8 = 1;
/// Class: announcements (§5.1.6.5.4).
pub const CLASS_ANNOUNCE: u8 = 3;
/// The driver has noticed.
pub const ANNOUNCE_ACK: u8 = 0;
/// Class: pairs of queues (§5.1.6.5.5).
pub const CLASS_MQ: u8 = 4;
/// 16 bits.
pub const VQ_PAIRS_SET: u8 = 0;

/// Class: what the driver takes (§5.1.6.5.6).
pub const CLASS_GUEST_OFFLOADS: u8 = 5;
/// 64 bits: the features `GUEST_…` that hold from now on.
pub const GUEST_OFFLOADS_SET: u8 = 0;

/// How many addresses a list has.
pub type ListLength = U32;
