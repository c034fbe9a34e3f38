//! The signals that ask a server to end.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// SIGINT, SIGTERM and SIGHUP, as descriptors.
#[derive(Debug)]
pub(crate) struct Signals {
    asked: UnixStream,
    /// `None` if SIGHUP is ignored, as after `nohup`.
    hung_up: Option<UnixStream>,
    /// Something has come.
    any: bool,
}

impl Signals {
    /// Takes the signals over for the rest of the process's life.
    pub(crate) fn take_over() -> io::Result<Self> {
        let (asked, theirs) = pair()?;
        pipe::register(SIGINT, theirs.try_clone()?)?;
        pipe::register(SIGTERM, theirs)?;
        let mut hung_up = None;
        if !is_ignored(SIGHUP)? {
            let (ours, theirs) = pair()?;
            pipe::register(SIGHUP, theirs)?;
            hung_up = Some(ours);
        }
        Ok(Self { asked, hung_up, any: false })
    }

    /// Readable when signals have come.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [Some(&self.asked), self.hung_up.as_ref()].into_iter().flatten().map(AsFd::as_fd)
    }

    /// How many signals have come since the last call. The end of a terminal only counts as the
    /// first: the kernel tells of it, and the shell does again.
    pub(crate) fn count(&mut self) -> usize {
        let mut bytes = [0; 16];
        let mut take = |mut from: &UnixStream| from.read(&mut bytes).unwrap_or_default();
        let hung_up = self.hung_up.as_ref().map_or(0, &mut take) > 0;
        let asked = take(&self.asked);
        let count = if hung_up && !self.any { asked.max(1) } else { asked };
        self.any |= count > 0;
        count
    }
}

fn pair() -> io::Result<(UnixStream, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((ours, theirs))
}

/// Whether this process was started with a signal ignored (proc_pid_status(5)).
fn is_ignored(signal: i32) -> io::Result<bool> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    Ok(mask >> (signal - 1) & 1 == 1)
}
