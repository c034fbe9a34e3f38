//! A port's link: its speed, its errors, and how it saves power (AHCI §8, §3.3.7, §3.3.11).
//!
//! Power is saved only while the port is in use. Before anything that resets the link it is woken,
//! and once the device is ready it is set again.

use super::{Context, Port, State};
use crate::config::{Reaping, limit};
use crate::event::{Cause, Event};
use crate::quirks;
use crate::spec::ata::Error;
use crate::spec::identify::Identify;
use crate::spec::log::SleepTiming;
use crate::spec::registers::{
    ALL_ONES, DeviceSleep, PX_CMD, PX_DEVSLP, PX_IE, PX_SCTL, PX_SERR, PX_SSTS, PortInterrupts,
    SataControl, SataStatus, interface_state, serial_error,
};
use heapless::Deque;
use outboard_block::manage::LinkPower;
use outboard_block::{
    BlockError, Completion, Management, Operation, Refused, RefusedReason, Request, Tag, UnitState,
};
use outboard_hw::dma::SgList;
use outboard_hw::registers::RegistersExt;
use outboard_hw::{Instant, Registers};

/// Requests that need no command of the device, held at once for a port.
const LOCAL: usize = 4;
/// How long a port is idle before its device is put to sleep.
const SLEEP_AFTER_MS: u16 = 1000;

/// What is known of a link, and asked of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    /// How it is to save power.
    pub(super) power: LinkPower,
    /// Most saving that HBA, port and device are capable of.
    pub(super) most: LinkPower,
    /// How long the device takes to fall asleep and to wake.
    pub(super) timing: SleepTiming,
    /// The device was told that it may be put to sleep.
    pub(super) sleep_enabled: bool,
    /// It did not want to hear of it.
    pub(super) sleep_refused: bool,
    /// How it saves power by now.
    applied: LinkPower,
    /// Generation of its speed when it came up last.
    speed: u8,
    /// Highest generation allowed; 0 for any.
    speed_limit: u8,
    /// Interface errors, and when the last one was.
    errors: u8,
    last_error: Option<Instant>,
}

impl Link {
    pub(super) const fn new() -> Self {
        Self {
            power: LinkPower::Full,
            most: LinkPower::Full,
            timing: SleepTiming::DEFAULT,
            sleep_enabled: false,
            sleep_refused: false,
            applied: LinkPower::Full,
            speed: 0,
            speed_limit: 0,
            errors: 0,
            last_error: None,
        }
    }

    /// Another device is, or will be, at its other end.
    pub(super) fn replaced(&mut self) {
        *self = Self::new();
    }

    /// The HBA was reset: it saves no power.
    pub(super) fn reset(&mut self) {
        self.applied = LinkPower::Full;
    }

    /// Whether it has been up with the device that is, or was, at its other end.
    pub(super) const fn was_up(&self) -> bool {
        self.speed != 0
    }

    /// Whether its loss makes an interrupt.
    pub(super) fn tells_its_loss(&self) -> bool {
        self.power == LinkPower::Full
    }

    /// Whether its speed is limited.
    pub(super) const fn is_limited(&self) -> bool {
        self.speed_limit != 0
    }

    /// PxSCTL while the link is brought up: no power saving.
    pub(super) const fn quiet(&self) -> SataControl {
        SataControl::new()
            .with_speed(self.speed_limit)
            .with_no_power_states(SataControl::NO_POWER_STATES)
    }

    /// PxSCTL in use: the power states that were asked for.
    const fn control(&self) -> SataControl {
        let forbidden = match self.power {
            LinkPower::Full => SataControl::NO_POWER_STATES,
            LinkPower::Partial => SataControl::NO_SLUMBER | SataControl::NO_DEVICE_SLEEP,
            LinkPower::Slumber => SataControl::NO_DEVICE_SLEEP,
            LinkPower::DeviceSleep => 0,
        };
        self.quiet().with_no_power_states(forbidden)
    }

    /// Notes an interface error; whether the link is to be slower from now on.
    fn fails(&mut self, now: Instant) -> bool {
        let calm = self.last_error.is_none_or(|last| now.since(last) >= limit::LINK_CALM);
        self.errors = if calm { 1 } else { self.errors.saturating_add(1) };
        self.last_error = Some(now);
        // A generation that does not exist is not believed, and 1.5 Gb/s is the slowest.
        if self.errors < limit::LINK_ERRORS || !(2..=3).contains(&self.speed) {
            return false;
        }
        (self.errors, self.speed_limit) = (0, self.speed - 1);
        // Until the link has come up again, which tells what it really is.
        self.speed = 0;
        true
    }
}

