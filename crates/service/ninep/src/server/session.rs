//! A connection: bytes in, bytes out.

use super::error::{FileError, errno};
use super::output::Output;
use super::tree::{Completed, RequestId, Tree};
use crate::wire::{Dialect, Frame, HEADER_BYTES, Reply, Request, UnixErrno};
use std::collections::HashMap;
use std::sync::Arc;
use thiserror::Error;

/// What a client can make its session use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest message, and the smallest that a client may ask for.
    pub msize: (u32, u32),
    /// Fids that are not clunked.
    pub fids: usize,
    /// Requests that are not answered.
    pub requests: usize,
    /// Bytes of answers that are not sent, and of reads that are not answered. One request is
    /// always admitted.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { msize: (1 << 20, 256), fids: 16384, requests: 256, bytes: 8 << 20 }
    }
}

/// Who all files belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The user's name.
    pub name: String,
    /// The user's number.
    pub user: u32,
    /// The group's number.
    pub group: u32,
}

/// Why a session has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CloseReason {
    /// A message's size is impossible, so the next message cannot be found.
    #[error("it sent a message of {0} bytes, which is less than a header or more than agreed on")]
    BadSize(u32),
}

/// Messages that a session works off in a turn.
const MESSAGES_A_TURN: usize = 512;
/// The largest message before a size was negotiated.
const FIRST_MSIZE: u32 = 8192;

/// The server's side of a connection.
pub struct Session<T: Tree> {
    pub(super) id: u32,
    pub(super) limits: Limits,
    pub(super) owner: Arc<Owner>,
    input: Vec<u8>,
    /// The part of `input` that holds bytes that were not worked off.
    start: usize,
    end: usize,
    pub(super) output: Output,
    pub(super) dialect: Option<Dialect>,
    pub(super) msize: u32,
    pub(super) fids: HashMap<u32, Fid<T>>,
    /// Requests whose answer comes later, by place.
    pending: Vec<Option<Pending<T::Pending>>>,
    free: Vec<u32>,
    tags: HashMap<u16, u32>,
    /// Flushes that wait for pending requests.
    flushes: usize,
    /// Bytes that the answers to pending reads may have.
    promised: usize,
    closed: Option<CloseReason>,
    /// Where trees put what they read at once.
    pub(super) scratch: Vec<u8>,
}

/// A file that a client has a number for.
pub(super) struct Fid<T: Tree> {
    pub(super) node: T::Node,
    pub(super) open: Option<Open<T>>,
}

/// A file that a client has opened.
pub(super) struct Open<T: Tree> {
    pub(super) file: T::File,
    pub(super) access: super::Access,
    /// Where the next read of a directory must go on.
    pub(super) next_entry: Option<(u64, usize)>,
}

/// A request whose answer comes later.
#[derive(Debug)]
struct Pending<P> {
    tag: u16,
    what: P,
    kind: PendingKind,
    /// Nobody waits for it any more.
    forgotten: bool,
    /// Flushes to be answered after it.
    flushes: Vec<u16>,
}

/// What kind of request is pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PendingKind {
    /// A read, of at most so many bytes.
    Read(usize),
    /// A write, of so many bytes.
    Write(usize),
    /// A sync, answered like this.
    Sync(SyncReply),
}

/// How a sync is answered: it is a message of 9P2000.L, and a meaning of wstat in the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SyncReply {
    Fsync,
    Wstat,
}

impl SyncReply {
    pub(super) const fn reply(self) -> Reply<'static> {
        match self {
            Self::Fsync => Reply::Fsync {},
            Self::Wstat => Reply::Wstat {},
        }
    }
}

/// Whether the next message can be worked off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// Yes.
    Next,
    /// No: this one has to be tried again.
    Stalled,
}

impl<T: Tree> Session<T> {
    /// A session that was just connected; `id` is in its [`RequestId`]s.
    pub fn new(id: u32, limits: Limits, owner: Arc<Owner>) -> Self {
        Self {
            id,
            limits,
            owner,
            input: Vec::new(),
            start: 0,
            end: 0,
            output: Output::default(),
            dialect: None,
            msize: FIRST_MSIZE,
            fids: HashMap::new(),
            pending: Vec::new(),
            free: Vec::new(),
            tags: HashMap::new(),
            flushes: 0,
            promised: 0,
            closed: None,
            scratch: Vec::new(),
        }
    }

    /// What the client and the server have agreed on.
    pub const fn dialect(&self) -> Option<Dialect> {
        self.dialect
    }

    /// Why the connection has to be closed, once everything was sent.
    pub const fn closed(&self) -> Option<CloseReason> {
        self.closed
    }

