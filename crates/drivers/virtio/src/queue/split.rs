//! Rings in the split layout (§2.7).

use super::handshake::Split;
use super::{Areas, Batch, Broken, Full, Piece, Ring, Shadow, Token, Used, all_free};
use crate::spec::features::Features;
use crate::spec::split::{
    AVAILABLE_RING, Descriptor, USED_BYTES, USED_INDEX, USED_RING, UsedElement,
};
use alloc::boxed::Box;
use outboard_hw::dma::{
    Constraints, DeviceAddress, DmaBlock, DmaBlocks, DmaBuffer, DmaError, DmaSpace,
};

/// What the used ring is aligned to where the layout is fixed (§2.7.2), and what keeps what the
/// device writes from what the driver does elsewhere.
const USED_ALIGNMENT: usize = 4096;

/// Legacy devices are told the number of a page, in 32 bits (§4.1.5.1.3.1).
const HIGHEST_ADDRESS: u64 = (1 << 44) - 1;

#[derive(Debug)]
pub(crate) struct SplitQueue<T> {
    /// Descriptors, and the rest of the queue behind them.
    memory: DmaBlocks<{ Descriptor::BYTES }>,
    entries: u16,
    /// Of an index, what says where in a ring it is.
    mask: u16,
    /// Where the rings are; the descriptors are at the start.
    words: Split,
    /// Where the rings' entries begin. They are short, so that no sum of them can overflow.
    available: u32,
    used: u32,
    /// The device keeps to the order, and descriptors are used in the ring's (§2.7.9): those of the
    /// oldest request are behind the free ones.
    in_order: bool,
    /// By descriptor.
    shadow: Box<[Shadow<T>]>,
    /// What each entry of the available ring says.
    offered: Box<[u16]>,
    first_free: u16,
    last_free: u16,
    free: u16,
    /// In order: the first descriptor of the oldest request, and what is done of those behind it.
    oldest: u16,
    batch: Option<Batch>,
    /// Index of the next available entry, and what of them the device was shown.
    next_available: u16,
    published: u16,
    /// Index of the next used entry, and up to where the device was seen to have gone.
    next_used: u16,
    seen_used: u16,
    /// With which index as the next one interrupts were asked for, if they were.
    listening: Option<u16>,
}

impl<T: Token> SplitQueue<T> {
    pub(super) fn new(
        dma: &dyn DmaSpace,
        entries: u16,
        features: Features,
    ) -> Result<Self, DmaError> {
        let count = usize::from(entries);
        let available = Descriptor::BYTES * count;
        let available_bytes = AVAILABLE_RING + 2 * count + 2;
        let used = (available + available_bytes).next_multiple_of(USED_ALIGNMENT);
        let used_bytes = USED_RING + USED_BYTES * count + 2;
        let highest_address = HIGHEST_ADDRESS;
        let constraints = Constraints { highest_address, ..Constraints::NONE };
        let constraints = constraints.aligned(USED_ALIGNMENT as u64);
        let memory = dma.allocate(used + used_bytes, &constraints)?;
        let memory = DmaBlocks::new(memory, Descriptor::BYTES);
        let mut queue = Self {
            memory,
            entries,
            mask: entries - 1,
            available: (available + AVAILABLE_RING) as u32,
            used: (used + USED_RING) as u32,
            words: Split {
                entries,
                event_index: features.contains(Features::EVENT_INDEX),
                available,
                used,
            },
            in_order: features.contains(Features::IN_ORDER),
            shadow: all_free(entries),
            offered: (0..entries).map(|_| 0).collect(),
            first_free: 0,
            last_free: entries - 1,
            free: entries,
            oldest: 0,
            batch: None,
            next_available: 0,
            published: 0,
            next_used: 0,
            seen_used: 0,
            listening: None,
        };
        queue.ignore();
        Ok(queue)
    }

