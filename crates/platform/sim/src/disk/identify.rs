//! What it says of itself (ACS §7.12).

use super::settings::sata_features;
use super::{Abilities, Disk, Lies, PowerState, TrimPromise, logs};
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
        self.overrides.iter().for_each(|(index, word)| words.set(*index, *word));
        if self.config.has(Abilities::CHECKSUM) && self.mistaken == 0 {
            data[510] = 0xa5;
            logs::seal(data);
        }
        let mistaken = self.mistaken;
        self.mistaken = mistaken.saturating_sub(1);
        match mistaken {
            0 => {}
            1 => data[20] ^= 3,
            2 => data[99] = 0,
            many => data[20] = b'a' + (many % 26) as u8,
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
        let on = |on: bool, bit: u32| u16::from(on) << bit;
        let settings = &self.settings;
        words.set(80, 0x07f0);
        let always = has(Abilities::POWER_MANAGEMENT, 3) | has(Abilities::HPA, 10);
        let supported = always
            | has(Abilities::SMART, 0)
            | has(Abilities::SECURITY, 1)
            | has(Abilities::WRITE_CACHE, 5)
            | has(Abilities::LOOK_AHEAD, 6);
        words.set(82, supported);
        let enabled = always
            | on(self.config.has(Abilities::SMART) && self.smart.enabled, 0)
            | on(self.security.is_enabled(), 1)
            | on(settings.write_cache, 5)
            | on(settings.look_ahead, 6);
        words.set(85, enabled);
        // FLUSH CACHE; spinning up by SET FEATURES.
        let always = 1 << 12
            | has(Abilities::PUIS, 6)
            | has(Abilities::LBA48, 10)
            | has(Abilities::FLUSH_EXT, 13);
        words.set(83, 0x4000 | always | has(Abilities::APM, 3) | has(Abilities::PUIS, 5));
        // Words 119 and 120 are valid.
        let enabled = on(settings.power_level > 0, 3) | on(settings.starts_in_standby, 5);
        words.set(86, 0x8000 | always | enabled);
        let tests = has(Abilities::SELF_TESTS, 1) | has(Abilities::SELF_TESTS, 0);
        let extended = 0x4000 | tests | has(Abilities::LOGS, 5) | has(Abilities::FUA, 6);
        words.set(84, extended);
        words.set(87, extended);
        words.set(91, settings.power_level.into());
        let second = 0x4000 | has(Abilities::LOGS_BY_DMA, 3) | has(Abilities::AMA, 8);
        words.set(119, second);
        words.set(120, second);
        if self.power.state == PowerState::WaitsForSpinUp {
            // SET FEATURES is needed, and this data is complete all the same.
            words.set(2, 0x738c);
        }
        self.identify_security(words);
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

    fn identify_security(&self, words: &mut Words<'_>) {
        if !self.config.has(Abilities::SECURITY) {
            return;
        }
        // In units of two minutes, in the format that has eight bits.
        let minutes = self.config.timing.erase.as_secs().div_ceil(60);
        let units = minutes.div_ceil(2).clamp(1, 254) as u16;
        words.set(89, units);
        if self.config.has(Abilities::ENHANCED_ERASE) {
            words.set(90, units);
        }
        words.set(92, self.security.master_number);
        words.set(128, self.security.status(&self.config));
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
        // The host may save power; READ LOG DMA EXT is as good as READ LOG EXT.
        capabilities |= 1 << 9 | u16::from(self.config.has(Abilities::LOGS_BY_DMA)) << 15;
        words.set(76, capabilities);
        words.set(77, u16::from(self.link_speed) << 1);
        words.set(78, sata_features(&self.config));
        words.set(79, self.settings.sata);
        words.set(222, 0x107f);
    }
}
