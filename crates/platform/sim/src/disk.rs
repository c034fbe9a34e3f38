//! A Serial ATA disk.
//!
//! What it acknowledges is kept as a real disk keeps it: in a volatile cache, of which a power cut
//! leaves what chance decides, until it is flushed or written with FUA. Durable data is never lost
//! but under a fault that is named so ([`Lies`]).

mod cache;
mod capacity;
mod config;
mod identify;
mod image;
mod logs;
mod medium;
mod power;
mod ranges;
mod script;
mod security;
mod selftest;
mod settings;
mod smart;
mod store;
#[cfg(test)]
mod tests;
mod transfer;

pub use config::{Abilities, DiskConfig, Timing, TrimPromise};
pub use image::{ImageAccess, ImageError, ImageMedium};
pub use medium::{Medium, MediumError, MemoryMedium};
pub use power::PowerState;
pub use script::{Lies, Mishap};
pub use store::Defect;
pub(crate) use store::{Depth, Store};

use crate::Random;
use crate::sata::{Command, End, Plan, Protocol, Report, Reset, SataDevice};
use capacity::Capacity;
use core::time::Duration;
use outboard_ahci::spec::ata::{self, command};
use outboard_ahci::spec::fis::RegisterH2d;
use outboard_hw::Instant;
use power::Power;
use script::{Script, Which};
use security::Security;
use settings::Settings;
use smart::Smart;
use std::collections::VecDeque;
use store::{Failure, Kind};
use transfer::Transfer;

/// Commands that it remembers.
const TAKEN: usize = 64;
/// The signature of a disk: LBA 23:0 and COUNT after a reset (SATA §9.2).
const SIGNATURE: u32 = 0x0000_0101;

/// How many commands of a kind were carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskCounters {
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// TRIMs.
    pub trims: u64,
    /// All others.
    pub others: u64,
    /// Commands that failed or were refused.
    pub failed: u64,
}

/// A Serial ATA disk.
pub struct Disk {
    config: DiskConfig,
    store: Store,
    script: Script,
    /// It works on nothing until it is reset.
    stalled: bool,
    /// Words of its identification that are other than they should be.
    overrides: Vec<(usize, u16)>,
    /// What SMART's blocks hold, whatever they should.
    smart_byte: Option<u8>,
    /// Commands that it took, but for transfers.
    taken: VecDeque<RegisterH2d>,
    /// How many of its next identifications are another disk's.
    mistaken: u32,
    /// What it is wrong about.
    pub lies: Lies,
    settings: Settings,
    power: Power,
    security: Security,
    capacity: Capacity,
    smart: Smart,
    /// Generation of the link's speed.
    link_speed: u8,
    /// How many sectors it turns out to have after the next reset.
    sectors_after_reset: Option<u64>,
    /// The code of the last command that it took.
    before: u8,
    /// The same of the one before that.
    before_that: u8,
    now: Instant,
    /// The last queued command that failed, for log 10h.
    failure: Option<logs::QueuedFailure>,
    /// Whether a queued command has failed and log 10h was not read since.
    queue_failed: bool,
    counters: DiskCounters,
}

