//! Rings in both layouts, against a device's side that others wrote where there is one.

mod support;

use outboard_hw::dma::{Constraints, DmaBuffer, DmaSpace, Segment};
use outboard_linux::SharedMemory;
use outboard_virtio::queue::{Areas, Broken, Piece, Queue, Used};
use outboard_virtio::spec::features::Features;
use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::AsFd;
use support::peer::{Chain, PackedPeer, Peer, SplitPeer};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

const MEMORY_BYTES: usize = 4 << 20;
/// Bytes of a request's memory: an 8-byte question in up to 4 pieces, an 8-byte answer.
const SLOT_BYTES: usize = 512;
const TABLE: usize = 64;

/// Numbers that look random, the same for the same seed.
struct Lot(u64);

impl Lot {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

struct Rig {
    queue: Queue,
    peer: Box<dyn Peer>,
    memory: GuestMemoryMmap,
    slots: DmaBuffer,
    lot: Lot,
    /// Slots that are free.
    free: Vec<u16>,
    /// The question that is in each slot.
    asked: Vec<Option<u64>>,
    /// What the device has and has not answered yet.
    held: VecDeque<Chain>,
    indirect: bool,
    in_order: bool,
    /// Where the next entry will be, as the last notification would have said it.
    told: u16,
    /// Whether either side waits to be told.
    device_sleeps: bool,
    driver_sleeps: bool,
    answered: u64,
}

impl Rig {
    fn new(seed: u64, entries: u16, features: Features) -> Self {
        let (file, arena) = SharedMemory::for_model("rings", MEMORY_BYTES).unwrap();
        let queue = Queue::new(&arena, entries, features).unwrap();
        let slots = arena.allocate(SLOT_BYTES * usize::from(entries), &Constraints::NONE).unwrap();
        let bytes = file.size_bytes();
        let file = FileOffset::new(File::from(file.as_fd().try_clone_to_owned().unwrap()), 0);
        let ranges = [(GuestAddress(0), bytes, Some(file))];
        let memory = GuestMemoryMmap::from_ranges_with_files(ranges).unwrap();
        let (areas, event_index) = (queue.areas(), features.contains(Features::EVENT_INDEX));
        let peer: Box<dyn Peer> = match features.contains(Features::PACKED) {
            true => Box::new(PackedPeer::new(memory.clone(), areas, event_index)),
            false => Box::new(SplitPeer::new(memory.clone(), areas, event_index)),
        };
        Self {
            queue,
            peer,
            memory,
            slots,
            lot: Lot(seed | 1),
            free: (0..entries).collect(),
            asked: vec![None; entries.into()],
            held: VecDeque::new(),
            indirect: features.contains(Features::INDIRECT),
            in_order: features.contains(Features::IN_ORDER),
            told: queue_start(features),
            device_sleeps: false,
            driver_sleeps: false,
            answered: 0,
        }
    }

    /// Adds a request, if there is room.
    fn ask(&mut self) {
        let Some(slot) = self.free.pop() else { return };
        let at = SLOT_BYTES * usize::from(slot);
        let question = self.lot.below(u64::MAX);
        self.slots.write(at, &question.to_le_bytes());
        // The question in one to four pieces, and the answer in one or two.
        let cuts: &[usize] =
            [&[0, 8][..], &[0, 3, 8], &[0, 1, 2, 8], &[0, 2, 4, 6, 8]][self.lot.below(4) as usize];
        let answer: &[usize] = [&[8, 16][..], &[8, 12, 16]][self.lot.below(2) as usize];
        let slots = &self.slots;
        let piece = |cut: &[usize], writable| {
            let (address, bytes) = (slots.address_of(at + cut[0]), (cut[1] - cut[0]) as u64);
            Piece { segment: Segment { address, bytes }, writable }
        };
        let pieces: Vec<_> = cuts
            .windows(2)
            .map(|cut| piece(cut, false))
            .chain(answer.windows(2).map(|cut| piece(cut, true)))
            .collect();
        let count = pieces.len() as u16;
        let room = self.queue.free();
        let added = if self.indirect && self.lot.below(3) > 0 {
            let table = self.slots.address_of(at + TABLE);
            let written = self.queue.write_table(&mut self.slots, at + TABLE, pieces.into_iter());
            assert_eq!(written, (count, 8));
            (self.queue.add_table(slot, table, count, 8), 1)
        } else {
            (self.queue.add(slot, count, pieces.into_iter()), count)
        };
        assert_eq!(added.0.is_ok(), added.1 <= room, "{room} descriptors are free");
        match added.0 {
            Ok(()) => self.asked[usize::from(slot)] = Some(question),
            Err(_) => self.free.push(slot),
        }
    }

    fn publish(&mut self) {
        if self.queue.publish() {
            self.device_sleeps = false;
        }
        assert!(!self.queue.has_new());
        self.told = self.queue.next_entry();
    }

