//! Telling the device its settings, by the control queue (§5.1.6.5).
//!
//! There is no list of commands to be sent. What the device was told is kept, and compared with
//! what is asked for; where they differ, there is the next command. A reset forgets what was told.

use super::features::{consistent, guest_features};
use super::{Event, Net, Phase};
use crate::queue::{Piece, Queue};
use crate::recovery::{CHECK_STEP, ResetCause};
use crate::spec::net::{
    ACK_OK, ANNOUNCE_ACK, CLASS_ANNOUNCE, CLASS_GUEST_OFFLOADS, CLASS_MAC, CLASS_MQ, CLASS_RX,
    CLASS_VLAN, COMMAND_BYTES, Command, GUEST_OFFLOADS_SET, ListLength, MAC_ADDR_SET,
    MAC_TABLE_SET, NetFeatures, VLAN_ADD, VLAN_DEL, VQ_PAIRS_SET,
};
use crate::transport::Transport;
use core::fmt;
use outboard_hw::Instant;
use outboard_hw::dma::{Constraints, DmaBuffer, DmaError, DmaSpace, Segment};
use outboard_net::{
    FailedReason, InterfaceState, MacAddress, Offloads, ReceiveMode, Settings, SettingsState,
    VlanSet,
};
use zerocopy::IntoBytes;

/// Where the command's operands are, behind the command itself.
const OPERANDS: usize = 8;
/// The most bytes of them: two full lists of addresses.
const OPERAND_BYTES: usize = 2 * size_of::<ListLength>()
    + size_of::<MacAddress>() * (Settings::MAX_UNICAST + Settings::MAX_MULTICAST);
/// Where the answer goes.
const ANSWER: usize = OPERANDS + OPERAND_BYTES;
/// What the answer is before there is one.
const NO_ANSWER: u8 = u8::MAX;
/// Commands in one look, for a device that answers at once.
const MOST_AT_ONCE: usize = 64;

/// A command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Use so many pairs of queues.
    Pairs(u16),
    /// Have this address.
    Mac(MacAddress),
    /// Let these through, or not.
    Mode(ReceiveMode, bool),
    /// Have the lists of addresses.
    Lists,
    /// Let a VLAN through, or not.
    Vlan(u16, bool),
    /// Do this to frames before they are received, and no more.
    Receive(Offloads),
    /// The wish for an announcement was heard.
    Announced,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pairs(pairs) => write!(f, "{pairs} pairs of queues"),
            Self::Mac(mac) => write!(f, "the address {mac}"),
            Self::Mode(mode, on) => {
                write!(f, "to switch {mode:?} {}", if *on { "on" } else { "off" })
            }
            Self::Lists => f.write_str("lists of addresses"),
            Self::Vlan(vlan, true) => write!(f, "to let VLAN {vlan} through"),
            Self::Vlan(vlan, false) => write!(f, "to hold VLAN {vlan} back"),
            Self::Receive(work) => write!(f, "to do no more to frames than {work:?}"),
            Self::Announced => f.write_str("to hear of an announcement"),
        }
    }
}

/// What the device was told since it was reset.
#[derive(Debug, Clone)]
struct Told {
    pairs: u16,
    /// `None` for the address that it has by itself.
    mac: Option<MacAddress>,
    /// Modes of which it was told whether they are on.
    known: ReceiveMode,
    mode: ReceiveMode,
    unicast: heapless::Vec<MacAddress, { Settings::MAX_UNICAST }>,
    multicast: heapless::Vec<MacAddress, { Settings::MAX_MULTICAST }>,
    vlans: VlanSet,
    /// Of what it can do, which is all that it was set up to do unless it is told otherwise.
    receive: Offloads,
}

impl Told {
    const NOTHING: Self = Self {
        pairs: 1,
        mac: None,
        known: ReceiveMode::empty(),
        mode: ReceiveMode::empty(),
        unicast: heapless::Vec::new(),
        multicast: heapless::Vec::new(),
        vlans: VlanSet::NONE,
        receive: Offloads::all(),
    };
}

/// The control queue, and how far the device is told.
#[derive(Debug)]
pub(super) struct Control {
    parts: Option<(Queue, DmaBuffer)>,
    /// The number of the queue.
    pub(super) number: u16,
    /// The command that the device has, and since when.
    doing: Option<(Order, Instant)>,
    told: Told,
    /// The device has asked for an announcement and was not told that it was heard.
    announce: bool,
    /// Something of the settings was refused.
    refused: bool,
}

