//! The device's features and configuration (§5.2.3, §5.2.4).

use crate::queue::MAX_QUEUES;
use crate::ring::FEATURES;
use outboard_block::Geometry;
use outboard_virtio::spec::blk::{
    BLK_SIZE, BlkFeatures, CAPACITY, DISCARD_SECTOR_ALIGNMENT, MAX_DISCARD_SECTORS,
    MAX_DISCARD_SEGMENTS, MAX_WRITE_ZEROES_SECTORS, MAX_WRITE_ZEROES_SEGMENTS, NUM_QUEUES,
    PHYSICAL_BLOCK_EXP, SECTOR_BYTES, SEG_MAX, WRITE_ZEROES_MAY_UNMAP, WRITEBACK,
};
use outboard_virtio::spec::vhost_user::{MAX_CONFIG_BYTES, PROTOCOL_FEATURES, ProtocolFeatures};

/// The most segments of a request: with header and status, what fits into a ring of 128.
const MAX_SEGMENTS: u32 = 126;
/// The most sectors, of 512 bytes, that are discarded at once: 2 GiB, which takes a disk moments.
pub(crate) const MAX_DISCARD: u32 = 1 << 22;
/// The most sectors that zeros are written to at once: 8 MiB, since many disks take them as data.
pub(crate) const MAX_ZEROES: u32 = 1 << 14;

/// What the connection can do.
pub(crate) const PROTOCOL: ProtocolFeatures = ProtocolFeatures::MQ
    .union(ProtocolFeatures::REPLY_ACK)
    .union(ProtocolFeatures::BACKEND_REQ)
    .union(ProtocolFeatures::CONFIG)
    .union(ProtocolFeatures::INFLIGHT_SHMFD)
    .union(ProtocolFeatures::CONFIGURE_MEM_SLOTS);

/// Bytes of the parts of a disk that discards keep to, in sectors of 512 bytes.
const fn alignment(geometry: &Geometry) -> u32 {
    let sectors = geometry.sector_bytes / SECTOR_BYTES;
    if sectors == 0 { 1 } else { sectors }
}

/// The features of such a disk.
pub(crate) fn features(geometry: &Geometry) -> u64 {
    let mut features = BlkFeatures::SEG_MAX
        | BlkFeatures::BLK_SIZE
        | BlkFeatures::FLUSH
        | BlkFeatures::TOPOLOGY
        | BlkFeatures::CONFIG_WCE
        | BlkFeatures::MULTI_QUEUE;
    features.set(BlkFeatures::READ_ONLY, geometry.read_only);
    features.set(BlkFeatures::WRITE_ZEROES, !geometry.read_only);
    features.set(BlkFeatures::DISCARD, !geometry.read_only && geometry.max_discard_sectors > 0);
    features.bits() | FEATURES.bits() | PROTOCOL_FEATURES
}

/// The capacity, in sectors of 512 bytes.
pub(crate) const fn capacity(geometry: &Geometry) -> u64 {
    geometry.bytes() / SECTOR_BYTES as u64
}

/// The configuration of such a disk; what lies behind it is zeros.
pub(crate) fn config(geometry: &Geometry, write_cache: bool) -> [u8; MAX_CONFIG_BYTES] {
    let mut config = [0; MAX_CONFIG_BYTES];
    let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
    let sector = geometry.sector_bytes.max(SECTOR_BYTES);
    let discard = geometry.max_discard_sectors.saturating_mul(u64::from(alignment(geometry)));
    let discard = discard.min(MAX_DISCARD.into()) as u32;
    put(CAPACITY, &capacity(geometry).to_le_bytes());
    put(SEG_MAX, &MAX_SEGMENTS.to_le_bytes());
    put(BLK_SIZE, &sector.to_le_bytes());
    put(PHYSICAL_BLOCK_EXP, &[(geometry.physical_sector_bytes / sector).max(1).ilog2() as u8]);
    put(WRITEBACK, &[u8::from(write_cache)]);
    put(NUM_QUEUES, &(MAX_QUEUES as u16).to_le_bytes());
    put(MAX_DISCARD_SECTORS, &discard.to_le_bytes());
    put(MAX_DISCARD_SEGMENTS, &1u32.to_le_bytes());
    put(DISCARD_SECTOR_ALIGNMENT, &alignment(geometry).to_le_bytes());
    put(MAX_WRITE_ZEROES_SECTORS, &MAX_ZEROES.to_le_bytes());
    put(MAX_WRITE_ZEROES_SEGMENTS, &1u32.to_le_bytes());
    put(WRITE_ZEROES_MAY_UNMAP, &[u8::from(geometry.max_zero_sectors > 0)]);
    config
}
