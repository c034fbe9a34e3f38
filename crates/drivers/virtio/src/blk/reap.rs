//! Taking back what the device has done.

use super::counters::Counters;
use super::event::Cause as ResetCause;
use super::lifetime::health;
use super::slots::{NO_STATUS, Slots, Stage};
use super::{Blk, Event, Phase};
use crate::queue::{Broken, Layout, Queue, Ring, Used};
use crate::sabotage::Sabotage;
use crate::spec::blk::{STATUS_IO_ERROR, STATUS_OK, STATUS_UNSUPPORTED, WRITEBACK};
use crate::transport::{Cause, Transport};
use outboard_block::{BlockError, Completion, Durability, Management, Operation, Request, UnitId};
use outboard_hw::Instant;
use outboard_hw::dma::SgList;

impl<T: Transport> Blk<T> {
    /// Does whatever is due.
    pub(super) fn look(&mut self, now: Instant, done: &mut dyn FnMut(Completion)) {
        self.advance(now, done);
        self.advance_queue(now, done);
        self.advance_return(now);
        self.look_again = false;
        let cause = core::mem::replace(&mut self.cause, Cause::NONE);
        let config = self.is_up() && cause.config && self.does(Sabotage::Changes);
        // What is done since the configuration changed was done under the new one; what was done
        // before a device was lost is done.
        let lost = self.transport.is_away();
        if config && !lost {
            self.look_at_device(now);
        }
        self.reap(now, done);
        if config && lost && self.is_up() {
            self.look_at_device(now);
        }
        self.check_time(now);
        if self.phase == Phase::Running {
            self.do_own(now, done);
            self.issue(now);
        }
        if self.is_up() {
            self.begin_close(now, done);
        }
        let ended = self.phase == Phase::Ended && self.does(Sabotage::Removal);
        if ended && self.slots.in_use() > 0 {
            self.fail_all(now, done);
        }
    }

