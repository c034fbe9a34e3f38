//! What can go wrong between a driver and its platform.

use crate::dma::DmaError;
use thiserror::Error;

/// An error of the platform under a driver.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HwError {
    /// The device no longer answers: it was removed, or the process that models it ended.
    #[error("the device is gone: its registers read as all ones")]
    Gone,
    /// The function has no such region, or the region is of another kind than the driver needs.
    #[error("BAR {bar} is not {expected}")]
    NoSuchRegion {
        /// Index of the base address register, 0–5.
        bar: u8,
        /// What the driver asked for, as the end of a sentence.
        expected: &'static str,
    },
    /// A register block does not fit into the region that it was looked for in.
    #[error("registers {offset:#x}+{len:#x} lie outside a region of {region:#x} bytes")]
    OutsideRegion {
        /// First byte asked for.
        offset: usize,
        /// Bytes asked for.
        len: usize,
        /// Bytes that the region has.
        region: usize,
    },
    /// The function offers no interrupt of the kinds that the driver accepts.
    #[error("the function offers no usable interrupt ({0})")]
    NoInterrupt(&'static str),
    /// The platform cannot reset this function.
    #[error("this function cannot be reset by itself: {0}")]
    NoReset(&'static str),
    /// DMA memory could not be had.
    #[error(transparent)]
    Dma(#[from] DmaError),
    /// The platform itself failed; the platform's own error says more.
    #[error("the platform failed: {0}")]
    Platform(&'static str),
}
