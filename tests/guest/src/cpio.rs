//! Archives as the kernel unpacks them: `cpio` in the format `newc`
//! (Documentation/driver-api/early-userspace/buffer-format.rst of Linux).

use std::collections::BTreeSet;
use std::io::{self, Write};

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;
/// The name that ends an archive.
const TRAILER: &str = "TRAILER!!!";
/// Everything is aligned to this many bytes.
const ALIGN: usize = 4;

/// An archive that is being written.
#[derive(Debug)]
pub(crate) struct Archive<W> {
    output: W,
    folders: BTreeSet<String>,
    entries: u32,
}

impl<W: Write> Archive<W> {
    pub(crate) fn new(output: W) -> Self {
        Self { output, folders: BTreeSet::new(), entries: 0 }
    }

    /// An executable file at `path`, which has no leading slash; folders above it are made.
    pub(crate) fn file(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.folders_above(path)?;
        self.entry(path, PROGRAM, (0, 0), bytes)
    }

    /// A symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.folders_above(path)?;
        self.entry(path, LINK, (0, 0), target.as_bytes())
    }

    /// A character device.
    pub(crate) fn device(&mut self, path: &str, major: u32, minor: u32) -> io::Result<()> {
        self.folders_above(path)?;
        self.entry(path, CHARACTER_DEVICE, (major, minor), &[])
    }

    /// A folder, and those above it.
    pub(crate) fn folder(&mut self, path: &str) -> io::Result<()> {
        if path.is_empty() || !self.folders.insert(path.to_owned()) {
            return Ok(());
        }
        self.folders_above(path)?;
        self.entry(path, FOLDER, (0, 0), &[])
    }

    /// Ends the archive; another one may follow in the same file.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.entry(TRAILER, 0, (0, 0), &[])?;
        Ok(self.output)
    }

    fn folders_above(&mut self, path: &str) -> io::Result<()> {
        path.rsplit_once('/').map_or(Ok(()), |(above, _)| self.folder(above))
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), bytes: &[u8]) -> io::Result<()> {
        self.entries += 1;
        let too_large = |_| io::Error::other(format!("{name} is too large for an initramfs"));
        let length = u32::try_from(bytes.len()).map_err(too_large)?;
        let links = if mode == FOLDER { 2 } else { 1 };
        let name_length = name.len() as u32 + 1;
        // Inode, mode, user, group, links, time, length, device, device that it stands for, length
        // of the name, check.
        let (inode, (major, minor)) = (self.entries, device);
        let header = [inode, mode, 0, 0, links, 0, length, 0, 0, major, minor, name_length, 0];
        let mut head = String::from("070701");
        header.iter().for_each(|field| head.push_str(&format!("{field:08x}")));
        head.push_str(name);
        head.push('\0');
        self.padded(head.as_bytes())?;
        self.padded(bytes)
    }

    fn padded(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.output.write_all(bytes)?;
        let padding = bytes.len().next_multiple_of(ALIGN) - bytes.len();
        self.output.write_all(&[0; ALIGN][..padding])
    }
}
