//! Links: how they come up, go down and are reset, and what is plugged into them (SATA §8, §15;
//! AHCI §7.3, §10.4). Those behind a multiplier do the same as the HBA's own.

use super::{Event, HbaModel};
use crate::fault::Fault;
use crate::sata::{End, Report, Reset};
use crate::seat::{HOST, Link};
use core::time::Duration;
use outboard_ahci::spec::registers::{PortInterrupts, SataControl, serial_error};

/// From the end of a COMRESET to a link that is up.
const LINK_UP: Duration = Duration::from_micros(900);

impl HbaModel {
    /// A link is powered, or a device was plugged in: it comes up after a while.
    pub(super) fn begin_link(&mut self, index: u8, at: u8) {
        let Some(port) = self.port_mut(index) else { return };
        let powered = at != HOST || port.command.spin_up() && port.is_closed();
        let Some(seat) = port.seat_mut(at) else { return };
        if seat.device.is_none() || !powered || seat.is_offline() || seat.is_up() {
            return;
        }
        seat.link_epoch += 1;
        let epoch = seat.link_epoch;
        self.link_up_after(index, at, LINK_UP, epoch);
    }

    /// A device that is without power announces itself once it has it, whatever was done to the
    /// port in the meantime.
    pub(super) fn keep_announcement(&mut self, index: u8) {
        let now = self.now;
        let Some(seat) = self.seat_mut(index, HOST) else { return };
        if seat.device.is_some() && !now.reached(seat.away_until) {
            let epoch = seat.link_epoch;
            self.link_up_after(index, HOST, LINK_UP, epoch);
        }
    }

    /// The link comes up after a while, if the device is not away for longer.
    fn link_up_after(&mut self, index: u8, at: u8, time: Duration, epoch: u32) {
        let earliest = self.now + time;
        let away = self.seat_mut(index, at).map_or(earliest, |seat| seat.away_until);
        self.schedule.add(earliest.max(away), Event::LinkUp { port: index, at, epoch });
    }

    pub(super) fn write_link_control(&mut self, index: u8, at: u8, value: u32) {
        let now = self.now;
        let Some(port) = self.port_mut(index) else { return };
        // A driver that was lied to about PxCMD cannot know.
        let started = port.command.start() && !port.kept;
        let saves = port.command.link_power() && at == HOST;
        let Some(seat) = port.seat_mut(at) else { return };
        let before = SataControl::from(core::mem::replace(&mut seat.control, value));
        let control = SataControl::from(value);
        let (was, is) = (before.detection(), control.detection());
        if was != is && is != 0 {
            seat.reset_began = (is == SataControl::COMRESET).then_some(now);
            seat.link = Link::Down;
            seat.link_epoch += 1;
            seat.report = None;
            seat.task_file = 0x80;
            seat.resets += u32::from(is == SataControl::COMRESET);
            self.trace.note(now, format_args!("port {index}.{at}: COMRESET"));
            if saves {
                self.violation(format_args!("port {index}: COMRESET for a link that saves power"));
            }
            if started && at == HOST {
                self.violation(format_args!("port {index}: COMRESET with ST set"));
            }
            self.drop_commands(index, at);
        }
        if was == SataControl::COMRESET && is == 0 {
            self.end_comreset(index, at);
        } else if was != is && is == 0 {
            self.begin_link(index, at);
        }
    }

    fn end_comreset(&mut self, index: u8, at: u8) {
        let now = self.now;
        let Some(seat) = self.seat_mut(index, at) else { return };
        let held = seat.reset_began.take().map(|began| now.since(began));
        if held.is_none_or(|held| held < Duration::from_millis(1)) {
            self.violation(format_args!("port {index}.{at}: COMRESET was held for {held:?}"));
        }
        const ANSWERS: [Fault; 3] = [Fault::ComresetIgnored, Fault::LinkSlow, Fault::PresenceOnly];
        let fault = self.strike(index, &ANSWERS);
        let slow = Duration::from_millis(self.random.between(20, 1_800));
        let Some(seat) = self.seat_mut(index, at) else { return };
        if seat.device.is_none() {
            return;
        }
        let epoch = seat.link_epoch;
        match fault {
            // One that is without power announces itself once it has it.
            Some(Fault::ComresetIgnored) if seat.away_until > now => {
                self.link_up_after(index, at, LINK_UP, epoch);
            }
            Some(Fault::ComresetIgnored) => {}
            Some(Fault::PresenceOnly) => seat.link = Link::Presence,
            Some(_) => {
                seat.link = Link::Presence;
                self.link_up_after(index, at, slow, epoch);
            }
            None => self.link_up_after(index, at, LINK_UP, epoch),
        }
    }

