//! A request under way: what it does next.

use super::{DiskError, Outcome, ReadData, Token};
use crate::driver::{BlockError, Durability, Operation, Request};
use crate::manage::{Management, PASSWORD_BYTES};
use crate::partition::Scanner;
use alloc::boxed::Box;
use outboard_hw::Instant;
use outboard_hw::dma::{DmaBuffer, SgList};

/// A request under way, for cancelling it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct JobId {
    pub(super) index: u32,
    /// Tells jobs apart that have used the same place one after the other.
    pub(super) generation: u32,
}

/// What a job is for.
#[derive(Debug)]
pub(super) enum Kind {
    Read,
    Write(Durability),
    Flush,
    /// An operation on sectors without data.
    Clear(Operation),
    /// Looking for partitions.
    Scan(Box<Scanner>),
    /// Something beside the data.
    Manage(Management),
}

/// What a job does at the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waiting for other writes to the same sectors.
    Claiming,
    /// Reading the first sector, of which only the end is written.
    ReadFirst,
    /// Reading the last sector, of which only the start is written.
    ReadLast,
    /// Transferring, from `moved` on; or whatever it does without data.
    Transfer,
}

/// A request under way. Sectors are the device's.
#[derive(Debug)]
pub(super) struct Job {
    /// `None` for a job that nobody waits for.
    pub(super) token: Option<Token>,
    pub(super) disk: u16,
    /// Generation of the unit that it was accepted for; no other is to see it.
    pub(super) generation: u32,
    /// When it was accepted.
    pub(super) since: Instant,
    pub(super) kind: Kind,
    pub(super) phase: Phase,
    /// Its memory, while the driver does not have it: the sectors, and behind them, for a write
    /// that merges, room for the old first and last sector.
    pub(super) buffer: Option<DmaBuffer>,
    /// Memory of whoever asked, instead: exactly the sectors, which go in one piece, while the
    /// driver does not have it.
    pub(super) lent: Option<SgList>,
    pub(super) is_lent: bool,
    pub(super) first_lba: u64,
    pub(super) sectors: u64,
    pub(super) sector_bytes: usize,
    /// Bytes of the first sector before the data.
    pub(super) skip: usize,
    /// Bytes of data.
    pub(super) len: usize,
    /// Sectors that were transferred.
    pub(super) moved: u64,
    /// Sectors in the piece that the driver has.
    pub(super) piece: u64,
    /// The most sectors in a piece.
    pub(super) max_piece: u64,
    /// Somewhere in front of this sector, counted from the first, is one that fails.
    pub(super) bad_before: Option<u64>,
    /// Whether the driver has it.
    pub(super) submitted: bool,
}

/// What a job is accepted for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Admitted {
    pub(super) disk: u16,
    pub(super) generation: u32,
    pub(super) sector_bytes: usize,
    /// The most sectors in a piece.
    pub(super) max_piece: u64,
    pub(super) since: Instant,
}

/// How a job goes on.
pub(super) enum Next {
    /// The driver is to be asked for more.
    Again,
    /// It has ended.
    Ended(Result<Outcome, DiskError>),
}

impl Job {
    /// A job without a range and without memory.
    #[inline]
    pub(super) const fn new(admitted: Admitted, kind: Kind, token: Option<Token>) -> Self {
        let Admitted { disk, generation, sector_bytes, max_piece, since } = admitted;
        Self {
            token,
            disk,
            generation,
            since,
            kind,
            phase: Phase::Transfer,
            buffer: None,
            lent: None,
            is_lent: false,
            first_lba: 0,
            sectors: 0,
            sector_bytes,
            skip: 0,
            len: 0,
            moved: 0,
            piece: 0,
            max_piece,
            bad_before: None,
            submitted: false,
        }
    }

