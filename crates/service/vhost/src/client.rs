//! One connection, whatever the device is: messages, memory, rings.

use crate::call::{Call, signal};
use crate::device::{Device, Offer};
use crate::error::Violation;
use crate::inflight::Inflight;
use crate::memory::Memory;
use crate::queue::Vring;
use crate::reach::Reach;
use crate::socket::{Received, Socket};
use outboard_virtio::spec::vhost_user::{Header, ProtocolFeatures, backend_request};
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io;
use rustix::net::{SendFlags, send};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use zerocopy::IntoBytes;

/// Messages that are answered in a turn; the others have theirs next.
const MESSAGES: usize = 64;

/// A client, of whatever device.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) socket: Socket,
    /// Waits for the socket and for kicks.
    epoll: OwnedFd,
    /// The socket may have something.
    readable: bool,
    gone: bool,
    closed: Option<Violation>,
    finishing: bool,
    pub(crate) offer: Offer,
    pub(crate) features: u64,
    pub(crate) protocol: ProtocolFeatures,
    pub(crate) memory: Rc<Memory>,
    /// How the device comes to transfer there, if it can.
    pub(crate) reach: Rc<Reach>,
    pub(crate) inflight: Option<Inflight>,
    pub(crate) vrings: Vec<Vring>,
    /// How many of them, from the first on, the front end has ever named: most never are.
    pub(crate) named: usize,
    /// The ring that stops once what is under way has ended.
    pub(crate) stopping: Option<usize>,
    /// Where the back end asks.
    pub(crate) back: Option<OwnedFd>,
}

impl Client {
    /// A client that has just connected.
    pub(crate) fn new(socket: OwnedFd, offer: Offer, reach: Reach) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        // Each new event is told once, and the descriptor is not read for it: reading kicks would
        // let a client hold us.
        let wanted = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&epoll, &socket, EventData::new_u64(SOCKET), wanted)?;
        Ok(Self {
            socket: Socket::new(socket),
            epoll,
            readable: true,
            gone: false,
            closed: None,
            finishing: false,
            vrings: (0..offer.queues).map(|_| Vring::default()).collect(),
            named: 0,
            offer,
            features: 0,
            protocol: ProtocolFeatures::empty(),
            memory: Rc::default(),
            reach: Rc::new(reach),
            inflight: None,
            stopping: None,
            back: None,
        })
    }

    /// Takes note of what its descriptor tells.
    pub(crate) fn receive(&mut self) {
        let mut events = Vec::with_capacity(2 * self.vrings.len());
        let timeout = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        let spare = rustix::buffer::spare_capacity(&mut events);
        if epoll::wait(&self.epoll, spare, Some(&timeout)).is_ok() {
            // A kick need not be known by its ring: all rings are looked at.
            self.readable |= events.iter().any(|event: &Event| {
                let data = event.data;
                data.u64() == SOCKET
            });
        }
    }

    /// Answers messages; whether there may be more.
    pub(crate) fn answer_messages(&mut self, device: &mut dyn Device) -> Result<bool, Violation> {
        let calls = self.vrings[..self.named].iter().filter_map(|vring| vring.call.as_deref());
        if calls.into_iter().any(Call::blocks) {
            return Err(Violation::CallBlocks);
        }
        self.socket.transmit()?;
        self.answer_stop()?;
        for _ in 0..MESSAGES {
            if !self.readable || self.stopping.is_some() || self.socket.is_full() {
                return Ok(false);
            }
            match self.socket.receive()? {
                Received::Message(message) => self.answer(message, device)?,
                Received::Nothing => self.readable = false,
                Received::Gone => {
                    self.gone = true;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Tells the front end that the configuration has changed.
    pub(crate) fn tell_config(&self) {
        let Some(back) = &self.back else { return };
        let header = Header {
            request: backend_request::CONFIG_CHANGE_MSG.into(),
            flags: Header::VERSION.into(),
            bytes: 0.into(),
        };
        // A front end that does not listen learns of it when it asks.
        let _ = send(back, header.as_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }

    /// Shows the driver what has ended, in all rings.
    pub(crate) fn publish(&mut self) {
        self.vrings[..self.named].iter_mut().for_each(Vring::publish);
    }

    /// An error if memory has turned out to be shorter than it was.
    pub(crate) fn check_memory(&self) -> Result<(), Violation> {
        let gone = self.memory.is_gone() || self.inflight.as_ref().is_some_and(Inflight::is_gone);
        if gone { Err(Violation::MemoryGone) } else { Ok(()) }
    }

    /// Asks the driver to tell when there is something new; whether there is something already.
    pub(crate) fn listen(&mut self) -> bool {
        let running = self.vrings[..self.named].iter_mut().filter(|vring| vring.enabled);
        running.filter_map(|vring| vring.ring.as_mut()).fold(false, |any, ring| ring.listen() | any)
    }

    /// Takes no more requests, and no messages.
    pub(crate) const fn finish(&mut self) {
        self.finishing = true;
    }

    /// Whether nothing more is taken from it.
    pub(crate) const fn is_finishing(&self) -> bool {
        self.finishing
    }

    /// Why it was disconnected, if it was; it may also just have gone.
    pub(crate) const fn closed(&self) -> Option<Violation> {
        self.closed
    }

    pub(crate) const fn is_closed(&self) -> bool {
        self.closed.is_some() || self.gone
    }

    pub(crate) fn close(&mut self, violation: Violation) {
        self.closed = Some(violation);
        self.vrings.iter().for_each(|vring| signal(vring.error.as_ref()));
    }

    /// Waits for kicks of a ring by this descriptor, instead of by the one before; whether they can
    /// be waited for.
    pub(crate) fn set_kick(&mut self, queue: usize, kick: Option<OwnedFd>) -> bool {
        if let Some(old) = self.vrings[queue].kick.take() {
            let _ = epoll::delete(&self.epoll, &old);
        }
        let wanted = EventFlags::IN | EventFlags::ET;
        let number = EventData::new_u64(KICK);
        let good =
            kick.as_ref().is_none_or(|kick| epoll::add(&self.epoll, kick, number, wanted).is_ok());
        self.vrings[queue].kick = kick;
        good
    }
}

/// What the descriptors that are waited for are known by.
const SOCKET: u64 = 0;
const KICK: u64 = 1;

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
