//! A client of a card, from its connection to its end.

use super::Card;
use super::buffers::Buffers;
use super::config::{MAX_PAIRS, offer};
use super::transmit::Leaving;
use crate::client::Client;
use crate::device::Device;
use crate::error::Violation;
use crate::reach::Reach;
use outboard_net::Offloads;
use outboard_virtio::net::features::capabilities;
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::net::{Header, LEAST_MTU, NetFeatures, receive_queue, transmit_queue};
use outboard_virtio::spec::vhost_user::MAX_CONFIG_BYTES;
use rustix::io;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What has passed between a client and its card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Frames that the client has sent.
    pub sent: u64,
    /// Frames of the client's that were none, or that the card does not take.
    pub unsent: u64,
    /// Frames that the client has received.
    pub received: u64,
    /// Frames for the client that did not fit into its buffers, or came while it did not receive.
    pub missed: u64,
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, unsent, received, missed } = self;
        write!(
            f,
            "it sent {sent} frames, and {unsent} that were dropped; {received} came for it, "
        )?;
        write!(f, "and {missed} that were dropped")
    }
}

/// A client of a card, by vhost-user; see [the crate](crate).
pub struct NetSession {
    id: u32,
    pub(super) client: Client,
    pub(super) traffic: Traffic,
    /// A frame waits for more buffers than the driver has made available.
    pub(super) is_short: bool,
    /// By the card's queue: how many segments of the frame that waits longest were passed on, if it
    /// is cut here.
    pub(super) begun: Vec<usize>,
    /// Reused between bursts.
    pub(super) leaving: Leaving,
    /// Reused between bursts.
    pub(super) buffers: Buffers,
    /// Reused between frames that are not copied as they are.
    pub(super) scratch: Vec<u8>,
}

/// What device and driver have agreed upon.
#[derive(Debug, Clone, Copy)]
pub(super) struct Agreed {
    /// Bytes of what stands before a frame in memory.
    pub(super) header_bytes: usize,
    /// Whether a frame may take several buffers.
    pub(super) merges: bool,
    /// What is done to frames that are sent.
    pub(super) transmit: Offloads,
    /// What the driver takes of frames that are received.
    pub(super) receive: Offloads,
}

impl NetSession {
    /// A client that has just connected to a card.
    pub fn new(socket: OwnedFd, id: u32, card: &Card) -> io::Result<Self> {
        Ok(Self {
            id,
            client: Client::new(socket, offer(card.interface()), Reach::default())?,
            traffic: Traffic::default(),
            is_short: false,
            begun: Vec::new(),
            leaving: Leaving::default(),
            buffers: Buffers::default(),
            scratch: Vec::new(),
        })
    }

    /// The session's number.
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Takes note of what its descriptor tells; [`work`](Self::work) does the rest.
    pub fn receive(&mut self) {
        self.client.receive();
    }

    /// Answers messages, passes frames from the rings to the card and from the card to the rings.
    /// Whether there is more to do at once.
    pub fn work(&mut self, card: &mut Card) -> bool {
        if self.client.is_closed() {
            return false;
        }
        let result = self.try_work(card);
        if let Err(violation) = result {
            self.client.close(violation);
        }
        result.unwrap_or_default()
    }

    fn try_work(&mut self, card: &mut Card) -> Result<bool, Violation> {
        let mut more = false;
        if !self.client.is_finishing() {
            let mut asked = Asked { mtu: card.interface().shape.mtu };
            more |= self.client.answer_messages(&mut asked)?;
        }
        let agreed = self.agreed();
        for pair in 0..MAX_PAIRS as u16 {
            let ring = usize::from(transmit_queue(pair));
            if self.is_running(ring) {
                more |=
                    self.transmit(ring, usize::from(pair) % card.queues().max(1), card, agreed)?;
            }
        }
        self.is_short = false;
        self.begun.resize(card.queues(), 0);
        for queue in 0..card.queues() {
            more |= self.pass_on(queue, card, agreed)?;
        }
        self.client.publish();
        self.client.check_memory().map(|()| more)
    }