    pub(super) fn areas(&self) -> Areas {
        Areas {
            entries: self.entries,
            descriptors: self.memory.buffer().address(),
            driver: self.memory.buffer().address_of(self.words.available),
            device: self.memory.buffer().address_of(self.words.used),
        }
    }

    pub(super) fn reset(&mut self) {
        let memory = self.memory.buffer_mut();
        memory.fill(0..memory.len(), 0);
        self.shadow = all_free(self.entries);
        self.offered.fill(0);
        (self.first_free, self.last_free, self.free) = (0, self.entries - 1, self.entries);
        (self.oldest, self.batch) = (0, None);
        (self.next_available, self.published) = (0, 0);
        (self.next_used, self.seen_used) = (0, 0);
        self.ignore();
    }

    pub(super) fn shadow_mut(&mut self) -> &mut [Shadow<T>] {
        &mut self.shadow
    }

    pub(super) const fn next_used(&self) -> u16 {
        self.next_used
    }

    /// Writes one of the ring's descriptors.
    #[inline(always)]
    fn write(&mut self, at: u16, descriptor: &Descriptor) {
        if let Some(mut block) = self.memory.block(at.into()) {
            block.write::<0, _>(descriptor);
        }
    }

    /// Writes one of the ring's descriptors, if another one is there: the device's copy of the line
    /// stays good where memory comes again in the same order.
    #[inline(always)]
    fn update(&mut self, at: u16, descriptor: &Descriptor) {
        if let Some(mut block) = self.memory.block(at.into()) {
            block.update::<0, _>(descriptor);
        }
    }

    /// Puts a chain into the available ring, unless it is what was put there in the turn before.
    #[inline(always)]
    fn offer(&mut self, head: u16) {
        let place = usize::from(self.next_available & self.mask);
        self.next_available = self.next_available.wrapping_add(1);
        if T::IN_TURN && core::mem::replace(&mut self.offered[place], head) == head {
            return;
        }
        self.memory.buffer_mut().store_u16(self.available as usize + 2 * place, head);
    }

    pub(super) const fn has_new(&self) -> bool {
        self.published != self.next_available
    }

    #[inline]
    pub(super) const fn next_entry(&self) -> u16 {
        self.next_available
    }

    #[inline]
    pub(super) fn publish(&mut self) -> bool {
        let (old, new) = (self.published, self.next_available);
        if old == new {
            return false;
        }
        self.published = new;
        self.words.publish(self.memory.buffer_mut(), old, new)
    }

    /// Looks how far the device has gone: its index, if it has gone further.
    #[inline(always)]
    fn look(&self) -> Option<Result<u16, Broken>> {
        let seen = self.memory.buffer().load_u16(self.words.used + USED_INDEX);
        if self.next_used == seen {
            return None;
        }
        // How many requests the device was shown and has not given back.
        let requests = self.published.wrapping_sub(self.next_used);
        let more = seen.wrapping_sub(self.next_used) > requests;
        Some(if more { Err(Broken::TooMany) } else { Ok(seen) })
    }

    /// What the next used entry says: the first descriptor, perhaps, and the bytes.
    #[inline(always)]
    fn next_element(&self) -> (u32, u32) {
        let place = usize::from(self.next_used & self.mask);
        let element: UsedElement =
            self.memory.buffer().read(self.used as usize + USED_BYTES * place);
        (element.id.get(), element.bytes.get())
    }

    /// Takes the oldest request, if the device is done with it.
    #[inline(never)]
    fn take_in_order(&mut self) -> Option<Result<Used<T>, Broken>> {
        if let Some(batch) = self.batch {
            return Some(self.take_oldest(batch));
        }
        let seen = match self.look()? {
            Ok(seen) => seen,
            Err(why) => return Some(Err(why)),
        };
        let (last, bytes) = self.next_element();
        let shadow = self.shadow.get(last as usize);
        let checked = shadow.ok_or(Broken::Unknown).and_then(|shadow| shadow.check(bytes));
        Some(checked.and_then(|()| self.take_up_to(last as u16, bytes, seen)))
    }

