//! Taking back what the device has done.

use super::event::Cause as ResetCause;
use super::lifetime::health;
use super::slots::{Ended, NO_STATUS, Stage};
use super::{Blk, Event, Phase};
use crate::queue::Queue;
use crate::sabotage::Sabotage;
use crate::spec::blk::{STATUS_IO_ERROR, STATUS_OK, STATUS_UNSUPPORTED, WRITEBACK};
use crate::transport::{Cause, Transport};
use outboard_block::{BlockError, Completion, Durability, Management, Operation, UnitId};
use outboard_hw::Instant;

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
                left -= 1;
                match self.queues[number].take() {
                    Some(Ok(used))
                        if self.slots.status(used.token) == NO_STATUS
                            && self.does(Sabotage::MissingStatus) =>
                    {
                        // Perhaps it still has the memory.
                        return self.recover(now, number as u16, ResetCause::NoStatus);
                    }
                    Some(Ok(used)) => self.finish(now, used.token, done),
                    Some(Err(why)) => {
                        return self.recover(now, number as u16, ResetCause::Broken(why));
                    }
                    None if self.masked || !self.queues[number].listen() => break,
                    None => {}
                }
            }
        }
    }

    /// Ends a request that the device is done with.
    #[inline]
    fn finish(&mut self, now: Instant, slot: u16, done: &mut dyn FnMut(Completion)) {
        if slot == self.slots.own() {
            return self.identified(now);
        }
        let status = self.slots.status(slot);
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
                    self.waiting.push_back(slot);
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
    #[inline]
    pub(super) fn complete(
        &mut self,
        now: Instant,
        slot: u16,
        result: Result<(), BlockError>,
        done: &mut dyn FnMut(Completion),
    ) {
        let Some(Ended { tag, operation, lba, sectors, data }) = self.slots.take(slot) else {
            return;
        };
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