/// A request that needs no command of the device.
#[derive(Debug)]
pub(super) struct Local {
    tag: Tag,
    power: LinkPower,
    data: SgList,
}

/// Such requests, in order.
pub(super) type Locals = Deque<Local, LOCAL>;

impl<R: Registers> Port<R> {
    /// Notes at which speed the link has come up.
    pub(super) fn link_is_up(&mut self, speed: u8, context: &Context<'_>) {
        self.link.speed = speed;
        self.record(context, Event::LinkUp(speed));
    }

    /// Takes a request that concerns the link alone; gives back any other.
    pub(super) fn submit_local(&mut self, tag: Tag, request: Request) -> LocalOutcome {
        let Operation::Manage(Management::SetLinkPower(power)) = request.operation else {
            return LocalOutcome::NotLocal(request);
        };
        let state = self.unit.state;
        let usable = !self.stopping
            && matches!(state, UnitState::Ready | UnitState::Recovering | UnitState::Locked);
        let refused = match () {
            () if !usable => Some(RefusedReason::NotReady(state)),
            () if power > self.link.most => Some(RefusedReason::Unsupported),
            () if request.data.bytes() != 0 => Some(RefusedReason::BadMemory),
            () if self.local.is_full() => Some(RefusedReason::QueueFull),
            () => None,
        };
        if let Some(reason) = refused {
            return LocalOutcome::Taken(Err(request.refused(reason)));
        }
        let _ = self.local.push_back(Local { tag, power, data: request.data });
        LocalOutcome::Taken(Ok(()))
    }

    /// Whether a request waits for the commands in flight to end.
    pub(super) fn wants_quiet(&self) -> bool {
        let sleep = |local: &Local| local.power == LinkPower::DeviceSleep;
        self.local.front().is_some_and(sleep) && !self.link.sleep_enabled
    }

    /// Carries out the requests that concern the link alone. The port is ready.
    pub(super) fn serve_local(&mut self, context: &Context<'_>, done: &mut dyn FnMut(Completion)) {
        while let Some(power) = self.local.front().map(|local| local.power) {
            // The device may have turned out to be able to do less, or be another one.
            let possible = power <= self.link.most;
            if possible && self.wants_quiet() {
                if !self.slots.in_flight() {
                    self.link.power = power;
                    self.wake_link();
                    self.begin_sleep_setup(context);
                }
                return;
            }
            if possible {
                self.link.power = power;
                self.record(context, Event::LinkPower(power));
                self.apply_link_power();
                // What the states before have left behind is no change of the link (AHCI §8.3.1.3).
                self.registers.set(PX_SERR, serial_error::PHY_READY);
                self.enable_interrupts(context);
            }
            let result = if possible { Ok(()) } else { Err(BlockError::Unsupported) };
            self.complete_local(result, done);
        }
    }

    fn complete_local(&mut self, result: Result<(), BlockError>, done: &mut dyn FnMut(Completion)) {
        if let Some(Local { tag, data, .. }) = self.local.pop_front() {
            done(Completion { unit: self.id, tag, result, data });
        }
    }

    /// Fails the requests that concern the link alone: the device is gone.
    pub(super) fn drop_local(&mut self, done: &mut dyn FnMut(Completion)) {
        while !self.local.is_empty() {
            self.complete_local(Err(BlockError::Gone), done);
        }
    }

    /// Finds out how much power the link could save (AHCI §3.1.1, §3.1.10, §3.3.17).
    pub(super) fn find_link_power(&mut self, identify: &Identify, context: &Context<'_>) {
        let (hba, more) = (context.capabilities, context.capabilities2);
        let quirks = context.quirks;
        let identity = identify.identity();
        let disk = quirks::of_disk(&identity.model, &identity.firmware);
        let managed = hba.link_power()
            && identify.has_host_link_power()
            && !(quirks.no_link_power || disk.no_link_power);
        let sleep = more.device_sleep()
            && more.aggressive_sleep()
            && !quirks.no_device_sleep
            && !self.link.sleep_refused;
        self.link.most = match () {
            () if !managed => LinkPower::Full,
            () if hba.slumber()
                && sleep
                && identify.device_sleep().is_present()
                && self.has_sleep_pin() =>
            {
                LinkPower::DeviceSleep
            }
            () if hba.slumber() => LinkPower::Slumber,
            () if hba.partial() => LinkPower::Partial,
            () => LinkPower::Full,
        };
        self.link.power = self.link.power.min(self.link.most);
        self.link.sleep_enabled = false;
    }

