//! Rings in the split layout (§2.7).

use super::handshake::Split;
use super::{Areas, Batch, Broken, Full, InFlight, Piece, Used, free_list};
use crate::spec::features::Features;
use crate::spec::split::{
    AVAILABLE_RING, Descriptor, USED_BYTES, USED_INDEX, USED_RING, UsedElement,
};
use alloc::boxed::Box;
use alloc::vec;
use outboard_hw::dma::{Constraints, DeviceAddress, DmaBuffer, DmaError, DmaSpace};

/// What the used ring is aligned to where the layout is fixed (§2.7.2), and what keeps what the
/// device writes from what the driver does elsewhere.
const USED_ALIGNMENT: usize = 4096;

/// Legacy devices are told the number of a page, in 32 bits (§4.1.5.1.3.1).
const HIGHEST_ADDRESS: u64 = (1 << 44) - 1;

#[derive(Debug)]
pub(super) struct SplitQueue {
    memory: DmaBuffer,
    entries: u16,
    /// Where the rings are; the descriptors are at the start.
    words: Split,
    /// The device keeps to the order, and descriptors are used in the ring's (§2.7.9): those of the
    /// oldest request are behind the free ones.
    in_order: bool,
    /// Which descriptor comes after each, in a chain or among the free ones.
    links: Box<[u16]>,
    /// By first descriptor.
    in_flight: Box<[InFlight]>,
    first_free: u16,
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

impl SplitQueue {
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
        let mut queue = Self {
            memory,
            entries,
            words: Split {
                entries,
                event_index: features.contains(Features::EVENT_INDEX),
                available,
                used,
            },
            in_order: features.contains(Features::IN_ORDER),
            links: free_list(entries),
            in_flight: vec![InFlight::default(); count].into(),
            first_free: 0,
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
            descriptors: self.memory.address(),
            driver: self.memory.address_of(self.words.available),
            device: self.memory.address_of(self.words.used),
        }
    }

    pub(super) fn reset(&mut self) {
        let len = self.memory.len();
        self.memory.fill(0..len, 0);
        self.links = free_list(self.entries);
        self.in_flight.fill(InFlight::default());
        (self.first_free, self.free) = (0, self.entries);
        (self.oldest, self.batch) = (0, None);
        (self.next_available, self.published) = (0, 0);
        (self.next_used, self.seen_used) = (0, 0);
        self.ignore();
    }

    pub(super) const fn next_used(&self) -> u16 {
        self.next_used
    }

    pub(super) const fn free(&self) -> u16 {
        self.free
    }

    #[inline]
    pub(super) fn add(
        &mut self,
        token: u16,
        count: u16,
        pieces: impl Iterator<Item = Piece>,
    ) -> Result<(), Full> {
        if count == 0 || count > self.free {
            return Err(Full);
        }
        let head = self.first_free;
        let (mut at, mut left, mut writable_bytes) = (head, count, 0u32);
        for piece in pieces.take(count.into()) {
            left -= 1;
            let next = self.links[usize::from(at)];
            let (descriptor, writable) = describe(piece, (left > 0).then_some(next));
            writable_bytes = writable_bytes.saturating_add(writable);
            self.memory.write(Descriptor::BYTES * usize::from(at), &descriptor);
            at = next;
        }
        debug_assert_eq!(left, 0, "there are as many pieces as was said");
        self.take_free(at, count);
        self.offer(head, InFlight { token, descriptors: count, writable_bytes });
        Ok(())
    }

    #[inline]
    pub(super) fn add_table(
        &mut self,
        token: u16,
        table: DeviceAddress,
        count: u16,
        writable_bytes: u32,
    ) -> Result<(), Full> {
        if self.free == 0 {
            return Err(Full);
        }
        let head = self.first_free;
        let descriptor = Descriptor {
            address: table.bits().into(),
            bytes: (u32::from(count) * Descriptor::BYTES as u32).into(),
            flags: Descriptor::INDIRECT.into(),
            next: 0.into(),
        };
        self.memory.write(Descriptor::BYTES * usize::from(head), &descriptor);
        self.take_free(self.links[usize::from(head)], 1);
        self.offer(head, InFlight { token, descriptors: 1, writable_bytes });
        Ok(())
    }

    #[inline]
    const fn take_free(&mut self, next: u16, count: u16) {
        self.first_free = next;
        self.free -= count;
    }