    /// What to ask of the driver.
    pub(super) fn request(&mut self) -> Request {
        let lba = self.first_lba;
        if let Some(data) = self.lent.take() {
            return match self.kind {
                Kind::Write(durability) => Request::write(lba, self.sectors, data, durability),
                _ => Request::read(lba, self.sectors, data),
            };
        }
        match (&self.kind, self.phase) {
            (Kind::Flush, _) => Request::flush(),
            (Kind::Manage(what), _) => {
                let operation = Operation::Manage(*what);
                let password = self.buffer.take();
                let data = password.map(|buffer| SgList::single(buffer, 0..PASSWORD_BYTES));
                Request { operation, lba: 0, sectors: 0, data: data.unwrap_or(SgList::EMPTY) }
            }
            (Kind::Clear(operation), _) => {
                self.piece = (self.sectors - self.moved).min(self.max_piece);
                Request::clear(*operation, lba + self.moved, self.piece)
            }
            (_, Phase::ReadFirst) => Request::read(lba, 1, self.scratch(0)),
            (_, Phase::ReadLast) => Request::read(lba + self.sectors - 1, 1, self.scratch(1)),
            (kind, _) => {
                let durability = if let Kind::Write(d) = kind { Some(*d) } else { None };
                let left = self.sectors - self.moved;
                let suspected = self.bad_before.map(|bad| (bad - self.moved).div_ceil(2).max(1));
                self.piece = suspected.unwrap_or(left).min(left).min(self.max_piece);
                let start = self.moved as usize * self.sector_bytes;
                let data = self.take(start, self.piece as usize * self.sector_bytes);
                match durability {
                    Some(durability) => {
                        Request::write(lba + self.moved, self.piece, data, durability)
                    }
                    None => Request::read(lba + self.moved, self.piece, data),
                }
            }
        }
    }

    /// The memory for an old sector behind the data: 0 for the first, 1 for the last.
    fn scratch(&mut self, which: usize) -> SgList {
        let start = (self.sectors as usize + which) * self.sector_bytes;
        self.take(start, self.sector_bytes)
    }

    fn take(&mut self, start: usize, len: usize) -> SgList {
        let buffer = self.buffer.take().expect("a job that asks has its memory");
        SgList::single(buffer, start..start + len)
    }

    /// Whether the first, and whether the last sector is written only in part. If there is only
    /// one sector, it counts as the first.
    pub(super) const fn partial(&self) -> (bool, bool) {
        let end = self.skip + self.len;
        let tail = !end.is_multiple_of(self.sector_bytes);
        match self.sectors {
            1 => (self.skip != 0 || tail, false),
            _ => (self.skip != 0, tail),
        }
    }

    /// Has its sectors to itself, as far as it needs to.
    pub(super) fn claimed(&mut self) {
        self.phase = match (&self.kind, self.partial()) {
            (Kind::Write(_), (true, _)) => Phase::ReadFirst,
            (Kind::Write(_), (false, true)) => Phase::ReadLast,
            _ => Phase::Transfer,
        };
    }

    /// Whether it claims its sectors before it goes on, and gives them up when it has ended.
    pub(super) const fn claims(&self) -> bool {
        matches!(self.kind, Kind::Write(_) | Kind::Clear(_))
    }

    /// Fills what is not written of the first or last sector with what was there.
    fn merge(&mut self, from_last: bool) {
        let data_end = self.skip + self.len;
        let whole = self.sectors as usize * self.sector_bytes;
        let sector = self.sector_bytes;
        let Some(buffer) = &mut self.buffer else { return };
        let mut copy = |from: usize, into: usize, len: usize| {
            let mut chunk = [0; 512];
            for done in (0..len).step_by(chunk.len()) {
                let chunk = &mut chunk[..(len - done).min(512)];
                buffer.read_bytes(from + done, chunk);
                buffer.write_bytes(into + done, chunk);
            }
        };
        if from_last {
            let into = data_end;
            copy(whole + sector + into % sector, into, whole - into);
        } else {
            copy(whole, 0, self.skip);
            if self.sectors == 1 {
                copy(whole + data_end, data_end, sector - data_end);
            }
        }
    }

    /// Takes memory back from the driver.
    pub(super) fn take_back(&mut self, data: SgList) {
        if self.is_lent {
            self.lent = Some(data);
        } else {
            self.buffer = data.into_buffers().next();
        }
    }

