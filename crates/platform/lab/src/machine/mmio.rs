//! The machine without PCI: QEMU's `microvm`, whose virtio devices are at fixed addresses.

use super::virtio_disk;
use crate::LabError;
use crate::config::{Bus, DiskKind, LabConfig, Machine, VirtioVersion};
use crate::device::{LabInterrupts, Shared};
use crate::registers::LabRegisters;
use outboard_hw::interrupt::InterruptKind;
use std::process::Command;
use std::sync::Arc;

/// With ACPI, and with one I/O APIC, the devices' lines are those that a PC's pins have.
pub(super) const MACHINE: &str = "microvm,acpi=on,ioapic2=off,pcie=off,rtc=off,pit=off,pic=off,\
                                  usb=off,isa-serial=off,auto-kernel-cmdline=off,x-option-roms=off";
/// Where the first device's registers are, and how many bytes each has.
const REGISTERS_BASE: u64 = 0xfeb0_0000;
const REGISTERS_BYTES: usize = 512;

/// Adds the disks, in the order of their addresses.
pub(super) fn add_disks(command: &mut Command, config: &LabConfig) -> Result<(), LabError> {
    let wanted = config.interrupts.unwrap_or(InterruptKind::Pin);
    if wanted != InterruptKind::Pin {
        return Err(LabError::NoMessages);
    }
    if config.disks.len() > Machine::MMIO_DEVICES || !config.cards.is_empty() {
        return Err(LabError::NotOverMmio);
    }
    for (number, disk) in config.disks.iter().enumerate() {
        // All devices of a machine have registers of the same version.
        let is_legacy = config.machine == Machine::MicroV1;
        let (Bus::VirtioMmio(virtio), DiskKind::Disk) = (&disk.bus, disk.kind) else {
            return Err(LabError::NotOverMmio);
        };
        if (virtio.version == VirtioVersion::Legacy) != is_legacy {
            return Err(LabError::NotOverMmio);
        }
        let mut device = virtio_disk(command, &format!("disk{number}.0"), disk, virtio);
        device["driver"] = "virtio-blk-device".into();
        device["bus"] = format!("virtio-mmio-bus.{number}").into();
        command.arg("-device").arg(device.to_string());
    }
    Ok(())
}

/// The registers of the device at a place, and its interrupt.
pub(super) fn open(shared: &Arc<Shared>, place: usize) -> Option<(LabRegisters, LabInterrupts)> {
    if place >= Machine::MMIO_DEVICES {
        return None;
    }
    shared.qtest.watch_lines()?;
    let base = REGISTERS_BASE + (REGISTERS_BYTES * place) as u64;
    let registers = LabRegisters::new(shared.qtest.clone(), base, REGISTERS_BYTES);
    Some((registers, LabInterrupts::pin(shared.clone())))
}
