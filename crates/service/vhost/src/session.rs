//! A client of a disk, from its connection to its end.

use crate::client::Client;
use crate::config;
use crate::device::{Device, Offer};
use crate::error::Violation;
use crate::queue::MAX_QUEUES;
use crate::reach::Reach;
use crate::request::{Place, Step};
use outboard_block::disk::{DiskId, DiskInfo, Disks, Done, Outcome, Token};
use outboard_block::{Durability, Geometry, Identity};
use outboard_hw::dma::Unreachable;
use outboard_virtio::spec::blk::{BlkFeatures, STATUS_IO_ERROR, WRITEBACK};
use outboard_virtio::spec::vhost_user::MAX_CONFIG_BYTES;
use rustix::io;
use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Requests that are taken out of one ring in a turn: all that an ordinary one holds.
const BATCH: usize = 256;

/// A client of a disk, by vhost-user; see [the crate](crate).
pub struct Session {
    id: u32,
    disk: DiskId,
    /// Who the disk was when the client came.
    known: Known,
    client: Client,
    write_cache: bool,
    /// By number; tokens name it.
    requests: Vec<Place>,
    free: Vec<u32>,
    /// Those that the disk did not take.
    refused: VecDeque<u32>,
    /// How many the disk has.
    submitted: usize,
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
        let offer = Offer {
            features: config::features(&info.geometry),
            protocol: config::PROTOCOL,
            queues: MAX_QUEUES,
            told_queues: MAX_QUEUES,
        };
        Ok(Self {
            id,
            disk,
            known: Known::of(info),
            client: Client::new(socket, offer, Reach::of(disk, disks))?,
            write_cache: true,
            requests: Vec::new(),
            free: Vec::new(),
            refused: VecDeque::new(),
            submitted: 0,
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
        self.client.receive();
    }

    /// Answers messages, takes requests out of the rings and passes them to the disk, and shows the
    /// driver what has ended. Whether there is more to do at once.
    pub fn work(&mut self, disks: &mut Disks) -> bool {
        if self.client.is_closed() {
            return false;
        }
        let result = self.try_work(disks);
        if let Err(violation) = result {
            self.client.close(violation);
        }
        result.unwrap_or_default()
    }

    fn try_work(&mut self, disks: &mut Disks) -> Result<bool, Violation> {
        self.client.publish();
        self.client.reach.begin_turn();
        self.recognise(disks);
        let mut more = false;
        let finishing = self.client.is_finishing();
        if !finishing {
            let write_cache = &mut self.write_cache;
            let mut device = Asked { disks, disk: self.disk, write_cache };
            more |= self.client.answer_messages(&mut device)?;
        }
        self.try_again(disks);
        if !finishing && self.refused.is_empty() {
            for queue in 0..self.client.named {
                more |= self.take_requests(queue, disks)?;
            }
        }
        self.client.publish();
        self.client.check_memory().map(|()| more)
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
        if resized {
            self.client.tell_config();
        }
    }

    /// When a write may complete: the driver can do without a cache, or without flushes
    /// (§5.2.6.2).
    const fn durability(&self) -> Durability {
        let flushes = self.client.features & BlkFeatures::FLUSH.bits() != 0;
        if flushes && self.write_cache { Durability::Cached } else { Durability::Durable }
    }

    /// Takes requests out of a ring; whether there may be more.
    fn take_requests(&mut self, queue: usize, disks: &mut Disks) -> Result<bool, Violation> {
        let durability = self.durability();
        for _ in 0..BATCH {
            let stopping = self.client.stopping == Some(queue);
            let vring = &mut self.client.vrings[queue];
            let Some(ring) = vring.ring.as_mut().filter(|_| vring.enabled && !stopping) else {
                return Ok(false);
            };
            let number = match self.free.last() {
                Some(number) => *number,
                None => {
                    self.requests.push(Place::default());
                    self.free.push(self.requests.len() as u32 - 1);
                    self.requests.len() as u32 - 1
                }
            };
            let place = &mut self.requests[number as usize];
            let Some(head) = ring.pop(&self.client.memory, &mut place.pieces)? else {
                return Ok(false);
            };
            ring.ignore();
            vring.under_way += 1;
            place.begin(queue, head, &self.client.memory, durability)?;
            self.free.pop();
            if !self.step(number, disks) {
                // Those behind it would only wait as well.
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Passes a request on; whether the disk took it.
    #[inline]
    fn step(&mut self, number: u32, disks: &mut Disks) -> bool {
        let Place { pieces, request } = &mut self.requests[number as usize];
        let Some(request) = request else { return true };
        let token = Token(u64::from(self.id) << 32 | u64::from(number));
        let step = match self.known.lost {
            true => Step::Ended(STATUS_IO_ERROR),
            false => request.step(pieces, disks, self.disk, token),
        };
        match step {
            Step::UnderWay => {
                self.submitted += 1;
                true
            }
            Step::Busy => {
                self.refused.push_back(number);
                false
            }
            Step::Ended(status) => {
                self.finish_request(number, status);
                true
            }
        }
    }

    /// Tries what the disk did not take.
    fn try_again(&mut self, disks: &mut Disks) {
        for _ in 0..self.refused.len() {
            let Some(number) = self.refused.pop_front() else { break };
            if !self.step(number, disks) {
                break;
            }
        }
    }

    #[inline]
    fn finish_request(&mut self, number: u32, status: u8) {
        let Some(place) = self.requests.get_mut(number as usize) else { return };
        let Some(request) = &place.request else { return };
        let written = request.finish(&place.pieces, status);
        let vring = &mut self.client.vrings[request.queue];
        if let Some(ring) = &mut vring.ring {
            ring.push(request.head, written);
        }
        vring.under_way -= 1;
        place.clear();
        self.free.push(number);
    }

    /// A request is no longer under way.
    fn forget(&mut self, number: u32) {
        let Some(place) = self.requests.get_mut(number as usize) else { return };
        let Some(request) = &place.request else { return };
        self.client.vrings[request.queue].under_way -= 1;
        place.clear();
        self.free.push(number);
    }

    /// Takes what has ended at the disk; its token has the session's number.
    pub fn complete(&mut self, done: Done, disks: &mut Disks) {
        let number = done.token.0 as u32;
        self.submitted -= 1;
        if self.client.is_closed() {
            // Nobody waits for it, and its memory is not ours any more.
            self.forget(number);
        } else {
            self.go_on(number, &done, disks);
        }
        if let Ok(Outcome::Read(data)) = done.result {
            disks.recycle(done.disk, data);
        }
    }

    /// Takes note of what the disk did for a request, and asks for more, or ends it.
    #[inline]
    fn go_on(&mut self, number: u32, done: &Done, disks: &mut Disks) {
        let Some(place) = self.requests.get_mut(number as usize) else { return };
        let Some(request) = &mut place.request else { return };
        match request.ended(&place.pieces, &done.result) {
            Some(status) => self.finish_request(number, status),
            None => drop(self.step(number, disks)),
        }
    }

    /// Asks the driver to tell when there is something new, before the loop sleeps; whether there is
    /// something already.
    pub fn sleep(&mut self) -> bool {
        if self.client.is_closed() || self.client.is_finishing() {
            return false;
        }
        // What the disk does not take waits for the disk.
        self.client.listen() && self.refused.is_empty()
    }

    /// Takes no more requests, and no messages; what is under way ends.
    pub const fn finish(&mut self) {
        self.client.finish();
    }

    /// Why the client was disconnected, if it was; it may also just have gone.
    pub const fn closed(&self) -> Option<Violation> {
        self.client.closed()
    }

    /// Why some data is copied though the disk's controller was to reach the client's memory; told
    /// once.
    pub fn take_refusal(&self) -> Option<Unreachable> {
        self.client.reach.take_refusal()
    }

    /// Whether the client is gone, and nothing that it asked for is under way: another one can come.
    /// Until then what it wrote might still be written, behind what its successor has written since.
    pub fn is_over(&self) -> bool {
        self.client.is_closed() && self.submitted == 0
    }
}

/// The disk, as messages ask about it.
struct Asked<'a> {
    disks: &'a Disks,
    disk: DiskId,
    write_cache: &'a mut bool,
}

impl Device for Asked<'_> {
    fn config(&self) -> [u8; MAX_CONFIG_BYTES] {
        let geometry = self.disks.geometry(self.disk).unwrap_or(Geometry::NONE);
        config::config(&geometry, *self.write_cache)
    }

    /// The driver switches its cache; nothing else can be written. Some do so before they say which
    /// features they use.
    fn set_config(&mut self, offset: usize, bytes: &[u8]) -> bool {
        match bytes {
            [state] if offset == WRITEBACK => {
                *self.write_cache = *state != 0;
                true
            }
            _ => false,
        }
    }
}

impl AsFd for Session {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.client.as_fd()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("disk", &self.disk)
            .field("submitted", &self.submitted)
            .field("closed", &self.client.closed())
            .finish_non_exhaustive()
    }
}
