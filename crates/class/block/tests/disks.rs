//! Disks over a driver made of memory, which completes in random order and fails where it is told.

#[path = "support/memory.rs"]
mod memory;

use memory::{Memory, SECTOR, Shared};
use outboard_block::disk::{Direction, DiskId, DiskOptions, Disks, Done, Outcome, Refusal, Token};
use outboard_block::partition::Scheme;
use outboard_block::{Durability, Operation, Room, UnitId, UnitState};
use outboard_hw::Instant;
use outboard_hw::dma::{Arena, Constraints, DmaSpace, SgList};
use outboard_linux::SharedMemory;
use proptest::prelude::*;
use std::sync::{Arc, Mutex, MutexGuard};

const DISK: DiskId = DiskId(0);

struct Bench {
    disks: Disks,
    shared: Arc<Mutex<Shared>>,
    arena: Arena,
}

impl Bench {
    fn new(content: Vec<u8>, options: DiskOptions, depth: u16, max_transfer: u32) -> Self {
        let (_, arena) = SharedMemory::for_model("disks", 32 << 20).unwrap();
        let driver = Memory::new(content, depth, max_transfer, &arena);
        let shared = driver.shared();
        let mut disks = Disks::new();
        disks.add_driver(Box::new(driver), vec![(UnitId(0), options)], 16 << 20);
        while !disks.is_settled() {
            disks.poll(Instant::ORIGIN);
        }
        shared.lock().unwrap().log.clear();
        Self { disks, shared, arena }
    }

    fn simple(sectors: usize) -> Self {
        let content = (0..sectors * SECTOR).map(|i| (i / 7 % 256) as u8).collect();
        Self::new(content, DiskOptions::default(), 32, 65536)
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }

    /// Runs until nothing is under way.
    fn finish(&mut self) -> Vec<Done> {
        self.disks.kick(Instant::ORIGIN);
        while !self.disks.is_idle() {
            self.disks.poll(Instant::ORIGIN);
        }
        std::iter::from_fn(|| self.disks.next_done()).collect()
    }

