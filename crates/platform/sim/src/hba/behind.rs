//! What is behind a multiplier: its device ports' links, its notifications, and what goes wrong
//! there (SATA §16).

use super::port::Port;
use super::{Event, HbaModel};
use crate::fault::Fault;
use crate::multiplier::{Asked, Multiplier};
use crate::sata::{End, SataDevice};
use crate::seat::{HOST, Seat};
use core::time::Duration;
use outboard_ahci::spec::multiplier::CONTROL_PORT;
use outboard_ahci::spec::registers::PortInterrupts;
use outboard_hw::Instant;

impl Port {
    /// The multiplier that is plugged in.
    pub(super) fn multiplier(&mut self) -> Option<&mut Multiplier> {
        self.seat.device.as_mut()?.multiplier()
    }

    /// The seat with this number.
    pub(super) fn seat_mut(&mut self, at: u8) -> Option<&mut Seat> {
        if at == HOST { Some(&mut self.seat) } else { self.multiplier()?.seat(at) }
    }
}

impl HbaModel {
    pub(super) fn seat_mut(&mut self, index: u8, at: u8) -> Option<&mut Seat> {
        self.port_mut(index)?.seat_mut(at)
    }

    /// Plugs a device into a port of the multiplier at a port.
    pub fn attach_behind(&mut self, port: u8, behind: u8, device: Box<dyn SataDevice>) {
        if let Some(seat) = self.seat_mut(port, behind).filter(|_| behind != HOST) {
            seat.device = Some(device);
        }
        self.plugged(port, behind);
    }

    /// Whether there is a multiplier at a port.
    pub fn has_multiplier(&mut self, port: u8) -> bool {
        self.port_mut(port).is_some_and(|port| port.multiplier().is_some())
    }

    /// The device behind a port of the multiplier at a port.
    pub fn device_behind(
        &mut self,
        port: u8,
        behind: u8,
    ) -> Option<&mut (dyn SataDevice + 'static)> {
        let multiplier = self.port_mut(port)?.multiplier()?;
        multiplier.seat(behind)?.device.as_deref_mut()
    }

    /// The disk that replaces the one behind a multiplier when it is pulled out for another.
    pub fn prepare_spare_behind(&mut self, port: u8, behind: u8, device: Box<dyn SataDevice>) {
        if let Some(seat) = self.seat_mut(port, behind).filter(|_| behind != HOST) {
            seat.spare = Some(device);
        }
    }

    /// Pulls the device behind a multiplier out; it is kept for [`replug`](Self::replug_behind).
    pub fn unplug_behind(&mut self, port: u8, behind: u8) {
        self.unplug(port, behind);
    }

    /// Plugs the device that was pulled out, or the one that was prepared for its place, in again.
    pub fn replug_behind(&mut self, port: u8, behind: u8) {
        self.plug(port, behind);
    }

    /// Lets a fault strike the next occasion that the device behind a multiplier gives, or the
    /// device itself.
    pub fn schedule_fault_behind(&mut self, at: Instant, port: u8, behind: u8, fault: Fault) {
        self.schedule.add(at, Event::StrikeBehind { port, behind, fault });
    }

    /// What the host has asked the multiplier to do.
    pub(super) fn do_what_was_asked(&mut self, index: u8) {
        let Some(multiplier) = self.port_mut(index).and_then(Port::multiplier) else { return };
        for asked in multiplier.take_asked() {
            match asked {
                Asked::Control { port, value } => self.write_link_control(index, port, value),
                Asked::ErrorsCleared { port } => self.try_report(index, port),
            }
        }
    }

    /// The multiplier tells that something has changed at its ports: a set-device-bits FIS with the
    /// notification bit, from the control port (SATA §16.3.5, AHCI §3.3.15).
    pub(super) fn tell_of_changes(&mut self, index: u8) {
        let Some(port) = self.port_mut(index) else { return };
        let up = port.is_up();
        let Some(multiplier) = port.multiplier() else { return };
        if !multiplier.has_news() || !up {
            return;
        }
        if self.strike(index, &[Fault::NotificationLost]).is_none() {
            self.notify_from(index, CONTROL_PORT);
        }
    }

