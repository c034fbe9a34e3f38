//! What a front end is served.

use super::rig::{DISK_BYTES, ENTRIES, connected, connected_to, layouts, pattern, started};
use outboard_block::disk::DiskOptions;
use outboard_virtio::spec::blk::{
    BlkFeatures, CAPACITY, DISCARD, DISCARD_BYTES, FLUSH, GET_ID, IN, OUT, STATUS_IO_ERROR,
    STATUS_OK, STATUS_UNSUPPORTED, WRITE_ZEROES, WRITEBACK,
};
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::vhost_user::request::*;
use outboard_virtio::spec::vhost_user::{ConfigPart, Header, ProtocolFeatures};
use zerocopy::IntoBytes;

const SECTOR: usize = 512;

#[test]
fn a_driver_reads_and_writes_in_every_layout() {
    for features in layouts() {
        let (mut front, mut back) = started(features, pattern(1, DISK_BYTES));
        for round in 0..40u8 {
            let sector = u64::from(round % 8);
            let data = pattern(round, 3 * SECTOR);
            let written = front.one(&mut back, OUT, sector, Ok(&data)).0;
            assert_eq!(written, STATUS_OK, "{features:?}");
            let (status, read) = front.one(&mut back, IN, sector, Err(3 * SECTOR));
            assert_eq!((status, read), (STATUS_OK, data), "{features:?}, {round}");
        }
        assert_eq!(front.one(&mut back, FLUSH, 0, Err(0)).0, STATUS_OK);
        assert_eq!(front.one(&mut back, GET_ID, 0, Err(20)), (STATUS_OK, vec![0; 20]));
        assert_eq!(front.one(&mut back, 77, 0, Err(0)).0, STATUS_UNSUPPORTED);
        assert!(front.call.take(), "the driver was told");
    }
}

#[test]
fn many_requests_end_in_any_order_each_once() {
    for features in layouts() {
        let (mut front, mut back) = started(features, pattern(1, DISK_BYTES));
        let slots = if features.contains(Features::INDIRECT) { ENTRIES } else { 3 };
        for round in 0..20 {
            for slot in 0..slots {
                front.request(slot, IN, u64::from(slot), Err(2 * SECTOR));
            }
            front.publish();
            back.run();
            let mut ended: Vec<u16> = (0..slots)
                .map(|_| {
                    let (slot, status, data) = front.take(2 * SECTOR).expect("it has ended");
                    let at = usize::from(slot) * SECTOR;
                    let content = &pattern(1, DISK_BYTES)[at..at + 2 * SECTOR];
                    assert_eq!((status, &*data), (STATUS_OK, content), "round {round}");
                    slot
                })
                .collect();
            ended.sort_unstable();
            assert!(ended.into_iter().eq(0..slots));
        }
    }
}

#[test]
fn what_does_not_lie_on_the_disk_fails_and_the_next_request_does_not() {
    let (mut front, mut back) = started(Features::VERSION_1, pattern(1, DISK_BYTES));
    let end = (DISK_BYTES / SECTOR) as u64;
    for sector in [end, end - 1, u64::MAX, u64::MAX / 512 + 1] {
        let (status, _) = front.one(&mut back, IN, sector, Err(2 * SECTOR));
        assert_eq!(status, STATUS_IO_ERROR, "{sector}");
    }
    assert_eq!(front.one(&mut back, IN, 0, Err(100)).0, STATUS_IO_ERROR);
    assert_eq!(front.one(&mut back, OUT, 0, Ok(&[])).0, STATUS_IO_ERROR);
    assert_eq!(front.one(&mut back, IN, end - 2, Err(2 * SECTOR)).0, STATUS_OK);
}

#[test]
fn a_bad_sector_is_an_error_of_its_request_alone() {
    let (mut front, mut back) = started(Features::VERSION_1, pattern(1, DISK_BYTES));
    back.shared.lock().unwrap().bad.insert(5, true);
    assert_eq!(front.one(&mut back, IN, 4, Err(3 * SECTOR)).0, STATUS_IO_ERROR);
    assert_eq!(front.one(&mut back, IN, 6, Err(SECTOR)).0, STATUS_OK);
}

