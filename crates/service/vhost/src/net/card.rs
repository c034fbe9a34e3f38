//! A card, and the memory of its frames. Clients come and go; it stays.

use outboard_hw::Instant;
use outboard_hw::dma::{DmaBuffer, DmaError, DmaPool, SgList};
use outboard_net::{
    Completions, Frame, Interface, InterfaceState, MAX_SEGMENTED_BYTES, MacAddress, NetDriver,
    Offloads, Posted, ReceiveMode, Received, RefusedReason, Settings, Tag,
};
use std::collections::VecDeque;
use std::fmt;

/// Bytes of a buffer for frames to come, if the card does not want more.
const RECEIVE_BYTES: usize = 2048;
/// Buffers for frames that the card is to cut into segments, of 64 KiB each: as many as a fast
/// sender has under way.
const LARGE_BUFFERS: usize = 32;
/// The most buffers of a queue, in either direction.
const MOST_BUFFERS: usize = 1024;

/// A card that clients use, one at a time, and the memory of its frames.
pub struct Card {
    driver: Box<dyn NetDriver>,
    /// None before the card was ready.
    pairs: Vec<Pair>,
    /// Memory for frames that are to be cut into segments.
    large: VecDeque<Box<Frame>>,
    large_bytes: usize,
    small_bytes: usize,
    /// Something was queued that the card was not shown.
    is_new: bool,
    no_memory: bool,
    /// Reused between looks.
    done: Completions,
    /// Reused between frames: the one that the card is to send.
    sending: VecDeque<Box<Frame>>,
}

/// A pair of the card's queues.
#[derive(Default)]
struct Pair {
    /// Frames that have come and wait, their pieces one behind the other.
    arrived: VecDeque<Received>,
    /// Buffers that the card is to have.
    spare: VecDeque<Box<Posted>>,
    /// Memory for frames to be sent.
    free: VecDeque<Box<Frame>>,
}

/// What has become of a frame that was to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    /// The card has it.
    Taken,
    /// The card's queue is full.
    Full,
    /// The card does not take such a frame, or none now.
    Refused,
}

impl Card {
    /// Takes a driver over.
    pub fn new(driver: Box<dyn NetDriver>) -> Self {
        Self {
            driver,
            pairs: Vec::new(),
            large: VecDeque::new(),
            large_bytes: 0,
            small_bytes: 0,
            is_new: false,
            no_memory: false,
            done: Completions::new(),
            sending: VecDeque::new(),
        }
    }

    /// The interface, as its driver knows it.
    pub fn interface(&self) -> &Interface {
        self.driver.interface()
    }

    /// Whether the card can be used, or could be and comes back.
    pub fn is_known(&self) -> bool {
        !self.pairs.is_empty()
    }

    /// Whether there was no memory for its frames.
    pub const fn lacks_memory(&self) -> bool {
        self.no_memory
    }

    /// Notes that a vector has fired.
    pub fn interrupt(&mut self, vector: u16) {
        self.driver.interrupt(vector);
    }

    /// Keeps the card from interrupting, or lets it.
    pub fn mask(&mut self, masked: bool) {
        self.driver.mask(masked);
    }

