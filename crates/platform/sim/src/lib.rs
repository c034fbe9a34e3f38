//! Software models of devices, with faults, under a seeded scheduler.
//!
//! * [`hba`]: an AHCI host bus adapter, and [`sata`]: what may be at its ports, such as a [`Disk`], or
//!   a [`Multiplier`] with several of them behind it.
//! * [`virtio`]: a virtio disk.
//! * [`fault`]: the catalogue of what can go wrong.
//! * [`device`]: the model as the PCI function that a driver takes.
//! * [`live`]: the model in real time, with images as disks, for a server.
//! * [`trial`]: a driver against the model, watched by an oracle; all of it from a seed.
//!
//! Models share the drivers' definitions of registers and structures. They reach memory through a
//! [`DeviceView`](outboard_hw::dma::DeviceView), which lets them at what is allocated and at nothing else.
#![forbid(unsafe_code)]

pub mod atapi;
pub mod device;
pub mod disk;
pub mod fault;
pub mod hba;
pub mod live;
pub mod multiplier;
pub mod random;
pub mod sata;
mod schedule;
mod seat;
mod trace;
pub mod trial;
pub mod virtio;

pub use device::SimDevice;
pub use disk::{Disk, DiskConfig};
pub use fault::{Fault, VirtioFault};
pub use live::Live;
pub use multiplier::{Multiplier, MultiplierConfig};
pub use random::Random;
pub use trace::Trace;
pub use virtio::{VirtioConfig, VirtioDevice, VirtioFace, VirtioModel};
