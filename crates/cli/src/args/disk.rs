//! The command line of `outboard disk`.

use super::{ServerArgs, sectors};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

pub(super) const EXAMPLES: &str = "\
Examples:
  outboard disk info sdC0                        what the disk is, can do, and how it is set
  outboard disk smart sdC0                       what it knows of its own health
  outboard disk selftest sdC0 long --wait        let it test itself, and wait for the result
  outboard disk trim sdC0/part/1                 tell it that a partition's data is not needed
  outboard disk security erase sdC0 --password-file key

Whatever destroys data asks for the disk's serial number, or takes --force=SERIAL. Passwords come \
from --password-file (- is standard input) or from the terminal, never from the command line.

Exit codes are those of outboard, and:
  7  the disk expects to fail, or failed its self-test (smart, selftest --wait)";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct DiskArgs {
    #[command(subcommand)]
    pub(crate) verb: DiskVerb,

    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DiskVerb {
    /// Print what a disk is, what it can do, and how it is set
    Info(DiskArg),
    /// Print what a disk knows of its own health
    ///
    /// The disk is asked. An attribute that is at or below its threshold has failed: one of the
    /// kind "pre-failure" means that the disk is about to fail, one of the kind "age" that it is
    /// old. Ends with exit code 7 if the disk, or an attribute of the first kind, says that it is
    /// about to fail: copy its data away.
    Smart(SmartArgs),
    /// Let a disk test itself
    ///
    /// The disk goes on serving requests meanwhile. The test runs in the disk: it goes on when
    /// this program is ended with Ctrl-C, and `outboard disk smart` shows how far it is. Results
    /// are in `outboard disk smart`.
    Selftest(SelftestArgs),
    /// Tell a disk that data is no longer needed
    ///
    /// What was there is lost, and reads as anything. Solid-state disks get faster and last longer
    /// by it, and images of the lab get smaller.
    Trim(TrimArgs),
    /// Make all that was written survive a loss of power
    Flush(DiskArg),
    /// Stop a disk's platters until the next request, at once or after so long without requests
    Standby(StandbyArgs),
    /// Let a disk save power without stopping its platters
    Idle(DiskArg),
    /// Have a disk ready
    Wake(DiskArg),
    /// Put a disk to sleep; the next request resets and wakes it
    Sleep(DiskArg),
    /// Open the tray, or let go of the medium
    Eject(DiskArg),
    /// Close the tray
    Load(DiskArg),
    /// Keep the medium in, or let the drive's button eject it again
    LockMedium(SwitchArgs),
    /// Switch the volatile write cache
    ///
    /// Without it writes are slower, and survive a loss of power at once.
    Cache(SwitchArgs),
    /// Switch reading ahead
    Lookahead(SwitchArgs),
    /// Set the level of advanced power management
    Apm(ApmArgs),
    /// Set how the link saves power by itself
    LinkPower(LinkPowerArgs),
    /// Print, or set, how many sectors a disk pretends to have
    ///
    /// Setting it hides what lies behind (a host protected area), or shows it again, for good.
    Capacity(CapacityArgs),
    /// Light, or darken, the locate LED at the disk's place
    Locate(SwitchArgs),
    /// Light, or darken, the fault LED at the disk's place
    Fault(SwitchArgs),
    /// See to a disk's passwords, and erase it
    #[command(subcommand)]
    Security(SecurityVerb),
}

#[derive(Debug, Args)]
pub(crate) struct DiskArg {
    /// The disk, such as sdC0; `outboard ls` lists them
    #[arg(value_name = "DISK")]
    pub(crate) disk: String,
}

#[derive(Debug, Args)]
pub(crate) struct SmartArgs {
    #[command(flatten)]
    pub(crate) disk: DiskArg,

    /// Switch health reporting on or off, rather than print anything
    #[arg(long, value_name = "STATE")]
    pub(crate) enable: Option<OnOff>,
}

#[derive(Debug, Args)]
pub(crate) struct SelftestArgs {
    #[command(flatten)]
    pub(crate) disk: DiskArg,

    /// Which test
    pub(crate) test: Test,

    /// Wait for the result; exit code 7 if it is bad
    #[arg(long)]
    pub(crate) wait: bool,
}

/// A self-test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Test {
    /// Some minutes
    Short,
    /// The whole medium: hours
    Long,
    /// Damage from transport: some minutes
    Conveyance,
    /// None: end the one that runs
    Abort,
}

#[derive(Debug, Args)]
pub(crate) struct TrimArgs {
    /// The disk or partition, such as sdC0 or sdC0/part/1
    #[arg(value_name = "DISK")]
    pub(crate) target: String,

