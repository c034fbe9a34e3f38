//! The common configuration (§4.1.4.3), and in which order a driver goes about it (§3.1.1).

use super::inject::SET_UP;
use super::ring::{Place, Side};
use super::{Event, Queue, QueueReset, Quirk, VirtioFace, VirtioModel};
use crate::fault::VirtioFault;
use core::time::Duration;
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::pci::{
    COMMON_BYTES, CONFIG_GENERATION, CONFIG_VECTOR, DEVICE_FEATURE, DEVICE_FEATURE_SELECT,
    DEVICE_STATUS, DRIVER_FEATURE, DRIVER_FEATURE_SELECT, NO_VECTOR, NUM_QUEUES, QUEUE_DESCRIPTORS,
    QUEUE_DEVICE, QUEUE_DRIVER, QUEUE_ENABLE, QUEUE_NOTIFY_DATA, QUEUE_NOTIFY_OFFSET, QUEUE_RESET,
    QUEUE_SELECT, QUEUE_SIZE, QUEUE_VECTOR,
};
use outboard_virtio::spec::status::Status;

/// What the driver has written, and the device shows.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) status: Status,
    device_select: u32,
    driver_select: u32,
    pub(super) driver_features: u64,
    pub(super) config_vector: u16,
    pub(super) generation: u8,
    pub(super) queue_select: u16,
    /// The status has just read as all ones.
    read_ones: bool,
}

impl Default for Common {
    fn default() -> Self {
        Self {
            status: Status::empty(),
            device_select: 0,
            driver_select: 0,
            driver_features: 0,
            config_vector: NO_VECTOR,
            generation: 0,
            queue_select: 0,
            read_ones: false,
        }
    }
}

/// Where the registers of 64 bits begin, each of two halves.
const ADDRESSES: usize = QUEUE_DESCRIPTORS.offset();

/// How wide the register at an offset is; 0 if there is none.
const fn width(offset: usize) -> usize {
    match offset {
        0x00 | 0x04 | 0x08 | 0x0c => 4,
        0x14 | 0x15 => 1,
        0x10 | 0x12 | 0x16 | 0x18 | 0x1a | 0x1c | 0x1e => 2,
        ADDRESSES..COMMON_BYTES if offset.is_multiple_of(4) => 4,
        0x38 | 0x3a => 2,
        _ => 0,
    }
}

/// What a queue is called in notifications, if that was agreed upon.
pub(super) const fn notify_name(queue: u16) -> u16 {
    0x4000 + 3 * queue
}

impl Queue {
    /// Whether it is switched on, or was until its reset is done.
    pub(super) fn is_on(&self) -> bool {
        self.side.is_some() || self.reset == QueueReset::UnderWay
    }
}

