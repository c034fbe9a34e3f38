//! Telling that a request is done, and interrupts.

use super::registers::notify_name;
use super::ring::{Chain, Marks, Side, Wrong};
use super::serve::Job;
use super::{Event, VirtioModel};
use crate::fault::VirtioFault;
use core::time::Duration;
use outboard_virtio::spec::blk::{STATUS_IO_ERROR, STATUS_OK, STATUS_UNSUPPORTED};
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::pci::{ISR_CONFIG, NO_VECTOR};

/// The interrupt was about a queue (§4.1.4.5).
const ISR_QUEUE: u8 = 1;

impl VirtioModel {
    /// The work on a request is done.
    pub(super) fn finish(&mut self, number: u64) {
        if !self.works() || self.stuck || !self.bus_master {
            return;
        }
        let Some(at) = self.jobs.iter().position(|job| job.number == number) else { return };
        let mut job = self.jobs.remove(at);
        if let Err(wrong) = job.chain.check(&self.memory) {
            self.violation(format_args!("queue {}: {wrong}", job.queue));
        }
        if job.fault == Some(VirtioFault::StatusLate) {
            // What was to come first comes last.
            let late = self.micros(1, 2_000);
            let epoch = self.epoch;
            let bytes = job.chain.writable_bytes();
            self.post(&job, bytes);
            job.fault = None;
            self.jobs.push(job);
            return self.after(late, Event::Late { job: number, epoch });
        }
        let Some(bytes) = self.end(&job) else { return };
        if job.told {
            return;
        }
        let queue = job.queue;
        if job.fault == Some(VirtioFault::OutOfOrder) {
            self.tell_of_those_before(queue, at);
            self.post(&job, bytes);
            return self.post_in_order(queue);
        }
        if !self.agreed().contains(Features::IN_ORDER) {
            return self.post(&job, bytes);
        }
        job.done = Some(bytes);
        self.jobs.insert(at, job);
        self.post_in_order(queue);
    }

    /// An entry comes too early for a request that was the one at `end`. In a packed ring, whose places
    /// tell how many are done, the driver takes those before it for used as well: they have no places
    /// of their own any more, and what was written there would be in the way of what is offered next.
    fn tell_of_those_before(&mut self, queue: u16, end: usize) {
        let Some(Side::Packed(side)) = &mut self.queues[usize::from(queue)].side else { return };
        let before = self.jobs[..end].iter_mut().filter(|job| job.queue == queue && !job.told);
        for job in before {
            side.lose(&job.chain);
            job.told = true;
        }
        self.jobs.retain(|job| !job.told || job.done.is_none());
    }

    /// Says that requests are done whose turn it is, of a queue that keeps to the order: of each, or of
    /// several at once.
    fn post_in_order(&mut self, queue: u16) {
        loop {
            let mine = |job: &&Job| job.queue == queue && !job.told;
            let ready = self.jobs.iter().filter(mine).take_while(|job| job.done.is_some());
            let plain = ready.clone().take_while(|job| job.fault.is_none()).count();
            let count = match ready.count() {
                0 => return,
                _ if plain < 2 => 1,
                _ => self.random.between(1, plain as u64) as usize,
            };
            let mut batch = Vec::new();
            while batch.len() < count
                && let Some(at) = self.jobs.iter().position(|job| mine(&job))
            {
                batch.push(self.jobs.remove(at));
            }
            let Some(last) = batch.last() else { return };
            let bytes = last.done.unwrap_or(0);
            if batch.len() == 1 {
                self.post(last, bytes);
                continue;
            }
            self.note(format_args!("queue {queue}: an entry for {count} requests"));
            let chains: Vec<&Chain> = batch.iter().map(|job| &job.chain).collect();
            let side = self.queues[usize::from(queue)].side.as_mut();
            let posted = side.map(|side| side.put_batch(&self.memory, &chains, bytes));
            self.posted(queue, posted.unwrap_or(Ok(())));
        }
    }

    /// Data and status come after all.
    pub(super) fn finish_late(&mut self, number: u64) {
        if let Some(at) = self.jobs.iter().position(|job| job.number == number) {
            let job = self.jobs.remove(at);
            self.end(&job);
        }
    }

