//! Management: what a disk is asked and told beside its data.
//!
//! Each is a program of [orders](super::order), which run alone in the request's slot, one after
//! the other, with nothing between them. What an order reads, or the password that it sends, goes
//! through the block that the port has for the driver's own commands.

use super::atapi::Drive;
use super::command::{Command, Step};
use super::health::Collection;
use super::memory::Data;
use super::order::{Block, Order, program};
use super::settings::Settings;
use super::{Context, Port, State, Verdict};
use crate::event::Event;
use crate::spec::ata::{ADVANCED_POWER_LEVELS, command, power_mode};
use crate::spec::fis::{RegisterD2h, kind};
use crate::spec::identify::Identify;
use crate::spec::registers::PX_SSTS;
use crate::spec::security::PasswordBlock;
use crate::spec::smart::{self, Block as _, ErrorLog, TestLog, Thresholds};
use outboard_block::manage::{Features, PASSWORD_BYTES, Power, Switch};
use outboard_block::{
    BlockError, Completion, Health, Management, Operation, RefusedReason, Request, UnitState,
};
use outboard_hw::Registers;
use outboard_hw::registers::RegistersExt;

/// What a port keeps for management.
#[derive(Debug, Default)]
pub(super) struct Manager {
    pub(super) settings: Settings,
    /// The number of sectors is being set: the disk may come back with another one.
    pub(super) capacity_doubtful: bool,
    /// The maximum address is accessible, rather than in a host protected area.
    accessible_max: bool,
    self_tests: bool,
    error_log: bool,
    health: alloc::boxed::Box<Collection>,
}

impl<R: Registers> Port<R> {
    pub(crate) fn health(&self) -> Option<&Health> {
        self.manager.health.complete()
    }

    /// Forgets what was another disk's.
    pub(super) fn forget_management(&mut self) {
        (self.manager.settings, self.manager.capacity_doubtful) = (Settings::default(), false);
        self.manager.health.forget();
        let features = &mut self.unit.features;
        (features.native_sectors, features.self_tests) = (None, false);
    }

    /// Whether a request for management is accepted, of a unit that is served.
    pub(super) fn admit_management(
        &self,
        what: Management,
        request: &Request,
    ) -> Result<(), RefusedReason> {
        self.is_capable(what)?;
        let bytes = if what.takes_password() { PASSWORD_BYTES } else { 0 };
        if request.lba != 0 || request.sectors != 0 || request.data.bytes() != bytes {
            return Err(RefusedReason::BadMemory);
        }
        if self.slots.has_room() { Ok(()) } else { Err(RefusedReason::QueueFull) }
    }

    /// Whether the disk can do it, as it is now.
    fn is_capable(&self, what: Management) -> Result<(), RefusedReason> {
        if self.drive.is_some() {
            let known = Drive::manages(what);
            return if known { Ok(()) } else { Err(RefusedReason::Unsupported) };
        }
        let features = &self.unit.features;
        let supported = match what {
            Management::ReadHealth | Management::SelfTest(_) => match features.health {
                Switch::Absent => false,
                Switch::Off => return Err(RefusedReason::SwitchedOff),
                Switch::On => true,
            },
            Management::SetHealth(_) => features.health.is_present(),
            Management::ReadPower | Management::SetStandbyTimer(_) => features.power_management,
            Management::SetPower(power) => features.power_management && power != Power::Unknown,
            Management::SetPowerLevel(level) => {
                let valid = level == u8::MAX || ADVANCED_POWER_LEVELS.contains(&level);
                valid && features.advanced_power.is_present()
            }
            Management::SetWriteCache(_) => features.write_cache.is_present(),
            Management::SetLookAhead(_) => features.look_ahead.is_present(),
            Management::FreezeSecurity => features.security.supported,
            Management::Erase { enhanced: true, .. }
                if features.security.enhanced_erase_minutes.is_none() =>
            {
                false
            }
            Management::Unlock(_)
            | Management::SetPassword { .. }
            | Management::DisablePassword(_)
            | Management::Erase { .. } => {
                if features.security.frozen {
                    return Err(RefusedReason::Frozen);
                }
                features.security.supported
            }
            Management::ReadNativeCapacity => features.capacity,
            Management::SetCapacity { sectors } => {
                let addressable = if self.device.lba48 { 1 << 48 } else { 1 << 28 };
                if !(1..=addressable).contains(&sectors) {
                    return Err(RefusedReason::OutOfRange { sectors: addressable });
                }
                features.capacity
            }
            _ => false,
        };
        if supported { Ok(()) } else { Err(RefusedReason::Unsupported) }
    }

