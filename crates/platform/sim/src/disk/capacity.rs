//! How many sectors the host may use: the host protected area (ACS-2 §4, "Host Protected Area
//! feature set") and the accessible maximum address (ACS §4, "Accessible Max Address
//! Configuration feature set").

use super::{ABORTED, Abilities, Disk};
use crate::sata::End;
use outboard_ahci::spec::ata::{self, SET_MAX_KEEP, accessible_max, command};
use outboard_ahci::spec::fis::RegisterH2d;

#[derive(Debug, Clone, Copy)]
pub(super) struct Capacity {
    /// What the host may use.
    pub(super) sectors: u64,
    /// What it may use from the next loss of power on.
    kept: u64,
    /// It was set for good since power came, which can be done once.
    set: bool,
    /// It cannot be set until the next loss of power.
    frozen: bool,
}

impl Capacity {
    pub(super) const fn new(sectors: u64) -> Self {
        Self { sectors, kept: sectors, set: false, frozen: false }
    }

    pub(super) const fn at_power_on(&mut self) {
        *self = Self::new(self.kept);
    }

    /// Forgets what was not to be kept.
    pub(super) const fn revert(&mut self) {
        self.sectors = self.kept;
    }
}

impl Disk {
    /// READ NATIVE MAX ADDRESS and SET MAX ADDRESS; `before` is the code of the command before.
    pub(super) fn protect_area(&mut self, fis: &RegisterH2d, before: u8) -> End {
        let long = matches!(fis.command, command::READ_NATIVE_MAX_EXT | command::SET_MAX_EXT);
        let needs = if long { Abilities::HPA | Abilities::LBA48 } else { Abilities::HPA };
        if !self.config.has(needs) {
            return ABORTED;
        }
        let native = self.config.sectors;
        let reading = match fis.command {
            command::READ_NATIVE_MAX | command::READ_NATIVE_MAX_EXT => {
                let most = if long { u64::MAX } else { 0x0fff_ffff };
                return answer(native.saturating_sub(1).min(most), long);
            }
            command::SET_MAX => command::READ_NATIVE_MAX,
            _ => command::READ_NATIVE_MAX_EXT,
        };
        // It has to follow upon the reading of the native address. FEATURES of the 28-bit command
        // would name a password.
        let lba = if long { fis.address48() } else { fis.address28() };
        if before != reading || !long && fis.features_low != 0 || lba >= native {
            return ABORTED;
        }
        let keep = u16::from_le_bytes(fis.count) & SET_MAX_KEEP != 0;
        if keep && self.capacity.set {
            return End::bad(ata::Error::ID_NOT_FOUND.bits(), 0);
        }
        self.capacity.sectors = lba + 1;
        if keep {
            (self.capacity.kept, self.capacity.set) = (lba + 1, true);
        }
        answer(lba, long)
    }

    /// ACCESSIBLE MAX ADDRESS CONFIGURATION.
    pub(super) fn configure_max_address(&mut self, fis: &RegisterH2d) -> End {
        if !self.config.has(Abilities::AMA) {
            return ABORTED;
        }
        let native = self.config.sectors;
        match u16::from_le_bytes([fis.features_low, fis.features_high]) {
            accessible_max::GET_NATIVE => answer(native.saturating_sub(1), true),
            accessible_max::SET => {
                let lba = fis.address48();
                if self.capacity.frozen || self.capacity.set || lba >= native {
                    return ABORTED;
                }
                let sectors = lba + 1;
                self.capacity = Capacity { set: true, ..Capacity::new(sectors) };
                answer(lba, true)
            }
            accessible_max::FREEZE => {
                self.capacity.frozen = true;
                End::good(0)
            }
            _ => ABORTED,
        }
    }
}

/// The end of a command that returns an address.
const fn answer(lba: u64, long: bool) -> End {
    let end = End { lba, ..End::good(0) };
    if long { end } else { super::in_28_bits(end) }
}
