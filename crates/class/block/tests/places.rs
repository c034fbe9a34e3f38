//! Disks that come and go, and what they are told beside their data.

#[path = "support/memory.rs"]
mod memory;

use memory::{Memory, SECTOR, Shared};
use outboard_block::disk::{DiskError, DiskId, Disks, Done, Outcome, Refusal, Token};
use outboard_block::manage::{Features, Password, Verdict};
use outboard_block::{
    BlockError, Durability, FailedReason, Geometry, Health, Management, Operation, Unit, UnitState,
};
use outboard_hw::Instant;
use outboard_hw::dma::{Arena, Constraints, DmaSpace};
use outboard_linux::SharedMemory;
use std::sync::{Arc, Mutex, MutexGuard};

const DISK: DiskId = DiskId(0);

struct Bench {
    disks: Disks,
    shared: Arc<Mutex<Shared>>,
    arena: Arena,
}

fn ready(generation: u32) -> Unit {
    let geometry = Geometry {
        sectors: 64,
        max_transfer_sectors: 8,
        max_discard_sectors: 100,
        max_zero_sectors: 0,
        max_erase_sectors: 0,
        queue_depth: 2,
        ..Geometry::NONE
    };
    Unit { state: UnitState::Ready, generation, geometry, ..Unit::UNKNOWN }
}

fn named(serial: &str, unit: Unit) -> Unit {
    let mut unit = unit;
    unit.identity.serial = serial.try_into().unwrap();
    unit
}

impl Bench {
    fn new() -> Self {
        let (_, arena) = SharedMemory::for_model("places", 16 << 20).unwrap();
        let driver = Memory::new(vec![0; 64 * SECTOR], 2, 8, &arena).places(480);
        let shared = driver.shared();
        let mut disks = Disks::new();
        disks.add_driver(Box::new(driver), vec![], 8 << 20);
        while !disks.is_settled() {
            disks.poll(Instant::ORIGIN);
        }
        shared.lock().unwrap().log.clear();
        Self { disks, shared, arena }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }

    /// Lets a unit become this, and everything go on from there.
    fn become_now(&mut self, number: u16, unit: Unit) {
        self.shared().edits.push((number, unit));
        self.disks.poll(Instant::ORIGIN);
        while !self.disks.is_idle() && !self.shared().frozen {
            self.disks.poll(Instant::ORIGIN);
        }
    }

    fn finish(&mut self) -> Vec<Done> {
        self.disks.kick(Instant::ORIGIN);
        while !self.disks.is_idle() {
            self.disks.poll(Instant::ORIGIN);
        }
        std::iter::from_fn(|| self.disks.next_done()).collect()
    }

    fn manage(&mut self, what: Management, password: Option<&[u8]>) -> Result<(), DiskError> {
        self.disks.manage(DISK, what, password, Token(7)).unwrap();
        let Done { token, result, .. } = self.finish().pop().unwrap();
        assert_eq!(token, Token(7));
        result.map(|outcome| assert!(matches!(outcome, Outcome::Finished)))
    }

    /// The names of what is there.
    fn names(&self) -> Vec<String> {
        let present = self.disks.ids().filter(|disk| self.disks.is_present(*disk));
        present.map(|disk| self.disks.info(disk).unwrap().name).collect()
    }
}

fn in_state(state: UnitState, generation: u32) -> Unit {
    Unit { state, ..ready(generation) }
}

#[test]
fn a_place_keeps_its_name_and_later_ones_get_the_next() {
    let mut bench = Bench::new();
    assert_eq!(bench.names(), ["sdC0"]);
    bench.become_now(479, in_state(UnitState::Starting, 0));
    assert_eq!(bench.names(), ["sdC0"], "it is not known yet what it is");
    bench.become_now(479, ready(1));
    bench.become_now(3, ready(1));
    assert_eq!(bench.names(), ["sdC0", "sdC1", "sdC2"]);
    bench.become_now(0, in_state(UnitState::Absent, 2));
    assert_eq!(bench.names(), ["sdC1", "sdC2"], "one that was pulled out is not there");
    bench.become_now(9, in_state(UnitState::Locked, 1));
    bench.become_now(0, in_state(UnitState::Starting, 2));
    assert_eq!(bench.names(), ["sdC1", "sdC2", "sdC3"]);
    bench.become_now(0, ready(2));
    assert_eq!(bench.names(), ["sdC0", "sdC1", "sdC2", "sdC3"]);
    bench.become_now(3, in_state(UnitState::Failed(FailedReason::GivenUp), 2));
    assert_eq!(bench.names().len(), 4, "one that has failed can be asked why");
    bench.become_now(7, in_state(UnitState::Failed(FailedReason::BadIdentity), 1));
    assert_eq!(bench.names().len(), 4, "what never was a disk does not become one");
}