    /// The device has announced itself (COMINIT), and the link is up.
    pub(super) fn link_up(&mut self, index: u8, at: u8, epoch: u32) {
        let most = self.config.capabilities.speed().max(1);
        let now = self.now;
        let Some(port) = self.port_mut(index) else { return };
        let closed = at != HOST || port.is_closed();
        let powered = at != HOST || port.command.spin_up();
        let Some(seat) = port.seat_mut(at).filter(|seat| seat.link_epoch == epoch) else { return };
        if seat.device.is_none() || !closed {
            return;
        }
        if !powered {
            return self.announced(index);
        }
        let limit = SataControl::from(seat.control).speed();
        seat.link = Link::Up(if limit == 0 { most } else { limit.min(most) });
        seat.errors |= serial_error::EXCHANGED | serial_error::PHY_READY;
        seat.task_file = 0x80;
        let powered = core::mem::take(&mut seat.unpowered);
        if at == HOST
            && let Some(port) = self.port_mut(index)
        {
            port.shown = HOST;
        }
        self.trace.note(now, format_args!("port {index}.{at}: link up"));
        self.drop_commands(index, at);
        self.reset_device(index, at, if powered { Reset::PowerOn } else { Reset::Hard });
        self.errors_changed(index, at);
    }

    /// Resets the device; it reports after a while.
    fn reset_device(&mut self, index: u8, at: u8, reset: Reset) {
        const SLOW: [Fault; 3] = [Fault::SpinUpSlow, Fault::SpinUpNever, Fault::SignatureWrong];
        let fault = self.strike(index, &SLOW);
        let slow = Duration::from_millis(self.random.between(500, 12_000));
        let now = self.now;
        let Some(seat) = self.seat_mut(index, at) else { return };
        let Some(device) = &mut seat.device else { return };
        let Report { mut signature, mut takes } = device.reset(reset, now);
        // What it was going to report after another reset is void.
        seat.link_epoch += 1;
        seat.report = None;
        let epoch = seat.link_epoch;
        seat.task_file = 0x80;
        match fault {
            _ if takes == Duration::MAX => return,
            Some(Fault::SpinUpSlow) => takes += slow,
            Some(Fault::SpinUpNever) => return,
            Some(_) => signature = 0xdead_beef,
            None => {}
        }
        // One that is starting begins anew when its link is reset, and goes on otherwise.
        let (before, until) = seat.starting;
        if !now.reached(until) {
            takes = takes.max(if reset == Reset::Soft { until.since(now) } else { before });
        }
        seat.starting = (takes, now + takes);
        (seat.report, seat.ready) = (Some(signature), false);
        self.after(takes, Event::Report { port: index, at, epoch });
    }

    pub(super) fn soft_reset(&mut self, index: u8, at: u8) {
        self.forget_commands(index, at);
        self.reset_device(index, at, Reset::Soft);
    }

    pub(super) fn report(&mut self, index: u8, at: u8, epoch: u32) {
        let Some(seat) = self.seat_mut(index, at).filter(|seat| seat.link_epoch == epoch) else {
            return;
        };
        // From now on it only waits until the frame is taken.
        seat.ready = true;
        self.try_report(index, at);
    }

