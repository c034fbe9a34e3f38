//! Network cards that lie, that do not answer, and that come back as others.

mod support;

use outboard_hw::Instant;
use outboard_hw::dma::{Constraints, DmaBuffer, DmaPool, SgList};
use outboard_net::{
    Arrival, Completions, FailedReason, Frame, InterfaceState, NetDriver, Offloads, Posted,
    ReceiveMode, RefusedReason, Settings, SettingsState, Tag, Work,
};
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::net::{
    ACK_ERROR, ACK_OK, ANNOUNCE, GSO_TCP4, Header, LINK_UP, NEEDS_CHECKSUM, NetFeatures, STATUS,
};
use outboard_virtio::spec::status::Status;
use outboard_virtio::{Net, NetConfig};
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;
use support::card::{CardTransport, MAC};
use support::noise;
use vm_memory::{Bytes, GuestAddress};

const ENTRIES: u16 = 16;
/// The queues of a card with one pair.
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const CONTROL: u16 = 2;

/// The driver, its device, and who owns which memory.
struct Rig {
    driver: Net<CardTransport>,
    device: CardTransport,
    now: Instant,
    /// Buffers that the driver has, and frames.
    posted: BTreeSet<u64>,
    submitted: BTreeSet<u64>,
    next_tag: u64,
    received: Vec<(Arrival, Vec<u8>)>,
    pieces: Vec<u8>,
    returned: usize,
    lost: usize,
    spare: Vec<DmaBuffer>,
    /// How the device answers commands; not at all if `None`.
    answer: Option<u8>,
    commands: Vec<Vec<u8>>,
}

impl Rig {
    fn new(features: NetFeatures, rings: Features) -> Self {
        Self::with(features, rings, NetConfig::default())
    }

    fn with(features: NetFeatures, rings: Features, config: NetConfig) -> Self {
        let device = CardTransport::new(features.bits() | rings.bits(), 1, ENTRIES);
        let config =
            NetConfig { receive: Offloads::all(), send_time: Duration::from_secs(5), ..config };
        let driver = Net::new(device.clone(), config).unwrap();
        let mut rig = Self {
            driver,
            device,
            now: Instant::ORIGIN,
            posted: BTreeSet::new(),
            submitted: BTreeSet::new(),
            next_tag: 0,
            received: Vec::new(),
            pieces: Vec::new(),
            returned: 0,
            lost: 0,
            spare: Vec::new(),
            answer: Some(ACK_OK),
            commands: Vec::new(),
        };
        rig.settle();
        rig
    }

    fn state(&self) -> InterfaceState {
        self.driver.interface().state
    }

    fn poll(&mut self) {
        let mut done = Completions::new();
        self.driver.poll(self.now, &mut done);
        for piece in done.received {
            let Posted { tag, buffer } = *piece.posted;
            assert!(self.posted.remove(&tag.0), "it was posted, and comes back once");
            let start = self.pieces.len();
            self.pieces.resize(start + piece.bytes.len(), 0);
            buffer.read_bytes(piece.bytes.start, &mut self.pieces[start..]);
            self.spare.push(buffer);
            if piece.more == 0 {
                assert_eq!(piece.arrival.bytes as usize, self.pieces.len());
                self.received.push((piece.arrival, std::mem::take(&mut self.pieces)));
            }
        }
        for sent in done.sent {
            assert!(self.submitted.remove(&sent.frame.tag.0), "it comes back once");
            self.lost += usize::from(sent.result.is_err());
        }
        for returned in done.returned {
            let Posted { tag, buffer } = *returned.posted;
            assert!(self.posted.remove(&tag.0), "it was posted, and comes back once");
            self.returned += 1;
            self.spare.push(buffer);
        }
        assert!(self.pieces.is_empty(), "the pieces of a frame come together");
    }

    /// The device answers commands, if it does.
    fn serve(&mut self) {
        let mut card = self.device.card();
        while let Some(answer) = self.answer
            && let Some(chain) = card.pop(CONTROL)
        {
            self.commands.push(card.content(&chain));
            let bytes = card.fill(&chain, &[answer]);
            card.push(CONTROL, &chain, bytes);
        }
        self.driver.interrupt(0);
    }

    /// Until nothing more happens at this moment.
    fn settle(&mut self) {
        for _ in 0..20 {
            self.poll();
            self.serve();
        }
        self.poll();
    }

