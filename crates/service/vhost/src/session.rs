//! One client, from its connection to its end.

use crate::chain::Piece;
use crate::config::{self, MAX_QUEUES};
use crate::error::Violation;
use crate::inflight::Inflight;
use crate::memory::Memory;
use crate::queue::{Vring, signal};
use crate::request::{Request, Step};
use crate::socket::{Received, Socket};
use outboard_block::disk::{DiskId, DiskInfo, Disks, Done, Outcome, Token};
use outboard_block::{Durability, Identity};
use outboard_virtio::spec::blk::{BlkFeatures, STATUS_IO_ERROR};
use outboard_virtio::spec::vhost_user::{Header, ProtocolFeatures, backend_request};
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io;
use rustix::net::{SendFlags, send};
use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use zerocopy::IntoBytes;

/// Requests that are taken out of one ring in a turn: all that an ordinary one holds.
const BATCH: usize = 256;
/// Messages that are answered in a turn; the others have theirs next.
const MESSAGES: usize = 64;

/// A client of a disk, by vhost-user; see [the crate](crate).
pub struct Session {
    id: u32,
    disk: DiskId,
    /// Who the disk was when the client came.
    known: Known,
    pub(crate) socket: Socket,
    /// Waits for the socket and for kicks.
    epoll: OwnedFd,
    /// The socket may have something.
    readable: bool,
    gone: bool,
    closed: Option<Violation>,
    finishing: bool,
    pub(crate) offered: u64,
    pub(crate) features: u64,
    pub(crate) protocol: ProtocolFeatures,
    pub(crate) write_cache: bool,
    pub(crate) memory: Rc<Memory>,
    pub(crate) inflight: Option<Inflight>,
    pub(crate) vrings: Vec<Vring>,
    /// The ring that stops once what is under way has ended.
    pub(crate) stopping: Option<usize>,
    /// Where the back end asks.
    pub(crate) back: Option<OwnedFd>,
    /// By number; tokens name it.
    requests: Vec<Option<Request>>,
    free: Vec<u32>,
    /// Those that the disk did not take.
    refused: VecDeque<u32>,
    /// How many the disk has.
    submitted: usize,
    /// Of requests that have ended, to be used again.
    spare: Vec<Vec<Piece>>,
}

/// What a disk is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    generation: u32,
    identity: Identity,
    capacity: u64,
    /// Another disk or medium has taken its place; nothing that was meant for the one reaches it.
    lost: bool,
}

impl Known {
    fn of(info: DiskInfo) -> Self {
        let capacity = config::capacity(&info.geometry);
        Self { generation: info.generation, identity: info.identity, capacity, lost: false }
    }
}