    fn read(&mut self, offset: u64, len: usize) -> Result<Vec<u8>, String> {
        self.disks.read(DISK, offset, len, Token(1)).unwrap();
        self.finish().pop().unwrap().result.map_err(|error| error.to_string()).map(|outcome| {
            let Outcome::Read(data) = outcome else { panic!("not a read") };
            let mut bytes = vec![0; data.len()];
            data.copy_to(&mut bytes);
            self.disks.recycle(DISK, data);
            bytes
        })
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<usize, String> {
        self.disks.write(DISK, offset, data, Durability::Cached, Token(1)).unwrap();
        let outcome = self.finish().pop().unwrap().result.map_err(|error| error.to_string())?;
        let Outcome::Written(bytes) = outcome else { panic!("not a write") };
        Ok(bytes)
    }
}

#[test]
fn bytes_are_read_wherever_they_are() {
    let mut bench = Bench::simple(64);
    let content = bench.shared().content.clone();
    for (offset, len) in [(0, 1), (511, 2), (512, 512), (100, 5000), (64 * 512 - 1, 1)] {
        assert_eq!(bench.read(offset as u64, len).unwrap(), content[offset..offset + len]);
    }
    for (offset, len) in [(64 * 512, 1), (0, 64 * 512 + 1), (u64::MAX, 2), (5, 0)] {
        let refused = bench.disks.read(DISK, offset, len, Token(1)).unwrap_err();
        assert_eq!(refused, Refusal::OutOfRange);
    }
}

#[test]
fn partial_sectors_are_merged_and_whole_ones_are_not_read() {
    for (offset, len) in [(0, 512), (0, 1), (511, 2), (1, 510), (100, 5000), (1024, 700), (5, 507)]
    {
        let mut bench = Bench::simple(64);
        let mut expected = bench.shared().content.clone();
        let data: Vec<u8> = (0..len).map(|byte| byte as u8 ^ 0xa5).collect();
        assert_eq!(bench.write(offset as u64, &data).unwrap(), len);
        expected[offset..offset + len].copy_from_slice(&data);
        assert_eq!(bench.shared().content, expected);
        let reads = bench.shared().log.iter().filter(|(op, ..)| *op == Operation::Read).count();
        let partial = |edge: usize| usize::from(!edge.is_multiple_of(512));
        let one = offset / 512 == (offset + len - 1) / 512;
        let (head, tail) = (partial(offset), partial(offset + len));
        assert_eq!(reads, if one { head.max(tail) } else { head + tail }, "{offset}+{len}");
    }
}

#[test]
fn nothing_is_written_past_the_end_or_to_a_read_only_disk() {
    let mut bench = Bench::simple(8);
    let refused = bench.disks.write(DISK, 8 * 512 - 1, &[1, 2], Durability::Cached, Token(1));
    assert_eq!(refused.unwrap_err(), Refusal::OutOfRange);
    assert!(bench.shared().log.is_empty());
    let options = DiskOptions { read_only: true, ..DiskOptions::default() };
    let mut bench = Bench::new(vec![0; 4096], options, 32, 100);
    let refused = bench.disks.write(DISK, 0, &[1], Durability::Cached, Token(1));
    assert_eq!(refused.unwrap_err(), Refusal::ReadOnly);
    assert_eq!(bench.disks.discard(DISK, 0, 1, Token(1)).unwrap_err(), Refusal::ReadOnly);
    assert!(bench.disks.geometry(DISK).unwrap().read_only);
}

#[test]
fn long_requests_go_in_pieces() {
    let content: Vec<u8> = (0..1000 * SECTOR).map(|i| (i % 253) as u8).collect();
    let mut bench = Bench::new(content.clone(), DiskOptions::default(), 4, 7);
    assert_eq!(bench.read(100, 300_000).unwrap(), content[100..300_100]);
    assert!(bench.shared().log.iter().all(|(_, _, sectors)| *sectors <= 7));
    let data = vec![9; 100_000];
    assert_eq!(bench.write(333, &data), Ok(100_000));
    assert_eq!(bench.shared().content[333..100_333], data);
}

#[test]
fn a_bad_sector_is_found_named_and_the_data_before_it_is_served() {
    for named in [true, false] {
        for bad in [0u64, 1, 17, 40, 63] {
            let mut bench = Bench::simple(64);
            bench.shared().bad.insert(bad, named);
            let content = bench.shared().content.clone();
            let all = bench.read(0, 64 * 512);
            let good = bad as usize * 512;
            if bad == 0 {
                assert!(all.unwrap_err().contains("sector 0"));
            } else {
                assert_eq!(all.unwrap(), content[..good]);
            }
            let error = bench.read(bad * 512 + 5, 900.min((64 - bad as usize) * 512 - 5));
            assert!(error.unwrap_err().contains(&format!("sector {bad}")));
            if bad < 63 {
                let after = good + 512;
                assert_eq!(bench.read(after as u64, 512).unwrap(), content[after..after + 512]);
            }
            // A write that starts in the sector before is cut short in front of the bad one.
            if bad > 0 {
                let len = 1000.min((64 - bad as usize) * 512 + 10);
                assert_eq!(bench.write(bad * 512 - 10, &vec![7; len]), Ok(10));
            }
            assert!(bench.write(bad * 512, &[7; 512]).unwrap_err().contains("sector"));
            assert!(bench.write(bad * 512 + 1, &[7]).unwrap_err().contains("sector"));
        }
    }
}

#[test]
fn finding_a_bad_sector_takes_few_requests() {
    let mut bench = Bench::simple(2048);
    bench.shared().bad.insert(1234, false);
    assert_eq!(bench.read(0, 2048 * 512).unwrap().len(), 1234 * 512);
    let requests = bench.shared().log.len();
    assert!(requests <= 25, "{requests} requests");
}

#[test]
fn memory_is_bounded_and_comes_back() {
    let mut bench = Bench::simple(8192);
    bench.shared().frozen = true;
    let mut accepted = 0;
    let refused = loop {
        match bench.disks.read(DISK, 0, 1 << 20, Token(accepted)) {
            Ok(_) => accepted += 1,
            Err(refusal) => break refusal,
        }
    };
    assert_eq!(refused, Refusal::Busy);
    assert_eq!(accepted, 15, "of the 16 MiB");
    bench.shared().frozen = false;
    for done in bench.finish() {
        let Ok(Outcome::Read(data)) = done.result else { panic!("{done:?}") };
        bench.disks.recycle(DISK, data);
    }
    assert!(bench.disks.read(DISK, 0, 1 << 20, Token(0)).is_ok());
    bench.finish();
    let Bench { disks, arena, .. } = bench;
    drop(disks);
    assert_eq!(arena.statistics().buffers, 0);
}

/// A disk of 2 MiB behind each of this many drivers, which share `arena` and a budget of three
/// quarters of it.
fn sharing(drivers: usize, arena: &Arena) -> Disks {
    let mut disks = Disks::new();
    let budget = arena.statistics().total_bytes / 4 * 3;
    for _ in 0..drivers {
        let driver = Memory::new(vec![7; 2 << 20], 32, 4096, arena);
        disks.add_driver(Box::new(driver), vec![], budget);
    }
    while !disks.is_settled() {
        disks.poll(Instant::ORIGIN);
    }
    disks
}

/// Reads a MiB as often as it is accepted, and then waits for all of it; how often that was.
fn load(disks: &mut Disks, disk: DiskId) -> Result<usize, Refusal> {
    let mut accepted = 0;
    loop {
        match disks.read(disk, 0, 1 << 20, Token(0)) {
            Ok(_) => accepted += 1,
            Err(Refusal::Busy) if accepted > 0 => break,
            Err(refusal) => return Err(refusal),
        }
    }
    disks.kick(Instant::ORIGIN);
    while !disks.is_idle() {
        disks.poll(Instant::ORIGIN);
    }
    while let Some(done) = disks.next_done() {
        let Ok(Outcome::Read(data)) = done.result else { panic!("{done:?}") };
        disks.recycle(done.disk, data);
    }
    Ok(accepted)
}

#[test]
fn what_one_driver_no_longer_needs_another_gets() {
    let (_, arena) = SharedMemory::for_model("disks", 16 << 20).unwrap();
    let mut disks = sharing(3, &arena);
    for disk in [0, 1, 2, 0] {
        assert_eq!(load(&mut disks, DiskId(disk)), Ok(11), "of 12 MiB, at disk {disk}");
        assert!(arena.statistics().used_bytes <= 12 << 20);
    }
}

#[test]
fn memory_that_nobody_will_give_back_is_not_waited_for() {
    let (_, arena) = SharedMemory::for_model("disks", 16 << 20).unwrap();
    let mut disks = sharing(2, &arena);
    let elsewhere = arena.allocate(15 << 20, &Constraints::NONE).unwrap();
    assert_eq!(load(&mut disks, DiskId(1)), Err(Refusal::NoMemory));
    drop(elsewhere);
    assert_eq!(load(&mut disks, DiskId(1)), Ok(11));
}

#[test]
fn what_a_driver_refuses_ends_without_waiting_for_anything_else() {
    let mut bench = Bench::simple(64);
    bench.disks.stop();
    bench.disks.read(DISK, 0, SECTOR, Token(1)).unwrap();
    assert_eq!(bench.disks.next_deadline(), None);
    bench.disks.kick(Instant::ORIGIN);
    assert_eq!(bench.disks.next_deadline(), Some(Instant::ORIGIN));
    assert!(bench.disks.next_done().unwrap().result.is_err());
    assert_eq!(bench.disks.next_deadline(), None);
}

#[test]
fn what_no_driver_has_can_be_cancelled() {
    let mut bench = Bench::new(vec![0; 64 * SECTOR], DiskOptions::default(), 2, 100);
    bench.shared().frozen = true;
    let mut write = |offset, token| {
        bench.disks.write(DISK, offset, &[token as u8; 512], Durability::Cached, Token(token))
    };
    let ids: Vec<_> = (1..=4).map(|token| write(token * 512, token).unwrap()).collect();
    bench.disks.kick(Instant::ORIGIN);
    assert!(!bench.disks.cancel(ids[0]), "the driver has it");
    assert!(bench.disks.cancel(ids[2]) && bench.disks.cancel(ids[3]));
    assert!(!bench.disks.cancel(ids[3]), "only once");
    bench.shared().frozen = false;
    let mut tokens: Vec<_> = bench.finish().into_iter().map(|done| done.token.0).collect();
    tokens.sort_unstable();
    assert_eq!(tokens, [1, 2]);
    assert_eq!(bench.shared().content[3 * 512..5 * 512], [0; 1024]);
}

#[test]
fn a_cancelled_merge_lets_others_through() {
    let mut bench = Bench::new(vec![0; 8 * SECTOR], DiskOptions::default(), 2, 100);
    bench.shared().frozen = true;
    let mut write = |offset, data: &[u8], token| {
        bench.disks.write(DISK, offset, data, Durability::Cached, Token(token)).unwrap()
    };
    write(0, &[1; 512], 1);
    let merge = write(10, &[2; 20], 2);
    write(0, &[3; 512], 3);
    bench.disks.kick(Instant::ORIGIN);
    assert!(bench.disks.cancel(merge));
    bench.shared().frozen = false;
    assert_eq!(bench.finish().len(), 2);
}

#[test]
fn large_sectors_are_presented_over_small_ones() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(32 << 20).unwrap();
    let mut fdisk = std::process::Command::new("fdisk");
    let fdisk = fdisk.args(["-b", "4096"]).arg(file.path());
    let mut child = fdisk
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, b"g\nn\n1\n\n+10M\nw\n").unwrap();
    drop(input);
    assert!(child.wait().unwrap().success());
    let options = DiskOptions { sector_bytes: Some(4096), read_only: false };
    let mut bench = Bench::new(std::fs::read(file.path()).unwrap(), options, 32, 65536);
    let geometry = bench.disks.geometry(DISK).unwrap();
    assert_eq!((geometry.sector_bytes, geometry.sectors), (4096, 8192));
    assert_eq!(bench.disks.table(DISK).unwrap().scheme, Some(Scheme::Gpt));
    let volume = &bench.disks.volumes(DISK)[0];
    assert_eq!((volume.first_lba, volume.sectors), (256, 2560));
    bench.shared().bad.insert(8 * 1000 + 3, true);
    let error = bench.read(4096 * 1000 + 1536, 1).unwrap_err();
    assert!(error.contains("sector 1000"), "{error}");
    bench.disks.discard(DISK, 300, 2, Token(1)).unwrap();
    bench.finish();
    assert_eq!(bench.shared().log.last(), Some(&(Operation::Discard, 2400, 16)));
}

