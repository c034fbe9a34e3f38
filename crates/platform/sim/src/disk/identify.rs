//! What it says of itself (ACS §7.12).

use super::{Abilities, Disk, Lies, TrimPromise, logs};
use crate::sata::End;

/// The words of an identification.
struct Words<'a>(&'a mut [u8]);

impl Words<'_> {
    fn set(&mut self, index: usize, word: u16) {
        self.0[index * 2..][..2].copy_from_slice(&word.to_le_bytes());
    }

    /// A number over several words.
    fn wide(&mut self, index: usize, number: u64, words: usize) {
        self.0[index * 2..][..words * 2].copy_from_slice(&number.to_le_bytes()[..words * 2]);
    }

    /// Text, padded with blanks; the first character of each word is its high byte.
    fn text(&mut self, index: usize, text: &str, words: usize) {
        let bytes = text.bytes().chain(core::iter::repeat(b' ')).take(words * 2);
        for (i, byte) in bytes.enumerate() {
            self.0[index * 2 + (i ^ 1)] = byte;
        }
    }
}

impl Disk {
    /// Fills in the identification.
    pub(super) fn identify(&mut self, data: &mut [u8]) -> End {
        data.fill(0);
        if self.lies.contains(Lies::IDENTIFY_BLANK) {
            return End::good(data.len());
        }
        let mut words = Words(data);
        self.identify_base(&mut words);
        self.identify_features(&mut words);
        self.identify_link(&mut words);
        if self.config.has(Abilities::CHECKSUM) {
            data[510] = 0xa5;
            logs::seal(data);
        }
        if self.lies.contains(Lies::IDENTIFY_CHECKSUM) {
            data[511] ^= 0x5a;
        }
        End::good(data.len())
    }

    /// Geometry, texts, sizes.
    fn identify_base(&self, words: &mut Words<'_>) {
        let config = &self.config;
        words.set(0, 0x0040);
        words.set(1, 16383);
        words.set(3, 16);
        words.set(6, 63);
        words.text(10, &config.serial, 10);
        words.text(23, &config.firmware, 4);
        words.text(27, &config.model, 20);
        words.set(47, 0x8010);
        // DMA, LBA, IORDY; standby timer as specified.
        words.set(49, 0x2f00);
        words.set(50, 0x4000);
        // Words 64–70 and 88 are valid.
        words.set(53, 0x0006);
        let sectors =
            if self.lies.contains(Lies::IDENTIFY_NO_SECTORS) { 0 } else { self.sectors() };
        let much = self.lies.contains(Lies::IDENTIFY_TOO_MANY_SECTORS);
        let sectors = if much { sectors.saturating_mul(1000) } else { sectors };
        words.wide(60, sectors.min(0x0fff_ffff), 2);
        if config.has(Abilities::LBA48) {
            words.wide(100, sectors, 4);
        }
        let exponent = u16::from(config.physical_exponent.min(15));
        let large = u16::from(config.sector_bytes != 512);
        words.set(106, 0x4000 | u16::from(exponent > 0) << 13 | large << 12 | exponent);
        if large == 1 {
            words.wide(117, u64::from(config.sector_bytes / 2), 2);
        }
        words.set(217, if config.rotation == 0 { 1 } else { config.rotation });
    }

    /// Feature sets, and which are on.
    fn identify_features(&self, words: &mut Words<'_>) {
        let has = |ability, bit: u32| u16::from(self.config.has(ability)) << bit;
        words.set(80, 0x07f0);
        words.set(82, has(Abilities::WRITE_CACHE, 5));
        words.set(85, u16::from(self.write_cache) << 5);
        let supported =
            0x4000 | 1 << 12 | has(Abilities::LBA48, 10) | has(Abilities::FLUSH_EXT, 13);
        words.set(83, supported);
        words.set(86, supported & !0x4000);
        let extended = 0x4000 | has(Abilities::LOGS, 5) | has(Abilities::FUA, 6);
        words.set(84, extended);
        words.set(87, extended);
        if self.config.has(Abilities::TRIM) {
            words.set(169, 1);
            words.set(105, self.config.trim_blocks);
            let promise = match self.config.trim_promise {
                TrimPromise::Nothing => 0,
                TrimPromise::Deterministic => 1 << 14,
                TrimPromise::Zeros => 1 << 14 | 1 << 5,
            };
            words.set(69, promise);
        }
    }

    /// Transfer modes and the link.
    fn identify_link(&self, words: &mut Words<'_>) {
        words.set(63, 0x0007);
        words.set(64, 0x0003);
        words.set(88, 0x407f);
        for word in 65..=68 {
            words.set(word, 120);
        }
        let speeds = (1u16 << self.config.generation.clamp(1, 3)) - 1;
        let mut capabilities = speeds << 1;
        if let Some(depth) = self.config.queue_depth.checked_sub(1) {
            words.set(75, u16::from(depth.min(31)));
            capabilities |= 1 << 8;
        }
        words.set(76, capabilities);
        words.set(222, 0x107f);
    }
}