    /// Lets time pass.
    fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        self.settle();
    }

    fn post(&mut self) {
        loop {
            let buffer = self
                .spare
                .pop()
                .unwrap_or_else(|| self.driver.dma().allocate(2048, &Constraints::NONE).unwrap());
            self.next_tag += 1;
            let posted = Box::new(Posted { tag: Tag(self.next_tag), buffer });
            let mut burst = VecDeque::from([posted]);
            let result = self.driver.post(0, &mut burst);
            assert_eq!(result.is_ok(), burst.is_empty());
            if let Some(posted) = burst.pop_front() {
                self.spare.push(posted.buffer);
                break;
            }
            assert!(self.posted.insert(self.next_tag));
        }
        self.driver.kick(self.now);
    }

    fn submit(&mut self, bytes: usize) -> Result<(), RefusedReason> {
        let mut buffer = self.driver.dma().allocate(4096, &Constraints::NONE).unwrap();
        buffer.write_bytes(64, &noise(1, bytes));
        self.next_tag += 1;
        let data = SgList::single(buffer, 64..64 + bytes);
        let frame = Box::new(Frame::plain(Tag(self.next_tag), data));
        self.driver.submit(0, &mut [frame].into())?;
        self.submitted.insert(self.next_tag);
        self.driver.kick(self.now);
        Ok(())
    }

    fn counter(&self, name: &str) -> u64 {
        let mut found = None;
        self.driver.counters(&mut |counter, value| {
            found = found.or((counter == name).then_some(value));
        });
        found.unwrap()
    }

    /// A frame comes and one goes.
    fn works(&mut self) {
        assert_eq!(self.state(), InterfaceState::Ready);
        self.post();
        let frame = noise(7, 100);
        assert!(self.device.card().deliver(RECEIVE, &one(), &frame));
        self.received.clear();
        self.poll();
        assert_eq!(self.received.len(), 1);
        assert!(self.received[0].1 == frame);
        self.submit(80).unwrap();
        assert!(self.device.card().drain(TRANSMIT)[0][12..] == noise(1, 80));
        self.poll();
        assert!(self.submitted.is_empty());
    }
}

/// What stands before a frame of one buffer.
fn one() -> Header {
    Header { buffers: 1.into(), ..Header::default() }
}

/// Both layouts.
const LAYOUTS: [Features; 2] = [Features::empty(), Features::PACKED];

fn usual() -> NetFeatures {
    NetFeatures::all()
        .difference(NetFeatures::MQ | NetFeatures::CTRL_RX_EXTRA | NetFeatures::SPEED_DUPLEX)
}

#[test]
fn bursts_are_taken_in_order_up_to_what_is_refused() {
    for layout in LAYOUTS {
        let mut rig = Rig::new(usual().difference(NetFeatures::HOST_UFO), layout);
        let pool = DmaPool::new(&*rig.driver.dma(), 2048, 64, &Constraints::NONE).unwrap();
        let frame = |tag: u64, bytes: usize, pieces: usize| {
            let mut data = SgList::EMPTY;
            for piece in noise(tag, bytes).chunks(bytes.div_ceil(pieces)) {
                let mut buffer = pool.allocate().unwrap();
                buffer.write_bytes(64, piece);
                data.push(buffer, 64..64 + piece.len());
            }
            Box::new(Frame::plain(Tag(tag), data))
        };
        let tagged = Work { vlan_tag: Some(1), ..Work::NONE };
        let mut burst: VecDeque<_> = [(80, 1), (90, 3), (13, 1), (70, 1), (60, 1)]
            .into_iter()
            .zip(1..)
            .map(|((bytes, pieces), tag)| frame(tag, bytes, pieces))
            .collect();
        burst[3].work = tagged;
        let mut submit = |burst: &mut VecDeque<_>| rig.driver.submit(0, burst);
        assert_eq!(submit(&mut burst), Err(RefusedReason::BadLength { most: 1518 }));
        assert_eq!(burst.pop_front().map(|frame| frame.tag), Some(Tag(3)));
        assert_eq!(submit(&mut burst), Err(RefusedReason::BadWork));
        assert_eq!(burst.pop_front().map(|frame| frame.tag), Some(Tag(4)));
        assert_eq!((submit(&mut burst), burst.len()), (Ok(()), 0));
        // A frame in three pieces takes four descriptors here.
        burst.extend((6..30).map(|tag| frame(tag, 60, 1)));
        assert_eq!(submit(&mut burst), Err(RefusedReason::QueueFull));
        let left = burst.len();
        assert_eq!((left, burst[0].tag), (24 - 10, Tag(6 + 10)));
        rig.driver.kick(rig.now);
        let sent = rig.device.card().drain(TRANSMIT);
        let expected = [(1, 80), (2, 90), (5, 60)].into_iter().chain((6..16).map(|tag| (tag, 60)));
        assert!(sent.iter().map(|sent| &sent[12..]).eq(expected.map(|(tag, len)| noise(tag, len))));
        let mut done = Completions::new();
        rig.driver.poll(rig.now, &mut done);
        assert_eq!(done.sent.len(), 13);
        assert_eq!((rig.driver.submit(0, &mut burst), burst.len()), (Ok(()), 0));
    }
}

