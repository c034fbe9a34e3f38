//! A hostile client of vhost-user: the fuzzer is front end and driver.
//!
//! The first byte says which features are used, whether what is in flight is remembered, and whether
//! the ring is set up as it should be. Steps of one byte and its operands follow: messages of any
//! content, with or without descriptors, bytes anywhere in the rings and in what they name, turns.
//!
//! Required, whatever the client does: no panic; what was asked of the disk ends; a session that is
//! over leaves nothing behind.
//!
//! Or the device is a network card whose wire ends in a mirror, with a ring for each direction: see
//! [`card`].

use crate::input::Input;
use crate::memory::Memory;
use crate::mirror::{self, Mirror};
use outboard_block::disk::Disks;
use outboard_hw::Instant;
use outboard_hw::dma::{Arena, DmaSpace};
use outboard_linux::{EventFd, SharedMemory};
use outboard_net::{
    Arrival, Capabilities, Checksum, ChecksumState, Offloads, Segmentation, SegmentationKind,
};
use outboard_vhost::{Card, NetSession, Session};
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::net::NetFeatures;
use outboard_virtio::spec::vhost_user::request::*;
use outboard_virtio::spec::vhost_user::{Header, MemoryRegion, PROTOCOL_FEATURES, VringAddress};
use rustix::io::IoSlice;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair,
};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, LazyLock, Mutex};
use zerocopy::IntoBytes;

/// The client's memory; rings are in the first page, requests' memory behind it.
const MEMORY_BYTES: usize = 16 << 10;
const USER: u64 = 1 << 40;
const ENTRIES: u32 = 8;
/// Steps that are made at most, which bounds what one input costs.
const MAX_STEPS: usize = 64;
/// Turns until all must have ended.
const MAX_LAST_TURNS: usize = 2000;

/// Where the second ring is, behind the first.
const RING_BYTES: u64 = 512;

/// Memory of disks and of cards, for all inputs: to make it, and to touch it for the first time, takes
/// longer than all else.
static DISK: LazyLock<Arena> = LazyLock::new(|| arena("disk", 128 << 10));
static CARD: LazyLock<Arena> = LazyLock::new(|| arena("card", 1 << 20));
/// Frames and buffers that a card takes: few, since all of their memory is zeroed for each input, and so
/// that a client can use them up.
const CARD_DEPTH: u16 = 4;

fn arena(name: &str, bytes: usize) -> Arena {
    SharedMemory::for_model(name, bytes).expect("memory for the fuzzer").1
}

struct Bench {
    socket: OwnedFd,
    memory: SharedMemory,
    event: EventFd,
    served: Served,
}

/// What the client uses.
enum Served {
    Disk(Box<Session>, Disks),
    Card(Box<NetSession>, Card, Arc<Mutex<mirror::Shared>>),
}

impl Served {
    fn rings(&self) -> u64 {
        match self {
            Self::Disk(..) => 1,
            Self::Card(..) => 2,
        }
    }

    fn turn(&mut self) {
        match self {
            Self::Disk(session, disks) => {
                session.receive();
                disks.poll(Instant::ORIGIN);
                while let Some(done) = disks.next_done() {
                    session.complete(done, disks);
                }
                session.work(disks);
                session.sleep();
                disks.kick(Instant::ORIGIN);
            }
            Self::Card(session, card, shared) => {
                session.receive();
                card.poll(Instant::ORIGIN);
                session.work(card);
                session.sleep(card);
                card.kick(Instant::ORIGIN);
                shared.lock().unwrap().sent.clear();
            }
        }
    }

    fn is_closed(&self) -> bool {
        match self {
            Self::Disk(session, _) => session.closed().is_some(),
            Self::Card(session, ..) => session.closed().is_some(),
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Self::Disk(session, disks) => {
                let over = session.is_over();
                assert!(!over || disks.is_idle(), "something is still under way");
                over
            }
            Self::Card(session, ..) => session.is_over(),
        }
    }
}

/// Lets the client that `input` describes use a disk.
pub fn vhost(input: &[u8]) {
    let mut input = Input(input);
    let (socket, theirs) = pair();
    let mut disks = Disks::new();
    let driver = Memory::new(vec![0; 16 << 10], 4, 8, &DISK);
    disks.add_driver(Box::new(driver), Vec::new(), 128 << 10);
    while !disks.is_settled() {
        disks.poll(Instant::ORIGIN);
    }
    let disk = disks.ids().next().unwrap();
    let session = Session::new(theirs, 1, disk, &disks).unwrap();
    run(&mut input, socket, Served::Disk(Box::new(session), disks));
}

