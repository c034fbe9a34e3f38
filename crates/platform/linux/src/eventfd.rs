//! A counter that can be waited on.

use rustix::event::{EventfdFlags, eventfd};
use rustix::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// An `eventfd`: readable while its count is not zero. Never blocks.
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

    /// Takes the whole count; whether there was any.
    pub fn take(&self) -> bool {
        let mut count = [0; 8];
        io::read(&self.0, &mut count).is_ok()
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

    #[test]
    fn signals_are_counted_once_taken() {
        let event = EventFd::new().unwrap();
        assert!(!event.take());
        event.signal();
        event.signal();
        assert!(event.take());
        assert!(!event.take());
    }
}
