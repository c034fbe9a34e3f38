//! The driver's own packets: asking, and asking why when the drive refuses.

use super::super::memory::Data;
use super::super::startup::INTERNAL_SLOT;
use super::super::{Context, Port, State};
use super::{Asked, Medium, Phase, Watching, by_pio};
use crate::config::limit;
use crate::event::Event;
use crate::spec::ata::{Status, command, features, sata_feature};
use crate::spec::atapi::{Packet, Sense, SenseKey};
use crate::spec::fis::RegisterH2d;
use crate::spec::registers::{PX_CI, PX_IE, PX_IS, PX_TFD, PortInterrupts};
use outboard_block::{Completion, FailedReason};
use outboard_hw::registers::RegistersExt;
use outboard_hw::{Instant, Registers};

impl<R: Registers> Port<R> {
    /// Asks the drive something, while no request's packet is with it.
    pub(super) fn ask(&mut self, asked: Asked, context: &Context<'_>) {
        let Some(drive) = &mut self.drive else { return };
        (drive.asked, drive.phase) = (asked, Phase::Asking);
        // States that wait look for themselves; an interrupt that nobody clears would go on.
        self.registers.set(PX_IE, PortInterrupts::empty());
        match asked {
            Asked::Notify => {
                let enable = RegisterH2d::command(command::SET_FEATURES);
                let enable = enable.features(features::ENABLE_SATA);
                self.issue_own(
                    &enable.count(sata_feature::ASYNCHRONOUS_NOTIFICATION),
                    None,
                    Data::None,
                );
            }
            Asked::Events => self.issue_packet(Packet::media_event(), Data::Internal),
            Asked::Ready => self.issue_packet(Packet::test_unit_ready(), Data::None),
            Asked::Capacity => self.issue_packet(Packet::read_capacity(), Data::Internal),
            Asked::Sector => self.issue_sector(),
            Asked::Trouble => return self.ask_why(context),
        }
        self.await_answer(context);
    }

    /// Asks why the last packet failed. The command engine runs.
    fn ask_why(&mut self, context: &Context<'_>) {
        if let Some(drive) = &mut self.drive {
            drive.phase = Phase::Sensing;
        }
        self.issue_packet(Packet::request_sense(), Data::Internal);
        self.await_answer(context);
    }

    fn issue_packet(&mut self, packet: Packet, data: Data<'_>) {
        self.issue_own(&by_pio(), Some(&packet), data);
    }

    pub(super) fn issue_own(&mut self, fis: &RegisterH2d, packet: Option<&Packet>, data: Data<'_>) {
        let Some(memory) = &mut self.memory else { return };
        match data {
            Data::Sector => memory.clear_sector(),
            _ => memory.clear_internal(),
        }
        memory.prepare(INTERNAL_SLOT, fis, false, data);
        if let Some(packet) = packet {
            memory.add_packet(INTERNAL_SLOT, packet);
        }
        self.registers.set(PX_CI, 1 << INTERNAL_SLOT);
    }

    fn await_answer(&mut self, context: &Context<'_>) {
        let until = context.now + context.config.timeouts.transfer;
        self.enter(State::Talking { until }, context.now);
    }

    /// Asks again after a while.
    pub(super) fn pause_talk(&mut self, context: &Context<'_>) {
        if let Some(drive) = &mut self.drive {
            drive.phase = Phase::Pausing;
        }
        let until = context.now + limit::MEDIUM_LOOK;
        self.enter(State::Talking { until }, until);
    }

    /// Goes on with what the driver has asked the drive.
    pub(in crate::port) fn await_drive(
        &mut self,
        until: Instant,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        let Some(drive) = self.drive else { return self.call_for_hba_reset() };
        match drive.phase {
            // Nobody waits for it any more.
            Phase::Pausing if self.stopping && self.slots.is_empty() => self.become_ready(context),
            Phase::Pausing if context.now.reached(until) => self.ask(Asked::Ready, context),
            Phase::Pausing => self.look_at = Some(until),
            Phase::Stopping => self.await_silence(until, context, done),
            Phase::Asking | Phase::Sensing => match self.internal_ended() {
                None if !context.now.reached(until) => {
                    self.look_at = Some(context.now + limit::LOOK);
                }
                Some(true) if drive.phase == Phase::Asking => self.answered(context, done),
                Some(true) => self.explained(context, done),
                Some(false) if drive.phase == Phase::Asking && !self.has_stopped() => {
                    if let Some(drive) = &mut self.drive {
                        drive.phase = Phase::Stopping;
                    }
                    self.stop_engine();
                    let until = context.now + limit::ENGINE;
                    self.enter(State::Talking { until }, context.now);
                }
                None | Some(false) => self.fall_silent(context, done),
            },
        }
    }

