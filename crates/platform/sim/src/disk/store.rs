//! Sectors: the medium with its defects, and the cache before it.

use super::cache::Cache;
use super::config::TrimPromise;
use super::medium::Medium;
use super::ranges::Ranges;
use crate::Random;
use std::collections::BTreeMap;

/// What is wrong with a sector of the medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// It cannot be read (UNC) until it is written again.
    Uncorrectable,
    /// It cannot be read so many times, and then it can.
    Passing(u8),
    /// It can never be read, and nothing stays there: writing it fails; if it was cached, flushing
    /// does.
    Permanent,
    /// It is not found (IDNF), neither for reading nor for writing.
    NotFound,
    /// It can be read, but not written: the disk is faulty (DF).
    WriteFault,
}

/// How an access failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Uncorrectable,
    NotFound,
    Fault,
}

/// How an access failed, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) lba: u64,
}

/// Whether a write may stay in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    Cached,
    Durable,
}

/// What happened to sectors, for SMART.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Wear {
    /// Sectors that were found uncorrectable and written again since.
    pub(crate) reallocated: u64,
    /// Accesses that failed.
    pub(crate) uncorrectable: u64,
}

pub(crate) struct Store {
    medium: Box<dyn Medium>,
    sector_bytes: usize,
    cache: Cache,
    pub(crate) defects: BTreeMap<u64, Defect>,
    promise: TrimPromise,
    /// Where TRIM was and no write since; not kept if such sectors are zeros.
    trimmed: Ranges,
    /// The first cached sector that could not be written, which the next flush reports.
    deferred: Option<Failure>,
    pub(crate) wear: Wear,
}

impl Store {
    pub(crate) fn new(
        medium: Box<dyn Medium>,
        sector_bytes: usize,
        cache_sectors: usize,
        promise: TrimPromise,
    ) -> Self {
        Self {
            medium,
            sector_bytes,
            cache: Cache::new(sector_bytes, cache_sectors),
            defects: BTreeMap::new(),
            promise,
            trimmed: Ranges::default(),
            deferred: None,
            wear: Wear::default(),
        }
    }

    /// Sectors that are in the cache.
    pub(crate) fn cached(&self) -> usize {
        self.cache.len()
    }

    /// What the host would see at a sector, whether or not it could be read.
    pub(crate) fn visible(&mut self, lba: u64, sector: &mut [u8]) {
        match self.cache.get(lba) {
            Some(cached) => sector.copy_from_slice(cached),
            None => self.durable(lba, sector),
        }
    }

    /// What the medium has at a sector, whether or not it could be read.
    pub(crate) fn durable(&mut self, lba: u64, sector: &mut [u8]) {
        if self.medium.read(lba, sector).is_err() {
            sector.fill(0);
        }
    }

    /// Sectors that cannot be read until they are written.
    pub(crate) fn pending(&self) -> u64 {
        self.defects.values().filter(|defect| **defect == Defect::Uncorrectable).count() as u64
    }

    /// The first sector before `end` that the medium cannot give.
    pub(crate) fn first_defect_below(&self, end: u64) -> Option<u64> {
        let unreadable =
            |defect: &Defect| !matches!(defect, Defect::WriteFault | Defect::Passing(_));
        self.defects.range(..end).find(|(_, defect)| unreadable(defect)).map(|(lba, _)| *lba)
    }

    /// The first sector of some that cannot be read.
    fn first_unreadable(&mut self, lba: u64, sectors: u64) -> Option<Failure> {
        let mut failure = None;
        for (at, defect) in self.defects.range_mut(lba..lba + sectors) {
            let kind = match defect {
                // What is cached is not looked for on the medium.
                _ if self.cache.contains(*at) => continue,
                Defect::WriteFault | Defect::Passing(0) => continue,
                Defect::Passing(left) => {
                    *left -= 1;
                    Kind::Uncorrectable
                }
                Defect::Uncorrectable | Defect::Permanent => Kind::Uncorrectable,
                Defect::NotFound => Kind::NotFound,
            };
            failure = Some(Failure { kind, lba: *at });
            break;
        }
        failure
    }

