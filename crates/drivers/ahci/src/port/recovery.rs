//! From trouble back to a port that is ready (AHCI §6.2.2).
//!
//! The ladder: stop the command engine and start it again; ask the device which queued command
//! failed; reset the port; reset the HBA; give up. Commands that did not cause the trouble are
//! issued again. Where the culprit cannot be found, all that were in flight are issued one at a
//! time, and the guilty one fails on its own.

use super::command::Step;
use super::{Context, Port, State, Trouble, Verdict};
use crate::config::limit;
use crate::event::{Cause, Event};
use crate::sabotage::Sabotage;
use crate::spec::ata::{Error, Status, command};
use crate::spec::fis::{RegisterD2h, RegisterH2d};
use crate::spec::log::{NCQ_ERROR, NcqError};
use crate::spec::registers::{
    ALL_ONES, PX_CI, PX_IE, PX_SACT, PX_SERR, PX_TFD, PortInterrupts, serial_error,
};
use outboard_block::{BlockError, Completion, Operation, UnitState};
use outboard_hw::registers::RegistersExt;
use outboard_hw::{Instant, Registers};
use zerocopy::FromBytes;

impl<R: Registers> Port<R> {
    /// The device has reported an error through the task file: for the command that runs alone,
    /// or for one of the queued ones.
    pub(super) fn task_file_error(&mut self, context: &Context<'_>) {
        let task_file = self.registers.get(PX_TFD);
        let (status, error) = (task_file.status(), task_file.error());
        // Without a device the register says nothing (AHCI §3.3.8).
        let nothing = Status::from_bits_retain(status).is_busy();
        if let Some(cause) = self.link_is_down().filter(|_| nothing) {
            return self.begin_recovery(cause, context);
        }
        let cause = match self.slots.alone {
            Some(_) => Cause::TaskFile { status, error },
            None => Cause::Queued { status, error },
        };
        self.begin_recovery(cause, context);
    }

    /// Stops the command engine; what to do next depends on what it looks like then.
    pub(super) fn begin_recovery(&mut self, cause: Cause, context: &Context<'_>) {
        self.record(context, Event::Trouble(cause));
        let suspects = match cause {
            Cause::Timeout(slots) => slots,
            Cause::Short { slot, .. } => 1 << slot,
            Cause::Fatal(_) | Cause::Stray(_) | Cause::LinkDown | Cause::Announced => {
                self.slots.issued()
            }
            _ => 0,
        };
        let error = match cause {
            Cause::Timeout(_) => BlockError::Timeout,
            _ => BlockError::Transport,
        };
        let find_culprit = matches!(cause, Cause::Queued { .. } | Cause::SilentFailure(_));
        let reset = match cause {
            Cause::TaskFile { .. } => false,
            Cause::Queued { .. } => context.quirks.reset_after_queued_failure,
            _ => true,
        };
        let reset = self.judge_link(cause, context) || reset;
        let verdict = match (cause, self.slots.alone) {
            (Cause::TaskFile { status, error }, Some(slot)) => {
                Some((slot, self.judge_alone(slot, status, error)))
            }
            _ => None,
        };
        match cause {
            Cause::TaskFile { .. } | Cause::Queued { .. } | Cause::SilentFailure(_) => {
                self.counters.device_errors += 1;
            }
            Cause::Timeout(_) => {}
            _ => self.counters.transport_errors += 1,
        }
        if matches!(cause, Cause::LinkDown | Cause::Announced) {
            self.doubt_cache();
        }
        // Without commands it was not they who made it.
        let spontaneous =
            matches!(cause, Cause::LinkDown | Cause::Announced) || !self.slots.in_flight();
        let trouble = Trouble { cause, verdict, reset, find_culprit, suspects, error, spontaneous };
        self.trouble = Some(trouble);
        if self.unit.state == UnitState::Ready {
            self.unit.state = UnitState::Recovering;
        }
        self.registers.set(PX_IE, PortInterrupts::empty());
        if self.left_out.has(Sabotage::Ownership) {
            // As if nothing could reach the memory any more.
            self.slots.forget_memory();
        }
        self.stop_engine();
        self.enter(State::Stopping { until: context.now + limit::ENGINE }, context.now);
    }

