//! A disk's content in a file or a block device.

use super::medium::{Medium, MediumError};
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, fcntl_lock};
use rustix::io::Errno;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It does not exist.
    #[error(
        "{} does not exist. To make an empty disk of 1 GiB: truncate -s 1G {}", .0.display(),
        .0.display()
    )]
    Missing(PathBuf),
    /// It cannot be opened.
    #[error("{} cannot be opened for {access}: {error}. Check its permissions", .path.display())]
    Access {
        /// The image.
        path: PathBuf,
        /// "reading" or "reading and writing".
        access: &'static str,
        /// What the system says.
        error: io::Error,
    },
    /// It is a directory, a socket, or the like.
    #[error("{} is neither a file nor a block device", .0.display())]
    Kind(PathBuf),
    /// It is empty.
    #[error(
        "{} is empty, and a disk has at least one sector. To make it 1 GiB: truncate -s 1G {}",
        .0.display(), .0.display()
    )]
    Empty(PathBuf),
    /// It ends within a sector.
    #[error(
        "{} has {bytes} bytes, which is not a whole number of {sector}-byte sectors. To pad it with \
         zeros: truncate -s {} {}",
        .path.display(), .bytes.next_multiple_of(*.sector), .path.display()
    )]
    Size {
        /// The image.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// Bytes of a sector.
        sector: u64,
    },
    /// Another process has it.
    #[error(
        "{} is in use by another process. Stop that one first: two writers would destroy what is \
         on it", .0.display()
    )]
    Busy(PathBuf),
}

/// How an image is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageAccess {
    /// It is read and written.
    ReadWrite,
    /// It is read; writes fail as on a disk that is faulty, once they get to it.
    ReadOnly,
}

/// Zeros that are written at once where space cannot be given back.
static ZEROS: [u8; 65536] = [0; 65536];

/// A medium whose content is an image: a file or a block device. What the system cannot read or
/// write becomes an error of the medium.
#[derive(Debug)]
pub struct ImageMedium {
    file: File,
    sector_bytes: u64,
    sectors: u64,
    /// Whether space can be given back, as far as is known.
    punches: bool,
}

impl ImageMedium {
    /// Opens an image of sectors of so many bytes, and keeps other processes that look for it from
    /// using it.
    pub fn open(path: &Path, sector_bytes: u32, access: ImageAccess) -> Result<Self, ImageError> {
        let writable = access == ImageAccess::ReadWrite;
        let word = if writable { "reading and writing" } else { "reading" };
        let failed = |error: io::Error| match error.kind() {
            ErrorKind::NotFound => ImageError::Missing(path.into()),
            _ => ImageError::Access { path: path.into(), access: word, error },
        };
        let kind = path.metadata().map_err(failed)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(ImageError::Kind(path.into()));
        }
        let opened = OpenOptions::new().read(true).write(writable).open(path);
        let mut file = opened.map_err(failed)?;
        match if writable { file.try_lock() } else { file.try_lock_shared() } {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ImageError::Busy(path.into())),
            // Some file systems know no locks.
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // QEMU looks for locks of the other kind, which are for records.
        if writable
            && let Err(Errno::ACCESS | Errno::AGAIN) =
                fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)
        {
            return Err(ImageError::Busy(path.into()));
        }
        let bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
        let sector = u64::from(sector_bytes);
        if bytes == 0 {
            return Err(ImageError::Empty(path.into()));
        }
        if !bytes.is_multiple_of(sector) {
            return Err(ImageError::Size { path: path.into(), bytes, sector });
        }
        Ok(Self { file, sector_bytes: sector, sectors: bytes / sector, punches: true })
    }

    /// How many sectors it has.
    pub const fn sectors(&self) -> u64 {
        self.sectors
    }

    const fn offset(&self, lba: u64) -> u64 {
        lba * self.sector_bytes
    }

    fn write_zeros(&self, lba: u64, sectors: u64) -> Result<(), MediumError> {
        let (mut at, end) = (self.offset(lba), self.offset(lba + sectors));
        while at < end {
            let length = (end - at).min(ZEROS.len() as u64);
            let written = self.file.write_all_at(&ZEROS[..length as usize], at);
            written.map_err(|_| MediumError { lba: at / self.sector_bytes })?;
            at += length;
        }
        Ok(())
    }
}

