//! Virtqueues: rings of descriptors in memory that driver and device share (§2.6).
//!
//! What the driver has written is kept a second time in memory of its own: nothing that it relies
//! upon is ever read back from memory that the device may write. What the device says is checked
//! against that copy.

pub mod handshake;
mod packed;
mod split;

use crate::spec::features::Features;
use alloc::boxed::Box;
use outboard_hw::dma::{DeviceAddress, DmaBlock, DmaBuffer, DmaError, DmaSpace, Segment};
use packed::PackedQueue;
use split::SplitQueue;
use thiserror::Error;

/// A piece of a request's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where it is. Its bytes fit into 32 bits.
    pub segment: Segment,
    /// Whether the device writes it; else it reads it. Those that it reads come first (§2.7.4.2).
    pub writable: bool,
}

/// A request that the device has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used<T = u16> {
    /// What it was added with.
    pub token: T,
    /// Bytes that the device says it has written; no more than it could.
    pub bytes: u32,
}

/// What a request is added with.
pub trait Token {
    /// Whether descriptors that have become free are used after all others, and not before them. Where
    /// requests take one each and end in their order, the rings then say the same in each turn, what is
    /// there already is not written again, and the device finds it in its caches.
    const IN_TURN: bool;
}

/// A name. Requests that are known by names need not end in their order.
impl Token for u16 {
    const IN_TURN: bool = false;
}

/// There are fewer free descriptors than a request needs, with which it would have been added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the queue is full")]
pub struct Full<T = u16>(pub T);

/// The device has said something of a queue that cannot be. Only a reset helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum Broken {
    /// More requests done than there are.
    #[error("the device says that more requests are done than there are")]
    TooMany,
    /// A request done that was not there, or once more.
    #[error("the device says that a request is done which it does not have")]
    Unknown,
    /// A request done before others that it had got earlier, although it has promised an order.
    #[error("the device says that a request is done before those that come first")]
    OutOfOrder,
    /// More bytes written than there were.
    #[error("the device says that it has written more bytes than it was given")]
    TooLong,
}

/// Where a queue's parts are, for the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Areas {
    /// How many entries it has.
    pub entries: u16,
    /// The descriptors.
    pub descriptors: DeviceAddress,
    /// What the driver tells: the available ring, or its event suppression.
    pub driver: DeviceAddress,
    /// What the device tells: the used ring, or its event suppression.
    pub device: DeviceAddress,
}

/// What is kept of a descriptor (split) or of a buffer ID (packed), out of the device's reach.
#[derive(Debug)]
struct Shadow<T> {
    /// Of the request that begins with it: what it was added with.
    token: Option<T>,
    /// Bytes that the device may write of it.
    writable_bytes: u32,
    /// Its descriptors in the ring.
    descriptors: u16,
    /// Which one comes behind, in a chain or among the free ones.
    next: u16,
}

/// A used entry that stands for all requests up to the one that it names (§2.7.9, §2.8.9), as far
/// as they were not taken yet.
#[derive(Debug, Clone, Copy)]
struct Batch {
    /// The request that it names.
    last: u16,
    /// What it says of that one. Those before it count as used completely.
    bytes: u32,
}

impl<T> Shadow<T> {
    /// One that is free.
    const fn free(next: u16) -> Self {
        Self { token: None, writable_bytes: 0, descriptors: 0, next }
    }

    /// Notes the request that begins here.
    #[inline(always)]
    fn begin(&mut self, token: T, descriptors: u16, writable_bytes: u32) {
        // The one before was taken out when it ended: nothing of it is left to be freed.
        core::mem::forget(self.token.replace(token));
        self.descriptors = descriptors;
        self.writable_bytes = writable_bytes;
    }

    /// Checks what the device says of the request that begins here.
    #[inline]
    const fn check(&self, bytes: u32) -> Result<(), Broken> {
        if self.token.is_none() {
            return Err(Broken::Unknown);
        }
        if bytes > self.writable_bytes {
            return Err(Broken::TooLong);
        }
        Ok(())
    }

