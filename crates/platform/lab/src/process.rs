//! QEMU's process: it never outlives this one.
#![allow(unsafe_code)]

use crate::LabError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, getppid, pidfd_open, pidfd_send_signal,
    set_parent_process_death_signal,
};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;

/// How long QEMU gets to close its images once it was asked to end.
const GOODBYE_SECONDS: i64 = 10;
/// How much of what QEMU printed goes into an error.
const STDERR_BYTES: usize = 4096;

/// A running QEMU. Dropping it ends the process and waits for its end.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pidfd: OwnedFd,
    stderr: std::fs::File,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with the descriptors `inherited` open in it under the same numbers.
    ///
    /// It runs in a process group of its own: an interrupt from the keyboard goes to this process
    /// only, which then shuts QEMU down in order. If this process ends in whatever way, the kernel
    /// kills QEMU.
    pub(crate) fn start(mut command: Command, inherited: Vec<RawFd>) -> Result<Self, LabError> {
        let program = command.get_program().to_string_lossy().into_owned();
        // When the pipe is full, QEMU's messages are lost rather than QEMU blocked.
        let (stderr, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
            .map_err(LabError::system("making a pipe for QEMU's messages"))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(into).process_group(0);
        let parent = getpid();
        let prepare = move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            if getppid() != Some(parent) {
                return Err(Errno::SRCH.into());
            }
            for descriptor in &inherited {
                // SAFETY: the caller keeps these open until the process has started (S6).
                let descriptor = unsafe { BorrowedFd::borrow_raw(*descriptor) };
                fcntl_setfd(descriptor, FdFlags::empty())?;
            }
            Ok(())
        };
        // SAFETY: the closure only makes system calls; it neither allocates nor takes locks (S7).
        unsafe { command.pre_exec(prepare) };
        let child = spawn(command).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => LabError::NoQemu { program: program.clone() },
            _ => LabError::Spawn { program: program.clone(), error },
        })?;
        Self::own(child, stderr.into(), |pid| pidfd_open(pid, PidfdFlags::empty()))
    }

    /// Takes a child over. If that fails, the child ends: nobody would be left to end it.
    fn own(
        mut child: Child,
        stderr: std::fs::File,
        open: impl FnOnce(Pid) -> Result<OwnedFd, Errno>,
    ) -> Result<Self, LabError> {
        match open(Pid::from_child(&child)) {
            Ok(pidfd) => Ok(Self { child, pidfd, stderr, status: None }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(LabError::system("pidfd_open")(error))
            }
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Readable once the process has ended.
    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The error that says how the process ended; `None` while it runs.
    pub(crate) fn ended(&mut self) -> Option<LabError> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        let status = self.status?.to_string();
        Some(LabError::Ended { status, stderr: self.printed() })
    }

    /// Waits up to `seconds` for the end; whether it came.
    pub(crate) fn wait_for_end(&self, seconds: i64) -> bool {
        let timeout = Timespec { tv_sec: seconds, tv_nsec: 0 };
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        loop {
            match poll(&mut fds, Some(&timeout)) {
                Err(Errno::INTR) => {}
                result => return result.is_ok_and(|ready| ready > 0),
            }
        }
    }

    /// What QEMU printed to its standard error, up to a bound.
    fn printed(&mut self) -> Option<String> {
        let mut text = Vec::new();
        let mut chunk = [0; 512];
        while let Ok(count @ 1..) = self.stderr.read(&mut chunk) {
            text.extend_from_slice(&chunk[..count]);
            if text.len() >= STDERR_BYTES {
                break;
            }
        }
        let text = String::from_utf8_lossy(&text).trim().replace('\n', "; ");
        (!text.is_empty()).then_some(text)
    }

    /// Ends QEMU without asking: it does not answer anyway.
    pub(crate) fn kill(&self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Asks QEMU to close its images and end; kills it if it does not.
    fn end(&mut self) {
        if self.status.is_none() && self.child.try_wait().ok().flatten().is_none() {
            let _ = pidfd_send_signal(&self.pidfd, Signal::TERM);
            if !self.wait_for_end(GOODBYE_SECONDS) {
                log::warn!("QEMU did not end within {GOODBYE_SECONDS} s and is killed");
                self.kill();
            }
            let _ = self.child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

type Job = (Command, Sender<std::io::Result<Child>>);

/// Starts a process from a thread that lives as long as this process: the kernel sends the death
/// signal when the *thread* that started the child ends.
fn spawn(command: Command) -> std::io::Result<Child> {
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = channel::<Job>();
        thread::spawn(move || {
            for (mut command, reply) in jobs {
                let _ = reply.send(command.spawn());
            }
        });
        sender
    });
    let gone = || std::io::Error::other("the thread that starts processes is gone");
    let (reply, result) = channel();
    spawner.send((command, reply)).map_err(|_| gone())?;
    result.recv().map_err(|_| gone())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::test_kill_process;

    #[test]
    fn a_child_that_cannot_be_watched_is_ended() {
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let stderr = std::fs::File::open("/dev/null").unwrap();
        let error = Process::own(child, stderr, |_| Err(Errno::MFILE)).unwrap_err().to_string();
        assert!(error.contains("pidfd_open"), "{error}");
        assert_eq!(test_kill_process(pid), Err(Errno::SRCH));
    }
}
