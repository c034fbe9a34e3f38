//! The driver on QEMU's virtio network cards, with this machine's kernel at the other end of the
//! wire: checksums, segments, several queues.

mod support;

use outboard_lab::{CardConfig, Lab, LabConfig, VirtioConfig, Wire};
use outboard_linux::now;
use outboard_net::{
    ChecksumState, Frame, MacAddress, NetDriver, Offloads, Segmentation, SegmentationKind,
    Settings, Tag, Work,
};
use outboard_virtio::NetConfig;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr, IpProtocol};
use std::collections::{BTreeSet, VecDeque};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream, UdpSocket};
use std::time::Duration;
use support::namespace::{alone, connect, forward};
use support::net::NetBench;
use support::noise;
use support::packet::{Packet, take_apart};

/// The address of the card with this number.
const fn mac(number: usize) -> [u8; 6] {
    [0x52, 0x54, 0, 0, 0, 1 + number as u8]
}

/// A machine with cards that are connected to interfaces of the kernel's.
fn machine(cards: &[VirtioConfig]) -> Lab {
    let count = cards.len();
    let cards = cards.iter().enumerate().map(|(number, virtio)| {
        let wire = Wire::Tap { name: format!("tap{number}") };
        CardConfig { mac: mac(number), virtio: virtio.clone(), ..CardConfig::new(wire) }
    });
    let lab = Lab::start(&cards.fold(LabConfig::new(Vec::new()), LabConfig::with_card)).unwrap();
    for number in 0..count {
        connect(&format!("tap{number}"), number, &MacAddress(mac(number)).to_string());
    }
    lab
}

/// The machine behind the card with this number.
fn behind(number: u8, v6: bool) -> IpAddress {
    match v6 {
        true => IpAddress::v6(0xfd00, number.into(), 0, 0, 0, 0, 0, 2),
        false => IpAddress::v4(10, 0, number, 2),
    }
}

/// The address of the kernel's interface `number`. `/sys` may be that of another network.
fn interface_mac(number: usize) -> [u8; 6] {
    let output = std::process::Command::new("ip")
        .args(["-brief", "link", "show", "dev", &format!("tap{number}")])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mac = text.split_whitespace().nth(2).unwrap();
    let mut bytes = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap());
    std::array::from_fn(|_| bytes.next().unwrap())
}

#[test]
fn the_card_computes_checksums_and_cuts_into_segments() {
    alone("the_card_computes_checksums_and_cuts_into_segments", || {
        let packed = VirtioConfig { packed: true, ..VirtioConfig::default() };
        for virtio in [VirtioConfig::default(), packed] {
            segments(&virtio);
        }
    });
}

/// What the first card leaves to be done, the kernel does when it passes it on to the second one,
/// which takes nothing unfinished.
fn segments(virtio: &VirtioConfig) {
    let lab = machine(&[virtio.clone(), virtio.clone()]);
    forward();
    let mut from = NetBench::new(&lab, 0, NetConfig::default());
    let mut to = NetBench::new(&lab, 1, NetConfig::default());
    let offered = from.driver.interface().capabilities.transmit;
    let wanted = Offloads::CHECKSUM | Offloads::TCP4 | Offloads::TCP6 | Offloads::TCP_ECN;
    assert!(offered.contains(wanted), "{offered:?}");
    let router = interface_mac(0);
    for (v6, protocol, bytes) in [
        (false, IpProtocol::Udp, 1000),
        (true, IpProtocol::Udp, 1001),
        (false, IpProtocol::Tcp, 1002),
        (false, IpProtocol::Tcp, 40_000),
        (true, IpProtocol::Tcp, 60_001),
        (false, IpProtocol::Tcp, 65_000),
    ] {
        let payload = noise(bytes, bytes as usize);
        let packet = Packet {
            to: router,
            from: behind(0, v6),
            destination: behind(1, v6),
            protocol,
            ports: (1000, 2000),
            payload: &payload,
        };
        let (frame, checksum, header_bytes) = packet.unfinished();
        let segmentation = (bytes > 1400).then_some(Segmentation {
            kind: if v6 { SegmentationKind::Tcp6 } else { SegmentationKind::Tcp4 },
            ecn: false,
            segment_bytes: 1400,
            header_bytes,
        });
        let work = Work { checksum: Some(checksum), segmentation, vlan_tag: None };
        // In one piece and in several.
        for pieces in [1, 3] {
            let data = from.memory(&frame, pieces, 64).unwrap();
            assert!(from.submit(0, Frame { tag: Tag(1), data, work }));
            from.driver.kick(now());
            let mut found = Vec::new();
            to.run_until_with(&mut from, |to| {
                for (_, frame) in to.received.drain(..) {
                    let Some((ports, sequence, part)) = take_apart(&frame, protocol) else {
                        continue;
                    };
                    if ports == (1000, 2000) {
                        assert!(part.len() <= 1400);
                        let ordered = found.len() as u32 + 1;
                        assert!(protocol == IpProtocol::Udp || sequence == ordered);
                        found.extend(part);
                    }
                }
                found.len() >= payload.len()
            });
            assert!(found == payload, "{v6} {protocol} {bytes}");
        }
    }
    for bench in [&from, &to] {
        assert_eq!((bench.counter("device-resets"), bench.counter("malformed")), (0, 0));
    }
}

