//! A card of ours, used through rings by the driver of ours.

mod support;

use outboard_net::cut::Segments;
use outboard_net::{
    Capabilities, Checksum, ChecksumState, NetDriver, Offloads, Segmentation, SegmentationKind,
    Work,
};
use outboard_virtio::NetConfig;
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::net::NetFeatures;
use support::mirror::plain;
use support::{Back, Front, pattern, until};

/// All layouts of rings, and of frames in them.
fn layouts() -> impl Iterator<Item = NetConfig> {
    let rings = [Features::empty(), Features::PACKED];
    let others = [Features::empty(), Features::INDIRECT, Features::EVENT_INDEX];
    let merging = [NetFeatures::empty(), NetFeatures::MRG_RXBUF];
    rings.into_iter().flat_map(move |packed| {
        others.into_iter().flat_map(move |other| {
            merging.into_iter().map(move |merging| NetConfig {
                without: packed | other,
                without_net: NetFeatures::CTRL_VLAN | merging,
                queue_entries: 64,
                ..NetConfig::default()
            })
        })
    })
}

#[test]
fn frames_of_every_size_come_back_as_they_were_in_every_layout() {
    for config in layouts() {
        let folder = tempfile::tempdir().unwrap();
        let back = Back::new(folder.path(), 1, Capabilities::NONE);
        let mut front = Front::new(&back.socket, config);
        for round in 0..8 {
            let sizes = (0..40).map(|number| 14 + (round * 40 + number) * 1500 / 319);
            let frames: Vec<_> = sizes.map(|bytes| pattern(bytes, bytes)).collect();
            let received = front.exchange(0, &frames, Work::NONE, frames.len());
            let received: Vec<_> = received.into_iter().map(|(_, _, bytes)| bytes).collect();
            assert!(received == frames, "{config:?}, round {round}");
        }
        drop(front);
        let traffic = back.first_traffic();
        assert_eq!((traffic.sent, traffic.received), (320, 320), "{traffic}");
        assert_eq!((traffic.unsent, traffic.missed), (0, 0), "{traffic}");
    }
}

#[test]
fn each_pair_of_queues_is_a_way_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let back = Back::new(folder.path(), 4, Capabilities::NONE);
    let mut front = Front::new(&back.socket, NetConfig { queues: 4, ..NetConfig::default() });
    assert_eq!(front.driver.interface().shape.queues, 4);
    for queue in 0..4 {
        let frames: Vec<_> = (0..30).map(|number| pattern(number, 100)).collect();
        let received = front.exchange(queue, &frames, Work::NONE, 30);
        assert!(received.iter().all(|(came_by, ..)| *came_by == queue));
        assert!(received.into_iter().map(|(_, _, bytes)| bytes).eq(frames));
    }
    assert!(back.shared().sent.iter().map(|(queue, ..)| *queue).eq((0..4).flat_map(|q| [q; 30])));
}

#[test]
fn a_client_with_more_queues_than_the_card_uses_them_in_turn() {
    let folder = tempfile::tempdir().unwrap();
    let back = Back::new(folder.path(), 1, Capabilities::NONE);
    let mut front = Front::new(&back.socket, NetConfig { queues: 3, ..NetConfig::default() });
    for queue in 0..3 {
        let received = front.exchange(queue, &[pattern(3, 60)], Work::NONE, 1);
        assert_eq!((received[0].0, &received[0].2), (0, &pattern(3, 60)));
    }
}

const OFFLOADS: Offloads = Offloads::CHECKSUM.union(Offloads::TCP4).union(Offloads::TCP6);

/// A frame of TCP over IPv4 with so much data, what is to be done to it, and what is known of it.
fn large(data: usize) -> (Vec<u8>, Work) {
    let mut frame = pattern(9, 54 + data);
    frame[12..15].copy_from_slice(&[8, 0, 0x45]);
    (frame[23], frame[46]) = (6, 5 << 4);
    let checksum = Some(Checksum { start: 34, offset: 16 });
    let kind = SegmentationKind::Tcp4;
    let segmentation =
        Some(Segmentation { kind, ecn: false, segment_bytes: 1448, header_bytes: 54 });
    (frame, Work { checksum, segmentation, vlan_tag: None })
}

