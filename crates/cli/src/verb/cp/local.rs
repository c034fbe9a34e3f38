//! Files of this machine, at either end of a copy.

use rustix::fs::SeekFrom as Seek;
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

/// Runs of zeros from this length on become holes.
const HOLE_BYTES: usize = 4096;

/// Writes `bytes` at `offset`, but leaves out what is zeros.
pub(super) fn write_sparsely(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
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
    pub(super) len: u64,
    at: u64,
    /// Up to where the data goes on that `at` is in; `at` itself in a hole.
    data_end: u64,
    /// Up to where the hole goes on that `at` is in.
    hole_end: u64,
}

impl Holey {
    pub(super) fn new(file: File) -> io::Result<Self> {
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
    use std::fs::OpenOptions;

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
