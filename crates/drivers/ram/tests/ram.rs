//! A disk made of memory, as those who use disks see it.

use outboard_block::{
    BlockDriver, Completion, Durability, Operation, RefusedReason, Request, Room, Tag, UnitId,
    UnitState,
};
use outboard_hw::Instant;
use outboard_hw::dma::{Arena, Constraints, DmaSpace, SgList};
use outboard_linux::SharedMemory;
use outboard_ram::{Ram, SECTOR_BYTES};
use std::sync::Arc;

const SECTORS: u64 = 64;
const UNIT: UnitId = UnitId(0);

fn disk() -> (Ram, Arena) {
    let (_, arena) = SharedMemory::for_model("test", 1 << 20).unwrap();
    let content = SharedMemory::new("test", SECTORS as usize * SECTOR_BYTES).unwrap();
    (Ram::new(content.into_buffer(), Arc::new(arena.clone()), "0123456789abcdefghijKLM"), arena)
}

/// Memory of so many bytes, in two parts.
fn memory(arena: &Arena, bytes: &[u8]) -> SgList {
    let mut list = SgList::EMPTY;
    let (first, second) = bytes.split_at(bytes.len() / 3);
    for part in [first, second] {
        let mut buffer = arena.allocate(part.len() + 10, &Constraints::NONE).unwrap();
        buffer.write_bytes(5, part);
        list.push(buffer, 5..5 + part.len());
    }
    list
}

/// Has a request carried out.
fn run(disk: &mut Ram, request: Request) -> Completion {
    disk.submit(UNIT, Tag(7), request).unwrap();
    assert_eq!(disk.next_deadline(), Some(Instant::ORIGIN));
    let mut ended = None;
    disk.poll(Instant::ORIGIN, &mut |completion| ended = Some(completion));
    assert_eq!(disk.next_deadline(), None);
    let ended = ended.expect("it has ended");
    assert_eq!((ended.unit, ended.tag, ended.result), (UNIT, Tag(7), Ok(())));
    ended
}

fn read(disk: &mut Ram, arena: &Arena, lba: u64, sectors: u64) -> Vec<u8> {
    let mut bytes = vec![0xee; sectors as usize * SECTOR_BYTES];
    let ended = run(disk, Request::read(lba, sectors, memory(arena, &bytes)));
    ended.data.read_bytes(&mut bytes);
    bytes
}

#[test]
fn what_was_written_is_read_and_all_else_is_zeros() {
    let (mut disk, arena) = disk();
    let data: Vec<u8> = (0..3 * SECTOR_BYTES).map(|at| (at % 251) as u8 + 1).collect();
    let written = Request::write(4, 3, memory(&arena, &data), Durability::Durable);
    run(&mut disk, written);
    run(&mut disk, Request::flush());
    let whole = read(&mut disk, &arena, 0, SECTORS);
    let range = 4 * SECTOR_BYTES..7 * SECTOR_BYTES;
    assert!(whole[range.clone()] == data);
    assert!(whole[..range.start].iter().chain(&whole[range.end..]).all(|byte| *byte == 0));
    run(&mut disk, Request::clear(Operation::WriteZeroes(Room::Keep), 5, 1));
    let after = read(&mut disk, &arena, 4, 3);
    assert!(after[..SECTOR_BYTES] == data[..SECTOR_BYTES]);
    assert!(after[SECTOR_BYTES..2 * SECTOR_BYTES].iter().all(|byte| *byte == 0));
    assert!(after[2 * SECTOR_BYTES..] == data[2 * SECTOR_BYTES..]);
}

#[test]
fn what_does_not_lie_on_it_is_refused() {
    let (mut disk, arena) = disk();
    let one = [0; SECTOR_BYTES];
    let outside = RefusedReason::OutOfRange { sectors: SECTORS };
    for (lba, sectors, bytes, reason) in [
        (SECTORS, 1, &one[..], outside),
        (u64::MAX, 1, &one, outside),
        (0, 0, &[], outside),
        (0, 2, &one, RefusedReason::BadMemory),
        (0, 1 << 40, &one, RefusedReason::TooLong),
    ] {
        let refused = disk.submit(UNIT, Tag(1), Request::read(lba, sectors, memory(&arena, bytes)));
        assert_eq!(refused.unwrap_err().reason, reason, "{sectors} from {lba}");
    }
    let discard = disk.submit(UNIT, Tag(1), Request::discard(0, 1));
    assert_eq!(discard.unwrap_err().reason, RefusedReason::Unsupported);
    assert!(disk.submit(UnitId(1), Tag(1), Request::flush()).is_err());
}

#[test]
fn it_says_what_it_is_and_comes_to_rest() {
    let (mut disk, _) = disk();
    let unit = disk.unit(UNIT).unwrap();
    assert_eq!((unit.state, unit.geometry.sectors), (UnitState::Ready, SECTORS));
    assert_eq!(unit.identity.serial, "0123456789abcdefghij");
    disk.submit(UNIT, Tag(1), Request::flush()).unwrap();
    disk.stop();
    assert!(!disk.is_stopped());
    assert!(disk.submit(UNIT, Tag(2), Request::flush()).is_err());
    disk.poll(Instant::ORIGIN, &mut |ended| assert_eq!(ended.tag, Tag(1)));
    assert!(disk.is_stopped());
}