    /// Takes the oldest of all requests up to the one that begins at `last`, if the used index,
    /// `seen`, has come that far.
    fn take_up_to(&mut self, last: u16, bytes: u32, seen: u16) -> Result<Used<T>, Broken> {
        let (mut head, mut left) = (self.oldest, seen.wrapping_sub(self.next_used));
        while head != last {
            left -= 1;
            if left == 0 {
                return Err(Broken::OutOfOrder);
            }
            head = self.behind(head);
        }
        self.take_oldest(Batch { last, bytes })
    }

    /// The first descriptor behind those of the request that begins at `head`, in order.
    fn behind(&self, head: u16) -> u16 {
        let count = self.shadow[usize::from(head)].descriptors;
        head.wrapping_add(count) & self.mask
    }

    fn take_oldest(&mut self, batch: Batch) -> Result<Used<T>, Broken> {
        let (head, behind) = (self.oldest, self.behind(self.oldest));
        let shadow = &mut self.shadow[usize::from(head)];
        let writable_bytes = shadow.writable_bytes;
        let (token, descriptors) = shadow.end(0)?;
        let is_last = head == batch.last;
        self.batch = if is_last { None } else { Some(batch) };
        (self.oldest, self.free) = (behind, self.free + descriptors);
        self.next_used = self.next_used.wrapping_add(1);
        self.seen_used = self.next_used;
        Ok(Used { token, bytes: if is_last { batch.bytes } else { writable_bytes } })
    }

    /// Puts a chain before the free descriptors, or behind them.
    #[inline(always)]
    fn give_back(&mut self, head: u16, count: u16) {
        let last = if count == 1 { head } else { self.last_of(head, count) };
        if !T::IN_TURN {
            self.shadow[usize::from(last)].next = self.first_free;
            self.first_free = head;
        } else if self.free == 0 {
            (self.first_free, self.last_free) = (head, last);
        } else {
            self.shadow[usize::from(self.last_free)].next = head;
            self.last_free = last;
        }
        self.free += count;
    }

    /// The last descriptor of a chain.
    fn last_of(&self, head: u16, count: u16) -> u16 {
        (1..count).fold(head, |at, _| self.shadow[usize::from(at)].next)
    }

    #[inline]
    pub(super) fn listen(&mut self) -> bool {
        if self.listening == Some(self.next_used) {
            return false;
        }
        self.listening = Some(self.next_used);
        self.words.listen(self.memory.buffer_mut(), self.next_used)
    }

    pub(super) fn ignore(&mut self) {
        self.listening = None;
        self.words.ignore(self.memory.buffer_mut(), self.next_used);
    }
}

