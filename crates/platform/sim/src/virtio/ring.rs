//! Virtqueues from the device's side (§2.7, §2.8), which watch what the driver does.

mod packed;
mod split;

use outboard_hw::dma::{DeviceView, Unmapped};
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::split::Descriptor;
pub(super) use packed::{Marks, PackedSide};
pub(super) use split::SplitSide;
use thiserror::Error;
use zerocopy::FromBytes;

/// A piece of a request's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) address: u64,
    pub(super) bytes: u32,
}

/// What the driver did to a queue that it must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum Wrong {
    #[error("{0}")]
    Memory(#[from] Unmapped),
    #[error("the available index is {0} entries ahead, more than the queue has")]
    TooMany(u16),
    #[error("descriptor {0} is behind the end of its table")]
    Outside(u16),
    #[error("descriptor {0} is offered while the device has it")]
    Twice(u16),
    #[error("buffer {0} is offered while the device has it")]
    SameBuffer(u16),
    #[error("a chain is longer than the queue, or has no end")]
    Endless,
    #[error("a descriptor that the device writes comes before one that it reads")]
    Order,
    #[error("a table of descriptors where none was agreed upon, inside another or in a chain")]
    Table,
    #[error("a table of {0} bytes")]
    TableBytes(u32),
    #[error("a chain is available before all of its descriptors are")]
    HalfChain,
    #[error("descriptors of a request have changed while the device has it")]
    Changed,
    #[error("the device has overwritten what the driver offers")]
    Overwritten,
    #[error("descriptor {0} does not come next, although an order was agreed upon")]
    NotNext(u16),
}

/// A request that the device has taken.
#[derive(Debug, Clone, Default)]
pub(super) struct Chain {
    /// Its first descriptor, or its buffer ID.
    pub(super) id: u16,
    /// Descriptors of the ring that it takes.
    pub(super) descriptors: u16,
    /// What the device reads.
    pub(super) readable: Vec<Piece>,
    /// What it writes.
    pub(super) writable: Vec<Piece>,
    /// Descriptors that have to stay as they are: where, and what they are.
    copies: Vec<(u64, [u8; Descriptor::BYTES])>,
}

impl Chain {
    /// Takes a piece of memory.
    fn add(&mut self, address: u64, bytes: u32, flags: u16, most: usize) -> Result<(), Wrong> {
        let piece = Piece { address, bytes };
        if flags & Descriptor::WRITE != 0 {
            self.writable.push(piece);
        } else if self.writable.is_empty() {
            self.readable.push(piece);
        } else {
            return Err(Wrong::Order);
        }
        let long = self.readable.len() + self.writable.len() > most;
        if long { Err(Wrong::Endless) } else { Ok(()) }
    }

    /// Bytes that the device may write.
    pub(super) fn writable_bytes(&self) -> u32 {
        self.writable.iter().map(|piece| piece.bytes).sum()
    }

    /// Whether its descriptors are what they were.
    pub(super) fn check(&self, memory: &DeviceView) -> Result<(), Wrong> {
        for (address, copy) in &self.copies {
            let mut found = [0; Descriptor::BYTES];
            memory.read(*address, &mut found)?;
            if found != *copy {
                return Err(Wrong::Changed);
            }
        }
        Ok(())
    }

    /// Its descriptors do not stay as they are, of which the driver knows nothing.
    pub(super) fn spoil(&mut self, memory: &DeviceView) -> Result<(), Wrong> {
        for (address, copy) in self.copies.drain(..) {
            // Where the packed layout has what the driver looks at, nothing changes.
            let mut spoilt = copy.map(|byte| !byte);
            spoilt[12..].copy_from_slice(&copy[12..]);
            memory.write(address, &spoilt)?;
        }
        Ok(())
    }
}

/// Where the driver has put a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    pub(super) entries: u16,
    pub(super) descriptors: u64,
    pub(super) driver: u64,
    pub(super) device: u64,
}

