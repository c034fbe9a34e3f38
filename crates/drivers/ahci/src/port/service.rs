//! Noticing that commands have ended, well or not.

use super::command::Step;
use super::{Context, Port, State};
use crate::config::limit;
use crate::event::Cause;
use crate::sabotage::Sabotage;
use crate::spec::ata::Status;
use crate::spec::fis::kind;
use crate::spec::registers::{ALL_ONES, PX_CI, PX_IS, PX_SACT, PX_SERR, PX_TFD, PortInterrupts};
use outboard_block::{Completion, Operation};
use outboard_hw::Registers;
use outboard_hw::registers::RegistersExt;

impl<R: Registers> Port<R> {
    /// Clears the bits that commands which end well set in PxIS, unseen; whether the port is in a
    /// state for that. Bits that mean trouble are left as they are.
    ///
    /// To be followed by [`reap`](Self::reap): what ends after it sets the bits again.
    pub(crate) fn acknowledge_good(&mut self) -> bool {
        // A drive with packets may also have something to tell by such a bit.
        let suitable = self.state == State::Ready && self.drive.is_none();
        if suitable {
            self.registers.set(PX_IS, PortInterrupts::GOOD);
        }
        suitable
    }

    /// Serves an interrupt of whatever kind.
    pub(crate) fn serve(&mut self, context: &Context<'_>, done: &mut dyn FnMut(Completion)) {
        match self.state {
            State::Ready => {}
            State::Watching { place } => return self.serve_watch(place, context, done),
            // States that wait look for themselves, and need the bits for that.
            _ => return,
        }
        let interrupts = self.registers.get(PX_IS);
        if interrupts.bits() == ALL_ONES {
            return self.call_for_hba_reset();
        }
        self.registers.set(PX_IS, interrupts);
        // What ended well before the trouble did end well.
        self.reap(context, done);
        if self.state != State::Ready {
            return;
        }
        if interrupts.contains(PortInterrupts::SET_DEVICE_BITS_FIS) {
            self.look_for_notification(context);
        }
        if interrupts.intersects(PortInterrupts::FATAL) {
            self.begin_recovery(Cause::Fatal(interrupts), context);
        } else if interrupts.contains(PortInterrupts::TASK_FILE_ERROR) {
            self.task_file_error(context);
        } else if interrupts.contains(PortInterrupts::CONNECT) {
            // A device has announced itself: it was reset, or it is another one.
            self.begin_recovery(Cause::Announced, context);
        } else if interrupts.intersects(self.noise()) {
            // A blip that the link survived is harmless to an idle port, and shows up as a failed
            // command on a busy one.
            self.serve_noise(interrupts, context);
        }
    }

    /// Takes the commands that have ended; whether there were any, or trouble was found.
    pub(crate) fn reap(&mut self, context: &Context<'_>, done: &mut dyn FnMut(Completion)) -> bool {
        let found = if self.slots.queued != 0 {
            self.reap_queued(context, done)
        } else if let Some(slot) = self.slots.alone {
            self.reap_alone(slot, context, done)
        } else {
            false
        };
        self.reaped |= found;
        if !self.slots.in_flight() {
            self.check_at = None;
        }
        found
    }

    fn reap_queued(&mut self, context: &Context<'_>, done: &mut dyn FnMut(Completion)) -> bool {
        let active = self.registers.get(PX_SACT);
        let stray = active & !self.slots.queued;
        if stray != 0 {
            self.begin_recovery(Cause::Stray(stray), context);
            return true;
        }
        let mut ended = self.slots.queued & !active;
        let found = ended != 0;
        while ended != 0 {
            let slot = ended.trailing_zeros() as u8;
            ended &= ended - 1;
            self.slots.retire(slot);
            self.succeed(slot, done);
        }
        if self.slots.queued == 0 {
            return found;
        }
        // An error stops the device, and is in the last such FIS.
        let bits = self.memory.as_ref().map(|memory| memory.received_bits());
        match bits.filter(|bits| bits.kind == kind::SET_DEVICE_BITS) {
            Some(bits) if Status::from_bits_retain(bits.status).is_error() => {
                let (status, error) = (bits.status, bits.error);
                self.begin_recovery(Cause::Queued { status, error }, context);
                true
            }
            _ => found,
        }
    }

    fn reap_alone(
        &mut self,
        slot: u8,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) -> bool {
        let issued = self.registers.get(PX_CI);
        let stray = issued & !(1 << slot);
        if stray != 0 {
            self.begin_recovery(Cause::Stray(stray), context);
            return true;
        }
        if issued != 0 {
            return false;
        }
        // Not every HBA keeps a failed command in PxCI, so its status decides.
        let task_file = self.registers.get(PX_TFD);
        if Status::from_bits_retain(task_file.status()).is_error() {
            self.task_file_error(context);
            return true;
        }
        if let Some(bytes) = self.short_transfer(slot) {
            self.begin_recovery(Cause::Short { slot, bytes }, context);
            return true;
        }
        self.slots.retire(slot);
        match self.slots.get(slot).map(|command| command.request.operation) {
            Some(Operation::Manage(_)) if self.drive.is_none() => {
                self.order_ended(slot, context, done)
            }
            _ => self.succeed(slot, done),
        }
        true
    }

    /// How many bytes a command has transferred, if that is not what it should have.
    fn short_transfer(&self, slot: u8) -> Option<u32> {
        let command = self.slots.get(slot)?;
        let transfer = matches!(command.operation(), Operation::Read | Operation::Write(_));
        let expected =
            command.expected_bytes().filter(|_| transfer && command.step == Step::First)?;
        let bytes = self.memory.as_ref()?.transferred(slot);
        (u64::from(bytes) != expected as u64).then_some(bytes)
    }

    /// Looks at a port with commands in flight although nothing has called for it.
    pub(super) fn check_up(&mut self, context: &Context<'_>, done: &mut dyn FnMut(Completion)) {
        self.check_at = Some(context.now + limit::CHECKUP);
        let before = self.slots.issued();
        let interrupts_come = core::mem::take(&mut self.reaped);
        self.serve(context, done);
        if self.state != State::Ready {
            return;
        }
        if !self.link.tells_its_loss()
            && let Some(cause) = self.link_is_down()
        {
            return self.begin_recovery(cause, context);
        }
        let after = self.slots.issued();
        if !interrupts_come {
            self.counters.missed_interrupts += u64::from((before & !after).count_ones());
        }
        self.reaped = false;
        if context.quirks.queued_failure_in_serr && self.slots.queued != 0 {
            let mark = self.registers.get(PX_SERR);
            if mark != 0 {
                return self.begin_recovery(Cause::SilentFailure(mark), context);
            }
        }
        let overdue = (0..32u8).filter(|slot| after >> slot & 1 == 1).fold(0, |overdue, slot| {
            let deadline = self.slots.get(slot).map(|command| command.deadline);
            let late = deadline.is_some_and(|deadline| context.now.reached(deadline));
            overdue | u32::from(late) << slot
        });
        if overdue != 0 && !self.left_out.has(Sabotage::Deadlines) {
            self.counters.timeouts += u64::from(overdue.count_ones());
            self.begin_recovery(Cause::Timeout(overdue), context);
        }
    }
}