#[test]
fn long_discards_go_in_pieces_and_nonsense_is_refused() {
    let mut bench = Bench::simple(1000);
    bench.disks.discard(DISK, 10, 250, Token(1)).unwrap();
    assert!(matches!(bench.finish()[0].result, Ok(Outcome::Finished)));
    let expected =
        [(10, 100), (110, 100), (210, 50)].map(|(lba, len)| (Operation::Discard, lba, len));
    assert_eq!(bench.shared().log, expected);
    for (lba, sectors) in [(0, 0), (1000, 1), (999, 2), (u64::MAX, 2)] {
        let refused = bench.disks.discard(DISK, lba, sectors, Token(1));
        assert_eq!(refused.unwrap_err(), Refusal::OutOfRange);
    }
}

#[test]
fn zeros_are_written_in_pieces_if_the_device_can_and_only_then() {
    let mut bench = Bench::simple(1000);
    let zeros = Operation::WriteZeroes(Room::GiveBack);
    bench.disks.clear(DISK, zeros, 10, 100, Token(1)).unwrap();
    assert!(matches!(bench.finish()[0].result, Ok(Outcome::Finished)));
    assert_eq!(bench.shared().log, [(zeros, 10, 60), (zeros, 70, 40)]);
    assert!(bench.shared().content[10 * 512..110 * 512].iter().all(|byte| *byte == 0));
    for operation in [Operation::SecureErase, Operation::Read, Operation::Flush] {
        let refused = bench.disks.clear(DISK, operation, 0, 1, Token(1));
        assert_eq!(refused.unwrap_err(), Refusal::Unsupported);
    }
}

