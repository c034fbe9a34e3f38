//! A counter that can be waited on.

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{self, IoSliceMut, ReadWriteFlags, preadv2};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Where nothing is: an `eventfd` is read at no offset.
const HERE: u64 = u64::MAX;

/// An `eventfd`: readable while its count is not zero.
///
/// Whoever else has it can make it one that waits, since that is kept with the `eventfd` and not with
/// the descriptor; some do, without any ill will. Taking never waits all the same. Signalling then
/// waits only at the highest count, which nobody reaches who does not mean to.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// A new counter at zero.
    pub fn new() -> io::Result<Self> {
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map(Self)
    }

    /// Adds one to the count.
    pub fn signal(&self) {
        // It fails only at a count of 2^64 - 2, and then it is readable anyway.
        let _ = io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Takes the whole count; whether there was any. Never waits (`RWF_NOWAIT`, which `eventfd`s know
    /// since Linux 5.8).
    pub fn take(&self) -> bool {
        let mut count = [0; 8];
        let into = &mut [IoSliceMut::new(&mut count)];
        preadv2(&self.0, into, HERE, ReadWriteFlags::NOWAIT).is_ok()
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

    #[test]
    fn signals_are_counted_once_taken() {
        let event = EventFd::new().unwrap();
        assert!(!event.take());
        event.signal();
        event.signal();
        assert!(event.take());
        assert!(!event.take());
    }

    #[test]
    fn taking_does_not_wait_when_somebody_else_has_made_it_one_that_waits() {
        let event = EventFd::new().unwrap();
        let flags = fcntl_getfl(&event).unwrap();
        fcntl_setfl(&event, flags - OFlags::NONBLOCK).unwrap();
        assert!(!event.take());
        event.signal();
        assert!(event.take());
        assert!(!event.take());
    }
}
