//! What keeps a disk's content.

use std::collections::BTreeMap;

/// Something failed at a sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediumError {
    /// The first one that did.
    pub lba: u64,
}

/// What keeps a disk's content when the power is off. Addresses and lengths were checked; lengths
/// are whole sectors.
pub trait Medium: Send {
    /// Reads sectors; zeros where nothing was written.
    fn read(&mut self, lba: u64, data: &mut [u8]) -> Result<(), MediumError>;

    /// Writes sectors.
    fn write(&mut self, lba: u64, data: &[u8]) -> Result<(), MediumError>;

    /// Makes sectors read as zeros, and gives their space back where that can be done.
    fn discard(&mut self, lba: u64, sectors: u64) -> Result<(), MediumError>;

    /// Returns when everything written is where a loss of power does not harm it.
    fn flush(&mut self) -> Result<(), MediumError>;
}

const CHUNK_BYTES: usize = 4096;

/// A medium in memory, which takes room only for what is written.
#[derive(Debug)]
pub struct MemoryMedium {
    sector_bytes: usize,
    chunks: BTreeMap<u64, Box<[u8; CHUNK_BYTES]>>,
}

impl MemoryMedium {
    /// All zeros, of sectors of 512 or 4096 bytes.
    pub const fn new(sector_bytes: u32) -> Self {
        Self { sector_bytes: sector_bytes as usize, chunks: BTreeMap::new() }
    }

    /// The parts of `bytes` at a sector: the chunk of each, the offset in it, and how long it is.
    fn parts(&self, lba: u64, bytes: usize) -> impl Iterator<Item = (u64, usize, usize)> + use<> {
        let mut at = lba * self.sector_bytes as u64;
        let end = at + bytes as u64;
        core::iter::from_fn(move || {
            let (chunk, offset) = (at / CHUNK_BYTES as u64, at as usize % CHUNK_BYTES);
            let length = (CHUNK_BYTES - offset).min((end - at) as usize);
            at += length as u64;
            (length > 0).then_some((chunk, offset, length))
        })
    }
}

impl Medium for MemoryMedium {
    fn read(&mut self, lba: u64, data: &mut [u8]) -> Result<(), MediumError> {
        let mut done = 0;
        for (chunk, offset, length) in self.parts(lba, data.len()) {
            match self.chunks.get(&chunk) {
                Some(chunk) => {
                    data[done..done + length].copy_from_slice(&chunk[offset..offset + length]);
                }
                None => data[done..done + length].fill(0),
            }
            done += length;
        }
        Ok(())
    }

    fn write(&mut self, lba: u64, data: &[u8]) -> Result<(), MediumError> {
        let mut done = 0;
        for (chunk, offset, length) in self.parts(lba, data.len()) {
            let chunk = self.chunks.entry(chunk).or_insert_with(|| Box::new([0; CHUNK_BYTES]));
            chunk[offset..offset + length].copy_from_slice(&data[done..done + length]);
            done += length;
        }
        Ok(())
    }

    fn discard(&mut self, lba: u64, sectors: u64) -> Result<(), MediumError> {
        let per_chunk = (CHUNK_BYTES / self.sector_bytes) as u64;
        let end = lba + sectors;
        // What is discarded may be much more than what was ever written.
        let chunks: Vec<u64> =
            self.chunks.range(lba / per_chunk..end.div_ceil(per_chunk)).map(|(c, _)| *c).collect();
        for number in chunks {
            let first = number * per_chunk;
            let (from, to) = (lba.max(first) - first, end.min(first + per_chunk) - first);
            if (from, to) == (0, per_chunk) {
                self.chunks.remove(&number);
            } else if let Some(chunk) = self.chunks.get_mut(&number) {
                chunk[from as usize * self.sector_bytes..to as usize * self.sector_bytes].fill(0);
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), MediumError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_keep_what_was_written_until_they_are_discarded() {
        for sector_bytes in [512, 4096] {
            let bytes = sector_bytes as usize;
            let mut medium = MemoryMedium::new(sector_bytes);
            let data: Vec<u8> = (0..20 * bytes).map(|i| (i / bytes + 1) as u8).collect();
            medium.write(5, &data).unwrap();
            medium.discard(7, 11).unwrap();
            let mut back = vec![0xee; 22 * bytes];
            medium.read(4, &mut back).unwrap();
            for (i, sector) in back.chunks(bytes).enumerate() {
                let kept = (1..=2).contains(&i) || (14..=20).contains(&i);
                let expected = if kept { i as u8 } else { 0 };
                assert!(sector.iter().all(|byte| *byte == expected), "{sector_bytes} {i}");
            }
        }
    }

    #[test]
    fn discarding_an_empty_giant_takes_no_time() {
        let mut medium = MemoryMedium::new(512);
        medium.discard(0, 1 << 47).unwrap();
        assert!(medium.chunks.is_empty());
    }
}