/// What the device tells of notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// It is awake.
    Nothing,
    /// It is going to sleep: for the next entry.
    Next,
    /// It says anything.
    Garbage(u16),
}

/// A queue in either layout.
#[derive(Debug)]
pub(super) enum Side {
    Split(SplitSide),
    Packed(PackedSide),
}

/// Calls a function of whichever layout it is.
macro_rules! either {
    ($side:expr, $name:ident($($argument:expr),*)) => {
        match $side {
            Side::Split(side) => side.$name($($argument),*),
            Side::Packed(side) => side.$name($($argument),*),
        }
    };
}

impl Side {
    pub(super) fn new(place: Place, features: Features) -> Self {
        if features.contains(Features::PACKED) {
            Self::Packed(PackedSide::new(place, features))
        } else {
            Self::Split(SplitSide::new(place, features))
        }
    }

    /// Takes the next request that is available.
    pub(super) fn take(&mut self, memory: &DeviceView) -> Result<Option<Chain>, Wrong> {
        either!(self, take(memory))
    }

    /// Tells when to be notified.
    pub(super) fn wish(&mut self, memory: &DeviceView, wish: Wish) -> Result<(), Wrong> {
        either!(self, wish(memory, wish))
    }

    /// Whether it told that it wants the notification that has come.
    pub(super) fn was_asked(&self, memory: &DeviceView) -> Result<bool, Wrong> {
        either!(self, was_asked(memory))
    }

    /// Whether the driver wants to be told of the entries that came since it was asked last.
    pub(super) fn wants_interrupt(&mut self, memory: &DeviceView) -> Result<bool, Wrong> {
        either!(self, wants_interrupt(memory))
    }

    /// Says that a request is done.
    pub(super) fn put(
        &mut self,
        memory: &DeviceView,
        chain: &Chain,
        id: u32,
        bytes: u32,
    ) -> Result<(), Wrong> {
        either!(self, put(memory, chain, id, bytes))
    }

    /// Says that requests are done which came one behind the other, by an entry for the last of them
    /// (§2.7.9, §2.8.9).
    pub(super) fn put_batch(
        &mut self,
        memory: &DeviceView,
        chains: &[&Chain],
        bytes: u32,
    ) -> Result<(), Wrong> {
        either!(self, put_batch(memory, chains, bytes))
    }

    /// Where the driver's next entry will be, as its notifications have to say it (§2.9).
    pub(super) fn next_entry(&self, memory: &DeviceView) -> Result<u16, Wrong> {
        either!(self, next_entry(memory))
    }

    /// Goes on telling of requests where another queue was, which was in its place.
    pub(super) fn go_on_behind(&mut self, before: &Self) {
        match (self, before) {
            (Self::Split(now), Self::Split(before)) => now.go_on_behind(before),
            (Self::Packed(now), Self::Packed(before)) => now.go_on_behind(before),
            _ => {}
        }
    }

    /// A descriptor, or a buffer ID, that no request has.
    pub(super) fn free_id(&self) -> Option<u16> {
        either!(self, free_id())
    }

    /// Overwrites what the driver tells.
    pub(super) fn spoil_driver_area(&self, memory: &DeviceView) -> Result<(), Wrong> {
        either!(self, spoil_driver_area(memory))
    }
}

/// Reads a plain value.
fn read<T: FromBytes>(memory: &DeviceView, address: u64) -> Result<T, Wrong> {
    let mut bytes = vec![0; size_of::<T>()];
    memory.read(address, &mut bytes)?;
    Ok(T::read_from_bytes(&bytes).expect("as many bytes as it has"))
}

fn read_u16(memory: &DeviceView, address: u64) -> Result<u16, Wrong> {
    let mut bytes = [0; 2];
    memory.read(address, &mut bytes)?;
    Ok(u16::from_le_bytes(bytes))
}

fn write_u16(memory: &DeviceView, address: u64, value: u16) -> Result<(), Wrong> {
    Ok(memory.write(address, &value.to_le_bytes())?)
}
