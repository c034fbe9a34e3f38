//! SMART: what a device says of its own health (ACS §7, "SMART"; attributes: SFF-8035i, which
//! the standard calls vendor-specific and devices have kept).

use super::ata::sums_to_zero;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, little_endian};

/// FEATURES of SMART.
pub mod subcommand {
    /// SMART READ DATA: a [`Data`](super::Data).
    pub const READ_DATA: u16 = 0xd0;
    /// SMART READ ATTRIBUTE THRESHOLDS: [`Thresholds`](super::Thresholds).
    pub const READ_THRESHOLDS: u16 = 0xd1;
    /// SMART ENABLE/DISABLE ATTRIBUTE AUTOSAVE.
    pub const AUTOSAVE: u16 = 0xd2;
    /// SMART EXECUTE OFF-LINE IMMEDIATE: a [`test`](mod@super::test) in LBA 7:0.
    pub const EXECUTE_OFFLINE: u16 = 0xd4;
    /// SMART READ LOG: a [`log`](super::log) in LBA 7:0, pages in COUNT.
    pub const READ_LOG: u16 = 0xd5;
    /// SMART WRITE LOG.
    pub const WRITE_LOG: u16 = 0xd6;
    /// SMART ENABLE OPERATIONS.
    pub const ENABLE: u16 = 0xd8;
    /// SMART DISABLE OPERATIONS.
    pub const DISABLE: u16 = 0xd9;
    /// SMART RETURN STATUS: the answer is in LBA 23:8; see [`verdict`](super::verdict).
    pub const RETURN_STATUS: u16 = 0xda;
}

/// LBA 23:8 of every SMART command; also the answer that no threshold is exceeded.
pub const KEY: u16 = 0xc24f;
/// LBA 23:8 of the answer that a threshold is exceeded.
pub const KEY_FAILING: u16 = 0x2cf4;

/// The 28-bit address of a SMART command with `low` in LBA 7:0.
pub const fn address(low: u8) -> u64 {
    (KEY as u64) << 8 | low as u64
}

/// What LBA 23:8 says after SMART RETURN STATUS: whether the device expects to fail; `None` if it
/// is neither of the two answers.
pub const fn verdict(lba: u64) -> Option<bool> {
    match (lba >> 8) as u16 {
        KEY => Some(false),
        KEY_FAILING => Some(true),
        _ => None,
    }
}

/// Self-tests, for SMART EXECUTE OFF-LINE IMMEDIATE.
pub mod test {
    /// Short, while commands are served.
    pub const SHORT: u8 = 0x01;
    /// Extended, while commands are served.
    pub const EXTENDED: u8 = 0x02;
    /// Conveyance, while commands are served.
    pub const CONVEYANCE: u8 = 0x03;
    /// Ends the test that runs.
    pub const ABORT: u8 = 0x7f;
    /// The same tests while nothing is served.
    pub const CAPTIVE: u8 = 1 << 7;
}

/// How self-tests end: bits 7:4 of an execution status; bits 3:0 are tenths that are left.
pub mod outcome {
    /// Without an error.
    pub const PASSED: u8 = 0;
    /// Ended by the host.
    pub const ABORTED: u8 = 1;
    /// Ended by a reset.
    pub const INTERRUPTED: u8 = 2;
    /// Could not be carried through.
    pub const FATAL: u8 = 3;
    /// Something failed: unknown, electrical, servo or seek, reading, damage from handling.
    pub const FAILED: core::ops::RangeInclusive<u8> = 4..=8;
    /// Still running.
    pub const RUNNING: u8 = 15;
}

/// Logs that SMART READ LOG and READ LOG EXT read.
pub mod log {
    /// Summary SMART error log: an [`ErrorLog`](super::ErrorLog).
    pub const ERRORS: u8 = 0x01;
    /// SMART self-test log: a [`TestLog`](super::TestLog).
    pub const TESTS: u8 = 0x06;
    /// Extended SMART self-test log, by READ LOG EXT: [`ExtendedTestLog`](super::ExtendedTestLog).
    pub const EXTENDED_TESTS: u8 = 0x07;
}

/// How many attributes a device has at most.
pub const ATTRIBUTES: usize = 30;

/// A 512-byte block whose bytes sum to zero.
pub trait Block: FromBytes + Sized {
    /// The block in these bytes, unless its checksum is wrong.
    fn checked(bytes: &[u8; 512]) -> Option<Self> {
        sums_to_zero(bytes).then(|| Self::read_from_bytes(bytes).ok()).flatten()
    }
}