    /// Whether the device has queues.
    pub(super) const fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Identifying | Phase::Greeting)
    }

    /// Takes all that is done, and asks to be told of what comes.
    fn reap(&mut self, now: Instant, done: &mut dyn FnMut(Completion)) {
        if self.phase == Phase::Greeting {
            return self.reap_greeting(now);
        }
        for number in 0..self.queues.len() {
            // More than there are can only be done by a device that answers as fast as it is asked.
            let mut left = self.slots.own() + 1;
            while left > 0 && self.is_up() {
                match self.reap_plain(number, &mut left, done) {
                    Some(Ok((slot, status))) => {
                        self.finish(now, number as u16, slot, status, done);
                    }
                    Some(Err(why)) => {
                        return self.recover(now, number as u16, ResetCause::Broken(why));
                    }
                    None if left == 0 || self.masked || !self.queues[number].listen() => break,
                    None => {}
                }
            }
        }
    }

    /// Ends the plain requests that went well, as most do, up to the first request of which that is not
    /// so: its slot and status. `None` if there is none.
    fn reap_plain(
        &mut self,
        number: usize,
        left: &mut u16,
        done: &mut dyn FnMut(Completion),
    ) -> Option<Result<(u16, u8), Broken>> {
        let Self { queues, slots, counters, resets, .. } = self;
        match queues[number].layout() {
            Layout::Split(ring) => reap(ring, slots, counters, resets, left, done),
            Layout::Packed(ring) => reap(ring, slots, counters, resets, left, done),
        }
    }

    /// Ends a request that the device is done with.
    #[inline(never)]
    fn finish(
        &mut self,
        now: Instant,
        queue: u16,
        slot: u16,
        status: u8,
        done: &mut dyn FnMut(Completion),
    ) {
        if status == NO_STATUS && self.does(Sabotage::MissingStatus) {
            // Perhaps it still has the memory.
            return self.recover(now, queue, ResetCause::NoStatus);
        }
        if slot == self.slots.own() {
            return self.identified(now);
        }
        let write_cache = self.unit.geometry.write_cache;
        let flushes = self.does(Sabotage::FlushAfterWrite);
        let doubts = self.does(Sabotage::CacheDoubt);
        let Some(job) = self.slots.get(slot) else { return };
        job.since = None;
        let result = match status {
            STATUS_OK => {
                let durable = Operation::Write(Durability::Durable);
                if job.request.operation == durable
                    && job.stage == Stage::Main
                    && write_cache
                    && flushes
                {
                    job.stage = Stage::Flush;
                    self.waiting.push(slot);
                    return;
                }
                self.resets = 0;
                let flush = job.request.operation == Operation::Flush;
                match flush && doubts && core::mem::take(&mut self.cache_in_doubt) {
                    true => Err(BlockError::CacheLost),
                    false => Ok(()),
                }
            }
            STATUS_IO_ERROR => Err(BlockError::Media { lba: None }),
            STATUS_UNSUPPORTED => Err(BlockError::Unsupported),
            _ => Err(BlockError::BadAnswer),
        };
        if status != STATUS_OK {
            self.counters.device_errors += 1;
        }
        let result = match (result, job.stage, job.request.operation) {
            // Nobody knows which sectors a flush was about.
            (Err(BlockError::Media { .. }), Stage::Flush, _)
            | (
                Err(BlockError::Media { .. }),
                _,
                Operation::Flush | Operation::Discard | Operation::Manage(_),
            ) => Err(BlockError::Aborted),
            (
                Err(BlockError::Media { .. }),
                _,
                Operation::Write(_) | Operation::WriteZeroes(_) | Operation::SecureErase,
            ) if self.unit.geometry.read_only => {
                // It was not when the request was accepted.
                Err(BlockError::WriteProtected)
            }
            (Err(BlockError::Media { .. }), ..) if job.request.sectors == 1 => {
                Err(BlockError::Media { lba: Some(job.request.lba) })
            }
            (result, ..) => result,
        };
        self.complete(now, slot, result, done);
    }

    /// Gives the request in a slot back.
    pub(super) fn complete(
        &mut self,
        now: Instant,
        slot: u16,
        result: Result<(), BlockError>,
        done: &mut dyn FnMut(Completion),
    ) {
        let Some(job) = self.slots.get(slot) else { return };
        let (tag, &Request { operation, lba, sectors, .. }) = (job.tag, &job.request);
        let counters = &mut self.counters;
        match (result, operation) {
            (Err(error), _) => {
                counters.failed += 1;
                self.events.record(now, Event::Failed { lba, sectors, error });
            }
            (Ok(()), Operation::Read) => {
                counters.reads += 1;
                counters.sectors_read += sectors;
            }
            (Ok(()), Operation::Write(_)) => {
                counters.writes += 1;
                counters.sectors_written += sectors;
            }
            (Ok(()), Operation::Flush) => counters.flushes += 1,
            (Ok(()), Operation::Discard) => counters.discards += 1,
            (Ok(()), Operation::WriteZeroes(_)) => counters.zeros += 1,
            (Ok(()), Operation::SecureErase) => counters.erasures += 1,
            (Ok(()), Operation::Manage(Management::ReadHealth)) => {
                self.health = Some(health(&self.slots.lifetime(slot)));
                self.changes += 1;
            }
            (Ok(()), Operation::Manage(_)) => {}
        }
        let data = self.slots.release(slot);
        data.sync_for_cpu();
        done(Completion { unit: UnitId(0), tag, result, data });
    }

    /// Does what is asked of the driver alone.
    fn do_own(&mut self, now: Instant, done: &mut dyn FnMut(Completion)) {
        while let Some(slot) = self.own.pop_front() {
            let Some(job) = self.slots.peek(slot) else { continue };
            let result = match job.request.operation {
                Operation::Manage(Management::SetWriteCache(on)) => {
                    self.transport.set_config_u8(WRITEBACK, on.into());
                    self.configuration_changed(now);
                    let is_on = self.unit.geometry.write_cache;
                    if is_on == on { Ok(()) } else { Err(BlockError::Aborted) }
                }
                Operation::Flush => Ok(()),
                _ => Err(BlockError::Unsupported),
            };
            self.complete(now, slot, result, done);
        }
    }

    /// Whether the queues hold nothing but what the device was shown.
    pub(super) fn is_idle(&self) -> bool {
        self.slots.in_use() == 0 && self.queues.iter().all(|queue: &Queue| !queue.has_new())
    }
}

/// See [`Blk::reap_plain`].
#[inline]
fn reap<R: Ring<u16>>(
    ring: &mut R,
    slots: &mut Slots,
    counters: &mut Counters,
    resets: &mut u8,
    left: &mut u16,
    done: &mut dyn FnMut(Completion),
) -> Option<Result<(u16, u8), Broken>> {
    while *left > 0 {
        let slot = match ring.take()? {
            Ok(Used { token, .. }) => token,
            Err(why) => return Some(Err(why)),
        };
        *left -= 1;
        let status = slots.status(slot);
        let Some((tag, data)) = slots.end_plain(slot, status, counters) else {
            return Some(Ok((slot, status)));
        };
        *resets = 0;
        let mut ended = Completion { unit: UnitId(0), tag, result: Ok(()), data: SgList::EMPTY };
        core::mem::swap(&mut ended.data, data);
        done(ended);
    }
    None
}
