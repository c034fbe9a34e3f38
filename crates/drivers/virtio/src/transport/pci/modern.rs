//! Registers of devices that follow the specification (§4.1.4).

use crate::VirtioError;
use crate::queue::Areas;
use crate::spec::features::Features;
use crate::spec::pci::{
    COMMON_BYTES, COMMON_BYTES_WITH_RESET, CONFIG_GENERATION, CONFIG_VECTOR, DEVICE_FEATURE,
    DEVICE_FEATURE_SELECT, DEVICE_STATUS, DRIVER_FEATURE, DRIVER_FEATURE_SELECT, ISR, NUM_QUEUES,
    QUEUE_DESCRIPTORS, QUEUE_DEVICE, QUEUE_DRIVER, QUEUE_ENABLE, QUEUE_NOTIFY_DATA,
    QUEUE_NOTIFY_OFFSET, QUEUE_RESET, QUEUE_SELECT, QUEUE_SIZE, QUEUE_VECTOR, capability,
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
    /// What was agreed upon.
    features: Features,
    /// Each enabled queue's.
    doorbells: Vec<Doorbell>,
}

/// How the device is told of a queue (§4.1.5.2).
#[derive(Debug, Clone, Copy)]
struct Doorbell {
    offset: usize,
    /// What the queue is called there.
    name: u16,
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
        let common = map(claimed, capability::COMMON, (COMMON_BYTES, 4), "common configuration")?;
        let isr = map(claimed, capability::ISR, (1, 1), "interrupt status")?;
        let notifications = map(claimed, capability::NOTIFY, (2, 2), "notifications")?;
        let config = map(claimed, capability::DEVICE, (4, 4), "device configuration").ok();
        let at = notifications.0.at + capability::NOTIFY_MULTIPLIER;
        let multiplier = claimed.device().config().read_u32(at);
        Ok(Self {
            common: common.1,
            isr: isr.1,
            config: config.map(|(_, window)| window),
            notifications: notifications.1,
            notify_multiplier: multiplier as usize,
            features: Features::empty(),
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
        let offered = Features::from_bits_retain(half(0) | half(1) << 32);
        // Their registers are behind those that every device has.
        let there = self.common.size_bytes() >= COMMON_BYTES_WITH_RESET;
        let late = Features::RING_RESET | Features::NOTIF_CONFIG_DATA;
        if there { offered } else { offered - late }.bits()
    }

    pub(super) fn accept_features(&mut self, features: u64) {
        self.features = Features::from_bits_retain(features);
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
        let offset = offset.saturating_mul(self.notify_multiplier);
        let width = if self.features.contains(Features::NOTIFICATION_DATA) { 4 } else { 2 };
        if offset.checked_add(width).is_none_or(|end| end > self.notifications.size_bytes()) {
            return Err(VirtioError::MissingStructure("a queue's notifications"));
        }
        let named = self.features.contains(Features::NOTIF_CONFIG_DATA);
        let name = if named { self.common.get(QUEUE_NOTIFY_DATA) } else { queue };
        let (doorbell, place) = (Doorbell { offset, name }, usize::from(queue));
        self.doorbells.resize(self.doorbells.len().max(place + 1), doorbell);
        self.doorbells[place] = doorbell;
        self.common.set(QUEUE_ENABLE, 1);
        match self.common.get(QUEUE_ENABLE) {
            1 => Ok(()),
            _ => Err(VirtioError::NoQueue(queue)),
        }
    }

    #[inline]
    pub(super) fn notify(&mut self, queue: u16, next: u16) {
        let Some(doorbell) = self.doorbells.get(usize::from(queue)) else { return };
        let Doorbell { offset, name } = *doorbell;
        if self.features.contains(Features::NOTIFICATION_DATA) {
            self.notifications.write_u32(offset, u32::from(name) | u32::from(next) << 16);
        } else {
            self.notifications.write_u16(offset, name);
        }
    }

    pub(super) fn reset_queue(&mut self, queue: u16) {
        self.common.set(QUEUE_SELECT, queue);
        self.common.set(QUEUE_RESET, 1);
    }

    /// Whether the device has ended a queue's reset (§4.1.4.3.1).
    pub(super) fn is_queue_reset(&mut self, queue: u16) -> bool {
        self.common.set(QUEUE_SELECT, queue);
        self.common.get(QUEUE_RESET) == 0 && self.common.get(QUEUE_ENABLE) == 0
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

/// Maps a structure: the first of its kind that can be mapped, has at least so many bytes and is
/// aligned to so many (§4.1.4).
fn map<D: Device>(
    claimed: &mut Claimed<D>,
    kind: u8,
    (least, alignment): (usize, usize),
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
        let aligned = place.offset.is_multiple_of(alignment);
        if place.bar > 5 || place.len < least || !aligned {
            continue;
        }
        let Ok(region) = device.map_bar(place.bar) else { continue };
        if let Ok(window) = Window::new(region, place.offset, place.len) {
            return Ok((place, window));
        }
    }
    Err(VirtioError::MissingStructure(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use outboard_hw::dma::{Constraints, DmaSpace};
    use std::sync::{Arc, Mutex};
    use std::vec;

    /// Registers that hold what is written.
    #[derive(Clone)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Memory {
        fn load<const N: usize>(&self, at: usize) -> [u8; N] {
            self.0.lock().unwrap()[at..at + N].try_into().unwrap()
        }

        fn store(&self, at: usize, bytes: &[u8]) {
            self.0.lock().unwrap()[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }

    macro_rules! in_memory {
        ($($int:ty: $read:ident, $write:ident;)*) => {$(
            fn $read(&self, at: usize) -> $int {
                <$int>::from_le_bytes(self.load(at))
            }
            fn $write(&mut self, at: usize, value: $int) {
                self.store(at, &value.to_le_bytes());
            }
        )*};
    }

    impl Registers for Memory {
        fn size_bytes(&self) -> usize {
            self.0.lock().unwrap().len()
        }

        in_memory! {
            u8: read_u8, write_u8;
            u16: read_u16, write_u16;
            u32: read_u32, write_u32;
            u64: read_u64, write_u64;
        }
    }

    /// Where notifications go.
    const DOORBELL: usize = 0x48;

    fn device(common_bytes: usize) -> (Modern<Memory>, Memory) {
        let memory = Memory(Arc::new(Mutex::new(vec![0; 128])));
        let window = |at, len| Window::new(memory.clone(), at, len).unwrap();
        let modern = Modern {
            common: window(0, common_bytes),
            isr: window(0x60, 4),
            config: None,
            notifications: window(0x40, 16),
            notify_multiplier: 4,
            features: Features::empty(),
            doorbells: Vec::new(),
        };
        memory.store(QUEUE_NOTIFY_OFFSET.offset(), &2u16.to_le_bytes());
        memory.store(QUEUE_NOTIFY_DATA.offset(), &0x1234u16.to_le_bytes());
        (modern, memory)
    }

    fn notified(features: Features) -> u32 {
        let (mut modern, memory) = device(COMMON_BYTES_WITH_RESET);
        modern.accept_features(features.bits());
        let (_, arena) = outboard_linux::SharedMemory::for_model("modern", 1 << 20).unwrap();
        let buffer = arena.allocate(64, &Constraints::NONE).unwrap();
        let nowhere = buffer.address();
        let areas = Areas { entries: 8, descriptors: nowhere, driver: nowhere, device: nowhere };
        modern.enable_queue(3, areas, 0xffff).unwrap();
        modern.notify(3, 0x8005);
        u32::from_le_bytes(memory.load(DOORBELL))
    }

    #[test]
    fn notifications_say_what_was_agreed_upon() {
        assert_eq!(notified(Features::empty()), 3);
        assert_eq!(notified(Features::NOTIFICATION_DATA), 0x8005_0003);
        assert_eq!(notified(Features::NOTIF_CONFIG_DATA), 0x1234);
        let both = Features::NOTIFICATION_DATA | Features::NOTIF_CONFIG_DATA;
        assert_eq!(notified(both), 0x8005_1234);
    }

    #[test]
    fn a_queue_is_reset_once_both_of_its_registers_say_so() {
        let (mut modern, memory) = device(COMMON_BYTES_WITH_RESET);
        memory.store(QUEUE_ENABLE.offset(), &[1]);
        modern.reset_queue(2);
        assert_eq!(
            (memory.load(QUEUE_SELECT.offset()), memory.load(QUEUE_RESET.offset())),
            ([2], [1])
        );
        assert!(!modern.is_queue_reset(2));
        memory.store(QUEUE_RESET.offset(), &[0]);
        assert!(!modern.is_queue_reset(2));
        memory.store(QUEUE_ENABLE.offset(), &[0]);
        assert!(modern.is_queue_reset(2));
    }

    #[test]
    fn features_whose_registers_are_missing_are_not_offered() {
        for (bytes, offered) in [(COMMON_BYTES, false), (COMMON_BYTES_WITH_RESET, true)] {
            let (mut modern, memory) = device(bytes);
            memory.store(DEVICE_FEATURE.offset(), &u32::MAX.to_le_bytes());
            let features = Features::from_bits_retain(modern.offered_features());
            assert!(features.contains(Features::NOTIFICATION_DATA));
            assert_eq!(features.contains(Features::RING_RESET), offered);
            assert_eq!(features.contains(Features::NOTIF_CONFIG_DATA), offered);
        }
    }
}
