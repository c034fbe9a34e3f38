//! The packed layout (§2.8).

use super::{Chain, Place, Wish, Wrong, read, read_u16, write_u16};
use outboard_hw::dma::DeviceView;
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::packed::{
    Descriptor, EVENT_AT, EVENT_DESCRIPTOR, EVENT_DISABLE, EVENT_ENABLE, EVENT_FLAGS, EVENT_WRAP,
};
use outboard_virtio::spec::split::{self, is_due};
use std::collections::BTreeSet;
use zerocopy::IntoBytes;

/// A place in the ring, and the wrap counter there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct At {
    index: u16,
    wrap: bool,
}

impl At {
    const START: Self = Self { index: 0, wrap: true };

    const fn after(self, count: u16, entries: u16) -> Self {
        let index = self.index + count;
        if index >= entries {
            Self { index: index - entries, wrap: !self.wrap }
        } else {
            Self { index, ..self }
        }
    }
}

/// How a used descriptor is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marks {
    /// As it should be.
    Right,
    /// With the other turn's wrap counter.
    OtherTurn,
    /// With one flag of two.
    Half,
}

#[derive(Debug)]
pub(crate) struct PackedSide {
    place: Place,
    event_index: bool,
    tables: bool,
    /// Where the next available descriptor is.
    next: At,
    /// Where the next used one goes, and how many went since an interrupt was last thought of.
    used: At,
    since: u16,
    /// Buffers that the device has.
    busy: BTreeSet<u16>,
    /// Descriptors of these.
    in_use: u16,
    in_order: bool,
    /// Descriptors of requests that it did not say are done: in order, the next entry says it of
    /// them as well, and has their place.
    covered: u16,
    /// It has written over what the driver offers and it has not taken. Until the queue is reset it
    /// takes nothing more: what it would find is its own.
    overwrote: bool,
}

impl PackedSide {
    pub(super) const fn new(place: Place, features: Features) -> Self {
        let busy = BTreeSet::new();
        let (next, used) = (At::START, At::START);
        let event_index = features.contains(Features::EVENT_INDEX);
        let tables = features.contains(Features::INDIRECT);
        let in_order = features.contains(Features::IN_ORDER);
        let (since, in_use, covered) = (0, 0, 0);
        Self {
            place,
            event_index,
            tables,
            next,
            used,
            since,
            busy,
            in_use,
            in_order,
            covered,
            overwrote: false,
        }
    }

    fn address(&self, index: u16) -> u64 {
        self.place.descriptors + Descriptor::BYTES as u64 * u64::from(index)
    }

    /// Whether flags are those of a descriptor that is available at a place.
    const fn is_available(flags: u16, at: At) -> bool {
        let (available, used) = (flags & Descriptor::AVAILABLE != 0, flags & Descriptor::USED != 0);
        available == at.wrap && used != at.wrap
    }

    pub(super) fn take(&mut self, memory: &DeviceView) -> Result<Option<Chain>, Wrong> {
        let first = read_u16(memory, self.address(self.next.index) + Descriptor::FLAGS as u64)?;
        let full = self.in_use == self.place.entries;
        if !Self::is_available(first, self.next) || full || self.overwrote {
            return Ok(None);
        }
        let mut chain = Chain::default();
        loop {
            if self.in_use == self.place.entries {
                return Err(Wrong::Endless);
            }
            let descriptor: Descriptor = read(memory, self.address(self.next.index))?;
            let flags = descriptor.flags.get();
            if !Self::is_available(flags, self.next) {
                return Err(Wrong::HalfChain);
            }
            self.next = self.next.after(1, self.place.entries);
            (chain.descriptors, self.in_use) = (chain.descriptors + 1, self.in_use + 1);
            let more = flags & split::Descriptor::NEXT != 0;
            if flags & split::Descriptor::INDIRECT != 0 {
                if !self.tables || more || chain.descriptors > 1 {
                    return Err(Wrong::Table);
                }
                self.read_table(memory, &descriptor, &mut chain)?;
            } else {
                let most = self.place.entries.into();
                chain.add(descriptor.address.get(), descriptor.bytes.get(), flags, most)?;
            }
            if !more {
                // The last one has the buffer's ID (§2.8.6).
                chain.id = descriptor.id.get();
                if chain.id >= self.place.entries {
                    return Err(Wrong::Outside(chain.id));
                }
                let new = self.busy.insert(chain.id);
                return if new { Ok(Some(chain)) } else { Err(Wrong::SameBuffer(chain.id)) };
            }
        }
    }

