//! GUID partition tables (UEFI Specification 2.9, §5.3).

use super::{Damage, Kind, Partition};
use alloc::string::String;
use alloc::vec::Vec;
use bytemuck::pod_read_unaligned;
use crc::{CRC_32_ISO_HDLC, Crc};
use gpt_disk_types::{GptHeader, GptPartitionEntry, GptPartitionEntrySize};

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
/// Bytes of a header as far as it is specified.
const HEADER_BYTES: usize = size_of::<GptHeader>();
/// Where the header's own checksum is, which counts as zero in it.
const CHECKSUM: core::ops::Range<usize> = 16..20;
/// The most bytes of entries that are read. 128 entries of 128 bytes are usual.
const MAX_ENTRIES_BYTES: u64 = 1 << 20;

/// A header that is sound in itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Where the other copy's header is.
    pub(super) alternate_lba: u64,
    pub(super) entries_lba: u64,
    entries: u32,
    entry_bytes: u32,
    pub(super) entries_checksum: u32,
    first_usable: u64,
    last_usable: u64,
}

impl Header {
    /// Reads the header in the sector at `lba` of a disk of `sectors`, and checks it.
    pub(super) fn parse(sector: &[u8], lba: u64, sectors: u64) -> Result<Self, Damage> {
        let bytes = sector.get(..HEADER_BYTES).ok_or(Damage::NoSignature)?;
        let header: GptHeader = pod_read_unaligned(bytes);
        if !header.is_signature_valid() {
            return Err(Damage::NoSignature);
        }
        let size = header.header_size.to_u32() as usize;
        let covered = sector.get(..size).filter(|_| size >= HEADER_BYTES);
        let covered = covered.ok_or(Damage::HeaderNonsense)?;
        let mut digest = CRC.digest();
        digest.update(&covered[..CHECKSUM.start]);
        digest.update(&[0; CHECKSUM.end - CHECKSUM.start]);
        digest.update(&covered[CHECKSUM.end..]);
        if digest.finalize() != header.header_crc32.0.to_u32() {
            return Err(Damage::HeaderChecksum);
        }
        let parsed = Self {
            alternate_lba: header.alternate_lba.to_u64(),
            entries_lba: header.partition_entry_lba.to_u64(),
            entries: header.number_of_partition_entries.to_u32(),
            entry_bytes: header.size_of_partition_entry.to_u32(),
            entries_checksum: header.partition_entry_array_crc32.0.to_u32(),
            first_usable: header.first_usable_lba.to_u64(),
            last_usable: header.last_usable_lba.to_u64(),
        };
        let in_place = header.my_lba.to_u64() == lba;
        let sound = in_place && parsed.is_sound(sectors, sector.len() as u64);
        if sound { Ok(parsed) } else { Err(Damage::HeaderNonsense) }
    }

    fn is_sound(&self, sectors: u64, sector_bytes: u64) -> bool {
        let size = GptPartitionEntrySize::new(self.entry_bytes).is_ok();
        let array = self.entries_sectors(sector_bytes);
        let inside = array.and_then(|array| self.entries_lba.checked_add(array));
        size && self.first_usable <= self.last_usable
            && self.last_usable < sectors
            && self.entries_lba > 1
            && inside.is_some_and(|end| end <= sectors)
    }

    /// Sectors of the entries; `None` if they are more than is ever read.
    pub(super) fn entries_sectors(&self, sector_bytes: u64) -> Option<u64> {
        let bytes = self.entries_bytes();
        (bytes > 0 && bytes <= MAX_ENTRIES_BYTES).then(|| bytes.div_ceil(sector_bytes))
    }

    fn entries_bytes(&self) -> u64 {
        u64::from(self.entries) * u64::from(self.entry_bytes)
    }

    /// The partitions in the sectors of the entries.
    pub(super) fn partitions(&self, sectors: &[u8]) -> Result<Vec<Partition>, Damage> {
        let array = sectors.get(..self.entries_bytes() as usize).ok_or(Damage::EntriesChecksum)?;
        if CRC.checksum(array) != self.entries_checksum {
            return Err(Damage::EntriesChecksum);
        }
        let entries = array.chunks_exact(self.entry_bytes as usize);
        let entries = entries.map(|bytes| {
            pod_read_unaligned::<GptPartitionEntry>(&bytes[..size_of::<GptPartitionEntry>()])
        });
        let used = (1..).zip(entries).filter(|(_, entry)| entry.is_used());
        Ok(used.map(|(number, entry)| self.partition(number, &entry)).collect())
    }

    /// A partition; one whose ends make no sense has no sectors.
    fn partition(&self, number: u32, entry: &GptPartitionEntry) -> Partition {
        let (first, last) = (entry.starting_lba.to_u64(), entry.ending_lba.to_u64());
        let usable = self.first_usable <= first && first <= last && last <= self.last_usable;
        let name = { entry.name };
        let label: String = name.chars().filter(|character| !character.is_control()).collect();
        Partition {
            number,
            first_lba: first,
            sectors: if usable { last - first + 1 } else { 0 },
            kind: Kind::Gpt({ entry.partition_type_guid }.0),
            label,
        }
    }
}
