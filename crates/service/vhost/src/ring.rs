//! Virtqueues from the device's side (§2.6).
//!
//! A ring finds what the driver has made available, one request after the other, and tells it what
//! is used. Where there is memory that remembers what is in flight, a ring writes down there what it
//! takes before it takes it, and begins with what its predecessor has not finished; see
//! `docs/vhost-user.md`.

mod packed;
mod remember;
mod split;

use crate::chain::Piece;
use crate::error::Violation;
use crate::memory::{Area, Memory};
use outboard_virtio::spec::features::Features;
use packed::PackedRing;
use split::SplitRing;

pub(crate) use remember::remembered_bytes;

/// What rings can do.
pub(crate) const FEATURES: Features = Features::INDIRECT
    .union(Features::EVENT_INDEX)
    .union(Features::VERSION_1)
    .union(Features::PACKED);

/// The most entries of a ring: requests under way at all disks are limited to as many.
pub(crate) const MAX_ENTRIES: u16 = 4096;

/// A request that was taken out of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Head {
    /// Its first descriptor, or its buffer's ID.
    id: u16,
    /// Its descriptors in the ring, where that has to be known.
    count: u16,
    /// Where it is remembered.
    place: u16,
}

/// A request that was taken out of a ring together with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) head: Head,
    /// Where its pieces end among those of all.
    pub(crate) end: usize,
}

/// Where a ring's parts are.
#[derive(Debug)]
pub(crate) struct Areas {
    /// The descriptors.
    pub(crate) descriptors: Area,
    /// What the driver tells: the available ring, or its event suppression.
    pub(crate) driver: Area,
    /// What the device tells: the used ring, or its event suppression.
    pub(crate) device: Area,
}

/// How many bytes the parts of a ring have, and how they are aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) descriptors: (usize, u64),
    pub(crate) driver: (usize, u64),
    pub(crate) device: (usize, u64),
}

impl Shape {
    /// Of a ring with so many entries.
    pub(crate) const fn of(entries: u16, features: Features) -> Self {
        if features.contains(Features::PACKED) {
            PackedRing::shape(entries)
        } else {
            SplitRing::shape(entries)
        }
    }
}

/// What a ring begins with.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) entries: u16,
    pub(crate) features: Features,
    /// What the front end says of where the ring stands.
    pub(crate) base: u32,
    pub(crate) areas: Areas,
    /// Memory that remembers what is in flight.
    pub(crate) remembered: Option<Area>,
}

/// A ring in either layout.
#[derive(Debug)]
pub(crate) enum Ring {
    Split(SplitRing),
    Packed(PackedRing),
}

macro_rules! either {
    ($ring:expr, $name:ident($($argument:expr),*)) => {
        match $ring {
            Ring::Split(ring) => ring.$name($($argument),*),
            Ring::Packed(ring) => ring.$name($($argument),*),
        }
    };
}

impl Ring {
    pub(crate) fn new(start: Start) -> Result<Self, Violation> {
        Ok(match start.features.contains(Features::PACKED) {
            true => Self::Packed(PackedRing::new(start)?),
            false => Self::Split(SplitRing::new(start)?),
        })
    }

    /// The parts have moved.
    pub(crate) fn set_areas(&mut self, areas: Areas) {
        match self {
            Self::Split(ring) => ring.relocate(areas),
            Self::Packed(ring) => ring.areas = areas,
        }
    }

    /// The next request that the driver has made available, or that a predecessor has left; its
    /// memory is put behind what is in `pieces`.
    #[inline]
    pub(crate) fn pop(
        &mut self,
        memory: &Memory,
        pieces: &mut Vec<Piece>,
    ) -> Result<Option<Head>, Violation> {
        either!(self, pop(memory, pieces))
    }

    /// Likewise, as many as there are, but at most so many.
    pub(crate) fn take(
        &mut self,
        memory: &Memory,
        pieces: &mut Vec<Piece>,
        taken: &mut Vec<Taken>,
        most: usize,
    ) -> Result<(), Violation> {
        either!(self, take(memory, pieces, taken, most))
    }

    /// Notes that a request is done, of whose memory so many bytes were written.
    #[inline]
    pub(crate) fn push(&mut self, head: Head, bytes: u32) {
        either!(self, push(head, bytes));
    }

    /// Notes that several requests are done together, which the driver sees all at once or not at
    /// all: as the buffers of one frame have to be.
    ///
    /// Not for rings whose requests are remembered.
    #[inline]
    pub(crate) fn push_together(&mut self, used: &[(Head, u32)]) {
        either!(self, push_together(used));
    }

    /// Gives back the request that was popped last and not pushed; it is the next one to be popped.
    ///
    /// Not for rings whose requests are remembered.
    pub(crate) fn unpop(&mut self, head: Head) {
        either!(self, unpop(head));
    }

    /// Shows the driver what was pushed, without asking whether it wants to be told:
    /// [`publish`](Self::publish) does that later, for all at once.
    #[inline]
    pub(crate) fn show(&mut self) {
        either!(self, show());
    }

    /// Shows the driver what was pushed; whether it wants to be told of what was shown since the last
    /// call.
    pub(crate) fn publish(&mut self) -> bool {
        either!(self, publish())
    }

    /// Asks the driver to tell when there is something new; whether there is something already.
    pub(crate) fn listen(&mut self) -> bool {
        either!(self, listen())
    }

    /// Asks the driver not to tell.
    #[inline]
    pub(crate) fn ignore(&mut self) {
        either!(self, ignore());
    }

    /// Where the ring stands, for the front end.
    pub(crate) fn base(&self) -> u32 {
        either!(self, base())
    }
}
