//! Rings in the packed layout (§2.8).

use super::handshake::{Packed, Place};
use super::{Areas, Batch, Broken, Full, Piece, Ring, Shadow, Used, all_free};
use crate::spec::features::Features;
use crate::spec::packed::{Descriptor, EVENT_BYTES, UsedDescriptor};
use crate::spec::split;
use alloc::boxed::Box;
use outboard_hw::dma::{
    Constraints, DeviceAddress, DmaBlock, DmaBlocks, DmaBuffer, DmaError, DmaSpace,
};

/// Keeps what the driver writes from what the device does.
const EVENT_ALIGNMENT: usize = 64;

#[derive(Debug)]
pub(crate) struct PackedQueue<T> {
    /// Descriptors, and the rest of the queue behind them.
    memory: DmaBlocks<{ Descriptor::BYTES }>,
    entries: u16,
    words: Packed,
    /// The device keeps to the order (§2.8.9), and buffer IDs go round: that of the oldest request
    /// is behind the free ones.
    in_order: bool,
    /// By buffer ID.
    shadow: Box<[Shadow<T>]>,
    first_free: u16,
    free: u16,
    /// In order: the buffer ID of the oldest request, and what is done of those behind it.
    oldest: u16,
    batch: Option<Batch>,
    /// Where the next descriptor goes.
    next: Place,
    /// The first descriptor that the device was not shown, with its flags: it stops there until
    /// these are written, and so sees all that were added at once.
    held: Option<(u16, u16)>,
    /// How many descriptors the device was not shown.
    added: u16,
    /// Where the next used descriptor will be.
    next_used: Place,
    /// With which place as the next one interrupts were asked for, if they were.
    listening: Option<Place>,
}

impl<T> PackedQueue<T> {
    pub(super) fn new(
        dma: &dyn DmaSpace,
        entries: u16,
        features: Features,
    ) -> Result<Self, DmaError> {
        let bytes = Self::device_event(entries) + EVENT_BYTES;
        let memory = dma.allocate(bytes, &Constraints::NONE.aligned(4096))?;
        let memory = DmaBlocks::new(memory, Descriptor::BYTES);
        let mut queue = Self {
            memory,
            entries,
            words: Packed {
                entries,
                event_index: features.contains(Features::EVENT_INDEX),
                driver: Self::driver_event(entries),
                device: Self::device_event(entries),
            },
            in_order: features.contains(Features::IN_ORDER),
            shadow: all_free(entries),
            first_free: 0,
            free: entries,
            oldest: 0,
            batch: None,
            next: Place::START,
            held: None,
            added: 0,
            next_used: Place::START,
            listening: None,
        };
        queue.ignore();
        Ok(queue)
    }

    /// Where the driver's event suppression is; the ring is at the start.
    const fn driver_event(entries: u16) -> usize {
        (Descriptor::BYTES * entries as usize).next_multiple_of(EVENT_ALIGNMENT)
    }

    /// Where the device's event suppression is.
    const fn device_event(entries: u16) -> usize {
        Self::driver_event(entries) + EVENT_ALIGNMENT
    }

    pub(super) fn areas(&self) -> Areas {
        Areas {
            entries: self.entries,
            descriptors: self.memory.buffer().address(),
            driver: self.memory.buffer().address_of(Self::driver_event(self.entries)),
            device: self.memory.buffer().address_of(Self::device_event(self.entries)),
        }
    }

    pub(super) fn reset(&mut self) {
        let memory = self.memory.buffer_mut();
        memory.fill(0..memory.len(), 0);
        self.shadow = all_free(self.entries);
        (self.first_free, self.free) = (0, self.entries);
        (self.oldest, self.batch) = (0, None);
        (self.next, self.next_used) = (Place::START, Place::START);
        (self.held, self.added) = (None, 0);
        self.ignore();
    }

    pub(super) fn shadow_mut(&mut self) -> &mut [Shadow<T>] {
        &mut self.shadow
    }

    pub(super) const fn next_used(&self) -> u16 {
        self.next_used.event()
    }

    /// Writes the next descriptor, with flags that make it available, unless it is the first of a
    /// batch.
    #[inline(always)]
    fn put(&mut self, mut descriptor: Descriptor) {
        let Place { index, wrap } = self.next;
        let turn = if wrap { Descriptor::AVAILABLE } else { Descriptor::USED };
        let flags = descriptor.flags.get() | turn;
        if self.held.is_none() {
            self.held = Some((index, flags));
            // Those of the turn before, with which it is the driver's.
            let stale = if wrap { 0 } else { Descriptor::AVAILABLE | Descriptor::USED };
            descriptor.flags = stale.into();
        } else {
            descriptor.flags = flags.into();
        }
        self.write(index, &descriptor);
        self.next = self.next.after(1, self.entries);
        self.added += 1;
    }

