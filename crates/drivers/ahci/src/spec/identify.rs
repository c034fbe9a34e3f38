//! What IDENTIFY DEVICE returns (ACS §7.12), and IDENTIFY PACKET DEVICE.

mod packet;

use super::ata::sums_to_zero;
use super::security;
use heapless::String;
use outboard_block::manage::{Security, Switch};
use outboard_block::{Identity, Medium};

/// Bytes of the data.
pub const BYTES: usize = 512;

/// The 256 words of a device's identification, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identify {
    words: [u16; 256],
}

impl Identify {
    /// Takes the data, unless its checksum is wrong (word 255; old devices have none) or it says
    /// nothing at all.
    pub fn new(bytes: &[u8; BYTES]) -> Option<Self> {
        const HAS_CHECKSUM: u8 = 0xa5;
        if bytes[510] == HAS_CHECKSUM && !sums_to_zero(bytes) {
            return None;
        }
        let blank = bytes.iter().all(|byte| *byte == bytes[0]);
        let words = core::array::from_fn(|i| u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]));
        (!blank).then_some(Self { words })
    }

    fn word(&self, index: usize) -> u16 {
        self.words[index]
    }

    /// Whether `bit` of a word is set.
    fn has(&self, word: usize, bit: u32) -> bool {
        self.word(word) >> bit & 1 == 1
    }

    /// A word whose bits 15:14 say that it is valid by being 01; 0 otherwise.
    fn checked(&self, index: usize) -> u16 {
        let word = self.word(index);
        if word >> 14 == 1 { word } else { 0 }
    }

    fn wide(&self, index: usize) -> u64 {
        let word = |offset: usize| u64::from(self.word(index + offset));
        word(0) | word(1) << 16 | word(2) << 32 | word(3) << 48
    }

    /// Model, serial number and firmware revision (words 27–46, 10–19, 23–26).
    pub fn identity(&self) -> Identity {
        Identity { model: self.text(27), serial: self.text(10), firmware: self.text(23) }
    }

    /// Text of `N` characters from `word` on: the high byte of each word comes first. What is not
    /// printable becomes `?`, and padding is cut off.
    fn text<const N: usize>(&self, word: usize) -> String<N> {
        let mut text = String::new();
        for character in self.words[word..][..N / 2].iter().flat_map(|word| word.to_be_bytes()) {
            let printable = (b' '..=b'~').contains(&character);
            let character = if printable { char::from(character) } else { '?' };
            if (character != ' ' || !text.is_empty()) && text.push(character).is_err() {
                break;
            }
        }
        let last = text.as_bytes().iter().rposition(|byte| !matches!(byte, b' ' | b'?'));
        text.truncate(last.map_or(0, |last| last + 1));
        text
    }

    /// Whether DMA and logical block addresses are supported (word 49 bits 8, 9).
    pub fn has_dma(&self) -> bool {
        self.has(49, 8) && self.has(49, 9)
    }

    /// Whether 48-bit addresses are supported (word 83 bit 10).
    pub fn has_lba48(&self) -> bool {
        self.checked(83) >> 10 & 1 == 1
    }

    /// Logical sectors (words 60–61, 100–103, 230–233).
    pub fn sectors(&self) -> u64 {
        // Word 69 bit 3: more than words 100–103 may say.
        let extended = if self.has(69, 3) { self.wide(230) } else { 0 };
        let long = if self.has_lba48() { self.wide(100) } else { 0 };
        match extended.max(long) {
            0 => u64::from(self.word(60)) | u64::from(self.word(61)) << 16,
            sectors => sectors,
        }
    }

    /// Bytes in a logical sector (words 106, 117–118).
    pub fn sector_bytes(&self) -> u32 {
        let words = u32::from(self.word(117)) | u32::from(self.word(118)) << 16;
        if self.checked(106) >> 12 & 1 == 1 { words.saturating_mul(2) } else { 512 }
    }

    /// Bytes in a physical sector (word 106 bits 13, 3:0).
    pub fn physical_sector_bytes(&self) -> u32 {
        let sizes = self.checked(106);
        let log2 = if sizes >> 13 & 1 == 1 { u32::from(sizes & 0xf) } else { 0 };
        self.sector_bytes().saturating_mul(1 << log2)
    }

    /// Queued commands at once; 0 without native command queuing (words 75, 76 bit 8).
    pub fn queue_depth(&self) -> u8 {
        let capabilities = self.word(76);
        let valid = capabilities != 0 && capabilities != 0xffff;
        if valid && self.has(76, 8) { (self.word(75) & 0x1f) as u8 + 1 } else { 0 }
    }

    /// Whether there is a volatile write cache that is switched on (word 85 bit 5). A device that
    /// does not say (word 87 bits 15:14) may have one.
    pub fn write_cache(&self) -> bool {
        self.word(87) >> 14 != 1 || self.has(85, 5)
    }

    /// Whether FLUSH CACHE EXT is supported (word 83 bit 13).
    pub fn has_flush_ext(&self) -> bool {
        self.checked(83) >> 13 & 1 == 1
    }

    /// Whether single writes can be made durable (word 84 bit 6).
    pub fn has_fua(&self) -> bool {
        self.checked(84) >> 6 & 1 == 1
    }

    /// Whether logs can be read (general purpose logging, word 84 bit 5).
    pub fn has_logs(&self) -> bool {
        self.checked(84) >> 5 & 1 == 1
    }

    /// Whether the device waits in standby for SET FEATURES to spin it up (word 83 bit 6, word 2).
    pub fn awaits_spin_up(&self) -> bool {
        let enabled = self.checked(83) >> 6 & 1 == 1 && self.has(86, 6);
        enabled && matches!(self.word(2), 0x37c8 | 0x738c)
    }

    /// Whether TRIM is supported (word 169 bit 0).
    pub fn has_trim(&self) -> bool {
        self.has(169, 0)
    }

    /// 512-byte blocks of ranges in one TRIM (word 105; 0 means that the device does not say).
    pub fn trim_blocks(&self) -> u16 {
        self.word(105).max(1)
    }

    /// What the medium is (word 217).
    pub fn medium(&self) -> Medium {
        match self.word(217) {
            0x0001 => Medium::SolidState,
            rpm @ 0x0401..=0xfffe => Medium::Rotating(rpm),
            _ => Medium::Unknown,
        }
    }
}

