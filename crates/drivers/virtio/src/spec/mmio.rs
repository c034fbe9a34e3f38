//! Registers of the MMIO transport (§4.2.2). All but the configuration are accessed by 32 bits.

use outboard_hw::registers::{ReadOnly, ReadWrite, Register};

/// `MagicValue`.
pub const MAGIC_VALUE: Register<u32, ReadOnly> = Register::at(0x000);
/// What it reads as: "virt".
pub const MAGIC: u32 = 0x7472_6976;
/// `Version`: 2, or 1 of devices that follow drafts alone (§4.2.4).
pub const VERSION: Register<u32, ReadOnly> = Register::at(0x004);
/// `DeviceID`: the kind of device; 0 if there is none.
pub const DEVICE_ID: Register<u32, ReadOnly> = Register::at(0x008);
/// `DeviceFeatures`: 32 of the device's feature bits.
pub const DEVICE_FEATURES: Register<u32, ReadOnly> = Register::at(0x010);
/// `DeviceFeaturesSel`: which.
pub const DEVICE_FEATURES_SEL: Register<u32, ReadWrite> = Register::at(0x014);
/// `DriverFeatures`.
pub const DRIVER_FEATURES: Register<u32, ReadWrite> = Register::at(0x020);
/// `DriverFeaturesSel`.
pub const DRIVER_FEATURES_SEL: Register<u32, ReadWrite> = Register::at(0x024);
/// `QueueSel`: which queue the following registers are of.
pub const QUEUE_SEL: Register<u32, ReadWrite> = Register::at(0x030);
/// `QueueNumMax`: its most entries; 0 if it is not there.
pub const QUEUE_NUM_MAX: Register<u32, ReadOnly> = Register::at(0x034);
/// `QueueNum`: how many it is to have.
pub const QUEUE_NUM: Register<u32, ReadWrite> = Register::at(0x038);
/// `QueueReady`: 1 once it is the device's.
pub const QUEUE_READY: Register<u32, ReadWrite> = Register::at(0x044);
/// `QueueNotify`: which queue has something new.
pub const QUEUE_NOTIFY: Register<u32, ReadWrite> = Register::at(0x050);
/// `InterruptStatus`: why there is an interrupt.
pub const INTERRUPT_STATUS: Register<u32, ReadOnly> = Register::at(0x060);
/// A queue has used something.
pub const INTERRUPT_QUEUES: u32 = 1 << 0;
/// The configuration has changed.
pub const INTERRUPT_CONFIG: u32 = 1 << 1;
/// `InterruptACK`: takes those reasons back.
pub const INTERRUPT_ACK: Register<u32, ReadWrite> = Register::at(0x064);
/// `Status`.
pub const STATUS: Register<u32, ReadWrite> = Register::at(0x070);
/// `QueueDescLow`; the upper half is behind it.
pub const QUEUE_DESC: Register<u32, ReadWrite> = Register::at(0x080);
/// `QueueDriverLow`.
pub const QUEUE_DRIVER: Register<u32, ReadWrite> = Register::at(0x090);
/// `QueueDeviceLow`.
pub const QUEUE_DEVICE: Register<u32, ReadWrite> = Register::at(0x0a0);
/// `QueueReset`, with `VIRTIO_F_RING_RESET`: 1 begins the reset and is read until it is done.
pub const QUEUE_RESET: Register<u32, ReadWrite> = Register::at(0x0c0);
/// `ConfigGeneration`: changes whenever the device's configuration may have.
pub const CONFIG_GENERATION: Register<u32, ReadOnly> = Register::at(0x0fc);
/// Where the device's configuration begins.
pub const CONFIG: usize = 0x100;

/// Registers of version 1 (§4.2.4).
pub mod legacy {
    use super::{ReadWrite, Register};

    /// `GuestPageSize`: what [`QUEUE_PFN`] counts.
    pub const GUEST_PAGE_SIZE: Register<u32, ReadWrite> = Register::at(0x028);
    /// `QueueAlign`: what the used ring is aligned to (§2.7.2).
    pub const QUEUE_ALIGN: Register<u32, ReadWrite> = Register::at(0x03c);
    /// `QueuePFN`: page number of the queue; 0 takes it away.
    pub const QUEUE_PFN: Register<u32, ReadWrite> = Register::at(0x040);
}
