//! Resets, and why there are any.

use crate::queue::Broken;
use crate::spec::status::Status;
use crate::transport::Transport;
use core::fmt;
use core::time::Duration;
use outboard_hw::Instant;

/// How often a device that is being reset is looked at.
pub(crate) const RESET_STEP: Duration = Duration::from_millis(1);
/// How often it is asked for a device that is away.
pub(crate) const AWAY_STEP: Duration = Duration::from_millis(10);
/// How often a device that has something to do is looked at, interrupt or not.
pub(crate) const CHECK_STEP: Duration = Duration::from_secs(1);
/// How often a device is reset before it is given up, if nothing ends well between.
pub(crate) const MOST_RESETS: u8 = 5;

/// A reset that was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reset {
    /// Until when it may take, once the time is known.
    until: Option<Instant>,
}

/// How far a reset is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The device is not done.
    UnderWay,
    /// It was reset.
    Done,
    /// It takes longer than it may.
    Stuck,
    /// It is not there any more.
    Gone,
}

impl Reset {
    /// Resets a device. The time for it begins with the first look.
    pub(crate) fn begin<T: Transport>(transport: &mut T) -> Self {
        transport.set_status(Status::empty());
        Self { until: None }
    }

    /// Looks how far it is; it may take so long.
    pub(crate) fn look<T: Transport>(
        &mut self,
        transport: &T,
        now: Instant,
        most: Duration,
    ) -> Progress {
        let status = transport.status();
        if status.is_gone() {
            return Progress::Gone;
        }
        if status.is_empty() {
            return Progress::Done;
        }
        match *self.until.get_or_insert(now + most) {
            until if now.reached(until) => Progress::Stuck,
            _ => Progress::UnderWay,
        }
    }
}

/// Why a device is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResetCause {
    /// It says that it needs it.
    Wish,
    /// A request is overdue.
    Overdue,
    /// It has broken the rules of a queue.
    Broken(Broken),
    /// It has broken the rules of its kind.
    Nonsense(&'static str),
}

impl fmt::Display for ResetCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wish => f.write_str("the device asks for a reset, and is reset"),
            Self::Overdue => f.write_str("a request timed out: the device is reset"),
            Self::Broken(why) => write!(f, "{why}: it is reset"),
            Self::Nonsense(why) => write!(f, "the device {why}: it is reset"),
        }
    }
}
