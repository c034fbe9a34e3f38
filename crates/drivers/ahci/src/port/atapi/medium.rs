//! Which medium is in a drive: found at the start, watched for changes, doubted after trouble.

use super::super::command::Device;
use super::super::{Context, Port, Slots};
use super::{Asked, Drive, MAX_SECTORS, Medium as Doubt, Watching};
use crate::config::{Reaping, limit};
use crate::event::Event;
use crate::spec::atapi::{Capacity, MediaEvent, SECTOR_BYTES, Sense, SenseKey, code, peripheral};
use crate::spec::identify::Identify;
use crate::spec::registers::PX_SNTF;
use outboard_block::{
    BlockError, Completion, FailedReason, Features, Geometry, Medium, Operation, UnitState,
};
use outboard_hw::registers::RegistersExt;
use outboard_hw::{Instant, Registers};

/// Bit of PxSNTF of a device without a port multiplier.
const NOTIFIED: u32 = 1;

impl<R: Registers> Port<R> {
    /// The drive has identified itself, for the first time or after a reset.
    pub(in crate::port) fn drive_identified(
        &mut self,
        identify: &Identify,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        match identify.packet_set() {
            None => return self.reset_again(FailedReason::BadIdentity, context, done),
            Some(peripheral::MULTIMEDIA) => {}
            Some(_) => {
                let kind = FailedReason::Unsupported("ATAPI devices other than CD and DVD drives");
                return self.give_up(kind, context, done);
            }
        }
        let notifications =
            context.capabilities.notification() && context.config.reaping == Reaping::Interrupts;
        let Some(new) = Drive::new(identify, notifications) else {
            return self.give_up(FailedReason::BadIdentity, context, done);
        };
        let identity = identify.identity();
        // What was found out about a drive stays; requests may be held for its medium.
        if !self.known || self.drive.is_none() || identity != self.unit.identity {
            if self.known {
                self.counters.plugs += 1;
                self.record(context, Event::Replaced);
                self.forget_disk(done);
                self.unit.state = UnitState::Starting;
            }
            (self.known, self.drive, self.device) = (true, Some(new), Device::PLAIN);
            self.unit.generation = self.unit.generation.max(1);
            self.unit.identity = identity;
            self.slots = Slots::new(context.capabilities.slots_minus_one() + 1);
            self.unit.geometry = self.drive_geometry(0);
            self.unit.features = Features { removable: true, ..Features::NONE };
        }
        // Whatever it was that made it start, the medium may have been exchanged meanwhile.
        self.doubt_medium(Doubt::Doubtful);
        match self.drive.map(|drive| drive.watching) {
            Some(Watching::Notified) => self.ask(Asked::Notify, context),
            Some(Watching::Events) if self.unit.state == UnitState::Starting => {
                self.ask(Asked::Events, context);
            }
            _ => self.look_at_medium(context),
        }
    }

    pub(super) fn drive_geometry(&self, sectors: u64) -> Geometry {
        Geometry {
            sector_bytes: SECTOR_BYTES,
            physical_sector_bytes: SECTOR_BYTES,
            sectors,
            max_transfer_sectors: MAX_SECTORS,
            queue_depth: self.slots.count(),
            read_only: true,
            medium: Medium::Unknown,
            ..Geometry::NONE
        }
    }

    /// From now on the medium is thought of as this, or as worse.
    pub(super) fn doubt_medium(&mut self, doubt: Doubt) {
        if let Some(drive) = &mut self.drive {
            drive.doubt = drive.doubt.max(doubt);
        }
    }

    /// Finds out what is in the drive, beginning with whether it is ready.
    pub(super) fn look_at_medium(&mut self, context: &Context<'_>) {
        if let Some(drive) = &mut self.drive {
            drive.patience = context.now + context.config.timeouts.spin_up;
            drive.evasions = 0;
        }
        self.ask(Asked::Ready, context);
    }

    /// Why the drive is not ready, or does not tell the medium's size.
    pub(super) fn medium_explained(
        &mut self,
        sense: Option<Sense>,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        let Some(drive) = &mut self.drive else { return };
        let sense = sense.unwrap_or(Sense::new(SenseKey::NO_SENSE, code::NONE));
        let not_ready = sense.key == SenseKey::NOT_READY;
        if not_ready && sense.code == code::NOT_READY && !context.now.reached(drive.patience) {
            if self.unit.state == UnitState::Ready {
                self.unit.state = UnitState::Recovering;
            }
            return self.pause_talk(context);
        }
        drive.evasions += 1;
        if not_ready || drive.evasions >= limit::EVASIONS {
            if sense.code != code::NO_MEDIUM {
                self.record(context, Event::Sense(sense));
            }
            return self.medium_is_gone(context, done);
        }
        // Attentions are told once, one for each packet.
        self.ask(Asked::Ready, context);
    }

