//! An address space of the IOMMU.

use crate::{Locked, ioctl, limit};
use rustix::io;
use std::fmt;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;

/// What maps memory for functions.
pub(crate) trait Mapper: Send + Sync + fmt::Debug {
    /// Lets the functions read and write `len` bytes of memory, from `iova` on.
    ///
    /// # Safety
    /// The memory at `cpu` is DMA memory (S1, S2, S3) until it was unmapped.
    #[allow(unsafe_code)]
    unsafe fn map(&self, cpu: usize, iova: u64, len: u64) -> io::Result<()>;

    /// Ends what `map` began, with the same `iova` and `len`: a mapping is never split.
    fn unmap(&self, iova: u64, len: u64) -> io::Result<()>;

    /// The memory that the kernel adds to when it looks whether more may be locked.
    fn locked(&self) -> Locked;
}

/// An address space of the IOMMU, which functions are put into.
#[derive(Debug)]
pub(crate) enum Space {
    /// A container of groups, with an IOMMU of type 1, version 2.
    Container(OwnedFd),
    /// An I/O address space of an `iommufd`.
    Iommufd {
        /// The `iommufd`.
        descriptor: OwnedFd,
        /// Number of the address space.
        ioas: u32,
    },
}

impl Space {
    /// The addresses that can be mapped, for all functions in the space.
    pub(crate) fn ranges(&self) -> io::Result<Vec<RangeInclusive<u64>>> {
        match self {
            Self::Container(container) => {
                let (info, answer) = ioctl::type1_info(container)?;
                let found = crate::capability::iova_ranges(&answer, info.cap_offset);
                Ok(found.unwrap_or_else(crate::ranges::unsaid))
            }
            Self::Iommufd { descriptor, ioas } => {
                let ranges = ioctl::ioas_ranges(descriptor, *ioas)?;
                Ok(ranges.into_iter().map(|(first, last)| first..=last).collect())
            }
        }
    }
}

impl Mapper for Space {
    #[allow(unsafe_code)]
    unsafe fn map(&self, cpu: usize, iova: u64, len: u64) -> io::Result<()> {
        match self {
            // SAFETY: the caller's promise (S1).
            Self::Container(container) => unsafe { ioctl::type1_map(container, cpu, iova, len) },
            // SAFETY: the caller's promise (S1).
            Self::Iommufd { descriptor, ioas } => unsafe {
                ioctl::ioas_map(descriptor, *ioas, cpu, iova, len)
            },
        }
    }

    fn unmap(&self, iova: u64, len: u64) -> io::Result<()> {
        match self {
            Self::Container(container) => ioctl::type1_unmap(container, iova, len),
            Self::Iommufd { descriptor, ioas } => ioctl::ioas_unmap(descriptor, *ioas, iova, len),
        }
    }

    fn locked(&self) -> Locked {
        match self {
            Self::Container(_) => limit::of_process(),
            Self::Iommufd { .. } => limit::of_user(),
        }
    }
}
