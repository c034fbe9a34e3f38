//! Links: how they come up, go down and are reset, and what is plugged into them (SATA §8, §15;
//! AHCI §7.3, §10.4).

use super::port::Link;
use super::{Event, HbaModel};
use crate::fault::Fault;
use crate::sata::{End, Report, Reset};
use core::time::Duration;
use outboard_ahci::spec::registers::{PortInterrupts, SataControl, serial_error};

/// From the end of a COMRESET to a link that is up.
const LINK_UP: Duration = Duration::from_micros(900);

impl HbaModel {
    /// A link is powered, or a device was plugged in: it comes up after a while.
    pub(super) fn begin_link(&mut self, index: u8) {
        let Some(port) = self.port_mut(index) else { return };
        let offline = SataControl::from(port.control).detection() != 0;
        if port.device.is_none() || !port.command.spin_up() || offline || port.is_up() {
            return;
        }
        port.link_epoch += 1;
        let epoch = port.link_epoch;
        self.link_up_after(index, LINK_UP, epoch);
    }

    /// The link comes up after a while, if the device is not away for longer.
    fn link_up_after(&mut self, index: u8, time: Duration, epoch: u32) {
        let at = self.now + time;
        let away = self.port_mut(index).map_or(at, |port| port.away_until);
        self.schedule.add(at.max(away), Event::LinkUp { port: index, epoch });
    }

    pub(super) fn write_link_control(&mut self, index: u8, value: u32) {
        let now = self.now;
        let Some(port) = self.port_mut(index) else { return };
        let before = SataControl::from(core::mem::replace(&mut port.control, value));
        let control = SataControl::from(value);
        let (was, is) = (before.detection(), control.detection());
        if is == SataControl::COMRESET && was != is {
            let started = port.command.start();
            port.reset_began = Some(now);
            port.link = Link::Down;
            port.link_epoch += 1;
            port.report = None;
            port.task_file = 0x80;
            self.trace.note(now, format_args!("port {index}: COMRESET"));
            if started {
                self.violation(format_args!("port {index}: COMRESET with ST set"));
            }
            self.drop_commands(index);
        }
        if was == SataControl::COMRESET && is == 0 {
            self.end_comreset(index);
        }
    }

    fn end_comreset(&mut self, index: u8) {
        let now = self.now;
        let Some(port) = self.port_mut(index) else { return };
        let held = port.reset_began.take().map(|began| now.since(began));
        if held.is_none_or(|held| held < Duration::from_millis(1)) {
            self.violation(format_args!("port {index}: COMRESET was held for {held:?}"));
        }
        const ANSWERS: [Fault; 3] = [Fault::ComresetIgnored, Fault::LinkSlow, Fault::PresenceOnly];
        let fault = self.strike(index, &ANSWERS);
        let slow = Duration::from_millis(self.random.between(20, 1_800));
        let Some(port) = self.port_mut(index) else { return };
        if port.device.is_none() {
            return;
        }
        let epoch = port.link_epoch;
        match fault {
            // One that is without power announces itself once it has it.
            Some(Fault::ComresetIgnored) if port.away_until > now => {
                self.link_up_after(index, LINK_UP, epoch);
            }
            Some(Fault::ComresetIgnored) => {}
            Some(Fault::PresenceOnly) => port.link = Link::Presence,
            Some(_) => {
                port.link = Link::Presence;
                self.link_up_after(index, slow, epoch);
            }
            None => self.link_up_after(index, LINK_UP, epoch),
        }
    }

    /// The device has announced itself (COMINIT), and the link is up.
    pub(super) fn link_up(&mut self, index: u8, epoch: u32) {
        let most = self.config.capabilities.speed().max(1);
        let now = self.now;
        let Some(port) = self.port_mut(index).filter(|port| port.link_epoch == epoch) else {
            return;
        };
        if port.device.is_none() {
            return;
        }
        if !port.command.spin_up() {
            // A port that listens only reports it (AHCI §10.10).
            port.errors |= serial_error::EXCHANGED;
            return self.update_pending(index);
        }
        let limit = SataControl::from(port.control).speed();
        port.link = Link::Up(if limit == 0 { most } else { limit.min(most) });
        port.errors |= serial_error::EXCHANGED | serial_error::PHY_READY;
        port.task_file = 0x80;
        let powered = core::mem::take(&mut port.unpowered);
        self.trace.note(now, format_args!("port {index}: link up"));
        self.drop_commands(index);
        self.reset_device(index, if powered { Reset::PowerOn } else { Reset::Hard });
        self.update_pending(index);
    }

