//! The signals that ask a server to end.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// SIGINT and SIGTERM, as a descriptor.
#[derive(Debug)]
pub(crate) struct Signals(UnixStream);

impl Signals {
    /// Takes the two signals over for the rest of the process's life.
    pub(crate) fn take_over() -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        pipe::register(SIGINT, theirs.try_clone()?)?;
        pipe::register(SIGTERM, theirs)?;
        Ok(Self(ours))
    }

    /// How many signals have come since the last call.
    pub(crate) fn count(&mut self) -> usize {
        let mut bytes = [0; 16];
        self.0.read(&mut bytes).unwrap_or_default()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
