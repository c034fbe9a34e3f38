//! All disks behind some drivers.

use super::buffers::Buffers;
use super::job::{Job, JobId, Kind, Phase};
use super::lent::{Ending, PassedOn, Terms};
use super::locks::Claims;
use super::statistics::{DiskCounters, Latencies};
use super::volume::{Volume, VolumeError, Volumes};
use super::{DiskId, DiskInfo, Done, Outcome, ReadData, Refusal, Token};
use crate::driver::{BlockDriver, Completion, Durability, Operation};
use crate::partition::{Scanner, Table};
use crate::unit::{Geometry, Identity, Unit, UnitId, UnitState};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use outboard_hw::Instant;
use outboard_hw::dma::DmaBuffer;
use outboard_hw::time::earlier;

/// The most bytes in one read or write.
pub const MAX_TRANSFER_BYTES: usize = 4 << 20;
/// Requests under way at all disks together. Each costs a few hundred bytes, and its memory.
pub(super) const MAX_JOBS: usize = 4096;

/// How a disk is to be presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskOptions {
    /// Sector size to present instead of the device's, of which it is a multiple: geometry and
    /// partitions count in these.
    pub sector_bytes: Option<u32>,
    /// Refuse to write.
    pub read_only: bool,
}

/// All disks behind some drivers; see [the module](super).
#[derive(Default)]
pub struct Disks {
    pub(super) drivers: Vec<Hosted>,
    pub(super) buffers: Buffers,
    pub(super) disks: Vec<Disk>,
    pub(super) jobs: Vec<Place>,
    pub(super) free: Vec<u32>,
    /// What is with a driver and needs no job.
    pub(super) passed: PassedOn,
    pub(super) done: VecDeque<Done>,
    /// Reused between polls.
    pub(super) completions: Vec<Completion>,
    /// Grows whenever drivers are called that may find their units changed.
    pub(super) turn: u64,
    /// When the last [`kick`](Self::kick) or [`poll`](Self::poll) was.
    pub(super) now: Instant,
}

/// Takes the events of disks: the disk's name, when it happened, and what.
pub type DiskEvents<'a> = dyn FnMut(Option<&str>, Instant, &dyn fmt::Display) + 'a;

pub(super) struct Hosted {
    pub(super) driver: Box<dyn BlockDriver>,
    pub(super) options: Vec<(UnitId, DiskOptions)>,
    pub(super) discovered: bool,
    /// What [`BlockDriver::changes`] said when its units were last looked at.
    pub(super) changes: u64,
    /// The disks of its units, by unit; a unit keeps its disk for good.
    pub(super) places: Vec<Option<DiskId>>,
}

pub(super) struct Disk {
    pub(super) driver: usize,
    pub(super) unit: UnitId,
    pub(super) name: String,
    pub(super) options: DiskOptions,
    pub(super) volumes: Volumes,
    pub(super) table: Table,
    pub(super) claims: Claims,
    /// Of transfers in memory of others.
    pub(super) terms: Terms,
    /// Jobs that want something of the driver, in order.
    pub(super) queue: VecDeque<u32>,
    pub(super) counters: DiskCounters,
    pub(super) latencies: Latencies,
    /// Whether its place is taken.
    pub(super) listed: bool,
    /// Generation of the unit that was looked for partitions last.
    pub(super) scanned: Option<u32>,
    /// Who that was, and how many sectors it had.
    pub(super) known: Option<(Identity, u64)>,
    /// The job that has the disk to itself.
    pub(super) exclusive: Option<u32>,
}

impl Disk {
    /// What a unit can do, as it is presented.
    pub(super) fn geometry(&self, unit: &Unit) -> Geometry {
        let (options, device) = (self.options, unit.geometry);
        let read_only = device.read_only || options.read_only;
        let sector_bytes = options.sector_bytes.unwrap_or(device.sector_bytes);
        if sector_bytes == device.sector_bytes {
            let physical_sector_bytes = device.physical_sector_bytes.max(sector_bytes);
            return Geometry { physical_sector_bytes, read_only, ..device };
        }
        let factor = u64::from(sector_bytes / device.sector_bytes.max(1)).max(1);
        Geometry {
            sector_bytes,
            physical_sector_bytes: device.physical_sector_bytes.max(sector_bytes),
            sectors: device.sectors / factor,
            max_transfer_sectors: device.max_transfer_sectors / factor as u32,
            max_discard_sectors: device.max_discard_sectors / factor,
            max_zero_sectors: device.max_zero_sectors / factor,
            max_erase_sectors: device.max_erase_sectors / factor,
            read_only,
            ..device
        }
    }
}

pub(super) struct Place {
    pub(super) job: Option<Job>,
    pub(super) generation: u32,
}

