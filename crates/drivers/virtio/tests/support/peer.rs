//! The device's side of a ring: rust-vmm's for the split layout, a small one for the packed.

use outboard_virtio::queue::Areas;
use outboard_virtio::spec::packed::{
    Descriptor, EVENT_AT, EVENT_DESCRIPTOR, EVENT_DISABLE, EVENT_ENABLE, EVENT_FLAGS, EVENT_WRAP,
};
use outboard_virtio::spec::split::{self, USED_BYTES, USED_INDEX, USED_RING, UsedElement, is_due};
use std::sync::atomic::Ordering;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use zerocopy::{FromBytes, IntoBytes};

/// A request as the device finds it.
pub struct Chain {
    id: u16,
    /// Entries of the ring that it takes.
    entries: u16,
    /// Addresses, bytes, and whether the device may write them.
    pub pieces: Vec<(u64, u32, bool)>,
}

pub trait Peer {
    fn pop(&mut self) -> Option<Chain>;
    fn push(&mut self, chain: &Chain, bytes: u32);
    /// Gives back several, in the order in which they came, by one entry.
    fn push_batch(&mut self, chains: &[Chain], bytes: u32);
    /// Where the next entry will be, as notifications say it.
    fn next_entry(&self) -> u16;
    /// Whether to interrupt for what was pushed since it was last asked.
    fn interrupts(&mut self) -> bool;
    /// Asks for notifications; whether there is something already.
    fn sleep(&mut self) -> bool;
    /// Asks for none.
    fn wake(&mut self);
}

pub struct SplitPeer {
    queue: Queue,
    memory: GuestMemoryMmap,
    /// Entries of the used ring that were made for batches since it was asked for interrupts.
    skipped: u16,
}

impl SplitPeer {
    pub fn new(memory: GuestMemoryMmap, areas: Areas, event_index: bool) -> Self {
        let mut queue = Queue::new(areas.entries).unwrap();
        queue.set_size(areas.entries);
        let halves =
            |address: outboard_hw::dma::DeviceAddress| (Some(address.low()), Some(address.high()));
        let (low, high) = halves(areas.descriptors);
        queue.set_desc_table_address(low, high);
        let (low, high) = halves(areas.driver);
        queue.set_avail_ring_address(low, high);
        let (low, high) = halves(areas.device);
        queue.set_used_ring_address(low, high);
        queue.set_event_idx(event_index);
        queue.set_ready(true);
        assert!(queue.is_valid(&memory));
        Self { queue, memory, skipped: 0 }
    }
}

impl Peer for SplitPeer {
    fn pop(&mut self) -> Option<Chain> {
        let chain = self.queue.pop_descriptor_chain(&self.memory)?;
        let id = chain.head_index();
        let pieces = chain.map(|one| (one.addr().0, one.len(), one.is_write_only()));
        Some(Chain { id, entries: 0, pieces: pieces.collect() })
    }

    fn push(&mut self, chain: &Chain, bytes: u32) {
        self.queue.add_used(&self.memory, chain.id, bytes).unwrap();
    }

    fn push_batch(&mut self, chains: &[Chain], bytes: u32) {
        let Some(last) = chains.last() else { return };
        let (used, next) = (self.queue.used_ring(), self.queue.next_used());
        let place = u64::from(next & (self.queue.size() - 1));
        let at = used + USED_RING as u64 + USED_BYTES as u64 * place;
        let element = UsedElement { id: u32::from(last.id).into(), bytes: bytes.into() };
        self.memory.write_slice(element.as_bytes(), GuestAddress(at)).unwrap();
        let next = next.wrapping_add(chains.len() as u16);
        let index = GuestAddress(used + USED_INDEX as u64);
        self.memory.store(next, index, Ordering::Release).unwrap();
        self.queue.set_next_used(next);
        self.skipped += chains.len() as u16;
    }

    fn next_entry(&self) -> u16 {
        self.queue.next_avail()
    }

    fn interrupts(&mut self) -> bool {
        let skipped = std::mem::take(&mut self.skipped);
        if skipped == 0 {
            return self.queue.needs_notification(&self.memory).unwrap();
        }
        // The library knows of no batches.
        let now = self.queue.next_used();
        if self.queue.event_idx_enabled() {
            let at = self.queue.avail_ring() + 4 + 2 * u64::from(self.queue.size());
            let event = self.memory.load(GuestAddress(at), Ordering::SeqCst).unwrap();
            is_due(event, now, now.wrapping_sub(skipped))
        } else {
            let at = GuestAddress(self.queue.avail_ring());
            self.memory.load::<u16>(at, Ordering::SeqCst).unwrap() & split::NO_INTERRUPT == 0
        }
    }

    fn sleep(&mut self) -> bool {
        self.queue.enable_notification(&self.memory).unwrap()
    }

    fn wake(&mut self) {
        self.queue.disable_notification(&self.memory).unwrap();
    }
}

pub struct PackedPeer {
    memory: GuestMemoryMmap,
    areas: Areas,
    event_index: bool,
    next: (u16, bool),
    used: (u16, bool),
    pushed: u16,
}