    /// First sector, counted from the start of the disk or partition
    #[arg(long, value_name = "SECTOR", default_value = "0", value_parser = sectors)]
    pub(crate) start: u64,

    /// How many sectors [default: to the end]
    #[arg(long, value_name = "SECTORS", value_parser = sectors)]
    pub(crate) count: Option<u64>,

    #[command(flatten)]
    pub(crate) force: ForceArg,
}

#[derive(Debug, Args)]
pub(crate) struct ForceArg {
    /// Do it without asking, if this is the disk's serial number
    #[arg(long, value_name = "SERIAL", require_equals = true)]
    pub(crate) force: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct StandbyArgs {
    #[command(flatten)]
    pub(crate) disk: DiskArg,

    /// Not now, but whenever there was no request for so many seconds; 0 for never
    #[arg(long, value_name = "SECONDS")]
    pub(crate) after: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct SwitchArgs {
    #[command(flatten)]
    pub(crate) disk: DiskArg,

    /// How it is to be
    pub(crate) state: OnOff,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnOff {
    /// On
    On,
    /// Off
    Off,
}

impl OnOff {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ApmArgs {
    #[command(flatten)]
    pub(crate) disk: DiskArg,

    /// From 1 (saves most) to 254 (fastest), or off; up to 127 the platters may be stopped
    #[arg(value_name = "LEVEL", value_parser = apm_level)]
    pub(crate) level: String,
}

fn apm_level(text: &str) -> Result<String, String> {
    let good = text == "off" || text.parse().is_ok_and(|level: u8| (1..=254).contains(&level));
    if good { Ok(text.to_owned()) } else { Err("a level is from 1 to 254, or off".into()) }
}

#[derive(Debug, Args)]
pub(crate) struct LinkPowerArgs {
    #[command(flatten)]
    pub(crate) disk: DiskArg,

    /// What it may do while nothing is transferred
    pub(crate) level: LinkLevel,
}

/// How a link saves power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LinkLevel {
    /// Nothing: the fastest
    Full,
    /// Be awake again within microseconds
    Partial,
    /// Be awake again within milliseconds
    Slumber,
    /// Be awake again within tens of milliseconds
    Devsleep,
}

#[derive(Debug, Args)]
pub(crate) struct CapacityArgs {
    #[command(flatten)]
    pub(crate) disk: DiskArg,

    /// How many sectors it is to have [default: print how many it has, and could have]
    #[arg(value_name = "SECTORS", value_parser = sectors)]
    pub(crate) sectors: Option<u64>,

    #[command(flatten)]
    pub(crate) force: ForceArg,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SecurityVerb {
    /// Print how a disk's passwords stand
    Status(DiskArg),
    /// Open a disk that is locked by a password, until its power is cut
    Unlock(PasswordArgs),
    /// Set a password: the user's locks the disk whenever its power was cut
    ///
    /// Without the password nobody gets at the data any more, so keep it.
    SetPassword(SetPasswordArgs),
    /// Remove the user's password from a disk that is unlocked
    DisablePassword(PasswordArgs),
    /// Erase the whole disk, and remove the user's password
    ///
    /// The disk must have a password: set one before. It takes minutes to hours, cannot be
    /// stopped, and goes on when this program is ended.
    Erase(EraseArgs),
    /// Refuse all changes of passwords and erasing until the disk's power is cut
    Freeze(DiskArg),
}

#[derive(Debug, Args)]
pub(crate) struct PasswordArgs {
    #[command(flatten)]
    pub(crate) disk: DiskArg,

    #[command(flatten)]
    pub(crate) password: PasswordArg,
}

#[derive(Debug, Args)]
pub(crate) struct PasswordArg {
    /// Where the password is: a file with nothing else in it but perhaps a line's end, or - for
    /// standard input [default: ask]
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,

    /// It is the master password, not the user's
    #[arg(long)]
    pub(crate) master: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SetPasswordArgs {
    #[command(flatten)]
    pub(crate) disk: DiskArg,

    #[command(flatten)]
    pub(crate) password: PasswordArg,

    /// Let the master password only erase the disk, not unlock it
    #[arg(long, conflicts_with = "master")]
    pub(crate) maximum: bool,

    #[command(flatten)]
    pub(crate) force: ForceArg,
}

#[derive(Debug, Args)]
pub(crate) struct EraseArgs {
    #[command(flatten)]
    pub(crate) disk: DiskArg,

    #[command(flatten)]
    pub(crate) password: PasswordArg,

    /// Erase what was reallocated, too, with a pattern of the maker's
    #[arg(long)]
    pub(crate) enhanced: bool,

    #[command(flatten)]
    pub(crate) force: ForceArg,
}
