//! What happened to a port, for whoever looks into trouble.

use crate::port::Setting;
use crate::spec::atapi::Sense;
use crate::spec::registers::PortInterrupts;
use core::fmt;
use core::time::Duration;
use outboard_block::manage::LinkPower;
use outboard_block::{BlockError, FailedReason, Management};

/// Something out of the ordinary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The link came up at this generation.
    LinkUp(u8),
    /// Recovery began.
    Trouble(Cause),
    /// A command failed for good.
    Failed { lba: u64, sectors: u64, error: BlockError },
    /// Something beside the data was done.
    Managed(Management),
    /// Something beside the data could not be done.
    NotManaged { what: Management, error: BlockError },
    /// A setting that the disk had lost was applied again.
    Restored(Setting),
    /// A setting that the disk had lost could not be applied again.
    NotRestored(Setting),
    /// The disk is woken from sleep.
    Waking,
    /// The device named the queued command that failed.
    Blamed { slot: u8, lba: u64 },
    /// The port was reset, for the nth time in a row.
    PortReset(u8),
    /// The HBA was reset.
    HbaReset,
    /// The port is ready after trouble.
    Recovered,
    /// The unit cannot be used any more.
    GivenUp(FailedReason),
    /// A device appeared.
    Plugged,
    /// The device is gone.
    Unplugged,
    /// Another device than before answered.
    Replaced,
    /// A device that comes and goes is left alone for so long.
    Paused(Duration),
    /// The link is limited to this generation, after errors.
    SlowerLink(u8),
    /// How the link saves power was changed.
    LinkPower(LinkPower),
    /// The device was in standby, and is told to spin up.
    SpinUp,
    /// The device did not let itself be told to sleep.
    NoDeviceSleep,
    /// Why a drive with packets has refused one.
    Sense(Sense),
    /// A drive has a medium of so many sectors.
    Medium { sectors: u64 },
    /// A drive's medium was taken out.
    NoMedium,
    /// A drive gives a size for its medium that makes no sense.
    UnusableMedium { last_lba: u32, sector_bytes: u32 },
    /// The HBA kept command slots across a stop, which it must not; they were made harmless.
    KeptSlots(u32),
}

/// Why recovery began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The device reported an error for a command that ran alone.
    TaskFile { status: u8, error: u8 },
    /// The device reported an error for one of the queued commands.
    Queued { status: u8, error: u8 },
    /// The HBA stopped.
    Fatal(PortInterrupts),
    /// Trouble of another device behind the same multiplier.
    Neighbour,
    /// The link is down.
    LinkDown,
    /// A device announced itself (COMINIT): it was reset, or it is another one.
    Announced,
    /// The presence switch is open, or the cold presence detection finds nothing.
    Unplugged,
    /// The link has to be made slower.
    LinkErrors,
    /// Commands in these slots took too long.
    Timeout(u32),
    /// The HBA reports commands in slots that were not issued.
    Stray(u32),
    /// A command that ended well has transferred fewer bytes than it should.
    Short { slot: u8, bytes: u32 },
    /// The HBA shows the mark that QEMU's leaves when a queued command fails (see `Quirks`).
    SilentFailure(u32),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LinkUp(speed) => write!(f, "link up, generation {speed}"),
            Self::Trouble(cause) => write!(f, "{cause}"),
            Self::Failed { lba, sectors, error } => {
                write!(f, "sectors {lba}+{sectors} failed: {error}")
            }
            Self::Managed(what) => write!(f, "done: {what:?}"),
            Self::NotManaged { what, error } => write!(f, "{what:?} failed: {error}"),
            Self::Restored(setting) => write!(f, "{setting} set again"),
            Self::NotRestored(setting) => {
                write!(f, "{setting} was lost in a reset, and cannot be set again")
            }
            Self::Waking => f.write_str("waking from sleep"),
            Self::Blamed { slot, lba } => {
                write!(f, "the command in slot {slot} failed at sector {lba}")
            }
            Self::PortReset(count) => write!(f, "port reset {count}"),
            Self::HbaReset => f.write_str("HBA reset"),
            Self::Recovered => f.write_str("ready again"),
            Self::GivenUp(reason) => write!(f, "given up: {reason}"),
            Self::Plugged => f.write_str("a device appeared"),
            Self::Unplugged => f.write_str("the device is gone"),
            Self::Replaced => f.write_str("another device took its place"),
            Self::Paused(time) => {
                write!(f, "it comes and goes: left alone for {} s", time.as_secs())
            }
            Self::SlowerLink(speed) => {
                write!(f, "the link fails: limited to generation {speed}; check the cable")
            }
            Self::LinkPower(power) => write!(f, "link power {power:?}"),
            Self::SpinUp => f.write_str("told to spin up"),
            Self::NoDeviceSleep => f.write_str("the device refuses device sleep"),
            Self::Sense(sense) => write!(f, "the drive refused: {sense}"),
            Self::Medium { sectors } => write!(f, "a medium of {sectors} sectors"),
            Self::NoMedium => f.write_str("the medium was taken out"),
            Self::UnusableMedium { last_lba, sector_bytes } => {
                write!(f, "the medium is of no use: last sector {last_lba} of {sector_bytes} bytes")
            }
            Self::KeptSlots(slots) => write!(f, "the HBA kept slots {slots:#010x} across a stop"),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TaskFile { status, error } => {
                write!(f, "command failed, status {status:#04x} error {error:#04x}")
            }
            Self::Queued { status, error } => {
                write!(f, "a queued command failed, status {status:#04x} error {error:#04x}")
            }
            Self::Fatal(interrupts) => write!(f, "the HBA stopped: PxIS {interrupts:?}"),
            Self::Neighbour => f.write_str("a neighbour's trouble has cost commands"),
            Self::LinkDown => f.write_str("the link is down"),
            Self::Announced => f.write_str("a device announced itself"),
            Self::Unplugged => f.write_str("the device was taken out"),
            Self::LinkErrors => f.write_str("the link fails again and again"),
            Self::Timeout(slots) => write!(f, "slots {slots:#010x} timed out"),
            Self::Stray(slots) => write!(f, "slots {slots:#010x} are active but were not issued"),
            Self::Short { slot, bytes } => {
                write!(f, "slot {slot} ended after {bytes} bytes, too few")
            }
            Self::SilentFailure(mark) => write!(f, "a queued command failed silently ({mark:#x})"),
        }
    }
}