    /// The device takes what there is, and sleeps if it likes.
    fn serve(&mut self) {
        if self.device_sleeps {
            return;
        }
        self.peer.wake();
        while let Some(chain) = self.peer.pop() {
            self.held.push_back(chain);
        }
        assert_eq!(self.peer.next_entry(), self.told);
        if self.lot.below(2) == 0 {
            self.device_sleeps = !self.peer.sleep();
        }
    }

    /// The device answers some of what it has, in any order or in that which it has promised;
    /// whether it interrupts.
    fn answer(&mut self) -> bool {
        let count = self.lot.below(self.held.len() as u64 + 1);
        let mut batch = Vec::new();
        for left in (0..count).rev() {
            if self.in_order {
                batch.extend(self.held.pop_front());
                batch.last().into_iter().for_each(|chain| answer(&self.memory, chain));
                if left == 0 || self.lot.below(3) == 0 {
                    self.peer.push_batch(&batch, 8);
                    batch.clear();
                }
                continue;
            }
            let which = self.lot.below(self.held.len() as u64) as usize;
            let chain = self.held.swap_remove_back(which).unwrap();
            answer(&self.memory, &chain);
            self.peer.push(&chain, 8);
        }
        let woken = count > 0 && self.peer.interrupts();
        self.driver_sleeps &= !woken;
        woken
    }

    /// The driver takes what there is, and sleeps if it likes.
    fn reap(&mut self) {
        if self.driver_sleeps {
            return;
        }
        if self.lot.below(2) == 0 {
            self.queue.ignore();
        }
        while let Some(used) = self.queue.take() {
            let used = used.unwrap();
            let question = self.asked[usize::from(used.token)].take().expect("it was asked");
            assert_eq!(used.bytes, 8);
            let answer = self.slots.read::<[u8; 8]>(SLOT_BYTES * usize::from(used.token) + 8);
            assert_eq!(u64::from_le_bytes(answer), !question);
            self.free.push(used.token);
            self.answered += 1;
        }
        if self.lot.below(2) == 0 {
            // The device may have been quicker than whoever wants to sleep, and have woken it.
            let woken = self.answer();
            self.driver_sleeps = !self.queue.listen() && !woken;
        }
    }

    /// One round; nobody may be left asleep with something to do.
    fn round(&mut self) {
        (0..self.lot.below(8)).for_each(|_| self.ask());
        if self.lot.below(4) > 0 {
            self.publish();
        }
        self.serve();
        self.answer();
        self.reap();
    }

