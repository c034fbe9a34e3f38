//! Passwords of a device: the security feature set (ACS §4, "Security feature set").

use core::fmt;
use outboard_block::manage::{PASSWORD_BYTES, Security};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bits of IDENTIFY DEVICE word 128 (ACS §7.12, "Security status").
pub mod status {
    /// The feature set is supported.
    pub const SUPPORTED: u16 = 1 << 0;
    /// A user password is set.
    pub const ENABLED: u16 = 1 << 1;
    /// Data cannot be read or written.
    pub const LOCKED: u16 = 1 << 2;
    /// Nothing can be changed until the next loss of power.
    pub const FROZEN: u16 = 1 << 3;
    /// Too many wrong passwords were tried.
    pub const EXPIRED: u16 = 1 << 4;
    /// Enhanced erasing is supported.
    pub const ENHANCED_ERASE: u16 = 1 << 5;
    /// The security level is "maximum".
    pub const MAXIMUM: u16 = 1 << 8;
}

/// Wrong passwords that may be tried before the count has expired.
pub const ATTEMPTS: u8 = 5;

/// The block that goes with SET PASSWORD, UNLOCK, DISABLE PASSWORD and ERASE UNIT.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PasswordBlock {
    /// Bits of [`control`].
    pub control: [u8; 2],
    /// The password, padded with zeros.
    pub password: [u8; PASSWORD_BYTES],
    /// Number of the master password, for SET PASSWORD.
    pub master_number: [u8; 2],
    /// Reserved.
    pub reserved: [u8; 476],
}

const _: () = assert!(size_of::<PasswordBlock>() == 512);

/// Bits of [`PasswordBlock::control`].
pub mod control {
    /// The master password, else the user's.
    pub const MASTER: u16 = 1 << 0;
    /// ERASE UNIT: in enhanced mode.
    pub const ENHANCED: u16 = 1 << 1;
    /// SET PASSWORD: the security level is "maximum", else "high".
    pub const MAXIMUM: u16 = 1 << 8;
}

/// Without the password.
impl fmt::Debug for PasswordBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordBlock").field("control", &self.control()).finish_non_exhaustive()
    }
}

impl PasswordBlock {
    /// A block with bits of [`control`].
    pub const fn new(control: u16, password: [u8; PASSWORD_BYTES]) -> Self {
        // A master password's number of FFFEh or 0 leaves the number as it is.
        let control = control.to_le_bytes();
        Self { control, password, master_number: [0; 2], reserved: [0; 476] }
    }

    /// The bits of [`control`].
    pub const fn control(&self) -> u16 {
        u16::from_le_bytes(self.control)
    }
}

/// What IDENTIFY DEVICE says of passwords: words 128, 89 and 90.
pub fn decode(status: u16, erase: u16, enhanced_erase: u16) -> Security {
    use status::{ENABLED, ENHANCED_ERASE, EXPIRED, FROZEN, LOCKED, MAXIMUM, SUPPORTED};
    let has = |bit: u16| status & bit != 0;
    if !has(SUPPORTED) {
        return Security::NONE;
    }
    Security {
        supported: true,
        enabled: has(ENABLED),
        locked: has(LOCKED),
        frozen: has(FROZEN),
        expired: has(EXPIRED),
        maximum: has(MAXIMUM),
        erase_minutes: erase_minutes(erase),
        enhanced_erase_minutes: has(ENHANCED_ERASE).then(|| erase_minutes(enhanced_erase)),
    }
}

/// Minutes that erasing takes, from word 89 or 90: two for each unit, of which there are eight
/// bits, or fifteen if bit 15 is set; 0 if the device does not say. The highest value of either
/// means "longer".
pub const fn erase_minutes(word: u16) -> u16 {
    const EXTENDED: u16 = 1 << 15;
    let units = if word & EXTENDED != 0 { word & !EXTENDED } else { word & 0xff };
    units * 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erase_times_come_in_two_formats() {
        assert_eq!(erase_minutes(0x0000), 0);
        assert_eq!(erase_minutes(0x7f01), 2);
        assert_eq!(erase_minutes(0x00ff), 510, "more than 508");
        assert_eq!(erase_minutes(0x8100), 512);
        assert_eq!(erase_minutes(0xffff), 65534, "more than 65532");
    }

    #[test]
    fn nothing_is_read_from_a_word_that_says_unsupported() {
        assert_eq!(decode(0xfffe, 1, 1), Security::NONE);
        let locked = decode(0x0107, 3, 4);
        assert!(locked.enabled && locked.locked && locked.maximum && !locked.frozen);
        assert_eq!((locked.erase_minutes, locked.enhanced_erase_minutes), (6, None));
        assert_eq!(decode(0x0021, 3, 4).enhanced_erase_minutes, Some(8));
    }

    #[test]
    fn a_password_block_is_laid_out_as_specified() {
        let block = PasswordBlock::new(control::MASTER | control::MAXIMUM, [0x61; 32]);
        let bytes = block.as_bytes();
        assert_eq!((&bytes[..3], &bytes[33..36]), (&[1, 1, 0x61][..], &[0x61, 0, 0][..]));
    }
}
