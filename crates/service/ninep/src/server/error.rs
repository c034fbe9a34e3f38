//! Errors as clients see them.

use std::borrow::Cow;
use thiserror::Error;

/// An error as a client sees it: a number in 9P2000.L, words in 9P2000, both in 9P2000.u.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct FileError {
    /// As in Linux's `errno.h`.
    pub number: u32,
    /// What to tell the user.
    pub message: Cow<'static, str>,
}

impl FileError {
    /// An error with a number and words.
    pub fn new(number: u32, message: impl Into<Cow<'static, str>>) -> Self {
        Self { number, message: message.into() }
    }
}

/// Error numbers of Linux (asm-generic/errno-base.h, errno.h), which 9P2000.L sends.
pub mod errno {
    /// Operation not permitted.
    pub const EPERM: u32 = 1;
    /// No such file or directory.
    pub const ENOENT: u32 = 2;
    /// Input/output error.
    pub const EIO: u32 = 5;
    /// Bad file descriptor.
    pub const EBADF: u32 = 9;
    /// Out of memory.
    pub const ENOMEM: u32 = 12;
    /// Permission denied.
    pub const EACCES: u32 = 13;
    /// Device or resource busy.
    pub const EBUSY: u32 = 16;
    /// File exists.
    pub const EEXIST: u32 = 17;
    /// No such device.
    pub const ENODEV: u32 = 19;
    /// Not a directory.
    pub const ENOTDIR: u32 = 20;
    /// Is a directory.
    pub const EISDIR: u32 = 21;
    /// Invalid argument.
    pub const EINVAL: u32 = 22;
    /// Too many open files.
    pub const ENFILE: u32 = 23;
    /// No space left on device.
    pub const ENOSPC: u32 = 28;
    /// Read-only file system.
    pub const EROFS: u32 = 30;
    /// No data available.
    pub const ENODATA: u32 = 61;
    /// Protocol error.
    pub const EPROTO: u32 = 71;
    /// Operation not supported.
    pub const EOPNOTSUPP: u32 = 95;
    /// Connection timed out.
    pub const ETIMEDOUT: u32 = 110;
    /// No medium found.
    pub const ENOMEDIUM: u32 = 123;
}