#[test]
fn a_driver_that_stops_fails_what_comes_after() {
    let mut bench = Bench::simple(8);
    bench.disks.stop();
    assert!(bench.read(0, 1).unwrap_err().contains("gone"));
    assert!(bench.disks.is_stopped());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Writes that are under way together may come in any order; what was written before them is
    /// gone where they wrote, and untouched where they did not.
    #[test]
    fn every_byte_is_one_that_was_written_last(
        batches in prop::collection::vec(
            prop::collection::vec((0usize..6 * 512, 1usize..1024), 1..12), 1..6),
        seed in any::<u64>(),
        depth in 1u16..8,
    ) {
        let size = 8 * SECTOR;
        let mut bench = Bench::new(vec![0; size], DiskOptions::default(), depth, 3);
        bench.shared().seed = seed;
        let mut possible: Vec<Vec<u8>> = vec![vec![0]; size];
        let mut value = 0;
        for batch in batches {
            let mut fresh: Vec<Vec<u8>> = vec![Vec::new(); size];
            for (start, len) in batch {
                value += 1;
                let data = vec![value; len];
                let (offset, token) = (start as u64, Token(value.into()));
                bench.disks.write(DISK, offset, &data, Durability::Cached, token).unwrap();
                fresh[start..start + len].iter_mut().for_each(|values| values.push(value));
            }
            bench.finish();
            let pairs = possible.iter_mut().zip(fresh);
            pairs.filter(|(_, fresh)| !fresh.is_empty()).for_each(|(old, fresh)| *old = fresh);
            let content = bench.shared().content.clone();
            for (byte, value) in content.iter().enumerate() {
                prop_assert!(possible[byte].contains(value), "byte {} is {}", byte, value);
            }
        }
    }

    /// Writes that share no bytes at all, whatever sectors they share.
    #[test]
    fn disjoint_writes_all_arrive(
        cuts in prop::collection::btree_set(1usize..8 * 512, 1..40),
        seed in any::<u64>(),
        depth in 1u16..8,
    ) {
        let size = 8 * SECTOR;
        let mut bench = Bench::new(vec![0; size], DiskOptions::default(), depth, 3);
        bench.shared().seed = seed;
        let mut edges: Vec<_> = cuts.into_iter().collect();
        edges.insert(0, 0);
        edges.push(size);
        let mut expected = vec![0; size];
        let mut pieces: Vec<_> = edges.windows(2).map(|w| (w[0], w[1])).collect();
        // In an order that is not theirs on the disk.
        pieces.sort_by_key(|(start, _)| (*start as u64).wrapping_mul(seed | 1) >> 7);
        for (number, (start, end)) in (1u64..).zip(pieces) {
            let data = vec![number as u8; end - start];
            expected[start..end].fill(number as u8);
            let token = Token(number);
            bench.disks.write(DISK, start as u64, &data, Durability::Cached, token).unwrap();
        }
        bench.finish();
        prop_assert_eq!(&bench.shared().content, &expected);
    }
}