#[test]
fn work_on_frames_is_passed_on_in_both_directions() {
    for merging in [NetFeatures::empty(), NetFeatures::MRG_RXBUF] {
        let able = Capabilities { transmit: OFFLOADS, receive: OFFLOADS, ..Capabilities::NONE };
        let folder = tempfile::tempdir().unwrap();
        let back = Back::new(folder.path(), 1, able);
        let without_net = NetFeatures::CTRL_VLAN | merging;
        let buffer_bytes = if merging.is_empty() { 2048 } else { 66_000 };
        let queue_entries = 64;
        let (receive, usual) = (OFFLOADS, NetConfig::default());
        let config = NetConfig { receive, without_net, buffer_bytes, queue_entries, ..usual };
        let mut front = Front::new(&back.socket, config);
        assert_eq!(front.driver.interface().capabilities.transmit, OFFLOADS);
        back.shared().is_blind = true;
        let (frame, work) = large(60_000);
        front.exchange(0, std::slice::from_ref(&frame), work, 0);
        until(|| !back.shared().sent.is_empty());
        assert!(back.shared().sent[0] == (0, frame.clone(), work));
        let arrival = outboard_net::Arrival {
            checksum: ChecksumState::Missing(work.checksum.unwrap()),
            segmentation: work.segmentation,
            ..plain(frame.len())
        };
        back.shared().coming.push_back((0, frame.clone(), arrival));
        let valid = outboard_net::Arrival { checksum: ChecksumState::Valid, ..plain(100) };
        back.shared().coming.push_back((0, pattern(1, 100), valid));
        let received = front.exchange(0, &[], Work::NONE, 2);
        assert!(received[0] == (0, arrival, frame));
        assert!(received[1] == (0, valid, pattern(1, 100)));
    }
}

#[test]
fn what_a_client_does_not_take_is_done_for_it() {
    let able = Capabilities { transmit: OFFLOADS, receive: OFFLOADS, ..Capabilities::NONE };
    let folder = tempfile::tempdir().unwrap();
    let back = Back::new(folder.path(), 1, able);
    // With fewer buffers than there are segments.
    let config = NetConfig { queue_entries: 16, ..NetConfig::default() };
    let mut front = Front::new(&back.socket, config);
    let (frame, work) = large(60_000);
    let missing = ChecksumState::Missing(work.checksum.unwrap());
    let known = plain(frame.len());
    let whole =
        outboard_net::Arrival { checksum: missing, segmentation: work.segmentation, ..known };
    let (small, _) = large(1000);
    let left_out = outboard_net::Arrival { checksum: missing, ..plain(small.len()) };
    back.shared().coming.push_back((0, frame.clone(), whole));
    back.shared().coming.push_back((0, small.clone(), left_out));
    let segments = Segments::of(&frame, &work.segmentation.unwrap()).unwrap();
    let received = front.exchange(0, &[], Work::NONE, segments.count() + 1);
    for (number, (_, arrival, bytes)) in received.iter().enumerate().take(segments.count()) {
        let mut wanted = vec![0; segments.bytes(number)];
        segments.write(number, &mut wanted);
        assert!(*bytes == wanted, "{number}");
        assert_eq!(*arrival, plain(wanted.len()));
    }
    let mut filled = small;
    outboard_net::cut::fill_checksum(&mut filled, work.checksum.unwrap());
    assert!(received[segments.count()].2 == filled);
}

#[test]
fn a_card_that_sends_nothing_makes_its_client_wait_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let back = Back::new(folder.path(), 1, Capabilities::NONE);
    let mut front = Front::new(&back.socket, NetConfig::default());
    back.shared().is_frozen = true;
    let frames: Vec<_> = (0..200).map(|number| pattern(number, 500)).collect();
    for frame in &frames {
        front.submit(0, frame, Work::NONE);
    }
    front.kick();
    // The card's own memory takes some of them.
    front.run_until(|front| front.sent >= 64);
    assert_eq!(front.sent, 64);
    back.shared().is_frozen = false;
    front.run_until(|front| front.received.len() == 200);
    assert!(front.received.iter().map(|(_, _, bytes)| bytes).eq(&frames));
}

#[test]
fn a_client_that_goes_leaves_the_card_to_the_next_without_its_frames() {
    let folder = tempfile::tempdir().unwrap();
    let back = Back::new(folder.path(), 1, Capabilities::NONE);
    let mut front = Front::new(&back.socket, NetConfig::default());
    assert_eq!(front.exchange(0, &[pattern(1, 60)], Work::NONE, 1).len(), 1);
    drop(front);
    back.first_traffic();
    for number in 0..100 {
        back.shared().coming.push_back((0, pattern(number, 60), plain(60)));
    }
    until(|| back.shared().coming.is_empty());
    let mut front = Front::new(&back.socket, NetConfig::default());
    let received = front.exchange(0, &[pattern(2, 80)], Work::NONE, 1);
    assert!(received[0].2 == pattern(2, 80));
}