    fn agreed(&self) -> Agreed {
        let features = NetFeatures::from_bits_retain(self.client.features);
        let merges = features.contains(NetFeatures::MRG_RXBUF);
        let whole = merges || self.client.features & Features::VERSION_1.bits() != 0;
        let able = capabilities(features);
        Agreed {
            // Drafts of the specification have no number of buffers there unless it is needed.
            header_bytes: if whole { Header::BYTES } else { Header::SHORT_BYTES },
            merges,
            transmit: able.transmit,
            receive: able.receive,
        }
    }

    /// Whether frames are taken from a ring, or put into it.
    pub(super) fn is_running(&self, ring: usize) -> bool {
        let vring = &self.client.vrings[ring];
        let stopping = self.client.stopping == Some(ring);
        vring.enabled && vring.ring.is_some() && !stopping && !self.client.is_finishing()
    }

    /// The ring into which frames of one of the card's queues go: those that the client receives by
    /// are taken in turn.
    pub(super) fn receive_ring(&self, queue: usize) -> Option<usize> {
        let rings = || {
            let rings = (0..MAX_PAIRS as u16).map(|pair| usize::from(receive_queue(pair)));
            rings.filter(|ring| self.is_running(*ring))
        };
        match rings().count() {
            0 => None,
            count => rings().nth(queue % count),
        }
    }

    /// Asks the driver to tell when there is something that is waited for, before the loop sleeps;
    /// whether it is there already.
    pub fn sleep(&mut self, card: &Card) -> bool {
        if self.client.is_closed() || self.client.is_finishing() {
            return false;
        }
        let mut any = false;
        for pair in 0..MAX_PAIRS as u16 {
            // What the card does not take waits for the card.
            let has_room = card.has_room(usize::from(pair) % card.queues().max(1));
            any |= has_room && self.listen(transmit_queue(pair).into());
        }
        for queue in (0..card.queues()).filter(|queue| card.has_arrived(*queue)) {
            let ring = self.receive_ring(queue);
            any |= ring.is_some_and(|ring| self.listen(ring)) && !self.is_short;
        }
        any
    }

    fn listen(&mut self, ring: usize) -> bool {
        let running = self.is_running(ring);
        let ring = self.client.vrings[ring].ring.as_mut().filter(|_| running);
        ring.is_some_and(|ring| ring.listen())
    }

    /// Whether to look again soon, although nobody will tell: a frame waits for buffers, of which
    /// there are some.
    pub const fn is_short(&self) -> bool {
        self.is_short
    }

    /// What has passed so far.
    pub const fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Takes no more frames, and no messages.
    pub const fn finish(&mut self) {
        self.client.finish();
    }

    /// Why the client was disconnected, if it was; it may also just have gone.
    pub const fn closed(&self) -> Option<Violation> {
        self.client.closed()
    }

    /// Whether the client is gone: another one can come.
    pub const fn is_over(&self) -> bool {
        self.client.is_closed()
    }
}

/// The card, as messages ask about it.
struct Asked {
    mtu: u16,
}

impl Device for Asked {
    /// There is none to be asked for.
    fn config(&self) -> [u8; MAX_CONFIG_BYTES] {
        [0; MAX_CONFIG_BYTES]
    }

    fn set_config(&mut self, _offset: usize, _bytes: &[u8]) -> bool {
        false
    }

    fn set_mtu(&mut self, mtu: u64) -> bool {
        (LEAST_MTU.into()..=self.mtu.into()).contains(&mtu)
    }
}

impl AsFd for NetSession {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.client.as_fd()
    }
}

impl fmt::Debug for NetSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetSession")
            .field("id", &self.id)
            .field("traffic", &self.traffic)
            .field("closed", &self.client.closed())
            .finish_non_exhaustive()
    }
}