impl core::fmt::Debug for Disk {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Disk")
            .field("serial", &self.config.serial)
            .field("cached", &self.store.cached())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl Disk {
    /// A disk with nothing on it, in memory.
    pub fn new(config: DiskConfig) -> Self {
        let medium = MemoryMedium::new(config.sector_bytes);
        Self::with_medium(config, Box::new(medium))
    }

    /// A disk whose content is kept elsewhere.
    pub fn with_medium(config: DiskConfig, medium: Box<dyn Medium>) -> Self {
        let bytes = config.sector_bytes as usize;
        Self {
            store: Store::new(medium, bytes, config.cache_sectors, config.trim_promise),
            script: Script::default(),
            stalled: false,
            overrides: Vec::new(),
            smart_byte: None,
            taken: VecDeque::new(),
            mistaken: 0,
            lies: Lies::empty(),
            settings: Settings::at_power_on(&config, false),
            power: Power::new(),
            security: Security::new(),
            capacity: Capacity::new(config.sectors),
            smart: Smart::new(),
            link_speed: config.generation,
            sectors_after_reset: None,
            before: 0,
            before_that: 0,
            now: Instant::ORIGIN,
            failure: None,
            queue_failed: false,
            counters: DiskCounters::default(),
            config,
        }
    }

    /// What it was built from.
    pub const fn config(&self) -> &DiskConfig {
        &self.config
    }

    /// How many commands of each kind were carried out.
    pub const fn counters(&self) -> DiskCounters {
        self.counters
    }

    /// Sectors that the host may use.
    pub const fn sectors(&self) -> u64 {
        self.capacity.sectors
    }

    /// Tells it which generation of speed the link has, for its identification.
    pub const fn set_link_speed(&mut self, generation: u8) {
        self.link_speed = generation;
    }

    /// Lets it turn out to have another number of sectors after the next reset, of whatever kind.
    pub const fn resize_at_reset(&mut self, sectors: u64) {
        self.sectors_after_reset = Some(sectors);
    }

    /// Gives a sector a defect; it takes the place of one that it has.
    pub fn damage(&mut self, lba: u64, defect: Defect) {
        self.store.defects.insert(lba, defect);
    }

    /// Takes a sector's defect away.
    pub fn repair(&mut self, lba: u64) {
        self.store.defects.remove(&lba);
    }

    /// The defect of a sector.
    pub fn defect(&self, lba: u64) -> Option<Defect> {
        self.store.defects.get(&lba).copied()
    }

    /// Lets the next `times` commands with this code, or any, meet with a mishap.
    pub fn script(&mut self, code: Option<u8>, times: u32, mishap: Mishap) {
        self.script.add(code.map_or(Which::All, Which::Code), times, mishap);
    }

    /// Likewise the next `times` of one that is told from others by FEATURES.
    pub fn script_subcommand(&mut self, code: u8, features: u8, times: u32, mishap: Mishap) {
        self.script.add(Which::Subcommand(code, features), times, mishap);
    }

    /// Likewise the next `times` commands that read or write a sector.
    pub fn script_at(&mut self, lba: u64, times: u32, mishap: Mishap) {
        self.script.add(Which::Sector(lba), times, mishap);
    }

    /// Lets its next `times` identifications have a damaged byte, and no checksum that would tell:
    /// of the serial number, another one each time; in the last but one, of what it can do.
    pub const fn mistake_identity(&mut self, times: u32) {
        self.mistaken = times;
    }

    /// How many of these are still to come.
    pub const fn mistaken(&self) -> u32 {
        self.mistaken
    }

    /// Lets it stand still until it is told to spin up, now and whenever it gets power (PUIS).
    pub const fn start_in_standby(&mut self) {
        self.settings.starts_in_standby = true;
        self.power.state = PowerState::WaitsForSpinUp;
    }

    /// From now on words of its identification are other than they should be, with a checksum that
    /// is right all the same.
    pub fn override_words(&mut self, words: &[(usize, u16)]) {
        self.overrides = words.to_vec();
    }

    /// From now on SMART's blocks hold nothing but this byte, with the right checksum.
    pub const fn fill_smart(&mut self, byte: u8) {
        self.smart_byte = Some(byte);
    }

    /// The last commands that it took beside reads and writes, since this was last asked.
    pub fn take_commands(&mut self) -> Vec<RegisterH2d> {
        self.taken.drain(..).collect()
    }

    /// Copies what is durable at a sector: what a loss of power at this moment leaves if it takes
    /// all that is cached.
    pub fn durable(&mut self, lba: u64, sector: &mut [u8]) {
        self.store.durable(lba, sector);
    }

    /// Copies what a read of a sector would return now, if it had no defect.
    pub fn visible(&mut self, lba: u64, sector: &mut [u8]) {
        self.store.visible(lba, sector);
    }

    /// How many sectors are cached and not durable.
    pub fn cached(&self) -> usize {
        self.store.cached()
    }

    /// Makes everything durable that is cached, as a disk does that is told in time that power will
    /// go; whether that went well.
    pub fn settle(&mut self) -> bool {
        self.store.flush().is_ok()
    }

    /// Power goes while a write is under way that was not carried out: some of its sectors were
    /// written, and which is for chance to say. To be followed by
    /// [`cut_power`](SataDevice::cut_power).
    pub fn tear(&mut self, command: &Command, data: &[u8], random: &mut Random) {
        let Some(transfer) = Transfer::new(&command.fis).filter(|t| t.protocol.is_out()) else {
            return;
        };
        let bytes = self.config.sector_bytes as usize;
        for (lba, sector) in (transfer.lba..self.sectors()).zip(data.chunks_exact(bytes)) {
            if random.once_in(2) {
                // That it fails is not seen by anyone.
                let _ = self.store.write(lba, sector, Depth::Durable, random);
            }
        }
    }

    fn plan_command(&mut self, fis: &RegisterH2d, random: &mut Random) -> Result<Plan, End> {
        if let Some(transfer) = Transfer::new(fis) {
            return self.plan_transfer(&transfer, random);
        }
        let plan = |protocol, bytes, takes| Ok(Plan { protocol, bytes, takes });
        let takes = self.config.timing.command;
        match fis.command {
            command::IDENTIFY_DEVICE => plan(Protocol::PioIn, ata::BLOCK_BYTES, takes),
            command::SMART => self.plan_smart(fis),
            command::SECURITY_SET_PASSWORD..=command::SECURITY_DISABLE_PASSWORD => {
                self.plan_security(fis, self.before_that)
            }
            command::STANDBY_IMMEDIATE..=command::IDLE
            | command::CHECK_POWER_MODE
            | command::SLEEP => plan(Protocol::NonData, 0, takes + self.power_takes(fis)),
            command::SET_FEATURES => {
                let flushes = u16::from(fis.features_low) == ata::features::DISABLE_WRITE_CACHE
                    && self.store.cached() > 0;
                let flush = if flushes { self.config.timing.flush } else { Duration::ZERO };
                plan(Protocol::NonData, 0, takes + flush)
            }
            command::READ_NATIVE_MAX
            | command::READ_NATIVE_MAX_EXT
            | command::SET_MAX
            | command::SET_MAX_EXT
            | command::ACCESSIBLE_MAX_ADDRESS => plan(Protocol::NonData, 0, takes),
            command::FLUSH_CACHE | command::FLUSH_CACHE_EXT => self.plan_flush(fis, random),
            command::DATA_SET_MANAGEMENT => self.plan_trim(fis),
            command::READ_LOG_EXT | command::READ_LOG_DMA_EXT => self.plan_read_log(fis),
            _ => Err(ABORTED),
        }
    }

    fn carry_out_command(
        &mut self,
        fis: &RegisterH2d,
        data: &mut [u8],
        random: &mut Random,
    ) -> End {
        if let Some(transfer) = Transfer::new(fis) {
            return self.transfer(&transfer, data, random);
        }
        match fis.command {
            command::FLUSH_CACHE | command::FLUSH_CACHE_EXT => self.flush(),
            command::DATA_SET_MANAGEMENT => self.trim(data),
            other => {
                self.counters.others += 1;
                match other {
                    command::IDENTIFY_DEVICE => self.identify(data),
                    command::READ_LOG_EXT | command::READ_LOG_DMA_EXT => self.read_log(fis, data),
                    command::SMART => self.carry_out_smart(fis, data),
                    command::SECURITY_SET_PASSWORD..=command::SECURITY_DISABLE_PASSWORD => {
                        self.secure(fis, data)
                    }
                    command::SET_FEATURES => self.set_features(fis),
                    command::ACCESSIBLE_MAX_ADDRESS => self.configure_max_address(fis),
                    command::READ_NATIVE_MAX
                    | command::READ_NATIVE_MAX_EXT
                    | command::SET_MAX
                    | command::SET_MAX_EXT => self.protect_area(fis, self.before_that),
                    _ => self.manage_power(fis),
                }
            }
        }
    }
}

impl Disk {
    /// Time has passed: timers expire, and a self-test gets on.
    fn advance(&mut self, now: Instant) {
        self.now = now;
        self.power.advance(now);
        self.advance_test();
    }