#[test]
fn buffers_are_taken_up_to_one_that_is_too_short() {
    let mut rig = Rig::new(usual(), Features::empty());
    let dma = rig.driver.dma();
    let posted = |(tag, bytes)| {
        let buffer = dma.allocate(bytes, &Constraints::NONE).unwrap();
        Box::new(Posted { tag: Tag(tag), buffer })
    };
    let mut burst: VecDeque<_> = [(1, 2048), (2, 1500), (3, 2048)].map(posted).into();
    assert_eq!(rig.driver.post(0, &mut burst), Err(RefusedReason::BadMemory));
    assert_eq!(burst.iter().map(|posted| posted.tag.0).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(rig.driver.post(1, &mut burst), Err(RefusedReason::NoQueue { queues: 1 }));
    assert_eq!(rig.driver.post(1, &mut VecDeque::new()), Ok(()), "of nothing, nothing is wrong");
    rig.driver.stop();
    assert!(matches!(rig.driver.post(0, &mut burst), Err(RefusedReason::NotReady(_))));
}

#[test]
fn frames_that_cannot_be_are_dropped_and_their_buffers_come_back() {
    let header = |flags, gso_kind, gso_bytes: u16, start: u16| Header {
        flags,
        gso_kind,
        gso_bytes: gso_bytes.into(),
        checksum_start: start.into(),
        checksum_offset: 16.into(),
        ..one()
    };
    for layout in LAYOUTS {
        let mut rig = Rig::new(usual(), layout);
        rig.post();
        let lies = [
            (header(NEEDS_CHECKSUM, 0, 0, 90), 100),
            (header(NEEDS_CHECKSUM, 0, 0, u16::MAX), 100),
            (header(NEEDS_CHECKSUM, GSO_TCP4, 0, 34), 100),
            (header(NEEDS_CHECKSUM, 77, 1000, 34), 100),
            (one(), 13),
            (one(), 0),
        ];
        for (number, (header, bytes)) in lies.iter().enumerate() {
            assert!(rig.device.card().deliver(RECEIVE, header, &noise(1, *bytes)));
            rig.poll();
            assert_eq!((rig.returned, rig.received.len()), (number + 1, 0), "{header:?}");
        }
        assert_eq!(rig.counter("malformed"), lies.len() as u64);
        assert_eq!(rig.counter("device-resets"), 0);
        rig.works();
    }
}

#[test]
fn a_device_that_breaks_the_rules_is_reset_and_keeps_its_buffers() {
    type Lie = (&'static str, fn(&CardTransport));
    let lies: [Lie; 7] = [
        ("less than a header", |device| {
            let mut card = device.card();
            let chain = card.pop(RECEIVE).unwrap();
            card.push(RECEIVE, &chain, 11);
        }),
        ("more than the buffer", |device| {
            let mut card = device.card();
            let chain = card.pop(RECEIVE).unwrap();
            card.push(RECEIVE, &chain, 2049);
        }),
        ("no buffers at all", |device| {
            device.card().deliver(RECEIVE, &Header::default(), &noise(1, 60));
        }),
        ("more buffers than there are", |device| {
            let header = Header { buffers: (ENTRIES + 1).into(), ..Header::default() };
            device.card().deliver(RECEIVE, &header, &noise(1, 60));
        }),
        ("an empty piece", |device| {
            let header = Header { buffers: 2.into(), ..Header::default() };
            device.card().deliver(RECEIVE, &header, &noise(1, 60));
            let mut card = device.card();
            let chain = card.pop(RECEIVE).unwrap();
            card.push(RECEIVE, &chain, 0);
        }),
        ("a wish", |device| device.card().status |= Status::NEEDS_RESET),
        ("a lost state", |device| device.card().status = Status::ACKNOWLEDGE),
    ];
    for layout in LAYOUTS {
        for (name, lie) in lies {
            let mut rig = Rig::new(usual(), layout);
            rig.post();
            rig.submit(60).unwrap();
            let posted = rig.posted.clone();
            lie(&rig.device);
            rig.driver.interrupt(0);
            rig.settle();
            assert_eq!(rig.counter("device-resets"), 1, "{name}");
            assert_eq!((rig.lost, rig.returned), (1, 0), "{name}");
            assert_eq!(rig.posted, posted, "{name}: the device has them again");
            assert_eq!(rig.driver.interface().generation, 1);
            rig.works();
        }
    }
}

#[test]
fn a_frame_in_several_buffers_is_passed_on_once_all_are_there() {
    for layout in LAYOUTS {
        let mut rig = Rig::new(usual(), layout);
        rig.post();
        let content = noise(3, 5000);
        let header = Header { buffers: 3.into(), ..Header::default() };
        let whole = [zerocopy::IntoBytes::as_bytes(&header), &content[..]].concat();
        for part in whole.chunks(2048) {
            assert!(rig.received.is_empty());
            let mut card = rig.device.card();
            let chain = card.pop(RECEIVE).unwrap();
            let bytes = card.fill(&chain, part);
            card.push(RECEIVE, &chain, bytes);
            drop(card);
            rig.poll();
        }
        assert_eq!(rig.received.len(), 1);
        assert!(rig.received[0].1 == content);
        rig.works();
    }
}

#[test]
fn commands_without_an_answer_end_in_a_reset_and_at_last_in_giving_up() {
    let mut rig = Rig::new(usual(), Features::empty());
    rig.post();
    rig.answer = None;
    rig.driver
        .configure(&Settings { mode: ReceiveMode::PROMISCUOUS, ..Settings::DEFAULT })
        .unwrap();
    rig.wait(Duration::from_secs(9));
    assert_eq!(rig.state(), InterfaceState::Ready, "it may still answer");
    for _ in 0..10 {
        rig.wait(Duration::from_secs(11));
    }
    assert_eq!(rig.state(), InterfaceState::Failed(FailedReason::GivenUp));
    assert!(rig.posted.is_empty(), "everything has come back");
    assert!(rig.driver.is_stopped() && rig.driver.next_deadline().is_none());
    assert_eq!(rig.counter("timeouts"), 6);
}

#[test]
fn a_refused_setting_is_told_and_the_others_hold() {
    let mut rig = Rig::new(usual(), Features::empty());
    rig.commands.clear();
    rig.answer = Some(ACK_ERROR);
    rig.driver
        .configure(&Settings { mode: ReceiveMode::PROMISCUOUS, ..Settings::DEFAULT })
        .unwrap();
    rig.settle();
    assert_eq!(rig.driver.interface().settings, SettingsState::Refused);
    assert_eq!(rig.commands, [[0, 0, 1]], "it is asked once");
    rig.answer = Some(ACK_OK);
    rig.driver.configure(&Settings::DEFAULT).unwrap();
    rig.settle();
    assert_eq!(rig.driver.interface().settings, SettingsState::Applied);
    assert_eq!(rig.commands[1..], [[0, 0, 0]]);
    rig.works();
}

#[test]
fn an_announcement_is_told_once_and_acknowledged() {
    let mut rig = Rig::new(usual(), Features::empty());
    rig.commands.clear();
    let status = LINK_UP | ANNOUNCE;
    rig.device.card().config[STATUS..][..2].copy_from_slice(&status.to_le_bytes());
    rig.answer = None;
    rig.driver.interrupt(0);
    rig.settle();
    assert_eq!(rig.driver.interface().announcements, 1);
    rig.device.card().config[STATUS..][..2].copy_from_slice(&LINK_UP.to_le_bytes());
    rig.answer = Some(ACK_OK);
    rig.settle();
    assert_eq!(rig.commands, [[3, 0]]);
    assert_eq!(rig.driver.interface().announcements, 1);
}

#[test]
fn a_card_that_comes_back_as_another_is_given_up() {
    type Change = fn(&CardTransport);
    let changes: [Change; 4] = [
        |device| device.card().config[5] ^= 1,
        |device| device.card().features ^= NetFeatures::CSUM.bits(),
        |device| device.card().entries /= 2,
        |device| device.card().is_restless = true,
    ];
    for change in changes {
        let mut rig = Rig::new(usual(), Features::empty());
        rig.post();
        change(&rig.device);
        rig.device.card().status |= Status::NEEDS_RESET;
        rig.driver.interrupt(0);
        rig.settle();
        assert!(matches!(rig.state(), InterfaceState::Failed(_)), "{:?}", rig.state());
        assert!(rig.posted.is_empty() && rig.driver.is_stopped());
    }
}

#[test]
fn a_reset_that_never_ends_is_not_waited_for_for_ever() {
    let mut rig = Rig::new(usual(), Features::empty());
    rig.post();
    rig.submit(60).unwrap();
    rig.device.card().is_stuck = true;
    rig.driver.stop();
    rig.settle();
    assert!(!rig.posted.is_empty(), "the device may still write them");
    rig.wait(Duration::from_secs(11));
    assert_eq!(rig.state(), InterfaceState::Failed(FailedReason::GivenUp));
    assert!(rig.posted.is_empty() && rig.submitted.is_empty() && rig.driver.is_stopped());
}

#[test]
fn what_a_lying_device_has_comes_back_once() {
    for layout in LAYOUTS {
        let mut resets = 0;
        for seed in 0..200 {
            let mut rig = Rig::new(usual(), layout);
            let lies = noise(seed + 1, 512);
            for lie in lies.chunks_exact(8) {
                rig.post();
                while rig.submitted.len() < 8 && rig.submit(60).is_ok() {}
                let [queue, place, to, byte, serve, time, ..] = *lie else { unreachable!() };
                let card = rig.device.card();
                if let Some(areas) = card.areas(u16::from(queue % 3)) {
                    let (start, bytes) = match (layout.contains(Features::PACKED), to % 4) {
                        (true, _) => (areas.descriptors.bits(), 16 * u64::from(ENTRIES)),
                        (false, _) => (areas.device.bits(), 4 + 8 * u64::from(ENTRIES)),
                    };
                    // Small numbers are the more dangerous lies.
                    let byte = if to < 200 { byte % 18 } else { byte };
                    let at = GuestAddress(start + u64::from(place) % bytes);
                    card.memory.write_obj(byte, at).unwrap();
                }
                drop(card);
                rig.poll();
                match serve % 4 {
                    0 => rig.settle(),
                    1 => rig.wait(Duration::from_millis(u64::from(time) * 40)),
                    _ => {}
                }
            }
            rig.driver.stop();
            rig.settle();
            rig.wait(Duration::from_secs(20));
            assert!(rig.driver.is_stopped());
            assert!(rig.posted.is_empty() && rig.submitted.is_empty(), "{seed}");
            resets += rig.counter("device-resets");
            let Rig { driver, device, spare, .. } = rig;
            drop((driver, spare));
            assert_eq!(outboard_virtio::transport::Transport::dma(&device).statistics().buffers, 0);
        }
        assert!(resets > 100, "{layout:?}: {resets} were found out");
    }
}

#[test]
fn a_card_says_what_it_is() {
    let rig = Rig::new(usual(), Features::empty());
    let interface = rig.driver.interface();
    assert_eq!(interface.permanent_mac.0, MAC);
    assert_eq!((interface.shape.mtu, interface.shape.headroom), (1500, 12));
    assert!(interface.link.is_up && interface.link.speed_mbps.is_none());
    for (offset, byte) in [(0, 1), (10, 40)] {
        let device = CardTransport::new(usual().bits(), 1, ENTRIES);
        device.card().config[offset] = byte;
        device.card().config[11] = 0;
        let mut driver = Net::new(device, NetConfig::default()).unwrap();
        driver.poll(Instant::ORIGIN, &mut Completions::new());
        let state = driver.interface().state;
        assert_eq!(state, InterfaceState::Failed(FailedReason::BadConfig), "{offset}");
    }
}