    fn read_table(
        &self,
        memory: &DeviceView,
        table: &Descriptor,
        chain: &mut Chain,
    ) -> Result<(), Wrong> {
        let bytes = table.bytes.get();
        if bytes == 0 || !bytes.is_multiple_of(Descriptor::BYTES as u32) {
            return Err(Wrong::TableBytes(bytes));
        }
        for number in 0..bytes / Descriptor::BYTES as u32 {
            let address = table.address.get() + Descriptor::BYTES as u64 * u64::from(number);
            let descriptor: Descriptor = read(memory, address)?;
            let flags = descriptor.flags.get();
            if flags & split::Descriptor::INDIRECT != 0 {
                return Err(Wrong::Table);
            }
            let mut copy = [0; Descriptor::BYTES];
            copy.copy_from_slice(descriptor.as_bytes());
            chain.copies.push((address, copy));
            let most = self.place.entries.into();
            chain.add(descriptor.address.get(), descriptor.bytes.get(), flags, most)?;
        }
        Ok(())
    }

    pub(super) fn wish(&mut self, memory: &DeviceView, wish: Wish) -> Result<(), Wrong> {
        let wrap = if self.next.wrap { EVENT_WRAP } else { 0 };
        let (descriptor, flags) = match wish {
            Wish::Nothing => (0, EVENT_DISABLE),
            Wish::Next if self.event_index => (self.next.index | wrap, EVENT_AT),
            Wish::Next => (0, EVENT_ENABLE),
            Wish::Garbage(bits) => (bits, bits >> 3),
        };
        let device = self.place.device;
        write_u16(memory, device + EVENT_DESCRIPTOR as u64, descriptor)?;
        write_u16(memory, device + EVENT_FLAGS as u64, flags)
    }

    pub(super) fn was_asked(&self, memory: &DeviceView) -> Result<bool, Wrong> {
        let flags = read_u16(memory, self.place.device + EVENT_FLAGS as u64)?;
        let first = read_u16(memory, self.address(self.next.index) + Descriptor::FLAGS as u64)?;
        // It asks for the next one alone, if for any.
        Ok(self.overwrote
            || flags == EVENT_ENABLE
            || flags == EVENT_AT && Self::is_available(first, self.next))
    }

    pub(super) fn wants_interrupt(&mut self, memory: &DeviceView) -> Result<bool, Wrong> {
        let since = core::mem::take(&mut self.since);
        let flags = read_u16(memory, self.place.driver + EVENT_FLAGS as u64)?;
        if flags != EVENT_AT || !self.event_index {
            return Ok(flags != EVENT_DISABLE);
        }
        let at = read_u16(memory, self.place.driver + EVENT_DESCRIPTOR as u64)?;
        let mut awaited = at & !EVENT_WRAP;
        if (at & EVENT_WRAP != 0) != self.used.wrap {
            awaited = awaited.wrapping_sub(self.place.entries);
        }
        Ok(is_due(awaited, self.used.index, self.used.index.wrapping_sub(since)))
    }

    pub(super) fn put(
        &mut self,
        memory: &DeviceView,
        chain: &Chain,
        id: u32,
        bytes: u32,
    ) -> Result<(), Wrong> {
        self.put_marked(memory, 0, (id, bytes), Marks::Right)?;
        self.pass(chain);
        Ok(())
    }

