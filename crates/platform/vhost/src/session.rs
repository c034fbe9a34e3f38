//! One connection to a back end: what was asked, what is answered.
//!
//! Nothing here waits. Questions are sent without waiting for answers; [`Session::look`] takes the
//! answers that are there, each for the oldest question that has none.

use crate::error::Trouble;
use crate::events::Control;
use crate::kind::Kind;
use crate::setup::{Region, Setup};
use crate::wire::{Message, Wire};
use outboard_hw::Instant;
use outboard_virtio::spec::status::Status;
use outboard_virtio::spec::vhost_user::backend_request::CONFIG_CHANGE_MSG;
use outboard_virtio::spec::vhost_user::request::*;
use outboard_virtio::spec::vhost_user::{
    ConfigPart, Header, InflightRegion, PROTOCOL_FEATURES, ProtocolFeatures, VringState,
};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, socketpair,
};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;
use zerocopy::{FromBytes, IntoBytes};

/// Messages that are taken at a time; the others have their turn next.
const MESSAGES: usize = 32;
/// How long an answer may take.
pub(crate) const REPLY_TIME: Duration = Duration::from_secs(5);

/// What a back end says of its device.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    pub(crate) features: u64,
    pub(crate) queues: u16,
    pub(crate) config: Vec<u8>,
}

/// How far a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It is being found out what the device is.
    Greeting,
    /// That is known.
    Ready,
    /// Its queues are in use, or will be once the back end has heard all that it was told.
    Started,
}

/// An answer that is due.
#[derive(Debug, Clone, Copy)]
struct Due {
    request: u32,
    /// It says no more than whether that was done.
    is_acknowledgement: bool,
    since: Instant,
}

/// A connection, from its first message to its last.
#[derive(Debug)]
pub(crate) struct Session {
    wire: Wire,
    /// Where the back end asks.
    channel: Option<Wire>,
    due: VecDeque<Due>,
    stage: Stage,
    protocol: ProtocolFeatures,
    facts: Facts,
    /// The configuration has changed since it was asked for.
    is_stale: bool,
    /// Lengths that the configuration may have, the one that is asked for first.
    config_lengths: &'static [usize],
    kind: Kind,
    /// When it was known what the device is.
    ready_at: Option<Instant>,
    /// Where the back end keeps what is in flight, if that was not taken yet.
    region: Option<Region>,
}

/// How a device begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begins {
    /// With nothing in flight.
    Anew,
    /// It is back, and will be told what is.
    Again,
}

impl Session {
    /// Connects, and asks the first question.
    pub(crate) fn open(
        path: &Path,
        kind: Kind,
        control: &Control,
        now: Instant,
    ) -> Result<Self, Trouble> {
        let address = SocketAddrUnix::new(path).map_err(Trouble::Connect)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let socket = socket.map_err(|error| Trouble::System("a socket", error))?;
        connect(&socket, &address).map_err(Trouble::Connect)?;
        control.watch(socket.as_fd())?;
        let mut session = Self {
            wire: Wire::new(socket),
            channel: None,
            due: VecDeque::new(),
            stage: Stage::Greeting,
            protocol: ProtocolFeatures::empty(),
            facts: Facts { queues: kind.queues(1), config: kind.config(2), features: 0 },
            is_stale: false,
            config_lengths: kind.config_lengths(),
            kind,
            ready_at: None,
            region: None,
        };
        session.ask(GET_FEATURES, &[], now)?;
        Ok(session)
    }

    pub(crate) const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Since when it is known what the device is.
    pub(crate) const fn ready_at(&self) -> Option<Instant> {
        self.ready_at
    }

    pub(crate) fn is_started(&self) -> bool {
        self.stage == Stage::Started
    }

    /// That the oldest question has no answer.
    pub(crate) fn silent(&self, seconds: u64) -> Trouble {
        let request = self.due.front().map_or(GET_FEATURES, |due| due.request);
        Trouble::Silent { request, seconds }
    }