    /// What the error of a command that ran alone means.
    fn judge_alone(&mut self, slot: u8, status: u8, error: u8) -> Verdict {
        if self.drive.is_some() {
            // ERROR has other bits after a packet; the drive will be asked.
            return Verdict::Retry(BlockError::Aborted);
        }
        let received = self.memory.as_ref().map(|memory| memory.received_register());
        let address = |received: RegisterD2h| match self.device.lba48 {
            true => received.address48(),
            false => received.address28(),
        };
        // A FIS that is older than the error says nothing about it. BSY and DRQ change after it.
        let same = |a: u8, b: u8| (a ^ b) & !(Status::BUSY | Status::DATA_REQUEST).bits() == 0;
        let current = received.filter(|r| same(r.status, status) && r.error == error);
        self.judge(slot, status, error, current.map(address))
    }

    /// What an error means, for the command in `slot`.
    fn judge(&mut self, slot: u8, status: u8, error: u8, lba: Option<u64>) -> Verdict {
        let (status, error) = (Status::from_bits_retain(status), Error::from_bits_retain(error));
        if error.contains(Error::INTERFACE_CRC) {
            return Verdict::Retry(BlockError::Transport);
        }
        let command = self.slots.get(slot);
        // The device may say anything; only a sector of this request can have failed.
        let inside = |lba: &u64| {
            let request = command.map(|command| &command.request);
            request.is_some_and(|r| *lba >= r.lba && *lba - r.lba < r.sectors)
        };
        let defect = Error::UNCORRECTABLE | Error::ID_NOT_FOUND;
        let flushes = command.is_some_and(|command| command.operation() == Operation::Flush);
        if flushes && (status.contains(Status::FAULT) || error.intersects(defect)) {
            // The device has dropped the sector from its cache, and the next flush would end well
            // (ACS §7.10): nobody would be told that a write is lost.
            let lba = lba.filter(|lba| *lba < self.unit.geometry.sectors);
            let whole = command.is_some_and(|c| c.request.operation == Operation::Flush);
            if whole || lba.is_none_or(|lba| inside(&lba)) {
                return Verdict::Final(BlockError::Media { lba });
            }
            // Somebody else's, who is told by the next flush; this write's is repeated.
            self.unwritten = self.unwritten.or(lba);
            return Verdict::Retry(BlockError::Media { lba: None });
        }
        if error.intersects(defect) {
            return Verdict::Final(BlockError::Media { lba: lba.filter(inside) });
        }
        if status.contains(Status::FAULT) {
            return Verdict::Retry(BlockError::Media { lba: None });
        }
        Verdict::Retry(BlockError::Aborted)
    }

