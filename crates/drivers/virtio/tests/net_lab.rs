//! The driver on QEMU's virtio network cards; the test is the wire.

mod support;

use outboard_hw::dma::Constraints;
use outboard_hw::interrupt::InterruptKind;
use outboard_lab::{CardConfig, Lab, LabConfig, VirtioConfig, VirtioVersion};
use outboard_linux::now;
use outboard_net::{
    Checksum, Duplex, FailedReason, Frame, InterfaceState, Link, MacAddress, NetDriver, Posted,
    ReceiveMode, RefusedReason, Settings, Tag, Unsupported, Work,
};
use outboard_virtio::NetConfig;
use outboard_virtio::spec::net::NetFeatures;
use rustix::event::PollFlags;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;
use support::net::NetBench;
use support::noise;
use support::qmp::MonitorSocket;

/// Frames under way at once.
const BATCH: usize = 32;

/// A card and the test's end of its wire.
fn card(virtio: VirtioConfig) -> (CardConfig, UnixDatagram) {
    let (card, wire) = CardConfig::wired().unwrap();
    wire.set_nonblocking(true).unwrap();
    (CardConfig { virtio, ..card }, wire)
}

/// A frame to the card, or to anybody else.
fn frame(to: [u8; 6], seed: u64, bytes: usize) -> Vec<u8> {
    let from = [0x52, 0x54, 0, 0xaa, 0xbb, 0xcc];
    let content = noise(seed, bytes - 14);
    [&to[..], &from, &[0x88, 0xb5], &content].concat()
}

const ALL: [u8; 6] = [0xff; 6];