impl<T: Token> Ring<T> for SplitQueue<T> {
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
        let head = self.first_free;
        let (mut at, mut left, mut writable_bytes) = (head, count, 0u32);
        for piece in pieces.take(count.into()) {
            left -= 1;
            let next = self.shadow[usize::from(at)].next;
            let (descriptor, writable) = describe(piece, (left > 0).then_some(next));
            writable_bytes = writable_bytes.saturating_add(writable);
            self.write(at, &descriptor);
            at = next;
        }
        debug_assert_eq!(left, 0, "there are as many pieces as was said");
        self.shadow[usize::from(head)].begin(token, count, writable_bytes);
        (self.first_free, self.free) = (at, self.free - count);
        self.offer(head);
        Ok(())
    }

    #[inline(always)]
    fn add_short<const N: usize>(&mut self, token: T, pieces: [Piece; N]) -> Result<(), Full<T>> {
        if usize::from(self.free) < N {
            return Err(Full(token));
        }
        let head = self.first_free;
        let (mut at, mut writable_bytes) = (head, 0u32);
        for (place, piece) in pieces.into_iter().enumerate() {
            let next = self.shadow[usize::from(at)].next;
            let (descriptor, writable) = describe(piece, (place + 1 < N).then_some(next));
            writable_bytes = writable_bytes.saturating_add(writable);
            if N == 1 {
                self.update(at, &descriptor);
            } else {
                self.write(at, &descriptor);
            }
            at = next;
        }
        self.shadow[usize::from(head)].begin(token, N as u16, writable_bytes);
        (self.first_free, self.free) = (at, self.free - N as u16);
        self.offer(head);
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
        let head = self.first_free;
        let descriptor = Descriptor {
            address: table.bits().into(),
            bytes: (u32::from(count) * Descriptor::BYTES as u32).into(),
            flags: Descriptor::INDIRECT.into(),
            next: 0.into(),
        };
        self.write(head, &descriptor);
        let shadow = &mut self.shadow[usize::from(head)];
        shadow.begin(token, 1, writable_bytes);
        (self.first_free, self.free) = (shadow.next, self.free - 1);
        self.offer(head);
        Ok(())
    }

    #[inline]
    fn write_table(
        memory: &mut DmaBuffer,
        offset: usize,
        pieces: impl Iterator<Item = Piece>,
    ) -> (u16, u32) {
        let (mut count, mut writable_bytes) = (0u16, 0u32);
        // Each is written once it is known whether another one follows.
        let mut last = None;
        let mut write = |descriptor: Descriptor, count| {
            memory.write(offset + Descriptor::BYTES * usize::from(count), &descriptor);
        };
        pieces.for_each(|piece| {
            let (descriptor, writable) = describe(piece, None);
            if let Some(before) = last.replace(descriptor) {
                write(chained(before, count), count - 1);
            }
            writable_bytes = writable_bytes.saturating_add(writable);
            count += 1;
        });
        if let Some(last) = last {
            write(last, count - 1);
        }
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
        if self.next_used == self.seen_used {
            // In order this is always so.
            if self.in_order {
                return self.take_in_order();
            }
            self.seen_used = match self.look()? {
                Ok(seen) => seen,
                Err(why) => return Some(Err(why)),
            };
        }
        let (head, bytes) = self.next_element();
        let Some(shadow) = self.shadow.get_mut(head as usize) else {
            return Some(Err(Broken::Unknown));
        };
        let (token, descriptors) = match shadow.end(bytes) {
            Ok(ended) => ended,
            Err(why) => return Some(Err(why)),
        };
        if !T::IN_TURN && descriptors == 1 {
            // As most are: its descriptor was looked up already.
            shadow.next = self.first_free;
            (self.first_free, self.free) = (head as u16, self.free + 1);
        } else {
            self.give_back(head as u16, descriptors);
        }
        self.next_used = self.next_used.wrapping_add(1);
        Some(Ok(Used { token, bytes }))
    }
}

/// A piece's descriptor, and how many bytes the device may write of it.
#[inline]
fn describe(piece: Piece, next: Option<u16>) -> (Descriptor, u32) {
    let bytes = piece.segment.bytes as u32;
    let (write, writable) = if piece.writable { (Descriptor::WRITE, bytes) } else { (0, 0) };
    let chained = if next.is_some() { Descriptor::NEXT } else { 0 };
    let descriptor = Descriptor {
        address: piece.segment.address.bits().into(),
        bytes: bytes.into(),
        flags: (write | chained).into(),
        next: next.unwrap_or(0).into(),
    };
    (descriptor, writable)
}

/// A table of descriptors.
#[inline]
fn table<const N: usize>(pieces: [Piece; N]) -> [Descriptor; N] {
    core::array::from_fn(|place| {
        let next = place + 1;
        describe(pieces[place], (next < N).then_some(next as u16)).0
    })
}

/// A descriptor that leads to another one.
#[inline]
fn chained(descriptor: Descriptor, next: u16) -> Descriptor {
    let flags = descriptor.flags.get() | Descriptor::NEXT;
    Descriptor { flags: flags.into(), next: next.into(), ..descriptor }
}
