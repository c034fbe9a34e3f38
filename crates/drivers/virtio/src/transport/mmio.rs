//! Devices whose registers are at an address that the platform knows (§4.2).

use super::{Cause, Transport};
use crate::VirtioError;
use crate::queue::Areas;
use crate::spec::features::Features;
use crate::spec::mmio::legacy::{GUEST_PAGE_SIZE, QUEUE_ALIGN, QUEUE_PFN};
use crate::spec::mmio::{
    CONFIG, CONFIG_GENERATION, DEVICE_FEATURES, DEVICE_FEATURES_SEL, DEVICE_ID, DRIVER_FEATURES,
    DRIVER_FEATURES_SEL, INTERRUPT_ACK, INTERRUPT_CONFIG, INTERRUPT_QUEUES, INTERRUPT_STATUS,
    MAGIC, MAGIC_VALUE, QUEUE_DESC, QUEUE_DEVICE, QUEUE_DRIVER, QUEUE_NOTIFY, QUEUE_NUM,
    QUEUE_NUM_MAX, QUEUE_READY, QUEUE_RESET, QUEUE_SEL, STATUS, VERSION,
};
use crate::spec::status::Status;
use alloc::sync::Arc;
use core::fmt;
use outboard_hw::Registers;
use outboard_hw::dma::{DeviceAddress, DmaSpace};
use outboard_hw::registers::{ReadWrite, Register, RegistersExt};

/// What version 1 counts queues' addresses in, and aligns their parts to.
const PAGE_BYTES: u32 = 4096;

/// A virtio device at a fixed address. It has one interrupt, which the platform has wired to vector
/// 0 already.
///
/// There is no bus to take it off: what keeps it from memory that was given back is its reset.
pub struct MmioTransport<R: Registers> {
    registers: R,
    dma: Arc<dyn DmaSpace>,
    kind: u32,
    is_legacy: bool,
    features: Features,
}

impl<R: Registers> fmt::Debug for MmioTransport<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MmioTransport(kind {}, legacy: {})", self.kind, self.is_legacy)
    }
}

impl<R: Registers> MmioTransport<R> {
    /// The device with these registers, which reaches this memory.
    pub fn new(registers: R, dma: Arc<dyn DmaSpace>) -> Result<Self, VirtioError> {
        if registers.size_bytes() < CONFIG || registers.get(MAGIC_VALUE) != MAGIC {
            return Err(VirtioError::NoDevice);
        }
        let is_legacy = match registers.get(VERSION) {
            1 => true,
            2 => false,
            version => return Err(VirtioError::UnknownVersion(version)),
        };
        let kind = registers.get(DEVICE_ID);
        if kind == 0 {
            return Err(VirtioError::NoDevice);
        }
        Ok(Self { registers, dma, kind, is_legacy, features: Features::empty() })
    }

    /// What kind of device it is (§5), such as
    /// [`KIND_BLOCK`](crate::spec::pci::KIND_BLOCK).
    pub const fn kind(&self) -> u32 {
        self.kind
    }

    fn set_address(&mut self, register: Register<u32, ReadWrite>, address: DeviceAddress) {
        self.registers.set(register, address.low());
        let upper = Register::<u32, ReadWrite>::at(register.offset() + 4);
        self.registers.set(upper, address.high());
    }
}

impl<R: Registers + Send> Transport for MmioTransport<R> {
    fn dma(&self) -> Arc<dyn DmaSpace> {
        self.dma.clone()
    }

    fn is_legacy(&self) -> bool {
        self.is_legacy
    }

    fn offered_features(&mut self) -> u64 {
        let mut half = |index: u32| {
            self.registers.set(DEVICE_FEATURES_SEL, index);
            u64::from(self.registers.get(DEVICE_FEATURES))
        };
        let offered = half(0) | half(1) << 32;
        // Queues have no other names here.
        offered & !Features::NOTIF_CONFIG_DATA.bits()
    }

