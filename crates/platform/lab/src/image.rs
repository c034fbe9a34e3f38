//! Checking images before QEMU gets them, so that errors can say what to do.

use crate::LabError;
use crate::config::{DiskConfig, Format, Media};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Checks that a disk's image exists, can be opened as wanted, and is a whole number of sectors.
pub(crate) fn check(disk: &DiskConfig) -> Result<(), LabError> {
    let Media::Image { path, format } = &disk.media else { return Ok(()) };
    let mut file = open(path, disk.read_only)?;
    if *format != Format::Raw {
        return Ok(());
    }
    let cannot_size = |error| LabError::System { what: "finding out an image's size", error };
    let bytes = file.seek(SeekFrom::End(0)).map_err(cannot_size)?;
    let sector = u64::from(disk.sector_bytes);
    if bytes == 0 {
        return Err(LabError::ImageEmpty(path.clone()));
    }
    if !bytes.is_multiple_of(sector) {
        return Err(LabError::ImageSize { path: path.clone(), bytes, sector });
    }
    Ok(())
}

fn open(path: &Path, read_only: bool) -> Result<File, LabError> {
    let access = if read_only { "reading" } else { "reading and writing" };
    let metadata = path.metadata().map_err(|error| match error.kind() {
        ErrorKind::NotFound => LabError::ImageMissing(path.into()),
        _ => LabError::ImageAccess {
            path: path.into(),
            access,
            error,
            remedy: "Check the permissions of its folder",
        },
    })?;
    let kind = metadata.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(LabError::ImageKind(path.into()));
    }
    let opened = OpenOptions::new().read(true).write(!read_only).open(path);
    opened.map_err(|error| {
        let remedy = match error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem if !read_only => {
                "To use it without writing, add ,ro to its name; to write to it, change its \
                 permissions (chmod u+w)"
            }
            _ => "Check its permissions",
        };
        LabError::ImageAccess { path: path.into(), access, error, remedy }
    })
}
