//! Rings in the split layout (§2.7).

use super::remember::SplitMemory;
use super::{Areas, Head, Shape, Start, Taken};
use crate::chain::{Chain, Piece, add_single};
use crate::error::Violation;
use crate::memory::Memory;
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::split::{
    AVAILABLE_FLAGS, AVAILABLE_INDEX, AVAILABLE_RING, Descriptor, NO_INTERRUPT, NO_NOTIFY,
    USED_BYTES, USED_FLAGS, USED_INDEX, USED_RING, UsedElement, is_due,
};
use std::collections::VecDeque;
use std::sync::atomic::{Ordering, fence};
use zerocopy::IntoBytes;

/// Bytes of an index for events.
const EVENT_BYTES: usize = 2;

#[derive(Debug)]
pub(crate) struct SplitRing {
    areas: Areas,
    entries: u16,
    indirect: bool,
    event_index: bool,
    /// The entry of the available ring that is next, counted without end.
    next: u16,
    /// Those before were available when it was looked last.
    available: u16,
    /// The entry of the used ring that is next.
    used: u16,
    /// The driver was shown those before.
    shown: u16,
    /// Of those before it was asked whether it wants to be told.
    published: u16,
    /// By first descriptor: whether the device has it.
    taken: Box<[bool]>,
    remembered: Option<SplitMemory>,
    /// What a predecessor has left.
    left: VecDeque<u16>,
    /// Whether the driver was asked to tell, and from which entry on.
    listening: Option<u16>,
}

impl SplitRing {
    pub(super) const fn shape(entries: u16) -> Shape {
        let entries = entries as usize;
        Shape {
            descriptors: (Descriptor::BYTES * entries, 16),
            driver: (AVAILABLE_RING + 2 * entries + EVENT_BYTES, 2),
            device: (USED_RING + USED_BYTES * entries + EVENT_BYTES, 4),
        }
    }

    pub(super) fn new(start: Start) -> Result<Self, Violation> {
        let Start { entries, features, base, areas, remembered } = start;
        let used = areas.device.load_u16(USED_INDEX);
        let mut ring = Self {
            areas,
            entries,
            indirect: features.contains(Features::INDIRECT),
            event_index: features.contains(Features::EVENT_INDEX),
            next: base as u16,
            available: base as u16,
            used,
            shown: used,
            published: used,
            taken: vec![false; entries.into()].into(),
            remembered: None,
            left: VecDeque::new(),
            listening: None,
        };
        if let Some(area) = remembered {
            let (memory, left) = SplitMemory::adopt(area, entries, features, used)?;
            if let Some(left) = left {
                ring.next = used.wrapping_add(left.len() as u16);
                ring.available = ring.next;
                ring.left = left.into();
            }
            ring.remembered = Some(memory);
        }
        if ring.next.wrapping_sub(used) > entries {
            return Err(Violation::Jump(ring.next.wrapping_sub(used)));
        }
        ring.silence();
        Ok(ring)
    }

    const fn slot(&self, index: u16) -> usize {
        // The size is a power of two (§2.7).
        (index & (self.entries - 1)) as usize
    }

    /// The parts have moved.
    pub(super) fn relocate(&mut self, areas: Areas) {
        self.areas = areas;
        self.available = self.next;
    }

    pub(super) fn pop(
        &mut self,
        memory: &Memory,
        pieces: &mut Vec<Piece>,
    ) -> Result<Option<Head>, Violation> {
        if !self.left.is_empty() {
            return self.take_left(memory, pieces);
        }
        if self.next == self.available {
            self.look()?;
        }
        match self.next == self.available {
            true => Ok(None),
            false => self.take_next(memory, pieces).map(Some),
        }
    }

    /// As many as there are, but at most so many.
    pub(super) fn take(
        &mut self,
        memory: &Memory,
        pieces: &mut Vec<Piece>,
        taken: &mut Vec<Taken>,
        most: usize,
    ) -> Result<(), Violation> {
        let mut count = 0;
        while count < most
            && let Some(head) = self.take_left(memory, pieces)?
        {
            taken.push(Taken { head, end: pieces.len() });
            count += 1;
        }
        if usize::from(self.available.wrapping_sub(self.next)) < most - count {
            self.look()?;
        }
        let new = usize::from(self.available.wrapping_sub(self.next));
        for _ in 0..new.min(most - count) {
            let head = self.take_next(memory, pieces)?;
            taken.push(Taken { head, end: pieces.len() });
        }
        Ok(())
    }

    /// Takes what is available next.
    #[inline(always)]
    fn take_next(&mut self, memory: &Memory, pieces: &mut Vec<Piece>) -> Result<Head, Violation> {
        let id = self.areas.driver.load_u16(AVAILABLE_RING + 2 * self.slot(self.next));
        match self.taken.get_mut(usize::from(id)) {
            None => return Err(Violation::NoDescriptor(id)),
            Some(true) => return Err(Violation::Twice(id)),
            Some(taken) => *taken = true,
        }
        if let Some(remembered) = &mut self.remembered {
            remembered.take(id);
        }
        self.next = self.next.wrapping_add(1);
        self.follow(id, memory, pieces)?;
        Ok(Head { id, count: 1, place: id })
    }