    /// Forgets the request that begins here, of which the device says that it has written so many bytes:
    /// what it was added with, and its descriptors.
    #[inline(always)]
    fn end(&mut self, bytes: u32) -> Result<(T, u16), Broken> {
        self.check(bytes)?;
        let token = self.token.take().ok_or(Broken::Unknown)?;
        Ok((token, self.descriptors))
    }
}

/// A virtqueue in either layout, from the driver's side.
///
/// [`add`](Self::add) writes descriptors, [`publish`](Self::publish) shows the device all that were
/// added, [`take`](Self::take) gives back what it has done. Each request is added with something of the
/// driver's, such as a name or its memory, which the queue has until the request ends.
#[derive(Debug)]
pub struct Queue<T = u16>(Layout<T>);

/// A queue in the layout that it has.
#[derive(Debug)]
pub(crate) enum Layout<T> {
    Split(SplitQueue<T>),
    Packed(PackedQueue<T>),
}

/// What is done to a queue over and over, whose layout is then asked for only once: see the
/// functions of [`Queue`] that have these names.
pub(crate) trait Ring<T> {
    fn free(&self) -> u16;

    fn next_name(&self) -> u16;

    fn add(
        &mut self,
        token: T,
        count: u16,
        pieces: impl Iterator<Item = Piece>,
    ) -> Result<(), Full<T>>;

    /// [`add`](Self::add) for pieces that are few and there already.
    fn add_short<const N: usize>(&mut self, token: T, pieces: [Piece; N]) -> Result<(), Full<T>>;

    fn add_table(
        &mut self,
        token: T,
        table: DeviceAddress,
        count: u16,
        writable_bytes: u32,
    ) -> Result<(), Full<T>>;

    fn write_table(
        memory: &mut DmaBuffer,
        offset: usize,
        pieces: impl Iterator<Item = Piece>,
    ) -> (u16, u32);

    /// Writes a table of `N` descriptors to `AT`, for [`add_table`](Self::add_table).
    fn write_short_table<const AT: usize, const N: usize, const BYTES: usize>(
        memory: &mut DmaBlock<'_, BYTES>,
        pieces: [Piece; N],
    );

    fn take(&mut self) -> Option<Result<Used<T>, Broken>>;
}

/// Calls a function of whichever layout it is.
macro_rules! either {
    ($queue:expr, $name:ident($($argument:expr),*)) => {
        match $queue {
            Layout::Split(queue) => queue.$name($($argument),*),
            Layout::Packed(queue) => queue.$name($($argument),*),
        }
    };
}

impl<T: Token> Queue<T> {
    /// A queue of `entries`, a power of two, laid out as `features` say.
    pub fn new(dma: &dyn DmaSpace, entries: u16, features: Features) -> Result<Self, DmaError> {
        Ok(Self(if features.contains(Features::PACKED) {
            Layout::Packed(PackedQueue::new(dma, entries, features)?)
        } else {
            Layout::Split(SplitQueue::new(dma, entries, features)?)
        }))
    }

    /// [`add`](Self::add) for pieces that are few and there already.
    #[inline]
    pub(crate) fn add_short<const N: usize>(
        &mut self,
        token: T,
        pieces: [Piece; N],
    ) -> Result<(), Full<T>> {
        either!(&mut self.0, add_short(token, pieces))
    }

    /// The same queue, to whoever does the same over and over.
    pub(crate) const fn layout(&mut self) -> &mut Layout<T> {
        &mut self.0
    }

    /// Where its parts are.
    pub fn areas(&self) -> Areas {
        either!(&self.0, areas())
    }

    /// From where on a device that has lost its own state goes on, if it knows otherwise what is in
    /// flight: in either half, the next entry that it uses. That is how vhost-user has it
    /// (`SET_VRING_BASE`); of the split layout there is but the lower half.
    pub const fn resume_at(&self) -> u32 {
        match &self.0 {
            Layout::Split(queue) => queue.next_used() as u32,
            Layout::Packed(queue) => (queue.next_used() as u32) << 16 | queue.next_used() as u32,
        }
    }

