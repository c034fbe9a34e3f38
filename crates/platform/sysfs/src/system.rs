//! What is done to the machine, beside reading its files.

use rustix::fs::{Access, AtFlags, CWD, OFlags};
use rustix::io::Errno;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// What is done to the machine. Paths are where files are found.
pub trait System {
    /// Whether this process could write to a file that exists.
    fn may_write(&self, path: &Path) -> bool;

    /// Writes `text` to a file of the kernel's, in one piece.
    fn write(&mut self, path: &Path, text: &str) -> io::Result<()>;

    /// Loads a module of the kernel's.
    fn load_module(&mut self, name: &str) -> io::Result<()>;

    /// Puts a file with `text` in place, with the folder that it is in.
    fn put(&mut self, path: &Path, text: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&mut self, path: &Path) -> io::Result<()>;

    /// Whether somebody has a block device for himself, so that nobody else can.
    fn is_claimed(&self, node: &Path) -> io::Result<bool>;
}

/// The machine that this runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Linux;

impl System for Linux {
    fn may_write(&self, path: &Path) -> bool {
        rustix::fs::accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
    }

    fn write(&mut self, path: &Path, text: &str) -> io::Result<()> {
        OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
    }

    fn load_module(&mut self, name: &str) -> io::Result<()> {
        // Users' paths often lack the places where it is.
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("modprobe");
        command.arg(name).env("PATH", format!("{path}:/usr/sbin:/sbin")).stdin(Stdio::null());
        let output = command.output()?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!(
            "modprobe {name} failed ({}): {}",
            output.status,
            said.trim()
        )))
    }

    fn put(&mut self, path: &Path, text: &str) -> io::Result<()> {
        let name = path.file_name().ok_or(Errno::INVAL)?.to_string_lossy();
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // Whoever reads it at the wrong moment, or after a loss of power, finds all of it or none.
        let new = path.with_file_name(format!(".{name}.outboard"));
        let written = fs::File::create(&new).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        let moved = written.and_then(|()| fs::rename(&new, path));
        if moved.is_err() {
            let _ = fs::remove_file(&new);
        }
        moved
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    /// Asks the kernel: without O_CREAT, O_EXCL on a block device is a claim of our own (open(2)),
    /// which ends with this call. Reading only, so that nobody takes it for a change of the disk.
    fn is_claimed(&self, node: &Path) -> io::Result<bool> {
        let flags = OFlags::EXCL | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let flags = i32::try_from(flags.bits()).unwrap_or_default();
        match OpenOptions::new().read(true).custom_flags(flags).open(node) {
            Ok(_) => Ok(false),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::BUSY) => Ok(true),
            Err(error) => Err(error),
        }
    }
}
