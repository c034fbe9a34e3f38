//! Disks as a front end wants them: addressed by bytes, with partitions, behind any driver.
//!
//! [`Disks`] owns drivers and stands between them and front ends such as 9P. It is a state machine
//! like the drivers: requests go in with a [`Token`], [`Done`]s come out, nothing blocks.
//!
//! * **Bytes.** Reads and writes may start and end anywhere. A write that covers a sector only in
//!   part reads it, merges, and writes it back; meanwhile no other write touches that sector, so
//!   neighbours in one sector do not lose each other's data.
//! * **Length.** What is longer than the device takes is transferred in pieces, one after another.
//! * **Errors.** When a piece fails without the device saying where, it is halved until the sector
//!   is found. What lies before it is served: the read or write is short. A request that begins at
//!   a bad sector fails, and the error names the sector.
//! * **Bounds.** Requests and their memory are limited, together for all drivers; beyond the limit
//!   they are refused, to be tried again after a completion.
//! * **Places.** A disk is the place that it is in, and keeps its name. What was asked of one disk
//!   or medium never reaches another that takes its place: it fails, see [`Disks::generation`].
//! * **Partitions.** They are found after start-up and on [`Disks::rescan`]; others can be added
//!   and removed by name, in memory only.

mod buffers;
mod discover;
mod job;
mod lent;
mod locks;
mod management;
mod progress;
mod set;
mod statistics;
mod volume;
mod withdrawn;

pub use job::JobId;
pub use lent::Direction;
pub use set::{DiskEvents, DiskOptions, Disks, MAX_TRANSFER_BYTES};
pub use statistics::{DiskCounters, ErrorCounters, Histogram, Latencies};
pub use volume::{Volume, VolumeError};

use crate::driver::{BlockError, RefusedReason};
use crate::manage::Features;
use crate::unit::{Geometry, Identity, UnitState};
use alloc::string::String;
use core::fmt;
use core::ops::Range;
use outboard_hw::dma::DmaBuffer;
use thiserror::Error;

/// A disk, numbered from 0 in the order of drivers and units, and then of their appearance. The
/// number belongs to the place, whatever disk is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskId(pub u16);

/// The front end's name for a request; comes back with its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// A request that has ended.
#[derive(Debug)]
pub struct Done {
    /// The name that it was submitted under.
    pub token: Token,
    /// Where it was submitted.
    pub disk: DiskId,
    /// How it ended.
    pub result: Result<Outcome, DiskError>,
}

/// What a request that ended well has to show.
#[derive(Debug)]
pub enum Outcome {
    /// Data was read: all of it, or what lies before a bad sector, but at least a byte.
    Read(ReadData),
    /// This many bytes were written: all, or what lies before a bad sector, but at least one.
    Written(usize),
    /// This many bytes were transferred, all, between the disk and memory that was lent for it.
    Lent(usize),
    /// A flush, a discard or a scan was carried out.
    Finished,
}

/// Data that was read. Give it back with [`Disks::recycle`] once it was copied.
#[derive(Debug)]
pub struct ReadData {
    buffer: DmaBuffer,
    range: Range<usize>,
}

impl ReadData {
    /// How many bytes there are.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Copies the first bytes out; panics if `into` is longer than the data.
    pub fn copy_to(&self, into: &mut [u8]) {
        assert!(into.len() <= self.range.len());
        self.buffer.read_bytes(self.range.start, into);
    }

    /// Hands out the memory that the data is in, and where in it, for copying to other memory of
    /// this kind.
    pub const fn memory(&self) -> (&DmaBuffer, &Range<usize>) {
        (&self.buffer, &self.range)
    }
}

/// Why a request failed, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub struct DiskError {
    /// What the driver reported.
    pub error: BlockError,
    /// The first bad sector, in sectors of the disk, if it is about sectors.
    pub lba: Option<u64>,
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.lba, self.error) {
            (Some(lba), BlockError::Media { .. }) => {
                write!(f, "sector {lba} cannot be read or written")
            }
            (Some(lba), error) => write!(f, "sector {lba}: {error}"),
            (None, error) => write!(f, "{error}"),
        }
    }
}

/// Why a request was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Too much is going on; to be tried again after a completion.
    #[error("too many requests are under way")]
    Busy,
    /// There is no memory for it, and none is to come back.
    #[error("there is no DMA memory for it; ask for less at once, or give the drivers more")]
    NoMemory,
    /// It does not lie on the disk, or is longer than [`MAX_TRANSFER_BYTES`], or is empty.
    #[error("the request does not lie on the disk")]
    OutOfRange,
    /// The disk is read-only.
    #[error("the disk is read-only")]
    ReadOnly,
    /// There is no such disk.
    #[error("there is no such disk")]
    NoDisk,
    /// The disk cannot do this.
    #[error("the disk does not support this")]
    Unsupported,
    /// A password keeps its data from being read and written.
    #[error("the disk is locked by a password; it has to be unlocked first")]
    Locked,
    /// There is nothing in the drive.
    #[error("there is no medium in the drive")]
    NoMedium,
    /// It wants the disk to itself, or something else has the disk to itself.
    #[error("the disk is in use; end what uses it, or wait until its erasing is done")]
    InUse,
    /// There is a password where none belongs, or none where one belongs, or it is too long.
    #[error("a password of 1 to 32 bytes belongs to this, and to nothing else")]
    BadPassword,
}

impl From<RefusedReason> for BlockError {
    /// What a driver's refusal means for a request that was accepted here.
    fn from(reason: RefusedReason) -> Self {
        match reason {
            RefusedReason::Unsupported => Self::Unsupported,
            RefusedReason::NotReady(UnitState::Locked) => Self::Locked,
            RefusedReason::WriteProtected => Self::WriteProtected,
            RefusedReason::NotReady(UnitState::Empty) => Self::MediumChanged,
            RefusedReason::NotReady(_) => Self::Gone,
            RefusedReason::Frozen => Self::Frozen,
            RefusedReason::SwitchedOff => Self::SwitchedOff,
            _ => Self::Aborted,
        }
    }
}

/// What is known of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskInfo {
    /// Its name, such as `sdC0`.
    pub name: String,
    /// Whether it can be used.
    pub state: UnitState,
    /// See [`Disks::generation`].
    pub generation: u32,
    /// What it says it is.
    pub identity: Identity,
    /// What it can do, with sectors of the size that it is presented with.
    pub geometry: Geometry,
    /// What else it can do, and how it is set.
    pub features: Features,
}