/// Half of 64 bits.
const fn half(value: u64, select: u32) -> u32 {
    match select {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

/// 64 bits with one half exchanged.
const fn with_half(value: u64, select: usize, half: u32) -> u64 {
    match select {
        0 => value & !0xffff_ffff | half as u64,
        _ => value & 0xffff_ffff | (half as u64) << 32,
    }
}

impl VirtioModel {
    /// What both sides have agreed upon.
    pub(super) const fn agreed(&self) -> Features {
        Features::from_bits_retain(self.common.driver_features)
    }

    pub(super) fn selected(&self) -> Option<&Queue> {
        self.queues.get(usize::from(self.common.queue_select))
    }

    /// Complains of an access of another width than the register's (§4.1.3.1).
    fn check_width(&mut self, offset: usize, bytes: usize) {
        if width(offset) != bytes {
            self.violation(format_args!(
                "{bytes} bytes at {offset:#x} of the common configuration"
            ));
        }
    }

    pub(super) fn read_common(&mut self, offset: usize, bytes: usize) -> u64 {
        self.check_width(offset, bytes);
        let value = match offset {
            _ if offset == DEVICE_FEATURE_SELECT.offset() => self.common.device_select,
            _ if offset == DEVICE_FEATURE.offset() => half(self.offered, self.common.device_select),
            _ if offset == DRIVER_FEATURE_SELECT.offset() => self.common.driver_select,
            _ if offset == DRIVER_FEATURE.offset() => {
                half(self.common.driver_features, self.common.driver_select)
            }
            _ if offset == CONFIG_VECTOR.offset() => self.common.config_vector.into(),
            _ if offset == NUM_QUEUES.offset() => self.config.queues.into(),
            _ if offset == DEVICE_STATUS.offset() => self.read_status().into(),
            _ if offset == CONFIG_GENERATION.offset() => self.generation().into(),
            _ if offset == QUEUE_SELECT.offset() => self.common.queue_select.into(),
            _ if offset == QUEUE_SIZE.offset() => self.queue_size().into(),
            _ if offset == QUEUE_VECTOR.offset() => {
                self.selected().map_or(NO_VECTOR, |queue| queue.vector).into()
            }
            _ if offset == QUEUE_ENABLE.offset() => {
                self.selected().is_some_and(Queue::is_on).into()
            }
            _ if offset == QUEUE_NOTIFY_DATA.offset() => {
                notify_name(self.common.queue_select).into()
            }
            _ if offset == QUEUE_RESET.offset() => {
                let under_way = |queue: &Queue| queue.reset == QueueReset::UnderWay;
                self.selected().is_some_and(under_way).into()
            }
            _ if offset == QUEUE_NOTIFY_OFFSET.offset() => {
                match self.strike(&[VirtioFault::NotifyOffsetBeyond]) {
                    Some(_) => 0xfffe,
                    None => self.common.queue_select.into(),
                }
            }
            _ => 0,
        };
        value.into()
    }

    pub(super) fn read_status(&mut self) -> u8 {
        let works = self.common.status.contains(Status::DRIVER_OK) && !self.resetting;
        let faults = [VirtioFault::StatusOnes, VirtioFault::StatusGarbage];
        // Whoever looks twice sees it once.
        let ones = core::mem::take(&mut self.common.read_ones);
        match if works && !ones { self.strike(&faults) } else { None } {
            Some(VirtioFault::StatusOnes) => {
                self.common.read_ones = true;
                u8::MAX
            }
            // Zero is what a reset that is done looks like.
            Some(_) => self.random.between(1, 254) as u8,
            None => {
                self.watch_for_reset();
                self.common.status.bits()
            }
        }
    }

    /// The driver reads the status: what asks for a reset is reset, and not just looked at.
    fn watch_for_reset(&mut self) {
        let asks = self.common.status.contains(Status::NEEDS_RESET);
        if !asks || self.resetting || self.reset_unheard {
            return;
        }
        let since = *self.asked_since.get_or_insert(self.now);
        if self.now.since(since) >= Duration::from_secs(1) {
            self.violation(format_args!("a device that asks for a reset is left alone"));
        }
    }

    fn generation(&mut self) -> u8 {
        if self.lasts(VirtioFault::ConfigRestless) || self.lasts(VirtioFault::ConfigRestlessForGood)
        {
            self.common.generation = self.common.generation.wrapping_add(1);
        }
        self.common.generation
    }

    pub(super) fn queue_size(&mut self) -> u16 {
        let Some(size) = self.selected().map(|queue| queue.place.entries) else { return 0 };
        const FAULTS: [VirtioFault; 3] =
            [VirtioFault::QueueSizeZero, VirtioFault::QueueSizeOdd, VirtioFault::QueueSizeHuge];
        // A driver of the old kind has to take the device at its word.
        let some = if self.config.face == VirtioFace::Legacy { 1 } else { 3 };
        let told = match self.strike(&FAULTS[..some]) {
            Some(VirtioFault::QueueSizeZero) => 0,
            Some(VirtioFault::QueueSizeOdd) => size + size / 2 - 1,
            Some(_) => u16::MAX,
            None => size,
        };
        // The driver may take it at its word.
        if let Some(queue) = self.queues.get_mut(usize::from(self.common.queue_select)) {
            queue.most_told = queue.most_told.max(told);
        }
        told
    }

    pub(super) fn write_common(&mut self, offset: usize, bytes: usize, value: u64) {
        self.check_width(offset, bytes);
        let word = value as u32;
        match offset {
            _ if offset == DEVICE_FEATURE_SELECT.offset() => self.common.device_select = word,
            _ if offset == DRIVER_FEATURE_SELECT.offset() => self.common.driver_select = word,
            _ if offset == DRIVER_FEATURE.offset() => self.write_features(word),
            _ if offset == CONFIG_VECTOR.offset() => {
                self.common.config_vector = self.accept_vector(value as u16);
            }
            _ if offset == DEVICE_STATUS.offset() => {
                self.write_status(Status::from_bits_retain(value as u8));
            }
            _ if offset == QUEUE_SELECT.offset() => self.common.queue_select = value as u16,
            _ if offset >= QUEUE_SIZE.offset() => self.write_queue(offset, value),
            _ => self.violation(format_args!("a write at {offset:#x}, which can only be read")),
        }
    }

    pub(super) fn write_features(&mut self, word: u32) {
        let status = self.common.status;
        if !status.contains(Status::DRIVER) || status.contains(Status::FEATURES_OK) {
            self.violation(format_args!("features are written while the status is {status:?}"));
        }
        let select = self.common.driver_select as usize;
        if select < 2 {
            self.common.driver_features = with_half(self.common.driver_features, select, word);
        } else if word != 0 {
            self.violation(format_args!("feature bits {select} are written, which do not exist"));
        }
    }

    /// A vector, unless there is no room for it (§4.1.5.1.2.1).
    pub(super) fn accept_vector(&mut self, vector: u16) -> u16 {
        if vector == NO_VECTOR {
            return NO_VECTOR;
        }
        if vector >= self.config.vectors {
            self.violation(format_args!("vector {vector}, which the device does not have"));
            return NO_VECTOR;
        }
        match self.strike(&[VirtioFault::VectorRefused]) {
            Some(_) => NO_VECTOR,
            None => vector,
        }
    }

    pub(super) fn write_status(&mut self, new: Status) {
        if self.strike(&[VirtioFault::StatusStuck]).is_some() {
            self.reset_unheard |= new.is_empty();
            return;
        }
        if new.is_empty() {
            return self.begin_reset();
        }
        let old = self.common.status;
        self.note(format_args!("status {new:?}"));
        if self.resetting {
            return self.violation(format_args!("status {new:?} before a reset was done"));
        }
        let added = new.difference(old);
        // What a device that has lost itself is told is not the driver's doing.
        let cleared = !new.contains(old.difference(Status::NEEDS_RESET | Status::FAILED));
        let early = added.contains(Status::DRIVER) && !new.contains(Status::ACKNOWLEDGE)
            || added.contains(Status::FEATURES_OK) && !old.contains(Status::DRIVER)
            || added.contains(Status::DRIVER_OK)
                && !old.contains(Status::FEATURES_OK)
                && self.config.face != VirtioFace::Legacy;
        if (cleared || early) && !self.lost {
            self.violation(format_args!("status {new:?} after {old:?}"));
        }
        self.common.status = new;
        if added.contains(Status::DRIVER)
            && let Some(fault) = self.strike(&SET_UP)
        {
            self.lasting.push(fault);
        }
        if added.contains(Status::FEATURES_OK) {
            self.agree();
        }
        if added.contains(Status::DRIVER_OK) && !self.lost {
            self.begin_work();
        }
    }

    fn agree(&mut self) {
        let unknown = self.common.driver_features & !self.offered;
        if unknown != 0 {
            self.violation(format_args!("features {unknown:#x}, which were not offered"));
        }
        let good = self.lasts(VirtioFault::FeaturesRefusedForGood);
        if good || self.strike(&[VirtioFault::FeaturesRefused]).is_some() {
            self.common.status.remove(Status::FEATURES_OK);
        }
    }

    fn begin_work(&mut self) {
        if !self.bus_master {
            self.violation(format_args!("it is to work, and may not reach memory"));
        }
        if self.needs_again > 0 {
            self.needs_again -= 1;
            let soon = self.micros(0, 500);
            self.after(soon, Event::Strike { fault: VirtioFault::NeedsReset });
        }
    }

    fn write_queue(&mut self, offset: usize, value: u64) {
        let number = self.common.queue_select;
        if offset == QUEUE_RESET.offset() {
            return self.begin_queue_reset(number, value);
        }
        let status = self.common.status;
        let again = self.selected().is_some_and(|queue| queue.reset == QueueReset::Done);
        if !status.contains(Status::FEATURES_OK) || status.contains(Status::DRIVER_OK) && !again {
            self.violation(format_args!("queue {number} is set up while the status is {status:?}"));
        }
        if offset == QUEUE_VECTOR.offset() {
            let vector = self.accept_vector(value as u16);
            if let Some(queue) = self.queues.get_mut(usize::from(number)) {
                queue.vector = vector;
            }
            return;
        }
        let Some(queue) = self.queues.get_mut(usize::from(number)) else {
            return self.violation(format_args!("queue {number}, which does not exist, is set up"));
        };
        if queue.is_on() {
            return self.violation(format_args!("queue {number} is changed while it is on"));
        }
        let place = &mut queue.place;
        let set = |address: &mut u64| {
            *address = with_half(*address, offset % 8 / 4, value as u32);
        };
        match offset & !7 {
            _ if offset == QUEUE_SIZE.offset() => {
                let (most, size) = (queue.most_told, value as u16);
                let packed = self.common.driver_features & Features::PACKED.bits() != 0;
                place.entries = size;
                if size == 0 || size > most || !packed && !size.is_power_of_two() {
                    self.violation(format_args!("queue {number} of {size} entries"));
                }
            }
            _ if offset == QUEUE_ENABLE.offset() => self.enable(number, value),
            at if at == QUEUE_DESCRIPTORS.offset() => set(&mut place.descriptors),
            at if at == QUEUE_DRIVER.offset() => set(&mut place.driver),
            at if at == QUEUE_DEVICE.offset() => set(&mut place.device),
            _ => {}
        }
    }

    fn enable(&mut self, number: u16, value: u64) {
        let features = self.agreed();
        let Place { descriptors, driver, device, .. } = self.queues[usize::from(number)].place;
        // Descriptors, available and used ring (§2.7); descriptors and event suppression (§2.8.10).
        let alignment = if features.contains(Features::PACKED) { 4 } else { 2 };
        let aligned = descriptors.is_multiple_of(16)
            && driver.is_multiple_of(alignment)
            && device.is_multiple_of(4);
        if value != 1 || !aligned {
            self.violation(format_args!(
                "queue {number} is switched on with {value}, askew or not"
            ));
        }
        let ignored = self.strike(&[VirtioFault::EnableIgnored]).is_some();
        let queue = &mut self.queues[usize::from(number)];
        if ignored {
            queue.quirk = Some(Quirk::Dead);
        } else {
            let mut side = Side::new(queue.place, features);
            if let Some(before) = queue.before.take() {
                side.go_on_behind(&before);
            }
            queue.side = Some(side);
        }
    }
}
