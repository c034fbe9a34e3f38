//! A card, and the memory of its frames. Clients come and go; it stays.

use outboard_hw::Instant;
use outboard_hw::dma::{DmaBuffer, DmaError, DmaPool, SgList};
use outboard_net::{
    Completion, Frame, Interface, InterfaceState, MAX_SEGMENTED_BYTES, MacAddress, NetDriver,
    Offloads, Posted, ReceiveMode, Received, Refused, RefusedReason, Settings, Tag, Work,
};
use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;

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
    large: Vec<DmaBuffer>,
    large_bytes: usize,
    small_bytes: usize,
    /// Something was queued that the card was not shown.
    is_new: bool,
    no_memory: bool,
}

/// A pair of the card's queues.
#[derive(Default)]
struct Pair {
    /// Frames that have come and wait, their pieces one behind the other.
    arrived: VecDeque<Received>,
    /// Buffers that the card is to have.
    spare: Vec<Posted>,
    /// Memory for frames to be sent.
    free: Vec<DmaBuffer>,
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
    pub const fn new(driver: Box<dyn NetDriver>) -> Self {
        Self {
            driver,
            pairs: Vec::new(),
            large: Vec::new(),
            large_bytes: 0,
            small_bytes: 0,
            is_new: false,
            no_memory: false,
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
        let Self { driver, pairs, large, large_bytes, .. } = self;
        let mut moved = false;
        driver.poll(now, &mut |completion| match completion {
            Completion::Received(received) => {
                moved = true;
                if let Some(pair) = pairs.get_mut(usize::from(received.queue)) {
                    pair.arrived.push_back(received);
                }
            }
            Completion::Sent(sent) => {
                moved = true;
                let Some(pair) = pairs.get_mut(usize::from(sent.queue)) else { return };
                for buffer in sent.data.into_buffers() {
                    if buffer.len() == *large_bytes {
                        large.push(buffer);
                    } else {
                        pair.free.push(buffer);
                    }
                }
            }
            Completion::Returned { queue, buffer } => {
                if let Some(pair) = pairs.get_mut(usize::from(queue)) {
                    pair.spare.push(buffer);
                }
            }
        });
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
                spare: named.map(|(tag, buffer)| Posted { tag, buffer }).collect(),
                free: take(small, depth(shape.transmit_depth))?,
            });
        }
        let segments = Offloads::TCP4 | Offloads::TCP6 | Offloads::UDP | Offloads::UDP_FRAGMENTS;
        let large = shape.headroom + MAX_SEGMENTED_BYTES;
        // By their length the one kind is told from the other.
        if capabilities.transmit.intersects(segments) && large > small {
            self.large = take(large, LARGE_BUFFERS)?;
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
            while let Some(buffer) = pair.spare.pop() {
                match self.driver.post(queue, buffer) {
                    Ok(()) => self.is_new = true,
                    Err(unposted) => {
                        pair.spare.push(unposted.buffer);
                        break;
                    }
                }
            }
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
        for Received { tag, buffer, more, .. } in pair.arrived.drain(..) {
            pair.spare.push(Posted { tag, buffer });
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
        while let Some(Received { tag, buffer, more, .. }) = pair.arrived.pop_front() {
            pair.spare.push(Posted { tag, buffer });
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
    ) -> Result<(DmaBuffer, usize), Sending> {
        let headroom = self.interface().shape.headroom;
        let found = if headroom + bytes <= self.small_bytes {
            self.pairs[queue].free.pop()
        } else if headroom + bytes <= self.large_bytes {
            self.large.pop()
        } else {
            return Err(Sending::Refused);
        };
        found.map(|buffer| (buffer, headroom)).ok_or(Sending::Full)
    }

    /// Sends a frame in such memory.
    pub(super) fn send(
        &mut self,
        queue: usize,
        buffer: DmaBuffer,
        range: Range<usize>,
        work: Work,
    ) -> Sending {
        let frame = Frame { data: SgList::single(buffer, range), work };
        let Err(Refused { reason, frame }) = self.driver.submit(queue as u16, Tag(0), frame) else {
            self.is_new = true;
            return Sending::Taken;
        };
        for buffer in frame.data.into_buffers() {
            if buffer.len() == self.large_bytes {
                self.large.push(buffer);
            } else {
                self.pairs[queue].free.push(buffer);
            }
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

impl fmt::Debug for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Card").field("interface", self.interface()).finish_non_exhaustive()
    }
}
