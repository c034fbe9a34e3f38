//! From a request to a doorbell, and from its end to a completion.

use super::command::{Command, Step};
use super::link::LocalOutcome;
use super::{Context, Port, State};
use crate::config::limit;
use crate::event::Event;
use crate::sabotage::Sabotage;
use outboard_block::{
    BlockError, Completion, Management, Operation, Refused, RefusedReason, Request, Tag, UnitState,
};
use outboard_hw::Registers;
use outboard_hw::dma::Constraints;
use outboard_hw::registers::RegistersExt;

impl<R: Registers> Port<R> {
    /// Checks a request and gives it a slot.
    pub(crate) fn submit(
        &mut self,
        tag: Tag,
        request: Request,
        constraints: &Constraints,
    ) -> Result<(), Refused> {
        let request = match self.submit_local(tag, request) {
            LocalOutcome::Taken(result) => return result,
            LocalOutcome::NotLocal(request) => request,
        };
        if let Err(reason) = self.admit(&request, constraints) {
            return Err(request.refused(reason));
        }
        request.data.sync_for_device();
        self.slots.hold(Command::new(tag, request));
        Ok(())
    }

    pub(super) fn admit(
        &self,
        request: &Request,
        constraints: &Constraints,
    ) -> Result<(), RefusedReason> {
        let geometry = &self.unit.geometry;
        if self.stopping || !matches!(self.unit.state, UnitState::Ready | UnitState::Recovering) {
            // A tray can be moved whatever is on it, and a locked disk be opened.
            if let (UnitState::Locked | UnitState::Empty, Operation::Manage(what), false) =
                (self.unit.state, request.operation, self.stopping)
            {
                return self.admit_management(what, request);
            }
            return Err(RefusedReason::NotReady(self.unit.state));
        }
        if geometry.read_only && matches!(request.operation, Operation::Write(_)) {
            return Err(RefusedReason::WriteProtected);
        }
        let end = request.lba.checked_add(request.sectors);
        if end.is_none_or(|end| end > geometry.sectors) {
            return Err(RefusedReason::OutOfRange { sectors: geometry.sectors });
        }
        let most = match request.operation {
            Operation::Read | Operation::Write(_) => geometry.max_transfer_sectors.into(),
            // ATA's way to write zeros (ACS-4) is rare, and it has none to erase a part.
            Operation::Discard | Operation::WriteZeroes(_) | Operation::SecureErase => {
                match geometry.max_sectors(request.operation) {
                    0 => return Err(RefusedReason::Unsupported),
                    most => most,
                }
            }
            Operation::Flush => 0,
            Operation::Manage(what) => return self.admit_management(what, request),
        };
        if request.sectors > most {
            return Err(RefusedReason::TooLong);
        }
        let bytes = match request.operation {
            // At most 65536 sectors, so this cannot overflow.
            Operation::Read | Operation::Write(_) => {
                request.sectors as usize * geometry.sector_bytes as usize
            }
            _ => 0,
        };
        let empty = request.sectors == 0 && request.operation != Operation::Flush;
        if empty || request.data.bytes() != bytes {
            return Err(RefusedReason::BadMemory);
        }
        request.data.check(constraints).map_err(|error| match error {
            outboard_hw::dma::DmaError::TooManySegments { .. } => RefusedReason::TooLong,
            _ => RefusedReason::BadMemory,
        })?;
        if self.slots.has_room() { Ok(()) } else { Err(RefusedReason::QueueFull) }
    }

    /// Issues waiting commands, as many as may run together, with one doorbell.
    pub(crate) fn kick(&mut self, context: &Context<'_>) {
        if self.state != State::Ready || self.wants_quiet() {
            if self.state == State::Asleep && self.slots.next_waiting().is_some() {
                self.look_at = Some(context.now);
            }
            return;
        }
        let mut batch = 0;
        while let Some(slot) = self.slots.next_waiting() {
            let Some(command) = self.slots.get(slot) else { break };
            let queued = command.is_queued(&self.device);
            // Queued and other commands must not be outstanding together (SATA §13.6.3).
            let busy = self.slots.alone.is_some() || !queued && (self.slots.queued | batch) != 0;
            // Drives with packets have none; see `end_flushes`.
            let flush = self.drive.is_some() && command.operation() == Operation::Flush;
            let manages = matches!(command.operation(), Operation::Manage(_));
            if busy || flush || manages && self.ended_program().is_some() {
                break;
            }
            self.prepare(slot, context);
            self.slots.issue_next();
            if queued {
                batch |= 1 << slot;
            } else {
                self.slots.alone = Some(slot);
                self.ring(0, 1 << slot, context);
            }
        }
        if batch != 0 {
            self.slots.queued |= batch;
            self.ring(batch, batch, context);
        }
    }

