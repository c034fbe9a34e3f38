//! Device status (§2.1).

use bitflags::bitflags;

bitflags! {
    /// How far driver and device are. Writing zero resets the device, which is done once it reads
    /// as zero.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Status: u8 {
        /// Somebody has noticed the device.
        const ACKNOWLEDGE = 1 << 0;
        /// There is a driver for it.
        const DRIVER = 1 << 1;
        /// The driver is ready to drive it.
        const DRIVER_OK = 1 << 2;
        /// The features are agreed upon. If the device clears it again, it refuses them.
        const FEATURES_OK = 1 << 3;
        /// The device has met an error that it cannot recover from.
        const NEEDS_RESET = 1 << 6;
        /// The driver has given the device up.
        const FAILED = 1 << 7;
    }
}

impl Status {
    /// Whether this is what a device that is gone reads as.
    pub const fn is_gone(self) -> bool {
        self.bits() == u8::MAX
    }
}
