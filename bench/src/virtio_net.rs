//! What a frame costs in a virtio network card's driver and its rings: the driver alone, beside a
//! card in this process whose work is not counted. What is counted is what is of disks (`virtio.rs`); of
//! frames that come in, `post` is part of it.

use crate::Part;
use crate::frames::{self, BATCH, Case, Way};
use crate::peers::card::{CardTransport, MAC};
use outboard_hw::Instant;
use outboard_hw::dma::{Constraints, DmaPool, SgList};
use outboard_net::{Completions, Frame, InterfaceState, NetDriver, Posted, Tag};
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::net::{Header, NetFeatures, receive_queue, transmit_queue};
use outboard_virtio::{Net, NetConfig};
use std::collections::VecDeque;

/// Bytes of a frame.
const FRAME_BYTES: usize = 64;
/// Entries of the queues.
const ENTRIES: u16 = 256;

const CASES: [Case; 6] = [
    ("virtio-net: send, split", false, Way::Out, 205),
    ("virtio-net: send, split, header apart", false, Way::OutApart, 236),
    ("virtio-net: receive, split", false, Way::In, 231),
    ("virtio-net: send, packed", true, Way::Out, 218),
    ("virtio-net: send, packed, header apart", true, Way::OutApart, 248),
    ("virtio-net: receive, packed", true, Way::In, 237),
];

/// Frames of 64 bytes, 32 at a time, either way, in both layouts.
pub(crate) fn parts() -> impl Iterator<Item = Part> {
    frames::parts(CASES, Bench::new, Bench::round)
}

struct Bench {
    driver: Net<CardTransport>,
    device: CardTransport,
    way: Way,
    /// What is to be sent, and what is to be posted.
    frames: VecDeque<Box<Frame>>,
    buffers: VecDeque<Box<Posted>>,
    done: Completions,
}

impl Bench {
    fn new(packed: bool, way: Way) -> Self {
        let mut rings = Features::INDIRECT | Features::EVENT_INDEX;
        rings.set(Features::PACKED, packed);
        let features = NetFeatures::MRG_RXBUF | NetFeatures::MAC;
        let device = CardTransport::new(features.bits() | rings.bits(), 1, ENTRIES);
        let mut driver = Net::new(device.clone(), NetConfig::default()).expect("a driver");
        driver.poll(Instant::ORIGIN, &mut Completions::new());
        assert_eq!(driver.interface().state, InterfaceState::Ready);
        assert_eq!(driver.interface().permanent_mac.0, MAC);
        driver.mask(true);
        let pool = DmaPool::new(&*driver.dma(), 2048, 2 * BATCH, &Constraints::NONE);
        let pool = pool.expect("memory for frames");
        let buffers = || (0..BATCH).map(|_| pool.allocate().expect("a block of the pool"));
        let start = if way == Way::Out { 64 } else { 0 };
        let frames = buffers().map(|buffer| SgList::single(buffer, start..start + FRAME_BYTES));
        let frames = frames.map(|data| Box::new(Frame::plain(Tag(7), data))).collect();
        let buffers = buffers().map(|buffer| Box::new(Posted { tag: Tag(7), buffer })).collect();
        Self { driver, device, way, frames, buffers, done: Completions::new() }
    }

    /// As many frames as there are at a time.
    fn round(&mut self) {
        match self.way {
            Way::Out | Way::OutApart => {
                self.marked_submit();
                let sent = self.device.card().drain(transmit_queue(0));
                assert!(sent.iter().all(|frame| frame.len() == Header::BYTES + FRAME_BYTES));
            }
            Way::In => {
                self.marked_post();
                let header = Header { buffers: 1.into(), ..Header::default() };
                let mut card = self.device.card();
                while card.deliver(receive_queue(0), &header, &[7; FRAME_BYTES]) {}
            }
        }
        self.marked_reap();
        self.frames.extend(self.done.sent.drain(..).map(|sent| sent.frame));
        self.buffers.extend(self.done.received.drain(..).map(|received| received.posted));
        assert_eq!((self.frames.len(), self.buffers.len()), (BATCH, BATCH), "all came back");
    }

    #[inline(never)]
    fn marked_submit(&mut self) {
        self.driver.submit(0, &mut self.frames).expect("there is room");
        self.driver.kick(Instant::ORIGIN);
    }

    #[inline(never)]
    fn marked_post(&mut self) {
        self.driver.post(0, &mut self.buffers).expect("there is room");
        self.driver.kick(Instant::ORIGIN);
    }

    #[inline(never)]
    fn marked_reap(&mut self) {
        self.driver.poll(Instant::ORIGIN, &mut self.done);
    }
}
