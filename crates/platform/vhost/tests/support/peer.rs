//! A back end in a thread of the test, which does as it is told, or worse.
//!
//! It serves queues in the split layout, one descriptor after the other. All memory it reads and
//! writes through the descriptors that it was given.

use outboard_virtio::spec::blk::{FLUSH, GET_ID, HEADER_BYTES, Header as BlkHeader, IN, OUT};
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::split::{
    AVAILABLE_INDEX, AVAILABLE_RING, Descriptor, USED_BYTES, USED_INDEX, USED_RING, UsedElement,
};
use outboard_virtio::spec::vhost_user::request::*;
use outboard_virtio::spec::vhost_user::{
    ConfigPart, Header, InflightRegion, MAX_DESCRIPTORS, MemoryRegion, PROTOCOL_FEATURES,
    ProtocolFeatures, REGIONS_AT, VringAddress, VringState, inflight_split as states,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::{pread, pwrite, read, write};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use zerocopy::{FromBytes, IntoBytes};

/// A message, as it goes over the socket.
pub struct Message {
    pub bytes: Vec<u8>,
    pub descriptors: Vec<OwnedFd>,
}

impl Message {
    pub fn new(request: u32, flags: u32, payload: &[u8]) -> Self {
        let (flags, bytes) = (flags | Header::VERSION, payload.len() as u32);
        let header = Header { request: request.into(), flags: flags.into(), bytes: bytes.into() };
        let bytes = [header.as_bytes(), payload].concat();
        Self { bytes, descriptors: Vec::new() }
    }
}

/// What a peer is to do to its answers: given the request and the honest answer, what to send.
/// `None` closes the connection.
pub type Twist = Box<dyn FnMut(u32, Option<Message>) -> Option<Vec<Message>> + Send>;

/// What peers have in common, one after the other.
pub struct Disk {
    pub content: Vec<u8>,
    pub serial: &'static str,
    pub protocol: ProtocolFeatures,
    /// Features of rings that it offers.
    pub features: Features,
    /// Requests that are taken and not carried out until the peer dies.
    pub holds: bool,
    pub held: usize,
    /// How many of these it carries out all the same, the oldest, once it has taken so many twice: it
    /// says so by an entry for the last of them, as a device may that keeps to the order.
    pub batch: usize,
    /// Requests that were carried out, with their first sector.
    pub carried_out: Vec<(u32, u64)>,
    /// How many were found in a region.
    pub found: usize,
}

impl Disk {
    pub fn new(content: Vec<u8>) -> Arc<Mutex<Self>> {
        let protocol = ProtocolFeatures::CONFIG
            | ProtocolFeatures::REPLY_ACK
            | ProtocolFeatures::MQ
            | ProtocolFeatures::BACKEND_REQ
            | ProtocolFeatures::INFLIGHT_SHMFD
            | ProtocolFeatures::STATUS;
        Arc::new(Mutex::new(Self {
            content,
            serial: "peer",
            protocol,
            features: Features::empty(),
            holds: false,
            held: 0,
            batch: 0,
            carried_out: Vec::new(),
            found: 0,
        }))
    }
}

#[derive(Default)]
struct Ring {
    entries: u16,
    address: Option<VringAddress>,
    kick: Option<OwnedFd>,
    call: Option<OwnedFd>,
    next: u16,
}

/// One that listens, and serves one front end after the other.
pub struct Peer {
    thread: Option<JoinHandle<()>>,
    stop: Arc<OwnedFd>,
    /// The socket on which it can ask.
    pub channel: Arc<Mutex<Option<OwnedFd>>>,
}

impl Peer {
    pub fn start(socket: &Path, disk: &Arc<Mutex<Disk>>, twist: Twist) -> Self {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        let stop =
            Arc::new(rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap());
        let channel = Arc::default();
        let serving = Serving {
            disk: disk.clone(),
            twist,
            stop: stop.clone(),
            channel: Arc::clone(&channel),
            memory: None,
            region: None,
            counter: 0,
            held: Vec::new(),
            rings: Vec::new(),
        };
        let thread = Some(std::thread::spawn(move || serving.run(&listener)));
        Self { thread, stop, channel }
    }

    pub fn honest(socket: &Path, disk: &Arc<Mutex<Disk>>) -> Self {
        Self::start(socket, disk, Box::new(|_, answer| Some(answer.into_iter().collect())))
    }

    /// Says something by itself.
    pub fn say(&self, message: &Message) {
        let channel = self.channel.lock().unwrap();
        write(channel.as_ref().expect("it was given a socket"), &message.bytes).unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        write(&*self.stop, &1u64.to_ne_bytes()).unwrap();
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

struct Serving {
    disk: Arc<Mutex<Disk>>,
    twist: Twist,
    stop: Arc<OwnedFd>,
    channel: Arc<Mutex<Option<OwnedFd>>>,
    memory: Option<OwnedFd>,
    region: Option<OwnedFd>,
    counter: u64,
    /// Heads of the chains that it holds.
    held: Vec<u16>,
    rings: Vec<Ring>,
}

impl Serving {
    fn run(mut self, listener: &UnixListener) {
        loop {
            let mut fds = [&*self.stop as &dyn AsFd, listener]
                .map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN));
            poll(&mut fds, None).unwrap();
            if !fds[0].revents().is_empty() {
                return;
            }
            let (socket, _) = listener.accept().unwrap();
            (self.rings, self.memory, self.region) = (Vec::new(), None, None);
            if self.converse(&socket).is_none() {
                return;
            }
        }
    }

    /// Serves one front end; `None` once it is to stop.
    fn converse(&mut self, socket: &UnixStream) -> Option<()> {
        loop {
            let kicks = self.rings.iter().filter_map(|ring| ring.kick.as_ref());
            let fds = [&*self.stop as &dyn AsFd, socket].into_iter();
            let fds = fds.chain(kicks.map(|kick| kick as &dyn AsFd));
            let mut fds: Vec<_> =
                fds.map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)).collect();
            poll(&mut fds, None).unwrap();
            let ready: Vec<_> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            if ready[0] {
                return None;
            }
            if ready[1] {
                let Some((request, flags, payload, descriptors)) = hear(socket) else {
                    return Some(());
                };
                let answer = self.answer(request, flags, &payload, descriptors);
                let Some(messages) = (self.twist)(request, answer) else { return Some(()) };
                for message in messages {
                    send(socket, &message);
                }
            }
            for number in 0..self.rings.len() {
                if let Some(kick) = &self.rings[number].kick {
                    let mut count = [0; 8];
                    // It does not block.
                    let _ = read(kick, &mut count);
                    self.serve(number);
                }
            }
        }
    }

    /// The honest answer.
    fn answer(
        &mut self,
        request: u32,
        flags: u32,
        payload: &[u8],
        mut descriptors: Vec<OwnedFd>,
    ) -> Option<Message> {
        let state = VringState::read_from_bytes(payload).ok();
        let number = u64::read_from_bytes(payload).unwrap_or(0);
        let answer = |payload: &[u8]| Some(Message::new(request, Header::REPLY, payload));
        match request {
            GET_FEATURES => {
                let rings = self.disk.lock().unwrap().features | Features::VERSION_1;
                let features = rings.bits() | PROTOCOL_FEATURES;
                return answer(features.as_bytes());
            }
            GET_PROTOCOL_FEATURES => {
                return answer(self.disk.lock().unwrap().protocol.bits().as_bytes());
            }
            GET_QUEUE_NUM => return answer(2u64.as_bytes()),
            GET_STATUS => return answer(0xbu64.as_bytes()),
            GET_CONFIG => {
                let bytes = payload.len() - size_of::<ConfigPart>();
                let sectors = self.disk.lock().unwrap().content.len() as u64 / 512;
                let mut config = sectors.to_le_bytes().to_vec();
                config.resize(bytes, 0);
                return answer(&[&payload[..size_of::<ConfigPart>()], &config].concat());
            }
            GET_VRING_BASE => {
                let ring = &mut self.rings[state.unwrap().index.get() as usize];
                ring.kick = None;
                let index = state.unwrap().index;
                let base = VringState { index, number: u32::from(ring.next).into() };
                return answer(base.as_bytes());
            }
            GET_INFLIGHT_FD => {
                let wanted = InflightRegion::read_from_prefix(payload).unwrap().0;
                let bytes = u64::from(wanted.queues.get()) * REGION_BYTES;
                let region = memfd_create("region", MemfdFlags::CLOEXEC).unwrap();
                ftruncate(&region, bytes).unwrap();
                let mut message =
                    answer(InflightRegion { bytes: bytes.into(), ..wanted }.as_bytes())?;
                message.descriptors.push(region);
                return Some(message);
            }
            SET_INFLIGHT_FD => self.region = descriptors.pop(),
            SET_MEM_TABLE => {
                let region = MemoryRegion::read_from_bytes(&payload[REGIONS_AT..]).unwrap();
                assert_eq!(region.guest_address, region.file_offset);
                self.memory = descriptors.pop();
            }
            SET_VRING_NUM => {
                self.ring(state.unwrap().index.get()).entries = state.unwrap().number.get() as u16
            }
            SET_VRING_BASE => {
                self.ring(state.unwrap().index.get()).next = state.unwrap().number.get() as u16
            }
            SET_VRING_ADDR => {
                let address = VringAddress::read_from_bytes(payload).unwrap();
                self.ring(address.index.get()).address = Some(address);
            }
            SET_VRING_CALL => self.ring(number as u32).call = descriptors.pop(),
            SET_VRING_KICK => {
                self.ring(number as u32).kick = descriptors.pop();
                self.find_in_flight(number as usize);
            }
            SET_BACKEND_REQ_FD => *self.channel.lock().unwrap() = descriptors.pop(),
            _ => {}
        }
        (flags & Header::NEED_REPLY != 0).then(|| answer(0u64.as_bytes()))?
    }

    fn ring(&mut self, index: u32) -> &mut Ring {
        let index = index as usize;
        if self.rings.len() <= index {
            self.rings.resize_with(index + 1, Ring::default);
        }
        &mut self.rings[index]
    }

    fn load<T: FromBytes + IntoBytes>(&self, address: u64) -> T {
        let mut value = T::new_zeroed();
        pread(self.memory.as_ref().unwrap(), value.as_mut_bytes(), address).unwrap();
        value
    }

    fn store(&self, address: u64, bytes: &[u8]) {
        pwrite(self.memory.as_ref().unwrap(), bytes, address).unwrap();
    }

    /// Carries out what a former peer had in flight, by the region alone.
    fn find_in_flight(&mut self, number: usize) {
        let Some(region) = &self.region else { return };
        let mut heads = Vec::new();
        for head in 0..self.rings[number].entries {
            let at = number as u64 * REGION_BYTES + state_at(head);
            let mut state = [0; states::STATE_BYTES];
            pread(region, &mut state, at).unwrap();
            if state[states::IN_FLIGHT] != 0 {
                let counter = u64::read_from_prefix(&state[states::COUNTER..]).unwrap().0;
                heads.push((counter, head));
            }
        }
        heads.sort_unstable();
        self.disk.lock().unwrap().found += heads.len();
        let ring = &mut self.rings[number];
        // The base is what was used; what is in flight was taken beyond that.
        ring.next = ring.next.wrapping_add(heads.len() as u16);
        for (_, head) in heads {
            self.carry_out(number, head);
        }
    }

    fn serve(&mut self, number: usize) {
        let Some(address) = self.rings[number].address else { return };
        let available = address.available.get();
        while self.load::<u16>(available + AVAILABLE_INDEX as u64) != self.rings[number].next {
            let ring = &mut self.rings[number];
            let place = u64::from(ring.next % ring.entries);
            ring.next = ring.next.wrapping_add(1);
            let head: u16 = self.load(available + AVAILABLE_RING as u64 + 2 * place);
            if let Some(region) = &self.region {
                self.counter += 1;
                let at = number as u64 * REGION_BYTES + state_at(head);
                pwrite(region, &[1], at).unwrap();
                pwrite(region, &self.counter.to_ne_bytes(), at + states::COUNTER as u64).unwrap();
            }
            let mut disk = self.disk.lock().unwrap();
            if disk.holds {
                disk.held += 1;
                let batch = disk.batch;
                drop(disk);
                self.held.push(head);
                if batch > 0 && self.held.len() == 2 * batch {
                    let heads: Vec<u16> = self.held.drain(..batch).collect();
                    heads.iter().for_each(|head| self.perform(number, *head));
                    self.tell(number, &heads);
                }
                continue;
            }
            drop(disk);
            self.carry_out(number, head);
        }
    }

    fn carry_out(&mut self, number: usize, head: u16) {
        self.perform(number, head);
        self.tell(number, &[head]);
    }

    fn perform(&mut self, number: usize, head: u16) {
        let address = self.rings[number].address.unwrap();
        let mut pieces: Vec<(u64, usize, bool)> = Vec::new();
        let mut at = head;
        loop {
            let offset = u64::from(at) * Descriptor::BYTES as u64;
            let descriptor: Descriptor = self.load(address.descriptors.get() + offset);
            let flags = descriptor.flags.get();
            let piece = (descriptor.address.get(), descriptor.bytes.get() as usize);
            pieces.push((piece.0, piece.1, flags & Descriptor::WRITE != 0));
            if flags & Descriptor::NEXT == 0 {
                break;
            }
            at = descriptor.next.get();
        }
        assert_eq!(pieces[0].1, HEADER_BYTES);
        let header: BlkHeader = self.load(pieces[0].0);
        let (status, data) = (pieces.pop().unwrap(), &pieces[1..]);
        let mut disk = self.disk.lock().unwrap();
        let mut place = header.sector.get() as usize * 512;
        let kind = header.kind.get();
        disk.carried_out.push((kind, header.sector.get()));
        for (address, bytes, _) in data {
            match kind {
                IN => self.store(*address, &disk.content[place..place + bytes]),
                OUT => {
                    let mut fresh = vec![0; *bytes];
                    pread(self.memory.as_ref().unwrap(), &mut fresh, *address).unwrap();
                    disk.content[place..place + bytes].copy_from_slice(&fresh);
                }
                GET_ID => self.store(*address, disk.serial.as_bytes()),
                FLUSH => {}
                other => panic!("request {other}"),
            }
            place += bytes;
        }
        drop(disk);
        self.store(status.0, &[0]);
    }

    /// Says that these are done, by an entry for the last one.
    fn tell(&mut self, number: usize, heads: &[u16]) {
        let ring = &self.rings[number];
        let used = ring.address.unwrap().used.get();
        let index: u16 = self.load(used + USED_INDEX as u64);
        let last = u32::from(*heads.last().unwrap());
        let element = UsedElement { id: last.into(), bytes: 1.into() };
        let slot = u64::from(index % ring.entries) * USED_BYTES as u64;
        self.store(used + USED_RING as u64 + slot, element.as_bytes());
        let index = index.wrapping_add(heads.len() as u16);
        self.store(used + USED_INDEX as u64, &index.to_le_bytes());
        if let Some(region) = &self.region {
            for head in heads {
                pwrite(region, &[0], number as u64 * REGION_BYTES + state_at(*head)).unwrap();
            }
        }
        let _ = write(ring.call.as_ref().unwrap(), &1u64.to_ne_bytes());
    }
}