#[test]
fn another_disk_never_sees_what_was_meant_for_the_first() {
    let mut bench = Bench::new();
    bench.shared().frozen = true;
    // Two are at the driver, one of them with more pieces to come, and the others are not.
    for token in 0..4 {
        let data = [1; 20 * SECTOR];
        let (offset, token) = (token * 1024 + token % 2, Token(token));
        bench.disks.write(DISK, offset, &data, Durability::Cached, token).unwrap();
    }
    bench.disks.kick(Instant::ORIGIN);
    bench.become_now(0, named("other", ready(2)));
    bench.shared().frozen = false;
    let done = bench.finish();
    assert_eq!(done.len(), 4);
    for done in done {
        assert_eq!(done.result.unwrap_err().error, BlockError::Gone);
    }
    let wrote = |(operation, ..): &(Operation, u64, u64)| matches!(operation, Operation::Write(_));
    assert!(!bench.shared().log.iter().any(wrote));
    assert_eq!(bench.disks.generation(DISK), Some(2));
    assert_eq!(bench.disks.counters(DISK).errors_by_kind.gone, 4);
    let Bench { disks, arena, .. } = bench;
    drop(disks);
    assert_eq!(arena.statistics().buffers, 0);
}

#[test]
fn partitions_are_looked_for_again_and_those_of_another_disk_are_forgotten() {
    let mut bench = Bench::new();
    bench.disks.add_volume(DISK, "mine", 1, 5).unwrap();
    let scans = |bench: &Bench| bench.shared().log.len();
    bench.become_now(0, ready(2));
    assert!(scans(&bench) > 0);
    assert_eq!(bench.disks.volumes(DISK).len(), 1, "the same disk is back");
    let before = scans(&bench);
    bench.become_now(0, ready(2));
    assert_eq!(scans(&bench), before, "nothing has happened");
    bench.become_now(0, named("other", ready(3)));
    assert!(bench.disks.volumes(DISK).is_empty() && scans(&bench) > before);
}

#[test]
fn a_medium_that_was_changed_is_another_even_if_the_drive_is_the_same() {
    let mut bench = Bench::new();
    let features = Features { removable: true, ..Features::NONE };
    bench.become_now(0, Unit { features, ..ready(2) });
    bench.disks.add_volume(DISK, "mine", 1, 5).unwrap();
    bench.shared().frozen = true;
    for token in 0..3 {
        bench.disks.read(DISK, 0, 8, Token(token)).unwrap();
    }
    bench.disks.kick(Instant::ORIGIN);
    bench.become_now(0, Unit { features, ..in_state(UnitState::Empty, 3) });
    bench.shared().frozen = false;
    let errors: Vec<_> = bench.finish().into_iter().map(|d| d.result.unwrap_err().error).collect();
    assert!(errors.contains(&BlockError::MediumChanged), "{errors:?}");
    assert!(bench.disks.is_present(DISK) && bench.disks.volumes(DISK).is_empty());
    assert_eq!(bench.disks.read(DISK, 0, 1, Token(1)).unwrap_err(), Refusal::NoMedium);
    bench.manage(Management::Load, None).unwrap();
    let mut scanned = bench.shared().log.len();
    bench.become_now(0, Unit { features, ..ready(4) });
    scanned = bench.shared().log.len() - scanned;
    assert!(scanned > 0);
    bench.disks.read(DISK, 0, 1, Token(1)).unwrap();
    assert!(bench.finish().pop().unwrap().result.is_ok());
}

#[test]
fn a_locked_disk_is_neither_read_nor_written_and_is_looked_at_once_it_is_unlocked() {
    let mut bench = Bench::new();
    bench.become_now(0, in_state(UnitState::Locked, 2));
    bench.shared().log.clear();
    let refused = bench.disks.read(DISK, 0, 1, Token(1)).unwrap_err();
    assert!(refused.to_string().contains("unlocked first"));
    let write = bench.disks.write(DISK, 0, &[1], Durability::Cached, Token(1));
    assert_eq!(write.unwrap_err(), Refusal::Locked);
    assert_eq!(bench.disks.flush(DISK, Token(1)).unwrap_err(), Refusal::Locked);
    assert_eq!(bench.disks.rescan(DISK, None).unwrap_err(), Refusal::Locked);
    assert!(bench.shared().log.is_empty());
    bench.manage(Management::Unlock(Password::User), Some(b"open sesame")).unwrap();
    bench.become_now(0, ready(2));
    assert!(!bench.shared().log.is_empty(), "it is looked for partitions");
}

