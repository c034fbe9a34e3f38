//! What is said about files and directories.

use super::error::{FileError, errno};
use super::session::{Flow, Owner, Session, SyncReply};
use super::tree::{Attributes, Tree};
use crate::wire::{
    Dialect, Field, IO_HEADER_BYTES, NO_USER, QidKind, Reply, Stat, Writer, io_unit,
};

/// Bits of a getattr's answer that are valid: everything that Linux calls basic.
const GETATTR_BASIC: u64 = 0x7ff;
/// Bit of a setattr: the size is to be changed.
const SETATTR_SIZE: u32 = 1 << 3;
/// Bits of a setattr: times are to be changed. Accepted, since tools do it in passing.
const SETATTR_TIMES: u32 = 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8;

/// Kind of file in Linux's mode.
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
/// Kind of file in a directory's entry.
const DT_DIR: u8 = 4;
const DT_REG: u8 = 8;

impl<T: Tree> Session<T> {
    /// Says what is known of a file (stat(5)).
    pub(super) fn stat(&mut self, tag: u16, fid: u32, tree: &T) -> Result<(), FileError> {
        let attributes = tree.attributes(&self.fid(fid)?.node)?;
        let owner = self.owner.clone();
        self.reply(tag, &Reply::Stat { stat: as_stat(&attributes, &owner) });
        Ok(())
    }

    /// Says what is known of a file, in Linux's way.
    pub(super) fn getattr(&mut self, tag: u16, fid: u32, tree: &T) -> Result<(), FileError> {
        let attributes = tree.attributes(&self.fid(fid)?.node)?;
        let directory = is_directory(&attributes);
        let kind = if directory { S_IFDIR } else { S_IFREG };
        let modified = u64::from(attributes.modified);
        let reply = Reply::Getattr {
            valid: GETATTR_BASIC,
            qid: attributes.qid,
            mode: kind | attributes.permissions,
            uid: self.owner.user,
            gid: self.owner.group,
            nlink: if directory { 2 } else { 1 },
            rdev: 0,
            size: attributes.bytes,
            blksize: u64::from(io_unit(self.msize)).max(4096),
            blocks: attributes.bytes.div_ceil(512),
            atime_sec: modified,
            atime_nsec: 0,
            mtime_sec: modified,
            mtime_nsec: 0,
            ctime_sec: modified,
            ctime_nsec: 0,
            btime_sec: 0,
            btime_nsec: 0,
            gen_number: 0,
            data_version: 0,
        };
        self.reply(tag, &reply);
        Ok(())
    }

    /// Changes what is said about a file: nothing can be changed, but changing nothing and
    /// truncating are accepted, because programs do it to whatever they open. Changing nothing at
    /// all makes what was written durable (stat(5)).
    pub(super) fn wstat(
        &mut self,
        tag: u16,
        fid: u32,
        stat: &Stat<'_>,
        tree: &mut T,
    ) -> Result<Flow, FileError> {
        let attributes = tree.attributes(&self.fid(fid)?.node)?;
        let strings = [stat.name, stat.user, stat.group, stat.modifier];
        let keeps_names = strings.iter().all(|text| text.is_empty());
        let keeps_mode =
            stat.mode == u32::MAX || stat.mode == as_stat(&attributes, &self.owner).mode;
        if !keeps_names || !keeps_mode {
            return Err(FileError::new(errno::EPERM, "only times and length can be set here"));
        }
        check_length(stat.length, &attributes)?;
        let keeps_times = (stat.access_time, stat.modify_time) == (u32::MAX, u32::MAX);
        let keeps_all = stat.mode == u32::MAX && stat.length == u64::MAX && keeps_times;
        if keeps_all {
            return self.sync(tag, fid, SyncReply::Wstat, tree);
        }
        self.reply(tag, &Reply::Wstat {});
        Ok(Flow::Next)
    }

    /// Changes what is said about a file, in Linux's way; see [`wstat`](Self::wstat).
    pub(super) fn setattr(
        &mut self,
        tag: u16,
        fid: u32,
        valid: u32,
        size: u64,
        tree: &T,
    ) -> Result<(), FileError> {
        let attributes = tree.attributes(&self.fid(fid)?.node)?;
        if valid & !(SETATTR_SIZE | SETATTR_TIMES) != 0 {
            return Err(FileError::new(errno::EPERM, "only times and length can be set here"));
        }
        if valid & SETATTR_SIZE != 0 {
            check_length(size, &attributes)?;
        }
        self.reply(tag, &Reply::Setattr {});
        Ok(())
    }

