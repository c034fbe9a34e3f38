//! QEMU's process, from start to end.

use crate::GuestError;
use crate::places::find_program;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a guest may take until its script begins. It is some ten seconds of a processor, and
/// many more on a machine that has other things to do.
const BOOT_LIMIT: Duration = Duration::from_secs(300);

/// How a run of QEMU ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself.
    Ended,
    /// The script never began; QEMU was killed.
    NotBooted(Duration),
    /// The script took too long; QEMU was killed.
    TimedOut,
}

/// What became of QEMU, and how long it took until the script began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) end: End,
    pub(crate) boot_time: Option<Duration>,
}

/// Runs QEMU, and no longer than `limit` after the guest has written something to standard output,
/// which tells that the script begins; what QEMU has to say goes to `messages`.
///
/// It ends with this thread, whatever ends this.
pub(crate) fn run(
    arguments: &[String],
    messages: &Path,
    limit: Duration,
) -> Result<Run, GuestError> {
    let missing = |name: &str| GuestError::MissingProgram(name.to_owned());
    let qemu = std::env::var_os("OUTBOARD_QEMU").map(Into::into);
    let qemu = qemu.or_else(|| find_program("qemu-system-x86_64"));
    let qemu = qemu.ok_or_else(|| missing("qemu-system-x86_64"))?;
    let setpriv = find_program("setpriv").ok_or_else(|| missing("setpriv"))?;
    let file = File::create(messages).map_err(GuestError::file(messages))?;
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", "--"]).arg(qemu).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
    let failed = |error: &dyn std::fmt::Display| GuestError::Qemu(error.to_string());
    let mut child = command.spawn().map_err(|error| failed(&error))?;
    let run = watch(&child, limit);
    if run.as_ref().is_ok_and(|run| run.end != End::Ended) || run.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| failed(&error))?;
    let run = run.map_err(|error| failed(&error))?;
    if run.end == End::Ended && !status.success() {
        let said = std::fs::read_to_string(messages).unwrap_or_default();
        return Err(GuestError::Qemu(format!("{status}: {}", said.trim())));
    }
    Ok(run)
}

/// Waits for the script to begin, and for the end.
fn watch(child: &Child, limit: Duration) -> Result<Run, Errno> {
    let began = Instant::now();
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let begin = child.stdout.as_ref().map(AsFd::as_fd);
    let mut fds: Vec<_> = [Some(pidfd.as_fd()), begin]
        .into_iter()
        .flatten()
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    let ready = wait(&mut fds, BOOT_LIMIT)?;
    if !ready {
        return Ok(Run { end: End::NotBooted(BOOT_LIMIT), boot_time: None });
    }
    // QEMU's end closes the pipe, too.
    let boot_time = fds[0].revents().is_empty().then(|| began.elapsed());
    let ended = wait(&mut fds[..1], limit)?;
    Ok(Run { end: if ended { End::Ended } else { End::TimedOut }, boot_time })
}

/// Waits until one of these is ready, for no longer than `limit`; whether one is.
fn wait(fds: &mut [PollFd<'_>], limit: Duration) -> Result<bool, Errno> {
    let began = Instant::now();
    loop {
        let left = limit.saturating_sub(began.elapsed());
        let timeout = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        match poll(fds, Some(&timeout)) {
            Err(Errno::INTR) => {}
            result => return result.map(|ready| ready > 0),
        }
    }
}