    pub(super) fn put_batch(
        &mut self,
        memory: &DeviceView,
        chains: &[&Chain],
        bytes: u32,
    ) -> Result<(), Wrong> {
        let Some(last) = chains.last() else { return Ok(()) };
        self.put_marked(memory, 0, (last.id.into(), bytes), Marks::Right)?;
        chains.iter().for_each(|chain| self.pass(chain));
        Ok(())
    }

    pub(super) fn next_entry(&self, memory: &DeviceView) -> Result<u16, Wrong> {
        if self.overwrote {
            return Err(Wrong::Overwritten);
        }
        let mut at = self.next;
        // What is used up cannot be available again.
        for _ in self.in_use..self.place.entries {
            let flags = read_u16(memory, self.address(at.index) + Descriptor::FLAGS as u64)?;
            if !Self::is_available(flags, at) {
                break;
            }
            at = at.after(1, self.place.entries);
        }
        Ok(at.index | if at.wrap { EVENT_WRAP } else { 0 })
    }

    pub(super) const fn go_on_behind(&mut self, before: &Self) {
        (self.used, self.covered) = (before.used, before.covered);
    }

    /// Writes a used descriptor `ahead` places behind the next one.
    pub(crate) fn put_marked(
        &mut self,
        memory: &DeviceView,
        ahead: u16,
        (id, bytes): (u32, u32),
        marks: Marks,
    ) -> Result<(), Wrong> {
        let at = self.used.after(ahead, self.place.entries);
        let both = Descriptor::AVAILABLE | Descriptor::USED;
        let flags = match (marks, at.wrap) {
            (Marks::Right, true) | (Marks::OtherTurn, false) => both,
            (Marks::Right, false) | (Marks::OtherTurn, true) => 0,
            (Marks::Half, true) => Descriptor::AVAILABLE,
            (Marks::Half, false) => Descriptor::USED,
        };
        let (address, id) = (0.into(), (id as u16).into());
        let used = Descriptor { address, bytes: bytes.into(), id, flags: flags.into() };
        let place = self.address(at.index);
        let wrap = (at.index >= self.next.index) == self.next.wrap;
        let there = read_u16(memory, place + Descriptor::FLAGS as u64)?;
        let untaken = At { wrap, ..at };
        // Or it makes up one itself.
        self.overwrote |= Self::is_available(there, untaken) || Self::is_available(flags, untaken);
        // The flags come last (§2.8.6).
        memory.write(place, &used.as_bytes()[..Descriptor::FLAGS])?;
        write_u16(memory, place + Descriptor::FLAGS as u64, flags)
    }

    /// Goes on behind a request, which the device does not have any more.
    pub(crate) fn pass(&mut self, chain: &Chain) {
        let descriptors = chain.descriptors + core::mem::take(&mut self.covered);
        self.used = self.used.after(descriptors, self.place.entries);
        self.since += descriptors;
        self.in_use -= chain.descriptors;
        self.busy.remove(&chain.id);
    }

    /// The driver may learn from what comes later that a request is done.
    pub(crate) fn lose(&mut self, chain: &Chain) {
        self.busy.remove(&chain.id);
        self.in_use -= chain.descriptors;
        if self.in_order {
            self.covered += chain.descriptors;
        }
    }

    /// The driver is told that a buffer is done which is not: it may offer another one by its name.
    pub(crate) fn told_of(&mut self, id: u16) {
        self.busy.remove(&id);
    }

    /// How many descriptors the device has.
    pub(crate) const fn in_use(&self) -> u16 {
        self.in_use
    }

    pub(super) fn free_id(&self) -> Option<u16> {
        (0..self.place.entries).find(|id| !self.busy.contains(id))
    }

    pub(super) fn spoil_driver_area(&self, memory: &DeviceView) -> Result<(), Wrong> {
        write_u16(memory, self.place.driver + EVENT_FLAGS as u64, EVENT_DISABLE)
    }
}
