//! From the first sign of a device to a unit that is ready.

use super::memory::Data;
use super::plug::Place;
use super::{Context, Port, State};
use crate::config::limit;
use crate::event::{Cause, Event};
use crate::port::command::Device;
use crate::quirks;
use crate::sabotage::Sabotage;
use crate::spec::ata::{
    MAX_SECTORS_28, MAX_SECTORS_48, Status, TRIM_RANGE_SECTORS, TRIM_RANGES_PER_BLOCK, command,
};
use crate::spec::fis::RegisterH2d;
use crate::spec::identify::Identify;
use crate::spec::registers::{
    PX_CI, PX_IE, PX_IS, PX_SERR, PX_SIG, PX_SSTS, PX_TFD, PortInterrupts, SataStatus, signature,
};
use outboard_block::manage::Power;
use outboard_block::{Completion, FailedReason, Geometry, Identity, UnitState};
use outboard_hw::registers::RegistersExt;
use outboard_hw::{Instant, Registers};

/// The slot that the driver's own commands use; nothing else is in flight with them.
pub(super) const INTERNAL_SLOT: u8 = 0;
/// Sector sizes that are believed: powers of two in this range.
const SECTOR_BYTES: core::ops::RangeInclusive<u32> = 512..=65536;

impl<R: Registers> Port<R> {
    /// Waits for the link, from now on.
    pub(super) fn begin_link(&mut self, context: &Context<'_>) {
        self.probed = false;
        let until = context.now + limit::PRESENCE;
        self.enter(State::Link { until, seen: false, late: false }, context.now + limit::LOOK);
    }

    pub(super) fn await_link(
        &mut self,
        until: Instant,
        seen: bool,
        late: bool,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        let status = self.registers.get(PX_SSTS);
        if status.detection() == SataStatus::COMMUNICATION {
            // The first FIS is not posted while DIAG.X is set (AHCI §3.3.12).
            self.registers.set(PX_SERR, u32::MAX);
            self.link_is_up(status.speed(), context);
            // Resets that nobody was there to hear say nothing of the device.
            let unheard = core::mem::take(&mut self.unheard);
            self.port_resets = self.port_resets.saturating_sub(unheard);
            let until = context.now + context.config.timeouts.spin_up;
            self.enter(State::Device { until }, context.now);
            return self.await_device(until, context, done);
        }
        let appeared = !seen && status.detection() == SataStatus::PRESENT;
        if appeared {
            let until = context.now + limit::LINK;
            return self.enter(State::Link { until, seen: true, late }, context.now + limit::LOOK);
        }
        let met = self.known || self.link.was_up();
        if !context.now.reached(until) {
            self.look_at = Some(context.now + limit::LOOK);
        } else if met && !late {
            // Its firmware may be starting anew, after a loss of power perhaps.
            self.doubt_cache();
            let until = context.now + limit::RETURN;
            self.enter(State::Link { until, seen, late: true }, context.now + limit::LOOK);
        } else if met {
            self.unheard = self.unheard.saturating_add(1);
            self.reset_again(FailedReason::Removed, context, done);
        } else if seen {
            self.reset_again(FailedReason::GivenUp, context, done);
        } else {
            self.unplugged(context, done);
        }
    }

    /// Waits until the device has reported its status and what it is.
    pub(super) fn await_device(
        &mut self,
        until: Instant,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        if self.look_for_cut_off(context) {
            // It was cut off again while it was starting.
            return self.reset_again(FailedReason::Removed, context, done);
        }
        let asks = self.is_to_be_probed(context);
        if asks && self.begin_probe(until, context) {
            return;
        }
        let task_file = self.registers.get(PX_TFD);
        if asks || Status::from_bits_retain(task_file.status()).is_busy() {
            return match context.now.reached(until) {
                true => self.reset_again(FailedReason::GivenUp, context, done),
                false => self.look_at = Some(context.now + limit::LOOK_SLOWLY),
            };
        }
        let found = self.registers.get(PX_SIG);
        let kind = match found {
            signature::ATA | signature::ATAPI => None,
            signature::PORT_MULTIPLIER => Some("port multipliers"),
            signature::ENCLOSURE => Some("enclosure bridges"),
            signature::ZONED => Some("host-managed zoned disks"),
            _ => return self.reset_again(FailedReason::BadIdentity, context, done),
        };
        if let Some(kind) = kind {
            return self.give_up(FailedReason::Unsupported(kind), context, done);
        }
        self.settle(context, done);
        self.mark_packets(found == signature::ATAPI);
        if !self.start_engine(context) {
            return self.reset_again(FailedReason::GivenUp, context, done);
        }
        self.manager.settings.doubt();
        self.unit.features.power = Power::Unknown;
        self.begin_identify(context);
    }

