//! What a read costs in the back end of a virtual machine's disk: its session, and a disk made of
//! memory. Of each read's instructions 4097 are its copy, which is one that callgrind counts for
//! every byte. The front end is in this process, and is not counted.

use crate::Part;
use outboard_block::disk::Disks;
use outboard_hw::Instant;
use outboard_hw::dma::{Constraints, DmaBuffer, DmaSpace, Segment};
use outboard_linux::{EventFd, SharedMemory};
use outboard_ram::Ram;
use outboard_vhost::Session;
use outboard_virtio::queue::{Piece, Queue};
use outboard_virtio::spec::blk::{HEADER_BYTES, Header as BlkHeader, IN};
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::vhost_user::request::{
    GET_INFLIGHT_FD, SET_FEATURES, SET_INFLIGHT_FD, SET_MEM_TABLE, SET_PROTOCOL_FEATURES,
    SET_VRING_ADDR, SET_VRING_BASE, SET_VRING_CALL, SET_VRING_ENABLE, SET_VRING_KICK,
    SET_VRING_NUM,
};
use outboard_virtio::spec::vhost_user::{
    Header, InflightRegion, MemoryRegion, PROTOCOL_FEATURES, ProtocolFeatures, VringAddress,
    VringState,
};
use rustix::io::{IoSlice, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use zerocopy::IntoBytes;

/// Where the front end's process would have its memory.
const USER: u64 = 0x7000_0000_0000;
const ENTRIES: u16 = 512;
const READ_BYTES: usize = 4096;
/// A request's memory: data, header, status, and a table behind them.
const SLOT_BYTES: usize = READ_BYTES + 4096;
const HEADER: usize = READ_BYTES;
const STATUS: usize = HEADER + HEADER_BYTES;
const TABLE: usize = HEADER + 64;
const DISK_BYTES: usize = 1 << 20;
const SECTORS: u64 = (DISK_BYTES / 512) as u64;

/// The cases: name, features, whether what is in flight is remembered, requests at a time, and the
/// most instructions that each may take.
const CASES: [(&str, Features, bool, usize, u64); 6] = [
    ("back end: read, split, 1 at a time", SPLIT, false, 1, 11050),
    ("back end: read, split, 32 at a time", SPLIT, false, 32, 8080),
    ("back end: read, packed, 32 at a time", PACKED, false, 32, 8270),
    ("back end: read, tables, 32 at a time", TABLES, false, 32, 8560),
    ("back end: read, split, remembered, 32 at a time", SPLIT, true, 32, 8230),
    ("back end: read, packed, remembered, 32 at a time", PACKED, true, 32, 8900),
];
const SPLIT: Features = Features::VERSION_1.union(Features::EVENT_INDEX);
const PACKED: Features = SPLIT.union(Features::PACKED);
const TABLES: Features = SPLIT.union(Features::INDIRECT);

/// Reads in both layouts.
pub(crate) fn reads() -> impl Iterator<Item = Part> {
    CASES.into_iter().map(|(name, features, remembered, depth, limit)| {
        let run = Box::new(move || {
            let mut bench = Bench::new(features, remembered, depth);
            Box::new(move || bench.round()) as Box<dyn FnMut()>
        });
        Part { name, limit, times: depth as u64, is_marked: true, make: run }
    })
}

struct Bench {
    socket: OwnedFd,
    queue: Queue,
    slots: DmaBuffer,
    tables: bool,
    depth: u16,
    sector: u64,
    session: Session,
    disks: Disks,
}

impl Bench {
    fn new(features: Features, remembered: bool, depth: usize) -> Self {
        let (_, space) = SharedMemory::for_model("transfers", 1 << 20).expect("memory");
        let content = SharedMemory::new("disk", DISK_BYTES).expect("memory").into_buffer();
        let mut disks = Disks::new();
        disks.add_driver(Box::new(Ram::new(content, Arc::new(space), "")), Vec::new(), 1 << 20);
        while !disks.is_settled() {
            disks.poll(Instant::ORIGIN);
        }
        let disk = disks.ids().next().expect("a disk");
        let flags = SocketFlags::CLOEXEC;
        let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let (socket, theirs) = pair.expect("sockets");
        let session = Session::new(theirs, 0, disk, &disks).expect("a session");
        let (memory, arena) = SharedMemory::for_model("client", 4 << 20).expect("memory");
        let queue = Queue::new(&arena, ENTRIES, features).expect("a queue");
        let slots = arena.allocate(SLOT_BYTES * depth, &Constraints::NONE).expect("memory");
        let (tables, depth) = (features.contains(Features::INDIRECT), depth as u16);
        let mut bench = Self { socket, queue, slots, tables, depth, sector: 0, session, disks };
        bench.set_up(features, remembered, &memory);
        bench
    }

    fn say(&mut self, request: u32, body: &[u8], with: &[BorrowedFd<'_>]) {
        let (flags, bytes) = (Header::VERSION.into(), (body.len() as u32).into());
        let header = Header { request: request.into(), flags, bytes };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !with.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(with)));
        }
        let message = [header.as_bytes(), body].concat();
        sendmsg(&self.socket, &[IoSlice::new(&message)], &mut ancillary, SendFlags::empty())
            .expect("the session listens");
        self.session.receive();
        self.session.work(&mut self.disks);
        assert_eq!(self.session.closed(), None);
    }

    fn set_up(&mut self, features: Features, remembered: bool, memory: &SharedMemory) {
        let number = |number: u32| VringState { index: 0.into(), number: number.into() };
        let features = features.bits() | PROTOCOL_FEATURES;
        self.say(SET_FEATURES, &features.to_le_bytes(), &[]);
        let protocol = ProtocolFeatures::INFLIGHT_SHMFD.bits();
        self.say(SET_PROTOCOL_FEATURES, &protocol.to_le_bytes(), &[]);
        if remembered {
            self.remember();
        }
        let region = MemoryRegion {
            guest_address: 0.into(),
            bytes: (memory.size_bytes() as u64).into(),
            user_address: USER.into(),
            file_offset: 0.into(),
        };
        let table = [&1u64.to_le_bytes(), region.as_bytes()].concat();
        self.say(SET_MEM_TABLE, &table, &[memory.as_fd()]);
        let areas = self.queue.areas();
        let address = VringAddress {
            index: 0.into(),
            flags: 0.into(),
            descriptors: (USER + areas.descriptors.bits()).into(),
            used: (USER + areas.device.bits()).into(),
            available: (USER + areas.driver.bits()).into(),
            log: 0.into(),
        };
        let packed = features & Features::PACKED.bits() != 0;
        let base = if packed { 0x8000_8000 } else { 0 };
        self.say(SET_VRING_NUM, number(ENTRIES.into()).as_bytes(), &[]);
        self.say(SET_VRING_BASE, number(base).as_bytes(), &[]);
        self.say(SET_VRING_ADDR, address.as_bytes(), &[]);
        let [kick, call] = [(); 2].map(|()| EventFd::new().expect("an eventfd"));
        self.say(SET_VRING_CALL, &0u64.to_le_bytes(), &[call.as_fd()]);
        self.say(SET_VRING_KICK, &0u64.to_le_bytes(), &[kick.as_fd()]);
        self.say(SET_VRING_ENABLE, number(1).as_bytes(), &[]);
    }

    /// Has the back end remember what is in flight.
    fn remember(&mut self) {
        let (none, queues, entries) = (0.into(), 1.into(), ENTRIES.into());
        let wanted = InflightRegion { bytes: none, file_offset: none, queues, entries };
        self.say(GET_INFLIGHT_FD, wanted.as_bytes(), &[]);
        let mut bytes = [0; 128];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut bytes)];
        let received = recvmsg(&self.socket, &mut into, &mut ancillary, RecvFlags::empty());
        let count = received.expect("an answer").bytes;
        let file = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        let file = file.expect("a file");
        self.say(SET_INFLIGHT_FD, &bytes[Header::BYTES..count], &[file.as_fd()]);
    }

    /// As many reads as there are at a time.
    fn round(&mut self) {
        (0..self.depth).for_each(|slot| self.request(slot));
        self.queue.publish();
        self.marked_turn();
        self.marked_turn();
        for _ in 0..self.depth {
            let used = self.queue.take().expect("it has ended").expect("by the rules");
            let mut status = [0xee];
            self.slots.read_bytes(SLOT_BYTES * usize::from(used.token) + STATUS, &mut status);
            assert_eq!(status, [0]);
        }
    }

    fn request(&mut self, slot: u16) {
        let at = SLOT_BYTES * usize::from(slot);
        self.sector = (self.sector + 1016) % (SECTORS - 8);
        let (kind, sector) = (IN.into(), self.sector.into());
        self.slots.write(at + HEADER, &BlkHeader { kind, reserved: 0.into(), sector });
        let piece = |offset, bytes, writable| Piece {
            segment: Segment { address: self.slots.address_of(at + offset), bytes },
            writable,
        };
        let pieces = [
            piece(HEADER, HEADER_BYTES as u64, false),
            piece(0, READ_BYTES as u64, true),
            piece(STATUS, 1, true),
        ]
        .into_iter();
        let added = if self.tables {
            let table = self.slots.address_of(at + TABLE);
            let (count, bytes) = self.queue.write_table(&mut self.slots, at + TABLE, pieces);
            self.queue.add_table(slot, table, count, bytes)
        } else {
            self.queue.add(slot, 3, pieces)
        };
        added.expect("there is room");
    }

    /// What the server does in a turn.
    #[inline(never)]
    fn marked_turn(&mut self) {
        self.disks.poll(Instant::ORIGIN);
        while let Some(done) = self.disks.next_done() {
            self.session.complete(done, &mut self.disks);
        }
        self.session.work(&mut self.disks);
        self.disks.kick(Instant::ORIGIN);
    }
}
