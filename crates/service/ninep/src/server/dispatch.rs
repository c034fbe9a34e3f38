//! Which message does what.

use super::error::{FileError, errno};
use super::session::{Flow, Session, SyncReply};
use super::tree::Tree;
use crate::wire::{Dialect, Reply, Request};

impl<T: Tree> Session<T> {
    /// Works a message off, unless it has to wait.
    pub(super) fn dispatch(&mut self, tag: u16, request: Request<'_>, tree: &mut T) -> Flow {
        if let Request::Version { msize, version } = request {
            self.version(tag, msize, version, tree);
            return Flow::Next;
        }
        let result = match self.dialect {
            None => Err(FileError::new(errno::EPROTO, "the session must begin with Tversion")),
            Some(_) if self.is_pending(tag) => {
                let message = "the tag belongs to a request that was not answered yet";
                Err(FileError::new(errno::EINVAL, message))
            }
            Some(_) => self.perform(tag, request, tree),
        };
        result.unwrap_or_else(|error| {
            self.fail(tag, &error);
            Flow::Next
        })
    }

    fn perform(&mut self, tag: u16, request: Request<'_>, tree: &mut T) -> Result<Flow, FileError> {
        match request {
            Request::Read { fid, offset, count } => {
                return self.read(tag, fid, offset, count, tree);
            }
            Request::Write { fid, offset, data } => {
                return self.write(tag, fid, offset, data, tree);
            }
            Request::Fsync { fid, .. } => return self.sync(tag, fid, SyncReply::Fsync, tree),
            Request::Flush { oldtag } => self.flush(tag, oldtag, tree),
            Request::Attach { fid, aname, .. } => self.attach(tag, fid, aname, tree)?,
            Request::Walk { fid, newfid, names } => self.walk(tag, fid, newfid, &names, tree)?,
            Request::Open { fid, mode } => self.open(tag, fid, mode, tree)?,
            Request::Lopen { fid, flags } => self.lopen(tag, fid, flags, tree)?,
            Request::Clunk { fid } => self.clunk(tag, fid)?,
            Request::Stat { fid } => self.stat(tag, fid, tree)?,
            Request::Getattr { fid, .. } => self.getattr(tag, fid, tree)?,
            Request::Wstat { fid, stat } => return self.wstat(tag, fid, &stat, tree),
            Request::Setattr { fid, valid, size, .. } => {
                self.setattr(tag, fid, valid, size, tree)?;
            }
            Request::Readdir { fid, offset, count } => {
                self.readdir(tag, fid, offset, count, tree)?;
            }
            Request::Statfs { fid } => self.statfs(tag, fid)?,
            Request::Remove { fid } => {
                // The fid is forgotten whether or not the file goes (remove(5)).
                self.fid(fid)?;
                self.fids.remove(&fid);
                return Err(FileError::new(errno::EPERM, "files here cannot be removed"));
            }
            request => return Err(self.refuse(request)),
        }
        Ok(Flow::Next)
    }

    /// Why a request that no file here supports is refused.
    fn refuse(&self, request: Request<'_>) -> FileError {
        let fid = match request {
            Request::Auth { .. } => {
                // Clients take this number for "go on without".
                return FileError::new(errno::ENOENT, "no authentication is required");
            }
            Request::Xattrwalk { fid, .. } => {
                // Tools that look for attributes take this for "none".
                let none = FileError::new(errno::ENODATA, "there are no extended attributes");
                return self.fid(fid).err().unwrap_or(none);
            }
            Request::Create { fid, .. }
            | Request::Lcreate { fid, .. }
            | Request::Symlink { fid, .. }
            | Request::Mknod { dfid: fid, .. }
            | Request::Mkdir { dfid: fid, .. }
            | Request::Link { dfid: fid, .. }
            | Request::Rename { fid, .. }
            | Request::Renameat { olddirfid: fid, .. }
            | Request::Unlinkat { dirfid: fid, .. } => {
                let fixed = "files here are not made, renamed or removed";
                return self.fid(fid).err().unwrap_or(FileError::new(errno::EPERM, fixed));
            }
            Request::Readlink { fid } => {
                let none = FileError::new(errno::EINVAL, "it is not a symbolic link");
                return self.fid(fid).err().unwrap_or(none);
            }
            Request::Xattrcreate { fid, .. }
            | Request::Lock { fid, .. }
            | Request::Getlock { fid, .. } => Some(fid),
            _ => None,
        };
        let unsupported = FileError::new(errno::EOPNOTSUPP, "files here do not support this");
        fid.and_then(|fid| self.fid(fid).err()).unwrap_or(unsupported)
    }

    /// Agrees on a dialect and a size, and starts afresh (version(5)).
    fn version(&mut self, tag: u16, msize: u32, version: &str, tree: &mut T) {
        self.abort(tree);
        self.dialect = None;
        let (most, least) = self.limits.msize;
        if msize < least {
            let message = format!("messages must be allowed at least {least} bytes");
            return self.fail(tag, &FileError::new(errno::EINVAL, message));
        }
        let size = msize.min(most);
        match Dialect::negotiate(version) {
            Some(dialect) => {
                (self.dialect, self.msize) = (Some(dialect), size);
                self.reply(tag, &Reply::Version { msize: size, version: dialect.name() });
            }
            None => self.reply(tag, &Reply::Version { msize: size, version: "unknown" }),
        }
    }
}
