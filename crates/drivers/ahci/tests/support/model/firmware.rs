//! What a disk of the model does beside its data: as much as the driver's management needs.

use outboard_ahci::spec::ata::{checksum, command, features, power_mode};
use outboard_ahci::spec::fis::RegisterH2d;
use outboard_ahci::spec::security::{ATTEMPTS, PasswordBlock, control, status};
use outboard_ahci::spec::smart::{self, log, subcommand};
use zerocopy::FromBytes;

/// How a command ends.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Well, with data, and with LBA and COUNT.
    Good(Vec<u8>, u64, u8),
    /// It is refused.
    Aborted,
    /// Not at all.
    Never,
    /// It is none of the commands that are known here.
    Unknown,
}

/// A disk's settings, and what happened to it.
#[derive(Debug, Clone)]
pub struct Firmware {
    /// Every command but transfers, with FEATURES, in order.
    pub trace: Vec<(u8, u8)>,
    /// Commands that never end, with how often.
    pub hangs: Vec<(u8, u32)>,
    /// Commands that are refused.
    pub refuses: Vec<u8>,
    /// Subcommands of SMART that are refused.
    pub refused_subcommands: Vec<u8>,
    /// Words of its identification that are other than they should be.
    pub words: Vec<(usize, u16)>,
    /// What SMART's blocks hold, whatever is asked for; with the right checksum.
    pub smart_byte: Option<u8>,
    /// SMART's blocks have wrong checksums.
    pub damaged: bool,
    pub write_cache: bool,
    pub look_ahead: bool,
    pub power_level: Option<u8>,
    pub smart: bool,
    pub failing: bool,
    pub standby: bool,
    pub standby_timer: u8,
    pub asleep: bool,
    pub password: Option<[u8; 32]>,
    pub locked: bool,
    pub frozen: bool,
    pub attempts: u8,
    pub erased: u32,
    /// The last command was ERASE PREPARE, or READ NATIVE MAX.
    prepared: Option<u8>,
    /// Sectors that it pretends to have.
    pub visible: Option<u64>,
    pub self_test: Option<u8>,
}

impl Firmware {
    pub fn new() -> Self {
        Self {
            trace: Vec::new(),
            hangs: Vec::new(),
            refuses: Vec::new(),
            refused_subcommands: Vec::new(),
            words: Vec::new(),
            smart_byte: None,
            damaged: false,
            write_cache: true,
            look_ahead: true,
            power_level: None,
            smart: true,
            failing: false,
            standby: false,
            standby_timer: 0,
            asleep: false,
            password: None,
            locked: false,
            frozen: false,
            attempts: ATTEMPTS,
            erased: 0,
            prepared: None,
            visible: None,
            self_test: None,
        }
    }

    /// COMRESET: settings that are not preserved.
    pub fn reset(&mut self) {
        (self.write_cache, self.look_ahead, self.power_level) = (true, true, None);
        (self.standby, self.standby_timer, self.asleep, self.prepared) = (false, 0, false, None);
    }

    /// The power was off.
    pub fn power_up(&mut self) {
        self.reset();
        (self.frozen, self.attempts) = (false, ATTEMPTS);
        self.locked = self.password.is_some();
    }

    /// Words of the identification.
    pub fn identify(&self, words: &mut [u16; 256]) {
        words[76] |= 7 << 1;
        words[82] = 1 << 10 | 1 << 6 | 1 << 5 | 1 << 3 | 1 << 1 | 1;
        words[83] |= 1 << 3;
        words[84] |= 3;
        words[85] = 1 << 10
            | u16::from(self.look_ahead) << 6
            | u16::from(self.write_cache) << 5
            | 1 << 3
            | u16::from(self.smart);
        words[86] |= u16::from(self.power_level.is_some()) << 3;
        words[91] = self.power_level.unwrap_or_default().into();
        (words[89], words[90]) = (30, 15);
        words[128] = status::SUPPORTED | status::ENHANCED_ERASE;
        let bits = [
            (self.password.is_some(), status::ENABLED),
            (self.locked, status::LOCKED),
            (self.frozen, status::FROZEN),
            (self.attempts == 0, status::EXPIRED),
        ];
        bits.iter().filter(|(on, _)| *on).for_each(|(_, bit)| words[128] |= bit);
        self.words.iter().for_each(|(index, word)| words[*index] = *word);
    }

    /// Whether the command brings a password with it.
    pub fn takes_data(code: u8) -> bool {
        matches!(
            code,
            command::SECURITY_SET_PASSWORD
                | command::SECURITY_UNLOCK
                | command::SECURITY_ERASE_UNIT
                | command::SECURITY_DISABLE_PASSWORD
        )
    }

