//! What a network card offers, whatever drives it.
//!
//! A driver owns the memory of frames while its device may touch it, and gives it back: buffers
//! that were posted for receiving come back filled, or as they were; frames that were submitted
//! come back once they are sent, or lost. Nothing is allocated or copied on the way. What the card
//! lets through is asked for as a whole ([`Settings`]); the driver sees to it, and does so again
//! after each reset.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod cut;
mod driver;
mod interface;
mod offload;
mod settings;

pub use driver::{
    Completions, Frame, NetDriver, NetError, Posted, Received, RefusedReason, Returned, Sent, Tag,
};
pub use interface::{
    Capabilities, Duplex, FailedReason, Interface, InterfaceState, Link, SettingsState, Shape,
};
pub use offload::{
    Arrival, Checksum, ChecksumState, Offloads, Segmentation, SegmentationKind, Work,
};
pub use settings::{MacAddress, ReceiveMode, Settings, Unsupported, VlanSet};

/// Bytes of an Ethernet header without tags (IEEE 802.3 §3.1).
pub const ETHERNET_HEADER_BYTES: usize = 14;
/// Bytes of a VLAN tag in a frame (IEEE 802.1Q §9.3).
pub const VLAN_TAG_BYTES: usize = 4;
/// The most bytes of a frame that is to be segmented, or was put together: an IP packet, and what
/// stands before it.
pub const MAX_SEGMENTED_BYTES: usize = 65_535 + ETHERNET_HEADER_BYTES + VLAN_TAG_BYTES;
