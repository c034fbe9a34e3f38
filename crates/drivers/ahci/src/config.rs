//! What a driver can be told.

use crate::sabotage::LeftOut;
use core::time::Duration;

/// How the driver learns that commands have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaping {
    /// By interrupts; `poll` touches no register unless one came or a deadline passed.
    Interrupts,
    /// By looking at every `poll`; the HBA sends no interrupts.
    Polling,
}

/// How long things may take before the driver intervenes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// A read or a write. Disks that fight for a bad sector take up to half a minute.
    pub transfer: Duration,
    /// A flush of the cache.
    pub flush: Duration,
    /// A discard.
    pub discard: Duration,
    /// From the first contact until the device is ready: platters may have to spin up.
    pub spin_up: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            transfer: Duration::from_secs(30),
            flush: Duration::from_secs(60),
            discard: Duration::from_secs(60),
            spin_up: Duration::from_secs(30),
        }
    }
}

/// What a driver can be told. The defaults suit most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AhciConfig {
    /// How the driver learns that commands have ended.
    pub reaping: Reaping,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// Entries of each slot's physical region descriptor table: how many separate pieces of memory
    /// one command transfers. 248 make a command table of exactly one page.
    pub prdt_entries: u16,
    /// Whether to use native command queuing where HBA and device have it.
    pub queuing: bool,
    /// How often a command is tried before its failure is reported.
    pub attempts: u8,
    /// A piece of the recovery to leave out.
    #[cfg(feature = "sabotage")]
    pub sabotage: Option<crate::Sabotage>,
}

impl AhciConfig {
    /// What is to be left out.
    pub(crate) const fn left_out(&self) -> LeftOut {
        LeftOut {
            #[cfg(feature = "sabotage")]
            piece: self.sabotage,
        }
    }
}

impl Default for AhciConfig {
    fn default() -> Self {
        Self {
            reaping: Reaping::Interrupts,
            timeouts: Timeouts::default(),
            prdt_entries: 248,
            queuing: true,
            attempts: 4,
            #[cfg(feature = "sabotage")]
            sabotage: None,
        }
    }
}

/// Fixed limits, with where they come from.
pub(crate) mod limit {
    use super::Duration;