/// What can be switched and told.
impl Identify {
    /// Words 82–87 mean something: 83 and 87 say so. Old devices have none of it.
    fn feature(&self, supported: (usize, u32), enabled: (usize, u32)) -> Switch {
        let valid = self.checked(83) != 0;
        Switch::new(valid && self.has(supported.0, supported.1), self.has(enabled.0, enabled.1))
    }

    /// SMART (words 82, 85 bit 0).
    pub fn smart(&self) -> Switch {
        self.feature((82, 0), (85, 0))
    }

    /// Whether SMART can run self-tests (word 84 bit 1).
    pub fn has_self_tests(&self) -> bool {
        self.smart().is_present() && self.checked(84) >> 1 & 1 == 1
    }

    /// Whether SMART keeps a log of errors (word 84 bit 0).
    pub fn has_error_log(&self) -> bool {
        self.smart().is_present() && self.checked(84) & 1 == 1
    }

    /// The volatile write cache, as a switch (words 82, 85 bit 5).
    pub fn write_cache_switch(&self) -> Switch {
        self.feature((82, 5), (85, 5))
    }

    /// Read look-ahead (words 82, 85 bit 6).
    pub fn look_ahead(&self) -> Switch {
        self.feature((82, 6), (85, 6))
    }

    /// Whether power can be managed (word 82 bit 3).
    pub fn has_power_management(&self) -> bool {
        self.feature((82, 3), (85, 3)).is_present()
    }