    /// Sends the device's first FIS, once it is ready: not while DIAG.X is set (AHCI §3.3.12;
    /// SATA §16.3.3.6), and not before the HBA receives.
    pub(super) fn try_report(&mut self, index: u8, at: u8) {
        let now = self.now;
        let Some(port) = self.port_mut(index) else { return };
        let receives = port.command.fis_receive() && port.seat.is_up();
        let Some(seat) = port.seat_mut(at) else { return };
        if seat.is_exchanged() || !receives || !seat.ready || !seat.is_up() {
            return;
        }
        let Some(signature) = seat.report.take() else { return };
        seat.ready = false;
        seat.task_file = 0x150;
        self.trace.note(now, format_args!("port {index}.{at}: reports {signature:#010x}"));
        if !self.accepts(index, at) {
            return;
        }
        let [count, a, b, c] = signature.to_le_bytes();
        let lba = u64::from_le_bytes([a, b, c, 0, 0, 0, 0, 0]);
        let end = End { error: 1, lba, count: count.into(), ..End::good(0) };
        if let Some(port) = self.port_mut(index) {
            port.signature = signature;
            port.status |= PortInterrupts::REGISTER_FIS;
        }
        self.post_register(index, at, &end);
        self.update_pending(index);
        self.look_for_commands(index);
    }

    /// Likewise for all that may have to report.
    pub(super) fn report_all(&mut self, index: u8) {
        (0..=HOST).rev().for_each(|at| self.try_report(index, at));
    }

    /// The link is lost, and with it what the device worked on. It comes back after a while, if at
    /// all.
    pub(super) fn link_down(&mut self, index: u8, at: u8, back: Option<Duration>) {
        let now = self.now;
        let Some(seat) = self.seat_mut(index, at) else { return };
        seat.link = Link::Down;
        seat.link_epoch += 1;
        seat.report = None;
        seat.errors |= serial_error::PHY_READY;
        if at == HOST {
            // Of a link behind a multiplier the HBA knows no more than what frames tell.
            seat.task_file = 0x7f;
        }
        let epoch = seat.link_epoch;
        seat.away_until = back.map_or(now, |back| now + back);
        self.trace.note(now, format_args!("port {index}.{at}: link down"));
        self.drop_commands(index, at);
        if let Some(back) = back {
            self.after(back, Event::LinkUp { port: index, at, epoch });
        }
        self.errors_changed(index, at);
    }

    /// SError has changed: shown in PxIS, or told by the multiplier.
    pub(super) fn errors_changed(&mut self, index: u8, at: u8) {
        if at != HOST {
            self.tell_of_changes(index);
        }
        self.update_pending(index);
    }

    /// A device announces itself to a port that listens, which only reports it (AHCI §10.10). An
    /// HBA that is being reset does not hear it.
    fn announced(&mut self, index: u8) {
        if !self.control.reset() {
            self.set_errors(index, serial_error::EXCHANGED);
        }
    }

    /// A device was plugged in.
    pub(super) fn plugged(&mut self, index: u8, at: u8) {
        let Some(port) = self.port_mut(index) else { return };
        if at == HOST && !port.command.spin_up() && port.seat.device.is_some() {
            self.announced(index);
        }
        self.begin_link(index, at);
    }

    /// Plugs in what was kept for it.
    pub(super) fn plug(&mut self, index: u8, at: u8) {
        let Some(seat) = self.seat_mut(index, at).filter(|seat| seat.device.is_none()) else {
            return;
        };
        seat.device = seat.spare.take().or_else(|| seat.pulled.take());
        self.trace.note(self.now, format_args!("port {index}.{at}: plugged in"));
        self.plugged(index, at);
    }

    /// Pulls the device out. It loses power.
    pub(super) fn unplug(&mut self, index: u8, at: u8) {
        let now = self.now;
        let Some(port) = self.ports[usize::from(index)].as_deref_mut() else { return };
        let Some(seat) = port.seat_mut(at) else { return };
        let Some(mut device) = seat.device.take() else { return };
        device.cut_power(now, &mut self.random);
        seat.unpowered = true;
        seat.pulled = Some(device);
        self.trace.note(now, format_args!("port {index}.{at}: pulled out"));
        self.link_down(index, at, None);
    }
}
