//! The tree over [`Disks`].

use super::command::{BROADCAST, Broadcast};
use super::error;
use super::kept::{Kept, Text};
use super::node::{Node, WHOLE};
use super::text;
use crate::server::{Access, Answer, Attributes, Data, FileError, RequestId, Tree, errno};
use outboard_block::disk::{DiskId, Disks, Done, JobId, Outcome, ReadData, Refusal, Token};
use outboard_block::manage::Switch;
use outboard_block::{Durability, Health, Management, UnitState};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The tree of disks.
#[derive(Debug)]
pub struct SdTree {
    pub(super) disks: Disks,
    /// Time of the files, in seconds since 1970.
    time: u32,
    /// Commands to all disks that are not done, by number.
    pub(super) broadcasts: HashMap<u32, Broadcast>,
    /// What else of requests under way is to be known when they are done.
    pub(super) waiting: HashMap<RequestId, Waiting>,
    kept: Kept,
    pub(super) last_broadcast: u32,
}

/// A file that is open.
#[derive(Debug)]
pub struct SdFile {
    node: Node,
    durability: Durability,
    /// Generation of its disk when it was opened; it is of no use with another one.
    generation: Option<u32>,
    text: SharedText,
}

/// What a text file said when it was last read from its start. The answer to a read that waits for
/// the disk puts it there.
type SharedText = Arc<Mutex<Option<Text>>>;

/// A request that is answered later.
#[derive(Debug, Clone, Copy)]
pub struct SdPending {
    pub(super) job: Option<JobId>,
    pub(super) request: RequestId,
}

/// A request under way that is more than a transfer.
#[derive(Debug)]
pub(super) enum Waiting {
    /// A command beside the data.
    Order(Management),
    /// A read of a disk's health from its start, for which the disk is asked first.
    Health { count: usize, text: SharedText },
}

/// An answer that was to come later.
#[derive(Debug)]
pub enum SdDone {
    /// To a read. To be given back with [`SdTree::recycle`].
    Data(DiskId, ReadData),
    /// To a read of a text.
    Text(Excerpt),
    /// To a write: this many bytes.
    Count(usize),
    /// To a command or a sync.
    All,
}

/// Part of a text.
#[derive(Debug)]
pub struct Excerpt(Vec<u8>);

impl Data for Excerpt {
    fn size(&self) -> usize {
        self.0.len()
    }

