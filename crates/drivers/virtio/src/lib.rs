//! virtio: devices that virtual machines are given, and others that speak the same language.
//!
//! # Theory
//!
//! Driver and device share *virtqueues* ([`queue`]): rings of descriptors in memory, in which the
//! driver makes requests available and the device marks them used. There are two layouts, split and
//! packed, and both are here. How the driver finds the device's registers, and tells it that there
//! is something new, is the [`transport`]'s business. What a request looks like depends on the kind
//! of device; here are disks ([`Blk`]), network cards ([`Net`]), sources of random bytes ([`Rng`])
//! and consoles ([`Console`]).
//!
//! **Ownership.** A request's memory moves into its slot and out with its completion. After a
//! time-out the slot keeps it until the device was reset. Dropping a driver resets the device, then
//! takes it off the bus, then frees the memory.
//!
//! **Distrust.** The driver reads back nothing that it has written: links between descriptors, and
//! what is in flight, are kept in memory of its own. What the device says is done is checked
//! against that; a device that names what it does not have, or more bytes than it was given, is
//! reset. Configuration is read until it stays the same, a bounded number of times, and checked.
//!
//! **Cost.** A batch of requests is one store to the ring and at most one notification; reaping
//! touches no register at all. Nothing is allocated. Batches go to the device's queues in turn.
//!
//! **Trouble.** A device that breaks the rules, does not answer in time or asks for it is reset and
//! set up again, and what was in flight is issued again, each request a bounded number of times. A
//! device that does not come back, or comes back as another, is given up.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod blk;
mod console;
mod device;
mod error;
pub mod net;
pub mod queue;
mod recovery;
mod rng;
mod sabotage;
mod setup;
pub mod spec;
pub mod transport;

pub use blk::{Blk, BlkConfig};
pub use console::{Console, ConsoleConfig, Port, Size};
pub use device::{DeviceConfig, DeviceState, Failure};
pub use error::VirtioError;
pub use net::{Net, NetConfig};
pub use rng::{Filled, Rng, RngError};
#[cfg(feature = "sabotage")]
pub use sabotage::Sabotage;

use outboard_pci::Identity;
use spec::pci::{
    KIND_BLOCK, KIND_CONSOLE, KIND_ENTROPY, KIND_NET, MODERN_DEVICES, TRANSITIONAL_BLOCK,
    TRANSITIONAL_CONSOLE, TRANSITIONAL_ENTROPY, TRANSITIONAL_NET, VENDOR,
};

/// Whether a function is a disk that [`Blk`] drives.
pub const fn is_disk(identity: &Identity) -> bool {
    is_kind(identity, KIND_BLOCK, TRANSITIONAL_BLOCK)
}

/// Whether a function is a source of random bytes that [`Rng`] drives.
pub const fn is_rng(identity: &Identity) -> bool {
    is_kind(identity, KIND_ENTROPY, TRANSITIONAL_ENTROPY)
}

/// Whether a function is a console that [`Console`] drives.
pub const fn is_console(identity: &Identity) -> bool {
    is_kind(identity, KIND_CONSOLE, TRANSITIONAL_CONSOLE)
}

const fn is_kind(identity: &Identity, kind: u16, transitional: u16) -> bool {
    identity.vendor == VENDOR
        && (identity.device == MODERN_DEVICES + kind || identity.device == transitional)
}

/// Whether a function is a network card that [`Net`] drives.
pub const fn is_network_card(identity: &Identity) -> bool {
    is_kind(identity, KIND_NET, TRANSITIONAL_NET)
}
