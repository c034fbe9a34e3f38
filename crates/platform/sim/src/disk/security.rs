//! Passwords: the security feature set, states SEC0 to SEC6 (ACS §4, "Security feature set").

use super::{ABORTED, Abilities, Disk, DiskConfig};
use crate::sata::{End, Plan, Protocol};
use core::time::Duration;
use outboard_ahci::spec::ata::{self, command};
use outboard_ahci::spec::fis::RegisterH2d;
use outboard_ahci::spec::security::{ATTEMPTS, PasswordBlock, control, status};
use outboard_block::manage::PASSWORD_BYTES;
use zerocopy::FromBytes;

/// The number of a master password that nobody has set.
const MASTER_OF_THE_MAKER: u16 = 0xfffe;

#[derive(Debug, Clone)]
pub(super) struct Security {
    /// The user's password; security is enabled while there is one.
    user: Option<[u8; PASSWORD_BYTES]>,
    master: [u8; PASSWORD_BYTES],
    pub(super) master_number: u16,
    /// The master password can only erase.
    maximum: bool,
    locked: bool,
    frozen: bool,
    /// Wrong passwords that may still be tried.
    attempts: u8,
}

impl Security {
    pub(super) const fn new() -> Self {
        Self {
            user: None,
            master: [0; PASSWORD_BYTES],
            master_number: MASTER_OF_THE_MAKER,
            maximum: false,
            locked: false,
            frozen: false,
            attempts: ATTEMPTS,
        }
    }

    /// As it is when power comes: SEC1 or SEC4.
    pub(super) const fn at_power_on(&mut self) {
        self.locked = self.user.is_some();
        (self.frozen, self.attempts) = (false, ATTEMPTS);
    }

    pub(super) const fn is_enabled(&self) -> bool {
        self.user.is_some()
    }

    /// Word 128.
    pub(super) fn status(&self, config: &DiskConfig) -> u16 {
        if !config.has(Abilities::SECURITY) {
            return 0;
        }
        let bits = [
            (true, status::SUPPORTED),
            (self.user.is_some(), status::ENABLED),
            (self.locked, status::LOCKED),
            (self.frozen, status::FROZEN),
            (self.attempts == 0, status::EXPIRED),
            (config.has(Abilities::ENHANCED_ERASE), status::ENHANCED_ERASE),
            (self.user.is_some() && self.maximum, status::MAXIMUM),
        ];
        bits.iter().filter(|(set, _)| *set).fold(0, |word, (_, bit)| word | bit)
    }

    /// Whether it refuses a command because it is locked (ACS §4, "Security command actions").
    pub(super) const fn refuses(&self, code: u8) -> bool {
        self.locked
            && matches!(
                code,
                command::READ_DMA
                    | command::READ_DMA_EXT
                    | command::READ_FPDMA_QUEUED
                    | command::WRITE_DMA
                    | command::WRITE_DMA_EXT
                    | command::WRITE_DMA_FUA_EXT
                    | command::WRITE_FPDMA_QUEUED
                    | command::FLUSH_CACHE
                    | command::FLUSH_CACHE_EXT
                    | command::DATA_SET_MANAGEMENT
                    | command::SET_MAX
                    | command::SET_MAX_EXT
            )
    }

    /// Whether the state that it is in allows a command of the feature set; `before` is the code
    /// of the command before.
    const fn allows(&self, code: u8, before: u8) -> bool {
        match code {
            command::SECURITY_SET_PASSWORD | command::SECURITY_DISABLE_PASSWORD => {
                !self.locked && !self.frozen
            }
            command::SECURITY_UNLOCK => !self.frozen && self.attempts > 0,
            command::SECURITY_ERASE_PREPARE => !self.frozen,
            command::SECURITY_ERASE_UNIT => {
                !self.frozen && self.attempts > 0 && before == command::SECURITY_ERASE_PREPARE
            }
            command::SECURITY_FREEZE_LOCK => !self.locked,
            _ => false,
        }
    }

    fn matches(&self, block: &PasswordBlock) -> bool {
        match block.control() & control::MASTER {
            0 => self.user == Some(block.password),
            _ => self.master == block.password,
        }
    }

