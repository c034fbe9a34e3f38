//! The trait that every disk driver implements, and the values that pass through it.

use crate::manage::{Health, Management};
use crate::unit::{Unit, UnitId, UnitState};
use alloc::sync::Arc;
use core::fmt;
use outboard_hw::Instant;
use outboard_hw::dma::{Constraints, DmaSpace, SgList};
use thiserror::Error;

/// A driver for one controller, with one or more disks ("units") behind it.
///
/// It is a state machine. [`submit`](Self::submit) queues, [`kick`](Self::kick) rings the doorbell
/// once for a batch, [`poll`](Self::poll) reaps, [`next_deadline`](Self::next_deadline) says when
/// to come back if no interrupt comes before. No function blocks or reads a clock. Starting,
/// resetting and recovering are states too: they go on in `poll`.
///
/// Every submitted request completes exactly once, within a bounded time, and gives its memory
/// back with its completion.
pub trait BlockDriver: Send {
    /// Units are numbered below this. It does not change.
    fn unit_count(&self) -> u16;

    /// A unit; `None` if there can be none of that number.
    fn unit(&self, unit: UnitId) -> Option<&Unit>;

    /// Grows whenever some unit's state or generation has changed. It is asked after each
    /// [`poll`](Self::poll), so that units need only be looked at when something happened to them.
    fn changes(&self) -> u64;

    /// What the controller asks of the memory that it transfers to and from.
    fn constraints(&self) -> Constraints;

    /// Memory that the controller can reach.
    fn dma(&self) -> Arc<dyn DmaSpace>;

    /// Whether requests may come with any memory that this process has, since the processor copies
    /// it, and not only with memory from [`dma`](Self::dma), which the controller reaches.
    fn takes_any_memory(&self) -> bool {
        false
    }

    /// Queues a request, or gives it back.
    fn submit(&mut self, unit: UnitId, tag: Tag, request: Request) -> Result<(), Refused>;

    /// Passes what was queued to the device, as far as it takes it.
    fn kick(&mut self, now: Instant);

    /// Notes that a vector has fired; [`poll`](Self::poll) does the work.
    fn interrupt(&mut self, vector: u16);

    /// Keeps the controller from interrupting, or lets it again. While it is masked, each
    /// [`poll`](Self::poll) looks at what is in flight, whether or not anything was heard of it:
    /// for whoever would rather look than sleep for so short a time. What happened meanwhile is
    /// looked at by the first `poll` after it was let again. A driver that is polled anyway, or
    /// needs no masking, does nothing.
    fn mask(&mut self, _masked: bool) {}

    /// Does whatever is due, and calls `done` for each request that has completed.
    fn poll(&mut self, now: Instant, done: &mut dyn FnMut(Completion));

    /// When to poll again if there is no interrupt before; `None` for never.
    fn next_deadline(&self) -> Option<Instant>;

    /// Begins to shut down: requests in flight complete, new ones are refused, and then the
    /// controller is brought to rest.
    fn stop(&mut self);

    /// Whether the controller is at rest after [`stop`](Self::stop), or was lost.
    fn is_stopped(&self) -> bool;

    /// What the unit's disk has said of its health when it was last asked
    /// ([`Management::ReadHealth`]).
    fn health(&self, _unit: UnitId) -> Option<&Health> {
        None
    }

    /// Calls `counter` with the name and the value of each of a unit's counters.
    fn counters(&self, unit: UnitId, counter: &mut dyn FnMut(&'static str, u64));

    /// Calls `event` with each event that was recorded since the last call, oldest first.
    fn drain_events(&mut self, event: &mut dyn FnMut(UnitId, Instant, &dyn fmt::Display));
}

/// The caller's name for a request; comes back with its completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag(pub u64);

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Disk to memory.
    Read,
    /// Memory to disk.
    Write(Durability),
    /// Everything that completed before this was submitted survives a loss of power afterwards.
    Flush,
    /// The sectors' content is no longer needed. What they read as afterwards is undefined.
    Discard,
    /// The sectors read as zeros afterwards.
    WriteZeroes(Room),
    /// The sectors' content is destroyed, wherever the device has kept copies of it. What they read
    /// as afterwards is undefined.
    SecureErase,
    /// Something beside the data. Lba and sectors are 0, and the memory is empty but for a password.
    Manage(Management),
}

/// What becomes of the room that sectors take on the medium when zeros are written to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// They keep it: later writes to them need none.
    Keep,
    /// The device may give it back, as it may after a discard.
    GiveBack,
}

/// When a write may complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Once the device has the data, perhaps only in its cache.
    Cached,
    /// Once the data would survive a loss of power ("force unit access").
    Durable,
}

/// A request to a unit.
#[derive(Debug)]
pub struct Request {
    /// What to do.
    pub operation: Operation,
    /// First logical sector; 0 for a flush.
    pub lba: u64,
    /// How many logical sectors; 0 for a flush.
    pub sectors: u64,
    /// Exactly as many bytes as the sectors have, for a read or a write; else empty.
    pub data: SgList,
}