/// An attribute; a free entry has number 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Attribute {
    /// Number.
    pub id: u8,
    /// Bit 0 ([`PREFAILURE`](Self::PREFAILURE)), and others of the maker's.
    pub flags: little_endian::U16,
    /// How it is now, normalised.
    pub value: u8,
    /// How it was at worst, normalised.
    pub worst: u8,
    /// The maker's own figure.
    pub raw: [u8; 6],
    /// Reserved.
    pub reserved: u8,
}

impl Attribute {
    /// Bit of the flags: crossing the threshold means failure soon, rather than age.
    pub const PREFAILURE: u16 = 1 << 0;

    /// The maker's own figure as a number.
    pub const fn raw(&self) -> u64 {
        let [a, b, c, d, e, f] = self.raw;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }
}

/// What SMART READ DATA returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Data {
    /// Revision of the structure.
    pub revision: little_endian::U16,
    /// Attributes.
    pub attributes: [Attribute; ATTRIBUTES],
    /// Status of off-line data collection.
    pub offline_status: u8,
    /// Execution status of the last self-test; see [`outcome`].
    pub test_status: u8,
    /// Seconds that off-line data collection takes.
    pub offline_seconds: little_endian::U16,
    /// Vendor-specific.
    pub vendor: u8,
    /// What can be done off-line; see [`offline`].
    pub offline: u8,
    /// SMART capability.
    pub capability: little_endian::U16,
    /// Bit 0: errors are logged.
    pub error_logging: u8,
    /// Vendor-specific.
    pub vendor_byte: u8,
    /// Minutes that a short self-test takes.
    pub short_minutes: u8,
    /// Minutes that an extended self-test takes; FFh: see `extended_minutes_wide`.
    pub extended_minutes: u8,
    /// Minutes that a conveyance self-test takes.
    pub conveyance_minutes: u8,
    /// Minutes that an extended self-test takes, if a byte is too small for it.
    pub extended_minutes_wide: little_endian::U16,
    /// Reserved.
    pub reserved: [u8; 9],
    /// Vendor-specific.
    pub vendor_end: [u8; 125],
    /// Makes the sum of all bytes zero.
    pub checksum: u8,
}

/// Bits of [`Data::offline`].
pub mod offline {
    /// SMART EXECUTE OFF-LINE IMMEDIATE is supported.
    pub const EXECUTE: u8 = 1 << 0;
    /// Self-tests are supported.
    pub const SELF_TESTS: u8 = 1 << 4;
    /// Conveyance self-tests are supported.
    pub const CONVEYANCE: u8 = 1 << 5;
}

/// What SMART READ ATTRIBUTE THRESHOLDS returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Thresholds {
    /// Revision of the structure.
    pub revision: little_endian::U16,
    /// A threshold for each attribute.
    pub thresholds: [Threshold; ATTRIBUTES],
    /// Reserved.
    pub reserved: [u8; 18],
    /// Vendor-specific.
    pub vendor: [u8; 131],
    /// Makes the sum of all bytes zero.
    pub checksum: u8,
}

/// The threshold of an attribute; a free entry has number 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Threshold {
    /// Number of the attribute.
    pub id: u8,
    /// The threshold, normalised; 0 for never.
    pub threshold: u8,
    /// Reserved.
    pub reserved: [u8; 10],
}

/// SMART self-test log (log 06h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TestLog {
    /// Revision of the structure: 1.
    pub revision: little_endian::U16,
    /// A ring of results.
    pub tests: [TestEntry; 21],
    /// Vendor-specific.
    pub vendor: [u8; 2],
    /// Number of the newest result, from 1 on; 0 if there is none.
    pub newest: u8,
    /// Reserved.
    pub reserved: [u8; 2],
    /// Makes the sum of all bytes zero.
    pub checksum: u8,
}

/// A result in the SMART self-test log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TestEntry {
    /// Which [`test`](mod@test); 0 if the entry is free and so is the rest.
    pub test: u8,
    /// Execution status; see [`outcome`].
    pub status: u8,
    /// Hours under power at that time.
    pub hours: little_endian::U16,
    /// Vendor-specific: where the test ended.
    pub checkpoint: u8,
    /// First sector that failed, FFFFFFFFh if that does not apply.
    pub lba: little_endian::U32,
    /// Vendor-specific.
    pub vendor: [u8; 15],
}

/// Extended SMART self-test log (log 07h), a page of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ExtendedTestLog {
    /// Revision of the structure: 1.
    pub revision: u8,
    /// Reserved.
    pub reserved: u8,
    /// Number of the newest result over all pages, from 1 on; 0 if there is none.
    pub newest: little_endian::U16,
    /// A ring of results, which goes on in the next page.
    pub tests: [ExtendedTestEntry; 19],
    /// Vendor-specific.
    pub vendor: [u8; 2],
    /// Reserved.
    pub reserved_end: [u8; 11],
    /// Makes the sum of all bytes zero.
    pub checksum: u8,
}