    /// Asks the device what it is.
    pub(super) fn begin_identify(&mut self, context: &Context<'_>) {
        let identify = match self.takes_packets() {
            true => command::IDENTIFY_PACKET_DEVICE,
            false => command::IDENTIFY_DEVICE,
        };
        self.issue_internal(&RegisterH2d::command(identify));
        let until = context.now + context.config.timeouts.transfer;
        self.enter(State::Identifying { until }, context.now);
    }

    /// Issues a command of the driver's own, which reads one block.
    pub(super) fn issue_internal(&mut self, fis: &RegisterH2d) {
        if let Some(memory) = &mut self.memory {
            memory.clear_internal();
            memory.prepare(INTERNAL_SLOT, fis, false, Data::Internal);
            self.registers.set(PX_CI, 1 << INTERNAL_SLOT);
        }
    }

    /// Whether the driver's own command has ended: `Some(true)` if well, `Some(false)` if not.
    ///
    /// A command that failed stays in PxCI, so the error has to be looked for as well.
    pub(super) fn internal_ended(&mut self) -> Option<bool> {
        let interrupts = self.registers.get(PX_IS);
        let issued = self.registers.get(PX_CI);
        let status = Status::from_bits_retain(self.registers.get(PX_TFD).status());
        let stopped = PortInterrupts::FATAL | PortInterrupts::TASK_FILE_ERROR;
        if interrupts.intersects(stopped) {
            return Some(false);
        }
        if issued & 1 << INTERNAL_SLOT != 0 {
            return None;
        }
        Some(!status.is_error() && !status.is_busy())
    }

    /// Likewise, where it must have ended by then. It is looked at again while that is open (`None`).
    pub(super) fn internal_ended_by(
        &mut self,
        until: Instant,
        context: &Context<'_>,
    ) -> Option<bool> {
        let late = context.now.reached(until).then_some(false);
        let ended = self.internal_ended().or(late);
        if ended.is_none() {
            self.look_at = Some(context.now + limit::LOOK);
        }
        ended
    }

    pub(super) fn await_identity(
        &mut self,
        until: Instant,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        match self.internal_ended_by(until, context) {
            None => {}
            Some(false) => self.reset_again(FailedReason::BadIdentity, context, done),
            Some(true) => self.identified(context, done),
        }
    }

    fn identified(&mut self, context: &Context<'_>, done: &mut dyn FnMut(Completion)) {
        let data = self.memory.as_ref().map(|memory| memory.internal()).unwrap_or([0; 512]);
        let Some(identify) = Identify::new(&data) else {
            return self.reset_again(FailedReason::BadIdentity, context, done);
        };
        if self.takes_packets() {
            return self.drive_identified(&identify, context, done);
        }
        if self.drive.take().is_some() {
            // A disk has taken a drive's place.
            self.counters.plugs += 1;
            self.record(context, Event::Replaced);
            self.forget_disk(done);
        }
        if identify.awaits_spin_up() && !core::mem::replace(&mut self.spun_up, true) {
            return self.begin_spin_up(context);
        }
        let (device, geometry, depth) = Self::describe(&identify, context);
        let addressable = if device.lba48 { 1 << 48 } else { 1 << 28 };
        let sane = identify.has_dma()
            && (1..=addressable).contains(&geometry.sectors)
            && geometry.sectors.checked_mul(geometry.sector_bytes.into()).is_some()
            && geometry.sector_bytes.is_power_of_two()
            && SECTOR_BYTES.contains(&geometry.sector_bytes);
        if !sane {
            // Not every device has a checksum.
            return self.reset_again(FailedReason::BadIdentity, context, done);
        }
        let identity = identify.identity();
        let resized = geometry.sectors != self.unit.geometry.sectors;
        let changed =
            self.is_another(&identity, &geometry) || resized && !self.manager.capacity_doubtful;
        if self.known && changed && !self.left_out.has(Sabotage::Identity) {
            // Not every device has a checksum, so another one has to say who it is twice.
            let newcomer = Some((identity.clone(), geometry));
            let before = core::mem::replace(&mut self.newcomer, newcomer.clone());
            match before {
                None => return self.begin_identify(context),
                Some(_) if before == newcomer => {}
                Some(_) => return self.reset_again(FailedReason::BadIdentity, context, done),
            }
            self.counters.plugs += 1;
            self.record(context, Event::Replaced);
            self.forget_disk(done);
            let was_limited = self.link.is_limited();
            self.link.replaced();
            if was_limited {
                // What the old one's cable could not do, this one's may.
                return self.begin_port_reset(context);
            }
            self.link_is_up(self.registers.get(PX_SSTS).speed(), context);
        } else if self.known && resized {
            self.unit.generation += 1;
        }
        (self.known, self.newcomer) = (true, None);
        self.unit.generation = self.unit.generation.max(1);
        self.manager.capacity_doubtful = false;
        (self.unit.identity, self.unit.geometry, self.device) = (identity, geometry, device);
        if self.slots.is_empty() {
            self.slots = super::Slots::new(depth);
        }
        self.port_resets = 0;
        self.describe_features(&identify);
        self.find_link_power(&identify, context);
        if self.restore_next(context) {
            return;
        }
        if self.unit.features.security.locked {
            self.fail_locked_out(context, done);
        }
        self.get_ready(context);
    }

