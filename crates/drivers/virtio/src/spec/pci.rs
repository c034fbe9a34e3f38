//! Registers of the PCI transport (§4.1).

use outboard_hw::registers::{ReadOnly, ReadWrite, Register};

/// The vendor of all virtio devices (§4.1.2).
pub const VENDOR: u16 = 0x1af4;
/// Device IDs from here on are 0x1040 and the kind of device (§4.1.2).
pub const MODERN_DEVICES: u16 = 0x1040;
/// The first of the devices that follow drafts of the specification, too: "transitional" ones.
pub const TRANSITIONAL_DEVICES: u16 = 0x1000;
/// The last one that can be such a device.
pub const LAST_DEVICE: u16 = 0x107f;

/// Network card (§5.1.1).
pub const KIND_NET: u16 = 1;
/// Transitional ID of a network card (§4.1.2.1).
pub const TRANSITIONAL_NET: u16 = 0x1000;
/// Block device (§5.2.1).
pub const KIND_BLOCK: u16 = 2;
/// Transitional ID of a block device (§4.1.2.1).
pub const TRANSITIONAL_BLOCK: u16 = 0x1001;
/// Console (§5.3.1).
pub const KIND_CONSOLE: u16 = 3;
/// Transitional ID of a console.
pub const TRANSITIONAL_CONSOLE: u16 = 0x1003;
/// Entropy source (§5.4.1).
pub const KIND_ENTROPY: u16 = 4;
/// Transitional ID of an entropy source.
pub const TRANSITIONAL_ENTROPY: u16 = 0x1005;

/// Where structures are: a vendor-specific capability (§4.1.4).
pub mod capability {
    /// `cfg_type`: which structure.
    pub const KIND: u16 = 3;
    /// `bar`: which base address register.
    pub const BAR: u16 = 4;
    /// `offset`: where in that region.
    pub const OFFSET: u16 = 8;
    /// `length` of the structure.
    pub const LENGTH: u16 = 12;
    /// `notify_off_multiplier`, of the notification structure alone (§4.1.4.4).
    pub const NOTIFY_MULTIPLIER: u16 = 16;

    /// Common configuration.
    pub const COMMON: u8 = 1;
    /// Notifications.
    pub const NOTIFY: u8 = 2;
    /// ISR status.
    pub const ISR: u8 = 3;
    /// Device-specific configuration.
    pub const DEVICE: u8 = 4;
}

/// `device_feature_select`: which 32 of the device's feature bits to show (§4.1.4.3).
pub const DEVICE_FEATURE_SELECT: Register<u32, ReadWrite> = Register::at(0x00);
/// `device_feature`.
pub const DEVICE_FEATURE: Register<u32, ReadOnly> = Register::at(0x04);
/// `driver_feature_select`.
pub const DRIVER_FEATURE_SELECT: Register<u32, ReadWrite> = Register::at(0x08);
/// `driver_feature`.
pub const DRIVER_FEATURE: Register<u32, ReadWrite> = Register::at(0x0c);
/// `config_msix_vector`: the vector for changes of the configuration.
pub const CONFIG_VECTOR: Register<u16, ReadWrite> = Register::at(0x10);
/// `num_queues`: how many queues there can be.
pub const NUM_QUEUES: Register<u16, ReadOnly> = Register::at(0x12);
/// `device_status`.
pub const DEVICE_STATUS: Register<u8, ReadWrite> = Register::at(0x14);
/// `config_generation`: changes whenever the device's configuration may have.
pub const CONFIG_GENERATION: Register<u8, ReadOnly> = Register::at(0x15);
/// `queue_select`: which queue the following registers are of.
pub const QUEUE_SELECT: Register<u16, ReadWrite> = Register::at(0x16);
/// `queue_size`: its most entries, and how many to have; 0 if it is not there.
pub const QUEUE_SIZE: Register<u16, ReadWrite> = Register::at(0x18);
/// `queue_msix_vector`.
pub const QUEUE_VECTOR: Register<u16, ReadWrite> = Register::at(0x1a);
/// `queue_enable`.
pub const QUEUE_ENABLE: Register<u16, ReadWrite> = Register::at(0x1c);
/// `queue_notify_off`: where its notifications go, in units of the multiplier.
pub const QUEUE_NOTIFY_OFFSET: Register<u16, ReadOnly> = Register::at(0x1e);
/// `queue_desc`, lower half. 64 bits are written as two halves (§4.1.3.1).
pub const QUEUE_DESCRIPTORS: Register<u32, ReadWrite> = Register::at(0x20);
/// `queue_driver`, lower half: the driver area.
pub const QUEUE_DRIVER: Register<u32, ReadWrite> = Register::at(0x28);
/// `queue_device`, lower half: the device area.
pub const QUEUE_DEVICE: Register<u32, ReadWrite> = Register::at(0x30);
/// Bytes of the structure up to here.
pub const COMMON_BYTES: usize = 0x38;
/// `queue_notify_data`: how notifications name the queue, with `VIRTIO_F_NOTIF_CONFIG_DATA`.
pub const QUEUE_NOTIFY_DATA: Register<u16, ReadOnly> = Register::at(0x38);
/// `queue_reset`, with `VIRTIO_F_RING_RESET`: 1 begins the reset and is read until it is done.
pub const QUEUE_RESET: Register<u16, ReadWrite> = Register::at(0x3a);
/// Bytes of the structure with the registers of these two features.
pub const COMMON_BYTES_WITH_RESET: usize = 0x3c;

/// ISR status; reading clears it (§4.1.4.5).
pub const ISR: Register<u8, ReadOnly> = Register::at(0);
/// The device's configuration has changed.
pub const ISR_CONFIG: u8 = 1 << 1;

/// No vector (§4.1.5.1.2).
pub const NO_VECTOR: u16 = 0xffff;

/// Registers of a device that follows no specification but drafts (§4.1.4.10).
pub mod legacy {
    use super::{ReadOnly, ReadWrite, Register};

    /// The device's features 31:0.
    pub const DEVICE_FEATURES: Register<u32, ReadOnly> = Register::at(0x00);
    /// The driver's.
    pub const DRIVER_FEATURES: Register<u32, ReadWrite> = Register::at(0x04);
    /// Page number of the queue, whose parts have a fixed layout (§2.7.2).
    pub const QUEUE_PAGE: Register<u32, ReadWrite> = Register::at(0x08);
    /// Its entries, which cannot be changed; 0 if it is not there.
    pub const QUEUE_SIZE: Register<u16, ReadOnly> = Register::at(0x0c);
    /// Which queue.
    pub const QUEUE_SELECT: Register<u16, ReadWrite> = Register::at(0x0e);
    /// Which queue has something new.
    pub const QUEUE_NOTIFY: Register<u16, ReadWrite> = Register::at(0x10);
    /// Device status.
    pub const DEVICE_STATUS: Register<u8, ReadWrite> = Register::at(0x12);
    /// ISR status.
    pub const ISR: Register<u8, ReadOnly> = Register::at(0x13);
    /// The vector for changes of the configuration, while MSI-X is on.
    pub const CONFIG_VECTOR: Register<u16, ReadWrite> = Register::at(0x14);
    /// The queue's vector, while MSI-X is on.
    pub const QUEUE_VECTOR: Register<u16, ReadWrite> = Register::at(0x16);
    /// Where the device's configuration begins, while MSI-X is off.
    pub const CONFIG: usize = 0x14;
    /// Where it begins while MSI-X is on.
    pub const CONFIG_WITH_MSIX: usize = 0x18;
}
