//! Software models of devices, with faults, under a seeded scheduler.
#![forbid(unsafe_code)]

pub mod disk;
pub mod random;
pub mod sata;

pub use disk::{Disk, DiskConfig};
pub use random::Random;