    /// Whether this is not the disk that was there, but for its number of sectors.
    pub(super) fn is_another(&self, identity: &Identity, geometry: &Geometry) -> bool {
        let before = &self.unit.geometry;
        *identity != self.unit.identity
            || geometry.sector_bytes != before.sector_bytes
            // Requests that were accepted for this much may be held.
            || geometry.max_transfer_sectors < before.max_transfer_sectors
            || geometry.queue_depth < before.queue_depth
    }

    pub(super) fn describe(identify: &Identify, context: &Context<'_>) -> (Device, Geometry, u8) {
        let identity = identify.identity();
        let disk = quirks::of_disk(&identity.model, &identity.firmware);
        let depth = identify.queue_depth();
        let queuing = context.config.queuing
            && context.capabilities.ncq()
            && !(context.quirks.no_queuing || disk.no_queuing)
            && depth > 1;
        let device = Device {
            queuing: queuing && identify.has_lba48(),
            lba48: identify.has_lba48(),
            fua: identify.has_fua() && identify.has_lba48(),
            write_cache: identify.write_cache(),
            flush_ext: identify.has_flush_ext(),
            logs: identify.has_logs(),
        };
        let slots = context.capabilities.slots_minus_one() + 1;
        // A queued command's tag is the number of its slot, and must be below the device's depth.
        let queue_depth = if device.queuing { depth.min(slots) } else { slots };
        let most_sectors = if device.lba48 { MAX_SECTORS_48 } else { MAX_SECTORS_28 };
        let ranges = TRIM_RANGES_PER_BLOCK * TRIM_RANGE_SECTORS;
        let geometry = Geometry {
            sector_bytes: identify.sector_bytes(),
            physical_sector_bytes: identify.physical_sector_bytes(),
            sectors: identify.sectors(),
            max_transfer_sectors: match context.quirks.max_255_sectors {
                true => most_sectors.min(255),
                false => most_sectors,
            },
            max_discard_sectors: if identify.has_trim() { ranges } else { 0 },
            max_zero_sectors: 0,
            max_erase_sectors: 0,
            queue_depth: queue_depth.into(),
            write_cache: device.write_cache,
            durable_writes: device.fua,
            read_only: false,
            medium: identify.medium(),
        };
        (device, geometry, queue_depth)
    }

    /// Serves requests (again).
    pub(super) fn become_ready(&mut self, context: &Context<'_>) {
        if self.unit.state == UnitState::Recovering || self.trouble.is_some() {
            self.record(context, Event::Recovered);
        }
        self.trouble = None;
        self.state = State::Ready;
        self.unit.state = self.serving();
        self.unit.features.lights = context.lights;
        self.strikes.quieten(context.now);
        self.noisy = false;
        (self.look_at, self.check_at) = (None, None);
        // Whatever the driver's own commands have left behind.
        self.registers.set(PX_IS, PortInterrupts::all());
        self.apply_link_power();
        // Not before: states that wait look at the bits themselves.
        self.enable_interrupts(context);
        self.kick(context);
    }

