//! From a request to its end.

use super::job::{Admitted, Job, JobId, Kind, Next, Phase};
use super::locks::Claim;
use super::set::{Disk, Disks, MAX_JOBS, MAX_TRANSFER_BYTES, Place};
use super::{DiskError, DiskId, Done, Outcome, Refusal, Token};
use crate::driver::{BlockError, Completion, Refused, RefusedReason, Request, Tag};
use crate::manage::PASSWORD_BYTES;
use crate::partition::Step;
use crate::unit::{Unit, UnitId};
use alloc::vec;
use outboard_hw::dma::DmaBuffer;

impl Disks {
    /// Looks whether there can be another job of this kind; what it is for.
    #[inline]
    pub(super) fn admit(&self, disk: DiskId, kind: &Kind) -> Result<Admitted, Refusal> {
        let place = self.disks.get(usize::from(disk.0)).ok_or(Refusal::NoDisk)?;
        let unit = self.unit(disk).ok_or(Refusal::NoDisk)?;
        place.check(unit, kind)?;
        if self.under_way() >= MAX_JOBS {
            return Err(Refusal::Busy);
        }
        let Unit { geometry, generation, .. } = unit;
        let sector_bytes = geometry.sector_bytes.max(1) as usize;
        let max_piece = u64::from(geometry.max_transfer_sectors).max(1);
        let since = self.now;
        Ok(Admitted { disk: disk.0, generation: *generation, sector_bytes, max_piece, since })
    }

    /// A job without a range.
    pub(super) fn job(
        &self,
        disk: DiskId,
        kind: Kind,
        token: Option<Token>,
    ) -> Result<Job, Refusal> {
        let admitted = self.admit(disk, &kind)?;
        Ok(Job::new(admitted, kind, token))
    }

