//! What goes wrong at disks, in words, with the number that goes with it.

use crate::server::{FileError, errno};
use outboard_block::disk::{DiskError, DiskId, Disks, Refusal, VolumeError};
use outboard_block::{BlockError, Management, UnitState};

/// A disk's name.
fn name(disks: &Disks, disk: DiskId) -> String {
    disks.info(disk).map(|info| info.name).unwrap_or_default()
}

/// A transfer has failed.
pub(super) fn failed(disks: &Disks, disk: DiskId, error: DiskError) -> FileError {
    let number = match error.error {
        BlockError::Gone => errno::ENODEV,
        BlockError::Timeout => errno::ETIMEDOUT,
        BlockError::WriteProtected => errno::EROFS,
        BlockError::Unsupported => errno::EOPNOTSUPP,
        BlockError::Locked => errno::EACCES,
        _ => errno::EIO,
    };
    let name = name(disks, disk);
    let message = match error.error {
        BlockError::Locked => format!("{name}: {}", unlock_first(&name)),
        _ => format!("{name}: {error}"),
    };
    FileError::new(number, message)
}

/// A command beside the data has failed.
pub(super) fn not_managed(
    disks: &Disks,
    disk: DiskId,
    what: Management,
    error: DiskError,
) -> FileError {
    let name = name(disks, disk);
    let password = what.takes_password();
    match error.error {
        BlockError::Locked | BlockError::Aborted if password => {
            let message = format!(
                "{name}: the disk did not take the password. After some wrong ones (five, as a \
                 rule) it takes none before its power is cut"
            );
            FileError::new(errno::EACCES, message)
        }
        BlockError::Frozen => FileError::new(errno::EPERM, format!("{name}: {error}")),
        BlockError::Aborted => {
            let message = format!(
                "{name}: the disk refused the command: it does not support it, or not with this \
                 value, or not now"
            );
            FileError::new(errno::EIO, message)
        }
        _ => failed(disks, disk, error),
    }
}

fn unlock_first(name: &str) -> String {
    format!(
        "the disk is locked by a password. To unlock it: outboard disk security unlock {name}, or write \
         \"unlock PASSWORD\" to {name}/ctl"
    )
}

/// A request was not accepted.
pub(super) fn refused(disks: &Disks, disk: DiskId, refusal: Refusal) -> FileError {
    let number = match refusal {
        Refusal::ReadOnly => errno::EROFS,
        Refusal::NoDisk => errno::ENODEV,
        Refusal::Unsupported => errno::EOPNOTSUPP,
        Refusal::NoMemory => errno::ENOMEM,
        Refusal::Locked => errno::EACCES,
        Refusal::NoMedium => errno::ENOMEDIUM,
        Refusal::InUse => errno::EBUSY,
        _ => errno::EINVAL,
    };
    let name = name(disks, disk);
    let message = match refusal {
        Refusal::Locked => format!("{name}: {}", unlock_first(&name)),
        Refusal::NoMedium => format!(
            "{name}: there is no medium in the drive. Put one in; to close the tray: outboard disk \
             load {name}"
        ),
        refusal => format!("{name}: {refusal}"),
    };
    FileError::new(number, message)
}

/// The file was opened when another disk was there.
pub(super) fn stale(disks: &Disks, disk: DiskId) -> FileError {
    let state = disks.state(disk).unwrap_or(UnitState::Absent);
    let name = name(disks, disk);
    let message = format!(
        "{name}: the disk is gone, or was away, or another took its place since this file was \
         opened (it is {state} now); open it again"
    );
    FileError::new(errno::ENODEV, message)
}

pub(super) fn volume(error: VolumeError) -> FileError {
    let number = match error {
        VolumeError::Exists => errno::EEXIST,
        VolumeError::Missing => errno::ENOENT,
        _ => errno::EINVAL,
    };
    FileError::new(number, error.to_string())
}

/// What a fid refers to is not there any more.
pub(super) fn gone() -> FileError {
    FileError::new(errno::ENODEV, "the disk or partition is gone; walk to it again")
}