/// Bytes of a region for each queue.
const REGION_BYTES: u64 = 16 + 16 * 256;

fn state_at(head: u16) -> u64 {
    states::STATES as u64 + u64::from(head) * states::STATE_BYTES as u64
}

fn hear(socket: &UnixStream) -> Option<(u32, u32, Vec<u8>, Vec<OwnedFd>)> {
    let mut descriptors = Vec::new();
    let mut bytes = [0; Header::BYTES];
    take(socket, &mut bytes, &mut descriptors)?;
    let header = Header::read_from_bytes(&bytes).unwrap();
    let mut payload = vec![0; header.bytes.get() as usize];
    take(socket, &mut payload, &mut descriptors)?;
    Some((header.request.get(), header.flags.get(), payload, descriptors))
}

fn take(socket: &UnixStream, bytes: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> Option<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes[filled..])];
        let received =
            recvmsg(socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC).ok()?.bytes;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(found) = message {
                descriptors.extend(found);
            }
        }
        if received == 0 {
            return None;
        }
        filled += received;
    }
    Some(())
}

fn send(socket: &UnixStream, message: &Message) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = message.descriptors.iter().map(AsFd::as_fd).collect();
    if !descriptors.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
    }
    // A front end that has had enough is gone.
    let _ = sendmsg(socket, &[IoSlice::new(&message.bytes)], &mut ancillary, SendFlags::NOSIGNAL);
}
