//! Logs that the driver reads (ACS §9).

use super::ata::sums_to_zero;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// General Purpose Log Directory: pages of each log (ACS §9.2).
pub const DIRECTORY: u8 = 0x00;
/// IDENTIFY DEVICE data log (ACS §9.11).
pub const IDENTIFY_DEVICE_DATA: u8 = 0x30;
/// NCQ Command Error log (ACS §9.13).
pub const NCQ_ERROR: u8 = 0x10;

/// NCQ Command Error log: which queued command failed, and how (ACS §9.13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NcqError {
    /// Bit 7 (NQ): the command was not queued, and the tag means nothing. Bits 4:0: tag.
    pub tag: u8,
    /// Reserved.
    pub reserved: u8,
    /// STATUS.
    pub status: u8,
    /// ERROR.
    pub error: u8,
    /// LBA 23:0.
    pub lba_low: [u8; 3],
    /// DEVICE.
    pub device: u8,
    /// LBA 47:24.
    pub lba_high: [u8; 3],
    /// Reserved.
    pub reserved_after: u8,
    /// COUNT.
    pub count: [u8; 2],
    /// Sense key, code and qualifier.
    pub sense: [u8; 3],
    /// Reserved, and vendor-specific.
    pub rest: [u8; 494],
    /// Makes the sum of all bytes zero.
    pub checksum: u8,
}

const _: () = assert!(size_of::<NcqError>() == 512);

/// Pages of the IDENTIFY DEVICE data log (ACS §9.11).
pub mod identify_page {
    /// Which pages there are.
    pub const SUPPORTED: u16 = 0x00;
    /// What IDENTIFY DEVICE returns.
    pub const COPY: u16 = 0x01;
    /// Capacity.
    pub const CAPACITY: u16 = 0x02;
    /// Serial ATA.
    pub const SERIAL_ATA: u16 = 0x08;
    /// In the Serial ATA page: a qword with the timing of device sleep. Bit 63: valid. Bits 15:8:
    /// milliseconds until it is out of it (DETO). Bits 4:0: milliseconds for which the signal
    /// has to be held (MDAT).
    pub const DEVICE_SLEEP_TIMING: usize = 48;
}

impl NcqError {
    /// The tag of the command that failed; `None` if it was not a queued one, or if the page's
    /// checksum is wrong.
    pub fn failed_tag(&self) -> Option<u8> {
        (sums_to_zero(self.as_bytes()) && self.tag & 1 << 7 == 0).then_some(self.tag & 0x1f)
    }

    /// The address of the failure.
    pub const fn lba(&self) -> u64 {
        let ([a, b, c], [d, e, f]) = (self.lba_low, self.lba_high);
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }
}

/// IDENTIFY DEVICE data log (ACS §9.11).
pub const IDENTIFY_DATA: u8 = 0x30;
/// Its page on Serial ATA.
pub const IDENTIFY_DATA_SATA: u8 = 0x08;

/// How long a device takes to fall asleep and to wake: DevSleep timing variables, in the Serial ATA
/// page of the IDENTIFY DEVICE data log (SATA §13.7.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SleepTiming {
    /// MDAT: for how long DEVSLP is asserted at least, in milliseconds.
    pub minimum_assertion_ms: u8,
    /// DETO: how long the device takes to wake, in milliseconds.
    pub exit_timeout_ms: u8,
}

impl SleepTiming {
    /// What holds for devices that do not say (SATA §8.4.3.3).
    pub const DEFAULT: Self = Self { minimum_assertion_ms: 10, exit_timeout_ms: 20 };
    /// Where the variables are in the page, a little-endian quadword.
    pub const OFFSET: usize = 48;

    /// What a page says, where it says something.
    pub fn of(page: &[u8; 512]) -> Self {
        const VALID: u8 = 1 << 7;
        // The page starts with its own number and revision, or is something else.
        let header = page[2] == IDENTIFY_DATA_SATA && page[7] & VALID != 0;
        let variables = &page[Self::OFFSET..Self::OFFSET + 8];
        if !header || variables[7] & VALID == 0 {
            return Self::DEFAULT;
        }
        let or = |value: u8, default: u8| if value == 0 { default } else { value };
        let Self { minimum_assertion_ms, exit_timeout_ms } = Self::DEFAULT;
        Self {
            minimum_assertion_ms: or(variables[0] & 0x1f, minimum_assertion_ms),
            exit_timeout_ms: or(variables[1], exit_timeout_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_timing_has_defaults_where_the_device_does_not_say() {
        let mut page = [0; 512];
        assert_eq!(SleepTiming::of(&page), SleepTiming::DEFAULT);
        (page[2], page[7], page[48], page[49], page[55]) = (8, 0x80, 0xe4, 0, 0x80);
        let timing = SleepTiming { minimum_assertion_ms: 4, exit_timeout_ms: 20 };
        assert_eq!(SleepTiming::of(&page), timing);
        page[2] = 3;
        assert_eq!(SleepTiming::of(&page), SleepTiming::DEFAULT);
    }

    #[test]
    fn a_page_names_its_tag_unless_it_is_damaged() {
        let mut page = [0; 512];
        page[..11].copy_from_slice(&[0x1e, 0, 0x41, 0x40, 1, 2, 3, 0x40, 4, 5, 6]);
        page[511] = page.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
        let log = NcqError::read_from_bytes(&page).unwrap();
        assert_eq!((log.failed_tag(), log.lba()), (Some(30), 0x0605_0403_0201));
        page[20] ^= 1;
        assert_eq!(NcqError::read_from_bytes(&page).unwrap().failed_tag(), None);
        page[20] ^= 1;
        (page[0], page[511]) = (0x9e, page[511].wrapping_sub(0x80));
        assert_eq!(NcqError::read_from_bytes(&page).unwrap().failed_tag(), None);
    }
}
