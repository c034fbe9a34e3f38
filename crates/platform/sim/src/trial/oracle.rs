//! What a disk must hold, and what it may say.
//!
//! For each sector the oracle knows which versions were written, which were acknowledged, and which
//! must be durable. A read may return any version from the *floor* (the newest that was
//! acknowledged, unless power was cut since) to the newest that was written.

use super::{Tried, content};
use crate::fault::{Cost, Struck};
use outboard_block::{BlockError, Durability, Operation};
use outboard_hw::Instant;

/// What a disk holds.
pub(super) trait Content {
    /// Whether a sector has a defect.
    fn is_damaged(&self, lba: u64) -> bool;

    /// Copies what a read of a sector would return now.
    fn visible(&mut self, lba: u64, sector: &mut [u8]);

    /// Copies what is durable at a sector.
    fn durable(&mut self, lba: u64, sector: &mut [u8]);
}

/// A sector.
#[derive(Debug, Clone, Default)]
struct Sector {
    /// The newest version that was submitted.
    newest: u32,
    /// The newest version that was acknowledged, and how often power had been cut when it was
    /// submitted.
    acknowledged: (u32, u32),
    /// No older version may be seen.
    floor: u32,
    /// No older version may be left after a loss of power.
    durable: u32,
    /// It was trimmed, and may hold anything.
    undefined: bool,
    /// Likewise after a loss of power: nothing that was written since is durable.
    undefined_durable: bool,
    /// The newest version when it was last trimmed.
    trimmed: u32,
    /// Which of all TRIMs that was.
    trim: u32,
    /// A write or a TRIM of it is under way.
    changing: bool,
    /// Versions that are zeros, the oldest first.
    zeros: Vec<u32>,
}

impl Sector {
    /// Which version it is that reads so, none of them below `floor`: zeros say no version, and may be
    /// of several.
    fn version_of(&self, read: u32, floor: u32) -> u32 {
        let could_be = self.zeros.iter().find(|version| **version >= floor.max(1));
        match could_be {
            Some(version) if read == 0 && floor > 0 => *version,
            _ => read,
        }
    }
}

/// A request that is under way.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) operation: Operation,
    pub(super) lba: u64,
    pub(super) sectors: u64,
    pub(super) submitted: Instant,
    /// How often power had been cut.
    cuts: u32,
    /// Faults that had struck, and attempts that were spoilt.
    faults: usize,
    spoilt: usize,
    /// For a read: the floor of each sector; for a write: its version; for a flush: what had been
    /// acknowledged of every sector.
    versions: Vec<(u32, u32)>,
    /// For a read: a sector that may hold anything.
    loose: bool,
    /// TRIMs so far.
    trims: u32,
}

/// What is known of one disk.
#[derive(Debug)]
pub(super) struct Oracle<F> {
    /// What marks its content.
    pub(super) disk: u64,
    pub(super) base: u64,
    pub(super) sector_bytes: usize,
    sectors: Vec<Sector>,
    /// How often power was cut.
    cuts: u32,
    /// Up to which of these the driver has said that the cache may be lost.
    told: u32,
    /// The faults that have struck its port, and those of the HBA.
    faults: Vec<Struck<F>>,
    /// Faults of the disk's or the controller's kind among them.
    fatal: bool,
    /// Attempts at requests that may have been spoilt.
    spoilt: usize,
    /// How often the multiplier that it is behind was reset.
    multiplier_resets: u32,
    /// It was reset after something was written: it has forgotten whether the disk was cut off
    /// before, so the driver may well doubt its cache.
    in_doubt: bool,
    /// A write was submitted.
    written: bool,
    /// TRIMs so far.
    trims: u32,
}

/// How often a request is issued in all, if one attempt after the other is spoilt.
const ATTEMPTS: usize = 3;
/// So many faults may well make a driver give a disk up, for a while or for good: its port is reset
/// three times in a row.
const MANY: usize = 3;

impl<F: Tried> Oracle<F> {
    pub(super) fn new(disk: u64, base: u64, sectors: usize, sector_bytes: usize) -> Self {
        Self {
            disk,
            base,
            sector_bytes,
            sectors: vec![Sector::default(); sectors],
            cuts: 0,
            told: 0,
            faults: Vec::new(),
            fatal: false,
            spoilt: 0,
            multiplier_resets: 0,
            in_doubt: false,
            written: false,
            trims: 0,
        }
    }

    /// Another disk has taken the place: an empty one.
    pub(super) fn replaced(&mut self, disk: u64) {
        self.disk = disk;
        self.sectors.fill(Sector::default());
        self.told = self.cuts;
    }

