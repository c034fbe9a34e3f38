//! The registers of devices from before virtio 1.0 (§4.1.4.10): one block of ports, with the disk's
//! configuration behind them.

use super::ring::{Place, Side};
use super::space::SPACE_BYTES;
use super::{Quirk, VirtioModel};
use crate::fault::VirtioFault;
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::pci::NO_VECTOR;
use outboard_virtio::spec::pci::legacy::{
    CONFIG, CONFIG_VECTOR, CONFIG_WITH_MSIX, DEVICE_FEATURES, DEVICE_STATUS, DRIVER_FEATURES, ISR,
    QUEUE_NOTIFY, QUEUE_PAGE, QUEUE_SELECT, QUEUE_SIZE, QUEUE_VECTOR,
};
use outboard_virtio::spec::split::{AVAILABLE_RING, Descriptor};
use outboard_virtio::spec::status::Status;

/// Bytes of the block.
pub(super) const PORT_BYTES: usize = CONFIG_WITH_MSIX + SPACE_BYTES;
/// What queues' addresses are counted in, and their used rings are aligned to (§2.7.2).
const PAGE_BYTES: u64 = 4096;
/// Features that there are bits for.
const KNOWN: u64 = u32::MAX as u64;

/// Where the parts of a queue are that begins with a page.
const fn layout(page: u64, entries: u16) -> Place {
    let descriptors = page * PAGE_BYTES;
    let driver = descriptors + Descriptor::BYTES as u64 * entries as u64;
    let driver_bytes = (AVAILABLE_RING + 2 * entries as usize + 2) as u64;
    let device = (driver + driver_bytes).next_multiple_of(PAGE_BYTES);
    Place { entries, descriptors, driver, device }
}

impl VirtioModel {
    /// Where the configuration begins.
    const fn space_begins(&self) -> usize {
        if self.msix { CONFIG_WITH_MSIX } else { CONFIG }
    }

    pub(super) fn read_ports(&mut self, offset: usize, bytes: usize) -> u64 {
        if self.removed {
            return u64::MAX;
        }
        if let Some(within) = offset.checked_sub(self.space_begins())
            && within + bytes <= SPACE_BYTES
        {
            return self.read_space(within, bytes);
        }
        let value = match (offset, bytes) {
            (at, 4) if at == DEVICE_FEATURES.offset() => self.offered as u32,
            (at, 4) if at == DRIVER_FEATURES.offset() => self.common.driver_features as u32,
            (at, 2) if at == QUEUE_SIZE.offset() => self.queue_size().into(),
            (at, 1) if at == DEVICE_STATUS.offset() => self.read_status().into(),
            (at, 1) if at == ISR.offset() => self.read_isr().into(),
            (at, 2) if at == CONFIG_VECTOR.offset() => self.common.config_vector.into(),
            (at, 2) if at == QUEUE_VECTOR.offset() => {
                self.selected().map_or(NO_VECTOR, |queue| queue.vector).into()
            }
            _ => {
                self.violation(format_args!("{bytes} bytes are read at port {offset:#x}"));
                u32::MAX
            }
        };
        value.into()
    }

    pub(super) fn write_ports(&mut self, offset: usize, bytes: usize, value: u64) {
        if self.removed {
            return;
        }
        if let Some(within) = offset.checked_sub(self.space_begins())
            && within + bytes <= SPACE_BYTES
        {
            return self.write_space(within, bytes, value);
        }
        match (offset, bytes) {
            (at, 4) if at == DRIVER_FEATURES.offset() => {
                let unknown = value & !(self.offered & KNOWN);
                if unknown != 0 {
                    self.violation(format_args!("features {unknown:#x}, which were not offered"));
                }
                self.write_features(value as u32);
            }
            (at, 4) if at == QUEUE_PAGE.offset() => self.write_page(value),
            (at, 2) if at == QUEUE_SELECT.offset() => self.common.queue_select = value as u16,
            (at, 2) if at == QUEUE_NOTIFY.offset() => {
                self.notified(usize::from(value as u16), value as u32);
            }
            (at, 1) if at == DEVICE_STATUS.offset() => {
                self.write_status(Status::from_bits_retain(value as u8));
            }
            (at, 2) if at == CONFIG_VECTOR.offset() => {
                self.common.config_vector = self.accept_vector(value as u16);
            }
            (at, 2) if at == QUEUE_VECTOR.offset() => {
                let vector = self.accept_vector(value as u16);
                let number = usize::from(self.common.queue_select);
                if let Some(queue) = self.queues.get_mut(number) {
                    queue.vector = vector;
                }
            }
            _ => self.violation(format_args!("{bytes} bytes are written at port {offset:#x}")),
        }
    }

    /// The driver gives the selected queue its memory.
    fn write_page(&mut self, page: u64) {
        let number = self.common.queue_select;
        let status = self.common.status;
        let early = !status.contains(Status::DRIVER) || status.contains(Status::DRIVER_OK);
        let there = self.selected().map(|queue| (queue.place.entries, queue.is_on()));
        let Some((entries, false)) = there.filter(|_| page != 0 && !early) else {
            if !self.lost {
                self.violation(format_args!("queue {number} gets page {page:#x} at {status:?}"));
            }
            return;
        };
        let ignored = self.strike(&[VirtioFault::EnableIgnored]).is_some();
        let features = self.agreed() & Features::from_bits_retain(KNOWN);
        let queue = &mut self.queues[usize::from(number)];
        queue.place = layout(page, entries);
        if ignored {
            // It cannot be read back whether a queue is on.
            queue.quirk = Some(Quirk::Dead);
            queue.side = None;
        } else {
            queue.side = Some(Side::new(queue.place, features));
        }
    }
}
