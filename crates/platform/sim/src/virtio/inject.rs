//! Where faults strike.

use super::serve::Job;
use super::{Event, Quirk, VirtioModel};
use crate::disk::Defect;
use crate::fault::{Struck, VirtioFault};
use core::time::Duration;
use outboard_hw::Instant;
use outboard_virtio::spec::blk::{
    BlkFeatures, DISCARD, FLUSH, GET_ID, IN, OUT, SECURE_ERASE, WRITE_ZEROES,
};
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::status::Status;

/// A disk does not grow beyond this.
const MOST_SECTORS: u64 = 1 << 50;
/// Faults that wait at once.
const MOST_ARMED: usize = 64;
/// Of these, so many of one kind.
const MOST_ALIKE: usize = 2;

impl VirtioModel {
    /// Lets a fault strike at some time.
    pub fn schedule_fault(&mut self, at: Instant, fault: VirtioFault) {
        self.schedule.add(at, Event::Strike { fault });
    }

    /// Lets a fault strike now, or when the next occasion for it comes.
    pub fn inject(&mut self, fault: VirtioFault) {
        if self.removed || self.strike_at_once(fault) {
            return;
        }
        // Two in a row are met by setting the device up twice more; a driver gives up one that
        // cannot be set up again and again.
        let alike = self.armed.iter().filter(|armed| **armed == fault).count();
        if self.armed.len() < MOST_ARMED && alike < MOST_ALIKE {
            self.armed.push(fault);
        }
    }

    fn struck(&mut self, fault: VirtioFault, lba: Option<u64>) {
        self.counts.add(fault);
        self.toll.strike(fault);
        self.note(format_args!("FAULT {fault}"));
        self.struck.push(Struck { at: self.now, port: 0, behind: None, fault, lba });
    }

    /// Takes one of these faults, if one is armed.
    pub(super) fn strike(&mut self, wanted: &[VirtioFault]) -> Option<VirtioFault> {
        if self.removed {
            return None;
        }
        let at = self.armed.iter().position(|fault| wanted.contains(fault))?;
        let fault = self.armed.remove(at);
        self.struck(fault, None);
        Some(fault)
    }

    /// Faults that need no occasion; whether this is one.
    fn strike_at_once(&mut self, fault: VirtioFault) -> bool {
        // Of a device that does nothing yet they say nothing, or cannot be told from a reset.
        let nothing = needs_work(fault) && !self.works();
        let struck = !nothing
            && (self.strike_rings(fault)
                || self.strike_telling(fault)
                || self.strike_state(fault)
                || self.strike_config(fault));
        if struck {
            self.struck(fault, None);
        }
        struck || nothing
    }

    /// What it says in its rings.
    fn strike_rings(&mut self, fault: VirtioFault) -> bool {
        let quirk = match fault {
            VirtioFault::NotifyNever => Quirk::Never,
            VirtioFault::NotifyAlways => Quirk::Always,
            VirtioFault::EventStuck => Quirk::Stuck,
            VirtioFault::EventGarbage => Quirk::Garbage,
            VirtioFault::QueueDead => Quirk::Dead,
            VirtioFault::DescriptorsRewritten => return self.spoil_descriptors(),
            VirtioFault::HeaderRewritten => return self.spoil_header(),
            VirtioFault::AvailableRewritten => {
                let number = self.random.below(self.queues.len() as u64) as usize;
                let Some(side) = &self.queues[number].side else { return false };
                return side.spoil_driver_area(&self.memory).is_ok();
            }
            _ => return false,
        };
        let number = self.random.below(self.queues.len() as u64) as usize;
        self.queues[number].quirk = Some(quirk);
        true
    }

    fn spoil_descriptors(&mut self) -> bool {
        let memory = &self.memory;
        let Some(job) = self.jobs.first_mut() else { return false };
        let spoilt = job.chain.spoil(memory);
        if let Err(wrong) = spoilt {
            self.violation(format_args!("{wrong}"));
        }
        true
    }

    fn spoil_header(&mut self) -> bool {
        let header = self.jobs.first().and_then(|job| job.chain.readable.first().copied());
        let Some(piece) = header else { return false };
        self.memory.write(piece.address, &[0x55; 16]).is_ok()
    }

