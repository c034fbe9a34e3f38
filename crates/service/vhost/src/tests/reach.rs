//! Transfers straight between a client's memory and a disk whose controller reaches it.

use super::hostile::{raw_request, region};
use super::rig::{Back, DISK_BYTES, Front, Memory, Shared, connected_with, layouts, pattern};
use crate::Violation;
use crate::reach::EXTENSIONS;
use outboard_block::disk::Disks;
use outboard_hw::Instant;
use outboard_hw::dma::{Constraints, ModelSpace};
use outboard_linux::SharedMemory;
use outboard_virtio::spec::blk::{Header, IN, OUT, STATUS_IO_ERROR, STATUS_OK};
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::split::Descriptor;
use outboard_virtio::spec::vhost_user::request::{ADD_MEM_REG, REM_MEM_REG};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use zerocopy::IntoBytes;

const SECTOR: usize = 512;
const MORE: u64 = 1 << 40;

/// What a test knows of a disk's controller.
struct Rig {
    space: ModelSpace,
    shared: Arc<Mutex<Shared>>,
}

impl Rig {
    /// A back end over a disk whose controller finds everything by its device address, and takes
    /// memory within these constraints.
    fn back(socket: OwnedFd, limits: Constraints) -> (Self, Back) {
        let (_, arena) = SharedMemory::for_model("disk", 256 << 10).unwrap();
        let space = ModelSpace::new(arena.clone());
        let driver = Memory::new(vec![0; DISK_BYTES], 8, 16, &arena).reaching(&space, limits);
        let shared = driver.shared();
        let mut disks = Disks::new();
        disks.add_driver(Box::new(driver), Vec::new(), 256 << 10);
        while !disks.is_settled() {
            disks.poll(Instant::ORIGIN);
        }
        (Self { space, shared }, Back::over(socket, disks))
    }

    fn freeze(&self, frozen: bool) {
        self.shared.lock().unwrap().frozen = frozen;
    }
}

fn lent(back: &Back) -> u64 {
    back.disks.counters(back.session.disk()).bytes_lent
}

#[test]
fn nothing_is_copied_in_any_layout() {
    for features in layouts() {
        let with = |socket| Rig::back(socket, Constraints::NONE);
        let (mut front, (rig, mut back)) = connected_with(features, with);
        let packed = features.contains(Features::PACKED);
        front.set_up(&mut back, if packed { 0x8000_8000 } else { 0 });
        for round in 0..20u8 {
            let data = pattern(round, 5 * SECTOR);
            let sector = u64::from(round) * 3;
            assert_eq!(front.one(&mut back, OUT, sector, Ok(&data)).0, STATUS_OK);
            let (status, read) = front.one(&mut back, IN, sector + 1, Err(4 * SECTOR));
            assert_eq!(status, STATUS_OK);
            assert!(read == data[SECTOR..], "{features:?} {round}");
        }
        assert_eq!(lent(&back), 20 * 9 * SECTOR as u64, "{features:?}");
        assert!(back.session.take_refusal().is_none());
        drop(back);
        assert_eq!(rig.space.foreign_regions(), 0, "nothing is reached any more");
    }
}

#[test]
fn the_controller_is_made_to_reach_so_much_in_a_turn_and_no_more() {
    let with = |socket| Rig::back(socket, Constraints::NONE);
    let (mut front, (_, mut back)) = connected_with(Features::VERSION_1 | Features::INDIRECT, with);
    front.set_up(&mut back, 0);
    const ROUND: u16 = 2 * EXTENSIONS as u16;
    let mut expected = 0;
    for round in 1..=2u64 {
        // Each on a page of its own.
        for slot in 0..ROUND {
            front.request(slot, IN, slot.into(), Err(SECTOR));
        }
        front.publish();
        back.run();
        while let Some((_, status, _)) = front.take(SECTOR) {
            assert_eq!(status, STATUS_OK);
        }
        expected += round * u64::from(EXTENSIONS) * SECTOR as u64;
        assert_eq!(lent(&back), expected, "in round {round}");
    }
}

#[test]
fn what_the_controller_does_not_take_is_copied() {
    // A request's data lies in two pieces that begin anywhere, and above all memory of ours.
    let aligned = Constraints::NONE.aligned(4096);
    let one = Constraints { max_segments: 1, max_segment_bytes: 512, ..Constraints::NONE };
    let low = Constraints { highest_address: 384 << 10, ..Constraints::NONE };
    for (limits, is_told) in [(aligned, false), (one, false), (low, true)] {
        let with = |socket| Rig::back(socket, limits);
        let (mut front, (_, mut back)) = connected_with(Features::VERSION_1, with);
        front.set_up(&mut back, 0);
        let data = pattern(7, 4 * SECTOR);
        assert_eq!(front.one(&mut back, OUT, 3, Ok(&data)).0, STATUS_OK);
        assert_eq!(front.one(&mut back, IN, 3, Err(4 * SECTOR)), (STATUS_OK, data));
        assert_eq!(lent(&back), 0, "{limits:?}");
        assert_eq!(back.session.take_refusal().is_some(), is_told, "{limits:?}");
        assert!(back.session.take_refusal().is_none(), "it is told once");
    }
}

