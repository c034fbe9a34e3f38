//! What disks are asked and told beside their data.

use super::job::{JobId, Kind};
use super::set::{Disk, Disks};
use super::{DiskId, Refusal, Token};
use crate::manage::{Features, Health, Management, PASSWORD_BYTES};
use crate::unit::{Unit, UnitState};

/// Whether it changes what the disk is so much that nobody else may use it meanwhile.
const fn is_exclusive(what: Management) -> bool {
    matches!(what, Management::Erase { .. } | Management::SetCapacity { .. })
}

impl Disks {
    /// Asks or tells a disk something beside its data. What it finds out is in
    /// [`features`](Self::features) and [`health`](Self::health) afterwards.
    ///
    /// A password has 1 to [`PASSWORD_BYTES`] bytes; the memory that it is passed on in is wiped
    /// afterwards. Erasing and setting the capacity are refused while anything is under way at the
    /// disk, and everything else while they are.
    pub fn manage(
        &mut self,
        disk: DiskId,
        what: Management,
        password: Option<&[u8]>,
        token: Token,
    ) -> Result<JobId, Refusal> {
        let good = |password: &[u8]| !password.is_empty() && password.len() <= PASSWORD_BYTES;
        if password.map(good) != what.takes_password().then_some(true) {
            return Err(Refusal::BadPassword);
        }
        let geometry = self.geometry(disk).ok_or(Refusal::NoDisk)?;
        let changes = is_exclusive(what) || matches!(what, Management::SetPassword { .. });
        if changes && geometry.read_only {
            return Err(Refusal::ReadOnly);
        }
        let exclusive = is_exclusive(what);
        if exclusive && self.counters(disk).active > 0 {
            return Err(Refusal::InUse);
        }
        let mut job = self.job(disk, Kind::Manage(what), Some(token))?;
        if let Some(password) = password {
            let mut buffer = self.buffer(disk, PASSWORD_BYTES)?;
            buffer.write_bytes(0, &[0; PASSWORD_BYTES]);
            buffer.write_bytes(0, password);
            job.buffer = Some(buffer);
        }
        let id = self.start(job);
        if exclusive {
            self.disks[usize::from(disk.0)].exclusive = Some(id.index);
        }
        Ok(id)
    }

    /// What a disk can do beside transfers, and how it is set.
    pub fn features(&self, disk: DiskId) -> Option<Features> {
        self.unit(disk).map(|unit| unit.features)
    }

    /// What a disk said of its health when it was last asked ([`Management::ReadHealth`]).
    pub fn health(&self, disk: DiskId) -> Option<&Health> {
        let disk = self.disks.get(usize::from(disk.0))?;
        self.drivers.get(disk.driver)?.driver.health(disk.unit)
    }

    /// A request beside the data has ended, well or not.
    pub(super) fn managed(&mut self, disk: DiskId, what: Management) {
        if is_exclusive(what) {
            // There may be nothing left of the partitions. If it is locked now, it is looked at
            // when it is unlocked.
            let _ = self.rescan(disk, None);
        }
    }
}

impl Disk {
    /// Whether it takes a job of this kind now.
    #[inline]
    pub(super) fn check(&self, unit: &Unit, kind: &Kind) -> Result<(), Refusal> {
        if self.exclusive.is_some() {
            return Err(Refusal::InUse);
        }
        match (unit.state, kind) {
            (UnitState::Absent, _) => Err(Refusal::NoDisk),
            (UnitState::Locked | UnitState::Empty, Kind::Manage(_)) => Ok(()),
            (UnitState::Locked, _) => Err(Refusal::Locked),
            (UnitState::Empty, _) => Err(Refusal::NoMedium),
            _ => Ok(()),
        }
    }
}
