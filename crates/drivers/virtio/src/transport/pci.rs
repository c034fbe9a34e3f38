//! Functions of a PCI bus, as the specification has them from 1.0 on (§4.1).

use super::{Cause, Transport};
use crate::VirtioError;
use crate::queue::Areas;
use crate::spec::pci::{
    COMMON_BYTES, CONFIG_GENERATION, CONFIG_VECTOR, DEVICE_FEATURE, DEVICE_FEATURE_SELECT,
    DEVICE_STATUS, DRIVER_FEATURE, DRIVER_FEATURE_SELECT, ISR, ISR_CONFIG, NO_VECTOR, NUM_QUEUES,
    QUEUE_DESCRIPTORS, QUEUE_DEVICE, QUEUE_DRIVER, QUEUE_ENABLE, QUEUE_NOTIFY_OFFSET, QUEUE_SELECT,
    QUEUE_SIZE, QUEUE_VECTOR, capability,
};
use crate::spec::status::Status;
use alloc::sync::Arc;
use alloc::vec::Vec;
use outboard_hw::Registers;
use outboard_hw::dma::{DeviceAddress, DmaSpace};
use outboard_hw::interrupt::{InterruptKind, InterruptKinds, VectorRange, Vectors};
use outboard_hw::registers::{ReadWrite, Register, RegistersExt, Window};
use outboard_pci::capability::{conventional, id};
use outboard_pci::{Claimed, Device};

/// A virtio device that is a PCI function.
#[derive(Debug)]
pub struct PciTransport<D: Device> {
    /// Before anything that the device may write.
    claimed: Claimed<D>,
    common: Window<D::Registers>,
    isr: Window<D::Registers>,
    config: Option<Window<D::Registers>>,
    notifications: Window<D::Registers>,
    notify_multiplier: usize,
    /// Where each enabled queue's notifications go.
    doorbells: Vec<usize>,
    vectors: Option<Vectors>,
}

/// Where a structure is (§4.1.4).
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Where the capability is.
    at: u16,
    bar: u8,
    offset: usize,
    len: usize,
}

impl<D: Device> PciTransport<D> {
    /// Takes a function over, and finds its structures.
    pub fn new(device: D) -> Result<Self, VirtioError> {
        let mut claimed = Claimed::new(device);
        let common = map(&mut claimed, capability::COMMON, COMMON_BYTES, "common configuration")?;
        let isr = map(&mut claimed, capability::ISR, 1, "interrupt status")?;
        let notifications = map(&mut claimed, capability::NOTIFY, 2, "notifications")?;
        let config = map(&mut claimed, capability::DEVICE, 4, "device configuration").ok();
        let at = notifications.0.at + capability::NOTIFY_MULTIPLIER;
        let multiplier = claimed.device().config().read_u32(at);
        Ok(Self {
            common: common.1,
            isr: isr.1,
            config: config.map(|(_, window)| window),
            notifications: notifications.1,
            notify_multiplier: multiplier as usize,
            doorbells: Vec::new(),
            vectors: None,
            claimed,
        })
    }

    /// The vector of a queue, or of the configuration.
    fn vector(&self, queue: Option<u16>) -> u16 {
        match (self.vectors, queue) {
            (Some(Vectors { kind: InterruptKind::MsiX, count }), Some(queue)) if count > 1 => {
                1 + queue % (count - 1)
            }
            (Some(Vectors { kind: InterruptKind::MsiX, .. }), _) => 0,
            _ => NO_VECTOR,
        }
    }

    /// Sets a vector, of which the device may have too few (§4.1.5.1.2.1).
    fn set_vector(
        &mut self,
        register: Register<u16, ReadWrite>,
        vector: u16,
    ) -> Result<(), VirtioError> {
        self.common.set(register, vector);
        match self.common.get(register) == vector {
            true => Ok(()),
            false => Err(VirtioError::NoVector),
        }
    }

    fn set_address(&mut self, register: Register<u32, ReadWrite>, address: DeviceAddress) {
        self.common.set(register, address.low());
        self.common.set(Register::<u32, ReadWrite>::at(register.offset() + 4), address.high());
    }
}

/// Maps a structure: the first of its kind that can be mapped (§4.1.4).
fn map<D: Device>(
    claimed: &mut Claimed<D>,
    kind: u8,
    least: usize,
    name: &'static str,
) -> Result<(Place, Window<D::Registers>), VirtioError> {
    let device = claimed.device();
    let config = device.config();
    let found: Vec<u16> = conventional(config)
        .filter(|found| found.id == u16::from(id::VENDOR))
        .map(|found| found.offset)
        .collect();
    for at in found {
        let config = device.config();
        // A capability that ends behind the space reads as ones there.
        if at > 0xff - capability::LENGTH - 3 || config.read_u8(at + capability::KIND) != kind {
            continue;
        }
        let place = Place {
            at,
            bar: config.read_u8(at + capability::BAR),
            offset: config.read_u32(at + capability::OFFSET) as usize,
            len: config.read_u32(at + capability::LENGTH) as usize,
        };
        if place.bar > 5 || place.len < least {
            continue;
        }
        let Ok(region) = device.map_bar(place.bar) else { continue };
        if let Ok(window) = Window::new(region, place.offset, place.len) {
            return Ok((place, window));
        }
    }
    Err(VirtioError::MissingStructure(name))
}