    /// Takes note of what the driver did.
    #[inline]
    pub(super) fn completed(&mut self, result: Result<(), BlockError>) -> Next {
        if self.is_lent {
            return Next::Ended(match result {
                Ok(()) => Ok(Outcome::Lent(self.len)),
                Err(error) => Err(DiskError { error, lba: None }),
            });
        }
        self.completed_part(result)
    }

    fn completed_part(&mut self, result: Result<(), BlockError>) -> Next {
        match self.phase {
            Phase::ReadFirst | Phase::ReadLast => {
                let last = self.phase == Phase::ReadLast;
                let lba = if last { self.first_lba + self.sectors - 1 } else { self.first_lba };
                if let Err(error) = result {
                    return Next::Ended(Err(DiskError { error, lba: about_sector(error, lba) }));
                }
                self.merge(last);
                let (_, tail) = self.partial();
                self.phase = if !last && tail { Phase::ReadLast } else { Phase::Transfer };
                Next::Again
            }
            Phase::Claiming | Phase::Transfer => match result {
                Ok(()) => self.advance(),
                Err(error) => self.narrow(error),
            },
        }
    }

    fn advance(&mut self) -> Next {
        if matches!(self.kind, Kind::Flush | Kind::Manage(_)) {
            return Next::Ended(Ok(Outcome::Finished));
        }
        self.moved += self.piece;
        if self.bad_before.is_some_and(|bad| self.moved >= bad) {
            // It passed after all.
            self.bad_before = None;
        }
        if self.moved < self.sectors { Next::Again } else { Next::Ended(self.outcome()) }
    }

    /// A piece has failed: looks for the sector in smaller ones, or ends.
    fn narrow(&mut self, error: BlockError) -> Next {
        let searchable = matches!(error, BlockError::Media { .. } | BlockError::Aborted);
        if !searchable || !matches!(self.kind, Kind::Read | Kind::Write(_)) {
            return Next::Ended(self.end_early(error, None));
        }
        let lba = self.first_lba + self.moved;
        if self.piece == 1 {
            return Next::Ended(self.end_early(error, Some(lba)));
        }
        if let BlockError::Media { lba: Some(bad) } = error
            && bad == lba
        {
            return Next::Ended(self.end_early(error, Some(lba)));
        }
        self.bad_before = Some(match error {
            // What the device names need not be the first that fails; all before it is tried.
            BlockError::Media { lba: Some(bad) } if bad > lba && bad < lba + self.piece => {
                bad - self.first_lba + 1
            }
            _ => self.moved + self.piece,
        });
        Next::Again
    }

    fn end_early(&mut self, error: BlockError, lba: Option<u64>) -> Result<Outcome, DiskError> {
        let usable = self.moved as usize * self.sector_bytes > self.skip;
        match self.kind {
            Kind::Read | Kind::Write(_) if usable => self.outcome(),
            _ => Err(DiskError { error, lba }),
        }
    }

    /// What there is to show, as far as it was transferred.
    fn outcome(&mut self) -> Result<Outcome, DiskError> {
        let moved = self.moved as usize * self.sector_bytes;
        let len = self.len.min(moved.saturating_sub(self.skip));
        Ok(match self.kind {
            Kind::Read => match self.buffer.take() {
                Some(buffer) => {
                    Outcome::Read(ReadData { buffer, range: self.skip..self.skip + len })
                }
                None => return Err(DiskError { error: BlockError::Gone, lba: None }),
            },
            Kind::Write(_) => Outcome::Written(len),
            Kind::Flush | Kind::Clear(_) | Kind::Scan(_) | Kind::Manage(_) => Outcome::Finished,
        })
    }
}

/// The sector that an error is about, when only one was asked for.
const fn about_sector(error: BlockError, lba: u64) -> Option<u64> {
    match error {
        BlockError::Media { .. } | BlockError::Aborted => Some(lba),
        _ => None,
    }
}
