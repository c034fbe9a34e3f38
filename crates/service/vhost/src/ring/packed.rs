//! Rings in the packed layout (§2.8).

use super::remember::{Left, PackedMemory};
use super::{Areas, Head, Shape, Start, Taken};
use crate::chain::{Chain, Piece, add_single};
use crate::error::Violation;
use crate::memory::Memory;
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::packed::{
    Descriptor, EVENT_AT, EVENT_BYTES, EVENT_DESCRIPTOR, EVENT_DISABLE, EVENT_ENABLE, EVENT_FLAGS,
    EVENT_WRAP, UsedDescriptor,
};
use outboard_virtio::spec::split::{self, is_due};
use outboard_virtio::spec::vhost_user::{BASE_USED_SHIFT, BASE_WRAP};
use std::collections::VecDeque;
use std::mem::offset_of;
use std::sync::atomic::{Ordering, fence};

/// What is written of a used descriptor is one word of 64 bits: bytes, ID, flags.
const _: () = {
    assert!(offset_of!(UsedDescriptor, bytes) == 0 && offset_of!(UsedDescriptor, id) == 4);
    assert!(offset_of!(UsedDescriptor, flags) == 6 && size_of::<UsedDescriptor>() == 8);
};

const BOTH: u16 = Descriptor::AVAILABLE | Descriptor::USED;

/// A place in the ring: which descriptor, and the wrap counter there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) index: u16,
    pub(crate) wrap: bool,
}

impl Place {
    /// As `SET_VRING_BASE` and event suppression write it, if the ring has it.
    fn parse(bits: u32, entries: u16) -> Result<Self, Violation> {
        let index = bits as u16 & !EVENT_WRAP;
        let place = Self { index, wrap: bits & BASE_WRAP != 0 };
        (index < entries).then_some(place).ok_or(Violation::Jump(index))
    }

    const fn bits(self) -> u16 {
        self.index | if self.wrap { EVENT_WRAP } else { 0 }
    }

    /// The place so many descriptors before, at most a ring's.
    const fn before(self, count: u16, entries: u16) -> Self {
        if self.index < count {
            Self { index: self.index + entries - count, wrap: !self.wrap }
        } else {
            Self { index: self.index - count, ..self }
        }
    }

    /// The place so many descriptors later, at most a ring's.
    const fn after(self, count: u16, entries: u16) -> Self {
        let index = self.index + count;
        if index >= entries {
            Self { index: index - entries, wrap: !self.wrap }
        } else {
            Self { index, ..self }
        }
    }
}

#[derive(Debug)]
pub(crate) struct PackedRing {
    pub(super) areas: Areas,
    entries: u16,
    indirect: bool,
    event_index: bool,
    /// The descriptor that is to be available next.
    next: Place,
    /// Where the next used descriptor goes.
    used: Place,
    /// Descriptors that the device has.
    taken: u16,
    /// Descriptors that were used since the driver was told last.
    pushed: u16,
    remembered: Option<PackedMemory>,
    /// What a predecessor has left.
    left: VecDeque<Left>,
    listening: Option<Place>,
    /// Reused between requests.
    found: Vec<Descriptor>,
}

impl PackedRing {
    pub(super) const fn shape(entries: u16) -> Shape {
        Shape {
            descriptors: (Descriptor::BYTES * entries as usize, 16),
            driver: (EVENT_BYTES, 4),
            device: (EVENT_BYTES, 4),
        }
    }

    pub(super) fn new(start: Start) -> Result<Self, Violation> {
        let Start { entries, features, base, areas, remembered } = start;
        let next = Place::parse(base, entries)?;
        let used = match base >> BASE_USED_SHIFT {
            // DPDK's front end leaves the upper half out: nothing is in flight.
            0 if next.wrap => next,
            used => Place::parse(used, entries)?,
        };
        let mut ring = Self {
            areas,
            entries,
            indirect: features.contains(Features::INDIRECT),
            event_index: features.contains(Features::EVENT_INDEX),
            next,
            used,
            taken: 0,
            pushed: 0,
            remembered: None,
            left: VecDeque::new(),
            listening: None,
            found: Vec::new(),
        };
        if let Some(area) = remembered {
            let flags = |index| ring.flags(index);
            let (memory, left) = PackedMemory::adopt(area, entries, features, ring.used, flags)?;
            if let Some((used, left)) = left {
                ring.adopt(used, left);
            }
            ring.remembered = Some(memory);
        }
        ring.silence();
        Ok(ring)
    }

