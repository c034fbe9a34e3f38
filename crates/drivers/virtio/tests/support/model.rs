//! A disk in this process, for what QEMU's does not do: its rings are the peers of `rings.rs`.

use super::peer::{Chain, PackedPeer, Peer, SplitPeer};
use outboard_hw::dma::{Arena, DmaSpace};
use outboard_linux::SharedMemory;
use outboard_virtio::VirtioError;
use outboard_virtio::queue::Areas;
use outboard_virtio::spec::blk::{
    DISCARD, DISCARD_BYTES, DiscardSegment, FLUSH, GET_ID, GET_LIFETIME, IN, Lifetime,
    MAX_DISCARD_SECTORS, MAX_SECURE_ERASE_SECTORS, MAX_WRITE_ZEROES_SECTORS, NUM_QUEUES, OUT,
    SECURE_ERASE, STATUS_IO_ERROR, STATUS_OK, STATUS_UNSUPPORTED, WRITE_ZEROES,
};
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::status::Status;
use outboard_virtio::transport::{Cause, Transport};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};
use zerocopy::{FromBytes, IntoBytes};

const MEMORY_BYTES: usize = 16 << 20;
pub const SECTOR: usize = 512;

/// Answers a request of a queue in its memory; how many bytes it says to have written.
pub type Answer = Box<dyn FnMut(u16, &GuestMemoryMmap, &Chain) -> u32 + Send>;

/// The device: what it offers, what it holds, and how it behaves.
pub struct Model {
    memory: GuestMemoryMmap,
    pub features: u64,
    accepted: u64,
    pub status: Status,
    pub config: Vec<u8>,
    pub content: Vec<u8>,
    queues: BTreeMap<u16, Box<dyn Peer + Send>>,
    /// What was taken of each queue and not answered.
    held: Vec<(u16, Chain)>,
    /// The most entries of each queue.
    pub entries: u16,
    /// Whether it looks for requests by itself, and wants no notifications.
    pub polls: bool,
    /// A queue whose requests are never answered.
    pub stuck: Option<u16>,
    /// How often a queue's reset is looked at before it is done; `None` if it never is.
    pub queue_reset_looks: Option<u32>,
    resetting: Option<(u16, Option<u32>)>,
    /// Notifications, each with the queue and where the next entry would be.
    pub notified: Vec<(u16, u16)>,
    pub resets: u32,
    /// What answers instead of a disk.
    pub other: Option<Answer>,
    /// What it knows of its life, if that can be read.
    pub lifetime: Option<Lifetime>,
    /// What was discarded, zeroed and erased.
    pub cleared: Vec<(u32, DiscardSegment)>,
}

/// The driver's end of it.
#[derive(Clone)]
pub struct ModelTransport {
    pub model: Arc<Mutex<Model>>,
    arena: Arena,
}

impl ModelTransport {
    pub fn new(features: u64, queues: u16, content: Vec<u8>) -> Self {
        let (file, arena) = SharedMemory::for_model("model", MEMORY_BYTES).unwrap();
        let bytes = file.size_bytes();
        let file = FileOffset::new(File::from(file.as_fd().try_clone_to_owned().unwrap()), 0);
        let ranges = [(GuestAddress(0), bytes, Some(file))];
        let mut config = vec![0; 128];
        config[..8].copy_from_slice(&(content.len() as u64 / SECTOR as u64).to_le_bytes());
        config[NUM_QUEUES..][..2].copy_from_slice(&queues.to_le_bytes());
        for most in [MAX_DISCARD_SECTORS, MAX_WRITE_ZEROES_SECTORS, MAX_SECURE_ERASE_SECTORS] {
            config[most..][..4].copy_from_slice(&(most as u32).to_le_bytes());
        }
        let model = Model {
            memory: GuestMemoryMmap::from_ranges_with_files(ranges).unwrap(),
            features: features | Features::VERSION_1.bits(),
            accepted: 0,
            status: Status::empty(),
            config,
            content,
            queues: BTreeMap::new(),
            held: Vec::new(),
            entries: 64,
            polls: false,
            stuck: None,
            queue_reset_looks: Some(2),
            resetting: None,
            notified: Vec::new(),
            resets: 0,
            other: None,
            lifetime: None,
            cleared: Vec::new(),
        };
        Self { model: Arc::new(Mutex::new(model)), arena }
    }

    pub fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap()
    }
}

