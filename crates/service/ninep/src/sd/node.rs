//! What there is in the tree.

use crate::wire::{Qid, QidKind};
use outboard_block::disk::DiskId;

/// A file or directory of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Node {
    /// The directory that everything is in.
    Root,
    /// Commands to all disks.
    TopControl,
    /// Counters of all disks.
    Stats,
    /// A disk's directory.
    Disk(DiskId),
    /// Commands to a disk.
    Control(DiskId),
    /// The whole disk.
    Raw(DiskId),
    /// The whole disk.
    Data(DiskId),
    /// A disk's size.
    Geometry(DiskId),
    /// What a disk knows of its own health.
    Smart(DiskId),
    /// What was done to a disk, in numbers.
    DiskStats(DiskId),
    /// The directory of a disk's partitions.
    Parts(DiskId),
    /// A partition, by its volume's ID; 0 for the whole disk.
    Part(DiskId, u32),
}

/// The ID of the volume that is the whole disk.
pub(super) const WHOLE: u32 = 0;

impl Node {
    /// What is in a disk's directory.
    pub(super) const fn of_disk(disk: DiskId) -> [Self; 7] {
        [
            Self::Control(disk),
            Self::Raw(disk),
            Self::Data(disk),
            Self::Geometry(disk),
            Self::Smart(disk),
            Self::DiskStats(disk),
            Self::Parts(disk),
        ]
    }

    pub(super) const fn is_directory(self) -> bool {
        matches!(self, Self::Root | Self::Disk(_) | Self::Parts(_))
    }

    /// The disk that it belongs to.
    pub(super) const fn disk(self) -> Option<DiskId> {
        match self {
            Self::Root | Self::TopControl | Self::Stats => None,
            Self::Disk(disk)
            | Self::Control(disk)
            | Self::Raw(disk)
            | Self::Data(disk)
            | Self::Geometry(disk)
            | Self::Smart(disk)
            | Self::DiskStats(disk)
            | Self::Parts(disk)
            | Self::Part(disk, _) => Some(disk),
        }
    }

    /// The volume that its content is, if it is one.
    pub(super) const fn volume(self) -> Option<(DiskId, u32)> {
        match self {
            Self::Raw(disk) | Self::Data(disk) => Some((disk, WHOLE)),
            Self::Part(disk, volume) => Some((disk, volume)),
            _ => None,
        }
    }

    /// The directory that it is in.
    pub(super) const fn parent(self) -> Self {
        match self {
            Self::Root | Self::TopControl | Self::Stats | Self::Disk(_) => Self::Root,
            Self::Part(disk, _) => Self::Parts(disk),
            Self::Control(disk)
            | Self::Raw(disk)
            | Self::Data(disk)
            | Self::Geometry(disk)
            | Self::Smart(disk)
            | Self::DiskStats(disk)
            | Self::Parts(disk) => Self::Disk(disk),
        }
    }

    /// Its name, unless that depends on the disk.
    pub(super) const fn fixed_name(self) -> Option<&'static str> {
        match self {
            Self::Root => Some("/"),
            Self::TopControl | Self::Control(_) => Some("ctl"),
            Self::Stats | Self::DiskStats(_) => Some("stats"),
            Self::Smart(_) => Some("smart"),
            Self::Raw(_) => Some("raw"),
            Self::Data(_) => Some("data"),
            Self::Geometry(_) => Some("geometry"),
            Self::Parts(_) => Some("part"),
            Self::Disk(_) | Self::Part(..) => None,
        }
    }

    /// What clients know it by: kind, disk and volume, so that no two are the same; and the disk's
    /// generation, so that they notice when there is another.
    pub(super) fn qid(self, generation: u32) -> Qid {
        let number = match self {
            Self::Root => 0,
            Self::TopControl => 1,
            Self::Stats => 2,
            Self::Disk(_) => 3,
            Self::Control(_) => 4,
            Self::Raw(_) => 5,
            Self::Data(_) => 6,
            Self::Geometry(_) => 7,
            Self::Parts(_) => 8,
            Self::Part(..) => 9,
            Self::Smart(_) => 10,
            Self::DiskStats(_) => 11,
        };
        let disk = self.disk().map_or(0, |disk| u64::from(disk.0));
        let volume = if let Self::Part(_, volume) = self { volume } else { 0 };
        let kind = if self.is_directory() { QidKind::DIRECTORY } else { QidKind::empty() };
        Qid { kind, version: generation, path: u64::from(volume) << 32 | disk << 8 | number }
    }
}