    /// Writes one of the ring's descriptors.
    #[inline(always)]
    fn write(&mut self, at: u16, descriptor: &Descriptor) {
        if let Some(mut block) = self.memory.block(at.into()) {
            block.write::<0, _>(descriptor);
        }
    }

    #[inline(always)]
    fn note(&mut self, id: u16, token: T, count: u16, writable_bytes: u32) {
        let shadow = &mut self.shadow[usize::from(id)];
        shadow.begin(token, count, writable_bytes);
        (self.first_free, self.free) = (shadow.next, self.free - count);
    }

    pub(super) const fn has_new(&self) -> bool {
        self.held.is_some()
    }

    #[inline]
    pub(super) const fn next_entry(&self) -> u16 {
        self.next.event()
    }

    #[inline]
    pub(super) fn publish(&mut self) -> bool {
        let Some((index, flags)) = self.held.take() else { return false };
        let at = Descriptor::BYTES * usize::from(index) + Descriptor::FLAGS;
        let added = core::mem::take(&mut self.added);
        self.words.publish(self.memory.buffer_mut(), (at, flags), self.next, added)
    }

    /// Whether the next used descriptor is there.
    #[inline(always)]
    fn is_used(&self) -> bool {
        let Place { index, wrap } = self.next_used;
        let at = Descriptor::BYTES * usize::from(index) + Descriptor::FLAGS;
        let flags = self.memory.buffer().load_u16(at);
        let both = Descriptor::AVAILABLE | Descriptor::USED;
        flags & both == if wrap { both } else { 0 }
    }

    /// What the next used descriptor says: the buffer ID, perhaps, and the bytes.
    #[inline(always)]
    fn next_descriptor(&self) -> Option<(u16, u32)> {
        let at = usize::from(self.next_used.index);
        let used: UsedDescriptor = self.memory.read::<{ Descriptor::WRITTEN }, _>(at)?;
        Some((used.id.get(), used.bytes.get()))
    }

    /// Takes the oldest request, if the device is done with it.
    #[inline(never)]
    fn take_in_order(&mut self) -> Option<Result<Used<T>, Broken>> {
        if let Some(batch) = self.batch {
            return Some(self.take_oldest(batch));
        }
        if self.free == self.entries || !self.is_used() {
            return None;
        }
        let (last, bytes) = self.next_descriptor()?;
        let Some(shadow) = self.shadow.get(usize::from(last)) else {
            return Some(Err(Broken::Unknown));
        };
        let bytes = written(shadow, bytes);
        // All that are in flight follow each other, so the oldest one leads to it.
        Some(shadow.check(bytes).and_then(|()| self.take_oldest(Batch { last, bytes })))
    }

    fn take_oldest(&mut self, batch: Batch) -> Result<Used<T>, Broken> {
        let id = self.oldest;
        let shadow = &mut self.shadow[usize::from(id)];
        let writable_bytes = shadow.writable_bytes;
        let (token, descriptors) = shadow.end(0)?;
        let is_last = id == batch.last;
        self.batch = if is_last { None } else { Some(batch) };
        (self.oldest, self.free) = (shadow.next, self.free + descriptors);
        self.next_used = self.next_used.after(descriptors, self.entries);
        Ok(Used { token, bytes: if is_last { batch.bytes } else { writable_bytes } })
    }

    #[inline]
    pub(super) fn listen(&mut self) -> bool {
        if self.listening == Some(self.next_used) {
            return false;
        }
        self.listening = Some(self.next_used);
        self.words.listen(self.memory.buffer_mut(), self.next_used);
        self.batch.is_some() || self.free != self.entries && self.is_used()
    }

    pub(super) fn ignore(&mut self) {
        self.listening = None;
        self.words.ignore(self.memory.buffer_mut());
    }
}

impl<T> Ring<T> for PackedQueue<T> {
    #[inline]
    fn free(&self) -> u16 {
        self.free
    }

    #[inline]
    fn next_name(&self) -> u16 {
        self.first_free
    }