#[test]
fn what_a_card_does_to_frames_that_come_can_be_changed() {
    alone("what_a_card_does_to_frames_that_come_can_be_changed", || {
        let packed = VirtioConfig { packed: true, ..VirtioConfig::default() };
        let lab = machine(&[VirtioConfig::default(), packed]);
        for card in 0..2u8 {
            let config = NetConfig { receive: Offloads::all(), ..NetConfig::default() };
            let mut bench = NetBench::new(&lab, card.into(), config);
            let can = bench.driver.interface().capabilities;
            assert!(can.can_set_receive && can.receive.contains(Offloads::CHECKSUM));
            let socket = UdpSocket::bind((Ipv4Addr::new(10, 0, card, 1), 9)).unwrap();
            for (round, receive) in
                [Offloads::all(), Offloads::empty(), Offloads::all()].into_iter().enumerate()
            {
                bench.configure(&Settings { receive, ..Settings::DEFAULT });
                let payload = noise(round as u64, 1000);
                socket.send_to(&payload, (Ipv4Addr::new(10, 0, card, 2), 7)).unwrap();
                let mut checksum = ChecksumState::Unknown;
                bench.run_until_each(|_, arrival, frame| {
                    // What else the kernel sends has its checksum, or is of no interest.
                    if !frame.ends_with(&payload) {
                        return false;
                    }
                    checksum = arrival.checksum;
                    let missing = matches!(arrival.checksum, ChecksumState::Missing(_));
                    missing || take_apart(frame, IpProtocol::Udp).is_some()
                });
                let is_missing = matches!(checksum, ChecksumState::Missing(_));
                assert_eq!(is_missing, receive == Offloads::all(), "{card}, {round}");
            }
            let refused = bench.counter("commands-refused") + bench.counter("device-resets");
            assert_eq!(refused, 0, "{:?}", bench.events);
        }
    });
}

/// A card as smoltcp sees one.
#[derive(Default)]
struct Stack {
    received: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
}

struct Arrived(Vec<u8>);
struct Leaving<'a>(&'a mut VecDeque<Vec<u8>>);

impl phy::RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

impl phy::TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        let mut bytes = vec![0; len];
        let result = fill(&mut bytes);
        self.0.push_back(bytes);
        result
    }
}

