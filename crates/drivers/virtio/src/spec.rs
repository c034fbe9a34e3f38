//! What the specification says: features, registers, rings and requests, written down once.
//!
//! The driver uses it from one side, a software model of a device from the other.
//!
//! Sections are those of the Virtual I/O Device Specification 1.2, but for [`vhost_user`].

pub mod blk;
pub mod console;
pub mod features;
pub mod mmio;
pub mod net;
pub mod packed;
pub mod pci;
pub mod split;
pub mod status;
pub mod vhost_user;