    /// The disk has gone and is back: whoever uses it knows that its cache may be lost.
    pub(super) fn returned(&mut self) {
        self.told = self.cuts;
        for sector in &mut self.sectors {
            sector.acknowledged.0 = sector.acknowledged.0.min(sector.durable);
            sector.floor = sector.floor.min(sector.durable);
        }
    }

    pub(super) const fn multiplier_was_reset(&mut self, times: u32) {
        self.in_doubt |= times != self.multiplier_resets && self.written;
        self.multiplier_resets = times;
    }

    /// So many attempts at requests may be spoilt so far; where nobody knows, each fault is taken to
    /// spoil one.
    pub(super) fn attempts_spoilt(&mut self, spoilt: Option<usize>) {
        self.spoilt = spoilt.unwrap_or(self.faults.len());
    }

    pub(super) const fn len(&self) -> usize {
        self.sectors.len()
    }

    fn range(&self, lba: u64, sectors: u64) -> core::ops::Range<usize> {
        let start = (lba - self.base) as usize;
        start..start + sectors as usize
    }

    /// Whether none of these sectors is being changed.
    pub(super) fn is_quiet(&self, lba: u64, sectors: u64) -> bool {
        !self.sectors[self.range(lba, sectors)].iter().any(|sector| sector.changing)
    }

    /// A request is about to be submitted. `data` is filled for a write.
    pub(super) fn submit(
        &mut self,
        operation: Operation,
        lba: u64,
        sectors: u64,
        now: Instant,
        data: &mut [u8],
    ) -> Pending {
        let mut pending = Pending {
            operation,
            lba,
            sectors,
            submitted: now,
            cuts: self.cuts,
            faults: self.faults.len(),
            spoilt: self.spoilt,
            versions: Vec::new(),
            loose: false,
            trims: self.trims,
        };
        match operation {
            Operation::Read => {
                let range = self.range(lba, sectors);
                pending.loose = self.sectors[range.clone()].iter().any(|sector| sector.undefined);
                pending.versions = self.sectors[range].iter().map(|s| (s.floor, 0)).collect();
            }
            Operation::Write(_) => {
                self.written = true;
                let (disk, bytes) = (self.disk, self.sector_bytes);
                let range = self.range(lba, sectors);
                let chunks = data.chunks_exact_mut(bytes);
                for ((lba, sector), chunk) in (lba..).zip(&mut self.sectors[range]).zip(chunks) {
                    sector.newest += 1;
                    sector.changing = true;
                    pending.versions.push((sector.newest, 0));
                    content::fill(chunk, disk, lba, sector.newest);
                }
            }
            Operation::WriteZeroes(_) => {
                self.written = true;
                let range = self.range(lba, sectors);
                for sector in &mut self.sectors[range] {
                    sector.newest += 1;
                    sector.changing = true;
                    sector.zeros.push(sector.newest);
                    pending.versions.push((sector.newest, 0));
                }
            }
            Operation::Discard | Operation::SecureErase => {
                self.trims += 1;
                let (range, trim) = (self.range(lba, sectors), self.trims);
                for sector in &mut self.sectors[range] {
                    (sector.undefined, sector.undefined_durable) = (true, true);
                    (sector.durable, sector.trimmed) = (0, sector.newest);
                    (sector.changing, sector.trim) = (true, trim);
                }
            }
            _ => pending.versions = self.sectors.iter().map(|s| s.acknowledged).collect(),
        }
        pending
    }

    /// It was refused; nothing has happened.
    pub(super) fn refused(&mut self, pending: &Pending) {
        let clears = matches!(
            pending.operation,
            Operation::Discard | Operation::SecureErase | Operation::WriteZeroes(_)
        );
        if clears || matches!(pending.operation, Operation::Write(_)) {
            let range = self.range(pending.lba, pending.sectors);
            self.sectors[range].iter_mut().for_each(|sector| sector.changing = false);
        }
    }

    /// A fault has struck at the disk's port, or at the HBA.
    pub(super) fn struck(&mut self, struck: Struck<F>, others: &mut [&mut Pending]) {
        self.faults.push(struck);
        self.fatal |= matches!(struck.fault.cost(), Cost::Disk | Cost::Controller);
        if struck.fault.cuts_power() {
            self.cuts += 1;
            for sector in &mut self.sectors {
                sector.floor = sector.durable;
                sector.undefined |= sector.undefined_durable;
            }
            for pending in others.iter_mut().filter(|p| p.operation == Operation::Read) {
                let durable = pending.versions.iter().map(|(floor, _)| *floor);
                let range = self.range(pending.lba, pending.sectors);
                let lowered = durable.zip(&self.sectors[range]);
                pending.versions = lowered.map(|(floor, s)| (floor.min(s.durable), 0)).collect();
            }
        }
    }

