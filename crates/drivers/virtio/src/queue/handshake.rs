//! How driver and device keep from sleeping through what is new for them (§2.7.10, §2.8.10).
//!
//! Whoever has something new stores it, fences, and then looks whether the other side wants to be
//! told. Whoever is going to sleep says from where on it wants to be told, fences, and then looks
//! whether something is there already. With both fences at least one of the two sees what the other
//! has stored; without either of them a processor may look before its store is out, and both sleep.
//!
//! The memory is a parameter, so that the very code of the rings runs on a model of weak memory
//! (`tests/ordering.rs`).

use crate::spec::packed::{
    EVENT_AT, EVENT_DESCRIPTOR, EVENT_DISABLE, EVENT_ENABLE, EVENT_FLAGS, EVENT_WRAP,
};
use crate::spec::split::{
    AVAILABLE_FLAGS, AVAILABLE_INDEX, AVAILABLE_RING, NO_INTERRUPT, NO_NOTIFY, USED_BYTES,
    USED_FLAGS, USED_INDEX, USED_RING, is_due,
};
use core::sync::atomic::{Ordering, fence};
use outboard_hw::dma::DmaBuffer;

/// Memory that both sides look at.
pub trait Words {
    /// Reads a word; what was stored before it is then visible (acquire).
    fn load(&self, offset: usize) -> u16;
    /// Stores a word after everything that was stored before it (release).
    fn store(&mut self, offset: usize, value: u16);
    /// What was stored is out before anything is read that comes later.
    fn fence(&self);
}

impl Words for DmaBuffer {
    #[inline]
    fn load(&self, offset: usize) -> u16 {
        self.load_u16(offset)
    }

    #[inline]
    fn store(&mut self, offset: usize, value: u16) {
        self.store_u16(offset, value);
    }

    #[inline]
    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
}

/// The words of a split ring.
#[derive(Debug, Clone, Copy)]
pub struct Split {
    /// Entries of the ring.
    pub entries: u16,
    /// Whether event indices were agreed upon.
    pub event_index: bool,
    /// Where the available ring is.
    pub available: usize,
    /// Where the used ring is.
    pub used: usize,
}

impl Split {
    /// Where the driver says which used entry it waits for.
    #[inline]
    pub const fn used_event(&self) -> usize {
        self.available + AVAILABLE_RING + 2 * self.entries as usize
    }

    /// Where the device says which available entry it waits for.
    #[inline]
    pub const fn available_event(&self) -> usize {
        self.used + USED_RING + USED_BYTES * self.entries as usize
    }

    /// Shows the device the entries from `old` up to `new`; whether it wants to be told.
    #[inline]
    pub fn publish(&self, memory: &mut impl Words, old: u16, new: u16) -> bool {
        memory.store(self.available + AVAILABLE_INDEX, new);
        // The index is out before it is asked whether the device sleeps (§2.7.13.4.1).
        memory.fence();
        match self.event_index {
            true => is_due(memory.load(self.available_event()), new, old),
            false => memory.load(self.used + USED_FLAGS) & NO_NOTIFY == 0,
        }
    }

    /// Asks for an interrupt when the used entry `next` is there; whether it is there already.
    #[inline]
    pub fn listen(&self, memory: &mut impl Words, next: u16) -> bool {
        match self.event_index {
            true => memory.store(self.used_event(), next),
            false => memory.store(self.available + AVAILABLE_FLAGS, 0),
        }
        // What was asked for is out before it is looked whether that is there (§2.7.14).
        memory.fence();
        memory.load(self.used + USED_INDEX) != next
    }

    /// Asks for no interrupts, as far as that is possible; `next` is the next used entry.
    pub fn ignore(&self, memory: &mut impl Words, next: u16) {
        match self.event_index {
            // The entry that it takes longest to come to.
            true => memory.store(self.used_event(), next.wrapping_sub(1)),
            false => memory.store(self.available + AVAILABLE_FLAGS, NO_INTERRUPT),
        }
    }
}

/// A place in a packed ring: which descriptor, and the wrap counter there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The descriptor.
    pub index: u16,
    /// The wrap counter.
    pub wrap: bool,
}

impl Place {
    /// Where both sides begin.
    pub const START: Self = Self { index: 0, wrap: true };

    /// The place so many descriptors later, at most a ring's.
    #[inline]
    pub const fn after(self, count: u16, entries: u16) -> Self {
        let index = self.index + count;
        if index >= entries {
            Self { index: index - entries, wrap: !self.wrap }
        } else {
            Self { index, ..self }
        }
    }

    /// As event suppression and notifications write it.
    #[inline]
    pub const fn event(self) -> u16 {
        self.index | if self.wrap { EVENT_WRAP } else { 0 }
    }
}

/// The words of a packed ring.
#[derive(Debug, Clone, Copy)]
pub struct Packed {
    /// Entries of the ring.
    pub entries: u16,
    /// Whether event indices were agreed upon.
    pub event_index: bool,
    /// Where the driver's event suppression is.
    pub driver: usize,
    /// Where the device's is.
    pub device: usize,
}

impl Packed {
    /// Shows the device descriptors by storing the flags of the first one at `at`. `next` is the
    /// place behind them, `added` how many there are. Whether the device wants to be told.
    #[inline]
    pub fn publish(
        &self,
        memory: &mut impl Words,
        (at, flags): (usize, u16),
        next: Place,
        added: u16,
    ) -> bool {
        memory.store(at, flags);
        // The flags are out before it is asked whether the device sleeps (§2.8.21.3.1).
        memory.fence();
        let flags = memory.load(self.device + EVENT_FLAGS);
        if flags != EVENT_AT || !self.event_index {
            return flags != EVENT_DISABLE;
        }
        let at = memory.load(self.device + EVENT_DESCRIPTOR);
        let mut awaited = at & !EVENT_WRAP;
        if (at & EVENT_WRAP != 0) != next.wrap {
            awaited = awaited.wrapping_sub(self.entries);
        }
        is_due(awaited, next.index, next.index.wrapping_sub(added))
    }

    /// Asks for an interrupt when the descriptor at `next` is used. It is to be looked at again
    /// afterwards.
    #[inline]
    pub fn listen(&self, memory: &mut impl Words, next: Place) {
        if self.event_index {
            memory.store(self.driver + EVENT_DESCRIPTOR, next.event());
        }
        let flags = if self.event_index { EVENT_AT } else { EVENT_ENABLE };
        memory.store(self.driver + EVENT_FLAGS, flags);
        // What was asked for is out before it is looked whether that is there (§2.8.14).
        memory.fence();
    }

    /// Asks for no interrupts.
    pub fn ignore(&self, memory: &mut impl Words) {
        memory.store(self.driver + EVENT_FLAGS, EVENT_DISABLE);
    }
}
