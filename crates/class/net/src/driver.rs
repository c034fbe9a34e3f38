//! The trait that every driver of a network card implements, and the values that pass through it.

use crate::interface::{Interface, InterfaceState};
use crate::offload::{Arrival, Work};
use crate::settings::{Settings, Unsupported};
use alloc::sync::Arc;
use core::fmt;
use core::ops::Range;
use outboard_hw::Instant;
use outboard_hw::dma::{Constraints, DmaBuffer, DmaSpace, SgList};
use thiserror::Error;

/// A driver for one network interface.
///
/// It is a state machine. [`submit`](Self::submit) and [`post`](Self::post) queue,
/// [`kick`](Self::kick) rings the doorbells once for a batch, [`poll`](Self::poll) reaps,
/// [`next_deadline`](Self::next_deadline) says when to come back if no interrupt comes before. No
/// function blocks or reads a clock. Starting, resetting and recovering are states too: they go on
/// in `poll`.
///
/// Queues come in pairs, one for each direction, numbered below
/// [`Shape::queues`](crate::Shape::queues). Frames of one queue stay in order.
///
/// Every submitted frame, and every posted buffer, comes back exactly once. Frames come back within
/// a bounded time; buffers when a frame arrives, or when the driver ends.
pub trait NetDriver: Send {
    /// The interface.
    fn interface(&self) -> &Interface;

    /// Grows whenever anything of [`interface`](Self::interface) has changed. It is asked after each
    /// [`poll`](Self::poll).
    fn changes(&self) -> u64;

    /// What the card asks of the memory of a frame that is sent.
    fn constraints(&self) -> Constraints;

    /// Memory that the card can reach.
    fn dma(&self) -> Arc<dyn DmaSpace>;

    /// What was asked for last.
    fn settings(&self) -> &Settings;

    /// Asks for other settings, as a whole. How far they are carried out is
    /// [`Interface::settings`]. To be asked of an interface that was ready once; before, nobody
    /// knows what it can do.
    fn configure(&mut self, settings: &Settings) -> Result<(), Unsupported>;

    /// Gives the driver a buffer for a frame to come, or gives it back.
    fn post(&mut self, queue: u16, buffer: Posted) -> Result<(), Unposted>;

    /// Queues a frame to be sent, or gives it back.
    fn submit(&mut self, queue: u16, tag: Tag, frame: Frame) -> Result<(), Refused>;

    /// Shows the card what was queued.
    fn kick(&mut self, now: Instant);

    /// Notes that a vector has fired; [`poll`](Self::poll) does the work.
    fn interrupt(&mut self, vector: u16);

    /// Keeps the card from interrupting for frames, or lets it again: for whoever would rather look
    /// than sleep for so short a time. What happened meanwhile is looked at by the first `poll`
    /// after it was let again.
    fn mask(&mut self, _masked: bool) {}

    /// Does whatever is due, and calls `done` for all that comes back. The pieces of a frame come
    /// one directly behind the other.
    fn poll(&mut self, now: Instant, done: &mut dyn FnMut(Completion));

    /// When to poll again if there is no interrupt before; `None` for never.
    fn next_deadline(&self) -> Option<Instant>;

    /// Begins to shut down: the card is brought to rest, and then all memory comes back. Frames
    /// that the card had may be sent or not.
    fn stop(&mut self);

    /// Whether the card is at rest after [`stop`](Self::stop), or was lost, and nothing is left to
    /// come back.
    fn is_stopped(&self) -> bool;

    /// Calls `counter` with the name and the value of each counter.
    fn counters(&self, counter: &mut dyn FnMut(&'static str, u64));

    /// Calls `event` with each event that was recorded since the last call, oldest first.
    fn drain_events(&mut self, event: &mut dyn FnMut(Instant, &dyn fmt::Display));
}

/// The caller's name for a frame or a buffer; comes back with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag(pub u64);

/// A frame to be sent.
#[derive(Debug)]
pub struct Frame {
    /// Its bytes, from the destination's address on, without the check sequence at the end. Where
    /// they lie in one piece, with [`Shape::headroom`](crate::Shape::headroom) bytes before them in
    /// the same buffer, these are the driver's to write, which saves a descriptor.
    pub data: SgList,
    /// What the card is to do to it.
    pub work: Work,
}

impl Frame {
    /// A frame that is sent as it is.
    pub const fn plain(data: SgList) -> Self {
        Self { data, work: Work::NONE }
    }

    /// The frame, refused.
    pub const fn refused(self, reason: RefusedReason) -> Refused {
        Refused { reason, frame: self }
    }
}

/// A buffer for a frame to come, or for a piece of one.
#[derive(Debug)]
pub struct Posted {
    /// The caller's name for it.
    pub tag: Tag,
    /// The memory, at least [`Shape::least_buffer_bytes`](crate::Shape::least_buffer_bytes), which
    /// begin at a multiple of 8.
    pub buffer: DmaBuffer,
}

/// Something that comes back.
#[derive(Debug)]
pub enum Completion {
    /// A frame that has arrived, or a piece of one.
    Received(Received),
    /// A frame that was sent, or not.
    Sent(Sent),
    /// A buffer that was posted, and in which there is nothing.
    Returned {
        /// The queue that it was posted to.
        queue: u16,
        /// The buffer.
        buffer: Posted,
    },
}

/// A frame that has arrived, or a piece of one.
#[derive(Debug)]
pub struct Received {
    /// The queue that it came by.
    pub queue: u16,
    /// The name that the buffer was posted under.
    pub tag: Tag,
    /// The buffer.
    pub buffer: DmaBuffer,
    /// Where in the buffer the frame's bytes are.
    pub bytes: Range<usize>,
    /// How many pieces of the same frame follow.
    pub more: u16,
    /// What is known of the frame as a whole; the same with each of its pieces.
    pub arrival: Arrival,
}

/// A frame that was sent, or not.
#[derive(Debug)]
pub struct Sent {
    /// The queue that it was submitted to.
    pub queue: u16,
    /// The name that it was submitted under.
    pub tag: Tag,
    /// Whether the card has taken it. That it went further, a card does not say.
    pub result: Result<(), NetError>,
    /// Its memory.
    pub data: SgList,
}

/// Why a frame was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum NetError {
    /// The card was reset while it had the frame: it was sent or not.
    #[error("the card was reset while it had the frame")]
    Lost,
}

/// A buffer that was not accepted, with the reason.
#[derive(Debug)]
pub struct Unposted {
    /// Why.
    pub reason: RefusedReason,
    /// The buffer.
    pub buffer: Posted,
}

/// A frame that was not accepted, with the reason.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub reason: RefusedReason,
    /// The frame, unchanged.
    pub frame: Frame,
}

/// Why a frame or a buffer was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RefusedReason {
    /// The queue is full; try again after something has come back.
    #[error("the queue is full")]
    QueueFull,
    /// There is no such queue.
    #[error("there are {queues} queues, numbered from 0 on")]
    NoQueue {
        /// How many there are.
        queues: u16,
    },
    /// The card is not ready.
    #[error("the card is not ready: {0}")]
    NotReady(InterfaceState),
    /// The frame is shorter than an Ethernet header, or longer than the card sends.
    #[error("a frame has from 14 to {most} bytes")]
    BadLength {
        /// The most bytes of such a frame.
        most: usize,
    },
    /// The memory's size, alignment, address or number of pieces does not suit the card.
    #[error("the memory does not suit the card")]
    BadMemory,
    /// What the card is to do to the frame, it does not do, or it makes no sense for the frame.
    #[error("the card cannot do that to the frame")]
    BadWork,
}
