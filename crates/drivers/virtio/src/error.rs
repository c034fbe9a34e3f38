//! Why a device cannot be driven.

use outboard_hw::HwError;
use outboard_hw::dma::DmaError;
use thiserror::Error;

/// Why a device cannot be driven at all. Trouble later on is its unit's state.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum VirtioError {
    /// The function says nowhere where these registers are, or they cannot be mapped.
    #[error("the device does not say where its {0} is, nor does it have the ports of an older one")]
    MissingStructure(&'static str),
    /// What is there is no virtio device, or none at all.
    #[error("there is no virtio device at these registers")]
    NoDevice,
    /// The device has registers of a version that nobody has described yet.
    #[error("the device's registers are of version {0}, and 1 and 2 are what is known")]
    UnknownVersion(u32),
    /// The device has the registers of virtio 1.0, and does not follow it.
    #[error("the device has the registers of virtio 1.0, but does not offer to follow it")]
    Draft,
    /// There is an IOMMU between device and memory, and the device does not offer to go through it
    /// (`VIRTIO_F_ACCESS_PLATFORM`, §6.1).
    #[error(
        "the device would bypass the IOMMU, and reach memory that is not for it. Give it \
         iommu_platform=on,disable-legacy=on where it comes from (QEMU), or leave it to the kernel"
    )]
    BypassesIommu,
    /// The device offers a feature that it then does not agree upon.
    #[error("the device refuses the features that it has offered")]
    FeaturesRefused,
    /// A queue that every device of the kind has is not there, or has a size that none may have.
    #[error("the device's queue {0} is missing or of an impossible size")]
    NoQueue(u16),
    /// The device has no resources for a vector of its own.
    #[error("the device has no room for its interrupt vectors")]
    NoVector,
    /// The device's configuration never stays the same for long enough to be read.
    #[error("the device's configuration changes without end")]
    RestlessConfig,
    /// The device's configuration makes no sense.
    #[error("the device's configuration makes no sense: {0}")]
    BadConfig(&'static str),
    /// The platform failed.
    #[error(transparent)]
    Hw(#[from] HwError),
}

impl From<DmaError> for VirtioError {
    fn from(error: DmaError) -> Self {
        Self::Hw(error.into())
    }
}
