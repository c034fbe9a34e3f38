//! Network cards from both sides: a hostile device for the driver, or a hostile front end for the
//! back end.
//!
//! The first byte's highest bit says which. Of a device three more bytes say what it is, and steps
//! follow as of a disk (see [`crate::virtio()`]); a client is described as in [`crate::vhost()`].
//!
//! Required, whatever the device does: no panic; bounded work in each call; a deadline that lets
//! time pass; each frame and each buffer comes back once; after `stop` the driver comes to rest.

use crate::input::{ADVANCE_MS, Input, MAX_POLLS, MAX_STEPS};
use crate::virtio::model::Handle;
use crate::virtio::{HANDLE, MAX_LAST_POLLS, RESET_TIME};
use outboard_hw::Instant;
use outboard_hw::dma::{Constraints, DmaSpace, SgList};
use outboard_net::{
    Checksum, Completions, Frame, MacAddress, NetDriver, Offloads, Posted, ReceiveMode,
    Segmentation, SegmentationKind, Settings, Tag, Work,
};
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::net::NetFeatures;
use outboard_virtio::{Net, NetConfig};
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Buffers and frames that the driver has at most.
const MAX_HELD: usize = 64;

/// Runs the driver against the device, or the back end for the client, that `input` describes.
pub fn net(input: &[u8]) {
    let mut input = Input(input);
    let general = input.byte();
    if general & 0x80 != 0 {
        return crate::vhost::card(input);
    }
    let handle = HANDLE.clone();
    handle.space.exhausted.store(false, Ordering::Relaxed);
    let [rings, card, more] = [(); 3].map(|()| input.byte());
    handle.model().reset_card(rings, card, more);
    {
        let mut model = handle.model();
        (model.legacy, model.one_vector) = (general & 1 != 0, general & 2 != 0);
    }
    let config = NetConfig {
        queues: 1 + u16::from(general >> 2 & 1),
        queue_entries: 16,
        segments: 4,
        receive: if general & 8 != 0 { Offloads::all() } else { Offloads::empty() },
        without: if general & 0x10 != 0 { Features::INDIRECT } else { Features::empty() },
        without_net: NetFeatures::empty(),
        send_time: Duration::from_secs(2),
        command_time: Duration::from_secs(2),
        reset_time: RESET_TIME,
        ..NetConfig::default()
    };
    let Ok(driver) = Net::new(handle.clone(), config) else { return };
    let now = Instant::ORIGIN;
    let mut bench = Bench { driver, handle, now, held: BTreeSet::new(), next: 0 };
    for _ in 0..3 {
        let deadline = bench.poll();
        bench.now = bench.now.max(deadline.unwrap_or(bench.now));
        bench.serve(0);
    }
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        bench.step(&mut input);
    }
    bench.end(general >> 5 & 3);
}

/// The driver and all around it.
struct Bench {
    driver: Net<Handle>,
    handle: Handle,
    now: Instant,
    /// What the driver has, by its tag.
    held: BTreeSet<u64>,
    next: u64,
}

impl Bench {
    /// One call of `poll`, and as many more as the driver asks for at this instant. Returns when
    /// the driver wants to be polled next.
    fn poll(&mut self) -> Option<Instant> {
        for _ in 0..MAX_POLLS {
            self.handle.model().accesses = 0;
            let (mut done, mut follow) = (Completions::new(), 0);
            self.driver.poll(self.now, &mut done);
            for piece in &done.received {
                assert!(piece.bytes.end <= piece.posted.buffer.len() && !piece.bytes.is_empty());
                assert!(follow == 0 || follow == piece.more + 1, "pieces come in order");
                follow = piece.more;
            }
            let received = done.received.iter().map(|piece| piece.posted.tag);
            let returned = done.returned.iter().map(|returned| returned.posted.tag);
            for tag in done.sent.iter().map(|sent| sent.frame.tag).chain(received).chain(returned) {
                assert!(self.held.remove(&tag.0), "what the driver has comes back, and once");
            }
            assert_eq!(follow, 0, "all pieces come together");
            let deadline = self.driver.next_deadline();
            if !deadline.is_some_and(|deadline| self.now.reached(deadline)) {
                return deadline;
            }
        }
        panic!("the driver wants to be polled over and over at {:?}: {:?}", self.now, self.driver);
    }

    fn kick(&mut self) {
        self.handle.model().accesses = 0;
        self.driver.kick(self.now);
    }

    /// The usual course: the device does all that it has, and says so.
    fn serve(&mut self, status: u8) {
        let vectors = self.handle.model().serve(status);
        (0..vectors).for_each(|vector| self.driver.interrupt(vector));
        self.poll();
    }

