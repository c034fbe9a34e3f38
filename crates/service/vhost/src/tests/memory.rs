//! Where things are in the client's memory.

use super::hostile::region;
use crate::chain::{Chain, Piece, read};
use crate::error::Violation;
use crate::memory::{Memory, Region, Span};
use outboard_linux::SharedMemory;
use outboard_virtio::spec::split::Descriptor;
use std::os::fd::AsFd;
use std::rc::Rc;
use zerocopy::IntoBytes;

const PAGE: u64 = 4096;
/// A region begins here which is no whole number of descriptors, and another one behind it.
const LOW: u64 = 0x10_000;
const LOW_BYTES: u64 = 100;
/// The last of all addresses but one.
const HIGH: u64 = u64::MAX - PAGE;

fn write(file: &SharedMemory, at: u64, bytes: &[u8]) {
    assert_eq!(rustix::io::pwrite(file.as_fd(), bytes, at).unwrap(), bytes.len());
}

fn memory() -> (SharedMemory, Memory) {
    let file = SharedMemory::new("client", 3 * PAGE as usize).unwrap();
    let mut memory = Memory::default();
    let regions = [
        region(HIGH, 0, PAGE, 0),
        region(LOW, 1 << 20, LOW_BYTES, PAGE),
        region(LOW + LOW_BYTES, 2 << 20, PAGE, 2 * PAGE),
    ];
    for what in regions {
        memory.add(Region::map(file.as_fd(), &what, &Rc::default()).unwrap()).unwrap();
    }
    (file, memory)
}

/// Bytes of all spans of a range, and how many there are.
fn found(memory: &Memory, guest: u64, bytes: u32) -> Result<(Vec<u8>, usize), Violation> {
    let (mut content, mut count) = (Vec::new(), 0);
    let mut add = |span: Span| {
        let start = content.len();
        content.resize(start + span.bytes as usize, 0);
        memory.read(span, &mut content[start..]);
        count += 1;
    };
    match memory.span(guest, bytes) {
        Some(span) => add(span),
        None => memory.spans(guest, bytes, &mut add)?,
    }
    Ok((content, count))
}

#[test]
fn what_lies_in_several_regions_is_found_in_spans_and_what_lies_in_none_is_not() {
    let (file, memory) = memory();
    write(&file, 0, &[1; 8]);
    write(&file, PAGE - 8, &[2; 8]);
    write(&file, PAGE, &[3; LOW_BYTES as usize]);
    write(&file, 2 * PAGE, &[4; 8]);
    // One after the other, and to and fro.
    for _ in 0..2 {
        assert_eq!(found(&memory, HIGH, 8), Ok((vec![1; 8], 1)));
        assert_eq!(found(&memory, LOW + LOW_BYTES - 8, 8), Ok((vec![3; 8], 1)));
        let both = [[3; 8], [4; 8]].concat();
        assert_eq!(found(&memory, LOW + LOW_BYTES - 8, 16), Ok((both, 2)));
        assert_eq!(found(&memory, LOW + LOW_BYTES, 8), Ok((vec![4; 8], 1)));
        assert_eq!(found(&memory, HIGH + PAGE - 8, 8), Ok((vec![2; 8], 1)));
        let end = LOW + LOW_BYTES + PAGE;
        let none = [
            (LOW - 1, 1),
            (LOW - 1, 2),
            (0, u32::MAX),
            (end - 1, 2),
            (end, 1),
            (HIGH + PAGE - 1, 2),
            (u64::MAX, 1),
            (HIGH, PAGE as u32 + 1),
        ];
        for (guest, bytes) in none {
            let outside = Violation::Outside(guest, bytes);
            assert_eq!(found(&memory, guest, bytes), Err(outside), "{guest:#x}+{bytes}");
        }
    }
}

#[test]
#[should_panic(expected = "5 of 4 bytes")]
fn nothing_behind_a_span_is_read() {
    let (_, memory) = memory();
    memory.read(memory.span(LOW, 4).unwrap(), &mut [0; 5]);
}

#[test]
fn a_table_is_followed_from_one_region_into_the_next() {
    let (file, memory) = memory();
    // The third of four descriptors lies in both.
    let start = LOW_BYTES - 2 * 16 - 9;
    let one = |index: u16| Descriptor {
        address: (HIGH + u64::from(index)).into(),
        bytes: 1.into(),
        flags: if index < 3 { Descriptor::NEXT } else { 0 }.into(),
        next: (index + 1).into(),
    };
    let table: Vec<u8> = (0..4).flat_map(|index| one(index).as_bytes().to_vec()).collect();
    let (before, after) = table.split_at((LOW_BYTES - start) as usize);
    write(&file, PAGE + start, before);
    write(&file, 2 * PAGE, after);
    write(&file, 0, b"abcd");
    // What is there already is another chain's.
    let mut pieces = Vec::new();
    let mut other = Chain::new(&memory, &mut pieces);
    assert_eq!(other.add((HIGH, 1, Descriptor::WRITE)), Ok(()));
    assert_eq!(other.add((HIGH, 1, 0)), Err(Violation::Malformed));
    let chain = Chain::new(&memory, &mut pieces);
    assert_eq!(chain.add_split_table(LOW + start, 64), Ok(()));
    let mut bytes = [0; 4];
    read(&memory, &pieces[1..], 0, &mut bytes);
    assert_eq!(&bytes, b"abcd");
    assert!(pieces[1..].iter().all(|Piece { writable, .. }| !writable));
}