    /// Interrupts that nobody asked for, or none.
    fn strike_telling(&mut self, fault: VirtioFault) -> bool {
        let vector = self.random.below(u64::from(self.config.vectors.max(1))) as u16;
        match fault {
            VirtioFault::InterruptSpurious => self.signal(vector),
            VirtioFault::InterruptStorm => {
                for number in 0..self.random.between(50, 300) {
                    self.after(Duration::from_micros(number * 5), Event::Message { vector });
                }
            }
            VirtioFault::InterruptsStop => self.silent_until = self.now + Duration::from_secs(1),
            VirtioFault::ConfigSpurious => self.tell_of_config(),
            VirtioFault::ConfigStorm => {
                for number in 0..self.random.between(50, 300) {
                    self.after(Duration::from_micros(number * 7), Event::ConfigChanged);
                }
            }
            _ => return false,
        }
        true
    }

    /// The device's state.
    fn strike_state(&mut self, fault: VirtioFault) -> bool {
        match fault {
            VirtioFault::Stuck => self.stuck = true,
            VirtioFault::NeedsReset
            | VirtioFault::NeedsResetSilent
            | VirtioFault::NeedsResetAgain => {
                if fault == VirtioFault::NeedsResetAgain {
                    self.needs_again = 2;
                }
                self.common.status |= Status::NEEDS_RESET;
                self.stuck = true;
                if fault != VirtioFault::NeedsResetSilent {
                    self.tell_of_config();
                }
            }
            VirtioFault::FailedSet => self.common.status |= Status::FAILED,
            VirtioFault::ResetNever => self.reset_takes = None,
            VirtioFault::ResetsItself => self.lose_itself(),
            VirtioFault::PowerCut => {
                for job in core::mem::take(&mut self.jobs) {
                    if job.kind == OUT && self.random.once_in(2) {
                        // It was about to be done; nobody hears of it.
                        let _ = self.carry_out(&job);
                    }
                }
                // In the middle of a reset of its own a driver cannot tell a loss of power from the
                // reset's effect, and no device says.
                if self.works() && !self.reset_unheard {
                    self.store.lose_power(&mut self.random);
                }
                self.lose_itself();
            }
            VirtioFault::Removed => self.removed = true,
            _ => return false,
        }
        true
    }

    /// What the device says of itself.
    fn strike_config(&mut self, fault: VirtioFault) -> bool {
        match fault {
            VirtioFault::FeaturesRefusedForGood | VirtioFault::ConfigRestlessForGood => {
                self.for_good.push(fault);
            }
            // While it works, or when it is set up.
            _ if SET_UP.contains(&fault) && self.works() && self.random.once_in(2) => {
                self.lasting.push(fault);
                self.config_changed();
            }
            VirtioFault::CapacityGrows | VirtioFault::GenerationStale => {
                let grown = self.config.sectors + self.random.between(1, 1000);
                self.config.sectors = grown.min(MOST_SECTORS);
                self.sectors = self.config.sectors;
                match fault {
                    VirtioFault::CapacityGrows => self.config_changed(),
                    _ => self.tell_of_config(),
                }
            }
            VirtioFault::CapacityShrinks => {
                self.sectors = self.config.least_sectors;
                self.config.sectors = self.sectors;
                self.config_changed();
            }
            VirtioFault::CapacityZero => {
                self.sectors = 0;
                self.config_changed();
                let back = Duration::from_millis(self.random.between(1, 5_000));
                self.after(back, Event::CapacityBack);
            }
            VirtioFault::CacheToggled => {
                let agreed = self.agreed().bits();
                let both = BlkFeatures::CONFIG_WCE.union(BlkFeatures::FLUSH).bits();
                if agreed & both != both {
                    return false;
                }
                self.switch_cache(!self.write_cache);
                self.config_changed();
            }
            VirtioFault::SerialUnterminated => {
                while self.serial.len() < 20 {
                    self.serial.push('X');
                }
            }
            VirtioFault::CapabilityLoop
            | VirtioFault::CapabilityNoBar
            | VirtioFault::CapabilityEmpty
            | VirtioFault::CapabilityBeyond
            | VirtioFault::CapabilityUnaligned => self.for_good.push(fault),
            _ => return false,
        }
        true
    }

