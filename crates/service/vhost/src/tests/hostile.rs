//! Front ends, and drivers, that break the rules.
//!
//! Required: no panic, and the end of this client alone, with a reason; what is under way at the
//! disk ends.

use super::rig::{Back, DISK_BYTES, ENTRIES, Front, USER, connected, pattern, started};
use crate::Violation;
use outboard_linux::{EventFd, ForeignError, SharedMemory};
use outboard_virtio::spec::blk::IN;
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::split::Descriptor;
use outboard_virtio::spec::vhost_user::request::*;
use outboard_virtio::spec::vhost_user::{Header, InflightRegion, MemoryRegion, PROTOCOL_FEATURES};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::os::fd::{AsFd, BorrowedFd};
use zerocopy::IntoBytes;

const PACKED: Features = Features::VERSION_1.union(Features::PACKED);
/// Memory of the client's that no ring is in.
const DATA: u64 = 64 << 10;

/// The client is disconnected, and nothing is left of it.
fn ends(back: &mut Back) -> Violation {
    for _ in 0..100 {
        back.turn();
    }
    let violation = back.session.closed().expect("it is disconnected");
    assert!(back.session.is_over() && back.disks.is_idle());
    violation
}

/// What becomes of a client that says this.
fn says(request: u32, body: &[u8], descriptors: &[BorrowedFd<'_>]) -> Violation {
    let (front, mut back) = connected(Features::VERSION_1, pattern(1, DISK_BYTES));
    front.send(request, body, descriptors);
    ends(&mut back)
}

/// What becomes of a client whose ring runs, and that says this.
fn says_later(request: u32, body: &[u8], descriptors: &[BorrowedFd<'_>]) -> Violation {
    let (mut front, mut back) = started(Features::VERSION_1, pattern(1, DISK_BYTES));
    // Something is under way.
    front.request(0, IN, 0, Err(512));
    front.publish();
    back.turn();
    front.send(request, body, descriptors);
    ends(&mut back)
}

#[test]
fn messages_that_are_none() {
    let raw = |request: u32, flags: u32, bytes: u32| {
        let (front, mut back) = connected(Features::VERSION_1, pattern(1, DISK_BYTES));
        let (request, flags, bytes) = (request.into(), flags.into(), bytes.into());
        front.send_raw(Header { request, flags, bytes }.as_bytes(), &[]);
        drop(front);
        ends(&mut back)
    };
    assert_eq!(raw(GET_FEATURES, 0, 0), Violation::Flags(0));
    assert_eq!(raw(GET_FEATURES, 5, 0), Violation::Flags(5));
    assert_eq!(raw(GET_FEATURES, 1, u32::MAX), Violation::TooLong(u32::MAX));
    assert_eq!(raw(SET_FEATURES, 1, 8), Violation::Cut);
    assert_eq!(says(SET_FEATURES, &[0; 9], &[]), Violation::Length(SET_FEATURES, 9));
    assert_eq!(says(SET_VRING_ADDR, &[], &[]), Violation::Length(SET_VRING_ADDR, 0));
    assert_eq!(says(GET_INFLIGHT_FD, &[0; 3], &[]), Violation::Length(GET_INFLIGHT_FD, 3));
    assert_eq!(says(GET_CONFIG, &[0; 11], &[]), Violation::Length(GET_CONFIG, 11));
    assert_eq!(says(GET_CONFIG, &[0xff; 12], &[]), Violation::Value(GET_CONFIG));
}

#[test]
fn descriptors_where_none_belong_or_none_where_one_belongs() {
    let event = EventFd::new().unwrap();
    let with = |count| vec![event.as_fd(); count];
    assert_eq!(says(SET_OWNER, &[], &with(1)), Violation::Descriptors(SET_OWNER, 1));
    for count in [9, 60] {
        let violation = says(SET_OWNER, &[], &with(count));
        assert!(matches!(violation, Violation::Descriptors(0, _)), "{violation}");
    }
    let call = 0u64.to_le_bytes();
    assert_eq!(says(SET_VRING_CALL, &call, &[]), Violation::Descriptors(SET_VRING_CALL, 0));
    assert_eq!(says(SET_VRING_CALL, &call, &with(2)), Violation::Descriptors(SET_VRING_CALL, 2));
    let table = 2u64.to_le_bytes();
    let table = [&table[..], &[0; 64]].concat();
    assert_eq!(says(SET_MEM_TABLE, &table, &with(1)), Violation::Descriptors(SET_MEM_TABLE, 1));
}

#[test]
fn what_is_no_eventfd() {
    let (pipe, _other) = rustix::pipe::pipe().unwrap();
    let file = std::fs::File::open("/proc/self/maps").unwrap();
    let memory = SharedMemory::new("test", 4096).unwrap();
    for descriptor in [pipe.as_fd(), file.as_fd(), memory.as_fd()] {
        for request in [SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR] {
            let violation = says(request, &3u64.to_le_bytes(), &[descriptor]);
            assert_eq!(violation, Violation::NotAnEvent(3));
        }
    }
    let event = EventFd::new().unwrap();
    let violation = says(SET_VRING_KICK, &0xffu64.to_le_bytes(), &[event.as_fd()]);
    assert_eq!(violation, Violation::NoRing(255));
    let violation = says(SET_VRING_KICK, &0x100u64.to_le_bytes(), &[]);
    assert_eq!(violation, Violation::Value(SET_VRING_KICK), "nobody looks at rings for ever");
}

#[test]
fn messages_in_an_order_that_makes_no_sense() {
    let event = EventFd::new().unwrap();
    let kick = says(SET_VRING_KICK, &0u64.to_le_bytes(), &[event.as_fd()]);
    assert_eq!(kick, Violation::Order(SET_VRING_KICK));
    let state = Front::state(0, 8);
    for request in [SET_VRING_NUM, SET_VRING_BASE] {
        assert_eq!(says_later(request, &state, &[]), Violation::Order(request));
    }
    let features = says_later(SET_FEATURES, &0u64.to_le_bytes(), &[]);
    assert_eq!(features, Violation::Order(SET_FEATURES));
    let features = says(SET_FEATURES, &u64::MAX.to_le_bytes(), &[]);
    assert!(matches!(features, Violation::Features(_)));
    for entries in [0, 4097, u32::MAX] {
        let violation = says(SET_VRING_NUM, &Front::state(0, entries), &[]);
        assert_eq!(violation, Violation::Value(SET_VRING_NUM), "{entries}");
    }
    let violation = says(GET_VRING_BASE, &Front::state(u32::MAX, 0), &[]);
    assert_eq!(violation, Violation::NoRing(u32::MAX.into()));
    assert_eq!(says(REM_MEM_REG, &[0; 40], &[]), Violation::Value(REM_MEM_REG));
}

pub(super) fn region(guest: u64, user: u64, bytes: u64, file_offset: u64) -> MemoryRegion {
    let (guest_address, user_address) = (guest.into(), user.into());
    MemoryRegion {
        guest_address,
        bytes: bytes.into(),
        user_address,
        file_offset: file_offset.into(),
    }
}

#[test]
fn memory_that_is_none() {
    let memory = SharedMemory::new("test", 8192).unwrap();
    let table = |regions: &[MemoryRegion]| {
        let count = (regions.len() as u64).to_le_bytes();
        [&count, regions.as_bytes()].concat()
    };
    let one = |region| says(SET_MEM_TABLE, &table(&[region]), &[memory.as_fd()]);
    assert_eq!(one(region(0, USER, 8193, 0)), ForeignError::TooShort(8192).into());
    assert_eq!(one(region(0, USER, 4096, 8192)), ForeignError::TooShort(8192).into());
    assert!(matches!(one(region(0, USER, 4096, 1)), Violation::Memory(_)));
    assert!(matches!(one(region(0, USER, 0, 0)), Violation::Memory(_)));
    assert_eq!(one(region(u64::MAX, USER, 4096, 0)), Violation::Regions);
    assert_eq!(one(region(0, u64::MAX - 100, 4096, 0)), Violation::Regions);
    let both = [memory.as_fd(); 2];
    let two = |first, second| says(SET_MEM_TABLE, &table(&[first, second]), &both);
    let overlap = two(region(0, USER, 8192, 0), region(4096, USER + 8192, 8192, 0));
    assert_eq!(overlap, Violation::Regions);
    let overlap = two(region(0, USER, 8192, 0), region(8192, USER + 4096, 8192, 0));
    assert_eq!(overlap, Violation::Regions);
    let pipe = rustix::pipe::pipe().unwrap().0;
    let violation = says(SET_MEM_TABLE, &table(&[region(0, USER, 4096, 0)]), &[pipe.as_fd()]);
    assert_eq!(violation, ForeignError::NotMemory.into());
    let many = [&9u64.to_le_bytes()[..], &[0; 9 * 32]].concat();
    assert!(matches!(says(SET_MEM_TABLE, &many, &[]), Violation::Length(..)));
}

#[test]
fn rings_that_are_not_in_the_memory() {
    for change in 0..5 {
        let (front, mut back) = connected(Features::VERSION_1, pattern(1, DISK_BYTES));
        let mut address = front.ring_address();
        let end = USER + front.memory.size_bytes() as u64;
        match change {
            0 => address.descriptors = 0.into(),
            1 => address.descriptors = (end - 16).into(),
            2 => address.available = (address.available.get() + 1).into(),
            3 => address.used = u64::MAX.into(),
            _ => address.used = (end - 4).into(),
        }
        front.send(SET_FEATURES, &front.features.bits().to_le_bytes(), &[]);
        front.share_memory();
        front.send(SET_VRING_NUM, &Front::state(0, ENTRIES.into()), &[]);
        front.send(SET_VRING_ADDR, address.as_bytes(), &[]);
        front.send(SET_VRING_KICK, &0u64.to_le_bytes(), &[front.kick.as_fd()]);
        assert_eq!(ends(&mut back), Violation::RingAddress(0), "{change}");
    }
}

#[test]
fn memory_that_is_taken_away_under_load() {
    // By a table without the ring.
    let other = SharedMemory::new("other", 8192).unwrap();
    let table = [&1u64.to_le_bytes(), region(1 << 40, 1 << 40, 8192, 0).as_bytes()].concat();
    let violation = says_later(SET_MEM_TABLE, &table, &[other.as_fd()]);
    assert_eq!(violation, Violation::RingAddress(0));
    // By making the file shorter.
    let (mut front, mut back) = started(Features::VERSION_1, pattern(1, DISK_BYTES));
    let file = memfd_create("client", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, 8192).unwrap();
    let more = region(1 << 40, 1 << 40, 8192, 0);
    front.send(ADD_MEM_REG, &[&[0; 8], more.as_bytes()].concat(), &[file.as_fd()]);
    back.turn();
    raw_request(&mut front, &[(1 << 40, 16, 0, 1), ((1 << 40) + 4096, 513, 2, 0)]);
    ftruncate(&file, 4096).unwrap();
    assert_eq!(ends(&mut back), Violation::MemoryGone);
}

/// A descriptor: address, bytes, flags, next.
pub(super) type Raw = (u64, u32, u16, u16);

/// Makes a chain available whose first descriptors are these: address, bytes, flags (those that lead
/// on to the next are added), and which is next.
pub(super) fn raw_request(front: &mut Front, descriptors: &[Raw]) {
    let areas = front.queue.areas();
    let memory = front.memory.as_fd();
    for (index, (address, bytes, flags, next)) in descriptors.iter().enumerate() {
        let more = if index + 1 < descriptors.len() { Descriptor::NEXT } else { 0 };
        let (address, bytes) = ((*address).into(), (*bytes).into());
        let flags = (flags | more).into();
        let one = Descriptor { address, bytes, flags, next: (*next).into() };
        let at = areas.descriptors.bits() + 16 * index as u64;
        rustix::io::pwrite(memory, one.as_bytes(), at).unwrap();
    }
    // Flags, index 1, and first entry 0.
    rustix::io::pwrite(memory, &[0, 0, 1, 0, 0, 0], areas.driver.bits()).unwrap();
    front.kick.signal();
}

/// What becomes of a client whose driver makes such a chain available.
fn chain(features: Features, descriptors: &[Raw]) -> Violation {
    let (mut front, mut back) = started(features, pattern(1, DISK_BYTES));
    raw_request(&mut front, descriptors);
    let violation = ends(&mut back);
    // The driver is told nothing of it.
    assert!(front.queue.take().is_none());
    violation
}

const NEXT: u16 = Descriptor::NEXT;
const WRITE: u16 = Descriptor::WRITE;
const INDIRECT: u16 = Descriptor::INDIRECT;

#[test]
fn chains_that_are_none() {
    let split = Features::VERSION_1;
    let header = (DATA, 16, 0, 1);
    let status = (DATA + 4096, 1, WRITE, 0);
    let end = 132 << 10;
    assert_eq!(chain(split, &[(DATA, 16, NEXT, 0)]), Violation::Endless);
    assert_eq!(chain(split, &[header, (DATA, 16, NEXT, 0)]), Violation::Endless);
    assert_eq!(chain(split, &[(DATA, 16, NEXT, ENTRIES)]), Violation::NoDescriptor(ENTRIES));
    assert_eq!(chain(split, &[(DATA, 16, NEXT, u16::MAX)]), Violation::NoDescriptor(u16::MAX));
    assert_eq!(chain(split, &[header, (DATA, 0, WRITE, 0)]), Violation::Malformed);
    assert_eq!(chain(split, &[(DATA, 1, WRITE, 1), (DATA, 16, 0, 0)]), Violation::Malformed);
    assert_eq!(chain(split, &[header]), Violation::Malformed, "no status");
    assert_eq!(chain(split, &[status]), Violation::Malformed, "no header");
    assert_eq!(chain(split, &[(DATA, 15, 0, 1), status]), Violation::Malformed, "half a header");
    for (address, bytes) in [
        (end, 1),
        (end - 1, 2),
        (u64::MAX, 1),
        (u64::MAX, u32::MAX),
        (u64::MAX - 3, 8),
        (0, u32::MAX),
        (USER, 16),
    ] {
        let violation = chain(split, &[header, (address, bytes, WRITE, 0)]);
        assert!(matches!(violation, Violation::Outside(..)), "{address:#x}: {violation}");
    }
    // Tables: not agreed upon, nested, of half a descriptor, of none, too long, not there, endless.
    assert_eq!(chain(split, &[(DATA, 32, INDIRECT, 0)]), Violation::Malformed);
    let split = split | Features::INDIRECT;
    for bytes in [0, 15, 33] {
        assert_eq!(chain(split, &[(DATA, bytes, INDIRECT, 0)]), Violation::Malformed);
    }
    assert_eq!(chain(split, &[(DATA, 32, INDIRECT | NEXT, 1), status]), Violation::Malformed);
    assert_eq!(chain(split, &[(DATA, 16 * 1025, INDIRECT, 0)]), Violation::Endless);
    assert_eq!(chain(split, &[(end - 16, 32, INDIRECT, 0)]), Violation::Outside(end - 16, 32));
    let tables: [(&[Raw], Violation); 4] = [
        (&[(DATA, 16, INDIRECT, 0)], Violation::Malformed),
        (&[(DATA, 16, NEXT, 0)], Violation::Endless),
        (&[(DATA, 16, NEXT, 1)], Violation::NoDescriptor(1)),
        (&[(DATA, 16, NEXT, 1), (DATA, 16, NEXT, 0)], Violation::Endless),
    ];
    for (table, wanted) in tables {
        let (mut front, mut back) = started(split, pattern(1, DISK_BYTES));
        for (index, (address, bytes, flags, next)) in table.iter().enumerate() {
            let (address, bytes) = ((*address).into(), (*bytes).into());
            let one = Descriptor { address, bytes, flags: (*flags).into(), next: (*next).into() };
            let at = DATA + 16 * index as u64;
            rustix::io::pwrite(front.memory.as_fd(), one.as_bytes(), at).unwrap();
        }
        raw_request(&mut front, &[(DATA, 16 * table.len() as u32, INDIRECT, 0)]);
        assert_eq!(ends(&mut back), wanted);
    }
}

#[test]
fn indices_that_jump_and_descriptors_that_come_twice() {
    let available = |bytes: &[u8]| {
        let (front, mut back) = started(Features::VERSION_1, pattern(1, DISK_BYTES));
        let areas = front.queue.areas();
        let chain = [(DATA, 16, NEXT, 1), (DATA, 1, WRITE, 0)];
        for (index, (address, bytes, flags, next)) in chain.into_iter().enumerate() {
            let (address, next) = (u64::into(address), u16::into(next));
            let (bytes, flags) = (u32::into(bytes), u16::into(flags));
            let one = Descriptor { address, bytes, flags, next };
            let at = areas.descriptors.bits() + 16 * index as u64;
            rustix::io::pwrite(front.memory.as_fd(), one.as_bytes(), at).unwrap();
        }
        rustix::io::pwrite(front.memory.as_fd(), bytes, areas.driver.bits()).unwrap();
        // A read of nothing would end at once; a flush is under way for a turn.
        rustix::io::pwrite(front.memory.as_fd(), &[4], DATA).unwrap();
        front.kick.signal();
        ends(&mut back)
    };
    assert_eq!(available(&[0, 0, 17, 0]), Violation::Jump(17));
    assert_eq!(available(&[0, 0, 0xff, 0xff]), Violation::Jump(u16::MAX));
    assert_eq!(available(&[0, 0, 1, 0, 16, 0]), Violation::NoDescriptor(16));
    assert_eq!(available(&[0, 0, 2, 0, 0, 0, 0, 0]), Violation::Twice(0));
}

#[test]
fn packed_rings_that_are_none() {
    use outboard_virtio::spec::packed;
    let ring = |descriptors: &[(u64, u32, u16)]| {
        let (front, mut back) = started(PACKED, pattern(1, DISK_BYTES));
        for (index, (address, bytes, flags)) in descriptors.iter().enumerate() {
            let flags = (flags | packed::Descriptor::AVAILABLE).into();
            let (address, bytes) = ((*address).into(), (*bytes).into());
            let one = packed::Descriptor { address, bytes, id: 3.into(), flags };
            let at = front.queue.areas().descriptors.bits() + 16 * index as u64;
            rustix::io::pwrite(front.memory.as_fd(), one.as_bytes(), at).unwrap();
        }
        front.kick.signal();
        ends(&mut back)
    };
    assert_eq!(ring(&[(DATA, 16, NEXT); ENTRIES as usize]), Violation::Endless);
    assert_eq!(ring(&[(DATA, 16, INDIRECT)]), Violation::Malformed);
    assert_eq!(ring(&[(DATA, 0, 0)]), Violation::Malformed);
    assert!(matches!(ring(&[(u64::MAX, 16, 0)]), Violation::Outside(..)));
    for base in [0x8000_8010, 0x8010_8000, u32::MAX] {
        let (front, mut back) = connected(PACKED, pattern(1, DISK_BYTES));
        front.send(SET_FEATURES, &front.features.bits().to_le_bytes(), &[]);
        front.share_memory();
        front.send(SET_VRING_NUM, &Front::state(0, ENTRIES.into()), &[]);
        front.send(SET_VRING_BASE, &Front::state(0, base), &[]);
        front.send(SET_VRING_ADDR, front.ring_address().as_bytes(), &[]);
        front.send(SET_VRING_KICK, &0u64.to_le_bytes(), &[front.kick.as_fd()]);
        assert!(matches!(ends(&mut back), Violation::Jump(_)), "{base:#x}");
    }
}

#[test]
fn memory_of_what_is_in_flight_that_makes_no_sense() {
    // For all bytes alike, and for bytes that look like nothing.
    for features in [Features::VERSION_1, PACKED] {
        for seed in 0..60u8 {
            let (mut front, mut back) = connected(features, pattern(1, DISK_BYTES));
            front.remember(&mut back);
            let (region, file) = front.inflight.as_ref().unwrap();
            let mut bytes = pattern(seed, region.bytes.get() as usize);
            if seed % 3 == 0 {
                bytes.fill(seed);
            }
            // So that it is looked at: version and size.
            bytes[8..12].copy_from_slice(&[1, 0, ENTRIES as u8, 0]);
            bytes[12..32].iter_mut().for_each(|byte| *byte &= 7);
            rustix::io::pwrite(file, &bytes, 0).unwrap();
            front.send(SET_INFLIGHT_FD, region.as_bytes(), &[file.as_fd()]);
            front.send(SET_FEATURES, &(features.bits() | PROTOCOL_FEATURES).to_le_bytes(), &[]);
            front.share_memory();
            front.send(SET_VRING_NUM, &Front::state(0, ENTRIES.into()), &[]);
            front.send(SET_VRING_BASE, &Front::state(0, 0), &[]);
            front.send(SET_VRING_ADDR, front.ring_address().as_bytes(), &[]);
            front.send(SET_VRING_ENABLE, &Front::state(0, 1), &[]);
            front.send(SET_VRING_KICK, &0u64.to_le_bytes(), &[front.kick.as_fd()]);
            for _ in 0..20 {
                back.turn();
            }
            assert!(back.disks.is_idle(), "{seed}");
        }
    }
    let wanted = |queues: u16, entries: u16| InflightRegion {
        bytes: u64::MAX.into(),
        file_offset: 0.into(),
        queues: queues.into(),
        entries: entries.into(),
    };
    for (queues, entries) in [(0, 1), (17, 1), (1, 0), (1, 4097), (u16::MAX, u16::MAX)] {
        let violation = says(GET_INFLIGHT_FD, wanted(queues, entries).as_bytes(), &[]);
        assert_eq!(violation, Violation::Value(GET_INFLIGHT_FD));
    }
    let file = SharedMemory::new("test", 4096).unwrap();
    let violation = says(SET_INFLIGHT_FD, wanted(1, 128).as_bytes(), &[file.as_fd()]);
    assert!(matches!(violation, Violation::Memory(_)));
}