    /// A set-device-bits FIS with its notification bit, which names no command.
    pub(super) fn notify_from(&mut self, index: u8, at: u8) {
        let notes = self.config.capabilities.notification();
        self.trace.note(self.now, format_args!("port {index}.{at}: notification"));
        let sender = self.sender(index, at);
        let Some(port) = self.port_mut(index) else { return };
        if notes {
            port.notified |= 1 << sender;
        }
        port.status |= PortInterrupts::SET_DEVICE_BITS_FIS;
        self.post_notification(index, at);
        self.update_pending(index);
    }

    /// Whether the HBA takes a frame that comes from there: without FIS-based switching only from
    /// the device that it has last sent a command (AHCI §9.2, §3.3.5).
    pub(super) fn accepts(&mut self, index: u8, at: u8) -> bool {
        let Some(port) = self.port_mut(index) else { return false };
        let switching = port.switching.enabled();
        if port.multiplier().is_none() || switching || port.shown == at {
            return true;
        }
        port.status |= PortInterrupts::PORT_MULTIPLIER;
        self.update_pending(index);
        false
    }

    /// Faults of multipliers that need no occasion; whether this is one.
    pub(super) fn strike_multiplier(&mut self, index: u8, behind: u8, fault: Fault) -> bool {
        let Some(port) = self.port_mut(index) else { return true };
        let up = port.is_up();
        let Some(ports) = port.multiplier().map(|multiplier| multiplier.ports()) else {
            return true;
        };
        let behind = behind % ports.max(1);
        let there = up && port.seat_mut(behind).is_some_and(|seat| seat.is_up());
        let of_device = matches!(
            fault,
            Fault::BehindUnplug
                | Fault::BehindReplug
                | Fault::BehindReplugOther
                | Fault::BehindLinkLost
        );
        if of_device && !there || !up {
            // There is nothing to be lost, or to send anything.
            return true;
        }
        match fault {
            Fault::BehindUnplug => self.unplug(index, behind),
            Fault::BehindReplug | Fault::BehindReplugOther => {
                if fault == Fault::BehindReplug
                    && let Some(seat) = self.seat_mut(index, behind)
                {
                    seat.spare = None;
                }
                self.unplug(index, behind);
                let back = Duration::from_millis(self.random.between(20, 20_000));
                self.after(back, Event::Plug { port: index, at: behind });
            }
            Fault::BehindLinkLost => {
                let back = Duration::from_millis(self.random.between(1, 90));
                self.link_down(index, behind, Some(back));
            }
            Fault::MultiplierRestart => {
                let back = Duration::from_millis(self.random.between(5, 90));
                self.link_down(index, HOST, Some(back));
            }
            Fault::NotificationSpurious => self.notify_from(index, CONTROL_PORT),
            _ => return false,
        }
        self.note_struck_behind(index, of_device.then_some(behind), fault, None);
        true
    }

    /// How a fault ends a command for the multiplier's own registers, if it does.
    pub(super) fn draw_for_registers(&mut self, index: u8) -> Option<Fault> {
        self.strike(index, &[Fault::RegisterAborted, Fault::RegisterNeverEnds])
    }

    /// Whether a command's last frame is lost, since it names another port.
    pub(super) fn misdirected(&mut self, index: u8, at: u8, end: &End) -> bool {
        if at == HOST || end.is_bad() || self.strike(index, &[Fault::WrongMultiplierPort]).is_none()
        {
            return false;
        }
        if let Some(port) = self.port_mut(index) {
            port.status |= PortInterrupts::PORT_MULTIPLIER;
        }
        self.update_pending(index);
        true
    }
}