    pub(super) fn capacity_came(
        &mut self,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        let answer = self.answer();
        let capacity = answer.first_chunk().map(Capacity::new);
        let Some(sectors) = capacity.and_then(|capacity| capacity.sectors()) else {
            if let Some(Capacity { last_lba, sector_bytes }) = capacity {
                self.record(context, Event::UnusableMedium { last_lba, sector_bytes });
            }
            return self.medium_is_gone(context, done);
        };
        self.compare_medium(sectors, context, done);
    }

    fn medium_is_gone(&mut self, context: &Context<'_>, done: &mut dyn FnMut(Completion)) {
        let Some(drive) = &mut self.drive else { return };
        let had_one = core::mem::take(&mut drive.medium);
        (drive.doubt, drive.silences) = (Doubt::Same, 0);
        if had_one {
            self.unit.generation += 1;
            self.record(context, Event::NoMedium);
        }
        self.unit.geometry = self.drive_geometry(0);
        self.fail_reads(context, done);
        self.medium_is_known(context);
    }

    /// Requests for a medium that is no longer there.
    pub(super) fn fail_reads(&mut self, context: &Context<'_>, done: &mut dyn FnMut(Completion)) {
        for slot in 0..32 {
            let read = |operation| matches!(operation, Operation::Read);
            if self.slots.get(slot).is_some_and(|command| read(command.operation())) {
                self.slots.withdraw(slot);
                self.fail(slot, BlockError::MediumChanged, context, done);
            }
        }
    }

    pub(super) fn medium_is_known(&mut self, context: &Context<'_>) {
        self.port_resets = 0;
        if let Some(drive) = &mut self.drive {
            drive.look_closely = false;
            drive.watch_at = match drive.watching {
                Watching::Notified => None,
                Watching::Events | Watching::Readiness => Some(context.now + limit::MEDIUM_WATCH),
            };
        }
        self.become_ready(context);
        self.look_for_notification(context);
    }

    /// Looks for changes of the medium, if it is time for it. Nothing is with the drive.
    pub(in crate::port) fn watch_medium(&mut self, context: &Context<'_>) {
        let due = |drive: &Drive| drive.watch_at.is_some_and(|at| context.now.reached(at));
        let Some(drive) = self.drive.as_mut().filter(|drive| due(drive)) else { return };
        drive.watch_at = None;
        if drive.look_closely || drive.watching == Watching::Readiness {
            self.look_at_medium(context);
        } else {
            self.ask(Asked::Events, context);
        }
    }

    /// The tray was moved by a request: the medium has to be looked at.
    pub(in crate::port) fn tray_was_moved(&mut self) {
        self.doubt_medium(Doubt::Doubtful);
        if let Some(drive) = &mut self.drive {
            (drive.watch_at, drive.look_closely) = (Some(Instant::ORIGIN), true);
        }
    }

    /// Whether the drive has told by itself that something happened (SATA §13.8).
    pub(in crate::port) fn look_for_notification(&mut self, context: &Context<'_>) {
        let notified = |drive: &&mut Drive| drive.watching == Watching::Notified;
        let Some(drive) = self.drive.as_mut().filter(notified) else { return };
        if self.registers.get(PX_SNTF) & NOTIFIED != 0 {
            self.registers.set(PX_SNTF, NOTIFIED);
            drive.watch_at = Some(context.now);
        }
    }

    pub(super) fn events_came(&mut self, context: &Context<'_>) {
        let answer = self.answer();
        let event = answer.first_chunk().and_then(MediaEvent::new);
        let has_medium = self.drive.is_some_and(|drive| drive.medium);
        match event {
            Some(event) if event.is_change() => {
                self.doubt_medium(Doubt::Changed);
                self.look_at_medium(context);
            }
            Some(event) if event.present != has_medium => {
                self.doubt_medium(Doubt::Doubtful);
                self.look_at_medium(context);
            }
            // At first it was asked only for what had happened before.
            _ if self.unit.state == UnitState::Starting => self.look_at_medium(context),
            _ => self.medium_is_known(context),
        }
    }

    /// Ends flushes that are next: a drive that is only read from has nothing to flush.
    pub(in crate::port) fn end_flushes(&mut self, done: &mut dyn FnMut(Completion)) {
        while let Some(slot) = self.next_flush() {
            self.slots.issue_next();
            self.succeed(slot, done);
        }
    }

    /// The next request, if it is a flush of a drive with nothing under way.
    pub(in crate::port) fn next_flush(&self) -> Option<u8> {
        let slot = self.drive.and(self.slots.next_waiting()).filter(|_| !self.slots.in_flight())?;
        let command = self.slots.get(slot)?;
        (command.operation() == Operation::Flush).then_some(slot)
    }

    /// What the unit is like when its port serves requests.
    pub(in crate::port) fn settled_state(&self) -> UnitState {
        match &self.drive {
            Some(drive) if drive.is_empty() => UnitState::Empty,
            _ => UnitState::Ready,
        }
    }
}