    fn drain(&mut self) {
        self.publish();
        for _ in 0..1000 {
            self.serve();
            self.answer();
            self.reap();
            if self.asked.iter().all(Option::is_none) {
                return;
            }
        }
        panic!(
            "{} requests hang; asleep: device {}, driver {}",
            self.asked.iter().flatten().count(),
            self.device_sleeps,
            self.driver_sleeps
        );
    }
}

/// Answers the question of a request in its memory.
fn answer(memory: &GuestMemoryMmap, chain: &Chain) {
    let (mut question, mut place) = (Vec::new(), 0);
    for (address, bytes, _) in chain.pieces.iter().filter(|piece| !piece.2) {
        let mut part = vec![0; *bytes as usize];
        memory.read_slice(&mut part, GuestAddress(*address)).unwrap();
        question.extend(part);
    }
    let answer = (!u64::from_le_bytes(question.try_into().unwrap())).to_le_bytes();
    for (address, bytes, _) in chain.pieces.iter().filter(|piece| piece.2) {
        let part = &answer[place..][..*bytes as usize];
        memory.write_slice(part, GuestAddress(*address)).unwrap();
        place += part.len();
    }
}

/// Where the first entry is, as notifications say it: the wrap counter of a packed ring begins as 1.
fn queue_start(features: Features) -> u16 {
    u16::from(features.contains(Features::PACKED)) << 15
}

/// Every combination of features.
fn combinations() -> impl Iterator<Item = Features> {
    let all = [Features::PACKED, Features::INDIRECT, Features::EVENT_INDEX, Features::IN_ORDER];
    (0..16).map(move |bits| {
        let chosen = all.iter().enumerate().filter(|(place, _)| bits >> place & 1 == 1);
        chosen.fold(Features::VERSION_1, |sum, (_, one)| sum | *one)
    })
}

#[test]
fn every_question_is_answered_once_and_nobody_sleeps_through_it() {
    for features in combinations() {
        for entries in [2, 4, 8, 64, 256] {
            let mut rig = Rig::new(u64::from(entries), entries, features);
            for _ in 0..3000 {
                rig.round();
            }
            rig.drain();
            assert!(rig.answered > 500, "{features:?} {entries}: {}", rig.answered);
        }
    }
}

#[test]
fn indices_wrap() {
    for features in combinations() {
        let mut rig = Rig::new(7, 64, features);
        for _ in 0..30_000 {
            rig.round();
        }
        rig.drain();
        assert!(rig.answered > 1 << 16, "{}", rig.answered);
    }
}

#[test]
fn batches_of_all_sizes_go_round_small_rings_until_indices_wrap() {
    let alone =
        |features: &Features| !features.intersects(Features::INDIRECT | Features::EVENT_INDEX);
    for (features, entries) in combinations()
        .filter(alone)
        .flat_map(|features| [1, 2, 4, 8].map(|entries| (features, entries)))
    {
        let mut rig = Rig::new(1, entries, features);
        let segment = Segment { address: rig.slots.address(), bytes: 8 };
        let (mut done, mut batch) = (0u32, 0);
        while done < (1 << 16) + 100 {
            batch = batch % entries + 1;
            for token in 0..batch {
                let piece = Piece { segment, writable: true };
                rig.queue.add(token, 1, std::iter::once(piece)).unwrap();
            }
            rig.queue.publish();
            let chains: Vec<_> = std::iter::from_fn(|| rig.peer.pop()).collect();
            assert_eq!(chains.len(), usize::from(batch));
            assert_eq!(rig.peer.next_entry(), rig.queue.next_entry());
            match features.contains(Features::IN_ORDER) {
                true => rig.peer.push_batch(&chains, 8),
                false => chains.iter().for_each(|chain| rig.peer.push(chain, 8)),
            }
            rig.peer.interrupts();
            for token in 0..batch {
                assert_eq!(rig.queue.take(), Some(Ok(Used { token, bytes: 8 })));
            }
            assert_eq!((rig.queue.take(), rig.queue.free()), (None, entries));
            done += u32::from(batch);
        }
    }
}

#[test]
fn a_device_that_breaks_the_order_that_it_promised_is_found_out() {
    let mut rig = Rig::new(5, 16, Features::IN_ORDER);
    while rig.asked.iter().flatten().count() < 2 {
        rig.ask();
    }
    rig.publish();
    rig.serve();
    // The later one, with a used index that has moved by one entry.
    let later = rig.held.pop_back().unwrap();
    rig.peer.push(&later, 8);
    assert_eq!(rig.queue.take(), Some(Err(Broken::OutOfOrder)));
}

#[test]
fn a_queue_that_was_reset_begins_anew() {
    for features in combinations() {
        let mut rig = Rig::new(3, 16, features);
        (0..100).for_each(|_| rig.round());
        rig.queue.reset();
        let mut again = Rig::new(4, 16, features);
        // Another device, on the memory as the reset has left it.
        std::mem::swap(&mut again.queue, &mut rig.queue);
        std::mem::swap(&mut again.memory, &mut rig.memory);
        std::mem::swap(&mut again.slots, &mut rig.slots);
        let (memory, areas) = (again.memory.clone(), again.queue.areas());
        let event_index = features.contains(Features::EVENT_INDEX);
        again.peer = match features.contains(Features::PACKED) {
            true => Box::new(PackedPeer::new(memory, areas, event_index)),
            false => Box::new(SplitPeer::new(memory, areas, event_index)),
        };
        (0..1000).for_each(|_| again.round());
        again.drain();
        assert!(again.answered > 100);
    }
}

#[test]
fn what_a_device_scribbles_over_is_written_again() {
    // What is there already is not written once more; what is not, is.
    for features in combinations().filter(|features| !features.contains(Features::PACKED)) {
        let mut rig = Rig::new(17, 8, features);
        for round in 0..40 {
            rig.round();
            rig.drain();
            let Areas { entries, descriptors, .. } = rig.queue.areas();
            let scribbled = vec![round; 16 * usize::from(entries)];
            rig.memory.write_slice(&scribbled, GuestAddress(descriptors.bits())).unwrap();
        }
        assert!(rig.answered > 40, "{features:?}");
    }
}

#[test]
fn a_device_that_lies_is_found_out_and_gets_nothing_back_twice() {
    for features in combinations() {
        let mut broken = 0;
        for seed in 0..300 {
            let mut rig = Rig::new(seed + 1, 16, features);
            (0..10).for_each(|_| rig.round());
            let areas = rig.queue.areas();
            let places = match features.contains(Features::PACKED) {
                true => (areas.descriptors.bits(), 16 * 16),
                false => (areas.device.bits(), 4 + 8 * 16),
            };
            let mut in_flight: Vec<_> =
                (0..16).filter(|slot| rig.asked[usize::from(*slot)].is_some()).collect();
            for _ in 0..50 {
                let at = GuestAddress(places.0 + rig.lot.below(places.1));
                // Small numbers are the more dangerous lies.
                let byte = match rig.lot.below(2) {
                    0 => rig.lot.below(256) as u8,
                    _ => rig.lot.below(18) as u8,
                };
                rig.memory.write_obj(byte, at).unwrap();
                // A queue that is broken stays so until it is reset.
                for _ in 0..40 {
                    match rig.queue.take() {
                        None => break,
                        Some(Err(_)) => {
                            broken += 1;
                            break;
                        }
                        Some(Ok(used)) => {
                            let place = in_flight.iter().position(|one| *one == used.token);
                            in_flight.swap_remove(place.expect("each once, and none else"));
                            assert!(used.bytes <= 8);
                        }
                    }
                }
                rig.queue.listen();
                rig.publish();
            }
        }
        assert!(broken > 100, "{features:?}: {broken}");
    }
}
