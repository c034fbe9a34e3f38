//! Setting the device up, and what it says it is.

use super::control::Control;
use super::features::{GUEST_SEGMENTS, capabilities, choose};
use super::receive::{self, LEAST_BYTES, Receive};
use super::transmit::{self, Transmit};
use super::{Event, Net, Pair, Phase};
use crate::VirtioError;
use crate::setup::{check_queue, make_queue, negotiate};
use crate::spec::features::Features;
use crate::spec::net::{
    ANNOUNCE, DUPLEX, FULL_DUPLEX, HALF_DUPLEX, Header, LEAST_MTU, LINK_UP, MAC, MAX_PAIRS,
    MAX_SPEED, MOST_PAIRS, MTU, NetFeatures, SPEED, STATUS, WHOLE_FRAME_BYTES, receive_queue,
    transmit_queue,
};
use crate::spec::status::Status;
use crate::transport::{Transport, read_config};
use alloc::vec::Vec;
use outboard_hw::Instant;
use outboard_hw::dma::Constraints;
use outboard_net::{Duplex, FailedReason, Link, MacAddress, SettingsState, Shape};

/// Where a device does not say how much is behind a frame's Ethernet header.
const USUAL_MTU: u16 = 1500;
/// Descriptors of a command: itself, operands, answer.
const COMMAND_PIECES: u16 = 3;

/// What a device's configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Said {
    mac: MacAddress,
    link: Link,
    announce: bool,
    pairs: u16,
    mtu: u16,
}

impl<T: Transport> Net<T> {
    const fn has_any_layout(&self) -> bool {
        let either = Features::ANY_LAYOUT.union(Features::VERSION_1);
        self.features & either.bits() != 0
    }

    const fn is_indirect(&self) -> bool {
        self.features & Features::INDIRECT.bits() != 0
    }

    /// Sets up a device that was reset, up to where it is told the settings.
    pub(super) fn bring_up(&mut self, now: Instant) {
        match self.set_up(now) {
            Ok(()) => {
                self.phase = Phase::Settling;
                self.interface.settings = SettingsState::Pending;
                self.changes += 1;
                self.show(now);
            }
            Err(error) => {
                // No bit is ever cleared but by a reset (§2.1.1).
                let status = self.transport.status();
                self.transport.set_status(status | Status::FAILED);
                let reason = match error {
                    VirtioError::Hw(_) => FailedReason::NoMemory,
                    VirtioError::FeaturesRefused | VirtioError::Draft => {
                        FailedReason::Unsupported("a virtio device of another version")
                    }
                    VirtioError::BadConfig(_) if !self.pairs.is_empty() => FailedReason::Changed,
                    _ => FailedReason::BadConfig,
                };
                self.give_up(now, reason);
            }
        }
    }

    /// The steps of §3.1.1.
    fn set_up(&mut self, now: Instant) -> Result<(), VirtioError> {
        let config = self.config;
        let all_pairs = self.transport.uses_all_pairs();
        let (features, status) =
            negotiate(&mut self.transport, |offered| choose(offered, all_pairs, &config))?;
        if self.pairs.is_empty() {
            self.features = features;
        } else if self.features != features {
            return Err(VirtioError::BadConfig("it has other features than before"));
        }
        let said = self.read()?;
        self.lay_out(&said)?;
        self.transport.start()?;
        for (number, pair) in (0..).zip(&mut self.pairs) {
            pair.receive.restart();
            pair.transmit.queue.reset();
            let areas = pair.receive.queue.areas();
            self.transport.enable_queue(receive_queue(number), areas)?;
            let areas = pair.transmit.queue.areas();
            self.transport.enable_queue(transmit_queue(number), areas)?;
        }
        let number = self.control.number;
        if let Some(queue) = self.control.queue() {
            queue.reset();
            let areas = queue.areas();
            self.transport.enable_queue(number, areas)?;
        }
        self.control.forget();
        self.transport.set_status(status | Status::DRIVER_OK);
        self.take_note(now, &said);
        Ok(())
    }

    /// Makes queues, the first time; later the device must be as it was.
    fn lay_out(&mut self, said: &Said) -> Result<(), VirtioError> {
        if !self.pairs.is_empty() {
            return self.check_same(said);
        }
        let short = self.transport.is_legacy() && !self.has(NetFeatures::MRG_RXBUF);
        self.header_bytes = if short { Header::SHORT_BYTES } else { Header::BYTES };
        self.any_layout = self.has_any_layout();
        let merges = self.has(NetFeatures::MRG_RXBUF);
        let capabilities = capabilities(NetFeatures::from_bits_truncate(self.features));
        let header_bytes = self.header_bytes;
        let receive = receive::Layout {
            header_bytes,
            // Of those that may merge, even older devices take one descriptor (§5.1.6.3.1).
            shares_descriptor: self.any_layout || merges,
            merges,
            agreed: capabilities.receive,
        };
        let transmit = transmit::Layout {
            header_bytes,
            shares_descriptor: self.any_layout,
            indirect: self.is_indirect(),
            segments: self.config.segments.clamp(1, transmit::MOST_SEGMENTS),
        };
        let dma = self.transport.dma();
        let (features, entries) = (self.features, self.config.queue_entries);
        let has_control = self.has(NetFeatures::CTRL_VQ);
        let transport = &mut self.transport;
        let mut pairs = Vec::new();
        for number in 0..said.pairs.min(self.config.queues).max(1) {
            let place = receive_queue(number);
            let queue = make_queue(transport, &*dma, place, entries, features)?;
            let receive = Receive::new(number, queue, receive);
            let place = transmit_queue(number);
            let queue = make_queue(transport, &*dma, place, entries, features)?;
            let transmit = Transmit::new(&*dma, number, queue, transmit)?;
            pairs.push(Pair { receive, transmit });
        }
        if has_control {
            // It comes behind all pairs that there are, whether they are used or not (§5.1.2).
            let number = said.pairs.checked_mul(2).ok_or(VirtioError::NoQueue(u16::MAX))?;
            let queue = make_queue(transport, &*dma, number, entries, features)?;
            if queue.areas().entries < COMMAND_PIECES {
                return Err(VirtioError::NoQueue(number));
            }
            self.control = Control::new(&*dma, number, queue)?;
        }
        // No frame has more descriptors than its queue, in a table neither (§2.7.5.3.1).
        let most = pairs.iter().map(|pair: &Pair| pair.transmit.queue.areas().entries - 1).min();
        let most = self.config.segments.min(most.unwrap_or(1)).clamp(1, transmit::MOST_SEGMENTS);
        self.constraints = Constraints {
            max_segments: most.into(),
            // Its bytes, with the header's, have to fit into 32 bits.
            max_segment_bytes: 1 << 30,
            ..Constraints::NONE
        };
        self.interface.permanent_mac = said.mac;
        self.interface.capabilities = capabilities;
        self.interface.shape = self.shape(&pairs, said.mtu);
        self.pairs = pairs;
        Ok(())
    }

