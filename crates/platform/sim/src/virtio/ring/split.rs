//! The split layout (§2.7).

use super::{Chain, Place, Wish, Wrong, read, read_u16, write_u16};
use outboard_hw::dma::DeviceView;
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::split::{
    AVAILABLE_FLAGS, AVAILABLE_INDEX, AVAILABLE_RING, Descriptor, NO_INTERRUPT, NO_NOTIFY,
    USED_BYTES, USED_FLAGS, USED_INDEX, USED_RING, UsedElement, is_due,
};
use zerocopy::IntoBytes;

#[derive(Debug)]
pub(crate) struct SplitSide {
    place: Place,
    event_index: bool,
    tables: bool,
    in_order: bool,
    /// In order: the descriptor that comes next.
    expected: u16,
    /// Index of the next available entry.
    next: u16,
    /// Index of the next used entry, and what it was when an interrupt was last thought of.
    used: u16,
    told: u16,
    /// Which descriptors belong to requests that the device has.
    busy: Vec<bool>,
}

impl SplitSide {
    pub(super) fn new(place: Place, features: Features) -> Self {
        Self {
            place,
            event_index: features.contains(Features::EVENT_INDEX),
            tables: features.contains(Features::INDIRECT),
            in_order: features.contains(Features::IN_ORDER),
            expected: 0,
            next: 0,
            used: 0,
            told: 0,
            busy: vec![false; place.entries.into()],
        }
    }

    pub(super) fn take(&mut self, memory: &DeviceView) -> Result<Option<Chain>, Wrong> {
        let index = read_u16(memory, self.place.driver + AVAILABLE_INDEX as u64)?;
        let ahead = index.wrapping_sub(self.next);
        if ahead == 0 {
            return Ok(None);
        }
        if ahead > self.place.entries {
            return Err(Wrong::TooMany(ahead));
        }
        let entry = AVAILABLE_RING + 2 * usize::from(self.next % self.place.entries);
        let head = read_u16(memory, self.place.driver + entry as u64)?;
        self.next = self.next.wrapping_add(1);
        let mut chain = Chain { id: head, ..Chain::default() };
        let mut at = head;
        loop {
            match self.busy.get_mut(usize::from(at)) {
                None => return Err(Wrong::Outside(at)),
                Some(true) => return Err(Wrong::Twice(at)),
                Some(busy) => *busy = true,
            }
            if self.in_order && at != self.expected {
                return Err(Wrong::NotNext(at));
            }
            self.expected = (at + 1) % self.place.entries;
            chain.descriptors += 1;
            let address = self.place.descriptors + Descriptor::BYTES as u64 * u64::from(at);
            let descriptor: Descriptor = read(memory, address)?;
            let flags = descriptor.flags.get();
            keep(&mut chain, address, &descriptor);
            if flags & Descriptor::INDIRECT != 0 {
                if !self.tables || flags & Descriptor::NEXT != 0 || chain.descriptors > 1 {
                    return Err(Wrong::Table);
                }
                self.read_table(memory, &descriptor, &mut chain)?;
                return Ok(Some(chain));
            }
            let most = self.place.entries.into();
            chain.add(descriptor.address.get(), descriptor.bytes.get(), flags, most)?;
            if flags & Descriptor::NEXT == 0 {
                return Ok(Some(chain));
            }
            at = descriptor.next.get();
        }
    }

    fn read_table(
        &self,
        memory: &DeviceView,
        table: &Descriptor,
        chain: &mut Chain,
    ) -> Result<(), Wrong> {
        let bytes = table.bytes.get();
        let count = bytes / Descriptor::BYTES as u32;
        if count == 0 || !bytes.is_multiple_of(Descriptor::BYTES as u32) {
            return Err(Wrong::TableBytes(bytes));
        }
        let mut at = 0;
        loop {
            if u32::from(at) >= count {
                return Err(Wrong::Outside(at));
            }
            let address = table.address.get() + Descriptor::BYTES as u64 * u64::from(at);
            let descriptor: Descriptor = read(memory, address)?;
            let flags = descriptor.flags.get();
            if flags & Descriptor::INDIRECT != 0 {
                return Err(Wrong::Table);
            }
            keep(chain, address, &descriptor);
            let most = self.place.entries.into();
            chain.add(descriptor.address.get(), descriptor.bytes.get(), flags, most)?;
            if flags & Descriptor::NEXT == 0 {
                return Ok(());
            }
            at = descriptor.next.get();
        }
    }

    pub(super) fn wish(&mut self, memory: &DeviceView, wish: Wish) -> Result<(), Wrong> {
        if self.event_index {
            let event = match wish {
                // It was passed already.
                Wish::Nothing => self.next.wrapping_sub(1),
                Wish::Next => self.next,
                Wish::Garbage(event) => event,
            };
            return write_u16(memory, self.event_address(), event);
        }
        let flags = match wish {
            Wish::Nothing => NO_NOTIFY,
            Wish::Next => 0,
            Wish::Garbage(bits) => bits,
        };
        write_u16(memory, self.place.device + USED_FLAGS as u64, flags)
    }

    /// Where `avail_event` is.
    fn event_address(&self) -> u64 {
        self.place.device + (USED_RING + USED_BYTES * usize::from(self.place.entries)) as u64
    }

