//! A network card made of memory, with a mirror at the end of its wire.

use outboard_hw::Instant;
use outboard_hw::dma::{Arena, Constraints, DmaSpace};
use outboard_net::{
    Arrival, Capabilities, Completions, Frame, Interface, InterfaceState, Link, MacAddress,
    NetDriver, Posted, Received, RefusedReason, Returned, Sent, Settings, SettingsState, Shape,
    Unsupported, Work,
};
use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::{Arc, Mutex};

/// Bytes before a frame that has come, as a card over virtio leaves them.
const BEFORE: usize = 12;
/// Frames and buffers that each queue takes, if that is not said.
const DEPTH: u16 = 64;

/// What the driver and the test share.
#[derive(Default)]
pub(crate) struct Shared {
    /// Frames that were sent, with their queue and what was to be done to them.
    pub(crate) sent: Vec<(u16, Vec<u8>, Work)>,
    /// Frames that are to come, by their queue.
    pub(crate) coming: VecDeque<(u16, Vec<u8>, Arrival)>,
    /// What is sent does not come back.
    pub(crate) is_blind: bool,
    /// Nothing is sent.
    pub(crate) is_frozen: bool,
}

/// The card.
pub(crate) struct Mirror {
    shared: Arc<Mutex<Shared>>,
    interface: Interface,
    settings: Settings,
    posted: Vec<VecDeque<Box<Posted>>>,
    sending: VecDeque<(u16, Box<Frame>)>,
    arena: Arena,
    is_stopped: bool,
}

impl Mirror {
    pub(crate) fn new(queues: u16, capabilities: Capabilities, arena: &Arena) -> Self {
        let shape = Shape {
            queues,
            receive_depth: DEPTH,
            transmit_depth: DEPTH,
            mtu: 1500,
            least_buffer_bytes: 1536,
            headroom: BEFORE,
        };
        let interface = Interface {
            state: InterfaceState::Ready,
            link: Link { is_up: true, ..Link::DOWN },
            permanent_mac: MacAddress([2, 0, 0, 0, 0, 1]),
            capabilities,
            shape,
            settings: SettingsState::Applied,
            ..Interface::UNKNOWN
        };
        Self {
            shared: Arc::default(),
            interface,
            settings: Settings::DEFAULT,
            posted: (0..queues).map(|_| VecDeque::new()).collect(),
            sending: VecDeque::new(),
            arena: arena.clone(),
            is_stopped: false,
        }
    }

    /// The same, with queues that take so many frames and buffers.
    #[allow(dead_code, reason = "not every test needs short ones")]
    pub(crate) const fn with_depth(mut self, depth: u16) -> Self {
        (self.interface.shape.receive_depth, self.interface.shape.transmit_depth) = (depth, depth);
        self
    }

    pub(crate) fn shared(&self) -> Arc<Mutex<Shared>> {
        self.shared.clone()
    }

    /// Lets a frame come, if there are buffers for it.
    fn receive(
        posted: &mut VecDeque<Box<Posted>>,
        (queue, bytes, arrival): (u16, &[u8], Arrival),
        done: &mut Completions,
    ) -> bool {
        let (mut rest, mut pieces) = (bytes, Vec::new());
        for buffer in &*posted {
            let start = if pieces.is_empty() { BEFORE } else { 0 };
            let (piece, after) = rest.split_at(rest.len().min(buffer.buffer.len() - start));
            pieces.push((start, piece));
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        if !rest.is_empty() || pieces.is_empty() {
            return false;
        }
        let count = pieces.len() as u16;
        for (number, (start, piece)) in (1..).zip(pieces) {
            let Some(mut posted) = posted.pop_front() else { break };
            posted.buffer.write_bytes(start, piece);
            let (bytes, more) = (start..start + piece.len(), count - number);
            done.received.push(Received { posted, bytes, arrival, queue, more });
        }
        true
    }

    /// Whether a frame can be sent.
    fn check(&self, frame: &Frame) -> Result<(), RefusedReason> {
        let bytes = frame.data.bytes();
        let most = self.interface.shape.max_frame_bytes();
        match () {
            () if !frame.work.suits(bytes) => Err(RefusedReason::BadWork),
            () if bytes > most && frame.work.segmentation.is_none() => {
                Err(RefusedReason::BadLength { most })
            }
            () if self.sending.len() >= self.interface.shape.transmit_depth.into() => {
                Err(RefusedReason::QueueFull)
            }
            () => Ok(()),
        }
    }
}

/// What is known of a frame that has gone through no card.
pub(crate) fn plain(bytes: usize) -> Arrival {
    let checksum = outboard_net::ChecksumState::Unknown;
    Arrival { bytes: bytes as u32, checksum, segmentation: None, vlan_tag: None }
}

impl NetDriver for Mirror {
    fn interface(&self) -> &Interface {
        &self.interface
    }

    fn changes(&self) -> u64 {
        0
    }

    fn constraints(&self) -> Constraints {
        Constraints::NONE
    }

    fn dma(&self) -> Arc<dyn DmaSpace> {
        Arc::new(self.arena.clone())
    }

    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn configure(&mut self, settings: &Settings) -> Result<(), Unsupported> {
        settings.check(&self.interface.capabilities)?;
        self.settings.clone_from(settings);
        Ok(())
    }

    fn post(
        &mut self,
        queue: u16,
        buffers: &mut VecDeque<Box<Posted>>,
    ) -> Result<(), RefusedReason> {
        let posted = &mut self.posted[usize::from(queue)];
        let room = usize::from(self.interface.shape.receive_depth) - posted.len();
        posted.extend(buffers.drain(..room.min(buffers.len())));
        if buffers.is_empty() { Ok(()) } else { Err(RefusedReason::QueueFull) }
    }

    fn submit(
        &mut self,
        queue: u16,
        frames: &mut VecDeque<Box<Frame>>,
    ) -> Result<(), RefusedReason> {
        while let Some(frame) = frames.front() {
            self.check(frame)?;
            self.sending.extend(frames.pop_front().map(|frame| (queue, frame)));
        }
        Ok(())
    }

    fn kick(&mut self, _now: Instant) {}

    fn interrupt(&mut self, _vector: u16) {}

    fn poll(&mut self, _now: Instant, done: &mut Completions) {
        let mut shared = self.shared.lock().unwrap();
        let sending = if shared.is_frozen { 0 } else { self.sending.len() };
        for (queue, frame) in self.sending.drain(..sending) {
            let mut bytes = vec![0; frame.data.bytes()];
            frame.data.read_bytes(&mut bytes);
            if !shared.is_blind {
                let back = (queue, bytes.clone(), plain(bytes.len()));
                shared.coming.push_back(back);
            }
            shared.sent.push((queue, bytes, frame.work));
            done.sent.push(Sent { frame, queue, result: Ok(()) });
        }
        while let Some((queue, bytes, arrival)) = shared.coming.front() {
            let posted = &mut self.posted[usize::from(*queue)];
            if !Self::receive(posted, (*queue, bytes, *arrival), done) {
                break;
            }
            shared.coming.pop_front();
        }
        if self.is_stopped {
            for (queue, posted) in (0..).zip(&mut self.posted) {
                done.returned.extend(posted.drain(..).map(|posted| Returned { queue, posted }));
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        None
    }

    fn stop(&mut self) {
        self.is_stopped = true;
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped && self.posted.iter().all(VecDeque::is_empty)
    }

    fn counters(&self, _counter: &mut dyn FnMut(&'static str, u64)) {}

    fn drain_events(&mut self, _event: &mut dyn FnMut(Instant, &dyn Display)) {}
}