    /// What the command in `slot` is for, and the order that it is at: `None` if it is no
    /// management.
    pub(super) fn order_of(&self, slot: u8) -> Option<(Management, u8, Order)> {
        if self.drive.is_some() {
            // Packets, and no programs.
            return None;
        }
        let Command { request, step, .. } = self.slots.get(slot)?;
        let Operation::Manage(what) = request.operation else { return None };
        let from = match step {
            Step::Order(index) => *index,
            Step::First | Step::FlushAfterWrite => 0,
        };
        let (index, order) = self.next_order(what, from)?;
        Some((what, index, order))
    }

    /// The next order of a program that this disk needs, from number `from` on.
    fn next_order(&self, what: Management, from: u8) -> Option<(u8, Order)> {
        let needed = |order: &Order| match order {
            Order::Flush => self.device.write_cache,
            Order::SmartTests => self.manager.self_tests || self.manager.health.self_tests,
            Order::SmartErrors => self.manager.error_log || self.manager.health.error_log,
            _ => true,
        };
        let orders = program(what, self.manager.accessible_max).into_iter().zip(0..);
        let mut rest = orders.filter(|(order, index)| *index >= from && needed(order));
        rest.next().map(|(order, index)| (index, order))
    }

    /// Writes the command of the order that `slot` is at.
    pub(super) fn prepare_order(&mut self, slot: u8, context: &Context<'_>) {
        let Some((what, index, order)) = self.order_of(slot) else { return };
        let timeout = order.timeout(&context.config.timeouts, &self.unit.features);
        let fis = order.fis(&self.device);
        let (Some(memory), Some(command)) = (&mut self.memory, self.slots.get_mut(slot)) else {
            return;
        };
        command.step = Step::Order(index);
        command.deadline = context.now + timeout;
        // Answers may be in the FIS, and an old one is not to be taken for one.
        memory.forget_received();
        let (to_device, data) = match order.block() {
            Block::None => (false, Data::None),
            Block::Answer => {
                memory.clear_internal();
                (false, Data::Internal)
            }
            Block::Password(control) => {
                let mut password = [0; PASSWORD_BYTES];
                command.request.data.read_bytes(&mut password);
                memory.write_secret(&PasswordBlock::new(control, password));
                (true, Data::Internal)
            }
        };
        memory.prepare(slot, &fis, to_device, data);
        if what == Management::ReadHealth && index == 0 {
            self.manager.health.begin();
        }
        self.manager.capacity_doubtful |= matches!(order, Order::SetMax { .. });
    }

    /// An order has ended well: takes its answer, and passes on to the next.
    pub(super) fn order_ended(
        &mut self,
        slot: u8,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        self.hba_resets = 0;
        self.wipe_secret();
        let Some((what, index, order)) = self.order_of(slot) else { return };
        if let Err(error) = self.take_answer(what, order, context) {
            return self.fail(slot, error, context, done);
        }
        if order == Order::Identify && self.unit.features.security.locked {
            self.fail_locked_out(context, done);
        }
        match self.next_order(what, index + 1) {
            Some((next, _)) => self.go_on_with(slot, next),
            None => self.managed(slot, what, context, done),
        }
    }

    fn go_on_with(&mut self, slot: u8, next: u8) {
        if let Some(command) = self.slots.get_mut(slot) {
            command.step = Step::Order(next);
            self.slots.wait_first(slot);
        }
    }

    /// All orders were carried out.
    fn managed(
        &mut self,
        slot: u8,
        what: Management,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        self.counters.manage += 1;
        self.manager.settings.remember(what);
        if what == Management::ReadHealth {
            self.manager.health.finish();
        } else {
            self.record(context, Event::Managed(what));
        }
        self.complete(slot, Ok(()), done);
        if what == Management::SetPower(Power::Sleep) {
            self.fall_asleep(context);
        }
    }