    pub(super) fn was_asked(&self, memory: &DeviceView) -> Result<bool, Wrong> {
        if !self.event_index {
            let flags = read_u16(memory, self.place.device + USED_FLAGS as u64)?;
            return Ok(flags & NO_NOTIFY == 0);
        }
        let index = read_u16(memory, self.place.driver + AVAILABLE_INDEX as u64)?;
        Ok(is_due(read_u16(memory, self.event_address())?, index, self.next))
    }

    pub(super) fn wants_interrupt(&mut self, memory: &DeviceView) -> Result<bool, Wrong> {
        let (old, new) = (core::mem::replace(&mut self.told, self.used), self.used);
        if !self.event_index {
            let flags = read_u16(memory, self.place.driver + AVAILABLE_FLAGS as u64)?;
            return Ok(flags & NO_INTERRUPT == 0);
        }
        let event = AVAILABLE_RING + 2 * usize::from(self.place.entries);
        Ok(is_due(read_u16(memory, self.place.driver + event as u64)?, new, old))
    }

    pub(super) fn put(
        &mut self,
        memory: &DeviceView,
        chain: &Chain,
        id: u32,
        bytes: u32,
    ) -> Result<(), Wrong> {
        self.put_at(memory, 0, id, bytes)?;
        self.release(memory, chain)?;
        self.show(memory, 0)
    }

    pub(super) fn put_batch(
        &mut self,
        memory: &DeviceView,
        chains: &[&Chain],
        bytes: u32,
    ) -> Result<(), Wrong> {
        let Some(last) = chains.last() else { return Ok(()) };
        self.put_at(memory, 0, last.id.into(), bytes)?;
        for chain in chains {
            self.release(memory, chain)?;
        }
        self.used = self.used.wrapping_add(chains.len() as u16 - 1);
        self.show(memory, 0)
    }

    pub(super) fn next_entry(&self, memory: &DeviceView) -> Result<u16, Wrong> {
        read_u16(memory, self.place.driver + AVAILABLE_INDEX as u64)
    }

    pub(super) const fn go_on_behind(&mut self, before: &Self) {
        (self.used, self.told) = (before.used, before.used);
    }

    /// The descriptors of a request are the driver's again.
    pub(crate) fn release(&mut self, memory: &DeviceView, chain: &Chain) -> Result<(), Wrong> {
        let mut at = chain.id;
        for _ in 0..chain.descriptors {
            let Some(busy) = self.busy.get_mut(usize::from(at)) else { break };
            *busy = false;
            let address = self.place.descriptors + Descriptor::BYTES as u64 * u64::from(at);
            let kept = chain.copies.iter().find(|(place, _)| *place == address);
            let next = match kept {
                Some((_, copy)) => u16::from_le_bytes([copy[14], copy[15]]),
                None => read_u16(memory, address + 14)?,
            };
            at = next;
        }
        Ok(())
    }

    /// Writes a used entry `ahead` places behind the next one.
    pub(crate) fn put_at(
        &self,
        memory: &DeviceView,
        ahead: u16,
        id: u32,
        bytes: u32,
    ) -> Result<(), Wrong> {
        let element = UsedElement { id: id.into(), bytes: bytes.into() };
        let place = usize::from(self.used.wrapping_add(ahead) % self.place.entries);
        let at = self.place.device + (USED_RING + USED_BYTES * place) as u64;
        Ok(memory.write(at, element.as_bytes())?)
    }

    /// Goes on by an entry, and shows an index that is wrong by `by`.
    pub(crate) fn show(&mut self, memory: &DeviceView, by: u16) -> Result<(), Wrong> {
        self.used = self.used.wrapping_add(1);
        let index = self.used.wrapping_add(by);
        write_u16(memory, self.place.device + USED_INDEX as u64, index)
    }

    /// A descriptor behind the first of a chain.
    pub(crate) fn middle_of(&self, memory: &DeviceView, chain: &Chain) -> Option<u16> {
        let address = self.place.descriptors + Descriptor::BYTES as u64 * u64::from(chain.id) + 14;
        (chain.descriptors > 1).then(|| read_u16(memory, address).ok())?
    }

    pub(super) fn free_id(&self) -> Option<u16> {
        self.busy.iter().position(|busy| !busy).map(|free| free as u16)
    }

    pub(super) fn spoil_driver_area(&self, memory: &DeviceView) -> Result<(), Wrong> {
        // The entry before the next one was read, unless the driver has come round to it.
        let index = read_u16(memory, self.place.driver + AVAILABLE_INDEX as u64)?;
        if index.wrapping_sub(self.next) < self.place.entries {
            let entry =
                AVAILABLE_RING + 2 * usize::from(self.next.wrapping_sub(1) % self.place.entries);
            write_u16(memory, self.place.driver + entry as u64, 0xabcd)?;
        }
        if self.event_index {
            let event = AVAILABLE_RING + 2 * usize::from(self.place.entries);
            return write_u16(memory, self.place.driver + event as u64, self.used.wrapping_add(99));
        }
        write_u16(memory, self.place.driver + AVAILABLE_FLAGS as u64, NO_INTERRUPT)
    }
}

/// Remembers a descriptor, which has to stay as it is.
fn keep(chain: &mut Chain, address: u64, descriptor: &Descriptor) {
    let mut copy = [0; Descriptor::BYTES];
    copy.copy_from_slice(descriptor.as_bytes());
    chain.copies.push((address, copy));
}
