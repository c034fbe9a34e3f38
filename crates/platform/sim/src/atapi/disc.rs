//! What is read from.

use outboard_ahci::spec::atapi::SECTOR_BYTES;
use std::collections::BTreeSet;

/// A disc of data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disc {
    content: Vec<u8>,
    bad: BTreeSet<u32>,
}

impl Disc {
    /// A disc with this content; the last sector is filled up with zeros.
    ///
    /// Panics if it is empty.
    pub fn new(mut content: Vec<u8>) -> Self {
        assert!(!content.is_empty(), "a disc has at least one sector");
        content.resize(content.len().next_multiple_of(SECTOR_BYTES as usize), 0);
        Self { content, bad: BTreeSet::new() }
    }

    /// The same disc with a sector that cannot be read.
    pub fn with_bad(mut self, lba: u32) -> Self {
        self.bad.insert(lba);
        self
    }

    /// How many sectors it has.
    pub const fn sectors(&self) -> u32 {
        (self.content.len() / SECTOR_BYTES as usize) as u32
    }

    /// Copies sectors from `lba` on, until `data` is full or a sector cannot be read. How many
    /// bytes were copied, and which sector that is.
    pub(super) fn read(&self, lba: u32, data: &mut [u8]) -> Result<(), (usize, u32)> {
        let sector = SECTOR_BYTES as usize;
        let sectors = (data.len() / sector) as u32;
        let bad = self.bad.range(lba..lba + sectors).next().copied();
        let bytes = bad.map_or(data.len(), |bad| (bad - lba) as usize * sector);
        let from = lba as usize * sector;
        data[..bytes].copy_from_slice(&self.content[from..from + bytes]);
        bad.map_or(Ok(()), |bad| Err((bytes, bad)))
    }
}