    /// What an order's answer says.
    fn take_answer(
        &mut self,
        what: Management,
        order: Order,
        context: &Context<'_>,
    ) -> Result<(), BlockError> {
        let Some(memory) = &self.memory else { return Ok(()) };
        let (received, block) = (memory.received_register(), memory.internal());
        let received = Some(received).filter(|received| received.kind == kind::REGISTER_D2H);
        let health = &mut self.manager.health;
        // Of what may be missing, what is damaged is missing too.
        match order {
            Order::Flush => self.unflushed = false,
            Order::SmartStatus => {
                let address = received.as_ref().map(RegisterD2h::address28);
                health.verdict(address.and_then(smart::verdict));
            }
            Order::SmartThresholds => {
                let thresholds = Thresholds::checked(&block);
                thresholds.iter().for_each(|thresholds| health.thresholds(thresholds));
            }
            Order::SmartData => {
                health.data(&smart::Data::checked(&block).ok_or(BlockError::BadAnswer)?);
                self.unit.features.self_tests |= health.self_tests;
            }
            Order::SmartTests => TestLog::checked(&block).iter().for_each(|log| health.tests(log)),
            Order::SmartErrors => {
                ErrorLog::checked(&block).iter().for_each(|log| health.errors(log));
            }
            Order::CheckPower => {
                let mode = received.ok_or(BlockError::BadAnswer)?.count[0];
                self.unit.features.power = power(mode);
            }
            Order::NativeMax { accessible } => {
                let received = received.ok_or(BlockError::BadAnswer)?;
                let long = accessible || self.device.lba48;
                let last = if long { received.address48() } else { received.address28() };
                let native = last + 1;
                if native < self.unit.geometry.sectors {
                    return Err(BlockError::BadAnswer);
                }
                self.unit.features.native_sectors = Some(native);
                if matches!(what, Management::SetCapacity { sectors } if sectors > native) {
                    return Err(BlockError::Unsupported);
                }
            }
            Order::Identify => {
                let identify = Identify::new(&block).ok_or(BlockError::BadAnswer)?;
                self.look_again(what, &identify, context)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes what the disk says of itself after it was told something, and checks that it has done
    /// so.
    fn look_again(
        &mut self,
        what: Management,
        identify: &Identify,
        context: &Context<'_>,
    ) -> Result<(), BlockError> {
        let (device, geometry, _) = Self::describe(identify, context);
        let asked = match what {
            Management::SetCapacity { sectors } => sectors,
            _ => self.unit.geometry.sectors,
        };
        let unknown = ![asked, self.unit.geometry.sectors].contains(&geometry.sectors);
        if unknown || self.is_another(&identify.identity(), &geometry) {
            return Err(BlockError::BadAnswer);
        }
        if geometry.sectors != self.unit.geometry.sectors {
            self.unit.generation += 1;
        }
        self.manager.capacity_doubtful = false;
        (self.unit.geometry, self.device) = (geometry, device);
        self.describe_features(identify);
        if matches!(self.unit.state, UnitState::Ready | UnitState::Locked) {
            self.unit.state = self.serving();
        }
        let features = &self.unit.features;
        let is = |switch: Switch, on: bool| switch == Switch::new(true, on);
        // Not health reporting: QEMU's disks switch it and always say that it is on.
        let obeyed = match what {
            Management::SetWriteCache(on) => is(features.write_cache, on),
            Management::SetLookAhead(on) => is(features.look_ahead, on),
            Management::SetPowerLevel(level) => is(features.advanced_power, level != u8::MAX),
            Management::Unlock(_) => !features.security.locked,
            Management::DisablePassword(_) => !features.security.enabled,
            Management::FreezeSecurity => features.security.frozen,
            Management::SetCapacity { sectors } => self.unit.geometry.sectors == sectors,
            _ => true,
        };
        let once = program(what, self.manager.accessible_max).iter().any(|order| order.is_once());
        match (obeyed, once) {
            (true, _) => Ok(()),
            // It took it, and perhaps lost power since.
            (false, true) => Err(BlockError::Interrupted),
            (false, false) => Err(BlockError::Unsupported),
        }
    }

    /// Fills in what else the disk can do.
    pub(super) fn describe_features(&mut self, identify: &Identify) {
        self.manager.accessible_max = identify.has_accessible_max();
        self.manager.self_tests = identify.has_self_tests();
        self.manager.error_log = identify.has_error_log();
        let before = self.unit.features;
        self.unit.features = Features {
            health: identify.smart(),
            self_tests: identify.has_self_tests() || before.self_tests,
            write_cache: identify.write_cache_switch(),
            look_ahead: identify.look_ahead(),
            // Every ATA device has it (ACS §4, "Power Management feature set").
            power_management: true,
            advanced_power: identify.advanced_power(),
            power_level: identify.power_level(),
            security: identify.security(),
            capacity: identify.has_accessible_max() || identify.has_protected_area(),
            link_speed: self.registers.get(PX_SSTS).speed(),
            ..before
        };
    }

    /// The state of a unit that serves requests.
    pub(super) fn serving(&self) -> UnitState {
        match (self.stopping, self.unit.features.security.locked) {
            (true, _) => UnitState::Stopping,
            (false, true) => UnitState::Locked,
            (false, false) => self.settled_state(),
        }
    }

    /// Fails what was to be read and written on a disk that has come back locked.
    pub(super) fn fail_locked_out(
        &mut self,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        for slot in 0..32 {
            let command = self.slots.get(slot);
            let manage =
                |command: &Command| matches!(command.request.operation, Operation::Manage(_));
            if command.is_some_and(|command| !manage(command)) {
                self.slots.withdraw(slot);
                self.fail(slot, BlockError::Locked, context, done);
            }
        }
    }

    /// An order was cut short. Decides where its program goes on, and returns what is to be held
    /// against the order.
    pub(super) fn order_failed(&mut self, slot: u8, verdict: Option<Verdict>) -> Option<Verdict> {
        let (what, index, order) = self.order_of(slot)?;
        let answered =
            matches!(verdict, Some(Verdict::Final(_) | Verdict::Retry(BlockError::Aborted)));
        // A device that refuses has not done it.
        self.manager.capacity_doubtful &= !answered;
        if order.is_once() {
            // It may have been carried out, unless the device itself says that it was not.
            let error = if answered { self.refusal(order) } else { BlockError::Interrupted };
            return Some(Verdict::Final(error));
        }
        let restart = match answered && order.is_optional() {
            true => index + 1,
            false => self.restart_at(what, index),
        };
        let command = self.slots.get_mut(slot)?;
        command.step = Step::Order(restart);
        if answered && order.is_optional() { None } else { verdict }
    }

    /// Where a program goes on that was cut short at order number `index`.
    fn restart_at(&self, what: Management, index: u8) -> u8 {
        let orders = program(what, self.manager.accessible_max);
        let once = orders.iter().position(|order| order.is_once()).map(|once| once as u8);
        // What was done must not be done again.
        once.filter(|once| index > *once).map_or(0, |once| once + 1)
    }

    /// Programs in `slots` that were cut short between two orders go on where they can: what was
    /// prepared or set before may be lost.
    pub(super) fn restart_programs(&mut self, slots: u32) {
        for slot in (0..32).filter(|slot| slots >> slot & 1 == 1) {
            let Some((what, index, _)) = self.order_of(slot) else { continue };
            let restart = self.restart_at(what, index);
            if let Some(command) = self.slots.get_mut(slot) {
                command.step = Step::Order(restart);
            }
        }
    }

    /// What it means that the device refuses an order that is issued once.
    const fn refusal(&self, order: Order) -> BlockError {
        match order {
            // No password comes into it, but a locked disk does not take a new one.
            Order::Security { code: command::SECURITY_SET_PASSWORD, .. }
                if !self.unit.features.security.locked =>
            {
                BlockError::Aborted
            }
            Order::Security { .. } => BlockError::Locked,
            _ => BlockError::Aborted,
        }
    }

    /// The program that is to go on next, if it has no order left: its last ones were optional and
    /// have failed, or the disk was identified again, and is one that does not need them.
    pub(super) fn ended_program(&self) -> Option<(u8, Management)> {
        let slot = self.slots.next_waiting()?;
        let Operation::Manage(what) = self.slots.get(slot)?.request.operation else { return None };
        (self.drive.is_none() && self.order_of(slot).is_none()).then_some((slot, what))
    }

    /// Ends programs that have no order left.
    pub(super) fn end_programs(&mut self, context: &Context<'_>, done: &mut dyn FnMut(Completion)) {
        while let Some((slot, what)) = self.ended_program() {
            self.slots.withdraw(slot);
            self.managed(slot, what, context, done);
        }
    }

    /// Nobody reads the password any more.
    pub(super) fn wipe_secret(&mut self) {
        if let Some(memory) = &mut self.memory {
            memory.wipe_secret();
        }
    }

    /// The disk sleeps, and answers to nothing but a reset.
    fn fall_asleep(&mut self, context: &Context<'_>) {
        use crate::spec::registers::{PX_IE, PortInterrupts};
        self.unit.features.power = Power::Sleep;
        self.registers.set(PX_IE, PortInterrupts::empty());
        self.state = State::Asleep;
        self.check_at = None;
        self.look_at = (!self.slots.is_empty() || self.stopping).then_some(context.now);
    }

    /// Something is asked of a disk that sleeps: wakes it, unless it need not be woken.
    pub(super) fn serve_asleep(&mut self, context: &Context<'_>, done: &mut dyn FnMut(Completion)) {
        self.look_at = None;
        while let Some(slot) = self.slots.next_waiting() {
            let Some(Command { request, .. }) = self.slots.get(slot) else { break };
            let (Management::ReadPower | Management::SetPower(Power::Sleep)) =
                (match request.operation {
                    Operation::Manage(what) => what,
                    _ => break,
                })
            else {
                break;
            };
            self.slots.withdraw(slot);
            self.counters.manage += 1;
            self.complete(slot, Ok(()), done);
        }
        if !self.slots.is_empty() {
            self.record(context, Event::Waking);
            self.counters.wakes += 1;
            self.send_port_reset(context);
        } else if self.stopping {
            self.begin_halt(context);
        }
    }
}

/// What CHECK POWER MODE's answer means.
fn power(mode: u8) -> Power {
    match mode {
        power_mode::STANDBY | power_mode::STANDBY_Y => Power::Standby,
        power_mode::IDLE => Power::Idle,
        mode if power_mode::IDLE_A_TO_C.contains(&mode) => Power::Idle,
        power_mode::ACTIVE => Power::Active,
        _ => Power::Unknown,
    }
}
