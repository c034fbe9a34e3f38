//! The drivers in a program without an operating system; see `Cargo.toml`.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::boxed::Box;
use alloc::vec::Vec;
use linked_list_allocator::LockedHeap;
use outboard_ahci::{AhciConfig, AhciError, Hba};
use outboard_block::disk::Disks;
use outboard_pci::Device;

#[global_allocator]
static HEAP: LockedHeap = LockedHeap::empty();

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Drives the disks of a host bus adapter.
pub fn disks<D: Device + 'static>(device: D) -> Result<Disks, AhciError> {
    let driver = Hba::new(device, AhciConfig::default())?;
    let mut disks = Disks::new();
    disks.add_driver(Box::new(driver), Vec::new(), 1 << 20);
    Ok(disks)
}
