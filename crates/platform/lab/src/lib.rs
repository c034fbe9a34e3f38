//! The lab: QEMU's device models, driven from this process, without privileges and without KVM.
//!
//! QEMU is started with a machine whose processor executes `cli; hlt` from a 64 KiB ROM and then
//! sleeps for good. Its devices live on, and this process plays the processor:
//!
//! * Registers and configuration space are reached over QEMU's `qtest` protocol, a line of text
//!   per access (`qtest`). Writes are posted: their answers are collected by the next read.
//! * Guest memory is a `memfd` that both processes map. DMA buffers are carved out of it.
//! * Message-signalled interrupts arrive as `eventfd`s (`doorbell`): each device's message
//!   address is set to the doorbell register of an `ivshmem-doorbell` device, whose interrupt
//!   server is this process. Pin interrupts are reported by `qtest` as they change.
//! * There is no firmware. Buses are numbered and addresses assigned by `outboard-pci`.
//!
//! If QEMU dies or stops answering, registers read as all ones, as those of a device that was
//! pulled out, and [`Lab::check`] says why. QEMU never outlives this process, however it ends.
#![deny(unsafe_code)]

mod card;
mod config;
mod device;
mod doorbell;
mod error;
mod image;
mod machine;
mod process;
mod qtest;
mod registers;
mod version;

pub use card::{CardConfig, Wire};
pub use config::{
    Bus, DiskConfig, DiskKind, Fault, FaultAt, Format, LabConfig, Machine, Media, VirtioConfig,
    VirtioVersion,
};
pub use device::{LabDevice, LabInterrupts};
pub use error::LabError;
pub use machine::Lab;
pub use registers::LabRegisters;
