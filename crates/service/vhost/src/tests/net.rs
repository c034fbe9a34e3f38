//! Drivers of network cards that break the rules, or come close.

#[path = "../../../../class/net/tests/support/mirror.rs"]
#[allow(dead_code, reason = "the parts that are for others")]
mod mirror;

use super::rig::{ENTRIES, Front, connected_with, pattern};
use crate::{Card, NetSession, Violation};
use mirror::{Mirror, Shared, plain};
use outboard_hw::Instant;
use outboard_hw::dma::Segment;
use outboard_linux::SharedMemory;
use outboard_net::Capabilities;
use outboard_virtio::queue::Piece;
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::net::{Header, NEEDS_CHECKSUM, NetFeatures};
use outboard_virtio::spec::vhost_user::VringAddress;
use outboard_virtio::spec::vhost_user::request::*;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use zerocopy::IntoBytes;

const RECEIVE: u32 = 0;
const TRANSMIT: u32 = 1;

struct Back {
    session: NetSession,
    card: Card,
    shared: Arc<Mutex<Shared>>,
}

impl Back {
    fn turn(&mut self) {
        self.session.receive();
        self.card.poll(Instant::ORIGIN);
        self.session.work(&mut self.card);
        self.card.kick(Instant::ORIGIN);
        // What was sent has come.
        self.card.poll(Instant::ORIGIN);
    }
}

/// A front end with one ring that runs.
fn started(ring: u32, rings: Features, net: NetFeatures) -> (Front, Back) {
    let (front, mut back) = connected_with(rings, |socket| {
        let (_, arena) = SharedMemory::for_model("card", 4 << 20).unwrap();
        let mirror = Mirror::new(1, Capabilities::NONE, &arena);
        let shared = mirror.shared();
        shared.lock().unwrap().is_blind = true;
        let mut card = Card::new(Box::new(mirror));
        card.poll(Instant::ORIGIN);
        let session = NetSession::new(socket, 1, &card).unwrap();
        Back { session, card, shared }
    });
    let features = rings.bits() | net.bits();
    front.send(SET_FEATURES, &features.to_le_bytes(), &[]);
    front.share_memory();
    let base = if rings.contains(Features::PACKED) { 0x8000_8000 } else { 0 };
    front.send(SET_VRING_NUM, &Front::state(ring, ENTRIES.into()), &[]);
    front.send(SET_VRING_BASE, &Front::state(ring, base), &[]);
    let address = VringAddress { index: ring.into(), ..front.ring_address() };
    front.send(SET_VRING_ADDR, address.as_bytes(), &[]);
    front.send(SET_VRING_KICK, &u64::from(ring).to_le_bytes(), &[front.kick.as_fd()]);
    back.turn();
    assert_eq!(back.session.closed(), None);
    (front, back)
}

/// A piece of memory: where, how long, and whether to be written.
type Part = (usize, usize, bool);

/// Makes pieces of memory available.
fn offer(front: &mut Front, token: u16, pieces: &[Part]) {
    let segment = |at: usize, bytes: usize| {
        let address = front.slots.address_of(at);
        Segment { address, bytes: bytes as u64 }
    };
    let pieces: Vec<_> = pieces
        .iter()
        .map(|(at, bytes, writable)| Piece { segment: segment(*at, *bytes), writable: *writable })
        .collect();
    front.queue.add(token, pieces.len() as u16, pieces.into_iter()).unwrap();
    front.publish();
}

fn layouts() -> [Features; 2] {
    [Features::VERSION_1, Features::VERSION_1 | Features::PACKED]
}

#[test]
fn chains_that_are_no_frames_end_the_connection() {
    for rings in layouts() {
        let wrong: [(u32, &[Part]); 5] = [
            (TRANSMIT, &[(0, 100, true)]),
            (TRANSMIT, &[(0, 12, false), (64, 60, true)]),
            (TRANSMIT, &[(0, 5, false), (64, 6, false)]),
            (RECEIVE, &[(0, 100, false), (128, 1600, true)]),
            (RECEIVE, &[(0, 11, true)]),
        ];
        for (ring, pieces) in wrong {
            let (mut front, mut back) = started(ring, rings, NetFeatures::empty());
            back.shared.lock().unwrap().coming.push_back((0, pattern(1, 60), plain(60)));
            offer(&mut front, 0, pieces);
            back.turn();
            assert_eq!(back.session.closed(), Some(Violation::Malformed), "{ring}, {pieces:?}");
            assert!(back.session.is_over());
        }
    }
}