    /// A job for `len` bytes from `offset` on.
    pub(super) fn transfer(
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

    pub(super) fn buffer(&mut self, disk: DiskId, len: usize) -> Result<DmaBuffer, Refusal> {
        let driver = self.disks.get(usize::from(disk.0)).ok_or(Refusal::NoDisk)?.driver;
        self.buffers.take(driver, len)
    }

    /// Gives a job its place, and lets it claim its sectors or queue.
    #[inline]
    pub(super) fn start(&mut self, job: Job) -> JobId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.jobs.push(Place { job: None, generation: 0 });
            self.jobs.len() as u32 - 1
        });
        let place = &mut self.jobs[index as usize];
        place.generation = place.generation.wrapping_add(1);
        let id = JobId { index, generation: place.generation };
        let disk = &mut self.disks[usize::from(job.disk)];
        disk.counters.begin();
        let job = place.job.insert(job);
        if job.phase != Phase::Claiming {
            disk.queue.push_back(index);
            return id;
        }
        let (head, tail) = job.partial();
        let claim = Claim {
            job: index,
            first: job.first_lba,
            last: job.first_lba + job.sectors.max(1) - 1,
            exclusive: matches!(job.kind, Kind::Write(_)) && (head || tail),
        };
        if disk.claims.take(claim) {
            job.claimed();
            disk.queue.push_back(index);
        } else {
            disk.counters.waits += 1;
        }
        id
    }

    /// Submits what a disk's jobs want, as far as the driver takes it.
    pub(super) fn pump(&mut self, disk: usize) {
        while let Some(index) = self.disks[disk].queue.front().copied() {
            let Disk { driver, unit, .. } = self.disks[disk];
            let (generation, lost) = self.present(driver, unit);
            let Some(job) = &mut self.jobs[index as usize].job else {
                self.disks[disk].queue.pop_front();
                continue;
            };
            if job.generation != generation {
                self.disks[disk].queue.pop_front();
                self.advance(index, Err(lost));
                continue;
            }
            let request = job.request();
            if !self.submit(index, request) {
                return;
            }
            self.disks[disk].queue.pop_front();
        }
    }

    /// Submits what a job wants; whether the driver had room for it. A job that the driver does not
    /// want has gone on, or ended.
    #[inline]
    fn submit(&mut self, index: u32, request: Request) -> bool {
        let Some(job) = &mut self.jobs[index as usize].job else { return true };
        let Disk { driver, unit, .. } = self.disks[usize::from(job.disk)];
        match self.drivers[driver].driver.submit(unit, Tag(index.into()), request) {
            Ok(()) => job.submitted = true,
            Err(Refused { reason, request }) => {
                job.take_back(request.data);
                if reason == RefusedReason::QueueFull {
                    return false;
                }
                self.advance(index, Err(reason.into()));
            }
        }
        true
    }

    /// A unit's generation, and what becomes of jobs that were accepted for an earlier one.
    fn present(&self, driver: usize, unit: UnitId) -> (u32, BlockError) {
        match self.drivers[driver].driver.unit(unit) {
            Some(unit) if unit.features.removable => (unit.generation, BlockError::MediumChanged),
            unit => (unit.map_or(0, |unit| unit.generation), BlockError::Gone),
        }
    }

    #[inline]
    pub(super) fn complete(&mut self, driver: usize, completion: Completion) {
        let Completion { tag, result, data, .. } = completion;
        let index = tag.0 as u32;
        match self.jobs.get_mut(index as usize).and_then(|place| place.job.as_mut()) {
            Some(job) if job.submitted => {
                job.submitted = false;
                if !job.is_lent {
                    job.take_back(data);
                }
                self.advance(index, result);
            }
            // No driver of ours completes what was not submitted; the memory is kept all the same.
            _ => data.into_buffers().for_each(|buffer| self.buffers.give(driver, buffer)),
        }
    }

    /// Lets a job go on after the driver is done with its last request.
    #[inline]
    fn advance(&mut self, index: u32, result: Result<(), BlockError>) {
        let Some(job) = &mut self.jobs[index as usize].job else { return };
        let disk = usize::from(job.disk);
        match job.completed(result) {
            Next::Again => self.disks[disk].queue.push_back(index),
            Next::Ended(result) => match job.kind {
                Kind::Scan(_) => self.scanned(index, result.is_ok()),
                _ => self.end(index, result),
            },
        }
    }

    /// Supplies a scanner with what it wanted, and starts on what it wants next.
    fn scanned(&mut self, index: u32, good: bool) {
        let Some(mut job) = self.jobs[index as usize].job.take() else { return };
        let disk = &self.disks[usize::from(job.disk)];
        let (generation, lost) = self.present(disk.driver, disk.unit);
        if job.generation != generation {
            // What it has found so far is another disk's.
            self.jobs[index as usize].job = Some(job);
            return self.end(index, Err(DiskError { error: lost, lba: None }));
        }
        let Kind::Scan(scanner) = &mut job.kind else { return };
        let mut sectors = vec![0; job.len];
        let data = job.buffer.as_ref().filter(|_| good).map(|buffer| {
            buffer.read_bytes(0, &mut sectors);
            sectors.as_slice()
        });
        scanner.supply(data);
        let disk = usize::from(job.disk);
        if let Some(buffer) = job.buffer.take() {
            self.buffers.give(self.disks[disk].driver, buffer);
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
    pub(super) fn next_scan_step(&mut self, job: &mut Job) -> Result<Option<()>, Refusal> {
        let id = DiskId(job.disk);
        let Kind::Scan(scanner) = &mut job.kind else { return Ok(None) };
        match scanner.step() {
            Step::Done(table) => {
                // What was found on a medium that is gone means nothing.
                let current = self.unit(id).map(|unit| unit.generation);
                if let Some(disk) = self.disks.get_mut(usize::from(job.disk))
                    && current == Some(job.generation)
                {
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
        let Some(job) = &self.jobs[index as usize].job else { return };
        let (id, token, sector_bytes) = (DiskId(job.disk), job.token, job.sector_bytes as u64);
        let disk = &mut self.disks[usize::from(job.disk)];
        match job.kind {
            Kind::Read => disk.took(false, self.now, job.since),
            Kind::Write(_) => disk.took(true, self.now, job.since),
            Kind::Flush => disk.latencies.flushes.record(job.since, self.now),
            Kind::Clear(_) | Kind::Scan(_) | Kind::Manage(_) => {}
        }
        match &result {
            Ok(Outcome::Read(data)) => {
                disk.moved(false, data.len());
                disk.counters.short += u64::from(data.len() < job.len);
            }
            Ok(Outcome::Written(bytes)) => {
                disk.moved(true, *bytes);
                disk.counters.short += u64::from(*bytes < job.len);
            }
            Ok(Outcome::Lent(bytes)) => {
                disk.moved(matches!(job.kind, Kind::Write(_)), *bytes);
                disk.counters.bytes_lent += *bytes as u64;
            }
            Ok(Outcome::Finished) => {}
            Err(error) => disk.counters.failed(error.error),
        }
        let managed = if let Kind::Manage(what) = job.kind { Some(what) } else { None };
        self.retire(index);
        if let Some(what) = managed {
            self.managed(id, what);
        }
        let result = result.map_err(|error| {
            let presented = self.geometry(id).map_or(0, |geometry| geometry.sector_bytes.into());
            let factor = (presented / sector_bytes).max(1);
            DiskError { lba: error.lba.map(|lba| lba / factor), ..error }
        });
        match (token, result) {
            (Some(token), result) => self.done.push_back(Done { token, disk: id, result }),
            (None, Ok(Outcome::Read(data))) => self.recycle(id, data),
            (None, _) => {}
        }
    }

    /// Takes a job out of its place, and its memory, and gives its claim up.
    pub(super) fn retire(&mut self, index: u32) {
        let place = &mut self.jobs[index as usize].job;
        let Some(job) = place else { return };
        let disk = &mut self.disks[usize::from(job.disk)];
        if let Some(mut buffer) = job.buffer.take() {
            if matches!(job.kind, Kind::Manage(_)) {
                buffer.write_bytes(0, &[0; PASSWORD_BYTES]);
            }
            self.buffers.give(disk.driver, buffer);
        }
        let claims = job.claims();
        *place = None;
        self.free.push(index);
        disk.counters.active -= 1;
        if disk.exclusive == Some(index) {
            disk.exclusive = None;
        }
        if claims {
            disk.give_up(index, &mut self.jobs);
        }
    }
}

impl Disk {
    /// Gives up what a job, or a transfer that was passed on, has claimed; jobs that wait for it go on.
    #[inline]
    pub(super) fn give_up(&mut self, index: u32, jobs: &mut [Place]) {
        let Self { claims, queue, .. } = self;
        claims.give_up(index, |index| {
            if let Some(job) = &mut jobs[index as usize].job {
                job.claimed();
                queue.push_back(index);
            }
        });
    }
}