impl Disks {
    /// No disks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a driver in. Its disks show up once it knows them; see
    /// [`is_settled`](Self::is_settled). Its transfers get DMA memory as long as those of all
    /// drivers together have at most `budget` bytes; drivers that share memory are given the same.
    /// `options` are for its units, by number. Returns the driver's index.
    pub fn add_driver(
        &mut self,
        driver: Box<dyn BlockDriver>,
        options: Vec<(UnitId, DiskOptions)>,
        budget: usize,
    ) -> usize {
        self.buffers.add_driver(driver.dma(), driver.constraints(), budget);
        let places = vec![None; usize::from(driver.unit_count())];
        self.drivers.push(Hosted { driver, options, discovered: false, changes: 0, places });
        self.drivers.len() - 1
    }

    /// Whether it is known what disks there are, and what partitions they have.
    pub fn is_settled(&self) -> bool {
        let scanning =
            |place: &Place| place.job.as_ref().is_some_and(|job| matches!(job.kind, Kind::Scan(_)));
        self.drivers.iter().all(|hosted| hosted.discovered) && !self.jobs.iter().any(scanning)
    }

    /// How many disks there are, or were.
    pub fn len(&self) -> usize {
        self.disks.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.disks.is_empty()
    }

    /// All disks that there are, or were.
    pub fn ids(&self) -> impl Iterator<Item = DiskId> + use<> {
        (0..self.disks.len() as u16).map(DiskId)
    }

    /// What is known of a disk.
    pub fn info(&self, disk: DiskId) -> Option<DiskInfo> {
        let unit = self.unit(disk)?;
        let name = self.disks.get(usize::from(disk.0))?.name.clone();
        let geometry = self.geometry(disk)?;
        let Unit { state, generation, features, .. } = *unit;
        let identity = unit.identity.clone();
        Some(DiskInfo { name, state, generation, identity, geometry, features })
    }

    /// Whether a disk is there, be it one that has failed. One that was pulled out is not, and
    /// comes back under its name when its place is taken again.
    pub fn is_present(&self, disk: DiskId) -> bool {
        self.disks.get(usize::from(disk.0)).is_some_and(|disk| disk.listed)
    }

    /// Whether a disk can be used.
    pub fn state(&self, disk: DiskId) -> Option<UnitState> {
        self.unit(disk).map(|unit| unit.state)
    }

    /// Grows whenever another disk or medium may have taken the disk's place: what was meant for
    /// the one is not to reach the other.
    pub fn generation(&self, disk: DiskId) -> Option<u32> {
        self.unit(disk).map(|unit| unit.generation)
    }

    /// The index of the driver that a disk is behind.
    pub fn driver_of(&self, disk: DiskId) -> Option<usize> {
        self.disks.get(usize::from(disk.0)).map(|disk| disk.driver)
    }

    /// The name of the disk that is a driver's unit.
    pub fn name_of(&self, driver: usize, unit: UnitId) -> Option<&str> {
        let found = self.disks.iter().find(|disk| (disk.driver, disk.unit) == (driver, unit));
        found.map(|disk| disk.name.as_str())
    }

    /// What a disk can do, as it is presented.
    pub fn geometry(&self, disk: DiskId) -> Option<Geometry> {
        let place = self.disks.get(usize::from(disk.0))?;
        Some(place.geometry(self.unit(disk)?))
    }

    #[inline]
    pub(super) fn unit(&self, disk: DiskId) -> Option<&Unit> {
        let disk = self.disks.get(usize::from(disk.0))?;
        self.drivers.get(disk.driver)?.driver.unit(disk.unit)
    }

    /// A disk's partitions.
    pub fn volumes(&self, disk: DiskId) -> &[Volume] {
        self.disks.get(usize::from(disk.0)).map_or(&[], |disk| disk.volumes.all())
    }

    /// What was found when a disk was last scanned.
    pub fn table(&self, disk: DiskId) -> Option<&Table> {
        self.disks.get(usize::from(disk.0)).map(|disk| &disk.table)
    }

    /// Adds a partition, in memory only: sectors from `start` up to, not including, `end`.
    pub fn add_volume(
        &mut self,
        disk: DiskId,
        name: &str,
        start: u64,
        end: u64,
    ) -> Result<(), VolumeError> {
        let sectors = self.geometry(disk).ok_or(VolumeError::Missing)?.sectors;
        let disk = self.disks.get_mut(usize::from(disk.0)).ok_or(VolumeError::Missing)?;
        disk.volumes.add(name, start, end, sectors)
    }

    /// Removes a partition, in memory only.
    pub fn remove_volume(&mut self, disk: DiskId, name: &str) -> Result<(), VolumeError> {
        let disk = self.disks.get_mut(usize::from(disk.0)).ok_or(VolumeError::Missing)?;
        disk.volumes.remove(name)
    }

