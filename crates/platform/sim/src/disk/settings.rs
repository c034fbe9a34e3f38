//! SET FEATURES (ACS §7, "SET FEATURES").

use super::{ABORTED, Abilities, Disk, DiskConfig};
use crate::sata::End;
use outboard_ahci::spec::ata::{ADVANCED_POWER_LEVELS, features, sata_feature};
use outboard_ahci::spec::fis::RegisterH2d;

/// What the host can switch. All but the last goes back to what it was at power-on with a loss of
/// power, and with COMRESET unless software settings preservation is on (SATA §13.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) write_cache: bool,
    pub(super) look_ahead: bool,
    /// The level of advanced power management, 0 while it is off.
    pub(super) power_level: u8,
    /// Serial ATA features that are on, as the bits of word 79.
    pub(super) sata: u16,
    /// Power-up in standby; kept for good.
    pub(super) starts_in_standby: bool,
}

impl Settings {
    /// What is on when power comes.
    pub(super) fn at_power_on(config: &DiskConfig, starts_in_standby: bool) -> Self {
        let preserves = config.has(Abilities::SETTINGS_PRESERVATION);
        Self {
            write_cache: config.has(Abilities::WRITE_CACHE),
            look_ahead: config.has(Abilities::LOOK_AHEAD),
            power_level: if config.has(Abilities::APM) { 0xfe } else { 0 },
            sata: if preserves { PRESERVATION } else { 0 },
            starts_in_standby,
        }
    }

    /// Whether settings outlive COMRESET.
    pub(super) const fn are_preserved(&self) -> bool {
        self.sata & PRESERVATION != 0
    }
}

const PRESERVATION: u16 = 1 << 6;

/// The Serial ATA features that a disk supports, as the bits of word 78.
pub(super) fn sata_features(config: &DiskConfig) -> u16 {
    let bit = |ability, bit: u32| u16::from(config.has(ability)) << bit;
    bit(Abilities::DIPM, 3)
        | bit(Abilities::SETTINGS_PRESERVATION, 6)
        | bit(Abilities::DEVICE_SLEEP, 8)
}

/// The bit of words 78 and 79 for a COUNT of SET FEATURES.
const fn sata_bit(feature: u16) -> u16 {
    match feature {
        sata_feature::DEVICE_POWER_MANAGEMENT => 1 << 3,
        sata_feature::SETTINGS_PRESERVATION => PRESERVATION,
        sata_feature::DEVICE_SLEEP => 1 << 8,
        _ => 0,
    }
}

impl Disk {
    pub(super) fn set_features(&mut self, fis: &RegisterH2d) -> End {
        let count = u16::from_le_bytes(fis.count);
        let needs = match u16::from(fis.features_low) {
            features::ENABLE_WRITE_CACHE | features::DISABLE_WRITE_CACHE => Abilities::WRITE_CACHE,
            features::ENABLE_LOOK_AHEAD | features::DISABLE_LOOK_AHEAD => Abilities::LOOK_AHEAD,
            features::ENABLE_ADVANCED_POWER | features::DISABLE_ADVANCED_POWER => Abilities::APM,
            features::ENABLE_POWER_UP_IN_STANDBY
            | features::DISABLE_POWER_UP_IN_STANDBY
            | features::SPIN_UP => Abilities::PUIS,
            features::TRANSFER_MODE | features::ENABLE_SATA | features::DISABLE_SATA => {
                Abilities::empty()
            }
            _ => return ABORTED,
        };
        if !self.config.has(needs) {
            return ABORTED;
        }
        let settings = &mut self.settings;
        match u16::from(fis.features_low) {
            features::ENABLE_WRITE_CACHE => settings.write_cache = true,
            // What is cached is written first.
            features::DISABLE_WRITE_CACHE => {
                settings.write_cache = false;
                return self.write_back();
            }
            features::ENABLE_LOOK_AHEAD => settings.look_ahead = true,
            features::DISABLE_LOOK_AHEAD => settings.look_ahead = false,
            features::ENABLE_ADVANCED_POWER if ADVANCED_POWER_LEVELS.contains(&fis.count[0]) => {
                settings.power_level = fis.count[0];
            }
            features::DISABLE_ADVANCED_POWER => settings.power_level = 0,
            features::ENABLE_POWER_UP_IN_STANDBY => settings.starts_in_standby = true,
            features::DISABLE_POWER_UP_IN_STANDBY => settings.starts_in_standby = false,
            features::SPIN_UP => self.power.spin_up(),
            // PIO and default, PIO 0–4, multiword DMA 0–2, Ultra DMA 0–6.
            features::TRANSFER_MODE if matches!(fis.count[0], 0 | 1 | 8..=12 | 0x20..=0x22 | 0x40..=0x46) =>
                {}
            code @ (features::ENABLE_SATA | features::DISABLE_SATA) => {
                let bit = sata_bit(count) & sata_features(&self.config);
                if bit == 0 {
                    return ABORTED;
                }
                let on = code == features::ENABLE_SATA;
                settings.sata = if on { settings.sata | bit } else { settings.sata & !bit };
            }
            _ => return ABORTED,
        }
        End::good(0)
    }
}