impl Session {
    /// A client that has just connected to a disk. `id` is in the upper half of the tokens of what
    /// it asks of the disk.
    pub fn new(socket: OwnedFd, id: u32, disk: DiskId, disks: &Disks) -> io::Result<Self> {
        let info = disks.info(disk).ok_or(io::Errno::NODEV)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        // Each new event is told once, and the descriptor is not read for it: reading kicks would
        // let a client hold us.
        let wanted = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&epoll, &socket, EventData::new_u64(SOCKET), wanted)?;
        Ok(Self {
            id,
            disk,
            offered: config::features(&info.geometry),
            known: Known::of(info),
            socket: Socket::new(socket),
            epoll,
            readable: true,
            gone: false,
            closed: None,
            finishing: false,
            features: 0,
            protocol: ProtocolFeatures::empty(),
            write_cache: true,
            memory: Rc::default(),
            inflight: None,
            vrings: (0..MAX_QUEUES).map(|_| Vring::default()).collect(),
            stopping: None,
            back: None,
            requests: Vec::new(),
            free: Vec::new(),
            refused: VecDeque::new(),
            submitted: 0,
            spare: Vec::new(),
        })
    }

    /// The session's number.
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// The disk.
    pub const fn disk(&self) -> DiskId {
        self.disk
    }

    /// Takes note of what its descriptor tells; [`work`](Self::work) does the rest.
    pub fn receive(&mut self) {
        let mut events = Vec::with_capacity(2 * MAX_QUEUES);
        let timeout = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        let spare = rustix::buffer::spare_capacity(&mut events);
        if epoll::wait(&self.epoll, spare, Some(&timeout)).is_ok() {
            // A kick need not be known by its ring: all rings are looked at.
            self.readable |= events.iter().any(|event: &Event| {
                let data = event.data;
                data.u64() == SOCKET
            });
        }
    }

    /// Answers messages, takes requests out of the rings and passes them to the disk, and shows the
    /// driver what has ended. Whether there is more to do at once.
    pub fn work(&mut self, disks: &mut Disks) -> bool {
        if self.is_closed() {
            return false;
        }
        let result = self.try_work(disks);
        if let Err(violation) = result {
            self.close(violation);
        }
        result.unwrap_or_default()
    }

    fn try_work(&mut self, disks: &mut Disks) -> Result<bool, Violation> {
        self.vrings.iter_mut().for_each(Vring::publish);
        self.recognise(disks);
        let mut more = false;
        if !self.finishing {
            more |= self.answer_messages(disks)?;
        }
        self.try_again(disks)?;
        if !self.finishing && self.refused.is_empty() {
            for queue in 0..self.vrings.len() {
                more |= self.take_requests(queue, disks)?;
            }
        }
        self.vrings.iter_mut().for_each(Vring::publish);
        let gone = self.memory.is_gone() || self.inflight.as_ref().is_some_and(Inflight::is_gone);
        if gone { Err(Violation::MemoryGone) } else { Ok(more) }
    }

    /// Looks whether the disk is still the same, and tells the front end if it has another size.
    fn recognise(&mut self, disks: &Disks) {
        let size = disks.geometry(self.disk).map(|geometry| config::capacity(&geometry));
        let same = disks.generation(self.disk) == Some(self.known.generation)
            && size == Some(self.known.capacity);
        if same || self.known.lost {
            return;
        }
        let now = disks.info(self.disk).map(Known::of);
        // One that is only being got back says nothing of itself yet.
        let Some(now) = now.filter(|_| disks.is_present(self.disk)) else { return };
        if now.generation != self.known.generation
            && (now.identity != self.known.identity || now.capacity != self.known.capacity)
        {
            self.known.lost = true;
            return;
        }
        let resized = now.capacity != self.known.capacity;
        self.known = now;
        if let (true, Some(back)) = (resized, &self.back) {
            let header = Header {
                request: backend_request::CONFIG_CHANGE_MSG.into(),
                flags: Header::VERSION.into(),
                bytes: 0.into(),
            };
            // A front end that does not listen learns of it when it asks.
            let _ = send(back, header.as_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
    }

    fn answer_messages(&mut self, disks: &Disks) -> Result<bool, Violation> {
        self.socket.transmit()?;
        self.answer_stop()?;
        for _ in 0..MESSAGES {
            if !self.readable || self.stopping.is_some() || self.socket.is_full() {
                return Ok(false);
            }
            match self.socket.receive()? {
                Received::Message(message) => self.answer(message, disks)?,
                Received::Nothing => self.readable = false,
                Received::Gone => {
                    self.gone = true;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// When a write may complete: the driver can do without a cache, or without flushes
    /// (§5.2.6.2).
    const fn durability(&self) -> Durability {
        let flushes = self.features & BlkFeatures::FLUSH.bits() != 0;
        if flushes && self.write_cache { Durability::Cached } else { Durability::Durable }
    }

    /// Takes requests out of a ring; whether there may be more.
    fn take_requests(&mut self, queue: usize, disks: &mut Disks) -> Result<bool, Violation> {
        for _ in 0..BATCH {
            let vring = &mut self.vrings[queue];
            let stopping = self.stopping == Some(queue);
            let Some(ring) = vring.ring.as_mut().filter(|_| vring.enabled && !stopping) else {
                return Ok(false);
            };
            let mut pieces = self.spare.pop().unwrap_or_default();
            let Some(head) = ring.pop(&self.memory, &mut pieces)? else {
                self.spare.push(pieces);
                return Ok(false);
            };
            ring.ignore();
            vring.under_way += 1;
            let durability = self.durability();
            let request = Request::new(queue, head, pieces, &self.memory, durability)?;
            let number = self.free.pop().unwrap_or_else(|| {
                self.requests.push(None);
                self.requests.len() as u32 - 1
            });
            self.requests[number as usize] = Some(request);
            if !self.step(number, disks)? {
                // Those behind it would only wait as well.
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Passes a request on; whether the disk took it.
    fn step(&mut self, number: u32, disks: &mut Disks) -> Result<bool, Violation> {
        let Some(request) = &mut self.requests[number as usize] else { return Ok(true) };
        let token = Token(u64::from(self.id) << 32 | u64::from(number));
        let step = match self.known.lost {
            true => Step::Ended(STATUS_IO_ERROR),
            false => request.step(disks, self.disk, token)?,
        };
        match step {
            Step::UnderWay => {
                self.submitted += 1;
                Ok(true)
            }
            Step::Busy => {
                self.refused.push_back(number);
                Ok(false)
            }
            Step::Ended(status) => self.finish_request(number, status).map(|()| true),
        }
    }

    /// Tries what the disk did not take.
    fn try_again(&mut self, disks: &mut Disks) -> Result<(), Violation> {
        for _ in 0..self.refused.len() {
            let Some(number) = self.refused.pop_front() else { break };
            if !self.step(number, disks)? {
                break;
            }
        }
        Ok(())
    }

    fn finish_request(&mut self, number: u32, status: u8) -> Result<(), Violation> {
        let Some(request) = self.forget(number) else { return Ok(()) };
        let written = request.finish(status)?;
        if let Some(ring) = &mut self.vrings[request.queue].ring {
            ring.push(request.head, written);
        }
        let mut pieces = request.pieces;
        pieces.clear();
        self.spare.push(pieces);
        Ok(())
    }

    /// A request is no longer under way.
    fn forget(&mut self, number: u32) -> Option<Request> {
        let request = self.requests.get_mut(number as usize)?.take()?;
        self.free.push(number);
        self.vrings[request.queue].under_way -= 1;
        Some(request)
    }

    /// Takes what has ended at the disk; its token has the session's number.
    pub fn complete(&mut self, done: Done, disks: &mut Disks) {
        let number = done.token.0 as u32;
        self.submitted -= 1;
        if self.is_closed() {
            // Nobody waits for it, and its memory is not ours any more.
            self.forget(number);
        } else if let Err(violation) = self.try_complete(number, &done, disks) {
            self.forget(number);
            self.close(violation);
        }
        if let Ok(Outcome::Read(data)) = done.result {
            disks.recycle(done.disk, data);
        }
    }

    fn try_complete(
        &mut self,
        number: u32,
        done: &Done,
        disks: &mut Disks,
    ) -> Result<(), Violation> {
        let request = self.requests.get_mut(number as usize).and_then(Option::as_mut);
        let Some(request) = request else { return Ok(()) };
        match request.ended(&done.result)? {
            Some(status) => self.finish_request(number, status),
            None => self.step(number, disks).map(drop),
        }
    }

    /// Asks the driver to tell when there is something new, before the loop sleeps; whether there is
    /// something already.
    pub fn sleep(&mut self) -> bool {
        if self.is_closed() || self.finishing {
            return false;
        }
        // What the disk does not take waits for the disk.
        let takes = self.refused.is_empty();
        let running = self.vrings.iter_mut().filter(|vring| vring.enabled);
        running.filter_map(|vring| vring.ring.as_mut()).fold(false, |any, ring| ring.listen() | any)
            && takes
    }

    /// Takes no more requests, and no messages; what is under way ends.
    pub const fn finish(&mut self) {
        self.finishing = true;
    }

    /// Why the client was disconnected, if it was; it may also just have gone.
    pub const fn closed(&self) -> Option<Violation> {
        self.closed
    }

    const fn is_closed(&self) -> bool {
        self.closed.is_some() || self.gone
    }

    /// Whether the client is gone, and nothing that it asked for is under way: another one can come.
    /// Until then what it wrote might still be written, behind what its successor has written since.
    pub fn is_over(&self) -> bool {
        self.is_closed() && self.submitted == 0
    }

    fn close(&mut self, violation: Violation) {
        self.closed = Some(violation);
        self.vrings.iter().for_each(|vring| signal(vring.error.as_ref()));
    }

    /// Waits for kicks of a ring by this descriptor, instead of by the one before; whether they can
    /// be waited for.
    pub(crate) fn set_kick(&mut self, queue: usize, kick: Option<OwnedFd>) -> bool {
        if let Some(old) = self.vrings[queue].kick.take() {
            let _ = epoll::delete(&self.epoll, &old);
        }
        let wanted = EventFlags::IN | EventFlags::ET;
        let number = EventData::new_u64(KICK);
        let good =
            kick.as_ref().is_none_or(|kick| epoll::add(&self.epoll, kick, number, wanted).is_ok());
        self.vrings[queue].kick = kick;
        good
    }
}

/// What the descriptors that are waited for are known by.
const SOCKET: u64 = 0;
const KICK: u64 = 1;

impl AsFd for Session {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("disk", &self.disk)
            .field("submitted", &self.submitted)
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}
