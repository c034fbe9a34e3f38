//! How much power it draws (ACS §4, "Power Management feature set").

use super::{ABORTED, Abilities, Disk};
use crate::sata::End;
use core::time::Duration;
use outboard_ahci::spec::ata::{command, power_mode, standby_seconds};
use outboard_ahci::spec::fis::RegisterH2d;
use outboard_hw::Instant;

/// The states of power management (ACS §4, "Power Management states").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerState {
    /// PM0: ready at once.
    Active,
    /// PM1: ready soon.
    Idle,
    /// PM2: platters stand still, or nothing is supplied that need not be.
    Standby,
    /// PM3: nothing is answered but a reset.
    Sleep,
    /// PM4, power-up in standby: stands still until SET FEATURES says otherwise.
    WaitsForSpinUp,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Power {
    pub(super) state: PowerState,
    /// After how long without an access it goes to standby.
    timer: Option<Duration>,
    used: Instant,
}

impl Power {
    pub(super) const fn new() -> Self {
        Self { state: PowerState::Active, timer: None, used: Instant::ORIGIN }
    }

    /// As it is when power comes.
    pub(super) fn at_power_on(&mut self, starts_in_standby: bool, now: Instant) {
        let state = if starts_in_standby { PowerState::WaitsForSpinUp } else { PowerState::Active };
        *self = Self { state, timer: None, used: now };
    }

    /// Forgets the standby timer.
    pub(super) const fn stop_timer(&mut self) {
        self.timer = None;
    }

    /// A reset ends sleep, in standby.
    pub(super) fn end_sleep(&mut self) {
        if self.state == PowerState::Sleep {
            self.state = PowerState::Standby;
        }
    }

    pub(super) fn spin_up(&mut self) {
        if self.state == PowerState::WaitsForSpinUp {
            self.state = PowerState::Active;
        }
    }

    /// Time has passed.
    pub(super) fn advance(&mut self, now: Instant) {
        if let Some(timer) = self.timer
            && matches!(self.state, PowerState::Active | PowerState::Idle)
            && now.since(self.used) >= timer
        {
            self.state = PowerState::Standby;
        }
    }

    /// Gets the medium ready for an access until `now` and `takes` later; returns how long that
    /// takes.
    pub(super) fn wake(&mut self, spin_up: Duration, now: Instant) -> Duration {
        let takes = if self.state == PowerState::Standby { spin_up } else { Duration::ZERO };
        (self.state, self.used) = (PowerState::Active, now + takes);
        takes
    }
}

impl Disk {
    /// How much power it draws.
    pub const fn power_state(&self) -> PowerState {
        self.power.state
    }

    /// Whether it sleeps: until a reset all commands that it takes never end, which is what
    /// [`plan`](crate::sata::SataDevice::plan) says of them.
    pub const fn asleep(&self) -> bool {
        matches!(self.power.state, PowerState::Sleep)
    }

    /// How long a power command takes.
    pub(super) fn power_takes(&self, fis: &RegisterH2d) -> Duration {
        let wakes = matches!(fis.command, command::IDLE | command::IDLE_IMMEDIATE)
            && self.power.state == PowerState::Standby;
        if wakes { self.config.timing.spin_up } else { Duration::ZERO }
    }

    pub(super) fn manage_power(&mut self, fis: &RegisterH2d) -> End {
        if !self.config.has(Abilities::POWER_MANAGEMENT) {
            return ABORTED;
        }
        if fis.command == command::CHECK_POWER_MODE {
            let mode = match self.power.state {
                PowerState::Active | PowerState::Sleep => power_mode::ACTIVE,
                PowerState::Idle => power_mode::IDLE,
                PowerState::Standby | PowerState::WaitsForSpinUp => power_mode::STANDBY,
            };
            return End { count: mode.into(), ..End::good(0) };
        }
        let state = match fis.command {
            command::STANDBY | command::STANDBY_IMMEDIATE => PowerState::Standby,
            command::SLEEP => PowerState::Sleep,
            _ => PowerState::Idle,
        };
        if matches!(fis.command, command::STANDBY | command::IDLE) {
            let Some(seconds) = standby_seconds(fis.count[0]) else { return ABORTED };
            let timer = Duration::from_secs(seconds.into());
            self.power.timer = (seconds > 0).then_some(timer);
        }
        // Nobody waits for SPIN UP in order to stand still, or to sleep.
        let waits = self.power.state == PowerState::WaitsForSpinUp;
        if !(waits && matches!(state, PowerState::Standby | PowerState::Idle)) {
            self.power.state = state;
            self.power.used = self.now;
        }
        if matches!(state, PowerState::Standby | PowerState::Sleep) {
            self.smart.abort_test(self.now);
        }
        End::good(0)
    }
}
