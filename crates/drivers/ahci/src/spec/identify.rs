//! What IDENTIFY DEVICE returns (ACS §7.12).

use heapless::String;
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
        let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        if bytes[510] == HAS_CHECKSUM && sum != 0 {
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
        while text.ends_with([' ', '?']) {
            text.pop();
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn identify(words: &[(usize, u16)]) -> Identify {
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