    /// Reads sectors, up to the first that fails.
    pub(crate) fn read(
        &mut self,
        lba: u64,
        data: &mut [u8],
        random: &mut Random,
    ) -> Result<(), Failure> {
        let sectors = (data.len() / self.sector_bytes) as u64;
        let failure = self.first_unreadable(lba, sectors);
        let good = failure.map_or(data.len(), |f| (f.lba - lba) as usize * self.sector_bytes);
        let data = &mut data[..good];
        let failure = match self.medium.read(lba, data) {
            Ok(()) => failure,
            Err(error) => Some(Failure { kind: Kind::Uncorrectable, lba: error.lba }),
        };
        let end = lba + (good / self.sector_bytes) as u64;
        for (start, stop) in self.trimmed.overlaps(lba, end) {
            for at in start..stop {
                let place = (at - lba) as usize * self.sector_bytes;
                let pattern = match self.promise {
                    TrimPromise::Nothing => random.bits(),
                    TrimPromise::Deterministic | TrimPromise::Zeros => Random::new(at).bits(),
                };
                for bytes in data[place..place + self.sector_bytes].chunks_exact_mut(8) {
                    bytes.copy_from_slice(&pattern.to_le_bytes());
                }
            }
        }
        self.cache.overlay(lba, data);
        match failure {
            Some(failure) => {
                self.wear.uncorrectable += 1;
                Err(failure)
            }
            None => Ok(()),
        }
    }

    /// Writes sectors, up to the first that fails.
    pub(crate) fn write(
        &mut self,
        lba: u64,
        data: &[u8],
        depth: Depth,
        random: &mut Random,
    ) -> Result<(), Failure> {
        if depth == Depth::Durable {
            return self.write_durable(lba, data);
        }
        let sectors = (data.len() / self.sector_bytes) as u64;
        let failure = self.defects.range(lba..lba + sectors).find_map(|(at, defect)| {
            let kind = match defect {
                Defect::NotFound => Kind::NotFound,
                Defect::WriteFault => Kind::Fault,
                _ => return None,
            };
            Some(Failure { kind, lba: *at })
        });
        let good = failure.map_or(data.len(), |f| (f.lba - lba) as usize * self.sector_bytes);
        self.write_cached(lba, &data[..good], random);
        failure.map_or(Ok(()), Err)
    }

    fn write_cached(&mut self, lba: u64, data: &[u8], random: &mut Random) {
        for (at, sector) in (lba..).zip(data.chunks_exact(self.sector_bytes)) {
            if let Some(cached) = self.cache.get_mut(at) {
                // The older data may have got to the medium, or not.
                if random.once_in(4) {
                    self.trimmed.remove(at, at + 1);
                    let (defects, wear) = (&mut self.defects, &mut self.wear);
                    let written = put(&mut *self.medium, defects, wear, at, cached);
                    self.deferred = self.deferred.or(written.err());
                }
                cached.copy_from_slice(sector);
                continue;
            }
            if self.cache.is_full()
                && let Some(victim) = self.cache.oldest()
            {
                self.evict(victim);
            }
            self.cache.insert(at, sector);
        }
    }

    /// Moves a cached sector to the medium.
    fn evict(&mut self, lba: u64) {
        let Some(sector) = self.cache.get(lba) else { return };
        let written = put(&mut *self.medium, &mut self.defects, &mut self.wear, lba, sector);
        self.trimmed.remove(lba, lba + 1);
        self.deferred = self.deferred.or(written.err());
        self.cache.remove(lba);
    }

    fn write_durable(&mut self, lba: u64, data: &[u8]) -> Result<(), Failure> {
        let end = lba + (data.len() / self.sector_bytes) as u64;
        let written = put_all(
            &mut *self.medium,
            &mut self.defects,
            &mut self.wear,
            (lba, data),
            self.sector_bytes,
        );
        // What was cached of it is older, and must never get to the medium any more. From the
        // sector that failed on, what is cached is the newest that there is.
        let end = written.err().map_or(end, |failure| failure.lba);
        self.cache.remove_range(lba, end);
        self.trimmed.remove(lba, end);
        written?;
        self.medium.flush().map_err(|error| Failure { kind: Kind::Fault, lba: error.lba })
    }