    /// Goes on where a predecessor has stopped.
    fn adopt(&mut self, used: Place, left: Vec<Left>) {
        self.used = used;
        let count: u16 = left.iter().map(|one| one.descriptors.len() as u16).sum();
        // One that shows several at once may have written the later ones already: these are not
        // used before the first is, and are not to be taken for it then.
        for index in 1..count {
            let Place { index, wrap } = used.after(index, self.entries);
            if self.flags(index) & BOTH == if wrap { BOTH } else { 0 } {
                self.set_flags(index, if wrap { Descriptor::AVAILABLE } else { Descriptor::USED });
            }
        }
        self.next = used.after(count, self.entries);
        self.taken = count;
        self.left = left.into();
    }

    fn flags(&self, index: u16) -> u16 {
        let at = Descriptor::BYTES * usize::from(index) + Descriptor::FLAGS;
        self.areas.descriptors.load_u16(at)
    }

    fn set_flags(&mut self, index: u16, flags: u16) {
        let at = Descriptor::BYTES * usize::from(index) + Descriptor::FLAGS;
        self.areas.descriptors.store_u16(at, flags);
    }

    fn is_available(&self) -> bool {
        let flags = self.flags(self.next.index);
        flags & BOTH == if self.next.wrap { Descriptor::AVAILABLE } else { Descriptor::USED }
    }

    fn descriptor(&self, index: u16) -> Descriptor {
        self.areas.descriptors.read(Descriptor::BYTES * usize::from(index))
    }

    pub(super) fn pop(
        &mut self,
        memory: &Memory,
        pieces: &mut Vec<Piece>,
    ) -> Result<Option<Head>, Violation> {
        self.take_one(memory, pieces)
    }

    /// As many as there are, but at most so many.
    pub(super) fn take(
        &mut self,
        memory: &Memory,
        pieces: &mut Vec<Piece>,
        taken: &mut Vec<Taken>,
        most: usize,
    ) -> Result<(), Violation> {
        for _ in 0..most {
            let Some(head) = self.take_one(memory, pieces)? else { break };
            taken.push(Taken { head, end: pieces.len() });
        }
        Ok(())
    }

    #[inline(always)]
    fn take_one(
        &mut self,
        memory: &Memory,
        pieces: &mut Vec<Piece>,
    ) -> Result<Option<Head>, Violation> {
        if !self.left.is_empty() {
            return self.take_left(memory, pieces);
        }
        // Where the device has all of them, what looks available was so in the turn before.
        if self.taken == self.entries || !self.is_available() {
            return Ok(None);
        }
        let first = self.descriptor(self.next.index);
        let flags = first.flags.get();
        if flags & (split::Descriptor::NEXT | split::Descriptor::INDIRECT) != 0 {
            return self.take_several(first, memory, pieces).map(Some);
        }
        let (id, place) = (first.id.get(), self.begin(&[first])?);
        add_single(pieces, memory, (first.address.get(), first.bytes.get(), flags))?;
        Ok(Some(Head { id, count: 1, place }))
    }

    /// Takes what a predecessor has left. It is remembered already.
    #[cold]
    fn take_left(
        &mut self,
        memory: &Memory,
        pieces: &mut Vec<Piece>,
    ) -> Result<Option<Head>, Violation> {
        let Some(Left { place, id, descriptors }) = self.left.pop_front() else { return Ok(None) };
        let count = descriptors.len() as u16;
        self.follow(Chain::new(memory, pieces), descriptors.into_iter())?;
        Ok(Some(Head { id, count, place }))
    }

    /// Takes a request of several descriptors, or with a table.
    fn take_several(
        &mut self,
        first: Descriptor,
        memory: &Memory,
        pieces: &mut Vec<Piece>,
    ) -> Result<Head, Violation> {
        let mut found = std::mem::take(&mut self.found);
        found.clear();
        found.push(first);
        let (mut place, mut last) = (self.next, first);
        while last.flags.get() & split::Descriptor::NEXT != 0 {
            if found.len() >= usize::from(self.entries - self.taken) {
                return Err(Violation::Endless);
            }
            place = place.after(1, self.entries);
            last = self.descriptor(place.index);
            found.push(last);
        }
        let (id, count, place) = (last.id.get(), found.len() as u16, self.begin(&found)?);
        let parts = found.iter().map(|one| (one.address.get(), one.bytes.get(), one.flags.get()));
        self.follow(Chain::new(memory, pieces), parts)?;
        self.found = found;
        Ok(Head { id, count, place })
    }

    /// Notes that the device has these descriptors; where they are remembered.
    #[inline]
    fn begin(&mut self, found: &[Descriptor]) -> Result<u16, Violation> {
        let count = found.len() as u16;
        let remembered = self.remembered.as_mut().map(|memory| memory.take(found)).transpose()?;
        self.next = self.next.after(count, self.entries);
        self.taken += count;
        Ok(remembered.unwrap_or_default())
    }