    /// Waits for the command engine to stop, then decides whether that was enough.
    pub(super) fn await_stop(
        &mut self,
        until: Instant,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        if !self.is_stopped() {
            if !context.now.reached(until) {
                self.look_at = Some(context.now + limit::LOOK);
                return;
            }
            // Until the HBA is reset it may go on transferring.
            if !self.left_out.has(Sabotage::HbaResets) {
                return self.call_for_hba_reset();
            }
        }
        self.wipe_secret();
        let Some(trouble) = self.trouble else { return self.become_ready(context) };
        // Slots that are still active were not let go of (AHCI §3.3.13, §3.3.14), and a device
        // that is busy will not take commands; COMRESET helps against both.
        let active = self.registers.get(PX_SACT);
        if active != 0 && active != ALL_ONES {
            // Queued commands that the HBA has not let go of would be mixed with others.
            return self.call_for_hba_reset();
        }
        let kept = active | self.registers.get(PX_CI);
        let busy = Status::from_bits_retain(self.registers.get(PX_TFD).status()).is_busy();
        let cut_off = self.look_for_cut_off(context);
        // A queue that has failed takes nothing until the log was read, or the device reset
        // (SATA §13.6.4).
        let blocked = trouble.find_culprit && !self.device.logs;
        let dirty = kept != 0 && kept != ALL_ONES || busy || cut_off || blocked;
        if trouble.cause == Cause::Unplugged {
            return self.unplugged(context, done);
        }
        if (trouble.reset || dirty) && !self.left_out.has(Sabotage::PortResets) {
            return match trouble.spontaneous {
                true => self.spontaneous(context, done),
                false => self.begin_port_reset(context),
            };
        }
        if !self.start_engine(context) {
            return self.call_for_hba_reset();
        }
        if self.drive.is_some() && trouble.verdict.is_some() {
            return self.ask_about_trouble(context);
        }
        if trouble.find_culprit && self.device.logs {
            let read = RegisterH2d::command(command::READ_LOG_EXT);
            // Log address in LBA 7:0, page 0, one block (ACS §7.22.3).
            self.issue_internal(&read.lba48(NCQ_ERROR.into()).count(1));
            let until = context.now + context.config.timeouts.transfer;
            return self.enter(State::ReadingLog { until }, context.now);
        }
        self.settle(context, done);
        self.become_ready(context);
    }

    /// Waits for the log that names the queued command that failed.
    pub(super) fn await_log(
        &mut self,
        until: Instant,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        match self.internal_ended_by(until, context) {
            None => return,
            Some(true) => self.blame_by_log(context),
            Some(false) => {}
        }
        // Without an answer the port is reset, and everything is issued one at a time.
        if self.trouble.is_some_and(|trouble| trouble.verdict.is_none()) {
            return self.begin_port_reset(context);
        }
        self.settle(context, done);
        self.become_ready(context);
    }

    fn blame_by_log(&mut self, context: &Context<'_>) {
        let page = self.memory.as_ref().map(|memory| memory.internal());
        let log = page.and_then(|page| NcqError::read_from_bytes(&page).ok());
        let Some((log, slot)) = log.and_then(|log| Some((log, log.failed_tag()?))) else { return };
        // A device that blames a command which it does not have is not believed.
        if self.slots.queued >> slot & 1 == 0 {
            return;
        }
        // Nor is one that names a sector which is not the command's.
        let request =
            self.slots.get(slot).map(|command| (command.request.lba, command.request.sectors));
        let defect = Error::from_bits_retain(log.error)
            .intersects(Error::UNCORRECTABLE | Error::ID_NOT_FOUND);
        let inside = request.is_some_and(|(lba, sectors)| {
            log.lba().checked_sub(lba).is_some_and(|offset| offset < sectors)
        });
        if defect && !inside && !self.left_out.has(Sabotage::LogChecks) {
            return;
        }
        self.record(context, Event::Blamed { slot, lba: log.lba() });
        let verdict = self.judge(slot, log.status, log.error, Some(log.lba()));
        if let Some(trouble) = &mut self.trouble {
            trouble.verdict = Some((slot, verdict));
        }
    }