#[test]
fn passwords_reach_the_driver_padded_and_are_wiped_from_memory() {
    let mut bench = Bench::new();
    let secret = b"correct horse battery staple";
    for answer in [None, Some(BlockError::Locked)] {
        bench.shared().answer = answer;
        let result = bench.manage(Management::DisablePassword(Password::Master), Some(secret));
        assert_eq!(result.err().map(|error| error.error), answer);
        let (what, told) = bench.shared().told.pop().unwrap();
        assert_eq!(what, Management::DisablePassword(Password::Master));
        assert_eq!((&told[..secret.len()], &told[secret.len()..]), (&secret[..], &[0; 4][..]));
    }
    // One that the driver never gets.
    bench.shared().frozen = true;
    let unlock = Management::Unlock(Password::User);
    let job = bench.disks.manage(DISK, unlock, Some(secret), Token(1)).unwrap();
    assert!(bench.disks.cancel(job));
    bench.shared().frozen = false;
    // Reads get whatever their memory's last user left where the disk has not written.
    let Bench { disks, arena, .. } = bench;
    drop(disks);
    let buffer = arena.allocate(1 << 20, &Constraints::NONE).unwrap();
    let mut bytes = vec![0; buffer.len()];
    buffer.read_bytes(0, &mut bytes);
    assert!(!bytes.windows(8).any(|window| window == &secret[..8]));
}

#[test]
fn passwords_that_cannot_be_are_refused() {
    let mut bench = Bench::new();
    let unlock = Management::Unlock(Password::User);
    for (what, password) in [
        (unlock, None),
        (unlock, Some(&b""[..])),
        (unlock, Some(&[1; 33])),
        (Management::ReadHealth, Some(b"x")),
    ] {
        let refused = bench.disks.manage(DISK, what, password, Token(1)).unwrap_err();
        assert_eq!(refused, Refusal::BadPassword, "{what:?}");
    }
    bench.manage(unlock, Some(&[7; 32])).unwrap();
}

#[test]
fn a_disk_is_erased_only_while_nobody_uses_it() {
    let mut bench = Bench::new();
    let erase = Management::Erase { which: Password::User, enhanced: false };
    let resize = Management::SetCapacity { sectors: 10 };
    bench.shared().frozen = true;
    bench.disks.read(DISK, 0, 1, Token(1)).unwrap();
    for (what, password) in [(erase, Some(&b"x"[..])), (resize, None)] {
        let refused = bench.disks.manage(DISK, what, password, Token(2)).unwrap_err();
        assert_eq!(refused, Refusal::InUse);
    }
    bench.shared().frozen = false;
    for done in bench.finish() {
        let Ok(Outcome::Read(data)) = done.result else { panic!("{done:?}") };
        bench.disks.recycle(DISK, data);
    }
    bench.shared().log.clear();
    bench.shared().frozen = true;
    bench.disks.manage(DISK, erase, Some(b"x"), Token(3)).unwrap();
    assert_eq!(bench.disks.read(DISK, 0, 1, Token(4)).unwrap_err(), Refusal::InUse);
    assert_eq!(bench.disks.flush(DISK, Token(4)).unwrap_err(), Refusal::InUse);
    bench.shared().frozen = false;
    bench.finish();
    assert!(!bench.shared().log.is_empty(), "partitions are looked for again");
    assert!(bench.disks.read(DISK, 0, 1, Token(4)).is_ok());
}

#[test]
fn health_is_what_the_disk_said_last() {
    let mut bench = Bench::new();
    assert!(bench.disks.health(DISK).is_none());
    bench.shared().health = Health { verdict: Verdict::Failing, ..Health::default() };
    bench.manage(Management::ReadHealth, None).unwrap();
    assert_eq!(bench.disks.health(DISK).unwrap().verdict, Verdict::Failing);
}

#[test]
fn what_was_done_is_counted_and_timed() {
    let mut bench = Bench::new();
    let at = Instant::from_nanos;
    bench.disks.poll(at(1_000_000));
    for token in 0..5 {
        bench.disks.read(DISK, 0, 8, Token(token)).unwrap();
    }
    bench.disks.flush(DISK, Token(9)).unwrap();
    bench.disks.kick(at(1_000_000));
    while !bench.disks.is_idle() {
        bench.disks.poll(at(3_000_000));
    }
    let counters = bench.disks.counters(DISK);
    assert_eq!((counters.active, counters.active_peak), (0, 6));
    let latencies = bench.disks.latencies(DISK).unwrap();
    assert_eq!((latencies.reads.count(), latencies.reads.max_us()), (5, Some(2000)));
    assert_eq!(latencies.flushes.percentile_us(99), Some(2000));
    assert_eq!(latencies.writes.percentile_us(50), None);
}