    fn has_sleep_pin(&self) -> bool {
        let register = self.registers.get(PX_DEVSLP);
        register.present() && register.into_bits() != ALL_ONES
    }

    /// Lets the link save power as was asked, and says so.
    pub(super) fn apply_link_power(&mut self) {
        let features = &mut self.unit.features;
        (features.link_power, features.link_power_most) = (self.link.power, self.link.most);
        features.link_speed = self.link.speed;
        self.link.applied = self.link.power;
        if self.link.most == LinkPower::Full {
            return;
        }
        let Some(command) = self.command_register() else { return };
        let saving = self.link.power != LinkPower::Full;
        let slumber = self.link.power > LinkPower::Partial;
        self.sleep(self.link.power == LinkPower::DeviceSleep);
        // The states are allowed before the HBA uses them, and forbidden before it must not.
        self.registers.set(PX_SCTL, self.link.control());
        let command = command.with_link_power(saving).with_prefer_slumber(slumber);
        let state = if saving { interface_state::IDLE } else { interface_state::ACTIVE };
        self.registers.set(PX_CMD, command.with_interface_state(state));
    }

    /// Switches device sleep by the HBA on or off, where there is such a thing.
    fn sleep(&mut self, on: bool) {
        if self.link.sleep_enabled {
            let register = self.registers.get(PX_DEVSLP);
            self.registers.set(PX_DEVSLP, register.with_aggressive(on));
        }
    }

    /// Sets the times of device sleep. The command engine is at rest (AHCI §3.3.17).
    pub(super) fn set_sleep_timing(&mut self) {
        let SleepTiming { minimum_assertion_ms, exit_timeout_ms } = self.link.timing;
        let register = self.registers.get(PX_DEVSLP).with_aggressive(false);
        self.registers.set(PX_DEVSLP, register);
        // The idle time is multiplied by DM + 1, which the HBA says.
        let times = u16::from(register.idle_multiplier_minus_one()) + 1;
        let idle = (SLEEP_AFTER_MS / times).clamp(1, 0x3ff);
        let timed: DeviceSleep = register
            .with_exit_timeout_ms(exit_timeout_ms)
            .with_minimum_assertion_ms(minimum_assertion_ms)
            .with_idle_timeout_ms(idle);
        self.registers.set(PX_DEVSLP, timed);
    }

    /// Ends all saving of power, so that the link can be reset or brought up (AHCI §8.3.1).
    pub(super) fn wake_link(&mut self) {
        if self.link.applied == LinkPower::Full {
            return;
        }
        let Some(command) = self.command_register() else { return };
        self.sleep(false);
        self.registers.set(PX_SCTL, self.link.quiet());
        let command = command.with_link_power(false).with_prefer_slumber(false);
        self.registers.set(PX_CMD, command.with_interface_state(interface_state::ACTIVE));
        self.link.applied = LinkPower::Full;
    }

    /// What the link's loss means while the port is ready.
    pub(super) fn link_is_down(&self) -> Option<Cause> {
        let status = self.registers.get(PX_SSTS);
        let saving = self.link.power != LinkPower::Full
            && status.detection() == SataStatus::PRESENT
            && matches!(
                status.power(),
                SataStatus::PARTIAL | SataStatus::SLUMBER | SataStatus::DEVICE_SLEEP
            );
        let up = status.detection() == SataStatus::COMMUNICATION || saving;
        (!up).then_some(Cause::LinkDown)
    }

    /// Counts what PxSERR says, and clears it but for what says that a device was cut off.
    fn take_serial_errors(&mut self, context: &Context<'_>) {
        // Where the bits mean tags, they say nothing of the link.
        if context.quirks.queued_failure_in_serr {
            return;
        }
        let errors = self.registers.get(PX_SERR);
        if errors == 0 || errors == ALL_ONES {
            return;
        }
        self.registers.set(PX_SERR, errors & !serial_error::EXCHANGED);
        let recovered = serial_error::RECOVERED_DATA | serial_error::RECOVERED_COMMUNICATION;
        self.counters.recovered_errors += u64::from(errors & recovered != 0);
    }