    /// Puts a chain into the available ring.
    #[inline]
    fn offer(&mut self, head: u16, request: InFlight) {
        self.in_flight[usize::from(head)] = request;
        let place = usize::from(self.next_available & (self.entries - 1));
        self.memory.store_u16(self.words.available + AVAILABLE_RING + 2 * place, head);
        self.next_available = self.next_available.wrapping_add(1);
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
        self.words.publish(&mut self.memory, old, new)
    }

    #[inline]
    pub(super) fn take(&mut self) -> Option<Result<Used, Broken>> {
        if let Some(batch) = self.batch {
            return Some(Ok(self.take_oldest(batch)));
        }
        if self.next_used == self.seen_used {
            self.seen_used = self.memory.load_u16(self.words.used + USED_INDEX);
            if self.next_used == self.seen_used {
                return None;
            }
            if self.seen_used.wrapping_sub(self.next_used) > self.requests() {
                return Some(Err(Broken::TooMany));
            }
        }
        let place = usize::from(self.next_used & (self.entries - 1));
        let element: UsedElement =
            self.memory.read(self.words.used + USED_RING + USED_BYTES * place);
        let request = u16::try_from(element.id.get()).ok();
        let request =
            request.and_then(|head| Some((head, *self.in_flight.get(usize::from(head))?)));
        let Some((head, request)) = request else { return Some(Err(Broken::Unknown)) };
        let checked = request.check(element.bytes.get());
        if let (true, Ok(used)) = (self.in_order, checked) {
            return Some(self.take_in_order(head, used.bytes));
        }
        if checked.is_ok() {
            self.next_used = self.next_used.wrapping_add(1);
            self.give_back(head, request.descriptors);
        }
        Some(checked)
    }

    /// How many requests the device was shown and has not given back.
    const fn requests(&self) -> u16 {
        self.published.wrapping_sub(self.next_used)
    }

    /// Takes the oldest of all requests up to the one that begins at `last`, if the used index has
    /// come that far.
    fn take_in_order(&mut self, last: u16, bytes: u32) -> Result<Used, Broken> {
        let (mut head, mut left) = (self.oldest, self.seen_used.wrapping_sub(self.next_used));
        while head != last {
            left -= 1;
            if left == 0 {
                return Err(Broken::OutOfOrder);
            }
            head = self.behind(head);
        }
        Ok(self.take_oldest(Batch { last, bytes }))
    }

    /// The first descriptor behind those of the request that begins at `head`, in order.
    fn behind(&self, head: u16) -> u16 {
        let count = self.in_flight[usize::from(head)].descriptors;
        head.wrapping_add(count) & (self.entries - 1)
    }

    fn take_oldest(&mut self, batch: Batch) -> Used {
        let (head, behind) = (self.oldest, self.behind(self.oldest));
        let request = &mut self.in_flight[usize::from(head)];
        let InFlight { token, descriptors, writable_bytes } = core::mem::take(request);
        let is_last = head == batch.last;
        self.batch = if is_last { None } else { Some(batch) };
        (self.oldest, self.free) = (behind, self.free + descriptors);
        self.next_used = self.next_used.wrapping_add(1);
        Used { token, bytes: if is_last { batch.bytes } else { writable_bytes } }
    }

    #[inline]
    fn give_back(&mut self, head: u16, count: u16) {
        self.in_flight[usize::from(head)].descriptors = 0;
        let mut last = head;
        for _ in 1..count {
            last = self.links[usize::from(last)];
        }
        self.links[usize::from(last)] = self.first_free;
        self.first_free = head;
        self.free += count;
    }

    #[inline]
    pub(super) fn listen(&mut self) -> bool {
        if self.listening == Some(self.next_used) {
            return false;
        }
        self.listening = Some(self.next_used);
        self.words.listen(&mut self.memory, self.next_used)
    }

    pub(super) fn ignore(&mut self) {
        self.listening = None;
        self.words.ignore(&mut self.memory, self.next_used);
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

#[inline]
pub(super) fn write_table(
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

/// A descriptor that leads to another one.
#[inline]
fn chained(descriptor: Descriptor, next: u16) -> Descriptor {
    let flags = descriptor.flags.get() | Descriptor::NEXT;
    Descriptor { flags: flags.into(), next: next.into(), ..descriptor }
}