    /// Whether answers are due.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.due.is_empty()
    }

    /// Takes what has come; whether the configuration may have changed.
    pub(crate) fn look(&mut self, now: Instant) -> Result<bool, Trouble> {
        let mut news = false;
        for _ in 0..MESSAGES {
            let Some(message) = self.wire.receive()? else { break };
            news |= self.hear(message, now)?;
        }
        self.hear_questions(now)?;
        match self.due.front() {
            Some(due) if now.reached(due.since + REPLY_TIME) => {
                Err(Trouble::Silent { request: due.request, seconds: REPLY_TIME.as_secs() })
            }
            _ => Ok(news),
        }
    }

    /// Takes an answer.
    fn hear(&mut self, mut message: Message, now: Instant) -> Result<bool, Trouble> {
        let request = message.request;
        let is_answer = message.flags & (Header::VERSION_MASK | Header::REPLY)
            == Header::VERSION | Header::REPLY;
        let due = self.due.pop_front().filter(|due| due.request == request && is_answer);
        let Some(due) = due else { return Err(Trouble::Unasked { request }) };
        let descriptors = std::mem::take(&mut message.descriptors);
        if request == GET_INFLIGHT_FD && !due.is_acknowledgement {
            return self.take_region(&message, descriptors).map(|()| false);
        }
        if !descriptors.is_empty() {
            return Err(Trouble::Descriptors { request });
        }
        if request == GET_CONFIG {
            return self.take_config(&message, now);
        }
        let number: zerocopy::little_endian::U64 =
            message.value().ok_or(Trouble::Length { request, bytes: message.payload.len() })?;
        let number = number.get();
        if due.is_acknowledgement {
            return match number {
                0 => Ok(false),
                code => Err(Trouble::Refused { request, code }),
            };
        }
        match request {
            // A second time it is asked last.
            GET_FEATURES if self.facts.features != 0 => {
                self.stage = Stage::Ready;
                self.ready_at = Some(now);
                return Ok(true);
            }
            GET_FEATURES => {
                if number & PROTOCOL_FEATURES == 0 {
                    return Err(Trouble::Lacks("VHOST_USER_F_PROTOCOL_FEATURES"));
                }
                self.facts.features = number;
                self.ask(GET_PROTOCOL_FEATURES, &[], now)?;
            }
            GET_PROTOCOL_FEATURES => self.agree(ProtocolFeatures::from_bits_retain(number), now)?,
            GET_QUEUE_NUM => {
                let told = u16::try_from(number).unwrap_or(u16::MAX);
                self.facts.queues = self.kind.queues(told);
                self.facts.config = self.kind.config(self.facts.queues);
            }
            // That bit is the device's to take back (§3.1.1).
            GET_STATUS if number & u64::from(Status::FEATURES_OK.bits()) == 0 => {
                return Err(Trouble::Refused { request: SET_FEATURES, code: number });
            }
            // Where a queue was stopped is known better by the driver.
            _ => {}
        }
        Ok(false)
    }

    /// Agrees upon the protocol, and asks the rest.
    fn agree(&mut self, offered: ProtocolFeatures, now: Instant) -> Result<(), Trouble> {
        let agreed = offered.intersection(self.kind.protocol());
        let has_config = self.kind.protocol().contains(ProtocolFeatures::CONFIG);
        if has_config && !agreed.contains(ProtocolFeatures::CONFIG) {
            return Err(Trouble::Lacks("VHOST_USER_PROTOCOL_F_CONFIG"));
        }
        // Nothing is acknowledged before this is.
        self.tell(SET_PROTOCOL_FEATURES, &number(agreed.bits()), None, now)?;
        self.protocol = agreed;
        self.tell(SET_OWNER, &[], None, now)?;
        if agreed.contains(ProtocolFeatures::MQ) {
            self.ask(GET_QUEUE_NUM, &[], now)?;
        }
        if has_config { self.ask_for_config(now) } else { self.ask(GET_FEATURES, &[], now) }
    }

    /// Asks for the configuration.
    pub(crate) fn ask_for_config(&mut self, now: Instant) -> Result<(), Trouble> {
        let bytes = *self.config_lengths.first().ok_or(Trouble::NoConfig)?;
        let part = ConfigPart { offset: 0.into(), bytes: (bytes as u32).into(), flags: 0.into() };
        let mut payload = part.as_bytes().to_vec();
        payload.resize(size_of::<ConfigPart>() + bytes, 0);
        self.ask(GET_CONFIG, &payload, now)
    }

    /// Takes the configuration.
    fn take_config(&mut self, message: &Message, now: Instant) -> Result<bool, Trouble> {
        let wrong = Trouble::Length { request: GET_CONFIG, bytes: message.payload.len() };
        let told = match ConfigPart::read_from_prefix(&message.payload) {
            Ok((part, rest)) if part.bytes.get() as usize == rest.len() => rest,
            // Nothing at all: it cannot be had, or not in that length.
            _ if message.payload.is_empty() => &[],
            _ => return Err(wrong),
        };
        if told.is_empty() {
            let others = self.config_lengths.get(1..).unwrap_or_default();
            self.config_lengths = others;
            return self.ask_for_config(now).map(|()| false);
        }
        if told.len() > self.config_lengths.first().copied().unwrap_or(0) {
            return Err(wrong);
        }
        self.facts.config = told.to_vec();
        if self.stage == Stage::Greeting {
            self.stage = Stage::Ready;
            self.ready_at = Some(now);
        }
        if std::mem::take(&mut self.is_stale) {
            self.ask_for_config(now)?;
        }
        Ok(true)
    }

    /// Takes the region for what is in flight.
    fn take_region(
        &mut self,
        message: &Message,
        mut descriptors: Vec<OwnedFd>,
    ) -> Result<(), Trouble> {
        let request = GET_INFLIGHT_FD;
        let Ok((told, padding)) = InflightRegion::read_from_prefix(&message.payload) else {
            return Err(Trouble::Length { request, bytes: message.payload.len() });
        };
        if padding.len() > 4 {
            return Err(Trouble::Length { request, bytes: message.payload.len() });
        }
        match (descriptors.pop(), descriptors.is_empty()) {
            (Some(descriptor), true) => {
                self.region = Some(Region { descriptor, what: told });
                Ok(())
            }
            _ => Err(Trouble::Descriptors { request }),
        }
    }

    /// The region that was asked for, once it has come: then the queues can be told.
    pub(crate) const fn region(&mut self) -> Option<Region> {
        self.region.take()
    }

    /// Whether a back end's region can be given to this one.
    pub(crate) fn takes_regions(&self) -> bool {
        self.stage == Stage::Ready && self.protocol.contains(ProtocolFeatures::INFLIGHT_SHMFD)
    }

    /// Writes part of the configuration, and asks what it is then.
    pub(crate) fn set_config(
        &mut self,
        offset: u32,
        bytes: &[u8],
        now: Instant,
    ) -> Result<(), Trouble> {
        let length = bytes.len() as u32;
        let part = ConfigPart { offset: offset.into(), bytes: length.into(), flags: 0.into() };
        let payload = [part.as_bytes(), bytes].concat();
        self.tell(SET_CONFIG, &payload, None, now)?;
        self.ask_for_config(now)
    }

    /// Takes what the back end asks or tells by itself.
    fn hear_questions(&mut self, now: Instant) -> Result<(), Trouble> {
        let mut changed = false;
        for _ in 0..MESSAGES {
            let Some(channel) = &mut self.channel else { break };
            let Some(message) = channel.receive()? else { break };
            let known = message.request == CONFIG_CHANGE_MSG;
            changed |= known;
            if message.flags & Header::NEED_REPLY != 0 {
                let answer = number(u64::from(!known));
                channel.send(message.request, Header::REPLY, &answer, &[])?;
            }
        }
        // An answer that is under way may be from before the change.
        if changed && self.due.iter().any(|due| due.request == GET_CONFIG) {
            self.is_stale = true;
        } else if changed {
            self.ask_for_config(now)?;
        }
        Ok(())
    }

    /// Tells the back end all that it has to know, up to the queues. Of a device that begins anew,
    /// they are told once there is a [`region`](Self::region) for what will be in flight, if the
    /// back end knows of such.
    pub(crate) fn start(
        &mut self,
        setup: &Setup<'_>,
        begins: Begins,
        control: &Control,
        now: Instant,
    ) -> Result<(), Trouble> {
        self.stage = Stage::Started;
        let status = Status::ACKNOWLEDGE | Status::DRIVER;
        self.tell_status(status, now)?;
        self.tell(SET_FEATURES, &number(setup.features | PROTOCOL_FEATURES), None, now)?;
        if self.tell_status(status | Status::FEATURES_OK, now)? {
            self.ask(GET_STATUS, &[], now)?;
        }
        if self.protocol.contains(ProtocolFeatures::BACKEND_REQ) {
            self.open_channel(control, now)?;
        }
        self.tell(SET_MEM_TABLE, &setup.memory_table(), Some(setup.memory), now)?;
        if begins == Begins::Anew && self.protocol.contains(ProtocolFeatures::INFLIGHT_SHMFD) {
            let wanted = setup.region_wanted();
            return self.ask(GET_INFLIGHT_FD, &Region::payload(&wanted), now);
        }
        self.start_queues(setup, None, now)
    }

    /// Tells it where the queues are, and what was in flight.
    pub(crate) fn start_queues(
        &mut self,
        setup: &Setup<'_>,
        region: Option<&Region>,
        now: Instant,
    ) -> Result<(), Trouble> {
        if let Some(Region { descriptor, what }) = region {
            let wanted = setup.region_wanted();
            let what =
                InflightRegion { bytes: what.bytes, file_offset: what.file_offset, ..wanted };
            let payload = Region::payload(&what);
            self.tell(SET_INFLIGHT_FD, &payload, Some(descriptor.as_fd()), now)?;
        }
        for queue in setup.queues() {
            for (request, payload, descriptor) in queue.messages() {
                self.tell(request, &payload, descriptor, now)?;
            }
        }
        let status = Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK;
        self.tell_status(status | Status::DRIVER_OK, now).map(drop)
    }

    /// Takes a queue away.
    pub(crate) fn stop_queue(&mut self, queue: u32, now: Instant) -> Result<(), Trouble> {
        let state = VringState { index: queue.into(), number: 0.into() };
        self.ask(GET_VRING_BASE, state.as_bytes(), now)
    }

    /// Tells how far the driver is, if the back end wants to know.
    fn tell_status(&mut self, status: Status, now: Instant) -> Result<bool, Trouble> {
        let wanted = self.protocol.contains(ProtocolFeatures::STATUS);
        if wanted {
            self.tell(SET_STATUS, &number(status.bits().into()), None, now)?;
        }
        Ok(wanted)
    }

    /// Gives the back end a socket to ask on.
    fn open_channel(&mut self, control: &Control, now: Instant) -> Result<(), Trouble> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let (ours, theirs) = pair.map_err(|error| Trouble::System("a socket", error))?;
        // The other end blocks or not as its owner likes.
        rustix::io::ioctl_fionbio(&theirs, false)
            .map_err(|error| Trouble::System("a socket", error))?;
        control.watch(ours.as_fd())?;
        self.tell(SET_BACKEND_REQ_FD, &[], Some(theirs.as_fd()), now)?;
        self.channel = Some(Wire::new(ours));
        Ok(())
    }

    /// Sends what is answered.
    fn ask(&mut self, request: u32, payload: &[u8], now: Instant) -> Result<(), Trouble> {
        self.wire.send(request, 0, payload, &[])?;
        self.due.push_back(Due { request, is_acknowledgement: false, since: now });
        Ok(())
    }

    /// Sends what is acknowledged, if the back end does that.
    fn tell(
        &mut self,
        request: u32,
        payload: &[u8],
        descriptor: Option<BorrowedFd<'_>>,
        now: Instant,
    ) -> Result<(), Trouble> {
        let is_acknowledged = self.protocol.contains(ProtocolFeatures::REPLY_ACK);
        let flags = if is_acknowledged { Header::NEED_REPLY } else { 0 };
        self.wire.send(request, flags, payload, descriptor.as_slice())?;
        if is_acknowledged {
            self.due.push_back(Due { request, is_acknowledgement: true, since: now });
        }
        Ok(())
    }
}

/// A payload that is a number.
const fn number(value: u64) -> [u8; 8] {
    value.to_le_bytes()
}
