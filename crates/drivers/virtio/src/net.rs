//! Network cards (§5.1).

mod control;
mod counters;
mod device;
mod event;
pub mod features;
mod flow;
pub mod header;
mod reap;
mod receive;
mod recovery;
mod transmit;

use crate::VirtioError;
use crate::recovery::Reset;
use crate::spec::features::Features;
use crate::spec::net::NetFeatures;
use crate::spec::status::Status;
use crate::transport::{Cause, Transport};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use control::Control;
use core::fmt;
use core::time::Duration;
use counters::Counters;
use event::Event;
use outboard_hw::Instant;
use outboard_hw::dma::{Constraints, DmaSpace};
use outboard_hw::events::EventRing;
use outboard_net::{
    Completions, FailedReason, Frame, Interface, InterfaceState, MacAddress, NetDriver, Offloads,
    Posted, RefusedReason, Settings, SettingsState, Unsupported,
};
use receive::Receive;
use transmit::Transmit;

/// How a network card is driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetConfig {
    /// The most pairs of queues to use of those that the device has.
    pub queues: u16,
    /// The most entries of each queue.
    pub queue_entries: u16,
    /// The most segments of a frame that is sent, of which there may be 64.
    pub segments: u16,
    /// What a card may do to frames before they are received: whoever reads them has to know of it.
    pub receive: Offloads,
    /// Bytes that all buffers for frames to come have at least. Devices that cannot spread a frame
    /// over several do not put segments together if they are too short for that.
    pub buffer_bytes: usize,
    /// The address of a device that has none.
    pub mac: MacAddress,
    /// Features of rings and transports to leave alone even where the device has them.
    pub without: Features,
    /// Features of network cards to leave alone. Among them is, unless one says otherwise, the
    /// filter of VLANs: a device that has been asked for it lets none through by itself.
    pub without_net: NetFeatures,
    /// How long the device may take until it has sent a frame. A network that does not take any for
    /// so long loses what waits.
    pub send_time: Duration,
    /// How long the device may take for a command.
    pub command_time: Duration,
    /// How long a reset may take.
    pub reset_time: Duration,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            queues: 1,
            queue_entries: 256,
            segments: 18,
            receive: Offloads::empty(),
            buffer_bytes: 2048,
            // Of those that anybody may give himself (IEEE 802 §8.4).
            mac: MacAddress([0x02, 0x6f, 0x62, 0x00, 0x00, 0x01]),
            without: Features::empty(),
            without_net: NetFeatures::CTRL_VLAN,
            send_time: Duration::from_secs(30),
            command_time: Duration::from_secs(10),
            reset_time: Duration::from_secs(10),
        }
    }
}

/// What the driver is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The device is being reset.
    Resetting(Reset),
    /// The device is told the settings. Frames already come.
    Settling,
    /// Frames go both ways.
    Running,
    /// The device is being reset for good.
    Closing(Reset),
    /// At rest, or lost.
    Ended,
}

/// The driver of a virtio network card.
#[derive(Debug)]
pub struct Net<T: Transport> {
    /// Before all memory that the device may write.
    transport: T,
    pairs: Vec<Pair>,
    control: Control,
    config: NetConfig,
    phase: Phase,
    interface: Interface,
    settings: Settings,
    changes: u64,
    /// What was agreed upon when the device was first set up; it has to be the same each time.
    features: u64,
    /// Bytes of what stands before a frame in memory.
    header_bytes: usize,
    /// Whether that may share a descriptor with the frame.
    any_layout: bool,
    /// What a frame's memory has to be like.
    constraints: Constraints,
    /// What interrupts since the last look were about.
    cause: Cause,
    masked: bool,
    /// Something was done before interrupts were asked for, or is left to do.
    look_again: bool,
    stopping: bool,
    /// When to look at the device, and whether something is overdue.
    check_at: Option<Instant>,
    /// When to look for frames that were sent, for which no interrupt comes.
    sent_at: Option<Instant>,
    /// Resets since the last frame.
    resets: u8,
    counters: Counters,
    events: EventRing<Event, 64>,
    events_told: u64,
}

/// A queue for each direction.
#[derive(Debug)]
struct Pair {
    receive: Receive,
    transmit: Transmit,
}

