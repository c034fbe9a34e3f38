//! Sense data: why a packet's command failed (SPC §4.5).

use core::fmt;

/// Sense data, of either format, as far as it is acted upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sense {
    /// What kind of failure it is.
    pub key: SenseKey,
    /// ASC: what exactly; see [`code`].
    pub code: u8,
    /// ASCQ.
    pub qualifier: u8,
    /// INFORMATION: for a read, the address of the sector that could not be read.
    pub information: Option<u64>,
}

/// Sense key (SPC §4.5.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenseKey(pub u8);

impl SenseKey {
    /// Nothing is wrong.
    pub const NO_SENSE: Self = Self(0x0);
    /// It ended well, after some effort.
    pub const RECOVERED_ERROR: Self = Self(0x1);
    /// The medium cannot be accessed.
    pub const NOT_READY: Self = Self(0x2);
    /// The medium is bad.
    pub const MEDIUM_ERROR: Self = Self(0x3);
    /// The drive is bad.
    pub const HARDWARE_ERROR: Self = Self(0x4);
    /// The command makes no sense to the drive.
    pub const ILLEGAL_REQUEST: Self = Self(0x5);
    /// Something has happened that the host should know of.
    pub const UNIT_ATTENTION: Self = Self(0x6);
    /// The sectors are protected.
    pub const DATA_PROTECT: Self = Self(0x7);
    /// The sectors have never been written.
    pub const BLANK_CHECK: Self = Self(0x8);
    /// The drive gave the command up; it may be tried again.
    pub const ABORTED_COMMAND: Self = Self(0xb);
}

/// Additional sense codes that are acted upon, with their qualifiers where one matters (SPC
/// annex D, MMC annex F).
pub mod code {
    /// Nothing more is known.
    pub const NONE: (u8, u8) = (0x00, 0x00);
    /// The drive is not ready; qualifiers say why.
    pub const NOT_READY: u8 = 0x04;
    /// The drive is becoming ready.
    pub const BECOMING_READY: (u8, u8) = (0x04, 0x01);
    /// The sectors could not be read.
    pub const UNRECOVERED_READ_ERROR: (u8, u8) = (0x11, 0x00);
    /// The drive does not know the command.
    pub const INVALID_COMMAND: (u8, u8) = (0x20, 0x00);
    /// The medium has no such sector.
    pub const OUT_OF_RANGE: (u8, u8) = (0x21, 0x00);
    /// A field of the packet makes no sense.
    pub const INVALID_FIELD: (u8, u8) = (0x24, 0x00);
    /// The medium may be another one than before.
    pub const MEDIUM_CHANGED: (u8, u8) = (0x28, 0x00);
    /// The drive was reset, or lost power.
    pub const RESET: (u8, u8) = (0x29, 0x00);
    /// There is no medium.
    pub const NO_MEDIUM: u8 = 0x3a;
    /// There is no medium, and the tray is closed.
    pub const NO_MEDIUM_CLOSED: (u8, u8) = (0x3a, 0x01);
    /// There is no medium, and the tray is open.
    pub const NO_MEDIUM_OPEN: (u8, u8) = (0x3a, 0x02);
    /// Data was damaged on the way between host and drive.
    pub const TRANSPORT_CRC: u8 = 0x47;
    /// The medium could not be taken in or let go of; with 02h because it is locked in, and from
    /// QEMU's drive for the same reason with 00h.
    pub const NOT_MOVED: u8 = 0x53;
    /// The medium is locked in.
    pub const REMOVAL_PREVENTED: (u8, u8) = (0x53, 0x02);
}

impl Sense {
    /// Bytes of sense data that are looked at: more than the fixed format has, and room for the
    /// first descriptors of the other.
    pub const BYTES: usize = 64;
    const FIXED: u8 = 0x70;
    const DESCRIPTORS: u8 = 0x72;
    /// INFORMATION holds something (in both formats).
    const VALID: u8 = 1 << 7;
    /// Bytes of the fixed format.
    pub const FIXED_BYTES: usize = 18;
    /// Byte that tells how many bytes follow it (in both formats).
    const FOLLOWING: usize = 7;

    /// A failure without an address.
    pub const fn new(key: SenseKey, (code, qualifier): (u8, u8)) -> Self {
        Self { key, code, qualifier, information: None }
    }

    /// The same with the address of a sector.
    pub const fn at(self, lba: u64) -> Self {
        Self { information: Some(lba), ..self }
    }

    /// Code and qualifier.
    pub const fn what(&self) -> (u8, u8) {
        (self.code, self.qualifier)
    }

