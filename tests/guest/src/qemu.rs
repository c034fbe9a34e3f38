//! QEMU's process, from start to end.

use crate::GuestError;
use crate::places::find_program;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How a run of QEMU ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself.
    Ended,
    /// The limit was reached, and it was killed.
    TimedOut,
}

/// Runs QEMU, for no longer than `limit`; what it prints goes to `messages`.
///
/// It ends with this thread, whatever ends this.
pub(crate) fn run(
    arguments: &[String],
    messages: &Path,
    limit: Duration,
) -> Result<End, GuestError> {
    let missing = |name: &str| GuestError::MissingProgram(name.to_owned());
    let qemu = std::env::var_os("OUTBOARD_QEMU").map(Into::into);
    let qemu = qemu.or_else(|| find_program("qemu-system-x86_64"));
    let qemu = qemu.ok_or_else(|| missing("qemu-system-x86_64"))?;
    let setpriv = find_program("setpriv").ok_or_else(|| missing("setpriv"))?;
    let file = File::create(messages).map_err(GuestError::file(messages))?;
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", "--"]).arg(qemu).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
    let failed = |error: &dyn std::fmt::Display| GuestError::Qemu(error.to_string());
    let mut child = command.spawn().map_err(|error| failed(&error))?;
    let end = wait(Pid::from_child(&child), limit);
    if end != Ok(End::Ended) {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| failed(&error))?;
    let end = end.map_err(|error| failed(&error))?;
    if end == End::Ended && !status.success() {
        let said = std::fs::read_to_string(messages).unwrap_or_default();
        return Err(GuestError::Qemu(format!("{status}: {}", said.trim())));
    }
    Ok(end)
}

/// Waits for the end of a child, for no longer than `limit`.
fn wait(child: Pid, limit: Duration) -> Result<End, Errno> {
    let pidfd = pidfd_open(child, PidfdFlags::empty())?;
    let began = Instant::now();
    loop {
        let left = limit.saturating_sub(began.elapsed());
        let timeout = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
            Ok(0) => return Ok(End::TimedOut),
            Ok(_) => return Ok(End::Ended),
        }
    }
}