    /// Settings are as they are when power comes.
    fn forget_settings(&mut self) {
        self.settings = Settings::at_power_on(&self.config, self.settings.starts_in_standby);
        self.security.at_power_on();
        self.power.stop_timer();
    }
}

impl SataDevice for Disk {
    fn plan(&mut self, command: &Command, now: Instant, random: &mut Random) -> Result<Plan, End> {
        let fis = &command.fis;
        self.advance(now);
        if self.asleep() {
            return Ok(Plan { protocol: Protocol::NonData, bytes: 0, takes: Duration::MAX });
        }
        (self.before_that, self.before) = (self.before, fis.command);
        if Transfer::new(fis).is_none() {
            if self.taken.len() == TAKEN {
                self.taken.pop_front();
            }
            self.taken.push_back(*fis);
        }
        let planned = if self.queue_failed && !logs::is_queued_failure_read(fis)
            || self.security.refuses(fis.command)
        {
            Err(ABORTED)
        } else {
            match self.script.next(fis) {
                Some(Mishap::Abort) => Err(ABORTED),
                Some(Mishap::Fault) => Err(FAULTY),
                Some(mishap @ (Mishap::Hang | Mishap::Stall)) => {
                    self.stalled |= mishap == Mishap::Stall;
                    self.plan_command(fis, random).map(|plan| Plan { takes: Duration::MAX, ..plan })
                }
                Some(Mishap::Slow(by)) => self
                    .plan_command(fis, random)
                    .map(|plan| Plan { takes: plan.takes.saturating_add(by), ..plan }),
                None => self.plan_command(fis, random),
            }
        };
        self.counters.failed += u64::from(planned.is_err());
        let stalled = self.stalled;
        planned.map(|plan| if stalled { Plan { takes: Duration::MAX, ..plan } } else { plan })
    }

