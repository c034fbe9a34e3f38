//! Registers of devices that follow the specification (§4.1.4).

use crate::VirtioError;
use crate::queue::Areas;
use crate::spec::pci::{
    COMMON_BYTES, CONFIG_GENERATION, CONFIG_VECTOR, DEVICE_FEATURE, DEVICE_FEATURE_SELECT,
    DEVICE_STATUS, DRIVER_FEATURE, DRIVER_FEATURE_SELECT, ISR, NUM_QUEUES, QUEUE_DESCRIPTORS,
    QUEUE_DEVICE, QUEUE_DRIVER, QUEUE_ENABLE, QUEUE_NOTIFY_OFFSET, QUEUE_SELECT, QUEUE_SIZE,
    QUEUE_VECTOR, capability,
};
use alloc::vec::Vec;
use outboard_hw::Registers;
use outboard_hw::dma::DeviceAddress;
use outboard_hw::registers::{ReadWrite, Register, RegistersExt, Window};
use outboard_pci::capability::{conventional, id};
use outboard_pci::{Claimed, Device};

/// The structures that capabilities lead to.
#[derive(Debug)]
pub(super) struct Modern<R> {
    common: Window<R>,
    isr: Window<R>,
    config: Option<Window<R>>,
    notifications: Window<R>,
    notify_multiplier: usize,
    /// Where each enabled queue's notifications go.
    doorbells: Vec<usize>,
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

impl<R: Registers + Clone> Modern<R> {
    pub(super) fn find<D: Device<Registers = R>>(
        claimed: &mut Claimed<D>,
    ) -> Result<Self, VirtioError> {
        let common = map(claimed, capability::COMMON, COMMON_BYTES, "common configuration")?;
        let isr = map(claimed, capability::ISR, 1, "interrupt status")?;
        let notifications = map(claimed, capability::NOTIFY, 2, "notifications")?;
        let config = map(claimed, capability::DEVICE, 4, "device configuration").ok();
        let at = notifications.0.at + capability::NOTIFY_MULTIPLIER;
        let multiplier = claimed.device().config().read_u32(at);
        Ok(Self {
            common: common.1,
            isr: isr.1,
            config: config.map(|(_, window)| window),
            notifications: notifications.1,
            notify_multiplier: multiplier as usize,
            doorbells: Vec::new(),
        })
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

    pub(super) fn offered_features(&mut self) -> u64 {
        let mut half = |index: u32| {
            self.common.set(DEVICE_FEATURE_SELECT, index);
            u64::from(self.common.get(DEVICE_FEATURE))
        };
        half(0) | half(1) << 32
    }

    pub(super) fn accept_features(&mut self, features: u64) {
        for (index, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.common.set(DRIVER_FEATURE_SELECT, index);
            self.common.set(DRIVER_FEATURE, half);
        }
    }

    pub(super) fn status(&self) -> u8 {
        self.common.get(DEVICE_STATUS)
    }

    pub(super) fn set_status(&mut self, status: u8) {
        self.common.set(DEVICE_STATUS, status);
    }

    pub(super) fn queues(&self) -> u16 {
        self.common.get(NUM_QUEUES)
    }

    pub(super) fn queue_limit(&mut self, queue: u16) -> u16 {
        self.common.set(QUEUE_SELECT, queue);
        self.common.get(QUEUE_SIZE)
    }

    pub(super) fn start(&mut self, vector: u16) -> Result<(), VirtioError> {
        self.doorbells.clear();
        self.set_vector(CONFIG_VECTOR, vector)
    }

    pub(super) fn enable_queue(
        &mut self,
        queue: u16,
        areas: Areas,
        vector: u16,
    ) -> Result<(), VirtioError> {
        self.common.set(QUEUE_SELECT, queue);
        self.common.set(QUEUE_SIZE, areas.entries);
        self.set_vector(QUEUE_VECTOR, vector)?;
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
    pub(super) fn notify(&mut self, queue: u16) {
        if let Some(doorbell) = self.doorbells.get(usize::from(queue)) {
            self.notifications.write_u16(*doorbell, queue);
        }
    }

    pub(super) fn isr(&mut self) -> u8 {
        self.isr.get(ISR)
    }

    pub(super) fn config_generation(&self) -> u8 {
        self.common.get(CONFIG_GENERATION)
    }

    pub(super) const fn config(&self) -> Option<&Window<R>> {
        self.config.as_ref()
    }

    pub(super) const fn config_mut(&mut self) -> Option<&mut Window<R>> {
        self.config.as_mut()
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
