//! Messages as bytes: the codec of all three dialects.
//!
//! 9P2000 is specified in section 5 of the Plan 9 manual (intro(5) and the pages it names),
//! 9P2000.u in Van Hensbergen's "Plan 9 Remote Resource Protocol, Unix Extension", and 9P2000.L in
//! the protocol description of the diod project.
//!
//! Decoding borrows from the bytes and allocates nothing. It refuses whatever is not exactly one
//! message: a length that lies, a string that is not UTF-8, bytes left over.

mod field;
mod message;
mod stat;

pub use field::{DecodeError, Field, Names, NumericUser, Qids, Reader, Writer};
pub use message::{Datasync, Extension, Frame, Reply, Request, UnixErrno};
pub use stat::{MAX_ENTRY_BYTES, Stat};

use bitflags::bitflags;
use core::fmt;

/// Bytes of a message before its fields: size, type, tag.
pub const HEADER_BYTES: usize = 7;
/// Bytes of a read's or a write's message that are not data, generously (`IOHDRSZ`).
pub const IO_HEADER_BYTES: u32 = 24;
/// The tag of a message that needs none (`NOTAG`).
pub const NO_TAG: u16 = 0xffff;
/// The fid that means none (`NOFID`).
pub const NO_FID: u32 = 0xffff_ffff;
/// The user ID that means none (`NONUNAME`).
pub const NO_USER: u32 = 0xffff_ffff;
/// The most names in one walk (`MAXWELEM`).
pub const MAX_NAMES: usize = 16;

/// The most data in a read or write of messages up to `msize` (`iounit` of open(5)): whole pages
/// if there is room for one, so that transfers one after another do not split sectors.
pub const fn io_unit(msize: u32) -> u32 {
    const PAGE_BYTES: u32 = 4096;
    let room = msize.saturating_sub(IO_HEADER_BYTES);
    if room < PAGE_BYTES { room } else { room - room % PAGE_BYTES }
}

/// A dialect of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dialect {
    /// 9P2000, as of Plan 9.
    Plan9,
    /// 9P2000.u, with numbers for users and errors.
    Unix,
    /// 9P2000.L, with Linux's system calls.
    Linux,
}

impl Dialect {
    /// The name in version messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plan9 => "9P2000",
            Self::Unix => "9P2000.u",
            Self::Linux => "9P2000.L",
        }
    }

    /// What to speak with a peer that offers `version`; `None` if it speaks no 9P2000.
    ///
    /// After a full stop may follow an extension, and a server that does not know it answers with
    /// what is before the stop (version(5)).
    pub fn negotiate(version: &str) -> Option<Self> {
        let known = [Self::Linux, Self::Unix, Self::Plan9];
        let exact = known.into_iter().find(|dialect| dialect.name() == version);
        let plain = version.split('.').next() == Some(Self::Plan9.name());
        exact.or(plain.then_some(Self::Plan9))
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a server knows a file by (intro(5), "Qids").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Qid {
    /// Kind of file.
    pub kind: QidKind,
    /// Changes when the file does.
    pub version: u32,
    /// Unique among all files of the server.
    pub path: u64,
}

bitflags! {
    /// Kind of file, in a qid.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct QidKind: u8 {
        /// A directory.
        const DIRECTORY = 0x80;
        /// Writes go to the end.
        const APPEND = 0x40;
        /// One user at a time.
        const EXCLUSIVE = 0x20;
        /// A symbolic link.
        const LINK = 0x02;
        /// Others are carried as they are.
        const _ = !0;
    }
}
