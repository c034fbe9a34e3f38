//! Addresses as a device sees them.

use core::fmt;

/// An address that a device may be given: physical, or virtual behind an IOMMU.
///
/// There is no way to make one from an integer outside this crate. It comes from a
/// [`DmaBuffer`](super::DmaBuffer), so it always names memory that was allocated.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceAddress(u64);

impl DeviceAddress {
    pub(super) const fn new(bits: u64) -> Self {
        Self(bits)
    }

    /// The value to write into a register or a descriptor.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Bits 31:0.
    pub const fn low(self) -> u32 {
        self.0 as u32
    }

    /// Bits 63:32.
    pub const fn high(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl fmt::Debug for DeviceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device:{:#x}", self.0)
    }
}
