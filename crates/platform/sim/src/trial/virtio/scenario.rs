//! What a seed stands for: a virtio disk, work, and faults.

use crate::Random;
use crate::fault::{Cost, VirtioFault};
use crate::virtio::{VirtioConfig, VirtioFace};
use core::time::Duration;
use outboard_virtio::BlkConfig;
use outboard_virtio::spec::blk::BlkFeatures;
use outboard_virtio::spec::features::Features;

/// A fault that is going to strike.
#[derive(Debug, Clone, Copy)]
pub(super) struct Planned {
    pub(super) at: Duration,
    pub(super) fault: VirtioFault,
}

/// What a trial is made of.
#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) disk: VirtioConfig,
    pub(super) driver: BlkConfig,
    /// The sectors that are used: from here, so many.
    pub(super) base: u64,
    pub(super) used: usize,
    pub(super) requests: u32,
    pub(super) faults: Vec<Planned>,
}

/// What keeps faults rare that end most of a trial's work.
const CONTROLLER_ONCE_IN: u64 = 40;
/// Likewise those that end the disk's.
const DISK_ONCE_IN: u64 = 3;

/// What a device is like from the start, or never.
const OF_START: [VirtioFault; 6] = [
    VirtioFault::CapabilityLoop,
    VirtioFault::CapabilityNoBar,
    VirtioFault::CapabilityEmpty,
    VirtioFault::CapabilityBeyond,
    VirtioFault::CapabilityUnaligned,
    VirtioFault::SerialUnterminated,
];

impl Scenario {
    /// Draws one. `only` restricts the faults.
    pub(super) fn draw(random: &mut Random, only: &[VirtioFault]) -> Self {
        let sectors: u64 = *random.pick(&[600, 70_000, 1 << 27, 1 << 33, (1 << 48) - 1]);
        let used = random.between(8, 256);
        let base = random.below(sectors - used + 1);
        let requests = random.between(20, 160) as u32;
        let mut disk = Self::draw_disk(sectors, random);
        disk.least_sectors = base + used;
        let driver = BlkConfig {
            queues: *random.pick(&[8, 8, 4, 2, 1]),
            segments: *random.pick(&[126, 126, 24, 3, 1]),
            // The model does it as it should be done.
            without: *random.pick(&[Features::empty(), Features::RING_RESET]),
            ..BlkConfig::default()
        };
        let faults = Self::draw_faults(random, only);
        Self { disk, driver, base, used: used as usize, requests, faults }
    }

    fn draw_disk(sectors: u64, random: &mut Random) -> VirtioConfig {
        let mut disk = VirtioConfig::new(sectors);
        for (feature, times) in [
            (Features::INDIRECT.bits(), 3),
            (Features::EVENT_INDEX.bits(), 3),
            (BlkFeatures::FLUSH.bits(), 6),
            (BlkFeatures::CONFIG_WCE.bits(), 3),
            (BlkFeatures::DISCARD.bits(), 4),
            (BlkFeatures::WRITE_ZEROES.bits(), 3),
            (BlkFeatures::SECURE_ERASE.bits(), 3),
            (BlkFeatures::SEG_MAX.bits(), 6),
            (BlkFeatures::SIZE_MAX.bits(), 3),
            (BlkFeatures::TOPOLOGY.bits(), 3),
            (BlkFeatures::MULTI_QUEUE.bits(), 3),
        ] {
            if random.once_in(times) {
                disk.features &= !feature;
            }
        }
        for feature in [
            Features::PACKED,
            Features::ACCESS_PLATFORM,
            Features::ORDER_PLATFORM,
            Features::IN_ORDER,
            Features::NOTIFICATION_DATA,
            Features::NOTIF_CONFIG_DATA,
            Features::RING_RESET,
        ] {
            if random.once_in(2) {
                disk.features |= feature.bits();
            }
        }
        if random.once_in(6) {
            disk.sector_bytes = 4096;
            disk.features |= BlkFeatures::BLK_SIZE.bits();
        } else if random.once_in(4) {
            disk.features &= !BlkFeatures::BLK_SIZE.bits();
        }
        disk.face = *random.pick(&[
            VirtioFace::Modern,
            VirtioFace::Modern,
            VirtioFace::Modern,
            VirtioFace::Transitional,
            VirtioFace::Legacy,
        ]);
        disk.queues = *random.pick(&[1, 1, 2, 4, 16]);
        disk.queue_entries = *random.pick(&[256, 128, 64, 16, 8, 4]);
        disk.vectors = *random.pick(&[0, 1, 2, 3, 17]);
        disk.segments = *random.pick(&[126, 126, 30, 3, 1]);
        disk.segment_bytes = *random.pick(&[1 << 20, 1 << 16, 4096]);
        disk.cache_sectors = *random.pick(&[4096, 64, 8]);
        disk.request_time = Duration::from_micros(*random.pick(&[20, 100, 2_000]));
        disk.reset_time = Duration::from_micros(*random.pick(&[0, 50, 3_000]));
        disk.serial = "TRIAL0".into();
        disk
    }

    fn draw_faults(random: &mut Random, only: &[VirtioFault]) -> Vec<Planned> {
        let count = match random.below(8) {
            0 => random.between(0, 2),
            1..6 => random.between(3, 24),
            _ => random.between(25, 80),
        };
        // Few kinds, so that they meet themselves; or any.
        let kinds: Vec<VirtioFault> = match random.below(3) {
            _ if !only.is_empty() => only.to_vec(),
            0 => (0..4).map(|_| *random.pick(VirtioFault::ALL)).collect(),
            _ => VirtioFault::ALL.to_vec(),
        };
        let mut faults = Vec::new();
        for _ in 0..count {
            let fault = *random.pick(&kinds);
            let skipped = match fault.cost() {
                Cost::Controller => !random.once_in(CONTROLLER_ONCE_IN),
                Cost::Disk => !random.once_in(DISK_ONCE_IN),
                _ => false,
            };
            if skipped && only.is_empty() {
                continue;
            }
            // While it works, or later, when it may be recovering.
            let at = match random.below(4) {
                _ if OF_START.contains(&fault) => Duration::ZERO,
                0 => Duration::from_micros(random.below(2_000)),
                1 | 2 => Duration::from_micros(random.below(60_000)),
                _ => Duration::from_millis(random.below(40_000)),
            };
            let again = faults.iter().any(|planned: &Planned| planned.fault == fault);
            if !(again && OF_START.contains(&fault)) {
                faults.push(Planned { at, fault });
            }
        }
        faults
    }
}
