//! The driver on QEMU's virtio network cards; the test is the wire.

mod support;

use outboard_lab::{CardConfig, Lab, LabConfig, VirtioConfig};
use outboard_linux::now;
use outboard_net::{Frame, InterfaceState, NetDriver};
use outboard_virtio::NetConfig;
use rustix::event::PollFlags;
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use support::net::NetBench;
use support::noise;

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
            if !bench.submit(0, number as u64, Frame::plain(data)) {
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
    let (mut cards, mut wires) = (Vec::new(), Vec::new());
    for bits in 0..16 {
        let is = |place: u32| bits >> place & 1 == 1;
        let (mut card, wire) = card(VirtioConfig {
            packed: is(0),
            indirect: is(1),
            event_index: is(2),
            access_platform: is(3),
            ..VirtioConfig::default()
        });
        card.merges = bits % 3 != 0;
        cards.push(card);
        wires.push(wire);
    }
    let lab = machine(cards.clone());
    for (number, wire) in wires.iter().enumerate() {
        let mut bench = NetBench::new(&lab, number, NetConfig::default());
        assert_eq!(bench.state(), InterfaceState::Ready, "{:?}", cards[number]);
        exercise(&mut bench, wire, 7);
    }
}