    /// Advanced power management (words 83, 86 bit 3).
    pub fn advanced_power(&self) -> Switch {
        self.feature((83, 3), (86, 3))
    }

    /// Its level (word 91).
    pub fn power_level(&self) -> u8 {
        self.word(91) as u8
    }

    /// Power-up in standby (words 83, 86 bit 5).
    pub fn power_up_in_standby(&self) -> Switch {
        self.feature((83, 5), (86, 5))
    }

    /// Whether standby timers mean what the standard says (word 49 bit 13).
    pub fn has_standard_standby_timer(&self) -> bool {
        self.has(49, 13)
    }

    /// Whether there is a host protected area (words 82, 85 bit 10; ACS-2).
    pub fn has_protected_area(&self) -> bool {
        self.feature((82, 10), (85, 10)) == Switch::On
    }

    /// A word of those which word 86 bit 15 declares valid, and they themselves.
    fn second(&self, index: usize) -> u16 {
        if self.has(86, 15) { self.checked(index) } else { 0 }
    }

    /// Whether the accessible maximum address can be configured (word 119 bit 8).
    pub fn has_accessible_max(&self) -> bool {
        self.second(119) >> 8 & 1 == 1
    }

    /// Passwords (words 82, 85 bit 1, 89, 90, 128).
    pub fn security(&self) -> Security {
        security::decode(self.word(128), self.word(89), self.word(90))
    }

    /// Serial ATA capabilities (word 76), features supported (78) and enabled (79).
    fn sata(&self, index: usize) -> u16 {
        let valid = !matches!(self.word(76), 0 | 0xffff);
        if valid { self.word(index) } else { 0 }
    }

    /// Fastest link speed, as generation; 0 if it is not known (word 76 bits 3:1).
    pub fn fastest_link(&self) -> u8 {
        let speeds = self.sata(76) >> 1 & 7;
        (u16::BITS - speeds.leading_zeros()) as u8
    }

    /// Current link speed, as generation; 0 if the device does not say (word 77 bits 3:1).
    pub fn link_speed(&self) -> u8 {
        (self.sata(77) >> 1 & 7) as u8
    }

    /// Whether the host may save power on the link (word 76 bit 9).
    pub fn has_host_link_power(&self) -> bool {
        self.sata(76) >> 9 & 1 == 1
    }

    /// Saving of power on the link by the device (words 78, 79 bit 3).
    pub fn device_link_power(&self) -> Switch {
        Switch::new(self.sata(78) >> 3 & 1 == 1, self.sata(79) >> 3 & 1 == 1)
    }

    /// Software settings preservation: settings survive a COMRESET (words 78, 79 bit 6).
    pub fn settings_preservation(&self) -> Switch {
        Switch::new(self.sata(78) >> 6 & 1 == 1, self.sata(79) >> 6 & 1 == 1)
    }

    /// Asynchronous notification (words 78, 79 bit 5, in IDENTIFY PACKET DEVICE).
    pub fn asynchronous_notification(&self) -> Switch {
        Switch::new(self.sata(78) >> 5 & 1 == 1, self.sata(79) >> 5 & 1 == 1)
    }

    /// Device sleep (words 78, 79 bit 8).
    pub fn device_sleep(&self) -> Switch {
        Switch::new(self.sata(78) >> 8 & 1 == 1, self.sata(79) >> 8 & 1 == 1)
    }