    fn set_password(&mut self, block: &PasswordBlock) {
        if block.control() & control::MASTER == 0 {
            self.user = Some(block.password);
            self.maximum = block.control() & control::MAXIMUM != 0;
            return;
        }
        self.master = block.password;
        let number = u16::from_le_bytes(block.master_number);
        if !matches!(number, 0 | 0xffff) {
            self.master_number = number;
        }
    }

    /// Whether the password is right for unlocking and disabling, where the master password is of
    /// no use at level "maximum".
    fn is_let_in(&self, block: &PasswordBlock) -> bool {
        let master = block.control() & control::MASTER != 0;
        self.matches(block) && !(master && self.maximum)
    }

    fn unlock(&mut self, block: &PasswordBlock) -> bool {
        if !self.locked {
            return true;
        }
        if !self.is_let_in(block) {
            self.attempts = self.attempts.saturating_sub(1);
            return false;
        }
        (self.locked, self.attempts) = (false, ATTEMPTS);
        true
    }

    fn disable(&mut self, block: &PasswordBlock) -> bool {
        // Without a user's password there is nothing to do.
        let let_in = self.user.is_none() || self.is_let_in(block);
        if let_in {
            self.user = None;
        }
        let_in
    }

    /// Everything was erased: SEC1.
    const fn end_erase(&mut self) {
        (self.user, self.locked, self.maximum) = (None, false, false);
        self.attempts = ATTEMPTS;
    }
}

impl Disk {
    /// The bits of word 128: what it says of its passwords.
    pub fn security_status(&self) -> u16 {
        self.security.status(&self.config)
    }

    /// Gives it a user's password, whatever it had, without a lock.
    pub const fn set_user_password(&mut self, password: [u8; PASSWORD_BYTES]) {
        self.security.user = Some(password);
    }

    /// Locks it, if it has a user's password, as when power comes.
    pub const fn lock(&mut self) {
        self.security.at_power_on();
    }

    /// How many wrong passwords may still be tried.
    pub const fn password_attempts(&self) -> u8 {
        self.security.attempts
    }

    pub(super) fn plan_security(&mut self, fis: &RegisterH2d, before: u8) -> Result<Plan, End> {
        let code = fis.command;
        if !self.config.has(Abilities::SECURITY) || !self.security.allows(code, before) {
            return Err(ABORTED);
        }
        let without_data =
            matches!(code, command::SECURITY_ERASE_PREPARE | command::SECURITY_FREEZE_LOCK);
        let timing = self.config.timing;
        let takes = match code {
            command::SECURITY_ERASE_UNIT => {
                timing.erase + self.power.wake(timing.spin_up, self.now)
            }
            _ => Duration::ZERO,
        };
        Ok(Plan {
            protocol: if without_data { Protocol::NonData } else { Protocol::PioOut },
            bytes: if without_data { 0 } else { ata::BLOCK_BYTES },
            takes: timing.command + takes,
        })
    }

    pub(super) fn secure(&mut self, fis: &RegisterH2d, data: &[u8]) -> End {
        match fis.command {
            command::SECURITY_ERASE_PREPARE => return End::good(0),
            command::SECURITY_FREEZE_LOCK => {
                self.security.frozen = true;
                return End::good(0);
            }
            _ => {}
        }
        let Ok(block) = PasswordBlock::ref_from_bytes(data) else { return ABORTED };
        let good = match fis.command {
            command::SECURITY_SET_PASSWORD => {
                self.security.set_password(block);
                true
            }
            command::SECURITY_UNLOCK => self.security.unlock(block),
            command::SECURITY_DISABLE_PASSWORD => self.security.disable(block),
            command::SECURITY_ERASE_UNIT => return self.erase_unit(block),
            _ => false,
        };
        if good { End::good(data.len()) } else { ABORTED }
    }

    fn erase_unit(&mut self, block: &PasswordBlock) -> End {
        let enhanced = block.control() & control::ENHANCED != 0;
        if !self.security.matches(block) || enhanced && !self.config.has(Abilities::ENHANCED_ERASE)
        {
            return ABORTED;
        }
        // Also what the host cannot reach.
        if let Err(failure) = self.store.erase(self.config.sectors) {
            return super::failed(failure, 0);
        }
        self.security.end_erase();
        End::good(ata::BLOCK_BYTES)
    }
}
