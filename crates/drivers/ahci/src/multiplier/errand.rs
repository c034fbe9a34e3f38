//! Errands: what the driver does with the multiplier itself, one command after the other; without
//! FIS-based switching while no device has any.

mod bring_up;

use super::{Multiplier, State};
use crate::config::limit;
use crate::port::Context;
use crate::spec::ata::Status;
use crate::spec::fis::{RegisterH2d, kind};
use crate::spec::multiplier::{
    self, CONTROL_PORT, Features, MAX_DEVICE_PORTS, general, port as of_port,
};
use crate::spec::registers::{PX_CI, SataControl, SataStatus, serial_error};
use crate::spec::structures::CommandHeader;
use bring_up::BringUp;
use outboard_hw::registers::RegistersExt;
use outboard_hw::time::earlier;
use outboard_hw::{Instant, Registers};

/// What a multiplier's device ports tell of.
const TOLD: u32 = serial_error::EXCHANGED | serial_error::PHY_READY;
/// A device port's normal state, and a COMRESET.
const QUIET: SataControl =
    SataControl::new().with_no_power_states(SataControl::NO_PARTIAL | SataControl::NO_SLUMBER);
const COMRESET: SataControl = QUIET.with_detection(SataControl::COMRESET);

/// What is being done, and what the step is that was begun last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Errand {
    /// Setting the multiplier up, and finding out what is behind it.
    Setup(Setup),
    /// Looking what has changed. `left`: device ports that say so.
    Watch { step: Watch, left: u32 },
    /// Resetting the links of places that look empty once more. `left`: device ports whose turn
    /// is still to come in this step.
    Rearm { step: Rearm, ports: u32, left: u32 },
    /// Bringing up the link of a device port.
    BringUp { device: u8, step: BringUp },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setup {
    Begun,
    CountPorts,
    EnableErrors,
    ReadFeatures,
    EnableFeatures,
    Reset(u8),
    Hold,
    Release(u8),
    Settle,
    Look(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    Begun,
    Which,
    ReadErrors,
    ClearErrors { errors: u32 },
    ReadStatus { errors: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rearm {
    Reset,
    Hold,
    Release,
}

/// What to do as the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Read { port: u8, register: u16 },
    Write { port: u8, register: u16, value: u32 },
    BeginSoftReset { device: u8 },
    EndSoftReset { device: u8 },
    Hold { until: Instant },
    Pause { until: Instant },
}

/// A step under way, which ends at the latest then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    /// A command for the multiplier's registers.
    Talk { until: Instant },
    /// The first frame of a software reset.
    BeginSoftReset { until: Instant },
    /// The second; the device has to report.
    EndSoftReset { device: u8, until: Instant },
    /// Nothing, but the HBA waits for the device: no other is served before it has reported.
    Hold { until: Instant },
    /// Nothing: others may use the link.
    Pause { until: Instant },
}

/// A step has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed;

impl<R: Registers> Multiplier<R> {
    pub(super) const fn is_being_set_up(&self) -> bool {
        matches!(self.errand, Some(Errand::Setup(_)))
    }

    /// The device that an errand is about.
    pub(super) const fn errand_for(&self) -> Option<u8> {
        match self.errand {
            Some(Errand::BringUp { device, .. }) => Some(device),
            _ => None,
        }
    }

    pub(super) fn begin_setup(&mut self, context: &Context<'_>) {
        self.errand = Some(Errand::Setup(Setup::Begun));
        self.op = None;
        self.next = self.advance(Ok(0), context);
    }

    /// Whether a step of an errand has the link to itself.
    pub(super) const fn is_talking(&self) -> bool {
        !matches!(self.op, None | Some(Op::Pause { .. }))
    }

    /// Whether one waits for it.
    pub(super) const fn wants_to_talk(&self) -> bool {
        !matches!(self.next, None | Some(Next::Pause { .. }))
    }

    /// The slot of a step under way, as a bit.
    pub(super) const fn own_place(&self) -> u32 {
        if self.is_talking() { 1 << self.own_slot } else { 0 }
    }

    /// A slot for the next step, if one may begin.
    const fn free_place(&self) -> Option<u8> {
        let free = self.slots & !self.in_flight;
        let shared = self.switching && self.draining.is_none();
        match free != 0 && (self.in_flight == 0 || shared) {
            true => Some(free.trailing_zeros() as u8),
            false => None,
        }
    }

    /// When to go on if nothing else happens.
    pub(super) fn own_deadline(&self) -> Option<Instant> {
        let step = match (self.op, self.next) {
            (Some(Op::Pause { until }), _) => Some(until),
            (Some(_), _) => Some(self.clock + limit::LOOK),
            (None, Some(_)) if self.free_place().is_some() => Some(self.clock),
            _ => None,
        };
        let check = (self.in_flight != 0).then_some(self.check_at);
        if self.errand.is_some() {
            return earlier(step, check);
        }
        let wanted = self.devices.iter().flatten().filter(|behind| behind.face.wants_link());
        let wanted = wanted.map(|behind| Some(behind.try_at)).fold(None, earlier);
        let watch = (!self.stopping).then_some(self.watch_at);
        let rearm = (self.rearms > 0 && !self.stopping).then_some(self.rearm_at);
        earlier(earlier(step, check), earlier(earlier(wanted, watch), rearm))
    }

    /// Something may have changed. The multiplier may say so as often as it likes.
    pub(super) fn watch_soon(&mut self, context: &Context<'_>) {
        let soon = context.now + limit::LOOK_SLOWLY;
        if self.watch_at.reached(soon) {
            self.watch_at = soon;
        }
    }

    /// Begins what is to be done, and goes on with it.
    pub(super) fn run_errands(&mut self, context: &Context<'_>) {
        if self.state != State::Serving {
            return;
        }
        if self.errand.is_none() {
            self.errand = self.choose_errand(context);
            if self.errand.is_some() {
                self.next = self.advance(Ok(0), context);
            }
        }
        if let Some(op) = self.op {
            let Some(result) = self.result_of(op, context) else { return };
            if result.is_err() {
                // The HBA has to let go of it, and of whatever is still on its way.
                self.op_failed = true;
                return self.let_go(context);
            }
            self.op = None;
            self.failures = 0;
            self.next = self.advance(result, context);
        }
        match (self.next, self.free_place()) {
            (Some(Next::Pause { until }), _) => {
                (self.op, self.next) = (Some(Op::Pause { until }), None);
            }
            (Some(next), Some(slot)) => {
                self.next = None;
                self.begin_step(next, slot, context);
            }
            _ => {}
        }
    }

    fn choose_errand(&mut self, context: &Context<'_>) -> Option<Errand> {
        let wants = |device: &u8| {
            let behind = self.devices[usize::from(*device)].as_ref();
            behind.is_some_and(|b| b.face.wants_link() && context.now.reached(b.try_at))
        };
        // Behind the one that was served last.
        let ports = MAX_DEVICE_PORTS as u8;
        let mut order = (1..=ports).map(|step| (self.tried + step) % ports);
        if let Some(device) = order.find(wants) {
            self.tried = device;
            let link = self.behind(device).map_or(0, |behind| behind.face.link());
            // No other reset of the link before a device has had its time.
            let step = if link == 0 { BringUp::Begun } else { BringUp::AskAgain };
            return Some(Errand::BringUp { device, step });
        }
        if self.stopping {
            return None;
        }
        if self.rearms > 0 && context.now.reached(self.rearm_at) {
            self.rearms -= 1;
            self.rearm_at = context.now + limit::TRY_AGAIN;
            let empty = (0..self.count).filter(|port| self.devices[usize::from(*port)].is_none());
            let ports = empty.fold(0, |ports, port| ports | 1 << port);
            if ports != 0 {
                return Some(Errand::Rearm { step: Rearm::Reset, ports, left: ports });
            }
            self.rearms = 0;
        }
        if context.now.reached(self.watch_at) {
            self.watch_at = context.now + limit::WATCH_BEHIND;
            return Some(Errand::Watch { step: Watch::Begun, left: 0 });
        }
        None
    }

    fn begin_step(&mut self, next: Next, slot: u8, context: &Context<'_>) {
        let until = context.now + limit::REGISTER;
        let (fis, flags, op) = match next {
            Next::Read { port, register } => {
                (multiplier::read(port, register), 0, Op::Talk { until })
            }
            Next::Write { port, register, value } => {
                (multiplier::write(port, register, value), 0, Op::Talk { until })
            }
            Next::BeginSoftReset { device } => {
                let flags = CommandHeader::RESET | CommandHeader::CLEAR_BUSY;
                let fis = RegisterH2d::device_control(true).behind(device);
                (fis, flags, Op::BeginSoftReset { until })
            }
            Next::EndSoftReset { device } => {
                let tries = self.behind(device).map_or(0, |behind| behind.tries);
                let longer = tries.min(limit::SOFT_RESETS_LONGER);
                let until = context.now + limit::SOFT_RESET * (1 << longer);
                let fis = RegisterH2d::device_control(false).behind(device);
                (fis, 0, Op::EndSoftReset { device, until })
            }
            Next::Hold { until } => return self.op = Some(Op::Hold { until }),
            Next::Pause { until } => return self.op = Some(Op::Pause { until }),
        };
        let port = fis.multiplier_port();
        self.memory.forget_received(self.area(port));
        self.memory.prepare_own(slot, &fis, flags);
        (self.op, self.own_slot, self.op_failed) = (Some(op), slot, false);
        if self.switching {
            self.select(port);
        }
        self.registers.set(PX_CI, 1 << slot);
    }

    /// What a step has come to, if it has ended.
    fn result_of(&mut self, op: Op, context: &Context<'_>) -> Option<Result<u32, Failed>> {
        let (Op::Talk { until }
        | Op::BeginSoftReset { until }
        | Op::EndSoftReset { until, .. }
        | Op::Hold { until }
        | Op::Pause { until }) = op;
        let late = context.now.reached(until);
        if let Op::Pause { .. } = op {
            return late.then_some(Ok(0));
        }
        if self.op_failed {
            return Some(Err(Failed));
        }
        if let Op::Hold { .. } = op {
            return late.then_some(Ok(0));
        }
        if self.registers.get(PX_CI) & self.own_place() != 0 {
            return late.then_some(Err(Failed));
        }
        match op {
            Op::Talk { .. } => {
                let frame = self.memory.received_register(self.area(CONTROL_PORT));
                let good = frame.kind == kind::REGISTER_D2H
                    && frame.flags & 0xf == CONTROL_PORT
                    && !Status::from_bits_retain(frame.status).is_error();
                match good {
                    true => Some(Ok(multiplier::returned(&frame))),
                    false => Some(Err(Failed)),
                }
            }
            Op::EndSoftReset { device, .. } => {
                let busy = Status::from_bits_retain(self.task_file(device).status()).is_busy();
                let frame = self.memory.received_register(self.area(device));
                let reported = frame.kind == kind::REGISTER_D2H && frame.flags & 0xf == device;
                match (busy || !reported, late) {
                    (true, late) => late.then_some(Err(Failed)),
                    // Where the first frame of a device puts its signature (AHCI §3.3.9).
                    (false, _) => Some(Ok(multiplier::returned(&frame))),
                }
            }
            _ => Some(Ok(0)),
        }
    }

    /// A step of the errand has ended; what comes next, if anything.
    fn advance(&mut self, result: Result<u32, Failed>, context: &Context<'_>) -> Option<Next> {
        let (errand, next) = match self.errand? {
            Errand::Setup(step) => self.advance_setup(step, result.unwrap_or(0), context),
            Errand::Watch { step, left } => self.advance_watch(step, left, result.unwrap_or(0)),
            Errand::Rearm { step, ports, left } => advance_rearm(step, ports, left, context),
            Errand::BringUp { device, step } => {
                self.advance_link(device, step, result.unwrap_or(0), context)
            }
        }
        .unzip();
        self.errand = errand;
        next
    }

    /// The HBA had to let go of a step.
    pub(super) fn step_failed(&mut self, context: &Context<'_>) {
        (self.op, self.next) = (None, None);
        // A neighbour's trouble, for which the engine was stopped, says nothing of the multiplier.
        let own = core::mem::take(&mut self.op_failed);
        let Some(errand) = self.errand.take() else { return };
        self.failures = self.failures.saturating_add(own.into());
        match errand {
            Errand::Setup(_) => self.errand = Some(Errand::Setup(Setup::Begun)),
            Errand::Watch { .. } => {}
            // Some may still be held in their reset.
            Errand::Rearm { .. } => self.rearms = self.rearms.saturating_add(1),
            Errand::BringUp { device, step } => {
                // The device may be starting; the multiplier is well.
                if step == BringUp::EndSoftReset {
                    self.failures = 0;
                }
                self.try_later(device, context);
            }
        }
        if self.failures >= limit::ERRANDS {
            // What it knows of the devices cannot be asked for, and its reset takes that away.
            self.all().for_each(|behind| behind.port.doubt_cache());
            self.leave(context);
        } else if self.errand.is_some() {
            self.next = self.advance(Ok(0), context);
        }
    }

    fn try_later(&mut self, device: u8, context: &Context<'_>) {
        let Some(behind) = self.behind(device) else { return };
        behind.tries = behind.tries.saturating_add(1);
        behind.try_at = context.now + limit::TRY_AGAIN;
    }

    fn advance_setup(
        &mut self,
        step: Setup,
        value: u32,
        context: &Context<'_>,
    ) -> Option<(Errand, Next)> {
        let control = |register| Next::Read { port: CONTROL_PORT, register };
        let enable = |register, value| Next::Write { port: CONTROL_PORT, register, value };
        let write = |port, value: SataControl| {
            let value = value.into();
            Next::Write { port, register: of_port::CONTROL, value }
        };
        let pause = |time| Next::Pause { until: context.now + time };
        let last = self.count.saturating_sub(1);
        let (step, next) = match step {
            Setup::Begun => (Setup::CountPorts, control(general::PORTS)),
            Setup::CountPorts => {
                self.count = (value & 0xf) as u8;
                (Setup::EnableErrors, enable(general::ERROR_ENABLE, TOLD))
            }
            Setup::EnableErrors => (Setup::ReadFeatures, control(general::FEATURES)),
            Setup::ReadFeatures => {
                let wanted = Features::from_bits_retain(value) & Features::NOTIFICATION;
                let enable = enable(general::FEATURES_ENABLED, wanted.bits());
                (Setup::EnableFeatures, enable)
            }
            Setup::EnableFeatures if self.count > 0 => {
                self.all().for_each(|behind| behind.reset = true);
                (Setup::Reset(0), write(0, COMRESET))
            }
            Setup::Reset(port) if port < last => {
                (Setup::Reset(port + 1), write(port + 1, COMRESET))
            }
            Setup::Reset(_) => (Setup::Hold, pause(limit::COMRESET)),
            Setup::Hold => (Setup::Release(0), write(0, QUIET)),
            Setup::Release(port) if port < last => {
                (Setup::Release(port + 1), write(port + 1, QUIET))
            }
            Setup::Release(_) => (Setup::Settle, pause(limit::SETTLE)),
            Setup::Settle => (Setup::Look(0), status_of(0)),
            Setup::Look(port) => {
                self.settle_port(port, value);
                if port >= last {
                    self.is_set_up(context);
                    return None;
                }
                (Setup::Look(port + 1), status_of(port + 1))
            }
            Setup::EnableFeatures => {
                self.is_set_up(context);
                return None;
            }
        };
        Some((Errand::Setup(step), next))
    }

    /// What a device port looks like after the multiplier was set up.
    fn settle_port(&mut self, port: u8, status: u32) {
        let present = SataStatus::from(status).detection() != SataStatus::NOTHING;
        if present && self.behind(port).is_none() {
            self.found(port);
        }
        if let Some(behind) = self.behind(port).filter(|_| present) {
            behind.face.want_link();
        }
    }

    fn is_set_up(&mut self, context: &Context<'_>) {
        (self.failures, self.was_set_up) = (0, true);
        self.watch_at = context.now + limit::LOOK_SLOWLY;
        (self.rearm_at, self.rearms) = (context.now, limit::REARMS);
    }

    fn advance_watch(&mut self, step: Watch, left: u32, value: u32) -> Option<(Errand, Next)> {
        let port = left.trailing_zeros() as u8;
        let (step, left, next) = match step {
            Watch::Begun => {
                let read = Next::Read { port: CONTROL_PORT, register: general::ERROR };
                (Watch::Which, 0, read)
            }
            Watch::Which => return self.next_changed(value & ((1 << self.count) - 1)),
            Watch::ReadErrors => {
                let clear = Next::Write { port, register: of_port::ERROR, value };
                (Watch::ClearErrors { errors: value }, left, clear)
            }
            Watch::ClearErrors { errors } => (Watch::ReadStatus { errors }, left, status_of(port)),
            Watch::ReadStatus { errors } => {
                self.port_changed(port, errors, value);
                return self.next_changed(left & (left - 1));
            }
        };
        Some((Errand::Watch { step, left }, next))
    }

    fn next_changed(&self, left: u32) -> Option<(Errand, Next)> {
        let port = left.trailing_zeros() as u8;
        let read = Next::Read { port, register: of_port::ERROR };
        (left != 0).then_some((Errand::Watch { step: Watch::ReadErrors, left }, read))
    }

    /// Something has happened at a device port.
    fn port_changed(&mut self, port: u8, errors: u32, status: u32) {
        let detection = SataStatus::from(status).detection();
        if self.behind(port).is_none() && detection != SataStatus::NOTHING {
            self.found(port);
        }
        let Some(behind) = self.behind(port) else { return };
        let was_up = behind.face.link() != 0;
        // What a reset of the driver's own has set says nothing.
        let own = core::mem::replace(&mut behind.reset, false);
        let told = if own { TOLD & !serial_error::EXCHANGED } else { TOLD };
        behind.face.errors_came(errors & told);
        if errors & told & serial_error::EXCHANGED != 0 {
            // A port that is resetting its device takes the traces for its own.
            behind.port.doubt_cache();
        }
        let was_reset = was_up && errors & serial_error::EXCHANGED != 0;
        if detection != SataStatus::COMMUNICATION || was_reset {
            // Nothing is sent to it before its port has seen to it.
            behind.face.link_is(0);
        } else if !was_up {
            behind.face.want_link();
        }
    }
}

/// Resets the links of places that look empty. Whoever watches sees what comes of that.
fn advance_rearm(
    step: Rearm,
    ports: u32,
    left: u32,
    context: &Context<'_>,
) -> Option<(Errand, Next)> {
    let (port, rest) = (left.trailing_zeros() as u8, left & left.wrapping_sub(1));
    let write = |value: SataControl| {
        let value = value.into();
        Next::Write { port, register: of_port::CONTROL, value }
    };
    let (step, left, next) = match step {
        Rearm::Reset if left != 0 => (Rearm::Reset, rest, write(COMRESET)),
        Rearm::Reset => (Rearm::Hold, ports, Next::Pause { until: context.now + limit::COMRESET }),
        Rearm::Hold | Rearm::Release if left != 0 => (Rearm::Release, rest, write(QUIET)),
        Rearm::Hold | Rearm::Release => return None,
    };
    Some((Errand::Rearm { step, ports, left }, next))
}

fn status_of(port: u8) -> Next {
    Next::Read { port, register: of_port::STATUS }
}
