//! The model as a driver sees it.

use super::plug::EM_BUFFER;
use super::{Model, ModelDevice};
use outboard_ahci::spec::ata::BLOCK_BYTES;
use outboard_ahci::spec::registers::{ABAR, IS, PI};
use outboard_hw::dma::DmaSpace;
use outboard_hw::interrupt::{InterruptKind, VectorRange, Vectors};
use outboard_hw::registers::{ReadOnly, ReadWrite, Register};
use outboard_hw::{HwError, Registers};
use outboard_pci::config::ConfigSpace;
use outboard_pci::{Class, Device, Identity};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Clone)]
pub struct ModelRegisters(Arc<Mutex<Model>>);

macro_rules! only_words {
    ($($int:ty: $read:ident, $write:ident;)*) => {$(
        fn $read(&self, _: usize) -> $int {
            panic!("AHCI registers are read by dwords")
        }
        fn $write(&mut self, _: usize, _: $int) {
            panic!("AHCI registers are written by dwords")
        }
    )*};
}

impl Registers for ModelRegisters {
    fn size_bytes(&self) -> usize {
        EM_BUFFER + 8
    }
    fn read_u32(&self, offset: usize) -> u32 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).read(offset)
    }
    fn write_u32(&mut self, offset: usize, value: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(offset, value);
    }
    only_words! { u8: read_u8, write_u8; u16: read_u16, write_u16; u64: read_u64, write_u64; }
}

/// Nothing but the command register, and of that nothing but bus mastering.
impl ConfigSpace for ModelDevice {
    fn size_bytes(&self) -> u16 {
        256
    }
    fn read_u8(&mut self, _: u16) -> u8 {
        0
    }
    fn read_u16(&mut self, offset: u16) -> u16 {
        if offset == 4 { u16::from(self.model().bus_master) << 2 } else { 0 }
    }
    fn read_u32(&mut self, _: u16) -> u32 {
        0
    }
    fn write_u8(&mut self, _: u16, _: u8) {}
    fn write_u16(&mut self, offset: u16, value: u16) {
        if offset == 4 {
            self.model().bus_master = value & 1 << 2 != 0;
        }
    }
    fn write_u32(&mut self, _: u16, _: u32) {}
}

impl Device for ModelDevice {
    type Registers = ModelRegisters;

    fn identity(&self) -> Identity {
        let class = Class { base: 1, sub: 6, interface: 1 };
        Identity { vendor: 0x8086, device: 0x2922, subsystem: None, class, revision: 2 }
    }
    fn config(&mut self) -> &mut dyn ConfigSpace {
        self
    }
    fn map_bar(&mut self, bar: u8) -> Result<ModelRegisters, HwError> {
        assert_eq!(bar, ABAR);
        Ok(ModelRegisters(self.model.clone()))
    }
    fn dma(&self) -> Arc<dyn DmaSpace> {
        Arc::new(self.arena.clone())
    }
    fn enable_interrupts(&mut self, _: VectorRange) -> Result<Vectors, HwError> {
        Ok(Vectors { kind: InterruptKind::Msi, count: 1 })
    }
    fn disable_interrupts(&mut self) {}
    fn reset(&mut self) -> Result<(), HwError> {
        Err(HwError::NoReset)
    }
}

/// The register definitions are usable from the device's side without casts.
const _: (Register<u32, ReadOnly>, Register<u32, ReadWrite>, usize) = (PI, IS, BLOCK_BYTES);
