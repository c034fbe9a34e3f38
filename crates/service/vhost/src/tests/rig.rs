//! A front end, with the driver's rings of our own, and a back end that can die.

#[path = "../../../../class/block/tests/support/memory.rs"]
mod memory;

use crate::{Session, cut};
pub(super) use memory::{Memory, Shared};
use outboard_block::UnitId;
use outboard_block::disk::{DiskOptions, Disks};
use outboard_hw::Instant;
use outboard_hw::dma::{Constraints, DmaBuffer, DmaSpace, Segment};
use outboard_linux::{EventFd, SharedMemory};
use outboard_virtio::queue::{Piece, Queue};
use outboard_virtio::spec::blk::{HEADER_BYTES, Header as BlkHeader};
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::vhost_user::request::*;
use outboard_virtio::spec::vhost_user::{
    Header, InflightRegion, MemoryRegion, PROTOCOL_FEATURES, VringAddress, VringState,
};
use rustix::io::{IoSlice, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};
use zerocopy::{FromBytes, IntoBytes};

/// Where the front end's process has its memory.
pub(super) const USER: u64 = 0x7000_0000_0000;
const MEMORY_BYTES: usize = 128 << 10;
pub(super) const ENTRIES: u16 = 16;
pub(super) const DISK_BYTES: usize = 64 << 10;
/// Bytes of a request's memory: header, status, a table, and data from 512 on.
const SLOT_BYTES: usize = 4096;
const STATUS: usize = 16;
const TABLE: usize = 64;
const DATA: usize = 512;
/// No status.
pub(super) const UNANSWERED: u8 = 0xee;

/// The back end: a session, and the disk behind it.
pub(super) struct Back {
    pub(super) session: Session,
    pub(super) disks: Disks,
    pub(super) shared: Arc<Mutex<Shared>>,
}

impl Back {
    pub(super) fn new(socket: OwnedFd, content: Vec<u8>, options: DiskOptions) -> Self {
        let (_, arena) = SharedMemory::for_model("disk", 256 << 10).unwrap();
        let driver = Memory::new(content, 8, 16, &arena);
        let shared = driver.shared();
        let mut disks = Disks::new();
        disks.add_driver(Box::new(driver), vec![(UnitId(0), options)], 256 << 10);
        while !disks.is_settled() {
            disks.poll(Instant::ORIGIN);
        }
        Self { shared, ..Self::over(socket, disks) }
    }

    /// Over disks of another kind.
    pub(super) fn over(socket: OwnedFd, disks: Disks) -> Self {
        let disk = disks.ids().next().unwrap();
        let session = Session::new(socket, 7, disk, &disks).unwrap();
        Self { session, disks, shared: Arc::default() }
    }

    pub(super) fn turn(&mut self) {
        self.session.receive();
        self.disks.poll(Instant::ORIGIN);
        while let Some(done) = self.disks.next_done() {
            self.session.complete(done, &mut self.disks);
        }
        self.session.work(&mut self.disks);
        self.disks.kick(Instant::ORIGIN);
    }

    /// Until nothing is under way.
    pub(super) fn run(&mut self) {
        for _ in 0..1000 {
            self.turn();
            if self.disks.is_idle() && !self.session.sleep() {
                return;
            }
        }
        panic!("it never ends: {:?}", self.session);
    }

    pub(super) fn content(&self) -> Vec<u8> {
        self.shared.lock().unwrap().content.clone()
    }
}

/// The front end, and the driver in it.
pub(super) struct Front {
    pub(super) socket: OwnedFd,
    pub(super) memory: Arc<SharedMemory>,
    pub(super) features: Features,
    pub(super) queue: Queue,
    pub(super) slots: DmaBuffer,
    pub(super) kick: EventFd,
    pub(super) call: EventFd,
    pub(super) inflight: Option<(InflightRegion, OwnedFd)>,
}

fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap()
}

/// A front end that has connected to a disk with such content, and has said nothing.
pub(super) fn connected(features: Features, content: Vec<u8>) -> (Front, Back) {
    connected_to(features, content, DiskOptions::default())
}

pub(super) fn connected_to(
    features: Features,
    content: Vec<u8>,
    options: DiskOptions,
) -> (Front, Back) {
    connected_with(features, |socket| Back::new(socket, content, options))
}

/// Likewise, to any back end.
pub(super) fn connected_with<B>(features: Features, back: impl FnOnce(OwnedFd) -> B) -> (Front, B) {
    let (ours, theirs) = pair();
    let (memory, arena) = SharedMemory::for_model("client", MEMORY_BYTES).unwrap();
    let queue = Queue::new(&arena, ENTRIES, features).unwrap();
    let slots = arena.allocate(SLOT_BYTES * usize::from(ENTRIES), &Constraints::NONE).unwrap();
    let (kick, call) = (EventFd::new().unwrap(), EventFd::new().unwrap());
    let socket = ours;
    let front = Front { socket, memory, features, queue, slots, kick, call, inflight: None };
    (front, back(theirs))
}

