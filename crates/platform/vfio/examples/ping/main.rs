//! Frames through a network card that a driver of ours has: a program for tests, not for users.
//!
//! `ping ADDRESS OWN PEER` starts the driver of virtio network cards on a function, takes the IPv4
//! address `OWN` there, and sends echo requests of all sizes to `PEER`, which has to be asked for its
//! hardware address first. Every answer has to be right.
#![forbid(unsafe_code)]

mod card;
mod stack;

use card::Card;
use outboard_linux::now;
use outboard_vfio::{Confinement, Vfio, VfioConfig};
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::icmp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, Icmpv4Packet, Icmpv4Repr, IpAddress, IpCidr, Ipv4Address};
use stack::Stack;
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// Why something went wrong.
type Failure = Box<dyn Error>;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);
/// The most bytes of an echo request, in a frame of 1514 bytes behind the headers of Ethernet, IPv4
/// and ICMP.
const MOST_BYTES: usize = 1514 - 14 - 20 - 8;
/// How many there are, of sizes from none to the most.
const REQUESTS: usize = 64;
/// How many are under way at once.
const DEPTH: u16 = 16;
/// What they are told by.
const NAME: u16 = 0x6f62;

fn main() -> ExitCode {
    match run() {
        Ok(said) => {
            let _ = writeln!(std::io::stdout(), "{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "ping: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<String, Failure> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| arguments.next().ok_or(format!("{what} is missing"));
    let (address, own, peer) = (next("ADDRESS")?, next("OWN")?, next("PEER")?);
    let own: Ipv4Address = own.parse()?;
    let peer: Ipv4Address = peer.parse()?;
    let confinement = match arguments.next().as_deref() {
        Some("unconfined") => Confinement::DevicesReachAllMemory,
        _ => Confinement::Iommu,
    };
    let functions = vec![address.parse()?];
    let config = VfioConfig {
        functions,
        dma_bytes: 16 << 20,
        foreign_bytes: 0,
        interrupts: None,
        confinement,
    };
    let (_vfio, functions) = Vfio::open(&config)?;
    let (device, interrupts) = functions.into_iter().next().ok_or("no function")?;
    let mut card = Card::start(device, interrupts)?;
    let frames = echo(&mut card, own, peer)?;
    card.stop()?;
    Ok(format!("{REQUESTS} echoes, {frames} frames"))
}

/// What is sent with a number.
fn content(number: usize) -> Vec<u8> {
    let bytes = MOST_BYTES * number / (REQUESTS - 1);
    (0..bytes).map(|at| (at * 31 + number * 7) as u8).collect()
}

/// Sends all, and waits for the answers; how many frames have come.
fn echo(card: &mut Card, own: Ipv4Address, peer: Ipv4Address) -> Result<u64, Failure> {
    let mut stack = Stack::default();
    let time = || Instant::from_micros((now().as_nanos() / 1000) as i64);
    let config = Config::new(EthernetAddress(card.mac()).into());
    let mut interface = Interface::new(config, &mut stack, time());
    interface.update_ip_addrs(|addresses| {
        let _ = addresses.push(IpCidr::new(own.into(), 24));
    });
    let buffer = || {
        let slots = vec![icmp::PacketMetadata::EMPTY; DEPTH.into()];
        icmp::PacketBuffer::new(slots, vec![0; 2048 * usize::from(DEPTH)])
    };
    let mut socket = icmp::Socket::new(buffer(), buffer());
    socket.bind(icmp::Endpoint::Ident(NAME)).map_err(|error| error.to_string())?;
    let mut sockets = SocketSet::new(Vec::new());
    let handle = sockets.add(socket);
    let (mut sent, mut answered, mut waiting) = (0, 0, Vec::new());
    let end = now() + LIMIT;
    while answered < REQUESTS {
        if now().reached(end) {
            return Err(format!("{answered} of {sent} answers came; {}", card.told()).into());
        }
        let socket = sockets.get_mut::<icmp::Socket<'_>>(handle);
        while sent < REQUESTS && waiting.len() < DEPTH.into() && socket.can_send() {
            request(socket, peer, sent as u16)?;
            waiting.push(sent as u16);
            sent += 1;
        }
        interface.poll(time(), &mut stack, &mut sockets);
        card.exchange(&mut stack)?;
        interface.poll(time(), &mut stack, &mut sockets);
        let socket = sockets.get_mut::<icmp::Socket<'_>>(handle);
        while socket.can_recv() {
            let number = answer(socket, peer)?;
            let place = waiting.iter().position(|one| *one == number);
            waiting.swap_remove(place.ok_or("an answer came that nobody waits for")?);
            answered += 1;
        }
        let until = interface.poll_delay(time(), &sockets).map(Duration::from);
        if stack.sent.is_empty() && answered < REQUESTS {
            card.wait(until)?;
        }
    }
    Ok(card.received())
}

fn request(socket: &mut icmp::Socket<'_>, peer: Ipv4Address, number: u16) -> Result<(), Failure> {
    let data = content(number.into());
    let request = Icmpv4Repr::EchoRequest { ident: NAME, seq_no: number, data: &data };
    let room = socket.send(request.buffer_len(), IpAddress::Ipv4(peer));
    let room = room.map_err(|error| error.to_string())?;
    request.emit(&mut Icmpv4Packet::new_unchecked(room), &ChecksumCapabilities::default());
    Ok(())
}

/// The number that an answer is to.
fn answer(socket: &mut icmp::Socket<'_>, peer: Ipv4Address) -> Result<u16, Failure> {
    let (bytes, from) = socket.recv().map_err(|error| error.to_string())?;
    let packet = Icmpv4Packet::new_checked(bytes).map_err(|error| error.to_string())?;
    match Icmpv4Repr::parse(&packet, &ChecksumCapabilities::default()) {
        Ok(Icmpv4Repr::EchoReply { ident: NAME, seq_no, data })
            if from == IpAddress::Ipv4(peer) && data == content(seq_no.into()) =>
        {
            Ok(seq_no)
        }
        other => Err(format!("not an answer: {other:?} from {from}").into()),
    }
}