impl Medium for ImageMedium {
    fn read(&mut self, lba: u64, data: &mut [u8]) -> Result<(), MediumError> {
        if self.file.read_exact_at(data, self.offset(lba)).is_ok() {
            return Ok(());
        }
        // Which one it was, is found out one by one.
        for (lba, sector) in (lba..).zip(data.chunks_exact_mut(self.sector_bytes as usize)) {
            let read = self.file.read_exact_at(sector, self.offset(lba));
            read.map_err(|_| MediumError { lba })?;
        }
        Ok(())
    }

    fn write(&mut self, lba: u64, data: &[u8]) -> Result<(), MediumError> {
        if self.file.write_all_at(data, self.offset(lba)).is_ok() {
            return Ok(());
        }
        for (lba, sector) in (lba..).zip(data.chunks_exact(self.sector_bytes as usize)) {
            let written = self.file.write_all_at(sector, self.offset(lba));
            written.map_err(|_| MediumError { lba })?;
        }
        Ok(())
    }

    fn discard(&mut self, lba: u64, sectors: u64) -> Result<(), MediumError> {
        if self.punches {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let length = self.offset(sectors);
            if fallocate(&self.file, flags, self.offset(lba), length).is_ok() {
                return Ok(());
            }
            self.punches = false;
        }
        self.write_zeros(lba, sectors)
    }

    fn flush(&mut self) -> Result<(), MediumError> {
        // The system does not say which sectors it could not write.
        self.file.sync_data().map_err(|_| MediumError { lba: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn image(bytes: u64) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(bytes).unwrap();
        file
    }

    fn open(path: &Path) -> Result<ImageMedium, ImageError> {
        ImageMedium::open(path, 512, ImageAccess::ReadWrite)
    }

    #[test]
    fn what_is_written_is_in_the_file_and_what_is_discarded_takes_no_space() {
        let file = image(1 << 20);
        let mut medium = open(file.path()).unwrap();
        assert_eq!(medium.sectors(), 2048);
        medium.write(100, &[7; 1 << 19]).unwrap();
        medium.flush().unwrap();
        let mut sector = [0; 512];
        file.as_file().read_exact_at(&mut sector, 100 * 512).unwrap();
        assert_eq!(sector, [7; 512]);
        let before = file.as_file().metadata().unwrap().blocks();
        for punches in [true, false] {
            medium.punches &= punches;
            medium.write(200, &[7; 512 * 800]).unwrap();
            medium.discard(201, 700).unwrap();
            for (lba, byte) in [(200, 7), (201, 0), (900, 0), (901, 7)] {
                medium.read(lba, &mut sector).unwrap();
                assert_eq!(sector, [byte; 512], "{lba}");
            }
            if medium.punches {
                assert!(file.as_file().metadata().unwrap().blocks() < before);
            }
        }
    }

    #[test]
    fn what_the_system_refuses_fails_at_its_sector() {
        let file = image(4096);
        let mut medium = open(file.path()).unwrap();
        file.as_file().set_len(1024).unwrap();
        let mut data = [0; 2048];
        assert_eq!(medium.read(0, &mut data), Err(MediumError { lba: 2 }));
        drop(medium);
        let mut medium = ImageMedium::open(file.path(), 512, ImageAccess::ReadOnly).unwrap();
        assert_eq!(medium.write(1, &[0; 512]), Err(MediumError { lba: 1 }));
        assert!(medium.discard(1, 1).is_err());
    }

    #[test]
    fn images_that_cannot_be_used_are_refused_with_what_to_do() {
        let said = |path: &Path| open(path).unwrap_err().to_string();
        let file = image(4096);
        assert!(said(&file.path().with_extension("missing")).contains("truncate -s 1G"));
        assert!(said(image(0).path()).contains("at least one sector"));
        assert!(said(image(1000).path()).contains("truncate -s 1024"));
        assert!(said(file.path().parent().unwrap()).contains("neither a file"));
        let one = open(file.path()).unwrap();
        assert!(said(file.path()).contains("in use"));
        drop(one);
        let _shared = ImageMedium::open(file.path(), 512, ImageAccess::ReadOnly).unwrap();
        assert!(ImageMedium::open(file.path(), 512, ImageAccess::ReadOnly).is_ok());
    }
}
