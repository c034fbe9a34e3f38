//! What happened to a disk, for whoever looks into trouble.

use crate::queue::Broken;
use core::fmt;
use outboard_block::{BlockError, FailedReason};

/// Something out of the ordinary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// One of its queues is reset, and why.
    QueueReset { queue: u16, cause: Cause },
    /// The device is reset, and why.
    Reset(Cause),
    /// It is ready again.
    Recovered,
    /// It is ready again, and at work on what it had.
    Resumed { requests: u64 },
    /// A request failed for good.
    Failed { lba: u64, sectors: u64, error: BlockError },
    /// The disk has another size now.
    Resized { sectors: u64 },
    /// It cannot be used any more.
    GivenUp(FailedReason),
}

/// Why a device is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// It says that it needs it.
    Wish,
    /// The way to it was lost.
    Lost,
    /// A request is overdue.
    Overdue,
    /// It was reset by somebody else: it has lost its state.
    Forgot,
    /// It could not be set up.
    SetUp,
    /// It says that a request is done, and has not said how.
    NoStatus,
    /// It has broken the rules of a queue.
    Broken(Broken),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset(Cause::Wish) => f.write_str("the device asks for a reset, and is reset"),
            Self::Reset(Cause::Lost) => f.write_str("the device is away: its requests are kept"),
            Self::Reset(Cause::Overdue) => f.write_str("a request timed out: the device is reset"),
            Self::Reset(Cause::Forgot) => f.write_str("the device has lost its state: it is reset"),
            Self::Reset(Cause::SetUp) => {
                f.write_str("the device could not be set up: it is reset, for another try")
            }
            Self::Reset(Cause::NoStatus) => {
                f.write_str("a request is said to be done and has no status: the device is reset")
            }
            Self::Reset(Cause::Broken(why)) => write!(f, "{why}: it is reset"),
            Self::QueueReset { queue, cause: Cause::Broken(why) } => {
                write!(f, "{why}: its queue {queue} is reset")
            }
            Self::QueueReset { queue, cause: Cause::NoStatus } => {
                write!(f, "a request is done without a status: its queue {queue} is reset")
            }
            Self::QueueReset { queue, .. } => {
                write!(f, "a request timed out: its queue {queue} is reset")
            }
            Self::Resumed { requests } => {
                write!(f, "it is back, and goes on with the {requests} requests that it had")
            }
            Self::Recovered => f.write_str("ready again"),
            Self::Failed { lba, sectors, error } => {
                write!(f, "{sectors} sectors from {lba} on: {error}")
            }
            Self::Resized { sectors } => write!(f, "it has {sectors} sectors now"),
            Self::GivenUp(reason) => write!(f, "given up: {reason}"),
        }
    }
}
