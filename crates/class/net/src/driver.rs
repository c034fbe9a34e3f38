//! The trait that every driver of a network card implements, and the values that pass through it.

use crate::interface::{Interface, InterfaceState};
use crate::offload::{Arrival, Work};
use crate::settings::{Settings, Unsupported};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
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
/// Frames and buffers change hands in bursts and by their address, as a call for each and moving what
/// describes it would cost more than all that is done about it. They are put into boxes once, and
/// used over and over.
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

    /// Gives the driver buffers for frames to come: it takes them out from the front on, until none is
    /// left, or says why it does not take the one that is then the first.
    fn post(
        &mut self,
        queue: u16,
        buffers: &mut VecDeque<Box<Posted>>,
    ) -> Result<(), RefusedReason>;

    /// Queues frames to be sent: it takes them out from the front on, until none is left, or says why
    /// it does not take the one that is then the first.
    fn submit(
        &mut self,
        queue: u16,
        frames: &mut VecDeque<Box<Frame>>,
    ) -> Result<(), RefusedReason>;

    /// Shows the card what was queued.
    fn kick(&mut self, now: Instant);

    /// Notes that a vector has fired; [`poll`](Self::poll) does the work.
    fn interrupt(&mut self, vector: u16);

    /// Keeps the card from interrupting for frames, or lets it again: for whoever would rather look
    /// than sleep for so short a time. What happened meanwhile is looked at by the first `poll`
    /// after it was let again.
    fn mask(&mut self, _masked: bool) {}

    /// Does whatever is due, and appends all that comes back to `done`.
    fn poll(&mut self, now: Instant, done: &mut Completions);

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
    /// The caller's name for it.
    pub tag: Tag,
    /// Its bytes, from the destination's address on, without the check sequence at the end. Where
    /// they lie in one piece, with [`Shape::headroom`](crate::Shape::headroom) bytes before them in
    /// the same buffer, these are the driver's to write, which saves a descriptor.
    pub data: SgList,
    /// What the card is to do to it.
    pub work: Work,
}

impl Frame {
    /// A frame that is sent as it is.
    #[inline]
    pub const fn plain(tag: Tag, data: SgList) -> Self {
        Self { tag, data, work: Work::NONE }
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

/// What comes back. Whoever polls keeps one, and takes out what is in it: its memory is used again.
#[derive(Debug, Default)]
pub struct Completions {
    /// Frames that have arrived, those of a queue in their order; the pieces of one come one directly
    /// behind the other.
    pub received: Vec<Received>,
    /// Frames that were sent, or not.
    pub sent: Vec<Sent>,
    /// Buffers that were posted, and in which there is nothing.
    pub returned: Vec<Returned>,
}

impl Completions {
    /// Nothing.
    pub const fn new() -> Self {
        Self { received: Vec::new(), sent: Vec::new(), returned: Vec::new() }
    }
}

/// A buffer that was posted, and in which there is nothing.
#[derive(Debug)]
pub struct Returned {
    /// The queue that it was posted to.
    pub queue: u16,
    /// The buffer.
    pub posted: Box<Posted>,
}

/// A frame that has arrived, or a piece of one.
#[derive(Debug)]
pub struct Received {
    /// The buffer that it is in.
    pub posted: Box<Posted>,
    /// Where in the buffer the frame's bytes are.
    pub bytes: Range<usize>,
    /// What is known of the frame as a whole; the same with each of its pieces.
    pub arrival: Arrival,
    /// The queue that it came by.
    pub queue: u16,
    /// How many pieces of the same frame follow.
    pub more: u16,
}

/// A frame that was sent, or not.
#[derive(Debug)]
pub struct Sent {
    /// The frame, as it was submitted.
    pub frame: Box<Frame>,
    /// The queue that it was submitted to.
    pub queue: u16,
    /// Whether the card has taken it. That it went further, a card does not say.
    pub result: Result<(), NetError>,
}

/// Why a frame was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum NetError {
    /// The card was reset while it had the frame: it was sent or not.
    #[error("the card was reset while it had the frame")]
    Lost,
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
