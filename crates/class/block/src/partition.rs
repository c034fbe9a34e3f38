//! Partition tables: MBR with logical partitions, and GPT with its backup.
//!
//! The [`Scanner`] does no I/O. It says which sectors it wants, and is given them:
//!
//! ```
//! use outboard_block::partition::{Scanner, Step};
//!
//! fn scan(image: &[u8]) -> outboard_block::partition::Table {
//!     let mut scanner = Scanner::new((image.len() / 512) as u64, 512);
//!     loop {
//!         match scanner.step() {
//!             Step::Read { lba, sectors } => {
//!                 scanner.supply(Some(&image[lba as usize * 512..][..sectors as usize * 512]));
//!             }
//!             Step::Done(table) => return table,
//!         }
//!     }
//! }
//! assert!(scan(&[0; 64 * 512]).partitions.is_empty());
//! ```
//!
//! Whatever the sectors hold, the scanner asks for a bounded number of them and ends. What it
//! finds lies inside the disk.

mod gpt;
mod mbr;
mod scan;

pub use gpt_disk_types::Guid;
pub use scan::{Scanner, Step};

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// What was found on a disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// Which kind of table it is; `None` if the disk has none.
    pub scheme: Option<Scheme>,
    /// The partitions, by rising number.
    pub partitions: Vec<Partition>,
    /// What is wrong with the table, for the user to know.
    pub warnings: Vec<Warning>,
}

/// A kind of partition table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Master boot record.
    Mbr,
    /// GUID partition table.
    Gpt,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1: the index of its entry in a GPT; 1–4 for primary, 5 and up for logical
    /// partitions of an MBR.
    pub number: u32,
    /// First logical sector.
    pub first_lba: u64,
    /// Logical sectors; at least 1.
    pub sectors: u64,
    /// What the table says it is for.
    pub kind: Kind,
    /// Its label; empty if it has none.
    pub label: String,
}

/// What a partition table says that a partition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Partition type of an MBR.
    Mbr(u8),
    /// Partition type of a GPT.
    Gpt(Guid),
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mbr => "mbr",
            Self::Gpt => "gpt",
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mbr(kind) => write!(f, "{kind:02x}"),
            Self::Gpt(guid) => write!(f, "{guid}"),
        }
    }
}

/// One of the two copies of a GPT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copy {
    /// At the start of the disk.
    Primary,
    /// At its end.
    Backup,
}

/// Something that is wrong with a partition table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// A copy of the GPT is damaged; the other one is used.
    Damaged(Copy, Damage),
    /// Both copies of the GPT are damaged: primary, backup.
    BothDamaged(Damage, Damage),
    /// Both copies of the GPT are sound, and they differ; the primary is used.
    CopiesDiffer,
    /// The backup is not at the end of the disk: the disk has grown.
    BackupNotAtEnd,
    /// There is a GPT, but no protective MBR to tell old tools of it.
    NoProtectiveMbr,
    /// A partition does not lie inside the disk, and is left out.
    OutsideDisk(u32),
    /// A partition shares sectors with one of a lower number.
    Overlap(u32),
    /// The chain of logical partitions is broken; those behind the break are left out.
    BrokenChain,
    /// More entries are in use than the scanner takes; the rest is left out.
    TooMany,
    /// A sector that the table should be in cannot be read.
    Unreadable(u64),
}

/// What is wrong with a copy of a GPT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Damage {
    /// The header does not begin as one.
    NoSignature,
    /// The header's checksum is wrong.
    HeaderChecksum,
    /// The header's fields contradict each other or the disk.
    HeaderNonsense,
    /// The checksum of the entries is wrong.
    EntriesChecksum,
    /// It cannot be read.
    Unreadable,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(Copy::Primary, damage) => write!(
                f,
                "the primary GPT is damaged ({damage}); its backup at the end of the disk is used. \
                 To repair it: gdisk, command w"
            ),
            Self::Damaged(Copy::Backup, damage) => write!(
                f,
                "the backup GPT is damaged ({damage}); the primary is used. To repair it: gdisk, \
                 command w"
            ),
            Self::BothDamaged(primary, backup) => write!(
                f,
                "both copies of the GPT are damaged (primary: {primary}; backup: {backup}), so no \
                 partition is known. The whole disk can still be read; to search for partitions: \
                 testdisk"
            ),
            Self::CopiesDiffer => f.write_str(
                "the two copies of the GPT differ; the primary is used. To choose: gdisk, commands \
                 r and c, d or b",
            ),
            Self::BackupNotAtEnd => f.write_str(
                "the backup GPT is not at the end of the disk, which has grown. To move it: sgdisk \
                 --move-second-header",
            ),
            Self::NoProtectiveMbr => {
                f.write_str("the GPT has no protective MBR. To write one: gdisk, command w")
            }
            Self::OutsideDisk(number) => {
                write!(f, "partition {number} does not lie inside the disk and is left out")
            }
            Self::Overlap(number) => write!(f, "partition {number} overlaps another"),
            Self::BrokenChain => f.write_str(
                "the chain of logical partitions is broken; those behind the break are left out",
            ),
            Self::TooMany => f.write_str("the table has too many entries; the rest is left out"),
            Self::Unreadable(lba) => write!(
                f,
                "sector {lba}, where a partition table should be, cannot be read; no partition is \
                 known"
            ),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSignature => "no signature",
            Self::HeaderChecksum => "wrong header checksum",
            Self::HeaderNonsense => "nonsense in the header",
            Self::EntriesChecksum => "wrong checksum of the entries",
            Self::Unreadable => "unreadable",
        })
    }
}

impl Table {
    /// Adds a partition if it lies on a disk of `sectors`, and warns if it does not.
    fn add(&mut self, partition: Partition, sectors: u64) {
        let Partition { number, first_lba, sectors: len, .. } = partition;
        let end = first_lba.checked_add(len);
        if len == 0 || end.is_none_or(|end| end > sectors) {
            self.warnings.push(Warning::OutsideDisk(number));
            return;
        }
        let end = first_lba + len;
        let overlaps = |other: &Partition| {
            first_lba < other.first_lba + other.sectors && other.first_lba < end
        };
        if self.partitions.iter().any(overlaps) {
            self.warnings.push(Warning::Overlap(number));
        }
        self.partitions.push(partition);
    }
}
