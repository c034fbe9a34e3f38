//! What happened to a network card, for whoever looks into trouble.

use super::control::Order;
use crate::recovery::ResetCause;
use core::fmt;
use outboard_net::{FailedReason, Link};

/// Something out of the ordinary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// The device is reset, and why.
    Reset(ResetCause),
    /// It is ready again.
    Recovered,
    /// Its connection is another.
    Link(Link),
    /// It asks that its addresses be announced.
    Announce,
    /// It has refused a command.
    Refused(Order),
    /// It cannot be used any more.
    GivenUp(FailedReason),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset(cause) => cause.fmt(f),
            Self::Recovered => f.write_str("ready again"),
            Self::Link(link) => write!(f, "the link is {link}"),
            Self::Announce => f.write_str("the network asks for an announcement"),
            Self::Refused(order) => write!(f, "the device refuses {order}"),
            Self::GivenUp(reason) => write!(f, "given up: {reason}"),
        }
    }
}
