//! Interrupts for an event loop.

use std::os::fd::BorrowedFd;

/// The vectors of one device, for whoever runs its driver in an event loop.
///
/// The loop waits until one of [`descriptors`](Self::descriptors) is readable, asks
/// [`take`](Self::take) which vectors fired, calls the driver's `interrupt` for each, polls the
/// driver, and then calls [`rearm`](Self::rearm).
pub trait InterruptSource: Send {
    /// What to wait on. To be asked after the driver has switched its interrupts on.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>>;

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