/// A request that has ended.
#[derive(Debug)]
pub struct Completion {
    /// Where it was submitted.
    pub unit: UnitId,
    /// The name that it was submitted under.
    pub tag: Tag,
    /// How it ended. After an error a read's memory is undefined, and a write may have been
    /// carried out in part.
    pub result: Result<(), BlockError>,
    /// Its memory.
    pub data: SgList,
}

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The device could not read or write a sector.
    #[error("the disk cannot read or write {}", SectorName(*.lba))]
    Media {
        /// The first such sector, if the device said which.
        lba: Option<u64>,
    },
    /// The device refused or abandoned the command without saying why.
    #[error("the disk aborted the command")]
    Aborted,
    /// The device may not be written.
    #[error("the disk is write-protected")]
    WriteProtected,
    /// The connection between controller and device failed again and again.
    #[error("the connection to the disk fails")]
    Transport,
    /// The device did not answer in time, again and again.
    #[error("the disk does not answer")]
    Timeout,
    /// The device was cut off while writes that it had acknowledged were in its cache; it is back,
    /// but they may be lost.
    #[error("the disk was cut off, and writes since the last flush may be lost: write them again")]
    CacheLost,
    /// Device or controller are gone, or were given up.
    #[error("the disk is gone")]
    Gone,
    /// The device cannot do this.
    #[error("the disk does not support this")]
    Unsupported,
    /// The medium was taken out, or another one was put in.
    #[error("the medium was changed or taken out")]
    MediumChanged,
    /// The disk is locked, or the password was wrong; or the medium is locked in.
    #[error("the disk or its medium is locked, or the password is wrong")]
    Locked,
    /// Passwords cannot be changed until the disk loses power.
    #[error("the disk's passwords are frozen until it loses power: cut its power first")]
    Frozen,
    /// What this needs is switched off on the disk.
    #[error("what this needs is switched off on the disk: switch it on first")]
    SwitchedOff,
    /// The disk was reset or cut off while it carried out what must not be done twice. Perhaps it
    /// was done, perhaps not.
    #[error(
        "the disk was interrupted, and may have done it or not: look how it is before another try"
    )]
    Interrupted,
    /// The disk's answer is damaged, or contradicts what it has said before.
    #[error("the disk's answer makes no sense")]
    BadAnswer,
}

struct SectorName(Option<u64>);

impl fmt::Display for SectorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(lba) => write!(f, "sector {lba}"),
            None => f.write_str("a sector, and does not say which"),
        }
    }
}

/// A request that was not accepted, with the reason.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub reason: RefusedReason,
    /// The request, unchanged.
    pub request: Request,
}

/// Why a request was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RefusedReason {
    /// The queue is full; submit again after a completion.
    #[error("the queue is full")]
    QueueFull,
    /// There is no disk, or it is not ready.
    #[error("the disk is not ready: {0}")]
    NotReady(UnitState),
    /// The sectors do not all exist.
    #[error("the disk ends at sector {sectors}")]
    OutOfRange {
        /// How many sectors there are.
        sectors: u64,
    },
    /// More sectors or segments than one request may have.
    #[error("the request is longer than the controller takes")]
    TooLong,
    /// The memory's length, alignment or address does not suit the request or the controller.
    #[error("the request's memory does not fit")]
    BadMemory,
    /// The medium may not be written.
    #[error("the disk is read-only")]
    WriteProtected,
    /// The device cannot do this.
    #[error("the disk does not support this")]
    Unsupported,
    /// Passwords cannot be changed until the disk loses power.
    #[error("the disk's passwords are frozen until it loses power: cut its power first")]
    Frozen,
    /// What this needs is switched off on the disk.
    #[error("what this needs is switched off on the disk: switch it on first")]
    SwitchedOff,
}

impl Request {
    /// The request, refused.
    pub const fn refused(self, reason: RefusedReason) -> Refused {
        Refused { reason, request: self }
    }

    /// A read of `sectors` from `lba` on.
    pub const fn read(lba: u64, sectors: u64, data: SgList) -> Self {
        Self { operation: Operation::Read, lba, sectors, data }
    }

    /// A write of `sectors` from `lba` on.
    pub const fn write(lba: u64, sectors: u64, data: SgList, durability: Durability) -> Self {
        Self { operation: Operation::Write(durability), lba, sectors, data }
    }

    /// A flush of the device's cache.
    pub const fn flush() -> Self {
        Self { operation: Operation::Flush, lba: 0, sectors: 0, data: SgList::EMPTY }
    }

    /// Something beside the data, with a password.
    pub const fn manage_with(what: Management, password: SgList) -> Self {
        Self { operation: Operation::Manage(what), lba: 0, sectors: 0, data: password }
    }

    /// Something beside the data, without a password.
    pub const fn manage(what: Management) -> Self {
        Self { operation: Operation::Manage(what), lba: 0, sectors: 0, data: SgList::EMPTY }
    }

    /// A discard of `sectors` from `lba` on.
    pub const fn discard(lba: u64, sectors: u64) -> Self {
        Self::clear(Operation::Discard, lba, sectors)
    }

    /// An operation on `sectors` from `lba` on that takes no data.
    pub const fn clear(operation: Operation, lba: u64, sectors: u64) -> Self {
        Self { operation, lba, sectors, data: SgList::EMPTY }
    }
}
