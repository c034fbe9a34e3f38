//! What a card does to frames, done by the processor: for whoever takes no frames on which work was
//! left to a card.

use crate::{Checksum, Segmentation, SegmentationKind};
use core::ops::Range;

/// EtherTypes (IEEE 802.3 §3.2.6): a VLAN tag follows (IEEE 802.1Q §9.5).
const VLAN: u16 = 0x8100;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// Bytes of an IPv4 header without options (RFC 791 §3.1), and of an IPv6 header (RFC 8200 §3).
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
/// Bytes of a TCP header without options (RFC 9293 §3.1), and of a UDP header (RFC 768).
const TCP_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
/// Protocol numbers in IP headers.
const TCP: u16 = 6;
const UDP: u16 = 17;
/// Control bits in byte 13 of a TCP header.
const FIN: u8 = 1 << 0;
const PUSH: u8 = 1 << 3;
const CWR: u8 = 1 << 7;

/// Computes a checksum that was left out: what is there before is the sum over the pseudo header
/// (RFC 1071). A checksum that does not lie in the frame is left alone.
pub fn fill_checksum(frame: &mut [u8], checksum: Checksum) {
    if !checksum.is_within(frame.len()) {
        return;
    }
    let start = usize::from(checksum.start);
    let at = start + usize::from(checksum.offset);
    let sum = fold(add(0, &frame[start..]));
    // Nothing at all means in UDP that there is none; both are zero.
    let value = if sum == u16::MAX { sum } else { !sum };
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Adds 16-bit words to a sum; the last is filled up with zeros.
fn add(sum: u64, bytes: &[u8]) -> u64 {
    let words = bytes.chunks(2).map(|word| match word {
        [high, low] => u64::from(*high) << 8 | u64::from(*low),
        [high] => u64::from(*high) << 8,
        _ => 0,
    });
    sum + words.sum::<u64>()
}

fn fold(mut sum: u64) -> u16 {
    while sum > u64::from(u16::MAX) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A frame that is to be cut into segments.
#[derive(Debug, Clone)]
pub struct Segments<'a> {
    frame: &'a [u8],
    kind: SegmentationKind,
    /// Where IP's header begins.
    ip: usize,
    /// Where that of TCP or UDP begins.
    transport: usize,
    /// Bytes of all headers.
    headers: usize,
    /// Bytes of data in each segment but the last.
    each: usize,
}

impl<'a> Segments<'a> {
    /// Finds the headers of a frame; `None` if it is not of the kind that `segmentation` says, or of
    /// fragments, which are not made here.
    pub fn of(frame: &'a [u8], segmentation: &Segmentation) -> Option<Self> {
        let kind = segmentation.kind;
        let half = |at: usize| Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?));
        let (mut ip, mut protocol) = (14, half(12)?);
        if protocol == VLAN {
            (ip, protocol) = (18, half(16)?);
        }
        let is_tcp = matches!(kind, SegmentationKind::Tcp4 | SegmentationKind::Tcp6);
        let (bytes, carried) = match (protocol, kind) {
            (_, SegmentationKind::UdpFragments) => return None,
            (IPV4, SegmentationKind::Tcp4 | SegmentationKind::Udp) => {
                (usize::from(frame.get(ip)? & 0xf) * 4, *frame.get(ip + 9)?)
            }
            // Extension headers are not looked for.
            (IPV6, SegmentationKind::Tcp6 | SegmentationKind::Udp) => {
                (IPV6_BYTES, *frame.get(ip + 6)?)
            }
            _ => return None,
        };
        if bytes < IPV4_BYTES || u16::from(carried) != if is_tcp { TCP } else { UDP } {
            return None;
        }
        let transport = ip + bytes;
        let header = match is_tcp {
            true => usize::from(*frame.get(transport + 12)? >> 4) * 4,
            false => UDP_BYTES,
        };
        let headers = transport + header;
        let each = usize::from(segmentation.segment_bytes);
        let whole = (!is_tcp || header >= TCP_BYTES) && headers < frame.len() && each > 0;
        whole.then_some(Self { frame, kind, ip, transport, headers, each })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        (self.frame.len() - self.headers).div_ceil(self.each)
    }

    fn data(&self, number: usize) -> Range<usize> {
        let start = self.headers + self.each * number;
        start..(start + self.each).min(self.frame.len())
    }

    /// How many bytes such a segment has, headers included.
    pub fn bytes(&self, number: usize) -> usize {
        self.headers + self.data(number).len()
    }

    /// Writes a segment, with all its checksums, to memory of [`bytes`](Self::bytes) bytes.
    pub fn write(&self, number: usize, into: &mut [u8]) {
        let data = self.data(number);
        let (headers, rest) = into.split_at_mut(self.headers);
        headers.copy_from_slice(&self.frame[..self.headers]);
        rest.copy_from_slice(&self.frame[data.clone()]);
        let length = into.len() - self.transport;
        self.write_ip(number, length, into);
        let segment = &mut into[self.transport..];
        let at = match self.kind {
            SegmentationKind::Udp | SegmentationKind::UdpFragments => {
                segment[4..6].copy_from_slice(&(length as u16).to_be_bytes());
                6
            }
            SegmentationKind::Tcp4 | SegmentationKind::Tcp6 => {
                let before = (data.start - self.headers) as u32;
                let sequence = [segment[4], segment[5], segment[6], segment[7]];
                let sequence = u32::from_be_bytes(sequence).wrapping_add(before);
                segment[4..8].copy_from_slice(&sequence.to_be_bytes());
                if number > 0 {
                    segment[13] &= !CWR;
                }
                if number + 1 < self.count() {
                    segment[13] &= !(FIN | PUSH);
                }
                16
            }
        };
        let pseudo = fold(self.pseudo_header(length));
        into[self.transport + at..][..2].copy_from_slice(&pseudo.to_be_bytes());
        let checksum = Checksum { start: self.transport as u16, offset: at as u16 };
        fill_checksum(into, checksum);
    }

    /// IP's length, and of IPv4 what identifies the packet, and the header's checksum.
    fn write_ip(&self, number: usize, length: usize, into: &mut [u8]) {
        let header = &mut into[self.ip..self.transport];
        let bytes = header.len();
        if self.is_ipv4() {
            header[2..4].copy_from_slice(&((bytes + length) as u16).to_be_bytes());
            let id = u16::from_be_bytes([header[4], header[5]]).wrapping_add(number as u16);
            header[4..6].copy_from_slice(&id.to_be_bytes());
            header[10..12].fill(0);
            fill_checksum(header, Checksum { start: 0, offset: 10 });
        } else {
            header[4..6].copy_from_slice(&(length as u16).to_be_bytes());
        }
    }

    fn is_ipv4(&self) -> bool {
        self.frame[self.ip] >> 4 == 4
    }

    /// The sum over addresses, protocol and length (RFC 9293 §3.1, RFC 8200 §8.1).
    fn pseudo_header(&self, length: usize) -> u64 {
        let addresses = if self.is_ipv4() { 12..20 } else { 8..40 };
        let addresses = &self.frame[self.ip..][addresses];
        let protocol = match self.kind {
            SegmentationKind::Tcp4 | SegmentationKind::Tcp6 => TCP,
            SegmentationKind::Udp | SegmentationKind::UdpFragments => UDP,
        };
        add(u64::from(protocol) + length as u64, addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    const DATA: usize = 5000;

    /// A frame with 5000 bytes of data, and what is in the headers that matters.
    fn frame(ip: &[u8], transport: &[u8], ether_type: u16) -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend(ether_type.to_be_bytes());
        frame.extend(ip);
        frame.extend(transport);
        frame.extend((0..DATA).map(|at| (at / 3) as u8));
        frame
    }

    fn tcp(is_ipv4: bool) -> Vec<u8> {
        let mut transport = [7; 20];
        transport[4..8].copy_from_slice(&0xffff_ff00u32.to_be_bytes());
        (transport[12], transport[13]) = (5 << 4, FIN | PUSH | CWR | 0x10);
        if is_ipv4 {
            let mut ip = [1; 20];
            (ip[0], ip[9]) = (0x45, TCP as u8);
            frame(&ip, &transport, IPV4)
        } else {
            let mut ip = [1; 40];
            (ip[0], ip[6]) = (0x60, TCP as u8);
            frame(&ip, &transport, IPV6)
        }
    }

    fn kind(kind: SegmentationKind) -> Segmentation {
        Segmentation { kind, ecn: true, segment_bytes: 1400, header_bytes: 0 }
    }

    /// Whether all checksums of a segment are right.
    fn is_right(segments: &Segments<'_>, segment: &[u8]) -> bool {
        let pseudo = segments.pseudo_header(segment.len() - segments.transport);
        let ip = &segment[segments.ip..segments.transport];
        let header = !segments.is_ipv4() || fold(add(0, ip)) == u16::MAX;
        header && fold(add(pseudo, &segment[segments.transport..])) == u16::MAX
    }

    #[test]
    fn tcp_is_cut_into_segments_that_each_stand_alone() {
        for (is_ipv4, kind) in
            [(true, kind(SegmentationKind::Tcp4)), (false, kind(SegmentationKind::Tcp6))]
        {
            let frame = tcp(is_ipv4);
            let segments = Segments::of(&frame, &kind).unwrap();
            assert_eq!(segments.count(), 4);
            let mut data: Vec<u8> = Vec::new();
            for number in 0..4 {
                let mut segment = vec![0; segments.bytes(number)];
                segments.write(number, &mut segment);
                assert!(is_right(&segments, &segment), "{number}");
                let header = &segment[segments.transport..];
                let sequence = u32::from_be_bytes(header[4..8].try_into().unwrap());
                assert_eq!(sequence, 0xffff_ff00u32.wrapping_add(1400 * number as u32));
                assert_eq!(header[13] & CWR != 0, number == 0);
                assert_eq!(header[13] & (FIN | PUSH) != 0, number == 3);
                let length = if is_ipv4 { segment.len() - 14 } else { segment.len() - 54 };
                let at = if is_ipv4 { 16 } else { 18 };
                assert_eq!(segment[at..at + 2], (length as u16).to_be_bytes());
                data.extend(&segment[segments.headers..]);
            }
            assert_eq!(data, frame[segments.headers..]);
        }
    }

    #[test]
    fn datagrams_get_their_own_lengths_behind_a_vlan_tag_too() {
        let mut ip = [1; 20];
        (ip[0], ip[9]) = (0x45, UDP as u8);
        let mut plain = frame(&ip, &[9; 8], IPV4);
        plain.splice(12..12, [0x81, 0, 0, 5]);
        let segments = Segments::of(&plain, &kind(SegmentationKind::Udp)).unwrap();
        let mut last = vec![0; segments.bytes(3)];
        segments.write(3, &mut last);
        assert!(is_right(&segments, &last));
        assert_eq!(last[18 + 20 + 4..][..2], (808u16).to_be_bytes());
    }

    #[test]
    fn what_is_not_what_it_is_said_to_be_is_not_cut() {
        let (four, six) = (tcp(true), tcp(false));
        assert!(Segments::of(&four, &kind(SegmentationKind::Tcp6)).is_none());
        assert!(Segments::of(&six, &kind(SegmentationKind::Tcp4)).is_none());
        assert!(Segments::of(&four, &kind(SegmentationKind::Udp)).is_none());
        assert!(Segments::of(&four, &kind(SegmentationKind::UdpFragments)).is_none());
        let none = Segmentation { segment_bytes: 0, ..kind(SegmentationKind::Tcp4) };
        assert!(Segments::of(&four, &none).is_none());
        // Cut short anywhere in the headers, or with lengths that lie.
        for bytes in 0..54 {
            assert!(Segments::of(&four[..bytes], &kind(SegmentationKind::Tcp4)).is_none());
        }
        for (at, byte) in [(14, 0x41), (14, 0x4f), (46, 0x10)] {
            let mut frame = four.clone();
            frame[at] = byte;
            if let Some(segments) = Segments::of(&frame, &kind(SegmentationKind::Tcp4)) {
                let mut last = vec![0; segments.bytes(segments.count() - 1)];
                segments.write(segments.count() - 1, &mut last);
            }
        }
    }

    #[test]
    fn a_checksum_goes_where_it_belongs_or_nowhere() {
        let mut frame = [0, 0, 0x12, 0x34, 0, 0, 0x56, 0x78, 0x9a];
        fill_checksum(&mut frame, Checksum { start: 2, offset: 2 });
        assert_eq!(fold(add(0, &frame[2..])), u16::MAX);
        let before = frame;
        fill_checksum(&mut frame, Checksum { start: 8, offset: 0 });
        fill_checksum(&mut frame, Checksum { start: u16::MAX, offset: u16::MAX });
        assert_eq!(frame, before);
    }
}
