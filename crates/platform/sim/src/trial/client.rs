//! Somebody who uses a disk, and watches what comes back.

use super::Tried;
use super::oracle::{Oracle, Pending};
use crate::Random;
use crate::fault::Struck;
use core::time::Duration;
use outboard_block::{
    BlockDriver, Completion, Durability, Geometry, Operation, RefusedReason, Request, Room, Tag,
    UnitId, UnitState,
};
use outboard_hw::Instant;
use outboard_hw::dma::{Constraints, DmaSpace, SgList};
use std::collections::BTreeMap;

/// No request takes longer, whatever happens: four attempts of half a minute, for it and for the
/// 31 that it may have to wait for.
const LONGEST: Duration = Duration::from_secs(3 * 3600);

/// A disk that can come back does so within this.
const RETURN: Duration = Duration::from_secs(60);

/// A client of one disk.
#[derive(Debug)]
pub(super) struct Client<F> {
    pub(super) unit: UnitId,
    pub(super) oracle: Oracle<F>,
    random: Random,
    pending: BTreeMap<u64, Pending>,
    next_tag: u64,
    /// Requests that are still to be submitted.
    left: u32,
    depth: usize,
    generation: u32,
    /// It was ready before.
    met: bool,
    /// Since when it cannot be used.
    lost_since: Option<Instant>,
    /// Nothing more comes of this disk.
    over: bool,
    pub(super) good: u64,
    pub(super) failed: u64,
}

impl<F: Tried> Client<F> {
    pub(super) fn new(unit: UnitId, oracle: Oracle<F>, requests: u32, random: Random) -> Self {
        let mut random = random;
        let depth = random.between(1, 32) as usize;
        Self {
            unit,
            oracle,
            random,
            pending: BTreeMap::new(),
            next_tag: 0,
            left: requests,
            depth,
            generation: 0,
            met: false,
            lost_since: None,
            over: false,
            good: 0,
            failed: 0,
        }
    }

    /// Whether it has nothing more to do.
    pub(super) fn is_done(&self) -> bool {
        self.pending.is_empty() && (self.left == 0 || self.over)
    }

    /// What it still has to do, for whoever looks for the reason.
    pub(super) fn waits_for(&self, driver: &dyn BlockDriver) -> String {
        let state = driver.unit(self.unit).map(|unit| (unit.state, unit.generation));
        format!(
            "unit {} is {state:?}, {} requests under way and {} to come, seen as generation {}",
            self.unit.0,
            self.pending.len(),
            self.left,
            self.generation
        )
    }

    /// The multiplier that the disk is behind was reset so often.
    pub(super) const fn multiplier_was_reset(&mut self, times: u32) {
        self.oracle.multiplier_was_reset(times);
    }

    pub(super) fn struck(&mut self, struck: Struck<F>) {
        let mut pending: Vec<_> = self.pending.values_mut().collect();
        self.oracle.struck(struck, &mut pending);
    }