    /// The device has lost its hold on memory: decides what becomes of each command that was in
    /// flight.
    pub(super) fn settle(&mut self, context: &Context<'_>, done: &mut dyn FnMut(Completion)) {
        let issued = self.slots.issued();
        self.slots.requeue_issued();
        self.wipe_secret();
        self.restart_programs(!issued);
        // Without trouble of its own it was another port's, and all are innocent.
        let trouble = self.trouble;
        let culprit = trouble.and_then(|trouble| trouble.verdict);
        let suspects = trouble.map_or(0, |trouble| trouble.suspects);
        let error = trouble.map_or(BlockError::Transport, |trouble| trouble.error);
        let isolate = culprit.is_none() && trouble.is_some_and(|trouble| trouble.find_culprit);
        for slot in (0..32u8).filter(|slot| issued >> slot & 1 == 1) {
            let suspect = suspects >> slot & 1 == 1;
            let verdict = match culprit {
                Some((culprit, verdict)) if culprit == slot => Some(verdict),
                _ => suspect.then_some(Verdict::Retry(error)),
            };
            let managing = self.order_of(slot).is_some();
            let verdict = if managing { self.order_failed(slot, verdict) } else { verdict };
            let Some(command) = self.slots.get_mut(slot) else { continue };
            if !managing {
                // A device whose cache was lost has to write again what was to be flushed from it.
                command.step = Step::First;
            }
            if verdict.is_none() {
                command.requeued = command.requeued.saturating_add(1);
            }
            // Once a command runs alone it stays alone, or the queue would fail again. Suspects
            // do, too: one that a disk is stuck with makes all the others late.
            let isolates = !self.left_out.has(Sabotage::Isolation);
            command.alone |= (isolate || suspect) && isolates;
            command.alone |= command.requeued >= limit::CROWDED && isolates;
            let overdue = command.requeued >= limit::INNOCENT;
            let verdict = verdict.or(overdue.then_some(Verdict::Retry(BlockError::Transport)));
            match verdict {
                Some(verdict) => self.apply(slot, verdict, context, done),
                None => self.counters.requeued += 1,
            }
        }
        self.end_programs(context, done);
        // What is left of it is only that there was trouble.
        if let Some(trouble) = &mut self.trouble {
            (trouble.verdict, trouble.suspects, trouble.find_culprit) = (None, 0, false);
        }
    }

    fn apply(
        &mut self,
        slot: u8,
        verdict: Verdict,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        let Some(command) = self.slots.get_mut(slot) else { return };
        command.failures = command.failures.saturating_add(1);
        let aborted = verdict == Verdict::Retry(BlockError::Aborted);
        command.aborts = command.aborts.saturating_add(aborted.into());
        let error = match verdict {
            Verdict::Final(error) => error,
            // A device that aborts the same command twice means it.
            Verdict::Retry(error @ BlockError::Aborted) if command.aborts >= 2 => error,
            Verdict::Retry(error)
                if command.failures >= context.config.attempts
                    || self.left_out.has(Sabotage::Retries) =>
            {
                error
            }
            Verdict::Retry(_) => {
                self.counters.retried += 1;
                return;
            }
        };
        self.slots.withdraw(slot);
        self.fail(slot, error, context, done);
    }

    /// The device was cut off, of power perhaps: what it has acknowledged and not yet flushed may
    /// be lost, which the next flush has to say.
    pub(crate) fn doubt_cache(&mut self) {
        self.cache_lost |= self.unflushed && !self.left_out.has(Sabotage::CacheDoubt);
        // What was written and only waits for its flush has to be written again as well.
        if !self.left_out.has(Sabotage::DurableWrites) {
            self.slots.restart();
        }
    }

    /// Whether the device was cut off, or is: to be asked before a reset takes the traces away.
    pub(crate) fn look_for_cut_off(&mut self, context: &Context<'_>) -> bool {
        // A reset of the port's own looks the same, and so does one of the HBA.
        let own = matches!(
            self.state,
            State::Idle | State::Quiescing { .. } | State::PortReset { .. } | State::Link { .. }
        );
        if own || self.left_out.has(Sabotage::CutOffs) {
            return false;
        }
        // It is not asked again: an answer that is none does not count.
        let errors = match self.registers.get(PX_SERR) {
            ALL_ONES => self.registers.get(PX_SERR),
            errors => errors,
        };
        // Where the bits mean tags, this one means tag 26.
        let announced = !context.quirks.queued_failure_in_serr
            && errors != ALL_ONES
            && errors & serial_error::EXCHANGED != 0;
        let cut_off = announced || self.link_is_down().is_some();
        if cut_off {
            self.doubt_cache();
        }
        cut_off
    }

    /// Only a reset of the HBA makes memory safe again; or the HBA is gone, and notices then.
    pub(super) fn call_for_hba_reset(&mut self) {
        self.hba_resets = self.hba_resets.saturating_add(1);
        self.state = State::NeedsHbaReset;
        self.look_at = None;
    }
}
