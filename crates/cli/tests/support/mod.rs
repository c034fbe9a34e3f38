//! Runs the program as a user would.
#![allow(unreachable_pub, dead_code, reason = "shared by several tests")]

use outboard_ninep::Address;
use outboard_ninep::client::{Client, ClientError, Mode};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_outboard");

/// A command that finds the tools that are for administrators, too.
pub fn tool(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin")).stdin(Stdio::null());
    command
}

/// Runs a command that must succeed; what it printed.
pub fn good(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that must fail with `code`; what it said of that.
fn bad(command: &mut Command, code: i32) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{command:?}: {errors}");
    errors
}

/// Runs the program, which must fail with `code`; its error.
pub fn fails(arguments: &[&str], code: i32) -> String {
    bad(Command::new(PROGRAM).args(arguments).stdin(Stdio::null()), code)
}

/// Runs a command with text on its standard input.
pub fn fed(command: &mut Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    // A command that has failed does not read.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().unwrap()
}

/// A server that exports a disk or a network card, and is killed when it is dropped.
pub struct Exporter {
    pub child: Child,
    /// Where virtual machines connect.
    pub socket: PathBuf,
}

impl Exporter {
    pub fn start(arguments: &[&str], folder: &Path) -> Self {
        let mut command = Command::new(PROGRAM);
        command.arg("serve").args(arguments).arg("--vhost-user").arg(folder);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let socket = line.trim().strip_prefix("ready vhost-user:").expect("it is ready").into();
        Self { child, socket }
    }

    /// Ends it in order; its exit code.
    pub fn end(&mut self) -> Option<i32> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running server.
pub struct Server {
    pub child: Child,
    pub addresses: Vec<Address>,
    pub folder: TempDir,
}

impl Server {
    /// Serves these disks at a Unix socket in a folder of its own.
    pub fn start(disks: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = format!("unix:{}", folder.path().join("9p").display());
        Self::start_at(disks, &[&socket], folder)
    }

    pub fn start_at(disks: &[&str], addresses: &[&str], folder: TempDir) -> Self {
        let mut command = Command::new(PROGRAM);
        command.arg("serve");
        command.args(disks.iter().flat_map(|disk| ["--lab", disk]));
        Self::launch(command, addresses, folder)
    }

    /// Runs `command`, which is to serve, at these addresses.
    pub fn launch(mut command: Command, addresses: &[&str], folder: TempDir) -> Self {
        command.args(addresses.iter().flat_map(|address| ["--9p", address]));
        let errors = std::fs::File::create(folder.path().join("stderr")).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(errors).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut ready = Vec::new();
        for _ in addresses {
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            let address = line.trim().strip_prefix("ready ").map(str::parse);
            let errors = || std::fs::read_to_string(folder.path().join("stderr"));
            ready.push(address.unwrap_or_else(|| panic!("{line}: {:?}", errors())).unwrap());
        }
        Self { child, addresses: ready, folder }
    }

    pub fn errors(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("stderr")).unwrap()
    }

    pub fn address(&self) -> String {
        self.addresses[0].to_string()
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.addresses[0]).unwrap()
    }

    /// A verb against this server.
    pub fn verb(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).args(["--at", &self.address()]).stdin(Stdio::null());
        command
    }

    /// Runs a verb that must succeed; what it printed.
    pub fn run(&self, arguments: &[&str]) -> String {
        good(&mut self.verb(arguments))
    }

    /// Runs a verb that must fail with `code`; its error.
    pub fn fails(&self, arguments: &[&str], code: i32) -> String {
        bad(&mut self.verb(arguments), code)
    }

    pub fn read(&self, path: &str, offset: u64, count: u64) -> Result<Vec<u8>, ClientError> {
        let client = &mut self.client();
        let fid = client.walk(path)?;
        client.open(&fid, Mode::Read)?;
        let mut bytes = Vec::new();
        client.read_range(&fid, offset, count, |part| {
            bytes.extend_from_slice(part);
            Ok::<_, ClientError>(())
        })?;
        client.clunk(fid)?;
        Ok(bytes)
    }

    pub fn write(&self, path: &str, offset: u64, bytes: &[u8]) -> Result<(), ClientError> {
        let client = &mut self.client();
        let fid = client.walk(path)?;
        client.open(&fid, Mode::Write)?;
        let mut rest = bytes;
        let source = |room: &mut [u8]| Ok::<_, ClientError>(rest.read(room)?);
        client.write_range(&fid, offset, source, |_| ())?;
        client.sync(&fid)?;
        client.clunk(fid)
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Process ID of the server's QEMU.
    pub fn qemu(&self) -> Pid {
        let tasks = format!("/proc/{}/task", self.child.id());
        let children = std::fs::read_dir(tasks).unwrap().filter_map(|task| {
            let list = std::fs::read_to_string(task.ok()?.path().join("children")).ok()?;
            list.split_whitespace().next()?.parse().ok()
        });
        Pid::from_raw(children.into_iter().next().expect("a child of the server")).unwrap()
    }

    /// Ends the server as `kill` does; its exit code, which must come soon.
    pub fn end(&mut self, signal: Signal) -> Option<i32> {
        self.end_within(20, signal)
    }

    /// Ends a server whose disks may keep it from that for some seconds.
    pub fn end_within(&mut self, seconds: u64, signal: Signal) -> Option<i32> {
        let _ = kill_process(self.pid(), signal);
        let began = std::time::Instant::now();
        let status = self.child.wait().unwrap();
        assert!(began.elapsed().as_secs() < seconds, "it took {:?}", began.elapsed());
        status.code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a process is running; one that only waits to be collected is not.
pub fn is_running(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    let zombie = stat.is_ok_and(|stat| stat.rsplit(')').next().unwrap().trim().starts_with('Z'));
    test_kill_process(pid).is_ok() && !zombie
}

/// Waits until a process has ended.
pub fn wait_for_end(pid: Pid) {
    assert!(ends_within(pid, 20), "process {pid:?} goes on");
}

/// Whether a process ends within so many seconds, for which it is waited.
pub fn ends_within(pid: Pid, seconds: i64) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
        return true;
    };
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    let timeout = Timespec { tv_sec: seconds, tv_nsec: 0 };
    poll(&mut fds, Some(&timeout)).unwrap() == 1
}

/// A file of `bytes` bytes that hold nothing special.
pub fn image(folder: &Path, name: &str, bytes: u64) -> String {
    let path = folder.join(name);
    std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Bytes that look like nothing, but always the same for a seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

/// The Python that has the other people's 9P client; `./test` makes it.
pub fn python() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let python = target.join("python/bin/python");
    assert!(python.exists(), "{} is missing; ./test makes it", python.display());
    python
}
