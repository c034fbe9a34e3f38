//! The rings' handshake on a model of weak memory: in no order in which two processors can see each
//! other's stores do both sides sleep with something to do, or is something seen before what it
//! announces. Each of the rules is left out once, and must be missed.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU16, Ordering, fence};
use loom::thread;
use outboard_virtio::queue::handshake::{Packed, Place, Split, Words};
use outboard_virtio::spec::packed::{
    Descriptor, EVENT_AT, EVENT_DESCRIPTOR, EVENT_DISABLE, EVENT_ENABLE, EVENT_FLAGS,
};
use outboard_virtio::spec::split::{
    AVAILABLE_INDEX, NO_INTERRUPT, NO_NOTIFY, USED_FLAGS, USED_INDEX, is_due,
};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What is left out of the memory's rules.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// The full fence.
    Fence,
    /// The order of stores.
    Release,
    /// The order of loads.
    Acquire,
}

/// Bytes of the modelled memory.
const BYTES: usize = 64;

/// Memory as one side sees it.
#[derive(Clone)]
struct Memory {
    words: Arc<Vec<AtomicU16>>,
    without: Without,
}

impl Memory {
    fn new(without: Without) -> Self {
        let words = (0..BYTES / 2).map(|_| AtomicU16::new(0)).collect();
        Self { words: Arc::new(words), without }
    }
}

impl Words for Memory {
    fn load(&self, offset: usize) -> u16 {
        let order =
            if self.without == Without::Acquire { Ordering::Relaxed } else { Ordering::Acquire };
        self.words[offset / 2].load(order)
    }

    fn store(&mut self, offset: usize, value: u16) {
        let order =
            if self.without == Without::Release { Ordering::Relaxed } else { Ordering::Release };
        self.words[offset / 2].store(value, order);
    }

    fn fence(&self) {
        if self.without != Without::Fence {
            fence(Ordering::SeqCst);
        }
    }
}

const fn split(event_index: bool) -> Split {
    Split { entries: 2, event_index, available: 0, used: 16 }
}

const fn packed(event_index: bool) -> Packed {
    Packed { entries: 1, event_index, driver: 32, device: 40 }
}

/// Where something is that an index or flags announce.
const CONTENT: usize = 60;
/// Flags that make a packed ring's first descriptor available, and used.
const AVAILABLE: u16 = Descriptor::AVAILABLE;
const USED: u16 = Descriptor::AVAILABLE | Descriptor::USED;

/// The driver publishes while the device goes to sleep.
fn publish_split(event_index: bool, without: Without) {
    let ring = split(event_index);
    let mut memory = Memory::new(Without::Nothing);
    // The device is awake: it waits for an entry that is far away, or wants no notifications.
    memory.store(ring.available_event(), 0x8000);
    memory.store(ring.used + USED_FLAGS, NO_NOTIFY);
    let mut driver = Memory { without, ..memory.clone() };
    let publishes = thread::spawn(move || {
        driver.store(CONTENT, 7);
        ring.publish(&mut driver, 0, 1)
    });
    match event_index {
        true => memory.store(ring.available_event(), 0),
        false => memory.store(ring.used + USED_FLAGS, 0),
    }
    memory.fence();
    let sees = memory.load(ring.available + AVAILABLE_INDEX) == 1;
    assert!(!sees || memory.load(CONTENT) == 7, "what was announced is not there");
    assert!(sees | publishes.join().unwrap(), "the device sleeps");
}

/// The device has used something while the driver goes to sleep.
fn listen_split(event_index: bool, without: Without) {
    let ring = split(event_index);
    let mut memory = Memory::new(Without::Nothing);
    ring.ignore(&mut memory, 0);
    let mut driver = Memory { without, ..memory.clone() };
    let listens = thread::spawn(move || {
        let sees = ring.listen(&mut driver, 0);
        assert!(!sees || driver.load(CONTENT) == 7, "what was announced is not there");
        sees
    });
    memory.store(CONTENT, 7);
    memory.store(ring.used + USED_INDEX, 1);
    memory.fence();
    let interrupts = match event_index {
        true => is_due(memory.load(ring.used_event()), 1, 0),
        false => memory.load(ring.available) & NO_INTERRUPT == 0,
    };
    assert!(listens.join().unwrap() | interrupts, "the driver sleeps");
}

fn publish_packed(event_index: bool, without: Without) {
    let ring = packed(event_index);
    let mut memory = Memory::new(Without::Nothing);
    memory.store(ring.device + EVENT_FLAGS, EVENT_DISABLE);
    let mut driver = Memory { without, ..memory.clone() };
    let publishes = thread::spawn(move || {
        driver.store(CONTENT, 7);
        ring.publish(&mut driver, (0, AVAILABLE), Place::START.after(1, 1), 1)
    });
    memory.store(ring.device + EVENT_DESCRIPTOR, Place::START.event());
    let flags = if event_index { EVENT_AT } else { EVENT_ENABLE };
    memory.store(ring.device + EVENT_FLAGS, flags);
    memory.fence();
    let sees = memory.load(0) == AVAILABLE;
    assert!(!sees || memory.load(CONTENT) == 7, "what was announced is not there");
    assert!(sees | publishes.join().unwrap(), "the device sleeps");
}