    fn copy_to(&self, into: &mut [u8]) {
        into.copy_from_slice(&self.0[..into.len()]);
    }
}

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
        let (broadcasts, waiting) = (HashMap::new(), HashMap::new());
        Self { disks, time, broadcasts, waiting, kept: Kept::default(), last_broadcast: 0 }
    }

    /// The disks.
    pub const fn disks(&mut self) -> &mut Disks {
        &mut self.disks
    }

    /// The next answer that was to come later, with whom it is for.
    pub fn next_done(&mut self) -> Option<(RequestId, Result<SdDone, FileError>)> {
        loop {
            let done = self.disks.next_done()?;
            if let Some(answer) = self.ended(done) {
                return Some(answer);
            }
        }
    }

    /// What a request that has ended at the disks means for whoever waits for it, if anybody does.
    /// For owners of disks that other front ends use as well, who take what ends out themselves.
    pub fn ended(&mut self, done: Done) -> Option<(RequestId, Result<SdDone, FileError>)> {
        let Done { token, disk, result } = done;
        let request = RequestId { session: (token.0 >> 32) as u32, place: token.0 as u32 };
        if request.session == BROADCAST {
            let failure = result.err().map(|error| error::failed(&self.disks, disk, error));
            return self.broadcast_done(request.place, failure);
        }
        let waiting = self.waiting.remove(&request);
        let result = result.map_err(|error| match &waiting {
            Some(Waiting::Order(what)) => error::not_managed(&self.disks, disk, *what, error),
            Some(Waiting::Health { .. }) => {
                error::not_managed(&self.disks, disk, Management::ReadHealth, error)
            }
            None => error::failed(&self.disks, disk, error),
        });
        let done = result.map(|outcome| match (outcome, waiting) {
            (Outcome::Read(data), _) => SdDone::Data(disk, data),
            (Outcome::Written(count) | Outcome::Lent(count), _) => SdDone::Count(count),
            (Outcome::Finished, Some(Waiting::Health { count, text })) => {
                let said = text::smart(&self.health(disk));
                let excerpt = Excerpt(excerpt(&said, 0, count).to_vec());
                *text.lock().unwrap_or_else(PoisonError::into_inner) = self.kept.keep(said);
                SdDone::Text(excerpt)
            }
            (Outcome::Finished, _) => SdDone::All,
        });
        Some((request, done))
    }

    /// Takes memory back that came with an answer.
    pub fn recycle(&mut self, disk: DiskId, data: ReadData) {
        self.disks.recycle(disk, data);
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
            Node::DiskStats(disk) => Some(text::disk_stats(&self.disks, disk)),
            Node::Smart(disk) => Some(text::smart(&self.health(disk))),
            _ => None,
        }
    }

    /// What a disk said of its health when it was last asked.
    fn health(&self, disk: DiskId) -> Health {
        self.disks.health(disk).cloned().unwrap_or_default()
    }

    /// Asks a disk for its health, to answer a read of it.
    fn ask_health(
        &mut self,
        disk: DiskId,
        waiting: Waiting,
        request: RequestId,
    ) -> Result<Answer<SdPending>, FileError> {
        let info = self.disks.info(disk).ok_or_else(error::gone)?;
        if info.features.health == Switch::Off {
            let name = info.name;
            let message = format!(
                "{name}: health reporting (SMART) is off. To switch it on: outboard disk smart \
                 {name} --enable on, or write \"smart on\" to {name}/ctl"
            );
            return Err(FileError::new(errno::EOPNOTSUPP, message));
        }
        let accepted = self.disks.manage(disk, Management::ReadHealth, None, token(request));
        if accepted.is_ok() {
            self.waiting.insert(request, waiting);
        }
        later(&self.disks, disk, accepted.map(Some), request)
    }

    /// Refuses a file that was opened when its disk was another.
    fn check_generation(&self, file: &SdFile) -> Result<(), FileError> {
        match file.node.disk() {
            Some(disk) if self.disks.generation(disk) != file.generation => {
                Err(error::stale(&self.disks, disk))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a drive without a medium, which has no bytes rather than none left.
    fn check_medium(&self, disk: DiskId) -> Result<(), FileError> {
        match self.disks.state(disk) {
            Some(UnitState::Empty) => Err(error::refused(&self.disks, disk, Refusal::NoMedium)),
            _ => Ok(()),
        }
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
                let disks = self.disks.ids().filter(|disk| self.disks.is_present(*disk));
                let disks = disks.map(Node::Disk);
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
        let disk = node.disk();
        let generation = match disk {
            Some(disk) if !self.disks.is_present(disk) => return Err(error::gone()),
            disk => disk.and_then(|disk| self.disks.generation(disk)).unwrap_or_default(),
        };
        let name = self.name(*node).ok_or_else(error::gone)?;
        let writable =
            disk.and_then(|disk| self.disks.geometry(disk)).is_some_and(|g| !g.read_only);
        let (permissions, bytes) = match node.volume() {
            _ if node.is_directory() => (0o555, 0),
            Some((disk, volume)) => {
                let (_, bytes) = self.extent(disk, volume).ok_or_else(error::gone)?;
                (if writable { 0o600 } else { 0o400 }, bytes)
            }
            None => {
                let bytes = self.text(*node).map_or(0, |text| text.len() as u64);
                let control = matches!(node, Node::TopControl | Node::Control(_));
                (if control { 0o600 } else { 0o400 }, bytes)
            }
        };
        Ok(Attributes { qid: node.qid(generation), name, permissions, bytes, modified: self.time })
    }

    fn open(&mut self, node: &Node, access: Access) -> Result<SdFile, FileError> {
        let durability = if access.durable { Durability::Durable } else { Durability::Cached };
        let generation = node.disk().and_then(|disk| self.disks.generation(disk));
        Ok(SdFile { node: *node, durability, generation, text: SharedText::default() })
    }

    fn read(
        &mut self,
        file: &mut SdFile,
        offset: u64,
        count: usize,
        into: &mut Vec<u8>,
        request: RequestId,
    ) -> Result<Answer<SdPending>, FileError> {
        self.check_generation(file)?;
        let Some((disk, volume)) = file.node.volume() else {
            let mut kept = file.text.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(kept) = kept.as_ref().filter(|_| offset > 0) {
                into.extend_from_slice(excerpt(&kept.text, offset, count));
                return Ok(Answer::Now(into.len()));
            }
            *kept = None;
            drop(kept);
            if let Node::Smart(disk) = file.node
                && offset == 0
            {
                let text = file.text.clone();
                return self.ask_health(disk, Waiting::Health { count, text }, request);
            }
            let text = self.text(file.node).unwrap_or_default();
            into.extend_from_slice(excerpt(&text, offset, count));
            *file.text.lock().unwrap_or_else(PoisonError::into_inner) = self.kept.keep(text);
            return Ok(Answer::Now(into.len()));
        };
        self.check_medium(disk)?;
        let (start, bytes) = self.extent(disk, volume).ok_or_else(error::gone)?;
        let left = bytes.saturating_sub(offset);
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(count);
        if count == 0 {
            return Ok(Answer::Now(0));
        }
        let accepted = self.disks.read(disk, start + offset, count, token(request)).map(Some);
        later(&self.disks, disk, accepted, request)
    }

    fn write(
        &mut self,
        file: &mut SdFile,
        offset: u64,
        data: &[u8],
        request: RequestId,
    ) -> Result<Answer<SdPending>, FileError> {
        self.check_generation(file)?;
        let Some((disk, volume)) = file.node.volume() else {
            return match file.node {
                Node::TopControl => self.command_to_all(data, request),
                Node::Control(disk) => self.command(disk, data, request),
                _ => Err(FileError::new(errno::EBADF, "it cannot be written")),
            };
        };
        self.check_medium(disk)?;
        let (start, bytes) = self.extent(disk, volume).ok_or_else(error::gone)?;
        if offset.checked_add(data.len() as u64).is_none_or(|end| end > bytes) {
            let path = self.path(file.node);
            let message = format!("{path} ends at byte {bytes}; this write was not carried out");
            return Err(FileError::new(errno::ENOSPC, message));
        }
        if data.is_empty() {
            return Ok(Answer::Now(0));
        }
        let durability = file.durability;
        let token = token(request);
        let accepted = self.disks.write(disk, start + offset, data, durability, token).map(Some);
        later(&self.disks, disk, accepted, request)
    }

    fn sync(
        &mut self,
        file: &mut SdFile,
        request: RequestId,
    ) -> Result<Answer<SdPending>, FileError> {
        // A command is done when it is answered, and a disk that was told to sleep is let sleep.
        let Some((disk, _)) = file.node.volume() else { return Ok(Answer::Now(0)) };
        self.check_generation(file)?;
        let accepted = self.disks.flush(disk, token(request)).map(Some);
        later(&self.disks, disk, accepted, request)
    }

    fn cancel(&mut self, pending: SdPending) -> bool {
        let withdrawn = pending.job.is_some_and(|job| self.disks.cancel(job));
        if withdrawn {
            self.waiting.remove(&pending.request);
        }
        withdrawn
    }
}

/// Up to `count` bytes of a text from `offset` on.
fn excerpt(text: &str, offset: u64, count: usize) -> &[u8] {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let rest = text.as_bytes().get(start..).unwrap_or_default();
    &rest[..count.min(rest.len())]
}

pub(super) fn token(request: RequestId) -> Token {
    Token(u64::from(request.session) << 32 | u64::from(request.place))
}

/// The answer to a request that was accepted, or not.
pub(super) fn later(
    disks: &Disks,
    disk: DiskId,
    accepted: Result<Option<JobId>, Refusal>,
    request: RequestId,
) -> Result<Answer<SdPending>, FileError> {
    match accepted {
        Ok(job) => Ok(Answer::Later(SdPending { job, request })),
        Err(Refusal::Busy) => Ok(Answer::Busy),
        Err(refusal) => Err(error::refused(disks, disk, refusal)),
    }
}
