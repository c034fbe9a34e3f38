//! Software models of devices, with faults, under a seeded scheduler.
#![forbid(unsafe_code)]

pub mod random;
pub mod sata;

pub use random::Random;
