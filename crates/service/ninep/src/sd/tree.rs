//! The tree over [`Disks`].

use super::control::Command;
use super::kept::{Kept, Text};
use super::node::{Node, WHOLE};
use super::text;
use crate::server::{Access, Answer, Attributes, Data, FileError, RequestId, Tree, errno};
use outboard_block::BlockError;
use outboard_block::Durability;
use outboard_block::disk::{
    DiskError, DiskId, Disks, Done, JobId, Outcome, ReadData, Refusal, Token, VolumeError,
};
use std::collections::HashMap;

/// The tree of disks.
#[derive(Debug)]
pub struct SdTree {
    disks: Disks,
    /// Time of the files, in seconds since 1970.
    time: u32,
    /// Commands to all disks that are not done, by number.
    broadcasts: HashMap<u32, Broadcast>,
    kept: Kept,
    last_broadcast: u32,
}

/// A file that is open.
#[derive(Debug)]
pub struct SdFile {
    node: Node,
    durability: Durability,
    /// What a text file said when it was last read from its start.
    text: Option<Text>,
}

/// A request that is answered later.
#[derive(Debug, Clone, Copy)]
pub struct SdPending(Option<JobId>);

/// A command to all disks.
#[derive(Debug)]
struct Broadcast {
    request: RequestId,
    left: usize,
    failure: Option<FileError>,
}

/// An answer that was to come later.
#[derive(Debug)]
pub enum SdDone {
    /// To a read. To be given back with [`SdTree::recycle`].
    Data(DiskId, ReadData),
    /// To a write: this many bytes.
    Count(usize),
    /// To a command or a sync.
    All,
}

/// Session number in the tokens of commands to all disks; no session has it.
const BROADCAST: u32 = u32::MAX;

impl Data for ReadData {
    fn size(&self) -> usize {
        self.len()
    }

    fn copy_to(&self, into: &mut [u8]) {
        Self::copy_to(self, into);
    }
}

impl SdTree {
    /// The tree over `disks`, whose files are as old as `time`, in seconds since 1970.
    pub fn new(disks: Disks, time: u32) -> Self {
        let (broadcasts, kept) = (HashMap::new(), Kept::default());
        Self { disks, time, broadcasts, kept, last_broadcast: 0 }
    }

    /// The disks.
    pub const fn disks(&mut self) -> &mut Disks {
        &mut self.disks
    }

    /// The next answer that was to come later, with whom it is for.
    pub fn next_done(&mut self) -> Option<(RequestId, Result<SdDone, FileError>)> {
        loop {
            let Done { token, disk, result } = self.disks.next_done()?;
            let result = result.map_err(|error| self.describe(disk, error));
            let request = RequestId { session: (token.0 >> 32) as u32, place: token.0 as u32 };
            if request.session == BROADCAST {
                if let Some(done) = self.broadcast_done(request.place, result.err()) {
                    return Some(done);
                }
                continue;
            }
            let done = result.map(|outcome| match outcome {
                Outcome::Read(data) => SdDone::Data(disk, data),
                Outcome::Written(count) => SdDone::Count(count),
                Outcome::Finished => SdDone::All,
            });
            return Some((request, done));
        }
    }

    /// Takes memory back that came with an answer.
    pub fn recycle(&mut self, disk: DiskId, data: ReadData) {
        self.disks.recycle(disk, data);
    }

    /// A disk's error in words, with the number that goes with it.
    fn describe(&self, disk: DiskId, error: DiskError) -> FileError {
        let name = self.disks.info(disk).map(|info| info.name).unwrap_or_default();
        let number = match error.error {
            BlockError::Gone => errno::ENODEV,
            BlockError::Timeout => errno::ETIMEDOUT,
            BlockError::WriteProtected => errno::EROFS,
            BlockError::Unsupported => errno::EOPNOTSUPP,
            _ => errno::EIO,
        };
        FileError::new(number, format!("{name}: {error}"))
    }

    /// Where a volume lies, in bytes, if it is still there.
    fn extent(&self, disk: DiskId, volume: u32) -> Option<(u64, u64)> {
        let geometry = self.disks.geometry(disk)?;
        if volume == WHOLE {
            return Some((0, geometry.bytes()));
        }
        let volume = self.disks.volumes(disk).iter().find(|found| found.id == volume)?;
        let sector = u64::from(geometry.sector_bytes);
        Some((volume.first_lba * sector, volume.sectors * sector))
    }

    fn name(&self, node: Node) -> Option<String> {
        match node {
            Node::Disk(disk) => self.disks.info(disk).map(|info| info.name),
            Node::Part(_, WHOLE) => Some("0".into()),
            Node::Part(disk, volume) => {
                let found = self.disks.volumes(disk).iter().find(|found| found.id == volume);
                found.map(|found| found.name.clone())
            }
            node => node.fixed_name().map(str::to_owned),
        }
    }

