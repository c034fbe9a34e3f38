//! Transfers between a disk and memory of whoever asks, without a copy between them.

use super::job::{Job, JobId, Kind, Phase};
use super::set::{Disks, MAX_TRANSFER_BYTES};
use super::{DiskId, Refusal, Token};
use crate::driver::Durability;
use alloc::sync::Arc;
use outboard_hw::dma::{Constraints, DmaSpace, NOWHERE, SgList};

impl Disks {
    /// Whether a disk's driver takes any memory that this process has; see
    /// [`BlockDriver::takes_any_memory`](crate::BlockDriver::takes_any_memory).
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

    /// Whether a disk's driver can transfer to and from memory of the caller's: it takes any, or its
    /// controller reaches all of it, and takes it as it lies.
    pub fn takes_memory(&self, disk: DiskId, memory: &SgList) -> bool {
        let Some(place) = self.disks.get(usize::from(disk.0)) else { return false };
        let driver = &self.drivers[place.driver].driver;
        if driver.takes_any_memory() {
            return true;
        }
        let limits = driver.constraints();
        let highest_address = limits.highest_address.min(NOWHERE - 1);
        memory.check(&Constraints { highest_address, ..limits }).is_ok()
    }

    /// Whether `len` bytes from `offset` on can be transferred in memory of the caller's
    /// ([`read_lent`](Self::read_lent), [`write_lent`](Self::write_lent)), if the driver
    /// [takes](Self::takes_memory) that: they are whole sectors, no more than go in one piece.
    pub fn takes_lent(&self, disk: DiskId, offset: u64, len: usize) -> bool {
        let Some(place) = self.disks.get(usize::from(disk.0)) else { return false };
        let driver = &self.drivers[place.driver].driver;
        let Some(unit) = driver.unit(place.unit) else { return false };
        let sector = u64::from(unit.geometry.sector_bytes);
        // Sectors have a power of two of bytes, or else this is left to those who divide.
        let whole = sector.is_power_of_two() && (offset | len as u64) & (sector - 1) == 0;
        let most = sector.saturating_mul(unit.geometry.max_transfer_sectors.into());
        whole && len as u64 <= most
    }

    /// Reads into memory of the caller's, as much as it has, from `offset` on. Where a sector cannot
    /// be read the whole request fails, and the memory is undefined.
    pub fn read_lent(
        &mut self,
        disk: DiskId,
        offset: u64,
        into: SgList,
        token: Token,
    ) -> Result<JobId, Refusal> {
        let id = self.lent(disk, (Kind::Read, Phase::Transfer), offset, into, token)?;
        self.disks[usize::from(disk.0)].counters.reads += 1;
        Ok(id)
    }

    /// Writes from memory of the caller's, all that it has, from `offset` on. The disk may read it
    /// more than once: if it changes meanwhile, so may what is written.
    pub fn write_lent(
        &mut self,
        disk: DiskId,
        offset: u64,
        from: SgList,
        durability: Durability,
        token: Token,
    ) -> Result<JobId, Refusal> {
        if self.geometry(disk).is_some_and(|geometry| geometry.read_only) {
            return Err(Refusal::ReadOnly);
        }
        let what = (Kind::Write(durability), Phase::Claiming);
        let id = self.lent(disk, what, offset, from, token)?;
        self.disks[usize::from(disk.0)].counters.writes += 1;
        Ok(id)
    }

    #[inline]
    fn lent(
        &mut self,
        disk: DiskId,
        (kind, phase): (Kind, Phase),
        offset: u64,
        memory: SgList,
        token: Token,
    ) -> Result<JobId, Refusal> {
        let len = memory.bytes();
        if !self.takes_lent(disk, offset, len) || !self.takes_memory(disk, &memory) {
            return Err(Refusal::Unsupported);
        }
        let admitted = self.admit(disk, &kind)?;
        let size = self.geometry(disk).ok_or(Refusal::NoDisk)?.bytes();
        let end = offset.checked_add(len as u64).filter(|end| *end <= size);
        if len == 0 || len > MAX_TRANSFER_BYTES || end.is_none() {
            return Err(Refusal::OutOfRange);
        }
        let shift = admitted.sector_bytes.trailing_zeros();
        Ok(self.start(Job {
            phase,
            lent: Some(memory),
            is_lent: true,
            first_lba: offset >> shift,
            sectors: len as u64 >> shift,
            len,
            ..Job::new(admitted, kind, Some(token))
        }))
    }
}
