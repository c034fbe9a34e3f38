//! The small parts on the way of a read, each ready to be run over and over.
//!
//! `cargo bench` prints how long each takes; a test counts their instructions, which do not depend
//! on the machine's mood.
#![forbid(unsafe_code)]

mod frames;
pub mod nothing;
mod peers;
mod vhost;
mod virtio;
mod virtio_net;

use outboard_hw::dma::{Arena, Constraints, DmaPool, DmaSpace, SgList};
use outboard_linux::SharedMemory;
use outboard_ninep::wire::{Dialect, Frame, Reply, Request};
use std::hint::black_box;

/// A part, and what it needs.
pub struct Part {
    /// What it is called.
    pub name: &'static str,
    /// The most instructions that it may take: for the pool the goal, for the others a little more
    /// than they took when they were measured (`docs/PERFORMANCE.md`).
    pub limit: u64,
    /// How many times it does what it is about when it is run once.
    pub times: u64,
    /// Whether only functions whose names begin with `marked` are counted.
    pub is_marked: bool,
    /// Makes what runs it once.
    pub make: Box<dyn FnOnce() -> Box<dyn FnMut()>>,
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// The parts, ready to run.
pub fn parts() -> Vec<Part> {
    vec![
        whole("pool: allocate and free", 60, allocate_and_free),
        whole("list: segments of one buffer", 155, || segments(1)),
        whole("list: segments of 32 scattered buffers", 2400, || segments(32)),
        whole("codec: decode Tread", 160, decode_read),
        whole("codec: decode Twrite of 4 KiB", 165, decode_write),
        whole("codec: encode Rwrite", 95, encode_reply),
    ]
    .into_iter()
    .chain(virtio::reads())
    .chain(virtio_net::parts())
    .chain(vhost::parts())
    .collect()
}

/// A part that is counted as a whole.
fn whole(
    name: &'static str,
    limit: u64,
    make: impl FnOnce() -> Box<dyn FnMut()> + 'static,
) -> Part {
    Part { name, limit, times: 1, is_marked: false, make: Box::new(make) }
}

/// The part called `name`; the one called "nothing" is what it takes to call one.
pub fn part(name: &str) -> Option<Part> {
    let nothing = whole("nothing", 0, || Box::new(|| {}));
    parts().into_iter().chain([nothing]).find(|part| part.name == name)
}

fn arena() -> Arena {
    SharedMemory::for_model("bench", 1 << 20).expect("memory for a benchmark").1
}

fn allocate_and_free() -> Box<dyn FnMut()> {
    let pool = DmaPool::new(&arena(), 256, 32, &Constraints::NONE).expect("memory for a pool");
    Box::new(move || {
        if let Ok(block) = pool.allocate() {
            black_box(&block);
        }
    })
}

fn segments(buffers: usize) -> Box<dyn FnMut()> {
    let arena = arena();
    let limits = Constraints { max_segment_bytes: 4 << 20, ..Constraints::NONE.aligned(2) };
    let mut list = SgList::default();
    for _ in 0..buffers {
        let buffer = arena.allocate(8192, &Constraints::NONE).expect("memory for a list");
        // Halves, so that no two parts are neighbours.
        list.push(buffer, 0..4096);
    }
    Box::new(move || {
        for segment in black_box(&list).segments(&limits) {
            black_box(segment);
        }
    })
}

fn message(request: &Request<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    request.encode(7, &mut bytes, Dialect::Unix);
    bytes
}

fn decode(bytes: Vec<u8>) -> Box<dyn FnMut()> {
    Box::new(move || {
        let frame = Frame::split(black_box(&bytes), 1 << 20);
        if let Ok(Some(Frame { number, body, .. })) = frame {
            black_box(&Request::decode(number, body, Dialect::Unix));
        }
    })
}

fn decode_read() -> Box<dyn FnMut()> {
    decode(message(&Request::Read { fid: 3, offset: 8192, count: 4096 }))
}

fn decode_write() -> Box<dyn FnMut()> {
    decode(message(&Request::Write { fid: 3, offset: 8192, data: &[0; 4096] }))
}

fn encode_reply() -> Box<dyn FnMut()> {
    let mut bytes = Vec::with_capacity(64);
    Box::new(move || {
        bytes.clear();
        Reply::Write { count: black_box(4096) }.encode(7, &mut bytes, Dialect::Unix);
        black_box(&bytes);
    })
}
