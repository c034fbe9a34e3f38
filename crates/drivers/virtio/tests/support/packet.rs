//! Packets of IP, made by hand, and taken apart by smoltcp.

use outboard_net::Checksum;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket,
    UdpPacket,
};

/// A packet to be made.
pub struct Packet<'a> {
    pub to: [u8; 6],
    pub from: IpAddress,
    pub destination: IpAddress,
    pub protocol: IpProtocol,
    pub ports: (u16, u16),
    pub payload: &'a [u8],
}

/// Sum of 16-bit words, folded.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for part in parts {
        for word in part.chunks(2) {
            sum += u64::from(u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

fn octets(address: IpAddress) -> Vec<u8> {
    match address {
        IpAddress::Ipv4(address) => address.octets().to_vec(),
        IpAddress::Ipv6(address) => address.octets().to_vec(),
    }
}

impl Packet<'_> {
    /// The frame, with what its checksum begins with, and where the rest of it has to go; and how
    /// many bytes of it are headers.
    pub fn unfinished(&self) -> (Vec<u8>, Checksum, u16) {
        let (source, destination) = (octets(self.from), octets(self.destination));
        let v6 = source.len() == 16;
        let mut inner = Vec::new();
        for port in [self.ports.0, self.ports.1] {
            inner.extend(port.to_be_bytes());
        }
        let offset = if self.protocol == IpProtocol::Tcp {
            inner.extend(1u32.to_be_bytes()); // The sequence begins here.
            inner.extend(1u32.to_be_bytes());
            inner.extend([0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]); // 20 bytes; ACK, PSH.
            16
        } else {
            inner.extend((8 + self.payload.len() as u16).to_be_bytes());
            inner.extend([0, 0]);
            6
        };
        let head = inner.len();
        inner.extend(self.payload);
        let protocol = u8::from(self.protocol);
        let length = (inner.len() as u32).to_be_bytes();
        let pseudo = sum(&[&source, &destination, &[0, protocol], &length]);
        inner[offset..offset + 2].copy_from_slice(&pseudo.to_be_bytes());
        let mut frame = [&self.to[..], &[2, 0, 0, 0, 0, 9]].concat();
        if v6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((inner.len() as u16).to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend([source, destination].concat());
        } else {
            frame.extend([0x08, 0x00]);
            let mut header = vec![0x45, 0];
            header.extend((20 + inner.len() as u16).to_be_bytes());
            header.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
            header.extend([source, destination].concat());
            let checksum = !sum(&[&header]);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            frame.extend(header);
        }
        let start = frame.len() as u16;
        frame.extend(inner);
        (frame, Checksum { start, offset: offset as u16 }, start + head as u16)
    }

    /// The frame with its checksum.
    pub fn finished(&self) -> Vec<u8> {
        let (mut frame, Checksum { start, offset }, _) = self.unfinished();
        let checksum = !sum(&[&frame[start.into()..]]);
        let at = usize::from(start + offset);
        frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        frame
    }
}

/// What is in a frame that was found right: ports, where in the sequence it is (of TCP), and the
/// payload. `None` if it is of another protocol.
pub fn take_apart(frame: &[u8], protocol: IpProtocol) -> Option<((u16, u16), u32, Vec<u8>)> {
    let frame = EthernetFrame::new_checked(frame).unwrap();
    let (source, destination, inner) = match frame.ethertype() {
        EthernetProtocol::Ipv4 => {
            let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
            assert!(packet.verify_checksum());
            if packet.next_header() != protocol {
                return None;
            }
            let addresses = (packet.src_addr().into(), packet.dst_addr().into());
            (addresses.0, addresses.1, packet.payload().to_vec())
        }
        EthernetProtocol::Ipv6 => {
            let packet = Ipv6Packet::new_checked(frame.payload()).unwrap();
            if packet.next_header() != protocol {
                return None;
            }
            let addresses = (packet.src_addr().into(), packet.dst_addr().into());
            (addresses.0, addresses.1, packet.payload().to_vec())
        }
        _ => return None,
    };
    let (source, destination): (IpAddress, IpAddress) = (source, destination);
    if protocol == IpProtocol::Tcp {
        let packet = TcpPacket::new_checked(&inner[..]).unwrap();
        assert!(packet.verify_checksum(&source, &destination), "a wrong checksum");
        let ports = (packet.src_port(), packet.dst_port());
        Some((ports, packet.seq_number().0 as u32, packet.payload().to_vec()))
    } else {
        let packet = UdpPacket::new_checked(&inner[..]).unwrap();
        assert!(packet.verify_checksum(&source, &destination), "a wrong checksum");
        Some(((packet.src_port(), packet.dst_port()), 0, packet.payload().to_vec()))
    }
}
