//! Fids: attaching, walking, opening, reading, writing.

use super::error::{FileError, errno};
use super::session::{Fid, Flow, Open, PendingKind, Session, SyncReply};
use super::tree::{Access, Answer, Tree};
use crate::wire::{IO_HEADER_BYTES, NO_FID, Names, Qid, Qids, Reply, io_unit};

/// What the root may be called when attaching.
const ROOT_NAMES: [&str; 3] = ["", "/", "/dev/sd"];

/// Modes of 9P2000's open (open(5)).
mod mode {
    pub(super) const ACCESS: u8 = 0x3;
    pub(super) const WRITE: u8 = 1;
    pub(super) const READ_WRITE: u8 = 2;
    pub(super) const REMOVE_ON_CLOSE: u8 = 0x40;
}

/// Flags of 9P2000.L's open: those of Linux on most machines.
mod flag {
    pub(super) const ACCESS: u32 = 0o3;
    pub(super) const WRITE: u32 = 0o1;
    pub(super) const READ_WRITE: u32 = 0o2;
    pub(super) const DIRECTORY: u32 = 0o200_000;
    pub(super) const DSYNC: u32 = 0o10_000;
}

impl<T: Tree> Session<T> {
    pub(super) fn fid(&self, fid: u32) -> Result<&Fid<T>, FileError> {
        self.fids.get(&fid).ok_or_else(|| unknown_fid(fid))
    }

    fn add_fid(&mut self, fid: u32, node: T::Node) -> Result<(), FileError> {
        if fid == NO_FID {
            return Err(FileError::new(errno::EINVAL, "a fid must not be NOFID"));
        }
        if self.fids.contains_key(&fid) {
            return Err(FileError::new(errno::EINVAL, format!("fid {fid} is in use")));
        }
        if self.fids.len() >= self.limits.fids {
            return Err(FileError::new(errno::ENFILE, "too many fids; clunk some"));
        }
        self.fids.insert(fid, Fid { node, open: None });
        Ok(())
    }

    /// Connects a fid to the root (attach(5)).
    pub(super) fn attach(
        &mut self,
        tag: u16,
        fid: u32,
        aname: &str,
        tree: &T,
    ) -> Result<(), FileError> {
        if !ROOT_NAMES.contains(&aname) {
            let message = format!("there is no tree {aname:?}; attach to \"\" or \"/\"");
            return Err(FileError::new(errno::ENOENT, message));
        }
        let root = tree.root();
        let qid = tree.attributes(&root)?.qid;
        self.add_fid(fid, root)?;
        self.reply(tag, &Reply::Attach { qid });
        Ok(())
    }