#[test]
fn frames_that_are_none_are_dropped_and_the_next_one_is_not() {
    for rings in layouts() {
        let (mut front, mut back) = started(TRANSMIT, rings, NetFeatures::empty());
        let header = Header { flags: NEEDS_CHECKSUM, ..Header::default() };
        front.slots.write(4096, &header);
        // Too short, too long for the card and for any, and with work that was not agreed upon.
        for (at, bytes) in [(0, 12 + 13), (0, 12 + 1519), (0, 60_000), (4096, 12 + 60)] {
            front.slots.fill(0..12, 0);
            offer(&mut front, 0, &[(at, bytes, false)]);
            back.turn();
            assert!(front.queue.take().expect("it is used").is_ok());
        }
        front.slots.write_bytes(12, &pattern(7, 60));
        // Each byte on its own, as far as the ring goes.
        let pieces = [(0, 1, false), (1, 10, false), (11, 2, false), (13, 59, false)];
        offer(&mut front, 0, &pieces);
        back.turn();
        assert!(front.queue.take().expect("it is used").is_ok());
        let sent = std::mem::take(&mut back.shared.lock().unwrap().sent);
        assert!(sent.len() == 1 && sent[0].1 == pattern(7, 60));
        let traffic = back.session.traffic();
        assert_eq!((traffic.sent, traffic.unsent), (1, 4));
        assert_eq!(back.session.closed(), None);
    }
}

#[test]
fn frames_that_are_none_between_others_cost_nothing() {
    for rings in layouts() {
        let (mut front, mut back) = started(TRANSMIT, rings, NetFeatures::empty());
        front.slots.write(4096, &Header { flags: NEEDS_CHECKSUM, ..Header::default() });
        let good = [512, 1024, 1536];
        for at in good {
            front.slots.write_bytes(at + 12, &pattern(at as u8, 60));
        }
        // More often than the card has buffers.
        for round in 0..2000 {
            let bad = [(0, 12 + 13), (4096, 12 + 60), (0, 60_000)][round % 3];
            let frames = [(512, 72), bad, (1024, 72), bad, (1536, 72)];
            for (token, (at, bytes)) in (0..).zip(frames) {
                offer(&mut front, token, &[(at, bytes, false)]);
            }
            back.turn();
            for _ in frames {
                assert!(front.queue.take().expect("it is used").is_ok());
            }
            let sent = std::mem::take(&mut back.shared.lock().unwrap().sent);
            let sent: Vec<_> = sent.into_iter().map(|(_, frame, ..)| frame).collect();
            assert!(sent == good.map(|at| pattern(at as u8, 60)), "{round}");
        }
        let traffic = back.session.traffic();
        assert_eq!((traffic.sent, traffic.unsent), (6000, 4000));
    }
}

#[test]
fn what_does_not_fit_is_dropped_and_the_buffer_is_for_the_next_one() {
    for rings in layouts() {
        let (mut front, mut back) = started(RECEIVE, rings, NetFeatures::empty());
        offer(&mut front, 5, &[(0, 112, true)]);
        for bytes in [101, 1500, 100] {
            let frame = pattern(bytes as u8, bytes);
            back.shared.lock().unwrap().coming.push_back((0, frame, plain(bytes)));
        }
        back.turn();
        let used = front.queue.take().expect("it is used").unwrap();
        assert_eq!((used.token, used.bytes), (5, 112));
        let mut found = vec![0; 100];
        front.slots.read_bytes(12, &mut found);
        assert!(found == pattern(100, 100));
        assert_eq!((back.session.traffic().received, back.session.traffic().missed), (1, 2));
    }
}

#[test]
fn a_frame_waits_until_there_are_buffers_for_all_of_it_and_they_are_used_at_once() {
    for rings in layouts() {
        let (mut front, mut back) = started(RECEIVE, rings, NetFeatures::MRG_RXBUF);
        back.shared.lock().unwrap().coming.push_back((0, pattern(3, 500), plain(500)));
        for token in 0..3 {
            offer(&mut front, token, &[(256 * usize::from(token), 200, true)]);
            back.turn();
            if token < 2 {
                assert!(front.queue.take().is_none(), "{token}");
                assert!(back.session.is_short());
            }
        }
        let used = [(); 3].map(|()| front.queue.take().expect("all are used").unwrap());
        assert_eq!(used.map(|used| (used.token, used.bytes)), [(0, 200), (1, 200), (2, 112)]);
        let header: Header = front.slots.read(0);
        assert_eq!(header.buffers.get(), 3);
        let mut found = vec![0; 500];
        front.slots.read_bytes(12, &mut found[..188]);
        front.slots.read_bytes(256, &mut found[188..388]);
        front.slots.read_bytes(512, &mut found[388..]);
        assert!(found == pattern(3, 500));
        assert!(!back.session.is_short());
    }
}
