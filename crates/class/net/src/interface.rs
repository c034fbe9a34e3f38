//! An interface to a network.

use crate::offload::Offloads;
use crate::settings::{MacAddress, ReceiveMode};
use core::fmt;

/// An interface to a network, as its driver knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Whether it can be used.
    pub state: InterfaceState,
    /// Grows whenever the card was lost or reset and came back: frames may have been lost.
    pub generation: u32,
    /// Its connection.
    pub link: Link,
    /// The address that it was made with; meaningful once it was ready.
    pub permanent_mac: MacAddress,
    /// What it can do; meaningful once it was ready, and the same from then on.
    pub capabilities: Capabilities,
    /// Queues and sizes; meaningful once it was ready, and the same from then on.
    pub shape: Shape,
    /// How far the settings are carried out that were asked for last.
    pub settings: SettingsState,
    /// Grows whenever the network asks that the interface's addresses be announced again, such as
    /// after a virtual machine has moved.
    pub announcements: u32,
}

impl Interface {
    /// An interface of which nothing is known yet.
    pub const UNKNOWN: Self = Self {
        state: InterfaceState::Starting,
        generation: 0,
        link: Link::DOWN,
        permanent_mac: MacAddress([0; 6]),
        capabilities: Capabilities::NONE,
        shape: Shape::NONE,
        settings: SettingsState::Pending,
        announcements: 0,
    };
}

/// Whether an interface can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InterfaceState {
    /// The driver is still finding out.
    Starting,
    /// Frames are sent and received, if there is a link.
    Ready,
    /// The driver is getting the card back after trouble. It keeps the buffers that were posted.
    Recovering,
    /// The driver is shutting down.
    Stopping,
    /// The driver cannot use the card, or has given it up.
    Failed(FailedReason),
}

/// Why an interface cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailedReason {
    /// A card of a kind that the driver does not drive; the value names it.
    Unsupported(&'static str),
    /// What the card says of itself makes no sense.
    BadConfig,
    /// Another card than before answered after a reset.
    Changed,
    /// The card did not come back after resets.
    GivenUp,
    /// The card was removed.
    Removed,
    /// DMA memory for it could not be had.
    NoMemory,
}

impl fmt::Display for InterfaceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("starting"),
            Self::Ready => f.write_str("ready"),
            Self::Recovering => f.write_str("recovering"),
            Self::Stopping => f.write_str("stopping"),
            Self::Failed(reason) => write!(f, "failed: {reason}"),
        }
    }
}

impl fmt::Display for FailedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported(kind) => write!(f, "no driver for {kind}"),
            Self::BadConfig => f.write_str("its configuration makes no sense"),
            Self::Changed => f.write_str("another card took its place"),
            Self::GivenUp => f.write_str("it did not come back after resets"),
            Self::Removed => f.write_str("it was removed"),
            Self::NoMemory => f.write_str("no DMA memory was left for it"),
        }
    }
}

/// A card's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Whether there is one. While there is none, frames that are sent may be lost.
    pub is_up: bool,
    /// Megabits a second, if the card says.
    pub speed_mbps: Option<u32>,
    /// Whether both directions work at once, if the card says.
    pub duplex: Option<Duplex>,
}

/// Whether both directions work at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duplex {
    /// One at a time.
    Half,
    /// Both.
    Full,
}

impl Link {
    /// None.
    pub const DOWN: Self = Self { is_up: false, speed_mbps: None, duplex: None };
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_up { "up" } else { "down" })?;
        if let Some(speed_mbps) = self.speed_mbps {
            write!(f, ", {speed_mbps} Mbit/s")?;
        }
        match self.duplex {
            Some(Duplex::Half) => f.write_str(", half duplex"),
            Some(Duplex::Full) => f.write_str(", full duplex"),
            None => Ok(()),
        }
    }
}

/// What a card can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// What it can do to frames that are sent.
    pub transmit: Offloads,
    /// What it may have done to frames that are received.
    pub receive: Offloads,
    /// What it can be asked to let through.
    pub receive_modes: ReceiveMode,
    /// Whether it filters by lists of addresses.
    pub has_address_filter: bool,
    /// Whether it lets frames with a VLAN tag through only if that was asked for.
    pub has_vlan_filter: bool,
    /// Whether its own address can be set.
    pub can_set_mac: bool,
    /// Whether it can be asked to do less to frames that are received.
    pub can_set_receive: bool,
}

impl Capabilities {
    /// Nothing.
    pub const NONE: Self = Self {
        transmit: Offloads::empty(),
        receive: Offloads::empty(),
        receive_modes: ReceiveMode::empty(),
        has_address_filter: false,
        has_vlan_filter: false,
        can_set_mac: false,
        can_set_receive: false,
    };
}

/// How many queues there are, and how large things are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Pairs of queues.
    pub queues: u16,
    /// Buffers that a queue takes for frames to come.
    pub receive_depth: u16,
    /// Frames that a queue has on their way out; fewer if they are in many pieces.
    pub transmit_depth: u16,
    /// The most bytes behind a frame's Ethernet header.
    pub mtu: u16,
    /// The least bytes of a buffer for frames to come.
    pub least_buffer_bytes: usize,
    /// Bytes before a frame in its buffer that the driver can make use of.
    pub headroom: usize,
}

impl Shape {
    /// Nothing.
    pub const NONE: Self = Self {
        queues: 0,
        receive_depth: 0,
        transmit_depth: 0,
        mtu: 0,
        least_buffer_bytes: 0,
        headroom: 0,
    };

    /// The most bytes of a frame that is not cut into segments; it may have a tag.
    pub const fn max_frame_bytes(&self) -> usize {
        self.mtu as usize + crate::ETHERNET_HEADER_BYTES + crate::VLAN_TAG_BYTES
    }
}

/// How far settings are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingsState {
    /// The card is being told.
    Pending,
    /// They hold.
    Applied,
    /// The card has refused some of them; the others hold.
    Refused,
}