impl Control {
    /// No control queue.
    pub(super) const fn none() -> Self {
        Self {
            parts: None,
            number: 0,
            doing: None,
            told: Told::NOTHING,
            announce: false,
            refused: false,
        }
    }

    /// One with this queue.
    pub(super) fn new(dma: &dyn DmaSpace, number: u16, queue: Queue) -> Result<Self, DmaError> {
        let memory = dma.allocate(ANSWER + 1, &Constraints::NONE)?;
        Ok(Self { parts: Some((queue, memory)), number, ..Self::none() })
    }

    /// Its queue.
    pub(super) fn queue(&mut self) -> Option<&mut Queue> {
        self.parts.as_mut().map(|(queue, _)| queue)
    }

    /// Since when the device has a command.
    pub(super) const fn since(&self) -> Option<Instant> {
        match self.doing {
            Some((_, since)) => Some(since),
            None => None,
        }
    }

    /// The device is reset, and knows nothing any more.
    pub(super) fn forget(&mut self) {
        (self.doing, self.told, self.announce) = (None, Told::NOTHING, false);
    }

    /// The device asks for an announcement; whether it was not heard before.
    pub(super) fn hear_announcement(&mut self) -> bool {
        let answering = matches!(self.doing, Some((Order::Announced, _)));
        !answering && !core::mem::replace(&mut self.announce, true)
    }

    /// Writes a command, and takes note that it was told; how many bytes the operands have.
    fn write(&mut self, order: Order, settings: &Settings, agreed: u64) -> usize {
        let Some((_, memory)) = &mut self.parts else { return 0 };
        let told = &mut self.told;
        let (class, command) = match order {
            Order::Pairs(_) => (CLASS_MQ, VQ_PAIRS_SET),
            Order::Mac(_) => (CLASS_MAC, MAC_ADDR_SET),
            Order::Mode(mode, _) => (CLASS_RX, mode.bits().trailing_zeros() as u8),
            Order::Lists => (CLASS_MAC, MAC_TABLE_SET),
            Order::Vlan(_, true) => (CLASS_VLAN, VLAN_ADD),
            Order::Vlan(_, false) => (CLASS_VLAN, VLAN_DEL),
            Order::Receive(_) => (CLASS_GUEST_OFFLOADS, GUEST_OFFLOADS_SET),
            Order::Announced => (CLASS_ANNOUNCE, ANNOUNCE_ACK),
        };
        memory.write_bytes(0, Command { class, command }.as_bytes());
        memory.write_bytes(ANSWER, &[NO_ANSWER]);
        match order {
            Order::Pairs(pairs) => {
                told.pairs = pairs;
                memory.write_bytes(OPERANDS, &pairs.to_le_bytes());
                2
            }
            Order::Mac(mac) => {
                told.mac = Some(mac);
                memory.write_bytes(OPERANDS, &mac.0);
                mac.0.len()
            }
            Order::Mode(mode, on) => {
                told.known |= mode;
                told.mode.set(mode, on);
                memory.write_bytes(OPERANDS, &[on.into()]);
                1
            }
            Order::Lists => {
                told.unicast.clone_from(&settings.unicast);
                told.multicast.clone_from(&settings.multicast);
                let mut at = OPERANDS;
                for list in [settings.unicast.as_slice(), settings.multicast.as_slice()] {
                    memory.write_bytes(at, ListLength::from(list.len() as u32).as_bytes());
                    at += size_of::<ListLength>();
                    for mac in list {
                        memory.write_bytes(at, &mac.0);
                        at += mac.0.len();
                    }
                }
                at - OPERANDS
            }
            Order::Vlan(vlan, on) => {
                match on {
                    true => told.vlans.insert(vlan),
                    false => told.vlans.remove(vlan),
                }
                memory.write_bytes(OPERANDS, &vlan.to_le_bytes());
                2
            }
            Order::Receive(receive) => {
                told.receive = receive;
                let features = guest_features(receive).bits() & agreed;
                memory.write_bytes(OPERANDS, &features.to_le_bytes());
                8
            }
            Order::Announced => {
                self.announce = false;
                0
            }
        }
    }

