//! What goes wrong when it is told to.

use super::transfer::Transfer;
use bitflags::bitflags;
use core::time::Duration;
use outboard_ahci::spec::fis::RegisterH2d;

/// What happens to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    /// It is aborted.
    Abort,
    /// The disk is faulty (DF).
    Fault,
    /// It never ends: it takes [`Duration::MAX`], until a reset.
    Hang,
    /// Neither it nor any command after it ends, until a reset.
    Stall,
    /// It takes so much longer.
    Slow(Duration),
}

bitflags! {
    /// What a disk is wrong about.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Lies: u32 {
        /// The checksum of its identification is wrong.
        const IDENTIFY_CHECKSUM = 1 << 0;
        /// Its identification says that it has no sectors.
        const IDENTIFY_NO_SECTORS = 1 << 1;
        /// Its identification is nothing but zeros.
        const IDENTIFY_BLANK = 1 << 2;
        /// Its identification says that it has many more sectors than it has.
        const IDENTIFY_TOO_MANY_SECTORS = 1 << 3;
        /// Log 10h cannot be read.
        const QUEUE_LOG_UNREADABLE = 1 << 4;
        /// Log 10h names another tag.
        const QUEUE_LOG_WRONG_TAG = 1 << 5;
        /// The checksum of log 10h is wrong.
        const QUEUE_LOG_CHECKSUM = 1 << 6;
        /// Log 10h says that the command was not a queued one.
        const QUEUE_LOG_NOT_QUEUED = 1 << 7;
        /// Log 10h names a sector far from the one that failed.
        const QUEUE_LOG_WRONG_SECTOR = 1 << 8;
        /// **Loses data.** Flushing does nothing and says that it went well; nor is FUA obeyed.
        const LOSES_FLUSHED = 1 << 9;
        /// Checksums of SMART's blocks are wrong.
        const SMART_CHECKSUM = 1 << 10;
        /// SMART RETURN STATUS answers neither yes nor no.
        const SMART_VERDICT = 1 << 11;
    }
}

/// Which commands meet with a mishap.
#[derive(Debug, Clone, Copy)]
pub(super) enum Which {
    All,
    /// Those with this code.
    Code(u8),
    /// Those with this code and this in FEATURES 7:0.
    Subcommand(u8, u8),
    /// Those that read or write this sector.
    Sector(u64),
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    which: Which,
    left: u32,
    mishap: Mishap,
}

/// Mishaps that are to come, in the order in which they were added.
#[derive(Debug, Default)]
pub(super) struct Script(Vec<Entry>);

impl Script {
    pub(super) fn add(&mut self, which: Which, times: u32, mishap: Mishap) {
        if times > 0 {
            self.0.push(Entry { which, left: times, mishap });
        }
    }

    /// What happens to a command.
    pub(super) fn next(&mut self, fis: &RegisterH2d) -> Option<Mishap> {
        let touches = |lba| {
            let transfer = Transfer::new(fis);
            transfer.is_some_and(|t| (t.lba..t.lba + u64::from(t.sectors)).contains(&lba))
        };
        let found = self.0.iter().position(|entry| match entry.which {
            Which::All => true,
            Which::Code(code) => code == fis.command,
            Which::Subcommand(code, features) => {
                (code, features) == (fis.command, fis.features_low)
            }
            Which::Sector(lba) => touches(lba),
        })?;
        let entry = &mut self.0[found];
        entry.left -= 1;
        let mishap = entry.mishap;
        if entry.left == 0 {
            self.0.remove(found);
        }
        Some(mishap)
    }
}