    /// Room for bytes to be received; empty if what is there has to be worked off first.
    pub fn room(&mut self) -> &mut [u8] {
        if !self.wants_input() {
            return &mut [];
        }
        let capacity = self.capacity();
        if self.input.len() < capacity {
            self.input.resize(capacity, 0);
        }
        // What is left is moved to the front only if the message that it begins may not fit.
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start + self.msize as usize > capacity {
            let (old, len) = (self.start..self.end, self.end - self.start);
            self.input.copy_within(old.clone(), 0);
            wipe(&mut self.input[old.start.max(len)..old.end]);
            (self.start, self.end) = (0, len);
        }
        &mut self.input[self.end..capacity]
    }

    /// Whether there is room for bytes to be received.
    pub const fn wants_input(&self) -> bool {
        self.closed.is_none() && self.end - self.start < self.msize as usize
    }

    /// Room for a message that is being worked off, and for the next one.
    const fn capacity(&self) -> usize {
        2 * self.msize as usize
    }

    /// The first `count` bytes of the [`room`](Self::room) were received; to be followed by
    /// [`work`](Self::work).
    pub fn received(&mut self, count: usize) {
        self.end += count;
    }

    /// What is to be sent.
    pub fn unsent(&self) -> &[u8] {
        self.output.unsent()
    }

    /// The first `count` bytes of [`unsent`](Self::unsent) were sent.
    pub fn sent(&mut self, count: usize) {
        self.output.sent(count);
    }

    /// Whether no request is left to be worked off or under way, and no answer to be sent.
    pub fn is_idle(&self) -> bool {
        let input = &self.input[self.start..self.end];
        let waiting = matches!(Frame::split(input, self.msize), Ok(Some(_)));
        !waiting && self.pending.len() == self.free.len() && self.unsent().is_empty()
    }