/// One whose ring runs.
pub(super) fn started(features: Features, content: Vec<u8>) -> (Front, Back) {
    let (mut front, mut back) = connected(features, content);
    front.set_up(&mut back, if features.contains(Features::PACKED) { 0x8000_8000 } else { 0 });
    (front, back)
}

impl Front {
    pub(super) fn send(&self, request: u32, body: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let flags = Header::VERSION.into();
        let bytes = (body.len() as u32).into();
        let header = Header { request: request.into(), flags, bytes };
        let message = [header.as_bytes(), body].concat();
        self.send_raw(&message, descriptors);
    }

    pub(super) fn send_raw(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
        }
        let flags = SendFlags::NOSIGNAL;
        let sent = sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut ancillary, flags).unwrap();
        assert_eq!(sent, bytes.len());
    }

    /// What the back end has answered, which is there.
    pub(super) fn answer(&self, request: u32) -> (Vec<u8>, Option<OwnedFd>) {
        let mut bytes = [0; 600];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::DONTWAIT;
        let count = recvmsg(&self.socket, &mut into, &mut ancillary, flags).unwrap().bytes;
        let mut descriptor = None;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                descriptor = descriptors.into_iter().next();
            }
        }
        let (header, body) = Header::read_from_prefix(&bytes[..count]).unwrap();
        assert_eq!((header.request.get(), header.bytes.get() as usize), (request, body.len()));
        assert_eq!(header.flags.get(), Header::VERSION | Header::REPLY);
        (body.to_vec(), descriptor)
    }

    /// Asks, and lets the back end answer.
    pub(super) fn ask(&self, back: &mut Back, request: u32, body: &[u8]) -> Vec<u8> {
        self.send(request, body, &[]);
        back.turn();
        assert_eq!(back.session.closed(), None);
        self.answer(request).0
    }

    pub(super) fn number(&self, back: &mut Back, request: u32) -> u64 {
        u64::from_le_bytes(self.ask(back, request, &[]).try_into().unwrap())
    }

    pub(super) fn region(&self) -> MemoryRegion {
        MemoryRegion {
            guest_address: 0.into(),
            bytes: (self.memory.size_bytes() as u64).into(),
            user_address: USER.into(),
            file_offset: 0.into(),
        }
    }

    pub(super) fn share_memory(&self) {
        let table = [&1u64.to_le_bytes(), self.region().as_bytes()].concat();
        self.send(SET_MEM_TABLE, &table, &[self.memory.as_fd()]);
    }

    pub(super) fn state(index: u32, number: u32) -> Vec<u8> {
        VringState { index: index.into(), number: number.into() }.as_bytes().to_vec()
    }

    pub(super) fn ring_address(&self) -> VringAddress {
        let areas = self.queue.areas();
        VringAddress {
            index: 0.into(),
            flags: 0.into(),
            descriptors: (USER + areas.descriptors.bits()).into(),
            used: (USER + areas.device.bits()).into(),
            available: (USER + areas.driver.bits()).into(),
            log: 0.into(),
        }
    }

    /// Says all that has to be said for the ring to run.
    pub(super) fn set_up(&mut self, back: &mut Back, base: u32) {
        let features = self.features.bits() | PROTOCOL_FEATURES;
        self.send(SET_FEATURES, &features.to_le_bytes(), &[]);
        let protocol = self.number(back, GET_PROTOCOL_FEATURES);
        self.send(SET_PROTOCOL_FEATURES, &protocol.to_le_bytes(), &[]);
        if let Some((region, file)) = &self.inflight {
            self.send(SET_INFLIGHT_FD, region.as_bytes(), &[file.as_fd()]);
        }
        self.share_memory();
        self.send(SET_VRING_NUM, &Self::state(0, ENTRIES.into()), &[]);
        self.send(SET_VRING_BASE, &Self::state(0, base), &[]);
        self.send(SET_VRING_ADDR, self.ring_address().as_bytes(), &[]);
        self.send(SET_VRING_CALL, &0u64.to_le_bytes(), &[self.call.as_fd()]);
        self.send(SET_VRING_KICK, &0u64.to_le_bytes(), &[self.kick.as_fd()]);
        self.send(SET_VRING_ENABLE, &Self::state(0, 1), &[]);
        back.turn();
        assert_eq!(back.session.closed(), None);
    }

    /// Asks the back end for memory that remembers what is in flight.
    pub(super) fn remember(&mut self, back: &mut Back) {
        let wanted = InflightRegion {
            bytes: 0.into(),
            file_offset: 0.into(),
            queues: 2.into(),
            entries: ENTRIES.into(),
        };
        self.send(GET_INFLIGHT_FD, wanted.as_bytes(), &[]);
        back.turn();
        let (body, file) = self.answer(GET_INFLIGHT_FD);
        let region = InflightRegion::read_from_bytes(&body).unwrap();
        self.inflight = Some((region, file.unwrap()));
    }

    /// Another back end takes over: the former one is dropped.
    pub(super) fn reconnect(&mut self, back: Back, base: u32) -> Back {
        let (ours, theirs) = pair();
        self.socket = ours;
        let content = back.content();
        drop(back);
        let mut back = Back::new(theirs, content, DiskOptions::default());
        self.set_up(&mut back, base);
        back
    }

    /// Makes a request available: its kind, its first sector, its data or how much there is to read.
    /// The header is split, and so is the data, if there is more than a sector.
    pub(super) fn request(
        &mut self,
        slot: u16,
        kind: u32,
        sector: u64,
        data: Result<&[u8], usize>,
    ) {
        let at = SLOT_BYTES * usize::from(slot);
        let header = BlkHeader { kind: kind.into(), reserved: 0.into(), sector: sector.into() };
        self.slots.write(at, &header);
        self.slots.write_bytes(at + STATUS, &[UNANSWERED]);
        let (len, writable) = match data {
            Ok(data) => {
                self.slots.write_bytes(at + DATA, data);
                (data.len(), false)
            }
            Err(len) => (len, true),
        };
        let piece = |offset, len: usize, writable| Piece {
            segment: Segment { address: self.slots.address_of(at + offset), bytes: len as u64 },
            writable,
        };
        let mut pieces = vec![piece(0, 7, false), piece(7, HEADER_BYTES - 7, false)];
        let half = if len > 512 { len / 3 } else { len };
        pieces.extend((half > 0).then(|| piece(DATA, half, writable)));
        pieces.extend((len > half).then(|| piece(DATA + half, len - half, writable)));
        pieces.push(piece(STATUS, 1, true));
        let count = pieces.len() as u16;
        if self.features.contains(Features::INDIRECT) {
            let table = self.slots.address_of(at + TABLE);
            let (count, bytes) =
                self.queue.write_table(&mut self.slots, at + TABLE, pieces.into_iter());
            self.queue.add_table(slot, table, count, bytes).unwrap();
        } else {
            self.queue.add(slot, count, pieces.into_iter()).unwrap();
        }
    }

    pub(super) fn publish(&mut self) {
        if self.queue.publish() {
            self.kick.signal();
        }
    }

    /// The next request that has ended: its slot, its status and the data that is there.
    pub(super) fn take(&mut self, len: usize) -> Option<(u16, u8, Vec<u8>)> {
        let used = self.queue.take()?.expect("the device keeps to the rules");
        let at = SLOT_BYTES * usize::from(used.token);
        let mut status = [0];
        self.slots.read_bytes(at + STATUS, &mut status);
        let mut data = vec![0; len];
        self.slots.read_bytes(at + DATA, &mut data);
        Some((used.token, status[0], data))
    }

    /// Overwrites the memory of a request that has ended: nobody may touch it any more.
    pub(super) fn poison(&mut self, slot: u16) {
        let at = SLOT_BYTES * usize::from(slot);
        self.slots.fill(at + DATA..at + SLOT_BYTES, 0x66);
        self.slots.fill(at + STATUS..at + STATUS + 1, 0x66);
    }

    pub(super) fn is_poisoned(&self, slot: u16) -> bool {
        let at = SLOT_BYTES * usize::from(slot);
        let mut data = [0; SLOT_BYTES - DATA];
        self.slots.read_bytes(at + DATA, &mut data);
        let mut status = [0];
        self.slots.read_bytes(at + STATUS, &mut status);
        status[0] == 0x66 && data.iter().all(|byte| *byte == 0x66)
    }

    /// Makes one request, and lets it end.
    pub(super) fn one(
        &mut self,
        back: &mut Back,
        kind: u32,
        sector: u64,
        data: Result<&[u8], usize>,
    ) -> (u8, Vec<u8>) {
        self.request(0, kind, sector, data);
        self.publish();
        back.run();
        assert_eq!(back.session.closed(), None);
        let (slot, status, data) = self.take(data.err().unwrap_or_default()).expect("it has ended");
        assert_eq!(slot, 0);
        (status, data)
    }
}

/// Bytes that tell where they are from.
pub(super) fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| seed.wrapping_add((at / 7) as u8) ^ at as u8).collect()
}

/// All layouts and ways to describe requests.
pub(super) fn layouts() -> impl Iterator<Item = Features> {
    let (split, packed) = (Features::VERSION_1, Features::VERSION_1 | Features::PACKED);
    [split, packed].into_iter().flat_map(|layout| {
        let ways = [Features::empty(), Features::INDIRECT, Features::EVENT_INDEX];
        ways.into_iter().map(move |way| layout | way)
    })
}

/// Does what a test wants done, with an end of all writes after so many; whether it came to that.
pub(super) fn dying(after: u64, act: impl FnOnce()) -> bool {
    cut::after(after);
    act();
    cut::restore()
}
