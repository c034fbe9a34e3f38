//! What a card does to frames, beside sending and receiving them.

use bitflags::bitflags;

bitflags! {
    /// What a card can do to frames, in one direction.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Offloads: u16 {
        /// It computes checksums of frames to be sent; of those received, it may say that they are
        /// right, or leave them to be computed.
        const CHECKSUM = 1 << 0;
        /// TCP over IPv4 is cut into segments, or put together.
        const TCP4 = 1 << 1;
        /// TCP over IPv6.
        const TCP6 = 1 << 2;
        /// Of TCP, also segments with congestion notification (the CWR bit is in the first alone).
        const TCP_ECN = 1 << 3;
        /// UDP is cut into fragments of IP, or put together.
        const UDP_FRAGMENTS = 1 << 4;
        /// UDP is cut into datagrams, or put together.
        const UDP = 1 << 5;
        /// VLAN tags are put in, or taken out.
        const VLAN = 1 << 6;
    }
}

/// Where a frame's checksum is: the ones' complement sum over all from `start` on, which goes to
/// `start + offset`. What is there before is the sum over the pseudo header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksum {
    /// From which byte of the frame on.
    pub start: u16,
    /// How many bytes behind that it goes.
    pub offset: u16,
}

impl Checksum {
    /// Whether it lies within a frame of so many bytes.
    pub const fn is_within(self, bytes: usize) -> bool {
        self.start as usize + self.offset as usize + 2 <= bytes
    }
}

/// What the segments of a frame are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentationKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// Fragments of an IP packet with UDP in it.
    UdpFragments,
    /// Datagrams of UDP.
    Udp,
}

/// How a frame is cut into segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segmentation {
    /// What they are.
    pub kind: SegmentationKind,
    /// Whether congestion notification is on in the first (CWR).
    pub ecn: bool,
    /// Bytes of data in each but the last.
    pub segment_bytes: u16,
    /// Bytes of all headers, which each segment gets again. Of a frame that was received it is a
    /// hint, not to be relied upon.
    pub header_bytes: u16,
}

impl Segmentation {
    /// What a card must be able to do for it.
    pub const fn needs(&self) -> Offloads {
        let kind = match self.kind {
            SegmentationKind::Tcp4 => Offloads::TCP4,
            SegmentationKind::Tcp6 => Offloads::TCP6,
            SegmentationKind::UdpFragments => Offloads::UDP_FRAGMENTS,
            SegmentationKind::Udp => Offloads::UDP,
        };
        if self.ecn { kind.union(Offloads::TCP_ECN) } else { kind }
    }
}

/// What a card is to do to a frame before it goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Compute this checksum.
    pub checksum: Option<Checksum>,
    /// Cut it into segments; each gets the checksum, which must be asked for, too.
    pub segmentation: Option<Segmentation>,
    /// Put this tag in (IEEE 802.1Q §9.6).
    pub vlan_tag: Option<u16>,
}

impl Work {
    /// Nothing.
    pub const NONE: Self = Self { checksum: None, segmentation: None, vlan_tag: None };

    /// Whether it is nothing.
    #[inline]
    pub const fn is_none(&self) -> bool {
        self.checksum.is_none() && self.segmentation.is_none() && self.vlan_tag.is_none()
    }

    /// What a card must be able to do for it.
    pub const fn needs(&self) -> Offloads {
        let mut needs = match &self.segmentation {
            Some(segmentation) => segmentation.needs(),
            None => Offloads::empty(),
        };
        if self.checksum.is_some() {
            needs = needs.union(Offloads::CHECKSUM);
        }
        if self.vlan_tag.is_some() { needs.union(Offloads::VLAN) } else { needs }
    }

    /// Whether it makes sense for a frame of so many bytes.
    pub fn suits(&self, bytes: usize) -> bool {
        let checksum = self.checksum.is_none_or(|checksum| checksum.is_within(bytes));
        let segments = self.segmentation.is_none_or(|segmentation| {
            let inside = usize::from(segmentation.header_bytes) < bytes;
            let fragments = segmentation.kind == SegmentationKind::UdpFragments;
            inside && segmentation.segment_bytes > 0 && (self.checksum.is_some() || fragments)
        });
        checksum && segments
    }
}

/// What is known of a frame's checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumState {
    /// Nothing: it has to be looked at.
    Unknown,
    /// The card has found it right.
    Valid,
    /// It is not computed yet: the frame comes from somebody who left that to a card, on this same
    /// machine. Whoever passes the frame on to a network has to.
    Missing(Checksum),
}

/// What is known of a frame that has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Bytes of all its pieces.
    pub bytes: u32,
    /// Its checksum.
    pub checksum: ChecksumState,
    /// It was put together from, or never cut into, segments like these.
    pub segmentation: Option<Segmentation>,
    /// The tag that was taken out.
    pub vlan_tag: Option<u16>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_has_to_lie_within_its_frame() {
        let checksum =
            |start, offset| Work { checksum: Some(Checksum { start, offset }), ..Work::NONE };
        assert!(Work::NONE.suits(14) && Work::NONE.is_none());
        assert!(checksum(34, 16).suits(52));
        assert!(!checksum(34, 16).suits(51));
        assert!(!checksum(u16::MAX, u16::MAX).suits(1500));
        let segmentation = Segmentation {
            kind: SegmentationKind::Tcp4,
            ecn: false,
            segment_bytes: 1460,
            header_bytes: 54,
        };
        let whole = Work { segmentation: Some(segmentation), ..checksum(34, 16) };
        assert!(whole.suits(4000) && !whole.suits(54));
        assert_eq!(whole.needs(), Offloads::TCP4 | Offloads::CHECKSUM);
        assert!(!Work { checksum: None, ..whole }.suits(4000), "each segment needs its checksum");
        let none = Segmentation { segment_bytes: 0, ..segmentation };
        assert!(!Work { segmentation: Some(none), ..whole }.suits(4000));
        let ecn = Segmentation { ecn: true, ..segmentation };
        assert!(ecn.needs().contains(Offloads::TCP_ECN));
    }
}