fn listen_packed(event_index: bool, without: Without) {
    let ring = packed(event_index);
    let mut memory = Memory::new(Without::Nothing);
    ring.ignore(&mut memory);
    let mut driver = Memory { without, ..memory.clone() };
    let listens = thread::spawn(move || {
        ring.listen(&mut driver, Place::START);
        let sees = driver.load(0) == USED;
        assert!(!sees || driver.load(CONTENT) == 7, "what was announced is not there");
        sees
    });
    memory.store(CONTENT, 7);
    memory.store(0, USED);
    memory.fence();
    let interrupts = match memory.load(ring.driver + EVENT_FLAGS) {
        EVENT_DISABLE => false,
        EVENT_AT => memory.load(ring.driver + EVENT_DESCRIPTOR) == Place::START.event(),
        _ => true,
    };
    assert!(listens.join().unwrap() | interrupts, "the driver sleeps");
}

type Scene = fn(bool, Without);

/// The scenes, each with what it cannot do without.
const SCENES: [(&str, Scene, [Without; 2]); 4] = [
    ("publish, split", publish_split, [Without::Fence, Without::Release]),
    ("listen, split", listen_split, [Without::Fence, Without::Acquire]),
    ("publish, packed", publish_packed, [Without::Fence, Without::Release]),
    ("listen, packed", listen_packed, [Without::Fence, Without::Acquire]),
];

#[test]
fn nobody_sleeps_with_something_to_do() {
    for (_, scene, _) in SCENES {
        for event_index in [false, true] {
            loom::model(move || scene(event_index, Without::Nothing));
        }
    }
}

#[test]
fn whatever_is_left_out_is_missed() {
    for (name, scene, needed) in SCENES {
        for event_index in [false, true] {
            for without in needed {
                let model = || loom::model(move || scene(event_index, without));
                let missed = catch_unwind(AssertUnwindSafe(model)).is_err();
                assert!(missed, "{name}: {} {event_index}", without as u8);
            }
        }
    }
}

/// Memory that one side alone looks at.
struct Plain([u16; PLAIN_BYTES / 2]);

/// Bytes of that: as much as both rings of eight entries take.
const PLAIN_BYTES: usize = 128;

impl Words for Plain {
    fn load(&self, offset: usize) -> u16 {
        self.0[offset / 2]
    }

    fn store(&mut self, offset: usize, value: u16) {
        self.0[offset / 2] = value;
    }

    fn fence(&self) {}
}

#[test]
fn notifications_of_split_rings_are_right_around_the_wrap() {
    for entries in [1, 2, 4, 8u16] {
        let ring = Split { entries, event_index: true, available: 0, used: 24 };
        for old in (0..20u16).chain(u16::MAX - 20..=u16::MAX) {
            for added in 1..=entries {
                let new = old.wrapping_add(added);
                // Whatever entry the device waits for, of the last ring's or the next one's.
                for ahead in 0..=2 * entries {
                    let event = old.wrapping_sub(entries).wrapping_add(ahead);
                    let among = (0..added).any(|place| old.wrapping_add(place) == event);
                    let mut memory = Plain([0; PLAIN_BYTES / 2]);
                    memory.store(ring.available_event(), event);
                    assert_eq!(ring.publish(&mut memory, old, new), among);
                    assert_eq!(memory.load(ring.available + AVAILABLE_INDEX), new);
                }
            }
        }
    }
}

#[test]
fn notifications_of_packed_rings_are_right_around_the_wrap() {
    for entries in 1..=8u16 {
        let ring = Packed { entries, event_index: true, driver: 32, device: 40 };
        // Places counted without end, of which the ring shows the last ones.
        let place = |count: u16| {
            let (turn, index) = (count / entries, count % entries);
            Place { index, wrap: turn % 2 == 0 }
        };
        for old in 2 * entries..6 * entries {
            for added in 1..=entries {
                let next = place(old).after(added, entries);
                assert_eq!(next, place(old + added));
                // Whatever descriptor the device waits for, of the ring that lies before `next`.
                for event in (old + added).saturating_sub(entries)..old + added {
                    // One that the other side of the wrap counter would name is of the turn before.
                    let mut memory = Plain([0; PLAIN_BYTES / 2]);
                    memory.store(ring.device + EVENT_FLAGS, EVENT_AT);
                    memory.store(ring.device + EVENT_DESCRIPTOR, place(event).event());
                    let due = ring.publish(&mut memory, (0, AVAILABLE), next, added);
                    assert_eq!(due, (old..old + added).contains(&event), "{entries} {old} {added}");
                }
            }
        }
    }
}
