//! Partitions as front ends see them.

use crate::partition::{Kind, Table};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use thiserror::Error;

/// Volumes that a disk may have.
const MAX_VOLUMES: usize = 1024;
/// Characters of a volume's name.
const MAX_NAME: usize = 63;

/// A range of sectors of a disk, under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Stays the same as long as the volume has this name and this range; never used again.
    /// 0 is the whole disk.
    pub id: u32,
    /// Its name: its number in the partition table, or what a user gave it.
    pub name: String,
    /// First sector, in sectors of the disk.
    pub first_lba: u64,
    /// Sectors.
    pub sectors: u64,
    /// What the partition table says it is for; `None` for one that a user has added.
    pub kind: Option<Kind>,
    /// Its label in the partition table, perhaps empty.
    pub label: String,
}

/// Why a volume cannot be added or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// The name cannot be a file's.
    #[error("a partition's name has 1 to 63 letters, digits, '-', '_' or '.', and is not . or ..")]
    BadName,
    /// The name is taken.
    #[error("there is a partition of that name")]
    Exists,
    /// There is no such volume.
    #[error("there is no partition of that name")]
    Missing,
    /// The whole disk is always there.
    #[error("the whole disk is always there")]
    Whole,
    /// The range is empty or not on the disk.
    #[error("START must be below END, and END at most {0}, the number of sectors")]
    BadRange(u64),
    /// There are too many.
    #[error("a disk has at most 1024 partitions")]
    TooMany,
}

/// The volumes of a disk.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    all: Vec<Volume>,
    last_id: u32,
}

impl Volumes {
    pub(super) fn all(&self) -> &[Volume] {
        &self.all
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.all.clear();
    }

    /// Replaces the volumes that come from the partition table. What a user has added stays,
    /// unless its name is now a partition's.
    pub(super) fn replace(&mut self, table: &Table) {
        let old = core::mem::take(&mut self.all);
        let (old, added): (Vec<_>, Vec<_>) = old.into_iter().partition(|v| v.kind.is_some());
        for partition in table.partitions.iter().take(MAX_VOLUMES) {
            let name = partition.number.to_string();
            let same = old.iter().find(|volume| {
                (volume.first_lba, volume.sectors) == (partition.first_lba, partition.sectors)
                    && volume.name == name
            });
            let id = same.map_or_else(|| self.next_id(), |volume| volume.id);
            let (first_lba, sectors) = (partition.first_lba, partition.sectors);
            let (kind, label) = (Some(partition.kind), partition.label.clone());
            self.all.push(Volume { id, name, first_lba, sectors, kind, label });
        }
        for volume in added {
            if self.all.len() < MAX_VOLUMES && self.all.iter().all(|v| v.name != volume.name) {
                self.all.push(volume);
            }
        }
    }

    /// Adds the sectors from `start` up to, not including, `end` of a disk of `sectors`.
    pub(super) fn add(
        &mut self,
        name: &str,
        start: u64,
        end: u64,
        sectors: u64,
    ) -> Result<(), VolumeError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let dots = matches!(name, "." | "..");
        if name.is_empty() || name.len() > MAX_NAME || dots || !name.chars().all(plain) {
            return Err(VolumeError::BadName);
        }
        if name == "0" || self.all.iter().any(|volume| volume.name == name) {
            return Err(VolumeError::Exists);
        }
        if start >= end || end > sectors {
            return Err(VolumeError::BadRange(sectors));
        }
        if self.all.len() >= MAX_VOLUMES {
            return Err(VolumeError::TooMany);
        }
        let id = self.next_id();
        let (name, label) = (name.to_string(), String::new());
        self.all.push(Volume {
            id,
            name,
            first_lba: start,
            sectors: end - start,
            kind: None,
            label,
        });
        Ok(())
    }

    /// Removes a volume from the list; the disk is not changed.
    pub(super) fn remove(&mut self, name: &str) -> Result<(), VolumeError> {
        if name == "0" {
            return Err(VolumeError::Whole);
        }
        let index = self.all.iter().position(|volume| volume.name == name);
        self.all.remove(index.ok_or(VolumeError::Missing)?);
        Ok(())
    }

    fn next_id(&mut self) -> u32 {
        self.last_id += 1;
        self.last_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::Partition;

    fn table(partitions: &[(u32, u64, u64)]) -> Table {
        let partitions = partitions.iter().map(|&(number, first_lba, sectors)| Partition {
            number,
            first_lba,
            sectors,
            kind: Kind::Mbr(0x83),
            label: String::new(),
        });
        Table { partitions: partitions.collect(), ..Table::default() }
    }

    fn names(volumes: &Volumes) -> Vec<(&str, u32)> {
        volumes.all().iter().map(|volume| (volume.name.as_str(), volume.id)).collect()
    }

    #[test]
    fn a_rescan_keeps_what_is_the_same_and_what_was_added() {
        let mut volumes = Volumes::default();
        volumes.replace(&table(&[(1, 10, 5), (2, 20, 5)]));
        volumes.add("mine", 0, 100, 100).unwrap();
        volumes.add("3", 0, 1, 100).unwrap();
        assert_eq!(names(&volumes), [("1", 1), ("2", 2), ("mine", 3), ("3", 4)]);
        volumes.replace(&table(&[(1, 10, 5), (2, 20, 6), (3, 30, 1)]));
        assert_eq!(names(&volumes), [("1", 1), ("2", 5), ("3", 6), ("mine", 3)]);
    }

    #[test]
    fn nonsense_is_refused() {
        let mut volumes = Volumes::default();
        let long = "x".repeat(64);
        for name in ["", ".", "..", "a/b", "a b", "ä", long.as_str()] {
            assert_eq!(volumes.add(name, 0, 1, 9), Err(VolumeError::BadName), "{name}");
        }
        assert_eq!(volumes.add("0", 0, 1, 9), Err(VolumeError::Exists));
        assert_eq!(volumes.add("a", 1, 1, 9), Err(VolumeError::BadRange(9)));
        assert_eq!(volumes.add("a", 0, 10, 9), Err(VolumeError::BadRange(9)));
        assert_eq!(volumes.add("a", 0, 9, 9), Ok(()));
        assert_eq!(volumes.add("a", 0, 9, 9), Err(VolumeError::Exists));
        assert_eq!(volumes.remove("0"), Err(VolumeError::Whole));
        assert_eq!(volumes.remove("b"), Err(VolumeError::Missing));
        assert_eq!(volumes.remove("a"), Ok(()));
    }
}