    /// Drops what was received and not worked off.
    pub fn forget_input(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// Works messages off until there is no whole one left, or one has to wait. `true` if it
    /// stopped before that, because others have a right to their turn as well.
    pub fn work(&mut self, tree: &mut T) -> bool {
        for _ in 0..MESSAGES_A_TURN {
            if self.closed.is_some() || !self.has_room() {
                return false;
            }
            let input = std::mem::take(&mut self.input);
            let worked = self.work_one(&input[self.start..self.end], tree);
            self.input = input;
            match worked {
                Some(size) => {
                    wipe(&mut self.input[self.start..self.start + size]);
                    self.start += size;
                }
                None => return false,
            }
        }
        true
    }

    /// Works off the message at the start of `bytes`; its size, or `None` if it has to wait.
    fn work_one(&mut self, bytes: &[u8], tree: &mut T) -> Option<usize> {
        let Frame { number, tag, body, size } = match Frame::split(bytes, self.msize) {
            Ok(frame) => frame?,
            Err(size) => {
                self.closed = Some(CloseReason::BadSize(size));
                return None;
            }
        };
        let dialect = self.dialect.unwrap_or(Dialect::Plan9);
        let flow = match Request::decode(number, body, dialect) {
            Ok(request) => self.dispatch(tag, request, tree),
            Err(error) => {
                let error = FileError::new(errno::EPROTO, format!("malformed message: {error}"));
                self.fail(tag, &error);
                Flow::Next
            }
        };
        (flow == Flow::Next).then_some(size)
    }

    /// Whether the client may ask for more now.
    fn has_room(&self) -> bool {
        let pending = self.pending.len() - self.free.len() + self.flushes;
        let bytes = self.output.unsent().len() + self.promised;
        pending < self.limits.requests && bytes < self.limits.bytes
    }

    /// Whether a read of `count` bytes may be under way in addition to what is.
    pub(super) fn may_promise(&self, count: usize) -> bool {
        let bytes = self.output.unsent().len() + self.promised;
        bytes == 0 || bytes + count <= self.limits.bytes
    }

    /// Answers.
    pub(super) fn reply(&mut self, tag: u16, reply: &Reply<'_>) {
        self.output.reply(tag, reply, self.dialect.unwrap_or(Dialect::Plan9));
    }

    /// Answers with an error.
    pub(super) fn fail(&mut self, tag: u16, error: &FileError) {
        // What else is in it: the text's length, and the number.
        let room = self.msize as usize - HEADER_BYTES - 2 - 4;
        let message = &error.message[..error.message.floor_char_boundary(room)];
        let reply = match self.dialect {
            Some(Dialect::Linux) => Reply::Lerror { errno: error.number },
            _ => Reply::Error { message, errno: UnixErrno(error.number) },
        };
        self.reply(tag, &reply);
    }

    /// Answers with data that was read at once.
    pub(super) fn reply_data(&mut self, tag: u16, size: usize, copy: impl FnOnce(&mut [u8])) {
        const RREAD: u8 = 117;
        const DATA: usize = HEADER_BYTES + 4;
        let bytes = self.output.append(DATA + size);
        bytes[..4].copy_from_slice(&((DATA + size) as u32).to_le_bytes());
        bytes[4] = RREAD;
        bytes[5..7].copy_from_slice(&tag.to_le_bytes());
        bytes[7..DATA].copy_from_slice(&(size as u32).to_le_bytes());
        copy(&mut bytes[DATA..]);
    }

    /// The name that the next request will have if it is answered later.
    pub(super) fn next_request(&mut self) -> RequestId {
        let place = self.free.last().copied().unwrap_or_else(|| {
            self.pending.push(None);
            self.free.push(self.pending.len() as u32 - 1);
            self.pending.len() as u32 - 1
        });
        RequestId { session: self.id, place }
    }

    /// Whether a request with this tag is not answered yet.
    pub(super) fn is_pending(&self, tag: u16) -> bool {
        self.tags.contains_key(&tag)
    }

    /// Notes that the request whose name was asked for last is answered later.
    pub(super) fn later(&mut self, tag: u16, what: T::Pending, kind: PendingKind) {
        let Some(place) = self.free.pop() else { return };
        if let PendingKind::Read(count) = kind {
            self.promised += count;
        }
        self.tags.insert(tag, place);
        let pending = Pending { tag, what, kind, forgotten: false, flushes: Vec::new() };
        self.pending[place as usize] = Some(pending);
    }

    /// Passes on an answer that was to come later.
    pub fn complete(&mut self, request: RequestId, completed: Completed<'_>) {
        let place = self.pending.get_mut(request.place as usize);
        let Some(pending) = place.and_then(Option::take) else { return };
        self.free.push(request.place);
        if let PendingKind::Read(count) = pending.kind {
            self.promised -= count;
        }
        if !pending.forgotten {
            self.tags.remove(&pending.tag);
            match (completed, pending.kind) {
                (Completed::Failed(error), _) => self.fail(pending.tag, &error),
                (Completed::Data(data), _) => {
                    self.reply_data(pending.tag, data.size(), |bytes| data.copy_to(bytes));
                }
                (_, PendingKind::Sync(how)) => self.reply(pending.tag, &how.reply()),
                (Completed::Count(count), _) | (Completed::All, PendingKind::Write(count)) => {
                    self.reply(pending.tag, &Reply::Write { count: count as u32 });
                }
                (Completed::All, PendingKind::Read(_)) => {
                    self.reply_data(pending.tag, 0, |_| {});
                }
            }
        }
        self.flushes -= pending.flushes.len();
        pending.flushes.iter().for_each(|tag| self.reply(*tag, &Reply::Flush {}));
    }

    /// The client is no longer interested in the request with the tag `old` (flush(5)).
    pub(super) fn flush(&mut self, tag: u16, old: u16, tree: &mut T) {
        let place = self.tags.get(&old).copied();
        let slot = place.and_then(|place| self.pending.get_mut(place as usize));
        let Some(pending) = slot.and_then(Option::as_mut) else {
            // It was answered, or never asked.
            return self.reply(tag, &Reply::Flush {});
        };
        let (what, kind) = (pending.what, pending.kind);
        let first = pending.flushes.is_empty();
        if first && tree.cancel(what) {
            self.tags.remove(&old);
            self.withdraw(place.unwrap_or_default());
            self.reply(tag, &Reply::Flush {});
        } else if let PendingKind::Read(_) = kind {
            pending.forgotten = true;
            self.tags.remove(&old);
            self.reply(tag, &Reply::Flush {});
        } else {
            pending.flushes.push(tag);
            self.flushes += 1;
        }
    }

    fn withdraw(&mut self, place: u32) {
        if let Some(Pending { kind: PendingKind::Read(count), .. }) =
            self.pending[place as usize].take()
        {
            self.promised -= count;
        }
        self.free.push(place);
    }

    /// Starts afresh: nothing that was asked is answered, and no fid is left (version(5)).
    pub(super) fn abort(&mut self, tree: &mut T) {
        self.fids.clear();
        self.tags.clear();
        for place in 0..self.pending.len() as u32 {
            let Some(pending) = &mut self.pending[place as usize] else { continue };
            pending.forgotten = true;
            self.flushes -= pending.flushes.len();
            pending.flushes.clear();
            if tree.cancel(pending.what) {
                self.withdraw(place);
            }
        }
    }

    /// The connection is gone: withdraws what can be withdrawn. What cannot will complete, and its
    /// answer is to be dropped.
    pub fn disconnect(&mut self, tree: &mut T) {
        self.abort(tree);
    }
}

/// Wipes what is short enough to be a command, which may hold a password; transfers are longer.
fn wipe(bytes: &mut [u8]) {
    const MOST: usize = 1024;
    if bytes.len() <= MOST {
        bytes.fill(0);
        // Lest the compiler finds that nobody looks at it any more.
        std::hint::black_box(bytes);
    }
}

impl<T: Tree> std::fmt::Debug for Session<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("dialect", &self.dialect)
            .field("msize", &self.msize)
            .field("fids", &self.fids.len())
            .field("pending", &(self.pending.len() - self.free.len()))
            .finish_non_exhaustive()
    }
}