    fn carry_out(
        &mut self,
        command: &Command,
        data: &mut [u8],
        now: Instant,
        random: &mut Random,
    ) -> End {
        self.advance(now);
        let end = self.carry_out_command(&command.fis, data, random);
        if end.is_bad() {
            self.counters.failed += 1;
            if end.error != ABORTED.error || end.status != ABORTED.status {
                self.smart.note_error(&command.fis, &end, now);
            }
        }
        end
    }

    fn note_queued_failure(&mut self, tag: u8, command: &Command, end: &End) {
        self.failure = Some(logs::QueuedFailure { tag, device: command.fis.device, end: *end });
        self.queue_failed = true;
    }

    fn reset(&mut self, reset: Reset, now: Instant) -> Report {
        self.advance(now);
        (self.queue_failed, self.stalled) = (false, false);
        (self.before, self.before_that) = (0, 0);
        let hours = self.smart.hours(now);
        self.smart.tests.interrupt(now, hours);
        if let Some(sectors) = self.sectors_after_reset.take() {
            self.config.sectors = sectors;
            self.capacity = Capacity::new(sectors);
        }
        let mut takes = self.config.timing.command;
        match reset {
            Reset::PowerOn => {
                self.forget_settings();
                self.capacity.at_power_on();
                self.smart.at_power_on(now);
                self.power.at_power_on(self.settings.starts_in_standby, now);
                if self.power.state == PowerState::Active {
                    takes = self.config.timing.spin_up;
                }
            }
            Reset::Hard if !self.settings.are_preserved() => {
                self.forget_settings();
                self.capacity.revert();
            }
            Reset::Hard | Reset::Soft => {}
        }
        self.power.end_sleep();
        Report { signature: SIGNATURE, takes }
    }

    fn cut_power(&mut self, now: Instant, random: &mut Random) {
        self.advance(now);
        let hours = self.smart.hours(now);
        self.smart.tests.interrupt(now, hours);
        self.store.lose_power(random);
        self.failure = None;
    }

    fn as_any(&mut self) -> &mut dyn core::any::Any {
        self
    }
}

/// The same with the address as after a 28-bit command: its highest four bits in DEVICE.
const fn in_28_bits(end: End) -> End {
    let high = (end.lba >> 24 & 0xf) as u8;
    End { lba: end.lba & 0x00ff_ffff, device: end.device | high, ..end }
}

/// The command was aborted.
const ABORTED: End = End::bad(ata::Error::ABORTED.bits(), 0);
/// The disk is faulty.
const FAULTY: End = End { status: End::BAD_STATUS | ata::Status::FAULT.bits(), ..ABORTED };

/// How an access that failed ends.
fn failed(failure: Failure, bytes: usize) -> End {
    let end = match failure.kind {
        Kind::Uncorrectable => End::bad(ata::Error::UNCORRECTABLE.bits(), failure.lba),
        Kind::NotFound => End::bad(ata::Error::ID_NOT_FOUND.bits(), failure.lba),
        Kind::Fault => End { lba: failure.lba, ..FAULTY },
    };
    End { bytes, ..end }
}
