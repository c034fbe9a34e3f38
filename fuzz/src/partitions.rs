//! A hostile disk: its partition tables are scanned.

use crc::{CRC_32_ISO_HDLC, Crc};
use outboard_block::partition::{Scanner, Step};
use std::collections::BTreeMap;

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// Bytes of `input` before the sectors: flags, and the number of sectors.
const PREFIX: usize = 5;
/// Sectors have 4096 bytes instead of 512.
const LARGE: u8 = 1;
/// Checksums are made good, so that damage gets past them.
const REPAIR: u8 = 2;
/// The sectors whose number is a multiple of 7 cannot be read.
const UNREADABLE: u8 = 4;

/// A disk of which only some sectors are not zero.
struct Image<'a> {
    flags: u8,
    sectors: u64,
    sector_bytes: usize,
    written: BTreeMap<u64, &'a [u8]>,
}

impl<'a> Image<'a> {
    /// `input` is flags, the number of sectors in four bytes, and then for each sector its number
    /// in four bytes and its content.
    fn new(input: &'a [u8]) -> Option<Self> {
        let (prefix, rest) = input.split_at_checked(PREFIX)?;
        let flags = prefix[0];
        let sectors = u32::from_le_bytes(prefix[1..].try_into().ok()?).into();
        let sector_bytes = if flags & LARGE == 0 { 512 } else { 4096 };
        let written = rest.chunks_exact(4 + sector_bytes).map(|chunk| {
            let (lba, content) = chunk.split_at(4);
            (u64::from(u32::from_le_bytes([lba[0], lba[1], lba[2], lba[3]])), content)
        });
        Some(Self { flags, sectors, sector_bytes, written: written.collect() })
    }

    fn read(&self, lba: u64, sectors: u64) -> Option<Vec<u8>> {
        let lbas = lba..lba + sectors;
        if self.flags & UNREADABLE != 0 && lbas.clone().any(|lba| lba.is_multiple_of(7) && lba > 0)
        {
            return None;
        }
        let mut bytes = vec![0; sectors as usize * self.sector_bytes];
        for (written, content) in self.written.range(lbas) {
            let at = (written - lba) as usize * self.sector_bytes;
            bytes[at..at + self.sector_bytes].copy_from_slice(content);
        }
        if self.flags & REPAIR != 0 && sectors == 1 && bytes.starts_with(b"EFI PART") {
            self.repair(&mut bytes);
        }
        Some(bytes)
    }

    /// Makes the checksums in a header good (UEFI 2.10, 5.3.2).
    fn repair(&self, header: &mut [u8]) {
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| header[at + i]));
        let (size, count, each) = (word(12) as usize, word(80), word(84));
        let lba = u64::from(word(72)) | u64::from(word(76)) << 32;
        let entries = u64::from(count) * u64::from(each);
        let sectors = entries.div_ceil(self.sector_bytes as u64);
        let end = lba.checked_add(sectors);
        if entries <= 1 << 20 && lba > 1 && end.is_some_and(|end| end <= self.sectors) {
            let bytes = self.read(lba, sectors).unwrap_or_default();
            let entries = bytes.get(..entries as usize).unwrap_or_default();
            header[88..92].copy_from_slice(&CRC.checksum(entries).to_le_bytes());
        }
        if (92..=header.len()).contains(&size) {
            header[16..20].fill(0);
            let checksum = CRC.checksum(&header[..size]);
            header[16..20].copy_from_slice(&checksum.to_le_bytes());
        }
    }
}

/// Scans the disk that `input` describes; whatever is on it, the scan ends and reads and finds
/// nothing outside the disk.
pub fn partitions(input: &[u8]) {
    let Some(image) = Image::new(input) else { return };
    let mut scanner = Scanner::new(image.sectors, image.sector_bytes as u32);
    for _ in 0..600 {
        match scanner.step() {
            Step::Read { lba, sectors } => {
                let end = lba.checked_add(sectors).expect("no overflow");
                assert!(sectors > 0 && end <= image.sectors, "{lba}+{sectors}");
                assert!(sectors == 1 || sectors as usize * image.sector_bytes <= 1 << 20);
                scanner.supply(image.read(lba, sectors).as_deref());
            }
            Step::Done(table) => {
                for partition in &table.partitions {
                    let end = partition.first_lba.checked_add(partition.sectors);
                    let inside = end.is_some_and(|end| end <= image.sectors);
                    assert!(partition.sectors > 0 && inside, "{partition:?}");
                }
                let _ = format!("{table:?}");
                table.warnings.iter().for_each(|warning| drop(warning.to_string()));
                return;
            }
        }
    }
    panic!("the scan does not end");
}