    /// BIOS hand-off: the BIOS clears BOS, or says that it is busy, within this (AHCI §10.6.3).
    pub(crate) const HAND_OFF: Duration = Duration::from_millis(25);
    /// BIOS hand-off: a BIOS that is busy finishes within this (AHCI §10.6.3).
    pub(crate) const HAND_OFF_BUSY: Duration = Duration::from_secs(2);
    /// Some HBAs want AHCI enabled several times before they do it.
    pub(crate) const AHCI_ENABLE: Duration = Duration::from_millis(50);
    /// An HBA reset is done within this (AHCI §10.4.3).
    pub(crate) const HBA_RESET: Duration = Duration::from_secs(1);
    /// CR clears within this after ST is cleared, and FR after FRE (AHCI §10.1.2).
    pub(crate) const ENGINE: Duration = Duration::from_millis(500);
    /// COMRESET is held for at least a millisecond (AHCI §10.4.2).
    pub(crate) const COMRESET: Duration = Duration::from_millis(2);
    /// A port where nothing shows up within this is empty. Devices answer a COMRESET within
    /// 10 ms (SATA §8.4.3), and the link takes a little longer to settle.
    pub(crate) const PRESENCE: Duration = Duration::from_millis(100);
    /// A disk that was lost shows up again within this after each reset of its port, if it does:
    /// its firmware may be starting anew.
    pub(crate) const RETURN: Duration = Duration::from_secs(4);
    /// A device that shows up establishes communication within this.
    pub(crate) const LINK: Duration = Duration::from_secs(2);
    /// A device that is busy for so long may be a port multiplier without a first device.
    pub(crate) const MULTIPLIER: Duration = Duration::from_secs(1);
    /// A multiplier ends a command for its registers within this.
    pub(crate) const REGISTER: Duration = Duration::from_millis(500);
    /// A device behind a multiplier may keep the others waiting for so long after a software reset,
    /// at first.
    pub(crate) const SOFT_RESET: Duration = Duration::from_secs(1);
    /// How often that time is made twice as long, for one that has not reported yet.
    pub(crate) const SOFT_RESETS_LONGER: u8 = 3;
    /// After that it is left alone for a while.
    pub(crate) const TRY_AGAIN: Duration = Duration::from_secs(1);
    /// Failures in a row of commands for a multiplier's registers, after which it is reset.
    pub(crate) const ERRANDS: u8 = 4;
    /// What is behind a multiplier has shown up so long after all links were reset; as `PRESENCE`.
    pub(crate) const SETTLE: Duration = Duration::from_millis(100);
    /// How often the links of device ports that look empty are reset again, as after a device that
    /// was lost: not every COMRESET is answered.
    pub(crate) const REARMS: u8 = PORT_RESETS - 1;
    /// How often a multiplier is asked what has changed, notification or not.
    pub(crate) const WATCH_BEHIND: Duration = Duration::from_secs(1);
    /// For so long the devices that share a port may finish before commands are taken from the HBA
    /// because of another one's trouble.
    pub(crate) const NEIGHBOURS: Duration = Duration::from_millis(500);
    /// Between two looks at a register that is to change soon.
    pub(crate) const LOOK: Duration = Duration::from_millis(1);
    /// Between two looks at a device that spins up.
    pub(crate) const LOOK_SLOWLY: Duration = Duration::from_millis(10);
    /// A port without commands in flight is looked at this often, interrupt or not, for devices
    /// that came or went.
    pub(crate) const WATCH: Duration = Duration::from_secs(1);
    /// How often a device may come, go or announce itself before it is made to pause.
    pub(crate) const STRIKES_FREE: u8 = 5;
    /// How often it may do so before it is given up.
    pub(crate) const STRIKES: u8 = 13;
    /// The first pause of such a device; each that follows is twice as long, the last of them some
    /// two minutes.
    pub(crate) const PAUSE: Duration = Duration::from_secs(1);
    /// For each such time without trouble, one is forgotten.
    pub(crate) const STRIKE_FORGOTTEN: Duration = Duration::from_secs(60);
    /// A place that was empty for so long makes them all forgotten: a person was there.
    pub(crate) const EMPTY_FORGETS: Duration = Duration::from_secs(10);
    /// Interface errors at one speed, each within `LINK_CALM` of the one before, after which the
    /// link is made slower. Fewer than a command has attempts.
    pub(crate) const LINK_ERRORS: u8 = 3;
    /// Time without interface errors that makes those before it count no more.
    pub(crate) const LINK_CALM: Duration = Duration::from_secs(300);
    /// An enclosure takes a message within this.
    pub(crate) const ENCLOSURE: Duration = Duration::from_secs(1);
    /// While commands are in flight the port is looked at this often, interrupt or not: interrupts
    /// get lost, deadlines pass, and some errors are silent.
    pub(crate) const CHECKUP: Duration = Duration::from_millis(100);
    /// Resets of a port in a row, after none of which the device could be identified, before the
    /// HBA is reset.
    pub(crate) const PORT_RESETS: u8 = 3;
    /// Resets of the HBA in a row on behalf of one port, without a command that ended well between
    /// them, before the port is given up.
    pub(crate) const HBA_RESETS: u8 = 2;
    /// Between two questions to a drive whose medium is becoming ready.
    pub(crate) const MEDIUM_LOOK: Duration = Duration::from_millis(250);
    /// Between two questions to an idle drive for events of its medium.
    pub(crate) const MEDIUM_WATCH: Duration = Duration::from_secs(2);
    /// Answers of a drive in a row that tell nothing of its medium, such as attentions, before it
    /// is taken to have none that is of use.
    pub(crate) const EVASIONS: u8 = 8;
    /// How often a drive may fall silent over the sectors that its medium is known by before it is
    /// no longer asked for them; less often than a port is reset.
    pub(crate) const SILENCES: u8 = 2;
    /// How often a command is issued again because of others before it is issued alone.
    pub(crate) const CROWDED: u8 = 16;
    /// How often a command is issued again because of others before it is taken for the culprit.
    pub(crate) const INNOCENT: u8 = 32;
}