    /// Makes sure that the device is as it was.
    fn check_same(&mut self, said: &Said) -> Result<(), VirtioError> {
        for (number, pair) in (0..).zip(&self.pairs) {
            check_queue(&mut self.transport, receive_queue(number), &pair.receive.queue)?;
            check_queue(&mut self.transport, transmit_queue(number), &pair.transmit.queue)?;
        }
        let number = self.control.number;
        if let Some(queue) = self.control.queue() {
            check_queue(&mut self.transport, number, queue)?;
        }
        let mac = [Some(self.interface.permanent_mac), self.settings.mac];
        match self.interface.shape.mtu == said.mtu && mac.contains(&Some(said.mac)) {
            true => Ok(()),
            false => Err(VirtioError::BadConfig("it has another address or MTU than before")),
        }
    }

    fn shape(&self, pairs: &[Pair], mtu: u16) -> Shape {
        let entries = pairs.iter().map(|pair| pair.transmit.queue.areas().entries).min();
        let entries = entries.unwrap_or(0);
        let shape = Shape {
            queues: pairs.len() as u16,
            receive_depth: pairs.iter().map(|pair| pair.receive.depth()).min().unwrap_or(0),
            transmit_depth: if self.any_layout { entries } else { entries / 2 },
            mtu,
            least_buffer_bytes: 0,
            headroom: if self.any_layout { self.header_bytes } else { 0 },
        };
        let least = if self.has(NetFeatures::MRG_RXBUF) {
            LEAST_BYTES
        } else if self.has(GUEST_SEGMENTS) {
            self.header_bytes + WHOLE_FRAME_BYTES
        } else {
            self.header_bytes + shape.max_frame_bytes()
        };
        Shape { least_buffer_bytes: least, ..shape }
    }

    /// Reads the configuration (§5.1.4).
    fn read(&self) -> Result<Said, VirtioError> {
        let has = |feature| self.has(feature);
        let fallback = self.config.mac;
        let said = read_config(&self.transport, |config| {
            let mut mac = fallback;
            if has(NetFeatures::MAC) {
                for (offset, byte) in (MAC..).zip(&mut mac.0) {
                    *byte = config.config_u8(offset);
                }
            }
            let when = |feature, offset, other| {
                if has(feature) { config.config_u16(offset) } else { other }
            };
            let status = when(NetFeatures::STATUS, STATUS, LINK_UP);
            let mut link = Link { is_up: status & LINK_UP != 0, ..Link::DOWN };
            if has(NetFeatures::SPEED_DUPLEX) {
                link.speed_mbps = Some(config.config_u32(SPEED)).filter(|s| *s <= MAX_SPEED);
                link.duplex = match config.config_u8(DUPLEX) {
                    HALF_DUPLEX => Some(Duplex::Half),
                    FULL_DUPLEX => Some(Duplex::Full),
                    _ => None,
                };
            }
            Said {
                mac,
                link,
                announce: has(NetFeatures::GUEST_ANNOUNCE) && status & ANNOUNCE != 0,
                pairs: when(NetFeatures::MQ, MAX_PAIRS, 1),
                mtu: when(NetFeatures::MTU, MTU, USUAL_MTU),
            }
        });
        let said = said.ok_or(VirtioError::RestlessConfig)?;
        if !said.mac.is_valid_unicast() {
            return Err(VirtioError::BadConfig("its address is none that a card can have"));
        }
        if said.pairs == 0 || said.pairs > MOST_PAIRS {
            return Err(VirtioError::BadConfig("it has no queues, or too many"));
        }
        if said.mtu < LEAST_MTU {
            return Err(VirtioError::BadConfig("its frames are too short"));
        }
        Ok(said)
    }

    /// Takes note of what may change.
    fn take_note(&mut self, now: Instant, said: &Said) {
        if self.interface.link != said.link {
            self.interface.link = said.link;
            self.changes += 1;
            self.events.record(now, Event::Link(said.link));
        }
        if said.announce && self.control.hear_announcement() {
            self.interface.announcements += 1;
            self.changes += 1;
            self.events.record(now, Event::Announce);
        }
    }

    /// Reads the configuration again: the device has said that it changed (§5.1.4.2).
    pub(super) fn configuration_changed(&mut self, now: Instant) {
        if let Ok(said) = self.read() {
            self.take_note(now, &said);
        }
    }
}
