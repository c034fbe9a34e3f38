//! Transfers between a disk and memory of whoever asks, without a copy between them.
//!
//! This is the way of most requests of virtual machines, and it is short: what has to be known of the
//! disk is looked up once for many, and a transfer is passed on to the driver at once, in one piece.
//! Only where others wait for the driver, or for the same sectors, it becomes a job that waits too.

use super::job::{Admitted, Job, Kind, Phase};
use super::locks::Claim;
use super::set::{Disk, Disks, MAX_JOBS, MAX_TRANSFER_BYTES, Place};
use super::{DiskError, DiskId, Done, Outcome, Refusal, Token};
use crate::driver::{BlockDriver, Completion, Durability, Operation, Refused, Request, Tag};
use crate::unit::Unit;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use outboard_hw::Instant;
use outboard_hw::dma::{Constraints, DmaSpace, NOWHERE, SgList};

/// Which way the data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the disk to memory.
    Read,
    /// From memory to the disk, which may read it more than once: if it changes meanwhile, so may
    /// what is written.
    Write(Durability),
}

/// What has to be known of a disk for such transfers. It holds until the drivers are called again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// What [`Disks::turn`] was then.
    turn: u64,
    generation: u32,
    /// A sector has so many bytes, as a power of two.
    shift: u32,
    /// The most sectors in one transfer.
    max_sectors: u32,
    read_only: bool,
    bytes: u64,
    /// What its controller asks of the memory, which it has to reach; `None` if the driver takes any.
    limits: Option<Constraints>,
}

impl Terms {
    /// None that were ever looked up.
    pub(super) const NONE: Self = Self {
        turn: u64::MAX,
        generation: 0,
        shift: 0,
        max_sectors: 0,
        read_only: true,
        bytes: 0,
        limits: None,
    };

    /// Those of a disk that takes requests.
    fn of(turn: u64, place: &Disk, unit: &Unit, driver: &dyn BlockDriver) -> Self {
        let (device, shown) = (&unit.geometry, place.geometry(unit));
        // Sectors that do not have a power of two of bytes are left to those who divide.
        let simple = device.sector_bytes.is_power_of_two();
        Self {
            turn,
            generation: unit.generation,
            shift: if simple { device.sector_bytes.trailing_zeros() } else { 0 },
            max_sectors: if simple { device.max_transfer_sectors } else { 0 },
            read_only: shown.read_only,
            bytes: shown.bytes(),
            limits: (!driver.takes_any_memory()).then(|| {
                let limits = driver.constraints();
                let highest_address = limits.highest_address.min(NOWHERE - 1);
                Constraints { highest_address, ..limits }
            }),
        }
    }

    /// Whether the driver can transfer to and from this memory, as it lies.
    #[inline]
    fn take(&self, memory: &SgList) -> bool {
        self.limits.as_ref().is_none_or(|limits| memory.check(limits).is_ok())
    }
}

/// Sectors, and what is to become of them.
#[derive(Debug, Clone, Copy)]
struct Transfer {
    disk: DiskId,
    token: Token,
    direction: Direction,
    first_lba: u64,
    sectors: u64,
    len: usize,
}

/// Transfers that drivers have, of which only the end is left to be told.
#[derive(Debug, Default)]
pub(super) struct PassedOn {
    all: Vec<Passed>,
    free: Vec<u32>,
}

/// One of them, or the place for one.
#[derive(Debug, Clone, Copy)]
struct Passed {
    token: Token,
    since: Instant,
    len: usize,
    disk: DiskId,
    writes: bool,
    /// The driver has it.
    under_way: bool,
}

/// In the tags of what was passed on, behind which is its place; and in its claims.
const PASSED: u32 = 1 << 31;

impl PassedOn {
    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.all.len() - self.free.len()
    }

    /// A place for another one.
    #[inline]
    fn place(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            let (token, since, disk) = (Token(0), Instant::ORIGIN, DiskId(0));
            let (writes, under_way) = (false, false);
            self.all.push(Passed { token, since, len: 0, disk, writes, under_way });
            self.all.len() as u32 - 1
        })
    }
}