    /// Carries a command out that is no transfer, for a disk of `native` sectors.
    pub fn carry_out(&mut self, fis: &RegisterH2d, data: &[u8], native: u64) -> Answer {
        self.trace.push((fis.command, fis.features_low));
        if let Some((_, times)) = self.hangs.iter_mut().find(|(code, _)| *code == fis.command)
            && *times > 0
        {
            *times -= 1;
            return Answer::Never;
        }
        if self.refuses.contains(&fis.command) {
            return Answer::Aborted;
        }
        let prepared = self.prepared.take();
        let good = |lba, count| Answer::Good(Vec::new(), lba, count);
        let done = || good(0, 0);
        match fis.command {
            command::SET_FEATURES => self.set_features(fis),
            command::SMART => self.smart(fis),
            command::CHECK_POWER_MODE => {
                good(0, if self.standby { power_mode::STANDBY } else { power_mode::ACTIVE })
            }
            command::STANDBY_IMMEDIATE => {
                self.standby = true;
                done()
            }
            command::IDLE_IMMEDIATE => {
                self.standby = false;
                done()
            }
            command::IDLE => {
                self.standby_timer = fis.count[0];
                done()
            }
            command::SLEEP => {
                self.asleep = true;
                done()
            }
            command::SECURITY_FREEZE_LOCK if !self.locked => {
                self.frozen = true;
                done()
            }
            command::READ_NATIVE_MAX_EXT => {
                self.prepared = Some(fis.command);
                good(native - 1, 0)
            }
            command::SET_MAX_EXT if prepared == Some(command::READ_NATIVE_MAX_EXT) => {
                self.visible = Some(fis.address48() + 1);
                done()
            }
            command::SECURITY_ERASE_PREPARE => {
                self.prepared = Some(fis.command);
                done()
            }
            code if Self::takes_data(code) => self.secure(code, prepared, data),
            command::SECURITY_FREEZE_LOCK | command::SET_MAX_EXT => Answer::Aborted,
            _ => Answer::Unknown,
        }
    }

    fn set_features(&mut self, fis: &RegisterH2d) -> Answer {
        match u16::from(fis.features_low) {
            features::ENABLE_WRITE_CACHE => self.write_cache = true,
            features::DISABLE_WRITE_CACHE => self.write_cache = false,
            features::ENABLE_LOOK_AHEAD => self.look_ahead = true,
            features::DISABLE_LOOK_AHEAD => self.look_ahead = false,
            features::ENABLE_ADVANCED_POWER => self.power_level = Some(fis.count[0]),
            features::DISABLE_ADVANCED_POWER => self.power_level = None,
            // What concerns the link and spinning up is the model's business.
            features::ENABLE_SATA | features::SPIN_UP => return Answer::Unknown,
            _ => return Answer::Aborted,
        }
        Answer::Good(Vec::new(), 0, 0)
    }

    fn smart(&mut self, fis: &RegisterH2d) -> Answer {
        let [low, middle, high] = fis.lba_low;
        let subcommand = u16::from(fis.features_low);
        let enabled = self.smart || subcommand == subcommand::ENABLE;
        let refused = self.refused_subcommands.contains(&fis.features_low);
        if u16::from_le_bytes([middle, high]) != smart::KEY || !enabled || refused {
            return Answer::Aborted;
        }
        let mut block = vec![self.smart_byte.unwrap_or_default(); 512];
        if self.smart_byte.is_none() {
            match (subcommand, low) {
                (subcommand::READ_DATA, _) => {
                    block[2..14].copy_from_slice(&[9, 2, 0, 99, 99, 0x10, 0x27, 0, 0, 0, 0, 0]);
                    block[14..26].copy_from_slice(&[5, 3, 0, 30, 20, 7, 0, 0, 0, 0, 0, 0]);
                    (block[363], block[372]) = (self.self_test.map_or(0, |_| 0xf9), 2);
                }
                (subcommand::READ_THRESHOLDS, _) => block[2..4].copy_from_slice(&[5, 36]),
                (subcommand::READ_LOG, log::TESTS) => {
                    block[2..11].copy_from_slice(&[2, 0x74, 0x34, 0x12, 0, 5, 0, 0, 0]);
                    block[508] = 1;
                }
                (subcommand::READ_LOG, log::ERRORS) => {
                    let entry = &mut block[2..92];
                    entry[61..68].copy_from_slice(&[0x40, 1, 9, 0, 0, 0x40, 0x51]);
                    (block[1], block[452]) = (1, 3);
                }
                _ => {}
            }
        }
        block[511] = checksum(&block[..511]).wrapping_add(u8::from(self.damaged));
        match subcommand {
            subcommand::ENABLE => self.smart = true,
            subcommand::DISABLE => self.smart = false,
            subcommand::EXECUTE_OFFLINE => self.self_test = Some(low),
            subcommand::RETURN_STATUS => {
                let key = if self.failing { smart::KEY_FAILING } else { smart::KEY };
                return Answer::Good(Vec::new(), u64::from(key) << 8, 0);
            }
            _ => return Answer::Good(block, 0, 0),
        }
        Answer::Good(Vec::new(), 0, 0)
    }

    fn secure(&mut self, code: u8, prepared: Option<u8>, data: &[u8]) -> Answer {
        let block = PasswordBlock::read_from_bytes(data).unwrap();
        let right = self.password == Some(block.password) && block.control() & control::MASTER == 0;
        let unprepared = code == command::SECURITY_ERASE_UNIT
            && prepared != Some(command::SECURITY_ERASE_PREPARE);
        if self.frozen || self.attempts == 0 || unprepared {
            return Answer::Aborted;
        }
        match code {
            command::SECURITY_SET_PASSWORD if self.locked => return Answer::Aborted,
            command::SECURITY_SET_PASSWORD => self.password = Some(block.password),
            _ if !right => {
                self.attempts -= 1;
                return Answer::Aborted;
            }
            command::SECURITY_UNLOCK => self.locked = false,
            command::SECURITY_DISABLE_PASSWORD => self.password = None,
            _ => {
                (self.password, self.locked) = (None, false);
                self.erased += 1;
            }
        }
        Answer::Good(Vec::new(), 0, 0)
    }
}