impl<D: Device> Transport for PciTransport<D> {
    fn dma(&self) -> Arc<dyn DmaSpace> {
        self.claimed.dma()
    }

    fn offered_features(&mut self) -> u64 {
        let mut half = |index: u32| {
            self.common.set(DEVICE_FEATURE_SELECT, index);
            u64::from(self.common.get(DEVICE_FEATURE))
        };
        half(0) | half(1) << 32
    }

    fn accept_features(&mut self, features: u64) {
        for (index, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.common.set(DRIVER_FEATURE_SELECT, index);
            self.common.set(DRIVER_FEATURE, half);
        }
    }

    fn status(&self) -> Status {
        Status::from_bits_retain(self.common.get(DEVICE_STATUS))
    }

    fn set_status(&mut self, status: Status) {
        self.common.set(DEVICE_STATUS, status.bits());
    }

    fn queue_limit(&mut self, queue: u16) -> u16 {
        self.common.set(QUEUE_SELECT, queue);
        self.common.get(QUEUE_SIZE)
    }

    fn enable_interrupts(&mut self, queues: u16) -> Result<(), VirtioError> {
        let max = queues.min(self.common.get(NUM_QUEUES)).saturating_add(1);
        let wanted = VectorRange { min: 1, max, kinds: InterruptKinds::Any };
        self.vectors = Some(self.claimed.device().enable_interrupts(wanted)?);
        Ok(())
    }

    fn start(&mut self) -> Result<(), VirtioError> {
        self.doorbells.clear();
        self.claimed.start_bus_master();
        self.set_vector(CONFIG_VECTOR, self.vector(None))
    }

    fn enable_queue(&mut self, queue: u16, areas: Areas) -> Result<(), VirtioError> {
        self.common.set(QUEUE_SELECT, queue);
        self.common.set(QUEUE_SIZE, areas.entries);
        self.set_vector(QUEUE_VECTOR, self.vector(Some(queue)))?;
        self.set_address(QUEUE_DESCRIPTORS, areas.descriptors);
        self.set_address(QUEUE_DRIVER, areas.driver);
        self.set_address(QUEUE_DEVICE, areas.device);
        let offset = usize::from(self.common.get(QUEUE_NOTIFY_OFFSET));
        let doorbell = offset.saturating_mul(self.notify_multiplier);
        if doorbell.checked_add(2).is_none_or(|end| end > self.notifications.size_bytes()) {
            return Err(VirtioError::MissingStructure("a queue's notifications"));
        }
        let place = usize::from(queue);
        self.doorbells.resize(self.doorbells.len().max(place + 1), doorbell);
        self.doorbells[place] = doorbell;
        self.common.set(QUEUE_ENABLE, 1);
        Ok(())
    }

    #[inline]
    fn notify(&mut self, queue: u16) {
        if let Some(doorbell) = self.doorbells.get(usize::from(queue)) {
            self.notifications.write_u16(*doorbell, queue);
        }
    }

    fn cause(&mut self, vector: u16) -> Cause {
        match self.vectors {
            Some(Vectors { kind: InterruptKind::MsiX, count }) => {
                let shared = count == 1;
                Cause { queues: shared || vector > 0, config: shared || vector == 0 }
            }
            Some(_) => {
                // Reading is what takes the line back.
                let isr = self.isr.get(ISR);
                Cause { queues: isr != 0, config: isr & ISR_CONFIG != 0 }
            }
            None => Cause::NONE,
        }
    }

    fn config_generation(&self) -> u32 {
        self.common.get(CONFIG_GENERATION).into()
    }

    fn config_u8(&self, offset: usize) -> u8 {
        self.config.as_ref().map_or(u8::MAX, |config| config.read_u8(offset))
    }

    fn config_u16(&self, offset: usize) -> u16 {
        self.config.as_ref().map_or(u16::MAX, |config| config.read_u16(offset))
    }

    fn config_u32(&self, offset: usize) -> u32 {
        self.config.as_ref().map_or(u32::MAX, |config| config.read_u32(offset))
    }

    fn set_config_u8(&mut self, offset: usize, value: u8) {
        if let Some(config) = &mut self.config {
            config.write_u8(offset, value);
        }
    }
}
