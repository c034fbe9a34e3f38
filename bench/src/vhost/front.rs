//! The front end that back ends are measured with. It says all it has to say at once, and is in the
//! same process.

use outboard_hw::dma::Arena;
use outboard_linux::{EventFd, SharedMemory};
use outboard_virtio::queue::Queue;
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
/// Entries of each ring.
pub(super) const ENTRIES: u16 = 512;

/// A front end.
pub(super) struct Front {
    socket: OwnedFd,
    memory: Arc<SharedMemory>,
    packed: bool,
}

impl Front {
    /// A front end, its memory, and the back end's end of the connection.
    pub(super) fn new() -> (Self, Arena, OwnedFd) {
        let flags = SocketFlags::CLOEXEC;
        let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let (socket, theirs) = pair.expect("sockets");
        let (memory, arena) = SharedMemory::for_model("client", 4 << 20).expect("memory");
        (Self { socket, memory, packed: false }, arena, theirs)
    }

    fn say(&self, request: u32, body: &[u8], with: &[BorrowedFd<'_>]) {
        let (flags, bytes) = (Header::VERSION.into(), (body.len() as u32).into());
        let header = Header { request: request.into(), flags, bytes };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !with.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(with)));
        }
        let message = [header.as_bytes(), body].concat();
        sendmsg(&self.socket, &[IoSlice::new(&message)], &mut ancillary, SendFlags::empty())
            .expect("there is room");
    }

    /// Says which features it uses, of device and rings, and shares its memory.
    pub(super) fn greet(&mut self, features: u64, protocol: ProtocolFeatures) {
        self.packed = features & Features::PACKED.bits() != 0;
        self.say(SET_FEATURES, &(features | PROTOCOL_FEATURES).to_le_bytes(), &[]);
        self.say(SET_PROTOCOL_FEATURES, &protocol.bits().to_le_bytes(), &[]);
        let region = MemoryRegion {
            guest_address: 0.into(),
            bytes: (self.memory.size_bytes() as u64).into(),
            user_address: USER.into(),
            file_offset: 0.into(),
        };
        let table = [&1u64.to_le_bytes(), region.as_bytes()].concat();
        self.say(SET_MEM_TABLE, &table, &[self.memory.as_fd()]);
    }

    /// Has the back end remember what is in flight; `turn` lets it answer.
    pub(super) fn remember(&self, turn: impl FnOnce()) {
        let (none, queues, entries) = (0.into(), 1.into(), ENTRIES.into());
        let wanted = InflightRegion { bytes: none, file_offset: none, queues, entries };
        self.say(GET_INFLIGHT_FD, wanted.as_bytes(), &[]);
        turn();
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

    /// Has a ring run.
    pub(super) fn start(&self, ring: u32, queue: &Queue) {
        let state = |number: u32| VringState { index: ring.into(), number: number.into() };
        let areas = queue.areas();
        let address = VringAddress {
            index: ring.into(),
            flags: 0.into(),
            descriptors: (USER + areas.descriptors.bits()).into(),
            used: (USER + areas.device.bits()).into(),
            available: (USER + areas.driver.bits()).into(),
            log: 0.into(),
        };
        let base = if self.packed { 0x8000_8000 } else { 0 };
        self.say(SET_VRING_NUM, state(ENTRIES.into()).as_bytes(), &[]);
        self.say(SET_VRING_BASE, state(base).as_bytes(), &[]);
        self.say(SET_VRING_ADDR, address.as_bytes(), &[]);
        let [kick, call] = [(); 2].map(|()| EventFd::new().expect("an eventfd"));
        let number = u64::from(ring).to_le_bytes();
        self.say(SET_VRING_CALL, &number, &[call.as_fd()]);
        self.say(SET_VRING_KICK, &number, &[kick.as_fd()]);
        self.say(SET_VRING_ENABLE, state(1).as_bytes(), &[]);
    }
}