    /// Carries a request out, and writes its status. Returns how many bytes were written.
    fn end(&mut self, job: &Job) -> Option<u32> {
        let ended = match job.fault {
            Some(
                VirtioFault::IoError
                | VirtioFault::FlushFails
                | VirtioFault::DiscardFails
                | VirtioFault::ZeroesFail
                | VirtioFault::EraseFails
                | VirtioFault::SerialFails,
            ) => Ok((STATUS_IO_ERROR, 0)),
            Some(VirtioFault::Unsupported) => Ok((STATUS_UNSUPPORTED, 0)),
            _ => self.carry_out(job),
        };
        let written = ended.and_then(|(status, bytes)| {
            let status = match job.fault {
                Some(VirtioFault::StatusNotWritten) => return Ok(bytes),
                Some(VirtioFault::StatusNonsense) => self.random.between(3, 254) as u8,
                _ => status,
            };
            if let Some(piece) = job.chain.writable.last() {
                self.memory.write(piece.address, &[status])?;
            }
            if status != STATUS_OK {
                self.note(format_args!("request {} ends with status {status}", job.number));
            }
            Ok(bytes + 1)
        });
        match written {
            Ok(bytes) => Some(bytes),
            Err(unmapped) => {
                self.violation(format_args!("request {}: {unmapped}", job.number));
                None
            }
        }
    }

    /// Says that a request is done, or something else.
    fn post(&mut self, job: &Job, bytes: u32) {
        let number = job.queue;
        let memory = self.memory.clone();
        let stranger = self.random.bits() as u32 | 1 << 15;
        let other = self.jobs.iter().find(|other| other.queue == number);
        let other = other.map(|other| other.chain.id);
        let Some(side) = self.queues[usize::from(number)].side.as_mut() else { return };
        let (chain, id) = (&job.chain, u32::from(job.chain.id));
        let free = side.free_id().map_or(id, u32::from);
        let posted = match job.fault {
            Some(VirtioFault::CompletionLost) => {
                // What comes late, by mistake, or for a later one, may still tell of it.
                let released = match side {
                    Side::Split(split) => split.release(&memory, chain),
                    Side::Packed(packed) => {
                        packed.lose(chain);
                        Ok(())
                    }
                };
                if let Err(wrong) = released {
                    self.violation(format_args!("queue {number}: {wrong}"));
                }
                return;
            }
            Some(VirtioFault::UsedIdOutOfRange) => side.put(&memory, chain, stranger, bytes),
            Some(VirtioFault::UsedIdRepeated) => {
                let first = side.put(&memory, chain, id, bytes);
                first.and_then(|()| repeat(side, &memory, id, bytes))
            }
            Some(VirtioFault::UsedIdFree) => side.put(&memory, chain, free, bytes),
            Some(VirtioFault::UsedIdMiddle) => {
                let middle = match side {
                    Side::Split(split) => split.middle_of(&memory, chain),
                    Side::Packed(_) => None,
                };
                side.put(&memory, chain, middle.map_or(free, u32::from), bytes)
            }
            Some(VirtioFault::UsedIdOther) => {
                if let (Side::Packed(packed), Some(other)) = (&mut *side, other) {
                    packed.told_of(other);
                }
                side.put(&memory, chain, other.map_or(free, u32::from), bytes)
            }
            Some(VirtioFault::UsedLengthLong) => {
                side.put(&memory, chain, id, chain.writable_bytes() + 1)
            }
            Some(VirtioFault::UsedLengthHuge) => side.put(&memory, chain, id, u32::MAX),
            Some(VirtioFault::UsedLengthShort) => side.put(&memory, chain, id, 1),
            Some(VirtioFault::UsedLengthZero) => side.put(&memory, chain, id, 0),
            Some(fault) => match side {
                Side::Split(_) => return self.post_split(job, bytes, fault),
                Side::Packed(_) => return self.post_packed(job, bytes, fault),
            },
            None => side.put(&memory, chain, id, bytes),
        };
        self.posted(number, posted);
    }