    /// The fault that a request is drawn for when the device takes it.
    pub(super) fn draw_for(&mut self, job: &Job) -> Option<VirtioFault> {
        let packed = self.agreed().contains(Features::PACKED);
        let tables = self.agreed().contains(Features::INDIRECT);
        let in_order = self.agreed().contains(Features::IN_ORDER);
        let others = self.jobs.iter().any(|other| other.queue == job.queue);
        let mine = job.kind != GET_ID;
        let suits = |fault: &VirtioFault| match fault {
            VirtioFault::SerialFails | VirtioFault::SerialNeverEnds => !mine,
            VirtioFault::UsedIndexByRing
            | VirtioFault::UsedIndexAhead
            | VirtioFault::UsedIndexBack
            | VirtioFault::UsedEntryLate => !packed,
            VirtioFault::WrapWrong | VirtioFault::FlagsHalf => packed,
            VirtioFault::UsedIdMiddle => !packed && !tables && mine,
            // In order, that is what `OutOfOrder` is.
            VirtioFault::UsedIdOther => others && !in_order,
            VirtioFault::FlushFails => job.kind == FLUSH,
            VirtioFault::DiscardFails => job.kind == DISCARD,
            VirtioFault::ZeroesFail => job.kind == WRITE_ZEROES,
            VirtioFault::EraseFails => job.kind == SECURE_ERASE,
            VirtioFault::OutOfOrder => in_order && others && mine,
            // Whoever keeps to the order does neither.
            VirtioFault::StatusLate | VirtioFault::Overtaken if in_order => false,
            VirtioFault::SectorBad => job.kind == IN,
            VirtioFault::SectorBadForGood => job.kind == IN || job.kind == OUT,
            VirtioFault::IoError | VirtioFault::Unsupported | VirtioFault::StatusNonsense => {
                mine && job.kind != FLUSH
            }
            VirtioFault::UsedIdOutOfRange
            | VirtioFault::UsedIdRepeated
            | VirtioFault::UsedIdFree
            | VirtioFault::UsedLengthLong
            | VirtioFault::UsedLengthHuge
            | VirtioFault::UsedLengthShort
            | VirtioFault::UsedLengthZero
            | VirtioFault::UsedFarAhead
            | VirtioFault::CompletionLost
            | VirtioFault::StatusLate
            | VirtioFault::StatusNotWritten
            | VirtioFault::NeverEnds
            | VirtioFault::VerySlow
            | VirtioFault::Overtaken => mine,
            _ => false,
        };
        let at = self.armed.iter().position(suits)?;
        let fault = self.armed.remove(at);
        let lba = match fault {
            VirtioFault::SectorBad => Some(self.damage(job, Defect::Uncorrectable)),
            VirtioFault::SectorBadForGood => Some(self.damage(job, Defect::Permanent)),
            VirtioFault::IoError if matches!(job.kind, IN | OUT | WRITE_ZEROES | SECURE_ERASE) => {
                Some(job.lba)
            }
            VirtioFault::ZeroesFail | VirtioFault::EraseFails => Some(job.lba),
            _ => None,
        };
        self.struck(fault, lba);
        Some(fault)
    }
}

/// What the configuration says from when a driver turns to the device, until the next reset.
pub(super) const SET_UP: [VirtioFault; 5] = [
    VirtioFault::ConfigRestless,
    VirtioFault::BlockSizeNonsense,
    VirtioFault::SegmentsZero,
    VirtioFault::QueuesZero,
    VirtioFault::QueuesMany,
];

/// Faults of a device that works.
const fn needs_work(fault: VirtioFault) -> bool {
    matches!(
        fault,
        VirtioFault::Stuck
            | VirtioFault::QueueDead
            | VirtioFault::NotifyNever
            | VirtioFault::NotifyAlways
            | VirtioFault::EventStuck
            | VirtioFault::EventGarbage
            | VirtioFault::NeedsReset
            | VirtioFault::NeedsResetSilent
            | VirtioFault::NeedsResetAgain
            | VirtioFault::FailedSet
            | VirtioFault::ResetsItself
            | VirtioFault::PowerCut
            | VirtioFault::ConfigSpurious
            | VirtioFault::ConfigStorm
            | VirtioFault::CapacityZero
            | VirtioFault::CacheToggled
            | VirtioFault::InterruptSpurious
            | VirtioFault::InterruptStorm
    )
}