    /// Puts what was written into the queue; if the device wants to be told, where the next entry
    /// will be.
    fn offer(&mut self, operand_bytes: usize) -> Option<u16> {
        let (queue, memory) = self.parts.as_mut()?;
        let piece = |at: usize, bytes: usize, writable| {
            let segment = Segment { address: memory.address_of(at), bytes: bytes as u64 };
            Piece { segment, writable }
        };
        memory.sync_for_device(0..ANSWER + 1);
        // Legacy devices want each in a descriptor of its own.
        let command = piece(0, COMMAND_BYTES, false);
        let operands = (operand_bytes > 0).then(|| piece(OPERANDS, operand_bytes, false));
        let pieces = [Some(command), operands, Some(piece(ANSWER, 1, true))];
        let count = 2 + u16::from(operands.is_some());
        // One command at a time fits into any queue that was found large enough.
        let added = queue.add(0, count, pieces.into_iter().flatten());
        (added.is_ok() && queue.publish()).then(|| queue.next_entry())
    }

    /// What the device has answered, if it has.
    fn answer(&mut self) -> Option<Result<u8, ResetCause>> {
        let (queue, memory) = self.parts.as_mut()?;
        let used = match queue.take() {
            None if queue.listen() => queue.take()?,
            used => used?,
        };
        memory.sync_for_cpu(ANSWER..ANSWER + 1);
        Some(used.map(|_| memory.read(ANSWER)).map_err(ResetCause::Broken))
    }
}

impl<T: Transport> Net<T> {
    /// What the device has to be told next.
    fn next_order(&self) -> Option<Order> {
        let Control { told, announce, .. } = &self.control;
        let (settings, can) = (&self.settings, &self.interface.capabilities);
        let pairs = self.pairs.len() as u16;
        if told.pairs != pairs && self.has(NetFeatures::CTRL_VQ) {
            return Some(Order::Pairs(pairs));
        }
        let permanent = self.interface.permanent_mac;
        let mac = settings.mac.unwrap_or(permanent);
        if can.can_set_mac && told.mac.unwrap_or(permanent) != mac {
            return Some(Order::Mac(mac));
        }
        let wrong = (told.mode ^ settings.mode) | !told.known;
        if let Some(mode) = (wrong & can.receive_modes).iter().next() {
            return Some(Order::Mode(mode, settings.mode.contains(mode)));
        }
        let lists = told.unicast == settings.unicast && told.multicast == settings.multicast;
        if can.has_address_filter && !lists {
            return Some(Order::Lists);
        }
        if can.has_vlan_filter
            && let Some(vlan) = told.vlans.first_difference(&settings.vlans)
        {
            return Some(Order::Vlan(vlan, settings.vlans.contains(vlan)));
        }
        let receive = consistent(settings.receive & can.receive);
        if can.can_set_receive && told.receive & can.receive != receive {
            return Some(Order::Receive(receive));
        }
        announce.then_some(Order::Announced)
    }

    /// Takes answers, and tells the device what is next.
    pub(super) fn command(&mut self, now: Instant) {
        for _ in 0..MOST_AT_ONCE {
            if let Some((order, _)) = self.control.doing {
                match self.control.answer() {
                    None => return,
                    Some(Err(why)) => return self.reset(now, why),
                    Some(Ok(answer)) => self.answered(now, order, answer),
                }
                if !self.is_up() {
                    return;
                }
            }
            let Some(order) = self.next_order() else { return self.settled(now) };
            if self.interface.settings != SettingsState::Pending && order != Order::Announced {
                self.set_settings_state(SettingsState::Pending);
            }
            let operand_bytes = self.control.write(order, &self.settings, self.features);
            self.control.doing = Some((order, now));
            if let Some(next) = self.control.offer(operand_bytes) {
                self.transport.notify(self.control.number, next);
            }
            self.check_at.get_or_insert(now + CHECK_STEP);
        }
        self.look_again = true;
    }

    fn answered(&mut self, now: Instant, order: Order, answer: u8) {
        self.control.doing = None;
        self.counters.commands += 1;
        if answer == ACK_OK {
            return;
        }
        self.counters.commands_refused += 1;
        self.events.record(now, Event::Refused(order));
        match order {
            // Frames of the other pairs would wait for ever.
            Order::Pairs(_) => self.give_up(now, FailedReason::BadConfig),
            Order::Announced => {}
            _ => self.control.refused = true,
        }
    }

    /// The device knows everything.
    fn settled(&mut self, now: Instant) {
        if self.interface.settings == SettingsState::Pending {
            let refused = core::mem::take(&mut self.control.refused);
            self.set_settings_state(match refused {
                true => SettingsState::Refused,
                false => SettingsState::Applied,
            });
        }
        if self.phase == Phase::Settling {
            self.phase = Phase::Running;
            if self.counters.device_resets > 0 {
                self.events.record(now, Event::Recovered);
            }
            self.set_state(match self.stopping {
                true => InterfaceState::Stopping,
                false => InterfaceState::Ready,
            });
        }
    }
}