    /// Whether the transport is serial (word 222 bits 15:12).
    pub fn is_serial(&self) -> bool {
        self.word(222) >> 12 == 1
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The answer with these words; all others are 0.
    pub(in crate::spec) fn identify(words: &[(usize, u16)]) -> Identify {
        let mut bytes = [0; BYTES];
        for (index, word) in words {
            bytes[index * 2..][..2].copy_from_slice(&word.to_le_bytes());
        }
        Identify::new(&bytes).unwrap()
    }

    #[test]
    fn text_is_swapped_trimmed_and_made_printable() {
        let text = identify(&[(23, 0x2041), (24, 0x0742), (25, 0x2020), (26, 0x0000)]);
        assert_eq!(text.identity().firmware, "A?B");
    }

    #[test]
    fn sector_sizes_come_from_word_106_only_if_it_is_valid() {
        let classic = identify(&[(0, 0x40), (106, 0xffff), (117, 2048)]);
        assert_eq!((classic.sector_bytes(), classic.physical_sector_bytes()), (512, 512));
        let emulated = identify(&[(106, 0x6003)]);
        assert_eq!((emulated.sector_bytes(), emulated.physical_sector_bytes()), (512, 4096));
        let native = identify(&[(106, 0x5000), (117, 2048)]);
        assert_eq!((native.sector_bytes(), native.physical_sector_bytes()), (4096, 4096));
        let absurd = identify(&[(106, 0x700f), (117, 0xffff), (118, 0xffff)]);
        assert_eq!(absurd.physical_sector_bytes(), u32::MAX);
    }

    #[test]
    fn capacity_falls_back_to_28_bits() {
        let short = identify(&[(60, 0x5678), (61, 0x0234), (100, 9)]);
        assert_eq!((short.has_lba48(), short.sectors()), (false, 0x0234_5678));
        let long = identify(&[(60, 0xffff), (61, 0x0fff), (83, 0x4400), (102, 1)]);
        assert_eq!((long.has_lba48(), long.sectors()), (true, 1 << 32));
    }

    #[test]
    fn queueing_needs_valid_capabilities() {
        assert_eq!(identify(&[(75, 31), (76, 0x0100)]).queue_depth(), 32);
        assert_eq!(identify(&[(75, 31), (76, 0xffff)]).queue_depth(), 0);
        assert_eq!(identify(&[(75, 31)]).queue_depth(), 0);
    }

    #[test]
    fn features_need_words_that_are_valid() {
        let all = [(82, 0x046b), (83, 0x4008), (85, 0x0401), (86, 0x0008), (91, 0x40fe)];
        let modern = identify(&all);
        assert_eq!((modern.smart(), modern.write_cache_switch()), (Switch::On, Switch::Off));
        assert_eq!((modern.look_ahead(), modern.advanced_power()), (Switch::Off, Switch::On));
        assert_eq!((modern.power_level(), modern.has_protected_area()), (0xfe, true));
        assert!(modern.has_power_management() && !modern.has_self_tests());
        let invalid = identify(&[(82, 0xffff), (83, 0xffff), (84, 0xffff), (85, 0xffff)]);
        assert_eq!((invalid.smart(), invalid.advanced_power()), (Switch::Absent, Switch::Absent));
        assert!(!invalid.has_error_log() && !invalid.has_accessible_max());
    }

    #[test]
    fn serial_features_need_valid_capabilities() {
        let words = [(76, 0x020e), (77, 0x0006), (78, 0x0148), (79, 0x0040)];
        let disk = identify(&words);
        assert_eq!((disk.fastest_link(), disk.link_speed()), (3, 3));
        assert_eq!(disk.settings_preservation(), Switch::On);
        assert_eq!(disk.device_sleep(), Switch::Off);
        assert!(disk.has_host_link_power());
        let parallel = identify(&[(76, 0xffff), (77, 6), (78, 0xffff)]);
        assert_eq!((parallel.fastest_link(), parallel.link_speed()), (0, 0));
        assert_eq!(parallel.device_sleep(), Switch::Absent);
    }

    #[test]
    fn damaged_or_blank_data_is_refused() {
        assert_eq!(Identify::new(&[0; BYTES]), None);
        assert_eq!(Identify::new(&[0xff; BYTES]), None);
        let mut bytes = [0; BYTES];
        (bytes[0], bytes[510]) = (0x40, 0xa5);
        assert_eq!(Identify::new(&bytes), None);
        bytes[511] = 0u8.wrapping_sub(0x40 + 0xa5);
        assert!(Identify::new(&bytes).is_some());
    }
}
