//! The fuzzed HBA as the driver sees it: a PCI function.

use super::model::{Model, REGISTER_BYTES};
use crate::space::Space;
use outboard_ahci::spec::registers::ABAR;
use outboard_hw::HwError;
use outboard_hw::dma::DmaSpace;
use outboard_hw::interrupt::{InterruptKind, VectorRange, Vectors};
use outboard_hw::registers::DwordRegisters;
use outboard_pci::config::{CONVENTIONAL_BYTES, ConfigSpace};
use outboard_pci::{Class, Device, Identity, header};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Subsystem of QEMU's devices, whose faults the driver knows.
const QEMU: (u16, u16) = (0x1af4, 0x1100);
const BUS_MASTER: u16 = 1 << 2;

/// A handle to the HBA.
#[derive(Clone)]
pub(super) struct Handle {
    pub(super) model: Arc<Mutex<Model>>,
    pub(super) space: Arc<Space>,
}

impl Handle {
    pub(super) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DwordRegisters for Handle {
    fn size_bytes(&self) -> usize {
        REGISTER_BYTES
    }

    fn read_dword(&self, offset: usize) -> u32 {
        self.model().read(offset)
    }

    fn write_dword(&mut self, offset: usize, value: u32) {
        self.model().write(offset, value);
    }
}

/// Nothing but the command register, and of that nothing but bus mastering.
impl ConfigSpace for Handle {
    fn size_bytes(&self) -> u16 {
        CONVENTIONAL_BYTES
    }

    fn read_u8(&mut self, _: u16) -> u8 {
        0
    }

    fn read_u16(&mut self, offset: u16) -> u16 {
        let on = offset == header::COMMAND && self.model().bus_master;
        if on { BUS_MASTER } else { 0 }
    }

    fn read_u32(&mut self, offset: u16) -> u32 {
        self.read_u16(offset).into()
    }

    fn write_u8(&mut self, _: u16, _: u8) {}

    fn write_u16(&mut self, offset: u16, value: u16) {
        if offset == header::COMMAND {
            self.model().bus_master = value & BUS_MASTER != 0;
        }
    }

    fn write_u32(&mut self, _: u16, _: u32) {}
}

impl Device for Handle {
    type Registers = Self;

    fn identity(&self) -> Identity {
        Identity {
            vendor: 0x8086,
            device: 0x2922,
            subsystem: self.model().qemu.then_some(QEMU),
            class: Class { base: 1, sub: 6, interface: 1 },
            revision: 2,
        }
    }

    fn config(&mut self) -> &mut dyn ConfigSpace {
        self
    }

    fn map_bar(&mut self, bar: u8) -> Result<Self, HwError> {
        assert_eq!(bar, ABAR, "the registers are elsewhere");
        Ok(self.clone())
    }

    fn dma(&self) -> Arc<dyn DmaSpace> {
        self.space.clone()
    }

    fn enable_interrupts(&mut self, _: VectorRange) -> Result<Vectors, HwError> {
        Ok(Vectors { kind: InterruptKind::Msi, count: 1 })
    }

    fn disable_interrupts(&mut self) {}

    fn reset(&mut self) -> Result<(), HwError> {
        Err(HwError::NoReset("a model has none"))
    }
}
