//! How a driver reaches its device (§4).

mod mmio;
mod pci;

pub use mmio::MmioTransport;
pub use pci::PciTransport;

use crate::VirtioError;
use crate::queue::Areas;
use crate::spec::status::Status;
use alloc::sync::Arc;
use outboard_hw::dma::DmaSpace;

/// What an interrupt may be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cause {
    /// Requests that are done.
    pub queues: bool,
    /// The device's configuration, or its state.
    pub config: bool,
}

impl Cause {
    /// Of nothing.
    pub const NONE: Self = Self { queues: false, config: false };

    /// What either is about.
    pub const fn and(self, other: Self) -> Self {
        Self { queues: self.queues || other.queues, config: self.config || other.config }
    }
}

/// A device of whatever kind, as a transport shows it. Dropping it takes the device off the bus.
pub trait Transport: Send {
    /// Memory that the device reaches.
    fn dma(&self) -> Arc<dyn DmaSpace>;

    /// Whether the device follows drafts of the specification alone: its features are not confirmed,
    /// and its queues have exactly as many entries as [`queue_limit`](Self::queue_limit) says.
    fn is_legacy(&self) -> bool {
        false
    }

    /// Whether all pairs of a network card's queues are in use once they are enabled, and nobody takes
    /// commands: by vhost-user, the control queue is none of the device's.
    fn uses_all_pairs(&self) -> bool {
        false
    }

    /// Whether the device is not there at present, but may come back. Whoever gets it back also bounds
    /// how long that takes, and goes on with it whenever this is asked. What was asked of the device
    /// stays with the driver; its status asks for a reset.
    fn is_away(&mut self) -> bool {
        false
    }

    /// Whether a device that was away and is there again can go on with what its queues hold. If
    /// not, it has to be reset.
    fn can_resume(&self) -> bool {
        false
    }

    /// Takes away the one queue that such a device was given since it is back, and gives it those
    /// that it had, each with where it goes on
    /// ([`Queue::resume_at`](crate::queue::Queue::resume_at)).
    fn resume(&mut self, _queues: &[(Areas, u32)]) {}

    /// The features that the device offers, without those that this transport has no way to use.
    fn offered_features(&mut self) -> u64;

    /// Tells the device which of its features the driver uses.
    fn accept_features(&mut self, features: u64);

    /// How far the device is.
    fn status(&self) -> Status;

    /// Tells the device how far the driver is; nothing at all resets it.
    fn set_status(&mut self, status: Status);

    /// The most entries of a queue; 0 if it is not there. The answer is the device's, unchecked.
    fn queue_limit(&mut self, queue: u16) -> u16;

    /// Switches interrupts on, for so many queues or as many as the device has. To be called once,
    /// before the device is set up.
    fn enable_interrupts(&mut self, queues: u16) -> Result<(), VirtioError>;

    /// Lets the device reach memory, and tell of changes of its configuration.
    fn start(&mut self) -> Result<(), VirtioError>;

    /// Takes the device off the bus, whatever state it is in: it no longer reaches memory.
    fn cut_off(&mut self);

    /// Gives the device a queue. A reset takes it away again.
    fn enable_queue(&mut self, queue: u16, areas: Areas) -> Result<(), VirtioError>;

    /// Tells the device that there is something new in a queue that was enabled. `next` is where the
    /// queue's next entry will be ([`Queue::next_entry`](crate::queue::Queue::next_entry)), for
    /// devices with `VIRTIO_F_NOTIFICATION_DATA`.
    fn notify(&mut self, queue: u16, next: u16);

    /// Begins to reset one queue (§2.6.1). Only for devices with `VIRTIO_F_RING_RESET`, which a
    /// transport that cannot do this leaves out of
    /// [`offered_features`](Self::offered_features).
    fn reset_queue(&mut self, _queue: u16) {}

    /// Whether a queue whose reset was begun is at rest: it no longer reaches memory, and can be
    /// enabled again.
    fn is_queue_reset(&mut self, _queue: u16) -> bool {
        false
    }

    /// What an interrupt is about. On some transports, finding out is what ends it.
    fn cause(&mut self, vector: u16) -> Cause;

    /// Changes whenever the device's configuration may have.
    fn config_generation(&self) -> u32;

    /// Reads the device's configuration at `offset`; all ones where there is none.
    fn config_u8(&self, offset: usize) -> u8;

    /// 16 bits of it.
    fn config_u16(&self, offset: usize) -> u16;

    /// 32 bits of it.
    fn config_u32(&self, offset: usize) -> u32;

    /// Writes 8 bits of it.
    fn set_config_u8(&mut self, offset: usize, value: u8);
}

/// How often a configuration that changes meanwhile is read again.
const CONFIG_TRIES: usize = 16;

/// Reads of the configuration what belongs together (§2.5.1), twice, since legacy devices have no
/// generation (§2.5.4); `None` if it never stays the same for long enough.
pub(crate) fn read_config<T: Transport, V: PartialEq>(
    transport: &T,
    read: impl Fn(&T) -> V,
) -> Option<V> {
    (0..CONFIG_TRIES).find_map(|_| {
        let before = transport.config_generation();
        let value = read(transport);
        let same = read(transport) == value && transport.config_generation() == before;
        same.then_some(value)
    })
}