    /// Whether the HBA has stopped for another reason than the drive's refusal.
    fn has_stopped(&self) -> bool {
        self.registers.get(PX_IS).intersects(PortInterrupts::FATAL)
    }

    /// The drive does not answer, or not so that it could be understood: the port is reset, and
    /// what it does not answer to is not asked again if it can be done without.
    fn fall_silent(&mut self, context: &Context<'_>, done: &mut dyn FnMut(Completion)) {
        self.ask_less();
        self.reset_again(FailedReason::GivenUp, context, done);
    }

    fn ask_less(&mut self) {
        let Some(drive) = &mut self.drive else { return };
        drive.watching = match drive.asked {
            Asked::Notify => Watching::Events,
            Asked::Events => Watching::Readiness,
            Asked::Ready | Asked::Capacity | Asked::Sector | Asked::Trouble => drive.watching,
        };
        drive.silences += u8::from(drive.asked == Asked::Sector);
    }

    /// Waits for the command engine to stop after a refusal, and starts it again (AHCI §6.2.2.1).
    fn await_silence(
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
            return self.call_for_hba_reset();
        }
        let status = Status::from_bits_retain(self.registers.get(PX_TFD).status());
        if self.look_for_cut_off(context) || status.is_busy() || !self.start_engine(context) {
            return self.reset_again(FailedReason::GivenUp, context, done);
        }
        match self.drive.map(|drive| drive.asked) {
            // Not a packet, so there is no sense.
            Some(Asked::Notify) => {
                self.ask_less();
                self.look_at_medium(context);
            }
            _ => self.ask_why(context),
        }
    }

    fn answered(&mut self, context: &Context<'_>, done: &mut dyn FnMut(Completion)) {
        match self.drive.map(|drive| drive.asked) {
            // Events that came before are drained, so that later ones are told.
            Some(Asked::Notify) => self.ask(Asked::Events, context),
            Some(Asked::Events) => self.events_came(context),
            Some(Asked::Ready) => self.ask(Asked::Capacity, context),
            Some(Asked::Capacity) => self.capacity_came(context, done),
            Some(Asked::Sector) => self.sector_came(context, done),
            Some(Asked::Trouble) | None => self.call_for_hba_reset(),
        }
    }

    /// Sense has come.
    fn explained(&mut self, context: &Context<'_>, done: &mut dyn FnMut(Completion)) {
        let sense = self.answer().first_chunk().and_then(Sense::parse);
        // Attentions are told once.
        self.doubt_medium(Medium::told_by(sense));
        match self.drive.map(|drive| drive.asked) {
            Some(Asked::Trouble) => self.trouble_explained(sense, context, done),
            Some(Asked::Events) => {
                if sense.is_none_or(|sense| sense.key == SenseKey::ILLEGAL_REQUEST) {
                    self.ask_less();
                }
                // Whatever it has to tell, the question for readiness brings it out.
                self.look_at_medium(context);
            }
            Some(Asked::Sector) => self.sector_refused(sense, context, done),
            _ => self.medium_explained(sense, context, done),
        }
    }

    /// What the drive has answered; all ones where it has said nothing.
    pub(super) fn answer(&self) -> [u8; crate::spec::ata::BLOCK_BYTES] {
        let nothing = [0xff; crate::spec::ata::BLOCK_BYTES];
        self.memory.as_ref().map_or(nothing, |memory| memory.internal())
    }

    fn trouble_explained(
        &mut self,
        sense: Option<Sense>,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        if let Some(sense) = sense {
            self.record(context, Event::Sense(sense));
        }
        let culprit = self.trouble.and_then(|trouble| trouble.verdict).map(|(slot, _)| slot);
        if let (Some(slot), Some(drive)) = (culprit, &mut self.drive)
            && let Some(command) = self.slots.get(slot)
        {
            let verdict = drive.judge(sense, command);
            if let Some(trouble) = &mut self.trouble {
                trouble.verdict = Some((slot, verdict));
            }
        }
        self.settle(context, done);
        match self.drive.map(|drive| drive.doubt) {
            Some(Medium::Same) if culprit.is_some() => self.become_ready(context),
            _ => self.look_at_medium(context),
        }
    }

    /// A request's packet has failed; the command engine runs again.
    pub(in crate::port) fn ask_about_trouble(&mut self, context: &Context<'_>) {
        self.ask(Asked::Trouble, context);
    }
}