    /// What a request's descriptors name.
    fn follow(
        &self,
        mut chain: Chain<'_>,
        descriptors: impl ExactSizeIterator<Item = (u64, u32, u16)>,
    ) -> Result<(), Violation> {
        let single = descriptors.len() == 1;
        for (guest, bytes, flags) in descriptors {
            if flags & split::Descriptor::INDIRECT == 0 {
                chain.add((guest, bytes, flags))?;
            } else if self.indirect && single {
                return chain.add_packed_table(guest, bytes);
            } else {
                return Err(Violation::Malformed);
            }
        }
        Ok(())
    }

    #[inline]
    pub(super) fn push(&mut self, head: Head, bytes: u32) {
        let Place { index, wrap } = self.used;
        let after = self.used.after(head.count, self.entries);
        if let Some(remembered) = &mut self.remembered {
            remembered.before_use(head.place, self.used, after);
        }
        let written = if bytes > 0 { split::Descriptor::WRITE } else { 0 };
        let flags = written | if wrap { BOTH } else { 0 };
        // Bytes, ID and flags at once, so that there is no order among them.
        let used = u64::from(bytes) | u64::from(head.id) << 32 | u64::from(flags) << 48;
        let at = Descriptor::BYTES * usize::from(index) + Descriptor::WRITTEN;
        self.areas.descriptors.store_u64(at, used);
        if let Some(remembered) = &mut self.remembered {
            remembered.after_use(head.place, after);
        }
        self.used = after;
        self.taken -= head.count;
        self.pushed = self.pushed.saturating_add(head.count);
    }

    /// The first one's flags are written last: those behind it are not looked at before.
    #[inline]
    pub(super) fn push_together(&mut self, used: &[(Head, u32)]) {
        debug_assert!(self.remembered.is_none(), "what is remembered is shown one by one");
        let Some(((first, bytes), others)) = used.split_first() else { return };
        let start = self.used;
        self.used = start.after(first.count, self.entries);
        others.iter().for_each(|(head, bytes)| self.push(*head, *bytes));
        let end = std::mem::replace(&mut self.used, start);
        self.push(*first, *bytes);
        self.used = end;
    }

    #[inline]
    pub(super) fn unpop(&mut self, head: Head) {
        debug_assert!(self.remembered.is_none(), "what is remembered cannot be given back");
        self.next = self.next.before(head.count, self.entries);
        self.taken -= head.count;
    }

    /// What is pushed is seen.
    #[inline]
    pub(super) const fn show(&self) {}

    #[inline]
    pub(super) fn publish(&mut self) -> bool {
        let pushed = std::mem::take(&mut self.pushed);
        if pushed == 0 {
            return false;
        }
        // The flags are out before it is asked whether the driver waits (§2.8.14).
        fence(Ordering::SeqCst);
        let flags = self.areas.driver.load_u16(EVENT_FLAGS);
        if flags != EVENT_AT || !self.event_index {
            return flags != EVENT_DISABLE;
        }
        let at = self.areas.driver.load_u16(EVENT_DESCRIPTOR);
        let mut awaited = at & !EVENT_WRAP;
        if (at & EVENT_WRAP != 0) != self.used.wrap {
            awaited = awaited.wrapping_sub(self.entries);
        }
        // More than a ring's at once means that whatever is awaited was among them.
        let old = self.used.index.wrapping_sub(pushed);
        pushed > self.entries || is_due(awaited, self.used.index, old)
    }

    pub(super) fn listen(&mut self) -> bool {
        if self.listening != Some(self.next) {
            if self.event_index {
                self.areas.device.store_u16(EVENT_DESCRIPTOR, self.next.bits());
            }
            if self.listening.is_none() {
                let flags = if self.event_index { EVENT_AT } else { EVENT_ENABLE };
                self.areas.device.store_u16(EVENT_FLAGS, flags);
            }
            self.listening = Some(self.next);
            // What was asked for is out before it is looked whether it is there (§2.8.14).
            fence(Ordering::SeqCst);
        }
        !self.left.is_empty() || self.taken != self.entries && self.is_available()
    }

    pub(super) fn ignore(&mut self) {
        if self.listening.is_some() {
            self.silence();
        }
    }

    fn silence(&mut self) {
        self.listening = None;
        self.areas.device.store_u16(EVENT_FLAGS, EVENT_DISABLE);
    }

    pub(super) fn base(&self) -> u32 {
        u32::from(self.next.bits()) | u32::from(self.used.bits()) << BASE_USED_SHIFT
    }
}