    /// Takes what a predecessor has left. It is remembered already.
    #[cold]
    fn take_left(
        &mut self,
        memory: &Memory,
        pieces: &mut Vec<Piece>,
    ) -> Result<Option<Head>, Violation> {
        let Some(id) = self.left.pop_front() else { return Ok(None) };
        self.taken[usize::from(id)] = true;
        self.follow(id, memory, pieces)?;
        Ok(Some(Head { id, count: 1, place: id }))
    }

    /// Looks what has been made available.
    fn look(&mut self) -> Result<(), Violation> {
        let index = self.areas.driver.load_u16(AVAILABLE_INDEX);
        let new = index.wrapping_sub(self.next);
        if new > self.entries {
            return Err(Violation::Jump(new));
        }
        self.available = index;
        Ok(())
    }

    fn descriptor(&self, index: u16) -> Descriptor {
        self.areas.descriptors.read(Descriptor::BYTES * usize::from(index))
    }

    /// Follows a chain from its first descriptor on.
    #[inline(always)]
    fn follow(&self, id: u16, memory: &Memory, pieces: &mut Vec<Piece>) -> Result<(), Violation> {
        let first = self.descriptor(id);
        let flags = first.flags.get();
        if flags & (Descriptor::NEXT | Descriptor::INDIRECT) == 0 {
            let (guest, bytes) = (first.address.get(), first.bytes.get());
            return add_single(pieces, memory, (guest, bytes, flags));
        }
        self.follow_on(first, Chain::new(memory, pieces))
    }

    /// Likewise, of several, or with a table.
    fn follow_on(&self, first: Descriptor, mut chain: Chain<'_>) -> Result<(), Violation> {
        let mut found = first;
        for _ in 0..self.entries {
            let (guest, bytes) = (found.address.get(), found.bytes.get());
            let flags = found.flags.get();
            if flags & Descriptor::INDIRECT != 0 {
                if !self.indirect || flags & Descriptor::NEXT != 0 {
                    return Err(Violation::Malformed);
                }
                return chain.add_split_table(guest, bytes);
            }
            chain.add((guest, bytes, flags))?;
            if flags & Descriptor::NEXT == 0 {
                return Ok(());
            }
            let index = found.next.get();
            if index >= self.entries {
                return Err(Violation::NoDescriptor(index));
            }
            found = self.descriptor(index);
        }
        Err(Violation::Endless)
    }

    #[inline]
    pub(super) fn push(&mut self, head: Head, bytes: u32) {
        let element = UsedElement { id: u32::from(head.id).into(), bytes: bytes.into() };
        let at = USED_RING + USED_BYTES * self.slot(self.used);
        self.areas.device.write(at, element.as_bytes());
        if let Some(remembered) = &mut self.remembered {
            remembered.batch(head.id);
        }
        self.taken[usize::from(head.id)] = false;
        self.used = self.used.wrapping_add(1);
    }

    /// They are published together in any case.
    #[inline]
    pub(super) fn push_together(&mut self, used: &[(Head, u32)]) {
        used.iter().for_each(|(head, bytes)| self.push(*head, *bytes));
    }

    #[inline]
    pub(super) fn unpop(&mut self, head: Head) {
        debug_assert!(self.remembered.is_none(), "what is remembered cannot be given back");
        self.taken[usize::from(head.id)] = false;
        self.next = self.next.wrapping_sub(1);
    }

    #[inline]
    pub(super) fn show(&mut self) {
        if self.shown != self.used {
            self.shown = self.used;
            self.areas.device.store_u16(USED_INDEX, self.used);
            if let Some(remembered) = &mut self.remembered {
                remembered.published(self.used);
            }
        }
    }

    #[inline]
    pub(super) fn publish(&mut self) -> bool {
        self.show();
        let old = std::mem::replace(&mut self.published, self.used);
        if old == self.used {
            return false;
        }
        // The index is out before it is asked whether the driver waits (§2.7.7.1).
        fence(Ordering::SeqCst);
        if self.event_index {
            let event = AVAILABLE_RING + 2 * usize::from(self.entries);
            return is_due(self.areas.driver.load_u16(event), self.used, old);
        }
        self.areas.driver.load_u16(AVAILABLE_FLAGS) & NO_INTERRUPT == 0
    }

    pub(super) fn listen(&mut self) -> bool {
        if self.listening != Some(self.next) {
            if self.event_index {
                let event = USED_RING + USED_BYTES * usize::from(self.entries);
                self.areas.device.store_u16(event, self.next);
            }
            if self.listening.is_none() {
                self.areas.device.store_u16(USED_FLAGS, 0);
            }
            self.listening = Some(self.next);
            // What was asked for is out before it is looked whether it is there (§2.7.10.1).
            fence(Ordering::SeqCst);
        }
        !self.left.is_empty() || self.areas.driver.load_u16(AVAILABLE_INDEX) != self.next
    }

    pub(super) fn ignore(&mut self) {
        if self.listening.is_some() {
            self.silence();
        }
    }

    fn silence(&mut self) {
        self.listening = None;
        // With event indices the flags are not used, and the index of long ago is none to come.
        if !self.event_index {
            self.areas.device.store_u16(USED_FLAGS, NO_NOTIFY);
        }
    }

    pub(super) fn base(&self) -> u32 {
        self.next.into()
    }
}
