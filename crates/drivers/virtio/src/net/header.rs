//! What stands before a frame in memory (§5.1.6), from and into words.

use crate::spec::net::{
    DATA_VALID, GSO_ECN, GSO_NONE, GSO_TCP4, GSO_TCP6, GSO_UDP, GSO_UDP_L4, Header, NEEDS_CHECKSUM,
};
use outboard_net::{
    Arrival, Checksum, ChecksumState, Offloads, Segmentation, SegmentationKind, Work,
};

/// What is to be done to a frame.
pub fn describe(work: &Work) -> Header {
    let mut header = Header::default();
    if let Some(checksum) = work.checksum {
        header.flags = NEEDS_CHECKSUM;
        header.checksum_start = checksum.start.into();
        header.checksum_offset = checksum.offset.into();
    }
    if let Some(segmentation) = work.segmentation {
        let kind = match segmentation.kind {
            SegmentationKind::Tcp4 => GSO_TCP4,
            SegmentationKind::Tcp6 => GSO_TCP6,
            SegmentationKind::UdpFragments => GSO_UDP,
            SegmentationKind::Udp => GSO_UDP_L4,
        };
        header.gso_kind = kind | if segmentation.ecn { GSO_ECN } else { 0 };
        header.header_bytes = segmentation.header_bytes.into();
        header.gso_bytes = segmentation.segment_bytes.into();
    }
    header
}

/// What is known of a frame of so many bytes, if it can be so: the device says no more than was
/// `agreed` upon, and nothing that lies behind the frame's end.
#[inline]
pub fn arrival(header: &Header, bytes: u32, agreed: Offloads) -> Option<Arrival> {
    match is_plain(header) {
        true => Some(plain(bytes)),
        false => special(header, agreed, plain(bytes)),
    }
}

/// Whether nothing is said of a frame.
#[inline]
pub(super) const fn is_plain(header: &Header) -> bool {
    header.flags & (NEEDS_CHECKSUM | DATA_VALID) == 0 && header.gso_kind == GSO_NONE
}

/// What is known of a frame of which nothing is said.
#[inline]
pub(super) const fn plain(bytes: u32) -> Arrival {
    Arrival { bytes, checksum: ChecksumState::Unknown, segmentation: None, vlan_tag: None }
}

fn special(header: &Header, agreed: Offloads, plain: Arrival) -> Option<Arrival> {
    // Of frames that are put together a device of an older kind need not know the checksum.
    if !agreed.contains(Offloads::CHECKSUM) {
        return None;
    }
    let bytes = plain.bytes as usize;
    let checksum = if header.flags & NEEDS_CHECKSUM != 0 {
        let (start, offset) = (header.checksum_start.get(), header.checksum_offset.get());
        let checksum = Checksum { start, offset };
        ChecksumState::Missing(Some(checksum).filter(|checksum| checksum.is_within(bytes))?)
    } else if header.flags & DATA_VALID != 0 {
        ChecksumState::Valid
    } else {
        ChecksumState::Unknown
    };
    let kind = match header.gso_kind & !GSO_ECN {
        GSO_NONE => return Some(Arrival { checksum, ..plain }),
        GSO_TCP4 => SegmentationKind::Tcp4,
        GSO_TCP6 => SegmentationKind::Tcp6,
        GSO_UDP => SegmentationKind::UdpFragments,
        GSO_UDP_L4 => SegmentationKind::Udp,
        _ => return None,
    };
    let segmentation = Segmentation {
        kind,
        ecn: header.gso_kind & GSO_ECN != 0,
        segment_bytes: header.gso_bytes.get(),
        header_bytes: header.header_bytes.get().min(u16::try_from(bytes).unwrap_or(u16::MAX)),
    };
    if segmentation.segment_bytes == 0 || !agreed.contains(segmentation.needs()) {
        return None;
    }
    Some(Arrival { checksum, segmentation: Some(segmentation), ..plain })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Offloads = Offloads::all();

    fn segments(kind: u8, gso_bytes: u16) -> Header {
        Header {
            flags: NEEDS_CHECKSUM,
            gso_kind: kind,
            header_bytes: 54.into(),
            gso_bytes: gso_bytes.into(),
            checksum_start: 34.into(),
            checksum_offset: 16.into(),
            buffers: 1.into(),
        }
    }

    #[test]
    fn what_one_side_describes_the_other_understands() {
        for kind in [
            SegmentationKind::Tcp4,
            SegmentationKind::Tcp6,
            SegmentationKind::UdpFragments,
            SegmentationKind::Udp,
        ] {
            for ecn in [false, true] {
                let segmentation =
                    Segmentation { kind, ecn, segment_bytes: 1460, header_bytes: 54 };
                let checksum = Checksum { start: 34, offset: 16 };
                let work = Work {
                    checksum: Some(checksum),
                    segmentation: Some(segmentation),
                    vlan_tag: None,
                };
                let arrival = arrival(&describe(&work), 4000, ALL).unwrap();
                assert_eq!(arrival.segmentation, work.segmentation);
                assert_eq!(arrival.checksum, ChecksumState::Missing(checksum));
                assert_eq!(arrival.bytes, 4000);
            }
        }
        let plain = arrival(&describe(&Work::NONE), 60, Offloads::empty()).unwrap();
        assert_eq!((plain.checksum, plain.segmentation), (ChecksumState::Unknown, None));
    }

    #[test]
    fn nonsense_is_told_from_sense() {
        assert!(arrival(&segments(GSO_TCP4, 1460), 52, ALL).is_some());
        assert!(arrival(&segments(GSO_TCP4, 1460), 51, ALL).is_none(), "behind the end");
        assert!(arrival(&segments(GSO_TCP4, 0), 4000, ALL).is_none(), "without an end");
        assert!(arrival(&segments(2, 1460), 4000, ALL).is_none(), "of no kind");
        assert!(arrival(&segments(GSO_ECN, 1460), 4000, ALL).is_some(), "of one segment");
        let without = ALL.difference(Offloads::TCP4);
        assert!(arrival(&segments(GSO_TCP4, 1460), 4000, without).is_none(), "not agreed upon");
        assert!(arrival(&segments(GSO_NONE, 0), 4000, Offloads::empty()).is_none());
        let valid = Header { flags: DATA_VALID, ..Header::default() };
        let valid = arrival(&valid, 60, Offloads::CHECKSUM).unwrap();
        assert_eq!(valid.checksum, ChecksumState::Valid);
        let short = Header { header_bytes: u16::MAX.into(), ..segments(GSO_TCP4, 1) };
        let short = arrival(&short, 60, ALL).unwrap().segmentation.unwrap();
        assert_eq!(short.header_bytes, 60);
    }
}
