//! All disks behind some drivers.

use super::buffers::Buffers;
use super::job::{Job, JobId, Kind, Next, Phase};
use super::locks::{Claim, Claims};
use super::volume::{Volume, VolumeError, Volumes};
use super::{DiskCounters, DiskError, DiskId, DiskInfo, Done, Outcome, ReadData, Refusal, Token};
use crate::driver::{BlockDriver, BlockError, Completion, Durability, Refused, RefusedReason, Tag};
use crate::partition::{Scanner, Step, Table};
use crate::unit::{Geometry, Unit, UnitId, UnitState};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
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
const MAX_JOBS: usize = 4096;

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
    drivers: Vec<Hosted>,
    disks: Vec<Disk>,
    jobs: Vec<Place>,
    free: Vec<u32>,
    done: VecDeque<Done>,
    /// Reused between polls.
    completions: Vec<Completion>,
}

/// Takes the events of disks: the disk's name, when it happened, and what.
pub type DiskEvents<'a> = dyn FnMut(Option<&str>, Instant, &dyn fmt::Display) + 'a;

struct Hosted {
    driver: Box<dyn BlockDriver>,
    options: Vec<(UnitId, DiskOptions)>,
    buffers: Buffers,
    discovered: bool,
}

struct Disk {
    driver: usize,
    unit: UnitId,
    name: String,
    options: DiskOptions,
    volumes: Volumes,
    table: Table,
    claims: Claims,
    /// Jobs that want something of the driver, in order.
    queue: VecDeque<u32>,
    counters: DiskCounters,
}

struct Place {
    job: Option<Job>,
    generation: u32,
}

impl Disks {
    /// No disks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a driver in. Its disks show up once it knows them; see
    /// [`is_settled`](Self::is_settled). `budget` is the most bytes of its DMA memory that
    /// transfers may take; `options` are for its units, by number. Returns the driver's index.
    pub fn add_driver(
        &mut self,
        driver: Box<dyn BlockDriver>,
        options: Vec<(UnitId, DiskOptions)>,
        budget: usize,
    ) -> usize {
        let buffers = Buffers::new(driver.dma(), driver.constraints(), budget);
        self.drivers.push(Hosted { driver, options, buffers, discovered: false });
        self.drivers.len() - 1
    }

    /// Whether it is known what disks there are, and what partitions they have.
    pub fn is_settled(&self) -> bool {
        let scanning =
            |place: &Place| place.job.as_ref().is_some_and(|job| matches!(job.kind, Kind::Scan(_)));
        self.drivers.iter().all(|hosted| hosted.discovered) && !self.jobs.iter().any(scanning)
    }

    /// How many disks there are.
    pub fn len(&self) -> usize {
        self.disks.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.disks.is_empty()
    }

    /// All disks.
    pub fn ids(&self) -> impl Iterator<Item = DiskId> + use<> {
        (0..self.disks.len() as u16).map(DiskId)
    }

    /// What is known of a disk.
    pub fn info(&self, disk: DiskId) -> Option<DiskInfo> {
        let unit = self.unit(disk)?;
        let name = self.disks.get(usize::from(disk.0))?.name.clone();
        let geometry = self.geometry(disk)?;
        Some(DiskInfo { name, state: unit.state, identity: unit.identity.clone(), geometry })
    }

    /// What a disk can do, as it is presented.
    pub fn geometry(&self, disk: DiskId) -> Option<Geometry> {
        let options = self.disks.get(usize::from(disk.0))?.options;
        let device = self.unit(disk)?.geometry;
        let sector_bytes = options.sector_bytes.unwrap_or(device.sector_bytes);
        let factor = u64::from(sector_bytes / device.sector_bytes.max(1)).max(1);
        Some(Geometry {
            sector_bytes,
            physical_sector_bytes: device.physical_sector_bytes.max(sector_bytes),
            sectors: device.sectors / factor,
            max_transfer_sectors: device.max_transfer_sectors / factor as u32,
            max_discard_sectors: device.max_discard_sectors / factor,
            read_only: device.read_only || options.read_only,
            ..device
        })
    }