/// Lets the client that `input` describes use a card. The second byte says which work on frames
/// comes with those that the card receives.
pub(crate) fn card(mut input: Input<'_>) {
    let (socket, theirs) = pair();
    let able = Offloads::all().difference(Offloads::VLAN);
    let able = Capabilities { transmit: able, receive: able, ..Capabilities::NONE };
    let mirror = Mirror::new(1, able, &CARD).with_depth(CARD_DEPTH);
    let shared = mirror.shared();
    let mut card = Card::new(Box::new(mirror));
    card.poll(Instant::ORIGIN);
    let session = NetSession::new(theirs, 1, &card).unwrap();
    let coming = input.byte();
    let count = usize::from(coming >> 6);
    shared.lock().unwrap().coming.extend((0..count).map(|number| frame(coming, number)));
    run(&mut input, socket, Served::Card(Box::new(session), card, shared));
}

/// A frame that comes, with work that is left to do.
fn frame(coming: u8, number: usize) -> (u16, Vec<u8>, Arrival) {
    let mut bytes = vec![coming; 100 << (number * 4)];
    bytes[12..15].copy_from_slice(&[8, 0, 0x45]);
    (bytes[23], bytes[46]) = (6, 5 << 4);
    let checksum = match coming & 3 {
        0 => ChecksumState::Unknown,
        1 => ChecksumState::Valid,
        _ => ChecksumState::Missing(Checksum { start: 34, offset: 16 }),
    };
    let kind = match coming >> 2 & 3 {
        0 => SegmentationKind::Tcp6,
        1 => SegmentationKind::Udp,
        _ => SegmentationKind::Tcp4,
    };
    let segment_bytes = 1 + 50 * u16::from(coming & 31);
    let segmentation = Segmentation { kind, ecn: false, segment_bytes, header_bytes: 54 };
    let segmentation = (coming & 32 != 0).then_some(segmentation);
    (0, bytes.clone(), Arrival { checksum, segmentation, ..mirror::plain(bytes.len()) })
}

fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap()
}

fn run(input: &mut Input<'_>, socket: OwnedFd, served: Served) {
    let memory = SharedMemory::new("client", MEMORY_BYTES).unwrap();
    let event = EventFd::new().unwrap();
    let mut bench = Bench { socket, memory, event, served };
    let setup = input.byte();
    if setup & 0x80 == 0 {
        bench.set_up(setup);
    }
    for _ in 0..MAX_STEPS {
        if input.is_empty() || bench.served.is_closed() {
            break;
        }
        bench.step(input);
    }
    bench.end();
    for arena in [&*DISK, &*CARD] {
        assert_eq!(arena.statistics().buffers, 0, "memory was lost");
    }
}

impl Bench {
    fn send(&self, request: u32, body: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let bytes = (body.len() as u32).into();
        let flags = (Header::VERSION | Header::NEED_REPLY).into();
        let header = Header { request: request.into(), flags, bytes };
        self.send_raw(&[header.as_bytes(), body].concat(), descriptors);
    }

