//! All messages, as two enumerations.

use super::field::{DecodeError, Field, Names, NumericUser, Qids, Reader, Writer};
use super::stat::Stat;
use super::{Dialect, HEADER_BYTES, Qid};

/// Which dialects have a message.
const ALL: [bool; 3] = [true, true, true];
const NOT_LINUX: [bool; 3] = [true, true, false];
const UNIX: [bool; 3] = [false, true, false];
const LINUX: [bool; 3] = [false, false, true];

/// Defines an enumeration of messages with their codec: a line for each, with its number, the
/// dialects that have it, and its fields in order.
macro_rules! messages {
    (
        $(#[$outer:meta])* $name:ident;
        $($(#[$doc:meta])* $variant:ident = $number:literal, $dialects:ident
            { $($field:ident: $kind:ty),* };)*
    ) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "fields are the protocol's own, by the protocol's names")]
        pub enum $name<'a> {
            $($(#[$doc])* $variant { $($field: $kind),* },)*
        }

        impl<'a> $name<'a> {
            /// Reads the fields of a message of type `number` out of `body`, all of which they
            /// must take up.
            pub fn decode(
                number: u8,
                body: &'a [u8],
                dialect: Dialect,
            ) -> Result<Self, DecodeError> {
                let mut reader = Reader::new(body, dialect);
                let message = match number {
                    $($number if $dialects[dialect as usize] => {
                        Self::$variant { $($field: reader.get()?),* }
                    })*
                    _ => return Err(DecodeError::UnknownType(number)),
                };
                reader.finish()?;
                Ok(message)
            }

            /// Its type.
            pub const fn number(&self) -> u8 {
                match self {
                    $(Self::$variant { .. } => $number,)*
                }
            }

            /// Appends the message, with its header, to `bytes`.
            pub fn encode(&self, tag: u16, bytes: &mut Vec<u8>, dialect: Dialect) {
                let start = bytes.len();
                let mut writer = Writer::new(bytes, dialect);
                0u32.put(&mut writer);
                self.number().put(&mut writer);
                tag.put(&mut writer);
                match self {
                    $(Self::$variant { $($field),* } => { $($field.put(&mut writer);)* })*
                }
                let size = (bytes.len() - start) as u32;
                bytes[start..start + 4].copy_from_slice(&size.to_le_bytes());
            }
        }

        // The lifetime is used by some variants only.
        const _: fn(&$name<'_>) = |_| {};
    };
}

messages! {
    /// What clients send.
    Request;
    /// Negotiates dialect and message size, and starts the session afresh (version(5)).
    Version = 100, ALL { msize: u32, version: &'a str };
    /// Begins to authenticate (attach(5)).
    Auth = 102, ALL { afid: u32, uname: &'a str, aname: &'a str, n_uname: NumericUser };
    /// Connects a fid to the root (attach(5)).
    Attach = 104, ALL { fid: u32, afid: u32, uname: &'a str, aname: &'a str, n_uname: NumericUser };
    /// Is no longer interested in a request (flush(5)).
    Flush = 108, ALL { oldtag: u16 };
    /// Goes down, or up, the tree (walk(5)).
    Walk = 110, ALL { fid: u32, newfid: u32, names: Names<'a> };
    /// Opens a file (open(5)).
    Open = 112, NOT_LINUX { fid: u32, mode: u8 };
    /// Makes a file (open(5)); in 9P2000.u with a string behind, see [`Extension`].
    Create = 114, NOT_LINUX { fid: u32, name: &'a str, perm: u32, mode: u8, extension: Extension<'a> };
    /// Reads (read(5)).
    Read = 116, ALL { fid: u32, offset: u64, count: u32 };
    /// Writes (read(5)).
    Write = 118, ALL { fid: u32, offset: u64, data: &'a [u8] };
    /// Forgets a fid (clunk(5)).
    Clunk = 120, ALL { fid: u32 };
    /// Removes a file and forgets its fid (remove(5)).
    Remove = 122, ALL { fid: u32 };
    /// Asks about a file (stat(5)).
    Stat = 124, NOT_LINUX { fid: u32 };
    /// Changes what is said about a file (stat(5)).
    Wstat = 126, NOT_LINUX { fid: u32, stat: Stat<'a> };
    /// Asks about the file system.
    Statfs = 8, LINUX { fid: u32 };
    /// Opens a file.
    Lopen = 12, LINUX { fid: u32, flags: u32 };
    /// Makes a file and opens it.
    Lcreate = 14, LINUX { fid: u32, name: &'a str, flags: u32, mode: u32, gid: u32 };
    /// Makes a symbolic link.
    Symlink = 16, LINUX { fid: u32, name: &'a str, target: &'a str, gid: u32 };
    /// Makes a device.
    Mknod = 18, LINUX { dfid: u32, name: &'a str, mode: u32, major: u32, minor: u32, gid: u32 };
    /// Renames a file.
    Rename = 20, LINUX { fid: u32, dfid: u32, name: &'a str };
    /// Reads a symbolic link.
    Readlink = 22, LINUX { fid: u32 };
    /// Asks about a file.
    Getattr = 24, LINUX { fid: u32, mask: u64 };
    /// Changes what is said about a file.
    Setattr = 26, LINUX {
        fid: u32, valid: u32, mode: u32, uid: u32, gid: u32, size: u64,
        atime_sec: u64, atime_nsec: u64, mtime_sec: u64, mtime_nsec: u64
    };
    /// Goes to an extended attribute.
    Xattrwalk = 30, LINUX { fid: u32, newfid: u32, name: &'a str };
    /// Makes an extended attribute.
    Xattrcreate = 32, LINUX { fid: u32, name: &'a str, size: u64, flags: u32 };
    /// Reads a directory.
    Readdir = 40, LINUX { fid: u32, offset: u64, count: u32 };
    /// Makes what was written durable.
    Fsync = 50, LINUX { fid: u32, datasync: Datasync };
    /// Takes or releases a lock.
    Lock = 52, LINUX {
        fid: u32, kind: u8, flags: u32, start: u64, length: u64, proc_id: u32, client_id: &'a str
    };
    /// Asks about a lock.
    Getlock = 54, LINUX {
        fid: u32, kind: u8, start: u64, length: u64, proc_id: u32, client_id: &'a str
    };
    /// Makes a link.
    Link = 70, LINUX { dfid: u32, fid: u32, name: &'a str };
    /// Makes a directory.
    Mkdir = 72, LINUX { dfid: u32, name: &'a str, mode: u32, gid: u32 };
    /// Renames a file.
    Renameat = 74, LINUX { olddirfid: u32, oldname: &'a str, newdirfid: u32, newname: &'a str };
    /// Removes a file.
    Unlinkat = 76, LINUX { dirfid: u32, name: &'a str, flags: u32 };
}

messages! {
    /// What servers answer.
    Reply;
    /// To [`Request::Version`].
    Version = 101, ALL { msize: u32, version: &'a str };
    /// To [`Request::Auth`].
    Auth = 103, ALL { aqid: Qid };
    /// To [`Request::Attach`].
    Attach = 105, ALL { qid: Qid };
    /// Instead of any other answer (error(5)).
    Error = 107, NOT_LINUX { message: &'a str, errno: UnixErrno };
    /// Instead of any other answer.
    Lerror = 7, LINUX { errno: u32 };
    /// To [`Request::Flush`].
    Flush = 109, ALL { };
    /// To [`Request::Walk`].
    Walk = 111, ALL { qids: Qids };
    /// To [`Request::Open`].
    Open = 113, NOT_LINUX { qid: Qid, iounit: u32 };
    /// To [`Request::Create`].
    Create = 115, NOT_LINUX { qid: Qid, iounit: u32 };
    /// To [`Request::Read`].
    Read = 117, ALL { data: &'a [u8] };
    /// To [`Request::Write`].
    Write = 119, ALL { count: u32 };
    /// To [`Request::Clunk`].
    Clunk = 121, ALL { };
    /// To [`Request::Remove`].
    Remove = 123, ALL { };
    /// To [`Request::Stat`].
    Stat = 125, NOT_LINUX { stat: Stat<'a> };
    /// To [`Request::Wstat`].
    Wstat = 127, NOT_LINUX { };
    /// To [`Request::Statfs`].
    Statfs = 9, LINUX {
        kind: u32, bsize: u32, blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64,
        fsid: u64, namelen: u32
    };
    /// To [`Request::Lopen`].
    Lopen = 13, LINUX { qid: Qid, iounit: u32 };
    /// To [`Request::Getattr`].
    Getattr = 25, LINUX {
        valid: u64, qid: Qid, mode: u32, uid: u32, gid: u32, nlink: u64, rdev: u64, size: u64,
        blksize: u64, blocks: u64, atime_sec: u64, atime_nsec: u64, mtime_sec: u64,
        mtime_nsec: u64, ctime_sec: u64, ctime_nsec: u64, btime_sec: u64, btime_nsec: u64,
        gen_number: u64, data_version: u64
    };
    /// To [`Request::Setattr`].
    Setattr = 27, LINUX { };
    /// To [`Request::Readdir`].
    Readdir = 41, LINUX { data: &'a [u8] };
    /// To [`Request::Fsync`].
    Fsync = 51, LINUX { };
}

/// A string that 9P2000.u has at the end of a create message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extension<'a>(pub &'a str);

impl<'a> Field<'a> for Extension<'a> {
    fn get(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        if UNIX[reader.dialect() as usize] { reader.get().map(Self) } else { Ok(Self("")) }
    }

    fn put(&self, writer: &mut Writer<'_>) {
        if UNIX[writer.dialect() as usize] {
            self.0.put(writer);
        }
    }
}

/// An error's number, which 9P2000.u has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnixErrno(pub u32);

impl<'a> Field<'a> for UnixErrno {
    fn get(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        if UNIX[reader.dialect() as usize] { reader.get().map(Self) } else { Ok(Self(0)) }
    }

    fn put(&self, writer: &mut Writer<'_>) {
        if UNIX[writer.dialect() as usize] {
            self.0.put(writer);
        }
    }
}

/// Whether only data is to be made durable. Old clients leave it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datasync(pub u32);

impl<'a> Field<'a> for Datasync {
    fn get(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        if reader.finish().is_ok() { Ok(Self(0)) } else { reader.get().map(Self) }
    }

    fn put(&self, writer: &mut Writer<'_>) {
        self.0.put(writer);
    }
}

/// A message among the bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its type.
    pub number: u8,
    /// Its tag.
    pub tag: u16,
    /// Its fields.
    pub body: &'a [u8],
    /// How many bytes it takes up.
    pub size: usize,
}

impl<'a> Frame<'a> {
    /// The message at the start of `bytes`; `None` if they do not hold all of it yet. `Err` with
    /// its size if that is less than a header or more than `msize`: there is no way to find the
    /// next message then.
    pub fn split(bytes: &'a [u8], msize: u32) -> Result<Option<Self>, u32> {
        let Some((size, _)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
        let size = u32::from_le_bytes(*size);
        if (size as usize) < HEADER_BYTES || size > msize {
            return Err(size);
        }
        let size = size as usize;
        let Some(message) = bytes.get(..size) else { return Ok(None) };
        let tag = u16::from_le_bytes([message[5], message[6]]);
        Ok(Some(Self { number: message[4], tag, body: &message[HEADER_BYTES..], size }))
    }
}