    /// Makes everything durable. Fails for the first sector that cannot be; all others are, and it
    /// is forgotten.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        let mut failure = self.deferred.take();
        let sorted = self.cache.take_sorted();
        let mut rest = &sorted[..];
        while let Some(first) = rest.first() {
            let (length, mut data) = self.cache.run(rest);
            let mut lba = *first;
            self.trimmed.remove(lba, lba + length as u64);
            // The sectors behind one that fails are still to be written.
            while let Err(error) = put_all(
                &mut *self.medium,
                &mut self.defects,
                &mut self.wear,
                (lba, data),
                self.sector_bytes,
            ) {
                failure = failure.or(Some(error));
                data = &data[((error.lba - lba) as usize + 1) * self.sector_bytes..];
                lba = error.lba + 1;
            }
            rest = &rest[length..];
        }
        self.cache.clear(sorted);
        let flushed = self.medium.flush();
        let failure = failure.or(flushed.err().map(|e| Failure { kind: Kind::Fault, lba: e.lba }));
        failure.map_or(Ok(()), Err)
    }

    /// Says of some sectors that nobody needs what they hold.
    pub(crate) fn trim(&mut self, lba: u64, sectors: u64) -> Result<(), Failure> {
        let end = lba + sectors;
        self.cache.remove_range(lba, end);
        while let Some((at, _)) =
            self.defects.range(lba..end).find(|(_, d)| **d == Defect::Uncorrectable)
        {
            let at = *at;
            self.defects.remove(&at);
        }
        if self.promise != TrimPromise::Zeros {
            self.trimmed.insert(lba, end);
        }
        let discarded = self.medium.discard(lba, sectors);
        discarded.map_err(|error| Failure { kind: Kind::Fault, lba: error.lba })
    }

    /// Makes sectors zeros, for good.
    pub(crate) fn erase(&mut self, sectors: u64) -> Result<(), Failure> {
        self.cache.clear(Vec::new());
        self.trimmed = Ranges::default();
        self.defects.retain(|_, defect| *defect != Defect::Uncorrectable);
        let discarded = self.medium.discard(0, sectors).and_then(|()| self.medium.flush());
        discarded.map_err(|error| Failure { kind: Kind::Fault, lba: error.lba })
    }

    /// Power is cut: each cached sector has got to the medium, or has not.
    pub(crate) fn lose_power(&mut self, random: &mut Random) {
        // All of it, none of it, or each by lot.
        let lot = random.below(4);
        let sorted = self.cache.take_sorted();
        for lba in &sorted {
            if lot == 1 || lot > 1 && random.once_in(2) {
                self.evict(*lba);
            }
        }
        self.cache.clear(sorted);
        self.deferred = None;
    }
}

/// Puts a sector on the medium, which repairs it if it can be repaired.
fn put(
    medium: &mut dyn Medium,
    defects: &mut BTreeMap<u64, Defect>,
    wear: &mut Wear,
    lba: u64,
    sector: &[u8],
) -> Result<(), Failure> {
    put_all(medium, defects, wear, (lba, sector), sector.len())
}

/// Puts sectors on the medium, up to the first that fails.
fn put_all(
    medium: &mut dyn Medium,
    defects: &mut BTreeMap<u64, Defect>,
    wear: &mut Wear,
    (lba, data): (u64, &[u8]),
    sector_bytes: usize,
) -> Result<(), Failure> {
    let end = lba + (data.len() / sector_bytes) as u64;
    let (mut good, mut failure) = (data.len(), None);
    let mut from = lba;
    while let Some((at, defect)) = defects.range(from..end).next().map(|(at, d)| (*at, *d)) {
        from = at + 1;
        let kind = match defect {
            Defect::Uncorrectable => {
                defects.remove(&at);
                wear.reallocated += 1;
                continue;
            }
            Defect::Passing(_) => {
                defects.remove(&at);
                continue;
            }
            Defect::NotFound => Kind::NotFound,
            Defect::Permanent | Defect::WriteFault => Kind::Fault,
        };
        good = (at - lba) as usize * sector_bytes;
        failure = Some(Failure { kind, lba: at });
        break;
    }
    let written = medium.write(lba, &data[..good]);
    let written = written.map_err(|error| Failure { kind: Kind::Fault, lba: error.lba });
    written.and(failure.map_or(Ok(()), Err))
}