    /// Writes the doorbell registers, PxSACT before PxCI (AHCI §5.6.2).
    pub(super) fn ring(&mut self, active: u32, issue: u32, context: &Context<'_>) {
        use crate::spec::registers::{PX_CI, PX_SACT};
        if active != 0 {
            self.registers.set(PX_SACT, active);
        }
        self.registers.set(PX_CI, issue);
        self.counters.kicks += 1;
        self.check_at.get_or_insert(context.now + limit::CHECKUP);
    }

    pub(super) fn prepare(&mut self, slot: u8, context: &Context<'_>) {
        let (Some(memory), Some(command)) = (&mut self.memory, self.slots.get_mut(slot)) else {
            return;
        };
        let timeouts = &context.config.timeouts;
        let timeout = match command.operation() {
            Operation::Read | Operation::Write(_) => timeouts.transfer,
            Operation::Discard | Operation::WriteZeroes(_) | Operation::SecureErase => {
                timeouts.discard
            }
            Operation::Flush => timeouts.flush,
            Operation::Manage(_) if self.drive.is_some() => timeouts.flush,
            Operation::Manage(_) => return self.prepare_order(slot, context),
        };
        command.deadline = context.now + timeout;
        if command.operation() == Operation::Discard {
            memory.write_trim(command.request.lba, command.request.sectors);
        }
        let data = command.data(&context.constraints);
        match &self.drive {
            None => {
                let fis = command.fis(slot, &self.device);
                memory.prepare(slot, &fis, command.is_to_device(), data);
            }
            Some(drive) => {
                let (fis, packet) = drive.command(command);
                memory.prepare(slot, &fis, false, data);
                memory.add_packet(slot, &packet);
            }
        }
    }

    /// Ends a command whose slot is retired: passes on to its next step, or completes it.
    pub(super) fn succeed(&mut self, slot: u8, done: &mut dyn FnMut(Completion)) {
        self.hba_resets = 0;
        let device = self.device;
        let Some(command) = self.slots.get_mut(slot) else { return };
        match command.operation() {
            Operation::Write(_) => {
                self.unflushed |= device.write_cache && !command.is_forced(&device)
            }
            Operation::Flush => self.unflushed = false,
            _ => {}
        }
        if command.needs_flush(&device) && !self.left_out.has(Sabotage::FlushAfterWrite) {
            command.step = Step::FlushAfterWrite;
            self.slots.wait_again(slot);
            return;
        }
        if matches!(command.operation(), Operation::Manage(Management::Eject | Management::Load)) {
            self.tray_was_moved();
        }
        let Some(command) = self.slots.get_mut(slot) else { return };
        let counters = &mut self.counters;
        let sectors = command.request.sectors;
        let (count, sectors_moved) = match command.request.operation {
            Operation::Read => (&mut counters.reads, Some(&mut counters.sectors_read)),
            Operation::Write(_) => (&mut counters.writes, Some(&mut counters.sectors_written)),
            Operation::Flush => (&mut counters.flushes, None),
            Operation::Discard | Operation::WriteZeroes(_) | Operation::SecureErase => {
                (&mut counters.discards, None)
            }
            // Ends in `managed`.
            Operation::Manage(_) => (&mut counters.manage, None),
        };
        *count += 1;
        if let Some(moved) = sectors_moved {
            *moved += sectors;
        }
        if command.request.operation == Operation::Read {
            command.request.data.sync_for_cpu();
        }
        let flush = command.request.operation == Operation::Flush;
        let result = if !flush {
            Ok(())
        } else if core::mem::take(&mut self.cache_lost) {
            Err(BlockError::CacheLost)
        } else if let Some(lba) = self.unwritten.take() {
            Err(BlockError::Media { lba: Some(lba) })
        } else {
            Ok(())
        };
        self.complete(slot, result, done);
    }

    /// Completes a command with an error.
    pub(super) fn fail(
        &mut self,
        slot: u8,
        error: BlockError,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        if let Some(command) = self.slots.get(slot) {
            let Request { lba, sectors, .. } = command.request;
            self.counters.failed += 1;
            let event = match command.request.operation {
                Operation::Manage(what) => Event::NotManaged { what, error },
                _ => Event::Failed { lba, sectors, error },
            };
            self.record(context, event);
        }
        self.complete(slot, Err(error), done);
    }

    pub(super) fn complete(
        &mut self,
        slot: u8,
        result: Result<(), BlockError>,
        done: &mut dyn FnMut(Completion),
    ) {
        if let Some(memory) = &mut self.memory {
            memory.disarm(slot);
        }
        if let Some(Command { tag, request, .. }) = self.slots.release(slot) {
            done(Completion { unit: self.id, tag, result, data: request.data });
        }
    }
}