/// Sends frames of these sizes, some in several pieces, and looks at each of them on the wire.
fn sends(bench: &mut NetBench, wire: &UnixDatagram, sizes: impl Iterator<Item = usize>) {
    let mut sizes = sizes.enumerate().peekable();
    let mut expected = VecDeque::new();
    let mut taken = vec![0; 66_000];
    bench.run_beside(&[(wire, PollFlags::IN)], |bench| {
        while expected.len() < BATCH
            && let Some((number, size)) = sizes.peek().copied()
        {
            let bytes = frame(ALL, number as u64, size);
            let (pieces, room) = (1 + number % 4, [64, 0, 12, 11][number / 4 % 4]);
            let Some(data) = bench.memory(&bytes, pieces, room) else { break };
            if !bench.submit(0, Frame::plain(Tag(number as u64), data)) {
                break;
            }
            expected.push_back(bytes);
            sizes.next();
        }
        bench.driver.kick(now());
        loop {
            match wire.recv(&mut taken) {
                Ok(bytes) => {
                    let expected = expected.pop_front().expect("nothing but what was sent");
                    assert!(taken[..bytes] == expected, "{bytes} of {} bytes", expected.len());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        sizes.peek().is_none() && expected.is_empty()
    });
    bench.run_until(|bench| bench.counter("frames-sent") == bench.sent.len() as u64);
    assert!(bench.sent.iter().all(|(_, result)| result.is_ok()));
}

/// Puts frames of these sizes on the wire, and looks at each of them where it comes out.
fn receives(bench: &mut NetBench, wire: &UnixDatagram, sizes: impl Iterator<Item = usize>) {
    let mut sizes = sizes.enumerate().peekable();
    let mut expected = VecDeque::new();
    bench.received.clear();
    bench.run_beside(&[], |bench| {
        while expected.len() < BATCH
            && let Some((number, size)) = sizes.peek().copied()
        {
            let bytes = frame(ALL, number as u64, size);
            match wire.send(&bytes) {
                Ok(_) => expected.push_back(bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
            sizes.next();
        }
        for (_, bytes) in bench.received.drain(..) {
            let expected = expected.pop_front().expect("nothing but what was put on the wire");
            assert!(bytes == expected, "{} of {} bytes", bytes.len(), expected.len());
        }
        sizes.peek().is_none() && expected.is_empty()
    });
}

/// Everything that a card of this shape has to carry.
fn exercise(bench: &mut NetBench, wire: &UnixDatagram, step: usize) {
    let most = bench.driver.interface().shape.max_frame_bytes();
    // QEMU makes short frames longer.
    let sizes = || (60..=most).step_by(step).chain([most]);
    sends(bench, wire, sizes());
    receives(bench, wire, sizes());
    assert_eq!(bench.counter("device-resets"), 0, "{:?}", bench.events);
    assert_eq!(bench.counter("malformed"), 0);
}

/// One machine with a card for each of `configs`.
fn machine(configs: Vec<CardConfig>) -> Lab {
    let lab = LabConfig::new(Vec::new());
    Lab::start(&configs.into_iter().fold(lab, LabConfig::with_card)).unwrap()
}

#[test]
fn every_combination_of_features_carries_frames() {
    let configs = VirtioConfig::default().combinations().into_iter();
    let configs: Vec<_> = (0..).map(|number| number % 3 != 0).zip(configs).collect();
    for configs in configs.chunks(14) {
        carry(configs.iter().map(|(merges, one)| (one.clone(), *merges)).collect(), true);
    }
}

#[test]
fn cards_that_want_headers_apart_get_them_apart() {
    let configs = (0..4).map(|bits| {
        let version = VirtioVersion::Legacy;
        let indirect = bits & 1 == 1;
        (VirtioConfig { version, indirect, ..VirtioConfig::default() }, bits & 2 == 2)
    });
    carry(configs.collect(), false);
}

/// Exercises cards with these features, each with whether frames may take several buffers, in one
/// machine.
fn carry(configs: Vec<(VirtioConfig, bool)>, any_layout: bool) {
    let (mut cards, mut wires) = (Vec::new(), Vec::new());
    for (virtio, merges) in configs {
        let (card, wire) = card(virtio);
        cards.push(CardConfig { merges, ..card }.with("any_layout", any_layout));
        wires.push(wire);
    }
    let lab = machine(cards.clone());
    for (number, wire) in wires.iter().enumerate() {
        let mut bench = NetBench::new(&lab, number, NetConfig::default());
        assert_eq!(bench.state(), InterfaceState::Ready, "{:?}", cards[number]);
        assert_eq!(bench.driver.interface().shape.headroom > 0, any_layout);
        exercise(&mut bench, wire, 41);
    }
}

#[test]
fn the_pin_does_as_well_as_messages() {
    for version in [VirtioVersion::Modern, VirtioVersion::Legacy] {
        let (card, wire) = card(VirtioConfig { version, ..VirtioConfig::default() });
        let mut lab = LabConfig::new(Vec::new()).with_card(card);
        lab.interrupts = Some(InterruptKind::Pin);
        let lab = Lab::start(&lab).unwrap();
        exercise(&mut NetBench::new(&lab, 0, NetConfig::default()), &wire, 50);
    }
}

#[test]
fn what_has_come_is_found_by_looking_while_interrupts_are_masked() {
    let (card, wire) = card(VirtioConfig::default());
    let lab = machine(vec![card]);
    let mut bench = NetBench::new(&lab, 0, NetConfig::default());
    bench.deaf = true;
    bench.driver.mask(true);
    for number in 0..100 {
        wire.send(&frame(ALL, number, 60)).unwrap();
        while bench.received.is_empty() {
            bench.turn();
        }
        assert!(bench.received.pop().unwrap().1 == frame(ALL, number, 60));
    }
    bench.deaf = false;
    bench.driver.mask(false);
    exercise(&mut bench, &wire, 100);
}

#[test]
fn every_size_goes_both_ways() {
    let (card, wire) = card(VirtioConfig::default());
    let lab = machine(vec![card]);
    exercise(&mut NetBench::new(&lab, 0, NetConfig::default()), &wire, 1);
}

#[test]
fn long_frames_take_several_buffers_or_one_that_is_long_enough() {
    let (mut cards, mut wires) = (Vec::new(), Vec::new());
    for merges in [true, false] {
        let (card, wire) = card(VirtioConfig { queue_entries: 512, ..VirtioConfig::default() });
        cards.push(CardConfig { merges, mtu: Some(9000), ..card });
        wires.push(wire);
    }
    let lab = machine(cards);
    for (number, wire) in wires.iter().enumerate() {
        let config = NetConfig { queue_entries: 512, ..NetConfig::default() };
        let mut bench = NetBench::new(&lab, number, config);
        let shape = bench.driver.interface().shape;
        assert_eq!((shape.mtu, shape.receive_depth), (9000, 512));
        assert_eq!(shape.least_buffer_bytes > 9000, number == 1);
        exercise(&mut bench, wire, 450);
    }
}

const OWN: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const OTHER: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
const GROUP: [u8; 6] = [0x33, 0x33, 0, 1, 2, 3];

/// Whether a frame gets through, if one to `own` does that is sent behind it.
fn passes(bench: &mut NetBench, wire: &UnixDatagram, bytes: &[u8], own: [u8; 6]) -> bool {
    bench.received.clear();
    wire.send(bytes).unwrap();
    wire.send(&frame(own, 1, 100)).unwrap();
    bench.run_until(|bench| bench.received.iter().any(|(_, bytes)| bytes.len() == 100));
    assert!(bench.received.len() < 3);
    bench.received.len() == 2
}

#[test]
fn the_card_lets_through_what_it_is_asked_to_and_nothing_else() {
    let (card, wire) = card(VirtioConfig::default());
    let lab = machine(vec![card]);
    let mut bench = NetBench::new(&lab, 0, NetConfig::default());
    let check = |bench: &mut NetBench, expected: [bool; 4]| {
        let found = [OWN, OTHER, GROUP, ALL].map(|to| passes(bench, &wire, &frame(to, 2, 60), OWN));
        assert_eq!(found, expected, "{:?}", bench.driver.settings());
    };
    check(&mut bench, [true, false, false, true]);
    let mode = |mode| Settings { mode, ..Settings::DEFAULT };
    bench.configure(&mode(ReceiveMode::PROMISCUOUS));
    check(&mut bench, [true; 4]);
    bench.configure(&mode(ReceiveMode::ALL_MULTICAST));
    check(&mut bench, [true, false, true, true]);
    bench.configure(&mode(ReceiveMode::ALL_UNICAST));
    check(&mut bench, [true, true, false, true]);
    bench.configure(&mode(ReceiveMode::NO_BROADCAST));
    check(&mut bench, [true, false, false, false]);
    let mut lists = Settings::DEFAULT;
    lists.multicast.push(MacAddress(GROUP)).unwrap();
    bench.configure(&lists);
    check(&mut bench, [true, false, true, true]);
    lists.unicast.push(MacAddress(OTHER)).unwrap();
    lists.multicast.clear();
    bench.configure(&lists);
    check(&mut bench, [true, true, false, true]);
    assert_eq!(bench.counter("commands-refused"), 0);
}

/// A frame of a VLAN.
fn tagged(vlan: u16) -> Vec<u8> {
    let mut bytes = frame(OWN, 3, 64);
    bytes[12..14].copy_from_slice(&[0x81, 0x00]);
    bytes[14..16].copy_from_slice(&vlan.to_be_bytes());
    bytes
}

#[test]
fn a_card_that_was_reset_is_told_everything_again() {
    let (card, wire) = card(VirtioConfig::default());
    let lab = machine(vec![card]);
    let config = NetConfig {
        without_net: NetFeatures::empty(),
        send_time: Duration::from_millis(200),
        ..NetConfig::default()
    };
    let mut bench = NetBench::new(&lab, 0, config);
    let mut settings = Settings { mac: Some(MacAddress(OTHER)), ..Settings::DEFAULT };
    settings.multicast.push(MacAddress(GROUP)).unwrap();
    settings.vlans.insert(7);
    settings.vlans.insert(4094);
    bench.configure(&settings);
    let check = |bench: &mut NetBench| {
        let mut passes = |bytes: &[u8]| passes(bench, &wire, bytes, OTHER);
        assert!(!passes(&frame(OWN, 4, 60)), "it has another address now");
        assert!(passes(&frame(GROUP, 4, 60)));
        let mut vlan = |vlan| {
            let mut bytes = tagged(vlan);
            bytes[..6].copy_from_slice(&OTHER);
            passes(&bytes)
        };
        assert!(vlan(7) && vlan(4094) && !vlan(8));
    };
    check(&mut bench);
    // The wire takes nothing any more, until the driver loses its patience.
    let mut tag = 0;
    bench.run_beside(&[], |bench| {
        while let Some(data) = bench.memory(&frame(ALL, tag, 1000), 1, 64)
            && bench.state() == InterfaceState::Ready
            && bench.submit(0, Frame::plain(Tag(tag), data))
        {
            tag += 1;
        }
        bench.driver.kick(now());
        bench.counter("device-resets") > 0
    });
    bench.run_until(|bench| bench.state() == InterfaceState::Ready);
    assert_eq!(bench.sent.len() as u64, tag, "each comes back once");
    let lost = bench.sent.iter().filter(|(_, result)| result.is_err()).count();
    assert_eq!(lost as u64, bench.counter("lost"));
    assert!(lost > 0 && bench.counter("timeouts") == 1);
    assert_eq!(bench.driver.interface().generation, 1);
    while wire.recv(&mut [0; 2000]).is_ok() {}
    check(&mut bench);
    bench.sent.clear();
    exercise_again(&mut bench, &wire);
    settings.vlans.remove(7);
    settings.mac = None;
    bench.configure(&settings);
    assert!(!passes(&mut bench, &wire, &tagged(7), OWN));
    assert!(passes(&mut bench, &wire, &tagged(4094), OWN));
}

/// Both ways, for a card that was reset before.
fn exercise_again(bench: &mut NetBench, wire: &UnixDatagram) {
    let before = bench.counter("frames-sent");
    bench.send(0, &frame(ALL, 9, 999), Work::NONE);
    assert_eq!(bench.counter("frames-sent"), before + 1);
    let mut taken = [0; 2000];
    // What the card had when it was reset may still be on the way.
    while wire.recv(&mut taken).is_ok_and(|bytes| taken[..bytes] != frame(ALL, 9, 999)) {}
    assert!(taken[..999] == frame(ALL, 9, 999));
}

#[test]
fn links_go_and_come_and_announcements_are_asked_for() {
    let (card, wire) = card(VirtioConfig::default());
    let card = card.with("speed", 2500).with("duplex", "full");
    let socket = MonitorSocket::new();
    let arguments = socket.arguments();
    let lab = LabConfig::new(Vec::new()).with_card(card);
    let lab = lab.with_arguments(arguments.iter().map(String::as_str));
    let lab = Lab::start(&lab).unwrap();
    let mut monitor = socket.accept();
    let mut bench = NetBench::new(&lab, 0, NetConfig::default());
    let up = Link { is_up: true, speed_mbps: Some(2500), duplex: Some(Duplex::Full) };
    assert_eq!(bench.driver.interface().link, up);
    for is_up in [false, true] {
        let changes = bench.driver.changes();
        monitor.run("set_link", &format!(r#"{{"name": "card0", "up": {is_up}}}"#));
        bench.run_until(|bench| bench.driver.interface().link.is_up == is_up);
        assert!(bench.driver.changes() > changes);
    }
    exercise(&mut bench, &wire, 300);
    assert_eq!(bench.driver.interface().announcements, 0);
    let times = r#"{"initial": 50, "max": 50, "rounds": 2, "step": 0}"#;
    monitor.run("announce-self", times);
    // QEMU asks again only once it was told that the driver has heard.
    bench.run_until(|bench| bench.driver.interface().announcements == 2);
    let events = bench.events.iter().filter(|event| event.contains("announcement"));
    assert_eq!(events.count(), 2);
}

#[test]
fn the_death_of_the_card_gives_everything_back() {
    let (card, _wire) = card(VirtioConfig::default());
    let lab = machine(vec![card]);
    let mut bench = NetBench::new(&lab, 0, NetConfig::default());
    let pid = Pid::from_raw(lab.process_id() as i32).unwrap();
    bench.reposts = false;
    let data = bench.memory(&frame(ALL, 1, 60), 1, 64).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    assert!(bench.submit(0, Frame::plain(Tag(1), data)));
    bench.driver.kick(now());
    // Its registers read as ones, which is found by looking, as no interrupt comes.
    bench.run_until(|bench| bench.driver.is_stopped());
    assert_eq!(bench.state(), InterfaceState::Failed(FailedReason::Removed));
    assert_eq!((bench.sent.len(), bench.returned), (1, 256));
}

#[test]
fn a_driver_that_is_stopped_leaves_the_card_at_rest_for_the_next() {
    let (card, wire) = card(VirtioConfig { packed: true, ..VirtioConfig::default() });
    let lab = machine(vec![card]);
    let before = lab.dma().statistics();
    for round in 0..2 {
        let mut bench = NetBench::new(&lab, 0, NetConfig::default());
        exercise(&mut bench, &wire, 200);
        bench.reposts = false;
        bench.driver.stop();
        bench.run_until(|bench| bench.driver.is_stopped());
        assert_eq!(bench.returned, 256, "{round}");
        assert!(bench.driver.next_deadline().is_none());
    }
    assert_eq!(lab.dma().statistics().used_bytes, before.used_bytes);
}

#[test]
fn what_cannot_be_is_refused() {
    let (card, _wire) = card(VirtioConfig::default());
    let lab = machine(vec![card]);
    let mut bench = NetBench::new(&lab, 0, NetConfig::default());
    let mut refused = |queue, bytes: usize, work| {
        let data = bench.memory(&vec![0; bytes], 1, 0).unwrap();
        let mut burst = [Box::new(Frame { tag: Tag(0), data, work })].into();
        let reason = bench.driver.submit(queue, &mut burst).unwrap_err();
        assert_eq!(burst.len(), 1, "it is still there");
        reason
    };
    let bad_length = RefusedReason::BadLength { most: 1518 };
    assert_eq!(refused(0, 13, Work::NONE), bad_length);
    assert_eq!(refused(0, 1519, Work::NONE), bad_length);
    assert_eq!(refused(1, 60, Work::NONE), RefusedReason::NoQueue { queues: 1 });
    let checksum = Some(Checksum { start: 14, offset: 0 });
    // The wire is one that cannot do this.
    assert_eq!(refused(0, 60, Work { checksum, ..Work::NONE }), RefusedReason::BadWork);
    assert_eq!(refused(0, 60, Work { vlan_tag: Some(1), ..Work::NONE }), RefusedReason::BadWork);
    let mut unposted = |bytes| {
        let buffer = bench.driver.dma().allocate(bytes, &Constraints::NONE).unwrap();
        let mut burst = [Box::new(Posted { tag: Tag(0), buffer })].into();
        let reason = bench.driver.post(0, &mut burst).unwrap_err();
        assert_eq!(burst.len(), 1, "it is still there");
        reason
    };
    assert_eq!(unposted(100), RefusedReason::BadMemory);
    assert_eq!(unposted(2048), RefusedReason::QueueFull);
    let mut settings = Settings::DEFAULT;
    settings.vlans.insert(1);
    assert_eq!(bench.driver.configure(&settings), Err(Unsupported::VlanFilter));
}
