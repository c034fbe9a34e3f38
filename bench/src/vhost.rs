//! What a read costs in the back end of a virtual machine's disk: its session, and a disk made of
//! memory. Of each read's instructions 4097 are its copy, which is one that callgrind counts for
//! every byte. The front end is in this process, and is not counted.

mod front;
mod net;

use crate::Part;
use front::{ENTRIES, Front};
use outboard_block::disk::Disks;
use outboard_hw::Instant;
use outboard_hw::dma::{Constraints, DmaBuffer, DmaSpace, Segment};
use outboard_linux::SharedMemory;
use outboard_ram::Ram;
use outboard_vhost::Session;
use outboard_virtio::queue::{Piece, Queue};
use outboard_virtio::spec::blk::{HEADER_BYTES, Header as BlkHeader, IN};
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::vhost_user::ProtocolFeatures;
use std::sync::Arc;

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
    ("back end: read, split, 1 at a time", SPLIT, false, 1, 7950),
    ("back end: read, split, 32 at a time", SPLIT, false, 32, 5970),
    ("back end: read, packed, 32 at a time", PACKED, false, 32, 6030),
    ("back end: read, tables, 32 at a time", TABLES, false, 32, 6400),
    ("back end: read, split, remembered, 32 at a time", SPLIT, true, 32, 6060),
    ("back end: read, packed, remembered, 32 at a time", PACKED, true, 32, 6320),
];
const SPLIT: Features = Features::VERSION_1.union(Features::EVENT_INDEX);
const PACKED: Features = SPLIT.union(Features::PACKED);
const TABLES: Features = SPLIT.union(Features::INDIRECT);

/// What back ends do.
pub(crate) fn parts() -> impl Iterator<Item = Part> {
    reads().chain(net::parts())
}

/// Reads in both layouts.
fn reads() -> impl Iterator<Item = Part> {
    CASES.into_iter().map(|(name, features, remembered, depth, limit)| {
        let run = Box::new(move || {
            let mut bench = Bench::new(features, remembered, depth);
            Box::new(move || bench.round()) as Box<dyn FnMut()>
        });
        Part { name, limit, times: depth as u64, is_marked: true, make: run }
    })
}

struct Bench {
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
        let (mut front, arena, socket) = Front::new();
        let session = Session::new(socket, 0, disk, &disks).expect("a session");
        let queue = Queue::new(&arena, ENTRIES, features).expect("a queue");
        let slots = arena.allocate(SLOT_BYTES * depth, &Constraints::NONE).expect("memory");
        let (tables, depth) = (features.contains(Features::INDIRECT), depth as u16);
        let mut bench = Self { queue, slots, tables, depth, sector: 0, session, disks };
        front.greet(features.bits(), ProtocolFeatures::INFLIGHT_SHMFD);
        if remembered {
            front.remember(|| bench.listen());
        }
        front.start(0, &bench.queue);
        bench.listen();
        bench
    }

    /// Lets the back end hear what was said.
    fn listen(&mut self) {
        self.session.receive();
        self.session.work(&mut self.disks);
        assert_eq!(self.session.closed(), None);
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