    /// Where a file of a disk is in the tree.
    fn path(&self, node: Node) -> String {
        let up = |node: &Node| (node.parent() != Node::Root).then_some(node.parent());
        let names = std::iter::successors(Some(node), up).filter_map(|node| self.name(node));
        names.reduce(|below, above| format!("{above}/{below}")).unwrap_or_default()
    }

    /// The text of a file that is made up when it is read.
    fn text(&self, node: Node) -> Option<String> {
        match node {
            Node::TopControl => Some(text::top_control(&self.disks)),
            Node::Stats => Some(text::stats(&self.disks)),
            Node::Control(disk) => Some(text::control(&self.disks, disk)),
            Node::Geometry(disk) => Some(text::geometry(&self.disks, disk)),
            _ => None,
        }
    }

    fn command(
        &mut self,
        disk: DiskId,
        data: &[u8],
        request: RequestId,
    ) -> Result<Answer<SdPending>, FileError> {
        let token = token(request);
        let now = Answer::Now(data.len());
        let accepted = match Command::parse(data)? {
            Command::Flush => self.disks.flush(disk, token).map(Some),
            Command::Rescan => self.disks.rescan(disk, Some(token)).map(|()| None),
            Command::Trim { start, count } => {
                self.disks.discard(disk, start, count, token).map(Some)
            }
            Command::Part { name, start, end } => {
                let added = self.disks.add_volume(disk, name, start, end);
                return added.map(|()| now).map_err(volume_error);
            }
            Command::DeletePart { name } => {
                return self.disks.remove_volume(disk, name).map(|()| now).map_err(volume_error);
            }
        };
        later(accepted)
    }

    fn command_to_all(
        &mut self,
        data: &[u8],
        request: RequestId,
    ) -> Result<Answer<SdPending>, FileError> {
        let command = Command::parse_top(data)?;
        self.last_broadcast = self.last_broadcast.wrapping_add(1);
        let number = self.last_broadcast;
        let token = token(RequestId { session: BROADCAST, place: number });
        let mut left = 0;
        for disk in self.disks.ids() {
            let accepted = match command {
                Command::Flush => self.disks.flush(disk, token).map(drop),
                _ => self.disks.rescan(disk, Some(token)),
            };
            match accepted {
                Ok(()) => left += 1,
                // Nothing was started, so the whole command can wait.
                Err(Refusal::Busy) if left == 0 => return Ok(Answer::Busy),
                Err(refusal) if left == 0 => return Err(refused(refusal)),
                // The rest is not done, and the answer will say so.
                Err(refusal) => {
                    let failure = Some(refused(refusal));
                    self.broadcasts.insert(number, Broadcast { request, left, failure });
                    return Ok(Answer::Later(SdPending(None)));
                }
            }
        }
        if left == 0 {
            return Ok(Answer::Now(data.len()));
        }
        self.broadcasts.insert(number, Broadcast { request, left, failure: None });
        Ok(Answer::Later(SdPending(None)))
    }

    /// One disk is done with a command to all; the answer, if it was the last.
    fn broadcast_done(
        &mut self,
        number: u32,
        failure: Option<FileError>,
    ) -> Option<(RequestId, Result<SdDone, FileError>)> {
        let broadcast = self.broadcasts.get_mut(&number)?;
        broadcast.left -= 1;
        broadcast.failure = broadcast.failure.take().or(failure);
        if broadcast.left > 0 {
            return None;
        }
        let Broadcast { request, failure, .. } = self.broadcasts.remove(&number)?;
        Some((request, failure.map_or(Ok(SdDone::All), Err)))
    }
}

impl Tree for SdTree {
    type Node = Node;
    type File = SdFile;
    type Pending = SdPending;

    fn root(&self) -> Node {
        Node::Root
    }

    fn parent(&self, node: &Node) -> Node {
        node.parent()
    }

    fn child(&self, directory: &Node, name: &str) -> Result<Node, FileError> {
        let missing = || FileError::new(errno::ENOENT, format!("there is no file {name:?} here"));
        if let Node::Parts(disk) = *directory {
            let named = self.disks.volumes(disk).iter().find(|volume| volume.name == name);
            let id = named.map(|volume| volume.id).or((name == "0").then_some(WHOLE));
            return id.map(|id| Node::Part(disk, id)).ok_or_else(missing);
        }
        let mut children = self.children(directory).into_iter();
        children.find(|node| self.name(*node).as_deref() == Some(name)).ok_or_else(missing)
    }

    fn children(&self, directory: &Node) -> Vec<Node> {
        match *directory {
            Node::Root => {
                let disks = self.disks.ids().map(Node::Disk);
                [Node::TopControl, Node::Stats].into_iter().chain(disks).collect()
            }
            Node::Disk(disk) => Node::of_disk(disk).to_vec(),
            Node::Parts(disk) => {
                let volumes = self.disks.volumes(disk).iter().map(|volume| volume.id);
                [WHOLE].into_iter().chain(volumes).map(|id| Node::Part(disk, id)).collect()
            }
            _ => Vec::new(),
        }
    }

    fn is_directory(&self, node: &Node) -> bool {
        node.is_directory()
    }

