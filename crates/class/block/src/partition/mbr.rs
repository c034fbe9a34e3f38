//! Master boot records (as in the UEFI Specification 2.9, §5.2, and de facto).

/// Types of extended partitions, which hold the chain of logical ones.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];
/// Type of the partition that protects a GPT from tools that do not know it.
const GPT_PROTECTIVE: u8 = 0xee;

const TABLE_OFFSET: usize = 446;
const ENTRY_BYTES: usize = 16;
const SIGNATURE_OFFSET: usize = 510;
const SIGNATURE: [u8; 2] = [0x55, 0xaa];

/// An entry of a boot record that is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: u8,
    /// From the start of the disk, or of whatever the record's place makes it relative to.
    pub(super) start: u64,
    pub(super) sectors: u64,
}

impl Entry {
    pub(super) fn is_extended(&self) -> bool {
        EXTENDED.contains(&self.kind)
    }

    pub(super) const fn is_protective(&self) -> bool {
        self.kind == GPT_PROTECTIVE
    }
}

/// The four entries of a boot record; `None` if the sector is none.
///
/// The first sector of a FAT or NTFS file system ends like a boot record too, with program code
/// where the table would be. There, what should be a boot flag is hardly ever 00h or 80h.
pub(super) fn parse(sector: &[u8]) -> Option<[Option<Entry>; 4]> {
    if sector.get(SIGNATURE_OFFSET..SIGNATURE_OFFSET + 2)? != SIGNATURE {
        return None;
    }
    let mut entries = [None; 4];
    for (index, entry) in entries.iter_mut().enumerate() {
        let bytes = sector.get(TABLE_OFFSET + index * ENTRY_BYTES..)?.get(..ENTRY_BYTES)?;
        if bytes[0] & 0x7f != 0 {
            return None;
        }
        let word = |at: usize| {
            u64::from(u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]))
        };
        let (kind, start, sectors) = (bytes[4], word(8), word(12));
        *entry = (kind != 0 && sectors != 0).then_some(Entry { kind, start, sectors });
    }
    Some(entries)
}