    /// Goes from one node to another, by names (walk(5)).
    pub(super) fn walk(
        &mut self,
        tag: u16,
        fid: u32,
        newfid: u32,
        names: &Names<'_>,
        tree: &T,
    ) -> Result<(), FileError> {
        let from = self.fid(fid)?;
        // walk(5) forbids walking from an open fid at all, but clients of 9P2000.L do it from
        // directories that they read, and all that cannot work is to move the open fid itself.
        if from.open.is_some() && newfid == fid {
            return Err(FileError::new(errno::EINVAL, "the fid is open; walk to another"));
        }
        let mut node = from.node.clone();
        let mut qids = Qids::EMPTY;
        let mut failure = None;
        for name in names.as_slice() {
            match step(&node, name, tree) {
                Ok(next) => {
                    qids.push(tree.attributes(&next)?.qid);
                    node = next;
                }
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        match failure {
            // Only if the first step fails is it an error; else the answer says how far it went.
            Some(error) if qids.as_slice().is_empty() => return Err(error),
            Some(_) => {}
            None if newfid == fid => {
                if !names.as_slice().is_empty() {
                    self.fids.insert(fid, Fid { node, open: None });
                }
            }
            None => self.add_fid(newfid, node)?,
        }
        self.reply(tag, &Reply::Walk { qids });
        Ok(())
    }

    /// Opens a file (open(5)).
    pub(super) fn open(
        &mut self,
        tag: u16,
        fid: u32,
        mode: u8,
        tree: &mut T,
    ) -> Result<(), FileError> {
        if mode & mode::REMOVE_ON_CLOSE != 0 {
            return Err(FileError::new(errno::EPERM, "files here cannot be removed"));
        }
        // Truncating (OTRUNC) means nothing to a disk.
        let kind = mode & mode::ACCESS;
        let write = kind == mode::WRITE || kind == mode::READ_WRITE;
        let access = Access { read: kind != mode::WRITE, write, durable: false };
        let qid = self.open_fid(fid, access, tree)?;
        let iounit = io_unit(self.msize);
        self.reply(tag, &Reply::Open { qid, iounit });
        Ok(())
    }

    /// Opens a file, in Linux's way.
    pub(super) fn lopen(
        &mut self,
        tag: u16,
        fid: u32,
        flags: u32,
        tree: &mut T,
    ) -> Result<(), FileError> {
        let kind = flags & flag::ACCESS;
        let write = kind == flag::WRITE || kind == flag::READ_WRITE;
        let durable = flags & flag::DSYNC != 0;
        if flags & flag::DIRECTORY != 0 && !tree.is_directory(&self.fid(fid)?.node) {
            return Err(FileError::new(errno::ENOTDIR, "not a directory"));
        }
        let access = Access { read: kind != flag::WRITE, write, durable };
        let qid = self.open_fid(fid, access, tree)?;
        let iounit = io_unit(self.msize);
        self.reply(tag, &Reply::Lopen { qid, iounit });
        Ok(())
    }

    fn open_fid(&mut self, fid: u32, access: Access, tree: &mut T) -> Result<Qid, FileError> {
        let opened = self.fids.get_mut(&fid).ok_or_else(|| unknown_fid(fid))?;
        if opened.open.is_some() {
            return Err(FileError::new(errno::EINVAL, format!("fid {fid} is open already")));
        }
        let attributes = tree.attributes(&opened.node)?;
        if tree.is_directory(&opened.node) && access.write {
            return Err(FileError::new(errno::EISDIR, "a directory cannot be written"));
        }
        let allowed = |wanted: bool, bit: u32| !wanted || attributes.permissions & bit != 0;
        if !allowed(access.read, 0o400) || !allowed(access.write, 0o200) {
            let what = if access.write { "written" } else { "read" };
            let message = format!("{} cannot be {what}", attributes.name);
            return Err(FileError::new(errno::EACCES, message));
        }
        let file = tree.open(&opened.node, access)?;
        opened.open = Some(Open { file, access, next_entry: None });
        Ok(attributes.qid)
    }

    /// Forgets a fid (clunk(5)).
    pub(super) fn clunk(&mut self, tag: u16, fid: u32) -> Result<(), FileError> {
        self.fids.remove(&fid).ok_or_else(|| unknown_fid(fid))?;
        self.reply(tag, &Reply::Clunk {});
        Ok(())
    }

    /// Reads a file or, but for 9P2000.L, a directory (read(5)).
    pub(super) fn read(
        &mut self,
        tag: u16,
        fid: u32,
        offset: u64,
        count: u32,
        tree: &mut T,
    ) -> Result<Flow, FileError> {
        let count = count.min(self.msize - IO_HEADER_BYTES) as usize;
        if tree.is_directory(&self.fid(fid)?.node) {
            self.read_directory(tag, fid, offset, count, tree)?;
            return Ok(Flow::Next);
        }
        if !self.may_promise(count) {
            return Ok(Flow::Stalled);
        }
        let request = self.next_request();
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        let answer = self
            .opened(fid, |access| access.read)
            .and_then(|open| tree.read(&mut open.file, offset, count, &mut bytes, request));
        let flow = match answer {
            Ok(Answer::Now(_)) => {
                self.reply_data(tag, bytes.len(), |into| into.copy_from_slice(&bytes));
                Ok(Flow::Next)
            }
            Ok(Answer::Later(pending)) => {
                self.later(tag, pending, PendingKind::Read(count));
                Ok(Flow::Next)
            }
            Ok(Answer::Busy) => Ok(Flow::Stalled),
            Err(error) => Err(error),
        };
        self.scratch = bytes;
        flow
    }

    /// Writes a file (read(5)).
    pub(super) fn write(
        &mut self,
        tag: u16,
        fid: u32,
        offset: u64,
        data: &[u8],
        tree: &mut T,
    ) -> Result<Flow, FileError> {
        let request = self.next_request();
        let open = self.opened(fid, |access| access.write)?;
        match tree.write(&mut open.file, offset, data, request)? {
            Answer::Now(count) => self.reply(tag, &Reply::Write { count: count as u32 }),
            Answer::Later(pending) => self.later(tag, pending, PendingKind::Write(data.len())),
            Answer::Busy => return Ok(Flow::Stalled),
        }
        Ok(Flow::Next)
    }

    /// Makes what was written durable.
    pub(super) fn sync(
        &mut self,
        tag: u16,
        fid: u32,
        how: SyncReply,
        tree: &mut T,
    ) -> Result<Flow, FileError> {
        let request = self.next_request();
        let entry = self.fids.get_mut(&fid).ok_or_else(|| unknown_fid(fid))?;
        let answer = match &mut entry.open {
            Some(open) => tree.sync(&mut open.file, request)?,
            // A wstat needs no open file (stat(5)).
            None if how == SyncReply::Wstat => {
                let mut file = tree.open(&entry.node, Access::default())?;
                tree.sync(&mut file, request)?
            }
            None => return Err(FileError::new(errno::EBADF, "the fid is not open")),
        };
        match answer {
            Answer::Now(_) => self.reply(tag, &how.reply()),
            Answer::Later(pending) => self.later(tag, pending, PendingKind::Sync(how)),
            Answer::Busy => return Ok(Flow::Stalled),
        }
        Ok(Flow::Next)
    }

    /// The open file of a fid, if it is open for what is wanted.
    fn opened(
        &mut self,
        fid: u32,
        wanted: impl FnOnce(&Access) -> bool,
    ) -> Result<&mut Open<T>, FileError> {
        let entry = self.fids.get_mut(&fid).ok_or_else(|| unknown_fid(fid))?;
        let open = entry.open.as_mut().filter(|open| wanted(&open.access));
        let message = "the fid is not open for this";
        open.ok_or_else(|| FileError::new(errno::EBADF, message))
    }
}

/// Goes from a node by one name.
fn step<T: Tree>(node: &T::Node, name: &str, tree: &T) -> Result<T::Node, FileError> {
    if !tree.is_directory(node) {
        return Err(FileError::new(errno::ENOTDIR, "not a directory"));
    }
    match name {
        // Not in walk(5), but clients of 9P2000.L find it in directories, and walk to it.
        "." => Ok(node.clone()),
        ".." => Ok(tree.parent(node)),
        name => tree.child(node, name),
    }
}

fn unknown_fid(fid: u32) -> FileError {
    FileError::new(errno::EBADF, format!("there is no fid {fid}"))
}
