//! PCI for drivers outside a kernel.
//!
//! * [`config`]: configuration space, by the ports 0xCF8/0xCFC or memory-mapped (ECAM).
//! * [`mod@scan`]: finds the functions behind all bridges, numbering buses that firmware has not.
//! * [`mod@assign`]: sizes base address registers and gives addresses to those that have none.
//! * [`capability`]: walks both capability lists, and terminates on lists that loop.
//! * [`msi`], [`msix`]: message-signalled interrupts.
//! * [`Device`]: one function as its driver sees it; the boundary that every platform implements.
//! * [`Claimed`]: a device that a driver owns. Bus mastering is on only inside its lifetime.
//!
//! Section numbers are those of the PCI Local Bus Specification 3.0 ("PCI"), the PCI-to-PCI Bridge
//! Architecture Specification 1.2 ("Bridge") and the PCI Express Base Specification 4.0 ("PCIe").
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod address;
pub mod assign;
pub mod bar;
pub mod bridge;
pub mod capability;
pub mod config;
mod device;
pub mod header;
pub mod msi;
pub mod msix;
mod ranges;
pub mod scan;
#[cfg(test)]
mod testing;

pub use address::Address;
pub use assign::{Windows, assign};
pub use config::{ConfigAccess, ConfigSpace};
pub use device::{Claimed, Counting, Device};
pub use header::{Class, Identity};
pub use scan::{Function, Numbering, scan};