    /// Counts what trouble says of the link. Whether it has to be made slower, which the port's
    /// next reset does.
    pub(super) fn judge_link(&mut self, cause: Cause, context: &Context<'_>) -> bool {
        self.take_serial_errors(context);
        let failed = match cause {
            Cause::Fatal(interrupts) => interrupts.contains(PortInterrupts::INTERFACE_FATAL),
            Cause::TaskFile { error, .. } | Cause::Queued { error, .. } => {
                Error::from_bits_retain(error).contains(Error::INTERFACE_CRC)
            }
            _ => false,
        };
        failed && self.link_failed(context)
    }

    /// Counts an interface error; whether the link has to be made slower.
    fn link_failed(&mut self, context: &Context<'_>) -> bool {
        self.counters.interface_errors += 1;
        let slower = self.link.fails(context.now);
        if slower {
            self.counters.slower_links += 1;
            self.record(context, Event::SlowerLink(self.link.speed_limit));
        }
        slower
    }

    /// Serves what is worth noting, and stops nothing. Until the next look around the port gets no
    /// such interrupt again, so that they cannot come in a storm.
    pub(super) fn serve_noise(&mut self, noise: PortInterrupts, context: &Context<'_>) {
        let link = self.link_is_down();
        // PxIS.PRCS and UFS are cleared through PxSERR (AHCI §3.3.5).
        self.take_serial_errors(context);
        self.noisy = true;
        self.enable_interrupts(context);
        if noise.intersects(PortInterrupts::UNKNOWN_FIS | PortInterrupts::PORT_MULTIPLIER) {
            self.counters.unknown_fises += 1;
        }
        if noise.intersects(PortInterrupts::PRESENCE_SWITCH | PortInterrupts::COLD_PRESENCE) {
            self.presence_changed(context);
        }
        if self.state != State::Ready {
            return;
        }
        if noise.contains(PortInterrupts::INTERFACE_NON_FATAL) && self.link_failed(context) {
            self.begin_recovery(Cause::LinkErrors, context);
        } else if let Some(cause) = link {
            self.begin_recovery(cause, context);
        }
    }

    /// What is worth noting. While the link saves power, its PHY is not ready now and then, which
    /// means nothing (AHCI §8.3.1.3).
    pub(super) fn noise(&self) -> PortInterrupts {
        match self.link.power {
            LinkPower::Full => NOISE,
            _ => NOISE.difference(PortInterrupts::PHY_READY),
        }
    }

    /// Lets the port send the interrupts that matter while it is ready.
    pub(super) fn enable_interrupts(&mut self, context: &Context<'_>) {
        let enabled = match context.config.reaping {
            Reaping::Interrupts if self.noisy => ENABLED,
            Reaping::Interrupts => ENABLED | self.noise(),
            Reaping::Polling => PortInterrupts::empty(),
        };
        self.registers.set(PX_IE, enabled);
    }
}

/// What became of a request.
pub(super) enum LocalOutcome {
    /// It was taken, or refused.
    Taken(Result<(), Refused>),
    /// It needs the device.
    NotLocal(Request),
}

/// What the driver wants to be told: the ends of commands, errors, and new devices.
const ENABLED: PortInterrupts = PortInterrupts::FATAL
    .union(PortInterrupts::REGISTER_FIS)
    .union(PortInterrupts::PIO_SETUP_FIS)
    .union(PortInterrupts::SET_DEVICE_BITS_FIS)
    .union(PortInterrupts::CONNECT)
    .union(PortInterrupts::TASK_FILE_ERROR);

/// What it also wants to be told, but not too often.
const NOISE: PortInterrupts = PortInterrupts::PHY_READY
    .union(PortInterrupts::PRESENCE_SWITCH)
    .union(PortInterrupts::COLD_PRESENCE)
    .union(PortInterrupts::INTERFACE_NON_FATAL)
    .union(PortInterrupts::UNKNOWN_FIS)
    .union(PortInterrupts::PORT_MULTIPLIER);