impl Disks {
    /// Whether a disk's driver takes any memory that this process has; see
    /// [`BlockDriver::takes_any_memory`].
    pub fn takes_any_memory(&self, disk: DiskId) -> bool {
        let place = self.disks.get(usize::from(disk.0));
        place.is_some_and(|place| self.drivers[place.driver].driver.takes_any_memory())
    }

    /// The space that a disk's controller finds memory in, and what it asks of that.
    pub fn space(&self, disk: DiskId) -> Option<(Arc<dyn DmaSpace>, Constraints)> {
        let place = self.disks.get(usize::from(disk.0))?;
        let driver = &self.drivers[place.driver].driver;
        Some((driver.dma(), driver.constraints()))
    }

    /// Transfers `len` bytes from `offset` on in memory of the caller's, which `memory` makes, if it
    /// is wanted, and which is as long. Where a sector cannot be read or written the whole request
    /// fails, and what was read is undefined. It cannot be cancelled.
    ///
    /// `false` if the bytes have to be copied: they are not whole sectors, or more than go in one
    /// piece, or the driver does not take the memory as it lies, or its controller does not reach it.
    #[inline]
    pub fn lend(
        &mut self,
        disk: DiskId,
        direction: Direction,
        (offset, len): (u64, usize),
        token: Token,
        memory: impl FnOnce() -> SgList,
    ) -> Result<bool, Refusal> {
        let terms = self.terms(disk)?;
        let (first_lba, sectors) = (offset >> terms.shift, len as u64 >> terms.shift);
        let whole = (offset | len as u64) & ((1 << terms.shift) - 1) == 0;
        if !whole || sectors > terms.max_sectors.into() {
            return Ok(false);
        }
        let end = offset.checked_add(len as u64).filter(|end| *end <= terms.bytes);
        if len == 0 || len > MAX_TRANSFER_BYTES || end.is_none() {
            return Err(Refusal::OutOfRange);
        }
        if terms.read_only && direction != Direction::Read {
            return Err(Refusal::ReadOnly);
        }
        if self.under_way() >= MAX_JOBS {
            return Err(Refusal::Busy);
        }
        let memory = memory();
        assert!(memory.bytes() == len, "{} bytes for {len}", memory.bytes());
        if !self.disks[usize::from(disk.0)].terms.take(&memory) {
            return Ok(false);
        }
        let transfer = Transfer { disk, token, direction, first_lba, sectors, len };
        if let Err(memory) = self.pass(&transfer, memory) {
            self.start_lent(&transfer, memory);
        }
        Ok(true)
    }

    /// What has to be known of a disk now; an error if it does not take requests.
    #[inline]
    fn terms(&mut self, disk: DiskId) -> Result<&Terms, Refusal> {
        let place = self.disks.get(usize::from(disk.0)).ok_or(Refusal::NoDisk)?;
        if place.terms.turn != self.turn || place.exclusive.is_some() {
            self.find_terms(disk)?;
        }
        Ok(&self.disks[usize::from(disk.0)].terms)
    }

    #[cold]
    fn find_terms(&mut self, disk: DiskId) -> Result<(), Refusal> {
        let place = self.disks.get_mut(usize::from(disk.0)).ok_or(Refusal::NoDisk)?;
        let driver = &self.drivers[place.driver].driver;
        let unit = driver.unit(place.unit).ok_or(Refusal::NoDisk)?;
        place.check(unit, &Kind::Read)?;
        place.terms = Terms::of(self.turn, place, unit, &**driver);
        Ok(())
    }

