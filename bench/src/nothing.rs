//! A card made of nothing, for whatever is above cards.

use outboard_hw::Instant;
use outboard_hw::dma::{Arena, Constraints, DmaSpace};
use outboard_net::{
    Arrival, Capabilities, ChecksumState, Completions, Frame, Interface, InterfaceState, Link,
    MacAddress, NetDriver, Posted, Received, RefusedReason, Sent, Settings, SettingsState, Shape,
    Unsupported,
};
use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::Arc;

/// Bytes of a frame, without the check sequence, which no memory holds.
pub const FRAME_BYTES: usize = 60;
/// Bytes before a frame that the driver may use.
pub const BEFORE: usize = 12;
/// Frames that come at once at most, as others have it.
const RECEIVE_DEPTH: u16 = 32;

/// A card that has sent whatever it is given, and to which frames come whenever there is a buffer,
/// or never.
#[derive(Debug)]
pub struct Nothing {
    is_source: bool,
    interface: Interface,
    settings: Settings,
    posted: VecDeque<Box<Posted>>,
    sending: VecDeque<Box<Frame>>,
    arena: Arena,
}

impl Nothing {
    /// Of which frames come or not, with memory from an arena.
    pub fn new(is_source: bool, arena: &Arena) -> Self {
        let shape = Shape {
            queues: 1,
            receive_depth: RECEIVE_DEPTH,
            transmit_depth: 256,
            mtu: 1500,
            least_buffer_bytes: 1536,
            headroom: BEFORE,
        };
        let interface = Interface {
            state: InterfaceState::Ready,
            link: Link { is_up: true, ..Link::DOWN },
            permanent_mac: MacAddress([2, 0, 0, 0, 0, 1]),
            capabilities: Capabilities::NONE,
            shape,
            settings: SettingsState::Applied,
            ..Interface::UNKNOWN
        };
        let (posted, sending) = (VecDeque::new(), VecDeque::new());
        let (settings, arena) = (Settings::DEFAULT, arena.clone());
        Self { is_source, interface, settings, posted, sending, arena }
    }
}

impl NetDriver for Nothing {
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

    fn configure(&mut self, _: &Settings) -> Result<(), Unsupported> {
        Ok(())
    }

    fn post(&mut self, _: u16, buffers: &mut VecDeque<Box<Posted>>) -> Result<(), RefusedReason> {
        self.posted.append(buffers);
        Ok(())
    }

    fn submit(&mut self, _: u16, frames: &mut VecDeque<Box<Frame>>) -> Result<(), RefusedReason> {
        self.sending.append(frames);
        Ok(())
    }

    fn kick(&mut self, _: Instant) {}

    fn interrupt(&mut self, _: u16) {}

    fn poll(&mut self, _: Instant, done: &mut Completions) {
        let sent = self.sending.drain(..).map(|frame| Sent { frame, queue: 0, result: Ok(()) });
        done.sent.extend(sent);
        let coming = if self.is_source { self.posted.len() } else { 0 };
        for posted in self.posted.drain(..coming) {
            let checksum = ChecksumState::Unknown;
            let bytes = FRAME_BYTES as u32;
            let arrival = Arrival { bytes, checksum, segmentation: None, vlan_tag: None };
            let bytes = BEFORE..BEFORE + FRAME_BYTES;
            done.received.push(Received { posted, bytes, arrival, queue: 0, more: 0 });
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        None
    }

    fn stop(&mut self) {}

    fn is_stopped(&self) -> bool {
        true
    }

    fn counters(&self, _: &mut dyn FnMut(&'static str, u64)) {}

    fn drain_events(&mut self, _: &mut dyn FnMut(Instant, &dyn Display)) {}
}