    /// Forgets all requests. The device must have been reset.
    pub fn reset(&mut self) {
        either!(&mut self.0, reset());
    }

    /// Gives back what requests were added with that the device has, which must have been reset. The
    /// queue is [`reset`](Self::reset) before it is used again.
    pub(crate) fn take_back(&mut self) -> impl Iterator<Item = T> {
        let shadow = match &mut self.0 {
            Layout::Split(queue) => queue.shadow_mut(),
            Layout::Packed(queue) => queue.shadow_mut(),
        };
        shadow.iter_mut().filter_map(|shadow| shadow.token.take())
    }

    /// Free descriptors.
    #[inline]
    pub fn free(&self) -> u16 {
        either!(&self.0, free())
    }

    /// The descriptor, or the buffer ID, that the next request begins with: a number below that of the
    /// entries which no request has now, unless the queue is full. Memory that a request needs beside
    /// its own is found by it.
    #[inline]
    pub(crate) fn next_name(&self) -> u16 {
        either!(&self.0, next_name())
    }

    /// Adds a request of `count` pieces, at least one, each with its own descriptor.
    #[inline]
    pub fn add(
        &mut self,
        token: T,
        count: u16,
        pieces: impl Iterator<Item = Piece>,
    ) -> Result<(), Full<T>> {
        either!(&mut self.0, add(token, count, pieces))
    }

    /// Adds a request whose `count` pieces are in a table at `table`, that
    /// [`write_table`](Self::write_table) has written, of which the device may write so many bytes.
    #[inline]
    pub fn add_table(
        &mut self,
        token: T,
        table: DeviceAddress,
        count: u16,
        writable_bytes: u32,
    ) -> Result<(), Full<T>> {
        either!(&mut self.0, add_table(token, table, count, writable_bytes))
    }

    /// Writes a table of descriptors (§2.7.5.3, §2.8.7): how many, and how many bytes of theirs the
    /// device may write.
    #[inline]
    pub fn write_table(
        &self,
        memory: &mut DmaBuffer,
        offset: usize,
        pieces: impl Iterator<Item = Piece>,
    ) -> (u16, u32) {
        match &self.0 {
            Layout::Split(_) => SplitQueue::<T>::write_table(memory, offset, pieces),
            Layout::Packed(_) => PackedQueue::<T>::write_table(memory, offset, pieces),
        }
    }

    /// Whether something was added that the device was not shown.
    #[inline]
    pub const fn has_new(&self) -> bool {
        match &self.0 {
            Layout::Split(queue) => queue.has_new(),
            Layout::Packed(queue) => queue.has_new(),
        }
    }

    /// Shows the device what was added; whether it wants to be notified.
    #[inline]
    pub fn publish(&mut self) -> bool {
        either!(&mut self.0, publish())
    }

    /// Where the next entry will be, as notifications say it (`VIRTIO_F_NOTIFICATION_DATA`, §2.9):
    /// `next_off`, with `next_wrap` as bit 15.
    #[inline]
    pub const fn next_entry(&self) -> u16 {
        match &self.0 {
            Layout::Split(queue) => queue.next_entry(),
            Layout::Packed(queue) => queue.next_entry(),
        }
    }

    /// The next request that the device has done.
    #[inline]
    pub fn take(&mut self) -> Option<Result<Used<T>, Broken>> {
        either!(&mut self.0, take())
    }

    /// Asks for an interrupt when the next request is done; whether one is done already.
    #[inline]
    pub fn listen(&mut self) -> bool {
        either!(&mut self.0, listen())
    }

    /// Asks for no interrupts.
    pub fn ignore(&mut self) {
        either!(&mut self.0, ignore());
    }
}

/// No requests, with all free, each leading to the next, and the last one to the first.
fn all_free<T>(entries: u16) -> Box<[Shadow<T>]> {
    (1..entries).chain([0]).map(Shadow::free).collect()
}
