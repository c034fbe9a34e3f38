//! The back end dies at each write to shared memory, and a successor takes over.
//!
//! Required, whatever the moment: each request ends once, with its data; nobody touches the memory
//! of one that has ended; what was written is on the disk.

use super::rig::{Back, DISK_BYTES, Front, connected, dying, layouts, pattern};
use outboard_virtio::spec::blk::{IN, OUT, STATUS_OK};
use outboard_virtio::spec::features::Features;

const SECTOR: usize = 512;
/// More than a run makes.
const MANY: u64 = 5000;

/// A driver that keeps account of its requests.
struct Driver {
    front: Front,
    /// By slot: whether it reads or writes, and has not ended.
    asked: Vec<Option<u32>>,
    /// How often each slot was used, which makes its data.
    rounds: Vec<u8>,
}

impl Driver {
    const SLOTS: u16 = 3;

    fn data(&self, slot: u16) -> Vec<u8> {
        pattern(slot as u8 * 50 + self.rounds[usize::from(slot)], 2 * SECTOR)
    }

    /// The sectors that a slot writes, and nobody else.
    fn sector(slot: u16) -> u64 {
        u64::from(slot) * 4
    }

    fn ask(&mut self, slot: u16) {
        let round = &mut self.rounds[usize::from(slot)];
        *round += 1;
        // Each write is followed by a read of the same.
        let kind = if *round % 2 == 1 { OUT } else { IN };
        if kind == OUT {
            let data = self.data(slot);
            self.front.request(slot, OUT, Self::sector(slot), Ok(&data));
        } else {
            self.front.request(slot, IN, Self::sector(slot), Err(2 * SECTOR));
        }
        self.asked[usize::from(slot)] = Some(kind);
    }

    /// Takes what has ended, and asks for more until each slot was used so often.
    fn reap(&mut self, rounds: u8, context: &str) {
        while let Some((slot, status, data)) = self.front.take(2 * SECTOR) {
            let kind = self.asked[usize::from(slot)].take().expect("it was asked for");
            assert_eq!(status, STATUS_OK, "{context}");
            if kind == IN {
                let round = &mut self.rounds[usize::from(slot)];
                *round -= 1;
                let wanted = self.data(slot);
                self.rounds[usize::from(slot)] += 1;
                assert_eq!(data, wanted, "{context}: slot {slot}");
            }
            self.front.poison(slot);
            if self.rounds[usize::from(slot)] < rounds {
                self.ask(slot);
            }
        }
        self.front.publish();
    }

    fn check_idle(&self, context: &str) {
        for slot in 0..Self::SLOTS {
            if self.asked[usize::from(slot)].is_none() {
                assert!(self.front.is_poisoned(slot), "{context}: slot {slot} was touched");
            }
        }
    }

    fn is_done(&self, rounds: u8) -> bool {
        self.asked.iter().all(Option::is_none) && self.rounds.iter().all(|done| *done >= rounds)
    }

    /// What a front end says of a ring whose back end has died: for split rings what is used, for
    /// packed ones it knows nothing.
    fn base(&self) -> u32 {
        if self.front.features.contains(Features::PACKED) {
            return 0x8000_8000;
        }
        let used = self.front.queue.areas().device.bits();
        let mut index = [0; 2];
        rustix::io::pread(&*self.front.memory, &mut index, used + 2).unwrap();
        u16::from_le_bytes(index).into()
    }
}

/// Runs until each slot was used so often, or for so many turns.
fn run(driver: &mut Driver, back: &mut Back, rounds: u8, turns: usize, context: &str) {
    for _ in 0..turns {
        driver.reap(rounds, context);
        if driver.is_done(rounds) {
            return;
        }
        back.turn();
        assert_eq!(back.session.closed(), None, "{context}");
    }
}

/// Dies after each of these numbers of writes, one life after the other; whether the first life was
/// cut short.
fn live(features: Features, deaths: &[u64]) -> bool {
    const ROUNDS: u8 = 6;
    let context = format!("{features:?}, dying after {deaths:?} writes");
    let (mut front, mut back) = connected(features, pattern(9, DISK_BYTES));
    front.send(
        outboard_virtio::spec::vhost_user::request::SET_FEATURES,
        &features.bits().to_le_bytes(),
        &[],
    );
    front.remember(&mut back);
    front.set_up(&mut back, if features.contains(Features::PACKED) { 0x8000_8000 } else { 0 });
    let slots = usize::from(Driver::SLOTS);
    let mut driver = Driver { front, asked: vec![None; slots], rounds: vec![0; slots] };
    (0..Driver::SLOTS).for_each(|slot| driver.ask(slot));
    driver.front.publish();
    let mut first = None;
    for death in deaths {
        let cut = dying(*death, || run(&mut driver, &mut back, ROUNDS, 60, &context));
        first.get_or_insert(cut);
        // What was published before its end counts.
        driver.reap(ROUNDS, &context);
        driver.check_idle(&context);
        let base = driver.base();
        back = driver.front.reconnect(back, base);
    }
    run(&mut driver, &mut back, ROUNDS, 200, &context);
    assert!(driver.is_done(ROUNDS), "{context}: {:?} {:?}", driver.asked, back.session);
    driver.check_idle(&context);
    let content = back.content();
    for slot in 0..Driver::SLOTS {
        // The last but one of its requests has written.
        driver.rounds[usize::from(slot)] -= 1;
        let at = Driver::sector(slot) as usize * SECTOR;
        assert_eq!(content[at..at + 2 * SECTOR], driver.data(slot), "{context}: slot {slot}");
    }
    first.unwrap_or_default()
}

#[test]
fn a_successor_finishes_what_was_in_flight_whenever_its_predecessor_died() {
    for features in layouts() {
        // Ways to describe requests are no different in what is remembered.
        let plain = !features.intersects(Features::INDIRECT | Features::EVENT_INDEX);
        let step = if plain { 1 } else { 11 };
        let deaths = (0..MANY).step_by(step).take_while(|death| live(features, &[*death])).count();
        assert!(deaths * step > 100, "{features:?}: {deaths}");
    }
}

#[test]
fn so_does_the_successor_of_one_that_died_while_it_took_over() {
    for features in layouts() {
        for first in (0..100).step_by(19) {
            for second in (0..40).step_by(3) {
                live(features, &[first, second, 13]);
            }
        }
    }
}