    fn send_raw(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        // Whoever was disconnected gets nothing.
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let _ = sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut ancillary, flags);
    }

    /// All that a front end says for the first ring to run.
    fn set_up(&mut self, setup: u8) {
        let mut features = Features::VERSION_1;
        features.set(Features::PACKED, setup & 1 != 0);
        features.set(Features::INDIRECT, setup & 2 != 0);
        features.set(Features::EVENT_INDEX, setup & 4 != 0);
        let mut bits = features.bits() | PROTOCOL_FEATURES;
        let is_card = matches!(self.served, Served::Card(..));
        if is_card && setup & 16 != 0 {
            bits |= NetFeatures::MRG_RXBUF.bits();
        }
        if is_card && setup & 32 != 0 {
            let able = Offloads::all().difference(Offloads::VLAN);
            bits |= outboard_virtio::net::features::offers(able, able).bits();
        }
        self.send(SET_FEATURES, &bits.to_le_bytes(), &[]);
        let protocol: u64 = if is_card { 0x8019 } else { 0x9229 };
        self.send(SET_PROTOCOL_FEATURES, &protocol.to_le_bytes(), &[]);
        let region = MemoryRegion {
            guest_address: 0.into(),
            bytes: (MEMORY_BYTES as u64).into(),
            user_address: USER.into(),
            file_offset: 0.into(),
        };
        let table = [&1u64.to_le_bytes(), region.as_bytes()].concat();
        self.send(SET_MEM_TABLE, &table, &[self.memory.as_fd()]);
        if setup & 8 != 0 {
            // The last two pages remember what is in flight, whatever is there.
            let bytes = [8192u64.to_le_bytes(), 8192u64.to_le_bytes()].concat();
            let body = [&bytes[..], &[1, 0, ENTRIES as u8, 0]].concat();
            self.send(SET_INFLIGHT_FD, &body, &[self.memory.as_fd()]);
        }
        for ring in 0..self.served.rings() {
            self.set_up_ring(setup, ring);
        }
    }

    fn set_up_ring(&self, setup: u8, ring: u64) {
        let state = |number: u32| [(ring as u32).to_le_bytes(), number.to_le_bytes()].concat();
        self.send(SET_VRING_NUM, &state(ENTRIES), &[]);
        let base = if setup & 1 != 0 { 0x8000_8000 } else { 0 };
        self.send(SET_VRING_BASE, &state(base), &[]);
        let at = USER + ring * RING_BYTES;
        let address = VringAddress {
            index: (ring as u32).into(),
            flags: 0.into(),
            descriptors: at.into(),
            used: (at + 256).into(),
            available: (at + 128).into(),
            log: 0.into(),
        };
        self.send(SET_VRING_ADDR, address.as_bytes(), &[]);
        self.send(SET_VRING_ENABLE, &state(1), &[]);
        for request in [SET_VRING_CALL, SET_VRING_KICK] {
            self.send(request, &ring.to_le_bytes(), &[self.event.as_fd()]);
        }
    }

    fn turn(&mut self) {
        self.served.turn();
    }

    /// One step: its kind in the lower three bits of a byte, a small operand above.
    fn step(&mut self, input: &mut Input<'_>) {
        let code = input.byte();
        let small = usize::from(code >> 3);
        match code & 7 {
            0 => (0..=small).for_each(|_| self.turn()),
            1 => {
                let request = u32::from(input.byte() & 63);
                let body: Vec<u8> = (0..small * 2).map(|_| input.byte()).collect();
                let descriptors = match input.byte() & 3 {
                    0 => &[][..],
                    1 => &[self.event.as_fd()][..],
                    2 => &[self.memory.as_fd()][..],
                    _ => &[self.event.as_fd(), self.memory.as_fd()][..],
                };
                self.send(request, &body, descriptors);
                self.turn();
            }
            2 => {
                let bytes: Vec<u8> = (0..small).map(|_| input.byte()).collect();
                self.send_raw(&bytes, &[]);
                self.turn();
            }
            // A descriptor of either layout: where, how long, flags, next or ID.
            3 => {
                let place = input.byte();
                let ring = u64::from(place >> 4) % self.served.rings();
                let at = ring * RING_BYTES + 16 * u64::from(place & 15);
                let address = u64::from(input.byte()) << 6;
                let tail = [input.half(), 0, input.half(), input.half()];
                let tail: Vec<u8> = tail.into_iter().flat_map(u16::to_le_bytes).collect();
                self.poke(at, &[&address.to_le_bytes()[..], &tail].concat());
            }
            4 => {
                let ring = small as u64 % self.served.rings();
                self.poke(ring * RING_BYTES + 128, &[0, 0, input.byte(), input.byte()]);
            }
            5 => self.event.signal(),
            // Anything anywhere.
            6 => {
                let at = u64::from(input.half()) % MEMORY_BYTES as u64;
                let bytes: Vec<u8> = (0..small).map(|_| input.byte()).collect();
                self.poke(at, &bytes);
            }
            // A request's header, and the next entry of the available ring.
            _ => {
                let kind = [input.byte(), 0, 0, 0, 0, 0, 0, 0, input.byte(), 0, 0, 0, 0, 0, 0, 0];
                self.poke(64 * u64::from(input.byte()), &kind);
                let ring = (small as u64 >> 3) % self.served.rings();
                let at = ring * RING_BYTES + 132 + 2 * (small as u64 & 7);
                self.poke(at, &[input.byte(), 0]);
            }
        }
    }

    /// Writes into the client's memory.
    fn poke(&self, at: u64, bytes: &[u8]) {
        let room = (MEMORY_BYTES as u64 - at).min(bytes.len() as u64) as usize;
        let _ = rustix::io::pwrite(self.memory.as_fd(), &bytes[..room], at);
    }

    /// The client goes, and all that it has asked for ends.
    fn end(mut self) {
        let event = EventFd::new().unwrap();
        self.socket = event.as_fd().try_clone_to_owned().unwrap();
        for _ in 0..MAX_LAST_TURNS {
            self.turn();
            if self.served.is_over() {
                return;
            }
        }
        panic!("the session does not end");
    }
}
