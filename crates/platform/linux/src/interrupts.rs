//! Interrupts for an event loop.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// The vectors of one device, for whoever runs its driver in an event loop.
///
/// The loop waits until one of [`descriptors`](Self::descriptors) is readable ([`wait`](Self::wait)
/// is for a loop that has nothing else to wait for), asks
/// [`take`](Self::take) which vectors fired, calls the driver's `interrupt` for each, polls the
/// driver, and then calls [`rearm`](Self::rearm).
pub trait InterruptSource: Send {
    /// What to wait on. To be asked after the driver has switched its interrupts on.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>>;

    /// Waits until an interrupt can be [taken](Self::take), or a signal has come, `time` at most.
    fn wait(&self, time: Duration) -> io::Result<()> {
        let descriptors = self.descriptors();
        let mut fds: Vec<_> = descriptors.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        let time = Timespec::try_from(time).map_err(|_| Errno::INVAL)?;
        match poll(&mut fds, Some(&time)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Calls `fired` with each vector that fired since the last call. Never blocks.
    fn take(&mut self, fired: &mut dyn FnMut(u16));

    /// Lets a level-triggered pin fire again, at once if it is still asserted. Messages need no
    /// re-arming.
    fn rearm(&mut self);
}

/// Those of a device that has none.
impl InterruptSource for () {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    fn take(&mut self, _fired: &mut dyn FnMut(u16)) {}

    fn rearm(&mut self) {}
}
