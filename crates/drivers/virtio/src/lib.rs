//! virtio: devices that virtual machines are given, and others that speak the same language.
//!
//! # Theory
//!
//! Driver and device share *virtqueues* ([`queue`]): rings of descriptors in memory, in which the
//! driver makes requests available and the device marks them used. There are two layouts, split and
//! packed, and both are here. How the driver finds the device's registers, and tells it that there
//! is something new, is the [`transport`]'s business. What a request looks like depends on the kind
//! of device; here are disks ([`Blk`]).
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
mod error;
pub mod queue;
pub mod spec;
pub mod transport;

pub use blk::{Blk, BlkConfig};
pub use error::VirtioError;

use outboard_pci::Identity;
use spec::pci::{KIND_BLOCK, MODERN_DEVICES, TRANSITIONAL_BLOCK, VENDOR};

/// Whether a function is a disk that [`Blk`] drives.
pub const fn is_disk(identity: &Identity) -> bool {
    identity.vendor == VENDOR
        && (identity.device == MODERN_DEVICES + KIND_BLOCK || identity.device == TRANSITIONAL_BLOCK)
}