/// A result in the extended SMART self-test log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ExtendedTestEntry {
    /// Which [`test`](mod@test).
    pub test: u8,
    /// Execution status; see [`outcome`].
    pub status: u8,
    /// Hours under power at that time.
    pub hours: little_endian::U16,
    /// Vendor-specific: where the test ended.
    pub checkpoint: u8,
    /// First sector that failed, all ones if that does not apply.
    pub lba: [u8; 6],
    /// Vendor-specific.
    pub vendor: [u8; 15],
}

/// Summary SMART error log (log 01h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ErrorLog {
    /// Version: 1.
    pub version: u8,
    /// Number of the newest error, from 1 on; 0 if there is none.
    pub newest: u8,
    /// A ring of errors.
    pub errors: [ErrorEntry; 5],
    /// Errors that were counted over the device's life.
    pub count: little_endian::U16,
    /// Reserved.
    pub reserved: [u8; 57],
    /// Makes the sum of all bytes zero.
    pub checksum: u8,
}

/// An error in the log, and the commands that led to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ErrorEntry {
    /// The last five commands, the one that failed being the last.
    pub commands: [ErrorCommand; 5],
    /// Reserved.
    pub reserved: u8,
    /// ERROR.
    pub error: u8,
    /// COUNT.
    pub count: u8,
    /// LBA 23:0.
    pub lba: [u8; 3],
    /// DEVICE, with LBA 27:24.
    pub device: u8,
    /// STATUS.
    pub status: u8,
    /// Vendor-specific.
    pub vendor: [u8; 19],
    /// What the device was doing.
    pub state: u8,
    /// Hours under power at that time.
    pub hours: little_endian::U16,
}

impl ErrorEntry {
    /// The 28-bit address.
    pub const fn lba(&self) -> u64 {
        let [a, b, c] = self.lba;
        u64::from_le_bytes([a, b, c, self.device & 0xf, 0, 0, 0, 0])
    }
}

/// A command that led to an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ErrorCommand {
    /// Device control.
    pub control: u8,
    /// FEATURES.
    pub features: u8,
    /// COUNT.
    pub count: u8,
    /// LBA 23:0.
    pub lba: [u8; 3],
    /// DEVICE.
    pub device: u8,
    /// COMMAND.
    pub command: u8,
    /// Milliseconds since power-on.
    pub milliseconds: little_endian::U32,
}

impl Block for Data {}
impl Block for Thresholds {}
impl Block for TestLog {}
impl Block for ExtendedTestLog {}
impl Block for ErrorLog {}

const _: () = assert!(size_of::<Attribute>() == 12 && size_of::<Threshold>() == 12);
const _: () = assert!(size_of::<Data>() == 512 && core::mem::offset_of!(Data, test_status) == 363);
const _: () = assert!(core::mem::offset_of!(Data, short_minutes) == 372);
const _: () = assert!(core::mem::offset_of!(Data, reserved) == 377);
const _: () = assert!(size_of::<Thresholds>() == 512);
const _: () = assert!(size_of::<TestEntry>() == 24 && size_of::<ExtendedTestEntry>() == 26);
const _: () = assert!(size_of::<TestLog>() == 512 && core::mem::offset_of!(TestLog, newest) == 508);
const _: () = assert!(size_of::<ExtendedTestLog>() == 512);
const _: () = assert!(size_of::<ErrorEntry>() == 90 && size_of::<ErrorCommand>() == 12);
const _: () =
    assert!(size_of::<ErrorLog>() == 512 && core::mem::offset_of!(ErrorLog, count) == 452);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ata::checksum;

    #[test]
    fn blocks_with_a_wrong_checksum_are_refused() {
        let mut bytes = [0; 512];
        bytes[2..14].copy_from_slice(&[194, 0x22, 0, 64, 45, 36, 0, 15, 0, 49, 0, 0]);
        bytes[511] = checksum(&bytes[..511]);
        let data = Data::checked(&bytes).unwrap();
        assert_eq!((data.attributes[0].id, data.attributes[0].raw()), (194, 0x0031_000f_0024));
        bytes[3] ^= 1;
        assert_eq!(Data::checked(&bytes), None);
    }

    #[test]
    fn the_keys_are_where_they_should_be() {
        assert_eq!(address(0x06), 0x00c2_4f06);
        assert_eq!(verdict(address(0)), Some(false));
        assert_eq!(verdict(0x002c_f400), Some(true));
        assert_eq!(verdict(0), None);
    }
}