    fn unit(&self, disk: DiskId) -> Option<&Unit> {
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

    /// What was done to a disk.
    pub fn counters(&self, disk: DiskId) -> DiskCounters {
        self.disks.get(usize::from(disk.0)).map(|disk| disk.counters).unwrap_or_default()
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
        if self.geometry(disk).is_some_and(|geometry| geometry.read_only) {
            return Err(Refusal::ReadOnly);
        }
        let kind = Kind::Write(durability);
        let mut job = self.transfer(disk, kind, offset, data.len(), token)?;
        let (head, tail) = job.partial();
        let scratch = if head || tail { 2 } else { 0 };
        let bytes = (job.sectors as usize + scratch) * job.sector_bytes;
        let mut buffer = self.buffer(disk, bytes)?;
        buffer.write_bytes(job.skip, data);
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
        let geometry = self.geometry(disk).ok_or(Refusal::NoDisk)?;
        if geometry.read_only {
            return Err(Refusal::ReadOnly);
        }
        if geometry.max_discard_sectors == 0 {
            return Err(Refusal::Unsupported);
        }
        let end = lba.checked_add(sectors).filter(|end| *end <= geometry.sectors);
        if sectors == 0 || end.is_none() {
            return Err(Refusal::OutOfRange);
        }
        let mut job = self.job(disk, Kind::Discard, Some(token))?;
        let factor = u64::from(geometry.sector_bytes) / job.sector_bytes as u64;
        (job.first_lba, job.sectors) = (lba * factor, sectors * factor);
        job.max_piece = self.unit(disk).ok_or(Refusal::NoDisk)?.geometry.max_discard_sectors;
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
            self.drivers[disk.driver].buffers.give(data.buffer);
        }
    }

    /// Notes that a driver's vector has fired.
    pub fn interrupt(&mut self, driver: usize, vector: u16) {
        self.drivers[driver].driver.interrupt(vector);
    }

    /// Passes new requests on to the drivers, with one doorbell for all.
    pub fn kick(&mut self, now: Instant) {
        for disk in 0..self.disks.len() {
            self.pump(disk);
        }
        self.drivers.iter_mut().for_each(|hosted| hosted.driver.kick(now));
    }

