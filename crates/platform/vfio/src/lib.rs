//! Real PCI functions on Linux, through VFIO.
//!
//! The kernel's driver `vfio-pci` holds a function for a program, which gets its registers mapped,
//! its interrupts as `eventfd`s, and an IOMMU between the function and memory: the function reaches
//! what was mapped for it, at addresses that are chosen here, and nothing else.
//!
//! [`Vfio::open`] opens functions, all in one *space* of the IOMMU with one arena of DMA memory.
//! There are two ways to a space, which differ in whose descriptors are asked: a *container* that
//! groups are put into (type 1, version 2), and `iommufd`, to which functions are bound one by
//! one. The first is preferred, the second used where the kernel has no containers.
//!
//! * Addresses: the arena lies in one piece inside the ranges that the IOMMU allows, below 4 GiB
//!   if it fits there, so that devices with 32-bit addresses reach all of it. Address 0 is never
//!   used.
//! * Other processes' memory goes beside the arena, from 4 GiB on if the device reaches so far, if
//!   that was asked for ([`VfioConfig::foreign_bytes`]). It is mapped as it is used.
//! * Where the kernel was told to do without an IOMMU, functions are opened only if that is asked
//!   for ([`Confinement::DevicesReachAllMemory`]). The arena is then a piece of huge pages, and
//!   device addresses are physical ones.
//! * Memory is pinned, which the limit of locked memory (`RLIMIT_MEMLOCK`) is about.
//! * Registers that the kernel does not let anyone map (such as a table of MSI-X vectors) are
//!   accessed by `pread` and `pwrite`; all others by loads and stores.
//! * A function that is pulled out, or switched off, reads as ones. One that the kernel wants back
//!   says so; see [`Vfio::drain_requests`].
//! * Faults of the IOMMU are told to the kernel's log alone (`dmesg`: "DMAR: [DMA Read ...] fault
//!   addr", "AMD-Vi: Event logged"). A program sees what the device makes of a transfer that was
//!   refused: an error, or silence.
//! * When a program ends in whatever way, the kernel closes its descriptors, and switches the
//!   functions' bus mastering off.
#![deny(unsafe_code)]

mod capability;
mod config;
mod contiguous;
mod device;
mod error;
mod group;
mod interrupts;
mod ioctl;
mod iommufd;
mod limit;
mod machine;
mod memory;
mod physical;
mod ranges;
mod reach;
mod region;
mod space;

pub use device::VfioDevice;
pub use error::VfioError;
pub use interrupts::VfioInterrupts;
pub use limit::Locked;
pub use machine::{Confinement, OpenFunction, Vfio, VfioConfig};
pub use region::VfioRegisters;
