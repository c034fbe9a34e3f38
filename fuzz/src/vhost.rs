//! A hostile client of vhost-user: the fuzzer is front end and driver.
//!
//! The first byte says which features are used, whether what is in flight is remembered, and whether
//! the ring is set up as it should be. Steps of one byte and its operands follow: messages of any
//! content, with or without descriptors, bytes anywhere in the rings and in what they name, turns.
//!
//! Required, whatever the client does: no panic; what was asked of the disk ends; a session that is
//! over leaves nothing behind.

use crate::input::Input;
use crate::memory::Memory;
use outboard_block::disk::Disks;
use outboard_hw::Instant;
use outboard_linux::{EventFd, SharedMemory};
use outboard_vhost::Session;
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::vhost_user::request::*;
use outboard_virtio::spec::vhost_user::{Header, MemoryRegion, PROTOCOL_FEATURES, VringAddress};
use rustix::io::IoSlice;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair,
};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use zerocopy::IntoBytes;

/// The client's memory; rings are in the first page, requests' memory behind it.
const MEMORY_BYTES: usize = 16 << 10;
const USER: u64 = 1 << 40;
const ENTRIES: u32 = 8;
/// Steps that are made at most, which bounds what one input costs.
const MAX_STEPS: usize = 64;
/// Turns until all must have ended.
const MAX_LAST_TURNS: usize = 2000;

struct Bench {
    socket: OwnedFd,
    memory: SharedMemory,
    event: EventFd,
    session: Session,
    disks: Disks,
}

/// Lets the client that `input` describes use a disk.
pub fn vhost(input: &[u8]) {
    let mut input = Input(input);
    let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let (socket, theirs) = pair.unwrap();
    let (_, arena) = SharedMemory::for_model("disk", 128 << 10).unwrap();
    let mut disks = Disks::new();
    let driver = Memory::new(vec![0; 16 << 10], 4, 8, &arena);
    disks.add_driver(Box::new(driver), Vec::new(), 128 << 10);
    while !disks.is_settled() {
        disks.poll(Instant::ORIGIN);
    }
    let disk = disks.ids().next().unwrap();
    let session = Session::new(theirs, 1, disk, &disks).unwrap();
    let memory = SharedMemory::new("client", MEMORY_BYTES).unwrap();
    let event = EventFd::new().unwrap();
    let mut bench = Bench { socket, memory, event, session, disks };
    let setup = input.byte();
    if setup & 0x80 == 0 {
        bench.set_up(setup);
    }
    for _ in 0..MAX_STEPS {
        if input.is_empty() || bench.session.closed().is_some() {
            break;
        }
        bench.step(&mut input);
    }
    bench.end();
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
        let bits = features.bits() | PROTOCOL_FEATURES;
        self.send(SET_FEATURES, &bits.to_le_bytes(), &[]);
        self.send(SET_PROTOCOL_FEATURES, &0x9229u64.to_le_bytes(), &[]);
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
        let state = |number: u32| [0u32.to_le_bytes(), number.to_le_bytes()].concat();
        self.send(SET_VRING_NUM, &state(ENTRIES), &[]);
        let base = if setup & 1 != 0 { 0x8000_8000 } else { 0 };
        self.send(SET_VRING_BASE, &state(base), &[]);
        let address = VringAddress {
            index: 0.into(),
            flags: 0.into(),
            descriptors: USER.into(),
            used: (USER + 256).into(),
            available: (USER + 128).into(),
            log: 0.into(),
        };
        self.send(SET_VRING_ADDR, address.as_bytes(), &[]);
        self.send(SET_VRING_ENABLE, &state(1), &[]);
        for request in [SET_VRING_CALL, SET_VRING_KICK] {
            self.send(request, &0u64.to_le_bytes(), &[self.event.as_fd()]);
        }
    }

    fn turn(&mut self) {
        self.session.receive();
        self.disks.poll(Instant::ORIGIN);
        while let Some(done) = self.disks.next_done() {
            self.session.complete(done, &mut self.disks);
        }
        self.session.work(&mut self.disks);
        self.session.sleep();
        self.disks.kick(Instant::ORIGIN);
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
                let at = 16 * u64::from(input.byte() & 15);
                let address = u64::from(input.byte()) << 6;
                let tail = [input.half(), 0, input.half(), input.half()];
                let tail: Vec<u8> = tail.into_iter().flat_map(u16::to_le_bytes).collect();
                self.poke(at, &[&address.to_le_bytes()[..], &tail].concat());
            }
            4 => self.poke(128, &[0, 0, input.byte(), input.byte()]),
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
                self.poke(132 + 2 * (small as u64 & 7), &[input.byte(), 0]);
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
            if self.session.is_over() {
                assert!(self.disks.is_idle(), "something is still under way");
                return;
            }
        }
        panic!("the session does not end: {:?}", self.session);
    }
}