/// A medium with one primary partition, from sector 8 on.
fn partitioned(sectors: u32) -> Vec<u8> {
    let mut content = vec![0; sectors as usize * SECTOR];
    content[446 + 4] = 0x83;
    content[446 + 8..][..4].copy_from_slice(&8u32.to_le_bytes());
    content[446 + 12..][..4].copy_from_slice(&(sectors - 8).to_le_bytes());
    content[510..512].copy_from_slice(&[0x55, 0xaa]);
    content
}

#[test]
fn a_read_does_not_go_on_on_another_medium() {
    let mut bench = Bench::new(vec![1; 64 * SECTOR], DiskOptions::default(), 32, 8);
    bench.disks.read(DISK, 0, 64 * SECTOR, Token(1)).unwrap();
    bench.disks.kick(Instant::ORIGIN);
    while bench.shared().log.len() < 3 {
        bench.disks.poll(Instant::ORIGIN);
    }
    bench.shared().exchange = Some(vec![2; 64 * SECTOR]);
    let Outcome::Read(data) = bench.finish().pop().unwrap().result.unwrap() else { panic!() };
    let mut bytes = vec![0; data.len()];
    data.copy_to(&mut bytes);
    assert!(bytes.len() < 64 * SECTOR && bytes.iter().all(|byte| *byte == 1));
    bench.disks.recycle(DISK, data);
    assert_eq!(bench.read(0, 5).unwrap(), [2; 5]);
}

