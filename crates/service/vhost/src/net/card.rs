//! A card, and the memory of its frames. Clients come and go; it stays.

use super::sender::Sender;
use outboard_hw::Instant;
use outboard_hw::dma::{DmaBuffer, DmaError, DmaPool, SgList};
use outboard_net::{
    Completions, Frame, Interface, InterfaceState, MAX_SEGMENTED_BYTES, MacAddress, NetDriver,
    Offloads, Posted, ReceiveMode, Received, Settings, Tag,
};
use outboard_virtio::spec::net::Header;
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
    /// Bytes of a buffer before a frame that is to be sent: room for what the driver puts there, and
    /// for what clients have there.
    before: usize,
    /// Something was queued that the card was not shown.
    is_new: bool,
    no_memory: bool,
    /// Reused between looks.
    done: Completions,
    /// Reused between bursts: frames that the card is to send.
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

impl Card {
    /// Takes a driver over.
    pub fn new(driver: Box<dyn NetDriver>) -> Self {
        Self {
            driver,
            pairs: Vec::new(),
            large: VecDeque::new(),
            large_bytes: 0,
            small_bytes: 0,
            before: 0,
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
        let before = shape.headroom.max(Header::BYTES);
        let before = before.next_multiple_of(constraints.alignment.max(1) as usize);
        let small = before + shape.max_frame_bytes();
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
        let large = before + MAX_SEGMENTED_BYTES;
        // By their length, which is their tag, the one kind is told from the other.
        if capabilities.transmit.intersects(segments) && large > small {
            // The card takes no more frames at once.
            let most: usize = pairs.iter().map(|pair: &Pair| pair.free.len()).sum();
            self.large = frames(take(large, LARGE_BUFFERS.min(most))?);
            self.large_bytes = large;
        }
        (self.before, self.small_bytes, self.pairs) = (before, small, pairs);
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

    /// The pieces of all frames that wait, those of each one behind the other.
    pub(super) fn arrived(&mut self, queue: usize) -> &mut [Received] {
        self.pairs[queue].arrived.make_contiguous()
    }

    /// Has done with so many pieces of those that waited longest.
    pub(super) fn release(&mut self, queue: usize, pieces: usize) {
        let Pair { arrived, spare, .. } = &mut self.pairs[queue];
        spare.extend(arrived.drain(..pieces).map(|received| received.posted));
    }

    /// Whether there may be memory for another frame.
    pub(super) fn has_room(&self, queue: usize) -> bool {
        self.pairs.get(queue).is_some_and(|pair| !pair.free.is_empty())
    }

    /// What sends frames by one of its queues.
    pub(super) fn sender(&mut self, queue: usize) -> Option<Sender<'_>> {
        let Self { driver, pairs, large, sending, is_new, .. } = self;
        let (before, small_bytes, large_bytes) = (self.before, self.small_bytes, self.large_bytes);
        let Pair { free, .. } = pairs.get_mut(queue)?;
        let (driver, queue) = (&mut **driver, queue as u16);
        let (small, large) = ((free, small_bytes), (large, large_bytes));
        Some(Sender { driver, queue, before, small, large, sending, is_new })
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
pub(super) fn put_away(
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
