//! Transfers in memory of whoever asks, over a driver that completes in random order.

#[path = "support/memory.rs"]
mod memory;

use memory::{Memory, SECTOR, Shared};
use outboard_block::disk::{Direction, DiskId, DiskOptions, Disks, Outcome, Refusal, Token};
use outboard_block::{BlockError, Durability, Operation, UnitId};
use outboard_hw::Instant;
use outboard_hw::dma::SgList;
use outboard_linux::{ForeignMemory, SharedMemory};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard};

const DISK: DiskId = DiskId(0);
const SECTORS: usize = 64;
const DEPTH: usize = 2;
const MAX_SECTORS: usize = 16;
const WRITE: Direction = Direction::Write(Durability::Cached);

struct Bench {
    disks: Disks,
    shared: Arc<Mutex<Shared>>,
    /// A client's.
    memory: ForeignMemory,
}

impl Bench {
    fn new(options: DiskOptions) -> Self {
        let (_, arena) = SharedMemory::for_model("disks", 1 << 20).unwrap();
        let content = (0..SECTORS * SECTOR).map(|at| (at / SECTOR) as u8).collect();
        let driver = Memory::new(content, DEPTH as u16, MAX_SECTORS as u32, &arena);
        let shared = driver.shared();
        shared.lock().unwrap().takes_any_memory = true;
        let mut disks = Disks::new();
        disks.add_driver(Box::new(driver), vec![(UnitId(0), options)], 1 << 20);
        while !disks.is_settled() {
            disks.poll(Instant::ORIGIN);
        }
        shared.lock().unwrap().log.clear();
        let client = SharedMemory::new("client", SECTORS * SECTOR).unwrap();
        let bytes = (SECTORS * SECTOR) as u64;
        let memory = ForeignMemory::map(client.as_fd(), 0, bytes).unwrap();
        Self { disks, shared, memory }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }

    /// Asks for `count` sectors, in the client's memory where they are on the disk; its token is the
    /// first one.
    fn lend(&mut self, way: Direction, first: usize, count: usize) -> Result<bool, Refusal> {
        let (at, len) = (first * SECTOR, count * SECTOR);
        let memory = || SgList::single(self.memory.part(at..at + len), 0..len);
        self.disks.lend(DISK, way, (at as u64, len), Token(first as u64), memory)
    }

    fn finish(&mut self) -> BTreeMap<u64, Result<usize, BlockError>> {
        self.disks.kick(Instant::ORIGIN);
        let mut ended = BTreeMap::new();
        while !self.disks.is_idle() {
            self.disks.poll(Instant::ORIGIN);
            while let Some(done) = self.disks.next_done() {
                let result =
                    done.result.map_err(|error| error.error).map(|outcome| match outcome {
                        Outcome::Lent(bytes) | Outcome::Written(bytes) => bytes,
                        other => panic!("{other:?}"),
                    });
                assert_eq!(ended.insert(done.token.0, result), None, "it ends once");
            }
        }
        assert_eq!(self.disks.counters(DISK).active, 0);
        ended
    }

    fn sector_of_client(&self, sector: usize) -> [u8; SECTOR] {
        self.memory.memory().read(sector * SECTOR)
    }

    fn sector_of_disk(&self, sector: usize) -> Vec<u8> {
        self.shared().content[sector * SECTOR..][..SECTOR].to_vec()
    }
}

#[test]
fn more_than_the_driver_takes_wait_for_it_and_all_end() {
    let mut bench = Bench::new(DiskOptions::default());
    bench.shared().frozen = true;
    for first in (0..40).step_by(4) {
        assert_eq!(bench.lend(Direction::Read, first, 4), Ok(true));
    }
    bench.disks.poll(Instant::ORIGIN);
    assert!(!bench.disks.is_idle() && !bench.disks.has_done());
    bench.shared().frozen = false;
    let ended = bench.finish();
    assert_eq!(ended.len(), 10);
    assert!(ended.values().all(|result| *result == Ok(4 * SECTOR)));
    for sector in 0..40 {
        assert_eq!(bench.sector_of_client(sector), [sector as u8; SECTOR]);
    }
    let counters = bench.disks.counters(DISK);
    assert_eq!((counters.reads, counters.bytes_read), (10, 40 * SECTOR as u64));
    assert_eq!(bench.disks.latencies(DISK).unwrap().reads.count(), 10);
}