    /// One step: its kind in the lower four bits of a byte, a small operand in the upper four.
    fn step(&mut self, input: &mut Input<'_>) {
        let code = input.byte();
        let small = code >> 4;
        match code & 0xf {
            0 => {
                let deadline = self.driver.next_deadline().unwrap_or(self.now);
                self.now = self.now.max(deadline);
                self.poll();
            }
            1 => {
                self.now = self.now + Duration::from_millis(ADVANCE_MS[usize::from(small & 7)]);
                self.poll();
            }
            2 => {
                self.driver.interrupt(small.into());
                self.poll();
            }
            3 => self.driver.mask(small & 1 == 1),
            4 => (0..=small).for_each(|number| self.post(u16::from(number & 1))),
            5 => {
                let operand = input.byte();
                self.send(operand, small);
            }
            6 => self.driver.stop(),
            7 => self.settings(input.byte(), small),
            8 => self.serve(0),
            9 => self.serve(small),
            10 => self.handle.space.exhausted.store(small & 1 == 1, Ordering::Relaxed),
            _ => self.handle.model().step(code & 0xf, small, input),
        }
    }

    fn tag(&mut self) -> Option<Tag> {
        self.next += 1;
        (self.held.len() < MAX_HELD).then_some(Tag(self.next))
    }

    fn post(&mut self, queue: u16) {
        let bytes = self.driver.interface().shape.least_buffer_bytes.max(1536);
        let Some(tag) = self.tag() else { return };
        let Ok(buffer) = self.driver.dma().allocate(bytes, &Constraints::NONE) else { return };
        let mut burst = VecDeque::from([Box::new(Posted { tag, buffer })]);
        let result = self.driver.post(queue, &mut burst);
        assert_eq!(result.is_ok(), burst.is_empty());
        if result.is_ok() {
            self.held.insert(tag.0);
        }
        self.kick();
    }

    /// Sends a frame in one to four pieces, with what may be to be done to it.
    fn send(&mut self, operand: u8, small: u8) {
        let Some(tag) = self.tag() else { return };
        let mut data = SgList::EMPTY;
        for _ in 0..=small & 3 {
            let bytes = 10 + 12 * usize::from(operand & 0x3f);
            let Ok(buffer) = self.driver.dma().allocate(bytes + 12, &Constraints::NONE) else {
                return;
            };
            let start = usize::from(small & 12);
            data.push(buffer, start..start + bytes);
        }
        let checksum = (operand & 0x40 != 0).then_some(Checksum { start: 14, offset: 6 });
        let kind = SegmentationKind::Tcp4;
        let segments = Segmentation { kind, ecn: false, segment_bytes: 100, header_bytes: 20 };
        let segmentation = (operand & 0x80 != 0).then_some(segments);
        let work = Work { checksum, segmentation, vlan_tag: None };
        let mut burst = VecDeque::from([Box::new(Frame { tag, data, work })]);
        let result = self.driver.submit(u16::from(small >> 2 & 1), &mut burst);
        assert_eq!(result.is_ok(), burst.is_empty());
        if result.is_ok() {
            self.held.insert(tag.0);
        }
        self.kick();
    }

    fn settings(&mut self, operand: u8, small: u8) {
        let mut settings = Settings::DEFAULT;
        settings.mac = (operand & 0x80 != 0).then_some(MacAddress([2, 0, 0, 0, 0, small]));
        settings.mode = ReceiveMode::from_bits_truncate(operand & 0x3f);
        let _ = settings.multicast.push(MacAddress([1, 0, 0, 0, 0, operand]));
        settings.vlans.insert(small.into());
        let _ = self.driver.configure(&settings);
        self.poll();
    }

    fn end(mut self, how: u8) {
        match how {
            0 => self.handle.model().heal(),
            1 => self.handle.model().removed = true,
            _ => {}
        }
        if how != 3 {
            self.driver.stop();
            self.run_down();
            assert!(self.held.is_empty(), "something did not come back");
        }
        let Self { driver, handle, .. } = self;
        handle.model().accesses = 0;
        drop(driver);
        assert!(handle.model().was_told_to_reset(), "the device was left at work");
        let statistics = handle.space.statistics();
        assert_eq!((statistics.buffers, statistics.used_bytes), (0, 0), "memory was lost");
    }

    /// Until the driver is at rest.
    fn run_down(&mut self) {
        for _ in 0..MAX_LAST_POLLS {
            let deadline = self.poll();
            if self.driver.is_stopped() {
                return;
            }
            assert!(deadline.is_some(), "the driver waits for nothing: {:?}", self.driver);
            self.now = self.now.max(deadline.unwrap_or(self.now));
        }
        panic!("the driver does not stop: {:?}", self.driver);
    }
}