    /// From the data; `None` if its format is unknown, or if it is about an earlier command.
    pub fn parse(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let end = Self::BYTES.min(Self::FOLLOWING + 1 + usize::from(bytes[Self::FOLLOWING]));
        let known = |index: usize| if index < end { bytes[index] } else { 0 };
        match bytes[0] & !Self::VALID {
            Self::FIXED => {
                let information = u32::from_be_bytes([bytes[3], bytes[4], bytes[5], bytes[6]]);
                let valid = bytes[0] & Self::VALID != 0;
                Some(Self {
                    key: SenseKey(bytes[2] & 0xf),
                    code: known(12),
                    qualifier: known(13),
                    information: valid.then_some(information.into()),
                })
            }
            Self::DESCRIPTORS => Some(Self {
                key: SenseKey(bytes[1] & 0xf),
                code: bytes[2],
                qualifier: bytes[3],
                information: information(&bytes[Self::FOLLOWING + 1..end]),
            }),
            // Deferred errors (71h, 73h) are about earlier commands; others are not known.
            _ => None,
        }
    }

    /// The data, of the fixed format.
    pub const fn to_fixed(&self) -> [u8; Self::FIXED_BYTES] {
        let mut bytes = [0; Self::FIXED_BYTES];
        bytes[0] = Self::FIXED;
        if let Some(lba) = self.information {
            let [_, _, _, _, a, b, c, d] = lba.to_be_bytes();
            bytes[0] |= Self::VALID;
            (bytes[3], bytes[4], bytes[5], bytes[6]) = (a, b, c, d);
        }
        bytes[2] = self.key.0;
        bytes[Self::FOLLOWING] = (Self::FIXED_BYTES - Self::FOLLOWING - 1) as u8;
        (bytes[12], bytes[13]) = (self.code, self.qualifier);
        bytes
    }
}

/// The information descriptor among others (SPC §4.5.2.2): type, length of the rest, a byte with
/// VALID, a reserved one, eight bytes of information.
fn information(mut descriptors: &[u8]) -> Option<u64> {
    const INFORMATION: u8 = 0x00;
    while let [kind, length, rest @ ..] = descriptors {
        let body = rest.get(..usize::from(*length))?;
        if let (INFORMATION, [valid, _, value @ ..]) = (*kind, body)
            && let Some(value) = value.first_chunk()
        {
            return (valid & Sense::VALID != 0).then(|| u64::from_be_bytes(*value));
        }
        descriptors = &rest[body.len()..];
    }
    None
}

impl fmt::Display for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sense {:x}/{:02x}/{:02x}", self.key.0, self.code, self.qualifier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn padded(bytes: &[u8]) -> [u8; Sense::BYTES] {
        let mut data = [0xff; Sense::BYTES];
        data[..bytes.len()].copy_from_slice(bytes);
        data
    }

    #[test]
    fn the_fixed_format_is_read_as_it_is_written() {
        let sense =
            Sense::new(SenseKey::MEDIUM_ERROR, code::UNRECOVERED_READ_ERROR).at(0x0102_0304);
        let bytes = sense.to_fixed();
        assert_eq!(bytes[..8], [0xf0, 0, 3, 1, 2, 3, 4, 10]);
        assert_eq!((bytes[12], bytes[13]), (0x11, 0));
        assert_eq!(Sense::parse(&padded(&bytes)), Some(sense));
    }

    #[test]
    fn fixed_sense_that_ends_early_has_no_code() {
        let data = padded(&[0x70, 0, 0x62, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0x3a, 1]);
        let sense = Sense::parse(&data).unwrap();
        assert_eq!(sense, Sense::new(SenseKey::NOT_READY, code::NONE));
    }

    #[test]
    fn descriptors_are_walked_to_the_information() {
        let mut bytes = [0x72, 3, 0x11, 5, 0, 0, 0, 16].to_vec();
        bytes.extend([2, 2, 9, 9]);
        bytes.extend([0, 0x0a, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        let sense = Sense::parse(&padded(&bytes)).unwrap();
        assert_eq!((sense.key, sense.what()), (SenseKey::MEDIUM_ERROR, (0x11, 5)));
        assert_eq!(sense.information, Some(256));
    }

    #[test]
    fn descriptors_of_absurd_lengths_are_not_followed() {
        for (length, descriptor) in [(255, [0, 255]), (2, [0, 10]), (1, [0, 0]), (255, [1, 0])] {
            let mut bytes = [0x72, 3, 0x11, 0, 0, 0, 0, length].to_vec();
            bytes.extend(descriptor);
            bytes.extend([0; Sense::BYTES - 10]);
            let sense = Sense::parse(&bytes.try_into().unwrap()).unwrap();
            assert_eq!(sense.information, None);
        }
    }

    #[test]
    fn unknown_and_deferred_data_is_not_believed() {
        for first in [0x00, 0x71, 0x73, 0x7f, 0xff] {
            assert_eq!(Sense::parse(&padded(&[first])), None);
        }
    }
}