    /// When to poll again, if no interrupt comes before.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.driver.next_deadline()
    }

    /// Lets the driver do whatever is due; whether frames came or went.
    pub fn poll(&mut self, now: Instant) -> bool {
        let Self { driver, pairs, large, large_bytes, done, .. } = self;
        driver.poll(now, done);
        let moved = !done.received.is_empty() || !done.sent.is_empty();
        for received in done.received.drain(..) {
            if let Some(pair) = pairs.get_mut(usize::from(received.queue)) {
                pair.arrived.push_back(received);
            }
        }
        for sent in done.sent.drain(..) {
            if let Some(pair) = pairs.get_mut(usize::from(sent.queue)) {
                put_away(sent.frame, &mut pair.free, (large, *large_bytes));
            }
        }
        for returned in done.returned.drain(..) {
            if let Some(pair) = pairs.get_mut(usize::from(returned.queue)) {
                pair.spare.push_back(returned.posted);
            }
        }
        if self.interface().state == InterfaceState::Ready {
            if self.pairs.is_empty() && !self.no_memory {
                self.no_memory = self.lay_out().is_err();
            }
            self.post();
        }
        moved
    }

    /// Makes the memory of all frames, and lets everything through: whom frames are for, clients
    /// decide.
    fn lay_out(&mut self) -> Result<(), DmaError> {
        let Interface { shape, capabilities, .. } = *self.driver.interface();
        let dma = self.driver.dma();
        let constraints = self.driver.constraints();
        let small = shape.headroom + shape.max_frame_bytes();
        let receive = RECEIVE_BYTES.max(shape.least_buffer_bytes);
        let take = |bytes: usize, count: usize| -> Result<Vec<DmaBuffer>, DmaError> {
            let pool = DmaPool::new(&*dma, bytes, count, &constraints)?;
            (0..count).map(|_| pool.allocate()).collect()
        };
        let mut pairs = Vec::new();
        for _ in 0..shape.queues {
            let depth = |depth: u16| usize::from(depth).clamp(1, MOST_BUFFERS);
            let posted = take(receive, depth(shape.receive_depth))?;
            let named = (0..).map(Tag).zip(posted);
            pairs.push(Pair {
                arrived: VecDeque::new(),
                spare: named.map(|(tag, buffer)| Box::new(Posted { tag, buffer })).collect(),
                free: frames(take(small, depth(shape.transmit_depth))?),
            });
        }
        let segments = Offloads::TCP4 | Offloads::TCP6 | Offloads::UDP | Offloads::UDP_FRAGMENTS;
        let large = shape.headroom + MAX_SEGMENTED_BYTES;
        // By their length, which is their tag, the one kind is told from the other.
        if capabilities.transmit.intersects(segments) && large > small {
            // The card takes no more frames at once.
            let most: usize = pairs.iter().map(|pair: &Pair| pair.free.len()).sum();
            self.large = frames(take(large, LARGE_BUFFERS.min(most))?);
            self.large_bytes = large;
        }
        (self.small_bytes, self.pairs) = (small, pairs);
        let mode = ReceiveMode::PROMISCUOUS & capabilities.receive_modes;
        // One that cannot be asked lets through what it likes.
        let _ = self.driver.configure(&Settings { mode, ..Settings::DEFAULT });
        Ok(())
    }

    fn post(&mut self) {
        for (queue, pair) in (0..).zip(&mut self.pairs) {
            let before = pair.spare.len();
            // What it does not take now is for later.
            let _ = self.driver.post(queue, &mut pair.spare);
            self.is_new |= pair.spare.len() < before;
        }
    }

    /// Shows the card what was queued.
    pub fn kick(&mut self, now: Instant) {
        if self.interface().state == InterfaceState::Ready {
            self.post();
        }
        if std::mem::take(&mut self.is_new) {
            self.driver.kick(now);
        }
    }

    /// Forgets the frames that have come; how many.
    pub fn drop_arrived(&mut self) -> u64 {
        (0..self.pairs.len()).map(|queue| self.drop_arrived_of(queue)).sum()
    }

    pub(super) fn drop_arrived_of(&mut self, queue: usize) -> u64 {
        let pair = &mut self.pairs[queue];
        let mut frames = 0;
        for Received { posted, more, .. } in pair.arrived.drain(..) {
            pair.spare.push_back(posted);
            frames += u64::from(more == 0);
        }
        frames
    }

    /// How many pairs of queues the card has.
    pub(super) const fn queues(&self) -> usize {
        self.pairs.len()
    }

    /// Whether frames wait.
    pub(super) fn has_arrived(&self, queue: usize) -> bool {
        !self.pairs[queue].arrived.is_empty()
    }

    /// The pieces of the frame that waits longest; the others follow them.
    pub(super) fn arrived(&mut self, queue: usize) -> Option<&mut [Received]> {
        let arrived = &mut self.pairs[queue].arrived;
        let count = usize::from(arrived.front()?.more) + 1;
        if count == 1 {
            return arrived.front_mut().map(std::slice::from_mut);
        }
        arrived.make_contiguous().get_mut(..count)
    }

    /// Has done with the frame that waited longest.
    pub(super) fn release(&mut self, queue: usize) {
        let pair = &mut self.pairs[queue];
        while let Some(Received { posted, more, .. }) = pair.arrived.pop_front() {
            pair.spare.push_back(posted);
            if more == 0 {
                break;
            }
        }
    }

    /// Whether there may be memory for another frame.
    pub(super) fn has_room(&self, queue: usize) -> bool {
        !self.pairs[queue].free.is_empty()
    }

    /// Memory for a frame of so many bytes, and where in it the frame begins. `Full` if there is
    /// none now.
    pub(super) fn memory(
        &mut self,
        queue: usize,
        bytes: usize,
    ) -> Result<(Box<Frame>, usize), Sending> {
        let headroom = self.interface().shape.headroom;
        let found = if headroom + bytes <= self.small_bytes {
            self.pairs[queue].free.pop_back()
        } else if headroom + bytes <= self.large_bytes {
            self.large.pop_back()
        } else {
            return Err(Sending::Refused);
        };
        found.map(|frame| (frame, headroom)).ok_or(Sending::Full)
    }

    /// Sends a frame in such memory.
    pub(super) fn send(&mut self, queue: usize, frame: Box<Frame>) -> Sending {
        self.sending.push_back(frame);
        let Err(reason) = self.driver.submit(queue as u16, &mut self.sending) else {
            self.is_new = true;
            return Sending::Taken;
        };
        for frame in self.sending.drain(..) {
            let large = (&mut self.large, self.large_bytes);
            put_away(frame, &mut self.pairs[queue].free, large);
        }
        if reason == RefusedReason::QueueFull { Sending::Full } else { Sending::Refused }
    }

    /// The address that it was made with.
    pub fn mac(&self) -> MacAddress {
        self.interface().permanent_mac
    }

    /// Begins to shut down.
    pub fn stop(&mut self) {
        self.driver.stop();
    }

    /// Whether it is at rest, and reaches no memory any more.
    pub fn is_stopped(&self) -> bool {
        self.driver.is_stopped()
    }

    /// Calls `event` with each event that was recorded since the last call.
    pub fn drain_events(&mut self, event: &mut dyn FnMut(Instant, &dyn fmt::Display)) {
        self.driver.drain_events(event);
    }
}

/// Frames to be sent, in memory that is all theirs.
fn frames(memory: Vec<DmaBuffer>) -> VecDeque<Box<Frame>> {
    let frame = |buffer: DmaBuffer| {
        let bytes = 0..buffer.len();
        Box::new(Frame::plain(Tag(bytes.end as u64), SgList::single(buffer, bytes)))
    };
    memory.into_iter().map(frame).collect()
}

/// Puts a frame where its memory came from, of which its tag tells the bytes.
fn put_away(
    frame: Box<Frame>,
    small: &mut VecDeque<Box<Frame>>,
    (large, large_bytes): (&mut VecDeque<Box<Frame>>, usize),
) {
    if frame.tag == Tag(large_bytes as u64) {
        large.push_back(frame);
    } else {
        small.push_back(frame);
    }
}

impl fmt::Debug for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Card").field("interface", self.interface()).finish_non_exhaustive()
    }
}
