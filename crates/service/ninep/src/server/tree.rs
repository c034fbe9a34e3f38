//! What a server needs of the files that it serves.

use super::error::FileError;
use crate::wire::Qid;

/// The files that are served.
///
/// One tree serves many sessions. Nothing in it blocks: what takes time is answered later.
pub trait Tree {
    /// A file or directory, as a fid refers to it. It may have gone meanwhile.
    type Node: Clone;
    /// A file or directory that is open.
    type File;
    /// A request that is answered later.
    type Pending: Copy;

    /// The directory that everything is in.
    fn root(&self) -> Self::Node;

    /// The directory that a node is in; the root is in itself.
    fn parent(&self, node: &Self::Node) -> Self::Node;

    /// The node of that name in a directory.
    fn child(&self, directory: &Self::Node, name: &str) -> Result<Self::Node, FileError>;

    /// Everything in a directory, always in the same order.
    fn children(&self, directory: &Self::Node) -> Vec<Self::Node>;

    /// Whether a node is a directory. It stays one, or none.
    fn is_directory(&self, node: &Self::Node) -> bool;

    /// What is said about a node.
    fn attributes(&self, node: &Self::Node) -> Result<Attributes, FileError>;

    /// Opens a node. The session has checked the permissions.
    fn open(&mut self, node: &Self::Node, access: Access) -> Result<Self::File, FileError>;

    /// Reads up to `count` bytes from `offset` on and appends them to `into`; none at the end.
    fn read(
        &mut self,
        file: &mut Self::File,
        offset: u64,
        count: usize,
        into: &mut Vec<u8>,
        request: RequestId,
    ) -> Result<Answer<Self::Pending>, FileError>;

    /// Writes at `offset`.
    fn write(
        &mut self,
        file: &mut Self::File,
        offset: u64,
        data: &[u8],
        request: RequestId,
    ) -> Result<Answer<Self::Pending>, FileError>;

    /// Makes what was written to a file durable.
    fn sync(
        &mut self,
        file: &mut Self::File,
        request: RequestId,
    ) -> Result<Answer<Self::Pending>, FileError>;

    /// Withdraws a request that was not started; whether that was so. Its answer does not come
    /// then.
    fn cancel(&mut self, pending: Self::Pending) -> bool;
}

/// The server's name for a request whose answer comes later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId {
    /// Which session it came in.
    pub session: u32,
    /// Its place in that session.
    pub place: u32,
}

/// How a tree answers.
#[derive(Debug)]
pub enum Answer<P> {
    /// At once: this many bytes were read or written.
    Now(usize),
    /// Later, through [`Session::complete`](super::Session::complete).
    Later(P),
    /// Not yet: there is too much under way. To be asked again after something else was answered.
    Busy,
}

/// An answer that comes later.
#[derive(Debug)]
pub enum Completed<'a> {
    /// To a read.
    Data(&'a dyn Data),
    /// To a write: this many bytes were written.
    Count(usize),
    /// To a write or a sync: all of it was done.
    All,
    /// Neither: it failed.
    Failed(FileError),
}

/// Bytes that are copied right to where they are sent from.
pub trait Data: core::fmt::Debug {
    /// How many there are.
    fn size(&self) -> usize;
    /// Copies the first bytes out; `into` is no longer than they are.
    fn copy_to(&self, into: &mut [u8]);
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Access {
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
    /// Writes are answered once they are durable.
    pub durable: bool,
}

/// What is said about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// What the server knows it by.
    pub qid: Qid,
    /// Last element of its path.
    pub name: String,
    /// Permissions, as in Unix: the lower nine bits.
    pub permissions: u32,
    /// Length in bytes.
    pub bytes: u64,
    /// Last change, in seconds since 1970.
    pub modified: u32,
}