impl<T: Transport> Net<T> {
    /// Takes a device over. It is brought up by [`poll`](NetDriver::poll).
    pub fn new(transport: T, config: NetConfig) -> Result<Self, VirtioError> {
        let mut net = Self {
            transport,
            pairs: Vec::new(),
            control: Control::none(),
            config,
            phase: Phase::Ended,
            interface: Interface::UNKNOWN,
            settings: Settings::DEFAULT,
            changes: 0,
            features: 0,
            header_bytes: 0,
            any_layout: false,
            constraints: Constraints::NONE,
            cause: Cause::NONE,
            masked: false,
            look_again: false,
            stopping: false,
            check_at: None,
            sent_at: None,
            resets: 0,
            counters: Counters::default(),
            events: EventRing::new(),
            events_told: 0,
        };
        // Whoever waits for interrupts is told now what they are.
        net.transport.enable_interrupts(config.queues.saturating_mul(2).saturating_add(1))?;
        net.phase = Phase::Resetting(Reset::begin(&mut net.transport));
        Ok(net)
    }

    fn set_state(&mut self, state: InterfaceState) {
        if self.interface.state != state {
            self.interface.state = state;
            self.changes += 1;
        }
    }

    fn set_settings_state(&mut self, state: SettingsState) {
        if self.interface.settings != state {
            self.interface.settings = state;
            self.changes += 1;
        }
    }

    /// Gives the device up; what it had comes back at the next look, when it reaches no memory any
    /// more.
    fn give_up(&mut self, now: Instant, reason: FailedReason) {
        self.transport.cut_off();
        self.events.record(now, Event::GivenUp(reason));
        self.phase = Phase::Ended;
        (self.check_at, self.sent_at) = (None, None);
        self.interface.generation += 1;
        self.changes += 1;
        self.set_state(InterfaceState::Failed(reason));
    }

    /// Whether the device has queues.
    const fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Settling)
    }

    const fn has(&self, feature: NetFeatures) -> bool {
        self.features & feature.bits() != 0
    }
}

impl<T: Transport> NetDriver for Net<T> {
    fn interface(&self) -> &Interface {
        &self.interface
    }

    fn changes(&self) -> u64 {
        self.changes
    }

    fn constraints(&self) -> Constraints {
        self.constraints
    }

    fn dma(&self) -> Arc<dyn DmaSpace> {
        self.transport.dma()
    }

    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn configure(&mut self, settings: &Settings) -> Result<(), Unsupported> {
        settings.check(&self.interface.capabilities)?;
        self.settings.clone_from(settings);
        self.set_settings_state(SettingsState::Pending);
        self.look_again = true;
        Ok(())
    }

    fn post(
        &mut self,
        queue: u16,
        buffers: &mut VecDeque<Box<Posted>>,
    ) -> Result<(), RefusedReason> {
        self.take_buffers(queue, buffers)
    }

    fn submit(
        &mut self,
        queue: u16,
        frames: &mut VecDeque<Box<Frame>>,
    ) -> Result<(), RefusedReason> {
        self.take_frames(queue, frames)
    }

    fn kick(&mut self, now: Instant) {
        self.show(now);
    }

    fn interrupt(&mut self, vector: u16) {
        self.cause = self.cause.and(self.transport.cause(vector));
    }

    fn mask(&mut self, masked: bool) {
        if core::mem::replace(&mut self.masked, masked) == masked {
            return;
        }
        for pair in &mut self.pairs {
            if masked {
                pair.receive.queue.ignore();
                pair.transmit.ignore();
            } else {
                // What is there already is told by nobody any more.
                self.look_again |= pair.receive.queue.listen();
            }
        }
    }

    fn poll(&mut self, now: Instant, done: &mut Completions) {
        self.look(now, done);
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.deadline()
    }

    fn stop(&mut self) {
        self.stopping = true;
        if !matches!(self.phase, Phase::Ended) {
            self.set_state(InterfaceState::Stopping);
        }
    }

    fn is_stopped(&self) -> bool {
        self.phase == Phase::Ended && !self.holds_memory()
    }

    fn counters(&self, counter: &mut dyn FnMut(&'static str, u64)) {
        self.counters.each(counter);
    }

    fn drain_events(&mut self, event: &mut dyn FnMut(Instant, &dyn fmt::Display)) {
        let told = self.events_told;
        for recorded in self.events.iter().filter(|recorded| recorded.number >= told) {
            event(recorded.at, &recorded.what);
        }
        self.events_told = self.events.recorded();
    }
}

impl<T: Transport> Drop for Net<T> {
    fn drop(&mut self) {
        // What it still does ends with the bus, before the memory goes.
        self.transport.set_status(Status::empty());
    }
}

/// Why nothing can be queued now.
const fn not_ready(state: InterfaceState) -> RefusedReason {
    RefusedReason::NotReady(state)
}
