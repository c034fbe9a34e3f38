//! The far end of a link: what is plugged in, and in which state link and device are.

use crate::sata::SataDevice;
use core::time::Duration;
use outboard_ahci::spec::ata::Status;
use outboard_ahci::spec::registers::{SataControl, SataStatus, serial_error};
use outboard_hw::Instant;

/// The seat at the HBA's own link: of a device that is attached directly, or of a multiplier. It is
/// the number of a multiplier's control port; those of its device ports are lower.
pub(crate) const HOST: u8 = outboard_ahci::spec::multiplier::CONTROL_PORT;

/// What is on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// Nothing.
    Down,
    /// A device that does not talk.
    Presence,
    /// Communication, at this generation.
    Up(u8),
}

/// The far end of a link, behind a port of an HBA or of a multiplier.
pub(crate) struct Seat {
    pub(crate) device: Option<Box<dyn SataDevice>>,
    /// Pulled out, to be plugged in again.
    pub(crate) pulled: Option<Box<dyn SataDevice>>,
    /// To be plugged in instead.
    pub(crate) spare: Option<Box<dyn SataDevice>>,
    pub(crate) link: Link,
    /// Counts resets and losses of the link.
    pub(crate) link_epoch: u32,
    /// SControl.
    pub(crate) control: u32,
    /// SError.
    pub(crate) errors: u32,
    pub(crate) reset_began: Option<Instant>,
    /// COMRESETs received.
    pub(crate) resets: u32,
    /// STATUS and ERROR as the HBA has last seen them.
    pub(crate) task_file: u32,
    /// The signature that the device has still to report after a reset.
    pub(crate) report: Option<u32>,
    /// It is ready to report.
    pub(crate) ready: bool,
    /// How long it takes to start, and until when.
    pub(crate) starting: (Duration, Instant),
    /// The device was without power.
    pub(crate) unpowered: bool,
    /// Until then it answers to nothing.
    pub(crate) away_until: Instant,
    /// The device works on nothing any more.
    pub(crate) stuck: bool,
    /// BSY or DRQ stay set.
    pub(crate) stuck_bits: u32,
    /// Tags that were outstanding when a queued command failed last.
    pub(crate) active_at_failure: u32,
    /// A queued command has failed, and log 10h was not read.
    pub(crate) queue_failed: bool,
    /// With FIS-based switching: the HBA does nothing more for it until the error is cleared.
    pub(crate) halted: bool,
}

impl Seat {
    pub(crate) const fn new() -> Self {
        Self {
            device: None,
            pulled: None,
            spare: None,
            link: Link::Down,
            link_epoch: 0,
            control: 0,
            errors: 0,
            reset_began: None,
            resets: 0,
            task_file: 0x7f,
            report: None,
            ready: false,
            starting: (Duration::ZERO, Instant::ORIGIN),
            unpowered: false,
            away_until: Instant::ORIGIN,
            stuck: false,
            stuck_bits: 0,
            active_at_failure: 0,
            queue_failed: false,
            halted: false,
        }
    }

    /// What a reset of whatever the link is plugged into leaves.
    pub(crate) fn was_reset(&mut self) {
        *self = Self {
            device: self.device.take(),
            pulled: self.pulled.take(),
            spare: self.spare.take(),
            starting: self.starting,
            unpowered: self.unpowered,
            away_until: self.away_until,
            resets: self.resets,
            link_epoch: self.link_epoch + 1,
            ..Self::new()
        };
    }

    /// The device has forgotten all commands.
    pub(crate) const fn forget_commands(&mut self) {
        (self.stuck, self.stuck_bits) = (false, 0);
        (self.queue_failed, self.halted) = (false, false);
    }

    pub(crate) const fn task_status(&self) -> u32 {
        self.task_file & 0xff | self.stuck_bits
    }

    pub(crate) fn is_busy(&self) -> bool {
        Status::from_bits_retain(self.task_status() as u8).is_busy()
    }

    pub(crate) const fn is_up(&self) -> bool {
        matches!(self.link, Link::Up(_))
    }

    /// Whether the link is switched off, or being reset.
    pub(crate) fn is_offline(&self) -> bool {
        SataControl::from(self.control).detection() != 0
    }

    /// SStatus.
    pub(crate) fn sata_status(&self) -> u32 {
        match self.link {
            Link::Down => 0,
            Link::Presence => 1,
            Link::Up(speed) => SataStatus::new()
                .with_detection(SataStatus::COMMUNICATION)
                .with_speed(speed)
                .with_power(1)
                .into(),
        }
    }

    /// Whether frames of the device are held back (AHCI §3.3.12).
    pub(crate) const fn is_exchanged(&self) -> bool {
        self.errors & serial_error::EXCHANGED != 0
    }
}