    /// Lets the drivers do what is due; then [`next_done`](Self::next_done) has what has ended.
    pub fn poll(&mut self, now: Instant) {
        let mut completions = core::mem::take(&mut self.completions);
        for index in 0..self.drivers.len() {
            let driver = &mut self.drivers[index].driver;
            driver.poll(now, &mut |completion| completions.push(completion));
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

    /// When to poll again if nothing happens before.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadlines = self.drivers.iter().map(|hosted| hosted.driver.next_deadline());
        deadlines.fold(None, earlier)
    }

    /// Whether no request is under way.
    pub fn is_idle(&self) -> bool {
        self.jobs.len() == self.free.len()
    }

    /// Begins to shut the drivers down, once nothing is under way.
    pub fn stop(&mut self) {
        self.drivers.iter_mut().for_each(|hosted| hosted.driver.stop());
    }

    /// Whether all drivers are at rest, or lost.
    pub fn is_stopped(&self) -> bool {
        self.drivers.iter().all(|hosted| hosted.driver.is_stopped())
    }

    /// Makes disks of a driver's units once it knows all of them, and looks for partitions.
    fn discover(&mut self, index: usize) {
        let hosted = &mut self.drivers[index];
        let units = (0..hosted.driver.unit_count()).map(UnitId);
        let starting = |unit: &UnitId| {
            hosted.driver.unit(*unit).is_some_and(|unit| unit.state == UnitState::Starting)
        };
        // Numbers follow the order of drivers, so an earlier one must have been discovered.
        if hosted.discovered || units.clone().any(|unit| starting(&unit)) {
            return;
        }
        if self.drivers[..index].iter().any(|hosted| !hosted.discovered) {
            return;
        }
        let hosted = &mut self.drivers[index];
        hosted.discovered = true;
        let present = |unit: &UnitId| {
            hosted.driver.unit(*unit).is_some_and(|unit| unit.state == UnitState::Ready)
        };
        let found: Vec<_> = units.filter(present).collect();
        for unit in found {
            let options = &self.drivers[index].options;
            let options = options.iter().find(|(of, _)| *of == unit).map(|(_, o)| *o);
            let id = DiskId(self.disks.len() as u16);
            self.disks.push(Disk {
                driver: index,
                unit,
                name: format!("sdC{}", id.0),
                options: options.unwrap_or_default(),
                volumes: Volumes::default(),
                table: Table::default(),
                claims: Claims::default(),
                queue: VecDeque::new(),
                counters: DiskCounters::default(),
            });
            // If there is no memory for it now, the disk has no partitions until it is rescanned.
            let _ = self.rescan(id, None);
        }
    }

    /// A job without a range.
    fn job(&self, disk: DiskId, kind: Kind, token: Option<Token>) -> Result<Job, Refusal> {
        let geometry = self.unit(disk).ok_or(Refusal::NoDisk)?.geometry;
        if self.jobs.len() - self.free.len() >= MAX_JOBS {
            return Err(Refusal::Busy);
        }
        Ok(Job {
            token,
            disk: disk.0,
            kind,
            phase: Phase::Transfer,
            buffer: None,
            first_lba: 0,
            sectors: 0,
            sector_bytes: geometry.sector_bytes as usize,
            skip: 0,
            len: 0,
            moved: 0,
            piece: 0,
            max_piece: u64::from(geometry.max_transfer_sectors).max(1),
            bad_before: None,
            submitted: false,
        })
    }

    /// A job for `len` bytes from `offset` on.
    fn transfer(
        &self,
        disk: DiskId,
        kind: Kind,
        offset: u64,
        len: usize,
        token: Token,
    ) -> Result<Job, Refusal> {
        let mut job = self.job(disk, kind, Some(token))?;
        let sector = job.sector_bytes as u64;
        let size = self.geometry(disk).ok_or(Refusal::NoDisk)?.bytes();
        let end = offset.checked_add(len as u64).filter(|end| *end <= size);
        let Some(end) = end.filter(|_| len > 0 && len <= MAX_TRANSFER_BYTES) else {
            return Err(Refusal::OutOfRange);
        };
        job.first_lba = offset / sector;
        job.sectors = end.div_ceil(sector) - job.first_lba;
        (job.skip, job.len) = ((offset % sector) as usize, len);
        Ok(job)
    }

    fn buffer(&mut self, disk: DiskId, len: usize) -> Result<DmaBuffer, Refusal> {
        let driver = self.disks.get(usize::from(disk.0)).ok_or(Refusal::NoDisk)?.driver;
        self.drivers[driver].buffers.take(len).ok_or(Refusal::Busy)
    }

    /// Gives a job its place, and lets it claim its sectors or queue.
    fn start(&mut self, job: Job) -> JobId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.jobs.push(Place { job: None, generation: 0 });
            self.jobs.len() as u32 - 1
        });
        let place = &mut self.jobs[index as usize];
        place.generation = place.generation.wrapping_add(1);
        let id = JobId { index, generation: place.generation };
        let (disk, claiming) = (usize::from(job.disk), job.phase == Phase::Claiming);
        let (head, tail) = job.partial();
        let claim = Claim {
            job: index,
            first: job.first_lba,
            last: job.first_lba + job.sectors.max(1) - 1,
            exclusive: matches!(job.kind, Kind::Write(_)) && (head || tail),
        };
        place.job = Some(job);
        self.disks[disk].counters.active += 1;
        if !claiming {
            self.disks[disk].queue.push_back(index);
        } else if self.disks[disk].claims.take(claim) {
            self.claimed(index);
        } else {
            self.disks[disk].counters.waits += 1;
        }
        id
    }

    /// A job has its sectors to itself, as far as it needs to.
    fn claimed(&mut self, index: u32) {
        let Some(job) = &mut self.jobs[index as usize].job else { return };
        job.phase = match (&job.kind, job.partial()) {
            (Kind::Write(_), (true, _)) => Phase::ReadFirst,
            (Kind::Write(_), (false, true)) => Phase::ReadLast,
            _ => Phase::Transfer,
        };
        self.disks[usize::from(job.disk)].queue.push_back(index);
    }

    /// Submits what a disk's jobs want, as far as the driver takes it.
    fn pump(&mut self, disk: usize) {
        while let Some(index) = self.disks[disk].queue.front().copied() {
            let Disk { driver, unit, .. } = self.disks[disk];
            let Some(job) = &mut self.jobs[index as usize].job else {
                self.disks[disk].queue.pop_front();
                continue;
            };
            let request = job.request();
            match self.drivers[driver].driver.submit(unit, Tag(index.into()), request) {
                Ok(()) => {
                    job.submitted = true;
                    self.disks[disk].queue.pop_front();
                }
                Err(Refused { reason, request }) => {
                    job.buffer = request.data.into_buffers().next();
                    if reason == RefusedReason::QueueFull {
                        return;
                    }
                    self.disks[disk].queue.pop_front();
                    self.advance(index, Err(reason.into()));
                }
            }
        }
    }

    fn complete(&mut self, driver: usize, completion: Completion) {
        let Completion { tag, result, data, .. } = completion;
        let index = tag.0 as u32;
        let buffer = data.into_buffers().next();
        match self.jobs.get_mut(index as usize).and_then(|place| place.job.as_mut()) {
            Some(job) if job.submitted => {
                job.submitted = false;
                job.buffer = buffer;
                self.advance(index, result);
            }
            // No driver of ours completes what was not submitted; the memory is kept all the same.
            _ => buffer.into_iter().for_each(|b| self.drivers[driver].buffers.give(b)),
        }
    }

    /// Lets a job go on after the driver is done with its last request.
    fn advance(&mut self, index: u32, result: Result<(), BlockError>) {
        let Some(job) = &mut self.jobs[index as usize].job else { return };
        let disk = usize::from(job.disk);
        match job.completed(result) {
            Next::Again => self.disks[disk].queue.push_back(index),
            Next::Ended(result) if matches!(job.kind, Kind::Scan(_)) => {
                self.scanned(index, result.is_ok());
            }
            Next::Ended(result) => self.end(index, result),
        }
    }

    /// Supplies a scanner with what it wanted, and starts on what it wants next.
    fn scanned(&mut self, index: u32, good: bool) {
        let Some(mut job) = self.jobs[index as usize].job.take() else { return };
        let Kind::Scan(scanner) = &mut job.kind else { return };
        let mut sectors = vec![0; job.len];
        let data = job.buffer.as_ref().filter(|_| good).map(|buffer| {
            buffer.read_bytes(0, &mut sectors);
            sectors.as_slice()
        });
        scanner.supply(data);
        let disk = usize::from(job.disk);
        if let Some(buffer) = job.buffer.take() {
            self.drivers[self.disks[disk].driver].buffers.give(buffer);
        }
        let next = self.next_scan_step(&mut job);
        self.jobs[index as usize].job = Some(job);
        match next {
            Ok(Some(())) => self.disks[disk].queue.push_back(index),
            Ok(None) => self.end(index, Ok(Outcome::Finished)),
            Err(_) => {
                self.end(index, Err(DiskError { error: BlockError::Aborted, lba: None }));
            }
        }
    }

    /// Prepares a scan for its next read; `None` if it has ended, with its result in place.
    fn next_scan_step(&mut self, job: &mut Job) -> Result<Option<()>, Refusal> {
        let id = DiskId(job.disk);
        let Kind::Scan(scanner) = &mut job.kind else { return Ok(None) };
        match scanner.step() {
            Step::Done(table) => {
                if let Some(disk) = self.disks.get_mut(usize::from(job.disk)) {
                    disk.volumes.replace(&table);
                    disk.table = table;
                }
                Ok(None)
            }
            Step::Read { lba, sectors } => {
                let presented = self.geometry(id).ok_or(Refusal::NoDisk)?.sector_bytes;
                let factor = u64::from(presented) / job.sector_bytes as u64;
                (job.first_lba, job.sectors) = (lba * factor, sectors * factor);
                (job.moved, job.len) = (0, job.sectors as usize * job.sector_bytes);
                job.buffer = Some(self.buffer(id, job.len)?);
                Ok(Some(()))
            }
        }
    }

    /// A job has ended: frees everything but what its result takes along.
    fn end(&mut self, index: u32, result: Result<Outcome, DiskError>) {
        let Some(job) = self.retire(index) else { return };
        let id = DiskId(job.disk);
        let presented = self.geometry(id).map_or(0, |geometry| geometry.sector_bytes as u64);
        let factor = (presented / job.sector_bytes as u64).max(1);
        let result =
            result.map_err(|error| DiskError { lba: error.lba.map(|lba| lba / factor), ..error });
        let counters = &mut self.disks[usize::from(job.disk)].counters;
        match &result {
            Ok(Outcome::Read(data)) => {
                counters.bytes_read += data.len() as u64;
                counters.short += u64::from(data.len() < job.len);
            }
            Ok(Outcome::Written(bytes)) => {
                counters.bytes_written += *bytes as u64;
                counters.short += u64::from(*bytes < job.len);
            }
            Ok(Outcome::Finished) => {}
            Err(_) => counters.errors += 1,
        }
        match (job.token, result) {
            (Some(token), result) => self.done.push_back(Done { token, disk: id, result }),
            (None, Ok(Outcome::Read(data))) => self.recycle(id, data),
            (None, _) => {}
        }
    }

    /// Takes a job out of its place, and its memory, and gives its claim up.
    fn retire(&mut self, index: u32) -> Option<Job> {
        let mut job = self.jobs[index as usize].job.take()?;
        self.free.push(index);
        let disk = &mut self.disks[usize::from(job.disk)];
        disk.counters.active -= 1;
        let mut taken = Vec::new();
        disk.claims.give_up(index, |job| taken.push(job));
        if let Some(buffer) = job.buffer.take() {
            self.drivers[disk.driver].buffers.give(buffer);
        }
        taken.into_iter().for_each(|job| self.claimed(job));
        Some(job)
    }
}

impl fmt::Debug for Disks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disks")
            .field("disks", &self.disks.len())
            .field("jobs", &(self.jobs.len() - self.free.len()))
            .finish_non_exhaustive()
    }
}
