//! What kind of virtio disk it is.

use core::time::Duration;
use outboard_virtio::spec::blk::BlkFeatures;
use outboard_virtio::spec::features::Features;

/// The features of disks that the model knows.
const KNOWN: BlkFeatures =
    BlkFeatures::all().difference(BlkFeatures::READ_ONLY.union(BlkFeatures::LIFETIME));

/// Which registers a virtio disk has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VirtioFace {
    /// Those of virtio 1.0.
    Modern,
    /// Those, and the ones from before.
    Transitional,
    /// Only those from before.
    Legacy,
}

/// What a virtio disk is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtioConfig {
    /// Which registers it has.
    pub face: VirtioFace,
    /// The features that it offers.
    pub features: u64,
    /// How many queues it has.
    pub queues: u16,
    /// The most entries of each.
    pub queue_entries: u16,
    /// How many vectors it has; 0 for the pin.
    pub vectors: u16,
    /// Logical sectors.
    pub sectors: u64,
    /// What is left of these if it shrinks.
    pub least_sectors: u64,
    /// Bytes of a logical sector: 512 or 4096.
    pub sector_bytes: u32,
    /// The most segments of a request.
    pub segments: u32,
    /// The most bytes of a segment.
    pub segment_bytes: u32,
    /// The most sectors of 512 bytes in a discard, a write of zeros or a secure erasure.
    pub discard_sectors: u32,
    /// Serial number, up to 20 characters.
    pub serial: String,
    /// Sectors that the write cache has room for.
    pub cache_sectors: usize,
    /// How long a request takes at most, where nothing goes wrong.
    pub request_time: Duration,
    /// How long a reset takes.
    pub reset_time: Duration,
}

impl VirtioConfig {
    /// A disk that can do all that there is, with so many logical sectors of 512 bytes.
    pub fn new(sectors: u64) -> Self {
        let ring = Features::INDIRECT | Features::EVENT_INDEX | Features::VERSION_1;
        Self {
            face: VirtioFace::Modern,
            features: ring.bits() | KNOWN.bits(),
            queues: 1,
            queue_entries: 128,
            vectors: 2,
            sectors,
            least_sectors: sectors,
            sector_bytes: 512,
            segments: 126,
            segment_bytes: 1 << 20,
            discard_sectors: 1 << 16,
            serial: "OBVIRTIO1".into(),
            cache_sectors: 4096,
            request_time: Duration::from_micros(100),
            reset_time: Duration::from_micros(50),
        }
    }
}