    /// Resets the device; it reports after a while.
    fn reset_device(&mut self, index: u8, reset: Reset) {
        const SLOW: [Fault; 3] = [Fault::SpinUpSlow, Fault::SpinUpNever, Fault::SignatureWrong];
        let fault = self.strike(index, &SLOW);
        let slow = Duration::from_millis(self.random.between(500, 12_000));
        let now = self.now;
        let Some(port) = self.ports[usize::from(index)].as_deref_mut() else { return };
        let Some(device) = &mut port.device else { return };
        let Report { mut signature, mut takes } = device.reset(reset, now);
        let epoch = port.link_epoch;
        match fault {
            Some(Fault::SpinUpSlow) => takes += slow,
            Some(Fault::SpinUpNever) => return,
            Some(_) => signature = 0xdead_beef,
            None => {}
        }
        (port.report, port.ready) = (Some(signature), false);
        port.task_file = 0x80;
        self.after(takes, Event::Report { port: index, epoch });
    }

    pub(super) fn soft_reset(&mut self, index: u8) {
        self.drop_commands(index);
        self.reset_device(index, Reset::Soft);
    }

    pub(super) fn report(&mut self, index: u8, epoch: u32) {
        let Some(port) = self.port_mut(index).filter(|port| port.link_epoch == epoch) else {
            return;
        };
        // From now on it only waits until the HBA takes the FIS.
        port.ready = true;
        self.try_report(index);
    }

    /// Posts the device's first FIS, once it is ready: not while DIAG.X is set (AHCI §3.3.12).
    pub(super) fn try_report(&mut self, index: u8) {
        let now = self.now;
        let Some(port) = self.port_mut(index) else { return };
        let takes = port.errors & serial_error::EXCHANGED == 0 && port.command.fis_receive();
        if !takes || !port.ready || !port.is_up() {
            return;
        }
        let Some(signature) = port.report.take() else { return };
        port.ready = false;
        port.signature = signature;
        port.task_file = 0x150;
        port.status |= PortInterrupts::REGISTER_FIS;
        self.trace.note(now, format_args!("port {index}: reports {signature:#010x}"));
        let [count, a, b, c] = signature.to_le_bytes();
        let lba = u64::from_le_bytes([a, b, c, 0, 0, 0, 0, 0]);
        let end = End { error: 1, lba, count: count.into(), ..End::good(0) };
        self.post_register(index, &end);
        self.update_pending(index);
        self.look_for_commands(index);
    }

    /// The link is lost, and with it what the device worked on. It comes back after a while, if at
    /// all.
    pub(super) fn link_down(&mut self, index: u8, back: Option<Duration>) {
        let now = self.now;
        let Some(port) = self.port_mut(index) else { return };
        port.link = Link::Down;
        port.link_epoch += 1;
        port.report = None;
        port.errors |= serial_error::PHY_READY;
        port.task_file = 0x7f;
        let epoch = port.link_epoch;
        port.away_until = back.map_or(now, |back| now + back);
        self.trace.note(now, format_args!("port {index}: link down"));
        self.drop_commands(index);
        if let Some(back) = back {
            self.after(back, Event::LinkUp { port: index, epoch });
        }
        self.update_pending(index);
    }

    /// A device was plugged in. A port that listens only reports it (AHCI §10.10).
    pub(super) fn plugged(&mut self, index: u8) {
        let Some(port) = self.port_mut(index) else { return };
        if !port.command.spin_up() && port.device.is_some() {
            port.errors |= serial_error::EXCHANGED;
            self.update_pending(index);
        }
        self.begin_link(index);
    }

    /// Plugs in what was kept for it.
    pub(super) fn plug(&mut self, index: u8) {
        let Some(port) = self.port_mut(index).filter(|port| port.device.is_none()) else { return };
        port.device = port.spare.take().or_else(|| port.pulled.take());
        self.trace.note(self.now, format_args!("port {index}: plugged in"));
        self.plugged(index);
    }

    /// Pulls the device out. It loses power.
    pub(super) fn unplug(&mut self, index: u8) {
        let now = self.now;
        let Some(port) = self.ports[usize::from(index)].as_deref_mut() else { return };
        let Some(mut device) = port.device.take() else { return };
        device.cut_power(now, &mut self.random);
        port.unpowered = true;
        port.pulled = Some(device);
        self.trace.note(now, format_args!("port {index}: pulled out"));
        self.link_down(index, None);
    }
}
