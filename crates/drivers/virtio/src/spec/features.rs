//! Feature bits that do not depend on the kind of device (§6).

use bitflags::bitflags;

bitflags! {
    /// What device and driver agree upon. Bits 0 to 23 belong to the kind of device.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Features: u64 {
        /// A request's header may share a descriptor with what follows; with
        /// [`VERSION_1`](Self::VERSION_1) that goes without saying (`VIRTIO_F_ANY_LAYOUT`, §6.3).
        const ANY_LAYOUT = 1 << 27;
        /// Descriptors may name a table of descriptors (`VIRTIO_F_INDIRECT_DESC`).
        const INDIRECT = 1 << 28;
        /// Each side says from which entry on it wants to be told (`VIRTIO_F_EVENT_IDX`).
        const EVENT_INDEX = 1 << 29;
        /// The device follows the specification from 1.0 on (`VIRTIO_F_VERSION_1`).
        const VERSION_1 = 1 << 32;
        /// Addresses are those that the platform gives, through its IOMMU
        /// (`VIRTIO_F_ACCESS_PLATFORM`).
        const ACCESS_PLATFORM = 1 << 33;
        /// The packed layout of rings (`VIRTIO_F_RING_PACKED`).
        const PACKED = 1 << 34;
        /// The device uses buffers in the order in which they were made available, and may say so
        /// of many at once (`VIRTIO_F_IN_ORDER`).
        const IN_ORDER = 1 << 35;
        /// The device is hardware, before which stores have to be ordered as for any device
        /// (`VIRTIO_F_ORDER_PLATFORM`).
        const ORDER_PLATFORM = 1 << 36;
        /// Notifications say where the next entry will be (`VIRTIO_F_NOTIFICATION_DATA`).
        const NOTIFICATION_DATA = 1 << 38;
        /// Notifications name a queue as the device wants it named
        /// (`VIRTIO_F_NOTIF_CONFIG_DATA`).
        const NOTIF_CONFIG_DATA = 1 << 39;
        /// A queue can be reset alone (`VIRTIO_F_RING_RESET`).
        const RING_RESET = 1 << 40;
        const _ = !0;
    }
}
