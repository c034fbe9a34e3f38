//! Transfers straight between a client's memory and a disk made of memory.

use super::hostile::{raw_request, region};
use super::rig::{Back, DISK_BYTES, connected_with, layouts, pattern};
use crate::Violation;
use outboard_block::disk::Disks;
use outboard_hw::Instant;
use outboard_linux::SharedMemory;
use outboard_ram::Ram;
use outboard_virtio::spec::blk::{IN, OUT, STATUS_IO_ERROR, STATUS_OK};
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::vhost_user::request::ADD_MEM_REG;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use zerocopy::IntoBytes;

const SECTOR: usize = 512;

/// A back end over a disk made of memory.
fn back(socket: OwnedFd) -> Back {
    let content = SharedMemory::new("disk", DISK_BYTES).unwrap().into_buffer();
    // There is hardly any memory for copies.
    let (_, space) = SharedMemory::for_model("transfers", 12 << 10).unwrap();
    let mut disks = Disks::new();
    disks.add_driver(Box::new(Ram::new(content, Arc::new(space), "")), Vec::new(), 12 << 10);
    while !disks.is_settled() {
        disks.poll(Instant::ORIGIN);
    }
    Back::over(socket, disks)
}

#[test]
fn what_was_written_from_a_clients_memory_is_read_into_it() {
    for features in layouts() {
        let (mut front, mut back) = connected_with(features, back);
        let packed = features.contains(Features::PACKED);
        front.set_up(&mut back, if packed { 0x8000_8000 } else { 0 });
        for round in 0..40u8 {
            let data = pattern(round, 5 * SECTOR);
            let sector = u64::from(round) * 3;
            let (status, _) = front.one(&mut back, OUT, sector, Ok(&data));
            assert_eq!(status, STATUS_OK);
            let (status, read) = front.one(&mut back, IN, sector + 1, Err(4 * SECTOR));
            assert_eq!(status, STATUS_OK);
            assert!(read == data[SECTOR..], "{features:?} {round}");
        }
        // The end of the disk is where it was.
        let last = (DISK_BYTES / SECTOR) as u64 - 1;
        assert_eq!(front.one(&mut back, IN, last, Err(SECTOR)).0, STATUS_OK);
        assert_eq!(front.one(&mut back, IN, last, Err(2 * SECTOR)).0, STATUS_IO_ERROR);
        let disk = back.session.disk();
        let counters = back.disks.counters(disk);
        assert_eq!((counters.reads, counters.writes), (41, 40));
        assert_eq!(counters.bytes_written, 40 * 5 * SECTOR as u64);
    }
}

#[test]
fn memory_that_is_taken_away_ends_its_client_alone() {
    let (mut front, mut back) = connected_with(Features::VERSION_1, back);
    front.set_up(&mut back, 0);
    let file = memfd_create("client", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, 8192).unwrap();
    let more = region(1 << 40, 1 << 40, 8192, 0);
    front.send(ADD_MEM_REG, &[&[0; 8], more.as_bytes()].concat(), &[file.as_fd()]);
    back.turn();
    raw_request(&mut front, &[(1 << 40, 16, 0, 1), ((1 << 40) + 4096, 513, 2, 0)]);
    back.session.receive();
    back.session.work(&mut back.disks);
    assert!(!back.disks.is_idle(), "it was taken");
    ftruncate(&file, 4096).unwrap();
    for _ in 0..10 {
        back.turn();
    }
    assert_eq!(back.session.closed(), Some(Violation::MemoryGone));
    assert!(back.session.is_over() && back.disks.is_idle());
}
