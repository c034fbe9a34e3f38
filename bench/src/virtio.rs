//! What a read costs in a virtio disk's driver and its rings, at several depths: the driver alone,
//! beside a disk in this process whose work is not counted.
//!
//! Counted is all that happens between a call of `submit`, `kick` or `poll` and its return, with what it
//! calls in other crates and in the C library, but for the function that `poll` is given: what a caller
//! does to make a request, and to put away what comes back, is its own business.

use crate::Part;
use crate::peers::model::{ModelTransport, SECTOR};
use outboard_block::{BlockDriver, Refused, Request, Tag, UnitId, UnitState};
use outboard_hw::Instant;
use outboard_hw::dma::SgList;
use outboard_virtio::spec::blk::{BlkFeatures, SEG_MAX};
use outboard_virtio::spec::features::Features;
use outboard_virtio::{Blk, BlkConfig};

/// Sectors of 512 bytes in a read.
const READ_SECTORS: u64 = 8;
const READ_BYTES: usize = 4096;
/// The most segments of a request that the disk takes.
const SEGMENTS: u32 = 126;
/// Bytes of the disk.
const DISK_BYTES: usize = 1 << 20;
/// Sectors between a read and the next, so that each is somewhere else.
const STRIDE: u64 = 1016;

/// The cases: name, whether rings are packed, whether descriptors have tables, requests at a time,
/// and the most instructions that each may take.
const CASES: [(&str, bool, bool, usize, u64); 12] = [
    ("virtio: read, split, tables, 1 at a time", false, true, 1, 710),
    ("virtio: read, split, tables, 32 at a time", false, true, 32, 310),
    ("virtio: read, split, tables, 128 at a time", false, true, 128, 300),
    ("virtio: read, split, chains, 1 at a time", false, false, 1, 770),
    ("virtio: read, split, chains, 32 at a time", false, false, 32, 370),
    ("virtio: read, split, chains, 128 at a time", false, false, 128, 360),
    ("virtio: read, packed, tables, 1 at a time", true, true, 1, 705),
    ("virtio: read, packed, tables, 32 at a time", true, true, 32, 336),
    ("virtio: read, packed, tables, 128 at a time", true, true, 128, 327),
    ("virtio: read, packed, chains, 1 at a time", true, false, 1, 770),
    ("virtio: read, packed, chains, 32 at a time", true, false, 32, 400),
    ("virtio: read, packed, chains, 128 at a time", true, false, 128, 390),
];

/// Reads in both layouts, with and without tables of descriptors.
pub(crate) fn reads() -> impl Iterator<Item = Part> {
    CASES.into_iter().map(|(name, packed, indirect, depth, limit)| {
        let run = Box::new(move || {
            let mut bench = Bench::new(packed, indirect, depth);
            Box::new(move || bench.round()) as Box<dyn FnMut()>
        });
        Part { name, limit, times: depth as u64, is_marked: true, make: run }
    })
}

struct Bench {
    driver: Blk<ModelTransport>,
    device: ModelTransport,
    depth: usize,
    lba: u64,
    free: Vec<SgList>,
}

impl Bench {
    fn new(packed: bool, indirect: bool, depth: usize) -> Self {
        let mut features = Features::empty();
        features.set(Features::PACKED, packed);
        features.set(Features::INDIRECT, indirect);
        let features = features.bits() | BlkFeatures::SEG_MAX.bits();
        let device = ModelTransport::new(features, 1, vec![7; DISK_BYTES]);
        {
            let mut model = device.model();
            (model.polls, model.entries) = (true, 512);
            model.config[SEG_MAX..][..4].copy_from_slice(&SEGMENTS.to_le_bytes());
        }
        let config = BlkConfig { queue_entries: 512, ..BlkConfig::default() };
        let mut driver = Blk::new(device.clone(), config).expect("a driver");
        for _ in 0..2 {
            driver.poll(Instant::ORIGIN, &mut |_| {});
            device.model().serve();
        }
        driver.poll(Instant::ORIGIN, &mut |_| {});
        let state = driver.unit(UnitId(0)).map(|unit| unit.state);
        assert_eq!(state, Some(UnitState::Ready));
        driver.mask(true);
        let dma = driver.dma();
        let buffer = || dma.allocate(READ_BYTES, &driver.constraints()).expect("memory");
        let free = (0..depth).map(|_| SgList::single(buffer(), 0..READ_BYTES)).collect();
        Self { driver, device, depth, lba: 0, free }
    }

    /// As many reads as there are at a time.
    fn round(&mut self) {
        self.submit();
        self.device.model().serve();
        self.marked_reap();
        assert_eq!(self.free.len(), self.depth, "all came back");
    }

    fn submit(&mut self) {
        while let Some(data) = self.free.pop() {
            self.lba = (self.lba + STRIDE) % ((DISK_BYTES / SECTOR) as u64 - READ_SECTORS);
            let request = Request::read(self.lba, READ_SECTORS, data);
            if marked_submit(&mut self.driver, Tag(self.lba), request).is_err() {
                break;
            }
        }
        self.marked_kick();
    }

    #[inline(never)]
    fn marked_kick(&mut self) {
        self.driver.kick(Instant::ORIGIN);
    }

    #[inline(never)]
    fn marked_reap(&mut self) {
        let free = &mut self.free;
        self.driver.poll(Instant::ORIGIN, &mut |completion| {
            if completion.result.is_ok() {
                free.push(completion.data);
            }
        });
    }
}

#[inline(never)]
fn marked_submit(
    driver: &mut Blk<ModelTransport>,
    tag: Tag,
    request: Request,
) -> Result<(), Refused> {
    driver.submit(UnitId(0), tag, request)
}
