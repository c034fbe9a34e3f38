//! What a frame costs in the back end of a virtual machine's network card: its session, and a card
//! made of nothing. Of each frame's instructions some are its copy. The front end is in this process,
//! and is not counted.

use super::front::{ENTRIES, Front};
use crate::Part;
use crate::frames::{self, BATCH, Case, Way};
use crate::nothing::{FRAME_BYTES, Nothing};
use outboard_hw::Instant;
use outboard_hw::dma::{Constraints, DmaBuffer, DmaSpace, Segment};
use outboard_linux::SharedMemory;
use outboard_vhost::{Card, NetSession};
use outboard_virtio::queue::{Piece, Queue};
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::net::{Header, NetFeatures, receive_queue, transmit_queue};
use outboard_virtio::spec::vhost_user::ProtocolFeatures;

/// Bytes of a buffer of the client's, as frames need them, and others.
const SLOT_BYTES: usize = 2048;

const CASES: [Case; 6] = [
    ("back end: frame from a client, split", false, Way::Out, 585),
    ("back end: frame from a client, split, header apart", false, Way::OutApart, 850),
    ("back end: frame to a client, split", false, Way::In, 592),
    ("back end: frame from a client, packed", true, Way::Out, 618),
    ("back end: frame from a client, packed, header apart", true, Way::OutApart, 950),
    ("back end: frame to a client, packed", true, Way::In, 655),
];

/// Frames of 60 bytes, 32 at a time, either way, in both layouts.
pub(super) fn parts() -> impl Iterator<Item = Part> {
    frames::parts(CASES, Bench::new, Bench::round)
}

struct Bench {
    queue: Queue,
    slots: DmaBuffer,
    way: Way,
    session: NetSession,
    card: Card,
}

impl Bench {
    fn new(packed: bool, way: Way) -> Self {
        let (_, arena) = SharedMemory::for_model("card", 4 << 20).expect("memory");
        let mut card = Card::new(Box::new(Nothing::new(way == Way::In, &arena)));
        card.poll(Instant::ORIGIN);
        let (mut front, arena, socket) = Front::new();
        let session = NetSession::new(socket, 0, &card).expect("a session");
        let mut rings = Features::VERSION_1;
        rings.set(Features::PACKED, packed);
        let queue = Queue::new(&arena, ENTRIES, rings).expect("a queue");
        let bytes = SLOT_BYTES * BATCH;
        let slots = arena.allocate(bytes, &Constraints::NONE).expect("memory");
        let features = rings.bits() | NetFeatures::MRG_RXBUF.bits();
        front.greet(features, ProtocolFeatures::empty());
        let ring = if way == Way::In { receive_queue(0) } else { transmit_queue(0) };
        front.start(ring.into(), &queue);
        let mut bench = Self { queue, slots, way, session, card };
        bench.session.receive();
        bench.session.work(&mut bench.card);
        assert_eq!(bench.session.closed(), None);
        bench
    }

    /// As many frames as there are at a time.
    fn round(&mut self) {
        (0..BATCH as u16).for_each(|slot| self.offer(slot));
        self.queue.publish();
        self.marked_turn();
        for _ in 0..BATCH {
            let used = self.queue.take().expect("it is used").expect("by the rules");
            let bytes = if self.way == Way::In { Header::BYTES + FRAME_BYTES } else { 0 };
            assert_eq!(used.bytes as usize, bytes);
        }
    }

    fn offer(&mut self, slot: u16) {
        let at = SLOT_BYTES * usize::from(slot);
        let piece = |offset, bytes: usize, writable| Piece {
            segment: Segment { address: self.slots.address_of(at + offset), bytes: bytes as u64 },
            writable,
        };
        let header = Header::BYTES;
        let added = match self.way {
            Way::Out => {
                self.queue.add(slot, 1, [piece(0, header + FRAME_BYTES, false)].into_iter())
            }
            Way::OutApart => {
                let frame = piece(header, FRAME_BYTES, false);
                self.queue.add(slot, 2, [piece(0, header, false), frame].into_iter())
            }
            Way::In => self.queue.add(slot, 1, [piece(0, SLOT_BYTES, true)].into_iter()),
        };
        added.expect("there is room");
    }

    /// What the server does in a turn.
    #[inline(never)]
    fn marked_turn(&mut self) {
        self.card.poll(Instant::ORIGIN);
        self.session.work(&mut self.card);
        self.card.kick(Instant::ORIGIN);
    }
}
