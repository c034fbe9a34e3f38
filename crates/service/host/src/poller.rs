//! Waiting for descriptors.

use outboard_hw::Instant;
use outboard_linux::now;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io;
use rustix::time::Timespec;
use std::time::Duration;

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Interest {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl Interest {
    pub(crate) const READ: Self = Self { read: true, write: false };

    fn flags(self) -> EventFlags {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN | EventFlags::RDHUP, self.read);
        flags.set(EventFlags::OUT, self.write);
        flags
    }
}

/// A set of descriptors, each with a number of the caller's.
pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Vec<Event>,
}

/// Descriptors that are reported at once; the others' turn comes next.
const EVENTS: usize = 64;

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS) })
    }

    pub(crate) fn add(&self, fd: impl AsFd, number: u64, interest: Interest) -> io::Result<()> {
        epoll::add(&self.epoll, fd, EventData::new_u64(number), interest.flags())
    }

    pub(crate) fn change(&self, fd: impl AsFd, number: u64, interest: Interest) -> io::Result<()> {
        epoll::modify(&self.epoll, fd, EventData::new_u64(number), interest.flags())
    }

    pub(crate) fn remove(&self, fd: impl AsFd) {
        // A descriptor that is not there need not be removed.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits until something is ready or `deadline` has come; the numbers of what is ready, each
    /// with whether the other end is gone.
    pub(crate) fn wait(
        &mut self,
        deadline: Option<Instant>,
    ) -> io::Result<impl Iterator<Item = (u64, bool)> + '_> {
        let timeout = deadline.map(|deadline| as_timespec(deadline.since(now())));
        self.events.clear();
        let spare = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, spare, timeout.as_ref()) {
            Ok(_) | Err(io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let gone = EventFlags::HUP | EventFlags::ERR;
        Ok(self.events.iter().map(move |event| {
            // The structure is packed, so its fields are copied out.
            let (flags, data) = (event.flags, event.data);
            (data.u64(), flags.intersects(gone))
        }))
    }
}

/// A timeout, rounded up to what `epoll` counts in on old kernels: waking up a moment too early
/// would only mean waiting again.
fn as_timespec(duration: Duration) -> Timespec {
    const MILLISECOND: u128 = 1_000_000;
    let millis = duration.as_nanos().div_ceil(MILLISECOND).min(i32::MAX as u128) as i64;
    Timespec { tv_sec: millis / 1000, tv_nsec: millis % 1000 * MILLISECOND as i64 }
}
