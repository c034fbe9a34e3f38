//! All that a device driver may touch: registers, DMA memory, interrupts and time.
//!
//! A driver that is written against this crate holds no address, no clock and no thread of its
//! own. A *platform* (the lab, VFIO, the simulator, a kernel) hands it values that implement these
//! traits, and the same driver then runs on all of them.
//!
//! * [`registers`]: a mapped region with 8- to 64-bit accesses, and registers as typed constants.
//! * [`dma`]: memory that the device reaches too. Bytes go in and out by copy, never by reference,
//!   because the device may write them at any moment; a device address is had only from a buffer.
//! * [`interrupt`]: which vectors a driver was given.
//! * [`time`]: a monotonic instant that the caller passes in.
//! * [`events`]: a ring of a driver's last events, readable after trouble.
//!
//! This is the one crate below the platforms with `unsafe` in it, all of it under [`dma`]. The
//! numbered invariants that the `SAFETY` comments name are those of `docs/SOUNDNESS.md`.
#![no_std]
#![deny(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod dma;
mod error;
pub mod events;
pub mod interrupt;
pub mod registers;
pub mod time;

pub use error::HwError;
pub use registers::Registers;
pub use time::Instant;