#[test]
fn partitions_come_and_go_with_the_medium() {
    let mut bench = Bench::new(partitioned(64), DiskOptions::default(), 32, 8);
    let ends = |bench: &Bench| -> Vec<u64> {
        bench.disks.volumes(DISK).iter().map(|v| v.first_lba + v.sectors).collect()
    };
    assert_eq!(ends(&bench), [64]);
    bench.shared().exchange = Some(Vec::new());
    bench.disks.poll(Instant::ORIGIN);
    assert_eq!(ends(&bench), []);
    assert_eq!(bench.disks.info(DISK).unwrap().state, UnitState::Empty);
    let refused = bench.disks.read(DISK, 0, 1, Token(1)).unwrap_err();
    assert_eq!(refused, Refusal::NoMedium);
    bench.shared().exchange = Some(partitioned(32));
    bench.disks.poll(Instant::ORIGIN);
    bench.finish();
    assert_eq!(ends(&bench), [32]);
    assert_eq!(bench.disks.table(DISK).unwrap().scheme, Some(Scheme::Mbr));
}

#[test]
fn a_drive_without_a_medium_is_a_disk_that_can_become_full() {
    let mut bench = Bench::new(Vec::new(), DiskOptions::default(), 32, 8);
    assert_eq!((bench.disks.len(), bench.disks.volumes(DISK).len()), (1, 0));
    bench.shared().exchange = Some(partitioned(16));
    bench.disks.poll(Instant::ORIGIN);
    bench.finish();
    assert_eq!(bench.disks.volumes(DISK).len(), 1);
}

#[test]
fn a_driver_that_is_taken_out_leaves_the_others_as_they_are() {
    let mut bench = Bench::simple(64);
    let other = Memory::new(vec![9; 64 * SECTOR], 32, 65536, &bench.arena);
    let other = bench.disks.add_driver(Box::new(other), Vec::new(), 16 << 20);
    while !bench.disks.is_settled() {
        bench.disks.poll(Instant::ORIGIN);
    }
    assert_eq!(bench.disks.driver_of(DiskId(1)), Some(other));
    bench.disks.stop_driver(0);
    assert!(bench.disks.is_driver_stopped(0) && !bench.disks.is_driver_stopped(other));
    bench.disks.withdraw(0);
    assert!(!bench.disks.is_present(DISK));
    assert_eq!(bench.disks.state(DISK), Some(UnitState::Absent));
    bench.disks.read(DISK, 0, 512, Token(1)).unwrap_err();
    bench.disks.read(DiskId(1), 0, 512, Token(2)).unwrap();
    let done = bench.finish();
    assert!(matches!(&done[..], [Done { result: Ok(Outcome::Read(_)), .. }]), "{done:?}");
    assert!(!bench.disks.is_stopped());
    assert!(bench.shared.try_lock().is_ok() && Arc::strong_count(&bench.shared) == 1, "dropped");
}

#[test]
fn memory_that_the_controller_does_not_reach_is_refused() {
    let mut bench = Bench::simple(64);
    let lent = || SgList::single(SharedMemory::new("lent", 4096).unwrap().into_buffer(), 0..1024);
    assert!(!bench.disks.takes_any_memory(DISK));
    let (read, range) = (Direction::Read, (512, 1024));
    assert_eq!(bench.disks.lend(DISK, read, range, Token(1), lent), Ok(false));
    assert!(bench.disks.is_idle());
    // What the disk's own space has made is reached, of course.
    let (space, limits) = bench.disks.space(DISK).unwrap();
    let own = space.allocate(1024, &limits).unwrap();
    let own = || SgList::single(own, 0..1024);
    assert_eq!(bench.disks.lend(DISK, read, range, Token(2), own), Ok(true));
    assert!(matches!(bench.finish().pop().unwrap().result, Ok(Outcome::Lent(1024))));
    assert_eq!(bench.disks.counters(DISK).bytes_lent, 1024);
}