#[test]
fn a_bad_sector_is_looked_for_all_the_same() {
    let with = |socket| Rig::back(socket, Constraints::NONE);
    let (mut front, (rig, mut back)) = connected_with(Features::VERSION_1, with);
    front.set_up(&mut back, 0);
    {
        let mut shared = rig.shared.lock().unwrap();
        shared.log.clear();
        shared.bad.insert(5, false);
    }
    assert_eq!(front.one(&mut back, IN, 2, Err(5 * SECTOR)).0, STATUS_IO_ERROR);
    let log = std::mem::take(&mut rig.shared.lock().unwrap().log);
    let reads: Vec<_> = log.into_iter().map(|(_, lba, sectors)| (lba, sectors)).collect();
    assert_eq!(reads[..2], [(2, 5), (2, 5)], "in the client's memory, and in ours");
    assert_eq!(reads.last(), Some(&(5, 1)), "{reads:?}");
    assert_eq!(front.one(&mut back, IN, 6, Err(SECTOR)).0, STATUS_OK);
    assert_eq!(lent(&back), SECTOR as u64);
}

/// Makes one request available whose two sectors lie in a region of their own, and lets the disk,
/// which ends nothing, have it.
fn under_way(kind: u32) -> (Front, Rig, Back, OwnedFd) {
    let with = |socket| Rig::back(socket, Constraints::NONE);
    let (mut front, (rig, mut back)) = connected_with(Features::VERSION_1, with);
    front.set_up(&mut back, 0);
    let file = memfd_create("client", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, 8192).unwrap();
    let more = region(MORE, MORE, 8192, 0);
    front.send(ADD_MEM_REG, &[&[0; 8], more.as_bytes()].concat(), &[file.as_fd()]);
    back.turn();
    assert_eq!(rig.space.foreign_regions(), 2);
    rig.shared.lock().unwrap().content.fill(0x5a);
    rig.freeze(true);
    let header = Header { kind: kind.into(), reserved: 0.into(), sector: 0.into() };
    rustix::io::pwrite(&file, header.as_bytes(), 0).unwrap();
    let flags = if kind == IN { Descriptor::WRITE } else { 0 };
    let status = (MORE + 16, 1, Descriptor::WRITE, 0);
    raw_request(&mut front, &[(MORE, 16, 0, 1), (MORE + 4096, 1024, flags, 2), status]);
    back.session.receive();
    back.session.work(&mut back.disks);
    back.disks.kick(Instant::ORIGIN);
    assert!(!back.disks.is_idle(), "it was taken");
    (front, rig, back, file)
}

#[test]
fn memory_stays_reached_until_its_last_transfer_has_ended() {
    // The region is taken out of the table.
    let (front, rig, mut back, file) = under_way(IN);
    let more = region(MORE, MORE, 8192, 0);
    front.send(REM_MEM_REG, &[&[0; 8], more.as_bytes()].concat(), &[]);
    back.turn();
    assert_eq!(back.session.closed(), None);
    assert_eq!(rig.space.foreign_regions(), 2, "a transfer is left");
    rig.freeze(false);
    back.run();
    assert_eq!(rig.space.foreign_regions(), 1);
    let mut data = [0; 1024];
    rustix::io::pread(&file, &mut data, 4096).unwrap();
    assert_eq!(data, [0x5a; 1024]);

    // The client goes.
    let (front, rig, mut back, _file) = under_way(IN);
    drop(front);
    back.turn();
    assert!(!back.session.is_over(), "nobody else is let in");
    let Back { session, mut disks, .. } = back;
    drop(session);
    assert_eq!(rig.space.foreign_regions(), 1, "the one that is transferred to");
    rig.freeze(false);
    disks.poll(Instant::ORIGIN);
    disks.next_done().unwrap();
    assert!(disks.is_idle());
    assert_eq!(rig.space.foreign_regions(), 0);
}

#[test]
fn a_driver_that_is_lost_gives_the_memory_back_when_it_is_dropped() {
    let (_front, rig, mut back, _file) = under_way(OUT);
    back.disks = Disks::new();
    drop(back);
    assert_eq!(rig.space.foreign_regions(), 0);
}

#[test]
fn memory_that_is_taken_away_ends_its_client_alone() {
    let (_front, rig, mut back, file) = under_way(OUT);
    ftruncate(&file, 4096).unwrap();
    rig.freeze(false);
    for _ in 0..10 {
        back.turn();
    }
    assert_eq!(back.session.closed(), Some(Violation::MemoryGone));
    assert!(back.session.is_over() && back.disks.is_idle());
}