#[test]
fn a_disk_that_is_read_only_says_so_and_is() {
    let options = DiskOptions { read_only: true, ..DiskOptions::default() };
    let content = pattern(1, DISK_BYTES);
    let (mut front, mut back) = connected_to(Features::VERSION_1, content.clone(), options);
    let offered = front.number(&mut back, GET_FEATURES);
    assert_ne!(offered & BlkFeatures::READ_ONLY.bits(), 0);
    let writing = BlkFeatures::DISCARD | BlkFeatures::WRITE_ZEROES;
    assert_eq!(offered & writing.bits(), 0);
    front.set_up(&mut back, 0);
    assert_eq!(front.one(&mut back, OUT, 0, Ok(&[7; SECTOR])).0, STATUS_IO_ERROR);
    let zeros = segment(0, 1, 0);
    assert_eq!(front.one(&mut back, WRITE_ZEROES, 0, Ok(&zeros)).0, STATUS_IO_ERROR);
    assert_eq!(back.content(), content);
}

fn segment(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

#[test]
fn zeros_are_written_and_discards_reach_the_disk() {
    let (mut front, mut back) = started(Features::VERSION_1, pattern(1, DISK_BYTES));
    assert_eq!(front.one(&mut back, WRITE_ZEROES, 0, Ok(&segment(3, 40, 1))).0, STATUS_OK);
    let mut wanted = pattern(1, DISK_BYTES);
    wanted[3 * SECTOR..43 * SECTOR].fill(0);
    assert_eq!(back.content(), wanted);
    assert_eq!(front.one(&mut back, DISCARD, 0, Ok(&segment(50, 30, 0))).0, STATUS_OK);
    let discarded = back.shared.lock().unwrap().log.iter().any(|(operation, lba, sectors)| {
        (*operation, *lba, *sectors) == (outboard_block::Operation::Discard, 50, 30)
    });
    assert!(discarded);
    let unknown = [(DISCARD, 1), (DISCARD, 2), (WRITE_ZEROES, 2)];
    for (kind, flags) in unknown {
        let (status, _) = front.one(&mut back, kind, 0, Ok(&segment(0, 1, flags)));
        assert_eq!(status, STATUS_UNSUPPORTED);
    }
    let whole = (DISK_BYTES / SECTOR) as u64;
    for bad in [segment(whole, 1, 0), segment(u64::MAX, 1, 0), segment(0, u32::MAX, 0)] {
        for kind in [DISCARD, WRITE_ZEROES] {
            assert_eq!(front.one(&mut back, kind, 0, Ok(&bad)).0, STATUS_IO_ERROR);
        }
    }
    assert_eq!(front.one(&mut back, DISCARD, 0, Ok(&[0; DISCARD_BYTES - 1])).0, STATUS_IO_ERROR);
}

#[test]
fn the_configuration_is_read_and_the_cache_is_switched() {
    let (mut front, mut back) = connected(Features::VERSION_1, pattern(1, DISK_BYTES));
    let cache = Features::from_bits_retain(BlkFeatures::CONFIG_WCE.bits());
    front.features |= cache | Features::from_bits_retain(BlkFeatures::FLUSH.bits());
    front.set_up(&mut back, 0);
    let part = ConfigPart { offset: 0.into(), bytes: 60.into(), flags: 0.into() };
    let ask = [part.as_bytes(), &[0; 60]].concat();
    let answer = front.ask(&mut back, GET_CONFIG, &ask);
    let config = &answer[12..];
    assert_eq!(config.len(), 60);
    let capacity = u64::from_le_bytes(config[CAPACITY..CAPACITY + 8].try_into().unwrap());
    assert_eq!((capacity, config[WRITEBACK]), ((DISK_BYTES / SECTOR) as u64, 1));
    for (state, durability) in
        [(0, outboard_block::Durability::Durable), (1, outboard_block::Durability::Cached)]
    {
        let at = WRITEBACK as u32;
        let part = ConfigPart { offset: at.into(), bytes: 1.into(), flags: 0.into() };
        front.send(SET_CONFIG, &[part.as_bytes(), &[state]].concat(), &[]);
        assert_eq!(front.one(&mut back, OUT, 0, Ok(&[7; SECTOR])).0, STATUS_OK);
        let last = back.shared.lock().unwrap().log.last().copied().unwrap();
        assert_eq!(last.0, outboard_block::Operation::Write(durability));
    }
    // Nothing else can be written, which is said to who asks.
    let part = ConfigPart { offset: 0.into(), bytes: 1.into(), flags: 0.into() };
    let body = [part.as_bytes(), &[1]].concat();
    let header = Header {
        request: SET_CONFIG.into(),
        flags: (Header::VERSION | Header::NEED_REPLY).into(),
        bytes: (body.len() as u32).into(),
    };
    front.send_raw(&[header.as_bytes(), &body].concat(), &[]);
    back.turn();
    assert_eq!(front.answer(SET_CONFIG).0, 1u64.to_le_bytes());
}

#[test]
fn a_ring_stops_once_nothing_is_under_way_and_goes_on_from_there() {
    for features in layouts() {
        let (mut front, mut back) = started(features, pattern(1, DISK_BYTES));
        let mut base = Vec::new();
        for round in 0..30 {
            front.request(0, IN, 0, Err(SECTOR));
            front.request(1, IN, 1, Err(SECTOR));
            front.publish();
            back.turn();
            // They are under way.
            front.send(GET_VRING_BASE, &super::rig::Front::state(0, 0), &[]);
            for _ in 0..10 {
                back.turn();
            }
            base = front.answer(GET_VRING_BASE).0;
            for _ in 0..2 {
                assert_eq!(front.take(SECTOR).expect("it has ended").1, STATUS_OK, "{round}");
            }
            let number = u32::from_le_bytes(base[4..].try_into().unwrap());
            // Another back end goes on.
            back = front.reconnect(back, number);
        }
        assert_eq!(base.len(), 8);
    }
}

#[test]
fn half_a_message_waits_for_the_other_half() {
    let (front, mut back) = connected(Features::VERSION_1, pattern(1, DISK_BYTES));
    let features = Features::VERSION_1.bits().to_le_bytes();
    let header = |request: u32, bytes: u32| Header {
        request: request.into(),
        flags: Header::VERSION.into(),
        bytes: bytes.into(),
    };
    let (first, second) = (header(SET_FEATURES, 8), header(GET_FEATURES, 0));
    for byte in [first.as_bytes(), &features, second.as_bytes()].concat() {
        front.send_raw(&[byte], &[]);
        back.turn();
    }
    assert_eq!(back.session.closed(), None);
    let offered = u64::from_le_bytes(front.answer(GET_FEATURES).0.try_into().unwrap());
    assert_eq!(offered & Features::PACKED.bits(), Features::PACKED.bits());
}

#[test]
fn memory_is_added_and_removed_region_by_region() {
    let (mut front, mut back) = started(Features::VERSION_1, pattern(1, DISK_BYTES));
    let protocol = front.number(&mut back, GET_PROTOCOL_FEATURES);
    let slots = ProtocolFeatures::CONFIGURE_MEM_SLOTS.bits();
    assert_eq!(protocol & slots, slots);
    assert_eq!(front.number(&mut back, GET_MAX_MEM_SLOTS), 32);
    // A region more and less, while requests are under way.
    let file = outboard_linux::SharedMemory::new("more", 8192).unwrap();
    let mut region = front.region();
    region.guest_address = (1 << 40).into();
    region.user_address = (1 << 40).into();
    region.bytes = 8192.into();
    let body = [&[0; 8], region.as_bytes()].concat();
    for _ in 0..3 {
        front.request(0, IN, 0, Err(SECTOR));
        front.publish();
        back.turn();
        use std::os::fd::AsFd;
        front.send(ADD_MEM_REG, &body, &[file.as_fd()]);
        front.send(REM_MEM_REG, &body, &[]);
        front.share_memory();
        back.run();
        assert_eq!(back.session.closed(), None);
        assert_eq!(front.take(SECTOR).unwrap().1, STATUS_OK);
    }
}
