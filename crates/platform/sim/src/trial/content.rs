//! What is written to sectors, so that whoever reads one can tell what it is.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The first bytes of a sector that a trial has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    magic: U32,
    /// How often the sector was written before.
    version: U32,
    lba: U64,
    /// Which disk it was written for.
    disk: U64,
    checksum: U64,
}

const MAGIC: u32 = 0x6f62_5345;
const HEADER_BYTES: usize = size_of::<Header>();

/// Spreads the bits of a number.
const fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb)
}

const fn key(disk: u64, lba: u64, version: u32) -> u64 {
    mix(disk ^ mix(lba ^ mix(version as u64 + 1)))
}

/// Fills a sector.
pub(super) fn fill(sector: &mut [u8], disk: u64, lba: u64, version: u32) {
    let checksum = key(disk, lba, version);
    let (header, rest) = sector.split_at_mut(HEADER_BYTES);
    let (version, lba) = (version.into(), lba.into());
    let header_value =
        Header { magic: MAGIC.into(), version, lba, disk: disk.into(), checksum: checksum.into() };
    header.copy_from_slice(header_value.as_bytes());
    for word in rest.as_chunks_mut::<8>().0 {
        *word = checksum.to_le_bytes();
    }
}

/// The version of a sector's content; 0 if it was never written. The error says what is wrong.
pub(super) fn version(sector: &[u8], disk: u64, lba: u64) -> Result<u32, String> {
    if sector.iter().all(|byte| *byte == 0) {
        return Ok(0);
    }
    let (header, rest) = sector.split_at(HEADER_BYTES);
    let Ok(header) = Header::read_from_bytes(header) else { return Err("nothing".into()) };
    if header.magic.get() != MAGIC {
        return Err(format!("what nobody has written: {:02x?}", &sector[..16]));
    }
    if header.disk.get() != disk {
        return Err("what was written to another disk".into());
    }
    if header.lba.get() != lba {
        return Err(format!("what belongs to sector {}", header.lba));
    }
    let checksum = key(disk, lba, header.version.get());
    let whole = header.checksum.get() == checksum
        && rest.as_chunks::<8>().0.iter().all(|word| *word == checksum.to_le_bytes());
    if whole { Ok(header.version.get()) } else { Err("a mixture".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sector_tells_what_it_is() {
        let mut sector = [0; 512];
        assert_eq!(version(&sector, 1, 2), Ok(0));
        fill(&mut sector, 1, 2, 3);
        assert_eq!(version(&sector, 1, 2), Ok(3));
        assert!(version(&sector, 2, 2).unwrap_err().contains("another disk"));
        assert!(version(&sector, 1, 5).unwrap_err().contains("sector 2"));
        sector[511] ^= 1;
        assert!(version(&sector, 1, 2).unwrap_err().contains("mixture"));
    }
}