    /// A request has ended; the error says what is wrong with that.
    pub(super) fn complete(
        &mut self,
        pending: &Pending,
        result: Result<(), BlockError>,
        data: &[u8],
    ) -> Result<(), String> {
        self.refused(pending);
        if let Err(error) = result {
            if error == BlockError::CacheLost && pending.operation == Operation::Flush {
                self.returned();
            }
            return self.excuse(pending, error);
        }
        match pending.operation {
            Operation::Read => self.check_read(pending, data),
            Operation::Write(_) | Operation::WriteZeroes(_) => {
                let durable = pending.operation == Operation::Write(Durability::Durable);
                let range = self.range(pending.lba, pending.sectors);
                let uncut = pending.cuts == self.cuts;
                for (sector, (version, _)) in self.sectors[range].iter_mut().zip(&pending.versions)
                {
                    sector.acknowledged = (*version, pending.cuts);
                    if uncut || durable {
                        sector.undefined = false;
                        sector.floor = sector.floor.max(*version);
                    }
                    if durable {
                        sector.undefined_durable = false;
                        sector.durable = sector.durable.max(*version);
                    }
                }
                Ok(())
            }
            Operation::Flush => {
                for (sector, (version, cuts)) in self.sectors.iter_mut().zip(&pending.versions) {
                    if *cuts >= self.told && *version > sector.trimmed {
                        (sector.undefined, sector.undefined_durable) = (false, false);
                        sector.durable = sector.durable.max(*version);
                        sector.floor = sector.floor.max(*version);
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn check_read(&mut self, pending: &Pending, data: &[u8]) -> Result<(), String> {
        let range = self.range(pending.lba, pending.sectors);
        let chunks = data.chunks_exact(self.sector_bytes);
        let lbas = pending.lba..;
        for (((lba, sector), chunk), (floor, _)) in
            lbas.zip(&mut self.sectors[range]).zip(chunks).zip(&pending.versions)
        {
            // A TRIM may come between a read that it overtakes and a write behind it.
            if sector.undefined || pending.loose || sector.trim > pending.trims {
                continue;
            }
            let version = content::version(chunk, self.disk, lba)
                .map_err(|what| format!("sector {lba} reads as {what}"))?;
            let version = sector.version_of(version, *floor);
            if version < *floor || version > sector.newest {
                return Err(format!(
                    "sector {lba} reads as version {version}, not {floor} to {}",
                    sector.newest
                ));
            }
            if pending.cuts == self.cuts && !sector.changing {
                // What was seen once does not go away.
                sector.floor = sector.floor.max(version);
            }
        }
        Ok(())
    }

    /// Whether the faults that have struck are reason enough for an error.
    fn excuse(&self, pending: &Pending, error: BlockError) -> Result<(), String> {
        let since = &self.faults[pending.faults.min(self.faults.len())..];
        let cost = |wanted: Cost| self.faults.iter().any(|f| f.fault.cost() == wanted);
        let sectors = pending.lba..pending.lba + pending.sectors;
        let hit = since.iter().any(|f| f.fault.cost() == Cost::Request);
        let damaged = self.faults.iter().any(|f| f.lba.is_some_and(|lba| sectors.contains(&lba)));
        let excused = match error {
            BlockError::Media { lba: Some(lba) } => {
                let inside = pending.operation == Operation::Flush || sectors.contains(&lba);
                inside && self.faults.iter().any(|fault| fault.lba == Some(lba))
            }
            // A bad sector whose address was overwritten before it was read, or nobody knows.
            BlockError::Media { lba: None } => {
                damaged || hit || self.faults.iter().any(|f| f.fault.hides_sector())
            }
            // One that has a damaged sector fails in the end, one way or another.
            BlockError::Aborted => {
                since.len() >= 2
                    || damaged
                    || hit
                    || self.faults.iter().any(|f| f.fault.spoils_flushes())
            }
            BlockError::Transport | BlockError::Timeout => {
                self.spoilt - pending.spoilt >= ATTEMPTS || self.fatal || damaged
            }
            BlockError::CacheLost => cost(Cost::Cache) || self.fatal || self.in_doubt,
            // Away for the twelve seconds that it has, which two faults together can bring about.
            BlockError::Gone => self.fatal || since.len() >= 2 || self.faults.len() > MANY,
            BlockError::WriteProtected => self.fatal,
            BlockError::BadAnswer | BlockError::Unsupported => hit,
            _ => false,
        };
        if excused {
            return Ok(());
        }
        Err(format!(
            "{:?} of {}+{} failed without reason: {error}; {} faults since",
            pending.operation,
            pending.lba,
            pending.sectors,
            since.len()
        ))
    }

    /// Whether the disk may be out of use.
    pub(super) fn may_be_lost(&self) -> bool {
        self.fatal || self.faults.len() >= MANY
    }

    /// Whether it may be away for a while: its link or its power was lost.
    pub(super) fn may_be_away(&self) -> bool {
        self.may_be_lost() || self.faults.iter().any(|fault| fault.fault.cost() == Cost::Cache)
    }

    /// Compares the disk with what it must hold, once nothing is under way.
    pub(super) fn check_disk(&self, disk: &mut dyn Content) -> Result<(), String> {
        let mut bytes = vec![0; self.sector_bytes];
        for (lba, sector) in (self.base..).zip(&self.sectors) {
            if disk.is_damaged(lba) || sector.undefined {
                continue;
            }
            for (what, floor) in [("now", sector.floor), ("after a power cut", sector.durable)] {
                if what != "now" && sector.undefined_durable {
                    continue;
                }
                if what == "now" {
                    disk.visible(lba, &mut bytes);
                } else {
                    disk.durable(lba, &mut bytes);
                }
                let version = content::version(&bytes, self.disk, lba)
                    .map_err(|found| format!("sector {lba} holds {found} {what}"))?;
                let version = sector.version_of(version, floor);
                if version < floor || version > sector.newest {
                    return Err(format!(
                        "sector {lba} holds version {version} {what}, not {floor} to {}",
                        sector.newest
                    ));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::VirtioFault;
    use outboard_block::Room;

    const NOW: Instant = Instant::ORIGIN;
    const ZEROES: Operation = Operation::WriteZeroes(Room::Keep);

    /// An oracle of one sector, and how to change it: what it then has to hold.
    struct Rig(Oracle<VirtioFault>);

    impl Rig {
        fn new() -> Self {
            Self(Oracle::new(7, 0, 1, 512))
        }

        fn do_it(&mut self, operation: Operation) -> [u8; 512] {
            let mut data = [0; 512];
            let pending = self.0.submit(operation, 0, 1, NOW, &mut data);
            self.0.complete(&pending, Ok(()), &[]).unwrap();
            data
        }

        /// Whether a read may give this.
        fn may_read(&mut self, data: &[u8; 512]) -> bool {
            let pending = self.0.submit(Operation::Read, 0, 1, NOW, &mut []);
            self.0.complete(&pending, Ok(()), data).is_ok()
        }
    }

    #[test]
    fn a_request_fails_only_after_three_attempts_whenever_what_spoilt_them_struck() {
        let mut rig = Rig::new();
        let struck = |fault| Struck { at: NOW, port: 0, behind: None, fault, lba: None };
        rig.0.struck(struck(VirtioFault::Stuck), &mut []);
        rig.0.attempts_spoilt(Some(1));
        let pending = rig.0.submit(Operation::Read, 0, 1, NOW, &mut []);
        rig.0.struck(struck(VirtioFault::UsedIdFree), &mut []);
        rig.0.struck(struck(VirtioFault::VerySlow), &mut []);
        for (spoilt, excused) in [(3, false), (4, true)] {
            rig.0.attempts_spoilt(Some(spoilt));
            assert_eq!(rig.0.excuse(&pending, BlockError::Timeout).is_ok(), excused, "{spoilt}");
        }
    }

    #[test]
    fn zeros_that_were_not_written_are_noticed() {
        let mut rig = Rig::new();
        assert!(rig.may_read(&[0; 512]), "nothing was ever written");
        let first = rig.do_it(Operation::Write(Durability::Cached));
        assert!(!rig.may_read(&[0; 512]), "the write is lost");
        rig.do_it(ZEROES);
        assert!(!rig.may_read(&first), "there are to be zeros");
        assert!(rig.may_read(&[0; 512]));
        let second = rig.do_it(Operation::Write(Durability::Cached));
        assert!(rig.may_read(&second) && !rig.may_read(&[0; 512]), "the zeros are back");
        rig.do_it(ZEROES);
        assert!(!rig.may_read(&second) && rig.may_read(&[0; 512]));
    }

    #[test]
    fn zeros_that_may_have_been_written_may_be_read_until_something_else_was() {
        let mut rig = Rig::new();
        let first = rig.do_it(Operation::Write(Durability::Cached));
        let _ = rig.0.submit(ZEROES, 0, 1, NOW, &mut []);
        assert!(rig.may_read(&first), "it is under way");
        assert!(rig.may_read(&[0; 512]));
    }
}