    /// What the driver has counted for a disk.
    pub fn driver_counters(&self, disk: DiskId, counter: &mut dyn FnMut(&'static str, u64)) {
        if let Some(disk) = self.disks.get(usize::from(disk.0)) {
            self.drivers[disk.driver].driver.counters(disk.unit, counter);
        }
    }

    /// Calls `event` with the name of a disk and what happened to it, for whatever has happened
    /// since the last call; without a name for what is not a disk, or not yet.
    pub fn drain_events(&mut self, event: &mut DiskEvents<'_>) {
        for (index, hosted) in self.drivers.iter_mut().enumerate() {
            let disks = &self.disks;
            hosted.driver.drain_events(&mut |unit, at, what| {
                let disk = disks.iter().find(|disk| (disk.driver, disk.unit) == (index, unit));
                event(disk.map(|disk| disk.name.as_str()), at, what);
            });
        }
    }

    /// Reads `len` bytes from `offset` on.
    pub fn read(
        &mut self,
        disk: DiskId,
        offset: u64,
        len: usize,
        token: Token,
    ) -> Result<JobId, Refusal> {
        let mut job = self.transfer(disk, Kind::Read, offset, len, token)?;
        let bytes = job.sectors as usize * job.sector_bytes;
        job.buffer = Some(self.buffer(disk, bytes)?);
        self.disks[usize::from(disk.0)].counters.reads += 1;
        Ok(self.start(job))
    }

    /// Writes `data` from `offset` on. The data is copied before this returns.
    pub fn write(
        &mut self,
        disk: DiskId,
        offset: u64,
        data: &[u8],
        durability: Durability,
        token: Token,
    ) -> Result<JobId, Refusal> {
        let fill = |memory: &mut DmaBuffer, at| memory.write_bytes(at, data);
        self.write_with(disk, offset, data.len(), durability, token, fill)
    }

    /// Writes `len` bytes from `offset` on, which `fill` puts into the transfer's memory, from the
    /// offset on that it is given; all of them, since the memory still has what it held before. It
    /// is called once, before this returns, unless the request is refused.
    pub fn write_with(
        &mut self,
        disk: DiskId,
        offset: u64,
        len: usize,
        durability: Durability,
        token: Token,
        fill: impl FnOnce(&mut DmaBuffer, usize),
    ) -> Result<JobId, Refusal> {
        if self.geometry(disk).is_some_and(|geometry| geometry.read_only) {
            return Err(Refusal::ReadOnly);
        }
        let kind = Kind::Write(durability);
        let mut job = self.transfer(disk, kind, offset, len, token)?;
        let (head, tail) = job.partial();
        let scratch = if head || tail { 2 } else { 0 };
        let bytes = (job.sectors as usize + scratch) * job.sector_bytes;
        let mut buffer = self.buffer(disk, bytes)?;
        fill(&mut buffer, job.skip);
        job.buffer = Some(buffer);
        let counters = &mut self.disks[usize::from(disk.0)].counters;
        counters.writes += 1;
        counters.merges += u64::from(head || tail);
        job.phase = Phase::Claiming;
        Ok(self.start(job))
    }

    /// Makes everything that was written before survive a loss of power.
    pub fn flush(&mut self, disk: DiskId, token: Token) -> Result<JobId, Refusal> {
        let job = self.job(disk, Kind::Flush, Some(token))?;
        Ok(self.start(job))
    }

    /// Tells the disk that `sectors` from `lba` on are no longer needed.
    pub fn discard(
        &mut self,
        disk: DiskId,
        lba: u64,
        sectors: u64,
        token: Token,
    ) -> Result<JobId, Refusal> {
        self.clear(disk, Operation::Discard, lba, sectors, token)
    }

    /// Does what takes no data to `sectors` from `lba` on: a discard, zeros, a secure erasure.
    pub fn clear(
        &mut self,
        disk: DiskId,
        operation: Operation,
        lba: u64,
        sectors: u64,
        token: Token,
    ) -> Result<JobId, Refusal> {
        let geometry = self.geometry(disk).ok_or(Refusal::NoDisk)?;
        if geometry.read_only {
            return Err(Refusal::ReadOnly);
        }
        let clears = matches!(
            operation,
            Operation::Discard | Operation::WriteZeroes(_) | Operation::SecureErase
        );
        if !clears || geometry.max_sectors(operation) == 0 {
            return Err(Refusal::Unsupported);
        }
        let end = lba.checked_add(sectors).filter(|end| *end <= geometry.sectors);
        if sectors == 0 || end.is_none() {
            return Err(Refusal::OutOfRange);
        }
        let mut job = self.job(disk, Kind::Clear(operation), Some(token))?;
        let factor = u64::from(geometry.sector_bytes) / job.sector_bytes as u64;
        (job.first_lba, job.sectors) = (lba * factor, sectors * factor);
        let device = self.unit(disk).ok_or(Refusal::NoDisk)?.geometry;
        job.max_piece = device.max_sectors(operation);
        job.phase = Phase::Claiming;
        Ok(self.start(job))
    }

    /// Looks for partitions again. Without a token nobody is told when that is done.
    pub fn rescan(&mut self, disk: DiskId, token: Option<Token>) -> Result<(), Refusal> {
        let geometry = self.geometry(disk).ok_or(Refusal::NoDisk)?;
        let scanner = Scanner::new(geometry.sectors, geometry.sector_bytes);
        let mut job = self.job(disk, Kind::Scan(Box::new(scanner)), token)?;
        if self.next_scan_step(&mut job)?.is_some() {
            self.start(job);
        } else if let Some(token) = token {
            // Nothing to read: an empty disk.
            self.done.push_back(Done { token, disk, result: Ok(Outcome::Finished) });
        }
        Ok(())
    }

    /// Withdraws a request that no driver has yet; whether that was so. Its token does not come
    /// back then.
    pub fn cancel(&mut self, id: JobId) -> bool {
        let place = self.jobs.get(id.index as usize);
        let job = place.filter(|place| place.generation == id.generation);
        let Some(job) = job.and_then(|place| place.job.as_ref()) else { return false };
        // Up to here the disk was at most read.
        if job.submitted || job.moved > 0 {
            return false;
        }
        let disk = &mut self.disks[usize::from(job.disk)];
        disk.queue.retain(|index| *index != id.index);
        self.retire(id.index);
        true
    }

    /// Gives memory back that came with a [`Done`].
    pub fn recycle(&mut self, disk: DiskId, data: ReadData) {
        if let Some(disk) = self.disks.get(usize::from(disk.0)) {
            self.buffers.give(disk.driver, data.buffer);
        }
    }

    /// Notes that a driver's vector has fired.
    pub fn interrupt(&mut self, driver: usize, vector: u16) {
        self.drivers[driver].driver.interrupt(vector);
    }

    /// Keeps the controllers from interrupting, or lets them again; see [`BlockDriver::mask`].
    pub fn mask(&mut self, masked: bool) {
        self.drivers.iter_mut().for_each(|hosted| hosted.driver.mask(masked));
    }

    /// Passes new requests on to the drivers, with one doorbell for all.
    pub fn kick(&mut self, now: Instant) {
        self.now = now;
        self.turn += 1;
        for disk in 0..self.disks.len() {
            self.pump(disk);
        }
        self.drivers.iter_mut().for_each(|hosted| hosted.driver.kick(now));
    }

    /// Lets the drivers do what is due; then [`next_done`](Self::next_done) has what has ended.
    pub fn poll(&mut self, now: Instant) {
        self.now = now;
        let mut completions = core::mem::take(&mut self.completions);
        for index in 0..self.drivers.len() {
            let Self { drivers, passed, disks, jobs, done, .. } = self;
            let mut ending = Ending { passed, disks, jobs, done, now };
            drivers[index].driver.poll(now, &mut |completion| {
                if !ending.take(&completion) {
                    completions.push(completion);
                }
            });
            for completion in completions.drain(..) {
                self.complete(index, completion);
            }
            self.discover(index);
        }
        self.completions = completions;
        self.kick(now);
    }

    /// The next request that has ended.
    pub fn next_done(&mut self) -> Option<Done> {
        self.done.pop_front()
    }

    /// Whether something has ended that was not asked for yet.
    pub fn has_done(&self) -> bool {
        !self.done.is_empty()
    }

    /// When to poll again if nothing happens before: at once, if something has ended that was not
    /// asked for yet. Drivers may refuse what a [`kick`](Self::kick) gives them.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.has_done() {
            return Some(Instant::ORIGIN);
        }
        let deadlines = self.drivers.iter().map(|hosted| hosted.driver.next_deadline());
        deadlines.fold(None, earlier)
    }

    /// Whether no request is under way.
    pub fn is_idle(&self) -> bool {
        self.under_way() == 0
    }

    /// How many requests are under way.
    #[inline]
    pub(super) fn under_way(&self) -> usize {
        self.jobs.len() - self.free.len() + self.passed.len()
    }

    /// Begins to shut the drivers down, once nothing is under way.
    pub fn stop(&mut self) {
        self.turn += 1;
        self.drivers.iter_mut().for_each(|hosted| hosted.driver.stop());
    }

    /// Whether all drivers are at rest, or lost.
    pub fn is_stopped(&self) -> bool {
        self.drivers.iter().all(|hosted| hosted.driver.is_stopped())
    }
}

impl fmt::Debug for Disks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disks")
            .field("disks", &self.disks.len())
            .field("jobs", &self.under_way())
            .finish_non_exhaustive()
    }
}
