//! The disk's own configuration (§5.2.4).

use super::VirtioModel;
use crate::fault::VirtioFault;
use outboard_virtio::spec::blk::{
    BLK_SIZE, BlkFeatures, CAPACITY, MAX_DISCARD_SECTORS, MAX_SECURE_ERASE_SECTORS,
    MAX_WRITE_ZEROES_SECTORS, NUM_QUEUES, PHYSICAL_BLOCK_EXP, SEG_MAX, SIZE_MAX, WRITEBACK,
};

/// Bytes of the configuration.
pub(super) const SPACE_BYTES: usize = 72;

impl VirtioModel {
    /// Whether a fault that lasts has struck.
    pub(super) fn lasts(&self, fault: VirtioFault) -> bool {
        self.lasting.contains(&fault) || self.for_good.contains(&fault)
    }

    fn space(&self) -> [u8; SPACE_BYTES] {
        let mut space = [0; SPACE_BYTES];
        let mut put = |at: usize, value: &[u8]| space[at..at + value.len()].copy_from_slice(value);
        let config = &self.config;
        let block = match self.epoch % 3 {
            _ if !self.lasts(VirtioFault::BlockSizeNonsense) => config.sector_bytes,
            0 => 0,
            1 => 3,
            _ => 1 << 31,
        };
        let segments = if self.lasts(VirtioFault::SegmentsZero) { 0 } else { config.segments };
        let queues = match () {
            () if self.lasts(VirtioFault::QueuesZero) => 0,
            () if self.lasts(VirtioFault::QueuesMany) => u16::MAX,
            () => config.queues,
        };
        put(CAPACITY, &(self.sectors * self.factor()).to_le_bytes());
        put(SIZE_MAX, &config.segment_bytes.to_le_bytes());
        put(SEG_MAX, &segments.to_le_bytes());
        put(BLK_SIZE, &block.to_le_bytes());
        put(PHYSICAL_BLOCK_EXP, &[3]);
        put(WRITEBACK, &[self.write_cache.into()]);
        put(NUM_QUEUES, &queues.to_le_bytes());
        for most in [MAX_DISCARD_SECTORS, MAX_WRITE_ZEROES_SECTORS, MAX_SECURE_ERASE_SECTORS] {
            put(most, &config.discard_sectors.to_le_bytes());
        }
        space
    }

    pub(super) fn read_space(&self, offset: usize, bytes: usize) -> u64 {
        let mut value = [0; 8];
        if let Some(found) = self.space().get(offset..offset + bytes) {
            value[..bytes].copy_from_slice(found);
        }
        u64::from_le_bytes(value)
    }

    pub(super) fn write_space(&mut self, offset: usize, bytes: usize, value: u64) {
        let switches = self.agreed().bits() & BlkFeatures::CONFIG_WCE.bits() != 0;
        if (offset, bytes) != (WRITEBACK, 1) || !switches || value > 1 {
            return self.violation(format_args!("{value:#x} is written to the configuration"));
        }
        self.switch_cache(value != 0);
    }

    /// Switches the cache; what it holds does not stay there when it is off.
    pub(super) fn switch_cache(&mut self, on: bool) {
        self.write_cache = on;
        if !on && let Err(failure) = self.store.flush() {
            self.note(format_args!("sector {} cannot be written", failure.lba));
        }
    }

    /// Whether writes may stay in the cache (§5.2.6.2).
    pub(super) const fn caches(&self) -> bool {
        let agreed = self.agreed().bits();
        let flushes = agreed & BlkFeatures::FLUSH.bits() != 0;
        let switched = agreed & BlkFeatures::CONFIG_WCE.bits() != 0;
        if switched { self.write_cache && flushes } else { flushes }
    }
}
