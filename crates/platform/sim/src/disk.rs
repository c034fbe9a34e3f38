//! A Serial ATA disk.
//!
//! What it acknowledges is kept as a real disk keeps it: in a volatile cache, of which a power cut
//! leaves what chance decides, until it is flushed or written with FUA. Durable data is never lost
//! but under a fault that is named so ([`Lies`]).

mod cache;
mod config;
mod identify;
mod logs;
mod medium;
mod ranges;
mod script;
mod store;
#[cfg(test)]
mod tests;
mod transfer;

pub use config::{Abilities, DiskConfig, Timing, TrimPromise};
pub use medium::{Medium, MediumError, MemoryMedium};
pub use script::{Lies, Mishap};
pub use store::Defect;

use crate::Random;
use crate::sata::{Command, End, Plan, Protocol, Report, Reset, SataDevice};
use core::time::Duration;
use outboard_ahci::spec::ata::{self, command};
use outboard_ahci::spec::fis::RegisterH2d;
use outboard_hw::Instant;
use script::Script;
use store::{Depth, Failure, Kind, Store};
use transfer::Transfer;

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
    /// What it is wrong about.
    pub lies: Lies,
    /// Whether the write cache is on.
    write_cache: bool,
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
            lies: Lies::empty(),
            write_cache: config.has(Abilities::WRITE_CACHE),
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
        self.config.sectors
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
        self.script.add(code, times, mishap);
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
            command::FLUSH_CACHE | command::FLUSH_CACHE_EXT => self.plan_flush(fis, random),
            command::DATA_SET_MANAGEMENT => self.plan_trim(fis),
            command::READ_LOG_EXT => self.plan_read_log(fis),
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
                    command::READ_LOG_EXT => self.read_log(fis, data),
                    _ => ABORTED,
                }
            }
        }
    }
}

impl SataDevice for Disk {
    fn plan(&mut self, command: &Command, _now: Instant, random: &mut Random) -> Result<Plan, End> {
        let fis = &command.fis;
        let planned = match self.script.next(fis.command) {
            _ if self.queue_failed && !logs::is_queued_failure_read(fis) => Err(ABORTED),
            Some(Mishap::Abort) => Err(ABORTED),
            Some(Mishap::Fault) => Err(FAULTY),
            Some(Mishap::Hang) => {
                let plan = self.plan_command(fis, random);
                plan.map(|plan| Plan { takes: Duration::MAX, ..plan })
            }
            Some(Mishap::Slow(by)) => {
                let plan = self.plan_command(fis, random);
                plan.map(|plan| Plan { takes: plan.takes.saturating_add(by), ..plan })
            }
            None => self.plan_command(fis, random),
        };
        self.counters.failed += u64::from(planned.is_err());
        planned
    }

    fn carry_out(
        &mut self,
        command: &Command,
        data: &mut [u8],
        _now: Instant,
        random: &mut Random,
    ) -> End {
        let end = self.carry_out_command(&command.fis, data, random);
        self.counters.failed += u64::from(end.is_bad());
        end
    }

    fn note_queued_failure(&mut self, tag: u8, command: &Command, end: &End) {
        self.failure = Some(logs::QueuedFailure { tag, device: command.fis.device, end: *end });
        self.queue_failed = true;
    }

    fn reset(&mut self, reset: Reset, _now: Instant) -> Report {
        self.queue_failed = false;
        let takes = match reset {
            Reset::PowerOn => self.config.timing.spin_up,
            Reset::Hard | Reset::Soft => self.config.timing.command,
        };
        Report { signature: SIGNATURE, takes }
    }

    fn cut_power(&mut self, _now: Instant, random: &mut Random) {
        self.store.lose_power(random);
        self.queue_failed = false;
        self.failure = None;
        self.write_cache = self.config.has(Abilities::WRITE_CACHE);
    }

    fn as_any(&mut self) -> &mut dyn core::any::Any {
        self
    }
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
