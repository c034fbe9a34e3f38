//! Bringing the HBA up, resetting it, and bringing it to rest (AHCI §10.1, §10.4.3, §10.6).

use super::Hba;
use crate::config::{Reaping, limit};
use crate::multiplier::Multiplier;
use crate::port::Port;
use crate::spec::registers::{ALL_ONES, BOHC, CAP2, GHC, GlobalControl, HandOff, IS};
use outboard_block::Completion;
use outboard_hw::Instant;
use outboard_hw::registers::RegistersExt;
use outboard_pci::Device;

/// The states of an HBA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing has been done yet.
    Starting,
    /// Waiting for the BIOS to let go. `busy`: it said that it needs longer.
    HandOff { until: Instant, busy: bool },
    /// Waiting until the HBA is in AHCI mode.
    Enabling { until: Instant },
    /// Waiting for the end of a reset.
    Resetting { until: Instant },
    /// The ports are on their own.
    Running,
    /// At rest, as asked.
    Stopped,
    /// The HBA is gone, or does not come out of its reset.
    Lost,
}

impl<D: Device> Hba<D> {
    /// Goes on in a state that waits for registers.
    pub(super) fn step(&mut self, now: Instant, done: &mut dyn FnMut(Completion)) {
        if self.is_gone() {
            return self.lose(now, done);
        }
        self.look_at = Some(now + limit::LOOK);
        match self.state {
            State::Starting if self.registers.get(CAP2).hand_off() => {
                let ours = self.registers.get(BOHC).with_os_owned(true);
                self.registers.set(BOHC, ours);
                self.state = State::HandOff { until: now + limit::HAND_OFF, busy: false };
            }
            State::Starting => self.begin_enable(now),
            State::HandOff { until, busy } => self.await_hand_off(until, busy, now),
            State::Enabling { until } => self.await_enable(until, now, done),
            State::Resetting { until } => self.await_reset(until, now, done),
            State::Running | State::Stopped | State::Lost => self.look_at = None,
        }
    }

    fn await_hand_off(&mut self, until: Instant, busy: bool, now: Instant) {
        let HandOffStatus { owned, finishing } = HandOffStatus::of(self.registers.get(BOHC));
        if !owned {
            self.begin_enable(now);
        } else if now.reached(until) {
            if finishing && !busy {
                self.state = State::HandOff { until: now + limit::HAND_OFF_BUSY, busy: true };
            } else {
                // It has had its time; the reset takes the HBA from it (AHCI §10.6.3).
                self.begin_enable(now);
            }
        }
    }

    fn begin_enable(&mut self, now: Instant) {
        self.state = State::Enabling { until: now + limit::AHCI_ENABLE };
    }

    fn await_enable(&mut self, until: Instant, now: Instant, done: &mut dyn FnMut(Completion)) {
        let control = self.registers.get(GHC);
        if control.ahci() {
            self.begin_reset(now);
        } else if now.reached(until) {
            self.lose(now, done);
        } else {
            self.registers.set(GHC, control.with_ahci(true));
        }
    }

    pub(super) fn begin_reset(&mut self, now: Instant) {
        let (context, ports) = self.split(now);
        for port in ports.iter_mut().flatten().filter(|port| port.has_acknowledged()) {
            port.look_for_cut_off(&context);
        }
        self.look_for_cut_offs_behind(now);
        self.registers.set(GHC, GlobalControl::new().with_ahci(true).with_reset(true));
        self.state = State::Resetting { until: now + limit::HBA_RESET };
        self.look_at = Some(now);
    }

    fn await_reset(&mut self, until: Instant, now: Instant, done: &mut dyn FnMut(Completion)) {
        let control = self.registers.get(GHC);
        if control.reset() {
            if now.reached(until) {
                self.lose(now, done);
            }
            return;
        }
        if !control.ahci() {
            // The reset may have left AHCI mode (AHCI §3.1.2).
            self.registers.set(GHC, control.with_ahci(true));
        }
        self.registers.set(IS, ALL_ONES);
        // Only now: the HBA has forgotten whatever addresses an earlier owner gave it.
        self.device.start_bus_master();
        self.enable();
        (self.state, self.look_at) = (State::Running, None);
        self.watch_at = now + limit::WATCH;
        self.enclosure.was_reset();
        let (context, ports) = self.split(now);
        ports.iter_mut().flatten().for_each(|port| port.hba_was_reset(&context, done));
        self.multipliers_were_reset(now, done);
        self.check_ports(now, done);
    }

    /// Lets the HBA work, and interrupt unless it is masked (AHCI §3.1.2).
    pub(super) fn enable(&mut self) {
        let interrupts = self.config.reaping == Reaping::Interrupts && !self.masked;
        self.registers.set(GHC, GlobalControl::new().with_ahci(true).with_interrupts(interrupts));
    }

    /// What concerns more than one port: starting them, resetting the HBA, shutting down.
    pub(super) fn check_ports(&mut self, now: Instant, done: &mut dyn FnMut(Completion)) {
        if self.ports.iter().flatten().any(Port::needs_hba_reset) {
            return self.begin_reset(now);
        }
        if self.stopping {
            let behind = self.multipliers.iter().all(Multiplier::is_resting);
            let ports = self.ports.iter().flatten().all(Port::is_resting);
            if self.enclosure.is_idle() && ports && behind {
                self.rest();
            }
            return;
        }
        let staggered = self.capabilities.staggered();
        let (context, ports) = self.split(now);
        // One at a time if spinning up all disks at once would be too much for the power supply.
        // Those whose disk is known come first: somebody waits for it, and may wait for many places
        // that are empty otherwise.
        let mut spinning = ports.iter().flatten().any(Port::is_spinning_up);
        let awaited = ports.iter().flatten().any(|port| port.is_idle() && port.is_known());
        for port in ports.iter_mut().flatten().filter(|port| port.is_idle()) {
            if staggered && spinning {
                break;
            }
            if staggered && awaited && !port.is_known() {
                continue;
            }
            port.start(&context, done);
            spinning = true;
        }
    }

    /// Shuts the HBA down after its ports.
    fn rest(&mut self) {
        self.registers.set(GHC, GlobalControl::new().with_ahci(true));
        self.device.device().disable_interrupts();
        self.device.stop_bus_master();
        (self.state, self.look_at) = (State::Stopped, None);
    }

    /// The HBA is gone or cannot be used: it is cut off, and everything at its ports fails.
    pub(super) fn lose(&mut self, now: Instant, done: &mut dyn FnMut(Completion)) {
        // What was in flight may be given back only once the HBA can no longer reach it.
        self.device.stop_bus_master();
        (self.state, self.look_at) = (State::Lost, None);
        self.enclosure.gone(done);
        let (context, ports) = self.split(now);
        ports.iter_mut().flatten().for_each(|port| port.gone(&context, done));
        self.multipliers_are_gone(now, done);
    }
}

/// Who owns the HBA.
struct HandOffStatus {
    owned: bool,
    finishing: bool,
}

impl HandOffStatus {
    fn of(register: HandOff) -> Self {
        Self { owned: register.bios_owned(), finishing: register.bios_busy() }
    }
}