    #[inline]
    fn add(
        &mut self,
        token: T,
        count: u16,
        pieces: impl Iterator<Item = Piece>,
    ) -> Result<(), Full<T>> {
        if count == 0 || count > self.free {
            return Err(Full(token));
        }
        let id = self.first_free;
        let (mut left, mut writable_bytes) = (count, 0u32);
        for piece in pieces.take(count.into()) {
            left -= 1;
            let (mut descriptor, writable) = describe(piece, id);
            writable_bytes = writable_bytes.saturating_add(writable);
            if left > 0 {
                descriptor.flags = (descriptor.flags.get() | split::Descriptor::NEXT).into();
            }
            self.put(descriptor);
        }
        debug_assert_eq!(left, 0, "there are as many pieces as was said");
        self.note(id, token, count, writable_bytes);
        Ok(())
    }

    #[inline(always)]
    fn add_short<const N: usize>(&mut self, token: T, pieces: [Piece; N]) -> Result<(), Full<T>> {
        if usize::from(self.free) < N {
            return Err(Full(token));
        }
        let (id, mut writable_bytes) = (self.first_free, 0u32);
        for (place, piece) in pieces.into_iter().enumerate() {
            let (mut descriptor, writable) = describe(piece, id);
            writable_bytes = writable_bytes.saturating_add(writable);
            if place + 1 < N {
                descriptor.flags = (descriptor.flags.get() | split::Descriptor::NEXT).into();
            }
            self.put(descriptor);
        }
        self.note(id, token, N as u16, writable_bytes);
        Ok(())
    }

    #[inline(always)]
    fn add_table(
        &mut self,
        token: T,
        table: DeviceAddress,
        count: u16,
        writable_bytes: u32,
    ) -> Result<(), Full<T>> {
        if self.free == 0 {
            return Err(Full(token));
        }
        let id = self.first_free;
        self.put(Descriptor {
            address: table.bits().into(),
            bytes: (u32::from(count) * Descriptor::BYTES as u32).into(),
            id: id.into(),
            flags: split::Descriptor::INDIRECT.into(),
        });
        self.note(id, token, 1, writable_bytes);
        Ok(())
    }

    #[inline]
    fn write_table(
        memory: &mut DmaBuffer,
        offset: usize,
        pieces: impl Iterator<Item = Piece>,
    ) -> (u16, u32) {
        let (mut count, mut writable_bytes) = (0u16, 0u32);
        pieces.for_each(|piece| {
            let (descriptor, writable) = describe(piece, 0);
            memory.write(offset + Descriptor::BYTES * usize::from(count), &descriptor);
            writable_bytes = writable_bytes.saturating_add(writable);
            count += 1;
        });
        (count, writable_bytes)
    }

    #[inline(always)]
    fn write_short_table<const AT: usize, const N: usize, const BYTES: usize>(
        memory: &mut DmaBlock<'_, BYTES>,
        pieces: [Piece; N],
    ) {
        memory.write::<AT, _>(&table(pieces));
    }

    #[inline(always)]
    fn take(&mut self) -> Option<Result<Used<T>, Broken>> {
        if self.in_order {
            return self.take_in_order();
        }
        // Where nothing is in flight, what is there is the driver's own.
        if self.free == self.entries || !self.is_used() {
            return None;
        }
        let (id, bytes) = self.next_descriptor()?;
        let Some(shadow) = self.shadow.get_mut(usize::from(id)) else {
            return Some(Err(Broken::Unknown));
        };
        let bytes = written(shadow, bytes);
        let (token, descriptors) = match shadow.end(bytes) {
            Ok(ended) => ended,
            Err(why) => return Some(Err(why)),
        };
        shadow.next = self.first_free;
        (self.first_free, self.free) = (id, self.free + descriptors);
        self.next_used = self.next_used.after(descriptors, self.entries);
        Some(Ok(Used { token, bytes }))
    }
}

/// A piece's descriptor, and how many bytes the device may write of it.
#[inline]
fn describe(piece: Piece, id: u16) -> (Descriptor, u32) {
    let bytes = piece.segment.bytes as u32;
    let (flags, writable) = if piece.writable { (split::Descriptor::WRITE, bytes) } else { (0, 0) };
    let descriptor = Descriptor {
        address: piece.segment.address.bits().into(),
        bytes: bytes.into(),
        id: id.into(),
        flags: flags.into(),
    };
    (descriptor, writable)
}

/// A table of descriptors.
#[inline]
fn table<const N: usize>(pieces: [Piece; N]) -> [Descriptor; N] {
    core::array::from_fn(|place| describe(pieces[place], 0).0)
}

/// How many bytes the device has written, of which it says `said`. Where nothing can be written, that
/// field is reserved (§2.8.4); DPDK's back end leaves what the driver has put there.
#[inline]
const fn written<T>(shadow: &Shadow<T>, said: u32) -> u32 {
    if shadow.writable_bytes == 0 { 0 } else { said }
}