    /// Resets the port once more, or the HBA, or gives up with `reason`.
    pub(super) fn reset_again(
        &mut self,
        reason: FailedReason,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        if self.port_resets < limit::PORT_RESETS {
            return self.begin_port_reset(context);
        }
        // The HBA was reset before any device was looked for; another time would only disturb the
        // other ports for one that was never of use.
        let removed = reason == FailedReason::Removed;
        // Unless the engine has got stuck since: then nothing else helps.
        let stuck = self.command_register().is_some_and(|c| c.list_running() && !c.start());
        let may_reset =
            self.hba_resets < limit::HBA_RESETS && !self.left_out.has(Sabotage::HbaResets);
        let of_use = self.known || self.was_multiplied || stuck;
        if of_use && !removed && may_reset {
            self.port_resets = 0;
            return self.call_for_hba_reset();
        }
        self.settle(context, done);
        match removed {
            true => self.unplugged(context, done),
            false => self.give_up(reason, context, done),
        }
    }

    /// Resets the port, and counts that.
    pub(super) fn begin_port_reset(&mut self, context: &Context<'_>) {
        // The reset takes the traces away.
        self.look_for_cut_off(context);
        self.port_resets = self.port_resets.saturating_add(1);
        self.counters.port_resets += 1;
        self.record(context, Event::PortReset(self.port_resets));
        self.send_port_reset(context);
    }

    /// The same, though nothing is wrong.
    pub(super) fn send_port_reset(&mut self, context: &Context<'_>) {
        self.registers.set(PX_IE, PortInterrupts::empty());
        self.stop_engine();
        self.send_comreset(context);
    }

    /// Sends COMRESET (AHCI §10.4.2).
    pub(super) fn send_comreset(&mut self, context: &Context<'_>) {
        use crate::spec::registers::{PX_SCTL, SataControl};
        self.spun_up = false;
        self.wake_link();
        self.registers.set(PX_SCTL, self.link.quiet().with_detection(SataControl::COMRESET));
        // Whoever runs the driver may have read the clock long ago: the time counts from the next
        // look.
        self.enter(State::PortReset { until: None }, context.now);
    }

    pub(super) fn end_port_reset(&mut self, until: Option<Instant>, context: &Context<'_>) {
        use crate::spec::registers::PX_SCTL;
        let Some(until) = until else {
            let until = context.now + limit::COMRESET;
            return self.enter(State::PortReset { until: Some(until) }, until);
        };
        if !context.now.reached(until) {
            self.look_at = Some(until);
            return;
        }
        // It may be held for longer, until the command engine has come to rest.
        if !self.is_stopped() && !context.now.reached(until + limit::ENGINE) {
            self.look_at = Some(context.now + limit::LOOK);
            return;
        }
        self.registers.set(PX_SCTL, self.link.quiet());
        self.begin_link(context);
    }

    /// The HBA was reset: nothing of the device's hold on memory is left, and everything has to be
    /// set up anew.
    pub(crate) fn hba_was_reset(
        &mut self,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        self.link.reset();
        match self.state {
            State::Resting => return,
            State::Watching { place } | State::Clearing { place, .. } => {
                return self.watch_again(place, context);
            }
            State::Rearming { .. } => {
                return self.watch_again(Place::Empty { since: context.now }, context);
            }
            _ => {}
        }
        self.settle(context, done);
        if self.trouble.is_some_and(|trouble| trouble.cause == Cause::Unplugged) {
            return self.unplugged(context, done);
        }
        if self.unit.state != UnitState::Starting {
            self.counters.hba_resets += 1;
            self.record(context, Event::HbaReset);
        }
        if self.unit.state == UnitState::Ready {
            self.unit.state = UnitState::Recovering;
        }
        if self.hba_resets > limit::HBA_RESETS {
            return self.give_up(FailedReason::GivenUp, context, done);
        }
        if matches!(self.state, State::Pausing { .. }) {
            return;
        }
        (self.state, self.hot) = (State::Idle, false);
        (self.look_at, self.check_at) = (None, None);
    }
}
