//! A network card in this process, for what QEMU's does not do: its rings are the peers of
//! `rings.rs`, and what it says is the test's business.

use super::peer::{Chain, PackedPeer, Peer, SplitPeer};
use outboard_hw::dma::{Arena, DmaSpace};
use outboard_linux::SharedMemory;
use outboard_virtio::VirtioError;
use outboard_virtio::queue::Areas;
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::net::{Header, LINK_UP, MAX_PAIRS, MTU, STATUS};
use outboard_virtio::spec::status::Status;
use outboard_virtio::transport::{Cause, Transport};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};
use zerocopy::IntoBytes;

const MEMORY_BYTES: usize = 32 << 20;
/// Its address.
pub const MAC: [u8; 6] = [0x52, 0x54, 0, 9, 9, 9];

/// The device.
pub struct Card {
    pub memory: GuestMemoryMmap,
    pub features: u64,
    accepted: u64,
    pub status: Status,
    pub config: Vec<u8>,
    pub generation: u32,
    /// The configuration's generation changes with each look.
    pub is_restless: bool,
    pub entries: u16,
    queues: BTreeMap<u16, (Areas, Box<dyn Peer + Send>)>,
    /// Resets that were asked for.
    pub resets: u32,
    /// A reset never ends.
    pub is_stuck: bool,
}

/// The driver's end of it.
#[derive(Clone)]
pub struct CardTransport {
    card: Arc<Mutex<Card>>,
    arena: Arena,
}

impl CardTransport {
    pub fn new(features: u64, pairs: u16, entries: u16) -> Self {
        let (file, arena) = SharedMemory::for_model("card", MEMORY_BYTES).unwrap();
        let bytes = file.size_bytes();
        let file = FileOffset::new(File::from(file.as_fd().try_clone_to_owned().unwrap()), 0);
        let ranges = [(GuestAddress(0), bytes, Some(file))];
        let mut config = vec![0; 64];
        config[..6].copy_from_slice(&MAC);
        config[STATUS..][..2].copy_from_slice(&LINK_UP.to_le_bytes());
        config[MAX_PAIRS..][..2].copy_from_slice(&pairs.to_le_bytes());
        config[MTU..][..2].copy_from_slice(&1500u16.to_le_bytes());
        let card = Card {
            memory: GuestMemoryMmap::from_ranges_with_files(ranges).unwrap(),
            features: features | Features::VERSION_1.bits(),
            accepted: 0,
            status: Status::empty(),
            config,
            generation: 0,
            is_restless: false,
            entries,
            queues: BTreeMap::new(),
            resets: 0,
            is_stuck: false,
        };
        Self { card: Arc::new(Mutex::new(card)), arena }
    }

    pub fn card(&self) -> MutexGuard<'_, Card> {
        self.card.lock().unwrap()
    }
}

impl Card {
    /// Where a queue is, if it is there.
    pub fn areas(&self, queue: u16) -> Option<Areas> {
        self.queues.get(&queue).map(|(areas, _)| *areas)
    }

    /// The next chain that the driver has made available.
    pub fn pop(&mut self, queue: u16) -> Option<Chain> {
        self.queues.get_mut(&queue)?.1.pop()
    }

    /// Gives a chain back, with so many bytes written.
    pub fn push(&mut self, queue: u16, chain: &Chain, bytes: u32) {
        if let Some((_, peer)) = self.queues.get_mut(&queue) {
            peer.push(chain, bytes);
        }
    }

    /// Writes into a chain, as far as there is room; how many bytes.
    pub fn fill(&self, chain: &Chain, bytes: &[u8]) -> u32 {
        let mut rest = bytes;
        for (address, room, _) in chain.pieces.iter().filter(|piece| piece.2) {
            let (part, behind) = rest.split_at(rest.len().min(*room as usize));
            self.memory.write_slice(part, GuestAddress(*address)).unwrap();
            rest = behind;
        }
        (bytes.len() - rest.len()) as u32
    }

    /// What the driver has written into a chain.
    pub fn content(&self, chain: &Chain) -> Vec<u8> {
        let mut content = Vec::new();
        for (address, bytes, _) in chain.pieces.iter().filter(|piece| !piece.2) {
            let mut part = vec![0; *bytes as usize];
            self.memory.read_slice(&mut part, GuestAddress(*address)).unwrap();
            content.extend(part);
        }
        content
    }

    /// Delivers a frame in one buffer, if there is one.
    pub fn deliver(&mut self, queue: u16, header: &Header, frame: &[u8]) -> bool {
        let Some(chain) = self.pop(queue) else { return false };
        let bytes = self.fill(&chain, &[header.as_bytes(), frame].concat());
        self.push(queue, &chain, bytes);
        true
    }

    /// Takes all frames that are to be sent; what is in them, with what stands before.
    pub fn drain(&mut self, queue: u16) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while let Some(chain) = self.pop(queue) {
            frames.push(self.content(&chain));
            self.push(queue, &chain, 0);
        }
        frames
    }
}

impl Transport for CardTransport {
    fn dma(&self) -> Arc<dyn DmaSpace> {
        Arc::new(self.arena.clone())
    }

    fn offered_features(&mut self) -> u64 {
        self.card().features
    }

    fn accept_features(&mut self, features: u64) {
        self.card().accepted = features;
    }

    fn status(&self) -> Status {
        self.card().status
    }

    fn set_status(&mut self, status: Status) {
        let mut card = self.card();
        if status.is_empty() {
            card.queues.clear();
            card.resets += 1;
        }
        if !card.is_stuck {
            card.status = status;
        }
    }

    fn queue_limit(&mut self, _: u16) -> u16 {
        self.card().entries
    }

    fn enable_interrupts(&mut self, _: u16) -> Result<(), VirtioError> {
        Ok(())
    }

    fn start(&mut self) -> Result<(), VirtioError> {
        Ok(())
    }

    fn cut_off(&mut self) {
        self.card().queues.clear();
    }

    fn enable_queue(&mut self, queue: u16, areas: Areas) -> Result<(), VirtioError> {
        let mut card = self.card();
        let accepted = Features::from_bits_retain(card.accepted);
        let event_index = accepted.contains(Features::EVENT_INDEX);
        let memory = card.memory.clone();
        assert!(!card.queues.contains_key(&queue), "it is enabled");
        let peer: Box<dyn Peer + Send> = match accepted.contains(Features::PACKED) {
            true => Box::new(PackedPeer::new(memory, areas, event_index)),
            false => Box::new(SplitPeer::new(memory, areas, event_index)),
        };
        card.queues.insert(queue, (areas, peer));
        Ok(())
    }

    fn notify(&mut self, _: u16, _: u16) {}

    fn cause(&mut self, _: u16) -> Cause {
        Cause { queues: true, config: true }
    }

    fn config_generation(&self) -> u32 {
        let mut card = self.card();
        card.generation += u32::from(card.is_restless);
        card.generation
    }

    fn config_u8(&self, offset: usize) -> u8 {
        self.card().config[offset]
    }

    fn config_u16(&self, offset: usize) -> u16 {
        u16::from_le_bytes(self.card().config[offset..][..2].try_into().unwrap())
    }

    fn config_u32(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.card().config[offset..][..4].try_into().unwrap())
    }

    fn set_config_u8(&mut self, offset: usize, value: u8) {
        self.card().config[offset] = value;
    }
}
