//! Resets (§2.4), and what is different afterwards.

use super::registers::Common;
use super::ring::Place;
use super::{Event, Queue, QueueReset, VirtioModel, empty_store};
use crate::fault::VirtioFault;
use core::time::Duration;
use outboard_virtio::spec::blk::BlkFeatures;
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::pci::NO_VECTOR;
use outboard_virtio::spec::status::Status;

/// What a device can lose, and cannot do without if it was agreed upon.
const WITHDRAWN: [u64; 9] = [
    Features::INDIRECT.bits(),
    Features::EVENT_INDEX.bits(),
    Features::PACKED.bits(),
    Features::IN_ORDER.bits(),
    Features::NOTIFICATION_DATA.bits(),
    Features::RING_RESET.bits(),
    BlkFeatures::FLUSH.bits(),
    BlkFeatures::MULTI_QUEUE.bits(),
    BlkFeatures::SEG_MAX.bits(),
];

impl VirtioModel {
    /// Forgets all that a reset takes away.
    pub(super) fn forget(&mut self) {
        let generation = self.common.generation;
        self.common = Common::default();
        self.common.generation = generation;
        self.queues = (0..self.config.queues).map(|_| self.new_queue()).collect();
        self.jobs.clear();
        self.lasting.clear();
        self.messages.clear();
        self.isr = 0;
        (self.stuck, self.lost) = (false, false);
        (self.resetting, self.reset_unheard, self.asked_since) = (false, false, None);
        self.write_cache = true;
    }

    /// A queue that nobody has set up.
    fn new_queue(&self) -> Queue {
        let place = Place { entries: self.config.queue_entries, ..Place::default() };
        Queue { place, most_told: place.entries, vector: NO_VECTOR, ..Queue::default() }
    }

    /// The driver has written to a queue's reset register.
    pub(super) fn begin_queue_reset(&mut self, number: u16, value: u64) {
        let agreed = self.agreed().contains(Features::RING_RESET);
        let works = self.works();
        let queue = self.queues.get_mut(usize::from(number));
        let Some(queue) = queue.filter(|queue| agreed && works && queue.is_on() && value == 1)
        else {
            if !self.lost {
                self.violation(format_args!("queue {number} is reset by {value}, on or not"));
            }
            return;
        };
        queue.reset = QueueReset::UnderWay;
        queue.before = queue.side.take();
        self.note(format_args!("queue {number} is reset"));
        let faults = [VirtioFault::QueueResetSlow, VirtioFault::QueueResetNever];
        let takes = match self.strike(&faults) {
            Some(VirtioFault::QueueResetNever) => return,
            Some(_) => Duration::from_secs(self.random.between(1, 9)),
            None => self.config.reset_time,
        };
        let epoch = self.epoch;
        self.after(takes, Event::QueueResetEnds { queue: number, epoch });
    }

    /// The queue has forgotten all, and what it had.
    pub(super) fn queue_reset_ends(&mut self, number: u16) {
        self.jobs.retain(|job| job.queue != number);
        let keeps = self.strike(&[VirtioFault::QueueResetKeeps]).is_some();
        let fresh = self.new_queue();
        let Some(queue) = self.queues.get_mut(usize::from(number)) else { return };
        let before = queue.before.take().filter(|_| keeps);
        let most_told = queue.most_told;
        *queue = Queue { reset: QueueReset::Done, before, most_told, ..fresh };
        self.note(format_args!("queue {number} is at rest"));
        self.toll.reset_queue();
    }

    /// The driver has written zero to the status.
    pub(super) fn begin_reset(&mut self) {
        self.epoch += 1;
        let epoch = self.epoch;
        self.note(format_args!("reset"));
        self.toll.reset();
        if self.common.status.is_empty() {
            return self.reset_ends();
        }
        self.resetting = true;
        let slow = self.strike(&[VirtioFault::ResetSlow]).is_some();
        let works = !self.jobs.is_empty()
            && !slow
            && self.strike(&[VirtioFault::WorksDuringReset]).is_some();
        let takes = match self.reset_takes {
            None => return,
            Some(_) if slow => Duration::from_secs(self.random.between(1, 9)),
            Some(_) if works => {
                self.after(Duration::from_millis(3), Event::Stray { epoch });
                Duration::from_millis(5)
            }
            Some(takes) => takes,
        };
        if takes.is_zero() {
            return self.reset_ends();
        }
        self.after(takes, Event::ResetEnds { epoch });
    }

    pub(super) fn reset_ends(&mut self) {
        self.forget();
        while let Some(fault) = self.strike(&Self::AT_RESET) {
            self.change(fault);
        }
    }

    /// What strikes when a reset is done.
    pub(super) const AT_RESET: [VirtioFault; 6] = [
        VirtioFault::FeatureWithdrawn,
        VirtioFault::FeaturesAdded,
        VirtioFault::VersionMissing,
        VirtioFault::QueuesShrink,
        VirtioFault::ReadOnlyAppears,
        VirtioFault::OtherDisk,
    ];

    fn change(&mut self, fault: VirtioFault) {
        match fault {
            VirtioFault::FeatureWithdrawn => {
                let there = WITHDRAWN.iter().filter(|bit| self.offered & **bit != 0);
                let there: Vec<u64> = there.copied().collect();
                if !there.is_empty() {
                    self.offered &= !self.random.pick(&there);
                }
            }
            VirtioFault::FeaturesAdded => {
                let ring = Features::INDIRECT | Features::EVENT_INDEX | Features::PACKED;
                self.offered |= ring.bits() | BlkFeatures::FLUSH.bits();
            }
            VirtioFault::VersionMissing => self.offered &= !Features::VERSION_1.bits(),
            VirtioFault::QueuesShrink => {
                self.config.queue_entries = (self.config.queue_entries / 2).max(1);
                self.forget();
            }
            VirtioFault::ReadOnlyAppears => self.offered |= BlkFeatures::READ_ONLY.bits(),
            // Only once: it has one name beside its own.
            _ if self.serial.starts_with("OTHER") => {}
            _ => {
                self.serial = self.serial.replace("TRIAL", "OTHER");
                self.store = empty_store(&self.config);
            }
        }
    }

    /// Everything that the device was told is forgotten, and the driver does not know.
    pub(super) fn lose_itself(&mut self) {
        self.epoch += 1;
        self.forget();
        self.lost = true;
    }

    /// Whether the driver has set the device up, and it was not lost since.
    pub(super) const fn works(&self) -> bool {
        self.common.status.contains(Status::DRIVER_OK) && !self.resetting && !self.removed
    }
}