#[test]
fn what_has_to_be_copied_is_left_to_copies_and_what_cannot_be_is_refused() {
    let mut bench = Bench::new(DiskOptions::default());
    let (token, none) = (Token(0), || -> SgList { panic!("there is no need for memory") });
    let mut lend = |way, offset, len| bench.disks.lend(DISK, way, (offset, len), token, none);
    assert_eq!(lend(Direction::Read, 1, SECTOR), Ok(false));
    assert_eq!(lend(Direction::Read, 0, SECTOR + 1), Ok(false));
    assert_eq!(lend(Direction::Read, 0, (MAX_SECTORS + 1) * SECTOR), Ok(false));
    assert_eq!(lend(Direction::Read, 0, 0), Err(Refusal::OutOfRange));
    let end = (SECTORS * SECTOR) as u64;
    assert_eq!(lend(Direction::Read, end - SECTOR as u64, 2 * SECTOR), Err(Refusal::OutOfRange));
    let behind = u64::MAX - (SECTOR as u64 - 1);
    assert_eq!(lend(Direction::Read, behind, SECTOR), Err(Refusal::OutOfRange));
    assert_eq!(bench.disks.lend(DiskId(1), WRITE, (0, SECTOR), token, none), Err(Refusal::NoDisk));
    bench.shared().takes_any_memory = false;
    bench.disks.kick(Instant::ORIGIN);
    assert_eq!(bench.lend(Direction::Read, 0, 1), Ok(false));
    let mut bench = Bench::new(DiskOptions { read_only: true, ..DiskOptions::default() });
    assert_eq!(bench.lend(WRITE, 0, 1), Err(Refusal::ReadOnly));
    assert_eq!(bench.lend(Direction::Read, 0, 1), Ok(true));
}

#[test]
fn a_merge_waits_for_a_lent_write_and_a_lent_write_for_a_merge() {
    for merge_first in [false, true] {
        let mut bench = Bench::new(DiskOptions::default());
        bench.memory.memory_mut().fill(0..SECTOR, 0xaa);
        let merge = |bench: &mut Bench| {
            bench.disks.write(DISK, 10, &[0xbb; 20], Durability::Cached, Token(99)).unwrap();
        };
        if merge_first {
            merge(&mut bench);
        }
        assert_eq!(bench.lend(WRITE, 0, 1), Ok(true));
        if !merge_first {
            merge(&mut bench);
        }
        let ended = bench.finish();
        assert_eq!(ended, BTreeMap::from([(0, Ok(SECTOR)), (99, Ok(20))]));
        let mut expected = [0xaa; SECTOR];
        if !merge_first {
            expected[10..30].fill(0xbb);
        }
        assert_eq!(bench.sector_of_disk(0), expected, "merge first: {merge_first}");
        assert_eq!(bench.disks.counters(DISK).waits, 1);
        let wrote = |(operation, ..): &&(Operation, u64, u64)| *operation != Operation::Read;
        assert_eq!(bench.shared().log.iter().filter(wrote).count(), 2);
    }
}

#[test]
fn what_waits_for_the_driver_does_not_reach_the_next_medium() {
    let mut bench = Bench::new(DiskOptions::default());
    bench.shared().frozen = true;
    bench.memory.memory_mut().fill(0..SECTORS * SECTOR, 0xaa);
    (0..8).for_each(|first| assert_eq!(bench.lend(WRITE, first, 1), Ok(true)));
    bench.shared().exchange = Some(vec![0; SECTORS * SECTOR]);
    bench.shared().frozen = false;
    let ended = bench.finish();
    assert_eq!(ended.len(), 8);
    assert!(ended.values().all(Result::is_err), "{ended:?}");
    assert!(bench.shared().content.iter().all(|byte| *byte == 0));
    // The next one's terms are others.
    bench.shared().exchange = Some(vec![1; 2 * SECTOR]);
    bench.finish();
    bench.disks.poll(Instant::ORIGIN);
    assert_eq!(bench.lend(WRITE, 2, 1), Err(Refusal::OutOfRange));
    assert_eq!(bench.lend(WRITE, 1, 1), Ok(true));
    assert_eq!(bench.finish(), BTreeMap::from([(1, Ok(SECTOR))]));
}

#[test]
fn a_sector_that_fails_fails_the_whole_request() {
    let mut bench = Bench::new(DiskOptions::default());
    bench.shared().bad.insert(5, true);
    assert_eq!(bench.lend(Direction::Read, 4, 4), Ok(true));
    let lba = Some(5);
    assert_eq!(bench.finish(), BTreeMap::from([(4, Err(BlockError::Media { lba }))]));
    assert_eq!(bench.disks.counters(DISK).errors, 1);
    // Nobody waits for what it had claimed.
    assert_eq!(bench.lend(WRITE, 4, 4), Ok(true));
    assert_eq!(bench.finish().len(), 1);
    bench.disks.write(DISK, 4 * SECTOR as u64 + 1, &[1], Durability::Cached, Token(7)).unwrap();
    assert_eq!(bench.finish(), BTreeMap::from([(7, Ok(1))]));
}
