//! What is at the end of a Serial ATA link, as an HBA's model sees it.
//!
//! A [`SataDevice`] is asked twice for each command: [`plan`](SataDevice::plan) when it takes the
//! command off the link, so that the HBA knows what to transfer and for how long the device is
//! busy; and [`carry_out`](SataDevice::carry_out) when that time has passed. What happens on the link or in
//! the HBA (lost frames, damaged transfers, wrong tags) is the HBA model's business; what happens
//! on the medium or in the firmware (bad sectors, a lost cache) is the device's.

use crate::Random;
use core::time::Duration;
use outboard_ahci::spec::fis::RegisterH2d;
use outboard_hw::Instant;

/// A command as a device takes it off the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command {
    /// The register FIS. Its low four bits of `flags` name a multiplier's port.
    pub fis: RegisterH2d,
    /// The packet of a PACKET command.
    pub packet: [u8; 16],
}

/// How a command's data moves (ACS §4, command protocols).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// No data.
    NonData,
    /// To the host: a PIO setup FIS for each block, then data.
    PioIn,
    /// From the host likewise.
    PioOut,
    /// To the host.
    DmaIn,
    /// From the host.
    DmaOut,
    /// To the host, queued (NCQ): ends with a set-device-bits FIS.
    QueuedIn,
    /// From the host, queued.
    QueuedOut,
}

impl Protocol {
    /// Whether it is a queued command.
    pub const fn is_queued(self) -> bool {
        matches!(self, Self::QueuedIn | Self::QueuedOut)
    }

    /// Whether its data comes from the host.
    pub const fn is_out(self) -> bool {
        matches!(self, Self::PioOut | Self::DmaOut | Self::QueuedOut)
    }
}

/// What a device is going to do about a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// How the data moves.
    pub protocol: Protocol,
    /// How many bytes move.
    pub bytes: usize,
    /// For how long the device is busy with it.
    pub takes: Duration,
}

/// How a command ended: what the device's last FIS says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// STATUS, without BSY and DRQ.
    pub status: u8,
    /// ERROR.
    pub error: u8,
    /// LBA: where it failed, or what the command returns there.
    pub lba: u64,
    /// COUNT.
    pub count: u16,
    /// DEVICE.
    pub device: u8,
    /// How many bytes it transferred; fewer than planned after an error.
    pub bytes: usize,
}

impl End {
    /// DRDY, and DSC, which old hosts like to see.
    pub const GOOD_STATUS: u8 = 0x50;
    /// The same with ERR.
    pub const BAD_STATUS: u8 = 0x51;

    /// It ended well, with all its `bytes`.
    pub const fn good(bytes: usize) -> Self {
        Self { status: Self::GOOD_STATUS, error: 0, lba: 0, count: 0, device: 0x40, bytes }
    }

    /// It failed, with bits of ERROR, at a sector.
    pub const fn bad(error: u8, lba: u64) -> Self {
        Self { status: Self::BAD_STATUS, error, lba, count: 0, device: 0x40, bytes: 0 }
    }

    /// Whether it failed.
    pub const fn is_bad(&self) -> bool {
        self.status & 0x21 != 0
    }
}

/// What kind of reset reaches a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// COMRESET: settings may survive (software settings preservation).
    Hard,
    /// SRST, in the device control register.
    Soft,
    /// Power came back.
    PowerOn,
}

/// What a device reports after a reset, in its first register FIS (SATA §9.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// LBA 23:0 and COUNT, as PxSIG shows them.
    pub signature: u32,
    /// How long it takes until it reports: platters may have to spin up.
    pub takes: Duration,
}

/// A device at the end of a link.
pub trait SataDevice: Send {
    /// Takes a command. `Err` ends it at once, as an aborted one does.
    ///
    /// Queued commands are taken while others are under way; all others one at a time. A device
    /// that has failed a queued command aborts everything until its log 10h was read (SATA §13.6.4),
    /// except that read; the HBA's model sees to it that nothing is carried out meanwhile.
    fn plan(&mut self, command: &Command, now: Instant, random: &mut Random) -> Result<Plan, End>;

    /// Carries a command out. `data` has as many bytes as were planned: what came from the host, or
    /// what is to be filled in.
    fn carry_out(
        &mut self,
        command: &Command,
        data: &mut [u8],
        now: Instant,
        random: &mut Random,
    ) -> End;

    /// Notes that a queued command failed, for log 10h: its tag and how it ended.
    fn note_queued_failure(&mut self, _tag: u8, _command: &Command, _end: &End) {}

    /// A reset reached it. Commands under way are forgotten.
    fn reset(&mut self, reset: Reset, now: Instant) -> Report;

    /// Power is cut: caches lose what `random` decides.
    fn cut_power(&mut self, now: Instant, random: &mut Random);

    /// Whether the device has something to tell by asynchronous notification (SATA §13.8), such
    /// as a new medium. Asked now and then; true once for each.
    fn notifies(&mut self, _now: Instant) -> bool {
        false
    }

    /// The multiplier that it is, if it is one.
    fn multiplier(&mut self) -> Option<&mut crate::Multiplier> {
        None
    }

    /// The model by its own type, for what tests do to it.
    fn as_any(&mut self) -> &mut dyn core::any::Any;
}