    /// Looks at the disk's state; what is wrong with it is an error.
    pub(super) fn look(&mut self, driver: &dyn BlockDriver, now: Instant) -> Result<(), String> {
        let Some(unit) = driver.unit(self.unit) else { return Err("the unit is gone".into()) };
        // It may be there, and say that its sectors are not.
        let is_short = unit.geometry.sectors < self.oracle.base + self.oracle.len() as u64;
        match unit.state {
            UnitState::Ready if is_short && self.oracle.may_be_lost() => {
                let since = *self.lost_since.get_or_insert(now);
                self.over = now.since(since) >= RETURN;
            }
            UnitState::Ready => {
                (self.lost_since, self.over) = (None, false);
                let key = super::disk_key(&unit.identity.serial);
                let first = !core::mem::replace(&mut self.met, true);
                if unit.generation != self.generation || first && key != self.oracle.disk {
                    self.generation = unit.generation;
                    if key == self.oracle.disk {
                        self.oracle.returned();
                    } else {
                        self.oracle.replaced(key);
                    }
                }
            }
            UnitState::Absent if self.oracle.may_be_away() => self.over = self.oracle.may_be_lost(),
            UnitState::Absent | UnitState::Failed(_) | UnitState::Starting => {
                let since = *self.lost_since.get_or_insert(now);
                // One that spins up has more time than one that is away.
                let starts = unit.state == UnitState::Starting;
                if now.since(since) < if starts { RETURN * 10 } else { RETURN } {
                    return Ok(());
                }
                if !self.oracle.may_be_lost() {
                    return Err(format!("unit {} is {} without reason", self.unit.0, unit.state));
                }
                self.over = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// When it gives a disk up that is away.
    pub(super) fn next_at(&self, now: Instant) -> Option<Instant> {
        let waits = !self.over && self.left > 0;
        let at = self.lost_since.filter(|_| waits).map(|since| since + RETURN);
        at.filter(|at| !now.reached(*at))
    }

    /// Submits what it can.
    pub(super) fn submit(
        &mut self,
        driver: &mut dyn BlockDriver,
        dma: &dyn DmaSpace,
        now: Instant,
    ) {
        let Some(unit) = driver.unit(self.unit) else { return };
        let usable = matches!(unit.state, UnitState::Ready | UnitState::Recovering);
        let geometry = unit.geometry;
        // Its sectors may not be there for a while.
        let there = geometry.sectors >= self.oracle.base + self.oracle.len() as u64;
        if !self.met || !usable || !there || self.generation != unit.generation {
            return;
        }
        while self.left > 0 && self.pending.len() < self.depth {
            let most = (self.oracle.len() as u64).min(geometry.max_transfer_sectors.into());
            let sectors = match self.random.below(16) {
                0 => self.random.between(1, most.min(128)),
                1..6 => 1,
                _ => self.random.between(1, most.min(16)),
            };
            let lba = self.oracle.base + self.random.below(self.oracle.len() as u64 - sectors + 1);
            let operation = match self.random.below(100) {
                _ if geometry.read_only => Operation::Read,
                0..46 => Operation::Read,
                46..80 => Operation::Write(Durability::Cached),
                80..88 => Operation::Write(Durability::Durable),
                88..96 => Operation::Flush,
                _ => self.clearing(&geometry),
            };
            let keeps = matches!(operation, Operation::Read | Operation::Flush);
            if !keeps && !self.oracle.is_quiet(lba, sectors) {
                // Two writes at once to the same sector have no order; nobody could tell.
                if self.pending.is_empty() {
                    continue;
                }
                return;
            }
            if !self.submit_one(driver, dma, now, operation, lba, sectors) {
                return;
            }
        }
    }

    /// Something that changes sectors without data, if the disk can do that.
    fn clearing(&mut self, geometry: &Geometry) -> Operation {
        const ALL: [Operation; 4] = [
            Operation::Discard,
            Operation::WriteZeroes(Room::Keep),
            Operation::WriteZeroes(Room::GiveBack),
            Operation::SecureErase,
        ];
        let can: Vec<_> = ALL.into_iter().filter(|one| geometry.max_sectors(*one) > 0).collect();
        match can[..] {
            [] => Operation::Read,
            [one] => one,
            _ => *self.random.pick(&can),
        }
    }

    /// Submits a request; whether another may follow.
    fn submit_one(
        &mut self,
        driver: &mut dyn BlockDriver,
        dma: &dyn DmaSpace,
        now: Instant,
        operation: Operation,
        lba: u64,
        sectors: u64,
    ) -> bool {
        let moves = matches!(operation, Operation::Read | Operation::Write(_));
        let bytes = if moves { sectors as usize * self.oracle.sector_bytes } else { 0 };
        let mut data = vec![0; if operation == Operation::Read { 0 } else { bytes }];
        let pending = self.oracle.submit(operation, lba, sectors, now, &mut data);
        let Some(memory) = self.memory(driver, dma, &data, bytes) else {
            self.oracle.refused(&pending);
            return false;
        };
        let (lba, sectors) = if operation == Operation::Flush { (0, 0) } else { (lba, sectors) };
        let tag = self.next_tag;
        let request = Request { operation, lba, sectors, data: memory };
        match driver.submit(self.unit, Tag(tag), request) {
            Ok(()) => {
                self.next_tag += 1;
                self.left -= 1;
                self.pending.insert(tag, pending);
                true
            }
            Err(refused) => {
                self.oracle.refused(&pending);
                // Everything else was made so that it fits.
                debug_assert!(matches!(
                    refused.reason,
                    RefusedReason::QueueFull | RefusedReason::NotReady(_)
                ));
                false
            }
        }
    }

    /// Memory for a request, in one piece or in several.
    fn memory(
        &mut self,
        driver: &dyn BlockDriver,
        dma: &dyn DmaSpace,
        data: &[u8],
        bytes: usize,
    ) -> Option<SgList> {
        if bytes == 0 {
            return Some(SgList::EMPTY);
        }
        let pieces = if self.random.once_in(3) { self.random.between(2, 4) as usize } else { 1 };
        let list = memory_of(dma, data, bytes, pieces)?;
        match list.check(&driver.constraints()) {
            Ok(_) => Some(list),
            // What a device takes at most is always taken in one piece.
            Err(_) => memory_of(dma, data, bytes, 1),
        }
    }

    /// A request has ended; the error says what is wrong with that.
    pub(super) fn complete(&mut self, completion: Completion) -> Result<(), String> {
        let Completion { tag, result, data, .. } = completion;
        let Some(pending) = self.pending.remove(&tag.0) else {
            return Err(format!("request {} has ended twice, or was never submitted", tag.0));
        };
        if result.is_ok() {
            self.good += 1;
        } else {
            self.failed += 1;
        }
        let mut bytes = Vec::new();
        for buffer in data.into_buffers() {
            let start = bytes.len();
            bytes.resize(start + buffer.len(), 0);
            buffer.read_bytes(0, &mut bytes[start..]);
        }
        self.oracle.complete(&pending, result, &bytes)
    }

    /// Whether a request takes too long.
    pub(super) fn overdue(&self, now: Instant) -> Result<(), String> {
        let late = self.pending.values().find(|p| now.since(p.submitted) > LONGEST);
        late.map_or(Ok(()), |late| {
            Err(format!("{:?} of {}+{} does not end", late.operation, late.lba, late.sectors))
        })
    }
}

/// Memory in so many pieces, filled with `data` if there is any.
fn memory_of(dma: &dyn DmaSpace, data: &[u8], bytes: usize, pieces: usize) -> Option<SgList> {
    let each = (bytes / pieces / 2 * 2).max(2);
    let (mut list, mut at, mut count) = (SgList::EMPTY, 0, 0);
    while at < bytes {
        count += 1;
        let len = if count == pieces { bytes - at } else { each.min(bytes - at) };
        let mut buffer = dma.allocate(len, &Constraints::NONE.aligned(2)).ok()?;
        if !data.is_empty() {
            buffer.write_bytes(0, &data[at..at + len]);
        }
        list.push(buffer, 0..len);
        at += len;
    }
    Some(list)
}