impl PackedPeer {
    pub const fn new(memory: GuestMemoryMmap, areas: Areas, event_index: bool) -> Self {
        Self { memory, areas, event_index, next: (0, true), used: (0, true), pushed: 0 }
    }

    fn descriptor(&self, at: u64) -> Descriptor {
        let mut bytes = [0; Descriptor::BYTES];
        self.memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        Descriptor::read_from_bytes(&bytes).unwrap()
    }

    const fn at(&self, index: u16) -> u64 {
        self.areas.descriptors.bits() + (Descriptor::BYTES * index as usize) as u64
    }

    fn word(&self, at: u64) -> u16 {
        self.memory.read_obj(GuestAddress(at)).unwrap()
    }

    fn set_word(&self, at: u64, value: u16) {
        self.memory.write_obj(value, GuestAddress(at)).unwrap();
    }

    const fn after((index, wrap): (u16, bool), count: u16, entries: u16) -> (u16, bool) {
        let sum = index + count;
        if sum >= entries { (sum - entries, !wrap) } else { (sum, wrap) }
    }

    fn is_available(&self) -> bool {
        let (index, wrap) = self.next;
        let flags = self.word(self.at(index) + Descriptor::FLAGS as u64);
        (flags & Descriptor::AVAILABLE != 0) == wrap && (flags & Descriptor::USED != 0) != wrap
    }
}

impl Peer for PackedPeer {
    fn pop(&mut self) -> Option<Chain> {
        if !self.is_available() {
            return None;
        }
        let (mut pieces, mut entries, mut place) = (Vec::new(), 0, self.next);
        let last = loop {
            let descriptor = self.descriptor(self.at(place.0));
            let flags = descriptor.flags.get();
            let piece = |one: Descriptor| {
                let writable = one.flags.get() & split::Descriptor::WRITE != 0;
                (one.address.get(), one.bytes.get(), writable)
            };
            if flags & split::Descriptor::INDIRECT == 0 {
                pieces.push(piece(descriptor));
            } else {
                let table = descriptor.address.get();
                let end = table + u64::from(descriptor.bytes.get());
                let table = (table..end).step_by(Descriptor::BYTES);
                pieces.extend(table.map(|at| piece(self.descriptor(at))));
            }
            entries += 1;
            place = Self::after(place, 1, self.areas.entries);
            if flags & split::Descriptor::NEXT == 0 {
                break descriptor;
            }
        };
        self.next = place;
        Some(Chain { id: last.id.get(), entries, pieces })
    }

    fn push(&mut self, chain: &Chain, bytes: u32) {
        self.push_batch(std::slice::from_ref(chain), bytes);
    }

    fn push_batch(&mut self, chains: &[Chain], bytes: u32) {
        let Some(last) = chains.last() else { return };
        let (index, wrap) = self.used;
        let at = self.at(index);
        let both = Descriptor::AVAILABLE | Descriptor::USED;
        let used = Descriptor {
            address: 0xdead.into(),
            bytes: bytes.into(),
            id: last.id.into(),
            flags: self.descriptor(at).flags,
        };
        self.memory.write_slice(used.as_bytes(), GuestAddress(at)).unwrap();
        self.set_word(at + Descriptor::FLAGS as u64, if wrap { both } else { 0 });
        let entries = chains.iter().map(|chain| chain.entries).sum();
        self.used = Self::after(self.used, entries, self.areas.entries);
        self.pushed += entries;
    }

    fn next_entry(&self) -> u16 {
        let (index, wrap) = self.next;
        index | u16::from(wrap) << 15
    }

    fn interrupts(&mut self) -> bool {
        let pushed = std::mem::take(&mut self.pushed);
        let event = self.areas.driver.bits();
        match self.word(event + EVENT_FLAGS as u64) {
            _ if pushed == 0 => false,
            EVENT_ENABLE => true,
            EVENT_DISABLE => false,
            EVENT_AT => {
                assert!(self.event_index, "only if that was agreed upon");
                let at = self.word(event + EVENT_DESCRIPTOR as u64);
                let mut awaited = at & !EVENT_WRAP;
                assert!(awaited < self.areas.entries);
                if (at & EVENT_WRAP != 0) != self.used.1 {
                    awaited = awaited.wrapping_sub(self.areas.entries);
                }
                is_due(awaited, self.used.0, self.used.0.wrapping_sub(pushed))
            }
            other => panic!("no such flags: {other}"),
        }
    }

    fn sleep(&mut self) -> bool {
        let event = self.areas.device.bits();
        let (index, wrap) = self.next;
        self.set_word(event + EVENT_DESCRIPTOR as u64, index | u16::from(wrap) << 15);
        let flags = if self.event_index { EVENT_AT } else { EVENT_ENABLE };
        self.set_word(event + EVENT_FLAGS as u64, flags);
        self.is_available()
    }

    fn wake(&mut self) {
        self.set_word(self.areas.device.bits() + EVENT_FLAGS as u64, EVENT_DISABLE);
    }
}
