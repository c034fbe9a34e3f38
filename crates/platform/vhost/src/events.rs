//! Interrupts, and other news, as descriptors for an event loop.

use crate::error::Trouble;
use outboard_linux::{EventFd, InterruptSource};
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// A descriptor that stands for others, which come and go with connections: readable while one of
/// them is.
#[derive(Debug)]
pub(crate) struct Control(OwnedFd);

impl Control {
    fn new() -> io::Result<Self> {
        epoll::create(epoll::CreateFlags::CLOEXEC).map(Self)
    }

    /// Stands for `descriptor`, until it is closed.
    pub(crate) fn watch(&self, descriptor: BorrowedFd<'_>) -> Result<(), Trouble> {
        let data = epoll::EventData::new_u64(0);
        epoll::add(&self.0, descriptor, data, epoll::EventFlags::IN)
            .map_err(|error| Trouble::System("waiting for it", error))
    }

    /// Waits for so long; whether one is readable.
    pub(crate) fn wait(&self, time: Timespec) -> bool {
        poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&time)).is_ok_and(|ready| ready > 0)
    }
}

/// What a transport and its interrupt source share.
#[derive(Debug)]
pub(crate) struct Events {
    pub(crate) control: Control,
    /// Of each queue, once interrupts are on.
    pub(crate) calls: OnceLock<Vec<EventFd>>,
    /// The back end signals it when it finds an error in a queue.
    pub(crate) error: EventFd,
    /// There is news that no interrupt has told of: it came while something else was looked for.
    pub(crate) news: EventFd,
    /// What the control stands for was readable when interrupts were last taken.
    told: AtomicBool,
}

impl Events {
    pub(crate) fn new() -> io::Result<Self> {
        let (error, news) = (EventFd::new()?, EventFd::new()?);
        let told = AtomicBool::new(false);
        Ok(Self { control: Control::new()?, calls: OnceLock::new(), error, news, told })
    }

    pub(crate) fn calls(&self) -> &[EventFd] {
        self.calls.get().map_or(&[], Vec::as_slice)
    }

    /// Whether vector 0 has fired since this was last asked.
    pub(crate) fn take_told(&self) -> bool {
        self.told.load(Ordering::Acquire) && self.told.swap(false, Ordering::AcqRel)
    }
}

/// The interrupts of a [`VhostUser`](crate::VhostUser), for the event loop that runs its driver:
/// vector 0 for all that is no queue's, and one for each queue.
#[derive(Debug)]
pub struct VhostInterrupts(pub(crate) Arc<Events>);

impl InterruptSource for VhostInterrupts {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let calls = self.0.calls().iter().map(AsFd::as_fd);
        std::iter::once(self.0.control.0.as_fd()).chain(calls).collect()
    }

    fn take(&mut self, fired: &mut dyn FnMut(u16)) {
        // Whoever is told looks, and takes what there is.
        if self.0.control.wait(Timespec { tv_sec: 0, tv_nsec: 0 }) {
            self.0.told.store(true, Ordering::Release);
            fired(0);
        }
        for (vector, call) in (1..).zip(self.0.calls()) {
            if call.take() {
                fired(vector);
            }
        }
    }

    fn rearm(&mut self) {}
}
