//! Files of this machine, at either end of a copy.

use anyhow::{Context, Result, bail};
use rustix::fs::SeekFrom as Seek;
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;

/// Runs of zeros from this length on become holes.
const HOLE_BYTES: usize = 4096;

/// What is copied from.
pub(super) enum Source {
    /// It has a length, and perhaps holes.
    Holey(Holey),
    /// It ends when it ends, if it does: a pipe, a device, a file that the kernel makes up.
    Stream(File),
}

impl Source {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let named = || path.display().to_string();
        let file = File::open(path).with_context(named)?;
        let found = file.metadata().with_context(named)?;
        if found.is_dir() {
            bail!("{} is a folder; cp copies a file at a time", path.display());
        }
        // Files of /proc have a length of 0, whatever is in them.
        let has_length = found.is_file() && found.len() > 0;
        if has_length || found.file_type().is_block_device() {
            return Ok(Self::Holey(Holey::new(file).with_context(named)?));
        }
        Ok(Self::Stream(file))
    }

    /// How much there is, if that is known beforehand.
    pub(super) const fn len(&self) -> Option<u64> {
        match self {
            Self::Holey(holey) => Some(holey.len),
            Self::Stream(_) => None,
        }
    }
}

impl Read for Source {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Holey(holey) => holey.read(room),
            Self::Stream(file) => file.read(room),
        }
    }
}

/// What is copied to.
pub(super) struct Target {
    file: File,
    /// It can have holes, and has a length; pipes and devices take bytes in order only.
    regular: bool,
    len: u64,
}

impl Target {
    /// Opens a file, which is made if there is none, and emptied if it keeps what is written.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        let regular = file.metadata()?.is_file();
        if regular {
            file.set_len(0)?;
        }
        Ok(Self { file, regular, len: 0 })
    }

    /// Appends `bytes`.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.regular {
            write_sparsely(&self.file, bytes, self.len)?;
        } else {
            self.file.write_all(bytes)?;
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// How much was written.
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// Sees to it that what was written would survive a loss of power.
    pub(super) fn finish(self) -> io::Result<()> {
        if self.regular {
            // A hole at the end is only there once the file is that long.
            self.file.set_len(self.len)?;
        }
        match rustix::fs::fsync(&self.file) {
            // Pipes and terminals keep nothing (fsync(2)).
            Err(Errno::INVAL | Errno::ROFS) if !self.regular => Ok(()),
            result => Ok(result?),
        }
    }
}

/// Writes `bytes` at `offset`, but leaves out what is zeros.
fn write_sparsely(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let is_zero = |block: &[u8]| block.iter().all(|byte| *byte == 0);
    let mut at = 0;
    for run in
        bytes.chunks(HOLE_BYTES).collect::<Vec<_>>().chunk_by(|a, b| is_zero(a) == is_zero(b))
    {
        let len: usize = run.iter().map(|block| block.len()).sum();
        if !run.first().is_some_and(|block| is_zero(block)) {
            file.write_all_at(&bytes[at..at + len], offset + at as u64)?;
        }
        at += len;
    }
    Ok(())
}

/// A file whose holes are known to be zeros without being read.
pub(super) struct Holey {
    file: File,
    len: u64,
    at: u64,
    /// Up to where the data goes on that `at` is in; `at` itself in a hole.
    data_end: u64,
    /// Up to where the hole goes on that `at` is in.
    hole_end: u64,
}

impl Holey {
    fn new(file: File) -> io::Result<Self> {
        // Block devices have no length but an end.
        let len = rustix::fs::seek(&file, Seek::End(0))?;
        rustix::fs::seek(&file, Seek::Start(0))?;
        Ok(Self { file, len, at: 0, data_end: 0, hole_end: 0 })
    }

    /// Finds out what `at`, which is before the end, is in: afterwards one of the two ends is
    /// behind it, whatever the file system says.
    fn look(&mut self) {
        let at = self.at;
        self.hole_end = match rustix::fs::seek(&self.file, Seek::Data(at)) {
            Ok(start) => start.clamp(at, self.len),
            // No data from here on.
            Err(Errno::NXIO) => self.len,
            // Where the file system does not know, all is data.
            Err(_) => at,
        };
        if self.hole_end > at {
            return;
        }
        self.data_end = match rustix::fs::seek(&self.file, Seek::Hole(at)) {
            Ok(end) if end > at => end.min(self.len),
            // It does not know, or the file is being changed: reading tells.
            _ => self.len,
        };
    }
}

impl Read for Holey {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < room.len() && self.at < self.len {
            if self.at >= self.hole_end && self.at >= self.data_end {
                self.look();
            }
            let hole = self.at < self.hole_end;
            let end = if hole { self.hole_end } else { self.data_end };
            let count =
                (room.len() - filled).min(usize::try_from(end - self.at).unwrap_or(usize::MAX));
            let part = &mut room[filled..filled + count];
            if hole {
                part.fill(0);
            } else {
                self.file.read_exact_at(part, self.at)?;
            }
            filled += count;
            self.at += count as u64;
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_read_as_zeros_and_written_as_holes() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("holey");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        file.set_len(10 << 20).unwrap();
        file.write_all_at(&[7; 5000], 3 << 20).unwrap();
        file.write_all_at(&[8; 100], (10 << 20) - 100).unwrap();
        let mut read = Vec::new();
        Holey::new(File::open(&path).unwrap()).unwrap().read_to_end(&mut read).unwrap();
        assert_eq!(read, std::fs::read(&path).unwrap());

        let copy = folder.path().join("copy");
        let file = File::create(&copy).unwrap();
        for (index, chunk) in read.chunks(1_000_000).enumerate() {
            write_sparsely(&file, chunk, index as u64 * 1_000_000).unwrap();
        }
        assert_eq!(std::fs::read(&copy).unwrap(), read);
        assert!(copy.metadata().unwrap().blocks() * 512 < 100_000);
    }

    #[test]
    fn an_empty_file_and_a_file_of_holes_are_read() {
        // File systems differ: one has no data in it, one calls all of it data.
        let memory = rustix::fs::memfd_create("holes", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        for file in [tempfile::tempfile().unwrap(), memory.into()] {
            for len in [0, 1, 1 << 20] {
                file.set_len(len).unwrap();
                let mut read = Vec::new();
                let mut source = Holey::new(file.try_clone().unwrap()).unwrap();
                source.read_to_end(&mut read).unwrap();
                assert_eq!(read, vec![0; len as usize]);
            }
        }
    }
}