    fn accept_features(&mut self, features: u64) {
        self.features = Features::from_bits_retain(features);
        for (index, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.registers.set(DRIVER_FEATURES_SEL, index);
            self.registers.set(DRIVER_FEATURES, half);
        }
    }

    fn status(&self) -> Status {
        Status::from_bits_retain(self.registers.get(STATUS) as u8)
    }

    fn set_status(&mut self, status: Status) {
        self.registers.set(STATUS, status.bits().into());
    }

    fn queue_limit(&mut self, queue: u16) -> u16 {
        self.registers.set(QUEUE_SEL, queue.into());
        u16::try_from(self.registers.get(QUEUE_NUM_MAX)).unwrap_or(u16::MAX)
    }

    fn enable_interrupts(&mut self, _: u16) -> Result<(), VirtioError> {
        Ok(())
    }

    fn start(&mut self) -> Result<(), VirtioError> {
        if self.is_legacy {
            self.registers.set(GUEST_PAGE_SIZE, PAGE_BYTES);
        }
        Ok(())
    }

    fn cut_off(&mut self) {
        self.registers.set(STATUS, 0);
    }

    fn enable_queue(&mut self, queue: u16, areas: Areas) -> Result<(), VirtioError> {
        self.registers.set(QUEUE_SEL, queue.into());
        self.registers.set(QUEUE_NUM, areas.entries.into());
        if self.is_legacy {
            let page = u32::try_from(areas.descriptors.bits() / u64::from(PAGE_BYTES));
            let page = page.map_err(|_| VirtioError::NoQueue(queue))?;
            self.registers.set(QUEUE_ALIGN, PAGE_BYTES);
            self.registers.set(QUEUE_PFN, page);
            return Ok(());
        }
        self.set_address(QUEUE_DESC, areas.descriptors);
        self.set_address(QUEUE_DRIVER, areas.driver);
        self.set_address(QUEUE_DEVICE, areas.device);
        self.registers.set(QUEUE_READY, 1);
        Ok(())
    }

    #[inline]
    fn notify(&mut self, queue: u16, next: u16) {
        let said = self.features.contains(Features::NOTIFICATION_DATA);
        let next = if said { u32::from(next) << 16 } else { 0 };
        self.registers.set(QUEUE_NOTIFY, u32::from(queue) | next);
    }

    fn reset_queue(&mut self, queue: u16) {
        self.registers.set(QUEUE_SEL, queue.into());
        self.registers.set(QUEUE_RESET, 1);
    }

    fn is_queue_reset(&mut self, queue: u16) -> bool {
        self.registers.set(QUEUE_SEL, queue.into());
        self.registers.get(QUEUE_RESET) == 0 && self.registers.get(QUEUE_READY) == 0
    }

    fn cause(&mut self, _: u16) -> Cause {
        let why = self.registers.get(INTERRUPT_STATUS);
        // This is what takes the line back.
        self.registers.set(INTERRUPT_ACK, why & (INTERRUPT_QUEUES | INTERRUPT_CONFIG));
        Cause { queues: why & INTERRUPT_QUEUES != 0, config: why & INTERRUPT_CONFIG != 0 }
    }

    fn config_generation(&self) -> u32 {
        if self.is_legacy { 0 } else { self.registers.get(CONFIG_GENERATION) }
    }

    fn config_u8(&self, offset: usize) -> u8 {
        self.registers.read_u8(CONFIG + offset)
    }

    fn config_u16(&self, offset: usize) -> u16 {
        self.registers.read_u16(CONFIG + offset)
    }

    fn config_u32(&self, offset: usize) -> u32 {
        self.registers.read_u32(CONFIG + offset)
    }

    fn set_config_u8(&mut self, offset: usize, value: u8) {
        self.registers.write_u8(CONFIG + offset, value);
    }
}

impl<R: Registers> Drop for MmioTransport<R> {
    fn drop(&mut self) {
        // The driver's memory goes next.
        self.registers.set(STATUS, 0);
    }
}