impl phy::Device for Stack {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Arrived, Leaving<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Arrived(frame), Leaving(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Leaving<'_>> {
        (self.sent.len() < 64).then_some(Leaving(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        // Whoever sends to this machine from this machine leaves that to the card.
        capabilities.checksum.tcp = phy::Checksum::Tx;
        capabilities
    }
}

const TO_US: usize = 3 << 20;
const FROM_US: usize = 1 << 20;

#[test]
fn a_connection_to_the_kernel_carries_data_in_long_segments() {
    alone("a_connection_to_the_kernel_carries_data_in_long_segments", || {
        let lab = machine(&[VirtioConfig { queue_entries: 1024, ..VirtioConfig::default() }]);
        let config = NetConfig { receive: Offloads::all(), ..NetConfig::default() };
        let mut bench = NetBench::new(&lab, 0, config);
        let kernel = std::thread::spawn(|| {
            let mut stream = TcpStream::connect("10.0.0.2:7").unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            stream.write_all(&noise(1, TO_US)).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut content = Vec::new();
            stream.read_to_end(&mut content).unwrap();
            assert!(content == noise(2, FROM_US), "{} bytes", content.len());
        });
        let (whole, longest) = talk(&mut bench);
        kernel.join().unwrap();
        assert!(whole == noise(1, TO_US), "{} bytes", whole.len());
        assert!(longest > 10_000, "segments of up to {longest} bytes");
        assert_eq!((bench.counter("device-resets"), bench.counter("malformed")), (0, 0));
    });
}

/// Serves the one connection; what came, and how many bytes the longest frame had.
fn talk(bench: &mut NetBench) -> (Vec<u8>, u32) {
    let (mut stack, mut longest) = (Stack::default(), 0);
    let address = EthernetAddress(mac(0));
    let time = || Instant::from_micros((now().as_nanos() / 1000) as i64);
    let mut interface = Interface::new(Config::new(address.into()), &mut stack, time());
    interface.update_ip_addrs(|addresses| {
        addresses.push(IpCidr::new(IpAddress::v4(10, 0, 0, 2), 24)).unwrap();
    });
    let buffer = || tcp::SocketBuffer::new(vec![0; 512 << 10]);
    let mut socket = tcp::Socket::new(buffer(), buffer());
    socket.listen(7).unwrap();
    let mut sockets = SocketSet::new(Vec::new());
    let handle = sockets.add(socket);
    let (mut whole, mut answered, answer) = (Vec::new(), 0, noise(2, FROM_US));
    bench.run_beside(&[], |bench| {
        for (arrival, frame) in bench.received.drain(..) {
            if let Some(segmentation) = arrival.segmentation {
                assert!(matches!(arrival.checksum, ChecksumState::Missing(_)));
                assert!(arrival.bytes > segmentation.segment_bytes.into());
            }
            longest = longest.max(arrival.bytes);
            stack.received.push_back(frame);
        }
        interface.poll(time(), &mut stack, &mut sockets);
        let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
        while socket.can_recv() {
            socket.recv(|bytes| (bytes.len(), whole.extend_from_slice(bytes))).unwrap();
        }
        if whole.len() == TO_US && socket.can_send() {
            answered += socket.send_slice(&answer[answered..]).unwrap();
            if answered == answer.len() {
                socket.close();
            }
        }
        let done = answered == answer.len() && !socket.is_active();
        interface.poll(time(), &mut stack, &mut sockets);
        while let Some(frame) = stack.sent.front() {
            let Some(data) = bench.memory(frame, 1, 64) else { break };
            if !bench.submit(0, Frame::plain(Tag(0), data)) {
                break;
            }
            stack.sent.pop_front();
        }
        bench.driver.kick(now());
        done
    });
    (whole, longest)
}

#[test]
fn every_combination_of_features_carries_flows_by_four_pairs_of_queues() {
    let name = "every_combination_of_features_carries_flows_by_four_pairs_of_queues";
    alone(name, || {
        let combinations = VirtioConfig { queues: 4, ..VirtioConfig::default() }.combinations();
        assert_eq!(combinations.len(), 28);
        for cards in combinations.chunks(14) {
            let lab = machine(cards);
            (0..cards.len()).for_each(|card| flows(&lab, card));
        }
    });
}

fn flows(lab: &Lab, card: usize) {
    const FLOWS: u16 = 32;
    let config = NetConfig { queues: 4, ..NetConfig::default() };
    let mut bench = NetBench::new(lab, card, config);
    assert_eq!(bench.driver.interface().shape.queues, 4);
    let socket = UdpSocket::bind(format!("10.0.{card}.1:9")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let echo = std::thread::spawn(move || {
        for _ in 0..FLOWS {
            let mut bytes = [0; 2000];
            let (count, from) = socket.recv_from(&mut bytes).unwrap();
            socket.send_to(&bytes[..count], from).unwrap();
        }
    });
    let router = interface_mac(card);
    for flow in 0..FLOWS {
        let payload = noise(flow.into(), 700 + usize::from(flow));
        let packet = Packet {
            to: router,
            from: behind(card as u8, false),
            destination: IpAddress::v4(10, 0, card as u8, 1),
            protocol: IpProtocol::Udp,
            ports: (5000 + flow, 9),
            payload: &payload,
        };
        let data = bench.memory(&packet.finished(), 1, 64).unwrap();
        assert!(bench.submit(flow % 4, Frame::plain(Tag(flow.into()), data)));
    }
    bench.driver.kick(now());
    let mut echoed = BTreeSet::new();
    let mut queues = BTreeSet::new();
    bench.run_until_each(|queue, _, frame| {
        if let Some(((9, port), _, payload)) = take_apart(frame, IpProtocol::Udp) {
            let flow = port - 5000;
            assert!(payload == noise(flow.into(), 700 + usize::from(flow)));
            assert!(echoed.insert(flow), "once");
            queues.insert(queue);
        }
        echoed.len() == usize::from(FLOWS)
    });
    echo.join().unwrap();
    assert_eq!(queues.len(), 4, "the kernel answers by the queue that a flow came by: {card}");
    assert_eq!(bench.counter("device-resets"), 0, "{:?}", bench.events);
}