    fn attributes(&self, node: &Node) -> Result<Attributes, FileError> {
        let name = self.name(*node).ok_or_else(gone)?;
        let writable =
            node.disk().and_then(|disk| self.disks.geometry(disk)).is_some_and(|g| !g.read_only);
        let (permissions, bytes) = match node.volume() {
            _ if node.is_directory() => (0o555, 0),
            Some((disk, volume)) => {
                let (_, bytes) = self.extent(disk, volume).ok_or_else(gone)?;
                (if writable { 0o600 } else { 0o400 }, bytes)
            }
            None => {
                let bytes = self.text(*node).map_or(0, |text| text.len() as u64);
                let control = matches!(node, Node::TopControl | Node::Control(_));
                (if control { 0o600 } else { 0o400 }, bytes)
            }
        };
        Ok(Attributes { qid: node.qid(), name, permissions, bytes, modified: self.time })
    }

    fn open(&mut self, node: &Node, access: Access) -> Result<SdFile, FileError> {
        let durability = if access.durable { Durability::Durable } else { Durability::Cached };
        Ok(SdFile { node: *node, durability, text: None })
    }

    fn read(
        &mut self,
        file: &mut SdFile,
        offset: u64,
        count: usize,
        into: &mut Vec<u8>,
        request: RequestId,
    ) -> Result<Answer<SdPending>, FileError> {
        let Some((disk, volume)) = file.node.volume() else {
            let mut copy = |text: &str| {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let rest = text.as_bytes().get(start..).unwrap_or_default();
                into.extend_from_slice(&rest[..count.min(rest.len())]);
                Ok(Answer::Now(into.len()))
            };
            if let Some(kept) = file.text.take().filter(|_| offset > 0) {
                return copy(&file.text.insert(kept).text);
            }
            let text = self.text(file.node).unwrap_or_default();
            let copied = copy(&text);
            file.text = self.kept.keep(text);
            return copied;
        };
        let (start, bytes) = self.extent(disk, volume).ok_or_else(gone)?;
        let left = bytes.saturating_sub(offset);
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(count);
        if count == 0 {
            return Ok(Answer::Now(0));
        }
        later(self.disks.read(disk, start + offset, count, token(request)).map(Some))
    }

    fn write(
        &mut self,
        file: &mut SdFile,
        offset: u64,
        data: &[u8],
        request: RequestId,
    ) -> Result<Answer<SdPending>, FileError> {
        let Some((disk, volume)) = file.node.volume() else {
            return match file.node {
                Node::TopControl => self.command_to_all(data, request),
                Node::Control(disk) => self.command(disk, data, request),
                _ => Err(FileError::new(errno::EBADF, "it cannot be written")),
            };
        };
        let (start, bytes) = self.extent(disk, volume).ok_or_else(gone)?;
        if offset.checked_add(data.len() as u64).is_none_or(|end| end > bytes) {
            let path = self.path(file.node);
            let message = format!("{path} ends at byte {bytes}; this write was not carried out");
            return Err(FileError::new(errno::ENOSPC, message));
        }
        if data.is_empty() {
            return Ok(Answer::Now(0));
        }
        let durability = file.durability;
        later(self.disks.write(disk, start + offset, data, durability, token(request)).map(Some))
    }

    fn sync(
        &mut self,
        file: &mut SdFile,
        request: RequestId,
    ) -> Result<Answer<SdPending>, FileError> {
        match file.node.disk() {
            Some(disk) => later(self.disks.flush(disk, token(request)).map(Some)),
            None => Ok(Answer::Now(0)),
        }
    }

    fn cancel(&mut self, pending: SdPending) -> bool {
        pending.0.is_some_and(|job| self.disks.cancel(job))
    }
}

fn token(request: RequestId) -> Token {
    Token(u64::from(request.session) << 32 | u64::from(request.place))
}

fn later(accepted: Result<Option<JobId>, Refusal>) -> Result<Answer<SdPending>, FileError> {
    match accepted {
        Ok(job) => Ok(Answer::Later(SdPending(job))),
        Err(Refusal::Busy) => Ok(Answer::Busy),
        Err(refusal) => Err(refused(refusal)),
    }
}

fn refused(refusal: Refusal) -> FileError {
    let number = match refusal {
        Refusal::ReadOnly => errno::EROFS,
        Refusal::NoDisk => errno::ENODEV,
        Refusal::Unsupported => errno::EOPNOTSUPP,
        Refusal::NoMemory => errno::ENOMEM,
        _ => errno::EINVAL,
    };
    FileError::new(number, refusal.to_string())
}

fn volume_error(error: VolumeError) -> FileError {
    let number = match error {
        VolumeError::Exists => errno::EEXIST,
        VolumeError::Missing => errno::ENOENT,
        _ => errno::EINVAL,
    };
    FileError::new(number, error.to_string())
}

fn gone() -> FileError {
    FileError::new(errno::ENODEV, "the partition is gone; walk to it again")
}