    /// Passes a transfer on to the driver, or gives its memory back if it has to wait.
    #[inline(always)]
    fn pass(&mut self, what: &Transfer, memory: SgList) -> Result<(), SgList> {
        let Transfer { disk, token, direction, first_lba, sectors, len } = *what;
        let place = &mut self.disks[usize::from(disk.0)];
        let index = self.passed.place();
        let (operation, writes) = match direction {
            Direction::Read => (Operation::Read, false),
            Direction::Write(durability) => (Operation::Write(durability), true),
        };
        let (first, last) = (first_lba, first_lba + (sectors - 1));
        let claim = Claim { job: PASSED | index, first, last, exclusive: false };
        if !place.queue.is_empty() || writes && !place.claims.take_at_once(claim) {
            self.passed.free.push(index);
            return Err(memory);
        }
        let request = Request { operation, lba: first_lba, sectors, data: memory };
        let tag = Tag((PASSED | index).into());
        match self.drivers[place.driver].driver.submit(place.unit, tag, request) {
            Ok(()) => {
                let since = self.now;
                self.passed.all[index as usize] =
                    Passed { token, since, len, disk, writes, under_way: true };
                place.counters.begin();
                *(if writes { &mut place.counters.writes } else { &mut place.counters.reads }) += 1;
                Ok(())
            }
            // What becomes of it is seen when it is tried again.
            Err(Refused { request, .. }) => {
                self.passed.free.push(index);
                if writes {
                    place.give_up(PASSED | index, &mut self.jobs);
                }
                Err(request.data)
            }
        }
    }

    /// Makes a job of a transfer.
    #[cold]
    fn start_lent(&mut self, what: &Transfer, memory: SgList) {
        let Transfer { disk, token, direction, first_lba, sectors, len } = *what;
        let terms = self.disks[usize::from(disk.0)].terms;
        let admitted = Admitted {
            disk: disk.0,
            generation: terms.generation,
            sector_bytes: 1 << terms.shift,
            max_piece: terms.max_sectors.into(),
            since: self.now,
        };
        let counters = &mut self.disks[usize::from(disk.0)].counters;
        let (kind, phase) = match direction {
            Direction::Read => {
                counters.reads += 1;
                (Kind::Read, Phase::Transfer)
            }
            Direction::Write(durability) => {
                counters.writes += 1;
                (Kind::Write(durability), Phase::Claiming)
            }
        };
        let (lent, is_lent) = (Some(memory), true);
        let job = Job::new(admitted, kind, Some(token));
        self.start(Job { phase, first_lba, sectors, len, lent, is_lent, ..job });
    }
}

/// All but the drivers, while one of them tells what has ended.
pub(super) struct Ending<'a> {
    pub(super) passed: &'a mut PassedOn,
    pub(super) disks: &'a mut [Disk],
    pub(super) jobs: &'a mut [Place],
    pub(super) done: &'a mut VecDeque<Done>,
    pub(super) now: Instant,
}

impl Ending<'_> {
    /// Takes note of the end of what was passed on; whether it was that, and not a job's.
    #[inline]
    pub(super) fn take(&mut self, completion: &Completion) -> bool {
        let number = completion.tag.0 as u32;
        if number & PASSED == 0 {
            return false;
        }
        // No driver of ours completes what was not submitted.
        let passed = self.passed.all.get_mut((number & !PASSED) as usize);
        let Some(passed) = passed.filter(|passed| passed.under_way) else { return true };
        passed.under_way = false;
        let Passed { token, since, len, disk, writes, .. } = *passed;
        self.passed.free.push(number & !PASSED);
        let place = &mut self.disks[usize::from(disk.0)];
        place.counters.active -= 1;
        place.took(writes, self.now, since);
        let result = match completion.result {
            Ok(()) => {
                place.moved(writes, len);
                place.counters.bytes_lent += len as u64;
                Ok(Outcome::Lent(len))
            }
            Err(error) => {
                place.counters.failed(error);
                Err(DiskError { error, lba: None })
            }
        };
        self.done.push_back(Done { token, disk, result });
        if writes {
            place.give_up(number, self.jobs);
        }
        true
    }
}