    /// What only the split layout has.
    fn post_split(&mut self, job: &Job, bytes: u32, fault: VirtioFault) {
        let (number, id) = (job.queue, u32::from(job.chain.id));
        let late = self.micros(1, 100);
        let epoch = self.epoch;
        let entries = self.config.queue_entries;
        let ahead = self.random.between(1, 3) as u16;
        let memory = self.memory.clone();
        let Some(Side::Split(side)) = &mut self.queues[usize::from(number)].side else { return };
        let posted = match fault {
            VirtioFault::UsedIndexAhead => {
                side.put_at(&memory, 0, id, bytes).and_then(|()| side.show(&memory, 1))
            }
            VirtioFault::UsedIndexByRing => {
                side.put_at(&memory, 0, id, bytes).and_then(|()| side.show(&memory, entries))
            }
            VirtioFault::UsedIndexBack => {
                side.put_at(&memory, 0, id, bytes).and_then(|()| side.show(&memory, u16::MAX - 1))
            }
            VirtioFault::UsedEntryLate => side.show(&memory, 0),
            VirtioFault::UsedFarAhead => {
                side.put_at(&memory, ahead, id, bytes).and_then(|()| side.show(&memory, 0))
            }
            _ => side.put_at(&memory, 0, id, bytes).and_then(|()| side.show(&memory, 0)),
        };
        let posted = posted.and_then(|()| side.release(&memory, &job.chain));
        if fault == VirtioFault::UsedEntryLate {
            self.after(late, Event::Entry { queue: number, id, bytes, epoch });
        }
        self.posted(number, posted);
    }

    /// What only the packed layout has.
    fn post_packed(&mut self, job: &Job, bytes: u32, fault: VirtioFault) {
        let (number, id) = (job.queue, u32::from(job.chain.id));
        let memory = self.memory.clone();
        let Some(Side::Packed(side)) = &mut self.queues[usize::from(number)].side else { return };
        let posted = match fault {
            VirtioFault::WrapWrong => side.put_marked(&memory, 0, (id, bytes), Marks::OtherTurn),
            VirtioFault::FlagsHalf => side.put_marked(&memory, 0, (id, bytes), Marks::Half),
            VirtioFault::UsedFarAhead if side.in_use() > 1 => {
                let ahead = 1 + self.random.below(u64::from(side.in_use()) - 1) as u16;
                side.put_marked(&memory, ahead, (id, bytes), Marks::Right)
            }
            _ => side.put_marked(&memory, 0, (id, bytes), Marks::Right),
        };
        side.pass(&job.chain);
        self.posted(number, posted);
    }

    fn posted(&mut self, queue: u16, posted: Result<(), Wrong>) {
        if let Err(wrong) = posted {
            return self.violation(format_args!("queue {queue}: {wrong}"));
        }
        self.interrupt(queue);
    }

    pub(super) fn write_late_entry(&mut self, queue: u16, id: u32, bytes: u32) {
        let memory = &self.memory;
        if let Some(Side::Split(side)) = &self.queues[usize::from(queue)].side
            && let Err(wrong) = side.put_at(memory, u16::MAX, id, bytes)
        {
            self.violation(format_args!("queue {queue}: {wrong}"));
        }
    }

    /// What the device still writes while it is being reset: to all that it was given.
    pub(super) fn stray(&mut self) {
        if !self.bus_master {
            return;
        }
        let jobs = core::mem::take(&mut self.jobs).into_iter();
        for job in jobs.filter(|job| job.done.is_none()) {
            let garbage = vec![0xee; job.chain.writable_bytes() as usize];
            if let Err(unmapped) = self.scatter(&job.chain, &garbage) {
                self.violation(format_args!("while it is being reset: {unmapped}"));
            }
        }
    }