impl Model {
    /// Does all that it has, but what is stuck.
    pub fn serve(&mut self) {
        for (number, queue) in &mut self.queues {
            while let Some(chain) = queue.pop() {
                self.held.push((*number, chain));
            }
        }
        let stuck = self.stuck;
        let (held, done) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|(number, _)| Some(*number) == stuck);
        self.held = held;
        for (number, chain) in done {
            let bytes = match &mut self.other {
                Some(answer) => answer(number, &self.memory, &chain),
                None => self.answer(&chain),
            };
            if let Some(queue) = self.queues.get_mut(&number) {
                queue.push(&chain, bytes);
            }
        }
    }

    /// Requests that it has taken and not answered.
    pub fn holds(&self) -> usize {
        self.held.len()
    }

    /// Carries a request out; how many bytes were written.
    fn answer(&mut self, chain: &Chain) -> u32 {
        let mut asked = Vec::new();
        for (address, bytes, _) in chain.pieces.iter().filter(|piece| !piece.2) {
            let mut part = vec![0; *bytes as usize];
            self.memory.read_slice(&mut part, GuestAddress(*address)).unwrap();
            asked.extend(part);
        }
        let kind = u32::from_le_bytes(asked[..4].try_into().unwrap());
        let sector = u64::from_le_bytes(asked[8..16].try_into().unwrap());
        let (at, data) = (sector as usize * SECTOR, &asked[16..]);
        let room: usize =
            chain.pieces.iter().filter(|piece| piece.2).map(|one| one.1 as usize).sum();
        let (mut answer, status) = match kind {
            IN => (self.content[at..at + room - 1].to_vec(), STATUS_OK),
            OUT => {
                self.content[at..at + data.len()].copy_from_slice(data);
                (Vec::new(), STATUS_OK)
            }
            FLUSH => (Vec::new(), STATUS_OK),
            DISCARD | WRITE_ZEROES | SECURE_ERASE => {
                assert_eq!((sector, data.len()), (0, DISCARD_BYTES));
                let segment = DiscardSegment::read_from_bytes(data).unwrap();
                self.cleared.push((kind, segment));
                (Vec::new(), STATUS_OK)
            }
            GET_ID => (b"model\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec(), STATUS_OK),
            GET_LIFETIME => match self.lifetime {
                Some(lifetime) => (lifetime.as_bytes().to_vec(), STATUS_OK),
                None => (vec![0; size_of::<Lifetime>()], STATUS_IO_ERROR),
            },
            _ => (Vec::new(), STATUS_UNSUPPORTED),
        };
        answer.push(status);
        let mut place = 0;
        for (address, bytes, _) in chain.pieces.iter().filter(|piece| piece.2) {
            let end = answer.len().min(place + *bytes as usize);
            self.memory.write_slice(&answer[place..end], GuestAddress(*address)).unwrap();
            place = end;
        }
        answer.len() as u32
    }

    fn drop_queue(&mut self, queue: u16) {
        self.queues.remove(&queue);
        self.held.retain(|(number, _)| *number != queue);
    }
}

impl Transport for ModelTransport {
    fn dma(&self) -> Arc<dyn DmaSpace> {
        Arc::new(self.arena.clone())
    }

    fn offered_features(&mut self) -> u64 {
        self.model().features
    }

    fn accept_features(&mut self, features: u64) {
        self.model().accepted = features;
    }

    fn status(&self) -> Status {
        self.model().status
    }

    fn set_status(&mut self, status: Status) {
        let mut model = self.model();
        model.status = status;
        if status.is_empty() {
            model.queues.clear();
            model.held.clear();
            model.resetting = None;
            model.resets += 1;
        }
    }

    fn queue_limit(&mut self, _: u16) -> u16 {
        self.model().entries
    }

    fn enable_interrupts(&mut self, _: u16) -> Result<(), VirtioError> {
        Ok(())
    }

    fn start(&mut self) -> Result<(), VirtioError> {
        Ok(())
    }

    fn cut_off(&mut self) {
        self.model().queues.clear();
    }

    fn enable_queue(&mut self, queue: u16, areas: Areas) -> Result<(), VirtioError> {
        let mut model = self.model();
        let accepted = Features::from_bits_retain(model.accepted);
        let event_index = accepted.contains(Features::EVENT_INDEX);
        let memory = model.memory.clone();
        assert!(!model.queues.contains_key(&queue), "it is enabled");
        let mut peer: Box<dyn Peer + Send> = match accepted.contains(Features::PACKED) {
            true => Box::new(PackedPeer::new(memory, areas, event_index)),
            false => Box::new(SplitPeer::new(memory, areas, event_index)),
        };
        if model.polls {
            peer.wake();
        }
        model.queues.insert(queue, peer);
        Ok(())
    }

    fn notify(&mut self, queue: u16, next: u16) {
        self.model().notified.push((queue, next));
    }

    fn reset_queue(&mut self, queue: u16) {
        let mut model = self.model();
        model.resetting = Some((queue, model.queue_reset_looks));
    }

    fn is_queue_reset(&mut self, queue: u16) -> bool {
        let mut model = self.model();
        match &mut model.resetting {
            Some((resetting, Some(looks))) if *resetting == queue => match looks.checked_sub(1) {
                Some(left) => {
                    *looks = left;
                    false
                }
                None => {
                    model.resetting = None;
                    model.drop_queue(queue);
                    true
                }
            },
            _ => false,
        }
    }

    fn cause(&mut self, _: u16) -> Cause {
        Cause { queues: true, config: true }
    }

    fn config_generation(&self) -> u32 {
        0
    }

    fn config_u8(&self, offset: usize) -> u8 {
        self.model().config[offset]
    }

    fn config_u16(&self, offset: usize) -> u16 {
        u16::from_le_bytes(self.model().config[offset..][..2].try_into().unwrap())
    }

    fn config_u32(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.model().config[offset..][..4].try_into().unwrap())
    }

    fn set_config_u8(&mut self, offset: usize, value: u8) {
        self.model().config[offset] = value;
    }
}