    /// Reads entries of a directory (read(5)): whole ones, on from where the last read ended.
    pub(super) fn read_directory(
        &mut self,
        tag: u16,
        fid: u32,
        offset: u64,
        count: usize,
        tree: &T,
    ) -> Result<(), FileError> {
        if self.dialect == Some(Dialect::Linux) {
            return Err(FileError::new(errno::EISDIR, "a directory is read with Treaddir"));
        }
        let entry = self.fid(fid)?;
        let open = entry.open.as_ref();
        let open = open.ok_or_else(|| FileError::new(errno::EBADF, "the directory is not open"))?;
        let first = match open.next_entry {
            _ if offset == 0 => 0,
            Some((at, index)) if at == offset => index,
            _ => {
                let message = "a directory is read from its start, or on from the last read";
                return Err(FileError::new(errno::EINVAL, message));
            }
        };
        let dialect = self.dialect.unwrap_or(Dialect::Plan9);
        let mut bytes = Vec::new();
        let mut index = first;
        for node in tree.children(&entry.node).iter().skip(first) {
            let before = bytes.len();
            let attributes = tree.attributes(node)?;
            let writer = &mut Writer::new(&mut bytes, dialect);
            as_stat(&attributes, &self.owner).put_entry(writer);
            if bytes.len() > count {
                bytes.truncate(before);
                ensure_progress(&bytes)?;
                break;
            }
            index += 1;
        }
        if let Some(open) = self.fids.get_mut(&fid).and_then(|fid| fid.open.as_mut()) {
            open.next_entry = Some((offset + bytes.len() as u64, index));
        }
        self.reply(tag, &Reply::Read { data: &bytes });
        Ok(())
    }

    /// Reads entries of a directory, in Linux's way: an entry's offset is its number.
    pub(super) fn readdir(
        &mut self,
        tag: u16,
        fid: u32,
        offset: u64,
        count: u32,
        tree: &T,
    ) -> Result<(), FileError> {
        let count = count.min(self.msize - IO_HEADER_BYTES) as usize;
        let entry = self.fid(fid)?;
        if entry.open.is_none() {
            return Err(FileError::new(errno::EBADF, "the directory is not open"));
        }
        let own = tree.attributes(&entry.node)?;
        if !is_directory(&own) {
            return Err(FileError::new(errno::ENOTDIR, "not a directory"));
        }
        let above = tree.attributes(&tree.parent(&entry.node))?;
        let named =
            |attributes: Attributes, name: &str| Attributes { name: name.to_owned(), ..attributes };
        let dots = [named(own, "."), named(above, "..")].into_iter().map(Ok);
        let children = tree.children(&entry.node);
        let entries = dots.chain(children.iter().map(|node| tree.attributes(node)));
        let mut bytes = Vec::new();
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for (index, attributes) in (1u64..).zip(entries).skip(skip) {
            let attributes = attributes?;
            let before = bytes.len();
            let writer = &mut Writer::new(&mut bytes, Dialect::Linux);
            attributes.qid.put(writer);
            index.put(writer);
            (if is_directory(&attributes) { DT_DIR } else { DT_REG }).put(writer);
            attributes.name.as_str().put(writer);
            if bytes.len() > count {
                bytes.truncate(before);
                ensure_progress(&bytes)?;
                break;
            }
        }
        self.reply(tag, &Reply::Readdir { data: &bytes });
        Ok(())
    }

    /// Says what is known of the file system: nothing of interest.
    pub(super) fn statfs(&mut self, tag: u16, fid: u32) -> Result<(), FileError> {
        const V9FS_MAGIC: u32 = 0x0102_1997;
        self.fid(fid)?;
        let reply = Reply::Statfs {
            kind: V9FS_MAGIC,
            bsize: 4096,
            blocks: 0,
            bfree: 0,
            bavail: 0,
            files: 0,
            ffree: 0,
            fsid: 0,
            namelen: 255,
        };
        self.reply(tag, &reply);
        Ok(())
    }
}

const fn is_directory(attributes: &Attributes) -> bool {
    attributes.qid.kind.contains(QidKind::DIRECTORY)
}

/// No entries would mean the end of the directory.
fn ensure_progress(entries: &[u8]) -> Result<(), FileError> {
    if entries.is_empty() {
        return Err(FileError::new(errno::EINVAL, "the count is less than the next entry takes"));
    }
    Ok(())
}

/// A length may be set to what it is, or to 0, which changes nothing: a disk has its size.
fn check_length(length: u64, attributes: &Attributes) -> Result<(), FileError> {
    if length == u64::MAX || length == 0 || length == attributes.bytes {
        return Ok(());
    }
    let message = format!("{} has {} bytes, and keeps them", attributes.name, attributes.bytes);
    Err(FileError::new(errno::EINVAL, message))
}

fn as_stat<'a>(attributes: &'a Attributes, owner: &'a Owner) -> Stat<'a> {
    let directory = is_directory(attributes);
    Stat {
        kind: 0,
        device: 0,
        qid: attributes.qid,
        mode: if directory { Stat::DIRECTORY } else { 0 } | attributes.permissions,
        access_time: attributes.modified,
        modify_time: attributes.modified,
        length: if directory { 0 } else { attributes.bytes },
        name: &attributes.name,
        user: &owner.name,
        group: &owner.name,
        modifier: &owner.name,
        extension: "",
        numbers: [owner.user, owner.group, NO_USER],
    }
}
