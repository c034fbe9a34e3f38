//! A disk behind a controller.

use crate::driver::Operation;
use crate::manage::Features;
use core::fmt;
use heapless::String;

/// Number of a unit behind its driver: an AHCI port, an NVMe namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitId(pub u16);

/// A disk, or the place for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Whether it can be used.
    pub state: UnitState,
    /// Grows whenever another disk may have taken the place, or the disk was lost and came back:
    /// "ready" before and after does not mean that nothing happened between.
    pub generation: u32,
    /// What the disk says it is; meaningful once it was ready.
    pub identity: Identity,
    /// What it can do; meaningful once it was ready.
    pub geometry: Geometry,
    /// What else it can do, and how it is set; meaningful once it was ready.
    pub features: Features,
}

impl Unit {
    /// A place whose content is not known yet.
    pub const UNKNOWN: Self = Self {
        state: UnitState::Starting,
        generation: 0,
        identity: Identity { model: String::new(), serial: String::new(), firmware: String::new() },
        geometry: Geometry::NONE,
        features: Features::NONE,
    };
}

/// Whether a unit can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UnitState {
    /// The driver is still finding out.
    Starting,
    /// No disk is there.
    Absent,
    /// Requests are served.
    Ready,
    /// The driver is getting the disk back after trouble. Requests are accepted and will be served
    /// or failed in the end.
    Recovering,
    /// A drive is there, and no medium in it.
    Empty,
    /// A password keeps its data from being read and written. Management is served.
    Locked,
    /// The driver is shutting down.
    Stopping,
    /// Something is there that the driver cannot use, or the disk was given up.
    Failed(FailedReason),
}

/// Why a unit cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailedReason {
    /// A device of a kind that the driver does not drive; the value names it.
    Unsupported(&'static str),
    /// The device identified itself in a way that makes no sense.
    BadIdentity,
    /// Another device than before answered after a reset.
    Changed,
    /// The device did not come back after resets of the port and of the controller.
    GivenUp,
    /// Device or controller were removed.
    Removed,
    /// DMA memory for it could not be had.
    NoMemory,
}

impl fmt::Display for UnitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("starting"),
            Self::Absent => f.write_str("absent"),
            Self::Ready => f.write_str("ready"),
            Self::Recovering => f.write_str("recovering"),
            Self::Empty => f.write_str("no medium"),
            Self::Locked => f.write_str("locked by a password"),
            Self::Stopping => f.write_str("stopping"),
            Self::Failed(reason) => write!(f, "failed: {reason}"),
        }
    }
}

impl fmt::Display for FailedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported(kind) => write!(f, "no driver for {kind}"),
            Self::BadIdentity => f.write_str("its identification makes no sense"),
            Self::Changed => f.write_str("another device took its place"),
            Self::GivenUp => f.write_str("it did not come back after resets"),
            Self::Removed => f.write_str("it was removed"),
            Self::NoMemory => f.write_str("no DMA memory was left for it"),
        }
    }
}

/// What a disk says it is, without the padding.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// Model.
    pub model: String<40>,
    /// Serial number.
    pub serial: String<20>,
    /// Firmware revision.
    pub firmware: String<8>,
}

/// What a disk can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes in a logical sector, the unit of addressing.
    pub sector_bytes: u32,
    /// Bytes in a physical sector: writing less costs the device a read.
    pub physical_sector_bytes: u32,
    /// Logical sectors.
    pub sectors: u64,
    /// The most sectors in one read or write.
    pub max_transfer_sectors: u32,
    /// The most sectors in one discard; 0 if the device cannot.
    pub max_discard_sectors: u64,
    /// The most sectors to which zeros are written at once without data; 0 if the device cannot.
    pub max_zero_sectors: u64,
    /// The most sectors in one secure erasure; 0 if the device cannot.
    pub max_erase_sectors: u64,
    /// Requests that the device works on at once.
    pub queue_depth: u16,
    /// Whether writes may complete before they are durable.
    pub write_cache: bool,
    /// Whether the device makes single writes durable by itself. If not, the driver flushes.
    pub durable_writes: bool,
    /// Whether writing is impossible.
    pub read_only: bool,
    /// What its medium is.
    pub medium: Medium,
}

impl Geometry {
    /// Nothing at all.
    pub const NONE: Self = Self {
        sector_bytes: 512,
        physical_sector_bytes: 512,
        sectors: 0,
        max_transfer_sectors: 0,
        max_discard_sectors: 0,
        max_zero_sectors: 0,
        max_erase_sectors: 0,
        queue_depth: 0,
        write_cache: false,
        durable_writes: false,
        read_only: false,
        medium: Medium::Unknown,
    };

    /// The most sectors of an operation; 0 if the device cannot do it, or it is not about sectors.
    pub const fn max_sectors(&self, operation: Operation) -> u64 {
        match operation {
            Operation::Read | Operation::Write(_) => self.max_transfer_sectors as u64,
            Operation::Discard => self.max_discard_sectors,
            Operation::WriteZeroes(_) => self.max_zero_sectors,
            Operation::SecureErase => self.max_erase_sectors,
            Operation::Flush | Operation::Manage(_) => 0,
        }
    }

    /// Size of the disk in bytes.
    pub const fn bytes(&self) -> u64 {
        self.sectors.saturating_mul(self.sector_bytes as u64)
    }
}

/// What a disk's medium is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// The disk does not say.
    Unknown,
    /// Nothing turns.
    SolidState,
    /// Platters that turn at this many revolutions a minute.
    Rotating(u16),
}

impl fmt::Display for Medium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown"),
            Self::SolidState => f.write_str("solid state"),
            Self::Rotating(rpm) => write!(f, "{rpm} rpm"),
        }
    }
}