    /// Tells the driver of used entries, if it wants that.
    fn interrupt(&mut self, number: u16) {
        let memory = &self.memory;
        let queue = &mut self.queues[usize::from(number)];
        let vector = queue.vector;
        let wanted = queue.side.as_mut().map(|side| side.wants_interrupt(memory));
        match wanted {
            Some(Ok(true)) => {}
            Some(Err(wrong)) => return self.violation(format_args!("queue {number}: {wrong}")),
            _ => return,
        }
        const FAULTS: [VirtioFault; 3] =
            [VirtioFault::InterruptLost, VirtioFault::InterruptLate, VirtioFault::WrongVector];
        match self.strike(&FAULTS) {
            Some(VirtioFault::InterruptLost) => {}
            Some(VirtioFault::InterruptLate) => {
                let late = self.micros(100, 400_000);
                self.after(late, Event::Message { vector });
            }
            Some(_) => {
                let vector = self.random.below(u64::from(self.config.vectors.max(1))) as u16;
                self.signal(vector);
            }
            None => self.signal(vector),
        }
    }

    /// Sends a message, or asserts the pin.
    pub(super) fn signal(&mut self, vector: u16) {
        if self.removed || !self.bus_master || !self.now.reached(self.silent_until) {
            return;
        }
        if self.config.vectors == 0 {
            self.isr |= ISR_QUEUE;
        } else if vector != NO_VECTOR {
            self.messages.insert(vector);
        }
    }

    /// The configuration has changed, or is said to have (§4.1.5.4).
    pub(super) fn config_changed(&mut self) {
        if !self.works() {
            return;
        }
        self.common.generation = self.common.generation.wrapping_add(1);
        self.tell_of_config();
    }

    /// Interrupts for the configuration.
    pub(super) fn tell_of_config(&mut self) {
        if self.config.vectors == 0 {
            self.isr |= ISR_QUEUE | ISR_CONFIG;
        } else if self.common.config_vector != NO_VECTOR && self.bus_master {
            self.messages.insert(self.common.config_vector);
        }
    }

    pub(super) fn read_isr(&mut self) -> u8 {
        let isr = core::mem::take(&mut self.isr);
        match self.strike(&[VirtioFault::IsrZero, VirtioFault::IsrOnes]) {
            Some(VirtioFault::IsrZero) => 0,
            Some(_) => u8::MAX,
            None => isr,
        }
    }

    /// The driver notifies.
    pub(super) fn notified(&mut self, doorbell: usize, value: u32) {
        let (name, next) = (value as u16, (value >> 16) as u16);
        let number = doorbell as u16;
        let named = self.agreed().contains(Features::NOTIF_CONFIG_DATA);
        let expected = if named { notify_name(number) } else { number };
        let known = name == expected && doorbell < self.queues.len();
        if !known || !self.works() {
            if !self.lost && !self.removed {
                self.violation(format_args!("a notification of queue {name:#x} at {doorbell}"));
            }
            return;
        }
        let memory = &self.memory;
        let queue = &self.queues[doorbell];
        let place = queue.side.as_ref().and_then(|side| side.next_entry(memory).ok());
        let says = self.agreed().contains(Features::NOTIFICATION_DATA);
        if says && place.is_some_and(|place| place != next) {
            return self.violation(format_args!(
                "a notification of queue {number} names {next:#x} as its next entry, not {place:x?}"
            ));
        }
        let asked = match (&queue.side, queue.quirk) {
            (Some(side), None) => side.was_asked(memory),
            (None, None) if !self.lost => {
                return self
                    .violation(format_args!("a notification of queue {number}, which is off"));
            }
            _ => Ok(true),
        };
        if let Ok(false) = asked {
            self.violation(format_args!("a notification of queue {number} that was not asked for"));
        }
        if self.strike(&[VirtioFault::NotificationLost]).is_some() {
            return;
        }
        let soon = Duration::from_nanos(self.random.between(200, 2_000));
        let epoch = self.epoch;
        self.after(soon, Event::Look { queue: number, epoch });
    }
}

/// Says once more that a request is done.
fn repeat(
    side: &mut Side,
    memory: &outboard_hw::dma::DeviceView,
    id: u32,
    bytes: u32,
) -> Result<(), Wrong> {
    match side {
        Side::Split(side) => {
            side.put_at(memory, 0, id, bytes)?;
            side.show(memory, 0)
        }
        Side::Packed(side) => {
            side.put_marked(memory, 0, (id, bytes), Marks::Right)?;
            side.pass(&Chain::default());
            Ok(())
        }
    }
}
